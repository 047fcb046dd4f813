"""Spend: what streams have cost goes to the ledger, and the report of it.

Owns which name a charge stands under, the queries of the report, and its forms, JSON and CSV.
"""

from __future__ import annotations

import csv
import io
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import date
from typing import Any, Final, NamedTuple, cast, get_args

from gai_fast.errors import Error
from gai_fast.ledger import By, Ledger, SpendEntry, SpendRow
from gai_fast.ledger.ledger import date_of
from gai_fast.limits import LIMITS
from gai_fast.metrics import StreamMetrics
from gai_fast.money import UNIT, is_absurd, written
from gai_fast.server.counts import OTHER
from gai_fast.settings import ANONYMOUS

_log: Final = logging.getLogger("gai_fast.spend")
_BYS: Final[tuple[str, ...]] = get_args(By)


class SpendSink:
    """Charges each stream's cost to its key, model, upstreams and day. A `MetricsSink`.

    Args:
        ledger: Keeps the spend.
        wall: Seconds since the epoch.
    """

    def __init__(self, ledger: Ledger, wall: Callable[[], float] = time.time) -> None:
        self._ledger = ledger
        self._wall = wall
        self._told: set[tuple[str, str]] = set()

    def stream_ended(self, metrics: StreamMetrics) -> None:
        """Charges the stream's attempts, each to its own upstream; the request counts for the last one's."""
        charges = metrics.charges
        if not charges:
            return
        day = date_of(self._wall())
        model = metrics.model if len(metrics.model) <= LIMITS.usage_name else OTHER
        last = len(charges) - 1
        for number, (_, upstream, amount, currency) in enumerate(charges):
            entry = SpendEntry(
                metrics.key or ANONYMOUS, model, upstream, day, currency, amount, requests=int(number == last)
            )
            self._ledger.charge(entry)
            if currency != self._ledger.currency:
                text = "costs %s, and prices are in %s: this counts for no limit of spend; give its models a price"
                self._tell_once("currency", upstream, text, currency, self._ledger.currency)
        if metrics.usage is not None and is_absurd(metrics.usage):
            text = "counts more than %d tokens in an answer, which is charged for so many"
            self._tell_once("tokens", metrics.upstream, text, LIMITS.priced_tokens)

    def _tell_once(self, kind: str, upstream: str, text: str, *values: object) -> None:
        if (kind, upstream) not in self._told:
            self._told.add((kind, upstream))
            _log.warning(f"upstream %r {text}", upstream, *values)


class SpendQuery(NamedTuple):
    """A question for the report.

    Attributes:
        by: What spend is added up by.
        since: The first UTC date; `None`: the first there is.
        until: The last UTC date; `None`: the last there is.
        as_csv: The report is CSV, not JSON.
    """

    by: By
    since: str | None
    until: str | None
    as_csv: bool


def read_query(query: Mapping[str, str]) -> SpendQuery:
    """Reads `by`, `from`, `to` and `format`.

    Args:
        query: The parameters of a URL.

    Raises:
        InvalidRequest: One is not valid; the text names it and what it may be.
    """
    by, form = query.get("by", "key"), query.get("format", "json")
    if by not in _BYS:
        raise Error("invalid_request", f"`by` must be {', '.join(_BYS)}", reason="by")
    if form not in ("json", "csv"):
        raise Error("invalid_request", "`format` must be json or csv", reason="format")
    return SpendQuery(cast("By", by), _date(query, "from"), _date(query, "to"), form == "csv")


def _date(query: Mapping[str, str], name: str) -> str | None:
    text = query.get(name)
    if text is None:
        return None
    with suppress(ValueError):
        if date.fromisoformat(text).isoformat() == text:  # it reads other forms, too, such as weeks
            return text
    raise Error("invalid_request", f"`{name}` must be a date in UTC, such as 2026-11-22", reason=name)


async def spend_report(ledger: Ledger, query: SpendQuery, prices_date: str | None) -> dict[str, Any]:
    """Returns the report as JSON values: `data`, a row for each name and currency, and `prices_date`.

    Args:
        ledger: Has the spend.
        query: What is asked.
        prices_date: The date of the price list.

    Raises:
        StoreError: The spend cannot be had now.
    """
    rows = await ledger.spend(query.by, query.since, query.until)
    data = [
        {query.by: row.value, "amount": row.amount / UNIT, "currency": row.currency, "requests": row.requests}
        for row in rows
    ]
    return {"data": data, "prices_date": prices_date}


async def spend_csv(ledger: Ledger, query: SpendQuery) -> str:
    """Returns the report as CSV (RFC 4180), with a head line; amounts have all digits.

    Args:
        ledger: Has the spend.
        query: What is asked.

    Raises:
        StoreError: The spend cannot be had now.
    """
    rows: Sequence[SpendRow] = await ledger.spend(query.by, query.since, query.until)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow((query.by, "amount", "currency", "requests"))
    writer.writerows((row.value, written(row.amount), row.currency, row.requests) for row in rows)
    return text.getvalue()
