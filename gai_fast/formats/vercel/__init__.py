"""The UI message stream of Vercel's AI SDK; the format is in `format.py`."""

from __future__ import annotations

from gai_fast.formats.vercel.format import FORMAT

__all__ = ["FORMAT"]
