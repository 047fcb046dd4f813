"""Reads requests of OpenAI's Responses API as native requests.

Owns the mapping of members to fields of a native request, and which members are ignored or cannot be expressed.
`items.py` reads `input`. Knows no provider and no route.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from gai_fast.core.requests.dialects import RESPONSES, known_members
from gai_fast.core.requests.gateway_calls import labels_of
from gai_fast.formats._members import (
    DialectReader,
    invalid,
    member,
    require_type,
    required,
    unknown_members,
    unserved_members,
)
from gai_fast.formats._openai import EFFORTS, declared_function, openai_cache
from gai_fast.formats.responses.items import InputReader
from gai_fast.formats.responses.parts import flat_name
from gai_fast.model.errors import Unsupported
from gai_fast.model.request import Request

# Members that a native request has too; the native request checks them.
_SAME: Final = tuple(RESPONSES.same.split())

# Values that ask for the default.
_NEUTRAL: Final[Mapping[str, tuple[Any, ...]]] = {
    "truncation": ("disabled",),
}

_LIVE: Final[tuple[str, ...]] = ("external_web_access",)
# Values of `include` without an effect: signatures are always sent, and no built-in tool runs.
_INCLUDED: Final = frozenset(
    "code_interpreter_call.outputs computer_call_output.output.image_url file_search_call.results "
    "message.input_image.image_url reasoning.encrypted_content web_search_call.action.sources "
    "web_search_call.results".split()
)

_LOGPROBS: Final = "message.output_text.logprobs"
"""The value of `include` that asks for the probabilities of the answer's tokens."""

# Members that add input stored at their upstream.
_STORED: Final[tuple[str, ...]] = ("conversation", "previous_response_id", "prompt")

KNOWN: Final = known_members(RESPONSES)
"""The members of a request that are read, are refused, or have no effect."""


def _check_stored(body: dict[str, Any]) -> None:
    """Refuses a conversation or a prompt stored by another upstream.

    `on_unsupported` does not apply: without the member the model would get only the last turn, or no instructions.

    Args:
        body: The client's JSON object.

    Raises:
        Unsupported: The text names the member.
    """
    for name in _STORED:
        if body.get(name) is not None:
            text = f"the upstream does not support `{name}`, which needs OpenAI's Responses API"
            instead = "the instructions" if name == "prompt" else "the whole conversation in `input`"
            raise Unsupported(message=f"{text}; send {instead}", reason="conversation")


def read_response_request(body: dict[str, Any]) -> tuple[Request, list[str]]:
    """Translates a request into a native one; see `Format.parse_request`."""
    _check_stored(body)
    return _ResponseReader().request(body)


class _ResponseReader(DialectReader):
    """Reads one request of the dialect."""

    def __init__(self) -> None:
        super().__init__(
            {
                "$.max_tokens": "$.max_output_tokens",
                "$.response_format": "$.text.format",
                "$.verbosity": "$.text.verbosity",
            }
        )
        self._flat: list[tuple[str, str]] = []
        """The names and paths of tools in namespaces."""
        self._additional: list[tuple[str, dict[str, Any]]] = []
        """The items of `input` that declare tools, with their paths."""
        self._places: dict[tuple[str, str], int] = {}
        """The place of each tool among the native ones, by its namespace and name."""

    def read(self, body: dict[str, Any]) -> dict[str, Any]:
        """Returns the native request's JSON object."""
        native: dict[str, Any] = {key: body[key] for key in _SAME if body.get(key) is not None}
        native["stream"] = member(body, "stream", "$", bool) or False
        instructions = member(body, "instructions", "$", str)
        if instructions is not None:
            native["system"] = instructions
        native["messages"] = self._messages(body)
        limit = member(body, "max_output_tokens", "$", int)
        if limit is not None:
            native["max_tokens"] = limit
        self._reasoning(body, native)
        self._text(body, native)
        native |= openai_cache(body)
        native["tools"] = self._tools(body)
        choice = self._tool_choice(body)
        if choice is not None:
            native["tool_choice"] = choice
        for at, name in enumerate(member(body, "include", "$", list) or ()):
            require_type(name, f"$.include[{at}]", str)
            if name == _LOGPROBS:
                native["logprobs"] = True
                self.moved["$.logprobs"] = f"$.include[{at}]"
            elif name not in _INCLUDED:
                self.lost.append(f"include[{at}]")
        options = member(body, "stream_options", "$", dict)
        if options is not None:
            member(options, "include_obfuscation", "$.stream_options", bool)
        for name in ("store", "background"):  # the gateway's own
            member(body, name, "$", bool)
        self.lost += unserved_members(body, KNOWN, _NEUTRAL)
        return native

    def _messages(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        given = member(body, "input", "$", str, list)
        if isinstance(given, str):
            return [{"role": "user", "content": given}]
        if not given:
            raise invalid("`input` must hold a text or at least one item", "$.input")
        reader = InputReader(self.lost, labels_of(body.get("tools")))
        reader.read(given, "$.input")
        self._additional = reader.additional_tools
        # A native request needs a message. There is none if all items were dropped.
        return reader.messages or [{"role": "user", "content": []}]

    def _reasoning(self, body: dict[str, Any], native: dict[str, Any]) -> None:
        reasoning = member(body, "reasoning", "$", dict)
        if reasoning is None:
            return
        path = "$.reasoning"
        self.lost += unknown_members(reasoning, path, ("effort", "summary", "generate_summary"))
        effort = member(reasoning, "effort", path, str)
        asked: dict[str, Any] = {}
        if effort in EFFORTS:
            asked["effort"] = effort
        elif effort is not None:
            self.lost.append("reasoning.effort")
        for key in ("generate_summary", "summary"):  # the first is the older name
            summary = member(reasoning, key, path, str)
            if summary is not None:
                asked["summary"] = summary
                self.moved["$.reasoning.summary"] = f"{path}.{key}"
        if asked:
            native["reasoning"] = asked

    def _text(self, body: dict[str, Any], native: dict[str, Any]) -> None:
        text = member(body, "text", "$", dict)
        if text is None:
            return
        self.lost += unknown_members(text, "$.text", ("format", "verbosity"))
        if text.get("verbosity") is not None:
            native["verbosity"] = text["verbosity"]
        asked = member(text, "format", "$.text", dict)
        if asked is None:
            return
        path = "$.text.format"
        kind = required(asked, "type", path, str)
        if kind != "json_schema":
            self.lost += unknown_members(asked, path, ("type",))
            native["response_format"] = {"type": "json" if kind == "json_object" else kind}
            return
        self.lost += unknown_members(asked, path, ("type", "name", "description", "schema", "strict"))
        schema = required(asked, "schema", path, dict)
        description = member(asked, "description", path, str)
        form = {
            "type": kind,
            "name": member(asked, "name", path, str),
            "schema": schema if description is None else {"description": description, **schema},
            "strict": member(asked, "strict", path, bool),
        }
        native["response_format"] = {key: value for key, value in form.items() if value is not None}

    def _tools(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        """Returns the tools of a request: its own, and those that items of `input` add, of which the latest count."""
        tools: list[dict[str, Any]] = []
        self._declared(member(body, "tools", "$", list) or [], "$.tools", tools)
        for path, item in self._additional:
            self.lost += unknown_members(item, path, ("type", "id", "role", "tools"))
            member(item, "role", path, str)
            self._declared(required(item, "tools", path, list), f"{path}.tools", tools, may_replace=True)
        self._check_flat_names(tools)
        return tools

    def _declared(self, given: list[Any], path: str, tools: list[dict[str, Any]], *, may_replace: bool = False) -> None:
        """Adds declared tools.

        Args:
            given: The tools.
            path: The path of the list.
            tools: Gets the native tools.
            may_replace: A tool replaces one of its name, which was declared before.
        """
        for at, tool in enumerate(given):
            here = f"{path}[{at}]"
            require_type(tool, here, dict)
            kind = required(tool, "type", here, str)
            if kind == "namespace":
                self._namespace(tool, here, tools, may_replace=may_replace)
                continue
            native = self._function(tool, here) if kind == "function" else self._other_tool(tool, kind, here)
            if native is None:
                self.lost.append(here[2:])
                continue
            place = self._add(native, "", tools, may_replace=may_replace)
            if kind != "function":
                options = f"$.tools[{place}].options"
                self.moved[f"{options}.allowed_domains"] = f"{here}.filters.allowed_domains"
                self.moved[f"{options}.context_size"] = f"{here}.search_context_size"
                self.moved[options] = here
            self.moved[f"$.tools[{place}]"] = here

    def _add(self, native: dict[str, Any], namespace: str, tools: list[dict[str, Any]], *, may_replace: bool) -> int:
        """Adds a native tool and returns its place; the arguments are those of `_declared`."""
        key = namespace, str(native.get("name") or native.get("type"))
        place = self._places.get(key, len(tools)) if may_replace else len(tools)
        self._places[key] = place
        tools[place : place + 1] = [native]
        return place

    def _function(self, tool: dict[str, Any], path: str) -> dict[str, Any]:
        self.lost += unknown_members(tool, path, ("type", "name", "description", "parameters", "strict"))
        return declared_function(tool, path)

    def _namespace(self, group: dict[str, Any], path: str, tools: list[dict[str, Any]], *, may_replace: bool) -> None:
        """Adds the tools of a namespace. Its description is put in front of the first tool's.

        Args:
            group: The namespace.
            path: Its path.
            tools: As for `_declared`.
            may_replace: As for `_declared`.
        """
        self.lost += unknown_members(group, path, ("type", "name", "description", "tools"))
        namespace = required(group, "name", path, str)
        described = member(group, "description", path, str)
        for at, tool in enumerate(required(group, "tools", path, list)):
            here = f"{path}.tools[{at}]"
            require_type(tool, here, dict)
            kind = required(tool, "type", here, str)
            if kind not in ("function", "custom"):
                self.lost.append(here[2:])
                continue
            native = self._function(tool, here) if kind == "function" else self._other_tool(tool, kind, here) or {}
            native["name"] = flat_name(namespace, required(tool, "name", here, str))
            own = member(tool, "description", here, str)
            if described:
                native["description"] = f"{described}\n\n{own}" if own else described
                described = None
            self._flat.append((native["name"], f"{here}.name"))
            place = self._add(native, namespace, tools, may_replace=may_replace)
            self.moved[f"$.tools[{place}]"] = here

    def _check_flat_names(self, tools: list[dict[str, Any]]) -> None:
        """Refuses a tool of a namespace if another tool has the same `flat_name`: calls would be of either."""
        times = Counter(str(tool.get("name")) for tool in tools)
        for name, path in self._flat:
            if times[name] > 1:
                raise invalid("Another tool has this name where namespaces are unknown", path)

    def _other_tool(self, tool: dict[str, Any], kind: str, path: str) -> dict[str, Any] | None:
        """Returns the native tool for a custom tool or a tool that the provider runs. None if there is none."""
        if kind == "custom":
            known = ("type", "name", "description", "format")
            self.lost += unknown_members(tool, path, known)
            return {key: tool[key] for key in known if tool.get(key) is not None}
        if kind.startswith("web_search"):
            live = [name for name in _LIVE if tool.get(name) is True]  # the default
            self.lost += unknown_members(tool, path, ("type", "filters", "search_context_size", "user_location", *live))
            filters = member(tool, "filters", path, dict) or {}
            self.lost += unknown_members(filters, f"{path}.filters", ("allowed_domains",))
            options = {
                "allowed_domains": filters.get("allowed_domains"),
                "context_size": None
                if tool.get("search_context_size") == "medium"
                else tool.get("search_context_size"),
                "user_location": member(tool, "user_location", path, dict),
            }
            return {
                "type": "web_search",
                "options": {key: value for key, value in options.items() if value is not None},
            }
        if kind == "code_interpreter":
            container = tool.get("container")
            if isinstance(container, dict) and container.keys() <= {"type", "memory_limit"}:
                self.lost += unknown_members(tool, path, ("type", "container"))
                return {"type": "code_execution"}
        return None

    def _tool_choice(self, body: dict[str, Any]) -> str | dict[str, Any] | None:
        choice = member(body, "tool_choice", "$", str, dict)
        if not isinstance(choice, dict):
            return None if choice is None else str(choice)
        kind = required(choice, "type", "$.tool_choice", str)
        if kind.startswith("web_search"):
            return {"name": "web_search"}
        if kind == "code_interpreter":
            return {"name": "code_execution"}
        if kind not in ("function", "custom"):
            self.lost.append("tool_choice")
            return None
        name = required(choice, "name", "$.tool_choice", str)
        namespace = member(choice, "namespace", "$.tool_choice", str)
        return {"name": flat_name(namespace, name) if namespace else name}
