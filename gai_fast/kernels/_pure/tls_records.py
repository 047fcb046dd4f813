"""`TLSRecords`: the records of one TLS connection as a client. Decrypts the bytes of a socket, and encrypts text.

This module is the definition, on the standard library's `SSLObject` and its memory buffers. The native implementation
calls the same OpenSSL once for all records of a read. It also shares sessions without serializing and parsing them,
which takes the standard library 105 us each time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from gai_fast.kernels._pure.socket_set import Socket
from gai_fast.model.limits import SHARED

if TYPE_CHECKING:
    import ssl

_RECORD: Final = SHARED.tls_record
_BUFFER: Final = memoryview(bytearray(SHARED.tls_read))
"""The buffer for one read of any socket. A call fills and empties it, so an idle connection needs no own buffer."""

UNANNOUNCED: Final = "the connection ended without TLS's close_notify"


class TLSRecords:
    """The records of one connection. The caller does the handshake and calls `offer` before it, `open` after it.

    Args:
        tls: The connection, on the two buffers.
        incoming: The buffer of records from the peer.
        outgoing: The buffer of records for the peer.
        sock: The socket; not blocking.

    Attributes:
        descriptor: The socket's descriptor if a `ReadBatch` may borrow it and read these records; otherwise -1.
        is_full: Whether the last read of the socket filled the buffer, so that more bytes may have come.
        has_ended: Whether the peer has closed the connection properly (`close_notify`).
        problem: The failure of the connection; the text before the failure has been returned. `None` if it works.
    """

    __slots__ = ("_incoming", "_outgoing", "_sock", "_ssl", "_tls", "descriptor", "has_ended", "is_full", "problem")

    def __init__(self, tls: ssl.SSLObject, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, sock: Socket) -> None:
        import ssl  # here, because it takes 8 ms, and encoders do not need it

        self._ssl = ssl
        self._tls = tls
        self._incoming = incoming
        self._outgoing = outgoing
        self._sock = sock
        self.descriptor = -1
        self.has_ended = False
        self.is_full = False
        self.problem: OSError | None = None

    @property
    def has_news(self) -> bool:
        """Whether the connection has ended or failed, or has a protocol message to send."""
        return self.has_ended or self.problem is not None or self._outgoing.pending > 0

    def offer(self, session: Any) -> None:
        """Offers the peer to resume a session, which `session` of a connection with the same context returned."""
        self._tls.session = session

    def session(self) -> Any:
        """Returns the session. `None` if it cannot be resumed yet: in TLS 1.3 a ticket follows the handshake."""
        session = self._tls.session
        if session is None or not (session.has_ticket or self._tls.version() != "TLSv1.3"):
            return None
        return session

    def open(self) -> bytes:
        """Returns the text that came with the end of the handshake."""
        return self._text(0)

    def receive(self) -> bytes:
        """Reads the socket once.

        Returns:
            The text of the records that are complete now; it may be empty. Check `has_ended` and `problem` after each
            call: once either is set, no more text comes.
        """
        self.is_full = False
        if self.has_ended or self.problem is not None:
            return b""
        try:
            size = self._sock.recv_into(_BUFFER)
        except (BlockingIOError, InterruptedError):
            return b""
        except OSError as problem:
            self.problem = problem
            return b""
        if not size:
            self.problem = self._ssl.SSLEOFError(self._ssl.SSL_ERROR_EOF, UNANNOUNCED)
            return b""
        self.is_full = size == len(_BUFFER)
        return self._text(size)

    def _text(self, size: int) -> bytes:
        """Returns the text of the first `size` bytes in the buffer."""
        incoming, read = self._incoming, self._tls.read
        pieces: list[bytes] = []
        at = 0
        while at < size or incoming.pending:
            # In steps: OpenSSL's buffer never shrinks.
            end = min(at + _RECORD, size)
            incoming.write(_BUFFER[at:end])
            at = end
            try:
                while incoming.pending:  # a read without pending bytes raises an exception, which takes 1.3 us
                    piece = read(_RECORD)
                    if not piece:
                        self.has_ended = True
                        break
                    pieces.append(piece)
            except self._ssl.SSLWantReadError:
                pass  # the rest is an incomplete record, which OpenSSL keeps
            except OSError as problem:
                self.problem = problem
            if self.has_ended or self.problem is not None:
                break
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def send(self, text: bytes) -> bool:
        """Encrypts one record and writes it to the socket. The outgoing buffer must be empty before the call.

        Args:
            text: At most `limits.tls_record` bytes.

        Returns:
            Whether the socket accepted all bytes; otherwise the rest is in the outgoing buffer.

        Raises:
            OSError: The connection has failed.
        """
        self._tls.write(text)
        return False


def make_tls_records(tls: ssl.SSLObject, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, sock: Socket) -> TLSRecords:
    """Returns the records of a connection; the arguments are the same as for `TLSRecords`."""
    return TLSRecords(tls, incoming, outgoing, sock)
