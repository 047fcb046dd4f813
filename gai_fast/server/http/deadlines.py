"""The times by which a client must have sent or taken bytes. Sets no timer."""

from __future__ import annotations

from typing import Final

from gai_fast.server.limits import LIMITS

LOOKS: Final = 4
"""Looks at a client within its `write_timeout`: one that takes nothing is cut off at most half of it too late, as the
first look only tells what the system holds for it."""


def body_due(began: float, received: int, now: float, timeout: float) -> float:
    """The time by which more of a request's body must come.

    `timeout` runs between two reads. A client that sends a byte just before it ends would hold its connection for
    hours, so the whole body must come with at least `limits.body_rate` besides.

    Args:
        began: Seconds of a monotonic clock when the head was complete.
        received: Bytes of the body that have come.
        now: Seconds of the same clock at the last read.
        timeout: Seconds, the `body_timeout` of the configuration.

    Returns:
        Seconds of the same clock.
    """
    return min(now, began + received / LIMITS.body_rate) + timeout


class WriteProgress:
    """Measures the time in which a client takes none of the bytes written for it."""

    __slots__ = ("_since", "_taken")

    def __init__(self) -> None:
        self._taken = 0
        self._since = 0.0

    def restart(self, written: int, unsent: int, now: float) -> None:
        """Begins to measure: the client's time runs from now on; arguments as for `is_stuck`."""
        self._taken = written - unsent
        self._since = now

    def is_stuck(self, written: int, unsent: int, now: float, timeout: float) -> bool:
        """Whether the client has taken no byte for `timeout` seconds.

        Args:
            written: All bytes written so far.
            unsent: The bytes of them that the client has not taken.
            now: Seconds of a monotonic clock.
            timeout: Seconds, the `write_timeout` of the configuration.
        """
        taken = written - unsent
        if unsent and taken == self._taken:
            return now - self._since >= timeout
        self._taken = taken
        self._since = now
        return False
