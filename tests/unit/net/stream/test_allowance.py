"""The spend of one stream, as characters of its answer, and the bytes that wait for more of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gai_fast.core.account import Account, Bill
from gai_fast.core.requests.reading import estimated_tokens
from gai_fast.ledger import Reservation
from gai_fast.model.errors import Error
from gai_fast.model.money import cost_of
from gai_fast.model.settings import Price
from gai_fast.net.stream.allowance import Allowance, LimitedStream
from tests.conftest import ChangeLimits
from tests.limits import LIMITS

DOLLAR = Price(10**6, 10**6, 0, 0, 0)  # one a token

pytestmark = pytest.mark.interpreted  # a compiled attribute takes no other type than a relay


class Sent:
    sent = True


def account(bill: Bill, price: Price | None, **more: Any) -> Account:
    return Account(bill, Sent(), "openai", "up", price, **{"prompt_characters": None, **more})


def begun(
    reserved: int, price: Price | None = DOLLAR, prompt: int = 40, earlier: int = 0, *, is_free: bool = False
) -> Allowance:
    bill = Bill()
    account(bill, DOLLAR).close({"output_tokens": earlier}, None)
    account(bill, Price(10**6, 10**6, 0, 0, 0, "EUR")).close({"output_tokens": 1000}, None)
    allowance = Allowance(reserved)
    allowance.begin(account(bill, price, is_free=is_free), prompt)
    return allowance


class Stream(LimitedStream):
    """A stream whose bytes are its characters, and a ledger that answers at once, or later if it has no answers."""

    def __init__(self, allowance: Allowance, *answers: int) -> None:
        self.allowance = allowance
        self.answers = list(answers)
        self.relay: Any = SimpleNamespace(characters=0, is_over=False)
        self.parts: list[int] = []
        self.calls: list[Any] = []

    def feed(self, data: bytes) -> bool:
        self.parts.append(len(data))
        self.relay.characters += len(data)
        return not self.relay.is_over

    def receive_end(self, error: Error | None) -> None:
        self.calls.append(("end", error))

    def grow(self, wanted: Reservation) -> None:
        self.calls.append(wanted)
        if self.answers:
            self.allowance.grow(self, self.answers.pop(0))

    def hold_back(self) -> None:
        self.calls.append("hold back")

    def read_on(self) -> None:
        self.calls.append("read on")

    def stop(self, finish_reason: Any, reason: str | None = None) -> None:
        self.calls.append((finish_reason, reason))
        self.relay.is_over = True


def test_it_covers_the_characters_that_are_left_after_the_input_and_earlier_attempts() -> None:
    assert begun(30).characters == 4 * 20
    assert begun(30, earlier=15).characters == 4 * 5
    assert begun(30, earlier=50).characters == 0


@pytest.mark.parametrize("options", [{"price": None}, {"price": Price(10**6, 0, 0, 0, 0)}, {"is_free": True}], ids=str)
def test_an_answer_that_costs_nothing_is_covered(options: dict[str, Any]) -> None:
    assert begun(0, **options).covers(10**9)


def test_another_attempt_at_another_price_covers_less() -> None:
    allowance = begun(30, earlier=10)
    bill = Bill()
    account(bill, DOLLAR).close({"output_tokens": 10}, None)
    allowance.begin(account(bill, Price(10**6, 2 * 10**6, 0, 0, 0)), 40)
    assert allowance.characters == 4 * 5


def test_an_answer_whose_reasoning_is_dearer_may_be_all_reasoning() -> None:
    assert begun(30, Price(10**6, 10**6, 0, 0, 4 * 10**6)).characters == 4 * 5


def test_a_steady_stream_asks_before_it_exceeds_its_reservation(change_limits: ChangeLimits) -> None:
    change_limits(spend_part=12)
    stream = Stream(begun(30))
    stream.allowance.receive(stream, b"x" * 100)
    assert stream.parts == [12] * 6
    assert stream.calls == [(10 + 21 - 30, 30), "hold back"]  # the next part, or as much as at first
    stream.allowance.grow(stream, 30)
    assert sum(stream.parts) == 100
    assert stream.calls[2:] == ["read on"]


def test_a_large_read_asks_as_often_as_it_needs_without_recursion() -> None:
    stream = Stream(begun(10 + 64), *[64] * 2000)
    stream.allowance.receive(stream, b"x" * 400_000)
    assert sum(stream.parts) == 400_000
    assert "hold back" not in stream.calls


def test_bytes_and_the_end_behind_them_wait_for_the_ledger() -> None:
    stream = Stream(begun(10))
    stream.allowance.receive(stream, b"x" * 10)
    assert (stream.parts, stream.allowance.is_asking) == ([10], False)  # the first part may exceed it
    stream.allowance.receive(stream, b"x" * 20)
    assert stream.parts == [10]
    assert not stream.allowance.covers(0)
    assert stream.allowance.holds_end(None)
    stream.allowance.grow(stream, 1000)
    assert stream.parts == [10, 20]
    assert stream.calls[-2:] == [("end", None), "read on"]
    assert not stream.allowance.holds_end(None)


def test_without_more_spend_the_stream_ends_and_nothing_more_is_handled() -> None:
    stream = Stream(begun(10), 0)
    stream.allowance.receive(stream, b"x" * 10)
    stream.allowance.receive(stream, b"x" * 20)
    assert stream.parts == [10]
    assert stream.calls[-1] == ("length", "spend")


def test_bytes_of_a_failed_attempt_are_dropped_and_need_no_spend() -> None:
    class Failing(Stream):
        def feed(self, data: bytes) -> bool:
            self.allowance.drop()
            return True

    stream = Failing(begun(10 + 10))
    stream.allowance.receive(stream, b"x" * 100_000)
    assert not stream.calls


def test_a_refusal_for_an_attempt_that_was_replaced_ends_nothing() -> None:
    stream = Stream(begun(10))
    stream.allowance.receive(stream, b"x" * 10)
    stream.allowance.receive(stream, b"x" * 10)
    stream.allowance.drop()
    stream.allowance.grow(stream, 0)
    assert stream.calls[-1] == "read on"


@given(st.integers(0, 10**6), st.integers(0, 400), st.integers(10**6, 10**9), st.integers(10**6, 10**9))
def test_what_it_covers_costs_no_more_than_is_reserved(reserved: int, prompt: int, into: int, out: int) -> None:
    price = Price(into, out, 0, 0, out)
    allowance = begun(reserved, price, prompt)
    tokens = {"input_tokens": estimated_tokens(prompt)}
    if allowance.characters:
        tokens["output_tokens"] = estimated_tokens(allowance.characters)
        assert cost_of(tokens, price) <= reserved + 1  # sums of rounded parts
    tokens["output_tokens"] = estimated_tokens(allowance.characters + 1)
    assert cost_of(tokens, price) >= reserved - 1 or not allowance.characters


def test_a_part_is_about_one_delta() -> None:
    assert 100 <= LIMITS.spend_part <= 1000


def test_another_turn_needs_its_prompt_beyond_what_is_spent() -> None:
    bill = Bill()
    first = account(bill, DOLLAR)
    allowance = Allowance(100)
    allowance.begin(first, 40)
    first.close({"input_tokens": 10, "output_tokens": 50}, None)
    assert allowance.missing(bill, DOLLAR, 160) is None  # 60 are spent, and 40 are for the prompt
    assert allowance.missing(bill, DOLLAR, 200) == Reservation(10, 100)
    allowance.take(100)
    assert allowance.missing(bill, DOLLAR, 200) is None
    allowance.begin(account(bill, DOLLAR), 200)
    assert allowance.characters == 4 * (200 - 60 - 50)


def test_a_turn_of_a_model_without_a_price_needs_nothing() -> None:
    allowance = begun(0, None)
    assert allowance.missing(Bill(), None, 10_000) is None
