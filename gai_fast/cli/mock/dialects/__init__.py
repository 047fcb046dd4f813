"""The dialects of `gai-fast mock`: the frames of each provider's API, one file per API.

A new dialect is one file with an `MockAnswer` and one entry in `DIALECTS`. The dialects know nothing about the gateway.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from gai_fast.cli.mock.dialects._base import MockAnswer
from gai_fast.cli.mock.dialects.anthropic import AnthropicAnswer
from gai_fast.cli.mock.dialects.gemini import GeminiAnswer
from gai_fast.cli.mock.dialects.openai import OpenAIAnswer

DIALECTS: Final[Mapping[str, type[MockAnswer]]] = {
    "openai": OpenAIAnswer,
    "anthropic": AnthropicAnswer,
    "gemini": GeminiAnswer,
}
