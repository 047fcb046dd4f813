"""`SocketSet` watches the sockets that transports read; `receive` reads one, `send` writes. `_pure/socket_set.py` defines
them.

uvloop makes a handle for each socket that it watches, and makes three system calls to check that it can be watched. Our
own epoll set makes one system call, and takes 8,000 instructions less for a connection.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_SetFromErrno
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF
from cpython.time cimport perf_counter
from libc.errno cimport EAGAIN
from libc.stdint cimport uint8_t
from libc.string cimport strerror

from gai_fast.kernels._pure import socket_set as pure
from gai_fast.kernels._pure.limits import LIMITS

from gai_fast.kernels._native.buffer cimport bytes_memory, finished_bytes, new_bytes

from gai_fast.kernels._native.c cimport (
    GAI_CAN_WATCH,
    GAI_READY,
    gai_close,
    gai_forget,
    gai_open_set,
    gai_receive,
    gai_take_readable,
    gai_transmit,
    gai_watch_reader,
)

cdef enum:
    ROOM = 65536    # reads of at most so many bytes make an object of the exact size: `limits.client_read`

cdef char[ROOM] INPUT   # filled and emptied while the interpreter's lock is held
cdef int READING = 0    # number of sockets for which a set calls back now; a hint: another thread's loop may change it
cdef int UNFLUSHED = LIMITS.unflushed_transports
cdef int DEFERRED = LIMITS.deferred_reads
cdef double DEFERRED_BY = LIMITS.deferred_by
cdef double DEFERRED_FOR = LIMITS.deferred_for


def receive(int descriptor, Py_ssize_t most):
    """See `gai_fast.kernels._pure.socket_set.receive`."""
    cdef PyObject *made
    cdef Py_ssize_t size
    if most <= ROOM:
        size = gai_receive(descriptor, INPUT, most)
        if size >= 0:
            return PyBytes_FromStringAndSize(INPUT, size)
    else:
        made = new_bytes(NULL, most)
        size = gai_receive(descriptor, bytes_memory(made), most)
        if size >= 0:
            return finished_bytes(made, size)
        Py_DECREF(<object>made)
    if size == -EAGAIN:
        return None
    raise OSError(-size, strerror(-size).decode())


def send(int descriptor, data):
    """See `gai_fast.kernels._pure.socket_set.send`."""
    cdef const uint8_t[::1] view
    cdef Py_ssize_t sent
    if type(data) is bytes:
        sent = gai_transmit(descriptor, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
    else:
        view = data
        sent = gai_transmit(descriptor, &view[0] if view.shape[0] else NULL, view.shape[0])
    if sent >= 0 or sent == -EAGAIN:
        return max(0, sent)
    raise OSError(-sent, strerror(-sent).decode())


cdef class SocketSet:
    """See `gai_fast.kernels._pure.socket_set.SocketSet`."""

    cdef object _loop
    cdef object _others     # the pure set, which watches sockets if there is no epoll set
    cdef dict _callbacks    # by descriptor
    cdef dict _watched_by_others    # the callbacks of `_others`
    cdef list _unflushed    # transports that are flushed at the end of the iteration
    cdef int _set           # the epoll set, or -1
    cdef bint _is_closed
    cdef double _deferred   # the time until which an iteration reads only a few sockets
    cdef double _since      # the time since which sockets have been deferred; 0 if no socket is

    def __cinit__(self):
        self._set = -1

    def __init__(self, loop):
        if self._loop is not None:
            raise TypeError("a SocketSet cannot be made again")
        self._loop = loop
        self._others = pure.SocketSet(loop)
        self._watched_by_others = self._others._callbacks
        self._callbacks = {}
        self._unflushed = []

    def __dealloc__(self):
        if self._set >= 0:
            gai_close(self._set)

    def add_reader(self, int descriptor, callback):
        """Calls back whenever a socket can be read. A second callback of a socket replaces the first."""
        if not self.can_watch() or descriptor in self._watched_by_others:
            self._others.add_reader(descriptor, callback)
            return
        self._callbacks[descriptor] = callback
        if gai_watch_reader(self._set, descriptor) < 0:
            try:
                PyErr_SetFromErrno(OSError)
            finally:
                del self._callbacks[descriptor]
                if self._is_closed:
                    self.close()

    def remove_reader(self, int descriptor):
        """Stops watching a socket, which must still be open."""
        if self._callbacks.pop(descriptor, None) is None:
            self._others.remove_reader(descriptor)
        else:
            gai_forget(self._set, descriptor)
            if self._is_closed:
                self.close()

    def flush_later(self, transport):
        """Flushes a transport at the end of an iteration that reads several sockets; returns whether it will."""
        if READING < 2:
            return False
        if len(self._unflushed) >= UNFLUSHED:
            self._flush()
        if not self._unflushed:
            self._loop.call_soon(self._flush)
        self._unflushed.append(transport)
        return True

    def _flush(self):
        """Flushes the waiting transports. If one raises, the loop handles the exception, and the others are flushed."""
        cdef list transports = self._unflushed
        self._unflushed = []
        for transport in transports:
            try:
                transport.flush()
            except Exception as problem:
                self._loop.call_exception_handler({"message": "a connection cannot be flushed", "exception": problem})

    def defer(self):
        """Limits the reads of the next iterations to a few sockets each."""
        cdef double now = perf_counter()
        if now >= self._deferred + DEFERRED_FOR:
            self._since = 0  # no socket was deferred during this time
        self._deferred = now + DEFERRED_BY

    def close(self):
        """Closes the set as soon as no socket is watched."""
        cdef int opened = self._set
        self._is_closed = True
        if opened >= 0 and not self._callbacks:
            self._set = -1
            try:
                self._loop.remove_reader(opened)
            finally:
                gai_close(opened)

    def _read(self):
        """Calls back for the sockets that can be read. If a callback raises, the set reports the others again."""
        global READING
        cdef int[GAI_READY] readable
        cdef int i = 0, count, most = GAI_READY
        cdef double now
        if self._deferred:
            now = perf_counter()
            if now < self._deferred:
                if not self._since:
                    self._since = now
                if now - self._since < DEFERRED_FOR:
                    most = DEFERRED
        count = gai_take_readable(self._set, readable, most)
        if count < most:  # no socket waits
            self._since = 0
            if most == GAI_READY:
                self._deferred = 0
        READING = count
        try:
            while i < count:
                callback = self._callbacks.get(readable[i])
                if callback is not None:  # the socket was not removed
                    callback()
                i += 1
        finally:
            READING = 0

    cdef bint can_watch(self) except -1:
        """Returns whether there is a set; opens it at the first call."""
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
            if not is_well:  # the loop does not watch the set
                gai_close(opened)
        self._set = opened
        return True
