"""DeepSeek: the chat dialect at `https://api.deepseek.com/chat/completions`.

Source: DeepSeek's API reference. Besides the dialect:

* `delta.reasoning_content` comes first, then `delta.content`; the other member is `null`.
* Keep-alives are comments in a stream and empty lines before a whole response.
* The finish reason `insufficient_system_resource` means that the response failed for lack of capacity.
* System messages and tool results must be a single text.
* Reasoning is sent back only with tool calls: without calls, older models refuse it.
"""

from __future__ import annotations

from typing import Any, Final

from gai_fast.model.request import ImagePart, ReasoningPart, ResponseFormat, TextPart
from gai_fast.providers._base import API, Target
from gai_fast.providers._chat import ChatAPI
from gai_fast.providers._responses import ResponsesAPI


class DeepSeek(ChatAPI):
    """`base_url` has no `/v1`."""

    provider = "deepseek"
    base_url = "https://api.deepseek.com"
    key_variable = "DEEPSEEK_API_KEY"
    lacks = frozenset({"metadata"})
    user_parts = frozenset({TextPart, ImagePart})
    text_parts = False

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
    base_url = DeepSeek.base_url
    key_variable = DeepSeek.key_variable


APIS: Final[dict[str, API]] = {"": DeepSeek(), "responses": DeepSeekResponses()}
