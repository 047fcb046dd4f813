"""Passthrough of OpenAI's Responses: the upstream's frames, and the gateway's frames that complete them.

Owns two ends that the upstream did not send: a failure and a cancellation. Both repeat the items so far. Items keep the
upstream's ids, except for calls of server tools, whose events have another id. `_passthrough.py` owns when a frame is
passed on. Warnings have no place: only a terminal frame could hold them, and the upstream writes that frame. The
content of a dropped chunk is in the end of its part and its item.
"""

from __future__ import annotations

import re
from contextlib import suppress
from functools import partial
from typing import ClassVar, Final

from gai_fast.formats._base import Encoder, Framing, KeptAnswer, StreamContext
from gai_fast.formats._passthrough import Passthrough, WholePassthrough, is_done_mark, is_own_end, well_formed
from gai_fast.formats.limits import LIMITS
from gai_fast.formats.responses.output import ResponsesOutput, discard
from gai_fast.formats.responses.parts import custom_tools, namespaced
from gai_fast.formats.responses.rewriting import Rewritten, rewrite_frame, rewrite_whole
from gai_fast.formats.responses.stream import ResponseEvents
from gai_fast.kernels import Piece
from gai_fast.model.errors import Error
from gai_fast.model.events import DELTAS, Event
from gai_fast.model.limits import SHARED


class OwnEvents(ResponseEvents):
    """Writes frames that continue the upstream's numbers and have its response id."""

    opens_parts: ClassVar[bool] = True

    def __init__(self, framing: Framing, context: StreamContext, *, keepalives: bool = False) -> None:
        super().__init__(framing, context, keepalives=keepalives)
        self._is_first = True
        self._has_failed = False  # a `response.failed` was passed on, which may precede its `error`
        # Events that frames carried, pairs of an event and its text for copied deltas, and frames that open an item.
        self._kept: list[Event | tuple[Event, str] | bytes] = []
        self._room = SHARED.collected

    def complete(self, event: Event) -> None:
        """Writes the frames of an event that the upstream's frames lack."""
        kind = event["type"]
        if kind == "start":
            self._response.identifier = event.get("provider_metadata", {}).get("id", self._response.identifier)
            self._start(event)
        elif kind == "usage":
            self._snapshot(event)
        elif kind == "error" and not self._has_failed:
            self._output = self._repeated()
            self._error(event)
        elif kind == "finish" and is_own_end(event):
            self._output = self._repeated()
            self._finish(event)

    def _repeated(self) -> ResponsesOutput:
        """Returns the items of the passed frames, or no items if they are larger than the limit."""
        echo = self._context.echo
        output = ResponsesOutput(self._context.stream_id, custom_tools(echo), discard, namespaced(echo))
        output.provider = self._output.provider
        kept, self._kept = self._kept, []
        for one in kept if self._room > 0 else ():
            if isinstance(one, bytes):
                output.close()
                named = _ITEM_ID.search(one)
                output.identifier = "" if named is None else named[1].decode()
                continue
            with suppress(Error, ValueError):  # an event that cannot be written as JSON
                output.take(_with_text(*one) if isinstance(one, tuple) else one)
        return output

    def _output_so_far(self) -> ResponsesOutput:
        return self._repeated() if self._kept else self._output

    def keep(self, event: Event) -> None:
        """Stores an event for the end that the gateway may write."""
        if self._room > 0 and event["type"] not in _IN_NO_ITEM:
            self._kept.append(event)

    def keep_text(self, event: Event, text: str) -> None:
        """Stores the text of copied frames for the end that the gateway may write."""
        self._take_room(len(text))
        if self._room > 0:
            self._kept.append((event, text))

    def _take_room(self, size: int) -> None:
        self._room -= size + LIMITS.kept_piece_cost
        if self._room <= 0:
            self._kept = []

    def note(self, raw: bytes) -> None:
        """Records the start of the response, the first number of an attempt, and the frames that open an item.

        Later numbers are counted, since copied frames are not parsed.
        """
        # The first byte decides in most cases: the search takes 1,000 instructions.
        if (not raw or raw[0] in (0x3A, 0x0D, 0x0A)) and _LINE.search(raw) is None:  # a colon, CR, LF
            return  # only comments
        # One byte decides for nearly all frames: `startswith` takes 350 instructions for each.
        if len(raw) > _KEEPALIVE_AT and (raw[_KEEPALIVE_AT] == 0x6B or raw[0] == 0x64) and raw.startswith(_KEEPALIVE):
            self._note_keepalive(raw)  # "k", "d"
            return
        self._started = self._started or raw.find(b"response.") >= 0  # `in` takes 1,400 instructions for bytes
        found = _NUMBER.match(raw, raw.rfind(b'"sequence_number"')) if self._is_first else None
        self._is_first = False
        if raw.startswith(b"event: response.failed"):
            self._has_failed = True
        self._number = self._number + 1 if found is None else int(found[1])
        self._take_room(len(raw))
        if self._room > 0 and _begins_item(raw):
            self._kept.append(raw)

    def _note_keepalive(self, raw: bytes) -> None:
        """Notes a keep-alive of the upstream's own: it takes no number, but a server may give it one."""
        found = _NUMBER.match(raw, raw.rfind(b'"sequence_number"'))
        if found is not None and not self._is_first:
            self._number = max(self._number, int(found[1]))

    def note_copied(self, count: int) -> None:
        """Counts copied frames; each has one number, without gaps."""
        self._is_first = False
        self._number += count

    def restart(self) -> None:
        """Voids the kept events; `event` continues the id and the numbers of the response that the client has."""
        self._is_first, self._has_failed = True, False
        self._kept, self._room, self._usage = [], SHARED.collected, None

    def is_end(self, raw: bytes) -> bool:
        """Returns whether a frame is `[DONE]`, which some servers send."""
        return is_done_mark(raw)

    def is_error(self, raw: bytes) -> bool:
        """Returns whether a last frame is `response.failed`; after an `error`, `response.failed` must still follow."""
        self._error_sent = _ERROR.search(raw) is not None
        return _FAILED.search(raw) is not None


class PassedEvents(Passthrough):
    """Passes on the upstream's frames, whose `response` objects say what is kept here.

    Args:
        encoder: Writes the gateway's own frames.
        kept: What the objects must say of their being kept; receives the last one.
        hides_usage: As for `Passthrough`.
    """

    def __init__(self, encoder: OwnEvents, kept: KeptAnswer, *, hides_usage: bool = False) -> None:
        super().__init__(encoder, hides_usage=hides_usage)
        self._answer = kept
        self._own = encoder
        self._before: Rewritten | None = None  # the frame before this one, if it has an object
        self._is_done = False

    def frame(self, raw: bytes, last: bool) -> None:
        """Works as `Passthrough.frame`."""
        answer = self._answer
        rewritten = rewrite_frame(raw, answer, is_kept=answer.is_kept, before=self._before)
        self._before = None  # it may be long
        if rewritten is None:  # nearly all
            super().frame(raw, last)
            return
        written, found = rewritten.written, rewritten.last
        if found is not None:
            without = partial(_frame_without, raw)
            answer.leave(found.identifier, found.status, rewritten.response, found.items, written, without)
        elif rewritten.is_end:  # it lacks an id or a status, and is not kept
            written = _frame_without(raw, answer)
        else:
            self._before = rewritten
        super().frame(written, last)

    def event(self, event: Event) -> None:
        """Works as `Passthrough.event`."""
        super().event(event)
        if event["type"] == "done":
            self._is_done = True

    def take_pieces(self) -> list[Piece]:
        """Works as `Passthrough.take_pieces`; holds the last object, and what follows it, until the answer is over."""
        taken, last = super().take_pieces(), self._answer.piece
        if last and not self._is_done:
            for at, piece in enumerate(taken):
                if piece is last:
                    self._out = taken[at:]
                    return taken[:at]
        return taken

    def leave_off(self) -> None:
        """Works as `ResponseEvents.leave_off`."""
        self._own.leave_off()


def _frame_without(raw: bytes, kept: KeptAnswer) -> bytes:
    """Returns an upstream's last frame for an answer that could not be kept."""
    rewritten = rewrite_frame(raw, kept, is_kept=False)
    return raw if rewritten is None else rewritten.written


class PassedWhole(WholePassthrough):
    """Passes on the upstream's whole answer, which says what is kept here; or builds one from events.

    Args:
        encoder: The dialect's encoder of whole answers.
        kept: What the answer must say of its being kept; receives the answer.
    """

    def __init__(self, encoder: Encoder, kept: KeptAnswer) -> None:
        super().__init__(encoder)
        self._answer = kept

    def take(self) -> bytes:
        """Works as `WholePassthrough.take`."""
        taken, answer = super().take(), self._answer
        if not taken or taken is answer.piece:  # built from events
            return taken
        answer.leave("", "", b"", ())  # what the encoder has left is not what the client gets
        rewritten = rewrite_whole(taken, answer, is_kept=answer.is_kept)
        if rewritten is None:
            return taken
        found = rewritten.last
        if found is None:  # it lacks an id or a status, and is not kept
            return _whole_without(taken, answer)
        without = partial(_whole_without, taken)
        response = well_formed(rewritten.response)
        answer.leave(found.identifier, found.status, response, found.items, rewritten.written, without)
        return rewritten.written


def _whole_without(raw: bytes, kept: KeptAnswer) -> bytes:
    """Returns an upstream's whole answer that could not be kept."""
    rewritten = rewrite_whole(raw, kept, is_kept=False)
    return raw if rewritten is None else rewritten.written


def _begins_item(raw: bytes) -> bool:
    """Returns whether a frame opens an item. Its data is searched only if its begin does not decide."""
    if raw.startswith(b"event: "):
        if not raw.startswith(b"event: response.output_item.added"):
            return False
        if raw.startswith(b'event: response.output_item.added\ndata: {"type":"response.output_item.added"'):
            return True  # OpenAI's own form; the search takes 2,800 instructions
    elif raw.find(b"response.output_item.added") < 0:
        return False
    return _ADDED.search(raw) is not None


def _with_text(event: Event, text: str) -> Event:
    return {**event, DELTAS[event["type"]]: text}  # type: ignore[misc]  # the key depends on the type


_IN_NO_ITEM: Final = frozenset(
    {"audio.delta", "safety", "step.end", "json.snapshot", "step.reset", "tool.progress", "approval.decided"}
)
_NUMBER: Final = re.compile(rb'"sequence_number": ?([0-9]{1,15})')
_ADDED: Final = re.compile(rb'"type"\s*:\s*"response\.output_item\.added"')
_ITEM_ID: Final = re.compile(rb'"item"\s*:\s*\{[^{}\[\]]*?"id"\s*:\s*"([\w.~-]{1,128})"')
_LINE: Final = re.compile(rb"(?:^|[\r\n])[^:\r\n]")
_KEEPALIVE_AT: Final = len(b"event: ")
_KEEPALIVE: Final = (b"event: keepalive", b'data: {"type":"keepalive"', b'data: {"type": "keepalive"')
_ERROR: Final = re.compile(rb'"type": ?"error"')
_FAILED: Final = re.compile(rb'"type": ?"response\.failed"')
