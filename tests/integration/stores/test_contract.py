"""The one interface of all stores: logs, followers and keys, in memory, in a file and in a server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gai_fast.model.errors import Error
from gai_fast.model.limits import KIB
from gai_fast.model.settings import StoreSettings
from gai_fast.runtime.timers import TimerWheel
from gai_fast.stores import Backlog, Claim, Ending, LogHeader, Store, StreamLog, check_url, open_store
from tests.integration.stores.servers import RedisServer
from tests.waiting import until, until_answered

FINISHED = Ending("finished", "stop", {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3})
LIMIT = 10**9


@pytest.fixture(params=["memory", "sqlite", "redis"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        return server.url
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 'store.db'}"


@pytest.fixture
def life() -> float:
    """Seconds for which streams and keys are kept."""
    return 600.0


@pytest.fixture
async def store(address: str, life: float) -> AsyncIterator[Store]:
    settings = StoreSettings(check_url(address, Path()), ttl=life, max_bytes=256 * KIB, max_stream_bytes=32 * KIB)
    store = open_store(settings, TimerWheel(asyncio.get_running_loop()), claim_ttl=life)
    await store.open()
    yield store
    await store.close()


def begin(store: Store, stream_id: str = "s", format: str = "gai") -> StreamLog:
    return store.create(LogHeader(stream_id, "caller", "m", format, "sse"))


def frame(seq: int, text: str = "x") -> bytes:
    return f'event: text.delta\nid: s.{seq}\ndata: {{"type":"text.delta","text":"{text}"}}\n\n'.encode()


def fill(log: StreamLog, first: int, last: int) -> bytes:
    for seq in range(first, last + 1):
        log.append(frame(seq), seq)
    return b"".join(frame(seq) for seq in range(first, last + 1))


class Watcher:
    def __init__(self, log: StreamLog) -> None:
        self.heard: list[tuple[bytes, int]] = []
        self.has_ended = False
        log.watch(self)

    def advanced(self, piece: bytes, last_seq: int) -> None:
        self.heard.append((piece, last_seq))

    def ended(self) -> None:
        self.has_ended = True


async def test_every_position_gets_exactly_the_events_after_it(store: Store) -> None:
    log = begin(store)
    fill(log, 1, 100)
    for after in range(101):
        assert b"".join(log.read(after, LIMIT).pieces) == b"".join(frame(seq) for seq in range(after + 1, 101))
    assert log.read(100, LIMIT) == Backlog([], 100)
    log.end(FINISHED)
    assert (log.ending, log.broken, log.is_over) == (FINISHED, None, True)


async def test_a_watcher_gets_the_pieces_as_they_are_until_the_end(store: Store) -> None:
    log = begin(store)
    fill(log, 1, 3)
    first, leaving = Watcher(log), Watcher(log)
    piece = frame(4)
    log.append(piece, 4)
    log.unwatch(leaving)
    fill(log, 5, 5)
    log.end(FINISHED)
    assert first.heard == [(frame(4), 4), (frame(5), 5)]
    assert first.heard[0][0] is piece
    assert leaving.heard == first.heard[:1]
    assert (first.has_ended, leaving.has_ended) == (True, False)


async def test_a_stream_is_found_by_its_id_and_by_no_other(store: Store) -> None:
    log = begin(store)
    assert store.find_here("s") is log
    assert await store.find("s") is log
    for other in ("S", "s ", "", "s.1", "x" * 10_000, "{s}", "s\n", "'; DROP TABLE streams; --", "gai:claim:x", "ü\0"):
        assert store.find_here(other) is None
        assert await store.find(other) is None


async def test_what_was_dropped_is_reported_with_its_text(store: Store) -> None:
    log = begin(store)
    fill(log, 1, 2000)
    backlog = log.read(7, LIMIT)
    assert backlog.lost > 1000
    assert backlog.text == "x" * backlog.lost
    assert b"".join(backlog.pieces) == b"".join(frame(seq) for seq in range(backlog.lost + 1, 2001))


async def test_a_format_without_our_events_has_no_text(store: Store) -> None:
    log = begin(store, format="openai")
    fill(log, 1, 2000)
    backlog = log.read(0, LIMIT)
    assert backlog.lost
    assert backlog.text is None


@pytest.mark.parametrize("life", [2.0])
async def test_a_stream_is_gone_after_its_time(store: Store) -> None:
    log = begin(store)
    fill(log, 1, 3)
    log.end(FINISHED)
    assert await store.find("s") is log
    await until(lambda: store.find_here("s") is None)

    async def is_gone() -> bool:
        copy = await store.find("s")  # of a copy the time begins a moment later
        if copy is not None:
            store.memory.forget(copy)
        return copy is None

    await until_answered(is_gone)


async def test_there_is_no_room_for_any_number_of_streams(store: Store) -> None:
    with pytest.raises(Error, match="no room for another durable stream") as refused:
        for number in range(1000):
            begin(store, f"s{number}")
    assert (refused.value.code, refused.value.reason) == ("overloaded", "store")


async def test_a_key_belongs_to_the_first_who_comes(store: Store) -> None:
    begin(store)
    assert await store.claim("key", Claim("s", "body")) is None
    assert await store.claim("key", Claim("t", "body")) == Claim("s", "body")
    assert await store.claim("key", Claim("t", "other body")) == Claim("s", "body")
    assert await store.claim("other key", Claim("t", "body")) is None


async def test_anybody_can_ask_whose_a_key_is(store: Store) -> None:
    begin(store)
    assert await store.find_claim("key") is None
    assert await store.claim("key", Claim("s", "", 5)) is None
    assert await store.find_claim("key") == Claim("s", "", 5)
    await store.release("key", "s")
    assert await store.find_claim("key") is None


@pytest.mark.parametrize("life", [2.0])
async def test_a_key_is_freed_by_its_stream_or_its_time(store: Store) -> None:
    begin(store)
    await store.claim("key", Claim("s", "body"))
    await store.release("key", "t")
    assert await store.claim("key", Claim("t", "body")) == Claim("s", "body")
    await store.release("key", "s")
    assert await store.claim("key", Claim("t", "body")) is None
    begin(store, "t")

    async def is_free() -> bool:
        return await store.claim("key", Claim("u", "body")) is None

    await until_answered(is_free)


@pytest.mark.parametrize(
    "key", ["", "a b", "ü\0\n", "x" * 100_000, "'; DROP TABLE claims; --", "\ud800", "gai:{s}:log"]
)
async def test_a_key_may_be_any_text(store: Store, key: str) -> None:
    begin(store)
    assert await store.claim(key, Claim("s", "body")) is None
    assert await store.claim(f"{key}x", Claim("s", "body")) is None
    assert await store.claim(key, Claim("t", "body")) == Claim("s", "body")


async def test_of_a_thousand_races_for_a_key_each_has_one_winner(store: Store) -> None:
    for tens in range(10):
        winner = f"winner{tens}"
        begin(store, winner).end(FINISHED)
        for number in range(100):
            claims = (store.claim(f"key {tens}.{number}", Claim(winner, f"{n}")) for n in range(3))
            results = await asyncio.gather(*claims)
            assert results.count(None) == 1
            assert len({result for result in results if result is not None}) == 1
