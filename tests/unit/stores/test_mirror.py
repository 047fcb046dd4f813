"""`gai_fast/stores/mirror.py`: a follower here reads what another worker writes, and hears of its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from typing import Any

import pytest

from gai_fast.model.errors import Error
from gai_fast.model.limits import KIB
from gai_fast.model.settings import StoreSettings
from gai_fast.runtime.ids import EVENT_NUMBERS
from gai_fast.runtime.timers import TimerWheel
from gai_fast.stores import Ending, LogHeader, StreamLog
from gai_fast.stores._base import CALLS, EndsInstead, NoRoom, NotYet, TakeOver
from gai_fast.stores.alive import Alive
from gai_fast.stores.backend import CopyTail, Gap, Owner, Record, StoreError
from gai_fast.stores.health import Health
from gai_fast.stores.memory import LogMemory
from gai_fast.stores.mirror import Mirrors, Succession
from tests.conftest import ChangeLimits
from tests.unit.stores.fake_backend import FakeBackend, Stored, World
from tests.unit.stores.test_journal import Watching, frame
from tests.waiting import SECONDS, until

FINISHED = Ending("finished", "stop")


class Process:
    """One process's memory and mirrors."""

    def __init__(self, world: World, timers: TimerWheel) -> None:
        self.memory = LogMemory(StoreSettings(max_bytes=256 * KIB, max_stream_bytes=128 * KIB), timers)
        self.health = Health(timers.clock)
        backend = FakeBackend(world)
        self.alive = Alive(backend)
        self.mirrors = Mirrors(backend, self.memory, self.health, "here", self.alive)

    async def found(self, stream_id: str = "s") -> StreamLog:
        log = await self.mirrors.find(stream_id)
        assert log is not None
        return log


@pytest.fixture
def world() -> World:
    world = World()
    world.leases.add("there")
    return world


@pytest.fixture
async def process(world: World, timers: TimerWheel, change_limits: ChangeLimits) -> AsyncIterator[Process]:
    change_limits(mirror_wait=0.01, mirror_pause=0.001, lease_renewal=0.02, store_retry=0.01)
    process = Process(world, timers)
    yield process
    world.gate.set()
    world.mend()
    await process.mirrors.close()


def store(world: World, stream_id: str = "s", worker: str = "there", **header: Any) -> Stored:
    fields = {"caller": "caller", "format": "gai", "framing": "sse", **header}
    stored = world.copies[stream_id] = Stored(LogHeader(stream_id, model="m", **fields), worker)
    return stored


def write(world: World, first: int, last: int, *, stream_id: str = "s", each: int = 1) -> bytes:
    """Records of so many events."""
    said = b""
    for begin in range(first, last + 1, each):
        end = min(begin + each - 1, last)
        piece = b"".join(frame(seq, stream_id) for seq in range(begin, end + 1))
        world.copies[stream_id].records.append(Record(begin - 1, end, piece))
        said += piece
    announce(world)
    return said


def announce(world: World) -> None:
    world.changed.set()
    world.changed = asyncio.Event()


def read(log: StreamLog, after: int = 0) -> bytes:
    return b"".join(log.read(after, 10**9).pieces)


# ---- what there is ---------------------------------------------------------------------------------------------------


async def test_an_ended_stream_is_read_whole(process: Process, world: World) -> None:
    stored = store(world)
    said = write(world, 1, 50)
    stored.ending = FINISHED
    log = await process.found()
    assert (log.header, log.ending, log.last_seq, read(log)) == (stored.header, FINISHED, 50, said)
    assert read(log, 30) == b"".join(frame(seq) for seq in range(31, 51))
    assert process.memory.find("s") is log


async def test_there_is_no_log_of_a_stream_that_the_store_does_not_have(process: Process) -> None:
    assert await process.mirrors.find("unknown") is None
    assert len(process.memory) == 0


async def test_a_log_without_its_beginning_knows_what_is_lost(process: Process, world: World) -> None:
    stored = store(world)
    write(world, 11, 40, each=10)
    stored.gaps = [Gap(15, "fifteen", is_whole=True)]
    stored.ending = FINISHED
    backlog = (await process.found()).read(0, 10**9)
    assert (backlog.lost, backlog.text) == (15, "fifteen")
    assert b"".join(backlog.pieces) == b"".join(frame(seq) for seq in range(16, 41))


async def test_many_who_ask_at_once_read_a_stream_once(process: Process, world: World) -> None:
    store(world)
    write(world, 1, 3)
    logs = await asyncio.gather(*(process.mirrors.find("s") for _ in range(10)))
    assert len({*logs}) == 1


async def test_one_who_leaves_takes_nothing_from_the_others(process: Process, world: World) -> None:
    store(world)
    write(world, 1, 3)
    world.gate.clear()
    leaving, staying = (asyncio.ensure_future(process.mirrors.find("s")) for _ in range(2))
    await asyncio.sleep(0.01)
    leaving.cancel()
    world.gate.set()
    log = await staying
    assert log is not None
    assert leaving.cancelled()


# ---- what comes ------------------------------------------------------------------------------------------------------


async def test_a_watched_log_fills_until_its_stream_ends(process: Process, world: World) -> None:
    stored = store(world)
    said = write(world, 1, 3)
    log = await process.found()
    assert read(log) == said
    follower = Watching(log)
    for seq in range(4, 30):
        said += write(world, seq, seq)
        await asyncio.sleep(0.001)
    stored.ending = FINISHED
    announce(world)
    await until(lambda: follower.has_ended)
    assert follower.heard == [*range(4, 30)]
    assert (read(log), log.ending, log.broken) == (said, FINISHED, None)


async def test_several_streams_fill_side_by_side(process: Process, world: World) -> None:
    names = [f"s{number}" for number in range(10)]
    for name in names:
        store(world, name)
        write(world, 1, 2, stream_id=name)
    logs = [await process.found(name) for name in names]
    followers = [Watching(log) for log in logs]
    for name in names:
        write(world, 3, 20, stream_id=name)
        world.copies[name].ending = FINISHED
    announce(world)
    for follower in followers:
        await until(lambda follower=follower: follower.has_ended)
        assert follower.heard == [*range(3, 21)]


async def test_a_log_that_nobody_watches_is_dropped_and_had_again(
    process: Process, world: World, change_limits: ChangeLimits
) -> None:
    change_limits(mirror_idle=0.02)
    store(world)
    write(world, 1, 3)
    first = await process.found()
    follower = Watching(first)
    await asyncio.sleep(0.06)
    assert process.memory.find("s") is first
    first.unwatch(follower)
    await until(lambda: process.memory.find("s") is None)
    assert first.is_over, "nothing would fill it any more, and nothing counts its bytes"
    said = b"".join(frame(seq) for seq in range(1, 4)) + write(world, 4, 9)
    assert read(await process.found()) == said


async def test_of_many_streams_some_are_asked_for_at_a_time(
    process: Process, world: World, monkeypatch: pytest.MonkeyPatch, change_limits: ChangeLimits
) -> None:
    change_limits(mirror_streams=3)
    asked: list[int] = []
    tail = FakeBackend.tail

    async def counted(self: FakeBackend, positions: Mapping[str, int], wait: float) -> Mapping[str, CopyTail]:
        asked.append(len(positions))
        return await tail(self, positions, wait)

    monkeypatch.setattr(FakeBackend, "tail", counted)
    names = [f"s{number}" for number in range(10)]
    for name in names:
        store(world, name)
        write(world, 1, 2, stream_id=name)
    followers = [Watching(await process.found(name)) for name in names]
    for name in names:
        write(world, 3, 20, stream_id=name)
        world.copies[name].ending = FINISHED
    for follower in followers:
        await until(lambda follower=follower: follower.has_ended)
        assert follower.heard == [*range(3, 21)]
    assert max(asked) == 3


async def test_a_copy_that_cannot_be_read_at_once_is_followed_to_its_end(
    process: Process, world: World, change_limits: ChangeLimits
) -> None:
    change_limits(mirror_reads=2)
    stored = store(world)
    said = write(world, 1, 60)
    log = await process.found()
    assert 0 < log.last_seq < 60, "those who ask are not kept waiting"
    stored.ending = FINISHED
    await until(lambda: log.is_over)
    assert (read(log), log.ending) == (said, FINISHED)


async def test_a_long_copy_of_a_worker_that_is_gone_is_read_to_its_end(
    process: Process, world: World, change_limits: ChangeLimits
) -> None:
    change_limits(mirror_reads=2)
    store(world, worker="dead")
    said = write(world, 1, 60)
    log = await process.found()
    Watching(log)
    await until(lambda: log.is_over)
    assert read(log) == said
    assert log.broken is not None
    assert log.broken.reason == "worker_lost"


async def test_the_worker_of_a_stream_hears_that_it_is_followed_here(process: Process, world: World) -> None:
    store(world)
    store(world, "left")
    write(world, 1, 3)
    follower = Watching(log := await process.found())
    await process.found("left")
    assert world.followed == {"s", "left"}, "at once: its time may be nearly over"
    world.followed.clear()
    await until(lambda: world.followed)
    assert world.followed == {"s"}, "nobody watches the other one"
    assert log.watchers == 1
    assert follower.heard == []


# ---- what goes wrong -------------------------------------------------------------------------------------------------


async def test_the_followers_of_a_worker_that_is_gone_get_what_it_wrote_and_are_notified(
    process: Process, world: World
) -> None:
    store(world)
    said = write(world, 1, 3)
    log = await process.found()
    follower = Watching(log)
    world.copies["s"].records.append(Record(3, 4, frame(4)))
    world.leases.clear()
    await until(lambda: follower.has_ended)
    assert read(log) == said + frame(4)
    assert log.ending is None
    assert log.broken is not None
    assert (log.broken.code, log.broken.reason, log.broken.temporary) == ("network", "worker_lost", True)


async def test_a_worker_may_be_known_to_be_gone_before_its_lease_is(process: Process, world: World) -> None:
    gone: set[str] = set()

    async def is_gone(worker: str) -> bool:
        return worker in gone

    process.alive.in_server = is_gone
    store(world)
    said = write(world, 1, 3)
    store(world, stream_id="t")
    log, other = await process.found(), await process.found("t")
    follower = Watching(log)
    gone.add("there")
    await until(lambda: follower.has_ended and other.broken is not None)
    assert world.leases == {"there"}
    assert read(log) == said
    late = await process.found()
    assert late.broken is not None
    assert late.broken.reason == "worker_lost"


async def test_a_worker_that_answers_lives_though_it_was_too_busy_to_renew_its_lease(
    process: Process, world: World
) -> None:
    """Its followers got `worker_lost`, although it went on with their streams."""
    answers: dict[str, bool | None] = {"there": False, "silent": None}
    asked: list[str] = []

    async def is_gone(worker: str) -> bool | None:
        asked.append(worker)
        return answers[worker]

    process.alive.in_server = is_gone
    world.leases.add("silent")
    store(world)
    store(world, "t", worker="silent")
    said = write(world, 1, 3)
    log, other = await process.found(), await process.found("t")
    followers = Watching(log), Watching(other)
    world.leases.clear()
    await until(lambda: followers[1].has_ended)
    assert other.broken is not None, "it neither has its lease nor answers"
    await until(lambda: asked.count("there") > 3)
    late = await process.found()
    assert (late, read(log), log.broken) == (log, said, None)


async def test_a_worker_that_answers_late_delays_no_other_workers_streams(process: Process, world: World) -> None:
    world.leases.add("slow")
    store(world, "late", worker="slow")
    store(world)
    follower = Watching(await process.found())
    Watching(await process.found("late"))
    asked, answered = asyncio.Event(), asyncio.Event()

    async def is_gone(worker: str) -> bool:
        if worker == "slow":
            asked.set()
            await answered.wait()
        return False

    process.alive.in_server = is_gone
    async with asyncio.timeout(SECONDS):
        await asked.wait()
    write(world, 1, 3)
    await until(lambda: follower.heard == [1, 2, 3])
    answered.set()


async def test_a_log_that_is_asked_for_amid_a_look_at_the_workers_is_not_taken_for_lost(
    process: Process, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stream_id in ("s", "late"):
        store(world, stream_id)
        write(world, 1, 3, stream_id=stream_id)
    await process.found()
    found: list[StreamLog] = []
    kept, looks = process.mirrors._backend.kept, 0

    async def kept_late(stream_ids: Collection[str]) -> Collection[str]:
        nonlocal looks
        answer = await kept(stream_ids)
        looks += 1
        if looks == 1:
            found.append(await process.found("late"))
        return answer

    monkeypatch.setattr(process.mirrors._backend, "kept", kept_late)
    await until(lambda: looks > 2)
    (late,) = found
    assert not late.is_over


async def test_of_a_worker_that_has_been_gone_for_long_the_same_is_had(process: Process, world: World) -> None:
    store(world, worker="dead")
    said = write(world, 1, 30)
    log = await process.found()
    assert read(log) == said
    assert log.broken is not None
    assert log.broken.reason == "worker_lost"
    assert process.memory.find("s") is None, "the next one asks again: the worker may only have been slow"


async def test_a_worker_that_ended_its_stream_before_it_went_is_not_lost(process: Process, world: World) -> None:
    stored = store(world)
    write(world, 1, 3)
    follower = Watching(log := await process.found())
    stored.ending = FINISHED
    world.leases.clear()
    await until(lambda: follower.has_ended)
    assert (log.ending, log.broken) == (FINISHED, None)


async def test_a_copy_that_a_living_worker_lacks_is_waited_for_and_then_to_be_resumed(
    process: Process, world: World, change_limits: ChangeLimits
) -> None:
    """Where the clock had jumped, copies looked expired: followers got `worker_lost` of streams that went on."""
    store(world)
    said = write(world, 1, 3)
    follower = Watching(log := await process.found())
    hidden = {**world.copies}
    world.copies.clear()
    looks = world.looks
    await until(lambda: world.looks > looks + 3)
    assert not log.is_over
    world.copies.update(hidden)
    world.copies["s"].ending = FINISHED
    announce(world)
    await until(lambda: follower.has_ended)
    assert (log.ending, read(log)) == (FINISHED, said)

    change_limits(mirror_patience=0.05)
    store(world, "t")
    follower = Watching(log := await process.found("t"))
    del world.copies["t"]
    await until(lambda: follower.has_ended)
    assert log.broken is not None
    assert (log.broken.code, log.broken.reason, log.broken.temporary) == ("overloaded", "store", True)


async def test_a_stream_that_this_process_ran_and_forgot_is_not_there(process: Process, world: World) -> None:
    world.leases.add("here")
    store(world, worker="here")
    write(world, 1, 30)
    assert await process.mirrors.find("s") is None
    world.copies["s"].ending = FINISHED
    assert (await process.found()).ending == FINISHED


async def test_a_stream_that_begins_here_while_it_is_looked_for_is_found_here(process: Process, world: World) -> None:
    """Its log was replaced by a mirror, and dropped with it: the stream could not be followed any more."""
    world.gate.clear()
    finding = asyncio.ensure_future(process.mirrors.find("s"))
    await asyncio.sleep(0.01)
    own = process.memory.create(LogHeader("s", "caller", "m", "gai", "sse"))
    store(world, worker="here")
    write(world, 1, 3)
    world.gate.set()
    assert await finding is own
    assert process.memory.find("s") is own


async def test_a_copy_under_the_id_of_another_stream_takes_no_log_from_that(process: Process, world: World) -> None:
    own = process.memory.create(LogHeader("own", "caller", "m", "gai", "sse"))
    world.copies["s"] = Stored(LogHeader("own", "somebody else", "m", "gai", "sse"), "there")
    with pytest.raises(Error, match="damaged"):
        await process.mirrors.find("s")
    assert process.memory.find("own") is own


async def test_a_hole_breaks_the_log_off_and_the_next_one_has_a_gap(process: Process, world: World) -> None:
    stored = store(world)
    write(world, 1, 3)
    follower = Watching(log := await process.found())
    stored.gaps = [Gap(20, "so far", is_whole=True)]
    stored.records.clear()
    write(world, 21, 23)
    await until(lambda: follower.has_ended)
    assert follower.heard == []
    assert log.broken is not None
    assert (log.broken.code, log.broken.temporary) == ("overloaded", True)
    await until(lambda: process.memory.find("s") is None)
    backlog = (await process.found()).read(3, 10**9)
    assert (backlog.lost, backlog.text, b"".join(backlog.pieces)) == (
        20,
        "so far",
        b"".join(frame(seq) for seq in range(21, 24)),
    )


@pytest.mark.parametrize("ending", [None, FINISHED])
async def test_a_record_that_is_missing_is_damage_and_not_to_be_asked_for_again(
    process: Process, world: World, ending: Ending | None
) -> None:
    """Who followed such a stream was sent away to resume it, again and again."""
    stored = store(world)
    write(world, 1, 9)
    del stored.records[4]
    stored.ending = ending
    log = await process.found()
    if not log.is_over:
        follower = Watching(log)
        await until(lambda: follower.has_ended)
    assert log.last_seq == 4
    assert log.broken is not None
    assert (log.broken.code, log.broken.reason) == ("internal", "log_damaged")


async def test_of_frames_without_numbers_none_comes_twice(process: Process, world: World) -> None:
    """The store lost the copy, and its worker wrote it again with other edges between the records."""
    stored = store(world, format="openai", framing="ndjson")
    stored.records = [Record(0, 2, b"{1}\n{2}\n")]
    follower = Watching(log := await process.found())
    stored.records = [Record(0, 4, b"{1}\n{2}\n{3}\n{4}\n")]
    announce(world)
    await until(lambda: follower.has_ended)
    assert read(log) == b"{1}\n{2}\n"
    assert log.broken is not None
    assert (log.broken.code, log.broken.temporary) == ("overloaded", True)
    await until(lambda: process.memory.find("s") is None)
    assert read(await process.found()) == b"{1}\n{2}\n{3}\n{4}\n"


async def test_of_frames_without_numbers_what_is_lost_may_end_within_a_record(process: Process, world: World) -> None:
    stored = store(world, format="openai", framing="ndjson")
    stored.records = [Record(0, 4, b"{1}\n{2}\n{3}\n{4}\n")]
    stored.gaps = [Gap(2, None, is_whole=True)]
    stored.ending = FINISHED
    log = await process.found()
    assert (log.lost, log.last_seq, log.ending) == (2, 4, FINISHED)


async def test_damage_is_reported_and_nothing_damaged_is_served(process: Process, world: World) -> None:
    stored = store(world)
    said = write(world, 1, 3)
    stored.is_damaged = True
    log = await process.found()
    assert read(log) == said
    assert log.broken is not None
    assert (log.broken.code, log.broken.reason) == ("internal", "log_damaged")
    assert process.health.problem is None, "it is one stream's matter"
    world.problem = StoreError("damaged", "a row is damaged")
    with pytest.raises(Error, match="damaged") as refused:
        await process.mirrors.find("other")
    assert refused.value.reason == "log_damaged"


async def test_a_copy_that_the_store_cannot_read_holds_no_other_back(
    process: Process, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    tail = FakeBackend._tail

    def damaged(self: FakeBackend, world: World, positions: Mapping[str, int]) -> dict[str, CopyTail]:
        if "s" in positions and not world.copies["s"].header.caller:
            raise StoreError("damaged", "somebody else's value is in its place")
        return tail(self, world, positions)

    monkeypatch.setattr(FakeBackend, "_tail", damaged)
    followers = {}
    for stream_id in ("first", "s", "last"):
        store(world, stream_id)
        write(world, 1, 3, stream_id=stream_id)
        followers[stream_id] = Watching(await process.found(stream_id))
    log = await process.found("s")
    store(world, "s").header = LogHeader("s", "", "m", "gai", "sse")
    announce(world)
    await until(lambda: followers["s"].has_ended)
    assert log.broken is not None
    assert log.broken.reason == "log_damaged"
    for stream_id in ("first", "last"):
        write(world, 4, 9, stream_id=stream_id)
        await until(lambda: followers[stream_id].heard == [*range(4, 10)])  # noqa: B023  # called within this round
    assert process.health.problem is None, "it is one stream's matter"


async def test_a_record_without_a_frame_breaks_the_log_off(process: Process, world: World) -> None:
    """To a client of HTTP an empty chunk is the end of its answer."""
    store(world)
    said = write(world, 1, 3)
    log = await process.found()
    follower = Watching(log)
    world.copies["s"].records.append(Record(3, 4, b""))
    announce(world)
    await until(lambda: follower.has_ended)
    assert read(log) == said
    assert log.broken is not None


async def test_who_asks_while_the_store_fails_is_refused(process: Process, world: World) -> None:
    store(world)
    world.fail()
    for _ in range(2):
        with pytest.raises(Error) as refused:
            await process.mirrors.find("s")
        assert (refused.value.code, refused.value.reason) == ("overloaded", "store")
    assert process.health.problem is world.problem


async def test_followers_wait_for_a_store_that_fails_for_a_moment(process: Process, world: World) -> None:
    stored = store(world)
    write(world, 1, 3)
    follower = Watching(await process.found())
    world.fail()
    write(world, 4, 9)
    await asyncio.sleep(0.05)
    assert follower.heard == []
    world.mend()
    stored.ending = FINISHED
    await until(lambda: follower.has_ended)
    assert follower.heard == [*range(4, 10)]


async def test_followers_are_notified_of_a_store_that_keeps_failing(
    process: Process, world: World, change_limits: ChangeLimits
) -> None:
    change_limits(mirror_patience=0.05)
    store(world)
    write(world, 1, 3)
    follower = Watching(log := await process.found())
    world.fail()
    await until(lambda: follower.has_ended)
    assert log.broken is not None
    assert (log.broken.code, log.broken.reason) == ("overloaded", "store")
    assert process.memory.find("s") is None


async def test_without_room_a_stream_is_not_read(process: Process, world: World) -> None:
    for number in range(1000):
        store(world, f"s{number}")
    with pytest.raises(Error, match="no room"):
        for number in range(1000):
            await process.mirrors.find(f"s{number}")


async def test_a_bug_leaves_no_follower_waiting(
    process: Process, world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store(world)
    write(world, 1, 3)
    follower = Watching(await process.found())

    def broken(self: Stored, after: int) -> CopyTail:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(Stored, "news", broken)
    announce(world)
    await until(lambda: follower.has_ended)
    assert "a bug" in caplog.text


async def test_closing_tells_the_followers(process: Process, world: World) -> None:
    store(world)
    write(world, 1, 3)
    follower = Watching(await process.found())
    await process.mirrors.close()
    assert follower.has_ended


async def test_no_log_is_looked_for_once_it_is_closed(process: Process, world: World) -> None:
    store(world)
    await process.mirrors.close()
    with pytest.raises(Error) as raised:
        await process.mirrors.find("s")
    assert raised.value.reason == "store"


async def test_who_follows_a_log_that_is_still_read_hears_that_the_store_has_failed(
    process: Process, world: World
) -> None:
    store(world)
    write(world, 1, 20)
    finding = asyncio.ensure_future(process.mirrors.find("s"))
    while (log := process.memory.find("s")) is None:  # noqa: ASYNC110  # nothing tells of it
        await asyncio.sleep(0)
    world.fail()
    watching = Watching(log)
    with pytest.raises(Error) as caught:
        await finding
    assert caught.value.reason == "store"
    assert log.broken is not None
    assert watching.has_ended
    assert process.memory.find("s") is None


# ---- the end of a log whose worker is gone ---------------------------------------------------------------------------


@pytest.fixture
def closed(process: Process) -> list[tuple[StreamLog, int, bool]]:
    """The logs that this process closes, with their epochs, and whether they are cancelled. Their ends are written."""
    closed: list[tuple[StreamLog, int, bool]] = []

    def close(log: StreamLog, refusal: EndsInstead) -> Succession:
        def end(taken: TakeOver) -> None:
            closed.append((log, taken.epoch, refusal.is_cancelled))
            log.end(FINISHED)

        return Succession(end, lambda: None, is_end=True)

    process.mirrors.close_log = close
    return closed


async def test_a_copy_whose_worker_is_gone_is_taken_over_and_closed(
    process: Process, world: World, closed: list[tuple[StreamLog, int, bool]]
) -> None:
    store(world)
    said = write(world, 1, 3)
    log = await process.found()
    Watching(log)
    world.copies["s"].records.append(Record(3, 4, frame(4)))
    world.leases.clear()
    await until(lambda: log.is_over)
    assert closed == [(log, 2, False)]
    assert (world.copies["s"].worker, world.copies["s"].epoch) == ("here", 2)
    assert read(log) == said + frame(4)
    assert process.mirrors.worker_of("s") is None, "it is no mirror any more"


@pytest.mark.parametrize("asks", [True, False])
async def test_nobody_who_waits_leaves_a_log_without_its_worker_open(
    process: Process, world: World, closed: list[tuple[StreamLog, int, bool]], asks: bool
) -> None:
    """As a HEAD, and a follower that has left before its worker."""
    store(world, worker="there" if asks else "dead")
    log = await process.mirrors.find("s", asks=asks)
    assert log is not None
    assert not log.is_over
    world.leases.clear()
    await until(lambda: process.memory.find("s") is None)
    assert (closed, world.copies["s"].epoch) == ([], 1)
    assert await process.found() is not log
    assert len(closed) == 1


async def test_who_cancels_a_stream_before_its_worker_is_known_to_be_gone_ends_it_as_cancelled(
    process: Process, world: World, closed: list[tuple[StreamLog, int, bool]]
) -> None:
    store(world)
    log = await process.found()
    assert process.mirrors.cancel("s") == "there"
    assert process.mirrors.cancel("unknown") is None
    Watching(log)
    world.leases.clear()
    await until(lambda: log.is_over)
    assert closed == [(log, 2, True)]


@pytest.mark.parametrize(("canceller", "is_cancelled"), [(None, False), ("caller", True), ("another", False)])
async def test_who_finds_a_log_without_its_worker_closes_it_at_once(
    process: Process, world: World, closed: list[tuple[StreamLog, int, bool]], canceller: str | None, is_cancelled: bool
) -> None:
    store(world, worker="dead")
    log = await process.mirrors.find("s", canceller=canceller)
    assert log is not None
    assert (closed, log.ending) == ([(log, 2, is_cancelled)], FINISHED)


async def test_a_cancel_that_is_refused_while_the_worker_lives_is_forgotten(
    process: Process, world: World, closed: list[tuple[StreamLog, int, bool]]
) -> None:
    store(world)
    log = await process.mirrors.find("s", canceller="caller")
    assert log is not None
    Watching(log)
    world.leases.clear()
    await until(lambda: log.is_over)
    assert closed == [(log, 2, False)]


@pytest.mark.parametrize("why", ["an earlier release", "a shared call", "no numbers are left"])
async def test_what_cannot_be_taken_over_breaks_off(
    process: Process, world: World, closed: list[tuple[StreamLog, int, bool]], why: str
) -> None:
    stored = store(world, worker="dead", **({"format": CALLS, "framing": "ndjson"} if why == "a shared call" else {}))
    if why == "an earlier release":
        stored.epoch = 0
    elif why == "no numbers are left":
        stored.records.append(Record(0, EVENT_NUMBERS - 1, frame(EVENT_NUMBERS - 1)))
    log = await process.found()
    assert (closed, stored.worker) == ([], "dead")
    assert log.broken is not None
    assert log.broken.reason == "worker_lost"


async def test_who_is_late_reads_the_end_that_another_process_writes(
    process: Process, world: World, closed: list[tuple[StreamLog, int, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = store(world)
    write(world, 1, 3)
    log = await process.found()
    Watching(log)
    backend = process.mirrors._backend

    async def too_late(*asked: Any) -> bool:
        stored.worker, stored.epoch = "winner", 2
        world.leases.add("winner")
        return False

    monkeypatch.setattr(backend, "take_over", too_late)
    world.leases.clear()
    await until(lambda: process.mirrors.worker_of("s") == "winner")
    assert not log.is_over
    stored.records.append(Record(3, 1000, frame(1000)))
    stored.ending = FINISHED
    await until(lambda: log.is_over)
    assert (closed, log.ending, log.last_seq) == ([], FINISHED, 1000)


@pytest.mark.parametrize("is_followed", [True, False])
async def test_a_take_over_whose_reply_is_lost_is_made_again(
    process: Process,
    world: World,
    closed: list[tuple[StreamLog, int, bool]],
    monkeypatch: pytest.MonkeyPatch,
    is_followed: bool,
) -> None:
    """The store named this process as the owner, so the stream never ended: its owner lived."""
    store(world)
    log = await process.found() if is_followed else None
    if log is not None:
        Watching(log)
    take_over, calls = FakeBackend.take_over, 0

    async def unanswered(backend: FakeBackend, *asked: Any) -> bool:
        nonlocal calls
        calls += 1
        is_own = await take_over(backend, *asked)
        if calls == 1:
            raise StoreError("busy", "no reply")
        return is_own

    monkeypatch.setattr(FakeBackend, "take_over", unanswered)
    world.leases.clear()
    if log is None:
        with pytest.raises(Error) as refused:
            await process.found()
        assert refused.value.code == "overloaded"
        process.health.worked()
        log = await process.found()
    await until(lambda: log.is_over)
    assert closed == [(log, 3, False)]


async def test_a_new_owner_is_known_although_the_former_one_lives(
    process: Process, world: World, closed: list[tuple[StreamLog, int, bool]]
) -> None:
    stored = store(world)
    log = await process.found()
    Watching(log)
    world.leases.add("new")
    stored.worker, stored.epoch = "new", 2
    await until(lambda: process.mirrors.worker_of("s") == "new")
    world.leases.remove("new")
    await until(lambda: log.is_over)
    assert closed == [(log, 3, False)]


# ---- streams that go on ----------------------------------------------------------------------------------------------


class GoingOn:
    """What goes on with streams in this process."""

    def __init__(self, process: Process) -> None:
        self.asked: list[tuple[StreamLog, Owner, bytes]] = []
        self.begun: list[int] = []
        self.withdrawn = 0
        self.taken: list[TakeOver] = []
        self.has_room = True
        self._mirrors = process.mirrors
        process.mirrors.go_on = self.go_on
        process.mirrors.check_room = self.check_room

    def check_room(self, header: LogHeader, taking: Collection[LogHeader]) -> None:
        if not self.has_room or taking:
            raise NoRoom

    async def go_on(self, log: StreamLog, owner: Owner, request: bytes) -> Succession:
        self.asked.append((log, owner, request))
        if request == b"full":
            raise NoRoom
        if request == b"not yet":
            raise NotYet
        if request == b"refused" and self._mirrors.close_log is not None:
            return self._mirrors.close_log(log, EndsInstead())
        return Succession(self.begin, self._withdraw, is_end=False)

    def _withdraw(self) -> None:
        self.withdrawn += 1

    def begin(self, taken: TakeOver) -> None:
        self.taken.append(taken)
        self.begun.append(taken.epoch)


async def test_a_stream_whose_worker_is_gone_goes_on_here_and_its_followers_stay(
    process: Process, world: World, closed: list[tuple[StreamLog, int, bool]]
) -> None:
    going_on, stored = GoingOn(process), store(world)
    stored.request = b"request"
    said = write(world, 1, 3)
    log = await process.found()
    follower = Watching(log)
    world.leases.clear()
    await until(lambda: bool(going_on.begun))
    assert (going_on.asked, going_on.begun, closed) == ([(log, Owner("there", 1), b"request")], [2], [])
    assert (stored.worker, stored.epoch, log.is_over) == ("here", 2, False)
    stored.records.append(Record(3, 4, frame(4)))
    announce(world)
    log.append(frame(5), 5)
    await asyncio.sleep(0.05)
    assert read(log) == said + frame(5), "this process writes it now"
    assert (process.mirrors.worker_of("s"), follower.heard[-1]) == (None, 5)
    assert process.memory.find("s") is log


async def test_who_finds_a_stream_without_its_worker_makes_it_go_on(
    process: Process, world: World, closed: list[tuple[StreamLog, int, bool]]
) -> None:
    going_on, stored = GoingOn(process), store(world, worker="dead")
    stored.request = b"request"
    log = await process.found()
    assert (going_on.begun, closed, log.is_over, process.memory.find("s")) == ([2], [], False, log)


async def test_another_caller_makes_no_stream_go_on(
    process: Process, world: World, closed: list[tuple[StreamLog, int, bool]]
) -> None:
    going_on, stored = GoingOn(process), store(world, worker="dead")
    stored.request = b"request"
    log = await process.mirrors.find("s", caller="another")
    assert (going_on.begun, closed, stored.epoch) == ([], [], 1)
    assert log is not None
    Watching(log)
    await until(lambda: going_on.begun == [2])


@pytest.mark.parametrize("request_", [None, b"damaged", b"refused", b"request"])
async def test_what_does_not_go_on_is_closed(
    process: Process, world: World, closed: list[tuple[StreamLog, int, bool]], request_: bytes | None
) -> None:
    going_on, stored = GoingOn(process), store(world, worker="dead")
    stored.request = request_
    is_cancelled = request_ == b"request"
    log = await process.mirrors.find("s", canceller="caller" if is_cancelled else None)
    assert log is not None
    assert closed == [(log, 2, is_cancelled)]
    assert going_on.begun == []
    assert process.health.problem is None


async def test_without_room_followers_wait_until_there_is_some(
    process: Process, world: World, closed: list[tuple[StreamLog, int, bool]]
) -> None:
    going_on, stored = GoingOn(process), store(world, worker="dead")
    stored.request = b"request"
    going_on.has_room = False
    log = await process.found()
    Watching(log)
    looks = world.looks
    await until(lambda: world.looks > looks + 2)
    assert (log.is_over, going_on.asked, closed, stored.epoch) == (False, [], [], 1)
    going_on.has_room = True
    await until(lambda: bool(going_on.begun))


async def test_without_a_connection_to_its_upstream_a_stream_waits_unread_and_others_do_not(
    process: Process, world: World, closed: list[tuple[StreamLog, int, bool]]
) -> None:
    going_on, stored = GoingOn(process), store(world, worker="dead")
    stored.request = b"request"
    is_full = True

    def check_room(header: LogHeader, taking: Collection[LogHeader]) -> None:
        if is_full and header.model == stored.header.model:
            raise NotYet

    process.mirrors.check_room = check_room
    other = store(world, "other", "dead")
    other.request, other.header = b"request", other.header._replace(model="other")
    log = await process.found()
    Watching(log)
    there = await process.mirrors.find("other", caller="caller")
    assert there is not None
    await until(lambda: bool(going_on.begun))
    looks = world.looks
    await until(lambda: world.looks > looks + 2)
    assert [asked[0] for asked in going_on.asked] == [there]
    assert (log.is_over, closed, stored.epoch) == (False, [], 1)
    is_full = False
    await until(lambda: len(going_on.begun) == 2)


async def test_a_process_that_is_full_leaves_a_stream_to_others(
    process: Process, world: World, closed: list[tuple[StreamLog, int, bool]]
) -> None:
    going_on, stored = GoingOn(process), store(world, worker="dead")
    stored.request = b"full"
    log = await process.found()
    Watching(log)
    await until(lambda: len(going_on.asked) > 2)
    assert (log.is_over, closed, stored.epoch) == (False, [], 1)
    stored.request = b"request"
    await until(lambda: bool(going_on.begun))


@pytest.mark.parametrize(
    ("request_", "asked"), [(b"full", ["s0", "another"]), (b"not yet", ["s0", "another", "s1", "s2", "s3", "s4"])]
)
async def test_without_room_for_one_stream_no_other_of_its_caller_is_read(
    process: Process, world: World, closed: list[tuple[StreamLog, int, bool]], request_: bytes, asked: list[str]
) -> None:
    going_on = GoingOn(process)
    going_on.has_room = False
    for number in range(5):
        store(world, f"s{number}", "dead").request = request_
        Watching(await process.found(f"s{number}"))
    store(world, "another", "dead", caller="another").request = b"request"
    another = await process.mirrors.find("another")
    assert another is not None
    Watching(another)
    going_on.has_room = True
    await until(lambda: [log.header.stream_id for log, *_ in going_on.asked].count("s0") == 2)
    names = [log.header.stream_id for log, *_ in going_on.asked]
    assert names[: names.index("s0", 1)] == asked, "callers take turns"
    assert closed == []


async def test_a_request_that_takes_the_store_too_long_breaks_its_own_stream_off_and_holds_up_no_other(
    process: Process,
    world: World,
    closed: list[tuple[StreamLog, int, bool]],
    change_limits: ChangeLimits,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    change_limits(mirror_patience=0.1)
    request_of, read_of = FakeBackend.request_of, list[str]()

    async def slow(self: FakeBackend, stream_id: str) -> bytes | None:
        read_of.append(stream_id)
        if stream_id.startswith("large"):
            raise StoreError("slow", "a test")
        return await request_of(self, stream_id)

    monkeypatch.setattr(FakeBackend, "request_of", slow)
    going_on = GoingOn(process)
    followers = {}
    for name in ("large 1", "large 2", "small"):
        store(world, name, caller=name.split()[0]).request = b"request"
        followers[name] = Watching(await process.found(name))
    world.leases.clear()
    await until(lambda: [log.header.stream_id for log, *_ in going_on.asked] == ["small"])
    assert read_of[:2] == ["large 1", "small"], "once a look"
    await until(lambda: followers["large 1"].has_ended and followers["large 2"].has_ended)
    assert not followers["small"].has_ended
    assert closed == []


async def test_who_is_late_gives_back_what_was_taken_for_the_stream(
    process: Process,
    world: World,
    closed: list[tuple[StreamLog, int, bool]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    going_on, stored = GoingOn(process), store(world, worker="dead")
    stored.request = b"request"

    async def too_late(*asked: Any) -> bool:
        stored.worker, stored.epoch = "winner", 2
        world.leases.add("winner")
        return False

    monkeypatch.setattr(process.mirrors._backend, "take_over", too_late)
    log = await process.found()
    assert (going_on.withdrawn, going_on.begun, closed, log.is_over) == (1, [], [], False)


async def test_a_stream_that_was_let_go_goes_on_at_once_and_its_handovers_are_counted(
    process: Process, world: World, closed: list[tuple[StreamLog, int, bool]]
) -> None:
    going_on, stored = GoingOn(process), store(world)
    stored.request = b"request"
    log = await process.found()
    Watching(log)
    stored.epoch, stored.header = 7, stored.header._replace(handovers=5)  # another process took it over, and let it go
    stored.worker = ""
    await until(lambda: bool(going_on.begun))
    assert (going_on.asked, going_on.begun, closed) == ([(log, Owner("", 7), b"request")], [8], [])
    assert (going_on.taken[0].former, going_on.taken[0].worker) == ("", "here")
    assert (stored.worker, stored.header.handovers, log.header.handovers) == ("here", 6, 6)
    assert not process.mirrors.is_taking_over


async def test_how_often_a_stream_was_taken_over_is_known_at_its_end(process: Process, world: World) -> None:
    stored = store(world)
    write(world, 1, 3)
    log = await process.found()
    Watching(log)
    assert log.takeovers == 0
    stored.epoch = 3
    stored.records.append(Record(3, 1 << 21, frame(1 << 21)))
    stored.ending = FINISHED
    announce(world)
    await until(lambda: log.is_over)
    assert log.takeovers == 2


# ---- logs that this process wrote ------------------------------------------------------------------------------------

GAP = b'event: stream.gap\nid: s.1000\ndata: {"type":"stream.gap","seq":1000,"text":"xxx","from":4,"to":1000}\n\n'


@pytest.mark.parametrize("is_written_again", [False, True])
@pytest.mark.parametrize("last_seq", [3, 5])
async def test_an_adopted_log_loses_what_is_void_and_goes_on_as_its_copy(
    process: Process, world: World, last_seq: int, is_written_again: bool
) -> None:
    stored = store(world)
    said = write(world, 1, 3)
    log = process.memory.create(stored.header)
    for seq in range(1, last_seq + 1):
        log.append(frame(seq), seq)
    follower = Watching(log)
    process.mirrors.adopt(log)
    await until(lambda: process.mirrors.worker_of("s") == "there")
    assert not log.is_over
    if is_written_again:  # the store had lost it: its records have other boundaries
        stored.records[:] = [Record(0, 1000, said + GAP)]
    else:
        stored.records.append(Record(3, 1000, GAP))
    announce(world)
    await until(lambda: follower.heard == [1000])
    assert read(log) == said + GAP
    stored.ending = FINISHED
    await until(lambda: follower.has_ended)
    assert (log.ending, await process.mirrors.find("s")) == (FINISHED, log)


async def test_an_adopted_log_whose_copy_goes_on_with_a_damaged_event_breaks_off(
    process: Process, world: World
) -> None:
    log = process.memory.create(store(world).header)
    for seq in range(1, 6):
        log.append(frame(seq), seq)
    process.mirrors.adopt(log)
    await until(lambda: process.mirrors.worker_of("s") == "there")
    world.copies["s"].records.append(Record(3, 1000, GAP.replace(b'"from":4', b'"from":"')))
    announce(world)
    await until(lambda: log.is_over)
    assert log.broken is not None
    assert log.broken.reason == "log_damaged"


@pytest.mark.parametrize("has_ended", [True, False])
async def test_an_adopted_log_whose_copy_ends_before_it_breaks_off(
    process: Process, world: World, has_ended: bool
) -> None:
    stored = store(world)
    write(world, 1, 3)
    log = process.memory.create(stored.header)
    for seq in range(1, 6):
        log.append(frame(seq), seq)
    follower = Watching(log)
    if not has_ended:
        process.mirrors.adopt(log)
        await until(lambda: process.mirrors.worker_of("s") == "there")
    stored.records.append(Record(3, 4, frame(4)))
    stored.ending = FINISHED
    announce(world)
    if has_ended:
        process.mirrors.adopt(log)
    await until(lambda: follower.has_ended)
    assert log.broken is not None
    assert (log.broken.code, log.broken.reason) == ("network", "log_behind")
    await until(lambda: process.memory.find("s") is None)
    again = await process.found()
    assert (again.last_seq, again.ending) == (4, FINISHED), "who comes back gets what is stored"


async def test_an_adopted_log_without_a_copy_breaks_off(process: Process, world: World) -> None:
    log = process.memory.create(store(world).header)
    world.copies.clear()
    process.mirrors.adopt(log)
    await until(lambda: log.is_over)
    assert log.broken is not None
    assert log.broken.code == "overloaded"
    assert process.memory.find("s") is None
