"""Whom a limit of an upstream keeps from a target or a key.

One rule for each spelling of a target: an `upstream`, `targets`, one key, a list of keys. Pure policy, as `balance.py`.

1. A limit that names a time (a 429, or a 503) concerns all callers until then.
2. A 429 without a time may be its caller's own doing, such as a prompt above what is left of a minute. For
   `limits.cooling` seconds that caller's requests go to other targets and keys first.
3. Such a limit concerns all callers, for as long, once another caller meets it too, or one caller for
   `limits.limited_alone` seconds; after that, one caller's seconds begin again, so that others' requests are tried. A
   request that is served there ends the count.
4. A request that alone is above the limit says nothing of other requests, with a time too (`is_too_large`).
"""

from __future__ import annotations

import math

from gai_fast.model.errors import Error
from gai_fast.model.upstream_errors import is_too_large
from gai_fast.net.limits import LIMITS


def is_untimed(error: Error) -> bool:
    """Returns whether an upstream's limit names no time: rule 2."""
    return error.code == "rate_limited" and error.retry_after_ms is None and not is_too_large(error)


class Limited:
    """The callers that have met limits without a time, at one target, or at one key for one model."""

    def __init__(self) -> None:
        self._callers: dict[str, float] = {}  # the times until which they are passed over; the oldest first
        self._first = ""  # the caller of the first limit in a row
        self._is_of_several = False
        self._since = self._last = -math.inf  # the first and the last limit in a row

    def note(self, caller: str, now: float) -> bool:
        """Notes a limit without a time.

        Args:
            caller: The name of the request's caller.
            now: Monotonic seconds.

        Returns:
            Whether it concerns all callers: rule 3.
        """
        callers = self._callers
        callers.pop(caller, None)
        callers[caller] = now + LIMITS.cooling
        if len(callers) > LIMITS.limited_callers:
            del callers[next(iter(callers))]
        if self.is_over(now):
            self._first, self._since, self._is_of_several = caller, now, False
        self._last = now
        self._is_of_several = self._is_of_several or caller != self._first
        if self._is_of_several:
            return True
        is_long = now - self._since >= LIMITS.limited_alone
        if is_long:
            self._since = now
        return is_long

    def passes_over(self, caller: str, now: float) -> bool:
        """Returns whether a caller's requests go to others first."""
        return bool(self._callers) and self._callers.get(caller, now) > now

    def served(self) -> None:
        """Notes that a request was served: the next limit is the first in a row."""
        self._last = -math.inf

    def is_over(self, now: float) -> bool:
        """Returns whether the last limit says nothing any more."""
        return now - self._last >= LIMITS.limited_alone
