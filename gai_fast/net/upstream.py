"""One request to one upstream: HTTP/1.1 over a transport, called by the loop, calling a receiver.

Owns: what a base URL may be, the bytes of a request, what counts as a correctly framed answer, and the time limits of
one exchange. It must not know: who waits for which connection (`pool.py`), retries of failed requests, the deadline of
the first event, providers, JSON.

    UpstreamConnection   one TCP or TLS connection; an asyncio protocol, a few lines
    Exchange             one request and its answer on it: state, timeouts, backpressure, the calls to the receiver
    ResponseReader       the bytes of one answer → head, body, end or error; sans-IO, around httptools

The states of an exchange; `close()` and every failure lead to ENDED from anywhere:

    QUEUED ─► CONNECTING ─► HEAD ─► BODY ─► STREAMING ─► ENDED
       │           ▲          │
       └───────────┼──────────┴► (a pooled connection that was dead: CONNECTING, once)
                   └─ a request that finds a pooled connection begins in HEAD

What is stricter than llhttp, which httptools wraps, and why:

1. A new parser per answer: httptools keeps a trailer's last field and would give it to the next answer as a header.
2. Any `Transfer-Encoding` but `chunked` is refused: llhttp takes `gzip, chunked` and would hand on compressed bytes.
3. `HTTP/0.9`, `HTTP/2.0` and a status below 100 are refused (RFC 9112 §2.3, RFC 9110 §15).
4. Heads, trailers and chunk extensions are counted here; llhttp has no bound for them.
5. httptools has no call for the end of input, so whether an EOF is an end is decided here (RFC 9112 §6.3).
"""

from __future__ import annotations

import asyncio
import enum
import ipaddress
import re
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Protocol, cast
from urllib.parse import urlsplit

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from gai_fast._impl import ChunkedBody, FastPath, ReadBatch
from gai_fast._version import __version__
from gai_fast.errors import Code, Error
from gai_fast.limits import LIMITS
from gai_fast.net.sockets import descriptor_of
from gai_fast.net.timers import Timer, Timers


class Receiver(Protocol):
    """Who gets the answer. Everything is called synchronously from the loop, never from within `UpstreamPool.open`."""

    def head_received(self, status: int, headers: dict[str, str]) -> None:
        """The head of the final answer: lower-case names, the values of duplicates joined by `", "`."""

    def body_received(self, data: bytes) -> FastPath | None:
        """What one read brought of the body, without its framing.

        Returns:
            Who is given the next reads, as long as nothing is left of them; what is left, perhaps nothing, comes here.
        """

    def exchange_ended(self, error: Error | None) -> None:
        """Called exactly once, last, unless the exchange was closed.

        Args:
            error: `None` after a complete, correctly framed body; else `network`, `timeout`, `provider_unavailable` or
                `overloaded`. What had come before it was delivered.
        """


# ---- what is sent --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an upstream is.

    Args:
        scheme: `http` or `https`.
        host: A name in ASCII or an IP address without brackets; lower case.
        port: The scheme's own where the URL has none.
        prefix: The path that every request's path is appended to; no trailing slash.
    """

    scheme: str
    host: str
    port: int
    prefix: str = ""

    @classmethod
    def parse(cls, base_url: str) -> Origin:
        """The origin of a base URL.

        Raises:
            ValueError: It is no absolute http or https URL, or holds credentials, a query or a fragment. The text never
                repeats the URL, which may hold a secret.
        """
        if not _VISIBLE.fullmatch(base_url):
            raise ValueError("base_url holds a blank or a control character")
        try:
            parts = urlsplit(base_url)
            host, port = (parts.hostname or "").encode("idna").decode("ascii"), parts.port
        except ValueError:
            raise ValueError("base_url has no valid host and port") from None
        if parts.scheme not in _PORTS:
            raise ValueError("base_url must begin with http:// or https://")
        if "@" in parts.netloc:
            raise ValueError("base_url must not hold credentials: use api_key")
        if "?" in base_url or "#" in base_url:
            raise ValueError("base_url must not hold a query or a fragment")
        if not parts.path.isascii():
            raise ValueError("the path of base_url must be percent-encoded")
        if not (_HOST.fullmatch(host) or is_ip_address(host)) or port == 0:
            raise ValueError("base_url has no valid host and port")
        return cls(parts.scheme, host, port or _PORTS[parts.scheme], parts.path.rstrip("/"))

    def __hash__(self) -> int:
        return hash(self.host)  # it is asked for with every request, and what `dataclass` makes would be interpreted

    @property
    def peer(self) -> str:
        """`host:port`, for messages."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def authority(self) -> str:
        """The value of `Host`: no port where it is the scheme's own (RFC 9110 §7.2)."""
        return self.peer if self.port != _PORTS[self.scheme] else self.peer.rpartition(":")[0]


def is_ip_address(host: str) -> bool:
    """Whether a host is an IP address, without a zone, rather than a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return "%" not in host


_PORTS: Final = {"http": 80, "https": 443}
_VISIBLE: Final = re.compile(r"[^\x00-\x20\x7f-\xa0\ud800-\udfff]+")
_HOST: Final = re.compile(r"(?=.{1,253}\Z)[a-z0-9_]([a-z0-9_.-]*[a-z0-9_.])?")

_METHOD: Final = re.compile(r"[A-Z]+")
_TARGET: Final = re.compile(r"/[!\"$-~]*")  # visible ASCII without '#'
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # a token, RFC 9110 §5.6.2
_VALUE: Final = re.compile(r"[\t -~\xa0-\ud7ff\ue000-\U0010ffff]*")

# These decide the framing and the connection, or would ask for an answer that is refused.
_OURS: Final = frozenset(
    "accept-encoding connection content-length expect host keep-alive proxy-connection te trailer transfer-encoding "
    "upgrade".split()
)


def encode_headers(headers: Sequence[tuple[str, str]]) -> str:
    """Header lines for a request; also the check for headers out of a configuration.

    Raises:
        ValueError: A name is no token or one of those that the connection sets, or a value holds a line break or
            another control character. It names the header and never shows its value.
    """
    lines = []
    agent = f"User-Agent: gai-fast/{__version__}\r\n"
    for name, value in headers:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name[: LIMITS.identifier]!r} is not a header name")
        lowered = name.lower()
        if lowered in _OURS:
            raise ValueError(f"the header {name!r} is set by the connection itself")
        if not _VALUE.fullmatch(value):
            raise ValueError(f"the value of the header {name!r} holds a line break or another control character")
        if lowered == "user-agent":
            agent = ""
        lines.append(f"{name}: {value}\r\n")
    return agent + "".join(lines)


def encode_request(origin: Origin, method: str, path: str, headers: Sequence[tuple[str, str]], body: bytes) -> bytes:
    """The bytes of a request, head and body in one piece for one write.

    Args:
        path: From the origin's prefix on, with its query.

    Raises:
        ValueError: Something would break the framing; the text shows no value, nor the path, whose query may be a key.
    """
    head = _encode_head(origin, method, path, tuple(headers))
    if body or method not in ("GET", "HEAD"):
        return b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body)
    return head + b"\r\n"


@lru_cache(LIMITS.upstream_heads)
def _encode_head(origin: Origin, method: str, path: str, headers: tuple[tuple[str, str], ...]) -> bytes:
    """All of a head but its length: the same for every request of a model."""
    if not _METHOD.fullmatch(method) or method == "CONNECT":
        raise ValueError(f"{method[: LIMITS.identifier]!r} is not a method that is sent upstream")
    if not _TARGET.fullmatch(path):
        raise ValueError("the path of a request begins with '/' and is percent-encoded")
    return (
        f"{method} {origin.prefix}{path} HTTP/1.1\r\nHost: {origin.authority}\r\nAccept-Encoding: identity\r\n"
        f"{encode_headers(headers)}"
    ).encode()


# ---- what comes back -----------------------------------------------------------------------------------------------


_HEAD_END: Final = b"\r\n\r\n"

# How servers spell the headers that most answers have: looking one up costs a third of decoding it.
_NAMES: Final[dict[bytes, str]] = {
    spelt.encode(): name
    for name in "cache-control connection content-length content-type date server transfer-encoding".split()
    for spelt in (name, name.title())
}


class KnownHead:
    """The head of an answer in chunks, to know it by when it comes again from the same upstream.

    Many servers send the same bytes before every answer; what httptools and the checks behind it made of them once is
    what they would make of them again.
    """

    __slots__ = ("data", "headers", "keep_alive", "status")

    def __init__(self, data: bytes, status: int, headers: dict[str, str], keep_alive: bool) -> None:
        self.data = data  # with the blank line
        self.status = status
        self.headers = headers
        self.keep_alive = keep_alive


class ResponseReader:
    """The bytes of one answer, taken apart: the head by httptools, the body by its framing. Sans-IO.

    After each `feed` look at `head`, the bytes it returned, then `error` and `complete`, in this order: that is the
    order in which they came.

    Args:
        peer: `host:port`, for messages.
        method: Of the request; an answer to HEAD has no body whatever its head says.
        known: A head that came before from the same upstream.

    Attributes:
        known: Likewise; this answer's once that has come, where it may be known again.
        chunks: Takes the body apart, where it comes in chunks; whoever feeds it calls `look_at_chunks`.
    """

    __slots__ = (
        "_head_bytes",
        "_headers",
        "_is_head",
        "_keep_alive",
        "_left",
        "_parser",
        "_peer",
        "_tail",
        "chunks",
        "complete",
        "error",
        "head",
        "is_reusable",
        "known",
    )

    def __init__(self, peer: str, method: str = "POST", known: KnownHead | None = None) -> None:
        self.head: tuple[int, dict[str, str]] | None = None
        self.complete = False
        self.error: Error | None = None
        self.is_reusable = False
        self.known = known
        self._peer = peer
        self._is_head = method == "HEAD"
        self._keep_alive = False
        self.chunks: ChunkedBody | None = None
        self._left: int | None = None  # bytes of a body whose length the head tells
        self._headers: dict[str, str] = {}
        self._head_bytes = 0
        self._tail = b""  # the last bytes of a head that goes on
        self._parser: HttpResponseParser | None = None

    def feed(self, data: bytes) -> bytes:
        """Takes what one read brought, returns the bytes of the body in it; not to be called after the end."""
        at = 0  # where the body begins
        if self.head is None:
            at = self._repeated(data)
            if not at:
                rest = self._feed_head(data)
                if rest is None:
                    return b""
                data = rest
            if self.complete:
                self.is_reusable = self._keep_alive and not data  # what follows was not asked for
                return b""
        if self.chunks is not None:
            body = self.chunks.feed(data, at)
            self.look_at_chunks()
            return body
        if self._left is not None:
            body, extra = data[: self._left], len(data) > self._left
            self._left -= len(body)
            if not self._left:
                self.complete = True
                self.is_reusable = self._keep_alive and not extra
            return body
        return data

    def look_at_chunks(self) -> None:
        """`chunks` has been fed."""
        chunks = self.chunks
        if chunks is None:
            return
        if chunks.broken:
            self._refuse("network", "protocol", "broke the chunked coding of its answer: check base_url")
        elif chunks.overhead > LIMITS.response_head:
            self._too_large()
        elif chunks.complete:
            self.complete = True
            self.is_reusable = self._keep_alive and not chunks.rest

    def feed_eof(self) -> None:
        """The peer closed: sets `complete` where that is how this answer ends, else `error`."""
        if self.head is not None and self.chunks is None and self._left is None:
            self.complete = True
        else:
            self._refuse("network", "truncated", "closed the connection before the end of its answer")

    def _repeated(self, data: bytes) -> int:
        """The size of a head that is known; 0 where another one comes, or in pieces."""
        known = self.known
        if known is None or self._head_bytes or self._is_head or not data.startswith(known.data):
            return 0
        self.head = known.status, known.headers.copy()
        self._keep_alive = known.keep_alive
        self.chunks = ChunkedBody()
        return len(known.data)

    def _note_head(self, data: bytes) -> None:
        """Keeps a head that came in one piece, nothing before it, where the next answer may have the same."""
        if self.head is not None and self.chunks is not None and len(data) == self._head_bytes <= LIMITS.known_head:
            status, headers = self.head
            self.known = KnownHead(data, status, headers.copy(), self._keep_alive)

    def _feed_head(self, data: bytes) -> bytes | None:
        """Feeds httptools with heads, interim ones too; returns what stands behind the last, `None` before its end."""
        while data and self._is_in_head():
            seen = self._tail + data
            end = seen.find(_HEAD_END)
            # No parser sees a byte of a body: the end of the head is looked for before it is fed.
            size = len(data) if end < 0 else end + len(_HEAD_END) - len(self._tail)
            self._tail = seen[-len(_HEAD_END) + 1 :] if end < 0 else b""
            self._head_bytes += size
            if self._parser is None:
                self._parser = HttpResponseParser(self)
            try:
                self._parser.feed_data(data[:size])
            except (HttpParserError, HttpParserUpgrade) as exc:
                if self.error is None and not self.complete:
                    self._refuse("network", "protocol", f"sent what is not valid HTTP/1.1 ({exc}): check base_url")
            if self.error is None and self._head_bytes > LIMITS.response_head:
                self._too_large()
            if end >= 0 or self.error is not None:
                self._parser = None  # it refers to this object: the garbage collector should not have to come
            self._note_head(data[:size])
            data = data[size:]
        return None if self.head is None else data

    def _is_in_head(self) -> bool:
        # A method, since what it looks at changes within the parser's calls: no type is narrowed by it.
        return self.head is None and self.error is None

    def _refuse(self, code: Code, reason: str, text: str) -> None:
        self.error = Error(code, f"{self._peer} {text}", reason=reason)

    def _too_large(self) -> None:
        text = f"sent more than {LIMITS.response_head} bytes of headers (limit response_head)"
        self._refuse("provider_unavailable", "head_too_large", text)

    # httptools calls these.

    def on_header(self, name: bytes, value: bytes) -> None:
        headers, key = self._headers, _NAMES.get(name) or name.decode("latin-1").lower()
        text = value.decode("latin-1").strip(" \t")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text

    def on_headers_complete(self) -> None:
        parser, headers = cast(HttpResponseParser, self._parser), self._headers
        status = parser.get_status_code()
        if parser.get_http_version() not in ("1.1", "1.0") or status < 100 or status == 101:
            self._refuse("network", "protocol", "sent an answer that is not HTTP/1.1: check base_url")
        elif status < 200:
            self._headers = {}  # interim (RFC 9110 §15.2); its size still counts
            return
        elif 300 <= status < 400:
            text = f"answered with a redirect ({status}), and none is followed: check base_url"
            self._refuse("provider_unavailable", "redirect", text)
        elif (
            headers.get("transfer-encoding", "chunked").lower() != "chunked"
            or headers.get("content-encoding", "identity").lower() != "identity"
        ):
            text = "sent an encoded body where only identity was accepted: is a proxy in between?"
            self._refuse("provider_unavailable", "content_encoding", text)
        else:
            self.head = status, headers
            self._keep_alive = parser.should_keep_alive()
            if self._is_head or status == 204:  # RFC 9112 §6.3: these have no body whatever their head says
                self.complete = True
            elif "transfer-encoding" in headers:
                self.chunks = ChunkedBody()
            elif "content-length" in headers:
                self._left = int(headers["content-length"])
                self.complete = not self._left


# ---- one request and its answer ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds: DNS, TCP and TLS together; without a byte while reading is on; from `open` to the end."""

    connect: float
    idle: float
    total: float


class _State(enum.Enum):
    QUEUED = enum.auto()
    CONNECTING = enum.auto()
    HEAD = enum.auto()  # the request is written
    BODY = enum.auto()  # the head was delivered
    STREAMING = enum.auto()  # a byte of the body was
    ENDED = enum.auto()


# As constants, because the attribute of an enum costs 75 ns on 3.11, and a read asks for two; of the enum's own type,
# because what is narrowed to a member is believed to stay it (docs/architecture.md, "What is compiled").
_QUEUED: Final[_State] = _State.QUEUED
_CONNECTING: Final[_State] = _State.CONNECTING
_HEAD: Final[_State] = _State.HEAD
_BODY: Final[_State] = _State.BODY
_STREAMING: Final[_State] = _State.STREAMING
_ENDED: Final[_State] = _State.ENDED


class _Nobody:
    """The receiver of an exchange that has ended: nothing reaches the former one, and nothing refers to it."""

    def head_received(self, status: int, headers: dict[str, str]) -> None: ...

    def body_received(self, data: bytes) -> FastPath | None:
        return None

    def exchange_ended(self, error: Error | None) -> None: ...


_NOBODY: Final = _Nobody()


def _nothing() -> None: ...


class Exchange:
    """One request and its answer. Made by `UpstreamPool.open`; belongs to the thread of its loop.

    Attributes:
        sent: Whether the request was, at least possibly, written: whether the upstream may be at work on it.
        reused: Whether it runs on a pooled connection.
        fast_path: Who is given the next reads, once the answer is under way and they are likely to be more of the same.
    """

    __slots__ = (
        "_abandon",
        "_armed",
        "_connect_by",
        "_connection",
        "_method",
        "_paused",
        "_peer",
        "_read_at",
        "_receiver",
        "_request",
        "_response",
        "_state",
        "_timeouts",
        "_timer",
        "_timers",
        "_total_by",
        "fast_path",
        "reused",
        "sent",
    )

    def __init__(
        self, peer: str, method: str, request: bytes, receiver: Receiver, timeouts: Timeouts, timers: Timers
    ) -> None:
        self.sent = False
        self.reused = False
        self._peer = peer
        self._method = method
        self._request: bytes | None = request  # until the first byte of an answer
        self._receiver = receiver
        self._timeouts = timeouts
        self._timers = timers
        self._state = _QUEUED
        self._abandon: Callable[[], object] = _nothing  # what close() has to undo in this state
        self._connection: UpstreamConnection | None = None
        self._response: ResponseReader  # from `begin` on
        self.fast_path: FastPath | None = None
        self._paused = False
        self._total_by = timers.clock() + timeouts.total
        self._connect_by = self._read_at = self._armed = 0.0
        self._timer: Timer | None = None

    # -- for the receiver's side

    @property
    def is_complete(self) -> bool:
        """Whether all of the answer has come; the receiver may be still to be told."""
        return self._connection is not None and self._response.complete

    @property
    def has_ended(self) -> bool:
        """Whether the receiver hears nothing more."""
        return self._state is _ENDED

    @property
    def is_waiting(self) -> bool:
        """Whether no connection has come free for it yet."""
        return self._state is _QUEUED

    def pause_reading(self) -> None:
        """Stops the answer until `resume_reading`, and `idle_timeout` with it; twice is once, at any moment."""
        self._paused = True
        if self._connection is not None:
            self._connection.pause_reading()

    def resume_reading(self) -> None:
        """Lets the answer go on; `idle_timeout` begins anew."""
        if self._paused:
            self._paused = False
            if self._connection is not None:
                self._read_at = self._timers.clock()
                self._connection.resume_reading()
                self._arm()

    def close(self) -> None:
        """Drops the exchange and its connection, which is never reused; the receiver hears nothing more."""
        if self._state is not _ENDED:
            abandon = self._abandon
            self._end()
            abandon()

    # -- for the pool

    def begin_waiting(self, abandon: Callable[[], object]) -> None:
        """It is in the pool's queue; `abandon` takes it out."""
        self._abandon = abandon
        self._arm()

    def begin_connecting(self, abandon: Callable[[], object]) -> None:
        """A connection is being made for it; `abandon` stops that."""
        self._state = _CONNECTING
        self._abandon = abandon
        self._connection = None
        self.sent = self.reused = False
        self._connect_by = self._timers.clock() + self._timeouts.connect
        self._arm()

    def abandon_by(self, abandon: Callable[[], object]) -> None:
        """From now on this stops what is being done for it; of no effect where it has ended."""
        if self._state is not _ENDED:
            self._abandon = abandon

    def begin(self, connection: UpstreamConnection, *, reused: bool) -> None:
        """Writes the request to a connection, which is this exchange's from now on."""
        self._state = _HEAD
        self._abandon = connection.abort
        self._connection = connection
        self._response = ResponseReader(self._peer, self._method, connection.known)
        self.sent = True
        self.reused = reused
        self._read_at = self._timers.clock()
        connection.begin(self, cast(bytes, self._request))
        if self._paused:
            connection.pause_reading()
        self._arm()

    def fail(self, error: Error) -> None:
        """Ends it with an error; its connection, or what was to become one, is dropped."""
        if self._state is not _ENDED:
            if self._state is _QUEUED or self._state is _CONNECTING:
                error.phase = "connect"  # how far an answer was, only its reader knows
            abandon, receiver = self._abandon, self._end()
            abandon()
            receiver.exchange_ended(error)

    @property
    def has_met_a_dead_connection(self) -> bool:
        """Whether its connection, now lost, was a pooled one that the peer had closed before it saw the request."""
        return self.reused and self._request is not None and self._timers.clock() - self._read_at <= LIMITS.pool_stale

    # -- for the connection

    def now(self) -> float:
        """Seconds, by the clock of its timers."""
        return self._timers.clock()

    def data_received(self, data: bytes, now: float) -> None:
        """What one read brought, and when."""
        if self.fast_path is None:
            self._pass_on(self._response.feed(data), now)
        else:
            rest = self.fast_path.feed(data, now)
            if rest is not None:
                self.rest_received(rest, now)

    def rest_received(self, body: bytes, now: float) -> None:
        """What the fast path has left of a read, perhaps nothing."""
        self._response.look_at_chunks()
        self._pass_on(body, now)

    def _pass_on(self, body: bytes, now: float) -> None:
        response = self._response
        self._read_at = now
        self._request = None
        # The receiver may close the exchange in any of these calls; from then on the receiver is _NOBODY.
        if self._state is _HEAD and response.head is not None:
            self._state = _BODY
            self._receiver.head_received(*response.head)
        if body or self.fast_path is not None:
            if self._state is _BODY:
                self._state = _STREAMING
            self._shorten(self._receiver.body_received(body))
        if response.error is not None:
            self.fail(response.error)
        elif response.complete:
            self._complete(response.is_reusable)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone; without an exception the peer closed it."""
        response = self._response
        if exc is not None:
            reason = "tls" if isinstance(exc, ssl.SSLError) else "reset"
            text = f"the connection to {self._peer} broke before the end of its answer"
            self.fail(Error("network", text, reason=reason))
            return
        response.feed_eof()
        if response.error is not None:
            self.fail(response.error)
        else:
            self._complete(False)

    # -- own

    def _shorten(self, fast_path: FastPath | None) -> None:
        """From now on reads go to a fast path, where there is one."""
        if self._state is _ENDED:
            return
        if self.fast_path is not None and self.fast_path is not fast_path:
            self.fast_path.chunks = None
        if fast_path is not None:
            fast_path.chunks = self._response.chunks
        self.fast_path = fast_path if self._response.chunks is not None else None

    def _complete(self, is_reusable: bool) -> None:
        if self._state is not _ENDED:
            connection = cast(UpstreamConnection, self._connection)
            connection.known = self._response.known
            receiver = self._end()
            connection.release(is_reusable)
            receiver.exchange_ended(None)

    def _end(self) -> Receiver:
        """Lets go of everything; returns the receiver for the one call that may be due."""
        receiver, self._receiver = self._receiver, _NOBODY
        self._state = _ENDED
        self._abandon = _nothing
        self._connection = self._request = None
        if self.fast_path is not None:
            self.fast_path.chunks = None
            self.fast_path = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return receiver

    def _deadline(self) -> float:
        if self._state is _CONNECTING:
            return min(self._total_by, self._connect_by)
        if self._state is _QUEUED or self._paused:
            return self._total_by
        read_at = self._read_at if self.fast_path is None else max(self._read_at, self.fast_path.at)
        return min(self._total_by, read_at + self._timeouts.idle)

    def _arm(self) -> None:
        """Sees to it that the timer fires no later than the deadline; that it fires earlier, `_look` puts right."""
        deadline = self._deadline()
        if self._timer is None or deadline < self._armed:
            if self._timer is not None:
                self._timer.cancel()
            self._armed = deadline
            self._timer = self._timers.schedule(deadline, self._look)

    def _look(self) -> None:
        self._timer = None
        now = self._timers.clock()
        if now < self._deadline():
            self._arm()
        elif now >= self._total_by:
            text = f"{self._peer} did not end its answer within {self._timeouts.total:g} s (total_timeout)"
            self.fail(Error("timeout", text, reason="total"))
        elif self._state is _CONNECTING:
            text = f"no connection to {self._peer} within {self._timeouts.connect:g} s (connect_timeout)"
            self.fail(Error("timeout", f"{text}: check base_url and the network", reason="connect"))
        else:
            text = f"{self._peer} sent nothing for {self._timeouts.idle:g} s (idle_timeout)"
            self.fail(Error("timeout", text, reason="idle"))


# ---- one connection ------------------------------------------------------------------------------------------------


class ConnectionCallbacks(Protocol):
    """What a connection tells its pool."""

    def connection_made(self, connection: UpstreamConnection) -> None:
        """There is a socket, until `connection_lost`."""

    def connection_free(self, connection: UpstreamConnection) -> None:
        """Its exchange ended, and it may carry another."""

    def connection_lost(self, connection: UpstreamConnection, exchange: Exchange | None, exc: Exception | None) -> None:
        """Its socket is gone; `exchange` is the one it carried, still to be told."""


class UpstreamConnection:
    """One TCP or TLS connection, which carries one exchange at a time.

    It may carry another only after a complete, correctly framed answer; closing an exchange aborts it, so that the rest
    of one caller's answer never becomes another's.

    Args:
        callbacks: Is told what becomes of it.
        batch: Whose reads it shares; without one each is handled at once.

    Attributes:
        known: The head of an answer that it, or another one to the same upstream, carried.
    """

    __slots__ = ("_batch", "_borrower", "_broken", "_callbacks", "_exchange", "_transport", "known")

    def __init__(self, callbacks: ConnectionCallbacks, batch: ReadBatch | None = None) -> None:
        self._callbacks = callbacks
        self._batch = batch
        self.known: KnownHead | None = None
        self._exchange: Exchange | None = None
        self._borrower: FastPath | None = None  # who reads the socket
        self._broken: OSError | None = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._callbacks.connection_made(self)

    def data_received(self, data: bytes) -> None:
        exchange, batch = self._exchange, self._batch
        if exchange is None:
            self.abort()  # nobody asked for it
            return
        fast_path = exchange.fast_path
        if batch is None or fast_path is None:
            exchange.data_received(data, exchange.now())
        else:
            batch.add(self, exchange, fast_path, data)

    def handle(self, exchange: Exchange, data: bytes, now: float) -> None:
        """A read that has waited for the others of its batch."""
        self._give(exchange, exchange.data_received, data, now)

    def handle_rest(self, exchange: Exchange, body: bytes, now: float) -> None:
        """Likewise; this is left of it."""
        self._give(exchange, exchange.rest_received, body, now)

    def _give(self, exchange: Exchange, take: Callable[[bytes, float], None], data: bytes, now: float) -> None:
        is_well = False
        try:
            if self._exchange is exchange:
                take(data, now)
                is_well = True
        finally:
            if not is_well:  # its exchange has ended: nobody asked for it
                self.drop()

    def lend(self, borrower: FastPath) -> int:
        """Leaves the socket to a fast path, up to `take_back` or whatever else happens here; see `Reader`."""
        transport = self._transport
        descriptor = descriptor_of(transport)
        if descriptor < 0 or not transport.is_reading():
            return -1
        transport.pause_reading()
        self._borrower = borrower
        return descriptor

    def take_back(self) -> None:
        """Reads the socket itself again."""
        borrower, self._borrower = self._borrower, None
        if borrower is not None:
            borrower.end_reading()
            self._transport.resume_reading()

    def broke(self, problem: OSError) -> None:
        """Closes the socket at once; whom it carries is told this."""
        self._broken = problem
        self.drop()

    def drop(self) -> None:
        """Closes the socket at once; whom it carries is told that it is lost."""
        self.take_back()
        self._transport.abort()

    def eof_received(self) -> None:
        # An answer is over or cut; close(), the transport's default, would first wait for what we still have to send.
        self._transport.abort()

    def pause_writing(self) -> None:
        """A request waits for its upstream: it is sent whole all the same."""

    def resume_writing(self) -> None:
        """It goes on."""

    def connection_lost(self, exc: Exception | None) -> None:
        self.take_back()
        exchange, self._exchange = self._exchange, None
        self._callbacks.connection_lost(self, exchange, exc or self._broken)

    @property
    def is_closing(self) -> bool:
        """Whether it is of no use any more."""
        return self._transport.is_closing()

    def begin(self, exchange: Exchange, request: bytes) -> None:
        """Carries an exchange from now on, and sends its request."""
        self._exchange = exchange
        self._transport.write(request)

    def release(self, is_reusable: bool) -> None:
        """Its exchange is complete."""
        self.take_back()
        self._exchange = None
        # A peer that answers before it has the whole request cannot tell the rest of it from the next one.
        if is_reusable and not self._transport.is_closing() and not self._transport.get_write_buffer_size():
            self._transport.resume_reading()
            self._callbacks.connection_free(self)
        else:
            self._transport.abort()

    def pause_reading(self) -> None:
        """Reads nothing more from the socket."""
        self.take_back()
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Reads again."""
        self._transport.resume_reading()

    def fail(self, error: Error) -> None:
        """Closes the socket at once; its exchange, if any, ends with the error."""
        if self._exchange is not None:
            self._exchange.fail(error)
        else:
            self.abort()

    def abort(self) -> None:
        """Closes the socket at once; its exchange hears nothing of it."""
        self.take_back()
        self._exchange = None
        self._transport.abort()
