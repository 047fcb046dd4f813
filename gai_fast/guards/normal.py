"""`normalize`: how a character is compared that was chosen to look like another, or like nothing.

A code point of `IGNORED` does not count. Any other one is compared as its NFKC, character by character, in which the
look-alikes of `LOOK_ALIKES` are replaced. Text keeps its own characters: only the search reads these.
"""

from __future__ import annotations

import unicodedata
from typing import Final

from gai_fast.guards.characters import CodePoints, contains, of, ranges_of, size_of
from gai_fast.guards.limits import LIMITS

IGNORED: Final = of(
    (0x00AD, 0x00AD),  # soft hyphen
    (0x200B, 0x200F),  # spaces without width, joiners, marks of direction
    (0x202A, 0x202E),  # embedding and overriding of direction
    (0x2060, 0x2064),  # word joiner, invisible operators
    (0x2066, 0x2069),  # isolation of direction
    (0xFE00, 0xFE0F),  # variation selectors
    (0xFEFF, 0xFEFF),  # byte order mark
)
"""Code points that do not count: they have no look of their own."""

_FIRST_CHANGED: Final = 0x80
"""The code points below are compared as they are."""


def _pairs(look_alikes: str, letters: str) -> dict[str, str]:
    return dict(zip(look_alikes, letters, strict=True))


LOOK_ALIKES: Final = {
    # Cyrillic
    **_pairs("АВЕЅІЈКМНОРСТУХҮЬԌԚԜѴӀ", "ABESIJKMHOPCTYXYbGQWVl"),
    **_pairs("аеѕіјкгорсухүһьԁԛԝѵӏ", "aesijkropcyxyhbdqwvl"),
    # Greek
    **_pairs("ΑΒΕΖΗΙΚΜΝΟΡΤΥΧϹϺϜͿ", "ABEZHIKMNOPTYXCMFJ"),
    **_pairs("αγικνορσυχϲϳ", "ayikvopouxcj"),
}
"""Cyrillic and Greek letters by the Latin letter that they look like (Unicode, confusables.txt)."""


def normalize(character: str) -> str:
    """Returns the characters that one is compared as; none if it does not count."""
    if ord(character) < _FIRST_CHANGED:
        return character
    if contains(IGNORED, ord(character)):
        return ""
    compared = unicodedata.normalize("NFKC", character)
    return "".join([LOOK_ALIKES.get(each, each) for each in compared if not contains(IGNORED, ord(each))])


def normalized(points: CodePoints) -> CodePoints:
    """Returns a set with the characters that those of it are compared as."""
    added = [(ord(letter), ord(letter)) for each, letter in LOOK_ALIKES.items() if contains(points, ord(each))]
    if size_of(points) <= LIMITS.enumerated:
        for first, last in ranges_of(points):
            for code in range(max(first, _FIRST_CHANGED), last + 1):
                compared = normalize(chr(code))
                if len(compared) == 1:
                    added.append((ord(compared), ord(compared)))
    return of(*ranges_of(points), *added) if added else points
