"""Passthrough of OpenAI's Responses stream: the frames of ours that complete the upstream's own.

Owns the failure and the cancelled end that no frame of the upstream's tells. `_passthrough.py` owns when a frame is
passed on. Warnings have no place: nothing but a terminal frame could hold them, and that is the upstream's own. What a
chunk that was left out said, the ends of its part and item repeat.
"""

from __future__ import annotations

import re
from typing import ClassVar, Final

from gai_fast.events import Event
from gai_fast.formats._base import Framing, StreamContext
from gai_fast.formats._passthrough import is_own_cancel
from gai_fast.formats._responses_stream import ResponseEvents


class OwnEvents(ResponseEvents):
    """Frames of ours go on with the upstream's numbers and with the id of its response."""

    __slots__ = ("_is_first",)

    opens_parts: ClassVar[bool] = True

    def __init__(self, framing: Framing, context: StreamContext) -> None:
        super().__init__(framing, context)
        self._is_first = True

    def complete(self, event: Event) -> None:
        """Writes what the upstream's frames lack of an event."""
        kind = event["type"]
        if kind == "start":
            self._response.identifier = event.get("provider_metadata", {}).get("id", self._response.identifier)
            self._begun = True
            self._start(event)
        elif kind == "usage":
            self._snapshot(event)
        elif kind == "finish":
            if is_own_cancel(event):
                self._finish(event)
        elif kind == "error":
            self._error(event)

    def note(self, raw: bytes) -> None:
        """Notes the number of an attempt's first frame. Later frames are counted, since those copied are not read."""
        if _LINE.search(raw) is None:
            return  # comments alone
        found = _NUMBER.findall(raw) if self._is_first else ()
        self._is_first = False
        self._number = int(found[-1]) if found else self._number + 1

    def note_copied(self, count: int) -> None:
        """Counts frames: they have a number each, without holes."""
        self._is_first = False
        self._number += count

    def begin_anew(self) -> None:
        """The client has the start of a response; `event` goes on with its id and its numbers."""
        self._is_first = True

    def is_end(self, raw: bytes) -> bool:
        """Whether a frame is `[DONE]`, which some servers send."""
        return _DONE_LINE.search(raw) is not None

    def is_error(self, raw: bytes) -> bool:
        """Whether a last frame is `response.failed`; behind an `error` that is still to come."""
        self._has_told_error = _ERROR.search(raw) is not None
        return _FAILED.search(raw) is not None

    def end_mark(self) -> bytes:
        """None: the terminal event says that the answer is complete."""
        return b""


_NUMBER: Final = re.compile(rb'"sequence_number": ?([0-9]{1,15})')
_LINE: Final = re.compile(rb"(?:^|[\r\n])[^:\r\n]")
_DONE_LINE: Final = re.compile(rb"(?:^|[\r\n])data: ?\[DONE\]")
_ERROR: Final = re.compile(rb'"type": ?"error"')
_FAILED: Final = re.compile(rb'"type": ?"response\.failed"')
