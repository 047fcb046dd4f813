"""Calls that the gateway has made, or asks for, as items of the Responses dialect: `mcp_call`, `mcp_approval_request`.

Owns the names in these items, and how an item becomes a call and its output for a provider. Knows no configuration: an
item is the gateway's by its id, or by a label that the request itself says to be the gateway's.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple

from gai_fast.core.requests.stored_ids import is_own_item
from gai_fast.model.tool_rules import BETWEEN, OWN_LABEL

KIND: Final = "mcp_call"
REQUEST: Final = "mcp_approval_request"
RESPONSE: Final = "mcp_approval_response"
_APPROVAL: Final = re.compile(r"[A-Za-z0-9_-]{22,100}-[1-9][0-9]{0,5}")
"""The id of an approval that this gateway has asked for: that of the stream, and a number."""
PREFIX: Final = "mcp"
"""How the ids of these items begin; those of tools that a provider has run begin otherwise."""


def tool_of(label: str, name: str) -> str:
    """Returns the name of a gateway's tool at its server.

    Args:
        label: The server's label.
        name: The name that the model has called.
    """
    return name if label == OWN_LABEL else name.removeprefix(f"{label}{BETWEEN}")


def name_of(label: str, tool: str) -> str:
    """Returns the name by which a model calls a gateway's tool: the reverse of `tool_of`."""
    return tool if label == OWN_LABEL else f"{label}{BETWEEN}{tool}"


def labels_of(tools: object) -> frozenset[str]:
    """Returns the labels that a request says to be the gateway's: those of `mcp` tools without an address.

    Args:
        tools: Its `tools`.
    """
    if not isinstance(tools, list):
        return _NO_LABELS
    found = [tool for tool in tools if isinstance(tool, dict) and tool.get("type") == "mcp"]
    own = [tool for tool in found if not tool.get("server_url") and not tool.get("connector_id")]
    return frozenset(str(tool.get("server_label")) for tool in own)


_NO_LABELS: Final[frozenset[str]] = frozenset()


def is_gateways(item: Mapping[str, Any], labels: Collection[str] = _NO_LABELS) -> bool:
    """Returns whether an item is a call that this gateway has made.

    Args:
        item: The item.
        labels: As `labels_of`.
    """
    if item.get("type") != KIND:
        return False
    identifier = item.get("id")
    is_own = isinstance(identifier, str) and identifier.startswith(f"{PREFIX}_") and is_own_item(identifier)
    return is_own or item.get("server_label") in labels


def is_own_approval(item: Mapping[str, Any]) -> bool:
    """Returns whether an item asks for an approval of this gateway's, or answers one, by the form of its id.

    Args:
        item: The item.
    """
    kind = item.get("type")
    identifier = item.get("id") if kind == REQUEST else item.get("approval_request_id") if kind == RESPONSE else None
    return isinstance(identifier, str) and is_approval_id(identifier)


def is_approval_id(text: str) -> bool:
    """Returns whether a text has the form of an id of an approval that this gateway has asked for.

    Args:
        text: The text.
    """
    return _APPROVAL.fullmatch(text) is not None


class GivenDecision(NamedTuple):
    """A decision about a call of a run that waits, as its client's next request has it.

    Attributes:
        approval_id: The id of the approval.
        is_approved: Whether the call is to be made.
        reason: Why; may be empty.
        call_id: The id of the call, as the client has it.
        name: The name of its tool, likewise.
        input: Its arguments, likewise.
    """

    approval_id: str
    is_approved: bool
    reason: str
    call_id: str
    name: str
    input: Any


class ApprovalAnswer(NamedTuple):
    """An answer to a request for an approval.

    Attributes:
        item: The `mcp_approval_response`.
        request: The `mcp_approval_request` of its id. None if there is none.
    """

    item: Mapping[str, Any]
    request: Mapping[str, Any] | None


def new_answers(items: Sequence[Any]) -> list[ApprovalAnswer]:
    """Returns the answers of a conversation that no response has acted on: its `mcp_call` names the request.

    Args:
        items: The items.
    """
    answers: list[Mapping[str, Any]] = []
    requests: dict[str, Mapping[str, Any]] = {}
    acted_on: set[str] = set()
    for item in items:
        kind = item.get("type") if isinstance(item, dict) else None
        if kind == RESPONSE:
            answers.append(item)
        elif kind == REQUEST and isinstance(item.get("id"), str):
            requests[item["id"]] = item
        elif kind == KIND and isinstance(item.get("approval_request_id"), str):
            acted_on.add(item["approval_request_id"])
    found: list[ApprovalAnswer] = []
    for item in answers:
        identifier = item.get("approval_request_id")
        if not isinstance(identifier, str):
            found.append(ApprovalAnswer(item, None))
        elif identifier not in acted_on:
            found.append(ApprovalAnswer(item, requests.get(identifier)))
    return found


class MadeCall(NamedTuple):
    """A call that the gateway has made.

    Attributes:
        call_id: Its id.
        name: The name by which the model has called it.
        arguments: The text of its arguments.
        output: The text of its result. None if it has none.
        is_error: Whether the result is an error.
    """

    call_id: str
    name: str
    arguments: str
    output: str | None
    is_error: bool


def made_call(item: Mapping[str, Any]) -> MadeCall | None:
    """Returns the call of an item; None if a member is missing or has another type.

    Args:
        item: The item.
    """
    label, tool, arguments = item.get("server_label"), item.get("name"), item.get("arguments", "")
    call_id, output, error = item.get("id"), item.get("output"), item.get("error")
    if not (isinstance(label, str) and isinstance(tool, str) and isinstance(arguments, str)):
        return None
    if not isinstance(call_id, str) or not call_id:
        return None
    is_error = error is not None
    text = _text_of(error) if is_error else output
    if text is not None and not isinstance(text, str):
        return None
    return MadeCall(call_id, name_of(label, tool), arguments, text, is_error)


def _text_of(error: Any) -> str:
    """Returns the text of an item's `error`, which has one of several forms."""
    if isinstance(error, str):
        return error
    content = error.get("content", error.get("message")) if isinstance(error, dict) else None
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, dict)]
        content = "\n".join(text for text in texts if isinstance(text, str))
    return content if isinstance(content, str) and content else "the call has failed"


def as_function_call(item: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns a call of the gateway as items that every provider of the dialect understands; none if it has no result.

    Args:
        item: The item.
    """
    call = made_call(item)
    if call is None or call.output is None:
        return []
    made = {"type": "function_call", "call_id": call.call_id, "name": call.name, "arguments": call.arguments or "{}"}
    return [made, {"type": "function_call_output", "call_id": call.call_id, "output": call.output}]
