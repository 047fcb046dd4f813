"""The state of a run as its record has it, and what the log of a run has of it. Sans-IO.

1. A state has all but the conversation: each turn adds its parts to that once.
2. What a model has written as JSON is kept as it has written it, so that it goes back to the model unchanged.
3. The log of a run that goes on may have more than its state, never less. `marks_of` says what clients have already.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import msgspec

from gai_fast.core.run import CallEnded, CallResult, Decided, EndStep, RunCall, ToolRun, Warn, calls_of_record
from gai_fast.kernels import encode_json, parse_exact
from gai_fast.model.events import Event, JSONText
from gai_fast.net.logs.resting import AskedCalls
from gai_fast.stores import StreamLog

Mark = tuple[str, Any]
"""An event that a run sends once: its type, and its call or step."""

_TEXTS: Final = {"input": "input_text", "block": "block_text"}
"""Members of parts that are JSON texts, and their names in a record."""
_State: Final = tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]], list[tuple[int, str, str]], float]
_REQUIRED: Final = b'"type":"approval.required"'
_TOLD: Final = (
    _REQUIRED,
    b'"type":"approval.decided"',
    b'"type":"tool.call"',
    b'"type":"tool.result"',
    b'"type":"step.reset"',
)
"""What the events have that say whether a run waits: a text has quotes escaped."""


class _ToldApproval(msgspec.Struct, frozen=True):
    """The fields of an approval that say so."""

    id: str = ""


_NO_APPROVAL: Final = _ToldApproval()


class _Told(msgspec.Struct):
    """The fields of an event that say whether a run waits."""

    type: str
    call_id: str = ""
    executed_by: str = ""
    approval: _ToldApproval = _NO_APPROVAL


_read_told: Final = msgspec.json.Decoder(_Told).decode


_OF_CALLS: Final = frozenset({"tool.result", "approval.required", "approval.decided"})


@dataclass(frozen=True, slots=True)
class RunMemory:
    """A state.

    Attributes:
        run: The result of `ToolRun.record`.
        finish: The `finish` of the last turn that has ended.
        usages: The usage of each turn that has ended.
        providers: Provider and model of each step.
        seconds: What is left of its time.
    """

    run: Mapping[str, Any]
    finish: Event
    usages: list[dict[str, Any]]
    providers: dict[int, tuple[str, str]]
    seconds: float


def encode_state(run: ToolRun, memory: RunMemory) -> bytes:
    """Returns a state for a record.

    Args:
        run: The run.
        memory: What is kept beside; its `run` is not used.

    Raises:
        ValueError: It has a number that JSON has no form for.
    """
    providers = [[step, *each] for step, each in memory.providers.items()]
    return encode_json([run.record(), memory.finish, memory.usages, providers, memory.seconds])


def decode_state(state: bytes) -> RunMemory:
    """Returns a state; the opposite of `encode_state`.

    Raises:
        ValueError: It is none.
    """
    try:
        record, finish, usages, providers, seconds = msgspec.convert(parse_exact(state.decode()), _State)
        is_state = isinstance(finish.get("finish_reason"), str) and record.get("state") != "ended"
    except (TypeError, ValueError):
        is_state = False
    if not is_state:
        raise ValueError("not a state of a run")
    named = {step: (provider, model) for step, provider, model in providers}
    return RunMemory(record, cast("Event", finish), usages, named, seconds)


def calls_of_state(state: bytes) -> list[RunCall]:
    """Returns the calls of the last turn of a state. Raises as `decode_state`."""
    return calls_of_record(decode_state(state).run)


class _WaitingCall(msgspec.Struct):
    """The fields of a call that say whether it waits."""

    phase: str
    approval_id: str


class _WaitingStep(msgspec.Struct):
    """The calls of a turn."""

    calls: list[_WaitingCall]


class _WaitingRun(msgspec.Struct):
    """The fields of a run that say whether it waits."""

    state: str
    steps: list[_WaitingStep]


class _WaitingState(msgspec.Struct, array_like=True):
    """A state; the rest of it is skipped: there may be megabytes."""

    run: _WaitingRun


_read_waiting: Final = msgspec.json.Decoder(_WaitingState).decode


def approvals_of_state(state: bytes) -> frozenset[str]:
    """Returns the ids of the approvals for which a run waits, if it waits for them alone. Empty if it does not.

    Args:
        state: Its state, as its record has it. Empty if none is kept.
    """
    try:
        run = _read_waiting(state).run
    except msgspec.MsgspecError:
        return frozenset()
    if run.state != "waiting" or not run.steps:
        return frozenset()
    return frozenset(call.approval_id for call in run.steps[-1].calls if call.phase == "asking")


def encode_parts(parts: Sequence[Mapping[str, Any]]) -> bytes:
    """Returns the parts of a turn for a record: rule 2.

    Args:
        parts: As `Collector.parts` returns them.

    Raises:
        ValueError: As `encode_state`.
    """
    return encode_json([_written(part) for part in parts])


def decode_parts(added: bytes) -> list[dict[str, Any]]:
    """Returns the parts of a turn.

    Raises:
        ValueError: They are none.
    """
    return [_read(part) for part in msgspec.convert(parse_exact(added.decode()), list[dict[str, Any]])]


def waits(log: StreamLog) -> bool:
    """Returns whether a stream is a run that waits for approvals alone, by its log; as `AskedCalls.wait`.

    Args:
        log: Its log, in any process.
    """
    if log.is_over or log.header.framing == "json":
        return False
    text = b"".join(log.read(0, sys.maxsize).pieces)
    if _REQUIRED not in text:
        return False
    calls = AskedCalls()
    for data in _told_in(text):
        try:
            told = _read_told(data)
        except msgspec.MsgspecError:
            return False
        calls.note(told.type, told.call_id, told.approval.id or told.call_id, is_gateways=bool(told.executed_by))
    return calls.wait


def _told_in(text: bytes) -> list[bytes]:
    """Returns the JSON of the lines with one of the marks, in their order.

    Each question for a stream's state searches its log: line by line, 4 MiB in 40,000 events took 50 to 120 ms.
    """
    found: dict[int, int] = {}  # ends of lines, by their beginnings
    for mark in _TOLD:
        at = text.find(mark)
        while at >= 0:  # once for each line: a result may hold any number of marks
            begin, end = text.rfind(b"\n", 0, at) + 1, text.find(b"\n", at)
            found[begin] = end = len(text) if end < 0 else end
            at = text.find(mark, end)
    return [text[begin : found[begin]].removeprefix(b"data: ") for begin in sorted(found)]


def marks_of(said: Sequence[Event]) -> set[Mark]:
    """Returns what the log of a run has: rule 3.

    Args:
        said: Its events. A step that is void has sent nothing.
    """
    found: dict[Mark, Any] = {}
    for event in said:
        kind: str = event["type"]
        step = event.get("step", 0)
        if kind == "step.reset":
            found = {mark: of for mark, of in found.items() if of != step}
        elif kind in _OF_CALLS:
            found[kind, event.get("call_id", "")] = step
        elif kind in ("step.start", "step.end"):
            found[kind, step] = step
        elif kind == "warning" and event.get("reason") == "step_limit":
            found[kind, "step_limit"] = step
    return {*found}


def turn_to_ask(state: bytes) -> int:
    """Returns the turn that a run asks, or asks again, once its calls have ended. Later ones must not be in its log.

    Args:
        state: Its state; empty if none was kept.

    Raises:
        ValueError: It is none.
    """
    if not state:
        return 1
    record = decode_state(state).run
    return len(record["steps"]) + int(record["state"] != "turn")


def is_beyond(said: Sequence[Event], turn: int) -> bool:
    """Returns whether events have the end of a turn, or anything of a later one."""
    return any(event.get("step", 1) > turn or (event["type"] == "step.end" and event["step"] == turn) for event in said)


def results_in(said: Sequence[Event]) -> dict[str, CallResult]:
    """Returns the results that a log has, by the ids of their calls; not those of a step that is void."""
    found: dict[str, tuple[int, CallResult]] = {}
    for event in said:
        if event["type"] == "step.reset":
            found = {call_id: each for call_id, each in found.items() if each[0] != event["step"]}
        elif event["type"] == "tool.result":
            found[event["call_id"]] = event["step"], _result_of(event)
    return {call_id: result for call_id, (_, result) in found.items()}


def _result_of(event: Event) -> CallResult:
    is_error, is_truncated = event.get("is_error", False), event.get("truncated", False)
    parts = tuple(event.get("parts", ()))
    return CallResult(event["tool_result"], is_error, parts, is_truncated, event["duration_ms"])


def mark_of(action: object) -> Mark | None:
    """Returns the mark of the event that an action sends. None if it sends none that has one."""
    if isinstance(action, CallEnded):
        return "tool.result", action.call.call_id
    if isinstance(action, Decided):
        return "approval.decided", action.call.call_id
    if isinstance(action, EndStep):
        return "step.end", action.step
    return ("warning", "step_limit") if isinstance(action, Warn) else None


def _written(part: Mapping[str, Any]) -> dict[str, Any]:
    texts = {name: value.text for name, value in part.items() if isinstance(value, JSONText) and name in _TEXTS}
    if not texts:
        return dict(part)
    rest = {name: value for name, value in part.items() if name not in texts}
    return {**rest, **{_TEXTS[name]: text for name, text in texts.items()}}


def _read(part: dict[str, Any]) -> dict[str, Any]:
    for name, written in _TEXTS.items():
        if written in part:
            text = part.pop(written)
            part[name] = JSONText(text, parse_exact(text))
    return part
