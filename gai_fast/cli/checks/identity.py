"""Checks the identity of an upstream, for `gai-fast doctor` and `gai-fast check --probe`: gets one token.

A token is never shown, nor what a cloud has answered: the texts are those of `net/identity/`.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from gai_fast.cli.diagnosis import Check
from gai_fast.cli.limits import LIMITS

if TYPE_CHECKING:
    from gai_fast.model.settings import IdentitySettings, UpstreamSettings
    from gai_fast.net.identity.grant import Grant, IdentityError


async def check_identity(upstream: UpstreamSettings, identity: IdentitySettings) -> tuple[Check, Grant | None]:
    """Gets a token.

    Args:
        upstream: The upstream.
        identity: Its identity.

    Returns:
        The finding, and the token. None if there is none.
    """
    from gai_fast.net.identity.grant import Bearer, Grant

    name, source = f"identity.{upstream.name}", identity.cloud or identity.key
    begun = time.monotonic()
    found = await _fetched(identity)
    ms = (time.monotonic() - begun) * 1000
    if found is None:
        detail = f"{source} has given no token within {LIMITS.identity:g} s"
        return Check(name, "error", detail, f"check `{identity.key}` of {upstream.name}, and the network"), None
    if not isinstance(found, Grant):
        return Check(name, "error", str(found), found.fix), None
    what = "a token" if isinstance(found, Bearer) else "keys that sign requests (SigV4)"
    valid = "its end is not known" if found.seconds is None else f"valid for {found.seconds / 60:.0f} minutes"
    return Check(name, "ok", f"{source}: {what} in {ms:.0f} ms, {valid}"), found


async def _fetched(identity: IdentitySettings) -> Grant | IdentityError | None:
    """Returns the result of a fetch in a thread. None if it brings nothing in time."""
    from gai_fast.net.identity.token_source import start_fetch
    from gai_fast.runtime.programs import Cancellation

    loop = asyncio.get_running_loop()
    result: asyncio.Future[Grant | IdentityError] = loop.create_future()
    cancellation = Cancellation()
    start_fetch(identity, cancellation, partial(_deliver, loop, result))
    try:
        async with asyncio.timeout(LIMITS.identity):
            return await result
    except TimeoutError:
        return None
    finally:
        cancellation.cancel()


def _deliver(
    loop: asyncio.AbstractEventLoop, result: asyncio.Future[Grant | IdentityError], found: Grant | IdentityError
) -> None:
    with suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(_set, result, found)


def _set(result: asyncio.Future[Grant | IdentityError], found: Grant | IdentityError) -> None:
    if not result.done():
        result.set_result(found)
