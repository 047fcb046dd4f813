"""Approvals: a person decides about a call of a run that waits.

The run's caller and admins decide; `net/engine/deciding.py` has the rules.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Final, Literal

import msgspec
from msgspec import Struct

from gai_fast.core.requests.reading import decode_json
from gai_fast.net.engine.deciding import decide
from gai_fast.net.engine.engine import Engine
from gai_fast.net.runs.records.records import ApprovalDecision, AskedApproval, RunRecords, kept_for
from gai_fast.server.admin.bodies import Approval, Approvals, plain
from gai_fast.server.http.replies import Reply
from gai_fast.server.limits import LIMITS
from gai_fast.server.requests.incoming import Incoming
from gai_fast.server.requests.pending import PendingAnswers, Work
from gai_fast.server.requests.stream_response import StreamResponse
from gai_fast.stores.backend import StoreError
from gai_fast.stores.health import out_of_reach

_PART: Final = "/approvals/"


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
        self._records = RunRecords(engine.store.records, kept_for(engine.settings))

    def decide(self, incoming: Incoming) -> None:
        """Handles `POST /api/v1/streams/{id}/approvals/{approval id}`."""
        stream_id, _, approval_id = incoming.tail.partition(_PART)
        given = decode_json(_DECODER, incoming.json_body())
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
            found, size = [], 0
            for at in range(0, len(first), LIMITS.approvals_read):
                batch = first[at : at + LIMITS.approvals_read]
                read = [each for each in await asyncio.gather(*map(self._read, batch)) if each is not None]
                found += read
                size += sum(len(asked.call) for asked, _ in read)
                if size > LIMITS.approvals_bytes:
                    break
        except StoreError:
            raise out_of_reach() from None
        rows = [_row(asked) for asked, decision in found if decision is None]
        return incoming.json_reply(plain(Approvals(len(listed), rows)))

    async def _read(self, approval_id: str) -> tuple[AskedApproval, ApprovalDecision | None] | None:
        """Returns an approval as `RunRecords.asked`. None also if it is damaged: the others are listed nevertheless."""
        try:
            return await self._records.asked(approval_id)
        except StoreError as problem:
            if problem.fault != "damaged":
                raise
            return None

    async def _decide(self, incoming: Incoming, stream_id: str, approval_id: str, given: Decision) -> Reply:
        decision = ApprovalDecision(given.decision, incoming.http.caller, given.reason or "")
        may_decide = partial(_may_decide, incoming)
        await decide(self._engine, self._records, stream_id, approval_id, given.digest, decision, may_decide)
        return incoming.json_reply({"id": approval_id, "decision": given.decision})


def _may_decide(incoming: Incoming, asked: AskedApproval) -> bool:
    key = incoming.http.key
    return incoming.http.caller == asked.caller or (key is not None and key.role == "admin")


def _row(asked: AskedApproval) -> Approval:
    return Approval(
        id=asked.id,
        stream_id=asked.stream_id,
        key=asked.caller,
        **msgspec.json.decode(asked.call),  # exact, as the call is made: other parsers round large numbers
        digest=asked.digest,
        expires=asked.expires,
    )
