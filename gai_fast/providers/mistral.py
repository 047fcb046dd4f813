"""Mistral: the chat dialect at `https://api.mistral.ai/v1/chat/completions`.

Source: mistralai 3.7 and Mistral's API reference. Besides the dialect:

* `stream_options` is not sent: older servers refused it (422), and the finish chunk always has usage.
* `delta.content` is text or a list of typed parts: text, thinking, references to documents of the request.
* A tool call's id may be the string `"null"` and its name empty: the fragment has no id or name. Arguments may be a
  JSON object.
* There are the finish reasons `error` and `model_length`. The seed is `random_seed`. `required` is `any` in
  `tool_choice`.
* A call that is sent back needs an id of nine letters and digits. Documents are `document_url`, audio is bare base64.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, ClassVar, Final

from gai_fast.model.events import Event
from gai_fast.model.request import (
    AssistantMessage,
    AudioPart,
    FilePart,
    Message,
    NamedTool,
    ReasoningPart,
    ToolCallPart,
    ToolMessage,
)
from gai_fast.providers._base import API, NO_HEADERS, Target, UpstreamRequest
from gai_fast.providers._chat import ChatAPI
from gai_fast.providers._chat_answers import ChatAdapter, Choice
from gai_fast.providers._requests import file_url

_ID: Final = re.compile("[A-Za-z0-9]{9}")


class Mistral(ChatAPI):
    """`base_url` is the host alone, as in Mistral's SDK, which appends `/v1`."""

    provider = "mistral"
    telemetry_name = "mistral_ai"
    base_url = "https://api.mistral.ai"
    key_variable = "MISTRAL_API_KEY"
    path = "/v1/chat/completions"
    seed_field = "random_seed"
    stream_options: ClassVar = {}
    tool_parts = ChatAPI.user_parts

    def adapter(self, model: str | None = None) -> MistralAdapter:
        return MistralAdapter(self, model)

    def build_passthrough(
        self, body: Mapping[str, Any], target: Target, headers: Mapping[str, str] = NO_HEADERS
    ) -> UpstreamRequest:
        return super().build_passthrough({key: body[key] for key in body if key != "stream_options"}, target, headers)

    def tool_choice(self, wanted: str | NamedTool) -> Any:
        return "any" if wanted == "required" else super().tool_choice(wanted)

    def message(self, message: Message, path: str, target: Target) -> dict[str, Any] | None:
        whole = super().message(message, path, target)
        if whole and isinstance(message, ToolMessage):
            whole["tool_call_id"] = _call_id(message.call_id)
        return whole

    def part(self, part: Any) -> dict[str, Any]:
        if isinstance(part, AudioPart):
            return {"type": "input_audio", "input_audio": part.data}
        if isinstance(part, FilePart):
            name = {"document_name": part.filename} if part.filename else {}
            return {"type": "document_url", "document_url": file_url(part), **name}
        return super().part(part)

    def assistant(self, message: AssistantMessage, path: str, target: Target) -> dict[str, Any] | None:
        whole = super().assistant(message, path, target) or {}
        thoughts = whole.pop("thinking", None)
        if thoughts:
            text = [{"type": "text", "text": whole["content"]}] if whole["content"] else []
            whole["content"] = thoughts + text
        return whole

    def earlier_reasoning(self, parts: list[ReasoningPart], target: Target, *, has_calls: bool) -> dict[str, Any]:
        return {"thinking": [_thinking(part) for part in parts if part.text]}

    def earlier_call(self, call: ToolCallPart) -> dict[str, Any]:
        return super().earlier_call(call) | {"id": _call_id(call.call_id)}


def _call_id(identifier: str) -> str:
    """Returns an id that Mistral accepts: the id if it has Mistral's form, else nine characters derived from it."""
    return identifier if _ID.fullmatch(identifier) else sha256(identifier.encode()).hexdigest()[:9]


def _thinking(part: ReasoningPart) -> dict[str, Any]:
    thought: dict[str, Any] = {"type": "thinking", "thinking": [{"type": "text", "text": part.text}]}
    return thought | {"signature": part.signature} if part.signature else thought


class MistralAdapter(ChatAdapter):
    """Reads references, and treats the id `"null"` as a missing id."""

    text_members = ChatAdapter.text_members | {"text"}  # the text of a thought

    def call_id(self, identifier: str) -> str:
        return "" if identifier == "null" else identifier

    def read_part(self, choice: Choice, part: dict[str, Any]) -> list[Event]:
        if part.get("type") == "reference":
            at = choice.characters
            return self.citations(
                {"uri": str(reference), "start": at, "end": at}
                for reference in dict.fromkeys(part.get("reference_ids") or ())
            )
        return super().read_part(choice, part)


APIS: Final[dict[str, API]] = {"": Mistral()}
