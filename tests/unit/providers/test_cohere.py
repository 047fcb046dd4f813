"""Cohere Chat, version 2."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest

from gai_fast.core.requests.reading import parse_request
from gai_fast.library.collecting import collect
from gai_fast.library.decoding import decode
from gai_fast.model.errors import Error, InvalidRequest, Malformed, Unsupported
from gai_fast.model.events import Event
from gai_fast.providers import Target, get_provider
from tests.legal import sse
from tests.unit.providers import answer_reading as answers
from tests.unit.providers.answer_reading import between, body, calls_of, of_type, plain, read_whole, request, text_of

START = {
    "id": "c1",
    "type": "message-start",
    "delta": {"message": {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}},
}
QUESTION = {"role": "user", "content": "?"}
CALLS = {"role": "assistant", "content": [{"type": "tool_call", "call_id": "x", "name": "f"}]}
TOKENS = {"tokens": {"input_tokens": 9, "output_tokens": 4}}
USAGE = {"input_tokens": 9, "output_tokens": 4, "total_tokens": 13}


def event(kind: str, index: int | None = None, **message: Any) -> dict[str, Any]:
    place = {} if index is None else {"index": index}
    return {"type": kind, **place, "delta": {"message": message}}


def begin(index: int, kind: str = "text", text: str = "") -> dict[str, Any]:
    return event("content-start", index, content={"type": kind, kind: text})


def say(text: str, index: int = 0, kind: str = "text") -> dict[str, Any]:
    return event("content-delta", index, content={kind: text})


def call(
    index: int, *pieces: str, identifier: str = "f_1", name: str = "f", ended: bool = True
) -> list[dict[str, Any]]:
    function = {"id": identifier, "type": "function", "function": {"name": name, "arguments": ""}}
    fragments = [event("tool-call-delta", index, tool_calls={"function": {"arguments": piece}}) for piece in pieces]
    end = [{"type": "tool-call-end", "index": index}] if ended else []
    return [event("tool-call-start", index, tool_calls=function), *fragments, *end]


def cite(first: int, last: int, *sources: Any, **keys: Any) -> dict[str, Any]:
    return event("citation-start", 0, citations={"start": first, "end": last, "text": "…", "sources": sources, **keys})


def end(reason: str | None = "COMPLETE", **keys: Any) -> dict[str, Any]:
    return {"type": "message-end", "delta": {"finish_reason": reason, **keys}}


def read(*chunks: Any) -> list[Event]:
    return answers.read("cohere", START, *chunks, done=False)


class TestText:
    def test_deltas_become_events_between_start_and_finish(self) -> None:
        assert read(begin(0), say("Hi"), {"type": "content-end", "index": 0}, end(usage=TOKENS)) == [
            {"type": "start", "provider": "cohere", "provider_metadata": {"id": "c1"}},
            {"type": "text.delta", "text": "Hi"},
            {
                "type": "finish",
                "provider": "cohere",
                "usage": USAGE,
                "finish_reason": "stop",
                "finish_reason_raw": "COMPLETE",
            },
        ]

    def test_the_model_is_the_one_that_was_asked_for(self) -> None:
        adapter = get_provider("cohere").adapter("command-a")
        [start] = adapter.receive("message-start", json.dumps(START))
        assert start["model"] == "command-a"

    def test_the_plan_and_thoughts_are_reasoning(self) -> None:
        chunks = [event("tool-plan-delta", tool_plan="I will. "), begin(0, "thinking", "Hm"), say("m", 0, "thinking")]
        events = read(*chunks, begin(1, "text", "Bl"), say("ue", 1), end())
        assert (text_of(events, "reasoning.delta"), text_of(events)) == ("I will. Hmm", "Blue")

    def test_the_name_of_an_event_stands_in_for_its_type(self) -> None:
        adapter = get_provider("cohere").adapter()
        said = adapter.receive("content-delta", '{"index":0,"delta":{"message":{"content":{"text":"Hi"}}}}')
        assert text_of(said) == "Hi"

    def test_what_says_nothing_is_ignored(self) -> None:
        nothing = [{"type": "debug", "prompt": "…"}, {"type": "content-end", "index": 9}, {"type": "content-start"}]
        assert between(read(*nothing, {"type": "tool-call-end", "index": 9}, end(), "[DONE]")) == []

    @pytest.mark.parametrize(
        "chunk",
        [
            [],
            "5",
            event("content-delta", 0, content=5),
            {"delta": {"message": {"content": {"text": "Hi"}}}},
            say(5),
        ],
    )
    def test_another_shape_is_malformed(self, chunk: Any) -> None:
        with pytest.raises((Malformed, KeyError, AttributeError)):
            read(chunk)


class TestEnds:
    @pytest.mark.parametrize(
        ("word", "reason"),
        [
            ("COMPLETE", "stop"),
            ("STOP_SEQUENCE", "stop"),
            ("MAX_TOKENS", "length"),
            ("TOOL_CALL", "tool_calls"),
            ("UNHEARD_OF", "other"),
        ],
    )
    def test_finish_words(self, word: str, reason: str) -> None:
        finish = read(say("x"), end(word))[-1]
        assert (finish["finish_reason"], finish["finish_reason_raw"]) == (reason, word)

    def test_an_end_without_a_reason_is_other(self) -> None:
        assert read(end(None))[-1]["finish_reason"] == "other"
        assert read(*call(0, "{}"), end(None))[-1]["finish_reason"] == "tool_calls"
        assert read(*call(0, "{}"), end("COMPLETE"))[-1]["finish_reason"] == "tool_calls"

    @pytest.mark.parametrize("last", [[], ["[DONE]"]])
    def test_without_its_end_mark_an_answer_is_truncated(self, last: list[str]) -> None:
        with pytest.raises(Error) as failed:
            read(say("Hel"), *last)
        assert (failed.value.code, failed.value.reason) == ("network", "truncated")

    @pytest.mark.parametrize(
        ("expected", "code", "reason", "message"),
        [
            (
                {"finish_reason": "ERROR", "error": "no good", "error_type": "INVALID_TOOL_GENERATION"},
                "internal",
                "invalid_tool_generation",
                "no good",
            ),
            ({"finish_reason": "ERROR"}, "internal", "error", "cohere failed without saying why"),
            ({"finish_reason": "TIMEOUT"}, "timeout", "timeout", "cohere failed without saying why"),
            ({"finish_reason": None, "error": {"message": "gone"}}, "internal", None, "gone"),
        ],
    )
    def test_its_failures_are_errors(
        self, expected: dict[str, Any], code: str, reason: str | None, message: str
    ) -> None:
        adapter = get_provider("cohere").adapter()
        with pytest.raises(Error) as failed:
            adapter.receive("", json.dumps({"type": "message-end", "delta": {**expected, "usage": TOKENS}}))
        assert (failed.value.code, failed.value.reason, failed.value.message) == (code, reason, message)
        assert adapter.usage == USAGE

    @pytest.mark.parametrize(
        ("name", "data"), [("", '{"message":"gone","id":"x"}'), ("error", '{"message":"gone"}'), ("error", "gone")]
    )
    def test_an_error_may_stand_in_the_stream(self, name: str, data: str) -> None:
        with pytest.raises(Error) as failed:
            get_provider("cohere").adapter().receive(name, data)
        assert failed.value.message == "gone"


class TestUsage:
    def test_cached_tokens_and_reasoning_are_inside(self) -> None:
        tokens = {"input_tokens": 1445.0, "output_tokens": 43, "reasoning_tokens": 40}
        usage = {"billed_units": {"input_tokens": 46, "output_tokens": 14}, "tokens": tokens, "cached_tokens": 704}
        assert read(end(usage=usage))[-1]["usage"] == {
            "input_tokens": 1445,
            "output_tokens": 43,
            "total_tokens": 1488,
            "cached_input_tokens": 704,
            "reasoning_tokens": 40,
        }

    def test_what_is_billed_counts_where_nothing_else_is_reported(self) -> None:
        billed = {"billed_units": {"input_tokens": 9, "output_tokens": 4}}
        assert read(end(usage=billed))[-1]["usage"] == USAGE
        assert "usage" not in read(end(usage={}))[-1]

    def test_the_cost_is_that_of_what_is_billed(self) -> None:
        adapter = get_provider("cohere").adapter()
        usage = {"tokens": {"input_tokens": 71, "output_tokens": 8}, "billed_units": {"input_tokens": 5}}
        for given, expected in (({}, (5, 8)), ({"output_tokens": 7}, (5, 7))):
            usage["billed_units"] |= given
            adapter.receive("", json.dumps(end(usage=usage)))
            assert adapter.usage is not None
            billed = adapter.billed(adapter.usage)
            assert (adapter.usage["input_tokens"], adapter.usage["output_tokens"]) == (71, 8)
            assert (billed["input_tokens"], billed["output_tokens"]) == expected


class TestCalls:
    def test_a_call_is_complete_when_it_is_ended(self) -> None:
        events = between(read(*call(0, "{\n", '  "n": 1.0\n}'), end("TOOL_CALL")))
        assert events == [
            {"type": "tool.call.start", "call_id": "f_1", "tool_call": {"name": "f"}, "index": 0},
            {"type": "tool.call.delta", "call_id": "f_1", "index": 0, "arguments": "{\n"},
            {"type": "tool.call.delta", "call_id": "f_1", "index": 0, "arguments": '  "n": 1.0\n}'},
            {"type": "tool.call", "call_id": "f_1", "tool_call": {"name": "f", "input": '{"n":1.0}'}},
        ]

    def test_calls_side_by_side_keep_apart(self) -> None:
        one, two = call(0, '{"n":', "1}"), call(1, '{"n":2}', identifier="f_2")
        mixed = [one[0], two[0], one[1], two[1], one[2], two[2], one[3]]
        assert calls_of(read(*mixed, end("TOOL_CALL"))) == [("f_2", "f", '{"n":2}'), ("f_1", "f", '{"n":1}')]

    @pytest.mark.parametrize("pieces", [["{}", '{"n":1}'], ["{}", '{"n"', ":1}"], ['{"n":1}', '{"n":1}']])
    def test_an_object_takes_the_place_of_the_one_from_which_it_has_grown(self, pieces: list[str]) -> None:
        assert calls_of(read(*call(0, *pieces), end("TOOL_CALL"))) == [("f_1", "f", '{"n":1}')]

    def test_a_call_may_stand_in_a_list(self) -> None:
        chunks: list[Any] = call(0, '{"n":1}')
        for one in chunks[:2]:
            one["delta"]["message"]["tool_calls"] = [one["delta"]["message"]["tool_calls"]]
        assert calls_of(read(*chunks, end("TOOL_CALL"))) == [("f_1", "f", '{"n":1}')]

    def test_no_arguments_are_an_empty_object(self) -> None:
        assert calls_of(read(*call(0), end("TOOL_CALL"))) == [("f_1", "f", "{}")]

    def test_a_call_that_is_cut_off_is_no_call(self) -> None:
        assert calls_of(read(*call(0, '{"n":'), end("MAX_TOKENS"))) == []
        assert calls_of(read(*call(0, '{"n":1}', ended=False), end("MAX_TOKENS"))) == []
        adapter = get_provider("cohere").adapter()
        for chunk in call(0, '{"n":1}', ended=False):
            adapter.receive("", json.dumps(chunk))
        assert adapter.abort() == []

    def test_a_call_that_breaks_off_amid_its_arguments_is_a_failure_of_a_complete_answer(self) -> None:
        with pytest.raises(Error) as failed:
            read(*call(0, '{"n":', ended=False), end("TOOL_CALL"))
        assert (failed.value.code, failed.value.reason) == ("network", "truncated")

    def test_text_that_is_no_json_is_reported_where_the_answer_is_complete(self) -> None:
        assert calls_of(read(*call(0, "no json"), end("TOOL_CALL"))) == [("f_1", "f", "no json")]

    def test_copied_fragments_are_the_calls(self) -> None:
        adapter = get_provider("cohere").adapter()
        start, first = call(0, '{"a":', ended=False)
        adapter.receive("", json.dumps(start))
        assert not adapter.copyable
        [learned] = adapter.receive("", json.dumps(first))
        assert adapter.copyable
        adapter.copied(learned, 2, "1}")
        [complete] = plain(adapter.receive("", '{"type":"tool-call-end","index":0}'))
        assert complete["tool_call"]["input"] == '{"a":1}'


class TestCitations:
    def test_spans_count_from_the_beginning_of_the_text(self) -> None:
        document = {"type": "document", "id": "doc:0", "document": {"title": "A", "url": "https://a.example"}}
        tool = {"type": "tool", "id": "f_1:0", "tool_output": {"n": "1"}}
        cited = cite(0, 2, document, tool, content_index=1, type="TEXT_CONTENT")
        assert of_type(read(begin(0), say("Grüße: "), begin(1), say("ok", 1), cited, end()), "citations") == [
            {
                "type": "citations",
                "citations": [
                    {"uri": "https://a.example", "title": "A", "start": 7, "end": 9},
                    {"uri": "f_1:0", "start": 7, "end": 9},
                ],
            }
        ]

    def test_copied_text_counts(self) -> None:
        adapter = get_provider("cohere").adapter()
        [learned] = of_type(adapter.receive("", json.dumps(say("ab"))), "text.delta")
        adapter.copied(learned, 3, "")
        adapter.receive("", json.dumps(begin(1)))
        [result] = adapter.receive("", json.dumps(cite(0, 1, {"id": "d"}, content_index=1)))
        assert result["citations"] == [{"uri": "d", "start": 5, "end": 6}]

    @pytest.mark.parametrize("kind", ["PLAN", "THINKING_CONTENT"])
    def test_one_of_the_plan_or_of_a_thought_marks_no_text(self, kind: str) -> None:
        assert between(read(cite(0, 2, {"id": "d"}, type=kind), end())) == [
            {"type": "citations", "citations": [{"uri": "d"}]}
        ]

    def test_one_without_a_source_marks_its_words(self) -> None:
        assert between(read(cite(0, 2), end())) == [{"type": "citations", "citations": [{"start": 0, "end": 2}]}]
        assert between(read(cite(0, 2, type="PLAN"), end())) == []


def test_a_whole_answer_is_the_same_events() -> None:
    function = {"name": "f", "arguments": '{"n": 1}'}
    message = {
        "role": "assistant",
        "tool_plan": "Plan. ",
        "content": [{"type": "thinking", "thinking": "Hm"}, {"type": "text", "text": "Hi"}],
        "tool_calls": [{"id": "f_1", "type": "function", "function": function}],
        "citations": [{"start": 0, "end": 2, "sources": [{"id": "d"}], "content_index": 1}],
    }
    events = read_whole("cohere", {"id": "c1", "finish_reason": "TOOL_CALL", "message": message, "usage": TOKENS})
    assert [event["type"] for event in events] == [
        "start",
        "reasoning.delta",
        "reasoning.delta",
        "text.delta",
        "tool.call.start",
        "tool.call.delta",
        "tool.call",
        "citations",
        "finish",
    ]
    assert (events[-1]["usage"], events[-1]["finish_reason"]) == (USAGE, "tool_calls")
    assert calls_of(events) == [("f_1", "f", '{"n":1}')]
    for other in ({}, [], {"message": "text"}):
        with pytest.raises(Malformed):
            get_provider("cohere").adapter().receive_whole(other)


def test_the_memory_for_blocks_is_limited() -> None:
    adapter: Any = get_provider("cohere").adapter()
    adapter.room.remaining = 1000
    with pytest.raises(Error, match="kept in memory"):
        for index in range(1000):
            adapter.receive("", json.dumps(begin(index)))


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "invalid_request"),
        (401, "unauthorized"),
        (402, "forbidden"),
        (403, "forbidden"),
        (404, "not_found"),
        (422, "invalid_request"),
        (429, "rate_limited"),
        (498, "content_filtered"),
        (499, "internal"),
        (500, "internal"),
        (501, "unsupported"),
        (503, "provider_unavailable"),
        (504, "timeout"),
    ],
)
def test_its_errors_are_a_message_and_a_status(status: int, code: str) -> None:
    error = get_provider("cohere").decode_error(status, {}, b'{"id":"x","message":"no"}')
    assert (error.code, error.message) == (code, "no")


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("invalid api token", "unauthorized"),
        ("Your API key has expired.", "unauthorized"),
        ("The prompt contains a blocked token.", "content_filtered"),
    ],
)
def test_status_498_is_about_our_key_or_about_the_content(message: str, code: str) -> None:
    error = get_provider("cohere").decode_error(498, {}, json.dumps({"message": message}).encode())
    assert (error.code, error.message) == (code, message)


class TestRequest:
    def test_a_query_alone(self) -> None:
        sent = request("cohere")
        assert sent.path == "/v2/chat"
        assert dict(sent.headers)["authorization"] == "Bearer k"
        assert json.loads(sent.body) == {
            "model": "m1",
            "messages": [{"role": "user", "content": "Hi"}],
            "stream": True,
        }
        assert "authorization" not in dict(request("cohere", api_key=None).headers)

    def test_instructions_between_calls_and_results_stand_before_the_calls(self) -> None:
        part = {"type": "tool_call", "call_id": "c1", "name": "f", "input": {}}
        messages = [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": [part]},
            {"role": "system", "content": "S"},
            {"role": "tool", "call_id": "c1", "content": "1"},
        ]
        sent = body("cohere", messages=messages)["messages"]
        assert [message["role"] for message in sent] == ["user", "system", "assistant", "tool"]

    def test_sampling_has_names_of_its_own(self) -> None:
        given = {"temperature": 0, "top_p": 0.5, "max_tokens": 7, "stop": ["x"], "seed": 0}
        sent = body("cohere", **given, provider_options={"cohere": {"k": 3, "safety_mode": "OFF", "seed": None}})
        wanted = {"temperature": 0, "p": 0.5, "max_tokens": 7, "stop_sequences": ["x"], "k": 3, "safety_mode": "OFF"}
        assert sent.items() >= wanted.items()
        assert "seed" not in sent

    def test_parts(self) -> None:
        text = b64encode("Größe".encode()).decode()
        parts = [
            {"type": "text", "text": "What?"},
            {"type": "image", "url": "https://a.example/i.png"},
            {"type": "image", "data": "AA==", "media_type": "image/png"},
            {"type": "file", "data": text, "media_type": "text/plain", "filename": "a.txt"},
            {"type": "file", "data": text, "media_type": "text/markdown"},
        ]
        sent = body("cohere", system="Brief.", messages=[{"role": "user", "content": parts}])
        assert sent["messages"] == [
            {"role": "system", "content": "Brief."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What?"},
                    {"type": "image_url", "image_url": {"url": "https://a.example/i.png"}},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
                ],
            },
        ]
        assert sent["documents"] == [{"data": {"title": "a.txt", "text": "Größe"}}, {"data": {"text": "Größe"}}]

    @pytest.mark.parametrize("data", ["%%%", b64encode(b"\xff").decode()])
    def test_a_text_file_must_be_text(self, data: str) -> None:
        part = {"type": "file", "data": data, "media_type": "text/plain"}
        with pytest.raises(InvalidRequest, match="base64"):
            request("cohere", messages=[{"role": "user", "content": [part]}])

    @pytest.mark.parametrize("result", ["", [], [{"type": "text", "text": ""}]])
    def test_the_result_of_a_tool_is_not_empty(self, result: Any) -> None:
        asked = [{"role": "user", "content": "Hi"}, CALLS, {"role": "tool", "call_id": "x", "content": result}]
        target = Target("m1")
        request = parse_request(json.dumps({"messages": asked}).encode())
        sent = json.loads(get_provider("cohere").build_request(request, target).body)
        assert sent["messages"][-1] == {"role": "tool", "tool_call_id": "x", "content": "{}"}
        assert target.changes.adjusted == {"messages[2].content": "{}"}

    def test_tools(self) -> None:
        tool = {"name": "f", "description": "d", "parameters": {"type": "object", "x": 1.0}, "strict": True}
        sent = body("cohere", tools=[tool, {"name": "g"}], tool_choice="required")
        assert sent["tools"] == [
            {"type": "function", "function": {"name": "f", "description": "d", "parameters": tool["parameters"]}},
            {"type": "function", "function": {"name": "g", "parameters": {"type": "object"}}},
        ]
        assert (sent["tool_choice"], sent["strict_tools"]) == ("REQUIRED", True)
        assert body("cohere", tools=[{"name": "g"}], tool_choice="none")["tool_choice"] == "NONE"
        assert (
            body("cohere", tools=[{"name": "g"}], tool_choice="auto").keys().isdisjoint({"tool_choice", "strict_tools"})
        )

    def test_response_formats(self) -> None:
        schema = {"type": "object", "properties": {}}
        sent = [body("cohere", response_format=wanted)["response_format"] for wanted in (
            {"type": "text"}, {"type": "json"}, {"type": "json_schema", "schema": schema, "name": "a"},
        )]  # fmt: skip
        assert sent == [{"type": "text"}, {"type": "json_object"}, {"type": "json_object", "json_schema": schema}]

    @pytest.mark.parametrize(
        ("wanted", "sent"),
        [
            ({"max_tokens": 100, "effort": "low"}, {"type": "enabled", "token_budget": 100}),
            ({"max_tokens": 0}, {"type": "disabled"}),
            ({"effort": "high"}, {"type": "enabled"}),
            ({"effort": "minimal"}, {"type": "disabled"}),
            ({}, None),
        ],
    )
    def test_thinking_is_on_or_off_and_has_a_budget(self, wanted: Any, sent: Any) -> None:
        assert body("cohere", reasoning=wanted).get("thinking") == sent

    def test_a_turn_with_tools_goes_back_as_it_came(self) -> None:
        turn = [
            event("tool-plan-delta", tool_plan="I will."),
            *call(0, '{"n": 12345678901234567890}'),
            end("TOOL_CALL"),
        ]
        answer = collect(decode("cohere", [sse(*turn)])).message
        result = {"role": "tool", "call_id": "f_1", "content": [{"type": "text", "text": "4"}]}
        assert body("cohere", messages=[answer, result])["messages"] == [
            {
                "role": "assistant",
                "tool_plan": "I will.",
                "tool_calls": [
                    {
                        "id": "f_1",
                        "type": "function",
                        "function": {"name": "f", "arguments": '{"n": 12345678901234567890}'},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "f_1", "content": "4"},
        ]

    def test_thoughts_go_back_as_blocks_and_those_of_others_do_not(self) -> None:
        parts = [
            {"type": "reasoning", "text": "Hm", "provider": "cohere"},
            {"type": "reasoning", "text": "Ha", "provider": "anthropic", "signature": "s"},
            {"type": "text", "text": "Blue"},
        ]
        messages = [{"role": "assistant", "content": parts}, {"role": "assistant", "content": ""}]
        assert body("cohere", messages=messages, query="Why?")["messages"] == [
            {
                "role": "assistant",
                "content": [{"type": "thinking", "thinking": "Hm"}, {"type": "text", "text": "Blue"}],
            },
            {"role": "user", "content": "Why?"},
        ]

    def test_arguments_that_were_no_json_go_back_as_the_text_they_were(self) -> None:
        part = {"type": "tool_call", "call_id": "f_1", "name": "f", "input": "no json"}
        result = {"role": "tool", "call_id": "f_1", "content": "1"}
        sent, _ = body("cohere", messages=[{"role": "assistant", "content": [part]}, result])["messages"]
        assert sent["tool_calls"][0]["function"]["arguments"] == "no json"

    def test_results_stand_behind_their_calls_and_the_assistant_is_not_last(self) -> None:
        call = {"type": "tool_call", "call_id": "f_1", "name": "f"}
        messages = [
            {"role": "assistant", "content": [call]},
            {"role": "user", "content": "And?"},
            {"role": "tool", "call_id": "f_1", "content": "1"},
            {"role": "assistant", "content": "Well"},
        ]
        target = Target("m1", on_unsupported="drop")
        native = parse_request(json.dumps({"messages": messages}).encode())
        sent = json.loads(get_provider("cohere").build_request(native, target).body)["messages"]
        assert [message["role"] for message in sent] == ["assistant", "tool", "user"]
        assert target.changes.adjusted == {"messages[2]": "moved to its call"}
        assert target.changes.dropped == ["messages[3]"]
        with pytest.raises(Unsupported, match=r"`messages\[3\]`: a last message of the assistant"):
            request("cohere", messages=messages)

    def test_numbers_are_the_nearest_that_it_takes_under_the_names_of_the_request(self) -> None:
        target = Target("m1", on_unsupported="drop")
        fields = {"query": "?", "temperature": 1.8, "top_p": 1, "stop": list("abcdef"), "presence_penalty": -1}
        sent = json.loads(get_provider("cohere").build_request(parse_request(json.dumps(fields).encode()), target).body)
        assert (sent["temperature"], sent["p"], sent["presence_penalty"]) == (1, 0.99, 0)
        assert sent["stop_sequences"] == list("abcde")
        assert target.changes.adjusted == {"temperature": "1", "top_p": "0.99", "presence_penalty": "0"}
        assert target.changes.dropped == ["stop[5]"]

    def test_images_are_refused_for_a_model_that_reads_none(self) -> None:
        image = {"type": "image", "url": "https://a.example/i.png"}
        native = parse_request(json.dumps({"messages": [{"role": "user", "content": [image]}]}).encode())
        for name in ("cohere", "ollama", "openai:responses"):
            with pytest.raises(Unsupported, match=r"`messages\[0\]\.content\[0\]`: this model reads no images"):
                get_provider(name).build_request(native, Target("m1", corrections={"images": False}))

    @pytest.mark.parametrize(
        ("fields", "path"),
        [
            ({"metadata": {"a": 1}}, "metadata"),
            ({"tools": [{"name": "f"}], "tool_choice": {"name": "f"}}, "tool_choice"),
            *(
                (
                    {
                        "messages": [
                            *before,
                            {"role": role, "content": [part], **keys},
                            {"role": "user", "content": "?"},
                        ]
                    },
                    f"messages[{len(before)}].content[0]",
                )
                for role, part, keys, before in [
                    ("user", {"type": "audio", "data": "AA==", "media_type": "audio/wav"}, {}, []),
                    ("user", {"type": "file", "data": "AA==", "media_type": "application/pdf"}, {}, []),
                    ("tool", {"type": "image", "url": "https://a.example/i.png"}, {"call_id": "x"}, [CALLS]),
                    ("assistant", {"type": "image", "url": "https://a.example/i.png"}, {}, []),
                ]
            ),
        ],
    )
    def test_what_it_cannot_do_is_refused_by_name_or_left_out(self, fields: dict[str, Any], path: str) -> None:
        with pytest.raises(Unsupported) as refused:
            request("cohere", **fields)
        assert f"`{path}`" in refused.value.message
        target = Target("m1", on_unsupported="drop")
        native = parse_request(json.dumps({"query": "Hi", **fields}).encode())
        get_provider("cohere").build_request(native, target)
        assert target.changes.dropped == [path]
