"""Limits of what adapters read of an answer.

Only this folder uses them; limits that folders share stand in `model/limits.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gai_fast.model.limits import KIB, MIB


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds, unless the name says otherwise."""

    kept_word: int = 128
    """Characters of an upstream's finish reason that are passed on: the longest in use have thirty."""

    tool_calls: int = 1024
    """Tool calls of one choice: each has a state of its own."""

    call_id: int = 32 * KIB
    """Characters of the id of a call, which is repeated with each piece of its arguments: gateways put signatures into
    ids, which are some thousands long, and a read holds thousands of pieces."""

    content_blocks: int = 1024
    """Open content blocks of one answer: each has a state of its own."""

    cited_text: int = 8 * MIB
    """Bytes of an answer's text that are kept to place citations whose offsets count bytes; ASCII needs none."""

    betas: int = 64
    """Names of beta features that a request may ask for: they share one header, and clients name a handful."""

    default_max_tokens: int = 4096
    """Tokens asked for where an API demands a bound and the request gives none: every model in use has it."""


LIMITS: Final = Limits()
