"""`ClientTransport` over aiohttp: a stream's frames go straight to the socket's transport, the rest is aiohttp's.

Every use of aiohttp's private parts stands here, in `websocket/connection.py` and in `handler.py`.
`tests/unit/server/lanes/test_aiohttp_transport.py` fails where a release changes one of them, and pyproject.toml names
the releases that are known to work.

1. For the length of one stream this object is the transport's protocol, in front of aiohttp's. It passes every call on
   and so hears at once of a slow or a lost client, which aiohttp tells a handler only when it writes.
2. The head is aiohttp's: `response.prepare` runs the signals of every application that the request passes. It is a
   coroutine, so it runs in the handler's task (`finish`); what the stream writes until then waits here.
3. The frames are ours: they are framed by the kernels and written to the transport directly. Where aiohttp's writer
   does more than HTTP chunks after `prepare` (a signal has switched compression on, or another writer is there), they
   go through the public `response.write` instead, without their framing.
4. Head, frames and last chunk go out in as few writes as they come: aiohttp's writer leaves its head in a buffer, from
   which it is taken, and learns that all has been written. Three writes cost 30 µs more than one.
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
from gai_fast.net.upstream.sockets import reset
from gai_fast.runtime.timers import Timers
from gai_fast.server.http.replies import Reply, StreamHead
from gai_fast.server.http.transport import SocketLender, StreamCallbacks
from gai_fast.server.http.write_watch import WriteWatch


class _StreamResponse(web.StreamResponse):
    _send_headers_immediately = False

    async def _prepare_headers(self) -> None:
        await super()._prepare_headers()
        leave_out_server(self.headers)


class _WholeResponse(web.Response):
    def __init__(self, reply: Reply) -> None:
        super().__init__(status=reply.status, body=reply.body, headers=CIMultiDict(reply.headers))
        self._has_length = reply.has_length

    async def _prepare_headers(self) -> None:
        await super()._prepare_headers()
        leave_out_server(self.headers)
        if not self._has_length:
            self.headers.popall("Content-Length", None)


def leave_out_server(headers: CIMultiDict[str]) -> None:
    """Takes out the name and version of the server, which aiohttp adds: nobody but an attacker needs them.

    Args:
        headers: Of a response.
    """
    headers.popall("Server", None)


def whole_response(reply: Reply, *, keep_alive: bool = True) -> web.Response:
    """A reply as aiohttp's response.

    Args:
        reply: The reply.
        keep_alive: Another request may follow on the connection.
    """
    response = _WholeResponse(reply)
    if reply.close or not keep_alive:
        _close_after(response)
    return response


def _close_after(response: web.StreamResponse) -> None:
    """Closes the connection after a response, which tells so to clients of HTTP/1.0 too."""
    response.force_close()
    response.headers["Connection"] = "close"


def is_plain(writer: AbstractStreamWriter | None, *, chunked: bool) -> bool:
    """Whether a writer, its head written, does nothing to a body but what our framing does."""
    return (
        type(writer) is StreamWriter
        and writer.chunked is chunked
        and writer.length is None
        and writer._compress is None
        and writer._on_chunk_sent is None
        and bool(writer._headers_buf)
    )


class _State(enum.Enum):
    """The answer to one request."""

    OPEN = "nothing is decided"
    COMMITTED = "the head is final, and not written"
    DIRECT = "frames go to the transport"
    TRANSLATED = "frames go through aiohttp's writer"
    ENDED = "the answer is complete"
    LOST = "the client is gone, or the handler has been cancelled"


# As constants, because the attribute of an enum costs 75 ns on 3.11; see `net/upstream/connection.py`.
_OPEN: Final = _State.OPEN
_COMMITTED: Final = _State.COMMITTED
_DIRECT: Final = _State.DIRECT
_TRANSLATED: Final = _State.TRANSLATED
_ENDED: Final = _State.ENDED
_LOST: Final = _State.LOST

_SWITCHING: Final = 101


class AiohttpTransport(asyncio.Protocol):
    """The client's side of one request that aiohttp has parsed; a `ClientTransport`.

    Args:
        request: The request.
        timers: The timers of the loop.
    """

    __slots__ = (
        "_behind",
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
        self._behind: asyncio.BaseProtocol | None = None
        self._lender = SocketLender()
        self._watch: WriteWatch | None = None
        self._reply: Reply | None = None
        self._response: _StreamResponse | None = None
        self._run: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]] | None = None
        self._unframed: ChunkedBody | None = None  # takes our chunks off again
        self._pending: list[bytes] = []  # written before the head
        self._pending_size = 0
        self._high_water = 0
        self._is_blocked = False  # the transport has more unsent than it wants
        self._is_paused = False  # the stream knows that it should wait
        self._waiter: asyncio.Future[None] | None = None
        self.status = 0
        """The status of the answer, for the access log; 0 where the client went before it was complete."""

    # -- ClientTransport --

    @property
    def is_paused(self) -> bool:
        """Whether more than the high-water mark is unsent."""
        return self._is_paused

    @property
    def remote(self) -> str:
        """The address of the client, for the log; empty where the connection has none."""
        return self._request.remote or ""

    def begin_stream(self, stream: StreamCallbacks, high_water: int, write_timeout: float) -> None:
        """Registers the stream that answers the request; as `ClientTransport.begin_stream`."""
        transport = self._request.transport
        # aiohttp's own protocol closes at the end of the client's side; ours notes it, to answer what came before.
        if transport is not None and getattr(self._request.protocol, "has_ended_input", False):
            transport.close()
            transport = None
        if transport is None:  # the client has gone since its request came
            self._state = _LOST
            self._loop.call_soon(stream.connection_lost)
            return
        if self._watch is not None:
            self._watch.stop()
        else:
            self._stream = stream
            self._transport = transport
            self._behind = transport.get_protocol()
            self._is_blocked = self._is_paused = self._request.protocol.writing_paused
            transport.set_protocol(self)
        self._high_water = high_water
        transport.set_write_buffer_limits(high=high_water)
        self._watch = WriteWatch(transport, self._timers, write_timeout)
        self._watch.start()

    def commit(self, head: StreamHead) -> tuple[bytes, BodyFraming]:
        """Makes the head final; `finish` writes it."""
        is_chunked = self._is_http_1_1
        if self._state is _OPEN:
            self._state = _COMMITTED
            self._response = _StreamResponse(headers=CIMultiDict(head.headers))
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
        """Lends the socket; as `ClientTransport.lend`."""
        transport = self._transport
        return self._lender.lend(transport, borrower) if transport is not None and self._state is _DIRECT else -1

    def answered(self, status: int) -> None:
        """Ends the answer: all of the body has been written."""
        if self._has_ended:
            return
        self.status = status
        self._leave()
        if self._state is _DIRECT:
            self._end_body()
        self._state = _ENDED
        self._notify()

    def send(self, reply: Reply) -> None:
        """Answers the request with a whole response."""
        if self._state is not _OPEN:
            return
        self._leave()
        self._state = _ENDED
        self.status = reply.status
        self._reply = reply
        self._notify()

    def abort(self) -> None:
        """Closes the connection at once, so that the answer does not look complete; `connection_lost` cleans up."""
        if self._has_ended:  # the connection may be that of another request by now
            return
        self._lender.end()
        transport = self._request.transport
        if transport is not None:
            if self._is_http_1_1:
                transport.abort()  # the last chunk, or a part of the length, is missing
            else:
                reset(transport)
        if self._stream is None:
            self._lose()  # nothing stands in front of aiohttp's protocol, which would tell nobody

    def upgrade(self, run: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> None:
        """Leaves the connection to another protocol.

        Args:
            run: Answers the request and speaks that protocol; runs in the handler's task.
        """
        if self._state is _OPEN:
            self._run = run
            self._state = _ENDED
            self.status = _SWITCHING
            self._notify()

    # -- the handler's task --

    def send_instead(self, reply: Reply) -> None:
        """Answers with a whole response where a handler has returned one, or failed, although a stream has begun.

        The stream is over. An answer whose head is final is cut off: it must not look complete.
        """
        stream = self._stream
        self.send(reply)
        if self._state is not _ENDED:
            self.abort()
        elif stream is not None:
            stream.connection_lost()

    async def finish(self) -> web.StreamResponse:
        """Writes what the stream cannot write by itself, until its answer has ended.

        Returns:
            The response that aiohttp has to end; where the client is gone, one that reaches nobody.
        """
        try:
            while self._state is _OPEN:
                await self._news()
            if self._run is not None:
                return await self._run(self._request)
            if self._reply is not None:
                return whole_response(self._reply, keep_alive=self._is_http_1_1)
            if self._response is None:
                return web.Response()
            self._begin_body(await self._prepare(self._response))
            while self._state is not _LOST:
                if self._pending:
                    await self._write_around()
                elif self._state is _ENDED:
                    break
                else:
                    await self._news()
            return self._response
        finally:
            self._lose()

    async def _prepare(self, response: web.StreamResponse) -> AbstractStreamWriter | None:
        """Runs the signals and writes the head."""
        is_prepared = False
        try:
            writer = await response.prepare(self._request)
            is_prepared = True
        finally:
            if not is_prepared:  # a signal has failed: the writer must be as before, for the response that says so
                former = cast("StreamWriter", self._request.writer)
                former.chunked, former.length, former._compress = False, None, None
        return writer

    def _begin_body(self, writer: AbstractStreamWriter | None) -> None:
        """Chooses the way of the frames, now that the head is written."""
        if not is_plain(writer, chunked=self._is_http_1_1):
            if self._is_http_1_1:
                self._unframed = ChunkedBody()
            if self._state is _COMMITTED:
                self._state = _TRANSLATED
            return
        pending, self._pending, self._pending_size = self._pending, [], 0
        self._send(b"".join((self._take_head(), *pending)))
        if self._state is _COMMITTED:
            self._state = _DIRECT
            self._update_pause()
        elif self._state is _ENDED:
            self._end_body()

    def _take_head(self) -> bytes:
        """The head, from the buffer of aiohttp's writer, which takes it for sent."""
        writer = cast("StreamWriter", self._request.writer)
        head, writer._headers_buf, writer._headers_written = writer._headers_buf or b"", None, True
        writer.output_size += len(head)
        return head

    def _end_body(self) -> None:
        """Tells aiohttp's writer that the last chunk has been written."""
        cast("StreamWriter", self._request.writer)._eof = True

    async def _write_around(self) -> None:
        """Writes through aiohttp's writer, which frames the body itself."""
        data, self._pending, self._pending_size = b"".join(self._pending), [], 0
        body = data if self._unframed is None else self._unframed.feed(data)
        if body and self._response is not None:
            await self._response.write(body)
        self._update_pause()

    async def _news(self) -> None:
        """Waits for the next call of the stream, or of the transport."""
        self._waiter = self._loop.create_future()
        await self._waiter

    def _notify(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # -- the transport's protocol, while a stream runs --

    def data_received(self, data: bytes) -> None:
        """More requests, or the end of one."""
        self._protocol.data_received(data)

    def eof_received(self) -> None:
        """A client that ends its side is gone, as for nginx; what is unsent must not keep its stream alive."""
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        try:
            self._lose()
        finally:  # whatever the stream raises: the server waits for its connections
            self._protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        """More than the high-water mark is unsent."""
        self._protocol.pause_writing()
        self._is_blocked = True
        self._update_pause()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._protocol.resume_writing()
        self._is_blocked = False
        self._update_pause()

    # -- inside --

    @property
    def _has_ended(self) -> bool:
        return self._state is _ENDED or self._state is _LOST

    @property
    def _protocol(self) -> asyncio.Protocol:
        return cast("asyncio.Protocol", self._behind)

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

    def _leave(self) -> StreamCallbacks | None:
        """Gives the connection back to aiohttp's protocol; returns the stream, which hears no more."""
        self._lender.end()
        stream, self._stream = self._stream, None
        transport, behind, watch = self._transport, self._behind, self._watch
        if watch is not None:
            watch.stop()
        if transport is not None and behind is not None and transport.get_protocol() is self:
            transport.set_protocol(behind)
            if not transport.is_closing():
                transport.set_write_buffer_limits()
        return stream

    def _lose(self) -> None:
        """Ends an answer that is not complete: the client is gone, or the handler's task is."""
        if self._has_ended:
            return
        self._state = _LOST
        self._pending, self._pending_size = [], 0
        stream = self._leave()
        if stream is not None:
            stream.connection_lost()
        self._notify()
