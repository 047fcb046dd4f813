"""The handshake of a WebSocket, and the end of those that are open; `integration/test_websocket.py` has the rest."""

from __future__ import annotations

import base64
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gai_fast.formats import get_format
from gai_fast.model.errors import Error
from gai_fast.model.settings import ServerSettings
from gai_fast.server.admission.admit import Admitted
from gai_fast.server.http.request import HTTPRequest
from gai_fast.server.http.transport import ClientTransport
from gai_fast.server.requests.incoming import Incoming
from gai_fast.server.websocket.handshake import WebSocketRoutes
from gai_fast.server.websocket.messages import read_message, read_plain
from gai_fast.server.websocket.turn_messages import read_turn
from gai_fast.server.websocket.turns import TurnSession
from gai_fast.stores.responses import KeptResponse

GOOD = {
    "host": "h",
    "upgrade": "WebSocket",
    "connection": "keep-alive, Upgrade",
    "sec-websocket-version": "13",
    "sec-websocket-key": base64.b64encode(b"x" * 16).decode(),
}


class Transport(ClientTransport):
    remote = "192.0.2.1"

    def __init__(self) -> None:
        self.runs: list[Any] = []

    def upgrade(self, run: Any) -> None:
        self.runs.append(run)


def incoming(headers: dict[str, str], query: dict[str, str] | None = None, *, is_http_1_1: bool = True) -> Incoming:
    http = HTTPRequest(Transport(), "GET", "/ws/stream", headers, is_http_1_1=is_http_1_1, keep_alive=True)
    admitted = Admitted("/ws/stream", headers)
    admitted.query = query or {}
    return Incoming(http, admitted, get_format("gai"))


def routes() -> WebSocketRoutes:
    return WebSocketRoutes(cast(Any, None), cast(Any, None), cast(Any, None))


@pytest.mark.parametrize(
    ("protocols", "reads"),
    [
        (None, read_plain),
        ("bearer.key", read_plain),
        ("gai.events.v1", read_message),
        ("bearer.key, gai.events.v1", read_message),
        ("other,gai.events.v1", read_message),
    ],
)
def test_a_handshake_leaves_the_connection_to_a_session_of_its_dialect(protocols: str | None, reads: Any) -> None:
    request = incoming(GOOD if protocols is None else {**GOOD, "sec-websocket-protocol": protocols})
    assert routes().open(request) is None
    (run,) = cast(Transport, request.http.transport).runs
    dialect = run.func.__self__._dialect
    assert dialect.read is reads
    assert dialect.has_names is (reads is read_message)
    assert dialect.form.transport == "ws"


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"upgrade": "h2c"}, 426),
        ({"sec-websocket-version": "8"}, 426),
        ({"connection": "close"}, 400),
        ({"content-length": "5"}, 400),
        ({"transfer-encoding": "chunked"}, 400),
        ({"sec-websocket-key": "AAAA"}, 400),
        ({"sec-websocket-key": "no base64 at all"}, 400),
        ({"sec-websocket-key": "é" * 24}, 400),
        ({"sec-websocket-protocol": "graphql-ws"}, 400),
    ],
)
def test_a_handshake_that_is_wrong_is_refused(change: dict[str, str], status: int) -> None:
    request = incoming({**GOOD, **change})
    reply = routes().open(request)
    assert reply is not None
    assert (reply.status, reply.close) == (status, True)
    assert cast(Transport, request.http.transport).runs == []
    assert (("sec-websocket-version", "13") in reply.headers) is (status == 426)


def turns() -> WebSocketRoutes:
    settings = SimpleNamespace(server=ServerSettings(max_body=5_000))
    made = WebSocketRoutes(
        cast(Any, SimpleNamespace(settings=settings, targets=SimpleNamespace(beside=None))),
        cast(Any, None),
        cast(Any, None),
    )
    made.router = cast(Any, SimpleNamespace(uploader=lambda http: ""))
    return made


@pytest.mark.parametrize("offers", [{}, {"sec-websocket-protocol": "realtime, bearer.key"}])
@pytest.mark.parametrize("program", ["codex_exec/0.1", "another"])
def test_a_socket_of_responses_takes_a_body_and_chooses_no_subprotocol(offers: dict[str, str], program: str) -> None:
    request = incoming({**GOOD, **offers, "user-agent": program})
    request.format = get_format("responses")
    assert turns().open_turns(request) is None
    (run,) = cast(Transport, request.http.transport).runs
    assert isinstance(run.func.__self__, TurnSession)
    dialect = run.func.__self__._dialect
    assert (dialect.read, dialect.most, dialect.protocols) == (read_turn, 5_000, ())
    assert (dialect.form.transport, dialect.form.name) == ("ws", "responses")
    assert dialect.form.format.keepalives is program.startswith("codex")


def test_sockets_forget_the_largest_conversations_until_enough_is_freed() -> None:
    made = turns()
    sockets: list[TurnSession] = []
    for size in (0, 100, 300, 200):
        request = incoming(GOOD)
        made.open_turns(request)
        (run,) = cast(Transport, request.http.transport).runs
        sockets.append(run.func.__self__)
        if size:
            output = b'{"output":[]}'
            own = b"x" * (size - len(output))
            sockets[-1].newest.note(KeptResponse(f"resp_{size}", "", "completed", own, output), ())
    request = incoming(GOOD)
    made.open(request)
    made.sessions |= {*sockets, cast(Transport, request.http.transport).runs[0].func.__self__}
    assert [each.newest.size for each in sockets] == [0, 100, 300, 200]
    assert made.forget(0) == 0
    assert made.forget(301) == 500
    assert [each.newest.identifier for each in sockets] == ["", "resp_100", "", ""]
    assert (made.forget(1_000), made.forget(1_000)) == (100, 0)


@pytest.mark.parametrize("change", [{"upgrade": ""}, {"upgrade": "h2c"}, {"sec-websocket-version": "8"}])
def test_without_an_upgrade_there_are_no_responses(change: dict[str, str]) -> None:
    reply = turns().open_turns(incoming({**GOOD, **change}))
    assert reply is not None
    assert (reply.status, ("upgrade", "websocket") in reply.headers) == (426, True)


def test_http_1_0_has_no_websocket() -> None:
    reply = routes().open(incoming(GOOD, is_http_1_1=False))
    assert reply is not None
    assert reply.status == 426


@pytest.mark.parametrize("query", [{"format": "openai"}, {"framing": "ndjson"}, {"envelope": "none"}, {"format": "?"}])
def test_a_form_that_a_socket_does_not_have_is_unsupported(query: dict[str, str]) -> None:
    with pytest.raises(Error) as caught:
        routes().open(incoming(GOOD, query))
    assert caught.value.code == "unsupported"


def test_a_drain_is_reported_to_every_open_socket() -> None:
    seen: list[int] = []
    on = routes()
    on.sessions = cast(Any, [SimpleNamespace(drain_if_idle=lambda: seen.append(1)) for _ in range(3)])
    on.begin_drain()
    assert on.is_draining
    assert seen == [1, 1, 1]
