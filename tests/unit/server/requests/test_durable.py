"""`gai_fast/server/requests/durable.py`: how a stream and a place in it are named, who may see it, its state."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from gai_fast.model.errors import Error
from gai_fast.model.request import Request
from gai_fast.model.settings import ANONYMOUS, KeySettings, ModelSettings, Settings, StreamSettings, UpstreamSettings
from gai_fast.net.attempts.spec import Clock, StreamSpec
from gai_fast.net.engine.engine import Engine
from gai_fast.server.http.replies import Reply
from gai_fast.server.requests.durable import DurableRoutes, RunningStream, StreamPlace, place_of, state_of
from gai_fast.server.requests.incoming import Incoming
from gai_fast.stores import Ending, LogHeader, StreamLog
from tests.unit.net.fakes import FakeClient, FakeOutput
from tests.unit.server.incoming_requests import http, incoming
from tests.unit.server.requests.test_stream_response import FakeConnection
from tests.waiting import until

ID = "AbCdEfGhIjKlMnOpQrStUv"
UPSTREAM = UpstreamSettings("up", "openai-compatible", "http://127.0.0.1:9/v1")
MODEL = ModelSettings("m", UPSTREAM, "x", StreamSettings(client_buffer=1000, write_timeout=7))
SETTINGS = Settings(upstreams={"up": UPSTREAM}, models={"m": MODEL})
JSON = {"accept": "application/json"}


def ask(
    tail: str = ID,
    query: str = "",
    *,
    method: str = "GET",
    caller: str = "anonymous",
    connection: FakeConnection | None = None,
    **headers: str,
) -> Incoming:
    names = {"host": "127.0.0.1", **{name.replace("_", "-"): value for name, value in headers.items()}}
    asked = incoming(http(method, f"/?{query}", names, client=connection or FakeConnection()), tail)
    asked.http.set_key(None if caller == ANONYMOUS else KeySettings(caller, ()))
    return asked


class Fixture:
    """The routes over an engine whose store has one log, of three events."""

    def __init__(self, *, caller: str = "anonymous", model: str = "m") -> None:
        self.engine = Engine(SETTINGS, asyncio.get_running_loop())
        self.routes = DurableRoutes(self.engine)
        self.log: StreamLog = self.engine.store.create(LogHeader(ID, caller, model, "gai", "sse"))
        for seq in (1, 2, 3):
            data = b'{"type":"text.delta","seq":%d,"text":"x"}' % seq
            self.log.append(b"event: text.delta\nid: %b.%d\ndata: %b\n\n" % (ID.encode(), seq, data), seq)


def refused(call: Any, asked: Incoming) -> tuple[int, str | None]:
    with pytest.raises(Error) as caught:
        call(asked)
    return caught.value.status, caught.value.reason


# ---- names -----------------------------------------------------------------------------------------------------------


def test_a_place_is_a_stream_and_a_number_and_the_header_counts_first() -> None:
    assert place_of(ask()) is None
    assert place_of(ask(last_event_id=f"{ID}.17")) == StreamPlace(ID, 17)
    assert place_of(ask(query=f"after={ID}.0")) == StreamPlace(ID, 0)
    assert place_of(ask(query=f"after={ID}.5", last_event_id=f"{ID}.17")) == StreamPlace(ID, 17)


@pytest.mark.parametrize(
    "text",
    ["", ".", "1", ID, f"{ID}.", f"{ID}.01", f"{ID}.+1", f"{ID}.-1", f"{ID}.1e3", f"{ID}.1_0", f"{ID}.1 ",
     f"{ID}.\u0661", f"{ID}.{'9' * 16}", f"{ID[1:]}.1", f"{'x' * 101}.1", f"{'x' * 100}.{'1' * 28}", f"{ID}.1\n",
     f"{ID}:.1"],
)  # fmt: skip
def test_anything_else_is_no_place(text: str) -> None:
    quoted = "".join(f"%{byte:02x}" for byte in text.encode())
    for asked in (
        ask(last_event_id=text),
        ask(query=f"after={quoted}"),
        ask(query=f"after={quoted}", last_event_id=f"{ID}.17"),
    ):
        assert refused(place_of, asked) == (400, "last_event_id")


async def test_a_place_in_another_stream_is_refused() -> None:
    other = f"{ID.swapcase()}.1"
    for call in (Fixture().routes.follow, Fixture().routes.head):
        assert refused(call, ask(last_event_id=other)) == (400, "last_event_id")
    assert refused(Fixture().routes.resume, ask()) == (400, "last_event_id")


# ---- who may see it --------------------------------------------------------------------------------------------------


async def test_a_stream_of_another_caller_is_the_same_as_none() -> None:
    stream = Fixture(caller="alice")
    seen = []
    for tail, caller in ((ID, "bob"), ("short", "alice"), (ID, "anonymous")):
        for call in (stream.routes.follow, stream.routes.head, stream.routes.cancel):
            with pytest.raises(Error) as caught:
                call(ask(tail, caller=caller))
            seen.append((caught.value.status, caught.value.payload()))
    assert seen[0][0] == 404
    assert all(each == seen[0] for each in seen)
    assert refused(stream.routes.resume, ask(last_event_id=f"{ID}.1", caller="bob")) == (404, "stream")
    assert stream.routes.follow(ask(caller="alice")) is None


async def test_a_plain_stream_of_another_caller_is_unknown_too() -> None:
    stream = Fixture()
    demo = ModelSettings("d", UpstreamSettings("d", "demo", ""), "d")
    spec = StreamSpec(demo, Request(query="hi"), FakeOutput(), caller="alice")
    name = ID.swapcase()
    session = stream.engine.start(spec, FakeClient(), name, Clock(lambda: 0))
    assert refused(stream.routes.follow, ask(name, caller="bob")) == (404, "stream")
    assert refused(stream.routes.cancel, ask(name, caller="bob")) == (404, "stream")
    assert refused(stream.routes.follow, ask(name, caller="alice")) == (400, "resumable")
    state = stream.routes.follow(ask(name, caller="alice", **JSON))
    assert state is not None
    assert json.loads(state.body)["state"] == "running"
    reply = stream.routes.cancel(ask(name, caller="alice"))
    assert reply is not None
    assert (reply.status, json.loads(reply.body)) == (202, {"id": name, "state": "cancelled"})
    assert name not in stream.engine.streams
    assert session.last_event["type"] == "finish"


# ---- answers ---------------------------------------------------------------------------------------------------------


async def test_a_stream_is_followed_with_the_settings_of_its_model_or_of_all() -> None:
    for model, limits in (("m", {"high_water": 1000, "write_timeout": 7}), ("gone", None)):
        stream, connection = Fixture(model=model), FakeConnection()
        assert stream.routes.follow(ask(connection=connection)) is None
        default = {"high_water": StreamSettings().client_buffer, "write_timeout": StreamSettings().write_timeout}
        assert connection.limits == (limits or default)
        assert connection.bytes.count(b"event: text.delta") == 3
        connection.stream.connection_lost()
        assert stream.log.watchers == 0


async def test_who_has_seen_the_end_gets_nothing_more() -> None:
    stream = Fixture()
    stream.log.end(Ending("finished", "stop"))
    for seq in (3, 4, 10**14):
        reply = stream.routes.follow(ask(last_event_id=f"{ID}.{seq}"))
        assert reply is not None
        assert (reply.status, reply.body) == (204, b"")
    assert stream.routes.follow(ask(last_event_id=f"{ID}.2")) is None


@pytest.mark.parametrize("query", ["format=none", "framing=none", "envelope=none"])
async def test_a_form_that_there_is_not_is_refused_after_the_end_too(query: str) -> None:
    stream = Fixture()
    stream.log.end(Ending("finished"))
    for call in (stream.routes.follow, stream.routes.resume, stream.routes.head):
        for accept in ("application/json", "*/*"):
            assert refused(call, ask(query=query, accept=accept, last_event_id=f"{ID}.3"))[0] == 400


async def test_the_state_tells_how_far_a_stream_is_and_how_it_ended() -> None:
    log = Fixture().log
    rest = {"finish_reason": None, "usage": None, "error": None}
    assert state_of(log) == {"id": ID, "state": "running", "model": "m", "last_event_id": f"{ID}.3", **rest}
    log.is_degraded = True
    assert state_of(log)["durability"] == "degraded"
    assert "takeovers" not in state_of(log)
    log.takeovers = 2
    assert state_of(log)["takeovers"] == 2
    log.takeovers = 0
    log.end(Ending("cancelled", "cancelled", {"input_tokens": 1}))
    assert state_of(log) | {"durability": 0} == {
        "id": ID,
        "state": "cancelled",
        "model": "m",
        "last_event_id": f"{ID}.3",
        "finish_reason": "cancelled",
        "usage": {"input_tokens": 1},
        "error": None,
        "durability": 0,
    }
    lost, error = Fixture().log, Error("network", "gone", reason="worker_lost")
    lost.break_off(error)
    assert (state_of(lost)["state"], state_of(lost)["error"]) == ("failed", error.payload())


@pytest.mark.parametrize("reason", ["store", "store_sealed", "log_damaged"])
async def test_a_stream_whose_log_cannot_be_read_has_no_state(reason: str) -> None:
    """It was reported as failed: its copy was damaged, or sealed with a key that is gone."""
    stream, problem = Fixture(), Error("overloaded", "no", reason=reason)
    stream.log.break_off(problem)
    with pytest.raises(Error) as raised:
        state_of(stream.log)
    assert raised.value is problem
    for call in (stream.routes.follow, stream.routes.cancel):
        assert refused(call, ask(accept="application/json")) == (503, reason)


async def test_a_stream_that_has_ended_is_not_cancelled_again() -> None:
    stream = Fixture()
    stream.log.end(Ending("finished"))
    reply = stream.routes.cancel(ask())
    assert reply is not None
    assert (reply.status, json.loads(reply.body)["state"]) == (200, "finished")


# ---- a log that is elsewhere -----------------------------------------------------------------------------------------


class Elsewhere:
    """A store whose `find` has its result after a while."""

    def __init__(self, found: StreamLog | Exception | None) -> None:
        self.found = found
        self.go = asyncio.Event()
        self.is_cancelled = False
        self.is_known_to_run = False
        self.ending = Ending("cancelled", "cancelled")

    def find_here(self, stream_id: str) -> None:
        return None

    async def find(
        self,
        stream_id: str,
        *,
        is_running: bool = False,
        asks: bool = True,
        caller: str | None = None,
        canceller: str | None = None,
    ) -> StreamLog | None:
        self.is_known_to_run = is_running
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.is_cancelled = True
            raise
        if isinstance(self.found, Exception):
            raise self.found
        return self.found

    async def cancel(self, log: StreamLog) -> None:
        log.end(self.ending)


async def searched(found: StreamLog | Exception | None, stream: Fixture, asked: Incoming) -> Elsewhere:
    store = Elsewhere(found)
    stream.engine.store = store
    assert stream.routes.follow(asked) is None
    await asyncio.sleep(0)
    return store


async def finished(stream: Fixture, store: Elsewhere) -> None:
    store.go.set()
    await until(lambda: not len(stream.routes._pending))


@pytest.mark.parametrize(
    ("found", "status"),
    [(None, 404), (Error("overloaded", "busy", reason="store"), 503), (RuntimeError("a bug"), 500)],
)
async def test_what_a_search_comes_to_is_answered(found: Any, status: int, caplog: pytest.LogCaptureFixture) -> None:
    stream, connection = Fixture(), FakeConnection()
    store = await searched(found, stream, ask(connection=connection))
    connection.stream.pause_writing()
    connection.stream.resume_writing()
    assert connection.ends == []
    await finished(stream, store)
    (reply,) = connection.ends
    assert isinstance(reply, Reply)
    assert reply.status == status
    assert ("could not be handled" in caplog.text) is (status == 500)


async def test_a_log_that_was_found_elsewhere_is_followed() -> None:
    stream, connection = Fixture(), FakeConnection()
    store = await searched(stream.log, stream, ask(connection=connection, query="format=openai"))
    await finished(stream, store)
    assert b"content-type: text/event-stream" in connection.bytes
    assert connection.bytes.count(b"chat.completion.chunk") >= 3
    connection.stream.connection_lost()
    assert stream.log.watchers == 0


async def test_the_log_of_another_caller_is_unknown_wherever_it_is() -> None:
    stream, connection = Fixture(caller="alice"), FakeConnection()
    store = await searched(stream.log, stream, ask(connection=connection, caller="bob"))
    await finished(stream, store)
    unknown = FakeConnection()
    store = await searched(None, stream, ask(connection=unknown, caller="bob"))
    await finished(stream, store)
    assert [(reply.status, reply.body, reply.headers) for reply in connection.ends] == [
        (reply.status, reply.body, reply.headers) for reply in unknown.ends
    ]


async def test_a_client_that_leaves_ends_the_search() -> None:
    stream, connection = Fixture(), FakeConnection()
    store = await searched(stream.log, stream, ask(connection=connection))
    connection.stream.connection_lost()
    await until(lambda: not len(stream.routes._pending))
    assert store.is_cancelled
    assert (connection.ends, connection.bytes) == ([], b"")


@pytest.mark.parametrize(("state", "status"), [("cancelled", 202), ("finished", 200)])
async def test_a_stream_of_another_process_is_cancelled_there_before_the_answer(state: Any, status: int) -> None:
    stream, connection = Fixture(), FakeConnection()
    store = Elsewhere(stream.log)
    store.ending = Ending(state)
    stream.engine.store = store
    assert stream.routes.cancel(ask(connection=connection)) is None
    await finished(stream, store)
    (reply,) = connection.ends
    assert isinstance(reply, Reply)
    assert (reply.status, json.loads(reply.body)["state"]) == (status, state)


async def test_another_callers_stream_of_another_process_is_unknown_and_goes_on() -> None:
    stream, connection = Fixture(caller="alice"), FakeConnection()
    stream.engine.store = store = Elsewhere(stream.log)
    assert stream.routes.cancel(ask(connection=connection, caller="bob")) is None
    await finished(stream, store)
    (reply,) = connection.ends
    assert isinstance(reply, Reply)
    assert (reply.status, stream.log.is_over) == (404, False)


class OtherWorker:
    """The other workers, of which one runs a stream of this caller's."""

    def __init__(self, running: RunningStream | None) -> None:
        self._running = running

    def owner_of(self, stream_id: str) -> int:
        return 1

    async def cancel(self, stream_id: str, caller: str) -> None:
        raise NotImplementedError

    async def running(self, stream_id: str, caller: str) -> RunningStream | None:
        return self._running


@pytest.mark.parametrize(
    ("running", "status"),
    [(None, 404), (RunningStream("m", is_durable=False), 400), (RunningStream("m", is_durable=True), 404)],
)
async def test_a_stream_that_has_just_begun_elsewhere_is_waited_for_if_it_has_a_log(
    running: RunningStream | None, status: int
) -> None:
    stream, connection = Fixture(), FakeConnection()
    stream.routes.others = OtherWorker(running)
    store = await searched(None, stream, ask(connection=connection))
    await finished(stream, store)
    (reply,) = connection.ends
    assert isinstance(reply, Reply)
    assert (reply.status, store.is_known_to_run) == (status, running is not None and running.is_durable)


class GoneWorker(OtherWorker):
    """The other workers; the asked worker is gone."""

    async def cancel(self, stream_id: str, caller: str) -> None:
        raise Error("network", "the worker is gone", reason="worker_lost")


@pytest.mark.parametrize(
    ("ending", "caller", "status"), [(Ending("finished"), "", 200), (Ending("finished"), "bob", 404), (None, "", 202)]
)
async def test_a_stream_whose_worker_is_gone_has_its_end_or_is_cancelled_where_it_goes_on(
    ending: Ending | None, caller: str, status: int
) -> None:
    """The store has it, as a GET shows; to cancel such a stream again is no error."""
    stream, connection = Fixture(), FakeConnection()
    stream.routes.others = GoneWorker(None)
    stream.engine.store = store = Elsewhere(stream.log)
    if ending is not None:
        stream.log.end(ending)
    request = ask(connection=connection, caller=caller) if caller else ask(connection=connection)
    assert stream.routes.cancel(request) is None
    await finished(stream, store)
    (reply,) = connection.ends
    assert isinstance(reply, Reply)
    assert (reply.status, b"finished" in reply.body) == (status, status == 200)


@pytest.mark.parametrize("tail", ["x" * 21 + "\udcff", "x" * 101, "x"])
async def test_no_other_worker_is_asked_about_what_is_no_stream_id(tail: str) -> None:
    stream = Fixture()
    stream.routes.others = GoneWorker(None)
    for call in (stream.routes.cancel, stream.routes.follow):
        assert refused(call, ask(tail)) == (404, "stream")
