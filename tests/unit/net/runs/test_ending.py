"""What the end of a run says of its turns."""

from __future__ import annotations

from typing import Any, Final

import pytest

from gai_fast.core.run import CallResult, RunLimits, RunTool, ToolRun
from gai_fast.net.runs.ending import told_of, told_of_state
from gai_fast.net.runs.records.state import RunMemory, encode_state

TURN: Final = {"input_tokens": 2, "total_tokens": 3, "cost": {"amount": 0.1, "currency": "USD"}}
SUM: Final = {"input_tokens": 4, "total_tokens": 6, "cost": {"amount": 0.2, "currency": "USD"}}


def in_its_third_turn() -> ToolRun:
    run = ToolRun({"pay": RunTool("pay", idempotent=True)}, {"own"}, RunLimits(), "gai_1")
    for step in (1, 2):
        run.note_call(f"c{step}", "pay" if step == 1 else "nobody_s", {})
        run.end_turn("tool_calls")
        for call in run.step.calls:
            if call.phase != "ended":
                run.end_call(call, CallResult("paid"))
    run.note_call("c3", "own", {})
    return run


def test_the_record_of_a_run_tells_the_same_as_the_run() -> None:
    """The last turn has not ended, and its call is the client's."""
    run, providers = in_its_third_turn(), {1: ("openai", "gpt"), 2: ("openai", ""), 3: ("", "")}
    told = told_of(run.steps, [TURN, TURN], providers, {"own"})
    assert told == {
        "usage": SUM,
        "steps": [
            {"step": 1, "provider": "openai", "model": "gpt", "usage": TURN, "tool_calls": 1},
            {"step": 2, "provider": "openai", "usage": TURN, "tool_calls": 1},
            {"step": 3, "tool_calls": 0},
        ],
    }
    del providers[3]
    told = told_of(run.steps, [TURN, TURN], providers, {"own"})
    assert len(told["steps"]) == 2, "no event of the third one was sent"
    finish: Any = {"type": "finish", "finish_reason": "tool_calls"}
    state = encode_state(run, RunMemory({}, finish, [dict(TURN), dict(TURN)], providers, 1.0))
    assert told_of_state(state, ["own"]) == told


def test_nothing_is_told_of_a_run_that_has_no_state() -> None:
    assert told_of_state(b"", ()) == {}
    with pytest.raises(ValueError, match="not a state"):
        told_of_state(b"[7]", ())
