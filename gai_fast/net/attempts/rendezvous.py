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

from mypy_extensions import i64

_UNEXACT: Final = 12
"""The lower bits of 64 that a float does not hold beside a half."""
_RANKS: Final[i64] = (1 << 52) - 1
_SPACE: Final = 2.0**52
_SIGN: Final = 1 << 63


def factor(*parts: str) -> i64:
    """Returns the factor of a place, an odd number of 64 bits, the first one the sign.

    Args:
        parts: What the place is known by.
    """
    digest = blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=8, person=b"gai-fast home").digest()
    return _signed(int.from_bytes(digest, "big") | 1)


def hashed(session: str) -> i64:
    """Returns the number of a session, of 64 bits, the first one the sign.

    Args:
        session: Its digest, 16 hex digits.
    """
    return _signed(int(session, 16))


def _signed(number: int) -> i64:
    return number - 2 * _SIGN if number >= _SIGN else number


def rank(session: i64, factor: i64) -> i64:
    """Returns the rank of a place for a session among places of equal weights: each is the highest for its part.

    Args:
        session: From `hashed`.
        factor: From `factor`.
    """
    # Compiled, the product wraps at 64 bits; interpreted, it does not. The bits that are taken are the same.
    return session * factor >> _UNEXACT & _RANKS


def score(session: i64, factor: i64, weight: int) -> float:
    """Returns the score of a place for a session: each place is the highest one's in its weight's share.

    Args:
        session: As for `rank`.
        factor: As for `rank`.
        weight: The place's share; 0 has the lowest score of all, 0.
    """
    return -weight / math.log((float(rank(session, factor)) + 0.5) / _SPACE)
