"""The memory and the fields of the encoders."""

from gai_fast.kernels._native.c cimport gai_buffer, gai_head, gai_simd


# The table of loops that all extensions use (csrc/simd.h).
cdef const gai_simd *loops_in_use()

# Writes the text as a JSON string, with its quotes. Returns -1 if there is no memory; does not raise.
cdef int put_string(gai_buffer *out, str text) noexcept

# Writes a value as JSON. Returns 1 if it was written, 0 if it holds a value of another type: then the bytes beyond the
# buffer's old size are void, and the caller calls the pure function, which writes the value or raises. `depth` is the
# number of containers around the value.
cdef int write_value(gai_buffer *out, object value, size_t depth) except -1


# The memory that an encoder writes to; a memoryview reads it without a copy. Check `exports` before writing: memory
# with an exported memoryview must not be resized.
cdef class WriteBuffer:
    cdef gai_buffer bytes
    cdef size_t keep        # the first size in bytes, to which the memory shrinks back
    cdef Py_ssize_t exports  # the number of memoryviews
    cdef bint is_open       # whether memoryviews are allowed: only inside a view's block


cdef enum:
    TEXT = 0
    REASONING = 1


cdef class _Encoder:
    cdef WriteBuffer _buffer
    cdef object _clock
    cdef str _stream_id        # ASCII
    cdef str _trace_id         # of the envelope; None if it has no trace id
    cdef str _request_id       # of the envelope; None if it has no request id
    cdef gai_head _heads[2]    # the current heads of deltas, [TEXT] and [REASONING]
    cdef long long _seq        # the number of the last event
    cdef bint _sse
    cdef bint _full
    cdef bint _first
    cdef bint _timestamps
    cdef bint _viewed
    cdef dict _halves          # the surrogates that wait for their other halves; None if there are none
    cdef object _checked_type  # the last type of an event that was found to be spelt well
    cdef bint _is_slow         # whether `_viewed` or `_halves` is set: one check for both
    cdef list _parts           # the parts of a delta's frame while they are made; otherwise None
    cdef int _text_rank        # the rank of the text's key while the parts are made; otherwise -1
    cdef list _pieces          # pending bytes before the buffer's bytes: appended frames, which are not copied
    cdef size_t _ahead         # the size of `_pieces` in bytes

    cdef int prepare(
        self, object envelope, object stream_id, object request_id, object trace_id, object clock, object capacity,
        object timestamps
    ) except -1
    cdef dict envelope(self)   # the keys that the envelope adds
    cdef inline int make_writable(self) except -1  # raises while a view is exported
    cdef list parts_of(self, event, str key)       # see `delta_parts`
    cdef bint write_parts(self, gai_buffer *out, dict event, str key, bint is_timed) except -1
    cdef int cut(self, gai_buffer *out, str part) except -1
    cdef int write_number(self, gai_buffer *out, str part, long long value) except -1
    cdef int put_aside(self) except -1             # moves the buffer's bytes to the pieces
    cdef long long clock_ts(self, bint wanted) except -2  # -1 if the event gets no ts
    cdef int count(self, long long seq) noexcept
    cdef int drop_heads(self) noexcept
    cdef int put_sse_head(self, gai_buffer *out, const char *name, size_t size, long long seq) noexcept

    # Appends the frames of an event that ends in half a surrogate pair, or of any event while a half waits.
    cdef int append_joined(self, object event, object retry) except -1
    cdef Py_ssize_t place_joined(self, object event, object buffer, object offset) except -1
    cdef int write_joined(self, gai_buffer *out, object event, object retry, dict halves) except -1
    cdef int set_halves(self, dict halves) noexcept

    # Writes one delta as a frame. Returns 1 if its text ends in half a surrogate pair: then nothing was written. Does
    # not count the event; runs no Python code.
    cdef int put_delta(self, gai_buffer *out, int kind, str text, long long ts) except -1
    cdef int make_head(self, gai_head *head, int kind, bint timed) except -1
    cdef int append_delta(self, int kind, object text) except -1
    cdef Py_ssize_t place_delta(self, int kind, object buffer, object offset, object text) except -1

    # Writes one event as a frame. Returns its number, -1 if it has no number. Does not count the event.
    cdef long long write_event(self, gai_buffer *out, object event, object retry) except -2
    cdef int write_members(self, gai_buffer *out, dict event, long long seq, long long ts, bint has_envelope) except -1
    cdef int write_sse_head(self, gai_buffer *out, str name, long long seq) except -1
    cdef bytes encode_slowly(self, dict event, long long seq, long long ts, bint has_envelope)
    cdef int append_event(self, object event, object retry) except -1


cdef class SSEEncoder(_Encoder):
    pass


cdef class NDJSONEncoder(_Encoder):
    pass


cdef class EncoderView:
    cdef _Encoder _encoder
    cdef object _view
