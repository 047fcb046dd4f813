"""The words of the ledger: limits by their place, entries of spend, what is left of a limit.

Money is an `Amount` of a currency, and amounts of two currencies are never added. Time is in seconds.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from gai_fast.model.money import Amount

By = Literal["key", "model", "upstream", "day"]
"""The column by which a report groups spend."""

Period = Literal["day", "month", "total"]
"""The time for which the spend of a key is added up, in UTC."""

# The limits of a key have these places in every list and tuple of the ledger.
REQUESTS: Final = 0
TOKENS: Final = 1
STREAMS: Final = 2
SPEND: Final = 3
NAMES: Final = ("requests_per_minute", "tokens_per_minute", "streams", "spend")

MINUTE: Final = 60.0


class SpendEntry(NamedTuple):
    """The cost of one or more requests.

    Attributes:
        key: The caller's name.
        model: The model that was asked for.
        upstream: The upstream that answered.
        day: The UTC date, as `2026-11-22`.
        currency: Three letters of ISO 4217.
        amount: The cost of all of them.
        requests: Their number.
    """

    key: str
    model: str
    upstream: str
    day: str
    currency: str
    amount: Amount
    requests: int = 1


class SpendRow(NamedTuple):
    """The spend of one key, model, upstream or day in one currency.

    Attributes:
        value: Its name, or its date.
        currency: As for `SpendEntry`.
        amount: The sum.
        requests: The number of requests.
    """

    value: str
    currency: str
    amount: Amount
    requests: int


class Caps(NamedTuple):
    """The limits of a key, as the ledger needs them. `None`: no limit.

    Attributes:
        requests: Requests a minute.
        tokens: Tokens a minute.
        streams: Streams at a time.
        spend: The spend of the period from which on nothing is admitted.
        label: The period of `spend`, as `label_of` names it; empty without that limit.
    """

    requests: int | None
    tokens: int | None
    streams: int | None
    spend: Amount | None
    label: str


class RateLeft(NamedTuple):
    """The rest of a limit a minute.

    Attributes:
        limit: The limit.
        remaining: What may be used at once.
        reset: Seconds until all of the limit may be used at once.
    """

    limit: int
    remaining: int
    reset: float


class Left(NamedTuple):
    """The rest of a key's limits a minute; `None`: it has no such limit."""

    requests: RateLeft | None
    tokens: RateLeft | None


def label_of(period: Period, day: str, currency: str) -> str:
    """Returns the name of a period's spend in the ledger.

    Args:
        period: Its length.
        day: A UTC date in it, as `2026-11-22`.
        currency: As for `SpendEntry`.
    """
    if period == "day":
        return f"d{day} {currency}"
    return f"m{day[:7]} {currency}" if period == "month" else f"t {currency}"


def labels_of(day: str, currency: str) -> tuple[str, str, str]:
    """Returns the names of the spend of all periods that a UTC date is in."""
    return f"d{day} {currency}", f"m{day[:7]} {currency}", f"t {currency}"
