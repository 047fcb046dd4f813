"""Connections of load balancers begin with a PROXY header, all others do not."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from gai_fast.net.sockets.sockets import peer_address
from gai_fast.server.admission.forwarding import Forwarding
from gai_fast.server.edge.proxied import ProxiedConnection, Refusals

HEADER = b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 443\r\n"
BALANCER = ("10.0.0.1", 5)


class Wire(asyncio.Transport):
    """A socket's transport."""

    def __init__(self, peer: Any) -> None:
        super().__init__({"peername": peer, "sockname": ("192.0.2.1", 443)})
        self.protocol: Any = None
        self.aborted = False

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True


class Above(asyncio.Protocol):
    """The server's protocol."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.data = b""
        self.lost = 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost += 1


def connect(peer: Any = BALANCER) -> tuple[Wire, Above, Refusals]:
    wire, above, refusals = Wire(peer), Above(), Refusals()
    wire.protocol = ProxiedConnection(Forwarding(("10.0.0.0/8", "unix:")), above, refusals)
    wire.protocol.connection_made(wire)
    return wire, above, refusals


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_what_follows_the_header_is_the_servers_and_the_client_is_known(size: int) -> None:
    wire, above, _ = connect()
    sent = HEADER + b"GET /"
    for at in range(0, len(sent), size):
        wire.protocol.data_received(sent[at : at + size])
    assert wire.protocol is above
    assert above.data == b"GET /"
    assert above.transport.get_extra_info("peername") == ("203.0.113.9", 4711)
    assert above.transport.get_extra_info("sockname") == ("192.0.2.1", 443)


def test_nothing_is_passed_on_where_the_header_is_all() -> None:
    wire, above, _ = connect()
    wire.protocol.data_received(HEADER)
    assert (wire.protocol, above.data) == (above, b"")


@pytest.mark.parametrize("peer", ["", None, "/run/balancer"])
def test_a_balancer_may_come_over_a_unix_socket(peer: Any) -> None:
    wire, above, _ = connect(peer)
    wire.protocol.data_received(HEADER)
    assert peer_address(above.transport) == "203.0.113.9"


def test_a_connection_of_the_balancers_own_has_its_address() -> None:
    wire, above, _ = connect()
    wire.protocol.data_received(b"PROXY UNKNOWN\r\n")
    assert peer_address(above.transport) == "10.0.0.1"


def test_any_other_client_is_its_own_and_its_header_is_a_request() -> None:
    wire, above, _ = connect(("203.0.113.1", 5))
    assert wire.protocol is above
    assert above.transport is wire
    wire.protocol.data_received(HEADER)
    assert above.data == HEADER


def test_a_balancers_connection_without_a_header_is_closed_and_the_log_says_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    wire, above, _ = connect()
    wire.protocol.data_received(b"GET / HTTP/1.1\r\n\r\n")
    wire.protocol.data_received(HEADER)
    assert wire.aborted
    wire.protocol.connection_lost(None)
    assert (above.data, above.lost) == (b"", 1)
    result = "a connection of 10.0.0.1 is closed: it does not begin with a PROXY header"
    assert [record.getMessage() for record in caplog.records] == [result]


@pytest.mark.parametrize(("sent", "is_logged"), [(b"", False), (b"PROXY T", True)])
def test_a_header_that_does_not_come_ends_with_the_servers_patience(
    caplog: pytest.LogCaptureFixture, sent: bytes, is_logged: bool
) -> None:
    wire, above, _ = connect()
    if sent:
        wire.protocol.data_received(sent)
    assert not wire.protocol.eof_received()
    wire.protocol.connection_lost(None)
    assert above.lost == 1
    assert bool(caplog.records) is is_logged


def test_refusals_are_logged_once_in_a_while_with_their_number(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("gai_fast.server.edge.proxied.time.monotonic", lambda: now)
    refusals = Refusals()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            refusals.note("10.0.0.1", "why")
        now += 61
        refusals.note("", "why")
    assert [record.getMessage() for record in caplog.records] == [
        "a connection of 10.0.0.1 is closed: why",
        "a connection of a unix socket is closed: why (2 others before)",
    ]
