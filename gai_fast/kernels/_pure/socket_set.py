"""`SocketSet` watches the sockets that transports read; `receive` reads one, and `send` writes to one."""

from __future__ import annotations

import errno
import select
from collections.abc import Callable
from io import FileIO
from typing import Any, Protocol


class Loop(Protocol):
    """The part of an event loop that kernels use. Callbacks of `call_soon` run before the loop reads again."""

    def add_reader(self, fd: int, callback: Callable[..., object], /, *args: Any) -> object: ...

    def remove_reader(self, fd: int, /) -> object: ...

    def call_soon(self, callback: Callable[..., object], /, *args: Any) -> object: ...


class Flushable(Protocol):
    """A transport that has bytes to send."""

    def flush(self) -> None: ...


class Socket(Protocol):
    """The part of a socket that kernels use."""

    def fileno(self) -> int:
        """Returns the descriptor."""

    def recv_into(self, buffer: memoryview, /) -> int:
        """Reads into the buffer and returns the number of bytes.

        Raises:
            OSError: No bytes have come, or the connection is broken.
        """


def receive(descriptor: int, most: int) -> bytes | None:
    """Reads a socket that does not block.

    Args:
        descriptor: The descriptor of the open socket.
        most: The most bytes to read.

    Returns:
        The bytes; empty if the peer has closed its side. `None` if no bytes have come.

    Raises:
        OSError: The connection is broken.
    """
    return _file(descriptor, "rb").read(most)


def send(descriptor: int, data: bytes | memoryview) -> int:
    """Writes to a socket that does not block.

    Args:
        descriptor: The descriptor of the open socket.
        data: The bytes.

    Returns:
        The number of bytes sent; 0 if the socket is full.

    Raises:
        OSError: The connection is broken.
    """
    return _file(descriptor, "wb").write(data) or 0


def _file(descriptor: int, mode: str) -> FileIO:
    """Returns the socket as a file, whose methods return None if they would block."""
    if descriptor < 0:
        raise OSError(errno.EBADF, "Bad file descriptor")
    return FileIO(descriptor, mode, closefd=False)


class SocketSet:
    """Calls back whenever sockets can be read. This implementation, the definition, lets the loop watch them.

    It polls the socket again after each call, because uvloop forgets a socket for good if bytes and a reset come in
    one iteration. Without the poll the end of the connection would go unnoticed.

    Args:
        loop: The loop.
    """

    __slots__ = ("_callbacks", "_due", "_loop")

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._callbacks: dict[int, Callable[[], object]] = {}  # by descriptor
        self._due: set[int] = set()  # descriptors to poll in the next iteration

    def add_reader(self, descriptor: int, callback: Callable[[], object]) -> None:
        """Calls back whenever a socket can be read, including its end, and again while bytes are left unread.

        A second callback of a socket replaces the first.

        Args:
            descriptor: The socket's descriptor. Nothing else watches it.
            callback: Is called without arguments. Its exceptions go to the loop.

        Raises:
            OSError: The system cannot watch more sockets.
        """
        self._loop.add_reader(descriptor, self._read, descriptor)
        self._callbacks[descriptor] = callback

    def remove_reader(self, descriptor: int) -> None:
        """Stops watching a socket, which must still be open.

        Args:
            descriptor: The descriptor of a watched socket.
        """
        del self._callbacks[descriptor]
        self._loop.remove_reader(descriptor)

    def defer(self) -> None:
        """Limits the reads of the next iterations, to leave time for more urgent work.

        For `limits.deferred_by`, an iteration calls back for at most `limits.deferred_reads` sockets. Once sockets have
        waited for `limits.deferred_for`, iterations call back for all sockets until none is left. The definition does
        nothing: the loop calls back for all sockets.
        """

    def flush_later(self, transport: Flushable) -> bool:
        """Flushes a transport at the end of the loop's iteration, if the iteration reads several sockets.

        It is flushed earlier if `limits.unflushed_transports` transports wait. Exceptions of `flush` go to the loop.
        The definition does not know how many sockets an iteration reads, and flushes no transport.

        Returns:
            Whether the transport will be flushed.
        """
        return False

    def close(self) -> None:
        """Frees the set's own resources as soon as no socket is watched."""

    def _read(self, descriptor: int) -> None:
        callback = self._callbacks.get(descriptor)
        if callback is None or not _can_be_read(descriptor):  # an earlier poll in this iteration has read all bytes
            return
        try:
            callback()
        finally:
            if descriptor in self._callbacks and descriptor not in self._due and _can_be_read(descriptor):
                self._due.add(descriptor)
                self._loop.call_soon(self._poll_again, descriptor)

    def _poll_again(self, descriptor: int) -> None:
        self._due.discard(descriptor)
        self._read(descriptor)


def _can_be_read(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)  # errors and the end are always reported
    return bool(poll.poll(0))
