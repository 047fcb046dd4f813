"""`KeyState`: one key's exact use of its limits. Sans-IO: time is an argument.

Owns the rules of counting. Every store keeps this state, whichever process changes it.

1. A limit over a time is GCRA with the whole limit as burst. `tat` is the moment when nothing counts as used any more;
   a use of n moves it by n/limit of that time. It may lie further ahead than that: tokens are settled by what was used,
   and so may be overdrawn.
2. Live streams, and the spend reserved for them, are counted by worker. A worker that is gone has none.
3. A request is admitted if what is spent and reserved leaves room for its reservation. If nothing is reserved, the cost
   of its input is enough, and the reservation is what is left. So the limit is passed only by what a stream uses beyond
   its reservation.
4. A stream that needs more than its reservation gets it, or as much as is left, but not less than it needs next.
5. A limit that changes leaves what was used: the wait of a rate grows or shrinks with the time that one use takes.
6. Tokens are counted by their estimate. If no stream is under way, room for the part that the request names is enough:
   the usual output of its model may be more than the whole limit.
7. A stream whose worker is gone goes on in another one, which takes its place and its reservation. It is no further
   request. Its tokens count in addition to the lost worker's estimate, which nobody settles. One that
   asks later is not refused by what is spent: it asks before it costs anything.
8. Another turn of a run asks for its tokens as a request does.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from gai_fast.ledger._base import (
    GRANTED,
    SLACK,
    SPEND,
    STREAMS,
    Caps,
    Demand,
    LimitUsage,
    Verdict,
    labels_of,
)
from gai_fast.ledger.limits import LIMITS
from gai_fast.model.money import Amount
from gai_fast.model.settings import RATE_LIMITS, KeyLimit


class Rate:
    """One limit over a time: rule 1.

    Args:
        kind: The limit's entry in `RATE_LIMITS`.
        tat: As the attribute.
        limit: As the attribute.

    Attributes:
        window: The time in seconds.
        counts_tokens: Whether it counts tokens, and not requests.
        tat: Seconds of the state's clock.
        limit: The limit by which `tat` was computed.
    """

    def __init__(self, kind: KeyLimit, tat: float = 0.0, limit: int = 0) -> None:
        self.window = kind.window
        self.counts_tokens = kind.counts == "tokens"
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
        return (self.tat - now) * self.limit / self.window if self.tat > now else 0.0

    def add(self, count: int, at: float) -> None:
        """Counts uses.

        Args:
            count: Their number; below zero: they were counted before, and are given back.
            at: When they were.
        """
        if self.limit:
            begin = self.tat if count < 0 or self.tat > at else at
            self.tat = begin + count * self.window / self.limit


class Holder:
    """One worker's part in a key.

    Attributes:
        live: Its streams.
        reserved: The spend that is reserved for them.
    """

    def __init__(self, live: int = 0, reserved: Amount = 0) -> None:
        self.live = live
        self.reserved = reserved


class KeyState:
    """The state of one key.

    Attributes:
        rates: The limits over a time, by place.
        holders: The workers that have streams of it.
        spent: The spend, by the label of its period.
    """

    def __init__(self) -> None:
        self.rates = _new_rates()
        self.holders: dict[str, Holder] = {}
        self.spent: dict[str, Amount] = {}

    def use(self, caps: Caps, now: float) -> None:
        """Goes on with these limits: rule 5."""
        for place, limit in caps.rates:
            self.rates[place].use(limit, now)

    def decide(self, worker: str, caps: Caps, demand: Demand, now: float) -> Verdict:
        """Decides on a request, or on a larger reservation, and counts it if it is admitted and to be counted.

        Args:
            worker: The worker that asks.
            caps: The key's limits, which `use` was given before.
            demand: The demand of a request or stream.
            now: Seconds of the state's clock.
        """
        if demand.taken_from not in (None, worker):
            self.forget(demand.taken_from)
        verdict = self.verdict(caps, demand, now)
        if verdict.place != GRANTED or not demand.is_counted:
            return verdict
        holder = self.holders.setdefault(worker, Holder())
        holder.reserved += verdict.reserved
        holder.live += demand.is_new
        for place, limit in _asked(caps, demand):
            rate = self.rates[place]
            rate.add(min(demand.tokens, limit) if rate.counts_tokens else demand.is_new, now)
        return verdict

    def verdict(self, caps: Caps, demand: Demand, now: float) -> Verdict:
        """Decides as `decide`, and counts nothing.

        Args:
            caps: As `decide`.
            demand: As `decide`.
            now: As `decide`.
        """
        _, _, streams, spend, label = caps
        reserved = 0
        if spend is not None:
            spent = self.spent.get(label, 0)
            others = self.reserved
            left = spend - spent - others
            least, reserved = demand.reservation
            if reserved > left and (not demand.is_new or not others):  # rules 3 and 4
                reserved = max(least, left)
            if (left <= 0 or reserved > left) and not demand.asks_later:
                return Verdict(SPEND, 0.0, 0, spent)
        for place, limit in _asked(caps, demand):
            rate = self.rates[place]
            needed = 1
            if rate.counts_tokens:
                needed = min(demand.tokens, limit)
                if demand.expected and self.live <= (not demand.is_new):  # rule 6
                    needed = min(demand.tokens - demand.expected, limit)
            elif not demand.is_new:
                continue
            over = rate.used(now) + needed - limit
            if over > SLACK or not limit:
                return Verdict(place, over * rate.window / limit if limit else 0.0)
        if demand.is_new and streams is not None and streams <= self.live:
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
        for rate in self.rates:
            if not rate.counts_tokens:
                if requests:
                    rate.add(requests, at)
            elif tokens:
                rate.add(tokens, at if tokens > 0 else now)
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
        self.rates = _new_rates()
        for label in labels:
            self.spent.pop(label, None)

    def forget(self, worker: str) -> None:
        """Releases all reservations of a worker that is gone, with its streams."""
        self.holders.pop(worker, None)

    def used(self, caps: Caps, now: float) -> LimitUsage:
        """Returns the counts of now."""
        return LimitUsage(tuple([rate.used(now) for rate in self.rates]), self.spent.get(caps.label, 0), self.reserved)

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


def _asked(caps: Caps, demand: Demand) -> Sequence[tuple[int, int]]:
    """Returns the limits over a time that a demand is counted for: rules 7 and 8."""
    is_asked = demand.taken_from is None and (demand.is_new or demand.tokens)
    return caps.rates if is_asked else ()


def _new_rates() -> list[Rate]:
    return [Rate(kind) for kind in RATE_LIMITS]


def _by_end(label: str) -> tuple[str, str]:
    """Returns the order in which the periods of `labels_of` end: a month's days, then the month."""
    return label[1:8], label
