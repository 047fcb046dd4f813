"""The credential that a caller sends for an upstream with `api_key = "caller"`.

Owns the headers that carry it. `callers.py` has those of the gateway's own keys: with `x-gai-key` in a request, or
where the gateway has no keys, `Authorization` and `x-api-key` are the caller's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from gai_fast.model.credentials import Credential
from gai_fast.net.limits import LIMITS

GATEWAY_KEY: Final = "x-gai-key"
"""The header of a key of the gateway, where the others have the caller's credential."""
_MESSAGES: Final = re.compile("(?:/p/[^/]+)?/v1/messages")
"""The paths of Anthropic's Messages, here and at an upstream."""


def credential_of(headers: Mapping[str, str], path: str) -> Credential | None:
    """Returns the credential of a request. None if it has none that can be sent.

    Of both headers, `x-api-key` counts on `/v1/messages`, else `Authorization`: Claude Code and Anthropic's SDK send
    both, and Anthropic takes a key as `x-api-key` alone.

    Args:
        headers: Of the request, by lower-case name; repeated ones joined with ", ", which no credential holds.
        path: Its path.
    """
    scheme, _, token = headers.get("authorization", "").partition(" ")
    bearer = _made(token.strip(" "), is_bearer=True) if scheme.lower() == "bearer" else None
    own = _made(headers.get("x-api-key", ""), is_bearer=False)
    return own or bearer if _MESSAGES.match(path) else bearer or own


def _made(text: str, *, is_bearer: bool) -> Credential | None:
    is_sendable = 0 < len(text) <= LIMITS.token and text.isascii() and text.isprintable() and " " not in text
    return Credential(text, is_bearer=is_bearer) if is_sendable else None
