"""Passthrough of Anthropic's stream: the gateway's events that complete the upstream's own.

Owns the dialect's end mark and the place of warnings; `_passthrough.py` owns when a frame is passed on.
"""

from __future__ import annotations

import re
from typing import ClassVar, Final

from gai_fast.formats._passthrough import is_own_end
from gai_fast.formats.messages.stream import Messages
from gai_fast.model.events import Event

_UPSTREAM_BLOCK: Final = " upstream"
"""The name of a block that the upstream has opened."""


class OwnMessages(Messages):
    """Writes warnings in one `ping` before `message_stop`."""

    opens_parts: ClassVar[bool] = True

    def complete(self, event: Event) -> None:
        """Writes the frames of an event that the upstream's frames lack."""
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

    def note(self, raw: bytes) -> None:
        """Records the start of the message and the open block: an end that the gateway writes must close it."""
        self._started = self._started or _START.search(raw) is not None
        found = _BLOCK.search(raw)
        if found is None:
            return
        index = _INDEX.search(raw)
        if found[1] == b"stop" or index is None:
            self._block = ""
        else:
            self._block, self._count = _UPSTREAM_BLOCK, int(index[1]) + 1

    def restart(self) -> None:
        """Forgets the open block: the next attempt opens its own blocks."""
        self._block, self._count = "", 0

    def is_end(self, raw: bytes) -> bool:
        """Returns whether a frame is `message_stop`."""
        return _STOP.search(raw) is not None

    def is_error(self, raw: bytes) -> bool:
        """Returns whether the SDKs raise a last frame as an error: they ignore data without an event name."""
        return _ERROR_LINE.search(raw) is not None

    def end_mark(self) -> bytes:
        """Returns `message_stop`."""
        return b'event: message_stop\ndata: {"type":"message_stop"}\n\n'

    def _on_start(self, event: Event) -> None:
        self._provider = event.get("provider")

    def _on_finish(self, event: Event) -> None:
        if is_own_end(event):
            self._start(event)  # writes nothing if the upstream has started the message
            self._finish(event)
        elif self._warnings:
            self._ping({"warnings": self._warnings})


_START: Final = re.compile(rb'"type"\s*:\s*"(?:message|content_block)_')
_BLOCK: Final = re.compile(rb'"type"\s*:\s*"content_block_(start|stop)"')
_INDEX: Final = re.compile(rb'"index"\s*:\s*([0-9]{1,6})')
_STOP: Final = re.compile(rb'"type"\s*:\s*"message_stop"')
_ERROR_LINE: Final = re.compile(rb"(?:^|[\r\n])event: ?error[\r\n]")
