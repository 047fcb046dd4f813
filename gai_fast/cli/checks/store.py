"""The check of `[store]`, for `gai-fast check --probe` and `gai-fast doctor`: opens the store as the server would.

Creates no file: a store that does not exist yet is reported as such.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gai_fast.cli.diagnosis import Check
from gai_fast.cli.limits import LIMITS

if TYPE_CHECKING:
    from gai_fast.model.settings import StoreSettings

_FILE: Final = "sqlite:///"
_FIX: Final = "check `url` in [store], and that this user may use it"
_KEYS_FIX: Final = "check `keys` or `command` in [store.encryption]"


async def check_store(settings: StoreSettings) -> Check:
    """Checks whether the store of the configuration can be opened, read and written.

    Args:
        settings: `[store]`.
    """
    from gai_fast.stores import Seals, StoreError, open_backend

    seals = Seals(settings.encryption)
    try:
        await seals.load()
    except StoreError as problem:
        return Check("store", "error", str(problem), _KEYS_FIX)
    backend = open_backend(settings, seals)
    if backend is None:
        plain = ", and nothing is sealed" if len(seals) else ""
        return Check("store", "ok", f"memory: streams and limits end with the server{plain}")
    if (new := _check_new(settings.url)) is not None:
        return new
    try:
        async with asyncio.timeout(LIMITS.doctor):
            await backend.open()
    except TimeoutError:
        return Check("store", "error", f"no answer within {LIMITS.doctor:g} s", _FIX)
    except StoreError as problem:
        return Check("store", "error", str(problem), _FIX)
    finally:
        await backend.close()
    if backend.is_sealed:
        return Check("store", "error", "sealed with a key that is not in [store.encryption]", _KEYS_FIX)
    sealed = f", sealed with the first of {len(seals)} keys" if len(seals) else ""
    return Check("store", "ok", f"{settings.url.partition('://')[0]}: can be read and written{sealed}")


def _check_new(url: str) -> Check | None:
    """Checks the folder of a file that does not exist yet; returns None for any other store."""
    file = Path(url.removeprefix(_FILE))
    if not url.startswith(_FILE) or file.exists():
        return None
    folder = file.parent
    if not folder.is_dir():
        return Check(
            "store", "error", f"the folder {folder} does not exist", "make the folder, or change `url` in [store]"
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        return Check("store", "error", f"this user cannot write to the folder {folder}", _FIX)
    return Check("store", "ok", "the file does not exist yet: the server creates it")
