"""Connections that begin with a PROXY header, sent by a load balancer (`[server] proxy_protocol`).

Owns which connections must have a header: those from the proxies in `forwarded_allow_ips`. Any other connection comes
from the client itself. Sets no timer: the server's protocol exists from the start, with its limit for the first
request.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any, Final, cast

from gai_fast.model.limits import SHARED
from gai_fast.net.sockets.sockets import peer_address
from gai_fast.server.admission.forwarding import Forwarding
from gai_fast.server.edge.proxy_header import BadHeader, read_header
from gai_fast.server.edge.transport_layer import TransportLayer

_log: Final = logging.getLogger("gai_fast.server")


class ProxiedTransport(TransportLayer):
    """The transport of a connection through a load balancer.

    Args:
        wire: The transport below.

    Attributes:
        peer: The address and the port of the client; None if they are those of the connection.
    """

    def __init__(self, wire: asyncio.Transport) -> None:
        super().__init__(wire)
        self.peer: tuple[str, int] | None = None

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Works as `asyncio.BaseTransport.get_extra_info`; `peername` is the client's, empty if it has no address."""
        if name == "peername" and self.peer is not None:
            return self.peer
        return self.wire.get_extra_info(name, default)


class Refusals:
    """Logs why connections are closed, at most once in `limits.warning_interval`: any client can cause such lines."""

    def __init__(self) -> None:
        self._silent_until = 0.0
        self._count = 0

    def note(self, peer: str, why: str) -> None:
        """Logs a closed connection.

        Args:
            peer: The address of the balancer.
            why: The reason; continues the text "a connection … is closed:".
        """
        self._count += 1
        now = time.monotonic()
        if now >= self._silent_until:
            self._silent_until = now + SHARED.warning_interval
            more = f" ({self._count - 1} others before)" if self._count > 1 else ""
            _log.warning("a connection of %s is closed: %s%s", peer or "a unix socket", why, more)
            self._count = 0


class ProxiedConnection(asyncio.Protocol):
    """The start of one connection, up to the end of its header.

    Args:
        forwarding: The proxies.
        protocol: The protocol after the header.
        refusals: Logs connections without a header.
    """

    def __init__(self, forwarding: Forwarding, protocol: asyncio.Protocol, refusals: Refusals) -> None:
        self._forwarding = forwarding
        self._protocol = protocol
        self._refusals = refusals
        self._data = b""
        self._wire: asyncio.Transport
        self._transport: ProxiedTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connects the protocol; a connection that is not from a proxy is handed over to it at once."""
        self._wire = cast("asyncio.Transport", transport)
        if self._forwarding.trusts(peer_address(self._wire)):
            self._transport = ProxiedTransport(self._wire)
            self._protocol.connection_made(self._transport)
        else:
            self._wire.set_protocol(self._protocol)
            self._protocol.connection_made(self._wire)

    def data_received(self, data: bytes) -> None:
        """Collects and parses the header."""
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
        """Logs an incomplete header, and ends the protocol; a connection without any byte was a health check."""
        if self._data:
            self._refusals.note(peer_address(self._wire), "its PROXY header was not whole in time")
        self._protocol.connection_lost(exc)
