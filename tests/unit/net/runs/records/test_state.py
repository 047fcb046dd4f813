"""States of runs as records have them, and what the log of a run has of one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

import pytest

from gai_fast.core.run import CallEnded, CallResult, EndStep, Finish, RunLimits, RunTool, ToolRun, Warn
from gai_fast.model.events import JSONText
from gai_fast.model.settings import StoreSettings
from gai_fast.net.runs.records.state import (
    RunMemory,
    approvals_of_state,
    calls_of_state,
    decode_parts,
    decode_state,
    encode_parts,
    encode_state,
    is_beyond,
    mark_of,
    marks_of,
    results_in,
    turn_to_ask,
    waits,
)
from gai_fast.runtime.timers import TimerWheel
from gai_fast.stores import LogHeader
from gai_fast.stores.memory import LogMemory

NO_RUN = "not a state|not the turns|missing required|Invalid|Expected"


def begun() -> ToolRun:
    run = ToolRun({"pay": RunTool("pay")}, {"own"}, RunLimits(), "gai_1")
    run.note_call("c1", "pay", {"n": 12345678901234567890, "text": "é"})
    run.note_call("c2", "own", {})
    run.end_turn("tool_calls")
    return run


def test_a_state_says_for_which_approvals_alone_a_run_waits() -> None:
    run = ToolRun({"pay": RunTool("pay", approve=True), "read": RunTool("read")}, (), RunLimits(asks=True), "gai_1")
    for call_id, name in (("c1", "pay"), ("c2", "pay"), ("c3", "read")):
        run.note_call(call_id, name, {"n": 12345678901234567890})
    run.end_turn("tool_calls")
    memory = RunMemory({}, {"type": "finish", "finish_reason": "tool_calls"}, [{}], {}, 1.0)
    [first, second, other] = run.steps[-1].calls
    assert approvals_of_state(encode_state(run, memory)) == frozenset(), "a call runs"
    run.end_call(other, CallResult("\ud800"))
    assert (
        approvals_of_state(encode_state(run, memory))
        == {first.approval_id, second.approval_id}
        == {"gai_1-1", "gai_1-2"}
    )
    assert approvals_of_state(b"") == approvals_of_state(b"[{}]") == approvals_of_state(b"[") == frozenset()


def test_a_state_is_read_as_it_was_written() -> None:
    run = begun()
    finish: Any = {"type": "finish", "finish_reason": "tool_calls"}
    memory = RunMemory({}, finish, [{"total_tokens": 3}], {1: ("openai", "gpt")}, 12.5)
    state = encode_state(run, memory)
    found = decode_state(state)
    assert (found.finish, found.usages, found.providers, found.seconds) == (
        finish,
        [{"total_tokens": 3}],
        {1: ("openai", "gpt")},
        12.5,
    )
    again = ToolRun({"pay": RunTool("pay")}, {"own"}, RunLimits(), "gai_1")
    again.load(found.run, {})
    assert again.steps == run.steps
    assert [call.call_id for call in calls_of_state(state)] == ["c1"]


def test_what_a_model_has_written_as_json_goes_back_unchanged() -> None:
    parts: list[dict[str, Any]] = [
        {"type": "text", "text": "é"},
        {"type": "tool_call", "call_id": "c", "name": "pay", "input": JSONText('{"n":1.10}', {"n": 1.1})},
        {"type": "provider_block", "provider": "p", "block": JSONText("{}", {})},
        {"type": "tool_call", "call_id": "c", "name": "pay", "input": {"a": 1}},
    ]
    found = decode_parts(encode_parts(parts))
    assert found[1]["input"].text == '{"n":1.10}'
    assert found[2]["block"].text == "{}"
    assert (found[0], found[3]) == (parts[0], parts[3])


@pytest.mark.parametrize("damaged", [b"", b"[]", b"7", b"[1,2,3,4,5]", b'{"a":1}', b"\xff"])
def test_a_damaged_state_is_none(damaged: bytes) -> None:
    with pytest.raises(ValueError, match="not a state"):
        decode_state(damaged)


@pytest.mark.parametrize(
    "harm",
    [
        lambda run: run.pop("state"),
        lambda run: run.update(state="ended"),
        lambda run: run.pop("steps"),
        lambda run: run.update(steps=[]),
        lambda run: run["steps"][0].update(number=2),
        lambda run: run["steps"][0]["calls"][0].pop("call_id"),
        lambda run: run["steps"][0]["calls"][0].update(ordinal=7),
        lambda run: run["steps"][0]["calls"][0].update(phase="paid"),
        lambda run: run["steps"][0]["calls"][0].update(tool=7),
    ],
)
def test_a_state_whose_run_is_damaged_is_none_and_changes_no_run(harm: Callable[[Any], object]) -> None:
    finish: Any = {"type": "finish", "finish_reason": "tool_calls"}
    whole = json.loads(encode_state(begun(), RunMemory({}, finish, [{}], {}, 1.0)))
    harm(whole[0])
    state = json.dumps(whole).encode()
    again = ToolRun({"pay": RunTool("pay")}, {"own"}, RunLimits(), "gai_1")
    before = again.record()
    with pytest.raises(ValueError, match=NO_RUN):
        again.load(decode_state(state).run, {})
    with pytest.raises(ValueError, match=NO_RUN):
        calls_of_state(state)
    assert again.record() == before


@pytest.mark.parametrize("damaged", [b"7", b"[7]", b"{}", b"[", b"\xff", b"null"])
def test_damaged_parts_are_none(damaged: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # of JSON, or of its form
        decode_parts(damaged)


def test_the_log_tells_what_clients_have_but_not_of_a_step_that_is_void() -> None:
    said: list[Any] = [
        {"type": "start"},
        {"type": "step.start", "step": 1},
        {"type": "tool.result", "step": 1, "call_id": "c1"},
        {"type": "step.end", "step": 1},
        {"type": "warning", "reason": "step_limit", "step": 1},
        {"type": "step.start", "step": 2},
        {"type": "tool.result", "step": 2, "call_id": "c2"},
    ]
    marks = marks_of(said)
    assert ("step.start", 2) in marks
    assert ("tool.result", "c2") in marks
    rest = marks_of([*said, {"type": "step.reset", "step": 2, "reason": "worker_lost"}])
    call = begun().steps[0].calls[0]
    call.result = CallResult(1)
    assert rest == {("step.start", 1), *(mark_of(each) for each in (CallEnded(call), EndStep(1), Warn()))}
    assert mark_of(Finish("stop")) is None


def test_a_log_that_is_beyond_the_state_is_found() -> None:
    finish: Any = {"type": "finish", "finish_reason": "tool_calls"}
    run = begun()
    state = encode_state(run, RunMemory({}, finish, [{}], {}, 1.0))
    assert (turn_to_ask(b""), turn_to_ask(state)) == (1, 2)
    said: list[Any] = [{"type": "step.start", "step": 1}, {"type": "step.end", "step": 1}]
    assert is_beyond(said, 1)
    assert not is_beyond(said[:1], 1)
    said += [{"type": "step.start", "step": 2}, {"type": "text.delta", "text": "a"}]
    assert not is_beyond(said, 2)
    assert is_beyond([*said, {"type": "step.end", "step": 2}], 2)
    assert is_beyond([*said, {"type": "step.start", "step": 3}], 2)


def test_the_log_has_results_but_not_those_of_a_step_that_is_void() -> None:
    first: Any = {"type": "tool.result", "step": 1, "call_id": "c1", "tool_result": {"n": 1}, "duration_ms": 3}
    second: Any = {**first, "step": 2, "call_id": "c2", "tool_result": "no", "is_error": True, "truncated": True}
    second["parts"] = [{"type": "text", "text": "no"}]
    one, two = CallResult({"n": 1}, duration_ms=3), CallResult("no", True, ({"type": "text", "text": "no"},), True, 3)
    assert results_in([first, second]) == {"c1": one, "c2": two}
    assert results_in([first, second, {"type": "step.reset", "step": 2, "reason": "worker_lost"}]) == {"c1": one}


CALL: Final = {"type": "tool.call", "call_id": "a", "tool_call": {"name": "pay"}, "executed_by": "gateway"}
OWN: Final = {"type": "tool.call", "call_id": "own", "tool_call": {"name": "mine"}}
ASKED: Final = {"type": "approval.required", "call_id": "a", "approval": {"id": "s-1"}}
DECIDED: Final = {"type": "approval.decided", "call_id": "a", "approval": {"id": "s-1"}}
RESULT: Final = {"type": "tool.result", "call_id": "a", "tool_result": [CALL, ASKED]}
OTHER: Final = {"type": "tool.call.start", "call_id": "a", "extra": {"type": "tool.result", "call_id": "a"}}
RESET: Final = {"type": "step.reset", "step": 1}


@pytest.mark.parametrize("framing", ["sse", "ndjson"])
@pytest.mark.parametrize(
    ("events", "is_waiting"),
    [
        ([CALL], False),
        ([CALL, ASKED], True),
        ([CALL, OWN, ASKED, OTHER], True),
        ([CALL, {**CALL, "call_id": "b"}, ASKED], False),
        ([CALL, ASKED, DECIDED], False),
        ([CALL, ASKED, DECIDED, RESULT], False),
        ([CALL, ASKED, RESULT, {**CALL, "call_id": "b"}, {**ASKED, "call_id": "b"}], True),
        ([CALL, ASKED, RESET], False),
    ],
)
def test_a_log_says_whether_its_run_waits(
    timers: TimerWheel, framing: Any, events: list[Any], is_waiting: bool
) -> None:
    log = LogMemory(StoreSettings(), timers).create(LogHeader("s", "anonymous", "m", "gai", framing))
    for seq, event in enumerate(events, 1):
        data = json.dumps({"type": event["type"], "seq": seq, **event}, separators=(",", ":"))
        framed = f"id: s.{seq}\nevent: {event['type']}\ndata: {data}\n\n" if framing == "sse" else f"{data}\n"
        log.append(framed.encode(), seq)
    assert waits(log) is is_waiting
