"""The states of all keys in one process, and the reports of workers."""

from __future__ import annotations

import pytest

from gai_fast.ledger import SpendEntry
from gai_fast.ledger._base import GRANTED, STREAMS, Caps, Demand, Verdict
from gai_fast.ledger.home import Home, Report
from tests.conftest import ChangeLimits
from tests.key_limits import caps_of

ENTRY = SpendEntry("ann", "fast", "up", "2026-11-22", "USD", 5)


def report(caps: Caps, demands: list[Demand], live: int = 0, key: str = "ann") -> Report:
    return Report(key, caps, 0, 0, 0.0, live, 0, demands)


def test_an_exchange_that_is_sent_again_counts_once() -> None:
    here = Home(lambda: 0.0)
    assert here.exchange("a", 1, [ENTRY], []) == []
    assert here.exchange("a", 1, [ENTRY], []) is None
    assert here.exchange("b", 1, [ENTRY], []) == []
    assert here.book.rows("key", None, None) == [("ann", "USD", 10, 2)]
    assert here.state("ann").spent["t USD"] == 10


def test_requests_are_decided_in_order() -> None:
    here = Home(lambda: 0.0)
    caps = caps_of(1600, None, None, None, "")
    answers = here.exchange("a", 1, [], [report(caps, [Demand()] * 3)])
    assert answers is not None
    assert answers[0].verdicts == [Verdict(GRANTED)] * 3
    assert answers[0].used == ((pytest.approx(3), 0.0), 0, 0)


def test_a_worker_that_is_gone_has_nothing() -> None:
    now = 0.0
    here = Home(lambda: now)
    caps = caps_of(None, None, 1, None, "")
    here.exchange("a", 1, [], [report(caps, [Demand()])])
    now = 1.0
    answers = here.exchange("b", 1, [], [report(caps, [Demand()])])
    assert answers is not None
    assert answers[0].verdicts == [Verdict(STREAMS)]
    here.forget("a")
    answers = here.exchange("b", 2, [], [report(caps, [Demand()])])
    assert answers is not None
    assert answers[0].verdicts == [Verdict(GRANTED)]


def test_keys_of_which_nothing_is_in_use_make_room(change_limits: ChangeLimits) -> None:
    change_limits(ledger_keys=2)
    here = Home(lambda: 0.0)
    used = here.state("ann")
    here.charge(ENTRY)
    here.state("bob")
    here.state("cyd")
    assert here.state("ann") is used
    assert set(here._states) == {"ann", "cyd"}


def test_keys_that_are_all_in_use_are_not_looked_through_for_each_new_one(change_limits: ChangeLimits) -> None:
    """With 100,000 callers of an issuer who have spent, each new caller cost the supervisor 20 ms."""
    change_limits(ledger_keys=160)
    looks = 0

    def clock() -> float:
        nonlocal looks
        looks += 1
        return 0.0

    here = Home(clock)
    for number in range(320):
        here.charge(ENTRY._replace(key=f"staff:{number}"))
    assert looks == 12
    assert len(here._states) == 320, "what was spent is kept"
