"""The way of a read that brings nothing but frames that are copied: `gai_fast/_pure/relay.py` says what it must equal.

A token that comes alone costs what its read and its write cost in the kernel, and what the code in between evicts from
the caches: 7 us of CPU where each part of the stream was called, 2 where one function does it all.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.time cimport perf_counter
from libc.stdint cimport uint8_t

from gai_fast._native.chunked cimport END, ChunkedBody, whole_chunk
from gai_fast._native.relay cimport DeltaCopier

cdef enum:
    PLAIN_OVERHEAD = 32  # what stands between two chunks: the end of a line, a size of 15 digits
    READS = 16      # told to the meter together: it is called as if each were, but with warm caches


cdef struct Read:
    double began
    double ended
    Py_ssize_t size     # less what takes the long way, which may have begun in the read before
    long long deltas


cdef class Shortcut:
    """See `gai_fast._pure.relay.Shortcut`."""

    cdef DeltaCopier _copier
    cdef object _send
    cdef object _now_ms
    cdef object _meter
    cdef long long _seq
    cdef long long _deltas
    cdef size_t _sent
    cdef int _reads
    cdef Read[READS] _read
    cdef readonly double at
    cdef readonly double wrote_at

    def __init__(self, DeltaCopier copier not None, send, now_ms, meter):
        self._copier = copier
        self._send = send
        self._now_ms = now_ms
        self._meter = meter

    def follow(self, long long seq, long long deltas):
        """The long way has been taken up to here."""
        self._seq = seq
        self._deltas = deltas

    def feed(self, bytes data not None, ChunkedBody chunks not None, double now):
        """What one read brought; what of it must take the long way."""
        cdef double began = perf_counter()
        cdef const uint8_t *begin = <const uint8_t *>PyBytes_AS_STRING(data)
        cdef const uint8_t *end = begin + PyBytes_GET_SIZE(data)
        cdef const uint8_t *only
        cdef size_t size, copied, said
        cdef bytes body, written, held = self._copier._held
        cdef Py_ssize_t ahead = PyBytes_GET_SIZE(held)  # of the body, but no bytes of this read
        self.at = now
        only = whole_chunk(begin, end, &size) if chunks.is_between() and not ahead else NULL
        if only is not NULL and only + size + 2 == end:
            chunks.skip_whole()
            self._copier.look_at(data, only - begin, only - begin + size)
        else:
            body = chunks.take_apart(data, 0, held)
            self._copier._held = b""
            if chunks.broken or chunks._state == END or chunks.overhead > PLAIN_OVERHEAD:
                # There is something to say about these bytes beside their contents.
                self.note(began, -ahead)
                return body
            size = PyBytes_GET_SIZE(body)
            self._copier.look_at(body, 0, size)
        if not self._copier.copy_all(self._seq, self._now_ms() if self._copier._is_timed else 0):
            body = self._copier.unload()
            self.note(began, <Py_ssize_t>size - ahead - PyBytes_GET_SIZE(body))
            return body
        copied = self._copier.copied
        if copied:
            self._seq += copied
            self._deltas += copied
            written = self._copier.take_chunk(&said)
            self._copier.unload()
            self._sent += said
            self._send(written)
        else:
            self._copier.unload()
        self.note(began, <Py_ssize_t>size - ahead)
        if copied:
            self.wrote_at = now
        return None

    cdef int note(self, double began, Py_ssize_t size) except -1:
        """A read, or the part of one that went this way."""
        if self._reads == READS:
            self.settle()
        self._read[self._reads] = Read(began, perf_counter(), size, self._deltas)
        self._reads += 1
        return 0

    def settle(self):
        """Tells the meter of the reads since the last call."""
        cdef int i, reads = self._reads
        cdef size_t sent = self._sent
        self._reads = 0
        self._sent = 0
        for i in range(reads):
            self._meter.read(self._read[i].began, self._read[i].ended, self._read[i].size, self._read[i].deltas)
        if sent:
            self._meter.wrote(sent)
