"""Limits of the web frameworks' responses.

Only this folder uses them; shared limits are in `model/limits.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gai_fast.model.limits import MIB


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes are in bytes and times in seconds, unless the name has another unit."""

    asgi_body: int = 10 * MIB
    """Largest request body that a handler without a web framework reads: the default of `max_body`."""

    source_end: float = 5.0
    """Seconds that a response waits for its cancelled source to clean up: as `callbacks_end`."""


LIMITS: Final = Limits()
