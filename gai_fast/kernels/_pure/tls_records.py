"""`TLSRecords`: the records of one TLS connection as a client: text out of what a socket brought, and records of text.

This module is the definition, on the standard library's `SSLObject` and its buffers in memory. The native twin lets the
same OpenSSL read the records of a whole read in one call, and hands on sessions without writing them out and parsing
them again, which takes the standard library 105 us each time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from gai_fast.model.limits import SHARED

if TYPE_CHECKING:
    import ssl

_RECORD: Final = SHARED.tls_record
_BUFFER: Final = memoryview(bytearray(SHARED.tls_read))
"""One read of any socket: it is filled and emptied within a call, so an idle connection holds no buffer of its own."""

UNANNOUNCED: Final = "the connection ended without TLS's close_notify"


class ReadSocket(Protocol):
    """The part of a socket that records use."""

    def fileno(self) -> int:
        """Returns the descriptor."""

    def recv_into(self, buffer: memoryview, /) -> int:
        """Reads; returns the number of bytes.

        Raises:
            OSError: There are none, or the connection is broken.
        """


class TLSRecords:
    """The records of one connection. The caller makes the handshake; `offer` comes before it, `open` after it.

    Args:
        tls: The connection, on the two buffers.
        incoming: Records of the peer.
        outgoing: Records for the peer.
        sock: The socket; not blocking.

    Attributes:
        descriptor: The socket's descriptor, where a `ReadBatch` may borrow it and read these records; else -1.
        is_full: The last read of the socket filled the buffer: more may be there.
        has_ended: The peer has ended the connection properly (`close_notify`).
        problem: The failure of the connection; the text that came before it has been returned.
    """

    __slots__ = ("_incoming", "_outgoing", "_sock", "_ssl", "_tls", "descriptor", "has_ended", "is_full", "problem")

    def __init__(self, tls: ssl.SSLObject, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, sock: ReadSocket) -> None:
        import ssl  # takes 8 ms, which those who import nothing but encoders need not wait for

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
        """Whether the connection has ended or failed, or owes the peer an answer of the protocol."""
        return self.has_ended or self.problem is not None or self._outgoing.pending > 0

    def offer(self, session: Any) -> None:
        """Offers the peer to resume a session, one that `session` of a connection of the same context returned."""
        self._tls.session = session

    def session(self) -> Any:
        """Returns the session if it can be resumed by now, else `None`; in TLS 1.3 a ticket follows the handshake."""
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
            The text of the records that are whole by now, perhaps none. See `has_ended` and `problem` then; after
            either of them there is no more.
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
        """Returns the text of the first bytes in the buffer."""
        incoming, read = self._incoming, self._tls.read
        pieces: list[bytes] = []
        at = 0
        while at < size or incoming.pending:
            # In steps, since OpenSSL's buffer keeps the largest size it had.
            end = min(at + _RECORD, size)
            incoming.write(_BUFFER[at:end])
            at = end
            try:
                while incoming.pending:  # a vain question raises an exception, which takes 1.3 us
                    piece = read(_RECORD)
                    if not piece:
                        self.has_ended = True
                        break
                    pieces.append(piece)
            except self._ssl.SSLWantReadError:
                pass  # the rest is not a whole record, and OpenSSL has it
            except OSError as problem:
                self.problem = problem
            if self.has_ended or self.problem is not None:
                break
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def send(self, text: bytes) -> bool:
        """Encrypts one record and gives it to the socket; nothing else may be unsent.

        Args:
            text: At most `limits.tls_record` bytes.

        Returns:
            Whether the socket has taken all of it; otherwise the rest is in the outgoing buffer.

        Raises:
            OSError: The connection has failed.
        """
        self._tls.write(text)
        return False


def make_tls_records(
    tls: ssl.SSLObject, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, sock: ReadSocket
) -> TLSRecords:
    """Returns the records of a connection; the arguments are those of `TLSRecords`."""
    return TLSRecords(tls, incoming, outgoing, sock)
