"""`gai_fast/stores/health.py`: the log tells the operator of a store that fails, which not everybody asks at once."""

from __future__ import annotations

import logging

import pytest

from gai_fast.model.errors import Error
from gai_fast.stores.backend import StoreError
from gai_fast.stores.health import Health
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
