"""The open connections of one kind: the fast lane's, or aiohttp's.

Owns their count, the end of all of them at once, and which are ended where memory is short. Knows no protocol.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

from gai_fast.server.limits import LIMITS


class OpenConnections:
    """The connections that are open.

    Attributes:
        emptied: Set while no connection is open.
    """

    def __init__(self) -> None:
        self.emptied = asyncio.Event()
        self.emptied.set()
        self._transports: dict[object, asyncio.Transport] = {}

    def __len__(self) -> int:
        return len(self._transports)

    def __iter__(self) -> Iterator[object]:
        return iter(tuple(self._transports))

    @property
    def transports(self) -> tuple[asyncio.Transport, ...]:
        """Their transports."""
        return tuple(self._transports.values())

    def add(self, connection: object, transport: asyncio.Transport) -> None:
        """Notes a connection."""
        self._transports[connection] = transport
        self.emptied.clear()

    def remove(self, connection: object) -> None:
        """Forgets a connection that is lost, or that another kind of server holds now; idempotent."""
        self._transports.pop(connection, None)
        if not self._transports:
            self.emptied.set()

    def close(self) -> None:
        """Ends every connection after its client has taken its last bytes."""
        for transport in self.transports:
            transport.close()

    def abort(self) -> None:
        """Ends every connection at once."""
        for transport in self.transports:
            transport.abort()


def abort_slowest(connections: Iterable[OpenConnections], size: int) -> int:
    """Ends connections whose clients read slowest, those with the most unsent bytes first, at once.

    Args:
        connections: All connections.
        size: The unsent bytes to free by that; less where there are not so many.

    Returns:
        How many connections have been ended.
    """
    transports = [transport for each in connections for transport in each.transports]
    unsent = sorted(((transport.get_write_buffer_size(), at) for at, transport in enumerate(transports)), reverse=True)
    freed = ended = 0
    for held, at in unsent:
        if freed >= size or held < LIMITS.slow_client:
            break
        transports[at].abort()
        freed += held
        ended += 1
    return ended
