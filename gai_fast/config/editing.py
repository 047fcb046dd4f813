"""Changes to the `[[key]]` tables in the text of a configuration; every other byte stays unchanged.

Owns the boundaries of tables and values in TOML. Each change is checked: the new text must parse to the old document
with just this change, otherwise `EditError` is raised. tomlkit (0.15.2) is not used: if other tables stand between the
tables of an array, it moves them, and comments end up before the wrong table or get lost.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from gai_fast.config.problems import shown

_TOKEN: Final = re.compile(
    r"""(?P<comment>\#[^\n]*)
      | (?P<string>\"{3}(?:\\.|[^\\])*?\"{3,5} | '{3}.*?'{3,5} | "(?:\\.|[^"\\\n])*" | '[^'\n]*')
      | (?P<open>[\[{]) | (?P<close>[\]}]) | (?P<end>\n) | (?P<space>[ \t\r]+) | (?P<other>[^\#"'\[\]{}\n \t\r]+)""",
    re.S | re.X,
)


class EditError(Exception):
    """The text cannot be changed; the message has the reason."""


@dataclass(slots=True)
class _Statement:
    """A header, a key with its value, or a line without either.

    Attributes:
        start: Offset of its first line.
        end: Offset after its last line.
        strings: Start and end of each string in it, also within tables and lists.
        is_empty: Whether it is blank or only a comment.
    """

    start: int
    end: int
    strings: list[tuple[int, int]]
    is_empty: bool


@dataclass(slots=True)
class _Block:
    """A `[[key]]` table with its values and subtables.

    Attributes:
        start: Offset of its header.
        end: Offset after its last value; comments after it may belong to the next table.
        values: The statements of its own keys, without the keys of its subtables.
    """

    start: int
    end: int
    values: list[_Statement]


def add_key(text: str, lines: Iterable[str]) -> str:
    """Returns the configuration with one more `[[key]]` at its end.

    Args:
        text: The configuration, valid TOML.
        lines: The lines of the table, its header first.

    Raises:
        EditError: `key` in the configuration is not a list of `[[key]]` tables.
    """
    newline = "\r\n" if "\r\n" in text else "\n"
    start = text if not text or text.endswith("\n") else f"{text}{newline}"
    block = "\n".join(lines)
    after = f"{start}{newline if text.strip() else ''}{block.replace(chr(10), newline)}{newline}"
    document = tomllib.loads(text)
    keys = document.get("key", [])
    if not isinstance(keys, list):
        raise EditError("its `key` is no list of tables: each caller is a [[key]]")
    return _checked(after, {**document, "key": [*keys, *tomllib.loads(block)["key"]]})


def remove_key(text: str, index: int) -> str:
    """Returns the configuration without one of its `[[key]]` tables. Comments above the table stay.

    Args:
        text: The configuration, valid TOML.
        index: The number of the table, from 0.

    Raises:
        EditError: The table's boundaries in the text cannot be found.
    """
    block = _block(text, index)
    before, after = text[: block.start], text[block.end :]
    if not before.strip() or re.search(r"\n[ \t]*\r?\n$", before):
        after = re.sub(r"^[ \t]*\r?\n", "", after)  # keeps only one of the two empty lines around the table
    document = tomllib.loads(text)
    keys = [key for number, key in enumerate(document["key"]) if number != index]
    document.pop("key")
    return _checked(before + after, {**document, **({"key": keys} if keys else {})})


def add_secret(text: str, index: int, secret: str) -> str:
    """Returns the configuration with one more secret at the end of a `[[key]]`'s secrets.

    If the table already has several secrets, its first one is removed.

    Args:
        text: The configuration, valid TOML.
        index: The number of the table, from 0.
        secret: The reference to the secret, of printable ASCII without quotes.

    Raises:
        EditError: The boundaries of its `secret` in the text cannot be found.
    """
    document = tomllib.loads(text)
    statement = next((each for each in _block(text, index).values if "secret" in _value(text, each)), None)
    if statement is None:
        raise EditError("the `secret` of this [[key]] is not a line of its own")
    old = document["key"][index]["secret"]
    references = old if isinstance(old, list) else [old]
    if not references or not all(isinstance(each, str) for each in references):
        raise EditError("the `secret` of this [[key]] is not a string or a list of strings")
    places = statement.strings[-len(references) :]
    (first, first_end), (_, last_end) = places[0], places[-1]
    if isinstance(old, str):
        after = f'{text[:first]}[{text[first:first_end]}, "{secret}"]{text[first_end:]}'
    else:
        kept = places[1][0] if len(places) > 1 else first
        after = f'{text[:first]}{text[kept:last_end]}, "{secret}"{text[last_end:]}'
    key = {**document["key"][index], "secret": [*references[min(1, len(references) - 1) :], secret]}
    keys = [key if number == index else each for number, each in enumerate(document["key"])]
    return _checked(after, {**document, "key": keys})


def _checked(text: str, meant: dict[str, Any]) -> str:
    """Returns the new text if it parses to the intended document; otherwise raises `EditError`."""
    try:
        is_meant = tomllib.loads(text) == meant
    except tomllib.TOMLDecodeError:
        is_meant = False
    if not is_meant:
        raise EditError("its [[key]] tables are written in a way that only people can change: edit it")
    return text


def _block(text: str, index: int) -> _Block:
    """Finds a `[[key]]` table in the text."""
    blocks: list[_Block] = []
    here: _Block | None = None
    is_own = False
    for each in _statements(text):
        if each.is_empty:
            continue
        if text[each.start : each.end].lstrip().startswith("["):
            header = _value(text, each)
            is_own = header == {"key": [{}]}
            if is_own:
                here = _Block(each.start, each.end, [])
                blocks.append(here)
            elif not isinstance(header.get("key"), dict):  # not a subtable of the last [[key]]
                here = None
        elif is_own and here is not None:
            here.values.append(each)
        if here is not None:
            here.end = each.end
    try:
        return blocks[index]
    except IndexError:
        raise EditError(f"its `key` number {shown(index + 1)} is no [[key]] table of its own") from None


def _value(text: str, statement: _Statement) -> dict[str, Any]:
    return tomllib.loads(text[statement.start : statement.end])


def _statements(text: str) -> Iterator[_Statement]:
    """Yields the statements of a document, in order. Brackets and line ends in strings and comments do not count."""
    at = depth = 0
    statement = _Statement(0, 0, [], is_empty=True)
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise EditError("it cannot be read")
        at = found.end()
        kind = found.lastgroup
        if kind == "string":
            statement.strings.append(found.span())
        elif kind == "open":
            depth += 1
        elif kind == "close":
            depth -= 1
        if kind not in ("comment", "end", "space"):
            statement.is_empty = False
        if depth == 0 and kind == "end":
            statement.end = at
            yield statement
            statement = _Statement(at, at, [], is_empty=True)
    if statement.start < len(text):
        statement.end = len(text)
        yield statement
