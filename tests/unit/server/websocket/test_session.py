"""One open socket without a connection: which message does what; `integration/test_websocket.py` has real ones."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gai_fast.formats import get_format
from gai_fast.kernels import Borrower
from gai_fast.model.errors import Error
from gai_fast.model.metrics import StreamMetrics
from gai_fast.model.settings import ServerSettings, StreamSettings
from gai_fast.server.admission.admit import Admission, Admitted
from gai_fast.server.admission.negotiation import Negotiated
from gai_fast.server.http.request import HTTPRequest
from gai_fast.server.observe.counts import StreamCounts
from gai_fast.server.openapi.operation import Operation
from gai_fast.server.requests.incoming import Incoming
from gai_fast.server.requests.newest import Remembered
from gai_fast.server.routes.router import Mount, Router
from gai_fast.server.routes.table import PATHS, Handlers, Route
from gai_fast.server.websocket.formats import EVENTS
from gai_fast.server.websocket.frame_guard import Violation
from gai_fast.server.websocket.messages import read_message
from gai_fast.server.websocket.session import Dialect, SocketSession
from tests.limits import LIMITS
from tests.unit.fake_loop import FakeLoop
from tests.unit.kernels._pure.test_messages import messages
from tests.unit.server.incoming_requests import Remote

TESTED = Operation("A route of a test.", "Server", {200: {}})


class Connection:
    """The connection of a socket: it is sent what the test says."""

    def __init__(self) -> None:
        self.written = b""
        self.unsent = 0
        self.is_paused = False
        self.closed: Violation | None = None

    def write(self, data: bytes) -> None:
        self.written += data

    def lend(self, borrower: Borrower) -> int:
        return 7

    def take_back(self) -> None:
        pass

    async def close(self, violation: Violation) -> None:
        self.closed = violation

    def take(self) -> list[Any]:
        written, self.written = self.written, b""
        return [json.loads(message) for message in messages(written)]


class Counts(StreamCounts):
    def __init__(self) -> None:
        super().__init__([])
        self.ended: list[int] = []

    def request_ended(self, endpoint: str, status: int, stream: StreamMetrics) -> None:
        assert endpoint == "/ws/stream"
        self.ended.append(status)

    def request_refused(self, endpoint: str, status: int, code: str) -> None:
        assert endpoint == "/ws/stream"
        self.ended.append(status)


class Home:
    """The routes: a request is held, or refused if its model is `none`."""

    def __init__(self) -> None:
        self.counts = Counts()
        self.is_draining = False
        self.sessions: set[Any] = set()
        self.remembered = Remembered()
        self.asked: list[Incoming] = []
        self.engine = SimpleNamespace(
            settings=SimpleNamespace(stream=StreamSettings(client_buffer=1000), server=ServerSettings(max_body=1000)),
            timers=FakeLoop(),
            store=SimpleNamespace(find_here=lambda _: None),
        )
        self.streams = SimpleNamespace(
            native=self.native, durable=SimpleNamespace(resume=self.native, cancel=self.cancel)
        )
        self.router = Router(
            Admission(ServerSettings(), paths=PATHS, only_demo=True),
            Handlers(*[cast(Any, None)] * 6),  # the one route of this table needs none
            self.counts,
            Mount(on_loopback=True),
            routes=(
                Route("GET", "/ws/stream", lambda on: self.native, TESTED, whole=False),
                Route("POST", "/api/v1/stream", lambda on: self.native, TESTED, whole=False),
            ),
        )

    def native(self, incoming: Incoming) -> None:
        self.asked.append(incoming)
        if b"none" in incoming.http.body:
            raise Error("not_found", "no such model")

    def cancel(self, incoming: Incoming) -> Any:
        self.asked.append(incoming)
        return incoming.json_reply({}, status=202)


def session(home: Home) -> tuple[SocketSession, Connection]:
    http = HTTPRequest(Remote(), "GET", "/ws/stream", {}, is_http_1_1=True, keep_alive=True)
    incoming = Incoming(http, Admitted("/ws/stream", {}), get_format("gai"))
    dialect = Dialect(Negotiated(EVENTS, "sse", None, is_on_socket=True), read_message, has_names=True)
    made, connection = SocketSession(cast(Any, home), incoming, dialect), Connection()
    made._socket = cast(Any, connection)
    made.write = connection.write
    return made, connection


def tell(made: SocketSession, **message: Any) -> Violation | None:
    read = read_message(json.dumps(message).encode())
    assert not isinstance(read, Violation)
    return made._handle(read)


def ask(made: SocketSession, stream: str, **request: Any) -> Violation | None:
    return tell(made, stream=stream, type="request", request=request)


async def test_requests_are_answered_as_if_each_had_come_alone() -> None:
    home = Home()
    made, connection = session(home)
    assert ask(made, "a", query="x") is None
    assert tell(made, stream="b", type="resume", after="s.3") is None
    assert ask(made, "c", model="none") is None
    first, second, _ = home.asked
    assert (first.http.body, first.path, first.format) == (b'{"query": "x"}', "/ws/stream", EVENTS)
    assert second.http.headers["last-event-id"] == "s.3"
    assert len({each.http.request_id for each in home.asked}) == 3
    assert [each["type"] for each in connection.take()] == ["error", "done"]
    assert home.counts.ended == [404]


async def test_an_id_in_use_is_a_violation_until_its_stream_has_ended() -> None:
    made, _ = session(Home())
    ask(made, "a", query="x")
    for message in ({"type": "request", "request": {}}, {"type": "resume", "after": "s.1"}):
        problem = tell(made, stream="a", **message)
        assert problem is not None
        assert problem.code == 1008
    made._streams["a"].answered(200)
    assert ask(made, "a", query="x") is None


async def test_messages_of_streams_that_have_ended_do_nothing() -> None:
    home = Home()
    made, connection = session(home)
    assert tell(made, stream="a", type="cancel") is None
    assert tell(made, stream="a", type="ack", seq=4) is None
    assert home.asked == []
    assert tell(made, type="ping") is None
    assert connection.take() == [{"type": "pong"}]


async def test_a_cancel_names_the_stream_that_the_socket_carries() -> None:
    home = Home()
    made, connection = session(home)
    ask(made, "a", query="x")
    tell(made, stream="a", type="cancel")
    assert home.asked[1].tail == made._streams["a"].stream_id
    assert connection.take() == []
    tell(made, stream="a", type="cancel")
    assert len(home.asked) == 2


async def test_a_socket_is_lent_to_its_only_stream() -> None:
    made, _ = session(Home())
    ask(made, "a", query="x")
    assert made.lend(cast(Any, None)) == 7
    ask(made, "b", query="x")
    assert made.lend(cast(Any, None)) == -1
    made._streams["a"].answered(200)
    assert made.lend(cast(Any, None)) == 7
    made.violated(Violation(1008, "why"))
    assert made.lend(cast(Any, None)) == -1


async def test_messages_behind_a_violation_do_nothing() -> None:
    home = Home()
    made, connection = session(home)
    made.message_received(b"no JSON")
    made.message_received(b'{"stream":"a","type":"request","request":{}}')
    made.message_received(b'{"type":"ping"}')
    assert made._closing is not None
    await made._closing
    assert (home.asked, connection.written) == ([], b"")
    assert connection.closed is not None
    assert connection.closed.code == 1007


async def test_a_socket_has_no_more_streams_than_the_limit() -> None:
    home = Home()
    made, connection = session(home)
    for number in range(LIMITS.socket_streams + 2):
        assert ask(made, str(number), query="x") is None
    errors = [each["error"] for each in connection.take() if each["type"] == "error"]
    assert [(each["code"], each["reason"]) for each in errors] == [("rate_limited", "socket_streams")] * 2


async def test_a_request_is_no_larger_than_the_body_of_one_over_http() -> None:
    made, connection = session(Home())
    ask(made, "a", query="x" * 987)
    assert connection.take() == []
    ask(made, "b", query="x" * 988)
    error, done = connection.take()
    assert (error["error"]["code"], error["error"]["reason"]) == ("invalid_request", "max_body")
    assert done == {"stream": "b", "type": "done", "finished": False}


async def test_while_the_server_drains_streams_are_refused_and_the_idle_socket_is_closed() -> None:
    home = Home()
    made, connection = session(home)
    ask(made, "a", query="x")
    home.is_draining = True
    made.drain_if_idle()
    assert made._closing is None
    ask(made, "b", query="x")
    assert connection.take()[0]["error"]["reason"] == "draining"
    made._streams["a"].answered(200)
    assert made._closing is not None
    await made._closing
    assert connection.closed is not None
    assert connection.closed.code == 1012


async def test_a_violation_ends_every_stream_once() -> None:
    home = Home()
    made, connection = session(home)
    for name in "abc":
        ask(made, name, query="x")
    stream = made._streams["a"]
    made.violated(Violation(1008, "x"))
    made.violated(Violation(1002, "y"))
    assert made._closing is not None
    await made._closing
    assert connection.closed == Violation(1008, "x")
    assert home.counts.ended == []  # no stream had begun, so nothing is counted
    assert made._streams == {}
    stream.write(b'event: done\ndata: {"type":"done"}\n\n')
    made.answer(b"x")
    made.ping()
    assert connection.take() == []


async def test_every_stream_is_lost_with_its_socket_whatever_one_of_them_raises() -> None:
    made, _ = session(Home())
    lost: list[str] = []

    class Response:
        def __init__(self, name: str) -> None:
            self.name = name

        def connection_lost(self) -> None:
            lost.append(self.name)
            if self.name == "b":
                raise RuntimeError("a bug")

    for name in "abc":
        ask(made, name, query="x")
        made._streams[name].begin_stream(cast(Any, Response(name)), high_water=1000, write_timeout=1.0)
    with pytest.raises(RuntimeError, match="a bug"):
        made.connection_lost()
    assert sorted(lost) == ["a", "b", "c"]
    assert made._streams == {}


async def test_a_slow_client_may_ping_while_a_large_event_is_on_its_way() -> None:
    made, connection = session(Home())
    connection.unsent, connection.is_paused = 8 * LIMITS.socket_unsent, True
    tell(made, type="ping")
    assert made._closing is None
    for connection.is_paused in (True, False) * 300:  # what it has read counts no longer
        made.answer(b"x" * 1000)
    assert made._closing is None


async def test_answers_that_are_not_read_end_the_socket() -> None:
    made, connection = session(Home())
    connection.is_paused = True
    pong = b"x" * 1000
    for _ in range(LIMITS.socket_unsent // len(pong)):
        made.answer(pong)
    assert made._closing is None
    made.answer(pong)
    assert made._closing is not None
    await asyncio.wait((made._closing,))
    assert connection.closed is not None
    assert connection.closed.code == 1008
