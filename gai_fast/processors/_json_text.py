"""An incremental JSON reader: reads every character once, and has the value so far at any time.

Owns the grammar of RFC 8259; a fault is found at the first wrong character. Knows nothing of events. One match reads a
run of a string; the value grows in place, so that a snapshot costs no parsing, and a copy of open containers alone.

A step of the reader takes 1 to 2 µs, so one text may cost `limits.json_steps`. Longer texts are read by the standard
library, 30 times as fast, if they hold an object or array that is whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from math import isfinite
from typing import Any, Final

from gai_fast.model.errors import GaiFastError
from gai_fast.model.events import JSONText, join_surrogates
from gai_fast.model.limits import SHARED
from gai_fast.processors.limits import LIMITS


class NotJSONText(GaiFastError, ValueError):
    """The text is not a JSON document.

    Attributes:
        position: The position of the first wrong character in all text fed so far, from 0.
    """

    def __init__(self, what: str, position: int) -> None:
        super().__init__(f"{what} at character {position}")
        self.position = position


class JSONReader:
    """Reads one document."""

    __slots__ = (
        "_base",
        "_escaped",
        "_halves",
        "_is_key",
        "_keys",
        "_literal",
        "_number",
        "_pieces",
        "_stack",
        "_state",
        "_whole_tries",
        "began",
        "changed",
        "complete",
        "members",
        "position",
        "sure",
        "value",
        "values",
    )

    def __init__(self) -> None:
        self.value: Any = None
        """The value so far; `feed` changes it. Unfinished parts are left out, except strings."""
        self.began = False
        """Whether there is a value."""
        self.changed = False
        """Whether the value has grown since the last `snapshot`."""
        self.complete = False
        """Whether the document is complete."""
        self.sure = False
        """Whether this is a document, not a bracket in prose: a member's name or an element is complete, or
        `_SURE_DEPTH` containers are open."""
        self.members: dict[str, None] = {}
        """The members of the outermost object that were completed, each once; the caller takes them."""
        self.position = 0
        """Characters read."""
        self.values = 1
        """Values read at most: a comma in a string counts for one too."""
        self._base = 0
        self._stack: list[dict[str, Any] | list[Any]] = []
        self._keys: list[str] = []
        self._state: Callable[[str, int], int] = self._value
        self._pieces: list[str] = []
        self._escaped = ""
        self._halves = False
        self._is_key = False
        self._number = ""
        self._literal = ""
        self._whole_tries = 0

    def feed(self, text: str, at: int = 0) -> int:
        """Reads text up to its end or the end of the document.

        Args:
            text: The next text.
            at: The index in `text` of the first character to read.

        Returns:
            The index in `text` after the last character read.

        Raises:
            NotJSON: A character is wrong. The reader cannot be used afterwards.
        """
        self._base = self.position - at
        begin, end = at, len(text)
        is_long = end - at > LIMITS.json_steps // 4
        is_whole = is_long and _brackets(text, at, end) <= LIMITS.json_brackets
        self._whole_tries = LIMITS.json_whole_tries if is_whole else 0
        try:
            for _ in range(LIMITS.json_steps):
                if at >= end or self.complete:
                    break
                at = self._state(text, at)
            else:
                if at < end and not self.complete:
                    raise NotJSONText(f"more than {LIMITS.json_steps} values and signs in one delta", self._base + at)
        finally:
            self.position = self._base + at
            self.values += text.count(",", begin, at) + _brackets(text, begin, at)
        return at

    def close(self) -> bool:
        """Ends the text, and a number that is the whole document. Returns whether the document is complete."""
        if not self._stack and self._state == self._digits and self._number in _NUMBER_ENDS:
            try:
                self._end_number(self.position)
            except NotJSONText:  # more digits than a number may have
                return False
        return self.complete

    def snapshot(self) -> Any:
        """Returns the value so far. It includes an unfinished string.

        Unfinished names, numbers and literals are left out. Only containers that are open are copied, without what they
        hold: those that are complete change no more, and all snapshots share them.
        """
        self.changed = False
        if self._state in (self._string, self._escape) and not self._is_key:
            text = self._text()
            if self._halves and "\ud800" <= text[-1:] <= "\udbff":
                text = text[:-1]  # the low surrogate may follow
            self._place(join_surrogates(text) if self._halves else text)
        if not self._stack:
            return self.value
        keys = reversed(self._keys)
        inner: dict[str, Any] | list[Any] | None = None
        for container in reversed(self._stack):
            copied = container.copy()
            if isinstance(copied, dict):
                key = next(keys)
                if inner is not None:
                    copied[key] = inner
            elif inner is not None:
                copied[-1] = inner
            inner = copied
        return inner

    # -- one method per state: reads from a position on, returns the position of the next state --

    def _value(self, text: str, at: int) -> int:
        at = blanks_end(text, at)
        if at == len(text):
            return at
        character = text[at]
        if character == '"':
            self._open("")
            self._begin_string(is_key=False)
        elif character in "{[":
            if self._whole_tries and (end := self._whole(text, at)) > at:
                return end
            if len(self._stack) == LIMITS.json_levels:
                raise NotJSONText(f"more than {LIMITS.json_levels} levels", self._base + at)
            container: dict[str, Any] | list[Any] = {} if character == "{" else []
            self._open(container)
            self._stack.append(container)
            self.sure = self.sure or len(self._stack) == _SURE_DEPTH
            if character == "{":
                self._keys.append("")
                self._state = self._first_name
            else:
                self._state = self._first_element
        elif character in _LITERALS:
            self._literal = _LITERALS[character]
            self._pieces = []
            self._state = self._word
            return at
        elif character in _NUMBER[""]:
            self._number = ""
            self._pieces = []
            self._state = self._digits
            return at
        else:
            raise NotJSONText("no value", self._base + at)
        return at + 1

    def _whole(self, text: str, at: int) -> int:
        """Reads an object or array if the text contains all of it. Returns the index after it, or `at` if it does not.

        A failed try may have read the rest of the text, so the number of tries for a text is limited.
        """
        try:
            value, end = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):  # incomplete or wrong: the next steps find out
            self._whole_tries -= 1
            return at
        if _HALF.search(text, at, end) or not _fits(value, LIMITS.json_levels - len(self._stack)):
            self._whole_tries -= 1
            return at
        self._open(value)
        self._end_value()
        return end

    def _first_element(self, text: str, at: int) -> int:
        at = blanks_end(text, at)
        if text[at : at + 1] == "]":
            return self._close_container(at)
        if at < len(text):
            self._state = self._value
        return at

    def _first_name(self, text: str, at: int) -> int:
        at = blanks_end(text, at)
        if text[at : at + 1] == "}":
            return self._close_container(at)
        return self._name(text, at)

    def _name(self, text: str, at: int) -> int:
        at = blanks_end(text, at)
        if at == len(text):
            return at
        if text[at] != '"':
            raise NotJSONText("no name of a member", self._base + at)
        self._begin_string(is_key=True)
        return at + 1

    def _colon(self, text: str, at: int) -> int:
        at = blanks_end(text, at)
        if at == len(text):
            return at
        if text[at] != ":":
            raise NotJSONText("no colon", self._base + at)
        self.sure = True
        self._state = self._value
        return at + 1

    def _after(self, text: str, at: int) -> int:
        """Reads the comma or the closing bracket after a member or an element."""
        at = blanks_end(text, at)
        if at == len(text):
            return at
        is_object = isinstance(self._stack[-1], dict)
        if text[at] == ",":
            self._state = self._name if is_object else self._value
            return at + 1
        if text[at] == ("}" if is_object else "]"):
            return self._close_container(at)
        raise NotJSONText("neither a comma nor the closing bracket", self._base + at)

    def _string(self, text: str, at: int) -> int:
        run = _PLAIN.match(text, at)
        end = at if run is None else run.end()
        if end > at:
            piece = text[at:end]
            self._pieces.append(json.loads(f'"{piece}"') if "\\" in piece else piece)
            self.changed = self.changed or not self._is_key
        if end == len(text):
            return end
        if text[end] == '"':
            self._end_string()
        elif text[end] == "\\":
            self._escaped = ""
            self._state = self._escape
        else:
            raise NotJSONText("a control character in a string", self._base + end)
        return end + 1

    def _escape(self, text: str, at: int) -> int:
        character = text[at]
        if not self._escaped and character in _ESCAPES:
            self._pieces.append(_ESCAPES[character])
            self.changed = self.changed or not self._is_key
            self._state = self._string
            return at + 1
        if character not in (_HEX if self._escaped else "u"):
            raise NotJSONText("no escape", self._base + at)
        self._escaped += character
        if len(self._escaped) == len("uXXXX"):
            code = int(self._escaped[1:], 16)
            self._halves = self._halves or _is_half(code)
            self._pieces.append(chr(code))
            self.changed = self.changed or not self._is_key
            self._state = self._string
        return at + 1

    def _word(self, text: str, at: int) -> int:
        done = len(self._pieces)
        for expected in self._literal[done:]:
            if at == len(text):
                return at
            if text[at] != expected:
                raise NotJSONText("no value", self._base + at)
            self._pieces.append(expected)
            at += 1
        self._open(_WORDS[self._literal])
        self._end_value()
        return at

    def _digits(self, text: str, at: int) -> int:
        begin, state = at, self._number
        for at in range(begin, len(text)):
            following = _NUMBER[state].get(text[at])
            if following is None:
                break
            state = following
        else:
            at = len(text)
        self._number = state
        self._pieces.append(text[begin:at])
        if at < len(text):
            if state not in _NUMBER_ENDS:
                raise NotJSONText("no number", self._base + at)
            self._end_number(self._base + at)
        return at

    # -- the value --

    def _open(self, value: Any) -> None:
        """Adds a value that begins or is complete."""
        self.began = self.changed = True
        if not self._stack:
            self.value = value
        elif isinstance(container := self._stack[-1], list):
            container.append(value)
        else:
            container[self._keys[-1]] = value

    def _place(self, value: Any) -> None:
        """Replaces the value that began last."""
        if not self._stack:
            self.value = value
        elif isinstance(container := self._stack[-1], list):
            container[-1] = value
        else:
            container[self._keys[-1]] = value

    def _end_value(self) -> None:
        if not self._stack:
            self.complete = True
            return
        self.sure = True
        if len(self._stack) == 1 and self._keys:
            self.members[self._keys[0]] = None
        self._state = self._after

    def _close_container(self, at: int) -> int:
        if isinstance(self._stack.pop(), dict):
            self._keys.pop()
        self._end_value()
        return at + 1

    def _begin_string(self, *, is_key: bool) -> None:
        self._is_key = is_key
        self._pieces = []
        self._halves = False
        self._state = self._string

    def _text(self) -> str:
        text = "".join(self._pieces)
        self._pieces = [text]
        return text

    def _end_string(self) -> None:
        text = self._text()
        if self._halves:
            text = join_surrogates(text)
        if self._is_key:
            self._keys[-1] = text
            self._state = self._colon
            if len(self._stack) == 1:
                self.members.pop(text, None)  # it begins again
        else:
            self._place(text)
            self._end_value()

    def _end_number(self, position: int) -> None:
        text = self._text()
        if len(text) > SHARED.integer_digits:
            raise NotJSONText(f"a number of more than {SHARED.integer_digits} digits", position)
        if self._number in ("zero", "integer"):
            self._open(int(text))
        else:
            value = float(text)
            self._open(value if isfinite(value) else JSONText(text, value))
        self._end_value()


def same_json(one: Any, other: Any) -> bool:
    """Returns whether two values are equal JSON: names in any order, and `true` is not 1."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same_json(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same_json, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _brackets(text: str, at: int, end: int) -> int:
    return text.count("[", at, end) + text.count("{", at, end)


def _fits(value: Any, levels: int) -> bool:
    """Returns whether a value has at most this many levels."""
    if type(value) not in _CONTAINERS:
        return True
    items = value.values() if type(value) is dict else value
    return levels > 0 and (_is_flat(items) or all(_fits(item, levels - 1) for item in items))


def _is_flat(items: Iterable[Any]) -> bool:
    return _CONTAINERS.isdisjoint(map(type, items))


def blanks_end(text: str, at: int) -> int:
    """Returns the index after white space."""
    if at < len(text) and text[at] in " \t\n\r":
        run = _BLANKS.match(text, at)
        return at if run is None else run.end()
    return at


def _is_half(code: int) -> bool:
    return "\ud800" <= chr(code) <= "\udfff"


def _transitions(**states: str) -> dict[str, dict[str, str]]:
    """Builds a transition table from lines such as `"0:zero 1-9:integer"`."""
    table: dict[str, dict[str, str]] = {}
    for state, line in states.items():
        row: dict[str, str] = {}
        for rule in line.split():
            characters, _, following = rule.rpartition(":")
            row |= dict.fromkeys({"0-9": "0123456789", "1-9": "123456789"}.get(characters, characters), following)
        table[state] = row
    return table


_NUMBER: Final = _transitions(
    minus="0:zero 1-9:integer",
    zero=".:point eE:exponent",
    integer="0-9:integer .:point eE:exponent",
    point="0-9:fraction",
    fraction="0-9:fraction eE:exponent",
    exponent="+-:sign 0-9:power",
    sign="0-9:power",
    power="0-9:power",
) | {"": {"-": "minus", "0": "zero", **dict.fromkeys("123456789", "integer")}}
_NUMBER_ENDS: Final = frozenset({"zero", "integer", "fraction", "power"})
_SURE_DEPTH: Final = 8
_LITERALS: Final = {"t": "true", "f": "false", "n": "null"}
_WORDS: Final = {"true": True, "false": False, "null": None}
_ESCAPES: Final = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_HEX: Final = frozenset("0123456789abcdefABCDEF")
# Without `{4}` and look-aheads: before 3.11.5 a run ends too late if one of them fails in it (python/cpython#106052).
_PLAIN: Final = re.compile(
    r'(?:[^"\\\x00-\x1f]++|\\["\\/bfnrt]'
    r"|\\u[0-9a-cefA-CEF][0-9a-fA-F][0-9a-fA-F][0-9a-fA-F]|\\u[dD][0-7][0-9a-fA-F][0-9a-fA-F])++"
)
"""A run of a string: plain characters and complete escapes, except escapes of surrogates."""
_HALF: Final = re.compile(r"\\u[dD][89a-fA-F]")
_CONTAINERS: Final = frozenset({dict, list})


def _refuse(constant: str) -> None:
    """Refuses `NaN` and `Infinity`, which the standard library accepts."""
    raise ValueError(constant)


def _float(text: str) -> float:
    """Refuses a number that only its text can express."""
    value = float(text)
    if not isfinite(value):
        raise ValueError(text)
    return value


_DECODER: Final = json.JSONDecoder(parse_constant=_refuse, parse_float=_float)
_BLANKS: Final = re.compile(r"[ \t\n\r]+")
