"""`core/run.py`: the rules of a run, and that it ends well in whatever order things happen."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gai_fast.core.run import (
    TRANSITIONS,
    Action,
    ApprovalError,
    AskApproval,
    BeginCall,
    BeginTurn,
    CallEnded,
    CallResult,
    CheckCall,
    Decided,
    EndCall,
    EndStep,
    Finish,
    IllegalStep,
    RunCall,
    RunLimits,
    RunState,
    RunTool,
    ToolRun,
    Warn,
)
from tests.limits import LIMITS

TOOLS = {
    "docs__search": RunTool("docs.search", idempotent=True),
    "docs__write": RunTool("docs.write"),
    "invoice": RunTool("invoice", approve=True),
    "docs__purge": RunTool("docs.purge", approve=True, idempotent=True),
}
CLIENT = {"screenshot"}
OK = CallResult("ok")
UNKNOWN = CallResult("the outcome of this call is unknown", is_error=True, fault="unknown")


def run_of(**limits: Any) -> ToolRun:
    return ToolRun(TOOLS, CLIENT, RunLimits(**{"asks": True, **limits}), "s")


def told(actions: list[Action]) -> list[str]:
    """Returns actions as words."""
    words = []
    for each in actions:
        match each:
            case CheckCall(call) | BeginCall(call) | EndCall(call) | CallEnded(call):
                words.append(f"{type(each).__name__.removeprefix('Call')} {call.call_id}")
            case AskApproval(call, _):
                words.append(f"Ask {call.call_id}")
            case Decided(call, decision, by, reason):
                words.append(" ".join(filter(None, ["Decided", call.call_id, decision, by, reason])))
            case EndStep(step):
                words.append(f"EndStep {step}")
            case BeginTurn(step, without_tools):
                words.append(f"BeginTurn {step}{' without tools' if without_tools else ''}")
            case Finish(reason):
                words.append(f"Finish {reason}")
            case Warn():
                words.append("Warn")
    return words


def asked(run: ToolRun, *names: str) -> tuple[list[RunCall], list[str]]:
    """Notes calls `a`, `b`, … in the run's turn; returns them, and what is to be done at once."""
    done: list[str] = []
    for letter, name in zip("abcdefgh", names, strict=False):
        done += told(run.note_call(f"{letter}{run.step.number}", name, {"q": letter}))
    return run.step.calls, done


def test_a_turn_without_calls_is_the_end() -> None:
    run = run_of()
    assert told(run.end_turn("stop")) == ["EndStep 1", "Finish stop"]
    assert run.state is RunState.ENDED
    with pytest.raises(IllegalStep, match="run: 'end of turn' is not allowed in state 'ended'"):
        run.end_turn("stop")


def test_calls_are_made_and_the_next_turn_follows() -> None:
    run = run_of()
    [search, write], done = asked(run, "docs__search", "docs__write")
    assert done == ["BeginCall a1"], "an idempotent call begins at once, no other"
    assert told(run.end_call(search, OK)) == ["Ended a1"]
    assert run.state is RunState.TURN
    assert told(run.end_turn("tool_calls")) == ["BeginCall b1"]
    assert run.state is RunState.CALLING
    assert told(run.end_call(write, OK)) == ["Ended b1", "EndStep 1", "BeginTurn 2"]
    assert (search.attempt, write.result, run.state) == (1, OK, RunState.TURN)
    assert told(run.end_turn("stop")) == ["EndStep 2", "Finish stop"]


def test_the_client_gets_its_own_calls_after_the_gateway_s_are_made() -> None:
    run = run_of()
    [write, shot], _ = asked(run, "docs__write", "screenshot")
    assert told(run.end_turn("tool_calls")) == ["BeginCall a1"]
    assert told(run.end_call(write, OK)) == ["Ended a1", "EndStep 1", "Finish tool_calls"]
    assert run.client_calls == [shot]
    assert shot.result is None


@pytest.mark.parametrize(("name", "arguments"), [("n" * 9999, {}), ("docs__search", {"q": "x", "n" * 9999: 1})])
def test_what_a_model_has_called_is_repeated_in_part(name: str, arguments: Any) -> None:
    schema = {"properties": {"n" * 9999: {"type": "string"}}}
    run = ToolRun(TOOLS, CLIENT, RunLimits(), "s", {"docs__search": schema})
    run.note_call("a", name, arguments)
    result = run.step.calls[0].result
    assert result is not None
    assert (result.is_error, len(result.value)) == (True, LIMITS.tool_problem)


@pytest.mark.parametrize(
    ("name", "arguments", "text"),
    [
        ("docs__none", {}, "there is no tool 'docs__none'"),
        ("docs__search", "{", "the arguments are no JSON object"),
        ("docs__search", [], "the arguments are no JSON object"),
    ],
)
def test_a_call_that_cannot_be_made_is_an_error_and_the_run_goes_on(name: str, arguments: Any, text: str) -> None:
    run = run_of()
    assert told(run.note_call("a", name, arguments)) == ["Ended a"]
    assert run.step.calls[0].result == CallResult(text, is_error=True)
    assert told(run.end_turn("tool_calls")) == ["EndStep 1", "BeginTurn 2"]


@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_the_calls_of_a_turn_that_was_cut_are_not_made(reason: str) -> None:
    run = run_of()
    asked(run, "docs__write", "invoice", "screenshot")
    assert told(run.end_turn(reason)) == ["Ended a1", "Ended b1", "EndStep 1", f"Finish {reason}"]


def test_ids_are_unique_in_the_run() -> None:
    run = run_of()
    for call_id in ("x", "x", "", "call_1_2", "call_1_4"):
        run.note_call(call_id, "docs__write", {})
    run.note_call("call_1_4", "docs__write", {})
    ids = [call.call_id for call in run.step.calls]
    assert ids == ["x", "call_1_1", "call_1_2", "call_1_3", "call_1_4", "call_1_5"]


def test_so_many_calls_run_at_a_time_and_in_order() -> None:
    run = run_of(parallel_tools=2)
    calls, _ = asked(run, *["docs__write"] * 4)
    assert told(run.end_turn("tool_calls")) == ["BeginCall a1", "BeginCall b1"]
    assert told(run.end_call(calls[1], OK)) == ["Ended b1", "BeginCall c1"]
    assert told(run.end_call(calls[0], OK)) == ["Ended a1", "BeginCall d1"]


def test_after_the_steps_a_last_turn_has_no_tools() -> None:
    run = run_of(max_steps=1)
    [write], _ = asked(run, "docs__write")
    run.end_turn("tool_calls")
    assert told(run.end_call(write, OK)) == ["Ended a1", "EndStep 1", "Warn", "BeginTurn 2 without tools"]
    [again], done = asked(run, "docs__search")
    assert done == ["Ended a2"]
    assert again.result == CallResult("no tools can be called any more", is_error=True)
    assert told(run.end_turn("tool_calls")) == ["EndStep 2", "Finish length"]


def test_beyond_the_number_of_calls_there_are_errors_and_a_last_turn() -> None:
    run = run_of(max_tool_calls=2)
    calls, done = asked(run, "docs__search", "screenshot", "docs__search", "docs__search")
    assert done == ["BeginCall a1", "BeginCall c1", "Ended d1"]
    assert calls[3].result == CallResult("the run has had its 2 calls (max_tool_calls)", is_error=True)
    run = run_of(max_tool_calls=2)
    calls, _ = asked(run, "docs__search", "docs__search")
    run.end_turn("tool_calls")
    run.end_call(calls[0], OK)
    assert told(run.end_call(calls[1], OK))[-1] == "BeginTurn 2", "as many as are allowed are no reason to end"
    asked(run, "docs__search")
    assert told(run.end_turn("tool_calls")) == ["EndStep 2", "Warn", "BeginTurn 3 without tools"]


def test_the_end_of_the_time_ends_calls_and_a_last_turn_follows() -> None:
    run = run_of(parallel_tools=1)
    [first, second, third], _ = asked(run, "docs__write", "docs__write", "invoice")
    run.end_turn("tool_calls")
    ends = ["EndCall a1", "Ended a1", "Ended b1", "Decided c1 deny expired", "Ended c1"]
    assert told(run.end_time()) == [*ends, "EndStep 1", "Warn", "BeginTurn 2 without tools"]
    assert first.result is not None
    assert first.result.is_error
    assert told(run.end_call(first, OK)) == [], "too late"
    with pytest.raises(ApprovalError, match="decided"):
        run.decide(third.approval_id, "approve", "")
    assert second.attempt == 0


def test_the_end_of_the_time_in_a_turn_lets_it_end() -> None:
    run = run_of()
    asked(run, "docs__search", "docs__write")
    assert told(run.end_time()) == ["EndCall a1", "Ended a1", "Ended b1"]
    assert told(run.note_call("c", "docs__search", {})) == ["Ended c"]
    assert told(run.end_turn("tool_calls")) == ["EndStep 1", "Warn", "BeginTurn 2 without tools"]
    assert told(run.end_turn("stop")) == ["EndStep 2", "Finish stop"]


def test_calls_that_had_begun_in_a_voided_turn_count() -> None:
    run = run_of(max_tool_calls=2)
    begun = 0
    for _ in range(5):
        begun += sum(each.startswith("BeginCall") for each in asked(run, "docs__search", "docs__search")[1])
        run.reset_turn()
    other = run_of(max_tool_calls=2)
    other.load(run.record(), {})
    [call], _ = asked(other, "docs__search")
    assert begun == 2
    assert call.result == CallResult("the run has had its 2 calls (max_tool_calls)", is_error=True)


def nested(levels: int) -> dict[str, Any]:
    whole: dict[str, Any] = {}
    for _ in range(levels):
        whole = {"a": whole}
    return whole


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (nested(1200), "the arguments are nested deeper than 64 levels (limit tool_depth)"),
        ({"q": "x" * 300_000}, "the arguments have more than 262144 bytes (limit tool_arguments)"),
        ({"q": float("inf")}, "the arguments have a number that is not finite"),
        ({}, "the argument 'q' is missing"),
        ({"q": 1}, "the argument 'q' is not of the type string"),
    ],
)
def test_nobody_is_asked_about_a_call_that_cannot_be_made(arguments: Any, text: str) -> None:
    schema = {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]}
    schema = schema if len(arguments) == 0 or arguments.get("q") == 1 else {}
    run = ToolRun(TOOLS, CLIENT, RunLimits(asks=True), "s", {"invoice": schema})
    assert told(run.note_call("a", "invoice", arguments)) == ["Ended a"]
    assert run.step.calls[0].result == CallResult(text, is_error=True)
    assert run.record()["steps"][0]["calls"][0]["arguments"] is arguments
    assert told(run.end_turn("tool_calls")) == ["EndStep 1", "BeginTurn 2"]


@pytest.mark.interpreted  # compiled code runs no lines
def test_what_a_call_costs_does_not_grow_with_the_calls_of_its_turn() -> None:
    def lines(count: int) -> int:
        """Returns how many lines a turn of so many calls runs."""
        run, ran = run_of(max_tool_calls=count), 0

        def trace(frame: Any, event: str, argument: Any) -> Any:
            nonlocal ran
            ran += event == "line"
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            for number in range(count):
                run.note_call(str(number), "docs__write", {})
            run.end_turn("tool_calls")
            for call in run.step.calls:
                run.end_call(call, OK)
        finally:
            sys.settrace(before)
        return ran

    assert lines(400) < 5 * lines(100)


def test_a_turn_that_is_asked_anew_voids_its_calls() -> None:
    run = run_of()
    [search, write], _ = asked(run, "docs__search", "docs__write")
    assert told(run.reset_turn()) == ["EndCall a1"]
    assert told(run.end_call(search, OK)) == []
    [again], done = asked(run, "docs__search")
    assert done == [f"BeginCall {again.call_id}"]
    assert again.call_id != search.call_id
    assert told(run.end_turn("tool_calls")) == []
    assert told(run.end_call(again, OK)) == [f"Ended {again.call_id}", "EndStep 1", "BeginTurn 2"]
    assert write.phase == "ended"


class TestApprovals:
    def test_with_only_approvals_left_the_run_waits(self) -> None:
        run = run_of()
        [write, invoice, purge], done = asked(run, "docs__write", "invoice", "docs__purge")
        assert done == [], "a tool that is approved does not begin before the end of its turn"
        assert told(run.end_turn("tool_calls")) == ["Ask b1", "Ask c1", "BeginCall a1"]
        assert run.state is RunState.CALLING
        assert told(run.end_call(write, OK)) == ["Ended a1"]
        assert (run.state, invoice.approval_id, purge.approval_id) == (RunState.WAITING, "s-1", "s-2")

    def digest(self, run: ToolRun, name: str = "invoice") -> tuple[RunCall, str]:
        asked(run, name)
        [ask] = run.end_turn("tool_calls")
        assert isinstance(ask, AskApproval)
        return ask.call, ask.digest

    def test_an_approved_call_is_made(self) -> None:
        run = run_of()
        call, digest = self.digest(run)
        assert told(run.decide("s-1", "approve", digest, "alice")) == ["Decided a1 approve alice", "BeginCall a1"]
        assert run.state is RunState.CALLING
        assert told(run.end_call(call, OK)) == ["Ended a1", "EndStep 1", "BeginTurn 2"]

    def test_a_denied_call_is_an_error_with_the_reason(self) -> None:
        run = run_of()
        call, digest = self.digest(run)
        done = told(run.decide("s-1", "deny", digest, "alice", "too much"))
        assert done == ["Decided a1 deny alice too much", "Ended a1", "EndStep 1", "BeginTurn 2"]
        assert call.result == CallResult("the call was denied: too much", is_error=True, fault="denied")

    def test_an_approval_that_expires_is_denied(self) -> None:
        run = run_of()
        call, _ = self.digest(run)
        assert told(run.deny(call, "expired"))[:2] == ["Decided a1 deny expired", "Ended a1"]

    def test_a_decision_is_for_one_call_and_taken_once(self) -> None:
        run = run_of()
        call, digest = self.digest(run)
        for approval_id, named, reason in (("s-2", digest, "unknown"), ("", digest, "unknown"), ("s-1", "x", "digest")):
            with pytest.raises(ApprovalError) as raised:
                run.decide(approval_id, "approve", named)
            assert (raised.value.reason, run.state) == (reason, RunState.WAITING)
        run.decide("s-1", "approve", digest)
        for _ in range(2):
            with pytest.raises(ApprovalError) as raised:
                run.decide("s-1", "deny", digest)
            assert raised.value.reason == "decided"
            run.end_call(call, OK)
        run.stop()

    def test_nobody_to_ask_is_a_denial(self) -> None:
        run = run_of(asks=False)
        [call], _ = asked(run, "invoice")
        assert told(run.end_turn("tool_calls")) == ["Ended a1", "EndStep 1", "BeginTurn 2"]
        assert call.result == CallResult(
            "the call needs an approval, and nobody can be asked", is_error=True, fault="denied"
        )


class TestRecords:
    def again(self, run: ToolRun, **calls: CallResult | None) -> tuple[ToolRun, list[str]]:
        """Returns a run that goes on from the records of another, and what is to be done."""
        other = run_of()
        return other, told(other.load(json.loads(json.dumps(run.record())), calls))

    def test_a_turn_is_asked_anew(self) -> None:
        run = run_of()
        asked(run, "docs__search")
        other, done = self.again(run)
        assert (done, other.step.calls, other.state) == (["BeginTurn 1"], [], RunState.TURN)
        assert other.note_call("a1", "docs__search", {})[0].call.call_id != "a1"  # type: ignore[union-attr]  # it begins

    def test_only_an_idempotent_call_is_made_once_more(self) -> None:
        run = run_of()
        [search, write, ended], _ = asked(run, "docs__search", "docs__write", "docs__write")
        run.end_turn("tool_calls")
        run.end_call(ended, OK)
        other, done = self.again(run, b1=None)
        assert done == ["Ended b1", "BeginCall a1"]
        [search, write, ended] = other.step.calls
        assert (search.attempt, ended.result) == (2, OK)
        assert write.result == UNKNOWN
        assert told(other.end_call(search, OK)) == ["Ended a1", "EndStep 1", "BeginTurn 2"]

    def test_a_recorded_result_is_used(self) -> None:
        run = run_of()
        asked(run, "docs__search", "docs__write")
        run.end_turn("tool_calls")
        other, done = self.again(run, a1=OK, b1=CallResult("no", is_error=True))
        assert done == ["Ended a1", "Ended b1", "EndStep 1", "BeginTurn 2"]
        assert [call.result for call in other.steps[0].calls] == [OK, CallResult("no", is_error=True)]

    def test_a_call_that_had_not_begun_by_its_record_is_made(self) -> None:
        run = run_of()
        asked(run, "docs__write")
        run.end_turn("tool_calls")
        other, done = self.again(run)
        assert (done, other.step.calls[0].attempt) == (["BeginCall a1"], 1)

    def test_a_call_that_has_begun_since_the_record_was_approved(self) -> None:
        run = run_of()
        TestApprovals().digest(run)
        other, done = self.again(run, a1=None)
        assert done == ["Decided a1 approve", "Ended a1", "EndStep 1", "BeginTurn 2"]
        assert other.steps[0].calls[0].result == UNKNOWN

    def test_an_approval_waits_on(self) -> None:
        run = run_of()
        _, digest = TestApprovals().digest(run)
        other, done = self.again(run)
        assert (done, other.state) == ([], RunState.WAITING)
        assert told(other.decide("s-1", "approve", digest)) == ["Decided a1 approve", "BeginCall a1"]

    def test_a_result_that_ends_the_step_after_the_fault_is_followed_by_the_next_turn(self) -> None:
        run = run_of()
        asked(run, "docs__write")
        run.end_turn("tool_calls")
        _, done = self.again(run, a1=None)
        assert done == ["Ended a1", "EndStep 1", "BeginTurn 2"]

    def test_nothing_follows_the_end(self) -> None:
        run = run_of()
        run.end_turn("stop")
        other, done = self.again(run)
        assert (done, other.state) == ([], RunState.ENDED)


class TestGuards:
    def run_of(self, **limits: Any) -> ToolRun:
        return ToolRun(TOOLS, CLIENT, RunLimits(**{"asks": True, **limits}), "s", checks=True)

    def again(self, run: ToolRun, *, checks: bool = True, **calls: CallResult | None) -> tuple[ToolRun, list[str]]:
        other = ToolRun(TOOLS, CLIENT, RunLimits(asks=True), "s", checks=checks)
        return other, told(other.load(json.loads(json.dumps(run.record())), calls))

    def test_a_call_is_checked_before_it_is_made(self) -> None:
        run = self.run_of()
        [search, write, shot], done = asked(run, "docs__search", "docs__write", "screenshot")
        assert done == ["CheckCall a1", "CheckCall b1"], "the client's calls are its own"
        assert told(run.call_checked(search, {"q": "x"})) == ["BeginCall a1"]
        assert told(run.call_checked(write, {"q": "y"})) == []
        assert told(run.end_turn("tool_calls")) == ["BeginCall b1"]
        assert [call.arguments for call in (search, write, shot)] == [{"q": "x"}, {"q": "y"}, {"q": "c"}]

    def test_a_check_that_outlasts_the_turn_keeps_the_run_calling(self) -> None:
        run = self.run_of()
        [write, invoice], _ = asked(run, "docs__write", "invoice")
        assert told(run.end_turn("tool_calls")) == []
        assert run.state is RunState.CALLING
        assert told(run.call_checked(invoice, {"q": "masked"})) == ["Ask b1"]
        assert told(run.call_checked(write, {})) == ["BeginCall a1"]
        [waiting] = run.asked()
        call, digest = waiting.call, waiting.digest
        assert (call.arguments, run.end_call(write, OK) != []) == ({"q": "masked"}, True)
        assert run.state is RunState.WAITING
        assert told(run.decide("s-1", "approve", digest)) == ["Decided b1 approve", "BeginCall b1"]

    def test_what_guards_stop_is_never_made(self) -> None:
        run = self.run_of()
        [invoice], _ = asked(run, "invoice")
        run.end_turn("tool_calls")
        stopped = CallResult("no", is_error=True)
        assert told(run.call_checked(invoice, {}, stopped)) == ["Ended a1", "EndStep 1", "BeginTurn 2"]
        assert invoice.result == stopped

    @pytest.mark.parametrize("end", [lambda run: run.end_turn("length"), ToolRun.reset_turn, ToolRun.end_time])
    def test_a_check_that_is_too_late_changes_nothing(self, end: Callable[[ToolRun], list[Action]]) -> None:
        run = self.run_of()
        [write], _ = asked(run, "docs__write")
        end(run)
        assert told(run.call_checked(write, {})) == []
        assert write.arguments == {"q": "a"}

    def test_another_worker_checks_what_was_not_checked(self) -> None:
        run = self.run_of()
        asked(run, "docs__write")
        run.end_turn("tool_calls")
        other, done = self.again(run)
        assert (done, other.state) == (["CheckCall a1"], RunState.CALLING)
        assert told(other.call_checked(other.step.calls[0], {"q": "x"})) == ["BeginCall a1"]
        assert self.again(run, checks=False)[1] == ["BeginCall a1"]

    def test_a_call_that_was_checked_and_made_since_the_record_is_not_made_again(self) -> None:
        run = self.run_of()
        asked(run, "docs__search", "docs__write", "docs__write", "invoice")
        run.end_turn("tool_calls")
        other, done = self.again(run, a1=None, b1=None, c1=OK, d1=None)
        assert done == ["CheckCall a1", "Ended b1", "Ended c1", "Decided d1 approve", "Ended d1"]
        assert [call.result for call in other.step.calls] == [None, UNKNOWN, OK, UNKNOWN]


def test_what_stops_a_run_ends_its_calls() -> None:
    run = run_of()
    [search, *_], _ = asked(run, "docs__search", "invoice")
    assert told(run.stop()) == ["EndCall a1"]
    assert told(run.stop()) == []
    assert told(run.end_call(search, OK)) == []


def test_every_state_but_the_end_can_be_left_and_the_end_is_final() -> None:
    assert TRANSITIONS.keys() == {*RunState}
    for state, steps in TRANSITIONS.items():
        assert RunState.ENDED in steps["stop"]
        following = frozenset().union(*steps.values())
        assert following <= {*RunState}
        assert (following == {RunState.ENDED}) == (state is RunState.ENDED)


class Driver:
    """Drives a run by choices of a test, and checks what always holds."""

    def __init__(self, data: st.DataObject, limits: RunLimits, *, checks: bool) -> None:
        self.data = data
        self.limits = limits
        self.checks = checks
        self.run = ToolRun(TOOLS, CLIENT, limits, "s", checks=checks)
        self.checking: list[RunCall] = []
        self.turns = 1
        self.running: list[RunCall] = []
        self.asking: dict[str, tuple[RunCall, str]] = {}
        self.ended: Counter[str] = Counter()
        self.begun: Counter[str] = Counter()
        self.finished: list[str] = []
        self.records: dict[str, CallResult | None] = {}

    def do(self, actions: list[Action]) -> None:
        for each in actions:
            assert not self.finished, "nothing follows the end"
            match each:
                case CheckCall(call):
                    self.checking.append(call)
                case BeginCall(call):
                    assert not self.checks or call.arguments == {"checked": True}
                    self.running.append(call)
                    self.begun[call.call_id] += 1
                    assert call.tool is not None
                    if not call.tool.idempotent:
                        assert self.run.step.finish_reason is not None
                        assert self.begun[call.call_id] == 1, "never twice"
                        self.records[call.call_id] = None
                case EndCall(call):
                    self.running.remove(call)
                case CallEnded(call):
                    self.running = [other for other in self.running if other is not call]
                    self.checking = [other for other in self.checking if other is not call]
                    self.asking.pop(call.approval_id, None)
                    self.ended[call.call_id] += 1
                    if call.call_id in self.records:
                        self.records[call.call_id] = call.result
                    assert self.ended[call.call_id] == 1
                case AskApproval(call, digest):
                    self.asking[call.approval_id] = call, digest
                case Decided(call, _, _, _):
                    self.asking.pop(call.approval_id, None)
                case BeginTurn(step, without_tools):
                    self.turns = step
                    assert step <= self.limits.max_steps + 1
                    assert without_tools or step <= self.limits.max_steps
                case Finish(reason):
                    self.finished.append(reason)
        assert len(self.running) <= self.limits.parallel_tools
        if self.run.state is RunState.WAITING:
            assert self.asking
            assert not self.running

    def choices(self) -> dict[str, Callable[[], list[Action]]]:
        """Returns all that may happen now."""
        run = self.run
        found: dict[str, Callable[[], list[Action]]] = {}
        if run.state is RunState.TURN:
            if len(run.step.calls) < 6:
                for name in (*TOOLS, "screenshot", "nobody's"):
                    found[f"call {name}"] = lambda name=name: run.note_call("id", name, {"a": 1})
            for reason in ("stop", "tool_calls", "length"):
                found[f"end {reason}"] = lambda reason=reason: run.end_turn(reason)
            found["reset"] = run.reset_turn
        for index, call in enumerate(self.checking):
            found[f"result of check {index}"] = lambda call=call: self.checked(call)
            found[f"stop of check {index}"] = lambda call=call: self.checked(call, CallResult("no", is_error=True))
        for index, call in enumerate(self.running):
            found[f"result {index}"] = lambda call=call: run.end_call(call, OK)
        for key, (_, digest) in self.asking.items():
            for decision in ("approve", "deny"):
                found[f"{decision} {key}"] = lambda key=key, digest=digest, decision=decision: run.decide(
                    key, decision, digest
                )
        if run.state in (RunState.TURN, RunState.CALLING):
            found["time"] = run.end_time
        found["fault"] = self.taken_over
        return found

    def checked(self, call: RunCall, problem: CallResult | None = None) -> list[Action]:
        self.checking = [other for other in self.checking if other is not call]
        return self.run.call_checked(call, {"checked": True}, problem)

    def taken_over(self) -> list[Action]:
        """Goes on in another worker, which knows the record alone."""
        record = json.loads(json.dumps(self.run.record()))
        self.run = ToolRun(TOOLS, CLIENT, self.limits, "s", checks=self.checks)
        self.running.clear()
        self.checking.clear()
        actions = self.run.load(record, self.records)
        calls = {call.approval_id: call for call in self.run.step.calls if call.phase == "asking"}
        self.asking = {key: (calls[key], digest) for key, (_, digest) in self.asking.items() if key in calls}
        return actions


LIMITED = st.builds(RunLimits, st.integers(1, 3), st.integers(0, 4), st.integers(1, 3), st.booleans())


@given(st.data(), LIMITED, st.booleans())
def test_a_run_ends_once_whatever_happens_in_whatever_order(
    data: st.DataObject, limits: RunLimits, checks: bool
) -> None:
    driver = Driver(data, limits, checks=checks)
    for _ in range(60):
        if driver.run.state is RunState.ENDED:
            break
        choices = driver.choices()
        driver.do(choices[data.draw(st.sampled_from(sorted(choices)))]())
    for _ in range(200):  # and from wherever it is, it comes to its end
        if driver.run.state is RunState.ENDED:
            break
        choices = driver.choices()
        name = next(each for each in choices if each.startswith(("end stop", "result", "deny")))
        driver.do(choices[name]())
    assert driver.run.state is RunState.ENDED
    assert len(driver.finished) == 1


@given(st.permutations(range(4)), st.integers(1, 4))
def test_every_order_of_ends_leads_to_the_same_results(order: list[int], parallel: int) -> None:
    run = run_of(parallel_tools=parallel)
    calls, _ = asked(run, "docs__search", "docs__write", "docs__search", "docs__write")
    last = told(run.end_turn("tool_calls"))
    while run.state is RunState.CALLING:
        number = next(each for each in order if calls[each].phase == "running")
        last = told(run.end_call(calls[number], CallResult(number)))
    assert last[-2:] == ["EndStep 1", "BeginTurn 2"]
    assert [call.result for call in calls] == [CallResult(number) for number in range(4)]


def test_a_run_that_leaves_approvals_ends_once_each_is_kept() -> None:
    run = run_of(leaves=True)
    calls, _ = asked(run, "invoice", "docs__write", "docs__purge", "screenshot")
    assert told(run.end_turn("tool_calls")) == ["Ask a1", "Ask c1", "BeginCall b1"]
    assert told(run.leave(calls[0])) == []
    assert told(run.end_call(calls[1], OK)) == ["Ended b1"]
    assert run.state is RunState.CALLING, "it waits for no person"
    assert told(run.leave(calls[2])) == ["EndStep 1", "Finish tool_calls"]
    assert run.leave(calls[2]) == []
    assert calls[0].result is None


def test_of_approvals_that_cannot_be_kept_the_model_learns() -> None:
    run = run_of(leaves=True)
    calls, _ = asked(run, "invoice")
    run.end_turn("tool_calls")
    assert told(run.deny(calls[0], "full")) == ["Decided a1 deny full", "Ended a1", "EndStep 1", "BeginTurn 2"]
    run = run_of(leaves=True)
    calls, _ = asked(run, "invoice", "invoice")
    run.end_turn("tool_calls")
    run.leave(calls[0])
    assert told(run.deny(calls[1], "full"))[-1] == "Finish tool_calls"


def test_the_end_of_the_time_leaves_what_is_kept() -> None:
    run = run_of(leaves=True)
    calls, _ = asked(run, "invoice", "docs__write")
    run.end_turn("tool_calls")
    run.leave(calls[0])
    assert told(run.end_time()) == ["EndCall b1", "Ended b1", "EndStep 1", "Finish tool_calls"]


def test_a_run_begins_with_calls_that_were_decided() -> None:
    run = run_of()
    done = run.note_decided("s0-1", "invoice", {}, "key 1", "approve", "alice")
    done += run.note_decided("s0-2", "docs__purge", {}, "key 2", "deny", "alice", "no")
    assert told(done) == ["Decided s0-1 approve alice", "BeginCall s0-1", "Decided s0-2 deny alice no", "Ended s0-2"]
    assert told(run.end_turn("tool_calls")) == []
    first = run.step.calls[0]
    assert (first.key, first.attempt) == ("key 1", 1)
    record = json.loads(json.dumps(run.record(), default=vars))
    assert told(run.end_call(first, OK)) == ["Ended s0-1", "EndStep 1", "BeginTurn 2"]
    other = run_of()
    assert told(other.load(record, {"s0-1": None})) == ["Ended s0-1", "EndStep 1", "BeginTurn 2"]
    assert other.steps[0].calls[0].key == "key 1"
    assert other.steps[0].calls[0].result == UNKNOWN
