"""Responses that are no stream: their bytes, and errors as responses.

Owns the response head and the headers that every answer has. Knows no route and no connection.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Final

from gai_fast._impl import encode_json
from gai_fast.errors import Error

Headers = list[tuple[str, str]]


class Reply:
    """A whole response.

    Args:
        status: The HTTP status.
        body: Its bytes.
        headers: Without `content-length` and `connection`, which are added.
        close: Close the connection afterwards: not all of the request has been read, or nobody knows where it ends.
    """

    __slots__ = ("body", "close", "headers", "status")

    def __init__(self, status: int, body: bytes = b"", headers: Headers | None = None, *, close: bool = False) -> None:
        self.status = status
        self.body = body
        self.headers = headers or []
        self.close = close

    def to_bytes(self, *, keep_alive: bool, head_only: bool = False) -> bytes:
        """The response as it goes on the wire."""
        headers = self.headers
        if self.status not in (204, 304):  # RFC 9110, 8.6: these never have a length
            headers = [*headers, ("content-length", str(len(self.body)))]
        head = head_bytes(self.status, headers, keep_alive)
        return head if head_only else head + self.body


_REASONS: Final[Mapping[int, str]] = {status.value: status.phrase for status in HTTPStatus}


def head_bytes(status: int, headers: Headers, keep_alive: bool) -> bytes:
    """A response head.

    Raises:
        ValueError: A header holds a line end or a NUL; the text names it.
    """
    lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Error')}", f"date: {_date(int(time.time()))}"]
    for name, value in headers:
        if not value.isprintable() or not value.isascii():
            raise ValueError(f"header {name!r} cannot be written: it holds control or non-ASCII characters")
        lines.append(f"{name}: {value}")
    if not keep_alive:
        lines.append("connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)


def error_reply(
    error: Error, request_id: str, body: bytes | None = None, headers: Headers | None = None, *, close: bool = False
) -> Reply:
    """The response for an error.

    Args:
        error: What went wrong.
        request_id: Told in the body and in both request-id headers.
        body: In the format of the route; the native shape where not given.
        headers: More headers.
        close: Close the connection afterwards.
    """
    if body is None:
        body = encode_json({"error": {**error.payload(), "request_id": request_id}})
    return Reply(error.status, body, [*(headers or []), *error_headers(error, request_id)], close=close)


def error_headers(error: Error, request_id: str) -> Headers:
    """The headers of an error response (CONTRACT §4 "Headers")."""
    headers = json_headers(request_id)
    if error.code != "internal" or error.phase is None:
        headers.append(("x-should-retry", "true" if error.temporary else "false"))
    if error.temporary and error.retry_after_ms is not None:
        headers.append(("retry-after", str(-(-error.retry_after_ms // 1000))))
        headers.append(("retry-after-ms", str(error.retry_after_ms)))
    return headers


def id_headers(request_id: str) -> Headers:
    """The request id, as the OpenAI and as the Anthropic SDK look for it."""
    return [("x-request-id", request_id), ("request-id", request_id)]


def json_headers(request_id: str) -> Headers:
    """The headers of a JSON response that is no stream."""
    return [("content-type", "application/json"), ("cache-control", "no-store"), *id_headers(request_id)]
