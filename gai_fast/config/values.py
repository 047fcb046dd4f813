"""The kinds of values for keys: switch, whole number, seconds, choice, text, list of texts.

The function of each kind returns a `Key`: the valid values as JSON Schema, and a function that reads a TOML value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time
from typing import Any, Final

from gai_fast.config.limits import LIMITS

LARGEST: Final = 2**53 - 1
"""The largest whole number; JSON readers disagree about larger ones."""
LONGEST: Final = 10_000_000.0
"""The longest time in seconds, 115 days: far below what overflows an event loop's timer."""

_MOMENT: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})?)?"
)
"""A date, or date and time (RFC 3339, 5.6). The zone is optional here, because a missing zone has its own message."""
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Key:
    """One key.

    Args:
        about: Its purpose, in one sentence.
        schema: The valid values, as JSON Schema.
        read: Converts a TOML value. Its `ValueError` names the rule and never repeats the value.
        secret: Whether messages leave out a mistaken value.
        example: A value for a first configuration; keys with a default need none.
    """

    about: str
    schema: Mapping[str, Any]
    read: Callable[[Any], Any]
    secret: bool = False
    example: Any = ""


def switch(about: str) -> Key:
    """Returns a key whose value is true or false."""

    def read(value: Any) -> bool:
        if not isinstance(value, bool):
            raise ValueError("must be true or false")
        return value

    return Key(about, {"type": "boolean"}, read)


def whole(about: str, least: int, most: int = LARGEST, *, example: Any = "") -> Key:
    """Returns a key whose value is a whole number within bounds; `example` as for `Key`."""

    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            bounds = f"at least {least}" if most == LARGEST else f"{least} to {most}"
            raise ValueError(f"must be a whole number, {bounds}")
        return value

    return Key(about, {"type": "integer", "minimum": least, "maximum": most}, read, example=example)


def seconds(about: str, *, zero: bool = False, least: float = 0) -> Key:
    """Returns a key whose value is a time in seconds.

    Args:
        about: As for `Key`.
        zero: Whether 0 is allowed.
        least: The shortest time. 0 if any other than 0 is allowed.
    """

    def read(value: Any) -> float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not (max(0, least) <= value <= LONGEST) or (value == 0 and not zero):
            bound = "0 or more" if zero else f"{least:g} or more" if least else "more than 0"
            raise ValueError(f"must be seconds, {bound}, at most {LONGEST:.0f}")
        return float(value)

    bounds = {"minimum": least} if zero or least else {"exclusiveMinimum": 0}
    return Key(about, {"type": "number", **bounds, "maximum": LONGEST}, read)


def seconds_or_auto(about: str) -> Key:
    """Returns a key whose value is a time in seconds, or `"auto"`; `about` as for `Key`."""
    own = seconds(about)

    def read(value: Any) -> float | str:
        if value == "auto":
            return "auto"
        try:
            return float(own.read(value))
        except ValueError as problem:
            raise ValueError(f'{problem}, or "auto"') from None

    return Key(about, {"anyOf": [own.schema, {"enum": ["auto"]}]}, read)


def fraction(about: str) -> Key:
    """Returns a key whose value is a fraction, 0 to 1."""

    def read(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise ValueError("must be a number from 0 to 1")
        return float(value)

    return Key(about, {"type": "number", "minimum": 0, "maximum": 1}, read)


def choice(about: str, *names: str) -> Key:
    """Returns a key whose value is one of a few names."""

    def read(value: Any) -> str:
        if value not in names:
            raise ValueError(f"must be {', '.join(names[:-1])} or {names[-1]}")
        return str(value)

    return Key(about, {"enum": list(names)}, read)


def choices(about: str, check: Callable[[str], str], *names: str) -> Key:
    """Returns a key whose value is a list of names, each at most once.

    Args:
        about: As for `Key`.
        check: Returns a name in its final form, or raises `ValueError`.
        names: The valid names.
    """

    def read(value: Any) -> tuple[str, ...]:
        known = isinstance(value, list) and all(isinstance(item, str) and item in names for item in value)
        if not known or len({*value}) < len(value):
            raise ValueError(f"must be a list of {', '.join(names)}, each at most once")
        return tuple(check(item) for item in value)

    return Key(about, {"type": "array", "items": {"enum": list(names)}, "uniqueItems": True}, read)


def text(
    about: str, check: Callable[[str], str], pattern: str | None = None, *, secret: bool = False, example: str = ""
) -> Key:
    """Returns a key whose value is a text.

    Args:
        about: As for `Key`.
        check: Returns the text in its final form, or raises `ValueError`.
        pattern: The pattern of valid texts, for the JSON Schema.
        secret: As for `Key`.
        example: As for `Key`.
    """

    def read(value: Any) -> str:
        if not isinstance(value, str) or not value.strip():
            raise ValueError("must be a string that is not empty")
        if _CONTROL.search(value):
            raise ValueError("must not contain control characters")
        return check(value)

    schema: dict[str, Any] = {"type": "string", "minLength": 1}
    return Key(about, {**schema, "pattern": pattern} if pattern else schema, read, secret, example)


def texts(about: str, check: Callable[[str], str]) -> Key:
    """Returns a key whose value is a list of texts.

    Args:
        about: As for `Key`.
        check: As for `text`.
    """

    def read(value: Any) -> tuple[str, ...]:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise ValueError("must be a list of strings")
        return tuple(check(item) for item in value)

    return Key(about, {"type": "array", "items": {"type": "string"}}, read)


def one_or_more(key: Key, most: int) -> Key:
    """Returns a key that accepts one value of another key, or a list of its values; both are read as a tuple.

    Args:
        key: The other key.
        most: The most entries of the list.
    """

    def read(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            return (key.read(value),)
        if not 1 <= len(value) <= most:
            raise ValueError(f"as a list must have 1 to {most} entries")
        return tuple(key.read(item) for item in value)

    several = {"type": "array", "items": dict(key.schema), "minItems": 1, "maxItems": most}
    return replace(key, schema={"oneOf": [dict(key.schema), several]}, read=read)


def moment(about: str, *, example: str) -> Key:
    """Returns a key whose value is a moment: date, time and zone, or a date alone, which means its start in UTC.

    Args:
        about: As for `Key`.
        example: As for `Key`.
    """

    def read(value: Any) -> datetime:
        if isinstance(value, str):
            value = _moment_of(value)
        if isinstance(value, date) and not isinstance(value, datetime):
            value = datetime.combine(value, time(), UTC)
        if not isinstance(value, datetime):
            raise ValueError("must be a date such as 2030-01-31, or with time and zone 2030-01-31T18:00:00Z")
        if value.tzinfo is None:
            raise ValueError("must have a time zone: add Z for UTC, or an offset such as +02:00")
        try:
            return value.astimezone(UTC)
        except OverflowError:
            raise ValueError("must be in the years 1 to 9999 in UTC") from None

    schema = {"type": "string", "anyOf": [{"format": "date-time"}, {"format": "date"}]}
    return Key(about, schema, read, example=example)


def _moment_of(text: str) -> date | None:
    """Parses a date, or a date and time; returns None if the text is neither."""
    if not _MOMENT.fullmatch(text):
        return None
    try:
        return date.fromisoformat(text) if len(text) == len("2030-01-31") else datetime.fromisoformat(text.upper())
    except ValueError:  # the day or the hour does not exist
        return None


def program(about: str, read: Callable[[Any], Any], example: Any = "") -> Key:
    """Returns a key whose value is a program and its arguments, which may hold a secret.

    Args:
        about: As for `Key`.
        read: As for `Key`.
        example: As for `Key`.
    """
    items = {"type": "string", "minLength": 1}
    schema = {"type": "array", "items": items, "minItems": 1, "maxItems": LIMITS.command_arguments}
    return Key(about, schema, read, secret=True, example=example)
