"""A person decides about a call of a run, through a server or a program.

1. A person who may not decide gets the error for an approval that does not exist.
2. A decision names the digest of the call, so that the call that was seen is the one that is made.
3. A decision is stored before it is sent to the run. If the run's worker is gone, the decision asks for a takeover,
   and the new worker reads it. If it cannot be sent because the store or the worker does not answer, the person gets
   that error, and is told to ask again: the decision is kept, and a second request sends it.
4. The first decision counts. After the end of the run there is nothing to decide, and the approval is listed no longer.
   Nor is there after the approval's time, although the run may not know yet: the clock may have jumped.
5. A run that nobody has does not hear that its key is revoked. So one whose caller has no key is taken over before the
   decision: it ends, if its key was of the store.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from gai_fast.model.errors import Error
from gai_fast.model.settings import ANONYMOUS
from gai_fast.net.engine.engine import Engine
from gai_fast.net.limits import LIMITS
from gai_fast.net.runs.approvals.desk import EXPIRED
from gai_fast.net.runs.records.records import ENDED, ApprovalDecision, AskedApproval, RunRecords
from gai_fast.runtime.clock import now_ms
from gai_fast.stores.backend import DECIDED, StoreError
from gai_fast.stores.health import out_of_reach

_log: Final = logging.getLogger("gai_fast.tools")
_EXPIRED: Final = ApprovalDecision("deny", "", EXPIRED)


async def decide(
    engine: Engine,
    records: RunRecords,
    stream_id: str,
    approval_id: str,
    digest: str,
    decision: ApprovalDecision,
    may_decide: Callable[[AskedApproval], bool],
) -> None:
    """Decides about a call.

    Args:
        engine: Has the store and the streams.
        records: The approvals.
        stream_id: The stream of the run.
        approval_id: The id of the approval.
        digest: The digest of the call.
        decision: The decision.
        may_decide: Whether the person may decide.

    Raises:
        Error: `not_found`: rule 1; `invalid_request` 409, reason `digest` or `decided`; 400, reason `validation`: the
            reason is too long; the store is out of reach, or the run does not hear of the decision yet: rule 3.
    """
    if len(decision.reason) > LIMITS.decision_reason:
        text = f"reason: at most {LIMITS.decision_reason} characters"
        raise Error("invalid_request", text, reason="validation")
    try:
        found = await records.asked(approval_id)
        if found is None or found[0].stream_id != stream_id or not may_decide(found[0]):
            raise unknown_approval()
        asked, standing = found
        is_over = await _is_over(engine, asked)
        if digest != asked.digest:
            text = "the digest is of another call: decide about the call that `approval.required` shows"
            raise Error("invalid_request", text, reason="digest", status=409)
        if standing is None:
            own = ENDED if is_over else _EXPIRED if asked.expires <= now_ms() else decision
            standing = await records.decide(approval_id, own, digest)
        if standing is not decision:
            if not is_over:  # the run may not have heard of it: the store may have failed in between
                await _tell(engine, asked)
            text = "the call is decided already, or its run has ended"
            raise Error("invalid_request", text, reason="decided", status=409)
    except StoreError:
        raise out_of_reach() from None
    await _tell(engine, asked)


async def _is_over(engine: Engine, asked: AskedApproval) -> bool:
    """Returns whether the run has ended, or ends now: rule 5.

    Raises:
        Error: There is no such stream any more.
    """
    stream_id, caller = asked.stream_id, asked.caller
    if stream_id in engine.streams:
        return False
    is_keyless = caller != ANONYMOUS and not engine.takeovers.key_home(caller)
    log = await engine.store.find(stream_id, asks=is_keyless, caller=caller if is_keyless else None)
    if log is None:
        raise unknown_approval()
    return log.is_over


async def _tell(engine: Engine, asked: AskedApproval) -> None:
    """Sends the run its decision: rule 3.

    Raises:
        Error: The store or the run's worker does not answer now.
    """
    store, message = engine.store, f"{DECIDED} {asked.id}"
    if asked.stream_id in engine.streams and store.hear is not None:
        store.hear(asked.stream_id, message)
        return
    try:
        log = await store.find(asked.stream_id, caller=asked.caller)
        if log is not None and not log.is_over:
            await store.tell(log, message)
    except Error as problem:  # the decision is stored: the next request for the stream continues the run
        _log.warning("stream %s: the run does not hear of a decision yet: %s", asked.stream_id, problem)
        if problem.code == "overloaded" and problem.temporary:  # its worker may live, and would wait on
            raise


def unknown_approval() -> Error:
    """Returns the error for an approval that does not exist, or is not the caller's: rule 1."""
    return Error("not_found", "there is no such approval of a stream of yours", reason="approval")
