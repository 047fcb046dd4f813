"""`[[processor]]` entries: read by name, checked, and refused with the place of the mistake."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import gai_fast.processors as package
from gai_fast.core.processing.text_pace import TextPace
from gai_fast.processors import PROCESSORS, StreamInfo, make_chain, read_processor
from gai_fast.processors.batch import BatchProcessor
from gai_fast.processors.json_stream import JSONStreamProcessor
from tests.guarding import Guarding, Stopping


def test_every_processor_is_one_file_and_one_line() -> None:
    files = {path.stem for path in Path(package.__path__[0]).glob("[a-z]*.py")} - {"limits"}
    assert set(PROCESSORS) == files
    assert all(module == f"gai_fast.processors.{name}" for name, module in PROCESSORS.items())


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({}, "a processor needs `use`, one of: json_stream, "),
        ({"use": 1}, "a processor needs `use`"),
        ({"use": "bach"}, "unknown processor 'bach'; did you mean 'batch'?"),
        ({"use": "zzz"}, "unknown processor 'zzz'; known: json_stream, "),
        (
            {"use": "batch", "charcters": 1},
            "processor 'batch' has no parameter 'charcters'; did you mean 'characters'?",
        ),
        (
            {"use": "batch", "characters": "1"},
            "processor 'batch', parameter 'characters': Expected `int | null`, got `str`",
        ),
        ({"use": "batch", "characters": 0}, "processor 'batch', parameter 'characters': Expected `int` >= 1"),
        ({"use": "batch"}, "processor 'batch': needs `characters` or `milliseconds`"),
        ({"use": "json_stream", "on_invalid": "stop"}, "parameter 'on_invalid': Invalid enum value 'stop'"),
        ({"use": "filter", "keep": ["x", 1]}, "parameter 'keep[1]': Expected `str`, got `int`"),
    ],
)
def test_what_is_wrong_is_reported(entry: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=re.escape(expected)):
        read_processor(entry)


def test_no_processor_is_no_chain() -> None:
    assert make_chain([], StreamInfo()) is None
    assert make_chain([read_processor({"use": "json_stream"})], StreamInfo()) is None


def test_snapshots_need_no_configuration() -> None:
    stream = StreamInfo(json_snapshots=0)
    alone = make_chain([], stream)
    assert alone is not None
    events = [{"type": "start"}, {"type": "text.delta", "text": '{"a":1}'}, {"type": "finish", "finish_reason": "stop"}]
    out = [made["type"] for event in events for made in alone.process(event)]
    assert out == ["start", "text.delta", "json.snapshot", "finish"]


def test_snapshots_come_from_the_processor_that_is_configured() -> None:
    configured = [read_processor({"use": "batch", "characters": 5}), read_processor({"use": "json_stream"})]
    chain = make_chain(configured, StreamInfo(json_snapshots=0))
    assert chain is not None
    assert [type(each) for each in chain._processors] == [TextPace, BatchProcessor, JSONStreamProcessor]


def test_the_guards_come_before_all_others() -> None:
    configured = [read_processor({"use": "transform", "replace": {"a": "b"}}), read_processor({"use": "json_stream"})]
    for stream, others in ((StreamInfo(), 2), (StreamInfo(json_snapshots=0), 3)):
        chain = make_chain(configured, stream, Guarding(lambda _: Stopping("text.delta")))
        assert chain is not None
        assert [isinstance(each, Stopping) for each in chain._processors] == [True] + [False] * others
        assert chain.touches == "deltas"
    alone = make_chain([], StreamInfo(), Guarding(lambda _: Stopping("text.delta")))
    assert alone is not None
    assert make_chain([], StreamInfo(), Guarding(lambda _: None)) is None
