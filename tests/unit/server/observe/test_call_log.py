"""`gai_fast/server/observe/call_log.py`: one line a call, as text and as JSON."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

import pytest

from gai_fast.net.runs.tallies import SeenCall
from gai_fast.server.observe.call_log import log_call
from gai_fast.server.observe.log_format import JSONFormatter

CALL = SeenCall("docs", "search", "ok", 0.0125, 2, 1, "c\n1", "s", "r", "alice", "t")


def test_a_call_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gai_fast.tools")
    log_call(CALL)
    log_call(replace(CALL, server="", tool="unknown", outcome="error"))
    first, second = caplog.records
    assert first.getMessage() == r"tool 'docs.search' ok 0.013 s 'c\n1' alice"
    assert second.getMessage().startswith("tool 'unknown' error ")
    line = json.loads(JSONFormatter().format(first))
    assert {name: value for name, value in line.items() if name not in ("ts", "level")} == {
        "msg": "tool", "server": "docs", "tool": "search", "outcome": "ok", "dur_ms": 12.5, "step": 2, "attempt": 1,
        "call_id": "c\n1", "stream_id": "s", "request_id": "r", "trace_id": "t", "key": "alice",
    }  # fmt: skip


def test_without_lines_of_its_level_none_is_made(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "gai_fast.tools")
    log_call(CALL)
    assert not caplog.records
