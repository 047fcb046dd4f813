"""OpenAI's Responses API: `format.py` has the format."""

from __future__ import annotations

from gai_fast.formats.responses.format import FORMAT

__all__ = ["FORMAT"]
