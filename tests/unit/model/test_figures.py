"""The figures of a stream."""

from __future__ import annotations

import pickle
from copy import copy, deepcopy
from dataclasses import asdict, fields, replace
from types import NoneType

import pytest

from gai_fast.model.figures import COUNTED, SERIES, StreamMetrics
from gai_fast.model.money import Charge


@pytest.mark.parametrize(
    ("tokens", "first", "gaps", "rate"),
    [
        (101, 1.0, 2.0, 50.0),
        (101, 3.0, 2.0, 50.0),
        (101, None, 2.0, 50.0),
        (1, 1.0, 1.0, None),
        (0, 1.0, 1.0, None),
        (10, 2.9999, 0.0, None),
    ],
    ids=["some", "given whole at the end", "left out by a processor", "one", "none", "all in one read"],
)
def test_tokens_a_second_are_those_after_the_first_by_the_time_in_which_they_came(
    tokens: int, first: float | None, gaps: float, rate: float | None
) -> None:
    message = StreamMetrics(duration=3.0, time_to_first_token=first, gap_sum=gaps, usage={"output_tokens": tokens})
    assert message.tokens_per_second == rate
    assert message.as_dict().get("tokens_per_second") == rate


@pytest.mark.parametrize("count", [None, "7", -3, 1.5])
def test_a_count_that_is_no_count_is_none(count: object) -> None:
    """A processor may write anything into the usage of the end."""
    message = StreamMetrics(duration=3.0, gap_sum=2.0, usage={"output_tokens": count})
    assert message.tokens_per_second is None
    assert "tokens_per_second" not in message.as_dict()


def test_the_series_of_the_table_can_be_counted() -> None:
    """`server/observe/counts.py` adds ints and observes floats. Compiled, it refuses others; a sink's failure shows
    only in the log.
    """
    assert len({each.source for each in SERIES}) == len(SERIES)
    for each in SERIES:
        if each.field == "usage":
            continue
        value = getattr(StreamMetrics(), each.source)
        if each.total:
            assert [type(count) for count in value] == [int] * (len(each.metric.bounds) + 1)
            assert isinstance(getattr(StreamMetrics(), each.total), float)
        else:
            assert isinstance(value, (float, NoneType) if each.metric.bounds else int)


def test_the_figures_that_are_counted_are_those_of_the_series() -> None:
    """Compiled, `counted` is not the method of the source: the build writes another."""
    figures = {each.source for each in SERIES if each.field != "usage"} | {each.total for each in SERIES if each.total}
    assert {*COUNTED} == figures
    numbers = {name: at for at, name in enumerate(COUNTED, 10) if isinstance(getattr(StreamMetrics(), name), int)}
    times = {"duration": 0.25, "gap_sum": 0.5, "backpressure": 0.75, "gateway_overhead": 1.5}
    firsts = {"time_to_first_token": 2.5, "upstream_time_to_first_token": 3.5}
    numbers = {name: at for name, at in numbers.items() if name in StreamMetrics.__dataclass_fields__}
    metrics = StreamMetrics(**numbers, **times, **firsts, events=99, outcome="disconnected")
    assert metrics.counted() == tuple(getattr(metrics, name) for name in COUNTED)
    assert len({*metrics.counted()}) == len(COUNTED)


def test_figures_are_equal_where_each_is_and_can_be_copied_and_sent_to_another_process() -> None:
    charges = (Charge("openai", "up", 1, "USD"),)
    message = StreamMetrics(duration=1.0, deltas=3, usage={"output_tokens": 3}, charges=charges)
    for copied in (copy(message), deepcopy(message), pickle.loads(pickle.dumps(message)), replace(message)):
        assert copied == message
        assert repr(copied) == repr(message)
    assert replace(message, deltas=4) != message
    assert replace(message, deltas=4).deltas == 4
    assert asdict(message) == {each.name: getattr(message, each.name) for each in fields(message)}
