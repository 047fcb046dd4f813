"""`Ledger`: what the parts of a server ask and tell about limits and spend.

Owns the requests that are counted, from their admission to their end, and the error of one that is refused. Subclasses
own where the state is: in this process (`local.py`), or in one that several workers share (`shared.py`).

1. A request is counted when it starts a stream: it is valid, and no stream of an idempotency key answers it.
2. What was counted by an estimate is settled once, at the end of its stream: by its usage; to nothing, where the
   stream never began.
3. Every stream that was admitted is released once, however it ends.
4. A client that has read the end of its stream, and then asks any worker, meets what the stream has used.
"""

from __future__ import annotations

import asyncio
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

from gai_fast.ledger._base import (
    NAMES,
    REQUESTS,
    SPEND,
    STREAMS,
    TOKENS,
    By,
    Caps,
    Left,
    Period,
    SpendEntry,
    SpendRow,
    label_of,
)
from gai_fast.model.errors import Error, RateLimited
from gai_fast.model.limits import SHARED
from gai_fast.model.metrics import StreamMetrics
from gai_fast.model.money import USD, Amount, tokens_of
from gai_fast.model.settings import KeyLimits, KeySettings

DAY: Final = 24 * 60 * 60
_ROUNDING: Final = 1e-3
"""Milliseconds that a wait may be shortened by: else 3 s might become 3.001, and four whole seconds."""


class Ticket(NamedTuple):
    """One request that was admitted.

    Attributes:
        key: The key's name.
        tokens: The tokens that were counted for it.
    """

    key: str
    tokens: int


class _Cached(NamedTuple):
    limits: KeyLimits
    day: int
    caps: Caps | None


class Ledger(ABC):
    """Limits and spend of keys; a `MetricsSink`.

    Args:
        wall: Seconds since the epoch, for the periods of spend.

    Attributes:
        currency: The currency of limits of spend. Spend in another one is reported, and counts for no limit.
        refused: How many requests of this process each limit has refused.
    """

    def __init__(self, wall: Callable[[], float]) -> None:
        self.currency = USD
        self.refused = dict.fromkeys(NAMES, 0)
        self._wall = wall
        self._tickets: dict[str, Ticket] = {}  # by stream
        self._caps: dict[str, _Cached] = {}
        self._limits: dict[str, KeyLimits] = {}

    @property
    def problem(self) -> str | None:
        """Why the shared state cannot be used now; `None`: it can."""
        return None

    async def open(self) -> None:  # noqa: B027  # nothing to do for a ledger in this process
        """Begins. Must be called before anything else.

        Raises:
            StoreError: The shared state cannot be used.
        """

    async def close(self) -> None:  # noqa: B027  # nothing to do for a ledger in this process
        """Ends, after all that is to be kept has been handed over."""

    async def recall(self, names: Sequence[str]) -> None:  # noqa: B027  # nothing to do for a ledger in this process
        """Gives back what this worker keeps of keys for itself, and tells others what it has used of them.

        Args:
            names: The keys' names.
        """

    def use(self, keys: Sequence[KeySettings], currency: str = USD) -> None:
        """Goes on with these keys. What was used stays used.

        Args:
            keys: `[[key]]`.
            currency: The currency of the prices.
        """
        if currency != self.currency:
            self.currency = currency
            self._caps.clear()
        self._limits = {key.name: key.limits for key in keys}
        for name in [name for name in self._caps if name not in self._limits]:
            del self._caps[name]

    # -- limits --

    def try_take(self, key: KeySettings, stream_id: str, tokens: int) -> bool:
        """Admits a request, if that can be decided at once.

        Args:
            key: The caller's.
            stream_id: The id of the stream that it starts.
            tokens: The estimate of its tokens.

        Returns:
            `False`: `take` must decide.

        Raises:
            RateLimited: A limit refuses it; `reason` is the limit's key.
            Overloaded: The store fails, and the configuration wants such requests refused.
        """
        caps = self.caps(key)
        if caps is None:
            return True
        if caps.tokens is not None and tokens > caps.tokens:
            tokens = caps.tokens
        try:
            is_admitted = self._try(key.name, caps, tokens)
        except RateLimited as refused:
            self._count(refused)
            raise
        if not is_admitted:
            return False
        self._tickets[stream_id] = Ticket(key.name, tokens)
        return True

    async def take(
        self, key: KeySettings | None, stream_id: str, tokens: int, then: Callable[[], object] | None = None
    ) -> None:
        """Admits a request, and then calls `then`; as `try_take`.

        Args:
            key: The caller's; without one there are no limits.
            stream_id: As `try_take`.
            tokens: As `try_take`.
            then: Starts the stream of the request.

        Raises:
            RateLimited: As `try_take`.
            Overloaded: As `try_take`.
        """
        if key is not None and not self.try_take(key, stream_id, tokens):
            await self._take_shared(key, stream_id, tokens)
        if then is not None:
            then()

    async def _take_shared(self, key: KeySettings, stream_id: str, tokens: int) -> None:
        caps = self.caps(key)
        if caps is None:
            return
        if caps.tokens is not None and tokens > caps.tokens:
            tokens = caps.tokens
        try:
            await self._ask(key.name, caps, tokens)
        except RateLimited as refused:
            self._count(refused)
            raise
        self._tickets[stream_id] = Ticket(key.name, tokens)

    def _count(self, refused: RateLimited) -> None:
        if refused.reason in self.refused:
            self.refused[refused.reason] += 1

    def cancel(self, stream_id: str) -> None:
        """Takes back the admission of a request whose stream has not begun. Does nothing where there is none."""
        ticket = self._tickets.pop(stream_id, None)
        if ticket is not None:
            self._return(ticket)

    def settle(self, stream_id: str, tokens: int) -> None:
        """Ends a stream. Does nothing where it was not admitted here, or has ended.

        Args:
            stream_id: The stream's id.
            tokens: The tokens that it has used.
        """
        ticket = self._tickets.pop(stream_id, None)
        if ticket is not None:
            self._settle(ticket, min(tokens, SHARED.priced_tokens))  # an upstream may say any number

    def stream_ended(self, metrics: StreamMetrics) -> None:
        """A stream has ended; as `MetricsSink.stream_ended`."""
        if metrics.stream_id not in self._tickets:
            return
        if metrics.outcome == "refused":
            self.cancel(metrics.stream_id)
            return
        usage = {} if metrics.is_shared else metrics.usage or {}
        self.settle(metrics.stream_id, tokens_of(usage, "input_tokens") + tokens_of(usage, "output_tokens"))

    def left(self, key: KeySettings) -> Left | None:
        """Returns what is left of a key's limits a minute; `None`: it has none.

        Args:
            key: The caller's.
        """
        caps = self.caps(key)
        return None if caps is None or (caps.requests is None and caps.tokens is None) else self._left(key.name, caps)

    def streams_of(self, name: str) -> int | None:
        """Returns the limit of a key's streams; `None`: it has none, or there is no such key.

        Args:
            name: The key's name.
        """
        limits = self._limits.get(name)
        return None if limits is None else limits.streams

    def caps(self, key: KeySettings) -> Caps | None:
        """Returns the limits of a key as they are today; `None`: it has none."""
        day = int(self._wall()) // DAY
        cached = self._caps.get(key.name)
        if cached is None or cached.limits is not key.limits or cached.day != day:
            cached = self._caps[key.name] = _Cached(key.limits, day, _caps_of(key.limits, day, self.currency))
        return cached.caps

    @abstractmethod
    def _try(self, key: str, caps: Caps, tokens: int) -> bool:
        """Admits a request; `False`: `_ask` must decide; raises as `try_take`."""

    @abstractmethod
    async def _ask(self, key: str, caps: Caps, tokens: int) -> None:
        """Admits a request that `_try` could not decide on; raises as `try_take`."""

    @abstractmethod
    def _return(self, ticket: Ticket) -> None:
        """Gives back all that was counted for a request."""

    @abstractmethod
    def _settle(self, ticket: Ticket, tokens: int) -> None:
        """Ends a stream that used these tokens."""

    @abstractmethod
    def _left(self, key: str, caps: Caps) -> Left:
        """As `left`."""

    # -- spend --

    @abstractmethod
    def charge(self, entry: SpendEntry) -> None:
        """Adds to the spend. It counts at once for the limits of this worker; for those of others, see `reported`.

        Args:
            entry: The cost of one stream, or of several.
        """

    def reported(self, key: str) -> asyncio.Future[None] | None:
        """Returns what the end of a stream must wait for after its use has been counted: it is done when the use
        counts for all workers that share the key, or they cannot be reached. `None`: nothing.

        Args:
            key: The key's name.
        """
        return None

    @abstractmethod
    async def spend(self, by: By, since: str | None = None, until: str | None = None) -> list[SpendRow]:
        """Returns the spend by one of the four and by currency, in the order of the values.

        Args:
            by: What it is added up by.
            since: The first UTC date, as `2026-11-22`; `None`: the first there is.
            until: The last one; `None`: the last there is.

        Raises:
            StoreError: It cannot be had now.
        """

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
    requests, tokens, streams, spend = (
        limits.requests_per_minute,
        limits.tokens_per_minute,
        limits.streams,
        limits.spend,
    )
    if requests is None and tokens is None and streams is None and spend is None:
        return None
    if spend is None:
        return Caps(requests, tokens, streams, None, "")
    return Caps(requests, tokens, streams, spend.amount, label_of(spend.period, date_of(day * DAY), currency))


_TEXTS: Final = {
    REQUESTS: "this key has made as many requests as it may in a minute",
    TOKENS: "this key has used as many tokens as it may in a minute",
    STREAMS: "this key has as many streams under way as it may",
    SPEND: "this key has spent as much as it may",
}


def refusal(place: int, wait: float, caps: Caps) -> Error:
    """Returns the error of a request that a limit refuses.

    Args:
        place: The limit's place.
        wait: Seconds until it would admit the request; 0: that is not known, or never.
        caps: The limits.
    """
    name = NAMES[place]
    if place == SPEND or caps[place] == 0:
        text = _TEXTS[place] if caps[place] else "this key may not make requests"
        return Error("rate_limited", f"{text} ({name})", reason=name, temporary=False)
    milliseconds = max(1, math.ceil(wait * 1e3 - _ROUNDING)) if wait else SHARED.overloaded_ms
    error = Error("rate_limited", f"{_TEXTS[place]} ({name} = {caps[place]})", reason=name)
    error.retry_after_ms = milliseconds  # the true wait, which may be longer than that of an upstream
    return error
