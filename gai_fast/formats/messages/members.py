"""Reads the members of a Messages request that all routes and upstreams need, without translating the request.

Runs for every request of the dialect, including requests that are passed through. Knows no provider and no route.
"""

from __future__ import annotations

from typing import Any

from gai_fast.formats._base import ClientRequest
from gai_fast.formats._members import member
from gai_fast.formats.messages.parts import is_foreign


def read_messages_members(body: dict[str, Any]) -> ClientRequest:
    """Reads the members of a Messages request that all routes and upstreams need.

    Args:
        body: The client's JSON object.

    Raises:
        InvalidRequest: `model` is not a string, or `stream` is not a boolean.
    """
    output = body.get("output_config")
    form = output.get("format") if isinstance(output, dict) else None
    return ClientRequest(
        body,
        member(body, "model", "$", str),
        bool(member(body, "stream", "$", bool)),
        wants_usage=True,  # every answer of the dialect has usage
        wants_json=form is not None,
        prompt_characters=prompt_characters(body),
        form=form,
    )


def prompt_characters(body: dict[str, Any]) -> int:
    """Counts the characters of the texts in a request of any shape.

    Args:
        body: The client's JSON object.
    """
    return sum(map(_characters, (body.get("system"), body.get("messages"), body.get("tools"))))


# The members of messages, blocks and tools that hold text. Data of images and documents do not count.
_TEXTS = ("content", "text", "thinking", "name", "description", "title", "context")
_VALUES = ("input", "input_schema")


def _characters(part: Any) -> int:
    if isinstance(part, str):
        return len(part)
    if isinstance(part, list):
        return sum(map(_characters, part))
    if not isinstance(part, dict):
        return 0
    counted = 0
    for key in _TEXTS:
        counted += _characters(part.get(key))
    for key in _VALUES:
        counted += _size(part.get(key))
    source = part.get("source")
    if isinstance(source, dict):
        counted += _characters(source.get("content"))
        counted += _characters(source.get("data")) if source.get("type") == "text" else 0
    return counted


def _size(value: Any) -> int:
    """Counts the characters of a JSON value: about the length of its JSON text."""
    if isinstance(value, str):
        return len(value) + 2
    if isinstance(value, list):
        return 2 + sum(_size(one) + 1 for one in value)
    if isinstance(value, dict):
        return 2 + sum(len(key) + 4 + _size(one) for key, one in value.items())
    return 0 if value is None else 4


def without_foreign(body: dict[str, Any]) -> dict[str, Any]:
    """Returns the request for Anthropic, without reasoning that is unsigned or signed by another provider.

    A conversation has such blocks after another provider has answered in it.

    Args:
        body: The client's JSON object.
    """
    messages = body.get("messages")
    if not isinstance(messages, list) or not any(map(_foreign_blocks, messages)):
        return body
    kept = [_stripped(message) if _foreign_blocks(message) else message for message in messages]
    # Anthropic refuses a message without content, and joins two adjacent messages of one role.
    return {**body, "messages": [message for message in kept if message is not None]}


def _foreign_blocks(message: Any) -> bool:
    content = message.get("content") if isinstance(message, dict) else None
    return isinstance(content, list) and any(map(is_foreign, content))


def _stripped(message: dict[str, Any]) -> dict[str, Any] | None:
    content = [block for block in message["content"] if not is_foreign(block)]
    return {**message, "content": content} if content else None
