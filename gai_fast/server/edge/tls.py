"""TLS to a client: the protocol of a socket's transport below, and the transport of a server's protocol above.

Owns the handshake, the records and the two closing directions of a TLS connection. Owns no time limit: the server's
protocol exists from the start, and gives a client that does not finish its handshake as little time as a client that
sends nothing.

1. Uses `ssl.SSLObject` over two `MemoryBIO`s, in place of the loop's TLS. The loop's TLS reports a connection only
   after its handshake, copies each write once more, and keeps a buffer of 256 KiB per connection.
2. If a client half-closes, with `close_notify` or without, the protocol above sees a half-close. After our side has
   ended, received bytes are dropped.
3. TLS 1.2 is not renegotiated (`Certificate`). After the handshake, the bytes that a client can make TLS itself send,
   such as key updates, are limited by `limits.tls_answers`.
4. A client that sends plain HTTP gets a plain response with the reason.
5. A loop iteration makes at most `limits.tls_steps` steps of handshakes, because each may need a signature (1 ms with a
   key of 2,048 bits). A burst of new clients thus delays no other stream.
6. OpenSSL's buffers and ours never shrink, so they get one record at a time in both directions.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final, cast

from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.net.sockets.sockets import peer_address
from gai_fast.server.edge.transport_layer import TransportLayer
from gai_fast.server.limits import LIMITS

_log: Final = logging.getLogger("gai_fast.server")
_PLAIN: Final = "HTTP_REQUEST"
"""OpenSSL's reason for an HTTP request in place of a handshake."""


def plain_http() -> Error:
    """Returns the error for a client that sends plain HTTP."""
    return Error("invalid_request", "this port speaks TLS: the URL begins with https://", reason="tls")


class ClientHandshakes:
    """The handshakes of one server: rule 5.

    Args:
        refuse_plain: Returns the response to plain HTTP; its argument is the client's address.
    """

    def __init__(self, refuse_plain: Callable[[str], bytes]) -> None:
        self.refuse_plain = refuse_plain
        self._waiting: deque[TLSConnection] = deque()
        self._is_due = False

    def queue(self, connection: TLSConnection) -> None:
        """Queues a connection for the next step of its handshake."""
        self._waiting.append(connection)
        self._schedule()

    def _schedule(self) -> None:
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        self._is_due = False
        try:
            for _ in range(min(SHARED.tls_steps, len(self._waiting))):
                self._waiting.popleft().advance()
        finally:  # even if a bug of ours ends one of them
            if self._waiting:
                self._schedule()


class TLSConnection(TransportLayer):
    """One client's TLS connection.

    Args:
        context: The certificate's context, kept to the end of this connection.
        protocol: The server's protocol.
        handshakes: The handshakes of the server.
    """

    def __init__(self, context: ssl.SSLContext, protocol: asyncio.Protocol, handshakes: ClientHandshakes) -> None:
        asyncio.Transport.__init__(self)  # the transport below does not exist yet
        self._context = context
        self._protocol = protocol
        self._handshakes = handshakes
        self._is_queued = False  # waits for the next step of the handshake
        self._is_held = False  # too many bytes have arrived: reading is paused until that step
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls: ssl.SSLObject  # created at the first step: it needs 9 KiB, too much for a silent client
        self._has_begun = False
        self._has_eof = False  # the client has half-closed the transport below
        self._is_ready = False  # the handshake is complete
        self._drops_input = False  # further bytes from the client are dropped
        self._is_reading = True
        self._ending: ssl.SSLError | None = None  # the client's close or error, after the bytes already read
        self._has_ended = False  # our side has ended
        self._answer_size = 0

    # -- the protocol below --

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connects the server's protocol."""
        self.wire = cast("asyncio.Transport", transport)
        self._protocol.connection_made(self)

    def data_received(self, data: bytes) -> None:
        """Receives records, or parts of them."""
        if self._drops_input:
            return
        if not self._is_ready:
            self._incoming.write(data)
            if self._incoming.pending > SHARED.tls_handshake:  # the end of the handshake may carry a request
                self._is_held = True
                self.wire.pause_reading()
            if not self._is_queued:
                self._is_queued = True
                self._handshakes.queue(self)
        elif len(data) <= SHARED.tls_record:
            self._incoming.write(data)
            self._read()
        else:
            pieces = memoryview(data)
            for at in range(0, len(data), SHARED.tls_record):
                self._incoming.write(pieces[at : at + SHARED.tls_record])
                if not self._read():
                    return

    def advance(self) -> None:
        """Makes the next step of the handshake; called by `ClientHandshakes`."""
        with self._abort_on_exception():
            self._step()

    def _step(self) -> None:
        self._is_queued = False
        if self._drops_input:
            return
        if self._is_held:
            self._is_held = False
            self.wire.resume_reading()
        if not self._has_begun:
            self._has_begun = True
            self._tls = self._context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._answer()
        except ssl.SSLError as problem:
            self._fail(problem)
        else:
            self._answer()
            self._is_ready = True
            self._read()
        if self._has_eof and not self._drops_input:
            self._end_input()

    def eof_received(self) -> bool:
        """Notes that the client has half-closed, with `close_notify` or without: rule 2."""
        self._has_eof = True
        if not self._is_queued and (not self._is_ready or self._read()) and not self._drops_input:
            self._end_input()
        return not self._has_ended  # this class closes the connection itself

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the server's protocol."""
        self._drops_input = True
        # The protocol refers to this object: the cycle would wait for the garbage collector.
        protocol, self._protocol = self._protocol, asyncio.Protocol()
        protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        """Pauses the protocol above."""
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """Resumes the protocol above."""
        self._protocol.resume_writing()

    # -- inside --

    @contextlib.contextmanager
    def _abort_on_exception(self) -> Iterator[None]:
        """Aborts the connection on an exception in a plain callback; in a protocol's method the loop aborts it."""
        is_done = False
        try:
            yield
            is_done = True
        finally:
            if not is_done:
                self.abort()

    def _read_pending(self) -> None:
        """Reads the bytes that arrived before reading was paused."""
        with self._abort_on_exception():
            self._read()

    def _read(self) -> bool:
        """Decrypts the received records; returns whether the client may send more."""
        incoming = self._incoming
        while self._is_reading and not self._drops_input and incoming.pending and self._ending is None:
            text = self._decrypt()
            if text:
                self._protocol.data_received(text)
        if self._ending is not None and self._is_reading and not self._drops_input:
            if isinstance(self._ending, ssl.SSLZeroReturnError):
                self._end_input()
            else:
                self._fail(self._ending)
        if not self._drops_input:
            self._answer()
        return not self._drops_input

    def _decrypt(self) -> bytes:
        """Returns the plaintext of complete records, and notes a close or an error after them.

        Joins small records: a client may send one record per byte, and each call makes the protocol above parse again.
        """
        incoming, pieces, size = self._incoming, [], 0
        try:
            while incoming.pending and size < SHARED.tls_record:
                piece = self._tls.read(SHARED.tls_record)
                if not piece:
                    self._ending = ssl.SSLZeroReturnError()
                    break
                pieces.append(piece)
                size += len(piece)
        except ssl.SSLWantReadError:
            pass  # the rest is an incomplete record, held by OpenSSL
        except ssl.SSLError as problem:
            self._ending = problem.with_traceback(None)  # the traceback would keep this object alive
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _answer(self) -> None:
        """Sends what TLS itself has to send: handshake, alerts, key updates."""
        if not self._outgoing.pending:
            return
        data = self._outgoing.read()
        if self._is_ready:
            self._answer_size += len(data)
            if self._answer_size > LIMITS.tls_answers:
                _log.info("a client is cut off: it asked for more than %d bytes of key updates", LIMITS.tls_answers)
                self.abort()
                return
        if not self.wire.is_closing():
            self.wire.write(data)

    def _end_input(self) -> None:
        """Ends the client's side."""
        self._drops_input = True
        if not self._is_ready or not self._protocol.eof_received():
            self.close()

    def _fail(self, problem: ssl.SSLError) -> None:
        """Ends a connection after a TLS error: the client breaks the protocol, or no version or cipher is shared."""
        self._drops_input = True
        if self.wire.is_closing():
            return
        remote = peer_address(self.wire)
        _log.debug("TLS with %s failed: %s", remote, problem.reason)
        if problem.reason == _PLAIN and not self._is_ready:
            self._has_ended = True
            self.wire.write(self._handshakes.refuse_plain(remote))
            if self.wire.can_write_eof():
                self.wire.write_eof()  # the protocol above closes later; at once, the client would not see the response
            return
        if self._outgoing.pending:
            self.wire.write(self._outgoing.read())
        self.wire.close()

    # -- the transport above --

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Works as `asyncio.BaseTransport.get_extra_info`, with `sslcontext`, `ssl_object` and `cipher`."""
        if name == "sslcontext":
            return self._context
        if name == "ssl_object" and self._has_begun:
            return self._tls
        if name == "cipher" and self._has_begun:
            return self._tls.cipher()
        return self.wire.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Works as `asyncio.BaseTransport.set_protocol`."""
        self._protocol = cast("asyncio.Protocol", protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Works as `asyncio.BaseTransport.get_protocol`."""
        return self._protocol

    def is_reading(self) -> bool:
        """Works as `asyncio.ReadTransport.is_reading`."""
        return self._is_reading and self.wire.is_reading()

    def pause_reading(self) -> None:
        """Works as `asyncio.ReadTransport.pause_reading`; idempotent."""
        if self._is_reading:
            self._is_reading = False
            self.wire.pause_reading()

    def resume_reading(self) -> None:
        """Works as `asyncio.ReadTransport.resume_reading`; idempotent."""
        if not self._is_reading and not self.wire.is_closing():
            self._is_reading = True
            self.wire.resume_reading()
            asyncio.get_running_loop().call_soon(self._read_pending)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Works as `asyncio.WriteTransport.write`; does nothing during the handshake: no request can have come."""
        if self._has_ended or not self._is_ready or not data:
            return
        try:
            if len(data) <= SHARED.tls_record:
                self._tls.write(data)
                self.wire.write(self._outgoing.read())
            else:
                self.wire.writelines(self._records(memoryview(data)))
        except ssl.SSLError as problem:
            self._fail(problem)

    def _records(self, data: memoryview) -> list[bytes]:
        """Encrypts a large write into records: rule 6.

        Raises:
            SSLError: The connection has failed.
        """
        records = []
        for at in range(0, len(data), SHARED.tls_record):
            self._tls.write(data[at : at + SHARED.tls_record])
            records.append(self._outgoing.read())
        return records

    def write_eof(self) -> None:
        """Works as `asyncio.WriteTransport.write_eof`: sends `close_notify`, then half-closes the transport below."""
        if not self._has_ended:
            self._send_close_notify()
            self.wire.write_eof()

    def can_write_eof(self) -> bool:
        """Works as `asyncio.WriteTransport.can_write_eof`."""
        return self._is_ready and self.wire.can_write_eof()

    def abort(self) -> None:
        """Works as `asyncio.WriteTransport.abort`."""
        self._drops_input = True
        self.wire.abort()

    def close(self) -> None:
        """Works as `asyncio.BaseTransport.close`."""
        if not self._has_ended:
            self._send_close_notify()
        self.wire.close()

    def _send_close_notify(self) -> None:
        """Sends `close_notify` if a TLS connection exists; afterwards received bytes are dropped (rule 2)."""
        self._has_ended = self._drops_input = True
        if not self._is_ready or self.wire.is_closing():
            return
        with contextlib.suppress(ssl.SSLError):  # the client has not sent its own yet, or the connection has failed
            self._tls.unwrap()
        if self._outgoing.pending:
            self.wire.write(self._outgoing.read())
