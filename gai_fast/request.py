"""The native request: its shape, its validation, its errors.

Owns what a caller may ask for (CONTRACT §4 "Native request"). Knows no provider, no route and no header; what a
provider cannot do is for the provider's file to say.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from gai_fast.errors import InvalidRequest
from gai_fast.limits import LIMITS

Effort = Literal["minimal", "low", "medium", "high"]


class TextPart(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="text"):
    """Text of any role."""

    text: str


class ImagePart(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="image"):
    """An image: a `url` that only the provider fetches, or base64 `data` with its `media_type`."""

    url: str | UnsetType = UNSET
    data: str | UnsetType = UNSET
    media_type: str | UnsetType = UNSET


class AudioPart(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="audio"):
    """Base64 audio."""

    data: str
    media_type: str


class FilePart(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="file"):
    """A base64 document."""

    data: str
    media_type: str
    filename: str | UnsetType = UNSET


class ReasoningPart(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="reasoning"):
    """Reasoning of an earlier turn, sent back with its signature; `redacted` where the signature is all there is."""

    text: str = ""
    signature: str | UnsetType = UNSET
    redacted: bool = False
    provider: str | UnsetType = UNSET


class ToolCallPart(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="tool_call"):
    """A call the assistant made. `input` keeps the JSON text as it came."""

    call_id: str
    name: str
    input: Raw = Raw(b"{}")
    signature: str | UnsetType = UNSET


UserPart: TypeAlias = TextPart | ImagePart | AudioPart | FilePart
AssistantPart: TypeAlias = TextPart | ReasoningPart | ToolCallPart | ImagePart | AudioPart


class SystemMessage(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="role", tag="system"):
    """Instructions."""

    content: str | list[TextPart]


class UserMessage(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="role", tag="user"):
    """What the user said or sent."""

    content: str | list[UserPart]


class AssistantMessage(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="role", tag="assistant"
):
    """An earlier answer; `Result.message` is one."""

    content: str | list[AssistantPart]


class ToolMessage(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="role", tag="tool"):
    """The result of a tool call."""

    call_id: str
    content: str | list[TextPart | ImagePart]
    is_error: bool = False


Message: TypeAlias = SystemMessage | UserMessage | AssistantMessage | ToolMessage


class Tool(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A function the model may call; `parameters` is a JSON Schema object, passed on as its JSON text."""

    name: Annotated[str, Meta(min_length=1)]
    description: str | UnsetType = UNSET
    parameters: Raw = Raw(b'{"type":"object"}')
    strict: bool | UnsetType = UNSET


class NamedTool(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The one tool that must be called."""

    name: str


class ResponseFormat(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Plain text, any JSON, or JSON by a schema."""

    type: Literal["text", "json", "json_schema"]
    name: str | UnsetType = UNSET
    schema: Raw | UnsetType = UNSET
    strict: bool | UnsetType = UNSET


class Reasoning(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much the model should think."""

    effort: Effort | UnsetType = UNSET
    max_tokens: Annotated[int, Meta(ge=0, le=LIMITS.max_tokens)] | UnsetType = UNSET


class Request(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One native request, validated.

    `query` is kept apart from `messages`; read `conversation` for both together.
    """

    query: str | UnsetType = UNSET
    model: Annotated[str, Meta(min_length=1, max_length=256)] | UnsetType = UNSET
    system: str | UnsetType = UNSET
    messages: list[Message] = []
    tools: list[Tool] = []
    tool_choice: Literal["auto", "none", "required"] | NamedTool | UnsetType = UNSET
    response_format: ResponseFormat | UnsetType = UNSET
    reasoning: Reasoning | UnsetType = UNSET
    temperature: Annotated[float, Meta(ge=0, le=2)] | UnsetType = UNSET
    top_p: Annotated[float, Meta(ge=0, le=1)] | UnsetType = UNSET
    max_tokens: Annotated[int, Meta(ge=1, le=LIMITS.max_tokens)] | UnsetType = UNSET
    stop: list[str] = []
    seed: int | UnsetType = UNSET
    metadata: dict[str, Any] = {}
    provider_options: dict[str, dict[str, Any]] = {}
    json_snapshots: Annotated[int, Meta(ge=1)] | UnsetType = UNSET
    stream: bool = True
    resumable: bool = False
    request_id: str | UnsetType = UNSET
    idempotency_key: str | UnsetType = UNSET

    @property
    def conversation(self) -> list[Message]:
        """The messages, `system` first and `query` last where given."""
        return [message for _, message in self.turns]

    @property
    def turns(self) -> list[tuple[str, Message]]:
        """The conversation, each message with its path in the request: `messages[2]`, `system` or `query`."""
        turns: list[tuple[str, Message]] = []
        if self.system is not UNSET:
            turns.append(("system", SystemMessage(content=self.system)))
        for at, message in enumerate(self.messages):
            turns.append((f"messages[{at}]", message))
        if self.query is not UNSET:
            turns.append(("query", UserMessage(content=self.query)))
        return turns

    def with_prefill(self, text: str) -> Request:
        """The same request with a beginning of its answer, for upstreams that go on from one."""
        messages = [*self.messages]
        if self.query is not UNSET:
            messages.append(UserMessage(content=self.query))
        return msgspec.structs.replace(self, messages=[*messages, AssistantMessage(content=text)], query=UNSET)

    @property
    def characters(self) -> int:
        """The characters of all texts, for an estimate where no tokens are counted."""
        counted = (len(self.system) if self.system else 0) + (len(self.query) if self.query else 0)
        for message in self.messages:
            if isinstance(message.content, str):
                counted += len(message.content)
            else:
                counted += sum(len(getattr(part, "text", "")) for part in message.content)
        return counted


_T = TypeVar("_T")

_DECODER: Final = msgspec.json.Decoder(Request)
_OBJECT_DECODER: Final = msgspec.json.Decoder(dict[str, Any])


def parse_request(body: bytes) -> Request:
    """Reads and validates a native request.

    Args:
        body: One JSON object, UTF-8 without a byte order mark.

    Raises:
        InvalidRequest: Not JSON (with the byte offset), nested deeper than `limits.json_depth`, an unknown field, a
            `null`, a wrong type or a value out of range; the text names the field by its path and never quotes a value.
    """
    request = _decoded(_DECODER, body)
    if request.messages or request.tools or request.response_format:
        _check_parts(request)
    if not request.messages and request.query is UNSET:
        raise _invalid("it is empty: give `query` or `messages`")
    return request


def parse_object(body: bytes) -> dict[str, Any]:
    """Reads a client's request of another dialect: any JSON object, integers exact, of duplicate keys the last.

    Raises:
        InvalidRequest: Not a JSON object, or nested deeper than `limits.json_depth`.
    """
    return _decoded(_OBJECT_DECODER, body)


def _decoded(decoder: msgspec.json.Decoder[_T], body: bytes) -> _T:
    try:
        if not body.isascii():
            body.decode()
        if body.count(b"[") + body.count(b"{") > LIMITS.json_depth:
            _check_depth(body)
        return decoder.decode(body)
    except UnicodeDecodeError as problem:
        raise _not_json(f"it is not UTF-8 (byte {problem.start})") from None
    except msgspec.ValidationError as problem:
        raise _invalid(_QUOTED.sub(r"\1", str(problem)) + _nearest(str(problem))) from None
    except msgspec.DecodeError as problem:
        if str(problem) != "Input data was truncated":
            raise _not_json(str(problem).removeprefix("JSON is malformed: ")) from None
        # msgspec says so of an unpaired surrogate as well.
        half = _HALF.search(body)
        if half is None:
            raise _not_json(f"it ends too early (byte {len(body)})") from None
        raise _not_json(f"a string holds half of a surrogate pair (byte {half.start()})") from None


def _check_depth(body: bytes) -> None:
    """Refuses JSON nested deeper than `limits.json_depth`, before any parser recurses into it.

    Raises:
        InvalidRequest: Too deep.
    """
    limit, depth = LIMITS.json_depth, 0
    for run in _BRACKETS.findall(_STRING.sub(b"", body)):
        depth += len(run) if run[0] in b"[{" else -len(run)
        if depth > limit:
            raise InvalidRequest(message=f"The body is nested deeper than {limit} levels", reason="depth")


# A string without an end reaches to the end of the body: looking for its end again from each quote in it would take
# quadratic time.
_STRING: Final = re.compile(rb'"(?:[^"\\]+|\\.?)*+(?:"|\Z)', re.S)
_BRACKETS: Final = re.compile(rb"[\[{]+|[\]}]+")
_HALF: Final = re.compile(rb"\\u[dD][89abAB]..(?!\\u[dD][c-fC-F])", re.S)


def _nearest(problem: str) -> str:
    """The known field that an unknown one is most like, where there is one."""
    found = _UNKNOWN.search(problem)
    close = get_close_matches(found[1], _FIELDS, 1) if found is not None else []
    return f"; did you mean {close[0]!r}?" if close else ""


_UNKNOWN: Final = re.compile(r"unknown field `([^`]{1,64})`")
_FIELDS: Final = sorted(
    {
        name
        for kind in (
            Request,
            Tool,
            ResponseFormat,
            Reasoning,
            UserMessage,
            AssistantMessage,
            ToolMessage,
            TextPart,
            ImagePart,
            FilePart,
            ReasoningPart,
            ToolCallPart,
        )
        for name in kind.__struct_fields__
    }
)
_QUOTED: Final = re.compile(r"(Invalid (?:enum )?value) '.*'", re.S)
"""What msgspec quotes of a request; a field's name is its path, and stays."""


def _check_parts(request: Request) -> None:
    """What the types cannot say."""
    for index, message in enumerate(request.messages):
        for at, part in enumerate(() if isinstance(message.content, str) else message.content):
            if isinstance(part, ImagePart) and (part.url is UNSET) == (part.data is UNSET):
                raise _invalid(f"an image needs either `url` or `data` - at `$.messages[{index}].content[{at}]`")
    for index, tool in enumerate(request.tools):
        _check_object(tool.parameters, f"tools[{index}].parameters")
    if request.response_format and request.response_format.schema:
        _check_object(request.response_format.schema, "response_format.schema")


def _check_object(schema: Raw, path: str) -> None:
    if not bytes(schema).lstrip().startswith(b"{"):
        raise _invalid(f"Expected `object` - at `$.{path}`")


def _not_json(why: str) -> InvalidRequest:
    return InvalidRequest(message=f"The body is not JSON: {why}", reason="json")


def _invalid(what: str) -> InvalidRequest:
    return InvalidRequest(message=f"The request is not valid: {what}", reason="validation")
