"""Bytes → SSE events, SSE blocks and NDJSON lines, incrementally: WHATWG HTML 9.2.6.

Owns the SSE grammar, which parser and framer share, and limits the bytes that they keep. The result never depends on
how the bytes were cut into reads, except for a late LF of a CRLF (see `SSEFramer`). Each byte is searched once.
"""

from __future__ import annotations

import re
import sys
from abc import ABC, abstractmethod
from typing import Any, Final, Generic, NamedTuple, TypeVar

from gai_fast.kernels._pure import faults
from gai_fast.kernels._pure.jsontext import parse_exact
from gai_fast.kernels._pure.limits import LIMITS
from gai_fast.model.limits import SHARED

_BOM: Final = b"\xef\xbb\xbf"
_SSE_END: Final = re.compile(rb"[\r\n]")
_DIGITS: Final = re.compile(rb"[0-9]+")

Item = TypeVar("Item")


class SSEEvent(NamedTuple):
    """One dispatched event: its type (`message` if the stream gave no type), its data, and the last id so far."""

    type: str
    data: str
    last_event_id: str


class Frame(NamedTuple):
    """One SSE block or NDJSON line, with its original bytes.

    Args:
        raw: The bytes, including comments and the blank line. The `raw` of all frames, joined, is the input.
        name: The `event` field; empty if there is no such field.
        data: The `data` fields joined with LF; in NDJSON the line. `None` if there is no data.
        stray: Lines that are neither a known field nor a comment, joined with LF: some servers send a bare JSON error.
            `None` if there are no such lines.
    """

    raw: bytes
    name: str
    data: str | None
    stray: str | None


class _Feed(ABC, Generic[Item]):
    """Turns bytes into items. The buffer holds the incomplete line and, from `_mark` on, the bytes before it."""

    __slots__ = ("_broken", "_buffer", "_first", "_limit", "_mark", "_searched", "_start")

    def __init__(self, limit: int = SHARED.event) -> None:
        self._limit = checked_limit(limit)
        self._reset()

    def _reset(self) -> None:
        self._buffer = bytearray()
        self._mark = 0
        self._start = 0
        self._searched = 0
        self._first = True
        self._broken: str | None = None

    def feed(self, data: Any) -> list[Item]:
        """Adds the next bytes.

        Args:
            data (bytes-like): Any contiguous bytes-like object.

        Returns:
            list: The items that are complete now.

        Raises:
            ValueError: Invalid bytes or an exceeded limit (`faults.FeedError`; its `before` holds the items that this
                call completed before). After an exceeded limit every further call raises, too.
            TypeError: `data` is not bytes-like.
        """
        try:
            view = memoryview(data)
        except TypeError:
            raise faults.not_bytes(data) from None
        if not view.c_contiguous:
            raise faults.not_bytes(data)
        if self._broken is not None:
            raise faults.FeedError(self._broken)
        with view:
            del self._buffer[: self._mark]
            self._start -= self._mark
            self._searched -= self._mark
            self._mark = 0
            self._buffer += view
        items: list[Item] = []
        try:
            while (line := self._next_line()) is not None:
                self._take_line(line, items)
        except faults.FeedError as error:
            error.before = items
            raise
        return items

    def _next_line(self) -> bytes | None:
        """Returns the next complete line without its end. `None` if there is no complete line."""
        begin = self._start
        end = self._find_end()
        if end > begin and self._held() + end - begin > self._limit:
            fault = self._too_long()
            self._reset()
            self._broken = str(fault)
            try:
                raise fault
            finally:
                del fault  # breaks a reference cycle: the traceback refers to this frame
        if end == len(self._buffer):
            self._searched = end
            return None
        self._pass_end(end)
        return self._content(begin, end)

    def _content(self, begin: int, end: int) -> bytes:
        line = bytes(self._buffer[begin:end])
        if self._first:
            self._first = False
            return line.removeprefix(_BOM)
        return line

    @abstractmethod
    def _find_end(self) -> int:
        """Returns the offset of the line's end; the size of the buffer if the line has no end yet."""

    @abstractmethod
    def _pass_end(self, end: int) -> None:
        """Moves past the line's end."""

    @abstractmethod
    def _held(self) -> int:
        """Returns the number of bytes that count towards the limit, besides the current line."""

    @abstractmethod
    def _too_long(self) -> faults.FeedError: ...

    @abstractmethod
    def _take_line(self, line: bytes, items: list[Item]) -> None: ...


class _SSEFeed(_Feed[Item]):
    """The SSE grammar: lines, fields, blocks. Comments count towards the limit only if `raw` keeps their bytes."""

    __slots__ = ("_data", "_id", "_late_lf", "_name", "_retry", "_size", "_stray")

    _keeps_raw = False

    def __init__(self, limit: int = SHARED.event) -> None:
        self._id = ""
        self._retry: int | None = None
        super().__init__(limit)

    def _reset(self) -> None:
        super()._reset()
        self._late_lf = False
        self._clear_block()

    def _clear_block(self) -> None:
        self._name = ""
        self._data: list[bytes] = []
        self._stray: list[bytes] = []
        self._size = 0

    def _next_line(self) -> bytes | None:
        if self._late_lf and self._start < len(self._buffer):
            # The LF of a CRLF. Its CR ended a line in an earlier read.
            self._late_lf = False
            self._start += self._buffer[self._start] == 0x0A
            self._searched = self._start
        return super()._next_line()

    def _find_end(self) -> int:
        found = _SSE_END.search(self._buffer, self._searched)
        return found.start() if found else len(self._buffer)

    def _pass_end(self, end: int) -> None:
        after = end + 1
        if self._buffer[end] == 0x0D:
            # A CR ends the line at once: waiting for a LF would delay an event until the next event comes.
            if after == len(self._buffer):
                self._late_lf = True
            elif self._buffer[after] == 0x0A:
                after += 1
        self._start = self._searched = after

    def _held(self) -> int:
        return self._size

    def _too_long(self) -> faults.FeedError:
        return faults.event_too_long(self._limit)

    def _take_line(self, line: bytes, items: list[Item]) -> None:
        if line:
            self._take_field(line)
        else:
            self._end_block(items)
            self._clear_block()

    def _take_field(self, line: bytes) -> None:
        if line.startswith(b":"):
            self._size += len(line) + 1 if self._keeps_raw else 0
            return
        self._size += len(line) + 1
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
        elif field == b"event":
            self._name = _text(value)
        elif field == b"id":
            if b"\0" not in value:
                self._id = _text(value)
        elif field == b"retry":
            if len(value) <= LIMITS.retry_digits and _DIGITS.fullmatch(value):
                self._retry = int(value)
        else:
            self._stray.append(line)

    def _joined_data(self) -> str | None:
        return _text(b"\n".join(self._data)) if self._data else None

    @abstractmethod
    def _end_block(self, items: list[Item]) -> None:
        """Ends a block, after a blank line or at the end of the input."""


class SSEParser(_SSEFeed[SSEEvent]):
    """An incremental EventSource parser (WHATWG HTML 9.2.6). Only one thread may use it at a time.

    UTF-8 is decoded with replacement, and a byte order mark at the very start is dropped. An event is complete with the
    byte that ends its blank line.

    Args:
        limit (int): The most bytes of one line, and of all lines of one event together. Comments do not count towards
            the event.

    Raises:
        ValueError: The limit is no `int` from 0 to `sys.maxsize`.
    """

    __slots__ = ("_last_event_id",)

    def __init__(self, limit: int = SHARED.event) -> None:
        super().__init__(limit)
        self._last_event_id = ""

    @property
    def retry(self) -> int | None:
        """The milliseconds of the last valid `retry:` line. `None` if there was no such line."""
        return self._retry

    @property
    def last_event_id(self) -> str:
        """The last id that a blank line has followed."""
        return self._last_event_id

    def close(self, lenient: bool = False) -> list[SSEEvent]:
        """Ends the input and returns the events that it completes.

        The parser can then read another connection. It keeps `retry` and `last_event_id`.

        Args:
            lenient (bool): Whether an incomplete last event counts. WHATWG drops it.

        Returns:
            list: An `SSEEvent`, or none.
        """
        events: list[SSEEvent] = []
        if lenient:
            if self._start < len(self._buffer):
                self._take_field(self._content(self._start, len(self._buffer)))
            self._end_block(events)
        self._id = self._last_event_id
        self._reset()
        return events

    def _take_line(self, line: bytes, items: list[SSEEvent]) -> None:
        super()._take_line(line, items)
        self._mark = self._start

    def _end_block(self, items: list[SSEEvent]) -> None:
        self._last_event_id = self._id
        data = self._joined_data()
        if data is not None:
            items.append(SSEEvent(self._name or "message", data, self._id))


class SSEFramer(_SSEFeed[Frame]):
    """Cuts an SSE stream into blocks and keeps their bytes, for a relay that passes them on.

    The `raw` of all frames of `feed` and `close`, joined, is the input. If a block ends with CR LF and the LF comes
    with a later read, the LF begins the next frame's `raw`.

    Args:
        limit: The most bytes of one block.
    """

    __slots__ = ()

    _keeps_raw = True

    def close(self) -> list[Frame]:
        """Ends the input. Returns the incomplete rest as a last frame, if there is one."""
        frames: list[Frame] = []
        if self._start < len(self._buffer):
            line = self._content(self._start, len(self._buffer))
            self._start = len(self._buffer)
            if line:
                self._take_field(line)
        if self._mark < len(self._buffer):
            self._end_block(frames)
        self._reset()
        return frames

    def _end_block(self, items: list[Frame]) -> None:
        raw = bytes(self._buffer[self._mark : self._start])
        self._mark = self._start
        stray = _text(b"\n".join(self._stray)) if self._stray else None
        items.append(Frame(raw, self._name, self._joined_data(), stray))


class _LineFeed(_Feed[Item]):
    """The NDJSON grammar: a LF ends a line, a CR before the LF is white space. U+2028 and U+0085 are data."""

    __slots__ = ("_number",)

    def _reset(self) -> None:
        super()._reset()
        self._number = 1

    def _find_end(self) -> int:
        found = self._buffer.find(b"\n", self._searched)
        return len(self._buffer) if found < 0 else found

    def _pass_end(self, end: int) -> None:
        self._start = self._searched = end + 1

    def _held(self) -> int:
        return 0

    def _too_long(self) -> faults.FeedError:
        return faults.line_too_long(self._number, self._limit)

    def _take_line(self, line: bytes, items: list[Item]) -> None:
        raw = bytes(self._buffer[self._mark : self._start])
        self._mark = self._start
        number, self._number = self._number, self._number + 1
        self._end_line(line.strip(b" \t\r"), raw, number, items)

    def close(self) -> list[Item]:
        """Ends the input: a last line without a LF counts."""
        items: list[Item] = []
        try:
            if self._start < len(self._buffer):
                line = self._content(self._start, len(self._buffer))
                self._start = len(self._buffer)
                self._take_line(line, items)
        finally:
            self._reset()
        return items

    @abstractmethod
    def _end_line(self, line: bytes, raw: bytes, number: int, items: list[Item]) -> None: ...


class NDJSONParser(_LineFeed[Any]):
    """Reads one JSON value per line. Skips blank lines and keeps integers exact. Only one thread may use it at a time.

    If a line is not JSON, `feed` raises a `ValueError` with the line's number and skips the line: the next `feed`
    continues after it.

    Args:
        limit (int): The most bytes of one line.

    Raises:
        ValueError: The limit is no `int` from 0 to `sys.maxsize`.
    """

    __slots__ = ()

    def _end_line(self, line: bytes, raw: bytes, number: int, items: list[Any]) -> None:
        if line:
            items.append(parse_line(line, number))


class LineFramer(_LineFeed[Frame]):
    """Cuts NDJSON into lines and keeps their bytes. `data` is `None` for a blank line.

    Args:
        limit: The most bytes of one line.
    """

    __slots__ = ()

    def _end_line(self, line: bytes, raw: bytes, number: int, items: list[Frame]) -> None:
        items.append(Frame(raw, "", _text(line) if line else None, None))


def checked_limit(limit: int) -> int:
    """Returns the limit of a parser if it is valid; otherwise raises."""
    if type(limit) is not int or not 0 <= limit <= sys.maxsize:
        raise faults.bad_limit()
    return limit


def parse_line(line: bytes, number: int) -> Any:
    """Returns the value of one line of NDJSON.

    Raises:
        FeedError: The line is not UTF-8 or not JSON. The text has the line's number.
    """
    try:
        return parse_exact(line.decode())
    except UnicodeDecodeError as error:
        raise faults.bad_line(number, faults.not_utf8(error.start)) from None
    except ValueError as error:
        raise faults.bad_line(number, str(error)) from None


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "replace")
