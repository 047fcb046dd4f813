"""The fields of the copier (learned frames, their output, the notes for the adapter) and of the counters."""

cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport uint8_t

from gai_fast.kernels._native.c cimport gai_buffer, gai_head, gai_name, gai_template, gai_trail
from gai_fast.kernels._native.parsers cimport _Feed

cdef enum:
    TEMPLATES = 4   # the most templates of a stream: text, reasoning, and the tool calls of a turn
    LESSONS = 8     # the most lessons of an adapter: the frames of each model differ


cdef enum:
    NO_TEXT = 0
    ALL_TEXT = 1    # arguments, and the text collected under their key
    LAST_TEXT = 2


cdef class _Names:
    """The member names of an adapter, shared by all its streams."""
    cdef gai_name *names        # `held` keeps their bytes
    cdef size_t count
    cdef list keys
    cdef list held
    cdef list lessons           # of _Lesson, the last used first


cdef class _Lesson:
    """A frame that a stream has learned with `always`, for other streams; its holes are blank."""
    cdef gai_template learned
    cdef bytes frame            # holds only the literals
    cdef bint lines


@cython.final
cdef class _Kind:
    """The adapter's notes on deltas that differ only in their text."""
    cdef dict event
    cdef str key
    cdef int keeps              # the texts that the adapter needs
    cdef gai_trail texts        # those texts, as the inside of a JSON string
    cdef size_t characters
    cdef bint touched           # whether the kind is in `DeltaCopier._touched`

    cdef bint covers(self, dict event, str key)
    cdef tuple take(self)
    cdef str take_text(self)


cdef class _Kept:
    """A kept member: only its last text counts."""
    cdef gai_buffer text
    cdef bint fresh

    cdef inline int keep(self, const uint8_t *text, size_t size) except -1


cdef class _Template:
    cdef gai_template learned
    cdef bytes frame            # holds the literals
    cdef _Kind kind
    cdef list kept              # of _Kept, in the order of `learned`
    cdef gai_head around        # the output before the text and after it
    cdef size_t written         # the approximate size of that output
    cdef bint is_timed
    cdef bint ends_with_cr      # a following LF belongs to the frame
    cdef bint matched           # whether a frame has matched

    cdef bint set_parts(self, parts) except -1
    cdef size_t expected(self, size_t size) noexcept  # the approximate size of the output for `size` bytes of frames


@cython.final
cdef class DeltaCopier:
    cdef object _cutter         # the framer
    cdef _Feed _framer          # the framer if it is native; otherwise None, and nothing is copied
    cdef bint _lines
    cdef bint _passes
    cdef uint8_t _state         # csrc/states.h
    cdef bytes _chunk           # the fed bytes, until all of them are handled
    cdef const uint8_t *_data
    cdef size_t _size
    cdef size_t _at
    cdef bytes _held            # the beginning of a frame that may still be copied
    cdef list _templates        # of _Template, the last matched first
    cdef _Names _names
    cdef dict _expected         # the expected delta, or None
    cdef str _expected_key
    cdef object _expected_parts
    cdef size_t _fruitless      # templates dropped without a match, minus the matches since
    cdef size_t _unlearned      # frames returned since a frame was learned
    cdef PyObject *_made        # a bytes object for the output, or NULL: a waiting stream owns none
    cdef gai_buffer _out        # the memory of `_made`; if frames are passed on, scratch memory for texts
    cdef list _runs             # passed-on frames, adjacent frames as one object
    cdef size_t _run_begin      # the last run, while it is still part of `_chunk`
    cdef size_t _run_end        # 0: there is no run
    cdef readonly size_t copied # frames copied since the last call of `take_copied`
    cdef bint _is_timed         # whether the output contains the time
    cdef size_t _passed         # frames that a fast path has sent since the last call of `settle`
    cdef list _touched          # of _Kind, the last copied last
    cdef list _former           # the notes of kinds copied before `_touched`
    cdef dict _kept             # of _Kept, by name

    cdef int look_at(self, bytes chunk, size_t at, size_t end) noexcept  # sets the bytes from which frames are copied
    cdef int lend(self, uint8_t *memory, size_t size) noexcept  # lends memory for the output, until `take_*` or `keep`
    cdef int keep(self) except -1                               # moves the output out of lent memory
    cdef int abandon(self) noexcept                             # drops the output, after an exception
    cdef bytes unload(self)     # returns the bytes that are not handled, and forgets them
    cdef bint holds_nothing(self) noexcept
    # Copies all frames. True: only a partial frame is left, which is held. False: a frame must be parsed.
    # The caller then calls `unload`.
    cdef bint copy_all(self, long long seq, long long ts) except -1
    cdef object take_piece(self)
    # Both return the output, and its size without HTTP's framing. The adapter's notes wait for `settle`.
    cdef bytes take_chunk(self, size_t *size)   # as one HTTP chunk
    cdef bytes take_frames(self, size_t *size)  # unchanged
    cdef list take_kinds(self)
    cdef list take_touched(self)
    cdef size_t frame_end(self) noexcept
    # GAI_COPY_DONE: copied, `_at` is after the frame. GAI_COPY_MORE: the bytes end too early. Otherwise GAI_COPY_MISS.
    cdef int copy_next(self, long long seq, long long ts) except -1
    # Copies all adjacent frames of one template. Returns the same as `copy_next`.
    cdef int copy(self, _Template template, long long seq, long long ts) except -1
    cdef size_t copy_run(
        self, _Template template, const uint8_t **frame, long long seq, long long ts, size_t *characters
    ) noexcept
    cdef int keep_order(self, _Kind kind, size_t held) except -1
    cdef int note(self, _Template template, size_t frames, size_t characters, size_t end, size_t held) except -1
    cdef int cut_run(self) except -1
    cdef bint recall(self) except -1    # whether the next frame is similar to a frame that another stream has learned
    cdef bint add(self, _Template template, dict event, str key, parts) except -1  # False: unsupported order of parts
    cdef bint find_holes(self, _Template template, str text) except -1
    cdef int give_up(self, _Template template) except -1
    cdef int count_fruitless(self) noexcept
    cdef _Kind kind_of(self, dict event, str key)
    cdef int grow(self, size_t needed, size_t expected) except -1
    cdef int drop(self) noexcept


cdef enum:
    MOST = 32   # the most bounds


@cython.final
cdef class Bounds:
    cdef double[MOST] _values
    cdef int _count
    cdef readonly tuple values

    cdef int place(self, double value) noexcept


@cython.final
cdef class Histogram:
    cdef long long[MOST + 1] _counts
    cdef readonly Bounds bounds
    cdef readonly double sum


@cython.final
cdef class StreamCounters:
    cdef Bounds _bounds
    cdef unsigned int[MOST + 1] _gaps
    cdef bint _has_begun        # whether a delta has come
    cdef double _first
    cdef double _last
    cdef readonly double worked
    cdef readonly double gap_sum
    cdef readonly long long received
    cdef readonly long long sent
    cdef readonly long long deltas

    cdef int note(self, double began, double ended, Py_ssize_t size, long long deltas) noexcept
