"""The encoders' fields. The relay kernel may write deltas through `put_delta`; all else calls the Python methods."""

from gai_fast._native.c cimport gai_buffer, gai_head, gai_simd


# The table of loops that all extensions use (csrc/simd.h).
cdef const gai_simd *loops_in_use()

# The text as a JSON string, with its quotes; -1 where there is no memory. Does not raise.
cdef int put_string(gai_buffer *out, str text) noexcept

# 1: written. 0: something here knows no fast way, and what is behind the buffer's old size is void: take the pure
# function, which writes it or says why not. `depth` counts the containers around the value.
cdef int write_value(gai_buffer *out, object value, size_t depth) except -1


# The memory that an encoder writes into; Python code can look at it without a copy. Memory that somebody looks at is
# never resized: whoever writes asks `exports` first.
cdef class WriteBuffer:
    cdef gai_buffer bytes
    cdef size_t keep        # bytes it begins with and shrinks back to
    cdef Py_ssize_t exports  # memoryviews that look at it


cdef enum:
    TEXT = 0
    REASONING = 1


cdef class _Encoder:
    cdef WriteBuffer _buffer
    cdef object _clock
    cdef str _stream_id        # ASCII
    cdef dict _envelope        # what the envelope writes, for the pure functions
    cdef gai_head _heads[2]    # of deltas, [TEXT] and [REASONING], as they are now
    cdef long long _seq        # the last number given
    cdef bint _sse
    cdef bint _full
    cdef bint _first
    cdef bint _timestamps
    cdef bint _viewed
    cdef list _parts           # of a delta's frame, while these are written; else None
    cdef int _text_rank        # which member is its text then; else -1
    cdef list _pieces          # pending bytes in front of the buffer's, so that what was written elsewhere is not copied
    cdef size_t _ahead         # how many these are

    cdef int prepare(
        self, object envelope, object stream_id, object request_id, object trace_id, object clock, object capacity,
        object timestamps
    ) except -1
    cdef bytes member(self, str key)        # of the envelope as it is written, or nothing
    cdef int write_own(self, gai_buffer *out, int rank, str key) except -1  # likewise
    cdef inline int make_writable(self) except -1  # the buffer; raises where somebody looks at it
    cdef list parts_of(self, event, str key)       # see `delta_parts`
    cdef bint write_parts(self, gai_buffer *out, dict event, str key, bint is_timed) except -1
    cdef int cut(self, gai_buffer *out, str part) except -1
    cdef int write_number(self, gai_buffer *out, str part, long long value) except -1
    cdef int put_aside(self) except -1             # what is in the buffer, with the pieces
    cdef long long clock_ts(self, bint wanted) except -2  # -1: no ts
    cdef int count(self, long long seq) noexcept
    cdef int drop_heads(self) noexcept
    cdef int put_sse_head(self, gai_buffer *out, const char *name, size_t size, long long seq) noexcept

    # One delta as a frame; does not count it and runs no Python code.
    cdef int put_delta(self, gai_buffer *out, int kind, str text, long long ts) except -1
    cdef int make_head(self, gai_head *head, int kind, bint timed) except -1
    cdef int append_delta(self, int kind, object text) except -1
    cdef Py_ssize_t place_delta(self, int kind, object buffer, object offset, object text) except -1

    # One event as a frame. Returns the number it carries, -1 where it carries none; does not count it.
    cdef long long write_event(self, gai_buffer *out, object event, object retry) except -2
    cdef int write_members(self, gai_buffer *out, dict event, long long seq, long long ts, bint told) except -1
    cdef int write_sse_head(self, gai_buffer *out, str name, long long seq) except -1
    cdef bytes encode_slowly(self, dict event, long long seq, long long ts, bint told)
    cdef int append_event(self, object event, object retry) except -1


cdef class SSEEncoder(_Encoder):
    pass


cdef class NDJSONEncoder(_Encoder):
    pass


cdef class EncoderView:
    cdef _Encoder _encoder
    cdef object _view
