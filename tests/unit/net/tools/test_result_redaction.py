"""`gai_fast/net/tools/result_redaction.py`: a tool's own credentials are in no result, and nothing else is changed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gai_fast.model.settings import Secret
from gai_fast.net.tools.limits import LIMITS
from gai_fast.net.tools.result_redaction import credentials_of, redacted

KEY = 'sk-"canary"\\0123'
VALUES = {"x-key": Secret(KEY), "x-project": Secret("project-0123"), "x-short": Secret("short")}


def test_credentials_are_the_values_that_are_not_plain_and_not_short() -> None:
    assert credentials_of(VALUES, {"x-project"}) == {KEY.encode(), rb"sk-\"canary\"\\0123"}
    assert credentials_of({"authorization": Secret("Bearer sk-canary-0123")}, ()) == {
        b"Bearer sk-canary-0123",
        b"sk-canary-0123",
    }
    url = "postgres://app:s3cret%2F0123@db/shop"
    assert credentials_of({"DATABASE_URL": Secret(url)}, ()) == {url.encode(), b"s3cret%2F0123", b"s3cret/0123"}
    assert credentials_of({}, ()) == frozenset()


def test_of_a_url_they_are_the_values_whose_names_say_so() -> None:
    path = "/v1/Project-0123?project=project-0123&api_key=sk%2Fcanary%200123&sig=&token=short"
    assert credentials_of({}, (), path) == {b"sk%2Fcanary%200123", b"sk/canary 0123"}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (f"a {KEY} b", "a *** b"),
        ([1, None, {KEY: [KEY, True]}], [1, None, {"***": ["***", True]}]),
        (json.dumps({"a": KEY}), '{"a": "***"}'),
        ({"a": f"\ud800{KEY}"}, {"a": "\ud800***"}),
        ("a" * LIMITS.short_text + KEY, "a" * LIMITS.short_text + "***"),
    ],
    ids=range(5),
)
def test_they_are_cut_out_of_texts_and_names(value: Any, shown: Any) -> None:
    assert redacted(value, credentials_of(VALUES, {"x-project"})) == shown


@pytest.mark.parametrize("value", ["project-0123", {"sk-canary": "0123"}, ["short"], 1, None])
def test_what_has_none_stays_the_same_object(value: Any) -> None:
    assert redacted(value, credentials_of(VALUES, {"x-project"})) is value
    assert redacted(value, ()) is value


@pytest.mark.parametrize("value", [12345678, -1234567890, 0.12345678, 12345678 * 10**40])
def test_a_number_that_has_one_is_cut_out_as_a_text_is(value: float) -> None:
    pins = credentials_of({"pin": Secret("12345678")}, ())
    assert redacted([value, 1, 1.5, True, None], pins) == ["***", 1, 1.5, True, None]


class _Counted(bytes):
    """A secret that counts how often it is read."""

    reads = 0

    def decode(self, *given: Any) -> str:
        _Counted.reads += 1
        return super().decode(*given)


def test_secrets_are_read_once_for_all_texts_of_a_result() -> None:
    """A server may send 500,000 texts and one secret: the loop does nothing else meanwhile."""
    secrets = [_Counted(b"sk-canary-%d" % number) for number in range(8)]
    for texts in (1, 1000):
        _Counted.reads = 0
        redacted(["a"] * texts + ["sk-canary-0"], secrets)
        assert _Counted.reads <= 4 * len(secrets)
