"""Calls that wait for an approval, and that their run leaves to a later request: how they are kept, and go on.

A run that is a response of the Responses dialect ends where it would wait. `server/admission/approval_answers.py` reads
the answer.

1. A call is kept before its client is asked. What cannot be kept is denied.
2. A call is made as it was kept: its tool and its idempotency key are those of the run that has left it. Its arguments
   are those that the answer shows: a digest of them is kept, as the answer may come much later, or never.
3. The approvals of a run are asked for in the calls' order.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

import msgspec
from msgspec import Struct

from gai_fast.core.run import Decision, RunCall
from gai_fast.formats.responses.tools import text_of
from gai_fast.kernels import encode_json, parse_exact
from gai_fast.model.errors import Error
from gai_fast.model.request import AssistantMessage, Message, Request, ToolCallPart, ToolMessage
from gai_fast.net.runs.approvals.desk import ApprovalDesk
from gai_fast.net.runs.records.records import AskedApproval
from gai_fast.runtime.clock import now_ms
from gai_fast.stores.backend import StoreError

_log: Final = logging.getLogger("gai_fast.tools")
_MS: Final = 1000


class LeftCall(Struct, frozen=True):
    """A call as it is kept.

    Attributes:
        address: Its tool, as `RunTool.address`.
        input: Its arguments. Not kept: rule 2.
        key: Its idempotency key.
        signature: The provider's signature of the call; empty if it has none.
        shown: The digest of its arguments as their client has them.
    """

    address: str
    key: str
    input: Any = None
    signature: str = ""
    shown: str = ""


def read_left(asked: AskedApproval, shown: str) -> LeftCall | None:
    """Returns the call of an approval. None if another one is shown.

    Args:
        asked: The approval.
        shown: The arguments that its answer shows.

    Raises:
        StoreError: The record is damaged.
    """
    try:
        call = msgspec.convert(parse_exact(asked.call.decode()), LeftCall)
        kept = call.shown or _digest(text_of(call.input))  # a former release has kept the arguments
        return msgspec.structs.replace(call, input=parse_exact(shown)) if kept == _digest(shown) else None
    except (ValueError, TypeError):
        raise StoreError("damaged", "the record of an approval in the store is damaged") from None


def _digest(shown: str) -> str:
    return sha256(shown.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class AnsweredCall:
    """A call whose approval a request has decided.

    Attributes:
        approval_id: The id of its approval.
        name: The name by which the model sees its tool.
        call: The call.
        decision: The decision.
        by: Who has decided; empty for the gateway.
        reason: Why; may be empty.
    """

    approval_id: str
    name: str
    call: LeftCall
    decision: Decision
    by: str = ""
    reason: str = ""


class LeftCalls:
    """Keeps the calls that one run leaves.

    Args:
        desk: The approvals of all runs.
        stream_id: The stream of the run.
        caller: The name of its caller.
        left: Called with each call that is kept.
        denied: Called with each call that could not be kept, and why.
    """

    def __init__(
        self,
        desk: ApprovalDesk,
        stream_id: str,
        caller: str,
        left: Callable[[RunCall, AskedApproval], object],
        denied: Callable[[RunCall, str], object],
    ) -> None:
        self._desk = desk
        self._stream_id = stream_id
        self._caller = caller
        self._left = left
        self._denied = denied
        self._turn = asyncio.Lock()  # rule 3

    def ask(self, call: RunCall, digest: str, key: str, signature: str) -> None:
        """Keeps a call, soon: rule 1.

        Args:
            call: The call.
            digest: Its digest.
            key: Its idempotency key.
            signature: As in `LeftCall`.
        """
        assert call.tool is not None
        shown = _digest(text_of(call.arguments))
        kept = {"address": call.tool.address, "key": key, "signature": signature, "shown": shown}
        expires = now_ms() + round(self._desk.settings.approval_ttl * _MS)
        asked = AskedApproval(call.approval_id, self._stream_id, self._caller, digest, expires, encode_json(kept))
        self._desk.start(self._keep(call, asked))

    async def _keep(self, call: RunCall, asked: AskedApproval) -> None:
        async with self._turn:
            try:
                await self._desk.records.leave(asked)
            except (StoreError, Error) as fault:
                _log.warning("stream %s: an approval is not kept: %s", self._stream_id, fault)
                self._denied(call, "the approval could not be kept: the store is out of reach")
            else:
                self._left(call, asked)


def with_results(request: Request, calls: Sequence[RunCall], answered: Sequence[AnsweredCall]) -> Request:
    """Returns a request that has the results of calls in the places of their approvals.

    Args:
        request: The request, in which each call has the id of its approval, and a result without content.
        calls: The calls, which have ended.
        answered: What the request has decided.
    """
    results = {call.call_id: call.result for call in calls}
    signatures = {each.approval_id: each.call.signature for each in answered if each.call.signature}
    messages: list[Message] = []
    for message in request.messages:
        result = results.get(message.call_id) if isinstance(message, ToolMessage) else None
        if result is not None and isinstance(message, ToolMessage):
            message = ToolMessage(call_id=message.call_id, content=result.content(), is_error=result.is_error)
        elif signatures and isinstance(message, AssistantMessage) and not isinstance(message.content, str):
            content = [
                msgspec.structs.replace(part, signature=signatures[part.call_id])
                if isinstance(part, ToolCallPart) and part.call_id in signatures
                else part
                for part in message.content
            ]
            message = msgspec.structs.replace(message, content=content)
        messages.append(message)
    return msgspec.structs.replace(request, messages=messages)
