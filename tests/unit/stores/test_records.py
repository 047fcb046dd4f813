"""`gai_fast/stores/records.py`: records have a time, and no holder has more than a share."""

from __future__ import annotations

import contextlib

import pytest

from gai_fast.model.errors import Error
from gai_fast.stores.records import ClaimBudget, RecordTable
from tests.conftest import ChangeLimits
from tests.limits import LIMITS
from tests.unit.net.fakes import FakeTime

K = "claim"


def put(table: RecordTable, name: str, value: bytes = b"v", ttl: float | None = 60, holder: str = "") -> None:
    table.put(K, name, value, ttl, holder)


def test_a_record_is_gone_after_its_time(time: FakeTime) -> None:
    table = RecordTable(time.clock)
    put(table, "first")
    put(table, "kept", ttl=None)
    put(table, "short", ttl=10)
    time.advance(11)
    assert [table.get(K, name) for name in ("first", "short", "kept")] == [b"v", None, b"v"]
    put(table, "first", b"again")
    time.advance(50)
    put(table, "other")
    assert (table.get(K, "first"), len(table)) == (b"again", 3), "its first time is over, its second is not"
    time.advance(61)
    put(table, "other")
    assert (table.get(K, "kept"), len(table)) == (b"v", 2), "what is past its time is not kept"


def test_records_that_expire_together_cost_each_the_same(time: FakeTime, change_limits: ChangeLimits) -> None:
    """A dict whose first entry is removed again and again costs the square: minutes for all, seconds for these."""
    change_limits(records=LIMITS.records // 4)
    table = RecordTable(time.clock)
    for number in range(LIMITS.records // 2):
        put(table, f"key {number}")
    time.advance(61)
    put(table, "key")
    assert len(table) == 1


def test_records_that_are_removed_again_and_again_leave_nothing(time: FakeTime) -> None:
    table = RecordTable(time.clock)
    put(table, "kept")
    for _ in range(10_000):
        put(table, "key", ttl=86_400)
        assert table.delete(K, "key", None)
    assert len(table._due) <= LIMITS.record_times + 2


def test_each_kind_has_room_for_so_many_and_large_values_count_for_several(
    time: FakeTime, change_limits: ChangeLimits
) -> None:
    change_limits(records=8)
    table = RecordTable(time.clock)
    put(table, "large", bytes(2 * LIMITS.record_unit))
    put(table, "small")
    with pytest.raises(Error, match="no room") as refused:
        put(table, "third")
    assert (refused.value.code, refused.value.reason) == ("overloaded", "store")
    with pytest.raises(Error, match="no room"):
        put(table, "small", bytes(LIMITS.record_unit))
    assert table.get(K, "small") == b"v", "what it has stays as it is"
    put(table, "third", holder="another")
    table.put("other kind", "third", b"v", 60, "")
    put(table, "large")
    put(table, "third")
    assert len(table) == 4
    time.advance(61)
    put(table, "third")
    assert table._counts == {K: 1, "other kind": 0}
    assert table._held == {(K, ""): 1}


def test_a_process_holds_no_more_keys_than_its_share(time: FakeTime) -> None:
    budget = ClaimBudget(86_400, time.clock)
    assert _fill(budget, "anna") == LIMITS.claims // 2
    with pytest.raises(Error, match="no room for another idempotency key") as refused:
        budget.take("anna")
    assert (refused.value.code, refused.value.reason) == ("overloaded", "store")
    budget.give_back("anna")
    assert _fill(budget, "anna") == 1
    time.advance(86_400 * 1.01)
    assert _fill(budget, "anna") == LIMITS.claims // 2


def _fill(budget: ClaimBudget, caller: str) -> int:
    """Takes as many keys as the caller gets."""
    taken = 0
    with contextlib.suppress(Error):
        while True:
            budget.take(caller)
            taken += 1
    return taken


def test_a_caller_leaves_room_for_the_others(time: FakeTime, change_limits: ChangeLimits) -> None:
    change_limits(claims=1200)
    budget = ClaimBudget(100, time.clock)
    assert [_fill(budget, caller) for caller in ("anna", "bert", "carl")] == [600, 300, 150]
    time.advance(50)
    for _ in range(100):
        budget.give_back("anna")
    assert [_fill(budget, caller) for caller in ("anna", "bert", "carl")] == [0, 0, 50]
    time.advance(51)
    assert [_fill(budget, caller) for caller in ("carl", "bert", "anna")] == [550, 300, 150]
    time.advance(200)
    budget.give_back("nobody")
    assert _fill(budget, "bert") == 600


def test_the_share_is_had_again_as_keys_become_free(time: FakeTime, change_limits: ChangeLimits) -> None:
    change_limits(claims=LIMITS.claims // 10)
    budget = ClaimBudget(100, time.clock)
    taken = 0
    for _ in range(400):  # over four times the time
        for _ in range(LIMITS.claims // 170):
            budget.take(f"caller {taken % 2}")
            taken += 1
        time.advance(1)
    assert taken > 2 * LIMITS.claims
    assert len(budget._taken) < 300, "the times of single keys are not kept"
