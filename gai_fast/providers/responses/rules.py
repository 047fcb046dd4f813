"""The rules for requests in the Responses dialect: reasoning, and the ids of items and calls.

Knows the dialect, and no provider.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, Final

from mypy_extensions import mypyc_attr

from gai_fast.core.requests.gateway_calls import KIND, as_function_call, is_gateways, is_own_approval
from gai_fast.core.requests.shapes import RequestShape, begins_as_its_kind
from gai_fast.core.requests.signatures import is_ours, open_signature
from gai_fast.core.requests.stored_ids import is_own_item
from gai_fast.model.changes import Changes
from gai_fast.providers.requests.empty_messages import NoEmptyMessages
from gai_fast.providers.requests.rules import CallIds, MemberRule, Mend, RequestRules
from gai_fast.runtime.breathing import breathe


@mypyc_attr(allow_interpreted_subclasses=True)
class ResponsesRules(RequestRules):
    """The rules of a provider for Responses requests.

    Sealed reasoning of another provider is left out, the provider's own is unsealed. An item's id that does not begin
    as those of its kind do is left out: another provider gave it.

    Args:
        provider: As for `RequestRules`, as the next four.
        source: …
        members: …
        call_ids: …
        mends: …
        foreign: How reasoning begins that another provider has encrypted; empty if it may be the provider's own.
        looks_up: The provider looks reasoning that is not encrypted up by its id; with an id that this gateway has made
            it is left out.
        thinks: The model takes reasoning. Otherwise it is left out, and the items after it lose the ids by which the
            provider asks for it.
    """

    def __init__(
        self,
        provider: str,
        source: str,
        *,
        members: Mapping[str, MemberRule] | None = None,
        call_ids: CallIds | None = None,
        mends: Sequence[Mend] = (),
        foreign: str = "",
        looks_up: bool = False,
        thinks: bool = True,
    ) -> None:
        super().__init__(provider, source, members=members, call_ids=call_ids, mends=mends)
        self._foreign = foreign
        self._looks_up = looks_up
        self._thinks = thinks

    def is_plain(self, shape: RequestShape) -> bool:
        if not self._thinks:
            return False
        if shape.signed or shape.has_odd_items or (shape.is_encrypted and self._foreign):
            return False
        return self.ids_fit(shape)

    def fit_messages(self, body: dict[str, Any], shape: RequestShape, changes: Changes) -> None:
        given = body.get("input")
        if not isinstance(given, list):
            return
        sent: list[Any] = []
        is_left = False  # whether reasoning was, since the last message of the user
        for at, item in enumerate(given):
            breathe()
            if isinstance(item, dict) and item.get("type") == KIND and is_gateways(item):
                sent += [self._item(own, at) for own in as_function_call(item)]
                continue
            if isinstance(item, dict) and is_own_approval(item):
                continue
            fitted = self._item(item, at) if isinstance(item, dict) else item
            if not self._thinks and isinstance(fitted, dict):
                if fitted.get("type") == "reasoning":
                    is_left = True
                    continue
                is_left = is_left and fitted.get("role") != "user"
                if is_left:
                    fitted = _as_new(fitted)
            if fitted is not None:
                sent.append(fitted)
        body["input"] = sent

    def _item(self, item: dict[str, Any], at: int) -> dict[str, Any] | None:
        """Returns an item that the provider accepts, or None for reasoning of another provider."""
        content = item.get("encrypted_content")
        fitted = item
        if item.get("type") == "reasoning" and is_ours(content):
            signed = open_signature(str(content), f"$.input[{at}].encrypted_content", "")
            if signed.get("provider") != self.provider or "call_id" in signed:
                return None
            fitted = {**fitted, "encrypted_content": signed["signature"]}
        elif item.get("type") == "reasoning" and (self._is_foreign(content) or self._is_made_here(item)):
            return None
        if not begins_as_its_kind(item):
            fitted = {**fitted}
            if item.get("type") == "reasoning":  # the one kind that needs an id
                fitted["id"] = "rs_" + str(item["id"])
            else:
                del fitted["id"]
        call_id = item.get("call_id")
        # xAI's own items have an empty id, and are sent back as they came.
        is_paired = bool(call_id) or item.get("type") in _PAIRED
        if isinstance(call_id, str) and is_paired and self.call_ids is not None:
            fitted = {**fitted, "call_id": self.call_ids.fitted(call_id)}
        return fitted

    def _is_foreign(self, content: object) -> bool:
        return bool(self._foreign) and isinstance(content, str) and content.startswith(self._foreign)

    def _is_made_here(self, item: dict[str, Any]) -> bool:
        """Returns whether reasoning comes from an answer in another dialect: the provider does not know its id."""
        identifier = item.get("id")
        is_asked = self._looks_up and not item.get("encrypted_content")
        return is_asked and isinstance(identifier, str) and is_own_item(identifier)


def _as_new(item: dict[str, Any]) -> dict[str, Any]:
    """Returns an item under an id that names no stored one: a message needs an id, a call does not."""
    identifier = item.get("id")
    if not isinstance(identifier, str):
        return item
    if item.get("type") in _PAIRED:
        return {name: value for name, value in item.items() if name != "id"}
    if item.get("role") == "assistant":
        return {**item, "id": "msg_" + sha256(identifier.encode("utf-8", "surrogatepass")).hexdigest()[:32]}
    return item


_PAIRED: Final = ("function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output")
"""Items that a client's call and its result are."""


class ResponsesChoiceNeedsTools(Mend):
    """Leaves `tool_choice` and `parallel_tool_calls` out of a request without tools: the dialect refuses them there."""

    def is_needed(self, body: dict[str, Any], shape: RequestShape) -> bool:
        return not body.get("tools") and ("tool_choice" in body or "parallel_tool_calls" in body)

    def mend(self, body: dict[str, Any], changes: Changes) -> None:
        body.pop("parallel_tool_calls", None)
        if body.get("tool_choice") in (None, "auto", "none"):
            body.pop("tool_choice", None)
        elif changes.may_drop:  # else the provider refuses it
            del body["tool_choice"]
            changes.drop("tool_choice")


_OUTPUTS: Final[Mapping[str, str]] = {
    "function_call": "function_call_output",
    "custom_tool_call": "custom_tool_call_output",
}
"""The type of the output of each call."""


class ResponsesPairs(Mend):
    """Leaves out calls without outputs and outputs without calls, if members may be left out."""

    def is_needed(self, body: dict[str, Any], shape: RequestShape) -> bool:
        return bool(shape.ids) and not body.get("previous_response_id") and not body.get("conversation")

    def mend(self, body: dict[str, Any], changes: Changes) -> None:
        if not changes.may_drop:
            return
        items: list[Any] = body["input"]
        last: dict[tuple[Any, Any], int] = {}  # the place of the last output, by its type and call
        for at, item in enumerate(items):
            if _type(item) in _OUTPUTS.values():
                last[_key(item)] = at
        called: set[tuple[Any, Any]] = set()
        kept: list[Any] = []
        left: list[str] = []
        for at, item in enumerate(items):
            kind = _type(item)
            if kind in _OUTPUTS:
                key = (_OUTPUTS[kind], item.get("call_id"))
                if last.get(key, -1) < at:
                    left.append(f"input[{at}]")
                    continue
                called.add(key)
            elif kind in _OUTPUTS.values():
                key = _key(item)
                if key not in called:
                    left.append(f"input[{at}]")
                    continue
                called.discard(key)
            kept.append(item)
        if kept and left:
            body["input"] = kept
            for path in left:
                changes.drop(path)


def _type(item: Any) -> str:
    kind = item.get("type") if isinstance(item, dict) and isinstance(item.get("call_id"), str) else None
    return kind if isinstance(kind, str) else ""


def _key(item: dict[str, Any]) -> tuple[Any, Any]:
    return item.get("type"), item.get("call_id")


OF_OPENAI: Final = "gAAAA"
"""The prefix of reasoning that OpenAI has encrypted: the version and the time of a Fernet token."""


def responses_rules(provider: str, *, foreign: str = "", looks_up: bool = False, thinks: bool = True) -> ResponsesRules:
    """Returns the rules of OpenAI's Responses API, which other providers implement.

    Args:
        provider: The provider's name.
        foreign: As for `ResponsesRules`.
        looks_up: As for `ResponsesRules`.
        thinks: As for `ResponsesRules`.
    """
    return ResponsesRules(
        provider,
        "openai 3.57.0, 2026-11-25",
        members={"max_output_tokens": MemberRule(least=16)},
        call_ids=CallIds(".{1,64}"),
        mends=[ResponsesChoiceNeedsTools(), ResponsesPairs(), NoEmptyMessages("input")],
        foreign=foreign,
        looks_up=looks_up,
        thinks=thinks,
    )
