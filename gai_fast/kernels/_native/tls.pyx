"""The records of a TLS connection, with the OpenSSL that the standard library's `ssl` uses.

`kernels/_pure/tls_records.py` defines their behaviour. `ssl` makes the connection, does the handshake and verifies the
peer; after that OpenSSL is called directly. OpenSSL reads the records directly from the buffer that the socket filled,
and writes their text directly into the returned bytes object. A record of 4 KiB takes 1.3 us this way, and 2.1 us with
an `SSLObject` on `MemoryBIO`s.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from libc.errno cimport EAGAIN
from libc.string cimport strerror

import sys

from gai_fast.kernels._native.buffer cimport bytes_memory, finished_bytes, new_bytes
from gai_fast.kernels._native.c cimport GAI_CAN_WATCH, gai_receive, gai_send
from gai_fast.kernels._native.openssl cimport (
    GAI_BIO_PENDING,
    GAI_SSL_ERROR_SSL,
    GAI_SSL_ERROR_WANT_READ,
    GAI_SSL_ERROR_ZERO_RETURN,
    OPENSSL,
    gai_bio,
    gai_find_openssl,
    gai_session,
    gai_ssl,
)
from gai_fast.kernels._pure import tls_records as _pure
from gai_fast.model.limits import SHARED

cdef enum:
    ROOM = 65536    # bytes of one read: `limits.tls_read`
    HELD = 32768    # more than OpenSSL holds: the beginning of one record, at most 18,437 bytes (RFC 5246, 6.2.3)

cdef char[ROOM] INPUT   # filled and emptied while the interpreter's lock is held
cdef object FOUND = None    # whether OpenSSL has been found; None until `is_found` has searched
cdef object OURS = object() # only this module makes objects, so each has a connection or a session


cdef class TLSSession:
    """A session of a connection after its handshake. Connections of the same context may resume it."""

    cdef gai_session *_session

    def __cinit__(self, made_by):
        if made_by is not OURS:
            raise TypeError("`TLSRecords.session` returns sessions")

    def __dealloc__(self):
        if self._session is not NULL:
            OPENSSL.session_free(self._session)


@cython.no_gc_clear  # `_ssl` belongs to the connection, which must be freed last
cdef class TLSRecords:
    """See `gai_fast.kernels._pure.tls_records.TLSRecords`."""

    def __cinit__(self, made_by):
        if made_by is not OURS:
            raise TypeError("`make_tls_records` returns records")

    def __dealloc__(self):
        if self._bio is not NULL:
            OPENSSL.bio_set_data(self._bio, NULL)  # the connection may live longer
            OPENSSL.bio_free(self._bio)

    @property
    def descriptor(self):
        """The socket's descriptor, from which a `ReadBatch` may read these records."""
        return self._descriptor

    @property
    def has_news(self):
        """Whether the connection has ended or failed, or has a protocol message to send."""
        return self.is_noteworthy()

    def offer(self, TLSSession session not None):
        """Offers the peer to resume a session."""
        # OpenSSL invalidates the session if its connection ends without `close_notify`, so each connection has a copy.
        cdef gai_session *own = OPENSSL.session_dup(session._session)
        if own is NULL:
            raise MemoryError
        OPENSSL.set_session(self._ssl, own)
        OPENSSL.session_free(own)  # the connection has its own reference

    def session(self):
        """Returns the session. `None` if it cannot be resumed yet."""
        cdef gai_session *session = OPENSSL.get1_session(self._ssl)
        cdef TLSSession made = None
        if session is NULL:
            return None
        try:
            if OPENSSL.session_is_resumable(session):
                made = TLSSession.__new__(TLSSession, OURS)
                made._session = OPENSSL.session_dup(session)
        finally:
            OPENSSL.session_free(session)
        return None if made is None or made._session is NULL else made

    def open(self):
        """Returns the text that came with the end of the handshake."""
        cdef bytes left
        if self._bio is not NULL:
            raise ValueError("these records are open already")
        self._bio = OPENSSL.bio_new(OPENSSL.source)
        if self._bio is NULL:
            raise MemoryError
        OPENSSL.bio_set_data(self._bio, &self._source)
        OPENSSL.bio_set_init(self._bio, 1)
        left = self._incoming.read()
        OPENSSL.bio_up_ref(self._bio)  # the connection owns one reference
        OPENSSL.set0_rbio(self._ssl, self._bio)
        self._descriptor = self._sock.fileno()
        self._held = HELD
        return self.text(PyBytes_AS_STRING(left), PyBytes_GET_SIZE(left))

    def receive(self):
        """Reads the socket once."""
        return self.take()

    def send(self, bytes text not None):
        """Encrypts one record and writes it to the socket."""
        cdef gai_bio *bio = OPENSSL.get_wbio(self._ssl)
        cdef Py_ssize_t size, sent
        cdef int written
        OPENSSL.err_clear()
        written = OPENSSL.write(self._ssl, PyBytes_AS_STRING(text), <int>PyBytes_GET_SIZE(text))
        if written <= 0:
            raise failure(OPENSSL.get_error(self._ssl, written))
        size = OPENSSL.bio_read(bio, INPUT, ROOM)
        if size < 0:
            raise failure(GAI_SSL_ERROR_SSL)
        sent = gai_send(self._descriptor, INPUT, size)
        # The buffer is empty, so the rest stays in order.
        if sent < size and OPENSSL.bio_write(bio, INPUT + sent, <int>(size - sent)) != size - sent:
            raise failure(GAI_SSL_ERROR_SSL)  # no memory
        return OPENSSL.bio_ctrl(bio, GAI_BIO_PENDING, 0, NULL) == 0

    cdef bint is_noteworthy(self) noexcept:
        """Returns whether the connection has ended or failed, or has a protocol message to send."""
        return (
            self.has_ended or self.problem is not None
            or OPENSSL.bio_ctrl(OPENSSL.get_wbio(self._ssl), GAI_BIO_PENDING, 0, NULL) > 0
        )

    cdef bytes take(self):
        cdef Py_ssize_t size
        self.is_full = False
        if self.has_ended or self.problem is not None:
            return b""
        size = gai_receive(self._descriptor, INPUT, ROOM)
        self.is_full = size == ROOM
        if size > 0:
            return self.text(INPUT, size)
        if size == 0:
            ssl = sys.modules["ssl"]
            self.problem = ssl.SSLEOFError(ssl.SSL_ERROR_EOF, _pure.UNANNOUNCED)
        elif size != -EAGAIN:
            self.problem = OSError(-size, strerror(-size).decode())
        return b""

    cdef bytes text(self, const char *data, size_t size):
        """Returns the text of the records that these bytes complete."""
        cdef size_t filled = 0, left = 0
        cdef int got = 1, error
        cdef size_t most = size + self._held  # a record is longer than its text
        cdef PyObject *made = new_bytes(NULL, most)
        cdef char *to = bytes_memory(made)
        self._source.at = data
        self._source.left = size
        OPENSSL.err_clear()  # once, as in nginx: a successful read leaves no error, and this call takes 0.08 us
        while self._source.left:
            left = self._source.left
            got = OPENSSL.read(self._ssl, to + filled, <int>(most - filled))
            if got <= 0:
                break
            filled += got
            self._held = 0
        if got <= 0:
            error = OPENSSL.get_error(self._ssl, got)
            if error == GAI_SSL_ERROR_WANT_READ:
                # Tickets and key updates count, too, although OpenSSL does not hold them: a peer may send any number.
                self._held = min(self._held + left, <size_t>HELD)
            elif error == GAI_SSL_ERROR_ZERO_RETURN:
                self.has_ended = True
            else:
                self.problem = failure(error)
        self._source.left = 0  # the data may be freed; bytes after an end are not read
        return finished_bytes(made, filled)


cdef object failure(int error):
    """Returns the exception for OpenSSL's last error; clears OpenSSL's error queue."""
    cdef unsigned long last = OPENSSL.err_last()
    cdef const char *reason = OPENSSL.err_reason(last) if error == GAI_SSL_ERROR_SSL and last else NULL
    text = (<bytes>reason).decode("ascii", "replace") if reason is not NULL else "the connection cannot be used"
    problem = sys.modules["ssl"].SSLError(error, text)
    problem.reason = text.upper().replace(" ", "_")
    OPENSSL.err_clear()
    return problem


def make_tls_records(tls, incoming, outgoing, sock):
    """Returns the records of a connection; pure ones if this interpreter's OpenSSL cannot be called."""
    cdef TLSRecords made
    cdef PyObject *connection
    cdef void **fields
    if not is_found():
        return _pure.TLSRecords(tls, incoming, outgoing, sock)
    inner = tls._sslobj
    connection = <PyObject *>inner
    # CPython's `PySSLSocket` begins with the weak reference to a socket, the SSL, and the context (3.11 to 3.14). The
    # third field proves this layout: no other field there is the context's address.
    fields = <void **>(<char *>connection + sizeof(PyObject))
    if type(inner).__basicsize__ < sizeof(PyObject) + 3 * sizeof(void *) or fields[2] != <void *>tls.context:
        return _pure.TLSRecords(tls, incoming, outgoing, sock)
    made = TLSRecords.__new__(TLSRecords, OURS)
    made._connection, made._incoming, made._sock = inner, incoming, sock
    made._ssl = <gai_ssl *>fields[1]
    made._descriptor = -1
    return made


cdef bint is_found() except -1:
    """Returns whether the library can be called; searches for it once."""
    global FOUND
    if FOUND is None:
        ssl = sys.modules["ssl"]
        path = getattr(ssl._ssl, "__file__", None)
        FOUND = (
            GAI_CAN_WATCH and path is not None and ssl.OPENSSL_VERSION.startswith("OpenSSL ") and SHARED.tls_read == ROOM
            and bool(gai_find_openssl(path.encode(), ssl.OPENSSL_VERSION.encode()))
        )
    return FOUND
