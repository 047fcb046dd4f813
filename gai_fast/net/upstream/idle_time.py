"""The time for which an upstream keeps an idle connection: `IdleTime`.

If a request is written while the peer closes the connection, the request may be lost, and a POST must not be sent
twice. So a connection is retired before its peer closes it: before the time in `Keep-Alive` (RFC 2068, 19.7.1.1), else
before the idle time after which this peer has closed an earlier connection.
"""

from __future__ import annotations

import re
from typing import Final

from gai_fast.net.limits import LIMITS

_TIMEOUT: Final = re.compile(r"(?:^|[,;\s])timeout\s*=\s*\"?([0-9]{1,9})", re.I)
_MARGIN: Final = 1.0  # seconds for the network and until a timer fires; undici uses the same value
_SEEN: Final = 0.9  # share of the observed time: the next connection may be closed a little earlier
_RISE: Final = 1.25
_MOST: Final = LIMITS.pool_idle  # a constant, because every response uses it


def keep_alive_timeout(header: str | None) -> float | None:
    """Returns the seconds in a `Keep-Alive` header. None if it gives no time."""
    found = None if header is None else _TIMEOUT.search(header)
    return None if found is None else float(found[1])


class IdleTime:
    """The time for which idle connections to one upstream are kept.

    Attributes:
        limit: Seconds.
    """

    def __init__(self) -> None:
        self._from_header = self._seen = self.limit = LIMITS.pool_idle

    def note_header(self, seconds: float | None) -> bool:
        """Notes the time in a response's `Keep-Alive` header; returns whether the header's time has changed.

        Args:
            seconds: The time. None if the response gave no time.
        """
        limit = _MOST if seconds is None else max(seconds - _MARGIN, seconds / 2)
        if limit == self._from_header:
            return False
        self._from_header = limit
        self._set()
        return True

    def ended(self, age: float) -> None:
        """Notes that the upstream closed a connection.

        Args:
            age: Seconds that the connection had been idle. Low ages are ignored: an upstream that restarts also closes
                connections that are young.
        """
        if age >= LIMITS.pool_idle_least:
            self._seen = min(self._seen, max(_SEEN * age, LIMITS.pool_idle_least))
            self._set()

    def outlived(self) -> None:
        """Notes that a connection was still open when it was retired, so that the next is kept longer."""
        if self._seen < self._from_header:
            self._seen = min(self._seen * _RISE, LIMITS.pool_idle)
            self._set()

    def _set(self) -> None:
        self.limit = min(self._from_header, self._seen, LIMITS.pool_idle)
