"""What an API takes of a native request: what is left out, choices of tools, instructions alone."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gai_fast.core.requests.reading import parse_request
from gai_fast.kernels import encode_json
from gai_fast.model.errors import Unsupported
from gai_fast.model.request import Request
from gai_fast.providers import Target, get_provider
from gai_fast.providers.requests import parts


class TestUnsupported:
    def test_a_field_is_refused_by_its_path(self) -> None:
        with pytest.raises(Unsupported) as refused:
            get_provider("anthropic").leave_out("messages[0]", Target("m"), "odd")
        assert refused.value.message == "anthropic does not support `messages[0]`: odd"
        assert refused.value.reason == "field"

    def test_or_left_out_and_noted(self) -> None:
        target = Target("m", on_unsupported="drop")
        get_provider("anthropic").leave_out("messages[0]", target, "odd")
        assert target.changes.dropped == ["messages[0]"]

    def test_a_callers_own_word_is_cut(self) -> None:
        assert len(get_provider("anthropic").unsupported("metadata." + "x" * 9000).message) < 300

    def test_what_an_api_lacks_is_gone_from_the_request(self) -> None:
        api, asked = get_provider("anthropic"), Request(query="Hi", seed=0, stop=["x"])
        with pytest.raises(Unsupported, match="`seed`"):
            api.supported(asked, Target("m"))
        target = Target("m", on_unsupported="drop")
        assert api.supported(asked, target) == Request(query="Hi", stop=["x"])
        assert target.changes.dropped == ["seed"]
        given = Request(query="Hi")
        assert api.supported(given, target) is given


NAMED = ("openai", "openai:responses", "anthropic", "gemini", "mistral", "cohere", "ollama")


@pytest.mark.parametrize("provider", NAMED)
def test_a_choice_of_a_tool_that_is_not_there_is_refused_or_left_out(provider: str) -> None:
    asked = {"query": "Hi", "tools": [{"name": "f"}], "tool_choice": {"name": "g"}}
    with pytest.raises(Unsupported, match="`tool_choice`: it names none of the `tools`"):
        get_provider(provider).build_request(native(**asked), Target("m"))
    target = Target("m", on_unsupported="drop")
    sent = get_provider(provider).build_request(native(**asked), target)
    assert b'"g"' not in sent.body
    assert target.changes.dropped == ["tool_choice"]


def test_a_server_of_any_make_judges_a_choice_itself() -> None:
    asked = {"query": "Hi", "tools": [{"name": "f"}], "tool_choice": {"name": "g"}}
    sent = json.loads(get_provider("openai-compatible").build_request(native(**asked), Target("m")).body)
    assert sent["tool_choice"] == {"type": "function", "function": {"name": "g"}}


@pytest.mark.parametrize(
    "more",
    [
        {"tools": [{"name": "g"}, {"name": "f"}]},
        {"tools": [{"name": "f"}, {"type": "custom", "name": "g"}]},
        {"provider_options": {"openai": {"tools": [{"type": "function", "function": {"name": "g"}}]}}},
        {"extra": {"tools": [{"type": "function", "function": {"name": "g"}}]}},
    ],
)
def test_a_choice_may_name_any_tool_that_is_sent(more: dict[str, Any]) -> None:
    asked = {"query": "Hi", "tools": [{"name": "f"}], "tool_choice": {"name": "g"}, **more}
    sent = json.loads(get_provider("openai").build_request(native(**asked), Target("m")).body)
    choice = sent["tool_choice"]
    assert choice[choice["type"]]["name"] == "g"


CHOICES = ("openai", "openai:responses", "openai:completions", "anthropic", "gemini", "cohere", "ollama:generate")


@pytest.mark.parametrize("provider", CHOICES)
@pytest.mark.parametrize("choice", ["auto", "none"])
def test_a_choice_among_no_tools_means_nothing_and_is_not_sent(provider: str, choice: str) -> None:
    target = Target("m")
    sent = get_provider(provider).build_request(native(query="Hi", tool_choice=choice), target)
    assert {"tool_choice", "toolConfig"}.isdisjoint(json.loads(sent.body))
    assert not target.changes


@pytest.mark.parametrize("provider", CHOICES)
def test_a_call_of_no_tool_is_refused_by_name(provider: str) -> None:
    with pytest.raises(Unsupported, match="`tool_choice`"):
        get_provider(provider).build_request(native(query="Hi", tool_choice="required"), Target("m"))


@pytest.mark.parametrize("provider", ["gemini", "cohere"])
def test_instructions_alone_are_the_users_where_a_user_must_speak(provider: str) -> None:
    """Google refuses empty `contents`, Cohere a last message that is not the user's."""
    instructions = [{"role": "system", "content": "Be brief."}, {"role": "system", "content": "Write a haiku."}]
    target = Target("m")
    sent = json.loads(get_provider(provider).build_request(native(messages=instructions), target).body)
    last = sent["contents"][-1] if provider == "gemini" else sent["messages"][-1]
    assert last["role"] == "user"
    assert "haiku" in json.dumps(last)
    assert "brief" not in json.dumps(last)
    assert target.changes.adjusted == {"messages[1].role": "user"}


def test_a_conversation_with_a_user_is_not_changed() -> None:
    target = Target("m")
    sent = get_provider("cohere").build_request(native(system="Be brief.", query="Hi"), target)
    assert [message["role"] for message in json.loads(sent.body)["messages"]] == ["system", "user"]
    assert not target.changes


def native(**fields: Any) -> Request:
    return parse_request(json.dumps(fields).encode())


UNION: dict[str, Any] = {
    "anyOf": [
        {"properties": {"city": {"type": "string"}}, "required": ["city"]},
        {"properties": {"place": {"type": "string"}}, "required": ["place"]},
    ]
}


@pytest.mark.parametrize("provider", ["openai", "openai:responses", "azure", "azure:responses", "anthropic"])
def test_arguments_are_no_union_where_an_api_refuses_it(provider: str) -> None:
    """OpenAI: "schema must have type 'object' and not have 'oneOf'/'anyOf'/'allOf'/'enum'/'not' at the top level"."""
    tools = [{"type": "web_search"}, {"name": "f", "parameters": UNION}]
    target = Target("gpt-search-x" if provider.startswith("openai") else "m", on_unsupported="drop")
    sent = json.loads(get_provider(provider).build_request(native(query="Hi", tools=tools), target).body)
    tool = next(each for each in sent["tools"] if "f" in (each.get("name"), each.get("function", {}).get("name")))
    schema = tool.get("input_schema") or tool.get("parameters") or tool["function"]["parameters"]
    assert (schema["type"], [*schema["properties"]]) == ("object", ["city", "place"])
    assert schema["description"].startswith("{anyOf: [")
    assert target.changes.adjusted == {"tools[1].parameters": "simplified"}


CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


@pytest.mark.parametrize(
    "provider", ["openai", "openai:responses", "azure", "azure:responses", "anthropic", "deepseek"]
)
@pytest.mark.parametrize(
    ("given", "sent", "is_reported"),
    [
        # browserbase/stagehand#1159: "schema must be a JSON Schema of 'type: "object"', got 'type: "None"'".
        ({"$ref": "#/$defs/City", "$defs": {"City": CITY}}, {**CITY, "$defs": {"City": CITY}}, True),
        ({"$ref": "#/definitions/C", "definitions": {"C": CITY}}, {**CITY, "definitions": {"C": CITY}}, True),
        (
            {"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/B"}, "B": CITY}},
            {**CITY, "$defs": {"A": {"$ref": "#/$defs/B"}, "B": CITY}},
            True,
        ),
        # JSON Schema 2020-12, 8.2.3.1: what stands beside a reference is applied, too.
        (
            {"$ref": "#/$defs/C", "properties": {"day": {}}, "required": ["day"], "$defs": {"C": CITY}},
            {
                "type": "object",
                "properties": {"city": {"type": "string"}, "day": {}},
                "required": ["city", "day"],
                "$defs": {"C": CITY},
            },
            True,
        ),
        ({"properties": {}}, {"type": "object", "properties": {}}, True),
        ({}, {"type": "object", "properties": {}}, True),
        ({"type": ["object", "null"]}, {"type": "object", "properties": {}}, True),
        # langchain-mcp-adapters#137: "In context=(), object schema missing properties".
        ({"type": "object"}, {"type": "object", "properties": {}}, False),
        ({"type": "object", "properties": {"a": {"anyOf": [{}, {}]}}}, None, False),
        (CITY, None, False),
        ({"title": "T", **CITY}, None, False),
    ],
)
def test_arguments_say_that_they_are_an_object_where_an_api_needs_it(
    provider: str, given: Any, sent: Any, is_reported: bool
) -> None:
    target = Target("m")
    request = native(query="Hi", tools=[{"name": "f", "parameters": given}])
    tool = json.loads(get_provider(provider).build_request(request, target).body)["tools"][0]
    schema = tool.get("input_schema") or tool.get("parameters") or tool["function"]["parameters"]
    wanted = given if sent is None else sent
    if not given.get("properties") and provider in ("anthropic", "deepseek"):
        schema = {"properties": wanted["properties"], **schema}  # these do not need it
    assert schema == wanted
    assert target.changes.adjusted == ({"tools[0].parameters": "object"} if is_reported else {})


def test_a_reference_that_leads_nowhere_is_the_providers_to_refuse() -> None:
    for given in ({"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}}, {"$ref": "#/a"}, {"type": "string"}):
        request = native(query="Hi", tools=[{"name": "f", "parameters": given}])
        tool = json.loads(get_provider("openai").build_request(request, Target("m")).body)["tools"][0]
        wanted = given if "type" in given else {**given, "type": "object", "properties": {}}
        assert tool["function"]["parameters"] == wanted


@pytest.mark.parametrize(
    "given",
    [
        '{"anyOf":[{"properties":{"a":{"maximum":1e999}}}]}',
        '{"$ref":"#/$defs/A","$defs":{"A":{"type":"object","properties":{"a":{"maximum":1e999}}}}}',
    ],
)
@pytest.mark.parametrize("provider", ["openai", "openai:responses", "anthropic", "deepseek"])
def test_a_number_that_is_none_in_json_is_the_providers_to_refuse(provider: str, given: str) -> None:
    asked = parse_request(f'{{"query":"Hi","tools":[{{"name":"f","parameters":{given}}}]}}'.encode())
    sent = get_provider(provider).build_request(asked, Target("m")).body
    assert b"1e999" in sent


def test_so_are_such_numbers_of_strict_arguments() -> None:
    tool = b'{"name":"f","strict":true,"parameters":{"type":"object","properties":{"a":{"const":1e999}}}}'
    target = Target("claude-opus-4-5")
    asked = parse_request(b'{"query":"Hi","tools":[' + tool + b"]}")
    assert b"1e999" in get_provider("anthropic").build_request(asked, target).body
    assert not target.changes.adjusted


def test_references_may_follow_each_other_and_the_nearest_member_counts() -> None:
    named = {f"d{at}": {"$ref": f"#/$defs/d{at + 1}", "title": f"T{at}", f"x{at}": at} for at in range(300)}
    given = {"$ref": "#/$defs/d0", "title": "T", "$defs": {**named, "d300": CITY}}
    request = native(query="Hi", tools=[{"name": "f", "parameters": given}])
    sent = json.loads(get_provider("openai").build_request(request, Target("m")).body)["tools"][0]["function"]
    rest = {f"x{at}": at for at in range(300)}
    assert sent["parameters"] == {**CITY, **rest, "title": "T", "$defs": given["$defs"]}


@pytest.mark.interpreted
def test_a_definition_that_members_of_a_union_share_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """20,000 properties times 60,000 references would take hours."""
    written: list[Any] = []

    def counted(value: Any) -> bytes:
        written.append(value)
        return encode_json(value)

    monkeypatch.setattr(parts, "encode_json", counted)
    shared = {"properties": {f"p{at}": {"const": at} for at in range(50)}, "required": ["p1"]}
    union = {"anyOf": [{"$ref": "#/$defs/A", "x": at} for at in range(50)], "$defs": {"A": shared}}
    request = native(query="Hi", tools=[{"name": "f", "parameters": union}])
    sent = json.loads(get_provider("openai").build_request(request, Target("m")).body)["tools"][0]["function"]
    assert (sent["parameters"]["properties"], sent["parameters"]["required"]) == (shared["properties"], ["p1"])
    assert len(written) < 60


def test_a_union_may_have_any_number_of_members() -> None:
    """A property has all of its schemas side by side: one within the other, they would be nested too deep."""
    members = [
        {"properties": {"kind": {"const": at}, "value": {}}, "required": ["kind", f"n{at}"]} for at in range(1000)
    ]
    fields: dict[str, Any] = {"query": "Hi", "tools": [{"name": "f", "parameters": {"oneOf": members}}]}
    sent = json.loads(get_provider("openai").build_request(native(**fields), Target("m")).body)
    schema = sent["tools"][0]["function"]["parameters"]
    assert schema["properties"] == {"kind": {"anyOf": [{"const": at} for at in range(1000)]}, "value": {}}
    assert schema["required"] == ["kind"]


@pytest.mark.parametrize("provider", ["openai", "openai:responses"])
def test_strict_arguments_that_are_a_union_are_refused_by_name(provider: str) -> None:
    fields: dict[str, Any] = {"query": "Hi", "tools": [{"name": "f", "parameters": UNION, "strict": True}]}
    with pytest.raises(Unsupported, match=r"`tools\[0\]\.strict`: arguments that are a union"):
        get_provider(provider).build_request(native(**fields), Target("m"))
    target = Target("m", on_unsupported="drop")
    sent = json.loads(get_provider(provider).build_request(native(**fields), target).body)
    assert sent["tools"][0].get("function", sent["tools"][0]).get("strict", False) is False
    assert target.changes.dropped == ["tools[0].strict"]


def test_an_api_may_get_a_union_as_an_object() -> None:
    """farion1231/cc-switch#5490: DeepSeek says "got 'type: null'"."""
    request = native(query="Hi", tools=[{"name": "f", "parameters": UNION}])
    sent = json.loads(get_provider("deepseek").build_request(request, Target("m")).body)
    assert sent["tools"][0]["function"]["parameters"] == {**UNION, "type": "object"}


def test_other_apis_get_a_union_as_it_is() -> None:
    sent = get_provider("mistral").build_request(
        native(query="Hi", tools=[{"name": "f", "parameters": UNION}]), Target("m")
    )
    assert json.loads(sent.body)["tools"][0]["function"]["parameters"] == UNION


SILENT = ["", [], [{"type": "text", "text": ""}]]


@pytest.mark.parametrize("provider", ["anthropic", "gemini", "cohere"])
@pytest.mark.parametrize("content", SILENT)
def test_an_empty_last_message_does_not_make_the_model_continue_its_answer(provider: str, content: Any) -> None:
    """Anthropic: "all messages must have non-empty content except for the optional final assistant message"."""
    hi, answer, empty = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}, {"role": "user"}
    asked = native(messages=[hi, answer, {**empty, "content": content}])
    with pytest.raises(Unsupported, match=r"`messages\[2\]`: a last message that says nothing"):
        get_provider(provider).build_request(asked, Target("m"))
    target = Target("m", on_unsupported="drop")
    sent = json.loads(get_provider(provider).build_request(asked, target).body)
    assert [each["role"] for each in sent.get("messages", sent.get("contents"))] == ["user"]
    assert target.changes.dropped == ["messages[2]", "messages[1]"]


SCHEMA: dict[str, Any] = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
LOOSE: dict[str, Any] = {**SCHEMA, "required": [], "additionalProperties": False}


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        *((name, "m") for name in ("openai", "openai:responses", "azure", "azure:responses", "groq", "groq:responses")),
        *((name, "m") for name in ("xai", "xai:responses", "deepseek:responses")),
        ("openrouter", "openai/gpt-5"),
    ],
)
def test_a_strict_schema_is_closed_or_no_longer_strict(provider: str, model: str) -> None:
    """ "'additionalProperties' is required to be supplied and to be false", and every property is `required`."""
    for schema, is_strict, word in ((SCHEMA, True, "closed"), (LOOSE, False, "false")):
        target = Target(model)
        asked = native(
            query="Hi",
            tools=[{"name": "f", "parameters": schema, "strict": True}, {"name": "g", "parameters": schema}],
            response_format={"type": "json_schema", "schema": schema, "strict": True},
        )
        sent = json.loads(get_provider(provider).build_request(asked, target).body)
        tool, other = [each.get("function", each) for each in sent["tools"]]
        form = sent["text"]["format"] if "text" in sent else sent["response_format"]["json_schema"]
        assert (tool["strict"], form["strict"]) == (is_strict, is_strict)
        written = {**schema, "additionalProperties": False}
        assert (tool["parameters"], form["schema"], other["parameters"]) == (written, written, schema)
        names = ("parameters", "schema") if is_strict else ("strict", "strict")
        assert target.changes.adjusted == {f"tools[0].{names[0]}": word, f"response_format.{names[1]}": word}


@pytest.mark.parametrize(("provider", "model"), [("openrouter", "anthropic/claude-opus-5"), ("openai-compatible", "m")])
def test_a_strict_schema_is_sent_as_it_is_where_any_is_taken(provider: str, model: str) -> None:
    target = Target(model)
    asked = native(query="Hi", response_format={"type": "json_schema", "schema": LOOSE, "strict": True})
    sent = json.loads(get_provider(provider).build_request(asked, target).body)
    assert sent["response_format"]["json_schema"] == {"name": "answer", "strict": True, "schema": LOOSE}
    assert not target.changes


@pytest.mark.parametrize("provider", ["anthropic", "gemini", "cohere"])
def test_an_empty_message_behind_another_of_the_user_is_not_missed(provider: str) -> None:
    asked = native(system="Be brief.", messages=[{"role": "user", "content": "Hi"}, {"role": "user", "content": ""}])
    target = Target("m")
    sent = json.loads(get_provider(provider).build_request(asked, target).body)
    assert [each["role"] for each in sent.get("messages", sent.get("contents"))][-1] == "user"
    assert '""' not in json.dumps(sent)
    assert target.changes.dropped == ["messages[1]"]
    with pytest.raises(Unsupported, match=r"`messages\[0\]`"):
        get_provider(provider).build_request(native(messages=[{"role": "user", "content": ""}]), Target("m"))
    with pytest.raises(Unsupported, match="`query`"):
        answer = [{"role": "assistant", "content": "Hello"}]
        get_provider(provider).build_request(native(messages=answer, query=""), Target("m"))


def test_an_empty_last_message_is_sent_where_it_is_accepted() -> None:
    messages = [
        {"role": "user", "content": ""},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": ""},
    ]
    sent = json.loads(get_provider("openai:responses").build_request(native(messages=messages), Target("m")).body)
    assert sent["input"] == messages[1:]


def test_paths_name_the_clients_own_tools_behind_those_that_the_provider_runs() -> None:
    tools = [{"type": "web_search"}, {"name": "f", "strict": True, "parameters": {"properties": {"a": {}}}}]
    target = Target("claude-sonnet-4-5")
    get_provider("anthropic").build_request(native(query="Hi", tools=tools), target)
    assert target.changes.adjusted == {"tools[1].parameters": "closed"}
    target = Target("m", on_unsupported="drop")
    get_provider("ollama").build_request(native(query="Hi", tools=tools), target)
    assert target.changes.dropped == ["tools[0]", "tools[1].strict"]


def test_paths_name_the_clients_own_messages_whatever_stands_before_them() -> None:
    target = Target("m")
    call = {"type": "tool_call", "call_id": "c", "name": "f", "input": {}}
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": "Well?"},
        {"role": "tool", "call_id": "c", "content": "yes"},
    ]
    get_provider("openai").build_request(native(system="Be brief.", messages=messages), target)
    assert target.changes.adjusted == {"messages[3]": "moved to its call"}
    target = Target("m")
    get_provider("perplexity").build_request(native(system="Be brief.", messages=messages[:1], query="So?"), target)
    assert target.changes.adjusted == {"query": "joined"}


@pytest.mark.parametrize(
    "provider",
    [
        *("anthropic", "gemini"),
        *("openai", "azure", "deepseek", "groq", "mistral", "xai", "openrouter", "openai-compatible"),
        *("openai:responses", "cohere", "ollama"),
    ],
)
def test_a_failed_result_is_sent_as_one_or_reported(provider: str) -> None:
    call = {"role": "assistant", "content": [{"type": "tool_call", "call_id": "call_0001", "name": "f"}]}
    result = {"role": "tool", "call_id": "call_0001", "content": "No such city", "is_error": True}
    target = Target("m")
    asked = native(messages=[{"role": "user", "content": "Hi"}, call, result])
    sent = get_provider(provider).build_request(asked, target).body
    is_sent = b'"is_error":true' in sent or b'{"error":"No such city"}' in sent
    assert is_sent == (provider in ("anthropic", "gemini"))
    assert target.changes.adjusted == ({} if is_sent else {"messages[2].is_error": "false"})
