"""Events and objects → SSE frames and NDJSON lines (docs/http-api.md).

Owns the two envelopes, the numbering, the two framings and the reusable buffer. Knows no format besides `gai`, no
connections, and not the meaning of events.
"""

from __future__ import annotations

import operator
import re
import sys
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final

from gai_fast.kernels._pure import faults
from gai_fast.kernels._pure.jsontext import encode_json, well_formed
from gai_fast.kernels._pure.limits import LIMITS
from gai_fast.kernels._pure.relay import Part
from gai_fast.model.events import KEY_RANK, KEYS, SCHEMA, TYPES, is_empty
from gai_fast.model.halves import Halves, joined
from gai_fast.model.limits import SHARED

_LINE_END: Final = re.compile(r"\r\n|\r|\n")
"""The line ends of WHATWG HTML 9.2.5. `str.splitlines` would also split at U+2028, U+0085 and more."""

_PRINTABLE: Final = re.compile(r"[ -~]*")
_STREAM_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,100}")
_UNSAFE: Final = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
EXACT_END: Final = 2**53
"""Every JSON reader keeps integers below this value exact (RFC 8259 §6)."""


# ---- single values -------------------------------------------------------------------------------------------------


def encode_sse(data: Any, *, event: str | None = None, id: str | None = None, retry: int | None = None) -> bytes:
    """Returns one SSE frame, fields in the order `event`, `id`, `retry`, `data`, then the blank line.

    Args:
        data: A `str` or bytes-like object is written as text, one `data:` line for each of its lines (CRLF, CR and LF
            end a line; bytes are UTF-8, invalid bytes become U+FFFD). Any other object is written as JSON.
        event: The event's name; no control or format characters, at most `limits.event_name` characters.
        id: The event's id; no control or format characters, at most `limits.identifier` characters. An empty id makes
            the client forget its last id.
        retry: Milliseconds until a client reconnects, 0 or more.

    Raises:
        ValueError: A field is invalid, or `data` has no JSON form.
    """
    lines = []
    if event is not None:
        lines.append(f"event: {field_value('event', event, LIMITS.event_name, 'event_name')}\n")
    if id is not None:
        lines.append(f"id: {field_value('id', id, SHARED.identifier, 'identifier')}\n")
    if retry is not None:
        lines.append(f"retry: {checked_retry(retry)}\n")
    head = "".join(lines).encode()
    if isinstance(data, (bytes, bytearray, memoryview)):
        data = bytes(data).decode("utf-8", "replace")
    if isinstance(data, str):
        return head + _prefixed("data: ", data) + b"\n"
    return b"%bdata: %b\n\n" % (head, encode_json(data))


def encode_ndjson(obj: Any) -> bytes:
    """Returns the object as one line of JSON, with its LF.

    Raises:
        ValueError: The object has no JSON form.
    """
    return encode_json(obj) + b"\n"


def field_value(name: str, value: str, limit: int, limit_name: str) -> str:
    """Returns the value if it may be written into a field of one line; otherwise raises.

    Line ends would forge fields. A `Last-Event-ID` header cannot hold other controls, NUL makes a client ignore the id,
    and format characters hide text.
    """
    if not isinstance(value, str):
        raise faults.not_text(name, value)
    if len(value) > limit:
        raise faults.field_too_long(name, limit, limit_name)
    if not _PRINTABLE.fullmatch(value):
        for character in value:
            if unicodedata.category(character) in _UNSAFE:
                raise faults.field_unsafe(name, character)
    return str.__str__(value)  # the text itself: a subclass may have its own __str__ or __format__


def checked_retry(retry: int) -> int:
    """Returns the milliseconds if they are valid for `retry:`; otherwise raises."""
    if type(retry) is not int or not 0 <= retry < 10**LIMITS.retry_digits:
        raise faults.bad_retry(LIMITS.retry_digits)
    return retry


def _prefixed(prefix: str, text: str) -> bytes:
    written = "".join(f"{prefix}{line}\n" for line in _LINE_END.split(text))
    try:
        return written.encode()
    except UnicodeEncodeError:
        return well_formed(written).encode()


# ---- one event -----------------------------------------------------------------------------------------------------


def event_type(event: dict[str, Any]) -> str:
    """Returns the event's type, which becomes the SSE event's name."""
    if not isinstance(event, dict):
        raise faults.not_an_event(event)
    name = event.get("type")
    if not isinstance(name, str) or not name:
        raise faults.no_type()
    name = field_value("type", name, LIMITS.event_name, "event_name")
    if name not in TYPES:
        refuse_misspelt(name)
    return name


def refuse_misspelt(name: str) -> None:
    """Raises if a type that is not known is a misspelt name of a known type. Other types are a program's own.

    A name is misspelt if it has the letters of a known one in another order or with other marks between them, or lacks
    one letter of a long one.
    """
    if len(name) > _LONGEST_TYPE or not name.isascii() or any(map(str.isdigit, name)):
        return
    letters = _letters(name)
    for known in sorted(TYPES):
        of_known = _letters(known)
        lacks_one = len(letters) == len(of_known) - 1 >= _MISSES_ONE and _is_part(name, known)
        if letters == of_known or lacks_one:
            raise faults.misspelt_type(name, known)


_LONGEST_TYPE: Final = 2 * max(map(len, TYPES))
_MISSES_ONE: Final = 5
"""Letters from which on a name that lacks one letter of a type counts as misspelt. Shorter ones may be other words."""


def _letters(name: str) -> list[str]:
    return sorted(filter(str.isalpha, name.lower()))


def _is_part(name: str, known: str) -> bool:
    """Returns whether the letters of a name stand in a known one, in their order."""
    rest = iter(known)
    return all(letter in rest for letter in name.lower() if letter.isalpha())


def event_seq(event: dict[str, Any], last: int) -> int:
    """Returns the event's own number; if it has no number, the number after `last`."""
    seq = event.get("seq")
    if seq is None:
        return last + 1
    if type(seq) is not int or not 0 <= seq < EXACT_END:
        raise faults.bad_seq()
    return seq


def checked_ts(ts: float) -> int:
    """Returns the clock's value as whole milliseconds."""
    if not 0 <= ts < EXACT_END:
        raise faults.bad_clock()
    return int(ts)


def ordered(event: dict[str, Any], envelope: dict[str, Any]) -> dict[str, Any]:
    """Returns the event as it is written: with missing keys from the envelope, without empty values, keys in order."""
    held = {key: value for key, value in event.items() if not is_empty(value)}
    for key, value in envelope.items():
        held.setdefault(key, value)
    return {key: held[key] for key in sorted(held, key=_rank)}


def _rank(key: str) -> int:
    return KEY_RANK.get(key, len(KEYS))


def encode_done(event: dict[str, Any]) -> bytes:
    """Returns the JSON of `done`: the same bytes in both envelopes, regardless of the event's other keys."""
    finished = event.get("finished")
    if not isinstance(finished, bool):
        raise faults.bad_finished()
    return b'{"type":"done","finished":true}' if finished else b'{"type":"done","finished":false}'


# ---- how a delta is written ------------------------------------------------------------------------------------------

_TEXT: Final = object()
_SEQ: Final = object()
_TS: Final = object()
_PARTS: Final[Mapping[int, Part]] = {id(_TEXT): "text", id(_SEQ): "seq", id(_TS): "ts"}
"""The part that each placeholder becomes. A placeholder stands for a value that differs from delta to delta."""


def delta_parts(
    event: dict[str, Any],
    key: str,
    *,
    sse: bool,
    stream_id: str | None,
    envelope: Mapping[str, Any],
    is_timed: bool,
) -> list[Part]:
    """Returns the parts of a delta's frame, built member by member.

    Args:
        event: The delta.
        key: The key that holds the text.
        sse: Whether the framing is SSE; otherwise NDJSON.
        stream_id: The stream's id for `id:` lines. `None` if there are no such lines.
        envelope: The keys that the envelope adds to each event, besides `seq` and `ts`.
        is_timed: Whether an event without `ts` gets the clock's.

    Raises:
        ValueError: As `_Encoder.event`.
    """
    name = event_type(event)
    added = {**envelope, "seq": _SEQ}
    if is_timed and event.get("ts") is None:
        added["ts"] = _TS
    held = ordered({**event, "seq": _SEQ, key: _TEXT}, added)
    parts: list[Part] = []
    if sse:
        parts = [b"event: %b\n" % name.encode()]
        if stream_id is not None:
            parts += [b"id: %b." % stream_id.encode(), "seq", b"\n"]
        parts.append(b"data: ")
    lead = b"{"
    for name, value in held.items():
        parts.append(b"%b%b:" % (lead, encode_json(name)))
        lead = b","
        part = _PARTS.get(id(value))
        if part is None:
            parts.append(encode_json(value))
        elif part == "text":
            parts += [b'"', part, b'"']
        else:
            parts.append(part)
    parts.append(b"}\n\n" if sse else b"}\n")
    return joined_parts(parts)


def joined_parts(parts: Sequence[Part]) -> list[Part]:
    """Returns the parts with adjacent bytes joined."""
    joined: list[Part] = []
    for part in parts:
        if joined and isinstance(part, bytes) and isinstance(joined[-1], bytes):
            joined[-1] += part
        else:
            joined.append(part)
    return joined


# ---- encoders ------------------------------------------------------------------------------------------------------


class EncoderView:
    """A context manager that gives the encoder's memory without a copy. Leaving the block empties the buffer."""

    __slots__ = ("_encoder", "_view")

    def __init__(self, encoder: _Encoder) -> None:
        self._encoder = encoder
        self._view: memoryview | None = None

    def __enter__(self) -> memoryview:
        encoder = self._encoder
        encoder._refuse_while_viewed()
        encoder._viewed = True
        self._view = memoryview(encoder._buffer).toreadonly()
        return self._view

    def __exit__(self, *_: object) -> None:
        encoder, view = self._encoder, self._view
        if view is None:
            return
        self._view = None
        encoder._viewed = False
        try:
            view.release()
            encoder._buffer.clear()
        except BufferError:
            # A transport still holds the memory and keeps it unchanged. The encoder continues with new memory.
            encoder._buffer = bytearray()


class _Encoder(ABC):
    """The part that both framings share: envelope, numbers, buffer.

    A high surrogate at the end of a delta waits for the next delta of its type, choice and call, and both become one
    character. A half whose other half does not come becomes U+FFFD, before the event that ends its text.

    Args:
        envelope (str): `"compact"` (schema, ts and the ids only on the first event) or `"full"` (on every event).
        stream_id (str or None): The stream's id: 1 to 100 characters of `[A-Za-z0-9_-]`. If given, SSE frames have an
            `id:` line.
        request_id (str or None): The request's id. If given, the envelope has it.
        trace_id (str or None): The trace's id. If given, the envelope has it.
        clock (callable or None): Returns milliseconds since the epoch as an `int`, below 2**53. It must not write with
            the encoder. Without a clock only events with their own `ts` have a `ts`.
        capacity (int): The first size of the buffer in bytes; the buffer shrinks back to it.
        timestamps (bool): Whether every event has a `ts` with the compact envelope, too.

    Raises:
        ValueError: An argument is invalid.
    """

    _sse: ClassVar[bool]

    __slots__ = (
        "_buffer",
        "_clock",
        "_envelope",
        "_first",
        "_full",
        "_halves",
        "_seq",
        "_stream_id",
        "_timestamps",
        "_viewed",
    )

    def __init__(
        self,
        envelope: str,
        stream_id: str | None = None,
        request_id: str | None = None,
        trace_id: str | None = None,
        clock: Callable[[], int] | None = None,
        capacity: int = LIMITS.encoder_capacity,
        *,
        timestamps: bool = False,
    ) -> None:
        self._full, self._envelope = checked_envelope(envelope, request_id, trace_id)
        self._stream_id = checked_stream_id(stream_id)
        self._clock = clock
        self._timestamps = timestamps
        checked_capacity(capacity)
        self._buffer = bytearray()
        self._viewed = False
        self._first = True
        self._seq = 0
        self._halves: Halves = {}

    def text_delta(self, text: str, /) -> None:
        """Appends a `text.delta` event. A high surrogate at the end of the text waits for the next one.

        Args:
            text (str): The text, of any length.

        Raises:
            ValueError: `text` is not a `str`.
            BufferError: A view is exported.
        """
        self._append(_delta("text.delta", text), None)

    def reasoning_delta(self, text: str, /) -> None:
        """Appends a `reasoning.delta` event, as `text_delta` does.

        Args:
            text (str): The text, of any length.

        Raises:
            ValueError: `text` is not a `str`.
            BufferError: A view is exported.
        """
        self._append(_delta("reasoning.delta", text), None)

    def text_delta_into(self, buffer: Any, offset: int, text: str) -> int:
        """Writes a `text.delta` event into the caller's memory.

        Args:
            buffer (bytearray or another writable, contiguous buffer): The memory.
            offset (int): The offset in bytes at which the frame begins.
            text (str): The text.

        Returns:
            int: The number of bytes written; 0 if the text is a half that waits.

        Raises:
            BufferError: The buffer is too small; `needed` of the error is the size of the frame. Nothing was written,
                and the event got no number.
            TypeError: `buffer` is not writable or not contiguous.
            ValueError: `offset` is negative, or `text` is not a `str`.
        """
        return self._place(_delta("text.delta", text), buffer, offset)

    def reasoning_delta_into(self, buffer: Any, offset: int, text: str) -> int:
        """Writes a `reasoning.delta` event into the caller's own memory, as `text_delta_into` does."""
        return self._place(_delta("reasoning.delta", text), buffer, offset)

    def event_into(self, buffer: Any, offset: int, event: dict[str, Any]) -> int:
        """Writes any event into the caller's own memory, as `text_delta_into` does."""
        return self._place(event, buffer, offset)

    def delta_parts(self, event: dict[str, Any], key: str) -> Sequence[Part]:
        """Returns the parts of this delta's frame, for any text and any numbers.

        The frame of a stream's first event has more parts.

        Args:
            event: The delta.
            key: The key that holds the text.

        Raises:
            ValueError: As `event`.
        """
        return delta_parts(
            event,
            key,
            sse=self._sse,
            stream_id=self._stream_id,
            envelope=self._envelope if self._full else {},
            is_timed=self._clock is not None and (self._full or self._timestamps),
        )

    def append_frames(self, frames: bytes, count: int, characters: int = 0) -> None:
        """Appends frames that a `DeltaCopier` has written, and counts their events. Ignores `characters`.

        Raises:
            BufferError: A view is exported.
        """
        self._refuse_while_viewed()
        self._buffer += frames
        self._count(self._seq + count)

    def take(self) -> bytes:
        """Returns the pending bytes and empties the buffer.

        Raises:
            BufferError: A view is exported.
        """
        self._refuse_while_viewed()
        taken = bytes(self._buffer)
        self._buffer.clear()
        return taken

    def take_pieces(self) -> list[bytes]:
        """Returns the pending bytes as pieces, without joining them, and empties the buffer.

        Raises:
            BufferError: A view is exported.
        """
        taken = self.take()
        return [taken] if taken else []

    def view(self) -> EncoderView:
        """Returns a context manager that gives the pending bytes as a read-only `memoryview`, without a copy.

        Inside the block the encoder refuses to write. Leaving the block empties the buffer, as `take` does. If an
        object still holds the memory then (a transport with a slice of it), the memory stays unchanged.
        """
        return EncoderView(self)

    def __len__(self) -> int:
        """Returns the number of pending bytes."""
        return len(self._buffer)

    @property
    def seq(self) -> int:
        """The number of the last event; 0 before the first event."""
        return self._seq

    def _append(self, event: dict[str, Any], retry: int | None) -> None:
        self._refuse_while_viewed()

        def append(frames: bytes) -> None:
            self._buffer += frames

        self._write(event, retry, append)

    def _place(self, event: dict[str, Any], buffer: Any, offset: int) -> int:
        return self._write(event, None, lambda frames: place(frames, buffer, offset))

    def _write(self, event: dict[str, Any], retry: int | None, store: Callable[[bytes], None]) -> int:
        """Stores the frames of an event and counts its events; returns their size. If it raises, nothing changes."""
        before = self._seq, self._first
        halves: Halves = dict(self._halves)
        frames = b""
        is_stored = False
        try:
            for each in joined(halves, event):
                frame, seq = self._encode(each, retry)
                self._count(seq)
                frames, retry = frames + frame, None
            store(frames)
            is_stored = True
        finally:
            if frames and not is_stored:  # without frames nothing has been counted
                self._seq, self._first = before
        self._halves = halves
        return len(frames)

    def _count(self, seq: int | None) -> None:
        if seq is not None:
            self._seq = seq
            self._first = False

    def _encode(self, event: dict[str, Any], retry: int | None) -> tuple[bytes, int | None]:
        """Returns the frame and the event's number, without counting the event."""
        if retry is not None:
            checked_retry(retry)
        name = event_type(event)
        if name == "done":
            return self._frame(name, None, encode_done(event), retry), None
        seq = event_seq(event, self._seq)
        envelope: dict[str, Any] = {"seq": seq}
        has_envelope = self._full or self._first
        if has_envelope:
            envelope.update(self._envelope)
        if self._clock is not None and (has_envelope or self._timestamps) and event.get("ts") is None:
            envelope["ts"] = self._now(self._clock)
        return self._frame(name, seq, encode_json(ordered(event, envelope)), retry), seq

    def _now(self, clock: Callable[[], int]) -> int:
        before = self._seq, self._first
        ts = checked_ts(clock())
        if (self._seq, self._first) != before:
            raise faults.encoded_within_clock()
        return ts

    @abstractmethod
    def _frame(self, name: str, seq: int | None, written: bytes, retry: int | None) -> bytes:
        """Returns one event's JSON in the framing; `seq` is `None` for `done`."""

    def _refuse_while_viewed(self) -> None:
        if self._viewed:
            raise faults.viewed()


class SSEEncoder(_Encoder):
    """Encodes `gai.events.v1` as SSE into one reusable buffer. Only one thread may use it at a time."""

    __slots__ = ()
    __doc__ = f"{__doc__}\n\n{_Encoder.__doc__}"
    has_blocks = False
    collects_text = False
    _sse = True

    def __init__(
        self,
        envelope: str = "compact",
        stream_id: str | None = None,
        request_id: str | None = None,
        trace_id: str | None = None,
        clock: Callable[[], int] | None = None,
        capacity: int = LIMITS.encoder_capacity,
        *,
        timestamps: bool = False,
    ) -> None:
        super().__init__(envelope, stream_id, request_id, trace_id, clock, capacity, timestamps=timestamps)

    def event(self, event: dict[str, Any], retry: int | None = None) -> None:
        """Appends any event.

        Args:
            event (dict): A `gai_fast.Event`. Keys are written in the order of docs/events.md, unknown keys last, empty
                values not.
            retry (int or None): Milliseconds for a `retry:` line, for the first frame of a resumable stream.

        Raises:
            ValueError: The `type` is missing, invalid or a misspelt name of a known type, `seq` is invalid, or a value
                has no JSON form. Nothing was written.
            BufferError: A view is exported.
        """
        self._append(event, retry)

    def comment(self, text: str) -> None:
        r"""Appends a comment, each line as `: line\n`, without a blank line: OpenAI's Python SDK reads those as events.

        Raises:
            ValueError: `text` is not a `str`.
            BufferError: A view is exported.
        """
        if not isinstance(text, str):
            raise faults.not_text("comment", text)
        self._refuse_while_viewed()
        self._buffer += _prefixed(": ", text)

    def heartbeat(self) -> None:
        """Appends a keep-alive."""
        self.comment("ping")

    def copied(self, event: dict[str, Any], text: str) -> None:
        """Does nothing: this encoder keeps no text."""

    def _frame(self, name: str, seq: int | None, written: bytes, retry: int | None) -> bytes:
        event_id = None if self._stream_id is None or seq is None else f"{self._stream_id}.{seq}"
        head = f"event: {name}\n"
        if event_id is not None:
            head += f"id: {event_id}\n"
        if retry is not None:
            head += f"retry: {retry}\n"
        return b"%bdata: %b\n\n" % (head.encode(), written)


class NDJSONEncoder(_Encoder):
    """Encodes `gai.events.v1` as NDJSON into one reusable buffer. Only one thread may use it at a time."""

    __slots__ = ()
    __doc__ = f"{__doc__}\n\n{_Encoder.__doc__}"
    has_blocks = False
    collects_text = False
    _sse = False

    def __init__(
        self,
        envelope: str = "full",
        stream_id: str | None = None,
        request_id: str | None = None,
        trace_id: str | None = None,
        clock: Callable[[], int] | None = None,
        capacity: int = LIMITS.encoder_capacity,
        *,
        timestamps: bool = False,
    ) -> None:
        super().__init__(envelope, stream_id, request_id, trace_id, clock, capacity, timestamps=timestamps)

    def event(self, event: dict[str, Any]) -> None:
        """Appends any event.

        Args:
            event (dict): A `gai_fast.Event`. Keys are written in the order of docs/events.md, unknown keys last, empty
                values not.

        Raises:
            ValueError: The `type` is missing, invalid or a misspelt name of a known type, `seq` is invalid, or a value
                has no JSON form. Nothing was written.
            BufferError: A view is exported.
        """
        self._append(event, None)

    def comment(self, text: str) -> None:
        """Appends an empty line: NDJSON has no comments, and its readers skip empty lines.

        Args:
            text (str): Is left out.

        Raises:
            ValueError: `text` is not a `str`.
            BufferError: A view is exported.
        """
        if not isinstance(text, str):
            raise faults.not_text("comment", text)
        self._refuse_while_viewed()
        self._buffer += b"\n"

    def heartbeat(self) -> None:
        """Appends a keep-alive."""
        self.comment("")

    def copied(self, event: dict[str, Any], text: str) -> None:
        """Does nothing: this encoder keeps no text."""

    def _frame(self, name: str, seq: int | None, written: bytes, retry: int | None) -> bytes:
        return written + b"\n"


def _delta(name: str, text: str) -> dict[str, Any]:
    if not isinstance(text, str):
        raise faults.not_text("text", text)
    return {"type": name, "text": text}


def checked_envelope(envelope: str, request_id: str | None, trace_id: str | None) -> tuple[bool, dict[str, Any]]:
    """Returns whether the envelope is full, and its keys without empty values."""
    if envelope not in ("compact", "full"):
        raise faults.bad_envelope(envelope)
    written = {"schema": SCHEMA, "trace_id": trace_id, "request_id": request_id}
    for key, value in written.items():
        if value is not None and not isinstance(value, str):
            raise faults.not_text(key, value)
    # The text itself, as in `field_value`.
    return envelope == "full", {key: str.__str__(value) for key, value in written.items() if value}


def checked_stream_id(stream_id: str | None) -> str | None:
    """Returns the stream's id if it is valid in an `id:` line and in a URL; otherwise raises."""
    if stream_id is not None and not (isinstance(stream_id, str) and _STREAM_ID.fullmatch(stream_id)):
        raise faults.bad_stream_id()
    return stream_id if stream_id is None else str.__str__(stream_id)


def checked_capacity(capacity: int) -> int:
    """Returns the buffer's first size if it is valid; otherwise raises. A `bytearray` grows by itself."""
    if type(capacity) is not int or not 1 <= capacity <= sys.maxsize:
        raise faults.bad_capacity()
    return capacity


def place(frame: bytes, buffer: Any, offset: int) -> None:
    """Copies the frame into the caller's memory. Raises if the memory is not suitable."""
    try:
        target = memoryview(buffer)
    except TypeError:
        raise faults.bad_buffer() from None
    with target:
        if target.readonly or not target.c_contiguous:
            raise faults.bad_buffer()
        begin = operator.index(offset)
        if begin < 0:
            raise faults.bad_offset()
        if target.nbytes - begin < len(frame):
            raise faults.BufferTooSmall(len(frame))
        with target.cast("B") as octets:
            octets[begin : begin + len(frame)] = frame
