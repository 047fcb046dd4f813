"""The gate on instructions and allocations per event (`benchmarks/instructions`)."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from benchmarks.instructions.__main__ import (
    ACCEPT,
    BASELINE,
    PATH_BASELINE,
    Baseline,
    compare,
    load_baseline,
    requires_all,
)
from benchmarks.instructions.bounds import Added, Ratio, compare_bounds
from benchmarks.instructions.durable import measure_durable
from benchmarks.instructions.guards import measure_guards
from benchmarks.instructions.path import (
    ANSWERED,
    BURST,
    CASES,
    UPSTREAMS,
    Server,
    at_once,
    measure_path,
    one_by_one,
    path_environment,
)
from benchmarks.instructions.runs import measure_runs
from benchmarks.instructions.sealed import ALONE, AT_ONCE, Pair, compare_sealed
from gai_fast import decode
from gai_fast.kernels import MODULES, ChunkedBody

pytestmark = pytest.mark.native

Unavailable = Callable[[str], NoReturn]


@pytest.fixture
def baseline() -> Baseline:
    result: Baseline = json.loads(BASELINE.read_text())
    assert result
    return result


def test_the_kernels_cost_what_the_baseline_says(baseline: Baseline, unavailable: Unavailable) -> None:
    """Counted here; and the same counts fail against a baseline that is five per cent lower."""
    for program in ("valgrind", "cc"):
        if shutil.which(program) is None:
            unavailable(program)
    from benchmarks.instructions.counting import environment, measure  # they need the native kernels

    (costs, growths), where = measure(), environment()
    lines, fine = compare(costs, baseline, where, growths, is_required=requires_all())
    assert fine, "\n".join(lines)
    result = {name: {"instructions": cost.instructions * 0.95, "allocations": 0} for name, cost in costs.items()}
    lines, fine = compare(costs, {where: result}, where)
    assert not fine
    assert sum("more than 3% worse" in line for line in lines) == len(costs)
    assert lines[-1] == f"to accept: {ACCEPT}"


@pytest.mark.timeout(1200)
def test_a_request_costs_what_the_baseline_says_from_socket_to_socket(tmp_path: Path, unavailable: Unavailable) -> None:
    """All of the server's process: the kernels, the modules that mypyc compiled, the interpreter and the loop."""
    for program in ("valgrind", "cc"):
        if shutil.which(program) is None:
            unavailable(program)
    if MODULES == "interpreted":
        unavailable("the compiled modules (make install)")
    costs, where = measure_path(tmp_path), path_environment()
    assert costs.keys() == CASES.keys()
    lines, fine = compare(costs, load_baseline(PATH_BASELINE), where, is_required=requires_all())
    assert fine, "\n".join(lines)


@pytest.mark.parametrize("provider", UPSTREAMS)
def test_an_upstream_of_a_row_answers_as_its_provider_does(provider: str) -> None:
    """An answer has its texts, its usage and its end, and no warning."""
    for pieces, texts in (
        (at_once(provider), [" tok"] * BURST),
        (one_by_one(provider, 3), ["first", *[" tok"] * 3]),
    ):
        _, _, body = b"".join(pieces).partition(b"\r\n\r\n")
        events = list(decode(provider, [ChunkedBody().feed(body)]))
        assert [event["text"] for event in events if event["type"] == "text.delta"] == texts
        finish, done = events[len(texts) + 1 :]
        assert (finish["type"], finish["usage"]["output_tokens"], done["type"]) == ("finish", 10, "done")


@pytest.fixture
def cost() -> type:
    from benchmarks.instructions.counting import Cost  # as above

    return Cost


@pytest.mark.parametrize(
    ("instructions", "allocations", "growth", "expected"),
    [
        (102.9, 1.0, 2.0, ""),
        (97.1, 1.0, 2.0, ""),
        (103.1, 1.0, 2.0, "more than 3% worse"),
        (96.0, 1.0, 2.0, "more than 3% better"),
        (100.0, 1.5, 2.0, "1.5 allocations, not 1"),
        (100.0, 1.0, 4.0, "twice as many events cost 4.00 times as much"),
    ],
)
def test_what_fails_is_reported_beside_its_case(
    cost: type, instructions: float, allocations: float, growth: float, expected: str
) -> None:
    baseline = {"here": {"a case": {"instructions": 100.0, "allocations": 1.0}}}
    lines, fine = compare({"a case": cost(instructions, allocations, growth)}, baseline, "here")
    assert fine is not bool(expected)
    assert lines[1].split("  ")[-1] == expected if expected else lines[1].endswith(" 1")
    assert lines[1].startswith("a case ")


def test_elsewhere_only_what_no_compiler_changes_is_compared(cost: type) -> None:
    baseline = {"here": {"a case": {"instructions": 100.0, "allocations": 0.0}}}
    lines, fine = compare({"a case": cost(900.0, 0.0, 2.0)}, baseline, "there")
    assert fine
    assert lines[-1] == "no baseline for there: instructions are not compared, only allocations and growth"
    assert not compare({"a case": cost(900.0, 1.0, 2.0)}, baseline, "there")[1]
    assert not compare({"a case": cost(900.0, 0.0, 3.0)}, baseline, "there")[1]


def test_no_baseline_is_a_failure_where_everything_is_required(cost: type) -> None:
    baseline = {"here": {"a case": {"instructions": 100.0, "allocations": 0.0}}}
    assert compare({"a case": cost(100.0, 0.0, 2.0)}, baseline, "here", is_required=True)[1]
    assert not compare({"a case": cost(100.0, 0.0, 2.0)}, baseline, "there", is_required=True)[1]
    assert not compare({"a case": cost(100.0, 0.0, 2.0)}, {}, "here", is_required=True)[1]


@pytest.mark.parametrize("kind", [ALONE, AT_ONCE])
def test_a_sealed_store_may_cost_an_event_some_per_cent(kind: str) -> None:
    well = {ALONE: Pair(1000.0, 1050.0), AT_ONCE: Pair(1000.0, 1070.0)}
    lines, fine = compare_sealed(well)
    assert fine
    assert [line[34:].split()[1:] for line in lines[1:]] == [["1050.0", "+5.0%"], ["1070.0", "+7.0%"]]
    lines, fine = compare_sealed(well | {kind: Pair(1000.0, well[kind].sealed + 1)})
    assert not fine
    [dear] = [line for line in lines if "% more" in line]
    assert dear.startswith(kind)
    assert dear.endswith({ALONE: "+5.1%  more than 5% more", AT_ONCE: "+7.1%  more than 7% more"}[kind])


def test_a_kept_response_may_cost_so_many_times_as_much() -> None:
    well = {"kept": Ratio(115.0, 100.0, 1.15), "chain": Ratio(90.0, 100.0, 1.25)}
    lines, fine = compare_bounds(well)
    assert fine
    assert [line.split()[1:] for line in lines[1:]] == [
        ["115", "100", "1.150", "1.15"],
        ["90", "100", "0.900", "1.25"],
    ]
    lines, fine = compare_bounds(well | {"chain": Ratio(126.0, 100.0, 1.25)})
    assert not fine
    assert [line.startswith("chain") for line in lines if line.endswith("too much")] == [True]


@pytest.mark.timeout(1200)
def test_guards_cost_no_more_than_they_may(tmp_path: Path, unavailable: Unavailable) -> None:
    """The bounds of docs/performance.md, in instructions: answers, the first text, the search, and building lists."""
    for program in ("valgrind", "cc"):
        if shutil.which(program) is None:
            unavailable(program)
    if MODULES == "interpreted":
        unavailable("the compiled modules (make install)")
    lines, fine = compare_bounds(measure_guards(tmp_path))
    assert fine, "\n".join(lines)
    assert len(lines) == 8


@pytest.mark.timeout(1200)
def test_a_durable_stream_of_a_dialect_costs_no_more_than_its_native_twin(
    tmp_path: Path, unavailable: Unavailable
) -> None:
    for program in ("valgrind", "cc"):
        if shutil.which(program) is None:
            unavailable(program)
    if MODULES == "interpreted":
        unavailable("the compiled modules (make install)")
    lines, fine = compare_bounds(measure_durable(tmp_path, alone=False))
    assert fine, "\n".join(lines)
    assert len(lines) == 3


@pytest.mark.timeout(1200)
def test_runs_cost_no_more_than_they_may(tmp_path: Path, unavailable: Unavailable) -> None:
    """Texts of runs and the way to the next turn; `benchmarks.instructions runs` has the rest."""
    for program in ("valgrind", "cc"):
        if shutil.which(program) is None:
            unavailable(program)
    if MODULES == "interpreted":
        unavailable("the compiled modules (make install)")
    lines, fine = compare_bounds(measure_runs(tmp_path, ("texts", "turns"), few=True))
    assert fine, "\n".join(lines)
    assert len(lines) == 5


def test_a_guard_may_cost_so_many_times_as_much_or_so_much_more() -> None:
    well = {"lists": Ratio(150.0, 100.0, 1.5), "first": Added(1500.0, 1000.0, 500)}
    lines, fine = compare_bounds(well)
    assert fine
    assert [line.split()[1:] for line in lines[1:]] == [
        ["150", "100", "1.500", "1.50"],
        ["1,500", "1,000", "+500", "500"],
    ]
    for name, each in (("lists", Ratio(151.0, 100.0, 1.5)), ("first", Added(1501.0, 1000.0, 500))):
        lines, fine = compare_bounds(well | {name: each})
        assert not fine
        assert [line.split()[0] for line in lines if line.endswith("too much")] == [name]


def test_what_must_be_linear_is_and_the_case_that_is_not_is_seen(cost: type) -> None:
    for name, growth, is_fine in (
        ("JSON answer followed", 2.05, True),
        ("JSON answer followed", 2.2, False),
        ("JSON answer parsed anew", 3.5, True),
        ("JSON answer parsed anew", 2.0, False),
    ):
        lines, fine = compare({}, {}, "here", {name: growth})
        assert fine is is_fine
        assert any(line.startswith(name) and line.endswith("wrong") is not is_fine for line in lines)


def test_cases_that_come_or_go_are_reported(cost: type) -> None:
    baseline = {"here": {"a case": {"instructions": 100.0, "allocations": 0.0}}}
    lines, fine = compare({"another": cost(1.0, 0.0, 2.0)}, baseline, "here")
    assert not fine
    assert lines[1].endswith("not in the baseline")
    assert lines[2].endswith("is in the baseline and was not measured")
    there, fine = compare({"another": cost(1.0, 0.0, 2.0)}, baseline, "there")
    assert not fine
    assert there[1:3] == lines[1:3]


def test_what_a_thread_runs_is_not_libcs(tmp_path: Path) -> None:
    """Callgrind counts 0 for calls of a thread's main function."""
    from benchmarks.instructions.counting import read  # as above

    file = tmp_path / "out"
    file.write_text(
        "ob=(1) /usr/lib/libc.so.6\nfn=(1) clone\n+3 100\ncob=(2) /usr/bin/python\ncfn=(2) run\ncalls=0 -16\n* 7000\n"
        "ob=(2)\nfn=(2)\n8 7000\nsummary: 7100\n"
    )
    found = read(file)
    assert (found.everything, found.without_libc) == (7100, 7000)


def test_the_request_is_not_counted_with_the_events_that_come_alone() -> None:
    from benchmarks.instructions.counting import Counted  # as above

    class Scripted(Server):
        """Counts the pieces since the last mark, and a million for a request; every other answer costs more."""

        def __init__(self) -> None:
            self.instructions = self.answers = 0

        def connected(self) -> socket.socket:
            return socket.socket()

        def begin(self) -> None:
            self.answers = self.instructions = 0

        def ask(self, client: Any, case: Any, pieces: list[bytes], mark: Callable[[], None] | None = None) -> None:
            self.answers += 1
            self.instructions += 1_000_000
            for number in range(1, len(pieces) + 1):
                if mark is not None and number in (2, len(pieces)):
                    mark()
                self.instructions += 100 + self.answers % 2
            self.instructions += 1_000_000

        def counted(self) -> Counted:
            found, self.instructions = self.instructions, 0
            return Counted(0, 0, 0, found)

    server = Scripted()
    assert server.cost_of_events(CASES["event that comes alone"], [b"x"] * 12) == 10 * 100
    assert server.answers == ANSWERED
