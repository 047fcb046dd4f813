"""The embedded model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import pytest

from gai_fast.net.attempts.recording_player import load_recording
from gai_fast.providers import UpstreamRequest, get_provider
from tests.unit.providers.answer_reading import chunk, read, text_of


def test_it_is_read_as_the_chat_dialect() -> None:
    events = read("demo", chunk({"content": "Hi"}), chunk(finish="stop"))
    assert events[0]["provider"] == "demo"
    assert text_of(events) == "Hi"


def test_its_recording_is_a_stream_of_that_dialect_with_rising_times() -> None:
    api = get_provider("demo")
    lines = [json.loads(line) for line in files("gai_fast.providers").joinpath(api.recording).read_text().splitlines()]
    times = [line["at"] for line in lines if "at" in line]
    assert times == sorted(times)
    data = "".join(line["data"] for line in lines if "data" in line)
    events = read("demo", *(part.removeprefix("data: ") for part in data.split("\n\n") if part), done=False)
    assert text_of(events)
    assert events[-1]["type"] == "finish"


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_it_obeys_the_limit_of_tokens(field: str) -> None:
    api = get_provider("demo")
    reads = load_recording(api.recording).chunks

    def played(limit: int | None) -> Sequence[tuple[float, bytes]]:
        return api.recorded(UpstreamRequest("/chat/completions", json.dumps({field: limit}).encode()), reads)

    def events(limit: int | None) -> list[Any]:
        data = b"".join(read for _, read in played(limit)).decode()
        return read("demo", *(part.removeprefix("data: ") for part in data.split("\n\n") if part), done=False)

    whole = [event["text"] for event in events(None) if event["type"] == "text.delta"]
    for limit in (1, 5, len(whole) - 1):
        cut = events(limit)
        assert [event["text"] for event in cut if event["type"] == "text.delta"] == whole[:limit]
        assert cut[-1]["finish_reason"] == "length"
        times = [at for at, _ in played(limit)]
        assert times == sorted(times)
    for enough in (len(whole), 10_000):
        assert played(enough) == reads
        assert events(enough)[-1]["finish_reason"] == "stop"
