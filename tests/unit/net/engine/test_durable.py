"""From a call to a log, and to the followers that read it."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from typing import Any

import pytest

from gai_fast.formats import StreamContext, get_format
from gai_fast.model.errors import Internal
from gai_fast.model.settings import LimitSettings, Settings, StreamSettings
from gai_fast.net.attempts.spec import Clock, Keeping, StreamSpec
from gai_fast.net.engine.engine import Engine
from gai_fast.net.logs.view import Representation, view_of
from gai_fast.net.stream.session import Session
from gai_fast.runtime.clock import now_ms
from gai_fast.server.admission.server_limits import ServerLimits
from gai_fast.stores import LogHeader, Store
from tests.unit.net.engine.test_targets import call
from tests.unit.net.fakes import FakeClient, FakePool
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("pools")

SSE = {"content-type": "text/event-stream"}


@pytest.fixture
async def engine() -> Engine:
    return Engine(Settings(), asyncio.get_running_loop())


def resumable(stream_id: str = "s1") -> StreamSpec:
    context = StreamContext(stream_id, "r", None, "m", now_ms, ids=True)
    encoder = get_format("gai").encoder("sse", context)
    what = call(log_header=LogHeader(stream_id, "", "m", "gai", "sse"), deltas=encoder)
    return dataclasses.replace(what, output=encoder)


def publish(engine: Engine, what: StreamSpec) -> tuple[Session, FakeClient]:
    """Returns a durable stream that a client follows from its beginning."""
    publication = engine.durable.publish(what, Clock(now_ms))
    log, client = publication.log, FakeClient()
    view = view_of(log.header, Representation(get_format("gai"), "sse"), 0, now_ms)
    follower = engine.durable.follow(log, client, view, 0, StreamSettings(), is_first=True)
    follower.begin()
    return engine.streams[log.header.stream_id], client


async def test_a_durable_stream_is_kept_and_what_is_kept_is_what_was_sent(engine: Engine) -> None:
    session, client = publish(engine, resumable())
    session.intake.head_received(200, SSE)
    session.intake.body_received(b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n')
    log = await engine.store.find("s1")
    assert log is not None
    assert log.ending is None
    session.intake.body_received(
        b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
    )
    _, first, last, end = client.calls
    assert end == ("end", b"")
    assert b"".join(log.read(0, 1 << 30).pieces) == first + last
    assert log.ending is not None
    assert (log.ending.state, log.ending.finish_reason) == ("finished", "stop")
    await engine.close()
    assert await engine.store.find("s1") is None


async def test_the_log_of_a_stream_whose_request_cannot_be_sent_has_ended(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise ValueError("a header with a line end")

    monkeypatch.setattr(FakePool, "open", refuse)
    with pytest.raises(Internal, match="build the request"):
        engine.durable.publish(resumable(), Clock(now_ms))
    log = await engine.store.find("s1")
    assert log is not None
    assert log.ending is not None
    assert log.ending.state == "failed"
    assert engine.durable._publications == {}
    await engine.close()


@pytest.mark.interpreted  # it replaces a method
async def test_the_log_of_a_stream_whose_start_is_a_bug_has_ended(engine: Engine) -> None:
    class Faulty(ServerLimits):
        def check(self, stream_id: str, caller: str, running: int, of_caller: int) -> None:
            raise ZeroDivisionError

    engine.limits = Faulty(LimitSettings())
    with pytest.raises(ZeroDivisionError):
        engine.durable.publish(resumable(), Clock(now_ms))
    log = engine.store.find_here("s1")
    assert log is not None
    assert log.ending is not None
    assert log.ending.error is not None
    assert log.ending.error["code"] == "internal"
    assert engine.durable._publications == {}
    await engine.close()


async def test_drains_are_counted(engine: Engine) -> None:
    engine.use(Settings(limits=LimitSettings(drains=2)))
    assert [engine.durable.may_drain() for _ in range(3)] == [True, True, False]
    engine.durable.drained()
    assert engine.durable.may_drain()


async def test_one_caller_leaves_half_of_the_drains_to_others(engine: Engine) -> None:
    engine.use(Settings(limits=LimitSettings(drains=4)))
    assert [engine.durable.may_drain("hostile") for _ in range(4)] == [True, True, False, False]
    assert [engine.durable.may_drain("other") for _ in range(3)] == [True, True, False]
    assert not engine.durable.may_drain("third")
    engine.durable.drained("hostile")
    assert engine.durable.may_drain("third")


async def test_where_no_other_process_has_followers_nobody_is_asked(engine: Engine) -> None:
    log = engine.store.create(LogHeader("s1", "", "m", "gai", "sse"))
    found: list[float] = []
    engine.durable.look_elsewhere(log, found.append)
    assert found == [math.inf]


async def test_a_stream_whose_followers_cannot_be_known_for_a_bug_has_none(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody would end it."""

    async def broken(log: object) -> float:
        raise ZeroDivisionError

    log = engine.store.create(LogHeader("s1", "", "m", "gai", "sse"))
    monkeypatch.setattr(Store, "is_shared", True)
    found: list[float] = []
    monkeypatch.setattr(engine.store, "followed_ago", broken)
    engine.durable.look_elsewhere(log, found.append)
    await until(lambda: found)
    assert found == [math.inf]
    assert "ZeroDivisionError" in caplog.text


async def test_a_stream_that_has_ended_is_followed_without_its_publication(engine: Engine) -> None:
    session, _ = publish(engine, resumable())
    log = engine.store.find_here("s1")
    assert log is not None
    session.cancel()
    assert engine.durable._publications == {}
    client = FakeClient()
    view = view_of(log.header, Representation(get_format("gai"), "sse"), 0, now_ms)
    engine.durable.follow(log, client, view, 0, StreamSettings()).begin()
    assert client.calls[-1] == ("end", b"")
    await engine.close()


async def test_a_bug_at_the_end_of_a_stream_that_another_worker_has_ends_nothing_else(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    """It would be raised in the journal, which then gave up all streams of the batch."""

    class Faulty(Keeping):
        def ended(self, spec: StreamSpec, *, is_left: bool, is_refused: bool) -> None:
            raise ZeroDivisionError

    session, _ = publish(engine, resumable())
    session.spec.keeping = Faulty()
    publication = engine.durable.publication("s1")
    assert publication is not None
    engine.leave_to_other("s1")
    assert "stream s1 failed: a bug of the gateway" in caplog.text
    assert (engine.streams, engine.durable.publication("s1"), publication.metrics()) == ({}, None, session.metrics)
    await engine.close()
