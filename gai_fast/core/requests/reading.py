"""Reads native requests: a body into a `Request` with every error of its shape, and its messages in order.

Separate from `model/request.py`, which has the types, because this module is compiled.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final, TypeVar, get_args

import msgspec
from msgspec import UNSET, Raw, Struct
from msgspec.structs import replace

from gai_fast.core.json.limits import LIMITS as JSON
from gai_fast.core.json.structure import Structure, may_have_long_numbers
from gai_fast.core.requests.limits import LIMITS
from gai_fast.kernels import count_opening, cut_member, parse_exact
from gai_fast.model.errors import InvalidRequest
from gai_fast.model.events import DELTAS, Event
from gai_fast.model.limits import SHARED
from gai_fast.model.request import (
    AssistantMessage,
    AssistantPart,
    CheckedBody,
    Effort,
    FilePart,
    FormatType,
    ImagePart,
    Message,
    ProviderBlockPart,
    Reasoning,
    ReasoningPart,
    Request,
    ResponseFormat,
    SearchOptions,
    Summary,
    SystemMessage,
    TextPart,
    Tool,
    ToolCallPart,
    ToolChoice,
    ToolMessage,
    ToolType,
    UserMessage,
    UserPart,
    Verbosity,
    VideoPart,
)

_UNSET: Final = UNSET  # a constant: a name look-up costs 30 ns
_PATHS: Final = [f"messages[{at}]" for at in range(100)]
"""The paths of the first messages. Writing one costs 560 instructions, and only errors need it."""


def turns(request: Request) -> list[tuple[str, Message]]:
    """Returns the messages, each with its path in the request: `messages[2]`, `system` or `query`."""
    found: list[tuple[str, Message]] = []
    if request.system is not _UNSET:
        found.append(("system", SystemMessage(content=request.system)))
    messages: list[Message] = request.messages
    for at, message in enumerate(messages):
        found.append((_PATHS[at] if at < len(_PATHS) else f"messages[{at}]", message))
    if request.query is not _UNSET:
        found.append(("query", UserMessage(content=request.query)))
    return found


def conversation(request: Request) -> list[Message]:
    """Returns the messages, `system` first and `query` last."""
    return [message for _, message in turns(request)]


def provider_blocks(request: Request) -> list[Any]:
    """Returns the providers' own blocks in the messages of a request, and its files that a provider stores."""
    found: list[Any] = []
    messages: list[Message] = request.messages
    for message in messages:
        content = message.content
        if isinstance(content, str):
            continue
        for part in content:
            if isinstance(part, ProviderBlockPart):
                found.append(parse_exact(bytes(part.block).decode()))
            elif isinstance(part, FilePart) and part.file_id:
                found.append({"file_id": part.file_id})
    return found


def has_run_members(request: Request) -> bool:
    """Returns whether a request says something about the gateway's tools."""
    # No property of the request: mypyc does not compile those, and one costs each request 700 instructions.
    return request.gateway_tools is not _UNSET or request.max_steps is not _UNSET or request.approvals is not _UNSET


def characters(request: Request) -> int:
    """Counts the characters of all texts of a request, for an estimate if no tokens are counted."""
    counted = (len(request.system) if request.system else 0) + (len(request.query) if request.query else 0)
    return counted + characters_of_messages(request.messages)


def characters_of_messages(messages: Sequence[Message]) -> int:
    """Counts the characters of all texts of messages, as `characters`."""
    counted = 0
    for message in messages:
        content = message.content
        if isinstance(content, str):
            counted += len(content)
        else:
            counted += sum([len(part.text) for part in content if isinstance(part, (TextPart, ReasoningPart))])
    return counted


CHARACTERS_PER_TOKEN: Final = 4
"""Approximate characters of a token."""


def estimated_tokens(text: int) -> int:
    """Estimates tokens by length: about four characters per token, a rule of thumb of OpenAI's documentation.

    Args:
        text: The number of characters.
    """
    return -(-text // CHARACTERS_PER_TOKEN)


def estimated_usage(prompt: int, answer: int, source: str) -> dict[str, Any]:
    """Estimates a usage by length.

    Args:
        prompt: The number of characters of the request.
        answer: The number of characters of the answer.
        source: The `source` of the usage.
    """
    into, out = estimated_tokens(prompt), estimated_tokens(answer)
    return {"input_tokens": into, "output_tokens": out, "total_tokens": into + out, "source": source}


def members_for_scores(request: Request | Mapping[str, Any]) -> list[str]:
    """Returns the paths of the members by which a request asks for probabilities of tokens.

    Args:
        request: A native request, or the client's own body.
    """
    if isinstance(request, Request):
        asked: Any = None if request.logprobs is UNSET else request.logprobs
        top: Any = None if request.top_logprobs is UNSET else request.top_logprobs
    else:
        asked, top = request.get("logprobs"), request.get("top_logprobs")
    found = [] if asked is None or asked is False else ["logprobs"]  # completions ask by a number, which may be 0
    if top:
        found.append("top_logprobs")
    include = None if isinstance(request, Request) else request.get("include")
    if isinstance(include, list):
        found += [f"include[{at}]" for at, each in enumerate(include) if each == "message.output_text.logprobs"]
    return found


def characters_of_media(event: Event) -> int:
    """Returns the characters with as many estimated tokens as a generated image or sound; 0 for other events.

    Args:
        event: Any event.
    """
    kind = event["type"]
    if kind == "audio.delta":
        return -(-len(event["audio"].get("chunk", "")) * CHARACTERS_PER_TOKEN // LIMITS.sound_token)
    if kind == "image" and not event["image"].get("partial"):
        return LIMITS.image_tokens * CHARACTERS_PER_TOKEN
    return 0


def characters_of(event: Event) -> int:
    """Returns the characters of an event's content, as they are counted for an estimate.

    Args:
        event: Any event.
    """
    key = DELTAS.get(event["type"])
    return characters_of_media(event) if key is None else len(event[key])  # type: ignore[literal-required]  # as typed


_T = TypeVar("_T")

_DECODER: Final = msgspec.json.Decoder(Request)
_OBJECT_DECODER: Final = msgspec.json.Decoder(dict[str, Any])
_MEMBERS_DECODER: Final = msgspec.json.Decoder(dict[str, Raw])
_ANY_DECODER: Final = msgspec.json.Decoder()
_FRACTION: Final = "Expected `int`, got `float`"


def parse_request(body: bytes) -> Request:
    """Reads and validates a native request. `5.0` is an integer, as in JSON Schema.

    Args:
        body: One JSON object, UTF-8 without a byte order mark.

    Raises:
        InvalidRequest: The body is not JSON (with the byte offset), is nested deeper than `limits.json_depth`, has an
            unknown field, a `null`, a wrong type or a value out of range, or has more values than `limits.json_values`
            or `limits.json_containers`. The text names the field by its path and never quotes a value.
    """
    try:
        request = decode_json(_DECODER, body)
    except InvalidRequest as problem:
        if _FRACTION not in problem.message:
            raise
        request = decode_json(_DECODER, _with_integers(body))
    messages: list[Message] = request.messages
    may_be_marked = _check_parts(request, messages)
    if not messages and request.query is UNSET:
        raise _invalid("it is empty: give `query` or `messages`")
    return _with_latest_marks(request) if may_be_marked and b'"cache"' in body else request


def _with_latest_marks(request: Request) -> Request:
    """Returns a request with its latest `limits.cache_marks` marks. A prompt begins with the tools."""
    most = LIMITS.cache_marks - (request.cache is not UNSET)
    marks = [(-1, at) for at, tool in enumerate(request.tools) if tool.cache]
    for index, message in enumerate(request.messages):
        if not isinstance(message.content, str):
            marks += [(index, at) for at, part in enumerate(message.content) if getattr(part, "cache", UNSET)]
    if len(marks) <= most:
        return request
    tools: list[Any] = [*request.tools]
    messages: list[Any] = [*request.messages]
    for index, at in marks[:-most]:
        if index < 0:
            tools[at] = replace(tools[at], cache=UNSET)
        else:
            content = [*messages[index].content]
            content[at] = replace(content[at], cache=UNSET)
            messages[index] = replace(messages[index], content=content)
    return replace(request, tools=tools, messages=messages)


def _with_integers(body: bytes) -> bytes:
    """Returns a request with its integers written without `.0`, otherwise unchanged.

    Args:
        body: A request in which some member is a fraction. The text after this member may not be JSON.

    Raises:
        InvalidRequest: The body is not a JSON object, or one of these members is too large for a float.
    """
    members = decode_json(_MEMBERS_DECODER, body)
    for name in ("json_snapshots", "max_tokens", "seed", "top_k", "top_logprobs"):
        _write_integer(members, name)
    reasoning = bytes(members.get("reasoning", b""))
    if reasoning.startswith(b"{"):
        inner = decode_json(_MEMBERS_DECODER, reasoning)
        _write_integer(inner, "max_tokens")
        members["reasoning"] = Raw(msgspec.json.encode(inner))
    return msgspec.json.encode(members)


def _write_integer(members: dict[str, Raw], name: str) -> None:
    """Removes the `.0` of a member, if it has one. Raises as `_with_integers`."""
    if name in members:
        value = decode_json(_ANY_DECODER, bytes(members[name]))
        if isinstance(value, float) and value.is_integer():
            members[name] = Raw(str(int(value)).encode())


def parse_object(body: bytes) -> dict[str, Any]:
    """Reads a request of another dialect: any JSON object. Integers are exact; the last of duplicate keys counts.

    Raises:
        InvalidRequest: The body is not a JSON object, is nested deeper than `limits.json_depth`, or has too many
            values.
    """
    if type(body) is _CheckedBody and body.value is not None:
        return body.value
    return decode_json(_OBJECT_DECODER, body)


def parse_members(body: bytes) -> dict[str, Raw]:
    """Reads a JSON object whose members are passed on as they are; as `parse_object`."""
    return decode_json(_MEMBERS_DECODER, body)


def cut_body(body: bytes, name: bytes) -> tuple[str, bytes, bytes] | None:
    """Cuts a JSON object at a text, as `parse_members` reads it and msgspec writes it.

    Args:
        body: The object.
        name: The name of the text.

    Returns:
        As `cut_member`. None if `parse_members` must read the body.
    """
    # A body that is short has not too many values, and what is cut is not too deep.
    return _cut_member(body, name) if type(body) is bytes and len(body) <= _SHORT else None


def check_members(given: Mapping[str, Any], kind: type[Struct], path: str) -> None:
    """Checks the members of a JSON object that a type defines. Other members may have any type.

    Args:
        given: The parsed object.
        kind: The type.
        path: The object's path in the request, from `$` on.

    Raises:
        InvalidRequest: A member has another type; the text names its path and never quotes a value.
    """
    try:
        msgspec.convert(given, kind)
    except msgspec.ValidationError as problem:
        raise _invalid(_unquoted(str(problem)).replace("`$", f"`{path}", 1)) from None


def _unquoted(problem: str) -> str:
    """Returns msgspec's message without the quoted value."""
    return _QUOTED.sub(r"\1", problem)


def decode_json(decoder: msgspec.json.Decoder[_T], body: bytes, depth: int = SHARED.json_depth) -> _T:
    """Reads JSON from a client.

    Args:
        decoder: The decoder.
        body: The JSON.
        depth: The maximum nesting.

    Raises:
        InvalidRequest: As `parse_request`; `reason` is `json`, `depth`, `items` or `validation`.
    """
    try:
        if not body.isascii():
            body.decode()
        if type(body) is not _CheckedBody:
            opened = _count_opening(body)
            # Commas and colons of a short body are not counted, which would cost 500 instructions.
            if opened > depth or (len(body) > _SHORT and _may_have_too_many(body, opened)):
                Structure(depth).feed(body)
        return decoder.decode(body)
    except UnicodeDecodeError as problem:
        raise _not_json(f"it is not UTF-8 (byte {problem.start})") from None
    except msgspec.ValidationError as problem:
        raise _invalid(_unquoted(str(problem)) + _hint(str(problem), body)) from None
    except msgspec.DecodeError as problem:
        if str(problem) != "Input data was truncated":
            raise _not_json(str(problem).removeprefix("JSON is malformed: ")) from None
        # msgspec reports a lone surrogate with the same message.
        half = _HALF.search(body)
        if half is None:
            empty = "" if body else ": it is empty"
            raise _not_json(f"it ends too early (byte {len(body)}){empty}") from None
        raise _not_json(f"a string holds half of a surrogate pair (byte {half.start()})") from None


def _may_have_too_many(body: bytes, opened: int) -> bool:
    """Returns whether a body may have too many values or digits, counting those inside its strings."""
    is_suspect = opened + body.count(b",") > _VALUES or body.count(b":") > JSON.object_members
    return is_suspect or may_have_long_numbers(body)


_VALUES: Final = JSON.json_values
# Constants: a name look-up costs 30 ns.
_CheckedBody: Final = CheckedBody
_count_opening: Final = count_opening
_cut_member: Final = cut_member
_SHORT: Final = 5 * JSON.object_members
"""Bytes of a body that has not too many members: each has five at least."""
_HALF: Final = re.compile(rb"\\u[dD][89abAB]..(?!\\u[dD][c-fC-F])", re.S)


def _hint(problem: str, body: bytes) -> str:
    """Returns a hint: the route of another API's field, the known field most similar to an unknown one, or the valid
    values of a field.
    """
    found = _UNKNOWN.search(problem)
    if found is None and _NULL_CONTENT.search(problem):
        return f'; a message without text has the content "", a native call is a part of it; {_OPENAI}'
    if found is None:
        refused = _REFUSED.search(problem)
        known = _CHOICES.get(_INDEX.sub("[]", refused[1])) if refused else None
        flat = f"; {_OTHER_SHAPES['image_url']}" if _OPENAI_PART.search(body) else ""
        return f"; known: {known}{flat}" if known else ""
    if found[1] == "type" and problem.endswith("`$.tool_choice`"):
        return f'; a native choice is a word or {{"name": …}}; {_OPENAI}, {_ANTHROPIC}'
    if found[1] in _OTHER_SHAPES:
        return f"; {_OTHER_SHAPES[found[1]]}"
    if found[1] in _OTHER_NAMES:
        return f"; did you mean {_OTHER_NAMES[found[1]]!r}?"
    close = get_close_matches(found[1], [name for name in _FIELDS if name != found[1]], 1)
    return f"; did you mean {close[0]!r}?" if close else ""


_OPENAI: Final = "OpenAI's requests go to /v1/chat/completions"
_ANTHROPIC: Final = "Anthropic's requests go to /v1/messages"
_OTHER_SHAPES: Final = {
    "function": f"native tools are flat; {_OPENAI}",
    "tool_calls": f"native calls are parts of type tool_call; {_OPENAI}",
    "tool_call_id": f"a native result has `call_id`; {_OPENAI}",
    "json_schema": f"a native format has `schema` itself; {_OPENAI}",
    "image_url": f"native parts are flat; {_OPENAI}",
    "input_schema": f"a native tool has `parameters`; {_ANTHROPIC}",
    "source": f"native parts are flat; {_ANTHROPIC}",
}
"""Members of other APIs whose native form has another shape."""
_NULL_CONTENT: Final = re.compile(r"got `null` - at `\$\.messages\[\d+\]\.content`$")
_OPENAI_PART: Final = re.compile(rb'"(?:image_url|input_audio)"\s*:')
_OTHER_NAMES: Final = {
    "prompt": "query",
    "input": "query",
    "max_output_tokens": "max_tokens",
    "max_completion_tokens": "max_tokens",
    "stop_sequences": "stop",
    "instructions": "system",
    "format": "response_format",
}
"""Names that other APIs give to members of a native request."""
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
            ProviderBlockPart,
            VideoPart,
        )
        for name in kind.__struct_fields__
    }
)
_PARTS: Final = dict.fromkeys([*get_args(UserPart), *get_args(AssistantPart)])
_CHOICES: Final[dict[str, str]] = {
    "messages[].role": ", ".join(kind.__struct_config__.tag for kind in get_args(Message)),
    "messages[].content[].type": ", ".join(kind.__struct_config__.tag for kind in _PARTS) + ", as the role allows",
    "response_format.type": ", ".join(get_args(FormatType)),
    "reasoning.effort": ", ".join(get_args(Effort)),
    "reasoning.summary": ", ".join(get_args(Summary)),
    "verbosity": ", ".join(get_args(Verbosity)),
    "tool_choice": ", ".join(get_args(ToolChoice)),
    "tools[].type": ", ".join(get_args(ToolType)),
}
"""The valid values of fields with a fixed set of values, by path."""
_REFUSED: Final = re.compile(r"^Invalid (?:enum )?value .* - at `\$\.([^`]*)`$", re.S)
_INDEX: Final = re.compile(r"\[[^\]]*\]")
_QUOTED: Final = re.compile(r"(Invalid (?:enum )?value) '.*'", re.S)
"""Values of a request that msgspec quotes. Field names stay: they are its path."""


def _check_parts(request: Request, messages: list[Message]) -> bool:
    """Checks rules that the types cannot express. Returns whether a part or a tool may have a mark of the cache."""
    has_parts = False
    for index, message in enumerate(messages):
        content = message.content
        if isinstance(content, str):
            continue
        has_parts = True
        for at, part in enumerate(content):
            if isinstance(part, ImagePart) and (part.url is UNSET) == (part.data is UNSET):
                raise _invalid(f"an image needs either `url` or `data` - at `$.messages[{index}].content[{at}]`")
            if isinstance(part, ProviderBlockPart):
                _check_object(part.block, f"messages[{index}].content[{at}].block")
            if isinstance(part, (FilePart, VideoPart)):
                _check_source(part, f"messages[{index}].content[{at}]")
    tools: list[Tool] = request.tools
    for index, tool in enumerate(tools):
        _check_tool(tool, f"tools[{index}]")
    form = request.response_format
    if form and form.schema:
        _check_object(form.schema, "response_format.schema")
    return has_parts or bool(tools)


def _check_source(part: FilePart | VideoPart, path: str) -> None:
    """Checks that a file or a video has one source, and the members that the source needs."""
    stored = part.file_id if isinstance(part, FilePart) else ""
    if bool(part.data) + bool(part.url) + bool(stored) != 1:
        known = "`data`, `url` or `file_id`" if isinstance(part, FilePart) else "`data` or `url`"
        raise _invalid(f"a {part.__struct_config__.tag} needs one of {known} - at `$.{path}`")
    if part.data and not part.media_type:
        raise _invalid(f"Object missing required field `media_type` - at `$.{path}`")
    if isinstance(part, FilePart) and bool(stored) != bool(part.provider):
        raise _invalid(f"`file_id` and `provider` need each other - at `$.{path}`")


def _check_tool(tool: Tool, path: str) -> None:
    """Checks that a tool has the members of its type, and no others."""
    if tool.type in ("function", "custom"):
        if tool.name is UNSET:
            raise _invalid(f"Object missing required field `name` - at `$.{path}`")
        _check_object(tool.parameters, f"{path}.parameters")
    if tool.type == "web_search" and tool.options:
        check_members(tool.options, SearchOptions, f"$.{path}.options")
    for name in _ONLY_OF.get(tool.type, _OF_FUNCTIONS):
        if getattr(tool, name) != getattr(_PLAIN_TOOL, name):
            raise _invalid(f"a tool of the type `{tool.type}` has no `{name}` - at `$.{path}`")


_PLAIN_TOOL: Final = Tool()
_OF_FUNCTIONS: Final = ("options", "format")
_ONLY_OF: Final[dict[str, tuple[str, ...]]] = {
    "custom": ("options", "parameters", "strict"),
    "web_search": ("name", "description", "parameters", "strict", "format"),
    "code_execution": ("name", "description", "parameters", "strict", "format"),
}
"""The members that tools of a type do not have; those of functions are `_OF_FUNCTIONS`."""


def _check_object(schema: Raw, path: str) -> None:
    if not bytes(schema).lstrip().startswith(b"{"):
        raise _invalid(f"Expected `object` - at `$.{path}`")


def _not_json(why: str) -> InvalidRequest:
    return InvalidRequest(message=f"The body is not JSON: {why}", reason="json")


def _invalid(what: str) -> InvalidRequest:
    return InvalidRequest(message=f"The request is not valid: {what}", reason="validation")
