"""The structure of a JSON text from a client: its nesting, the number of its values, and the digits of its numbers.

Owns the limits of these. A parser, which cannot be interrupted, gets a text only if it is within them. The text is read
in pieces of any size, so that a large body does not hold the loop.
"""

from __future__ import annotations

import re
from typing import Final

from gai_fast.core.json.limits import LIMITS
from gai_fast.model.errors import InvalidRequest
from gai_fast.model.limits import SHARED


class Structure:
    """The structure of one text so far.

    Args:
        depth: The maximum nesting.

    Attributes:
        containers: The number of objects and arrays that were read.
    """

    def __init__(self, depth: int = SHARED.json_depth) -> None:
        self._most = depth
        self._depth = 0
        self.containers = 0
        self._members = 0
        self._separators = 0
        self._in_string = False
        self._long_digits = 0
        self._open = b""  # brackets and colons of containers that may have further members
        self._carry = b""  # backslashes at the end of the last piece, which may escape the next one

    def feed(self, piece: bytes) -> None:
        """Reads the next piece of the text.

        Raises:
            InvalidRequest: The text is nested too deep, or has too many values or too long numbers.
        """
        # A value has at most two strings, its key and itself, and so at most four unescaped quotes.
        if len(piece) > _VALUES and piece.count(b'"') - piece.count(b'\\"') > 4 * _VALUES:
            raise _too_many(f"The body has more than {_VALUES} values")
        structure = self._outside_strings(piece)
        self._members += structure.count(b":")
        brackets = structure.translate(_AS_SQUARE, b",:")
        self.containers += brackets.count(b"[")
        self._separators += structure.count(b",")
        if self.containers > LIMITS.json_containers:
            raise _too_many(f"The body has more than {LIMITS.json_containers} objects and arrays")
        if self.containers + self._separators > _VALUES:
            raise _too_many(f"The body has more than {_VALUES} values")
        if self._members > LIMITS.json_members:
            raise _too_many(f"The objects of the body have more than {LIMITS.json_members} members")
        self._descend(brackets)
        self._check_objects(structure.translate(None, b","))

    def feed_whole(self, text: bytes) -> None:
        """Reads one complete text. The counts of values continue over all texts.

        Raises:
            InvalidRequest: As `feed`.
        """
        try:
            self.feed(text)
        finally:
            self._depth = 0
            self._in_string = False
            self._open = self._carry = b""

    def _outside_strings(self, piece: bytes) -> bytes:
        """Returns the brackets, commas and colons of a piece that are in no string."""
        text = self._carry + piece if self._carry else piece
        # In valid JSON only strings have backslashes. Those at the end are read with the next piece.
        whole = text.rstrip(b"\\")
        self._carry = text[len(whole) :]
        # Split at unescaped quotes, every second part is in a string. Removing adjacent quotes keeps the other parts in
        # order; without most strings the split takes a fifth of the time.
        unescaped = whole.replace(b"\\\\", b"").replace(b'\\"', b"")
        bare = unescaped.translate(None, _NO_STRUCTURE).replace(b'""', b"")
        if bare or not self._in_string:
            self._check_numbers(unescaped)
        parts = bare.split(b'"')
        structure = b"".join(parts[1::2] if self._in_string else parts[::2])
        self._in_string = self._in_string is (len(parts) % 2 == 1)
        return structure

    def _check_numbers(self, unescaped: bytes) -> None:
        """Refuses long numbers if they have too many digits: reading them takes quadratic time.

        Args:
            unescaped: A piece without escapes, read before `_in_string` changes.
        """
        if not may_have_long_numbers(unescaped):
            return
        parts = unescaped.split(b'"')
        for part in parts[1::2] if self._in_string else parts[::2]:
            for number in _LONG_NUMBER.findall(part):
                self._long_digits += len(number)
        if self._long_digits > LIMITS.json_long_digits:
            text = f"The numbers of the body that are longer than {LIMITS.short_number} digits have more than"
            raise _too_many(f"{text} {LIMITS.json_long_digits} digits")

    def _check_objects(self, structure: bytes) -> None:
        """Refuses an object with too many members; takes one round for each level, so the depth is checked before.

        Args:
            structure: The brackets and colons of a piece.
        """
        self._open += structure
        if len(self._open) <= LIMITS.object_members:
            return
        while True:  # containers within their limit are removed from the inside out, so the rest has too many
            rest = _SMALL.sub(b"", self._open)
            if len(rest) == len(self._open):
                break
            self._open = rest
        if self._open.count(b":") > LIMITS.object_members:
            raise _too_many(f"An object of the body has more than {LIMITS.object_members} members")

    def _descend(self, brackets: bytes) -> None:
        outer, flattened = brackets, 0
        # Removing the innermost pairs reduces the depth by one: a few rounds remove millions of small objects.
        while flattened < _FLATTENED:
            rest = outer.replace(b"[]", b"")
            if len(rest) == len(outer):
                break
            outer = rest
            flattened += 1
        # Brackets that this piece leaves open are not flattened, so the sum may be too high.
        if self._deepest(outer) + flattened > self._most and self._deepest(brackets) > self._most:
            raise InvalidRequest(message=f"The body is nested deeper than {self._most} levels", reason="depth")
        self._depth += outer.count(b"[") - outer.count(b"]")

    def _deepest(self, brackets: bytes) -> int:
        """Returns the greatest depth in brackets that follow."""
        depth = deepest = self._depth
        for run in _RUNS.findall(brackets):
            depth += len(run) if run[0] == _OPEN else -len(run)
            deepest = max(deepest, depth)
        return deepest


def may_have_long_numbers(text: bytes) -> bool:
    """Returns whether a text has a long row of digits, which may be in a string.

    Args:
        text: A JSON text, or a piece of one.
    """
    return _LONG in text.translate(_AS_ZEROS)


def _too_many(what: str) -> InvalidRequest:
    return InvalidRequest(message=what, reason="items")


_VALUES: Final = LIMITS.json_values
_AS_SQUARE: Final = bytes.maketrans(b"{}", b"[]")
_NO_STRUCTURE: Final = bytes(octet for octet in range(256) if octet not in b'[]{},:"')
_AS_ZEROS: Final = bytes.maketrans(b"123456789", b"000000000")
_LONG: Final = b"0" * (LIMITS.short_number + 1)
_LONG_NUMBER: Final = re.compile(rb"[0-9]{%d,}" % len(_LONG))
_FLATTENED: Final = 4
"""Levels removed before the depth is counted: most objects of a large request are on them."""
_SMALL: Final = re.compile(rb"\{:{0,%d}\}|\[\]" % LIMITS.object_members)
"""A container without containers in it, and with as many members as it may have."""
_RUNS: Final = re.compile(rb"\[+|\]+")
_OPEN: Final = ord("[")
