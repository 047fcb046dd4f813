"""Ollama's own API, both forms."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gai_fast.core.requests.reading import parse_request
from gai_fast.library.collecting import collect
from gai_fast.library.decoding import decode
from gai_fast.model.errors import Error, InvalidRequest, Malformed, Unsupported
from gai_fast.model.events import Event
from gai_fast.providers import Target, get_provider
from tests.unit.providers import answer_reading as answers
from tests.unit.providers.answer_reading import between, body, calls_of, of_type, read_whole, request, text_of

NAMES = ("ollama", "ollama:generate")
COUNTS = {"prompt_eval_count": 9, "eval_count": 4}
PNG = {"type": "image", "data": "AA==", "media_type": "image/png"}


def chunk(content: Any = "", **message: Any) -> dict[str, Any]:
    whole = {"role": "assistant", "content": content, **message}
    return {"model": "m", "created_at": "2026-11-20T09:51:02.1Z", "message": whole, "done": False}


def end(reason: str | None = "stop", **keys: Any) -> dict[str, Any]:
    return chunk() | {"done": True} | ({"done_reason": reason} if reason else {}) | keys


def tool(arguments: Any = None, name: str = "f", **keys: Any) -> dict[str, Any]:
    return {**keys, "function": {"name": name} | ({} if arguments is None else {"arguments": arguments})}


def read(*chunks: Any, provider: str = "ollama") -> list[Event]:
    return answers.read(provider, *chunks, done=False)


class TestAnswer:
    def test_deltas_become_events_between_start_and_finish(self) -> None:
        assert read(chunk("Hi"), end(**COUNTS)) == [
            {"type": "start", "provider": "ollama", "model": "m"},
            {"type": "text.delta", "text": "Hi"},
            {
                "type": "finish",
                "provider": "ollama",
                "model": "m",
                "usage": {"input_tokens": 9, "output_tokens": 4, "total_tokens": 13},
                "finish_reason": "stop",
                "finish_reason_raw": "stop",
            },
        ]

    def test_thinking_is_reasoning_and_comes_first(self) -> None:
        kinds = [event["type"] for event in between(read(chunk("Blue", thinking="Hm"), end()))]
        assert kinds == ["reasoning.delta", "text.delta"]

    @pytest.mark.parametrize("name", NAMES)
    def test_the_other_form_has_the_same_at_its_top(self, name: str) -> None:
        said = {"model": "m", "response": "Blue", "thinking": "Hm", "done": False, "tool_calls": [tool({"n": 1})]}
        events = read(said, {"model": "m", "response": "!", "done": True, "done_reason": "length"}, provider=name)
        assert (text_of(events, "reasoning.delta"), text_of(events)) == ("Hm", "Blue!")
        assert calls_of(events) == [("call_0", "f", '{"n":1}')]
        assert events[-1]["finish_reason"] == "length"

    def test_an_image_is_reported_and_how_far_it_is_is_not(self) -> None:
        drawn = {"model": "m", "response": "", "image": "iVBOR", "done": True, "done_reason": "stop"}
        events = read({"model": "m", "completed": 1, "total": 8, "done": False}, drawn, provider="ollama:generate")
        assert between(events) == [{"type": "image", "image": {"data": "iVBOR", "media_type": "image/png"}}]

    @pytest.mark.parametrize(
        ("word", "reason"), [("stop", "stop"), ("length", "length"), ("load", "other"), ("unload", "other")]
    )
    def test_finish_words(self, word: str, reason: str) -> None:
        finish = read(end(word))[-1]
        assert (finish["finish_reason"], finish["finish_reason_raw"]) == (reason, word)

    def test_an_end_without_a_reason_is_other(self) -> None:
        assert read(end(None))[-1]["finish_reason"] == "other"

    def test_without_its_last_object_an_answer_is_truncated(self) -> None:
        with pytest.raises(Error) as failed:
            read(chunk("Hel"))
        assert (failed.value.code, failed.value.reason) == ("network", "truncated")

    def test_a_failure_is_a_line_of_its_own(self) -> None:
        with pytest.raises(Error) as failed:
            read(chunk("Hel"), {"error": "llama runner process has terminated"})
        assert (failed.value.code, failed.value.message) == ("internal", "llama runner process has terminated")

    def test_what_was_not_counted_is_not_reported(self) -> None:
        assert read(end(eval_count=4))[-1]["usage"] == {"output_tokens": 4}
        assert "usage" not in read(end())[-1]

    def test_what_says_nothing_is_ignored(self) -> None:
        assert read({"status": "success"}, end()) == read(end())

    @pytest.mark.parametrize("line", ["", "5", "[]", "data: {}", chunk(5), {"message": 5}])
    def test_another_shape_is_malformed(self, line: Any) -> None:
        with pytest.raises((Malformed, KeyError, TypeError, AttributeError)):
            read(line)

    @pytest.mark.parametrize("calls", [5, [5], [{}], [{"function": 5}]], ids=str)
    def test_text_beside_calls_that_cannot_be_read_is_kept(self, calls: Any) -> None:
        events = between(read(chunk("Hi", tool_calls=calls), end()))
        assert [event["type"] for event in events] == ["text.delta", "warning"]

    def test_a_whole_answer_is_the_last_object_alone(self) -> None:
        events = read_whole("ollama", chunk("Hi", tool_calls=[tool({"n": 1})]) | {"done": True, "done_reason": "stop"})
        assert (text_of(events), calls_of(events)) == ("Hi", [("call_0", "f", '{"n":1}')])

    def test_only_what_ends_the_answer_is_not_like_the_others(self) -> None:
        adapter = get_provider("ollama").adapter()
        for line, copyable in ((chunk("a"), True), (chunk("b"), True), (end(), False)):
            adapter.receive("", json.dumps(line))
            assert adapter.copyable is copyable


class TestCalls:
    def test_a_call_comes_whole_and_its_numbers_keep_their_digits(self) -> None:
        line = '{"model":"m","message":{"content":"","tool_calls":[{"function":{"name":"f","arguments":{"n": 1.10}}}]}}'
        assert between(read(line, end())) == [
            {"type": "tool.call.start", "call_id": "call_0", "tool_call": {"name": "f"}, "index": 0},
            {"type": "tool.call.delta", "call_id": "call_0", "index": 0, "arguments": '{"n": 1.10}'},
            {"type": "tool.call", "call_id": "call_0", "tool_call": {"name": "f", "input": '{"n":1.10}'}},
        ]

    @pytest.mark.parametrize("given", [tool({"n": 1}), {"0": tool({"n": 1})}, [{"name": "f", "arguments": {"n": 1}}]])
    def test_calls_without_their_list_or_their_function_are_calls(self, given: Any) -> None:
        for name in ("tool_calls", "tool_call"):
            assert calls_of(read(chunk(**{name: given}), end())) == [("call_0", "f", '{"n":1}')]

    def test_calls_with_an_answer_that_stops_are_its_reason(self) -> None:
        assert read(chunk(tool_calls=[tool({})]), end())[-1]["finish_reason"] == "tool_calls"
        assert read(chunk(tool_calls=[tool({})]), end(None))[-1]["finish_reason"] == "tool_calls"
        assert read(chunk(tool_calls=[tool({})]), end("length"))[-1]["finish_reason"] == "length"

    def test_ids_are_its_own_or_made_and_unique(self) -> None:
        both = [tool({"n": 1}, id="call_1"), tool({"n": 2})]
        events = read(chunk(tool_calls=both), chunk(tool_calls=[tool({"n": 3}, id="call_1")]), end())
        identifiers = [identifier for identifier, _, _ in calls_of(events)]
        assert identifiers[0] == "call_1"
        assert len(set(identifiers)) == 3
        assert [event["index"] for event in of_type(events, "tool.call.start")] == [0, 1, 2]

    @pytest.mark.parametrize("arguments", [None, {}, ""])
    def test_no_arguments_are_an_empty_object(self, arguments: Any) -> None:
        assert calls_of(read(chunk(tool_calls=[tool(arguments)]), end())) == [("call_0", "f", "{}")]

    def test_arguments_may_be_text(self) -> None:
        both = [tool('{"n":1}'), tool(), tool({"n": 2})]
        inputs = [arguments for _, _, arguments in calls_of(read(chunk(tool_calls=both), end()))]
        assert inputs == ['{"n":1}', "{}", '{"n":2}']


@pytest.mark.parametrize(
    ("status", "said", "code"),
    [
        (400, "registry.ollama.ai/library/x does not support tools", "invalid_request"),
        (401, "unauthorized", "unauthorized"),
        (404, "model 'x' not found", "not_found"),
        (500, "prompt too long; exceeded max context length by 9 tokens", "context_length_exceeded"),
        (503, "server busy, please try again. maximum pending requests exceeded", "provider_unavailable"),
    ],
)
def test_its_errors_are_a_text_and_a_status(status: int, said: str, code: str) -> None:
    error = get_provider("ollama").decode_error(status, {}, json.dumps({"error": said}).encode())
    assert (error.code, error.message) == (code, said)


@pytest.mark.parametrize(
    ("value", "base_url"),
    [
        ("127.0.0.1", "http://127.0.0.1:11434"),
        ("127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:8000", "http://127.0.0.1:8000"),
        (":8000", "http://127.0.0.1:8000"),
        ("::", "http://[::1]:11434"),
        ("fe80::1", "http://[fe80::1]:11434"),
        ("[::1]:8000", "http://[::1]:8000"),
        ("gpu.example", "http://gpu.example:11434"),
        ("http://gpu.example", "http://gpu.example"),
        ("http://gpu.example:8000", "http://gpu.example:8000"),
        ("https://ollama.com/", "https://ollama.com/"),
        ("https://proxy.example/ollama", "https://proxy.example/ollama"),
        (' "gpu.example" ', "http://gpu.example:11434"),
        ("gpu.example:port", "gpu.example:port"),
    ],
)
def test_its_variable_is_an_address_as_ollama_reads_it(value: str, base_url: str) -> None:
    assert get_provider("ollama").address(value) == base_url


class TestChatRequest:
    def test_a_query_alone(self) -> None:
        sent = request("ollama", api_key=None)
        assert sent.path == "/api/chat"
        assert "authorization" not in dict(sent.headers)
        assert json.loads(sent.body) == {"model": "m1", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
        assert dict(request("ollama").headers)["authorization"] == "Bearer k"

    def test_sampling_stands_under_options(self) -> None:
        given = {"temperature": 0, "top_p": 0.5, "max_tokens": 7, "stop": ["x"], "seed": 0}
        sent = body("ollama", **given, provider_options={"ollama": {"options": {"num_ctx": 8}, "keep_alive": "5m"}})
        options = {"temperature": 0, "top_p": 0.5, "num_predict": 7, "stop": ["x"], "seed": 0, "num_ctx": 8}
        assert (sent["options"], sent["keep_alive"]) == (options, "5m")

    def test_parts(self) -> None:
        parts = [{"type": "text", "text": "a"}, PNG, {"type": "text", "text": "b"}]
        inline = [{"type": "image", "url": "data:image/png;base64,BB=="}]
        said = {"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}
        messages = [{"role": "user", "content": parts}, {"role": "user", "content": inline}, said]
        assert body("ollama", system="Brief.", messages=messages)["messages"] == [
            {"role": "system", "content": "Brief."},
            {"role": "user", "content": "a\n\nb", "images": ["AA=="]},
            {"role": "user", "content": "", "images": ["BB=="]},
            {"role": "assistant", "content": "ab"},
        ]

    def test_tools(self) -> None:
        about = {"name": "f", "description": "d", "parameters": {"type": "object", "x": 1}}
        sent = body("ollama", tools=[{**about, "strict": False}, {"name": "g"}], tool_choice="auto")
        assert sent["tools"] == [
            {"type": "function", "function": about},
            {"type": "function", "function": {"name": "g", "parameters": {"type": "object"}}},
        ]
        assert "tool_choice" not in sent

    def test_a_call_is_forbidden_by_offering_no_tools(self) -> None:
        assert "tools" not in body("ollama", tools=[{"name": "f"}], tool_choice="none")

    def test_response_formats(self) -> None:
        schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
        assert "format" not in body("ollama", response_format={"type": "text"})
        assert body("ollama", response_format={"type": "json"})["format"] == "json"
        assert body("ollama", response_format={"type": "json_schema", "schema": schema})["format"] == schema
        with pytest.raises(InvalidRequest, match="schema"):
            request("ollama", response_format={"type": "json_schema"})

    @pytest.mark.parametrize(("effort", "think"), [("minimal", "low"), ("low", "low"), ("high", "high")])
    def test_an_effort_is_what_it_thinks(self, effort: str, think: str) -> None:
        assert body("ollama", reasoning={"effort": effort})["think"] == think
        override = {"ollama": {"think": True}}
        assert body("ollama", reasoning={"effort": effort}, provider_options=override)["think"] is True
        assert "think" not in body("ollama", reasoning={})

    def test_a_turn_with_tools_goes_back_as_it_came(self) -> None:
        lines = [chunk(thinking="Hm"), chunk("Wait."), chunk(tool_calls=[tool({"n": 12345678901234567890})]), end()]
        answer = collect(decode("ollama", ["\n".join(map(json.dumps, lines)).encode()])).message
        made = answer["content"][-1]["call_id"]
        again = {"role": "assistant", "content": [{"type": "tool_call", "call_id": made, "name": "g"}]}
        results = [{"role": "tool", "call_id": call_id, "content": "4"} for call_id in (made, "lost")]
        assert body("ollama", messages=[answer, results[0], again, *results])["messages"] == [
            {
                "role": "assistant",
                "content": "Wait.",
                "thinking": "Hm",
                "tool_calls": [{"function": {"name": "f", "arguments": {"n": 12345678901234567890}}}],
            },
            {"role": "tool", "content": "4", "tool_name": "f"},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"function": {"name": "g", "arguments": {}}}],
            },
            {"role": "tool", "content": "4", "tool_name": "g"},
            {"role": "tool", "content": "4"},
        ]

    def test_results_stand_in_the_order_of_their_calls_which_is_all_that_assigns_them(self) -> None:
        """The SDK's types have no ids of calls."""
        calls = [{"type": "tool_call", "call_id": each, "name": "f"} for each in ("a", "b")]
        results = [{"role": "tool", "call_id": each, "content": each.upper()} for each in ("b", "a")]
        sent = body("ollama", messages=[{"role": "assistant", "content": calls}, *results])["messages"]
        assert [message["content"] for message in sent[1:]] == ["A", "B"]

    def test_thoughts_of_others_do_not_go_back(self) -> None:
        parts = [{"type": "reasoning", "text": "Ha", "provider": "anthropic"}, {"type": "text", "text": "Blue"}]
        [sent] = body("ollama", messages=[{"role": "assistant", "content": parts}])["messages"]
        assert sent == {"role": "assistant", "content": "Blue"}


class TestGenerateRequest:
    def test_a_query_is_the_prompt(self) -> None:
        sent = request("ollama:generate", system="Brief.", max_tokens=7, reasoning={"effort": "low"})
        assert sent.path == "/api/generate"
        assert json.loads(sent.body) == {
            "model": "m1",
            "prompt": "Hi",
            "system": "Brief.",
            "stream": True,
            "options": {"num_predict": 7},
            "think": "low",
        }

    def test_images_go_along(self) -> None:
        messages = [{"role": "user", "content": [{"type": "text", "text": "What?"}, PNG]}]
        sent = body("ollama:generate", messages=messages)
        assert (sent["prompt"], sent["images"]) == ("What?", ["AA=="])

    def test_an_image_alone_is_a_prompt_though_other_parts_are_left_out(self) -> None:
        audio = {"type": "audio", "data": "AA==", "media_type": "audio/wav"}
        target = Target("m1", on_unsupported="drop")
        asked = json.dumps({"messages": [{"role": "user", "content": [PNG, audio]}]}).encode()
        sent = json.loads(get_provider("ollama:generate").build_request(parse_request(asked), target).body)
        assert (sent["prompt"], sent["images"]) == ("", ["AA=="])
        assert target.changes.dropped == ["messages[0].content[1]"]

    def test_the_last_message_must_be_the_users(self) -> None:
        with pytest.raises(Unsupported, match=r"messages\[0\]"):
            request("ollama:generate", messages=[{"role": "assistant", "content": "x"}])


@pytest.mark.parametrize("content", ["", [{"type": "text", "text": ""}]])
def test_an_empty_text_of_the_user_is_sent_in_every_form(content: Any) -> None:
    assert body("ollama", messages=[{"role": "user", "content": content}])["messages"] == [
        {"role": "user", "content": ""}
    ]


TURNS = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]


@pytest.mark.parametrize(
    ("name", "fields", "paths"),
    [
        ("ollama", {"metadata": {"a": 1}}, ["metadata"]),
        ("ollama", {"tools": [{"name": "f"}], "tool_choice": "required"}, ["tool_choice"]),
        ("ollama", {"tools": [{"name": "f"}], "tool_choice": {"name": "f"}}, ["tool_choice"]),
        ("ollama", {"tools": [{"name": "f"}, {"name": "g", "strict": True}]}, ["tools[1].strict"]),
        ("ollama", {"reasoning": {"max_tokens": 9}}, ["reasoning.max_tokens"]),
        *(
            ("ollama", {"messages": [{"role": "user", "content": [part]}], "query": "?"}, ["messages[0].content[0]"])
            for part in (
                {"type": "image", "url": "https://a.example/i.png"},
                {"type": "audio", "data": "AA==", "media_type": "audio/wav"},
                {"type": "file", "data": "AA==", "media_type": "text/plain"},
            )
        ),
        ("ollama:generate", {"messages": TURNS}, ["messages[0]", "messages[1]"]),
        ("ollama:generate", {"tools": [{"name": "f"}], "tool_choice": "none"}, ["tools", "tool_choice"]),
    ],
)
def test_what_it_cannot_do_is_refused_by_name_or_left_out(name: str, fields: dict[str, Any], paths: list[str]) -> None:
    with pytest.raises(Unsupported) as refused:
        request(name, **fields)
    assert f"`{paths[0]}`" in refused.value.message
    target = Target("m1", on_unsupported="drop")
    asked = fields if "messages" in fields else {"query": "Hi", **fields}
    get_provider(name).build_request(parse_request(json.dumps(asked).encode()), target)
    assert target.changes.dropped == paths
