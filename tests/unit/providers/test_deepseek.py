"""Additions of DeepSeek to the chat dialect."""

from __future__ import annotations

from typing import Any

import pytest

from gai_fast.model.errors import Error, Unsupported
from gai_fast.providers import get_provider
from tests.unit.providers.answer_reading import body, body_without, chunk, read, request, text_of


def test_reasoning_comes_first_and_the_other_member_is_null() -> None:
    events = read(
        "deepseek",
        chunk({"role": "assistant", "content": None, "reasoning_content": ""}),
        chunk({"content": None, "reasoning_content": "hm"}),
        chunk({"content": "a", "reasoning_content": None}),
        chunk({"content": ""}, finish="stop"),
    )
    assert (text_of(events, "reasoning.delta"), text_of(events)) == ("hm", "a")


def test_cache_hits_are_inside_the_prompt() -> None:
    usage = {"prompt_tokens": 18, "completion_tokens": 219, "total_tokens": 237, "prompt_cache_hit_tokens": 8}
    result = read("deepseek", chunk(finish="stop", usage=usage))[-1]["usage"]
    assert result == {"input_tokens": 18, "output_tokens": 219, "total_tokens": 237, "cached_input_tokens": 8}


def test_want_of_capacity_is_overload() -> None:
    with pytest.raises(Error) as failed:
        read("deepseek", chunk({"content": "a"}), chunk(finish="insufficient_system_resource"))
    assert (failed.value.code, failed.value.temporary) == ("overloaded", True)


def test_an_empty_account_is_forbidden() -> None:
    body = b'{"error":{"message":"Insufficient Balance","type":"unknown_error","code":"invalid_request_error"}}'
    assert get_provider("deepseek").decode_error(402, {}, body).code == "forbidden"


@pytest.mark.parametrize("has_calls", [True, False])
def test_reasoning_goes_back_only_beside_calls(has_calls: bool) -> None:
    parts: list[dict[str, Any]] = [{"type": "reasoning", "text": "hm"}, {"type": "text", "text": "a"}]
    parts += [{"type": "tool_call", "call_id": "a", "name": "f"}] * has_calls
    sent = body("deepseek", messages=[{"role": "assistant", "content": parts}])["messages"][0]
    assert sent.get("reasoning_content") == ("hm" if has_calls else None)


def test_it_takes_no_schema_for_its_answer() -> None:
    with pytest.raises(Unsupported, match="`response_format`: json_schema"):
        request("deepseek", response_format={"type": "json_schema", "schema": {}})
    sent, dropped = body_without("deepseek", response_format={"type": "json_schema", "schema": {}})
    assert ("response_format" in sent, dropped) == (False, ["response_format"])
    assert body("deepseek", response_format={"type": "json"})["response_format"] == {"type": "json_object"}
