"""Whose signatures are whole reasoning: those of the providers that have a Responses API."""

from __future__ import annotations

import pytest

from gai_fast.encrypted_reasoning import is_encrypted
from gai_fast.providers import get_provider


@pytest.mark.parametrize("provider", ["openai", "azure", "groq", "xai"])
def test_a_provider_with_a_responses_api_signs_with_its_reasoning(provider: str) -> None:
    assert get_provider(f"{provider}:responses").provider == provider
    assert is_encrypted(provider)


@pytest.mark.parametrize("provider", ["anthropic", "gemini", "mistral", "openrouter"])
def test_other_signatures_are_for_a_text(provider: str) -> None:
    assert get_provider(provider).provider == provider
    assert not is_encrypted(provider)


def test_nobody_knows_the_signatures_of_a_provider_without_a_name() -> None:
    assert not is_encrypted(None)
