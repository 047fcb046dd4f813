"""The report of spend. Owns its query parameters, and its form as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import date
from typing import Final, NamedTuple, cast, get_args

from gai_fast.ledger import GroupBy, Ledger, SpendRow
from gai_fast.model.errors import Error
from gai_fast.model.money import decimal_text, units
from gai_fast.server.admin.bodies import Spend, Spent

_COLUMNS: Final[tuple[str, ...]] = get_args(GroupBy)
_PARAMETERS: Final = frozenset(("by", "from", "to", "format"))


class SpendQuery(NamedTuple):
    """The parameters of a report.

    Attributes:
        by: The dimension by which spend is added up.
        since: The first UTC date. `None` if the report starts with the first entry.
        until: The last UTC date. `None` if the report ends with the last entry.
        as_csv: Whether the report is CSV instead of JSON.
    """

    by: GroupBy
    since: str | None
    until: str | None
    as_csv: bool


def read_query(query: Mapping[str, str]) -> SpendQuery:
    """Reads `by`, `from`, `to` and `format`.

    Args:
        query: The parameters of a URL.

    Raises:
        InvalidRequest: A parameter is invalid; the text names it and the valid values.
    """
    if not query.keys() <= _PARAMETERS:  # a misspelled date would give the spend of another time
        raise Error("invalid_request", "the parameters are `by`, `from`, `to` and `format`", reason="query")
    by, form = query.get("by", "key"), query.get("format", "json")
    if by not in _COLUMNS:
        raise Error("invalid_request", f"`by` must be one of {', '.join(_COLUMNS)}", reason="by")
    if form not in ("json", "csv"):
        raise Error("invalid_request", "`format` must be json or csv", reason="format")
    return SpendQuery(cast("GroupBy", by), _date(query, "from"), _date(query, "to"), form == "csv")


def _date(query: Mapping[str, str], name: str) -> str | None:
    text = query.get(name)
    if text is None:
        return None
    with suppress(ValueError):
        if date.fromisoformat(text).isoformat() == text:  # `fromisoformat` also reads other forms, such as weeks
            return text
    raise Error("invalid_request", f"`{name}` must be a date in UTC, such as 2026-11-22", reason=name)


async def spend_report(ledger: Ledger, query: SpendQuery, prices_date: str | None) -> Spend:
    """Returns the report: a row for each name and currency.

    Args:
        ledger: Has the spend.
        query: The parameters.
        prices_date: The date of the price list.

    Raises:
        StoreError: The spend is unavailable now.
    """
    rows = await ledger.spend(query.by, query.since, query.until)
    return Spend([shown(query.by, row) for row in rows], prices_date)


def shown(by: GroupBy, row: SpendRow) -> Spent:
    """Returns a row as the admin API shows it.

    Args:
        by: The dimension by which spend is added up.
        row: The row.
    """
    return Spent(**{by: row.value}, amount=units(row.amount), currency=row.currency, requests=row.requests)


async def spend_csv(ledger: Ledger, query: SpendQuery) -> str:
    """Returns the report as CSV (RFC 4180), with a header line. Amounts have all digits.

    Args:
        ledger: Has the spend.
        query: The parameters.

    Raises:
        StoreError: The spend is unavailable now.
    """
    rows: Sequence[SpendRow] = await ledger.spend(query.by, query.since, query.until)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow((query.by, "amount", "currency", "requests"))
    writer.writerows((row.value, decimal_text(row.amount), row.currency, row.requests) for row in rows)
    return text.getvalue()
