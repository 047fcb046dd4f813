"""One open WebSocket: the messages of its client, the streams that run over it, and its close.

Owns which message does what, the limits of one socket, and the codes of its close. `messages.py` reads messages,
`stream.py` carries a stream, `connection.py` is the connection. Requests are answered by the handlers of the
other routes, as if each had come alone.

1. A request that is refused ends its stream, not the socket. The socket is closed (RFC 6455, 7.4.1) with 1002 for
   frames against the protocol, 1003 for binary ones, 1007 for invalid JSON, 1008 for an unknown message or an id in
   use, 1009 for a message that is too large, 1011 for a bug of ours, 1012 while the server drains, 1013 above
   `limits.upload_bytes`.
2. Messages of streams that have ended (a cancel, an acknowledgement) are late, not wrong: they do nothing. Nor does a
   second cancel, which may have to wait for another worker as the first.
3. While the server drains, new requests are refused, and the socket is closed once no stream runs over it.
4. What a client provokes without reading it is bounded (`limits.socket_unsent`); its streams are paused.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, Final, NamedTuple, Protocol

from aiohttp import web

from gai_fast.kernels import Borrower, frame_messages
from gai_fast.model.errors import Error
from gai_fast.net.engine.engine import Engine
from gai_fast.runtime.timers import Timers
from gai_fast.server.admission.admit import body_too_large
from gai_fast.server.admission.negotiation import Negotiated
from gai_fast.server.admission.server_limits import ServerLimits
from gai_fast.server.http.replies import Headers, Reply
from gai_fast.server.http.request import HTTPRequest
from gai_fast.server.http.transport import ClientTransport
from gai_fast.server.limits import LIMITS
from gai_fast.server.requests.incoming import Incoming
from gai_fast.server.requests.kinds.stream_routes import StreamRoutes
from gai_fast.server.requests.newest import Remembered
from gai_fast.server.routes.router import Endpoint, Router
from gai_fast.server.routes.table import Handler
from gai_fast.server.websocket.connection import SUBPROTOCOL, AiohttpSocket
from gai_fast.server.websocket.frame_guard import POLICY_VIOLATION, Violation
from gai_fast.server.websocket.messages import PONG, Message, lead_of
from gai_fast.server.websocket.stream import Canceller, SocketStream

_log: Final = logging.getLogger("gai_fast.server")
_INTERNAL: Final = Violation(1011, "the server failed to handle a message")
_GOING_AWAY: Final = Violation(1012, "this server is being stopped")
_SLOW: Final = Violation(POLICY_VIOLATION, "the client reads nothing of what it asks for")
_JSON: Final = {"content-type": "application/json"}
_ENDED: Final = ClientTransport()
"""The transport of a request that has ended, which calls nothing of it."""


class Dialect(NamedTuple):
    """The dialect of a socket's client.

    Attributes:
        form: The form of the answers.
        read: Reads a message, for `SocketSession._handle`; returns a violation if the socket must be closed.
        has_names: Messages begin with the client's id of their stream; otherwise one request runs at a time.
        most: The most bytes of a message.
        protocols: The subprotocols of which one is chosen, if the client offers it.
    """

    form: Negotiated
    read: Callable[[bytes], Any]
    has_names: bool
    most: int = LIMITS.socket_message
    protocols: Sequence[str] = (SUBPROTOCOL,)


class SocketHome(Protocol):
    """The part of `WebSocketRoutes` that sockets use; `routes` imports this module, so no import goes back."""

    engine: Engine
    streams: StreamRoutes
    server_limits: ServerLimits
    router: Router
    is_draining: bool
    sessions: set[SocketSession]
    remembered: Remembered


class SocketSession:
    """One socket; `SocketOwner` and `SocketCallbacks`.

    Args:
        home: The routes.
        incoming: The handshake, which has been admitted.
        dialect: What the client speaks.
    """

    def __init__(self, home: SocketHome, incoming: Incoming, dialect: Dialect) -> None:
        self._home = home
        self._incoming = incoming
        self._dialect = dialect
        self._socket: AiohttpSocket | None = None
        self.write: Callable[[bytes], None]
        """Writes messages. There are streams only once the socket is open."""
        self._streams: dict[str, SocketStream] = {}
        self._closing: asyncio.Task[None] | None = None
        self._provoked = 0  # bytes that the client has provoked since the socket was paused

    async def run(self, request: web.BaseRequest, headers: Headers) -> web.StreamResponse:
        """Answers the handshake, and the client until either side closes.

        Args:
            request: The handshake.
            headers: More headers of its answer.
        """
        settings = self._home.engine.settings
        socket = AiohttpSocket(
            request,
            self,
            self.timers,
            self._home.server_limits,
            self._home.router.uploader(self._incoming.http),
            high_water=settings.stream.client_buffer,
            write_timeout=settings.stream.write_timeout,
            most=self._dialect.most,
            protocols=self._dialect.protocols,
        )
        self._socket = socket
        self.write = socket.write
        try:
            if await socket.open(headers):
                self._home.sessions.add(self)
                self.drain_if_idle()
                await self._read(socket)
        finally:
            self._home.sessions.discard(self)
            self.connection_lost()
            try:
                if self._closing is not None:
                    await asyncio.wait((self._closing,))
            finally:
                if self._closing is not None:
                    self._closing.cancel()
                socket.leave()
        return socket.response

    async def _read(self, socket: AiohttpSocket) -> None:
        while self._closing is None:
            received = await socket.receive()
            if received is None:
                return
            if isinstance(received, Violation):
                self.violated(received)
            else:
                self.message_received(received)
                received = None  # a socket that waits holds nothing of its last message
                await asyncio.sleep(0)  # a full queue must not delay other streams

    # -- messages --

    def message_received(self, data: bytes) -> None:
        """Carries out a message, unless the socket is being closed."""
        if self._closing is not None:
            return
        try:
            message = self._dialect.read(data)
            violation = message if isinstance(message, Violation) else self._handle(message)
        except Exception as problem:  # noqa: BLE001  # a bug of ours: rule 1
            _log.error("a message of a WebSocket could not be handled", exc_info=problem)
            violation = _INTERNAL
        if violation is not None:
            self.violated(violation)

    def _handle(self, message: Message) -> Violation | None:
        """Carries out a message."""
        kind = message.type
        if kind == "ping":
            self.answer(frame_messages(b"data: %b\n" % PONG, b"{"))
            return None
        stream = self._streams.get(message.stream)
        if kind in ("request", "resume"):
            if stream is not None:
                one = "this id of a stream is in use" if self._dialect.has_names else "one request at a time"
                return Violation(POLICY_VIOLATION, one)
            self._begin(message)
        elif stream is not None and kind == "cancel":
            if not stream.is_cancelled:
                stream.is_cancelled = True
                self._cancel(stream)
        elif stream is not None:
            stream.acknowledge(int(message.seq or 0))
        return None

    def _begin(self, message: Message) -> None:
        """Begins a new stream, or the rest of a stream that runs or has run."""
        lead = lead_of(message.stream) if self._dialect.has_names else b"{"
        stream = SocketStream(self, message.stream, lead)
        endpoint: Endpoint
        if message.type == "resume":
            http = self._request(stream, {**_JSON, "last-event-id": str(message.after)})
            endpoint = Endpoint(self._home.streams.durable.resume, ())
        else:
            http = self._request(stream, _JSON)
            http.body = bytes(message.request or b"")
            endpoint = self._home.router.endpoint("POST", "/api/v1/stream")
        refusal = self._refusal(http)
        if refusal is not None:
            endpoint = Endpoint(refuse(refusal), ())
        stream.http = http
        incoming = stream.incoming = self._incoming.on_socket(http, self._dialect.form)
        self._streams[message.stream] = stream
        reply = self._home.router.answer_on_socket(incoming, endpoint)
        if reply is not None:
            stream.send(reply)

    def _request(
        self, transport: SocketStream | Canceller, headers: dict[str, str], method: str = "GET"
    ) -> HTTPRequest:
        """Returns a request of this client, as if it had come alone."""
        target = self._incoming.http.target
        http = HTTPRequest(transport, method, target, headers, is_http_1_1=True, keep_alive=True)
        http.began = time.monotonic()
        return http

    def _refusal(self, http: HTTPRequest) -> Error | None:
        """Returns the reason to refuse one more stream. None if the stream may begin."""
        max_body = self._home.engine.settings.server.max_body
        if len(http.body) > max_body:
            return body_too_large(max_body)
        if self._home.is_draining:
            return draining()
        if len(self._streams) >= LIMITS.socket_streams:
            text = f"a WebSocket has at most {LIMITS.socket_streams} streams at a time: wait, or open another one"
            return Error("rate_limited", text, reason="socket_streams")
        return None

    def _cancel(self, stream: SocketStream) -> None:
        """Cancels the generation of a stream, wherever it runs."""
        http = self._request(Canceller(stream), {})
        incoming = self._incoming.on_socket(http, self._dialect.form, stream.stream_id)
        reply = self._home.router.answer_on_socket(incoming, Endpoint(self._home.streams.durable.cancel, ()))
        if reply is not None:
            http.transport.send(reply)

    # -- the end --

    def drain_if_idle(self) -> None:
        """Closes the socket if the server drains and no stream runs over it: rule 3."""
        if self._home.is_draining and not self._streams:
            self.violated(_GOING_AWAY)

    def violated(self, violation: Violation) -> None:
        """Says why the socket is closed, and closes it; its streams end as if the client had left."""
        socket = self._socket
        if self._closing is None and socket is not None:
            self._closing = asyncio.get_running_loop().create_task(socket.close(violation))
            self._lose_streams()

    def connection_lost(self) -> None:
        """Ends all streams: the client has disconnected."""
        self._lose_streams()

    def _lose_streams(self) -> None:
        with ExitStack() as losses:  # all of them, even if one raises
            for stream in self._streams.values():
                losses.callback(stream.lose)

    # -- SocketCallbacks --

    @property
    def timers(self) -> Timers:
        """The timers of the loop."""
        return self._home.engine.timers

    @property
    def is_paused(self) -> bool:
        """Whether more than the high-water mark is unsent."""
        return self._socket is not None and self._socket.is_paused

    @property
    def is_draining(self) -> bool:
        """Whether the server is being stopped."""
        return self._home.is_draining

    @property
    def remote(self) -> str:
        """The address of the client."""
        return self._home.router.client(self._incoming.http)

    def lend(self, borrower: Borrower) -> int:
        """Lends the socket to its only stream; as `LendingTransport.lend`."""
        socket = self._socket
        return -1 if socket is None or self._closing is not None or len(self._streams) > 1 else socket.lend(borrower)

    def take_back(self) -> None:
        """Ends the loan of the socket."""
        if self._socket is not None:
            self._socket.take_back()

    def answer(self, messages: bytes) -> None:
        """Writes messages that a client may provoke without end: rule 4."""
        socket = self._socket
        if socket is not None and self._closing is None:
            socket.write(messages)
            # Not all unsent bytes count: one large event may be more, and a slow client may ping while it reads that.
            self._provoked = self._provoked + len(messages) if socket.is_paused else 0
            if self._provoked > LIMITS.socket_unsent:
                self.violated(_SLOW)

    def ping(self) -> None:
        """Writes a keep-alive."""
        if self._socket is not None and self._closing is None:
            self._socket.ping()

    def ended(self, stream: SocketStream, status: int) -> None:
        """Forgets a stream that has ended; its id is free."""
        self._streams.pop(stream.name, None)
        self._home.router.ended(stream.http, status)
        stream.http.transport = _ENDED  # a reference cycle otherwise
        self.drain_if_idle()

    def has_finished(self, stream_id: str) -> bool:
        """Returns whether a stream has ended without a failure; true for an unknown stream."""
        log = self._home.engine.store.find_here(stream_id)
        return log is None or log.ending is None or log.ending.state != "failed"

    # -- SocketOwner --

    def pause_writing(self) -> None:
        """Pauses the streams: more than the high-water mark is unsent."""
        self._update_pauses()

    def resume_writing(self) -> None:
        """Resumes the streams: the client has caught up."""
        self._provoked = 0
        self._update_pauses()

    def _update_pauses(self) -> None:
        for stream in list(self._streams.values()):
            stream.update_pause()


def draining() -> Error:
    """Returns the error of a request that comes while the server drains."""
    return Error("overloaded", "this server is being stopped", reason="draining")


def refuse(error: Error) -> Handler:
    """Returns a handler that refuses a request.

    Args:
        error: The reason.
    """

    def refuse_it(incoming: Incoming) -> Reply | None:
        raise error

    return refuse_it
