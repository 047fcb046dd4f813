"""The limits of a server, and its refusals above them."""

from __future__ import annotations

import pytest

from gai_fast.model.errors import Error
from gai_fast.model.settings import LimitSettings
from gai_fast.server.admission.server_limits import ServerLimits


def refusal(
    server_limits: ServerLimits, streams: int, of_caller: int
) -> tuple[int, str, str | None, int | None] | None:
    try:
        server_limits.check(streams, of_caller)
    except Error as error:
        return error.status, error.code, error.reason, error.retry_after_ms
    return None


def test_streams_are_refused_above_their_limits() -> None:
    server_limits = ServerLimits(LimitSettings(streams=3, streams_per_caller=2))
    assert refusal(server_limits, 0, 0) is None
    assert refusal(server_limits, 2, 1) is None
    assert refusal(server_limits, 2, 2) == (429, "rate_limited", "streams_per_caller", 1000)
    assert refusal(server_limits, 3, 0) == (503, "overloaded", "streams", 1000)
    assert refusal(server_limits, 3, 2) == (503, "overloaded", "streams", 1000)


def test_each_refusal_is_counted_by_its_limit_from_zero_on() -> None:
    server_limits = ServerLimits(LimitSettings(streams=2, streams_per_caller=1))
    assert server_limits.refused == {"streams": 0, "streams_per_caller": 0, "connections": 0, "memory": 0, "upload": 0}
    for streams, of_caller in ((2, 0), (1, 1), (0, 0)):
        refusal(server_limits, streams, of_caller)
    error = server_limits.no_place()
    assert (error.status, error.reason, error.retry_after_ms) == (503, "connections", 1000)
    server_limits.is_short_of_memory = True
    refusal(server_limits, 0, 0)
    assert server_limits.refused == {"streams": 1, "streams_per_caller": 1, "connections": 1, "memory": 1, "upload": 0}


def test_without_memory_no_stream_begins() -> None:
    server_limits = ServerLimits(LimitSettings())
    server_limits.is_short_of_memory = True
    assert refusal(server_limits, 0, 0) == (503, "overloaded", "memory", 1000)
    server_limits.is_short_of_memory = False
    assert refusal(server_limits, 0, 0) is None


def test_request_bodies_under_way_have_a_budget_of_bytes() -> None:
    server_limits = ServerLimits(LimitSettings(upload_bytes=100))
    server_limits.begin_upload(60)
    server_limits.begin_upload(40)
    with pytest.raises(Error) as refused:
        server_limits.begin_upload(1)
    assert (refused.value.status, refused.value.reason, refused.value.retry_after_ms) == (503, "upload", 1000)
    server_limits.end_upload(60)
    server_limits.begin_upload(1)
    assert (server_limits.uploading, server_limits.refused["upload"]) == (41, 1)
