"""OpenAI's Chat Completions; the format is in `format.py`."""

from __future__ import annotations

from gai_fast.formats.chat.format import FORMAT

__all__ = ["FORMAT"]
