"""Idempotency keys as records, for tests of a store without its `Store`."""

from __future__ import annotations

from gai_fast.stores import Claim
from gai_fast.stores.backend import CLAIMS, Records, claim_text, read_claim


async def take(records: Records, key: str, claim: Claim, ttl: float = 60, holder: str = "") -> Claim | None:
    """Takes a key; returns the claim that it has already."""
    found = await records.swap(CLAIMS, key, None, claim_text(claim), ttl, holder)
    return None if found in (None, claim_text(claim)) else read_claim(found)


async def taken(records: Records, key: str) -> Claim | None:
    """Returns the claim that a key has."""
    found = await records.get(CLAIMS, key)
    return None if found is None else read_claim(found)


async def free(records: Records, key: str, claim: Claim) -> bool:
    """Frees a key that has this claim; returns whether it had."""
    return await records.delete(CLAIMS, key, claim_text(claim))
