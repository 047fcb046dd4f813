"""The key of a request, and the caller that it belongs to.

Owns the headers that may carry a key, and the look-up of keys. Keys are known by their SHA-256 digests only, and looked
up by them: the digest of a wrong key has nothing in common with that of a similar right one, so the time of an answer
reveals nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gai_fast.errors import Error
from gai_fast.limits import LIMITS
from gai_fast.settings import KeySettings, key_digest

_KEY_HEADERS: Final = ("x-api-key", "api-key")
"""The headers of the Anthropic and the Azure SDK; the OpenAI SDK sends `Authorization`."""

KEY_PROTOCOL: Final = "bearer."
"""The beginning of a subprotocol that carries a key: the `WebSocket` of a browser sends no other header."""


class Callers:
    """The callers of one server.

    Args:
        keys: `[[key]]`.
    """

    def __init__(self, keys: Sequence[KeySettings]) -> None:
        self._keys = {digest: key for key in keys for digest in key.digests}

    def find(self, headers: dict[str, str]) -> KeySettings:
        """The key of the caller that sends a request.

        Args:
            headers: Of the request, by lower-case name; repeated ones joined with ", ", which no key holds.

        Raises:
            Unauthorized: It has no key, one that is not known, or several that differ.
        """
        key = _key_of(headers)
        if key and len(key) <= LIMITS.longest_key and key.isascii():
            found = self._keys.get(key_digest(key))
            if found is not None:
                return found
        raise Error("unauthorized", "this key is not known here", reason="key")


def _key_of(headers: dict[str, str]) -> str:
    """The one key that a request has; empty where it cannot be one."""
    key: str | None = None
    authorization = headers.get("authorization")
    if authorization is not None:
        scheme, _, key = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise Error("unauthorized", "the Authorization must be `Bearer KEY`", reason="key")
    given = [headers.get(header) for header in _KEY_HEADERS]
    protocols = headers.get("sec-websocket-protocol")
    if protocols is not None:
        names = [name.strip() for name in protocols.split(",")]
        given += [name.removeprefix(KEY_PROTOCOL) for name in names if name.startswith(KEY_PROTOCOL)]
    for other in given:
        if other is not None:
            if key is not None and key != other:
                raise Error("unauthorized", "the request has several keys, which differ", reason="key")
            key = other
    if key is None:
        how = "as `Authorization: Bearer KEY`, `x-api-key` or `api-key`, or as subprotocol `bearer.KEY` of a WebSocket"
        raise Error("unauthorized", f"the request needs a key, {how}", reason="key")
    return key
