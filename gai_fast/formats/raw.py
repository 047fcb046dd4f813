"""The format `raw`: the bytes of the upstream's body unchanged, in the upstream's dialect.

An unreadable frame is left out, and so is an error about the gateway's own account. Nothing is added: no keep-alive,
and no frame for an end that the upstream did not send. So if an answer fails or is cancelled after its first frame, the
response is cut off, and no other attempt follows. Bytes after the upstream's own end belong to the body: the response
ends with the body, at the latest `SHARED.upstream_tail` seconds after that end. No log, processor or continuation can
produce these bytes from events.

| event | body |
|---|---|
| `start` `text.delta` `reasoning.delta` `refusal.delta` `reasoning.signature` | none: the upstream's frame has it |
| `tool.call.start` `tool.call.delta` `tool.call` `tool.result` `server_tool` | none: the upstream's frame has it |
| `provider.block` `citations` `image` `audio.delta` `safety` `usage` `step.end` | none: the upstream's frame has it |
| `step.start` `step.reset` `tool.progress` `approval.required` `approval.decided` | none: there are no runs |
| `finish` `error` | none: the upstream's frame has it, or the response is cut off |
| `warning` `done` `json.snapshot` | none: these are the gateway's own events |
| `stream.reset` | none: the buffered frames of a whole answer are void |
| `stream.gap` | none: there is no log |
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from gai_fast.core.sinks import Inexpressible
from gai_fast.formats._base import Encoder, Format, Framing, StreamContext, StreamEncoder
from gai_fast.formats._passthrough import is_own_end
from gai_fast.kernels import Part, Piece
from gai_fast.model.events import Event


class RawBody:
    """Passes on the upstream's frames, byte for byte; a whole answer is one frame.

    Args:
        hold: Nothing is sent before the end.
    """

    __slots__ = ("_end_passed", "_out", "_started", "commits")

    whole: bool = True
    opens_parts: bool = False
    copies_body: bool = True
    has_blocks: bool = False
    collects_text: bool = False

    def __init__(self, *, hold: bool = False) -> None:
        self.commits = not hold
        self._out: list[Piece] = []
        self._started = False
        self._end_passed = False

    @property
    def seq(self) -> int:
        """0: the gateway does not number upstream frames."""
        return 0

    def frame(self, raw: bytes, last: bool) -> None:
        """Receives one upstream frame."""
        self._started = True
        self._end_passed = last
        self._out.append(raw)

    def delta_parts(self, event: Event, key: str) -> Sequence[Part] | None:
        """Returns no parts: the delta's frame is passed on."""
        return ()

    def append_frames(self, frames: Piece, count: int, characters: int = 0) -> None:
        """Appends upstream frames; all of them are deltas."""
        self._started = True
        self._out.append(frames)

    def copied(self, event: Event, text: str) -> None:
        """Does nothing; never called, since `collects_text` is false."""

    def event(self, event: Event) -> None:
        """Receives one event whose frame has been passed on.

        Raises:
            Inexpressible: The stream's end differs from the end in its frames.
        """
        kind = event["type"]
        if kind == "stream.reset":  # only in a whole answer, before anything is sent
            self._out, self._started = [], False
            return
        is_ours = kind == "finish" and self._started and is_own_end(event)
        if not self._end_passed and (kind == "error" or is_ours):
            raise Inexpressible

    def heartbeat(self) -> None:
        """Writes nothing."""

    def take(self) -> bytes:
        """Returns the bytes written since the last call."""
        return b"".join(self.take_pieces())

    def take_pieces(self) -> list[Piece]:
        """Returns the bytes written since the last call, unjoined."""
        taken, self._out = self._out, []
        return taken


class RawFormat(Format):
    """The upstream's own bytes."""

    name: ClassVar[str] = "raw"
    framings: ClassVar[tuple[Framing, ...]] = ("sse",)
    copies_upstream: ClassVar[bool] = True

    def encoder(self, framing: Framing, context: StreamContext) -> StreamEncoder:
        """Creates a sink for the upstream's frames."""
        return RawBody()

    def whole(self, context: StreamContext) -> Encoder:
        """Creates a sink that sends nothing before the end, so another attempt may replace its frames."""
        return RawBody(hold=True)

    def media_type(self, framing: Framing) -> str:
        """Returns plain text: a browser must not interpret an upstream's bytes."""
        return "text/plain; charset=utf-8"

    def whole_media_type(self, pieces: Sequence[Piece]) -> str:
        """Returns JSON if the upstream answered with one document, or plain text if it streamed anyway."""
        is_document = len(pieces) == 1 and bytes(pieces[0][:64]).lstrip()[:1] in (b"{", b"[")
        return super().whole_media_type(pieces) if is_document else self.media_type("sse")


FORMAT = RawFormat()
