"""Weighted rendezvous hashing: the home of a session among targets, or among keys.

Each place has a score for each session, and the highest one is the session's home. The scores depend on nothing but the
session and the place, so a home is the same in every process, on every machine, after a restart and in any order of the
file; if a place goes, its sessions alone move, and come back with it. Pure policy, as `balance.py`.

A session is known by a digest, whose 64 bits are random. So one multiplication by a factor of the place, modulo 2^64,
is hash enough: a cryptographic one would cost ten times as much, for each place of each request.
"""

from __future__ import annotations

import math
from hashlib import blake2b
from typing import Final

_BITS: Final = (1 << 64) - 1
_UNEXACT: Final = 12
"""The lower bits of 64 that a float does not hold beside a half."""
_SPACE: Final = 2.0**52


def factor(*parts: str) -> int:
    """Returns the factor of a place, an odd number of 64 bits.

    Args:
        parts: What the place is known by.
    """
    digest = blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=8, person=b"gai-fast home").digest()
    return int.from_bytes(digest, "big") | 1


def hashed(session: str) -> int:
    """Returns the number of a session.

    Args:
        session: Its digest, 16 hex digits.
    """
    return int(session, 16)


def rank(session: int, factor: int) -> int:
    """Returns the rank of a place for a session among places of equal weights: each is the highest for its part.

    Args:
        session: From `hashed`.
        factor: From `factor`.
    """
    return (session * factor & _BITS) >> _UNEXACT


def score(session: int, factor: int, weight: int) -> float:
    """Returns the score of a place for a session: each place is the highest one's in its weight's share.

    Args:
        session: As for `rank`.
        factor: As for `rank`.
        weight: The place's share; 0 has the lowest score of all, 0.
    """
    return -weight / math.log((rank(session, factor) + 0.5) / _SPACE)
