"""Limits of answers: only this folder uses them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gai_fast.model.limits import KIB, MIB


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds, unless the name says otherwise."""

    transcript: int = 32 * MIB
    """Characters of an answer that are kept so that another attempt can continue it, including the cost of keeping
    them. The longest answers have a tenth. If the upstream of a longer answer fails, the stream ends."""

    repeated_text: int = 32
    """Characters of delivered text from which on its repetition after a prefill is dropped. A shorter text, such as the
    word "the", may also be what comes next."""

    early_warnings: int = 16
    """Warnings held back until the start of their stream; more add no information."""

    session_name: int = 256
    """Characters of a session's name: clients send UUIDs of 36."""

    cache_key: int = 64
    """Characters of a `prompt_cache_key`: OpenAI's limit."""

    session_beginning: int = 32 * KIB
    """Characters of a conversation's beginning that are hashed, in 50 µs: half of them from its start and half from its
    end. Prompts of agents differ at either end."""

    session_user_id: int = 4 * KIB
    """Characters of a `metadata.user_id` that is searched for a session. Claude Code's have 150 to 250."""

    malformed_chunks: int = 3
    """Consecutive malformed chunks that end a stream: one is noise, three are a broken peer."""


LIMITS: Final = Limits()
