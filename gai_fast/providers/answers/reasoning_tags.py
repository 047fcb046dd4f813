"""Reads reasoning that a server writes into the text of its answers, between tags such as `<think>` and `</think>`.

Wraps the adapter of any provider (`reasoning_tags` of an upstream). Tags may be cut anywhere. Knows no provider.
"""

from __future__ import annotations

from gai_fast.core.adapter import Adapter
from gai_fast.model.events import Event
from gai_fast.providers.answers.adapter import WrappingAdapter


class _Split:
    """The text of one choice: whether it is within the tags, and the beginning of a tag that is held back."""

    __slots__ = ("closing", "held", "is_reasoning", "opening")

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
        while text:
            tag = self.closing if self.is_reasoning else self.opening
            before, met, after = text.partition(tag)
            if met:
                if before:
                    found.append((self.is_reasoning, before))
                self.is_reasoning = not self.is_reasoning
                text = after
                continue
            kept = next((size for size in range(min(len(tag) - 1, len(text)), 0, -1) if text.endswith(tag[:size])), 0)
            self.held = text[len(text) - kept :]
            if len(text) > kept:
                found.append((self.is_reasoning, text[: len(text) - kept]))
            return found
        return found

    def flush(self) -> list[tuple[bool, str]]:
        """Returns the text that was held back and is not a tag."""
        held, self.held = self.held, ""
        return [(self.is_reasoning, held)] if held else []


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
                read += [self._delta(is_reasoning, text, event) for is_reasoning, text in split.feed(event["text"])]
            else:
                if kind not in ("start", "usage", "warning", "ping"):
                    read += self._flushed()
                read.append(event)
        return read

    def _flushed(self) -> list[Event]:
        return [
            self._delta(
                is_reasoning, text, {"type": "text.delta", "choice": choice} if choice else {"type": "text.delta"}
            )
            for choice, split in self._splits.items()
            for is_reasoning, text in split.flush()
        ]

    def _delta(self, is_reasoning: bool, text: str, event: Event) -> Event:
        if not is_reasoning:
            return {**event, "text": text}
        delta: Event = {"type": "reasoning.delta", "text": text}
        if "choice" in event:
            delta["choice"] = event["choice"]
        return delta
