"""The report of spend."""

from __future__ import annotations

import asyncio
import csv
import io
from typing import Any

import pytest

from gai_fast.ledger import LocalLedger, SpendEntry
from gai_fast.model.errors import Error
from gai_fast.model.money import UNIT
from gai_fast.server.admin.bodies import plain
from gai_fast.server.admin.spend_report import SpendQuery, read_query, spend_csv, spend_report

CENT = UNIT // 100


@pytest.fixture
def ledger() -> LocalLedger:
    return LocalLedger()


def report(ledger: LocalLedger, **query: str) -> list[Any]:
    data: list[Any] = plain(asyncio.run(spend_report(ledger, read_query(query), None)))["data"]
    return data


def test_from_and_to_are_days_and_both_count(ledger: LocalLedger) -> None:
    for day in ("2026-11-21", "2026-11-22", "2026-11-23"):
        ledger.charge(SpendEntry("ann", "fast", "up", day, "USD", CENT))
    days = [row["day"] for row in report(ledger, by="day", **{"from": "2026-11-22", "to": "2026-11-22"})]
    assert days == ["2026-11-22"]
    assert len(report(ledger, by="day", **{"from": "2026-11-22"})) == 2
    assert report(ledger, **{"from": "2026-11-23", "to": "2026-11-21"}) == []


def test_the_date_of_the_prices_stands_beside_the_rows(ledger: LocalLedger) -> None:
    result = plain(asyncio.run(spend_report(ledger, read_query({}), "2026-11-20")))
    assert result == {"data": [], "prices_date": "2026-11-20"}


def test_names_are_quoted_where_csv_needs_it(ledger: LocalLedger) -> None:
    ledger.charge(SpendEntry("ann", 'a,"b"', "up", "2026-11-22", "USD", CENT))
    result = asyncio.run(spend_csv(ledger, read_query({"by": "model", "format": "csv"})))
    assert list(csv.reader(io.StringIO(result)))[1] == ['a,"b"', "0.01", "USD", "1"]


def test_a_query_may_leave_all_out() -> None:
    assert read_query({}) == SpendQuery("key", None, None, as_csv=False)
    assert read_query({"by": "day", "format": "csv", "from": "2026-02-28"}) == SpendQuery(
        "day", "2026-02-28", None, as_csv=True
    )


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ({"by": "caller"}, "by"),
        ({"by": ""}, "by"),
        ({"format": "xml"}, "format"),
        ({"from": "yesterday"}, "from"),
        ({"from": "2026-02-30"}, "from"),
        ({"from": "2026-W01-1"}, "from"),
        ({"to": "20261122"}, "to"),
        ({"to": ""}, "to"),
    ],
)
def test_a_query_that_is_not_valid_is_refused(query: dict[str, str], name: str) -> None:
    with pytest.raises(Error, match=f"`{name}` must be") as caught:
        read_query(query)
    assert (caught.value.code, caught.value.status, caught.value.reason) == ("invalid_request", 400, name)


def test_a_misspelled_parameter_does_not_give_the_spend_of_another_time() -> None:
    with pytest.raises(Error, match="the parameters are `by`, `from`, `to` and `format`") as caught:
        read_query({"since": "2026-11-01"})
    assert (caught.value.status, caught.value.reason) == (400, "query")
