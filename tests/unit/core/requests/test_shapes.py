"""The shape of a client's request: what the rules of providers depend on."""

from __future__ import annotations

from typing import Any

import pytest

from gai_fast.core.requests.shapes import chat_shape, responses_shape


def test_a_plain_conversation_has_nothing_but_texts() -> None:
    messages = [{"role": role, "content": "abc"} for role in ("system", "user", "assistant")]
    shape = chat_shape(messages)
    assert (shape.characters, shape.roles, shape.parts, shape.calls, shape.ids) == (9, {}, {}, set(), [])
    assert shape.last == "assistant"


def test_what_is_not_plain_is_noted_by_its_role() -> None:
    call = {"id": "a", "type": "function", "function": {}, "index": 0}
    messages = [
        {"role": "developer", "content": "d"},
        {"role": "user", "content": [{"type": "text", "text": "t"}, {"type": "image_url", "image_url": {}}]},
        {"role": "user", "content": [{"type": "text", "text": "t", "cache_control": {}}], "name": "n"},
        {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None},
        {"role": "tool", "content": "r", "tool_call_id": "a"},
    ]
    shape = chat_shape(messages)
    assert shape.roles == {
        "developer": set(),
        "user": {"name"},
        "assistant": {"tool_calls", ""},
        "tool": {"tool_call_id"},
    }
    assert shape.parts == {"user": {"image_url", "text"}}
    assert "index" in shape.calls
    assert (shape.ids, shape.last) == (["a", "a"], "tool")


@pytest.mark.parametrize("odd", [None, 5, "x", [], {}, [5], {"a": None}])
def test_a_request_of_any_shape_has_one(odd: Any) -> None:
    asked = {"role": odd, "content": odd, "tool_calls": odd, "tool_call_id": odd}
    for messages in (odd, [odd], [asked], [{**asked, "tool_calls": [odd], "content": [odd]}], [{"content": [asked]}]):
        assert len(chat_shape(messages).ids) <= 1


def test_a_request_whose_items_have_no_ids_or_have_content_refers_to_nothing() -> None:
    plain = [{"role": "user", "content": "hi"}, {"id": "msg_1", "role": "assistant", "content": "yo"}]
    assert not responses_shape({"input": plain}).may_refer
    assert not responses_shape({"input": "hi"}).may_refer
    assert responses_shape({"input": [*plain, {"type": "item_reference", "id": "msg_1"}]}).may_refer
    assert responses_shape({"input": [{"id": "msg_1"}]}).may_refer
