"""The table of walks: everything that reads a body, a schema, texts or events, each with its worst input of n."""

from __future__ import annotations

import collections
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from gai_fast.core.reading import parse_request
from gai_fast.core.relay import Relay
from gai_fast.formats import FORMATS, get_format
from gai_fast.kernels import encode_json, parse_exact
from gai_fast.library.decoding import decode
from gai_fast.model.errors import Error
from gai_fast.providers import PROVIDERS, Target, get_provider
from tests.linear.answers import answers_of, frames
from tests.linear.requests import DIALECTS, NATIVE
from tests.unit.formats.streams import context

Work = Callable[[], object]
"""What is counted; its input was made before."""


@dataclass(frozen=True, slots=True)
class Case:
    """One walk.

    Args:
        make: Returns the work for an input of n.
        n: The n that is counted, and twice as much.
        most: The highest ratio.
    """

    make: Callable[[int], Work]
    n: int = 64
    most: float = 2.3


def accepted(function: Callable[..., Any], *arguments: Any) -> Work:
    """Returns a call that may refuse its input: a walk that ends in a refusal is one, too."""

    def work() -> None:
        try:
            function(*arguments)
        except Error:
            pass

    return work


def apis() -> list[str]:
    """Returns the names of all APIs that are asked over HTTP."""
    found = []
    for provider, module in PROVIDERS.items():
        for api in import_module(module).APIS:
            found.append(f"{provider}:{api}" if api else provider)
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
                dialect.unanswerable(body)
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


TRANSLATED = ("openai", "anthropic", "openai:responses", "gemini")
"""The APIs whose answers are written in each format."""


def answers() -> dict[str, Case]:
    """Returns the walks of answers."""
    cases = {}
    for api in apis():
        for name, make in answers_of(api).items():
            cases[f"{api} decoded, {name}"] = Case(decoded(api, make))
    for api in TRANSLATED:
        for name, make in answers_of(api).items():
            for written_as in FORMATS:
                if get_format(written_as).copies_upstream:
                    continue
                for framing in ("sse", ""):
                    way = "as a stream" if framing else "whole"
                    cases[f"{api} as {written_as}, {way}, {name}"] = Case(written(api, written_as, framing, make))
            dialect = get_provider(api).dialect
            if dialect in FORMATS:
                for framing in ("sse", ""):
                    way = "as a stream" if framing else "whole"
                    cases[f"{api} passed on, {way}, {name}"] = Case(passed(api, dialect, framing, make))
    return cases


TABLES: dict[str, Callable[[], dict[str, Case]]] = {"requests": requests, "answers": answers}
