"""Limits of the ledger.

Only this folder uses them; limits that folders share stand in `model/limits.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds, unless the name says otherwise."""

    ledger_flush: float = 0.05
    """Seconds until a worker reports the spend of keys without limits, for which no request and no end of a stream
    waits."""

    ledger_wait: float = 2.0
    """Seconds until an exchange with the ledger counts as failed: a busy machine may stand still for one."""

    ledger_retry: float = 1.0
    """Seconds between two attempts to reach a ledger that fails."""

    ledger_gone: float = 5.0
    """Seconds after which a worker that is not heard loses its streams and their reservations: four signs of life."""

    ledger_idle: float = 60.0
    """Seconds after which a worker reports the streams of a key again: Redis forgets keys that are not heard of."""

    ledger_batch: int = 500
    """Keys, and entries of spend, in one exchange: 5 ms of a Redis server's time."""

    ledger_kept: float = 3600.0
    """Seconds for which Redis keeps the state of an unused key's limits; longer if what was used counts for longer."""

    ledger_keys: int = 100_000
    """Callers whose state is in memory. Keys come from the configuration only, but an issuer has any number of callers;
    above this number, those are dropped of which nothing is in use."""

    ledger_periods: int = 16
    """Days and months of a key's spend that its limit remembers, so that a clock that jumps back finds them: the rest
    is in the report."""

    usual_output: int = 1024
    """Tokens that an answer of a model is expected to have before one has been counted."""

    usual_answers: int = 100
    """The last answers of a model whose mean is expected of the next one: enough to level out, few enough to follow a
    change of its use."""

    usual_models: int = 1000
    """Models whose last answers are remembered, 1 KB each. More names are made up by callers of `<upstream>/<id>`."""

    usual_keys: int = 1000
    """Keys whose own last answers are remembered: issuers have any number of callers."""

    usual_models_of_key: int = 16
    """Models of which a key's own last answers are remembered: a program uses a few."""

    spend_entries: int = 100_000
    """Different keys, models, upstreams and days of the spend in memory, 300 bytes each. Above it the spend of new ones
    counts for the model and upstream "other" of its key (or issuer) and day."""

    spend_read: int = 2_000
    """Fields of a day's spend that are asked of Redis at a time, two for each row: 2 ms of the server and the loop."""

    spend_days: int = 400
    """Days for which spend is kept: a year, and the month before."""


LIMITS: Final = Limits()
