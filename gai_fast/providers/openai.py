"""OpenAI Chat Completions, Responses as `openai:responses`, and the legacy Completions API as `openai:completions`.

Source: openai-python 3.51 and OpenAI's API reference. Besides the chat dialect:

* Padding (`obfuscation`) is on by default and costs bandwidth: requests turn it off.
* `max_tokens` is deprecated in favour of `max_completion_tokens`, and newer models refuse it.
* If the request has `moderation`, a chunk without choices holds the flagged categories.
* Of more than 128 tools: "Invalid 'tools': array too long. Expected an array with maximum length 128".
* The chat API returns no reasoning text, so none is sent back.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from gai_fast.core.json.chunks import member, number, objects
from gai_fast.model.events import Event
from gai_fast.model.request import CacheMark, FilePart, Request, Tool, ToolCallPart
from gai_fast.providers.chat.answers import ChatAdapter
from gai_fast.providers.chat.api import ChatAPI
from gai_fast.providers.chat.completions import CompletionsAPI
from gai_fast.providers.chat.mends import ChatChoiceNeedsTools, ChatPairs
from gai_fast.providers.chat.rules import OF_OPEN_MODELS, ChatRules
from gai_fast.providers.requests.api import API
from gai_fast.providers.requests.clouds import OPENAI_IN_CLOUDS
from gai_fast.providers.requests.empty_messages import NoEmptyMessages
from gai_fast.providers.requests.own_tools import OwnTool, declared
from gai_fast.providers.requests.parts import openai_cache, openai_cache_member
from gai_fast.providers.requests.routes import OPENAI_ROUTES
from gai_fast.providers.requests.rules import LACKS, CallIds, MemberRule, RequestRules
from gai_fast.providers.requests.target import Target
from gai_fast.providers.responses.answers import ResponsesAdapter
from gai_fast.providers.responses.api import ResponsesAPI
from gai_fast.providers.responses.rules import responses_rules

_KEYED: Final = ("/agents/environments", "/agents/sessions/*/events")
"""The resources of the SDK that have the parameter `idempotency_key`."""
_SEARCH: Final = OwnTool({}, {"context_size": "search_context_size", "user_location": "user_location"})


class OpenAI(ChatAPI):
    """`https://api.openai.com/v1/chat/completions`."""

    provider = "openai"
    routes = OPENAI_ROUTES
    base_url = "https://api.openai.com/v1"
    key_variable = "OPENAI_API_KEY"
    stream_options: ClassVar = {"include_usage": True, "include_obfuscation": False}
    most_tools = 128
    keyed_paths = _KEYED
    rules: ClassVar = ChatRules(
        "openai",
        "openai 3.57.0, 2026-11-25",
        members={
            "max_tokens": MemberRule("max_completion_tokens"),
            "stop": MemberRule(most_items=4),
            **dict.fromkeys(OF_OPEN_MODELS, LACKS),
        },
        call_ids=CallIds(".{1,64}"),
        mends=[ChatChoiceNeedsTools("openai"), ChatPairs("openai"), NoEmptyMessages()],
    )
    clouds = OPENAI_IN_CLOUDS
    has_custom_tools = True
    unions = "loose"
    strict_is_closed = True
    summaries = frozenset({"auto", "none"})  # this API shows none
    caches_by_key = True
    marks_cache = True

    def own_tool(self, kind: str, target: Target) -> OwnTool | None:
        # Only the models that are made for it search in this API.
        return _SEARCH if kind == "web_search" and "-search" in target.model else None

    def add_own_tool(self, body: dict[str, Any], tool: Tool, form: OwnTool) -> None:
        options = declared(form, tool.options or {})
        place = options.get("user_location")
        if isinstance(place, dict):  # in an object of its own in this API
            inner = {key: value for key, value in place.items() if key != "type"}
            options["user_location"] = {"type": "approximate", "approximate": inner}
        body["web_search_options"] = options

    def part(self, part: Any) -> dict[str, Any]:
        if isinstance(part, FilePart) and part.file_id and part.provider == self.provider:
            return {"type": "file", "file": {"file_id": part.file_id}}
        return super().part(part)

    def earlier_call(self, call: ToolCallPart, path: str, target: Target) -> dict[str, Any]:
        earlier = super().earlier_call(call, path, target)
        if not bytes(call.input).startswith(b'"'):
            return earlier
        function = earlier["function"]  # text is the input of a custom tool
        custom = {"name": function["name"], "input": function["arguments"]}
        return {"id": earlier["id"], "type": "custom", "custom": custom}

    def body(self, request: Request, target: Target) -> dict[str, Any]:
        body = super().body(request, target) | openai_cache(request.cache)
        if request.tools:
            _keep_functions(body, request.tools)
        self.turn_thinking_off(body, target)
        return body

    def cache_mark(self, mark: bool | CacheMark) -> dict[str, Any]:
        return openai_cache_member(mark)

    def adapter(self, model: str | None = None) -> OpenAIAdapter:
        return OpenAIAdapter(self, model)


def _keep_functions(body: dict[str, Any], tools: list[Tool]) -> None:
    """Writes earlier calls of functions whose arguments are not JSON as calls of functions, not of custom tools.

    Args:
        body: The request's body.
        tools: The tools of the request.
    """
    functions = frozenset([tool.name for tool in tools if tool.type == "function"])
    for message in body["messages"]:
        for call in message.get("tool_calls", ()):
            custom = call.get("custom")
            if custom is not None and custom["name"] in functions:
                del call["custom"]
                call["type"] = "function"
                call["function"] = {"name": custom["name"], "arguments": custom["input"]}


class OpenAIAdapter(ChatAdapter):
    """Reads moderation results in addition to the dialect."""

    def extras(self, chunk: dict[str, Any]) -> list[Event]:
        if not chunk.get("moderation"):
            return []
        moderation = member(chunk, "moderation")
        return [
            event
            for side in ("input", "output")
            for result in objects(member(moderation, side).get("results"))
            for event in _flagged(result)
        ]


def _flagged(result: dict[str, Any]) -> list[Event]:
    """Returns an event for each flagged category of a moderation result."""
    return [
        {"type": "safety", "safety": {"category": category, "action": "flagged"} | _score(result, category)}
        for category, flagged in member(result, "categories").items()
        if flagged is True
    ]


def _score(result: dict[str, Any], category: str) -> dict[str, Any]:
    score = number(member(result, "category_scores").get(category))
    return {} if score is None else {"score": score}


_WITHOUT_REASONING: Final = responses_rules("openai", thinks=False)
"""The rules of models that do not think: "Reasoning input items can only be provided to a reasoning or computer use
model"."""


class OpenAIResponses(ResponsesAPI):
    """`https://api.openai.com/v1/responses`."""

    count_path = "/responses/input_tokens"
    count_members = frozenset(
        "conversation input instructions model parallel_tool_calls personality previous_response_id reasoning text "
        "tool_choice tools truncation".split()
    )
    compact_path = "/responses/compact"
    most_tools = OpenAI.most_tools
    keyed_paths = _KEYED

    caches_by_key = True
    marks_cache = True
    unions = "loose"
    provider = "openai"
    routes = OPENAI_ROUTES
    rules: ClassVar = responses_rules("openai", looks_up=True)
    base_url = OpenAI.base_url
    key_variable = OpenAI.key_variable
    stream_options: ClassVar = {"include_obfuscation": False}
    clouds = OPENAI_IN_CLOUDS

    def rules_of(self, target: Target) -> RequestRules:
        return _WITHOUT_REASONING if self.facts(target).never_thinks else self.rules

    def adapter(self, model: str | None = None) -> OpenAIResponsesAdapter:
        return OpenAIResponsesAdapter(self, model)


class OpenAIResponsesAdapter(ResponsesAdapter):
    """Reads moderation results in addition to the dialect. Here input and output have one result each."""

    def extras(self, response: dict[str, Any]) -> list[Event]:
        if not response.get("moderation"):
            return []
        moderation = member(response, "moderation")
        return [event for side in ("input", "output") for event in _flagged(member(moderation, side))]


class OpenAICompletions(CompletionsAPI):
    """`https://api.openai.com/v1/completions`."""

    provider = "openai"
    routes = OPENAI_ROUTES
    base_url = OpenAI.base_url
    key_variable = OpenAI.key_variable
    stream_options = OpenAI.stream_options
    rules: ClassVar = ChatRules("openai", "openai 3.57.0, 2026-11-25", members={"stop": MemberRule(most_items=4)})


APIS: Final[dict[str, API]] = {"": OpenAI(), "responses": OpenAIResponses(), "completions": OpenAICompletions()}
