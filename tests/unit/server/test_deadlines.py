"""When a client must have sent more of its request."""

from __future__ import annotations

from gai_fast.limits import LIMITS
from gai_fast.server.deadlines import body_due

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
