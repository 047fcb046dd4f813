"""Changes events by a function (library), or replaces words in the answer (configuration)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Final

import msgspec

from gai_fast.core.chain import FRAME, Processor, StreamInfo
from gai_fast.model.events import Event
from gai_fast.processors.limits import LIMITS


class TransformProcessor(Processor):
    """Replaces each event by the result of a function.

    Args:
        function: Called with every event except `start`, `finish`, `error` and `done`, which frame a stream. Returns an
            event, or `None` to drop the event. It must not change its argument.

    Raises:
        ValueError: (by `process`) The function returned an event that frames a stream, or a value that is not an event.
    """

    def __init__(self, function: Callable[[Event], Event | None]) -> None:
        self._function = function

    def process(self, event: Event, now_ms: int = 0) -> Iterable[Event]:
        """Returns the result of the function."""
        if event["type"] in FRAME:
            return (event,)
        changed = self._function(event)
        if changed is None:
            return ()
        if not isinstance(changed, dict) or changed.get("type") in FRAME or not isinstance(changed.get("type"), str):
            raise ValueError("a transform must return an event that does not frame the stream, or None")
        return (changed,)


class ReplaceProcessor(Processor):
    """Replaces words in text, reasoning and refusals, including words split between deltas.

    Text that may be the start of a word is held back until the rest or another event arrives. Events that do not
    interrupt the text (`usage`, `warning`, `json.snapshot`) wait with it, up to `limits.held_beside`. Tool arguments,
    citations and images stay unchanged. If choices alternate, a word split between two deltas is not found.

    Args:
        replace: The replacement of each word. If two words start at one place, the longer word is replaced.

    Raises:
        ValueError: There is no word, or a word is empty.
    """

    def __init__(self, replace: Mapping[str, str]) -> None:
        if not replace or "" in replace:
            raise ValueError("a transform needs words to replace, none of them empty")
        self._replace = dict(replace)
        words = sorted(replace, key=len, reverse=True)
        self._words = re.compile("|".join(map(re.escape, words)))
        self._prefixes = {word[:size] for word in words for size in range(1, len(word))}
        self._longest = len(words[0])
        self._held: Event | None = None
        self._beside: list[Event] = []

    def process(self, event: Event, now_ms: int = 0) -> Iterator[Event]:
        """Yields the event with its words replaced. Holds back the end of its text if it may start a word."""
        if event["type"] in _ASIDES and self._held is not None and len(self._beside) < LIMITS.held_beside:
            self._beside.append(event)
            return
        if event["type"] not in _TEXTS:
            yield from self.flush(now_ms)
            yield event
            return
        if self._held is not None and _place(self._held) != _place(event):
            yield from self.flush(now_ms)
        yield from self._take_waiting()
        text = event.get("text", "")
        if self._held is not None:
            text = self._held["text"] + text
            self._held = None
        start = self._unfinished_word(text)
        if start < len(text):
            self._held = {**event, "text": text[start:]}
            text = text[:start]
        replaced = self._replaced(text)
        if replaced:
            yield {**event, "text": replaced}

    def flush(self, now_ms: int = 0) -> Iterator[Event]:
        """Yields the held-back text with its words replaced, and the events that waited with it."""
        if self._held is not None:
            held, self._held = self._held, None
            replaced = self._replaced(held["text"])
            if replaced:
                yield {**held, "text": replaced}
        yield from self._take_waiting()

    def _take_waiting(self) -> list[Event]:
        waited, self._beside = self._beside, []
        return waited

    def _unfinished_word(self, text: str) -> int:
        """Returns the place of a word that may continue after the text; the text's length if there is none."""
        size = len(text)
        places = [at for at in range(max(0, size - self._longest + 1), size) if text[at:] in self._prefixes]
        end = 0
        for word in self._words.finditer(text) if places else ():
            # At one place, a started longer word takes precedence over a shorter word.
            for at in places:
                if end <= at <= word.start():
                    return at
            end = word.end()
        return next((at for at in places if at >= end), size)

    def _replaced(self, text: str) -> str:
        return self._words.sub(lambda found: self._replace[found[0]], text)


_ASIDES: Final = frozenset({"usage", "warning", "json.snapshot"})
_TEXTS: Final = frozenset({"text.delta", "reasoning.delta", "refusal.delta"})


def _place(event: Event) -> tuple[object, ...]:
    return event["type"], event.get("choice"), event.get("block")


class TransformSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[processor]] use = "transform"`: the arguments of `ReplaceProcessor`."""

    replace: Annotated[
        dict[Annotated[str, msgspec.Meta(min_length=1, max_length=LIMITS.replaced_word)], str],
        msgspec.Meta(min_length=1, max_length=LIMITS.replaced_words),
    ]

    def processor(self, stream: StreamInfo) -> Processor | None:
        """Returns a processor for every stream."""
        return ReplaceProcessor(self.replace)


SETTINGS: Final = TransformSettings
