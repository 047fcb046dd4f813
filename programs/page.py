"""programs/README.md: the configuration of the gateway, and of each program how it is installed and what is pasted."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PAGE: Final = Path(__file__).parent / "README.md"
ADDRESS: Final = "http://127.0.0.1:8080"
"""The gateway's address on the page, the one thing that a run replaces."""
KEY: Final = "my-gateway-key"
"""The caller's key on the page."""
PROVIDER: Final = 'provider = "openai"\n'
"""The line of the page's configuration in whose place a run puts the scripted upstream."""

_SECTION: Final = re.compile(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", re.S | re.M)
_FENCE: Final = re.compile(r"^```(\w+)\n(.*?)^```$", re.S | re.M)
_INSTALLS: Final = re.compile(r"(pip|npm) install ")


class Unreadable(ValueError):
    """The page is not as it has to be; says where."""


@dataclass(frozen=True)
class Block:
    """A block to paste.

    Args:
        language: `python`, `js` or `bash`.
        text: Its lines.
    """

    language: str
    text: str

    @property
    def is_of_ours(self) -> bool:
        """Whether it asks a route that no provider has, so that it cannot be run without the gateway."""
        return f"{ADDRESS}/api/" in self.text


@dataclass(frozen=True)
class Program:
    """One program.

    Args:
        name: The heading of its section.
        install: The command that installs it.
        text: Asks for a text.
        tool: Makes a tool round trip.
    """

    name: str
    install: str
    text: Block
    tool: Block


def configuration(page: str) -> str:
    """The gateway's configuration.

    Raises:
        Unreadable: The page has none, or another one than a run can replace the upstream in.
    """
    found = [text for language, text in _FENCE.findall(page) if language == "toml"]
    if len(found) != 1 or found[0].count(PROVIDER) != 1:
        raise Unreadable(f"the page has to have one configuration, with one line {PROVIDER!r}")
    return str(found[0])


def programs(page: str) -> list[Program]:
    """The programs, in order. Each line of an install block is a program: the same blocks are run with each.

    Raises:
        Unreadable: A section is not an install block, a text block and a tool block.
    """
    found = []
    for heading, content in _SECTION.findall(page):
        installs, *blocks = [Block(*fence) for fence in _FENCE.findall(content)] or [Block("", "")]
        lines = installs.text.splitlines()
        if len(blocks) != 2 or not lines or not all(map(_INSTALLS.match, lines)):
            raise Unreadable(f"{heading}: a section has an install block, a block for a text and one for a tool")
        for block in blocks:
            if ADDRESS not in block.text or block.language not in ("python", "js", "bash"):
                raise Unreadable(f"{heading}: a block is python, js or bash, and names {ADDRESS}")
        found += [Program(heading, line, *blocks) for line in lines]
    return found
