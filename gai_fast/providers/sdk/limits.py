"""Limits of the objects of SDKs: only this folder uses them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, unless the description names another unit."""

    message_ids: int = 4096
    """Ids of LangChain's messages and calls in one stream that are kept. The run of an agent has some dozens."""


LIMITS: Final = Limits()
