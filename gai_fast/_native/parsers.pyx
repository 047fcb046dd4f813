"""Bytes → SSE events, SSE blocks and NDJSON lines: `gai_fast/_pure/parsers.py` is the specification."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_CheckBuffer, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.object cimport PyObject
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport uint8_t
from libc.string cimport memchr, memcmp, memmove

import orjson

from gai_fast._native.buffer cimport append
from gai_fast._native.c cimport (
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
    gai_use_loops,
)
from gai_fast._native.simd cimport in_use
from gai_fast._pure import faults
from gai_fast._pure import parsers as pure
from gai_fast._pure.jsontext import LONG_DIGITS
from gai_fast.limits import LIMITS

cdef extern from "Python.h":
    ctypedef struct PyTypeObject:
        object (*tp_new)(type kind, object positional, PyObject *named)

gai_use_loops(in_use())

cdef object loads = orjson.loads
cdef object JSONDecodeError = orjson.JSONDecodeError
cdef object Frame = pure.Frame
cdef object SSEEvent = pure.SSEEvent
cdef object LIMIT = LIMITS.event
cdef size_t KEPT = LIMITS.encoder_capacity  # a parser between two events holds no more memory than this
cdef size_t DEPTH = LIMITS.arguments_depth
cdef size_t DIGITS = LONG_DIGITS
cdef size_t RETRY_DIGITS = LIMITS.retry_digits


cdef inline str decode(const uint8_t *data, size_t size):
    return PyUnicode_DecodeUTF8(<const char *>data, size, "replace")


cdef inline object new_named(object kind, tuple values):
    """A named tuple of the pure module's own class, as `kind._make` makes one."""
    return (<PyTypeObject *>tuple).tp_new(<type>kind, (values,), NULL)


cdef class _Feed:
    """Bytes in, lines cut, items out. See `gai_fast._pure.parsers`."""

    def __cinit__(self):
        gai_borrow(&self._held, NULL, 0)
        self._first = True

    def __init__(self, limit=LIMIT):
        if self._feeding:
            raise faults.fed_within_feed()
        self._limit = limit
        self.reset()

    def __dealloc__(self):
        gai_release(&self._held)

    def feed(self, data):
        """Takes the next bytes; returns what is complete now."""
        cdef Py_buffer view
        cdef list items = []
        cdef bint is_well = False
        if self._feeding:
            raise faults.fed_within_feed()
        if not PyObject_CheckBuffer(data):
            raise faults.not_bytes(data)
        try:
            PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        except BufferError:
            raise faults.not_bytes(data) from None
        self._feeding = True
        try:
            if self._broken is not None:
                raise faults.FeedError(self._broken)
            self.look_at(<const uint8_t *>view.buf, view.len)
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
                # Bytes are missing, as there was no memory for them: what comes next is not what follows.
                self.refuse(faults.feed_failed())
            self._feeding = False
            PyBuffer_Release(&view)
        return items

    cdef int look_at(self, const uint8_t *chunk, size_t size) except -1:
        """Points at what was held and the chunk behind it, in one piece."""
        if self._held.size:
            append(&self._held, chunk, size)
            self._data = self._held.data
            self._size = self._held.size
        else:
            self._data = chunk
            self._size = size
        return 0

    cdef int keep_rest(self) except -1:
        """Holds what is still needed and drops what lies before the mark."""
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
        """A limit was passed: nothing more is read."""
        self.reset()
        self._broken = str(fault)
        return fault

    cdef int drop_mark(self, const uint8_t **line, size_t *size) noexcept:
        """A byte order mark at the very start is no part of the first line."""
        if self._first:
            self._first = False
            if size[0] >= 3 and memcmp(line[0], b"\xef\xbb\xbf", 3) == 0:
                line[0] += 3
                size[0] -= 3
        return 0

    cdef bint look_at_rest(self, const uint8_t **line, size_t *size) noexcept:
        """At the end of the input: the unfinished line, if there is one."""
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
    """The SSE grammar: lines, fields, blocks. See `gai_fast._pure.parsers`."""

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
        """Copies the only data line: another one follows, or its memory goes."""
        if self._value is not NULL:
            append(&self._values, self._value, self._value_size)
            self._value = NULL
        return 0

    cdef int take_lines(self, list items) except -1:
        """The loop of `_Feed`, without a call for each of its steps: 40 ns an event instead of 65."""
        cdef const uint8_t *line
        cdef size_t begin, end, size
        if self._late_lf and self._start < self._size:
            # The LF of a CRLF whose CR ended a line in an earlier read.
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
                # A CR ends the line at once: waiting for a LF would hold an event back until the next one comes.
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
    """An incremental EventSource parser (WHATWG HTML 9.2.6). See `gai_fast._pure.parsers.SSEParser`."""

    def __cinit__(self):
        self._last_event_id = ""

    @property
    def retry(self):
        """Milliseconds of the last valid `retry:`, from its line on."""
        return self._retry

    @property
    def last_event_id(self):
        """The last id a blank line has confirmed."""
        return self._last_event_id

    def close(self, lenient=False):
        """Ends the input; `lenient`: an unfinished last event counts. WHATWG drops it."""
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
            items.append(new_named(SSEEvent, (name, self.joined_data(), self._id)))
        return 0


cdef class SSEFramer(_SSEFeed):
    """Cuts an SSE stream into blocks and keeps their bytes. See `gai_fast._pure.parsers.SSEFramer`."""

    def __cinit__(self):
        self._keeps_raw = True

    def close(self):
        """Ends the input: the unfinished rest, if there is any, as a last frame."""
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
        items.append(new_named(Frame, (raw, self._name, self.joined_data(), stray)))
        return 0


# ---- NDJSON --------------------------------------------------------------------------------------------------------


cdef class _LineFeed(_Feed):
    """Lines of NDJSON. See `gai_fast._pure.parsers`."""

    cdef int reset(self) except -1:
        self._number = 1
        return _Feed.reset(self)

    cdef int take_lines(self, list items) except -1:
        cdef const uint8_t *line
        cdef const uint8_t *found
        cdef size_t begin, end, size
        while self._size:  # there is something to search in
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
    """Reads one JSON value a line. See `gai_fast._pure.parsers.NDJSONParser`."""

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
    """Cuts NDJSON into lines and keeps their bytes. See `gai_fast._pure.parsers.LineFramer`."""

    cdef int end_line(self, const uint8_t *line, size_t size, size_t number, list items) except -1:
        raw = PyBytes_FromStringAndSize(<const char *>self._data + self._line_begin, self._start - self._line_begin)
        items.append(new_named(Frame, (raw, "", decode(line, size) if size else None, None)))
        return 0
