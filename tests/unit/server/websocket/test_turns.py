"""A socket of responses without a connection: what begins, what waits, what is refused."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gai_fast.formats import get_format
from gai_fast.model.errors import Error
from gai_fast.model.settings import LimitSettings, ServerSettings
from gai_fast.server.admission.admit import Admission, Admitted
from gai_fast.server.admission.negotiation import Negotiated
from gai_fast.server.admission.server_limits import ServerLimits
from gai_fast.server.http.request import HTTPRequest
from gai_fast.server.observe.counts import StreamCounts
from gai_fast.server.requests.incoming import Incoming
from gai_fast.server.requests.newest import Remembered
from gai_fast.server.routes.router import Mount, Router
from gai_fast.server.routes.table import PATHS, Handlers, Route
from gai_fast.server.websocket.frame_guard import Violation
from gai_fast.server.websocket.session import Dialect
from gai_fast.server.websocket.turn_messages import Create, read_turn
from gai_fast.server.websocket.turns import TurnSession, WaitingTurns
from tests.limits import LIMITS
from tests.unit.fake_loop import FakeLoop
from tests.unit.server.incoming_requests import Remote
from tests.unit.server.websocket.test_session import TESTED, Connection

PATH = "/v1/responses"
HEADERS = {"user-agent": "a program", "session-id": "s1", "idempotency-key": "k", "accept": "x", "x-request-id": "one"}


class Home:
    """The routes: a request is held until the test ends it."""

    def __init__(self, max_body: int = 1_000) -> None:
        self.is_draining = False
        self.sessions: set[Any] = set()
        self.remembered = Remembered()
        self.asked: list[Incoming] = []
        self.engine = SimpleNamespace(
            settings=SimpleNamespace(server=ServerSettings(max_body=max_body)),
            targets=SimpleNamespace(beside=None),
            timers=FakeLoop(),
            streams={},
        )
        self.streams: Any = None
        self.server_limits = ServerLimits(LimitSettings())
        self.router = Router(
            Admission(ServerSettings(), paths=PATHS, only_demo=True),
            Handlers(*[cast(Any, None)] * 6),
            StreamCounts([]),
            Mount(on_loopback=True),
            routes=(Route("POST", PATH, lambda on: self.hold, TESTED, format="responses", whole=False),),
        )

    def hold(self, incoming: Incoming) -> None:
        self.asked.append(incoming)
        if b"none" in incoming.http.body:
            raise Error("not_found", "no such model")


def opened(home: Home) -> tuple[TurnSession, Connection]:
    http = HTTPRequest(Remote(), "GET", PATH, HEADERS, is_http_1_1=True, keep_alive=True)
    incoming = Incoming(http, Admitted(PATH, HEADERS), get_format("responses"))
    form = Negotiated(incoming.format, "sse", None, is_on_socket=True)
    made, connection = TurnSession(cast(Any, home), incoming, Dialect(form, read_turn, has_names=False)), Connection()
    made._socket = cast(Any, connection)
    made.write = connection.write
    return made, connection


def create(made: TurnSession, text: str = "a", **members: Any) -> None:
    made.message_received(json.dumps({"type": "response.create", "input": text, **members}).encode())


def end(home: Home, at: int = -1) -> None:
    home.asked[at].http.transport.answered(200)


async def test_a_create_is_a_post_with_the_headers_that_count() -> None:
    home = Home()
    made, _ = opened(home)
    create(made)
    [asked] = home.asked
    assert (asked.http.method, asked.path, asked.format.name) == ("POST", PATH, "responses")
    assert asked.http.headers == {
        "content-type": "application/json", "user-agent": "a program", "session-id": "s1",
    }  # fmt: skip
    assert asked.newest is made.newest
    assert asked.form is not None
    assert asked.form.transport == "ws"
    assert asked.http.request_id not in ("", "one")


async def test_one_at_a_time_and_the_others_in_order() -> None:
    home = Home()
    made, connection = opened(home)
    for number in range(4 + LIMITS.socket_turns):
        create(made, str(number))
    assert len(home.asked) == 1
    refused = connection.take()
    assert [each["status"] for each in refused] == [429] * 3
    for number in range(1, 1 + LIMITS.socket_turns):
        end(home)
        assert len(home.asked) == number, "the next one begins in another turn of the loop"
        create(made, "late") if number == 1 else None
        await asyncio.sleep(0)
        assert json.loads(home.asked[number].http.body)["input"] == str(number)


async def test_a_refused_turn_is_followed_by_the_next_one() -> None:
    home = Home()
    made, connection = opened(home)
    for text in ("a", "none", "none", "b"):
        create(made, text)
    end(home)
    for _ in range(4):
        await asyncio.sleep(0)
    assert [each["status"] for each in connection.take()] == [404, 404]
    assert json.loads(home.asked[-1].http.body)["input"] == "b"


@pytest.mark.parametrize("size", [400, 900])
def test_what_waits_is_bounded_in_bytes(size: int) -> None:
    waiting = WaitingTurns(1_000, ServerLimits(LimitSettings()), "")
    most = 1_000 // size
    for number in range(most):
        waiting.add(Create(b"x" * size, str(number)))
    with pytest.raises(Error) as caught:
        waiting.add(Create(b"x" * size, ""))
    assert (caught.value.code, caught.value.reason, caught.value.temporary) == ("rate_limited", "socket_queue", True)
    assert waiting.take().continues == "0"
    waiting.add(Create(b"x" * size, "last"))
    waiting.clear()
    assert len(waiting) == 0
    for _ in range(LIMITS.socket_turns):
        waiting.add(Create(b"", ""))
    with pytest.raises(Error):
        waiting.add(Create(b"", ""))


async def test_what_waits_counts_as_uploaded_until_it_begins_or_its_socket_ends() -> None:
    home = Home()
    home.server_limits.use(LimitSettings(upload_bytes=1_000))
    made, _ = opened(home)
    other, connection = opened(home)
    create(made)
    assert home.server_limits.uploading == 0, "it has begun"
    create(made, "x" * 800)
    waiting = home.server_limits.uploading
    assert waiting > 800
    create(other)
    create(other, "x" * 200)
    assert home.server_limits.uploading == waiting, "there is no room for it"
    [refused] = connection.take()
    assert (refused["status"], refused["error"]["code"]) == (503, "overloaded")
    end(home, 0)
    await asyncio.sleep(0)
    assert home.server_limits.uploading == 0
    create(made, "x" * 800)
    assert home.server_limits.uploading == waiting
    for _ in range(2):
        made.connection_lost()
        assert home.server_limits.uploading == 0


async def test_a_caller_waits_with_half_of_the_uploads_or_with_one_socket() -> None:
    limits = ServerLimits(LimitSettings(upload_bytes=1_000))
    first, second = WaitingTurns(2_000, limits, "alice"), WaitingTurns(2_000, limits, "alice")
    for _ in range(2):
        first.add(Create(b"x" * 300, ""))
    with pytest.raises(Error) as caught:
        second.add(Create(b"x", ""))
    assert (caught.value.code, caught.value.reason) == ("overloaded", "upload")
    first.clear()
    second.add(Create(b"x" * 600, ""))


async def test_a_wrong_message_is_an_error_and_nothing_more() -> None:
    home = Home()
    made, connection = opened(home)
    made.message_received(b"nonsense")
    made.message_received(b'{"type":"response.processed"}')
    made.message_received(b'{"type":"response.cancel"}')
    [error] = connection.take()
    assert (error["type"], error["status"], error["error"]["code"]) == ("error", 400, "invalid_request")
    assert made._closing is None
    made.message_received(b"\xff")
    assert made._closing is not None
    await made._closing
    assert connection.closed is not None
    assert connection.closed.code == 1007


async def test_a_cancel_reaches_the_stream_or_waits_for_it() -> None:
    home = Home()
    made, _ = opened(home)
    cancelled: list[str] = []
    home.engine.cancel = cancelled.append
    create(made)
    made.message_received(b'{"type":"response.cancel"}')
    assert cancelled == [], "it has no stream yet"
    [turn] = made._streams.values()
    home.engine.streams[turn.stream_id] = None
    made.begun(cast(Any, turn))
    await asyncio.sleep(0)
    assert cancelled == [""]
    made.message_received(b'{"type":"response.cancel","response_id":"resp_other"}')
    assert cancelled == [""]


async def test_while_the_server_drains_what_waits_is_refused() -> None:
    home = Home()
    made, connection = opened(home)
    for _ in range(3):
        create(made)
    home.is_draining = True
    made.drain_if_idle()
    create(made)
    assert [each["status"] for each in connection.take()] == [503] * 3
    assert connection.closed is None
    end(home)
    assert made._closing is not None
    await made._closing
    assert cast(Violation, connection.closed).code == 1012


async def test_a_client_that_has_left_has_nothing_begun() -> None:
    home = Home()
    made, _ = opened(home)
    for _ in range(3):
        create(made)
    end(home)
    made.connection_lost()
    await asyncio.sleep(0)
    assert len(home.asked) == 1
