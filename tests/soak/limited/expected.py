"""The decisions that limits of keys must have made, by the times and figures of the callers and the upstream.

Of the gateway's own data only the times at which answers ended are used. The gateway decides on a request at some
moment between its sending and the head of its answer, before the upstream gets it. A limit of streams or of spend has
been exceeded, or a request refused for nothing, only where that holds whichever moment it was; where it depends on the
moment, the request is *open*, and counted as such. So it is where the decision itself took longer than docs/limits.md
promises anything for, or the store stood still. A limit a minute is simulated with the earliest and with the latest
moments; what the gateway may have admitted without its store comes on top.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final, NamedTuple

REQUESTS: Final = "requests_per_minute"
TOKENS: Final = "tokens_per_minute"
STREAMS: Final = "streams"
SPEND: Final = "spend"
NAMES: Final = (REQUESTS, TOKENS, STREAMS, SPEND)

LEAVING: Final = 10.0
"""Seconds within which the gateway must have noticed that a client has left, if the upstream cannot tell when."""
PATIENCE: Final = 0.9
"""Seconds after which the gateway may decide without a worker that does not answer, and let a stream end without it. It
is less than the documented one, which begins later."""
FAILING: Final = 1.9
"""Seconds after which the gateway may decide without its store, as after `PATIENCE`."""
AFTERWARDS: Final = 3.0
"""Seconds for which it may do so then."""
_SLACK: Final = 1e-6


@dataclass(slots=True)
class Asked:
    """One request.

    Attributes:
        number: Its own.
        sent: When it was sent, as all times in seconds of one clock.
        answered: When the head of its answer had come.
        ended: When the whole answer had been read; infinity: the client has left before.
        left: When the client left, or cancelled the stream.
        reached: When the upstream got it.
        finishing: When the upstream began to send the end of its answer.
        closed: When the upstream found its connection closed amid its answer.
        reason: The limit that has refused it; empty: it was admitted.
        estimate: The tokens that it was estimated at.
        used: The tokens that it has used, or would have used.
        least_cost: What it has cost at least, in 10^-12 of the currency.
        most_cost: At most; more than the least where the answer is not whole.
        worker: Of the gateway.
        logged: When its answer had ended by the gateway's clock, at the latest; infinity if the gateway did not say.
        is_disturbed: The decision took longer than `PATIENCE`, or is alone.
        is_late: Its end came in a time in which an end may have come before all workers knew what it had used.
        is_alone: It may have been decided on without the store.
        input_cost: What its prompt is estimated to cost: it is refused if no more is left.
        is_cut: A limit of spend has ended its answer.
    """

    number: int
    sent: float
    answered: float = math.inf
    ended: float = math.inf
    left: float = math.inf
    reached: float = math.inf
    finishing: float = math.inf
    closed: float = math.inf
    reason: str = ""
    estimate: int = 0
    used: int = 0
    least_cost: int = 0
    most_cost: int = 0
    worker: str = ""
    logged: float = math.inf
    is_disturbed: bool = False
    is_late: bool = False
    is_alone: bool = False
    input_cost: int = 0
    is_cut: bool = False

    @property
    def waits(self) -> list[tuple[float, float]]:
        """The times for which its client waited for the gateway alone: for a decision, and for the end."""
        waits = [(self.sent, self.decided_by), (max(self.sent, self.finishing), self.ended)]
        return [wait for wait in waits if wait[1] < math.inf]

    @property
    def decided_by(self) -> float:
        """The last moment at which it may have been decided on: a whole answer has its head at its end."""
        return min(self.answered, self.reached, self.logged)

    @property
    def began_to_end(self) -> float:
        """The first moment at which its stream may have ended."""
        return self.reached + _SLACK if self.is_cut else min(self.finishing, self.left)

    @property
    def surely_ended(self) -> float:
        """The moment from which on its stream has ended."""
        result = min(self.ended, self.closed, self.logged)
        if result < math.inf:
            return result
        return (self.left if self.finishing == math.inf else max(self.left, self.finishing)) + LEAVING


@dataclass(slots=True)
class Verdict:
    """The requests of one key, as one limit should have decided on them.

    Attributes:
        limit: The limit's name.
        allowed: Requests that it has admitted.
        refused: Requests that it has refused.
        least: The requests that it should have admitted, at least.
        most: At most.
        open: The requests that it may have decided on either way.
        wrong: A line for each of the others that it has decided on in the other way.
    """

    limit: str
    allowed: int
    refused: int
    least: int
    most: int
    open: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def difference(self) -> int:
        """By how many requests it is off."""
        if self.limit in (STREAMS, SPEND):
            return len(self.wrong)
        return max(0, self.least - self.allowed, self.allowed - self.most)


def note_disturbances(asked: Sequence[Asked]) -> int:
    """Marks the requests whose decision or end waited for too long, or met one that did; returns the number of waits.

    A worker asks the others, and the store, for each decision: a decision made in time is as good as any,
    whoever waited meanwhile. Ends of one worker wait together, so one may pass early with another that waited long.

    Args:
        asked: The requests of all keys.
    """
    waits = [wait for one in asked for wait in one.waits if wait[1] - wait[0] > PATIENCE]
    late = _Times(waits)
    failing = _Times((begin, end + AFTERWARDS) for begin, end in waits if end - begin > FAILING)
    for one in asked:
        one.is_alone = failing.meet(one.sent, one.decided_by)
        one.is_disturbed = one.is_alone or one.decided_by - one.sent > PATIENCE
        if one.ended < math.inf:
            end = (min(max(one.sent, one.finishing), one.ended), one.ended)
            one.is_late = late.meet(*end) or failing.meet(*end)
    return len(waits)


class _Times:
    """Times from a beginning to an end each."""

    def __init__(self, times: Iterable[tuple[float, float]]) -> None:
        self._begins: list[float] = []
        self._ends: list[float] = []
        for begin, end in sorted(times):
            if self._ends and begin <= self._ends[-1]:
                self._ends[-1] = max(self._ends[-1], end)
            else:
                self._begins.append(begin)
                self._ends.append(end)

    def meet(self, begin: float, end: float) -> bool:
        """Returns whether any of them has a moment of this time."""
        return bisect_left(self._ends, begin) < bisect_right(self._begins, end)


# ---- limits a minute -------------------------------------------------------------------------------------------------


class _Bucket:
    """Uses of one limit a minute: the whole number at once, and as many again in a minute."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0.0
        self._at = -math.inf

    def has_room(self, count: int, now: float) -> bool:
        """Returns whether it admits so many."""
        self._pass(now)
        return self._used + count <= self._limit + _SLACK

    def use(self, count: int, now: float) -> None:
        """Counts uses; below zero they are given back."""
        self._pass(now)
        self._used = max(0.0, self._used + count)

    def _pass(self, now: float) -> None:
        if now > self._at:
            passed = now - self._at
            self._used = 0.0 if passed == math.inf else max(0.0, self._used - passed * self._limit / 60)
            self._at = now


class _Moments(NamedTuple):
    """The moments of a request that a simulation takes for its decision and its settling."""

    decided: Callable[[Asked], float]
    settled: Callable[[Asked], float]


_EARLY: Final = _Moments(lambda each: each.sent, lambda each: each.began_to_end)
_LATE: Final = _Moments(lambda each: each.decided_by, lambda each: each.surely_ended)
_WAYS: Final = (
    _EARLY,
    _LATE,
    _Moments(_EARLY.decided, _LATE.settled),
    _Moments(_LATE.decided, _EARLY.settled),
)


def judge_requests(limit: int, asked: Iterable[Asked]) -> Verdict:
    """Judges a limit of requests a minute. Requests that another limit has refused are left out."""
    mine = [each for each in asked if each.reason in ("", REQUESTS)]

    def admitted(way: _Moments) -> int:
        bucket, count = _Bucket(limit), 0
        for at in sorted(way.decided(each) for each in mine):
            if bucket.has_room(1, at):
                bucket.use(1, at)
                count += 1
        return count

    return _counted(REQUESTS, mine, [admitted(way) for way in (_EARLY, _LATE)])


def judge_tokens(limit: int, asked: Iterable[Asked], lasts: Callable[[Asked], float]) -> Verdict:
    """Judges a limit of tokens a minute. Requests that another limit has refused are left out.

    Args:
        limit: The tokens.
        asked: The requests.
        lasts: The seconds that the answer to a request takes which was refused, and should not have been.
    """
    mine = [each for each in asked if each.reason in ("", TOKENS)]

    def admitted(way: _Moments) -> int:
        bucket, count = _Bucket(limit), 0
        steps = [(way.decided(each), 0, each) for each in mine]
        steps += [(way.settled(each), 1, each) for each in mine if not each.reason]
        steps += [(way.decided(each) + lasts(each), 1, each) for each in mine if each.reason]
        estimates: dict[int, int] = {}
        for at, is_end, each in sorted(steps, key=lambda step: step[:2]):
            estimate = min(each.estimate, limit)
            if is_end:
                if each.number in estimates:
                    bucket.use(each.used - estimates.pop(each.number), at)
            elif bucket.has_room(estimate, at):
                bucket.use(estimate, at)
                estimates[each.number] = estimate
                count += 1
        return count

    return _counted(TOKENS, mine, [admitted(way) for way in _WAYS])


def _counted(name: str, mine: Sequence[Asked], reported: Sequence[int]) -> Verdict:
    refused = sum(each.reason == name for each in mine)
    alone = sum(each.is_alone and not each.reason for each in mine)
    return Verdict(name, len(mine) - refused, refused, min(reported), max(reported) + alone, open=alone)


# ---- streams and spend -----------------------------------------------------------------------------------------------


def judge_streams(limit: int, asked: Sequence[Asked]) -> Verdict:
    """Judges a limit of streams at a time. Requests that another limit has refused are left out."""
    admitted = sorted((each for each in asked if not each.reason), key=lambda each: each.sent)
    sent = [each.sent for each in admitted]
    longest = max((each.surely_ended - each.sent for each in admitted), default=0.0)

    def bounds(one: Asked) -> tuple[int, int]:
        first = bisect_left(sent, one.sent - longest)
        others = [each for each in admitted[first : bisect_right(sent, one.decided_by)] if each is not one]
        surely = sum(each.decided_by <= one.sent and each.began_to_end >= one.decided_by for each in others)
        perhaps = sum(each.sent <= one.decided_by and each.surely_ended >= one.sent for each in others)
        return surely, perhaps

    return _judged(STREAMS, limit, asked, bounds)


def judge_spend(limit: int, asked: Sequence[Asked]) -> Verdict:
    """Judges a limit of spend, in 10^-12 of the currency. Requests that another limit has refused are left out.

    A request is refused if what is left does not cover its prompt. Streams that run have reserved more than they have
    spent, so a refusal beside one is not judged.
    """
    admitted = [each for each in asked if not each.reason]
    counted = _Sums((each.ended + AFTERWARDS * each.is_late, each.least_cost) for each in admitted)
    begun = _Sums((each.began_to_end, each.most_cost) for each in admitted)

    def bounds(one: Asked) -> tuple[int, int]:
        # The last unit may be spent: only what exceeds the limit is refused. The estimate of a prompt is approximate.
        surely = counted.up_to(one.sent) + max(0, one.input_cost // 2 - 1)
        perhaps = begun.up_to(one.decided_by) + 2 * one.input_cost
        is_beside = one.reason == SPEND and any(
            each.sent <= one.decided_by and each.surely_ended >= one.sent for each in admitted
        )
        return (surely, max(perhaps, limit)) if is_beside else (surely, perhaps)

    return _judged(SPEND, limit, asked, bounds)


class _Sums:
    """The sum of amounts up to a time."""

    def __init__(self, amounts: Iterable[tuple[float, int]]) -> None:
        pairs = sorted(amounts)
        self._times = [at for at, _ in pairs]
        self._sums = [0, *accumulate(amount for _, amount in pairs)]

    def up_to(self, time: float) -> int:
        return self._sums[bisect_right(self._times, time)]


def _judged(name: str, limit: int, asked: Sequence[Asked], bounds: Callable[[Asked], tuple[int, int]]) -> Verdict:
    verdict = Verdict(name, 0, 0, 0, 0)
    for one in asked:
        if one.reason not in ("", name):
            continue
        surely, perhaps = bounds(one)
        is_admitted = not one.reason
        verdict.allowed += is_admitted
        verdict.refused += not is_admitted
        if one.is_disturbed or surely < limit <= perhaps:
            verdict.open += 1
            verdict.least += is_admitted
        else:
            should = perhaps < limit
            verdict.least += should
            if should != is_admitted:
                done = "admitted" if is_admitted else "refused"
                verdict.wrong.append(f"request {one.number}: {done} with {surely} to {perhaps} of {limit} in use")
    verdict.most = verdict.least
    return verdict
