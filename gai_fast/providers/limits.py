"""Limits of requests of single providers: only their files use them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, unless the description names another unit."""

    betas: int = 64
    """Names of beta features in a request. All names are sent in one header; clients send a handful."""

    default_max_tokens: int = 32_000
    """The `max_tokens` that is sent if the API requires one and the request has none, to a model that is not known."""

    bedrock_max_tokens: int = 32_000
    """The highest `max_tokens` that is added to a request to Bedrock, which takes it off the quota until the answer
    ends."""


LIMITS: Final = Limits()
