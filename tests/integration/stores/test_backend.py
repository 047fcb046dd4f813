"""Copies, leases and keys outside the process: one suite for the file and the server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
from msgspec.structs import replace

from gai_fast.stores import Ending, LogHeader
from gai_fast.stores.backend import (
    CANCEL,
    Backend,
    CopyChange,
    CopyTail,
    Gap,
    LogCopy,
    Record,
    StoreError,
    ending_text,
    header_text,
    read_ending,
    read_header,
)
from tests.conftest import ChangeLimits
from tests.integration.stores.changes import changed
from tests.integration.stores.conftest import MakeBackend
from tests.limits import LIMITS
from tests.waiting import SECONDS, until_answered

FINISHED = Ending("finished", "stop", {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3})
FAILED = Ending("failed", None, None, {"code": "network", "message": "ü", "temporary": True})
PIECES = [b"event: a\n\n", "ü\u2028\n\n".encode(), bytes(range(256)), b"", b"x" * 300_000]


def header(stream_id: str = "s") -> LogHeader:
    return LogHeader(stream_id, "caller", "m/x", "gai", "sse", "full", "request", "0" * 32)


def copied(lost: int, text: str | None, news: CopyTail) -> LogCopy:
    return LogCopy(header(), "worker", lost, text, news, 1)


def begin(stream_id: str = "s", *added: Record) -> CopyChange:
    return changed(stream_id, header(stream_id), "worker", added, keep=60)


def records(first: int, last: int, size: int = 10) -> list[Record]:
    return [Record(number - 1, number, b"%d" % number * size) for number in range(first, last + 1)]


async def write(backend: Backend, *changes: CopyChange) -> None:
    assert not await backend.write(changes)


async def add(backend: Backend, *more: Record, stream_id: str = "s") -> None:
    await write(backend, changed(stream_id, records=more))


async def until_gone(ask: Callable[[], Awaitable[object]]) -> None:
    async def is_gone() -> bool:
        return not await ask()

    await until_answered(is_gone)


async def all_news(backend: Backend, after: int = 0, stream_id: str = "s") -> CopyTail:
    """Returns all of a copy after an event, however many steps that takes."""
    found: list[Record] = []
    while True:
        position = found[-1].last_seq if found else after
        news = (await backend.tail({stream_id: position}, 0.01)).get(stream_id, CopyTail([]))
        found += news.records
        if not news.has_more:
            return CopyTail(found, news.ending, news.is_damaged)


# ---- copies ----------------------------------------------------------------------------------------------------------


async def test_a_copy_is_what_was_written(backend: Backend, make_backend: MakeBackend) -> None:
    added = [Record(seq - 1, seq, piece) for seq, piece in enumerate(PIECES, 1)]
    await write(backend, begin("s", added[0]))
    await add(backend, *added[1:])
    await write(backend, changed("s", ending=FINISHED, last_seq=len(PIECES), keep=60))
    other = make_backend()
    await other.open()
    for each in (backend, other):
        assert await each.load("s") == copied(0, "", CopyTail(added, FINISHED))
        assert await all_news(each) == CopyTail(added, FINISHED)
        assert await all_news(each, after=3) == CopyTail(added[3:], FINISHED)
        assert await all_news(each, after=5) == CopyTail([], FINISHED)


async def test_a_stream_that_nobody_wrote_is_not_there(backend: Backend) -> None:
    assert await backend.load("s") is None
    assert await all_news(backend) == CopyTail([])
    assert not await backend.kept(["s"])


async def test_a_copy_that_has_only_begun_is_there(backend: Backend) -> None:
    await write(backend, begin())
    assert await backend.load("s") == copied(0, "", CopyTail([]))
    assert await all_news(backend) == CopyTail([])
    await add(backend, *records(1, 3))
    assert await all_news(backend) == CopyTail(records(1, 3))


async def test_a_stream_may_end_without_a_word(backend: Backend) -> None:
    await write(backend, begin())
    await write(backend, changed("s", ending=FAILED, keep=60))
    copy = await backend.load("s")
    assert copy is not None
    assert copy.news == await all_news(backend) == CopyTail([], FAILED)


async def test_one_batch_holds_many_streams(backend: Backend) -> None:
    names = [f"s{number}" for number in range(50)]
    await write(backend, *(begin(name, *records(1, 1)) for name in names))
    await write(backend, *(changed(name, records=records(2, 2), ending=FAILED, last_seq=2, keep=9) for name in names))
    assert set(await backend.kept([*names, "unknown"])) == set(names)
    assert await backend.tail(dict.fromkeys(names, 1), 0.01) == dict.fromkeys(names, CopyTail(records(2, 2), FAILED))


async def test_what_is_written_twice_is_there_once(backend: Backend) -> None:
    """A batch is written again if nobody knows whether it was written."""
    changes = [
        begin("s", *records(1, 1)),
        changed("s", records=records(2, 2)),
        changed("s", gap=Gap(1, "one", is_whole=True)),
        changed("s", records=records(3, 3), ending=FINISHED, last_seq=3, keep=60),
    ]
    for _ in range(3):
        await write(backend, *changes)
    assert await backend.load("s") == copied(1, "one", CopyTail(records(2, 3), FINISHED))
    assert await all_news(backend, 1) == CopyTail(records(2, 3), FINISHED)


async def test_a_long_copy_is_read_in_parts_and_none_is_missing(backend: Backend) -> None:
    large = records(1, 40, size=50_000)
    await write(backend, begin())
    await add(backend, *large)
    await write(backend, changed("s", ending=FINISHED, last_seq=40, keep=60))
    copy = await backend.load("s")
    assert copy is not None
    assert 0 < len(copy.news.records) < 40
    assert await all_news(backend) == CopyTail(large, FINISHED)


async def test_a_read_of_many_long_copies_is_bounded_and_each_goes_on(backend: Backend) -> None:
    names = [f"s{number}" for number in range(LIMITS.mirror_streams)]
    large = records(1, 8, size=50_000)
    await write(backend, *(begin(name, *large) for name in names))
    positions = dict.fromkeys(names, 0)
    while True:
        news = await backend.tail(positions, 0.0)
        if not news:
            break
        assert news.keys() == {name for name, last_seq in positions.items() if last_seq < 8}, "none is left out"
        size = sum(len(record.piece) for each in news.values() for record in each.records)
        assert size <= len(names) * len(large[0].piece) * 4, "half of what there is, at most"
        positions.update({name: each.records[-1].last_seq for name, each in news.items()})
    assert set(positions.values()) == {8}


async def test_what_was_dropped_is_gone_and_its_text_is_known(backend: Backend) -> None:
    await write(backend, begin())
    await add(backend, *records(1, 10))
    await write(backend, changed("s", gap=Gap(4, "Hel", is_whole=True)))
    assert await backend.load("s") == copied(4, "Hel", CopyTail(records(5, 10)))
    await write(backend, changed("s", gap=Gap(8, "lo ü", is_whole=False)))
    assert await backend.load("s") == copied(8, "Hello ü", CopyTail(records(9, 10)))
    await write(backend, changed("s", gap=Gap(9, "Anew", is_whole=True)))
    assert await backend.load("s") == copied(9, "Anew", CopyTail(records(10, 10)))
    await write(backend, changed("s", gap=Gap(10, None, is_whole=False)))
    assert await backend.load("s") == copied(10, None, CopyTail([]))
    await add(backend, *records(11, 12))
    assert await all_news(backend, 10) == CopyTail(records(11, 12))


async def test_followers_are_noted_for_the_streams_worker(backend: Backend, make_backend: MakeBackend) -> None:
    await write(backend, begin("s"), begin("t"))
    assert await backend.followed_ago("s") is None
    assert await backend.followed_ago("unknown") is None
    other = make_backend()
    await other.open()
    await other.note_followers(["s", "unknown"])
    await other.note_followers([])
    ago = await backend.followed_ago("s")
    assert ago is not None
    assert ago >= 0.0
    assert await backend.followed_ago("t") is None
    assert await backend.load("unknown") is None, "nothing is made of it"
    await asyncio.sleep(0.03)
    later = await backend.followed_ago("s")
    assert later is not None
    assert later > ago
    await other.note_followers(["s"])
    again = await backend.followed_ago("s")
    assert again is not None
    assert await backend.load("s") == copied(0, "", CopyTail([]))


async def test_a_copy_that_the_store_has_lost_is_reported_and_can_be_begun_again(backend: Backend) -> None:
    lost = changed("s", records=records(5, 5))
    assert set(await backend.write([lost, begin("other", *records(1, 1))])) == {"s"}
    assert await backend.load("s") is None
    assert await all_news(backend, stream_id="other") == CopyTail(records(1, 1))
    await write(backend, begin("s", Record(0, 5, b"five")))
    assert await all_news(backend) == CopyTail([Record(0, 5, b"five")])


async def test_a_dropped_copy_is_not_there(backend: Backend) -> None:
    await write(backend, begin("s", *records(1, 1)))
    await write(backend, changed("s", is_dropped=True), changed("never", is_dropped=True))
    assert await backend.load("s") is None
    assert not await backend.kept(["s"])


async def test_a_copy_is_gone_after_its_time(backend: Backend) -> None:
    await write(backend, replace(begin(), keep=2.0), begin("longer"))
    assert await backend.load("s") is not None
    await write(backend, changed("longer", keep=30))
    await until_gone(lambda: backend.load("s"))
    while await backend.sweep():
        pass
    assert await backend.load("longer") is not None


# ---- followers of other processes ------------------------------------------------------------------------------------


async def test_a_follower_gets_what_another_process_writes(backend: Backend, make_backend: MakeBackend) -> None:
    other = make_backend()
    await other.open()
    await write(backend, begin())

    async def follow() -> CopyTail:
        found: list[Record] = []
        while True:
            news = (await other.tail({"s": len(found), "unknown": 0}, 0.1)).get("s", CopyTail([]))
            found += news.records
            if news.ending is not None:
                return CopyTail(found, news.ending)

    following = asyncio.ensure_future(follow())
    for record in records(1, 30):
        await asyncio.sleep(0.005)
        await add(backend, record)
    await write(backend, changed("s", ending=FINISHED, last_seq=30, keep=60))
    assert await following == CopyTail(records(1, 30), FINISHED)


# ---- leases ----------------------------------------------------------------------------------------------------------


async def test_a_worker_has_its_lease_until_it_gives_it_up(
    backend: Backend, make_backend: MakeBackend, change_limits: ChangeLimits
) -> None:
    change_limits(lease_lost=SECONDS)
    other = make_backend()
    await other.open()
    assert await other.leased(["worker", "gone"]) == set()
    await backend.renew("worker")
    assert await other.leased(["worker", "gone"]) == {"worker"}
    await backend.give_up("worker")
    assert await other.leased(["worker", "gone"]) == set()


async def test_a_lease_that_is_not_renewed_runs_out(
    backend: Backend, make_backend: MakeBackend, change_limits: ChangeLimits
) -> None:
    change_limits(lease_lost=0.5)
    other = make_backend()
    await other.open()
    began = time.monotonic()
    await backend.renew("worker")
    await until_gone(lambda: other.leased(["worker"]))
    assert time.monotonic() - began >= LIMITS.lease_lost - 0.1


# ---- the end ---------------------------------------------------------------------------------------------------------


async def test_what_was_written_is_there_after_a_new_start(make_backend: MakeBackend) -> None:
    first = make_backend()
    await first.open()
    await write(first, begin("s", *records(1, 1)))
    await first.close()
    second = make_backend()
    await second.open()
    await add(second, *records(2, 2))
    assert await all_news(second) == CopyTail(records(1, 2))


async def test_a_worker_that_did_not_renew_its_lease_in_time_is_late_until_it_is_gone(
    make_backend: MakeBackend, change_limits: ChangeLimits
) -> None:
    change_limits(lease_late=0.1, lease_lost=1.0)
    made = make_backend()
    await made.open()
    await made.renew("other")
    assert not await made.late()

    async def is_late() -> bool:
        return [*await made.late()] == ["other"]

    async def is_gone() -> bool:
        return not await made.late() and not await made.leased(["other"])

    await until_answered(is_late)
    assert {*await made.leased(["other"])} == {"other"}
    await made.renew("other")
    assert not await made.late()
    await until_answered(is_gone)


@pytest.mark.parametrize("count", [1, 2])
async def test_closing_is_harmless_twice(make_backend: MakeBackend, count: int) -> None:
    made = make_backend()
    await made.open()
    for _ in range(count):
        await made.close()


async def test_a_closed_store_answers_with_an_error(make_backend: MakeBackend) -> None:
    made = make_backend()
    await made.open()
    await made.close()
    for call in (made.load("s"), made.write([begin()]), made.renew("w"), made.get("claim", "k")):
        with pytest.raises(StoreError, match="is closed"):
            await call


# ---- messages --------------------------------------------------------------------------------------------------------


async def test_a_worker_hears_each_message_about_its_streams_once_and_in_order(
    backend: Backend, make_backend: MakeBackend
) -> None:
    other = make_backend()
    await other.open()
    asked = asyncio.ensure_future(backend.messages("w", 30))
    await other.tell("another", "x", CANCEL)
    await other.tell("w", "s", CANCEL)
    assert [*await asked] == [("s", CANCEL)]
    sent = [("s", "pause ü\nnow"), ("s", CANCEL), ("t", CANCEL), ("t", "x" * LIMITS.message)]
    for stream_id, message in (*sent, sent[2]):
        await other.tell("w", stream_id, message)
    found: list[tuple[str, str]] = []

    async def has_all() -> bool:
        found.extend(await backend.messages("w", 0.01))
        return len(found) >= len(sent)

    await until_answered(has_all)
    assert found == sent
    assert [*await backend.messages("w", 0.01)] == []


@pytest.mark.parametrize("message", ["", "x" * (LIMITS.message + 1)], ids=["empty", "long"])
async def test_a_message_that_is_empty_or_too_long_is_not_sent(backend: Backend, message: str) -> None:
    with pytest.raises(StoreError, match="characters, not 1 to"):
        await backend.tell("w", "s", message)
    assert [*await backend.messages("w", 0.01)] == []


async def test_a_worker_that_is_gone_is_asked_in_vain_and_nothing_stays(
    backend: Backend, change_limits: ChangeLimits
) -> None:
    change_limits(note_life=0.05)
    await backend.tell("gone", "s", CANCEL)
    await asyncio.sleep(2 * LIMITS.note_life)
    await backend.sweep()
    assert [*await backend.messages("gone", 0.01)] == []


async def test_the_oldest_of_too_many_messages_are_dropped(backend: Backend, change_limits: ChangeLimits) -> None:
    change_limits(messages=3)
    for number in range(5):
        await backend.tell("w", f"s{number}", CANCEL)
    found: list[tuple[str, str]] = []

    async def has_all() -> bool:
        found.extend(await backend.messages("w", 0.01))
        return len(found) == 3

    await until_answered(has_all)
    assert found == [("s2", CANCEL), ("s3", CANCEL), ("s4", CANCEL)]


# ---- texts of others -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [b"5", b'"ab"', b"[]", b'{"a":1}', b"x", b'["w"]', b'[5,"s","c","m","gai","sse"]', b'["w","s",5,"m","gai","sse"]',
     b'["w","s","c","m","gai","nonsense"]', b'["w","s","c","m","gai","sse","full","r","t","more"]'],
)  # fmt: skip
def test_a_header_that_is_not_ours_is_damage(text: bytes) -> None:
    with pytest.raises(StoreError, match="header"):
        read_header(text)


@pytest.mark.parametrize(
    "text", [b"5", b"[]", b"x", b"\xff", b'["done"]', b'["finished",5]', b'["failed",null,null,5]', b'["failed",[]]']
)
def test_an_end_that_is_not_ours_is_damage(text: bytes) -> None:
    with pytest.raises(StoreError, match="end"):
        read_ending(text)


def test_a_header_and_an_end_are_read_as_they_were_written() -> None:
    for header in (
        LogHeader("s", "c", "m", "openai", "json"),
        LogHeader("s", "c", "m", "gai", "sse", "full", "r", "t"),
    ):
        assert read_header(header_text(header, "w")) == (header, "w")
    for ending in (
        Ending("finished", "stop", {"input_tokens": 1}),
        Ending("failed", error={"code": "x"}, has_content=False),
    ):
        assert read_ending(ending_text(ending)) == ending
    assert read_ending(b'["cancelled"]') == Ending("cancelled")
