"""`SaidOnce`: a warning that several workers have, or that each reload finds again, is a line once.

A record says so by `extra={"once": seconds}`: its text is dropped if any process of this server has said it within that
time. Events of requests have no such mark: each is its own.
"""

from __future__ import annotations

import logging
import mmap
import struct
import time
from collections.abc import Callable
from hashlib import blake2b
from typing import Final

from gai_fast.server.limits import LIMITS

_SLOT: Final = struct.Struct("=Qd")
"""The digest of a text, and the moment at which it was said, in seconds of the system's monotonic clock."""


class SaidOnce(logging.Filter):
    """Drops what has been said. Made before workers are forked: they share its memory.

    Two workers that write a slot at the same moment say a text twice at worst.

    Args:
        clock: Returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._said = mmap.mmap(-1, LIMITS.texts_said_once * _SLOT.size)

    def filter(self, record: logging.LogRecord) -> bool:
        """Returns whether a record is logged."""
        lasts = getattr(record, "once", None)
        if not isinstance(lasts, float):
            return True
        digest = int.from_bytes(blake2b(record.getMessage().encode(errors="replace"), digest_size=8).digest())
        at, now = digest % LIMITS.texts_said_once * _SLOT.size, self._clock()
        known, moment = _SLOT.unpack_from(self._said, at)
        if known == digest and now - moment < lasts:
            return False
        _SLOT.pack_into(self._said, at, digest, now)
        return True
