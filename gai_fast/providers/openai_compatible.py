"""Other servers with OpenAI's chat dialect; the legacy Completions API is `openai-compatible:completions`.

Examples are vLLM, llama.cpp, LM Studio, Ollama's `/v1`, Together, Moonshot, Databricks, Cloudflare and Google's OpenAI
endpoint. Their additions to the dialect:

* Moonshot sends usage in `choices[0].usage`.
* Databricks sends reasoning as a content part, `{"type": "reasoning", "summary": […]}`.
* Google's endpoint sends tool calls without an index, and requires their `thought_signature` to be sent back.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from gai_fast.core.json.chunks import objects, text_of
from gai_fast.model.events import Event
from gai_fast.model.request import ReasoningPart, Request, ToolCallPart, VideoPart
from gai_fast.providers.chat.answers import ChatAdapter, Choice
from gai_fast.providers.chat.api import ChatAPI
from gai_fast.providers.chat.completions import CompletionsAPI
from gai_fast.providers.chat.mends import ChatChoiceNeedsTools, ChatPairs
from gai_fast.providers.chat.rules import ChatRules
from gai_fast.providers.requests.api import API
from gai_fast.providers.requests.clouds import OPENAI_IN_CLOUDS
from gai_fast.providers.requests.empty_messages import NoEmptyMessages
from gai_fast.providers.requests.parts import object_call
from gai_fast.providers.requests.target import Target
from gai_fast.providers.responses.api import ResponsesAPI
from gai_fast.providers.responses.rules import responses_rules

_PROVIDER: Final = "openai-compatible"


class Compatible(ChatAPI):
    """`base_url` is the URL for OpenAI's SDK, which usually ends in `/v1`. There is no default."""

    provider = _PROVIDER
    user_parts = ChatAPI.user_parts | {VideoPart}
    clouds = OPENAI_IN_CLOUDS
    local_servers: ClassVar = {"lm-studio": "http://127.0.0.1:1234/v1", "vllm": "http://127.0.0.1:8000/v1"}
    rules: ClassVar = ChatRules(
        _PROVIDER,
        "openai 3.57.0, 2026-11-25",
        mends=[
            ChatChoiceNeedsTools(_PROVIDER),
            ChatPairs(_PROVIDER),
            NoEmptyMessages(thoughts=("reasoning", "reasoning_content")),
        ],
        keeps=frozenset(
            (
                "reasoning",
                "reasoning_content",
                "extra_content",
                "thinking",
                "thinking_blocks",
                "provider_specific_fields",
                "reference",
            )
        ),
    )

    caches_by_key = True

    def _with_known_choice(self, request: Request, target: Target, options: Any) -> Request:
        return request  # some servers may ignore a choice of a tool that is not there

    def body(self, request: Request, target: Target) -> dict[str, Any]:
        body = super().body(request, target)
        if request.cache and request.cache.key:
            body["prompt_cache_key"] = request.cache.key
        return body

    def adapter(self, model: str | None = None) -> CompatibleAdapter:
        return CompatibleAdapter(self, model)

    def earlier_reasoning(self, parts: list[ReasoningPart], target: Target, *, has_calls: bool) -> dict[str, Any]:
        text = "".join(part.text for part in parts)
        return {"reasoning_content": text} if text else {}

    def earlier_call(self, call: ToolCallPart, path: str, target: Target) -> dict[str, Any]:
        whole = object_call(call, path, target.changes)
        return whole | {"extra_content": {"google": {"thought_signature": call.signature}}} if call.signature else whole


class CompatibleAdapter(ChatAdapter):
    """Reads the additions of these servers."""

    def usage_in(self, chunk: dict[str, Any]) -> Any:
        usage = chunk.get("usage")
        for choice in objects(chunk.get("choices")):
            usage = usage or choice.get("usage")
        return usage

    def read_part(self, choice: Choice, part: dict[str, Any]) -> list[Event]:
        if part.get("type") != "reasoning" or "summary" not in part:
            return super().read_part(choice, part)
        events: list[Event] = []
        for summary in objects(part.get("summary")):
            if summary.get("text"):
                events.append({"type": "reasoning.delta", "text": text_of(summary["text"])})
            if summary.get("signature"):
                events.append({"type": "reasoning.signature", "signature": text_of(summary["signature"])})
        return events


class CompatibleCompletions(CompletionsAPI):
    """The legacy API of such a server."""

    provider = _PROVIDER
    rules: ClassVar = ChatRules(_PROVIDER, "openai 3.57.0, 2026-11-25")
    knobs: ClassVar = {**CompletionsAPI.knobs, **{name: name for name in ("top_k", "min_p", "repetition_penalty")}}


class CompatibleResponses(ResponsesAPI):
    """The Responses API of such a server."""

    provider = _PROVIDER
    caches_by_key = True
    clouds = OPENAI_IN_CLOUDS
    rules: ClassVar = responses_rules(_PROVIDER)


APIS: Final[dict[str, API]] = {
    "": Compatible(),
    "responses": CompatibleResponses(),
    "completions": CompatibleCompletions(),
}
