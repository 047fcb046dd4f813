"""The figures of a stream, explained, and `MetricsSink`, which receives them at the stream's end.

`model/figures.py` defines the figures; `core/meter.py` measures them. Knows no exposition format and no log.
"""

from __future__ import annotations

from dataclasses import fields
from textwrap import fill
from typing import Protocol

from gai_fast.model.figures import GAP_BOUNDS, NO_GAPS, Outcome, StreamMetrics

__all__ = ["GAP_BOUNDS", "NO_GAPS", "MetricsSink", "Outcome", "StreamMetrics", "Tallies"]

StreamMetrics.__doc__ = "\n".join(
    [
        "One stream, measured. Times in seconds; `None` where there was nothing to measure.\n\nArgs:",
        *(
            fill(f"{each.name}: {each.metadata['about']}", 116, initial_indent=" " * 4, subsequent_indent=" " * 8)
            for each in fields(StreamMetrics)
        ),
    ]
)


class Tallies:
    """Counts of one process that no stream's figures hold. Each is there from the start, at 0.

    Attributes:
        hedges: Second targets that were asked because the first was silent.
        cache_requests: Requests that asked for the cache, by its answer.
    """

    __slots__ = ("cache_requests", "hedges")

    def __init__(self) -> None:
        self.hedges = 0
        self.cache_requests = {"hit": 0, "joined": 0, "miss": 0}


class MetricsSink(Protocol):
    """Receives the figures of streams. An exception of a sink harms no stream."""

    def stream_ended(self, metrics: StreamMetrics) -> None:
        """A stream has ended. Called once for each, on the loop: it must not block."""
