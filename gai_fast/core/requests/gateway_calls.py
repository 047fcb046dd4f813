"""Calls that the gateway has made, as items of the Responses dialect: `mcp_call`.

Owns the names in these items, and how an item becomes a call and its output for a provider. Knows no configuration: an
item is the gateway's by its id, or by a label that the request itself says to be the gateway's.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final, NamedTuple

from gai_fast.core.requests.stored_ids import is_own_item
from gai_fast.model.tool_rules import BETWEEN, OWN_LABEL

KIND: Final = "mcp_call"
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
