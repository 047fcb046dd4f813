"""The parsers' fields. `_Feed` owns the bytes; each grammar has its own loop over them, `take_lines`.

During a feed `_data` points at the bytes that are looked at: the caller's chunk where nothing was held, else our own
memory. It is void at any other time. The relay kernel may take lines where the framers take theirs.
"""

from libc.stdint cimport uint8_t

from gai_fast._native.c cimport gai_buffer


cdef class _Feed:
    cdef gai_buffer _held       # the bytes behind `_mark` between two feeds
    cdef const uint8_t *_data
    cdef size_t _size
    cdef size_t _mark           # where the bytes begin that are still needed
    cdef size_t _start          # where the current line begins
    cdef size_t _searched       # up to where no line end was found
    cdef size_t _limit
    cdef bint _first            # no line was taken yet: it may begin with a byte order mark
    cdef object _broken         # a limit was passed: what was said of it
    cdef bint _feeding

    cdef int look_at(self, const uint8_t *chunk, size_t size) except -1
    cdef int keep_rest(self) except -1
    cdef int take_lines(self, list items) except -1  # given by each grammar
    cdef bint look_at_rest(self, const uint8_t **line, size_t *size) noexcept
    cdef int drop_mark(self, const uint8_t **line, size_t *size) noexcept
    cdef int reset(self) except -1
    cdef object refuse(self, object fault)


cdef class _SSEFeed(_Feed):
    cdef gai_buffer _values     # the data lines of the block, joined with LF, where there is more than one
    cdef const uint8_t *_value  # its only data line so far, in the bytes that are looked at; else NULL
    cdef size_t _value_size
    cdef gai_buffer _strays     # the stray lines of the block, likewise
    cdef bint _has_data
    cdef bint _has_stray
    cdef bint _keeps_raw
    cdef bint _late_lf          # a CR ended the last line: a LF right behind it belongs to it
    cdef size_t _block_size
    cdef str _name
    cdef str _last_name         # the name before: streams repeat theirs
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
    cdef size_t _line_begin     # where the current line's bytes begin, for a framer's `raw`

    cdef int take_line(self, const uint8_t *line, size_t size, list items) except -1
    cdef int end_line(self, const uint8_t *line, size_t size, size_t number, list items) except -1


cdef class NDJSONParser(_LineFeed):
    pass


cdef class LineFramer(_LineFeed):
    pass
