"""Functions that append to a `gai_buffer`, and functions that make bytes objects without a copy."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF

from gai_fast.kernels._native.c cimport gai_append, gai_buffer, gai_reserve


cdef extern from "Python.h":
    # Makes a bytes object that is filled before other code gets a reference, so its content need not be copied.
    PyObject *new_bytes "PyBytes_FromStringAndSize"(const char *data, Py_ssize_t size) except NULL
    char *bytes_memory "PyBytes_AS_STRING"(PyObject *made) noexcept
    int resize_bytes "_PyBytes_Resize"(PyObject **made, Py_ssize_t size) except -1  # sets `made` to NULL if it fails


cdef inline int reserve(gai_buffer *out, size_t room) except -1:
    if gai_reserve(out, room) < 0:
        raise MemoryError
    return 0


cdef inline int append(gai_buffer *out, const void *data, size_t size) except -1:
    if gai_append(out, data, size) < 0:
        raise MemoryError
    return 0


cdef inline bytes finished_bytes(PyObject *made, Py_ssize_t size):
    """Cuts an object of `new_bytes` to its first `size` bytes and returns it; steals the reference."""
    resize_bytes(&made, size)
    result = <bytes>made
    Py_DECREF(result)
    return result


cdef inline int append_bytes(gai_buffer *out, bytes data) except -1:
    return append(out, <const char *>data, len(data))


cdef inline bytes part(bytes whole, size_t at, size_t end):
    """Returns a part of the bytes, unchecked. For `whole[at:end]` Cython would make three more Python objects."""
    if at == 0 and end == <size_t>PyBytes_GET_SIZE(whole):
        return whole
    return PyBytes_FromStringAndSize(PyBytes_AS_STRING(whole) + at, end - at)
