"""Surrogate pairs that are split between two deltas (docs/events.md, "Bytes").

Owns which deltas are neighbours, and what becomes of half a pair. Knows no encoding.

1. A high surrogate at the end of a delta waits for the next delta of its place: its type, choice and index. A delta
   without other text is left out.
2. Deltas of other places and asides come in between, and events of other calls between those of a call. Any other event
   separates the deltas of its choice; an event that belongs to all choices separates all.
3. A half that is separated from its other half becomes U+FFFD, in a delta before the event that separates them.
4. A delta with a number of its own keeps its text: the number would otherwise be missing, or be used twice.
"""

from __future__ import annotations

import re
from typing import Any, Final

from gai_fast.model.events import ANNOTATIONS, DELTAS, Event, join_surrogates

Place = tuple[str, int, object]
Halves = dict[Place, Event]
"""Waiting high surrogates: for each place the delta that holds nothing else."""

_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")
_HIGH: Final = re.compile(r"[\ud800-\udbff]\Z")
_OF_ALL: Final = frozenset(
    {"stream.reset", "stream.gap", "step.start", "step.end", "step.reset", "finish", "error", "done"}
)
"""Events that belong to all choices."""
_OF_CALL: Final = frozenset({"tool.call.start", "tool.call"})
"""Events of one call: parallel calls take turns."""


def join(halves: Halves, event: Event, key: str, text: str) -> tuple[Event, str]:
    """Returns a delta and its text without lone surrogates: rules 1 and 4.

    Args:
        halves: The waiting halves.
        event: The delta.
        key: The key of its text.
        text: The text.
    """
    place: Place = event["type"], _choice_of(event), _index_of(event)
    half = halves.pop(place, None)
    if half is not None:
        text = half[key] + text  # type: ignore[literal-required]  # the key depends on the type
    elif not _SURROGATE.search(text):
        return event, text
    if _HIGH.search(text) and "seq" not in event:
        halves[place] = {**event, key: text[-1]}  # type: ignore[misc]  # as above
        text = text[:-1]
    text = join_surrogates(text)
    return {**event, key: text}, text  # type: ignore[misc]  # as above


def separated(halves: Halves, event: Event) -> list[Event]:
    """Removes the halves that an event separates from their other halves, and returns their deltas: rules 2 and 3.

    Args:
        halves: The waiting halves.
        event: An event that is not a delta.
    """
    kind = event["type"]
    if kind in ANNOTATIONS or kind == "start":
        return []
    if kind in _OF_ALL:
        return rest(halves)
    choice = _choice_of(event)
    call_id = event.get("call_id") if kind in _OF_CALL else None
    own: Halves = {}
    for place in list(halves):
        of_call = halves[place].get("call_id", call_id) if place[0] == "tool.call.delta" else call_id
        if place[1] == choice and (call_id is None or of_call == call_id):
            own[place] = halves.pop(place)
    return rest(own)


def _choice_of(event: Any) -> int:
    """Returns the choice of an event. Programs write events of their own, whose members may have any type."""
    choice = event.get("choice")
    return choice if isinstance(choice, int) else 0


def _index_of(event: Any) -> int | None:
    index = event.get("index")
    return index if isinstance(index, int) else None


def rest(halves: Halves) -> list[Event]:
    """Removes all waiting halves, and returns their deltas."""
    found: list[Event] = []
    for event in halves.values():
        key = DELTAS[event["type"]]
        found.append({**event, key: "\ufffd"})  # type: ignore[misc]  # as above
    halves.clear()
    return found


def ends_in_half(event: Any) -> bool:
    """Returns whether an event is a delta whose text ends in a high surrogate."""
    key = DELTAS.get(event.get("type"))
    text = None if key is None else event.get(key)
    return isinstance(text, str) and _HIGH.search(text) is not None


def joined(halves: Halves, event: Any) -> list[Any]:
    """Returns the events to write in place of an event: rules 1 to 4.

    Args:
        halves: The waiting halves.
        event: The event. An event without a type, or a delta whose text is not a `str`, is returned unchanged.
    """
    kind = event.get("type") if isinstance(event, dict) else None
    if not isinstance(kind, str):
        return [event]
    key = DELTAS.get(kind)
    if key is None:
        return [*separated(halves, event), event]
    text = event.get(key)
    if not isinstance(text, str):
        return [event]
    joined_event, left = join(halves, event, key, text)
    return [joined_event] if left or not text else []
