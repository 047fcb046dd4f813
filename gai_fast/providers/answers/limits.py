"""Limits of answers: only the readers of answers use them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gai_fast.model.limits import KIB, MIB


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, unless the description names another unit."""

    kept_word: int = 128
    """Characters of an upstream's finish reason that are passed on. The longest in use have thirty."""

    tool_calls: int = 1024
    """Tool calls of one choice that are open at a time. The memory of all calls is limited by `kept_answer`."""

    call_id: int = 32 * KIB
    """Characters of a call's id. Some gateways put signatures of thousands of characters into ids. The limit bounds the
    output, which repeats the id for each piece of arguments, and one read holds thousands of pieces."""

    content_blocks: int = 1024
    """Content blocks of one response that are open at a time, and parts of one block. The memory of all of them is
    limited by `kept_answer`."""

    stored_ids: int = 2048
    """Ids in one response that are recorded for its caller: of its items, files and containers. An item that is sent
    back whole needs no record."""

    stored_id: int = 256
    """Characters of an id in `stored_ids`. The longest in use have 70."""

    inner_reason: int = 1000
    """Characters of the reason of an error within another one: a sentence or two, not the page of a proxy."""

    inner_errors: int = 3
    """Errors within each other that are looked into."""

    repeated_thoughts: int = MIB
    """Characters of reasoning that are kept until a second place in the answer repeats them."""

    cited_text: int = 8 * MIB
    """Bytes of a response's text that are kept to convert the byte offsets of citations. ASCII text is not kept."""


LIMITS: Final = Limits()
