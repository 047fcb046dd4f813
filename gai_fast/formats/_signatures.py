"""Signatures of reasoning and of calls in dialects that have one opaque text for them.

Owns the form of those that the text alone does not explain: `gai:` and a JSON object. Clients send them back as they
came. Knows no dialect, nor which of its signatures need the form. Which providers encrypt their reasoning is said where
they are registered; one that does so in one of its APIs alone says it in its `start`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

import orjson

from gai_fast.formats._members import expect, member, required
from gai_fast.kernels import encode_json
from gai_fast.model.events import Event

# What providers sign is base64 or begins with a letter and no colon.
_MARK: Final = "gai:"


def seal(signature: str, provider: str | None, call_id: str | None = None, redacted: bool | None = None) -> str:
    """Returns a signature with what the way back needs: `gai:{"provider":…,"signature":…}`.

    Args:
        signature: As the provider gave it.
        provider: The provider's name.
        call_id: The call that it is for, if it is not for reasoning.
        redacted: It is the whole of a redacted block.
    """
    members = {"provider": provider, "signature": signature, "redacted": redacted, "call_id": call_id}
    return _MARK + encode_json({key: value for key, value in members.items() if value or key == "signature"}).decode()


def is_ours(text: object) -> bool:
    """Whether a member of a request is a text that `seal` has made: nobody else can read it."""
    return isinstance(text, str) and text.startswith(_MARK)


def opened(text: str, path: str, native: str) -> dict[str, Any]:
    """Reads a signature that a client sends back.

    Args:
        text: The signature.
        path: Where it stands.
        native: The provider of one that `seal` has not made.

    Returns:
        `signature`, and where they are there, `provider`, `redacted` and `call_id`.

    Raises:
        InvalidRequest: It begins as one of ours, and is none.
    """
    if not is_ours(text):
        return {"provider": native, "signature": text}
    try:
        told = orjson.loads(text[len(_MARK) :])
    except ValueError:
        told = None
    expect(told, path, dict)
    members = {
        "provider": member(told, "provider", path, str),
        "signature": required(told, "signature", path, str),
        "redacted": member(told, "redacted", path, bool),
        "call_id": member(told, "call_id", path, str),
    }
    return {key: value for key, value in members.items() if value or key == "signature"}


def encrypts(start: Event) -> bool:
    """Whether the signatures of an answer are whole reasoning, encrypted.

    Args:
        start: The answer's `start`; none: unknown.
    """
    return start.get("provider_metadata", {}).get("api") == "responses" or is_encrypted(start.get("provider"))


def is_encrypted(provider: str | None) -> bool:
    """Whether a provider's signatures are its whole reasoning, encrypted, as those of the Responses API are.

    Args:
        provider: The name in events; `None`: unknown.
    """
    # By name, since formats do not depend on providers; a stream of another process may have any provider's.
    return provider in import_module("gai_fast.providers").ENCRYPTING
