"""Limits of the ledger.

Only this folder uses them; limits that folders share stand in `model/limits.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds, unless the name says otherwise."""

    ledger_parts: int = 16
    """A worker keeps this part of what is free of a key's limit: enough requests for the time between two exchanges
    with the ledger, and so little that eight workers leave half of it free."""

    ledger_scarce: int = 64
    """Below this many free uses of a limit nothing is kept: the ledger decides on each request. In a minute a key with
    fewer makes so few requests that a round trip for each is nothing."""

    ledger_tight: float = 1.0
    """Seconds for which nothing of a key is kept, after workers have had to be asked to give it back."""

    ledger_flush: float = 0.05
    """Seconds between two exchanges of a worker with the ledger while there is news: as late as a limit a minute may be
    by 0.1 %."""

    ledger_wait: float = 2.0
    """Seconds until an exchange with the ledger counts as failed: a busy machine may stand still for one."""

    ledger_retry: float = 1.0
    """Seconds between two attempts to reach a ledger that fails."""

    ledger_gone: float = 5.0
    """Seconds after which a worker that is not heard loses what it keeps and its streams: ten exchanges."""

    ledger_idle: float = 60.0
    """Seconds after which a worker gives back what it keeps of a key that nobody uses."""

    ledger_batch: int = 500
    """Keys, and entries of spend, in one exchange: 5 ms of a Redis server's time."""

    ledger_kept: float = 3600.0
    """Seconds for which Redis keeps the state of a key's limits that nobody uses. No rate is longer than a minute."""

    ledger_keys: int = 100_000
    """Keys whose state is in memory. Keys come from the configuration only; above this number, those are dropped of
    which nothing is in use."""

    ledger_periods: int = 16
    """Days and months of a key's spend that its limit remembers, so that a clock that jumps back finds them: the rest
    is in the report."""

    spend_entries: int = 100_000
    """Different keys, models, upstreams and days of the spend in memory, 300 bytes each. Above it the spend of new ones
    counts for the model and upstream "other" of its key and day."""

    spend_days: int = 400
    """Days for which spend is kept: a year, and the month before."""


LIMITS: Final = Limits()
