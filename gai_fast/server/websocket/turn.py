"""`ClientTransport` of one turn of a WebSocket of responses: its events become messages.

Owns how a turn ends for its client. `stream.py` has the rest: a turn is a stream without acknowledgements.

1. A turn has one terminal message: the last event of its response, or an `error`, if there is no response.
2. A turn that continues the socket's newest response and fails takes it out (`requests/newest.py`).
3. The socket is lent to a fast path only for the gateway's own frames. An upstream's may have any form.
"""

from __future__ import annotations

from typing import Final, Protocol

from gai_fast.core.requests.stored_ids import own_response_id
from gai_fast.kernels import Borrower
from gai_fast.model.errors import Error
from gai_fast.net.logs.writer import BodyFraming
from gai_fast.server.http.replies import Reply, StreamHead
from gai_fast.server.http.transport import CLIENT_CLOSED_REQUEST
from gai_fast.server.requests.newest import Newest
from gai_fast.server.websocket.stream import SocketCallbacks, SocketStream
from gai_fast.server.websocket.turn_events import TurnEvents, error_message

_LEAD: Final = b"{"


class TurnCallbacks(SocketCallbacks, Protocol):
    """The part of a socket's session that its turns call."""

    def begun(self, turn: SocketTurn) -> None:
        """Called when the answer of a turn begins."""


class SocketTurn(SocketStream):
    """The transport of one turn.

    Args:
        socket: The socket that carries the turn.
        name: The name of the turn among those of the socket.
        newest: The socket's newest response.
        continues: The id of the response that the turn continues; empty if there is none.
    """

    __slots__ = ("_continues", "_events", "_is_ours", "_newest", "_turns")

    def __init__(self, socket: TurnCallbacks, name: str, newest: Newest, continues: str) -> None:
        super().__init__(socket, name, _LEAD)
        self._turns = socket
        self._newest = newest
        self._continues = continues
        self._events = TurnEvents()
        self._is_ours = False  # whether the gateway writes the frames, and not an upstream

    def is_of(self, identifier: str) -> bool:
        """Returns whether an id is that of the turn's response.

        Args:
            identifier: The id; empty for any.
        """
        if not identifier or identifier == self._events.identifier:
            return True
        stream_id = self.stream_id
        return bool(stream_id) and identifier == own_response_id(stream_id)

    # -- ClientTransport --

    def commit(self, head: StreamHead) -> tuple[bytes, BodyFraming]:
        """Works as `ClientTransport.commit`."""
        self._turns.begun(self)
        return super().commit(head)

    def write(self, data: bytes) -> None:
        """Writes whole frames."""
        if self._is_over:
            return
        events = self._events
        if not events.identifier:
            own = own_response_id(self.stream_id)
            events.find_identifier(data, own)
            self._is_ours = events.identifier == own
        messages = events.take(data)
        if messages:
            self._write(messages)
        elif data:  # a keep-alive, or an `error` that something follows
            self._socket.ping()

    def log_frames(self, frames: bytes, last_seq: int) -> None:
        """Writes the frames of deltas that a fast path has copied."""
        if not self._is_over:
            self._write(self._events.take_copied(frames))

    def lend(self, borrower: Borrower) -> int:
        """Works as `SocketStream.lend`: rule 3."""
        return super().lend(borrower) if self._is_ours else -1

    def note_sent(self, last_seq: int, size: int) -> None:
        """Does nothing: nothing is acknowledged."""

    def answered(self, status: int) -> None:
        """Ends the answer: all of it has been written."""
        rest = self._events.rest()
        if rest:
            self._socket.answer(rest)
        if rest or self._events.has_failed:
            self._fail()
        super().answered(status)

    def send(self, reply: Reply) -> None:
        """Ends the turn with the response that a POST would get, which is an error."""
        if self._is_over:
            return
        refused = self.http.refused
        self._fail()
        self._socket.answer(error_message(reply.body, reply.status, "internal" if refused is None else refused.code))
        self._end(reply.status)

    def abort(self) -> None:
        """Ends a turn that broke off. While the server drains its client gets nothing: it asks again elsewhere."""
        if not self._is_over and not self._socket.is_draining:
            self._fail()
            refusal = self.incoming.refusal(Error("internal", "the answer broke off", reason="cut"))
            self._socket.answer(error_message(refusal.body, refusal.status, "internal"))
        self._end(CLIENT_CLOSED_REQUEST)

    def _fail(self) -> None:
        """Takes the response that the turn continues out of the socket: rule 2."""
        if self._newest.is_(self._continues):
            self._newest.drop()
