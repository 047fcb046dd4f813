"""One growing buffer that Python can look at without a copy."""

from cpython.buffer cimport PyBuffer_FillInfo

from gai_fast._native.c cimport gai_borrow, gai_release


cdef class WriteBuffer:
    """Memory of an encoder; `memoryview` gives what is written, read-only."""

    def __cinit__(self, size_t keep):
        gai_borrow(&self.bytes, NULL, 0)
        self.keep = keep
        reserve(&self.bytes, keep)

    def __dealloc__(self):
        gai_release(&self.bytes)

    def __getbuffer__(self, Py_buffer *view, int flags):
        PyBuffer_FillInfo(view, self, self.bytes.data, self.bytes.size, 1, flags)
        self.exports += 1

    def __releasebuffer__(self, Py_buffer *view):
        self.exports -= 1
