"""`StreamMeter`: measures one stream while it runs.

Reads no clock: the session gives the time once per read, never per event. What the figures mean stands in `metrics.py`,
which mypyc cannot compile.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gai_fast.metrics import GAP_BOUNDS, NO_GAPS, Outcome, StreamMetrics


def place_of(value: float, bounds: tuple[float, ...]) -> int:
    """The number of the first bound that a value does not exceed; their count where it exceeds all.

    Most values are below the first few bounds: compiled, looking at those costs a fifth of calling `bisect_left`.
    """
    for at, bound in enumerate(bounds):
        if value <= bound:
            return at
    return len(bounds)


class StreamMeter:
    """Measures one stream.

    Args:
        began: When the request came, in seconds of a clock that only goes forward.
    """

    __slots__ = ("_asked", "_began", "_bytes_in", "_bytes_out", "_deltas", "_first", "_gap_sum", "_gaps", "_last",
                 "_paused_at", "_paused_for", "_upstream_first", "_worked")  # fmt: skip

    def __init__(self, began: float) -> None:
        self._began = began
        self._asked: float | None = None
        self._upstream_first: float | None = None
        self._first: float | None = None
        self._last = began
        self._worked = 0.0
        self._deltas = 0
        self._gaps = [0] * (len(GAP_BOUNDS) + 1)
        self._gap_sum = 0.0
        self._paused_at: float | None = None
        self._paused_for = 0.0
        self._bytes_in = 0
        self._bytes_out = 0

    def asked(self, now: float) -> None:
        """The upstream has been asked; of several attempts that one counts which gives the first delta."""
        if self._asked is None:
            self._worked += now - self._began
        if self._upstream_first is None:
            self._asked = now

    def read(self, began: float, ended: float, size: int, deltas: int) -> None:
        """A read of the upstream's body has been handled.

        Args:
            began: When it came.
            ended: When what became of it had been written.
            size: Its bytes.
            deltas: Deltas that the upstream has sent so far.
        """
        self._worked += ended - began
        self._bytes_in += size
        new = deltas - self._deltas
        if new <= 0:
            return
        self._deltas = deltas
        if self._upstream_first is None:
            self._upstream_first = began
        else:
            gap = ended - self._last
            self._gaps[place_of(gap, GAP_BOUNDS)] += 1
            self._gap_sum += gap
        self._gaps[0] += new - 1
        self._last = ended

    def told(self, now: float) -> None:
        """The first delta has been handed to the client's connection; told once."""
        self._first = now

    def wrote(self, size: int) -> None:
        """Bytes have been handed to the client's connection."""
        self._bytes_out += size

    def paused(self, now: float) -> None:
        """The upstream is not read any more; idempotent."""
        if self._paused_at is None:
            self._paused_at = now

    def resumed(self, now: float) -> None:
        """The upstream is read again; idempotent."""
        if self._paused_at is not None:
            self._paused_for += now - self._paused_at
            self._paused_at = None

    def end(
        self,
        now: float,
        *,
        outcome: Outcome = "finished",
        code: str | None = None,
        events: int = 0,
        finish_reason: str | None = None,
        usage: Mapping[str, Any] | None = None,
        provider: str = "",
        upstream: str = "",
        model: str = "",
        answered_by: str = "",
        endpoint: str = "",
        transport: str = "",
        stream_id: str = "",
        request_id: str = "",
        trace_id: str | None = None,
        retries: int = 0,
        fallbacks: int = 0,
    ) -> StreamMetrics:
        """The figures.

        Args:
            now: When the stream ended. What follows is not measured here, and stands in `StreamMetrics` as it is given.
        """
        asked = self._began if self._asked is None else self._asked
        first, upstream_first = self._first, self._upstream_first
        return StreamMetrics(
            duration=now - self._began,
            time_to_first_token=None if first is None else first - self._began,
            upstream_time_to_first_token=None if upstream_first is None else upstream_first - asked,
            gateway_overhead=self._worked,
            gaps=NO_GAPS if self._deltas <= 1 else tuple(self._gaps),
            gap_sum=self._gap_sum,
            backpressure=self._paused_for + (0.0 if self._paused_at is None else now - self._paused_at),
            deltas=self._deltas,
            events=events,
            bytes_in=self._bytes_in,
            bytes_out=self._bytes_out,
            outcome=outcome,
            code=code,
            finish_reason=finish_reason,
            usage=usage,
            provider=provider,
            upstream=upstream,
            model=model,
            answered_by=answered_by,
            endpoint=endpoint,
            transport=transport,
            stream_id=stream_id,
            request_id=request_id,
            trace_id=trace_id,
            retries=retries,
            fallbacks=fallbacks,
        )
