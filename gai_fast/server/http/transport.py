"""`ClientTransport`: the interface between an answer and the connection that carries it.

A handler answers one request through it. Two implementations: the fast lane's connection, and aiohttp's transport.
`tests/unit/server/http/test_transport.py` is the contract of both.

1. An answer is either `send` alone; or `begin_stream`, `commit`, any number of `write`, `answered`. A stream that has
   not called `commit` may still end with `send`.
2. Every answer ends once: with `send`, with `answered`, with `abort`, or with the connection. Later calls do nothing.
3. No method awaits, and none raises for a client that is gone.
4. From `begin_stream` until the end of the answer the transport calls the stream's `StreamCallbacks`, each at once:
   `pause_writing` and `resume_writing` alternately, `connection_lost` at most once and last.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from gai_fast.kernels import Borrower, LendingTransport
from gai_fast.net.logs.writer import BodyFraming
from gai_fast.net.upstream.sockets import descriptor_of
from gai_fast.server.http.replies import Reply, StreamHead

LEFT: Final = 499
"""The status logged for a client that disconnected before its response was complete, as in nginx's log."""


class StreamCallbacks(Protocol):
    """The events of a client's connection that the stream on it must know."""

    def connection_lost(self) -> None:
        """The client is gone."""

    def pause_writing(self) -> None:
        """More than the high-water mark is unsent."""

    def resume_writing(self) -> None:
        """The client has caught up."""


class ClientTransport(LendingTransport, Protocol):
    """The client's side of one request."""

    @property
    def is_paused(self) -> bool:
        """Whether more than the high-water mark is unsent."""

    @property
    def remote(self) -> str:
        """The address of the client, for the log; empty where the connection has none."""

    def begin_stream(self, stream: StreamCallbacks, high_water: int, write_timeout: float) -> None:
        """Registers the stream that answers the request.

        Until `commit` the same one may call it again, with other limits.

        Args:
            stream: Called back until the end of the answer.
            high_water: Unsent bytes above which it is paused.
            write_timeout: Seconds without a byte taken after which the client is given up.
        """

    def commit(self, head: StreamHead) -> tuple[bytes, BodyFraming]:
        """Makes status and headers final.

        Returns:
            The bytes to write before the first of the body, empty where the transport sends the head by itself; and the
            framing of the body.
        """

    def answered(self, status: int) -> None:
        """Ends the answer: all of the body, its end included, has been written.

        Args:
            status: The HTTP status that was sent, for the log.
        """

    def abort(self) -> None:
        """Closes the connection at once: the answer broke off, and must not look complete."""

    def send(self, reply: Reply) -> None:
        """Answers the request with a whole response."""


class SocketLender:
    """Lends a client's socket to a stream that writes to it, for a `ClientTransport`.

    Attributes:
        borrower: What writes to the socket in place of the transport, or `None`.
    """

    __slots__ = ("borrower",)

    def __init__(self) -> None:
        self.borrower: Borrower | None = None

    def lend(self, transport: asyncio.Transport, borrower: Borrower) -> int:
        """As `LendingTransport.lend`, for the socket of `transport`."""
        self.end()
        descriptor = descriptor_of(transport)  # first: it flushes what this turn has written
        if transport.get_write_buffer_size() or transport.is_closing():
            return -1
        if descriptor >= 0:
            self.borrower = borrower
        return descriptor

    def end(self) -> None:
        """Takes the socket back; must be called before the transport writes, and before it closes the socket."""
        borrower, self.borrower = self.borrower, None
        if borrower is not None:
            borrower.end_writing()
