"""Placeholders: what a provider gets in place of personal data, and how its answer gets the own words back.

1. A placeholder is `<EMAIL_1>`: the kind in capitals, and a number by first appearance in the conversation. Equal
   values of a kind have one placeholder.
2. A number that the conversation's text has already is skipped: the model may speak of it.
3. Beyond `limits.placeholders` none is issued; the caller writes the guard's replacement.
4. Only a placeholder that was issued is restored, spelled exactly; only the beginning of one is held.

A `Placeholders` belongs to one request. Its values stand in no message, log or representation.
"""

from __future__ import annotations

import re
from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping
from typing import Final

from gai_fast.guards.automaton import Match, Piece
from gai_fast.guards.limits import LIMITS

_SPELLED: Final = re.compile(r"<[A-Z_]+_[1-9][0-9]{0,9}>")
"""What may be a placeholder in the text of a conversation."""


class Placeholders:
    """The placeholders of one request.

    Args:
        texts: All texts of the conversation: numbers that they have are skipped.
    """

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._taken: set[str] = set()
        for text in texts:
            self._taken.update(_SPELLED.findall(text))
        self._issued: dict[tuple[str, str], str] = {}
        self._values: dict[str, str] = {}
        self._sorted: list[str] = []
        self._numbers: dict[str, int] = {}
        self._longest = 0

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"<{len(self)} placeholders>"

    @property
    def longest(self) -> int:
        """The length of the longest placeholder."""
        return self._longest

    def issue(self, kind: str, value: str) -> str | None:
        """Returns the placeholder of a value. None if there is none left.

        Args:
            kind: The kind of the value.
            value: The text of a match.
        """
        key = (kind, value)
        found = self._issued.get(key)
        if found is None and len(self._issued) < LIMITS.placeholders:
            found = self._next(kind.upper())
            self._issued[key] = found
            self._values[found] = value
            self._longest = max(self._longest, len(found))
            insort(self._sorted, found)
        return found

    def issued(self, kind: str, value: str) -> str | None:
        """Returns the placeholder that a value has. None if it has none; as `issue`."""
        return self._issued.get((kind, value))

    @property
    def values(self) -> Mapping[str, str]:
        """The values, by placeholder. Must not be changed."""
        return self._values

    def recall(self, values: Mapping[str, str]) -> None:
        """Adds placeholders that another process has issued. Their numbers are not issued again.

        Args:
            values: As the attribute.
        """
        self._values.update(values)
        for placeholder, value in values.items():
            self._issued[placeholder[1:].rpartition("_")[0].lower(), value] = placeholder
        self._taken.update(values)
        self._sorted = sorted(self._values)
        self._longest = max([len(each) for each in self._values], default=0)

    def value(self, placeholder: str) -> str | None:
        """Returns the value of a placeholder. None if it was not issued."""
        return self._values.get(placeholder)

    def have_beginning(self, text: str) -> bool:
        """Returns whether a text is the beginning of a placeholder that was issued."""
        at = bisect_left(self._sorted, text)
        return at < len(self._sorted) and self._sorted[at].startswith(text)

    def _next(self, name: str) -> str:
        number = self._numbers.get(name, 0) + 1
        while (placeholder := f"<{name}_{number}>") in self._taken:
            number += 1
        self._numbers[name] = number
        return placeholder


class Restorer:
    """The search for placeholders in one text; used as a `Scan`. The category of a match is the placeholder.

    Args:
        placeholders: The placeholders of the request.
    """

    def __init__(self, placeholders: Placeholders) -> None:
        self._placeholders = placeholders
        self._held = ""
        self._position = 0

    @property
    def held(self) -> int:
        """The number of characters that are held."""
        return len(self._held)

    @property
    def behind(self) -> int:
        """None of its characters: it needs no turns."""
        return 0

    @property
    def certain(self) -> Match | None:
        """None: a placeholder is known at its end alone."""
        return None

    def feed(self, text: str) -> list[Piece]:
        """Searches the next piece of the text. Returns what is decided: text, and matches in place of their text."""
        if not text:
            return []
        if not self._held and "<" not in text:
            self._position += len(text)
            return [text]
        text = self._held + text
        held = len(text)
        placeholders, base = self._placeholders, self._position
        longest = placeholders.longest
        pieces: list[Piece] = []
        cursor = 0
        at = text.find("<")
        while at >= 0:
            end = text.find(">", at + 1, at + longest) + 1
            following = at + 1
            if end == 0:
                if len(text) - at < longest and placeholders.have_beginning(text[at:]):
                    held = at
                    break
            elif placeholders.value(text[at:end]) is not None:
                if at > cursor:
                    pieces.append(text[cursor:at])
                pieces.append(Match(text[at:end], base + at, base + end, 0))
                cursor = following = end
            at = text.find("<", following)
        if held > cursor:
            pieces.append(text[cursor:held])
        self._held = text[held:]
        self._position = base + held
        return pieces

    def end(self) -> list[Piece]:
        """Ends the text, and returns what is held. The next piece is the beginning of another text."""
        held: list[Piece] = [self._held] if self._held else []
        self.reset()
        return held

    def reset(self) -> None:
        """Forgets the text."""
        self._held = ""
        self._position = 0

    def restored(self, pieces: Iterable[Piece]) -> str:
        """Returns the text of some pieces with the values in place of their placeholders."""
        return "".join([each if isinstance(each, str) else self.value(each) for each in pieces])

    def value(self, match: Match) -> str:
        """Returns the value of a match."""
        return self._placeholders.value(match.category) or ""
