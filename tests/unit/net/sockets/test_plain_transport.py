"""`PlainTransport`: what it adds to its base, on a pair of sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest

from gai_fast.kernels import SocketSet
from gai_fast.net.sockets.plain_transport import PlainTransport
from tests.limits import LIMITS
from tests.unit.net.socket_pair import Pair, Receiver
from tests.waiting import until


def test_it_hands_on_what_comes_and_the_end(run_pair: Callable[[Any], None]) -> None:
    async def scenario(pair: Pair) -> None:
        assert pair.receiver.calls == ["made"]
        pair.peer.send(b"one")
        await until(lambda: pair.receiver.reads == [b"one"])
        assert not pair.transport.is_closing()
        pair.peer.close()
        await until(lambda: pair.receiver.calls == ["made", "eof", "lost"])
        assert pair.receiver.lost == [None]
        assert pair.transport.is_closing()

    run_pair(scenario)


def test_what_the_socket_does_not_take_follows_in_order(run_pair: Callable[[Any], None]) -> None:
    async def scenario(pair: Pair) -> None:
        pieces = [bytes([n]) * (8 * LIMITS.plain_read) for n in range(16)]
        for piece in pieces:
            pair.transport.write(piece)
        unsent = pair.transport.get_write_buffer_size()
        assert 0 < unsent < len(b"".join(pieces))
        assert await pair.come(len(b"".join(pieces))) == b"".join(pieces)
        assert pair.transport.get_write_buffer_size() == 0
        pair.transport.write(b"more")
        assert await pair.come(4) == b"more"

    run_pair(scenario)


async def test_a_socket_that_cannot_be_watched_is_closed() -> None:
    class Full:
        """A loop that can watch no more."""

        call_soon = asyncio.get_running_loop().call_soon

        def add_reader(self, *_: Any) -> None:
            raise OSError("full")

    ours, peer = socket.socketpair()
    receiver = Receiver()
    with peer, pytest.raises(OSError, match="full"):
        PlainTransport(Full(), ours, receiver, SocketSet(Full()))
    assert ours.fileno() == -1
    await until(lambda: receiver.calls == ["made", "lost"])


async def test_a_read_takes_as_much_as_it_may_at_once() -> None:
    ours, peer = socket.socketpair()
    ours.setblocking(False)
    receiver, loop = Receiver(), asyncio.get_running_loop()
    transport = PlainTransport(loop, ours, receiver, SocketSet(loop), 9)
    transport.pause_reading()
    with peer:
        peer.send(b"0123456789")
        for _ in range(3):
            transport._readable()
    assert receiver.reads == [b"012345678", b"9"]
    transport.abort()
    await until(lambda: receiver.lost)
