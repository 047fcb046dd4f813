"""`Bounds`, `Histogram` and `StreamCounters`, on both implementations."""

from __future__ import annotations

from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kernels import load

TIMES = st.floats(0, 100)
READS = st.lists(st.tuples(TIMES, TIMES, st.integers(-9, 9_000), st.integers(-2, 9)), max_size=20)


@pytest.mark.parametrize(("value", "place"), [(-1.0, 0), (0.0, 0), (1.0, 0), (1.5, 1), (2.0, 1), (2.1, 2)])
def test_a_bound_belongs_to_what_lies_below_it(kernels: ModuleType, value: float, place: int) -> None:
    assert kernels.Bounds((1.0, 2.0)).place_of(value) == place


def test_there_are_only_so_many_bounds(kernels: ModuleType) -> None:
    values = tuple(map(float, range(32)))
    assert kernels.Bounds(values).values == values
    assert kernels.Bounds(values).place_of(40.0) == 32
    with pytest.raises(ValueError, match="at most 32 bounds"):
        kernels.Bounds((*values, 32.0))


def test_a_value_is_counted_below_the_first_bound_that_it_does_not_exceed(kernels: ModuleType) -> None:
    histogram = kernels.Histogram((1.0, 2.0))
    assert histogram.bounds.values == (1.0, 2.0)
    for value in (0.5, 1.0, 1.5, 9, None):
        histogram.observe(value)
    assert (histogram.counts, histogram.sum) == ([2, 1, 1], 12.0)
    histogram.merge((1, 0, 3), 4.0)
    assert (histogram.counts, histogram.sum) == ([3, 1, 4], 16.0)


def test_counts_that_are_missing_at_the_end_are_0_and_more_are_refused(kernels: ModuleType) -> None:
    histogram = kernels.Histogram((1.0, 2.0))
    for counts in ((), (1,), (1, 2)):
        histogram.merge(counts, 1.0)
    assert (histogram.counts, histogram.sum) == ([2, 2, 0], 3.0)
    with pytest.raises(ValueError, match="more bounds"):
        histogram.merge((1, 2, 3, 4), 1.0)
    assert (histogram.counts, histogram.sum) == ([2, 2, 0], 3.0)


def test_a_read_adds_its_time_and_its_bytes(kernels: ModuleType) -> None:
    counters = kernels.StreamCounters(kernels.Bounds((1.0,)), 0.0)
    assert counters.first_at is None
    counters.read(1.0, 1.25, 100, 0)
    counters.read(2.0, 2.5, -20, 0)
    assert (counters.worked, counters.received, counters.deltas, counters.first_at) == (0.75, 80, 0, None)
    counters.wrote(7)
    counters.wrote(8)
    assert counters.sent == 15


def test_deltas_of_one_read_come_at_once_and_those_of_the_next_as_long_after_as_its_end(kernels: ModuleType) -> None:
    counters = kernels.StreamCounters(kernels.Bounds((0.5, 2.0)), 0.0)
    for began, ended, deltas in [(1.0, 1.5, 3), (2.0, 2.5, 3), (3.0, 3.5, 5), (9.0, 9.5, 6)]:
        counters.read(began, ended, 1, deltas)
    assert counters.first_at == 1.0
    assert counters.gaps == (2 + 1, 1, 1)
    assert counters.gap_sum == 2.0 + 6.0


def test_a_large_number_of_gaps_stays_what_it_is(kernels: ModuleType) -> None:
    """CPython keeps the numbers up to 256 itself; a larger one must be the tuple's own."""
    counters = kernels.StreamCounters(kernels.Bounds((1.0,)), 0.0)
    counters.read(1.0, 1.5, 1, 100_001)
    gaps = counters.gaps
    others = [number * 1_000_003 for number in range(300)]  # would take the place of a freed counter
    assert gaps == (100_000, 0)
    assert len(others) == 300


@pytest.mark.native
@given(READS)
def test_native_equals_pure(reads: list[tuple[float, float, int, int]]) -> None:
    seen = []
    for kernels in map(load, ("pure", "native")):
        counters = kernels.StreamCounters(kernels.Bounds((0.1, 1.0, 10.0)), 5.0)
        deltas = 0
        for began, ended, size, new in reads:
            deltas += new
            counters.read(began, ended, size, deltas)
            counters.wrote(max(size, 0))
        figures = [getattr(counters, name) for name in "first_at worked received sent deltas gap_sum".split()]
        assert counters.figures() == tuple(figures)
        seen.append((figures, counters.gaps))
    assert seen[0] == seen[1]
