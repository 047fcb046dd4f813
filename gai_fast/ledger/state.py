"""`KeyState`: what one key has used of its limits, exactly. Sans-IO: time is an argument.

Owns the rules of counting. Every store keeps this state, whichever process changes it.

1. A limit a minute is GCRA with the minute's number as burst. `tat` is the moment when nothing counts as used any more;
   a use of n moves it by n/limit of a minute. It may lie further ahead than a minute: tokens are settled by what was
   used, and so may be overdrawn.
2. A worker may hold a part of each limit (`kept`), from which it admits requests by itself. What is kept is free for
   nobody else, so all workers together never admit more than the limit. A part of a rate shrinks the burst.
3. A worker that is asked by another one gives back what it keeps. Until all that keep something have been heard since
   the question, or are gone, a request that only that would admit is not decided (`UNCLEAR`).
4. Live streams are counted by worker. A worker that is gone has none. A request is refused for its streams only when
   all workers with streams have been heard since the question: one may have ended a moment ago.
5. A limit that changes leaves what was used: the wait of a rate grows or shrinks with the time that one use takes.
6. A stream may use more than its worker keeps. Then what others keep may be more than what is left, and they must give
   it back before the stream ends for its client.
"""

from __future__ import annotations

from typing import Final

from gai_fast.ledger._base import (
    MINUTE,
    REQUESTS,
    SPEND,
    STREAMS,
    TOKENS,
    Caps,
    Left,
    RateLeft,
    labels_of,
)
from gai_fast.ledger.limits import LIMITS
from gai_fast.model.money import Amount

GRANTED: Final = -1
"""The verdict on a request that is admitted. Other verdicts are the place of the limit that refuses it."""
UNCLEAR: Final = -2
"""The verdict on a request that other workers must be asked about: rules 3 and 4."""

_SLACK: Final = 1e-5
"""Uses by which rounding may be off: a hundred times what a double loses with seconds since the epoch."""


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
        kept: The parts of the limits that it may use by itself: requests, tokens, streams, spend.
        live: Its streams.
        heard: When it was heard last.
    """

    __slots__ = ("heard", "kept", "live")

    def __init__(self, kept: tuple[int, int, int, int] = (0, 0, 0, 0), live: int = 0, heard: float = 0.0) -> None:
        self.kept = kept
        self.live = live
        self.heard = heard


_NOTHING: Final = (0, 0, 0, 0)


class KeyState:
    """The state of one key.

    Attributes:
        rates: Requests and tokens.
        holders: The workers that have anything of it.
        spent: The spend, by the label of its period.
        tight_until: Until then nothing may be kept: workers have had to be asked.
    """

    __slots__ = ("holders", "rates", "spent", "tight_until")

    def __init__(self) -> None:
        self.rates = (Rate(), Rate())
        self.holders: dict[str, Holder] = {}
        self.spent: dict[str, Amount] = {}
        self.tight_until = 0.0

    def use(self, caps: Caps, now: float) -> None:
        """Goes on with these limits: rule 5."""
        if caps.requests is not None:
            self.rates[REQUESTS].use(caps.requests, now)
        if caps.tokens is not None:
            self.rates[TOKENS].use(caps.tokens, now)

    def decide(
        self, worker: str, caps: Caps, tokens: int, now: float, asked: float, *, is_last: bool = False
    ) -> tuple[int, float]:
        """Decides on a request, and counts it if it is admitted.

        Args:
            worker: The worker that has it.
            caps: The key's limits, which `use` was given before.
            tokens: The estimate of its tokens.
            now: Seconds of the state's clock.
            asked: When the worker asked first.
            is_last: The verdict must not be `UNCLEAR`: those that were not heard count with all they keep.

        Returns:
            The verdict, and the seconds until the limit that refuses it would admit it; 0: time alone does not mend it,
            or nobody knows when.
        """
        kept, is_open = _NOTHING, False
        if len(self.holders) > 1 or (self.holders and worker not in self.holders):
            kept = self._kept_by_others(worker)
            is_open = not is_last and self._has_unheard(worker, asked)
        requests, most_tokens, streams, spend, label = caps
        is_unclear = False
        if spend is not None:
            spent = self.spent.get(label, 0)
            if spent >= spend:
                return SPEND, 0.0
            is_unclear = is_open and spent + kept[SPEND] >= spend
        if requests is not None:
            over = self.rates[REQUESTS].used(now) + 1 - requests
            if over > _SLACK or not requests or (not is_open and over + kept[REQUESTS] > _SLACK):
                return REQUESTS, _wait(over, kept[REQUESTS], requests)
            is_unclear = is_unclear or over + kept[REQUESTS] > _SLACK
        if most_tokens is not None:
            tokens = min(tokens, most_tokens)
            over = self.rates[TOKENS].used(now) + tokens - most_tokens
            if over > _SLACK or not most_tokens or (not is_open and over + kept[TOKENS] > _SLACK):
                return TOKENS, _wait(over, kept[TOKENS], most_tokens)
            is_unclear = is_unclear or over + kept[TOKENS] > _SLACK
        if streams is not None and streams - self.live - kept[STREAMS] <= 0:
            if not is_open or not streams:
                return STREAMS, 0.0
            is_unclear = True
        if is_unclear:
            self.tight_until = now + LIMITS.ledger_tight
            return UNCLEAR, 0.0
        if requests is not None:
            self.rates[REQUESTS].add(1, now)
        if most_tokens is not None:
            self.rates[TOKENS].add(tokens, now)
        holder = self.holders.get(worker)
        if holder is None:
            holder = self.holders[worker] = Holder()
        holder.live += 1
        return GRANTED, 0.0

    def end(self, worker: str, requests: int, tokens: int, now: float) -> None:
        """Ends a stream of a worker.

        Args:
            worker: The worker.
            requests: -1, where the request is given back; else 0.
            tokens: The tokens that it has used beyond the estimate; perhaps below zero.
            now: Seconds of the state's clock.
        """
        if requests:
            self.rates[REQUESTS].add(requests, now)
        if tokens:
            self.rates[TOKENS].add(tokens, now)
        holder = self.holders.get(worker)
        if holder is not None:
            holder.live -= 1
            if not holder.live and holder.kept == _NOTHING:
                del self.holders[worker]

    def report(
        self, worker: str, kept: tuple[int, int, int, int], requests: int, tokens: int, at: float, live: int, now: float
    ) -> None:
        """Takes what a worker says of itself.

        Args:
            worker: The worker.
            kept: What it keeps from now on.
            requests: The requests that it has admitted by what it kept.
            tokens: The tokens of these requests, and what was settled; perhaps below zero.
            at: When the last of these requests came.
            live: Its streams.
            now: Seconds of the state's clock.
        """
        if requests:
            self.rates[REQUESTS].add(requests, at)
        if tokens:
            self.rates[TOKENS].add(tokens, at if tokens > 0 else now)
        if live or kept != _NOTHING:
            self.holders[worker] = Holder(kept, live, now)
        else:
            self.holders.pop(worker, None)

    def keep(self, worker: str, caps: Caps, now: float) -> tuple[int, int, int, int]:
        """Lets a worker keep more of each limit; returns how much more.

        It may keep a small part of what is free, and nothing where little is free: then every request is decided here,
        so that nothing is refused for what another worker keeps and does not use.
        """
        if now < self.tight_until:
            return _NOTHING
        more = (
            self._more(REQUESTS, self._free(REQUESTS, caps.requests, now), worker),
            self._more(TOKENS, self._free(TOKENS, caps.tokens, now), worker),
            self._more(STREAMS, 0 if caps.streams is None else caps.streams - self.live, worker),
            self._more(SPEND, 0 if caps.spend is None else caps.spend - self.spent.get(caps.label, 0), worker),
        )
        if more != _NOTHING:
            holder = self.holders.get(worker)
            if holder is None:
                holder = self.holders[worker] = Holder(heard=now)
            kept = holder.kept
            holder.kept = (kept[0] + more[0], kept[1] + more[1], kept[2] + more[2], kept[3] + more[3])
        return more

    def charge(self, day: str, currency: str, amount: Amount) -> None:
        """Adds to the spend of all periods that a UTC date is in."""
        for label in labels_of(day, currency):
            self.spent[label] = self.spent.get(label, 0) + amount
        excess = len(self.spent) - LIMITS.ledger_periods
        if excess > 0:
            passing = sorted([label for label in self.spent if label[0] != "t"], key=lambda label: label[1:])
            for label in passing[:excess]:
                del self.spent[label]

    def forget(self, worker: str) -> None:
        """Gives back all that a worker has: it is gone, and its streams with it."""
        self.holders.pop(worker, None)

    def left(self, caps: Caps, now: float) -> Left:
        """Returns what is left of the limits a minute."""
        return Left(
            None if caps.requests is None else _left(self.rates[REQUESTS], caps.requests, now),
            None if caps.tokens is None else _left(self.rates[TOKENS], caps.tokens, now),
        )

    @property
    def live(self) -> int:
        """The number of streams."""
        return sum([holder.live for holder in self.holders.values()])

    def is_overcommitted(self, worker: str, caps: Caps, now: float) -> bool:
        """Whether other workers keep more tokens or spend than there is left: rule 6.

        Args:
            worker: The worker that reports.
            caps: The key's limits, which `use` was given before.
            now: Seconds of the state's clock.
        """
        kept = self._kept_by_others(worker)
        if kept[SPEND] and caps.spend is not None and self.spent.get(caps.label, 0) + kept[SPEND] > caps.spend:
            return True
        if not kept[TOKENS] or caps.tokens is None:
            return False
        return self.rates[TOKENS].used(now) + kept[TOKENS] - caps.tokens > _SLACK

    def is_idle(self, now: float) -> bool:
        """Whether nothing of it would be missed."""
        return not self.holders and not self.spent and all(rate.tat <= now for rate in self.rates)

    def others(self, worker: str) -> list[str]:
        """Returns the other workers that have anything of the key."""
        return [each for each in self.holders if each != worker]

    def _kept_by_others(self, worker: str) -> tuple[int, int, int, int]:
        requests, tokens, streams, spend = _NOTHING
        for name, holder in self.holders.items():
            if name != worker:
                kept = holder.kept
                requests += kept[0]
                tokens += kept[1]
                streams += kept[2]
                spend += kept[3]
        return requests, tokens, streams, spend

    def _has_unheard(self, worker: str, asked: float) -> bool:
        return any(holder.heard < asked for name, holder in self.holders.items() if name != worker)

    def _free(self, place: int, limit: int | None, now: float) -> int:
        return 0 if limit is None else int(limit - self.rates[place].used(now))

    def _more(self, place: int, free: int, worker: str) -> int:
        free -= sum([holder.kept[place] for holder in self.holders.values()])
        if free < LIMITS.ledger_scarce:
            return 0
        holder = self.holders.get(worker)
        return max(0, free // LIMITS.ledger_parts - (0 if holder is None else holder.kept[place]))


def _wait(over: float, kept: int, limit: int) -> float:
    """The seconds until a use is admitted that is over a limit by so much; 0: never, or it is kept by others."""
    if not limit:
        return 0.0
    return (over if over > _SLACK else over + kept) * MINUTE / limit


def _left(rate: Rate, limit: int, now: float) -> RateLeft:
    used = rate.used(now)
    return RateLeft(limit, max(0, int(limit - used + _SLACK)), used * MINUTE / limit if limit else 0.0)
