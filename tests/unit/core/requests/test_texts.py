"""`core/requests/texts.py`: the texts of requests, and requests with other texts in their places."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import msgspec
import pytest

from gai_fast.core.requests.reading import parse_request
from gai_fast.core.requests.texts import Path, Text, has_tokens, names_tokens, texts_in, texts_of, with_texts
from gai_fast.formats import get_format
from gai_fast.formats.chat import completions_request
from gai_fast.formats.chat import request as chat_request
from gai_fast.formats.messages import request as messages_request
from gai_fast.formats.responses import request as responses_request
from gai_fast.model.request import Request

NATIVE: dict[str, Any] = {
    "system": "be brief",
    "messages": [
        {"role": "system", "content": [{"type": "text", "text": "part"}]},
        {"role": "user", "content": "hello"},
        {
            "role": "user",
            "content": [
                {"type": "image", "url": "https://a.example/x"},
                {"type": "text", "text": "see", "cache": True},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "reasoning", "text": "hm", "signature": "s1"},
                {"type": "reasoning", "text": "free"},
                {"type": "tool_call", "call_id": "c", "name": "f", "input": {"city": "Rome", "n": [1.50, "x\u00e9"]}},
                {"type": "tool_call", "call_id": "d", "name": "f", "input": {}, "signature": "s2"},
                {"type": "provider_block", "provider": "openai", "block": {"type": "b", "text": "own"}},
            ],
        },
        {"role": "tool", "call_id": "c", "content": [{"type": "text", "text": "sunny"}]},
    ],
    "query": "and?",
    "tools": [{"name": "secret", "description": "secret"}],
    "metadata": {"a": "secret"},
    "stop": ["secret"],
}


def changed(request: Any, found: list[Text], change: dict[str, str]) -> Any:
    """Returns a request in which texts are replaced, and what proved them is left out."""
    texts: dict[Path, Any] = {}
    left_out: list[Path] = []
    for each in found:
        strings = [change.get(string, string) for string in each.strings]
        if strings != each.strings:
            texts[each.path] = each.with_strings(strings)
            left_out += each.proofs
    return with_texts(request, texts, left_out)


def strings(found: list[Text]) -> list[str]:
    return [string for each in found for string in each.strings]


class TestNative:
    @pytest.fixture
    def request_(self) -> Request:
        return parse_request(json.dumps(NATIVE).encode())

    def test_all_texts_are_found_in_their_order(self, request_: Request) -> None:
        assert strings(texts_of(request_)) == [
            *("be brief", "part", "hello", "see", "hm", "free", "city", "Rome", "n", "x\u00e9"),
            *("type", "b", "text", "own", "sunny", "and?"),
        ]

    def test_others_stand_in_their_places_and_nothing_else_changes(self, request_: Request) -> None:
        change = {"be brief": "1", "part": "2", "see": "3", "Rome": '4"', "sunny": "5", "and?": "6"}
        native = changed(request_, texts_of(request_), change)
        expected = json.loads(json.dumps(NATIVE))
        expected["system"], expected["query"] = "1", "6"
        expected["messages"][0]["content"][0]["text"] = "2"
        expected["messages"][2]["content"][1]["text"] = "3"
        expected["messages"][3]["content"][2]["input"]["city"] = '4"'
        expected["messages"][4]["content"][0]["text"] = "5"
        expected["messages"][3]["content"][2]["input"]["n"][0] = 1.5
        assert json.loads(msgspec.json.encode(native)) == json.loads(
            msgspec.json.encode(parse_request(json.dumps(expected).encode()))
        )
        assert bytes(native.messages[3].content[2].input) == b'{"city": "4\\"", "n": [1.5, "x\\u00e9"]}'
        assert native.messages[1] is request_.messages[1]
        assert native.tools is request_.tools
        assert request_.system == "be brief"

    def test_what_proves_a_text_does_not_stay(self, request_: Request) -> None:
        native = changed(request_, texts_of(request_), {"hm": "x", "own": "x", "free": "x"})
        kinds = [part.__struct_config__.tag for part in native.messages[3].content]
        assert kinds == ["reasoning", "tool_call", "tool_call"]
        assert native.messages[3].content[0].text == "x"

    def test_a_signed_call_loses_its_signature_alone(self) -> None:
        part = {"type": "tool_call", "call_id": "d", "name": "f", "input": {"a": "b"}, "signature": "s2"}
        request = parse_request(json.dumps({"messages": [{"role": "assistant", "content": [part]}]}).encode())
        native = changed(request, texts_of(request), {"b": "x"})
        [call] = native.messages[0].content
        assert (bytes(call.input), call.signature or "") == (b'{"a": "x"}', "")


class TestDialects:
    def texts(self, body: dict[str, Any], *members: str) -> list[str]:
        return strings(texts_in(body, members))

    def test_chat(self) -> None:
        call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"to": "a\\u0062"}'}}
        body: dict[str, Any] = {
            "model": "m",
            "messages": [
                {"role": "system", "content": "sys", "name": "n"},
                {
                    "role": "user",
                    "content": [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": "x"}}],
                },
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [call],
                    "reasoning_content": "why",
                    "refusal": "no",
                },
                {"role": "tool", "tool_call_id": "c1", "content": "done"},
                {
                    "role": "user",
                    "content": [{"type": "file", "file": {"file_data": "x"}}, {"type": "new", "what": "seen"}],
                },
            ],
            "metadata": {"a": "b"},
        }
        assert self.texts(body, "messages") == [
            *("sys", "n", "hi", "to", "ab", "why", "no", "done"),
            *("type", "new", "what", "seen"),
        ]
        new = changed(body, texts_in(body, ["messages"]), {"ab": "\u00e9", "hi": "bye"})
        assert new["messages"][2]["tool_calls"][0]["function"]["arguments"] == '{"to": "\u00e9"}'
        assert new["messages"][1]["content"][0] == {"type": "text", "text": "bye"}
        assert new["messages"][0] is body["messages"][0]
        assert body["messages"][2]["tool_calls"][0]["function"]["arguments"] == '{"to": "a\\u0062"}'

    def test_a_role_of_no_dialect_and_the_words_of_a_sound_are_texts(self) -> None:
        sound = {"id": "a", "data": "x", "format": "wav", "transcript": "hi"}
        body = {"messages": [{"role": "poet", "content": "a"}, {"role": "assistant", "audio": sound}, {"audio": "x"}]}
        assert self.texts({**body, "audio": {"voice": "alloy"}}, "messages") == ["poet", "a", "hi"]

    def test_a_signature_beside_a_call_or_in_reasoning_of_the_chat_dialect(self) -> None:
        call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": "b"}'}}
        signed = {**call, "extra_content": {"google": {"thought_signature": "s"}}}
        details = [{"type": "reasoning.text", "text": "hm", "signature": "s"}, {"type": "reasoning.text", "text": "ok"}]
        body = {"messages": [{"role": "assistant", "tool_calls": [signed], "reasoning_details": details}]}
        new = changed(body, texts_in(body, ["messages"]), {"b": "x", "hm": "y"})
        assert new["messages"][0]["tool_calls"][0] == {**call, "function": {"name": "f", "arguments": '{"a": "x"}'}}
        assert new["messages"][0]["reasoning_details"] == details[1:]

    def test_messages(self) -> None:
        body = {
            "system": [{"type": "text", "text": "sys", "cache_control": {"type": "ephemeral"}}],
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "document",
                            "title": "t",
                            "source": {"type": "text", "media_type": "text/plain", "data": "doc"},
                        },
                        {"type": "document", "source": {"type": "base64", "data": "x"}},
                        {
                            "type": "document",
                            "source": {"type": "content", "content": [{"type": "text", "text": "in"}]},
                        },
                        {"type": "image", "source": {"type": "url", "url": "x"}},
                    ],
                },
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "hm", "signature": "s"},
                        {"type": "redacted_thinking", "data": "x"},
                        {"type": "tool_use", "id": "t1", "name": "f", "input": {"k": {"deep": "v"}}},
                        {"type": "server_tool_use", "id": "t2", "name": "web_search", "input": {"query": "q"}},
                        {
                            "type": "web_search_tool_result",
                            "tool_use_id": "t2",
                            "content": [
                                {
                                    "type": "web_search_result",
                                    "title": "T",
                                    "url": "u",
                                    "encrypted_content": "x",
                                    "page_age": "1d",
                                }
                            ],
                        },
                    ],
                },
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "res"}]},
            ],
        }
        found = texts_in(body, ["system", "messages"])
        assert strings(found) == ["sys", "t", "doc", "in", "hm", "k", "deep", "v", "query", "q", "T", "u", "res"]
        new = changed(body, found, {"hm": "x", "v": "w", "T": "y"})
        answer = new["messages"][1]["content"]
        assert [each["type"] for each in answer][:2] == ["redacted_thinking", "tool_use"]
        assert answer[1]["input"] == {"k": {"deep": "w"}}
        assert answer[3]["content"] == []

    def test_responses(self) -> None:
        body = {
            "instructions": "ins",
            "input": [
                {
                    "role": "user",
                    "content": [{"type": "input_text", "text": "hi"}, {"type": "input_image", "image_url": "x"}],
                },
                {
                    "type": "reasoning",
                    "id": "rs_1",
                    "summary": [{"type": "summary_text", "text": "hm"}],
                    "encrypted_content": "e",
                },
                {
                    "type": "message",
                    "id": "msg_1",
                    "role": "assistant",
                    "content": [
                        {"type": "output_text", "text": "out", "annotations": [], "logprobs": [{"token": "out"}]}
                    ],
                },
                {"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"a": "b"}'},
                {"type": "function_call", "call_id": "d", "name": "f", "arguments": "not json"},
                {"type": "custom_tool_call", "call_id": "e", "name": "f", "input": "free"},
                {"type": "function_call_output", "call_id": "c", "output": "o"},
                {"type": "item_reference", "id": "msg_2"},
            ],
            "prompt": {
                "id": "pmpt_1",
                "variables": {"who": "me", "name": "Ann", "x_id": "y", "what": {"type": "input_text", "text": "it"}},
            },
        }
        found = texts_in(body, ["instructions", "input", "prompt"])
        assert strings(found) == ["ins", "hi", "hm", "out", "a", "b", "not json", "free", "o", "me", "Ann", "y", "it"]
        new = changed(body, found, {"hm": "x", "out": "y"})
        assert [each.get("type") for each in new["input"]][:2] == [None, "message"]
        assert new["input"][1]["content"] == [{"type": "output_text", "text": "y", "annotations": []}]
        assert self.texts({"input": "plain"}, "input") == ["plain"]

    def test_completions(self) -> None:
        assert self.texts({"prompt": ["a", "b"], "suffix": "c"}, "prompt", "suffix") == ["a", "b", "c"]
        assert self.texts({"prompt": [1, 2]}, "prompt") == []


class TestRawMembers:
    """What a native request, or a body in a dialect, has beside the conversation, and may have in its place."""

    MEMBERS: ClassVar[dict[str, Any]] = {
        "messages": [{"role": "user", "content": "a"}],
        "Messages": "b",
        "contents": [{"parts": [{"text": "c"}]}],
        "documents": [{"id": "x", "text": "d"}],
        "metadata": {"x": "y"},
        "temperature": 1,
        "service_tier": "flex",
        "cached_id": "x",
        "text": {"format": {"type": "text"}, "verbosity": "low"},
    }

    def test_they_are_texts_of_native_requests_unless_they_are_settings(self) -> None:
        members = {**self.MEMBERS, "text": "e"}
        request = parse_request(
            json.dumps({"query": "q", "provider_options": {"openai": members}, "extra": self.MEMBERS}).encode()
        )
        found = texts_of(request)
        raw = ["a", "b", "c", "id", "x", "text", "d", "x"]
        assert strings(found) == ["q", *raw, "e", *raw]
        new = changed(request, found, {"a": "1", "d": "2"})
        assert new.extra == {
            **self.MEMBERS,
            "messages": [{"role": "user", "content": "1"}],
            "documents": [{"id": "x", "text": "2"}],
        }
        assert new.provider_options["openai"]["messages"] == new.extra["messages"]
        assert new.provider_options["openai"]["text"] == "e"
        assert request.extra == self.MEMBERS

    @pytest.mark.parametrize("name", ["data", "name", "file", "version", "status", "x_id", "type", "id", "signature"])
    def test_no_name_of_a_member_hides_a_text_in_an_object_of_no_dialect(self, name: str) -> None:
        for place in ("documents", "data", "messages", "input", "variables"):
            document = {"id": "d", "data": {name: "kestrel", "kestrel": 1}}
            for value in (
                [document],
                document,
                [{"role": "tool", "content": [{"type": "document", "document": document}]}],
            ):
                found = texts_in({place: value}, ())
                assert strings(found).count("kestrel") == 2, (place, value)
                new = json.dumps(changed({place: value}, found, {"kestrel": "k", "d": "e"}))
                assert "kestrel" not in new

    def test_an_object_of_no_dialect_keeps_its_numbers_and_halves_of_surrogates(self) -> None:
        body = {"documents": [{"a": "x", "b": "\ud83d", "n": [1.5, 10**30, None, True], "c": "\u00e9"}]}
        new = changed(body, texts_in(body, ()), {"x": "y"})
        assert new == {"documents": [{**body["documents"][0], "a": "y"}]}

    def test_what_gemini_has(self) -> None:
        parts = [
            {"text": "a", "thoughtSignature": "s"},
            {"inlineData": {"mimeType": "image/png", "data": "x"}},
            {"functionCall": {"id": "1", "name": "f", "args": {"data": "b"}}},
            {"functionResponse": {"name": "f", "response": {"data": "c", "name": "d"}}},
        ]
        body = {"contents": [{"role": "user", "parts": parts}], "systemInstruction": {"parts": [{"text": "e"}]}}
        found = texts_in(body, ())
        assert strings(found) == ["a", "data", "b", "data", "c", "name", "d", "e"]
        assert changed(body, found, {"a": "z"})["contents"][0]["parts"][0] == {"text": "z"}

    def test_reasoning_of_a_new_type_does_not_stay_beside_its_proof(self) -> None:
        new = {"type": "reasoning.new", "text": "hm", "signature": "s"}
        body = {"messages": [{"role": "assistant", "reasoning_details": [new]}]}
        assert changed(body, texts_in(body, ()), {"hm": "x"})["messages"][0]["reasoning_details"] == []

    def test_they_are_texts_of_bodies_behind_those_of_the_dialect(self) -> None:
        assert strings(texts_in(self.MEMBERS, ("contents", "absent"))) == [
            *("c", "a", "b", "id", "x", "text", "d", "x"),
        ]

    @pytest.mark.parametrize(
        ("name", "known"),
        [
            ("openai", chat_request.KNOWN),
            ("completions", completions_request.KNOWN),
            ("anthropic", messages_request.KNOWN),
            ("responses", responses_request.KNOWN),
        ],
    )
    def test_members_that_a_dialect_is_known_to_have_are_texts_or_settings(
        self, name: str, known: frozenset[str]
    ) -> None:
        members = get_format(name).text_members
        others = known - {*members, "text", "thread"}
        assert strings(texts_in(dict.fromkeys(others, "x"), members)) == []

    @pytest.mark.parametrize("tokens", [[1], ["a", 1], [["a"], ["b", 1]]])
    def test_a_list_of_token_ids_is_seen(self, tokens: Any) -> None:
        assert has_tokens({"model": "m", "prompt_token_ids": tokens})
        assert not has_tokens({"logit_bias": {"1": 2}, "stop_token_ids": tokens, "stop": tokens})
        raw = json.dumps({"query": "q", "extra": {"prompt": tokens}}).encode()
        assert names_tokens(parse_request(raw))
        assert not names_tokens(parse_request(b'{"query": "q", "extra": {"prompt": ["a"]}}'))


def test_the_strings_of_one_value_let_the_loop_go_on() -> None:
    """Compiled code holds the interpreter's lock: a thread alone would not help."""
    pauses: list[int] = []
    call = {"function": {"name": "f", "arguments": json.dumps(["a"] * 5000)}}
    body = {"messages": [{"role": "assistant", "tool_calls": [call]}]}
    assert len(strings(texts_in(body, ("messages",), lambda: pauses.append(1)))) == 5000
    assert len(pauses) >= 5


def test_half_a_pair_of_surrogates_stays_an_escape() -> None:
    text = Text(("a",), '{"a": "\\ud83d", "b": "c"}', "json")
    assert text.with_strings([*text.strings[:3], "\ud83d!"]) == '{"a": "\\ud83d", "b": "\\ud83d!"}'
