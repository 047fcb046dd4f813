"""The way of a read that brings nothing but frames that are copied: `gai_fast/_pure/fast_path.py` says what it must equal.

A token that comes alone costs what its read and its write cost in the kernel, and what the code in between evicts from
the caches: 7 us of CPU where each part of the stream was called, 2 where one function does it all, 1.3 where that reads
and writes the sockets itself. The loop calls its transports one by one, takes the interpreter's lock for each, and
looks up ten objects that lie anywhere; what is lent is a number beside what the copier needs.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport Py_DECREF, Py_INCREF
from cpython.time cimport perf_counter
from libc.errno cimport EAGAIN
from libc.stdint cimport uint8_t
from libc.string cimport strerror

from gai_fast._native.c cimport (
    GAI_CAN_WATCH,
    GAI_READY,
    gai_close_set,
    gai_forget,
    gai_open_set,
    gai_ready,
    gai_receive,
    gai_send,
    gai_take_ready,
    gai_watch,
)
from gai_fast._native.chunked cimport END, ChunkedBody, whole_chunk
from gai_fast._native.relay cimport DeltaCopier
from gai_fast._native.counters cimport StreamCounters

cdef enum:
    BRIEF = 4096        # bytes that most reads become less than; longer ones cost an allocation
    PLAIN_OVERHEAD = 32  # what stands between two chunks: the end of a line, a size of 15 digits
    READ = 4            # what a turn keeps of one
    STEADY = 4          # reads in a row that left nothing: a socket is borrowed: system calls once, 1 us less a read
    REFUSED = 64        # further reads until a connection is asked again that lent none
    ROOM = 65536        # bytes of one read, as much as the loops take

cdef char[ROOM] INPUT   # filled and emptied without anything in between that could let another thread run


@cython.final
cdef class FastPath:
    """See `gai_fast._pure.fast_path.FastPath`."""

    cdef DeltaCopier _copier
    cdef object _outlet
    cdef object _send
    cdef object _now_ms
    cdef StreamCounters _counters
    cdef long long _seq
    cdef long long _deltas
    cdef double _ended
    cdef ReadBatch _batch         # which reads the upstream's socket; None: its connection does
    cdef object _reader     # who has lent that
    cdef object _exchange   # for whom
    cdef int _in            # the upstream's socket, or -1
    cdef int _out           # the client's socket where it is lent, too, or -1
    cdef int _steady        # reads in a row of which nothing was left
    cdef public ChunkedBody chunks
    cdef readonly double at
    cdef readonly double wrote_at

    def __cinit__(self, DeltaCopier copier not None, outlet, now_ms, StreamCounters counters not None):
        self._copier = copier
        self._outlet = outlet
        self._send = outlet.write
        self._now_ms = now_ms
        self._counters = counters
        self._in = self._out = -1

    def follow(self, long long seq, long long deltas):
        """The long way has been taken up to here."""
        self._seq = seq
        self._deltas = deltas

    def end_reading(self):
        """The upstream's connection reads its socket itself from now on."""
        if self._batch is not None:
            self._batch.give_back(self)

    def end_writing(self):
        """The client's connection writes to its socket itself from now on."""
        self._out = -1

    def feed(self, bytes data not None, double now):
        """What one read brought; what of it must take the long way."""
        if self.chunks is None:
            raise ValueError("this fast path is closed")
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
            self._counters.sent += said
            if self._out >= 0:
                written = self.put(written)
            if written is not None:
                self._send(written)
                if self._batch is not None:
                    self._out = self._outlet.lend(self)
            self.wrote_at = now
        else:
            copier.unload()
        self.note(began, <Py_ssize_t>size - ahead)
        return None

    cdef bytes put(self, bytes data):
        """Writes to the client's socket; what that does not take is left to its connection, as whatever follows."""
        cdef Py_ssize_t sent = gai_send(self._out, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        if sent == PyBytes_GET_SIZE(data):
            return None
        self._out = -1
        return data[sent:]

    cdef int note(self, double began, Py_ssize_t size) except -1:
        """A read, or the part of one that went this way."""
        self._ended = perf_counter()
        self._counters.note(began, self._ended, size, self._deltas)
        return 0


@cython.final
cdef class ReadBatch:
    """See `gai_fast._pure.fast_path.ReadBatch`; what is still to go through its fast path is not handed to its reader first."""

    cdef object _loop
    cdef object _clock
    cdef list _reads    # of each its reader, exchange, fast path and data
    cdef int _set       # of the sockets that are lent, or -1
    cdef set _lent      # whose they are: the system remembers these, and keeps none of them alive

    def __cinit__(self, loop, clock):
        self._set = -1
        self._loop = loop
        self._clock = clock
        self._reads = []
        self._lent = set()

    def __dealloc__(self):
        if self._set >= 0:
            gai_close_set(self._set)

    def add(self, reader, exchange, FastPath fast_path not None, bytes data not None):
        """A connection has read this for an exchange."""
        cdef list reads = self._reads
        if not reads:
            self._loop.call_soon(self._handle)
        reads.append(reader)
        reads.append(exchange)
        reads.append(fast_path)
        reads.append(data)

    def close(self):
        """Gives back what is lent, and reads nothing more."""
        for fast_path in tuple(self._lent):
            (<FastPath>fast_path)._reader.take_back()
        if self._set >= 0:
            self._loop.remove_reader(self._set)
            gai_close_set(self._set)
            self._set = -1

    def _handle(self):
        """The reads of the turn."""
        cdef list reads = self._reads
        cdef Py_ssize_t at = 0, end = len(reads)
        cdef double now, ended
        cdef FastPath fast_path
        cdef bytes rest
        cdef bint is_well
        self._reads = []
        try:
            now = self._clock()
            ended = perf_counter()
            while at < end:
                at += READ
                fast_path = <FastPath>reads[at - 2]
                if fast_path.chunks is None:
                    reads[at - 4].handle(reads[at - 3], <bytes>reads[at - 1], now)
                    ended = perf_counter()
                    continue
                is_well = False
                try:
                    rest = fast_path.take(<bytes>reads[at - 1], now, ended)
                    ended = fast_path._ended
                    is_well = True
                finally:
                    if not is_well:
                        reads[at - 4].drop()
                if rest is not None:
                    fast_path._steady = 0
                    reads[at - 4].handle_rest(reads[at - 3], rest, now)
                    ended = perf_counter()
                elif fast_path._batch is None:
                    fast_path._steady += 1
                    if fast_path._steady == STEADY:
                        self.borrow(reads[at - 4], reads[at - 3], fast_path)
        finally:
            if at < end:
                self._reads = reads[at:] + self._reads
                self._loop.call_soon(self._handle)

    def _read(self):
        """Reads all borrowed sockets that have something before any of it is handled."""
        cdef gai_ready[GAI_READY] ready
        cdef int i, count = gai_take_ready(self._set, ready)
        # A callback of one may give others back, and let go of them.
        for i in range(count):
            Py_INCREF(<FastPath>ready[i].whose)
        try:
            self.receive_all(ready, count)
        finally:
            for i in range(count):
                Py_DECREF(<FastPath>ready[i].whose)
            self._handle()

    cdef int receive_all(self, gai_ready *ready, int count) except -1:
        """Reads each of them. Where one raises the others are read all the same: epoll does not name them again."""
        cdef int i = 0
        try:
            while i < count:
                i += 1
                self.receive(<FastPath>ready[i - 1].whose, ready[i - 1].ends)
        finally:
            if i < count:
                self.receive_all(ready + i, count - i)

    cdef int receive(self, FastPath fast_path, bint ends) except -1:
        """Reads one of them, or leaves it to its connection."""
        cdef list reads = self._reads
        cdef Py_ssize_t size = 0
        cdef bytes data = None
        if fast_path._batch is not self:
            return 0  # given back in the meantime
        if fast_path.chunks is not None and not ends:
            size = gai_receive(fast_path._in, INPUT, ROOM)
        if size > 0:
            try:
                data = PyBytes_FromStringAndSize(INPUT, size)
            finally:
                if data is None:
                    fast_path._reader.drop()  # there was no memory for what it has read
            reads.append(fast_path._reader)
            reads.append(fast_path._exchange)
            reads.append(fast_path)
            reads.append(data)
        elif size < 0 and size != -EAGAIN:
            fast_path._reader.broke(OSError(-size, strerror(-size).decode()))
        if (size == 0 or size == ROOM) and fast_path._batch is self:
            # An end, more than one read takes, or what is not for a fast path: its connection sees that, too.
            fast_path._reader.take_back()
        return 0

    cdef bint can_watch(self) except -1:
        """Whether there is a set of sockets; opens it when it is first needed."""
        cdef int opened
        cdef bint is_well = False
        if self._set >= 0 or not GAI_CAN_WATCH:
            return self._set >= 0
        opened = gai_open_set()
        if opened < 0:
            return False
        try:
            self._loop.add_reader(opened, self._read)
            is_well = True
        finally:
            if not is_well:
                gai_close_set(opened)  # nobody would be told of the sockets in it
        self._set = opened
        return True

    cdef int borrow(self, reader, exchange, FastPath fast_path) except -1:
        """From now on the socket of an answer is read here, where there are such sets and its connection lends it."""
        cdef int socket
        cdef bint is_watched = False
        fast_path._steady = -REFUSED
        if not self.can_watch():
            return 0
        socket = reader.lend(fast_path)
        if socket < 0:
            return 0
        fast_path._batch, fast_path._reader, fast_path._exchange = self, reader, exchange
        fast_path._in = socket
        try:
            self._lent.add(fast_path)
            is_watched = gai_watch(self._set, socket, <void *>fast_path) == 0
        finally:
            if not is_watched:
                reader.take_back()
        return 0

    cdef int give_back(self, FastPath fast_path) except -1:
        gai_forget(self._set, fast_path._in)
        fast_path._in = fast_path._out = -1
        fast_path._steady = 0
        fast_path._batch = fast_path._reader = fast_path._exchange = None
        self._lent.discard(fast_path)
        return 0
