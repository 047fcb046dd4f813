"""The stores of the logs of durable streams. Each has one registration line, and is imported with its first use."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, Final

from gai_fast.model.settings import StoreSettings
from gai_fast.runtime.timers import Timers
from gai_fast.stores._base import Backlog, Claim, Ending, LogHeader, LogWatcher
from gai_fast.stores.backend import ANSWERS, CLAIMS, Backend, SealError, StoreError
from gai_fast.stores.memory import StreamLog
from gai_fast.stores.sealed import SealedBackend
from gai_fast.stores.seals import Seals
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
    "SealError",
    "Seals",
    "Store",
    "StoreError",
    "StreamLog",
    "check_url",
    "open_backend",
    "open_store",
]

# Modules by the scheme of `[store] url`. Each has `URL`, an example; `check_url(url, folder)`, which returns the
# normalized URL; and `open_backend(settings)`.
STORES: Final = {
    "memory": "gai_fast.stores.memory",
    "sqlite": "gai_fast.stores.sqlite",
    "redis": "gai_fast.stores.redis",
    "rediss": "gai_fast.stores.redis",
}


def check_url(url: str, folder: Path) -> str:
    """Returns the normalized URL of a store.

    Args:
        url: `[store] url`.
        folder: The folder that a relative path starts from.

    Raises:
        ValueError: No store has this URL. The text states the valid form, and contains nothing of the URL.
    """
    scheme = url.partition("://")[0]
    if scheme not in STORES:
        known = ", ".join(f'"{example}"' for example in dict.fromkeys(_module(name).URL for name in STORES))
        raise ValueError(f"must be the address of a store, such as {known}")
    checked: str = _module(scheme).check_url(url, folder)
    return checked


def open_store(
    settings: StoreSettings,
    timers: Timers,
    *,
    claim_ttl: float,
    claims: str = CLAIMS,
    memory: Backend | None = None,
    seals: Seals | None = None,
) -> Store:
    """Makes the store of the configuration. Its `open` must be called before its first use.

    Args:
        settings: `[store]`, with a URL from `check_url`.
        timers: The loop's timers.
        claim_ttl: Seconds for which an idempotency key is taken.
        claims: The kind of record for idempotency keys.
        memory: Reads the logs in the memory of the server's other workers, for `memory://`. It is not sealed.
        seals: The keys of the process. None if it has no other store.
    """
    backend = open_backend(settings, seals) or memory
    return Store(settings, timers, backend, claim_ttl=claim_ttl, claims=claims)


def open_backend(settings: StoreSettings, seals: Seals | None = None) -> Backend | None:
    """Makes the backend of the configuration, not yet connected. None for `memory://`.

    Args:
        settings: As for `open_store`.
        seals: As for `open_store`.
    """
    backend: Backend | None = _module(settings.url.partition("://")[0]).open_backend(settings)
    return None if backend is None else SealedBackend(backend, seals or Seals(settings.encryption))


def _module(scheme: str) -> Any:
    return import_module(STORES[scheme])
