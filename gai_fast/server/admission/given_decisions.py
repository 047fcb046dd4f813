"""Approvals that a client's next request answers, about a run that waits: `useChat` sends its chat again.

Responses answer likewise, but there the run has ended (`approval_answers.py`). A decision by `POST` has the same rules
(`net/stream/deciding.py`).

1. An answer names an approval that a run of this caller waits for, and shows the call as it was shown: what a person
   has seen is what is made. All else is refused before anything is decided.
2. A decision is bound to the digest that is kept under its approval's id. The client knows none.
3. An answer to what is decided already changes nothing. If another one has decided, the gateway at the end of its time
   perhaps, the response shows that; if nothing is new in a request, it is refused.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

from gai_fast.core.requests.gateway_calls import GivenDecision
from gai_fast.kernels import parse_exact
from gai_fast.model.errors import Error
from gai_fast.net.runs.run_records import ApprovalDecision, AskedApproval, RunRecords, kept_for
from gai_fast.net.stream.deciding import decide
from gai_fast.net.stream.streams import Engine
from gai_fast.net.toolbox.model_names import model_name
from gai_fast.server.limits import LIMITS
from gai_fast.stores import StreamLog
from gai_fast.stores.backend import StoreError
from gai_fast.stores.health import out_of_reach

_CALL: Final = b'"type":"tool.call"'


async def decide_given(engine: Engine, caller: str, given: Sequence[GivenDecision]) -> StreamLog:
    """Decides about calls of a run that waits. Returns the log of its stream.

    Args:
        engine: Has the store and the streams.
        caller: The name of the caller.
        given: The decisions, at least one.

    Raises:
        Error: Reason `approval`: a decision cannot be used (400), or all are decided already (409); or as `decide`.
    """
    if len(given) > LIMITS.approval_answers:
        raise refused(f"more than {LIMITS.approval_answers} answers in one request")
    if len({each.approval_id for each in given}) < len(given):
        raise refused("an approval is answered twice in one request")
    records = RunRecords(engine.store.records, kept_for(engine.settings))
    found: list[tuple[AskedApproval, ApprovalDecision | None]] = []
    for each in given:
        asked, decision = await _asked(records, each.approval_id) or (None, None)
        if asked is None or asked.caller != caller:
            raise refused("no run of yours has asked for this approval, or not for so long that it is forgotten")
        found.append((asked, decision))
    stream_id = found[0][0].stream_id
    if any(asked.stream_id != stream_id for asked, _ in found):
        raise refused("the answers are about several runs")
    log = await engine.store.find(stream_id, caller=caller)
    if log is None:
        raise _decided_already()
    for each, (asked, decision) in zip(given, found, strict=True):
        if decision is None and not _is_same(each, asked, log):
            raise refused("the part does not show the call that is asked for: it names another one")
    is_new = False
    for each, (asked, _) in zip(given, found, strict=True):
        decision = ApprovalDecision("approve" if each.is_approved else "deny", caller, each.reason)
        try:
            await decide(engine, records, stream_id, asked.id, asked.digest, decision, lambda _: True)
            is_new = True
        except Error as problem:
            if problem.reason != "decided":
                raise
            _, standing = await _asked(records, asked.id) or (None, None)
            is_new = is_new or (standing is not None and standing.by != caller)
    if not is_new:
        raise _decided_already()
    return log


async def _asked(records: RunRecords, approval_id: str) -> tuple[AskedApproval, ApprovalDecision | None] | None:
    """Returns an approval as `RunRecords.asked`.

    Raises:
        Error: The store is out of reach.
    """
    try:
        return await records.asked(approval_id)
    except StoreError:
        raise out_of_reach() from None


def _is_same(given: GivenDecision, asked: AskedApproval, log: StreamLog) -> bool:
    """Returns whether a client has shown the call that is asked for: rule 1."""
    call = parse_exact(asked.call.decode())
    if (given.call_id, given.name) != (call["call_id"], model_name(call["server"], call["tool"])):
        return False
    return _alike(given.input, call["input"]) or _alike(given.input, _shown(log, given.call_id))


def _shown(log: StreamLog, call_id: str) -> Any:
    """Returns the arguments of a call as clients have them: guards may let other ones through."""
    text = b"".join(log.read(0, sys.maxsize).pieces)
    at = text.find(_CALL)
    while at >= 0:
        end = text.find(b"\n", at)
        event = parse_exact(text[text.rfind(b"\n", 0, at) + 1 : end].removeprefix(b"data: ").decode())
        if event["type"] == "tool.call" and event["call_id"] == call_id:
            return event["tool_call"].get("input", {})
        at = text.find(_CALL, end)
    return None


def _alike(one: Any, other: Any) -> bool:
    """Returns whether two values are the same to a browser, which reads numbers as doubles."""
    if isinstance(one, dict) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_alike(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return float(one) == float(other)
    return bool(one == other)


def _decided_already() -> Error:
    text = "approval: it is decided already, or its run has ended; `GET` of the chat's stream goes on with it"
    return Error("invalid_request", text, reason="approval", status=409)


def refused(text: str) -> Error:
    """Returns the error for an answer that cannot be used: rule 1.

    Args:
        text: Why.
    """
    return Error("invalid_request", f"approval: {text}", reason="approval")
