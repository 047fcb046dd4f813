"""The gate `guards`: what is done at once, what waits (`server/requests/guarding.py`), and who comes before it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gai_fast.formats import get_format
from gai_fast.formats._base import ItemMark
from gai_fast.model.errors import Error
from gai_fast.model.settings import (
    GuardSettings,
    KeyLimits,
    KeySettings,
    ModelSettings,
    Secret,
    Settings,
    UpstreamSettings,
)
from gai_fast.net.engine.engine import Engine
from gai_fast.server.requests.gates import go_on
from gai_fast.server.requests.kinds.dialect import _with_texts
from gai_fast.server.requests.kinds.stream_routes import StreamRoutes
from gai_fast.server.requests.passage import Passage
from tests.limits import LIMITS
from tests.unit.server.requests.test_kinds import asked

UPSTREAM = UpstreamSettings("up", "openai", "http://127.0.0.1:9/v1", Secret("k"))
GUARDS = (
    GuardSettings("names", "words", words=("kestrel",), models=("m",)),
    GuardSettings("people", "pii", kinds=("email",), restore=True),
)
SETTINGS = Settings(upstreams={"up": UPSTREAM}, models={"m": ModelSettings("m", UPSTREAM, "x")}, guards=GUARDS)
WAY: Any = frozenset(("guards",))


@pytest.fixture
async def routes() -> AsyncIterator[StreamRoutes]:
    engine = Engine(SETTINGS, asyncio.get_running_loop())
    await engine.begin()
    yield StreamRoutes(engine)
    await engine.close()


def native(routes: StreamRoutes, query: str, key: KeySettings | None = None) -> Passage:
    made = asked(b'{"model": "m", "query": "%b"}' % query.encode(), "gai")
    made.http.set_key(key)
    return routes.native(made)


def spec_of(passage: Passage) -> Any:
    assert passage.spec is not None
    return passage.spec


async def test_a_request_without_a_match_keeps_its_plan(routes: StreamRoutes) -> None:
    passage = native(routes, "hi")
    left = iter(routes.gates.of(frozenset()))
    assert go_on(passage, left) is None
    before = passage.spec
    assert go_on(passage, iter(routes.gates.of(WAY)[2:])) is None
    assert passage.spec is before


async def test_a_match_is_planned_again_under_the_same_id_without_a_wait(routes: StreamRoutes) -> None:
    passage = native(routes, "a kestrel of a@b.example")
    gates = routes.gates.of(WAY)
    assert go_on(passage, iter(gates[:2])) is None
    before, stream_id, client = passage.spec, passage.stream_id, passage.response()
    assert go_on(passage, iter(gates[2:])) is None
    spec = spec_of(passage)
    assert spec is not before
    assert spec.request.query == "a [words] of <EMAIL_1>"
    assert passage.stream_id == stream_id == passage.response().stream_id
    assert passage.response() is not client
    assert spec.chain is not None


async def test_long_texts_wait_for_their_turns(routes: StreamRoutes) -> None:
    passages = [native(routes, "x " * LIMITS.slice + "kestrel") for _ in range(2)]
    waits = []
    for passage in passages:
        wait = go_on(passage, iter(routes.gates.of(WAY)))
        assert wait is not None
        waits.append(wait)
    await asyncio.gather(*[wait() for wait in waits])
    for passage in passages:
        assert spec_of(passage).request.query.endswith("x [words]")


async def test_a_caller_without_a_request_left_is_refused_before_a_guard_looks(routes: StreamRoutes) -> None:
    key, engine = KeySettings("ann", (), limits=KeyLimits(streams=1)), routes.gates._engine
    assert engine.ledger.try_take(key, "s")
    assert engine.guards is not None
    automaton = engine.guards.active[0].automaton
    assert automaton is not None
    states = automaton.state_count
    with pytest.raises(Error, match="streams = 1"):
        go_on(native(routes, "a kestrel", key), iter(routes.gates.of(WAY)))
    assert automaton.state_count == states, "a search makes states"


async def test_where_workers_share_limits_their_ledger_is_asked_first(
    routes: StreamRoutes, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, engine = KeySettings("ann", ()), routes.gates._engine
    looked: list[str] = []

    async def look(key: KeySettings) -> None:
        looked.append(key.name)

    monkeypatch.setattr(engine.ledger, "check", lambda _: False)
    monkeypatch.setattr(engine.ledger, "look", look)
    passage = native(routes, "a kestrel", key)
    wait = go_on(passage, iter(routes.gates.of(WAY)))
    assert wait is not None
    await wait()
    assert looked == ["ann"]
    assert spec_of(passage).request.query == "a [words]"


def test_marks_follow_their_items_where_reasoning_is_left_out() -> None:
    items: list[Any] = [
        {"type": "reasoning", "id": "rs_1", "summary": [{"text": "kestrel"}], "encrypted_content": "e"},
        {"role": "user", "content": "a"},
        {"type": "own_call", "id": "o_1"},
        {"type": "reasoning", "id": "rs_2", "summary": [], "encrypted_content": "e"},
    ]
    dialect = get_format("responses")
    asked = dialect.read_request({"model": "m", "input": items})
    asked.marks = [ItemMark(0, "openai", True), ItemMark(2, "openai", False), ItemMark(3, "xai", True)]
    path = ("input", 0, "summary", 0, "text")
    new = _with_texts(dialect, asked, {path: "[words]"}, [("input", 0)])
    assert new.body["input"] == items[1:]
    assert new.marks == [ItemMark(1, "openai", False), ItemMark(2, "xai", True)]
    assert asked.body["input"] == items
