"""The spend of one stream, as characters of its answer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gai_fast.core.reading import estimated_tokens
from gai_fast.model.money import cost_of
from gai_fast.model.settings import Price
from gai_fast.net.stream.allowance import Allowance

DOLLAR = Price(10**6, 10**6, 0, 0, 0)  # one a token


def begun(reserved: int, price: Price | None = DOLLAR, prompt: int = 40, earlier: int = 0) -> Allowance:
    allowance = Allowance(reserved)
    allowance.begin(price, prompt, earlier)
    return allowance


def test_it_covers_the_characters_that_are_left_after_the_input_and_earlier_attempts() -> None:
    assert begun(30).characters == 4 * 20
    assert begun(30, earlier=15).characters == 4 * 5
    assert begun(30, earlier=50).characters == 0


def test_an_answer_that_costs_nothing_is_covered() -> None:
    for price in (None, Price(10**6, 0, 0, 0, 0)):
        assert not begun(0, price).is_used_up(10**9)


def test_a_steady_stream_is_used_up_before_it_exceeds_its_reservation() -> None:
    allowance = begun(30)
    characters = 0
    while not allowance.is_used_up(characters):
        characters += 12
        allowance.note(12)
    assert characters == 72
    assert allowance.wanted(characters) == (10 + 21 - 30, 30)  # the next part, or as much as at first
    allowance.grow(30)
    assert not allowance.is_used_up(characters)


def test_another_attempt_at_another_price_covers_less() -> None:
    allowance = begun(30)
    allowance.begin(Price(10**6, 2 * 10**6, 0, 0, 0), 40, 10)
    assert allowance.characters == 4 * 5


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
