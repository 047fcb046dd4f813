"""The estimate of a request's tokens, and the headers of limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from msgspec import UNSET

from gai_fast.ledger import Demand, LimitStatus, RateStatus, SpendStatus
from gai_fast.model.request import Request
from gai_fast.model.settings import (
    KeyLimits,
    KeySettings,
    ModelSettings,
    Price,
    PriceSettings,
    Settings,
    SpendLimit,
    TargetSettings,
    UpstreamSettings,
)
from gai_fast.net.attempts.spec import StreamSpec
from gai_fast.net.engine.engine import Engine
from gai_fast.server.requests.quotas import Quotas, duration, limit_headers
from tests.key_limits import REQUESTS, TOKENS
from tests.limits import LIMITS
from tests.unit.server.incoming_requests import http, incoming

KEY = KeySettings("ann", (), limits=KeyLimits(tokens_per_minute=1000, streams=1))


@pytest.fixture
async def quotas() -> AsyncIterator[Quotas]:
    engine = Engine(Settings(), asyncio.get_running_loop())
    yield Quotas(engine)
    await engine.close()


def spec_of(request: Any, price: Price | None = None) -> StreamSpec:
    output: Any = object()
    upstream = UpstreamSettings("up", "openai-compatible", "http://x")
    return StreamSpec(ModelSettings("m", upstream, "m", price=price), request, output, output, None)


@pytest.mark.parametrize(
    ("request_", "tokens"),
    [
        (Request(query="x", max_tokens=50), 150),
        ({"max_tokens": 50}, 150),
        ({"max_completion_tokens": 50, "max_tokens": 20}, 150),
        ({"max_tokens": 50, "n": 3}, 250),
        ({"max_tokens": 50, "n": 0}, 150),
        ({"max_tokens": 50, "n": True}, 150),
        ({"max_tokens": 50.0, "n": 3.0}, 250),
        (Request(query="x", max_tokens=1, provider_options={"up": {"top_k": 1}, "x": {"max_tokens": 50}}), 150),
        (Request(query="x", provider_options={"x": {"max_completion_tokens": 50}}), 150),
        (Request(query="x", max_tokens=1, extra={"max_completion_tokens": 50}), 150),
        (Request(query="x", max_tokens=1, extra={"options": {"num_predict": 50}}), 150),
        (Request(query="x", provider_options={"x": {"generationConfig": {"maxOutputTokens": 50}}}), 150),
        (Request(query="x", max_tokens=50, extra={"generationConfig": {"candidateCount": 3}}), 250),
        ({"max_tokens": 50, "n": 2.5}, 150),
        ({"max_output_tokens": 10**400}, 10**400 + 100),
    ],
)
async def test_the_estimate_is_a_quarter_of_the_bytes_and_the_most_that_may_come(
    quotas: Quotas, request_: Any, tokens: int
) -> None:
    asked = incoming(http("POST", "/"))
    asked.http.set_key(KEY)
    asked.http.body = b"x" * 400
    assert quotas.estimate(asked, spec_of(request_)) == Demand(tokens)


@pytest.mark.parametrize(
    ("request_", "answers"),
    [
        (Request(query="x"), 1),
        (Request(query="x", max_tokens=UNSET), 1),
        ({}, 1),
        ({"n": 3}, 3),
        ({"max_tokens": -5}, 1),
        ({"max_tokens": True}, 1),
        ({"max_tokens": "50"}, 1),
        ({"max_tokens": 5.5}, 1),
        ({"max_tokens": None}, 1),
    ],
)
async def test_answers_without_a_bound_are_expected_to_have_the_usual_output(
    quotas: Quotas, request_: Any, answers: int
) -> None:
    asked = incoming(http("POST", "/"))
    asked.http.set_key(KEY)
    asked.http.body = b"x" * 400
    usual = answers * LIMITS.usual_output
    assert quotas.estimate(asked, spec_of(request_)) == Demand(100 + usual, expected=usual)


async def test_the_tokens_of_a_key_without_such_a_limit_are_not_looked_for(quotas: Quotas) -> None:
    asked = incoming(http("POST", "/"))
    asked.http.body = b"x" * 400
    assert quotas.estimate(asked, spec_of({"max_tokens": 5})).tokens == 0
    asked.http.set_key(KeySettings("ann", ()))
    assert quotas.estimate(asked, spec_of({"max_tokens": 5})).tokens == 0


@pytest.mark.parametrize(
    ("request_", "amount"),
    [
        ({"max_tokens": 50}, 10 + 2 * 50),
        ({"max_tokens": 50, "n": 3}, 10 + 2 * 150),
        ({"max_completion_tokens": 1}, 12),
        ({}, 10 + 2 * LIMITS.usual_output),
        ({"n": 2}, 10 + 4 * LIMITS.usual_output),
        ({"max_tokens": 50, "n": 2, "best_of": 3}, 10 + 2 * 150),
        ({"max_tokens": 50, "prompt": ["a", "b"]}, 10 + 2 * 100),
        ({"max_tokens": 50, "prompt": [[1, 2], [3]], "n": 2, "best_of": 3}, 10 + 2 * 300),
        ({"max_tokens": 50, "prompt": [1, 2, 3]}, 10 + 2 * 50),  # one prompt of three tokens
        ({"max_tokens": 50, "prompt": []}, 10 + 2 * 50),
    ],
)
async def test_the_input_and_the_most_or_the_usual_output_are_reserved(
    quotas: Quotas, request_: Any, amount: int
) -> None:
    asked = incoming(http("POST", "/"))
    asked.http.set_key(KeySettings("ann", (), limits=KeyLimits(spend=SpendLimit(100, "day"))))
    asked.http.body = b"x" * 400
    price = Price(10**6, 2 * 10**6, 0, 0, 0)
    spec = spec_of(request_, price)
    spec.prompt_characters = 40
    assert quotas.estimate(asked, spec).reservation == (10, amount)
    spec.model = replace(spec.model, price=replace(price, reasoning=4 * 10**6))  # all of it may be reasoning
    assert quotas.estimate(asked, spec).reservation == (10, 10 + 2 * (amount - 10))
    spec.model = replace(spec.model, price=replace(price, currency="EUR"))
    assert quotas.estimate(asked, spec).reservation == (0, 0)
    spec.model = replace(spec.model, price=None)
    assert quotas.estimate(asked, spec).reservation == (0, 0)


@pytest.mark.parametrize(("first", "least"), [(1, 10), (9, 90), (None, 0)])
async def test_the_price_of_the_dearest_fallback_is_reserved(quotas: Quotas, first: int | None, least: int) -> None:
    def price(each: int) -> Price:
        return Price(each * 10**6, each * 10**6, 0, 0, 0)

    asked = incoming(http("POST", "/"))
    asked.http.set_key(KeySettings("ann", (), limits=KeyLimits(spend=SpendLimit(100, "day"))))
    spec = spec_of({"max_tokens": 50}, None if first is None else price(first))
    spec.prompt_characters = 40
    dear, cheap = (replace(spec.model, name=name, price=price(each)) for name, each in (("dear", 5), ("cheap", 2)))
    quotas._engine.use(Settings(models={"dear": dear, "cheap": cheap}))
    spec.model = replace(spec.model, fallback=("cheap",), fallback_on={"rate_limited": "dear"})
    assert quotas.estimate(asked, spec).reservation == (least, 60 * max(5, first or 0))


async def test_every_model_and_target_that_may_answer_is_reserved_for(quotas: Quotas) -> None:
    """A target, a fallback without a `[[model]]`, and the model that a fallback's own `fallback_on` names."""

    def price(each: int) -> Price:
        return Price(each * 10**6, each * 10**6, 0, 0, 0)

    asked = incoming(http("POST", "/"))
    asked.http.set_key(KeySettings("ann", (), limits=KeyLimits(spend=SpendLimit(10**6, "day"))))
    spec = spec_of({"max_tokens": 50})
    spec.prompt_characters = 40
    upstream = spec.model.upstream
    prices = PriceSettings(
        listed={("openai-compatible", name): price(each) for name, each in zip("cd", (1, 3), strict=True)}
    )
    long = ModelSettings("long", upstream, "l", price=price(9))
    second = ModelSettings("second", upstream, "c", fallback_on={"context_length_exceeded": "long", "internal": "main"})
    spread = ModelSettings(
        "spread", upstream, "c", targets=(TargetSettings(upstream, "c"), TargetSettings(upstream, "d"))
    )
    main = ModelSettings("main", upstream, "c")
    models = {each.name: each for each in (main, second, spread, long)}
    quotas._engine.use(Settings(models=models, upstreams={upstream.name: upstream}, prices=prices))
    for model, dearest in (
        (main, 1),
        (spread, 3),
        (replace(main, fallback=("spread",)), 3),
        (replace(main, fallback=(f"{upstream.name}/d",)), 3),
        (replace(main, fallback=("second",)), 9),
        (replace(main, fallback_on={"overloaded": "second"}), 9),
    ):
        spec.model = model
        assert quotas.estimate(asked, spec).reservation == (10, 60 * dearest), model


def test_the_headers_are_the_usual_ones_and_those_of_the_draft() -> None:
    status = LimitStatus([RateStatus(REQUESTS, 10, 9, 5.99), RateStatus(TOKENS, 1000, 0, 75.5)], None)
    assert limit_headers(status) == [
        ("x-ratelimit-limit-requests", "10"),
        ("x-ratelimit-remaining-requests", "9"),
        ("x-ratelimit-reset-requests", "5.99s"),
        ("x-ratelimit-limit-tokens", "1000"),
        ("x-ratelimit-remaining-tokens", "0"),
        ("x-ratelimit-reset-tokens", "1m15.5s"),
        ("ratelimit", '"requests";r=9;t=6, "tokens";r=0;t=76'),
        ("ratelimit-policy", '"requests";q=10;w=60, "tokens";q=1000;w=60'),
    ]
    one = LimitStatus([RateStatus(REQUESTS, 10, 9, 6.0)], None)
    assert dict(limit_headers(one))["ratelimit"] == '"requests";r=9;t=6'


def test_what_is_left_of_spend_is_reported_in_decimal_amounts() -> None:
    status = SpendStatus(10**12, 9 * 10**10, 59.1)
    assert limit_headers(LimitStatus([], status)) == [
        ("x-gai-spend-limit", "1"),
        ("x-gai-spend-remaining", "0.09"),
        ("x-gai-spend-reset", "60"),
    ]
    assert len(limit_headers(LimitStatus([], status._replace(reset=None)))) == 2


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0ms"), (0.0201, "21ms"), (0.9999, "1s"), (6, "6s"), (59.5, "59.5s"), (60, "1m0s"), (3600.25, "60m0.25s")],
)
def test_times_are_written_as_openai_writes_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text
