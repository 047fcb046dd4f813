"""The embedded model."""

from __future__ import annotations

import json
from importlib.resources import files

from gai_fast.providers import get_provider
from tests.unit.providers.answers import chunk, read, text_of


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
