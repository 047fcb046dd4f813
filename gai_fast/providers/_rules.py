"""What a provider accepts of a request in its dialect, and what was changed so that it accepts one.

Knows no provider: each has its rules beside its adapter.
"""

from __future__ import annotations

from gai_fast.providers.limits import LIMITS


class Changes:
    """What building an upstream's request left out and changed of the client's request.

    Attributes:
        dropped: The paths of the members that were left out, in order: `seed`, `tools[0].strict`.
        adjusted: What was sent in place of the client's value, as text, by the path of the member: `reasoning.effort`
            to `high`, `messages[2].role` to `user`.
    """

    __slots__ = ("adjusted", "dropped")

    def __init__(self) -> None:
        self.dropped: list[str] = []
        self.adjusted: dict[str, str] = {}

    def drop(self, path: str) -> None:
        """Records a member that is left out; none after `LIMITS.changes` of them."""
        if len(self.dropped) < LIMITS.changes:
            self.dropped.append(path)

    def adjust(self, path: str, sent: str) -> None:
        """Records a member of which another value is sent; none after `LIMITS.changes` of them.

        Args:
            path: The path of the member.
            sent: The value that is sent.
        """
        if len(self.adjusted) < LIMITS.changes:
            self.adjusted[path] = sent
