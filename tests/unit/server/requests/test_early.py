"""`gai_fast/server/requests/early.py`: what is refused unread, and what is read all the same."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gai_fast.core.reading import parse_object, parse_request
from gai_fast.core.structure import Structure
from gai_fast.model.errors import Error
from gai_fast.model.settings import KeyLimits, KeySettings, LimitSettings, Settings
from gai_fast.net.stream.streams import Engine
from gai_fast.server.admission.server_limits import ServerLimits
from gai_fast.server.http.replies import Reply
from gai_fast.server.requests.early import EarlyLimits, checked
from gai_fast.server.requests.incoming import Incoming
from gai_fast.stores import Claim
from tests.conftest import ChangeLimits
from tests.limits import LIMITS
from tests.unit.server.incoming_requests import http, incoming
from tests.unit.server.requests.test_stream_response import FakeConnection
from tests.waiting import until

KEY = KeySettings("ann", (), limits=KeyLimits(requests_per_minute=1))
BODY = b'{"query": "a"}'


class Asked:
    """One request, and the bodies that its handler has read."""

    def __init__(self, body: bytes = BODY, **headers: str) -> None:
        self.connection = FakeConnection()
        self.incoming = incoming(http("POST", "/", client=self.connection))
        self.incoming.http.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.incoming.http.body = body
        self.incoming.http.key = KEY
        self.read: list[bytes] = []

    def handler(self, incoming: Incoming) -> Reply:
        self.read.append(incoming.http.body)
        return Reply(200, b"read")


async def answered(asked: Asked) -> None:
    await until(lambda: asked.connection.ends)


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    engine = Engine(Settings(keys=(KEY,)), asyncio.get_running_loop())
    yield engine
    await engine.close()


def use_up(engine: Engine) -> None:
    assert engine.ledger.try_take(KEY, "s")


async def test_a_request_is_read_while_its_key_has_one_left_and_checks_count_nothing(engine: Engine) -> None:
    early = EarlyLimits(engine)
    for _ in range(3):
        asked = Asked()
        assert early.read(asked.incoming, asked.handler) is not None
        assert asked.read == [BODY]


async def test_a_request_beyond_a_limit_is_refused_unread_and_counted_as_refused(engine: Engine) -> None:
    use_up(engine)
    asked = Asked()
    with pytest.raises(Error, match="requests_per_minute = 1"):
        EarlyLimits(engine).read(asked.incoming, asked.handler)
    assert not asked.read
    assert engine.ledger.refused["requests_per_minute"] == 1


async def test_requests_that_are_passed_through_count_as_streams(engine: Engine) -> None:
    engine.limits = ServerLimits(LimitSettings(streams=1))
    engine.begin_transfer("t", "bob", lambda error: None)
    asked = Asked()
    with pytest.raises(Error, match="streams = 1"):
        EarlyLimits(engine).read(asked.incoming, asked.handler)
    assert not asked.read


async def test_a_request_that_a_stream_of_its_idempotency_key_may_answer_is_read(engine: Engine) -> None:
    use_up(engine)
    early = EarlyLimits(engine)
    known = '["ann","/","k"]'
    assert await engine.store.claim(known, Claim("s", "f"), "ann") is None
    asked = Asked(idempotency_key="k")
    assert early.read(asked.incoming, asked.handler) is None
    await until(lambda: asked.connection.ends)
    assert asked.read == [BODY]
    member = Asked(b'{"idempotency_key": "k"}')
    assert early.read(member.incoming, member.handler) is not None
    assert engine.ledger.refused["requests_per_minute"] == 0, "a replay uses nothing"
    unknown = Asked(idempotency_key="other")
    assert early.read(unknown.incoming, unknown.handler) is None
    await until(lambda: unknown.connection.ends)
    reply: Any = unknown.connection.ends[0]
    assert (reply.status, unknown.read) == (429, [])
    assert engine.ledger.refused["requests_per_minute"] == 1


async def test_the_name_of_that_member_is_no_key_in_a_dialect(engine: Engine) -> None:
    """A tool may have a parameter of this name."""
    use_up(engine)
    asked = Asked(b'{"tools": [{"parameters": {"properties": {"idempotency_key": {}}}}]}')
    asked.incoming = incoming(asked.incoming.http, format="openai")
    asked.incoming.http.key = KEY
    with pytest.raises(Error, match="requests_per_minute = 1"):
        EarlyLimits(engine).read(asked.incoming, asked.handler)
    assert not asked.read


async def test_where_no_key_counts_the_store_is_not_asked(engine: Engine) -> None:
    early = EarlyLimits(engine)
    asked = Asked(BODY, idempotency_key="not, a token")
    assert early.read(asked.incoming, asked.handler, takes_key=False) is not None
    assert asked.read == [BODY]
    use_up(engine)
    for refused in (asked, Asked(b'{"idempotency_key": "k"}')):
        with pytest.raises(Error, match="requests_per_minute = 1"):
            early.read(refused.incoming, refused.handler, takes_key=False)


async def test_a_ledger_that_others_share_is_asked_and_the_request_counts_once(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = engine.ledger.check

    async def look(key: KeySettings) -> None:
        check(key)

    monkeypatch.setattr(engine.ledger, "check", lambda _: False)
    monkeypatch.setattr(engine.ledger, "look", look)
    early = EarlyLimits(engine)
    for _ in range(2):
        asked = Asked()
        assert early.read(asked.incoming, asked.handler) is None
        await answered(asked)
        assert asked.read == [BODY]
    use_up(engine)
    refused = Asked()
    assert early.read(refused.incoming, refused.handler) is None
    await until(lambda: refused.connection.ends)
    assert not refused.read


async def test_a_large_body_is_checked_in_parts_between_which_the_loop_has_turns(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces: list[int] = []
    turns: list[int] = []
    feed, loop = Structure.feed, asyncio.get_running_loop()

    def feeding(self: Structure, piece: bytes) -> None:
        pieces.append(len(piece))
        loop.call_soon(turns.append, len(pieces))
        feed(self, piece)

    monkeypatch.setattr(Structure, "feed", feeding)
    asked = Asked(b'{"query": "%b", "idempotency_key": "x"}' % (b"a" * 10 * LIMITS.checked_bytes))
    body = asked.incoming.http.body
    assert EarlyLimits(engine).read(asked.incoming, asked.handler) is None
    assert not asked.read
    await answered(asked)
    assert asked.read == [body]
    assert max(pieces) == LIMITS.checked_bytes
    assert turns == [*range(1, len(pieces) + 1)], "each part has a turn of its own"
    assert parse_request(asked.read[0]).idempotency_key == "x"
    assert sum(pieces) == len(body), "it is not checked again"


@pytest.mark.parametrize("count", [480_000, 2 * LIMITS.object_members])
async def test_a_body_beyond_its_limits_is_refused_unparsed(engine: Engine, count: int) -> None:
    members = b",".join([b'"%d":"v"' % at for at in range(count)])
    asked = Asked(b'{"query": "a", "metadata": {%b}}' % members)
    assert EarlyLimits(engine).read(asked.incoming, asked.handler) is None
    await answered(asked)
    reply: Any = asked.connection.ends[0]
    assert (reply.status, asked.read) == (400, [])
    assert b"members" in reply.body


async def test_a_large_body_of_a_dialect_is_parsed_in_parts_to_the_same_value() -> None:
    messages = [
        {"role": "user", "content": [{"type": "text", "text": f"\u00e9 {at}"}], "n": 10**30} for at in range(20_000)
    ]
    given = {"model": "m", "messages": messages, "metadata": {str(at): "v" for at in range(15_000)}, "x": [1] * 9}
    body = json.dumps(given).encode()
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    found = await checked(body, is_native=False)
    counting.cancel()
    assert parse_object(found) is found.value
    assert found.value == json.loads(body)
    assert turns >= len(body) // LIMITS.turn_bytes, "each part has a turn of its own"


@pytest.mark.parametrize("body", [b"[1]", b'{"a": 1', b'{"a": "\xff"}', b"", b'{"a": [{"b": 01}]}'])
async def test_a_body_that_is_no_object_is_left_to_its_handler(body: bytes, change_limits: ChangeLimits) -> None:
    change_limits(turn_bytes=1, checked_bytes=3)
    found = await checked(body, is_native=False)
    assert found.value is None
    with pytest.raises(Error) as refused:
        parse_object(found)
    assert refused.value.code == "invalid_request"
