"""The base of encoders for formats whose deltas stand in blocks with a start and an end.

Owns the frame of a delta, and when the kernel may write it: inside the delta's block, or after the start of its call.
Knows no format: subclasses write the start and end of blocks and the frames of events.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from gai_fast.formats._base import DataEncoder, Framing, StreamContext
from gai_fast.kernels import Part, escape
from gai_fast.model.events import Event


class BlockEncoder(DataEncoder):
    """Events → the frames of a format with blocks. Choices beyond the first are left out.

    Args:
        framing: `sse`.
        context: The stream.
    """

    __slots__ = ("_block", "_head")

    blocks: ClassVar[Mapping[str, str]]
    """The kind of block for each type of text delta."""
    writers: ClassVar[Mapping[str, Callable[[Any, Event], None]]]
    """The method for each type of event; other types write nothing."""

    def __init__(self, framing: Framing, context: StreamContext) -> None:
        super().__init__(framing, context)
        self.has_blocks = True
        self._block = ""
        """The kind of the open block, or empty if no block is open."""
        self._head = b""
        """The frame of a delta of the open block, up to its text."""

    def event(self, event: Event) -> None:
        """Writes the frames of one event."""
        # The hot path: a delta of the open block.
        if self._block and self.blocks.get(event["type"]) == self._block and "choice" not in event and not self._ids:
            self._seq += 1
            self._out.append(self._head + escape(event.get("text", "")) + b"}\n\n")
        else:
            super().event(event)

    def delta_parts(self, event: Event, key: str) -> Sequence[Part] | None:
        """Returns the parts of a delta like this one, or None before the start of its block or call."""
        if "choice" in event:
            return None
        if key == "arguments":
            if not self._accepts_arguments(event["call_id"]):
                return None
            return self._parts(self._lead + self._argument_head(event) + b'"', b'"}\n\n')
        if self.blocks[event["type"]] != self._block:
            return None
        return self._parts(self._head + b'"', b'"}\n\n')

    def _encode(self, event: Event) -> None:
        write = self.writers.get(event["type"])
        if write is not None and not event.get("choice"):
            write(self, event)

    def _text(self, event: Event) -> None:
        """Writes a delta in its block."""
        self._begin(self.blocks[event["type"]])
        self._frame(self._head[len(self._lead) :] + escape(event.get("text", "")) + b"}")

    def _write_arguments(self, event: Event) -> None:
        """Writes a fragment of a call's arguments."""
        self._frame(self._argument_head(event) + escape(event.get("arguments", "")) + b"}")

    @abstractmethod
    def _begin(self, block: str) -> None:
        """Opens a block of this kind unless it is open, ends any other block, and sets `_block` and `_head`."""
        raise NotImplementedError

    @abstractmethod
    def _accepts_arguments(self, call_id: str) -> bool:
        """Returns whether the next fragment of a call's arguments is one frame and changes no state."""
        raise NotImplementedError

    @abstractmethod
    def _argument_head(self, event: Event) -> bytes:
        """Returns the JSON of a fragment of a call's arguments, up to the fragment's text."""
        raise NotImplementedError
