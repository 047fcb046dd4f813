"""What the requests of several providers have in common: turns, tools, calls, media, options that are merged in.

Knows no provider.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping
from typing import Any

from msgspec import UNSET
from orjson import Fragment

from gai_fast._impl import parse_exact
from gai_fast.errors import InvalidRequest
from gai_fast.request import FilePart, ImagePart, ResponseFormat, Tool, ToolCallPart


def is_given(value: Any) -> bool:
    """Whether a field of a native request says anything; 0 does, an empty list does not."""
    return value is not UNSET and value not in ("", [], {})


def merged(body: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """A request's body with `provider_options` merged in last, as JSON Merge Patch (RFC 7396) says.

    Objects are merged member by member, `null` removes a member, all else replaces what is there.
    """
    whole = dict(body)
    for key, value in options.items():
        if value is None:
            whole.pop(key, None)
        elif isinstance(value, Mapping):
            inner = whole.get(key)
            whole[key] = merged(inner if isinstance(inner, Mapping) else {}, value)
        else:
            whole[key] = value
    return whole


def image_data(image: ImagePart) -> tuple[str, str] | None:
    """The media type and the base64 data of an image, also of one in a `data:` URL; `None`: it must be fetched.

    Raises:
        InvalidRequest: Data without a media type.
    """
    if not isinstance(image.url, str):
        return media_type(image), str(image.data)
    head, _, data = image.url.partition(";base64,")
    return (head.removeprefix("data:"), data) if data and head.startswith("data:") else None


def image_url(image: ImagePart) -> str:
    """The image as a URL that chat requests take: its own, or its data in one.

    Raises:
        InvalidRequest: Data without a media type.
    """
    if isinstance(image.url, str):
        return image.url
    return f"data:{media_type(image)};base64,{image.data}"


def file_url(part: FilePart) -> str:
    """A file's data in a `data:` URL."""
    return f"data:{part.media_type};base64,{part.data}"


def file_name(part: FilePart) -> str:
    """A file's name; one is made where it has none, as some APIs want one."""
    return part.filename or f"file.{part.media_type.rpartition('/')[2]}"


def file_text(part: FilePart) -> str:
    """The text of a text file.

    Raises:
        InvalidRequest: Its data is not base64 of UTF-8.
    """
    try:
        return b64decode(part.data, validate=True).decode()
    except ValueError:
        raise InvalidRequest(message="The `data` of a text file is not base64 of UTF-8", reason="validation") from None


def media_type(image: ImagePart) -> str:
    """The media type of an image's data.

    Raises:
        InvalidRequest: It is missing.
    """
    if not isinstance(image.media_type, str):
        raise InvalidRequest(message="An image with `data` needs its `media_type`", reason="validation")
    return image.media_type


def add_turn(sent: list[dict[str, Any]], role: str, member: str, blocks: list[dict[str, Any]]) -> None:
    """Adds the content of a message where neighbours of one role must be one turn.

    Args:
        sent: The turns so far.
        role: Whose the message is.
        member: What holds the content of a turn.
        blocks: The content; an empty one begins no turn.
    """
    if sent and sent[-1]["role"] == role:
        sent[-1][member] += blocks
    elif blocks:
        sent.append({"role": role, member: blocks})


def function_tool(tool: Tool, *, has_strict: bool = True) -> dict[str, Any]:
    """A tool as OpenAI's chat dialect, and others after it, declare one.

    Args:
        tool: The tool.
        has_strict: Whether `strict` has a place there.
    """
    function: dict[str, Any] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    function["parameters"] = Fragment(bytes(tool.parameters))
    if has_strict and tool.strict is not UNSET:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def earlier_function_call(call: ToolCallPart) -> dict[str, Any]:
    """A call of an earlier answer whose arguments are JSON text in a string."""
    arguments = bytes(call.input).decode()
    if arguments.startswith('"'):  # text that the model wrote in place of JSON
        arguments = parse_exact(arguments)
    return {"id": call.call_id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def argument_object(call: ToolCallPart) -> Fragment | None:
    """The arguments of a call as an object, or `None` where the model wrote something else."""
    arguments = bytes(call.input)
    return Fragment(arguments) if arguments.startswith(b"{") else None


def required_schema(wanted: ResponseFormat) -> Fragment:
    """The schema of an answer, for APIs that need one.

    Raises:
        InvalidRequest: It is missing.
    """
    if not wanted.schema:
        raise InvalidRequest(message="`response_format` needs a `schema`", reason="validation")
    return Fragment(bytes(wanted.schema))
