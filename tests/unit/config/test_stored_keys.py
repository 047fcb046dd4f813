"""The values of a key that is made at run time: read like the values of a `[[key]]`, kept, and read again."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from gai_fast.config.stored_keys import STORED, key_of, read_name, read_values
from gai_fast.model.errors import Error
from gai_fast.model.settings import (
    KeyLimits,
    KeySettings,
    ModelSettings,
    Settings,
    SpendLimit,
    ToolServerSettings,
    ToolSettings,
    UpstreamSettings,
)

UP = UpstreamSettings("up", "openai-compatible", "http://127.0.0.1:1", pass_paths=("/v1/files",))
OTHER = UpstreamSettings("other", "openai-compatible", "http://127.0.0.1:1")
SETTINGS = Settings(
    upstreams={"up": UP, "other": OTHER},
    models={"fast": ModelSettings("fast", UP, "fast")},
    tool_servers=(ToolServerSettings("docs"),),
    tools=(ToolSettings("weather"),),
)
GIVEN = {
    "models": ["fast", "up/*", "up/other"],
    "expires": "2031-01-31T18:00:00.25+02:00",
    "requests_per_minute": 20,
    "limits": {"tokens_per_minute": 0, "streams": 3, "spend": {"amount": 2.5, "period": "month"}},
    "lane": ["up"],
    "tools": ["docs.*", "weather"],
    "role": "user",
}


def test_values_come_back_from_the_store_as_they_were_given() -> None:
    values = msgspec.msgpack.decode(msgspec.msgpack.encode(read_values(GIVEN, SETTINGS)))
    assert {*values} == {*STORED}
    assert key_of("shop", (b"1", b"2"), values, SETTINGS) == KeySettings(
        "shop",
        (b"1", b"2"),
        models=("fast", "up/*", "up/other"),
        expires=datetime(2031, 1, 31, 16, 0, 0, 250_000, tzinfo=UTC),
        limits=KeyLimits(20, 0, 3, SpendLimit(2_500_000_000_000, "month")),
        pass_upstreams=("up",),
        tools=("docs.*", "weather"),
    )


def test_a_date_alone_and_a_whole_second_are_read_again() -> None:
    for text in ("2031-01-31", "2031-01-31T00:00:00Z"):
        values = read_values({"expires": text}, SETTINGS)
        assert key_of("shop", (), values, SETTINGS).expires == datetime(2031, 1, 31, tzinfo=UTC)


def test_what_a_key_does_not_say_comes_from_key_defaults_but_for_the_role() -> None:
    usual = KeySettings("", (), models=("fast",), role="admin", limits=KeyLimits(7, 8), pass_upstreams=("up",))
    settings = Settings(upstreams={"up": UP}, models=SETTINGS.models, key_defaults=usual)
    values = read_values({"requests_per_minute": 1, "streams": None}, settings)
    found = key_of("shop", (), values, settings)
    assert found == KeySettings("shop", (), models=("fast",), limits=KeyLimits(1, 8), pass_upstreams=("up",))
    assert found.role == "user"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"streams": "3"}, "`streams` of a key must be a whole number, 0 to 1000000000, not '3'"),
        ({"models": ["fats"]}, "`models` of a key: no model is named 'fats'; did you mean fast?"),
        ({"lane": ["other"]}, "`lane` of a key: [[upstream]] 'other' offers no path"),
        ({"lane": ["ohter"]}, "`lane` of a key: no [[upstream]] is named 'ohter'; did you mean other?"),
        ({"request_per_minute": 3}, "unknown member 'request_per_minute' of a key; did you mean requests_per_minute?"),
        ({"role": "metrics", "streams": 3}, "`streams` has no meaning for the role metrics"),
        ({"role": "metrics", "limits": {"streams": 3}}, "`streams` has no meaning for the role metrics"),
        ({"role": ["user"]}, "`role` must be user or metrics"),
        ({"role": "admin"}, "`role` must be user or metrics: only a [[key]] of the file may be an admin's"),
        ({"limits": {"lane": []}}, "unknown member 'lane' of a key; known: requests_per_minute, spend, streams,"),
        ({"limit": {}}, "unknown member 'limit' of a key; did you mean limits?"),
    ],
)
def test_a_mistake_is_named(given: dict[str, Any], words: str) -> None:
    with pytest.raises(Error) as caught:
        read_values(given, SETTINGS)
    assert caught.value.message.startswith(words)
    assert caught.value.status == 400


def test_a_message_is_short_whatever_the_request_has() -> None:
    with pytest.raises(Error) as caught:
        read_values({"x" * 10_000: 1}, SETTINGS)
    assert len(caught.value.message) < 700


def test_a_key_for_the_figures_uses_no_model_even_in_a_release_that_does_not_know_the_role() -> None:
    values = read_values({"role": "metrics", "expires": "2031-01-31"}, SETTINGS)
    assert values == {"role": "metrics", "expires": "2031-01-31T00:00:00Z", "models": []}
    settings = Settings(key_defaults=KeySettings("", (), limits=KeyLimits(7), pass_upstreams=("up",)))
    expected = KeySettings("scraper", (b"1",), (), "metrics", datetime(2031, 1, 31, tzinfo=UTC))
    assert key_of("scraper", (b"1",), values, settings) == expected


def test_a_store_makes_nobody_an_admin() -> None:
    with pytest.raises(ValueError, match="the role admin"):
        key_of("shop", (), {"role": "admin"}, SETTINGS)


def test_values_of_the_store_that_no_key_may_have_are_an_error() -> None:
    with pytest.raises(ValueError, match="whole number"):
        key_of("shop", (), {"streams": -1}, SETTINGS)


@pytest.mark.parametrize("name", [None, "", "a b", "a" * 65, "anonymous", 3, ["a"], "-a", "a:b"])
def test_a_name_is_that_of_a_key(name: Any) -> None:
    with pytest.raises(Error) as caught:
        read_name(name)
    assert caught.value.reason == "name"
    assert read_name("Shop.1_2-3") == "Shop.1_2-3"
