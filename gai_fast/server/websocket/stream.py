"""`ClientTransport` over a WebSocket: one stream of many, whose frames become messages.

Owns the way of a stream's bytes to its socket, and the client's acknowledgements. Knows nothing of what a stream says
but the numbers of its events.

1. A stream ends once: its id is free again when its last message has been handed to the socket.
2. If a client acknowledges events (`AckWindow`), messages wait here while the window is full. The stream is then
   paused, so that no more wait than one read of an upstream brings. If the client then acknowledges nothing for
   `write_timeout`, it gets an error that says so, and the stream ends as if its client had disconnected.
3. The client of a stream that broke off without an end gets an error. While the server drains it gets none: it comes
   back for the rest.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from gai_fast.kernels import Borrower, frame_messages, last_seq
from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.net.logs.writer import BodyFraming
from gai_fast.runtime.timers import Timer, Timers
from gai_fast.server.http.replies import Reply, StreamHead
from gai_fast.server.http.request import HTTPRequest
from gai_fast.server.http.transport import CLIENT_CLOSED_REQUEST, ClientTransport, StreamCallbacks
from gai_fast.server.limits import LIMITS
from gai_fast.server.requests.stream_response import StreamResponse
from gai_fast.server.websocket.ack_window import AckWindow
from gai_fast.server.websocket.formats import DONE

# Constants: a name look-up costs 30 ns.
_deque: Final = deque
_frame_messages: Final = frame_messages
_last_seq: Final = last_seq
_FRAME_END: Final = b"\n\n"
_OK: Final = 200
_NO_CONTENT: Final = 204


class WebSocketFrames(BodyFraming):
    """Adds no framing to the body: `SocketStream` sends each piece as a message."""

    in_chunks = True


FRAMES: Final = WebSocketFrames()


class SocketCallbacks(Protocol):
    """The part of a socket's session that its streams call."""

    @property
    def timers(self) -> Timers:
        """The timers of the loop."""

    @property
    def is_paused(self) -> bool:
        """Whether more than the high-water mark is unsent."""

    @property
    def is_draining(self) -> bool:
        """Whether the server is being stopped."""

    @property
    def remote(self) -> str:
        """The address of the client."""

    @property
    def write(self) -> Callable[[bytes], None]:
        """Writes messages."""

    def lend(self, borrower: Borrower) -> int:
        """Lends the socket to its only stream; as `LendingTransport.lend`."""

    def take_back(self) -> None:
        """Ends the loan of the socket."""

    def answer(self, messages: bytes) -> None:
        """Writes messages that a client may provoke without end."""

    def ping(self) -> None:
        """Writes a keep-alive."""

    def ended(self, stream: SocketStream, status: int) -> None:
        """Called when a stream has ended; its id is free."""

    def has_finished(self, stream_id: str) -> bool:
        """Returns whether a stream has ended without a failure."""


class Refusing(Protocol):
    """The part of a request that its stream calls."""

    def refusal(self, error: Error) -> Reply:
        """Returns the message that answers the request with an error."""


class SocketStream(ClientTransport):
    """One stream of a socket.

    Args:
        socket: Its socket.
        name: The client's id of it.
        lead: The beginning of each of its messages.

    Attributes:
        name: The client's id of it.
        lead: The beginning of each of its messages.
        http: The request, as if it had come alone.
        is_cancelled: The client has asked to cancel it.
    """

    def __init__(self, socket: SocketCallbacks, name: str, lead: bytes) -> None:
        self.name = name
        self.http: HTTPRequest
        self.incoming: Refusing
        self.is_cancelled = False
        self._socket = socket
        self._write = socket.write  # found once: every event takes this way
        self.lead = lead
        self._response: StreamCallbacks | None = None
        self._window = AckWindow(0)
        self._write_timeout = 0.0
        self._held: deque[tuple[int, bytes]] = _deque()  # numbers of events, and their messages
        self._timer: Timer | None = None
        self._is_paused = False
        self._is_complete = False  # everything of it has been handed over
        self._is_over = False
        self._has_lent = False  # whether a fast path has asked for the socket

    @property
    def stream_id(self) -> str:
        """The id of the stream that it carries; empty before there is one."""
        response = self._response
        return response.stream_id if isinstance(response, StreamResponse) else ""

    # -- ClientTransport --

    @property
    def is_paused(self) -> bool:
        """Whether the stream should wait."""
        return self._is_paused

    @property
    def remote(self) -> str:
        """The address of the client."""
        return self._socket.remote

    def begin_stream(self, stream: StreamCallbacks, high_water: int, write_timeout: float) -> None:
        """Registers the stream; as `ClientTransport.begin_stream`."""
        self._response = stream
        self._window.size = high_water
        self._write_timeout = write_timeout
        self._is_paused = self._must_pause

    def commit(self, head: StreamHead) -> tuple[bytes, BodyFraming]:
        """Messages have no head."""
        return b"", FRAMES

    def write(self, data: bytes) -> None:
        """Writes whole frames."""
        self.log_frames(data, _last_seq(data))

    def log_frames(self, frames: bytes, last_seq: int) -> None:
        """Writes whole frames; as `FrameLog.log_frames`, so that a fast path may write them."""
        if self._is_over:
            return
        messages = _frame_messages(frames, self.lead)
        if not messages:
            if frames:  # a keep-alive
                self._socket.ping()
        elif self._held or not self._window.may_send(last_seq, len(messages)):
            self._hold(frames)
        else:
            self._write(messages)  # what a borrower has written before is noted by then
            self._window.note_sent(last_seq, len(messages))
            if self._window.is_used:
                self._look_at_window()

    def lend(self, borrower: Borrower) -> int:
        """Works as `LendingTransport.lend`, if this is the socket's only stream and its client acknowledges nothing."""
        window = self._window
        if self._is_over or window.is_used or window.size < LIMITS.ack_steps * SHARED.ack_step:
            return -1
        self._has_lent = True
        return self._socket.lend(borrower)

    def write_messages(self, messages: bytes) -> None:
        """Works as `MessageLog.write_messages`."""
        self._write(messages)

    def note_sent(self, last_seq: int, size: int) -> None:
        """Works as `MessageLog.note_sent`."""
        self._window.note_sent(last_seq, size)

    def answered(self, status: int) -> None:
        """Ends the answer: all of it has been written."""
        self._is_complete = True
        if not self._held:
            self._end(status)

    def send(self, reply: Reply) -> None:
        """Ends the stream with the whole response that an HTTP request would get."""
        if self._is_over:
            return
        is_at_end = reply.status == _NO_CONTENT
        frames = DONE[self._socket.has_finished(self.stream_id)] if is_at_end else reply.body
        self._socket.answer(frame_messages(frames, self.lead))
        self._end(reply.status)

    def abort(self) -> None:
        """Ends a stream that broke off: rule 3."""
        if not self._is_over and not self._socket.is_draining:
            error = Error("internal", "the answer broke off", reason="cut")
            self._socket.answer(frame_messages(self.incoming.refusal(error).body, self.lead))
        self._end(CLIENT_CLOSED_REQUEST)

    # -- the socket --

    def lose(self) -> None:
        """Ends the stream: the client has disconnected."""
        self._leave(CLIENT_CLOSED_REQUEST)

    def refuse(self, reply: Reply) -> None:
        """Ends the stream with an error, in any state."""
        if not self._is_over:
            self._socket.answer(frame_messages(reply.body, self.lead))
            self._leave(reply.status)

    def acknowledge(self, seq: int) -> None:
        """Notes that the client has all events up to this one."""
        self._socket.take_back()  # from now on each event is written within the window
        if self._window.acknowledge(seq):
            self._stop_waiting()
        self._send_held()

    def update_pause(self) -> None:
        """Pauses or resumes the stream if that has changed."""
        response, is_paused = self._response, self._must_pause
        if is_paused is self._is_paused or response is None:
            return
        self._is_paused = is_paused
        if is_paused:
            response.pause_writing()
        else:
            response.resume_writing()

    # -- inside --

    @property
    def _must_pause(self) -> bool:
        return self._socket.is_paused or self._is_blocked

    @property
    def _is_blocked(self) -> bool:
        """Whether the client must acknowledge events first."""
        return bool(self._held) or self._window.is_full

    def _hold(self, frames: bytes) -> None:
        """Splits frames into single messages, which wait for room in the window."""
        for frame in frames.split(_FRAME_END):
            message = frame_messages(frame, self.lead)
            if message:
                self._held.append((last_seq(frame), message))
        self._send_held()

    def _send_held(self) -> None:
        held, window = self._held, self._window
        while held:
            seq, message = held[0]
            if not window.is_empty and not window.may_send(seq, len(message)):
                break
            held.popleft()
            window.note_sent(seq, len(message))
            self._write(message)
        if not held and self._is_complete:
            self._end(_OK)
        else:
            self._look_at_window()

    def _look_at_window(self) -> None:
        """Pauses the stream and waits for an acknowledgement while the window is full: rule 2."""
        if self._is_blocked and self._timer is None:
            timers = self._socket.timers
            self._timer = timers.schedule(timers.clock() + self._write_timeout, self._give_up)
        self.update_pause()

    def _give_up(self) -> None:
        """Ends the stream, whose client has acknowledged nothing in time: rule 2."""
        self._timer = None
        error = Error("timeout", "the events were not acknowledged in time", reason="ack", status=408)
        self.refuse(self.incoming.refusal(error))

    def _leave(self, status: int) -> None:
        """Ends the stream as if its client had left."""
        response, self._response = self._response, None
        try:
            if response is not None and not self._is_over and not self._is_complete:
                response.connection_lost()
        finally:
            self._end(status)

    def _end(self, status: int) -> None:
        if self._is_over:
            return
        self._is_over = True
        if self._has_lent:  # else the calls, which are interpreted, cost 2,300 instructions
            self._socket.take_back()
        self._stop_waiting()
        self._held.clear()
        self._response = None
        self._socket.ended(self, status)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Canceller(ClientTransport):
    """The transport of a request to cancel a stream: its answer matters only if the stream cannot be found.

    Args:
        stream: The socket's stream to cancel.
    """

    def __init__(self, stream: SocketStream) -> None:
        self._stream = stream

    @property
    def is_paused(self) -> bool:
        """Whether the answer should wait: never."""
        return False

    @property
    def remote(self) -> str:
        """The address of the client."""
        return self._stream.remote

    def begin_stream(self, stream: StreamCallbacks, high_water: int, write_timeout: float) -> None:
        """Does nothing: there is no answer yet."""

    def commit(self, head: StreamHead) -> tuple[bytes, BodyFraming]:
        """Never called: a cancel request is answered with a whole reply."""
        return b"", FRAMES

    def write(self, data: bytes) -> None:
        """Never called, as `commit`."""

    def lend(self, borrower: Borrower) -> int:
        """Lends nothing: there is no socket."""
        return -1

    def answered(self, status: int) -> None:
        """Never called, as `commit`."""

    def abort(self) -> None:
        """Does nothing: nothing was sent."""

    def send(self, reply: Reply) -> None:
        """Ends the stream if the reply is an error; else the stream itself has its end."""
        if reply.status >= _ERROR:
            self._stream.refuse(reply)


_ERROR: Final = 400
