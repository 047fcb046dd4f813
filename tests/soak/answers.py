"""The answers of the soak's upstream: everything about one follows from the seed and its stream's number.

Each delta begins with a mark of its stream and its place, so that what a client got shows what is missing, what came
twice and what is another stream's.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from random import Random
from typing import Final, Literal

Failure = Literal["", "status", "reset", "cut", "error", "stall"]
"""`status` and `reset` come before the answer; `cut`, `error` and `stall` after `Answer.fails_at` deltas."""

BEFORE: Final = ("status", "reset")
_FILLER: Final = "Wörter, die ein Modell sagen könnte: 1,000 tokens, “quoted”, with \\ and \n in it. 物語 🙂 " * 30
_SHARES: Final[tuple[tuple[Failure, float], ...]] = (
    ("cut", 0.03),
    ("error", 0.02),
    ("stall", 0.01),
    ("status", 0.03),
    ("reset", 0.02),
)
"""The share of answers that fail in each way."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The upstream's answer to one stream.

    Attributes:
        number: The stream's.
        deltas: How many pieces of text.
        size: Characters of a piece, about.
        interval: Seconds between two pieces; 0: all at once.
        failure: How it fails.
        fails_at: Deltas before a failure amid the answer.
        fails_times: Requests that fail; the next one is answered.
    """

    number: int
    deltas: int
    size: int
    interval: float
    failure: Failure = ""
    fails_at: int = 0
    fails_times: int = 0

    def piece(self, place: int) -> str:
        """Returns the text of a delta, from 0."""
        at = (self.number + place) % 50
        return f"‹{self.number}.{place}›{_FILLER[at : at + self.size]}"

    def frame(self, place: int) -> bytes:
        """Returns the upstream's frame of a delta."""
        return chat_frame({"content": self.piece(place)}, None)


def chat_frame(delta: dict[str, str], finish_reason: str | None) -> bytes:
    """Returns one SSE frame of the chat dialect."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    said = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "mock", "choices": [choice]}
    return b"data: %b\n\n" % json.dumps(said, ensure_ascii=False).encode()


def draw_answer(random: Random, number: int, *, longest: float, is_large: bool) -> Answer:
    """Draws the answer of a stream.

    Args:
        random: The stream's own.
        number: The stream's.
        longest: Seconds that an answer takes at most.
        is_large: It is more than a socket holds, for clients that read slowly.
    """
    if is_large:
        return Answer(number, int(10 * longest), 2000, 0.0)
    if random.random() < 0.3:
        deltas, interval = random.choice((1, 5, 50, 200)), 0.0
    else:
        deltas = random.randint(5, 60)
        interval = random.uniform(longest / 30, longest) / deltas
    chance = random.random()
    failure: Failure = ""
    for each, share in _SHARES:
        if 0 <= chance < share:
            failure = each
        chance -= share
    times = random.choice((1, 1, 99)) if failure in BEFORE else 99 if failure else 0
    if failure == "stall":
        interval = 0.0
    return Answer(number, deltas, random.randint(0, 60), interval, failure, random.randint(1, deltas), times)
