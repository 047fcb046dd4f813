"""`gai_fast/core/account.py`: what each attempt of a stream costs, and their sum."""

from __future__ import annotations

from typing import Any

import pytest

from gai_fast.core.account import Account, Bill
from gai_fast.model.money import UNIT, Charge
from gai_fast.model.settings import Price

MICRO = UNIT // 10**6
PRICE = Price(input=3 * UNIT, output=15 * UNIT, cached_input=0, cache_write=0, reasoning=15 * UNIT)
"""In dollars for a million tokens, so in micro-dollars for one."""
EUROS = Price(UNIT, UNIT, UNIT, UNIT, UNIT, "EUR")


def usage(into: int = 0, out: int = 0) -> dict[str, Any]:
    return {"input_tokens": into, "output_tokens": out}


class Request:
    """A request that the test sends."""

    def __init__(self, *, sent: bool = True) -> None:
        self.sent = sent


def account(
    bill: Bill, upstream: str = "up", price: Price | None = PRICE, *, sent: bool = True, **more: Any
) -> Account:
    return Account(bill, Request(sent=sent), "openai", upstream, price, **{"prompt_characters": 400, **more})


def test_a_bill_is_of_all_attempts_and_names_the_upstream_of_each() -> None:
    bill = Bill()
    assert (bill.charges, bill.total()) == ((), None)
    account(bill, "first").close(usage(1000, 0), None)
    account(bill, "second").close(usage(0, 100), None)
    assert bill.charges == (
        Charge("openai", "first", 3000 * MICRO, "USD"),
        Charge("openai", "second", 1500 * MICRO, "USD"),
    )
    assert bill.total() == (4500 * MICRO, "USD")


def test_an_account_is_closed_once() -> None:
    bill = Bill()
    one = account(bill)
    one.close(usage(10, 0), None)
    one.close(usage(10, 100), 7)
    one.give_up()
    assert (one.is_closed, one.usage, one.charge, bill.charges) == (True, usage(10, 0), bill.charges[0], (one.charge,))
    free = account(bill)
    free.close(None, None)
    free.close(usage(10, 100), 7)
    assert (free.usage, free.charge, len(bill.charges)) == (None, None, 1)


def test_a_request_that_is_given_up_costs_its_prompt_if_that_was_sent() -> None:
    for sent, amounts in ((True, [300 * MICRO]), (False, [])):
        bill = Bill()
        account(bill, sent=sent).give_up()
        assert [charge.amount for charge in bill.charges] == amounts
    bill = Bill()
    account(bill, prompt_characters=None).give_up()
    assert bill.charges == ()


def test_the_prompt_counts_as_sent_from_the_moment_at_which_it_is_sent() -> None:
    bill, request = Bill(), Request(sent=False)
    one = Account(bill, request, "openai", "up", PRICE, prompt_characters=400)
    assert one.prompt_usage() is None
    request.sent = True
    one.give_up()
    assert bill.total() == (300 * MICRO, "USD")


def test_reading_what_a_stream_would_cost_changes_nothing() -> None:
    bill = Bill()
    first, hedge = account(bill, "first"), account(bill, "hedge")
    would = bill.charges_with(first, first.charge_of(usage(1, 0), None))
    assert [(charge.upstream, charge.amount) for charge in would] == [("hedge", 300 * MICRO), ("first", 3 * MICRO)]
    assert (bill.charges, first.is_closed, hedge.is_closed) == ((), False, False)
    bill.give_up_others(first)
    first.close(usage(1, 0), None)
    assert bill.charges == would == bill.charges_with(first, None)
    assert bill.charges_before(first) == would[:1]


def test_the_figure_of_the_provider_counts_before_the_price_also_where_it_is_zero() -> None:
    bill = Bill()
    account(bill).close(usage(1000, 1000), 0)
    assert bill.total() == (0, "USD")
    bill = Bill()
    account(bill, price=None).close({}, 7)
    assert bill.total() == (7, "USD")


def test_a_price_in_another_currency_than_the_providers_figure_counts_before_it() -> None:
    bill = Bill()
    account(bill, price=EUROS).close(usage(1, 1), 5)
    assert bill.total() == (2 * MICRO, "EUR")


@pytest.mark.parametrize(("price", "total"), [(None, None), (Price(0, 0, 0, 0, 0), (0, "USD"))])
def test_without_a_price_nothing_is_charged_and_a_price_of_zero_is_one(price: Price | None, total: Any) -> None:
    bill = Bill()
    account(bill, price=price).close(usage(10, 10), None)
    assert bill.total() == total


def test_amounts_of_two_currencies_are_not_added() -> None:
    bill = Bill()
    account(bill, price=None).close(usage(1, 1), 5)
    account(bill, price=EUROS).close(usage(1, 1), None)
    assert [charge.currency for charge in bill.charges] == ["USD", "EUR"]
    assert bill.total() == (2 * MICRO, "EUR")


def test_an_answer_that_another_stream_has_asked_for_costs_nothing() -> None:
    for price, own, total in ((PRICE, None, (0, "USD")), (PRICE, 7, (0, "USD")), (None, None, None)):
        bill = Bill()
        account(bill, price=price, is_free=True).close(usage(1000, 1000), own)
        assert bill.total() == total, "without a price there is none to be spared"


def test_the_price_of_a_request_is_added_to_that_of_its_tokens() -> None:
    bill = Bill()
    account(bill, price=Price(3 * UNIT, 0, 0, 0, 0, request=UNIT)).close(usage(10, 0), None)
    assert [charge.amount for charge in bill.charges] == [UNIT + 30 * MICRO]
