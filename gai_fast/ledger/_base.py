"""The words of the ledger: limits by their place, entries of spend, what is left of a limit.

Money is an `Amount` of a currency, and amounts of two currencies are never added. Time is in seconds.
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, Literal, NamedTuple

from gai_fast.model.money import Amount
from gai_fast.model.settings import RATE_LIMITS

GroupBy = Literal["key", "model", "upstream", "day"]
"""The column by which a report groups spend."""

Period = Literal["day", "month", "total"]
"""The time for which the spend of a key is added up, in UTC."""

# The limits of a key have these places in every list and tuple of the ledger: first those of `RATE_LIMITS`, then these.
STREAMS: Final = len(RATE_LIMITS)
SPEND: Final = STREAMS + 1
NAMES: Final = (*[each.name for each in RATE_LIMITS], "streams", "spend")

DAY: Final = 24 * 60 * 60

SLACK: Final = 1e-5
"""The largest rounding error, in uses: a hundred times a double's error for seconds since the epoch."""


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
    """The limits of a key, as the ledger needs them. None means no limit.

    Attributes:
        rates: The place and the value of each limit over a time that the key has.
        tokens: The least of those that count tokens: more is never counted for a request before its end.
        streams: Streams at a time.
        spend: The most that may be spent in the period.
        label: The period of `spend`, as `labels_of` names it; empty without that limit.
    """

    rates: tuple[tuple[int, int], ...]
    tokens: int | None
    streams: int | None
    spend: Amount | None
    label: str


class Reservation(NamedTuple):
    """The spend that is reserved for a stream with a limit of spend.

    Attributes:
        least: The cost of its input: below that it is refused.
        amount: The cost of its input and of the output that is expected.
    """

    least: Amount
    amount: Amount


class Demand(NamedTuple):
    """The demand of a request, or of a stream under way that needs more, on the limits of its key.

    Attributes:
        tokens: The estimate of the request's tokens.
        reservation: The spend to be reserved.
        is_new: A request, which all limits must admit; otherwise a stream under way, of which spend is asked, and
            tokens for another turn of a run.
        expected: The tokens of the estimate that are the usual output. They need no room if no stream is under way.
        is_counted: Whether it counts if it is admitted. Otherwise the state is only looked at.
        taken_from: The worker that has run the stream, and is gone. The places and reservations of that worker are
            released. Limits over a time do not count the request again. They count the tokens of the new attempts, and
            keep the estimate of a worker that was killed. None for a stream that begins.
        asks_later: Whether it reserves nothing yet, whatever is left of the spend.
    """

    tokens: int = 0
    reservation: Reservation = Reservation(0, 0)
    is_new: bool = True
    expected: int = 0
    is_counted: bool = True
    taken_from: str | None = None
    asks_later: bool = False


REFUSED: Final[Amount] = -1
"""What a stream under way is given if a limit refuses it."""
NO_DEMAND: Final = Demand()
"""The demand of a request that needs neither tokens nor spend: if it is refused, every request is."""


NO_USES: Final = (0.0,) * len(RATE_LIMITS)


class LimitUsage(NamedTuple):
    """The use of a key that counts for its limits.

    Attributes:
        rates: The requests or tokens that count now for each limit over a time, by place.
        spent: The spend of the period.
        reserved: The spend that streams under way may add to it.
    """

    rates: tuple[float, ...] = NO_USES
    spent: Amount = 0
    reserved: Amount = 0


class Verdict(NamedTuple):
    """The verdict on a `Demand`.

    Attributes:
        place: `GRANTED`, or the place of the limit that refuses it.
        wait: Seconds until that limit would admit it; 0 if waiting does not help, or the time is not known.
        reserved: The spend that was reserved.
        spent: The spend of the period, if spend refuses it.
    """

    place: int
    wait: float = 0.0
    reserved: Amount = 0
    spent: Amount = 0


GRANTED: Final = -1
"""The index of the admitted demands in a verdict."""


class RateStatus(NamedTuple):
    """The rest of a limit over a time.

    Attributes:
        place: Its place in `RATE_LIMITS`.
        limit: The limit.
        remaining: The amount that may be used at once.
        reset: Seconds until all of the limit may be used at once.
    """

    place: int
    limit: int
    remaining: int
    reset: float


class SpendStatus(NamedTuple):
    """The rest of a limit of spend.

    Attributes:
        limit: The limit.
        remaining: The amount that is neither spent nor reserved.
        reset: Seconds until the next period begins. None if there is none.
    """

    limit: Amount
    remaining: Amount
    reset: float | None


class LimitStatus(NamedTuple):
    """The rest of the limits over a time that a key has, and of its limit of spend; None if it has none."""

    rates: Sequence[RateStatus]
    spend: SpendStatus | None


def labels_of(day: str, currency: str) -> dict[Period, str]:
    """Returns the names of the spend of all periods that a UTC date is in.

    Args:
        day: The date, as `2026-11-22`.
        currency: As for `SpendEntry`.
    """
    return {"day": f"d{day} {currency}", "month": f"m{day[:7]} {currency}", "total": f"t {currency}"}


def reset_of(label: str, wall: float) -> float | None:
    """Returns the seconds until a period of spend ends. None if it does not end.

    Args:
        label: The period, as `labels_of` names it.
        wall: Seconds since the epoch, in the period.
    """
    kind = label[0]
    if kind == "t":
        return None
    today = datetime.fromtimestamp(wall, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    days = monthrange(today.year, today.month)[1] - today.day + 1 if kind == "m" else 1
    return today.timestamp() + days * DAY - wall
