"""Passthrough of OpenAI's Responses stream: the frames of ours that complete the upstream's own.

Owns the failure and the cancelled end that no frame of the upstream's tells. Both repeat the items so far, under the
upstream's ids. `_passthrough.py` owns when a frame is passed on. Warnings have no place: nothing but a terminal frame
could hold them, and that is the upstream's own. What a chunk that was left out said, the ends of its part and item
repeat.
"""

from __future__ import annotations

import re
from typing import ClassVar, Final

from gai_fast.errors import Error
from gai_fast.events import DELTAS, Event
from gai_fast.formats._base import Framing, StreamContext
from gai_fast.formats._passthrough import is_own_cancel
from gai_fast.formats._responses_output import Output, tell_nobody
from gai_fast.formats._responses_parts import custom_tools
from gai_fast.formats._responses_stream import ResponseEvents


class OwnEvents(ResponseEvents):
    """Frames of ours go on with the upstream's numbers and with the id of its response."""

    __slots__ = ("_is_first", "_theirs")

    opens_parts: ClassVar[bool] = True

    def __init__(self, framing: Framing, context: StreamContext) -> None:
        super().__init__(framing, context)
        self._is_first = True
        self._theirs: Output | None = None  # the items that frames have told

    def complete(self, event: Event) -> None:
        """Writes what the upstream's frames lack of an event."""
        kind = event["type"]
        if kind == "start":
            self._response.identifier = event.get("provider_metadata", {}).get("id", self._response.identifier)
            self._begun = True
            self._start(event)
            self._theirs = theirs = Output(self._context.stream_id, custom_tools(self._context.echo), tell_nobody)
            theirs.provider = event.get("provider")
        elif kind == "usage":
            self._snapshot(event)
        elif kind == "error" or (kind == "finish" and is_own_cancel(event)):
            self._output = self._theirs or self._output
            if kind == "error":
                self._error(event)
            else:
                self._finish(event)

    def keep(self, event: Event) -> None:
        """Adds to the items that an end of ours repeats. Too large ones are given up: the upstream repeats its own."""
        if self._theirs is not None:
            try:
                self._theirs.take(event)
            except (Error, ValueError):  # the latter: it cannot be written
                self._theirs = None

    def copied(self, event: Event, text: str) -> None:
        """Adds the text of copied deltas to the items."""
        self.keep({**event, DELTAS[event["type"]]: text})  # type: ignore[misc]  # the key depends on the type

    def note(self, raw: bytes) -> None:
        """Notes the number of an attempt's first frame, and the id of each item that begins.

        Later frames are counted, since those copied are not read.
        """
        if _LINE.search(raw) is None:
            return  # comments alone
        found = _NUMBER.findall(raw) if self._is_first else ()
        self._is_first = False
        self._number = int(found[-1]) if found else self._number + 1
        if self._theirs is not None and _ADDED.search(raw) is not None:
            self._theirs.close()
            named = _ITEM_ID.search(raw)
            self._theirs.identifier = "" if named is None else named[1].decode()

    def note_copied(self, count: int) -> None:
        """Counts frames: they have a number each, without holes."""
        self._is_first = False
        self._number += count

    def begin_anew(self) -> None:
        """The client has the start of a response; `event` goes on with its id and its numbers."""
        self._is_first = True
        self._theirs = None

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
_ADDED: Final = re.compile(rb'"type"\s*:\s*"response\.output_item\.added"')
_ITEM_ID: Final = re.compile(rb'"item"\s*:\s*\{[^{}\[\]]*?"id"\s*:\s*"([\w.~-]{1,128})"')
_LINE: Final = re.compile(rb"(?:^|[\r\n])[^:\r\n]")
_DONE_LINE: Final = re.compile(rb"(?:^|[\r\n])data: ?\[DONE\]")
_ERROR: Final = re.compile(rb'"type": ?"error"')
_FAILED: Final = re.compile(rb'"type": ?"response\.failed"')
