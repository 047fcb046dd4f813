"""The sockets that transports read, and reading them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Loop(Protocol):
    """The part of an event loop that watches sockets."""

    def add_reader(self, descriptor: int, callback: Callable[[], object], /) -> object: ...

    def remove_reader(self, descriptor: int, /) -> object: ...


class Socket(Protocol):
    """The part of a socket that reads."""

    def fileno(self) -> int: ...

    def recv(self, most: int, /) -> bytes: ...


def receive(sock: Socket, most: int) -> bytes | None:
    """Reads a socket that does not block.

    Args:
        sock: The socket.
        most: Bytes that are read at most.

    Returns:
        The bytes, none at the end of the peer's side; `None`: none are there yet.

    Raises:
        OSError: The connection is broken.
    """
    try:
        return sock.recv(most)
    except (BlockingIOError, InterruptedError):
        return None


class SocketSet:
    """Calls back whenever sockets can be read. This one, the definition, leaves that to the loop.

    Args:
        loop: The loop.
    """

    __slots__ = ("_loop",)

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def add_reader(self, descriptor: int, callback: Callable[[], object]) -> None:
        """Calls back whenever a socket can be read, its end included; what is left of it is reported again.

        Args:
            descriptor: The socket's; watched by nobody else.
            callback: Is called without arguments. What it raises goes to the loop.

        Raises:
            OSError: The system watches no more.
        """
        self._loop.add_reader(descriptor, callback)

    def remove_reader(self, descriptor: int) -> None:
        """Does not call back any more. The socket must still be open.

        Args:
            descriptor: A watched socket's.
        """
        self._loop.remove_reader(descriptor)

    def close(self) -> None:
        """Gives up what the set itself has, as soon as no socket is watched."""
