"""Text that an upstream sends is read, or the answer fails: for every adapter alike, wherever the text stands."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import pytest

from gai_fast.library.decoding import decode
from gai_fast.providers import get_provider
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
    """Returns the reason of the error that ends a stream; None if it has finished."""
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

    def test_the_metadata_of_a_part_keep_their_names(self) -> None:
        part = {"fileData": {"fileUri": "gs://a"}, "partMetadata": {"user_id": {"a_b": 1}}}
        events = events_of("gemini", {"candidates": [{"content": {"parts": [part]}, "finishReason": "STOP"}]})
        assert [event["block"] for event in events if event["type"] == "provider.block"] == [part]

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


class TestResponses:
    """Names of events of the Realtime API and of other servers, and text in other places of items and answers."""

    BEGIN: ClassVar = {"type": "response.created", "response": {"id": "r", "status": "in_progress", "output": []}}
    AT: ClassVar = {"output_index": 0, "content_index": 0, "item_id": "i"}
    PART: ClassVar = {"type": "output_text", "text": "Hello"}

    def read(self, *chunks: Any, **response: Any) -> list[Any]:
        end = {"id": "r", "status": "completed", "output": [], **response}
        return events_of("openai:responses", self.BEGIN, *chunks, {"type": "response.completed", "response": end})

    @pytest.mark.parametrize("name", ["text", "message", "output", "output_text"])
    @pytest.mark.parametrize("prefix", ["response.", ""])
    def test_text_is_read_under_other_names(self, prefix: str, name: str) -> None:
        kind = f"{prefix}{name}"
        deltas = [{"type": f"{kind}.delta", **self.AT, "delta": text} for text in ("Hel", "lo")]
        done = {"type": f"{kind}.done", **self.AT, "text": "Hello"}
        for chunks in (deltas, [done], [*deltas, done]):
            events = self.read(*chunks)
            assert (said(events), events[-2]["finish_reason"]) == ("Hello", "stop")

    @pytest.mark.parametrize(
        "chunk",
        [
            {"type": "response.delta", "delta": "Hello"},
            {"type": "response.delta", "delta": {"text": "Hello"}},
            {"type": "response.content_part.delta", "delta": {"type": "text_delta", "text": "Hello"}},
            {"type": "response.output_item.delta", "delta": "Hello"},
            {"type": "response.output_text.delta", "delta": {"value": "Hello"}},
            {"type": "response.output_text.delta", "text": "Hello"},
            {"type": "response.audio_transcript.delta", "delta": "Hello"},
            {"type": "response.output_audio_transcript.delta", "delta": "Hello"},
            {"type": "response.content_part.added", "part": PART},
            {"type": "response.output_item.added", "item": {"type": "message", "content": [PART]}},
            {"type": "response.output_item.done", "item": {"type": "text", "text": "Hello"}},
            {"type": "response.output_item.done", "item": {"type": "message", "text": "Hello"}},
            {"type": "response.output_item.done", "item": {"type": "message", "content": PART}},
            {"type": "response.output_item.done", "item": {"type": "new", "role": "assistant", "content": "Hello"}},
        ],
        ids=json.dumps,
    )
    def test_text_is_read_in_other_places(self, chunk: dict[str, Any]) -> None:
        assert said(self.read(chunk)) == "Hello"
        assert said(self.read({**self.AT, **chunk})) == "Hello"

    @pytest.mark.parametrize("name", ["reasoning", "reasoning_content", "thinking", "reasoning_summary"])
    def test_reasoning_is_read_under_other_names_and_an_object_only_if_nothing_else_has_it(self, name: str) -> None:
        def thought(*deltas: Any) -> str:
            chunks = [{"type": f"response.{name}.delta", **self.AT, "delta": delta} for delta in deltas]
            return said(self.read(*chunks), "reasoning.delta")

        assert (
            thought("H", "m") == thought({"text": "H"}, {"text": "m"}) == thought({"text": "H"}, {"text": "Hm"}) == "Hm"
        )

    def test_a_text_in_two_types_of_events_is_sent_once(self) -> None:
        chunks = [
            {"type": f"response.{name}.delta", **self.AT, "delta": text}
            for text in ("Hel", "lo")
            for name in ("output_text", "text")
        ]
        assert said(self.read(*chunks)) == "Hello"

    def test_an_item_that_is_numbered_again_at_its_end_is_sent_once(self) -> None:
        delta = {"type": "response.output_text.delta", **self.AT, "delta": "Hello"}
        item = {"type": "message", "id": "i", "content": [self.PART]}
        done = {"type": "response.output_item.done", "output_index": 1, "item": item}
        assert said(self.read(delta, done)) == said(self.read(delta, done, output=[item])) == "Hello"

    def test_an_item_that_has_a_number_and_an_id_only_at_its_end_is_sent_once(self) -> None:
        delta = {"type": "response.output_text.delta", "delta": "Hello"}
        done = [
            {"type": "response.output_text.done", **self.AT, "text": "Hello"},
            {"type": "response.content_part.done", **self.AT, "part": self.PART},
            {"type": "response.output_item.done", **self.AT, "item": {"type": "message", "content": [self.PART]}},
        ]
        for chunks in ([delta, *done], [delta, done[2]], [delta, *done, delta]):
            assert said(self.read(*chunks)) == "Hello" * chunks.count(delta)

    @pytest.mark.parametrize("item", [{"type": "reasoning"}, {"type": "function_call", "name": "f", "arguments": "{}"}])
    def test_a_role_makes_no_text_of_an_item_of_another_type(self, item: dict[str, Any]) -> None:
        parts = [{"type": "reasoning_text", "text": "Hm"}] if item["type"] == "reasoning" else None
        whole = {**item, "id": "i", "role": "assistant", "content": parts}
        done = {"type": "response.output_item.done", **self.AT, "item": whole}
        thought = {"type": "response.reasoning_text.delta", **self.AT, "delta": "Hm"}
        for chunks in ([thought, done], [done]) if parts else ([done],):
            events = self.read(*chunks, output=[whole])
            assert said(events, "reasoning.delta") == ("Hm" if parts else "")
            assert [event["tool_call"]["name"] for event in events if event["type"] == "tool.call"] == (
                [] if parts else ["f"]
            )

    @pytest.mark.parametrize("kind", ["text", "output_text"])
    def test_an_announced_item_of_text_is_no_tool(self, kind: str) -> None:
        item = {"type": "response.output_item.added", **self.AT, "item": {"type": kind, "id": "i"}}
        delta = {"type": "response.output_text.delta", **self.AT, "delta": "Hello"}
        assert [event["type"] for event in self.read(item, delta)] == ["start", "text.delta", "finish", "done"]

    def test_an_announced_text_is_not_sent_again_with_the_text_beside_the_output(self) -> None:
        part = {"type": "response.content_part.added", **self.AT, "part": self.PART}
        assert said(self.read(part, output_text="Hello")) == "Hello"

    @pytest.mark.parametrize("deltas", [["Hel"], ["H", "e", "l"]])
    @pytest.mark.parametrize("end", ["output_text", "content_part", "output_item", "completed"])
    def test_the_end_of_a_whole_text_that_no_delta_carried_is_sent(self, end: str, deltas: list[str]) -> None:
        """vercel/ai#13836, Wei-Shaw/sub2api#6925: deltas stop before the end of the text."""
        item = {"type": "message", "id": "i", "content": [self.PART]}
        done = {
            "output_text": [{"type": "response.output_text.done", **self.AT, "text": "Hello"}],
            "content_part": [{"type": "response.content_part.done", **self.AT, "part": self.PART}],
            "output_item": [{"type": "response.output_item.done", **self.AT, "item": item}],
        }.get(end, [])
        chunks = [
            {"type": "response.output_text.delta", **self.AT, "delta": delta, "logprobs": [{}]} for delta in deltas
        ]
        for output in ([item], [] if done else [item]):
            assert said(self.read(*chunks, *done, output=output)) == "Hello"

    @pytest.mark.parametrize("whole", ["Hel", "He", "HxlloHello", "hello", "Jello Hello"])
    @pytest.mark.parametrize("beside", [{}, {"logprobs": [{}]}], ids=["copied", "read"])
    def test_a_whole_text_that_is_another_one_adds_nothing(self, whole: str, beside: dict[str, Any]) -> None:
        delta = {"type": "response.output_text.delta", **self.AT, **beside}
        chunks = [{**delta, "delta": text} for text in ("H", "e", "l")]
        done = {"type": "response.output_text.done", **self.AT, "text": whole}
        assert said(self.read(*chunks, done)) == "Hel"

    @pytest.mark.parametrize("announced", ["Hel", "Hello", ""])
    def test_the_text_of_an_announced_part_comes_before_its_deltas(self, announced: str) -> None:
        part = {"type": "response.content_part.added", **self.AT, "part": {**self.PART, "text": announced}}
        item = {"type": "response.output_item.added", **self.AT, "item": {"type": "message", "id": "i"}}
        item["item"]["content"] = [part["part"]]
        delta = {"type": "response.output_text.delta", **self.AT, "delta": "lo" if announced == "Hel" else "Hello"}
        done = {"type": "response.output_text.done", **self.AT, "text": "Hello"}
        for chunks in ([part, delta], [item, part, delta], [part, delta, done], [item, part, done], [part, done]):
            assert said(self.read(*chunks)) == "Hello"
            assert said(self.read(*chunks, output=[{"type": "message", "id": "i", "content": [self.PART]}])) == "Hello"

    @pytest.mark.parametrize(
        "response",
        [
            {"output": [], "output_text": "Hello"},
            {"output": None, "output_text": "Hello"},
            {"output": "Hello"},
            {"output": ["Hello"]},
            {"output": {"type": "message", "content": [PART]}},
            {"output": [{"type": "message", "content": [{"type": "output_text", "content": "Hello"}]}]},
            {"output": [{"type": "message", "content": [{"type": "output_text", "text": {"value": "Hello"}}]}]},
        ],
        ids=json.dumps,
    )
    def test_a_whole_answer_has_its_text_in_other_places(self, response: dict[str, Any]) -> None:
        delta = {"type": "response.output_text.delta", **self.AT, "delta": "Hello"}
        whole = {"id": "r", "object": "response", "status": "completed", **response}
        assert said(self.read(**response)) == "Hello"
        assert said(self.read(delta, **response)) == "Hello"
        assert said(events_of("openai:responses", whole)) == "Hello"
        assert said(events_of("openai:responses", {"type": "response.completed", **whole})) == "Hello"
        for body in (whole, {"response": whole}):
            assert said(list(decode("openai:responses", [json.dumps(body).encode()]))) == "Hello"


def choice(finish: str | None = None, **members: Any) -> dict[str, Any]:
    return {"id": "c", "model": "m", "choices": [{"index": 0, **members, "finish_reason": finish}]}


CHAT = [name for name in PROVIDERS if dialect(name) == "chat"]


class TestChat:
    """Text in other members of a choice, and streams of messages in place of deltas."""

    @pytest.mark.parametrize("beside", [{}, {"delta": {}}, {"delta": {"role": "assistant", "content": ""}}])
    @pytest.mark.parametrize("place", ["text", "content"])
    def test_text_beside_an_empty_delta_is_read(self, place: str, beside: dict[str, Any]) -> None:
        chunks = [choice(**{place: text}, **beside) for text in ("Hel", "lo")]
        for provider in CHAT:
            assert said(events_of(provider, *chunks, choice("stop", **beside), "[DONE]")) == "Hello", provider

    @pytest.mark.parametrize(
        "delta",
        [
            {"output_text": "Hello"},
            {"value": "Hello"},
            {"parts": [{"text": "Hello"}]},
            {"message": "Hello"},
            {"message": {"content": "Hello"}},
            {"content": "", "message": {"content": "Hello"}},
            {"content": [{"type": "text", "text": "Hel"}, "lo"]},
            {"content": [{"type": "text", "content": "Hello"}]},
            {"content": [{"type": "text", "text": {"value": "Hello"}}]},
            {"content": {"type": "text", "text": "Hello"}},
        ],
        ids=json.dumps,
    )
    def test_text_under_another_name_is_read(self, delta: dict[str, Any]) -> None:
        for provider in CHAT:
            assert said(events_of(provider, choice(delta=delta), choice("stop", delta={}), "[DONE]")) == "Hello", (
                provider
            )
            body = json.dumps(choice("stop", message=delta)).encode()
            assert said(list(decode(provider, [body]))) == "Hello", provider

    @pytest.mark.parametrize(
        "thought",
        [
            {"thinking": "Hm"},
            {"reasoning_text": "Hm"},
            {"thought": "Hm"},
            {"reasoning": {"content": "Hm"}},
            {"reasoning_content": [{"text": "Hm"}]},
            {"thinking_blocks": [{"type": "thinking", "thinking": "Hm", "signature": "s"}]},
        ],
        ids=json.dumps,
    )
    def test_reasoning_under_another_name_is_read(self, thought: dict[str, Any]) -> None:
        events = events_of(
            "openai-compatible", choice(delta=thought), choice("stop", delta={"content": "Hi"}), "[DONE]"
        )
        assert (said(events, "reasoning.delta"), said(events)) == ("Hm", "Hi")

    @pytest.mark.parametrize(
        "texts",
        [["Hello"], ["Hel", "lo"], ["Hel", "Hello"], ["", "Hel", "lo"], ["Hel", "Hello", "Hello"], ["H", "ell", "o"]],
    )
    @pytest.mark.parametrize("last", [[], [""], ["Hello"]], ids=["alone", "empty", "whole"])
    def test_messages_in_place_of_deltas_are_read_once(self, texts: list[str], last: list[str]) -> None:
        messages = [choice(message={"role": "assistant", "content": text}) for text in texts]
        end = [choice("stop", message={"content": text}) for text in last] or [choice("stop")]
        for provider in CHAT:
            assert said(events_of(provider, *messages, *end, "[DONE]")) == "Hello", provider

    def test_an_empty_message_amid_others_costs_nothing(self) -> None:
        messages = [choice(message={"content": text}) for text in ("Hi", "", " there, friend")]
        for last in ("", "Hi there, friend"):
            end = choice("stop", message={"content": last})
            assert said(events_of("openai-compatible", *messages, end, "[DONE]")) == "Hi there, friend"

    def test_messages_that_are_alike_are_different_texts(self) -> None:
        messages = [choice(message={"content": "ha"}) for _ in range(3)]
        assert said(events_of("openai-compatible", *messages, choice("stop"), "[DONE]")) == "hahaha"

    def test_a_message_behind_deltas_repeats_them(self) -> None:
        deltas = [choice(delta={"content": text}) for text in ("", "Hel", "lo")]
        for finish in ("stop", None):
            for message in ({"content": "Hello"}, "Hello"):
                whole = choice(finish, delta={}, message=message)
                assert said(events_of("openai-compatible", *deltas, whole, choice("stop"), "[DONE]")) == "Hello"

    @pytest.mark.parametrize("indices", [(1, 1, 1), (1, 2, 3), (1, 1, 0)])
    def test_the_only_choice_may_have_any_index(self, indices: tuple[int, ...]) -> None:
        """text-generation-inference#1648 counts the tokens, from 1."""
        deltas: list[dict[str, Any]] = [{"content": "Hel"}, {"content": "lo"}, {}]
        chunks = [choice("stop" if not delta else None, delta=delta) for delta in deltas]
        for each, index in zip(chunks, indices, strict=True):
            each["choices"][0]["index"] = index
        for provider in CHAT:
            api = get_provider(provider)
            for wanted in (1, 2):
                adapter = api.adapter_for({"n": wanted}, "m")
                events = [event for each in chunks for event in adapter.receive("", json.dumps(each))]
                texts = [(event.get("choice", 0), event["text"]) for event in events if event["type"] == "text.delta"]
                expected = [(0, "Hel"), (0, "lo")] if wanted == 1 else [(indices[0], "Hel"), (indices[1], "lo")]
                assert texts == expected, provider
                assert wanted == 2 or (adapter.is_complete and adapter.finish()[-1]["finish_reason"] == "stop")

    @pytest.mark.parametrize(
        "deltas",
        [
            [{"role": "assistant", "content": "Hel"}, {"role": "assistant", "content": "lo"}, {}],
            [{"role": "assistant", "content": ""}, {"content": "Hel"}, {"content": "lo"}, {}],
            [{"role": "assistant", "content": "Hello"}, {}],
        ],
    )
    def test_the_index_of_the_only_choice_may_count_the_chunks(self, deltas: list[dict[str, Any]]) -> None:
        """microsoft/foundry-local#263. Choices that take turns stay apart, also if the request asks for one."""
        adapter = get_provider("openai-compatible").adapter_for({}, "m")
        events = []
        for at, delta in enumerate(deltas):
            chunk = {"choices": [{"index": at, "delta": delta, "finish_reason": None if delta else "stop"}]}
            events += adapter.receive("", json.dumps(chunk))
        assert adapter.is_complete
        assert said(events) == "Hello"
        assert not any("choice" in event for event in events)
        assert adapter.finish()[-1]["finish_reason"] == "stop"

    @pytest.mark.parametrize(
        "begun",
        [
            [(0, {"content": "Hel", "role": "assistant"}), (1, {"content": "Ho"})],
            [(0, {"content": "", "role": "assistant"}), (1, {"content": "", "role": "assistant"})],
        ],
    )
    def test_choices_that_take_turns_stay_apart(self, begun: list[tuple[int, dict[str, Any]]]) -> None:
        adapter = get_provider("openai-compatible").adapter_for({}, "m")
        for index, delta in begun:
            adapter.receive("", json.dumps({"choices": [{"index": index, "delta": delta}]}))
        events = adapter.receive("", '{"choices": [{"index": 1, "delta": {"content": "Hi"}}]}')
        assert [event.get("choice") for event in events if event["type"] == "text.delta"] == [1]

    @pytest.mark.parametrize("place", ["text", "content", "delta", "messages"])
    def test_a_whole_answer_has_its_message_elsewhere(self, place: str) -> None:
        content: dict[str, Any] = {"role": "assistant", "content": "Hello"}
        value = {"delta": content, "messages": [content]}.get(place, "Hello")
        for beside in ({}, {"message": {"role": "assistant", "content": None}}):
            body = json.dumps(choice("stop", **{place: value}, **beside)).encode()
            assert said(list(decode("openai-compatible", [body]))) == "Hello"

    @pytest.mark.parametrize(
        "place", [{"delta": {"content": "Hello"}}, {"message": {"content": "Hello"}}, {"content": "Hello"}]
    )
    def test_legacy_completions_have_the_text_of_chat(self, place: dict[str, Any]) -> None:
        assert said(events_of("openai:completions", choice(**place), choice("stop", text=""), "[DONE]")) == "Hello"
        assert said(list(decode("openai:completions", [json.dumps(choice("stop", **place)).encode()]))) == "Hello"


class TestAnthropic:
    """Blocks in events of the message itself, and deltas in other dialects' words."""

    START: ClassVar = {"type": "message_start", "message": {"id": "m", "model": "c", "content": []}}
    BLOCK: ClassVar = {"type": "text", "text": "Hello"}
    END: ClassVar = [{"type": "message_delta", "delta": {"stop_reason": "end_turn"}}, {"type": "message_stop"}]

    @pytest.mark.parametrize(
        "chunk",
        [
            {"delta": {"type": "text_delta", "content": "Hello"}},
            {"delta": {"type": "output_text_delta", "delta": "Hello"}},
            {"delta": {"content": "Hello"}},
            {"delta": {"type": "new", "text": "Hello"}},
            {"delta": "Hello"},
            {"text": "Hello"},
        ],
        ids=json.dumps,
    )
    def test_a_delta_has_its_text_anywhere(self, chunk: dict[str, Any]) -> None:
        events = events_of("anthropic", self.START, {"type": "content_block_delta", "index": 0, **chunk}, *self.END)
        assert (said(events), events[-2]["finish_reason"]) == ("Hello", "stop")

    @pytest.mark.parametrize(
        "delta",
        [{"type": "thinking_delta", "text": "Hm"}, {"type": "reasoning_delta", "reasoning": "Hm"}],
        ids=json.dumps,
    )
    def test_a_delta_has_its_reasoning_anywhere(self, delta: dict[str, Any]) -> None:
        chunk = {"type": "content_block_delta", "index": 0, "delta": delta}
        assert said(events_of("anthropic", self.START, chunk, *self.END), "reasoning.delta") == "Hm"

    @pytest.mark.parametrize(
        "chunk",
        [
            {"type": "message_start", "message": {"content": [BLOCK]}},
            {"type": "message_start", "message": {"content": "Hello"}},
            {"type": "message_delta", "delta": {"content": [BLOCK]}},
            {"type": "message_delta", "delta": {"text": "Hello"}},
            {"type": "message", "content": [BLOCK], "stop_reason": "end_turn"},
        ],
        ids=json.dumps,
    )
    def test_blocks_of_the_message_itself_are_read_unless_events_of_blocks_have_come(
        self, chunk: dict[str, Any]
    ) -> None:
        assert said(events_of("anthropic", chunk, *self.END)) == "Hello"
        block = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}}
        if chunk["type"] != "message":
            assert said(events_of("anthropic", chunk, block, *self.END)) == "Hello"
        assert said(events_of("anthropic", block, chunk, *self.END)) == "Hello"

    def test_the_whole_message_may_be_the_last_event(self) -> None:
        delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}}
        usage = {"input_tokens": 1, "output_tokens": 2}
        whole = {"type": "message", "content": [self.BLOCK], "stop_reason": "end_turn", "usage": usage}
        events = events_of("anthropic", self.START, delta, whole)
        assert (said(events), events[-2]["finish_reason"]) == ("Hello", "stop")
        assert events[-2]["usage"]["total_tokens"] == 3

    def test_the_last_event_may_have_the_message(self) -> None:
        stop = {"type": "message_stop", "message": {"content": [self.BLOCK]}}
        assert said(events_of("anthropic", self.START, self.END[0], stop)) == "Hello"

    @pytest.mark.parametrize(
        "content",
        ["Hello", ["Hello"], BLOCK, [{"type": "text", "content": "Hello"}], [{**BLOCK, "type": "output_text"}]],
        ids=json.dumps,
    )
    def test_a_whole_answer_has_its_text_anywhere(self, content: Any) -> None:
        message = {"id": "m", "type": "message", "content": content, "stop_reason": "end_turn"}
        for body in (message, {"message": message}):
            events = list(decode("anthropic", [json.dumps(body).encode()]))
            assert (said(events), events[-2]["finish_reason"]) == ("Hello", "stop")


class TestOllama:
    """Text in a list of parts or under another name, and an end that is a word."""

    @pytest.mark.parametrize(
        "chunk",
        [
            {"content": "Hello"},
            {"message": {"text": "Hello"}},
            {"message": {"content": [{"type": "text", "text": "Hel"}, "lo"]}},
            {"message": {"content": ""}, "response": "Hello"},
        ],
        ids=json.dumps,
    )
    def test_text_is_read_in_other_places(self, chunk: dict[str, Any]) -> None:
        for provider in ("ollama", "ollama:generate"):
            for end in (True, "true"):
                events = events_of(provider, {"model": "m", **chunk, "done": False}, {"done": end})
                assert said(events) == "Hello"
                assert events[-2]["type"] == "finish"

    @pytest.mark.parametrize("name", ["thinking", "reasoning", "reasoning_content"])
    def test_reasoning_is_read_under_other_names(self, name: str) -> None:
        chunk = {"model": "m", "message": {name: "Hm", "content": "Hi"}, "done": False}
        assert said(events_of("ollama", chunk, {"done": True}), "reasoning.delta") == "Hm"
