"""The contenders: one file each, which describes it to the suite and, for those in Python, is its server too.

A file is imported by the suite's interpreter to read `CONTENDERS`, and run in the contender's own environment as
`python -m benchmarks.contenders.NAME`: it imports nothing foreign at its top, and this package nothing but the standard
library. What a server is to do stands in its environment variables, `Task`.
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
)

Does = Literal["normalizes", "passes through", "copies bytes"]
"""What becomes of an answer: parsed and written anew as other events · parsed or checked and passed on in the same
dialect · copied without a look."""


@dataclass(frozen=True, slots=True)
class Route:
    """How a contender is asked, and how its answer is read.

    Args:
        path: What is posted to.
        body: The request, sent as JSON.
        key: The member of an event's object that holds the text of a delta.
        end: What stands in the last event and in no other.
    """

    path: str
    body: Mapping[str, Any]
    key: str
    end: str


QUERY: Final = "Tell me a story about a lighthouse keeper."
EVENTS: Final = Route("/api/v1/stream", {"model": "bench", "query": QUERY}, "text", '"finished":true')
"""Normalized events: `gai.events.v1` and what the hand-written servers send."""
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
MEMORY: Final = Route("/memory", {}, "text", '"finished":true')
"""The same events without an upstream."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a contender runs.

    Args:
        python: The interpreter of its environment.
        port: The port to listen on, on loopback.
        upstream: The URL of the fake provider; empty: there is none in this scenario.
        folder: An empty folder for its files, gone afterwards.
        cache: The folder that stays, for what is built once.
    """

    python: Path
    port: int
    upstream: str
    folder: Path
    cache: Path


def own_server(module: str) -> Callable[[Place], Sequence[str]]:
    """The command of a contender whose file is its server."""
    return lambda place: (str(place.python), "-P", "-m", module)


@dataclass(frozen=True, slots=True)
class Contender:
    """One line of the report.

    Args:
        name: As the report calls it.
        does: What it does with an answer.
        note: How it does that, in a sentence.
        command: What is run.
        route: How it is asked for a relayed answer; `None`: it relays none.
        memory: How it is asked for an answer that it makes itself; `None`: it makes none.
        requirements: What pip installs into an environment of its own; empty: it runs in the suite's.
        distributions: The packages whose versions are reported.
        version: Instead, a command that prints the version.
        prepare: Builds what the command runs; its `RuntimeError` says why that cannot be.
        environment: Variables besides those of `Task`.
        quick: Whether `make bench-quick` measures it.
        most_streams: Streams it is asked to hold open at most.
        start_seconds: How long it may take to listen.
    """

    name: str
    does: Does
    note: str
    command: Callable[[Place], Sequence[str]]
    route: Route | None = EVENTS
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
    """All contenders, in the order of the report."""
    return [one for file in FILES for one in import_module(f"{__name__}.{file}").CONTENDERS]


@dataclass(frozen=True, slots=True)
class Task:
    """What a server of ours is told, as environment variables.

    Args:
        port: Where to listen, on loopback.
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
        """The texts of an answer from memory; the client expects the place of a time stamp in each."""
        lines = Path(self.words).read_text(encoding="utf-8").split("\n")
        words = [json.loads(f'"{line}"') for line in lines if line]
        return [f"{0:013d}{words[index % len(words)]}" for index in range(self.events)]
