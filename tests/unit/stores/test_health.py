"""`gai_fast/stores/health.py`: the log tells the operator of a store that fails, which not everybody asks at once."""

from __future__ import annotations

import logging
from contextlib import suppress

import pytest

from gai_fast.model.errors import Error
from gai_fast.stores.backend import StoreError
from gai_fast.stores.health import Health
from tests.conftest import ChangeLimits
from tests.limits import LIMITS
from tests.unit.net.fakes import FakeTime

GONE = StoreError("unreachable", "the server cannot be reached")


def test_a_store_is_degraded_from_a_failure_to_the_next_success(time: FakeTime) -> None:
    health = Health(time.clock)
    assert health.problem is None
    health.failed(GONE)
    assert health.problem is GONE
    health.worked()
    assert health.problem is None


def test_the_operator_is_warned_once_in_a_while(time: FakeTime, caplog: pytest.LogCaptureFixture) -> None:
    health = Health(time.clock)
    with caplog.at_level(logging.INFO):
        for _ in range(50):
            health.failed(GONE)
            health.failed(GONE)
            health.worked()
        assert [record.message for record in caplog.records if record.levelno == logging.WARNING] == [
            "the store is degraded: the server cannot be reached"
        ]
        time.advance(LIMITS.warning_interval)
        health.failed(GONE)
    assert sum(record.levelno == logging.WARNING for record in caplog.records) == 2


def test_the_operator_hears_of_a_failure_that_lasts_even_if_it_began_just_after_another(
    time: FakeTime, caplog: pytest.LogCaptureFixture
) -> None:
    """The last that was ever said of it was that the store works again."""
    health = Health(time.clock)
    with caplog.at_level(logging.INFO):
        health.failed(GONE)
        health.worked()
        health.failed(GONE)
        assert [record.message for record in caplog.records][-1] == "the store works again"
        time.advance(LIMITS.warning_interval)
        health.failed(GONE)
        health.failed(GONE)
        health.worked()
    assert [record.message for record in caplog.records][2:] == [
        "the store is degraded: the server cannot be reached",
        "the store works again",
    ]


def test_a_store_that_cannot_be_read_is_not_asked_again_for_a_while(time: FakeTime) -> None:
    health = Health(time.clock)
    health.check()
    health.failed(GONE)
    with pytest.raises(Error) as refused:
        health.check()
    assert (refused.value.code, refused.value.reason, refused.value.temporary) == ("overloaded", "store", True)
    assert "server" not in str(refused.value), "the address is the operator's matter"
    time.advance(LIMITS.store_retry)
    health.check()
    health.failed(StoreError("full", "there is no room"))
    health.check()


def test_a_bug_counts_as_a_failure_and_is_logged_once_in_a_while(
    time: FakeTime, caplog: pytest.LogCaptureFixture
) -> None:
    health = Health(time.clock)
    for _ in range(50):
        health.broke("the lease was not renewed", ZeroDivisionError("of a stream"))
    assert str(health.problem) == "the lease was not renewed: a bug of the gateway: see its log"
    [record] = caplog.records
    assert (record.message, record.levelname) == ("the lease was not renewed: a bug", "ERROR")
    assert record.exc_info is not None
    health.check()
    time.advance(LIMITS.warning_interval)
    health.broke("the lease was not renewed", ZeroDivisionError())
    assert len(caplog.records) == 2


SLOW = StoreError("slow", "the server does not answer in time")


def refuses(health: Health, caller: str) -> bool:
    try:
        health.check(caller)
    except Error as refused:
        return (refused.code, refused.reason) == ("overloaded", "store")
    return False


def test_a_store_that_is_slow_for_one_caller_is_slow_for_nobody_else(
    time: FakeTime, caplog: pytest.LogCaptureFixture
) -> None:
    health = Health(time.clock)
    assert not refuses(health, "anna")
    for _ in range(50):
        health.failed(SLOW)
    assert [refuses(health, each) for each in ("anna", "bert", "carl")] == [True, False, False]
    assert (health.problem, health.is_slow) == (None, True)
    [record] = caplog.records
    assert "slow for caller anna" in record.message
    time.advance(LIMITS.store_retry)
    assert not refuses(health, "anna")
    time.advance(LIMITS.warning_interval)
    assert not health.is_slow


def test_a_store_that_is_slow_for_two_callers_is_slow_for_all(time: FakeTime) -> None:
    health = Health(time.clock)
    for caller in ("", "anna"):  # what the gateway itself reads is of many callers
        assert not refuses(health, caller)
        health.failed(SLOW)
    assert not refuses(health, "carl")
    time.advance(LIMITS.store_retry - 0.1)
    assert not refuses(health, "bert")
    health.failed(SLOW)
    assert refuses(health, "carl")
    time.advance(0.1)
    assert not refuses(health, "carl"), "the one was slow long ago"
    assert refuses(health, "bert")


def test_credentials_without_a_key_count_for_one_caller(time: FakeTime) -> None:
    health = Health(time.clock)
    for caller in ("c-00000000000000aa", "c-00000000000000bb"):
        assert not refuses(health, caller)
        health.failed(SLOW)
        assert refuses(health, caller)
    assert not refuses(health, "anna")
    health.failed(SLOW)
    assert refuses(health, "bert")


def test_callers_for_whom_it_is_slow_are_bounded(time: FakeTime, change_limits: ChangeLimits) -> None:
    change_limits(slow_callers=3)
    health = Health(time.clock)
    for number in range(9):
        with suppress(Error):
            health.check(f"caller {number}")
        health.failed(SLOW)
    assert len(health._slow) == 3
