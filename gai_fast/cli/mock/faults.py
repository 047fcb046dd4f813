"""The faults of `gai-fast mock`: their names, and when they happen. `mock.py` executes them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Self

STATUSES: Final = {"429": 429, "500": 500, "503": 503}
"""Faults that are an HTTP status."""
FAULTS: Final = (
    "refuse",
    *STATUSES,
    "html",
    "json-error",
    "error-event",
    "cut",
    "reset",
    "stall",
    "malformed",
    "silent",
)
BEFORE_HEAD: Final = frozenset({"html", "json-error", "silent", *STATUSES})
"""Faults that replace the answer if no number of deltas is given; all other faults break the answer."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault, and when it happens.

    Args:
        kind: One of `FAULTS`.
        after: Text deltas that are sent first. None means that the fault replaces the answer; a fault that can only
            break an answer breaks it directly after its headers.
    """

    kind: str
    after: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parses `KIND` or `KIND@N`.

        Raises:
            ValueError: There is no such kind, or N is not a whole number.
        """
        kind, at, after = text.partition("@")
        if kind not in FAULTS:
            raise ValueError(f"no fault {kind!r}; known: {', '.join(FAULTS)}")
        if at and not re.fullmatch(r"[0-9]{1,9}", after):
            raise ValueError(f"after {kind}@ comes how many deltas are sent first, not {after!r}")
        return cls(kind, int(after) if at else None)
