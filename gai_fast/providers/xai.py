"""xAI: the chat dialect at `https://api.x.ai/v1/chat/completions`.

Source: PROVIDERS §7, §11. Besides the dialect:

* Chunks with an empty delta while the model thinks; some models send the same reasoning again and again, which is kept.
* `citations`, a list of URLs, at the top level of the last chunk.
* `completion_tokens` leaves the reasoning out, and `cached_tokens` may be more than `prompt_tokens`.
* Errors also as `{"code": "…", "error": "text"}`, under status 200 too; a wrong key is a 400.
* The least effort is `low`; files are only taken by an id that xAI gave them.
* Responses (`xai:responses`) are the Responses dialect; a `custom_tool_call` there is one of xAI's own tools at work
  (`x_keyword_search` and its like), and reasoning is inside the output tokens.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from gai_fast.events import Event
from gai_fast.providers._base import API
from gai_fast.providers._chat import ChatAPI
from gai_fast.providers._chat_answers import ChatAdapter
from gai_fast.providers._responses import ResponsesAPI
from gai_fast.providers._responses_answers import ResponsesAdapter
from gai_fast.request import ImagePart, TextPart


class XAI(ChatAPI):
    """Used with the OpenAI SDK, whose `base_url` this is; xAI's own speaks gRPC."""

    provider = "xai"
    base_url = "https://api.x.ai/v1"
    key_variable = "XAI_API_KEY"
    max_tokens_field = "max_completion_tokens"
    lacks = frozenset({"metadata"})
    user_parts = frozenset({TextPart, ImagePart})
    efforts: ClassVar = {"minimal": "low"}

    def adapter(self, model: str | None = None) -> XAIAdapter:
        return XAIAdapter(self, model)


class XAIAdapter(ChatAdapter):
    """Reads the citations, and counts as xAI does."""

    def extras(self, chunk: dict[str, Any]) -> list[Event]:
        return self.citations_once({"uri": uri} for uri in chunk.get("citations") or () if isinstance(uri, str))

    def count_usage(self, raw: dict[str, Any]) -> dict[str, int]:
        # Without its total the dialect's own count has no way to see that the reasoning is outside.
        usage = super().count_usage({**raw, "total_tokens": None})
        into, out = usage.get("input_tokens"), usage.get("output_tokens")
        if into is not None and usage.get("cached_input_tokens", 0) > into:
            usage["input_tokens"] = into = into + usage["cached_input_tokens"]
        if out is not None:
            usage["output_tokens"] = out = out + usage.get("reasoning_tokens", 0)
        if into is not None and out is not None:
            usage["total_tokens"] = into + out
        return usage


class XAIResponses(ResponsesAPI):
    """`https://api.x.ai/v1/responses`."""

    provider = "xai"
    base_url = XAI.base_url
    key_variable = XAI.key_variable
    efforts = XAI.efforts

    def adapter(self, model: str | None = None) -> XAIResponsesAdapter:
        return XAIResponsesAdapter(self, model)


class XAIResponsesAdapter(ResponsesAdapter):
    """Knows whose custom tools are."""

    client_calls = frozenset({"function_call"})


APIS: Final[dict[str, API]] = {"": XAI(), "responses": XAIResponses()}
