"""`ClientTransport`: the interface between a response and the connection that carries it.

A handler answers one request through it. It has two implementations: the fast lane's connection and aiohttp's
transport. `tests/unit/server/http/test_transport.py` is the contract of both.

1. A response is either `send` alone, or `begin_stream`, `commit`, any number of `write`, and `answered`. A stream that
   has not called `commit` may still end with `send`.
2. Every response ends exactly once: with `send`, with `answered`, with `abort`, or with the connection. Later calls do
   nothing.
3. No method awaits, and none raises if the client has disconnected.
4. From `begin_stream` until the end of the response the transport calls the stream's `StreamCallbacks` without delay:
   `pause_writing` and `resume_writing` alternately, `connection_lost` at most once and last.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from mypy_extensions import mypyc_attr

from gai_fast.kernels import Borrower
from gai_fast.net.logs.writer import BodyFraming
from gai_fast.net.sockets.sockets import descriptor_of
from gai_fast.server.http.replies import Reply, StreamHead

CLIENT_CLOSED_REQUEST: Final = 499
"""The status logged for a client that disconnected before its response was complete, as in nginx's log."""


class StreamCallbacks(Protocol):
    """The events of a client's connection for the stream on it."""

    def connection_lost(self) -> None:
        """Called when the client has disconnected."""

    def pause_writing(self) -> None:
        """Called when more than the high-water mark is unsent."""

    def resume_writing(self) -> None:
        """Called when the client has caught up."""


@mypyc_attr(allow_interpreted_subclasses=True)
class ClientTransport:
    """The client's side of one request.

    A class, not a protocol, like `Timers`. It is a `LendingTransport` too.
    """

    @property
    def is_paused(self) -> bool:
        """Whether more than the high-water mark is unsent."""
        raise NotImplementedError

    @property
    def remote(self) -> str:
        """The address of the client, for the log; empty if the connection has none."""
        raise NotImplementedError

    def begin_stream(self, stream: StreamCallbacks, high_water: int, write_timeout: float) -> None:
        """Registers the stream that answers the request.

        Until `commit`, that stream may call it again with other limits.

        Args:
            stream: Gets the events of the connection until the end of the response.
            high_water: Unsent bytes above which the stream is paused.
            write_timeout: Seconds after which a client that reads no byte is disconnected.
        """
        raise NotImplementedError

    def commit(self, head: StreamHead) -> tuple[bytes, BodyFraming]:
        """Makes status and headers final.

        Returns:
            The bytes to write before the body, empty if the transport sends the headers itself; and the framing of the
            body.
        """
        raise NotImplementedError

    def write(self, data: bytes) -> None:
        """Ends a loan, then writes bytes of the body, framed."""
        raise NotImplementedError

    def lend(self, borrower: Borrower) -> int:
        """Works as `LendingTransport.lend`."""
        raise NotImplementedError

    def answered(self, status: int) -> None:
        """Ends the response: the whole body, including its end, has been written.

        Args:
            status: The HTTP status that was sent, for the log.
        """
        raise NotImplementedError

    def abort(self) -> None:
        """Closes the connection at once: the response is incomplete and must not look complete."""
        raise NotImplementedError

    def send(self, reply: Reply) -> None:
        """Answers the request with a whole response."""
        raise NotImplementedError


class SocketLender:
    """Lends a client's socket to a stream for direct writes, on behalf of a `ClientTransport`.

    Attributes:
        borrower: The writer that has the socket in place of the transport; None if the socket is not lent.
    """

    def __init__(self) -> None:
        self.borrower: Borrower | None = None

    def lend(self, transport: asyncio.Transport, borrower: Borrower) -> int:
        """Works as `LendingTransport.lend`, for the socket of `transport`."""
        self.end()
        descriptor = descriptor_of(transport)  # first, because it flushes the writes of this loop iteration
        if transport.get_write_buffer_size() or transport.is_closing():
            return -1
        if descriptor >= 0:
            self.borrower = borrower
        return descriptor

    def end(self) -> None:
        """Ends the loan; must be called before the transport writes, and before it closes the socket."""
        borrower, self.borrower = self.borrower, None
        if borrower is not None:
            borrower.end_writing()
