"""The time of day."""

from __future__ import annotations

import time

from gai_fast.runtime.clock import now_ms


def test_it_is_in_milliseconds_since_the_epoch() -> None:
    before = int(time.time()) * 1000
    assert before <= now_ms() <= before + 60_000
