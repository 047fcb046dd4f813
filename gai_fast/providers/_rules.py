"""What a provider accepts of a request in its dialect, and what was changed so that it accepts one.

Knows no provider: each has its rules beside its adapter.
"""

from __future__ import annotations

from gai_fast.model.changes import Changes

__all__ = ["Changes"]
