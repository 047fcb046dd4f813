"""`gai-fast bench`: conditions, and what is shown of the figures. `integration/test_bench.py` makes load."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gai_fast.cli.bench.command import Condition, results_of, shown
from gai_fast.cli.bench.load import Load, Measured, endpoint
from tests.unit.cli.conftest import Run

BEGUN = datetime(2026, 11, 20, 12, tzinfo=UTC)


def measured(*times: float, errors: dict[str, int] | None = None, **more: Any) -> Measured:
    """Answers with these times to the first event, and failed ones."""
    found = Measured(seconds=2.0, requests=len(times) + sum((errors or {}).values()), events=10 * len(times))
    for time in times:
        found.ttft.add(time)
        found.gap.add(time / 100)
        found.duration.add(time * 2)
    found.errors.update(errors or {})
    for name, value in more.items():
        setattr(found, name, value)
    return found


def results(found: Measured, **options: Any) -> dict[str, Any]:
    asked = endpoint(
        "http://h:1", format="gai", model="m", prompt="x", max_tokens=None, api_key="sk-secret", headers={}
    )
    load = Load(asked, connections=4, requests=None, rate=None, duration=None, timeout=1)
    load.measured = found
    return results_of(load, 4, options.get("rate"), BEGUN)


class TestConditions:
    @pytest.mark.parametrize(
        ("text", "trips"),
        [
            ("p50_ttft>202ms", False),
            ("p50_ttft > 0.198 s", True),
            ("p99_ttft>=1s", False),
            ("p99.9_ttft<1s", True),
            ("max_duration>599.9ms", True),
            ("mean_ttft<200000us", False),
            ("p50_gap<2020µs", True),
            ("errors>0", True),
            ("errors>=2", False),
            ("error_rate>24.9%", True),
            ("error_rate>25%", False),
            ("events_per_second<15", False),
            ("requests_per_second<2.1", True),
            ("tokens_per_second>=10", True),
        ],
    )
    def test_one_trips_where_it_holds(self, text: str, trips: bool) -> None:
        found = measured(0.1, 0.2, 0.3, errors={"network": 1}, output_tokens=20)
        problem = Condition.parse(text).problem(found)
        assert (problem is not None) == trips
        assert problem is None or problem.startswith(f"{text}: it is ")

    def test_what_trips_is_reported_with_its_figure(self) -> None:
        found = measured(0.3118, errors={"network": 1})
        for text, message in (
            ("p99_ttft>200ms", "it is 311 ms"),
            ("errors>0", "it is 1"),
            ("error_rate>1%", "it is 50%"),
        ):
            assert Condition.parse(text).problem(found) == f"{text}: {message}"

    @pytest.mark.parametrize("text", ["p99_ttft>1s", "tokens_per_second<1", "mean_gap<1s", "max_duration>0ms"])
    def test_what_could_not_be_measured_trips(self, text: str) -> None:
        assert "nothing was measured" in (Condition.parse(text).problem(Measured(seconds=1.0)) or "")

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("", "no condition"),
            ("p99_ttft", "no condition"),
            ("p99_ttft=1s", "no condition"),
            ("p99_ttft>1s and errors>0", "no condition"),
            ("p99_ttft>-1s", "no condition"),
            ("p99_ttft>1_0s", "no condition"),
            ("p99_ttft>1e3ms", "no condition"),
            ("p99_ttft>٣s", "no condition"),
            ("ttft>1s", "no metric 'ttft'"),
            ("p100_ttft>1s", "no metric 'p100_ttft'"),
            ("p5x_ttft>1s", "no metric 'p5x_ttft'"),
            ("p99_ttft>200", "has the unit us or"),
            ("p99_ttft>20%", "has the unit us or"),
            ("error_rate>1", "has the unit %"),
            ("errors>1%", "has no unit"),
            ("events_per_second>1ms", "has no unit"),
        ],
    )
    def test_what_is_none_is_a_usage_error_that_says_why(self, run: Run, text: str, why: str) -> None:
        with pytest.raises(ValueError, match=why):
            Condition.parse(text)
        result = run("bench", "http://127.0.0.1:1", "--fail-on", text)
        assert result.exit_code == 2
        assert why in " ".join(result.output.split())


class TestTable:
    def test_times_and_counts_stand_in_columns(self) -> None:
        lines = shown(results(measured(0.1, 0.1, output_tokens=30, errors={"network": 1, "timeout": 2}))).splitlines()
        assert lines[0] == "http://h:1/api/v1/stream · gai · m · 4 connections · 2.00 s"
        assert lines[2].split() == ["p50", "p90", "p99", "max"]
        assert lines[3].split("  ")[0] == "TTFT"
        assert lines[3].count("100 ms") == 4
        assert [line.split() for line in lines[7:]] == [
            ["requests", "5", "2.50/s"],
            ["events", "20", "10.0/s"],
            ["output", "tokens", "30", "15.0/s"],
            ["errors", "3", "timeout", "2,", "network", "1"],
            ["client", "CPU", "0%", "of", "a", "core"],
        ]

    def test_what_was_not_measured_is_a_dash_and_never_a_nought(self) -> None:
        text = shown(results(Measured(seconds=1.0, requests=1)))
        assert text.splitlines()[3].split() == ["TTFT", "–", "–", "–", "–"]
        assert "tokens" not in text

    def test_what_limits_the_figures_is_said(self) -> None:
        odd = measured(0.1, client_cpu=0.97, interrupted=True, first_error="network: reset", unsent=7)
        text = shown(results(odd, rate=50.0))
        assert "50 requests/s due" in text
        assert "first error: network: reset" in text
        assert "this client used 97% of a core" in text
        assert ["client", "CPU", "97%", "of", "a", "core"] in [line.split() for line in text.splitlines()]
        assert "the mock" not in text
        assert "interrupted" in text
        assert "never sent" in text


def test_a_mock_that_is_the_limit_is_said() -> None:
    load = measured(0.1)
    for told in ("0.20", "0.95", "0.50", "x", "1e9", "99999.00"):
        load.note_mock(told)
    assert load.mock_cpu == 0.95
    assert "the mock used 95% of a core: it is the limit" in shown(results(load))
    assert results(load)["mock_cpu"] == 0.95
    assert results(measured(0.1))["mock_cpu"] is None


def test_the_json_document_has_figures_in_seconds_and_no_secret() -> None:
    document = results(measured(0.1, 0.3))
    assert (document["schema"], document["seconds"], document["requests"]) == ("gai-fast.bench.v1", 2.0, 2)
    assert document["ttft"]["p50"] == pytest.approx(0.1, rel=0.006)
    assert sum(document["ttft"]["buckets"].values()) == 2
    assert "sk-secret" not in json.dumps(document)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((), "Missing argument 'URL'"),
        (("ftp://h",), "the URL must begin with http"),
        (("http://h", "--format", "openai"), "needs a model"),
        (("http://h", "--header", "authorization Bearer sk-x"), "of the form 'name: value'"),
        (("http://h", "--prompt", "\udcff"), "must be UTF-8"),
        (("http://h", "--model", "\udcff"), "must be UTF-8"),
        (("http://h", "--rate", "0"), "--rate"),
        (("http://h", "--connections", "0"), "--connections"),
    ],
)
def test_wrong_arguments_are_usage_errors(run: Run, arguments: tuple[str, ...], why: str) -> None:
    result = run("bench", *arguments)
    assert result.exit_code == 2
    assert why in " ".join(result.output.split())
    assert "sk-x" not in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ("--json", "out.json"),
        ("http://127.0.0.1:1", "--json", "out.json"),
        ("--json", "out.json", "http://127.0.0.1:1"),
    ],
)
def test_json_prints_and_takes_no_file(run: Run, folder: Path, arguments: tuple[str, ...]) -> None:
    result = run("bench", *arguments)
    assert result.exit_code == 2
    assert "Error: --json takes no file, it prints: gai-fast bench URL --json > FILE\n" in result.output
    assert not list(folder.iterdir())


def test_a_second_url_is_refused(run: Run) -> None:
    result = run("bench", "http://127.0.0.1:1", "http://127.0.0.1:2")
    assert result.exit_code == 2
    assert "Error: one URL only, not also http://127.0.0.1:2\n" in result.output
