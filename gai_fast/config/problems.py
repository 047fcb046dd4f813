"""The wording of mistakes in the configuration: the place, the fault and the nearest known name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from math import inf
from typing import Any, Final

from gai_fast.model.errors import GaiFastError

_LONGEST_VALUE: Final = 60
"""Characters of a mistaken value that a message repeats."""
_LONGEST_TEXT: Final = 600
"""Characters of a message that another part of the package wrote."""

ALIKE: Final = 0.65
"""How alike a name must be to be suggested: two letters of three, in their order. With less it would be a guess."""

# Names that other gateways and SDKs use; by their spelling alone our names would not be found.
SYNONYMS: Final[Mapping[str, tuple[str, ...]]] = {
    "model": ("id",),
    "url": ("base_url",),
    "key": ("api_key", "secret"),
    "keys": ("api_key",),
    "token": ("api_key", "secret"),
    "type": ("provider",),
}
_PARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "addr": ("host", "port"),
    "address": ("host", "port"),
    "bind": ("host", "port"),
    "listen": ("host", "port"),
}
"""Names that other programs have for what takes several keys here."""


class ConfigError(GaiFastError):
    """The configuration cannot be used.

    Args:
        problems: One line for each mistake: the place (file and line, variable or flag), the fault, and a remedy. No
            secrets.
    """

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


@dataclass(frozen=True, slots=True)
class Value:
    """One key's value and its origin: file and line, variable or flag."""

    value: Any
    origin: str


class Problems:
    """The mistakes found so far, so that one run reports all of them."""

    def __init__(self) -> None:
        self._found: list[tuple[str, str]] = []

    def __bool__(self) -> bool:
        return bool(self._found)

    @property
    def lines(self) -> list[str]:
        """The mistakes in the order of the file; then those of other places, as they were found."""
        ordered = sorted(self._found, key=lambda found: _line_of(found[0]))
        return [f"{where}: {what}" for where, what in ordered]

    def add(self, where: str, what: str) -> None:
        """Adds one mistake.

        Args:
            where: File and line, variable or flag.
            what: One line, without secrets.
        """
        self._found.append((where, what))

    def raise_if_any(self) -> None:
        """Raises all mistakes as one `ConfigError`, if there are any."""
        if self._found:
            raise ConfigError(*self.lines)


def _line_of(where: str) -> float:
    """Returns the line of a place in the file; infinity if the place is a variable or a flag."""
    line = where.rpartition(":")[2]
    return int(line) if line.isascii() and line.isdecimal() else inf


def shown(value: Any) -> str:
    """Returns a value for a message: quoted, on one line, cut if it is long."""
    text = ("true" if value else "false") if isinstance(value, bool) else repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"


def shortened(text: str) -> str:
    """Returns a message of another part of the package, cut if it is long."""
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…"


def meant(name: str, known: Iterable[str], least: float = ALIKE) -> str | None:
    """Returns the known name that is nearest to an unknown name, or None if none is as alike as `least`, 0 to 1."""
    candidates = sorted(known)
    for synonym in SYNONYMS.get(name, ()):
        if synonym in candidates:
            return synonym
    close = get_close_matches(name, candidates, 1, least) or get_close_matches(name.lower(), candidates, 1, least)
    return close[0] if close else None


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns the end of a message about an unknown name: the nearest known name, else all known names."""
    candidates = sorted(known)
    parts = _PARTS.get(name, ())
    if parts and all(part in candidates for part in parts):
        return f"; did you mean {' and '.join(parts)}?"
    near = meant(name, candidates)
    if near:
        return f"; did you mean {near}?"
    return f"; known: {', '.join(candidates)}" if candidates else ""
