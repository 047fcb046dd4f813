"""What a stream's reads and writes add up to, for the fast path to tell."""

cimport cython

cdef enum:
    MOST = 32   # bounds


@cython.final
cdef class Bounds:
    cdef double[MOST] _values
    cdef int _count
    cdef readonly tuple values

    cdef int place(self, double value) noexcept


@cython.final
cdef class StreamCounters:
    cdef Bounds _bounds
    cdef unsigned int[MOST + 1] _gaps
    cdef bint _has_begun        # there has been a delta
    cdef double _first
    cdef double _last
    cdef readonly double worked
    cdef readonly double gap_sum
    cdef readonly long long received
    cdef readonly long long sent
    cdef readonly long long deltas

    cdef int note(self, double began, double ended, Py_ssize_t size, long long deltas) noexcept
