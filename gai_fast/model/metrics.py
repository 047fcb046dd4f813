"""The documentation of a stream's figures, and `MetricsSink`, which receives them at the stream's end.

`model/figures.py` defines the figures; `core/meter.py` measures them. Knows no exposition format and no log.
"""

from __future__ import annotations

from dataclasses import fields
from textwrap import fill
from typing import Protocol

from gai_fast.model.changes import Changes
from gai_fast.model.figures import GAP_BOUNDS, NO_GAPS, Outcome, StreamMetrics

__all__ = ["GAP_BOUNDS", "NO_GAPS", "AnswerSource", "MetricsSink", "Outcome", "StreamMetrics", "Tallies"]

AnswerSource = tuple[str, str, bool, Changes | None]
"""The names of the model and of the upstream that answer (empty for a durable answer), whether the model is a fallback,
and how the request for this answer differs from the client's; None if it does not."""

StreamMetrics.__doc__ = "\n".join(
    [
        "The figures of one stream. Times are in seconds, and None if there was nothing to measure.\n\nArgs:",
        *(
            fill(f"{each.name}: {each.metadata['about']}", 116, initial_indent=" " * 4, subsequent_indent=" " * 8)
            for each in fields(StreamMetrics)
        ),
    ]
)


class Tallies:
    """Counts of one process that are not figures of a stream. Each count exists from the start, at 0.

    Attributes:
        hedges: Second targets that were asked because the first was silent.
        cache_requests: Requests that asked for the cache, by result.
        session_moves: Requests of sessions that did not go home, by model and reason; those that occurred.
        takeovers: Streams of workers that are gone, by model and outcome; those that occurred.
    """

    __slots__ = ("cache_requests", "hedges", "session_moves", "takeovers")

    def __init__(self) -> None:
        self.hedges = 0
        self.cache_requests = {"hit": 0, "joined": 0, "miss": 0}
        self.session_moves: dict[tuple[str, str], int] = {}
        self.takeovers: dict[tuple[str, str], int] = {}


class MetricsSink(Protocol):
    """Receives the figures of streams. An exception in a sink affects no stream."""

    def stream_ended(self, metrics: StreamMetrics) -> None:
        """Receives the figures of a stream that has ended. Called once for each stream, on the loop: must not block."""
