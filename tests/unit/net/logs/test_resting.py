"""`gai_fast/net/logs/resting.py`: when a run waits by its log, and where the response to an answer begins."""

from __future__ import annotations

import json
from typing import Any

from gai_fast.formats import get_format
from gai_fast.net.logs.resting import AskedCalls, RestingView
from gai_fast.net.logs.view import Representation, view_of
from gai_fast.stores import LogHeader

ID = "AbCdEfGhIjKlMnOpQrStUv"
HEADER = LogHeader(ID, "anonymous", "m", "gai", "sse", "compact", "req")
CALL = {"executed_by": "gateway", "step": 1}


def asking(call: str, number: int) -> dict[str, Any]:
    return {"type": "approval.required", "step": 1, "call_id": call, "approval": {"id": f"{ID}-{number}"}}


def decided(call: str, number: int, decision: str = "approve") -> dict[str, Any]:
    return {
        **asking(call, number),
        "type": "approval.decided",
        "approval": {"id": f"{ID}-{number}", "decision": decision},
    }


def result(call: str) -> dict[str, Any]:
    return {"type": "tool.result", "step": 1, "call_id": call, "tool_result": "made", "duration_ms": 1}


START: list[dict[str, Any]] = [
    {"type": "start", "model": "m", "provider": "p"},
    {"type": "step.start", "step": 1},
    *[{"type": "tool.call", "call_id": name, "tool_call": {"name": "pay", "input": {}}, **CALL} for name in "ab"],
]
ASKED = [*START, asking("a", 1), asking("b", 2)]


def view(version: str = "6") -> RestingView:
    form = Representation(get_format("vercel").version(version), "sse")
    found = view_of(HEADER, form, 0, lambda: 5000)
    assert isinstance(found, RestingView)
    return found


def fed(resting: RestingView, events: list[dict[str, Any]], first: int = 1) -> list[str]:
    """Returns the types of the parts of events."""
    for seq, event in enumerate(events, first):
        resting.feed(b"data: %b\n\n" % json.dumps({"type": event["type"], "seq": seq, **event}).encode())
    return types_of(resting)


def types_of(resting: RestingView) -> list[str]:
    lines = b"".join(resting.take_pieces()).split(b"\n")
    return [
        json.loads(line[6:])["type"] if line[6:7] == b"{" else line[6:].decode() for line in lines if line[:1] == b"d"
    ]


def test_a_run_waits_if_all_open_calls_are_asked_for() -> None:
    resting = view()
    fed(resting, [*START, asking("a", 1)])
    assert not resting.waited_for
    fed(resting, [asking("b", 2)], 6)
    assert resting.waited_for == [f"{ID}-1", f"{ID}-2"]
    fed(resting, [decided("a", 1)], 7)
    assert not resting.waited_for
    fed(resting, [result("a")], 8)
    assert resting.waited_for == [f"{ID}-2"]


def test_a_turn_that_is_void_waits_for_nothing() -> None:
    calls = AskedCalls()
    calls.note("approval.required", "a", "1", is_gateways=False)
    assert calls.wait
    calls.note("step.reset", "", "", is_gateways=False)
    assert not calls.wait


def test_a_call_of_the_client_is_no_open_call() -> None:
    calls = AskedCalls()
    calls.note("tool.call", "c", "", is_gateways=False)
    calls.note("approval.required", "a", "1", is_gateways=False)
    assert calls.approvals == ["1"]
    assert calls.wait


def test_the_end_of_a_response_is_that_of_a_message() -> None:
    resting = view()
    fed(resting, ASKED)
    resting.rest()
    assert types_of(resting) == ["finish-step", "finish", "[DONE]"]


def test_the_response_to_an_answer_begins_with_the_first_decision() -> None:
    resting = view()
    resting.go_on_with([f"{ID}-1", f"{ID}-2"])
    assert fed(resting, ASKED) == []
    more = fed(resting, [decided("b", 2, "deny"), {**result("b"), "is_error": True}, decided("a", 1), result("a")], 7)
    assert more == ["start", "data-approval", "tool-output-denied", "data-approval", "tool-output-available"]


def test_a_run_that_ends_undecided_still_has_its_end() -> None:
    resting = view("7")
    resting.go_on_with([f"{ID}-1"])
    more = fed(resting, [*ASKED, {"type": "finish", "finish_reason": "cancelled"}, {"type": "done", "finished": True}])
    assert more == ["start", "message-metadata", "abort", "[DONE]"]
