"""Client connections: HTTP/1.1 requests in, responses out, over httptools.

Owns the parsing of requests within limits, the order of pipelined ones, what becomes of requests that cannot be parsed
(a JSON error that echoes nothing of them), keep-alive, and every time a client may take: for a request's head and body,
for a byte of a response. Knows no route.

1. Requests are answered one after the other. Where more than `limits.pipelined` of them wait, or more bytes than one
   body may have, no more is read.
2. Every answer ends once: with `send`, with `answered`, or with the connection.
3. Whatever a client does or leaves undone, a timer of its connection is set; once the connection is lost none is.

Handlers are called, not awaited: a request costs no task, no payload stream and no writer, and a stream learns of a
lost or slow client at once (docs/architecture.md, "Departures", tells why no framework's server is used).
"""

from __future__ import annotations

import asyncio
import enum
import re
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from gai_fast._impl import ChunkedBody, FastPath
from gai_fast.errors import Error
from gai_fast.ids import new_request_id
from gai_fast.limits import LIMITS
from gai_fast.net.sockets import descriptor_of
from gai_fast.net.timers import Timer, Timers
from gai_fast.net.writer import HTTP_CHUNKS, PLAIN, BodyFraming
from gai_fast.server.listening import limit_silence
from gai_fast.server.replies import Reply, StreamHead, error_reply
from gai_fast.server.request_reader import HTTPRequest
from gai_fast.server.transport import StreamCallbacks


def _headers_too_large() -> Error:
    return Error("invalid_request", "The request's headers are too large", reason="headers_too_large", status=431)


class _Stop(Exception):
    """Stops httptools from within a callback."""


class _Wait(enum.Enum):
    """What a connection waits for from its client."""

    REQUEST = "the next request"
    HEAD = "the rest of a head"
    BODY = "the rest of a body"
    TAKING = "its answer to be taken"
    NOTHING = "its end"


# As constants, because the attribute of an enum costs 75 ns on 3.11; see `net/upstream.py`.
_REQUEST: Final[_Wait] = _Wait.REQUEST
_HEAD: Final[_Wait] = _Wait.HEAD
_BODY: Final[_Wait] = _Wait.BODY
_TAKING: Final[_Wait] = _Wait.TAKING
_NOTHING: Final[_Wait] = _Wait.NOTHING

# How clients spell the headers that most requests have: looking one up costs a third of decoding it.
_NAMES: Final[Mapping[bytes, str]] = {
    spelt.encode(): name
    for name in "accept accept-encoding authorization connection content-length content-type host user-agent".split()
    for spelt in (name, name.title())
}


class KnownHead:
    """A head that a client has sent on this connection, to know it by when it comes again.

    Most clients send the same bytes again and again, but for the length of their bodies; what was parsed of them once
    is what would be parsed again. A read that is exactly one request with this head needs no parser, and costs 2 µs
    instead of 9; whatever differs is parsed.
    """

    __slots__ = ("_before", "_behind", "_request")

    def __init__(self, before: bytes, behind: bytes, request: HTTPRequest) -> None:
        self._before = before  # the digits of the length
        self._behind = behind
        self._request = request

    @classmethod
    def of(cls, data: bytes, request: HTTPRequest | Reply) -> KnownHead | None:
        """The head of a request parsed from these bytes, where they held nothing else and it may come again."""
        head, end, body = data.partition(b"\r\n\r\n")
        if isinstance(request, Reply) or not request.keep_alive or request.body != body or "expect" in request.headers:
            return None
        lengths = [*_LENGTH.finditer(head)] if len(head) <= LIMITS.known_head else []
        if len(lengths) != 1 or lengths[0][1].decode() != request.headers.get("content-length"):
            return None
        start, stop = lengths[0].span(1)
        return cls(head[:start], head[stop:] + end, request.again(request.headers, b""))

    def repeated(self, data: bytes, max_body: int) -> HTTPRequest | None:
        """The request that these bytes are, where they are exactly one with this head."""
        before, behind = len(self._before), self._behind
        end = data.find(behind, before, before + LIMITS.max_body_digits + len(behind))
        if end < 0 or not data.startswith(self._before):
            return None
        length, body = data[before:end], data[end + len(behind) :]
        if not length.isdigit() or int(length) != len(body) or len(body) > max_body:
            return None
        return self._request.again({**self._request.headers, "content-length": length.decode()}, body)


_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)(?![^\r])", re.I)

_LOST: Final = 499
"""What the access log says of a client that went before its answer was complete, as nginx's does."""
_LOOKS: Final = 4
"""Looks at a client within its `write_timeout`: one that takes nothing is cut off at most a quarter of it too late."""


_NO_PARSER: Final = HttpRequestParser(object())
"""Of a connection that is lost."""


class Connection:
    """One client connection.

    Attributes:
        transport: Where it is written.
        answering: The request that is being answered.
        stream: The stream that answers it, where one does.
        write_timeout: Seconds after which a client that takes nothing is given up; the last stream's where one has run.
    """

    __slots__ = (
        "_armed",
        "_body",
        "_body_size",
        "_borrower",
        "_declined",
        "_due",
        "_head_size",
        "_header_count",
        "_headers",
        "_high_water",
        "_is_closing",
        "_is_deaf",
        "_is_paused",
        "_is_reading",
        "_is_wait_new",
        "_known",
        "_loop",
        "_parser",
        "_queue",
        "_request",
        "_send",
        "_server",
        "_taken",
        "_taken_at",
        "_target",
        "_timer",
        "_unproductive",
        "_wait",
        "_waiting",
        "_written",
        "answering",
        "stream",
        "transport",
        "write_timeout",
    )

    def __init__(self, server: Server) -> None:
        self._server = server
        self._loop = server.loop
        self._parser = HttpRequestParser(self)
        self.transport: asyncio.Transport
        # Of the transport, found once: looking them up again costs each write as much as calling them.
        self._send: Callable[[bytes], None]
        self._is_closing: Callable[[], bool]
        self._borrower: FastPath | None = None  # who writes to the socket
        self.stream: StreamCallbacks | None = None
        self.answering: HTTPRequest | None = None
        self.write_timeout = server.write_timeout
        self._queue: deque[HTTPRequest | Reply] = deque()
        self._is_deaf = False  # nothing more is read of this client
        self._is_paused = False
        self._is_reading = True
        self._known: KnownHead | None = None
        self._wait = _REQUEST
        self._is_wait_new = False
        self._high_water = 0
        self._timer: Timer | None = None
        self._armed = self._due = 0.0
        self._written = self._taken = 0
        self._taken_at = 0.0
        # the request that is being parsed
        self._request: HTTPRequest | None = None
        self._target = b""
        self._headers: dict[str, str] = {}
        self._head_size = self._header_count = 0
        self._body: list[bytes] = []
        self._body_size = 0
        self._declined: ChunkedBody | int | None = None  # the body of a declined upgrade, or bytes left of it
        self._unproductive = 0  # bytes since the last head or piece of a body
        self._waiting = 0  # bytes of the bodies in the queue

    # -- asyncio --

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected: its first head is due."""
        self.transport = cast("asyncio.Transport", transport)
        self._send = self.transport.write
        self._is_closing = self.transport.is_closing
        self._server.opened(self)
        self._await(_HEAD)

    def data_received(self, data: bytes) -> None:
        """Bytes of requests."""
        if self._is_deaf:
            return
        again = None
        if self._known is not None and self._wait is _REQUEST:
            again = self._known.repeated(data, self._server.max_body)
        if again is not None:
            self._complete(again)
        else:
            self._parse(data)
        if self._request is not None:
            self._refuse_early(self._request)
        if self._is_reading and self._is_full:
            self._is_reading = False
            self.transport.pause_reading()
        if self.answering is None:
            self._next()
            if self._is_wait_new:
                self._await(self._wait)

    @property
    def _is_full(self) -> bool:
        return len(self._queue) > LIMITS.pipelined or self._waiting > self._server.max_body

    def _parse(self, data: bytes) -> None:
        read, is_kept = data, self._wait is _REQUEST
        while data and not self._is_deaf:
            if self._declined is not None:
                data = self._take_declined(self._declined, data)
                continue
            self._unproductive += len(data)
            try:
                self._parser.feed_data(data)
                if is_kept and data is read and self._wait is _REQUEST and self._queue:
                    self._known = KnownHead.of(data, self._queue[-1])
                data = b""
            except HttpParserUpgrade as upgrade:
                # Declined: the request is answered as any other, and what follows is its body or the next one.
                self._parser = HttpRequestParser(self)
                data = data[upgrade.args[0] :]
            except HttpParserError:
                if not self._is_deaf:
                    self._refuse(Error("invalid_request", "The request is not valid HTTP/1.1", reason="http"))
        # httptools holds a header until it is whole, and tells nothing of one that never is.
        if self._unproductive > LIMITS.request_head and not self._is_deaf:
            self._refuse(_headers_too_large())

    def _take_declined(self, body: ChunkedBody | int, data: bytes) -> bytes:
        """Bytes of the body of a request that asked for an upgrade, which llhttp takes for another protocol's."""
        if isinstance(body, int):
            piece, rest = data[:body], data[body:]
            self._declined = body - len(piece)
            is_whole = not self._declined
        else:
            piece = body.feed(data)
            rest = data[len(data) - body.rest :]
            is_whole = body.complete
            if body.broken or body.overhead > LIMITS.request_head:
                self._refuse(Error("invalid_request", "The request is not valid HTTP/1.1", reason="http"))
                return b""
        self._take_body(piece)
        if is_whole and not self._is_deaf:
            self._declined = None
            self._complete_parsed(cast("HTTPRequest", self._request))
        return rest

    def eof_received(self) -> None:
        """A client that says no more is gone, as for nginx; what is unsent must not keep its stream alive."""
        if self.stream is not None:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone; its stream learns of it at once."""
        self._is_deaf = True
        self._end_lending()
        # What refers back to this goes: it is freed now, not when the collector comes.
        self._parser = _NO_PARSER
        self._known = None
        request = self.answering
        self._request = self.answering = None
        self._body = []
        self._queue.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        stream, self.stream = self.stream, None
        if stream is not None:
            stream.connection_lost()
        if request is not None:
            self._server.log(request, _LOST)
        self._server.lost(self)

    def pause_writing(self) -> None:
        """The high-water mark is passed."""
        self._is_paused = True
        if self.stream is not None:
            self.stream.pause_writing()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._is_paused = False
        if self.stream is not None:
            self.stream.resume_writing()
        elif self.answering is None:
            self._next()

    # -- httptools --

    def on_message_begin(self) -> None:
        if self._wait is _REQUEST:
            self._wait, self._is_wait_new = _HEAD, True
        self._target = b""
        self._headers = {}
        self._head_size = self._header_count = 0
        self._request = None

    def on_url(self, url: bytes) -> None:
        self._target += url
        if len(self._target) > LIMITS.request_line:
            self._refuse(Error("invalid_request", "The request line is too long", reason="uri_too_long", status=414))
            raise _Stop

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_size += len(name) + len(value) + LIMITS.header_overhead
        self._header_count += 1
        if (
            self._head_size > LIMITS.request_head
            or self._header_count > LIMITS.request_headers
            or len(name) + len(value) > LIMITS.header_field
        ):
            self._refuse(_headers_too_large())
            raise _Stop
        if self._request is not None:
            return  # a trailer: nothing here needs one
        headers, key = self._headers, _NAMES.get(name) or name.decode("latin-1").lower()
        text = value.decode("latin-1").strip(" \t")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text

    def on_headers_complete(self) -> None:
        parser, headers = self._parser, self._headers
        version = parser.get_http_version()
        self._unproductive = 0
        request = self._request = HTTPRequest(
            self,
            parser.get_method().decode("ascii"),
            self._target.decode("latin-1"),
            headers,
            is_http_1_1=version == "1.1",
            # HTTP/1.0 clients would have to be told that a connection is kept.
            keep_alive=version == "1.1" and parser.should_keep_alive(),
        )
        self._body_size = 0
        refusal = self._refusal(request, version)
        if refusal is not None:
            self._refuse(refusal)
            raise _Stop
        if "content-length" in headers or "transfer-encoding" in headers:
            self._wait, self._is_wait_new = _BODY, True

    def _refusal(self, request: HTTPRequest, version: str) -> Error | Reply | None:
        """Why a request is refused by its head alone."""
        headers = request.headers
        if version not in ("1.0", "1.1"):
            return Error(
                "invalid_request", "only HTTP/1.0 and HTTP/1.1 are spoken here", reason="http_version", status=505
            )
        if "transfer-encoding" in headers and headers["transfer-encoding"].lower() != "chunked":
            return Error("invalid_request", "the only transfer coding taken is chunked", reason="http")
        length = headers.get("content-length", "0")
        if len(length) > LIMITS.max_body_digits or int(length) > self._server.max_body:
            return self._too_large()
        expectation = headers.get("expect")
        if expectation is not None and request.is_http_1_1:  # RFC 9110, 10.1.1
            if expectation.lower() != "100-continue":
                return Error("invalid_request", "only 100-continue can be expected", reason="expect", status=417)
            refusal = self._refusal_of_head(request)
            if refusal is not None:
                return refusal
            if self.answering is None and not self._queue:
                self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return None

    def _refuse_early(self, request: HTTPRequest) -> None:
        """A body that is still to come is not waited for where the head alone is reason enough to refuse it."""
        if not request.is_welcome and not self._is_deaf:
            refusal = self._refusal_of_head(request)
            if refusal is not None:
                self._refuse(refusal)

    def _refusal_of_head(self, request: HTTPRequest) -> Reply | None:
        request.is_welcome = True
        return self._server.refuse(request)

    def _too_large(self) -> Error:
        text = f"the body is larger than {self._server.max_body} bytes"
        return Error("invalid_request", text, reason="max_body", status=413)

    def on_body(self, data: bytes) -> None:
        self._unproductive = 0
        self._take_body(data)
        if self._is_deaf:
            raise _Stop

    def _take_body(self, data: bytes) -> None:
        self._body.append(data)
        self._body_size += len(data)
        if self._body_size > self._server.max_body:
            self._refuse(self._too_large())

    def on_message_complete(self) -> None:
        request = self._request
        if request is None:
            return
        # Of an upgrade (CONNECT is one too) llhttp reads no body; read as the next request it would be a smuggled one.
        if not self._body and self._parser.should_upgrade():
            length = int(request.headers.get("content-length", 0))
            if length or "transfer-encoding" in request.headers:
                self._declined = length or ChunkedBody()
                return
        self._complete_parsed(request)

    def _complete_parsed(self, request: HTTPRequest) -> None:
        request.body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body = []
        self._request = None
        self._complete(request)

    def _complete(self, request: HTTPRequest) -> None:
        request.began = self._loop.time()
        self._waiting += len(request.body)
        self._queue.append(request)
        self._wait, self._is_wait_new = _REQUEST, False  # that wait begins when the answer has ended
        self._unproductive = 0

    # -- answers --

    def write(self, data: bytes) -> None:
        """Bytes of an answer."""
        if self._borrower is not None:
            self._end_lending()
        if not self._is_closing():
            self._send(data)
            self._written += len(data)

    def lend(self, borrower: FastPath) -> int:
        """Lets a fast path write to the socket, until anybody else writes anything; see `ClientTransport`."""
        if self._borrower is not None:
            self._end_lending()
        transport = self.transport
        if transport.get_write_buffer_size() or transport.is_closing():
            return -1
        descriptor = descriptor_of(transport)
        if descriptor >= 0:
            self._borrower = borrower
        return descriptor

    def _end_lending(self) -> None:
        borrower, self._borrower = self._borrower, None
        if borrower is not None:
            borrower.end_writing()

    def begin_stream(self, stream: StreamCallbacks, *, high_water: int, write_timeout: float) -> None:
        """The answer that is being given is a stream.

        Args:
            stream: Told what happens to the client, until `answered` or `send`.
            high_water: Unsent bytes above which it is told to pause.
            write_timeout: Seconds after which a client that takes nothing is given up.
        """
        self.stream = stream
        if self.answering is not None:
            self.answering.body = b""  # read by now: it is not kept for as long as the stream runs
        if write_timeout != self.write_timeout:
            self.write_timeout = write_timeout
            limit_silence(self.transport.get_extra_info("socket"), write_timeout)
            self._arm(self._loop.time() + write_timeout / _LOOKS)
        if high_water != self._high_water:
            self._high_water = high_water
            self.transport.set_write_buffer_limits(high=high_water)

    @property
    def is_paused(self) -> bool:
        """Whether more than the high-water mark is unsent."""
        return self._is_paused

    @property
    def remote(self) -> str:
        """The address of the client; empty where the connection has none, as a unix socket."""
        peer = self.transport.get_extra_info("peername")
        return str(peer[0]) if peer else ""

    def commit(self, head: StreamHead) -> tuple[bytes, BodyFraming]:
        """The bytes of a stream's head, which the stream writes itself, and the framing of its body."""
        request = self.answering
        framing = PLAIN if request is None or not request.is_http_1_1 else HTTP_CHUNKS
        return head.to_bytes(framing.headers, keep_alive=request is not None and request.keep_alive), framing

    def answered(self, status: int) -> None:
        """Ends a stream's answer, all of which has been written."""
        if self.answering is not None:
            self._end_answer(status, self.answering.keep_alive)

    def abort(self) -> None:
        """Closes the connection at once; `connection_lost` cleans up."""
        self.transport.abort()

    def _end_answer(self, status: int, keep_alive: bool) -> None:
        request, self.answering = self.answering, None
        self.stream = None
        if request is not None:
            self._server.log(request, status)
        if not keep_alive:
            self._is_deaf = True
            self._queue.clear()
            self.transport.close()
            self._await(_TAKING)
        elif self._queue:
            self._loop.call_soon(self._next)
        else:
            self._await(self._wait)

    def send(self, reply: Reply) -> None:
        """A whole answer to the request that is being answered."""
        request = self.answering
        keep_alive = request is not None and request.keep_alive and not reply.close
        head_only = request is not None and request.method == "HEAD"
        self.write(reply.to_bytes(keep_alive=keep_alive, head_only=head_only))
        if reply.close and not self.transport.is_closing():
            self._linger(reply.status)
        else:
            self._end_answer(reply.status, keep_alive)

    def _next(self) -> None:
        """Answers the next request, where there is one and the client takes what it is given."""
        if self.answering is not None or not self._queue or self._is_paused or self.transport.is_closing():
            return
        now = self._loop.time()
        if not self.transport.get_write_buffer_size():
            self._taken_at = now  # whoever owes nothing has not been slow
        self._arm(now + self.write_timeout / _LOOKS)
        request = self._queue.popleft()
        if isinstance(request, Reply):
            self.send(request)
            return
        self._waiting -= len(request.body)
        if not self._is_reading and not self._is_full:
            self._is_reading = True
            self.transport.resume_reading()
        self.answering = request
        written = self._written
        try:
            reply = self._server.handle(request)
            if reply is not None:
                self.send(reply)
        except Exception as problem:  # noqa: BLE001  # a bug of ours; raised from here it would cut the client off
            context = {"message": "a request could not be handled", "exception": problem, "protocol": self}
            self._loop.call_exception_handler(context)
            self._fail(request, is_begun=self._written != written)

    def _fail(self, request: HTTPRequest, *, is_begun: bool) -> None:
        """Ends an answer that failed for a bug; one that has begun must not look complete."""
        stream, self.stream = self.stream, None
        if stream is not None:
            stream.connection_lost()
        if is_begun or self.answering is not request:
            self.transport.abort()
            return
        error = Error("internal", "The server failed to handle this request")
        request.error_code = error.code
        self.send(error_reply(error, request.request_id or new_request_id(), close=True))

    def _refuse(self, refusal: Error | Reply) -> None:
        """What comes from this client is no request: it is told so after what it asked before, and heard no more."""
        self._is_deaf = True
        if isinstance(refusal, Error):
            refusal = error_reply(refusal, new_request_id(), close=True)
        refusal.close = True
        self._queue.append(refusal)

    def _linger(self, status: int) -> None:
        """Half-closes and drops what still comes (RFC 9112, 9.6).

        Closing at once would reset the connection under a client that still sends, and take the answer back.
        """
        request, self.answering = self.answering, None
        self.stream = None
        if request is not None:
            self._server.log(request, status)
        self._is_deaf = True
        self._queue.clear()
        if not self._is_reading:  # what is not read is not dropped
            self._is_reading = True
            self.transport.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._await(_NOTHING)

    # -- time --

    def _await(self, wait: _Wait) -> None:
        """Notes what the client has to do next; while it is answered its time for that does not run."""
        self._wait, self._is_wait_new = wait, False
        if self.answering is None:
            self._due = self._loop.time() + self._seconds(wait)
            self._arm(self._due)

    def _seconds(self, wait: _Wait) -> float:
        if wait is _REQUEST:
            return LIMITS.client_idle
        if wait is _HEAD:
            return self._server.header_timeout
        if wait is _BODY:
            return self._server.body_timeout
        return self.write_timeout / _LOOKS if wait is _TAKING else LIMITS.lingering

    def _arm(self, at: float) -> None:
        """Sees to it that `_look` is called no later than then; it may be called earlier, for nothing."""
        if self._timer is None or at < self._armed:
            if self._timer is not None:
                self._timer.cancel()
            self._armed = at
            self._timer = self._server.timers.schedule(at, self._look)

    def _look(self) -> None:
        self._timer = None
        now = self._loop.time()
        owes = self.answering is not None or self.transport.get_write_buffer_size()
        if owes and self._wait is not _NOTHING:
            self._look_at_taking(now)
        elif now < self._due:
            self._arm(self._due)
        elif self._wait is _NOTHING:
            self.transport.abort()
        elif self._wait is _HEAD:
            self._late(Error("timeout", "The request head did not arrive in time", reason="header_timeout", status=408))
        elif self._wait is _BODY:
            self._late(Error("timeout", "the body did not arrive in time", reason="body_timeout", status=408))
        else:
            self.transport.close()

    def _late(self, error: Error) -> None:
        self._refuse(error)
        self._next()

    def _look_at_taking(self, now: float) -> None:
        """Cuts off a client that has taken nothing for `write_timeout`."""
        unsent = self.transport.get_write_buffer_size()
        taken = self._written - unsent
        if not unsent or taken != self._taken:
            self._taken, self._taken_at = taken, now
        elif now - self._taken_at >= self.write_timeout:
            self.transport.abort()
            return
        self._arm(now + self.write_timeout / _LOOKS)


Handle = Callable[[HTTPRequest], "Reply | None"]


class Server:
    """Makes a `Connection` for every client.

    Args:
        handle: Answers a request: with a reply, or with `None` where a stream has begun.
        refuse: The reply to a request of which only the head has come, where that is reason enough to refuse it.
        log: Told of every answered request and its status.
        timers: The loop's timer wheel.
        loop: The running loop.
        header_timeout: Seconds for a request head.
        body_timeout: Seconds for a request body.
        write_timeout: Seconds after which a client that takes nothing is given up.
        max_body: Bytes of a request body.
    """

    def __init__(
        self,
        handle: Handle,
        refuse: Handle,
        log: Callable[[HTTPRequest, int], None],
        *,
        timers: Timers,
        loop: asyncio.AbstractEventLoop,
        header_timeout: float,
        body_timeout: float,
        write_timeout: float,
        max_body: int,
    ) -> None:
        self.handle = handle
        self.refuse = refuse
        self.log = log
        self.timers = timers
        self.loop = loop
        self.header_timeout = header_timeout
        self.body_timeout = body_timeout
        self.write_timeout = write_timeout
        self.max_body = max_body
        self._open: dict[Connection, asyncio.Transport] = {}
        self.emptied = asyncio.Event()
        """Set while no connection is open."""
        self.emptied.set()

    def __call__(self) -> Connection:
        return Connection(self)

    def opened(self, connection: Connection) -> None:
        """A client has connected."""
        self._open[connection] = connection.transport
        self.emptied.clear()

    def lost(self, connection: Connection) -> None:
        """A connection is gone."""
        self._open.pop(connection, None)
        if not self._open:
            self.emptied.set()

    def close(self) -> None:
        """Ends every connection whose client takes its last bytes."""
        for transport in tuple(self._open.values()):
            transport.close()

    def abort(self) -> None:
        """Ends every connection at once."""
        for transport in tuple(self._open.values()):
            transport.abort()
