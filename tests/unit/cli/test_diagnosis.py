"""Results of checks."""

from __future__ import annotations

import pytest

from gai_fast.cli.diagnosis import (
    Check,
    keys_without_effect,
    missing_key,
    missing_keys,
    missing_routes,
    other_base_url,
    shared_processes,
    worst,
)
from gai_fast.model.settings import (
    IdentitySettings,
    Secret,
    ServerSettings,
    Settings,
    ToolServerSettings,
    UpstreamSettings,
)


def test_several_checks_are_one_with_the_worst_status_and_each_fault_once() -> None:
    one, two = Check("a", "ok", "1"), Check("a", "error", "2", "do")
    assert worst("a", [one, two, two], "") == Check("a", "error", "2", "do")
    assert worst("a", [one, Check("a", "ok", "3")], "") == Check("a", "ok", "1; 3")
    assert worst("a", [], "none") == Check("a", "skipped", "none")


@pytest.mark.parametrize(
    ("provider", "base_url", "remedy"),
    [
        ("openai-compatible", "http://h:1", "try http://h:1/v1"),
        ("openai-compatible", "http://h:1/llm/", "try http://h:1/llm/v1"),
        ("openrouter", "https://openrouter.ai", "try https://openrouter.ai/api/v1"),
        ("openrouter", "https://openrouter.ai/api", "try https://openrouter.ai/api/v1"),
        ("openai", "http://h/v1", "requests ask http://h/v1/chat/completions"),
        ("cohere", "http://h/x", "requests ask http://h/x/v2/chat"),
    ],
)
def test_another_base_url_is_that_of_the_providers_usual_path(provider: str, base_url: str, remedy: str) -> None:
    assert other_base_url(UpstreamSettings("a", provider, base_url)) == f"check base_url of a: {remedy}"


URL = "https://api.anthropic.com"


@pytest.mark.parametrize(
    "upstream",
    [
        UpstreamSettings("a", "anthropic", URL, api_key=Secret("k")),
        UpstreamSettings("a", "anthropic", URL, headers={"X-Api-Key": "k"}),
        UpstreamSettings("a", "anthropic", URL, takes_credentials=True),
        UpstreamSettings("a", "anthropic", URL, headers={"Authorization": "Bearer k"}),
        UpstreamSettings("a", "anthropic", URL, identity=IdentitySettings(command=("token",))),
        UpstreamSettings("a", "anthropic", "http://127.0.0.1:9"),
    ],
)
def test_a_key_elsewhere_is_a_key(upstream: UpstreamSettings) -> None:
    assert missing_key(upstream) is None


def test_a_missing_key_is_an_error_with_its_fix() -> None:
    upstream = UpstreamSettings("a", "anthropic", URL, headers={"x-team": "k"})
    detail, fix = "it has no key, and anthropic refuses requests without one", "ANTHROPIC_API_KEY"
    found = missing_key(upstream)
    assert found == Check("upstream.a", "error", detail, f'set `api_key = "env:{fix}"` in its [[upstream]]')
    assert missing_keys(Settings(upstreams={"a": upstream})) == [f"upstream.a: {detail}: {found.fix}"]


@pytest.mark.parametrize(
    ("provider", "entry", "found"),
    [
        ("anthropic", "/v1/embeddings", "anthropic has no /v1/embeddings: requests for it are refused"),
        ("gemini", "/v1/audio/speech", "gemini has no /v1/audio/speech: requests for it are refused"),
        ("groq", "/v1/images/generations", "groq is not known to have /v1/images/generations"),
        ("groq", "POST /v1/moderations", "groq is not known to have /v1/moderations"),
        ("groq", "/v1/audio/transcriptions", None),
        ("azure", "/v1/embeddings", None),
        ("openai-compatible", "/v1/rerank", None),
        ("anthropic", "/v1/files", None),
        ("groq", "/v1/images/*", None),
    ],
)
def test_a_route_that_the_provider_does_not_have_is_told(provider: str, entry: str, found: str | None) -> None:
    upstream = UpstreamSettings("a", provider, "https://a.example", pass_paths=(entry,))
    told = [] if found is None else [f"a: `lane`: {found}"]
    assert missing_routes(Settings(upstreams={"a": upstream})) == told


def test_an_address_with_the_path_that_requests_add_is_told() -> None:
    for provider, url, told in (
        ("azure", "https://a.example/openai/v1/", "/openai/v1"),
        ("perplexity", "https://api.perplexity.ai/v1", "/v1"),
        ("openai", "https://a.example/openai/v1", None),
    ):
        found = missing_routes(Settings(upstreams={"b": UpstreamSettings("b", provider, url)}))
        assert found == ([] if told is None else [f"b: `base_url` ends in {told}, which requests add: remove it"])


def test_a_key_that_has_no_effect_any_more_is_named() -> None:
    assert keys_without_effect(Settings()) == []
    settings = Settings(server=ServerSettings(websocket_compression=True))
    assert keys_without_effect(settings) == ["`websocket_compression` in [server] has no effect: remove it"]


def test_a_process_that_all_callers_share_is_named_unless_its_table_says_so() -> None:
    servers = (
        ToolServerSettings("docs", command=("docs-mcp",)),
        ToolServerSettings("meant", command=("docs-mcp",), session="shared"),
        ToolServerSettings("apart", command=("docs-mcp",), session="caller"),
        ToolServerSettings("remote", url=Secret("https://tools.example.com/mcp")),
    )
    [warning] = shared_processes(Settings(tool_servers=servers))
    assert warning.startswith("tools docs: all callers share its process")
