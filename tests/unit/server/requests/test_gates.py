"""`server/requests/gates.py` and `passage.py`: the order of the gates, waits, and what a request gives back."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any, cast, get_args

import pytest

from gai_fast.core.requests.stored_ids import StoredId
from gai_fast.ledger import LocalLedger
from gai_fast.model.errors import Error
from gai_fast.model.settings import KeyLimits, KeySettings, LimitSettings, Settings
from gai_fast.net.engine.engine import Engine
from gai_fast.server.admission.server_limits import ServerLimits
from gai_fast.server.http.replies import Reply
from gai_fast.server.requests.gates import GateName, Gates
from gai_fast.server.requests.passage import Answered, Gate, Passage, Wait
from tests.limits import LIMITS
from tests.unit.server.requests.stub_passage import StubPassage
from tests.waiting import until

KEY = KeySettings("ann", (), limits=KeyLimits(streams=1))
ALL: frozenset[GateName] = frozenset(get_args(GateName))


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    engine = Engine(Settings(), asyncio.get_running_loop())
    yield engine
    engine.streams.clear()
    await engine.close()


class Noting(Gate):
    """A gate that waits, answers or refuses as it is asked, and notes when it is left."""

    def __init__(
        self, name: str, *, waits: bool = False, reply: Reply | None = None, error: Error | None = None
    ) -> None:
        self.name = name
        self.waits = waits
        self.reply = reply
        self.error = error
        self.go = asyncio.Event()

    def admit(self, passage: Passage) -> Wait | None:
        self.steps(passage).append(self.name)
        passage.hold(self)
        if self.waits:
            return lambda: self.wait(passage)
        if self.error is not None:
            raise self.error
        return None

    async def wait(self, passage: Passage) -> Answered | None:
        await self.go.wait()
        self.steps(passage).append(f"{self.name} waited")
        if self.error is not None:
            raise self.error
        return None if self.reply is None else Answered(self.reply)

    def leave(self, passage: Passage) -> None:
        self.steps(passage).append(f"left {self.name}")

    @staticmethod
    def steps(passage: Passage) -> list[str]:
        return cast("StubPassage", passage).steps


async def test_the_gates_stand_in_one_order_whatever_a_route_names(engine: Engine) -> None:
    gates = Gates(engine)
    order = [type(gate).__name__.lstrip("_") for gate in gates.of(ALL)]
    assert order == [
        "EarlyLimits",
        "Read",
        "Chains",
        "NamedIds",
        "Plan",
        "Idempotency",
        "Guards",
        "SharedAnswers",
        "Admission",
        "Chat",
        "Approvals",
    ]
    always = ["_Read", "_Plan", "_Admission", "_Approvals"]
    assert [type(gate).__name__ for gate in gates.of(frozenset(("admission",)))] == always


async def test_a_request_whose_gates_do_not_wait_begins_without_a_task(engine: Engine) -> None:
    gates, passage = Gates(engine), StubPassage("a")
    before = asyncio.all_tasks()
    reply = gates.walk(passage, gates.of(ALL))
    assert reply is not None
    assert (reply.body, passage.steps) == (b"a True", ["read", "plan", "begin"])
    assert asyncio.all_tasks() == before


async def test_a_gate_that_waits_is_waited_for_and_what_was_taken_is_given_back_last_first(engine: Engine) -> None:
    gates, passage = Gates(engine), StubPassage("a")
    first, second = Noting("first"), Noting("second", waits=True)
    assert gates.walk(passage, (first, second, *gates.of(frozenset()))) is None
    assert passage.steps == ["first", "second"]
    second.go.set()
    await until(lambda: passage.connection.ends)
    assert passage.steps == [
        *("first", "second", "second waited", "read", "plan", "begin"),
        *("left second", "left first"),
    ]


@pytest.mark.parametrize("waits", [False, True])
async def test_a_refusal_gives_back_what_was_taken_and_begins_nothing(engine: Engine, waits: bool) -> None:
    gates, passage = Gates(engine), StubPassage("a")
    refusing = Noting("second", waits=waits, error=Error("rate_limited", "later"))
    ways = (Noting("first"), refusing)
    if waits:
        assert gates.walk(passage, ways) is None
        refusing.go.set()
        await until(lambda: passage.connection.ends)
        assert cast(Reply, passage.connection.ends[0]).status == 429
    else:
        with pytest.raises(Error, match="later"):
            gates.walk(passage, ways)
    assert passage.steps[-2:] == ["left second", "left first"]
    assert "begin" not in passage.steps


async def test_a_gate_may_answer_in_place_of_the_upstream(engine: Engine) -> None:
    gates, passage = Gates(engine), StubPassage("a")
    answering = Noting("one", waits=True, reply=Reply(204))
    assert gates.walk(passage, (answering, Noting("two"))) is None
    answering.go.set()
    await until(lambda: passage.connection.ends)
    assert passage.steps == ["one", "one waited", "left one"]


async def test_a_client_that_leaves_before_its_task_has_begun_gives_back_what_was_taken(engine: Engine) -> None:
    gates, passage = Gates(engine), StubPassage("a")
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert gates.walk(passage, (Noting("first"), Noting("second", waits=True))) is None
        passage.connection.stream.connection_lost()
        await until(lambda: not len(gates._pending))
        await asyncio.sleep(0)
        gc.collect()
    assert (warned, passage.steps[2:], passage.connection.ends) == ([], ["left second", "left first"], [])


async def test_a_small_body_is_read_before_its_callers_limits_are_asked_and_a_form_always(engine: Engine) -> None:
    assert engine.ledger.try_take(KEY, "s")
    gates = Gates(engine)
    way = gates.of(frozenset(("early limits",)))
    small = StubPassage("a", caller=KEY, body=b"x" * LIMITS.early_check)
    form = StubPassage("b", caller=KEY, body=b"x" * (LIMITS.early_check + 1))
    form.is_parsed = False
    for passage in (small, form):
        assert gates.walk(passage, way) is not None
    large = StubPassage("c", caller=KEY, body=b"x" * (LIMITS.early_check + 1))
    with pytest.raises(Error, match="streams = 1"):
        gates.walk(large, way)
    assert large.steps == []


async def test_a_caller_must_own_the_ids_that_it_names(engine: Engine) -> None:
    gates = Gates(engine)
    way = gates.of(frozenset(("named ids",)))
    passage = StubPassage("a", caller=KEY)
    passage.named = [StoredId("file_id", "file-1")]
    assert gates.walk(passage, way) is None
    await until(lambda: passage.connection.ends)
    assert cast(Reply, passage.connection.ends[0]).status == 400
    assert passage.steps == ["read"]
    await engine.store.ids.add("ann", ["file-1"])
    again = StubPassage("b", caller=KEY)
    again.named = passage.named
    assert gates.walk(again, way) is None
    await until(lambda: again.connection.ends)
    assert again.steps == ["read", "plan", "begin"]


# ---- admission


class Starting(StubPassage):
    """A request whose stream the engine knows once it runs."""

    def __init__(self, engine: Engine, stream_id: str, *, begins: bool = True) -> None:
        super().__init__(stream_id, caller=KEY)
        self.engine = engine
        self.begins = begins

    def begin(self) -> Reply | None:
        if not self.begins:
            raise Error("unsupported")
        self.engine.streams[self.stream_id] = cast("Any", None)
        return super().begin()


async def test_a_request_whose_stream_does_not_begin_is_not_counted(engine: Engine) -> None:
    gates = Gates(engine)
    way = gates.of(frozenset(("admission",)))
    for _ in range(3):
        with pytest.raises(Error, match="unsupported"):
            gates.walk(Starting(engine, "a", begins=False), way)
    assert gates.walk(Starting(engine, "b"), way) is not None
    with pytest.raises(Error, match="streams = 1"):
        gates.walk(Starting(engine, "c"), way)


async def test_a_request_that_cannot_be_decided_at_once_waits(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    gates = Gates(engine)
    way = gates.of(frozenset(("admission",)))
    taken = engine.ledger.try_take
    monkeypatch.setattr(engine.ledger, "try_take", lambda *_: False)
    first, second, third = (Starting(engine, name) for name in "abc")
    for passage in (first, second, third):
        assert gates.walk(passage, way) is None
    third.connection.stream.connection_lost()
    monkeypatch.setattr(engine.ledger, "try_take", taken)
    await until(lambda: second.connection.ends)
    statuses = [[cast(Reply, reply).status for reply in each.connection.ends] for each in (first, second, third)]
    assert statuses == [[200], [429], []]


class Chat(Starting):
    """A request for a chat, started as by `Engine.start`."""

    def __init__(self, engine: Engine, stream_id: str, *, begins: bool = True) -> None:
        super().__init__(engine, stream_id, begins=begins)
        self.incoming.http.set_key(None)
        self.chat = stream_id

    def begin(self) -> Reply | None:
        engine, caller = self.engine, self.incoming.http.caller
        assert engine.limits is not None
        engine.limits.check(self.stream_id, caller, engine.running, engine.streams_of(caller))
        return super().begin()


def ended(passages: Sequence[Chat]) -> bool:
    return all(each.connection.ends for each in passages)


async def test_chats_at_once_get_the_places_that_other_workers_leave(engine: Engine) -> None:
    """Each waits for the store between its admission and its start: its place is counted from its admission on."""
    engine.limits = ServerLimits(LimitSettings(streams=8), LocalLedger(), workers=2)  # a part of 2, and 4 for both
    gates = Gates(engine)
    way = gates.of(frozenset(("admission", "chat")))
    failing = [Chat(engine, f"f{number}", begins=False) for number in range(6)]
    chats = [Chat(engine, f"c{number}") for number in range(7)]
    for some in (failing, chats):
        for passage in some:
            assert gates.walk(passage, way) is None
        await until(partial(ended, some))
    assert [cast(Reply, each.connection.ends[0]).status for each in chats] == [200] * 6 + [503]
