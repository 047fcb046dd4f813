"""The members of a Responses request that matter to every route and upstream, read without translating the request.

Every request of the dialect passes here, also one that is passed through. Knows no provider and no route.
"""

from __future__ import annotations

from typing import Any

from gai_fast.formats._base import ClientRequest
from gai_fast.formats._members import member
from gai_fast.formats._signatures import opened
from gai_fast.formats.responses.parts import ECHOED, NATIVE, is_sealed


def read_response_members(body: dict[str, Any]) -> ClientRequest:
    """Reads those members of a request that matter to every route and upstream.

    Args:
        body: The client's JSON object.

    Raises:
        InvalidRequest: `model` is no string, or `stream` or `background` no boolean.
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
    )


def without_foreign(body: dict[str, Any], provider: str) -> dict[str, Any]:
    """Returns the same request without reasoning that others than its upstream have signed; its own as it wrote it.

    Args:
        body: The client's JSON object.
        provider: The upstream's.

    Raises:
        InvalidRequest: The text names a signature that only looks like one of ours.
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
    """Counts the characters of the texts in a client's items, whatever their shape."""
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
