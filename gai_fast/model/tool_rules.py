"""Which tools may be used: by a model, by a caller, in a request. Patterns name tools; nothing is listed for it.

1. A pattern is `<server>.<tool>` or the name of a tool of the gateway's own; `*`, `?` and `[]` are special in each part
   (`fnmatch`). The first dot divides: labels of servers have none. `*` alone is all tools.
2. A request may use what all lists of patterns name that hold for it. Whether any tool is left is known before a
   server is asked: each list names something of the same server, or the same tool of the gateway's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Final

from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.model.request import Request

_ALL: Final = "*"
BETWEEN: Final = "__"
"""What stands between the names of a server and of its tool for a model."""
OWN_LABEL: Final = "gateway"
"""The label of the gateway's own tools, which have no server."""


def server_and_name(address: str) -> tuple[str, str]:
    """Returns the label of a tool's server, empty for the gateway's own, and the tool's name there.

    Names of tools at a server may have dots (MCP, "Tool Names"); labels and names of own tools have none.

    Args:
        address: `<server>.<tool>`, or the name of a tool of the gateway's own.
    """
    label, dot, name = address.partition(".")
    return (label, name) if dot else ("", address)


class ToolPatterns:
    """One list of patterns, read once: a request may compare 128 of them with thousands of tools.

    Args:
        patterns: The patterns; none name nothing.
    """

    __slots__ = ("_labels", "_own", "_servers")

    def __init__(self, patterns: Iterable[str]) -> None:
        servers: dict[str, list[str]] = {}
        own: list[str] = []
        for pattern in patterns:
            label, dot, name = pattern.partition(".")
            if dot:
                servers.setdefault(label, []).append(name)
            else:
                own.append(pattern)
            if pattern == _ALL:
                servers.setdefault(_ALL, []).append(_ALL)
        self._own = NamePatterns(own)
        self._labels = NamePatterns(servers)
        self._servers = [(NamePatterns([label]), NamePatterns(names)) for label, names in servers.items()]

    def __contains__(self, address: str) -> bool:
        """Returns whether a tool is named.

        Args:
            address: `<server>.<tool>`, or the name of a tool of the gateway's own.
        """
        label, name = server_and_name(address)
        if not label:
            return address in self._own
        return any(label in labels and name in names for labels, names in self._servers)

    def may_name(self, server: str) -> bool:
        """Returns whether a tool of a server may be named: what it offers is not known yet."""
        return server in self._labels


class NamePatterns:
    """Patterns of names, as `fnmatchcase` has them. Those of names and `*` alone need no regular expression.

    Args:
        patterns: The patterns.
    """

    __slots__ = ("_exact", "_others", "_pieces")

    def __init__(self, patterns: Iterable[str]) -> None:
        exact: set[str] = set()
        self._pieces: list[list[str]] = []
        self._others: list[str] = []
        for pattern in patterns:
            pieces = _pieces_of(pattern)
            if pieces is None:
                self._others.append(pattern)
            elif len(pieces) == 1:
                exact.add(pieces[0])
            else:
                self._pieces.append(pieces)
        self._exact = frozenset(exact)

    def __contains__(self, name: str) -> bool:
        """Returns whether a pattern fits a name."""
        return (
            name in self._exact
            or any(_fits(name, each) for each in self._pieces)
            or any(fnmatchcase(name, each) for each in self._others)
        )


_WORDS: Final = re.compile(r"\[([^\]!])\]|(\*)|([^*?\[]+)")


def _pieces_of(pattern: str) -> list[str] | None:
    """Returns the texts around the stars of a pattern. None if it has `?`, or several characters in brackets."""
    pieces, at = [""], 0
    while at < len(pattern):
        word = _WORDS.match(pattern, at)
        if word is None:
            return None
        at = word.end()
        if word[2]:
            pieces.append("")
        else:
            pieces[-1] += word[1] or word[3]
    return pieces


def _fits(name: str, pieces: list[str]) -> bool:
    at, end = len(pieces[0]), len(name) - len(pieces[-1])
    if at > end or not name.startswith(pieces[0]) or not name.endswith(pieces[-1]):
        return False
    for piece in pieces[1:-1]:
        found = name.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True


class AllowedTools:
    """What a request may use: rule 2.

    Args:
        lists: The lists that hold: the model's, the key's, the request's.
    """

    __slots__ = ("_lists",)

    def __init__(self, lists: Sequence[ToolPatterns]) -> None:
        self._lists = tuple(lists)

    def __contains__(self, address: str) -> bool:
        """Returns whether a tool may be used; `address` as for `ToolPatterns`."""
        return bool(self._lists) and all(address in each for each in self._lists)

    def servers(self, labels: Iterable[str]) -> list[str]:
        """Returns the servers of which a tool may be used.

        Args:
            labels: The servers of the configuration.
        """
        return [label for label in labels if self._lists and all(each.may_name(label) for each in self._lists)]

    def own(self, names: Iterable[str]) -> list[str]:
        """Returns the tools of the gateway's own that may be used.

        Args:
            names: Those of the configuration.
        """
        return [name for name in names if name in self]


def no_such_tool(pattern: str, why: str) -> Error:
    """Returns the refusal of a pattern that names nothing that its request may use.

    Args:
        pattern: The pattern.
        why: The reason.
    """
    text = f"{pattern[: SHARED.tool_pattern]!r} names no tool of the gateway that this request may use: {why}"
    return Error("invalid_request", text, reason="tools")


def as_plain_request(request: Request) -> Request:
    """Returns a request that is no run, without what it says of the gateway's tools.

    Raises:
        Error: It names some, and may use none.
    """
    if request.gateway_tools:
        raise no_such_tool(request.gateway_tools[0], "the gateway has no tools")
    return request.without_run_members()
