"""Reads reasoning that a server writes into the text of its answers, between tags such as `<think>` and `</think>`.

Wraps the adapter of any provider (`reasoning_tags` of an upstream). Tags may be cut anywhere. Some servers send the
same thoughts in a member of their own, too: they are told once. Knows no provider.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from gai_fast.core.adapter import Adapter
from gai_fast.model.events import Event
from gai_fast.providers.answers.adapter import WrappingAdapter
from gai_fast.providers.answers.limits import LIMITS


class _Split:
    """The text of one choice: whether it is within the tags, and the beginning of a tag that is held back."""

    def __init__(self, tag: str) -> None:
        self.opening = tag
        self.closing = f"</{tag[1:]}"
        self.is_reasoning = False
        self.held = ""

    def feed(self, text: str) -> list[tuple[bool, str]]:
        """Returns the texts that are complete, each with whether it is reasoning."""
        found: list[tuple[bool, str]] = []
        text = self.held + text
        self.held = ""
        at = 0
        while at < len(text):
            tag = self.closing if self.is_reasoning else self.opening
            met = text.find(tag, at)
            if met >= 0:
                if met > at:
                    found.append((self.is_reasoning, text[at:met]))
                self.is_reasoning = not self.is_reasoning
                at = met + len(tag)
                continue
            most = min(len(tag) - 1, len(text) - at)
            end = len(text) - next((size for size in range(most, 0, -1) if text.endswith(tag[:size])), 0)
            self.held = text[end:]
            if end > at:
                found.append((self.is_reasoning, text[at:end]))
            break
        return found

    def flush(self) -> list[tuple[bool, str]]:
        """Returns the text that was held back and is not a tag."""
        held, self.held = self.held, ""
        return [(self.is_reasoning, held)] if held else []


class _Told:
    """The reasoning of one choice that one place has told, the member or the tags, and the other one has not yet."""

    def __init__(self) -> None:
        self._leader = ""  # the place that is ahead; empty if neither is
        self._ahead: deque[str] = deque()
        self._at = 0  # how much of the first of these the other place has repeated
        self._size = 0
        self._has_begun = False  # whether the other place has told something
        self._is_apart = False  # whether the places tell different thoughts

    def new(self, place: str, text: str) -> str:
        """Returns the part of a text that the other place has not told.

        Args:
            place: The text's place.
            text: The text.
        """
        if self._is_apart:
            return text
        if self._leader == "" or self._leader == place:
            self._leader = place
            self._ahead.append(text)
            self._size += len(text)
            self._is_apart = self._size > LIMITS.repeated_thoughts
            return text
        if not self._has_begun:  # a line break stands behind a tag
            text = text.lstrip()
            if not text:
                return ""
            self._has_begun = True
            while self._ahead and not self._ahead[0].strip():
                self._ahead.popleft()
            if self._ahead:
                self._ahead[0] = self._ahead[0].lstrip()
        at = 0
        while at < len(text) and self._ahead:
            first = self._ahead[0]
            size = min(len(text) - at, len(first) - self._at)
            if first[self._at : self._at + size] != text[at : at + size]:
                self._is_apart = True
                return text[at:]
            at += size
            self._at += size
            if self._at == len(first):
                self._ahead.popleft()
                self._at = 0
        if not self._ahead:
            self._leader, self._size, self._has_begun = "", 0, False
        text = text[at:]
        return self.new(place, text) if text.strip() else ""


_MEMBER: Final = "member"
_TAGS: Final = "tags"
_BETWEEN: Final = ("start", "usage", "warning", "ping", "reasoning.signature")
"""The events that may stand between the pieces of a tag."""


class TaggedAdapter(WrappingAdapter):
    """Turns text between tags into reasoning.

    Args:
        inner: The provider's adapter.
        tag: The opening tag.
    """

    def __init__(self, inner: Adapter, tag: str) -> None:
        super().__init__(inner)
        self._tag = tag
        self._splits: dict[int, _Split] = {}
        self._told: dict[int, _Told] = {}

    def abort(self) -> list[Event]:
        return self._flushed() + super().abort()

    def read(self, events: list[Event]) -> list[Event]:
        read: list[Event] = []
        for event in events:
            kind = event["type"]
            if kind == "text.delta":
                choice = event.get("choice", 0)
                split = self._splits.get(choice)
                if split is None:
                    split = self._splits[choice] = _Split(self._tag)
                read += self._deltas(split.feed(event["text"]), event)
            elif kind == "reasoning.delta":
                text = self._new(event, _MEMBER, event["text"])
                if text:
                    read.append(event if text is event["text"] else {**event, "text": text})
            else:
                if kind not in _BETWEEN:
                    read += self._flushed()
                read.append(event)
        return read

    def _flushed(self) -> list[Event]:
        events: list[Event] = []
        for choice, split in self._splits.items():
            event: Event = {"type": "text.delta", "choice": choice} if choice else {"type": "text.delta"}
            events += self._deltas(split.flush(), event)
        return events

    def _deltas(self, pieces: list[tuple[bool, str]], event: Event) -> list[Event]:
        """Returns the deltas for pieces of the text of an event."""
        deltas: list[Event] = []
        for is_reasoning, text in pieces:
            if not is_reasoning:
                deltas.append({**event, "text": text})
                continue
            text = self._new(event, _TAGS, text)
            if text:
                delta: Event = {"type": "reasoning.delta", "text": text}
                if "choice" in event:
                    delta["choice"] = event["choice"]
                deltas.append(delta)
        return deltas

    def _new(self, event: Event, place: str, text: str) -> str:
        told = self._told.setdefault(event.get("choice", 0), _Told())
        return told.new(place, text)
