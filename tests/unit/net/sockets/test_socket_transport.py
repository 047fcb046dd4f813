"""`SocketTransport`: the socket, the loop and the end, in the simplest transport over it, on a pair of sockets."""

from __future__ import annotations

import asyncio
import gc
import socket
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from gai_fast.kernels import SocketSet
from gai_fast.net.sockets.plain_transport import PlainTransport
from tests.limits import LIMITS
from tests.unit.net.socket_pair import Pair, Receiver
from tests.waiting import until


def test_nothing_is_read_while_it_is_paused(run_pair: Callable[[Any], None]) -> None:
    async def scenario(pair: Pair) -> None:
        for _ in range(2):
            pair.transport.pause_reading()
        assert not pair.transport.is_reading()
        pair.peer.send(b"late")
        await asyncio.sleep(0.01)
        assert pair.receiver.reads == []
        for _ in range(2):
            pair.transport.resume_reading()
        assert pair.transport.is_reading()
        await until(lambda: pair.receiver.reads == [b"late"])

    run_pair(scenario)


def test_an_abort_drops_what_is_unsent_and_nothing_follows(run_pair: Callable[[Any], None]) -> None:
    async def scenario(pair: Pair) -> None:
        pair.transport.write(bytes(64 * LIMITS.plain_read))
        assert pair.transport.get_write_buffer_size()
        for _ in range(2):
            pair.transport.abort()
        assert pair.receiver.calls == ["made"]  # the end comes in a later turn
        assert pair.transport.get_write_buffer_size() == 0
        pair.transport.write(b"x")
        pair.transport.resume_reading()
        assert not pair.transport.is_reading()
        await until(lambda: pair.receiver.lost == [None])

    run_pair(scenario)


@pytest.mark.parametrize("is_paused", [False, True])
def test_a_reset_is_reported(run_pair: Callable[[Any], None], is_paused: bool) -> None:
    async def scenario(pair: Pair) -> None:
        if is_paused:
            pair.transport.pause_reading()
        pair.reset()
        if is_paused:
            pair.transport.write(b"x")
        await until(lambda: bool(pair.receiver.lost))
        assert isinstance(pair.receiver.lost[0], ConnectionError)

    run_pair(scenario)


def test_a_reset_while_bytes_are_unsent_is_reported(run_pair: Callable[[Any], None]) -> None:
    async def scenario(pair: Pair) -> None:
        pair.transport.pause_reading()
        pair.transport.write(bytes(64 * LIMITS.plain_read))
        pair.reset()
        await until(lambda: bool(pair.receiver.lost))
        assert isinstance(pair.receiver.lost[0], ConnectionError)
        assert pair.transport.get_write_buffer_size() == 0

    run_pair(scenario)


def test_a_bug_of_the_receiver_ends_the_connection(run_pair: Callable[[Any], None]) -> None:
    async def scenario(pair: Pair) -> None:
        pair.receiver.on_data = lambda: 1 // 0
        pair.peer.send(b"x")
        await until(lambda: bool(pair.receiver.lost))
        assert isinstance(pair.receiver.lost[0], ConnectionAbortedError)
        assert [type(bug) for bug in pair.bugs] == [ZeroDivisionError]

    run_pair(scenario)


@pytest.mark.interpreted
async def test_a_bug_while_the_socket_is_written_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    bugs: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: bugs.append(context["exception"]))
    ours, peer = socket.socketpair()
    receiver = Receiver()
    transport = PlainTransport(loop, ours, receiver, SocketSet(loop))
    sent = iter([0])  # the socket takes nothing at first; the next write of it is a bug
    monkeypatch.setattr("gai_fast.net.sockets.socket_transport._send", lambda *_: next(sent))
    transport.write(b"x")
    await until(lambda: bool(receiver.lost))
    peer.close()
    assert isinstance(receiver.lost[0], ConnectionAbortedError)
    assert [type(bug) for bug in bugs] == [StopIteration]


async def test_nothing_waits_for_the_garbage_collector_after_the_end() -> None:
    receiver = Receiver()
    ours, peer = socket.socketpair()
    lost = receiver.lost
    loop = asyncio.get_running_loop()
    receiver.on_data = PlainTransport(loop, ours, receiver, SocketSet(loop)).abort  # refers to its transport
    gone = weakref.ref(receiver)
    peer.close()
    await until(lambda: bool(lost))
    gc.disable()
    try:
        del receiver
        assert gone() is None
    finally:
        gc.enable()
