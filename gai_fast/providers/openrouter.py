"""OpenRouter: the chat dialect at `https://openrouter.ai/api/v1/chat/completions`.

Source: openrouter 1.3 and OpenRouter's API reference. Besides the dialect:

* Usage is always sent; the option that requests it is deprecated.
* `delta.reasoning` and `reasoning_details[]` hold one text twice. The latter also has signatures and encrypted blocks.
* A failure within a stream is a chunk with `error {code: int, message, metadata}`; `metadata.error_type` is the most
  specific code.
* The finish reason is read from `finish_reason`; `native_finish_reason` is ignored.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from msgspec import UNSET
from msgspec.structs import replace

from gai_fast.core.requests.shapes import RequestShape
from gai_fast.model.changes import Changes
from gai_fast.model.events import Event
from gai_fast.model.request import CacheMark, FilePart, ImagePart, Reasoning, ReasoningPart, TextPart, Tool, VideoPart
from gai_fast.model.upstream_errors import UpstreamFailure
from gai_fast.providers.answers.failures import error_object, failure_of
from gai_fast.providers.chat.answers import ChatAdapter
from gai_fast.providers.chat.api import ChatAPI
from gai_fast.providers.chat.mends import ChatChoiceNeedsTools, ChatPairs
from gai_fast.providers.chat.rules import ChatRules
from gai_fast.providers.requests.api import API
from gai_fast.providers.requests.empty_messages import NoEmptyMessages
from gai_fast.providers.requests.own_tools import OwnTool, declared
from gai_fast.providers.requests.parts import anthropic_cache_member, file_name
from gai_fast.providers.requests.routes import OPENROUTER_ROUTES
from gai_fast.providers.requests.rules import LACKS, MemberRule, Mend
from gai_fast.providers.requests.target import Target
from gai_fast.providers.responses.answers import ResponsesAdapter
from gai_fast.providers.responses.api import ResponsesAPI
from gai_fast.providers.responses.rules import responses_rules

_FORMATS: Final = {
    "anthropic": "anthropic-claude-v1",
    "google": "google-gemini-v1",
    "openai": "openai-responses-v1",
    "x-ai": "xai-responses-v1",
}
"""The `format` of `reasoning_details` that are sent back, by the first segment of the model's id."""
_MARK: Final = "gai-"
"""The prefix of the gateway's names for authors that OpenRouter has no name for."""
_OWN_MARK: Final = "gai-openrouter"
_OPENAIS: Final = "openai/"
"""The beginning of the ids of OpenAI's models."""
_ENCRYPTING: Final = frozenset({"openai", "x-ai"})
"""Authors whose models encrypt the reasoning and add a summary; the models of other authors sign a text."""


class OwnDetails(Mend):
    """Leaves the reasoning out that this gateway has marked as another provider's; OpenRouter's own loses the mark."""

    def is_needed(self, body: dict[str, Any], shape: RequestShape) -> bool:
        return "reasoning_details" in shape.roles.get("assistant", ())

    def mend(self, body: dict[str, Any], changes: Changes) -> None:
        body["messages"] = [_with_own_details(message) for message in body["messages"]]


def _with_own_details(message: Any) -> Any:
    details = message.get("reasoning_details") if isinstance(message, dict) else None
    if not isinstance(details, list):
        return message
    kept: list[Any] = []
    for detail in details:
        author = detail.get("format") if isinstance(detail, dict) else None
        if not isinstance(author, str) or not author.startswith(_MARK):
            kept.append(detail)
        elif author.startswith(_OWN_MARK):
            kept.append({name: value for name, value in detail.items() if name != "format"})
    rest = {name: value for name, value in message.items() if name != "reasoning_details"}
    return {**rest, "reasoning_details": kept} if kept else rest


class OpenRouter(ChatAPI):
    """`https://openrouter.ai/api/v1/chat/completions`, a gateway to many providers."""

    provider = "openrouter"
    routes = OPENROUTER_ROUTES
    base_url = "https://openrouter.ai/api/v1"
    key_variable = "OPENROUTER_API_KEY"
    stream_options: ClassVar = {}
    rules: ClassVar = ChatRules(
        "openrouter",
        "openrouter 1.3.84, 2026-11-20",
        members={"max_tokens": MemberRule("max_completion_tokens"), "stream_options": LACKS},
        mends=[
            ChatChoiceNeedsTools("openrouter"),
            ChatPairs("openrouter"),
            OwnDetails(),
            NoEmptyMessages(thoughts=("reasoning", "reasoning_details")),
        ],
        keeps=frozenset(("annotations", "images", "reasoning", "reasoning_details")),
    )
    user_parts = ChatAPI.user_parts | {VideoPart}
    tool_parts = frozenset({TextPart, ImagePart})
    efforts = ("none", "minimal", "low", "medium", "high", "xhigh")
    marks_cache = True
    own_tools: ClassVar = {
        "web_search": OwnTool(
            {"id": "web"}, {"allowed_domains": "include_domains", "blocked_domains": "exclude_domains"}
        )
    }

    def add_own_tool(self, body: dict[str, Any], tool: Tool, form: OwnTool) -> None:
        body["plugins"] = [declared(form, tool.options or {})]

    def adapter(self, model: str | None = None) -> OpenRouterAdapter:
        return OpenRouterAdapter(self, model)

    def closes_strict(self, target: Target) -> bool:
        return target.model.startswith(_OPENAIS)

    def read_failure(self, body: Any) -> UpstreamFailure | None:
        error = error_object(body)
        return None if error is None else failure_of(error, error.get("metadata"))

    def part(self, part: Any) -> dict[str, Any]:
        if isinstance(part, FilePart) and part.url:
            return {"type": "file", "file": {"filename": file_name(part), "file_data": part.url}}
        return super().part(part)

    def cache_mark(self, mark: bool | CacheMark) -> dict[str, Any]:
        return anthropic_cache_member(mark)

    def audio_format(self, media_type: str) -> str | None:
        return super().audio_format(media_type) or media_type.rpartition("/")[2]

    def reasoning(self, wanted: Reasoning, target: Target) -> dict[str, Any]:
        reasoning: dict[str, Any] = {}
        if wanted.effort:
            reasoning["effort"] = self.effort(wanted.effort, target)
        if wanted.max_tokens is not UNSET:
            reasoning["max_tokens"] = wanted.max_tokens
        if wanted.summary:
            reasoning["exclude"] = wanted.summary == "none"
        return {"reasoning": reasoning}

    def earlier_reasoning(self, parts: list[ReasoningPart], target: Target, *, has_calls: bool) -> dict[str, Any]:
        details = [detail for part in parts for detail in _details(part, target.model.partition("/")[0])]
        return {"reasoning_details": [detail | {"index": index} for index, detail in enumerate(details)]}


def _details(part: ReasoningPart, author: str) -> list[dict[str, Any]]:
    """Returns the entries of `reasoning_details` for one part, in the form of the model's author."""
    form = {"format": _FORMATS[author]} if author in _FORMATS else {}
    encrypts = author in _ENCRYPTING or part.redacted or not part.text
    details: list[dict[str, Any]] = []
    if part.text and author in _ENCRYPTING:
        details.append({"type": "reasoning.summary", "summary": part.text, **form})
    elif part.text:
        signature = {"signature": part.signature} if part.signature and not encrypts else {}
        details.append({"type": "reasoning.text", "text": part.text, **signature, **form})
    if part.signature and encrypts:
        details.append({"type": "reasoning.encrypted", "data": part.signature, **form})
    return details


class OpenRouterAdapter(ChatAdapter):
    """Reads the dialect; the text of reasoning may be in `reasoning_details` only."""

    text_members = ChatAdapter.text_members | {"text"}  # `reasoning` repeats the text of `reasoning_details`


class OpenRouterResponsesAdapter(ResponsesAdapter):
    """Adds the API's name to `start`: its signatures are encrypted reasoning, the chat API's may sign a text."""

    def start(self, identifier: str | None, model: str | None) -> list[Event]:
        events = super().start(identifier, model)
        for event in events:
            event["provider_metadata"] = {**event.get("provider_metadata", {}), "api": "responses"}
        return events


class OpenRouterResponses(ResponsesAPI):
    """`https://openrouter.ai/api/v1/responses`. An error body's `error_type` is more specific than the error's code."""

    provider = "openrouter"
    routes = OPENROUTER_ROUTES
    rules: ClassVar = responses_rules("openrouter")
    base_url = OpenRouter.base_url
    key_variable = OpenRouter.key_variable
    efforts = OpenRouter.efforts
    encrypts_reasoning = False  # the chat API's signatures may be of texts; `start` has the name of this API

    def adapter(self, model: str | None = None) -> OpenRouterResponsesAdapter:
        return OpenRouterResponsesAdapter(self, model)

    def read_failure(self, body: Any) -> UpstreamFailure | None:
        error = error_object(body)
        if error is None:
            return None
        kind = body.get("error_type") if isinstance(body, dict) else None
        metadata = error.get("metadata")
        return failure_of(error, {"code": kind, **metadata} if isinstance(metadata, dict) else {"code": kind})

    def reasoning(self, wanted: Reasoning, target: Target) -> dict[str, Any]:
        limit = {"max_tokens": wanted.max_tokens} if wanted.max_tokens is not UNSET else {}
        return super().reasoning(replace(wanted, max_tokens=UNSET), target) | limit


APIS: Final[dict[str, API]] = {"": OpenRouter(), "responses": OpenRouterResponses()}
