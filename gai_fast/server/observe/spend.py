"""Spend: charges the cost of streams to the ledger. Owns the names to which a cost is charged.

`admin/spend_report.py` has the report of the spend.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from gai_fast.ledger import Ledger, SpendEntry
from gai_fast.ledger.ledger import date_of
from gai_fast.model.limits import SHARED
from gai_fast.model.metrics import StreamMetrics
from gai_fast.model.money import is_absurd

_log: Final = logging.getLogger("gai_fast.spend")


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

    def stream_ended(self, metrics: StreamMetrics) -> None:
        """Charges each attempt of the stream to its upstream. The request counts for the last attempt's upstream."""
        charges = metrics.charges
        if not charges:
            return
        day = date_of(self._wall())
        last = len(charges) - 1
        for number, (_, upstream, amount, currency) in enumerate(charges):
            entry = SpendEntry(
                metrics.key, metrics.model, upstream, day, currency, amount, requests=int(number == last)
            )
            self._ledger.charge(entry)
            if currency != self._ledger.currency:
                text = "costs %s, and prices are in %s: this counts for no limit of spend; give its models a price"
                self._warn_once("currency", upstream, text, currency, self._ledger.currency)
        if metrics.usage is not None and is_absurd(metrics.usage):
            text = "counts more than %d tokens in an answer, which is charged for so many"
            self._warn_once("tokens", metrics.upstream, text, SHARED.priced_tokens)

    def _warn_once(self, kind: str, upstream: str, text: str, *values: object) -> None:
        if (kind, upstream) not in self._warned:
            self._warned.add((kind, upstream))
            _log.warning(f"upstream %r {text}", upstream, *values)
