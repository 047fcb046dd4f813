"""The body of an upstream's response: a stream of frames, one JSON document, or an error. Sans-IO.

Owns the decision which kind a body is, and collects bodies that are not streams, within limits. Reads no frames and no
JSON.

1. A status of 400 or above has an error body. A redirect is refused, as is a content type of neither a stream nor JSON.
   If several content types are named, one of a stream or JSON is enough: proxies append a second header (seen with
   `application/json, text/event-stream`), and rule 2 decides by the body in any case.
2. Otherwise the first byte that is not blank decides. `<` is markup, which is refused. `{` or `[` begins one JSON
   document if the API streams SSE. `[` begins a stream if the API answers in arrays. Anything else is a stream.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Final

from gai_fast.core.adapter import ResponseAPI
from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED

_STREAM_TYPES: Final = frozenset(
    {"", "text/event-stream", "application/x-ndjson", "application/ndjson", "application/jsonl", "application/json"}
)
_BLANK: Final = b" \t\r\n"
_BOM: Final = b"\xef\xbb\xbf"
_NO_HEADERS: Final[dict[str, str]] = {}
"""The headers before any have come: empty, and never changed."""
# First bytes that do not decide the kind.
_UNDECIDED: Final = frozenset((b"", b" ", b"\t", b"\r", b"\n", _BOM[:1]))


class BodyKind(enum.Enum):
    """The kinds of bodies."""

    UNKNOWN = "unknown"  # not decided yet
    STREAM = "stream"
    WHOLE = "whole"  # one JSON document
    ERROR = "error"  # of a status of 400 or above
    IGNORED = "ignored"  # everything that follows is ignored


# Constants: an enum attribute costs 75 ns on 3.11, and every read needs one.
_UNKNOWN: Final[BodyKind] = BodyKind.UNKNOWN
_STREAM: Final[BodyKind] = BodyKind.STREAM
_WHOLE: Final[BodyKind] = BodyKind.WHOLE
_ERROR: Final[BodyKind] = BodyKind.ERROR


class Body:
    """One response's body, up to its frames.

    Args:
        api: The API of the upstream.

    Attributes:
        kind: The kind of the body, if it is known.
        is_array: Whether the stream is one JSON array whose elements are the chunks.
        status: The HTTP status.
        headers: Lower-case names.
    """

    def __init__(self, api: ResponseAPI) -> None:
        self._api = api
        self._buffer: bytearray | None = None  # created on demand: a stream needs none
        self.kind = _UNKNOWN
        self.is_array = False
        self.status = 200
        self.headers = _NO_HEADERS

    def receive_head(self, status: int, headers: dict[str, str]) -> None:
        """Receives the response's status and headers.

        Raises:
            Error: The response is neither a stream, JSON nor an error.
        """
        self.status, self.headers = status, headers
        if status >= 400:
            self.kind = _ERROR
        elif status >= 300:
            raise unavailable(self._api, "redirect", f"answered with a redirect ({status}), which is not followed")
        elif not _is_readable(headers.get("content-type", "")):
            text = "answered with a content type that is neither a stream nor JSON"
            raise unavailable(self._api, "content_type", text)

    def feed(self, data: bytes) -> bytes:
        """Receives bytes of the body, split anywhere.

        Returns:
            The stream's bytes among them. All other bytes are collected.

        Raises:
            Error: The body is markup, or too large.
        """
        if self.kind is _UNKNOWN:
            data = self._recognised(data)
        if self.kind is _STREAM:
            return data
        if self.kind is _ERROR:
            kept = self._kept
            kept += data[: SHARED.error_body - len(kept)]
        elif self.kind is _WHOLE:
            kept = self._kept
            kept += data
            if len(kept) > SHARED.whole_answer:
                raise unavailable(self._api, "answer_too_large", f"sent more than {SHARED.whole_answer} bytes of JSON")
        return b""

    @property
    def _kept(self) -> bytearray:
        """The collected bytes."""
        if self._buffer is None:
            self._buffer = bytearray()
        return self._buffer

    @property
    def is_full(self) -> bool:
        """Whether an error body has reached its limit: the rest is not read."""
        return self.kind is _ERROR and len(self._kept) == SHARED.error_body

    @property
    def collected(self) -> bytes:
        """The bytes so far of a body that is not a stream."""
        return bytes(self._kept)

    @property
    def is_document(self) -> bool:
        """Whether the body so far is part of a JSON document and not of an error."""
        return self._buffer is not None and self.status < 400 and bytes(self._buffer.lstrip()[:1]) in (b"{", b"[")

    def text(self) -> str:
        """Returns the collected bytes as text, without a byte order mark and blanks around it."""
        return self.collected.decode("utf-8", "replace").removeprefix("\ufeff").strip()

    def error(self, now_ms: int | None) -> Error:
        """Returns the error of an error body.

        Args:
            now_ms: Milliseconds since the epoch, for a `Retry-After` date.
        """
        return self._api.decode_error(self.status, self.headers, self.collected, now_ms)

    def mend(self, mended: Callable[[bytes], bytes]) -> None:
        """Replaces the collected bytes by the result of a function."""
        self._kept[:] = mended(bytes(self._kept))

    def _recognised(self, data: bytes) -> bytes:
        """Decides the kind of the body. Returns the bytes to read; none before the decision."""
        first = data[:1]
        if self._buffer is not None or first in _UNDECIDED:
            kept = self._kept
            kept += data
            # After a byte order mark, which may be split, all earlier bytes were blank.
            head = bytes(kept).removeprefix(_BOM) if len(kept) <= len(data) + len(_BOM) else data
            seen = head.lstrip(_BLANK)
            if not seen or _BOM.startswith(seen):
                if len(kept) > SHARED.event:
                    text = f"sent more than {SHARED.event} bytes without an event"
                    raise unavailable(self._api, "event_too_large", text)
                return b""
            first, data = seen[:1], bytes(kept)
            kept.clear()
        if first == b"<":
            raise unavailable(self._api, "content_type", "answered with HTML or XML instead of a stream")
        self.is_array = first == b"[" and self._api.answers_in_arrays
        is_document = first in (b"{", b"[") and not self.is_array and self._api.framing == "sse"
        self.kind = _WHOLE if is_document else _STREAM
        return data


def _is_readable(content_type: str) -> bool:
    """Returns whether a content type, or one of several joined with commas, is one of a stream or of JSON."""
    if content_type in _STREAM_TYPES:  # first: most have no parameters
        return True
    for each in content_type.split(","):
        media = each.partition(";")[0].strip().lower()
        if media and (media in _STREAM_TYPES or media.endswith("+json")):
            return True
    return False


def unavailable(api: ResponseAPI, reason: str, what: str) -> Error:
    """Returns the error for an answer that the client cannot use.

    Args:
        api: The API that answered.
        reason: The error's `reason`.
        what: The fault, for the message.
    """
    return Error("provider_unavailable", f"{api.provider} {what}", reason=reason, provider=api.provider)
