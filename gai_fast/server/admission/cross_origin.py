"""The headers that a page of an allowed origin may send and read (Fetch, 3.3: CORS).

Owns the names in `access-control-allow-headers` and `access-control-expose-headers`. Which origins are allowed is
decided in `admit`.

1. Each requested header is allowed. A fixed list is never complete: Firefox and Safari ask for `user-agent`, which an
   SDK sets, and each SDK adds names of its own.
2. Headers that describe the connection, the host or a proxy are never allowed: a page has no right to state them.
3. The operators' routes allow the fixed list only. A request that is too large, or names no allowed header, gets that
   list too.
"""

from __future__ import annotations

import re
from typing import Final

from gai_fast.model.settings import RATE_LIMITS
from gai_fast.server.admission.forwarding import is_set_by_proxy
from gai_fast.server.limits import LIMITS

EXPOSE: Final = "access-control-expose-headers"
_SHOWN: Final = ("limit", "remaining", "reset")
EXPOSED_HEADERS: Final = (
    "x-request-id, request-id, x-gai-stream-id, x-gai-model, x-gai-upstream, x-gai-fallback, x-gai-dropped, "
    "x-gai-adjusted, x-gai-session, x-gai-usage-source, x-gai-cost, x-gai-cache, idempotent-replayed, "
    "retry-after, retry-after-ms, x-should-retry, ratelimit, ratelimit-policy, "
    f"{', '.join(f'x-ratelimit-{what}-{each.header}' for each in RATE_LIMITS for what in _SHOWN)}, "
    "x-gai-spend-limit, x-gai-spend-remaining, x-gai-spend-reset"
)
USUAL_HEADERS: Final = (
    "authorization, content-type, accept, user-agent, x-api-key, api-key, anthropic-version, anthropic-beta, "
    "anthropic-dangerous-direct-browser-access, idempotency-key, x-idempotency-key, x-request-id, traceparent, "
    "tracestate, last-event-id, x-stainless-arch, x-stainless-lang, x-stainless-os, x-stainless-package-version, "
    "x-stainless-retry-count, x-stainless-runtime, x-stainless-runtime-version, x-stainless-timeout, "
    "x-stainless-helper, x-stainless-helper-method, x-stainless-poll-helper, x-stainless-custom-poll-interval, "
    "x-stainless-read-timeout, x-gai-cache, x-gai-key, x-gai-unsupported"
)
"""The fixed list: the headers that the SDKs of OpenAI and Anthropic and `gai-fast.js` send."""

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
_NEVER: Final = frozenset(
    {
        "*",  # allows every name (Fetch, 4.9)
        "cookie",
        "host",
        # of a connection (RFC 9110, 7.6.1)
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


def allowed_headers(requested: str) -> str:
    """Returns the value of `access-control-allow-headers`: rules 1 and 2.

    Args:
        requested: `access-control-request-headers`; empty if there is none.
    """
    if len(requested) > LIMITS.preflight_text:
        return USUAL_HEADERS
    names = [name for each in requested.split(",") if (name := each.strip(" \t").lower())]
    if len(names) > LIMITS.preflight_names:
        return USUAL_HEADERS
    return ", ".join([name for name in names if _may_be_sent(name)]) or USUAL_HEADERS


def _may_be_sent(name: str) -> bool:
    return _TOKEN.fullmatch(name) is not None and name not in _NEVER and not is_set_by_proxy(name)
