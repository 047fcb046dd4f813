"""The two channels between the supervisor and a worker: messages, and accepted connections.

Owns the form of both channels, and the supervisor's end of the messages. Decides nothing.

* Messages are sent in both directions on a stream socket: four bytes of length, then a list in MessagePack, whose first
  item is the kind of the message.
* Connections are sent from the supervisor to the worker on a second socket: one byte each, with the descriptor as
  ancillary data. A byte without a descriptor is the last: no connection follows.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from gai_fast.net.sockets.stream_socket import StreamSocket
from gai_fast.server.limits import LIMITS

_LENGTH: Final = 4
_READ: Final = 65536
_CONNECTION: Final = b"c"
_LAST: Final = b"l"


class LinkError(Exception):
    """The other side has sent an invalid message."""


class LinkGone(Exception):
    """The other side is gone."""


def pack(kind: str, *items: Any) -> bytes:
    """Encodes a message.

    Args:
        kind: The kind of the message.
        items: Values of MessagePack types.
    """
    body = msgspec.msgpack.encode((kind, *items))
    return len(body).to_bytes(_LENGTH, "big") + body


class LinkMessages:
    """Decodes the messages of a link."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[list[Any]]:
        """Receives bytes.

        Args:
            data: The next bytes.

        Yields:
            Each complete message.

        Raises:
            LinkError: A message is too long or invalid.
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
        sock: A non-blocking socket, which the link closes.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._messages = LinkMessages()
        self._unsent = bytearray()

    def fileno(self) -> int:
        """Returns the descriptor, for a selector."""
        return self._sock.fileno()

    @property
    def is_full(self) -> bool:
        """Whether bytes wait to be sent."""
        return bool(self._unsent)

    @property
    def is_stuck(self) -> bool:
        """Whether so many bytes wait that the worker must have stopped reading."""
        return len(self._unsent) > LIMITS.link_unsent

    def send(self, kind: str, *items: Any) -> None:
        """Sends a message, now or with `flush`. Does nothing if the worker is gone. Arguments as for `pack`."""
        self._unsent += pack(kind, *items)
        self.flush()

    def flush(self) -> None:
        """Sends waiting bytes, as far as the socket has room."""
        try:
            del self._unsent[: self._sock.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:  # the worker is gone
            self._unsent.clear()

    def discard(self) -> None:
        """Drops waiting bytes: the worker will not read them."""
        self._unsent.clear()

    def receive(self) -> Iterator[list[Any]]:
        """Reads the received bytes.

        Yields:
            Each complete message.

        Raises:
            LinkGone: The worker is gone.
            LinkError: The worker has sent an invalid message.
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
    """Sends a connection to a worker. The sender's own descriptor stays open.

    Args:
        channel: The supervisor's end of the channel, non-blocking.
        connection: The accepted socket.

    Returns:
        Whether the channel had room.
    """
    try:
        socket.send_fds(channel, [_CONNECTION], [connection.fileno()])
    except OSError:  # the channel is full, or the worker is gone
        return False
    return True


def send_last(channel: socket.socket) -> bool:
    """Sends the byte after which no connection follows; returns whether the channel had room."""
    try:
        channel.send(_LAST)
    except OSError:  # as above
        return False
    return True


def receive_connections(channel: socket.socket) -> Iterator[socket.socket | None]:
    """Receives the sent connections.

    Args:
        channel: The worker's end of the channel, non-blocking.

    Yields:
        Each connection. None if no connection follows, or the supervisor is gone.
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
