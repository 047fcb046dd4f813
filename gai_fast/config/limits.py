"""Limits of configurations.

Only this folder uses them; limits that folders share stand in `model/limits.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gai_fast.model.limits import KIB, MIB


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds, unless the name says otherwise."""

    reconnect_most: int = 3_600_000
    """The longest `retry:` that may be configured, in milliseconds: an hour. A client that waits longer has left."""

    client_buffer: int = 64 * MIB
    """The largest `client_buffer`: a thousand slow clients that fill it would take all of a large machine's memory."""

    least_memory: int = 64 * MIB
    """The least memory that can be configured: a server without streams has nearly as much."""

    retries: int = 10
    """Retries of one request that can be configured: each may take as long as the request itself."""

    breaker_failures: int = 1000
    """Failures that can be asked for before a breaker opens: their times are kept."""

    targets: int = 64
    """Targets of one model: a request looks at each of them, in a microsecond or two."""

    target_weight: int = 1000
    """The largest weight of a target: a thousandth is the least share that anybody needs."""

    upstream_keys: int = 64
    """Keys of one upstream: a request may be refused once for each."""

    shortest_key: int = 8
    """Characters of a caller's key at least, as NIST SP 800-63B has it for any secret: shorter ones are guessed."""

    key_secrets: int = 8
    """Secrets of one caller: two while one is rotated, and some more for callers that take long to follow."""

    key_limit: int = 1_000_000_000
    """The largest limit of a key: more requests, tokens or streams than any server has, and exact in any store."""

    largest_spend: int = 9_000_000
    """The largest limit of spend: in 10^-12 of the currency it is a signed number of 64 bits, as stores have it."""

    price: int = 1_000_000
    """Units of currency for a million tokens: one for a token. The dearest models cost some hundred dollars, and a
    dollar is 25,000 of the smallest units in use."""

    price_list: int = 8 * KIB
    """Entries of a price list: the longest public lists have 3,000."""


LIMITS: Final = Limits()
