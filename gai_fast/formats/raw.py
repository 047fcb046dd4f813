"""The format `raw`: the bytes of the upstream's body as they came, in whatever dialect it speaks.

A frame that cannot be read is left out, and so is an error that tells of the gateway's own account. Nothing is added:
no keep-alive, and no word about an end that the upstream did not tell itself. So where an answer breaks, or is
cancelled, after its beginning, the response is cut off, and no other attempt follows. What follows the upstream's own
end belongs to the body: the response ends when the body does, at the latest `SHARED.upstream_tail` seconds after that
end. No log, processor or continuation can make these bytes from events.

| event | body |
|---|---|
| `start` `text.delta` `reasoning.delta` `refusal.delta` `reasoning.signature` | none: the upstream's frame holds it |
| `tool.call.start` `tool.call.delta` `tool.call` `tool.result` `server_tool` | none: the same |
| `citations` `image` `audio.delta` `safety` `usage` `step.end` | none: the same |
| `finish` `error` | none: the same, or the response is cut off |
| `warning` `done` `json.snapshot` | none: the upstream knows nothing of it |
| `stream.reset` | none: what was kept of a whole answer is void |
| `stream.gap` | none: there is no log |
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from gai_fast.core.sinks import Untellable
from gai_fast.formats._base import Encoder, Format, Framing, StreamContext, StreamEncoder
from gai_fast.formats._passthrough import is_own_cancel
from gai_fast.kernels import Part, Piece
from gai_fast.model.events import Event


class RawBody:
    """The upstream's frames, byte for byte; a whole answer is one frame.

    Args:
        hold: Nothing is sent before the end.
    """

    __slots__ = ("_has_begun", "_is_told", "_out", "commits")

    whole: bool = True
    opens_parts: bool = False
    copies_body: bool = True
    has_blocks: bool = False
    collects_text: bool = False

    def __init__(self, *, hold: bool = False) -> None:
        self.commits = not hold
        self._out: list[Piece] = []
        self._has_begun = False
        self._is_told = False

    @property
    def seq(self) -> int:
        """0: the upstream's frames have no numbers of ours."""
        return 0

    def frame(self, raw: bytes, *, last: bool) -> None:
        """Takes one frame of the upstream's."""
        self._has_begun = True
        self._is_told = last
        self._out.append(raw)

    def delta_parts(self, event: Event, key: str) -> Sequence[Part] | None:
        """Returns no parts: the delta's frame is passed on."""
        return ()

    def append_frames(self, frames: Piece, count: int, characters: int = 0) -> None:
        """Takes frames of the upstream's, all of them deltas."""
        self._has_begun = True
        self._out.append(frames)

    def copied(self, event: Event, text: str) -> None:
        """Is not called: nothing of the answer is repeated."""

    def event(self, event: Event) -> None:
        """Takes one event, whose frame has been passed on.

        Raises:
            Untellable: The stream ends otherwise than its frames say.
        """
        kind = event["type"]
        if kind == "stream.reset":  # only in a whole answer, of which nothing has been sent yet
            self._out, self._has_begun = [], False
            return
        if not self._is_told and (kind == "error" or (is_own_cancel(event) and self._has_begun)):
            raise Untellable

    def heartbeat(self) -> None:
        """Writes nothing."""

    def take(self) -> bytes:
        """The bytes written since the last call."""
        return b"".join(self.take_pieces())

    def take_pieces(self) -> list[Piece]:
        """The bytes written since the last call, in pieces."""
        taken, self._out = self._out, []
        return taken


class RawFormat(Format):
    """The upstream's own bytes."""

    name: ClassVar[str] = "raw"
    framings: ClassVar[tuple[Framing, ...]] = ("sse",)
    copies_upstream: ClassVar[bool] = True

    def encoder(self, framing: Framing, context: StreamContext) -> StreamEncoder:
        """Creates a sink of the upstream's frames."""
        return RawBody()

    def whole(self, context: StreamContext) -> Encoder:
        """Creates a sink that another attempt may fill anew: nothing of it is sent before the end."""
        return RawBody(hold=True)

    def media_type(self, framing: Framing) -> str:
        """Plain text: what an upstream sends is not for a browser to interpret."""
        return "text/plain; charset=utf-8"

    def whole_media_type(self, pieces: Sequence[Piece]) -> str:
        """JSON where the upstream answered with one document; it may have streamed all the same."""
        is_document = len(pieces) == 1 and bytes(pieces[0][:64]).lstrip()[:1] in (b"{", b"[")
        return super().whole_media_type(pieces) if is_document else self.media_type("sse")


FORMAT = RawFormat()
