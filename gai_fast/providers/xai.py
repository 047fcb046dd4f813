"""xAI: the chat dialect at `https://api.x.ai/v1/chat/completions`.

Source: xAI's API reference and recorded responses. Besides the dialect:

* Chunks have an empty delta while the model thinks. Some models repeat their reasoning; repetitions are kept.
* The last chunk has `citations`, a list of URLs, at its top level.
* `completion_tokens` does not include reasoning, unless the total shows it, and `cached_tokens` may be more than
  `prompt_tokens`.
* `cost_in_usd_ticks` in the usage is the cost, in 10^-10 dollars.
* Errors may be `{"code": "…", "error": "text"}`, even with status 200. A wrong key is a 400.
* The lowest effort is `low`. Files are only accepted as ids of files stored at xAI.
* `xai:responses` is the Responses dialect. Its `custom_tool_call` is the run of one of xAI's own tools, such as
  `x_keyword_search`, and its output tokens include reasoning.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from gai_fast.core.json.chunks import count
from gai_fast.model.events import Event
from gai_fast.model.money import Amount, amount_of
from gai_fast.model.request import ImagePart, TextPart
from gai_fast.providers.chat.answers import ChatAdapter
from gai_fast.providers.chat.api import ChatAPI
from gai_fast.providers.chat.mends import ChatChoiceNeedsTools, ChatPairs
from gai_fast.providers.chat.rules import OF_OPEN_MODELS, WITHOUT_EFFECT, ChatRules
from gai_fast.providers.requests.api import API
from gai_fast.providers.requests.empty_messages import NoEmptyMessages
from gai_fast.providers.requests.routes import XAI_ROUTES
from gai_fast.providers.requests.rules import LACKS, MemberRule
from gai_fast.providers.responses.answers import ResponsesAdapter
from gai_fast.providers.responses.api import ResponsesAPI
from gai_fast.providers.responses.rules import OF_OPENAI, responses_rules


class XAI(ChatAPI):
    """`base_url` is the URL for OpenAI's SDK; xAI's own SDK uses gRPC."""

    provider = "xai"
    routes = XAI_ROUTES
    telemetry_name = "x_ai"
    base_url = "https://api.x.ai/v1"
    key_variable = "XAI_API_KEY"
    lacks = frozenset({"metadata"})
    rules: ClassVar = ChatRules(
        "xai",
        "https://docs.x.ai/docs/api-reference, 2026-11-25",
        members={
            "max_tokens": MemberRule("max_completion_tokens"),
            "stop": MemberRule(most_items=4),
            "reasoning_effort": MemberRule(words={"minimal": "low", "xhigh": "high", "max": "high"}),
            **dict.fromkeys(WITHOUT_EFFECT - {"user"} | OF_OPEN_MODELS | {"logit_bias", "verbosity"}, LACKS),
        },
        mends=[ChatChoiceNeedsTools("xai"), ChatPairs("xai"), NoEmptyMessages()],
        keeps=frozenset(("reasoning_content",)),
    )
    user_parts = frozenset({TextPart, ImagePart})
    strict_is_closed = True
    efforts = ("low", "medium", "high")

    def adapter(self, model: str | None = None) -> XAIAdapter:
        return XAIAdapter(self, model)


class XAIAdapter(ChatAdapter):
    """Reads citations, and corrects the usage."""

    def extras(self, chunk: dict[str, Any]) -> list[Event]:
        cited = chunk.get("citations")
        uris = cited if isinstance(cited, list) else ()
        return self.citations({"uri": uri} for uri in uris if isinstance(uri, str))

    def count_usage(self, raw: dict[str, Any]) -> dict[str, int]:
        # The total is removed, so that `counted_usage` does not add the reasoning, which is added below.
        usage = super().count_usage({**raw, "total_tokens": None})
        if "total_tokens" not in usage:  # the total stands for a missing count
            return super().count_usage(raw)
        input_tokens, output_tokens = usage.get("input_tokens"), usage.get("output_tokens")
        beside = usage.get("reasoning_tokens", 0)
        if input_tokens is not None and output_tokens is not None and output_tokens >= beside:
            beside = 0 if count(raw.get("total_tokens")) == input_tokens + output_tokens else beside
        if input_tokens is not None and usage.get("cached_input_tokens", 0) > input_tokens:
            usage["input_tokens"] = input_tokens = input_tokens + usage["cached_input_tokens"]
        if output_tokens is not None:
            usage["output_tokens"] = output_tokens = output_tokens + beside
        if input_tokens is not None and output_tokens is not None:
            usage["total_tokens"] = input_tokens + output_tokens
        return usage

    def cost_in(self, usage: Mapping[str, Any]) -> Amount | None:
        return _cost_in(usage)


class XAIResponses(ResponsesAPI):
    """`https://api.x.ai/v1/responses`."""

    knobs: ClassVar = {
        name: place for name, place in ResponsesAPI.knobs.items() if name not in ("verbosity", "safety_identifier")
    }

    provider = "xai"
    routes = XAI_ROUTES
    caches_by_key = True
    rules: ClassVar = responses_rules("xai", foreign=OF_OPENAI)
    telemetry_name = "x_ai"
    base_url = XAI.base_url
    key_variable = XAI.key_variable
    efforts = XAI.efforts

    def adapter(self, model: str | None = None) -> XAIResponsesAdapter:
        return XAIResponsesAdapter(self, model)


class XAIResponsesAdapter(ResponsesAdapter):
    """Reads custom tool calls as runs of xAI's own tools."""

    client_calls = frozenset({"function_call"})

    def cost_in(self, usage: Mapping[str, Any]) -> Amount | None:
        return _cost_in(usage)


def _cost_in(usage: Mapping[str, Any]) -> Amount | None:
    ticks = count(usage.get("cost_in_usd_ticks"))
    return None if ticks is None else amount_of(ticks / _TICKS)


_TICKS: Final = 10**10
"""Ticks per dollar."""


APIS: Final[dict[str, API]] = {"": XAI(), "responses": XAIResponses()}
