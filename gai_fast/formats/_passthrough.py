"""Passthrough in any dialect: the upstream's own frames, byte for byte, and the few of ours that complete them.

Owns when a frame is passed on, and when one of ours is written beside it. Knows no dialect: an `OwnFrames`, the
dialect's encoder with a few methods more, writes our frames. The format of a dialect is a `DialectFormat`, which says
which answers are passed on. Frames may have any lines of SSE (`event:`, `id:`, comments): the framers keep them, and
the copier compares them byte for byte.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Final, Protocol

from mypy_extensions import mypyc_attr

from gai_fast.formats._base import Encoder, Format, Framing, PassthroughEncoder, StreamContext
from gai_fast.formats.limits import LIMITS
from gai_fast.kernels import Part, Piece
from gai_fast.model.events import NO_CONTENT, Event


class OwnFrames(Encoder, Protocol):
    """A dialect's encoder as passthrough uses it.

    `event` translates an answer that has no frames; `complete` writes what the frames of the others lack.
    """

    opens_parts: ClassVar[bool]
    """Whether the dialect has frames that become no event and open a part of the answer, such as a content block."""
    collects_text: bool
    """Whether an end of ours repeats the answer: `keep` and `keep_text` then take the content of frames."""

    def complete(self, event: Event) -> None:
        """Takes a `start`, `warning`, `usage`, `finish` or `error` of an answer whose frames are passed on.

        Notes what later frames of ours need. Writes warnings and the end of a cancelled answer with its `finish`, and
        an error that no frame of the upstream's tells.
        """

    def keep(self, event: Event) -> None:
        """Takes any other event of such an answer, where an end of ours repeats it."""

    def keep_text(self, event: Event, text: str) -> None:
        """Takes the text of deltas whose frames were copied, where an end of ours repeats it."""

    def note(self, raw: bytes) -> None:
        """Takes each frame that is passed on and was not copied, in a dialect whose frames open parts."""

    def note_copied(self, count: int) -> None:
        """Takes the number of frames that were copied, in such a dialect."""

    def begin_anew(self) -> None:
        """All since `start` is void. The client has that start, and no content: `event` must not write another one."""

    def is_end(self, raw: bytes) -> bool:
        """Whether a last frame is the end mark, which says that the answer is complete."""

    def is_error(self, raw: bytes) -> bool:
        """Whether clients read a last frame as an error."""

    def end_mark(self) -> bytes:
        """Returns the end mark for an answer that has finished without one; none where the dialect has none."""


class Passthrough:
    """The upstream's own frames, byte for byte, and those of ours that complete them.

    1. An event that frames carried writes nothing.
    2. Warnings stand before the end mark, as the dialect writes them.
    3. The end mark waits for the `finish`, and is added where the upstream sent none: after an error there is none.
    4. An error that no frame carried (a cut stream, a timeout) and a cancelled answer get frames of our own.
    5. An answer without any frame (a whole JSON object to a streamed request) is translated.
    6. Usage that the gateway asked for, and its client did not, is left out where it is a chunk of its own.
    7. Before the first content, frames that open parts wait for it: if the attempt fails before, another one opens its
       own.

    Nothing else is added. Where the upstream sends no usage, a client that asked for it gets none: an estimate would be
    a frame that the upstream never sent.

    Args:
        encoder: The dialect's encoder.
        hides_usage: Rule 6 holds.
    """

    __slots__ = (
        "_encoder",
        "_end",
        "_end_mark",
        "_hides_usage",
        "_opening",
        "_out",
        "_passing",
        "_room",
        "_told",
        "_waiting",
        "collects_text",
        "opens_parts",
    )

    whole: bool = False
    commits: bool = False
    copies_body: bool = False
    has_blocks: bool = False

    def __init__(self, encoder: OwnFrames, *, hides_usage: bool = False) -> None:
        self._encoder = encoder
        self._hides_usage = hides_usage
        self.opens_parts = encoder.opens_parts
        self.collects_text = encoder.collects_text
        self._out: list[Piece] = []
        self._passing = False
        self._told = False
        self._end_mark = b""
        self._end = b""
        self._opening = encoder.opens_parts
        self._waiting: list[bytes] = []
        self._room = LIMITS.waiting_frames

    @property
    def encoder(self) -> OwnFrames:
        """The dialect's encoder, which knows what the client has got."""
        return self._encoder

    @property
    def seq(self) -> int:
        """0: the upstream's frames have no numbers of ours."""
        return 0

    # -- the upstream's frames --

    def frame(self, raw: bytes, *, last: bool) -> None:
        """Takes one frame of the upstream's."""
        self._passing = True
        if last:
            if self._encoder.is_end(raw):
                self._end_mark = raw
                return
            # The relay reads bare JSON as an error, but clients ignore a line that is no SSE.
            self._told = self._encoder.is_error(raw)
        elif self._hides_usage and _USAGE.search(raw) is not None and _NO_CHOICES.search(raw) is not None:
            return
        if not self._opening:
            self._pass_on(raw)
            return
        self._waiting.append(raw)
        self._room -= len(raw)
        if self._room < 0:
            self._release()

    def delta_parts(self, event: Event, key: str) -> Sequence[Part] | None:
        """Returns no parts: the delta's frame is passed on."""
        return ()

    def append_frames(self, frames: Piece, count: int, characters: int = 0) -> None:
        """Takes frames of the upstream's, all of them deltas."""
        if self._opening:
            self._opening = False
            self._release()
        self._out.append(frames)
        if self.opens_parts:
            self._encoder.note_copied(count)
        self._end = bytes(frames[-4:]) or b"\n\n"  # the fast path has sent frames with this end

    def copied(self, event: Event, text: str) -> None:
        """Hands on the text of deltas, which an end of ours repeats."""
        self._encoder.keep_text(event, text)

    def _pass_on(self, raw: bytes) -> None:
        if self.opens_parts:
            self._encoder.note(raw)
        self._out.append(raw)
        self._end = raw[-4:] if len(raw) >= 4 else (self._end + raw)[-4:]

    def _release(self) -> None:
        """Passes on the frames that wait."""
        waiting, self._waiting, self._room = self._waiting, [], LIMITS.waiting_frames
        for raw in waiting:
            self._pass_on(raw)

    # -- events --

    def event(self, event: Event) -> None:
        """Writes an event that no frame carried."""
        kind = event["type"]
        if kind == "stream.reset":
            self._passing, self._opening = False, self.opens_parts  # the next answer may have no frames
            self._waiting, self._room = [], LIMITS.waiting_frames
            self._encoder.begin_anew()
            return
        if self._opening:
            self._opening = kind in NO_CONTENT
            if kind not in _BESIDE:
                self._release()  # always when it is no longer so
        if not self._passing:
            self._encoder.event(event)
            self._add_own()
        elif kind == "done":
            self._close(event)
        elif kind in _COMPLETED and not (kind == "error" and self._told):
            self._encoder.complete(event)
            self._add_own()
        elif self.collects_text:
            self._encoder.keep(event)

    def _close(self, event: Event) -> None:
        if not event["finished"]:
            return
        if self._end_mark:
            self._out.append(self._end_mark)
            return
        added = self._encoder.end_mark()
        if added:
            self._separate()
            self._out.append(added)

    def _add_own(self) -> None:
        """Takes the encoder's frames, as events of their own."""
        pieces = self._encoder.take_pieces()
        if pieces:
            self._separate()
            self._out.extend(pieces)

    def _separate(self) -> None:
        if self._end and not _BLANK_LINE.search(self._end):
            self._out.append(b"\n\n")
        self._end = b""

    # -- bytes --

    def heartbeat(self) -> None:
        """Writes a keep-alive."""
        # The LF of a CRLF may come with the next frame: after an LF of ours it would end an empty line.
        if self._end.endswith(b"\r"):
            self._out.append(b": ping\r")
        else:
            self._encoder.heartbeat()
            self._out.extend(self._encoder.take_pieces())

    def take(self) -> bytes:
        """The bytes written since the last call."""
        return b"".join(self.take_pieces())

    def take_pieces(self) -> list[Piece]:
        """The bytes written since the last call, in pieces."""
        taken, self._out = self._out, []
        return taken


def is_own_cancel(event: Event) -> bool:
    """Whether a `finish` is the gateway's own cancellation, and no frame of the upstream's has told a reason.

    Where one has, as `stop` or the upstream's own `cancelled`, clients know how the answer ended.

    Args:
        event: The `finish`.
    """
    return event.get("finish_reason") == "cancelled" and "finish_reason_raw" not in event


def is_done_mark(raw: bytes) -> bool:
    """Whether a frame is `[DONE]`, the end mark of OpenAI's dialects: a prefix, as the SDKs test it (`_streaming.py`).

    Args:
        raw: The frame; an upstream's own.
    """
    return _DONE_LINE.search(raw) is not None


class OwnAnswer(Encoder, Protocol):
    """A dialect's encoder of whole answers."""

    @property
    def seq(self) -> int:
        """The number of the one piece, which a log keeps."""


class WholePassthrough:
    """The upstream's whole answer as it is, or one built from events where the upstream streamed after all.

    Args:
        encoder: The dialect's encoder of whole answers.
    """

    __slots__ = ("_encoder", "_raw")

    whole: bool = True
    copies_body: bool = False
    opens_parts: bool = False
    commits: bool = False

    def __init__(self, encoder: OwnAnswer) -> None:
        self._encoder = encoder
        self._raw = b""

    @property
    def seq(self) -> int:
        """The number of the one piece, which a log keeps."""
        return self._encoder.seq

    def frame(self, raw: bytes, *, last: bool) -> None:
        """Takes the upstream's whole body; frames of a stream are ignored, as their events are collected."""
        if last and raw.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
            self._raw = raw

    def event(self, event: Event) -> None:
        """Takes one event."""
        if event["type"] == "stream.reset":
            self._raw = b""
        self._encoder.event(event)

    def heartbeat(self) -> None:
        """Writes nothing: the response has not begun, since its status is still open."""

    def take(self) -> bytes:
        """The answer, once."""
        made = self._encoder.take()
        return self._raw if made and self._raw else made

    def take_pieces(self) -> list[Piece]:
        """The answer as one piece, where there is one."""
        taken = self.take()
        return [taken] if taken else []


@mypyc_attr(allow_interpreted_subclasses=True)
class DialectFormat(Format):
    """A format that upstreams speak too: their answers in it are passed on."""

    @abstractmethod
    def whole(self, context: StreamContext) -> OwnAnswer:
        """Creates an encoder of one JSON object."""
        raise NotImplementedError

    @abstractmethod
    def own_frames(self, framing: Framing, context: StreamContext) -> OwnFrames:
        """Creates the encoder of the frames that complete an upstream's."""
        raise NotImplementedError

    def passthrough(self, framing: Framing, context: StreamContext, *, whole: bool) -> PassthroughEncoder | None:
        """Creates an encoder that passes frames on; NDJSON and streams with ids must be translated."""
        if whole:
            return WholePassthrough(self.whole(context))
        if framing == "ndjson" or context.ids:
            return None
        return Passthrough(self.own_frames(framing, context), hides_usage=context.hides_usage)

    def with_usage(self, body: dict[str, Any]) -> dict[str, Any]:
        """Returns the same request: every answer has usage. A dialect whose clients must ask for it replaces this."""
        return body


_BESIDE: Final = NO_CONTENT - {"start", "finish", "error", "done"}
"""Events that do not release frames that wait."""
# Of the dialects of OpenAI.
_DONE_LINE: Final = re.compile(rb"(?:^|[\r\n])data: ?\[DONE\]")
# A string cannot hold these members: its quotes are escaped.
_USAGE: Final = re.compile(rb'"usage"\s*:\s*\{')
_NO_CHOICES: Final = re.compile(rb'"choices"\s*:\s*\[\s*\]')
_COMPLETED: Final = frozenset({"start", "warning", "usage", "finish", "error"})
"""Events of which frames may lack something, or that later frames of ours depend on."""
_BLANK_LINE: Final = re.compile(rb"(?:\r\n|\r(?!\n)|\n){2}\Z")
