"""Reads the members of a Responses request that all routes and upstreams need, without translating the request.

Runs for every request of the dialect, including requests that are passed through. Knows no provider and no route.
"""

from __future__ import annotations

from typing import Any

from gai_fast.formats._base import ClientRequest
from gai_fast.formats._members import member
from gai_fast.formats._signatures import opened
from gai_fast.formats.responses.parts import ECHOED, NATIVE, is_sealed


def read_response_members(body: dict[str, Any]) -> ClientRequest:
    """Reads the members of a request that all routes and upstreams need.

    Args:
        body: The client's JSON object.

    Raises:
        InvalidRequest: `model` is not a string, or `stream` or `background` is not a boolean.
    """
    text = body.get("text")
    form = text.get("format") if isinstance(text, dict) else None
    return ClientRequest(
        body,
        member(body, "model", "$", str),
        bool(member(body, "stream", "$", bool)),
        wants_usage=True,
        wants_json=isinstance(form, dict) and form.get("type") in ("json_object", "json_schema"),
        prompt_characters=_characters(body.get("instructions")) + _characters(body.get("input")),
        background=bool(member(body, "background", "$", bool)),
        echo={key: value for key, value in body.items() if key in ECHOED},
        form=form,
    )


def without_foreign(body: dict[str, Any], provider: str) -> dict[str, Any]:
    """Returns the request without sealed reasoning of other providers; the upstream's own reasoning is unsealed.

    Args:
        body: The client's JSON object.
        provider: The upstream's provider.

    Raises:
        InvalidRequest: A signature begins with `gai:` but is not sealed; the text names its path.
    """
    items = body.get("input")
    if not isinstance(items, list) or not any(is_sealed(item) for item in items):
        return body
    kept: list[Any] = []
    for at, item in enumerate(items):
        if not is_sealed(item):
            kept.append(item)
            continue
        signed = opened(item["encrypted_content"], f"$.input[{at}].encrypted_content", NATIVE)
        if signed.get("provider") == provider and "call_id" not in signed:
            kept.append({**item, "encrypted_content": signed["signature"]})
    return {**body, "input": kept}


def _characters(items: Any) -> int:
    """Counts the characters of the texts in a client's items of any shape."""
    if isinstance(items, str):
        return len(items)
    counted = 0
    if isinstance(items, list):
        for item in items:
            counted += _characters(item)
    elif isinstance(items, dict):
        for key in ("content", "text", "arguments", "input", "output"):
            counted += _characters(items.get(key))
    return counted
