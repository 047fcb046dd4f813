"""Writes arguments that arrive as values with their paths as JSON text, piece by piece.

Owns the paths and the text between the values. Knows no provider.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from gai_fast.kernels import escape, parse_exact
from gai_fast.model.errors import Malformed
from gai_fast.model.limits import SHARED

Path = tuple[str | int, ...]
_STEP: Final = re.compile(
    r"""\.(?P<name>[^.\[\]]+)|\[(?P<index>[0-9]{1,9})\]|\['(?P<single>(?:[^'\\]|\\.)*)'\]|\[(?P<double>"(?:[^"\\]|\\.)*")\]""",
    re.S,
)


def argument_path(path: str) -> Path:
    """Parses a JSON path (RFC 9535) of one value into keys and indices.

    Raises:
        Malformed: The text is no such path.
    """
    steps: list[str | int] = []
    at = 1
    while at < len(path):
        step = _STEP.match(path, at)
        if step is None:
            break
        at = step.end()
        if step["index"]:
            steps.append(int(step["index"]))
        elif step["double"]:
            steps.append(str(parse_exact(step["double"])))
        else:
            steps.append(step["name"] or re.sub(r"\\(.)", r"\1", step["single"]))
    if path[:1] != "$" or at < len(path) or not steps or len(steps) > SHARED.arguments_depth:
        raise Malformed("the path of an argument cannot be read")
    return tuple(steps)


@dataclass(frozen=True, slots=True)
class ArgumentPiece:
    """One value of an argument, or a part of one string."""

    path: Path
    text: str
    """JSON; a string has no closing quote. Empty if the piece only ends a value."""
    is_string: bool


class ArgumentWriter:
    """Writes arguments as JSON text. The values must arrive in the order of the text."""

    def __init__(self) -> None:
        self._path: Path = ()
        self._keys: list[set[str | int]] = []
        """The keys so far of each open object and array."""
        self._in_string = False
        """Whether the last value is a string that may continue, so that its closing quote is not written yet."""

    def write(self, piece: ArgumentPiece) -> str:
        """Returns the text for a piece.

        Raises:
            Malformed: The position of the value is closed already, or it has another kind of value.
        """
        if not piece.text:
            return ""
        if piece.path == self._path:
            if self._in_string and piece.is_string:
                return piece.text[1:]
            if piece.text == '"':
                return ""
        text = self._move(piece.path) + piece.text
        self._in_string = piece.is_string
        return text

    def _move(self, path: Path) -> str:
        """Returns the text between the last value and this one: closes and opens containers, writes the key."""
        text, same = "", 0
        if self._path:
            parting = (at for at, steps in enumerate(zip(path, self._path, strict=False)) if steps[0] != steps[1])
            same = next(parting, -1)
            if same < 0 or type(path[same]) is not type(self._path[same]):
                raise _misplaced()
            text = self._closed(same) + ","
            del self._keys[same + 1 :]
        elif not isinstance(path[0], str):
            raise _misplaced()
        for at, step in enumerate(path[same:], same):
            if at == len(self._keys):
                self._keys.append(set())
                text += "[" if isinstance(step, int) else "{"
            keys = self._keys[at]
            if step != len(keys) if isinstance(step, int) else step in keys:
                raise _misplaced()
            keys.add(step)
            text += "" if isinstance(step, int) else escape(step).decode() + ":"
        self._path = path
        return text

    def _closed(self, depth: int) -> str:
        """Returns the text that closes the last value and all containers below a depth."""
        ends = ("]" if isinstance(step, int) else "}" for step in reversed(self._path[depth + 1 :]))
        return ('"' if self._in_string else "") + "".join(ends)

    def close(self) -> str:
        """Returns the rest of the text."""
        return self._closed(-1) if self._path else ""


def _misplaced() -> Malformed:
    return Malformed("an argument comes in a place that has been left, or that another kind of value has")
