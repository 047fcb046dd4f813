"""The members of a Messages request that every route needs."""

from __future__ import annotations

from typing import Any

import pytest

from gai_fast.core.requests.shapes import messages_characters as prompt_characters
from gai_fast.formats.messages.members import read_messages_members
from gai_fast.model.errors import InvalidRequest


def test_model_stream_and_the_wish_for_json_are_read() -> None:
    asked = read_messages_members({"model": "m", "stream": True, "output_config": {"format": {"type": "json_schema"}}})
    assert (asked.model, asked.stream, asked.wants_usage, asked.wants_json) == ("m", True, True, True)
    asked = read_messages_members({"output_config": []})
    assert (asked.model, asked.stream, asked.wants_json) == (None, False, False)


@pytest.mark.parametrize("body", [{"model": 5}, {"stream": "yes"}])
def test_wrong_types_are_refused(body: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=rf"at `\$\.{next(iter(body))}`"):
        read_messages_members(body)


def test_all_texts_of_a_request_are_counted_and_no_data() -> None:
    messages = [
        {"role": "user", "content": "1234"},
        {"role": "user", "content": [{"type": "text", "text": "123"}, {"type": "image", "source": {"data": "xxxx"}}]},
        {"role": "user", "content": [{"type": "document", "title": "t", "source": {"type": "text", "data": "12"}}]},
        {"role": "user", "content": [{"type": "document", "source": {"type": "content", "content": "1"}}]},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "1234", "signature": "zzz"}]},
        {"role": "user", "content": [{"type": "tool_result", "content": [{"type": "text", "text": "12"}]}]},
    ]
    assert prompt_characters({"system": [{"type": "text", "text": "12345"}], "messages": messages}) == 22
    tool = {"name": "abc", "description": "de", "input_schema": {"a": [1, None, "b"]}}
    assert prompt_characters({"tools": [tool]}) > 5
    for odd in (None, 5, {"content": 5}, [[["x"]]]):
        assert prompt_characters({"messages": odd}) in (0, 1)
