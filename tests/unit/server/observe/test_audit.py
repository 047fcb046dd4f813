"""The lines of the audit log."""

from __future__ import annotations

import json
import logging

import pytest

from gai_fast.server.observe.audit import audit
from gai_fast.server.observe.log_format import JSONFormatter
from tests.limits import LIMITS


def test_an_action_has_one_line_with_its_fields(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "gai_fast.audit"):
        audit("streams.cancel", "ops", "192.0.2.1", "stream-1", 403)
    (record,) = caplog.records
    line = json.loads(JSONFormatter().format(record))
    assert line.pop("ts").endswith("Z")
    assert line == {
        "level": "info",
        "msg": "audit",
        "action": "streams.cancel",
        "key": "ops",
        "client_ip": "192.0.2.1",
        "target": "stream-1",
        "result": 403,
    }


def test_what_a_caller_names_ends_no_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "gai_fast.audit"):
        audit("streams.cancel", "ops", "192.0.2.1", 'x\n{"msg": "audit"}', 404)
    (record,) = caplog.records
    assert "\n" not in record.getMessage()
    assert "\n" not in JSONFormatter().format(record)


def test_a_target_of_any_length_makes_a_short_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "gai_fast.audit"):
        audit("targets.drain", "ops", "192.0.2.1", "m" * 10**6, 404)
    (record,) = caplog.records
    assert len(record.getMessage()) < 2 * LIMITS.audited
