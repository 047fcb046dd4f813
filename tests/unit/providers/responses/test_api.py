"""Requests of the Responses dialect."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types.responses.response_create_params import ResponseCreateParamsStreaming

from gai_fast.core.requests.reading import parse_request
from gai_fast.library.collecting import collect
from gai_fast.library.decoding import decode
from gai_fast.model.errors import InvalidRequest, Unsupported
from gai_fast.providers import Target, get_provider
from tests.unit.providers.answer_reading import (
    body,
    body_without,
    request,
    validated,
)
from tests.unit.providers.responses_streams import (
    BEGIN,
    EVERYBODY,
    OPENAI,
    done,
    end,
    text,
)


def test_the_providers_own_items_stand_in_their_place_and_others_are_left_out() -> None:
    def part(block: dict[str, Any], provider: str = "openai") -> dict[str, Any]:
        return {"type": "provider_block", "provider": provider, "block": block}

    search = {
        "type": "web_search_call",
        "id": "ws_1",
        "status": "completed",
        "action": {"type": "search", "query": "q"},
    }
    odd = {"role": "assistant", "content": "x", "call_id": ["a"], "type": ["b"]}
    output = {"type": "shell_call_output", "call_id": "c", "output": []}
    messages = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": [{"type": "text", "text": "a"}, part(search), {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": [part(odd), part({"type": "fallback"}, "anthropic")]},
        {"role": "user", "content": [part(output), {"type": "text", "text": "go"}]},
    ]
    target = Target("gpt-5")
    sent = get_provider(OPENAI).build_request(parse_request(json.dumps({"messages": messages}).encode()), target)
    assert json.loads(sent.body)["input"] == [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "a"},
        search,
        {"role": "assistant", "content": "b"},
        odd,
        output,
        {"role": "user", "content": "go"},
    ]
    assert target.changes.dropped == ["messages[2].content[1]"]


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}


SEALED: list[dict[str, Any]] = [
    {"type": "reasoning", "text": "hm", "signature": "sealed", "provider": "openai"},
    {"type": "text", "text": "a"},
]


TURNS: list[dict[str, Any]] = [
    {"role": "system", "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}]},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "Weather?"},
            {"type": "image", "url": "https://example.org/a.png"},
            {"type": "image", "data": "AAAA", "media_type": "image/png"},
            {"type": "file", "data": "BBBB", "media_type": "application/pdf", "filename": "a.pdf"},
        ],
    },
    {
        "role": "assistant",
        "content": [
            {"type": "reasoning", "text": "hm", "signature": "sealed", "provider": "openai"},
            {"type": "text", "text": "Let me "},
            {"type": "text", "text": "look."},
            {"type": "tool_call", "call_id": "c1", "name": "weather", "input": {"city": "Oslo"}},
            {"type": "tool_call", "call_id": "c2", "name": "sql", "input": "SELECT 1"},
        ],
    },
    {"role": "tool", "call_id": "c1", "content": "4 °C"},
    {
        "role": "tool",
        "call_id": "c2",
        "content": [{"type": "text", "text": "1"}, {"type": "image", "url": "https://example.org/b.png"}],
    },
]


class TestRequests:
    def test_a_model_that_does_not_think_gets_no_reasoning(self) -> None:
        """Its API refuses it: "Reasoning input items can only be provided to a reasoning or computer use model"."""
        for model, kinds in (("gpt-4o", [None]), ("gpt-5", ["reasoning", None])):
            target = Target(model, "k")
            asked = parse_request(json.dumps({"messages": [{"role": "assistant", "content": SEALED}]}).encode())
            sent = json.loads(get_provider(OPENAI).build_request(asked, target).body)
            assert [item.get("type") for item in sent["input"]] == kinds

    def test_everything_in_one_is_what_the_sdk_takes(self) -> None:
        sent = body(
            OPENAI,
            messages=TURNS,
            tools=[{"name": "weather", "description": "d", "parameters": SCHEMA, "strict": True}],
            tool_choice={"name": "weather"},
            response_format={"type": "json_schema", "name": "place", "schema": SCHEMA, "strict": True},
            reasoning={"effort": "low"},
            temperature=0.5,
            top_p=1,
            max_tokens=50,
            metadata={"a": "b"},
            provider_options={"openai": {"service_tier": "flex", "store": None}, "xai": {"x": 1}},
        )
        validated(ResponseCreateParamsStreaming, {**sent, "input": [with_id(item) for item in sent["input"]]})
        assert sent == {
            "model": "m1",
            "input": [
                {
                    "role": "system",
                    "content": [{"type": "input_text", "text": "Be "}, {"type": "input_text", "text": "brief."}],
                },
                {
                    "role": "user",
                    "content": [
                        {"type": "input_text", "text": "Weather?"},
                        {"type": "input_image", "image_url": "https://example.org/a.png", "detail": "auto"},
                        {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "auto"},
                        {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,BBBB"},
                    ],
                },
                {
                    "type": "reasoning",
                    "id": "rs_c9d0036bed6744bcdf692fc980d8717d",
                    "summary": [{"type": "summary_text", "text": "hm"}],
                    "encrypted_content": "sealed",
                },
                {"role": "assistant", "content": "Let me look."},
                {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city": "Oslo"}'},
                {"type": "custom_tool_call", "call_id": "c2", "name": "sql", "input": "SELECT 1"},
                {"type": "function_call_output", "call_id": "c1", "output": "4 °C"},
                {
                    "type": "custom_tool_call_output",
                    "call_id": "c2",
                    "output": [
                        {"type": "input_text", "text": "1"},
                        {"type": "input_image", "image_url": "https://example.org/b.png", "detail": "auto"},
                    ],
                },
            ],
            "stream": True,
            "stream_options": {"include_obfuscation": False},
            "include": ["reasoning.encrypted_content"],
            "tools": [
                {"type": "function", "name": "weather", "description": "d", "parameters": SCHEMA, "strict": True}
            ],
            "tool_choice": {"type": "function", "name": "weather"},
            "text": {"format": {"type": "json_schema", "name": "place", "strict": True, "schema": SCHEMA}},
            "reasoning": {"effort": "low", "summary": "auto"},
            "metadata": {"a": "b"},
            "temperature": 0.5,
            "top_p": 1,
            "max_output_tokens": 50,
            "service_tier": "flex",
        }

    def test_the_least_there_is(self) -> None:
        assert body("openai-compatible:responses") == {
            "model": "m1",
            "input": [{"role": "user", "content": "Hi"}],
            "stream": True,
            "store": False,
        }

    def test_tools_are_strict_only_where_that_is_asked_for(self) -> None:
        sent = body(OPENAI, tools=[{"name": "f", "parameters": {"type": "object"}}], tool_choice="required")
        assert sent["tools"][0]["strict"] is False
        assert sent["tool_choice"] == "required"

    @pytest.mark.parametrize(
        ("asked", "sent"), [({"type": "text"}, {"type": "text"}), ({"type": "json"}, {"type": "json_object"})]
    )
    def test_formats_without_a_schema(self, asked: Any, sent: Any) -> None:
        assert body(OPENAI, response_format=asked)["text"] == {"format": sent}
        with pytest.raises(InvalidRequest, match="schema"):
            body(OPENAI, response_format={"type": "json_schema"})

    @pytest.mark.parametrize(
        ("fields", "path"),
        [
            ({"stop": ["x"]}, "stop"),
            ({"seed": 0}, "seed"),
            ({"reasoning": {"max_tokens": 5}}, "reasoning.max_tokens"),
            (
                {
                    "system": "Brief.",
                    "messages": [
                        {"role": "user", "content": [{"type": "audio", "data": "A", "media_type": "audio/wav"}]}
                    ],
                },
                "messages[0].content[0]",
            ),
            (
                {"messages": [{"role": "assistant", "content": [{"type": "image", "url": "u"}]}], "query": "Hi"},
                "messages[0].content[0]",
            ),
        ],
    )
    def test_what_it_has_no_place_for_is_refused_by_name_or_dropped(self, fields: Any, path: str) -> None:
        with pytest.raises(Unsupported) as caught:
            body(OPENAI, **fields)
        assert f"`{path}`" in caught.value.message
        assert body_without(OPENAI, **fields)[1] == [path]

    def test_a_call_is_of_the_type_of_its_tool_whatever_its_arguments_are(self) -> None:
        broken = {"type": "tool_call", "call_id": "a", "name": "f", "input": '{"city":'}
        given = {"type": "tool_call", "call_id": "b", "name": "g", "input": {"x": 1}}
        messages = [
            {"role": "user", "content": "?"},
            {"role": "assistant", "content": [broken, given]},
            {"role": "tool", "call_id": "a", "content": "no JSON"},
            {"role": "tool", "call_id": "b", "content": "ok"},
        ]
        tools = [{"name": "f"}, {"type": "custom", "name": "g"}]
        sent = body(OPENAI, messages=messages, tools=tools)["input"]
        assert sent[1:] == [
            {"type": "function_call", "call_id": "a", "name": "f", "arguments": '{"city":'},
            {"type": "custom_tool_call", "call_id": "b", "name": "g", "input": '{"x": 1}'},
            {"type": "function_call_output", "call_id": "a", "output": "no JSON"},
            {"type": "custom_tool_call_output", "call_id": "b", "output": "ok"},
        ]

    def test_reasoning_goes_back_to_who_signed_it(self) -> None:
        parts = [
            {"type": "reasoning", "text": "not signed"},
            {"type": "reasoning", "text": "claude's", "signature": "s", "provider": "anthropic"},
            {"type": "reasoning", "signature": "mine"},
        ]
        sent = body(OPENAI, messages=[{"role": "assistant", "content": parts}], query="Go on")
        own = {"type": "reasoning", "id": "rs_3fd30542fe3f61b14bd4a4b2dc0b6fb3", "summary": []}
        assert sent["input"][:-1] == [{**own, "encrypted_content": "mine"}]
        assert sent["include"] == ["reasoning.encrypted_content"]

    def test_an_answer_can_be_appended_to_the_next_request_as_it_is(self) -> None:
        chunks = [
            done(0, "reasoning", summary=[{"type": "summary_text", "text": "hm"}], encrypted_content="sealed"),
            text("Look.", 1),
            done(2, "function_call", call_id="c", name="f", arguments='{"n":1}'),
            done(3, "custom_tool_call", call_id="d", name="g", input="go"),
        ]
        stream = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in [BEGIN, *chunks, end()])
        answer = collect(decode(OPENAI, [stream.encode()])).message
        results = [{"role": "tool", "call_id": call, "content": "ok"} for call in "cd"]
        thought = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}
        assert body(OPENAI, messages=[{"role": "user", "content": "Hi"}, answer, *results])["input"][1:] == [
            {**thought, "id": "rs_c9d0036bed6744bcdf692fc980d8717d", "encrypted_content": "sealed"},
            {"role": "assistant", "content": "Look."},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"n": 1}'},
            {"type": "custom_tool_call", "call_id": "d", "name": "g", "input": "go"},
            {"type": "function_call_output", "call_id": "c", "output": "ok"},
            {"type": "custom_tool_call_output", "call_id": "d", "output": "ok"},
        ]

    @pytest.mark.parametrize("provider", EVERYBODY)
    def test_it_is_sent_to_where_the_provider_takes_it(self, provider: str) -> None:
        sent = request(provider)
        paths = {
            "azure:responses": "/openai/v1/responses",
            "groq:responses": "/openai/v1/responses",
            "perplexity:responses": "/v1/responses",
        }
        assert (sent.method, sent.path) == ("POST", paths.get(provider, "/responses"))
        key = ("api-key", "k") if provider.startswith("azure") else ("authorization", "Bearer k")
        assert key in sent.headers
        assert key not in request(provider, api_key=None).headers
        assert get_provider(provider).provider == provider.partition(":")[0]

    def test_azure_takes_a_version_where_one_is_asked_for(self) -> None:
        sent = request("azure:responses", provider_options={"azure": {"api_version": "preview"}})
        assert sent.path == "/openai/v1/responses?api-version=preview"
        assert "api_version" not in json.loads(sent.body)

    def test_groq_keeps_nothing_and_seals_nothing(self) -> None:
        sent = body("groq:responses", reasoning={"effort": "minimal"})
        assert sent["reasoning"] == {"effort": "low"}
        assert sent.keys() == {"model", "input", "stream", "reasoning"}

    def test_openrouter_takes_a_bound_for_reasoning(self) -> None:
        sent = body("openrouter:responses", reasoning={"max_tokens": 100})
        assert sent["reasoning"] == {"max_tokens": 100, "summary": "auto"}

    def test_a_clients_own_request_passes_but_for_the_model(self) -> None:
        sent = get_provider(OPENAI).build_passthrough({"model": "fast", "input": "Hi"}, Target("gpt", "k"))
        assert json.loads(sent.body) == {"model": "gpt", "input": "Hi"}


def with_id(item: dict[str, Any]) -> dict[str, Any]:
    """Returns the SDK's types demand the id of a reasoning item, which does not exist if nothing is stored."""
    return {"id": "rs_1", **item} if item.get("type") == "reasoning" else item


@pytest.mark.timeout(100)
def test_results_find_their_calls_in_linear_time() -> None:
    """Looking through all items for each result took 5 seconds for 400 KB, and minutes for a body of full size."""
    calls = [{"type": "tool_call", "call_id": f"c{at}", "name": "f", "input": "x"} for at in range(20_000)]
    results = [{"role": "tool", "call_id": f"c{at}", "content": ""} for at in range(20_000)]
    items = body(OPENAI, messages=[{"role": "assistant", "content": calls}, *results])["input"]
    assert {item["type"] for item in items[20_000:]} == {"custom_tool_call_output"}


@pytest.mark.timeout(100)
def test_texts_of_an_earlier_answer_are_joined_in_linear_time() -> None:
    """Each text that was added copied all texts before it."""
    parts = [{"type": "text", "text": said} for said in ("x" * 8_000_000, *["a"] * 100_000)]
    items = body(OPENAI, messages=[{"role": "assistant", "content": parts}], query="Hi")["input"]
    assert items[0] == {"role": "assistant", "content": "x" * 8_000_000 + "a" * 100_000}


def test_text_behind_a_call_is_an_item_of_its_own() -> None:
    call = {"type": "tool_call", "call_id": "c", "name": "f"}
    said = [{"type": "text", "text": text} for text in ("a", "", "b", "", "c")]
    items = body(OPENAI, messages=[{"role": "assistant", "content": [*said[:3], call, *said[3:]]}], query="Hi")["input"]
    assert [item.get("content") for item in items] == ["ab", None, "c", "Hi"]


@pytest.mark.parametrize(
    ("api", "model", "members", "included"),
    [
        (OPENAI, "gpt-5.1", {}, True),
        (OPENAI, "gpt-4.1", {}, False),
        (OPENAI, "x", {}, False),
        (OPENAI, "x", {"reasoning": {"effort": "low"}}, True),
        ("groq:responses", "x", {"reasoning": {"effort": "low"}}, False),
        (OPENAI, "x", {"reasoning": {"effort": "low"}, "include": "a"}, None),
    ],
)
def test_a_kept_answer_has_encrypted_reasoning(
    api: str, model: str, members: dict[str, Any], included: bool | None
) -> None:
    asked = {"model": "m", "input": "hi", **members}
    target = Target(model)
    assert "include" not in sent_as_it_is(api, {"model": "m", "input": "hi"}, target)
    target.is_kept = True
    wanted = ["reasoning.encrypted_content"] if included else members.get("include")
    assert sent_as_it_is(api, asked, target).get("include") == wanted
    if included:
        more = {**asked, "include": ["web_search_call.results"]}
        assert sent_as_it_is(api, more, target)["include"] == ["web_search_call.results", *(wanted or ())]
        target.refused = ["include"]
        assert "include" not in sent_as_it_is(api, asked, target)
        assert sent_as_it_is(api, more, target)["include"] == ["web_search_call.results"], "the client's own stays"


def sent_as_it_is(api: str, asked: dict[str, Any], target: Target) -> dict[str, Any]:
    sent: dict[str, Any] = json.loads(get_provider(api).build_passthrough(asked, target).body)
    return sent


def test_a_refusal_of_encrypted_reasoning_is_of_the_member_and_not_of_a_signature() -> None:
    api, target = get_provider(OPENAI), Target("x")
    target.is_kept = True
    text = "Encrypted content is not supported with this model."
    details = {"message": text, "type": "invalid_request_error", "param": "include", "code": None}
    error = InvalidRequest(message=text, provider="openai", details=details)
    for members in ({}, {"include": ["web_search_call.results"]}):
        asked = {"model": "m", "input": "hi", "reasoning": {"effort": "low"}, **members}
        assert not api.refuses_signatures(error)
        found = api.refused_member(asked, target, error)
        assert found is not None
        assert found.path == "include"
    assert api.refuses_signatures(InvalidRequest(message="Invalid encrypted_content", provider="openai"))
