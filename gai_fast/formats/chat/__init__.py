"""OpenAI's Chat Completions: `format.py` has the format."""

from __future__ import annotations

from gai_fast.formats.chat.format import FORMAT

__all__ = ["FORMAT"]
