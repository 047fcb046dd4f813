"""A WebSocket over aiohttp: aiohttp does the handshake, reads and closes; messages go straight to the transport.

Every use of aiohttp's private parts stands here, in `server/lanes/aiohttp_transport.py` and in
`server/lanes/handler.py`. `tests/unit/server/websocket/test_connection.py` fails if a release changes one of them.

1. For the length of the socket this object is the transport's protocol, in front of aiohttp's. It hears at once of a
   slow or a lost client, and every byte of the client passes `FrameGuard` first, also those that came before the answer
   to the handshake.
2. aiohttp never sees the key of a caller that is offered as a subprotocol, since it would log it, nor any offer if no
   subprotocol is chosen, which it would log too, nor an extension, since none is agreed on.
3. A read that is one whole message, as most are, goes to the owner at once if `receive` waits for it: aiohttp's queue
   and the task behind it cost a request 30,000 instructions. Every other read is aiohttp's.
4. A client that reads nothing for `write_timeout`, or is silent for two `limits.socket_check` although it was sent a
   ping, is disconnected. A partial message without progress between two checks is a violation.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, cast

from aiohttp import WSCloseCode, WSMsgType, web
from multidict import CIMultiDict

from gai_fast.kernels import Borrower
from gai_fast.model.errors import Error
from gai_fast.runtime.timers import Timer, Timers
from gai_fast.server.admission.callers import KEY_PROTOCOL
from gai_fast.server.admission.server_limits import ServerLimits
from gai_fast.server.http.replies import Headers
from gai_fast.server.http.write_watch import WriteWatch
from gai_fast.server.lanes.aiohttp_transport import leave_out_server
from gai_fast.server.limits import LIMITS
from gai_fast.server.websocket.frame_guard import (
    POLICY_VIOLATION,
    PROTOCOL_ERROR,
    TOO_BIG,
    TRY_AGAIN_LATER,
    FrameGuard,
    Violation,
    too_big,
)
from gai_fast.server.websocket.messages import INVALID_PAYLOAD
from gai_fast.server.websocket.writer import FrameWriter

SUBPROTOCOL = "gai.events.v1"
UNSUPPORTED_DATA = 1003
_PING = b"\x89\x00"
_PONG = 0x8A
_CLOSE = 0x88


class SocketOwner(Protocol):
    """The part of a socket's session that its connection calls."""

    def connection_lost(self) -> None:
        """Called when the client has disconnected."""

    def pause_writing(self) -> None:
        """Called when more than the high-water mark is unsent."""

    def resume_writing(self) -> None:
        """Called when the client has caught up."""

    def violated(self, violation: Violation) -> None:
        """Called when the client violated a rule; nothing more is read from it."""

    def message_received(self, message: bytes) -> None:
        """Handles a message that arrived while `receive` waited for one; `receive` continues to wait."""

    def answer(self, messages: bytes) -> None:
        """Writes frames that the client may provoke without end."""


_REASONS: Final = {
    PROTOCOL_ERROR: b"the frames break RFC 6455",
    INVALID_PAYLOAD: b"the text of a message is not UTF-8",
}
"""The reasons of the closes for which aiohttp gives none, by code."""


class _Response(web.WebSocketResponse):
    def __init__(self, writer: FrameWriter | None, most: int, **options: Any) -> None:
        super().__init__(max_msg_size=most + 1, **options)  # aiohttp refuses a message of just this size
        self._frames = writer
        self._most = most

    async def _prepare_headers(self) -> None:
        await super()._prepare_headers()
        leave_out_server(self.headers)

    async def close(self, *, code: int = WSCloseCode.OK, message: bytes = b"", drain: bool = True) -> bool:
        if code == TOO_BIG:
            message = message or too_big(self._most).reason.encode()
        message = message or _REASONS.get(code, b"")
        if self._frames is not None:
            self._frames.close()
        return await super().close(code=code, message=message, drain=drain)


class AiohttpSocket(asyncio.Protocol):
    """One WebSocket.

    Args:
        request: The handshake, which has been checked.
        owner: Called back until `leave`.
        timers: The timers of the loop.
        server_limits: Counts what has come of a message that is not whole.
        uploader: The caller that it is counted for.
        high_water: Unsent bytes above which the owner is paused.
        write_timeout: Seconds without a byte taken after which the client is given up.
        most: The most bytes of a message.
        protocols: The subprotocols of which one is chosen, if the client offers it.

    Attributes:
        response: aiohttp's response.
        is_paused: More than the high-water mark is unsent.
    """

    __slots__ = (
        "_behind",
        "_early",
        "_guard",
        "_has_answered",
        "_has_failed",
        "_has_pinged",
        "_has_received",
        "_high_water",
        "_is_waiting",
        "_loop",
        "_message",
        "_most",
        "_owner",
        "_pinged_at",
        "_protocols",
        "_request",
        "_server_limits",
        "_timer",
        "_timers",
        "_transport",
        "_uploaded",
        "_uploader",
        "_watch",
        "_writer",
        "is_paused",
        "response",
    )

    def __init__(
        self,
        request: web.BaseRequest,
        owner: SocketOwner,
        timers: Timers,
        server_limits: ServerLimits,
        uploader: str,
        *,
        high_water: int,
        write_timeout: float,
        most: int = LIMITS.socket_message,
        protocols: Sequence[str] = (SUBPROTOCOL,),
    ) -> None:
        self._request = request
        self._owner = owner
        self._timers = timers
        self._server_limits = server_limits
        self._uploaded = 0  # the counted bytes of the message that is not whole
        self._uploader = uploader
        self._loop = asyncio.get_running_loop()
        self._high_water = high_water
        self._transport = request.transport
        self._behind: asyncio.Protocol | None = None
        self._early: bytearray | None = bytearray()
        self._most = most
        self._protocols = protocols
        self._guard = FrameGuard(most)
        self._has_failed = False
        self._has_answered = asyncio.Event()
        self._has_received = False
        self._is_waiting = False  # in `receive`, and aiohttp has nothing for it
        self._has_pinged = False
        self._pinged_at = -LIMITS.socket_ping
        self._message = 0  # the number of the message that was under way at the last look
        self._timer: Timer | None = None
        self._watch: WriteWatch | None = None
        self._writer: FrameWriter | None = None
        if self._transport is not None:
            self._watch = WriteWatch(self._transport, timers, write_timeout)
            self._writer = FrameWriter(self._transport, self._watch)
        self.is_paused = False
        self.response = _Response(
            self._writer,
            most,
            timeout=LIMITS.socket_close,
            autoping=False,
            protocols=protocols,
            compress=False,
            decode_text=False,
        )

    async def open(self, headers: Headers) -> bool:
        """Answers the handshake; returns whether the client is still there.

        Args:
            headers: More headers of the response.
        """
        transport, watch = self._transport, self._watch
        if transport is None or watch is None or getattr(self._request.protocol, "has_ended_input", False):
            return False
        self._behind = cast("asyncio.Protocol", transport.get_protocol())
        transport.set_protocol(self)
        protocol = self._request.protocol
        early, protocol._message_tail = protocol._message_tail, b""
        self.response.headers.update(CIMultiDict(headers))
        await self.response.prepare(_for_aiohttp(self._request, self._protocols))
        if transport.is_closing():
            return False
        transport.set_write_buffer_limits(high=self._high_water)
        watch.start()
        self._look_later()
        early += bytes(self._early or b"")
        self._early = None
        transport.resume_reading()
        self.data_received(early)
        return True

    async def receive(self) -> bytes | Violation | None:
        """Returns the client's next message, undecoded; a violation if it is not text. None if the socket has ended."""
        while True:
            self._is_waiting = True
            try:
                message = await self.response.receive()
            finally:
                self._is_waiting = False
            if message.type is WSMsgType.TEXT:
                return cast("bytes", message.data)
            if message.type is WSMsgType.PING:
                payload = bytes(message.data)
                self._owner.answer(bytes((_PONG, len(payload))) + payload)
            elif message.type is WSMsgType.BINARY:
                return Violation(UNSUPPORTED_DATA, "messages are text")
            elif message.type is not WSMsgType.PONG:
                if message.type is WSMsgType.CLOSING:  # of `close`, which aiohttp would now end without waiting
                    self.response._closing = False
                return None

    @property
    def write(self) -> Callable[[bytes], None]:
        """Writes whole frames; nothing once the socket is being closed."""
        return _drop if self._writer is None else self._writer.write

    def lend(self, borrower: Borrower) -> int:
        """Works as `LendingTransport.lend`, for a stream that writes messages alone: until anything else is written."""
        return -1 if self._writer is None else self._writer.lend(borrower)

    def take_back(self) -> None:
        """Ends the loan of the socket."""
        if self._writer is not None:
            self._writer.take_back()

    def ping(self) -> None:
        """Writes a ping, so that intermediaries see that the connection is in use; not right after another ping."""
        now = self._loop.time()
        if now >= self._pinged_at + LIMITS.socket_ping:
            self._pinged_at = now
            self.write(_PING)

    @property
    def unsent(self) -> int:
        """Returns the number of bytes that the client has not received yet."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    async def close(self, violation: Violation) -> None:
        """Says why and closes; waits for the client's answer, for `limits.socket_close` seconds at most."""
        reason = violation.reason.encode()[: LIMITS.close_reason].decode(errors="ignore")  # without a partial character
        if not self._has_failed or self._transport is None:
            await self.response.close(code=violation.code, message=reason.encode())
            return
        # aiohttp gets nothing more of this client. It would close at once, and a client that is still sending would be
        # reset before it reads why.
        said = violation.code.to_bytes(2, "big") + reason.encode()
        self.write(bytes((_CLOSE, len(said))) + said)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LIMITS.lingering):
                await self._has_answered.wait()
        self._transport.close()

    def leave(self) -> None:
        """Gives the connection back to aiohttp's protocol."""
        transport, behind = self._transport, self._behind
        self.take_back()
        self._server_limits.end_upload(self._uploaded, self._uploader)
        self._uploaded = 0
        if self._watch is not None:
            self._watch.stop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if transport is not None and behind is not None and transport.get_protocol() is self:
            transport.set_protocol(behind)

    # -- the transport's protocol --

    def data_received(self, data: bytes) -> None:
        """Bytes of frames."""
        if self._early is not None:
            self._early += data
            if len(self._early) > LIMITS.socket_early and self._transport is not None:
                self._transport.pause_reading()
            return
        if self._behind is None:
            return
        if self._has_failed:
            if self._guard.has_closed(data):
                self._has_answered.set()
            return
        self._has_received = True
        message = self._guard.take_text(data) if self._is_waiting else None
        if message is not None:
            self._owner.message_received(message)
            return
        self._is_waiting = False
        violation = self._guard.feed(data, self._loop.time()) or self._count_upload()
        if violation is None:
            self._behind.data_received(data)
        else:
            self._fail(violation)
            if self._guard.has_close:
                self._has_answered.set()  # the client sends nothing more

    def _count_upload(self) -> Violation | None:
        """Counts a message that is not whole as `limits.upload_bytes` counts the bodies of other requests."""
        more = self._guard.received - self._uploaded
        if more > 0:
            try:
                self._server_limits.begin_upload(more, self._uploader, self._uploaded)
            except Error as error:
                return Violation(TRY_AGAIN_LATER, error.message)
        elif more < 0:
            self._server_limits.end_upload(-more, self._uploader)
        self._uploaded += more
        return None

    def _fail(self, violation: Violation) -> None:
        """Reports a violation. Later bytes are read and dropped: unread bytes would reset the connection."""
        self._has_failed = True
        self._owner.violated(violation)

    def eof_received(self) -> None:
        """Aborts the connection: a client that has ended its side is gone, as for other streams."""
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the session, and forwards the call."""
        self._has_answered.set()
        self.take_back()
        try:
            self._owner.connection_lost()
        finally:  # also if a stream raises: the server waits for its connections
            if self._behind is not None:
                self._behind.connection_lost(exc)

    def pause_writing(self) -> None:
        """Pauses the session, and forwards the call: more than the high-water mark is unsent."""
        if self._behind is not None:
            self._behind.pause_writing()
        self.is_paused = True
        self._owner.pause_writing()

    def resume_writing(self) -> None:
        """Resumes the session, and forwards the call: the client has caught up."""
        if self._behind is not None:
            self._behind.resume_writing()
        self.is_paused = False
        self._owner.resume_writing()

    # -- a silent client --

    def _look_later(self) -> None:
        self._timer = self._timers.schedule(self._timers.clock() + LIMITS.socket_check, self._look)

    def _look(self) -> None:
        """Rule 4; `WriteWatch` watches the unsent bytes."""
        self._timer = None
        # Nothing can come while the server itself, because it is behind, does not read.
        is_reading = self._transport is not None and self._transport.is_reading()
        has_received, self._has_received = self._has_received or not is_reading, False
        last, self._message = self._message, self._guard.message if is_reading else 0
        if self._message and self._message == last:
            self._fail(Violation(POLICY_VIOLATION, "a message did not come to its end in time"))
        if has_received or self.unsent:
            self._has_pinged = False
        elif self._has_pinged:
            if self._transport is not None:
                self._transport.abort()
            return
        else:
            self._has_pinged = True
            self.ping()
        self._look_later()


def _drop(frames: bytes) -> None:
    """Drops frames: the client disconnected before its handshake was answered."""


def offered(header: str) -> list[str]:
    """Returns the subprotocols that a client offers, without those that carry a key.

    Args:
        header: `sec-websocket-protocol`; repeated ones joined with ", ".
    """
    names = [name.strip() for name in header.split(",")]
    return [name for name in names if name and not name.startswith(KEY_PROTOCOL)]


def _for_aiohttp(request: web.BaseRequest, protocols: Sequence[str]) -> web.BaseRequest:
    """Returns the handshake without the headers that aiohttp must not see: rule 2."""
    headers = CIMultiDict(request.headers)
    names = offered(", ".join(headers.popall("Sec-WebSocket-Protocol", [])))
    if names and protocols:
        headers["Sec-WebSocket-Protocol"] = ", ".join(names)
    headers.popall("Sec-WebSocket-Extensions", None)
    return request.clone(headers=headers)
