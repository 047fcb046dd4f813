"""What a stream's reads and writes add up to, told by whoever handles them: figures without a clock or a name.

This one is the definition. What the figures mean stands in `gai_fast.metrics`.
"""

from __future__ import annotations


class Bounds:
    """The upper bounds of a histogram.

    Args:
        values: Ascending, at most 32.

    Raises:
        ValueError: More than that.

    Attributes:
        values: The same.
    """

    __slots__ = ("values",)

    def __init__(self, values: tuple[float, ...]) -> None:
        if len(values) > _MOST:
            raise ValueError(f"a histogram has at most {_MOST} bounds")
        self.values = values

    def place_of(self, value: float) -> int:
        """The number of the first bound that a value does not exceed; their count where it exceeds all."""
        # Most values are below the first few bounds.
        for at, bound in enumerate(self.values):
            if value <= bound:
                return at
        return len(self.values)


_MOST = 32


class StreamCounters:
    """Counts one stream. Times in seconds of one clock.

    Args:
        bounds: Of the gaps between deltas.
        began: When the stream began.

    Attributes:
        worked: Seconds from each read to its end, together.
        received: Bytes read.
        sent: Bytes written.
        deltas: Deltas so far.
        first_at: When the read came that brought the first delta; `None`: none did yet.
        gap_sum: The gaps between deltas, together.
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
        """How many deltas came so long after the one before, for each bound and for what exceeds all.

        Deltas of one read come at once.
        """
        return tuple(self._gaps)

    def read(self, began: float, ended: float, size: int, deltas: int) -> None:
        """A read has been handled.

        Args:
            began: When it came.
            ended: When what became of it had been written.
            size: Its bytes; less than none where they were counted already.
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

    def wrote(self, size: int) -> None:
        """Bytes have been handed to the client's connection."""
        self.sent += size
