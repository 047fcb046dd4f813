"""A caller's token: a JWT (RFC 7519) in the compact form of a JWS (RFC 7515), read strictly.

Owns the form, the algorithms and the times. Verifies no signature (`key_set.py`) and knows no issuer. The rules follow
RFC 8725:

1. Only signatures of a public key are accepted (`ALGORITHMS`): never `none`, never a shared secret (HS256).
2. What the header says of keys (`jwk`, `jku`, `x5c`, `x5u`) is ignored: keys come from the issuer's key set.
3. A header with `crit` or `b64` is refused: the token means something that is not understood here. So is a nested token
   (`cty`), an encrypted one, and one of another kind (`typ`), such as a logout token.
4. Base64url and JSON are strict: one spelling of each byte, no padding, UTF-8, no name twice, no NaN.
5. `exp` is required and has no leeway: the token is refused from that second on. `nbf` has a leeway of
   `limits.caller_token_leeway`.
"""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any, Final, NoReturn

from gai_fast.net.limits import LIMITS

RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
CURVES: Final = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
"""The algorithm of each curve (RFC 7518, 3.4)."""
EDWARDS: Final = "EdDSA"
ALGORITHMS: Final = frozenset((*RSA, *CURVES.values(), EDWARDS))

_COMPACT: Final = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
_KINDS: Final = frozenset(("jwt", "at+jwt"))
"""Values of `typ`, which may begin with `application/`: those of ID tokens, and of access tokens (RFC 9068)."""


class TokenError(Exception):
    """A token that is refused. The text says why, in words that hold nothing of the token.

    Args:
        text: Continues "this token …".
        reason: As for `Error`.
    """

    def __init__(self, text: str, reason: str = "token") -> None:
        super().__init__(text)
        self.reason = reason


class Token:
    """A token in the right form, not yet verified.

    Attributes:
        algorithm: One of `ALGORITHMS`.
        key_id: `kid`; None if the header has none.
        claims: The claims.
        signed: The bytes that are signed.
        signature: The signature.
        ends: `exp`, in Unix seconds.
    """

    __slots__ = ("algorithm", "claims", "ends", "key_id", "signature", "signed")

    def __init__(
        self, algorithm: str, key_id: str | None, claims: dict[str, Any], signed: bytes, signature: bytes
    ) -> None:
        self.algorithm = algorithm
        self.key_id = key_id
        self.claims = claims
        self.signed = signed
        self.signature = signature
        self.ends = _time(claims, "exp")

    def check_time(self, now: float) -> None:
        """Checks that the token is valid now.

        Args:
            now: Unix seconds.

        Raises:
            TokenError: It has expired, or is not valid yet.
        """
        if now >= self.ends:
            raise TokenError("has expired: get a new one from its issuer", "expired")
        if "nbf" in self.claims and now < _time(self.claims, "nbf") - LIMITS.caller_token_leeway:
            raise TokenError("is not valid yet (`nbf`)")

    def is_for(self, audience: str) -> bool:
        """Returns whether the token is for an audience.

        Args:
            audience: One of the values of `aud`.
        """
        given = self.claims.get("aud")
        return given == audience or (isinstance(given, list) and audience in given)

    def caller(self, claim: str) -> str:
        """Returns the name of the caller.

        Args:
            claim: The claim that has it.

        Raises:
            TokenError: The claim cannot name a caller.
        """
        name = self.claims.get(claim)
        if not isinstance(name, str) or not 1 <= len(name) <= LIMITS.caller_claim or not name.isprintable():
            most = LIMITS.caller_claim
            raise TokenError(f"has no claim `{claim}` of 1 to {most} printable characters, which would name its caller")
        # OpenID Connect Core 1.0, 5.1: `email_verified`. Cognito writes it as a text.
        if self.claims.get(f"{claim}_verified") in (False, "false"):
            raise TokenError(f"has a `{claim}` that its issuer has not verified (`{claim}_verified`)")
        return name


def read_token(text: str) -> Token:
    """Reads a token.

    Args:
        text: The token.

    Raises:
        TokenError: It is not a signed token of the accepted form.
    """
    if len(text) > LIMITS.caller_token:
        raise TokenError(f"is longer than {LIMITS.caller_token} characters")
    parts = _COMPACT.fullmatch(text)
    if parts is None:
        raise TokenError("is no signed JWT: three parts in base64url, with a dot between them")
    if len(parts[1]) > LIMITS.caller_token_header:
        raise TokenError(f"has a header of more than {LIMITS.caller_token_header} characters")
    header = _object(parts[1], "header")
    algorithm, key_id, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise TokenError("must be signed with RS, PS or ES (256, 384, 512) or EdDSA (`alg`)")
    if "crit" in header or "b64" in header or "cty" in header:
        raise TokenError("has `crit`, `b64` or `cty` in its header, which are not understood here")
    if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in _KINDS:
        raise TokenError("is of another kind than JWT or at+jwt (`typ`)")
    if key_id is not None and not isinstance(key_id, str):
        raise TokenError("names its key by something that is no text (`kid`)")
    claims = _object(parts[2], "claims")
    signed = text[: parts.end(2)].encode("ascii")
    return Token(algorithm, key_id, claims, signed, _bytes(parts[3], "signature"))


def _time(claims: dict[str, Any], name: str) -> float:
    given = claims.get(name)
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise TokenError(f"has no time as `{name}`, in seconds since 1970")
    return float(max(0, min(given, LIMITS.latest_end)))


def _object(part: str, what: str) -> dict[str, Any]:
    try:
        text = _bytes(part, what).decode()
        found = json.loads(text, object_pairs_hook=_members, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise TokenError(f"has a {what} that is no JSON in UTF-8, or has a name twice") from None
    if not isinstance(found, dict):
        raise TokenError(f"has a {what} that is no JSON object")
    return found


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a name twice")
    return members


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)  # NaN and Infinity are not JSON


def _bytes(part: str, what: str) -> bytes:
    try:
        found = urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except ValueError:
        found = b""
    if urlsafe_b64encode(found).rstrip(b"=") != part.encode("ascii"):
        raise TokenError(f"has a {what} that is no base64url as encoders write it")
    return found
