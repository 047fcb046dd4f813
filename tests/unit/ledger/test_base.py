"""The names of periods."""

from __future__ import annotations

from gai_fast.ledger._base import label_of, labels_of


def test_a_period_has_one_name_whichever_day_of_it_is_given() -> None:
    assert (
        label_of("month", "2026-11-01", "USD")
        == label_of("month", "2026-11-30", "USD")
        != label_of("month", "2026-12-01", "USD")
    )
    assert label_of("total", "2026-11-01", "USD") == label_of("total", "2027-11-01", "USD")
    assert label_of("day", "2026-11-01", "USD") != label_of("day", "2026-11-02", "USD")


def test_a_day_is_in_one_period_of_each_length() -> None:
    day = "2026-11-22"
    assert labels_of(day, "USD") == (
        label_of("day", day, "USD"),
        label_of("month", day, "USD"),
        label_of("total", day, "USD"),
    )
