"""Classes of characters: all that no rule of a guard tells apart have one number.

A class is known by its sets: those of the program that contain it, the neighbours, and the letters of leads. Code
points are classified when a text first has them, because Unicode has a million of them.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

from gai_fast.guards.characters import contains, ranges_of, size_of
from gai_fast.guards.limits import LIMITS
from gai_fast.guards.normal import normalize
from gai_fast.guards.program import Program

NEAR: Final = 256
"""The code points below are in a list: Latin-1."""
UNKNOWN: Final = -1
"""The class of a code point that was not asked for yet."""
NOTHING: Final = -2
"""The class of a code point that does not count."""
SEVERAL: Final = -3
"""The class of the first code point that is compared as several characters; those of others are below."""
_ENUMERATED: Final = 32
"""The largest set that is kept by its code points."""


class Classes:
    """The classes of characters of one program.

    Args:
        program: The program.
    """

    def __init__(self, program: Program) -> None:
        self.near: list[int] = [UNKNOWN] * NEAR
        """The class of each code point of Latin-1."""
        self.far: dict[int, int] = {}
        """The classes of other code points."""
        self.several: list[list[int]] = []
        """The classes of the characters that code points are compared as, from `SEVERAL` downwards."""
        self.sets: list[frozenset[int]] = []
        """The sets of each class: indexes of the program's; from `beside` on neighbours, from `letters` on letters."""
        self.beside = len(program.sets)
        self.letters = self.beside + len(program.neighbours)
        self._program = program
        self._numbers: dict[frozenset[int], int] = {}
        self._small: dict[int, list[int]] = {}
        """The small sets of each code point."""
        self._wide: list[int] = []
        """The other sets."""
        self._between: dict[int, list[int]] = {}
        """The wide sets that have the code points between two bounds, by the index of the upper one."""
        bounds: set[int] = set()
        for number, points in enumerate(program.sets):
            if size_of(points) > _ENUMERATED:
                self._wide.append(number)
                bounds.update(points)
                continue
            for first, last in ranges_of(points):
                for code in range(first, last + 1):
                    self._small.setdefault(code, []).append(number)
        self._bounds = sorted(bounds)

    def class_of(self, code: int) -> int:
        """Returns the class of a code point; below `UNKNOWN`, `NOTHING` or one of `SEVERAL`."""
        if code < NEAR:
            found = self.near[code]
            if found == UNKNOWN:
                found = self.near[code] = self._compared(code)
            return found
        found = self.far.get(code, UNKNOWN)
        if found == UNKNOWN:
            if len(self.far) >= LIMITS.classified:
                self.far.clear()
            found = self.far[code] = self._compared(code)
        return found

    def _compared(self, code: int) -> int:
        if not self._program.normal:
            return self._class(code)
        compared = normalize(chr(code))
        if not compared:
            return NOTHING
        if len(compared) == 1:
            return self._class(ord(compared))
        classes = [self._class(ord(each)) for each in compared]
        if classes not in self.several:
            self.several.append(classes)
        return SEVERAL - self.several.index(classes)

    def _class(self, code: int) -> int:
        """Returns the class of a code point as it is."""
        program = self._program
        between = bisect_right(self._bounds, code)
        wide = self._between.get(between)
        if wide is None:
            wide = self._between[between] = [each for each in self._wide if contains(program.sets[each], code)]
        beside = program.neighbours
        sets = [*self._small.get(code, ()), *wide]
        sets += [self.beside + at for at in range(1, len(beside)) if beside[at].contain(code)]
        sets += [self.letters + code for entry in program.entries if chr(code) in entry.lead]
        key = frozenset(sets)
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self.sets)
            self.sets.append(key)
        return number
