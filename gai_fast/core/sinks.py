"""The interfaces of a stream's receivers: `EventSink`, `DeltaSink`, `FrameSink`.

The relay calls them; the formats' encoders and the library's collectors implement them. Neither side knows the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from gai_fast.kernels import Part, Piece
from gai_fast.model.errors import GaiFastError
from gai_fast.model.events import Event


class Inexpressible(GaiFastError):
    """A sink's format cannot express this end: the response must be cut off."""


class EventSink(Protocol):
    """Receives the events of a stream in order: a format's encoder, or a collector."""

    def event(self, event: Event) -> None:
        """Receives one event. The sink may keep the dict, and must not change it.

        Raises:
            ValueError: The event cannot be written; nothing of it was written.
        """


class DeltaSink(EventSink, Protocol):
    """A sink that also accepts already written deltas, most of a stream, without an event for each."""

    has_blocks: bool
    """Whether the first delta of another kind, choice or call writes more than a later one, such as the start of a
    block. After such a change, deltas must come as events again."""
    collects_text: bool
    """Whether the sink needs the text of already written deltas: `copied` then receives it. With `has_blocks` it
    receives arguments in any case: they say whether their block may end."""

    @property
    def seq(self) -> int:
        """The number of the last event; 0 if the sink does not number events."""

    def delta_parts(self, event: Event, key: str) -> Sequence[Part] | None:
        """Returns the parts of which the next delta like this one is written. `None` if it must come as an event.

        Args:
            event: The last received delta, or the expected next delta.
            key: The key of its text.
        """

    def append_frames(self, frames: Piece, count: int, characters: int = 0) -> None:
        """Receives already written deltas, made of `delta_parts`.

        Args:
            frames: Their bytes; empty if they have been sent already.
            count: Their number.
            characters: The code points of their visible text.
        """

    def copied(self, event: Event, text: str) -> None:
        """Receives the text of deltas of one kind, before `append_frames` receives the deltas.

        Args:
            event: One of the deltas, with any text.
            text: Their joined texts.
        """


class FrameSink(EventSink, Protocol):
    """A sink in the upstream's own dialect. Writes the upstream's bytes, and the events that the bytes lack."""

    whole: bool
    """Whether the client requested one JSON object, so a complete JSON answer is passed on unchanged."""
    opens_parts: bool
    """Whether a frame without events may open a part of the answer. A new attempt then opens its own parts."""
    commits: bool
    """Whether a frame counts as delivered as soon as it is passed on: no frames of another attempt may follow it."""
    copies_body: bool
    """Whether the client gets the body byte for byte, including the bytes after the upstream's own end."""

    def frame(self, raw: bytes, last: bool) -> None:
        """Receives one frame unchanged.

        Args:
            raw: The bytes from the end of the previous frame to the end of this one.
            last: Whether the frame is the upstream's end mark, has its error, or comes after these.
        """
