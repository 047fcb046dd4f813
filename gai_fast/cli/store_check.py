"""The check of `[store]`, for `gai-fast check --probe` and `gai-fast doctor`: opens the store as the server would.

Creates no file: a store that does not exist yet is reported as such.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gai_fast.cli.diagnosis import Check
from gai_fast.cli.limits import LIMITS

if TYPE_CHECKING:
    from gai_fast.model.settings import StoreSettings

_FILE: Final = "sqlite:///"
_FIX: Final = "check `url` in [store], and that this user may use it"


async def check_store(settings: StoreSettings) -> Check:
    """Checks whether the store of the configuration can be opened, read and written.

    Args:
        settings: `[store]`.
    """
    from gai_fast.stores import StoreError, open_backend

    if _is_new(settings.url):
        return Check("store", "ok", "the file does not exist yet: the server creates it")
    backend = open_backend(settings)
    if backend is None:
        return Check("store", "ok", "memory: streams and limits end with the server")
    try:
        async with asyncio.timeout(LIMITS.doctor):
            await backend.open()
    except TimeoutError:
        return Check("store", "error", f"no answer within {LIMITS.doctor:g} s", _FIX)
    except StoreError as problem:
        return Check("store", "error", str(problem), _FIX)
    finally:
        await backend.close()
    return Check("store", "ok", f"{settings.url.partition('://')[0]}: can be read and written")


def _is_new(url: str) -> bool:
    """Returns whether the store is a file that does not exist yet."""
    return url.startswith(_FILE) and not Path(url.removeprefix(_FILE)).exists()
