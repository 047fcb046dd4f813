"""The worker's end of its links: connections that are handed to it, and what the supervisor asks."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast

import pytest
import uvloop

from gai_fast.model.errors import Error
from gai_fast.model.settings import LimitSettings, ServerSettings, Settings
from gai_fast.server.admission.auth_throttle import AuthThrottle
from gai_fast.server.admission.memory import high_water
from gai_fast.server.reload import to_bytes
from gai_fast.server.workers import worker
from gai_fast.server.workers.link import Link, pack, send_connection, send_last
from gai_fast.server.workers.worker import HandedListener, SupervisorLink, Worker, drain_as_others
from tests.conftest import ChangeLimits
from tests.limits import LIMITS
from tests.waiting import SECONDS, until


class Room:
    """Greets connections, as far as there is room."""

    def __init__(self, room: int = 100) -> None:
        self.room = room

    def __call__(self, address: str) -> asyncio.Protocol:
        self.room -= 1
        return Greeting()


class Greeting(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        client = cast("asyncio.Transport", transport)
        client.write(b"hello")
        client.close()


class Supervisor:
    """The other ends."""

    def __init__(self) -> None:
        self.near, its = socket.socketpair()
        self.channel, self.far = socket.socketpair()
        for each in (self.near, self.channel, self.far):
            each.setblocking(False)
        self.its = its
        self.link = Link(self.near)
        self.heard: list[list[Any]] = []

    async def hears(self, *message: Any) -> None:
        """Waits for a message."""
        async with asyncio.timeout(SECONDS):
            while list(message) not in self.heard:
                self.heard += self.link.receive()
                await asyncio.sleep(0.001)

    def hand_over(self) -> socket.socket:
        """Hands a connection over; returns the client's end."""
        client, accepted = socket.socketpair()
        client.setblocking(False)
        with accepted:
            assert send_connection(self.channel, accepted)
        return client


@asynccontextmanager
async def linked() -> AsyncIterator[tuple[Supervisor, SupervisorLink]]:
    supervisor, link = Supervisor(), SupervisorLink()
    await link.open(supervisor.its)
    try:
        yield supervisor, link
    finally:
        for each in (supervisor.link, supervisor.channel, supervisor.far):
            each.close()
        async with asyncio.timeout(SECONDS):
            await link.stop.wait()


async def idle(supervisor: Supervisor, listener: HandedListener, *after: int) -> None:
    """Waits until the worker has said that it is idle after so many connections, each time once."""
    async with asyncio.timeout(SECONDS):
        while supervisor.heard != [["idle", each] for each in after]:
            assert not await listener.close_if_empty()
            supervisor.heard += supervisor.link.receive()
            await asyncio.sleep(0.001)
    for _ in range(3):
        assert not await listener.close_if_empty()


async def closed(listener: HandedListener) -> None:
    async with asyncio.timeout(SECONDS):
        while True:
            if await listener.close_if_empty():
                return
            await asyncio.sleep(0.001)


async def said(client: socket.socket) -> bytes:
    with client:
        async with asyncio.timeout(SECONDS):
            return await asyncio.get_running_loop().sock_recv(client, 100)


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_connections_are_taken_until_the_last_and_idleness_is_reported_once_for_each_time(loop: Any) -> None:
    async def scenario() -> None:
        async with linked() as (supervisor, link):
            listener = HandedListener(supervisor.far, link)
            await listener.start(Room())
            assert await said(supervisor.hand_over()) == b"hello"
            listener.begin_drain()
            await idle(supervisor, listener, 1)
            assert await said(supervisor.hand_over()) == b"hello"
            await idle(supervisor, listener, 1, 2)
            client = supervisor.hand_over()
            assert send_last(supervisor.channel)
            assert await said(client) == b"hello", "it came before the last"
            await closed(listener)
            assert supervisor.far.fileno() == -1
            listener.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(scenario())


async def test_a_worker_without_room_leaves_connections_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    async with linked() as (supervisor, link):
        room = Room(1)
        listener = HandedListener(supervisor.far, link)
        await listener.start(room)
        first, second = supervisor.hand_over(), supervisor.hand_over()
        assert await said(first) == b"hello"
        assert room.room == 0
        room.room = 1
        assert await said(second) == b"hello"
        listener.close()


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_connections_are_taken_a_few_in_a_turn(loop: Any, change_limits: ChangeLimits) -> None:
    """The streams that the worker has must not wait for all of them."""
    change_limits(accepted=3)

    async def scenario() -> None:
        async with linked() as (supervisor, link):
            room = Room()
            clients = [supervisor.hand_over() for _ in range(10)]
            listener = HandedListener(supervisor.far, link)
            await listener.start(room)
            seen = {room.room}
            async with asyncio.timeout(SECONDS):
                while room.room > 90:
                    await asyncio.sleep(0)
                    seen.add(room.room)
            assert max(former - now for former, now in pairwise(sorted(seen, reverse=True))) <= 3
            for client in clients:
                assert await said(client) == b"hello"
            listener.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(scenario())


async def test_a_worker_without_a_descriptor_leaves_connections_where_they_are(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The kernel drops a connection whose receiver may have no other descriptor, without a word."""
    async with linked() as (supervisor, link):
        listener = HandedListener(supervisor.far, link)
        client = supervisor.hand_over()
        former, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        with ExitStack() as stack:
            stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (former, most))
            resource.setrlimit(resource.RLIMIT_NOFILE, (client.fileno(), most))
            await listener.start(Room())
            await until(lambda: caplog.records)
        assert await said(client) == b"hello"
        listener.close()
    assert caplog.records[0].getMessage() == f"no connection can be accepted for now: {os.strerror(errno.EMFILE)}"


async def test_a_supervisor_that_reads_nothing_is_asked_no_more(
    monkeypatch: pytest.MonkeyPatch, change_limits: ChangeLimits
) -> None:
    change_limits(link_unsent=100_000)
    monkeypatch.setattr(worker, "PATIENCE", 0.01)
    async with linked() as (_, link):
        for _ in range(100):
            with pytest.raises(Error) as failure:
                await link.ask("claim", b"x" * 100_000)
            assert (failure.value.code, failure.value.reason) == ("overloaded", "workers")
        assert link._transport.get_write_buffer_size() < 300_000


async def test_questions_to_a_supervisor_that_is_gone_fail_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "PATIENCE", 600)
    async with linked() as (supervisor, link):
        asked = asyncio.create_task(link.ask("claim"))
        await supervisor.hears("ask", 1, "claim", [])
        supervisor.link.close()
        for each in (asked, link.ask("claim")):
            with pytest.raises(Error) as failure:
                async with asyncio.timeout(SECONDS):
                    await each
            assert (failure.value.code, failure.value.reason) == ("overloaded", "workers")
        link.send("idle", 0)


async def test_a_supervisor_that_is_gone_drains_the_worker(caplog: pytest.LogCaptureFixture) -> None:
    async with linked() as (supervisor, link):
        listener = HandedListener(supervisor.far, link)
        await listener.start(Room())
        supervisor.link.close()
        supervisor.channel.close()
        await link.stop.wait()
        await closed(listener)
    assert not link.hurry.is_set()
    assert [record.getMessage() for record in caplog.records] == ["the supervisor is gone: this worker drains"]


class Callbacks:
    def __init__(self) -> None:
        self.settings: list[bytes] = []

    def counts(self) -> Any:
        return {"a": 1}

    def use(self, settings: bytes) -> None:
        self.settings.append(settings)

    def wrong_keys(self, counts: Any) -> None:
        raise NotImplementedError

    def is_sealed(self) -> bool:
        return True

    def sealed(self, is_sealed: bool) -> None:
        raise NotImplementedError


async def test_a_heartbeat_says_whether_a_key_of_the_store_is_missing(change_limits: ChangeLimits) -> None:
    change_limits(worker_beat=0.001)
    async with linked() as (supervisor, link):
        link.serve(Callbacks())
        link.take_connections()
        await supervisor.hears("beat", True)


async def test_what_the_supervisor_asks_before_the_server_is_there_is_answered_then() -> None:
    async with linked() as (supervisor, link):
        supervisor.near.sendall(pack("settings", b"one") + pack("count", 7))
        await asyncio.sleep(0.01)
        callbacks = Callbacks()
        link.serve(callbacks)
        supervisor.near.sendall(pack("settings", b"two") + pack("drain"))
        await supervisor.hears("counts", 7, {"a": 1})
        await link.stop.wait()
        assert callbacks.settings == [b"one", b"two"]
        assert not link.hurry.is_set()
        supervisor.near.sendall(pack("hurry"))
        async with asyncio.timeout(SECONDS):
            await link.hurry.wait()


def serviced(auth_throttle: AuthThrottle) -> Any:
    operations = SimpleNamespace(scrapes=SimpleNamespace())
    return SimpleNamespace(operations=operations, admin=SimpleNamespace(), auth_throttle=auth_throttle)


async def test_wrong_keys_are_reported_to_the_other_workers_and_theirs_count_too() -> None:
    auth_throttle = AuthThrottle()
    async with linked() as (supervisor, link):
        link.serve(Worker(cast(Any, SimpleNamespace(service=serviced(auth_throttle))), link, 0))
        for address in ("192.0.2.1", "192.0.2.1", "2001:db8::1"):
            auth_throttle.note_wrong(address)
        await supervisor.hears("wrong_keys", {"192.0.2.1": 2, "2001:db8::/64": 1})
        supervisor.near.sendall(pack("wrong_keys", {"192.0.2.1": LIMITS.wrong_keys - 2}) + pack("count", 7))
        await until(lambda: is_blocked(auth_throttle, "192.0.2.1"))
        auth_throttle.note_wrong("192.0.2.2")
        await supervisor.hears("wrong_keys", {"192.0.2.2": 1})


def is_blocked(auth_throttle: AuthThrottle, address: str) -> bool:
    try:
        auth_throttle.note_right(address, "nobody")
    except Error:
        return True
    auth_throttle._admitted.clear()
    return False


async def test_a_supervisor_that_lags_behind_is_notified_of_a_few_addresses_once_it_reads() -> None:
    sent: list[Any] = []
    link = SimpleNamespace(is_busy=True, send=lambda *message: sent.append(message))
    auth_throttle = AuthThrottle()
    Worker(cast(Any, SimpleNamespace(service=serviced(auth_throttle))), cast(Any, link), 0)
    for number in range(LIMITS.reported_addresses + 5):
        auth_throttle.note_wrong(f"10.0.{number >> 8}.{number & 255}")
    auth_throttle.note_wrong("10.0.0.0")
    await asyncio.sleep(0)
    assert sent == []
    link.is_busy = False
    await until(lambda: bool(sent))
    [(kind, counts)] = sent
    assert (kind, len(counts), counts["10.0.0.0"]) == ("wrong_keys", LIMITS.reported_addresses, 2)


def test_a_new_configuration_brings_what_the_certificates_files_hold_now() -> None:
    done: list[str] = []
    running = SimpleNamespace(
        service=serviced(AuthThrottle()),
        use=lambda _, built: done.append("use"),
    )
    certificate = SimpleNamespace(reload=lambda: done.append("reload"))
    Worker(cast(Any, running), cast(Any, None), 0, cast(Any, certificate)).use(to_bytes(Settings()))
    assert done == ["use", "reload"]


async def test_a_bug_in_what_the_supervisor_asks_does_not_end_the_worker(caplog: pytest.LogCaptureFixture) -> None:
    """A configuration that a bug keeps from being used would have ended all workers."""

    class Broken(Callbacks):
        def use(self, settings: bytes) -> None:
            raise ZeroDivisionError

    async with linked() as (supervisor, link):
        link.serve(Broken())
        supervisor.near.sendall(pack("settings", b"one") + pack("count", 7))
        await supervisor.hears("counts", 7, {"a": 1})
        assert not link.stop.is_set()
        assert caplog.records[0].getMessage() == "a message of the supervisor (settings) could not be handled: a bug"


async def test_the_counts_of_all_workers_come_or_the_question_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    async with linked() as (supervisor, link):
        link.serve(Callbacks())
        asked = asyncio.create_task(link.all_counts())
        await supervisor.hears("sum", 1)
        supervisor.near.sendall(pack("answer", 9, []) + pack("answer", 1, [{"a": 1}]))
        assert await asked == [{"a": 1}]
        monkeypatch.setattr(worker, "PATIENCE", 0.01)
        with pytest.raises(Error, match="does not answer in time") as failure:
            await link.all_counts()
        assert (failure.value.code, failure.value.reason) == ("overloaded", "workers")


async def test_the_supervisor_answers_a_worker_that_does_not_serve_yet() -> None:
    async with linked() as (supervisor, link):
        asked = asyncio.create_task(link.ask("workers"))
        await supervisor.hears("ask", 1, "workers", [])
        supervisor.near.sendall(pack("settings", b"one") + pack("answer", 1, [2, 3]))
        assert await asked == [2, 3]
        callbacks = Callbacks()
        link.serve(callbacks)
        assert callbacks.settings == [b"one"]


def test_the_shares_of_all_workers_add_up_to_the_limits_of_the_server() -> None:
    limits = LimitSettings(10, 4, connections=7, drains=0, memory_high_water=900, upload_bytes=3000, lane_body=300)
    settings = Settings(server=ServerSettings(workers=3, max_body=1000), limits=limits)
    shares = [worker._share(settings, place).limits for place in range(3)]
    assert shares == [LimitSettings(10, 4, connections, 0, 300, 1000, 300) for connections in (3, 2, 2)]
    for total in range(3, 12):
        of_each = replace(settings, limits=replace(limits, connections=total))
        assert sum(worker._share(of_each, place).limits.connections for place in range(3)) == total
    by_default = worker._share(Settings(server=ServerSettings(workers=2)), 0).limits.memory_high_water
    assert by_default == high_water(LimitSettings()) // 2


def test_each_worker_receives_the_largest_body() -> None:
    """With 64 workers, a body of 10 MiB got 503 for ever."""
    for most, share in ((64 << 20, 16 << 20), (12 << 20, 10 << 20), (8 << 20, 8 << 20)):
        settings = Settings(server=ServerSettings(workers=4), limits=LimitSettings(upload_bytes=most))
        assert {worker._share(settings, place).limits.upload_bytes for place in range(4)} == {share}


def test_each_worker_serves_a_connection() -> None:
    limits = LimitSettings(connections=1)
    settings = Settings(server=ServerSettings(workers=2), limits=limits)
    last = worker._share(settings, 1).limits
    assert last.connections == 1


async def test_a_worker_does_not_serve_before_it_knows_which_targets_are_drained() -> None:
    asked: list[bool] = []
    taken: list[tuple[int, list[list[str]]]] = []

    async def drained() -> tuple[int, list[list[str]]]:
        asked.append(True)
        if len(asked) < 3:
            raise Error("overloaded", "no answer", reason="workers")
        return 7, [["m", "west", "gpt"]]

    def take(number: int, listed: list[list[str]]) -> None:
        taken.append((number, listed))

    async with linked() as (_, link):
        peers, own = cast("Any", SimpleNamespace(drained=drained)), cast("Any", SimpleNamespace(take=take))
        await drain_as_others(own, peers, link)
        assert taken == [(7, [["m", "west", "gpt"]])]
        link.stop.set()
        await drain_as_others(own, peers, link)
        assert len(asked) == 3, "an ending worker asks no other"
