"""The sockets that transports read, and reading them."""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Protocol


class Loop(Protocol):
    """The part of an event loop that watches sockets."""

    def add_reader(self, descriptor: int, callback: Callable[[int], object], argument: int, /) -> object: ...

    def remove_reader(self, descriptor: int, /) -> object: ...

    def call_soon(self, callback: Callable[[int], object], argument: int, /) -> object: ...


class Flushable(Protocol):
    """A transport that has bytes to send."""

    def flush(self) -> None: ...


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

    It looks once more behind each call: uvloop forgets a socket for good if bytes and a reset come in one turn, and its
    end would be seen by nobody.

    Args:
        loop: The loop.
        coalesces: It coalesces reads under load: while `limits.coalesced_sockets` different sockets are read, at
            `limits.coalesced_reads` a second or more, it calls back once per `limits.coalescing_interval`. Sockets that
            are left to the next turn, or have more bytes than a read takes, are not kept waiting. The definition calls
            back at once.
    """

    __slots__ = ("_callbacks", "_due", "_loop")

    def __init__(self, loop: Loop, *, coalesces: bool = False) -> None:
        self._loop = loop
        self._callbacks: dict[int, Callable[[], object]] = {}  # by descriptor
        self._due: set[int] = set()  # that are looked at in the next turn

    def add_reader(self, descriptor: int, callback: Callable[[], object]) -> None:
        """Calls back whenever a socket can be read, its end included; what is left of it is reported again.

        Args:
            descriptor: The socket's; watched by nobody else.
            callback: Is called without arguments; returns whether more bytes may be there than it has read. What it
                raises goes to the loop.

        Raises:
            OSError: The system watches no more.
        """
        self._loop.add_reader(descriptor, self._read, descriptor)
        self._callbacks[descriptor] = callback

    def remove_reader(self, descriptor: int) -> None:
        """Does not call back any more. The socket must still be open.

        Args:
            descriptor: A watched socket's.
        """
        del self._callbacks[descriptor]
        self._loop.remove_reader(descriptor)

    def defer(self) -> None:
        """Leaves time for more urgent work.

        For `limits.deferred_by`, a turn calls back for `limits.deferred_reads` sockets. Once some have waited for
        `limits.deferred_for`, turns call back for all until none is left. This one, the definition, leaves that to the
        loop, which calls back for all.
        """

    def flush_later(self, transport: Flushable) -> bool:
        """Flushes a transport at the end of the loop's turn, if the turn reads several sockets.

        It is flushed earlier where `limits.unflushed_transports` wait. What `flush` raises goes to the loop. The
        definition, this one, does not know how many sockets a turn reads, and flushes none.

        Returns:
            Whether the transport will be flushed.
        """
        return False

    @property
    def is_coalescing(self) -> bool:
        """Whether it coalesces reads at present."""
        return False

    def close(self) -> None:
        """Gives up what the set itself has, as soon as no socket is watched."""

    def _read(self, descriptor: int) -> None:
        callback = self._callbacks.get(descriptor)
        if callback is None or not _can_be_read(descriptor):  # a look in the same turn has left nothing
            return
        try:
            callback()
        finally:
            if descriptor in self._callbacks and descriptor not in self._due and _can_be_read(descriptor):
                self._due.add(descriptor)
                self._loop.call_soon(self._look, descriptor)

    def _look(self, descriptor: int) -> None:
        self._due.discard(descriptor)
        self._read(descriptor)


def _can_be_read(descriptor: int) -> bool:
    look = select.poll()
    look.register(descriptor, select.POLLIN)  # errors and the end are reported in any case
    return bool(look.poll(0))
