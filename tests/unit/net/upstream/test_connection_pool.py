"""Connections are lent by rules that hold however one is made; what a pool makes of them, `test_pool.py` tells."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest

from gai_fast.model.errors import Error
from gai_fast.model.settings import ANONYMOUS
from gai_fast.net.upstream.connection import Exchange, Timeouts, UpstreamConnection
from gai_fast.net.upstream.connection_pool import ConnectAttempt, ConnectionPool, ConnectionShare, PoolCallbacks
from gai_fast.net.upstream.http_request import Origin
from gai_fast.runtime.timers import TimerWheel
from tests.conftest import ChangeLimits
from tests.limits import LIMITS

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Making(ConnectionPool):
    """Makes a connection when the test says so."""

    wanted: list[ConnectAttempt]
    at_once: UpstreamConnection | Exception | None = None

    def _make_at_once(self) -> UpstreamConnection | None:
        if isinstance(self.at_once, Exception):
            raise self.at_once
        return self.at_once

    def _make(self, attempt: ConnectAttempt) -> None:
        self.wanted.append(attempt)


class Share(ConnectionShare):
    """Asks the test for places."""

    def __init__(self, part: int, most: int) -> None:
        super().__init__(part, most)
        self.asked: list[Callable[[bool], object]] = []
        self.held = 0

    def borrow(self, then: Callable[[bool], object]) -> None:
        self.asked.append(then)

    def give_back(self) -> None:
        self.held -= 1

    def answer(self, is_granted: bool) -> None:
        self.held += is_granted
        self.asked.pop(0)(is_granted)


class Bench:
    def __init__(
        self,
        loop: Any,
        timers: TimerWheel,
        make_recorder: Any,
        make_transport: Any,
        most: int,
        ready: int = 0,
        share: Share | None = None,
        wait: float = 1.0,
    ) -> None:
        self.loop = loop
        timeouts = Timeouts(5, 60, 600)
        self.lender = Making(
            Origin.parse("http://192.0.2.1/v1"),
            timeouts,
            timers=timers,
            max_connections=most,
            pool_wait=wait,
            min_idle=ready,
            share=share,
            loop=loop,
        )
        self.lender.wanted = []
        self.make_recorder = make_recorder
        self.make_transport = make_transport

    def open(self, caller: str = ANONYMOUS) -> Exchange:
        exchange = self.lender.open("POST", "/chat", [], b"{}", self.make_recorder(), caller)
        assert isinstance(exchange, Exchange)
        return exchange

    def make(self, number: int = 0) -> Any:
        """Makes the connection of an attempt; its transport."""
        attempt = self.lender.wanted[number]
        connection = UpstreamConnection(PoolCallbacks(self.lender), known=self.lender._known)
        transport = self.make_transport(connection)
        self.lender._made(attempt, connection)
        self.lender._ended(attempt)
        return transport

    def fail(self, number: int = 0) -> None:
        attempt = self.lender.wanted[number]
        self.lender._failed(attempt, Error("network", "refused", reason="connect"))
        self.lender._ended(attempt)

    def idle(self) -> Any:
        """Returns the transport of an unused connection."""
        callbacks = PoolCallbacks(self.lender)
        connection = UpstreamConnection(callbacks)
        transport = self.make_transport(connection)
        callbacks.connection_free(connection)
        return transport


@pytest.fixture
def make_bench(loop: Any, timers: TimerWheel, make_recorder: Any, make_transport: Any) -> Callable[..., Bench]:
    return lambda *args: Bench(loop, timers, make_recorder, make_transport, *args)


async def test_a_connection_is_made_only_where_none_is_idle(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(2)
    older, newer = bench.idle(), bench.idle()
    first, second = bench.open(), bench.open()
    assert (first.reused, second.reused, bench.lender.wanted) == (True, True, [])
    assert (len(newer.written), len(older.written)) == (1, 1)
    newer.feed(OK)
    assert bench.lender.stats.idle == 1


async def test_a_connection_that_takes_no_time_is_used_at_once(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(2)
    bench.lender.at_once = UpstreamConnection(PoolCallbacks(bench.lender))
    transport = bench.make_transport(bench.lender.at_once)
    exchange = bench.open()
    assert (exchange.sent, exchange.reused, len(transport.written)) == (True, False, 1)
    assert bench.lender.wanted == []
    assert (bench.lender.stats.opened, bench.lender.stats.reused, bench.lender.stats.connecting) == (1, 0, 0)


async def test_a_bug_while_a_connection_is_made_at_once_ends_the_request_also_of_one_that_waited(
    make_bench: Callable[..., Bench], settle: Any
) -> None:
    bench = make_bench(1)
    first = bench.open()
    transport = bench.make()
    waits = bench.open()
    bench.lender.at_once = ZeroDivisionError()
    transport.lose(None)
    await settle()
    assert first.has_ended
    assert waits.has_ended
    bench.open()
    await settle()
    assert (bench.lender.stats.pending, bench.lender.stats.connecting, bench.lender.stats.open) == (0, 0, 0)


async def test_who_finds_no_room_waits_and_is_served_by_the_next_that_comes_free(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(1)
    transport = bench.idle()
    bench.open()
    waiting = bench.open()
    assert waiting.is_waiting
    assert bench.lender.stats.pending == 1
    transport.feed(OK)
    assert not waiting.is_waiting
    assert len(transport.written) == 2


async def test_callers_whose_requests_wait_for_a_connection_take_turns(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(1)
    transport = bench.idle()
    bench.open("alice")
    flood = [bench.open("alice") for _ in range(9)]
    left, bob = bench.open("bob"), bench.open("bob")
    left.close()
    transport.feed(OK)
    assert [each.is_waiting for each in flood[:2]] == [False, True], "she has waited longest"
    transport.feed(OK)
    assert not bob.is_waiting
    assert bench.lender.stats.pending == 8
    for served in range(2, 10):
        transport.feed(OK)
        assert [each.is_waiting for each in flood] == [False] * served + [True] * (9 - served), "no place is kept empty"
    transport.feed(OK)
    assert (bench.lender.stats.pending, bench.lender.stats.idle) == (0, 1)


async def test_a_connection_that_is_made_goes_to_the_caller_whose_turn_it_is(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(1)
    first = bench.open("alice")
    flood, bob = [bench.open("alice") for _ in range(3)], bench.open("bob")
    for waits in (flood[0], bob, flood[1]):
        assert waits.is_waiting
        first.close()
        bench.fail(-1)  # of an exchange that has ended
        assert not waits.is_waiting, "one is made for it"
        first = waits


async def test_a_caller_has_half_of_the_room_to_wait_in(
    make_bench: Callable[..., Bench], change_limits: ChangeLimits, settle: Any
) -> None:
    change_limits(pool_waiting=4)
    bench = make_bench(1)
    transport = bench.idle()
    bench.open("alice")
    alice = [bench.open("alice") for _ in range(3)]
    bob = [bench.open("bob") for _ in range(3)]
    await settle()
    assert [each.has_ended for each in alice + bob] == [False, False, True, False, False, True]
    alice[0].close()
    carol = bench.open("carol")
    transport.feed(OK)
    transport.feed(OK)
    assert [each.is_waiting for each in (alice[1], bob[0], carol)] == [False, False, True]


@pytest.mark.parametrize("waits", [False, True])
async def test_a_bug_while_a_request_is_given_to_a_connection_ends_the_request_and_the_connection(
    make_bench: Callable[..., Bench], loop: Any, waits: bool
) -> None:
    """The request had no end, a waiting request kept its timer, and the connection was lost to the pool."""
    bench, bug = make_bench(1), LookupError("a bug")
    transport = bench.idle()

    def fail(data: bytes) -> None:
        raise bug

    if waits:
        bench.open()
        receiver = bench.make_recorder()
        bench.lender.open("POST", "/chat", [], b"{}", receiver, ANONYMOUS)
        transport.write = fail
        transport.feed(OK)
    else:
        transport.write = fail
        receiver = bench.make_recorder()
        bench.lender.open("POST", "/chat", [], b"{}", receiver, ANONYMOUS)
    assert receiver.ends == [], "it is called in a later turn"
    await asyncio.sleep(0)
    assert (receiver.error.code, receiver.error.__cause__) == ("internal", bug)
    assert transport.aborted
    assert bench.lender.stats.pending == 0
    loop.advance(LIMITS.pool_idle)  # the pool's own timer
    assert not loop.handles


async def test_a_connection_that_is_closing_is_not_lent(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(2)
    bench.idle().closing = True
    exchange = bench.open()
    assert [attempt.exchange for attempt in bench.lender.wanted] == [exchange]


async def test_what_is_idle_for_too_long_is_closed(make_bench: Callable[..., Bench], loop: Any) -> None:
    bench = make_bench(1)
    transport = bench.idle()
    loop.advance(LIMITS.pool_idle - 1)
    assert not transport.aborted
    loop.advance(2)
    assert transport.aborted


async def test_how_one_answer_began_is_known_on_all_connections_at_once(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(2)
    bench.open(), bench.open()
    first, second = bench.make(), bench.make()
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    first.feed(head)
    known = bench.lender._known.last
    assert known is not None
    assert known.data == head
    second.feed(head)
    assert bench.lender._known.last is known, "it was not parsed again"


# ---- whichever is free first -----------------------------------------------------------------------------------------


async def test_a_request_takes_a_connection_that_comes_free_before_its_own_is_made(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(2)
    transport = bench.idle()
    first, second = bench.open(), bench.open()
    assert (first.sent, second.sent, len(bench.lender.wanted)) == (True, False, 1)
    transport.feed(OK)
    assert (second.sent, second.reused) == (True, True)
    bench.make()
    assert (bench.lender.stats.open, bench.lender.stats.idle) == (2, 1), "its own stays for the next"
    third = bench.open()
    assert (third.sent, len(bench.lender.wanted)) == (True, 1)


async def test_a_connection_that_is_no_longer_needed_serves_who_waits(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(2)
    transport = bench.idle()
    bench.open()
    bench.open()
    waiting = bench.open()
    transport.feed(OK)
    assert not waiting.sent
    bench.make()
    assert (waiting.sent, waiting.reused) == (True, False)


async def test_a_request_that_has_met_a_dead_connection_is_sent_again_on_a_fresh_one_only(
    make_bench: Callable[..., Bench],
) -> None:
    """It took a used connection, as dead as the first, so that one request was sent again and again."""
    bench = make_bench(3)
    other, dead = bench.idle(), bench.idle()
    exchange, _ = bench.open(), bench.open()
    dead.eof()
    await asyncio.sleep(0)
    later = bench.open()
    assert (exchange.sent, exchange.resent) == (False, True)
    other.feed(OK)
    assert (exchange.sent, later.sent, len(other.written)) == (False, True, 2), "a request that has met none takes it"
    other.feed(OK)
    assert (exchange.sent, bench.lender.stats.idle) == (False, 1)
    bench.make(1)
    assert (exchange.sent, exchange.reused, exchange.resent) == (True, False, True), "another's that is fresh will do"


async def test_the_failure_of_an_attempt_that_is_no_longer_needed_harms_nobody(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(2)
    transport = bench.idle()
    bench.open()
    receiver = bench.make_recorder()
    bench.lender.open("POST", "/chat", [], b"{}", receiver, ANONYMOUS)
    transport.feed(OK)
    bench.fail()
    assert receiver.ends == []
    assert bench.lender.stats.connecting == 0


async def test_an_attempt_that_is_no_longer_needed_does_not_last_for_ever(
    make_bench: Callable[..., Bench], loop: Any
) -> None:
    bench = make_bench(2)
    transport = bench.idle()
    bench.open()
    bench.open()
    transport.feed(OK)
    stopped: list[bool] = []
    bench.lender.wanted[0].stop = lambda: stopped.append(True)
    loop.advance(5)
    assert stopped == [True]


async def test_an_attempt_ends_with_its_exchange(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(1)
    exchange = bench.open()
    stopped: list[bool] = []
    bench.lender.wanted[0].stop = lambda: stopped.append(True)
    exchange.close()
    assert stopped == [True]
    assert bench.make().aborted, "it was made in the same moment"


# ---- connections that are kept ready ---------------------------------------------------------------------------------


async def test_connections_are_made_before_anybody_asks(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(5, 2)
    bench.open()
    assert len(bench.lender.wanted) == 1, "nobody said so yet"
    bench.lender.keep_ready()
    assert [attempt.exchange is None for attempt in bench.lender.wanted] == [False, True, True]
    bench.make(1)
    assert bench.lender.stats.idle == 0, "who waits takes it"
    bench.make(2)
    bench.make(0)
    assert (bench.lender.stats.idle, len(bench.lender.wanted)) == (2, 3)


async def test_one_connection_is_made_ahead_where_that_is_asked_for(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(1)
    assert bench.lender.connect_ahead()
    assert bench.lender.connect_ahead(), "there is no room for another"
    assert [attempt.exchange for attempt in bench.lender.wanted] == [None]
    bench.fail()
    assert len(bench.lender.wanted) == 1, "a failure says nothing to anybody"
    assert bench.lender.connect_ahead()
    bench.make(1)
    assert (bench.lender.stats.idle, bench.lender.stats.opened) == (1, 1)
    assert bench.open().reused
    bench.lender._closed = True
    assert not bench.lender.connect_ahead()
    assert len(bench.lender.wanted) == 2


async def test_one_that_is_taken_is_replaced_as_long_as_there_is_room(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(2, 1)
    bench.lender.keep_ready()
    bench.make(0)
    assert bench.open().sent
    assert len(bench.lender.wanted) == 2
    bench.make(1)
    assert bench.open().sent
    assert len(bench.lender.wanted) == 2, "max_connections"


async def test_no_more_are_made_at_a_time_than_a_limit(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(1000, 500)
    bench.lender.keep_ready()
    assert len(bench.lender.wanted) == LIMITS.ready_connecting
    bench.make(0)
    assert len(bench.lender.wanted) == LIMITS.ready_connecting + 1


async def test_after_a_failure_the_next_is_made_later_and_later(make_bench: Callable[..., Bench], loop: Any) -> None:
    bench = make_bench(5, 1)
    bench.lender.keep_ready()
    wait = LIMITS.ready_retry_first
    for number in range(4):
        bench.fail(number)
        loop.advance(wait - 0.2)
        assert len(bench.lender.wanted) == number + 1
        loop.advance(0.4)
        assert len(bench.lender.wanted) == number + 2
        wait *= 2
    assert bench.open().is_waiting is False, "a request has one made at once"


async def test_ready_connections_that_are_closed_at_once_are_made_later_and_later(
    make_bench: Callable[..., Bench], loop: Any
) -> None:
    """A proxy that accepts for a dead upstream, and closes: the pool connected as fast as the loop could."""
    bench = make_bench(5, 1)
    bench.lender.keep_ready()
    wait = LIMITS.ready_retry_first
    for number in range(4):
        bench.make(number).eof()
        await asyncio.sleep(0)
        assert len(bench.lender.wanted) == number + 1
        loop.advance(wait - 0.2)
        assert len(bench.lender.wanted) == number + 1
        loop.advance(0.4)
        assert len(bench.lender.wanted) == number + 2
        wait *= 2
    ready = bench.make(4)
    loop.advance(LIMITS.pool_idle_least)
    ready.eof()
    await asyncio.sleep(0)
    assert len(bench.lender.wanted) == 6, "an upstream that keeps connections has one made at once"


async def test_an_upstream_that_keeps_no_idle_connection_is_not_asked_for_one_all_the_time(
    make_bench: Callable[..., Bench], loop: Any
) -> None:
    bench = make_bench(5, 1)
    transport = bench.idle()
    bench.open()
    transport.feed(b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=0\r\nContent-Length: 2\r\n\r\nok")
    bench.lender.keep_ready()
    made = 0
    for _ in range(50):
        while made < len(bench.lender.wanted):
            bench.make(made)
            made += 1
        loop.advance(0.1)
        await asyncio.sleep(0)
    assert made <= 4


async def test_an_attempt_that_takes_too_long_counts_as_failed(make_bench: Callable[..., Bench], loop: Any) -> None:
    bench = make_bench(5, 1)
    bench.lender.keep_ready()
    loop.advance(5)  # connect_timeout
    bench.fail(0)
    assert len(bench.lender.wanted) == 1
    loop.advance(LIMITS.ready_retry_first + 0.2)
    assert len(bench.lender.wanted) == 2


async def test_a_bug_while_a_ready_connection_is_made_is_not_repeated_at_once(
    make_bench: Callable[..., Bench], loop: Any
) -> None:
    bench, bug = make_bench(5, 1), LookupError("a bug")
    bench.lender.keep_ready()
    with pytest.raises(LookupError):
        bench.lender._broke(bench.lender.wanted[0], bug)
    bench.lender._ended(bench.lender.wanted[0])
    assert len(bench.lender.wanted) == 1
    loop.advance(LIMITS.ready_retry_first + 0.2)
    assert len(bench.lender.wanted) == 2


async def test_a_server_that_drains_makes_none(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(5, 1)
    bench.lender.keep_idle(False)
    bench.lender.keep_ready()
    assert bench.lender.wanted == []


async def test_an_idle_connection_on_which_something_came_is_not_used(
    make_bench: Callable[..., Bench], loop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A POST on a connection that its peer is closing may be lost, and must not be sent twice."""
    bench = make_bench(2)
    transport = bench.idle()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        monkeypatch.setattr(transport, "get_extra_info", lambda name: ours if name == "socket" else None)
        theirs.close()
        loop.advance(LIMITS.pool_check)
        exchange = bench.open()
    assert (transport.aborted, transport.written, exchange.sent) == (True, [], False)
    assert len(bench.lender.wanted) == 1


async def test_connections_are_retired_before_the_time_that_the_upstream_names(
    make_bench: Callable[..., Bench], loop: Any
) -> None:
    bench = make_bench(2)
    transport = bench.idle()
    bench.open()
    transport.feed(b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5\r\nContent-Length: 2\r\n\r\nok")
    loop.advance(3.5)
    assert not transport.aborted
    loop.advance(1)
    assert transport.aborted


async def test_what_an_upstream_closed_shortens_the_time_of_others(make_bench: Callable[..., Bench], loop: Any) -> None:
    bench = make_bench(2)
    first = bench.idle()
    loop.advance(10)
    first.eof()
    await asyncio.sleep(0)
    second = bench.idle()
    loop.advance(9.5)
    assert second.aborted


# -- a maximum number that processes share --


async def test_a_request_beyond_the_part_of_its_process_gets_a_place_that_others_leave(
    make_bench: Callable[..., Bench], settle: Any
) -> None:
    share = Share(1, 3)
    bench = make_bench(4, 0, share)
    first = bench.open()
    assert not share.asked
    exchanges = [bench.open() for _ in range(3)]
    assert [each.is_waiting for each in exchanges] == [True] * 3
    assert len(share.asked) == 2, "it can have no more"
    share.answer(True)
    share.answer(True)
    assert [each.is_waiting for each in exchanges] == [False, False, True]
    assert (len(share.asked), bench.lender.stats.connecting) == (0, 3)
    transports = [bench.make(number) for number in range(3)]
    assert first.sent
    transports[0].feed(OK)
    assert (exchanges[2].reused, share.held) == (True, 2)
    transports[0].feed(OK)
    transports[0].lose(None)
    await settle()
    assert share.held == 1, "two connections are left, one of them within the part"
    for transport in transports[1:]:
        transport.lose(None)
    await settle()
    assert (share.held, bench.lender.stats.open) == (0, 0)


async def test_a_place_that_was_refused_is_asked_for_again_while_a_request_waits(
    make_bench: Callable[..., Bench], settle: Any
) -> None:
    share = Share(0, 2)
    bench = make_bench(4, 0, share)
    exchanges = [bench.open() for _ in range(2)]
    share.answer(False)
    share.answer(False)
    bench.open()
    assert not share.asked, "a moment ago there was no place"
    bench.loop.advance(LIMITS.pool_ask + 0.02)
    assert len(share.asked) == 1
    share.answer(True)
    assert [each.is_waiting for each in exchanges] == [False, True]
    assert len(share.asked) == 1, "there may be more"
    share.answer(False)
    bench.loop.advance(1.0)
    await settle()
    assert exchanges[1].has_ended
    assert bench.lender.stats.pending == 0
    bench.loop.advance(10.0)
    share.answer(True)
    assert (share.held, share.asked) == (1, []), "nobody waits: what was granted too late is returned"


async def test_without_a_wait_a_request_still_gets_the_place_that_it_asks_for(
    make_bench: Callable[..., Bench], settle: Any
) -> None:
    share = Share(0, 1)
    bench = make_bench(1, 0, share, 0.0)
    exchange = bench.open()
    bench.loop.advance(LIMITS.pool_ask / 2)
    share.answer(True)
    assert not exchange.is_waiting
    refused = bench.open()
    bench.loop.advance(LIMITS.pool_ask + 0.02)
    await settle()
    assert refused.has_ended


async def test_a_connection_beyond_the_part_is_idle_for_a_moment_only(
    make_bench: Callable[..., Bench], settle: Any
) -> None:
    share = Share(1, 4)
    bench = make_bench(8, 0, share)
    for _ in range(3):
        bench.open()
    share.answer(True)
    share.answer(True)
    transports = [bench.make(number) for number in range(3)]
    transports[0].feed(OK)
    bench.loop.advance(LIMITS.pool_borrowed_idle / 2)
    transports[1].feed(OK)
    transports[2].feed(OK)
    bench.loop.advance(LIMITS.pool_borrowed_idle / 2 + 0.02)
    await settle()
    assert (bench.lender.stats.idle, share.held) == (2, 1)
    bench.loop.advance(LIMITS.pool_borrowed_idle)
    await settle()
    assert (bench.lender.stats.idle, share.held) == (1, 0)
    bench.loop.advance(LIMITS.pool_borrowed_idle * 3)
    await settle()
    assert bench.lender.stats.idle == 1, "it is this process's own"


async def test_connections_that_are_kept_ready_take_no_place_of_others(
    make_bench: Callable[..., Bench], settle: Any
) -> None:
    share = Share(2, 8)
    bench = make_bench(8, 4, share)
    bench.lender.keep_ready()
    assert len(bench.lender.wanted) == 2
    assert not share.asked
    bench.make(0)
    bench.make(1)
    exchanges = [bench.open() for _ in range(3)]
    share.answer(True)
    transport = bench.make(2)
    assert not any(each.is_waiting for each in exchanges)
    transport.lose(None)
    await settle()
    assert (share.held, len(bench.lender.wanted)) == (0, 3)


async def test_a_place_that_is_granted_to_a_closed_pool_is_returned(make_bench: Callable[..., Bench]) -> None:
    share = Share(0, 2)
    bench = make_bench(2, 0, share)
    exchange = bench.open()
    exchange.close()
    share.answer(True)
    assert share.held == 0
    bench.open()
    bench.lender._closed = True
    share.answer(True)
    assert share.held == 0
    assert not share.asked
