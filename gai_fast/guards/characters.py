"""Sets of code points, simple case folding, and the characters that bound a word.

A set is the sorted tuple of the places where membership changes: `(97, 123)` is `a` to `z`. So a code point is in a set
if an odd number of places is not above it.
"""

from __future__ import annotations

import re
import sys
from bisect import bisect_right
from collections.abc import Iterable
from typing import Final

from gai_fast.model.events import join_surrogates

CodePoints = tuple[int, ...]
"""A set of code points, as the places where membership changes."""

BEYOND: Final = sys.maxunicode + 1
"""The place behind the last code point."""
_CASED: Final = range(0x1F000)
"""The planes of all characters that have a case."""


def of(*ranges: tuple[int, int]) -> CodePoints:
    """Returns the set of all code points in some ranges, both ends included, in any order."""
    places: list[int] = []
    for first, last in sorted(ranges):
        if places and first <= places[-1]:
            places[-1] = max(places[-1], last + 1)
        else:
            places += (first, last + 1)
    return tuple(places)


def of_text(text: str) -> CodePoints:
    """Returns the set of a text's characters."""
    return of(*[(ord(each), ord(each)) for each in text])


def ranges_of(points: CodePoints) -> list[tuple[int, int]]:
    """Returns a set's ranges, both ends included."""
    return [(points[at], points[at + 1] - 1) for at in range(0, len(points), 2)]


def union(sets: Iterable[CodePoints]) -> CodePoints:
    """Returns the set of all code points that are in any of several sets."""
    ranges: list[tuple[int, int]] = []
    for each in sets:
        ranges += ranges_of(each)
    return of(*ranges)


def complement(points: CodePoints) -> CodePoints:
    """Returns the set of all other code points."""
    start = points[1:] if points[:1] == (0,) else (0, *points)
    return start[:-1] if start[-1:] == (BEYOND,) else (*start, BEYOND)


def contains(points: CodePoints, code: int) -> bool:
    """Returns whether a code point is in a set."""
    return bisect_right(points, code) % 2 == 1


def size_of(points: CodePoints) -> int:
    """Returns the number of code points in a set."""
    return sum(points[1::2]) - sum(points[::2])


# -- case --

_ORBITS: Final[dict[int, tuple[int, ...]]] = {}
"""The code points that are equal but for their case, for each of them; made when it is first asked for."""


def _simple_fold(character: str) -> str:
    """Returns a character's simple case folding: one character (Unicode, CaseFolding.txt, statuses C and S)."""
    folded = character.casefold()
    if len(folded) == 1:
        return folded
    lower = character.lower()
    return lower if len(lower) == 1 else character


def _orbits() -> dict[int, tuple[int, ...]]:
    if not _ORBITS:
        groups: dict[str, list[int]] = {}
        for code in _CASED:
            character = chr(code)
            folded = _simple_fold(character)
            if folded != character:
                groups.setdefault(folded, [ord(folded)]).append(code)
        made = {code: tuple(sorted(group)) for group in groups.values() for code in group}
        _ORBITS.update(made)
    return _ORBITS


def orbit(code: int) -> tuple[int, ...]:
    """Returns the code points that are equal to one but for their case, itself included, in order."""
    return _orbits().get(code, (code,))


def folded(points: CodePoints) -> CodePoints:
    """Returns a set with all characters that are equal to one of it but for their case."""
    orbits = _orbits()
    added: list[tuple[int, int]] = []
    if points and points[-1] - points[0] <= len(orbits):
        for first, last in ranges_of(points):
            for code in range(first, last + 1):
                added += [(each, each) for each in orbits.get(code, ())]
    else:
        for code, group in orbits.items():
            if contains(points, code):
                added += [(each, each) for each in group]
    return of(*ranges_of(points), *added) if added else points


# -- surrogates --

_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")
_HIGH: Final = (0xD800, 0xDBFF)
"""High surrogates: the first halves of pairs."""


def joined(half: str, text: str) -> tuple[str, str]:
    """Returns a piece of text whose surrogates are joined to characters, and a half at its end that waits for another.

    Args:
        half: The half at the end of the piece before, or nothing.
        text: The piece.
    """
    text = half + text
    if _SURROGATE.search(text) is None:
        return text, ""
    if not _HIGH[0] <= ord(text[-1]) <= _HIGH[1]:
        return join_surrogates(text), ""
    return join_surrogates(text[:-1]), text[-1]


# -- neighbours --

UNBOUNDED: Final = of(
    (0x0E01, 0x0E7F),  # Thai
    (0x0E80, 0x0EFF),  # Lao
    (0x1000, 0x109F),  # Myanmar, and its extensions
    (0xA9E0, 0xA9FF),
    (0xAA60, 0xAA7F),
    (0x1780, 0x17FF),  # Khmer, and its symbols
    (0x19E0, 0x19FF),
    (0x2E80, 0x2FDF),  # Han: radicals, marks and numerals
    (0x3005, 0x3007),
    (0x3021, 0x3029),
    (0x3038, 0x303B),
    (0x3040, 0x30FF),  # Kana
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0xFF66, 0xFF9F),  # Kana of half width
    (0x1AFF0, 0x1B16F),  # Kana, historic
    (0x20000, 0x323AF),  # Han
)
"""Characters of scripts that write words without a space between them."""


def is_word(code: int) -> bool:
    r"""Returns whether a code point is Python's `\w`: a letter, a digit or an underscore, of any script."""
    return code == 0x5F or chr(code).isalnum()


class Neighbours:
    r"""Characters that must not stand beside a match.

    Args:
        points: The code points.
        words: Whether all of Unicode's `\w` must not.
        scripts: Whether those scripts are excepted that write no space between words.
    """

    __slots__ = ("points", "scripts", "words")

    def __init__(self, points: CodePoints = (), *, words: bool = False, scripts: bool = False) -> None:
        self.points = points
        self.words = words
        self.scripts = scripts

    def contain(self, code: int) -> bool:
        """Returns whether a code point must not stand there."""
        if contains(self.points, code):
            return True
        return self.words and is_word(code) and not (self.scripts and contains(UNBOUNDED, code))


ANYTHING: Final = Neighbours()
"""Every character may stand beside the match."""
OF_WORDS: Final = Neighbours(words=True, scripts=True)
"""A word's neighbours."""
