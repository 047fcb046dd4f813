"""Answers of the chat dialect, and what providers do differently in them."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gai_fast.core.json.chunks import parse_chunk
from gai_fast.model.errors import Error, Malformed
from gai_fast.model.events import Event
from gai_fast.providers import PROVIDERS, Adapter, get_provider, provider_names
from gai_fast.providers.chat.answers import ChatAdapter
from tests.limits import LIMITS
from tests.unit.providers.answer_reading import (
    between,
    call,
    calls_of,
    chunk,
    of_type,
    plain,
    read,
    read_whole,
    text_of,
)

# DeepSeek adds nothing to how the dialect is read; what it refuses is in its own test.
DIALECT = "deepseek"


class TestText:
    def test_deltas_become_events_between_start_and_finish(self) -> None:
        events = read(
            DIALECT, chunk({"role": "assistant", "content": ""}), chunk({"content": "Hi"}), chunk(finish="stop")
        )
        assert events == [
            {"type": "start", "provider": DIALECT, "model": "m1", "provider_metadata": {"id": "c1"}},
            {"type": "text.delta", "text": "Hi"},
            {
                "type": "finish",
                "provider": DIALECT,
                "model": "m1",
                "finish_reason": "stop",
                "finish_reason_raw": "stop",
            },
        ]

    def test_refusal_and_reasoning_have_events_of_their_own(self) -> None:
        events = read(DIALECT, chunk({"reasoning_content": "hm", "content": None}), chunk({"refusal": "no"}))
        assert between(events) == [{"type": "reasoning.delta", "text": "hm"}, {"type": "refusal.delta", "text": "no"}]

    def test_reasoning_goes_before_the_text_of_the_same_chunk(self) -> None:
        events = read(DIALECT, chunk({"content": "b", "reasoning": "a"}))
        assert [event["text"] for event in between(events)] == ["a", "b"]

    def test_reasoning_that_is_said_under_two_names_counts_once(self) -> None:
        details = [{"type": "reasoning.text", "text": "hm", "index": 0}]
        delta = {"reasoning_content": "hm", "reasoning": "hm", "reasoning_details": details}
        assert text_of(read(DIALECT, chunk(delta)), "reasoning.delta") == "hm"

    def test_reasoning_details_are_read_where_they_say_more(self) -> None:
        details = [
            {"type": "reasoning.summary", "summary": "hm", "index": 0},
            {"type": "reasoning.text", "text": "", "signature": "s1", "index": 0},
            {"type": "reasoning.encrypted", "data": "s2", "index": 1},
            {"type": "reasoning.encrypted", "data": "s3"},
            {"type": "reasoning.text", "text": ""},
        ]
        assert between(read(DIALECT, chunk({"reasoning_details": details}))) == [
            {"type": "reasoning.delta", "text": "hm"},
            {"type": "reasoning.signature", "block": 0, "signature": "s1"},
            {"type": "reasoning.signature", "block": 1, "signature": "s2"},
            {"type": "reasoning.signature", "signature": "s3"},
        ]

    @pytest.mark.parametrize("reasoning", [{}, {"reasoning_content": ""}, {"reasoning_content": None}])
    def test_blocks_of_litellm_repeat_the_reasoning_and_add_its_signature(self, reasoning: dict[str, Any]) -> None:
        def blocks(text: str, signature: str | None = None) -> dict[str, Any]:
            return {"thinking_blocks": [{"type": "thinking", "thinking": text, "signature": signature}]}

        for last in ("", "hmm"):
            events = read(
                "openai-compatible",
                chunk({"reasoning_content": "h", **blocks("h")}),
                chunk({"reasoning_content": "mm", **blocks("mm")}),
                chunk({**reasoning, **blocks(last, "s")}),
            )
            assert between(events) == [
                {"type": "reasoning.delta", "text": "h"},
                {"type": "reasoning.delta", "text": "mm"},
                {"type": "reasoning.signature", "signature": "s"},
            ]
        alone = read("openai-compatible", chunk(blocks("h")), chunk(blocks("mm", "s")))
        assert (text_of(alone, "reasoning.delta"), len(of_type(alone, "reasoning.signature"))) == ("hmm", 1)

    @pytest.mark.parametrize("others", [{}, {"reasoning_content": "ab"}])
    def test_each_signature_of_litellm_stands_behind_the_text_of_its_block(self, others: dict[str, Any]) -> None:
        """Anthropic refuses the next request if a block has the text of another one."""
        blocks = [{"type": "thinking", "thinking": text, "signature": text.upper()} for text in "ab"]
        message = {"content": "Hi", **others, "thinking_blocks": blocks}
        answer = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
        assert between(read_whole("openai-compatible", answer)) == [
            {"type": "reasoning.delta", "text": "a"},
            {"type": "reasoning.signature", "signature": "A"},
            {"type": "reasoning.delta", "text": "b"},
            {"type": "reasoning.signature", "signature": "B"},
            {"type": "text.delta", "text": "Hi"},
        ]

    def test_a_whole_answer_of_litellm_keeps_its_signatures(self) -> None:
        blocks = [
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "redacted_thinking", "data": "d"},
        ]
        message = {"content": "Hi", "reasoning_content": "hm", "thinking_blocks": blocks}
        answer = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
        assert between(read_whole("openai-compatible", answer)) == [
            {"type": "reasoning.delta", "text": "hm"},
            {"type": "reasoning.signature", "signature": "s"},
            {"type": "reasoning.signature", "signature": "d", "redacted": True},
            {"type": "text.delta", "text": "Hi"},
        ]

    def test_content_may_be_a_list_of_parts(self) -> None:
        parts = [
            {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}], "signature": "s"},
            {"type": "thinking", "thinking": "so"},
            {"type": "thinking", "thinking": []},
            {"type": "text", "text": "a"},
            "b",
            {"type": "refusal", "refusal": "no"},
            {"type": "unheard_of", "text": "c"},
        ]
        assert between(read(DIALECT, chunk({"content": parts}))) == [
            {"type": "reasoning.delta", "text": "hm"},
            {"type": "reasoning.signature", "signature": "s"},
            {"type": "reasoning.delta", "text": "so"},
            {"type": "text.delta", "text": "a"},
            {"type": "text.delta", "text": "b"},
            {"type": "refusal.delta", "text": "no"},
            {"type": "text.delta", "text": "c"},
        ]

    def test_the_id_of_audio_is_its_callers(self) -> None:
        adapter = get_provider(DIALECT).adapter()
        adapter.receive("", json.dumps(chunk({"audio": {"id": "audio_1", "data": "AAAA"}})))
        adapter.receive("", json.dumps(chunk({"audio": {"id": None, "data": "AAAA"}})))
        assert adapter.stored_ids == ["audio_1"]

    def test_audio_has_its_transcript_as_text(self) -> None:
        deltas = [{"id": "a", "transcript": "Hi"}, {"data": "AAAA"}, {"expires_at": 1}]
        assert between(read(DIALECT, *(chunk({"audio": delta}) for delta in deltas))) == [
            {"type": "text.delta", "text": "Hi"},
            {"type": "audio.delta", "audio": {"chunk": "AAAA", "format": "pcm16"}},
        ]

    def test_annotations_are_citations_in_each_of_their_shapes(self) -> None:
        annotations = [
            {"type": "url_citation", "url_citation": {"url": "u1", "title": "t1", "start_index": 0, "end_index": 3}},
            {"type": "url_citation", "url": "u2", "title": "", "start_index": 0, "end_index": 0},
            {"type": "file_citation", "file_citation": {"file_id": "f", "filename": "a.txt"}},
            {"type": "unheard_of", "x": 1},
        ]
        assert between(read(DIALECT, chunk({"annotations": annotations}))) == [
            {
                "type": "citations",
                "citations": [
                    {"uri": "u1", "title": "t1", "start": 0, "end": 3},
                    {"uri": "u2"},
                    {"uri": "f", "title": "a.txt"},
                ],
            }
        ]

    @pytest.mark.parametrize("provider", ["openai", "openai-compatible", "mistral", "openrouter"])
    @pytest.mark.parametrize("part", ["delta", "message"])
    def test_images_with_data_urls_are_events(self, part: str, provider: str) -> None:
        """`images` is OpenRouter's member and LiteLLM's (BerriAI/litellm#16378)."""
        urls = ["data:image/png;base64,AAAA", "https://x/y.png", "data:text/plain,a", None]
        parts: list[Any] = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
        parts += [{"type": "image_url", "image_url": "data:image/webp;base64,BBBB"}, {"type": "image_url"}, None]
        images = [
            {"type": "image", "image": {"data": "AAAA", "media_type": "image/png"}},
            {"type": "image", "image": {"data": "BBBB", "media_type": "image/webp"}},
        ]
        given: list[dict[str, Any]] = [{"images": parts}, {"content": "a", "images": parts}]
        given += [{"content": [*parts[:-1], {"type": "text", "text": "a"}]}, {"content": "a", "images": None}]
        text = {"type": "text.delta", "text": "a"}
        expected = [images, [text, *images], [*images, text], [text]]
        for message, events in zip(given, expected, strict=True):
            answer = {"id": "c1", "model": "m1", "choices": [{part: message, "finish_reason": "stop"}]}
            assert between(read(provider, answer) if part == "delta" else read_whole(provider, answer)) == events

    def test_an_image_that_cannot_be_read_is_reported(self) -> None:
        odd = [{"type": "image_url", "image_url": {"url": 1}}]
        for delta in ({"content": "a", "images": odd}, {"content": ["a", *odd]}):
            assert [event["type"] for event in between(read(DIALECT, chunk(delta)))] == ["text.delta", "warning"]


class TestTolerance:
    @pytest.mark.parametrize(
        "odd",
        [
            {"id": "c1", "model": "m1"},
            {"id": "c1", "model": "m1", "choices": None},
            {"id": "c1", "model": "m1", "choices": [], "usage": None},
            {"id": "c1", "model": "m1", "choices": [{"index": 0, "delta": None, "finish_reason": ""}]},
            {"id": "c1", "model": "m1", "choices": [{"delta": {"role": "", "content": None, "tool_calls": None}}]},
            {"id": "c1", "model": "m1", "error": None, "choices": []},
        ],
    )
    def test_chunks_that_say_nothing_are_taken(self, odd: Any) -> None:
        events = read(DIALECT, odd, chunk({"content": "a"}), odd, chunk(finish="stop"), odd)
        assert [event["type"] for event in events] == ["start", "text.delta", "finish"]

    @pytest.mark.parametrize(
        "choice",
        [
            {"delta": {}, "message": {"content": "Hi"}},
            {"delta": [], "message": {"content": "Hi"}},
            {"text": "Hi"},
            {"delta": {}, "text": "Hi"},
            {"delta": {"content": [{"type": "output_text", "text": "Hi"}]}},
            {"delta": {"text": "Hi"}},
            {"delta": {"role": "assistant", "content": "", "text": "Hi"}},
            {"delta": {"content": [{"type": "unheard_of", "text": "Hi"}]}},
        ],
    )
    def test_text_in_another_place_is_text(self, choice: dict[str, Any]) -> None:
        events = read(DIALECT, {"id": "c1", "model": "m1", "choices": [choice]}, chunk(finish="stop"))
        assert [event["type"] for event in events] == ["start", "text.delta", "finish"]
        assert text_of(events) == "Hi"

    @pytest.mark.parametrize("kind", ["thinking", "reasoning", "reasoning_text", "summary_text"])
    @pytest.mark.parametrize("provider", [DIALECT, "openai", "mistral"])
    def test_a_part_of_reasoning_may_hold_a_text(self, provider: str, kind: str) -> None:
        events = read(provider, chunk({"content": [{"type": kind, "text": "hm"}, "Hi"]}), chunk(finish="stop"))
        assert (text_of(events, "reasoning.delta"), text_of(events)) == ("hm", "Hi")

    def test_usage_of_zeros_takes_the_place_of_none_only(self) -> None:
        zeros = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        some = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        ends = [chunk(finish="stop", usage=usage) for usage in (some, zeros)]
        assert read(DIALECT, chunk({"content": "a"}), *ends)[-1]["usage"]["total_tokens"] == 5
        assert read(DIALECT, chunk({"content": "a"}), ends[1])[-1]["usage"]["total_tokens"] == 0

    def test_choices_and_calls_that_are_null_are_left_out(self) -> None:
        """odysseus-dev/odysseus#2389: MiniMax."""
        chunks = [
            {"id": "c1", "model": "m1", "choices": [None], "usage": None},
            chunk({"content": "Hi", "tool_calls": [None]}),
            chunk(finish="stop"),
            {"choices": [None], "usage": {"prompt_tokens": 1, "completion_tokens": 2}},
        ]
        events = read(DIALECT, *chunks)
        assert (text_of(events), events[-1]["usage"]["output_tokens"]) == ("Hi", 2)

    def test_the_index_of_a_choice_may_be_text(self) -> None:
        one = call("{", index=0, id="a", name="f"), call("}", index=0)
        chunks = [{"choices": [{"index": "0", "delta": delta}]} for delta in one]
        assert calls_of(read(DIALECT, *chunks)) == [("a", "f", "{}")]

    def test_the_end_mark_is_a_prefix(self) -> None:
        adapter = get_provider(DIALECT).adapter()
        assert adapter.receive("", "[DONE] and more") == []
        assert adapter.ended

    @pytest.mark.parametrize(
        "data",
        [
            "7",
            "[]",
            '{"choices":[{"delta":{"content":5}}]}',
        ],
    )
    def test_other_shapes_are_malformed(self, data: str) -> None:
        with pytest.raises(Malformed):
            get_provider(DIALECT).adapter().receive("", data)

    def test_an_answer_that_comes_whole_in_one_chunk_is_read_once(self) -> None:
        whole = {"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}
        assert text_of(read(DIALECT, {"id": "c1", "choices": [whole]})) == "Hi"
        assert text_of(read(DIALECT, chunk({"content": "Hi"}), {"id": "c1", "choices": [whole]})) == "Hi"

    @pytest.mark.parametrize("nothing", ["[]", '""', "0", "false", "null", "{}"])
    def test_a_delta_that_is_empty_says_nothing_whatever_it_is(self, nothing: str) -> None:
        last = f'{{"choices":[{{"index":0,"delta":{nothing},"finish_reason":"stop"}}]}}'
        assert read(DIALECT, chunk({"content": "Hi"}), last)[-1]["finish_reason"] == "stop"

    def test_start_waits_for_a_chunk_that_says_something(self) -> None:
        events = read(DIALECT, {"id": "", "model": "", "choices": []}, chunk({"content": "a"}))
        assert events[0]["model"] == "m1"

    def test_the_model_asked_for_is_reported_where_the_provider_names_none(self) -> None:
        adapter = get_provider(DIALECT).adapter("asked")
        assert adapter.receive("", '{"id":"c","choices":[]}')[0]["model"] == "asked"

    def test_the_first_model_named_is_the_one_that_answers(self) -> None:
        assert read(DIALECT, chunk({}, model=None), chunk({}), chunk({"content": "a"}, model="m2"))[-1]["model"] == "m1"


CHAT_PROVIDERS = [
    provider + api
    for provider in provider_names()
    for api in ("", ":completions")
    if api.removeprefix(":") in import_module(PROVIDERS[provider]).APIS
    and isinstance(get_provider(provider + api).adapter(), ChatAdapter)
]


CALLS = st.fixed_dictionaries(
    {},
    optional={
        "index": st.sampled_from([0, 1, "1", None]),
        "id": st.sampled_from(["c0", "c1", "null", "", None, 1]),
        "type": st.just("function"),
        "function": st.none()
        | st.fixed_dictionaries(
            {},
            optional={
                "name": st.sampled_from(["f", "g", "", None]),
                "arguments": st.sampled_from(["", '{"a":', '"b"}', "{}", {"a": 1}, None, "\ud83d"]),
            },
        ),
        "extra_content": st.sampled_from([None, {"google": {"thought_signature": "s"}}]),
        "custom": st.none() | st.just({"name": "f", "input": "text"}),
    },
)


CHOICES = st.fixed_dictionaries(
    {},
    optional={
        "index": st.sampled_from([0, 0, 0, 1, "0", None]),
        "delta": st.none()
        | st.fixed_dictionaries(
            {},
            optional={
                "role": st.just("assistant"),
                "content": st.sampled_from(["", "Hi", "usage", "ä", "\n", None, ["x"]]),
                "refusal": st.sampled_from([None, "no"]),
                "tool_calls": st.none() | st.lists(CALLS, max_size=2),
                "images": st.sampled_from([None, [], [{"image_url": {"url": "data:image/png;base64,AAAA"}}]]),
            },
        ),
        "text": st.sampled_from(["", "Hi", None]),
        "message": st.none() | st.just({"content": "whole"}),
        "finish_reason": st.sampled_from([None, "", "stop", "length"]),
        "usage": st.sampled_from([None, {"prompt_tokens": 3}]),
        "logprobs": st.sampled_from([None, {"content": [{"token": "Hi"}]}]),
    },
)


CHUNKS = st.fixed_dictionaries(
    {},
    optional={
        "id": st.sampled_from(["c1", None, "", 1]),
        "object": st.just("chat.completion.chunk"),
        "model": st.sampled_from(["m1", None, ""]),
        "choices": st.lists(CHOICES, max_size=2) | st.none(),
        "usage": st.sampled_from([None, {}, {"prompt_tokens": 5, "completion_tokens": 2}, {"x": None}]),
        "error": st.sampled_from([None, {"message": "no"}]),
        "citations": st.sampled_from([None, ["https://a.example"]]),
        "obfuscation": st.just("xyz"),
    },
)


class TestPlainChunks:
    @given(chunks=st.lists(CHUNKS, min_size=1, max_size=4))
    def test_they_mean_what_they_do_where_they_are_parsed(self, chunks: list[dict[str, Any]]) -> None:
        """Each example is for all providers: to make one takes longer than to read it with each of them."""
        texts = [json.dumps(said) for said in chunks]
        for provider in CHAT_PROVIDERS:
            quick, parsed = (get_provider(provider).adapter("asked") for _ in range(2))
            assert isinstance(parsed, ChatAdapter)
            for text in texts:
                read = outcome(parsed, parsed._read, parse_chunk(text), "delta", text)
                assert outcome(quick, quick.receive, "", text) == read, provider


def outcome(adapter: Adapter, receive: Callable[..., list[Event]], *given: object) -> object:
    """Returns the events of a chunk, and the state of the adapter after it."""
    assert isinstance(adapter, ChatAdapter)
    try:
        said = receive(*given)
    except (Error, Malformed, AttributeError, TypeError, KeyError) as problem:
        return type(problem), getattr(problem, "code", None)
    choices = [
        (
            *(choice.number, choice.characters, choice.has_content, choice.reason),
            *([call.call_id for call in calls] for calls in (choice.calls.calls, choice.calls.named.values())),
            *(call.arguments for call in choice.calls.calls),
            {slot: call.call_id for slot, call in choice.calls.at.items()},
            choice.calls.last and choice.calls.last.call_id,
        )
        for choice in adapter.choices.values()
    ]
    return said, adapter.usage, adapter.copyable, adapter.chunk, adapter.named, adapter.model, choices


class TestChoices:
    def test_further_choices_are_marked_and_stay_apart(self) -> None:
        events = read(
            DIALECT,
            chunk({"content": "a"}),
            chunk({"content": "b", "reasoning": "r"}, index=1),
            chunk(call('{"n":1}', index=0, id="same", name="f")),
            chunk(call('{"n":2}', index=0, id="same", name="f"), index=1),
            chunk(finish="tool_calls", index=1),
            chunk(finish="stop"),
        )
        first = [event for event in between(events) if "choice" not in event]
        second = [event for event in between(events) if event.get("choice") == 1]
        assert len(first) + len(second) == len(between(events))
        assert text_of(first) == "a"
        assert calls_of(first) == [("same", "f", '{"n":1}')]
        assert calls_of(second) == [("same", "f", '{"n":2}')]
        assert [event["index"] for event in of_type(second, "tool.call.start")] == [0]
        assert events[-1]["finish_reason_raw"] == "stop"

    def test_the_end_of_another_choice_is_no_end(self) -> None:
        with pytest.raises(Error) as failed:
            read(DIALECT, chunk({"content": "a"}), chunk(finish="stop", index=1), done=False)
        assert failed.value.reason == "truncated"

    def test_there_is_a_limit(self) -> None:
        adapter = get_provider(DIALECT).adapter()
        for index in range(LIMITS.choices):
            adapter.receive("", json.dumps(chunk(index=index)))
        with pytest.raises(Error, match="choices") as failed:
            adapter.receive("", json.dumps(chunk(index=LIMITS.choices)))
        assert failed.value.code == "provider_unavailable"


class TestEnd:
    @pytest.mark.parametrize(
        ("word", "reason"),
        [
            ("stop", "stop"),
            ("length", "length"),
            ("tool_calls", "tool_calls"),
            ("content_filter", "content_filter"),
            ("abort", "other"),
        ],
    )
    def test_words_are_mapped_and_kept(self, word: str, reason: str) -> None:
        finish = read(DIALECT, chunk(finish=word))[-1]
        assert (finish["finish_reason"], finish["finish_reason_raw"]) == (reason, word)

    def test_a_reason_is_enough_where_the_end_mark_is_missing(self) -> None:
        assert read(DIALECT, chunk(finish="stop"), done=False)[-1]["finish_reason"] == "stop"

    def test_an_end_mark_without_a_reason_is_other(self) -> None:
        finish = read(DIALECT, chunk({"content": "a"}))[-1]
        assert finish["finish_reason"] == "other"
        assert "finish_reason_raw" not in finish

    def test_neither_is_truncated(self) -> None:
        with pytest.raises(Error) as failed:
            read(DIALECT, chunk({"content": "a"}), done=False)
        assert (failed.value.code, failed.value.reason) == ("network", "truncated")

    @pytest.mark.parametrize("word", ["stop", None])
    def test_an_answer_with_a_call_ends_with_tool_calls(self, word: str | None) -> None:
        assert read(DIALECT, chunk(call("{}", name="f"), finish=word))[-1]["finish_reason"] == "tool_calls"

    @pytest.mark.parametrize(
        ("word", "expected"), [("length", 0), ("content_filter", 0), ("tool_calls", 1), ("stop", 1)]
    )
    def test_a_call_that_is_not_json_is_cut_off_beside_length(self, word: str, expected: int) -> None:
        events = read(DIALECT, chunk(call('{"n":', name="f")), chunk(finish=word))
        assert len(calls_of(events)) == expected

    def test_complete_calls_are_reported_before_an_error(self) -> None:
        adapter = get_provider(DIALECT).adapter()
        for delta in (call('{"n":1}', index=0, id="a", name="f"), call('{"n":', index=1, id="b", name="g")):
            adapter.receive("", json.dumps(chunk(delta)))
        assert [call_id for call_id, _, _ in calls_of(plain(adapter.abort()))] == ["a"]

    def test_a_failure_instead_of_a_reason_is_an_error_after_the_text(self) -> None:
        adapter = get_provider(DIALECT).adapter()
        assert text_of(adapter.receive("", json.dumps(chunk({"content": "a"}, finish="error")))) == "a"
        with pytest.raises(Error) as failed:
            adapter.finish()
        assert (failed.value.code, failed.value.reason) == ("internal", "error")


class TestErrors:
    @pytest.mark.parametrize(
        ("said", "code"),
        [
            ({"error": {"message": "The server had an error", "type": "server_error"}}, "internal"),
            (
                {"error": {"message": "prompt is too long", "type": "BadRequestError", "code": 400}},
                "context_length_exceeded",
            ),
            ({"error": "model is overloaded"}, "overloaded"),
            ({"object": "error", "message": "m", "type": "BadRequestError", "code": 400}, "invalid_request"),
            ({**chunk(finish="stop"), "error": {"code": 502, "message": "m"}}, "provider_unavailable"),
            ([{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "m"}}], "rate_limited"),
        ],
    )
    def test_every_shape_is_seen_before_the_chunk_counts_as_content(self, said: Any, code: str) -> None:
        with pytest.raises(Error) as failed:
            read(DIALECT, chunk({"content": "a"}), said)
        assert failed.value.code == code

    @pytest.mark.parametrize("data", ['{"odd":"shape"}', "out of memory", '{"error":{"message":"m"}}'])
    def test_an_event_named_error_is_one(self, data: str) -> None:
        with pytest.raises(Error):
            get_provider(DIALECT).adapter().receive("error", data)

    def test_usage_beside_an_error_is_kept(self) -> None:
        adapter = get_provider(DIALECT).adapter()
        with pytest.raises(Error):
            adapter.receive(
                "", '{"error":{"message":"m"},"choices":[],"usage":{"prompt_tokens":4,"completion_tokens":1}}'
            )
        assert adapter.usage == {"input_tokens": 4, "output_tokens": 1, "total_tokens": 5}


class TestUsage:
    def test_the_last_usage_wins_on_whichever_chunk_it_is(self) -> None:
        events = read(
            DIALECT,
            chunk({"content": "a"}, usage={"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}),
            chunk(finish="stop"),
            {"choices": [], "usage": {"prompt_tokens": "15", "completion_tokens": 78.0, "total_tokens": 93}},
            {"choices": [], "usage": {"prompt_tokens": None}},
        )
        assert events[-1]["usage"] == {"input_tokens": 15, "output_tokens": 78, "total_tokens": 93}

    @pytest.mark.parametrize(
        ("usage", "parts"),
        [
            ({"prompt_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 2}}, (3, 2, None)),
            ({"prompt_tokens_details": {"cached_tokens": 3, "cache_creation_tokens": 2}}, (3, 2, None)),
            ({"prompt_tokens_details": {"cache_write_tokens": 0, "cached_creation_tokens": 2}}, (None, 2, None)),
            ({"completion_tokens_details": {"reasoning_tokens": 4}}, (None, None, 4)),
            ({"prompt_tokens_details": None, "completion_tokens_details": None}, (None, None, None)),
            ({"prompt_tokens_details": {"cached_tokens": 0}, "num_cached_tokens": 5}, (5, None, None)),
            ({"prompt_cache_hit_tokens": 6, "reasoning_tokens": 2}, (6, None, 2)),
            ({"cached_tokens": 7}, (7, None, None)),
            ({"prompt_tokens_details": {"cached_tokens": 3}, "cached_tokens": 7}, (3, None, None)),
            ({"cache_read_input_tokens": 4, "cache_creation_input_tokens": 5}, (4, 5, None)),
            ({"prompt_tokens_details": {"cached_tokens": 4}, "cache_creation_input_tokens": 5}, (4, 5, None)),
            (
                {"input_tokens_details": {"cached_tokens": 9}, "output_tokens_details": {"reasoning_tokens": 1}},
                (9, None, 1),
            ),
        ],
    )
    def test_parts_are_found_under_their_names(self, usage: dict[str, Any], parts: tuple[int | None, ...]) -> None:
        result = read(DIALECT, chunk(finish="stop", usage={"input_tokens": 10, "output_tokens": 8, **usage}))[-1][
            "usage"
        ]
        assert result["total_tokens"] == 18
        found = (
            result.get("cached_input_tokens"),
            result.get("cache_write_input_tokens"),
            result.get("reasoning_tokens"),
        )
        assert found == parts

    @pytest.mark.parametrize(
        ("total", "prompt", "counted"),
        [(120, 100, 100), (None, 100, 100), (720, 10, 710), (None, 10, 710), (None, None, None), (715, 10, 10)],
        ids=["included", "included, no sum", "beside, by the sum", "beside: more than all", "no input", "neither"],
    )
    def test_tokens_of_a_cache_beside_the_input_are_added_to_it(
        self, total: int | None, prompt: int | None, counted: int | None
    ) -> None:
        """LiteLLM includes Anthropic's counts in `prompt_tokens`, other proxies copy Anthropic's input."""
        of_caches = {"cache_read_input_tokens": 70, "cache_creation_input_tokens": 20}
        if counted == 710 or total == 715:
            of_caches = {"cache_read_input_tokens": 680, "cache_creation_input_tokens": 20}
        usage = {"prompt_tokens": prompt, "completion_tokens": 10, "total_tokens": total, **of_caches}
        if total == 120:
            usage["completion_tokens"] = 20
        assert read(DIALECT, chunk(finish="stop", usage=usage))[-1]["usage"].get("input_tokens") == counted


class TestWholeAnswer:
    ANSWER: ClassVar = {
        "id": "c1",
        "model": "m1",
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "finish_reason": "tool_calls",
                "message": {
                    "role": "assistant",
                    "content": "Hi",
                    "reasoning_content": "hm",
                    "tool_calls": [
                        {"type": "function", "function": {"name": "f", "arguments": '{"n":1}'}},
                        {"type": "function", "function": {"name": "g", "arguments": {"n": 2}}},
                    ],
                },
            },
            {"index": 1, "finish_reason": "stop", "message": {"content": "Ho"}},
        ],
        "usage": {"prompt_tokens": 4, "completion_tokens": 1},
    }

    def test_it_has_the_events_of_a_stream(self) -> None:
        events = read_whole(DIALECT, self.ANSWER)
        assert (events[0]["type"], events[-1]["type"]) == ("start", "finish")
        assert (text_of(events, "reasoning.delta"), text_of(events)) == ("hm", "Hi")
        assert calls_of(events) == [("call_0", "f", '{"n":1}'), ("call_1", "g", '{"n":2}')]
        assert [event["text"] for event in events if event.get("choice") == 1] == ["Ho"]
        assert events[-1]["usage"]["total_tokens"] == 5

    def test_argument_objects_are_written_anew_where_the_text_is_not_given(self) -> None:
        assert calls_of(read_whole(DIALECT, self.ANSWER, text="")) == calls_of(read_whole(DIALECT, self.ANSWER))

    def test_audio_has_the_format_that_was_asked_for(self) -> None:
        answer = {"choices": [{"message": {"audio": {"id": "a", "data": "AAAA", "transcript": "Hi"}}}]}
        assert of_type(read_whole(DIALECT, answer), "audio.delta")[0]["audio"] == {"chunk": "AAAA"}

    @pytest.mark.parametrize("answer", [{}, {"choices": []}, {"id": "x"}, 7])
    def test_without_choices_it_is_no_answer(self, answer: Any) -> None:
        with pytest.raises(Malformed):
            read_whole(DIALECT, answer)

    def test_without_a_reason_it_ends_with_other(self) -> None:
        assert read_whole(DIALECT, {"choices": [{"message": {"content": "Hi"}}]})[-1]["finish_reason"] == "other"


class TestCopied:
    """Deltas that the relay copies without asking count as if they had been read."""

    def test_text_counts_and_arguments_are_kept(self) -> None:
        adapter = get_provider("mistral").adapter()
        text = adapter.receive("", json.dumps(chunk({"content": "a"})))[-1]
        adapter.receive("", json.dumps(chunk(call("", index=0, id="a", name="f"))))
        fragment = adapter.receive("", json.dumps(chunk(call('{"n"', index=0))))[-1]
        adapter.copied(text, 4, "")
        adapter.copied(fragment, 3, ":1}")
        adapter.copied({"type": "reasoning.delta", "text": "hm"}, 2, "")
        reference = adapter.receive("", json.dumps(chunk({"content": [{"type": "reference", "reference_ids": [1]}]})))
        assert reference[0]["citations"][0]["start"] == 5
        assert calls_of(plain(adapter.abort())) == [("a", "f", '{"n":1}')]

    @pytest.mark.parametrize(
        ("one", "copyable"),
        [
            (chunk({"content": "a"}), True),
            (chunk({"content": "a"}, usage={"prompt_tokens": 1}), True),
            (chunk({"content": "a"}, usage={"prompt_tokens": "?"}), False),
            (chunk({"content": "a"}, finish="stop"), False),
            (chunk(call("{", index=0)), True),
            (chunk(call("{", index=0, id="a")), False),
            (chunk(call("{")), False),
            (chunk(call("{", index=0, name="f")), False),
            ({"choices": [{"message": {"content": "a"}}]}, False),
            # The copier knows members by their names alone, and this one is not the usage.
            (chunk({"content": "a"}, x_other={"usage": {"prompt_tokens": 1}}), False),
        ],
    )
    def test_what_depends_on_more_than_its_bytes_is_not_copied(self, one: Any, copyable: bool) -> None:
        adapter = get_provider(DIALECT).adapter()
        adapter.receive("", json.dumps(one))
        assert adapter.copyable is copyable

    def test_a_chunk_that_cannot_be_read_leaves_no_call_half_begun(self) -> None:
        adapter = get_provider(DIALECT).adapter()
        broken = chunk(call("{}", index=0, id="a", name="f"))
        broken["choices"].append({"index": 1, "delta": {"content": 5}})
        with pytest.raises(Malformed):
            adapter.receive("", json.dumps(broken))
        assert adapter.abort() == []


@pytest.mark.parametrize("member", ["stop_reason", "matched_stop"])
@pytest.mark.parametrize(
    ("value", "expected"), [("END", "END"), (128001, None), (None, None), ("stop", None), ([], None)]
)
def test_the_stop_sequence_that_ended_the_answer_is_reported(member: str, value: Any, expected: str | None) -> None:
    last = chunk({}, finish="stop")
    last["choices"][0][member] = value
    end = read("openai-compatible", chunk({"content": "a"}), last)[-1]
    assert end.get("provider_metadata", {}).get("stop_sequence") == expected
