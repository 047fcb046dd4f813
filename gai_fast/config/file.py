"""The configuration file: reads it within a size limit, parses it as TOML, and finds the line of each table and key."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, Final

from gai_fast.config.faults import explained
from gai_fast.config.problems import ConfigError
from gai_fast.model.limits import SHARED
from gai_fast.runtime.files import open_file

Place = tuple[str | int, ...]
"""A path of names and indexes through the document."""

# Strings and comments are matched first: a string may contain text like a key, and a comment text like a string.
_LEXEME: Final = re.compile(
    r"""(?P<comment>#[^\n]*)|(?P<long>\"{3}(?:\\.|[^\\])*?\"{3,5}|'{3}.*?'{3,5})|"(?:\\.|[^"\\\n])*"|'[^'\n]*'""", re.S
)
_KEY_PATH: Final = (
    r"""(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')(?:[ \t]*\.[ \t]*(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*'))*"""
)
_LINE: Final = re.compile(
    rf"^[ \t]*(?:\[\[[ \t]*(?P<item>{_KEY_PATH})[ \t]*\]\]"
    rf"|\[[ \t]*(?P<table>{_KEY_PATH})[ \t]*\]"
    rf"|(?P<key>{_KEY_PATH})[ \t]*=)"
)


class ConfigFile:
    """One file: its tables and their lines.

    Args:
        path: The file.
        missing: What to do if there is no such file.

    Raises:
        ConfigError: The file cannot be read, or is not TOML.
    """

    def __init__(self, path: Path, *, missing: str = "`gai-fast config init` writes one") -> None:
        self.path = path
        source = _source(path, missing)
        try:
            self.tables: dict[str, Any] = tomllib.loads(source)
        except (ValueError, RecursionError) as problem:
            raise ConfigError(_syntax(path, problem, source)) from None
        self._lines = line_numbers(source)

    def where(self, *at: str | int) -> str:
        """Returns file and line of a key, else of the table that contains it.

        Args:
            at: The path to the key.
        """
        for length in range(len(at), 0, -1):
            if at[:length] in self._lines:
                return f"{self.path}:{self._lines[at[:length]]}"
        return str(self.path)


def _source(path: Path, missing: str) -> str:
    try:
        with open_file(path, may_be_piped=True) as file:
            content = file.read(SHARED.config_file + 1)
    except OSError as problem:
        hint = f": {missing}" if isinstance(problem, FileNotFoundError) else ""
        raise ConfigError(f"{path}: cannot be read: {problem.strerror}{hint}") from None
    if len(content) > SHARED.config_file:
        raise ConfigError(f"{path}: larger than {SHARED.config_file} bytes: this is not a configuration")
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as problem:
        line = content.count(b"\n", 0, problem.start) + 1
        raise ConfigError(f"{path}:{line}: not UTF-8") from None


def _syntax(path: Path, problem: Exception, source: str) -> str:
    """Returns the message about a file that is not TOML."""
    text = "nested too deep" if isinstance(problem, RecursionError) else str(problem)
    at = re.search(r" \((?:at line (\d+), column (\d+)|at end of document)\)$", text)
    if at is None:
        return f"{path}: {text}"
    line = at[1] or str(source.count("\n") + 1)
    found = explained(source, int(line), text[: at.start()])
    if found is not None and str(found[0]) != line:
        return f"{path}:{found[0]}: {found[1]}"
    return f"{path}:{line}{f':{at[2]}' if at[2] else ''}: {text[: at.start()] if found is None else found[1]}"


def line_numbers(source: str) -> dict[Place, int]:
    """Returns the line, from 1, of every table and key that begins a line.

    Args:
        source: Valid TOML.
    """
    blanked = _LEXEME.sub(
        lambda found: "\n" * found[0].count("\n") if found.lastgroup in ("long", "comment") else found[0], source
    )
    lines: dict[Place, int] = {}
    counts: dict[str, int] = {}
    here: Place = ()
    for number, text in enumerate(blanked.split("\n"), 1):
        found = _LINE.match(text)
        if found is None:
            continue
        names = [
            name.strip().strip("\"'") for name in re.findall(r"\"[^\"]*\"|'[^']*'|[^.\s]+", found[found.lastgroup or 0])
        ]
        if found["item"]:
            counts[names[0]] = counts.get(names[0], -1) + 1
        if found["key"]:
            at: Place = (*here, *names)
        else:
            at = here = (names[0], *([counts[names[0]]] if names[0] in counts else []), *names[1:])
        for length in range(1, len(at) + 1):  # a dotted key may also be the first mention of the tables in its path
            lines.setdefault(at[:length], number)
    return lines
