"""The reads of a key: what is kept of its responses, and the admin's lists. They cost no upstream, but a worker.

1. A key has ten times as many reads a minute as requests, `limits.reads` if it has no such limit. Without keys there is
   no limit.
2. In the ledger they are the requests of another caller. So all who share the limits of the key share its reads.
3. While the ledger is out of reach, a read is admitted or refused as a request of the key: it has no limits, or
   `limits_on_failure` decides.
4. Following and resuming a stream is no read.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, MutableMapping
from typing import Final, TypeVar

from gai_fast.ledger import Ledger
from gai_fast.model.errors import Error, Overloaded, RateLimited
from gai_fast.model.settings import KeyLimits, KeySettings
from gai_fast.runtime.ids import new_stream_id
from gai_fast.runtime.refusal_log import RefusalLog
from gai_fast.server.limits import LIMITS

REASON: Final = "reads"
_TIMES: Final = 10
"""Reads for each request."""
_T = TypeVar("_T")


class Reads:
    """Counts the reads of all keys.

    Args:
        ledger: The ledger of the keys.
        refused: Has the number of refusals, by `REASON`.
    """

    def __init__(self, ledger: Ledger, refused: MutableMapping[str, int]) -> None:
        self._ledger = ledger
        self._refused = refused
        self._log = RefusalLog(logging.getLogger("gai_fast.limits"))

    async def take(self, key: KeySettings, answer: Callable[[], _T]) -> _T:
        """Counts a read, and answers it.

        Args:
            key: The caller's.
            answer: Returns the answer.

        Raises:
            RateLimited: The key has no read left.
            Overloaded: As `Ledger.try_take`.
        """
        reader, place_id = reader_of(key), new_stream_id()
        try:
            await self._ledger.take(reader, place_id)
        except RateLimited as full:
            raise self._refusal(key.name, reader.limits.requests_per_minute, full) from None
        except Overloaded:
            if self._ledger.caps(key) is not None:  # rule 3
                raise
        self._ledger.settle(place_id, 0)
        return answer()

    def _refusal(self, caller: str, limit: int | None, full: Error) -> Error:
        text = f"this key has read what is kept, or lists, as often as it may in a minute ({limit} times): ask later"
        self._refused[REASON] += 1
        self._log.note(REASON, text, caller)
        return Error("rate_limited", text, reason=REASON, retry_after_ms=full.retry_after_ms)


def reader_of(key: KeySettings) -> KeySettings:
    """Returns the caller of the ledger that the reads of a key count for. Names of callers begin otherwise."""
    reads = (key.limits.requests_per_minute or 0) * _TIMES or LIMITS.reads
    return KeySettings(f"[{REASON}] {key.name}", (), limits=KeyLimits(requests_per_minute=reads))
