"""The contenders: one file each. It describes the contender to the suite; for those in Python it is the server too.

A file is imported by the suite's interpreter to read `CONTENDERS`, and run in the contender's own environment as
`python -m benchmarks.contenders.NAME`: it imports nothing foreign at its top, and this package nothing but the standard
library. The environment variables of a server hold its `Task`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Literal

FILES: Final = (
    "gai_fast",
    "nginx",
    "go_net_http",
    "aiohttp_orjson",
    "aiohttp_sse",
    "granian",
    "fastapi_sse",
    "sse_starlette",
    "litellm",
    "portkey",
    "gai_fast_embedded",
    "tensorzero_embedded",
)

Does = Literal["normalizes", "passes through", "copies bytes"]
"""The treatment of an answer: parsed and written again as other events · parsed or checked and passed on in the same
dialect · copied unread."""


@dataclass(frozen=True, slots=True)
class Route:
    """The requests that a contender gets, and the marks in its answers.

    Args:
        path: The path of the POST.
        body: The request, sent as JSON.
        key: The member of an event's object that holds the text of a delta.
        end: A text of the last event that no other event holds.
        headers: More headers of the request; `{upstream}` stands for the URL of the provider.
        is_socket: The path opens a WebSocket, over which requests are sent.
    """

    path: str
    body: Mapping[str, Any]
    key: str
    end: str
    headers: Mapping[str, str] = field(default_factory=dict)
    is_socket: bool = False


QUERY: Final = "Tell me a story about a lighthouse keeper."
EVENTS: Final = Route("/api/v1/stream", {"model": "bench", "query": QUERY}, "text", '"finished":true')
"""Normalized events: `gai.events.v1` and the events of the hand-written servers."""
CHAT: Final = Route(
    "/v1/chat/completions",
    {
        "model": "bench",
        "messages": [{"role": "user", "content": QUERY}],
        "stream": True,
        "stream_options": {"include_usage": True},
    },
    "content",
    "[DONE]",
)
"""OpenAI's dialect."""
RESPONSES: Final = Route(
    "/v1/responses",
    {"model": "bench-responses", "input": QUERY, "stream": True},
    "delta",
    '"type":"response.completed"',
)
MESSAGES: Final = Route(
    "/v1/messages",
    {
        "model": "bench-messages",
        "messages": [{"role": "user", "content": QUERY}],
        "max_tokens": 4096,
        "stream": True,
    },
    "text",
    '"type":"message_stop"',
)
MEMORY: Final = Route("/memory", {}, "text", '"finished":true')
"""The same events without an upstream."""


@dataclass(frozen=True, slots=True)
class Place:
    """The place that a contender runs in.

    Args:
        python: The interpreter of its environment.
        port: The port to listen on, on loopback.
        upstream: The URL of the fake provider; empty: there is none in this scenario.
        certificate: The certificate of a provider that speaks TLS. `SSL_CERT_FILE` and `NODE_EXTRA_CA_CERTS` name it
            too.
        folder: An empty folder for its files, gone afterwards.
        cache: A folder that is kept, for builds.
    """

    python: Path
    port: int
    upstream: str
    folder: Path
    cache: Path
    certificate: Path | None = None


def own_server(module: str) -> Callable[[Place], Sequence[str]]:
    """Returns the command of a contender whose file is its server."""
    return lambda place: (str(place.python), "-P", "-m", module)


@dataclass(frozen=True, slots=True)
class Contender:
    """One line of the report.

    Args:
        name: Its name in the report.
        does: Its treatment of an answer.
        note: The means, in a sentence.
        command: The command that runs it.
        route: The request for a relayed answer. None if it relays none, or only those of `wires`.
        wires: Further requests, in scenarios of their own (`Scenario.wire`).
        memory: The request for an answer that it makes itself. None if it makes none.
        requirements: The packages of its own environment; empty: it runs in the suite's.
        distributions: The packages whose versions are reported.
        version: Instead, a command that prints the version.
        prepare: Builds the program of the command; its `RuntimeError` holds the reason of a failure.
        environment: Variables besides the variables of `Task`.
        quick: Whether `make bench-quick` measures it.
        most_streams: Streams it is asked to hold open at most.
        start_seconds: The longest time until it listens.
    """

    name: str
    does: Does
    note: str
    command: Callable[[Place], Sequence[str]]
    route: Route | None = EVENTS
    wires: Mapping[str, Route] = field(default_factory=dict)
    memory: Route | None = None
    requirements: tuple[str, ...] = ()
    distributions: tuple[str, ...] = ()
    version: Callable[[Place], Sequence[str]] | None = None
    prepare: Callable[[Place], None] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    quick: bool = False
    most_streams: int = 1 << 20
    start_seconds: float = 30.0


def load() -> list[Contender]:
    """Returns all contenders, in the order of the report."""
    return [one for file in FILES for one in import_module(f"{__name__}.{file}").CONTENDERS]


@dataclass(frozen=True, slots=True)
class Task:
    """The task of a server of ours, as environment variables.

    Args:
        port: The port to listen on, on loopback.
        upstream: The URL to ask, path included; empty: none.
        events: Deltas of an answer from memory.
        words: The file of their texts.
    """

    port: int
    upstream: str
    events: int
    words: str

    @property
    def environment(self) -> dict[str, str]:
        """As variables."""
        return {
            "BENCH_PORT": str(self.port),
            "BENCH_UPSTREAM": self.upstream,
            "BENCH_EVENTS": str(self.events),
            "BENCH_WORDS": self.words,
        }

    @classmethod
    def from_environment(cls) -> Task:
        """In the server's process."""
        given = os.environ
        return cls(int(given["BENCH_PORT"]), given["BENCH_UPSTREAM"], int(given["BENCH_EVENTS"]), given["BENCH_WORDS"])

    def texts(self) -> list[str]:
        """Returns the texts of an answer from memory; the client expects the place of a time stamp in each."""
        lines = Path(self.words).read_text(encoding="utf-8").split("\n")
        words = [json.loads(f'"{line}"') for line in lines if line]
        return [f"{0:013d}{words[index % len(words)]}" for index in range(self.events)]
