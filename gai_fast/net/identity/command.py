"""`auth_command`: a program that prints a token, and its end.

Runs in a thread; `runtime/programs.py` runs the program.

1. Text: the token, then, after white space, its end if the program knows it.
2. JSON: an object with one of `_TOKENS`, and one of `_ENDS` or `_SECONDS`, or such an object in one of `_INNER`:
   the forms of `gcloud`, `az`, `kubectl` plugins and OAuth 2.0 token endpoints.
3. An end is a time of RFC 3339 or Unix seconds; a small number is the remaining seconds.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from gai_fast.net.identity.grant import Bearer, IdentityError
from gai_fast.net.limits import LIMITS
from gai_fast.runtime.programs import Cancellation, ProgramError, output_of

_TOKENS: Final = ("token", "access_token", "accessToken", "id_token")
_ENDS: Final = (
    "expires_at expires_on expiresOn expiresAt expiry expires expiration expirationTimestamp token_expiry end"
).split()
_SECONDS: Final = ("expires_in", "expiresIn")
_INNER: Final = ("status", "credential")
_BY_HAND: Final = "run `auth_command` by hand"
_FIXES: Final = {
    "missing": "check its path and its permissions",
    "failed": _BY_HAND,
    "output": "it must print a token alone",
    "late": _BY_HAND,
}
"""The remedy for each fault of the program."""
_OLDEST: Final = 10.0**9
"""Unix seconds of 2001; a smaller number is a remaining time."""


def fetch(command: Sequence[str], cancellation: Cancellation) -> Bearer:
    """Runs the program and returns its token.

    Args:
        command: The program and its arguments.
        cancellation: Ends the program.

    Raises:
        IdentityError: It has printed none.
    """
    try:
        printed = output_of(command, cancellation, seconds=LIMITS.token_command, most=LIMITS.token_output)
    except ProgramError as problem:
        is_final = problem.fault != "late"
        raise IdentityError(f"auth_command {problem}", _FIXES[problem.fault], is_final=is_final) from None
    token, seconds = _parse(printed)
    return Bearer(token, seconds)


def _parse(printed: bytes) -> tuple[str, float | None]:
    """Returns the token, and the seconds until its end if that was printed.

    Raises:
        IdentityError: There is no token.
    """
    text = printed.decode("utf-8", "replace").strip()
    if not text.startswith("{"):
        token, *rest = text.split() or [""]
        if not token or len(rest) > 1:
            raise IdentityError(
                "auth_command prints no token", "it must print a token, and its end, or a JSON object with both"
            )
        return token, _seconds_until(rest[0]) if rest else None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise IdentityError("auth_command prints broken JSON", "run `auth_command` by hand") from None
    for name in _INNER:
        if isinstance(found.get(name), dict):
            found = found[name]
    token = next((found[name] for name in _TOKENS if isinstance(found.get(name), str)), "")
    if not token:
        names = ", ".join(_TOKENS)
        raise IdentityError("auth_command prints JSON without a token", f"it needs one of {names}")
    return token, _end_of(found)


def _end_of(found: Mapping[str, Any]) -> float | None:
    for name in _SECONDS:
        if name in found:
            return _seconds_until(str(found[name]), is_remaining=True)
    end = next((found[name] for name in _ENDS if found.get(name) not in (None, "")), None)
    return None if end is None else _seconds_until(str(end))


def _seconds_until(end: str, *, is_remaining: bool = False) -> float:
    """Returns the seconds until an end.

    Args:
        end: As rule 3.
        is_remaining: Whether it is the remaining seconds.

    Raises:
        IdentityError: It is no time.
    """
    try:
        number = float(end)
    except ValueError:
        try:
            number = datetime.fromisoformat(end).timestamp()  # without a zone: local time, as `az` prints it
        except (ValueError, OverflowError):
            raise IdentityError(
                "auth_command prints an end that is no time", "it must be a time of RFC 3339, or seconds"
            ) from None
    if not abs(number) < float("inf"):
        raise IdentityError("auth_command prints an end that is no time", "it must be a time of RFC 3339, or seconds")
    return number if is_remaining or number < _OLDEST else number - time.time()
