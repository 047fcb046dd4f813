"""TLS to a client: the protocol of a socket's transport below, and the transport of a server's protocol above.

Owns the handshake, the records and the two ends of a TLS connection. Owns no time limit: the server's protocol is there
from the first moment, and gives a client that does not finish its handshake as little time as one that sends nothing.

1. `ssl.SSLObject` over two `MemoryBIO`s, in place of the loop's TLS, which tells of a connection only after its
   handshake, copies each write once more, and keeps a buffer of 256 KiB for each connection.
2. A client that ends its side, with `close_notify` or without, ends it for the protocol above. Bytes after the end of
   our side are dropped.
3. TLS 1.2 is not renegotiated (`Certificate`). What a client makes us answer by itself after the handshake, as key
   updates, is bounded by `limits.tls_answers`.
4. A client that speaks plain HTTP gets a plain answer that says so.
5. A turn of the loop makes `limits.tls_steps` steps of handshakes at most, for each of which a signature may be due
   (1 ms with a key of 2,048 bits): a burst of newcomers holds up nobody's stream.
6. OpenSSL's buffers and ours keep the largest size that they had, so they get one record at a time in both directions.
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
from gai_fast.net.upstream.sockets import peer_address
from gai_fast.server.edge.transport_layer import TransportLayer
from gai_fast.server.limits import LIMITS

_log: Final = logging.getLogger("gai_fast.server")
_PLAIN: Final = "HTTP_REQUEST"
"""OpenSSL's name of a request where a handshake should begin."""


def plain_http() -> Error:
    """The error of a client that speaks plain HTTP."""
    return Error("invalid_request", "this port speaks TLS: the URL begins with https://", reason="tls")


class Handshakes:
    """The handshakes of one server: rule 5.

    Args:
        refuse_plain: Makes the answer to plain HTTP; its argument is the client's address.
    """

    def __init__(self, refuse_plain: Callable[[str], bytes]) -> None:
        self.refuse_plain = refuse_plain
        self._waiting: deque[TLSConnection] = deque()
        self._is_due = False

    def queue(self, connection: TLSConnection) -> None:
        """Lets a connection make its next step when it is its turn."""
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
                self._waiting.popleft().go_on()
        finally:  # also where a bug of ours ended one of them
            if self._waiting:
                self._schedule()


class TLSConnection(TransportLayer):
    """One client's TLS connection.

    Args:
        context: The certificate, for this connection to its end.
        protocol: The server's protocol.
        handshakes: The handshakes of the server.
    """

    def __init__(self, context: ssl.SSLContext, protocol: asyncio.Protocol, handshakes: Handshakes) -> None:
        asyncio.Transport.__init__(self)  # the transport below is not there yet
        self._context = context
        self._protocol = protocol
        self._handshakes = handshakes
        self._is_queued = False  # waits for the next step of the handshake
        self._is_held = False  # so much has come that no more is read until that step
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls: ssl.SSLObject  # from the first step on: it takes 9 KiB, and a silent client is not worth them
        self._has_begun = False
        self._has_eof = False  # the client has ended its side of the wire
        self._is_ready = False  # the handshake is over
        self._is_deaf = False  # nothing more of the client is read
        self._is_reading = True
        self._ending: ssl.SSLError | None = None  # the client's end or mistake, behind what was read
        self._has_ended = False  # our side has
        self._answered = 0

    # -- the protocol below --

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        self.wire = cast("asyncio.Transport", transport)
        self._protocol.connection_made(self)

    def data_received(self, data: bytes) -> None:
        """Takes records, or parts of them."""
        if self._is_deaf:
            return
        if not self._is_ready:
            self._incoming.write(data)
            if self._incoming.pending > SHARED.tls_handshake:  # a request comes with the end of the handshake
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

    def go_on(self) -> None:
        """Makes the next step of the handshake. Called by `Handshakes`."""
        with self._alone():
            self._step()

    def _step(self) -> None:
        self._is_queued = False
        if self._is_deaf:
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
        if self._has_eof and not self._is_deaf:
            self._end_input()

    def eof_received(self) -> bool:
        """The client sends no more; it need not have said so before (rule 2)."""
        self._has_eof = True
        if not self._is_queued and (not self._is_ready or self._read()) and not self._is_deaf:
            self._end_input()
        return not self._has_ended  # we close by ourselves

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._is_deaf = True
        # They refer to each other: the cycle would wait for the garbage collector.
        protocol, self._protocol = self._protocol, asyncio.Protocol()
        protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        """More than the high-water mark is unsent."""
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._protocol.resume_writing()

    # -- inside --

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Aborts where a bug of ours ends what the loop has not called as a protocol: there the loop aborts itself."""
        is_done = False
        try:
            yield
            is_done = True
        finally:
            if not is_done:
                self.abort()

    def _read_on(self) -> None:
        """Reads what came before reading was paused."""
        with self._alone():
            self._read()

    def _read(self) -> bool:
        """Reads as far as records have come; returns whether the client may send more."""
        incoming = self._incoming
        while self._is_reading and not self._is_deaf and incoming.pending and self._ending is None:
            text = self._opened()
            if text:
                self._protocol.data_received(text)
        if self._ending is not None and self._is_reading and not self._is_deaf:
            if isinstance(self._ending, ssl.SSLZeroReturnError):
                self._end_input()
            else:
                self._fail(self._ending)
        if not self._is_deaf:
            self._answer()
        return not self._is_deaf

    def _opened(self) -> bytes:
        """Returns the text of records that are whole, and notes what ends the connection behind them.

        Small ones are joined: a client may send one for each byte, and the protocol above looks anew at what it has
        with each call.
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
            pass  # the rest is no whole record, and OpenSSL has it
        except ssl.SSLError as problem:
            self._ending = problem.with_traceback(None)  # which would keep this object
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _answer(self) -> None:
        """Sends what the records themselves ask for: the handshake, alerts, key updates."""
        if not self._outgoing.pending:
            return
        data = self._outgoing.read()
        if self._is_ready:
            self._answered += len(data)
            if self._answered > LIMITS.tls_answers:
                _log.info("a client is cut off: it asked for more than %d bytes of key updates", LIMITS.tls_answers)
                self.abort()
                return
        if not self.wire.is_closing():
            self.wire.write(data)

    def _end_input(self) -> None:
        """The client's side has ended."""
        self._is_deaf = True
        if not self._is_ready or not self._protocol.eof_received():
            self.close()

    def _fail(self, problem: ssl.SSLError) -> None:
        """Ends a connection whose client breaks the rules of TLS, or agrees to none of ours."""
        self._is_deaf = True
        if self.wire.is_closing():
            return
        remote = peer_address(self.wire)
        _log.debug("TLS with %s failed: %s", remote, problem.reason)
        if problem.reason == _PLAIN and not self._is_ready:
            self._has_ended = True
            self.wire.write(self._handshakes.refuse_plain(remote))
            if self.wire.can_write_eof():
                self.wire.write_eof()  # the protocol above closes: at once, the client would not see why
            return
        if self._outgoing.pending:
            self.wire.write(self._outgoing.read())
        self.wire.close()

    # -- the transport above --

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """As `asyncio.BaseTransport.get_extra_info`, with `sslcontext`, `ssl_object` and `cipher`."""
        if name == "sslcontext":
            return self._context
        if name == "ssl_object" and self._has_begun:
            return self._tls
        if name == "cipher" and self._has_begun:
            return self._tls.cipher()
        return self.wire.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """As `asyncio.BaseTransport.set_protocol`."""
        self._protocol = cast("asyncio.Protocol", protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """As `asyncio.BaseTransport.get_protocol`."""
        return self._protocol

    def is_reading(self) -> bool:
        """As `asyncio.ReadTransport.is_reading`."""
        return self._is_reading and self.wire.is_reading()

    def pause_reading(self) -> None:
        """As `asyncio.ReadTransport.pause_reading`; it may be paused already."""
        if self._is_reading:
            self._is_reading = False
            self.wire.pause_reading()

    def resume_reading(self) -> None:
        """As `asyncio.ReadTransport.resume_reading`; it may be reading already."""
        if not self._is_reading and not self.wire.is_closing():
            self._is_reading = True
            self.wire.resume_reading()
            asyncio.get_running_loop().call_soon(self._read_on)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """As `asyncio.WriteTransport.write`, from the end of the handshake on: no request has come before."""
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
        """The records of a large write: rule 6.

        Raises:
            SSLError: The connection has failed.
        """
        records = []
        for at in range(0, len(data), SHARED.tls_record):
            self._tls.write(data[at : at + SHARED.tls_record])
            records.append(self._outgoing.read())
        return records

    def write_eof(self) -> None:
        """As `asyncio.WriteTransport.write_eof`: says so in TLS, and ends our side below."""
        if not self._has_ended:
            self._say_end()
            self.wire.write_eof()

    def can_write_eof(self) -> bool:
        """As `asyncio.WriteTransport.can_write_eof`."""
        return self._is_ready and self.wire.can_write_eof()

    def abort(self) -> None:
        """As `asyncio.WriteTransport.abort`."""
        self._is_deaf = True
        self.wire.abort()

    def close(self) -> None:
        """As `asyncio.BaseTransport.close`."""
        if not self._has_ended:
            self._say_end()
        self.wire.close()

    def _say_end(self) -> None:
        """Sends `close_notify`, where there is a connection to end; from then on nothing is read (rule 2)."""
        self._has_ended = self._is_deaf = True
        if not self._is_ready or self.wire.is_closing():
            return
        with contextlib.suppress(ssl.SSLError):  # the client has not said so yet, or the connection has failed
            self._tls.unwrap()
        if self._outgoing.pending:
            self.wire.write(self._outgoing.read())
