"""Builds parts of requests for several providers: turns, tools, calls, media; merges options.

Knows no provider.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Final

from msgspec import UNSET, Raw, UnsetType
from msgspec.structs import astuple, replace
from orjson import Fragment

from gai_fast.kernels import encode_json, parse_exact
from gai_fast.model.changes import Changes
from gai_fast.model.errors import InvalidRequest
from gai_fast.model.request import (
    AssistantMessage,
    Cache,
    FilePart,
    ImagePart,
    Message,
    Request,
    ResponseFormat,
    Tool,
    ToolCallPart,
    ToolMessage,
)
from gai_fast.runtime.breathing import breathe

KNOBS: Final = (
    "top_k",
    "min_p",
    "frequency_penalty",
    "presence_penalty",
    "repetition_penalty",
    "logit_bias",
    "logprobs",
    "top_logprobs",
    "parallel_tool_calls",
    "verbosity",
    "service_tier",
    "user",
    "safety_identifier",
)
"""The fields of a native request that some APIs have under a name of their own and others lack, in their order."""
# Constants: a name look-up costs 150 instructions.
_UNSET: Final = UNSET
_AssistantMessage: Final = AssistantMessage
_FIRST: Final = Request.__struct_fields__.index(KNOBS[0])
_AFTER: Final = _FIRST + len(KNOBS)
_NO_KNOBS: Final = astuple(Request())[_FIRST:_AFTER]


def knobs_of(request: Request) -> dict[str, Any]:
    """Returns the `KNOBS` that a request sets."""
    values = astuple(request)[_FIRST:_AFTER]  # one call and one comparison: each access by name costs 160 instructions
    if values == _NO_KNOBS:
        return {}
    return {name: value for name, value in zip(KNOBS, values, strict=True) if is_given(value)}


def in_call_order(turns: list[tuple[str, Message]]) -> Iterable[tuple[str, Message]]:
    """Returns the messages, results in the order of their calls: without ids, results are assigned by order.

    Args:
        turns: The messages with their paths, as `reading.turns` returns them.
    """
    for _, message in turns:
        if type(message) is ToolMessage:
            return _in_call_order(turns)
    return turns


def _in_call_order(turns: list[tuple[str, Message]]) -> Iterator[tuple[str, Message]]:
    asked: dict[str, int] = {}
    for are_results, run in groupby(turns, lambda turn: type(turn[1]) is ToolMessage):
        if are_results:
            yield from sorted(run, key=lambda turn: asked.get(getattr(turn[1], "call_id", ""), len(asked)))
            continue
        for where, message in run:
            asked |= {call.call_id: at for at, call in enumerate(calls_of(message), len(asked))}
            yield where, message


def calls_of(message: Message) -> list[ToolCallPart]:
    """Returns the calls of a message."""
    content = () if isinstance(message.content, str) else message.content
    return [part for part in content if isinstance(part, ToolCallPart)]


def with_own_ids(request: Request) -> Request:
    """Returns a request whose calls have ids of their own, with their results.

    Anthropic refuses a request with two calls of one id, in different turns, too; some servers begin again
    at `call_0` in each answer. Results of one id belong to the calls of the last answer that has it, in their order.

    Args:
        request: The request.
    """
    used: set[str] = set()
    repeated: set[str] = set()
    for message in request.messages:
        if type(message) is _AssistantMessage and type(message.content) is not str:
            for call in calls_of(message):
                if call.call_id in used:
                    repeated.add(call.call_id)
                used.add(call.call_id)
    if not repeated:  # nearly always
        return request
    own = _OwnIds(repeated, used)
    kept: list[Message] = []
    for message in request.messages:
        breathe()
        if isinstance(message, ToolMessage):
            kept.append(own.result(message))
        elif isinstance(message, AssistantMessage) and not isinstance(message.content, str):
            kept.append(AssistantMessage(content=own.parts(message.content)))
        else:
            kept.append(message)
    return replace(request, messages=kept)


class _OwnIds:
    """Gives calls of one id ids of their own.

    Args:
        repeated: The ids that several calls have.
        used: All ids of calls.
    """

    def __init__(self, repeated: set[str], used: set[str]) -> None:
        self._used = used
        self._numbers = dict.fromkeys(repeated, 0)
        """The number at the end of the last id that was made of each repeated one; 0 if no call had it yet."""
        self._open: dict[str, list[str]] = {}
        """The new ids of the last answer's calls, in reverse order, by their repeated id."""

    def parts(self, parts: Sequence[Any]) -> list[Any]:
        """Returns the parts of an answer; a call has an unused id if an earlier call has its own."""
        kept: list[Any] = []
        begun: dict[str, list[str]] = {}
        for part in parts:
            if isinstance(part, ToolCallPart) and part.call_id in self._numbers:
                own = self._unused(part.call_id)
                begun.setdefault(part.call_id, []).append(own)
                kept.append(replace(part, call_id=own))
            else:
                kept.append(part)
        for call_id, ids in begun.items():
            self._open[call_id] = ids[::-1]
        return kept

    def _unused(self, call_id: str) -> str:
        number = self._numbers[call_id] + 1
        own = call_id
        while number > 1:
            own = f"{call_id}_{number}"
            if own not in self._used:
                break
            number += 1
        self._numbers[call_id] = number
        self._used.add(own)
        return own

    def result(self, message: ToolMessage) -> ToolMessage:
        """Returns a result, with the id of its call."""
        ids = self._open.get(message.call_id)
        return replace(message, call_id=ids.pop()) if ids else message


def paired(request: Request, changes: Changes) -> Request:
    """Returns a request without calls that have no result, and without results that have no call.

    Providers refuse both. A request of which nothing would be left stays as it is.

    Args:
        request: The request.
        changes: Gets the paths of what was left out.
    """
    results: dict[str, int] = {}  # the place of the last result, by the id of its call
    has_calls = False
    for at, message in enumerate(request.messages):
        if isinstance(message, ToolMessage):
            results[message.call_id] = at
        elif isinstance(message, AssistantMessage) and not isinstance(message.content, str):
            has_calls = has_calls or any(isinstance(part, ToolCallPart) for part in message.content)
    if not results and not has_calls:
        return request
    kept: list[tuple[int, Message]] = []
    left: list[str] = []
    called: set[str] = set()
    for at, message in enumerate(request.messages):
        breathe()
        if isinstance(message, ToolMessage):
            if message.call_id in called:
                called.discard(message.call_id)
                kept.append((at, message))
            else:
                left.append(f"messages[{at}]")
            continue
        if not isinstance(message, AssistantMessage) or isinstance(message.content, str):
            kept.append((at, message))
            continue
        parts: list[Any] = []
        for place, part in enumerate(message.content):
            if isinstance(part, ToolCallPart):
                if results.get(part.call_id, -1) < at:
                    left.append(f"messages[{at}].content[{place}]")
                    continue
                called.add(part.call_id)
            parts.append(part)
        if len(parts) == len(message.content):
            kept.append((at, message))
        elif parts:
            kept.append((at, AssistantMessage(content=parts)))
    if not left or (not kept and request.query is UNSET):
        return request
    for path in left:
        changes.drop(path)
    changes.places = [f"messages[{at}]" for at, _ in kept]
    return replace(request, messages=[message for _, message in kept])


def has_cache_marks(request: Request) -> bool:
    """Returns whether a tool or a part of a request is marked as the end of a cached part of the prompt."""
    for tool in request.tools:
        if tool.cache:
            return True
    for message in request.messages:
        content: Any = message.content
        if isinstance(content, str):
            continue
        for part in content:
            if getattr(part, "cache", False):
                return True
    return False


def with_cache_key(request: Request, key: str) -> Request:
    """Returns a request whose prompt is cached under a key, unless it has a key of its own.

    Args:
        request: The request.
        key: The key.
    """
    cache = request.cache
    if cache is UNSET:
        return replace(request, cache=Cache(key=key))
    return request if cache.key else replace(request, cache=replace(cache, key=key))


_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_OPENAI_TTLS: Final = {1800: "30m", 43_200: "12h"}
_ANTHROPIC_TTLS: Final = {300: "5m", 3600: "1h"}


def seconds_of(ttl: str) -> int:
    """Returns the seconds of a `ttl`, such as `5m` or `1h`."""
    return int(ttl[:-1]) * _SECONDS[ttl[-1]]


def nearest_ttl(ttl: str, known: Mapping[int, str]) -> str:
    """Returns the shortest known time that is not shorter than a `ttl`, or the longest.

    Args:
        ttl: The time of the request.
        known: The provider's words, by their seconds, in ascending order.
    """
    wanted = seconds_of(ttl)
    return next((word for seconds, word in known.items() if seconds >= wanted), [*known.values()][-1])


def cache_member(mark: Any, name: str, form: Mapping[str, str], known: Mapping[int, str]) -> dict[str, Any]:
    """Returns the member of a part or a tool that ends a cached part of the prompt, if it is marked.

    Args:
        mark: The `cache` of the part or the tool.
        name: The member's name.
        form: The members of its value besides `ttl`.
        known: As for `nearest_ttl`.
    """
    if not mark:
        return {}
    ttl = None if mark is True else mark.ttl
    return {name: {**form, **({"ttl": nearest_ttl(ttl, known)} if ttl else {})}}


def openai_cache_member(mark: Any) -> dict[str, Any]:
    """Returns OpenAI's form of `cache_member`."""
    return cache_member(mark, "prompt_cache_breakpoint", {"mode": "explicit"}, _OPENAI_TTLS)


def openai_cache(cache: Cache | UnsetType) -> dict[str, Any]:
    """Returns OpenAI's members for the cache of a request. There is one time to live."""
    members: dict[str, Any] = {}
    if cache is not UNSET:
        if cache.key:
            members["prompt_cache_key"] = cache.key
        if cache.ttl:
            members["prompt_cache_options"] = {"ttl": "30m"}
    return members


def anthropic_cache_member(mark: Any) -> dict[str, Any]:
    """Returns Anthropic's form of `cache_member`, which OpenRouter takes too."""
    return cache_member(mark, "cache_control", {"type": "ephemeral"}, _ANTHROPIC_TTLS)


def is_given(value: Any) -> bool:
    """Returns whether a field of a native request is set. The value 0 is set, an empty list is not."""
    return value is not _UNSET and value not in ("", [], {})


def merged(body: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Merges `provider_options` into a body, as JSON Merge Patch (RFC 7396) defines it.

    Objects are merged member by member, `null` removes a member, any other value replaces a member. Beyond that RFC,
    tools are added to those of the body.
    """
    whole = dict(body)
    for key, value in options.items():
        if value is None:
            whole.pop(key, None)
        elif isinstance(value, Mapping):
            inner = whole.get(key)
            whole[key] = merged(inner if isinstance(inner, Mapping) else {}, value)
        elif key == "tools" and isinstance(value, list) and isinstance(whole.get(key), list):
            whole[key] = [*whole[key], *value]
        else:
            whole[key] = value
    return whole


def joined(texts: Iterable[str]) -> str:
    """Joins the texts of a message with blank lines, for an upstream that accepts only one text.

    Not for assistant messages: the gateway begins a new part after reasoning or a call, possibly in the middle of a
    sentence, so their texts are joined without a separator.
    """
    return "\n\n".join(text for text in texts if text)


def image_data(image: ImagePart) -> tuple[str, str] | None:
    """Returns registered media type and base64 data of an image or a `data:` URL. Returns None for any other URL.

    Raises:
        InvalidRequest: The image has data without a media type.
    """
    if not isinstance(image.url, str):
        return _registered(media_type(image)), str(image.data)
    head, _, data = image.url.partition(";base64,")
    return (_registered(head.removeprefix("data:")), data) if data and head.startswith("data:") else None


def image_url(image: ImagePart) -> str:
    """Returns the image's URL, or a `data:` URL with its data.

    Raises:
        InvalidRequest: The image has data without a media type.
    """
    if isinstance(image.url, str):
        return image.url
    return f"data:{media_type(image)};base64,{image.data}"


def file_url(part: FilePart) -> str:
    """Returns a file as a `data:` URL."""
    return f"data:{part.media_type};base64,{part.data}"


def file_name(part: FilePart) -> str:
    """Returns a file's name, or a default name, because some APIs require a name."""
    return part.filename or f"file.{part.media_type.rpartition('/')[2]}".rstrip(".")


def file_text(part: FilePart) -> str:
    """Decodes the text of a text file.

    Raises:
        InvalidRequest: The data is not base64 of UTF-8.
    """
    try:
        return b64decode(part.data, validate=True).decode()
    except ValueError:
        raise InvalidRequest(message="The `data` of a text file is not base64 of UTF-8", reason="validation") from None


def media_type(image: ImagePart) -> str:
    """Returns the media type of an image's data.

    Raises:
        InvalidRequest: The media type is missing.
    """
    if not isinstance(image.media_type, str):
        raise InvalidRequest(message="An image with `data` needs its `media_type`", reason="validation")
    return image.media_type


def add_turn(sent: list[dict[str, Any]], role: str, member: str, blocks: list[dict[str, Any]]) -> None:
    """Adds the content of a message to the last turn if the turn has its role, else begins a turn.

    For APIs that require adjacent messages of one role to be one turn.

    Args:
        sent: The turns so far.
        role: The role of the message.
        member: The member of a turn that holds its content.
        blocks: The content; empty content begins no turn.
    """
    if sent and sent[-1]["role"] == role:
        sent[-1][member] += blocks
    elif blocks:
        sent.append({"role": role, member: blocks})


def function_tool(tool: Tool, *, has_strict: bool = True) -> dict[str, Any]:
    """Returns the declaration of a tool in OpenAI's chat dialect, which other APIs use, too.

    Args:
        tool: The tool.
        has_strict: Whether the API has the member `strict`.
    """
    if tool.type == "custom":
        return _custom_tool(tool)
    function: dict[str, Any] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    function["parameters"] = Fragment(bytes(tool.parameters))
    if has_strict and tool.strict is not UNSET:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _custom_tool(tool: Tool) -> dict[str, Any]:
    """Returns the declaration of a tool whose input is text. A grammar is in an object of its own in this dialect."""
    custom: dict[str, Any] = {"name": tool.name}
    if tool.description:
        custom["description"] = tool.description
    form = tool.format or {}
    if form.get("type") == "grammar" and "grammar" not in form:
        form = {"type": "grammar", "grammar": {key: value for key, value in form.items() if key != "type"}}
    return {"type": "custom", "custom": custom | ({"format": form} if form else {})}


def argument_text(call: ToolCallPart) -> str:
    """Returns the arguments of an earlier call as JSON. Some models write `null`, which becomes `{}`."""
    arguments = bytes(call.input).decode()
    return "{}" if arguments == "null" else arguments


def earlier_function_call(call: ToolCallPart) -> dict[str, Any]:
    """Returns an earlier call with its arguments as JSON text in a string."""
    arguments = argument_text(call)
    if arguments.startswith('"'):  # the model wrote text instead of JSON
        arguments = parse_exact(arguments)
    return {"id": call.call_id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def argument_object(call: ToolCallPart, path: str, changes: Changes) -> Fragment:
    """Returns the arguments of a call as an object, as some APIs want them.

    Arguments of a conversation may be another value, or a text that was cut off: a model wrote them so. These are
    wrapped in an object, as in answers in Anthropic's dialect.

    Args:
        call: The call.
        path: Its path in the native request.
        changes: Gets the path of arguments that are wrapped.
    """
    return Fragment(_object_text(call, path, changes))


def object_call(call: ToolCallPart, path: str, changes: Changes) -> dict[str, Any]:
    """Returns an earlier call with an object as its arguments, as JSON text in a string.

    Servers parse the arguments of earlier calls for the model's template, and refuse the whole conversation if they
    are no object (vLLM, llama.cpp). The arguments are those of `argument_object`.

    Args:
        call: The call.
        path: Its path in the native request.
        changes: Gets the path of arguments that are wrapped.
    """
    function = {"name": call.name, "arguments": _object_text(call, path, changes)}
    return {"id": call.call_id, "type": "function", "function": function}


def _object_text(call: ToolCallPart, path: str, changes: Changes) -> str:
    arguments = argument_text(call)
    if arguments.startswith("{"):
        return arguments
    changes.adjust(f"{path}.input", "wrapped in an object")
    return f'{{"arguments":{arguments}}}'


def required_schema(wanted: ResponseFormat) -> Fragment:
    """Returns the schema of a response format, for APIs that require a schema.

    Raises:
        InvalidRequest: The schema is missing.
    """
    if not wanted.schema:
        raise InvalidRequest(message="`response_format` needs a `schema`", reason="validation")
    return Fragment(bytes(wanted.schema))


NO_SCHEMAS: Final = frozenset(("const", "default", "enum", "examples", "required"))
"""The members of a JSON Schema whose values hold no schemas."""
NAMED_SCHEMAS: Final = frozenset(("$defs", "definitions", "dependentSchemas", "patternProperties", "properties"))
"""The members of a JSON Schema that hold schemas by names."""


def closed_schema(schema: Any) -> Any:
    """Returns a JSON Schema with `additionalProperties: false` in its objects, as Anthropic's SDK writes them.

    Args:
        schema: The schema, or a part of it. It is not changed; it is the result if nothing has to be.
    """
    breathe()
    if isinstance(schema, list):
        written = [closed_schema(each) for each in schema]
        return schema if all(map(_is_same, written, schema)) else written
    if not isinstance(schema, dict):
        return schema
    closed: dict[str, Any] = {}
    for name, value in schema.items():
        if name in NAMED_SCHEMAS and isinstance(value, dict):
            closed[name] = _same_if_equal({key: closed_schema(each) for key, each in value.items()}, value)
        else:
            closed[name] = value if name in NO_SCHEMAS else closed_schema(value)
    if isinstance(schema.get("properties"), dict) or is_object(schema):
        closed["additionalProperties"] = False
    return _same_if_equal(closed, schema)


def _same_if_equal(written: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Returns the given object if the written one has the same values, member by member; compares no deeper."""
    is_same = len(written) == len(given) and all(map(_is_same, written.values(), given.values()))
    return given if is_same else written


def is_object(schema: Mapping[str, Any]) -> bool:
    """Returns whether a JSON Schema says that a value is an object, perhaps among other types."""
    kind = schema.get("type")
    return kind == "object" or (isinstance(kind, list) and "object" in kind)


_UNIONS: Final[tuple[str, ...]] = ("anyOf", "oneOf", "allOf")
_MAY_BE_UNION: Final = re.compile(rb'"(?:any|one|all)Of"')
_IS_OBJECT: Final = re.compile(rb'\s*\{\s*"type"\s*:\s*"object"\s*,\s*"properties"\s*:')
_DEFINITIONS: Final[tuple[str, ...]] = ("$defs", "definitions")


def object_schema(raw: bytes, *, keeps_unions: bool, needs_properties: bool) -> tuple[Raw, str] | None:
    """Returns a JSON Schema that says of itself that it is an object's, for APIs that refuse any other for arguments.

    A reference is replaced by its definition. A union is replaced by an object with the properties of all its members;
    the union itself stands in the description.

    Args:
        raw: The schema's JSON.
        keeps_unions: Whether a union stays as it is.
        needs_properties: Whether the API refuses an object without `properties`.

    Returns:
        The schema, and the word for the change, empty if it means the same. None if nothing is changed, or the schema
        is of another type.
    """
    may_be_union = not keeps_unions and _MAY_BE_UNION.search(raw) is not None
    if not may_be_union and _IS_OBJECT.match(raw):
        return None
    given: dict[str, Any] = parse_exact(raw.decode())
    schema = _defined(given)
    unions = {name: schema[name] for name in _UNIONS if isinstance(schema.get(name), list)} if may_be_union else {}
    try:
        if unions:
            return Raw(encode_json(_flat(schema, unions))), "simplified"
        kind = schema.get("type")
        if kind is not None and not is_object(schema):
            return None
        properties = b'"properties":{},' if needs_properties and "properties" not in schema else b""
        if schema is given and kind == "object":
            return (Raw(_with_members(raw, properties)), "") if properties else None
        if schema is given and "type" not in schema:
            return Raw(_with_members(raw, b'"type":"object",' + properties)), "object"
        return Raw(_with_members(encode_json({**schema, "type": "object"}), properties)), "object"
    except ValueError:  # a number that JSON does not have: the provider refuses it
        return None


def _with_members(raw: bytes, members: bytes) -> bytes:
    """Returns the JSON of an object with further members, each with its comma, at the beginning; the rest verbatim."""
    rest = raw.lstrip()[1:].lstrip()
    return b"{" + (members[:-1] if rest.startswith(b"}") else members) + rest


def _defined(schema: dict[str, Any]) -> dict[str, Any]:
    """Returns a schema with the definition to which it refers in place of the reference.

    Members next to a reference apply too: properties are joined; of any other member the nearest value is kept.
    """
    seen: set[str] = set()
    chain: list[Mapping[str, Any]] = [schema]
    while isinstance(name := chain[-1].get("$ref"), str) and name not in seen:
        definition = _definition(name, schema)
        if definition is None:
            break
        seen.add(name)
        chain.append(definition)
    if len(chain) == 1:
        return schema
    whole: dict[str, Any] = {}
    properties: dict[str, Any] = {}
    required: dict[str, None] = {}
    for each in chain[::-1]:
        whole.update(each)
        own = each.get("properties")
        properties.update(own if isinstance(own, dict) else {})
        required.update(dict.fromkeys(_names(each.get("required"))))
    if isinstance(whole.get("properties"), dict):  # else the provider refuses it
        whole["properties"] = properties
    if required and isinstance(whole.get("required"), list):
        whole["required"] = [*required]
    del whole["$ref"]
    return whole | {"$ref": chain[-1]["$ref"]} if "$ref" in chain[-1] else whole


def _definition(reference: str, schema: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Returns the definition in a schema that a reference names. None if there is none."""
    for name in _DEFINITIONS:
        named = schema.get(name)
        if isinstance(named, dict) and reference.startswith(f"#/{name}/"):
            found = named.get(reference.removeprefix(f"#/{name}/"))
            return found if isinstance(found, dict) else None
    return None


def _flat(schema: dict[str, Any], unions: dict[str, Any]) -> dict[str, Any]:
    written = {name: value for name, value in schema.items() if name not in unions}
    own = schema.get("properties")
    variants = {name: {encode_json(value): value} for name, value in (own if isinstance(own, dict) else {}).items()}
    needed = schema.get("required")
    required = dict.fromkeys(_names(needed))
    for kind, members in unions.items():
        times: Counter[str] = Counter()
        # Members that name one definition are one: each may have thousands of properties.
        distinct = {id(each): each for each in (_resolved(member, schema) for member in members)}
        for each in distinct.values():
            own = each.get("properties")
            for name, value in (own if isinstance(own, dict) else {}).items():
                variants.setdefault(name, {}).setdefault(encode_json(value), value)
            times.update(dict.fromkeys(_names(each.get("required")), 1))
        most = 1 if kind == "allOf" else len(distinct)
        required |= dict.fromkeys(name for name, count in times.items() if count >= most)
    properties = {name: _any_of([*found.values()]) for name, found in variants.items()}
    described = ", ".join(f"{kind}: {encode_json(members).decode()}" for kind, members in unions.items())
    note = f"{{{described}}}"
    description = schema.get("description")
    written |= {"type": "object", "properties": properties}
    written["description"] = f"{description}\n\n{note}" if description else note
    return written | ({"required": [*required]} if required else {})


def _names(value: Any) -> list[str]:
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []


def _any_of(schemas: list[Any]) -> Any:
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


def _resolved(member: Any, schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns a member of a union, or the definition that it names; an empty schema if it is neither."""
    name = member.get("$ref") if isinstance(member, dict) else None
    if isinstance(name, str):
        member = _definition(name, schema)
    return member if isinstance(member, dict) else {}


_LIMITS_OF_VALUES: Final = frozenset(
    "minimum maximum exclusiveMinimum exclusiveMaximum multipleOf minLength maxLength maxItems uniqueItems minContains "
    "maxContains minProperties maxProperties".split()
)
_FORMATS: Final = frozenset("date-time time date duration email hostname uri ipv4 ipv6 uuid".split())


def without_limits(schema: Any) -> Any:
    """Returns a JSON Schema whose limits of values stand in the descriptions, and whose `oneOf` is `anyOf`.

    Anthropic's SDK writes them so.

    Args:
        schema: The schema, or a part of it. It is not changed.
    """
    if isinstance(schema, list):
        return [without_limits(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    written: dict[str, Any] = {}
    moved: list[str] = []
    for name, value in schema.items():
        is_plain = not isinstance(value, (dict, list))
        if is_plain and (
            name in _LIMITS_OF_VALUES
            or (name == "minItems" and value not in (0, 1))
            or (name == "format" and value not in _FORMATS)
        ):
            moved.append(f"{name}: {value}")
        elif name == "oneOf" and isinstance(value, list) and "anyOf" not in schema:
            written["anyOf"] = without_limits(value)
        elif name == "discriminator" and "oneOf" in schema:
            continue  # OpenAPI's, which pydantic writes: what differs is in the members
        elif name in NAMED_SCHEMAS and isinstance(value, dict):
            written[name] = {key: without_limits(each) for key, each in value.items()}
        else:
            written[name] = value if name in NO_SCHEMAS else without_limits(value)
    if moved:
        limits, described = f"{{{', '.join(moved)}}}", schema.get("description")
        written["description"] = f"{described}\n\n{limits}" if described else limits
    return written


_IMAGE_TYPES: Final[Mapping[str, str]] = {"image/jpg": "image/jpeg", "image/pjpeg": "image/jpeg"}
"""Registered names of media types, by names in use."""


def _registered(media_type: str) -> str:
    lowered = media_type.partition(";")[0].strip().lower()
    return _IMAGE_TYPES.get(lowered, lowered)


def _is_same(one: Any, other: Any) -> bool:
    return one is other
