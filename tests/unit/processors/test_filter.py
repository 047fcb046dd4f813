"""Events left out, by type and by choice."""

from __future__ import annotations

from typing import Any

import pytest

from gai_fast.core.processing.processor import FRAME
from gai_fast.model.events import TYPES
from gai_fast.processors import StreamInfo, read_processor
from gai_fast.processors.filter import FilterProcessor

from .streams import delta, stream, through, types_of

USAGE: Any = {"type": "usage", "usage": {"input_tokens": 1}}
REASONING: Any = {"type": "reasoning.delta", "text": "hm"}


def test_only_what_is_kept_passes_and_what_frames_the_stream() -> None:
    every: list[Any] = [{"type": name} for name in sorted(TYPES)]
    kept = types_of(through(FilterProcessor(keep=["text.delta"]), every))
    assert set(kept) == FRAME | {"text.delta", "stream.reset", "stream.gap"}


def test_what_is_dropped_does_not_pass() -> None:
    events = [*stream("a"), USAGE, REASONING]
    assert types_of(through(FilterProcessor(drop=["usage", "reasoning.delta"]), events)) == types_of(stream("a"))


def test_only_some_choices_pass() -> None:
    events = [delta("a"), delta("b", choice=1), delta("c", choice=2)]
    assert through(FilterProcessor(choices=[0, 2]), events) == [events[0], events[2]]


@pytest.mark.parametrize(
    ("options", "touches"),
    [
        ({"drop": ["usage"]}, "events"),
        ({"drop": ["reasoning.delta"]}, "deltas"),
        ({"choices": [0]}, "deltas"),
        ({"keep": ["text.delta"]}, "deltas"),
    ],
)
def test_deltas_stay_on_the_fast_path_where_all_of_them_pass(options: Any, touches: str) -> None:
    assert FilterProcessor(**options).touches == touches


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"drop": ["finish"]}, "'finish' cannot be left out"),
        ({"drop": ["text"]}, "there is no event type 'text'"),
        ({"keep": ["nope"]}, "there is no event type 'nope'"),
    ],
)
def test_what_cannot_be_left_out_is_reported(options: Any, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        FilterProcessor(**options)
    with pytest.raises(ValueError, match=expected):
        read_processor({"use": "filter", **options})


@pytest.mark.parametrize("name", ["keep", "drop"])
def test_one_type_instead_of_several_is_refused(name: str) -> None:
    options: Any = {name: "usage"}
    with pytest.raises(TypeError, match=r"^`keep` and `drop` take several types, such as \['usage'\]$"):
        FilterProcessor(**options)


def test_the_configuration_makes_one() -> None:
    made = read_processor({"use": "filter", "drop": ["usage"], "choices": [0]}).processor(StreamInfo())
    assert made is not None
    assert types_of(through(made, [USAGE, delta("a"), delta("b", choice=1)])) == ["text.delta"]
