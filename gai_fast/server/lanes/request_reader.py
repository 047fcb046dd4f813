"""Reads ordinary requests of hot routes from bytes, without I/O and without timers.

Owns the decision which requests are ordinary: a `POST` to a hot route in HTTP/1.1, with one `Host`, a decimal
`Content-Length`, printable ASCII headers, none of them twice, and nothing that changes how the message is framed. Every
other byte sequence is `HAND_OVER`: the general server reads it from its first byte. So the rules here may be stricter
than HTTP, and must never be laxer than that server's parser (tests/unit/server/lanes/test_request_reader.py compares
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
from gai_fast.server.http.request import HTTPRequest
from gai_fast.server.http.transport import ClientTransport
from gai_fast.server.limits import LIMITS


class Outcome(enum.Enum):
    """Why there is no request."""

    NEED_DATA = "the bytes so far may be the beginning of one"
    HAND_OVER = "the bytes are for the general server"


class Part(enum.Enum):
    """The part of a request that comes next."""

    REQUEST = "its first byte"
    HEAD = "the rest of its head"
    BODY = "the rest of its body"


# As constants, because the attribute of an enum costs 75 ns on 3.11; see `net/upstream/connection.py`.
NEED_DATA: Final = Outcome.NEED_DATA
HAND_OVER: Final = Outcome.HAND_OVER
REQUEST: Final = Part.REQUEST
HEAD: Final = Part.HEAD
BODY: Final = Part.BODY

_MOST_DIGITS: Final = SHARED.max_body_digits  # a constant, because every request asks
_METHOD: Final = b"POST /"
_REQUEST_LINE: Final = re.compile(r'POST (/[!"$-~]*) HTTP/1\.1')
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_LENGTH: Final = re.compile(r"0|[1-9][0-9]*")
_LENGTH_LINE: Final = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)(?![^\r])", re.I)
_UNUSUAL: Final = frozenset(("expect", "trailer", "transfer-encoding", "upgrade"))
_CONNECTION: Final = {"keep-alive": True, "close": False}


@lru_cache(LIMITS.known_names)
def _header_name(name: str) -> str:
    """The lower-case name of a header; empty where it is none."""
    return name.lower() if _NAME.fullmatch(name) else ""


def read_line(line: str, hot: frozenset[str]) -> str | None:
    """The target of an ordinary request line to a hot route; otherwise `None`."""
    found = _REQUEST_LINE.fullmatch(line)
    return found[1] if found is not None and found[1].partition("?")[0] in hot else None


def read_head(transport: ClientTransport, head: bytes, hot: frozenset[str]) -> HTTPRequest | None:
    """Reads the head of an ordinary request to a hot route.

    Args:
        transport: The transport of its answer.
        head: The bytes before the empty line.
        hot: The paths of the hot routes.

    Returns:
        The request, without its body; `None`: the head is not an ordinary one.
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
    if len(length) > _MOST_DIGITS:
        return None
    return HTTPRequest(transport, "POST", target, headers, is_http_1_1=True, keep_alive=keep_alive)


class KnownHead:
    """A head that a client has sent, to recognise it when it comes again.

    Most clients send the same head again and again, but for the length of their bodies. A read that is exactly one
    request with this head needs no parsing, which costs 2 us instead of 9; whatever differs is parsed.
    """

    __slots__ = ("_after", "_before", "_headers", "_target")

    def __init__(self, before: bytes, after: bytes, target: str, headers: dict[str, str]) -> None:
        self._before = before  # the digits of the length
        self._after = after
        self._target = target
        self._headers = headers

    def is_same(self, other: KnownHead) -> bool:
        """Whether two heads differ in nothing but the length of a body."""
        return self._before == other._before and self._after == other._after

    @classmethod
    def of(cls, head: bytes, request: HTTPRequest) -> KnownHead | None:
        """The head of a request that was read from these bytes; `None` where it may not come again.

        Args:
            head: The bytes, the empty line included.
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

    def repeated(self, transport: ClientTransport, data: bytes, max_body: int) -> HTTPRequest | None:
        """The request that these bytes are, where they are exactly one with this head.

        Args:
            transport: The transport of its answer.
            data: The bytes.
            max_body: Bytes of a body.
        """
        start = body_start(data, self._before, self._after)
        if start < 0 or len(data) - start > max_body:
            return None
        request = HTTPRequest(transport, "POST", self._target, self._headers, is_http_1_1=True, keep_alive=True)
        request.body = data[start:]
        return request


class KnownHeads:
    """The heads that the clients of a server have sent of late.

    A new connection often begins with the head that another one has sent: that of a program that opens many. Of 200
    that came at once, each took 7 % less CPU than where its head was parsed.

    Attributes:
        heads: The newest first.
    """

    __slots__ = ("heads",)

    def __init__(self) -> None:
        self.heads: list[KnownHead] = []

    def add(self, head: KnownHead) -> None:
        """Keeps a head, in place of the oldest one where they are too many."""
        for known in self.heads:
            if known.is_same(head):
                return
        self.heads = [head, *self.heads[: LIMITS.known_heads - 1]]


class RequestReader:
    """Reads the requests of one connection.

    Args:
        transport: The transport of their answers.
        hot: The paths of the hot routes.
        refuse: The refusal of a request by its head alone, or `None`; asked where its body is still to come.
        max_body: Bytes of a body.
        recent: The heads of all connections, to which this one's are added unless they hold a secret.

    Attributes:
        part: What `next_request` waits for after `NEED_DATA`.
    """

    __slots__ = (
        "_data",
        "_hot",
        "_known",
        "_max_body",
        "_more",
        "_recent",
        "_refuse",
        "_request",
        "_start",
        "_transport",
        "part",
    )

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
        self._data = b""  # from the first byte of the request that is being read
        self._more = bytearray()  # bytes that came after `_data`, to be joined once
        self._request: HTTPRequest | None = None  # the request whose body is being read
        self._start = 0  # the place of its body in `_data`
        self._known: KnownHead | None = None
        self.part = REQUEST

    @property
    def size(self) -> int:
        """The bytes that are held."""
        return len(self._data) + len(self._more)

    @property
    def body_size(self) -> int:
        """The bytes that have come of the body that is being read."""
        return self.size - self._start

    @property
    def request(self) -> HTTPRequest | None:
        """The request whose body is being read."""
        return self._request

    def receive_data(self, data: bytes) -> None:
        """Takes bytes; what they hold is read by `next_request`."""
        if self._data:
            self._more += data
        else:
            self._data = data

    def unread(self) -> bytes:
        """The bytes of no request that was returned, in order."""
        return self._joined()

    def next_request(self) -> HTTPRequest | Reply | Outcome:
        """Reads the next request.

        Returns:
            The request; the refusal of one whose body is still to come (`request`); `NEED_DATA`; or `HAND_OVER`:
            `unread` has all bytes from the first that is not ordinary.
        """
        request = self._request
        if request is None:
            data = self._joined()
            if not data:
                self.part = REQUEST
                return NEED_DATA
            request = self._repeated(data)
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
            refusal = self._refuse(request) if is_new else None  # once, as it counts wrong keys
            self.part = BODY
            return refusal or NEED_DATA
        head = self._data[: self._start]
        request.body = self._take_body(length)
        if not self._data:
            self._known = KnownHead.of(head, request)
            if self._known is not None and not (has_key(request.headers) or "cookie" in request.headers):
                self._recent.add(self._known)  # no secret: how long a comparison takes would tell others of it
        self._request = None
        return request

    def _repeated(self, data: bytes) -> HTTPRequest | None:
        """The request that these bytes are, where its head is that of the last one, or at first a recent one."""
        if self._known is not None:
            return self._known.repeated(self._transport, data, self._max_body)
        for known in self._recent.heads:
            request = known.repeated(self._transport, data, self._max_body)
            if request is not None:
                self._known = known
                return request
        return None

    def _take_body(self, length: int) -> bytes:
        """Takes the head and the body of the request that is complete; copies a large body only once."""
        data, more, start = self._data, self._more, self._start
        behind = length - (len(data) - start)  # bytes of the body in `more`
        if behind > 0:
            body = b"".join((data[start:], more if len(more) == behind else more[:behind]))
            self._data = bytes(more[behind:])
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
        """Whether bytes without the end of a head may become an ordinary request."""
        if not data.startswith(_METHOD[: len(data)]):
            return False
        line, end, _ = data.partition(b"\r\n")
        return not end or read_line(line.decode("latin-1"), self._hot) is not None
