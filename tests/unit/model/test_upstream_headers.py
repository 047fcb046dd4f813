"""`gai_fast/model/upstream_headers.py`: which headers of an upstream's response its client gets."""

from __future__ import annotations

import pytest

from gai_fast.model.upstream_headers import passed_headers
from tests.limits import LIMITS

PASSED = [
    ("x-ratelimit-limit-requests", "60"),
    ("x-ratelimit-reset-tokens", "6m0s"),
    ("x-ratelimitbysize-remaining-month", "1"),
    ("openai-processing-ms", "123"),
    ("openai-version", "2020-10-01"),
    ("openai-organization", "org"),
    ("anthropic-organization-id", "0a1b"),
    ("anthropic-ratelimit-input-tokens-reset", "2026-01-01T00:00:00Z"),
    ("anthropic-priority-input-tokens-limit", "10000"),
]


def test_rate_limits_times_versions_and_accounts_are_passed_on() -> None:
    assert passed_headers(dict(PASSED)) == PASSED


@pytest.mark.parametrize(
    "name",
    """connection content-encoding content-length content-type date keep-alive proxy-authenticate request-id retry-after
    server set-cookie trailer transfer-encoding upgrade x-request-id x-should-retry access-control-allow-origin
    my-openai-version openai-a_b openai-ä""".split(),
)
def test_no_other_header_is(name: str) -> None:
    assert passed_headers({name: "1"}) == []


@pytest.mark.parametrize("value", ["", "a\r\nset-cookie: b", "a\x00", "\x7f", "é", "x" * (LIMITS.passed_value + 1)])
def test_a_value_that_is_long_or_no_plain_text_is_left_out(value: str) -> None:
    assert passed_headers({"openai-version": value, "openai-model": "x"}) == [("openai-model", "x")]


def test_their_number_and_their_length_have_a_limit() -> None:
    many = {f"x-ratelimit-{number}": "x" * LIMITS.passed_value for number in range(LIMITS.passed_headers + 1)}
    assert passed_headers(many) == list(many.items())[:-1]
    assert passed_headers({f"openai-{'x' * 57}": "1"}) != []
    assert passed_headers({f"openai-{'x' * 58}": "1"}) == []
