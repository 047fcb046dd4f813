"""Passthrough in any dialect: the upstream's frames, byte for byte, and the gateway's frames that complete them.

Owns when an upstream frame is passed on, and when a gateway frame is added. Knows no dialect: a `DialectEncoder`, the
dialect's encoder with a few more methods, writes the gateway's frames. A dialect's format is a `DialectFormat`, which
decides which answers are passed on. Frames may have any lines of SSE (`event:`, `id:`, comments): the framers keep
these lines, and the copier compares them byte for byte.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Final

from mypy_extensions import mypyc_attr

from gai_fast.formats._base import DataEncoder, Encoder, Format, Framing, PassthroughEncoder, StreamContext
from gai_fast.formats.limits import LIMITS
from gai_fast.kernels import Part, Piece
from gai_fast.model.events import NO_CONTENT, Event


@mypyc_attr(allow_interpreted_subclasses=True)
class DialectEncoder(DataEncoder):
    """A dialect's encoder. Its subclass for passthrough overrides these methods.

    `event` translates an answer without upstream frames. `complete` adds frames to an answer with upstream frames. An
    encoder with `collects_text` gets the content of the answer by `keep` and `keep_text`, because the gateway's end
    repeats it. An encoder with `opens_parts` gets the number of copied frames by `note_copied`.
    """

    opens_parts: ClassVar[bool] = False
    """Whether the dialect has frames that become no event and open a part of the answer, such as a content block."""

    def complete(self, event: Event) -> None:  # not abstract: the encoder of translated answers does not have it
        """Receives a `start`, `warning`, `usage`, `finish` or `error` of an answer whose frames are passed on.

        Stores what later gateway frames need. At a `finish`, writes the warnings and the end of a cancelled answer.
        Writes an error that no upstream frame carried.
        """

    def note(self, raw: bytes) -> None:
        """Receives each frame that is passed on but not copied by the fast path, if `opens_parts`."""

    def restart(self) -> None:
        """Voids everything after the first `start`; `event` must not write another start, as the client has one."""

    def is_end(self, raw: bytes) -> bool:
        """Returns whether a last frame is the end mark: the answer is complete."""
        return False

    def is_error(self, raw: bytes) -> bool:
        """Returns whether clients read a last frame as an error."""
        return False

    def release(self) -> None:
        """Breaks the reference cycle between the encoder and its parts, at the end of an answer."""

    def end_mark(self) -> bytes:
        """Returns the end mark for a finished answer that lacks it; empty if a terminal event ends the dialect."""
        return b""


class Passthrough:
    """Passes on the upstream's frames, byte for byte if they are UTF-8, and adds the gateway's frames.

    1. An event that upstream frames carried writes nothing.
    2. Warnings stand before the end mark, in the dialect's form.
    3. The end mark is held until the `finish`. It is added if the upstream sent none. After an error there is no end
       mark.
    4. An error that no frame carried (a cut stream, a timeout) and a cancelled answer get gateway frames.
    5. An answer without any frame (a whole JSON object for a streamed request) is translated.
    6. If the gateway asked for usage and the client did not, usage in a chunk without choices is dropped.
    7. Before the first content, frames that open parts are held: if the attempt fails, the next attempt opens its own
       parts.

    8. A client that asked for usage is told what is charged: if the upstream's frames lack a count, the gateway's frame
       has the usage, and the source of the estimate.

    Nothing else is added.

    Args:
        encoder: The dialect's encoder.
        hides_usage: Rule 6 holds.
    """

    whole: bool = False
    commits: bool = False
    copies_body: bool = False
    has_blocks: bool = False

    def __init__(self, encoder: DialectEncoder, *, hides_usage: bool = False) -> None:
        self._encoder = encoder
        self._hides_usage = hides_usage
        self.opens_parts = self._opening = encoder.opens_parts
        self.collects_text = encoder.collects_text
        self._out: list[Piece] = []
        self._passing = False
        self._error_passed = False
        self._end_mark = b""
        self._end = b""
        self._waiting: list[bytes] = []
        self._room = LIMITS.waiting_frames

    @property
    def encoder(self) -> DialectEncoder:
        """The dialect's encoder; it holds the state of the client's stream."""
        return self._encoder

    @property
    def seq(self) -> int:
        """0: the gateway does not number upstream frames."""
        return 0

    # -- the upstream's frames --

    def frame(self, raw: bytes, last: bool) -> None:
        """Receives one upstream frame. Bytes that are not UTF-8 become U+FFFD: strict clients refuse them."""
        self._passing = True
        if last and self._encoder.is_end(raw):
            self._end_mark = raw
            return
        if not raw.isascii():
            raw = well_formed(raw)
        if last:
            # The relay reads bare JSON as an error, but clients ignore a line that is not SSE.
            self._error_passed = self._encoder.is_error(raw)
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
        """Appends upstream frames; all of them are deltas."""
        if self._opening:
            self._opening = False
            self._release()
        self._out.append(frames)
        if self.opens_parts:
            self._encoder.note_copied(count)
        self._end = bytes(frames[-4:]) or b"\n\n"  # the end of the frames that the fast path has sent

    def copied(self, event: Event, text: str) -> None:
        """Passes the text of deltas to the encoder, whose end repeats it."""
        self._encoder.keep_text(event, text)

    def _pass_on(self, raw: bytes) -> None:
        if self.opens_parts:
            self._encoder.note(raw)
        self._out.append(raw)
        self._end = raw[-4:] if len(raw) >= 4 else (self._end + raw)[-4:]

    def _release(self) -> None:
        """Passes on the held frames."""
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
            self._encoder.restart()
            return
        if self._opening:
            self._opening = kind in NO_CONTENT
            if kind not in _BESIDE:
                self._release()  # a kind that ends the opening is never in `_BESIDE`
        if not self._passing:
            self._encoder.event(event)
            self._add_own()
        elif kind == "done":
            self._close(event)
        elif kind in _COMPLETED and not (kind == "error" and self._error_passed):
            self._encoder.complete(event)
            self._add_own()
        elif self.collects_text:
            self._encoder.keep(event)

    def _close(self, event: Event) -> None:
        self._encoder.release()
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
        """Appends the encoder's frames, separated from an unfinished upstream frame."""
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
        written = b": ping\n"  # within a frame of the upstream's, an event would end it
        if not self._end or _BLANK_LINE.search(self._end):
            self._encoder.heartbeat()
            written = b"".join(self._encoder.take_pieces())
        # The LF of a CRLF may arrive with the next frame. After an LF of a keep-alive it would end an empty line.
        self._out.append(written.replace(b"\n", b"\r") if self._end.endswith(b"\r") else written)

    def take(self) -> bytes:
        """Returns the bytes written since the last call."""
        return b"".join(self.take_pieces())

    def take_pieces(self) -> list[Piece]:
        """Returns the bytes written since the last call, unjoined."""
        taken, self._out = self._out, []
        return taken


def is_own_end(event: Event) -> bool:
    """Returns whether a `finish` is the gateway's own end (`Relay.stop`), without a finish reason from the upstream.

    If an upstream frame had a reason, such as `stop` or the upstream's own `cancelled`, the client has read it.

    Args:
        event: The `finish`.
    """
    is_ours = "reason" in event or event.get("finish_reason") == "cancelled"
    return is_ours and "finish_reason_raw" not in event


def lacks_usage(event: Event) -> bool:
    """Returns whether the upstream's frames lack the usage of a `finish`, or a count of it: rule 8."""
    return "source" in event.get("usage", _NO_USAGE)


def is_done_mark(raw: bytes) -> bool:
    """Returns whether a frame is `[DONE]`, the end mark of OpenAI's dialects.

    The test is for a prefix, as in the SDKs (`_streaming.py`).

    Args:
        raw: An upstream frame.
    """
    # Nearly all marks begin so; the pattern takes 1,900 instructions.
    return raw.startswith(b"data: [DONE]") or _DONE_LINE.search(raw) is not None


class WholePassthrough:
    """Passes on the upstream's whole answer as it is, or builds one from events if the upstream streamed anyway.

    Args:
        encoder: The dialect's encoder of whole answers.
    """

    whole: bool = True
    copies_body: bool = False
    opens_parts: bool = False
    commits: bool = False

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._raw = b""

    @property
    def seq(self) -> int:
        """1: the log stores the answer as one event."""
        return self._encoder.seq

    def frame(self, raw: bytes, last: bool) -> None:
        """Stores the upstream's whole body; ignores frames of a stream, as their events are collected."""
        if last and raw.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
            self._raw = raw

    def event(self, event: Event) -> None:
        """Collects one event."""
        if event["type"] == "stream.reset":
            self._raw = b""
        self._encoder.event(event)

    def heartbeat(self) -> None:
        """Writes nothing: the response's headers are sent at the end, when its status is known."""

    def take(self) -> bytes:
        """Returns the answer once, then nothing."""
        built = self._encoder.take()
        return self._raw if built and self._raw else built

    def take_pieces(self) -> list[Piece]:
        """Returns the answer as one piece, or an empty list before the end."""
        taken = self.take()
        return [taken] if taken else []


@mypyc_attr(allow_interpreted_subclasses=True)
class DialectFormat(Format):
    """A format that some upstreams speak too: their answers are passed on."""

    @abstractmethod
    def dialect_encoder(self, framing: Framing, context: StreamContext) -> DialectEncoder:
        """Creates the encoder of the frames that the gateway adds to an upstream's."""
        raise NotImplementedError

    def passthrough(self, framing: Framing, context: StreamContext, *, whole: bool) -> PassthroughEncoder | None:
        """Creates an encoder that passes frames on; returns None for NDJSON and streams with ids."""
        if whole:
            return WholePassthrough(self.whole(context))
        if framing == "ndjson" or context.ids:
            return None
        return Passthrough(self.dialect_encoder(framing, context), hides_usage=context.hides_usage)

    def with_usage(self, body: dict[str, Any]) -> dict[str, Any]:
        """Returns the request unchanged: every answer has usage.

        A dialect whose clients must ask for usage overrides this method.
        """
        return body


_NO_USAGE: Final[dict[str, Any]] = {}
_BESIDE: Final = NO_CONTENT - {"start", "finish", "error", "done"}
"""Events that do not release held frames."""
# Only in OpenAI's dialects.
_DONE_LINE: Final = re.compile(rb"(?:^|[\r\n])data: ?\[DONE\]")
# A JSON string cannot contain these members: its quotes are escaped.
_USAGE: Final = re.compile(rb'"usage"\s*:\s*\{')
_NO_CHOICES: Final = re.compile(rb'"choices"\s*:\s*\[\s*\]')
_COMPLETED: Final = frozenset({"start", "warning", "usage", "finish", "error"})
"""Events that upstream frames may lack in part, or that later gateway frames depend on."""
_BLANK_LINE: Final = re.compile(rb"(?:\r\n|\r(?!\n)|\n){2}\Z")


def well_formed(raw: bytes) -> bytes:
    """Returns an upstream's bytes as UTF-8: U+FFFD in place of what is not."""
    try:
        raw.decode()
    except UnicodeDecodeError:
        return raw.decode("utf-8", "replace").encode()
    return raw
