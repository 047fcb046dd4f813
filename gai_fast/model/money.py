"""Money: amounts as whole numbers, the cost of tokens, and sums of charges.

Owns the unit of amounts and their text. Which attempts of a stream are charged, and with what: `core/account.py`. Knows
no price list, no ledger and no provider.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation
from typing import Any, Final, NamedTuple

from gai_fast.model.limits import SHARED
from gai_fast.model.settings import Price

Amount = int
"""Money in 10^-12 of a currency's unit. Sums of whole numbers are exact."""

UNIT: Final = 10**12
"""The amount of one unit of a currency."""

USD: Final = "USD"

PRICED_TOKENS: Final = 10**6
"""A price is for this number of tokens."""
_PRICED_SEARCHES: Final = 1000
"""The price of searches is for this number of them."""
_EXACT: Final = Context(prec=60, rounding=ROUND_HALF_EVEN)


class Charge(NamedTuple):
    """The cost of one attempt at an answer.

    Attributes:
        provider: The adapter's name, without `:api`.
        upstream: The name of the upstream.
        amount: The cost.
        currency: Its currency, three letters of ISO 4217.
    """

    provider: str
    upstream: str
    amount: Amount
    currency: str


def amount_of(figure: Any, most: int = SHARED.charge) -> Amount | None:
    """Returns a number of units as an amount, rounded half to even.

    Args:
        figure: A number from an upstream or a file; a value of any other type is accepted and returns None.
        most: The largest number of units.

    Returns:
        The amount, or None if `figure` is not a number, negative, or too large.
    """
    if isinstance(figure, bool) or not isinstance(figure, (int, float, Decimal)):
        return None
    try:
        # The shortest decimal text of a float is the number as it was written, if that had at most 15 digits.
        exact = Decimal(repr(figure)) if isinstance(figure, float) else Decimal(figure)
        if not 0 <= exact <= most:
            return None
        return int(_EXACT.multiply(exact, UNIT).to_integral_value(ROUND_HALF_EVEN))
    except InvalidOperation:  # a NaN cannot be compared
        return None


def units(amount: Amount) -> float:
    """Returns an amount as the nearest number of units, for JSON and metrics."""
    return amount / UNIT


def decimal_text(amount: Amount) -> str:
    """Returns an amount as a decimal number of units: all digits, no exponent."""
    whole, rest = divmod(abs(amount), UNIT)
    sign = "-" if amount < 0 else ""
    return f"{sign}{whole}.{rest:012d}".rstrip("0").rstrip(".")


def cost_member(amount: Amount, currency: str) -> dict[str, Any]:
    """Returns `usage.cost`.

    Args:
        amount: The cost.
        currency: Its currency.
    """
    return {"amount": units(amount), "currency": currency}


def cost_of(usage: Mapping[str, Any], price: Price) -> Amount:
    """Returns the cost of tokens and searches, rounded half to even.

    Cached and written input is part of the input, input written for an hour part of the written input, and
    reasoning part of the output. Counts of an upstream that contradict this are cut, so that no part is negative. A
    count above `limits.priced_tokens` counts as this limit.

    Args:
        usage: The counts of an event's `usage`.
        price: The price of the model that was asked.
    """
    into, out = tokens_of(usage, "input_tokens"), tokens_of(usage, "output_tokens")
    cached = min(tokens_of(usage, "cached_input_tokens"), into)
    new = min(tokens_of(usage, "cache_write_input_tokens"), into - cached)
    for_hour = min(tokens_of(usage, "cache_write_1h_input_tokens"), new) if new else 0
    reasoning = min(tokens_of(usage, "reasoning_tokens"), out)
    total = (
        (into - cached - new) * price.input
        + cached * price.cached_input
        + (new - for_hour) * price.cache_write
        + (out - reasoning) * price.output
        + reasoning * price.reasoning
    )
    if for_hour:
        total += for_hour * (2 * price.input if price.cache_write_1h is None else price.cache_write_1h)
    if price.web_search:
        total += tokens_of(usage, "web_search_requests") * price.web_search * (PRICED_TOKENS // _PRICED_SEARCHES)
    amount, rest = divmod(total, PRICED_TOKENS)
    is_more_than_half = rest * 2 > PRICED_TOKENS or (rest * 2 == PRICED_TOKENS and amount % 2 == 1)
    return min(amount + is_more_than_half, SHARED.charge * UNIT)


def dearest_output(tokens: int, price: Price) -> dict[str, int]:
    """Returns the counts of an output whose kind is not known yet: all of it is reasoning if that costs more.

    Args:
        tokens: The number of tokens.
        price: The price of the model that was asked.
    """
    return {"output_tokens": tokens, "reasoning_tokens": tokens if price.reasoning > price.output else 0}


def total_of(charges: Sequence[Charge]) -> tuple[Amount, str] | None:
    """Returns the cost of a stream and the currency of its last charge, or None if nothing was charged.

    Args:
        charges: Its charges.
    """
    if not charges:
        return None
    currency = charges[-1].currency
    return sum([charge.amount for charge in charges if charge.currency == currency]), currency


def tokens_of(usage: Mapping[str, Any], name: str) -> int:
    """Returns a count of usage, `limits.priced_tokens` at most, or 0 if the value is not a whole number.

    Args:
        usage: The counts of an event's `usage`.
        name: The count's name.
    """
    count = usage.get(name, 0)
    return min(max(count, 0), SHARED.priced_tokens) if isinstance(count, int) else 0
