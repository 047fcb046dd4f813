"""The protocol of each new connection, and the answer to one that is above `[limits] connections`.

Owns how many connections there may be, which the descriptors of the process bound too, the refusal of more, and what
stands in front of a server's protocol: a PROXY header, TLS. Knows nothing of requests: a refused client gets the same
answer whatever it asks.

A connection has its server's protocol from the first moment, and counts as that server's: its time limits for a client
that sends no request hold for one that sends no PROXY header and does not finish its handshake.
"""

from __future__ import annotations

import asyncio
import logging
import resource
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

from gai_fast.model.settings import LimitSettings
from gai_fast.net.upstream.sockets import peer_address
from gai_fast.runtime.timers import Timer, Timers
from gai_fast.server.edge.connections import OpenConnections
from gai_fast.server.http.replies import Reply
from gai_fast.server.limits import LIMITS

_log = logging.getLogger("gai_fast.server")


Layer = Callable[[asyncio.Protocol], asyncio.Protocol]
"""Makes the protocol that stands in front of another one, which it hands the connection to."""


class Places(NamedTuple):
    """The numbers of connections that there may be at a time.

    Attributes:
        served: Connections that are served.
        refused: Connections that are being refused, besides.
    """

    served: int
    refused: int


def affordable(connections: int) -> Places:
    """The numbers of connections that there may be: as many as configured, or as the process has descriptors for.

    Args:
        connections: `[limits] connections`.
    """
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return Places(connections, LIMITS.refused_connections)
    kept = files // LIMITS.files_kept
    served = max(1, files - kept)
    if served < connections:
        text = "at most %d connections are accepted: the process may open %d files (ulimit -n)"
        # Nobody has asked for the default, which many systems do not afford.
        level = logging.DEBUG if connections == LimitSettings().connections else logging.WARNING
        _log.log(level, text, served, files)
    return Places(min(connections, served), max(1, min(LIMITS.refused_connections, kept // 2)))


class Entrance:
    """Makes the protocol of each new connection.

    Args:
        protocols: Makes the protocol of a connection that is served.
        connections: The connections that are served.
        places: How many connections there may be.
        refuse: Makes the reply to a refused client, whose address it gets; counts and logs it.
        timers: The timers of the loop.
        before: What stands in front of each protocol, the outermost last.

    Attributes:
        refused: The connections that are being refused.
    """

    def __init__(
        self,
        protocols: Callable[[], asyncio.Protocol],
        connections: Sequence[OpenConnections],
        places: Places,
        refuse: Callable[[str], Reply],
        timers: Timers,
        before: Sequence[Layer] = (),
    ) -> None:
        self._before = before
        self._protocols = protocols
        self._connections = connections
        self._places = places
        self.refuse = refuse
        self.timers = timers
        self.refused = OpenConnections()

    def use(self, limits: LimitSettings) -> None:
        """Lets in as many as these limits allow from now on; connections above them stay.

        Args:
            limits: `[limits]`.
        """
        self._places = affordable(limits.connections)

    def __call__(self) -> asyncio.Protocol:
        protocol = self._protocols() if self._free > 0 else RefusedConnection(self)
        for layer in self._before:
            protocol = layer(protocol)
        return protocol

    @property
    def room(self) -> int:
        """The number of connections that may come in now, to be served or, where there is no place, to be refused."""
        free = self._free
        return free if free > 0 else self._places.refused - len(self.refused)

    @property
    def _free(self) -> int:
        return self._places.served - sum(map(len, self._connections))


class RefusedConnection(asyncio.Protocol):
    """One connection above the limit: whatever its client sends first is answered with 503, and no more is read.

    The client has `limits.lingering` seconds for all of that.

    Args:
        entrance: Its maker.
    """

    def __init__(self, entrance: Entrance) -> None:
        self._entrance = entrance
        self._transport: asyncio.Transport
        self._timer: Timer
        self._is_answered = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected. It is answered when it has asked: not all clients read before."""
        self._transport = cast("asyncio.Transport", transport)
        self._entrance.refused.add(self, self._transport)
        timers = self._entrance.timers
        self._timer = timers.schedule(timers.clock() + LIMITS.lingering, self._transport.abort)

    def data_received(self, data: bytes) -> None:
        """Bytes of its request."""
        if self._is_answered:
            return  # closed at once it would be reset, and the client would never see why
        self._is_answered = True
        reply = self._entrance.refuse(peer_address(self._transport))
        self._transport.write(reply.to_bytes(keep_alive=False))
        if self._transport.can_write_eof():
            self._transport.write_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._timer.cancel()
        self._entrance.refused.remove(self)
