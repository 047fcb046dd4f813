"""The wait that an upstream asks for: `Retry-After`, rate limit headers, or words in its message.

Reads no clock; the caller passes the time.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from gai_fast.model.limits import SHARED


def retry_after_ms(
    headers: Mapping[str, str], message: str, now_ms: int | None, body_ms: int | None = None
) -> int | None:
    """Returns the wait that an upstream asks for, in milliseconds, or None if it asks for none.

    Order: `retry-after-ms`, `retry-after` (seconds or an HTTP date), the body, the message ("try again
    in 5.289s", "retry after 7 seconds"), the longest of `x-ratelimit-reset-*` and similar headers (a Go duration, an
    RFC 3339 time, seconds from now or since the epoch). Invalid and negative values are ignored.

    Args:
        headers: Response headers with lower-case names.
        message: The upstream's message.
        now_ms: Milliseconds since the epoch. None means that points in time are ignored.
        body_ms: The wait in the body, in milliseconds, if it has one.
    """
    after = headers.get("retry-after", "")
    resets = [_reset_ms(value, now_ms) for name, value in headers.items() if "reset" in name.partition("ratelimit")[2]]
    found = (
        _number(headers.get("retry-after-ms", "")),
        _number(after, 1000),
        _until(_http_date_ms(after), now_ms),
        body_ms,
        _again_ms(message[: SHARED.error_message].lower()),
        max((wait for wait in resets if wait is not None), default=None),
    )
    wait = next((wait for wait in found if wait is not None), None)
    return None if wait is None else max(0, min(int(wait), SHARED.retry_after_ms))


def shorter_wait(asked_ms: int | None, seconds: float) -> int | None:
    """Returns the shorter of two waits, in milliseconds.

    Args:
        asked_ms: The wait that an upstream asks for. None if it asks for none.
        seconds: The other wait, rounded up. Zero and infinity are none.
    """
    wait = seconds * 1000
    is_shorter = 0.0 < wait < math.inf and (asked_ms is None or wait < asked_ms)
    return max(1, math.ceil(wait)) if is_shorter else asked_ms


_DECIMAL: Final = re.compile(r"[0-9]{1,15}(\.[0-9]{1,9})?")
_WORDED: Final = r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?(ms|milliseconds?|h|hours?|m|minutes?|s|seconds?)(?![a-z])"
_TRY_AGAIN: Final = re.compile(rf"(?:try again|retry) (?:in|after) ((?:{_WORDED}[ ,]{{0,2}}){{1,4}})")
_DURATION: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|h|m|s|µs|us|ns)")
_UNIT_MS: Final = {"h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1, "µs": 1e-3, "us": 1e-3, "ns": 1e-6}
_EPOCH_S: Final = 10**9
"""A number of at least this many seconds (the year 2001) is a point in time; a thousand times as large, it is in
milliseconds."""


def _number(text: str, factor: int = 1) -> float | None:
    return float(text) * factor if _DECIMAL.fullmatch(text) else None


def _until(moment_ms: float | None, now_ms: int | None) -> float | None:
    return None if moment_ms is None or now_ms is None else moment_ms - now_ms


def _duration_ms(text: str) -> float | None:
    """Returns the milliseconds of a duration as Go prints it (`6m0s`, `12ms`, `2m59.56s`), or None if it is not one."""
    total, at = 0.0, 0
    for part in _DURATION.finditer(text):
        if part.start() != at:
            return None
        total += float(part[1]) * _UNIT_MS[part[2]]
        at = part.end()
    return total if at == len(text) and at else None


def _again_ms(text: str) -> float | None:
    """Returns the wait in a lower-case message: a Go duration, or numbers with their units in words."""
    again = _TRY_AGAIN.search(text)
    if again is None:
        return None
    return sum(
        float(number) * _UNIT_MS["ms" if unit == "ms" or unit.startswith("milli") else unit[0]]
        for number, unit in re.findall(_WORDED, again[1])
    )


def _reset_ms(text: str, now_ms: int | None) -> float | None:
    """Returns the wait that a reset header asks for."""
    number = _number(text)
    if number is None:
        duration = _duration_ms(text)
        return _until(_rfc3339_ms(text), now_ms) if duration is None else duration
    if number < _EPOCH_S:
        return number * 1000
    return _until(number if number >= _EPOCH_S * 1000 else number * 1000, now_ms)


def _rfc3339_ms(text: str) -> float | None:
    try:
        return _timestamp_ms(datetime.fromisoformat(text))
    except ValueError:
        return None


def _http_date_ms(text: str) -> float | None:
    if not text or _DECIMAL.fullmatch(text):
        return None
    from email.utils import parsedate_to_datetime  # imported late: it takes 9 ms, and few upstreams send dates

    try:
        return _timestamp_ms(parsedate_to_datetime(text))
    except (ValueError, OverflowError):  # OverflowError: the year or the zone is out of range
        return None


def _timestamp_ms(moment: datetime) -> float:
    # A date without a zone (the asctime form of RFC 9110 §5.6.7) is in UTC.
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000
