"""Reads the members of a Responses request that all routes and upstreams need, without translating the request.

Runs for every request of the dialect, including requests that are passed through. Knows no provider and no route.
"""

from __future__ import annotations

from typing import Any

from gai_fast.core.requests.shapes import responses_characters, responses_shape
from gai_fast.formats._base import ClientRequest
from gai_fast.formats._members import member
from gai_fast.formats.responses.parts import echo_of


def read_response_members(body: dict[str, Any]) -> ClientRequest:
    """Reads the members of a request that all routes and upstreams need.

    Args:
        body: The client's JSON object.

    Raises:
        InvalidRequest: `model` is not a string, or `stream` or `background` is not a boolean.
    """
    text = body.get("text")
    form = text.get("format") if isinstance(text, dict) else None
    shape = responses_shape(body)
    asked = ClientRequest(
        body,
        member(body, "model", "$", str),
        bool(member(body, "stream", "$", bool)),
        wants_usage=True,
        wants_json=isinstance(form, dict) and form.get("type") in ("json_object", "json_schema"),
        prompt_characters=responses_characters(body),
        background=bool(member(body, "background", "$", bool)),
        echo=echo_of(body),
        form=form,
        shape=shape,
    )
    asked.is_linked = shape.may_refer or body.get("previous_response_id") is not None
    return asked
