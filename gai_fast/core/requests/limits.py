"""Limits of requests: only this folder uses them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds, unless the name says otherwise."""

    cache_marks: int = 4
    """Marks of cached parts in a request, the whole prompt's included: providers accept as many. The latest are
    kept: they cache the most."""

    sound_token: int = 3200
    """Base64 characters that are estimated as one token of generated sound: 50 ms of 16-bit sound at 24,000 Hz, the
    unit of OpenAI. The estimate is too low for compressed sound."""

    image_tokens: int = 1290
    """Tokens estimated for a generated image: Gemini's count. OpenAI's counts are 272 to 4,160, depending on
    quality."""

    input_item: int = 1_000_000
    """The number in the id of the first item of a request's input: no answer has as many items."""


LIMITS: Final = Limits()
