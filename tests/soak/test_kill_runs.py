"""`make kill-runs`, for a few runs over each kind of store; and what its judge finds."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import ROOT
from tests.integration.stores.servers import PROGRAM
from tests.integration.test_cli import environment
from tests.soak.kill_runs.clients import Got, Told
from tests.soak.kill_runs.journal import Execution, Journal
from tests.soak.kill_runs.judge import BREAKER, NEAR, UNKNOWN, Fault, FaultKind, Story, judge
from tests.soak.kill_runs.kept import events_of, texts_of
from tests.soak.kill_runs.peers import Asked, text_of_step
from tests.soak.kill_runs.plans import STEPS, Form, Place, RunPlan, arguments_of

PAID, LOOKED, SIGNED = Place("r", 2, 0), Place("r", 2, 1), Place("r", 5, 0)
NOT_MADE = "the call was not made: the store is out of reach"


@pytest.mark.skipif(sys.platform != "linux", reason="missing on this machine: /proc")
@pytest.mark.skipif(PROGRAM is None, reason="missing on this machine: redis-server or valkey-server")
async def test_no_call_is_made_twice_whatever_is_killed() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.soak.kill_runs", "--runs", "12", "--at-once", "2", "--sync", "before_send",
        "--seed", "8",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=ROOT, env=environment(),
    )  # fmt: skip
    try:
        output = (await process.communicate())[0].decode()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    assert process.returncode == 0, output
    assert "faults: 0" in output
    assert output.count("'runs': 4") == 3
    for kind in ("worker", "server", "store", "tools"):
        assert f"'runs: {kind}': 2" in output


# ---- what the judge finds --------------------------------------------------------------------------------------------


def story(kind: FaultKind = "none", at: float = 0.0, store: str = "redis", form: Form = "stream") -> Story:
    """Returns a run without a fault: each step takes a second, and its calls a fifth of one."""
    tools = {Place("r", step, 0): "pay" for step in range(1, STEPS)} | {LOOKED: "look", SIGNED: "sign"}
    plan = RunPlan("r", form, tools)
    calls = {
        place: [Execution(tool, f"k{place.step}{place.at}", 1, f"t{place.step}{place.at}", *times_of(place))]
        for place, tool in tools.items()
    }
    asked: list[Asked] = []
    events: list[dict[str, Any]] = []
    for step in range(1, STEPS + 1):
        had = {place: [f'{{"ticket":"{calls[place][0].ticket}"}}'] for place in tools if place.step < step}
        asked.append(Asked(step, step, step + 0.5, had))
        events += [{"type": "step.start", "step": step}, {"type": "text.delta", "text": text_of_step(step)}]
        mine = plan.of_step(step)
        for place in mine:
            called = {"name": tools[place], "input": arguments_of(place)}
            events.append({"type": "tool.call", "call_id": calls[place][0].ticket, "tool_call": called})
        for place in mine:
            ticket = calls[place][0].ticket
            events.append({"type": "tool.result", "step": step, "call_id": ticket, "tool_result": {"ticket": ticket}})
        events.append({"type": "step.end", "step": step})
    events += [{"type": "finish", "finish_reason": "stop"}]
    events = [{**event, "seq": number} for number, event in enumerate(events, 1)]
    told = Told("s", events={event["seq"]: event for event in events}, ends=["finish"], ended=STEPS + 1)
    told.seen += [(event["call_id"], event) for event in events if event["type"] == "tool.result"]
    return Story(plan, Fault(kind, at, at, store, "before_send"), told, asked, calls, events)


def times_of(place: Place) -> tuple[float, float]:
    return place.step + 0.6, place.step + 0.8


def taken_over(found: Story) -> None:
    found.events = [*found.events[:3], {"type": "stream.gap", "from": 9, "seq": 9}, *found.events[3:]]


def with_result(found: Story, place: Place, value: Any, *, is_error: bool = True) -> None:
    """Gives a call another result, which the model and the client have been told too."""
    name = f"t{place.step}{place.at}"
    for event in found.events:
        if event["type"] == "tool.result" and event["call_id"] == name:
            event |= {"tool_result": value, "is_error": is_error}
    for asked in found.asked:
        if place in asked.results:
            asked.results[place] = [value if isinstance(value, str) else json.dumps(value)]


@pytest.mark.parametrize("form", ["stream", "start", "whole"])
@pytest.mark.parametrize("kind", ["none", "worker", "server", "store", "tools"])
def test_nothing_is_wrong_with_a_run_without_a_fault(kind: FaultKind, form: Form) -> None:
    found = story(kind, 2.7, form=form)
    assert judge(found) == []
    assert found.tally["results"] == STEPS + 1 - 1


def executed_twice(found: Story) -> None:
    found.calls[PAID].append(Execution("pay", "k20", 2, "other", 3.1, 3.2))


def looked_twice_after_its_result(found: Story) -> None:
    taken_over(found)
    found.calls[LOOKED].append(Execution("look", "k21", 2, "other", 9.1, 9.2))


def executed_though_never_called(found: Story) -> None:
    found.calls[Place("r", 2, 7)] = [Execution("pay", "k27", 1, "other", 2.6, 2.7)]


def has_two_keys(found: Story) -> None:
    taken_over(found)
    found.calls[LOOKED].append(Execution("look", "another", 2, "other", 2.9, 3.2))


def is_lost(found: Story) -> None:
    found.events, found.told.ends = [], []


def has_two_ends(found: Story) -> None:
    found.events = [*found.events, {"type": "finish", "finish_reason": "stop"}]


def whose_client_has_two_ends(found: Story) -> None:
    found.told.ends.append("worker_lost")


def ends_with_an_error(found: Story) -> None:
    error = {"type": "error", "error": {"code": "network", "reason": "worker_lost"}}
    found.events, found.told.ends = [*found.events[:-1], error], ["worker_lost"]


def ends_at_a_limit(found: Story) -> None:
    found.events = [*found.events[:-1], {"type": "finish", "finish_reason": "length"}]


def differs(found: Story) -> None:
    found.is_same = False


def was_never_stored(found: Story) -> None:
    found.told.lost.append(1.0)


def lacks_a_step(found: Story) -> None:
    found.events = [event for event in found.events if event.get("step") != 3 or event["type"] != "step.end"]


def has_a_text_twice(found: Story) -> None:
    found.events = [*found.events[:2], *found.events[1:]]


def lacks_a_result(found: Story) -> None:
    found.events = [event for event in found.events if event.get("call_id") != "t20" or event["type"] == "tool.call"]


def has_a_result_twice(found: Story) -> None:
    at = next(at for at, event in enumerate(found.events) if event["type"] == "tool.result")
    found.events = [*found.events[: at + 1], *found.events[at:]]


def has_a_result_of_no_execution(found: Story) -> None:
    with_result(found, PAID, {"ticket": "other"}, is_error=False)


def whose_model_had_another_result(found: Story) -> None:
    found.asked[5].results[PAID] = ['{"ticket":"other"}']


def whose_model_had_a_result_twice(found: Story) -> None:
    found.asked[5].results[PAID] *= 2


def whose_client_had_another_result(found: Story) -> None:
    found.told.seen.insert(0, ("t20", {"tool_result": {"ticket": "other"}}))


def whose_client_lacks_an_event(found: Story) -> None:
    del found.told.events[5]


def was_refused_by_the_store(found: Story) -> None:
    with_result(found, PAID, NOT_MADE)
    del found.calls[PAID]


def has_failed(found: Story) -> None:
    with_result(found, PAID, "it does not answer")


def is_unknown(found: Story) -> None:
    taken_over(found)
    with_result(found, PAID, UNKNOWN)


def was_denied_and_executed(found: Story) -> None:
    found.plan = RunPlan("r", "stream", found.plan.calls, frozenset({SIGNED}))
    with_result(found, SIGNED, "the call was denied: no")


def was_denied_and_has_a_result(found: Story) -> None:
    found.plan = RunPlan("r", "stream", found.plan.calls, frozenset({SIGNED}))


FAULTS: dict[Callable[[Story], None], str] = {
    executed_twice: "executed 2 times",
    looked_twice_after_its_result: "executed 2 times",
    executed_though_never_called: "has not called it",
    has_two_keys: "it has keys",
    is_lost: "client's ends []",
    has_two_ends: "client's ends ['finish']",
    whose_client_has_two_ends: "its client has the ends",
    ends_with_an_error: "client's ends ['worker_lost']",
    ends_at_a_limit: "finished with length",
    differs: "differs",
    was_never_stored: "is lost",
    lacks_a_step: "its steps end",
    has_a_text_twice: "its texts",
    lacks_a_result: "has no result",
    has_a_result_twice: "two results",
    has_a_result_of_no_execution: "of no execution",
    whose_model_had_another_result: "has another result",
    whose_model_had_a_result_twice: "2 times",
    whose_client_had_another_result: "and then something else",
    whose_client_lacks_an_event: "its client has",
    was_refused_by_the_store: "it has failed",
    has_failed: "it has failed",
    is_unknown: "no kill excuses that",
    was_denied_and_executed: "denied, and executed",
    was_denied_and_has_a_result: "denied, and has a result",
}


@pytest.mark.parametrize("kind", ["none", "worker", "server"])
@pytest.mark.parametrize("happens", FAULTS)
def test_what_no_kill_excuses_is_a_fault(happens: Callable[[Story], None], kind: FaultKind) -> None:
    """The kill falls into the fifth turn, long after the calls of the second one."""
    found = story(kind, 5.1)
    happens(found)
    problems = judge(found)
    assert any(FAULTS[happens] in each for each in problems), problems


@pytest.mark.parametrize(
    ("kill", "is_excused"),
    [(2.4, False), (2.55, True), (2.7, True), (2.8 + NEAR - 0.11, True), (2.8 + NEAR + 0.01, False), (3.1, False)],
)
def test_a_call_may_be_unknown_between_its_record_and_that_of_its_result(kill: float, *, is_excused: bool) -> None:
    found = story("worker", kill)
    is_unknown(found)
    assert (judge(found) == []) is is_excused


def test_a_call_is_not_unknown_once_the_model_was_asked_again() -> None:
    found = story("worker", 2.95)
    is_unknown(found)
    assert judge(found) == []
    found.asked[2].came = 2.9
    assert "no kill excuses that" in judge(found)[0]


def test_a_call_is_not_unknown_in_a_run_that_nobody_has_taken_over() -> None:
    found = story("worker", 2.7)
    with_result(found, PAID, UNKNOWN)
    assert "no kill excuses that" in judge(found)[0]


def test_a_call_that_may_be_repeated_is_never_unknown() -> None:
    found = story("worker", 2.7)
    taken_over(found)
    with_result(found, LOOKED, UNKNOWN)
    assert "no kill excuses that" in judge(found)[0]


def test_a_call_of_a_person_may_be_unknown_once_it_was_approved() -> None:
    found = story("worker", 5.55)
    taken_over(found)
    with_result(found, SIGNED, UNKNOWN)
    assert judge(found) == []
    found.told.decided[SIGNED] = 5.58
    assert "no kill excuses that" in judge(found)[0]


def test_a_call_that_may_be_repeated_is_made_again_where_a_kill_fell_into_it() -> None:
    found = story("server", 2.7)
    taken_over(found)
    found.calls[LOOKED].insert(0, Execution("look", "k21", 1, "first", 2.55))
    assert judge(found) == []
    assert found.tally["made again"] == 1


@pytest.mark.parametrize("sync", ["before_send", "batched"])
@pytest.mark.parametrize(
    ("known", "kill", "is_excused"),
    [(0.9, 0.95, True), (0.0, 0.95, True), (0.9, 1.1, None), (0.0, 1.1, None), (0.3, 0.95, False), (0.9, 1.4, False)],
)
def test_a_stream_is_lost_only_if_it_was_killed_as_it_began(
    known: float, kill: float, sync: str, *, is_excused: bool | None
) -> None:
    """The model is asked at 1.0. With `batched` the store may lack what was sent just before."""
    found = story("server", kill)
    found.fault = found.fault._replace(sync=sync)
    found.told.lost.append(known)
    assert (judge(found) == []) is (sync == "batched" if is_excused is None else is_excused)
    found.told.lost.append(known)
    assert "is lost" in judge(found)[0]


@pytest.mark.parametrize(("kill", "is_excused"), [(1.1, True), (1.4, False)])
def test_of_a_stream_that_was_killed_as_it_began_its_key_and_its_end_may_be_told(
    kill: float, *, is_excused: bool
) -> None:
    """It is unknown, and its key is still taken; or a worker that had heard of it says that it is lost."""
    asked, told = story("server", kill), story("server", kill)
    asked.told.lost += [0.9, 0.0]
    is_lost(told)
    told.told.ends, told.told.known = ["worker_lost"], 0.9
    for found in (asked, told):
        found.fault = found.fault._replace(sync="batched")
        assert (judge(found) == []) is is_excused
        assert found.tally["never stored"] == (1 if is_excused or found is asked else 0)


def test_the_journal_outlives_its_writer(tmp_path: Path) -> None:
    """What is written behind a reading is read by the next one, and half a line once it is whole."""
    path = tmp_path / "journal"
    begun = {"ticket": "t", "tool": "pay", "key": "k", "attempt": 1, "arguments": arguments_of(PAID)}
    line = json.dumps({"time": 1.0, **begun})
    path.write_text(line + "\n" + line[:20])
    journal = Journal(path)
    journal.read()
    assert [(each.began, each.answered) for each in journal.calls[PAID]] == [(1.0, None)]
    with path.open("a") as file:
        file.write(line[20:] + "\n" + json.dumps({"time": 2.0, "ticket": "t"}) + "\n")
    journal.read()
    assert [(each.began, each.answered) for each in journal.calls[PAID]] == [(1.0, None), (1.0, 2.0)]


def test_a_whole_answer_is_read_as_events() -> None:
    called = {"type": "tool_call", "call_id": "c", "name": "pay", "input": arguments_of(PAID)}
    result = {"type": "tool.result", "step": 1, "call_id": "c", "tool_result": {"ticket": "t"}}
    messages = [
        {"role": "assistant", "content": [{"type": "text", "text": "One."}, called]},
        {"role": "tool", "call_id": "c", "content": "…"},
        {"role": "assistant", "content": [{"type": "text", "text": "Two."}]},
    ]
    body = {"messages": messages, "events": [result], "finish_reason": "stop"}
    events = events_of(Got(200, {"content-type": "application/json"}, json.dumps(body).encode()))
    kinds = [event["type"] for event in events]
    turn = ["step.start", "text.delta", "step.end"]
    assert kinds == [*turn[:2], "tool.call", "tool.result", "step.end", *turn, "finish"]
    assert texts_of(events) == {1: "One.", 2: "Two."}
    with pytest.raises(ValueError, match="two results"):
        events_of(Got(200, {"content-type": "application/json"}, json.dumps({**body, "events": [result] * 2}).encode()))


def test_a_run_in_memory_may_end_with_its_worker() -> None:
    found = story("worker", 5.1, "memory")
    ends_with_an_error(found)
    assert judge(found) == []
    executed_twice(found)
    assert "executed 2 times" in judge(found)[0]


@pytest.mark.parametrize(("ended", "is_excused"), [(2.3, True), (1.4, False)])
def test_a_store_that_is_away_excuses_calls_that_were_not_made(ended: float, *, is_excused: bool) -> None:
    found = story("store", 2.1)
    found.fault = found.fault._replace(began=2.1 if is_excused else 8.0, ended=ended if is_excused else 9.0)
    was_refused_by_the_store(found)
    assert (judge(found) == []) is is_excused


def test_a_store_that_is_away_does_not_excuse_a_call_that_was_made_after_all() -> None:
    found = story("store", 2.1)
    with_result(found, PAID, NOT_MADE)
    assert "its record was refused" in judge(found)[0]


@pytest.mark.parametrize(("began", "is_excused"), [(2.7, True), (2.8 + NEAR + 0.1, False), (-BREAKER, False)])
def test_a_call_may_fail_with_the_tool_server_if_it_was_out(began: float, *, is_excused: bool) -> None:
    found = story("tools", began)
    has_failed(found)
    assert (judge(found) == []) is is_excused
