"""Decides whether a failed attempt is made again: at the same upstream, at the next model, or not at all.

Owns the rules for retries and fallback, the budgets of retries and the circuit breakers. Reads no clock and opens
nothing: `attempts.py` calls it and acts. A request that does not fail only looks at its upstream's breaker.

1. Every failed attempt counts for the breaker, the budget and the log, whether or not another one follows.
2. The same upstream is retried if the failure may pass: `_RETRIED` below, `internal` once. It is not retried if
   it stayed silent or would fail again (`_will_recur`), nor for a request that is a client's own retry: retries on two
   layers multiply.
3. Retries at an upstream are at most a tenth of its requests of the last seconds, but a few are always allowed: an
   upstream that is down must not get several times the requests of a healthy one. One caller gets at most half of them;
   without keys there is one caller, which is everybody.
4. The next model of `fallback` is asked if another upstream may do better: `_FELL_BACK`. A failure caused by the
   request goes only to the model that `fallback_on` names for its code.
5. `Retry-After` is honoured if the answer can still begin in time; else the next model is asked, if there is one. If
   nothing else is ready, a limit of the upstream is waited for, `wait_for_limit` seconds in all.
"""

from __future__ import annotations

import math
import random
import ssl
from collections import deque
from collections.abc import Container
from dataclasses import dataclass, field
from typing import Final, Literal

from mypy_extensions import mypyc_attr

from gai_fast.model.errors import Code, Error
from gai_fast.model.settings import ANONYMOUS, BreakerSettings, UpstreamSettings
from gai_fast.model.upstream_errors import is_too_large
from gai_fast.net.limits import LIMITS
from gai_fast.runtime.beside import LARGE_REQUESTS

_RETRIED: Final = frozenset[Code](
    {"rate_limited", "overloaded", "timeout", "network", "provider_unavailable", "internal"}
)
_FELL_BACK: Final = _RETRIED | frozenset[Code]({"unauthorized", "forbidden", "not_found", "unsupported"})

_LIMITED: Final = frozenset[Code]({"rate_limited", "overloaded", "provider_unavailable"})
"""Codes of a 429 or 503, whose `Retry-After` concerns a limit."""

_RECURRING: Final = frozenset({"redirect", "forbidden_address"})
"""Reasons that lie in the configuration, ours or the upstream's."""

BREAKER_OPEN: Final = "breaker_open"
"""The reason of a request that a breaker does not admit."""

NO_TOKEN: Final = "upstream_token"
"""The reason of a request that found no token of its upstream's identity."""

REFUSED_IDENTITY: Final = "upstream_credentials"
"""The reason of a request whose upstream refuses the identity that gets its tokens."""

NO_CONNECTION: Final = "upstream_pool"
"""The reason of a failure for which nothing was sent: all connections of the upstream are in use."""

_NOT_ASKED: Final = frozenset({NO_CONNECTION, "total", "descriptors", LARGE_REQUESTS, NO_TOKEN, REFUSED_IDENTITY})

SLOW_CLIENT: Final = "slow_client"
"""The reason of a failure that lies in the client: it reads a shared answer too slowly to find its parts still kept."""

SHARED_CALL: Final = "shared_call"
"""The reason of a failure that lies in the log of a shared call: it ends early, is damaged, or was made room of."""

# Failures of the upstream as a whole; a status of 4xx concerns this request or our account there.
_OF_THE_UPSTREAM: Final = frozenset[Code]({"overloaded", "timeout", "network", "provider_unavailable"})


class Breaker:
    """Keeps requests from an upstream that fails: closed, open for a while, then one request as a probe.

    If no connection could be made, the engine goes on trying to connect, and ends the wait once it can.

    One caller's requests may fail where those of others would not. So the breaker opens after failures of two callers,
    or if one caller's failures last the whole window and no request succeeds. If one caller alone has opened it, or
    that caller's probe has failed, another caller's request is a probe at once. Without keys all requests are of one
    caller.

    Args:
        settings: The conditions under which it opens, and for how long.
    """

    def __init__(self, settings: BreakerSettings) -> None:
        self._settings = settings
        self._failures: deque[float] = deque(maxlen=settings.failures)
        self._since = 0.0  # of the first failure since the last success
        self._caller = ""  # of the last failure
        self._other_at = -math.inf  # of the last failure of any other caller
        self._open_until: float | None = None
        self._probe: object = None
        self._prober: str | None = None  # the only caller whose failures opened it, or whose probe failed

    @property
    def is_closed(self) -> bool:
        """Whether the breaker is closed: all requests are sent."""
        return self._open_until is None

    def admits(self, now: float, who: object, caller: str = ANONYMOUS) -> bool:
        """Returns whether a request may be sent; `succeeded`, `failed` or `abandoned` must follow.

        Args:
            now: Monotonic seconds.
            who: Identifies the request: one from before the breaker opened does not count as its probe.
            caller: The name of its caller.
        """
        if self._open_until is None:
            return True
        is_due = now >= self._open_until or self._prober not in (None, caller)
        if not is_due or self._probe is not None:
            return False
        self._probe = who
        return True

    def refusal(self, upstream: UpstreamSettings, now: float) -> Error:
        """Returns the error for a request that is not admitted."""
        return Error(
            "provider_unavailable",
            f"upstream {upstream.name!r} has failed too often: its breaker is open",
            reason=BREAKER_OPEN,
            retry_after_ms=max(1, round(self.wait(now) * 1000)),
            provider=upstream.provider,
        )

    def state(self, now: float) -> Literal["closed", "probing", "open"]:
        """Returns the state: `probing` if the next request would be the probe, or a probe is under way."""
        if self._open_until is None:
            return "closed"
        return "open" if now < self._open_until else "probing"

    def wait(self, now: float) -> float:
        """Returns the seconds until a request may be sent, as far as that is known; 0: now."""
        if self._open_until is None or (now >= self._open_until and self._probe is None):
            return 0.0
        return max(0.0, self._open_until - now) or LIMITS.retry_first  # unknown while its probe is under way

    def end_wait(self, now: float) -> None:
        """Lets the next request be the probe, though it is not yet time: there is a sign that the upstream is back.

        Args:
            now: Monotonic seconds.
        """
        if self._open_until is not None:
            self._open_until = min(self._open_until, now)

    def answered(self, who: object) -> None:
        """Closes it if the request is the probe: the upstream has begun to answer.

        Args:
            who: Identifies the request, as for `admits`. Its outcome must still follow.
        """
        if self._probe is who:
            self.succeeded()

    def succeeded(self) -> None:
        """Notes a request that got content, or a failure caused by the request alone."""
        if self._open_until is not None or self._failures:
            self._failures.clear()
            self._open_until = self._probe = self._prober = None

    def failed(self, now: float, who: object, caller: str = ANONYMOUS) -> bool:
        """Notes a request that failed through the upstream's fault; returns whether that opened the breaker.

        Args:
            now: Monotonic seconds.
            who: Identifies the request, as for `admits`.
            caller: The name of its caller.
        """
        if self._open_until is None:
            self._count(now, caller)
            if not self._must_open(now):
                return False
            self._prober = None if self._is_of_several(now) else caller
        elif self._probe is not who:
            return False
        else:
            self._prober = None if caller == ANONYMOUS or self._prober not in (None, caller) else caller
        self._open_until, self._probe = now + self._settings.open, None
        return True

    def abandoned(self, who: object) -> None:
        """Notes a request that was dropped before its outcome was known: another one becomes the probe.

        Args:
            who: Identifies the request, as for `admits`.
        """
        if self._probe is who:
            self._probe = None

    def _count(self, now: float, caller: str) -> None:
        if not self._failures:
            self._since, self._other_at = now, -math.inf
        elif caller != self._caller:
            self._other_at = self._failures[-1]
        self._caller = caller
        self._failures.append(now)

    def _must_open(self, now: float) -> bool:
        settings = self._settings
        if len(self._failures) < settings.failures or now - self._failures[0] > settings.window:
            return False
        return self._is_of_several(now) or now - self._since >= settings.window

    def _is_of_several(self, now: float) -> bool:
        return self._caller == ANONYMOUS or now - self._other_at <= self._settings.window


def asks_for_a_pause(error: Error) -> bool:
    """Returns whether a failure is a limit of the upstream that passes, and by when."""
    return error.code in _LIMITED and error.retry_after_ms is not None


_NOT_IMPLEMENTED: Final = 501
"""The status by which an upstream says that it lacks what a request asks for, such as a count of tokens."""


def is_fault_of_upstream(error: Error) -> bool:
    """Returns whether a breaker counts a failure: the upstream caused it, not the request, client or account."""
    if is_local_failure(error) or error.upstream_status == _NOT_IMPLEMENTED:
        return False
    return error.code == "internal" or (error.code in _OF_THE_UPSTREAM and error.is_temporary)


def is_local_failure(error: Error) -> bool:
    """Returns whether a failure is not evidence about the upstream: this process, its store or the client caused it."""
    return error.reason in (SLOW_CLIENT, SHARED_CALL) or _is_not_asked(error)


def _is_not_asked(error: Error) -> bool:
    """Returns whether nothing was sent: a connection (`max_connections`), a descriptor, a token or room was missing."""
    return error.phase == "connect" and error.reason in _NOT_ASKED


def _will_recur(error: Error) -> bool:
    """Returns whether the same upstream can be expected to fail in the same way a second later.

    A certificate or a version that TLS refused is refused again; a handshake that was cut off may succeed. After
    waiting in vain for a connection of a full pool, a retry would only wait again; descriptors are short for as long.
    A request that alone is above a limit stays above it.
    """
    is_tls = isinstance(error.__cause__, ssl.SSLError)
    return error.reason in _RECURRING or is_tls or _is_not_asked(error) or is_too_large(error)


class RetryBudget:
    """Limits retries at one upstream to a share of its requests of the last `limits.retry_window` seconds."""

    def __init__(self) -> None:
        self._tenth_until = -math.inf
        self._requests: deque[list[float]] = deque()  # of each tenth of the window: its beginning, and its requests
        self._retries: deque[tuple[float, str]] = deque()  # their times and callers
        self._of_callers: dict[str, int] = {}  # the retries of each caller

    def request(self, now: float) -> None:
        """Counts a request."""
        requests = self._requests
        if now >= self._tenth_until:
            self._forget(now)
            self._tenth_until = now + LIMITS.retry_window / 10
            requests.append([now, 0])
        requests[-1][1] += 1

    def take(self, now: float, caller: str = ANONYMOUS) -> bool:
        """Counts a retry, and returns whether it is allowed.

        Args:
            now: Monotonic seconds.
            caller: The name of its caller, who gets at most half of all.
        """
        self._forget(now)
        requests = sum(count for _, count in self._requests)
        most, own = max(LIMITS.retry_floor, requests * LIMITS.retry_share), self._of_callers.get(caller, 0)
        if len(self._retries) + 1 > most or (caller != ANONYMOUS and own + 1 > most / 2):
            return False
        self._retries.append((now, caller))
        self._of_callers[caller] = own + 1
        return True

    def _forget(self, now: float) -> None:
        while self._requests and now - self._requests[0][0] >= LIMITS.retry_window:
            self._requests.popleft()
        while self._retries and now - self._retries[0][0] >= LIMITS.retry_window:
            _, caller = self._retries.popleft()
            self._of_callers[caller] -= 1
            if not self._of_callers[caller]:
                del self._of_callers[caller]


@dataclass(frozen=True, slots=True)
class AttemptFailure:
    """One attempt that failed.

    Args:
        error: The failure.
        is_silence: The upstream sent nothing of an answer within its time limit.
        attempts: Attempts at this model so far, this one included.
        retries: The number of retries that the upstream allows.
        seconds_to_commit: The time that the response head may still be held.
        is_clients_retry: The request is marked as a retry of the client's.
        upstream: The name of the upstream, whose budget counts.
        caller: The name of the request's caller.
    """

    error: Error
    is_silence: bool
    attempts: int
    retries: int
    seconds_to_commit: float
    is_clients_retry: bool
    upstream: str = ""
    caller: str = ANONYMOUS


@dataclass(frozen=True, slots=True)
class RetryVerdict:
    """The decision about a failure.

    Args:
        action: `again`: the same upstream is retried after `delay` seconds; `next`: the next model is asked at once;
            `end`: the stream ends, unless `fallback_on` names a model for the failure.
        delay: Seconds.
    """

    action: Literal["again", "next", "end"]
    delay: float = 0.0


_NEXT: Final = RetryVerdict("next")
END: Final = RetryVerdict("end")


@mypyc_attr(allow_interpreted_subclasses=True)
@dataclass(slots=True)
class RetryPolicy:
    """Decides on failures; all streams of a process share one, since they share the budgets.

    Args:
        budgets: The budgets of retries, by upstream.
        chance: Random numbers in [0, 1), for jitter.
    """

    budgets: dict[str, RetryBudget] = field(default_factory=dict)
    chance: random.Random = field(default_factory=random.Random)

    def budget(self, upstream: str) -> RetryBudget:
        """Returns the budget of an upstream.

        Args:
            upstream: The upstream's name.
        """
        budget = self.budgets.get(upstream)
        if budget is None:
            budget = self.budgets[upstream] = RetryBudget()
        return budget

    def keep(self, upstreams: Container[str]) -> None:
        """Drops the budgets of all upstreams but these.

        Args:
            upstreams: The names of the upstreams of a configuration.
        """
        self.budgets = {name: budget for name, budget in self.budgets.items() if name in upstreams}

    def decide(self, failure: AttemptFailure, now: float) -> RetryVerdict:
        """Decides on a failure; a retry counts against the budget.

        Args:
            failure: The failure.
            now: Monotonic seconds.
        """
        if failure.error.code not in _FELL_BACK:
            return END
        if not _may_be_retried(failure):
            return _NEXT
        delay = self._delay(failure)
        if delay is None or not self._may_take(failure, now):
            return _NEXT
        return RetryVerdict("again", delay)

    def wait(self, failure: AttemptFailure, most: float, now: float) -> float | None:
        """Returns the seconds until a retry that a limit of the upstream delays. None if there is no retry.

        Called if no other upstream can be asked; the retry counts against the budget.

        Args:
            failure: The failure.
            most: The longest wait.
            now: Monotonic seconds.
        """
        asked = failure.error.retry_after_ms
        if asked is None or not 0 < asked <= most * 1000 or failure.error.code not in _LIMITED:
            return None
        if not _may_be_retried(failure) or not self._may_take(failure, now):
            return None
        return min(asked / 1000 * (1 + LIMITS.retry_jitter * self.chance.random()), most)

    def _may_take(self, failure: AttemptFailure, now: float) -> bool:
        return self.budget(failure.upstream).take(now, failure.caller)

    def _delay(self, failure: AttemptFailure) -> float | None:
        """Returns the seconds until the retry. None if the upstream asks for more than the client's wait."""
        asked = failure.error.retry_after_ms
        if asked is not None and asked > 0:
            # Never earlier than asked, and spread: requests that were refused together must not come back together.
            most, delay = failure.seconds_to_commit, asked / 1000
            return min(delay * (1 + LIMITS.retry_jitter * self.chance.random()), most) if delay <= most else None
        delay = min(LIMITS.retry_first * 2.0 ** (failure.attempts - 1), LIMITS.retry_most)
        return delay * (1 - LIMITS.retry_jitter * self.chance.random())


def _may_be_retried(failure: AttemptFailure) -> bool:
    """Returns whether the same upstream may be asked again: rule 2."""
    error = failure.error
    most = min(failure.retries, 1) if error.code == "internal" else failure.retries
    may_pass = (error.code in _RETRIED and error.is_temporary) or error.code == "internal"
    is_refused = failure.is_silence or failure.is_clients_retry or failure.attempts > most
    return may_pass and not _will_recur(error) and not is_refused
