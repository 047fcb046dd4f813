"""Parses ordinary requests of hot routes from bytes, without I/O and without timers.

Owns which requests are ordinary: a `POST` to a hot route in HTTP/1.1, with one `Host`, a decimal `Content-Length`,
printable ASCII headers without duplicates, and no header that changes the framing of the message. For every other byte
sequence the result is `HAND_OVER`: the general server parses it from its first byte. The rules here may therefore be
stricter than HTTP, but never laxer than that server's parser (tests/unit/server/lanes/test_request_reader.py compares
them).
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from gai_fast.kernels import body_start
from gai_fast.model.limits import SHARED
from gai_fast.server.admission.callers import has_key
from gai_fast.server.http.replies import Reply
from gai_fast.server.http.request import HTTPRequest, RepeatedHead
from gai_fast.server.http.transport import ClientTransport
from gai_fast.server.limits import LIMITS


class ReadOutcome(enum.Enum):
    """Why there is no request."""

    NEED_DATA = "the bytes so far may be the start of a request"
    HAND_OVER = "the bytes are for the general server"


class Part(enum.Enum):
    """The part of a request that comes next."""

    REQUEST = "its first byte"
    HEAD = "the rest of its headers"
    BODY = "the rest of its body"


# As constants: reading an enum's attribute costs 75 ns on Python 3.11; see `net/upstream/connection.py`.
NEED_DATA: Final = ReadOutcome.NEED_DATA
HAND_OVER: Final = ReadOutcome.HAND_OVER
REQUEST: Final = Part.REQUEST
HEAD: Final = Part.HEAD
BODY: Final = Part.BODY

_MAX_DIGITS: Final = SHARED.max_body_digits  # a constant, because every request needs it
_METHOD: Final = b"POST /"
_body_start: Final = body_start  # a constant: a name look-up costs 30 ns
_REQUEST_LINE: Final = re.compile(r'POST (/[!"$-~]*) HTTP/1\.1')
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_LENGTH: Final = re.compile(r"0|[1-9][0-9]*")
_LENGTH_LINE: Final = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)(?![^\r])", re.I)
_UNUSUAL: Final = frozenset(("expect", "trailer", "transfer-encoding", "upgrade"))
_CONNECTION: Final = {"keep-alive": True, "close": False}


@lru_cache(LIMITS.known_names)
def _header_name(name: str) -> str:
    """Returns the lower-case name of a header; empty if the name is not valid."""
    return name.lower() if _NAME.fullmatch(name) else ""


def read_line(line: str, hot: frozenset[str]) -> str | None:
    """Returns the target of an ordinary request line to a hot route; None for any other line."""
    found = _REQUEST_LINE.fullmatch(line)
    return found[1] if found is not None and found[1].partition("?")[0] in hot else None


def read_head(transport: ClientTransport, head: bytes, hot: frozenset[str]) -> HTTPRequest | None:
    """Parses the headers of an ordinary request to a hot route.

    Args:
        transport: The transport of the response.
        head: The bytes before the empty line.
        hot: The paths of the hot routes.

    Returns:
        The request without its body; None if the request is not ordinary.
    """
    if not head.isascii():
        return None
    first, *lines = head.decode("ascii").split("\r\n")
    target = read_line(first, hot)
    if target is None or len(lines) > LIMITS.request_headers:
        return None
    headers: dict[str, str] = {}
    for field in lines:
        name, _, value = field.partition(":")
        key = _header_name(name)
        if not key or key in headers or key in _UNUSUAL or not value.isprintable() or field == name:
            return None
        headers[key] = value.strip(" ")
    keep_alive = _CONNECTION.get(headers.get("connection", "keep-alive").lower())
    length = headers.get("content-length", "")
    if "host" not in headers or keep_alive is None or not _LENGTH.fullmatch(length):
        return None
    if len(length) > _MAX_DIGITS:
        return None
    return HTTPRequest(transport, "POST", target, headers, is_http_1_1=True, keep_alive=keep_alive)


class KnownHead:
    """The head of an earlier request, to recognise it when it is sent again.

    Most clients send the same head again and again, except for the length of the body. If a read is exactly one
    request with this head, it needs no parsing: 2 us instead of 9. Everything else is parsed.
    """

    def __init__(self, before: bytes, after: bytes, target: str, headers: dict[str, str]) -> None:
        self._before = before  # the bytes up to the digits of the length
        self._after = after
        self._target = target
        self._headers = headers
        self._repeated = RepeatedHead()

    def is_same(self, other: KnownHead) -> bool:
        """Returns whether two heads are equal, except for the length of the body."""
        return self._before == other._before and self._after == other._after

    @classmethod
    def of(cls, head: bytes, request: HTTPRequest) -> KnownHead | None:
        """Creates a known head from a parsed request; returns None if the head cannot be reused.

        Args:
            head: The bytes, including the empty line.
            request: The request.
        """
        if not request.keep_alive or len(head) > SHARED.known_head:
            return None
        lengths = [*_LENGTH_LINE.finditer(head)]
        if len(lengths) != 1:
            return None
        start, stop = lengths[0].span(1)
        headers = request.headers.copy()
        del headers["content-length"]
        return cls(head[:start], head[stop:], request.target, headers)

    def match(self, transport: ClientTransport, data: bytes, max_body: int) -> HTTPRequest | None:
        """Returns the request in these bytes if they are exactly one request with this head; else None.

        Args:
            transport: The transport of the response.
            data: The bytes.
            max_body: The maximum size of the body, in bytes.
        """
        start = _body_start(data, self._before, self._after, True)
        if start < 0 or len(data) - start > max_body:
            return None
        request = HTTPRequest(transport, "POST", self._target, self._headers, is_http_1_1=True, keep_alive=True)
        request.body = data[start:]
        request.repeated = self._repeated
        return request


class KnownHeads:
    """Recent heads of a server's clients.

    A new connection often starts with the head of an earlier connection: both belong to a program that opens many. Of
    200 connections that arrived at once, each took 7 % less CPU than with a parsed head.

    Attributes:
        heads: The heads, newest first.
    """

    def __init__(self) -> None:
        self.heads: list[KnownHead] = []

    def add(self, head: KnownHead) -> None:
        """Adds a head; drops the oldest head if there are too many."""
        for known in self.heads:
            if known.is_same(head):
                return
        self.heads = [head, *self.heads[: LIMITS.known_heads - 1]]


class RequestReader:
    """Parses the requests of one connection.

    Args:
        transport: The transport of the responses.
        hot: The paths of the hot routes.
        refuse: Returns the refusal of a request by its headers, or None; called if the body is incomplete.
        max_body: The maximum size of a body, in bytes.
        recent: The heads of all connections; heads of this connection are added unless they contain a secret.

    Attributes:
        part: The part that `next_request` waits for after `NEED_DATA`.
    """

    def __init__(
        self,
        transport: ClientTransport,
        hot: frozenset[str],
        refuse: Callable[[HTTPRequest], Reply | None],
        max_body: int,
        recent: KnownHeads,
    ) -> None:
        self._transport = transport
        self._recent = recent
        self._hot = hot
        self._refuse = refuse
        self._max_body = max_body
        self._data = b""  # the bytes from the start of the current request
        self._more = bytearray()  # the bytes after `_data`, joined only once
        self._request: HTTPRequest | None = None  # the request whose body is incomplete
        self._start = 0  # the offset of its body in `_data`
        self._known: KnownHead | None = None
        self.part = REQUEST

    @property
    def size(self) -> int:
        """The number of bytes held."""
        return len(self._data) + len(self._more)

    @property
    def body_size(self) -> int:
        """The number of received bytes of the current body."""
        return self.size - self._start

    @property
    def request(self) -> HTTPRequest | None:
        """The request whose body is incomplete; None if there is none."""
        return self._request

    def receive_data(self, data: bytes) -> None:
        """Appends bytes; `next_request` parses them."""
        if self._data:
            self._more += data
        else:
            self._data = data

    def unread(self) -> bytes:
        """Returns the bytes after the last returned request."""
        return self._joined()

    def next_request(self) -> HTTPRequest | Reply | ReadOutcome:
        """Parses the next request.

        Returns:
            The request, or the refusal of a request whose body is incomplete (see `request`), or `NEED_DATA`, or
            `HAND_OVER` if the request is not ordinary (`unread` returns its bytes).
        """
        request = self._request
        if request is None:
            data = self._joined()
            if not data:
                self.part = REQUEST
                return NEED_DATA
            request = self._match_known(data)
            if request is not None:
                self._data = b""
                return request
            end = data.find(b"\r\n\r\n", 0, LIMITS.lane_head)
            if end < 0:
                self.part = HEAD
                return NEED_DATA if len(data) < LIMITS.lane_head and self._may_be_hot(data) else HAND_OVER
            request = read_head(self._transport, data[:end], self._hot)
            if request is None:
                return HAND_OVER
            self._start = end + 4
        length = int(request.headers["content-length"])
        if length > self._max_body:
            return HAND_OVER
        if self.body_size < length:
            is_new, self._request = self._request is None, request
            refusal = self._refuse(request) if is_new else None  # once per request: it counts wrong keys
            self.part = BODY
            return refusal or NEED_DATA
        head = self._data[: self._start]
        request.body = self._take_body(length)
        if not self._data:
            self._known = KnownHead.of(head, request)
            if self._known is not None and not (has_key(request.headers) or "cookie" in request.headers):
                self._recent.add(self._known)  # never with a secret: the comparison's timing would leak it to others
        self._request = None
        return request

    def _match_known(self, data: bytes) -> HTTPRequest | None:
        """Returns the request in these bytes if it has the last head, or, for the first request, a recent head."""
        if self._known is not None:
            return self._known.match(self._transport, data, self._max_body)
        for known in self._recent.heads:
            request = known.match(self._transport, data, self._max_body)
            if request is not None:
                self._known = known
                return request
        return None

    def _take_body(self, length: int) -> bytes:
        """Removes the complete request from the bytes and returns its body; copies a large body only once."""
        data, more, start = self._data, self._more, self._start
        missing = length - (len(data) - start)  # bytes of the body in `more`
        if missing > 0:
            body = b"".join((data[start:], more if len(more) == missing else more[:missing]))
            self._data = bytes(more[missing:])
            self._more = bytearray()
        else:
            body = data[start : start + length]
            self._data = data[start + length :]
        return body

    def _joined(self) -> bytes:
        if self._more:
            self._data += self._more
            self._more = bytearray()
        return self._data

    def _may_be_hot(self, data: bytes) -> bool:
        """Returns whether bytes without the end of a head may become an ordinary request."""
        if not data.startswith(_METHOD[: len(data)]):
            return False
        line, end, _ = data.partition(b"\r\n")
        return not end or read_line(line.decode("latin-1"), self._hot) is not None
