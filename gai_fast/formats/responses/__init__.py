"""OpenAI's Responses API; the format is in `format.py`."""

from __future__ import annotations

from gai_fast.formats.responses.format import FORMAT

__all__ = ["FORMAT"]
