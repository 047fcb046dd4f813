"""The names of periods."""

from __future__ import annotations

from gai_fast.ledger._base import labels_of


def test_a_period_has_one_name_whichever_day_of_it_is_given() -> None:
    first, last, next_month = (labels_of(day, "USD") for day in ("2026-11-01", "2026-11-30", "2026-12-01"))
    assert first["month"] == last["month"] != next_month["month"]
    assert first["total"] == last["total"] == labels_of("2027-11-01", "USD")["total"]
    assert first["day"] != last["day"]


def test_a_day_is_in_one_period_of_each_length() -> None:
    assert len({*labels_of("2026-11-22", "USD").values()}) == 3
    assert {*labels_of("2026-11-22", "USD").values()}.isdisjoint(labels_of("2026-11-22", "EUR").values())
