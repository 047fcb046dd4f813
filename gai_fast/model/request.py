"""The types of the native request.

Owns the fields of a request (`docs/http-api.md`). Knows no provider, no route and no header; a provider's file
decides what that provider supports. `core/requests/reading.py` parses requests: mypyc cannot compile msgspec's types.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType, field

from gai_fast.model.limits import SHARED

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
Summary = Literal["none", "auto", "concise", "detailed"]
Verbosity = Literal["low", "medium", "high"]
FormatType = Literal["text", "json", "json_schema"]
ToolType = Literal["function", "custom", "web_search", "code_execution"]
ToolChoice = Literal["auto", "none", "required"]

ToolPattern: TypeAlias = Annotated[str, Meta(min_length=1, max_length=SHARED.tool_pattern)]
Bias: TypeAlias = Annotated[int, Meta(ge=-100, le=100)] | Annotated[float, Meta(ge=-100, le=100)]
"""An integer stays one: OpenAI refuses fractions."""

_JSONObject: TypeAlias = Annotated[Raw, Meta(extra_json_schema={"type": "object"})]
"""The text of a JSON object; `reading` checks that the text is an object."""

# Fields get these from a `default_factory`, because msgspec cannot show JSON text as the default in a schema.
_EMPTY: Final = Raw(b"{}")
_ANY_OBJECT: Final = Raw(b'{"type":"object"}')


_TTL: TypeAlias = Annotated[str, Meta(pattern=r"^[0-9]{1,3}[smhd](?!\n)$")]


class CacheMark(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The end of a part of the prompt that is cached, with the least time that it is kept."""

    ttl: _TTL | UnsetType = UNSET


class Cache(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The caching of the prompt: a key that requests with equal beginnings share, and the least time."""

    key: Annotated[str, Meta(min_length=1)] | UnsetType = UNSET
    ttl: _TTL | UnsetType = UNSET


class TextPart(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="text"):
    """Text in a message of any role."""

    text: str
    cache: bool | CacheMark | UnsetType = UNSET


class ImagePart(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="image"):
    """An image: a `url` that only the provider fetches, or base64 `data` with its `media_type`."""

    url: str | UnsetType = UNSET
    data: str | UnsetType = UNSET
    media_type: str | UnsetType = UNSET
    cache: bool | CacheMark | UnsetType = UNSET


class AudioPart(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="audio"):
    """Base64 audio."""

    data: str
    media_type: str


class FilePart(
    Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    tag_field="type",
    tag="file",
):
    """A document: base64 `data` with its `media_type`, a `url` that only the provider fetches, or a file that a
    `provider` stores, by its `file_id`."""

    data: str = ""
    media_type: str = ""
    url: str = ""
    file_id: str = ""
    provider: str = ""
    filename: str | UnsetType = UNSET
    cache: bool | CacheMark | UnsetType = UNSET


class VideoPart(
    Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    tag_field="type",
    tag="video",
):
    """A video: a `url` that only the provider fetches, or base64 `data` with its `media_type`."""

    url: str = ""
    data: str = ""
    media_type: str = ""


class ReasoningPart(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="reasoning"):
    """Reasoning of an earlier turn, sent back with its signature; `redacted`: only the signature."""

    text: str = ""
    signature: str | UnsetType = UNSET
    redacted: bool = False
    provider: str | UnsetType = UNSET


class ToolCallPart(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="tool_call"):
    """A tool call of the assistant. `input` keeps the original JSON text."""

    call_id: str
    name: str
    input: _JSONObject = field(default_factory=lambda: _EMPTY)
    signature: str | UnsetType = UNSET


class ProviderBlockPart(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="provider_block"
):
    """A block that only its provider understands. It is sent to this provider unchanged, and left out for others."""

    provider: str
    block: _JSONObject


UserPart: TypeAlias = TextPart | ImagePart | AudioPart | FilePart | VideoPart | ProviderBlockPart
AssistantPart: TypeAlias = TextPart | ReasoningPart | ToolCallPart | ImagePart | AudioPart | ProviderBlockPart


class SystemMessage(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="role", tag="system"):
    """Instructions."""

    content: str | list[TextPart]


class UserMessage(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="role", tag="user"):
    """A message of the user."""

    content: str | list[UserPart]


class AssistantMessage(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="role", tag="assistant"
):
    """An earlier answer; `Result.message` is an assistant message."""

    content: str | list[AssistantPart]


class ToolMessage(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="role", tag="tool"):
    """The result of a tool call."""

    call_id: str
    content: str | list[TextPart | ImagePart | FilePart]
    is_error: bool = False


Message: TypeAlias = SystemMessage | UserMessage | AssistantMessage | ToolMessage


class SearchOptions(Struct, frozen=True, kw_only=True):
    """The `options` of a search that several providers have; all others are a provider's own, of any type."""

    allowed_domains: list[str] | UnsetType = UNSET
    blocked_domains: list[str] | UnsetType = UNSET
    user_location: dict[str, Any] | UnsetType = UNSET
    max_uses: Annotated[int, Meta(ge=1)] | UnsetType = UNSET
    context_size: Literal["low", "medium", "high"] | UnsetType = UNSET


class Tool(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tool that the model may use.

    By default a function of the client's with a `name`; `parameters` is a JSON Schema object, passed on as JSON text.
    `custom`: a tool of the client's whose input is text, of a `format` if there is one. `web_search` and
    `code_execution`: a tool that the provider runs, with `options`.
    """

    type: ToolType = "function"
    name: Annotated[str, Meta(min_length=1)] | UnsetType = UNSET
    options: dict[str, Any] | UnsetType = UNSET
    format: dict[str, Any] | UnsetType = UNSET
    description: str | UnsetType = UNSET
    parameters: _JSONObject = field(default_factory=lambda: _ANY_OBJECT)
    strict: bool | UnsetType = UNSET
    cache: bool | CacheMark | UnsetType = UNSET


class SharedTools(list[Tool]):
    """Tools that several requests have. Nobody changes it.

    Attributes:
        written: How providers write requests with them; `providers/chat/template.py` has the keys.
    """

    def __init__(self, tools: Iterable[Tool]) -> None:
        super().__init__(tools)
        self.written: dict[Any, Any] = {}


class NamedTool(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The one tool that must be called."""

    name: str


class ResponseFormat(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Plain text, any JSON, or JSON that follows a schema."""

    type: FormatType
    name: str | UnsetType = UNSET
    schema: _JSONObject | UnsetType = UNSET
    strict: bool | UnsetType = UNSET


class Reasoning(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The requested amount of reasoning, and whether the answer shows it."""

    effort: Effort | UnsetType = UNSET
    max_tokens: Annotated[int, Meta(ge=0, le=SHARED.max_tokens)] | UnsetType = UNSET
    summary: Summary | UnsetType = UNSET


class Request(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One native request, validated.

    `query` is separate from `messages`; `reading.conversation` joins them.
    """

    query: str | UnsetType = UNSET
    model: Annotated[str, Meta(min_length=1, max_length=SHARED.model_name)] | UnsetType = UNSET
    system: str | UnsetType = UNSET
    messages: list[Message] = []
    tools: list[Tool] = []
    tool_choice: ToolChoice | NamedTool | UnsetType = UNSET
    response_format: ResponseFormat | UnsetType = UNSET
    reasoning: Reasoning | UnsetType = UNSET
    temperature: Annotated[float, Meta(ge=0, le=2)] | UnsetType = UNSET
    top_p: Annotated[float, Meta(ge=0, le=1)] | UnsetType = UNSET
    max_tokens: Annotated[int, Meta(ge=1, le=SHARED.max_tokens)] | UnsetType = UNSET
    stop: list[str] = []
    seed: int | UnsetType = UNSET
    top_k: Annotated[int, Meta(ge=0)] | UnsetType = UNSET
    min_p: Annotated[float, Meta(ge=0, le=1)] | UnsetType = UNSET
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | UnsetType = UNSET
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | UnsetType = UNSET
    repetition_penalty: Annotated[float, Meta(gt=0)] | UnsetType = UNSET
    logit_bias: dict[str, Bias] = {}
    logprobs: bool | UnsetType = UNSET
    top_logprobs: Annotated[int, Meta(ge=0, le=SHARED.top_logprobs)] | UnsetType = UNSET
    parallel_tool_calls: bool | UnsetType = UNSET
    verbosity: Verbosity | UnsetType = UNSET
    service_tier: str | UnsetType = UNSET
    user: str | UnsetType = UNSET
    safety_identifier: str | UnsetType = UNSET
    cache: Cache | UnsetType = UNSET
    metadata: dict[str, Any] = {}
    provider_options: dict[str, dict[str, Any]] = {}
    extra: dict[str, Any] = {}
    json_snapshots: Annotated[int, Meta(ge=1)] | UnsetType = UNSET
    gateway_tools: Annotated[list[ToolPattern], Meta(max_length=SHARED.tool_patterns)] | UnsetType = UNSET
    max_steps: Annotated[int, Meta(ge=1)] | UnsetType = UNSET
    approvals: Literal["ask", "deny"] | UnsetType = UNSET
    stream: bool = True
    resumable: bool = False
    request_id: str | UnsetType = UNSET
    idempotency_key: str | UnsetType = UNSET

    def without_run_members(self) -> Request:
        """Returns the request without what it says about the gateway's tools."""
        return msgspec.structs.replace(self, gateway_tools=UNSET, max_steps=UNSET, approvals=UNSET)

    def with_prefill(self, text: str) -> Request:
        """Returns the request with an assistant message at its end, which the upstream continues."""
        messages = [*self.messages]
        if self.query is not UNSET:
            messages.append(UserMessage(content=self.query))
        return msgspec.structs.replace(self, messages=[*messages, AssistantMessage(content=text)], query=UNSET)


class CheckedBody(bytes):
    """A body whose structure has been checked: it is parsed without another check.

    Attributes:
        value: The object in it, if it is parsed already.
        containers: The number of its objects and arrays.
    """

    value: dict[str, Any] | None = None
    containers: int = 0
