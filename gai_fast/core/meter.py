"""`StreamMeter`: measures one stream while it runs.

Reads no clock: the session passes the time once per read, never per event. `model/metrics.py` explains the figures.
"""

from __future__ import annotations

from typing import Final

from gai_fast.kernels import Bounds, StreamCounters
from gai_fast.model.metrics import GAP_BOUNDS, NO_GAPS, StreamMetrics

_BOUNDS: Final = Bounds(GAP_BOUNDS)
_StreamCounters: Final = StreamCounters  # a constant: a name look-up costs 30 ns


class StreamMeter:
    """Measures one stream.

    Args:
        began: The time of the request, in seconds of a monotonic clock.

    Attributes:
        counters: Counts the reads of the upstream's body, and the bytes handed to the client's connection.
        first_sent_at: The time of the first delta that was handed to the client's connection. None before it.
        read_at: The time of the last read, which may not be counted yet.
        read_size: The size of the last read. 0 if it has been counted.
    """

    def __init__(self, began: float) -> None:
        self._began = began
        self._asked: float | None = None
        self.first_sent_at: float | None = None
        self.read_at = 0.0
        self.read_size = 0
        self._worked = 0.0
        self.counters: StreamCounters = _StreamCounters(_BOUNDS, began)
        self._paused_at: float | None = None
        self._paused_for = 0.0

    def asked(self, now: float) -> None:
        """Records that the request was sent to the upstream.

        If there are several attempts, the attempt of the first delta counts.
        """
        if self._asked is None:
            self._worked += now - self._began
            self._asked = now
        elif self.counters.first_at is None:
            self._asked = now

    def count_read(self, now: float, deltas: int) -> None:
        """Counts a handled read, unless it has been counted. Called at the latest before the figures are read.

        Args:
            now: The time at which the read was handled.
            deltas: The number of the stream's deltas.
        """
        size = self.read_size
        if size:
            self.read_size = 0
            self.counters.read(self.read_at, now, size, deltas)

    def delta_sent(self, now: float) -> None:
        """Records that the first delta was handed to the client's connection; later calls do nothing."""
        if self.first_sent_at is None:
            self.first_sent_at = now

    def paused(self, now: float) -> None:
        """Records that reading the upstream is paused. Idempotent."""
        if self._paused_at is None:
            self._paused_at = now

    def resumed(self, now: float) -> None:
        """Records that reading the upstream has resumed. Idempotent."""
        if self._paused_at is not None:
            self._paused_for += now - self._paused_at
            self._paused_at = None

    def progress(self, now: float) -> tuple[float, float | None, int]:
        """Returns the seconds since the request, the time to first token, and the number of deltas so far.

        Args:
            now: The current time.

        Returns:
            The time to first token is `None` before the first token.
        """
        first = self.first_sent_at
        return now - self._began, None if first is None else first - self._began, self.counters.deltas

    def end(self, now: float, metrics: StreamMetrics) -> StreamMetrics:
        """Returns the figures of the stream. Fills in those that are measured here.

        Args:
            now: The time of the stream's end.
            metrics: The other figures.
        """
        asked = self._began if self._asked is None else self._asked
        counters, first = self.counters, self.first_sent_at
        upstream_first, worked, received, sent, deltas, gap_sum = counters.figures()
        metrics.duration = now - self._began
        metrics.time_to_first_token = None if first is None else first - self._began
        metrics.upstream_time_to_first_token = None if upstream_first is None else upstream_first - asked
        metrics.gateway_overhead = self._worked + worked
        metrics.gaps = NO_GAPS if deltas <= 1 else counters.gaps
        metrics.gap_sum = gap_sum
        metrics.backpressure = self._paused_for + (0.0 if self._paused_at is None else now - self._paused_at)
        metrics.deltas = deltas
        metrics.bytes_in = received
        metrics.bytes_out = sent
        return metrics
