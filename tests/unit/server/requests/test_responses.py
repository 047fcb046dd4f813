"""`gai_fast/server/requests/responses.py`: how a response is named, what its log tells, and who may see it."""

from __future__ import annotations

import asyncio
import json
from threading import get_ident
from typing import Any

import pytest

from gai_fast.formats import KeptAnswer, get_format
from gai_fast.formats.responses.chain import written
from gai_fast.formats.responses.pages import items_page
from gai_fast.kernels import encode_json
from gai_fast.model.errors import Error
from gai_fast.net.engine.engine import Engine
from gai_fast.net.logs.closing import closing_of
from gai_fast.server.http.replies import Reply
from gai_fast.server.requests import responses
from gai_fast.server.requests.durable import DurableRoutes
from gai_fast.server.requests.incoming import Incoming
from gai_fast.server.requests.responses import ResponseRoutes, response_of
from gai_fast.stores import Ending, LogHeader, StreamLog
from gai_fast.stores._base import EndsInstead
from gai_fast.stores.responses import KeptResponse
from tests.unit.formats.responses_reader import RESPONSES, streamed
from tests.unit.formats.streams import DONE, START, STREAM_ID, context, encoded, finish, text
from tests.unit.server.requests.test_durable import SETTINGS, ask, refused
from tests.unit.server.requests.test_stream_response import FakeConnection
from tests.waiting import until

TAIL = f"resp_{STREAM_ID}"


class Fixture:
    """The routes over an engine whose store has the log of one response."""

    def __init__(
        self, body: bytes = b"", *, format_name: str = "responses", framing: Any = "sse", lost: int = 0
    ) -> None:
        self.engine = Engine(SETTINGS, asyncio.get_running_loop())
        self.durable = DurableRoutes(self.engine)
        self.routes = ResponseRoutes(self.engine, self.durable)
        self.log: StreamLog = self.engine.store.create(LogHeader(STREAM_ID, "anonymous", "m", format_name, framing))
        if lost:
            self.log.skip(lost, None)
        if body:
            self.log.append(body, lost + 8)


def ask_for(query: str = "", tail: str = TAIL, **more: Any) -> Incoming:
    return ask(tail, query, **more)


async def answer_to(call: Any, asked: Incoming) -> Reply:
    """Returns the answer to a request, at once or after a look at what is kept."""
    try:
        reply = call(asked)
    except Error as error:
        reply = asked.refusal(error)
    if reply is None:
        connection: Any = asked.http.transport
        await until(lambda: bool(connection.ends))
        (reply,) = connection.ends
    assert isinstance(reply, Reply)
    return reply


async def error_of(call: Any, asked: Incoming) -> tuple[int, Any]:
    reply = await answer_to(call, asked)
    return reply.status, json.loads(reply.body)["error"]["message"]


UNKNOWN = (404, "there is no such response here: it is unknown, or no longer kept")


def body_of(reply: Reply | None) -> Any:
    assert reply is not None
    assert reply.status == 200
    return json.loads(reply.body)


@pytest.mark.parametrize(
    "tail",
    ["", "resp_", STREAM_ID, f"{TAIL}/", f"{TAIL}/cancel", f"{TAIL}.1", "a" * 129, "a" * 5000, "a\n", "é", "a b"],
)
async def test_what_is_no_name_of_a_response_is_unknown(tail: str) -> None:
    routes = Fixture().routes
    for call in (routes.retrieve, routes.delete, routes.input_items, routes.cancel):
        assert await error_of(call, ask_for(tail=tail)) == UNKNOWN


@pytest.mark.parametrize(
    "query", ["stream=1", "stream=true&starting_after=", "starting_after=01", "starting_after=1e3"]
)
async def test_wrong_parameters_are_refused(query: str) -> None:
    assert refused(Fixture().routes.retrieve, ask_for(query)) == (400, "query")


async def test_a_response_of_another_caller_or_format_is_the_same_as_none() -> None:
    routes = Fixture(streamed()).routes
    for call in (routes.retrieve, routes.delete, routes.input_items, routes.cancel):
        assert await error_of(call, ask_for(caller="bob")) == UNKNOWN
    assert await error_of(routes.retrieve, ask_for("stream=true", caller="bob")) == UNKNOWN
    other = Fixture(format_name="gai")
    assert await error_of(other.routes.retrieve, ask_for()) == UNKNOWN
    assert await error_of(other.routes.retrieve, ask_for("stream=true")) == UNKNOWN
    assert await error_of(other.routes.delete, ask_for()) == UNKNOWN


async def test_the_response_so_far() -> None:
    assert body_of(Fixture().routes.retrieve(ask_for()))["status"] == "queued"
    assert body_of(Fixture(streamed(text("Hi"))).routes.retrieve(ask_for()))["status"] == "in_progress"
    complete = body_of(Fixture(streamed(text("Hi"), finish(), DONE)).routes.retrieve(ask_for("stream=false")))
    assert (complete["status"], complete["output"][0]["content"][0]["text"]) == ("completed", "Hi")


async def test_a_response_whose_writer_is_gone_has_failed() -> None:
    stream = Fixture(streamed(text("Hi")))
    stream.log.break_off(Error("network", "gone", reason="worker_lost"))
    result = response_of(stream.log)
    assert (result["status"], result["error"]) == ("failed", {"code": "server_error", "message": "gone"})


async def test_a_response_that_another_worker_closed_has_failed_and_was_never_kept() -> None:
    stream = Fixture(streamed(text("Hi"), ids=True, stream_id=STREAM_ID))
    former = response_of(stream.log)
    piece, last_seq, ending, *_ = closing_of(stream.log, stream.log.last_seq + (1 << 20), EndsInstead())
    stream.log.append(piece, last_seq)
    stream.log.end(ending)
    result = body_of(await answer_to(stream.routes.retrieve, ask_for()))
    assert (result["status"], result["error"]["code"]) == ("failed", "server_error")
    assert (result["model"], result["output"], result["created_at"]) == (
        former["model"],
        former["output"],
        former["created_at"],
    )
    assert body_of(await answer_to(stream.routes.delete, ask_for()))["deleted"]


async def test_a_response_that_another_worker_closed_as_cancelled_has_what_it_began_with() -> None:
    stream = Fixture(streamed(text("Hi"), ids=True, stream_id=STREAM_ID, echo={"metadata": {"a": "b"}}))
    former, number = response_of(stream.log), stream.log.last_seq + (1 << 20)
    piece, last_seq, ending, *_ = closing_of(stream.log, number, EndsInstead(is_cancelled=True))
    [frame] = piece.split(b"\n\n")[:-1]
    data = json.loads(frame.partition(b"data: ")[2])
    assert (data["type"], data["sequence_number"]) == ("response.incomplete", last_seq) == (data["type"], number + 1)
    stream.log.append(piece, last_seq)
    stream.log.end(ending)
    result = body_of(await answer_to(stream.routes.retrieve, ask_for()))
    assert former["metadata"] == {"a": "b"}
    assert result == {**former, "status": "cancelled"}


async def test_a_response_that_was_cancelled_before_it_said_anything_is_as_its_client_got_it() -> None:
    body = streamed(finish("cancelled"), DONE, ids=True, stream_id=STREAM_ID, echo={"metadata": {"a": "b"}})
    stream = Fixture(body)
    stream.log.last_seq = 2
    stream.log.end(Ending("cancelled", "cancelled"))
    data = [json.loads(each.partition(b"data: ")[2]) for each in body.split(b"\n\n")[:-1]]
    assert body_of(await answer_to(stream.routes.retrieve, ask_for())) == data[-1]["response"]


@pytest.mark.parametrize("body", [b"", streamed(text("Hi"))], ids=["nothing", "a part"])
@pytest.mark.parametrize(
    "problem", [Error("overloaded", "no", reason="store_sealed"), Error("internal", "no", reason="log_damaged")]
)
async def test_a_response_whose_log_cannot_be_read_has_not_failed(body: bytes, problem: Error) -> None:
    """It had completed, and was reported as failed after its copy was damaged, or its key was gone."""
    stream = Fixture(body)
    stream.log.break_off(problem)
    for call, asked in (
        (stream.routes.retrieve, ask_for()),
        (stream.routes.cancel, ask_for(tail=f"{TAIL}", method="POST")),
    ):
        assert await error_of(call, asked) == (problem.status, "no")


async def test_a_response_that_is_there_is_told_though_the_end_of_its_log_is_not() -> None:
    stream = Fixture(streamed(text("Hi"), finish(), DONE))
    stream.log.break_off(Error("internal", "no", reason="log_damaged"))
    assert response_of(stream.log)["status"] == "completed"


async def test_a_log_that_has_lost_the_response_says_so() -> None:
    body = b'id: x.9\ndata: {"type":"response.output_text.delta","sequence_number":9}\n\n'
    assert refused(Fixture(body, lost=5).routes.retrieve, ask_for()) == (404, "gap")


async def test_a_whole_answer_that_is_kept_is_a_response() -> None:
    whole = encoded(RESPONSES.whole(context()), [START, text("Hi"), finish(), DONE])
    stream = Fixture(whole, framing="json")
    stream.log.end(Ending("finished"))
    assert body_of(await answer_to(stream.routes.retrieve, ask_for())) == json.loads(whole)
    failed = Fixture(framing="json")
    failed.log.end(Ending("failed", error=Error("network", "gone").payload()))
    assert await error_of(failed.routes.retrieve, ask_for()) == (502, "gone")


@pytest.mark.parametrize("number", [-1, 0, 3, 8])
async def test_the_stream_behind_a_number(number: int) -> None:
    stream = Fixture(streamed(text("Hi"), finish(), DONE, ids=True))
    stream.log.end(Ending("finished"))
    connection = FakeConnection()
    query = "stream=true" if number < 0 else f"stream=true&starting_after={number}"
    assert stream.routes.retrieve(ask_for(query, connection=connection)) is None
    await until(lambda: bool(connection.ends))
    found = [int(part.split(b",")[0]) for part in connection.bytes.split(b'"sequence_number":')[1:]]
    assert found == list(range(number + 1, 9))


async def test_a_slow_client_gets_no_frame_that_it_has_either() -> None:
    stream = Fixture()
    connection = FakeConnection()
    assert stream.routes.retrieve(ask_for("stream=true&starting_after=3", connection=connection)) is None
    follower = connection.stream
    follower.pause_writing()
    stream.log.append(streamed(text("Hi"), finish(), DONE, ids=True), 8)
    stream.log.end(Ending("finished"))
    follower.resume_writing()
    await until(lambda: bool(connection.ends))
    found = [int(part.split(b",")[0]) for part in connection.bytes.split(b'"sequence_number":')[1:]]
    assert found == [4, 5, 6, 7, 8]


async def test_a_response_that_ended_is_reported_when_it_is_cancelled() -> None:
    stream = Fixture(streamed(text("Hi"), finish(), DONE))
    stream.log.end(Ending("finished"))
    assert body_of(await answer_to(stream.routes.cancel, ask_for(method="POST")))["status"] == "completed"


async def test_a_response_whose_end_is_not_logged_yet_counts_as_cancelled() -> None:
    stream = Fixture(streamed(text("Hi")))
    assert response_of(stream.log, "cancelled")["status"] == "cancelled"


# ---- what is kept ----------------------------------------------------------------------------------------------------


def kept(identifier: str = TAIL, status: str = "completed", **members: Any) -> KeptResponse:
    response = {"id": identifier, "object": "response", "status": status, "output": [], "store": True, **members}
    return KeptResponse(identifier, "", status, b'[{"role":"user","content":"Hi"}]', encode_json(response))


@pytest.mark.parametrize("identifier", ["a", "resp_~.x", "a" * 128, TAIL])
async def test_a_kept_response_is_told_as_its_client_got_it(identifier: str) -> None:
    stream = Fixture() if identifier != TAIL else Fixture(streamed(text("other"), finish(), DONE))
    stream.log.end(Ending("finished"))
    one = kept(identifier, "cancelled")
    assert stream.engine.store.responses.keep("anonymous", one)
    for call in (stream.routes.retrieve, stream.routes.cancel):
        reply = await answer_to(call, ask_for("include=x", tail=identifier))
        assert (reply.status, reply.body) == (200, one.response)
    assert await error_of(stream.routes.retrieve, ask_for(tail=identifier, caller="bob")) == UNKNOWN
    assert await error_of(stream.routes.delete, ask_for(tail=identifier, caller="bob")) == UNKNOWN


async def test_a_deleted_response_is_unknown_and_its_log_is_gone() -> None:
    stream = Fixture(streamed(text("Hi"), finish(), DONE))
    stream.log.end(Ending("finished"))
    stream.engine.store.responses.keep("anonymous", kept())
    deleted = body_of(await answer_to(stream.routes.delete, ask_for()))
    assert deleted == {"id": TAIL, "object": "response", "deleted": True}
    assert stream.engine.store.find_here(STREAM_ID) is None
    for call in (stream.routes.delete, stream.routes.retrieve, stream.routes.cancel, stream.routes.input_items):
        assert await error_of(call, ask_for()) == UNKNOWN


async def test_a_log_that_outlives_the_deletion_tells_nothing() -> None:
    """In a process that had read it before."""
    said = KeptAnswer(is_kept=True)
    stream = Fixture(streamed(text("Hi"), finish(), DONE, kept=said))
    stream.log.end(Ending("finished"))
    for call in (stream.routes.retrieve, stream.routes.cancel):
        assert await error_of(call, ask_for()) == UNKNOWN
    assert await error_of(stream.routes.retrieve, ask_for("stream=true")) == UNKNOWN
    assert await error_of(stream.routes.delete, ask_for()) == UNKNOWN


async def test_a_response_that_is_only_logged_is_deleted_too() -> None:
    stream = Fixture(streamed(text("Hi"), finish(), DONE))
    stream.log.end(Ending("finished"))
    assert (await answer_to(stream.routes.delete, ask_for())).status == 200
    assert await error_of(stream.routes.delete, ask_for()) == UNKNOWN


async def test_a_response_that_runs_is_not_deleted() -> None:
    stream = Fixture(streamed(text("Hi")))
    assert refused_with(await answer_to(stream.routes.delete, ask_for())) == (409, "invalid_request")
    assert stream.engine.store.find_here(STREAM_ID) is stream.log


def refused_with(reply: Reply) -> tuple[int, str]:
    return reply.status, json.loads(reply.body)["error"]["code"]


async def test_the_stream_of_a_response_whose_log_is_gone_is_refused() -> None:
    stream = Fixture()
    stream.engine.store.responses.keep("anonymous", kept("resp_theirs"))
    reply = await answer_to(stream.routes.retrieve, ask_for("stream=true", tail="resp_theirs"))
    assert refused_with(reply) == (400, "invalid_request")


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "limit=", "order=newest", "order=", "limit=01"])
async def test_a_page_that_cannot_be_is_refused(query: str) -> None:
    stream = Fixture()
    stream.engine.store.responses.keep("anonymous", kept())
    assert refused(stream.routes.input_items, ask_for(query)) == (400, "query")


async def test_the_items_of_the_request() -> None:
    stream = Fixture()
    stream.engine.store.responses.keep("anonymous", kept())
    page = body_of(await answer_to(stream.routes.input_items, ask_for("limit=100&order=asc")))
    (item,) = page["data"]
    assert (item["type"], item["role"], item["content"]) == ("message", "user", [{"type": "input_text", "text": "Hi"}])
    assert (page["first_id"], page["has_more"]) == (item["id"], False)
    assert (await answer_to(stream.routes.input_items, ask_for("after=msg_x"))).status == 404


async def test_a_page_of_a_long_list_is_read_beside_the_loop_and_of_a_short_one_in_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads: list[int] = []

    def read(*arguments: Any) -> Any:
        threads.append(get_ident())
        return items_page(*arguments)

    monkeypatch.setattr(responses, "items_page", read)
    stream = Fixture()
    items = [{"role": "user", "content": "Hi"}] * 98_000
    for given in (items[:1], items):
        stream.engine.store.responses.keep("anonymous", kept()._replace(input=written(given, 5).text))
        page = body_of(await answer_to(stream.routes.input_items, ask_for("limit=1")))
        assert (len(page["data"]), page["has_more"]) == (1, len(given) > 1)
    assert [thread == get_ident() for thread in threads] == [True, False]
    stream.engine.targets.beside.close()


def of_events(*events: Any, kept: bool | None = None) -> Fixture:
    """Returns the routes over a log of events, as each durable stream of the route has one."""
    fixture = Fixture()
    fixture.engine.store.memory.forget(fixture.log)
    header = LogHeader(STREAM_ID, "anonymous", "m", "gai", "sse", "compact", dialect="responses")
    fixture.log = fixture.engine.store.create(header)
    answer = None if kept is None else KeptAnswer(is_kept=kept)
    encoder = get_format("gai").encoder(
        "sse", context(stream_id=STREAM_ID, ids=True, echo={"metadata": {"a": "b"}}, kept=answer)
    )
    for event in (START, *events):
        encoder.event(event)
    fixture.log.append(encoder.take(), encoder.seq)
    return fixture


async def test_a_log_of_events_tells_its_response() -> None:
    running = of_events(text("Hi"))
    assert body_of(running.routes.retrieve(ask_for()))["status"] == "in_progress"
    assert body_of(running.routes.retrieve(ask_for()))["metadata"] == {"a": "b"}
    complete = of_events(text("Hi"), finish(), DONE)
    complete.log.end(Ending("finished"))
    found = body_of(await answer_to(complete.routes.retrieve, ask_for()))
    assert (found["status"], found["output"][0]["content"][0]["text"], found["store"]) == ("completed", "Hi", False)


@pytest.mark.parametrize(("event", "is_known"), [(finish(), False), ({**finish(), "store": False}, True)])
async def test_a_log_of_events_that_outlives_the_deletion_tells_nothing(event: Any, is_known: bool) -> None:
    deleted = of_events(text("Hi"), event, DONE, kept=True)
    deleted.log.end(Ending("finished"))
    if is_known:  # it could not be kept: the log is the only source
        assert not body_of(await answer_to(deleted.routes.retrieve, ask_for()))["store"]
    else:
        assert await error_of(deleted.routes.retrieve, ask_for()) == UNKNOWN


REVOKED_KEY = Error("unauthorized", "revoked", reason="key_revoked")
REFUSED = Error("rate_limited", "too many streams", reason="streams")


@pytest.mark.parametrize(("is_cancelled", "why"), [(True, None), (True, REVOKED_KEY), (False, None), (False, REFUSED)])
@pytest.mark.parametrize("kept", [True, None])
async def test_a_log_of_events_that_another_worker_closed_has_its_output(
    is_cancelled: bool, why: Error | None, kept: bool | None
) -> None:
    """Only the worker that is gone could have kept it: the log is the only source."""
    stream = of_events(text("Hi"), kept=kept)
    piece, last_seq, ending, *_ = closing_of(
        stream.log, stream.log.last_seq + (1 << 20), EndsInstead(why, is_cancelled)
    )
    stream.log.append(piece, last_seq)
    stream.log.end(ending)
    found = body_of(await answer_to(stream.routes.retrieve, ask_for()))
    assert found["status"] == ("cancelled" if is_cancelled else "failed")
    assert found["output"][0]["content"][0]["text"] == "Hi"
    assert (found["metadata"], found["store"]) == ({"a": "b"}, False)
    assert body_of(await answer_to(stream.routes.delete, ask_for()))["deleted"]


async def test_a_log_of_events_that_is_damaged_says_so() -> None:
    stream = of_events(text("Hi"))
    stream.log.append(b'id: x.9\ndata: {"type":7\n\n', 9)
    stream.log.break_off(Error("network", "gone", reason="worker_lost"))
    with pytest.raises(Error) as caught:
        response_of(stream.log)
    assert caught.value.reason == "log_damaged"
