"""Reads the members of a chat request that all routes and upstreams need, without translating the request.

Runs for every request of the dialect, including requests that are passed through. Knows no provider and no route.
"""

from __future__ import annotations

from typing import Any

from gai_fast.core.requests.shapes import chat_shape
from gai_fast.formats._base import ClientRequest
from gai_fast.formats._members import member


def read_chat_members(body: dict[str, Any]) -> ClientRequest:
    """Reads the members of a chat request that all routes and upstreams need.

    Args:
        body: The client's JSON object.

    Raises:
        InvalidRequest: `model` is not a string, `stream` is not a boolean, or `stream_options` is not an object.
    """
    options = member(body, "stream_options", "$", dict) if "stream_options" in body else None
    form = body.get("response_format")
    shape = chat_shape(body.get("messages"))
    return ClientRequest(
        body,
        member(body, "model", "$", str),
        bool(member(body, "stream", "$", bool)),
        wants_usage=options is not None and bool(member(options, "include_usage", "$.stream_options", bool)),
        wants_json=isinstance(form, dict) and form.get("type") in ("json_object", "json_schema"),
        prompt_characters=shape.characters,
        form=form,
        shape=shape,
    )


def has_choices(body: dict[str, Any]) -> bool:
    """Returns whether a request asks for several choices.

    Args:
        body: The client's JSON object.
    """
    choices = body.get("n")
    return isinstance(choices, int) and choices > 1


def with_usage(body: dict[str, Any]) -> dict[str, Any]:
    """Returns a copy of a chat request that asks for usage.

    Args:
        body: The client's JSON object.
    """
    options = body.get("stream_options")
    return {**body, "stream_options": {**(options if isinstance(options, dict) else {}), "include_usage": True}}
