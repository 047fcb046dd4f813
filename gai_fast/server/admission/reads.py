"""The reads of a key: what is kept of its responses, and the admin's lists. They cost no upstream, but this worker.

1. A key has ten times as many reads a minute as requests, `limits.reads` if it has no such limit. All may be made at
   once, and come back evenly, as its requests do. Without keys there is no limit.
2. Each worker counts for itself: a read is answered by the worker that it burdens, and asks no other process.
3. Following and resuming a stream is no read.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, MutableMapping
from typing import Final

from gai_fast.ledger._base import SLACK
from gai_fast.ledger.state import Rate
from gai_fast.model.errors import Error
from gai_fast.model.settings import RATE_LIMITS, KeySettings
from gai_fast.runtime.refusal_log import RefusalLog
from gai_fast.server.limits import LIMITS

REASON: Final = "reads"
_TIMES: Final = 10
"""Reads for each request."""


class Reads:
    """Counts the reads of all keys in one worker.

    Args:
        refused: Has the number of refusals, by `REASON`.
        clock: Monotonic seconds.
    """

    def __init__(self, refused: MutableMapping[str, int], clock: Callable[[], float] = time.monotonic) -> None:
        self._refused = refused
        self._clock = clock
        self._rates: dict[str, Rate] = {}  # by key
        self._log = RefusalLog(logging.getLogger("gai_fast.limits"), clock)

    def take(self, key: KeySettings | None) -> None:
        """Counts a read.

        Args:
            key: The caller's. None if it has none.

        Raises:
            RateLimited: The key has none left.
        """
        if key is None:
            return
        now = self._clock()
        limit = (key.limits.requests_per_minute or 0) * _TIMES or LIMITS.reads
        rate = self._rates.get(key.name)
        if rate is None:
            self._forget(now)
            rate = self._rates[key.name] = Rate(RATE_LIMITS[0])
        rate.use(limit, now)
        over = rate.used(now) + 1 - limit
        if over > SLACK:
            raise self._refusal(key.name, limit, over * rate.window / limit)
        rate.add(1, now)

    def _forget(self, now: float) -> None:
        """Makes room for another key: callers of an issuer may be any number."""
        if len(self._rates) < LIMITS.reading_keys:
            return
        self._rates = {name: rate for name, rate in self._rates.items() if rate.tat > now}
        while len(self._rates) >= LIMITS.reading_keys:
            del self._rates[next(iter(self._rates))]

    def _refusal(self, caller: str, limit: int, wait: float) -> Error:
        text = f"this key has read what is kept, or lists, as often as it may in a minute ({limit} times)"
        self._refused[REASON] += 1
        self._log.note(REASON, text, caller)
        return Error("rate_limited", text, reason=REASON, retry_after_ms=max(1, math.ceil(wait * 1e3)))
