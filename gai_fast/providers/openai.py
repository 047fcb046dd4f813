"""OpenAI Chat Completions, and the legacy Completions API as `openai:completions`.

Source: PROVIDERS §1, §10b, read from openai-python 3.51. The chat dialect as it is; besides:

* `obfuscation` padding is on by default and costs bandwidth: it is declined.
* `max_tokens` is deprecated, and newer models refuse it, in favour of `max_completion_tokens`.
* Where `moderation` was asked for, a chunk without choices tells what was flagged.
* There is no reasoning text on this API, so none is sent back.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from gai_fast.events import Event
from gai_fast.providers._base import API
from gai_fast.providers._chat import ChatAdapter, ChatAPI
from gai_fast.providers._completions import CompletionsAPI


class OpenAI(ChatAPI):
    """`https://api.openai.com/v1/chat/completions`."""

    provider = "openai"
    base_url = "https://api.openai.com/v1"
    key_variable = "OPENAI_API_KEY"
    max_tokens_field = "max_completion_tokens"
    stream_options: ClassVar = {"include_usage": True, "include_obfuscation": False}

    def adapter(self, model: str | None = None) -> OpenAIAdapter:
        return OpenAIAdapter(self, model)


class OpenAIAdapter(ChatAdapter):
    """Reads moderation results beside the dialect."""

    def extras(self, chunk: dict[str, Any]) -> list[Event]:
        moderation = chunk.get("moderation") or {}
        return [
            {"type": "safety", "safety": {"category": category, "action": "flagged"} | _score(result, category)}
            for side in ("input", "output")
            for result in (moderation.get(side) or {}).get("results") or ()
            for category, flagged in (result.get("categories") or {}).items()
            if flagged is True
        ]


def _score(result: dict[str, Any], category: str) -> dict[str, Any]:
    score = (result.get("category_scores") or {}).get(category)
    return {} if score is None else {"score": score}


class OpenAICompletions(CompletionsAPI):
    """`https://api.openai.com/v1/completions`."""

    provider = "openai"
    base_url = OpenAI.base_url
    key_variable = OpenAI.key_variable
    stream_options = OpenAI.stream_options


APIS: Final[dict[str, API]] = {"": OpenAI(), "completions": OpenAICompletions()}
