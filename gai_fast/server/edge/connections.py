"""The open connections of one kind: the fast lane's, or aiohttp's.

Owns their count, their closing all at once, and which of them are closed if memory is short. Knows no protocol.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Protocol, cast

from gai_fast.model.addresses import client_network
from gai_fast.net.sockets.sockets import peer_address
from gai_fast.server.limits import LIMITS


class Evictable(Protocol):
    """A connection that may be closed so that another one has a place."""

    def is_evictable(self, now: float) -> bool:
        """Returns whether the connection has waited `limits.evictable_after` seconds, and its last request had no key.

        Args:
            now: Seconds of the loop's clock.
        """


class OpenConnections:
    """The open connections.

    Attributes:
        emptied: Set while no connection is open.
    """

    def __init__(self) -> None:
        self.emptied = asyncio.Event()
        self.emptied.set()
        self._transports: dict[object, asyncio.Transport] = {}
        self._addresses: dict[object, str] = {}
        self._held: dict[str, int] = {}  # connections by address, as `_counted` returns it

    def __len__(self) -> int:
        return len(self._transports)

    def __iter__(self) -> Iterator[object]:
        return iter(tuple(self._transports))

    @property
    def transports(self) -> tuple[asyncio.Transport, ...]:
        """The transports of the connections."""
        return tuple(self._transports.values())

    def add(self, connection: object, transport: asyncio.Transport) -> None:
        """Adds a connection."""
        self._transports[connection] = transport
        self._addresses[connection] = address = _counted(peer_address(transport))
        self._held[address] = self._held.get(address, 0) + 1
        self.emptied.clear()

    def remove(self, connection: object) -> None:
        """Removes a connection that is lost or has been handed over; idempotent."""
        if self._transports.pop(connection, None) is None:
            return
        address = self._addresses.pop(connection)
        self._held[address] -= 1
        if not self._held[address]:
            del self._held[address]
        if not self._transports:
            self.emptied.set()

    def held_by(self, address: str) -> int:
        """Returns the number of connections from an address, or from its network if it is IPv6.

        Args:
            address: The peer's address when the connection was added; empty for connections without one.
        """
        return self._held.get(_counted(address), 0)

    def evict(self, most: int, now: float) -> int:
        """Aborts idle connections without a key, the oldest first; their places are free at once.

        Args:
            most: The maximum number.
            now: Seconds of the loop's clock.

        Returns:
            The number of aborted connections.
        """
        chosen = (each for each in self if cast(Evictable, each).is_evictable(now))
        evicted = 0
        for connection in islice(chosen, most):
            transport = self._transports[connection]
            self.remove(connection)
            transport.abort()
            evicted += 1
        return evicted

    def close(self) -> None:
        """Closes every connection after its client has read the last bytes."""
        for transport in self.transports:
            transport.close()

    def abort(self) -> None:
        """Aborts every connection."""
        for transport in self.transports:
            transport.abort()


def _counted(address: str) -> str:
    """Returns the key by which connections of an address are counted. IPv4, the usual case, saves a look-up."""
    return client_network(address) if ":" in address else address


def abort_slowest(connections: Iterable[OpenConnections], size: int) -> int:
    """Aborts the connections with the slowest clients: the most unsent bytes first.

    Args:
        connections: All connections.
        size: The number of unsent bytes to free; fewer are freed if there are not that many.

    Returns:
        The number of aborted connections.
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
