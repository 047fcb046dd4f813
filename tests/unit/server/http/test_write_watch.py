"""Clients that take nothing are given up in time, and no others."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from typing import Any, cast

import pytest

from gai_fast.net.sockets.sockets import unacknowledged_bytes
from gai_fast.runtime.timers import Timer, Timers
from gai_fast.server.http.write_watch import WriteWatch
from tests.waiting import SECONDS


class FakeTransport:
    def __init__(self) -> None:
        self.unsent = 0
        self.aborted = False
        self.socket: socket.socket | None = None

    def get_extra_info(self, name: str) -> socket.socket | None:
        return self.socket if name == "socket" else None

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def abort(self) -> None:
        self.aborted = True


class FakeTimers(Timers):
    def __init__(self) -> None:
        self.now = 100.0
        self.due: dict[object, tuple[float, Callable[[], object]]] = {}
        self.clock = lambda: self.now

    def schedule(self, deadline: float, callback: Callable[[], object]) -> Any:
        timers = self

        class Handle(Timer):
            def cancel(self) -> None:
                timers.due.pop(self, None)

        handle = Handle()
        self.due[handle] = deadline, callback
        return handle

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.due and min(at for at, _ in self.due.values()) <= end:
            handle = min(self.due, key=lambda each: self.due[each][0])
            self.now, callback = self.due.pop(handle)
            callback()
        self.now = end


class Fixture:
    def __init__(self, **options: bool) -> None:
        self.transport = FakeTransport()
        self.timers = FakeTimers()
        self.watch = WriteWatch(cast(Any, self.transport), self.timers, 8.0, **options)


def test_a_client_that_takes_nothing_is_given_up_in_its_time() -> None:
    fixture = Fixture()
    fixture.watch.start()
    fixture.transport.unsent = fixture.watch.written = 10
    fixture.timers.run(6.0)
    assert not fixture.transport.aborted
    fixture.timers.run(4.0)
    assert fixture.transport.aborted
    assert not fixture.timers.due


def test_what_is_written_meanwhile_does_not_count_as_taken() -> None:
    fixture = Fixture()
    fixture.watch.start()
    for _ in range(4):
        fixture.transport.unsent += 6  # a ping every other second
        fixture.watch.written += 6
        fixture.timers.run(2.0)
    fixture.timers.run(4.0)
    assert fixture.transport.aborted


@pytest.mark.parametrize("takes", [1, 10])
def test_a_client_that_takes_a_byte_now_and_then_is_kept(takes: int) -> None:
    fixture = Fixture()
    fixture.transport.unsent = fixture.watch.written = 1000
    fixture.watch.start()
    for _ in range(10):
        fixture.timers.run(7.0)
        fixture.transport.unsent -= takes
    assert not fixture.transport.aborted


def test_a_client_that_owes_nothing_is_kept_for_ever() -> None:
    fixture = Fixture()
    fixture.watch.start()
    fixture.timers.run(1000.0)
    assert not fixture.transport.aborted
    assert fixture.watch.is_running
    fixture.watch.stop()
    fixture.watch.stop()
    assert not fixture.watch.is_running
    assert not fixture.timers.due


def test_it_may_end_once_all_is_sent() -> None:
    fixture = Fixture(until_empty=True)
    fixture.transport.unsent = 1
    fixture.watch.start()
    fixture.timers.run(2.0)
    assert fixture.watch.is_running
    fixture.transport.unsent = 0
    fixture.timers.run(2.0)
    assert not fixture.watch.is_running
    assert not fixture.timers.due


@pytest.mark.skipif(sys.platform != "linux", reason="missing on this machine: TIOCOUTQ of sockets")
def test_a_client_that_takes_from_the_systems_buffer_alone_is_kept() -> None:
    """The transport can write again only once a third of that buffer is free."""
    fixture = Fixture()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.create_connection(listener.getsockname(), SECONDS)
        sending, _ = listener.accept()
    with peer, sending:
        sending.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                fixture.watch.written += sending.send(bytes(65536))
        fixture.transport.socket = sending
        fixture.transport.unsent = 10
        fixture.watch.start()
        for _ in range(4):
            fixture.timers.run(7.0)
            assert not fixture.transport.aborted
            before = unacknowledged_bytes(cast(Any, fixture.transport))
            while unacknowledged_bytes(cast(Any, fixture.transport)) == before:
                peer.recv(65536)
        fixture.timers.run(12.0)
        assert fixture.transport.aborted
