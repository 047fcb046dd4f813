"""The figures of a stream."""

from __future__ import annotations

import inspect
import re

import pytest

from gai_fast.metrics import StreamMetrics


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
    told = StreamMetrics(duration=3.0, time_to_first_token=first, gap_sum=gaps, usage={"output_tokens": tokens})
    assert told.tokens_per_second == rate
    assert told.as_dict().get("tokens_per_second") == rate


def test_every_figure_is_explained() -> None:
    explained = re.findall(r"^    (\w+): ", inspect.cleandoc(StreamMetrics.__doc__ or ""), re.M)
    assert explained == [name for name in StreamMetrics.__struct_fields__ if name in explained]
    assert set(StreamMetrics.__struct_fields__) == set(explained)
