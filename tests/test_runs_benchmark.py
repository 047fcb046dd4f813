"""`benchmarks/macro/runs.py`: its bounds."""

from __future__ import annotations

import pytest

from benchmarks.macro.running import Fault
from benchmarks.macro.runs import MOST, share
from benchmarks.macro.scene import check


def test_a_figure_beyond_its_bound_fails() -> None:
    check({**MOST}, MOST)
    for name, most in MOST.items():
        with pytest.raises(Fault, match=f"{name} is"):
            check({name: most * 1.01}, MOST)


@pytest.mark.parametrize(("part", "expected"), [(0.5, 50), (0.99, 99)])
def test_a_share_of_times_is_not_above_the_one_that_is_named(part: float, expected: float) -> None:
    assert share([float(number) for number in range(100, 0, -1)], part) == pytest.approx(expected, abs=1)
