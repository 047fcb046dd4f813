"""The registry: names, and what is behind them."""

from __future__ import annotations

import re

import pytest

from gai_fast.providers import encrypts, get_provider, provider_names, signs_texts


@pytest.mark.parametrize("name", provider_names())
def test_every_name_has_an_api_that_says_its_name(name: str) -> None:
    assert get_provider(name).provider == name


def test_an_api_is_named_after_a_colon() -> None:
    assert get_provider("openai:completions").provider == "openai"
    assert get_provider("openai-compatible:completions").provider == "openai-compatible"


def test_an_unknown_provider_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="unknown provider 'opnai'; did you mean 'openai'"):
        get_provider("opnai")
    with pytest.raises(ValueError, match="known: openai, anthropic"):
        get_provider("zzz")


@pytest.mark.parametrize("name", ["nope", "my-model"])
def test_what_is_no_slip_of_a_name_is_not_guessed(name: str) -> None:
    with pytest.raises(ValueError, match=f"unknown provider '{name}'; known: openai, anthropic"):
        get_provider(name)


@pytest.mark.parametrize("name", ["azur", "gemni", "antropic", "grok", "xia", "olama", "openai_compatible"])
def test_a_slip_of_a_name_is_understood(name: str) -> None:
    with pytest.raises(ValueError, match="; did you mean '"):
        get_provider(name)


@pytest.mark.parametrize(
    ("names", "auth"),
    [
        (("bedrock", "Bedrock", "amazon-bedrock", "aws", "bedrock:converse"), "aws"),
        (("vertex", "vertex_ai", "vertexai", "google-vertex", "google"), "google"),
        (("foundry", "azure-foundry", "microsoft"), "entra"),
    ],
)
def test_a_cloud_is_no_provider_and_its_auth_is_named(names: tuple[str, ...], auth: str) -> None:
    for name in names:
        with pytest.raises(ValueError, match=f'with auth = "{auth}" in ') as caught:
            get_provider(name)
        for provider in re.findall(r'"([a-z-]+)"', str(caught.value).partition("with auth")[0]):
            assert get_provider(provider).provider == provider


def test_an_unknown_api_names_the_known() -> None:
    with pytest.raises(ValueError, match="'openai' has no API 'chat'; known: openai, openai:completions"):
        get_provider("openai:chat")


@pytest.mark.parametrize(
    ("name", "base_url", "key_variable"),
    [
        ("openai", "https://api.openai.com/v1", "OPENAI_API_KEY"),
        ("anthropic", "https://api.anthropic.com", "ANTHROPIC_API_KEY"),
        ("groq", "https://api.groq.com", "GROQ_API_KEY"),
        ("mistral", "https://api.mistral.ai", "MISTRAL_API_KEY"),
        ("xai", "https://api.x.ai/v1", "XAI_API_KEY"),
        ("deepseek", "https://api.deepseek.com", "DEEPSEEK_API_KEY"),
        ("cohere", "https://api.cohere.com", "COHERE_API_KEY"),
        ("ollama", "http://127.0.0.1:11434", ""),
        ("openrouter", "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
        ("perplexity", "https://api.perplexity.ai", "PERPLEXITY_API_KEY"),
        ("azure", "", "AZURE_OPENAI_API_KEY"),
        ("openai-compatible", "", ""),
        ("demo", "", ""),
    ],
)
def test_defaults_are_those_of_the_official_sdk(name: str, base_url: str, key_variable: str) -> None:
    api = get_provider(name)
    assert (api.base_url, api.key_variable) == (base_url, key_variable)


@pytest.mark.parametrize(
    ("name", "base_url", "needs"),
    [
        ("openai", "https://api.openai.com/v1", True),
        ("openai:responses", "https://eu.api.openai.com/v1", True),
        ("openai", "http://127.0.0.1:8000/v1", False),
        ("anthropic", "https://api.anthropic.com", True),
        ("anthropic:vertex", "https://aiplatform.googleapis.com", False),
        ("azure", "https://name.openai.azure.com", True),
        ("azure:responses", "https://name.services.ai.azure.com", True),
        ("azure", "https://models.internal", False),
        ("ollama", "http://127.0.0.1:11434", False),
        ("openai-compatible", "https://api.openai.com/v1", False),
        ("python", "", False),
        ("demo", "", False),
    ],
)
def test_a_provider_needs_a_key_at_its_own_address(name: str, base_url: str, needs: bool) -> None:
    assert get_provider(name).needs_key(base_url) is needs


def test_all_that_have_a_responses_api_encrypt_but_openrouter() -> None:
    found = set()
    for name in provider_names():
        try:
            found.add(get_provider(f"{name}:responses").provider)
        except ValueError:
            continue
    assert found - {"openrouter"} == {name for name in provider_names() if encrypts(name)}


def test_geminis_signatures_alone_are_of_texts() -> None:
    assert [name for name in provider_names() if signs_texts(name)] == ["gemini"]


def test_nothing_is_known_of_an_unknown_author() -> None:
    assert not encrypts("nobody")
    assert not signs_texts("nobody")
