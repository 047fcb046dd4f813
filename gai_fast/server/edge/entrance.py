"""The protocol of each new connection, and the response to connections above `[limits] connections`.

Owns the maximum number of connections, which the process's descriptors limit too, the refusal of more, and the layers
in front of a server's protocol: a PROXY header, TLS. Knows nothing about requests: a refused client gets one fixed
response to any request.

1. An address has at most half of the places, except for loopback, unix sockets and trusted proxies: one stranger alone
   cannot shut out all others. `OpenConnections.held_by` owns what counts as one address.
2. If all places are taken, idle connections without a key are closed first.
3. At most `ConnectionPlaces.refused` clients are answered with the refusal at a time; one more is disconnected at once.
   Such a client is one above its half: if no place is free, no further connection is accepted (`room`).

A connection has its server's protocol from the start, and counts as that server's connection. A client that sends no
PROXY header or does not finish its handshake is thus subject to the time limits for a client that sends no request.
"""

from __future__ import annotations

import asyncio
import logging
import resource
from collections.abc import Callable, Sequence
from math import inf
from typing import NamedTuple, cast

from gai_fast.model.addresses import is_loopback
from gai_fast.model.limits import SHARED
from gai_fast.model.settings import LimitSettings
from gai_fast.net.sockets.sockets import peer_address
from gai_fast.runtime.timers import Timer, Timers
from gai_fast.server.admission.forwarding import NO_TRUSTED_PROXY, Forwarding
from gai_fast.server.edge.connections import OpenConnections
from gai_fast.server.http.replies import Reply
from gai_fast.server.limits import LIMITS

_log = logging.getLogger("gai_fast.server")


Layer = Callable[[asyncio.Protocol], asyncio.Protocol]
"""Creates the protocol in front of another protocol; it hands the connection over to that protocol."""


class ConnectionPlaces(NamedTuple):
    """The maximum numbers of simultaneous connections.

    Attributes:
        served: Connections that are served.
        refused: Additional connections that are being refused.
    """

    served: int
    refused: int


def connection_limits(connections: int, workers: int = 1) -> ConnectionPlaces:
    """Returns the maximum numbers of connections: as configured, or fewer if the process has too few descriptors.

    Args:
        connections: `[limits] connections`; with several workers, the share of this one.
        workers: The number of workers.
    """
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return ConnectionPlaces(connections, LIMITS.refused_connections)
    reserved = files // LIMITS.files_kept
    served = max(1, files - reserved)
    if served < connections:
        text = "at most %d connections are accepted: the process may open %d files (ulimit -n)"
        # The default is not a user's choice, and many systems do not allow that many: no warning for it.
        is_default = connections in (usual := LimitSettings().connections // workers, usual + 1)
        _log.log(logging.DEBUG if is_default else logging.WARNING, text, served, files, extra={"once": inf})
    return ConnectionPlaces(min(connections, served), max(1, min(LIMITS.refused_connections, reserved // 2)))


class Entrance:
    """Creates the protocol of each new connection.

    Args:
        protocols: Creates the protocol of a connection that is served.
        connections: The connections that are served.
        places: The maximum numbers of connections.
        refuse: Returns the response to a refused client, given its address; counts and logs the refusal.
        timers: The timers of the loop.
        layers: The layers in front of each protocol, the outermost last.
        forwarding: The trusted proxies, whose address may have any number of connections.
        workers: The number of workers.

    Attributes:
        refused: The connections that are being refused.
    """

    def __init__(
        self,
        protocols: Callable[[], asyncio.Protocol],
        connections: Sequence[OpenConnections],
        places: ConnectionPlaces,
        refuse: Callable[[str], Reply],
        timers: Timers,
        layers: Sequence[Layer] = (),
        forwarding: Forwarding = NO_TRUSTED_PROXY,
        workers: int = 1,
    ) -> None:
        self._workers = workers
        self._forwarding = forwarding
        self._no_sweep_before = self._silent_until = 0.0
        self._layers = layers
        self._protocols = protocols
        self._connections = connections
        self._places = places
        self.refuse = refuse
        self.timers = timers
        self.refused = OpenConnections()

    def use(self, limits: LimitSettings) -> None:
        """Applies new limits to new connections; existing connections above them stay open.

        Args:
            limits: `[limits]`.
        """
        self._places = connection_limits(limits.connections, self._workers)

    def __call__(self, address: str) -> asyncio.Protocol:
        """Creates the protocol of a new connection.

        Args:
            address: The peer's address; empty if it has none.
        """
        protocol = self._protocols() if self._has_place(address) else RefusedConnection(self)
        for layer in self._layers:
            protocol = layer(protocol)
        return protocol

    def _has_place(self, address: str) -> bool:
        """Returns whether a connection from an address is served: rules 1 and 2."""
        held = sum(each.held_by(address) for each in self._connections)
        if held >= max(1, self._places.served // 2) and not self._may_hold_all(address):
            return False
        return self._free > 0 or self._evict()

    def _may_hold_all(self, address: str) -> bool:
        return not address or is_loopback(address) or self._forwarding.trusts(address)

    def _evict(self) -> bool:
        """Closes some idle connections without a key; returns whether a place is free now."""
        now = self.timers.clock()
        if now < self._no_sweep_before:
            return False
        evicted = 0
        for each in self._connections:
            evicted += each.evict(LIMITS.evicted - evicted, now)
        if evicted < LIMITS.evicted:  # the others are busy, or have a key
            self._no_sweep_before = now + LIMITS.sweep_pause
        if evicted and now >= self._silent_until:
            self._silent_until = now + SHARED.warning_interval
            text = "all %d places of [limits] connections are taken: idle connections without a key are closed"
            _log.warning(text, self._places.served)
        return self._free > 0

    @property
    def refuses_too_many(self) -> bool:
        """Whether more connections are being refused than there are places for: rule 3."""
        return len(self.refused) > self._places.refused

    @property
    def room(self) -> int:
        """The number of connections that may be accepted now, to be served, or to be refused if none may be served."""
        free = self._free
        return free if free > 0 else self._places.refused - len(self.refused)

    @property
    def _free(self) -> int:
        return self._places.served - sum(map(len, self._connections))


class RefusedConnection(asyncio.Protocol):
    """One connection above the limit: its client's first bytes are answered with 503, and nothing more is read.

    The client has `limits.lingering` seconds in total.

    Args:
        entrance: The entrance that creates the protocol.
    """

    def __init__(self, entrance: Entrance) -> None:
        self._entrance = entrance
        self._transport: asyncio.Transport
        self._timer: Timer
        self._is_answered = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Starts the time limit. The response waits for the request: not all clients read before they have sent one."""
        self._transport = cast("asyncio.Transport", transport)
        self._entrance.refused.add(self, self._transport)
        timers = self._entrance.timers
        self._timer = timers.schedule(timers.clock() + LIMITS.lingering, self._transport.abort)
        if self._entrance.refuses_too_many:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Answers the first bytes with the refusal; drops the rest."""
        if self._is_answered:
            return  # closing at once would reset the connection: the client would never see the response
        self._is_answered = True
        reply = self._entrance.refuse(peer_address(self._transport))
        self._transport.write(reply.to_bytes(keep_alive=False))
        if self._transport.can_write_eof():
            self._transport.write_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops the timer."""
        self._timer.cancel()
        self._entrance.refused.remove(self)
