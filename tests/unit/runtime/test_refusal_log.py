"""`runtime/refusal_log.py`: refusals in the log, one line for each limit in a minute."""

from __future__ import annotations

import logging

import pytest

from gai_fast.runtime.refusal_log import RefusalLog
from tests.limits import LIMITS


def test_each_limit_has_a_line_a_minute_that_counts_the_others(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gai_fast.limits")
    now = [0.0]
    log = RefusalLog(logging.getLogger("gai_fast.limits"), lambda: now[0])
    for caller in ("ann", "bob", "bob"):
        log.note("streams", "too many (streams = 2)", caller)
    log.note("upload", "too much (upload_bytes = 2)")
    now[0] = LIMITS.warning_interval
    log.note("streams", "too many (streams = 2)", "cid")
    assert [record.getMessage() for record in caplog.records] == [
        "a request of ann is refused: too many (streams = 2)",
        "a request is refused: too much (upload_bytes = 2)",
        "a request of cid is refused: too many (streams = 2) (2 others before)",
    ]
