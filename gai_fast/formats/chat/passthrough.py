"""Passthrough of OpenAI's chat stream: the chunks of ours that complete the upstream's own.

Owns the dialect's end mark and the place of warnings; `_passthrough.py` owns when a frame is passed on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final

from gai_fast.formats._passthrough import is_done_mark, is_own_cancel
from gai_fast.formats.chat.parts import tells_error
from gai_fast.formats.chat.stream import Chunks
from gai_fast.model.events import Event


class OwnChunks(Chunks):
    """Warnings stand on one chunk with `choices: []` before `[DONE]`."""

    __slots__ = ()

    # Chunks without an event have a role or a filter's result: none that another attempt must repeat.
    opens_parts: ClassVar[bool] = False

    def complete(self, event: Event) -> None:
        """Writes what the upstream's frames lack of an event."""
        write = _COMPLETING.get(event["type"])
        if write is not None:
            write(self, event)

    def note(self, raw: bytes) -> None:
        """Notes nothing: a chunk of ours depends on events only."""

    def begin_anew(self) -> None:
        """The client has the role."""
        self._choices = [0]

    def is_end(self, raw: bytes) -> bool:
        """Whether a frame is `[DONE]`."""
        return is_done_mark(raw)

    def is_error(self, raw: bytes) -> bool:
        """Whether a last frame has an error that clients read."""
        return tells_error(raw)

    def end_mark(self) -> bytes:
        """`[DONE]`."""
        return b"data: [DONE]\n\n"

    def _named(self, event: Event) -> None:
        identifier = event.get("provider_metadata", {}).get("id")
        self._name_stream(identifier or self._id, event.get("model", self._model))

    def _ended(self, event: Event) -> None:
        if is_own_cancel(event):
            self._finish(event)
        elif self._warnings:
            self._chunk(b"", {"warnings": self._warnings})


_COMPLETING: Final[Mapping[str, Callable[[Any, Event], None]]] = {
    "start": OwnChunks._named,
    "warning": Chunks._warning,
    "usage": Chunks._snapshot,
    "finish": OwnChunks._ended,
    "error": Chunks._error,
}
