"""`gai_fast/model/retry_after.py`: how long an upstream asks its clients to wait."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gai_fast.model.retry_after import retry_after_ms, shorter_wait
from tests.limits import LIMITS

NOW_MS = 1_800_000_000_000


def wait(message: str = "", now_ms: int | None = NOW_MS, body: int | None = None, **headers: str) -> int | None:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return retry_after_ms(named, message, now_ms, body)


def test_the_order_is_milliseconds_seconds_body_message_reset() -> None:
    sources: list[tuple[str, object, int]] = [
        ("retry_after_ms", "1500", 1500),
        ("retry_after", "2", 2000),
        ("body", 3000, 3000),
        ("message", "Please try again in 4s.", 4000),
        ("x_ratelimit_reset_requests", "5s", 5000),
    ]
    for first, (_, _, expected) in enumerate(sources):
        assert wait(**{name: value for name, value, _ in sources[first:]}) == expected
    assert wait() is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [("7", 7000), ("0.25", 250), ("0", 0), ("121", 120_000), ("1000000000", 120_000), ("999999999999999", 120_000)],
)
def test_seconds_may_be_a_fraction_and_are_clamped(value: str, expected: int) -> None:
    assert wait(retry_after=value) == expected


@pytest.mark.parametrize(
    "garbage", ["", "-1", "+1", "1e9", "nan", "inf", "0x10", "1_0", " 7", "7 s", "soon", "٧", "1.", ".5", "9" * 400]
)
def test_garbage_is_ignored_and_the_next_source_is_asked(garbage: str) -> None:
    assert wait(retry_after_ms=garbage, retry_after=garbage) is None
    assert wait(retry_after_ms=garbage, retry_after="7") == 7000
    assert wait(retry_after=garbage, message="try again in 3s") == 3000


def http_date(seconds: float) -> datetime:
    return datetime.fromtimestamp(NOW_MS / 1000 + seconds, UTC)


def test_an_http_date_counts_from_now() -> None:
    assert wait(retry_after=format_datetime(http_date(7), usegmt=True)) == 7000
    assert wait(retry_after=format_datetime(http_date(-7), usegmt=True)) == 0
    assert wait(retry_after=format_datetime(http_date(10**6), usegmt=True)) == 120_000


@pytest.fixture
def in_tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("in_tokyo")
def test_a_date_without_a_zone_is_in_utc_wherever_we_are() -> None:
    """RFC 9110 §5.6.7: the obsolete asctime form."""
    assert wait(retry_after=http_date(7).strftime("%a %b %e %H:%M:%S %Y")) == 7000


def test_without_a_clock_a_date_says_nothing() -> None:
    assert wait(now_ms=None, retry_after=format_datetime(http_date(7), usegmt=True)) is None
    assert wait(now_ms=None, x_ratelimit_reset="2027-01-15T08:00:07Z") is None
    assert wait(now_ms=None, retry_after="7") == 7000


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("Rate limit reached. Please try again in 5.289s. Visit https://…", 5289),
        ("Please try again in 6m0s.", 120_000),
        ("try again in 20ms", 20),
        ("TRY AGAIN IN 1m2.5s", 62_500),
        ("Please retry after 7 seconds. Please go here to increase it.", 7000),
        ("Try again in 1 minute 2.5 seconds", 62_500),
        ("Please retry in 34.5s.", 34_500),
        ("retry after 250 milliseconds", 250),
        ("retry after 1 hour", 120_000),
        ("try again in 5 months", None),
        ("try again in 5 apples", None),
        ("try again in 1.2.3s", None),
        ("try again in a while", None),
        ("try again in -5s", None),
        ("x" * 10**6 + "try again in 5s", None),
    ],
)
def test_a_message_may_say_when_to_try_again(message: str, expected: int | None) -> None:
    assert wait(message) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("12ms", 12),
        ("1s", 1000),
        ("1m30s", 90_000),
        ("59.56s", 59_560),
        ("6m0s", 120_000),
        ("500µs", 0),
        ("2027-01-15T08:00:07Z", 7000),
        ("2027-01-15T09:00:07.250+01:00", 7250),
        ("2027-01-15T08:00:07", 7000),
        ("2001-01-01T00:00:00Z", 0),
        ("1800000007", 7000),
        ("1800000007250", 7250),
        ("7", 7000),
        ("-7", None),
        ("7 apples", None),
        ("s7", None),
        ("", None),
    ],
)
def test_a_reset_is_a_go_duration_a_time_or_a_number(value: str, expected: int | None) -> None:
    assert wait(x_ratelimit_reset_requests=value) == expected
    assert wait(anthropic_ratelimit_tokens_reset=value) == expected


@pytest.mark.timeout(100)
def test_a_name_of_a_header_is_looked_through_in_linear_time() -> None:
    """Each `ratelimit` in a name was followed by a search of its whole rest: 64 KiB of them took seconds."""
    assert retry_after_ms({"ratelimit" * 100_000: "7"}, "", NOW_MS) is None
    assert retry_after_ms({"reset-x-ratelimit": "7"}, "", NOW_MS) is None


def test_of_several_resets_the_longest_counts() -> None:
    """Nothing says which of them was used up; the shorter may not be."""
    assert wait(x_ratelimit_reset_requests="1s", x_ratelimit_reset_tokens="9s", x_ratelimit_reset_x="soon") == 9000


@given(st.text(), st.text(), st.text())
def test_nothing_that_an_upstream_sends_breaks_the_reading(after: str, reset: str, message: str) -> None:
    found = wait(message, retry_after=after, x_ratelimit_reset=reset)
    assert found is None or 0 <= found <= LIMITS.retry_after_ms


DATE_WORDS = "Mon Sun, 32 6 Nov Jan 0001 9999 99 08:49:37 25:61:61 GMT -0000 +9999999 99999999999 , : T Z".split()


@given(st.lists(st.sampled_from(DATE_WORDS), min_size=1, max_size=7), st.sampled_from([" ", ", ", "-", ""]))
def test_no_date_breaks_the_reading(words: list[str], separator: str) -> None:
    date = separator.join(words)
    found = wait(retry_after=date, x_ratelimit_reset=date)
    assert found is None or 0 <= found <= LIMITS.retry_after_ms


@pytest.mark.parametrize(
    ("asked_ms", "seconds", "expected"),
    [(None, 0.0, None), (None, inf, None), (7, inf, 7), (None, 1.5, 1500), (None, 1e-9, 1), (1000, 1.5, 1000),
     (2000, 1.5, 1500), (7, 0.0, 7)],
)  # fmt: skip
def test_the_shorter_wait_counts(asked_ms: int | None, seconds: float, expected: int | None) -> None:
    assert shorter_wait(asked_ms, seconds) == expected
