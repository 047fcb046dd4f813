"""`config/values.py`: each kind of value takes what its schema allows, and nothing else."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, timezone
from typing import Any

import pytest

from gai_fast.config.values import (
    LARGEST,
    LONGEST,
    Key,
    choice,
    choices,
    moment,
    one_or_more,
    seconds,
    seconds_or_auto,
    switch,
    text,
    texts,
    whole,
)

KINDS = {
    "switch": switch("…"),
    "whole": whole("…", 0, 10),
    "large": whole("…", 1),
    "seconds": seconds("…"),
    "seconds or 0": seconds("…", zero=True),
    "choice": choice("…", "a", "b"),
    "text": text("…", str.lower, "^.$"),
    "choices": choices("…", str.upper, "a", "b"),
    "texts": texts("…", str.lower),
    "moment": moment("…", example="2030-01-31"),
    "one or more": one_or_more(text("…", str.lower), 2),
}
NEW_YEAR = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("kind", "value", "read"),
    [
        ("switch", True, True),
        ("whole", 0, 0),
        ("whole", 10, 10),
        ("large", LARGEST, LARGEST),
        ("seconds", 1, 1.0),
        ("seconds", LONGEST, LONGEST),
        ("seconds or 0", 0, 0.0),
        ("choice", "b", "b"),
        ("choices", ["b", "a"], ("B", "A")),
        ("choices", [], ()),
        ("text", "Äb c", "äb c"),
        ("texts", ["A", "b"], ("a", "b")),
        ("texts", [], ()),
        ("one or more", "A", ("a",)),
        ("one or more", ["A", "b"], ("a", "b")),
        ("moment", NEW_YEAR, NEW_YEAR),
        ("moment", datetime(2030, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))), NEW_YEAR),
        ("moment", date(2030, 1, 1), NEW_YEAR),
        ("moment", "2030-01-01", NEW_YEAR),
        ("moment", "2030-01-01T00:00:00Z", NEW_YEAR),
        ("moment", "2030-01-01t01:00:00.000+01:00", NEW_YEAR),
        ("moment", "2029-12-31 23:00:00-01:00", NEW_YEAR),
    ],
)
def test_a_value_of_the_kind_is_read(kind: str, value: Any, read: Any) -> None:
    got = KINDS[kind].read(value)
    assert got == read
    assert type(got) is type(read)


@pytest.mark.parametrize(
    ("kind", "value", "problem"),
    [
        ("one or more", [], "as a list must have 1 to 2 entries"),
        ("one or more", ["a", "b", "c"], "as a list must have 1 to 2 entries"),
        ("one or more", ["a", ""], "must be a string that is not empty"),
        ("one or more", 1, "must be a string that is not empty"),
        *(
            ("moment", value, "must be a date such as 2030-01-31, or with time and zone 2030-01-31T18:00:00Z")
            for value in (
                1,
                True,
                1.5,
                time(1),
                [],
                "",
                "tomorrow",
                "2030",
                "2030-13-01",
                "2030-01-01T24:00:01Z",
                "20300101",
            )
        ),
        *(
            ("moment", value, r"must have a time zone: add Z for UTC, or an offset such as \+02:00")
            for value in (datetime(2030, 1, 1), "2030-01-01T00:00:00")  # noqa: DTZ001  # as TOML has a local one
        ),
        ("moment", "0001-01-01T00:00:00+14:00", "must be in the years 1 to 9999 in UTC"),
        ("switch", 1, "must be true or false"),
        ("switch", "true", "must be true or false"),
        ("whole", 11, "must be a whole number, 0 to 10"),
        ("whole", -1, "must be a whole number, 0 to 10"),
        ("whole", True, "must be a whole number, 0 to 10"),
        ("whole", 1.0, "must be a whole number, 0 to 10"),
        ("large", LARGEST + 1, "must be a whole number, at least 1"),
        ("seconds", 0, "must be seconds, more than 0, at most 10000000"),
        ("seconds", True, "must be seconds, more than 0, at most 10000000"),
        ("seconds", float("nan"), "must be seconds, more than 0, at most 10000000"),
        ("seconds", LONGEST + 1, "must be seconds, more than 0, at most 10000000"),
        ("seconds or 0", -0.1, "must be seconds, 0 or more, at most 10000000"),
        ("choice", "c", "must be a or b"),
        ("choice", ["a"], "must be a or b"),
        ("choices", "a", "must be a list of a, b, each at most once"),
        ("choices", ["a", "a"], "must be a list of a, b, each at most once"),
        ("choices", [["a"]], "must be a list of a, b, each at most once"),
        ("text", " ", "must be a string that is not empty"),
        ("text", 1, "must be a string that is not empty"),
        ("text", "a\u2028b", "must not contain control characters"),
        ("text", "a\ud800", "must not contain control characters"),
        ("texts", "a", "must be a list of strings"),
        ("texts", ["a", 1], "must be a list of strings"),
    ],
)
def test_another_value_is_refused_without_being_repeated(kind: str, value: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{problem}$"):
        KINDS[kind].read(value)


@pytest.mark.parametrize("key", KINDS.values(), ids=KINDS)
def test_each_kind_has_its_schema(key: Key) -> None:
    assert key.schema.keys() & {"type", "enum", "oneOf"}
    assert not key.secret


def test_a_time_may_be_left_to_the_gateway() -> None:
    key = seconds_or_auto("About.")
    assert (key.read("auto"), key.read(1), key.read(0.5)) == ("auto", 1.0, 0.5)
    for value in ("never", 0, -1, True, None, LONGEST + 1):
        with pytest.raises(ValueError, match=f'must be seconds, more than 0, at most {LONGEST:.0f}, or "auto"'):
            key.read(value)
