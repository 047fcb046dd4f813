"""Limits of JSON from clients and upstreams; `requests/` and the answers use some of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gai_fast.model.limits import KIB


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds, unless the name says otherwise."""

    json_values: int = 500_000
    """Values of a request body. Each is at least two tokens of a prompt, and the longest contexts have a million
    tokens. Reading millions of values takes longer than parsing them."""

    json_containers: int = 120_000
    """Objects and arrays of a request body: 100,000 messages, the maximum of Anthropic, and the schemas of a thousand
    tools. Reading as many messages takes a third of a second. 10 MiB can have three times as many messages, or thirty
    times as many objects."""

    json_members: int = 300_000
    """Members of the objects of a request body: two for each of 100,000 messages, and half as many more. That many
    members with different names are parsed in a quarter of a second."""

    object_members: int = 20_000
    """Members of one object of a request body: a hundred times as many as the largest known, of `logit_bias`. They are
    parsed in 12 ms, and a parser cannot be interrupted within an object."""

    short_number: int = 64
    """Characters of a number that is not counted as long: twice as many digits as numbers of 64 bits and decimals of
    128 bits have."""

    json_long_digits: int = 64 * KIB
    """Digits of long numbers in a request body: read and written again in 15 ms at most. The time of one number grows
    with the square of its digits; 10 MiB of numbers of 4,000 digits would hold the loop for two seconds."""

    chunk_containers: int = 500_000
    """Objects and arrays of one upstream event, including brackets in its texts. An event of 8 MiB has half as many if
    each token has twenty logarithms of probabilities, and five times as many empty ones, which block the loop for
    seconds."""

    cut_off_answer: int = 256 * KIB
    """Characters of a JSON answer that was cut off, which are read for its charge: in 10 ms at most. Of a longer one
    each character counts as one of a text."""

    joined_chunks: int = 1024
    """Chunks in one frame whose blank lines are missing. A read has some dozens; each becomes an object."""

    unread_chunks: int = 64 * KIB
    """Characters of chunks without an event that are kept until an answer has content, to find text in unknown places.
    Such chunks have some hundred characters each, and most answers have one."""


LIMITS: Final = Limits()
