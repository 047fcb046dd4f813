"""Places: as many connections as there are places come in, and one more is answered."""

from __future__ import annotations

import asyncio
import json
import logging
import resource
import socket
from typing import Any

import pytest

from gai_fast.model.errors import Error
from gai_fast.model.settings import LimitSettings
from gai_fast.runtime.timers import TimerWheel
from gai_fast.server.admission.forwarding import Forwarding
from gai_fast.server.edge.connections import OpenConnections
from gai_fast.server.edge.entrance import ConnectionPlaces, Entrance, Layer, RefusedConnection, connection_limits
from gai_fast.server.edge.listening import SocketListener
from gai_fast.server.http.replies import Reply, error_reply
from tests.limits import LIMITS
from tests.waiting import until


class FakeTransport(asyncio.Transport):
    def __init__(self, *, can_write_eof: bool = True, peer: Any = ("192.0.2.1", 9)) -> None:
        super().__init__({"peername": peer})
        self.written = b""
        self.calls: list[str] = []
        self._can_write_eof = can_write_eof

    def write(self, data: Any) -> None:
        self.written += data

    def can_write_eof(self) -> bool:
        return self._can_write_eof

    def write_eof(self) -> None:
        self.calls.append("eof")

    def abort(self) -> None:
        self.calls.append("abort")


class Served(asyncio.Protocol):
    """A connection; busy unless a test says otherwise."""

    idle_since: float | None = None

    def is_evictable(self, now: float) -> bool:
        return self.idle_since is not None and now - self.idle_since >= LIMITS.evictable_after


class Place:
    """An entrance with two places, its connections, and the connections that it refused."""

    def __init__(self) -> None:
        self.served = OpenConnections()
        self.remotes: list[str] = []
        self.timers = TimerWheel(asyncio.get_running_loop(), clock=lambda: self.now)
        self.now = 100.0
        served = [OpenConnections(), self.served]
        self.entrance = Entrance(Served, served, ConnectionPlaces(2, 9), self.refuse, self.timers)

    def refuse(self, remote: str) -> Reply:
        self.remotes.append(remote)
        return error_reply(Error("overloaded", "full", reason="connections", retry_after_ms=1000), "req-1", close=True)

    def serve(self, peer: Any = ("192.0.2.9", 9)) -> Served:
        one = Served()
        self.served.add(one, FakeTransport(peer=peer))
        return one

    def refused(self, **about: Any) -> tuple[RefusedConnection, FakeTransport]:
        protocol, transport = self.entrance("192.0.2.1"), FakeTransport(**about)
        assert isinstance(protocol, RefusedConnection)
        protocol.connection_made(transport)
        return protocol, transport


async def test_there_are_so_many_places_and_then_room_to_be_refused() -> None:
    place = Place()
    assert place.entrance.room == 2
    assert isinstance(place.entrance("192.0.2.1"), Served)
    first = place.serve()
    assert place.entrance.room == 1
    place.serve()
    assert place.entrance.room == 9
    refused = [place.refused()[0] for _ in range(3)]
    assert place.entrance.room == 6
    place.served.remove(first)
    assert place.entrance.room == 1
    assert isinstance(place.entrance("192.0.2.1"), Served)
    for each in refused:
        each.connection_lost(None)
    assert not place.entrance.refused
    assert not len(place.timers)


async def test_another_limit_counts_from_the_next_connection_on() -> None:
    place = Place()
    place.serve(), place.serve()
    place.entrance.use(LimitSettings(connections=3))
    assert isinstance(place.entrance("192.0.2.1"), Served)
    place.entrance.use(LimitSettings(connections=1))
    assert isinstance(place.entrance("192.0.2.1"), RefusedConnection)


async def test_a_refused_client_is_answered_when_it_has_asked_and_no_more_is_read() -> None:
    place = Place()
    place.serve(), place.serve()
    protocol, transport = place.refused()
    assert not transport.written
    for _ in range(3):
        protocol.data_received(b"GET / HTTP/1.1\r\n")
    head, _, body = transport.written.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nretry-after: 1\r\n" in head
    assert b"\r\nconnection: close" in head
    assert json.loads(body)["error"]["reason"] == "connections"
    assert transport.calls == ["eof"]
    assert place.remotes == ["192.0.2.1"]
    assert not protocol.eof_received()
    protocol.connection_lost(None)


async def test_a_refused_client_has_no_more_time_than_it_takes_to_ask() -> None:
    place = Place()
    place.serve(), place.serve()
    protocol, transport = place.refused(can_write_eof=False, peer="")
    protocol.data_received(b"x")
    assert (transport.calls, place.remotes) == ([], [""])
    place.now += LIMITS.lingering + 1
    place.timers._wake()
    place.timers._wake()
    assert transport.calls == ["abort"]
    protocol.connection_lost(None)


@pytest.mark.parametrize(
    ("files", "served", "refused"),
    [
        (resource.RLIM_INFINITY, 30_000, 64),
        (200, 150, 25),
        (1024, 768, 64),
        (1_000_000, 30_000, 64),
        (1, 1, 1),
    ],
)
def test_clients_do_not_get_all_descriptors(
    files: int, served: int, refused: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))
    assert connection_limits(30_000) == (served, refused)
    assert ("ulimit -n" in caplog.text) is (served < 30_000)


def test_a_default_that_the_process_cannot_afford_is_no_news(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1024))
    with caplog.at_level(logging.INFO):
        assert connection_limits(LimitSettings().connections).served == 768
    assert not caplog.text


async def test_what_stands_in_front_is_there_for_every_connection() -> None:
    """A client that is refused must be able to read why."""
    made: list[tuple[str, asyncio.Protocol]] = []

    def layer(name: str) -> Layer:
        def wrap(protocol: asyncio.Protocol) -> asyncio.Protocol:
            made.append((name, protocol))
            return Served()

        return wrap

    place = Place()
    entrance = Entrance(
        Served, [place.served], ConnectionPlaces(1, 9), place.refuse, place.timers, [layer("inner"), layer("outer")]
    )
    assert isinstance(entrance("192.0.2.1"), Served)
    assert [name for name, _ in made] == ["inner", "outer"]
    place.serve()
    entrance("192.0.2.1")
    assert isinstance(made[2][1], RefusedConnection)
    assert isinstance(made[3][1], Served)


async def test_if_all_places_are_taken_idle_connections_without_a_key_are_closed_first(
    caplog: pytest.LogCaptureFixture,
) -> None:
    place = Place()
    busy, idle = place.serve(), place.serve()
    idle.idle_since = place.now
    assert isinstance(place.entrance("192.0.2.1"), RefusedConnection)  # its request may be under way
    place.now += LIMITS.evictable_after
    assert isinstance(place.entrance("192.0.2.1"), Served)
    assert tuple(place.served) == (busy,)
    assert "idle connections without a key are closed" in caplog.text
    place.serve()
    for _ in range(3):
        assert isinstance(place.entrance("192.0.2.1"), RefusedConnection)


async def test_no_address_holds_more_than_half_of_the_places_but_a_proxys_and_this_machines() -> None:
    for address, holds_all in (
        ("192.0.2.7", False),
        ("127.0.0.1", True),
        ("::1", True),
        ("10.0.0.1", True),
        ("", True),
    ):
        place = Place()
        entrance = Entrance(
            Served,
            [place.served],
            ConnectionPlaces(4, 9),
            place.refuse,
            place.timers,
            forwarding=Forwarding(["10.0.0.1"]),
        )
        for _ in range(2):
            assert isinstance(entrance(address), Served)
            place.serve((address, 9) if address else None)
        assert isinstance(entrance(address), Served if holds_all else RefusedConnection)
        assert isinstance(entrance("192.0.2.8"), Served)


async def test_an_address_may_come_again_once_its_connections_have_ended() -> None:
    place = Place()
    one = place.serve(("192.0.2.7", 9))
    assert isinstance(place.entrance("192.0.2.7"), RefusedConnection)
    place.served.remove(one)
    assert isinstance(place.entrance("192.0.2.7"), Served)


async def test_the_addresses_of_one_ipv6_network_hold_half_of_the_places_together() -> None:
    place = Place()
    place.serve(("2001:db8::1", 9, 0, 0))
    assert isinstance(place.entrance("2001:db8::2"), RefusedConnection)
    assert isinstance(place.entrance("2001:db8:0:1::2"), Served)
    mapped = Place()
    mapped.serve(("::ffff:192.0.2.7", 9, 0, 0))
    assert isinstance(mapped.entrance("192.0.2.7"), RefusedConnection)


async def test_no_more_than_the_places_of_refusal_are_answered_though_other_places_are_free() -> None:
    """An address above its half may come as fast as others: each refusal holds a descriptor for two seconds."""
    place = Place()
    place.serve(("192.0.2.1", 9))
    refused = [place.refused() for _ in range(12)]
    assert place.entrance.room == 1  # for other addresses
    assert [transport.calls for _, transport in refused] == [[]] * 9 + [["abort"]] * 3
    for protocol, _ in refused:
        protocol.connection_lost(None)
    assert place.refused()[1].calls == []
    assert isinstance(place.entrance("192.0.2.8"), Served)


async def test_one_address_that_floods_leaves_descriptors_and_places_to_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gai_fast.server.edge.entrance.is_loopback", lambda address: False)
    place = Place()
    served = [OpenConnections()]

    class Kept(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport
            served[0].add(self, transport)
            transport.write(b"served")

        def is_evictable(self, now: float) -> bool:
            return False

    entrance = Entrance(Kept, served, ConnectionPlaces(4, 3), place.refuse, place.timers)
    listening = socket.create_server(("127.0.0.1", 0), backlog=128)
    listening.setblocking(False)
    address = listening.getsockname()
    listener = SocketListener([listening])
    clients = []
    try:
        await listener.start(entrance)
        async with asyncio.timeout(10):
            for host in ["127.0.0.9"] * 40 + ["127.0.0.8"]:
                clients.append(await asyncio.open_connection(*address, local_addr=(host, 0)))  # noqa: PERF401  # in order
            assert await clients[-1][0].read(6) == b"served"
        await until(lambda: len(entrance.refused) <= 3)
        assert (served[0].held_by("127.0.0.9"), len(entrance.refused)) == (2, 3)
    finally:
        listener.close()
        for _, writer in clients:
            writer.close()
        for each in (*served, entrance.refused):
            each.abort()
        await asyncio.sleep(0)


@pytest.mark.interpreted  # it replaces a method
async def test_newcomers_cause_no_more_sweeps_than_those_that_find_many_or_one_in_a_while() -> None:
    """A sweep over all connections takes 6 ms: clients that connect and idle in turn would cause one each."""
    place = Place()
    swept: list[float] = []

    class Watched(OpenConnections):
        def evict(self, most: int, now: float) -> int:
            swept.append(now)
            return super().evict(most, now)

    served = Watched()
    entrance = Entrance(Served, [served], ConnectionPlaces(1, 9), place.refuse, place.timers)
    for number in range(100):
        one = entrance(f"192.0.2.{number}")
        if isinstance(one, Served):
            one.idle_since = 0.0
            served.add(one, FakeTransport(peer=(f"192.0.2.{number}", 9)))
        place.now += LIMITS.sweep_pause / 50
    assert 2 <= len(swept) <= 3
