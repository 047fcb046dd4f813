from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gai_fast.model.errors import Error
from gai_fast.net.upstream.connection import ConnectionCallbacks, Exchange, Timeouts, UpstreamConnection
from gai_fast.runtime.timers import TimerWheel
from tests.wire import chunk

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LENGTH_5 = OK + b"Content-Length: 5\r\n\r\n"


# ---- one exchange ----------------------------------------------------------------------------------------------------

REQUEST = b"POST / HTTP/1.1\r\n\r\n"


class FakeCallbacks(ConnectionCallbacks):
    """A pool with one connection, that writes its calls down."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def connection_made(self, connection: UpstreamConnection) -> None:
        self.calls.append("made")

    def connection_free(self, connection: UpstreamConnection) -> None:
        self.calls.append("free")

    def connection_lost(self, connection: UpstreamConnection, exchange: Exchange | None, exc: Exception | None) -> None:
        self.calls.append("lost")
        if exchange is not None:
            exchange.connection_lost(exc)


class Bench:
    """One exchange on one connection whose peer the test plays."""

    def __init__(self, loop: Any, timers: TimerWheel, receiver: Any, make_transport: Any, **options: Any) -> None:
        self.loop = loop
        self.receiver = receiver
        self.callbacks = FakeCallbacks()
        self.connection = UpstreamConnection(self.callbacks)
        self.transport = make_transport(self.connection, options.pop("buffered", 0))
        self.exchange = Exchange(
            "api.example.com:443",
            options.pop("method", "POST"),
            REQUEST,
            receiver,
            Timeouts(connect=5, idle=60, total=600),
            timers,
            timers.clock(),
        )

    def begin(self, reused: bool = False) -> Bench:
        self.exchange.begin_connecting(lambda: None)
        self.exchange.begin(self.connection, reused=reused)
        return self


@pytest.fixture
def make_bench(loop: Any, timers: TimerWheel, make_recorder: Any, make_transport: Any) -> Callable[..., Bench]:
    return lambda **options: Bench(loop, timers, make_recorder(), make_transport, **options)


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Bench:
    return make_bench().begin()


async def test_a_request_goes_out_in_one_write_and_its_answer_comes_in_as_calls(bench: Bench) -> None:
    assert bench.transport.written == [REQUEST]
    assert (bench.exchange.sent, bench.exchange.reused) == (True, False)
    bench.transport.feed(CHUNKED)
    assert bench.receiver.calls == ["head"]
    bench.transport.feed(chunk(b"a"), chunk(b"b") + b"0\r\n\r\n")
    assert bench.receiver.calls == ["head", "body", "body", "end"]
    assert (bench.receiver.status, bench.receiver.body, bench.receiver.ends) == (200, b"ab", [None])
    assert bench.receiver.headers["content-type"] == "text/event-stream"
    assert bench.callbacks.calls == ["made", "free"]
    assert not bench.loop.handles


async def test_what_is_known_of_a_head_belongs_to_its_connection_and_to_nobody_who_is_reported_it(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench().begin()
    bench.transport.feed(CHUNKED + b"0\r\n\r\n")
    known = bench.connection.known.last
    assert known is not None
    assert known.data == CHUNKED
    bench.receiver.headers.clear()
    assert known.headers["content-type"] == "text/event-stream"
    assert make_bench().connection.known.last is None


async def test_one_read_is_one_call_however_many_chunks_it_holds(bench: Bench) -> None:
    bench.transport.feed(CHUNKED + b"".join(chunk(b"data: %d\n\n" % n) for n in range(300)))
    assert bench.receiver.calls == ["head", "body"]
    assert bench.receiver.body == b"".join(b"data: %d\n\n" % n for n in range(300))


async def test_a_connection_is_not_kept_where_the_answer_does_not_allow_it(make_bench: Callable[..., Bench]) -> None:
    for data in (
        OK + b"Connection: close\r\nContent-Length: 0\r\n\r\n",
        LENGTH_5 + b"hello!",
        b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    ):
        bench = make_bench().begin()
        bench.transport.feed(data)
        assert bench.receiver.ends == [None]
        assert bench.transport.aborted
        assert "free" not in bench.callbacks.calls


async def test_an_answer_before_the_whole_request_was_taken_is_fine_but_ends_the_connection(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(buffered=9).begin()
    bench.transport.feed(LENGTH_5 + b"hello")
    assert bench.receiver.ends == [None]
    assert bench.transport.aborted


async def test_a_free_connection_on_which_something_comes_is_dropped(bench: Bench) -> None:
    bench.transport.feed(LENGTH_5 + b"hello")
    assert bench.callbacks.calls == ["made", "free"]
    bench.transport.feed(LENGTH_5 + b"other")
    assert bench.transport.aborted
    assert bench.receiver.body == b"hello"


async def test_an_error_tells_whether_there_was_a_connection_and_leaves_the_rest_to_who_reads_the_answer(
    make_bench: Callable[..., Bench], settle: Any
) -> None:
    bench = make_bench()
    bench.exchange.fail(Error("network", "x", reason="dns"))
    assert bench.receiver.error.phase == "connect"
    for data in (b"", CHUNKED, CHUNKED + chunk(b"a")):
        bench = make_bench().begin()
        bench.transport.feed(data)
        bench.transport.eof()
        await settle()
        error = bench.receiver.error
        assert (error.code, error.reason, error.phase) == ("network", "truncated", None)
        assert "api.example.com:443" in error.message
        assert not bench.loop.handles


async def test_a_broken_connection_is_reported_after_what_had_come(
    make_bench: Callable[..., Bench], settle: Any
) -> None:
    for exc, reason in ((ConnectionResetError(), "reset"), (BrokenPipeError(), "reset"), (ssl.SSLError(), "tls")):
        bench = make_bench().begin()
        bench.transport.feed(CHUNKED + chunk(b"part"))
        bench.transport.lose(exc)
        await settle()
        assert bench.receiver.body == b"part"
        assert (bench.receiver.error.code, bench.receiver.error.reason) == ("network", reason)
        assert bench.receiver.error.phase is None


async def test_tls_that_ends_without_its_own_end_cuts_the_answer(make_bench: Callable[..., Bench], settle: Any) -> None:
    """An answer without a length would end well without TLS."""
    for answer in (OK + b"\r\nhello", CHUNKED + chunk(b"hello")):
        bench = make_bench().begin()
        bench.transport.feed(answer)
        bench.transport.lose(ssl.SSLEOFError())
        await settle()
        assert bench.receiver.body == b"hello"
        assert (bench.receiver.error.code, bench.receiver.error.reason) == ("network", "truncated")


async def test_an_answer_that_ends_with_the_connection_ends_well(bench: Bench, settle: Any) -> None:
    bench.transport.feed(OK + b"\r\n", b"hello")
    bench.transport.eof()
    await settle()
    assert (bench.receiver.body, bench.receiver.ends) == (b"hello", [None])
    assert bench.callbacks.calls == ["made", "lost"]


async def test_a_refused_answer_drops_the_connection(bench: Bench) -> None:
    bench.transport.feed(b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere/\r\nContent-Length: 0\r\n\r\n")
    assert bench.receiver.calls == ["end"]
    assert bench.receiver.error.reason == "redirect"
    assert bench.transport.aborted


async def test_a_closed_exchange_is_silent_and_its_connection_dead(
    make_bench: Callable[..., Bench], settle: Any
) -> None:
    for before in (b"", LENGTH_5, LENGTH_5 + b"he"):
        bench = make_bench().begin()
        bench.transport.feed(before)
        calls = list(bench.receiver.calls)
        bench.exchange.close()
        bench.exchange.close()
        assert bench.transport.aborted
        await settle()
        bench.exchange.pause_reading()
        bench.exchange.resume_reading()
        assert bench.receiver.calls == calls
        assert "free" not in bench.callbacks.calls
        assert not bench.loop.handles


@pytest.mark.parametrize("data", [LENGTH_5 + b"hello", CHUNKED + chunk(b"hello") + b"zz"])
@pytest.mark.parametrize("when", ["on_head", "on_body"])
async def test_close_from_within_a_call_is_the_last_thing_heard(bench: Bench, when: str, data: bytes) -> None:
    setattr(bench.receiver, when, bench.exchange.close)
    bench.transport.feed(data)
    assert bench.receiver.calls == (["head"] if when == "on_head" else ["head", "body"])
    assert bench.transport.aborted
    assert "free" not in bench.callbacks.calls


async def test_close_before_the_connection_is_there_stops_what_was_under_way(make_bench: Callable[..., Bench]) -> None:
    for state in ("begin_waiting", "begin_connecting"):
        stopped: list[str] = []
        bench = make_bench()
        getattr(bench.exchange, state)(lambda stopped=stopped, state=state: stopped.append(state))
        bench.exchange.close()
        bench.exchange.close()
        assert stopped == [state]
        assert bench.receiver.calls == []
        assert not bench.loop.handles


async def test_nothing_holds_on_to_an_exchange_that_is_over(make_bench: Callable[..., Bench]) -> None:
    gc.disable()
    try:
        bench = make_bench().begin()
        bench.transport.feed(CHUNKED + chunk(b"a") + b"0\r\n\r\n")
        receiver = weakref.ref(bench.receiver)
        del bench.receiver
        assert receiver() is None
    finally:
        gc.enable()


# ---- backpressure and time -------------------------------------------------------------------------------------------


async def test_pausing_reaches_the_transport_whenever_it_is_asked_for(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    bench.exchange.pause_reading()
    bench.begin()
    assert bench.transport.paused
    bench.exchange.resume_reading()
    assert not bench.transport.paused
    bench.exchange.pause_reading()
    bench.exchange.pause_reading()
    assert bench.transport.paused


async def test_a_connection_freed_while_paused_reads_again(bench: Bench) -> None:
    bench.receiver.on_body = bench.exchange.pause_reading
    bench.transport.feed(LENGTH_5 + b"hello")
    assert bench.callbacks.calls == ["made", "free"]
    assert not bench.transport.paused


async def test_a_connect_that_takes_too_long_is_a_timeout(make_bench: Callable[..., Bench]) -> None:
    stopped: list[int] = []
    bench = make_bench()
    bench.loop.advance(100)  # the wait in the pool's queue is not the connect's
    bench.exchange.begin_connecting(lambda: stopped.append(1))
    bench.loop.advance(4.9)
    assert not bench.receiver.ends
    bench.loop.advance(0.2)
    error = bench.receiver.error
    assert (error.code, error.reason, error.phase) == ("timeout", "connect", "connect")
    assert stopped == [1]


async def test_the_work_for_its_connection_is_stopped_once(make_bench: Callable[..., Bench]) -> None:
    bench, stopped = make_bench(), list[str]()
    bench.exchange.begin_connecting(lambda: stopped.append("connecting"))
    assert not bench.exchange.has_ended
    bench.exchange.close()
    bench.exchange.close()
    assert stopped == ["connecting"]
    assert bench.exchange.has_ended


async def test_silence_is_a_timeout_and_any_byte_begins_it_anew(bench: Bench) -> None:
    bench.loop.advance(59)
    bench.transport.feed(CHUNKED)
    bench.loop.advance(59)
    bench.transport.feed(b"5")  # not even a byte of the body
    bench.loop.advance(59.9)
    assert not bench.receiver.ends
    bench.loop.advance(0.2)
    error = bench.receiver.error
    assert (error.code, error.reason, error.phase) == ("timeout", "idle", None)
    assert bench.transport.aborted


@pytest.mark.parametrize("amid", [False, True])
async def test_a_shorter_silence_holds_for_one_exchange(bench: Bench, amid: bool) -> None:
    bench.loop.advance(10)
    if amid:
        bench.transport.feed(CHUNKED + chunk(b"a"))
        bench.loop.advance(10)
    bench.exchange.limit_silence(30.0)
    bench.loop.advance(19.8)
    assert not bench.receiver.ends
    bench.loop.advance(0.3)
    assert str(bench.receiver.error).endswith("sent nothing for 30 s (idle_timeout)")
    bench.exchange.limit_silence(5.0)
    bench.loop.advance(60)
    assert len(bench.receiver.ends) == 1


async def test_the_timer_of_a_connection_serves_all_its_exchanges(
    make_bench: Callable[..., Bench], timers: TimerWheel, make_recorder: Any
) -> None:
    bench = make_bench()
    bench.exchange.begin(bench.connection, reused=True)
    bench.transport.feed(CHUNKED + b"0\r\n\r\n")
    assert bench.receiver.ends == [None]
    for _ in range(3):
        bench.loop.advance(40)
        receiver = make_recorder()
        exchange = Exchange("up", "POST", REQUEST, receiver, Timeouts(5, 60, 600), timers, timers.clock())
        exchange.begin(bench.connection, reused=True)
        assert len(timers) == 1
        bench.loop.advance(59)
        assert not receiver.ends
        bench.transport.feed(CHUNKED + b"0\r\n\r\n")
        assert receiver.ends == [None]
    exchange = Exchange("up", "POST", REQUEST, receiver, Timeouts(5, 60, 600), timers, timers.clock())
    exchange.begin(bench.connection, reused=True)
    bench.loop.advance(60.1)
    error = receiver.ends[-1]
    assert (error.code, error.reason) == ("timeout", "idle")
    assert not len(timers)


async def test_an_exchange_that_has_waited_leaves_no_timer(
    make_bench: Callable[..., Bench], timers: TimerWheel, make_recorder: Any
) -> None:
    bench = make_bench()
    bench.exchange.begin(bench.connection, reused=True)
    bench.transport.feed(CHUNKED + b"0\r\n\r\n")
    receiver = make_recorder()
    exchange = Exchange("up", "POST", REQUEST, receiver, Timeouts(5, 60, 600), timers, timers.clock())
    exchange.begin_waiting(lambda: None)
    bench.loop.advance(40)
    exchange.begin(bench.connection, reused=True)
    bench.loop.advance(30)  # the time of the connection's timer comes
    bench.transport.feed(CHUNKED + b"0\r\n\r\n")
    assert receiver.ends == [None]
    bench.connection.abort()
    assert not len(timers)


async def test_an_idle_connection_has_no_timer_that_is_set_again(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    bench.exchange.begin(bench.connection, reused=True)
    bench.transport.feed(CHUNKED + b"0\r\n\r\n")
    bench.loop.advance(61)
    assert not bench.loop.handles
    assert not bench.transport.aborted


@pytest.mark.parametrize("end", ["closed", "lost", "not reusable", "aborted while idle"])
async def test_a_connection_that_is_gone_has_no_timer(make_bench: Callable[..., Bench], end: str) -> None:
    bench = make_bench()
    bench.exchange.begin(bench.connection, reused=False)
    assert bench.loop.handles
    if end == "closed":
        bench.exchange.close()
    elif end == "lost":
        bench.connection.connection_lost(None)
    elif end == "not reusable":
        bench.transport.feed(OK + b"Connection: close\r\nContent-Length: 0\r\n\r\n")
    else:
        bench.transport.feed(CHUNKED + b"0\r\n\r\n")
        bench.connection.abort()
    assert not bench.loop.handles


async def test_a_connection_that_was_paused_at_the_end_is_read_again(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench().begin()
    bench.exchange.pause_reading()
    assert not bench.transport.is_reading()
    bench.connection.data_received(CHUNKED + b"0\r\n\r\n")  # a read that had waited for the others of its turn
    assert bench.receiver.ends == [None]
    assert bench.transport.is_reading()


async def test_no_idle_time_passes_while_reading_is_paused(bench: Bench) -> None:
    bench.transport.feed(CHUNKED + chunk(b"a"))
    bench.exchange.pause_reading()
    bench.loop.advance(300)
    assert not bench.receiver.ends
    bench.exchange.resume_reading()
    bench.loop.advance(59.9)
    assert not bench.receiver.ends
    bench.loop.advance(0.2)
    assert bench.receiver.error.reason == "idle"


async def test_the_total_time_runs_on_whatever_happens(make_bench: Callable[..., Bench]) -> None:
    busy, paused, waiting = make_bench().begin(), make_bench().begin(), make_bench()
    paused.exchange.pause_reading()
    waiting.exchange.begin_waiting(lambda: None)
    busy.transport.feed(CHUNKED)
    for _ in range(599):
        busy.loop.advance(1)
        busy.transport.feed(chunk(b"a"))
    assert not [bench for bench in (busy, paused, waiting) if bench.receiver.ends]
    busy.loop.advance(1.1)
    for bench, phase in ((busy, None), (paused, None), (waiting, "connect")):
        error = bench.receiver.error
        assert (error.code, error.reason, error.phase) == ("timeout", "total", phase)


async def test_a_busy_stream_costs_no_timer_per_read(bench: Bench) -> None:
    bench.transport.feed(CHUNKED)
    for _ in range(1000):
        bench.loop.advance(0.01)
        bench.transport.feed(chunk(b"a"))
    assert bench.loop.runs <= 2


async def test_a_stream_that_went_on_while_the_loop_stood_still_is_not_taken_for_silent(bench: Bench) -> None:
    bench.loop.stand_still(120)
    bench.transport.feed(CHUNKED)
    bench.loop.advance(30)
    assert not bench.receiver.ends


@pytest.mark.parametrize("call", ["head", "body"])
async def test_a_bug_while_a_read_is_handled_is_not_a_connection_that_broke(
    bench: Bench, settle: Any, call: str
) -> None:
    setattr(bench.receiver, f"on_{call}", lambda: 1 // 0)
    bench.transport.feed(CHUNKED + chunk(b"part"))
    await settle()
    error = bench.receiver.error
    assert (error.code, error.phase) == ("internal", None)
    assert isinstance(error.__cause__, ZeroDivisionError)
    assert bench.transport.aborted
    assert not bench.loop.handles


# ---- a socket that is lent -------------------------------------------------------------------------------------------


class Borrower:
    """A borrower of the socket."""

    def __init__(self) -> None:
        self.is_reading = True

    def end_reading(self) -> None:
        self.is_reading = False


@pytest.fixture
def borrowed(bench: Bench) -> Iterator[tuple[Bench, Any]]:
    """Yields a connection whose socket is lent, and its borrower."""
    borrower: Any = Borrower()
    assert bench.connection.lend(borrower) == -1, "it has no socket"
    assert not bench.transport.paused
    with socket.socket() as bench.transport.socket:
        assert bench.connection.lend(borrower) == bench.transport.socket.fileno()
        assert bench.transport.paused
        yield bench, borrower


async def test_a_socket_is_read_again_once_it_is_taken_back(borrowed: tuple[Bench, Any]) -> None:
    bench, borrower = borrowed
    bench.connection.take_back()
    bench.connection.take_back()
    assert not borrower.is_reading
    assert not bench.transport.paused


async def test_a_connection_that_does_not_read_lends_nothing(borrowed: tuple[Bench, Any]) -> None:
    bench, borrower = borrowed
    bench.exchange.pause_reading()
    assert not borrower.is_reading
    assert bench.transport.paused
    assert bench.connection.lend(borrower) == -1


async def test_a_socket_whose_input_has_ended_is_given_back_at_once_and_not_borrowed_again(
    borrowed: tuple[Bench, Any],
) -> None:
    """The end came with bytes, for which a fast path has borrowed the socket; `connection_lost` comes a turn later."""
    bench, borrower = borrowed
    bench.connection.eof_received()
    assert not borrower.is_reading
    again: Any = Borrower()
    bench.transport.paused = False
    assert bench.connection.lend(again) == -1


@pytest.mark.parametrize("end", ["close", "fail", "lost"])
async def test_nobody_reads_the_socket_of_a_connection_that_is_closed(borrowed: tuple[Bench, Any], end: str) -> None:
    bench, borrower = borrowed
    if end == "close":
        bench.exchange.close()
    elif end == "fail":
        bench.exchange.fail(Error("internal", "no"))
    else:
        bench.connection.connection_lost(None)
    assert not borrower.is_reading


async def test_a_connection_is_reported_what_its_borrower_was(borrowed: tuple[Bench, Any]) -> None:
    bench, borrower = borrowed
    bench.connection.broke(ConnectionResetError(104, "Connection reset by peer"))
    await asyncio.sleep(0)
    assert not borrower.is_reading
    assert bench.transport.aborted
    (error,) = bench.receiver.ends
    assert (error.code, error.reason) == ("network", "reset")
