"""Text that an upstream sends is read, or the answer fails: for every adapter alike, wherever the text stands."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import pytest

from gai_fast.library.decoding import decode
from tests.unit.providers.upstreams import PROVIDERS, dialect, end_mark, ending, frames, opening

UNKNOWN: list[dict[str, Any]] = [
    {"generated_text": "Hello"},
    {"answer": {"text": "Hello"}},
    {"event": "token", "data": {"content": "Hello"}},
    {"type": "response.new", "new": {"text": "Hello"}},
    {"answer": ["Hello"]},
]
"""Chunks with text in members that no adapter knows."""


def said(events: list[Any], kind: str = "text.delta") -> str:
    return "".join(event["text"] for event in events if event["type"] == kind)


def events_of(provider: str, *chunks: Any) -> list[Any]:
    return list(decode(provider, frames(provider, list(chunks))))


def reason_of(events: list[Any]) -> str | None:
    """The reason of the error that ends a stream; None if it has finished."""
    error = events[-2].get("error")
    return None if error is None else error.get("reason")


@pytest.mark.parametrize("chunk", UNKNOWN, ids=json.dumps)
@pytest.mark.parametrize("provider", PROVIDERS)
def test_an_answer_whose_only_text_is_in_unknown_members_is_no_success(provider: str, chunk: dict[str, Any]) -> None:
    events = events_of(provider, chunk, *ending(provider, "stop"), *end_mark(provider))
    assert [event["type"] for event in events if event["type"] in ("text.delta", "finish")] == []
    assert reason_of(events) == "malformed_chunk"


@pytest.mark.parametrize("chunk", UNKNOWN, ids=json.dumps)
@pytest.mark.parametrize("provider", PROVIDERS)
def test_unknown_members_beside_a_text_cost_nothing(provider: str, chunk: dict[str, Any]) -> None:
    events = events_of(provider, *opening(provider), chunk, *ending(provider, "stop"), *end_mark(provider))
    assert said(events) == "Hi"
    assert reason_of(events) is None


@pytest.mark.parametrize(
    "aside",
    [
        {"tools": [{"description": "d", "parameters": {"text": "a"}}], "instructions": "b", "input": [{"text": "c"}]},
        {"metadata": {"answer": "a"}, "usage": {"text": "b"}, "text": {"format": {"type": "text", "content": "c"}}},
        {"content": " \n", "text": None, "response": []},
    ],
    ids=json.dumps,
)
@pytest.mark.parametrize("provider", [name for name in PROVIDERS if dialect(name) in ("chat", "responses", "gemini")])
def test_an_answer_that_repeats_its_request_and_says_nothing_stays_empty(provider: str, aside: dict[str, Any]) -> None:
    end = ending(provider, "stop")
    place = end[0]["response"] if "response" in end[0] else end[0]
    place |= aside
    assert reason_of(events_of(provider, *end, *end_mark(provider))) is None


def test_a_whole_answer_whose_text_is_in_unknown_members_is_no_success() -> None:
    answers = {
        "openai-compatible": {"choices": [{"message": {"said": {"text": "Hello"}}, "finish_reason": "stop"}]},
        "openai:responses": {"object": "response", "status": "completed", "output": [{"said": {"text": "Hello"}}]},
        "anthropic": {"type": "message", "content": [], "said": {"text": "Hello"}, "stop_reason": "end_turn"},
        "cohere": {"message": {"said": {"text": "Hello"}}, "finish_reason": "COMPLETE"},
    }
    for provider, answer in answers.items():
        assert reason_of(list(decode(provider, [json.dumps(answer).encode()]))) == "malformed_chunk", provider


class TestGemini:
    """PaLM's form, names of members as in Google's Python SDK, and what proxies in front of Gemini send."""

    @pytest.mark.parametrize(
        "candidate",
        [
            {"output": "Hello"},
            {"text": "Hello"},
            {"content": "Hello"},
            {"content": {"text": "Hello"}},
            {"content": ["Hel", {"text": "lo"}]},
            {"content": {"parts": "Hello"}},
            {"content": {"parts": {"text": "Hello"}}},
            {"content": {"parts": ["Hello"]}},
            {"content": {"parts": []}, "parts": [{"text": "Hello"}]},
            {"message": {"content": "Hello"}},
        ],
        ids=json.dumps,
    )
    def test_text_is_read_where_compatible_servers_put_it(self, candidate: dict[str, Any]) -> None:
        events = events_of("gemini", {"candidates": [{**candidate, "finishReason": "STOP"}]})
        assert (said(events), events[-2]["finish_reason"]) == ("Hello", "stop")
        assert said(events_of("gemini", {"candidates": {**candidate, "finishReason": "STOP"}})) == "Hello"

    def test_names_with_underscores_are_googles(self) -> None:
        parts = [
            {"text": "Hm", "thought": True, "thought_signature": "c2ln"},
            {"text": "Hello"},
            {"inline_data": {"mime_type": "image/png", "data": "aGk="}},
            {"function_call": {"name": "f", "args": {"file_name": 12345678901234567890123}}},
        ]
        chunk = {
            "candidates": [
                {
                    "content": {"parts": parts},
                    "finish_reason": "STOP",
                    "safety_ratings": [{"category": "HARM", "probability": "HIGH"}],
                    "grounding_metadata": {"grounding_chunks": [{"web": {"uri": "http://a", "title": "t"}}]},
                }
            ],
            "usage_metadata": {"prompt_token_count": 1, "candidates_token_count": 2, "total_token_count": 3},
            "model_version": "m",
            "response_id": "r",
        }
        for each in (chunk, {"response": chunk}):
            events = events_of("gemini", each)
            assert (said(events), said(events, "reasoning.delta")) == ("Hello", "Hm")
            kinds = {event["type"] for event in events}
            assert {"image", "reasoning.signature", "tool.call", "safety", "citations"} <= kinds
            assert events[0]["model"] == "m"
            assert events[0]["provider_metadata"] == {"id": "r"}
            assert events[-2]["usage"]["total_tokens"] == 3
        calls = [event for event in events_of("gemini", chunk) if event["type"] == "tool.call"]
        assert [call["tool_call"]["input"] for call in calls] == [{"file_name": 12345678901234567890123}]

    def test_a_blocked_prompt_is_one_in_either_spelling(self) -> None:
        events = events_of("gemini", {"prompt_feedback": {"block_reason": "SAFETY"}})
        assert events[-2]["error"]["code"] == "content_filtered"

    def test_a_thought_that_is_a_text_is_reasoning(self) -> None:
        parts = [{"thought": "Hm"}, {"text": "Hello"}]
        events = events_of("gemini", {"candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}]})
        assert (said(events), said(events, "reasoning.delta")) == ("Hello", "Hm")


class TestCohere:
    """Events of version 1, and text outside its block."""

    BEGIN: ClassVar = {"type": "message-start", "id": "c"}
    END: ClassVar = {"type": "message-end", "delta": {"finish_reason": "COMPLETE"}}

    @pytest.mark.parametrize(
        "delta",
        [
            {"delta": {"text": "Hello"}},
            {"delta": {"content": "Hello"}},
            {"delta": {"content": {"text": "Hello"}}},
            {"delta": {"message": "Hello"}},
            {"delta": {"message": {"text": "Hello"}}},
            {"delta": {"message": {"content": "Hello"}}},
            {"delta": {"message": {"content": [{"type": "text", "text": "Hel"}, {"text": "lo"}]}}},
            {"delta": "Hello"},
            {"text": "Hello"},
            {"content": {"text": "Hello"}},
            {"message": {"content": {"text": "Hello"}}},
        ],
        ids=json.dumps,
    )
    @pytest.mark.parametrize("kind", ["content-delta", "content_delta", "content-start"])
    def test_a_delta_has_its_text_anywhere(self, kind: str, delta: dict[str, Any]) -> None:
        events = events_of("cohere", self.BEGIN, {"type": kind, "index": 0, **delta}, self.END)
        assert (said(events), events[-2]["finish_reason"]) == ("Hello", "stop")

    def test_events_of_version_1_are_read_and_the_last_doubles_nothing(self) -> None:
        begin, text = {"event_type": "stream-start", "generation_id": "g"}, {"event_type": "text-generation"}
        whole = {"text": "Hello", "meta": {"tokens": {"input_tokens": 1, "output_tokens": 2}}}
        end = {"event_type": "stream-end", "finish_reason": "COMPLETE", "response": whole}
        streamed = events_of("cohere", begin, {**text, "text": "Hel"}, {**text, "text": "lo"}, end)
        for events in (streamed, events_of("cohere", begin, end)):
            assert (said(events), events[-2]["finish_reason"]) == ("Hello", "stop")
            assert events[-2]["usage"]["total_tokens"] == 3
        called = {"event_type": "tool-calls-generation", "tool_calls": [{"name": "f", "parameters": {"a": 1}}]}
        calls = [event for event in events_of("cohere", begin, called, end) if event["type"] == "tool.call"]
        assert [(call["tool_call"]["name"], call["tool_call"]["input"]) for call in calls] == [("f", {"a": 1})]

    @pytest.mark.parametrize(
        "answer",
        [
            {"text": "Hello"},
            {"message": {"content": "Hello"}},
            {"message": {"content": ["Hello"]}},
            {"message": {"content": {"type": "text", "text": "Hello"}}},
            {"message": {"text": "Hello"}},
            {"message": {}, "text": "Hello"},
        ],
        ids=json.dumps,
    )
    def test_a_whole_answer_has_its_text_anywhere(self, answer: dict[str, Any]) -> None:
        body = json.dumps({**answer, "finish_reason": "COMPLETE"}).encode()
        assert said(list(decode("cohere", [body]))) == "Hello"
