"""The names of tools for models. Sans-IO.

1. The tool `search` of the server `docs` is `docs__search`; a tool of the gateway's own keeps its name.
2. Other characters than those that every provider takes become `_`.
3. A name of more than 64 characters is cut; its last eight are the beginning of the SHA-256 of the whole name.
4. Tools whose names become the same are left out, all of them: a call must not mean another tool than it seems to.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Final, Protocol, TypeVar

from gai_fast.model.limits import SHARED
from gai_fast.model.tool_rules import BETWEEN
from gai_fast.net.tools.limits import LIMITS

_OTHER: Final = re.compile(r"[^A-Za-z0-9_-]")
_MOST: Final = SHARED.model_tool_name
_DIGITS: Final = LIMITS.name_digits


class ServedTool(Protocol):
    """A tool as far as its name is concerned."""

    @property
    def server(self) -> str:
        """The label of its server; empty for one of the gateway's own."""

    @property
    def name(self) -> str:
        """Its name there."""


_Tool = TypeVar("_Tool", bound=ServedTool)


def model_name(server: str, name: str) -> str:
    """Returns the name that a model sees.

    Args:
        server: The label of the tool's server; empty for one of the gateway's own.
        name: The tool's name there.
    """
    whole = f"{server}{BETWEEN}{name}" if server else name
    shown = _OTHER.sub("_", whole)
    if len(shown) <= _MOST:
        return shown
    return shown[: _MOST - _DIGITS] + sha256(whole.encode("utf-8", "replace")).hexdigest()[:_DIGITS]


def by_model_name(tools: Iterable[_Tool]) -> tuple[Mapping[str, _Tool], list[_Tool]]:
    """Returns tools by the names that a model sees, sorted by these, and those that are left out: rule 4."""
    named = [(model_name(each.server, each.name), each) for each in tools]
    counts = Counter(name for name, _ in named)
    kept = {name: each for name, each in sorted(named, key=lambda item: item[0]) if counts[name] == 1}
    return kept, [each for name, each in named if counts[name] > 1]
