from __future__ import annotations

import asyncio
import errno
import gc
import socket
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from gai_fast.model.errors import Error
from gai_fast.model.settings import ANONYMOUS, Peer
from gai_fast.net.attempts.retry import is_fault_of_upstream
from gai_fast.net.upstream.connection import UpstreamConnection
from gai_fast.net.upstream.connection_pool import PoolStats
from gai_fast.net.upstream.pool import UpstreamPool, close_all, close_together
from gai_fast.runtime.timers import TimerWheel
from tests.limits import LIMITS
from tests.unit.fake_loop import FakeTransport
from tests.waiting import until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"


class Bench:
    """A pool and the receivers of what it was asked for, in order."""

    def __init__(self, loop: Any, timers: TimerWheel, make_recorder: Any, base_url: str, **options: Any) -> None:
        settings: dict[str, Any] = {"max_connections": 10, **options}
        times = {name: settings.pop(name) for name in [*settings] if name.endswith("_timeout")}
        self.loop = loop
        self.pool = UpstreamPool(Peer(base_url, **times), timers=timers, loop=loop, **settings)
        self.make_recorder = make_recorder
        self.receivers: list[Any] = []

    def open(self, body: bytes = b"{}") -> Any:
        self.receivers.append(self.make_recorder())
        return self.pool.open("POST", "/chat", [("Authorization", "Bearer k")], body, self.receivers[-1], ANONYMOUS)

    def counts(self, *names: str) -> tuple[int, ...]:
        return tuple(getattr(self.pool.stats, name) for name in names)

    @property
    def transports(self) -> list[Any]:
        return list(self.loop.transports)


@pytest.fixture
def make_bench(loop: Any, timers: TimerWheel, make_recorder: Any) -> Callable[..., Bench]:
    return lambda base_url="http://192.0.2.1/v1", **options: Bench(loop, timers, make_recorder, base_url, **options)


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Bench:
    return make_bench()


# ---- who gets which connection ---------------------------------------------------------------------------------------


async def test_open_returns_at_once_and_calls_nothing(bench: Bench, settle: Any) -> None:
    exchange = bench.open()
    assert (exchange.sent, exchange.reused, bench.receivers[0].calls) == (False, False, [])
    await settle()
    assert exchange.sent
    assert bench.transports[0].written[0].startswith(b"POST /v1/chat HTTP/1.1\r\nHost: 192.0.2.1\r\n")
    assert bench.transports[0].written[0].endswith(b"\r\n\r\n{}")


async def test_a_request_that_would_break_the_framing_is_refused_before_anything_happens(bench: Bench) -> None:
    with pytest.raises(ValueError, match="'x'"):
        bench.pool.open("POST", "/", [("x", "a\r\nb")], b"", bench.make_recorder(), ANONYMOUS)
    assert bench.pool.stats == PoolStats(open=0, idle=0, connecting=0, pending=0, opened=0, reused=0, retried=0)
    assert not bench.loop.handles


async def test_a_connection_carries_one_request_after_another(bench: Bench, settle: Any) -> None:
    for n in range(5):
        exchange = bench.open()
        await settle()
        assert exchange.reused == (n > 0)
        bench.transports[0].feed(OK)
        assert bench.receivers[n].body == b"ok"
    assert len(bench.transports) == 1
    assert bench.counts("open", "idle", "opened", "reused") == (1, 1, 1, 4)


async def test_the_last_used_connection_is_taken_first(bench: Bench, settle: Any) -> None:
    for _ in range(3):
        bench.open()
    await settle()
    for n in (0, 2, 1):
        bench.transports[n].feed(OK)
    bench.open()
    bench.open()
    assert [len(transport.written) for transport in bench.transports] == [1, 2, 2]


async def test_no_more_connections_than_allowed_and_those_who_wait_are_served_in_order(
    make_bench: Callable[..., Bench], settle: Any
) -> None:
    bench = make_bench(max_connections=2)
    for n in range(6):
        bench.open(b"%d" % n)
    await settle()
    assert bench.counts("open", "pending") == (2, 4)
    for n in range(4):
        bench.transports[n % 2].feed(OK)
        assert bench.transports[n % 2].written[-1].endswith(b"\r\n\r\n%d" % (n + 2))
    assert bench.counts("open", "pending", "opened", "reused") == (2, 0, 2, 4)


async def test_a_lost_connection_makes_room_for_who_waits(make_bench: Callable[..., Bench], settle: Any) -> None:
    bench = make_bench(max_connections=1)
    first = bench.open(b"0")
    bench.open(b"1")
    bench.open(b"2")
    await settle()
    first.close()
    await settle()
    assert bench.transports[1].written[0].endswith(b"1")
    bench.transports[1].lose(ConnectionResetError())
    await settle()
    assert bench.receivers[1].error.reason == "reset"
    assert bench.transports[2].written[0].endswith(b"2")
    assert bench.counts("open", "pending") == (1, 0)


async def test_a_failed_connect_makes_room_for_who_waits(make_bench: Callable[..., Bench], settle: Any) -> None:
    bench = make_bench(max_connections=1)
    bench.loop.refuse["192.0.2.1"] = ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed ('192.0.2.1')")
    for _ in range(3):
        bench.open()
    for _ in range(3):
        await settle()
    assert [receiver.error.reason for receiver in bench.receivers] == ["connect"] * 3
    assert bench.counts("open", "connecting", "pending") == (0, 0, 0)


async def test_who_waits_can_leave(make_bench: Callable[..., Bench], settle: Any) -> None:
    bench = make_bench(max_connections=1)
    exchanges = [bench.open(b"%d" % n) for n in range(3)]
    await settle()
    exchanges[1].close()
    assert bench.counts("pending") == (1,)
    bench.transports[0].feed(OK)
    assert bench.transports[0].written[-1].endswith(b"2")
    assert bench.receivers[1].calls == []


async def test_the_queue_is_bounded(make_bench: Callable[..., Bench], settle: Any) -> None:
    bench = make_bench(max_connections=1)
    for _ in range(1 + LIMITS.pool_waiting):
        bench.open()
    bench.open()
    left = bench.open()
    left.close()
    assert bench.receivers[-2].calls == []
    await settle()
    error = bench.receivers[-2].error
    assert (error.code, error.reason, error.phase) == ("overloaded", "upstream_pool", "connect")
    assert bench.receivers[-1].calls == []
    assert bench.counts("pending") == (LIMITS.pool_waiting,)
    await bench.pool.close()


async def test_who_has_waited_for_pool_wait_is_refused_and_the_setting_is_named_once_a_minute(
    make_bench: Callable[..., Bench], settle: Any, caplog: pytest.LogCaptureFixture
) -> None:
    waits: list[float] = []
    bench = make_bench(max_connections=1, pool_wait=2.0, waited=waits.append, idle_timeout=999.0)
    bench.open()
    bench.open()
    bench.loop.advance(1.5)
    bench.open()
    bench.loop.advance(0.6)
    await settle()
    error = bench.receivers[1].error
    assert (error.code, error.reason, error.phase) == ("overloaded", "upstream_pool", "connect")
    assert error.retry_after_ms == 1000
    assert "within 2 s (pool_wait): all of max_connections = 1 are in use" in error.message
    assert "192.0.2.1" not in error.message
    assert bench.counts("pending") == (1,), "the third has waited for 0.6 s"
    bench.loop.advance(1.5)
    await settle()
    assert bench.receivers[2].error.reason == "upstream_pool"
    assert [record.message for record in caplog.records if "max_connections = 1" in record.message] == [
        "192.0.2.1:80: requests without a connection: 1; all of max_connections = 1 are in use (pool_wait = 2 s)"
    ]
    bench.loop.advance(60)
    bench.open()
    bench.loop.advance(2.1)
    await settle()
    assert "192.0.2.1:80: requests without a connection: 2;" in caplog.text
    bench.open(b"last")
    bench.loop.advance(0.5)
    bench.transports[0].feed(OK)
    assert bench.transports[0].written[-1].endswith(b"last")
    assert [round(wait, 1) for wait in waits[-1:]] == [0.5]
    assert len(waits) == 4
    await bench.pool.close()


# ---- what is kept ----------------------------------------------------------------------------------------------------


async def test_a_connection_is_not_kept_after_a_close_or_a_broken_answer(bench: Bench, settle: Any) -> None:
    for data in (b"", HEAD, HEAD + b"part", OK + b"extra", b"nonsense"):
        exchange = bench.open()
        await settle()
        transport = bench.transports[-1]
        transport.feed(data)
        exchange.close()
        await settle()
        assert transport.aborted
        assert bench.counts("open", "idle") == (0, 0)


async def test_an_idle_connection_that_closes_or_speaks_is_forgotten(bench: Bench, settle: Any) -> None:
    spoil: list[Callable[..., Any]] = [
        lambda transport: transport.eof(),
        lambda transport: transport.lose(ConnectionResetError()),
        lambda transport: transport.feed(OK),
    ]
    for act in spoil:
        bench.open()
        await settle()
        bench.transports[-1].feed(OK)
        act(bench.transports[-1])
        exchange = bench.open()  # even before the loop has reported the loss
        await settle()
        assert not exchange.reused
        exchange.close()
        await settle()
    assert bench.counts("open", "retried") == (0, 0)


async def test_an_idle_connection_is_closed_when_its_time_is_up(bench: Bench, settle: Any) -> None:
    for _ in range(2):
        bench.open()
    await settle()
    bench.transports[0].feed(OK)
    bench.loop.advance(10)
    bench.transports[1].feed(OK)
    bench.loop.advance(LIMITS.pool_idle - 10.1)
    assert not bench.transports[0].aborted
    bench.loop.advance(0.2)
    assert [transport.aborted for transport in bench.transports] == [True, False]
    bench.loop.advance(10)
    await settle()
    assert bench.counts("open", "idle") == (0, 0)
    assert not bench.loop.handles


async def test_an_idle_time_begins_with_each_use(bench: Bench, settle: Any) -> None:
    for _ in range(5):
        bench.open()
        await settle()
        bench.transports[0].feed(OK)
        bench.loop.advance(LIMITS.pool_idle - 1)
    assert bench.counts("open", "opened") == (1, 1)


# ---- the transparent retry -------------------------------------------------------------------------------------------


async def pooled(bench: Bench, settle: Any) -> Any:
    """Returns an exchange on a connection that had been idle."""
    bench.open()
    await settle()
    bench.transports[0].feed(OK)
    exchange = bench.open(b"again")
    assert exchange.reused
    return exchange


@pytest.mark.parametrize("exc", [None, ConnectionResetError(), BrokenPipeError()])
async def test_a_pooled_connection_that_was_dead_costs_one_retry_on_a_fresh_one(
    bench: Bench, settle: Any, exc: Exception | None
) -> None:
    exchange = await pooled(bench, settle)
    bench.transports[0].lose(exc)
    await settle()
    assert bench.receivers[1].calls == []
    assert (exchange.sent, exchange.reused, exchange.resent) == (True, False, True)
    assert bench.transports[1].written[0].endswith(b"again")
    bench.transports[1].feed(OK)
    assert bench.receivers[1].ends == [None]
    assert bench.counts("open", "idle", "opened", "retried") == (1, 1, 2, 1)


async def test_a_request_that_may_not_come_twice_ends_with_its_pooled_connection(bench: Bench, settle: Any) -> None:
    bench.open()
    await settle()
    bench.transports[0].feed(OK)
    receiver = bench.make_recorder()
    exchange = bench.pool.open_once("POST", "/jobs", [], b"{}", receiver, ANONYMOUS, None, -1, False)
    assert exchange.reused
    bench.transports[0].lose(ConnectionResetError())
    await settle()
    assert (receiver.error.code, receiver.error.reason) == ("network", "reset")
    assert len(bench.transports) == 1
    assert bench.counts("open", "retried") == (0, 0)


async def test_there_is_no_second_retry(bench: Bench, settle: Any) -> None:
    await pooled(bench, settle)
    bench.transports[0].eof()
    await settle()
    bench.transports[1].eof()
    await settle()
    assert bench.receivers[1].error.reason == "truncated"
    assert len(bench.transports) == 2


async def test_a_retry_goes_before_those_who_wait(make_bench: Callable[..., Bench], settle: Any) -> None:
    bench = make_bench(max_connections=1)
    await pooled(bench, settle)
    bench.open(b"later")
    bench.transports[0].eof()
    await settle()
    assert bench.transports[1].written[0].endswith(b"again")
    assert bench.counts("open", "pending") == (1, 1)


async def test_a_retry_can_be_closed_and_can_fail(bench: Bench, settle: Any) -> None:
    exchange = await pooled(bench, settle)
    bench.loop.refuse["192.0.2.1"] = ConnectionRefusedError(errno.ECONNREFUSED, "")
    bench.transports[0].eof()
    await settle()
    assert (bench.receivers[1].error.reason, bench.receivers[1].error.phase) == ("connect", "connect")
    assert not exchange.sent


@pytest.mark.parametrize("data", [b"H", HEAD, HEAD + b"x"])
async def test_nothing_is_sent_again_once_a_byte_of_an_answer_has_come(bench: Bench, settle: Any, data: bytes) -> None:
    await pooled(bench, settle)
    bench.transports[0].feed(data)
    bench.transports[0].lose(ConnectionResetError())
    await settle()
    assert bench.receivers[1].error.reason == "reset"
    assert len(bench.transports) == 1


async def test_nothing_is_sent_again_where_the_upstream_may_have_been_at_work(bench: Bench, settle: Any) -> None:
    await pooled(bench, settle)
    bench.loop.advance(LIMITS.pool_stale + 0.1)
    bench.transports[0].eof()
    await settle()
    assert bench.receivers[1].error.reason == "truncated"
    assert len(bench.transports) == 1


async def test_a_fresh_connection_that_closes_without_an_answer_is_no_case_for_a_retry(
    bench: Bench, settle: Any
) -> None:
    bench.open()
    await settle()
    bench.transports[0].eof()
    await settle()
    assert bench.receivers[0].error.reason == "truncated"
    assert bench.counts("retried") == (0,)


# ---- how a connection is made ----------------------------------------------------------------------------------------


async def test_a_literal_address_is_not_looked_up(make_bench: Callable[..., Bench], settle: Any) -> None:
    for base_url, address in (("http://127.0.0.1:1", "127.0.0.1"), ("http://[::1]:1", "::1")):
        bench = make_bench(base_url)
        bench.loop.names = AssertionError("looked up")
        bench.open()
        await settle()
        assert bench.loop.connects[-1] == address


async def test_families_alternate_and_the_next_address_is_tried_when_one_refuses(
    make_bench: Callable[..., Bench], settle: Any
) -> None:
    bench = make_bench("http://api.example.com")
    v6 = [(socket.AF_INET6, 1, 6, "", (f"2001:db8::{n}", 80, 0, 0)) for n in (1, 2)]
    v4 = [(socket.AF_INET, 1, 6, "", (f"192.0.2.{n}", 80)) for n in (1, 2, 3)]
    bench.loop.names = v6 + v4
    for address in ("2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2"):
        bench.loop.refuse[address] = OSError(errno.ENETUNREACH, "")
    bench.open()
    await settle()
    await settle()
    assert bench.loop.connects == ["2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2", "192.0.2.3"]
    bench.transports[0].feed(OK)
    assert bench.receivers[0].ends == [None]


async def test_an_address_that_never_answers_does_not_hold_up_the_next(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench("http://api.example.com")
    bench.loop.names = [
        (socket.AF_INET6, 1, 6, "", ("2001:db8::1", 80, 0, 0)),
        (socket.AF_INET, 1, 6, "", ("192.0.2.1", 80)),
    ]
    bench.loop.refuse["2001:db8::1"] = None
    exchange = bench.open()
    await until(lambda: exchange.sent)
    assert bench.loop.connects == ["2001:db8::1", "192.0.2.1"]
    assert len(asyncio.all_tasks()) <= 2  # the losing attempt is cancelled


async def test_what_the_system_says_of_a_failed_connect_is_passed_on(bench: Bench, settle: Any) -> None:
    bench.loop.refuse["192.0.2.1"] = ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed ('192.0.2.1', 80)")
    exchange = bench.open()
    await settle()
    error = bench.receivers[0].error
    assert (error.code, error.reason, error.phase, exchange.sent) == ("network", "connect", "connect", False)
    assert error.message == (
        "cannot connect to 192.0.2.1:80 (Connection refused): check base_url, and that the upstream is running"
    )


async def test_a_name_that_does_not_resolve_is_reported(make_bench: Callable[..., Bench], settle: Any) -> None:
    bench = make_bench("https://nowhere.invalid")
    bench.loop.names = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    bench.open()
    await settle()
    error = bench.receivers[0].error
    assert (error.code, error.reason) == ("network", "dns")
    assert "nowhere.invalid" in error.message
    assert "Name or service not known" in error.message


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
@pytest.mark.parametrize("url", ["http://192.0.2.1", "https://up.example"])
async def test_a_want_of_descriptors_is_no_fault_of_the_upstream(
    make_bench: Callable[..., Bench], settle: Any, url: str, number: int
) -> None:
    bench = make_bench(url)
    bench.loop.refuse["192.0.2.1"] = bench.loop.names = OSError(number, "Too many open files")
    bench.open()
    await settle()
    error = bench.receivers[0].error
    assert (error.code, error.reason, error.phase, error.temporary) == ("overloaded", "descriptors", "connect", True)
    assert error.retry_after_ms == LIMITS.overloaded_ms
    assert not is_fault_of_upstream(error)


async def test_a_bug_while_a_connection_is_made_ends_the_exchange(
    bench: Bench, settle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waited for `connect_timeout`."""

    async def fail(*_: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr("gai_fast.net.upstream.dialing.connected", fail)
    bench.open()
    await settle()
    error = bench.receivers[0].error
    assert (error.code, error.reason, error.phase) == ("internal", None, None)
    assert isinstance(error.__cause__, ZeroDivisionError)
    assert bench.pool.stats.connecting == 0


@pytest.mark.interpreted
async def test_a_bug_while_a_request_is_written_ends_the_exchange(
    bench: Bench, settle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waited for `idle_timeout`."""

    def fail(*_: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(UpstreamConnection, "begin", fail)
    bench.open()
    await settle()
    assert isinstance(bench.receivers[0].error.__cause__, ZeroDivisionError)


@pytest.mark.parametrize("host", ["api.example.com", "192.0.2.1"])
async def test_tls_is_with_the_host_that_was_configured(
    make_bench: Callable[..., Bench], settle: Any, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    made: list[Any] = []

    class FakeTLS:
        def __init__(self, origin: Any, loop: Any, clock: Any, readers: Any, context: Any) -> None:
            self.host = origin.host

        async def connect(self, sock: socket.socket, receiver: Any) -> None:
            sock.close()
            made.append(self.host)
            FakeTransport(receiver)

    monkeypatch.setattr("gai_fast.net.upstream.pool.TLS", FakeTLS)
    bench = make_bench(f"https://{host}")
    exchange = bench.open()
    await settle()
    assert exchange.sent
    assert (made, bench.transports) == ([host], [])


@pytest.fixture
def failing_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    """No handshake succeeds."""

    async def fail(tls: Any, sock: socket.socket, receiver: Any) -> None:
        sock.close()
        raise Error("network", "no TLS with api.example.com:443", reason="tls")

    monkeypatch.setattr("gai_fast.net.upstream.tls.TLS.connect", fail)


@pytest.mark.usefixtures("failing_tls")
async def test_a_failed_handshake_is_reported(make_bench: Callable[..., Bench], settle: Any) -> None:
    bench = make_bench("https://api.example.com")
    bench.open()
    await settle()
    error = bench.receivers[0].error
    assert (error.code, error.reason, error.phase) == ("network", "tls", "connect")


@pytest.mark.usefixtures("failing_tls")
async def test_a_host_that_fails_the_handshake_may_have_moved(make_bench: Callable[..., Bench], settle: Any) -> None:
    bench = make_bench("https://api.example.com")
    bench.open()
    await settle()
    bench.loop.names = [(socket.AF_INET, 1, 6, "", ("192.0.2.2", 443))]
    bench.open()
    await settle()
    assert bench.loop.connects == ["192.0.2.1", "192.0.2.2"]


async def test_a_connection_that_breaks_before_it_is_used_is_reported(bench: Bench, settle: Any) -> None:
    bench.loop.failure = ConnectionResetError()
    bench.open()
    await settle()
    assert (bench.receivers[0].error.code, bench.receivers[0].error.reason) == ("network", "connect")


async def test_a_peer_that_closes_or_speaks_first_gets_no_request(
    bench: Bench, settle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bench.loop.make_transport

    def speaks_first(*args: Any) -> None:
        bench.loop.call_soon(made(*args).feed, b"SSH-2.0-x\r\n")

    monkeypatch.setattr("gai_fast.net.upstream.pool.PlainTransport", lambda _, *args: speaks_first(*args))
    exchange = bench.open()
    await settle()
    assert (bench.receivers[0].error.code, bench.receivers[0].error.reason) == ("network", "reset")
    assert not exchange.sent
    assert bench.transports[0].written == []
    assert bench.counts("open", "connecting") == (0, 0)


async def test_a_forbidden_address_is_never_connected_to(make_bench: Callable[..., Bench], settle: Any) -> None:
    for base_url in ("http://169.254.169.254/latest", "http://metadata.example", "http://[fe80::1]"):
        bench = make_bench(base_url)
        bench.loop.names = [
            (socket.AF_INET, 1, 6, "", ("192.0.2.1", 80)),
            (socket.AF_INET, 1, 6, "", ("169.254.169.254", 80)),
        ]
        bench.open()
        await settle()
        error = bench.receivers[0].error
        assert (error.code, error.reason, error.phase) == ("network", "forbidden_address", "connect")
        assert bench.loop.connects == []


async def test_closing_while_connecting_stops_the_attempt(bench: Bench, settle: Any) -> None:
    bench.loop.gate = asyncio.Event()
    early = bench.open()
    early.close()  # before its task has begun
    late = bench.open()
    await settle()
    late.close()
    await settle()
    assert bench.counts("open", "connecting") == (0, 0)
    assert not bench.transports
    assert not [receiver for receiver in bench.receivers if receiver.calls]
    assert len(asyncio.all_tasks()) == 1


async def test_a_connection_that_was_made_for_one_who_left_is_closed(
    bench: Bench, settle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bench.loop.make_transport

    def after_he_left(*args: Any) -> None:
        exchange.close()
        made(*args)

    monkeypatch.setattr("gai_fast.net.upstream.pool.PlainTransport", lambda _, *args: after_he_left(*args))
    exchange = bench.open()
    await settle()
    assert bench.transports[0].aborted
    assert bench.transports[0].written == []
    assert bench.receivers[0].calls == []
    assert bench.counts("idle", "connecting") == (0, 0)


async def test_a_pause_before_the_connection_is_there_holds_afterwards(bench: Bench, settle: Any) -> None:
    bench.open().pause_reading()
    await settle()
    assert bench.transports[0].paused


async def test_a_slow_connect_ends_with_connect_timeout(bench: Bench, settle: Any) -> None:
    bench.loop.gate = asyncio.Event()
    bench.open()
    await settle()
    bench.loop.advance(5.1)
    await settle()
    assert (bench.receivers[0].error.code, bench.receivers[0].error.reason) == ("timeout", "connect")
    assert bench.counts("open", "connecting") == (0, 0)


# ---- the end ---------------------------------------------------------------------------------------------------------


async def test_closing_the_pool_ends_everything(make_bench: Callable[..., Bench], settle: Any) -> None:
    bench = make_bench(max_connections=3)
    for _ in range(2):
        bench.open()
    await settle()
    bench.transports[0].feed(OK)
    bench.transports[1].feed(HEAD + b"part")
    bench.open()
    bench.loop.gate = asyncio.Event()
    for _ in range(2):
        bench.open()
    await settle()
    assert bench.counts("open", "idle", "connecting", "pending") == (2, 0, 1, 1)
    await bench.pool.close()
    for receiver in bench.receivers[1:]:
        assert (receiver.error.code, receiver.error.reason) == ("network", "closed")
    assert bench.counts("open", "idle", "connecting", "pending") == (0, 0, 0, 0)
    assert not bench.loop.handles
    assert len(asyncio.all_tasks()) == 1
    bench.open()
    await settle()
    assert bench.receivers[-1].error.reason == "closed"
    await bench.pool.close()


async def test_closing_a_pool_with_idle_connections_closes_them(bench: Bench, settle: Any) -> None:
    bench.open()
    await settle()
    bench.transports[0].feed(OK)
    await bench.pool.close()
    assert bench.transports[0].aborted
    assert bench.counts("open") == (0,)
    assert not bench.loop.handles


async def test_ten_thousand_closed_exchanges_leave_nothing_behind_and_no_byte_reaches_another(
    make_bench: Callable[..., Bench], settle: Any
) -> None:
    bench = make_bench(max_connections=4)
    for n in range(10_000):
        exchange = bench.open(b"%d" % n)
        if n % 4:
            await settle()
            transport = bench.transports[-1]
            assert transport.written[-1].endswith(b"\r\n\r\n%d" % n)
            assert len(transport.written) == 1
            if n % 4 > 1:
                transport.feed(HEAD + (b"secret" if n % 4 == 3 else b""))
        exchange.close()
        bench.receivers.clear()
        bench.loop.transports.clear()
    await settle()
    assert bench.counts("open", "connecting", "pending") == (0, 0, 0)
    assert not bench.loop.handles


async def test_a_pool_keeps_nothing_of_an_exchange_that_is_over(bench: Bench, settle: Any) -> None:
    exchange = bench.open()
    await settle()
    bench.transports[0].feed(OK)
    receiver = weakref.ref(bench.receivers.pop())
    del exchange
    gc.collect()
    assert receiver() is None


async def test_what_is_closed_together_takes_the_time_of_the_slowest() -> None:
    gate = asyncio.Event()

    async def wait() -> None:
        await gate.wait()

    async def release() -> None:
        gate.set()

    await close_together(wait(), release())
    assert gate.is_set()


async def test_what_fails_to_close_does_not_keep_the_others_open() -> None:
    """A ledger that fails must not cost a store its last writes."""
    closed: list[str] = []

    class Part:
        def __init__(self, name: str) -> None:
            self._name = name

        async def close(self) -> None:
            closed.append(self._name)
            if self._name == "ledger":
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await close_all(Part("pool").close, Part("ledger").close, Part("store").close)
    assert closed == ["pool", "ledger", "store"]
