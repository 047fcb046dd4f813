"""Whether a failed attempt is made again: where, and when.

Owns the rules for retries and fallback, the budget of retries and the circuit breakers. Reads no clock and opens
nothing: `session.py` asks, and does what it is told. Nothing here runs in a request that does not fail, but one look at
its upstream's breaker.

1. Only what failed before its first content is made again; what became of the attempts before is never hidden from the
   breaker, the budget and the log.
2. The same upstream is asked again where the failure may pass: `_RETRIED` below, `internal` once. It is not asked again
   where it stayed silent, nor for a request that is a client's own retry: retries on two layers multiply.
3. Retries are at most a tenth of the requests of the last seconds, but a few are always allowed: an upstream that is
   down is not asked several times as much as one that is up.
4. The next model of `fallback` is asked where another upstream may do better: `_FELL_BACK`. What speaks of the request
   itself goes nowhere else, but to the model that `fallback_on` names for its code.
5. `Retry-After` is honoured where the answer can still begin in time, else the next model is asked, or nobody.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from typing import Final, Literal

from gai_fast.errors import Code, Error
from gai_fast.limits import LIMITS
from gai_fast.settings import BreakerSettings

_RETRIED: Final = frozenset[Code](
    {"rate_limited", "overloaded", "timeout", "network", "provider_unavailable", "internal"}
)
_FELL_BACK: Final = _RETRIED | frozenset[Code]({"unauthorized", "forbidden", "not_found", "unsupported"})

# Of the upstream as a whole; what a status of 4xx says is of this request or of our account there.
_OF_THE_UPSTREAM: Final = frozenset[Code]({"overloaded", "timeout", "network", "provider_unavailable"})


class Breaker:
    """Keeps requests from an upstream that fails: closed, open for a while, then one request as a probe.

    Args:
        settings: When it opens, and for how long.
    """

    __slots__ = ("_failures", "_is_probing", "_open_until", "_settings")

    def __init__(self, settings: BreakerSettings) -> None:
        self._settings = settings
        self._failures: deque[float] = deque(maxlen=settings.failures)
        self._open_until: float | None = None
        self._is_probing = False

    def admits(self, now: float) -> bool:
        """Whether a request may be sent; where it answers as the probe, its end must be told.

        Args:
            now: Monotonic seconds.
        """
        if self._open_until is None:
            return True
        if now < self._open_until or self._is_probing:
            return False
        self._is_probing = True
        return True

    def seconds_left(self, now: float) -> float:
        """How long it stays open."""
        return 0.0 if self._open_until is None else max(0.0, self._open_until - now)

    def succeeded(self) -> None:
        """A request got content, or an answer that speaks of the request alone."""
        if self._open_until is not None or self._failures:
            self._failures.clear()
            self._open_until = None
            self._is_probing = False

    def failed(self, now: float) -> bool:
        """A request failed for the upstream's fault; tells whether that opened the breaker.

        Args:
            now: Monotonic seconds.
        """
        self._failures.append(now)
        is_probe, self._is_probing = self._is_probing, False
        oldest = self._failures[0]
        is_full = len(self._failures) == self._settings.failures and now - oldest <= self._settings.window
        if is_probe or (is_full and self._open_until is None):
            self._open_until = now + self._settings.open
            return True
        return False

    def left(self) -> None:
        """A request went away before anything was known: a probe is made anew."""
        self._is_probing = False


def is_fault_of_upstream(error: Error) -> bool:
    """Whether a breaker counts a failure: it speaks of the upstream, not of the request nor of our account there."""
    return error.code == "internal" or (error.code in _OF_THE_UPSTREAM and error.is_temporary)


class RetryBudget:
    """How many retries there may be, counted over the last `limits.retry_window` seconds."""

    __slots__ = ("_before", "_began", "_now")

    def __init__(self) -> None:
        # Two counters, of this window and of the one before: what lies between is weighed by time.
        self._now = [0, 0]
        self._before = [0, 0]
        self._began = 0.0

    def request(self, now: float) -> None:
        """Counts a request."""
        self._turn(now)
        self._now[0] += 1

    def take(self, now: float) -> bool:
        """Counts a retry where there may be one."""
        self._turn(now)
        share = max(0.0, 1.0 - (now - self._began) / LIMITS.retry_window)
        requests = self._now[0] + share * self._before[0]
        retries = self._now[1] + share * self._before[1]
        if retries + 1 > max(LIMITS.retry_floor, requests * LIMITS.retry_share):
            return False
        self._now[1] += 1
        return True

    def _turn(self, now: float) -> None:
        passed = now - self._began
        if passed >= LIMITS.retry_window:
            self._before = self._now if passed < 2 * LIMITS.retry_window else [0, 0]
            self._now = [0, 0]
            self._began = now if passed >= 2 * LIMITS.retry_window else self._began + LIMITS.retry_window


@dataclass(frozen=True, slots=True)
class Failure:
    """One attempt that failed before its first content.

    Args:
        error: What with.
        is_silence: The upstream said nothing for as long as it may.
        attempts: Attempts at this model so far, this one included.
        retries: How many more than one there may be.
        seconds_to_commit: How long the head may still be held.
        is_clients_retry: The request says that it is a retry itself.
    """

    error: Error
    is_silence: bool
    attempts: int
    retries: int
    seconds_to_commit: float
    is_clients_retry: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is done about a failure.

    Args:
        action: `again`: the same upstream is asked after `delay` seconds; `next`: the next model is, at once; `end`.
        delay: Seconds.
    """

    action: Literal["again", "next", "end"]
    delay: float = 0.0


_NEXT: Final = Verdict("next")
_END: Final = Verdict("end")


@dataclass(slots=True)
class RetryPolicy:
    """Decides about failures; one for all streams of a process, since the budget is one.

    Args:
        budget: Of all requests.
        chance: Random numbers in [0, 1), for jitter.
    """

    budget: RetryBudget = field(default_factory=RetryBudget)
    chance: random.Random = field(default_factory=random.Random)

    def decide(self, failure: Failure, now: float) -> Verdict:
        """What is done about a failure; where that is a retry it counts against the budget.

        Args:
            failure: The failure.
            now: Monotonic seconds.
        """
        error = failure.error
        if error.code not in _FELL_BACK:
            return _END
        most = min(failure.retries, 1) if error.code == "internal" else failure.retries
        may_pass = (error.code in _RETRIED and error.is_temporary) or error.code == "internal"
        if not may_pass or failure.is_silence or failure.is_clients_retry or failure.attempts > most:
            return _NEXT
        delay = self._delay(failure)
        if delay is None or not self.budget.take(now):
            return _NEXT
        return Verdict("again", delay)

    def _delay(self, failure: Failure) -> float | None:
        """Seconds until the next attempt; `None`: the upstream wants more than the client can be kept waiting."""
        asked = failure.error.retry_after_ms
        if asked is not None and asked > 0:
            # Never earlier than asked: all that were refused at once must not come back at once.
            delay = asked / 1000 * (1 + LIMITS.retry_jitter * self.chance.random())
            return delay if delay <= failure.seconds_to_commit else None
        delay = min(LIMITS.retry_first * 2.0 ** (failure.attempts - 1), LIMITS.retry_most)
        return delay * (1 - LIMITS.retry_jitter * self.chance.random())
