"""AWS Signature Version 4: the signature of a request, and of a presigned URL.

Source: AWS's reference, "AWS API request signatures". botocore signs the same requests equally (the tests compare), but
needs ten times as long and its own request objects. Only the headers that the signature needs are signed: `host`,
`x-amz-date` and, with temporary credentials, `x-amz-security-token`; what a proxy adds or changes breaks no signature.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final
from urllib.parse import quote

_ALGORITHM: Final = "AWS4-HMAC-SHA256"
_END: Final = "aws4_request"
_UNRESERVED: Final = "-_.~"


@dataclass(frozen=True, slots=True)
class AWSKeys:
    """Credentials of AWS."""

    access_key: str
    secret_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)
    """The token of temporary credentials."""


class Signer:
    """Signs for one service in one region.

    Args:
        keys: The credentials.
        region: The region.
        service: The service's name in signatures.
    """

    __slots__ = ("_day", "_key", "_keys", "_region", "_service")

    def __init__(self, keys: AWSKeys, region: str, service: str) -> None:
        self._keys = keys
        self._region = region
        self._service = service
        self._day = ""
        self._key = b""  # of `_day`

    def headers(self, method: str, host: str, target: str, body: bytes, now: str) -> list[tuple[str, str]]:
        """Returns the headers that sign a request.

        Args:
            method: The method.
            host: The value of `Host`.
            target: The whole path, percent-encoded, with its query.
            body: The body.
            now: The time in UTC, as `20261125T213842Z`.
        """
        token = self._keys.session_token
        own = [("x-amz-date", now), *([("x-amz-security-token", token)] if token else [])]
        names = ";".join(("host", *(name for name, _ in own)))
        path, _, query = target.partition("?")
        canonical = "\n".join(
            (
                method,
                quote(path, safe="/~"),  # again: only S3 signs a path as it is sent
                "&".join(f"{name}={value}" for name, value in _pairs(query)),
                f"host:{host}",
                *(f"{name}:{value}" for name, value in own),
                "",
                names,
                sha256(body).hexdigest(),
            )
        )
        credential = f"Credential={self._keys.access_key}/{self._scope(now)}"
        signed = f"{_ALGORITHM} {credential}, SignedHeaders={names}, Signature={self._signature(canonical, now)}"
        return [("authorization", signed), *own]

    def presigned(self, method: str, host: str, query: str, now: str, seconds: int) -> str:
        """Returns the URL `host/?query` with a signature that is valid for some seconds, without its scheme.

        Args:
            method: The method.
            host: The host.
            query: The query of the operation, percent-encoded.
            now: As for `headers`.
            seconds: The time for which it is valid.
        """
        signing = [
            ("X-Amz-Algorithm", _ALGORITHM),
            ("X-Amz-Credential", f"{self._keys.access_key}/{self._scope(now)}"),
            ("X-Amz-Date", now),
            ("X-Amz-Expires", str(seconds)),
            ("X-Amz-SignedHeaders", "host"),
        ]
        if self._keys.session_token:
            signing.append(("X-Amz-Security-Token", self._keys.session_token))
        whole = "&".join((query, *(f"{name}={quote(value, safe=_UNRESERVED)}" for name, value in signing)))
        ordered = "&".join(f"{name}={value}" for name, value in _pairs(whole))
        canonical = "\n".join((method, "/", ordered, f"host:{host}", "", "host", sha256(b"").hexdigest()))
        return f"{host}/?{whole}&X-Amz-Signature={self._signature(canonical, now)}"

    def _scope(self, now: str) -> str:
        return f"{now[:8]}/{self._region}/{self._service}/{_END}"

    def _signature(self, canonical: str, now: str) -> str:
        text = "\n".join((_ALGORITHM, now, self._scope(now), sha256(canonical.encode()).hexdigest()))
        return _sign(self._key_of(now[:8]), text).hex()

    def _key_of(self, day: str) -> bytes:
        """Returns the key of a day in UTC; deriving it takes four times as long as a signature."""
        if day != self._day:
            key = f"AWS4{self._keys.secret_key}".encode()
            for part in (day, self._region, self._service, _END):
                key = _sign(key, part)
            self._day, self._key = day, key
        return self._key


def _sign(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")


def _pairs(query: str) -> list[tuple[str, str]]:
    """Returns the members of a query in the order of their signature."""
    pairs = (pair.partition("=") for pair in query.split("&") if pair)
    return sorted((name, value) for name, _, value in pairs)
