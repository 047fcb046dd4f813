"""Passthrough of Anthropic's stream: the gateway's events that complete the upstream's own.

Owns the dialect's end mark and the place of warnings; `_passthrough.py` owns when a frame is passed on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Final

from gai_fast.formats._base import Framing, StreamContext
from gai_fast.formats._passthrough import is_own_end, is_told, lacks_usage, with_object
from gai_fast.formats.messages.parts import COUNTS_AT_END, tell_usage
from gai_fast.formats.messages.stream import Messages
from gai_fast.model.events import Event

_UPSTREAM_BLOCK: Final = " upstream"
"""The name of a block that the upstream has opened."""


class OwnMessages(Messages):
    """Writes warnings in one `ping` before `message_stop`."""

    __slots__ = ("_is_told",)

    opens_parts: ClassVar[bool] = True

    def __init__(self, framing: Framing, context: StreamContext) -> None:
        super().__init__(framing, context)
        self._is_told = False  # a frame of the upstream has the usage that is charged

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

    def note(self, raw: bytes) -> bytes:
        """Records the start of the message and the open block: an end that the gateway writes must close it.

        The SDK's reader fails at a message whose start has no usage.
        """
        if not self._started and _START.search(raw) is not None:
            self._started = True
            if raw.find(b'"usage"') < 0:
                return with_object(raw, _with_no_usage)
        found = _BLOCK.search(raw)
        if found is None:
            return raw
        index = _INDEX.search(raw)
        if found[1] == b"stop" or index is None:
            self._block = ""
        else:
            self._block, self._count = _UPSTREAM_BLOCK, int(index[1]) + 1
        return raw

    def waits(self, raw: bytes) -> bool:
        """Returns whether a frame is a `message_delta`."""
        return raw.find(b"message_delta") >= 0 and _END.search(raw) is not None

    def tell(self, raw: bytes, usage: Mapping[str, Any]) -> bytes:
        """Returns a `message_delta` with the usage that is charged."""
        if not self.waits(raw):
            return raw
        self._is_told = True
        if is_told(raw, usage, COUNTS_AT_END):
            return raw
        return with_object(raw, partial(tell_usage, usage=usage))

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
        elif lacks_usage(event) and not self._is_told:  # the upstream's end has come without one, or too early
            self._finish(event)
        elif self._warnings:
            self._ping({"warnings": self._warnings})


_START: Final = re.compile(rb'"type"\s*:\s*"(?:message|content_block)_')
_BLOCK: Final = re.compile(rb'"type"\s*:\s*"content_block_(start|stop)"')
_INDEX: Final = re.compile(rb'"index"\s*:\s*([0-9]{1,6})')
_END: Final = re.compile(rb'"type"\s*:\s*"message_delta"')
_STOP: Final = re.compile(rb'"type"\s*:\s*"message_stop"')
_ERROR_LINE: Final = re.compile(rb"(?:^|[\r\n])event: ?error[\r\n]")


def _with_no_usage(event: dict[str, Any]) -> None:
    message = event.get("message")
    if isinstance(message, dict):
        message["usage"] = {"input_tokens": 0, "output_tokens": 0}
