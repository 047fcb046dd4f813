"""What csrc/ gives us; just the declarations needed. The rules stand in the headers."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "buffer.h" nogil:
    ctypedef struct gai_buffer:
        uint8_t *data
        size_t size
        size_t capacity
        bint borrowed

    void gai_borrow(gai_buffer *buffer, void *memory, size_t capacity)
    void gai_release(gai_buffer *buffer)
    int gai_reserve(gai_buffer *buffer, size_t room)
    void gai_put(gai_buffer *buffer, const void *data, size_t size)
    int gai_append(gai_buffer *buffer, const void *data, size_t size)
    void gai_clear(gai_buffer *buffer, size_t keep)


cdef extern from "escape.h" nogil:
    size_t GAI_ESCAPE_ROOM
    size_t gai_escape_ascii(uint8_t **at, const uint8_t *end, const uint8_t *text, size_t length)
    size_t gai_escape_ucs1(uint8_t **at, const uint8_t *end, const uint8_t *text, size_t length)
    size_t gai_escape_ucs2(uint8_t **at, const uint8_t *end, const uint16_t *text, size_t length)
    size_t gai_escape_ucs4(uint8_t **at, const uint8_t *end, const uint32_t *text, size_t length)


cdef extern from "integers.h" nogil:
    size_t GAI_INTEGER_ROOM
    uint8_t *gai_put_unsigned(uint8_t *at, uint64_t value)
    uint8_t *gai_put_integer(uint8_t *at, int64_t value)


cdef extern from "scan.h" nogil:
    size_t gai_find_line_end(const uint8_t *data, size_t length)
    bint gai_has_digits(const uint8_t *data, size_t length, size_t run)
    size_t gai_count_opening(const uint8_t *data, size_t length)


cdef extern from "Python.h":
    bint PyUnicode_IS_ASCII(object text)
    int PyUnicode_KIND(object text)
    void *PyUnicode_DATA(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)
    int PyUnicode_1BYTE_KIND
    int PyUnicode_2BYTE_KIND


cdef extern from "copy.h" nogil:
    int GAI_COPY_DONE
    int GAI_COPY_MORE
    int GAI_COPY_MISS
    size_t GAI_COPY_ROOM
    int gai_copy_string(const uint8_t **at, const uint8_t *end, uint8_t **out, size_t *characters)
    int gai_skip_string(const uint8_t **at, const uint8_t *end)
    int gai_skip_number(const uint8_t **at, const uint8_t *end)
    int gai_skip_blanks(const uint8_t **at, const uint8_t *end)
