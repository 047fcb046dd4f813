"""Cuts a JSON array into its elements, incrementally.

The framer counts brackets outside of strings and checks nothing else. Both implementations share this module, because
it is rarely used: only Gemini without `alt=sse` responds with an array, and the gateway requests `alt=sse`. The result
never depends on how the bytes were cut; each byte is searched once.
"""

from __future__ import annotations

import re
from typing import Final

from gai_fast.kernels._pure import faults
from gai_fast.kernels._pure.parsers import Frame, checked_limit
from gai_fast.model.limits import SHARED

_OUTSIDE: Final = re.compile(rb'["\[\]{},]')
_INSIDE: Final = re.compile(rb'["\\]')
_BLANK: Final = b" \t\r\n,"
_QUOTE, _BACKSLASH, _COMMA = b'"\\,'
_OPENING: Final = b"[{"


class ArrayFramer:
    """Cuts a JSON array into its elements and keeps their bytes, for a relay.

    An object or array is complete with its last bracket. A number, a string or a word is complete with the comma or the
    bracket after it. The `raw` of all frames of `feed` and `close`, joined, is the input; bytes between elements belong
    to the next element. `data` is `None` if a frame has no element: the end of the array, and everything after it.

    Args:
        limit: The most bytes of one element, including the blanks before it.
    """

    __slots__ = ("_broken", "_buffer", "_closed", "_depth", "_in_string", "_limit", "_searched", "_start")

    def __init__(self, limit: int = SHARED.event) -> None:
        self._limit = checked_limit(limit)
        self._reset()

    def _reset(self) -> None:
        self._buffer = bytearray()
        self._start = 0
        self._searched = 0
        self._depth = 0
        self._in_string = False
        self._closed = False
        self._broken: str | None = None

    def feed(self, data: bytes) -> list[Frame]:
        """Adds the next bytes and returns the complete elements.

        Args:
            data: The bytes.

        Raises:
            FeedError: An element exceeds the limit; `before` of the error holds the frames before that element.
        """
        if self._broken is not None:
            raise faults.FeedError(self._broken)
        self._buffer += data
        frames: list[Frame] = []
        mark = 0
        while not self._closed and (end := self._next_end()) is not None:
            self._check(end - mark, frames)
            frames.append(self._frame(mark, end))
            mark = end
        if self._closed and mark < len(self._buffer):
            frames.append(Frame(bytes(self._buffer[mark:]), "", None, None))
            mark = len(self._buffer)
        self._check(len(self._buffer) - mark, frames)
        del self._buffer[:mark]
        self._start = max(self._start - mark, 0)
        self._searched = max(self._searched - mark, 0)
        return frames

    def _next_end(self) -> int | None:
        """Returns the offset after the next element, or after the array. `None` if neither has come."""
        while True:
            found = (_INSIDE if self._in_string else _OUTSIDE).search(self._buffer, self._searched)
            if found is None:
                self._searched = len(self._buffer)
                return None
            at = found.start()
            octet = self._buffer[at]
            if octet == _BACKSLASH:
                if at + 1 == len(self._buffer):
                    self._searched = at
                    return None
                at += 1
            elif octet == _QUOTE:
                self._in_string = not self._in_string
            elif octet == _COMMA:
                if self._depth == 1 and self._buffer[self._start : at].strip(_BLANK):
                    # The comma belongs to the next element: a bracket ends an element without waiting for a comma.
                    self._searched = at
                    return at
            elif octet in _OPENING:
                self._depth += 1
                if self._depth == 1:
                    self._start = at + 1
            else:
                self._depth -= 1
                self._closed = self._depth <= 0
                if self._depth <= 1:
                    self._searched = at + 1
                    return at + 1
            self._searched = at + 1

    def _frame(self, mark: int, end: int) -> Frame:
        text = bytes(self._buffer[self._start : end - self._closed]).strip(_BLANK)
        self._start = end
        return Frame(bytes(self._buffer[mark:end]), "", text.decode("utf-8", "replace") if text else None, None)

    def _check(self, size: int, before: list[Frame]) -> None:
        if size > self._limit:
            fault = faults.element_too_long(self._limit)
            self._reset()
            self._broken = str(fault)
            fault.before = list(before)
            try:
                raise fault
            finally:
                del fault  # breaks a reference cycle: the traceback refers to this frame

    def close(self) -> list[Frame]:
        """Ends the input. Returns the incomplete rest as a last frame, if there is one."""
        frames = [self._frame(0, len(self._buffer))] if self._buffer else []
        self._reset()
        return frames
