"""The table of walks: everything that reads a body, a schema, texts or events, each with its worst input of n."""

from __future__ import annotations

import collections
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from gai_fast.core.relay import Relay
from gai_fast.core.requests.reading import parse_request
from gai_fast.formats import FORMATS, get_format
from gai_fast.kernels import encode_json, parse_exact
from gai_fast.library.decoding import decode
from gai_fast.model.errors import Error
from gai_fast.providers import PROVIDERS, Target, get_provider
from tests.linear.answers import answers_of, frames
from tests.linear.kept import KEPT
from tests.linear.refusals_and_logs import LOGS, OBJECTS, REFUSALS
from tests.linear.requests import CHAT, DIALECTS, NATIVE
from tests.linear.texts import SHAPES
from tests.linear.tool_servers import SERVERS
from tests.unit.formats.streams import context

Work = Callable[[], object]
"""What is counted; its input was made before."""


def quadratic(n: int) -> Work:
    """Returns work that is not linear: it proves that both counts notice."""
    texts = ["x" * 100] * n
    return lambda: [text for at in range(n) for text in texts[:at] if text in texts[at - 1]]


@dataclass(frozen=True, slots=True)
class Case:
    """One walk.

    Args:
        make: Returns the work for an input of n.
        n: The n that is counted, and multiples of it; of a request above the changes that are reported (32).
    """

    make: Callable[[int], Work]
    n: int = 36


def accepted(function: Callable[..., Any], *arguments: Any) -> Work:
    """Returns a call that may refuse its input: a walk that ends in a refusal is one, too."""

    def work() -> None:
        with suppress(Error):
            function(*arguments)

    return work


def apis() -> list[str]:
    """Returns the names of all APIs that are asked over HTTP."""
    found = []
    for provider, module in PROVIDERS.items():
        for api in import_module(module).APIS:
            found += [f"{provider}:{api}" if api else provider]
    return [name for name in found if not get_provider(name).calls_function and not get_provider(name).recording]


MODELS = {"anthropic": "claude-opus-4-8", "gemini": "gemini-3-pro"}
"""Models with rules of their own."""


def _target(api: str) -> Target:
    return Target(MODELS.get(api.partition(":")[0], "m"), "k", "drop")


def native_read(make: Callable[[int], Any]) -> Callable[[int], Work]:
    """Returns the reading of a native request."""
    return lambda n: accepted(parse_request, encode_json(make(n)))


def native_sent(api: str, make: Callable[[int], Any]) -> Callable[[int], Work]:
    """Returns the writing of a native request for an API."""

    def made(n: int) -> Work:
        try:
            request = parse_request(encode_json(make(n)))
        except Error:
            return lambda: None  # it is refused by its reader
        return accepted(get_provider(api).build_request, request, _target(api))

    return made


def own_sent(api: str, make: Callable[[int], Any]) -> Callable[[int], Work]:
    """Returns the writing of a request in the dialect of an API."""
    return lambda n: accepted(get_provider(api).build_passthrough, {"model": "m", **make(n)}, _target(api))


def dialect_read(name: str, make: Callable[[int], Any]) -> Callable[[int], Work]:
    """Returns the reading and the translation of a request in a dialect."""

    def made(n: int) -> Work:
        body = parse_exact(encode_json({"model": "m", **make(n)}).decode())

        def work() -> None:
            dialect = get_format(name)
            if dialect.shares_native_routes:
                assert dialect.owns_request(body)
            else:
                asked = dialect.read_request(body)
                asked.prompt()
                dialect.counted_characters(asked)
            dialect.parse_request(body)

        return accepted(work)

    return made


def requests() -> dict[str, Case]:
    """Returns the walks of requests."""
    cases = {f"native read, {name}": Case(native_read(make)) for name, make in NATIVE.items()}
    for api in apis():
        cases |= {f"{api} from native, {name}": Case(native_sent(api, make)) for name, make in NATIVE.items()}
        own = DIALECTS.get(get_provider(api).dialect, {})
        cases |= {f"{api} from its own, {name}": Case(own_sent(api, make)) for name, make in own.items()}
    for dialect, bodies in DIALECTS.items():
        cases |= {f"{dialect} read, {name}": Case(dialect_read(dialect, make)) for name, make in bodies.items()}
    return cases


def decoded(api: str, make: Callable[[int], Any]) -> Callable[[int], Work]:
    """Returns the reading of an answer, event by event."""

    def made(n: int) -> Work:
        pieces = frames(make(n), get_provider(api).framing)
        return lambda: collections.deque(decode(api, pieces), maxlen=0)

    return made


def written(api: str, name: str, framing: str, make: Callable[[int], Any]) -> Callable[[int], Work]:
    """Returns the translation of an answer into a format: a stream, or one JSON object if the framing is empty."""

    def made(n: int) -> Work:
        pieces = frames(make(n), get_provider(api).framing)
        written = get_format(name)

        def work() -> None:
            output: Any = written.encoder("sse", context()) if framing else written.whole(context())
            relay = Relay(get_provider(api).adapter("m"), output, deltas=output if framing else None)
            relay.receive_head(200, {"content-type": "text/event-stream"})
            for piece in pieces:
                relay.receive_data(piece)
                if framing:
                    output.take()
            relay.receive_eof()
            output.take()

        return work

    return made


def passed(api: str, name: str, framing: str, make: Callable[[int], Any]) -> Callable[[int], Work]:
    """Returns the passing on of an answer in its own dialect."""

    def made(n: int) -> Work:
        pieces = frames(make(n), get_provider(api).framing)

        def work() -> None:
            output: Any = get_format(name).passthrough("sse", context(), whole=not framing)
            relay = Relay(get_provider(api).adapter("m"), output, deltas=output if framing else None, frames=output)
            relay.receive_head(200, {"content-type": "text/event-stream"})
            for piece in pieces:
                relay.receive_data(piece)
                if framing:
                    output.take()
            relay.receive_eof()
            output.take()

        return work

    return made


TRANSLATED = ("openai", "anthropic", "openai:responses")
"""The APIs whose answers are written in each format."""


def answers() -> dict[str, Case]:
    """Returns the walks of answers."""
    cases, few = {}, 16
    for api in apis():
        for name, make in answers_of(api).items():
            cases[f"{api} decoded, {name}"] = Case(decoded(api, make), few)
    for api in TRANSLATED:
        for name, make in answers_of(api).items():
            for written_as in FORMATS:
                if get_format(written_as).copies_upstream:
                    continue
                for framing in ("sse", ""):
                    way = "as a stream" if framing else "whole"
                    cases[f"{api} as {written_as}, {way}, {name}"] = Case(written(api, written_as, framing, make), few)
            dialect = get_provider(api).dialect
            if dialect in FORMATS:
                for framing in ("sse", ""):
                    way = "as a stream" if framing else "whole"
                    cases[f"{api} passed on, {way}, {name}"] = Case(passed(api, dialect, framing, make), few)
    return cases


def texts() -> dict[str, Case]:
    """Returns the walks of texts, bytes and headers, of refused requests, of objects of SDKs, and of logs."""
    # A union of 3 · 80 definitions has as many paths as `limits.schema_paths` allows.
    cases = {name: Case(make, 80 if name.startswith("cost of") else 256) for name, make in SHAPES.items()}
    cases |= {name: Case(make, 128) for name, make in (OBJECTS | LOGS).items()}
    return cases | {name: Case(make, 64) for name, make in REFUSALS.items()}


def kept() -> dict[str, Case]:
    """Returns the walks of kept responses: longer than what is written at once."""
    return {name: Case(make, 128) for name, make in KEPT.items()}


def tool_servers() -> dict[str, Case]:
    """Returns the walks of what tool servers send."""
    return {name: Case(make, 128) for name, make in SERVERS.items()}


WRITERS = ("anthropic", "openai", "openai:responses", "gemini", "cohere", "perplexity", "mistral", "ollama")
"""An API for each way to write messages."""


def volumes() -> dict[str, Case]:
    """Returns the walks that copy texts, lists or bytes: no step of theirs shows how much."""
    n = 200
    cases = {QUADRATIC: Case(quadratic, n)}
    walks = (SHAPES | REFUSALS).items()
    cases |= {f"{name}, much": Case(make, 4 * n) for name, make in walks if name.startswith(COPYING)}
    for api in WRITERS:
        for name in ("users in a row", "parts of an answer", "texts before results", "calls of one id"):
            cases[f"{api} from native, {name}, much"] = Case(native_sent(api, NATIVE[name]), n)
        for name in ("texts", "pieces of a call", "one text"):
            if name in answers_of(api):
                cases[f"{api} decoded, {name}, much"] = Case(decoded(api, answers_of(api)[name]), n)
    cases["chat, adjacent messages, much"] = Case(own_sent("perplexity", CHAT["users in a row"]), n)
    cases["chat, trailing answers, much"] = Case(own_sent("mistral", CHAT["answers at the end"]), 8 * n)
    cases["chat, results of one id, much"] = Case(own_sent("mistral", CHAT["results of one id before calls"]), 8 * n)
    for written_as in FORMATS:
        for name in ("texts", "pieces of a call"):
            if not get_format(written_as).copies_upstream:
                for framing in ("sse", ""):
                    way = "as a stream" if framing else "whole"
                    make = written("openai", written_as, framing, answers_of("openai")[name])
                    cases[f"openai as {written_as}, {way}, {name}, much"] = Case(make, n)
    return cases


QUADRATIC = "a walk that is not linear"
COPYING = (
    "JSON, one long", "JSON, snapshots", "JSON, repeated", "a repeated", "a collected", "form, one", "error of",
    "SSE, one", "NDJSON, one", "array, one", "batches", "counted", "replaced", "arguments by paths",
    "structure, deep in", "refused, many members in", "a missing route",
)  # fmt: skip

TABLES: dict[str, Callable[[], dict[str, Case]]] = {
    "requests": requests,
    "answers": answers,
    "texts": texts,
    "kept": kept,
    "tool servers": tool_servers,
    "volumes": volumes,
}
