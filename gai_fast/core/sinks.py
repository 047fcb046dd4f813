"""The interfaces of what receives a stream: `EventSink`, `DeltaSink`, `FrameSink`.

The relay drives them; the formats' encoders and the library's collectors implement them. Neither side knows the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from gai_fast.kernels import Part, Piece
from gai_fast.model.errors import GaiFastError
from gai_fast.model.events import Event


class Untellable(GaiFastError):
    """Raised by a sink for an end that its format has no word for: the response must be cut off."""


class EventSink(Protocol):
    """Receives the events of a stream in order: a format's encoder, or a collector."""

    def event(self, event: Event) -> None:
        """Receives one event; the sink may keep the dict, and must not change it.

        Raises:
            ValueError: The event cannot be written; nothing of it was.
        """


class DeltaSink(EventSink, Protocol):
    """A sink that also receives deltas that are written already: most of a stream, without an event for each."""

    has_blocks: bool
    """Whether the first delta of another kind, choice or call writes more than a later one, such as the beginning of a
    block. Deltas learned before it must then come as events again."""
    collects_text: bool
    """Whether the sink needs the text of deltas that are written already: then `copied` is called with it."""

    @property
    def seq(self) -> int:
        """The number of the last event; 0 where the sink does not number events."""

    def delta_parts(self, event: Event, key: str) -> Sequence[Part] | None:
        """Returns the parts of which the next delta like this one is written; `None`: it must come as an event.

        Args:
            event: The delta that was just received, or one that is expected next.
            key: The key that holds its text.
        """

    def append_frames(self, frames: Piece, count: int, characters: int = 0) -> None:
        """Receives deltas that are written already, made of `delta_parts`.

        Args:
            frames: Their bytes; none where they have been sent, too.
            count: Their number.
            characters: The code points of the visible text in them.
        """

    def copied(self, event: Event, text: str) -> None:
        """Receives the text of deltas of one kind, before `append_frames` is called with them.

        Args:
            event: One of them, with any text.
            text: Their texts joined.
        """


class FrameSink(EventSink, Protocol):
    """A sink of the upstream's own dialect: it writes the upstream's bytes, and only those events that they lack."""

    whole: bool
    """Whether the client asked for one JSON object, so that a whole answer is passed on as it is."""
    opens_parts: bool
    """Whether a frame that becomes no event may open a part of the answer; a fresh attempt then opens its own."""
    commits: bool
    """Whether a frame counts as delivered as soon as it is passed on: no other attempt's may follow it."""
    copies_body: bool
    """Whether the client gets the body byte for byte: also what follows the upstream's own end, up to the body's."""

    def frame(self, raw: bytes, *, last: bool) -> None:
        """Receives one frame as it came.

        Args:
            raw: The bytes from the end of the frame before to the end of this one.
            last: This frame is the upstream's end mark, holds its error, or follows these.
        """
