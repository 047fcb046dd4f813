"""`gai_fast/server/requests/early.py`: what is refused unread, and what is read all the same."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from gai_fast.core.json.structure import Structure
from gai_fast.core.requests.reading import parse_object, parse_request
from gai_fast.model.errors import Error
from gai_fast.model.settings import KeyLimits, KeySettings, LimitSettings, Settings
from gai_fast.net.engine.engine import Engine
from gai_fast.runtime.beside import Beside
from gai_fast.server.admission.server_limits import ServerLimits
from gai_fast.server.requests.early import EarlyChecks, checked, read_rest
from gai_fast.stores import Claim
from tests.conftest import ChangeLimits
from tests.limits import LIMITS
from tests.unit.server.incoming_requests import http, incoming
from tests.unit.server.requests.stub_passage import StubPassage

KEY = KeySettings("ann", (), limits=KeyLimits(requests_per_minute=1))
BODY = b'{"query": "a"}'


class Asked:
    """One request."""

    def __init__(self, body: bytes = BODY, **headers: str) -> None:
        self.incoming = incoming(http("POST", "/"))
        self.incoming.http.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.incoming.http.body = body
        self.incoming.http.set_key(KEY)

    def is_admitted(self, engine: Engine, *, takes_key: bool = True) -> bool:
        """Returns whether it may be read at once."""
        return EarlyChecks(engine).admit(self.incoming, takes_key=takes_key) is None

    async def wait(self, engine: Engine) -> None:
        """Waits until it may be read."""
        wait = EarlyChecks(engine).admit(self.incoming, takes_key=True)
        assert wait is not None
        assert await wait() is None


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    engine = Engine(Settings(keys=(KEY,)), asyncio.get_running_loop())
    yield engine
    await engine.close()


def use_up(engine: Engine) -> None:
    assert engine.ledger.try_take(KEY, "s")


async def test_a_request_is_read_while_its_key_has_one_left_and_checks_count_nothing(engine: Engine) -> None:
    for _ in range(3):
        assert Asked().is_admitted(engine)


async def test_a_request_beyond_a_limit_is_refused_unread_and_counted_as_refused(engine: Engine) -> None:
    use_up(engine)
    with pytest.raises(Error, match="requests_per_minute = 1"):
        Asked().is_admitted(engine)
    assert engine.ledger.refused["requests_per_minute"] == 1


async def test_requests_that_are_passed_through_count_as_streams(engine: Engine) -> None:
    engine.limits = ServerLimits(LimitSettings(streams=1))
    engine.begin_transfer("t", "bob", lambda error: None)
    with pytest.raises(Error, match="streams = 1"):
        Asked().is_admitted(engine)


async def test_a_request_that_a_stream_of_its_idempotency_key_may_answer_is_read(engine: Engine) -> None:
    use_up(engine)
    known = '["ann","/","k"]'
    assert await engine.store.claim(known, Claim("s", "f"), "ann") is None
    await Asked(idempotency_key="k").wait(engine)
    assert Asked(b'{"idempotency_key": "k"}').is_admitted(engine)
    assert engine.ledger.refused["requests_per_minute"] == 0, "a replay uses nothing"
    with pytest.raises(Error) as refused:
        await Asked(idempotency_key="other").wait(engine)
    assert refused.value.status == 429
    assert engine.ledger.refused["requests_per_minute"] == 1


async def test_the_name_of_that_member_is_no_key_in_a_dialect(engine: Engine) -> None:
    """A tool may have a parameter of this name."""
    use_up(engine)
    asked = Asked(b'{"tools": [{"parameters": {"properties": {"idempotency_key": {}}}}]}')
    asked.incoming = incoming(asked.incoming.http, format="openai")
    asked.incoming.http.set_key(KEY)
    with pytest.raises(Error, match="requests_per_minute = 1"):
        asked.is_admitted(engine)


async def test_where_no_key_counts_the_store_is_not_asked(engine: Engine) -> None:
    asked = Asked(BODY, idempotency_key="not, a token")
    assert asked.is_admitted(engine, takes_key=False)
    use_up(engine)
    for refused in (asked, Asked(b'{"idempotency_key": "k"}')):
        with pytest.raises(Error, match="requests_per_minute = 1"):
            refused.is_admitted(engine, takes_key=False)


async def test_a_ledger_that_others_share_is_asked_and_the_request_counts_once(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = engine.ledger.check

    async def look(key: KeySettings) -> None:
        check(key)

    monkeypatch.setattr(engine.ledger, "check", lambda _: False)
    monkeypatch.setattr(engine.ledger, "look", look)
    for _ in range(2):
        await Asked().wait(engine)
    use_up(engine)
    with pytest.raises(Error, match="requests_per_minute = 1"):
        await Asked().wait(engine)


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
    await asked.wait(engine)
    assert asked.incoming.http.body == body
    assert max(pieces) == LIMITS.checked_bytes
    assert turns == [*range(1, len(pieces) + 1)], "each part has a turn of its own"
    assert parse_request(asked.incoming.http.body).idempotency_key == "x"
    assert sum(pieces) == len(body), "it is not checked again"


@pytest.mark.parametrize("count", [480_000, 2 * LIMITS.object_members])
async def test_a_body_beyond_its_limits_is_refused_unparsed(engine: Engine, count: int) -> None:
    members = b",".join([b'"%d":"v"' % at for at in range(count)])
    asked = Asked(b'{"query": "a", "metadata": {%b}}' % members)
    with pytest.raises(Error, match="members") as refused:
        await asked.wait(engine)
    assert refused.value.status == 400


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


async def test_the_rest_of_a_large_request_is_read_once_and_does_not_keep_the_request() -> None:
    beside, passage = Beside(asyncio.get_running_loop()), StubPassage("a")
    passage.rest = passage.read  # refers to the request
    await read_rest(passage, beside)
    beside.close()
    assert (passage.rest, passage.steps) == (None, ["read"])
