"""`gai_fast/net/upstream/idle_time.py`: how long an upstream keeps an idle connection."""

from __future__ import annotations

import pytest

from gai_fast.net.upstream.idle_time import IdleTime, keep_alive_timeout
from tests.limits import LIMITS


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("timeout=5", 5),
        ("timeout=5, max=100", 5),
        ("max=100; Timeout = 15", 15),
        ('timeout="7"', 7),
        ("max=100", None),
        ("timeout=", None),
        ("timeout=-1", None),
        ("mytimeout=5", None),
        ("timeout=" + "9" * 40, 999999999),
    ],
)
def test_the_header_names_seconds(header: str | None, seconds: float | None) -> None:
    assert keep_alive_timeout(header) == seconds


def test_a_connection_is_retired_before_the_time_that_the_upstream_names() -> None:
    time = IdleTime()
    assert time.limit == LIMITS.pool_idle
    time.note_header(5)
    assert time.limit == 4
    time.note_header(1)
    assert time.limit == 0.5
    time.note_header(0)
    assert time.limit == 0
    time.note_header(3600)
    assert time.limit == LIMITS.pool_idle
    time.note_header(5)
    time.note_header(None)
    assert time.limit == LIMITS.pool_idle


def test_what_the_upstream_closed_teaches_when_to_retire_the_next() -> None:
    time = IdleTime()
    time.ended(10)
    assert time.limit == 9
    time.ended(20)
    assert time.limit == 9
    time.ended(LIMITS.pool_idle_least / 2)
    assert time.limit == 9, "an upstream that restarts closes young connections, too"


def test_connections_that_outlive_their_time_lengthen_that_of_the_next_up_to_the_limit() -> None:
    time = IdleTime()
    time.ended(8)
    short = time.limit
    time.outlived()
    assert time.limit > short
    for _ in range(20):
        time.outlived()
    assert time.limit == LIMITS.pool_idle


def test_a_connection_that_was_retired_because_the_upstream_said_so_teaches_nothing() -> None:
    time = IdleTime()
    time.ended(8)
    seen = time.limit
    time.note_header(2)
    time.outlived()
    time.note_header(None)
    assert time.limit == seen
