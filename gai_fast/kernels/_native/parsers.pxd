"""The parsers' fields. `_Feed` owns the bytes; each grammar has its own loop over them, `take_lines`.

During a feed `_data` points at the bytes to parse: the caller's chunk if no bytes were held, otherwise `_held`. At any
other time it is void. `DeltaCopier` updates the fields of a framer for the frames that it copies.
"""

cimport cython
from libc.stdint cimport uint8_t

from gai_fast.kernels._native.c cimport GAI_HEX_DIGITS, gai_buffer


cdef class _Feed:
    cdef gai_buffer _held       # the bytes from `_mark` on, between two feeds
    cdef const uint8_t *_data
    cdef size_t _size
    cdef size_t _mark           # the first byte that is still needed
    cdef size_t _start          # the first byte of the current line
    cdef size_t _searched       # there is no line end before it
    cdef size_t _limit
    cdef bint _first            # whether the next line is the first: it may begin with a byte order mark
    cdef object _broken         # the text of the error that ended the input; None if there was no error
    cdef bint _feeding

    cdef list take(self, const uint8_t *chunk, size_t size)     # as `feed`; no other feed may be running
    cdef int look_at(self, const uint8_t *chunk, size_t size) except -1
    cdef int keep_rest(self) except -1
    cdef int take_lines(self, list items) except -1  # overridden by each grammar
    cdef bint look_at_rest(self, const uint8_t **line, size_t *size) noexcept
    cdef int drop_mark(self, const uint8_t **line, size_t *size) noexcept
    cdef int reset(self) except -1
    cdef object refuse(self, object fault)


cdef class _SSEFeed(_Feed):
    cdef gai_buffer _values     # the data lines of the block, joined with LF, if there are several
    cdef const uint8_t *_value  # the block's only data line so far, in `_data`; otherwise NULL
    cdef size_t _value_size
    cdef gai_buffer _strays     # the stray lines of the block, joined with LF
    cdef bint _has_data
    cdef bint _has_stray
    cdef bint _keeps_raw
    cdef bint _late_lf          # a CR ended the last line: a LF right after it belongs to that line
    cdef size_t _block_size
    cdef str _name
    cdef str _last_name         # the name of the previous block: streams repeat names
    cdef str _id
    cdef object _retry

    cdef int clear_block(self) noexcept
    cdef int settle_value(self) except -1
    cdef int take_field(self, const uint8_t *line, size_t size) except -1
    cdef int take_name(self, const uint8_t *value, size_t size) except -1
    cdef object joined_data(self)
    cdef int end_block(self, list items) except -1


cdef class SSEParser(_SSEFeed):
    cdef str _last_event_id


cdef class SSEFramer(_SSEFeed):
    pass


cdef class _LineFeed(_Feed):
    cdef size_t _number
    cdef size_t _line_begin     # the first byte of the current line, for a framer's `raw`

    cdef int take_line(self, const uint8_t *line, size_t size, list items) except -1
    cdef int end_line(self, const uint8_t *line, size_t size, size_t number, list items) except -1


cdef class NDJSONParser(_LineFeed):
    pass


cdef class LineFramer(_LineFeed):
    pass


# ---- HTTP/1.1 chunked bodies; the fast path uses their state -------------------------------------------------------

cdef enum:
    PLAIN_DIGITS = 7

cdef enum State:
    SIZE = 0            # the digits of a chunk's size
    EXTENSION = 1       # extensions after the digits
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
    """Returns the data of a complete chunk. Nearly all chunks are complete; NULL if the chunk needs `step`."""
    cdef const uint8_t *last = at + PLAIN_DIGITS if end - at > PLAIN_DIGITS else end
    cdef size_t value = 0
    cdef uint8_t digit
    while at < last:
        digit = GAI_HEX_DIGITS[at[0]]
        if not digit:
            break
        value = value << 4 | (digit - 1)
        at += 1
    # The last chunk has trailers in place of data.
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
    cdef size_t _left           # bytes of data left in the current chunk
    cdef int _digits            # digits of its size so far
    cdef readonly bint broken
    cdef readonly size_t overhead
    cdef readonly size_t rest

    cdef bint is_between(self) noexcept     # whether the size of a chunk comes next
    cdef int skip_whole(self) noexcept      # notes that the caller has decoded a complete chunk at the end of a read
    # Returns `ahead`, followed by the data of the chunks from `place` on.
    cdef bytes take_apart(self, bytes data, size_t place, bytes ahead)
    cdef inline int take(self, size_t size) noexcept
    cdef inline bint step(self, uint8_t c) noexcept  # handles a byte that is not data; False if it is invalid
