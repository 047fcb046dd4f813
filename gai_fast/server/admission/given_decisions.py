"""Approvals that a client's next request answers, about a run that waits: `useChat` sends its chat again.

Responses answer likewise, but there the run has ended (`approval_answers.py`). A decision by `POST` has the same rules
(`net/engine/deciding.py`).

1. An answer names an approval that a run of this caller waits for, and shows the call as it was shown: what a person
   has seen is what is made. All else is refused before anything is decided.
2. A decision is bound to the digest that is kept under its approval's id. The client knows none.
3. An answer to what is decided already changes nothing. If another one has decided, the gateway at the end of its time
   perhaps, the response shows that; if nothing is new in a request, it is refused.
"""

from __future__ import annotations

import asyncio
import math
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from gai_fast.core.requests.gateway_calls import GivenDecision
from gai_fast.kernels import encode_json, parse_exact
from gai_fast.model.errors import Error
from gai_fast.net.engine.deciding import decide
from gai_fast.net.engine.engine import Engine
from gai_fast.net.runs.records.records import ApprovalDecision, AskedApproval, RunRecords, kept_for
from gai_fast.net.toolbox.model_names import model_name
from gai_fast.server.limits import LIMITS
from gai_fast.stores import StreamLog
from gai_fast.stores.backend import StoreError
from gai_fast.stores.health import out_of_reach

_CALL: Final = b'"type":"tool.call"'
_OTHER: Final = "the part does not show the call that is asked for: it names another one"
_CALL_ID: Final = re.compile(rb'"call_id":("(?:[^"\\]|\\.)*")')


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
    shown: Mapping[bytes, bytes] | None = None
    for each, (asked, decision) in zip(given, found, strict=True):
        if decision is not None:  # its call is kept no longer, and nothing is decided again
            continue
        await asyncio.sleep(0)  # a call has 256 KiB
        call = parse_exact(asked.call.decode())
        if (each.call_id, each.name) != (call["call_id"], model_name(call["server"], call["tool"])):
            raise refused(_OTHER)
        if _alike(each.input, call["input"]):
            continue
        if shown is None:  # guards may have let other arguments through than those that are kept
            shown = _shown(log, {encode_json(one.call_id) for one in given})
        event = shown.get(encode_json(each.call_id))
        if event is None or not _alike(each.input, parse_exact(event.decode())["tool_call"].get("input", {})):
            raise refused(_OTHER)
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


def _shown(log: StreamLog, call_ids: Collection[bytes]) -> dict[bytes, bytes]:
    """Returns calls as clients have them: their events, by the JSON of their ids.

    Args:
        log: The log of the run.
        call_ids: The JSON of the ids.
    """
    text, found = b"".join(log.read(0, sys.maxsize).pieces), {}
    at = text.find(_CALL)
    while at >= 0:
        end = text.find(b"\n", at)
        named = _CALL_ID.search(text, at, end)
        if named is not None and named[1] in call_ids:
            found[named[1]] = text[text.rfind(b"\n", 0, at) + 1 : end].removeprefix(b"data: ")
        at = text.find(_CALL, end)
    return found


def _alike(one: Any, other: Any) -> bool:
    """Returns whether two values are the same to a browser, which reads numbers as doubles."""
    if isinstance(one, dict) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_alike(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return one == other or _double(one) == _double(other)
    return bool(one == other)


def _double(number: float) -> float:
    try:
        return float(number)
    except OverflowError:  # beyond a double's range
        return math.inf if number > 0 else -math.inf


def _decided_already() -> Error:
    text = "approval: it is decided already, or its run has ended; `GET` of the chat's stream goes on with it"
    return Error("invalid_request", text, reason="approval", status=409)


def refused(text: str) -> Error:
    """Returns the error for an answer that cannot be used: rule 1.

    Args:
        text: Why.
    """
    return Error("invalid_request", f"approval: {text}", reason="approval")
