"""Groq: the chat dialect at `https://api.groq.com/openai/v1/chat/completions`.

Source: groq-python 1.7 and Groq's API reference. Besides the dialect:

* `x_groq` in the first and the last chunk has usage, always (newer responses repeat it at the top level), and the text
  of a failure within a stream.
* `delta.executed_tools[]` of compound systems has the tools that Groq ran: first the call, later the call with its
  output.
* Status 498 means exceeded capacity. "A max of 128 functions are supported" (`completion_create_params.py`).
* `metadata` is declared but not supported. Efforts differ by model: `requests/facts.py`.
* Reasoning returns as `reasoning`, which models that do not think refuse in a conversation.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Final, get_args

from msgspec import UNSET

from gai_fast.core.json.chunks import member, text_of
from gai_fast.model.events import Event
from gai_fast.model.request import ImagePart, ReasoningPart, Request, Summary, TextPart, Tool
from gai_fast.model.upstream_errors import UpstreamFailure
from gai_fast.providers.answers.events import server_tool
from gai_fast.providers.chat.answers import ChatAdapter, Choice
from gai_fast.providers.chat.api import ChatAPI
from gai_fast.providers.chat.calls import CallFragment
from gai_fast.providers.chat.mends import ChatChoiceNeedsTools, ChatPairs, Tools
from gai_fast.providers.chat.rules import ChatRules, Role, as_known
from gai_fast.providers.requests.api import API
from gai_fast.providers.requests.empty_messages import NoEmptyMessages
from gai_fast.providers.requests.own_tools import OwnTool, declared
from gai_fast.providers.requests.routes import GROQ_ROUTES
from gai_fast.providers.requests.rules import LACKS, MemberRule, RequestRules
from gai_fast.providers.requests.target import Target
from gai_fast.providers.responses.api import ResponsesAPI
from gai_fast.providers.responses.rules import OF_OPENAI, responses_rules

_NAMED: Final = frozenset(("name",))

_COMPOUND: Final = "compound"
"""The text in the ids of Groq's systems, which run tools by themselves."""
_NAME: Final = "name"
_DOMAINS: Final = {"allowed_domains": "include_domains", "blocked_domains": "exclude_domains"}
_COMPOUND_TOOLS: Final = {
    "web_search": OwnTool({_NAME: "web_search"}, _DOMAINS),
    "code_execution": OwnTool({_NAME: "code_interpreter"}),
}
_TOOLS: Final = {
    "web_search": OwnTool({"type": "browser_search"}),
    "code_execution": OwnTool({"type": "code_interpreter"}),
}
_HAS_NO_FORMAT: Final = "gpt-oss"
"""Models that refuse `reasoning_format`: their reasoning is always apart from the text."""


def _rules(keeps: frozenset[str]) -> ChatRules:
    """Returns the rules of a model.

    Args:
        keeps: As for `ChatRules`.
    """
    return ChatRules(
        "groq",
        "groq 1.7.0, 2026-11-25",
        strict=True,
        members={
            **as_known(
                "model messages citation_options compound_custom disable_tool_validation documents exclude_domains "
                "frequency_penalty function_call functions include_domains include_reasoning logit_bias logprobs "
                "max_completion_tokens metadata parallel_tool_calls presence_penalty reasoning_format "
                "response_format search_settings seed store stream temperature tool_choice top_logprobs top_p user"
            ),
            "max_tokens": MemberRule("max_completion_tokens"),
            "n": LACKS,
            "stop": MemberRule(most_items=4),
            "reasoning_effort": MemberRule(words={"minimal": "low", "xhigh": "high", "max": "high"}),
            "service_tier": MemberRule(words={"default": "on_demand", "priority": "performance"}),
            "tools": MemberRule(write=Tools("groq")),
        },
        mends=[ChatChoiceNeedsTools("groq"), ChatPairs("groq"), NoEmptyMessages()],
        roles={
            "system": Role("system", _NAMED),
            "developer": Role("developer", _NAMED),
            "user": Role("user", _NAMED, {"image_url": None, "document": None}),
            "assistant": Role("assistant", _NAMED | {"function_call", "reasoning", "tool_calls"}),
            "tool": Role("tool", frozenset(("tool_call_id",)), {"image_url": None, "document": None}),
            "function": Role("function", _NAMED),
        },
        keeps=keeps,
    )


_WITHOUT_REASONING: Final = _rules(frozenset())
"""The rules of models that refuse reasoning in a conversation: "reasoning is not supported with this model"."""


class Groq(ChatAPI):
    """`base_url` is the host alone, as in Groq's SDK, which appends `/openai/v1`."""

    provider = "groq"
    routes = GROQ_ROUTES
    base_url = "https://api.groq.com"
    key_variable = "GROQ_API_KEY"
    path = "/openai/v1/chat/completions"
    models_path = "/openai/v1/models"
    most_tools = 128
    stream_options: ClassVar = {}
    lacks = frozenset({"metadata"})
    user_parts = frozenset({TextPart, ImagePart})
    tool_parts = user_parts
    strict_is_closed = True

    def own_tool(self, kind: str, target: Target) -> OwnTool | None:
        # Compound systems run their tools by themselves; of the other models those of OpenAI have tools of Groq's.
        if _COMPOUND in target.model:
            return _COMPOUND_TOOLS.get(kind)
        return _TOOLS.get(kind) if _HAS_NO_FORMAT in target.model else None

    def add_own_tool(self, body: dict[str, Any], tool: Tool, form: OwnTool) -> None:
        if _NAME not in form.form:
            super().add_own_tool(body, tool, form)
            return
        settings = declared(form, tool.options or {})
        enabled = body.setdefault("compound_custom", {}).setdefault("tools", {}).setdefault("enabled_tools", [])
        enabled.append(settings.pop(_NAME))
        if settings:
            body["search_settings"] = settings

    rules: ClassVar = _rules(frozenset(("reasoning",)))
    efforts = ("none", "default", "low", "medium", "high")
    summaries = frozenset(get_args(Summary))

    def adapter(self, model: str | None = None) -> GroqAdapter:
        return GroqAdapter(self, model)

    def body(self, request: Request, target: Target) -> dict[str, Any]:
        body = super().body(request, target)
        known = self.facts(target)
        thinks = "reasoning_effort" in body if known.thinking is None else not known.never_thinks
        summary = request.reasoning.summary if request.reasoning else UNSET
        if _HAS_NO_FORMAT in target.model:
            if summary:
                body["include_reasoning"] = summary != "none"
        elif thinks:  # by default some models write their reasoning into the text
            body["reasoning_format"] = "hidden" if summary == "none" else "parsed"
        return body

    def rules_of(self, target: Target) -> RequestRules:
        return self.rules if self._is_known_to_think(target) else _WITHOUT_REASONING

    def earlier_reasoning(self, parts: list[ReasoningPart], target: Target, *, has_calls: bool) -> dict[str, Any]:
        text = "".join(part.text for part in parts) if self._is_known_to_think(target) else ""
        return {"reasoning": text} if text else {}

    def _is_known_to_think(self, target: Target) -> bool:
        facts = self.facts(target)
        return facts.thinking is not None and not facts.never_thinks


class GroqAdapter(ChatAdapter):
    """Reads `x_groq` and executed tools in addition to the dialect."""

    def failure(self, chunk: Any, name: str = "") -> UpstreamFailure | None:
        failure = super().failure(chunk, name)
        error = member(chunk, "x_groq").get("error")
        return self.api.read_failure({"error": error}) if failure is None and error else failure

    def usage_in(self, chunk: dict[str, Any]) -> Any:
        return chunk.get("usage") or member(chunk, "x_groq").get("usage")

    def read_message(self, choice: Choice, message: dict[str, Any], part: str) -> Iterator[Event | CallFragment]:
        yield from map(_executed, message.get("executed_tools") or ())
        yield from super().read_message(choice, message, part)


def _executed(tool: dict[str, Any]) -> Event:
    output = tool.get("output") or (tool.get("search_results") or {}).get("results")
    return server_tool(
        f"executed_{tool.get('index') or 0}",
        text_of(tool.get("type")) or text_of(tool.get("name")),
        "completed" if output else "started",
        text_of(tool.get("arguments")),
        output,
    )


class GroqResponses(ResponsesAPI):
    """`https://api.groq.com/openai/v1/responses`. It stores nothing and has no reasoning summaries."""

    provider = "groq"
    routes = GROQ_ROUTES
    rules: ClassVar = responses_rules("groq", foreign=OF_OPENAI)
    base_url = Groq.base_url
    key_variable = Groq.key_variable
    path = "/openai/v1/responses"
    models_path = Groq.models_path
    most_tools = Groq.most_tools
    stateless = False
    summary = ""
    efforts = Groq.efforts
    service_tiers = frozenset({"auto", "on_demand", "flex", "performance"})
    knobs: ClassVar = {name: name for name in ("parallel_tool_calls", "service_tier", "user")}


APIS: Final[dict[str, API]] = {"": Groq(), "responses": GroqResponses()}
