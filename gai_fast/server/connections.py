"""The open connections of one kind: the fast lane's, or aiohttp's.

Owns their count and the end of all of them at once. Knows no protocol.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator


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
