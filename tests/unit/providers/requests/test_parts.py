"""Parts of requests that several providers share."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import import_module
from typing import Any, Final

import pytest
from msgspec import UNSET

from gai_fast.core.requests.reading import parse_request
from gai_fast.kernels import encode_json
from gai_fast.model.changes import Changes
from gai_fast.model.errors import InvalidRequest
from gai_fast.model.request import AssistantMessage, ImagePart, Message, Request, SystemMessage, UserMessage
from gai_fast.providers import Target, get_provider, provider_names
from gai_fast.providers.requests.parts import (
    closed_schema,
    image_data,
    image_url,
    is_given,
    joined,
    merged,
    paired,
    with_own_ids,
    without_limits,
)
from tests.unit.providers.answer_reading import body

APIS: Final = [
    name if not api else f"{name}:{api}"
    for name in provider_names()
    if name not in ("demo", "python")
    for api in import_module(f"gai_fast.providers.{name.replace('-', '_')}").APIS
]


def test_texts_are_parted_by_blank_lines() -> None:
    assert joined(["Be brief.", "", "Be kind."]) == "Be brief.\n\nBe kind."
    assert joined(part for part in ("Hi",)) == "Hi"
    assert joined([]) == ""


def test_an_image_is_its_url_or_its_data_in_one() -> None:
    assert image_url(ImagePart(url="https://x/y.png")) == "https://x/y.png"
    assert image_url(ImagePart(data="AAAA", media_type="image/png")) == "data:image/png;base64,AAAA"
    with pytest.raises(InvalidRequest, match="media_type"):
        image_url(ImagePart(data="AAAA"))


def test_the_data_of_an_image_may_stand_in_its_url() -> None:
    assert image_data(ImagePart(data="AAAA", media_type="image/png")) == ("image/png", "AAAA")
    assert image_data(ImagePart(url="data:image/png;base64,AAAA")) == ("image/png", "AAAA")
    assert image_data(ImagePart(url="https://x/y.png")) is None
    assert image_data(ImagePart(url="data:,text")) is None


def test_options_are_merged_as_json_merge_patch_says() -> None:
    body = {"a": 1, "b": {"c": 2, "d": [1]}, "e": 3}
    assert merged(body, {"a": {"x": None, "y": 1}, "b": {"c": None, "d": [2]}, "e": None, "f": None}) == {
        "a": {"y": 1},
        "b": {"d": [2]},
    }
    assert body == {"a": 1, "b": {"c": 2, "d": [1]}, "e": 3}


@pytest.mark.parametrize(
    ("value", "given"), [(UNSET, False), ("", False), ([], False), ({}, False), (0, True), (False, True), ([0], True)]
)
def test_nothing_given_is_nothing_asked_for(value: Any, given: bool) -> None:
    assert is_given(value) is given


@pytest.mark.parametrize("provider", ["openai", "openai:responses", "anthropic", "gemini", "cohere", "ollama"])
def test_arguments_that_are_null_are_none(provider: str) -> None:
    """As a model wrote them, and as the message of its answer has them."""
    call = {"type": "tool_call", "call_id": "c", "name": "now", "input": None}
    result = {"role": "tool", "call_id": "c", "content": "4"}
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": [call]}, result]
    assert "null" not in json.dumps(body(provider, messages=messages)).replace('"content": null', "")


def test_a_schema_is_closed_where_it_does_not_say_otherwise() -> None:
    inner = {"type": "object", "properties": {"required": {"properties": {}}, "enum": {"type": "string"}}}
    given = {
        "type": "object",
        "properties": {"properties": inner, "b": {"anyOf": [{"type": "null"}, inner]}},
        "$defs": {"c": {"properties": {}, "additionalProperties": True}, "d": {"type": "string"}},
        "examples": [{"properties": {}}],
    }
    closed = {
        **inner,
        "properties": {"required": {"properties": {}, "additionalProperties": False}, "enum": {"type": "string"}},
        "additionalProperties": False,
    }
    assert closed_schema(given) == {
        **given,
        "properties": {"properties": closed, "b": {"anyOf": [{"type": "null"}, closed]}},
        "$defs": {"c": {"properties": {}, "additionalProperties": False}, "d": {"type": "string"}},
        "additionalProperties": False,
    }
    for same in (closed, {"type": "string"}, True, [1], {"properties": 5}, {"$defs": {"a": {"type": "string"}}}):
        assert closed_schema(same) is same


def test_a_definition_may_have_the_name_of_a_keyword() -> None:
    names = ("properties", "enum", "required", "type")
    given = {"$defs": {name: {"type": "object", "properties": {}} for name in names}, "type": "string"}
    assert closed_schema(given) == {
        "$defs": {name: {"type": "object", "properties": {}, "additionalProperties": False} for name in names},
        "type": "string",
    }


def test_calls_and_results_without_each_other_are_left_out() -> None:
    def call(name: str) -> dict[str, str]:
        return {"type": "tool_call", "call_id": name, "name": "f"}

    def result(name: str) -> dict[str, str]:
        return {"role": "tool", "call_id": name, "content": "4"}

    ask = {"role": "user", "content": "?"}
    said = [{"type": "text", "text": "Well"}, call("b"), call("c")]
    given = [
        ask,
        result("a"),
        {"role": "assistant", "content": [call("a")]},
        {"role": "assistant", "content": said},
        result("c"),
        result("c"),
        ask,
    ]
    changes = Changes("drop")
    sent = paired(parse_request(encode_json({"messages": given})), changes)
    kept = [ask, {"role": "assistant", "content": [said[0], call("c")]}, result("c"), ask]
    assert sent == parse_request(encode_json({"messages": kept}))
    assert changes.dropped == ["messages[1]", "messages[2].content[0]", "messages[3].content[1]", "messages[5]"]
    changes.drop("messages[2].content[0]")
    changes.adjust("messages[9].role", "user")
    assert changes.dropped[-1] == "messages[4].content[0]"
    assert changes.adjusted == {"messages[9].role": "user"}
    for same in ([ask], [{"role": "assistant", "content": [call("a")]}], [ask, *kept[1:]]):
        request = parse_request(encode_json({"messages": same}))
        assert paired(request, changes) is request


def called(call_id: str, at: int) -> dict[str, Any]:
    return {"type": "tool_call", "call_id": call_id, "name": "f", "input": {"at": at}}


def answered(call_id: str, content: str) -> dict[str, Any]:
    return {"role": "tool", "call_id": call_id, "content": content}


def test_calls_of_one_id_get_ids_of_their_own() -> None:
    """Anthropic wants them unique in the whole request (github.com/NVIDIA-NeMo/Switchyard/issues/502)."""

    def conversation(*ids: str) -> Any:
        a, b, c, d, e = ids
        messages = [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": [{"type": "text", "text": "so"}, called(a, 1), called(b, 2)]},
            answered(a, "1"),
            answered(b, "2"),
            {"role": "assistant", "content": [called(c, 3), called(d, 4)]},
            answered(c, "3"),
            answered(d, "4"),
            {"role": "assistant", "content": "and"},
            {"role": "assistant", "content": [called(e, 5)]},
            answered(e, "5"),
        ]
        return parse_request(encode_json({"messages": messages}))

    given = conversation("c", "c", "c_2", "c", "c")
    assert with_own_ids(given) == conversation("c", "c_3", "c_2", "c_4", "c_5")
    for same in (
        conversation(*"abcde"),
        parse_request(encode_json({"messages": [answered("c", ""), answered("c", "")]})),
    ):
        assert with_own_ids(same) is same
    unanswered = {"role": "assistant", "content": [called("c", 0)]}
    messages = [
        unanswered,
        {"role": "assistant", "content": [called("c", 1), called("c", 2)]},
        *([answered("c", "")] * 3),
    ]
    sent = with_own_ids(parse_request(encode_json({"messages": messages})))
    assert [getattr(message, "call_id", "") for message in sent.messages] == ["", "", "c_2", "c_3", "c"]


def test_limits_of_values_move_to_the_descriptions_as_anthropics_sdk_moves_them() -> None:
    """github.com/laravel/ai/issues/715: `minimum`, `maxLength` and their like are a 400."""
    from anthropic.lib._parse._transform import transform_schema

    given = {
        "type": "object",
        "properties": {
            "minimum": {"type": "integer", "minimum": 1, "maximum": 5, "description": "Stars"},
            "b": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "c": {"type": "array", "items": {"$ref": "#/$defs/d"}, "minItems": 3},
            "e": {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 1},
            "f": {"type": "string", "format": "uuid"},
            "g": {"type": "object", "properties": {}, "additionalProperties": {"type": "string"}},
            "h": {"oneOf": [{"type": "string"}, {"type": "null"}]},
        },
        "required": ["minimum"],
        "$defs": {"d": {"type": "number", "multipleOf": 0.5}},
    }
    assert closed_schema(without_limits(given)) == transform_schema(given)
    odd = {"properties": {"a": {"minimum": [1], "format": {}, "enum": [{"maximum": 1}]}}, "format": "duration"}
    assert without_limits(odd) == odd


@pytest.mark.parametrize("name", ["image/jpg", "image/pjpeg", "image/JPEG", "image/jpeg;charset=utf-8"])
def test_media_types_of_images_have_their_registered_names(name: str) -> None:
    """github.com/NousResearch/hermes-agent/issues/55432: pages and tools write `image/jpg`, which providers refuse."""
    assert image_data(ImagePart(url=f"data:{name};base64,AAAA")) == ("image/jpeg", "AAAA")
    assert image_data(ImagePart(data="AAAA", media_type=name)) == ("image/jpeg", "AAAA")


class Unwalked(str):
    """A text whose characters nobody may visit one by one: a text of 10 MB takes a second of the loop."""

    def __iter__(self) -> Iterator[str]:
        raise AssertionError("somebody walks the characters of a text")


@pytest.mark.parametrize("name", APIS)
def test_nobody_walks_the_characters_of_a_content(name: str) -> None:
    text = Unwalked("a text")
    messages: list[Message] = [SystemMessage(content=text), UserMessage(content=text)]
    messages += [AssistantMessage(content=text), UserMessage(content=text)]
    api, target = get_provider(name), Target("m", on_unsupported="drop")
    assert b"a text" in api.build_request(Request(model="m", messages=messages), target).body
