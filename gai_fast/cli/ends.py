"""What ends at a moment: keys of callers, tokens that stand in the configuration, certificates towards upstreams.

`check` and the start warn of each, and `doctor` lists each. `server/edge/certificate.py` has the server's own
certificate.
"""

from __future__ import annotations

import base64
import binascii
import json
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from gai_fast.cli.diagnosis import Check

if TYPE_CHECKING:
    from gai_fast.model.settings import Secret, Settings


def ends(settings: Settings, now: float) -> Iterator[Check]:
    """Yields an error for each that is over, and a warning for each that is within two weeks.

    Args:
        settings: The configuration.
        now: Unix seconds.
    """
    for key in settings.keys:
        if key.expires is not None:
            fix = f"give it a later `expires`, or remove it (`gai-fast key revoke {key.name}`)"
            yield from _told(f"key.{key.name}", "requests with it are refused", key.expires.timestamp(), now, fix)
    for name, place, secret in _secrets(settings):
        end = end_of_token(secret.reveal())
        if end is not None:
            yield from _told(name, f"it is the token of {place}", end, now, f"put a new one into {place}")
    yield from _client_certificates(settings, now)


def _told(name: str, what: str, end: float, now: float, fix: str) -> Iterator[Check]:
    from gai_fast.server.limits import LIMITS

    day = time.strftime("%Y-%m-%d", time.gmtime(end))
    if end <= now:
        yield Check(name, "error", f"it has expired on {day}: {what}", fix)
    elif end - now <= LIMITS.certificate_warning:
        yield Check(name, "warning", f"it expires on {day}", fix)


def _client_certificates(settings: Settings, now: float) -> Iterator[Check]:
    upstreams = [each for each in settings.upstreams.values() if each.client_cert is not None]
    if not upstreams:
        return
    from gai_fast.server.edge.certificate import client_validity

    for each in upstreams:
        with suppress(OSError):  # the configuration has found it usable
            problem, is_refused = client_validity(each, now)
            if problem:
                yield Check(f"client_cert.{each.name}", "error" if is_refused else "warning", problem)


def _secrets(settings: Settings) -> Iterator[tuple[str, str, Secret]]:
    """Yields the secrets that are sent as they stand: the name of a check, the place, the secret."""
    for upstream in settings.upstreams.values():
        for key in (upstream.api_key, *upstream.more_api_keys):
            if key is not None:
                yield f"token.{upstream.name}", f"`api_key` of [[upstream]] {upstream.name}", key
        if upstream.identity is not None and upstream.identity.token is not None:
            yield f"token.{upstream.name}", f"`auth` of [[upstream]] {upstream.name}", upstream.identity.token
    for server in settings.tool_servers:
        for header, value in server.headers.items():
            yield f"token.tools.{server.name}", f"`headers` ({header}) of [[tool_server]] {server.name}", value


def end_of_token(text: str) -> float | None:
    """Returns the moment at which a token ends, in Unix seconds. None if it is no JWT, or has no `exp`.

    Args:
        text: A credential, or a header's value with one.
    """
    _, _, rest = text.strip().rpartition(" ")
    parts = rest.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return None
    end = claims.get("exp") if isinstance(claims, dict) else None
    if not isinstance(end, int | float) or isinstance(end, bool):
        return None
    return float(end) if 0 < end < _LAST else None


_LAST = 253_402_300_800
"""The end of the year 9999, in Unix seconds: a later moment is none."""
