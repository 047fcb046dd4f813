"""`auth_command`: a program that prints a token, and its end.

Runs in a thread. The program gets no shell and no input, and its own session, so that one that hangs ends with
everything that it has started. Its standard error is discarded: it may hold secrets.

1. Text: the token, then, after white space, its end if the program knows it.
2. JSON: an object with one of `_TOKENS`, and one of `_ENDS` or `_SECONDS`, or such an object in one of `_INNER`:
   the forms of `gcloud`, `az`, `kubectl` plugins and OAuth 2.0 token endpoints.
3. An end is a time of RFC 3339 or Unix seconds; a small number is the seconds that are left.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from gai_fast.net.identity.grant import Bearer, IdentityError
from gai_fast.net.limits import LIMITS

_TOKENS: Final = ("token", "access_token", "accessToken", "id_token")
_ENDS: Final = (
    "expires_at expires_on expiresOn expiresAt expiry expires expiration expirationTimestamp token_expiry end"
).split()
_SECONDS: Final = ("expires_in", "expiresIn")
_INNER: Final = ("status", "credential")
_OLDEST: Final = 10.0**9
"""Unix seconds of 2001; a smaller number is a time that is left."""


class Cancellation:
    """Ends a running program from another thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._is_cancelled = False

    def cancel(self) -> None:
        """Ends the program, if one runs, and every one that is started later."""
        with self._lock:
            self._is_cancelled = True
            if self._process is not None:
                _kill(self._process)

    def holds(self, process: subprocess.Popen[bytes] | None) -> None:
        """Notes the program that runs. None if none does."""
        with self._lock:
            self._process = process
            if process is not None and self._is_cancelled:
                _kill(process)


def fetch(command: Sequence[str], cancellation: Cancellation) -> Bearer:
    """Runs the program and returns its token.

    Args:
        command: The program and its arguments.
        cancellation: Ends the program.

    Raises:
        IdentityError: It has printed none.
    """
    fix = "run `auth_command` by hand"
    try:
        process = subprocess.Popen(
            [*command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except (OSError, ValueError) as problem:
        why = problem.strerror if isinstance(problem, OSError) else "it holds a null character"
        raise IdentityError(f"auth_command cannot be run: {why}", "check its path and its permissions") from None
    cancellation.holds(process)
    try:
        printed = _read(process)
    finally:
        _kill(process)
        code = process.wait()
        cancellation.holds(None)
        if process.stdout is not None:
            process.stdout.close()
    if code:
        what = f"exited with code {code}" if code > 0 else f"was ended by signal {-code}"
        raise IdentityError(f"auth_command {what}", fix)
    token, seconds = _parse(printed)
    return Bearer(token, seconds)


def _read(process: subprocess.Popen[bytes]) -> bytes:
    """Returns what a program prints; it has ended then.

    Raises:
        IdentityError: It prints too much, or takes too long.
    """
    assert process.stdout is not None
    until = time.monotonic() + LIMITS.token_command
    printed = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while selector.select(max(0.0, until - time.monotonic())):
            data = os.read(process.stdout.fileno(), LIMITS.token_output)
            printed += data
            if len(printed) > LIMITS.token_output:
                what = f"auth_command prints more than {LIMITS.token_output} bytes"
                raise IdentityError(what, "it must print a token alone")
            if not data:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, until - time.monotonic()))
                    return bytes(printed)
                break
    what = f"auth_command has not ended within {LIMITS.token_command:g} s"
    raise IdentityError(what, "run `auth_command` by hand", is_final=False)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Ends a program and what it has started, which are one session. Does nothing if it has ended by itself."""
    if process.returncode is not None:  # another program may have its id
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: the latter for a group that has ended
        os.killpg(process.pid, signal.SIGKILL)


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
            return _seconds_until(str(found[name]), is_left=True)
    end = next((found[name] for name in _ENDS if found.get(name) not in (None, "")), None)
    return None if end is None else _seconds_until(str(end))


def _seconds_until(end: str, *, is_left: bool = False) -> float:
    """Returns the seconds until an end.

    Args:
        end: As rule 3.
        is_left: It is the seconds that are left.

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
    return number if is_left or number < _OLDEST else number - time.time()
