"""One TLS connection on a socket: `TLSTransport`, instead of the event loop's transport; `Handshakes` starts them.

Owns the handshake, and bytes that are written but not encrypted yet. It must not know HTTP, pools, how a context is
made (`tls.py`), or how records are read (`TLSRecords`). The handshake uses the standard library's `SSLObject` on
buffers in memory.

1. A read of the socket goes through one buffer that all connections share, so an idle one holds no buffer but
   OpenSSL's. The plain text of all records of a read is handed on as one piece.
2. A read batch may borrow the socket and read the records itself, as it borrows plain sockets.
3. A turn of the loop makes `limits.tls_steps` steps of handshakes at most (0.3 ms each), and finishes those that were
   begun before it begins others. So the first to finish brings a session, and most of a burst resume it, which costs
   half.
4. If the connection ends without `close_notify`, that is an error: a third party on the path can forge a TCP end.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import ssl
import time
from collections import deque
from collections.abc import Callable
from socket import socket
from typing import Any, Final

from gai_fast.kernels import SocketSet, TLSRecords, make_tls_records
from gai_fast.model.limits import SHARED
from gai_fast.net.limits import LIMITS
from gai_fast.net.sockets.socket_transport import SocketReceiver, SocketTransport, failed_to


class _State(enum.Enum):
    """The state of the handshake."""

    WAITING = enum.auto()  # for its turn to begin
    SHAKING = enum.auto()
    SHAKEN = enum.auto()


_WAITING: Final[_State] = _State.WAITING
_SHAKING: Final[_State] = _State.SHAKING
_SHAKEN: Final[_State] = _State.SHAKEN

_RECORD: Final = SHARED.tls_record


def _ignore(problem: Exception | None) -> None: ...


class Handshakes:
    """The handshakes with one upstream: their order, and the TLS session that later handshakes resume.

    Args:
        loop: The loop of the connections.
        context: Verifies the upstream.
        host: The name or address that its certificate must have.
        clock: Monotonic seconds.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, context: ssl.SSLContext, host: str, clock: Callable[[], float]
    ) -> None:
        self.context = context
        self.host = host
        self.buffer = memoryview(bytearray(SHARED.tls_read))
        self._loop = loop
        self._clock = clock
        self._new: list[TLSTransport] = []
        self._begun: deque[TLSTransport] = deque()
        self._is_due = False
        self._session: Any = None  # as `TLSRecords.session`
        self._session_until = 0.0

    def begin(self, transport: TLSTransport) -> None:
        """Queues a handshake; the newest one begins first, since its client has waited least."""
        self._new.append(transport)
        self._schedule()

    def go_on(self, transport: TLSTransport) -> None:
        """Queues the next step of a handshake."""
        self._begun.append(transport)
        self._schedule()

    def forget(self, transport: TLSTransport) -> None:
        """Removes a handshake that has not begun."""
        self._new.remove(transport)

    def session(self) -> Any:
        """Returns the session to resume. None if there is none or it has expired."""
        if self._session is not None and self._clock() >= self._session_until:
            self._session = None
        return self._session

    def keep(self, tls: ssl.SSLObject, records: TLSRecords, offered: Any) -> bool:
        """Keeps the session of a connection if it has one by now, and it is news.

        Only a full handshake has checked the certificate. The session of a resumed one is not kept, so that a
        certificate is looked at again after `limits.tls_session` seconds, and once it has expired.

        Args:
            tls: The connection, after its handshake.
            records: Its records.
            offered: The session that it offered to resume.

        Returns:
            Whether it may still bring a session: tickets follow the handshake in TLS 1.3.
        """
        if self._session is not offered or tls.session_reused:
            return False
        session = records.session()
        if session is None:
            return True
        certificate = tls.getpeercert() or {}
        life = LIMITS.tls_session
        if "notAfter" in certificate:
            life = min(life, ssl.cert_time_to_seconds(str(certificate["notAfter"])) - time.time())
        self._session = session
        self._session_until = self._clock() + life
        return False

    def _schedule(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        self._is_due = False
        try:
            for _ in range(SHARED.tls_steps):
                if self._begun:
                    self._begun.popleft().step()
                elif self._new:
                    self._new.pop().step()
                else:
                    return
        finally:  # also if a bug of ours ended one of them
            if self._begun or self._new:
                self._schedule()


class TLSTransport(SocketTransport):
    """A TLS connection to an upstream.

    Args:
        handshakes: The handshakes with the upstream.
        loop: See `SocketTransport`.
        sock: See `SocketTransport`.
        receiver: See `SocketTransport`. Called from `connection_made` on; never called if the handshake fails.
        readers: See `SocketTransport`.
        shaken: Called once, with None when the handshake has succeeded or with the exception when it has failed.
    """

    def __init__(
        self,
        handshakes: Handshakes,
        loop: asyncio.AbstractEventLoop,
        sock: socket,
        receiver: SocketReceiver,
        readers: SocketSet,
        shaken: Callable[[Exception | None], None],
    ) -> None:
        super().__init__(loop, sock, receiver, readers)
        self._handshakes = handshakes
        self._shaken = shaken
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls: ssl.SSLObject  # from the first step on
        self._records: TLSRecords  # from the first step on
        self._offered: Any = None
        self._plain = memoryview(b"")  # written, not encrypted yet
        self._state = _WAITING
        self._is_queued = True
        self._wants_session = True
        handshakes.begin(self)

    # ---- asyncio.Transport

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Returns the `socket`, `sslcontext` or `ssl_object`; `tls_records` once the handshake has succeeded."""
        if name == "sslcontext":
            return self._handshakes.context
        if name == "ssl_object":
            return default if self._state is _WAITING else self._tls
        if name == "tls_records":
            return self._records if self._is_open() else default
        return super().get_extra_info(name, default)

    def is_closing(self) -> bool:
        """Returns whether no other request may be sent: the socket is closed, or the peer has ended the connection."""
        if not self._is_open():
            return self._is_closed
        return self._records.has_ended or self._records.problem is not None

    def resume_reading(self) -> None:
        """Reads the socket again; idempotent."""
        super().resume_reading()
        if self._is_open() and self._records.has_news:  # it came while the socket was lent
            self._loop.call_soon(self._look)

    def write(self, data: bytes) -> None:
        """Encrypts and sends bytes, as `Transport.write`."""
        if self._is_open():
            super().write(data)

    def _write(self, data: bytes) -> None:
        if not self._is_writing and len(data) <= _RECORD and not self._outgoing.pending:
            self._send_record(data)
            return
        self._plain = memoryview(bytes(self._plain) + data if self._plain else data)
        if not self._is_writing:
            self._flush()

    def get_write_buffer_size(self) -> int:
        """Works as `Transport.get_write_buffer_size`."""
        return len(self._plain) + super().get_write_buffer_size() + self._outgoing.pending

    def _is_open(self) -> bool:
        return self._state is _SHAKEN and not self._is_closed

    # ---- the handshake

    def step(self) -> None:
        """Makes the next step of the handshake. Called by `Handshakes`."""
        self._is_queued = False
        if self._is_closed:
            return
        is_well = False
        try:
            self._shake()
            is_well = True
        finally:
            if not is_well:  # as in `_readable`
                self._close(failed_to("make the handshake"))

    def _shake(self) -> None:
        try:
            if self._state is _WAITING:
                self._begin()
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return
        except OSError as problem:
            with contextlib.suppress(OSError):  # the peer may have gone; `problem` is what is reported
                self._sock.send(self._outgoing.read())  # the alert
            self._close(problem)
            return
        self._flush()
        if self._is_closed:
            return
        self._state = _SHAKEN
        text = self._records.open()
        if self._receiver is not None:
            self._receiver.connection_made(self)
        self._end_handshake(None)
        if not self._is_closed:
            self._hand_on(text)

    def _begin(self) -> None:
        handshakes = self._handshakes
        self._offered = handshakes.session()
        self._tls = handshakes.context.wrap_bio(self._incoming, self._outgoing, server_hostname=handshakes.host)
        self._records = make_tls_records(self._tls, self._incoming, self._outgoing, self._sock)
        if self._offered is not None:
            self._records.offer(self._offered)
        self._state = _SHAKING
        self.resume_reading()

    def _end_handshake(self, problem: Exception | None) -> None:
        shaken, self._shaken = self._shaken, _ignore
        shaken(problem)

    # ---- reading

    def _read(self) -> None:
        if self._state is _SHAKEN:
            self._hand_on(self._records.receive())
        else:
            self._read_handshake()

    def _read_handshake(self) -> None:
        buffer = self._handshakes.buffer
        try:
            size = self._sock.recv_into(buffer)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as problem:
            self._close(problem)
            return
        if not size:
            self._close(ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "the connection ended during the handshake"))
            return
        self._incoming.write(buffer[:size])
        if self._incoming.pending > SHARED.tls_handshake:
            self._close(ssl.SSLError(ssl.SSL_ERROR_SSL, "the handshake is too long"))
        elif not self._is_queued:
            self._is_queued = True
            self._handshakes.go_on(self)

    def _look(self) -> None:
        if not self._is_closed:
            self._hand_on(b"")

    def _hand_on(self, text: bytes) -> None:
        """Hands on the text of a read, and ends the connection if the read has brought its end or a failure."""
        records = self._records
        if self._outgoing.pending:
            self._flush()  # the protocol's answers, such as new keys; also if the socket accepts none: they are few
        if self._wants_session and records.problem is None and not records.has_ended:
            self._wants_session = self._handshakes.keep(self._tls, records, self._offered) and not text
        receiver = self._receiver
        if text and receiver is not None:
            receiver.data_received(text)
        if not self._is_closed:
            if records.problem is not None:
                self._close(records.problem)
            elif records.has_ended and receiver is not None:
                receiver.eof_received()

    # ---- writing

    def _send_record(self, data: bytes) -> None:
        """Sends the bytes of one record in place of `_flush`, since most requests are no longer."""
        try:
            is_sent = self._records.send(data)
        except OSError as problem:
            self._close(problem)
            return
        if not is_sent:
            self._flush()

    def _has_more(self) -> bool:
        if self._plain:
            try:
                # One record at a time, since OpenSSL's buffer keeps the largest size it had.
                taken = self._tls.write(self._plain[:_RECORD])
            except OSError as problem:
                self._close(problem)
                return False
            self._plain = self._plain[taken:]
        if not self._outgoing.pending:
            return False
        self._unsent = memoryview(self._outgoing.read())
        return True

    def _await_room(self) -> None:
        if self._outgoing.pending > LIMITS.tls_unsent:
            self._close(ssl.SSLError(ssl.SSL_ERROR_SSL, "the upstream asks for new keys and takes none"))
        else:
            super()._await_room()

    # ---- the end

    def _close(self, problem: Exception | None) -> None:
        if self._is_closed:
            return
        if self._state is _WAITING and self._is_queued:
            self._handshakes.forget(self)
        if self._state is not _SHAKEN:
            self._receiver = None
        super()._close(problem)
        self._plain = memoryview(b"")
        # Also for an open connection: a receiver that failed in `connection_made` has prevented the handshake's end.
        self._end_handshake(problem or ConnectionAbortedError())
