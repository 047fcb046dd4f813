"""The legacy Completions dialect: `POST …/completions`, text in, text out.

Source: OpenAI's API reference. The dialect has `choices[].text` in place of a delta, and no roles and tools. Owns the
differences from the chat dialect; errors, usage and end are the chat dialect's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from mypy_extensions import mypyc_attr

from gai_fast.core.requests.reading import turns
from gai_fast.model.request import Request, TextPart, UserMessage
from gai_fast.providers.chat.answers import ChatAdapter, chunk_shape
from gai_fast.providers.chat.api import ChatAPI
from gai_fast.providers.requests.target import Target


@mypyc_attr(allow_interpreted_subclasses=True)
class CompletionsAPI(ChatAPI):
    """Builds requests of the dialect. A provider overrides the methods and fields in which it differs."""

    dialect = "completions"
    operation = "text_completion"
    path = "/completions"
    user_parts = frozenset({TextPart})
    text_parts = False
    needs_user = True
    knobs: ClassVar = {name: name for name in ("frequency_penalty", "presence_penalty", "logit_bias", "user")}
    lacks = frozenset({"tools", "tool_choice", "response_format", "reasoning", "metadata"})

    def adapter(self, model: str | None = None) -> CompletionsAdapter:
        return CompletionsAdapter(self, model)

    def body(self, request: Request, target: Target) -> dict[str, Any]:
        body: dict[str, Any] = {"model": target.model, "prompt": self.prompt(request, target)}
        self.add_sampling(body, request, target)
        return body

    def choices_in(self, body: Mapping[str, Any]) -> int:
        prompt = body.get("prompt")
        wanted = super().choices_in(body)
        if isinstance(prompt, list) and prompt and isinstance(prompt[0], (str, list)):
            return wanted * len(prompt)  # several prompts; numbers are the tokens of one
        return wanted

    def prompt(self, request: Request, target: Target) -> str:
        """Returns the text of the last message. This API accepts one message, of the user."""
        *others, (path, last) = turns(request)
        for other, _ in others:
            self.leave_out(other, target, "more than one message")
        if not isinstance(last, UserMessage):
            raise self.unsupported(path)
        content = self.content(last, path, target, self.user_parts)
        return content if isinstance(content, str) else ""


@mypyc_attr(allow_interpreted_subclasses=True)
class CompletionsAdapter(ChatAdapter):
    """Reads `choices[].text`."""

    ignored_members = ChatAdapter.ignored_members | {"logprobs"}
    text_members = frozenset({"text"})
    plain = chunk_shape({"text": "text"})
    other_places = dict.fromkeys(("delta", "message"), frozenset(("delta", "message", "content", "messages")))

    def message_in(self, choice: dict[str, Any], part: str) -> dict[str, Any] | None:
        return {"content": choice.get("text")}
