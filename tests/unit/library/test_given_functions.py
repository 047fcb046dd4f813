"""Functions that a program gives: what is none is refused at the call, and one that raises leaves no stream without an
end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

import gai_fast
from gai_fast.integrations import aiohttp, asgi, wsgi
from gai_fast.library.remote import RemoteGateway
from gai_fast.model.errors import ToolError
from gai_fast.net.stream.guarding import GuardError

NO: Any = {}
WORD: Any = "weather"
PRINT: Any = print
ASK: Any = {"query": "hi", "model": "demo"}


class Odd(BaseException):
    """Neither an `Exception` nor one that ends the process."""


class OddManager(gai_fast.EventManager):
    def wanted(self, event: Any) -> Any:
        raise RuntimeError("of a subclass")


def raising(kind: type[BaseException]) -> Callable[[Any], Any]:
    def call(_: Any) -> Any:
        raise kind("of a user")

    return call


async def answer(events: Any = None, **given: Any) -> gai_fast.Result:
    async with asyncio.timeout(30), gai_fast.Gateway(**given) as gateway, gateway.stream(ASK, events) as stream:
        return await stream.result()


GIVEN: dict[str, Callable[[], Any]] = {
    "events": lambda: gai_fast.Gateway().stream(ASK, PRINT),
    "remote events": lambda: RemoteGateway("http://127.0.0.1:1", None).stream(ASK, PRINT),
    "a request": lambda: gai_fast.Gateway().stream(PRINT),
    "sinks": lambda: gai_fast.Gateway(sinks=[PRINT]),
    "tools": lambda: gai_fast.Gateway(tools=[WORD]),
    "on_delta": lambda: gai_fast.EventManager(on_delta=WORD),
    "@tool": lambda: gai_fast.tool(WORD),
    "clock": lambda: gai_fast.StreamEventProcessor(clock=WORD),
    "filter": lambda: gai_fast.StreamEventProcessor().filter(WORD),
    "transform": lambda: gai_fast.StreamEventProcessor().transform(WORD),
    "then": lambda: gai_fast.StreamEventProcessor().then(WORD),
    "aiohttp": lambda: aiohttp.sse_handler(gai_fast.Gateway(), NO),
    "asgi": lambda: asgi.ndjson_handler(gai_fast.Gateway(), NO),
    "wsgi": lambda: wsgi.sse_handler(gai_fast.Gateway(), NO),
}


@pytest.mark.parametrize("name", GIVEN)
def test_what_is_no_function_is_refused_at_the_call(name: str) -> None:
    with pytest.raises(TypeError):
        GIVEN[name]()


@pytest.mark.parametrize(
    ("moment", "kind"),
    [
        *[(moment, RuntimeError) for moment in ("on_start", "on_delta", "on_usage", "on_complete")],
        *[("on_delta", kind) for kind in (GeneratorExit, asyncio.CancelledError, StopIteration, Odd)],
    ],
)
async def test_an_observer_that_raises_is_logged_once_and_the_stream_goes_on(
    moment: str, kind: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    async def later(event: Any) -> Any:
        raising(kind)(event)

    with caplog.at_level(logging.WARNING):
        for callback in (raising(kind), later):
            caplog.clear()
            assert (await answer(gai_fast.EventManager(**{moment: callback}))).finish_reason == "stop"
            assert len([line for line in caplog.records if "a callback" in line.getMessage()]) == 1


async def test_a_manager_that_is_no_good_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    later = gai_fast.EventManager()
    later.on_delta = WORD
    for manager in (OddManager(), later):
        caplog.clear()
        assert (await answer(manager)).finish_reason == "stop"
        assert len([line for line in caplog.records if "a callback" in line.getMessage()]) == 1


@pytest.mark.parametrize("kind", [RuntimeError, GeneratorExit, Odd])
async def test_a_sink_that_raises_is_logged_and_the_stream_ends(
    kind: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    sink: Any = SimpleNamespace(stream_ended=raising(kind))
    assert (await answer(sinks=[sink])).finish_reason == "stop"
    assert len([line for line in caplog.records if kind.__name__ in line.getMessage()]) == 1


@pytest.mark.parametrize("hook", ["take_pieces", "event"])
async def test_an_output_that_raises_ends_its_stream_as_internal(hook: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from gai_fast.library.gateway import GatewayStream

    calls: list[int] = []
    own = getattr(GatewayStream, hook)

    def broken(stream: Any, *given: Any) -> Any:
        calls.append(1)
        if len(calls) > 3:
            raise RuntimeError("an output")
        return own(stream, *given)

    monkeypatch.setattr(GatewayStream, hook, broken)
    with pytest.raises(gai_fast.Error) as raised:
        (await answer()).raise_for_error()
    assert raised.value.code == "internal"


async def test_a_prompt_is_a_request_of_stream() -> None:
    async with gai_fast.Gateway() as gateway, gateway.stream("hi") as stream:
        assert (await stream.result()).finish_reason == "stop"


async def test_the_mistake_of_a_tool_is_an_error_of_tools() -> None:
    def two(*words: str) -> str:
        return "".join(words)

    with pytest.raises(ToolError, match="two") as raised:
        await answer(tools=[two])
    assert not isinstance(raised.value, GuardError)
