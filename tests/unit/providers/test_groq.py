"""Additions of Groq to the chat dialect."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gai_fast.model.errors import Error, Unsupported
from gai_fast.providers import Target, get_provider
from tests.unit.providers.answer_reading import between, body, chunk, read, request, text_of

USAGE = {"prompt_tokens": 17, "completion_tokens": 11, "total_tokens": 28, "queue_time": 0.1}


def test_reasoning_has_its_own_member() -> None:
    events = read(
        "groq", chunk({"reasoning": "hm", "channel": "analysis"}), chunk({"content": "a"}), chunk(finish="stop")
    )
    assert (text_of(events, "reasoning.delta"), text_of(events)) == ("hm", "a")


def test_usage_is_reported_in_x_groq_and_perhaps_twice() -> None:
    first = chunk({"content": "a"}, x_groq={"id": "req_1", "seed": 1})
    for last in ({"x_groq": {"usage": USAGE}}, {"x_groq": {"usage": USAGE}, "usage": USAGE}, {"usage": USAGE}):
        usage = read("groq", first, chunk(finish="stop", **last))[-1]["usage"]
        assert usage == {"input_tokens": 17, "output_tokens": 11, "total_tokens": 28}


def test_a_failure_in_x_groq_is_an_error() -> None:
    with pytest.raises(Error, match="over capacity") as failed:
        read("groq", chunk({"content": "a"}), chunk({}, x_groq={"id": "req_1", "error": "over capacity"}))
    assert failed.value.provider == "groq"


def test_a_named_error_says_what_the_model_wrote() -> None:
    data = '{"error":{"message":"m","code":"tool_use_failed","failed_generation":"{","status_code":400}}'
    with pytest.raises(Error) as failed:
        get_provider("groq").adapter().receive("error", data)
    assert (failed.value.code, failed.value.reason) == ("invalid_request", "tool_use_failed")
    assert failed.value.details is not None
    assert failed.value.details["failed_generation"] == "{"


def test_executed_tools_are_run_by_the_provider() -> None:
    begun = {"index": 0, "type": "search", "arguments": '{"query":"x"}'}
    ended = {**begun, "output": "found", "search_results": {"results": []}}
    events = read("groq", chunk({"executed_tools": [begun]}), chunk({"executed_tools": [ended]}), chunk(finish="stop"))
    tool = {"id": "executed_0", "name": "search", "status": "started", "input": {"query": "x"}}
    assert between(events) == [
        {"type": "server_tool", "server_tool": tool},
        {"type": "server_tool", "server_tool": {**tool, "status": "completed", "output": "found"}},
    ]


def test_a_citation_may_name_a_document() -> None:
    cited = {"type": "document_citation", "document_citation": {"document_id": "d1", "start_index": 0, "end_index": 4}}
    events = read("groq", chunk({"annotations": [cited]}))
    assert between(events) == [{"type": "citations", "citations": [{"uri": "d1", "start": 0, "end": 4}]}]


def test_a_wait_in_the_message_is_read() -> None:
    body = b'{"error":{"message":"Please try again in 5.289s.","type":"tokens","code":"rate_limit_exceeded"}}'
    assert get_provider("groq").decode_error(429, {}, body).retry_after_ms == 5289


def test_flex_capacity_is_overload() -> None:
    assert get_provider("groq").decode_error(498, {}, b'{"error":{"message":"m"}}').code == "overloaded"


def test_the_path_begins_at_the_host_and_usage_is_not_asked_for() -> None:
    assert request("groq").path == "/openai/v1/chat/completions"
    sent = body("groq", max_tokens=5)
    assert sent["max_completion_tokens"] == 5
    assert "stream_options" not in sent


def test_its_reasoning_goes_back_and_metadata_have_no_place() -> None:
    parts = [{"type": "reasoning", "text": "hm", "provider": "groq"}, {"type": "text", "text": "a"}]
    messages = [{"role": "assistant", "content": parts}]
    sent = json.loads(request("groq", model="openai/gpt-oss-120b", messages=messages).body)["messages"][0]
    assert sent == {"role": "assistant", "content": "a", "reasoning": "hm"}
    signed = [{"type": "reasoning", "signature": "s"}, {"type": "text", "text": "a"}]
    assert "reasoning" not in body("groq", messages=[{"role": "assistant", "content": signed}])["messages"][0]
    with pytest.raises(Unsupported, match="groq does not support `metadata`"):
        request("groq", metadata={"a": "b"})


@pytest.mark.parametrize(
    "model", ["llama-3.3-70b-versatile", "meta-llama/llama-4-scout-17b-16e-instruct", "gemma2-9b-it"]
)
def test_a_model_that_is_not_known_to_think_gets_no_reasoning(model: str) -> None:
    """Groq's API refuses it: "reasoning is not supported with this model"."""
    messages = [{"role": "assistant", "content": [{"type": "reasoning", "text": "hm"}, {"type": "text", "text": "a"}]}]
    assert json.loads(request("groq", model=model, messages=messages).body)["messages"] == [
        {"role": "assistant", "content": "a"}
    ]
    own = {"messages": [{"role": "assistant", "content": "a", "reasoning": "hm"}]}
    sent = json.loads(get_provider("groq").build_passthrough(own, Target(model)).body)
    assert sent["messages"] == [{"role": "assistant", "content": "a"}]


def test_a_configuration_says_that_a_model_thinks() -> None:
    own = {"messages": [{"role": "assistant", "content": "a", "reasoning": "hm"}]}
    target = Target("new-model", corrections={"thinking": ("level",)})
    sent = json.loads(get_provider("groq").build_passthrough(own, target).body)
    assert sent["messages"] == own["messages"]


def test_the_result_of_a_tool_may_hold_an_image() -> None:
    content = [{"type": "text", "text": "a"}, {"type": "image", "url": "https://x"}]
    assert body("groq", messages=[{"role": "tool", "call_id": "c", "content": content}])["messages"][0]["content"] == [
        {"type": "text", "text": "a"},
        {"type": "image_url", "image_url": {"url": "https://x"}},
    ]


@pytest.mark.parametrize(
    ("model", "fields", "reasoning_format", "effort"),
    [
        ("qwen/qwen3-32b", {}, "parsed", None),
        ("qwen/qwen3-32b", {"reasoning": {"effort": "low"}}, "parsed", "default"),
        ("qwen/qwen3-32b", {"reasoning": {"effort": "none"}}, "parsed", "none"),
        ("qwen/qwen3.8-27b", {"reasoning": {"effort": "max"}}, "parsed", "high"),
        ("openai/gpt-oss-120b", {"reasoning": {"effort": "minimal"}}, None, "low"),
        ("llama-3.3-70b-versatile", {}, None, None),
        ("llama-3.3-70b-versatile", {"reasoning": {"effort": "none"}}, None, None),
        ("other", {}, None, None),
        ("other", {"reasoning": {"effort": "high"}}, "parsed", "high"),
    ],
)
def test_reasoning_is_apart_from_the_text_and_its_effort_is_the_models(
    model: str, fields: dict[str, Any], reasoning_format: str | None, effort: str | None
) -> None:
    sent = body("groq", model=model, **fields)
    assert (sent.get("reasoning_format"), sent.get("reasoning_effort")) == (reasoning_format, effort)
    assert "include_reasoning" not in sent


def test_what_a_model_does_not_do_is_refused_by_name() -> None:
    with pytest.raises(Unsupported, match=r"groq does not support `reasoning\.effort`: this model does not think"):
        request("groq", model="llama-3.3-70b-versatile", reasoning={"effort": "high"})
    image = {"role": "user", "content": [{"type": "image", "url": "https://x/y.png"}]}
    with pytest.raises(Unsupported, match=r"`messages\[0\]\.content\[0\]`: this model reads no images"):
        request("groq", model="openai/gpt-oss-120b", messages=[image])
    assert "image_url" in str(body("groq", model="meta-llama/llama-4-scout", messages=[image]))
