"""The key of a request, and the caller that it belongs to.

Owns the headers that may carry a key, and the look-up of keys. Keys are known by their SHA-256 digests only, and looked
up by them: the digest of a wrong key has nothing in common with that of a similar right one, so the time of an answer
reveals nothing. What is wrong with a known key (its end, its role) is found after the look-up. `token_callers` has the
callers with tokens of issuers, which have dots.
"""

from __future__ import annotations

import binascii
from collections.abc import Collection, Mapping, Sequence
from typing import Final, NamedTuple

from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.model.settings import KeySettings, key_digest
from gai_fast.net.limits import LIMITS
from gai_fast.runtime.clock import now_ms
from gai_fast.server.admission.auth_throttle import AuthThrottle
from gai_fast.server.admission.credentials import GATEWAY_KEY
from gai_fast.server.admission.token_callers import TokenCallers
from gai_fast.stores.health import out_of_reach, store_sealed

_KEY_HEADERS: Final[tuple[str, ...]] = ("x-api-key", "api-key")
"""The headers of the Anthropic and the Azure SDK; the OpenAI SDK sends `Authorization`."""
LONG_HEADERS: Final = frozenset((*_KEY_HEADERS, GATEWAY_KEY, "authorization", "sec-websocket-protocol"))
"""All headers that may have a key. A token makes them longer than others may be."""

_TOKEN_DOTS: Final = 2
"""The dots of a signed token; an encrypted one, which is refused, has more."""
_NEVER: Final = float("inf")
KEY_PROTOCOL: Final = "bearer."
"""The beginning of a subprotocol that carries a key: the `WebSocket` of a browser sends no other header."""


def has_key(headers: Mapping[str, str]) -> bool:
    """Returns whether a request has a key, right or wrong.

    Args:
        headers: Of the request, by lower-case name.
    """
    return "authorization" in headers or any(name in headers for name in (*_KEY_HEADERS, GATEWAY_KEY))


class StoredCallers(NamedTuple):
    """The keys of the store, as the guards need them.

    Args:
        known: The key of each digest, and the time in milliseconds since the epoch until which the secret is valid.
        lost: The digests of keys that cannot be checked, because the store has been out of reach for too long. None if
            it is not known which ones these are.
        is_closed: Whether there is, or was, a key in the store, so that every caller needs one.
        is_sealed: Whether keys cannot be checked because the store is sealed with a key that is not here.
    """

    known: Mapping[bytes, tuple[KeySettings, float]]
    lost: Collection[bytes] | None
    is_closed: bool
    is_sealed: bool = False


NO_STORED: Final = StoredCallers({}, (), False)


class Callers:
    """The callers of one server.

    Args:
        keys: `[[key]]`.
        auth_throttle: Counts wrong keys.
        tokens: The callers with tokens. None if there is no `[[issuer]]`.
        stored: The keys of the store.
    """

    def __init__(
        self,
        keys: Sequence[KeySettings],
        auth_throttle: AuthThrottle | None = None,
        tokens: TokenCallers | None = None,
        stored: StoredCallers = NO_STORED,
    ) -> None:
        self._keys = {**stored.known, **{digest: (key, end_ms(key)) for key in keys for digest in key.digests}}
        self._lost = stored.lost
        self._is_sealed = stored.is_sealed
        self._auth_throttle = auth_throttle or AuthThrottle()
        self._tokens = tokens
        self._longest = SHARED.longest_key if tokens is None else LIMITS.caller_token

    def find(self, headers: dict[str, str], address: str | None, *, basic: bool = False) -> KeySettings:
        """Returns the key of the caller that sends a request.

        Args:
            headers: Of the request, by lower-case name; repeated ones joined with ", ", which no key holds.
            address: The client's, whose wrong keys are counted; empty for a unix socket. None if the key came
                from there before.
            basic: The key may also be the password of `Authorization: Basic`.

        Raises:
            Unauthorized: It has no key, an unknown or expired key, or several keys that differ.
            RateLimited: The address has sent too many wrong keys.
            Overloaded: It has a token that cannot be checked now, or a key of the store, which has been out of reach
                for too long.
        """
        key = _key_of(headers, basic)
        digest = key_digest(key) if key and len(key) <= self._longest and key.isascii() else b""
        found = self._keys.get(digest)
        if found is None:
            if self._tokens is not None and key.count(".") >= _TOKEN_DOTS:
                return self._tokens.find(key, digest, address)
            if self._lost is None or digest in self._lost:
                raise store_sealed() if self._is_sealed else out_of_reach("the keys")
            if address is not None:
                self._auth_throttle.note_wrong(address)
            raise Error(
                "unauthorized",
                "this key is not known here: send one of this gateway's, not the provider's",
                reason="key",
            )
        settings, end = found
        if address is not None:
            self._auth_throttle.note_right(address, settings.name)
        if now_ms() >= end:
            raise Error("unauthorized", "this key has expired", reason="expired")
        return settings


def end_ms(key: KeySettings) -> float:
    """Returns the end of a key in milliseconds since the epoch; infinite if it has none."""
    return _NEVER if key.expires is None else key.expires.timestamp() * 1e3


def _key_of(headers: dict[str, str], basic: bool) -> str:
    """Returns the one key that a request has; empty if its key cannot be valid.

    With `x-gai-key` all other headers are the caller's credential for an upstream.
    """
    key: str | None = headers.get(GATEWAY_KEY)
    if key is not None:
        return key
    authorization = headers.get("authorization")
    if authorization is not None:
        scheme, _, key = authorization.partition(" ")
        key = key.lstrip(" ")  # one space or several (RFC 9110, 11.4)
        if basic and scheme.lower() == "basic":
            key = _password(key)
        elif scheme.lower() != "bearer":
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
        how = "as `Authorization: Bearer KEY`, `x-api-key`, `api-key` or `x-gai-key`"
        of_sockets = "or as subprotocol `bearer.KEY` of a WebSocket"
        raise Error("unauthorized", f"the request needs a key, {how}, {of_sockets}", reason="key")
    return key


def _password(credentials: str) -> str:
    """Returns the password in the credentials of `Basic` (RFC 7617, 2); empty if there is none."""
    try:
        return binascii.a2b_base64(credentials.strip(), strict_mode=True).decode().partition(":")[2]
    except ValueError:
        return ""
