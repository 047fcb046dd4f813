"""Limits and spend of keys, shared by the workers of a server and by servers with one store."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from gai_fast.ledger._base import By, Left, Period, RateLeft, Reservation, SpendEntry, SpendLeft, SpendRow
from gai_fast.ledger.ledger import Ledger
from gai_fast.ledger.local import LocalLedger
from gai_fast.ledger.shared import SharedHome, SharedLedger
from gai_fast.model.settings import StoreSettings

__all__ = [
    "By",
    "Ledger",
    "Left",
    "LocalLedger",
    "Period",
    "RateLeft",
    "Reservation",
    "SharedHome",
    "SharedLedger",
    "SpendEntry",
    "SpendLeft",
    "SpendRow",
    "new_ledger",
]

# By the scheme of `[store] url`. Each module has `open_home(settings)`.
_HOMES: Final = {
    "sqlite": "gai_fast.ledger.sqlite",
    "redis": "gai_fast.ledger.redis",
    "rediss": "gai_fast.ledger.redis",
}


def new_ledger(settings: StoreSettings, memory: SharedHome | None = None) -> Ledger:
    """Makes the ledger of a configuration; it must be opened before it is used.

    Args:
        settings: `[store]`.
        memory: The state that the workers of this server share in memory; `None`: there is one worker.
    """
    scheme = settings.url.partition("://")[0]
    home = import_module(_HOMES[scheme]).open_home(settings) if scheme in _HOMES else memory
    return LocalLedger() if home is None else SharedLedger(home, fails_open=settings.limits_on_failure == "fail_open")
