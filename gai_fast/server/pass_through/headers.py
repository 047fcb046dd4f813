"""The headers that are passed on, to an upstream and back.

Owns which are not: those of one hop, credentials, what gives a request another method or address than the `lane` was
asked for, and what the gateway itself says.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from typing import Final

from gai_fast.model.limits import SHARED
from gai_fast.server.limits import LIMITS

Headers = tuple[tuple[str, str], ...]

_HOP: Final = frozenset(
    "connection keep-alive te trailer transfer-encoding upgrade http2-settings content-length host expect".split()
)
"""RFC 9110, 7.6.1, and the framing."""
_OF_CLIENT: Final = frozenset(
    "accept-encoding cookie cookie2 x-api-key openai-organization openai-project x-goog-user-project x-amz-date "
    "origin referer priority forwarded via x-real-ip true-client-ip cf-connecting-ip".split()
)
"""An encoding that no code decodes, credentials, their accounts, and headers that identify the client."""
_OF_CLIENT_PREFIXES: Final = ("proxy-", "x-gai-", "x-forwarded-", "sec-", "access-control-")
_REROUTES: Final = re.compile(
    r"(?!x-stainless-).*(?:override|rewrit|original"
    r"|(?<![a-z])(?:http-?)?(?:method|path|ur[il]|host)(?![a-z])|destination-?url)"
)
"""Names of headers from which servers take another method, path or host than those of the request line:
`x-http-method-override` (Google's APIs, Rails, Django), `x-original-url` and `x-rewrite-url` (IIS, Symfony, Zend),
`x-envoy-original-path`, `request-uri`. `x-stainless-helper-method` of the SDKs only counts calls."""
_SECRET_ENDINGS: Final = ("api-key", "apikey", "authorization", "-token", "-secret", "subscription-key")
"""The ends of the names of headers that carry credentials: `x-goog-api-key`, `x-amz-security-token`."""

_OF_UPSTREAM: Final = frozenset(
    "set-cookie set-cookie2 location refresh date server alt-svc strict-transport-security www-authenticate "
    "x-request-id request-id content-security-policy x-content-type-options clear-site-data content-encoding".split()
)
"""Headers that would act on the gateway's own origin, or contradict what the gateway says of itself."""
_NEVER_PASSED: Final = (_HOP | _OF_UPSTREAM) - {"connection"}
_OF_UPSTREAM_PREFIXES: Final = ("proxy-", "x-gai-", "access-control-")
_MOST_PASSED: Final = SHARED.passed_headers  # a constant, because every response needs it
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")

GUARDS: Final = (("x-content-type-options", "nosniff"), ("content-security-policy", "sandbox"))
"""Added to responses: a page from an upstream must not act with the gateway's origin."""


def for_upstream(
    headers: dict[str, str], own: Iterable[tuple[str, str]], configured: Mapping[str, str]
) -> list[tuple[str, str]]:
    """Returns the headers of a request to an upstream.

    Args:
        headers: The client's, by lower-case name.
        own: Those of the upstream's API: the credential, a version. Of these the credential replaces the client's; of
            others the client's count.
        configured: Those of the configuration, which replace all others.
    """
    replaced = {name.lower() for name in configured}
    passed = [
        (name, value)
        for name, value in headers.items()
        if _is_clients(name) and _is_plain(value) and name not in replaced
    ]
    dropped = _named_by(headers.get("connection"))
    if dropped:
        passed = [item for item in passed if item[0] not in dropped]
    given = replaced.union([name for name, _ in passed])
    return [*passed, *[item for item in own if item[0].lower() not in given], *configured.items()]


@lru_cache(LIMITS.known_names)
def _is_clients(name: str) -> bool:
    """Returns whether a client's header of this name is passed on."""
    read = name.replace("_", "-")  # as servers read it that hand headers on in variables (RFC 3875, 4.1.18)
    return not (
        read in _HOP
        or read in _OF_CLIENT
        or read.startswith(_OF_CLIENT_PREFIXES)
        or read.endswith(_SECRET_ENDINGS)
        or _REROUTES.match(read)
        or not _NAME.fullmatch(name)
    )


def _is_plain(value: str) -> bool:
    """Returns whether a value is printable ASCII, which breaks no framing."""
    return value.isascii() and value.isprintable()


def may_be_passed(headers: dict[str, str]) -> Headers:
    """Returns an upstream's headers without those that no client gets: many responses then have equal ones.

    Args:
        headers: The headers, by lower-case name.
    """
    return tuple([item for item in headers.items() if item[0] not in _NEVER_PASSED])


def for_client(headers: Headers, own: Collection[str]) -> Headers:
    """Returns the headers of an upstream's response that are passed on.

    Args:
        headers: Those of `may_be_passed`; not trusted.
        own: The names of the gateway's own headers, which replace the upstream's.
    """
    named = [value for name, value in headers if name == "connection"]
    dropped = _named_by(named[0] if named else None)
    passed = [
        (name, value)
        for name, value in headers
        if _is_upstreams(name) and _is_plain(value) and name not in own and name not in dropped
    ]
    return tuple(passed[:_MOST_PASSED])


@lru_cache(LIMITS.known_names)
def _is_upstreams(name: str) -> bool:
    """Returns whether an upstream's header of this name is passed on."""
    return not (
        name in _HOP or name in _OF_UPSTREAM or name.startswith(_OF_UPSTREAM_PREFIXES) or not _NAME.fullmatch(name)
    )


def _named_by(connection: str | None) -> frozenset[str]:
    """Returns the names of the headers that a `Connection` header declares to be of one hop."""
    return frozenset() if connection is None else frozenset(each.strip().lower() for each in connection.split(","))
