"""Limits of the web frameworks' responses.

Only this folder uses them; limits that folders share stand in `model/limits.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gai_fast.model.limits import MIB


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds, unless the name says otherwise."""

    asgi_body: int = 10 * MIB
    """Bytes of a request's body that is read for a handler without a web framework: as `max_body` has it by default."""

    source_end: float = 5.0
    """Seconds for which a response waits for its source to clean up, whose client has left: as `callbacks_end`."""


LIMITS: Final = Limits()
