"""The time for which an upstream keeps an idle connection: `IdleTime`.

A request that meets a connection which its peer is closing may be lost, and a POST must not be sent twice. So a
connection is retired before its peer closes it: before the time that `Keep-Alive` names (RFC 2068, 19.7.1.1), else
before the time after which this peer was seen to close one.
"""

from __future__ import annotations

import re
from typing import Final

from gai_fast.model.limits import LIMITS

_TIMEOUT: Final = re.compile(r"(?:^|[,;\s])timeout\s*=\s*\"?([0-9]{1,9})", re.I)
_MARGIN: Final = 1.0  # seconds on the way and until a timer fires; undici takes the same
_SEEN: Final = 0.9  # the part of a time after which a connection was closed: the next may be closed a little earlier
_RISE: Final = 1.25
_MOST: Final = LIMITS.pool_idle  # a constant, because every answer asks


def keep_alive_timeout(header: str | None) -> float | None:
    """The seconds that a `Keep-Alive` header names; `None`: it names none."""
    found = None if header is None else _TIMEOUT.search(header)
    return None if found is None else float(found[1])


class IdleTime:
    """The time for which idle connections to one upstream are kept.

    Attributes:
        limit: Seconds.
    """

    __slots__ = ("_seen", "_told", "limit")

    def __init__(self) -> None:
        self._told = self._seen = self.limit = LIMITS.pool_idle

    def told(self, seconds: float | None) -> bool:
        """Takes the time in the header of an answer; returns whether the limit has changed.

        Args:
            seconds: The time; `None`: the answer names none.
        """
        told = _MOST if seconds is None else max(seconds - _MARGIN, seconds / 2)
        if told == self._told:
            return False
        self._told = told
        self._set()
        return True

    def ended(self, age: float) -> None:
        """Notes that the upstream closed a connection.

        Args:
            age: The seconds that it had been idle. An upstream that restarts closes young ones, too: those teach
                nothing.
        """
        if age >= LIMITS.pool_idle_least:
            self._seen = min(self._seen, max(_SEEN * age, LIMITS.pool_idle_least))
            self._set()

    def outlived(self) -> None:
        """Notes that a connection was still open when it was retired: the next may be kept longer."""
        if self._seen < self._told:
            self._seen = min(self._seen * _RISE, LIMITS.pool_idle)
            self._set()

    def _set(self) -> None:
        self.limit = min(self._told, self._seen, LIMITS.pool_idle)
