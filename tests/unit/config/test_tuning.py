"""The keys that change requests: fields, raw members, members that are not sent, and quirks."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any

import pytest

from gai_fast.config.tuning import FIELDS, dropped_paths, quirks, raw_members, request_fields, request_with


def test_values_are_kept_as_they_stand_in_the_file() -> None:
    fields = {"max_tokens": 5, "reasoning": {"effort": "low"}}
    assert request_fields(fields) == fields
    assert request_with(fields).max_tokens == 5
    assert raw_members({"a": {"b": [1]}}) == {"a": {"b": [1]}}
    assert dropped_paths(["a", "tools[].function.strict"]) == ("a", "tools[].function.strict")
    assert quirks({"developer_role": False, "max_tokens": "max_tokens"})["max_tokens"] == "max_tokens"


def test_fields_of_one_request_are_none_of_a_model() -> None:
    assert not {"messages", "tools", "stream", "extra", "provider_options", "model"} & {*FIELDS}
    assert {"temperature", "reasoning", "metadata"} <= {*FIELDS}


@pytest.mark.parametrize(
    ("check", "value", "problem"),
    [
        (request_fields, 1, "must be a table of fields of a request"),
        (request_fields, {"max_token": 1}, "has an unknown key 'max_token'; did you mean max_tokens?"),
        (request_fields, {"top_p": "x"}, "must have fields of a request: Expected `float`, got `str` - at `top_p`"),
        (request_fields, {"metadata": {"a": {1, 2}}}, "must have values that JSON has, too"),
        (raw_members, [], "must be a table of members of the provider's request"),
        (raw_members, {"stream_options": {}}, "must not have stream_options: a caller's limits"),
        (raw_members, {"a": {1}}, "must have values that JSON has, too"),
        (dropped_paths, "a", "must be a list of paths"),
        (dropped_paths, ["a[]"], "must be a list of paths"),
        (dropped_paths, ["input"], "must not have input: no request is without it"),
        (quirks, 1, "must be a table of max_tokens, developer_role"),
        (quirks, {"role": 1}, "has an unknown key 'role'"),
        (quirks, {"strict": 0}, "must have true or false for strict"),
        (quirks, {"max_tokens": True}, "must have max_tokens or max_completion_tokens for max_tokens"),
    ],
)
def test_a_mistake_is_named(check: Callable[[Any], Any], value: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=r"^(must|has)") as found:
        check(value)
    assert str(found.value).startswith(problem)


def test_a_date_is_sent_as_text() -> None:
    assert raw_members({"a": date(2026, 1, 1)}) == {"a": date(2026, 1, 1)}
