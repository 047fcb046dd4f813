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

from typing import Any, ClassVar, Final

from gai_fast.model.events import Event
from gai_fast.model.request import (
    AssistantMessage,
    AudioPart,
    FilePart,
    NamedTool,
    ReasoningPart,
    Request,
)
from gai_fast.providers.chat.answers import ChatAdapter, Choice
from gai_fast.providers.chat.api import ChatAPI
from gai_fast.providers.chat.mends import (
    AnswerAfterResults,
    ChatChoiceNeedsTools,
    ChatPairs,
    NoLateSystem,
    Prefix,
    Tools,
)
from gai_fast.providers.chat.rules import ChatRules, Role, as_known
from gai_fast.providers.requests.api import API
from gai_fast.providers.requests.empty_messages import NoEmptyMessages
from gai_fast.providers.requests.parts import file_url
from gai_fast.providers.requests.routes import MISTRAL_ROUTES
from gai_fast.providers.requests.rules import CallIds, MemberRule, RequestRules
from gai_fast.providers.requests.target import Target


def _audio(part: dict[str, Any]) -> dict[str, Any] | None:
    """Returns audio as bare base64."""
    audio = part.get("input_audio")
    return {"type": "input_audio", "input_audio": audio.get("data") if isinstance(audio, dict) else audio}


def _file(part: dict[str, Any]) -> dict[str, Any] | None:
    """Returns a file's data as a document; a file that is stored elsewhere has no place."""
    file = part.get("file")
    if not isinstance(file, dict):
        return part
    if not file.get("file_data"):
        return None
    name = {"document_name": file["filename"]} if file.get("filename") else {}
    return {"type": "document_url", "document_url": file["file_data"], **name}


_PARTS: Final[dict[str, Any]] = {
    **dict.fromkeys(("image_url", "document_url", "reference", "thinking", "resource", "resource_link")),
    "input_audio": _audio,
    "file": _file,
}


def _rules(parts: dict[str, Any]) -> ChatRules:
    """Returns the rules of a model.

    Args:
        parts: The parts of its messages, as for `Role`.
    """
    thoughts: dict[str, Any] = {"thinking": None} if "thinking" in parts else {}
    return ChatRules(
        "mistral",
        "mistralai 3.7.0, 2026-11-25",
        strict=True,
        members={
            **as_known(
                "model messages top_p max_tokens stream stop random_seed metadata response_format "
                "tool_choice presence_penalty frequency_penalty min_tokens repetition_penalty top_k logprobs "
                "top_logprobs prompt_logprobs top_prompt_logprobs n prediction parallel_tool_calls reasoning_effort "
                "prompt_mode guardrails prompt_cache_key service_tier safe_prompt"
            ),
            "max_completion_tokens": MemberRule("max_tokens", is_newer=True),
            "temperature": MemberRule(most=1.5),
            "seed": MemberRule("random_seed"),
            "service_tier": MemberRule(words={"default": "standard_only", "flex": "standard_only", "priority": "auto"}),
            "tools": MemberRule(write=Tools("mistral", needs_parameters=True)),
        },
        call_ids=CallIds("[A-Za-z0-9]{9}", 9),
        mends=[
            ChatChoiceNeedsTools("mistral"),
            ChatPairs("mistral", results_last=True),
            NoEmptyMessages(),
            NoLateSystem(),
            AnswerAfterResults(),
            Prefix(),
        ],
        roles={
            "system": Role("system", parts=thoughts),
            "developer": Role("system", parts=thoughts),
            "user": Role("user", parts=parts),
            "assistant": Role("assistant", frozenset(("tool_calls", "prefix")), parts),
            "tool": Role("tool", frozenset(("tool_call_id", "name")), parts),
        },
        keeps=frozenset(("reference", *thoughts)),
        has_functions=False,
    )


_WITHOUT_THOUGHTS: Final = _rules({kind: write for kind, write in _PARTS.items() if kind != "thinking"})
"""The rules of models that do not think, which may refuse thoughts in a conversation."""


class Mistral(ChatAPI):
    """`base_url` is the host alone, as in Mistral's SDK, which appends `/v1`."""

    provider = "mistral"
    routes = MISTRAL_ROUTES
    telemetry_name = "mistral_ai"
    base_url = "https://api.mistral.ai"
    key_variable = "MISTRAL_API_KEY"
    path = "/v1/chat/completions"
    models_path = "/v1/models"
    stream_options: ClassVar = {}
    tool_parts = ChatAPI.user_parts
    caches_by_key = True
    rules: ClassVar = _rules(_PARTS)

    def rules_of(self, target: Target) -> RequestRules:
        return _WITHOUT_THOUGHTS if self.facts(target).never_thinks else self.rules

    def adapter(self, model: str | None = None) -> MistralAdapter:
        return MistralAdapter(self, model)

    def body(self, request: Request, target: Target) -> dict[str, Any]:
        body = super().body(request, target)
        if request.cache and request.cache.key:
            body["prompt_cache_key"] = request.cache.key
        return body

    def tool_choice(self, wanted: str | NamedTool) -> Any:
        return "any" if wanted == "required" else super().tool_choice(wanted)

    def part(self, part: Any) -> dict[str, Any]:
        if isinstance(part, AudioPart):
            return {"type": "input_audio", "input_audio": part.data}
        if isinstance(part, FilePart) and not part.file_id:
            name = {"document_name": part.filename} if part.filename else {}
            return {"type": "document_url", "document_url": part.url or file_url(part), **name}
        return super().part(part)

    def assistant(self, message: AssistantMessage, path: str, target: Target) -> dict[str, Any] | None:
        whole = super().assistant(message, path, target) or {}
        thoughts = whole.pop("thinking", None)
        if thoughts:
            text = [{"type": "text", "text": whole["content"]}] if whole["content"] else []
            whole["content"] = thoughts + text
        return whole

    def earlier_reasoning(self, parts: list[ReasoningPart], target: Target, *, has_calls: bool) -> dict[str, Any]:
        return {} if self.facts(target).never_thinks else {"thinking": [_thinking(part) for part in parts if part.text]}


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
            at, named = choice.characters, dict.fromkeys(part.get("reference_ids") or ())
            return self.citations([{"uri": str(each), "start": at, "end": at} for each in named], choice.number)
        return super().read_part(choice, part)


APIS: Final[dict[str, API]] = {"": Mistral()}
