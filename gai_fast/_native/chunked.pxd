"""The state of a chunked body, which the fast path looks at."""

cimport cython
from libc.stdint cimport uint8_t

cdef enum:
    PLAIN_DIGITS = 7

cdef enum State:
    SIZE = 0            # the digits of a chunk's size
    EXTENSION = 1       # what may follow them
    SIZE_LF = 2
    DATA = 3
    DATA_CR = 4
    DATA_LF = 5
    TRAILER_BEGIN = 6
    TRAILER = 7
    TRAILER_LF = 8
    LAST_LF = 9
    END = 10


cdef inline const uint8_t *whole_chunk(const uint8_t *at, const uint8_t *end, size_t *size) noexcept:
    """The data of a chunk that is there to its last byte, as nearly all are; NULL: it is looked at byte by byte."""
    cdef const uint8_t *begin = at
    cdef size_t value = 0
    cdef uint8_t c
    while at < end and at - begin < PLAIN_DIGITS:
        c = at[0]
        if <uint8_t>(c - c"0") < 10:
            value = value << 4 | (c - c"0")
        elif <uint8_t>((c | 0x20) - c"a") < 6:
            value = value << 4 | ((c | 0x20) - c"a" + 10)
        else:
            break
        at += 1
    # The last chunk has no data, and trailers behind it.
    if not value or <size_t>(end - at) < value + 4 or at[0] != c"\r" or at[1] != c"\n":
        return NULL
    at += 2
    if at[value] != c"\r" or at[value + 1] != c"\n":
        return NULL
    size[0] = value
    return at


@cython.final
cdef class ChunkedBody:
    cdef State _state
    cdef size_t _left           # of the current chunk
    cdef int _digits            # of its size so far
    cdef readonly bint broken
    cdef readonly size_t overhead
    cdef readonly size_t rest

    cdef bint is_between(self) noexcept     # the size of a chunk comes next
    cdef int skip_whole(self) noexcept      # somebody else has taken a whole chunk, the last bytes of a read
    # the data of the chunks from a place on, behind what stands ahead of it
    cdef bytes take_apart(self, bytes data, size_t place, bytes ahead)
    cdef inline int take(self, size_t size) noexcept
    cdef inline bint step(self, uint8_t c) noexcept  # one byte that is no data; False where it must not stand here
