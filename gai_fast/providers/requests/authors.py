"""The authors of signatures and of blocks, for dialects that carry them: whose a dialect is, and OpenRouter's names.

Formats read this by the registry, since they name no provider.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

DIALECT_AUTHORS: Final[Mapping[str, str]] = {"anthropic": "anthropic", "responses": "openai"}
"""The provider that defines a client dialect: signatures and blocks without an author's name are its."""

DETAIL_FORMATS: Final[Mapping[str, str]] = {
    "anthropic": "anthropic-claude-v1",
    "azure": "azure-openai-responses-v1",
    "gemini": "google-gemini-v1",
}
"""OpenRouter's names (`format` of `reasoning_details`) for authors, if the name is not `<provider>-responses-v1`."""
