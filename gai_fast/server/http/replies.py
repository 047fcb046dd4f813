"""Whole responses, the heads of streams, and errors as responses.

Owns the response head and the headers that every answer has. Knows no route and no connection.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from email.utils import formatdate
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
        body: Its bytes.
        headers: Without `content-length` and `connection`, which are added.
        close: Close the connection afterwards: not all of the request has been read, or its end is unknown.
        has_length: The answer to a GET would have a `content-length`; that of a stream has none (RFC 9110, 8.6).
    """

    __slots__ = ("body", "close", "has_length", "headers", "status")

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

    def to_bytes(self, *, keep_alive: bool, head_only: bool = False) -> bytes:
        """The response as it goes on the wire."""
        headers = self.headers
        if self.has_length:
            headers = [*headers, ("content-length", str(len(self.body)))]
        head = head_bytes(self.status, headers, keep_alive)
        return head if head_only else head + self.body


_REASONS: Final[Mapping[int, str]] = {status.value: status.phrase for status in HTTPStatus}


def head_bytes(status: int, headers: Headers, keep_alive: bool) -> bytes:
    """A response head.

    Raises:
        ValueError: A header holds a line end or a NUL; the text names it.
    """
    return f"{_first_lines(status, int(time.time()))}{_lines(headers, keep_alive)}\r\n".encode("ascii")


_STREAM_HEADERS: Final = (
    ("cache-control", "no-cache, no-store, no-transform"),
    ("x-accel-buffering", "no"),
    ("x-content-type-options", "nosniff"),
)


def header_lines(headers: Headers) -> str:
    """The lines of headers that are known to be fit for a head."""
    return "".join([f"{name}: {value}\r\n" for name, value in headers])


_STREAM_LINES: Final = header_lines(_STREAM_HEADERS)
_time: Final[Callable[[], float]] = time.time  # a constant, because to look a name up costs 30 ns


class _Opening:
    """The lines with which the heads of streams begin: the same for a second.

    Attributes:
        known: The second, the media type, and their lines: together, because another thread may replace them.
    """

    __slots__ = ("known",)

    def __init__(self) -> None:
        self.known = (0, "", "")

    def lines(self, second: int, media_type: str) -> str:
        """Returns them."""
        known = self.known
        if known[0] == second and known[1] == media_type:
            return known[2]
        lines = f"{_first_lines(200, second)}content-type: {media_type}\r\n{_STREAM_LINES}x-request-id: "
        self.known = (second, media_type, lines)
        return lines


_OPENING: Final = _Opening()


class StreamHead:
    """The head of a stream's response, status 200.

    Args:
        media_type: The `content-type`.
        request_id: Fit for a header.
        stream_id: Fit for a header.
        more: Further headers.
    """

    __slots__ = ("_media_type", "_more", "_request_id", "_stream_id")

    def __init__(self, media_type: str, request_id: str, stream_id: str, more: Headers = ()) -> None:
        self._media_type = media_type
        self._request_id = request_id
        self._stream_id = stream_id
        self._more = more

    @property
    def headers(self) -> Headers:
        """All headers but those of framing and connection."""
        ids = (*id_headers(self._request_id), ("x-gai-stream-id", self._stream_id))
        return [("content-type", self._media_type), *_STREAM_HEADERS, *ids, *self._more]

    def to_bytes(self, framing: str, *, keep_alive: bool) -> bytes:
        """The head as it goes on the wire.

        The lines that streams have in common are joined once a second: line by line costs a request 0.9 us more.

        Args:
            framing: The headers of the body's framing, from `header_lines`.
            keep_alive: Another request may follow on the connection.

        Raises:
            ValueError: As `head_bytes`.
        """
        request_id = self._request_id
        opening = _OPENING.lines(int(_time()), self._media_type)
        more = "" if keep_alive and not self._more else _lines(self._more, keep_alive)
        return (
            f"{opening}{request_id}\r\nrequest-id: {request_id}\r\nx-gai-stream-id: {self._stream_id}\r\n"
            f"{more}{framing}\r\n"
        ).encode("ascii")


@lru_cache(maxsize=4)
def _first_lines(status: int, second: int) -> str:
    return f"HTTP/1.1 {status} {_REASONS.get(status, 'Error')}\r\ndate: {formatdate(second, usegmt=True)}\r\n"


def _lines(headers: Headers, keep_alive: bool) -> str:
    """The other lines of a head."""
    lines = "" if keep_alive else "connection: close\r\n"
    for name, value in headers:
        if not value.isprintable() or not value.isascii():
            raise ValueError(f"header {name!r} cannot be written: it holds control or non-ASCII characters")
        lines += f"{name}: {value}\r\n"
    return lines


def error_reply(
    error: Error,
    request_id: str,
    body: bytes | None = None,
    headers: Headers | None = None,
    *,
    status: int | None = None,
    close: bool = False,
) -> Reply:
    """The response for an error.

    Args:
        error: The error.
        request_id: Written in the body and in both request-id headers.
        body: In the format of the route; the native shape where not given.
        headers: More headers.
        status: Where the format of the route has another one for this error.
        close: Close the connection afterwards.
    """
    if body is None:
        body = encode_json({"error": {**error.payload(), "request_id": request_id}})
    return Reply(status or error.status, body, [*(headers or []), *error_headers(error, request_id)], close=close)


def error_headers(error: Error, request_id: str) -> Headers:
    """The headers of an error response (docs/http-api.md, "Errors")."""
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
    """The headers in which the OpenAI and the Anthropic SDK look for the request id."""
    return [("x-request-id", request_id), ("request-id", request_id)]


def json_headers(request_id: str) -> Headers:
    """The headers of a whole JSON response."""
    return [("content-type", "application/json"), ("cache-control", "no-store"), *id_headers(request_id)]
