"""`gai_fast/server/requests/idempotency.py`: what a key is, which requests are the same, whose a key is."""

from __future__ import annotations

import asyncio
from hashlib import blake2b
from typing import Any

import pytest

from gai_fast.kernels import encode_json
from gai_fast.model.errors import Error
from gai_fast.model.settings import KeySettings, Settings
from gai_fast.net.engine.engine import Engine
from gai_fast.server.requests.gates import Gates
from gai_fast.server.requests.idempotency import key_of, scoped
from gai_fast.server.requests.passage import Gate, Passage, Wait
from gai_fast.stores import Claim, Ending, LogHeader, StreamLog
from tests.unit.server.incoming_requests import http, incoming
from tests.unit.server.requests.stub_passage import StubPassage
from tests.unit.server.requests.test_stream_response import FakeConnection
from tests.waiting import until

ERROR = {"code": "network", "message": "cut", "temporary": True}
NOTHING = Ending("failed", error=ERROR, has_content=False)
CANCELLED = Ending("cancelled", "cancelled", has_content=False)
BODY = blake2b(b'{"query":"body"}', digest_size=32, person=b"gai-fast body").hexdigest()
LOST = Error("network", "gone", reason="worker_lost")


def key(member: str | None = None, **headers: str) -> str | None:
    return key_of({name.replace("_", "-"): value for name, value in headers.items()}, member)


# ---- keys ------------------------------------------------------------------------------------------------------------


def test_a_key_is_a_token_or_the_text_of_a_string() -> None:
    assert key() is None
    assert key(idempotency_key="a:b/c") == key(x_idempotency_key='"a:b/c"') == "a:b/c"
    assert key(idempotency_key=r'"a \"b\" \\c"') == r'a "b" \c'
    assert key("member") == "member"
    assert key("member", idempotency_key="header") == "header"
    assert key(idempotency_key="a", x_idempotency_key='"a"') == "a"


@pytest.mark.parametrize("value", ["", '""', '"', "a b", "a, b", '"a', r'"\a"', "x" * 256, '"\x7f"', "a\x00", "a\n"])
def test_what_is_no_key_is_refused(value: str) -> None:
    with pytest.raises(Error, match="the idempotency key is not valid: ") as refused:
        key(idempotency_key=value)
    assert (refused.value.status, refused.value.reason) == (400, "idempotency_key")
    assert value.strip('"') not in refused.value.message or len(value) < 3


def test_headers_that_differ_are_refused_and_so_are_members_that_are_no_key() -> None:
    for wrong in ({"idempotency_key": "a", "x_idempotency_key": "b"}, {"member": ""}, {"member": "é"}):
        with pytest.raises(Error):
            key(**wrong)


def test_a_key_has_a_name_of_its_own_for_each_caller_and_route() -> None:
    found = set()
    for caller, path, name in (
        ("a", "/b", "c"),
        ("a", "/b", "d"),
        ("a", "/c", "c"),
        ("b", "/b", "c"),
        ('a","/b', "/b", "c"),
    ):
        asked = incoming(http("POST", path))
        asked.http.set_key(KeySettings(caller, ()))
        found.add(scoped(asked, name))
    assert len(found) == 5


# ---- requests --------------------------------------------------------------------------------------------------------


NAME = '["anna","/","key"]'


class Refusing(Gate):
    """A gate that refuses, if it has a refusal."""

    def __init__(self) -> None:
        self.refusal: Error | None = None

    def admit(self, passage: Passage) -> Wait | None:
        if self.refusal is not None:
            raise self.refusal
        return None


class Fixture:
    """Requests with one key, over a store in memory."""

    def __init__(self) -> None:
        self.engine = Engine(Settings(), asyncio.get_running_loop())
        self.store = self.engine.store
        self.gates = Gates(self.engine)
        self.last = Refusing()
        self.started: list[StreamLog] = []
        self.problem: Exception | None = None

    def log(self, stream_id: str) -> StreamLog:
        return self.store.create(LogHeader(stream_id, "anna", "m", "gai", "sse"))

    def ask(self, stream_id: str, body: str = "body") -> FakeConnection:
        """Returns a request that starts a stream of this id, or says which one it follows."""

        def start() -> StreamLog:
            if self.problem is not None:
                raise self.problem
            self.started.append(self.log(stream_id))
            return self.started[-1]

        passage = StubPassage(stream_id, caller=KeySettings("anna", ()), start=start)
        passage.key, passage.body = "key", encode_json({"query": body})
        assert self.gates.walk(passage, (*self.gates.of(frozenset(("idempotency",))), self.last)) is None
        return passage.connection

    async def outcome(self, connection: FakeConnection) -> Any:
        await until(lambda: connection.ends)
        return connection.ends[0]

    async def answer(self, stream_id: str, body: str = "body") -> Any:
        return await self.outcome(self.ask(stream_id, body))


async def test_the_first_request_starts_and_the_others_follow() -> None:
    fixture = Fixture()
    asked = [fixture.ask(name) for name in ("a", "b", "c")]
    replies = [await fixture.outcome(connection) for connection in asked]
    assert [reply.body for reply in replies] == [b"a True", b"a False", b"a False"]
    assert [reply.headers for reply in replies] == [(), *[(("idempotent-replayed", "true"),)] * 2]
    assert len(fixture.started) == 1
    fixture.started[0].end(Ending("finished", "stop", has_content=False))
    assert (await fixture.answer("d")).body == b"a False", "an empty answer is one"


async def test_a_refused_request_leaves_the_key_free_and_a_stream_that_is_there_is_followed_all_the_same() -> None:
    fixture = Fixture()
    fixture.last.refusal = Error("rate_limited")
    assert (await fixture.answer("a")).status == 429
    fixture.last.refusal = None
    assert (await fixture.answer("b")).body == b"b True"
    fixture.last.refusal = Error("rate_limited")
    assert (await fixture.answer("c")).body == b"b False"


async def test_another_body_is_refused_and_an_answer_that_is_not_kept_too() -> None:
    fixture = Fixture()
    await fixture.answer("a")
    assert (await fixture.answer("b", "another")).status == 422
    fixture.store.memory.clear()
    assert (await fixture.answer("b")).status == 409
    assert len(fixture.started) == 1


@pytest.mark.parametrize("end", [NOTHING, CANCELLED, Error("internal", "a bug")])
async def test_a_stream_that_came_to_nothing_frees_its_key(end: Ending | Error) -> None:
    fixture = Fixture()
    await fixture.answer("a")
    if isinstance(end, Ending):
        fixture.started[0].end(end)
    else:
        fixture.started[0].break_off(end)
    assert (await fixture.answer("b")).body == b"b True"


async def test_a_stream_that_is_over_at_once_frees_its_key_too() -> None:
    fixture = Fixture()
    log = fixture.log

    def over(stream_id: str) -> StreamLog:
        made = log(stream_id)
        made.end(NOTHING)
        return made

    fixture.log = over
    for name in ("a", "b"):
        assert (await fixture.answer(name)).body == f"{name} True".encode()


@pytest.mark.parametrize(
    "end",
    [Ending("failed", error=ERROR), Ending("cancelled", "cancelled"), Error("internal", "x", reason="log_damaged")],
)
async def test_any_other_end_is_the_answer(end: Ending | Error) -> None:
    fixture = Fixture()
    await fixture.answer("a")
    if isinstance(end, Ending):
        fixture.started[0].end(end)
    else:
        fixture.started[0].break_off(end)
    assert (await fixture.answer("b")).body == b"a False"


@pytest.mark.parametrize(("last_seq", "answer"), [(0, b"b True"), (1, b"b True"), (2, b"a False")])
async def test_the_stream_of_a_worker_that_is_gone_is_had_again_only_before_its_content(
    last_seq: int, answer: bytes
) -> None:
    """Nobody has freed the key: its worker was killed."""
    fixture = Fixture()
    assert await fixture.store.claim(NAME, Claim("a", BODY)) is None
    log = fixture.log("a")
    for seq in range(1, last_seq + 1):
        log.append(b"frame\n\n", seq)
    log.break_off(LOST)
    assert (await fixture.answer("b")).body == answer


async def test_a_key_that_cannot_be_freed_is_answered_as_its_stream_was(monkeypatch: pytest.MonkeyPatch) -> None:
    fixture = Fixture()
    assert await fixture.store.claim(NAME, Claim("a", BODY)) is None
    fixture.log("a").end(NOTHING)
    calls = []

    async def release(key: str, stream_id: str, caller: str) -> None:
        calls.append((key, stream_id))

    monkeypatch.setattr(fixture.store, "release", release)
    assert (await fixture.answer("b")).body == b"a False"
    assert calls == [(NAME, "a")] * 2


async def test_a_worker_that_is_gone_with_its_memory_is_reported_and_nothing_is_generated_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fixture = Fixture()
    await fixture.answer("a")
    problem = LOST

    async def find(_: str) -> StreamLog | None:
        raise problem

    monkeypatch.setattr(fixture.store, "find", find)
    reply = await fixture.answer("b")
    assert reply.status == 502
    assert b"worker_lost" in reply.body
    assert ("x-should-retry", "false") in reply.headers
    problem = Error("overloaded", "out of reach", reason="store")
    reply = await fixture.answer("c")
    assert reply.status == 503
    assert len(fixture.started) == 1


@pytest.mark.parametrize("problem", [RuntimeError("a bug"), Error("rate_limited", "later"), MemoryError()])
async def test_whatever_a_beginning_raises_the_key_is_free(
    problem: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    fixture = Fixture()
    fixture.problem = problem
    assert (await fixture.answer("a")).status == (429 if isinstance(problem, Error) else 500)
    fixture.problem = None
    assert (await fixture.answer("b")).body == b"b True"


async def test_a_client_that_leaves_while_its_key_is_asked_for_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    fixture, go = Fixture(), asyncio.Event()
    claim = fixture.store.claim

    async def slow(key: str, mine: Claim, caller: str) -> Claim | None:
        await go.wait()
        return await claim(key, mine, caller)

    monkeypatch.setattr(fixture.store, "claim", slow)
    connection = fixture.ask("a")
    await asyncio.sleep(0)
    connection.stream.connection_lost()
    await until(lambda: not len(fixture.gates._pending))
    go.set()
    assert (await fixture.answer("b")).body == b"b True"
    assert len(fixture.started) == 1
