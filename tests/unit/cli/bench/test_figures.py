"""Numbers and times as people read them."""

from __future__ import annotations

import pytest

from gai_fast.cli.bench.figures import figure, seconds


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.00123, "0.00123"),
        (0.5, "0.500"),
        (1, "1.00"),
        (12.34, "12.3"),
        (99.97, "100"),
        (123.4, "123"),
        (12345.6, "12,346"),
    ],
)
def test_a_figure_has_three_digits_that_count_or_all_before_its_point(value: float, text: str) -> None:
    assert figure(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 µs"), (2e-7, "0.200 µs"), (1.5e-5, "15.0 µs"), (1e-3, "1.00 ms"), (0.25, "250 ms"), (90, "90.0 s")],
)
def test_a_time_is_reported_in_the_unit_that_suits_it(value: float, text: str) -> None:
    assert seconds(value) == text
