"""The stores of the logs of durable streams: a registration line each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from gai_fast.settings import StoreSettings
from gai_fast.stores._base import Backlog, Claim, Ending, LogHeader, LogWatcher
from gai_fast.stores.memory import Store, StreamLog
from gai_fast.stores.output import LoggedOutput
from gai_fast.timers import Timers

__all__ = [
    "STORES",
    "Backlog",
    "Claim",
    "Ending",
    "LogHeader",
    "LogWatcher",
    "LoggedOutput",
    "Store",
    "StreamLog",
    "open_store",
]

# By the scheme of `[store] url`.
STORES: Final[Mapping[str, Callable[[StoreSettings, Timers], Store]]] = {
    "memory": Store,
}


def open_store(settings: StoreSettings, timers: Timers) -> Store:
    """Opens the store of the configuration.

    Args:
        settings: `[store]`.
        timers: The loop's timers.

    Raises:
        ValueError: No store has this scheme.
    """
    scheme = settings.url.partition("://")[0]
    if scheme not in STORES:
        raise ValueError(f"unknown store {scheme!r}; known: {', '.join(STORES)}")
    return STORES[scheme](settings, timers)
