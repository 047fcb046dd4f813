"""The way of a read that brings nothing but frames that are copied: `gai_fast/_pure/shortcut.py` says what it must equal.

A token that comes alone costs what its read and its write cost in the kernel, and what the code in between evicts from
the caches: 7 us of CPU where each part of the stream was called, 2 where one function does it all.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.time cimport perf_counter
from libc.stdint cimport uint8_t

from gai_fast._native.chunked cimport END, ChunkedBody, whole_chunk
from gai_fast._native.relay cimport DeltaCopier
from gai_fast._native.traffic cimport Traffic

cdef enum:
    BRIEF = 4096        # bytes that most reads become less than; longer ones cost an allocation
    PLAIN_OVERHEAD = 32  # what stands between two chunks: the end of a line, a size of 15 digits
    READ = 4            # what a turn keeps of one


cdef class Shortcut:
    """See `gai_fast._pure.shortcut.Shortcut`."""

    cdef DeltaCopier _copier
    cdef object _send
    cdef object _now_ms
    cdef Traffic _traffic
    cdef long long _seq
    cdef long long _deltas
    cdef double _ended
    cdef public ChunkedBody chunks
    cdef readonly double at
    cdef readonly double wrote_at

    def __init__(self, DeltaCopier copier not None, send, now_ms, Traffic traffic not None):
        self._copier = copier
        self._send = send
        self._now_ms = now_ms
        self._traffic = traffic

    def follow(self, long long seq, long long deltas):
        """The long way has been taken up to here."""
        self._seq = seq
        self._deltas = deltas

    def feed(self, bytes data not None, double now):
        """What one read brought; what of it must take the long way."""
        if self.chunks is None:
            raise ValueError("this shortcut is closed")
        return self.take(data, now, perf_counter())

    cdef bytes take(self, bytes data, double now, double began):
        """As `feed`, where there are `chunks`, of a read whose handling began then; it ends at `_ended`."""
        cdef uint8_t[BRIEF] brief
        cdef DeltaCopier copier = self._copier
        cdef ChunkedBody chunks = self.chunks
        cdef const uint8_t *begin = <const uint8_t *>PyBytes_AS_STRING(data)
        cdef const uint8_t *end = begin + PyBytes_GET_SIZE(data)
        cdef const uint8_t *only
        cdef size_t size, copied, said
        cdef bytes body, written, held = copier._held
        cdef Py_ssize_t ahead = PyBytes_GET_SIZE(held)  # of the body, but no bytes of this read
        cdef bint is_all, is_well = False
        self.at = now
        only = whole_chunk(begin, end, &size) if chunks.is_between() and not ahead else NULL
        if only is not NULL and only + size + 2 == end:
            chunks.skip_whole()
            copier.look_at(data, only - begin, only - begin + size)
        else:
            body = chunks.take_apart(data, 0, held)
            copier._held = b""
            if chunks.broken or chunks._state == END or chunks.overhead > PLAIN_OVERHEAD:
                # There is something to say about these bytes beside their contents.
                self.note(began, -ahead)
                return body
            size = PyBytes_GET_SIZE(body)
            copier.look_at(body, 0, size)
        copier.lend(brief, BRIEF)
        try:
            is_all = copier.copy_all(self._seq, self._now_ms() if copier._is_timed else 0)
            if not is_all:
                copier.keep()
            is_well = True
        finally:
            if not is_well:
                copier.copied = 0
                copier.drop()
        if not is_all:
            body = copier.unload()
            self.note(began, <Py_ssize_t>size - ahead - PyBytes_GET_SIZE(body))
            return body
        copied = copier.copied
        if copied:
            self._seq += copied
            self._deltas += copied
            written = copier.take_chunk(&said)
            copier.unload()
            self._traffic.sent += said
            self._send(written)
            self.wrote_at = now
        else:
            copier.unload()
        self.note(began, <Py_ssize_t>size - ahead)
        return None

    cdef int note(self, double began, Py_ssize_t size) except -1:
        """A read, or the part of one that went this way."""
        self._ended = perf_counter()
        self._traffic.note(began, self._ended, size, self._deltas)
        return 0


cdef class Turn:
    """See `gai_fast._pure.shortcut.Turn`; what is still to go through its shortcut is not handed to its reader first."""

    cdef object _call_soon
    cdef object _clock
    cdef list _reads    # of each its reader, exchange, shortcut and data

    def __init__(self, call_soon, clock):
        self._call_soon = call_soon
        self._clock = clock
        self._reads = []

    def add(self, reader, exchange, Shortcut shortcut not None, bytes data not None):
        """A connection has read this for an exchange."""
        cdef list reads = self._reads
        if not reads:
            self._call_soon(self._handle)
        reads.append(reader)
        reads.append(exchange)
        reads.append(shortcut)
        reads.append(data)

    def _handle(self):
        cdef list reads = self._reads
        cdef Py_ssize_t at = 0, end = len(reads)
        cdef double now = self._clock(), ended = perf_counter()
        cdef Shortcut shortcut
        cdef bytes rest
        cdef bint is_well
        self._reads = []
        try:
            while at < end:
                at += READ
                shortcut = <Shortcut>reads[at - 2]
                if shortcut.chunks is None:
                    reads[at - 4].handle(reads[at - 3], <bytes>reads[at - 1], now)
                    ended = perf_counter()
                    continue
                is_well = False
                try:
                    rest = shortcut.take(<bytes>reads[at - 1], now, ended)
                    ended = shortcut._ended
                    is_well = True
                finally:
                    if not is_well:
                        reads[at - 4].drop()
                if rest is not None:
                    reads[at - 4].handle_rest(reads[at - 3], rest, now)
                    ended = perf_counter()
        finally:
            if at < end:
                self._reads = reads[at:] + self._reads
                self._call_soon(self._handle)
