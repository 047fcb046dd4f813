"""Finds text of an answer in places where an API does not have it, for adapters that have found none in their own.

Servers that are compatible with an API differ from it in names and shapes. Knows the dialects, and no provider.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Any, Final

from gai_fast.core.json.chunks import objects

_OTHER_TEXTS: Final = ("output_text", "value", "parts", "message")
"""Members of a delta or a message in which servers put its text, in addition to those that are always read."""


def chat_content(raw: dict[str, Any], places: Set[str], message: Any) -> dict[str, Any] | None:
    """Returns the content of a choice of the chat dialect as a message; None if it has none.

    Args:
        raw: The choice.
        places: The members of the choice in which its content may be, instead of the one that the dialect has there.
        message: The delta or the message that has been read, and had no content.
    """
    inner = None
    if isinstance(message, dict):
        inner = next((message[name] for name in _OTHER_TEXTS if message.get(name)), None)
    for name in ("text", "content", "delta", "message", "messages"):  # `text` as in the legacy API
        if not inner and name in places:
            inner = raw.get(name)
            inner = next(reversed(objects(inner)), None) if name == "messages" else inner
    if isinstance(inner, (str, list)) and inner:
        return {"content": inner}
    return inner if isinstance(inner, dict) and inner else None
