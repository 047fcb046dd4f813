"""The log of a durable stream, as stores keep it and followers read it.

Owns the types that all stores share, and how the bytes of a log are cut between frames. Knows no client and no
upstream. Of the bytes of a log it reads the ends of frames, the numbers of events and, in dropped frames, the text.

1. A piece holds the bytes of one turn of the loop: immutable whole frames, without HTTP's chunk framing and without
   keep-alives, which belong to each client. The log keeps the object that was appended; followers get references.
2. A position is the number of an event of one stream. Stream ids are random and never used twice. Every piece holds at
   least one event, and the last piece holds the end of the stream, so the numbers of pieces rise.
3. A log that has dropped pieces keeps the number of the last dropped event (`Backlog.lost`), so no loss goes unnoticed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple, Protocol

import msgspec

from gai_fast.formats import Framing
from gai_fast.model.errors import Error, GaiFastError
from gai_fast.model.events import SCHEMA

CALLS: Final = "upstream"
"""The format of the log of a call to an upstream (`net/sharing/shared_call.py`). No client receives it."""

# A line end within a JSON string is escaped, so a string never matches.
_SSE_NUMBER: Final = re.compile(rb"^id: (.*)\.([0-9]{1,19})$", re.M)
# The first match in a line is the event's own number: keys have a fixed order, and in a string the quote is escaped.
_NDJSON_NUMBER: Final = re.compile(rb'^\{[^\n]*?"seq":([0-9]{1,19})', re.M)


def _prefixes(kind: str) -> tuple[bytes, ...]:
    """Returns how the JSON of events of a type begins, without and with the envelope: keys have a fixed order."""
    return tuple(f'{{{envelope}"type":"{kind}"'.encode() for envelope in ("", f'"schema":"{SCHEMA}",'))


_DELTA: Final = _prefixes("text.delta")
_RESET: Final = _prefixes("stream.reset")
_GAP: Final = _prefixes("stream.gap")
_STEP_RESET: Final = _prefixes("step.reset")


class LogHeader(NamedTuple):
    """Describes the stream of a log, and the form of its pieces.

    Args:
        stream_id: The stream's id; random, never used before.
        caller: The name of the key of the caller who started the stream. No other caller may read it.
        model: The model in the caller's request.
        format: The name of the wire format.
        framing: `sse` or `ndjson`. `json` if the log's one piece is a whole answer.
        envelope: `compact` or `full`. None for the framing's default.
        request_id: The id of the request that started the stream, for the envelope of other formats.
        trace_id: The 32 hex digits of the request's `traceparent`. None if it had none.
        handovers: How often a worker that stopped let the stream go, and another one took it over.
        dialect: The format of the route on which the stream was started, if the log is in another one.
        usage: Whether clients of that format get the usage, which some must ask for.
    """

    stream_id: str
    caller: str
    model: str
    format: str
    framing: Framing | Literal["json"]
    envelope: Literal["compact", "full"] | None = None
    request_id: str = ""
    trace_id: str | None = None
    handovers: int = 0
    dialect: str = ""
    usage: bool = True

    @property
    def client_format(self) -> str:
        """The format in which a client gets the stream that names none."""
        return self.dialect or self.format

    @property
    def is_numbered(self) -> bool:
        """Whether each frame holds its number, so that a piece can be cut after any of its events."""
        return self.framing == "sse" or (self.framing == "ndjson" and self.format in ("gai", CALLS))


class Ending(NamedTuple):
    """The end of a stream, as in the response to `GET /api/v1/streams/{id}`.

    Args:
        state: The kind of end.
        finish_reason: From the stream's `finish`.
        usage: From its `finish` or `error`.
        error: The payload of its `error`.
        has_content: Whether any content was generated. A stream that failed before may be requested again.
    """

    state: Literal["finished", "failed", "cancelled"]
    finish_reason: str | None = None
    usage: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    has_content: bool = True

    @property
    def is_lost(self) -> bool:
        """Whether the stream's worker was gone before its end. A client may have seen events that are not stored."""
        return self.error is not None and self.error.get("reason") == "worker_lost"


def damaged() -> Error:
    """Returns the error of a copy whose bytes are not what a gateway wrote."""
    return Error("internal", "the store's copy of this stream is damaged", reason="log_damaged")


class Closing(NamedTuple):
    """The end of a log whose owner is gone.

    Args:
        piece: Whole frames. Empty if the log has its last event already.
        last_seq: The number of the last event in them, or of the log's.
        ending: How the stream ended.
        kept: The characters of the log's text. None if they were not needed.
    """

    piece: bytes
    last_seq: int
    ending: Ending
    kept: int | None = None


class TakeOver(NamedTuple):
    """A stream's change of its owner.

    Args:
        former: The name of the worker that is gone. Empty if it has let the stream go.
        worker: The name of the new owner.
        epoch: The new owner's epoch.
        waited: Seconds since the former owner was last known here to live, or since the stream was asked for.
    """

    former: str
    worker: str
    epoch: int
    waited: float


NOTHING_TOLD: Final[Mapping[str, Any]] = MappingProxyType({})
"""What the end of a stream says of it if nothing is known."""


class GoesOn(NamedTuple):
    """How a stream goes on in this process.

    Args:
        begin: Goes on, once this process owns the copy of the stream's log.
        withdraw: Gives back what was taken for it: this process does not own the copy.
        told: As in `EndsInstead`, if it is cancelled before it goes on.
    """

    begin: Callable[[TakeOver], object]
    withdraw: Callable[[], None]
    told: Mapping[str, Any] = NOTHING_TOLD


class EndsInstead(NamedTuple):
    """Why a stream does not go on.

    Args:
        error: The error of its end. None if its worker is gone, and no other goes on.
        is_cancelled: Whether it ends as cancelled, for the reason of the error.
        told: What its `finish` says of it, as far as that is known. An `error` has its `usage` alone.
    """

    error: Error | None = None
    is_cancelled: bool = False
    told: Mapping[str, Any] = NOTHING_TOLD


class NoRoom(GaiFastError):
    """This process goes on with no further stream of a caller. Another one may, or this one later."""


class NotYet(NoRoom):
    """This process does not go on with a stream now. It may go on with others."""


class Backlog(NamedTuple):
    """Bytes of a stream after a certain event.

    Args:
        pieces: The log's own bytes, in order, each whole frames. Must not be changed.
        last_seq: The number of the last event in the pieces. The requested position if there are no pieces.
        lost: The number of the last requested event that the log has dropped; the pieces begin after it. 0 if none is
            missing.
        text: If events are lost, the visible text of the stream up to `lost`. None if the log does not have it: it was
            too long, or the format is not `gai`.
    """

    pieces: list[bytes]
    last_seq: int
    lost: int = 0
    text: str | None = None


class Claim(NamedTuple):
    """An idempotency key that is taken.

    Args:
        stream_id: The stream that answers requests with the key.
        fingerprint: The fingerprint of the request that took the key. Another request with the key is refused.
        at_ms: When the key was taken, in milliseconds since the epoch. The stream of a young claim may not be in the
            store yet.
    """

    stream_id: str
    fingerprint: str
    at_ms: int = 0


class LogWatcher(Protocol):
    """Receives the pieces of a log as they are appended, in order. No call may raise."""

    def advanced(self, piece: bytes, last_seq: int) -> None:
        """Called when one more piece can be read.

        Args:
            piece: The log's own bytes, which must not be changed.
            last_seq: The number of the last event in it.
        """

    def ended(self) -> None:
        """Called when the log has ended or its writer is gone. No call follows."""


class LogGate(Protocol):
    """Decides when an appended piece can be read. No call may raise.

    The journal has one for copies in a store; `MemoryStore`, which the journal imports, knows this protocol only.
    """

    @property
    def held(self) -> int:
        """Bytes that are appended and cannot be read yet, including overhead."""

    def append(self, piece: bytes, last_seq: int) -> None:
        """Accepts a piece, and later calls `StreamLog.publish` with it, in order.

        Args:
            piece: Whole frames, at least one.
            last_seq: The number of the last event in it.
        """

    def end(self, ending: Ending) -> None:
        """Accepts the end of the log, and calls `StreamLog.finish` after the last piece.

        Args:
            ending: How the stream ended.
        """

    def broken_off(self) -> None:
        """Called when the log is broken off: held pieces must not be published."""


def frames_after(block: bytes, header: LogHeader, after: int) -> bytes:
    """Returns the frames of a block that come after an event: none, some, or all.

    Args:
        block: Whole frames.
        header: Describes their form.
        after: The event's number. The event need not have a frame of its own.
    """
    if not header.is_numbered:
        return block
    frame_end = b"\n\n" if header.framing == "sse" else b"\n"
    edge = 0
    for number, at in _numbers(block, header):
        if number > after:
            break
        end = block.find(frame_end, at)
        if end < 0:  # a damaged copy: an exception here would end followers of other streams too
            return b""
        edge = end + len(frame_end)
    return block[edge:]


def _numbers(block: bytes, header: LogHeader) -> Iterator[tuple[int, int]]:
    """Yields the number of each event in a block, and the offset at which that number ends."""
    if header.framing == "ndjson":
        for found in _NDJSON_NUMBER.finditer(block):
            yield int(found[1]), found.end()
        return
    stream_id = header.stream_id.encode()
    for found in _SSE_NUMBER.finditer(block):
        if found[1] == stream_id:
            yield int(found[2]), found.end()


def data_lines(block: bytes) -> Iterator[bytes]:
    """Yields the JSON of each event.

    Args:
        block: Whole frames of the format `gai`, in either framing.
    """
    for line in block.split(b"\n"):
        if line.startswith(b"data: "):
            yield line[6:]
        elif line.startswith(b"{"):
            yield line


class _Delta(msgspec.Struct):
    """The fields of a `text.delta` or a `stream.gap` that are read."""

    text: str | None = None
    choice: Any = None
    first: int = msgspec.field(name="from", default=1)


_read_delta: Final = msgspec.json.Decoder(_Delta).decode


def kept_before_gap(block: bytes) -> int | None:
    """Returns the number of the last event that counts before a `stream.gap`: a new owner of the stream goes on there.

    Args:
        block: As for `data_lines`.

    Returns:
        None if the block does not begin with such an event.

    Raises:
        ValueError: The event cannot be read: the copy of a log may be damaged.
    """
    data = next(data_lines(block), b"")
    return _read_delta(data).first - 1 if data.startswith(_GAP) else None


def add_text(text: bytearray, block: bytes) -> bool:
    """Appends the visible text of a block to the text of the stream before it.

    Args:
        text: The stream's text before the block, in UTF-8. Changed in place.
        block: Whole frames of the format `gai`, in either framing.

    Returns:
        Whether the text is known: the copy of a log may be damaged, or a step is void.
    """
    for data in data_lines(block):
        if data.startswith(_RESET):
            text.clear()  # a reset voids all text before it
        elif data.startswith(_STEP_RESET):
            return False  # it voids a part of the text, whose beginning was not noted
        elif data.startswith((*_DELTA, *_GAP)):
            try:
                event = _read_delta(data)
            except msgspec.DecodeError:
                return False
            if data.startswith(_GAP):
                if event.text is None:  # the new owner did not have it
                    return False
                text[:] = event.text.encode()
            elif not event.choice:
                text += (event.text or "").encode()
    return True
