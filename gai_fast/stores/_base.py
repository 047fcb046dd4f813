"""The replay log of a durable stream: what a store keeps, and what a follower reads.

Owns the words of every store, and how the bytes of a log are cut at the edge of a frame. Knows no client and no
upstream; reads of the bytes only where frames end, their numbers and, of dropped ones, their text.

1. A piece holds the bytes of one turn of the loop: immutable, whole frames, without HTTP's chunk framing and without
   keep-alives, which belong to each client. The log keeps the object that it is given; followers get references.
2. A position is the number of an event of one stream; stream ids are random and never used twice. Every piece holds at
   least one event, and the last one the end of the stream, so the numbers of pieces rise.
3. Nothing is ever missing in silence: a log that has dropped pieces knows up to which event (`Backlog.lost`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, NamedTuple, Protocol

import msgspec

from gai_fast.formats import Framing
from gai_fast.model.events import SCHEMA

CALLS: Final = "upstream"
"""The format of the log of a call to an upstream (`net/sharing/shared_call.py`): no client is sent it."""

# A line end within a text is escaped, so a text never matches.
_SSE_NUMBER: Final = re.compile(rb"^id: (.*)\.([0-9]{1,19})$", re.M)
# The first in its line is the event's own, as keys have a fixed order; in a string the quote is escaped.
_NDJSON_NUMBER: Final = re.compile(rb'^\{[^\n]*?"seq":([0-9]{1,19})', re.M)


def _beginnings(kind: str) -> tuple[bytes, ...]:
    """Returns the prefixes of the JSON of one event type, without and with the envelope: keys have a fixed order."""
    return tuple(f'{{{envelope}"type":"{kind}"'.encode() for envelope in ("", f'"schema":"{SCHEMA}",'))


_DELTA: Final = _beginnings("text.delta")
_RESET: Final = _beginnings("stream.reset")


class LogHeader(NamedTuple):
    """Describes the stream of a log, and how its pieces are written.

    Args:
        stream_id: The stream's id; random, never used before.
        caller: The name of the key whose caller started the stream; no other caller may see it.
        model: The model as its caller asked for it.
        format: The name of the wire format.
        framing: `sse` or `ndjson`; `json`: the one piece is a whole answer.
        envelope: `compact` or `full`. None for the framing's default.
        request_id: The id of the request that started the stream, for the envelope of other formats.
        trace_id: The 32 hex digits of its `traceparent`, if there was one.
    """

    stream_id: str
    caller: str
    model: str
    format: str
    framing: Framing | Literal["json"]
    envelope: Literal["compact", "full"] | None = None
    request_id: str = ""
    trace_id: str | None = None

    @property
    def is_numbered(self) -> bool:
        """Whether each frame holds its number, so that a piece can be cut after any of its events."""
        return self.framing == "sse" or (self.framing == "ndjson" and self.format in ("gai", CALLS))


class Ending(NamedTuple):
    """The end of a stream, as in the answer to `GET /api/v1/streams/{id}`.

    Args:
        state: The kind of end.
        finish_reason: From its `finish`.
        usage: From its `finish` or `error`.
        error: The payload of its `error`.
        has_content: Whether any of the answer was generated; one that failed before that may be asked for again.
    """

    state: Literal["finished", "failed", "cancelled"]
    finish_reason: str | None = None
    usage: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    has_content: bool = True


class Backlog(NamedTuple):
    """Bytes of a stream after a certain event.

    Args:
        pieces: In order, each whole frames: the log's own bytes, which must not be changed.
        last_seq: The number of the last event in them; the requested position if there are none.
        lost: The number of the last event that was asked for and is no longer there: the pieces begin after it. 0: none
            is missing.
        text: Where events are lost, the visible text of the stream up to `lost`; `None` where the log does not have it:
            it was too long, or the format is not `gai`.
    """

    pieces: list[bytes]
    last_seq: int
    lost: int = 0
    text: str | None = None


class Claim(NamedTuple):
    """An idempotency key that is taken.

    Args:
        stream_id: The stream that answers its requests.
        fingerprint: The fingerprint of the request that took it: the same key with another request is refused.
        at_ms: When it was taken, in milliseconds since the epoch: the stream of a young claim may not be known yet.
    """

    stream_id: str
    fingerprint: str
    at_ms: int = 0


class LogWatcher(Protocol):
    """Follows the end of a log. Is called at once, in order; no call may raise."""

    def advanced(self, piece: bytes, last_seq: int) -> None:
        """Called when one more piece can be read.

        Args:
            piece: The log's own bytes, which must not be changed.
            last_seq: The number of the last event in it.
        """

    def ended(self) -> None:
        """Called when the log has ended or its writer is gone; nothing more follows."""


class LogGate(Protocol):
    """Decides when what is appended to a log can be read. No call may raise."""

    @property
    def held(self) -> int:
        """Bytes that are appended and cannot be read yet, with the cost of keeping them."""

    def append(self, piece: bytes, last_seq: int) -> None:
        """A piece comes: sooner or later it calls `StreamLog.publish`, in order.

        Args:
            piece: Whole frames, at least one.
            last_seq: The number of the last event in it.
        """

    def end(self, ending: Ending) -> None:
        """The log ends: after the last piece it calls `StreamLog.finish`.

        Args:
            ending: How the stream ended.
        """

    def broken_off(self) -> None:
        """The log is broken off: what it holds is published no more."""


def frames_after(block: bytes, header: LogHeader, after: int) -> bytes:
    """Returns the frames of a block that come after an event: none, all, or those from the edge of a frame on.

    Args:
        block: Whole frames.
        header: How they are written.
        after: The event's number; it need not have a frame of its own.
    """
    if not header.is_numbered:
        return block
    frame_end = b"\n\n" if header.framing == "sse" else b"\n"
    edge = 0
    for number, at in _numbers(block, header):
        if number > after:
            break
        end = block.find(frame_end, at)
        if end < 0:  # of a copy that is damaged: no exception of its own may end the followers of others
            return b""
        edge = end + len(frame_end)
    return block[edge:]


def _numbers(block: bytes, header: LogHeader) -> Iterator[tuple[int, int]]:
    """Returns the number of each event in a block and the offset of its end."""
    if header.framing == "ndjson":
        for found in _NDJSON_NUMBER.finditer(block):
            yield int(found[1]), found.end()
        return
    stream_id = header.stream_id.encode()
    for found in _SSE_NUMBER.finditer(block):
        if found[1] == stream_id:
            yield int(found[2]), found.end()


def data_lines(block: bytes) -> Iterator[bytes]:
    """Returns the JSON of each event.

    Args:
        block: Whole frames of the format `gai`, in either framing.
    """
    for line in block.split(b"\n"):
        if line.startswith(b"data: "):
            yield line[6:]
        elif line.startswith(b"{"):
            yield line


class _Delta(msgspec.Struct):
    """The part of a `text.delta` that says something."""

    text: str = ""
    choice: Any = None


_read_delta: Final = msgspec.json.Decoder(_Delta).decode


def add_text(text: bytearray, block: bytes) -> bool:
    """Appends the visible text of a block to the stream's text before it.

    Args:
        text: The text before the block, UTF-8; becomes that up to the end of the block.
        block: Whole frames of the format `gai`, in either framing.

    Returns:
        Whether it could be read: the copy of a log may be damaged.
    """
    for data in data_lines(block):
        if data.startswith(_RESET):
            text.clear()  # all of it is void
        elif data.startswith(_DELTA):
            try:
                delta = _read_delta(data)
            except msgspec.DecodeError:
                return False
            if not delta.choice:
                text += delta.text.encode()
    return True
