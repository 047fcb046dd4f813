"""Limits and spend of keys, shared by the workers of a server and by servers with one store."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from gai_fast.ledger._base import (
    NO_DEMAND,
    REFUSED,
    Demand,
    GroupBy,
    LimitStatus,
    Period,
    RateStatus,
    Reservation,
    SpendEntry,
    SpendRow,
    SpendStatus,
)
from gai_fast.ledger.home import OF_KEYS, OF_SERVER
from gai_fast.ledger.ledger import Ledger
from gai_fast.ledger.local import LocalLedger
from gai_fast.ledger.shared import Homes, SharedHome, SharedLedger
from gai_fast.model.settings import StoreSettings

__all__ = [
    "NO_DEMAND",
    "OF_KEYS",
    "OF_SERVER",
    "REFUSED",
    "Demand",
    "GroupBy",
    "Homes",
    "Ledger",
    "LimitStatus",
    "LocalLedger",
    "Period",
    "RateStatus",
    "Reservation",
    "SharedHome",
    "SharedLedger",
    "SpendEntry",
    "SpendRow",
    "SpendStatus",
    "new_ledger",
    "new_server_ledger",
]

# By the scheme of `[store] url`. Each module has `open_home(settings)`.
_HOMES: Final = {
    "sqlite": "gai_fast.ledger.sqlite",
    "redis": "gai_fast.ledger.redis",
    "rediss": "gai_fast.ledger.redis",
}


def new_ledger(settings: StoreSettings, memory: Homes | None = None) -> Ledger:
    """Makes the ledger of a configuration; it must be opened before it is used.

    Args:
        settings: `[store]`.
        memory: The states that the workers of this server share in memory. None if there is one worker.
    """
    scheme = settings.url.partition("://")[0]
    if scheme in _HOMES:
        return _shared(settings, import_module(_HOMES[scheme]).open_home(settings))
    return LocalLedger() if memory is None else _shared(settings, memory(OF_KEYS))


def new_server_ledger(settings: StoreSettings, memory: Homes) -> Ledger:
    """Makes the ledger of a server's own limits; as `new_ledger`. Its state is never in a store: servers share none.

    Args:
        settings: `[store]`.
        memory: The states that the workers of this server share in memory.
    """
    return _shared(settings, memory(OF_SERVER))


def _shared(settings: StoreSettings, home: SharedHome) -> SharedLedger:
    return SharedLedger(home, fails_open=settings.limits_on_failure == "fail_open")
