"""Limits of the formats.

Only this folder uses them; shared limits are in `model/limits.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gai_fast.model.limits import KIB


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes are in bytes and times in seconds, unless the name has another unit."""

    input_items: int = 20_000
    """Items of a request's `input`: twice a conversation of 10,000 items, which is read in a tenth of a second."""

    parsed_bytes: int = 64 * KIB
    """Bytes of a kept request or response that are parsed at once, in 2 ms: of longer ones each item is."""

    long_request: int = 1024 * KIB
    """Bytes of a translated request whose structure is checked in pieces: of more the check takes over 5 ms, and holds
    the interpreter."""

    short_arguments: int = 64 * KIB
    """Characters of the arguments of all calls of a request up to which their structure is not checked before they are
    parsed, in 2 ms: longer conversations have more."""

    waiting_frames: int = 64 * KIB
    """Bytes of upstream frames that passthrough holds until the first content; if there are more, all are passed on
    earlier. These frames open parts of the answer, with pings between them."""

    delayed_events: int = 1024 * KIB
    """Characters of all events of an answer that have waited for the end of a call, in Anthropic's stream: several long
    calls whose fragments alternate. After them no event waits, and fragments of a call may follow the end of its
    block."""

    delayed_event: int = 512
    """Characters that an event of `delayed_events` counts beside its texts: its dict and the slot in a list."""

    warnings: int = 100
    """Warnings of one answer that are reported at its end; further warnings are dropped."""

    kept_piece_cost: int = 128
    """Overhead in bytes of a text stored with its event: the header of a string (49), the tuple of both (56) and its
    slot in a list (9), each rounded up by the allocator."""


LIMITS: Final = Limits()
