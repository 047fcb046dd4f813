"""The legacy Completions dialect: `POST …/completions`, text in, text out.

Source: PROVIDERS §10b. The chat dialect with `choices[].text` in place of a delta, without roles and tools. Owns what
differs; errors, usage and the ends are the chat dialect's.
"""

from __future__ import annotations

from typing import Any

from gai_fast.providers._base import Target, UpstreamRequest
from gai_fast.providers._chat import ChatAdapter, ChatAPI
from gai_fast.request import Request, TextPart, UserMessage


class CompletionsAPI(ChatAPI):
    """The dialect's common ground."""

    dialect = ""
    path = "/completions"

    def adapter(self, model: str | None = None) -> CompletionsAdapter:
        return CompletionsAdapter(self, model)

    def build_request(self, request: Request, target: Target) -> UpstreamRequest:
        for field in ("tools", "tool_choice", "response_format", "reasoning"):
            if getattr(request, field):
                raise self.unsupported(field)
        body = {"model": target.model, "prompt": self.prompt(request)} | self.sampling(request)
        return self.post(body | request.provider_options.get(self.provider, {}), target)

    def prompt(self, request: Request) -> str:
        """The one user message that this API can take."""
        conversation = request.conversation
        if len(conversation) != 1 or not isinstance(conversation[0], UserMessage):
            raise self.unsupported("messages: more than one message")
        content = conversation[0].content
        if isinstance(content, str):
            return content
        if not all(isinstance(part, TextPart) for part in content):
            raise self.unsupported("messages: parts that are no text")
        return "".join(part.text for part in content if isinstance(part, TextPart))


class CompletionsAdapter(ChatAdapter):
    """Reads `choices[].text`."""

    text_members = frozenset({"text"})

    def message_in(self, choice: dict[str, Any], part: str) -> dict[str, Any] | None:
        return {"content": choice.get("text")}
