"""`Ledger`: the limits and the spend of a server's callers.

Owns the requests that are counted, from their admission to their end, and the error of a refused request. Subclasses
own where the state is: in this process (`local.py`), or in a process that several workers share (`shared.py`).

1. A request is counted when it starts a stream: it is valid, and no stream of an idempotency key answers it.
2. What was counted by an estimate is settled once, at the end of its stream: by its usage; to nothing, if the
   stream never began.
3. Every stream that was admitted is released once, however it ends.
4. A client that has read the end of its stream, and then asks any worker, meets what the stream has used.
5. Between its admission and its end a stream asks the state only if its reservation is used up (`grow`).
"""

from __future__ import annotations

import asyncio
import logging
import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

from gai_fast.ledger._base import (
    DAY,
    NAMES,
    NO_DEMAND,
    REFUSED,
    SLACK,
    SPEND,
    STREAMS,
    Caps,
    Demand,
    GroupBy,
    LimitStatus,
    LimitUsage,
    Period,
    RateStatus,
    Reservation,
    SpendEntry,
    SpendRow,
    SpendStatus,
    Verdict,
    labels_of,
    reset_of,
)
from gai_fast.ledger.limits import LIMITS
from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.model.metrics import StreamMetrics
from gai_fast.model.money import USD, Amount, decimal_text, tokens_of
from gai_fast.model.settings import COUNTED_LIMITS, RATE_LIMITS, KeyLimits, KeySettings, figure_label
from gai_fast.runtime.refusal_log import RefusalLog

_log: Final = logging.getLogger("gai_fast.spend")
_refusals: Final = logging.getLogger("gai_fast.limits")

_ROUNDING: Final = 1e-3
"""Milliseconds that a wait may be shortened by: else 3 s might become 3.001, and four whole seconds."""

_NO_KEY: Final = "["
"""Begins the names of callers that are no keys, such as the server: who asks for them knows what a refusal means."""

_LOOK: Final = Demand(is_counted=False)
"""Looks whether the smallest request would be admitted: if it is refused, every request is."""

Grown = Callable[[Amount], None]
"""Called with the spend that a stream may use beyond its reservation; 0: it gets no more."""


class Ticket:
    """One request that was admitted.

    Attributes:
        key: The key.
        caps: The key's limits at that time.
        demand: What was counted for it.
        reserved: The spend that is reserved for it.
        charged: The spend that was charged while its stream ran; it is no longer reserved.
    """

    __slots__ = ("caps", "charged", "demand", "key", "reserved")

    def __init__(self, key: KeySettings, caps: Caps, demand: Demand, reserved: Amount) -> None:
        self.key = key
        self.caps = caps
        self.demand = demand
        self.reserved = reserved
        self.charged: Amount = 0


class _Cached(NamedTuple):
    limits: KeyLimits
    day: int
    caps: Caps | None


class Ledger(ABC):
    """Limits and spend of keys; a `MetricsSink`.

    Args:
        wall: Seconds since the epoch, for the periods of spend.

    Attributes:
        outlives_worker: Whether the state remains if this process is killed.
        currency: The currency of limits of spend. Spend in another one is reported, and counts for no limit.
        refused: How many requests of keys each limit has refused in this process.
        reservations: The spend that is reserved for streams of keys with a limit of it, by stream.
    """

    outlives_worker: bool = True

    def __init__(self, wall: Callable[[], float]) -> None:
        self.currency = USD
        self.refused = dict.fromkeys(NAMES, 0)
        self.reservations: dict[str, Amount] = {}
        self._wall = wall
        self._refusal_log = RefusalLog(_refusals)
        # The output tokens of the last answers, by model; and of those to each key.
        self._usual: dict[str, deque[int]] | None = None
        self._own_usual: dict[str, dict[str, deque[int]]] = {}
        self._tickets: dict[str, Ticket] = {}  # by stream
        self._caps: dict[str, _Cached] = {}
        self._limits: dict[str, KeyLimits] = {}

    @property
    def problem(self) -> str | None:
        """Why the shared state cannot be used now. None if it can."""
        return None

    async def open(self) -> None:  # noqa: B027  # nothing to do for a ledger in this process
        """Opens the ledger. Must be called before anything else.

        Raises:
            StoreError: The shared state cannot be used.
        """

    async def close(self) -> None:  # noqa: B027  # nothing to do for a ledger in this process
        """Closes the ledger, after everything to keep has been handed over."""

    async def report(self) -> None:  # noqa: B027  # nothing to do for a ledger in this process
        """Reports this worker's use and spend to the others."""

    def use(self, keys: Sequence[KeySettings], currency: str = USD) -> None:
        """Replaces the keys. Counted use stays counted.

        Args:
            keys: `[[key]]`, and the rights of each `[[issuer]]`.
            currency: The currency of the prices.
        """
        if currency != self.currency:
            self.currency = currency
            self._caps.clear()
        if any(key.limits.spend is not None or key.limits.of_tokens for key in keys):
            self._usual = self._usual or {}
        else:
            self._usual = None
            self._own_usual.clear()
        self._limits = {key.name: key.limits for key in keys}
        for name in [name for name in self._caps if name not in self._limits]:
            del self._caps[name]

    # -- limits --

    def try_take(self, key: KeySettings, stream_id: str, demand: Demand = NO_DEMAND) -> bool:
        """Admits a request, if that can be decided at once.

        Args:
            key: The caller's.
            stream_id: The id of the stream that it starts.
            demand: What it may use.

        Returns:
            `False`: `take` must decide.

        Raises:
            RateLimited: A limit refuses it; `reason` is the limit's key.
            Overloaded: The store fails, and the configuration wants such requests refused.
        """
        caps = self.caps(key)
        return caps is None or self._take_at_once(key, stream_id, caps, _bounded(demand, caps))

    def _take_at_once(self, key: KeySettings, stream_id: str, caps: Caps, demand: Demand) -> bool:
        reserved = self._try(key.name, caps, demand)
        if reserved is None:
            return False
        self._note(stream_id, key, caps, demand, reserved)
        return True

    def check(self, key: KeySettings) -> bool:
        """Refuses the next request of a key before it is read, if no request could be admitted now. Counts nothing.

        Args:
            key: The caller's.

        Returns:
            False: only `look` can decide.

        Raises:
            RateLimited: As `try_take`.
            Overloaded: As `try_take`.
        """
        caps = self.caps(key)
        return caps is None or self._try(key.name, caps, _LOOK) is not None

    async def look(self, key: KeySettings) -> None:
        """Refuses the next request of a key; as `check`."""
        caps = self.caps(key)
        if caps is not None and not self.check(key):
            await self._ask(key.name, caps, _LOOK)

    async def take(self, key: KeySettings, stream_id: str, demand: Demand = NO_DEMAND) -> None:
        """Admits a request; as `try_take`."""
        caps = self.caps(key)
        if caps is None:
            return
        demand = _bounded(demand, caps)
        if not self._take_at_once(key, stream_id, caps, demand):
            self._note(stream_id, key, caps, demand, await self._ask(key.name, caps, demand))

    def _note(self, stream_id: str, key: KeySettings, caps: Caps, demand: Demand, reserved: Amount) -> None:
        self._tickets[stream_id] = Ticket(key, caps, demand, reserved)
        if caps.spend is not None:
            self.reservations[stream_id] = reserved

    def name(self, worker: str) -> None:  # noqa: B027  # nothing to do for a ledger in this process
        """Names this worker in the state that it shares with others; called before `open`.

        Args:
            worker: Its name in the store, by which others know that it is gone (`Demand.taken_from`).
        """

    def reservation_of(self, stream_id: str) -> Reservation:
        """Returns what was reserved for a stream at its admission; zeros if it counts for no limit of spend."""
        ticket = self._tickets.get(stream_id)
        if ticket is None:
            return NO_DEMAND.reservation
        return Reservation(ticket.demand.reservation.least, ticket.reserved)

    async def take_on(self, caller: str, stream_id: str, reservation: Reservation | None, worker: str) -> None:
        """Admits a stream that has begun in another worker, which is gone. A key that is unknown here has no limits.

        Args:
            caller: The caller's name.
            stream_id: The stream's id.
            reservation: As `reservation_of` returned it there. None if it reserves nothing before it asks for more.
            worker: The other worker's name.

        Raises:
            RateLimited: As `try_take`.
            Overloaded: As `try_take`.
        """
        limits = self._limits.get(figure_label(caller))
        if limits is not None:
            key = KeySettings(caller, (), limits=limits)
            wanted = NO_DEMAND.reservation if reservation is None else reservation
            await self.take(key, stream_id, Demand(0, wanted, taken_from=worker, asks_later=reservation is None))

    def grow(self, stream_id: str, reservation: Reservation, then: Grown) -> None:
        """Reserves more for a stream under way, whose reservation is used up.

        Args:
            stream_id: The stream's id.
            reservation: The amount that it needs next, and the amount that it asks for.
            then: Called with what it gets, at once or later; not if the stream has ended by then.
        """
        self.reserve_turn(stream_id, Demand(0, reservation), lambda more: then(max(0, more)))

    def counts_tokens(self, stream_id: str) -> bool:
        """Returns whether a stream counts for a limit of tokens."""
        ticket = self._tickets.get(stream_id)
        return ticket is not None and ticket.caps.tokens is not None

    def lacks_tokens(self, stream_id: str, used: int, estimate: Demand) -> Demand:
        """Returns what another turn of a run must ask for: its tokens, without those that are counted already.

        Args:
            stream_id: The id of a stream for which `counts_tokens`.
            used: The tokens that its turns have used so far.
            estimate: The estimate of the turn.
        """
        tokens = max(0, used + estimate.tokens - self._tickets[stream_id].demand.tokens)
        return Demand(tokens, expected=min(tokens, estimate.expected))

    def reserve_turn(self, stream_id: str, wanted: Demand, then: Grown) -> None:
        """Reserves tokens and spend for another turn of a run.

        Args:
            stream_id: The stream's id.
            wanted: What it asks for.
            then: As for `grow`; `REFUSED` if a limit refuses it.
        """
        ticket = self._tickets.get(stream_id)
        if ticket is None:
            return
        name = ticket.key.name
        caps = self._caps_today(name, self._limits.get(figure_label(name), ticket.key.limits))
        if caps is None or (caps.spend is None and (caps.tokens is None or not wanted.tokens)):
            then(wanted.reservation.amount)  # a reload has taken the limit away
            return
        demand = wanted._replace(is_new=False)
        if wanted.tokens:
            demand = _bounded(wanted, caps)._replace(is_new=False)

        def grown(more: Amount) -> None:
            granted, tokens = max(0, more), 0 if more == REFUSED else demand.tokens
            if self._tickets.get(stream_id) is not ticket:
                self._give_back(ticket, granted, tokens)
                return
            ticket.reserved += granted
            if tokens:
                ticket.demand = ticket.demand._replace(tokens=ticket.demand.tokens + tokens)
            then(more)

        self._grow(name, caps, demand, grown)

    def charge_running(self, entry: SpendEntry, stream_id: str) -> None:
        """Charges a part of the cost of a stream under way; its reservation shrinks by as much.

        Args:
            entry: The part, which is not negative.
            stream_id: The stream's id.
        """
        self.charge(entry)
        ticket = self._tickets.get(stream_id)
        if ticket is not None and entry.currency == self.currency:
            amount = min(entry.amount, ticket.reserved)
            ticket.reserved -= amount
            ticket.charged += amount
            self._give_back(ticket, amount)

    def usual_output(self, model: str, key: str = "") -> int:
        """Returns the mean of the output tokens of a model's last answers, as far as this process knows.

        Args:
            model: The name by which it is asked for.
            key: The key whose answers count. If it has had none, those to all keys do, but for no more than
                `limits.usual_output`: long answers to one key make no other key's requests larger. Empty: all keys.
        """
        own = self._own_usual.get(key, _NO_ANSWERS).get(model)
        if own and key:
            return _mean(own)
        last = None if self._usual is None else self._usual.get(model)
        usual = _mean(last) if last else LIMITS.usual_output
        return min(usual, LIMITS.usual_output) if key else usual

    def cancel(self, stream_id: str) -> None:
        """Takes back the admission of a request whose stream has not begun. Does nothing if there is none."""
        ticket = self._tickets.pop(stream_id, None)
        if ticket is not None:
            self.reservations.pop(stream_id, None)
            self._return(ticket)

    def settle(self, stream_id: str, tokens: int) -> None:
        """Ends a stream. Does nothing if it was not admitted here, or has ended.

        Args:
            stream_id: The stream's id.
            tokens: The tokens that it has used.
        """
        ticket = self._tickets.pop(stream_id, None)
        if ticket is not None:
            self.reservations.pop(stream_id, None)
            self._settle(ticket, min(tokens, SHARED.priced_tokens))  # an upstream may send any number

    def stream_ended(self, metrics: StreamMetrics) -> None:
        """Counts the end of a stream; works as `MetricsSink.stream_ended`."""
        usage = {} if metrics.is_shared else metrics.usage or {}
        output = tokens_of(usage, "output_tokens")
        if self._usual is not None and output and metrics.outcome == "finished":
            _learn(self._usual, metrics.model, output, LIMITS.usual_models)
            self._learn_own(metrics.key, metrics.model, output)
        ticket = self._tickets.get(metrics.stream_id)
        if ticket is None:
            return
        if metrics.outcome == "refused":
            self.cancel(metrics.stream_id)
            return
        if (
            ticket.caps.spend is not None
            and metrics.currency == self.currency
            and (metrics.cost or 0) > ticket.reserved + ticket.charged
        ):
            text = "stream %s of key %r costs %s, and %s were reserved: the provider counts more than was delivered"
            costs = decimal_text(metrics.cost or 0), decimal_text(ticket.reserved + ticket.charged)
            _log.info(text, metrics.stream_id, metrics.key, *costs)
        self.settle(metrics.stream_id, tokens_of(usage, "input_tokens") + output)

    def _learn_own(self, key: str, model: str, output: int) -> None:
        own = self._own_usual.get(key)
        if own is None:
            if len(self._own_usual) >= LIMITS.usual_keys:
                del self._own_usual[next(iter(self._own_usual))]
            own = self._own_usual[key] = {}
        _learn(own, model, output, LIMITS.usual_models_of_key)

    def limit_status(self, key: KeySettings) -> LimitStatus | None:
        """Returns the rest of a key's limits over a time and of its limit of spend. None if it has neither.

        Args:
            key: The caller's.
        """
        caps = self.caps(key)
        if caps is None or (not caps.rates and caps.spend is None):
            return None
        used = self._used(key.name, caps)
        return LimitStatus(
            [_rate_status(place, limit, used.rates[place]) for place, limit in caps.rates],
            None if caps.spend is None else self._spend_status(caps.spend, caps.label, used),
        )

    def _spend_status(self, spend: Amount, label: str, used: LimitUsage) -> SpendStatus:
        return SpendStatus(spend, max(0, spend - used.spent - used.reserved), reset_of(label, self._wall()))

    def _refusal(self, key: str, verdict: Verdict, caps: Caps) -> Error:
        """Returns the error of a refused request. Counts it, and logs it, if a key is refused."""
        error, name = refusal(verdict, caps, self._wall()), NAMES[verdict.place]
        if not key.startswith(_NO_KEY):
            self.refused[name] += 1
            self._refusal_log.note(name, error.message, key)
        return error

    def streams_of(self, name: str) -> int | None:
        """Returns the limit of a caller's streams. None if it has none, or there is no such caller.

        Args:
            name: The caller's name.
        """
        limits = self._limits.get(figure_label(name))
        return None if limits is None else limits.streams

    def caps(self, key: KeySettings) -> Caps | None:
        """Returns the limits of a key as they are today. None if it has none."""
        return self._caps_today(key.name, key.limits)

    def _caps_today(self, name: str, limits: KeyLimits) -> Caps | None:
        day = int(self._wall()) // DAY
        cached = self._caps.get(name)
        if cached is None or cached.limits is not limits or cached.day != day:
            if len(self._caps) >= LIMITS.ledger_keys:
                self._caps.clear()
            cached = self._caps[name] = _Cached(limits, day, _caps_of(limits, day, self.currency))
        return cached.caps

    @abstractmethod
    def _try(self, key: str, caps: Caps, demand: Demand) -> Amount | None:
        """Admits a request and returns what is reserved. None if `_ask` must decide. Raises as `try_take`."""

    @abstractmethod
    async def _ask(self, key: str, caps: Caps, demand: Demand) -> Amount:
        """Admits a request that `_try` could not decide on, and returns what is reserved; raises as `try_take`."""

    @abstractmethod
    def _grow(self, key: str, caps: Caps, demand: Demand, then: Grown) -> None:
        """Works as `grow`."""

    @abstractmethod
    def _give_back(self, ticket: Ticket, more: Amount, tokens: int = 0) -> None:
        """Releases a part of a stream's reservation, and tokens that were counted for it later."""

    @abstractmethod
    def _return(self, ticket: Ticket) -> None:
        """Gives back all that was counted for a request."""

    @abstractmethod
    def _settle(self, ticket: Ticket, tokens: int) -> None:
        """Ends a stream that used these tokens."""

    @abstractmethod
    def _used(self, key: str, caps: Caps) -> LimitUsage:
        """Returns the counts of now, as far as this worker knows."""

    # -- spend --

    @abstractmethod
    def charge(self, entry: SpendEntry) -> None:
        """Adds to the spend. It counts at once for the limits of this worker; for those of others, see `reported`.

        Args:
            entry: The cost of one stream, or of several.
        """

    def reported(self, key: str) -> asyncio.Future[None] | None:
        """Returns what the end of a stream must wait for after its use has been counted: it is done when the use
        counts for all workers that share the key, or they cannot be reached. None if nothing is held back.

        Args:
            key: The key's name.
        """
        return None

    @abstractmethod
    async def spend(self, by: GroupBy, since: str | None = None, until: str | None = None) -> list[SpendRow]:
        """Returns the spend by one of the four and by currency, in the order of the values.

        Args:
            by: The columns by which it is summed.
            since: The first UTC date, as `2026-11-22`. None for the first there is.
            until: The last UTC date. None for the last there is.

        Raises:
            StoreError: It cannot be had now.
        """

    async def reset(self, key: str) -> None:
        """Resets a key's use of its limits to zero, for all workers that share it.

        Its streams under way still count, and what it has spent stays in reports.

        Args:
            key: The key's name.

        Raises:
            StoreError: The shared state cannot be reached.
        """
        await self._reset(key, [*labels_of(date_of(self._wall()), self.currency).values()])

    @abstractmethod
    async def _reset(self, key: str, labels: Sequence[str]) -> None:
        """Works as `reset`; `labels` are the periods of now."""

    @abstractmethod
    async def spent(self, key: str, period: Period) -> Amount:
        """Returns the spend of a key in the period of now, in the currency of limits.

        Args:
            key: The key's name.
            period: Its length.

        Raises:
            StoreError: As `spend`.
        """


def date_of(seconds: float) -> str:
    """Returns the UTC date of a moment, as `2026-11-22`.

    Args:
        seconds: Since the epoch.
    """
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()


def _caps_of(limits: KeyLimits, day: int, currency: str) -> Caps | None:
    values = [(place, each.counts, getattr(limits, each.name)) for place, each in enumerate(RATE_LIMITS)]
    rates = tuple([(place, limit) for place, _, limit in values if limit is not None])
    tokens = min([limit for _, counts, limit in values if counts == "tokens" and limit is not None], default=None)
    streams, spend = limits.streams, limits.spend
    if not rates and streams is None and spend is None:
        return None
    if spend is None:
        return Caps(rates, tokens, streams, None, "")
    return Caps(rates, tokens, streams, spend.amount, labels_of(date_of(day * DAY), currency)[spend.period])


_TEXTS: Final = {each.name: each.refusal for each in COUNTED_LIMITS}
_PERIODS: Final = {"d": "this day", "m": "this month", "t": "in all"}


def refusal(verdict: Verdict, caps: Caps, wall: float) -> Error:
    """Returns the error of a request that a limit refuses.

    Args:
        verdict: The verdict.
        caps: The limits.
        wall: Seconds since the epoch.
    """
    place = verdict.place
    name = NAMES[place]
    limit = {**dict(caps.rates), STREAMS: caps.streams, SPEND: caps.spend}[place]
    if limit == 0:
        return Error("rate_limited", f"this key may not make requests ({name})", reason=name, temporary=False)
    if place == SPEND:
        return Error("rate_limited", _spend_text(verdict.spent, caps, wall), reason=name, temporary=False)
    milliseconds = max(1, math.ceil(verdict.wait * 1e3 - _ROUNDING)) if verdict.wait else SHARED.overloaded_ms
    error = Error("rate_limited", f"{_TEXTS[name]} ({name} = {limit})", reason=name)
    error.retry_after_ms = milliseconds  # the true wait, which may be longer than an upstream's
    return error


def _spend_text(spent: Amount, caps: Caps, wall: float) -> str:
    """Returns the text of a refusal: amount, spent, period and reset."""
    kind, currency, reset = caps.label[0], caps.label.rpartition(" ")[2], reset_of(caps.label, wall)
    limit = caps.spend or 0
    rest = "" if spent >= limit else ", and what is left does not cover this request beside those under way"
    until = "" if reset is None else f"; the next period begins in {math.ceil(reset)} s"
    amounts = f"{decimal_text(spent)} of {decimal_text(limit)} {currency}"
    return f"this key has spent {amounts} {_PERIODS[kind]}{rest} (spend){until}"


def _bounded(demand: Demand, caps: Caps) -> Demand:
    """Returns a request's demand for the state, in which no number exceeds one that the limits refuse."""
    tokens, (least, amount), expected = demand.tokens, demand.reservation, demand.expected
    if caps.tokens is None:
        tokens = expected = 0
    elif tokens > caps.tokens:
        tokens, expected = caps.tokens, caps.tokens - min(tokens - expected, caps.tokens)
    most = 0 if caps.spend is None else caps.spend + 1
    reservation = Reservation(min(least, most), min(amount, most))
    return Demand(tokens, reservation, expected=expected, taken_from=demand.taken_from, asks_later=demand.asks_later)


_WINDOWS: Final = tuple(each.window for each in RATE_LIMITS)


def _rate_status(place: int, limit: int, used: float) -> RateStatus:
    reset = used * _WINDOWS[place] / limit if limit else 0.0
    return RateStatus(place, limit, max(0, int(limit - used + SLACK)), reset)


_NO_ANSWERS: Final[dict[str, deque[int]]] = {}


def _learn(usual: dict[str, deque[int]], model: str, output: int, most: int) -> None:
    last = usual.get(model)
    if last is None:
        if len(usual) >= most:
            usual.clear()
        last = usual[model] = deque(maxlen=LIMITS.usual_answers)
    last.append(output)


def _mean(outputs: Collection[int]) -> int:
    return -(-sum(outputs) // len(outputs))
