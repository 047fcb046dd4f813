"""The two channels between the supervisor and a worker: messages, and connections that are handed over.

Owns their form, and the supervisor's end of the messages. Decides nothing.

* Messages go both ways on a stream socket: four bytes of length, then a list in MessagePack, whose first item names the
  kind of the message.
* Connections go from the supervisor to the worker on a second one: a byte each, with the descriptor beside it. A byte
  without a descriptor is the last: no connection follows.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from gai_fast.net.upstream.stream_socket import StreamSocket
from gai_fast.server.limits import LIMITS

_LENGTH: Final = 4
_READ: Final = 65536
_CONNECTION: Final = b"c"
_LAST: Final = b"l"


class LinkError(Exception):
    """The other side breaks the form of the messages."""


class LinkGone(Exception):
    """The other side is gone."""


def pack(kind: str, *items: Any) -> bytes:
    """One message.

    Args:
        kind: Its kind.
        items: What MessagePack can hold.
    """
    body = msgspec.msgpack.encode((kind, *items))
    return len(body).to_bytes(_LENGTH, "big") + body


class Messages:
    """Finds the messages in the bytes of a link."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[list[Any]]:
        """Takes bytes.

        Args:
            data: The next ones.

        Yields:
            Each message that is whole.

        Raises:
            LinkError: A message is too long, or is none.
        """
        self._data += data
        while len(self._data) >= _LENGTH:
            size = int.from_bytes(self._data[:_LENGTH], "big")
            if size > LIMITS.link_message:
                raise LinkError(f"a message of {size} bytes")
            end = _LENGTH + size
            if len(self._data) < end:
                return
            body = bytes(self._data[_LENGTH:end])
            del self._data[:end]
            try:
                yield msgspec.msgpack.decode(body, type=list[Any])
            except msgspec.DecodeError as problem:
                raise LinkError(f"no message: {problem}") from None


class Link:
    """The supervisor's end of the messages of one worker.

    Args:
        sock: A socket that does not block; the link's from now on.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._messages = Messages()
        self._unsent = bytearray()

    def fileno(self) -> int:
        """The descriptor, for a selector."""
        return self._sock.fileno()

    @property
    def is_full(self) -> bool:
        """Whether bytes wait until the worker has read others."""
        return bool(self._unsent)

    @property
    def is_stuck(self) -> bool:
        """Whether so much waits that the worker must have stopped reading."""
        return len(self._unsent) > LIMITS.link_unsent

    def send(self, kind: str, *items: Any) -> None:
        """Sends a message, now or with `flush`; nothing where the worker is gone. Arguments as for `pack`."""
        self._unsent += pack(kind, *items)
        self.flush()

    def flush(self) -> None:
        """Sends what waits, as far as there is room."""
        try:
            del self._unsent[: self._sock.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:  # the worker is gone
            self._unsent.clear()

    def discard(self) -> None:
        """Drops what waits: nobody will read it."""
        self._unsent.clear()

    def receive(self) -> Iterator[list[Any]]:
        """Reads what has come.

        Yields:
            Each message.

        Raises:
            LinkGone: The worker is gone.
            LinkError: It sends no messages.
        """
        while True:
            try:
                data = self._sock.recv(_READ)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                raise LinkGone
            yield from self._messages.feed(data)

    def close(self) -> None:
        """Closes the socket."""
        self._sock.close()


def send_connection(channel: socket.socket, connection: socket.socket) -> bool:
    """Hands a connection over; the sender's own descriptor stays open.

    Args:
        channel: The worker's socket; it does not block.
        connection: The accepted socket.

    Returns:
        Whether the channel had room.
    """
    try:
        socket.send_fds(channel, [_CONNECTION], [connection.fileno()])
    except OSError:  # it is full, or its worker is gone
        return False
    return True


def send_last(channel: socket.socket) -> bool:
    """Says that no connection follows; returns whether the channel had room."""
    try:
        channel.send(_LAST)
    except OSError:  # as above
        return False
    return True


def receive_connections(channel: socket.socket) -> Iterator[socket.socket | None]:
    """Takes what has been handed over.

    Args:
        channel: The worker's end; it does not block.

    Yields:
        Each connection; `None`: no connection follows, or the supervisor is gone.
    """
    while True:
        try:
            data, descriptors, _, _ = socket.recv_fds(channel, 1, 1)
        except BlockingIOError:
            return
        except OSError:
            data, descriptors = b"", []
        for descriptor in descriptors:
            yield StreamSocket(fileno=descriptor)
        if data != _CONNECTION:
            yield None
            return
