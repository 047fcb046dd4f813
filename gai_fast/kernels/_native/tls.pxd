"""The fields of `TLSRecords`, for the fast path, which reads them."""

from gai_fast.kernels._native.openssl cimport gai_bio, gai_source, gai_ssl


cdef class TLSRecords:
    cdef object _connection     # the connection of `ssl`, which keeps `_ssl` alive
    cdef object _incoming
    cdef object _sock
    cdef gai_ssl *_ssl
    cdef gai_bio *_bio          # reads `_source`; NULL before `open`
    cdef gai_source _source     # the bytes of the socket's read that OpenSSL has not read yet
    cdef size_t _held           # the most bytes of an incomplete record that OpenSSL holds
    cdef int _descriptor
    cdef readonly bint is_full  # see `kernels/_pure/tls_records.py`
    cdef readonly bint has_ended
    cdef readonly object problem

    cdef bint is_noteworthy(self) noexcept
    cdef bytes take(self)
    cdef bytes text(self, const char *data, size_t size)
