r"""The syntax of patterns: text → a tree of character sets, sequences, choices and repeats.

Owns what a pattern may say, and the words of a refusal. A pattern is read as RE2 reads it; refused is what RE2 refuses,
what depends on more than the matched characters (anchors, look-around), and what is easily misread.

* Literals, classes, `.` (all but a line feed), `\d \w \s` and their capitals (ASCII), `\n \t \r \xHH \x{H…}`.
* Groups, with or without a name; `|`; `? * + {m} {m,} {m,n}`, lazy or not: the longest match counts in any case.
* `(?i)` at the beginning: simple case folding.
"""

from __future__ import annotations

from typing import Final

from gai_fast.guards.characters import BEYOND, CodePoints, complement, folded, of, of_text, union
from gai_fast.guards.limits import LIMITS
from gai_fast.guards.normal import normalize, normalized
from gai_fast.model.errors import GaiFastError

UNBOUNDED: Final = -1
"""The most repetitions of a repeat without a bound."""


class BadPattern(GaiFastError, ValueError):
    """A pattern is refused.

    Attributes:
        position: The index in the pattern of what is refused.
    """

    def __init__(self, what: str, position: int, remedy: str) -> None:
        super().__init__(f"{what} at character {position + 1}: {remedy}")
        self.position = position


class Node:
    """A part of a pattern."""

    def positions(self) -> int:
        """Returns the number of characters to match in it, each repetition's for themselves."""
        raise NotImplementedError

    def may_be_empty(self) -> bool:
        """Returns whether it matches the empty string."""
        raise NotImplementedError


class Chars(Node):
    """One character of a set."""

    def __init__(self, points: CodePoints) -> None:
        self.points = points

    def positions(self) -> int:
        """Returns 1."""
        return 1

    def may_be_empty(self) -> bool:
        """Returns False."""
        return False


class Sequence(Node):
    """Parts one after the other."""

    def __init__(self, parts: list[Node]) -> None:
        self.parts = parts

    def positions(self) -> int:
        """Returns the sum of all parts'."""
        return sum([each.positions() for each in self.parts])

    def may_be_empty(self) -> bool:
        """Returns whether all parts match the empty string."""
        return all(each.may_be_empty() for each in self.parts)


class Alternatives(Node):
    """One of several parts."""

    def __init__(self, parts: list[Node]) -> None:
        self.parts = parts

    def positions(self) -> int:
        """Returns the sum of all parts'."""
        return sum([each.positions() for each in self.parts])

    def may_be_empty(self) -> bool:
        """Returns whether one of the parts matches the empty string."""
        return any(each.may_be_empty() for each in self.parts)


class Repeat(Node):
    """A part that is repeated.

    Args:
        inner: The part.
        least: The fewest repetitions.
        most: The most repetitions, or `UNBOUNDED`.
        at: The index in the pattern at which the part begins.
        source: The text of the part and its repeat.
    """

    def __init__(self, inner: Node, least: int, most: int, at: int = 0, source: str = "") -> None:
        self.inner = inner
        self.least = least
        self.most = most
        self.at = at
        self.source = source

    def positions(self) -> int:
        """Returns those of all repetitions; of one without a bound, those that must be."""
        return self.inner.positions() * (max(self.least, 1) if self.most == UNBOUNDED else self.most)

    def may_be_empty(self) -> bool:
        """Returns whether there may be no repetition, or an empty one."""
        return self.least == 0 or self.inner.may_be_empty()


def parse(pattern: str, *, normal: bool = False) -> Node:
    """Parses a pattern.

    Args:
        pattern: The pattern's text.
        normal: Whether it is compared with normalized text.

    Raises:
        BadPattern: The pattern is refused.
    """
    if len(pattern) > LIMITS.pattern:
        raise BadPattern(
            f"a pattern of {len(pattern)} characters", LIMITS.pattern, f"{LIMITS.pattern} are allowed; write several"
        )
    parser = _Parser(pattern, normal)
    node = parser.whole()
    if node.may_be_empty():
        raise BadPattern(f"`{pattern}`, which matches the empty string,", 0, "require at least one character")
    if node.positions() > LIMITS.positions:
        raise BadPattern(
            f"a pattern of {node.positions()} positions", 0, f"{LIMITS.positions} are allowed; lower its repeats"
        )
    return node


def literal(text: str, *, fold: bool = False, normal: bool = False) -> list[CodePoints]:
    """Returns the set of each character to match for a text.

    Args:
        text: The text.
        fold: Whether upper and lower case are equal.
        normal: Whether it is compared with normalized text.
    """
    if normal:
        text = "".join([normalize(each) for each in text])
    return [letter_set(of_text(each), fold, normal) for each in text]


def letter_set(points: CodePoints, fold: bool, normal: bool) -> CodePoints:
    """Returns a set as it is compared with text: folded and normalized."""
    if fold:
        points = folded(points)
    return normalized(points) if normal else points


class _Parser:
    """Reads one pattern, by recursive descent: choice, sequence, repeat, atom."""

    def __init__(self, pattern: str, normal: bool) -> None:
        self._pattern = pattern
        self._normal = normal
        self._fold = pattern.startswith(_FOLD)
        self._at = len(_FOLD) if self._fold else 0
        self._depth = 0

    def whole(self) -> Node:
        node = self._choice()
        if self._at < len(self._pattern):
            raise BadPattern("`)`", self._at, r"it closes no group; write `\)` for the character")
        return node

    def _next(self) -> str:
        """Returns the next character; none at the end."""
        return self._pattern[self._at : self._at + 1]

    def _choice(self) -> Node:
        parts = [self._sequence()]
        while self._next() == "|":
            self._at += 1
            parts.append(self._sequence())
        return parts[0] if len(parts) == 1 else Alternatives(parts)

    def _sequence(self) -> Node:
        parts: list[Node] = []
        while self._next() not in _ENDS_SEQUENCE:
            start = self._at
            parts.append(self._repeated(self._atom(), start))
        return parts[0] if len(parts) == 1 else Sequence(parts)

    def _repeated(self, node: Node, start: int) -> Node:
        counts = self._counts()
        if counts is None:
            return node
        least, most = counts
        if self._next() == "?":  # lazy: the longest match counts in any case
            self._at += 1
        source = self._pattern[start : self._at]
        again = self._at
        if self._counts() is not None:
            raise BadPattern(
                f"a second repeat `{self._pattern[again : self._at]}`", again, f"write `(?:{source})` before it"
            )
        return Repeat(node, least, most, start, source)

    def _counts(self) -> tuple[int, int] | None:
        """Reads a repeat. None if there is none."""
        sign = self._next()
        if sign in _REPEATS:
            self._at += 1
            return _REPEATS[sign]
        if sign != "{":
            return None
        start = self._at
        inside, brace, _ = self._pattern[start + 1 :].partition("}")
        least, comma, most = inside.partition(",")
        if not brace or not _is_number(least) or not (_is_number(most) or not most):
            if brace and not least and _is_number(most):
                raise BadPattern(f"`{{{inside}}}`", start, rf"write `{{0{inside}}}`, or `\{{` for the character")
            return None
        self._at = start + len(inside) + 2
        # More digits than the bound's are too many in any case, and would take time to read.
        low, high = self._number(least, start), UNBOUNDED
        if not comma:
            high = low
        elif most:
            high = self._number(most, start)
        if high != UNBOUNDED and high < low:
            raise BadPattern(f"`{{{inside}}}`", start, "the first number is the smaller one")
        return low, high

    def _number(self, digits: str, start: int) -> int:
        count = int(digits) if len(digits) <= len(str(LIMITS.pattern_repeats)) else LIMITS.pattern_repeats + 1
        if count > LIMITS.pattern_repeats:
            raise BadPattern(f"a repeat of {digits[:20]}", start, f"{LIMITS.pattern_repeats} are allowed")
        return count

    def _atom(self) -> Node:
        character = self._next()
        if character == "(":
            return self._group()
        if character == "[":
            return Chars(self._class())
        if character == "\\":
            return self._escape()
        if character in _REPEATS:
            raise BadPattern(
                f"`{character}`",
                self._at,
                rf"it repeats nothing; write `\{character}` for the character",
            )
        if character in "^$":
            raise BadPattern(
                f"the anchor `{character}`", self._at, rf"remove it; write `\{character}` for the character"
            )
        self._at += 1
        return Chars(_NOT_NEWLINE) if character == "." else self._literal(character)

    def _literal(self, character: str) -> Node:
        sets = literal(character, fold=self._fold, normal=self._normal)
        parts: list[Node] = [Chars(each) for each in sets]
        return parts[0] if len(parts) == 1 else Sequence(parts)

    def _group(self) -> Node:
        start = self._at
        self._depth += 1
        if self._depth > LIMITS.pattern_depth:
            raise BadPattern(f"groups {self._depth} deep", start, f"{LIMITS.pattern_depth} are allowed")
        self._at += 1
        if self._next() == "?":
            self._open_special(start)
        node = self._choice()
        if not self._next():
            raise BadPattern("a group that is not closed", start, r"add `)`, or write `\(` for the character")
        self._at += 1
        self._depth -= 1
        return node

    def _open_special(self, start: int) -> None:
        """Reads what stands behind `(?`."""
        rest = self._pattern[start:]
        if rest.startswith("(?:"):
            self._at = start + 3
            return
        for opening in ("(?P<", "(?<"):
            name, end, _ = rest[len(opening) :].partition(">")
            if rest.startswith(opening) and end and name.isidentifier():
                self._at = start + len(opening) + len(name) + 1
                return
        for opening, what, remedy in _REFUSED_GROUPS:
            if rest.startswith(opening):
                raise BadPattern(f"{what} `{opening}`", start, remedy)
        raise BadPattern(f"`{rest[:4]}`", start, "write `(?i)` at the beginning of the pattern, a group as `(?:…)`")

    def _escape(self) -> Node:
        """Reads an escape outside a class."""
        start = self._at
        kind = self._pattern[start + 1 : start + 2]
        if kind in _KIND_LETTERS:
            self._at += 2
            return Chars(self._kind(kind))
        return self._literal(self._escaped_character())

    def _kind(self, kind: str) -> CodePoints:
        r"""Returns the set of `\d` and its like."""
        points = letter_set(_KINDS[kind.lower()], self._fold, self._normal)
        return points if kind.islower() else complement(points)

    def _escaped_character(self) -> str:
        """Reads an escape that stands for one character."""
        start = self._at
        kind = self._pattern[start + 1 : start + 2]
        escape = f"`\\{kind}`"
        self._at += 2
        if kind in _CONTROLS:
            return _CONTROLS[kind]
        if kind == "x":
            return self._hexadecimal(start)
        if kind.isascii() and kind.isprintable() and kind and not kind.isalnum():
            return kind
        if not kind:
            raise BadPattern("`\\`", start, r"write `\\` for the character")
        if kind in "bBAzZG":
            raise BadPattern(f"the anchor {escape}", start, _ANCHOR)
        if kind.isascii() and kind.isdigit() and kind != "0":
            raise BadPattern(f"the back reference {escape}", start, "repeat the group's text")
        if kind in "kg":
            raise BadPattern(f"the back reference {escape}", start, "repeat the group's text")
        if kind in "pP":
            raise BadPattern(f"the Unicode property {escape}", start, r"write a class of ranges: `[\x{370}-\x{3FF}]`")
        if kind in "fva0":
            raise BadPattern(f"the escape {escape}", start, r"write the code point: `\x0C`")
        raise BadPattern(f"the escape {escape}", start, "there is none; write the character itself")

    def _hexadecimal(self, start: int) -> str:
        r"""Reads the digits behind `\x`."""
        if self._next() == "{":
            digits, brace, _ = self._pattern[self._at + 1 :].partition("}")
            self._at += len(digits) + 2
            is_whole = bool(brace)
        else:
            digits = self._pattern[self._at : self._at + 2]
            self._at += 2
            is_whole = len(digits) == 2
        if not is_whole or not digits or not _HEX.issuperset(digits):
            raise BadPattern(f"`{self._pattern[start : self._at]}`", start, r"write `\xHH` or `\x{H…}`")
        code = int(digits, 16) if len(digits) <= _CODE_DIGITS else BEYOND
        if code >= BEYOND:
            raise BadPattern(f"the code point {digits[:20]}", start, "the last one is 10FFFF")
        return chr(code)

    def _class(self) -> CodePoints:
        start = self._at
        self._at += 1
        negated = self._next() == "^"
        if negated:
            self._at += 1
        sets: list[CodePoints] = []
        first = self._at
        while self._next() != "]" or self._at == first:
            if not self._next():
                raise BadPattern("a class that is not closed", start, r"add `]`, or write `\[` for the character")
            sets.append(self._class_part())
        self._at += 1
        points = letter_set(union(sets), self._fold, self._normal)
        points = complement(points) if negated else points
        if not points:
            raise BadPattern("a class without a character", start, "name what it matches")
        return points

    def _class_part(self) -> CodePoints:
        start = self._at
        if self._pattern.startswith("[:", start) and ":]" in self._pattern[start:]:
            raise BadPattern("a POSIX class", start, r"write its ranges: `a-z`")
        if self._next() == "\\" and self._pattern[start + 1 : start + 2] in _KIND_LETTERS:
            kind = self._pattern[start + 1]
            self._at += 2
            points = _KINDS[kind.lower()]
            # As outside: what is equal but for its case is in neither.
            return points if kind.islower() else complement(letter_set(points, self._fold, self._normal))
        low = self._class_character()
        if self._next() != "-" or self._pattern[self._at + 1 : self._at + 2] in ("]", ""):
            return of_text(low)
        self._at += 1
        if self._next() == "\\" and self._pattern[self._at + 1 : self._at + 2] in _KIND_LETTERS:
            raise BadPattern("a range whose end is a class", start, r"write `\-` for the character")
        high = self._class_character()
        if high < low:
            raise BadPattern(f"the range `{self._pattern[start : self._at]}`", start, "its end is before its beginning")
        return of((ord(low), ord(high)))

    def _class_character(self) -> str:
        if self._next() == "\\":
            return self._escaped_character()
        self._at += 1
        return self._pattern[self._at - 1]


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


_FOLD: Final = "(?i)"
_ENDS_SEQUENCE: Final = ("", "|", ")")
_REPEATS: Final = {"?": (0, 1), "*": (0, UNBOUNDED), "+": (1, UNBOUNDED)}
_NOT_NEWLINE: Final = complement(of_text("\n"))
_KINDS: Final = {
    "d": of_text("0123456789"),
    "w": of((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)),
    "s": of_text("\t\n\f\r "),  # as RE2: without the vertical tab
}
_KIND_LETTERS: Final = frozenset("dwsDWS")
"""Those of `_KINDS`, and in capitals the other characters."""
_CONTROLS: Final = {"n": "\n", "t": "\t", "r": "\r"}
_CODE_DIGITS: Final = 8
_HEX: Final = frozenset("0123456789abcdefABCDEF")
_ANCHOR: Final = "remove it; a list of `words` matches whole words alone"
_REFUSED_GROUPS: Final = (
    ("(?=", "the look-ahead", "write what follows as a part of the match"),
    ("(?!", "the look-ahead", "write what follows as a part of the match"),
    ("(?<=", "the look-behind", "write what stands before as a part of the match"),
    ("(?<!", "the look-behind", "write what stands before as a part of the match"),
    ("(?P=", "the back reference", "repeat the group's text"),
    ("(?>", "the atomic group", "write `(?:…)`: nothing is tried twice"),
    ("(?#", "the comment", "in a file of patterns, a line that begins with # is one"),
    ("(?i", "the flag", "`(?i)` stands at the beginning of the pattern, and counts for all of it"),
)
