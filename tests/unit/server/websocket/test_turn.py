"""One turn of a WebSocket of responses: its events, its one end, and what it takes out of the connection."""

from __future__ import annotations

import json

import pytest

from gai_fast.formats import get_format
from gai_fast.kernels import Borrower
from gai_fast.model.errors import Error
from gai_fast.model.settings import StreamSettings
from gai_fast.server.admission.admit import Admitted
from gai_fast.server.http.replies import Reply, StreamHead
from gai_fast.server.requests.incoming import Incoming
from gai_fast.server.requests.newest import Newest
from gai_fast.server.requests.stream_response import StreamResponse
from gai_fast.server.websocket.stream import FRAMES
from gai_fast.server.websocket.turn import SocketTurn
from gai_fast.stores.responses import KeptResponse
from tests.unit.formats.responses_reader import frame
from tests.unit.server.incoming_requests import http
from tests.unit.server.streams import FakeStream
from tests.unit.server.websocket.test_stream import LENDING, Request, Socket

CREATED = frame("response.created", 0, response={"id": "resp_theirs"})
DELTA = frame("response.output_text.delta", 1, delta="a")
COMPLETED = frame("response.completed", 2, response={"id": "resp_theirs"})
FAILED = frame("response.failed", 2, response={"id": "resp_theirs"})
ERROR = frame("error", 2, code="server_error", message="no", param=None)
REFUSAL = Reply(429, b'{"error":{"type":"t","code":"c","message":"m","param":null}}')


class Turns(Socket):
    def __init__(self) -> None:
        super().__init__()
        self.began: list[SocketTurn] = []

    def begun(self, turn: SocketTurn) -> None:
        self.began.append(turn)


class Refused(Request):
    def refusal(self, error: Error) -> Reply:
        return Reply(error.status, b'{"error":{"message":"%b"}}' % error.message.encode())


def begun(socket: Turns, continues: str = "") -> tuple[SocketTurn, FakeStream, Newest]:
    newest, fake = Newest(), FakeStream()
    newest.note(KeptResponse("resp_parent", "", "completed", b"[]", b"{}"), ())
    turn = SocketTurn(socket, "1", newest, continues)
    turn.incoming = Refused()
    turn.http = http("POST", "/v1/responses")
    turn.begin_stream(fake, high_water=LENDING, write_timeout=10.0)
    return turn, fake, newest


def kinds(socket: Turns) -> list[str]:
    return [each["type"] for each in socket.take()]


def test_events_are_messages_until_the_answer_has_ended() -> None:
    socket = Turns()
    turn, fake, newest = begun(socket, "resp_parent")
    assert turn.commit(StreamHead("text/event-stream", "r", "s")) == (b"", FRAMES)
    assert socket.began == [turn]
    turn.write(CREATED + DELTA)
    turn.log_frames(DELTA, 1)
    turn.log_frames(DELTA.replace(b"\n", b"\r\n"), 1)
    turn.write(b": ping\n\n")
    turn.write(b"")
    assert kinds(socket) == ["response.created", *["response.output_text.delta"] * 3]
    assert socket.pings == 1
    turn.write(COMPLETED)
    turn.answered(200)
    for late in (lambda: turn.write(DELTA), turn.abort, turn.lose, lambda: turn.send(REFUSAL)):
        late()
    turn.log_frames(DELTA, 1)
    assert (kinds(socket), socket.ends, fake.calls) == (["response.completed"], [200], [])
    assert newest.is_("resp_parent")


@pytest.mark.parametrize("end", ["failed", "error", "refused", "cut"])
@pytest.mark.parametrize("continues", ["resp_parent", "resp_other", ""])
def test_a_failed_turn_takes_the_response_that_it_continues_out(end: str, continues: str) -> None:
    socket = Turns()
    turn, _, newest = begun(socket, continues)
    if end == "refused":
        turn.send(REFUSAL)
        error = {"type": "t", "code": "c", "message": "m", "param": None}
        assert socket.take() == [{"type": "error", "status": 429, "error": error}]
    elif end == "cut":
        turn.write(CREATED)
        turn.abort()
        assert kinds(socket) == ["response.created", "error"]
    else:
        turn.write(CREATED)
        turn.write(FAILED if end == "failed" else ERROR)
        turn.answered(200)
        assert kinds(socket) == ["response.created", "response.failed" if end == "failed" else "error"]
    assert newest.is_("resp_parent") is (continues != "resp_parent")
    assert len(socket.ends) == 1


def test_while_the_server_drains_a_turn_that_breaks_off_says_nothing() -> None:
    socket = Turns()
    turn, _, newest = begun(socket, "resp_parent")
    socket.is_draining = True
    turn.abort()
    assert (socket.take(), socket.ends, newest.is_("resp_parent")) == ([], [499], True)


class Writer(Borrower):
    def end_writing(self) -> None:
        pass


def test_the_socket_is_lent_for_the_gateways_own_frames_alone() -> None:
    socket = Turns()
    turn, _, _ = begun(socket)
    assert turn.lend(Writer()) == -1, "nothing has been written"
    turn.write(CREATED)
    assert turn.lend(Writer()) == -1, "an upstream's"
    ours, _, _ = begun(socket)
    ours.write(CREATED.replace(b"resp_theirs", b"resp_"))  # this stream has no id
    assert ours.lend(Writer()) == 7
    ours.note_sent(5, 100)


def test_a_turn_has_two_ids_or_any() -> None:
    turn, _, _ = begun(Turns())
    assert turn.is_of("")
    assert not turn.is_of("resp_"), "its stream has no id yet"
    assert not turn.is_of("resp_theirs")
    turn.write(CREATED)
    assert turn.is_of("resp_theirs")
    assert not turn.is_of("resp_other")
    incoming = Incoming(turn.http, Admitted("/v1/responses", {}), get_format("responses"))
    turn.http.transport = turn
    StreamResponse(incoming, "ours", "text/event-stream", StreamSettings(), whole=False)
    assert turn.is_of("resp_ours")
    assert turn.is_of("resp_theirs")
    assert not turn.is_of("resp_")


def test_messages_are_objects() -> None:
    socket = Turns()
    turn, _, _ = begun(socket)
    turn.write(CREATED)
    assert socket.take() == [json.loads(CREATED.partition(b"data: ")[2])]
