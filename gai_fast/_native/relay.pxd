"""The copier's memory: templates of what comes in, what is written for them, and what was copied for whom."""

cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport uint8_t

from gai_fast._native.c cimport gai_buffer, gai_head, gai_name, gai_template
from gai_fast._native.parsers cimport _Feed

cdef enum:
    TEMPLATES = 4   # of one stream: text, reasoning, and the calls of a turn
    LESSONS = 8     # of an adapter: each model's frames are others


cdef class _Names:
    """The members that mean something to an adapter; one for all its streams."""
    cdef gai_name *names        # their bytes lie in `held`
    cdef size_t count
    cdef list keys
    cdef list held
    cdef list lessons           # of _Lesson, the last one that was of use first


cdef class _Lesson:
    """A frame that another stream has learned; in any stream that expects one, one like it becomes the same delta."""
    cdef gai_template learned
    cdef bytes frame            # the literals lie in it, and nothing else
    cdef bint lines


cdef class _Kind:
    """Deltas of one kind, whatever their frames look like: what an adapter must be told of them."""
    cdef dict event
    cdef str key
    cdef bint collects          # an adapter wants the texts of arguments
    cdef gai_buffer collected   # them, as the inside of a JSON string
    cdef size_t characters
    cdef bint touched           # it stands in `DeltaCopier._touched`

    cdef bint says(self, dict event, str key)
    cdef tuple take(self)


cdef class _Kept:
    """A member of which the last text counts."""
    cdef gai_buffer text
    cdef bint fresh

    cdef inline int keep(self, const uint8_t *text, size_t size) except -1


cdef class _Template:
    cdef gai_template learned
    cdef bytes frame            # the literals lie in it
    cdef _Kind kind
    cdef list kept              # of _Kept, as `learned` has them
    cdef gai_head around        # what is written before the text and behind it
    cdef size_t written         # bytes of that, about
    cdef bint is_timed
    cdef bint ends_with_cr      # a LF that follows belongs to the frame
    cdef bint matched           # at least once

    cdef bint set_parts(self, parts) except -1
    cdef size_t expected(self, size_t size) noexcept  # what so many bytes of such frames become, about


@cython.final
cdef class DeltaCopier:
    cdef object _cutter         # the framer
    cdef _Feed _framer          # the same, where it is one of ours; else nothing is copied
    cdef bint _lines
    cdef bint _passes
    cdef uint8_t _state         # csrc/states.h
    cdef bytes _chunk           # what was fed, while it is looked at
    cdef const uint8_t *_data
    cdef size_t _size
    cdef size_t _at
    cdef bytes _held            # the beginning of a frame that may yet be copied
    cdef list _templates        # of _Template, the last one that matched first
    cdef _Names _names
    cdef dict _expected         # the delta that is expected; None: nothing is
    cdef str _expected_key
    cdef object _expected_parts
    cdef size_t _fruitless      # templates given up without a match, less the matches since
    cdef size_t _unlearned      # frames given since one was learned
    cdef PyObject *_made        # a bytes object for what is written, or NULL: a stream owns none while it waits
    cdef gai_buffer _out        # its memory; where frames are passed on, for texts that are looked at only
    cdef list _runs             # frames that are passed on, each of these as many as follow each other
    cdef size_t _run_begin      # the last of these lies in `_chunk` yet
    cdef size_t _run_end        # 0: it does not
    cdef readonly size_t copied # frames since `take_copied` was called last
    cdef bint _is_timed         # what is written has the time in it
    cdef size_t _passed         # frames that a fast path has taken since the relay was told
    cdef list _touched          # of _Kind, the last one that was copied last
    cdef dict _kept             # of _Kept, by name

    cdef int look_at(self, bytes chunk, size_t at, size_t end) noexcept  # a part of it, behind what is held
    cdef int lend(self, uint8_t *memory, size_t size) noexcept  # to write to, up to `take_chunk`, `keep` or `unload`
    cdef int keep(self) except -1                               # what was written there is taken later
    cdef int abandon(self) noexcept                             # after an exception: what was copied is not counted
    cdef bytes unload(self)     # what is left of what was fed; nothing is looked at any more
    cdef bint holds_nothing(self) noexcept
    # Copies on and on: True where nothing is left to look at but what is held from now on, False where a frame must
    # take the full path. `unload` follows.
    cdef bint copy_all(self, long long seq, long long ts) except -1
    cdef object take_piece(self)
    # What was copied, as an HTTP chunk, and its size without the framing. What an adapter must know waits for `settle`.
    cdef bytes take_chunk(self, size_t *size)
    cdef list take_kinds(self)
    cdef size_t frame_end(self) noexcept
    # GAI_COPY_DONE: copied, `_at` is behind it. GAI_COPY_MORE: as far as the bytes go it matches. Else GAI_COPY_MISS.
    cdef int copy_next(self, long long seq, long long ts) except -1
    # As many as follow each other. Else as `copy_next`.
    cdef int copy(self, _Template template, long long seq, long long ts) except -1
    cdef int note(self, _Template template, size_t frames, size_t characters, size_t end) except -1
    cdef int cut_run(self) except -1
    cdef bint recall(self) except -1    # whether what comes next is a frame like those that other streams have learned
    cdef bint add(self, _Template template, dict event, str key, parts) except -1  # False: it cannot be written
    cdef bint find_holes(self, _Template template, str text) except -1
    cdef int give_up(self, _Template template) except -1
    cdef int count_fruitless(self) noexcept
    cdef _Kind kind_of(self, dict event, str key)
    cdef int grow(self, size_t needed, size_t expected) except -1
    cdef int drop(self) noexcept


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
