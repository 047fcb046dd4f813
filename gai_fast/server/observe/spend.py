"""Spend: charges the cost of streams to the ledger. Owns the names to which a cost is charged, and when.

A stream is charged at its end. If the ledger outlives this process, a running stream is also charged as it goes, so a
worker that is killed loses the cost of `limits.spend_beat` seconds. Its end then charges the rest, or gives back what
was too much, to the days on which it was charged.

`admin/spend_report.py` has the report of the spend.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from gai_fast.ledger import Ledger, SpendEntry
from gai_fast.ledger.ledger import date_of
from gai_fast.model.metrics import StreamMetrics
from gai_fast.model.money import Amount, Charge
from gai_fast.server.limits import LIMITS

_log: Final = logging.getLogger("gai_fast.spend")

_Costs = dict[tuple[str, str], Amount]
"""Amounts by upstream and currency."""


class ChargedStream(Protocol):
    """The part of a session that is read while it runs."""

    @property
    def stream_id(self) -> str:
        """The stream's id."""

    @property
    def caller(self) -> str:
        """The name of the stream's caller."""

    @property
    def model(self) -> str:
        """The name of the model that was requested."""

    @property
    def charges(self) -> tuple[Charge, ...]:
        """The cost of the stream, if its client disconnected now."""


class SpendSink:
    """Charges each stream's cost to its key, model, upstreams and day. A `MetricsSink`.

    Args:
        ledger: Keeps the spend.
        wall: Returns seconds since the epoch.
    """

    def __init__(self, ledger: Ledger, wall: Callable[[], float] = time.time) -> None:
        self._ledger = ledger
        self._wall = wall
        self._warned: set[tuple[str, str]] = set()
        self._charged: dict[str, dict[tuple[str, str], dict[str, Amount]]] = {}  # by running stream, and by day

    def charge_running(self, stream: ChargedStream) -> None:
        """Charges a running stream with what it has cost since it was last charged.

        Args:
            stream: The stream.
        """
        costs = _sums(stream.charges)
        if not costs:
            return
        charged = self._charged.setdefault(stream.stream_id, {})
        day = date_of(self._wall())
        for place, amount in costs.items():
            days = charged.setdefault(place, {})
            more = amount - sum(days.values())
            if more > 0:  # an attempt that turns out to be free is settled at the end
                days[day] = days.get(day, 0) + more
                upstream, currency = place
                entry = SpendEntry(stream.caller, stream.model, upstream, day, currency, more, requests=0)
                self._ledger.charge_running(entry, stream.stream_id)

    def stream_ended(self, metrics: StreamMetrics) -> None:
        """Charges each attempt of the stream to its upstream. The request counts for the last attempt's upstream."""
        if metrics.absurd_tokens:
            text = "counts more than its model has room for, %d tokens of one answer: an estimate is charged"
            self._warn_once("tokens", metrics.upstream, text, metrics.absurd_tokens)
        charges = metrics.charges
        charged = self._charged.pop(metrics.stream_id, {}) if self._charged else {}
        if not charges and not charged:
            return
        day = date_of(self._wall())
        costs = _sums(charges)
        last = (charges[-1].upstream, charges[-1].currency) if charges else None
        for place in costs.keys() | charged.keys():
            days = charged.get(place, {})
            rest = costs.get(place, 0) - sum(days.values())
            upstream, currency = place
            entry = SpendEntry(metrics.key, metrics.model, upstream, day, currency, max(0, rest), int(place == last))
            if entry.amount or entry.requests:
                self._ledger.charge(entry)
            for charged_on in reversed(days):  # the provider counts less
                back = min(-rest, days[charged_on])
                if back > 0:
                    rest += back
                    self._ledger.charge(entry._replace(day=charged_on, amount=-back, requests=0))
        for upstream, currency in costs:
            if currency != self._ledger.currency:
                text = "costs %s, and prices are in %s: this counts for no limit of spend; give its models a price"
                self._warn_once("currency", upstream, text, currency, self._ledger.currency)

    def _warn_once(self, kind: str, upstream: str, text: str, *values: object) -> None:
        if (kind, upstream) not in self._warned:
            self._warned.add((kind, upstream))
            _log.warning(f"upstream %r {text}", upstream, *values)


def _sums(charges: Sequence[Charge]) -> _Costs:
    costs: _Costs = {}
    for _, upstream, amount, currency in charges:
        costs[upstream, currency] = costs.get((upstream, currency), 0) + amount
    return costs


class RunningSpend:
    """Charges the running streams of a process as they go.

    Args:
        loop: The loop of the streams.
        streams: The streams, by id, the oldest first.
        sink: Charges them.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, streams: Mapping[str, ChargedStream], sink: SpendSink) -> None:
        self._loop = loop
        self._streams = streams
        self._sink = sink
        self._unseen: list[ChargedStream] = []  # the streams that the next turns come to
        self._next = loop.time() + LIMITS.spend_beat
        self._handle = loop.call_at(self._next, self._look)

    def _look(self) -> None:
        if not self._unseen:
            self._next = max(self._next + LIMITS.spend_beat, self._loop.time() + LIMITS.spend_turn)
            self._unseen = [*self._streams.values()]
        for _ in range(min(LIMITS.spend_look, len(self._unseen))):
            stream = self._unseen.pop()
            if stream.stream_id in self._streams:
                self._sink.charge_running(stream)
        at = self._loop.time() + LIMITS.spend_turn if self._unseen else self._next
        self._handle = self._loop.call_at(at, self._look)

    def close(self) -> None:
        """Charges no more; idempotent."""
        self._handle.cancel()
