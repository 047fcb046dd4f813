"""`gai_fast/net/runs/tallies.py`: what is counted of calls; `integration/test_run_sight.py` has the rest."""

from __future__ import annotations

from gai_fast.core.run import CallResult, RunCall, RunTool
from gai_fast.net.runs.tallies import RunSight, RunTallies, SeenCall
from tests.limits import LIMITS


def call_of(address: str | None, result: CallResult | None = None, call_id: str = "a") -> RunCall:
    tool = None if address is None else RunTool(address)
    return RunCall(call_id, "odd name", {}, 2, 0, tool, attempt=1, result=result)


def sight_of(tallies: RunTallies) -> RunSight:
    seconds = iter(range(1000))
    return RunSight(tallies, None, lambda: float(next(seconds)), "s", "r", "alice", None)


def test_a_call_has_the_label_of_its_server_and_the_time_that_it_took() -> None:
    tallies, lines, times = RunTallies(), list[SeenCall](), list[tuple[str, float]]()
    tallies.log, tallies.note_seconds = lines.append, lambda server, seconds: times.append((server, seconds))
    sight = sight_of(tallies)
    call = call_of("docs.search", CallResult("ok"))
    assert sight.begin(call) == "", "nothing is traced"
    sight.ended(call)
    sight.ended(call_of("weather", CallResult("no", is_error=True, fault="denied")))
    sight.ended(call_of(None, CallResult("there is no such tool", is_error=True)))
    assert dict(tallies.calls) == {
        ("docs", "ok", "search"): 1,
        ("gateway", "denied", "weather"): 1,
        ("", "error", "unknown"): 1,
    }
    assert times == [("docs", 1.0)]
    assert lines[0] == SeenCall("docs", "search", "ok", 1.0, 2, 1, "a", "s", "r", "alice", None)
    assert [line.attempt for line in lines] == [1, 0, 0]


def test_a_call_that_is_ended_with_a_result_is_counted_by_that_alone() -> None:
    tallies = RunTallies()
    sight = sight_of(tallies)
    late, left = call_of("late"), call_of("left", call_id="b")
    sight.begin(late)
    sight.begin(left)
    late.result = CallResult("no time", is_error=True, fault="timeout")
    sight.cut(late)
    sight.ended(late)
    sight.cut(left)
    assert dict(tallies.calls) == {("gateway", "timeout", "late"): 1, ("gateway", "unknown", "left"): 1}


def test_a_list_that_changes_for_ever_has_a_bounded_number_of_labels() -> None:
    tallies = RunTallies()
    sight = sight_of(tallies)
    for number in range(LIMITS.tool_series + 10):
        sight.ended(call_of(f"docs.t{number}", CallResult("ok")))
    assert len(tallies.calls) == LIMITS.tool_series + 1
    assert tallies.calls["docs", "ok", "other"] == 10


def test_a_run_waits_until_its_end_at_most() -> None:
    tallies, turns = RunTallies(), list[int]()
    tallies.note_steps = turns.append
    sight = sight_of(tallies)
    for is_waiting, total in ((True, 1), (True, 1), (False, 0), (True, 1)):
        sight.waits(is_waiting)
        assert tallies.waiting == total
    sight.close(3)
    assert (tallies.waiting, turns) == (0, [3])


def test_a_tool_of_the_gateway_s_own_is_there_as_zero() -> None:
    tallies = RunTallies()
    tallies.expect("weather")
    assert {outcome: n for (_, outcome, _), n in tallies.calls.items()} == dict.fromkeys(
        ("ok", "error", "timeout", "denied", "unknown"), 0
    )
