"""Parts of OpenAI's Responses answers, shared by streams, whole answers and passthrough.

Owns the `response` object, its status, usage and errors, and which signatures are sealed. Values that have no place in
the dialect are members of `x_gai` in the last `response` object.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from gai_fast.core.requests.signatures import seal
from gai_fast.core.requests.stored_ids import own_response_id
from gai_fast.formats._base import KeptAnswer, StreamContext
from gai_fast.formats._openai import error_object, total_tokens
from gai_fast.formats._signatures import is_encrypted
from gai_fast.model.errors import Code, Error
from gai_fast.model.events import Event

_DEFAULTS: Final[Mapping[str, Any]] = {
    "background": False,
    "frequency_penalty": 0,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "presence_penalty": 0,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "service_tier": "default",
    "store": False,
    "temperature": 1,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1,
    "truncation": "disabled",
    "user": None,
}
"""Members of a `response` that repeat the request, and their values if the request lacks them."""
ECHOED: Final = frozenset(_DEFAULTS)

# The codes of the SDK's `ResponseError`.
_KNOWN_CODES: Final = frozenset(
    "server_error rate_limit_exceeded invalid_prompt data_residency_mismatch bio_policy misalignment_policy_violation "
    "vector_store_timeout invalid_image invalid_image_format invalid_base64_image invalid_image_url image_too_large "
    "image_too_small image_parse_error image_content_policy_violation invalid_image_mode image_file_too_large "
    "unsupported_image_media_type empty_image_file failed_to_download_image image_file_not_found".split()
)
# Error codes of the gateway and their codes in the dialect; all others are `server_error`.
_ERROR_CODES: Final[Mapping[Code, str]] = {
    "invalid_request": "invalid_prompt",
    "rate_limited": "rate_limit_exceeded",
    "context_length_exceeded": "invalid_prompt",
    "content_filtered": "invalid_prompt",
    "unsupported": "invalid_prompt",
}
_INCOMPLETE: Final = {"length": "max_output_tokens", "content_filter": "content_filter"}
# Finish reasons without an equivalent in the dialect.
_OWN_REASONS: Final = frozenset(("pause", "other"))
DIALECT: Final = "responses"
"""The dialect's name."""
ADDITIONAL_TOOLS: Final = "additional_tools"
"""The type of an item of `input` that declares tools."""


class ResponseObject:
    """Builds the `response` object of one answer in each of its states.

    Args:
        context: The stream.

    Attributes:
        identifier: The response's id.
        created_at: Seconds since the epoch.
        model: The model that answers; until it is known, the requested model.
    """

    def __init__(self, context: StreamContext) -> None:
        self.identifier = own_response_id(context.stream_id)
        self.created_at = context.clock() // 1000
        self.model = context.model
        # All followers must get the same bytes, and the log of a stream has no time of its end.
        self._clock = None if context.follows else context.clock
        self._request = context.echo
        self._kept = context.kept
        self._echo: dict[str, Any] = {}

    def at(
        self,
        status: str,
        output: Sequence[Mapping[str, Any]] = (),
        *,
        usage: Mapping[str, Any] | None = None,
        error: Mapping[str, Any] | None = None,
        incomplete: str | None = None,
        x_gai: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Returns the object.

        Args:
            status: `queued`, `in_progress`, `completed`, `incomplete`, `failed` or `cancelled`.
            output: The items.
            usage: Token counts, in the form of events.
            error: The dialect's object for a failure.
            incomplete: The reason for `incomplete_details`.
            x_gai: The members of `x_gai`.
        """
        # Late: not every answer needs it (2,500 instructions).
        self._echo = self._echo or _echo_of(self._request, self._kept)
        response = {
            "id": self.identifier,
            "object": "response",
            "created_at": self.created_at,
            "status": status,
            "completed_at": self._clock() // 1000 if self._clock and status == "completed" else None,
            "error": error,
            "incomplete_details": {"reason": incomplete} if incomplete else None,
            "model": self.model,
            "output": list(output),
            **self._echo,
            "usage": None,
        }
        beside = dict(x_gai or {})
        if usage:
            response["usage"], more = usage_of(usage)
            beside |= more
        if beside:
            response["x_gai"] = beside
        return response


def _echo_of(request: Mapping[str, Any], kept: KeptAnswer | None) -> dict[str, Any]:
    """Returns the members of a `response` that repeat the request, and what it says of its being kept."""
    echo = {**_DEFAULTS, **{key: value for key, value in request.items() if value is not None}}
    if kept is not None:
        echo["store"], echo["previous_response_id"] = kept.is_kept, kept.parent
    else:
        echo["store"] = False  # not here, whatever the request says
    tools = echo["tools"]
    echo["tools"] = [_declared(tool) for tool in tools] if isinstance(tools, list) else []
    return echo


def echo_of(body: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the members of a request that its response repeats; `tools` has those that items of `input` add.

    No credential for a server of tools is repeated: what is repeated stands in logs, and in what is kept.

    Args:
        body: The client's JSON object, whose members may have any type.
    """
    echo = {key: value for key, value in body.items() if key in ECHOED}
    items = [item for item in _objects(body.get("input")) if item.get("type") == ADDITIONAL_TOOLS]
    if items:
        echo["tools"] = [
            *_objects(echo.get("tools")),
            *(tool for item in items for tool in _objects(item.get("tools"))),
        ]
    tools = echo.get("tools")
    if isinstance(tools, list):
        echo["tools"] = [_public(tool) for tool in tools]
    return echo


def _public(tool: Any) -> Any:
    """Returns a tool without its credentials."""
    if not isinstance(tool, dict) or tool.get("type") != "mcp":
        return tool
    public = {name: value for name, value in tool.items() if name not in _CREDENTIALS}
    url = tool.get("server_url")
    if isinstance(url, str):
        scheme, between, rest = url.partition("?")[0].partition("://")
        host, slash, path = rest.partition("/")
        public["server_url"] = f"{scheme}{between}{host.rpartition('@')[2]}{slash}{path}"
    return public


def _declared(tool: Any) -> Any:
    """Returns a tool for a `response`: adds the members that types of clients need and a request may omit."""
    if isinstance(tool, dict) and tool.get("type") == "function":
        return {"description": None, "parameters": None, "strict": None, **tool}
    return tool


def custom_tools(echo: Mapping[str, Any]) -> frozenset[str]:
    """Returns the names of a request's tools with plain text as input."""
    if "tools" not in echo:  # a search without result takes 2,700 instructions
        return _NO_TOOLS
    plain = [(_NO_NAMESPACE, tool) for tool in _objects(echo.get("tools"))]
    found = [(group, tool) for group, tool in (*plain, *_grouped(echo)) if tool.get("type") == "custom"]
    return frozenset(flat_name(group, str(tool.get("name"))) for group, tool in found)


def namespaced(echo: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Returns the namespace and the name of each tool in a namespace, by the names that calls may have.

    Besides the `flat_name` it is the bare name if no other tool has it: events of an upstream that speaks the dialect
    have no namespace.
    """
    if "tools" not in echo:
        return {}
    # Items of `input` may declare a tool again.
    grouped = list(dict.fromkeys((group, str(tool.get("name"))) for group, tool in _grouped(echo)))
    if not grouped:
        return {}
    times = Counter(name for _, name in grouped)
    times.update(str(tool.get("name")) for tool in _objects(echo.get("tools")))
    found = {name: (group, name) for group, name in grouped if times[name] == 1}
    return found | {flat_name(group, name): (group, name) for group, name in grouped}


def flat_name(namespace: str, name: str) -> str:
    """Returns the name of a tool in a namespace, for providers without namespaces.

    Args:
        namespace: The namespace.
        name: The tool's name in it.
    """
    if namespace == _NO_NAMESPACE:
        return name
    return f"{namespace.removesuffix(_BETWEEN)}{_BETWEEN}{name}"


def _grouped(echo: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Returns the tools in namespaces, each with its namespace."""
    groups = [tool for tool in _objects(echo.get("tools")) if tool.get("type") == "namespace"]
    return [(str(group.get("name")), tool) for group in groups for tool in _objects(group.get("tools"))]


def ids_of(items: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the ids of items."""
    return [item["id"] for item in items if isinstance(item.get("id"), str)]


def _objects(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


_CREDENTIALS: Final = frozenset(("authorization", "headers"))
"""The members of tools of servers that only these servers read."""
_NO_TOOLS: Final[frozenset[str]] = frozenset()
_BETWEEN: Final = "__"
"""Stands between namespace and name; Codex's namespaces of MCP servers end with it."""
_NO_NAMESPACE: Final = "functions"
"""Codex's namespace for tools without a namespace."""


class PartOutcome(NamedTuple):
    """The end of an answer, in the dialect's terms.

    Args:
        event: The type of the terminal event.
        status: The status of the response.
        incomplete: The reason for `incomplete_details`.
        x_gai: The members of `x_gai`.
    """

    event: str
    status: str
    incomplete: str | None
    x_gai: dict[str, Any]


def outcome_of(finish: Event) -> PartOutcome:
    """Returns the outcome of a `finish`.

    A cancelled answer ends with `response.incomplete`, whose response has the status `cancelled`: the SDK has no event
    for a cancellation.
    """
    reason = finish.get("finish_reason", "stop")
    x_gai: dict[str, Any] = {"finish_reason": reason} if reason in _OWN_REASONS else {}
    if "continued" in finish:
        x_gai["continued"] = finish["continued"]
    if "reason" in finish:
        x_gai["reason"] = finish["reason"]
    if "steps" in finish:
        x_gai["steps"] = finish["steps"]
    if reason == "cancelled":
        return PartOutcome("response.incomplete", "cancelled", None, x_gai)
    if reason in _INCOMPLETE:
        return PartOutcome("response.incomplete", "incomplete", _INCOMPLETE[reason], x_gai)
    return PartOutcome("response.completed", "completed", None, x_gai)


def usage_of(usage: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns usage under the dialect's names, and members for `x_gai`."""
    counts = {
        "input_tokens": usage.get("input_tokens", 0),
        "input_tokens_details": {
            "cached_tokens": usage.get("cached_input_tokens", 0),
            "cache_write_tokens": usage.get("cache_write_input_tokens", 0),
        },
        "output_tokens": usage.get("output_tokens", 0),
        "output_tokens_details": {"reasoning_tokens": usage.get("reasoning_tokens", 0)},
        "total_tokens": total_tokens(usage),
    }
    return counts, {"usage_source": usage["source"]} if "source" in usage else {}


def error_members(error: Error) -> dict[str, Any]:
    """Returns the members of an `error` event; values of other types than text become text."""
    own = error_object(error)
    return {key: None if own[key] is None else str(own[key]) for key in ("code", "message", "param")}


def failure_of(error: Error) -> dict[str, Any]:
    """Returns the `error` of a failed response, with the upstream's own code if the dialect has it."""
    own = error_object(error)
    named = own["code"] if isinstance(own["code"], str) else ""
    code = named if named in _KNOWN_CODES else _ERROR_CODES.get(error.code, "server_error")
    return {"code": code, "message": str(own["message"])}


def sealed(event: Event, provider: str | None) -> str:
    """Returns the `encrypted_content` for a signature; a Responses upstream's own signature is not sealed."""
    if is_encrypted(provider) and "call_id" not in event and "redacted" not in event:
        return event["signature"]
    return seal(event["signature"], provider, event.get("call_id"), event.get("redacted"))
