"""A guard that finds words, letter by letter: what the stage needs of a search, and nothing of what a search can do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple


class Hit(NamedTuple):
    """A match."""

    category: str
    start: int
    end: int


class WordSearch:
    """Searches words of which none is within another."""

    is_text = False

    def __init__(self, words: Sequence[str], *, holds: bool = True) -> None:
        self._words = words
        self._holds = holds
        self._kept = ""
        self._base = 0

    @property
    def held(self) -> int:
        return len(self._kept) if self._holds else 0

    @property
    def behind(self) -> int:
        return 0

    @property
    def certain(self) -> Hit | None:
        return None

    def feed(self, text: str) -> list[str | Hit]:
        out: list[str | Hit] = [] if self._holds or not text else [text]
        whole = self._kept + text
        at = 0
        while True:
            found = [(place, word) for word in self._words if (place := whole.find(word, at)) >= 0]
            if not found:
                break
            place, word = min(found)
            if self._holds and place > at:
                out.append(whole[at:place])
            at = place + len(word)
            out.append(Hit(word.strip(), self._base + place, self._base + at))
        rest = whole[at:]
        keep = max(
            [size for word in self._words for size in range(1, len(word)) if rest.endswith(word[:size])], default=0
        )
        passing = rest[: len(rest) - keep]
        if self._holds and passing:
            out.append(passing)
        self._base += len(whole) - keep
        self._kept = rest[len(rest) - keep :]
        return out

    def end(self) -> list[str | Hit]:
        kept, self._kept, self._base = self._kept, "", 0
        return [kept] if kept and self._holds else []


@dataclass
class WordGuard:
    """A guard of words.

    Args:
        words: The words.
        action: What happens to them.
        name: The guard's name.
    """

    words: Sequence[str]
    action: Literal["mask", "stop", "flag", "restore"] = "mask"
    name: str = "names"
    matches: int = 0

    def category_of(self, found: str) -> str:
        return "words"

    def replacement_of(self, found: str) -> str:
        return {"<NAME_1>": 'A "kestrel"'}.get(found, "[words]")

    @property
    def fails_open(self) -> bool:
        return self.action == "flag"

    def failed(self) -> None:
        raise AssertionError("a search of words has no bound")

    def met(self) -> None:
        self.matches += 1

    def scan(self) -> WordSearch:
        return WordSearch(self.words, holds=self.action != "flag")

    def scan_arguments(self) -> WordSearch:
        return self.scan()
