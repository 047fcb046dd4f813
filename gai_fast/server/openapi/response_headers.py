"""The headers of responses: which responses have them, their sentences and their schemas.

Owns the sentences. `document.py` refers to each header by its name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

_FULL_TEXT: Final = {"type": "string", "minLength": 1}
_COUNT: Final = {"type": "integer", "minimum": 0}
_AMOUNT: Final = {"type": "string", "pattern": "^[0-9.]+$"}

_DIGEST: Final = {"type": "string", "pattern": "^[0-9a-f]{16}$"}

IDS: Final = ("x-request-id", "request-id")
"""The headers of every response."""
RATES: Final = (
    *("ratelimit", "ratelimit-policy"),
    *("x-gai-spend-limit", "x-gai-spend-remaining", "x-gai-spend-reset"),
)
"""The headers of responses to a key with limits, refused or not. The `x-ratelimit-…` headers of dialects are not
described."""
OF_ANSWERS: Final = (
    *("x-gai-stream-id", "x-gai-model", "x-gai-upstream", "x-gai-fallback", "x-gai-dropped", "x-gai-adjusted"),
    *("x-gai-session", "x-gai-cache", "x-gai-cost", "x-gai-usage-source", "idempotent-replayed"),
    *RATES,
)
"""The headers of models' answers."""
OF_ERRORS: Final = ("x-should-retry", "retry-after", "retry-after-ms", *RATES)
OF_STATUS: Final[Mapping[int, Sequence[str]]] = {401: ("www-authenticate",), 405: ("allow",)}
HEADERS: Final[Mapping[str, tuple[str, Mapping[str, Any]]]] = {
    "x-request-id": ("The request's own id, or a new one.", _FULL_TEXT),
    "request-id": ("The request's id, as in `x-request-id`.", _FULL_TEXT),
    "x-gai-stream-id": ("The stream's id.", _FULL_TEXT),
    "x-gai-model": ("The model that answers, if it is known in time.", _FULL_TEXT),
    "x-gai-upstream": ("The upstream that answers, if it is known in time.", _FULL_TEXT),
    "x-gai-fallback": ("A fallback answers, not the model that was asked.", {"enum": ["true"]}),
    "x-gai-dropped": ("The members of the request that the upstream did not get.", _FULL_TEXT),
    "x-gai-adjusted": ("The members that the upstream got in another form.", _FULL_TEXT),
    "x-gai-session": (
        "The digest of the session that the request names.",
        _DIGEST,
    ),
    "x-gai-cache": ("Whether the answer is shared: kept, joined or new.", {"enum": ["hit", "joined", "miss"]}),
    "x-gai-cost": ("What a whole answer has cost.", _AMOUNT),
    "x-gai-usage-source": ("The source of a count of tokens that is not the upstream's.", _FULL_TEXT),
    "idempotent-replayed": ("The answer is that of an earlier request with the same key.", {"enum": ["true"]}),
    "ratelimit": ("What is left of the limits of a key.", _FULL_TEXT),
    "ratelimit-policy": ("The limits of a key.", _FULL_TEXT),
    "x-gai-spend-limit": ("The limit of spend of a key.", _AMOUNT),
    "x-gai-spend-remaining": ("The amount of that limit that is neither spent nor reserved.", _AMOUNT),
    "x-gai-spend-reset": ("Seconds until the next period begins.", _COUNT),
    "x-should-retry": ("Whether the same request may succeed later.", {"enum": ["true", "false"]}),
    "retry-after": ("Seconds after which to send the request again.", _COUNT),
    "retry-after-ms": ("Milliseconds after which to send the request again.", _COUNT),
    "www-authenticate": ("How a key is sent.", {"enum": ["Bearer"]}),
    "allow": ("The methods of the route.", _FULL_TEXT),
}
"""Headers of responses, each with a sentence and its schema: ours, and HTTP's own headers that direct a client's next
request."""
