"""Anthropic Messages: requests."""

from __future__ import annotations

import base64
import json
from typing import Any, ClassVar

import pytest
from anthropic.types.message_create_params import MessageCreateParamsStreaming

from gai_fast.core.requests.reading import parse_request
from gai_fast.model.errors import InvalidRequest, Unsupported
from gai_fast.providers import Changes, Target, get_provider
from tests.limits import LIMITS
from tests.unit.providers import answer_reading as answers
from tests.unit.providers.answer_reading import body, request

PING = {"type": "ping"}
AUDIO = {"type": "audio", "data": "A", "media_type": "audio/wav"}
SIGNATURE = "EqQBCgIYAhIM+/1gbcDa9GJwZA2b3hGg=="
STOP = {"type": "message_stop"}


class TestRequest:
    def test_a_query_is_a_user_turn(self) -> None:
        sent = request("anthropic", model="claude", api_key="secret", query="Hi")
        assert (sent.method, sent.path) == ("POST", "/v1/messages")
        assert dict(sent.headers) == {
            "content-type": "application/json",
            "accept": "text/event-stream",
            "anthropic-version": "2026-10-21",
            "x-api-key": "secret",
        }
        assert json.loads(sent.body) == {
            "model": "claude",
            "max_tokens": 64_000,
            "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
            "stream": True,
        }
        assert "x-api-key" not in dict(request("anthropic", api_key=None).headers)

    @pytest.mark.parametrize(
        ("fields", "version"),
        [
            ({}, "2026-10-21"),
            ({"temperature": 0}, "2023-06-01"),
            ({"top_p": 1}, "2023-06-01"),
            ({"provider_options": {"anthropic": {"top_k": 5}}}, "2023-06-01"),
        ],
    )
    def test_sampling_parameters_decide_the_version(self, fields: dict[str, Any], version: str) -> None:
        assert dict(request("anthropic", **fields).headers)["anthropic-version"] == version

    def test_results_stand_before_the_other_content_of_their_turn(self) -> None:
        calls = [{"type": "tool_call", "call_id": each, "name": "f"} for each in "abc"]
        results = [{"role": "tool", "call_id": each, "content": each} for each in "abc"]
        said = [{"role": "user", "content": text} for text in ("1", "2")]
        messages = [{"role": "assistant", "content": calls}, results[0], said[0], results[1], said[1], results[2]]
        turns = body("anthropic", messages=[said[0], *messages, messages[0], *results, said[1]])["messages"]
        assert [turn["role"] for turn in turns] == ["user", "assistant", "user", "assistant", "user"]
        found = [[block.get("tool_use_id") or block["text"] for block in turns[at]["content"]] for at in (2, 4)]
        assert found[0] == ["a", "b", "c", "1", "2"]
        assert (len(found[1]), found[1][-1]) == (4, "2")

    def test_a_row_of_system_messages_has_the_role_that_fits_what_follows(self) -> None:
        system = {"role": "system", "content": "Be brief."}
        said = {"role": "user", "content": "Hi"}
        answered = {"role": "assistant", "content": "Yes"}
        for row, roles in (
            ([said, system, system, answered, said], ["user", "system", "assistant", "user"]),
            ([said, system, system], ["user", "system"]),
            ([said, system, system, said], ["user"]),
        ):
            turns = body("anthropic", model="claude-opus-4-8", messages=row)["messages"]
            assert [turn["role"] for turn in turns] == roles

    def test_messages_of_every_role(self) -> None:
        messages = [
            {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
            {"role": "user", "content": [
                {"type": "text", "text": "Look:"},
                {"type": "image", "url": "https://x/y.png"},
                {"type": "image", "data": "AAAA", "media_type": "image/png"},
            ]},
            {"role": "assistant", "content": [
                {"type": "reasoning", "text": "hm", "signature": "s", "provider": "anthropic"},
                {"type": "reasoning", "signature": "opaque", "redacted": True},
                {"type": "reasoning", "text": "unsigned"},
                {"type": "reasoning", "text": "foreign", "signature": "x", "provider": "openrouter"},
                {"type": "text", "text": ""},
                {"type": "tool_call", "call_id": "a", "name": "f", "input": {"n": 1}},
                {"type": "tool_call", "call_id": "b", "name": "g"},
            ]},
            {"role": "tool", "call_id": "a", "content": "4 °C"},
            {"role": "tool", "call_id": "b", "content": [{"type": "image", "url": "https://z"}], "is_error": True},
            {"role": "user", "content": "So?"},
        ]  # fmt: skip
        sent = body("anthropic", system="First.", messages=messages)
        assert sent["system"] == [{"type": "text", "text": "First."}, {"type": "text", "text": "Be brief."}]
        image = {"type": "image", "source": {"type": "url", "url": "https://z"}}
        assert sent["messages"] == [
            {"role": "user", "content": [
                {"type": "text", "text": "Look:"},
                {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
            ]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "redacted_thinking", "data": "opaque"},
                {"type": "tool_use", "id": "a", "name": "f", "input": {"n": 1}},
                {"type": "tool_use", "id": "b", "name": "g", "input": {}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "4 °C"}]},
                {"type": "tool_result", "tool_use_id": "b", "content": [image], "is_error": True},
                {"type": "text", "text": "So?"},
            ]},
        ]  # fmt: skip

    def test_a_turn_with_nothing_to_send_is_left_out(self) -> None:
        unsigned = {"role": "assistant", "content": [{"type": "reasoning", "text": "hm"}]}
        turns = body("anthropic", messages=[{"role": "user", "content": "a"}, unsigned], query="b")["messages"]
        assert turns == [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]

    def test_tools_keep_their_schema_verbatim(self) -> None:
        schema = {"type": "object", "maximum": 2**70}
        tools = [{"name": "f", "description": "d", "strict": False, "parameters": schema}, {"name": "g"}]
        assert body("anthropic", tools=tools)["tools"] == [
            {"name": "f", "description": "d", "input_schema": schema, "strict": False},
            {"name": "g", "input_schema": {"type": "object"}},
        ]

    def test_the_schema_of_a_tool_has_its_type(self) -> None:
        tools = [{"name": "f", "parameters": {"properties": {"type": {}}}}, {"name": "g", "parameters": {"type": "x"}}]
        schemas = [tool["input_schema"] for tool in body("anthropic", tools=tools)["tools"]]
        assert schemas == [{"type": "object", "properties": {"type": {}}}, {"type": "x"}]

    def test_the_schema_of_a_strict_tool_is_closed_and_without_limits(self) -> None:
        """github.com/vercel/ai/issues/20681: an open one is a 400."""
        inner = {"a": {"type": "string", "minLength": 1}}
        tool = {"name": "f", "strict": True, "parameters": {"type": "object", "properties": inner}}
        sent, changes = written("claude-sonnet-4-5", tools=[tool])
        assert sent["tools"][0]["input_schema"] == {
            "type": "object",
            "properties": {"a": {"type": "string", "description": "{minLength: 1}"}},
            "additionalProperties": False,
        }
        assert changes.adjusted == {"tools[0].parameters": "simplified"}

    def test_a_stop_of_whitespace_is_refused_or_left_out(self) -> None:
        """github.com/BerriAI/litellm/issues/3286"""
        with pytest.raises(Unsupported, match=r"`stop\[0\]`: a stop sequence of whitespace alone"):
            written("claude-sonnet-4-5", stop=["\n"])

    def test_a_text_without_a_visible_character_is_left_out(self) -> None:
        blank = [{"type": "text", "text": " \n"}, {"type": "text", "text": "Hi"}]
        turns = body("anthropic", messages=[{"role": "user", "content": blank}, {"role": "user", "content": "\n"}])
        assert turns["messages"] == [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]

    def test_a_text_to_continue_does_not_end_in_whitespace(self) -> None:
        said = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Well, \n"}]
        sent, changes = written("claude-sonnet-4-5", messages=said)
        assert sent["messages"][-1]["content"] == [{"type": "text", "text": "Well,"}]
        assert changes.adjusted == {"messages[1].content": "trimmed"}

    def test_images_of_types_that_the_api_lacks_are_refused_by_name(self) -> None:
        image = {"type": "image", "data": "AAAA", "media_type": "image/svg+xml"}
        with pytest.raises(Unsupported, match=r"`messages\[0\].content\[0\]`: image of type image/svg\+xml"):
            written("claude-sonnet-4-5", messages=[{"role": "user", "content": [image]}])

    @pytest.mark.parametrize(
        ("choice", "sent"),
        [
            ("auto", {"type": "auto"}),
            ("none", {"type": "none"}),
            ("required", {"type": "any"}),
            ({"name": "f"}, {"type": "tool", "name": "f"}),
        ],
    )
    def test_the_choice_of_a_tool(self, choice: Any, sent: Any) -> None:
        assert body("anthropic", tools=[{"name": "f"}], tool_choice=choice)["tool_choice"] == sent

    @pytest.mark.parametrize(("given", "sent"), [("{oops", '"{oops"'), ([1], "[1]"), ("", '""')])
    @pytest.mark.parametrize("provider", ["anthropic", "gemini", "ollama", "openai-compatible"])
    def test_arguments_that_are_no_object_are_wrapped_in_one(self, provider: str, given: Any, sent: str) -> None:
        """github.com/NousResearch/hermes-agent/issues/14443: arguments that were cut off stay in the conversation.

        vLLM and llama.cpp refuse them in every later request (github.com/vllm-project/vllm/issues/43995).
        """
        call = {"type": "tool_call", "call_id": "a", "name": "f", "input": given}
        messages = [
            {"role": "user", "content": "?"},
            {"role": "assistant", "content": [call]},
            {"role": "tool", "call_id": "a", "content": "no JSON"},
        ]
        asked = parse_request(json.dumps({"messages": messages}).encode())
        target = Target("m")
        written_body = get_provider(provider).build_request(asked, target).body
        assert f'{{"arguments":{sent}}}' in written_body.decode().replace('\\"', '"')
        assert target.changes.adjusted == {"messages[1].content[0].input": "wrapped in an object"}

    def test_an_answer_by_a_schema_and_stop_sequences(self) -> None:
        schema = {"type": "array", "items": {"type": "string"}}
        sent = body("anthropic", response_format={"type": "json_schema", "schema": schema}, stop=["x"], max_tokens=9)
        assert sent["output_config"] == {"format": {"type": "json_schema", "schema": schema}}
        assert (sent["stop_sequences"], sent["max_tokens"]) == (["x"], 9)
        assert "output_config" not in body("anthropic", response_format={"type": "text"})

    def test_a_schema_is_closed_as_the_api_demands(self) -> None:
        schema = {"type": "object", "properties": {"a": {"type": "integer", "maximum": 2**70}}}
        sent, changes = written("claude-sonnet-4-5", response_format={"type": "json_schema", "schema": schema})
        limit = {"a": {"type": "integer", "description": f"{{maximum: {2**70}}}"}}
        assert sent["output_config"]["format"]["schema"] == {
            "type": "object",
            "properties": limit,
            "additionalProperties": False,
        }
        assert changes.adjusted == {"response_format.schema": "simplified"}
        schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
        sent, changes = written("claude-sonnet-4-5", response_format={"type": "json_schema", "schema": schema})
        assert sent["output_config"]["format"]["schema"] == {**schema, "additionalProperties": False}
        assert changes.adjusted == {"response_format.schema": "closed"}
        with pytest.raises(Unsupported, match="`response_format`: JSON without a schema; send one as `json_schema`"):
            written("claude-sonnet-4-5", response_format={"type": "json"})

    @pytest.mark.parametrize("more", [{}, {"additionalProperties": True}, {"additionalProperties": {"type": "string"}}])
    def test_objects_within_a_schema_are_closed_and_an_open_schema_is_refused(self, more: dict[str, Any]) -> None:
        """github.com/BerriAI/litellm/issues/35808: `additionalProperties` of any other value than false is a 400."""
        free = {"type": "object", **more}
        schema = {"type": "object", "properties": {"a": free, "b": {"type": ["object", "null"]}}, **more}
        sent, changes = written("claude-sonnet-4-5", response_format={"type": "json_schema", "schema": schema})
        closed = {"additionalProperties": False}
        inner = {"a": {"type": "object", **closed}, "b": {"type": ["object", "null"], **closed}}
        assert sent["output_config"]["format"]["schema"] == {"type": "object", "properties": inner, **closed}
        assert changes.adjusted == {"response_format.schema": "closed"}
        for schema in (free, {"title": "T", **more}):
            with pytest.raises(Unsupported, match="`response_format`: JSON without a schema; send one with `prop"):
                written("claude-sonnet-4-5", response_format={"type": "json_schema", "schema": schema})
        empty = {"type": "object", **closed}
        sent, _ = written("claude-sonnet-4-5", response_format={"type": "json_schema", "schema": empty})
        assert sent["output_config"]["format"]["schema"] == empty

    RECURSIVE: ClassVar[dict[str, Any]] = {
        "type": "object",
        "properties": {"near": {"type": "array", "items": {"$ref": "#"}}},
        "additionalProperties": False,
    }

    def test_a_schema_that_refers_to_itself_is_refused_for_an_answer(self) -> None:
        """Its API says "Self-referencing or mutually-referencing definitions are not supported"."""
        wanted = {"type": "json_schema", "schema": self.RECURSIVE}
        with pytest.raises(
            Unsupported, match="anthropic does not support `response_format`: a schema that refers to itself"
        ):
            body("anthropic", response_format=wanted)
        sent, dropped = answers.body_without("anthropic", response_format=wanted)
        assert ("output_config" in sent, dropped) == (False, ["response_format"])

    def test_a_tool_whose_schema_refers_to_itself_is_not_strict(self) -> None:
        target = Target("claude", "k")
        asked = {"query": "Hi", "tools": [{"name": "f", "parameters": self.RECURSIVE, "strict": True}]}
        sent = json.loads(
            get_provider("anthropic").build_request(parse_request(json.dumps(asked).encode()), target).body
        )
        assert sent["tools"] == [{"name": "f", "input_schema": self.RECURSIVE, "strict": False}]
        assert target.changes.adjusted == {"tools[0].strict": "false"}

    def test_one_of_several_schemas_is_any_of_them(self) -> None:
        """github.com/vercel/ai/issues/12876: "Schema type 'oneOf' is not supported"."""
        kinds = [{"type": "object", "properties": {"kind": {"const": kind}}, "required": ["kind"]} for kind in "ab"]
        union = {"oneOf": kinds, "discriminator": {"propertyName": "kind"}}
        schema = {"type": "object", "properties": {"it": union, "oneOf": {"type": "string"}}}
        sent, changes = written("claude-sonnet-4-5", response_format={"type": "json_schema", "schema": schema})
        closed = {"anyOf": [{**kind, "additionalProperties": False} for kind in kinds]}
        properties = {"it": closed, "oneOf": {"type": "string"}}
        sent_schema = sent["output_config"]["format"]["schema"]
        assert sent_schema == {"type": "object", "properties": properties, "additionalProperties": False}
        assert changes.adjusted == {"response_format.schema": "simplified"}

    def test_the_arguments_of_a_tool_are_no_union(self) -> None:
        """github.com/vercel/ai/issues/21350: "does not support oneOf, allOf, or anyOf at the top level"."""
        text, number = {"type": "string"}, {"type": "integer"}
        find = {"properties": {"do": {"const": "find"}, "id": text}, "required": ["do", "id"]}
        list_ = {"properties": {"do": {"const": "list"}, "size": number}, "required": ["do"]}
        union = [{"$ref": "#/$defs/find"}, list_, {"$ref": "#/$defs/gone"}, True]
        schema = {"anyOf": union[:2], "$defs": {"find": find}, "description": "What to do"}
        sent, changes = written("claude-sonnet-4-5", tools=[{"name": "f", "parameters": schema}])
        written_schema = sent["tools"][0]["input_schema"]
        assert json.loads(written_schema["description"].removeprefix("What to do\n\n{anyOf: ")[:-1]) == union[:2]
        assert {**written_schema, "description": ""} == {
            "type": "object",
            "properties": {"do": {"anyOf": [{"const": "find"}, {"const": "list"}]}, "id": text, "size": number},
            "required": ["do"],
            "$defs": {"find": find},
            "description": "",
        }
        assert changes.adjusted == {"tools[0].parameters": "simplified"}
        both = {"type": "object", "properties": {"a": text}, "required": ["a"], "allOf": [find], "oneOf": union[2:]}
        sent, _ = written("claude-sonnet-4-5", tools=[{"name": "f", "parameters": both, "strict": True}])
        written_schema = sent["tools"][0]["input_schema"]
        assert [*written_schema["properties"]] == ["a", "do", "id"]
        assert (written_schema["required"], written_schema["additionalProperties"]) == (["a", "do", "id"], False)
        within = {"type": "object", "properties": {"anyOf": text, "b": {"anyOf": [text, number]}}}
        sent, changes = written("claude-sonnet-4-5", tools=[{"name": "f", "parameters": within}])
        assert sent["tools"][0]["input_schema"] == within
        assert not changes

    @pytest.mark.parametrize(("effort", "sent"), [("minimal", "low"), ("high", "high")])
    def test_effort_lets_the_model_decide_how_long_to_think(self, effort: str, sent: str) -> None:
        result = body("anthropic", reasoning={"effort": effort})
        assert (result["thinking"], result["output_config"]) == ({"type": "adaptive"}, {"effort": sent})

    def test_a_budget_is_part_of_the_bound(self) -> None:
        result = body("anthropic", reasoning={"max_tokens": 2000})
        assert result["thinking"] == {"type": "enabled", "budget_tokens": 2000}
        assert result["max_tokens"] == LIMITS.default_max_tokens
        assert body("anthropic", reasoning={"max_tokens": 2000}, max_tokens=3000)["max_tokens"] == 3000
        assert "thinking" not in body("anthropic", reasoning={})

    def test_options_of_this_provider_go_last(self) -> None:
        assert (
            body("anthropic", provider_options={"anthropic": {"max_tokens": 5}, "openai": {"x": 1}})["max_tokens"] == 5
        )

    @pytest.mark.parametrize(
        ("fields", "named"),
        [
            ({"seed": 0}, "seed"),
            ({"metadata": {"user_id": "u", "team": "a"}}, "metadata.team"),
            ({"system": "S", "messages": [{"role": "user", "content": [AUDIO]}]}, "messages[0].content[0]"),
            ({"messages": [{"role": "user", "content": "?"},
                           {"role": "user", "content": [{"type": "text", "text": "a"}, {**AUDIO, "type": "file"}]}]},
             "messages[1].content[1]"),
            ({"messages": [{"role": "user", "content": "?"},
                           {"role": "assistant", "content": [{"type": "image", "url": "https://x"}]}]},
             "messages[1].content[0]"),
        ],
    )  # fmt: skip
    def test_what_it_cannot_do_is_refused_by_name_or_left_out(self, fields: dict[str, Any], named: str) -> None:
        with pytest.raises(Unsupported) as refused:
            request("anthropic", **fields)
        assert refused.value.message.startswith(f"anthropic does not support `{named}`")
        assert answers.body_without("anthropic", **fields)[1] == [named]

    def test_what_is_left_is_asked_for(self) -> None:
        parts = [{"type": "text", "text": "a"}, AUDIO]
        sent, dropped = answers.body_without(
            "anthropic", messages=[{"role": "user", "content": parts}], seed=0, metadata={"user_id": "u", "team": "a"}
        )
        assert sent["messages"] == [{"role": "user", "content": [{"type": "text", "text": "a"}]}]
        assert (sent["metadata"], "seed" in sent) == ({"user_id": "u"}, False)
        assert dropped == ["seed", "messages[0].content[1]", "metadata.team"]

    def test_documents_are_pdf_or_text(self) -> None:
        data = base64.b64encode("Grüße".encode()).decode()
        parts = [
            {"type": "file", "data": "BB", "media_type": "application/pdf", "filename": "a.pdf"},
            {"type": "file", "data": data, "media_type": "text/markdown"},
        ]
        assert body("anthropic", messages=[{"role": "user", "content": parts}])["messages"][0]["content"] == [
            {"type": "document", "title": "a.pdf",
             "source": {"type": "base64", "media_type": "application/pdf", "data": "BB"}},
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Grüße"}},
        ]  # fmt: skip
        for wrong in ("%", base64.b64encode(b"\xff").decode()):
            with pytest.raises(InvalidRequest, match="base64 of UTF-8"):
                request("anthropic", messages=[{"role": "user", "content": [{**parts[1], "data": wrong}]}])

    def test_an_image_in_a_data_url_is_data(self) -> None:
        part = {"type": "image", "url": "data:image/png;base64,AAAA"}
        assert body("anthropic", messages=[{"role": "user", "content": [part]}])["messages"][0]["content"] == [
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
        ]

    def test_betas_become_a_header_and_options_are_merged(self) -> None:
        options = {"betas": ["a", "b"], "cache_control": {"type": "ephemeral"}, "thinking": {"display": "omitted"}}
        sent = request("anthropic", reasoning={"effort": "low"}, provider_options={"anthropic": options})
        assert dict(sent.headers)["anthropic-beta"] == "a,b"
        said = json.loads(sent.body)
        assert said["cache_control"] == {"type": "ephemeral"}
        assert said["thinking"] == {"type": "adaptive", "display": "omitted"}
        assert "betas" not in said

    def test_no_budget_at_all_is_no_thinking(self) -> None:
        assert body("anthropic", reasoning={"max_tokens": 0})["thinking"] == {"type": "disabled"}

    def test_a_full_request_is_what_the_official_sdk_would_send(self) -> None:
        sent = body(
            "anthropic",
            system="Be brief.",
            messages=[
                {"role": "user", "content": [
                    {"type": "text", "text": "Look:"},
                    {"type": "image", "data": "AAAA", "media_type": "image/png"},
                    {"type": "file", "data": "BB", "media_type": "application/pdf"},
                ]},
                {"role": "assistant", "content": [
                    {"type": "reasoning", "text": "hm", "signature": "s"},
                    {"type": "reasoning", "signature": "r", "redacted": True},
                    {"type": "tool_call", "call_id": "toolu_1", "name": "f", "input": {"a": 1}},
                ]},
                {"role": "tool", "call_id": "toolu_1", "content": "4 °C", "is_error": True},
            ],
            tools=[{"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True}],
            tool_choice={"name": "f"},
            response_format={"type": "json_schema", "schema": {"type": "string"}},
            reasoning={"effort": "high", "max_tokens": 2000},
            stop=["x"],
            metadata={"user_id": "u"},
        )  # fmt: skip
        assert sent.keys() <= MessageCreateParamsStreaming.__annotations__.keys()
        assert answers.validated(MessageCreateParamsStreaming, sent) == sent

    def test_a_schema_must_be_there(self) -> None:
        with pytest.raises(InvalidRequest, match="needs a `schema`"):
            request("anthropic", response_format={"type": "json_schema"})


def written(model: str, *, drop: bool = False, **fields: Any) -> tuple[dict[str, Any], Changes]:
    """Returns the body for a model, and what was changed for it."""
    if "messages" not in fields:
        fields.setdefault("query", "Hi")
    target = Target(model, "k", "drop" if drop else "error")
    sent = get_provider("anthropic").build_request(parse_request(json.dumps(fields).encode()), target)
    return json.loads(sent.body), target.changes


class TestBlocks:
    USE: ClassVar[dict[str, Any]] = {
        "type": "server_tool_use",
        "id": "srv_1",
        "name": "web_search",
        "input": {"n": 2**70},
    }
    FOUND: ClassVar[dict[str, Any]] = {"type": "web_search_tool_result", "tool_use_id": "srv_1", "content": []}

    @staticmethod
    def part(block: dict[str, Any], provider: str = "anthropic") -> dict[str, Any]:
        return {"type": "provider_block", "provider": provider, "block": block}

    def said(self, *parts: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"role": "user", "content": "hi"}, {"role": "assistant", "content": list(parts)}]

    @pytest.mark.parametrize("model", ["claude-sonnet-4-5", "claude-opus-5"])
    def test_a_paused_answer_goes_on_even_if_the_model_continues_no_other(self, model: str) -> None:
        parts = [self.part(self.USE), self.part(self.FOUND), {"type": "text", "text": "So far"}]
        sent, changes = written(model, messages=self.said(*parts))
        content = sent["messages"][1]["content"]
        assert content == [self.USE, self.FOUND, {"type": "text", "text": "So far"}]
        assert not changes

    def test_blocks_of_other_providers_are_left_out_and_reported(self) -> None:
        foreign = self.part({"executableCode": {"code": "1"}}, "gemini")
        messages = [*self.said(foreign, {"type": "text", "text": "a"}), {"role": "user", "content": [foreign]}]
        sent, changes = written("claude-sonnet-4-5", messages=[*messages, {"role": "user", "content": "go"}])
        assert sent["messages"][1]["content"] == [{"type": "text", "text": "a"}]
        assert changes.dropped == ["messages[1].content[0]", "messages[2].content[0]"]

    def test_a_block_of_the_user_stands_in_its_turn(self) -> None:
        upload = {"type": "container_upload", "file_id": "file_1"}
        messages = [{"role": "user", "content": [self.part(upload), {"type": "text", "text": "Read it."}]}]
        sent, _ = written("claude-sonnet-4-5", messages=messages)
        assert sent["messages"][0]["content"][0] == upload

    @pytest.mark.parametrize("block", ["5", "[]", "null", '"x"'])
    def test_a_block_is_an_object(self, block: str) -> None:
        part = f'{{"type":"provider_block","provider":"anthropic","block":{block}}}'
        message = f'{{"messages":[{{"role":"assistant","content":[{part}]}}]}}'
        with pytest.raises(InvalidRequest, match=r"Expected `object` - at `\$.messages\[0\].content\[0\].block`"):
            parse_request(message.encode())

    def test_a_block_without_a_type_breaks_nothing(self) -> None:
        messages = [*self.said(self.part({})), {"role": "tool", "call_id": "c", "content": "4"}]
        sent, _ = written("claude-sonnet-4-5", messages=messages)
        assert sent["messages"][1]["content"] == [{}]


class TestFacts:
    @pytest.mark.parametrize(
        ("model", "most"),
        [
            ("claude-opus-5", 128_000),
            ("claude-sonnet-4-20250514", 64_000),
            ("claude-opus-4-1-20250805", 32_000),
            ("claude-3-5-haiku-latest", 8192),
            ("us.anthropic.claude-opus-5-v1:0", LIMITS.bedrock_max_tokens),
            ("anthropic.claude-3-haiku-20240307-v1:0", 4096),
            ("other", LIMITS.default_max_tokens),
        ],
    )
    def test_a_bound_that_nobody_gave_is_the_models_highest(self, model: str, most: int) -> None:
        assert written(model)[0]["max_tokens"] == most
        assert written(model, max_tokens=7)[0]["max_tokens"] == 7

    @pytest.mark.parametrize(
        ("model", "reasoning", "thinking", "effort", "adjusted"),
        [
            ("claude-opus-5", {"effort": "max"}, {"type": "adaptive"}, "max", {}),
            ("claude-opus-5", {"effort": "minimal"}, {"type": "adaptive"}, "low", {"reasoning.effort": "low"}),
            ("claude-opus-5", {"effort": "none"}, {"type": "disabled"}, None, {}),
            ("claude-opus-5", {"max_tokens": 0}, {"type": "disabled"}, None, {}),
            ("claude-opus-5", {"max_tokens": 9000}, {"type": "adaptive"}, "high", {"reasoning.max_tokens": "adaptive"}),
            ("claude-sonnet-5-5", {"effort": "none"}, {"type": "between_tools"}, None, {}),
            ("claude-sonnet-4-6", {"effort": "xhigh"}, {"type": "adaptive"}, "max", {"reasoning.effort": "max"}),
            ("claude-sonnet-4-6", {"max_tokens": 2000}, {"type": "enabled", "budget_tokens": 2000}, None, {}),
            ("claude-sonnet-4-5", {"effort": "medium"}, {"type": "enabled", "budget_tokens": 8192}, None, {}),
            ("claude-opus-4-5", {"effort": "low"}, {"type": "enabled", "budget_tokens": 4096}, "low", {}),
            ("claude-sonnet-4-5", {"max_tokens": 9}, {"type": "enabled", "budget_tokens": 1024},
             None, {"reasoning.max_tokens": "1024"}),
            ("claude-3-5-haiku-latest", {"effort": "none"}, {"type": "disabled"}, None, {}),
        ],
    )  # fmt: skip
    def test_thinking_is_asked_for_as_the_model_takes_it(
        self, model: str, reasoning: Any, thinking: Any, effort: str | None, adjusted: dict[str, str]
    ) -> None:
        sent, changes = written(model, reasoning=reasoning)
        assert (sent["thinking"], sent.get("output_config", {}).get("effort")) == (thinking, effort)
        assert (changes.adjusted, changes.dropped) == (adjusted, [])
        assert sent["max_tokens"] > thinking.get("budget_tokens", 0)

    @pytest.mark.parametrize(
        ("most", "reasoning", "budget", "adjusted"),
        [
            (1500, {"max_tokens": 2000}, 1499, {"reasoning.max_tokens": "1499"}),
            (6000, {"effort": "high"}, 3000, {}),
            (1500, {"effort": "high"}, None, {"reasoning.effort": "none"}),
        ],
    )
    def test_a_budget_stays_below_the_bound(
        self, most: int, reasoning: Any, budget: int | None, adjusted: dict[str, str]
    ) -> None:
        sent, changes = written("claude-sonnet-4-5", max_tokens=most, reasoning=reasoning)
        assert (sent.get("thinking", {}).get("budget_tokens"), sent["max_tokens"]) == (budget, most)
        assert changes.adjusted == adjusted

    LOOP: ClassVar[list[dict[str, Any]]] = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": [{"type": "tool_call", "call_id": "c", "name": "f"}]},
        {"role": "tool", "call_id": "c", "content": "x"},
    ]

    @pytest.mark.parametrize(
        ("model", "reasoning", "thinking", "adjusted"),
        [
            ("claude-sonnet-4-5", {"effort": "high"}, None, {"reasoning.effort": "none"}),
            ("claude-sonnet-4-6", {"max_tokens": 2000}, {"type": "adaptive"}, {"reasoning.max_tokens": "adaptive"}),
            ("claude-opus-4-7", {"effort": "high"}, {"type": "adaptive"}, {}),
        ],
    )
    def test_a_budget_needs_thinking_before_the_calls(
        self, model: str, reasoning: Any, thinking: Any, adjusted: dict[str, str]
    ) -> None:
        """Claude: "Expected `thinking` […], but found `tool_use`" (github.com/anomalyco/opencode/issues/3077)."""
        sent, changes = written(model, messages=self.LOOP, reasoning=reasoning)
        assert (sent.get("thinking"), changes.adjusted) == (thinking, adjusted)
        with pytest.raises(Unsupported, match=r"`reasoning\.max_tokens`"):
            written("claude-sonnet-4-5", messages=self.LOOP, reasoning={"max_tokens": 2000})
        sent, changes = written("claude-sonnet-4-5", drop=True, messages=self.LOOP, reasoning={"max_tokens": 2000})
        assert ("thinking" in sent, changes.dropped) == (False, ["reasoning.max_tokens"])

    @pytest.mark.parametrize("kind", [["x"], None])
    def test_a_block_of_any_type_is_no_thinking(self, kind: Any) -> None:
        block = {"type": "provider_block", "provider": "anthropic", "block": {"type": kind}}
        called = {"role": "assistant", "content": [block, *self.LOOP[1]["content"]]}
        messages = [self.LOOP[0], called, self.LOOP[2]]
        assert "thinking" not in written("claude-sonnet-4-5", messages=messages, reasoning={"effort": "high"})[0]

    def test_a_budget_is_sent_with_calls_that_thinking_began(self) -> None:
        """An answer between the calls may lack thinking: the model has written it so."""
        thought = {"type": "reasoning", "text": "hm", "signature": "s"}
        began = [self.LOOP[0], {"role": "assistant", "content": [thought, *self.LOOP[1]["content"]]}, self.LOOP[2]]
        for messages in (
            began,
            [*began, {"role": "assistant", "content": [{"type": "tool_call", "call_id": "d", "name": "f"}]},
             {"role": "tool", "call_id": "d", "content": "x"}],
            [*self.LOOP, {"role": "assistant", "content": "so"}, {"role": "user", "content": "and?"}],
            self.LOOP[:1],
        ):  # fmt: skip
            sent, changes = written("claude-sonnet-4-5", messages=messages, reasoning={"effort": "low"})
            assert (sent["thinking"]["type"], changes.adjusted) == ("enabled", {})

    @pytest.mark.parametrize(
        ("model", "fields", "named"),
        [
            ("claude-opus-5-5", {"reasoning": {"effort": "none"}}, "reasoning.effort"),
            ("claude-fable-5", {"reasoning": {"max_tokens": 0}}, "reasoning.max_tokens"),
            ("claude-3-haiku", {"reasoning": {"effort": "high"}}, "reasoning.effort"),
            ("claude-sonnet-4-5", {"reasoning": {"max_tokens": 9}, "max_tokens": 1024}, "reasoning.max_tokens"),
            ("claude-opus-5", {"temperature": 0.5}, "temperature"),
            ("claude-opus-5", {"top_p": 0.5}, "top_p"),
            ("claude-opus-4-6", {"temperature": 0.5, "top_p": 0.5}, "top_p"),
            ("claude-sonnet-4-6", {"temperature": 0.5, "reasoning": {"effort": "low"}}, "temperature"),
            ("claude-sonnet-4-6", {"top_p": 0.5, "reasoning": {"effort": "low"}}, "top_p"),
            ("claude-opus-5-5", {"tool_choice": "required", "tools": [{"name": "f"}]}, "tool_choice"),
            ("claude-opus-5-5", {"tool_choice": {"name": "f"}, "tools": [{"name": "f"}]}, "tool_choice"),
            (
                "claude-sonnet-4-5",
                {"tool_choice": "required", "tools": [{"name": "f"}], "reasoning": {"max_tokens": 2048}},
                "tool_choice",
            ),
            (
                "claude-sonnet-4-6",
                {"tool_choice": {"name": "f"}, "tools": [{"name": "f"}], "reasoning": {"effort": "low"}},
                "tool_choice",
            ),
            ("claude-3-haiku", {"response_format": {"type": "json"}}, "response_format"),
            ("claude-opus-5", {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
             "messages[1]"),
        ],
    )  # fmt: skip
    def test_what_the_model_does_not_take_is_refused_by_name_or_left_out(
        self, model: str, fields: dict[str, Any], named: str
    ) -> None:
        with pytest.raises(Unsupported) as refused:
            written(model, **fields)
        assert refused.value.message.startswith(f"anthropic does not support `{named}`: ")
        sent, changes = written(model, drop=True, **fields)
        assert changes.dropped == [named]
        assert sent["messages"][-1]["role"] == "user"
        assert named not in sent

    @pytest.mark.parametrize(
        ("choice", "reasoning"),
        [("auto", {"effort": "low"}), ("none", {"effort": "low"}), ("required", {"effort": "none"}), ("required", {})],
    )
    def test_a_tool_choice_stays_unless_it_forces_a_model_that_thinks(
        self, choice: str, reasoning: dict[str, Any]
    ) -> None:
        sent, changes = written("claude-sonnet-4-5", tool_choice=choice, tools=[{"name": "f"}], reasoning=reasoning)
        assert sent["tool_choice"] == {"type": {"required": "any"}.get(choice, choice)}
        assert not changes.dropped

    def test_sampling_as_by_default_is_left_out_without_a_refusal(self) -> None:
        sent, changes = written("claude-opus-5", temperature=1, top_p=1)
        assert not {"temperature", "top_p"} & sent.keys()
        assert changes.dropped == ["temperature", "top_p"]
        assert written("claude-sonnet-4-6", top_p=0.95, reasoning={"effort": "low"})[0]["top_p"] == 0.95

    def test_a_temperature_is_the_nearest_that_claude_takes(self) -> None:
        sent, changes = written("claude-sonnet-4-5", temperature=1.8)
        assert sent["temperature"] == 1
        assert changes.adjusted == {"temperature": "1.0"}

    def test_facts_of_the_configuration_count(self) -> None:
        target = Target("claude-opus-5", "k", "error", {"sampling": "both", "max_output": 5})
        sent = get_provider("anthropic").build_request(parse_request(b'{"query": "a", "temperature": 0.5}'), target)
        assert json.loads(sent.body)["temperature"] == 0.5
        assert json.loads(sent.body)["max_tokens"] == 5

    def test_a_system_message_after_others_has_its_place_where_the_model_takes_it(self) -> None:
        talk = [
            {"role": "system", "content": "a"},
            {"role": "user", "content": "b"},
            {"role": "system", "content": "c"},
            {"role": "assistant", "content": "d"},
            {"role": "user", "content": "e"},
            {"role": "system", "content": "f"},
        ]
        sent, changes = written("claude-opus-4-8", messages=talk)
        assert sent["system"] == [{"type": "text", "text": "a"}]
        assert [turn["role"] for turn in sent["messages"]] == ["user", "system", "assistant", "user", "system"]
        assert changes.adjusted == {}
        sent, changes = written("claude-opus-4-7", messages=talk)
        assert [turn["role"] for turn in sent["messages"]] == ["user", "assistant", "user"]
        assert [block["text"] for block in sent["messages"][0]["content"]] == ["b", "c"]
        assert changes.adjusted == {"messages[2].role": "user", "messages[5].role": "user"}

    def test_a_system_message_before_the_users_turn_is_a_part_of_that(self) -> None:
        talk = [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b"},
            {"role": "system", "content": "c"},
            {"role": "user", "content": "d"},
        ]
        sent, changes = written("claude-opus-4-8", messages=talk)
        assert [block["text"] for block in sent["messages"][2]["content"]] == ["c", "d"]
        assert changes.adjusted == {"messages[2].role": "user"}

    def test_results_come_before_other_content_of_their_turn(self) -> None:
        call = {"type": "tool_call", "call_id": "a", "name": "f"}
        talk = [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": [call, {**call, "call_id": "b"}]},
            {"role": "tool", "call_id": "a", "content": "1"},
            {"role": "system", "content": "s"},
            {"role": "tool", "call_id": "b", "content": "2"},
        ]
        blocks = written("claude-opus-4-7", messages=talk)[0]["messages"][2]["content"]
        assert [block.get("tool_use_id", "text") for block in blocks] == ["a", "b", "text"]

    def test_a_system_message_alone_is_the_users(self) -> None:
        sent, changes = written("claude-opus-5", messages=[{"role": "system", "content": "a"}])
        assert "system" not in sent
        assert sent["messages"] == [{"role": "user", "content": [{"type": "text", "text": "a"}]}]
        assert changes.adjusted == {"messages[0].role": "user"}

    def test_tools_of_the_options_are_added(self) -> None:
        options = {"anthropic": {"tools": [{"type": "web_search_20260209", "name": "web_search"}]}}
        sent, _ = written("claude-opus-5", tools=[{"name": "f"}], provider_options=options)
        assert [tool["name"] for tool in sent["tools"]] == ["f", "web_search"]
        assert [tool["name"] for tool in written("claude-opus-5", provider_options=options)[0]["tools"]] == [
            "web_search"
        ]


@pytest.mark.parametrize("user_id", [1, ["u"], {}])
def test_the_user_id_is_a_text(user_id: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"Expected `str` - at `\$\.metadata\.user_id`"):
        request("anthropic", metadata={"user_id": user_id})
