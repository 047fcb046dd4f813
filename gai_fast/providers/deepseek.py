"""DeepSeek: the chat dialect at `https://api.deepseek.com/chat/completions`.

Source: PROVIDERS §8. Besides the dialect:

* `delta.reasoning_content` first, then `delta.content`; the other one is `null`.
* Keep-alives are comments in a stream and empty lines before a whole answer.
* Finish word `insufficient_system_resource`: the answer failed for want of capacity.
* Reasoning goes back only beside tool calls: elsewhere older models refuse it.
"""

from __future__ import annotations

from typing import Any, Final

from gai_fast.providers._base import API
from gai_fast.providers._chat import ChatAPI
from gai_fast.request import ReasoningPart, ResponseFormat


class DeepSeek(ChatAPI):
    """No `/v1` is needed."""

    provider = "deepseek"
    base_url = "https://api.deepseek.com"
    key_variable = "DEEPSEEK_API_KEY"
    failure_words = ChatAPI.failure_words | {"insufficient_system_resource"}

    def earlier_reasoning(self, parts: list[ReasoningPart], *, has_calls: bool) -> dict[str, Any]:
        return {"reasoning_content": "".join(part.text for part in parts)} if has_calls else {}

    def response_format(self, wanted: ResponseFormat) -> dict[str, Any]:
        if wanted.type == "json_schema":
            raise self.unsupported("response_format: json_schema")
        return super().response_format(wanted)


APIS: Final[dict[str, API]] = {"": DeepSeek()}
