"""`ClientTransport` over aiohttp: a stream's frames go directly to the socket's transport; aiohttp does the rest.

Only this module, `websocket/connection.py` and `handler.py` use aiohttp's private parts.
`tests/unit/server/lanes/test_aiohttp_transport.py` fails if a release changes one of them, and pyproject.toml names the
releases that are known to work.

1. While a stream runs, this object is the transport's protocol, in front of aiohttp's protocol, and forwards every call
   to it. It is thus notified at once of a slow or lost client; aiohttp notifies a handler only at its next write.
2. aiohttp writes the headers: `response.prepare` runs the signals of every application on the request's path. It is a
   coroutine, so it runs in the handler's task (`finish`). Until then this object holds back what the stream writes.
3. The kernels frame the body, and the frames are written to the transport directly. If aiohttp's writer does more than
   HTTP chunks after `prepare` (a signal has enabled compression, or the writer is of another class), the frames go
   through the public `response.write` instead, without their framing.
4. Headers, frames and last chunk that are ready together go out in one write: the headers are taken from the buffer of
   aiohttp's writer, which is then marked as having sent everything. Three writes cost 30 µs more than one.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Awaitable, Callable
from typing import Final, cast

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpVersion11, StreamWriter
from multidict import CIMultiDict

from gai_fast.kernels import Borrower, ChunkedBody
from gai_fast.net.logs.writer import HTTP_CHUNKS, PLAIN, BodyFraming
from gai_fast.net.sockets.sockets import reset_connection
from gai_fast.runtime.timers import Timers
from gai_fast.server.http.replies import Reply, StreamHead
from gai_fast.server.http.transport import ClientTransport, SocketLender, StreamCallbacks
from gai_fast.server.http.write_watch import WriteWatch


class _StreamResponse(web.StreamResponse):
    _send_headers_immediately = False

    async def _prepare_headers(self) -> None:
        await super()._prepare_headers()
        leave_out_server(self.headers)


class _WholeResponse(web.Response):
    def __init__(self, reply: Reply) -> None:
        super().__init__(status=reply.status, body=reply.body, headers=CIMultiDict(reply.all_headers))
        self._has_length = reply.has_length

    async def _prepare_headers(self) -> None:
        await super()._prepare_headers()
        leave_out_server(self.headers)
        if not self._has_length:
            self.headers.popall("Content-Length", None)


def leave_out_server(headers: CIMultiDict[str]) -> None:
    """Removes aiohttp's `Server` header: its name and version help only an attacker.

    Args:
        headers: The headers of a response.
    """
    headers.popall("Server", None)


def whole_response(reply: Reply, *, keep_alive: bool = True) -> web.Response:
    """Converts a reply to an aiohttp response.

    Args:
        reply: The reply.
        keep_alive: Whether another request may follow on the connection.
    """
    response = _WholeResponse(reply)
    if reply.close or not keep_alive:
        _close_after(response)
    return response


def _close_after(response: web.StreamResponse) -> None:
    """Closes the connection after a response, and announces that in a header, for clients of HTTP/1.0 too."""
    response.force_close()
    response.headers["Connection"] = "close"


class AiohttpWriter(StreamWriter):
    """Writes the server's version in every status line (RFC 9112, 2.3).

    aiohttp writes the version of the request, and HTTP/1.0 if it could not read the request.
    """

    async def write_headers(self, status_line: str, headers: CIMultiDict[str]) -> None:
        """Writes the headers of a response."""
        await super().write_headers(f"HTTP/1.1 {status_line.partition(' ')[2]}", headers)


def is_plain(writer: AbstractStreamWriter | None, *, chunked: bool) -> bool:
    """Returns whether a writer with written headers changes a body no further than our framing does."""
    return (
        isinstance(writer, StreamWriter)
        and type(writer) in (AiohttpWriter, StreamWriter)
        and writer.chunked is chunked
        and writer.length is None
        and writer._compress is None
        and writer._on_chunk_sent is None
        and bool(writer._headers_buf)
    )


class _State(enum.Enum):
    """The state of the response to one request."""

    OPEN = "nothing is decided"
    COMMITTED = "the headers are final, and not written"
    DIRECT = "frames go to the transport"
    THROUGH_AIOHTTP = "frames go through aiohttp's writer"
    ENDED = "the response is complete"
    LOST = "the client has disconnected, or the handler has been cancelled"


# As constants: reading an enum's attribute costs 75 ns on Python 3.11; see `net/upstream/connection.py`.
_OPEN: Final = _State.OPEN
_COMMITTED: Final = _State.COMMITTED
_DIRECT: Final = _State.DIRECT
_THROUGH_AIOHTTP: Final = _State.THROUGH_AIOHTTP
_ENDED: Final = _State.ENDED
_LOST: Final = _State.LOST

_SWITCHING: Final = 101


class AiohttpTransport(ClientTransport, asyncio.Protocol):
    """The transport of one request that aiohttp has parsed.

    Args:
        request: The request.
        timers: The timers of the loop.
    """

    __slots__ = (
        "_aiohttp_protocol",
        "_high_water",
        "_is_blocked",
        "_is_http_1_1",
        "_is_paused",
        "_lender",
        "_loop",
        "_pending",
        "_pending_size",
        "_reply",
        "_request",
        "_response",
        "_run",
        "_state",
        "_stream",
        "_timers",
        "_transport",
        "_unframed",
        "_waiter",
        "_watch",
        "status",
    )

    def __init__(self, request: web.BaseRequest, timers: Timers) -> None:
        self._request = request
        self._timers = timers
        self._loop = asyncio.get_running_loop()
        self._state = _OPEN
        self._is_http_1_1 = request.version == HttpVersion11
        self._stream: StreamCallbacks | None = None
        self._transport: asyncio.Transport | None = None
        self._aiohttp_protocol: asyncio.BaseProtocol | None = None
        self._lender = SocketLender()
        self._watch: WriteWatch | None = None
        self._reply: Reply | None = None
        self._response: _StreamResponse | None = None
        self._run: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]] | None = None
        self._unframed: ChunkedBody | None = None  # removes our chunk framing again
        self._pending: list[bytes] = []  # written by the stream before the headers
        self._pending_size = 0
        self._high_water = 0
        self._is_blocked = False  # the transport's write buffer is above its high-water mark
        self._is_paused = False  # the stream has been paused
        self._waiter: asyncio.Future[None] | None = None
        self.status = 0
        """The status of the response, for the access log; 0 if the client disconnected before its end."""

    # -- ClientTransport --

    @property
    def is_paused(self) -> bool:
        """Whether more than the high-water mark is unsent."""
        return self._is_paused

    @property
    def remote(self) -> str:
        """The address of the client, for the log; empty if the connection has none."""
        return self._request.remote or ""

    def begin_stream(self, stream: StreamCallbacks, high_water: int, write_timeout: float) -> None:
        """Registers the stream that answers the request."""
        transport = self._request.transport
        # aiohttp's own protocol closes when the client half-closes; `Handler` notes it, to answer earlier requests.
        if transport is not None and getattr(self._request.protocol, "has_ended_input", False):
            transport.close()
            transport = None
        if transport is None:  # the client has disconnected since its request arrived
            self._state = _LOST
            self._loop.call_soon(stream.connection_lost)
            return
        self._stream = stream
        if self._watch is not None:
            self._watch.stop()
        else:
            self._transport = transport
            self._aiohttp_protocol = transport.get_protocol()
            self._is_blocked = self._is_paused = self._request.protocol.writing_paused
            transport.set_protocol(self)
        self._high_water = high_water
        transport.set_write_buffer_limits(high=high_water)
        self._watch = WriteWatch(transport, self._timers, write_timeout)
        self._watch.start()

    def commit(self, head: StreamHead) -> tuple[bytes, BodyFraming]:
        """Makes the headers final; `finish` writes them."""
        is_chunked = self._is_http_1_1
        if self._state is _OPEN:
            self._state = _COMMITTED
            self._response = _StreamResponse(status=head.status, headers=CIMultiDict(head.headers))
            if not is_chunked:
                _close_after(self._response)
            self._notify()
        return b"", HTTP_CHUNKS if is_chunked else PLAIN

    def write(self, data: bytes) -> None:
        """Writes framed bytes of the body."""
        if self._lender.borrower is not None:
            self._lender.end()
        if self._state is _DIRECT:
            self._send(data)
        elif not self._has_ended:
            self._pending.append(data)
            self._pending_size += len(data)
            self._update_pause()
            self._notify()

    def lend(self, borrower: Borrower) -> int:
        """Lends the socket; as `ClientTransport.lend`. Returns -1 unless frames go to the transport directly."""
        transport = self._transport
        return self._lender.lend(transport, borrower) if transport is not None and self._state is _DIRECT else -1

    def answered(self, status: int) -> None:
        """Ends the response: the whole body has been written."""
        if self._has_ended:
            return
        self.status = status
        self._restore_protocol()
        if self._state is _DIRECT:
            self._end_body()
        self._state = _ENDED
        self._notify()

    def send(self, reply: Reply) -> None:
        """Answers the request with a whole response."""
        if self._state is not _OPEN:
            return
        self._restore_protocol()
        self._state = _ENDED
        self.status = reply.status
        self._reply = reply
        self._notify()

    def abort(self) -> None:
        """Closes the connection at once, so that the response does not look complete; `connection_lost` cleans up."""
        if self._has_ended:  # the connection may carry another request now
            return
        self._lender.end()
        transport = self._request.transport
        if transport is not None:
            if self._is_http_1_1:
                transport.abort()  # the missing last chunk shows that the body is incomplete
            else:
                reset_connection(transport)
        if self._stream is None:
            self._end_incomplete()  # this object is not the transport's protocol: `connection_lost` will not be called

    def upgrade(self, run: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> None:
        """Hands the connection to another protocol.

        Args:
            run: Answers the request and runs that protocol, in the handler's task.
        """
        if self._state is _OPEN:
            self._run = run
            self._state = _ENDED
            self.status = _SWITCHING
            self._notify()

    # -- the handler's task --

    def send_instead(self, reply: Reply) -> None:
        """Answers with a whole response if a handler has returned one or failed although a stream had started.

        Ends the stream. If the headers are already final, aborts the connection: the response must not look complete.
        """
        stream = self._stream
        self.send(reply)
        if self._state is not _ENDED:
            self.abort()
        elif stream is not None:
            stream.connection_lost()

    async def finish(self) -> web.StreamResponse:
        """Writes what the stream cannot write by itself, until the response has ended.

        Returns:
            The response for aiohttp to end. If the client has disconnected, it is never sent.
        """
        try:
            while self._state is _OPEN:
                await self._wait()
            if self._run is not None:
                return await self._run(self._request)
            if self._reply is not None:
                return whole_response(self._reply, keep_alive=self._is_http_1_1)
            if self._response is None:
                return web.Response()
            self._begin_body(await self._prepare(self._response))
            while self._state is not _LOST:
                if self._pending:
                    await self._write_through_aiohttp()
                elif self._state is _ENDED:
                    break
                else:
                    await self._wait()
            return self._response
        finally:
            self._end_incomplete()

    async def _prepare(self, response: web.StreamResponse) -> AbstractStreamWriter | None:
        """Runs the signals and writes the headers."""
        is_prepared = False
        try:
            writer = await response.prepare(self._request)
            is_prepared = True
        finally:
            if not is_prepared:  # a signal has failed: reset the writer for the error response
                former = cast("StreamWriter", self._request.writer)
                former.chunked, former.length, former._compress = False, None, None
        return writer

    def _begin_body(self, writer: AbstractStreamWriter | None) -> None:
        """Chooses how frames are written, once the headers are written."""
        if not is_plain(writer, chunked=self._is_http_1_1):
            if self._is_http_1_1:
                self._unframed = ChunkedBody()
            if self._state is _COMMITTED:
                self._state = _THROUGH_AIOHTTP
            return
        pending, self._pending, self._pending_size = self._pending, [], 0
        self._send(b"".join((self._take_head(), *pending)))
        if self._state is _COMMITTED:
            self._state = _DIRECT
            self._update_pause()
        elif self._state is _ENDED:
            self._end_body()

    def _take_head(self) -> bytes:
        """Takes the headers from the buffer of aiohttp's writer, and marks them as sent."""
        writer = cast("StreamWriter", self._request.writer)
        head, writer._headers_buf, writer._headers_written = writer._headers_buf or b"", None, True
        writer.output_size += len(head)
        return head

    def _end_body(self) -> None:
        """Marks aiohttp's writer as ended: the last chunk has been written."""
        cast("StreamWriter", self._request.writer)._eof = True

    async def _write_through_aiohttp(self) -> None:
        """Writes through aiohttp's writer, which frames the body itself."""
        data, self._pending, self._pending_size = b"".join(self._pending), [], 0
        body = data if self._unframed is None else self._unframed.feed(data)
        if body and self._response is not None:
            await self._response.write(body)
        self._update_pause()

    async def _wait(self) -> None:
        """Waits for the next call by the stream or the transport."""
        self._waiter = self._loop.create_future()
        await self._waiter

    def _notify(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # -- the transport's protocol while a stream runs --

    def data_received(self, data: bytes) -> None:
        """Forwards bytes of requests to aiohttp's protocol."""
        self._protocol.data_received(data)

    def eof_received(self) -> None:
        """Aborts a half-closed connection, as nginx does: unsent bytes must not keep its stream alive."""
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the response, and forwards the call."""
        try:
            self._end_incomplete()
        finally:  # even if the stream raises: the server waits for its connections to end
            self._protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        """Pauses the stream, and forwards the call."""
        self._protocol.pause_writing()
        self._is_blocked = True
        self._update_pause()

    def resume_writing(self) -> None:
        """Resumes the stream, and forwards the call."""
        self._protocol.resume_writing()
        self._is_blocked = False
        self._update_pause()

    # -- inside --

    @property
    def _has_ended(self) -> bool:
        return self._state is _ENDED or self._state is _LOST

    @property
    def _protocol(self) -> asyncio.Protocol:
        return cast("asyncio.Protocol", self._aiohttp_protocol)

    def _send(self, data: bytes) -> None:
        transport = self._transport
        if transport is not None and not transport.is_closing():
            transport.write(data)
            if self._watch is not None:
                self._watch.written += len(data)

    def _update_pause(self) -> None:
        is_paused = self._is_blocked or self._pending_size > self._high_water
        stream = self._stream
        if is_paused is self._is_paused or stream is None:
            return
        self._is_paused = is_paused
        if is_paused:
            stream.pause_writing()
        else:
            stream.resume_writing()

    def _restore_protocol(self) -> StreamCallbacks | None:
        """Makes aiohttp's protocol the transport's protocol again; returns the stream, which gets no further calls."""
        self._lender.end()
        stream, self._stream = self._stream, None
        transport, protocol, watch = self._transport, self._aiohttp_protocol, self._watch
        if watch is not None:
            watch.stop()
        if transport is not None and protocol is not None and transport.get_protocol() is self:
            transport.set_protocol(protocol)
            if not transport.is_closing():
                transport.set_write_buffer_limits()
        return stream

    def _end_incomplete(self) -> None:
        """Ends an incomplete response: the client has disconnected, or the handler's task has ended."""
        if self._has_ended:
            return
        self._state = _LOST
        self._pending, self._pending_size = [], 0
        stream = self._restore_protocol()
        if stream is not None:
            stream.connection_lost()
        self._notify()
