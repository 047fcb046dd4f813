"""The stores of the logs of durable streams: a registration line each, loaded when first asked for."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, Final

from gai_fast.model.settings import StoreSettings
from gai_fast.runtime.timers import Timers
from gai_fast.stores._base import Backlog, Claim, Ending, LogHeader, LogWatcher
from gai_fast.stores.backend import ANSWERS, CLAIMS, Backend, StoreError
from gai_fast.stores.memory import StreamLog
from gai_fast.stores.store import Durability, Store

__all__ = [
    "ANSWERS",
    "STORES",
    "Backlog",
    "Claim",
    "Durability",
    "Ending",
    "LogHeader",
    "LogWatcher",
    "Store",
    "StoreError",
    "StreamLog",
    "check_url",
    "open_backend",
    "open_store",
]

# By the scheme of `[store] url`. A store's module has `URL`, an example; `check_url(url, folder)`, which returns the
# URL as it is used; and `open_backend(settings)`.
STORES: Final = {
    "memory": "gai_fast.stores.memory",
    "sqlite": "gai_fast.stores.sqlite",
    "redis": "gai_fast.stores.redis",
    "rediss": "gai_fast.stores.redis",
}


def check_url(url: str, folder: Path) -> str:
    """Returns the URL of a store as it is used.

    Args:
        url: `[store] url`.
        folder: The folder that a relative path starts from.

    Raises:
        ValueError: No store has this URL; the text says what it must be, and repeats nothing of it.
    """
    scheme = url.partition("://")[0]
    if scheme not in STORES:
        known = ", ".join(f'"{example}"' for example in dict.fromkeys(_module(name).URL for name in STORES))
        raise ValueError(f"must be the address of a store, such as {known}")
    checked: str = _module(scheme).check_url(url, folder)
    return checked


def open_store(
    settings: StoreSettings, timers: Timers, *, claim_ttl: float, claims: str = CLAIMS, memory: Backend | None = None
) -> Store:
    """Makes the store of the configuration; it must be opened before it is used.

    Args:
        settings: `[store]`; its URL is one that `check_url` returned.
        timers: The loop's timers.
        claim_ttl: Seconds for which an idempotency key is taken.
        claims: The kind of record that idempotency keys are.
        memory: The way to the logs of the server's other workers, for a store that is in their memory.
    """
    backend = open_backend(settings) or memory
    return Store(settings, timers, backend, claim_ttl=claim_ttl, claims=claims)


def open_backend(settings: StoreSettings) -> Backend | None:
    """Makes the store outside this process; None if the configuration has none. `open` connects it.

    Args:
        settings: As for `open_store`.
    """
    backend: Backend | None = _module(settings.url.partition("://")[0]).open_backend(settings)
    return backend


def _module(scheme: str) -> Any:
    return import_module(STORES[scheme])
