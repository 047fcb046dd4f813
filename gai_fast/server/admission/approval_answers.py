"""Approvals in the Responses dialect: a request answers what an earlier response has asked.

`net/runs/approvals/deferred.py` keeps the calls and makes them.

1. An answer names a request for an approval that this gateway has asked its caller for. The item must be in the
   conversation, as it was sent: what a person has seen is what is made. All else is refused before anything is decided.
2. The call is made as it was kept, with a tool that this request offers.
3. An approval is decided once, before the stream begins. A request that begins no stream gives its decisions back.
4. An approval whose time is over is denied.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from gai_fast.core.requests.gateway_calls import ApprovalAnswer, tool_of
from gai_fast.model.errors import Error
from gai_fast.model.tool_rules import OWN_LABEL, server_and_name
from gai_fast.net.limits import LIMITS as DECISIONS
from gai_fast.net.runs.approvals.deferred import AnsweredCall, LeftCall, read_left
from gai_fast.net.runs.approvals.desk import EXPIRED
from gai_fast.net.runs.records.records import ApprovalDecision
from gai_fast.net.toolbox.model_names import model_name
from gai_fast.runtime.clock import now_ms
from gai_fast.server.limits import LIMITS
from gai_fast.stores.backend import StoreError
from gai_fast.stores.health import out_of_reach

if TYPE_CHECKING:
    from gai_fast.net.runs.offers import RunOffer

_log: Final = logging.getLogger("gai_fast.tools")
_DENY: Final = "deny"
_APPROVE: Final = "approve"


async def read_answers(offer: RunOffer, caller: str, answers: Sequence[ApprovalAnswer]) -> list[AnsweredCall]:
    """Returns the calls that a request decides: rule 1. Nothing is decided yet.

    Args:
        offer: What the request offers.
        caller: The name of its caller.
        answers: Its answers.

    Raises:
        Error: An answer is not valid, or the store is out of reach.
    """
    if len(answers) > LIMITS.approval_answers:
        raise refused(f"more than {LIMITS.approval_answers} answers in one request")
    decided: dict[str, Mapping[str, Any]] = {}
    for each in answers:
        identifier = _checked(each.item)
        if identifier in decided:
            raise refused(f"the approval {identifier!r} is answered twice in one request")
        decided[identifier] = each.item
    try:
        return [await _read(offer, caller, each) for each in answers]
    except StoreError:
        raise out_of_reach() from None


def _checked(item: Mapping[str, Any]) -> str:
    """Returns the id of an answer's approval."""
    identifier, reason = item.get("approval_request_id"), item.get("reason")
    if not isinstance(identifier, str) or not isinstance(item.get("approve"), bool):
        text = "mcp_approval_response: it needs an `approval_request_id` and `approve`, true or false"
        raise Error("invalid_request", text, reason="validation")
    if reason is not None and not isinstance(reason, str):
        raise Error("invalid_request", "mcp_approval_response: `reason` must be a text", reason="validation")
    if reason is not None and len(reason) > DECISIONS.decision_reason:
        text = f"mcp_approval_response: `reason` has more than {DECISIONS.decision_reason} characters"
        raise Error("invalid_request", text, reason="validation")
    return identifier


async def _read(offer: RunOffer, caller: str, answer: ApprovalAnswer) -> AnsweredCall:
    identifier = answer.item["approval_request_id"]
    found = await offer.records.left(identifier) if len(identifier) <= LIMITS.approval_id else None
    if found is None or found[0].caller != caller:
        raise refused("no response of yours has asked for this approval, or not for so long that it is forgotten")
    if answer.request is None:
        raise refused("the `mcp_approval_request` is missing: send it in `input`, or name its response")
    asked, _ = found
    shown = answer.request.get("arguments")
    call = read_left(asked, shown) if isinstance(shown, str) else None
    if call is None or not _is_same(answer.request, call):
        raise refused("the `mcp_approval_request` is not the one that was sent: it names another call")
    name = offer.name_of(call.address)
    if name is None:
        raise refused("the tool of this call is not among those that the request names or may use")
    decision, reason = _APPROVE if answer.item["approve"] else _DENY, answer.item.get("reason") or ""
    if asked.expires <= now_ms():
        return AnsweredCall(asked.id, name, call, _DENY, "", EXPIRED)
    return AnsweredCall(asked.id, name, call, decision, caller, reason)  # type: ignore[arg-type]  # of two constants


def _is_same(item: Mapping[str, Any], call: LeftCall) -> bool:
    label, tool = item.get("server_label"), item.get("name")
    server, name = server_and_name(call.address)
    own = server or OWN_LABEL
    return label == own and tool == tool_of(own, model_name(server, name))


def with_reasons(answered: Sequence[AnsweredCall], answers: Sequence[ApprovalAnswer]) -> list[AnsweredCall]:
    """Returns answered calls with the reasons that guards have let through.

    Args:
        answered: The calls.
        answers: The answers of the request that is sent.
    """
    reasons = {each.item.get("approval_request_id"): each.item.get("reason") or "" for each in answers}
    return [
        replace(each, reason=str(reasons.get(each.approval_id, ""))) if each.by or not each.reason else each
        for each in answered
    ]


class Decisions:
    """The decisions of one request: rule 3.

    Args:
        offer: What it offers, with the calls that it decides.
    """

    def __init__(self, offer: RunOffer) -> None:
        self._offer = offer
        self._taken: list[str] = []
        self._task: asyncio.Task[Error | None] | None = None

    async def take(self) -> None:
        """Decides about the calls.

        Raises:
            Error: `invalid_request` 409, reason `approval`: one is decided already; or the store is out of reach.
        """
        self._task = asyncio.get_running_loop().create_task(self._take())
        problem = await asyncio.shield(self._task)  # a decision that has begun must be known: it may be given back
        if problem is not None:
            raise problem

    async def _take(self) -> Error | None:
        for each in sorted(self._offer.answered, key=_id_of):  # requests at a time take them in one order
            decision = ApprovalDecision(each.decision, each.by, each.reason)
            try:
                standing = await self._offer.records.decide(each.approval_id, decision, is_left=True)
            except StoreError:
                return out_of_reach()
            if standing is not decision:
                text = f"mcp_approval_response: the approval {each.approval_id!r} is decided already"
                return Error("invalid_request", text, reason="approval", status=409)
            self._taken.append(each.approval_id)
        return None

    def give_back(self) -> None:
        """Gives the decisions back: the request has begun nothing."""
        self._offer.start(self._give_back())

    async def _give_back(self) -> None:
        if self._task is not None:
            await asyncio.wait([self._task])
        for approval_id in self._taken:
            try:
                await self._offer.records.give_back(approval_id)
            except StoreError as problem:
                _log.warning("the approval %s stays decided: %s", approval_id, problem)


def _id_of(call: AnsweredCall) -> str:
    return call.approval_id


def refused(text: str) -> Error:
    """Returns the error for an answer that cannot be used: rule 1.

    Args:
        text: Why.
    """
    return Error("invalid_request", f"mcp_approval_response: {text}", reason="approval")
