"""Requests of the chat dialect."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming

from gai_fast.core.requests.reading import parse_request
from gai_fast.model.errors import Unsupported
from gai_fast.providers import Target, get_provider
from tests.unit.providers.answer_reading import (
    body,
    body_without,
    request,
    validated,
)

# DeepSeek adds nothing to how the dialect is read; what it refuses is in its own test.
DIALECT = "deepseek"


TEXT_PART = {"type": "text", "text": "x"}


FULL: dict[str, Any] = {
    "system": "Be brief.",
    "messages": [
        {"role": "user", "content": [TEXT_PART, {"type": "image", "data": "AAAA", "media_type": "image/png"}]},
        {"role": "assistant", "content": [
            {"type": "reasoning", "text": "hm", "signature": "s", "provider": "another"},
            TEXT_PART,
            {"type": "tool_call", "call_id": "call_1", "name": "weather", "input": {"city": "Oslo"}},
        ]},
        {"role": "tool", "call_id": "call_1", "content": "4 °C"},
    ],
    "query": "So?",
    "tools": [{"name": "weather", "description": "d", "parameters": {"type": "object"}, "strict": True}],
    "tool_choice": {"name": "weather"},
    "response_format": {"type": "json"},
    "reasoning": {"effort": "high"},
    "temperature": 0.5, "top_p": 0.5, "max_tokens": 5, "stop": ["x"], "seed": 1,
}  # fmt: skip


FULL_REQUEST = parse_request(json.dumps(FULL).encode())


class TestRequest:
    def test_a_query_is_a_user_message(self) -> None:
        sent = request(DIALECT, model="m1", api_key="secret", query="Hi")
        assert (sent.method, sent.path) == ("POST", "/chat/completions")
        assert dict(sent.headers) == {
            "content-type": "application/json",
            "accept": "text/event-stream",
            "authorization": "Bearer secret",
        }
        assert json.loads(sent.body) == {
            "model": "m1",
            "messages": [{"role": "user", "content": "Hi"}],
            "stream": True,
            "stream_options": {"include_usage": True},
        }

    def test_no_key_is_no_header(self) -> None:
        assert "authorization" not in dict(request(DIALECT, api_key=None).headers)

    def test_the_stream_is_asked_for_even_where_the_client_wants_none(self) -> None:
        assert body(DIALECT, stream=False)["stream"] is True

    def test_messages_of_every_role(self) -> None:
        messages = [
            {"role": "system", "content": [{"type": "text", "text": "Be"}, {"type": "text", "text": " brief."}]},
            {"role": "user", "content": [
                {"type": "text", "text": "Look:"},
                {"type": "image", "url": "https://x/y.png"},
                {"type": "image", "data": "AAAA", "media_type": "image/png"},
            ]},
            {"role": "assistant", "content": [
                {"type": "text", "text": "Let me"}, {"type": "text", "text": " look."},
                {"type": "tool_call", "call_id": "a", "name": "f", "input": {"n": 12345678901234567890}},
            ]},
            {"role": "tool", "call_id": "a", "content": [{"type": "text", "text": "4 °C"}]},
            {"role": "assistant", "content": [{"type": "tool_call", "call_id": "b", "name": "f"}]},
            {"role": "assistant", "content": "So."},
        ]  # fmt: skip
        assert body(DIALECT, system="First.", messages=messages, query="Last?")["messages"] == [
            {"role": "system", "content": "First."},
            {"role": "system", "content": "Be\n\n brief."},
            {"role": "user", "content": [
                {"type": "text", "text": "Look:"},
                {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
            ]},
            {"role": "assistant", "content": "Let me look.", "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"n": 12345678901234567890}'}}
            ]},
            {"role": "tool", "tool_call_id": "a", "content": "4 °C"},
            {"role": "assistant", "content": None, "tool_calls": [
                {"id": "b", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            ]},
            {"role": "assistant", "content": "So."},
            {"role": "user", "content": "Last?"},
        ]  # fmt: skip

    @pytest.mark.parametrize("role", ["system", "tool"])
    def test_several_texts_are_parts_or_parted_by_a_blank_line(self, role: str) -> None:
        parts = [{"type": "text", "text": "Be brief."}, {"type": "text", "text": "Be kind."}]
        call = {"role": "assistant", "content": [{"type": "tool_call", "call_id": "a", "name": "f"}]}
        result = {"role": role, "content": parts} | ({"call_id": "a"} if role == "tool" else {})
        for provider in ("openai", "openai-compatible", "azure", "groq", "openrouter"):
            assert body(provider, messages=[call, result], query="Hi")["messages"][1]["content"] == parts
        sent = body("deepseek", messages=[call, result], query="Hi")["messages"][1]
        assert sent["content"] == "Be brief.\n\nBe kind."

    @pytest.mark.parametrize(
        ("message", "named"),
        [
            (
                {"role": "user", "content": [TEXT_PART, {"type": "audio", "data": "A", "media_type": "audio/flac"}]},
                "audio parts in user messages",
            ),
            (
                {
                    "role": "tool",
                    "call_id": "a",
                    "content": [TEXT_PART, {"type": "file", "data": "QQ==", "media_type": "application/pdf"}],
                },
                "file parts in tool messages",
            ),
            (
                {"role": "assistant", "content": [TEXT_PART, {"type": "image", "url": "https://x"}]},
                "image parts in assistant messages",
            ),
        ],
    )
    def test_parts_that_have_no_place_are_refused_by_their_path_or_left_out(self, message: Any, named: str) -> None:
        call = {"role": "assistant", "content": [{"type": "tool_call", "call_id": "a", "name": "f"}]}
        messages = [call if message["role"] == "tool" else {"role": "user", "content": "a"}, message]
        with pytest.raises(Unsupported) as refused:
            request(DIALECT, messages=messages)
        assert refused.value.message == f"{DIALECT} does not support `messages[1].content[1]`: {named}"
        sent, dropped = body_without(DIALECT, messages=messages)
        assert dropped == ["messages[1].content[1]"]
        content = sent["messages"][1]["content"]
        assert content in ("x", [TEXT_PART])

    @pytest.mark.parametrize("provider", ["openai", "azure", "xai", "deepseek", "openai-compatible"])
    def test_images_of_results_follow_the_last_result_in_a_message_of_the_user(self, provider: str) -> None:
        """Results are texts in the dialect (github.com/BerriAI/litellm/issues/20403, ggml-org/llama.cpp#22536)."""
        calls = [{"type": "tool_call", "call_id": f"call_000{at}", "name": "f"} for at in range(2)]
        image = {"type": "image", "data": "AAAA", "media_type": "image/png"}
        messages = [
            {"role": "user", "content": "Read a.png and b.txt"},
            {"role": "assistant", "content": calls},
            {"role": "tool", "call_id": "call_0000", "content": [image]},
            {"role": "tool", "call_id": "call_0001", "content": [TEXT_PART, image]},
        ]
        shown = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
        places = ["messages[2].content[0]", "messages[3].content[1]"]
        adjusted = dict.fromkeys(places, "in a message of the user")
        for query in ({}, {"query": "Well?"}):
            target = Target("m")
            native = parse_request(json.dumps({"messages": messages, **query}).encode())
            sent = json.loads(get_provider(provider).build_request(native, target).body)
            roles = [message["role"] for message in sent["messages"][2:]]
            assert roles == ["tool", "tool", "user", *["user"] * len(query)]
            assert [message["content"] for message in sent["messages"][2:5]] == ["", "x", [shown, shown]]
            assert (target.changes.adjusted, target.changes.dropped) == (adjusted, [])
            validated(CompletionCreateParamsStreaming, sent)
        blind = Target("m", on_unsupported="drop", corrections={"images": False})
        sent = json.loads(get_provider(provider).build_request(native, blind).body)
        assert [message["content"] for message in sent["messages"][2:]] == ["", "x", "Well?"]
        assert (blind.changes.adjusted, blind.changes.dropped) == ({}, places)

    def test_a_message_of_which_nothing_is_left_is_left_out(self) -> None:
        audio = {"type": "audio", "data": "A", "media_type": "audio/flac"}
        sent, dropped = body_without(DIALECT, messages=[{"role": "user", "content": [audio, audio]}], query="Hi")
        assert sent["messages"] == [{"role": "user", "content": "Hi"}]
        assert dropped == ["messages[0].content[0]", "messages[0].content[1]"]

    def test_audio_and_files_of_a_user(self) -> None:
        parts = [
            {"type": "audio", "data": "AA", "media_type": "audio/mpeg"},
            {"type": "file", "data": "BB", "media_type": "application/pdf", "filename": "a.pdf"},
            {"type": "file", "data": "CC", "media_type": "application/pdf"},
        ]
        assert body("openai", messages=[{"role": "user", "content": parts}])["messages"][0]["content"] == [
            {"type": "input_audio", "input_audio": {"data": "AA", "format": "mp3"}},
            {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,BB"}},
            {"type": "file", "file": {"filename": "file.pdf", "file_data": "data:application/pdf;base64,CC"}},
        ]
        with pytest.raises(Unsupported, match=r"`messages\[0\].content\[0\]`: audio of type audio/flac"):
            request("openai", messages=[{"role": "user", "content": [{**parts[0], "media_type": "audio/flac"}]}])

    def test_arguments_that_were_never_json_go_back_as_they_were(self) -> None:
        call = {"type": "tool_call", "call_id": "a", "name": "f", "input": '{"oops'}
        sent = body(DIALECT, messages=[{"role": "assistant", "content": [call]}])
        assert sent["messages"][0]["tool_calls"][0]["function"]["arguments"] == '{"oops'

    @pytest.mark.parametrize("provider", ["openai", "azure", "xai", "openrouter", "openai-compatible", "deepseek"])
    def test_a_full_request_is_what_the_official_sdk_would_send(self, provider: str) -> None:
        sent = body(provider, **FULL)
        assert validated(CompletionCreateParamsStreaming, sent) == {
            key: value for key, value in sent.items() if key in CompletionCreateParamsStreaming.__annotations__
        }
        assert sent.keys() - CompletionCreateParamsStreaming.__annotations__ <= {"stream", "reasoning"}

    def test_tools_keep_their_schema_verbatim(self) -> None:
        tools = [{"name": "f", "description": "d", "strict": True, "parameters": {"type": "object", "maximum": 1e400}}]
        raw = json.dumps({"query": "q", "tools": tools}).replace("Infinity", "1e400")
        sent = get_provider(DIALECT).build_request(parse_request(raw.encode()), Target("m1"))
        assert b'"parameters":{"type": "object", "maximum": 1e400}' in sent.body
        assert body(DIALECT, tools=[{"name": "g"}])["tools"] == [
            {"type": "function", "function": {"name": "g", "parameters": {"type": "object"}}}
        ]

    @pytest.mark.parametrize(
        ("choice", "sent"),
        [
            ("auto", "auto"),
            ("none", "none"),
            ("required", "required"),
            ({"name": "f"}, {"type": "function", "function": {"name": "f"}}),
        ],
    )
    def test_the_choice_of_a_tool(self, choice: Any, sent: Any) -> None:
        assert body(DIALECT, tools=[{"name": "f"}], tool_choice=choice)["tool_choice"] == sent

    def test_how_the_answer_is_drawn(self) -> None:
        sent = body(DIALECT, temperature=0, top_p=0.5, max_tokens=9, seed=0, stop=["x"], reasoning={"effort": "low"})
        assert {
            key: sent[key] for key in ("temperature", "top_p", "max_tokens", "seed", "stop", "reasoning_effort")
        } == {
            "temperature": 0,
            "top_p": 0.5,
            "max_tokens": 9,
            "seed": 0,
            "stop": ["x"],
            "reasoning_effort": "low",
        }

    def test_a_budget_for_reasoning_has_no_place(self) -> None:
        with pytest.raises(Unsupported, match=r"`reasoning\.max_tokens`"):
            request(DIALECT, reasoning={"max_tokens": 5})
        sent, dropped = body_without(DIALECT, reasoning={"max_tokens": 5, "effort": "low"})
        assert (sent["reasoning_effort"], dropped) == ("low", ["reasoning.max_tokens"])

    @pytest.mark.parametrize(
        ("provider", "effort"),
        [("openai", "minimal"), ("mistral", "minimal"), ("groq", "low"), ("xai", "low"), ("perplexity", "low")],
    )
    def test_the_least_effort_is_the_nearest_that_the_provider_knows(self, provider: str, effort: str) -> None:
        assert body(provider, reasoning={"effort": "minimal"})["reasoning_effort"] == effort

    @pytest.mark.parametrize(("kind", "sent"), [("text", "text"), ("json", "json_object")])
    def test_the_format_of_the_answer(self, kind: str, sent: str) -> None:
        assert body(DIALECT, response_format={"type": kind})["response_format"] == {"type": sent}

    def test_an_answer_by_a_schema_may_leave_it_out(self) -> None:
        wanted = body("openai", response_format={"type": "json_schema"})["response_format"]
        assert wanted == {"type": "json_schema", "json_schema": {"name": "answer"}}

    def test_options_of_this_provider_go_last(self) -> None:
        options = {DIALECT: {"top_k": 3, "temperature": 1}, "other": {"top_k": 9}}
        sent = body(DIALECT, temperature=0.5, provider_options=options)
        assert (sent["top_k"], sent["temperature"]) == (3, 1)

    def test_options_are_merged_member_by_member_and_null_takes_away(self) -> None:
        options = {DIALECT: {"response_format": {"schema": {}}, "seed": None}}
        sent = body(DIALECT, seed=1, response_format={"type": "json"}, provider_options=options)
        assert sent["response_format"] == {"type": "json_object", "schema": {}}
        assert "seed" not in sent

    def test_a_request_of_the_dialect_passes_with_its_model_replaced(self) -> None:
        asked = {"model": "fast", "n": 2, "seed": 2**70, "messages": [], "unheard_of": [1.5]}
        sent = get_provider(DIALECT).build_passthrough(asked, Target("m1", "k"))
        assert json.loads(sent.body) == {**asked, "model": "m1"}
        assert asked["model"] == "fast"
        assert dict(sent.headers)["authorization"] == "Bearer k"
