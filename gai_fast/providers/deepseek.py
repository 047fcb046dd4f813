"""DeepSeek: the chat dialect at `https://api.deepseek.com/chat/completions`.

Source: DeepSeek's API reference. Besides the dialect:

* `delta.reasoning_content` comes first, then `delta.content`; the other member is `null`.
* "A max of 128 functions are supported."
* Keep-alives are comments in a stream and empty lines before a whole response.
* The finish reason `insufficient_system_resource` means that the response failed for lack of capacity.
* System messages and tool results must be a single text.
* Reasoning is sent back only with tool calls: without calls, older models refuse it.
* A last message of the assistant needs `prefix: true`, which only the path `/beta` knows.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from msgspec import UNSET
from msgspec.structs import replace

from gai_fast.core.requests.shapes import RequestShape
from gai_fast.model.changes import Changes
from gai_fast.model.request import ImagePart, Reasoning, ReasoningPart, ResponseFormat, TextPart
from gai_fast.providers.chat.api import ChatAPI
from gai_fast.providers.chat.mends import ChatChoiceNeedsTools, ChatPairs, Prefix
from gai_fast.providers.chat.rules import OF_OPEN_MODELS, WITHOUT_EFFECT, ChatRules, Role
from gai_fast.providers.requests.api import API
from gai_fast.providers.requests.empty_messages import NoEmptyMessages
from gai_fast.providers.requests.routes import DEEPSEEK_ROUTES
from gai_fast.providers.requests.rules import LACKS, MemberRule, Mend
from gai_fast.providers.requests.target import Target, UpstreamRequest
from gai_fast.providers.responses.api import ResponsesAPI
from gai_fast.providers.responses.rules import OF_OPENAI, responses_rules

_BETA: Final = "/beta"


class ReasoningOfCalls(Mend):
    """Leaves the reasoning out of messages without calls."""

    def is_needed(self, body: dict[str, Any], shape: RequestShape) -> bool:
        return "reasoning_content" in shape.roles.get("assistant", ())

    def mend(self, body: dict[str, Any], changes: Changes) -> None:
        body["messages"] = [_without_lone_reasoning(message) for message in body["messages"]]


def _without_lone_reasoning(message: Any) -> Any:
    if not isinstance(message, dict) or message.get("tool_calls"):
        return message
    return {name: value for name, value in message.items() if name != "reasoning_content"}


def _form(wanted: Any, changes: Changes) -> Any:
    """Returns a form of the answer without its schema, which this API does not have."""
    if not isinstance(wanted, dict) or wanted.get("type") != "json_schema":
        return wanted
    changes.leave_out("deepseek", "response_format.json_schema")
    return {"type": "json_object"}


class DeepSeek(ChatAPI):
    """`base_url` has no `/v1`."""

    provider = "deepseek"
    routes = DEEPSEEK_ROUTES
    unions = "typed"
    most_tools = 128
    base_url = "https://api.deepseek.com"
    key_variable = "DEEPSEEK_API_KEY"
    lacks = frozenset({"metadata"})
    user_parts = frozenset({TextPart, ImagePart})
    rules: ClassVar = ChatRules(
        "deepseek",
        "https://api-docs.deepseek.com/api/create-chat-completion, 2026-11-25",
        members={
            "max_completion_tokens": MemberRule("max_tokens", is_newer=True),
            **dict.fromkeys(WITHOUT_EFFECT | OF_OPEN_MODELS, LACKS),
            **dict.fromkeys(("logit_bias", "parallel_tool_calls", "service_tier", "verbosity"), LACKS),
            "response_format": MemberRule(write=_form),
            "stop": MemberRule(most_items=16),
        },
        mends=[
            ChatChoiceNeedsTools("deepseek"),
            ChatPairs("deepseek"),
            NoEmptyMessages(),
            ReasoningOfCalls(),
            Prefix(),
        ],
        roles={
            "system": Role("system", one_text=True),
            "developer": Role("system", one_text=True),
            "tool": Role("tool", one_text=True),
        },
        keeps=frozenset(("reasoning_content",)),
        has_functions=False,
    )

    def post(self, body: dict[str, Any], target: Target) -> UpstreamRequest:
        request = super().post(body, target)
        messages = body.get("messages")
        last = messages[-1] if isinstance(messages, list) and messages else None
        if isinstance(last, dict) and last.get("prefix"):
            request.path = _BETA + self.path
        return request

    def reasoning(self, wanted: Reasoning, target: Target) -> dict[str, Any]:
        if wanted.effort == "none":
            return {"thinking": {"type": "disabled"}} | super().reasoning(replace(wanted, effort=UNSET), target)
        return super().reasoning(wanted, target)

    def earlier_reasoning(self, parts: list[ReasoningPart], target: Target, *, has_calls: bool) -> dict[str, Any]:
        return {"reasoning_content": "".join(part.text for part in parts)} if has_calls else {}

    def response_format(self, wanted: ResponseFormat, target: Target) -> dict[str, Any]:
        if wanted.type == "json_schema":
            self.leave_out("response_format", target, "json_schema")
            return {}
        return super().response_format(wanted, target)


class DeepSeekResponses(ResponsesAPI):
    """`https://api.deepseek.com/responses`. Reasoning is plain text."""

    provider = "deepseek"
    routes = DEEPSEEK_ROUTES
    unions = "typed"
    rules: ClassVar = responses_rules("deepseek", foreign=OF_OPENAI)
    base_url = DeepSeek.base_url
    key_variable = DeepSeek.key_variable


APIS: Final[dict[str, API]] = {"": DeepSeek(), "responses": DeepSeekResponses()}
