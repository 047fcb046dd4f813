"""Redaction of results: a tool's own credentials, which it may repeat, are cut out.

Owns which of a tool's values are credentials. Errors lose all values (`rpc.readable`). A model may need a part of a
result for its next call.

1. The values of `headers` and `env` are credentials, but for those that the configuration calls plain: a folder or the
   name of a project may stand in any result.
2. Of a URL the values of its query are, if their names say so.
3. A value shorter than `limits.secret` may be a word of any result.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import parse_qsl

from gai_fast.kernels import encode_json
from gai_fast.model.credentials import names_credential
from gai_fast.model.settings import Secret
from gai_fast.net.attempts.recording import secrets_of
from gai_fast.net.tools.rpc import without


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
    return secrets_of(None, named) | secrets_of(None, own)


def redacted(value: Any, secrets: Collection[bytes]) -> Any:
    """Returns a value of JSON with asterisks in place of secrets, in its texts and names.

    A value without any is returned as it is. To look for them costs what it costs to write the value, and no walk.

    Args:
        value: The value.
        secrets: As `credentials_of` returns them.
    """
    if not secrets or not _may_have(value, secrets):
        return value
    return _without(sorted(secrets, key=len, reverse=True), value)


def _may_have(value: Any, secrets: Collection[bytes]) -> bool:
    written = encode_json(value)
    return any(encode_json(secret.decode())[1:-1] in written for secret in secrets)


def _without(secrets: Collection[bytes], value: Any) -> Any:
    if isinstance(value, str):
        return without(secrets, value)
    if isinstance(value, list):
        return [_without(secrets, each) for each in value]
    if isinstance(value, dict):
        return {without(secrets, name): _without(secrets, each) for name, each in value.items()}
    return value
