"""JSON text: `gai_fast/_pure/jsontext.py` is the specification.

The writer knows the exact types that `json` makes, and `JSONText`. All else returns 0 and is the pure function's, so
that what is refused is refused in one place and with one text.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.long cimport PyLong_AsLongLongAndOverflow
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.math cimport isfinite
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memchr

import orjson

from gai_fast._native.buffer cimport append, append_bytes, reserve
from gai_fast._native.c cimport (
    GAI_ESCAPE_ROOM,
    GAI_INTEGER_ROOM,
    PyUnicode_1BYTE_KIND,
    PyUnicode_2BYTE_KIND,
    PyUnicode_DATA,
    PyUnicode_GET_LENGTH,
    PyUnicode_IS_ASCII,
    PyUnicode_KIND,
    gai_borrow,
    gai_escape_utf8,
    gai_escape_ucs1,
    gai_escape_ucs2,
    gai_escape_ucs4,
    gai_outline,
    gai_outline_json,
    gai_put,
    gai_put_integer,
    gai_release,
    gai_reserve,
    gai_use_loops,
)
from gai_fast._native.simd cimport in_use
from gai_fast._pure import faults
from gai_fast._pure import jsontext as pure
from gai_fast.events import JSONText
from gai_fast.limits import LIMITS

gai_use_loops(in_use())

cdef size_t DEPTH = LIMITS.arguments_depth
cdef size_t DIGITS = pure.LONG_DIGITS
cdef object dumps = orjson.dumps
cdef object loads = orjson.loads
cdef object JSONDecodeError = orjson.JSONDecodeError


def escape(text):
    r"""The JSON string that says the text, with its quotes, in UTF-8. See `gai_fast._pure.jsontext.escape`."""
    cdef gai_buffer out
    cdef uint8_t[512] memory
    if not isinstance(text, str):
        raise faults.not_text("text", text)
    gai_borrow(&out, memory, sizeof(memory))
    try:
        write_string(&out, <str>text)
        return PyBytes_FromStringAndSize(<char *>out.data, out.size)
    finally:
        gai_release(&out)


def encode_json(value):
    """The value as canonical JSON. See `gai_fast._pure.jsontext.encode_json`."""
    cdef gai_buffer out
    cdef uint8_t[512] memory
    gai_borrow(&out, memory, sizeof(memory))
    try:
        if write_value(&out, value, 0):
            return PyBytes_FromStringAndSize(<char *>out.data, out.size)
    finally:
        gai_release(&out)
    return pure.encode_json(value)


def compact_json(text):
    """The JSON text without white space outside its strings. See `gai_fast._pure.jsontext.compact_json`."""
    cdef gai_outline outline
    if look_over(text, &outline) and not outline.blanks:
        try:
            loads(text)
            return text
        except JSONDecodeError:
            pass
    return pure.compact_json(text)


def parse_exact(text):
    """The value that a JSON text says, integers exact. See `gai_fast._pure.jsontext.parse_exact`."""
    cdef gai_outline outline
    if look_over(text, &outline):
        try:
            return loads(text)
        except JSONDecodeError:
            pass
    return pure.parse_exact(text)


cdef bint look_over(object text, gai_outline *outline) except -1:
    """Whether orjson reads the text, if it is valid, as the pure function does."""
    cdef Py_ssize_t size = 0
    cdef const char *utf8
    if type(text) is not str:
        return False
    try:
        utf8 = PyUnicode_AsUTF8AndSize(text, &size)
    except UnicodeEncodeError:
        return False
    outline[0] = gai_outline_json(<const uint8_t *>utf8, size, DIGITS)
    return not outline.long_digits and outline.depth <= DEPTH


cdef extern from *:
    """
    /* The UTF-8 of a str that somebody has asked for before, which CPython keeps; NULL where nobody has. */
    static const char *gai_known_utf8(PyObject *text, Py_ssize_t *size) {
        if (PyUnicode_IS_COMPACT_ASCII(text)) {
            *size = PyUnicode_GET_LENGTH(text);
            return (const char *)PyUnicode_DATA(text);
        }
        *size = ((PyCompactUnicodeObject *)text)->utf8_length;
        return ((PyCompactUnicodeObject *)text)->utf8;
    }
    """
    const char *gai_known_utf8(object text, Py_ssize_t *size)


cdef int put_string(gai_buffer *out, str text) noexcept:
    cdef Py_ssize_t size = 0
    cdef const uint8_t *utf8 = <const uint8_t *>gai_known_utf8(text, &size)
    cdef size_t length = size if utf8 is not NULL else PyUnicode_GET_LENGTH(text), done = 0
    cdef const void *data = PyUnicode_DATA(text)
    cdef int kind = PyUnicode_KIND(text)
    cdef uint8_t *at
    cdef uint8_t *end
    # One byte a character, the quotes, and the room a step asks for: enough for what needs no escape. The rest grows.
    if gai_reserve(out, length + GAI_ESCAPE_ROOM + 2) < 0:
        return -1
    gai_put(out, b'"', 1)
    while True:
        at = out.data + out.size
        end = out.data + out.capacity
        if utf8 is not NULL:
            done += gai_escape_utf8(&at, end, utf8 + done, length - done)
        elif kind == PyUnicode_1BYTE_KIND:
            done += gai_escape_ucs1(&at, end, <const uint8_t *>data + done, length - done)
        elif kind == PyUnicode_2BYTE_KIND:
            done += gai_escape_ucs2(&at, end, <const uint16_t *>data + done, length - done)
        else:
            done += gai_escape_ucs4(&at, end, <const uint32_t *>data + done, length - done)
        out.size = at - out.data
        if gai_reserve(out, length - done + GAI_ESCAPE_ROOM + 1) < 0:
            return -1
        if done == length:
            gai_put(out, b'"', 1)
            return 0


cdef int write_string(gai_buffer *out, str text) except -1:
    if put_string(out, text) < 0:
        raise MemoryError
    return 0


cdef int write_value(gai_buffer *out, object value, size_t depth) except -1:
    cdef int overflow = 0
    cdef long long integer
    cdef type kind = type(value)
    if kind is str:
        write_string(out, <str>value)
    elif kind is int:
        integer = PyLong_AsLongLongAndOverflow(value, &overflow)
        if overflow:
            return 0
        reserve(out, GAI_INTEGER_ROOM)
        out.size = gai_put_integer(out.data + out.size, integer) - out.data
    elif kind is dict:
        return write_dict(out, value, depth)
    elif kind is list:
        return write_list(out, value, depth)
    elif value is None:
        append(out, b"null", 4)
    elif value is True:
        append(out, b"true", 4)
    elif value is False:
        append(out, b"false", 5)
    elif kind is float:
        if not isfinite(<double>value):
            return 0
        append_bytes(out, dumps(value))
    elif kind is JSONText:
        return write_verbatim(out, value.text)
    elif kind is tuple:
        return write_list(out, list(value), depth)
    else:
        return 0
    return 1


cdef int write_dict(gai_buffer *out, dict value, size_t depth) except -1:
    cdef bint first = True
    if depth >= DEPTH:
        return 0
    append(out, b"{", 1)
    for key, item in value.items():
        if type(key) is not str:
            return 0
        if not first:
            append(out, b",", 1)
        first = False
        write_string(out, <str>key)
        append(out, b":", 1)
        if not write_value(out, item, depth + 1):
            return 0
    append(out, b"}", 1)
    return 1


cdef int write_list(gai_buffer *out, list value, size_t depth) except -1:
    cdef bint first = True
    if depth >= DEPTH:
        return 0
    append(out, b"[", 1)
    for item in value:
        if not first:
            append(out, b",", 1)
        first = False
        if not write_value(out, item, depth + 1):
            return 0
    append(out, b"]", 1)
    return 1


cdef int write_verbatim(gai_buffer *out, object text) except -1:
    cdef bytes written
    cdef const uint8_t *data
    cdef size_t size
    if type(text) is not str:
        return 0
    if PyUnicode_IS_ASCII(text):
        data = <const uint8_t *>PyUnicode_DATA(text)
        size = PyUnicode_GET_LENGTH(text)
        written = None
    else:
        try:
            written = (<str>text).encode("utf-8")
        except UnicodeEncodeError:
            return 0
        data = <const uint8_t *><const char *>written
        size = len(written)
    # A line end would end the frame: the pure function refuses it.
    if memchr(data, c"\n", size) != NULL or memchr(data, c"\r", size) != NULL:
        return 0
    append(out, data, size)
    return 1
