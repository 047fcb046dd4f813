"""Passthrough of OpenAI's chat stream: the upstream's own frames, and a few of ours.

Owns when a frame is passed on, and when one of ours is written beside them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from gai_fast._impl import Part, Piece
from gai_fast.events import Event
from gai_fast.formats._base import Framing, StreamContext
from gai_fast.formats._chat_stream import Chunks


class Passthrough(Chunks):
    """The upstream's own frames, byte for byte, and those of ours that complete them.

    1. An event that frames carried writes nothing.
    2. Warnings stand on one chunk with `choices: []` before `[DONE]`.
    3. `[DONE]` waits for the `finish`, and is added where the upstream sent none: after an error there is none.
    4. An error that no frame carried (a cut stream, a timeout) and a cancelled answer get chunks of our own.
    5. An answer without any frame (a whole JSON object to a streamed request) is translated.

    Nothing else is added. Where the upstream sends no usage, a client that asked for it gets none: an estimate would be
    a frame that the upstream never sent.
    """

    __slots__ = ("_done_frame", "_end", "_passing", "_told")

    whole: bool = False

    def __init__(self, framing: Framing, context: StreamContext) -> None:
        super().__init__(framing, context)
        self._passing = False
        self._told = False
        self._done_frame = b""
        self._end = b""

    def frame(self, raw: bytes, *, last: bool) -> None:
        """Takes one frame of the upstream's."""
        self._passing = True
        if last:
            if _DONE_LINE.search(raw):
                self._done_frame = raw
                return
            # The relay reads bare JSON as an error, but clients ignore a line that is no SSE.
            self._told = _DATA_LINE.search(raw) is not None
        self._out.append(raw)
        self._end = raw[-4:] if len(raw) >= 4 else (self._end + raw)[-4:]

    def delta_parts(self, event: Event, key: str) -> Sequence[Part] | None:
        """Returns no parts: the delta's frame is passed on."""
        return ()

    def append_frames(self, frames: Piece, count: int, characters: int = 0) -> None:
        """Takes frames of the upstream's, all of them deltas."""
        self._out.append(frames)
        self._end = bytes(frames[-4:]) or b"\n\n"  # the fast path has sent frames with this end

    def event(self, event: Event) -> None:
        """Writes an event that no frame carried."""
        if event["type"] == "stream.reset":
            self._passing, self._choices = False, [0]  # the next answer may have no frames; the role has been sent
        if not self._passing:
            super().event(event)
            return
        write = _PASSING.get(event["type"])
        if write is not None:
            write(self, event)

    def heartbeat(self) -> None:
        """Writes a keep-alive."""
        # The LF of a CRLF may come with the next frame: after an LF of ours it would end an empty line.
        if self._end.endswith(b"\r"):
            self._out.append(b": ping\r")
        else:
            super().heartbeat()

    def _own(self) -> None:
        """Makes sure that a frame of ours begins a line and an event of its own."""
        if self._end and not _BLANK_LINE.search(self._end):
            self._out.append(b"\n\n")
        self._end = b""

    def _named(self, event: Event) -> None:
        identifier = event.get("provider_metadata", {}).get("id")
        self._name_stream(identifier or self._id, event.get("model", self._model))

    def _ended(self, event: Event) -> None:
        # An upstream that cancelled gives its reason; our own cancel has none.
        if event.get("finish_reason") == "cancelled" and "finish_reason_raw" not in event:
            self._own()
            self._finish(event)
        elif self._warnings:
            self._own()
            self._chunk(b"", {"warnings": self._warnings})

    def _failed(self, event: Event) -> None:
        if not self._told:
            self._own()
            self._error(event)

    def _closed(self, event: Event) -> None:
        if event["finished"]:
            if not self._done_frame:
                self._own()
            self._out.append(self._done_frame or b"data: [DONE]\n\n")


_PASSING: Final[Mapping[str, Callable[[Any, Event], None]]] = {
    "start": Passthrough._named,
    "warning": Chunks._warning,
    "usage": Chunks._snapshot,
    "finish": Passthrough._ended,
    "error": Passthrough._failed,
    "done": Passthrough._closed,
}

_DATA_LINE: Final = re.compile(rb"(?:^|[\r\n])data:")
# A prefix test, as the SDKs make it (openai `_streaming.py`).
_DONE_LINE: Final = re.compile(rb"(?:^|[\r\n])data: ?\[DONE\]")
_BLANK_LINE: Final = re.compile(rb"(?:\r\n|\r(?!\n)|\n){2}\Z")
