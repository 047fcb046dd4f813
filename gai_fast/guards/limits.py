"""Limits of guards.

Only this folder uses them. Limits of the configuration are in `config/limits.py`, of requests to judges in
`net/limits.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in characters, times in milliseconds, unless the name says otherwise."""

    judged_first: int = 32
    """Characters at which the first piece of a text is judged: some eight tokens, the least that has a meaning."""

    judged_growth: int = 2
    """The size of a piece relative to the last one: a long text needs few requests, and its beginning waits little."""

    judged_usual: int = 512
    """Characters up to which pieces grow: a paragraph, which a reader gets at once."""

    judged_wait: int = 100
    """Milliseconds after the first character of a piece at which it is judged, whatever its size: a pause that readers
    hardly notice."""

    judged_context: int = 256
    """Characters before a piece that are judged with it: two or three sentences."""

    judged_at_once: int = 4
    """Pieces of one stream that one judge has at a time: at 300 ms each, 13 in a second, more than a stream has."""

    judged_most: int = 32_768
    """Characters of the largest piece: less than the 32,768 tokens that moderations accept. Complete arguments of a
    call are one piece, whatever their size."""


LIMITS: Final = Limits()
