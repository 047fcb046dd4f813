"""Passthrough of Anthropic's stream: the events of ours that complete the upstream's own.

Owns the dialect's end mark and the place of warnings; `_passthrough.py` owns when a frame is passed on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final

from gai_fast.formats._passthrough import is_own_cancel
from gai_fast.formats.messages.stream import Messages
from gai_fast.model.events import Event

_THEIRS: Final = " theirs"
"""The name of a block that the upstream has opened."""


class OwnMessages(Messages):
    """Warnings stand on one `ping` before `message_stop`."""

    __slots__ = ()

    opens_parts: ClassVar[bool] = True

    def complete(self, event: Event) -> None:
        """Writes what the upstream's frames lack of an event."""
        write = _COMPLETING.get(event["type"])
        if write is not None:
            write(self, event)

    def note(self, raw: bytes) -> None:
        """Notes that the message has begun, and which block is open: an end of ours has to close it."""
        self._has_begun = self._has_begun or _START.search(raw) is not None
        found = _BLOCK.search(raw)
        if found is None:
            return
        index = _INDEX.search(raw)
        if found[1] == b"stop" or index is None:
            self._block = ""
        else:
            self._block, self._count = _THEIRS, int(index[1]) + 1

    def begin_anew(self) -> None:
        """The next attempt opens its own blocks."""
        self._block, self._count = "", 0

    def is_end(self, raw: bytes) -> bool:
        """Whether a frame is `message_stop`."""
        return _STOP.search(raw) is not None

    def is_error(self, raw: bytes) -> bool:
        """Whether a last frame is an event that the SDKs raise: they ignore data without a name."""
        return _ERROR_LINE.search(raw) is not None

    def end_mark(self) -> bytes:
        """`message_stop`."""
        return b'event: message_stop\ndata: {"type":"message_stop"}\n\n'

    def _named(self, event: Event) -> None:
        self._provider = event.get("provider")

    def _ended(self, event: Event) -> None:
        if is_own_cancel(event):
            self._start(event)  # unless the upstream has
            self._finish(event)
        elif self._warnings:
            self._ping({"warnings": self._warnings})


_COMPLETING: Final[Mapping[str, Callable[[Any, Event], None]]] = {
    "start": OwnMessages._named,
    "warning": Messages._warning,
    "usage": Messages._snapshot,
    "finish": OwnMessages._ended,
    "error": Messages._error,
}

_START: Final = re.compile(rb'"type"\s*:\s*"(?:message|content_block)_')
_BLOCK: Final = re.compile(rb'"type"\s*:\s*"content_block_(start|stop)"')
_INDEX: Final = re.compile(rb'"index"\s*:\s*([0-9]{1,6})')
_STOP: Final = re.compile(rb'"type"\s*:\s*"message_stop"')
_ERROR_LINE: Final = re.compile(rb"(?:^|[\r\n])event: ?error[\r\n]")
