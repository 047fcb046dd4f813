"""A WebSocket of responses: one turn at a time, and those that wait.

Owns which message does what, and the order of turns. `session.py` has the socket and its close, `turn.py` carries a
turn, `turn_messages.py` reads messages. Each create is answered by the handler of `POST /v1/responses`, through its
gates, as if it had come alone.

1. A create that comes while another one is answered waits, in order. More than `limits.socket_turns`, or than
   `max_body` bytes of them, are refused at once, and so are bytes above `[limits] upload_bytes` of all sockets.
2. A wrong message is answered with an `error`; the socket stays open.
3. While the server drains, the creates that wait are refused, and the socket is closed once the answer has ended.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from itertools import count
from typing import Any, Final

from gai_fast.core.session import HEADERS
from gai_fast.model.errors import Error
from gai_fast.server.admission.server_limits import ServerLimits
from gai_fast.server.limits import LIMITS
from gai_fast.server.requests.incoming import Incoming
from gai_fast.server.requests.newest import Newest
from gai_fast.server.routes.router import Endpoint
from gai_fast.server.websocket.frame_guard import Violation
from gai_fast.server.websocket.session import Dialect, SocketHome, SocketSession, draining, refuse
from gai_fast.server.websocket.stream import SocketStream
from gai_fast.server.websocket.turn import SocketTurn
from gai_fast.server.websocket.turn_events import error_message
from gai_fast.server.websocket.turn_messages import Cancel, Create

PATH: Final = "/v1/responses"
_KEPT_HEADERS: Final = (*HEADERS, "user-agent")
"""The headers of the handshake that each create has, besides those that `Incoming.key_headers` are read for."""


class WaitingTurns:
    """The creates that wait, in order.

    Args:
        most: The most bytes of all of them.
        server_limits: Counts their bytes among those of all uploads.
        uploader: The caller that these are counted for.
    """

    def __init__(self, most: int, server_limits: ServerLimits, uploader: str) -> None:
        self._most = most
        self._server_limits = server_limits
        self._uploader = uploader
        self._size = 0
        self._creates: deque[Create] = deque()

    def __len__(self) -> int:
        return len(self._creates)

    def add(self, create: Create) -> None:
        """Adds a create at the end.

        Args:
            create: The create.

        Raises:
            Error: There is no room for it.
        """
        added = len(create.body)
        size = self._size + added
        if len(self._creates) >= LIMITS.socket_turns or size > self._most:
            most = f"{LIMITS.socket_turns} creates of {self._most} bytes together wait on a WebSocket"
            raise Error("rate_limited", f"at most {most}: read the answers first", reason="socket_queue")
        self._server_limits.begin_upload(added, self._uploader, self._size)
        self._size = size
        self._creates.append(create)

    def take(self) -> Create:
        """Takes the first one out."""
        create = self._creates.popleft()
        self._count_off(len(create.body))
        return create

    def clear(self) -> None:
        """Drops all creates."""
        self._creates.clear()
        self._count_off(self._size)

    def _count_off(self, size: int) -> None:
        self._size -= size
        self._server_limits.end_upload(size, self._uploader)


class TurnSession(SocketSession):
    """One socket of responses; `SocketOwner` and `TurnCallbacks`.

    Args:
        home: The routes.
        incoming: The handshake, which has been admitted.
        dialect: What the client speaks, with `read_turn`.

    Attributes:
        newest: Its newest response.
    """

    def __init__(self, home: SocketHome, incoming: Incoming, dialect: Dialect) -> None:
        super().__init__(home, incoming, dialect)
        self.newest = Newest(home.engine.targets.beside, incoming.http.caller, home.remembered)
        uploader = home.router.uploader(incoming.http)
        self._waiting = WaitingTurns(home.engine.settings.server.max_body, home.server_limits, uploader)
        self._headers = _headers_of_turns(incoming.http.headers)
        self._names = count()
        self._next: asyncio.Handle | None = None

    # -- messages --

    def _handle(self, message: Any) -> Violation | None:
        """Carries out a message."""
        if isinstance(message, Create):
            self._take(message)
        elif isinstance(message, Cancel):
            self._cancel_turn(message.identifier)
        elif isinstance(message, Error):
            body = self._incoming.format.error_body(message, "")
            self.answer(error_message(body, message.status, message.code))
        return None

    def _take(self, create: Create) -> None:
        """Begins a turn, or lets it wait: rule 1."""
        if self._home.is_draining:
            self._begin_turn(create, draining())
        elif not self._streams and not self._waiting:
            self._begin_turn(create)
        else:
            try:
                self._waiting.add(create)
            except Error as error:
                self._begin_turn(create, error)

    def _begin_turn(self, create: Create, refusal: Error | None = None) -> None:
        """Begins a turn. A refused one is answered with its error at once, also while another turn runs."""
        router = self._home.router
        turn = SocketTurn(self, str(next(self._names)), self.newest, create.continues if refusal is None else "")
        turn.http = http = self._request(turn, self._headers, "POST")
        turn.incoming = incoming = self._incoming.on_socket(http, self._dialect.form)
        incoming.format = self._incoming.format  # of errors, and of upstreams that speak it; a form may be a program's
        incoming.newest = self.newest
        if refusal is None:
            http.body = create.body
            self._streams[turn.name] = turn
            endpoint = router.endpoint("POST", PATH)
        else:
            endpoint = Endpoint(refuse(refusal), ())
        reply = router.answer_on_socket(incoming, endpoint)
        if reply is not None:
            turn.send(reply)

    def _cancel_turn(self, identifier: str) -> None:
        """Cancels the turn that runs, if its response has this id."""
        for turn in list(self._streams.values()):
            if isinstance(turn, SocketTurn) and turn.is_of(identifier):
                turn.is_cancelled = True
                self._cancel_stream(turn)

    def begun(self, turn: SocketTurn) -> None:
        """Cancels a turn that was to be cancelled before it had a stream."""
        if turn.is_cancelled:
            asyncio.get_running_loop().call_soon(self._cancel_stream, turn)

    def _cancel_stream(self, turn: SocketTurn) -> None:
        engine = self._home.engine
        if turn.stream_id in engine.streams:
            engine.cancel(turn.stream_id)

    # -- the end --

    def ended(self, stream: SocketStream, status: int) -> None:
        """Forgets a turn that has ended; the next one begins in the next iteration of the loop."""
        super().ended(stream, status)
        if self._waiting and not self._streams and self._next is None and self._closing is None:
            self._next = asyncio.get_running_loop().call_soon(self._begin_next)

    def _begin_next(self) -> None:
        self._next = None
        if self._waiting and not self._streams:
            self._begin_turn(self._waiting.take())

    def drain_if_idle(self) -> None:
        """Refuses what waits if the server drains, and closes the socket if nothing runs: rule 3."""
        while self._waiting and self._home.is_draining and self._closing is None:
            self._begin_turn(self._waiting.take(), draining())
        super().drain_if_idle()

    def _lose_streams(self) -> None:
        self.newest.close()
        self._waiting.clear()
        if self._next is not None:
            self._next.cancel()
            self._next = None
        super()._lose_streams()


def _headers_of_turns(headers: Mapping[str, str]) -> dict[str, str]:
    """Returns the headers of each create of a socket.

    Args:
        headers: The headers of its handshake, by lower-case name.
    """
    return {"content-type": "application/json", **{name: headers[name] for name in _KEPT_HEADERS if name in headers}}
