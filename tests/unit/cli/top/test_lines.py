"""The figures of a server as lines of text."""

from __future__ import annotations

from typing import Any

import pytest

from gai_fast.cli.top.lines import COLUMNS, count, duration, foot, head, printable, rate_of, widths
from gai_fast.server.admin.bodies import Bucket, ErrorKind, RunningStream, Sample, SpendToday, Spent

HOSTILE = "a\x1b]0;b\x07\x9b2J\u202ec\nd\ud800e"


def stream(**more: Any) -> RunningStream:
    given: dict[str, Any] = {
        "id": "s",
        "key": "anna",
        "model": "m",
        "upstream": "up",
        "endpoint": "/r",
        "transport": "sse",
        "request_id": "req",
        "started_at": "2026-11-22T12:00:02.123Z",
        "duration_ms": 3000.0,
        "ttft_ms": 1000.0,
        "deltas": 21,
        "state": "streaming",
    }
    return RunningStream(**{**given, **more})


def spend(**amounts: float) -> SpendToday:
    rows = [Spent(key=key, amount=amount, currency="USD", requests=1) for key, amount in amounts.items()]
    return SpendToday("2026-11-22", rows, [])


def sample(**more: Any) -> Sample:
    given: dict[str, Any] = {
        "at": "2026-11-22T12:00:05.123Z",
        "active": 1,
        "streams": [stream()],
        "rates": {"requests": 2.5, "errors": 0.0, "input_tokens": 1200.0, "deltas": 15.0, "bytes": 3e6},
        "first_token_seconds": [Bucket(0.1, 60), Bucket(0.5, 38), Bucket(None, 2)],
        "gap_seconds": [Bucket(0.1, 0), Bucket(None, 0)],
        "errors": [ErrorKind("timeout", "openai", "up", "upstream", 3)],
        "breakers": {"up": 0, "other": 2},
        "limited": {"spend": 4, "streams": 0},
        "memory_bytes": 64e6,
        "spend": spend(ben=12.25, anna=0.5),
        "configuration": None,
    }
    return Sample(**{**given, **more})


def test_the_figures_stand_above_and_below_the_table() -> None:
    assert head("http://host", sample()) == [
        "gai-fast top  http://host  12:00:05 UTC  memory 64.0MB",
        "1 streams  2.5 req/s  0 err/s  in 1.2k tok/s  out 15 tok/s  3.0MB/s",
        "first token p50 ≤ 100 ms p99 > 500 ms  gaps -",
    ]
    assert foot(sample()) == [
        "errors    timeout openai 3",
        "breakers  other open",
        "limited   spend 4",
        "spend     today: ben 12.25 USD, anna 0.5 USD",
    ]


def test_the_headline_has_the_rate_of_running_streams() -> None:
    """Their output tokens are only counted at their ends."""
    running = {"requests": 0.0, "errors": 0.0, "deltas": 40.0, "input_tokens": 0.0, "output_tokens": 0.0, "bytes": 9.0}
    assert "out 40 tok/s" in head("u", sample(rates=running))[1]


def test_what_is_not_known_is_said() -> None:
    bare = sample(rates=None, memory_bytes=None, errors=[], breakers={}, limited={}, spend=None)
    assert head("u", bare)[:2] == ["gai-fast top  u  12:00:05 UTC", "1 streams  rates follow in a second"]
    assert foot(bare) == [
        "errors    none",
        "breakers  all closed",
        "limited   none",
        "spend     not known: the store does not answer",
    ]
    assert foot(sample(spend=spend()))[3] == "spend     today: none"


def test_no_character_of_a_name_controls_the_terminal() -> None:
    assert printable(HOSTILE) == "a\ufffd]0;b\ufffd\ufffd2J\ufffdc\ufffdd\ufffde"
    assert printable("größe 模型") == "größe 模型"
    row = stream(**dict.fromkeys(("id", "key", "model", "upstream"), HOSTILE))
    hostile = sample(
        at="2026-11-22T" + HOSTILE,
        streams=[row],
        errors=[ErrorKind(HOSTILE, HOSTILE, HOSTILE, "upstream", 1)],
        breakers={HOSTILE: 1},
        limited={HOSTILE: 1},
        spend=SpendToday("", [Spent(key=HOSTILE, amount=1.0, currency=HOSTILE, requests=1)], []),
    )
    texts = [column.text(row) for column in COLUMNS]
    texts += head(HOSTILE, hostile) + foot(hostile)
    assert all(text.isprintable() for text in texts)


@pytest.mark.parametrize(
    ("more", "rate"),
    [({}, 10.0), ({"ttft_ms": None, "deltas": 0}, None), ({"deltas": 1}, None), ({"ttft_ms": 3000.0}, None)],
)
def test_the_rate_of_a_stream_is_that_since_its_first_token(more: dict[str, Any], rate: float | None) -> None:
    row = stream(**more)
    assert rate_of(row) == rate
    assert {column.title: column.text(row) for column in COLUMNS}["tok/s"] == ("" if rate is None else "10")


def test_a_stream_that_waits_is_sorted_before_all_others() -> None:
    waits, has = stream(ttft_ms=None, deltas=0), stream()
    for column in COLUMNS:
        assert sorted([has, waits], key=column.order)
    by_name = {column.title: column for column in COLUMNS}
    assert by_name["ttft"].text(waits) == "waits"
    assert sorted([has, waits], key=by_name["ttft"].order) == [waits, has]


@pytest.mark.parametrize("total", [0, 20, 40, 80, 200])
def test_the_columns_share_the_cells_that_there_are(total: int) -> None:
    cells = widths(total)
    assert len(cells) == len(COLUMNS)
    assert min(cells) >= 1
    if total >= 40:
        assert sum(cells) + len(cells) - 1 <= total


def test_numbers_and_times_are_short() -> None:
    assert [duration(each) for each in (0.0, 0.25, 1.0, 99.94, 100, 7200)] == [
        "0 ms", "250 ms", "1.0 s", "99.9 s", "2 m", "2 h",
    ]  # fmt: skip
    assert [count(each) for each in (0, 0.25, 7.0, 99.5, 100.4, 1500, 2.5e6, 3e9)] == [
        "0", "0.2", "7", "99.5", "100", "1.5k", "2.5M", "3.0G",
    ]  # fmt: skip
