"""The streams that run, as the admin API shows them."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, cast

from msgspec.structs import replace

from gai_fast.net.engine.engine import Engine
from gai_fast.server.admin.bodies import plain
from gai_fast.server.admin.running_streams import running_streams, timestamp, together
from tests.limits import LIMITS


def session(number: int, first_token: float | None = None) -> Any:
    upstream = SimpleNamespace(name="up")
    spec = SimpleNamespace(model=SimpleNamespace(upstream=upstream), endpoint="/r", transport="sse", request_id="req")
    return SimpleNamespace(
        stream_id=f"s{number}",
        caller="alice",
        model="m",
        spec=spec,
        progress=lambda: (number + 0.25, first_token, 3),
        bytes_sent=100,
    )


def engine(count: int) -> Engine:
    return cast(Engine, SimpleNamespace(streams={f"s{each}": session(each) for each in range(count)}))


def test_a_stream_is_shown_with_its_caller_and_its_times() -> None:
    one = SimpleNamespace(streams={"s1": session(1, 0.5)})
    (row,) = plain(running_streams(cast(Engine, one))["data"])
    assert row.pop("started_at") <= timestamp(time.time())
    assert row == {
        "id": "s1",
        "key": "alice",
        "model": "m",
        "upstream": "up",
        "endpoint": "/r",
        "transport": "sse",
        "request_id": "req",
        "duration_ms": 1250.0,
        "ttft_ms": 500.0,
        "deltas": 3,
        "state": "streaming",
    }
    waiting = plain(running_streams(engine(1))["data"][0])
    assert (waiting["state"], waiting["ttft_ms"]) == ("waiting", None)


def test_of_many_streams_the_newest_are_shown_and_all_are_counted() -> None:
    shown = running_streams(engine(LIMITS.streams_shown + 1))
    assert shown["total"] == LIMITS.streams_shown + 1
    assert shown["deltas"] == 3 * (LIMITS.streams_shown + 1)
    assert shown["bytes"] == 100 * (LIMITS.streams_shown + 1)
    assert len(shown["data"]) == LIMITS.streams_shown
    assert shown["data"][0].id == f"s{LIMITS.streams_shown}"


def test_streams_of_several_workers_are_one_list_the_newest_first() -> None:
    (row,) = running_streams(engine(1))["data"]
    older, newer = (replace(row, started_at=at) for at in "23")
    parts = [
        {"total": 2, "deltas": 5, "bytes": 50, "data": [older]},
        {"total": 1, "deltas": 2, "bytes": 7, "data": [plain(newer)]},
    ]
    assert together(parts) == {"total": 3, "deltas": 7, "bytes": 57, "data": [newer, older]}


def test_times_are_in_utc() -> None:
    assert timestamp(0.5) == "1970-01-01T00:00:00.500Z"
