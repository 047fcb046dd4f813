"""`cli/asking.py`: a stream without a server."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from gai_fast.cli.asking import ask
from gai_fast.cli.mock import Fault, Mock
from gai_fast.net.engine import Engine
from gai_fast.request import Request
from gai_fast.settings import ModelSettings, Settings, UpstreamSettings


async def events_of(mock: Mock) -> tuple[list[str], Engine]:
    model = ModelSettings("fast", UpstreamSettings("main", "openai", f"{mock.url}/v1"), "m")
    engine = Engine(Settings(), asyncio.get_running_loop())
    try:
        return [event["type"] async for event in ask(engine, model, Request(query="hi"))], engine
    finally:
        await engine.close()


async def test_every_event_comes_and_done_last() -> None:
    async with Mock(deltas=3) as mock:
        kinds, engine = await events_of(mock)
    assert kinds == ["start", "text.delta", "text.delta", "text.delta", "finish", "done"]
    assert not engine.streams


async def test_a_failure_before_the_answer_is_an_error_event() -> None:
    async with Mock(fault=Fault("500")) as mock:
        kinds, engine = await events_of(mock)
    assert kinds == ["error", "done"]
    assert not engine.streams


async def test_who_stops_listening_closes_the_upstream() -> None:
    async with Mock(deltas=1000, rate=100) as mock:
        model = ModelSettings("fast", UpstreamSettings("main", "openai", f"{mock.url}/v1"), "m")
        engine = Engine(Settings(), asyncio.get_running_loop())
        async with aclosing(ask(engine, model, Request(query="hi"))) as events:
            async for _ in events:
                break
        [request] = mock.requests
        await asyncio.wait_for(request.closed.wait(), 5)
        assert request.answered_at is None
        await engine.close()
