"""The times by which a client must have sent or read bytes. Sets no timer."""

from __future__ import annotations

from typing import Final

from gai_fast.server.limits import LIMITS

CHECKS_PER_TIMEOUT: Final = 4
"""The number of checks within a client's `write_timeout`. A client that reads nothing is disconnected at most half a
`write_timeout` late, because the first check only records how much the system holds for it."""


def body_due(began: float, received: int, now: float, timeout: float) -> float:
    """Returns the time by which more of a request's body must arrive.

    `timeout` applies between two reads. A client that sends a byte just before each timeout would hold its connection
    for hours, so the whole body must also arrive at `limits.body_rate` or faster.

    Args:
        began: When the headers were complete, in seconds of a monotonic clock.
        received: The number of received bytes of the body.
        now: When the body was last read, in seconds of that clock.
        timeout: The `body_timeout` of the configuration, in seconds.

    Returns:
        The time, in seconds of that clock.
    """
    return min(now, began + received / LIMITS.body_rate) + timeout


class WriteProgress:
    """Measures how long a client has read none of the bytes written to it."""

    def __init__(self) -> None:
        self._taken = 0
        self._since = 0.0

    def restart(self, written: int, unsent: int, now: float) -> None:
        """Restarts the measurement at `now`; the arguments are those of `is_stuck`."""
        self._taken = written - unsent
        self._since = now

    def is_stuck(self, written: int, unsent: int, now: float, timeout: float) -> bool:
        """Returns whether the client has read no byte for `timeout` seconds.

        Args:
            written: The number of all bytes written so far.
            unsent: The number of those that the client has not read.
            now: Seconds of a monotonic clock.
            timeout: The `write_timeout` of the configuration, in seconds.
        """
        taken = written - unsent
        if unsent and taken == self._taken:
            return now - self._since >= timeout
        self._taken = taken
        self._since = now
        return False
