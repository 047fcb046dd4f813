"""The GenAI metrics of the attempts at upstreams, counted from the start of the process.

Owns the names, units and bounds (OpenTelemetry's GenAI conventions), and how many series there are. The loop counts,
the exporter's thread reads.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gai_fast.otel.limits import LIMITS
from gai_fast.otel.otlp import Value, histogram, point

Labels = tuple[tuple[str, Value], ...]

_OVERFLOW: Final[Labels] = (("otel.metric.overflow", True),)
"""The series for all measurements beyond the limit of series (OpenTelemetry's metrics SDK, cardinality limits)."""


@dataclass(frozen=True, slots=True)
class Instrument:
    """One histogram.

    Args:
        name: Its name.
        about: Its description.
        unit: Its unit (UCUM).
        bounds: The upper bounds of its buckets.
    """

    name: str
    about: str
    unit: str
    bounds: tuple[float, ...]


_SECONDS: Final = tuple(0.01 * 2**power for power in range(14))
DURATION: Final = Instrument("gen_ai.client.operation.duration", "Duration of one attempt at an answer", "s", _SECONDS)
FIRST_CHUNK: Final = Instrument(
    "gen_ai.client.operation.time_to_first_chunk", "From a request to its answer's first content", "s", _SECONDS
)
TOKENS: Final = Instrument(
    "gen_ai.client.token.usage", "Tokens of one answer", "{token}", tuple(4.0**power for power in range(14))
)
INSTRUMENTS: Final = (DURATION, FIRST_CHUNK, TOKENS)


class _Series:
    """One series of a histogram."""

    __slots__ = ("counts", "total")

    def __init__(self, buckets: int) -> None:
        self.counts = [0] * buckets
        self.total = 0.0


class Histograms:
    """All series of one process.

    Args:
        began_ns: The start, in nanoseconds since the epoch.
    """

    def __init__(self, began_ns: int) -> None:
        self._began_ns = began_ns
        self._series: Mapping[str, dict[Labels, _Series]] = {each.name: {} for each in INSTRUMENTS}

    def observe(self, instrument: Instrument, labels: Labels, value: float) -> None:
        """Counts a value.

        Args:
            instrument: One of `INSTRUMENTS`.
            labels: The attributes; beyond `limits.otel_series` series new ones are counted together.
            value: The value.
        """
        known = self._series[instrument.name]
        series = known.get(labels)
        if series is None:
            if len(known) >= LIMITS.otel_series:
                labels = _OVERFLOW
            series = known.setdefault(labels, _Series(len(instrument.bounds) + 1))
        series.counts[bisect_left(instrument.bounds, value)] += 1
        series.total += value

    def encode(self, now_ns: int) -> bytes:
        """Returns all metrics for `otlp.metrics`, empty if there are none; any thread may call it.

        Args:
            now_ns: The present time, in nanoseconds since the epoch.
        """
        written = []
        for each in INSTRUMENTS:
            points = [
                point(
                    dict(labels),
                    began_ns=self._began_ns,
                    now_ns=now_ns,
                    counts=tuple(series.counts),
                    total=series.total,
                    bounds=each.bounds,
                )
                for labels, series in list(self._series[each.name].items())
            ]
            if points:
                written.append(histogram(each.name, each.about, each.unit, points))
        return b",".join(written)
