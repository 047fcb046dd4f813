"""Limits of the core: what one stream may hold.

Only this folder uses them; limits that folders share stand in `model/limits.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gai_fast.model.limits import KIB, MIB


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds, unless the name says otherwise."""

    json_values: int = 500_000
    """Values of a request body: each is two tokens of a prompt at least, and the longest contexts have a million. Every
    reader takes longer for millions of them than their parsing does."""

    json_containers: int = 120_000
    """Objects and arrays among them: 100,000 messages, as Anthropic takes, and the schemas of a thousand tools. To read
    so many messages takes a third of a second; 10 MiB hold three times as many, or thirty times as many objects."""

    chunk_containers: int = 500_000
    """Objects and arrays of one event of an upstream's, brackets in its texts included: an event of 8 MiB holds half as
    many where each token has the logarithms of twenty, and five times as many empty ones, which hold the loop for
    seconds."""

    transcript: int = 32 * MIB
    """Characters of an answer that are kept so that another attempt can go on from it, with the cost of keeping them:
    the longest answers are a tenth. A longer one ends with its failure."""

    early_warnings: int = 16
    """Warnings that wait for the start of their stream: more add nothing."""

    malformed_chunks: int = 3
    """Malformed chunks in a row that end a stream: one is noise, three are a broken peer."""

    affinity_text: int = 32 * KIB
    """Characters of a conversation's beginning that are hashed, in 60 µs: longer beginnings differ before."""

    sound_token: int = 3200
    """Characters of base64 that are estimated as one token of generated sound: 50 ms of it in 16 bits at 24,000 Hz, by
    which OpenAI counts. Compressed sound is estimated too low."""

    image_tokens: int = 1290
    """Tokens that a generated image is estimated as: Gemini's count of one. OpenAI's are 272 to 4,160, by quality."""


LIMITS: Final = Limits()
