"""Tools that a provider runs, and tools whose input is text: each provider's own form, or a refusal by name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gai_fast.core.requests.reading import parse_request
from gai_fast.formats import get_format
from gai_fast.model.errors import InvalidRequest, Unsupported
from gai_fast.providers import Target, get_provider
from gai_fast.providers.requests.own_tools import OwnTool, declared, lacking
from tests.requests.targets import TARGETS

FUNCTION = {"name": "weather"}
PLACE = {"city": "Oslo", "country": "NO"}
APPROXIMATE = {"type": "approximate", **PLACE}
SEARCH = {"type": "web_search"}
CODE = {"type": "code_execution"}
CUSTOM = {"type": "custom", "name": "sql", "description": "SQL", "format": {"type": "text"}}


def built(
    provider: str, model: str, *tools: Any, drop: bool = False, **fields: Any
) -> tuple[dict[str, Any], list[str]]:
    """Returns the body for these tools, which the types of the provider's SDK accept, and what was left out."""
    request = parse_request(json.dumps({"query": "hi", "tools": tools, **fields}).encode())
    target = Target(model, None, "drop" if drop else "error")
    body = json.loads(get_provider(provider).build_request(request, target).body)
    types = next(each for each in TARGETS if each.provider == provider).types()
    assert types.problems(body) == []
    return body, target.changes.dropped


@pytest.mark.parametrize(
    ("provider", "model", "tool", "sent"),
    [
        ("openai:responses", "gpt-5", SEARCH, {"type": "web_search"}),
        ("azure:responses", "gpt-5", SEARCH, {"type": "web_search"}),
        ("xai:responses", "grok-4", SEARCH, {"type": "web_search"}),
        ("openai:responses", "gpt-5", CODE, {"type": "code_interpreter", "container": {"type": "auto"}}),
        (
            "openai:responses",
            "gpt-5",
            {**SEARCH, "options": {"allowed_domains": ["a.example"], "user_location": PLACE, "context_size": "low"}},
            {
                "type": "web_search",
                "filters": {"allowed_domains": ["a.example"]},
                "user_location": APPROXIMATE,
                "search_context_size": "low",
            },
        ),
        (
            "openai:responses",
            "gpt-5",
            {**CODE, "options": {"container": {"type": "auto", "memory_limit": "4g"}}},
            {"type": "code_interpreter", "container": {"type": "auto", "memory_limit": "4g"}},
        ),
        ("anthropic", "claude-opus-5", SEARCH, {"type": "web_search_20260318", "name": "web_search"}),
        ("anthropic", "claude-sonnet-4-5", SEARCH, {"type": "web_search_20250305", "name": "web_search"}),
        ("anthropic", "claude-opus-5", CODE, {"type": "code_execution_20260521", "name": "code_execution"}),
        ("anthropic", "claude-sonnet-4-5", CODE, {"type": "code_execution_20250825", "name": "code_execution"}),
        (
            "anthropic",
            "claude-sonnet-4-5",
            {
                **SEARCH,
                "cache": True,
                "options": {"blocked_domains": ["a.example"], "max_uses": 3, "user_location": PLACE},
            },
            {
                "type": "web_search_20250305",
                "name": "web_search",
                "blocked_domains": ["a.example"],
                "max_uses": 3,
                "user_location": APPROXIMATE,
                "cache_control": {"type": "ephemeral"},
            },
        ),
        ("gemini", "gemini-3-pro-preview", SEARCH, {"googleSearch": {}}),
        ("gemini", "gemini-3-pro-preview", CODE, {"codeExecution": {}}),
        (
            "gemini",
            "gemini-3-pro-preview",
            {
                **SEARCH,
                "options": {"blocked_domains": ["a.example"], "timeRangeFilter": {"startTime": "2026-01-01T00:00:00Z"}},
            },
            {
                "googleSearch": {
                    "excludeDomains": ["a.example"],
                    "timeRangeFilter": {"startTime": "2026-01-01T00:00:00Z"},
                }
            },
        ),
        ("groq", "openai/gpt-oss-120b", SEARCH, {"type": "browser_search"}),
        ("groq", "openai/gpt-oss-120b", CODE, {"type": "code_interpreter"}),
    ],
)
def test_a_tool_has_the_providers_form(provider: str, model: str, tool: Any, sent: dict[str, Any]) -> None:
    assert built(provider, model, tool)[0]["tools"] == [sent]


@pytest.mark.parametrize("provider", ["openai:responses", "anthropic", "gemini", "groq"])
def test_it_stands_beside_functions_and_may_be_required(provider: str) -> None:
    model = {"groq": "openai/gpt-oss-120b", "anthropic": "claude-sonnet-4-5"}.get(provider, "gemini-3-pro-preview")
    body, dropped = built(provider, model, SEARCH, {"type": "function", **FUNCTION}, tool_choice="auto")
    assert len(body["tools"]) == 2
    assert "weather" in json.dumps(body["tools"][0])
    assert dropped == []
    if provider == "gemini":
        assert body["toolConfig"]["includeServerSideToolInvocations"] is True
    if provider == "openai:responses":
        assert built(provider, model, SEARCH, tool_choice="required")[0]["tool_choice"] == "required"


@pytest.mark.parametrize(
    ("provider", "model", "tool", "member", "sent"),
    [
        ("openai", "gpt-5-search-api", SEARCH, "web_search_options", {}),
        (
            "openai",
            "gpt-4o-search-preview",
            {**SEARCH, "options": {"context_size": "low", "user_location": PLACE}},
            "web_search_options",
            {"search_context_size": "low", "user_location": {"type": "approximate", "approximate": PLACE}},
        ),
        (
            "perplexity",
            "sonar",
            {**SEARCH, "options": {"allowed_domains": ["a.example"]}},
            "search_domain_filter",
            ["a.example"],
        ),
        ("openrouter", "openai/gpt-5", SEARCH, "plugins", [{"id": "web"}]),
        ("groq", "groq/compound", SEARCH, "compound_custom", {"tools": {"enabled_tools": ["web_search"]}}),
        (
            "groq",
            "groq/compound",
            {**SEARCH, "options": {"allowed_domains": ["a.example"]}},
            "search_settings",
            {"include_domains": ["a.example"]},
        ),
    ],
)
def test_some_have_a_member_of_the_body(provider: str, model: str, tool: Any, member: str, sent: Any) -> None:
    body, _ = built(provider, model, tool)
    assert body[member] == sent
    assert "tools" not in body


NONE = [
    ("openai", "gpt-5", SEARCH),
    ("openai", "gpt-5-search-api", CODE),
    ("mistral", "mistral-medium-latest", SEARCH),
    ("deepseek", "deepseek-chat", CODE),
    ("cohere", "command-a-03-2025", SEARCH),
    ("ollama", "qwen3", SEARCH),
    ("groq", "llama-3.3-70b-versatile", SEARCH),
    ("perplexity", "sonar", CODE),
    ("anthropic", "claude-sonnet-4-5", CUSTOM),
    ("gemini", "gemini-3-pro-preview", CUSTOM),
    ("mistral", "mistral-medium-latest", CUSTOM),
    ("groq", "openai/gpt-oss-120b", CUSTOM),
    ("ollama", "qwen3", CUSTOM),
]


@pytest.mark.parametrize(("provider", "model", "tool"), NONE)
def test_where_there_is_none_it_is_refused_by_name_or_left_out(provider: str, model: str, tool: Any) -> None:
    with pytest.raises(Unsupported, match=rf"`tools\[0\]`: tools of the type {tool['type']}"):
        built(provider, model, tool)
    body, dropped = built(provider, model, tool, drop=True)
    assert "tools" not in body
    assert dropped == ["tools[0]"]


def test_an_option_that_the_provider_lacks_is_refused_by_name_or_left_out() -> None:
    tool = {**SEARCH, "options": {"max_uses": 3}}
    with pytest.raises(Unsupported, match=r"`tools\[0\].options.max_uses`"):
        built("openai:responses", "gpt-5", tool)
    body, dropped = built("openai:responses", "gpt-5", tool, drop=True)
    assert body["tools"] == [{"type": "web_search"}]
    assert dropped == ["tools[0].options.max_uses"]


def test_an_option_that_is_a_wish_is_left_out_and_reported() -> None:
    body, dropped = built("anthropic", "claude-sonnet-4-5", {**SEARCH, "options": {"context_size": "low"}})
    assert body["tools"] == [{"type": "web_search_20250305", "name": "web_search"}]
    assert dropped == ["tools[0].options.context_size"]


def test_custom_tools_of_the_responses_api() -> None:
    grammar = {**CUSTOM, "format": {"type": "grammar", "syntax": "lark", "definition": "start: /a/"}}
    body, _ = built(
        "openai:responses", "gpt-5", grammar, {"type": "custom", "name": "bare"}, tool_choice={"name": "sql"}
    )
    assert body["tools"] == [grammar, {"type": "custom", "name": "bare"}]
    assert body["tool_choice"] == {"type": "custom", "name": "sql"}


def test_custom_tools_of_the_chat_api() -> None:
    grammar = {"syntax": "lark", "definition": "start: /a/"}
    tool = {"type": "custom", "name": "sql", "format": {"type": "grammar", **grammar}}
    said = {"role": "assistant", "content": [{"type": "tool_call", "call_id": "c", "name": "sql", "input": "SELECT 1"}]}
    messages = [{"role": "user", "content": "hi"}, said, {"role": "tool", "call_id": "c", "content": "1"}]
    body, _ = built("openai", "gpt-5", tool, FUNCTION, messages=messages, tool_choice={"name": "sql"})
    own = {"name": "sql", "format": {"type": "grammar", "grammar": grammar}}
    assert body["tools"][0] == {"type": "custom", "custom": own}
    assert body["tool_choice"] == {"type": "custom", "custom": {"name": "sql"}}
    assert body["messages"][1]["tool_calls"] == [
        {"id": "c", "type": "custom", "custom": {"name": "sql", "input": "SELECT 1"}}
    ]


@pytest.mark.parametrize(
    ("tool", "text"),
    [
        ({}, "missing required field `name` - at `$.tools[0]`"),
        ({"type": "function"}, "missing required field `name` - at `$.tools[0]`"),
        ({"type": "custom"}, "missing required field `name` - at `$.tools[0]`"),
        ({"type": "computer"}, "known: function, custom, web_search, code_execution"),
        ({**SEARCH, "name": "x"}, "a tool of the type `web_search` has no `name` - at `$.tools[0]`"),
        ({**CODE, "parameters": {}}, "has no `parameters`"),
        ({**CODE, "strict": True}, "has no `strict`"),
        ({**FUNCTION, "options": {"a": 1}}, "a tool of the type `function` has no `options`"),
        ({**FUNCTION, "format": {"a": 1}}, "has no `format`"),
        ({**CUSTOM, "parameters": {"type": "object", "title": "x"}}, "has no `parameters`"),
        ({**SEARCH, "options": []}, "Expected `object`, got `array` - at `$.tools[0].options`"),
    ],
)
def test_a_tool_has_the_members_of_its_type(tool: Any, text: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_request(json.dumps({"query": "hi", "tools": [tool]}).encode())
    assert text in str(refused.value)


def test_a_form_is_shared_and_never_changed() -> None:
    form = OwnTool({"t": {"a": {"b": 1}}}, {"max_uses": "t.a.n"})
    assert declared(form, {"max_uses": 3, "own": [1]}) == {"t": {"a": {"b": 1, "n": 3}}, "own": [1]}
    assert form.form == {"t": {"a": {"b": 1}}}
    assert lacking(form, {"max_uses": 3, "user_location": {}, "own": 1}) == ["user_location"]
    assert declared(form, {"t": 5, "max_uses": 3}) == {"t": {"a": {"n": 3}}}


@pytest.mark.parametrize(
    ("provider", "model", "choice"),
    [
        (
            "openai:responses",
            "gpt-5",
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "web_search"}]},
        ),
        ("anthropic", "claude-opus-4-6", {"type": "tool", "name": "web_search"}),
    ],
)
def test_a_choice_of_a_tool_that_the_provider_runs_has_its_form(provider: str, model: str, choice: Any) -> None:
    body, _ = built(provider, model, FUNCTION, SEARCH, tool_choice={"name": "web_search"})
    assert body["tool_choice"] == choice


@pytest.mark.parametrize(
    ("provider", "model", "tool"),
    [
        ("gemini", "gemini-3-pro-preview", SEARCH),
        ("groq", "groq/compound", SEARCH),
        ("mistral", "mistral-large", SEARCH),
        ("mistral", "mistral-large", CUSTOM),
    ],
)
def test_a_choice_of_a_tool_that_is_no_function_is_left_out(provider: str, model: str, tool: Any) -> None:
    choice = {"name": tool.get("name", tool["type"])}
    body, dropped = built(provider, model, FUNCTION, tool, drop=True, tool_choice=choice)
    assert "tool_choice" in dropped
    assert "tool_choice" not in body
    assert "functionCallingConfig" not in body.get("toolConfig", {})
    with pytest.raises(Unsupported, match="tool"):
        built(provider, model, FUNCTION, tool, tool_choice=choice)


def test_gemini_requires_functions_alone() -> None:
    body, dropped = built("gemini", "gemini-3-pro-preview", SEARCH, drop=True, tool_choice="required")
    assert dropped == ["tool_choice"]
    assert "toolConfig" not in body


def test_a_free_choice_means_nothing_to_an_api_that_only_searches() -> None:
    assert built("perplexity", "sonar", SEARCH, tool_choice="auto")[1] == []


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"allowed_domains": 5}, "allowed_domains"),
        ({"blocked_domains": [5]}, "blocked_domains"),
        ({"user_location": "Oslo"}, "user_location"),
        ({"max_uses": "x"}, "max_uses"),
        ({"max_uses": 0}, "max_uses"),
        ({"context_size": "huge"}, "context_size"),
    ],
)
def test_a_shared_option_of_a_wrong_type_is_named(options: Any, path: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"\$\.tools\[0\]\.options\.{path}"):
        built("anthropic", "claude-opus-5", {**SEARCH, "options": options})


@pytest.mark.parametrize(
    ("dialect", "body", "path"),
    [
        ("openai", {"web_search_options": {"search_context_size": 5}}, "web_search_options.search_context_size"),
        (
            "responses",
            {"tools": [{"type": "web_search", "filters": {"allowed_domains": 5}}]},
            "tools[0].filters.allowed_domains",
        ),
        (
            "anthropic",
            {"tools": [{"type": "web_search_20250305", "name": "web_search", "max_uses": "x"}]},
            "tools[0].max_uses",
        ),
    ],
)
def test_a_clients_own_option_of_a_wrong_type_is_named(dialect: str, body: Any, path: str) -> None:
    asked = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}], "input": "hi", **body}
    if dialect == "responses":
        del asked["messages"], asked["max_tokens"]
    with pytest.raises(InvalidRequest) as caught:
        get_format(dialect).parse_request(asked)
    assert caught.value.message.endswith(f"at `$.{path}`")
