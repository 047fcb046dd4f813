"""The lines of the access log."""

from __future__ import annotations

import json
import logging

import pytest

from gai_fast.model.metrics import StreamMetrics
from gai_fast.model.settings import KeySettings
from gai_fast.server.admission.forwarding import NO_TRUSTED_PROXY, Forwarding
from gai_fast.server.http.request import AnsweredError
from gai_fast.server.observe.access_log import AccessLog, log_unreadable
from gai_fast.server.observe.log_format import JSONFormatter
from tests.unit.server.incoming_requests import http


def test_the_access_log_has_no_query(caplog: pytest.LogCaptureFixture) -> None:
    asked = http("GET", "/here?key=secret")
    asked.request_id = "abc"
    AccessLog().request_ended(asked, 200, NO_TRUSTED_PROXY)
    assert caplog.records == []
    with caplog.at_level(logging.INFO, "gai_fast.access"):
        AccessLog().request_ended(asked, 200, NO_TRUSTED_PROXY)
    (record,) = caplog.records
    words = record.getMessage().split()
    assert words[:4] == ["192.0.2.1", "GET", "'/here'", "200"]
    assert words[-1] == "abc"


def test_the_figures_of_a_stream_stand_behind_its_line(caplog: pytest.LogCaptureFixture) -> None:
    asked = http("GET", "/here")
    asked.metrics = StreamMetrics(duration=1.0)
    with caplog.at_level(logging.INFO, "gai_fast.access"):
        AccessLog().request_ended(asked, 200, NO_TRUSTED_PROXY)
    (record,) = caplog.records
    assert record.getMessage().endswith("}")


def test_a_refusal_says_its_code_reason_and_model(caplog: pytest.LogCaptureFixture) -> None:
    asked = http("POST", "/here")
    asked.refused = AnsweredError("/here", "not_found", "model", "gpt\n9")
    with caplog.at_level(logging.INFO, "gai_fast.access"):
        AccessLog().request_ended(asked, 404, NO_TRUSTED_PROXY)
    (record,) = caplog.records
    assert record.getMessage().endswith(' {"error_code":"not_found","reason":"model","model":"gpt\\n9"}')


def test_the_caller_stands_behind_the_request_id(caplog: pytest.LogCaptureFixture) -> None:
    asked = http("GET", "/here")
    asked.request_id = "abc"
    asked.set_key(KeySettings("alice", ()))
    with caplog.at_level(logging.INFO, "gai_fast.access"):
        AccessLog().request_ended(asked, 200, NO_TRUSTED_PROXY)
        asked.metrics = StreamMetrics(duration=1.0)
        AccessLog().request_ended(asked, 200, NO_TRUSTED_PROXY)
    whole, stream = (record.getMessage() for record in caplog.records)
    assert whole.endswith(" abc alice")
    assert " abc alice {" in stream


def test_the_client_behind_a_proxy_stands_in_its_line(caplog: pytest.LogCaptureFixture) -> None:
    asked = http("GET", "/here", {"X-Forwarded-For": "203.0.113.9, 198.51.100.7"})
    with caplog.at_level(logging.INFO, "gai_fast.access"):
        AccessLog().request_ended(asked, 200, Forwarding(("192.0.2.0/24",)))
        AccessLog().request_ended(asked, 200, NO_TRUSTED_PROXY)
    behind, straight = (record.getMessage().split()[0] for record in caplog.records)
    assert (behind, straight) == ("198.51.100.7", "192.0.2.1")


def test_nothing_of_a_request_that_could_not_be_read_is_repeated(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "gai_fast.access"):
        log_unreadable("192.0.2.1", 400, "our-id")
    (record,) = caplog.records
    assert record.getMessage() == "192.0.2.1 - '-' 400 0.000 our-id"


def test_as_json_a_stream_has_all_fields_also_those_without_a_value(caplog: pytest.LogCaptureFixture) -> None:
    asked = http("POST", "/here?prompt=secret")
    with caplog.at_level(logging.INFO, "gai_fast.access"):
        asked.metrics = StreamMetrics(duration=1.0)
        AccessLog().request_ended(asked, 200, NO_TRUSTED_PROXY)
        usage = {"input_tokens": 3, "cached_input_tokens": 2, "output_tokens": 4, "source": "provider"}
        asked.metrics = StreamMetrics(
            duration=1.0,
            time_to_first_token=0.25,
            deltas=7,
            usage=usage,
            cost=6_600_000_000,
            currency="USD",
            code="network",
            dropped=("tools[0]", "store"),
            session="0123456789abcdef",
            upstream_key=2,
        )
        AccessLog().request_ended(asked, 200, NO_TRUSTED_PROXY)
        log_unreadable("192.0.2.1", 400, "our-id")
    empty, full, unreadable = (json.loads(JSONFormatter().format(record)) for record in caplog.records)
    assert empty.keys() == full.keys()
    assert (empty["msg"], empty["path"], empty["ttft_ms"], empty["cost"]) == ("stream", "/here", None, None)
    assert (empty["dropped"], full["dropped"]) == (None, ["tools[0]", "store"])
    result = {
        name: full[name] for name in ("ttft_ms", "chunks", "in_tokens", "out_tokens", "cost", "currency", "error_code")
    }
    assert [*result.values()] == [250.0, 7, 3, 4, 0.0066, "USD", "network"]
    sight = [(each["session"], each["upstream_key"], each["cached_tokens"]) for each in (empty, full)]
    assert sight == [(None, None, None), ("0123456789abcdef", 2, 2)]
    assert (unreadable["msg"], unreadable["status"]) == ("request", 400)
    assert "path" not in unreadable


def test_a_stream_that_goes_on_without_its_request_has_its_line_at_its_end(caplog: pytest.LogCaptureFixture) -> None:
    running = {"s1"}
    log = AccessLog(running)
    asked = http("POST", "/here?prompt=secret")
    asked.request_id = "abc"
    asked.set_key(KeySettings("alice", ()))
    asked.metrics = StreamMetrics(duration=1.0, stream_id="s1", outcome="disconnected", deltas=3)
    with caplog.at_level(logging.INFO, "gai_fast.access"):
        log.request_ended(asked, 499, NO_TRUSTED_PROXY)
        running.clear()
        ended = StreamMetrics(duration=2.0, stream_id="s1", deltas=7, finish_reason="stop", cost=1_000_000_000_000)
        log.stream_ended(ended)
        log.stream_ended(ended)  # has its line already
    left, end = (json.loads(JSONFormatter().format(record)) for record in caplog.records)
    assert (left["msg"], left["status"], left["stream_id"], "chunks" in left) == ("request", 499, "s1", False)
    alike = ("method", "path", "status", "request_id", "client_ip", "key", "stream_id")
    assert [left[name] for name in alike] == [end[name] for name in alike]
    result = {name: end[name] for name in ("msg", "dur_ms", "chunks", "finish_reason", "cost", "outcome")}
    assert [*result.values()] == ["stream", 2000.0, 7, "stop", 1.0, "finished"]


def test_a_stream_that_was_only_started_has_one_line_also_where_it_ends_first(caplog: pytest.LogCaptureFixture) -> None:
    asked = http("POST", "/here")
    asked.started = lambda: StreamMetrics(duration=1.0, stream_id="s1")
    with caplog.at_level(logging.INFO, "gai_fast.access"):
        for running in ({"s1"}, set[str]()):
            log = AccessLog(running)
            log.request_ended(asked, 202, NO_TRUSTED_PROXY)
            log.stream_ended(asked.started())
    lines = [json.loads(JSONFormatter().format(record)) for record in caplog.records]
    assert [each["msg"] for each in lines] == ["request", "stream", "stream"]
