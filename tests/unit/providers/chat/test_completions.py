"""The legacy Completions dialect."""

from __future__ import annotations

import re
from typing import Any

import pytest

from gai_fast.model.errors import Error, Unsupported
from tests.unit.providers.answer_reading import body, body_without, read, read_whole, request, text_of

API = "openai:completions"


def _chunk(text: str, finish: str | None = None, **keys: Any) -> dict[str, Any]:
    return {"id": "c1", "model": "m1", "choices": [{"text": text, "index": 0, "finish_reason": finish}], **keys}


def test_text_stands_in_the_choice() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 2}
    events = read(API, _chunk("Once"), _chunk(" upon", "length"), {"choices": [], "usage": usage})
    assert text_of(events) == "Once upon"
    assert (events[-1]["finish_reason"], events[-1]["usage"]["total_tokens"]) == ("length", 3)


def test_a_whole_answer_has_the_same_events() -> None:
    assert read_whole(API, _chunk("Once upon", "stop")) == read(API, _chunk("Once upon", "stop"))


def test_the_ends_and_errors_are_those_of_chat() -> None:
    with pytest.raises(Error) as failed:
        read(API, _chunk("Once"), done=False)
    assert failed.value.reason == "truncated"
    with pytest.raises(Error) as failed:
        read(API, {"error": {"message": "m", "type": "server_error"}})
    assert failed.value.code == "internal"


def test_the_prompt_is_the_one_user_message() -> None:
    assert request(API).path == "/completions"
    sent = body(API, query="Once", max_tokens=5, stop=["."])
    assert (sent["prompt"], sent["max_tokens"], sent["stop"], sent["stream"]) == ("Once", 5, ["."], True)
    assert "messages" not in sent
    parts = [{"type": "text", "text": "On"}, {"type": "text", "text": "ce"}]
    assert body(API, messages=[{"role": "user", "content": parts}])["prompt"] == "On\n\nce"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"system": "s"}, "system"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "url": "u"}]}]}, "messages[0].content[0]"),
        ({"metadata": {"a": "b"}}, "metadata"),
        ({"tools": [{"name": "f"}]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"response_format": {"type": "json"}}, "response_format"),
        ({"reasoning": {"effort": "low"}}, "reasoning"),
    ],
)
def test_what_it_cannot_do_is_refused_by_name(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(Unsupported, match=re.escape(f"`{named}`")):
        request(API, **fields)


def test_what_it_cannot_do_can_be_left_out() -> None:
    sent, dropped = body_without(API, system="s", query="Once", tools=[{"name": "f"}])
    assert (sent["prompt"], "tools" in sent, dropped) == ("Once", False, ["tools", "system"])
