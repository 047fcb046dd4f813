"""Ids that join a stream to logs and traces."""

from __future__ import annotations

from typing import Any

from gai_fast.kernels import SSEEncoder
from gai_fast.processors import StreamInfo, read_processor

from .streams import DONE, FINISH, START, delta, through

STREAM = StreamInfo(stream_id="s", request_id="r", trace_id="t")


def run(entry: dict[str, Any], events: Any, stream: StreamInfo = STREAM) -> list[Any]:
    processor = read_processor({"use": "correlation", **entry}).processor(stream)
    assert processor is not None
    return through(processor, events)


def test_the_ends_of_a_stream_have_all_ids_that_are_known() -> None:
    error: Any = {"type": "error", "error": {}}
    out = run({}, [START, delta("a"), FINISH, error, DONE])
    ids = {"request_id": "r", "trace_id": "t", "stream_id": "s"}
    assert out == [{**ids, **START}, delta("a"), {**ids, **FINISH}, {**ids, **error}, DONE]
    assert "trace_id" not in run({}, [START], StreamInfo(stream_id="s", request_id="r"))[0]


def test_or_every_event_has_some_of_them() -> None:
    out = run({"on": "every", "ids": ["request_id"]}, [START, delta("a"), DONE])
    assert out == [{**START, "request_id": "r"}, delta("a", request_id="r"), DONE]


def test_an_id_that_an_event_has_stays() -> None:
    assert run({}, [{**START, "request_id": "own"}])[0]["request_id"] == "own"


def test_labels_stand_on_the_start() -> None:
    start: Any = {**START, "provider_metadata": {"id": "x"}}
    out = run({"labels": {"team": "search"}}, [start, FINISH])
    assert out[0]["provider_metadata"] == {"id": "x", "correlation": {"team": "search"}}
    assert "provider_metadata" not in out[1]


def test_deltas_stay_on_the_fast_path_unless_they_are_meant() -> None:
    for entry, touches in (({}, "events"), ({"on": "every"}, "deltas")):
        made = read_processor({"use": "correlation", **entry}).processor(STREAM)
        assert made is not None
        assert made.touches == touches


def test_an_encoder_writes_them_beyond_the_first_event() -> None:
    encoder = SSEEncoder(request_id="r")
    for event in run({}, [START, FINISH]):
        encoder.event(event)
    assert encoder.take().count(b'"request_id":"r"') == 2
