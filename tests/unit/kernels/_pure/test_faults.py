"""`gai_fast/kernels/_pure/faults.py`: what the exceptions carry and that texts say which limit was passed."""

from __future__ import annotations

import pytest

from gai_fast.kernels._pure import faults


def test_a_feed_error_is_a_value_error_with_what_came_before() -> None:
    assert issubclass(faults.FeedError, ValueError)
    assert faults.FeedError("x").before == []
    assert faults.FeedError("x", [1]).before == [1]


def test_a_buffer_that_is_too_small_says_what_is_needed() -> None:
    error = faults.BufferTooSmall(77)
    assert isinstance(error, BufferError)
    assert error.needed == 77
    assert "77 bytes" in str(error)


def test_what_json_cannot_say_is_a_value_error_and_a_type_error() -> None:
    error = faults.unknown_type("$.a", object())
    assert isinstance(error, ValueError)
    assert isinstance(error, TypeError)
    assert str(error) == "$.a: object is not a JSON type"


@pytest.mark.parametrize(
    ("error", "limit"),
    [
        (faults.too_deep(256), "256 levels (limits.arguments_depth)"),
        (faults.integer_too_long(4300), "4300 digits (limits.integer_digits)"),
        (faults.field_too_long("id", 128, "identifier"), "128 characters (limits.identifier)"),
        (faults.bad_retry(32), "32 digits (limits.retry_digits)"),
        (faults.event_too_long(8), "8 bytes (limits.event)"),
        (faults.line_too_long(3, 8), "8 bytes (limits.event)"),
    ],
)
def test_a_passed_limit_is_named(error: ValueError, limit: str) -> None:
    assert limit in str(error)
