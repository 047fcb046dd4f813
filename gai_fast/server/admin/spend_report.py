"""The report of spend. Owns its queries, and its forms, JSON and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import date
from typing import Any, Final, NamedTuple, cast, get_args

from gai_fast.ledger import By, Ledger, SpendRow
from gai_fast.model.errors import Error
from gai_fast.model.money import units, written

_BYS: Final[tuple[str, ...]] = get_args(By)


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
        {query.by: row.value, "amount": units(row.amount), "currency": row.currency, "requests": row.requests}
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
