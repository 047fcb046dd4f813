"""Requests of Gemini, and answers that go back to it."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import pytest

import gai_fast
from gai_fast.core.requests.reading import parse_request
from gai_fast.model.errors import InvalidRequest, NotFound, Unsupported
from gai_fast.providers import Target, get_provider
from tests.unit.providers.answer_reading import body, request
from tests.unit.providers.gemini import STOP, call, chunk, text

SIGNED: dict[str, Any] = {"type": "tool_call", "call_id": "fc-1", "name": "f", "input": {"a": 1}, "signature": "s"}


ASK: dict[str, Any] = {"role": "user", "content": "?"}


def contents(*messages: dict[str, Any]) -> Any:
    return body("gemini", messages=list(messages))["contents"]


class TestBlocks:
    CODE: ClassVar[dict[str, Any]] = {"executableCode": {"language": "PYTHON", "code": "1"}, "thoughtSignature": "c2ln"}

    def test_a_part_goes_back_unchanged_and_its_signature_once(self) -> None:
        message = gai_fast.collect(
            gai_fast.decode("gemini", [json.dumps([chunk(text("a"), self.CODE), STOP]).encode()])
        ).message
        assert [part["type"] for part in message["content"]] == ["text", "reasoning", "provider_block"]
        assert contents({"role": "user", "content": "hi"}, message)[1]["parts"] == [{"text": "a"}, self.CODE]

    def test_a_signature_of_text_is_kept(self) -> None:
        signed = {"type": "reasoning", "text": "", "signature": "other", "provider": "gemini"}
        block = {"type": "provider_block", "provider": "gemini", "block": self.CODE}
        parts = contents({"role": "user", "content": "hi"}, {"role": "assistant", "content": [signed, block, signed]})[
            1
        ]
        assert parts["parts"] == [
            {"text": "", "thoughtSignature": "other"},
            self.CODE,
            {"text": "", "thoughtSignature": "other"},
        ]


@pytest.mark.parametrize(
    "provider", ["openai", "mistral", "cohere", "ollama", "gemini", "deepseek", "openrouter", "perplexity"]
)
def test_blocks_of_another_provider_are_left_out_and_reported(provider: str) -> None:
    block = {"type": "provider_block", "provider": "anthropic", "block": {"type": "server_tool_use", "id": "srv_1"}}
    said = {"role": "assistant", "content": [{"type": "text", "text": "a"}, block]}
    asked = {"role": "user", "content": [block, {"type": "text", "text": "go"}]}
    target = Target("m")
    request = parse_request(json.dumps({"messages": [{"role": "user", "content": "hi"}, said, asked]}).encode())
    sent = get_provider(provider).build_request(request, target)
    assert b"srv_1" not in sent.body
    assert target.changes.dropped == ["messages[1].content[1]", "messages[2].content[0]"]


class TestRequests:
    def test_the_address_and_the_key(self) -> None:
        sent = request("gemini", model="gemini-3-pro", api_key="key")
        assert sent.path == "/v1beta/models/gemini-3-pro:streamGenerateContent?alt=sse"
        assert dict(sent.headers) == {
            "content-type": "application/json",
            "accept": "text/event-stream",
            "x-goog-api-key": "key",
        }
        assert "x-goog-api-key" not in dict(request("gemini", api_key=None).headers)

    @pytest.mark.parametrize(
        ("model", "path"),
        [
            ("models/m", "/v1beta/models/m"),
            ("tunedModels/m", "/v1beta/tunedModels/m"),
            ("publishers/google/models/m", "/v1beta1/publishers/google/models/m"),
            ("projects/p/locations/l/publishers/google/models/m@1", None),
            ("x/y?key=1#", "/v1beta/models/x%2Fy%3Fkey%3D1%23"),
            ("models/m:generateContent?", "/v1beta/models/m%3AgenerateContent%3F"),
        ],
    )
    def test_a_model_may_be_the_name_of_a_resource_and_leads_nowhere_else(self, model: str, path: str | None) -> None:
        sent = request("gemini", model=model).path
        expected = path or "/v1beta1/projects/p/locations/l/publishers/google/models/m%401"
        assert sent == f"{expected}:streamGenerateContent?alt=sse"

    @pytest.mark.parametrize("model", ["models/../files/x", "models//x", "models/./x", "models/"])
    def test_a_name_that_leads_elsewhere_is_not_found(self, model: str) -> None:
        with pytest.raises(NotFound):
            request("gemini", model=model)

    def test_turns_and_instructions(self) -> None:
        sent = body(
            "gemini",
            system="Be brief.",
            messages=[
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": "b"},
                {"role": "system", "content": [{"type": "text", "text": "Always."}]},
                {"role": "user", "content": [{"type": "text", "text": "c"}, {"type": "text", "text": ""}]},
                {"role": "user", "content": "d"},
            ],
        )
        assert sent == {
            "contents": [
                {"role": "user", "parts": [{"text": "a"}]},
                {"role": "model", "parts": [{"text": "b"}]},
                {"role": "user", "parts": [{"text": "Always."}, {"text": "c"}, {"text": "d"}]},
            ],
            "systemInstruction": {"parts": [{"text": "Be brief."}]},
        }

    def test_instructions_in_the_middle_stay_there_as_the_users_and_are_named(self) -> None:
        said = {"role": "system", "content": "Be brief."}
        empty = {"role": "system", "content": ""}
        target = Target("m", None)
        given = {"messages": [said, {"role": "user", "content": "a"}, empty, said, {"role": "user", "content": "b"}]}
        sent = json.loads(get_provider("gemini").build_request(parse_request(json.dumps(given).encode()), target).body)
        assert target.changes.adjusted == {"messages[3].role": "user"}
        assert sent["contents"] == [{"role": "user", "parts": [{"text": "a"}, {"text": "Be brief."}, {"text": "b"}]}]
        assert sent["systemInstruction"] == {"parts": [{"text": "Be brief."}]}

    def test_media(self) -> None:
        parts = [
            {"type": "image", "data": "AA==", "media_type": "image/png"},
            {"type": "image", "url": "https://x.example/a.JPG?w=1"},
            {"type": "image", "url": "https://x.example/a", "media_type": "image/webp"},
            {"type": "image", "url": "https://x.example/a"},
            {"type": "image", "url": "data:image/gif;base64,AAAA"},
            {"type": "audio", "data": "BB==", "media_type": "audio/wav"},
            {"type": "file", "data": "CC==", "media_type": "application/pdf", "filename": "a.pdf"},
        ]
        assert contents({"role": "user", "content": parts})[0]["parts"] == [
            {"inlineData": {"mimeType": "image/png", "data": "AA=="}},
            {"fileData": {"mimeType": "image/jpeg", "fileUri": "https://x.example/a.JPG?w=1"}},
            {"fileData": {"mimeType": "image/webp", "fileUri": "https://x.example/a"}},
            {"fileData": {"fileUri": "https://x.example/a"}},
            {"inlineData": {"mimeType": "image/gif", "data": "AAAA"}},
            {"inlineData": {"mimeType": "audio/wav", "data": "BB=="}},
            {"inlineData": {"mimeType": "application/pdf", "data": "CC=="}},
        ]

    def test_calls_and_their_results_come_together(self) -> None:
        unsigned = {"type": "tool_call", "call_id": "call_0", "name": "g"}
        image = {"type": "image", "data": "AA==", "media_type": "image/png"}
        sent = contents(
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": [SIGNED, unsigned]},
            {"role": "tool", "call_id": "call_0", "content": [{"type": "text", "text": "4"}, image]},
            {"role": "tool", "call_id": "fc-1", "content": "no", "is_error": True},
            {"role": "user", "content": "And?"},
        )
        assert sent[1:] == [
            {
                "role": "model",
                "parts": [
                    {"functionCall": {"id": "fc-1", "name": "f", "args": {"a": 1}}, "thoughtSignature": "s"},
                    {"functionCall": {"id": "call_0", "name": "g", "args": {}}},
                ],
            },
            {
                "role": "user",
                "parts": [
                    {"functionResponse": {"id": "fc-1", "name": "f", "response": {"error": "no"}}},
                    {"functionResponse": {"id": "call_0", "name": "g", "response": {"output": "4"}}},
                    {"inlineData": {"mimeType": "image/png", "data": "AA=="}},
                    {"text": "And?"},
                ],
            },
        ]

    @pytest.mark.parametrize(
        "model", ["publishers/google/models/m", "projects/p/locations/l/publishers/google/models/m"]
    )
    def test_vertex_takes_no_ids(self, model: str) -> None:
        messages = [
            ASK,
            {"role": "assistant", "content": [SIGNED]},
            {"role": "tool", "call_id": "fc-1", "content": "4"},
        ]
        sent = json.loads(request("gemini", model=model, messages=messages).body)["contents"]
        assert [turn["parts"] for turn in sent[1:]] == [
            [{"functionCall": {"name": "f", "args": {"a": 1}}, "thoughtSignature": "s"}],
            [{"functionResponse": {"name": "f", "response": {"output": "4"}}}],
        ]

    @pytest.mark.parametrize(
        "before",
        [
            [],
            [{"role": "system", "content": "Be brief."}],
            [{"role": "user", "content": ""}],
            [{"role": "assistant", "content": "Let me see."}],
            [{"role": "assistant", "content": "Let"}, {"role": "assistant", "content": "me see."}],
        ],
    )
    def test_a_conversation_that_begins_with_a_call_gets_a_word_of_the_user(self, before: Any) -> None:
        """Google's API refuses it: "function call turn comes immediately after a user turn"."""
        called = {"role": "assistant", "content": [SIGNED]}
        asked = {"messages": [*before, called, {"role": "tool", "call_id": "fc-1", "content": "4"}]}
        target = Target("m")
        sent = json.loads(get_provider("gemini").build_request(parse_request(json.dumps(asked).encode()), target).body)
        assert [turn["role"] for turn in sent["contents"]] == ["user", "model", "user"]
        assert sent["contents"][0]["parts"] == [{"text": "Continue."}]
        assert target.changes.adjusted == {f"messages[{len(before)}]": "after a word of the user"}

    def test_an_id_that_is_used_again_means_the_last_call(self) -> None:
        turns = [
            message
            for name in "fg"
            for message in (
                {"role": "assistant", "content": [{"type": "tool_call", "call_id": "call_0", "name": name}]},
                {"role": "tool", "call_id": "call_0", "content": ""},
            )
        ]
        answered = [turn["parts"][0]["functionResponse"] for turn in contents(ASK, *turns)[2::2]]
        ids = {"f": "call_0", "g": "call_0_2"}
        assert answered == [{"id": ids[name], "name": name, "response": {"output": ""}} for name in "fg"]

    def test_arguments_of_tools_say_that_they_are_an_object(self) -> None:
        """Gemini: "parameters schema should be of type OBJECT" (github.com/diegosouzapw/OmniRoute/pull/3360)."""
        text = {"type": "string"}
        schemas: list[tuple[dict[str, Any], dict[str, Any]]] = [
            ({}, {"type": "object"}),
            ({"properties": {"a": text}}, {"type": "object", "properties": {"a": text}}),
            (
                {"$ref": "#/$defs/A", "$defs": {"A": {"type": "object", "properties": {"a": text}}}},
                {"type": "object", "properties": {"a": text}},
            ),
            ({"anyOf": [{"required": ["a"]}]}, {"type": "object", "anyOf": [{"required": ["a"]}]}),
        ]
        for given, sent in schemas:
            tools = body("gemini", tools=[{"name": "f", "parameters": given}])["tools"]
            written = tools[0]["functionDeclarations"][0]["parametersJsonSchema"]
            assert {key: value for key, value in written.items() if key != "$defs"} == sent

    @pytest.mark.parametrize("before", [0, 2])
    def test_results_are_in_the_order_of_their_calls(self, before: int) -> None:
        calls = [{"type": "tool_call", "call_id": f"call_{number}", "name": "f"} for number in range(3)]
        results = [{"role": "tool", "call_id": call["call_id"], "content": call["call_id"]} for call in calls]
        turn = [{"role": "assistant", "content": calls}, *reversed(results)]
        sent = contents(*[{"role": "assistant", "content": calls[::-1]}, *results] * before, *turn)[-1]["parts"]
        assert [part["functionResponse"]["response"]["output"] for part in sent] == ["call_0", "call_1", "call_2"]
        ids = [part["functionResponse"]["id"] for part in sent]
        assert ids == [f"call_{number}_{before + 1}" if before else f"call_{number}" for number in range(3)]

    def test_a_result_of_no_call_is_refused(self) -> None:
        with pytest.raises(InvalidRequest, match=r"`messages\[1\]`"):
            contents({"role": "user", "content": "Hi"}, {"role": "tool", "call_id": "x", "content": ""})

    def test_only_its_own_signed_reasoning_is_sent_back(self) -> None:
        parts = [
            {"type": "reasoning", "text": "hm", "signature": "s", "provider": "gemini"},
            {"type": "reasoning", "text": "", "signature": "t"},
            {"type": "reasoning", "text": "unsigned", "provider": "gemini"},
            {"type": "reasoning", "text": "x", "signature": "u", "provider": "anthropic"},
            {"type": "reasoning", "signature": "v", "redacted": True},
        ]
        assert contents({"role": "assistant", "content": parts})[0]["parts"] == [
            {"text": "hm", "thought": True, "thoughtSignature": "s"},
            {"text": "", "thoughtSignature": "t"},
        ]

    def test_tools_have_json_schemas(self) -> None:
        schema = {"type": "object", "properties": {"a": {"const": 12345678901234567890}}}
        tools = [{"name": "f", "description": "d", "parameters": schema}, {"name": "g"}]
        assert body("gemini", tools=tools)["tools"] == [
            {
                "functionDeclarations": [
                    {"name": "f", "description": "d", "parametersJsonSchema": schema},
                    {"name": "g", "parametersJsonSchema": {"type": "object"}},
                ]
            }
        ]

    @pytest.mark.parametrize(
        ("choice", "strict", "config"),
        [
            (None, False, None),
            ("auto", False, {"mode": "AUTO"}),
            ("none", True, {"mode": "NONE"}),
            ("required", True, {"mode": "ANY"}),
            ({"name": "f"}, True, {"mode": "ANY", "allowedFunctionNames": ["f"]}),
            ("auto", True, {"mode": "VALIDATED"}),
            (None, True, {"mode": "VALIDATED"}),
        ],
    )
    def test_tool_choice(self, choice: Any, strict: bool, config: Any) -> None:
        fields = {} if choice is None else {"tool_choice": choice}
        sent = body("gemini", tools=[{"name": "f", "strict": strict}], **fields)
        assert sent.get("toolConfig") == (config and {"functionCallingConfig": config})

    @pytest.mark.parametrize("choice", ["auto", "none"])
    def test_a_tool_choice_that_has_no_functions_to_choose_is_not_sent(self, choice: str) -> None:
        search = {"gemini": {"tools": [{"googleSearch": {}}]}}
        own = {"gemini": {"tools": [{"functionDeclarations": [{"name": "f"}]}]}}
        assert "toolConfig" not in body("gemini", tool_choice=choice)
        assert "toolConfig" not in body("gemini", tool_choice=choice, provider_options=search)
        assert "toolConfig" in body("gemini", tool_choice=choice, provider_options=own)

    def test_generation(self) -> None:
        sent = body("gemini", temperature=0.5, top_p=1, max_tokens=9, stop=["x"], seed=0)
        assert sent["generationConfig"] == {
            "temperature": 0.5,
            "topP": 1,
            "maxOutputTokens": 9,
            "stopSequences": ["x"],
            "seed": 0,
        }

    @pytest.mark.parametrize(
        ("wanted", "config"),
        [
            ({"type": "text"}, None),
            ({"type": "json"}, {"responseMimeType": "application/json"}),
            (
                {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True},
                {"responseMimeType": "application/json", "responseJsonSchema": {"type": "object"}},
            ),
        ],
    )
    def test_response_format(self, wanted: Any, config: Any) -> None:
        assert body("gemini", response_format=wanted).get("generationConfig") == config

    def test_a_schema_is_needed_where_one_is_asked_for(self) -> None:
        with pytest.raises(InvalidRequest, match="`response_format` needs a `schema`"):
            body("gemini", response_format={"type": "json_schema"})

    @pytest.mark.parametrize(
        ("model", "wanted", "config"),
        [
            ("gemini-3-pro", {"effort": "low"}, {"thinkingLevel": "LOW", "includeThoughts": True}),
            ("gemini-2.5-flash", {"effort": "high"}, {"thinkingBudget": 24_576, "includeThoughts": True}),
            ("gemini-2.5-flash", {"effort": "high", "max_tokens": 9}, {"thinkingBudget": 9, "includeThoughts": True}),
            ("gemini-2.5-flash", {"max_tokens": 0}, {"thinkingBudget": 0}),
            ("gemini-3-pro", {}, None),
            ("gemini-3-pro", {"effort": "minimal"}, {"thinkingLevel": "LOW", "includeThoughts": True}),
            ("models/gemini-3.1-pro-preview", {"effort": "minimal"}, {"thinkingLevel": "LOW", "includeThoughts": True}),
            ("gemini-3.7-flash", {"effort": "minimal"}, {"thinkingLevel": "LOW", "includeThoughts": True}),
            ("gemini-3-flash", {"effort": "minimal"}, {"thinkingLevel": "MINIMAL", "includeThoughts": True}),
            ("gemini-3.7-flash-lite", {"effort": "minimal"}, {"thinkingLevel": "MINIMAL", "includeThoughts": True}),
            ("gemini-2.5-pro", {"effort": "minimal"}, {"thinkingBudget": 1024, "includeThoughts": True}),
            ("gemini-2.5-flash", {"effort": "none"}, {"thinkingBudget": 0}),
            ("gemini-2.5-pro", {"effort": "none"}, {"thinkingBudget": 128}),
            ("gemini-2.5-pro", {"max_tokens": 9}, {"thinkingBudget": 128, "includeThoughts": True}),
            ("gemini-2.5-flash", {"effort": "max"}, {"thinkingBudget": 24_576, "includeThoughts": True}),
            ("gemini-3-pro", {"effort": "none"}, {"thinkingLevel": "LOW"}),
            ("gemini-3-flash", {"max_tokens": 0}, {"thinkingLevel": "MINIMAL"}),
            ("gemini-3-pro", {"effort": "max"}, {"thinkingLevel": "XHIGH", "includeThoughts": True}),
            ("gemini-4-hydrogen", {"effort": "xhigh"}, {"thinkingLevel": "XHIGH", "includeThoughts": True}),
            ("gemini-3.5-flash", {"max_tokens": 5000}, {"thinkingLevel": "MEDIUM", "includeThoughts": True}),
            ("other", {"effort": "none"}, {"thinkingBudget": 0}),
            ("other", {"effort": "max"}, {"thinkingLevel": "XHIGH", "includeThoughts": True}),
        ],
    )
    def test_reasoning(self, model: str, wanted: Any, config: Any) -> None:
        sent = json.loads(request("gemini", model=model, reasoning=wanted).body)
        assert sent.get("generationConfig", {}).get("thinkingConfig") == config

    def test_reasoning_that_is_not_as_asked_for_is_reported(self) -> None:
        for model, wanted, adjusted in (
            ("gemini-3-pro", {"effort": "none"}, {"reasoning.effort": "low"}),
            ("gemini-2.5-pro", {"max_tokens": 0}, {"reasoning.max_tokens": "128"}),
            ("gemini-3-pro", {"effort": "max"}, {"reasoning.effort": "xhigh"}),
            ("gemini-3-pro", {"effort": "high"}, {}),
        ):
            target = Target(model)
            asked = parse_request(json.dumps({"query": "a", "reasoning": wanted}).encode())
            get_provider("gemini").build_request(asked, target)
            assert target.changes.adjusted == adjusted

    def test_a_model_without_sampling_parameters_refuses_them_by_name(self) -> None:
        with pytest.raises(Unsupported, match="gemini does not support `temperature`: this model takes no sampling"):
            request("gemini", model="gemini-3.8-flash", temperature=0.5)
        assert "generationConfig" not in json.loads(request("gemini", model="gemini-3.8-flash", top_p=1).body)

    def test_options_are_merged_in(self) -> None:
        options = {
            "gemini": {
                "generationConfig": {"topK": 4, "temperature": None},
                "safetySettings": [],
                "toolConfig": {"functionCallingConfig": {"streamFunctionCallArguments": True}},
            },
            "openai": {"x": 1},
        }
        tools = [{"name": "f"}]
        sent = body("gemini", temperature=1, top_p=0.5, tools=tools, tool_choice="auto", provider_options=options)
        assert sent["generationConfig"] == {"topP": 0.5, "topK": 4}
        assert sent["safetySettings"] == []
        assert sent["toolConfig"]["functionCallingConfig"] == {"mode": "AUTO", "streamFunctionCallArguments": True}

    def test_what_it_has_no_place_for(self) -> None:
        with pytest.raises(Unsupported, match="gemini does not support `metadata`"):
            body("gemini", metadata={"a": "b"})


class TestRoundTrip:
    """An earlier answer goes back as it came, with every signature on its part."""

    ANSWER = (
        chunk(text("hm", thought=True)),
        chunk(text("So: ")),
        chunk(text("", thoughtSignature="sig-text")),
        chunk(call("f", "sig-call", args={"a": 1}), call("g", id="fc-2")),
        STOP,
    )

    def test_the_message_of_a_result(self) -> None:
        stream = "".join(f"data: {json.dumps(one)}\n\n" for one in self.ANSWER).encode()
        message = gai_fast.collect(gai_fast.decode("gemini", [stream])).message
        made = next(part["call_id"] for part in message["content"] if part["type"] == "tool_call")
        asked = {"messages": [ASK, message, {"role": "tool", "call_id": made, "content": "1"}]}
        sent = get_provider("gemini").build_request(parse_request(json.dumps(asked).encode()), Target("m"))
        assert json.loads(sent.body)["contents"][1:] == [
            {
                "role": "model",
                "parts": [
                    {"text": "So: "},
                    {"text": "", "thoughtSignature": "sig-text"},
                    {"functionCall": {"id": made, "name": "f", "args": {"a": 1}}, "thoughtSignature": "sig-call"},
                    {"functionCall": {"id": "fc-2", "name": "g", "args": {}}},
                ],
            },
            {
                "role": "user",
                "parts": [{"functionResponse": {"id": made, "name": "f", "response": {"output": "1"}}}],
            },
        ]


@pytest.mark.parametrize(("model", "placed"), [("gemini-3-pro-preview", True), ("gemini-2.5-flash", False)])
def test_the_first_call_of_a_step_without_a_signature_has_googles_placeholder(model: str, placed: bool) -> None:
    calls = [{"type": "tool_call", "call_id": each, "name": "f"} for each in ("a", "b")]
    signed = [{**calls[0], "call_id": "c", "signature": "c2ln"}]
    results = [
        [{"role": "tool", "call_id": each["call_id"], "content": "4"} for each in step] for step in (calls, signed)
    ]
    steps = [{"role": "assistant", "content": step} for step in (calls, signed)]
    messages = [{"role": "user", "content": "Hi"}, steps[0], *results[0], steps[1], *results[1]]
    contents = body("gemini", model=model, messages=messages)["contents"]
    found = [part.get("thoughtSignature") for turn in contents for part in turn["parts"] if "functionCall" in part]
    assert found == ["skip_thought_signature_validator" if placed else None, None, "c2ln"]
