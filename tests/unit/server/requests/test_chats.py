"""`gai_fast/server/requests/chats.py`: how a chat is named, and which stream is its own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gai_fast.model.errors import Error
from gai_fast.model.settings import ANONYMOUS, KeyLimits, KeySettings, Settings
from gai_fast.net.engine.engine import Engine
from gai_fast.server.http.replies import Reply
from gai_fast.server.requests.chats import ChatRoutes, chat_id_of
from gai_fast.server.requests.durable import DurableRoutes
from gai_fast.server.requests.gates import Gates
from gai_fast.stores import Claim, Ending, LogHeader, StreamLog
from tests.unit.server.incoming_requests import http, incoming
from tests.unit.server.requests.stub_passage import StubPassage
from tests.unit.server.requests.test_stream_response import FakeConnection
from tests.waiting import until, until_answered

FINISHED = Ending("finished", "stop")
KEY = '["anonymous","/api/v1/chat","c"]'


@pytest.mark.parametrize("body", [{}, {"id": None}, {"id": 5}, {"id": ""}, {"id": "x" * 256}, {"id": ["c"]}])
def test_what_is_no_chats_id_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(Error, match=r"a string of 1 to 255 characters - at `\$\.id`"):
        chat_id_of(body)


def test_any_text_is_a_chats_id() -> None:
    assert chat_id_of({"id": "é/" * 127}) == "é/" * 127


class Fixture:
    """The routes over an engine; each request starts a stream of its own."""

    def __init__(self) -> None:
        self.engine = Engine(Settings(), asyncio.get_running_loop())
        self.store = self.engine.store
        self.gates = Gates(self.engine)
        self.routes = ChatRoutes(self.engine, DurableRoutes(self.engine))

    def log(self, stream_id: str) -> StreamLog:
        return self.store.create(LogHeader(stream_id, "anonymous", "m", "gai", "sse"))

    async def post(
        self, stream_id: str, chat_id: str = "c", start: Any = None, key: KeySettings | None = None
    ) -> FakeConnection:
        start = start or (lambda: self.log(stream_id))
        passage = StubPassage(stream_id, target="/api/v1/chat", caller=key, start=start)
        passage.chat = chat_id
        assert self.gates.walk(passage, self.gates.of(frozenset(("admission", "chat")))) is None
        await until(lambda: not len(self.gates._pending))
        return passage.connection

    async def get(self, tail: str = "c/stream", caller: str = "anonymous") -> FakeConnection:
        connection = FakeConnection()
        asked = incoming(http("GET", f"/api/v1/chat/{tail}", client=connection), tail)
        asked.http.set_key(None if caller == ANONYMOUS else KeySettings(caller, ()))
        assert self.routes.follow(asked) is None
        await until(lambda: not len(self.routes._pending))
        return connection


def reply_of(connection: FakeConnection) -> Reply:
    (reply,) = connection.ends
    assert isinstance(reply, Reply)
    return reply


async def test_a_chat_is_remembered_while_its_stream_runs() -> None:
    on = Fixture()
    assert reply_of(await on.post("one")).body == b"one True"
    standing = await on.store.find_claim(KEY)
    assert standing is not None
    assert standing.stream_id == "one"
    log = on.store.find_here("one")
    assert log is not None
    log.end(FINISHED)

    async def is_free() -> bool:
        return await on.store.find_claim(KEY) is None

    await until_answered(is_free)
    assert reply_of(await on.get()).status == 204


async def test_the_newest_request_has_the_chat_and_the_end_of_an_older_one_changes_nothing() -> None:
    on = Fixture()
    await on.post("one")
    await on.post("two")
    log = on.store.find_here("one")
    assert log is not None
    log.end(FINISHED)
    standing = await on.store.find_claim(KEY)
    assert standing is not None
    assert standing.stream_id == "two"


async def test_a_stream_that_ends_at_once_is_not_remembered() -> None:
    on = Fixture()

    def start() -> StreamLog:
        log = on.log("one")
        log.end(FINISHED)
        return log

    await on.post("one", start=start)
    assert await on.store.find_claim(KEY) is None


async def test_a_request_that_a_limit_refuses_leaves_the_chat_its_stream() -> None:
    fixture = Fixture()
    await fixture.post("a")
    key = KeySettings(ANONYMOUS, (), limits=KeyLimits(streams=1))
    assert fixture.engine.ledger.try_take(key, "another")
    with pytest.raises(Error, match="streams = 1"):
        await fixture.post("b", key=key)
    standing = await fixture.store.find_claim(KEY)
    assert standing is not None
    assert standing.stream_id == "a"


@pytest.mark.parametrize("runs", [True, False])
async def test_a_request_whose_stream_cannot_start_leaves_the_chat_the_stream_that_runs(runs: bool) -> None:
    fixture = Fixture()
    await fixture.post("a")
    log = fixture.store.find_here("a")
    assert log is not None

    def refuse() -> StreamLog:
        if not runs:
            log.end(FINISHED)
        raise Error("provider_unavailable", "the breaker is open")

    assert reply_of(await fixture.post("b", start=refuse)).status == 503

    async def is_restored() -> bool:
        standing = await fixture.store.find_claim(KEY)
        return (None if standing is None else standing.stream_id) == ("a" if runs else None)

    await until_answered(is_restored)
    log.end(FINISHED)

    async def is_free() -> bool:
        return await fixture.store.find_claim(KEY) is None

    await until_answered(is_free)
    assert not fixture.gates._chats._former


async def test_a_client_that_leaves_while_its_request_takes_the_chat_leaves_it_the_stream_that_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fixture = Fixture()
    await fixture.post("a")
    release, released = fixture.store.release, asyncio.Event()

    async def slow(key: str, stream_id: str, caller: str = "") -> None:
        await release(key, stream_id, caller)
        if stream_id == "a":
            released.set()
            await asyncio.Event().wait()

    monkeypatch.setattr(fixture.store, "release", slow)
    passage = StubPassage("b", target="/api/v1/chat")
    passage.chat = "c"
    fixture.gates.walk(passage, fixture.gates.of(frozenset(("chat",))))
    await released.wait()
    passage.connection.stream.connection_lost()

    async def is_restored() -> bool:
        standing = await fixture.store.find_claim(KEY)
        return standing is not None and standing.stream_id == "a"

    await until_answered(is_restored)


async def test_a_chat_that_could_not_be_taken_is_not_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store gives back itself what it could not take; twice, its caller could take one more than its share."""
    on = Fixture()
    abandoned: list[str] = []

    async def refuse(key: str, claim: Claim, caller: str = "") -> Claim | None:
        raise Error("overloaded", "the store is out of reach", reason="store")

    monkeypatch.setattr(on.store, "claim", refuse)
    monkeypatch.setattr(on.store, "abandon", lambda key, stream_id, caller: abandoned.append(stream_id))
    assert reply_of(await on.post("one")).status == 503
    assert abandoned == []


async def test_a_stream_that_cannot_start_leaves_no_chat() -> None:
    on = Fixture()

    def start() -> StreamLog:
        raise Error("overloaded", "full")

    assert reply_of(await on.post("one", start=start)).status == 503
    assert await on.store.find_claim(KEY) is None


@pytest.mark.parametrize("tail", ["other/stream", "c/stream"])
async def test_where_nothing_runs_the_answer_is_204(tail: str) -> None:
    assert reply_of(await Fixture().get(tail)).status == 204


async def test_a_format_that_there_is_not_is_refused_where_nothing_runs_too() -> None:
    asked = incoming(http("GET", "/api/v1/chat/c/stream?format=none", client=FakeConnection()), "c/stream")
    with pytest.raises(Error) as caught:
        Fixture().routes.follow(asked)
    assert (caught.value.code, caught.value.reason) == ("unsupported", "format")


async def test_a_chat_of_another_caller_is_unknown() -> None:
    on = Fixture()
    await on.post("one")
    assert reply_of(await on.get(caller="somebody")).status == 204


async def test_a_stream_that_is_gone_does_not_run() -> None:
    on = Fixture()
    assert await on.store.claim(KEY, Claim("gone", "")) is None
    assert reply_of(await on.get()).status == 204


async def test_a_stream_whose_log_cannot_be_read_may_run() -> None:
    on = Fixture()
    assert await on.store.claim(KEY, Claim("one", "")) is None
    on.log("one").break_off(Error("overloaded", "no", reason="store_sealed"))
    reply = reply_of(await on.get())
    assert (reply.status, b"store_sealed" in reply.body) == (503, True)


@pytest.mark.parametrize("tail", ["c", "c/", "/stream", "c/stream/", "c/streams", f"{'x' * 256}/stream"])
def test_another_path_is_no_chat(tail: str) -> None:
    async def ask() -> None:
        await Fixture().get(tail)

    with pytest.raises(Error) as refused:
        asyncio.run(ask())
    assert (refused.value.status, refused.value.reason) == (404, "route")


async def test_a_chat_that_others_take_again_and_again_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    on = Fixture()

    async def taken(key: str, claim: Claim, caller: str) -> Claim:
        return Claim("other", "")

    async def release(key: str, stream_id: str, caller: str) -> None:
        return None

    monkeypatch.setattr(on.store, "claim", taken)
    monkeypatch.setattr(on.store, "release", release)
    reply = reply_of(await on.post("one"))
    assert reply.status == 503
    assert b"begin at the same time" in reply.body
