"""The copier's memory. A template is one learned frame: literals and holes of the input, literals of the output."""

from libc.stdint cimport uint8_t

from gai_fast._native.c cimport gai_buffer

cdef enum:
    HOLES = 12      # of one frame; a frame with more is not learned
    PARTS = 10      # of what a delta is written as
    TEMPLATES = 4   # of one stream: text, reasoning, and the calls of a turn


cdef enum Hole:
    HOLE_TEXT = 0
    HOLE_STRING = 1
    HOLE_NUMBER = 2
    HOLE_BLANKS = 3


cdef enum Op:
    OP_BYTES = 0
    OP_SEQ = 1
    OP_TS = 2


cdef class _Template:
    cdef object event
    cdef bytes frame            # the literals lie in it
    cdef const uint8_t *data
    cdef size_t offsets[HOLES + 1]
    cdef size_t sizes[HOLES + 1]
    cdef Hole holes[HOLES]
    cdef int count              # holes; one literal more
    cdef tuple written          # the bytes of the parts before the text, None where a number goes
    cdef Op ops[PARTS]
    cdef int parts
    cdef bytes behind           # what is written behind the text
    cdef bint collects          # the text is kept for the adapter
    cdef size_t room            # of the output without its text
    cdef size_t characters
    cdef size_t copied
    cdef gai_buffer collected


cdef class DeltaCopier:
    cdef object _framer
    cdef bint _passes
    cdef bytes _chunk           # what was fed, while it is looked at
    cdef const uint8_t *_data
    cdef size_t _size
    cdef size_t _at
    cdef bytes _held            # the beginning of a frame that may yet be copied
    cdef gai_buffer _out
    cdef size_t _copied
    cdef list _templates        # of _Template, the last one that matched first

    # GAI_COPY_DONE: copied, `_at` is behind it. GAI_COPY_MORE: as far as the bytes go it matches. Else GAI_COPY_MISS.
    cdef int copy(self, _Template template, long long seq, long long ts) except -1
    cdef size_t block_end(self) noexcept
