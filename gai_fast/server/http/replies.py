"""Whole responses, the headers of streams, and errors as responses.

Owns the status line and the headers of every response. Knows no route and no connection.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from http import HTTPStatus
from typing import Final

from gai_fast.kernels import encode_json
from gai_fast.model.errors import Error

Headers = Sequence[tuple[str, str]]


class Reply:
    """A whole response.

    Args:
        status: The HTTP status.
        body: The body.
        headers: The headers, without `content-length` and `connection`, which are added.
        close: Whether to close the connection afterwards: the request was not read completely, or its end is unknown.
        has_length: Whether the response to a GET would have a `content-length`; a stream has none (RFC 9110, 8.6).
    """

    def __init__(
        self,
        status: int,
        body: bytes = b"",
        headers: Headers | None = None,
        *,
        close: bool = False,
        has_length: bool = True,
    ) -> None:
        self.status = status
        self.body = body
        self.headers = headers or ()
        self.close = close
        self.has_length = has_length and status not in (204, 304)  # RFC 9110, 8.6: these never have a length

    @property
    def all_headers(self) -> Headers:
        """All headers except those of framing and connection."""
        return self.headers

    def to_bytes(self, *, keep_alive: bool, head_only: bool = False) -> bytes:
        """Encodes the response."""
        framing = f"content-length: {len(self.body)}\r\n" if self.has_length else ""
        head = self._head_bytes(framing, keep_alive)
        return head if head_only else head + self.body

    def _head_bytes(self, framing: str, keep_alive: bool) -> bytes:
        return head_bytes(self.status, self.headers, keep_alive, framing)


_REASONS: Final[Mapping[int, str]] = {status.value: status.phrase for status in HTTPStatus}


def head_bytes(status: int, headers: Headers, keep_alive: bool, framing: str = "") -> bytes:
    """Encodes a status line and headers.

    Args:
        status: The HTTP status.
        headers: The headers.
        keep_alive: Whether another request may follow on the connection.
        framing: The header lines of the body's framing.

    Raises:
        ValueError: A header contains a line end or a NUL; the text names the header.
    """
    return f"{_first_lines(status, int(_time()))}{_lines(headers, keep_alive)}{framing}\r\n".encode("ascii")


_STREAM_HEADERS: Final = (
    ("cache-control", "no-cache, no-store, no-transform"),
    ("x-accel-buffering", "no"),
    ("x-content-type-options", "nosniff"),
)


def header_lines(headers: Headers) -> str:
    """Returns the lines of headers that are known to be valid."""
    return "".join([f"{name}: {value}\r\n" for name, value in headers])


_STREAM_LINES: Final = header_lines(_STREAM_HEADERS)
_time: Final[Callable[[], float]] = time.time  # a constant: looking a name up in a module costs 30 ns


class _Opening:
    """The first header lines of streams, cached for a second.

    Attributes:
        known: The second, the media type, and their lines: one tuple, because another thread may replace it.
    """

    def __init__(self) -> None:
        self.known = (0, "", "")

    def lines(self, second: int, media_type: str) -> str:
        """Returns the lines for a second and a media type."""
        known = self.known
        if known[0] == second and known[1] == media_type:
            return known[2]
        lines = f"{_first_lines(200, second)}content-type: {media_type}\r\n{_STREAM_LINES}x-request-id: "
        self.known = (second, media_type, lines)
        return lines


_OPENING: Final = _Opening()


def _lines(headers: Headers, keep_alive: bool) -> str:
    """Returns the remaining header lines."""
    values = "".join([value for _, value in headers])  # checked together: a check costs as much as 30 characters
    if not values.isprintable() or not values.isascii():
        raise _unwritable(headers)
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers])
    return lines if keep_alive else f"connection: close\r\n{lines}"


def _unwritable(headers: Headers) -> ValueError:
    name = next(name for name, value in headers if not value.isprintable() or not value.isascii())
    return ValueError(f"header {name!r} cannot be written: it holds control or non-ASCII characters")


class CommonHeaders:
    """Headers that many responses have, and their lines, which are joined once: for each response it took 1,000
    instructions to find them.

    Args:
        headers: The headers.

    Raises:
        ValueError: As `head_bytes`.
    """

    def __init__(self, headers: tuple[tuple[str, str], ...]) -> None:
        self.headers = headers
        self.lines = _lines(headers, keep_alive=True)


NO_COMMON: Final = CommonHeaders(())


class StreamHead:
    """The headers of a stream's response, with status 200.

    Args:
        media_type: The `content-type`.
        request_id: The request id, valid in a header.
        stream_id: The stream id, valid in a header.
        more: Additional headers.
        common: Further ones, that many responses have.
    """

    def __init__(
        self, media_type: str, request_id: str, stream_id: str, more: Headers = (), common: CommonHeaders = NO_COMMON
    ) -> None:
        self._media_type = media_type
        self._request_id = request_id
        self._stream_id = stream_id
        self._more = more
        self._common = common

    @property
    def status(self) -> int:
        """The HTTP status."""
        return 200

    @property
    def headers(self) -> Headers:
        """All headers except those of framing and connection."""
        ids = (*id_headers(self._request_id), ("x-gai-stream-id", self._stream_id))
        return [("content-type", self._media_type), *_STREAM_HEADERS, *ids, *self._more, *self._common.headers]

    def to_bytes(self, framing: str, *, keep_alive: bool) -> bytes:
        """Encodes the headers.

        The lines that streams have in common are joined once per second; joining them per request costs 0.9 us more.

        Args:
            framing: The header lines of the body's framing, from `header_lines`.
            keep_alive: Whether another request may follow on the connection.

        Raises:
            ValueError: A header contains a line end or a NUL; as `head_bytes`.
        """
        request_id = self._request_id
        opening = _OPENING.lines(int(_time()), self._media_type)
        more = _lines(self._more, keep_alive) if self._more or not keep_alive else ""
        return (
            f"{opening}{request_id}\r\nrequest-id: {request_id}\r\nx-gai-stream-id: {self._stream_id}\r\n"
            f"{more}{self._common.lines}{framing}\r\n"
        ).encode("ascii")


class PassedHead(StreamHead):
    """The headers of a response that is passed through.

    Args:
        status: The upstream's status.
        request_id: As for `StreamHead`.
        stream_id: As for `StreamHead`.
        more: Headers that differ from response to response.
        common: Headers that many responses have.
    """

    def __init__(self, status: int, request_id: str, stream_id: str, more: Headers, common: CommonHeaders) -> None:
        super().__init__("", request_id, stream_id, more, common)
        self._status = status

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self._status

    @property
    def headers(self) -> Headers:
        """All headers except those of framing and connection."""
        return [*id_headers(self._request_id), ("x-gai-stream-id", self._stream_id), *self._more, *self._common.headers]

    def to_bytes(self, framing: str, *, keep_alive: bool) -> bytes:
        """Encodes the headers; as `StreamHead.to_bytes`."""
        request_id = self._request_id
        more = self._common.lines if keep_alive else f"connection: close\r\n{self._common.lines}"
        if self._more:
            more += _lines(self._more, keep_alive=True)
        return (
            f"{_first_lines(self._status, int(_time()))}x-request-id: {request_id}\r\nrequest-id: {request_id}\r\n"
            f"x-gai-stream-id: {self._stream_id}\r\n{more}{framing}\r\n"
        ).encode("ascii")


class PassedReply(Reply):
    """A whole response that is passed through.

    Args:
        head: Its headers.
        body: As for `Reply`.
        has_length: As for `Reply`.
    """

    def __init__(self, head: PassedHead, body: bytes, *, has_length: bool) -> None:
        super().__init__(head.status, body, has_length=has_length)
        self._head = head

    @property
    def all_headers(self) -> Headers:
        """Works as `Reply.all_headers`."""
        return self._head.headers

    def _head_bytes(self, framing: str, keep_alive: bool) -> bytes:
        return self._head.to_bytes(framing, keep_alive=keep_alive)


@lru_cache(maxsize=4)
def _first_lines(status: int, second: int) -> str:
    return f"HTTP/1.1 {status} {_REASONS.get(status, 'Error')}\r\ndate: {http_date(second)}\r\n"


_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def http_date(second: int) -> str:
    """Returns a time as RFC 9110, 5.6.7, has it. `email.utils.formatdate` takes 50,000 instructions.

    Args:
        second: The seconds since the epoch.
    """
    year, month, day, hour, minute, past, weekday, _, _ = time.gmtime(second)
    return "%s, %02d %s %04d %02d:%02d:%02d GMT" % (  # noqa: UP031  # each width in an f-string is a call, if compiled
        _DAYS[weekday], day, _MONTHS[month - 1], year, hour, minute, past,
    )  # fmt: skip


def error_reply(
    error: Error,
    request_id: str,
    body: bytes | None = None,
    headers: Headers | None = None,
    *,
    status: int | None = None,
    close: bool = False,
) -> Reply:
    """Returns the response for an error.

    Args:
        error: The error.
        request_id: The request id, for the body and both request-id headers.
        body: The body in the format of the route; None for the native form.
        headers: Additional headers.
        status: The status if the format of the route differs from the error's status; else None.
        close: Whether to close the connection afterwards.
    """
    if body is None:
        body = encode_json({"error": {**error.payload(), "request_id": request_id}})
    return Reply(status or error.status, body, [*(headers or []), *error_headers(error, request_id)], close=close)


def error_headers(error: Error, request_id: str) -> Headers:
    """Returns the headers of an error response (docs/http-api.md, "Errors")."""
    headers = list(json_headers(request_id))
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers.append(("www-authenticate", "Bearer"))  # RFC 9110, 15.5.2
    if error.code != "internal" or error.phase is None:
        headers.append(("x-should-retry", "true" if error.temporary else "false"))
    if error.temporary and error.retry_after_ms is not None:
        headers.append(("retry-after", str(-(-error.retry_after_ms // 1000))))
        headers.append(("retry-after-ms", str(error.retry_after_ms)))
    return headers


def id_headers(request_id: str) -> Headers:
    """Returns the headers in which the OpenAI and the Anthropic SDK look for the request id."""
    return [("x-request-id", request_id), ("request-id", request_id)]


def json_headers(request_id: str) -> Headers:
    """Returns the headers of a whole JSON response."""
    return [("content-type", "application/json"), ("cache-control", "no-store"), *id_headers(request_id)]
