"""The messages that a run adds to its conversation, and the request of its next turn. Sans-IO.

1. A turn is an assistant message with its parts as the provider sent them: texts, reasoning with its signatures, blocks
   of the provider's own, calls. The results of its calls follow, in the calls' order.
2. A call has the id that the run gives it; arguments that are no object are left out: no provider takes them back. The
   name of a tool that nobody offers is written as providers accept names: many refuse a name that a model has made up.
3. Later turns choose tools freely, whatever the request asks of the first one. The last turn calls none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw

from gai_fast.core.run import RunCall
from gai_fast.kernels import encode_json
from gai_fast.model.events import JSONText
from gai_fast.model.request import (
    AssistantMessage,
    AssistantPart,
    Message,
    ProviderBlockPart,
    ReasoningPart,
    Request,
    SharedTools,
    TextPart,
    Tool,
    ToolCallPart,
    ToolMessage,
    UserMessage,
)
from gai_fast.net.toolbox.model_names import model_name

_EMPTY: Final = Raw(b"{}")
_NO_NAME: Final = "unnamed"


def with_tools(request: Request, tools: Sequence[Tool]) -> Request:
    """Returns the request of a run's first turn: its query is a message, and the gateway's tools stand behind its own.

    Args:
        request: The client's request.
        tools: The tools that the run offers.
    """
    messages = [*request.messages]
    if request.query is not UNSET:
        messages.append(UserMessage(content=request.query))
    known = tools if isinstance(tools, SharedTools) and not request.tools else SharedTools([*request.tools, *tools])
    return msgspec.structs.replace(request, messages=messages, query=UNSET, tools=known)


def next_request(request: Request, said: Sequence[Message], *, without_tools: bool) -> Request:
    """Returns the request of another turn: rule 3.

    Args:
        request: That of the first turn.
        said: What the run has added.
        without_tools: Whether the turn must call none.
    """
    choice = request.tool_choice
    if without_tools:
        choice = "none"
    elif choice != "none":
        choice = UNSET
    return msgspec.structs.replace(request, messages=[*request.messages, *said], tool_choice=choice)


def message_of_turn(parts: Sequence[Mapping[str, Any]], calls: Sequence[RunCall]) -> AssistantMessage:
    """Returns the message of a turn: rules 1 and 2.

    Args:
        parts: The parts, as `Collector.parts` returns them.
        calls: The calls of the turn, in order.
    """
    made = iter(calls)  # each belongs to the next part that is a call: the provider may have given one id twice
    content = [_part(part, next(made, None) if part["type"] == "tool_call" else None) for part in parts]
    return AssistantMessage(content=content)


def results_of(calls: Sequence[RunCall]) -> list[ToolMessage]:
    """Returns the results of calls that have ended, in order."""
    return [
        ToolMessage(call_id=call.call_id, content=call.result.content(), is_error=call.result.is_error)
        for call in calls
        if call.result is not None
    ]


def _part(part: Mapping[str, Any], call: RunCall | None) -> AssistantPart:
    kind = part["type"]
    if kind == "text":
        return TextPart(text=part["text"])
    if kind == "reasoning":
        return ReasoningPart(
            text=part["text"],
            signature=part.get("signature", UNSET),
            redacted=part.get("redacted", False),
            provider=part.get("provider", UNSET),
        )
    if kind == "tool_call":
        is_unknown = call is not None and call.tool is None and call.result is not None
        return ToolCallPart(
            call_id=part["call_id"] if call is None else call.call_id,
            name=model_name("", part["name"]) or _NO_NAME if is_unknown else part["name"],
            input=_object(part["input"]),
            signature=part.get("signature", UNSET),
        )
    return ProviderBlockPart(provider=part["provider"], block=_object(part["block"]))


def _object(value: Any) -> Raw:
    """Returns the JSON text of an object; that of an empty one for anything else."""
    text = value.text.encode() if isinstance(value, JSONText) else encode_json(value)
    return Raw(text) if text.startswith(b"{") else _EMPTY
