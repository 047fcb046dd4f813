"""Events as they are kept of an answer: adjacent deltas are one.

Owns which of them are alike. Sans-IO; who keeps them decides which ones come here.
"""

from __future__ import annotations

from typing import Any, cast

from gai_fast.model.events import DELTAS, Event


class JoinedEvents:
    """Events in order. Deltas are joined if they have all in common but the text, and no `logprobs`."""

    def __init__(self) -> None:
        self._events: list[dict[str, Any]] = []
        self._texts: list[str] = []  # of the last event, if it is a delta

    def add(self, event: dict[str, Any]) -> None:
        """Adds an event, which is used from now on."""
        key = None if "logprobs" in event else DELTAS.get(event["type"])
        text = "" if key is None else event.pop(key, "")
        if self._texts and event == self._events[-1]:
            self._texts.append(text)
            return
        self._end_delta()
        self._events.append(event)
        if key is not None:
            self._texts.append(text)

    def take(self) -> list[Event]:
        """Returns the events since the last call."""
        self._end_delta()
        events, self._events = self._events, []
        return cast("list[Event]", events)

    def _end_delta(self) -> None:
        if self._texts:
            last = self._events[-1]
            last[DELTAS[last["type"]]] = "".join(self._texts)
            self._texts.clear()
