"""The caller's own credential for an upstream, of `api_key = "caller"`, and how credentials are known."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Final
from urllib.parse import unquote

from gai_fast.model.settings import CREDENTIAL_NAME, Secret

CALLER_CREDENTIAL: Final = "caller_credential"
"""The reason of a request that lacks a credential of its caller's, or whose credential the upstream refuses."""


def names_credential(name: str) -> bool:
    """Returns whether the name of a header, a variable or a parameter says that its value is a credential."""
    return _CREDENTIAL_NAME.search(name) is not None


_CREDENTIAL_NAME: Final = re.compile(
    r"key|token|secret|passw|passphrase|passcode|pass(?![a-z])|credential|auth|cookie|signature|jwt"
    r"|(?<![a-z])sig(?![a-z])|(?<=[a-z_-])pwd(?![a-z])|(?<=[_-])pat(?![a-z])",  # PWD alone is a folder
    re.IGNORECASE,
)


def passwords_in(text: str) -> list[str]:
    """Returns the passwords of the URLs in a text (`postgres://user:password@host`), each also as it is decoded."""
    found = _PASSWORD.findall(text)
    return [*dict.fromkeys(each for password in found for each in (password, unquote(password)))]


_PASSWORD: Final = re.compile(r"://[^\s/?#@:]*:([^\s/?#@]+)@")


class Credential:
    """A credential that a caller sends for an upstream. It is kept in memory, as long as its request.

    Args:
        secret: The credential.
        is_bearer: Whether it came as a bearer token, and so goes up as one.

    Attributes:
        secret: As above.
        is_bearer: As above.
        name: The name of a caller that has no key of the gateway: `c-` and 16 hex digits of the SHA-256.
    """

    __slots__ = ("is_bearer", "name", "secret")

    def __init__(self, secret: str, *, is_bearer: bool) -> None:
        self.secret = Secret(secret)
        self.is_bearer = is_bearer
        self.name = f"{CREDENTIAL_NAME}{sha256(secret.encode()).hexdigest()[:16]}"

    def __repr__(self) -> str:
        return f"Credential({self.name})"
