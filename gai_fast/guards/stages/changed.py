"""What does not fit any more once guards have changed a text: signatures, places in it, probabilities of tokens.

Owns also what guards look at beside a `finish`: what its provider says, without the ends of choices, whose words are
the gateway's.
"""

from __future__ import annotations

from typing import Any, Final, cast

from gai_fast.model.events import DELTAS, FINISH_REASONS, Event, JSONText, other_ends

_END: Final = frozenset({"choice", "finish_reason", "finish_reason_raw"})
"""The members of the end of a choice. `finish_reason_raw` is a word of the provider, as on the `finish` itself."""


class Changed:
    """What was changed in one choice."""

    def __init__(self) -> None:
        self._has_masked_reasoning = False  # since the last signature
        self._has_other_text = False

    def masked(self, kind: str) -> None:
        """Notes that something was masked in a delta of a type."""
        self._has_other_text = self._has_other_text or kind == "text.delta"
        self._has_masked_reasoning = self._has_masked_reasoning or kind == "reasoning.delta"

    def restored(self, kind: str) -> None:
        """Notes that own words came back in a delta of a type: the signature is of the upstream's text, and stays."""
        self._has_other_text = self._has_other_text or kind == "text.delta"

    def fitting(self, event: Event) -> Event | None:
        """Returns an event of the choice as it fits to what was sent before it. None if it does not fit at all."""
        kind = event["type"]
        if kind == "reasoning.signature" and "redacted" not in event and "call_id" not in event:
            is_void, self._has_masked_reasoning = self._has_masked_reasoning, False
            return None if is_void else event
        if kind == "citations" and self._has_other_text:
            without = [{key: each[key] for key in each if key not in ("start", "end")} for each in event["citations"]]
            return {**event, "citations": without}
        return event


def beside(finish: Event) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns what a provider says beside an end, and what the gateway does: the ends of further choices."""
    said: dict[str, Any] = finish.get("provider_metadata", {})
    ends = other_ends(finish)
    if not ends or len(ends) < len(said["choices"]) or not all(map(_is_own, ends)):
        return said, {}
    return {name: said[name] for name in said if name != "choices"}, {"choices": ends}


def _is_own(end: dict[str, Any]) -> bool:
    raw = end.get("finish_reason_raw", "")
    is_word = isinstance(raw, str) and len(raw.split()) < 2
    return is_word and end["finish_reason"] in FINISH_REASONS and _END.issuperset(end)


def size_of(event: Event) -> int:
    """Returns the characters and bytes that an event keeps in memory, beside some hundred of its own."""
    return sum([_size(each) for each in event.values()])


def _size(value: object) -> int:
    if isinstance(value, (str, bytes)):
        return len(value)
    if isinstance(value, JSONText):
        return len(value.text)
    if isinstance(value, dict):
        return sum([_size(each) for each in value.values()])
    return sum([_size(each) for each in value]) if isinstance(value, list) else 0


def rewritten(delta: Event, text: str) -> Event:
    """Returns a delta with another text, without the probabilities of the upstream's tokens."""
    key = DELTAS[delta["type"]]
    if delta[key] == text and "logprobs" not in delta:  # type: ignore[literal-required]  # the key depends on the type
        return delta
    changed = cast(Event, {**delta, key: text})
    changed.pop("logprobs", None)
    return changed
