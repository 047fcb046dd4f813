"""Anthropic's Messages: `format.py` has the format."""

from __future__ import annotations

from gai_fast.formats.messages.format import FORMAT

__all__ = ["FORMAT"]
