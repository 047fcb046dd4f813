"""Signatures of reasoning and of calls, for dialects that have one opaque text for them.

Owns the sealed form, `gai:` and a JSON object, for signatures that need more than their text, such as their author.
Clients send signatures back unchanged. Knows no dialect, and not which of its signatures need the sealed form.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from gai_fast.kernels import encode_json
from gai_fast.model.errors import InvalidRequest

# A provider's signature is base64, or begins with a letter and has no colon.
_MARK: Final = "gai:"
_TYPES: Final = {str: "str", bool: "bool", dict: "object", list: "array", int: "int", float: "float"}
_MEMBERS: Final[tuple[tuple[str, type], ...]] = (("provider", str), ("redacted", bool), ("call_id", str))
"""The members of the sealed form besides `signature`."""


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


def open_signature(text: str, path: str, native: str) -> dict[str, Any]:
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
    _check(sealed, path, dict)
    signature = sealed.get("signature")
    if signature is None:
        raise _invalid("Object missing required field `signature`", path)
    _check(signature, f"{path}.signature", str)
    found: dict[str, Any] = {"signature": signature}
    for name, kind in _MEMBERS:
        value = sealed.get(name)
        if value is not None:
            _check(value, f"{path}.{name}", kind)
        if value:
            found[name] = value
    return found


def _check(value: Any, path: str, kind: type) -> None:
    if type(value) is not kind:
        raise _invalid(f"Expected `{_TYPES[kind]}`, got `{_TYPES.get(type(value), 'null')}`", path)


def _invalid(what: str, path: str) -> InvalidRequest:
    return InvalidRequest(message=f"The request is not valid: {what} - at `{path}`", reason="validation")
