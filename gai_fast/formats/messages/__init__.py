"""Anthropic's Messages; the format is in `format.py`."""

from __future__ import annotations

from gai_fast.formats.messages.format import FORMAT

__all__ = ["FORMAT"]
