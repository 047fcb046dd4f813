"""The order in which a server ends: who is waited for, and for how long."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest

from gai_fast.server.drain import drain
from tests.conftest import ChangeLimits
from tests.waiting import SECONDS, until


class FakeServer:
    """A server with some connections."""

    def __init__(self, unanswered: int = 0) -> None:
        self.unanswered = unanswered
        self.is_draining = False

    def begin_drain(self) -> None:
        self.is_draining = True


class FakeListener:
    """A listening socket; `waiting` are clients that have not been accepted."""

    def __init__(self, server: FakeServer, waiting: int = 0) -> None:
        self.server = server
        self.waiting = waiting
        self.looks = 0
        self.is_taking = True
        self.is_closed = False

    async def start(self, protocols: Callable[[], asyncio.Protocol]) -> None:
        raise AssertionError("it was started before")

    def begin_drain(self) -> None:
        assert self.server.is_draining, "the first answer must be a last one"

    async def accept_waiting(self) -> None:
        assert self.is_taking
        self.looks += 1
        self.server.unanswered += self.waiting
        self.waiting = 0

    def stop_taking(self) -> None:
        self.is_taking = False

    async def close_if_empty(self) -> bool:
        assert not self.server.unanswered
        self.is_closed = not self.waiting
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True


async def test_a_server_that_nobody_asks_ends_at_once() -> None:
    server = FakeServer()
    listener = FakeListener(server)
    assert await asyncio.wait_for(drain(server, listener, grace=SECONDS, hurry=asyncio.Event()), SECONDS)
    assert listener.is_closed


async def test_the_log_tells_how_long_it_may_take_and_how_to_end_it(caplog: pytest.LogCaptureFixture) -> None:
    hurry = asyncio.Event()
    hurry.set()
    caplog.set_level(logging.INFO, logger="gai_fast.server")
    server = FakeServer(1)
    assert not await drain(server, FakeListener(server), grace=30.0, hurry=hurry)
    assert caplog.messages[0].endswith("have up to 30 s; a second signal ends the server at once")


async def test_a_server_ends_when_the_last_client_that_waited_has_been_answered() -> None:
    server = FakeServer(1)
    listener = FakeListener(server, waiting=1)
    task = asyncio.create_task(drain(server, listener, grace=SECONDS, hurry=asyncio.Event()))
    await until(lambda: listener.looks >= 3)
    assert server.unanswered == 2
    assert not listener.is_closed
    server.unanswered, listener.waiting = 0, 1
    await until(lambda: server.unanswered)
    assert not task.done(), "one more has come"
    server.unanswered = 0
    assert await asyncio.wait_for(task, SECONDS)


async def test_a_server_waits_no_longer_than_grace_and_leaves_the_listener_as_it_is() -> None:
    server = FakeServer(1)
    listener = FakeListener(server)
    assert not await asyncio.wait_for(drain(server, listener, grace=0.03, hurry=asyncio.Event()), SECONDS)
    assert not listener.is_closed


async def test_no_connection_is_taken_at_the_end_of_grace_so_that_each_is_answered(change_limits: ChangeLimits) -> None:
    """A server took connections up to its end, and closed the last ones unanswered."""
    change_limits(drain_idle=SECONDS)
    server = FakeServer(1)
    listener = FakeListener(server)
    task = asyncio.create_task(drain(server, listener, grace=0.4, hurry=asyncio.Event()))
    await until(lambda: not listener.is_taking)
    assert listener.looks
    assert not task.done(), "those that were taken have the rest of the time"
    listener.waiting = 1
    assert not await asyncio.wait_for(task, SECONDS)
    assert listener.waiting == 1, "it waits for a successor"


async def test_whoever_is_in_a_hurry_is_not_kept_waiting() -> None:
    server = FakeServer(1)
    listener = FakeListener(server)
    hurry = asyncio.Event()
    task = asyncio.create_task(drain(server, listener, grace=600, hurry=hurry))
    await until(lambda: listener.looks)
    hurry.set()
    assert not await asyncio.wait_for(task, SECONDS)
