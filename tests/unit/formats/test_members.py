"""Members of a client's object: their types, and the path in a refusal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from gai_fast.formats._members import (
    CallInputs,
    DialectReader,
    data_url,
    member,
    read_native,
    require_type,
    required,
    unknown_members,
    with_items,
)
from gai_fast.model.errors import InvalidRequest
from gai_fast.model.events import JSONText
from tests.limits import LIMITS


def test_absent_and_null_are_the_same() -> None:
    assert member({}, "a", "$", str) is None
    assert member({"a": None}, "a", "$", str) is None
    assert member({"a": "b"}, "a", "$", str, list) == "b"


@pytest.mark.parametrize(
    ("value", "kinds", "text"),
    [
        (True, (int,), "Expected `int`, got `bool`"),
        (1, (str, list), "Expected `str | array`, got `int`"),
        (None, (dict,), "Expected `object`, got `null`"),
    ],
)
def test_a_wrong_type_names_the_path(value: Any, kinds: tuple[type, ...], text: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        require_type(value, "$.a[1]", *kinds)
    assert raised.value.message == f"The request is not valid: {text} - at `$.a[1]`"
    assert raised.value.reason == "validation"


def test_a_missing_member_names_its_object() -> None:
    with pytest.raises(InvalidRequest, match=r"missing required field `a` - at `\$\.b`"):
        required({}, "a", "$.b", str)
    assert required({"a": 0}, "a", "$", int) == 0


@pytest.mark.parametrize("url", ["https://a.example", "data:image/png,x", "data:;base64,x", "data:image/png;base64"])
def test_only_base64_data_urls_are_read(url: str) -> None:
    with pytest.raises(InvalidRequest, match=r"data:<media type>;base64.*at `\$\.url`"):
        data_url(url, "$.url")


def test_a_data_url_is_split() -> None:
    assert data_url("data:image/png;base64,eA==", "$") == {"data": "eA==", "media_type": "image/png"}


def test_a_rule_of_native_requests_names_the_clients_member() -> None:
    moved = {"$.max_tokens": "$.limit", "$.tools[0]": "$.functions[3]"}
    for native, path in (
        ({"query": "?", "max_tokens": 0}, "$.limit"),
        ({"query": "?", "tools": [{"name": ""}]}, "$.functions[3].name"),
        ({"query": "?", "temperature": 9}, "$.temperature"),
    ):
        with pytest.raises(InvalidRequest) as refused:
            read_native(native, moved)
        assert refused.value.message.endswith(f"at `{path}`")
        assert refused.value.reason == "validation"
    with pytest.raises(InvalidRequest, match="it is empty"):
        read_native({}, moved)
    assert read_native({"query": "?"}, moved).query == "?"


def test_a_reader_has_the_request_and_what_it_lost() -> None:
    class Reader(DialectReader):
        def read(self, body: Mapping[str, Any]) -> dict[str, Any]:
            self.lost += unknown_members(body, "$", ("prompt",))
            self.moved["$.query"] = "$.prompt"
            return {"query": body["prompt"]}

    request, lost = Reader().request({"prompt": "?", "x": 1})
    assert (request.query, lost) == ("?", ["x"])
    with pytest.raises(InvalidRequest, match=r"at `\$\.prompt`"):
        Reader().request({"prompt": 5})


def test_members_that_a_reader_does_not_know_are_named_by_their_path() -> None:
    holder = {"a": 1, "b": None, "c": 0, "d": []}
    assert unknown_members(holder, "$.x[3]", ("a",)) == ["x[3].c", "x[3].d"]
    assert unknown_members(holder, "$", holder) == []


def test_a_list_of_a_body_grows_in_a_copy() -> None:
    body = {"a": [1], "b": 2}
    assert with_items(body, "a", [3]) == {"a": [1, 3], "b": 2}
    assert body["a"] == [1]
    assert with_items({}, "a", [3]) == {"a": [3]}
    with pytest.raises(InvalidRequest, match=r"Expected `array`, got `str` - at `\$\.a`"):
        with_items({"a": "x"}, "a", [3])


def test_the_values_of_arguments_are_limited_before_they_are_parsed() -> None:
    """Ten MiB of empty objects in strings held the loop for seconds: the body's limits do not look into strings."""
    inputs = CallInputs()
    most = LIMITS.json_containers
    some = json.dumps([{}] * (most // 3))
    assert [inputs.read(some) for _ in range(2)] == [JSONText(some.replace(" ", ""), None)] * 2
    assert inputs.read('{"text": "' + "{" * most + '"') == '{"text": "' + "{" * most + '"'  # no JSON
    assert inputs.read('{"text": "' + "{" * most + '"}') == JSONText('{"text":"' + "{" * most + '"}', None)
    deep = "[" * (LIMITS.arguments_depth + 1) + "]" * (LIMITS.arguments_depth + 1)
    assert inputs.read(deep) == deep
    with pytest.raises(InvalidRequest) as refused:
        inputs.read(some + " " * 10)
    assert refused.value.reason == "items"
    with pytest.raises(InvalidRequest) as refused:
        CallInputs().read("[" + ",".join(["1" * 4000] * 100) + "]")
    assert refused.value.reason == "items"
