"""Markdown pages as tests read them: sections, fenced blocks, tables, and outputs that are compared."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Args:
        section: The heading that it stands under, without its marks.
        language: What follows the opening fence.
        text: Its lines.
        line: The number of its first line in the page.
    """

    section: str
    language: str
    text: str
    line: int


_FENCE: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.S | re.M)
_HEADING: Final = re.compile(r"^#+ (.+)$", re.M)


def read(page: str) -> str:
    """Returns the text of a page, by its path in the repository."""
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(text: str) -> list[Block]:
    """Returns the fenced blocks of a page, in order."""
    fences = list(_FENCE.finditer(text))
    inside = [fence.span() for fence in fences]
    headings = [
        heading
        for heading in _HEADING.finditer(text)
        if not any(begin <= heading.start() < end for begin, end in inside)
    ]
    found = []
    for fence in fences:
        above = [heading[1] for heading in headings if heading.start() < fence.start()]
        line = text.count("\n", 0, fence.start(2)) + 1
        found.append(Block(above[-1] if above else "", fence[1], fence[2], line))
    return found


def section(text: str, heading: str) -> str:
    """Returns the text below a heading, up to the next one of any level."""
    [found] = re.findall(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", _FENCE.sub("", text), re.S | re.M)
    return str(found)


def rows(text: str) -> list[list[str]]:
    """Returns the cells of every row of every table outside blocks, without the lines below table heads."""
    lines = _FENCE.sub("", text).splitlines()
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines if line.startswith("|")]
    return [
        [cell.strip() for cell in row] for row in cells if not all(re.fullmatch(r" *:?-+:? *", cell) for cell in row)
    ]


def coded(cell: str) -> list[str]:
    """Returns the texts in backquotes in a cell of a table."""
    return re.findall(r"`([^`]+)`", cell)


# What differs from run to run, or from client to client.
_CHANGING: Final = (
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}\b"), "REQUEST"),
    (
        re.compile(
            r'("stream_id":"|"id":"|"id":"(?:chat)?cmpl-|^x-gai-stream-id: |^id: )[A-Za-z0-9_-]{22}(?=["\n.])', re.M
        ),
        r"\1ID",
    ),
    (re.compile(r'("(?:ts|created)": ?)[1-9][0-9]+'), r"\g<1>0"),
    (re.compile(r'("(?:input_tokens|output_tokens|total_tokens|prompt_tokens|completion_tokens)":)[0-9]+'), r"\g<1>0"),
    (re.compile(r'("seq":|^id: ID\.)(?:[3-9]|[1-9][0-9]+)\b', re.M), r"\g<1>N"),
)


def settled(text: str) -> str:
    """Returns the text without ids, times and counts."""
    for pattern, instead in _CHANGING:
        text = pattern.sub(instead, text)
    return text.strip("\n")


def matches(shown: str, printed: str) -> bool:
    """Returns whether the output is what the page shows, where `…` stands for anything.

    Of a response head (`curl -i`) the page shows the headers that matter, in any order.
    """
    shown, printed = settled(shown), settled(printed.replace("\r\n", "\n"))
    if shown.startswith("HTTP/"):
        shown_head, _, shown = shown.partition("\n\n")
        head, _, printed = printed.partition("\n\n")
        status, *headers = shown_head.split("\n")
        actual_status, *actual = head.split("\n")
        if status != actual_status or not {*map(_header, headers)} <= {*map(_header, actual)}:
            return False
    pattern = ".*?".join(map(re.escape, shown.strip().split("…")))
    return re.fullmatch(pattern, printed.strip(), re.S) is not None


def _header(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.lower(), value.strip()


_LINK: Final = re.compile(r"\]\([^)]*\)")
_WORD: Final = re.compile(r"[^\s|]*[^\W\d_][^\s|]*")


def words_of(page: str) -> int:
    """Returns the number of words of a page: what has a letter, between blanks or the bars of a table.

    Blocks of code are left out, as are the addresses of links. Code in a sentence counts as the reader reads it.
    """
    return len(_WORD.findall(_LINK.sub("]", _FENCE.sub("", page))))
