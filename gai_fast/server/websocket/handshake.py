"""`GET /ws/stream` and `GET /v1/responses`: the handshake of a WebSocket, and the sockets that are open.

Owns the checks of a handshake and the end of all sockets. `session.py` has one open socket, `turns.py` one of
responses.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from functools import partial
from typing import Final, cast

from gai_fast.model.errors import Error
from gai_fast.net.engine.engine import Engine
from gai_fast.server.admission.negotiation import Negotiated, for_program, negotiate
from gai_fast.server.admission.server_limits import ServerLimits
from gai_fast.server.http.replies import Reply, id_headers
from gai_fast.server.lanes.aiohttp_transport import AiohttpTransport
from gai_fast.server.requests.incoming import Incoming
from gai_fast.server.requests.kinds.stream_routes import StreamRoutes
from gai_fast.server.requests.newest import Remembered
from gai_fast.server.routes.router import Router
from gai_fast.server.websocket.connection import SUBPROTOCOL, offered
from gai_fast.server.websocket.formats import CHUNKS, EVENTS
from gai_fast.server.websocket.messages import read_message, read_plain
from gai_fast.server.websocket.session import Dialect, SocketSession
from gai_fast.server.websocket.turn_messages import read_turn
from gai_fast.server.websocket.turns import TurnSession

_VERSION: Final = "13"
_NONCE: Final = 16
_UPGRADE_HEADERS: Final = (("upgrade", "websocket"), ("connection", "upgrade"), ("sec-websocket-version", _VERSION))


class WebSocketRoutes:
    """The sockets of one server.

    Args:
        engine: The streams.
        streams: The handlers of requests.
        server_limits: The limits of the whole server.

    Attributes:
        engine: The streams.
        streams: The handlers of requests.
        server_limits: The limits of the whole server.
        router: The routes; must be set before the first request.
        is_draining: The server ends.
        sessions: The open sockets.
        remembered: What those of responses remember.
    """

    router: Router

    def __init__(self, engine: Engine, streams: StreamRoutes, server_limits: ServerLimits) -> None:
        self.engine = engine
        self.streams = streams
        self.server_limits = server_limits
        self.is_draining = False
        self.sessions: set[SocketSession] = set()
        self.remembered = Remembered()

    def open(self, incoming: Incoming) -> Reply | None:
        """`GET /ws/stream`."""
        refusal = _refusal(incoming, (SUBPROTOCOL,))
        if refusal is None:
            self._upgrade(incoming, SocketSession(self, incoming, _dialect_of(incoming)))
        return refusal

    def open_turns(self, incoming: Incoming) -> Reply | None:
        """`GET /v1/responses`."""
        refusal = _refusal(incoming, ())
        if refusal is None:
            form = Negotiated(incoming.format, "sse", None, is_on_socket=True)
            form = for_program(form, incoming.http.headers.get("user-agent"))
            most = self.engine.settings.server.max_body
            dialect = Dialect(form, read_turn, has_names=False, most=most, protocols=())
            self._upgrade(incoming, TurnSession(self, incoming, dialect))
        return refusal

    def _upgrade(self, incoming: Incoming, session: SocketSession) -> None:
        headers = [*id_headers(incoming.http.request_id), ("cache-control", "no-store"), *incoming.limit_headers]
        cast("AiohttpTransport", incoming.http.transport).upgrade(partial(session.run, headers=headers))

    def begin_drain(self) -> None:
        """Refuses new streams, and closes each socket once its streams have ended."""
        self.is_draining = True
        for session in list(self.sessions):
            session.drain_if_idle()

    def forget(self, size: int) -> int:
        """Drops what sockets remember of responses, for memory; as `Remembered.forget`."""
        return self.remembered.forget(size)


_UPGRADE_REQUIRED: Final = 426


def _refusal(incoming: Incoming, protocols: Sequence[str]) -> Reply | None:
    """Returns the refusal of a handshake. None if it is accepted.

    Args:
        incoming: The handshake.
        protocols: The subprotocols that there are; without any, what the client offers does not matter.

    Raises:
        Error: It is that of a page of another origin.
    """
    if incoming.is_foreign:
        raise Error("forbidden", "a page of another origin may not open a WebSocket", reason="origin")
    problem = _problem_of(incoming, protocols)
    if problem is None:
        return None
    return incoming.refusal(problem, _UPGRADE_HEADERS if problem.status == _UPGRADE_REQUIRED else (), close=True)


def _problem_of(incoming: Incoming, protocols: Sequence[str]) -> Error | None:
    """Returns the error in a handshake (RFC 6455, 4.2.1), or None."""
    headers, http = incoming.http.headers, incoming.http
    if not http.is_http_1_1 or headers.get("upgrade", "").strip().lower() != "websocket":
        text = "this route is a WebSocket: upgrade to it with HTTP/1.1"
        return Error("invalid_request", text, reason="upgrade", status=_UPGRADE_REQUIRED)
    if headers.get("sec-websocket-version") != _VERSION:
        text = f"the version of the WebSocket protocol must be {_VERSION}"
        return Error("invalid_request", text, reason="upgrade", status=_UPGRADE_REQUIRED)
    if "upgrade" not in [token.strip().lower() for token in headers.get("connection", "").split(",")]:
        return Error("invalid_request", "`Connection` must hold `Upgrade`", reason="upgrade")
    if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
        # Programs on the way may take what follows for frames, or for a body.
        return Error("invalid_request", "a handshake has no body", reason="upgrade")
    if not _is_nonce(headers.get("sec-websocket-key", "")):
        return Error("invalid_request", "`Sec-WebSocket-Key` must be 16 bytes in base64", reason="upgrade")
    names = offered(headers.get("sec-websocket-protocol", ""))
    if names and protocols and not set(protocols).intersection(names):
        text = f"the subprotocol spoken here is {', '.join(protocols)}"
        return Error("invalid_request", text, reason="subprotocol")
    return None


def _is_nonce(value: str) -> bool:
    try:
        return len(base64.b64decode(value, validate=True)) == _NONCE
    except (binascii.Error, ValueError):
        return False


def _dialect_of(incoming: Incoming) -> Dialect:
    """Returns the dialect of the client of a handshake.

    Raises:
        Error: It asks for an envelope, a framing or a format that a socket does not have.
    """
    asked = negotiate(incoming.query, None, default_format="gai")
    if asked.format.name != "gai" or asked.framing != "sse":
        raise Error("unsupported", "a WebSocket has messages of the format gai, and no other framing", reason="format")
    if offered(incoming.http.headers.get("sec-websocket-protocol", "")):
        return Dialect(Negotiated(EVENTS, "sse", asked.envelope, is_on_socket=True), read_message, has_names=True)
    return Dialect(Negotiated(CHUNKS, "sse", None, is_on_socket=True), read_plain, has_names=False)
