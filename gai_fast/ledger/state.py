"""`KeyState`: what one key has used of its limits, exactly. Sans-IO: time is an argument.

Owns the rules of counting. Every store keeps this state, whichever process changes it.

1. A limit a minute is GCRA with the minute's number as burst. `tat` is the moment when nothing counts as used any more;
   a use of n moves it by n/limit of a minute. It may lie further ahead than a minute: tokens are settled by what was
   used, and so may be overdrawn.
2. Live streams, and the spend reserved for them, are counted by worker. A worker that is gone has none.
3. A request is admitted if what is spent and reserved leaves room for its reservation. If nothing is reserved, the cost
   of its input is enough, and the reservation is what is left. So the limit is passed only by what a stream uses beyond
   its reservation.
4. A stream that needs more than its reservation gets it, or as much as is left, but not less than it needs next.
5. A limit that changes leaves what was used: the wait of a rate grows or shrinks with the time that one use takes.
6. Tokens are counted by their estimate. If no stream is under way, room for the part that the request names is enough:
   the usual output of its model may be more than the whole limit.
"""

from __future__ import annotations

from collections.abc import Collection

from gai_fast.ledger._base import (
    GRANTED,
    MINUTE,
    REQUESTS,
    SLACK,
    SPEND,
    STREAMS,
    TOKENS,
    Caps,
    Demand,
    LimitUsage,
    Verdict,
    labels_of,
)
from gai_fast.ledger.limits import LIMITS
from gai_fast.model.money import Amount


class Rate:
    """One limit a minute: rule 1.

    Attributes:
        tat: Seconds of the state's clock.
        limit: The limit by which `tat` was computed.
    """

    __slots__ = ("limit", "tat")

    def __init__(self, tat: float = 0.0, limit: int = 0) -> None:
        self.tat = tat
        self.limit = limit

    def use(self, limit: int, now: float) -> None:
        """Goes on with another limit: rule 5."""
        if limit != self.limit:
            if self.tat > now and limit and self.limit:
                self.tat = now + (self.tat - now) * self.limit / limit
            self.limit = limit

    def used(self, now: float) -> float:
        """Returns the number of uses that count now."""
        return (self.tat - now) * self.limit / MINUTE if self.tat > now else 0.0

    def add(self, count: int, at: float) -> None:
        """Counts uses.

        Args:
            count: Their number; below zero: they were counted before, and are given back.
            at: When they were.
        """
        if self.limit:
            begin = self.tat if count < 0 or self.tat > at else at
            self.tat = begin + count * MINUTE / self.limit


class Holder:
    """One worker's part in a key.

    Attributes:
        live: Its streams.
        reserved: The spend that is reserved for them.
    """

    __slots__ = ("live", "reserved")

    def __init__(self, live: int = 0, reserved: Amount = 0) -> None:
        self.live = live
        self.reserved = reserved


class KeyState:
    """The state of one key.

    Attributes:
        rates: Requests and tokens.
        holders: The workers that have streams of it.
        spent: The spend, by the label of its period.
    """

    __slots__ = ("holders", "rates", "spent")

    def __init__(self) -> None:
        self.rates = (Rate(), Rate())
        self.holders: dict[str, Holder] = {}
        self.spent: dict[str, Amount] = {}

    def use(self, caps: Caps, now: float) -> None:
        """Goes on with these limits: rule 5."""
        if caps.requests is not None:
            self.rates[REQUESTS].use(caps.requests, now)
        if caps.tokens is not None:
            self.rates[TOKENS].use(caps.tokens, now)

    def decide(self, worker: str, caps: Caps, demand: Demand, now: float) -> Verdict:
        """Decides on a request, or on a larger reservation, and counts it if it is admitted and to be counted.

        Args:
            worker: The worker that asks.
            caps: The key's limits, which `use` was given before.
            demand: The demand of a request or stream.
            now: Seconds of the state's clock.
        """
        verdict = self.verdict(caps, demand, now)
        if verdict.place != GRANTED or not demand.is_counted:
            return verdict
        holder = self.holders.setdefault(worker, Holder())
        holder.reserved += verdict.reserved
        if demand.is_new:
            if caps.requests is not None:
                self.rates[REQUESTS].add(1, now)
            if caps.tokens is not None:
                self.rates[TOKENS].add(min(demand.tokens, caps.tokens), now)
            holder.live += 1
        return verdict

    def verdict(self, caps: Caps, demand: Demand, now: float) -> Verdict:
        """Decides as `decide`, and counts nothing.

        Args:
            caps: As `decide`.
            demand: As `decide`.
            now: As `decide`.
        """
        requests, most_tokens, streams, spend, label = caps
        reserved = 0
        if spend is not None:
            spent = self.spent.get(label, 0)
            others = self.reserved
            left = spend - spent - others
            least, reserved = demand.reservation
            if reserved > left and (not demand.is_new or not others):  # rules 3 and 4
                reserved = max(least, left)
            if left <= 0 or reserved > left:
                return Verdict(SPEND, 0.0, 0, spent)
        if not demand.is_new:
            return Verdict(GRANTED, 0.0, reserved)
        if requests is not None:
            over = self.rates[REQUESTS].used(now) + 1 - requests
            if over > SLACK or not requests:
                return Verdict(REQUESTS, over * MINUTE / requests if requests else 0.0)
        if most_tokens is not None:
            tokens = min(demand.tokens, most_tokens)
            if demand.expected and not self.live:  # rule 6
                tokens = min(demand.tokens - demand.expected, most_tokens)
            over = self.rates[TOKENS].used(now) + tokens - most_tokens
            if over > SLACK or not most_tokens:
                return Verdict(TOKENS, over * MINUTE / most_tokens if most_tokens else 0.0)
        if streams is not None and streams <= self.live:
            return Verdict(STREAMS)
        return Verdict(GRANTED, 0.0, reserved)

    def report(
        self, worker: str, requests: int, tokens: int, at: float, live: int, reserved: Amount, now: float
    ) -> None:
        """Records a worker's report.

        Args:
            worker: The worker.
            requests: Requests that do not count yet; below zero: they are given back.
            tokens: Tokens that do not count yet; perhaps below zero.
            at: When the last of these requests came.
            live: Its streams.
            reserved: The spend that is reserved for them.
            now: Seconds of the state's clock.
        """
        if requests:
            self.rates[REQUESTS].add(requests, at)
        if tokens:
            self.rates[TOKENS].add(tokens, at if tokens > 0 else now)
        if live or reserved:
            self.holders[worker] = Holder(live, reserved)
        else:
            self.holders.pop(worker, None)

    def charge(self, day: str, currency: str, amount: Amount) -> None:
        """Adds to the spend of all periods that a UTC date is in. A month outlives its days."""
        for label in labels_of(day, currency).values():
            self.spent[label] = self.spent.get(label, 0) + amount
        excess = len(self.spent) - LIMITS.ledger_periods
        if excess > 0:
            passing = sorted([label for label in self.spent if label[0] != "t"], key=_by_end)
            for label in passing[:excess]:
                del self.spent[label]

    def reset(self, labels: Collection[str]) -> None:
        """Counts from zero again. Streams under way, and the spend that is reserved for them, still count.

        Args:
            labels: The periods whose spend is no longer counted.
        """
        for rate in self.rates:
            rate.tat = 0.0
        for label in labels:
            self.spent.pop(label, None)

    def forget(self, worker: str) -> None:
        """Gives back all that a worker has: it is gone, and its streams with it."""
        self.holders.pop(worker, None)

    def used(self, caps: Caps, now: float) -> LimitUsage:
        """Returns what counts now."""
        requests, tokens = self.rates
        return LimitUsage(requests.used(now), tokens.used(now), self.spent.get(caps.label, 0), self.reserved)

    @property
    def live(self) -> int:
        """The number of streams."""
        return sum([holder.live for holder in self.holders.values()])

    @property
    def reserved(self) -> Amount:
        """The spend that is reserved for them."""
        return sum([holder.reserved for holder in self.holders.values()])

    def is_idle(self, now: float) -> bool:
        """Returns whether the state may be forgotten: it has no stream and no spend, and its rates are unused."""
        return not self.holders and not self.spent and all(rate.tat <= now for rate in self.rates)


def _by_end(label: str) -> tuple[str, str]:
    """Returns the order in which the periods of `labels_of` end: a month's days, then the month."""
    return label[1:8], label
