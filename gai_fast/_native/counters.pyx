"""What a stream's reads and writes add up to; `gai_fast/_pure/counters.py` says what it must equal.

A read that comes alone is told in 5 ns; where that was a call with Python's floats, it was 150.
"""


cdef class Bounds:
    """See `gai_fast._pure.counters.Bounds`."""

    def __cinit__(self, tuple values not None):
        cdef double value
        if len(values) > MOST:
            raise ValueError(f"a histogram has at most {MOST} bounds")
        self.values = values
        self._count = 0
        for value in values:
            self._values[self._count] = value
            self._count += 1

    def place_of(self, double value):
        """The number of the first bound that a value does not exceed."""
        return self.place(value)

    cdef int place(self, double value) noexcept:
        cdef int at = 0
        while at < self._count and not value <= self._values[at]:
            at += 1
        return at


cdef class StreamCounters:
    """See `gai_fast._pure.counters.StreamCounters`."""

    def __cinit__(self, Bounds bounds not None, double began):
        self._bounds = bounds
        self._last = began

    @property
    def first_at(self):
        """When the read came that brought the first delta."""
        return self._first if self._has_begun else None

    @property
    def gaps(self):
        """How many deltas came so long after the one before."""
        return tuple([self._gaps[at] for at in range(self._bounds._count + 1)])

    def read(self, double began, double ended, Py_ssize_t size, long long deltas):
        """A read has been handled."""
        self.note(began, ended, size, deltas)

    def wrote(self, Py_ssize_t size):
        """Bytes have been handed to the client's connection."""
        self.sent += size

    cdef int note(self, double began, double ended, Py_ssize_t size, long long deltas) noexcept:
        cdef long long new = deltas - self.deltas
        self.worked += ended - began
        self.received += size
        if new <= 0:
            return 0
        self.deltas = deltas
        if not self._has_begun:
            self._has_begun = True
            self._first = began
        else:
            self._gaps[self._bounds.place(ended - self._last)] += 1
            self.gap_sum += ended - self._last
        self._gaps[0] += <unsigned int>(new - 1)
        self._last = ended
        return 0
