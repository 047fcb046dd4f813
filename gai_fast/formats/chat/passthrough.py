"""Passthrough of OpenAI's chat stream: the gateway's chunks that complete the upstream's own.

Owns the dialect's end mark and the place of warnings; `_passthrough.py` owns when a frame is passed on.
"""

from __future__ import annotations

from typing import ClassVar

from gai_fast.formats._passthrough import is_done_mark, is_own_end, lacks_usage
from gai_fast.formats.chat.parts import is_error_frame
from gai_fast.formats.chat.stream import Chunks
from gai_fast.model.events import Event


class OwnChunks(Chunks):
    """Writes warnings, and usage that the upstream's frames lack, in one chunk with `choices: []` before `[DONE]`."""

    # Chunks without an event have a role or a filter's result. A later attempt need not repeat these.
    opens_parts: ClassVar[bool] = False

    def complete(self, event: Event) -> None:
        """Writes the chunks of an event that the upstream's frames lack."""
        kind = event["type"]
        if kind == "start":
            self._on_start(event)
        elif kind == "warning":
            self._warning(event)
        elif kind == "usage":
            self._snapshot(event)
        elif kind == "finish":
            self._on_finish(event)
        elif kind == "error":
            self._error(event)

    def restart(self) -> None:
        """Marks the first choice as open: the client has its role."""
        self._choices = [0]

    def is_end(self, raw: bytes) -> bool:
        """Returns whether a frame is `[DONE]`."""
        return is_done_mark(raw)

    def is_error(self, raw: bytes) -> bool:
        """Returns whether a last frame has an error that clients read."""
        return is_error_frame(raw)

    def end_mark(self) -> bytes:
        """Returns `[DONE]`."""
        return b"data: [DONE]\n\n"

    def _on_start(self, event: Event) -> None:
        identifier = event.get("provider_metadata", {}).get("id")
        self._name_stream(identifier or self._id, event.get("model", self._model))

    def _on_finish(self, event: Event) -> None:
        if is_own_end(event):
            self._finish(event)
        elif self._usage_asked and lacks_usage(event):
            self._usage_chunk(event["usage"], {"warnings": self._warnings} if self._warnings else {})
        elif self._warnings:
            self._chunk(b"", {"warnings": self._warnings})
