"""Signatures of reasoning and of calls, for dialects that have one opaque text for them.

Owns the sealed form, `gai:` and a JSON object, for signatures that need more than their text. Clients send signatures
back unchanged. Knows no dialect, and not which of its signatures need the sealed form. The registry of providers lists
the providers that encrypt their reasoning; if a provider does so in one of its APIs only, the `start` has that API.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

import orjson

from gai_fast.formats._members import expect, member, required
from gai_fast.kernels import encode_json
from gai_fast.model.events import Event

# A provider's signature is base64, or begins with a letter and has no colon.
_MARK: Final = "gai:"


def seal(signature: str, provider: str | None, call_id: str | None = None, redacted: bool | None = None) -> str:
    """Returns a signature in the sealed form: `gai:{"provider":…,"signature":…}`.

    Args:
        signature: The provider's own signature.
        provider: The provider's name.
        call_id: The signed call, or None for a signature of reasoning.
        redacted: The signature is the whole content of a redacted block.
    """
    members = {"provider": provider, "signature": signature, "redacted": redacted, "call_id": call_id}
    return _MARK + encode_json({key: value for key, value in members.items() if value or key == "signature"}).decode()


def is_ours(text: object) -> bool:
    """Returns whether a member of a request is a text from `seal`; only this gateway can read it."""
    return isinstance(text, str) and text.startswith(_MARK)


def opened(text: str, path: str, native: str) -> dict[str, Any]:
    """Reads a signature that a client sends back.

    Args:
        text: The signature.
        path: The signature's path.
        native: The provider of a signature that is not sealed.

    Returns:
        `signature`, and `provider`, `redacted` and `call_id` if the sealed form has them.

    Raises:
        InvalidRequest: The text begins with `gai:` but is not a sealed signature.
    """
    if not is_ours(text):
        return {"provider": native, "signature": text}
    try:
        sealed = orjson.loads(text[len(_MARK) :])
    except ValueError:
        sealed = None
    expect(sealed, path, dict)
    members = {
        "provider": member(sealed, "provider", path, str),
        "signature": required(sealed, "signature", path, str),
        "redacted": member(sealed, "redacted", path, bool),
        "call_id": member(sealed, "call_id", path, str),
    }
    return {key: value for key, value in members.items() if value or key == "signature"}


def encrypts(start: Event) -> bool:
    """Returns whether each signature of an answer is its whole reasoning, encrypted.

    Args:
        start: The answer's `start`, or an empty dict if it is unknown.
    """
    return start.get("provider_metadata", {}).get("api") == "responses" or is_encrypted(start.get("provider"))


def is_encrypted(provider: str | None) -> bool:
    """Returns whether a provider's signatures are its whole reasoning, encrypted, as in the Responses API.

    Args:
        provider: The name in events, or None if it is unknown.
    """
    # Imported by name, since formats do not depend on providers. A stream of another process may have any provider.
    return provider in import_module("gai_fast.providers").ENCRYPTING
