"""The limits of a key as the ledger has them, made by name."""

from __future__ import annotations

from gai_fast.ledger._base import NAMES, Caps

REQUESTS = NAMES.index("requests_per_minute")
TOKENS = NAMES.index("tokens_per_minute")


def caps_of(
    requests: int | None = None,
    tokens: int | None = None,
    streams: int | None = None,
    spend: int | None = None,
    label: str = "",
) -> Caps:
    """Returns the limits of a key: requests and tokens a minute, streams, and the spend of a period."""
    rates = [(place, limit) for place, limit in ((REQUESTS, requests), (TOKENS, tokens)) if limit is not None]
    return Caps(tuple(rates), tokens, streams, spend, label)
