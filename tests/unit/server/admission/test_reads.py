"""`server/admission/reads.py`: how often a key may read in a minute."""

from __future__ import annotations

import pytest

from gai_fast.model.errors import Error
from gai_fast.model.settings import KeyLimits, KeySettings
from gai_fast.server.admission.reads import Reads
from tests.conftest import ChangeLimits
from tests.limits import LIMITS


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def key(name: str, requests: int | None = None) -> KeySettings:
    return KeySettings(name, (), limits=KeyLimits(requests_per_minute=requests))


def admitted(reads: Reads, caller: KeySettings | None, most: int = 10_000) -> int:
    """Returns how many reads are admitted in a row."""
    for number in range(most):
        try:
            reads.take(caller)
        except Error:
            return number
    return most


@pytest.mark.parametrize(("requests", "most"), [(3, 30), (None, LIMITS.reads), (0, LIMITS.reads)])
def test_a_key_has_ten_times_as_many_reads_as_requests_and_no_other_loses_any(requests: int | None, most: int) -> None:
    refused = {"reads": 0}
    clock = Clock()
    reads = Reads(refused, clock)
    assert admitted(reads, key("alice", requests)) == most
    assert refused == {"reads": 1}
    assert admitted(reads, key("bob", 1)) == 10
    clock.now += 60
    assert admitted(reads, key("alice", requests)) == most


def test_reads_come_back_evenly_and_the_refusal_says_when() -> None:
    clock = Clock()
    reads = Reads({"reads": 0}, clock)
    caller = key("alice", 1)
    assert admitted(reads, caller) == 10
    with pytest.raises(Error) as refused:
        reads.take(caller)
    assert (refused.value.code, refused.value.reason, refused.value.retry_after_ms) == ("rate_limited", "reads", 6_000)
    clock.now += 6
    assert admitted(reads, caller) == 1
    reads.take(key("alice", 10))  # a reload: what was used stays used


def test_who_has_no_key_has_no_limit() -> None:
    reads = Reads({"reads": 0}, Clock())
    assert admitted(reads, None, LIMITS.reads + 1) == LIMITS.reads + 1


def test_of_many_keys_the_idle_ones_are_forgotten_first(change_limits: ChangeLimits) -> None:
    change_limits(reading_keys=3)
    clock = Clock()
    reads = Reads({"reads": 0}, clock)
    assert admitted(reads, key("idle", 1)) == 10
    clock.now += 120
    assert admitted(reads, key("busy", 1)) == 10
    reads.take(key("third", 1))
    reads.take(key("fourth", 1))
    assert admitted(reads, key("busy", 1)) == 0
    for number in range(5):
        reads.take(key(f"more {number}"))
    assert len(reads._rates) == 3
