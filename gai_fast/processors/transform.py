"""Changes events by a function (library), or replaces words in the answer (configuration)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any, Final

import msgspec

from gai_fast.core.callbacks import check_callable
from gai_fast.core.json.chunks import label, objects
from gai_fast.core.processing.processor import FRAME, Processor, StreamInfo
from gai_fast.model.events import Event, with_text
from gai_fast.processors.limits import LIMITS

_Score = tuple[int, int, dict[str, Any]]
"""The place of a token in a text, its length, and its probability. The place may be before a held-back text."""


class TransformProcessor(Processor):
    """Replaces each event by the result of a function.

    Args:
        function: Called with every event except `start`, `finish`, `error` and `done`, which frame a stream. Returns an
            event, or `None` to drop the event. It must not change its argument.

    Raises:
        TypeError: The function cannot be called.
        ValueError: (by `process`) The function returned an event that frames a stream, or a value that is not an event.
    """

    def __init__(self, function: Callable[[Event], Event | None]) -> None:
        check_callable("function", function, "a function of one event")
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
    interrupt the text (`usage`, `warning`, `json.snapshot`) wait with it, up to `limits.held_beside`. Snapshots have
    the replacements too; the probabilities of a replaced word's tokens are left out, and it among the alternatives of
    others. Tool arguments, citations and images stay unchanged. If choices alternate, a word split between two deltas
    is not found.

    Args:
        replace: The replacement of each word. If two words start at one place, the longer word is replaced.

    Raises:
        ValueError: There is no word, or a word is empty.
    """

    changes_text = True

    def __init__(self, replace: Mapping[str, str]) -> None:
        if not replace or "" in replace:
            raise ValueError("a transform needs words to replace, none of them empty")
        self._replace = dict(replace)
        words = sorted(replace, key=len, reverse=True)
        self._words = re.compile("|".join(map(re.escape, words)))
        self._prefixes = {word[:size] for word in words for size in range(1, len(word))}
        self._longest = len(words[0])
        self._held: Event | None = None
        self._scores: list[_Score] = []  # of the held-back text
        self._beside: list[Event] = []

    def process(self, event: Event, now_ms: int = 0) -> Iterator[Event]:
        """Yields the event with its words replaced. Holds back the end of its text if it may start a word."""
        if event["type"] == "json.snapshot":
            event = {**event, "json": self._replaced_within(event["json"])}
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
        scores = self._scores
        if "logprobs" in event:
            scores += _placed(event["logprobs"], text, 0 if self._held is None else len(self._held["text"]))
        if self._held is not None:
            text = self._held["text"] + text
            self._held = None
        start = self._unfinished_word(text)
        if start < len(text):
            self._held = with_text(event, text[start:])
            text = text[:start]
        if scores:
            scores = self._unreplaced(text, scores)
        self._scores = [(at - start, size, score) for at, size, score in scores if at + size > start]
        yield from self._written(event, text, [score for at, size, score in scores if at + size <= start])

    def flush(self, now_ms: int = 0) -> Iterator[Event]:
        """Yields the held-back text with its words replaced, and the events that waited with it."""
        scores, self._scores = self._scores, []
        if self._held is not None:
            held, self._held = self._held, None
            kept = self._unreplaced(held["text"], scores) if scores else scores
            yield from self._written(held, held["text"], [score for _, _, score in kept])
        yield from self._take_waiting()

    def _written(self, event: Event, text: str, scores: list[dict[str, Any]]) -> Iterator[Event]:
        """Yields a delta with a text whose words are replaced, if any is left.

        Args:
            event: A delta like it.
            text: The text.
            scores: The probabilities of tokens that are not replaced.
        """
        replaced = self._replaced(text)
        if replaced:
            written = with_text(event, replaced)
            if scores:
                written["logprobs"] = [self._without_words(score) for score in scores]
            yield written

    def _unreplaced(self, text: str, scores: list[_Score]) -> list[_Score]:
        """Returns the probabilities of the tokens of which no character is replaced in a text. Both are in order."""
        kept: list[_Score] = []
        words = self._words.finditer(text)
        word = next(words, None)
        for score in scores:
            at, size, _ = score
            while word is not None and word.end() <= at:
                word = next(words, None)
            if word is None or at + size <= word.start():
                kept.append(score)
        return kept

    def _without_words(self, score: dict[str, Any]) -> dict[str, Any]:
        """Returns the probabilities of a token without alternatives that hold a word."""
        given = score.get("top_logprobs")
        if not isinstance(given, list):
            return score
        kept = [each for each in objects(given) if self._words.search(label(each.get("token"))) is None]
        return score if len(kept) == len(given) else {**score, "top_logprobs": kept}

    def _replaced_within(self, value: Any) -> Any:
        """Returns a JSON value with the words in its texts and names replaced."""
        if isinstance(value, str):
            return self._replaced(value)
        if isinstance(value, list):
            return [self._replaced_within(each) for each in value]
        if isinstance(value, dict):
            return {self._replaced(name): self._replaced_within(each) for name, each in value.items()}
        return value

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


def _placed(scores: list[dict[str, Any]], text: str, begin: int) -> list[_Score]:
    """Returns the probabilities of the tokens of a text with their places; none if the tokens do not spell the text.

    Args:
        scores: The `logprobs` of a delta.
        text: Its text.
        begin: The place of the text.
    """
    tokens = [label(score.get("token")) for score in scores]
    if "".join(tokens) != text:
        return []
    placed: list[_Score] = []
    for token, score in zip(tokens, scores, strict=True):
        if token:
            placed.append((begin, len(token), score))
            begin += len(token)
    return placed


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
