"""The figures of one stream, summed over its reads and writes, and histograms over many streams.

The caller passes all times in. This module is the definition; `gai_fast.model.metrics` explains the figures.
"""

from __future__ import annotations

from itertools import zip_longest


class Bounds:
    """The upper bounds of a histogram.

    Args:
        values: The bounds in ascending order, at most 32.

    Raises:
        ValueError: There are more than 32 values.

    Attributes:
        values: The bounds.
    """

    __slots__ = ("values",)

    def __init__(self, values: tuple[float, ...]) -> None:
        if len(values) > _MAX_BOUNDS:
            raise ValueError(f"a histogram has at most {_MAX_BOUNDS} bounds")
        self.values = values

    def place_of(self, value: float) -> int:
        """Returns the index of the first bound that the value does not exceed, or the number of bounds."""
        # A linear search: most values are below the first few bounds.
        for at, bound in enumerate(self.values):
            if value <= bound:
                return at
        return len(self.values)


_MAX_BOUNDS = 32


class Histogram:
    """Counts the values up to each bound, and sums them.

    Args:
        bounds: The upper bounds, as for `Bounds`.

    Attributes:
        bounds: The upper bounds.
        sum: The sum of the values.
    """

    __slots__ = ("_counts", "bounds", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = Bounds(bounds)
        self.sum = 0.0
        self._counts = [0] * (len(bounds) + 1)

    @property
    def counts(self) -> list[int]:
        """The number of values up to each bound, and above all bounds."""
        return self._counts.copy()

    def observe(self, value: float | None) -> None:
        """Counts a value; `None` is not counted."""
        if value is not None:
            self._counts[self.bounds.place_of(value)] += 1
            self.sum += value

    def merge(self, counts: tuple[int, ...], total: float) -> None:
        """Adds the counts of another histogram with the same bounds. Zeros at the end of its counts may be missing.

        Raises:
            ValueError: The other histogram has more bounds.
        """
        if len(counts) > len(self._counts):
            raise ValueError("the other histogram has more bounds")
        self._counts = [mine + other for mine, other in zip_longest(self._counts, counts, fillvalue=0)]
        self.sum += total


class StreamCounters:
    """Counts one stream. All times are seconds of one clock.

    Args:
        bounds: The bounds of the histogram of gaps between deltas.
        began: The time at which the stream began.

    Attributes:
        worked: The total time spent on handling reads, in seconds.
        received: Bytes read.
        sent: Bytes written.
        deltas: Deltas so far.
        first_at: The time of the read with the first delta. `None` if no delta has come.
        gap_sum: The sum of the gaps between deltas.
    """

    __slots__ = ("_bounds", "_gaps", "_last", "deltas", "first_at", "gap_sum", "received", "sent", "worked")

    def __init__(self, bounds: Bounds, began: float) -> None:
        self._bounds = bounds
        self._gaps = [0] * (len(bounds.values) + 1)
        self._last = began
        self.worked = 0.0
        self.received = 0
        self.sent = 0
        self.deltas = 0
        self.first_at: float | None = None
        self.gap_sum = 0.0

    @property
    def gaps(self) -> tuple[int, ...]:
        """The number of gaps between deltas up to each bound, and above all bounds.

        A gap between deltas of one read is 0.
        """
        return tuple(self._gaps)

    def read(self, began: float, ended: float, size: int, deltas: int) -> None:
        """Counts a read that has been handled.

        Args:
            began: The time of the read.
            ended: The time at which its output had been written.
            size: Bytes of the read; negative if more bytes were counted before.
            deltas: Deltas of the stream so far.
        """
        self.worked += ended - began
        self.received += size
        new = deltas - self.deltas
        if new <= 0:
            return
        self.deltas = deltas
        if self.first_at is None:
            self.first_at = began
        else:
            gap = ended - self._last
            self._gaps[self._bounds.place_of(gap)] += 1
            self.gap_sum += gap
        self._gaps[0] += new - 1
        self._last = ended

    def figures(self) -> tuple[float | None, float, int, int, int, float]:
        """Returns `first_at`, `worked`, `received`, `sent`, `deltas` and `gap_sum` in one call."""
        return self.first_at, self.worked, self.received, self.sent, self.deltas, self.gap_sum

    def wrote(self, size: int) -> None:
        """Counts bytes given to the client's connection."""
        self.sent += size
