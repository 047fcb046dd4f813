"""Connections that begin with a PROXY header, as a load balancer passes them on (`[server] proxy_protocol`).

Owns which connections must have one: all of the proxies in `forwarded_allow_ips`. Every other one is its client's
own. Sets no timer: the server's protocol is there from the first moment, and its client has not sent a request yet.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any, Final, cast

from gai_fast.model.limits import SHARED
from gai_fast.net.upstream.sockets import peer_address
from gai_fast.server.admission.forwarding import Forwarding
from gai_fast.server.edge.proxy_header import BadHeader, read_header
from gai_fast.server.edge.transport_layer import TransportLayer

_log: Final = logging.getLogger("gai_fast.server")


class PassedOn(TransportLayer):
    """The transport of a connection that a balancer passes on.

    Args:
        wire: The transport below.

    Attributes:
        peer: The address and the port of the client; `None`: the connection's own.
    """

    def __init__(self, wire: asyncio.Transport) -> None:
        super().__init__(wire)
        self.peer: tuple[str, int] | None = None

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """As `asyncio.BaseTransport.get_extra_info`; `peername` is the client's, empty where it has no address."""
        if name == "peername" and self.peer is not None:
            return self.peer
        return self.wire.get_extra_info(name, default)


class Refusals:
    """Logs why connections are closed, at most once in `limits.warning_interval`: anybody can make them."""

    def __init__(self) -> None:
        self._silent_until = 0.0
        self._count = 0

    def note(self, peer: str, why: str) -> None:
        """Logs one.

        Args:
            peer: The address of the balancer.
            why: Goes on after "a connection … is closed:".
        """
        self._count += 1
        now = time.monotonic()
        if now >= self._silent_until:
            self._silent_until = now + SHARED.warning_interval
            more = f" ({self._count - 1} others before)" if self._count > 1 else ""
            _log.warning("a connection of %s is closed: %s%s", peer or "a unix socket", why, more)
            self._count = 0


class ProxiedConnection(asyncio.Protocol):
    """The beginning of one connection.

    Args:
        forwarding: The proxies.
        protocol: Goes on behind the header.
        refusals: Logs connections without one.
    """

    def __init__(self, forwarding: Forwarding, protocol: asyncio.Protocol, refusals: Refusals) -> None:
        self._forwarding = forwarding
        self._protocol = protocol
        self._refusals = refusals
        self._data = b""
        self._wire: asyncio.Transport
        self._transport: PassedOn

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody has connected."""
        self._wire = cast("asyncio.Transport", transport)
        if self._forwarding.trusts(peer_address(self._wire)):
            self._transport = PassedOn(self._wire)
            self._protocol.connection_made(self._transport)
        else:
            self._wire.set_protocol(self._protocol)
            self._protocol.connection_made(self._wire)

    def data_received(self, data: bytes) -> None:
        """Takes bytes of the header."""
        if self._wire.is_closing():
            return
        self._data += data
        try:
            header = read_header(self._data)
        except BadHeader as problem:
            self._data = b""
            self._refusals.note(peer_address(self._wire), str(problem))
            self._wire.abort()
            return
        if header is None:
            return
        self._transport.peer = header.peer
        self._wire.set_protocol(self._protocol)
        rest = self._data[header.size :]
        if rest:
            self._protocol.data_received(rest)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended before its PROXY header; one without any byte was a health check."""
        if self._data:
            self._refusals.note(peer_address(self._wire), "its PROXY header was not whole in time")
        self._protocol.connection_lost(exc)
