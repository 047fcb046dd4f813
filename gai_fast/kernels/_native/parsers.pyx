"""Bytes → SSE events, SSE blocks, NDJSON lines, decoded chunked bodies, and JSON objects of a known shape.

`parsers.py`, `chunked.py`, `shapes.py` and `requests.py` in `kernels/_pure` define their behaviour.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_CheckBuffer, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.long cimport PyLong_FromLongLong
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF
from cpython.tuple cimport PyTuple_New, PyTuple_SET_ITEM
from cpython.unicode cimport PyUnicode_DecodeASCII, PyUnicode_DecodeUTF8, PyUnicode_New
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memchr, memcmp, memcpy, memmove

import orjson

from gai_fast.kernels._native.buffer cimport append, bytes_memory, finished_bytes, new_bytes, part
from gai_fast.kernels._native.encoders cimport loops_in_use
from gai_fast.kernels._native.c cimport (
    GAI_COPY_DONE,
    PyUnicode_DATA,
    PyUnicode_GET_LENGTH,
    PyUnicode_IS_ASCII,
    gai_borrow,
    gai_buffer,
    gai_clear,
    gai_count_opening,
    gai_find_line_end,
    gai_has_digits,
    gai_release,
    gai_skip_blanks,
    gai_skip_count,
    gai_skip_scalar,
    gai_skip_string,
    gai_skip_text,
    gai_skip_value,
    gai_skip_word,
    gai_use_loops,
)
from gai_fast.kernels._pure import faults, parsers as pure
from gai_fast.kernels._pure.jsontext import LONG_DIGITS
from gai_fast.kernels._pure.shapes import count_members
from gai_fast.model.limits import SHARED
from gai_fast.kernels._pure.limits import LIMITS

gai_use_loops(loops_in_use())

# ---- SSE and NDJSON ------------------------------------------------------------------------------------------------


cdef extern from *:
    """
    /* Returns a named tuple for `size` values, which the caller sets. Python 3.14 and newer cache a tuple's hash. */
    static PyObject *gai_new_named(PyObject *kind, Py_ssize_t size) {
        PyObject *made = ((PyTypeObject *)kind)->tp_alloc((PyTypeObject *)kind, size);
    #if PY_VERSION_HEX >= 0x030E0000
        if (made != NULL) {
            ((PyTupleObject *)made)->ob_hash = -1;
        }
    #endif
        return made;
    }
    """
    tuple gai_new_named(object kind, Py_ssize_t size)

cdef extern from "<string.h>" nogil:
    void *memmem(const void *haystack, size_t size, const void *needle, size_t length)

cdef object loads = orjson.loads
cdef object JSONDecodeError = orjson.JSONDecodeError
cdef object Frame = pure.Frame
cdef object SSEEvent = pure.SSEEvent
cdef object LIMIT = SHARED.event
cdef size_t KEPT = LIMITS.encoder_capacity  # a parser between two events holds no more memory than this
cdef size_t DEPTH = SHARED.arguments_depth
cdef size_t DIGITS = LONG_DIGITS
cdef size_t RETRY_DIGITS = LIMITS.retry_digits
cdef Py_ssize_t LENGTH_DIGITS = SHARED.max_body_digits
cdef Py_ssize_t CLOSING = LIMITS.closing_counts
cdef enum:
    ID_OCTETS = 16
    ID_SIZE = 36  # the digits of these, and four dashes
    DRAWN = 10  # of them, random
cdef const char *HEX_DIGITS = b"0123456789abcdef"


cdef inline str decode(const uint8_t *data, size_t size):
    return PyUnicode_DecodeUTF8(<const char *>data, size, "replace")


cdef inline int put(tuple made, Py_ssize_t at, object value) except -1:
    Py_INCREF(value)  # `PyTuple_SET_ITEM` steals a reference
    PyTuple_SET_ITEM(made, at, value)
    return 0


cdef inline object new_frame(bytes raw, str name, data, stray):
    """Makes a `Frame` of the pure module, without the temporary tuples of its own constructor."""
    made = gai_new_named(Frame, 4)
    put(made, 0, raw)
    put(made, 1, name)
    put(made, 2, data)
    put(made, 3, stray)
    return made


cdef inline object new_event(str name, data, str identifier):
    """Makes an `SSEEvent` of the pure module, without the temporary tuples of its own constructor."""
    made = gai_new_named(SSEEvent, 3)
    put(made, 0, name)
    put(made, 1, data)
    put(made, 2, identifier)
    return made


cdef class _Feed:
    """Turns bytes into items. See `gai_fast.kernels._pure.parsers`."""

    def __cinit__(self):
        gai_borrow(&self._held, NULL, 0)
        self._first = True

    def __init__(self, limit=LIMIT):
        if self._feeding:
            raise faults.fed_within_feed()
        self._limit = limit if limit is LIMIT else pure.checked_limit(limit)
        self.reset()

    def __dealloc__(self):
        gai_release(&self._held)

    def feed(self, data):
        """Adds the next bytes.

        Args:
            data (bytes-like): Any contiguous bytes-like object.

        Returns:
            list: The items that are complete now.

        Raises:
            ValueError: Invalid bytes or an exceeded limit (`faults.FeedError`; its `before` holds the items that this
                call completed before). After an exceeded limit every further call raises, too.
            TypeError: `data` is not bytes-like.
        """
        cdef Py_buffer view
        if self._feeding:
            raise faults.fed_within_feed()
        if not PyObject_CheckBuffer(data):
            raise faults.not_bytes(data)
        try:
            PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        except BufferError:
            raise faults.not_bytes(data) from None
        try:
            return self.take(<const uint8_t *>view.buf, view.len)
        finally:
            PyBuffer_Release(&view)

    cdef list take(self, const uint8_t *chunk, size_t size):
        cdef list items = []
        cdef bint is_well = False
        self._feeding = True
        try:
            if self._broken is not None:
                raise faults.FeedError(self._broken)
            self.look_at(chunk, size)
            try:
                self.take_lines(items)
            except faults.FeedError as error:
                error.before = items
                self.keep_rest()
                is_well = True
                raise
            self.keep_rest()
            is_well = True
        finally:
            if not is_well and self._broken is None:
                # There was no memory for some bytes. Later bytes would follow a gap, so refuse them.
                self.refuse(faults.feed_failed())
            self._feeding = False
        return items

    cdef int look_at(self, const uint8_t *chunk, size_t size) except -1:
        """Points `_data` at the held bytes followed by the chunk, in one piece."""
        if self._held.size:
            append(&self._held, chunk, size)
            self._data = self._held.data
            self._size = self._held.size
        else:
            self._data = chunk
            self._size = size
        return 0

    cdef int keep_rest(self) except -1:
        """Holds the bytes from the mark on and drops the bytes before it."""
        cdef size_t left = self._size - self._mark
        if self._held.size:
            if self._mark:
                memmove(self._held.data, self._held.data + self._mark, left)
                self._held.size = left
            if not left:
                gai_clear(&self._held, KEPT)
        elif left:
            append(&self._held, self._data + self._mark, left)
        self._start -= self._mark
        self._searched -= self._mark
        self._mark = 0
        self._size = left
        self._data = NULL
        return 0

    cdef int reset(self) except -1:
        gai_clear(&self._held, KEPT)
        self._data = NULL
        self._size = self._mark = self._start = self._searched = 0
        self._first = True
        self._broken = None
        return 0

    cdef int take_lines(self, list items) except -1:
        return 0

    cdef object refuse(self, object fault):
        """Refuses all further input; returns the fault to raise."""
        self.reset()
        self._broken = str(fault)
        return fault

    cdef int drop_mark(self, const uint8_t **line, size_t *size) noexcept:
        """Drops a byte order mark at the very start of the input."""
        if self._first:
            self._first = False
            if size[0] >= 3 and memcmp(line[0], b"\xef\xbb\xbf", 3) == 0:
                line[0] += 3
                size[0] -= 3
        return 0

    cdef bint look_at_rest(self, const uint8_t **line, size_t *size) noexcept:
        """Returns whether there is an incomplete line at the end of the input; sets `line` and `size` to it."""
        self._data = self._held.data
        line[0] = self._data + self._start
        size[0] = self._size - self._start
        if not size[0]:
            return False
        self._start = self._size
        self.drop_mark(line, size)
        return True


# ---- SSE -----------------------------------------------------------------------------------------------------------


cdef class _SSEFeed(_Feed):
    """The SSE grammar: lines, fields, blocks. See `gai_fast.kernels._pure.parsers`."""

    def __cinit__(self):
        gai_borrow(&self._values, NULL, 0)
        gai_borrow(&self._strays, NULL, 0)
        self._name = self._last_name = self._id = ""

    def __dealloc__(self):
        gai_release(&self._values)
        gai_release(&self._strays)

    cdef int reset(self) except -1:
        _Feed.reset(self)
        self._late_lf = False
        return self.clear_block()

    cdef int clear_block(self) noexcept:
        if self._values.size:
            gai_clear(&self._values, KEPT)
        if self._strays.size:
            gai_clear(&self._strays, KEPT)
        self._value = NULL
        self._has_data = self._has_stray = False
        if PyUnicode_GET_LENGTH(self._name):
            self._name = ""
        self._block_size = 0
        return 0

    cdef int keep_rest(self) except -1:
        self.settle_value()
        return _Feed.keep_rest(self)

    cdef int settle_value(self) except -1:
        """Copies the only data line, because another data line follows or its memory becomes void."""
        if self._value is not NULL:
            append(&self._values, self._value, self._value_size)
            self._value = NULL
        return 0

    cdef int take_lines(self, list items) except -1:
        """Handles all complete lines. Without a call for each step an event takes 40 ns instead of 65 ns."""
        cdef const uint8_t *line
        cdef size_t begin, end, size
        if self._late_lf and self._start < self._size:
            # The LF of a CRLF. Its CR ended a line in an earlier read.
            self._late_lf = False
            if self._data[self._start] == c"\n":
                self._start += 1
            self._searched = self._start
        while True:
            begin = self._start
            end = self._searched + gai_find_line_end(self._data + self._searched, self._size - self._searched)
            if end > begin and self._block_size + end - begin > self._limit:
                raise self.refuse(faults.event_too_long(self._limit))
            self._searched = end
            if end == self._size:
                return 0
            self._start = end + 1
            if self._data[end] == c"\r":
                # A CR ends the line at once: waiting for a LF would delay an event until the next event comes.
                if self._start == self._size:
                    self._late_lf = True
                elif self._data[self._start] == c"\n":
                    self._start += 1
            self._searched = self._start
            line = self._data + begin
            size = end - begin
            if self._first:
                self.drop_mark(&line, &size)
            if size:
                self.take_field(line, size)
            else:
                self.end_block(items)
                self.clear_block()
            if not self._keeps_raw:
                self._mark = self._start

    cdef int take_field(self, const uint8_t *line, size_t size) except -1:
        cdef const uint8_t *colon
        cdef const uint8_t *value
        cdef size_t name_size, value_size
        if line[0] == c":":
            if self._keeps_raw:
                self._block_size += size + 1
            return 0
        self._block_size += size + 1
        colon = <const uint8_t *>memchr(line, c":", size)
        if colon is NULL:
            name_size = value_size = size
            value = line + size
        else:
            name_size = colon - line
            value = colon + 1
        value_size = size - (value - line)
        if value_size and value[0] == c" ":
            value += 1
            value_size -= 1
        if name_size == 4 and memcmp(line, b"data", 4) == 0:
            if self._has_data:
                self.settle_value()
                append(&self._values, b"\n", 1)
                append(&self._values, value, value_size)
            else:
                self._has_data = True
                self._value = value
                self._value_size = value_size
        elif name_size == 5 and memcmp(line, b"event", 5) == 0:
            self.take_name(value, value_size)
        elif name_size == 2 and memcmp(line, b"id", 2) == 0:
            if not value_size or memchr(value, 0, value_size) is NULL:
                self._id = decode(value, value_size)
        elif name_size == 5 and memcmp(line, b"retry", 5) == 0:
            if value_size and value_size <= RETRY_DIGITS and gai_has_digits(value, value_size, value_size):
                self._retry = int(PyBytes_FromStringAndSize(<const char *>value, value_size))
        else:
            if self._has_stray:
                append(&self._strays, b"\n", 1)
            self._has_stray = True
            append(&self._strays, line, size)
        return 0

    cdef int take_name(self, const uint8_t *value, size_t size) except -1:
        if (
            <size_t>PyUnicode_GET_LENGTH(self._last_name) != size
            or not PyUnicode_IS_ASCII(self._last_name)
            or memcmp(PyUnicode_DATA(self._last_name), value, size) != 0
        ):
            self._last_name = decode(value, size)
        self._name = self._last_name
        return 0

    cdef object joined_data(self):
        if self._value is not NULL:
            return decode(self._value, self._value_size)
        return decode(self._values.data, self._values.size) if self._has_data else None

    cdef int end_block(self, list items) except -1:
        return 0


cdef class SSEParser(_SSEFeed):
    """SSEParser(limit=8388608)
--

    An incremental EventSource parser (WHATWG HTML 9.2.6). Only one thread may use it at a time.

    UTF-8 is decoded with replacement, and a byte order mark at the very start is dropped. An event is complete with the
    byte that ends its blank line.

    Args:
        limit (int): The most bytes of one line, and of all lines of one event together. Comments do not count towards
            the event.

    Raises:
        ValueError: The limit is no `int` from 0 to `sys.maxsize`.
    """

    def __cinit__(self):
        self._last_event_id = ""

    @property
    def retry(self):
        """The milliseconds of the last valid `retry:` line. `None` if there was no such line."""
        return self._retry

    @property
    def last_event_id(self):
        """The last id that a blank line has followed."""
        return self._last_event_id

    def close(self, lenient=False):
        """Ends the input and returns the events that it completes.

        The parser can then read another connection. It keeps `retry` and `last_event_id`.

        Args:
            lenient (bool): Whether an incomplete last event counts. WHATWG drops it.

        Returns:
            list: An `SSEEvent`, or none.
        """
        cdef list events = []
        cdef const uint8_t *line
        cdef size_t size
        if self._feeding:
            raise faults.fed_within_feed()
        try:
            if lenient:
                if self.look_at_rest(&line, &size) and size:
                    self.take_field(line, size)
                self.end_block(events)
        finally:
            self._id = self._last_event_id
            self.reset()
        return events

    cdef int end_block(self, list items) except -1:
        self._last_event_id = self._id
        if self._has_data:
            name = self._name if PyUnicode_GET_LENGTH(self._name) else "message"
            items.append(new_event(name, self.joined_data(), self._id))
        return 0


cdef class SSEFramer(_SSEFeed):
    """Cuts an SSE stream into blocks and keeps their bytes. See `gai_fast.kernels._pure.parsers.SSEFramer`."""

    def __cinit__(self):
        self._keeps_raw = True

    def close(self):
        """Ends the input. Returns the incomplete rest as a last frame, if there is one."""
        cdef list frames = []
        cdef const uint8_t *line
        cdef size_t size
        if self._feeding:
            raise faults.fed_within_feed()
        try:
            if self.look_at_rest(&line, &size) and size:
                self.take_field(line, size)
            if self._mark < self._size:
                self.end_block(frames)
        finally:
            self.reset()
        return frames

    cdef int end_block(self, list items) except -1:
        raw = PyBytes_FromStringAndSize(<const char *>self._data + self._mark, self._start - self._mark)
        self._mark = self._start
        stray = decode(self._strays.data, self._strays.size) if self._has_stray else None
        items.append(new_frame(raw, self._name, self.joined_data(), stray))
        return 0


# ---- NDJSON --------------------------------------------------------------------------------------------------------


cdef class _LineFeed(_Feed):
    """The NDJSON grammar. See `gai_fast.kernels._pure.parsers`."""

    cdef int reset(self) except -1:
        self._number = 1
        return _Feed.reset(self)

    cdef int take_lines(self, list items) except -1:
        cdef const uint8_t *line
        cdef const uint8_t *found
        cdef size_t begin, end, size
        while self._size:  # `_data` may be NULL if there are no bytes
            begin = self._start
            found = <const uint8_t *>memchr(self._data + self._searched, c"\n", self._size - self._searched)
            end = self._size if found is NULL else found - self._data
            if end - begin > self._limit:
                raise self.refuse(faults.line_too_long(self._number, self._limit))
            if found is NULL:
                self._searched = end
                return 0
            self._start = self._searched = end + 1
            line = self._data + begin
            size = end - begin
            self.drop_mark(&line, &size)
            self.take_line(line, size, items)

    cdef int take_line(self, const uint8_t *line, size_t size, list items) except -1:
        cdef size_t number = self._number
        self._line_begin = self._mark
        self._mark = self._start
        self._number += 1
        while size and is_blank(line[0]):
            line += 1
            size -= 1
        while size and is_blank(line[size - 1]):
            size -= 1
        return self.end_line(line, size, number, items)

    cdef int end_line(self, const uint8_t *line, size_t size, size_t number, list items) except -1:
        return 0

    def close(self):
        """Ends the input: a last line without a LF counts."""
        cdef list items = []
        cdef const uint8_t *line
        cdef size_t size
        if self._feeding:
            raise faults.fed_within_feed()
        try:
            if self.look_at_rest(&line, &size):
                self.take_line(line, size, items)
        finally:
            self.reset()
        return items


cdef inline bint is_blank(uint8_t octet) noexcept:
    return octet == c" " or octet == c"\t" or octet == c"\r"


cdef class NDJSONParser(_LineFeed):
    """NDJSONParser(limit=8388608)
--

    Reads one JSON value per line. Skips blank lines and keeps integers exact. Only one thread may use it at a time.

    If a line is not JSON, `feed` raises a `ValueError` with the line's number and skips the line: the next `feed`
    continues after it.

    Args:
        limit (int): The most bytes of one line.

    Raises:
        ValueError: The limit is no `int` from 0 to `sys.maxsize`.
    """

    cdef int end_line(self, const uint8_t *line, size_t size, size_t number, list items) except -1:
        if not size:
            return 0
        text = PyBytes_FromStringAndSize(<const char *>line, size)
        if not gai_has_digits(line, size, DIGITS) and gai_count_opening(line, size) <= DEPTH:
            try:
                items.append(loads(text))
                return 0
            except JSONDecodeError:
                pass
        items.append(pure.parse_line(text, number))
        return 0


cdef class LineFramer(_LineFeed):
    """Cuts NDJSON into lines and keeps their bytes. See `gai_fast.kernels._pure.parsers.LineFramer`."""

    cdef int end_line(self, const uint8_t *line, size_t size, size_t number, list items) except -1:
        raw = PyBytes_FromStringAndSize(<const char *>self._data + self._line_begin, self._start - self._line_begin)
        items.append(new_frame(raw, "", decode(line, size) if size else None, None))
        return 0


# ---- HTTP/1.1 chunked bodies ---------------------------------------------------------------------------------------


cdef enum:
    SIZE_DIGITS = 15


cdef class ChunkedBody:
    """Decodes a chunked body. See `gai_fast.kernels._pure.chunked.ChunkedBody`."""

    @property
    def complete(self):
        """Whether the last chunk and its trailers have come."""
        return self._state == END

    def feed(self, bytes data not None, Py_ssize_t at=0):
        """Returns the data of the chunks in these bytes, from `at` on."""
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
            # The whole read is data of one large chunk.
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
                    self.overhead = 2
                    while whole is not NULL:
                        memcpy(to, whole, size)
                        to += size
                        at = whole + size + 2
                        whole = whole_chunk(at, end, &size)
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
            if self._digits == SIZE_DIGITS:
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


# ---- JSON objects of a known shape ---------------------------------------------------------------------------------


cdef extern from *:
    """
    /* Sets an item of a new tuple to a value; to None for NULL. */
    static inline void gai_share(PyObject *made, Py_ssize_t at, PyObject *value) {
        value = value == NULL ? Py_None : value;
        Py_INCREF(value);
        PyTuple_SET_ITEM(made, at, value);
    }
    """
    void gai_share(tuple made, Py_ssize_t at, PyObject *value)

cdef enum:
    PLACES = 32     # the most members; `count_members` checks it
    BEGINNING = 256 # the most bytes of a text's beginning that are recognized in the next text
    FLAT = 3        # the most levels of an object that is read without a parser

cdef enum Kind:
    TEXT
    COUNT
    ANY
    PARSED  # values of this and the following kinds differ from text to text
    OBJECT
    LIST

cdef struct Member:
    const uint8_t *name
    Py_ssize_t size
    Kind kind
    int place           # index of its value, or of the first value in it
    int places_end
    int first           # index of the first member in it
    int count


cdef struct Reading:
    const uint8_t *at
    const uint8_t *end
    PyObject *values[PLACES]
    const uint8_t *begin    # the beginning to note; NULL if it has been noted, or was recognized


cdef class Shape:
    """See `gai_fast.kernels._pure.shapes.Shape`."""

    cdef Member *_members
    cdef list _names
    cdef int _filled
    cdef int _own
    cdef int _places
    # The beginning of the last text, up to its first list or object: all chunks of a response begin alike.
    cdef uint8_t _known[BEGINNING]
    cdef size_t _known_size
    cdef Member *_known_next    # the member that comes next
    cdef int _known_expected
    cdef tuple _known_values    # up to the last value that is not missing

    def __cinit__(self, members):
        cdef int number = count_members(members)
        self._names = []
        self._members = <Member *>calloc(number + 1, sizeof(Member))
        if self._members is NULL:
            raise MemoryError
        self._own = len(members)
        self.describe(members)

    def __dealloc__(self):
        free(self._members)

    cdef int describe(self, members) except -1:
        """Adds the members in a row, followed by the members of their objects."""
        cdef int first = self._filled, i
        cdef Member *member
        self._filled += len(members)
        for i, (name, kind) in enumerate(members.items(), first):
            encoded = name.encode()
            self._names.append(encoded)     # keeps the bytes of `member.name`
            member = &self._members[i]
            member.name = <const uint8_t *>PyBytes_AS_STRING(encoded)
            member.size = len(encoded)
            member.place = self._places
            if isinstance(kind, str):
                member.kind = TEXT if kind == "text" else COUNT if kind == "count" else PARSED if kind == "object" else ANY
                self._places += kind != "any"
            else:
                is_list = isinstance(kind, list)
                member.kind = LIST if is_list else OBJECT
                self._places += is_list
                inner = kind[0] if is_list else kind
                member.first = self._filled
                member.count = len(inner)
                self.describe(inner)
            member.places_end = self._places
        return 0

    def read(self, str text not None):
        """Returns the values in the order of the description. `None` if the text has another shape."""
        cdef Reading reading
        cdef int i
        cdef bint is_read = False
        if not PyUnicode_IS_ASCII(text):
            return None
        reading.at = <const uint8_t *>PyUnicode_DATA(text)  # a NUL follows the text, so the next byte is always readable
        reading.end = reading.at + PyUnicode_GET_LENGTH(text)
        for i in range(self._places):
            reading.values[i] = NULL
        reading.begin = reading.at
        try:
            if self._known_size and self.knows(&reading):
                is_read = self.read_members(&reading, 0, self._own, self._known_expected, self._known_next)
            else:
                is_read = self.read_object(&reading, 0, self._own)
            return as_tuple(&reading, self._places) if is_read and not is_left(&reading) else None
        finally:
            forget(&reading, 0, self._places)

    cdef bint knows(self, Reading *reading) noexcept:
        """Returns whether the text begins as the last text did; if so, sets its first values to the last text's."""
        cdef int i
        if <size_t>(reading.end - reading.at) <= self._known_size or memcmp(reading.at, self._known, self._known_size):
            return False
        reading.at += self._known_size
        reading.begin = NULL
        for i in range(len(self._known_values)):
            value = self._known_values[i]
            if value is not None:
                keep(reading, i, value)
        gai_skip_blanks(&reading.at, reading.end)
        return True

    cdef int note(self, Reading *reading, Member *member, int expected) except -1:
        """Notes the beginning of a text, up to the value of its first list or object."""
        cdef size_t size = reading.at - reading.begin
        cdef int places = self._places
        while places and reading.values[places - 1] is NULL:
            places -= 1
        if size <= BEGINNING:
            self._known_values = as_tuple(reading, places)
            memcpy(self._known, reading.begin, size)
            self._known_size, self._known_next, self._known_expected = size, member, expected
        reading.begin = NULL
        return 0

    cdef bint read_object(self, Reading *reading, int first, int count) except -1:
        """Reads an object; returns False if it has another shape."""
        if not took(reading, c"{"):
            return False
        return took(reading, c"}") or self.read_members(reading, first, count, 0, NULL)

    cdef bint read_members(self, Reading *reading, int first, int count, int expected, Member *named) except -1:
        """Reads the members of an object and its end. `named` is the first member if its name has been read."""
        cdef Member *member = named
        while True:
            if named is NULL:
                if not took(reading, c'"'):
                    return False
                if not self.read_name(reading, first, count, &expected, &member) or not took(reading, c":"):
                    return False
                if gai_skip_blanks(&reading.at, reading.end) != GAI_COPY_DONE:
                    return False
                if reading.begin is not NULL and member is not NULL and member.kind >= PARSED:
                    self.note(reading, member, expected)
            named = NULL
            if member is NULL:
                if gai_skip_word(&reading.at, reading.end, "null", 4) != GAI_COPY_DONE:
                    return False
            elif not self.read_member(reading, member):
                return False
            if not took(reading, c","):
                return took(reading, c"}")

    cdef bint read_name(self, Reading *reading, int first, int count, int *expected, Member **member) noexcept:
        """Reads a name and its closing quote, and sets `member` to its member, or to NULL if it is unknown."""
        cdef const uint8_t *name = reading.at
        cdef Member *next_one
        cdef Py_ssize_t size = reading.end - name
        cdef int i, at = expected[0]
        # Most members come in the order of the description, and some are missing.
        for i in range(count):
            next_one = &self._members[first + at]
            at = at + 1 if at + 1 < count else 0
            if size > next_one.size and name[next_one.size] == c'"' and not memcmp(next_one.name, name, next_one.size):
                reading.at += next_one.size + 1
                member[0] = next_one
                expected[0] = at
                return True
        if gai_skip_string(&reading.at, reading.end) != GAI_COPY_DONE:
            return False
        reading.at += 1
        member[0] = NULL
        return True

    cdef bint read_member(self, Reading *reading, Member *member) except -1:
        cdef const uint8_t *begin = reading.at
        cdef bint is_null = begin[0] == c"n" and gai_skip_word(&reading.at, reading.end, "null", 4) == GAI_COPY_DONE
        forget(reading, member.place, member.places_end)  # if a name comes twice, the last value counts
        if member.kind == ANY:
            return is_null or gai_skip_value(&reading.at, reading.end) == GAI_COPY_DONE
        if member.kind == PARSED:
            return self.read_parsed(reading, member.place, is_null)
        if is_null:
            return True
        if member.kind == TEXT:
            if begin[0] != c'"':
                return False
            return self.read_text(reading, member.place)
        if member.kind == COUNT:
            if gai_skip_count(&reading.at, reading.end) != GAI_COPY_DONE:
                return False
            keep(reading, member.place, PyLong_FromLongLong(whole_number(begin, reading.at)))
            return True
        if member.kind == OBJECT:
            return self.read_object(reading, member.first, member.count)
        if not took(reading, c"["):
            return False
        if took(reading, c"]"):
            keep(reading, member.place, 0)
            return True
        keep(reading, member.place, 1)
        return self.read_object(reading, member.first, member.count) and took(reading, c"]")

    cdef bint read_text(self, Reading *reading, int place) except -1:
        cdef const uint8_t *begin = reading.at
        reading.at += 1
        if gai_skip_string(&reading.at, reading.end) == GAI_COPY_DONE:
            keep(reading, place, PyUnicode_DecodeASCII(<const char *>begin + 1, reading.at - begin - 1, NULL))
            reading.at += 1
            return True
        if gai_skip_text(&reading.at, reading.end) != GAI_COPY_DONE:
            return False
        reading.at += 1
        return keep_parsed(reading, place, begin)

    cdef bint read_parsed(self, Reading *reading, int place, bint is_null) except -1:
        cdef const uint8_t *begin = reading.at
        if is_null:
            keep(reading, place, {})
            return True
        found = read_counts(reading, FLAT)
        if found is not None:
            keep(reading, place, found)
            return True
        reading.at = begin
        if begin[0] != c"{" or gai_skip_value(&reading.at, reading.end) != GAI_COPY_DONE:
            return False
        return keep_parsed(reading, place, begin)


cdef dict read_counts(Reading *reading, int levels):
    """Reads an object of counts and of such objects, as usage is. None if it holds other values; then `at` is void."""
    cdef dict made
    cdef const uint8_t *begin
    if not levels or not took(reading, c"{"):
        return None
    made = {}
    if took(reading, c"}"):
        return made
    while took(reading, c'"'):
        begin = reading.at
        if gai_skip_string(&reading.at, reading.end) != GAI_COPY_DONE:
            return None
        name = name_of(begin, reading.at - begin)
        reading.at += 1
        if not took(reading, c":") or not is_left(reading):
            return None
        begin = reading.at
        value = None
        if begin[0] == c"{":
            value = read_counts(reading, levels - 1)
            if value is None:
                return None
        elif gai_skip_count(&reading.at, reading.end) == GAI_COPY_DONE:
            value = PyLong_FromLongLong(whole_number(begin, reading.at))
        elif gai_skip_word(&reading.at, reading.end, "null", 4) != GAI_COPY_DONE:
            return None
        made[name] = value
        if not took(reading, c","):
            return made if took(reading, c"}") else None
    return None


cdef bint took(Reading *reading, uint8_t c) noexcept:
    """Moves past white space and this byte; returns False if another byte comes next."""
    if reading.at[0] != c and (not is_left(reading) or reading.at[0] != c):
        return False
    reading.at += 1
    return True


cdef bint is_left(Reading *reading) noexcept:
    """Moves past white space; returns whether more is left. A NUL follows the text."""
    while is_white(reading.at[0]):
        reading.at += 1
    return reading.at != reading.end


cdef inline bint is_white(uint8_t octet) noexcept:
    return is_blank(octet) or octet == c"\n"


cdef long long whole_number(const uint8_t *at, const uint8_t *end) noexcept:
    cdef long long value = 0
    while at < end:
        value = value * 10 + (at[0] - c"0")
        at += 1
    return value


cdef int keep(Reading *reading, int place, value) except -1:
    Py_INCREF(value)
    reading.values[place] = <PyObject *>value
    return 0


cdef bint keep_parsed(Reading *reading, int place, const uint8_t *begin) except -1:
    """Parses the text from `begin` to the current place and keeps the value; returns False if the parser refuses it."""
    try:
        keep(reading, place, loads(PyBytes_FromStringAndSize(<const char *>begin, reading.at - begin)))
    except ValueError:
        return False
    return True


cdef int forget(Reading *reading, int begin, int end) noexcept:
    cdef int i
    for i in range(begin, end):
        Py_XDECREF(reading.values[i])
        reading.values[i] = NULL
    return 0


cdef tuple as_tuple(Reading *reading, int places):
    cdef int i
    made = PyTuple_New(places)
    for i in range(places):
        gai_share(made, i, reading.values[i])
    return made


cdef enum:
    MEMBERS = 32    # the most members of an object that is cut


cdef struct Span:
    const uint8_t *name
    size_t size             # of the name
    const uint8_t *value
    const uint8_t *end      # of the value


def cut_member(bytes text not None, bytes name not None):
    """See `gai_fast.kernels._pure.shapes.cut_member`."""
    cdef Reading reading
    cdef Span members[MEMBERS]
    cdef Span *member
    cdef const uint8_t *at
    cdef int count = 0, found = -1, i
    reading.at = <const uint8_t *>PyBytes_AS_STRING(text)
    reading.end = reading.at + PyBytes_GET_SIZE(text)
    if not took(&reading, c"{"):
        return None
    while True:
        if count == MEMBERS or not took(&reading, c'"'):
            return None
        member = &members[count]
        member.name = reading.at
        if gai_skip_string(&reading.at, reading.end) != GAI_COPY_DONE:
            return None
        member.size = reading.at - member.name
        reading.at += 1
        for i in range(count):
            if members[i].size == member.size and not memcmp(members[i].name, member.name, member.size):
                return None
        if not took(&reading, c":") or not is_left(&reading):
            return None
        member.value = reading.at
        if gai_skip_value(&reading.at, reading.end) != GAI_COPY_DONE:
            return None
        member.end = reading.at
        if member.size == <size_t>PyBytes_GET_SIZE(name) and not memcmp(member.name, PyBytes_AS_STRING(name), member.size):
            found = count
        count += 1
        if not took(&reading, c","):
            break
    if found < 0 or not took(&reading, c"}") or is_left(&reading):
        return None
    member = &members[found]
    at = member.value + 1
    if member.value[0] != c'"' or gai_skip_string(&at, member.end) != GAI_COPY_DONE or at == member.value + 1:
        return None
    value = PyUnicode_DecodeASCII(<const char *>member.value + 1, at - member.value - 1, NULL)
    return value, join_before(members, found), join_after(member + 1, count - found - 1)


cdef bytes join_before(const Span *members, int count):
    """Writes the first part of an object: this many members, and the name of the next one."""
    cdef size_t size = members_size(members, count) + members[count].size + 4  # with `{"":`
    cdef PyObject *made = new_bytes(NULL, size)
    cdef uint8_t *to = <uint8_t *>bytes_memory(made)
    to[0] = c"{"
    put_name(put_members(to + 1, members, count), &members[count])
    return finished_bytes(made, size)


cdef bytes join_after(const Span *members, int count):
    """Writes the last part of an object: this many members."""
    cdef size_t size = members_size(members, count) + 1
    cdef PyObject *made = new_bytes(NULL, size)
    cdef uint8_t *to = <uint8_t *>bytes_memory(made)
    to[0] = c","
    to = put_members(to + 1, members, count)
    (to - 1)[0] = c"}"  # in place of the last comma
    return finished_bytes(made, size)


cdef inline size_t members_size(const Span *members, int count) noexcept:
    cdef size_t size = 0
    cdef int i
    for i in range(count):
        size += members[i].size + (members[i].end - members[i].value) + 4  # with `"":,`
    return size


cdef inline uint8_t *put_members(uint8_t *to, const Span *members, int count) noexcept:
    """Writes members, each with a comma after it."""
    cdef size_t size
    cdef int i
    for i in range(count):
        to = put_name(to, &members[i])
        size = members[i].end - members[i].value
        memcpy(to, members[i].value, size)
        to[size] = c","
        to += size + 1
    return to


cdef inline uint8_t *put_name(uint8_t *to, const Span *member) noexcept:
    memcpy(to, member.name - 1, member.size + 2)
    to[member.size + 2] = c":"
    return to + member.size + 3


cdef enum:
    LISTED = 64     # the most members of an object whose members are placed
    SOUGHT = 16     # the most names that are sought at once
    NAMED = 32      # the most bytes of the name of an inner object, with its quotes


cdef struct Name:
    const uint8_t *text
    size_t size


cdef struct Search:
    const uint8_t *origin   # places are counted from here
    Name names[SOUGHT]
    Py_ssize_t places[2 * SOUGHT]
    uint64_t sizes          # a bit for the size of each name: most members have another size
    Name known              # an inner object whose members are known
    int outer               # the number of names that the frame's object has; the others are in its last one
    int count


def frame_members(
    bytes frame not None, tuple outer not None, tuple inner not None, bytes known not None=b"", tuple heads not None=(),
    tuple said not None=(),
):
    """See `gai_fast.kernels._pure.shapes.frame_members`."""
    cdef Reading reading
    cdef Search search
    cdef bytes name
    cdef const uint8_t *begin = <const uint8_t *>PyBytes_AS_STRING(frame)
    cdef const uint8_t *end = begin + PyBytes_GET_SIZE(frame)
    cdef const uint8_t *at = begin
    cdef uint8_t quoted[NAMED]
    cdef size_t size
    cdef int i, count = len(outer) + len(inner)
    if not outer or count > SOUGHT or len(outer[len(outer) - 1]) > NAMED - 2:
        raise ValueError(f"1 to {SOUGHT} names are sought, the object's has at most {NAMED - 2} bytes")
    name = <bytes?>outer[len(outer) - 1]
    size = PyBytes_GET_SIZE(name)
    quoted[0] = quoted[size + 1] = c'"'
    memcpy(quoted + 1, PyBytes_AS_STRING(name), size)
    if memmem(begin, end - begin, quoted, size + 2) is NULL:  # nearly all
        return ()
    if said and begins_with_one(begin, end, heads) and says_only(begin, end, said):
        return ()
    search.origin = begin
    search.outer = len(outer)
    search.count = 0
    search.sizes = 0
    for names in (outer, inner):
        for name in names:
            search.names[search.count].text = <const uint8_t *>PyBytes_AS_STRING(name)
            search.names[search.count].size = PyBytes_GET_SIZE(name)
            search.sizes |= <uint64_t>1 << (PyBytes_GET_SIZE(name) & 63)
            search.count += 1
    if end - at >= 7 and not memcmp(at, b"event: ", 7):
        at = <const uint8_t *>memchr(at, c"\n", end - at)
        at = end if at is NULL else at + 1
    if end - at < 9 or memcmp(at, b"data: {", 7) or memcmp(end - 2, b"\n\n", 2):
        return None
    if memchr(at, c"\n", end - at) != end - 2 or memchr(begin, c"\r", end - begin) is not NULL:
        return None
    for i in range(2 * count):
        search.places[i] = -1
    search.known.text = <const uint8_t *>PyBytes_AS_STRING(known)
    search.known.size = PyBytes_GET_SIZE(known)
    reading.at = at + 6
    reading.end = end
    if not place_members(&reading, &search, 0, search.outer) or reading.at != end - 2:
        return None
    at = begin + search.places[2 * search.outer - 2]
    if at < begin or at[0] != c"{":
        return ()
    if search.known.text is NULL:
        count = search.outer
    made = PyTuple_New(2 * count)
    for i in range(2 * count):
        put(made, i, search.places[i])
    return made


cdef bint begins_with_one(const uint8_t *begin, const uint8_t *end, tuple heads) except -1:
    cdef bytes head
    for head in heads:
        if PyBytes_GET_SIZE(head) <= end - begin and not memcmp(begin, PyBytes_AS_STRING(head), PyBytes_GET_SIZE(head)):
            return True
    return False


cdef bint says_only(const uint8_t *begin, const uint8_t *end, tuple said) except -1:
    """Returns whether no member has the name of one of these members, but another value. A search finds the names."""
    cdef bytes member
    cdef const uint8_t *text
    cdef const uint8_t *at
    cdef Py_ssize_t size, named
    for member in said:
        text = <const uint8_t *>PyBytes_AS_STRING(member)
        size = PyBytes_GET_SIZE(member)
        at = <const uint8_t *>memchr(text + 1, c'"', size - 1) if size else NULL
        if at is NULL:
            raise ValueError("a member's text begins with a name in quotes")
        named = at + 1 - text
        at = <const uint8_t *>memmem(begin, end - begin, text, named)
        while at is not NULL:
            if end - at < size or memcmp(at + named, text + named, size - named):
                return False
            at += 1
            at = <const uint8_t *>memmem(at, end - at, text, named)
    return True


cdef bint place_members(Reading *reading, Search *search, int first, int last) noexcept:
    """Moves over an object and places the members with names from `first` to `last`; returns False if it cannot.

    A known inner object is moved over at once, and `search.known` is set to NULL.
    """
    cdef Name seen[LISTED]
    cdef Name *name
    cdef uint64_t[4] marks = [0, 0, 0, 0]
    cdef uint64_t mark
    cdef size_t place
    cdef int count = 0, found, i
    if not took(reading, c"{"):
        return False
    if took(reading, c"}"):
        return True
    while True:
        if count == LISTED or not took(reading, c'"'):
            return False
        name = &seen[count]
        name.text = reading.at
        if gai_skip_string(&reading.at, reading.end) != GAI_COPY_DONE:
            return False
        name.size = reading.at - name.text
        reading.at += 1
        # Names with other marks differ: few are compared.
        place = name.size + 7 * name.text[0] + 13 * name.text[name.size // 2]
        mark = <uint64_t>1 << (place & 63)
        place = place >> 6 & 3
        if marks[place] & mark:
            for i in range(count):
                if is_name(&seen[i], name):
                    return False
        marks[place] |= mark
        count += 1
        if not took(reading, c":") or not is_left(reading):
            return False
        found = -1
        if search.sizes >> (name.size & 63) & 1:
            for i in range(first, last):
                if is_name(&search.names[i], name):
                    found = i
                    search.places[2 * i] = reading.at - search.origin
                    break
        if found >= 0 and found + 1 == search.outer and reading.at[0] == c"{":
            if is_known(reading, search):
                reading.at += search.known.size
                search.known.text = NULL
            elif not place_members(reading, search, search.outer, search.count):
                return False
        elif reading.at[0] == c"{" or reading.at[0] == c"[":
            if gai_skip_value(&reading.at, reading.end) != GAI_COPY_DONE:
                return False
        elif gai_skip_scalar(&reading.at, reading.end) != GAI_COPY_DONE:
            return False
        if found >= 0:
            search.places[2 * found + 1] = reading.at - search.origin
        if not took(reading, c","):
            return took(reading, c"}")


cdef inline bint is_known(const Reading *reading, const Search *search) noexcept:
    """Returns whether the known object comes next."""
    cdef size_t size = search.known.size
    return size and size <= <size_t>(reading.end - reading.at) and not memcmp(reading.at, search.known.text, size)


cdef inline bint is_name(const Name *one, const Name *other) noexcept:
    return one.size == other.size and not memcmp(one.text, other.text, one.size)


def closing_counts(bytes text not None):
    """See `gai_fast.kernels._pure.shapes.closing_counts`."""
    cdef Reading reading
    cdef const uint8_t *begin = <const uint8_t *>PyBytes_AS_STRING(text)
    cdef const uint8_t *at
    cdef const uint8_t *name_end
    reading.end = begin + PyBytes_GET_SIZE(text)
    if reading.end - begin > CLOSING:
        begin = reading.end - CLOSING
    at = reading.end
    while at > begin and (at - 1)[0] != c"{":
        at -= 1
    if at == begin:
        return None
    at -= 1
    reading.at = at
    at = before_white(begin, at)
    if at == begin or (at - 1)[0] != c":":
        return None
    at = before_white(begin, at - 1)
    if at == begin or (at - 1)[0] != c'"':
        return None
    at -= 1
    name_end = at
    while at > begin and 0x20 <= (at - 1)[0] < 0x80 and (at - 1)[0] != c'"' and (at - 1)[0] != c"\\":
        at -= 1
    if at == begin or (at - 1)[0] != c'"':
        return None
    counts = read_counts(&reading, 1)
    if counts is None or not took(&reading, c"}") or is_left(&reading):
        return None
    return name_of(at, name_end - at), counts


cdef inline const uint8_t *before_white(const uint8_t *begin, const uint8_t *at) noexcept:
    """Moves back over white space."""
    while at > begin and is_white((at - 1)[0]):
        at -= 1
    return at


# The names of counts, which the responses of all streams repeat. The size of this cache is bounded.
cdef enum:
    NAMES = 64
    NAME = 40   # the most bytes of a name

cdef list KNOWN_NAMES = [""] * NAMES


cdef str name_of(const uint8_t *name, size_t size):
    """Returns an ASCII name from the cache; if another name has its place, replaces it."""
    cdef size_t at
    if not size or size > NAME:
        return PyUnicode_DecodeASCII(<const char *>name, size, NULL)
    at = (size + name[0] + 5 * name[size // 2]) % NAMES
    known = <str>KNOWN_NAMES[at]
    if <size_t>PyUnicode_GET_LENGTH(known) != size or memcmp(PyUnicode_DATA(known), name, size):
        known = KNOWN_NAMES[at] = PyUnicode_DecodeASCII(<const char *>name, size, NULL)
    return known


# ---- requests of clients -------------------------------------------------------------------------------------------


def body_start(bytes data not None, bytes before not None, bytes after not None, bint is_whole):
    """See `gai_fast.kernels._pure.requests.body_start`."""
    cdef const char *at = PyBytes_AS_STRING(data)
    cdef const char *stop = at + PyBytes_GET_SIZE(data)
    cdef const char *digits = at + PyBytes_GET_SIZE(before)
    cdef Py_ssize_t tail = PyBytes_GET_SIZE(after)
    cdef Py_ssize_t length = 0
    if PyBytes_GET_SIZE(data) <= PyBytes_GET_SIZE(before):
        return -1
    if memcmp(at, PyBytes_AS_STRING(before), PyBytes_GET_SIZE(before)):
        return -1
    at = digits
    while at < stop and at - digits < LENGTH_DIGITS and c"0" <= at[0] <= c"9" and (length or at == digits):
        length = length * 10 + (at[0] - c"0")
        at += 1
    if at == digits or stop - at < tail or memcmp(at, PyBytes_AS_STRING(after), tail):
        return -1
    at += tail
    return at - PyBytes_AS_STRING(data) if not is_whole or stop - at == length else -1


def count_opening(bytes text not None):
    """See `gai_fast.kernels._pure.requests.count_opening`."""
    return gai_count_opening(<const uint8_t *>PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))


def timed_id(int64_t ms, bytes drawn not None):
    """See `gai_fast.kernels._pure.requests.timed_id`."""
    if PyBytes_GET_SIZE(drawn) != DRAWN:
        raise ValueError("an id has ten random bytes")
    cdef uint8_t octets[ID_OCTETS]
    cdef str made = PyUnicode_New(ID_SIZE, 127)
    cdef uint8_t *at = <uint8_t *>PyUnicode_DATA(made)
    cdef int place
    for place in range(ID_OCTETS - DRAWN - 1, -1, -1):
        octets[place] = ms & 255
        ms >>= 8
    memcpy(octets + ID_OCTETS - DRAWN, PyBytes_AS_STRING(drawn), DRAWN)
    octets[6] = 0x70 | octets[6] & 0x0F
    octets[8] = 0x80 | octets[8] & 0x3F
    for place in range(ID_OCTETS):
        if place == 4 or place == 6 or place == 8 or place == 10:
            at[0] = c"-"
            at += 1
        at[0] = HEX_DIGITS[octets[place] >> 4]
        at[1] = HEX_DIGITS[octets[place] & 15]
        at += 2
    return made
