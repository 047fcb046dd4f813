"""The connections of a server, as the operating system knows them: grpcio shows none, and closes none.

Owns which connections are closed so that others find a place: grpcio refuses those beyond its places, whoever makes
them. If three quarters of the places are taken, connections of clients whom the gateway has not accepted are closed,
those of the addresses that have the most, until half of the places are free.

Knows no call.
"""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Final

from gai_fast.grpc.limits import LIMITS
from gai_fast.grpc.metadata import place_of_peer
from gai_fast.grpc.shares import from_the_most
from gai_fast.model.addresses import client_network

Peer = tuple[str, int]
"""The address and the port of a client."""

_OPEN: Final = "/dev/fd"
"""Lists the open files of a process, on Linux and on macOS."""


def most_connections() -> int:
    """Returns the greatest number of connections: half of the files that the process may open, as each running call has
    a connection to the gateway too."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return LIMITS.grpc_calls if files == resource.RLIM_INFINITY else min(LIMITS.grpc_calls, max(1, files // 2))


class Connections:
    """The connections of a server.

    Args:
        most: Their greatest number.
        client_of: Returns what is counted as one client, for its address.
    """

    def __init__(self, most: int, client_of: Callable[[str], str] = client_network) -> None:
        self._most = most
        self._client_of = client_of

    @property
    def are_many(self) -> bool:
        """Whether the process has so many open files that connections must be counted, and perhaps closed."""
        return sum(1 for _ in _files()) > self._most * 3 // 4

    def sweep(self, port: int, accepted: Collection[str]) -> int:
        """Closes connections if there are many, and returns their number. It may run in a thread.

        Args:
            port: The server's.
            accepted: The clients whose connections stay, as grpcio names them.
        """
        found = [(number, peer) for number in _files() if (peer := _peer(number, port)) is not None]
        if len(found) <= self._most * 3 // 4:
            return 0
        kept = set(map(place_of_peer, accepted))
        held: dict[str, list[tuple[int, Peer]]] = {}
        for number, peer in found:
            if peer not in kept:
                held.setdefault(self._client_of(peer[0]), []).append((number, peer))
        return sum(_close(*each, port) for each in from_the_most(held, len(found) - self._most // 2))


def _peer(number: int, port: int) -> Peer | None:
    """Returns the client of an open file; None if it is no connection of the server."""
    with _socket(number) as found:
        return None if found is None else _client_of(found, port)


def _close(number: int, peer: Peer, port: int) -> bool:
    """Closes a connection, unless its number has become another's."""
    with _socket(number) as found:
        if found is None or _client_of(found, port) != peer:
            return False
        try:
            found.shutdown(socket.SHUT_RDWR)
        except OSError:
            return False  # it has gone
        return True


def _files() -> Iterator[int]:
    with os.scandir(_OPEN) as files:
        yield from [int(file.name) for file in files]


@contextmanager
def _socket(number: int) -> Iterator[socket.socket | None]:
    """Yields an open file as a socket, by a number of its own that no other thread closes; None if it is none."""
    try:
        own = os.dup(number)
    except OSError:
        yield None
        return
    try:
        found = socket.socket(fileno=own)
    except OSError:
        os.close(own)
        yield None
        return
    with found:
        yield found


def _client_of(found: socket.socket, port: int) -> Peer | None:
    try:
        own, peer = found.getsockname(), found.getpeername()
    except OSError:
        return None  # it listens, or is not connected
    if not isinstance(own, tuple) or not isinstance(peer, tuple) or own[1] != port:
        return None
    return str(peer[0]).removeprefix("::ffff:"), int(peer[1])
