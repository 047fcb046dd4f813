"""`Paths`: who may ask for which path, as the route table says.

Owns the rule for paths that no route has: such a path needs what the routes need that begin as it does, so that
strangers do not learn which paths there are. All other paths are open. Is made once, from the whole table.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

Access = Literal["open", "key", "admin", "metrics", "login", "login file"]
"""The callers that a route is for: all; callers with a key; admins; readers of the figures.
`login` is a page for those who operate the server, which asks for their key itself, and `login file` is a file of it.
`admit.py` has the rules."""
_FOR_OPERATORS: Final = ("admin", "login", "login file")


class Paths:
    """The access of each path. All paths are those below the prefix of a mount.

    Args:
        routes: The path of each route, whose parameters are in braces, and who may ask for it.

    Attributes:
        keyed: The paths that need a caller's key begin so.
        operated: The first segments of the paths for those who operate the server.
        login: The pages that ask for a key themselves.
        login_files: Their files' paths begin so.
        metrics: The paths of figures.

    Raises:
        ValueError: Routes with the same first segment are not for the same callers.
    """

    def __init__(self, routes: Iterable[tuple[str, Access]]) -> None:
        by_segment: dict[str, str] = {}
        login: list[str] = []
        login_files: list[str] = []
        metrics: list[str] = []
        for path, access in routes:
            segment = _first_segment(path)
            asked_by = "operators" if access in _FOR_OPERATORS else access
            if by_segment.setdefault(segment, asked_by) != asked_by:
                raise ValueError(f"{path}: the routes below {segment} must be for the same callers")
            if access == "login":
                login.append(path)
            elif access == "login file":
                login_files.append(path.partition("{")[0])
            elif access == "metrics":
                metrics.append(path)
        keyed = [segment for segment, asked_by in by_segment.items() if asked_by == "key"]
        others = [segment for segment, asked_by in by_segment.items() if asked_by != "key"]
        self.keyed: tuple[str, ...] = tuple(
            f"{segment}/" if any(other.startswith(segment) for other in others) else segment for segment in keyed
        )
        self.operated: tuple[str, ...] = tuple(
            segment for segment, asked_by in by_segment.items() if asked_by == "operators"
        )
        self.login = frozenset(login)
        self.login_files: tuple[str, ...] = tuple(login_files)
        self.metrics = frozenset(metrics)

    def is_api(self, path: str) -> bool:
        """Returns whether callers need a key for a path, if there are keys.

        Args:
            path: The path.
        """
        return path.startswith(self.keyed)

    def is_for_operators(self, path: str) -> bool:
        """Returns whether a path is for those who operate the server.

        Args:
            path: The path.
        """
        return path.startswith(self.operated) and _first_segment(path) in self.operated


def _first_segment(path: str) -> str:
    return f"/{path.split('/', 2)[1]}"
