"""From a call to a session with an open upstream."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import math
from types import SimpleNamespace
from typing import Any, ClassVar

import orjson
import pytest

from gai_fast.core.reading import parse_request
from gai_fast.formats import StreamContext, get_format
from gai_fast.model.errors import Error, Internal, Overloaded, Unsupported
from gai_fast.model.limits import LIMITS
from gai_fast.model.request import Request
from gai_fast.model.settings import (
    KeyLimits,
    KeySettings,
    LimitSettings,
    ModelSettings,
    Secret,
    Settings,
    StreamSettings,
    UpstreamSettings,
)
from gai_fast.net.attempts.spec import Clock, StreamSpec
from gai_fast.net.logs.view import Form, view_of
from gai_fast.net.stream import streams as module
from gai_fast.net.stream.session import Session
from gai_fast.net.stream.streams import Engine
from gai_fast.providers import API, Adapter, Target, get_provider
from gai_fast.runtime.clock import now_ms
from gai_fast.stores import LogHeader, Store
from tests.unit.net.fakes import FakeClient, FakeExchange, FakeOutput
from tests.waiting import until

SSE = {"content-type": "text/event-stream"}
UPSTREAM = UpstreamSettings(
    "up", "openai-compatible", "http://127.0.0.1:9/v1", Secret("sk-canary"), max_connections=7, idle_timeout=5.5
)
MODEL = ModelSettings("m", UPSTREAM, "real-id", StreamSettings(commit_after=60))
DEMO = ModelSettings("demo", UpstreamSettings("demo", "demo", ""), "demo")
REQUEST = parse_request(b'{"query":"hi"}')


class FakePool:
    """Hands out exchanges that the test plays."""

    made: ClassVar[list[FakePool]] = []

    def __init__(self, base_url: str, **options: Any) -> None:
        self.base_url = base_url
        self.options = options
        self.asked: list[tuple[Any, ...]] = []
        self.is_closed = False
        self.problem: Exception | None = None
        FakePool.made.append(self)

    def open(self, *arguments: Any) -> FakeExchange:
        if self.problem is not None:
            raise self.problem
        self.asked.append(arguments)
        return FakeExchange()

    async def close(self) -> None:
        self.is_closed = True


@pytest.fixture(autouse=True)
def pools(monkeypatch: pytest.MonkeyPatch) -> list[FakePool]:
    FakePool.made = []
    monkeypatch.setattr(module, "UpstreamPool", FakePool)
    return FakePool.made


def call(model: ModelSettings = MODEL, **more: Any) -> StreamSpec:
    return StreamSpec(model, more.pop("request", REQUEST), FakeOutput(), **more)


def start(engine: Engine, what: StreamSpec, stream_id: str = "s1") -> tuple[Session, FakeClient]:
    client = FakeClient()
    return engine.start(what, client, stream_id, Clock(now_ms)), client


@pytest.fixture
async def engine() -> Engine:
    return Engine(Settings(), asyncio.get_running_loop())


async def test_the_upstream_is_asked_for_its_own_model_with_its_own_key(engine: Engine, pools: list[FakePool]) -> None:
    session, _ = start(engine, call())
    ((method, path, headers, body, receiver),) = pools[0].asked
    assert (method, path) == ("POST", "/chat/completions")
    assert orjson.loads(body)["model"] == "real-id"
    assert ("authorization", "Bearer sk-canary") in [(name.lower(), value) for name, value in headers]
    assert receiver is session
    assert pools[0].base_url == UPSTREAM.base_url
    assert pools[0].options["max_connections"] == 7
    assert pools[0].options["idle_timeout"] == 5.5
    assert pools[0].options["timers"] is engine.timers


async def test_configured_headers_replace_the_providers_own(engine: Engine, pools: list[FakePool]) -> None:
    upstream = dataclasses.replace(UPSTREAM, headers={"Authorization": "Other", "X-More": "1"})
    start(engine, call(dataclasses.replace(MODEL, upstream=upstream)))
    headers = pools[0].asked[0][2]
    assert [value for name, value in headers if name.lower() == "authorization"] == ["Other"]
    assert ("X-More", "1") in headers


async def test_a_file_of_tls_that_is_gone_fails_the_requests_and_no_reload(engine: Engine) -> None:
    """A reload stopped in the middle, with the callers of before; a request had an internal error."""
    upstream = dataclasses.replace(UPSTREAM, base_url="https://127.0.0.1:9/v1", ca_file="/none/ca.pem", retries=0)
    settings = Settings(upstreams={"up": upstream})
    engine.use(settings)
    assert engine.settings is settings
    with pytest.raises(Error) as caught:
        start(engine, call(dataclasses.replace(MODEL, upstream=upstream)))
    error = caught.value
    assert (error.code, error.reason, error.phase) == ("network", "tls", "connect")
    assert error.message == "the file that `ca_file` of upstream 'up' names cannot be used any more"


async def test_streams_of_an_upstream_share_a_pool(engine: Engine, pools: list[FakePool]) -> None:
    start(engine, call(), "s1")
    start(engine, call(), "s2")
    other = dataclasses.replace(UPSTREAM, name="other")
    start(engine, call(dataclasses.replace(MODEL, upstream=other)), "s3")
    assert [len(pool.asked) for pool in pools] == [2, 1]


async def test_a_stream_is_known_by_its_id_until_it_ends_for_its_client(engine: Engine) -> None:
    session, client = start(engine, call())
    assert engine.streams == {"s1": session}
    session.head_received(200, SSE)
    session.body_received(b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n')
    assert engine.streams == {}
    assert client.calls[0] == "commit"
    session, _ = start(engine, call(), "s2")
    session.client_lost()
    assert engine.streams == {}


async def test_the_active_streams_are_counted_from_start_to_end_by_transport(engine: Engine) -> None:
    """Counted, not looked for: a scrape costs the same however many streams there are."""
    assert engine.active == {"sse": 0, "ndjson": 0, "ws": 0, "json": 0}
    session, _ = start(engine, call(transport="sse"))
    start(engine, call(transport="ndjson"), "s2")
    start(engine, call(transport="library"), "s3")
    assert engine.active == {"sse": 1, "ndjson": 1, "ws": 0, "json": 0, "library": 1}
    claude = dataclasses.replace(MODEL, upstream=dataclasses.replace(UPSTREAM, provider="anthropic"))
    with pytest.raises(Unsupported):
        start(engine, call(claude, request=parse_request(b'{"query":"hi","seed":1}'), transport="sse"), "s4")
    assert engine.active["sse"] == 1
    session.client_lost()
    engine.streams["s2"].cancel()
    engine.ended(session, "disconnected")
    await engine.close()
    assert engine.active == {"sse": 0, "ndjson": 0, "ws": 0, "json": 0, "library": 0}


async def test_the_streams_of_a_caller_are_counted_from_start_to_end_and_the_guards_are_asked(engine: Engine) -> None:
    asked = []

    class OneEach:
        def check(self, streams: int, of_caller: int) -> None:
            asked.append((streams, of_caller))
            if of_caller:
                raise Error("rate_limited", "one each", reason="streams_per_caller")

    engine.guards = OneEach()
    first, _ = start(engine, call(caller="alice"))
    second, _ = start(engine, call(caller="bob"), "s2")
    with pytest.raises(Error, match="one each"):
        start(engine, call(caller="alice"), "s3")
    assert asked == [(0, 0), (1, 0), (2, 1)]
    assert engine.callers == {"alice": 1, "bob": 1}
    first.client_lost()
    start(engine, call(caller="alice"), "s4")
    assert engine.callers == {"alice": 1, "bob": 1}
    second.client_lost()
    await engine.close()
    assert engine.callers == {"alice": 0, "bob": 0}


async def test_the_start_tells_the_id_and_the_upstreams_name(engine: Engine) -> None:
    what = call()
    session, _ = start(engine, what, "some-id")
    session.head_received(200, SSE)
    session.body_received(b'data: {"id":"c","model":"x","choices":[]}\n\n')
    (event,) = what.output.events
    assert event["stream_id"] == "some-id"
    assert event["provider_metadata"] == {"id": "c", "upstream": "up"}


async def test_a_refusal_of_our_key_names_the_upstream_and_not_the_key(engine: Engine) -> None:
    session, client = start(engine, call())
    session.head_received(401, {"content-type": "application/json"})
    session.body_received(b'{"error":{"message":"bad key sk-canary","code":"invalid_api_key"}}')
    session.exchange_ended(None)
    (error,) = client.calls
    assert (error.code, error.reason, error.status) == ("provider_unavailable", "upstream_credentials", 502)
    assert "'up'" in str(error)
    assert "canary" not in str(error)


async def test_an_upstream_that_quotes_our_key_tells_it_to_nobody(engine: Engine) -> None:
    quoted = b'{"error":{"message":"cannot read `Bearer sk-canary`","param":"sk-canary"}}'
    session, client = start(engine, call())
    session.head_received(400, {"content-type": "application/json"})
    session.body_received(quoted)
    session.exchange_ended(None)
    (error,) = client.calls
    assert (error.message, error.details) == ("cannot read `Bearer ***`", None)

    what = call()
    session, _ = start(engine, what)
    session.head_received(200, SSE)
    session.body_received(b'data: {"choices":[{"delta":{"content":"Hi"}}]}\n\ndata: %b\n\n' % quoted)
    told = what.output.events[-2]["error"]
    assert told["message"] == "cannot read `Bearer ***`"


async def test_the_operator_is_told_of_it_once_a_minute_and_of_nothing_that_clients_did(
    engine: Engine, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(engine, "_loop", SimpleNamespace(time=lambda: now[0]))
    refused, other = Error("unauthorized", "bad key sk-canary", status=401), dataclasses.replace(UPSTREAM, name="two")
    for upstream in (UPSTREAM, UPSTREAM, other):
        engine.attempt_failed(upstream, refused)
    engine.attempt_failed(dataclasses.replace(UPSTREAM, name="three"), Error("invalid_request", "no such field"))
    told = "upstream %r refuses our credentials: the operator should check `api_key` of this [[upstream]]"
    assert caplog.messages == [told % "up", told % "two"]
    now[0] += LIMITS.warning_interval
    engine.attempt_failed(UPSTREAM, refused)
    assert caplog.messages[2:] == [told % "up"]


def resumable(stream_id: str = "s1") -> StreamSpec:
    context = StreamContext(stream_id, "r", None, "m", now_ms, ids=True)
    encoder = get_format("gai").encoder("sse", context)
    what = call(log_header=LogHeader(stream_id, "", "m", "gai", "sse"), deltas=encoder)
    return dataclasses.replace(what, output=encoder)


def publish(engine: Engine, what: StreamSpec) -> tuple[Session, FakeClient]:
    """A durable stream that a client follows from its beginning."""
    publication = engine.publish(what, Clock(now_ms))
    log, client = publication.log, FakeClient()
    view = view_of(log.header, Form(get_format("gai"), "sse"), 0, now_ms)
    follower = engine.follow(log, client, view, 0, StreamSettings(), is_first=True)
    follower.begin()
    return engine.streams[log.header.stream_id], client


async def test_a_durable_stream_is_kept_and_what_is_kept_is_what_was_sent(engine: Engine) -> None:
    session, client = publish(engine, resumable())
    session.head_received(200, SSE)
    session.body_received(b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n')
    log = await engine.store.find("s1")
    assert log is not None
    assert log.ending is None
    session.body_received(b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n')
    _, first, last, end = client.calls
    assert end == ("end", b"")
    assert b"".join(log.read(0, 1 << 30).pieces) == first + last
    assert log.ending is not None
    assert (log.ending.state, log.ending.finish_reason) == ("finished", "stop")
    await engine.close()
    assert await engine.store.find("s1") is None


async def test_a_call_without_one_is_not_kept(engine: Engine) -> None:
    start(engine, call())
    assert await engine.store.find("s1") is None


@pytest.mark.interpreted
async def test_a_stream_whose_figures_are_a_bug_takes_none_of_its_keys_streams_along(engine: Engine) -> None:
    key = KeySettings("ann", (), limits=KeyLimits(streams=1))
    assert engine.ledger.try_take(key, "s1", 0)

    def fails(outcome: str) -> None:
        raise LookupError("a bug")

    spec = SimpleNamespace(sharing=None)
    session: Any = SimpleNamespace(stream_id="s1", spec=spec, caller="ann", transport="sse", measured=fails)
    with pytest.raises(LookupError):
        Engine.ended(engine, session, "finished")
    assert engine.ledger.try_take(key, "s2", 0)


async def test_the_log_of_a_stream_whose_request_cannot_be_sent_has_ended(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise ValueError("a header with a line end")

    monkeypatch.setattr(FakePool, "open", refuse)
    with pytest.raises(Internal, match="build the request"):
        engine.publish(resumable(), Clock(now_ms))
    log = await engine.store.find("s1")
    assert log is not None
    assert log.ending is not None
    assert log.ending.state == "failed"
    assert engine._publications == {}
    await engine.close()


async def test_the_log_of_a_stream_whose_start_is_a_bug_has_ended(engine: Engine) -> None:
    class Broken:
        def check(self, streams: int, of_caller: int) -> None:
            raise ZeroDivisionError

    engine.guards = Broken()
    with pytest.raises(ZeroDivisionError):
        engine.publish(resumable(), Clock(now_ms))
    log = engine.store.find_here("s1")
    assert log is not None
    assert log.ending is not None
    assert log.ending.error is not None
    assert log.ending.error["code"] == "internal"
    assert engine._publications == {}
    await engine.close()


async def test_drains_are_counted(engine: Engine) -> None:
    engine.settings = Settings(limits=LimitSettings(drains=2))
    assert [engine.may_drain() for _ in range(3)] == [True, True, False]
    engine.drained()
    assert engine.may_drain()


async def test_where_no_other_process_has_followers_nobody_is_asked(engine: Engine) -> None:
    log = engine.store.create(LogHeader("s1", "", "m", "gai", "sse"))
    found: list[float] = []
    engine.look_elsewhere(log, found.append)
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
    engine.look_elsewhere(log, found.append)
    await until(lambda: found)
    assert found == [math.inf]
    assert "ZeroDivisionError" in caplog.text


async def test_a_stream_that_has_ended_is_followed_without_its_publication(engine: Engine) -> None:
    session, _ = publish(engine, resumable())
    log = engine.store.find_here("s1")
    assert log is not None
    session.cancel()
    assert engine._publications == {}
    client = FakeClient()
    view = view_of(log.header, Form(get_format("gai"), "sse"), 0, now_ms)
    engine.follow(log, client, view, 0, StreamSettings()).begin()
    assert client.calls[-1] == ("end", b"")
    await engine.close()


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


async def test_a_want_of_descriptors_while_a_request_is_sent_is_no_bug(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The demo's recording is read at its first request, and a traceback was logged for each."""

    def fail(name: str) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(module, "load_recording", fail)
    with pytest.raises(Overloaded) as caught:
        start(engine, call(model=DEMO))
    assert (caught.value.reason, caught.value.phase) == ("descriptors", "connect")
    assert engine.streams == {}
    assert caplog.text == ""


SEQUENCE = "sequence item 0: expected str instance, int found"


@pytest.mark.parametrize("method", ["build_request", "adapter", "leave_out"])
async def test_whatever_an_adapter_raises_while_a_request_is_built_is_an_error_and_logged(
    engine: Engine,
    pools: list[FakePool],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    method: str,
) -> None:
    def fail(*_: Any) -> Any:
        raise TypeError(SEQUENCE)

    known = get_provider("openai-compatible")

    class Failing(API):
        """A class of its own, because a compiled one ignores a method that is replaced."""

        provider = known.provider

        def body(self, request: Request, target: Target) -> dict[str, Any]:
            return known.body(request, target)

        def adapter(self, model: str | None = None) -> Adapter:
            return known.adapter(model)

    setattr(Failing, method, fail)
    failing = Failing()
    monkeypatch.setattr(module, "get_provider", lambda name: failing)
    with pytest.raises(Internal) as caught:
        start(engine, call(left_out=["n"] if method == "leave_out" else []))
    assert "'up'" in caught.value.message
    assert "sequence" not in caught.value.message
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == [SEQUENCE]
    assert (engine.streams, pools, len(engine.timers)) == ({}, [], 0)


async def test_the_demo_is_a_recording_and_opens_nothing(engine: Engine, pools: list[FakePool]) -> None:
    what = call(DEMO)
    session, _ = start(engine, what)
    await until(lambda: what.output.events)
    assert pools == []
    session.cancel()
    assert engine.streams == {}


async def test_closing_tells_every_stream_and_closes_every_pool(engine: Engine, pools: list[FakePool]) -> None:
    _, waiting = start(engine, call(), "s1")
    running, told = start(engine, call(), "s2")
    running.head_received(200, SSE)
    running.body_received(b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n')
    await engine.close()
    assert engine.streams == {}
    assert pools[0].is_closed
    (error,) = waiting.calls
    assert isinstance(error, Error)
    assert (error.code, error.reason, error.status) == ("overloaded", "draining", 503)
    assert told.calls[-1] == ("end", b"<error><done>")
    assert len(engine.timers) == 0


async def test_upstreams_keep_their_breakers_where_a_new_configuration_has_not_changed_them(engine: Engine) -> None:
    other = dataclasses.replace(UPSTREAM, name="other")
    settings = Settings(models={"m": MODEL}, upstreams={"other": other})  # one is in a model alone
    engine.use(settings)
    kept = [engine.breaker(UPSTREAM), engine.breaker(other)]
    assert None not in kept
    engine.use(settings)
    assert [engine.breaker(UPSTREAM), engine.breaker(other)] == kept
    engine.use(dataclasses.replace(settings, upstreams={"other": dataclasses.replace(other, base_url="http://x")}))
    assert engine.breaker(UPSTREAM) is kept[0]
    assert engine.breaker(other) is not kept[1]
    await engine.close()


async def test_a_stream_of_a_former_configuration_brings_no_breaker_and_no_keys_of_it_back(engine: Engine) -> None:
    former = dataclasses.replace(UPSTREAM, more_api_keys=(Secret("sk-canary-2"),))
    engine.use(Settings(upstreams={"up": former}))
    assert engine.breaker(former) is not None
    single = dataclasses.replace(UPSTREAM, breaker=None)
    engine.use(Settings(upstreams={"up": single}))
    assert engine.key_ring(former).next(0.0) == UPSTREAM.api_key
    assert engine.key_ring(former) is not engine.key_ring(former)
    for each in (former, single):
        assert engine.breaker(each) is None
    assert engine.breaker_states() == {}
    await engine.close()


async def test_the_keys_of_another_configuration_are_not_sent_to_an_upstream_of_a_former_one(engine: Engine) -> None:
    former = dataclasses.replace(UPSTREAM, more_api_keys=(Secret("sk-canary-2"),))
    moved = dataclasses.replace(former, base_url="http://127.0.0.2:9/v1", api_key=Secret("sk-canary-3"))
    engine.use(Settings(upstreams={"up": former}))
    engine.use(Settings(upstreams={"up": moved}))
    assert engine.key_ring(former).next(0.0) == UPSTREAM.api_key
    ring = engine.key_ring(moved)
    engine.use(Settings(upstreams={"up": dataclasses.replace(moved)}))
    assert engine.key_ring(moved) is ring, "nothing has changed"
    await engine.close()
