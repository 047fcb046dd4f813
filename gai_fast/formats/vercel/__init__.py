"""The UI message stream of Vercel's AI SDK: `format.py` has the format."""

from __future__ import annotations

from gai_fast.formats.vercel.format import FORMAT

__all__ = ["FORMAT"]
