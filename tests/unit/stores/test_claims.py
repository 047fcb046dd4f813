"""`gai_fast/stores/claims.py`: a key belongs to one stream for its time, and nobody holds more than a share."""

from __future__ import annotations

import contextlib

import pytest

from gai_fast.model.errors import Error
from gai_fast.stores import Claim
from gai_fast.stores.claims import ClaimBudget, MemoryClaims
from tests.conftest import ChangeLimits
from tests.limits import LIMITS
from tests.unit.net.fakes import FakeTime

MINE, THEIRS = Claim("s", "body"), Claim("t", "body")


def test_a_key_is_taken_once(time: FakeTime) -> None:
    claims = MemoryClaims(time.clock)
    assert claims.claim("key", MINE, 60) is None
    assert claims.claim("key", THEIRS, 60) == MINE
    assert claims.claim("key", MINE, 60) is None
    assert claims.claim("other", THEIRS, 60) is None


def test_a_key_is_free_after_its_time(time: FakeTime) -> None:
    claims = MemoryClaims(time.clock)
    claims.claim("first", MINE, 60)
    time.advance(30)
    claims.claim("second", MINE, 60)
    time.advance(29)
    assert claims.claim("first", THEIRS, 60) == MINE
    time.advance(2)
    assert claims.claim("first", THEIRS, 60) is None
    assert claims.claim("second", THEIRS, 60) == MINE
    time.advance(61)
    claims.claim("third", MINE, 60)
    assert len(claims) == 1, "what is past its time is not kept"


def test_a_key_with_a_shorter_time_than_those_before_it_is_free_in_time(time: FakeTime) -> None:
    claims = MemoryClaims(time.clock)
    claims.claim("first", MINE, 60)
    claims.claim("second", MINE, 10)
    time.advance(11)
    assert claims.claim("second", THEIRS, 10) is None
    assert claims.claim("first", THEIRS, 10) == MINE


def test_only_the_stream_that_has_a_key_frees_it(time: FakeTime) -> None:
    claims = MemoryClaims(time.clock)
    claims.claim("key", MINE, 60)
    assert not claims.release("key", "t")
    assert not claims.release("unknown", "s")
    assert claims.release("key", "s")
    assert not claims.release("key", "s")
    assert claims.claim("key", THEIRS, 60) is None


def test_keys_that_become_free_together_cost_each_the_same(time: FakeTime) -> None:
    """A dict whose first entry is removed again and again costs the square: minutes for this many."""
    claims = MemoryClaims(time.clock)
    for number in range(LIMITS.claims):
        claims.claim(f"key {number}", MINE, 60)
    time.advance(61)
    assert claims.claim("key", MINE, 60) is None
    assert len(claims) == 1


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


def test_the_share_is_had_again_as_keys_become_free(time: FakeTime) -> None:
    budget = ClaimBudget(100, time.clock)
    taken = 0
    for _ in range(400):  # over four times the time
        for _ in range(LIMITS.claims // 170):
            budget.take(f"caller {taken % 2}")
            taken += 1
        time.advance(1)
    assert taken > 2 * LIMITS.claims
    assert len(budget._taken) < 300, "the times of single keys are not kept"
