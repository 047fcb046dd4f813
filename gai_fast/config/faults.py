"""The words for a file that is no TOML: what is wrong in its line, and how it is written.

Owns the usual mistakes: a parser names a character, and people look for a reason. What is none of them is said in the
parser's own words. A text of the file is not repeated: it may be a secret.
"""

from __future__ import annotations

import re
from typing import Final

_HEAD: Final = re.compile(r"[ \t]*\[(?P<several>\[?)[ \t]*(?P<name>[^\[\]#\"']+?)[ \t]*\]")
_PAIR: Final = re.compile(r"[ \t]*(?P<key>[A-Za-z0-9_.\"'-]+)[ \t]*=[ \t]*(?P<value>.*)")
_YAML: Final = re.compile(r"[ \t]*(?:- +)?(?P<key>[A-Za-z0-9_.\"'-]+):(?:[ \t]+(?P<value>[^#]*)|$)")
_WORDS: Final = re.compile(r"[A-Za-z0-9_.-]+(?P<rest>[ \t]+.*)?$")
_NUMBER: Final = re.compile(r"[+-]?[0-9][0-9_]*(?:\.[0-9_]+)?(?:[eE][+-]?[0-9_]+)?")
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d")
_SWITCHES: Final = {
    **dict.fromkeys(("true", "yes", "on"), "true"),
    **dict.fromkeys(("false", "no", "off"), "false"),
}
_TYPOGRAPHIC: Final = "“”„‟‘’‚«»"
_TEXT: Final = '"…"'
_QUOTES: Final = "a text needs quotes at both ends"
_UNCLOSED: Final = {
    "Unclosed array": "a list is not closed, or a comma is missing between two of its values",
    "Unclosed inline table": "a table in braces is not closed, or a comma is missing between two of its keys",
}
"""By the words of the parser, which stops behind the line of such a mistake."""


def explained(source: str, line: int, said: str) -> tuple[int, str] | None:
    """Returns the line of a mistake and its words; None if it is no usual one.

    Args:
        source: The file, which is no TOML.
        line: The line in which its parser stopped, from 1.
        said: The parser's words.
    """
    lines = source.split("\n")
    first = next((each for each in lines if each.strip() and not each.lstrip().startswith("#")), "")
    if first.startswith("---") or (_YAML.fullmatch(first) and "=" not in first.partition(":")[0]):
        return lines.index(first) + 1, "this is YAML, and the file is TOML: [server], and below it a line port = 8080"
    if first.lstrip().startswith("{"):
        return lines.index(first) + 1, "this is JSON, and the file is TOML: [server], and below it a line port = 8080"
    line = min(line, len(lines))
    text = lines[line - 1]
    if not text.strip():  # it stopped at the end, behind what is not closed
        opened = next((at for at in range(line, 0, -1) if _is_open(lines[at - 1])), None)
        words = None if opened is None else _in_value(lines[opened - 1])
        return None if opened is None or words is None else (opened, words)
    words = _in_head(lines, line) if text.lstrip().startswith("[") else _in_pair(lines, line)
    words = words or _UNCLOSED.get(said)
    return None if words is None else (line, words)


def _is_open(text: str) -> bool:
    pair = _PAIR.fullmatch(text)
    return pair is not None and _in_value(text) is not None


def _in_head(lines: list[str], line: int) -> str | None:
    """Returns what is wrong with the head of a table."""
    head = _HEAD.match(lines[line - 1])
    if head is None or (head["several"] and not lines[line - 1][head.end() :].startswith("]")):
        return "a head of a table is not closed: [server], or [[upstream]] if there may be several"
    name = head["name"]
    for at in range(1, line):
        other = _HEAD.match(lines[at - 1])
        if other is not None and other["name"] == name and not (head["several"] and other["several"]):
            if head["several"] or other["several"]:
                return f"[{name}] and [[{name}]] stand in one file: lines {at} and {line}; write [[{name}]] for each"
            return f"[{name}] stands twice: lines {at} and {line}"
        pair = _PAIR.match(lines[at - 1])
        if pair is not None and (pair["key"] == name or pair["key"].startswith(f"{name}.")):
            return f"`{name}` stands twice: lines {at} and {line}"
    return None


def _in_pair(lines: list[str], line: int) -> str | None:
    """Returns what is wrong with a line that is no head."""
    text = lines[line - 1]
    pair = _PAIR.fullmatch(text)
    if pair is not None:
        return _in_value(text) or _repeated(lines, line, pair["key"])
    yaml = _YAML.fullmatch(text)
    if yaml is not None:
        return f"a key and its value stand around `=`: {yaml['key']} = {_written((yaml['value'] or '').strip())}"
    words = _WORDS.fullmatch(text.strip())
    if words is not None:
        if "=" in text:
            return "a key with a blank needs quotes"
        return "`=` and a value are missing: `port = 8080`"
    return None


def _repeated(lines: list[str], line: int, key: str) -> str | None:
    """Returns that a key stands twice in its table."""
    for at in range(line - 1, 0, -1):
        if _HEAD.match(lines[at - 1]):
            return None
        other = _PAIR.match(lines[at - 1])
        if other is not None and other["key"] == key:
            return f"`{key}` stands twice: lines {at} and {line}"
    return None


def _in_value(text: str) -> str | None:
    """Returns what is wrong with the value in a line."""
    pair = _PAIR.fullmatch(text)
    if pair is None:
        return None
    key, value = pair["key"], pair["value"].strip()
    bare = value.partition("#")[0].strip()
    if not bare:
        return "a value is missing behind `=`"
    if any(each in value for each in _TYPOGRAPHIC) and bare[0] in _TYPOGRAPHIC:
        return f"these quotes are typographic: {key} = {_TEXT}"
    if bare[0] in "\"'":
        return _in_text(key, bare)
    if bare[0] in "[{":
        return _in_list(bare)
    if bare.lower() in _SWITCHES:
        right = _SWITCHES[bare.lower()]
        return None if bare == right else f"a switch is true or false: {key} = {right}"
    number = _NUMBER.match(bare)
    if number is not None and (number.end() == len(bare) or bare[number.end()] in " \t") and not _DATE.match(bare):
        if number.end() < len(bare):
            return "one key stands in one line, and behind its value only a comment (#)"
        return f"a number does not begin with 0: {key}" if re.match(r"[+-]?0[0-9]", bare) else None
    if _DATE.match(bare):
        return "there is no such day or time: 2030-01-31, or 2030-01-31T18:00:00Z"
    return f"{_QUOTES}: {key} = {_TEXT}"


def _in_text(key: str, value: str) -> str | None:
    quote = value[0]
    if value.startswith(quote * 3):
        return None if value.count(quote * 3) > 1 else f"{_QUOTES}: three at its end, as at its beginning"
    if quote == '"' and "\\" in value:
        return "in \"…\" a \\ begins an escape: write '…', or \\\\"
    end = value.find(quote, 1)
    if end < 0:
        return f"{_QUOTES}: {key} = {_TEXT}"
    return "one key stands in one line, and behind its value only a comment (#)" if value[end + 1 :].strip() else None


def _in_list(value: str) -> str | None:
    if value[0] == "{" and "}" not in value:
        return "a table in braces stands in one line: {a = 1, b = 2}"
    if re.search(r"[\"'][ \t]+[\"']", value):
        return 'a comma is missing between two values: ["a", "b"]'
    if value[0] == "[" and re.search(r"[\[,][ \t]*[A-Za-z]", re.sub(r"\"[^\"]*\"|'[^']*'|true|false", "", value)):
        return f'{_QUOTES}, also in a list: ["a", "b"]'
    if value[0] == "[" and "]" not in value:
        return "a list is not closed: `]` is missing"
    return None


def _written(value: str) -> str:
    """Returns how a value is written; a text without what it says."""
    if value.lower() in _SWITCHES:
        return _SWITCHES[value.lower()]
    return value if _NUMBER.fullmatch(value) and not value.endswith("_") else _TEXT
