"""The requests that have ended, as the admin API shows them."""

from __future__ import annotations

import time
from itertools import count
from typing import Any

import pytest

from gai_fast.model.errors import Error
from gai_fast.model.metrics import StreamMetrics
from gai_fast.model.settings import KeySettings
from gai_fast.server.admin.bodies import plain
from gai_fast.server.admin.recent_requests import RecentRequests, RequestFilter, read_filter, together
from gai_fast.server.http.request import AnsweredError
from tests.limits import LIMITS
from tests.unit.server.incoming_requests import http

ALL = RequestFilter()
STREAM: dict[str, Any] = {
    "duration": 1.5,
    "time_to_first_token": 0.25,
    "key": "alice",
    "model": "m",
    "upstream": "up",
    "endpoint": "/r",
    "transport": "sse",
    "request_id": "req",
    "stream_id": "s1",
    "finish_reason": "stop",
    "session": "0123456789abcdef",
    "usage": {"input_tokens": 7, "cached_input_tokens": 5, "output_tokens": 3, "source": "counted"},
    "cost": 2_500_000_000,
    "currency": "USD",
}


def recent() -> RecentRequests:
    """Returns a list whose clock goes on a second with each request."""
    seconds = count()
    return RecentRequests(wall=lambda: float(next(seconds)))


def test_a_stream_is_listed_with_its_figures() -> None:
    listed = recent()
    listed.stream_ended(StreamMetrics(**STREAM))
    (row,) = plain(listed.rows(ALL))
    assert row.pop("cost") > 0
    assert row == {
        "ended_at": "1970-01-01T00:00:00.000Z",
        "key": "alice",
        "model": "m",
        "upstream": "up",
        "endpoint": "/r",
        "transport": "sse",
        "request_id": "req",
        "stream_id": "s1",
        "session": "0123456789abcdef",
        "outcome": "finished",
        "status": None,
        "code": None,
        "reason": None,
        "finish_reason": "stop",
        "duration_ms": 1500.0,
        "ttft_ms": 250.0,
        "input_tokens": 7,
        "cached_input_tokens": 5,
        "output_tokens": 3,
        "currency": "USD",
    }


def test_a_refused_request_is_listed_with_its_status() -> None:
    listed = recent()
    request = http("GET", "/r")
    request.set_key(KeySettings("alice", ()))
    request.request_id, request.began = "req", time.monotonic() - 0.5
    listed.refused(request, "/r", 404, AnsweredError("/r", "not_found", "model", "nope"))
    (row,) = plain(listed.rows(ALL))
    assert (row["outcome"], row["status"], row["code"]) == ("refused", 404, "not_found")
    assert (row["reason"], row["model"]) == ("model", "nope")
    assert (row["key"], row["endpoint"], row["request_id"]) == ("alice", "/r", "req")
    assert row["duration_ms"] >= 500
    assert (row["ttft_ms"], row["output_tokens"], row["cost"]) == (None, None, None)
    assert (row["session"], row["cached_input_tokens"]) == (None, None)


def test_a_stream_that_could_not_start_is_listed_once_with_its_model_and_the_status() -> None:
    listed = recent()
    request = http("GET", "/r")
    for stream in ("req", "other"):
        request.request_id = "req"
        listed.stream_ended(StreamMetrics(**{**STREAM, "request_id": stream, "outcome": "refused"}))
        assert plain(listed.rows(ALL)) == []
        listed.refused(request, "/r", 503, AnsweredError("/r", "overloaded"))
        (row,) = plain(listed.rows(ALL))
        assert (row["outcome"], row["status"]) == ("refused", 503)
        assert row["model"] == ("m" if stream == "req" else "")
        listed = recent()


@pytest.mark.parametrize("tokens", ["7", None, True, -1, 1.5, [7]])
def test_a_count_that_is_none_is_not_known(tokens: object) -> None:
    listed = recent()
    listed.stream_ended(StreamMetrics(**{**STREAM, "usage": {"input_tokens": tokens}}))
    (row,) = plain(listed.rows(ALL))
    assert (row["input_tokens"], row["output_tokens"]) == (None, None)


def test_the_newest_come_first_and_the_list_is_bounded() -> None:
    listed = recent()
    for number in range(LIMITS.recent_requests + 5):
        listed.stream_ended(StreamMetrics(stream_id=f"s{number}"))
    ids = [row["stream_id"] for row in plain(listed.rows(ALL))]
    assert len(ids) == LIMITS.recent_requests
    assert (ids[0], ids[-1]) == (f"s{LIMITS.recent_requests + 4}", "s5")


def test_several_workers_lists_are_one() -> None:
    listed = recent()
    for _ in range(3):
        listed.stream_ended(StreamMetrics())
    last, middle, first = listed.rows(ALL)
    assert together([[last, first], [plain(middle)]]) == [last, middle, first]
    many = [last] * LIMITS.recent_requests
    assert together([many, many]) == many


def test_a_filter_leaves_out_the_others() -> None:
    listed = recent()
    listed.stream_ended(StreamMetrics(key="a", model="x"))
    listed.stream_ended(StreamMetrics(key="a", model="y", outcome="failed"))
    listed.stream_ended(StreamMetrics(key="b", model="x", outcome="failed"))

    def found(**query: str) -> list[tuple[str, str]]:
        return [(row["key"], row["model"]) for row in plain(listed.rows(read_filter(query)))]

    assert found(key="a") == [("a", "y"), ("a", "x")]
    assert found(model="x") == [("b", "x"), ("a", "x")]
    assert found(outcome="failed", model="x") == [("b", "x")]
    assert found(key="none") == []
    with pytest.raises(Error) as caught:
        read_filter({"outcome": "sad"})
    assert (caught.value.code, caught.value.reason) == ("invalid_request", "outcome")
    assert "finished, failed, cancelled, disconnected, refused" in str(caught.value)
    with pytest.raises(Error, match="the parameters are `key`, `model` and `outcome`"):
        read_filter({"keys": "ann"})
