"""AG-UI 1.0, the protocol between agents and user interfaces; the format is in `format.py`."""

from __future__ import annotations

from gai_fast.formats.agui.format import FORMAT

__all__ = ["FORMAT"]
