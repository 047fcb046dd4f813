"""JSON objects of a known shape: `gai_fast/_pure/shapes.py` says what is read.

A chunk of a stream that says what most do is read in one pass, 5 thousand instructions where parsing it and looking its
members up takes 15. Whatever is unusual in it is left to those who parse.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.long cimport PyLong_FromLongLong
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF
from cpython.tuple cimport PyTuple_New, PyTuple_SET_ITEM
from cpython.unicode cimport PyUnicode_DecodeASCII
from libc.stdint cimport uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp

import orjson

from gai_fast._native.c cimport (
    GAI_COPY_DONE,
    PyUnicode_DATA,
    PyUnicode_GET_LENGTH,
    PyUnicode_IS_ASCII,
    gai_skip_blanks,
    gai_skip_count,
    gai_skip_string,
    gai_skip_text,
    gai_skip_value,
    gai_skip_word,
)
from gai_fast._pure.shapes import count_members

cdef object loads = orjson.loads

cdef enum:
    PLACES = 32     # as many members, which `count_members` makes sure of

cdef enum Kind:
    TEXT
    COUNT
    PARSED
    ANY
    OBJECT
    LIST

cdef struct Member:
    const uint8_t *name
    Py_ssize_t size
    Kind kind
    int place           # of its value, and of those in it
    int places_end
    int first           # of the members in it
    int count


cdef struct Reading:
    const uint8_t *at
    const uint8_t *end
    PyObject *values[PLACES]


cdef class Shape:
    """See `gai_fast._pure.shapes.Shape`."""

    cdef Member *_members
    cdef list _names
    cdef int _filled
    cdef int _own
    cdef int _places

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
        """Notes members, which stand in a row, and behind them those of the objects in them."""
        cdef int first = self._filled, i
        cdef Member *member
        self._filled += len(members)
        for i, (name, kind) in enumerate(members.items(), first):
            encoded = name.encode()
            self._names.append(encoded)     # keeps them
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
        """The values in the order of the description; `None`: it has another shape."""
        cdef Reading reading
        cdef int i
        cdef bint is_read = False
        if not PyUnicode_IS_ASCII(text):
            return None
        reading.at = <const uint8_t *>PyUnicode_DATA(text)  # ends with a NUL: what comes next may be looked at
        reading.end = reading.at + PyUnicode_GET_LENGTH(text)
        for i in range(self._places):
            reading.values[i] = NULL
        try:
            is_read = self.read_object(&reading, 0, self._own) and not is_left(&reading)
            return as_tuple(&reading, self._places) if is_read else None
        finally:
            forget(&reading, 0, self._places)

    cdef bint read_object(self, Reading *reading, int first, int count) except -1:
        """An object from its first byte to behind its last; False where it is none, or another one."""
        cdef int expected = 0
        cdef Member *member
        if not took(reading, c"{"):
            return False
        if took(reading, c"}"):
            return True
        while True:
            if not took(reading, c'"'):
                return False
            if not self.read_name(reading, first, count, &expected, &member) or not took(reading, c":"):
                return False
            if gai_skip_blanks(&reading.at, reading.end) != GAI_COPY_DONE:
                return False
            if member is NULL:
                if gai_skip_word(&reading.at, reading.end, "null", 4) != GAI_COPY_DONE:
                    return False
            elif not self.read_member(reading, member):
                return False
            if not took(reading, c","):
                return took(reading, c"}")

    cdef bint read_name(self, Reading *reading, int first, int count, int *expected, Member **member) noexcept:
        """A name up to behind its closing quote, and which member it means: NULL, none of them."""
        cdef const uint8_t *name = reading.at
        cdef Member *next_one = &self._members[first + expected[0]]
        cdef Py_ssize_t size = reading.end - name
        cdef int i
        # Most members come in the order of the description.
        if size > next_one.size and name[next_one.size] == c'"' and not memcmp(next_one.name, name, next_one.size):
            reading.at += next_one.size + 1
            member[0] = next_one
            expected[0] += 1 if expected[0] + 1 < count else -expected[0]
            return True
        if gai_skip_string(&reading.at, reading.end) != GAI_COPY_DONE:
            return False
        size = reading.at - name
        reading.at += 1
        member[0] = NULL
        for i in range(count):
            next_one = &self._members[first + i]
            if next_one.size == size and not memcmp(next_one.name, name, size):
                member[0] = next_one
                expected[0] = i + 1 if i + 1 < count else 0
                break
        return True

    cdef bint read_member(self, Reading *reading, Member *member) except -1:
        cdef const uint8_t *begin = reading.at
        cdef bint is_null = begin[0] == c"n" and gai_skip_word(&reading.at, reading.end, "null", 4) == GAI_COPY_DONE
        forget(reading, member.place, member.places_end)  # of two with one name the last counts
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
        if begin[0] != c"{" or gai_skip_value(&reading.at, reading.end) != GAI_COPY_DONE:
            return False
        return keep_parsed(reading, place, begin)


cdef bint took(Reading *reading, uint8_t c) noexcept:
    """Whether this comes next, perhaps behind blanks; it is behind then."""
    if reading.at[0] != c and (gai_skip_blanks(&reading.at, reading.end) != GAI_COPY_DONE or reading.at[0] != c):
        return False
    reading.at += 1
    return True


cdef bint is_left(Reading *reading) noexcept:
    """Whether there is more than blanks."""
    gai_skip_blanks(&reading.at, reading.end)
    return reading.at != reading.end


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
    """Keeps what stands from here up to where the reading is; False where that is no JSON to a parser."""
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
    cdef object value
    made = PyTuple_New(places)
    for i in range(places):
        value = None if reading.values[i] is NULL else <object>reading.values[i]
        Py_INCREF(value)
        PyTuple_SET_ITEM(made, i, value)
    return made
