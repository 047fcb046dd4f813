"""HTTP/1.1 chunked bodies: `gai_fast/_pure/chunked.py` is the specification.

One pass that copies the chunks' data into one bytes object; httptools calls Python four times for each chunk instead.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from libc.stdint cimport uint8_t
from libc.string cimport memcpy

from gai_fast._native.buffer cimport bytes_memory, finished_bytes, new_bytes, part

cdef enum:
    DIGITS = 15


cdef class ChunkedBody:
    """Takes a chunked body apart. See `gai_fast._pure.chunked.ChunkedBody`."""

    @property
    def complete(self):
        """The last chunk and its trailers have come."""
        return self._state == END

    def feed(self, bytes data not None, Py_ssize_t at=0):
        """The data of the chunks in these bytes, from a place on."""
        if not 0 <= at <= PyBytes_GET_SIZE(data):
            raise ValueError("at is no place in these bytes")
        return self.take_apart(data, at, b"")

    cdef bint is_between(self) noexcept:
        return self._state == SIZE and not self._digits and not self.broken

    cdef int skip_whole(self) noexcept:
        self.overhead = 2
        self.rest = 0
        return 0

    cdef bytes take_apart(self, bytes data, size_t place, bytes ahead):
        cdef const uint8_t *whole_read = <const uint8_t *>PyBytes_AS_STRING(data)
        cdef const uint8_t *at = whole_read + place
        cdef const uint8_t *end = whole_read + PyBytes_GET_SIZE(data)
        cdef PyObject *body
        cdef uint8_t *begin
        cdef uint8_t *to
        cdef const uint8_t *whole
        cdef size_t size, room = PyBytes_GET_SIZE(ahead)
        cdef uint8_t c
        if self._state == DATA and <size_t>(end - at) <= self._left:
            # Large chunks: the whole read is data.
            self.take(end - at)
            self.rest = 0
            data = part(data, place, PyBytes_GET_SIZE(data))
            return ahead + data if room else data
        body = new_bytes(NULL, room + (end - at))
        begin = <uint8_t *>bytes_memory(body)
        memcpy(begin, PyBytes_AS_STRING(ahead), room)
        to = begin + room
        while at < end and self._state != END and not self.broken:
            if self._state == SIZE and not self._digits:
                whole = whole_chunk(at, end, &size)
                if whole is not NULL:
                    memcpy(to, whole, size)
                    to += size
                    at = whole + size + 2
                    self.overhead = 2
                    continue
            if self._state == DATA:
                size = end - at
                if size > self._left:
                    size = self._left
                memcpy(to, at, size)
                to += size
                at += size
                self.take(size)
                continue
            c = at[0]
            at += 1
            self.overhead += 1
            self.broken = not self.step(c)
        self.rest = end - at
        return finished_bytes(body, to - begin)

    cdef inline int take(self, size_t size) noexcept:
        if size:
            self.overhead = 0
            self._left -= size
            if not self._left:
                self._state = DATA_CR
        return 0

    cdef inline bint step(self, uint8_t c) noexcept:
        cdef int digit
        if self._state == SIZE:
            if <uint8_t>(c - c"0") < 10:
                digit = c - c"0"
            elif <uint8_t>((c | 0x20) - c"a") < 6:
                digit = (c | 0x20) - c"a" + 10
            else:
                if not self._digits:
                    return False
                if c == c"\r":
                    self._state = SIZE_LF
                elif c == c";" or c == c" " or c == c"\t":
                    self._state = EXTENSION
                else:
                    return False
                return True
            if self._digits == DIGITS:
                return False
            self._digits += 1
            self._left = self._left << 4 | digit
        elif self._state == SIZE_LF:
            if c != c"\n":
                return False
            self._digits = 0
            self._state = DATA if self._left else TRAILER_BEGIN
        elif self._state == DATA_CR:
            if c != c"\r":
                return False
            self._state = DATA_LF
        elif self._state == DATA_LF:
            if c != c"\n":
                return False
            self._state = SIZE
        elif self._state == EXTENSION or self._state == TRAILER:
            if c == c"\r":
                self._state = SIZE_LF if self._state == EXTENSION else TRAILER_LF
            elif c == c"\n" or c == 0:
                return False
        elif self._state == TRAILER_BEGIN:
            if c == c"\n" or c == 0:
                return False
            self._state = LAST_LF if c == c"\r" else TRAILER
        else:
            if c != c"\n":
                return False
            self._state = TRAILER_BEGIN if self._state == TRAILER_LF else END
        return True
