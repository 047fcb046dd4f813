"""The check of an `[[issuer]]`, for `gai-fast check --probe` and `gai-fast doctor`: fetches its keys."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from gai_fast.cli.diagnosis import Check

if TYPE_CHECKING:
    from gai_fast.model.settings import IssuerSettings


async def check_issuer(issuer: IssuerSettings) -> Check:
    """Checks whether the keys of an issuer of callers' tokens can be fetched.

    Args:
        issuer: `[[issuer]]`.
    """
    from gai_fast.net.issuers.fetching import IssuerError, fetch_keys

    name, begun = f"issuer.{issuer.name}", time.monotonic()
    try:
        keys = await fetch_keys(issuer.url)
    except IssuerError as problem:
        fix = f"check `url` of {issuer.name}, and that it is reached from here"
        return Check(name, "error", f"{issuer.url}: {problem}", fix)
    ms = (time.monotonic() - begun) * 1000
    return Check(name, "ok", f"{issuer.url}: {len(keys)} key{'' if len(keys) == 1 else 's'} in {ms:.0f} ms")
