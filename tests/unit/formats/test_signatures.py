"""What a dialect must know of the providers whose signatures it passes on."""

from __future__ import annotations

import pytest

from gai_fast.formats._signatures import is_encrypted


@pytest.mark.parametrize(
    ("provider", "encrypts"), [("openai", True), ("groq", True), ("mistral", False), (None, False)]
)
def test_signatures_of_the_responses_api_are_the_whole_reasoning(provider: str | None, encrypts: bool) -> None:
    assert is_encrypted(provider) == encrypts
