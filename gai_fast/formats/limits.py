"""Limits of the formats.

Only this folder uses them; limits that folders share stand in `model/limits.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gai_fast.model.limits import KIB


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds, unless the name says otherwise."""

    input_items: int = 20_000
    """Items of a request's `input`: twice a conversation of 10,000, which are read in a tenth of a second."""

    waiting_frames: int = 64 * KIB
    """Bytes of frames that wait in passthrough for the first content behind them: more are passed on before it. They
    open parts of the answer, and pings stand between them."""

    warnings: int = 100
    """Warnings of one answer that are reported in one place: more add nothing."""

    kept_piece_cost: int = 128
    """Bytes that a text which is kept with its event costs besides its own: the header of a string (49), the tuple of
    both (56) and its place in a list (9), each rounded up by the allocator."""


LIMITS: Final = Limits()
