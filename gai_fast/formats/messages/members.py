"""Reads the members of a Messages request that all routes and upstreams need, without translating the request.

Runs for every request of the dialect, including requests that are passed through. Knows no provider and no route.
"""

from __future__ import annotations

from typing import Any

from gai_fast.core.requests.shapes import messages_characters, messages_shape
from gai_fast.formats._base import ClientRequest
from gai_fast.formats._members import member


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
        prompt_characters=messages_characters(body),
        form=form,
        shape=messages_shape(body),
    )
