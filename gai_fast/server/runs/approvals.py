"""Approvals: a person decides about a call of a run that waits.

Owns who may decide, and what a decision must name. `net/runs/run_records.py` has the approvals.

1. The run's caller and admins decide. For all others there is no such approval.
2. A decision names the digest of the call, so that the call that was seen is the one that is made.
3. A decision is kept before the run hears of it. If the run's worker is gone, whoever goes on with the run finds it,
   and the decision asks for that.
4. The first decision counts. After the end of the run there is nothing to decide.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec
import orjson
from msgspec import Struct

from gai_fast.core.requests.reading import decode_json
from gai_fast.model.errors import Error
from gai_fast.net.runs.run_records import ApprovalDecision, AskedApproval, RunRecords
from gai_fast.net.stream.streams import Engine
from gai_fast.server.http.replies import Reply
from gai_fast.server.limits import LIMITS
from gai_fast.server.requests.incoming import Incoming
from gai_fast.server.requests.pending import PendingAnswers, Work
from gai_fast.server.requests.stream_response import StreamResponse
from gai_fast.stores.backend import DECIDED, StoreError
from gai_fast.stores.health import out_of_reach

_log: Final = logging.getLogger("gai_fast.server")
_PART: Final = "/approvals/"
_OF_STREAM: Final = "DELETE, GET, HEAD, OPTIONS"
"""What a path of a stream alone, which begins as that of an approval, accepts."""


class Decision(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A decision, as a request has it."""

    decision: Literal["approve", "deny"]
    digest: str
    reason: str | None = None


_DECODER: Final = msgspec.json.Decoder(Decision)


class ApprovalRoutes:
    """The handlers over one engine.

    Args:
        engine: Has the store and the streams.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._pending = PendingAnswers()
        self._records = RunRecords(engine.store.records, engine.settings.idempotency.ttl)

    def decide(self, incoming: Incoming) -> None:
        """Handles `POST /api/v1/streams/{id}/approvals/{approval id}`."""
        stream_id, part, approval_id = incoming.tail.partition(_PART)
        if not part:
            error = Error("invalid_request", "nothing is sent to a stream by POST", reason="method", status=405)
            error.details = {"allow": _OF_STREAM}
            raise error
        given = decode_json(_DECODER, incoming.json_body())
        if given.reason is not None and len(given.reason) > LIMITS.decision_reason:
            text = f"reason: at most {LIMITS.decision_reason} characters"
            raise Error("invalid_request", text, reason="validation")
        self._answer(incoming, self._decide(incoming, stream_id, approval_id, given))

    def list_open(self, incoming: Incoming) -> None:
        """Handles `GET /admin/v1/approvals`: those that nobody has decided; those that expire first come first."""
        self._answer(incoming, self._list(incoming))

    def _answer(self, incoming: Incoming, work: Work) -> None:
        response = StreamResponse(incoming, "", "", self._engine.settings.stream, whole=False)
        self._pending.add(incoming, response, work)

    async def _list(self, incoming: Incoming) -> Reply:
        try:
            listed = await self._records.listed()
            first = sorted(listed, key=lambda each: (listed[each], each))[: LIMITS.approvals_shown]
            found = []
            for at in range(0, len(first), LIMITS.approvals_read):
                batch = first[at : at + LIMITS.approvals_read]
                found += await asyncio.gather(*map(self._records.asked, batch))
        except StoreError:
            raise out_of_reach() from None
        rows = [_row(each[0]) for each in found if each is not None and each[1] is None]
        return incoming.json_reply({"total": len(listed), "data": rows})

    async def _decide(self, incoming: Incoming, stream_id: str, approval_id: str, given: Decision) -> Reply:
        store = self._engine.store
        try:
            found = await self._records.asked(approval_id)
            if found is None or found[0].stream_id != stream_id or not _may_decide(incoming, found[0]):
                raise _unknown()
            asked, standing = found
            log = await store.find(stream_id, asks=False)
            if log is None:
                raise _unknown()
            if given.digest != asked.digest:
                text = "the digest is of another call: decide about the call that `approval.required` shows"
                raise Error("invalid_request", text, reason="digest", status=409)
            by = "" if incoming.http.key is None else incoming.http.caller
            decision = ApprovalDecision(given.decision, by, given.reason or "")
            if standing is None and not log.is_over:
                standing = await self._records.decide(approval_id, decision)
            if standing is not decision:
                raise Error(
                    "invalid_request", "the call is decided already, or its run has ended", reason="decided", status=409
                )
        except StoreError:
            raise out_of_reach() from None
        await self._tell(asked)
        return incoming.json_reply({"id": approval_id, "decision": given.decision})

    async def _tell(self, asked: AskedApproval) -> None:
        """Lets the run hear of its decision: rule 3."""
        store = self._engine.store
        try:
            log = await store.find(asked.stream_id, caller=asked.caller)
            if log is not None and not log.is_over:
                await store.tell(log, f"{DECIDED} {asked.id}")
        except Error as problem:  # the decision is kept: the next who asks for the stream makes it go on
            _log.warning("stream %s: the run does not hear of a decision yet: %s", asked.stream_id, problem)


def _may_decide(incoming: Incoming, asked: AskedApproval) -> bool:
    key = incoming.http.key
    return incoming.http.caller == asked.caller or (key is not None and key.role == "admin")


def _row(asked: AskedApproval) -> Mapping[str, Any]:
    return {
        "id": asked.id,
        "stream_id": asked.stream_id,
        "key": asked.caller,
        **orjson.loads(asked.call),
        "digest": asked.digest,
        "expires": asked.expires,
    }


def _unknown() -> Error:
    return Error("not_found", "there is no such approval of a stream of yours", reason="approval")
