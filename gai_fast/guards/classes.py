"""Classes of characters: all that no rule of a guard tells apart are one class.

A class is known by its sets: those of the program that contain it, the neighbours, and the letters of leads. Code
points are classified when a text first has them, because Unicode has a million of them.

Classes have numbers, and a class is the character whose code point is its number: dictionaries find characters, whose
hash is known, sooner than numbers. What is compared as several characters has a string of their classes, and what does
not count an empty one.
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
_ENUMERATED: Final = 32
"""The largest set that is kept by its code points."""


class Classes:
    """The classes of characters of one program.

    Args:
        program: The program.
    """

    def __init__(self, program: Program) -> None:
        self.near = [""] * NEAR
        """The class of each code point of Latin-1. Empty if `classes_of` must be asked."""
        self.far: dict[int, str] = {}
        """The classes of other code points."""
        self.sets: list[frozenset[int]] = []
        """The sets of each class: indexes of the program's; from `beside` on neighbours, from `letters` on letters."""
        self.beside = len(program.sets)
        self.letters = self.beside + len(program.neighbours)
        self._program = program
        self._others: dict[int, str] = {}
        """The classes of code points that are compared as none or several."""
        self._known: dict[frozenset[int], str] = {}
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

    def classes_of(self, code: int) -> str:
        """Returns the classes of what a code point is compared as: one as a rule, several, or none."""
        found = self.near[code] if code < NEAR else self.far.get(code, "")
        if found:
            return found
        known = self._others.get(code)
        if known is not None:
            return known
        found = self._compared(code)
        if len(found) == 1 and code < NEAR:
            self.near[code] = found
            return found
        remembered = self.far if len(found) == 1 else self._others
        if len(remembered) >= LIMITS.classified:
            remembered.clear()
        remembered[code] = found
        return found

    def _compared(self, code: int) -> str:
        if not self._program.normal:
            return self._class(code)
        return "".join([self._class(ord(each)) for each in normalize(chr(code))])

    def _class(self, code: int) -> str:
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
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = chr(len(self.sets))
            self.sets.append(key)
        return found
