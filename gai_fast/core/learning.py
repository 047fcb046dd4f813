"""The deltas that a `DeltaCopier` learns. It copies similar frames without parsing them.

Owns which delta of a stream may be learned, and when the copier must forget. The adapter defines which members of a
frame are text. The sink defines of which parts a delta is written. The copier guarantees that copying is invisible.
"""

from __future__ import annotations

from typing import Any, Final, Literal, cast

from gai_fast.core.adapter import Adapter
from gai_fast.core.sinks import DeltaSink
from gai_fast.kernels import DeltaCopier, Frame
from gai_fast.model.events import DELTAS, Event

# A copy of the table in `events`: compiled code reads it without a look-up.
_TEXT_KEYS: Final[dict[str, str]] = dict(DELTAS)


class Learning:
    """Passes frames of one attempt to the copier to learn from.

    Args:
        adapter: Has read the frames.
        deltas: Writes the deltas.
        copier: Learns.
    """

    def __init__(self, adapter: Adapter, deltas: DeltaSink, copier: DeltaCopier) -> None:
        self._adapter = adapter
        self._deltas = deltas
        self._copier = copier
        self._collects_text = deltas.collects_text  # read once: a look-up in a sink costs 330 instructions
        self._block: tuple[object, ...] = ()

    def receive(self, frame: Frame, events: list[Event], *, joins: bool, has_content: bool) -> None:
        """Receives a parsed frame. The copier learns it if it became one delta; otherwise it may have to forget.

        Args:
            frame: The frame.
            events: The events of the frame, already sent to the sink.
            joins: Whether the next delta must be joined with a high surrogate, so it must not be copied.
            has_content: Whether the attempt has had content.
        """
        adapter, copier, deltas = self._adapter, self._copier, self._deltas
        count = len(events)
        key = _TEXT_KEYS.get(events[0]["type"]) if count == 1 else None
        if key is not None and deltas.has_blocks:
            self._enter_block(events[0])
        if not adapter.copyable or (count and key is None):
            copier.forget()
        elif key is not None and copier.learns and not joins:
            parts = deltas.delta_parts(events[0], key)
            if parts is not None:
                event, key = self._kept(events[0], key)
                copier.learn(frame, event, key, parts, adapter.is_plain)
        if not joins and (not has_content or (count == 2 and _is_first_text(events))):
            self._expect()

    def _enter_block(self, event: Event) -> None:
        """Forgets the frames of the previous block if a delta belongs to another block."""
        block = event["type"], event.get("choice"), event.get("index")
        if block != self._block:
            self._block = block
            self._copier.forget()

    def _expect(self) -> None:
        """Passes the usual next delta to the copier, if the adapter knows it."""
        event = self._adapter.expected()
        if event is not None:
            key = _TEXT_KEYS[event["type"]]
            parts = self._deltas.delta_parts(event, key)
            if parts is not None:
                event, key = self._kept(event, key)
                self._copier.expect(event, key, parts)

    def _kept(self, event: Event, key: str) -> tuple[Event, str]:
        """Returns a delta and the key of its text; the key decides how much of the text the copier keeps."""
        if key == "text":
            is_visible = event["type"] == "text.delta"
            if self._collects_text or (self._adapter.collects_text and is_visible):
                return _renamed(event, "arguments")
            if self._adapter.follows_text and is_visible:
                return _renamed(event, "trail")
        return event, key


def _is_first_text(events: list[Event]) -> bool:
    """Returns whether the two events of a frame are `start` and a text. The next deltas are like this text."""
    if events[0]["type"] != "start":
        return False
    delta = events[1]
    return delta["type"] == "text.delta" and "choice" not in delta


def _renamed(event: Event, key: Literal["arguments", "trail"]) -> tuple[Event, str]:
    """Returns a delta with its text under another key, and the key.

    The copier keeps all text of `arguments`, the end of the text of `trail`, and no other text.
    """
    renamed: dict[str, Any] = {**event, key: event.get("text", "")}
    renamed.pop("text", None)
    return cast("Event", renamed), key
