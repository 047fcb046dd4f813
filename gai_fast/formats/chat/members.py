"""The members of a chat request that matter to every route and upstream, read without translating the request.

Every request of the dialect passes here, also one that is passed through. Knows no provider and no route.
"""

from __future__ import annotations

from typing import Any

from gai_fast.formats._base import ClientRequest
from gai_fast.formats._members import member


def read_chat_members(body: dict[str, Any]) -> ClientRequest:
    """Reads those members of a chat request that matter to every route and upstream.

    Args:
        body: The client's JSON object.

    Raises:
        InvalidRequest: `model` is no string, or `stream` no boolean.
    """
    options, form = body.get("stream_options"), body.get("response_format")
    return ClientRequest(
        body,
        member(body, "model", "$", str),
        bool(member(body, "stream", "$", bool)),
        wants_usage=isinstance(options, dict) and options.get("include_usage") is True,
        wants_json=isinstance(form, dict) and form.get("type") in ("json_object", "json_schema"),
        prompt_characters=_characters(body.get("messages")),
    )


def with_usage(body: dict[str, Any]) -> dict[str, Any]:
    """Returns the same chat request with usage asked for.

    Args:
        body: The client's JSON object.
    """
    options = body.get("stream_options")
    return {**body, "stream_options": {**(options if isinstance(options, dict) else {}), "include_usage": True}}


def _characters(messages: Any) -> int:
    """Counts the characters of the texts in a client's messages, whatever their shape."""
    if isinstance(messages, str):
        return len(messages)
    counted = 0
    if isinstance(messages, list):
        for message in messages:
            counted += _characters(message)
    elif isinstance(messages, dict):
        counted = _characters(messages.get("content")) + _characters(messages.get("text"))
    return counted
