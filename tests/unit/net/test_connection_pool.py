"""Connections are lent by rules that hold however one is made; what a pool makes of them, `test_pool.py` tells."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from gai_fast.limits import LIMITS
from gai_fast.net.connection_pool import ConnectionPool
from gai_fast.net.http_request import Origin
from gai_fast.net.upstream import Exchange, Timeouts, UpstreamConnection
from gai_fast.timers import TimerWheel

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Making(ConnectionPool):
    """Makes a connection where the test says so."""

    wanted: list[Exchange]

    def _connect(self, exchange: Exchange) -> None:
        self.wanted.append(exchange)


class Bench:
    def __init__(self, loop: Any, timers: TimerWheel, make_recorder: Any, make_transport: Any, most: int) -> None:
        timeouts = Timeouts(5, 60, 600)
        self.lender = Making(
            Origin.parse("http://192.0.2.1/v1"), timeouts, timers=timers, max_connections=most, loop=loop
        )
        self.lender.wanted = []
        self.make_recorder = make_recorder
        self.make_transport = make_transport

    def open(self) -> Exchange:
        exchange = self.lender.open("POST", "/chat", [], b"{}", self.make_recorder())
        assert isinstance(exchange, Exchange)
        return exchange

    def idle(self) -> Any:
        """The transport of a connection that nobody uses."""
        connection = UpstreamConnection(self.lender)
        transport = self.make_transport(connection)
        self.lender.connection_free(connection)
        return transport


@pytest.fixture
def make_bench(loop: Any, timers: TimerWheel, make_recorder: Any, make_transport: Any) -> Callable[[int], Bench]:
    return lambda most: Bench(loop, timers, make_recorder, make_transport, most)


async def test_a_connection_is_made_only_where_none_is_idle(make_bench: Callable[[int], Bench]) -> None:
    bench = make_bench(2)
    older, newer = bench.idle(), bench.idle()
    first, second = bench.open(), bench.open()
    assert (first.reused, second.reused, bench.lender.wanted) == (True, True, [])
    assert (len(newer.written), len(older.written)) == (1, 1)
    newer.feed(OK)
    assert bench.lender.stats.idle == 1


async def test_who_finds_no_room_waits_and_is_served_by_the_next_that_comes_free(
    make_bench: Callable[[int], Bench],
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


@pytest.mark.parametrize("waits", [False, True])
async def test_a_bug_while_a_request_is_given_to_a_connection_ends_the_request_and_the_connection(
    make_bench: Callable[[int], Bench], loop: Any, waits: bool
) -> None:
    """The request had no end, one that had waited kept its timer, and the connection was lost to the pool."""
    bench, bug = make_bench(1), LookupError("a bug")
    transport = bench.idle()

    def fail(data: bytes) -> None:
        raise bug

    if waits:
        bench.open()
        receiver = bench.make_recorder()
        bench.lender.open("POST", "/chat", [], b"{}", receiver)
        transport.write = fail
        transport.feed(OK)
    else:
        transport.write = fail
        receiver = bench.make_recorder()
        bench.lender.open("POST", "/chat", [], b"{}", receiver)
    assert receiver.ends == [], "it is called in a later turn"
    await asyncio.sleep(0)
    assert (receiver.error.code, receiver.error.__cause__) == ("internal", bug)
    assert transport.aborted
    assert bench.lender.stats.pending == 0
    loop.advance(LIMITS.pool_idle)  # the pool's own timer
    assert not loop.handles


async def test_a_connection_that_is_closing_is_not_lent(make_bench: Callable[[int], Bench]) -> None:
    bench = make_bench(2)
    bench.idle().closing = True
    exchange = bench.open()
    assert bench.lender.wanted == [exchange]


async def test_what_is_idle_for_too_long_is_closed(make_bench: Callable[[int], Bench], loop: Any) -> None:
    bench = make_bench(1)
    transport = bench.idle()
    loop.advance(LIMITS.pool_idle - 1)
    assert not transport.aborted
    loop.advance(2)
    assert transport.aborted


async def test_how_one_answer_began_is_known_on_connections_that_are_made_later(
    make_bench: Callable[[int], Bench],
) -> None:
    bench = make_bench(2)
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    transport = bench.idle()
    bench.open()
    transport.feed(head)
    earlier, later = UpstreamConnection(bench.lender), UpstreamConnection(bench.lender)
    bench.make_transport(earlier)
    assert earlier.known is None, "its answer is not over"
    transport.feed(b"0\r\n\r\n")
    bench.make_transport(later)
    assert later.known is not None
    assert later.known.data == head
