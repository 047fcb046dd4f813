"""From a call to a session with an open upstream."""

from __future__ import annotations

import asyncio
import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest

from gai_fast.core.requests.reading import parse_request
from gai_fast.model.errors import Error, Internal, Unsupported
from gai_fast.model.settings import KeyLimits, KeySettings, LimitSettings, Settings
from gai_fast.net.attempts.spec import Clock, StreamSpec
from gai_fast.net.engine.engine import Engine
from gai_fast.net.stream.session import Session
from gai_fast.runtime.clock import now_ms
from gai_fast.server.admission.server_limits import ServerLimits
from tests.unit.net.engine.test_targets import DEMO, MODEL, UPSTREAM, call
from tests.unit.net.fakes import FakeClient, FakePool
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("pools")

SSE = {"content-type": "text/event-stream"}


def start(engine: Engine, what: StreamSpec, stream_id: str = "s1") -> tuple[Session, FakeClient]:
    client = FakeClient()
    return engine.start(what, client, stream_id, Clock(now_ms)), client


@pytest.fixture
async def engine() -> Engine:
    return Engine(Settings(), asyncio.get_running_loop())


async def test_a_stream_is_known_by_its_id_until_it_ends_for_its_client(engine: Engine) -> None:
    session, client = start(engine, call())
    assert engine.streams == {"s1": session}
    session.intake.head_received(200, SSE)
    session.intake.body_received(
        b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
    )
    assert engine.streams == {}
    assert client.calls[0] == "commit"
    session, _ = start(engine, call(), "s2")
    session.client_lost()
    assert engine.streams == {}


async def test_the_active_streams_are_counted_from_start_to_end_by_transport(engine: Engine) -> None:
    """Counted, not looked for: a scrape costs the same however many streams there are."""
    assert engine.active == {"sse": 0, "ndjson": 0, "ws": 0, "json": 0, "pass_through": 0}
    session, _ = start(engine, call(transport="sse"))
    start(engine, call(transport="ndjson"), "s2")
    start(engine, call(transport="library"), "s3")
    assert engine.active == {"sse": 1, "ndjson": 1, "ws": 0, "json": 0, "pass_through": 0, "library": 1}
    claude = dataclasses.replace(MODEL, upstream=dataclasses.replace(UPSTREAM, provider="anthropic"))
    with pytest.raises(Unsupported):
        start(engine, call(claude, request=parse_request(b'{"query":"hi","seed":1}'), transport="sse"), "s4")
    assert engine.active["sse"] == 1
    session.client_lost()
    engine.streams["s2"].cancel()
    engine.ended(session, "disconnected")
    await engine.close()
    assert engine.active == {"sse": 0, "ndjson": 0, "ws": 0, "json": 0, "pass_through": 0, "library": 0}


@pytest.mark.interpreted  # it replaces a method
async def test_the_streams_of_a_caller_are_counted_from_start_to_end_and_the_guards_are_asked(engine: Engine) -> None:
    asked = []

    class OneEach(ServerLimits):
        def check(self, stream_id: str, caller: str, running: int, of_caller: int) -> None:
            asked.append((running, of_caller))
            super().check(stream_id, caller, running, of_caller)

    engine.limits = OneEach(LimitSettings(streams_per_caller=1))
    first, _ = start(engine, call(caller="alice"))
    second, _ = start(engine, call(caller="bob"), "s2")
    with pytest.raises(Error, match="as many streams under way as it may"):
        start(engine, call(caller="alice"), "s3")
    assert asked == [(0, 0), (1, 0), (2, 1)]
    assert engine.callers == {"alice": 1, "bob": 1}
    first.client_lost()
    start(engine, call(caller="alice"), "s4")
    assert engine.callers == {"alice": 1, "bob": 1}
    second.client_lost()
    await engine.close()
    assert engine.callers == {"alice": 0, "bob": 0}


@pytest.mark.interpreted  # it replaces a method
async def test_a_stream_that_starts_while_the_callers_last_one_ends_is_counted(engine: Engine) -> None:
    """A caller of an issuer is forgotten after its last stream."""

    class Ending(ServerLimits):
        def check(self, stream_id: str, caller: str, running: int, of_caller: int) -> None:
            for session in tuple(engine.streams.values()):
                session.client_lost()

    engine.limits = Ending(LimitSettings())
    start(engine, call(caller="idp:ann"))
    start(engine, call(caller="idp:ann"), "s2")
    assert engine.callers == {"idp:ann": 1}
    engine.streams["s2"].client_lost()
    assert engine.callers == {}


async def test_the_start_tells_the_id_and_the_upstreams_name(engine: Engine) -> None:
    what = call()
    session, _ = start(engine, what, "some-id")
    session.intake.head_received(200, SSE)
    session.intake.body_received(b'data: {"id":"c","model":"x","choices":[]}\n\n')
    (event,) = what.output.events
    assert event["stream_id"] == "some-id"
    assert event["provider_metadata"] == {"id": "c", "upstream": "up"}


async def test_a_refusal_of_our_key_names_the_upstream_and_not_the_key(engine: Engine) -> None:
    session, client = start(engine, call())
    session.intake.head_received(401, {"content-type": "application/json"})
    session.intake.body_received(b'{"error":{"message":"bad key sk-canary","code":"invalid_api_key"}}')
    session.intake.exchange_ended(None)
    (error,) = client.calls
    assert (error.code, error.reason, error.status) == ("provider_unavailable", "upstream_credentials", 502)
    assert "'up'" in str(error)
    assert "canary" not in str(error)


async def test_an_upstream_that_quotes_our_key_tells_it_to_nobody(engine: Engine) -> None:
    quoted = b'{"error":{"message":"cannot read `Bearer sk-canary`","param":"sk-canary"}}'
    session, client = start(engine, call())
    session.intake.head_received(400, {"content-type": "application/json"})
    session.intake.body_received(quoted)
    session.intake.exchange_ended(None)
    (error,) = client.calls
    assert (error.message, error.details) == ("cannot read `Bearer ***`", None)

    what = call()
    session, _ = start(engine, what)
    session.intake.head_received(200, SSE)
    session.intake.body_received(b'data: {"choices":[{"delta":{"content":"Hi"}}]}\n\ndata: %b\n\n' % quoted)
    result = what.output.events[-2]["error"]
    assert result["message"] == "cannot read `Bearer ***`"


async def test_a_call_without_one_is_not_kept(engine: Engine) -> None:
    start(engine, call())
    assert await engine.store.find("s1") is None


@pytest.mark.interpreted
async def test_a_stream_whose_figures_are_a_bug_takes_none_of_its_keys_streams_along(engine: Engine) -> None:
    key = KeySettings("ann", (), limits=KeyLimits(streams=1))
    assert engine.ledger.try_take(key, "s1")

    def fails(outcome: str) -> None:
        raise LookupError("a bug")

    spec = SimpleNamespace(sharing=None)
    session: Any = SimpleNamespace(stream_id="s1", spec=spec, caller="ann", transport="sse", measured_at_end=fails)
    with pytest.raises(LookupError):
        Engine.ended(engine, session, "finished")
    assert engine.ledger.try_take(key, "s2")


async def test_what_cannot_be_asked_leaves_nothing_behind(engine: Engine, pools: list[FakePool]) -> None:
    named = parse_request(b'{"query":"hi","seed":1}')
    claude = dataclasses.replace(MODEL, upstream=dataclasses.replace(UPSTREAM, provider="anthropic"))
    with pytest.raises(Unsupported):
        start(engine, call(claude, request=named))
    assert engine.streams == {}
    assert pools == []
    start(engine, call())
    engine.streams["s1"].client_lost()
    pools[0].problem = ValueError("a path")
    with pytest.raises(Internal, match="build the request"):
        start(engine, call())
    assert engine.streams == {}
    assert len(engine.timers) == 0


async def test_the_demo_is_a_recording_and_opens_nothing(engine: Engine, pools: list[FakePool]) -> None:
    what = call(DEMO)
    session, _ = start(engine, what)
    await until(lambda: what.output.events)
    assert pools == []
    session.cancel()
    assert engine.streams == {}


async def test_closing_tells_every_stream_and_closes_every_pool(engine: Engine, pools: list[FakePool]) -> None:
    _, waiting = start(engine, call(), "s1")
    running, result = start(engine, call(), "s2")
    running.intake.head_received(200, SSE)
    running.intake.body_received(b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n')
    await engine.close()
    assert engine.streams == {}
    assert pools[0].is_closed
    (error,) = waiting.calls
    assert isinstance(error, Error)
    assert (error.code, error.reason, error.status) == ("overloaded", "draining", 503)
    assert result.calls[-1] == ("end", b"<error><done>")
    assert len(engine.timers) == 0
