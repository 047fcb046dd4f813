"""`gai_fast/formats/chat/members.py`: the members of a chat request that matter to every route."""

from __future__ import annotations

from typing import Any

import pytest

from gai_fast.formats import get_format
from gai_fast.formats.chat.members import read_chat_members
from gai_fast.model.errors import InvalidRequest


@pytest.mark.parametrize(
    ("messages", "characters"),
    [
        (None, 0),
        ("abc", 3),
        ([{"role": "user", "content": "abc"}, {"role": "user", "content": [{"type": "text", "text": "de"}]}], 5),
        ([{"role": "user", "content": None}, 7, ["x"]], 1),
        ({"content": {"text": "abc"}}, 3),
    ],
)
def test_the_characters_of_messages_of_any_shape(messages: Any, characters: int) -> None:
    assert read_chat_members({"messages": messages}).prompt_characters == characters


def test_what_a_route_must_know_of_a_chat_request() -> None:
    asked = read_chat_members({})
    assert (asked.model, asked.stream, asked.wants_usage, asked.wants_json) == (None, False, False, False)
    for form, wants_json in (("json_object", True), ("json_schema", True), ("text", False), (None, False)):
        body = {
            "model": "m",
            "stream": True,
            "stream_options": {"include_usage": True},
            "response_format": {"type": form},
        }
        asked = get_format("openai").read_request(body)
        assert (asked.body, asked.model, asked.stream) == (body, "m", True)
        assert (asked.wants_usage, asked.wants_json) == (True, wants_json)
    assert not read_chat_members({"response_format": "json_object"}).wants_json


@pytest.mark.parametrize("body", [{"model": 1}, {"model": []}, {"stream": "true"}, {"stream": 1}])
def test_a_model_or_stream_of_another_type_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=rf"Expected `(str|bool)`, got `\w+` - at `\$\.{next(iter(body))}`"):
        read_chat_members(body)


@pytest.mark.parametrize("options", [None, "x", {}, {"include_usage": False, "include_obfuscation": False}])
def test_usage_is_asked_for_beside_what_the_client_asks(options: Any) -> None:
    body = {"messages": [], **({} if options is None else {"stream_options": options})}
    before = dict(body)
    result = get_format("openai").with_usage(body)
    kept = options if isinstance(options, dict) else {}
    assert result == {"messages": [], "stream_options": {**kept, "include_usage": True}}
    assert body == before


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ([], "stream_options"),
        ("include_usage", "stream_options"),
        ({"include_usage": 1}, "stream_options.include_usage"),
    ],
)
def test_stream_options_of_a_wrong_type_are_refused_here(options: Any, path: str) -> None:
    """They reached the upstream, or were replaced without a word if the gateway asks for usage."""
    with pytest.raises(InvalidRequest, match=rf"`\$\.{path}`"):
        read_chat_members({"stream_options": options})
