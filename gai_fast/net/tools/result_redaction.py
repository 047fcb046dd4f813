"""Redaction of results: a tool's own credentials, which it may repeat, are cut out.

Owns which of a tool's values are credentials. Errors lose all values (`rpc.readable`). A model may need a part of a
result for its next call.

1. The values of `headers` and `env` are credentials, but for those that the configuration calls plain: a folder or the
   name of a project may stand in any result.
2. So is the password of a URL in one of them. Of the server's URL the values of its query are, if their names say so.
3. A value shorter than `limits.secret` may be a word of any result.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

from gai_fast.kernels import encode_json
from gai_fast.model.credentials import names_credential, passwords_in
from gai_fast.model.settings import Secret
from gai_fast.net.attempts.recording import secrets_of
from gai_fast.net.tools.limits import LIMITS
from gai_fast.runtime.breathing import breathe


def credentials_of(values: Mapping[str, Secret], plain: Collection[str], path: str = "") -> frozenset[bytes]:
    """Returns the texts that no result may have: rules 1 to 3.

    Args:
        values: The headers of requests, or the variables of a process.
        plain: The names of those that are no credentials.
        path: The path, and query, of a URL.
    """
    own = {name: value.reveal() for name, value in values.items() if name not in plain}
    query = path.partition("?")[2]
    written = [each.partition("=") for each in query.split("&")]
    pairs = [*parse_qsl(query, keep_blank_values=True), *((name, value) for name, _, value in written)]
    named = {value: value for name, value in pairs if names_credential(name)}
    passwords = {each: each for value in own.values() for each in passwords_in(value)}
    return secrets_of(None, named) | secrets_of(None, passwords) | secrets_of(None, own)


def redacted(value: Any, secrets: Collection[bytes]) -> Any:
    """Returns a value of JSON with asterisks in place of secrets, in its texts and names, and of numbers that have one.

    A value without any is returned as it is. To look for them costs what it costs to write the value, and no walk.

    Args:
        value: The value.
        secrets: As `credentials_of` returns them.
    """
    if not secrets or not _may_have(value, secrets):
        return value
    return _Redaction(secrets).of(value)


def _may_have(value: Any, secrets: Collection[bytes]) -> bool:
    written = encode_json(value)
    return any(encode_json(secret.decode())[1:-1] in written for secret in secrets)


class _Redaction:
    """The redaction of a result that has a secret; a server may have sent 500,000 short texts with it.

    Args:
        secrets: The secrets.
    """

    def __init__(self, secrets: Collection[bytes]) -> None:
        texts = sorted((secret.decode() for secret in secrets), key=len, reverse=True)
        self._texts = texts
        self._pattern = re.compile("|".join(map(re.escape, texts)))
        self._has_numbers = any(map(_NUMERIC.fullmatch, texts))

    def of(self, value: Any) -> Any:
        """Returns a value without secrets."""
        breathe()
        kind = type(value)
        if kind is str:
            return self._text(value)
        if kind is list:
            return [self.of(each) for each in value]
        if kind is dict:
            return {self._text(name): self.of(each) for name, each in value.items()}
        if self._has_numbers and (kind is int or kind is float):
            written = encode_json(value).decode()
            return value if self._text(written) == written else _CUT
        return value

    def _text(self, text: str) -> str:
        if len(text) <= LIMITS.short_text:
            return self._pattern.sub(_CUT, text)
        for secret in self._texts:
            text = text.replace(secret, _CUT)
        return text


_NUMERIC: Final = re.compile(r"[0-9.eE+-]+")
_CUT: Final = "***"
