"""Reports of the benchmarks: plots, and files that need nothing else."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks import endpoint, plots
from benchmarks.plots import Curve, Dot

HOSTILE = '<script>alert("&")</script>'


def drawn(svg: str) -> ElementTree.Element:
    """Returns a plot, which must be well formed."""
    return ElementTree.fromstring(svg)


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in drawn(svg).iter("text")]


class TestDots:
    def test_every_row_has_its_name_and_its_value_and_lies_where_it_belongs(self) -> None:
        svg = plots.dots("cpu", [Dot("a", 1.0, "1 µs", "main"), Dot("b", 10.0, "10 µs"), Dot("c", 100.0, "x")], "µs")
        places = [float(circle.get("cx", "nan")) for circle in drawn(svg).iter("circle")]
        assert places[1] - places[0] == pytest.approx(places[2] - places[1], abs=0.2)  # a logarithmic axis
        assert {"a", "1 µs", "b", "10 µs", "c", "x", "µs", "1", "10", "100"} <= set(texts(svg))

    def test_what_has_no_value_says_why_and_has_no_dot(self) -> None:
        svg = plots.dots("cpu", [Dot("a", 1.0, "1"), Dot("b", None, "failed: a wrong byte")], "µs")
        assert len(list(drawn(svg).iter("circle"))) == 1
        assert "failed: a wrong byte" in texts(svg)

    def test_a_small_difference_looks_small(self) -> None:
        svg = plots.dots("cpu", [Dot("a", 1.0, "1"), Dot("b", 1.1, "1.1")], "µs")
        first, second = (float(circle.get("cx", "nan")) for circle in drawn(svg).iter("circle"))
        assert 0 < second - first < 30

    def test_rows_without_any_value_are_still_a_plot(self) -> None:
        assert "b" in texts(plots.dots("cpu", [Dot("b", None, "missing")], "µs"))


class TestCurves:
    def test_each_has_its_name_at_its_end_and_no_two_names_overlap(self) -> None:
        lines = [Curve(name, [(0, 0), (100, 7 + index / 100)]) for index, name in enumerate("abc")]
        svg = plots.curves("memory", lines, "streams", "MiB")
        assert len(list(drawn(svg).iter("polyline"))) == 3
        heights = sorted(
            float(text.get("y", "nan")) for text in drawn(svg).iter("text") if text.text in ("a", "b", "c")
        )
        assert min(heights[1] - heights[0], heights[2] - heights[1]) >= plots.TEXT

    def test_the_axes_begin_at_nought(self) -> None:
        assert texts(plots.curves("memory", [Curve("a", [(50, 5), (100, 7)])], "streams", "MiB")).count("0") == 2


class TestDistributions:
    def test_the_ticks_reach_as_far_as_the_values_tell(self) -> None:
        few = plots.distributions("t", [("a", [(0.001, 50), (0.002, 50)], "main")], "share")
        many = plots.distributions("t", [("a", [(0.001, 50_000), (0.002, 50_000)], "main")], "share")
        assert "99 %" in texts(few)
        assert "99.99 %" not in texts(few)
        assert "99.99 %" in texts(many)

    def test_a_curve_never_falls(self) -> None:
        buckets = [(0.001 * 1.01**index, 1 + index % 7) for index in range(500)]
        svg = plots.distributions("t", [("a", buckets, "main")], "share")
        (line,) = drawn(svg).iter("polyline")
        points = [tuple(map(float, pair.split(","))) for pair in line.get("points", "").split()]
        assert points == sorted(points, key=lambda point: (point[0], -point[1]))

    def test_the_subject_is_drawn_over_the_rest(self) -> None:
        svg = plots.distributions("t", [("a", [(1, 1), (2, 1)], "main"), ("b", [(1, 1), (2, 1)], "other")], "share")
        assert [line.get("class") for line in drawn(svg).iter("polyline")] == ["other", "main"]

    def test_none_at_all_is_an_empty_plot(self) -> None:
        assert not list(drawn(plots.distributions("t", [("a", [], "main")], "share")).iter("polyline"))


def test_whatever_is_said_is_escaped() -> None:
    made = plots.page(
        HOSTILE,
        HOSTILE,
        plots.section(HOSTILE, HOSTILE, plots.table([HOSTILE], [[HOSTILE]])),
        plots.paragraphs([HOSTILE]),
        plots.dots(HOSTILE, [Dot(HOSTILE, 1.0, HOSTILE)], HOSTILE),
        plots.curves(HOSTILE, [Curve(HOSTILE, [(1, 1), (2, 2)])], HOSTILE, HOSTILE),
        plots.distributions(HOSTILE, [(HOSTILE, [(1, 1)], "main")], HOSTILE),
    )
    assert "<script" not in made
    assert made.count("&lt;script&gt;") >= 15


def test_a_page_needs_nothing_else_and_has_a_dark_edition() -> None:
    made = plots.page("t", "a", plots.section("s", "b", plots.dots("d", [Dot("x", 1.0, "1")], "µs")))
    assert not re.search(r"https?:|src=|href=|url\(|@import|<script|<link", made)
    assert "prefers-color-scheme: dark" in made
    assert made.startswith("<!doctype html>")


def test_numbers_stand_right_and_words_left_and_one_row_stands_out() -> None:
    made = plots.table(["who", "what"], [["a", "1.5 ms"], ["b", "missing"]], frozenset({"b"}))
    assert '<td class="number">1.5 ms</td>' in made
    assert '<td class="">missing</td>' in made
    assert made.count('<tr class="main">') == 1


def results(seconds: float, **more: Any) -> dict[str, Any]:
    """Returns what `gai-fast bench --json` prints of one answer."""
    times = {"count": 1, **dict.fromkeys(("mean", "p50", "p90", "p99", "max"), seconds), "buckets": {str(seconds): 1}}
    named = dict.fromkeys((*endpoint.SETTINGS, *endpoint.RATES))
    return {
        **named,
        "url": "http://h",
        "requests_per_second": 1 / seconds,
        **dict.fromkeys(endpoint.TIMES, times),
        **more,
    }


def test_results_of_an_endpoint_stand_beside_earlier_ones() -> None:
    rows = endpoint.changes(results(0.15), results(0.1))
    assert rows[0] == ["TTFT, p50", "150 ms", "100 ms", "+50%"]
    assert rows[-1] == ["tokens per second", "–", "–", ""]
    assert endpoint.changes(results(0.15), None)[0] == ["TTFT, p50", "150 ms", "–", ""]
    made = endpoint.page(results(0.2, model="<b>"), results(0.1))
    assert made.count("<svg") == 3
    assert "<b>" not in made
    assert made.count("before") >= 3
    assert endpoint.page(results(0.2)).count("<svg") == 3
