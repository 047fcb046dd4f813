"""The times by which a client must have sent or taken bytes."""

from __future__ import annotations

from gai_fast.server.http.deadlines import WriteProgress, body_due
from tests.limits import LIMITS

TIMEOUT = 30.0


def test_a_body_that_comes_steadily_may_take_any_time() -> None:
    now, received = 100.0, 0
    for _ in range(1000):
        due = body_due(100.0, received, now, TIMEOUT)
        now += TIMEOUT - 1
        assert now < due
        received += TIMEOUT.__trunc__() * LIMITS.body_rate


def test_the_time_out_runs_between_two_reads() -> None:
    assert body_due(100.0, 10**9, 500.0, TIMEOUT) == 500.0 + TIMEOUT


def test_a_body_that_comes_by_drops_is_due_as_a_whole() -> None:
    assert body_due(100.0, 0, 100.0, TIMEOUT) == 100.0 + TIMEOUT
    assert body_due(100.0, 5, 129.0, TIMEOUT) < 131.0
    assert body_due(100.0, 10 * LIMITS.body_rate, 500.0, TIMEOUT) == 110.0 + TIMEOUT


# ---- what was written ------------------------------------------------------------------------------------------------


def test_a_client_is_stuck_that_takes_no_byte_for_the_whole_time() -> None:
    progress = WriteProgress()
    progress.restart(100, 100, 10.0)
    assert not progress.is_stuck(100, 100, 19.0, 10.0)
    assert progress.is_stuck(100, 100, 20.0, 10.0)


def test_a_client_that_takes_one_byte_is_not_stuck() -> None:
    progress = WriteProgress()
    progress.restart(100, 100, 0.0)
    for now in range(1, 100):
        assert not progress.is_stuck(100, 100 - now, now * 9.0, 10.0)


def test_a_client_that_owes_nothing_is_not_stuck() -> None:
    progress = WriteProgress()
    progress.restart(100, 100, 0.0)
    assert not progress.is_stuck(100, 0, 1000.0, 10.0)
    assert not progress.is_stuck(200, 100, 1009.0, 10.0)
    assert progress.is_stuck(200, 100, 1019.0, 10.0)


def test_more_that_is_written_is_nothing_taken() -> None:
    progress = WriteProgress()
    progress.restart(100, 100, 0.0)
    assert not progress.is_stuck(100, 100, 5.0, 10.0)
    assert progress.is_stuck(500, 500, 10.0, 10.0)
