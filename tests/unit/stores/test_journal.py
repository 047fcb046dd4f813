"""`gai_fast/stores/journal.py`: a copy becomes what its log is, whatever the store does."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from gai_fast.model.errors import Error
from gai_fast.model.limits import KIB
from gai_fast.model.settings import StoreSettings
from gai_fast.runtime.timers import TimerWheel
from gai_fast.stores import Ending, LogHeader, StreamLog
from gai_fast.stores._base import frames_after
from gai_fast.stores.backend import CopyChange, Record, StoreError, gap_text, join_gaps
from gai_fast.stores.health import Health
from gai_fast.stores.journal import Journal
from gai_fast.stores.memory import LogMemory
from tests.conftest import ChangeLimits
from tests.limits import LIMITS
from tests.unit.net.fakes import FakeTime
from tests.unit.stores.fake_backend import FakeBackend, World
from tests.waiting import until

FINISHED = Ending("finished", "stop")
Make = Callable[..., "Process"]


class Process:
    """One process's logs, and their journal."""

    def __init__(self, world: World, timers: TimerWheel, **options: Any) -> None:
        settings = StoreSettings(**options)
        self.world = world
        self.memory = LogMemory(settings, timers)
        self.health = Health(timers.clock)
        self.refused: list[StreamLog] = []
        """The logs whose copy has another owner."""
        self.journal = Journal(
            FakeBackend(world), self.memory, settings, self.health, "worker", timers.clock, self.refused.append
        )

    def begin(
        self, stream_id: str = "s", format: str = "gai", framing: Any = "sse", caller: str = "caller"
    ) -> StreamLog:
        log = self.memory.create(LogHeader(stream_id, caller, "m", format, framing))
        self.journal.begin(log)
        return log

    def copied(self, stream_id: str = "s", after: int = 0) -> tuple[int, str | None, bytes, Ending | None]:
        """Returns a copy as a follower would get it: the last lost event, its text, the bytes after it, the end."""
        stored = self.world.copies[stream_id]
        lost, text = join_gaps([(gap.lost, gap_text(gap)) for gap in stored.gaps])
        position, pieces = max(lost, after), []
        for record in stored.records:
            assert record.after <= position, "a hole"
            pieces.append(frames_after(record.piece, stored.header, position))
            position = max(position, record.last_seq)
        return lost, text, b"".join(pieces), stored.ending


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def make(world: World, timers: TimerWheel, change_limits: ChangeLimits) -> AsyncIterator[Make]:
    change_limits(journal_interval=0.001, store_retry_first=0.001, store_retry=0.01, store_close=0.5)
    made: list[Process] = []

    def make(**options: Any) -> Process:
        made.append(Process(world, timers, **options))
        return made[-1]

    yield make
    world.gate.set()
    world.mend()
    for process in made:
        await process.journal.close()
        assert process.journal.size == 0


def frame(seq: int, stream_id: str = "s", text: str = "x") -> bytes:
    return b'event: text.delta\nid: %b.%d\ndata: {"type":"text.delta","text":"%b"}\n\n' % (
        stream_id.encode(),
        seq,
        text.encode(),
    )


def fill(log: StreamLog, first: int, last: int, text: str = "x") -> bytes:
    """Returns a piece for each event; returns all of it."""
    pieces = [frame(seq, log.header.stream_id, text) for seq in range(first, last + 1)]
    for seq, piece in enumerate(pieces, first):
        log.append(piece, seq)
    return b"".join(pieces)


async def written(process: Process, log: StreamLog) -> None:
    stream_id = log.header.stream_id
    stored = process.world.copies
    await until(lambda: stream_id in stored and stored[stream_id].ending == log.ending)
    await until(lambda: not log.last_seq or process.world.copies[stream_id].records[-1].last_seq == log.last_seq)


# ---- what is written -------------------------------------------------------------------------------------------------


async def test_a_copy_becomes_what_its_log_is(make: Make, world: World) -> None:
    process = make()
    log = process.begin()
    await until(lambda: "s" in world.copies)
    assert (world.copies["s"].header, world.copies["s"].worker) == (log.header, "worker")
    said = fill(log, 1, 300)
    await until(lambda: world.copies["s"].records)
    said += fill(log, 301, 400)
    log.end(FINISHED)
    await written(process, log)
    assert process.copied() == (0, "", said, FINISHED)
    assert not log.is_degraded
    assert world.copies["s"].keep == 600


async def test_what_comes_meanwhile_is_one_batch(make: Make, world: World) -> None:
    process = make()
    logs = [process.begin(f"s{number}") for number in range(20)]
    for log in logs:
        fill(log, 1, 10)
    await until(lambda: world.batches)
    assert len(world.batches[0]) == 20
    assert all(len(change.records) == 1 for change in world.batches[0])


async def test_appending_waits_for_nothing(make: Make, world: World) -> None:
    process = make()
    world.gate.clear()
    log = process.begin()
    said = fill(log, 1, 100)
    assert b"".join(log.read(0, 10**9).pieces) == said
    assert "s" not in world.copies


async def test_a_running_stream_is_kept_longer_than_an_ended_one(make: Make, world: World) -> None:
    process = make(ttl=10_000)
    log = process.begin()
    await until(lambda: "s" in world.copies)
    assert world.copies["s"].keep == 20_000
    log.end(FINISHED)
    await until(lambda: world.copies["s"].ending is not None)
    assert world.copies["s"].keep == 10_000


async def test_of_a_format_without_numbers_every_piece_is_a_record_of_its_own(make: Make, world: World) -> None:
    process = make()
    log = process.begin(format="openai", framing="ndjson")
    for seq in range(1, 6):
        log.append(b"{}\n" * seq, 2 * seq)
    await until(lambda: len(world.copies["s"].records) == 5 if "s" in world.copies else False)
    assert [(record.after, record.last_seq) for record in world.copies["s"].records] == [
        (0, 2),
        (2, 4),
        (4, 6),
        (6, 8),
        (8, 10),
    ]


# ---- what is dropped -------------------------------------------------------------------------------------------------


async def test_a_copy_drops_what_its_log_has_dropped_and_keeps_the_text(make: Make, world: World) -> None:
    process = make(max_stream_bytes=64 * KIB)
    log = process.begin()
    said = ""
    for turn in range(40):
        first = turn * 100 + 1
        fill(log, first, first + 99, text="ü")
        said += "ü" * 100
        await until(lambda last=first + 99: "s" in world.copies and world.copies["s"].records[-1].last_seq == last)
    lost, text, rest, _ = process.copied()
    assert lost > 2000
    assert text == "ü" * lost
    assert rest == b"".join(frame(seq, text="ü") for seq in range(lost + 1, 4001))
    assert len(rest) < 80 * KIB
    assert len(world.copies["s"].gaps) < 20, "not with every piece"


async def test_a_reset_voids_the_text_of_the_gaps_before(make: Make, world: World) -> None:
    process = make(max_stream_bytes=16 * KIB)
    log = process.begin()
    fill(log, 1, 1000, text="void")
    await until(lambda: "s" in world.copies and world.copies["s"].gaps)
    log.append(b'event: stream.reset\nid: s.1001\ndata: {"type":"stream.reset","reason":"network"}\n\n', 1001)
    for turn in range(10):
        fill(log, 1002 + turn * 100, 1101 + turn * 100, text="new")
        await asyncio.sleep(0.005)
    log.end(FINISHED)
    await written(process, log)
    lost, text, _, _ = process.copied()
    assert lost > 1101
    assert text == "new" * (lost - 1001)


# ---- a store that fails ----------------------------------------------------------------------------------------------


async def test_what_a_failing_store_did_not_take_is_written_later(make: Make, world: World) -> None:
    process = make()
    log = process.begin()
    said = fill(log, 1, 10)
    await until(lambda: "s" in world.copies)
    world.fail()
    said += fill(log, 11, 20)
    await until(lambda: log.is_degraded)
    assert process.health.problem is world.problem
    assert not log.is_over
    said += fill(log, 21, 30)
    world.mend()
    log.end(FINISHED)
    await written(process, log)
    assert process.copied() == (0, "", said, FINISHED)
    await until(lambda: process.health.problem is None)
    assert not log.is_degraded


async def test_a_stream_that_begins_while_the_store_fails_is_degraded_until_it_is_written(
    make: Make, world: World
) -> None:
    process = make()
    world.fail()
    first = process.begin("first")
    await until(lambda: first.is_degraded)
    log = process.begin()
    assert log.is_degraded
    said = fill(log, 1, 10)
    world.mend()
    await until(lambda: "s" in world.copies and world.copies["s"].records)
    await until(lambda: not log.is_degraded)
    assert process.copied()[2] == said


async def test_of_a_stream_that_waits_too_long_nothing_is_kept_for_the_store_and_nothing_is_missing(
    make: Make, world: World
) -> None:
    process = make()
    log = process.begin()
    said = fill(log, 1, 10)
    await until(lambda: "s" in world.copies)
    world.gate.clear()
    said += fill(log, 11, 20)
    await asyncio.sleep(0.01)
    said += fill(log, 21, 20_000)
    assert process.journal.size == 0
    assert log.is_degraded
    world.gate.set()
    await until(lambda: not log.is_degraded)
    said += fill(log, 20_001, 20_010)
    log.end(FINISHED)
    await written(process, log)
    assert process.copied() == (0, "", said, FINISHED)


async def test_what_waits_of_all_streams_is_bounded(make: Make, world: World, change_limits: ChangeLimits) -> None:
    change_limits(journal=64 * KIB)
    process = make()
    world.gate.clear()
    logs = [process.begin(f"s{number}") for number in range(50)]
    said = {log.header.stream_id: fill(log, 1, 100) for log in logs}
    assert process.journal.size <= 64 * KIB
    assert sum(log.is_degraded for log in logs) > 20
    world.gate.set()
    for log in logs:
        await written(process, log)
        assert process.copied(log.header.stream_id)[2] == said[log.header.stream_id]
        assert not log.is_degraded


async def test_what_was_dropped_before_it_was_written_is_a_gap_with_its_text(make: Make, world: World) -> None:
    process = make(max_stream_bytes=32 * KIB)
    log = process.begin()
    fill(log, 1, 10, text="a")
    await until(lambda: "s" in world.copies and world.copies["s"].records)
    world.fail()
    fill(log, 11, 20_000, text="b")
    world.mend()
    log.end(FINISHED)
    await written(process, log)
    lost, text, rest, ending = process.copied()
    assert lost == log.lost > 10
    assert text == log.read(0, 1).text
    assert rest == b"".join(log.read(0, 10**9).pieces)
    assert ending == FINISHED


@pytest.mark.parametrize("format", ["gai", "openai"])
async def test_a_copy_that_the_store_has_lost_is_written_anew(make: Make, world: World, format: str) -> None:
    process = make()
    log = process.begin(format=format)
    said = fill(log, 1, 10)
    await until(lambda: "s" in world.copies and world.copies["s"].records)
    world.copies.clear()
    said += fill(log, 11, 20)
    log.end(FINISHED)
    await written(process, log)
    assert process.copied()[2:] == (said, FINISHED)


async def test_a_silent_streams_copy_that_the_store_has_lost_is_written_anew_at_once(make: Make, world: World) -> None:
    process = make()
    said = fill(process.begin(), 1, 10)
    await until(lambda: "s" in world.copies and world.copies["s"].records)
    world.copies.clear()
    process.journal.keep_alive(at_once=True)
    await until(lambda: "s" in world.copies and world.copies["s"].records)
    assert process.copied()[2] == said


async def test_a_log_that_was_forgotten_before_it_was_written_leaves_no_copy(make: Make, world: World) -> None:
    process = make(max_bytes=64 * KIB, max_stream_bytes=32 * KIB)
    log = process.begin()
    fill(log, 1, 10)
    await until(lambda: "s" in world.copies)
    world.fail()
    fill(log, 11, 20)
    log.end(FINISHED)
    others = [process.begin(f"o{number}") for number in range(10)]
    for other in others:
        fill(other, 1, 200)
    assert process.memory.find("s") is None
    world.mend()
    await until(lambda: "s" not in world.copies)
    assert not any(change.stream_id == "s" and change.ending for batch in world.batches for change in batch)


async def test_the_copies_of_ended_streams_are_bounded(make: Make, world: World) -> None:
    process = make(max_bytes=64 * KIB, max_stream_bytes=32 * KIB)
    for number in range(30):
        log = process.begin(f"s{number}")
        fill(log, 1, 100)
        log.end(FINISHED)
        await until(lambda name=f"s{number}": name in world.copies and world.copies[name].ending)
    await until(lambda: len(world.copies) < 12)
    assert "s29" in world.copies
    assert "s0" not in world.copies


async def test_a_callers_copies_stay_where_another_caller_has_more(make: Make, world: World) -> None:
    process = make(max_bytes=64 * KIB, max_stream_bytes=32 * KIB)
    for number in range(30):
        name = f"s{number}"
        log = process.begin(name, caller="modest" if number < 3 else "greedy")
        fill(log, 1, 50)
        log.end(FINISHED)
        await until(lambda name=name: name in world.copies and world.copies[name].ending)
    await until(lambda: len(world.copies) < 20)
    assert world.copies.keys() >= {"s0", "s1", "s2", "s29"}
    assert "s3" not in world.copies


async def test_whatever_fails_when_a_copy_becomes_its_log(make: Make, world: World) -> None:
    """Random failures, losses and pauses, over streams of several lengths."""
    chance = random.Random(11)
    process = make(max_stream_bytes=64 * KIB)
    logs = [process.begin(f"s{number}") for number in range(8)]
    for _ in range(300):
        log = chance.choice(logs)
        fill(log, log.last_seq + 1, log.last_seq + chance.choice([1, 3, 50]), text=chance.choice("äb"))
        match chance.randrange(12):
            case 0:
                world.fail()
            case 1:
                world.mend()
            case 2:
                world.copies.pop(chance.choice(logs).header.stream_id, None)
            case 3:
                await asyncio.sleep(0.005)
            case _:
                await asyncio.sleep(0)
    world.mend()
    for log in logs:
        log.end(FINISHED)
    for log in logs:
        await written(process, log)
        lost, text, rest, _ = process.copied(log.header.stream_id)
        backlog = log.read(lost, 10**9)
        assert lost <= log.lost or log.lost == lost
        assert b"".join(log.read(log.lost, 10**9).pieces) == rest[len(rest) - len(b"".join(backlog.pieces)) :]
        if lost == log.lost and lost:
            assert text == log.read(0, 1).text


# ---- before_send -----------------------------------------------------------------------------------------------------


class Watching:
    """A follower that notes each call."""

    def __init__(self, log: StreamLog) -> None:
        self.heard: list[int] = []
        self.has_ended = False
        log.watch(self)

    def advanced(self, piece: bytes, last_seq: int) -> None:
        self.heard.append(last_seq)

    def ended(self) -> None:
        self.has_ended = True


async def test_what_nobody_may_read_yet_is_counted(make: Make, world: World) -> None:
    process = make(sync="before_send")
    world.gate.clear()
    log = process.begin()
    said = fill(log, 1, 10)
    assert log.gate is not None
    assert log.gate.held == len(said) + 10 * LIMITS.log_piece_cost
    world.gate.set()
    await until(lambda: log.last_seq == 10)
    assert log.gate.held == 0


async def test_before_send_nobody_reads_what_is_not_written(make: Make, world: World) -> None:
    process = make(sync="before_send")
    log = process.begin()
    follower = Watching(log)
    world.gate.clear()
    said = fill(log, 1, 5)
    log.end(FINISHED)
    await asyncio.sleep(0.01)
    assert (follower.heard, follower.has_ended, log.last_seq) == ([], False, 0)
    world.gate.set()
    await until(lambda: follower.has_ended)
    assert follower.heard == [1, 2, 3, 4, 5]
    assert process.copied()[2] == said
    await written(process, log)
    assert process.copied() == (0, "", said, FINISHED)


async def test_before_send_nothing_is_read_or_kept_of_a_log_that_is_broken_off(make: Make, world: World) -> None:
    """Its copy stayed like a running stream's, and followers in other processes waited for its end."""
    process = make(sync="before_send")
    log = process.begin()
    said = fill(log, 1, 5)
    await until(lambda: log.last_seq == 5)
    world.gate.clear()
    fill(log, 6, 8)
    await asyncio.sleep(0.01)
    log.break_off(Error("internal", "a bug"))
    assert log.gate is not None
    assert log.gate.held == 0
    world.gate.set()
    await until(lambda: "s" not in world.copies)
    assert (b"".join(log.read(0, 10**9).pieces), log.last_seq) == (said, 5)
    process.memory.forget(log)
    assert process.memory.size == 0


async def test_before_send_a_failing_store_holds_nothing_back(make: Make, world: World) -> None:
    process = make(sync="before_send")
    log = process.begin()
    follower = Watching(log)
    world.fail()
    said = fill(log, 1, 5)
    await until(lambda: follower.heard == [1, 2, 3, 4, 5])
    assert log.is_degraded
    said += fill(log, 6, 7)
    assert follower.heard[-1] == 7
    world.mend()
    await until(lambda: not log.is_degraded)
    said += fill(log, 8, 8)
    log.end(FINISHED)
    await until(lambda: follower.has_ended)
    await written(process, log)
    assert follower.heard == [*range(1, 9)]
    assert process.copied() == (0, "", said, FINISHED)


async def test_before_send_pieces_keep_their_order_where_somebody_else_finds_that_the_store_fails(
    make: Make, world: World
) -> None:
    """A piece that passes went out before those that wait for a batch under way, which then came twice or late."""
    process = make(sync="before_send")
    log = process.begin()
    follower = Watching(log)
    await until(lambda: "s" in world.copies)
    world.gate.clear()
    said = fill(log, 1, 3)
    await asyncio.sleep(0.01)
    process.health.failed(StoreError("unreachable", "a reader got no answer"))
    said += fill(log, 4, 5)
    assert follower.heard == [1, 2, 3, 4, 5]
    assert log.is_degraded
    world.gate.set()
    log.end(FINISHED)
    await written(process, log)
    assert (follower.heard, log.last_seq) == ([1, 2, 3, 4, 5], 5)
    assert process.copied() == (0, "", said, FINISHED)


async def test_before_send_what_waits_is_bounded_and_passes_beyond_that(make: Make, world: World) -> None:
    process = make(sync="before_send")
    log = process.begin()
    follower = Watching(log)
    await until(lambda: "s" in world.copies)
    world.gate.clear()
    said = fill(log, 1, 1)
    await asyncio.sleep(0.01)
    said += fill(log, 2, 10_000)
    assert follower.heard == [*range(1, 10_001)]
    assert log.is_degraded
    world.gate.set()
    log.end(FINISHED)
    await written(process, log)
    assert process.copied() == (0, "", said, FINISHED)


async def test_a_stream_that_no_batch_can_hold_keeps_the_others_waiting_for_its_own_time_at_most(
    make: Make, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server may refuse large values; the batch with one was written again and again after its log had gone."""
    process = make()
    write = FakeBackend._write

    def refused(self: FakeBackend, world: World, change: CopyChange) -> bool:
        if change.stream_id == "large" and not change.is_dropped:
            raise StoreError("unsuitable", "the server refuses a command (ERR)")
        return write(self, world, change)

    monkeypatch.setattr(FakeBackend, "_write", refused)
    large = process.begin("large")
    fill(large, 1, 5)
    large.end(FINISHED)
    await until(lambda: process.journal.is_failing)
    other = process.begin("s")
    said = fill(other, 1, 5)
    other.end(FINISHED)
    process.memory.forget(large)
    await written(process, other)
    assert process.copied() == (0, "", said, FINISHED)
    assert process.health.problem is None
    assert not process.journal.is_failing


async def test_the_journal_is_behind_until_the_streams_that_began_meanwhile_are_written(
    make: Make, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else another machine would take a stream for unknown that began while the store was out of reach."""
    process = make()
    process.begin("first")
    await until(lambda: "first" in world.copies)
    assert not process.journal.is_behind
    write, is_out_of_reach, seen = FakeBackend._write, True, list[tuple[str, bool]]()

    def maybe(self: FakeBackend, world: World, change: CopyChange) -> bool:
        if is_out_of_reach:
            raise StoreError("unreachable", "the store is away")
        seen.append((change.stream_id, process.journal.is_behind))
        return write(self, world, change)

    monkeypatch.setattr(FakeBackend, "_write", maybe)
    process.begin("second")
    await until(lambda: process.journal.is_behind)
    process.begin("third")
    is_out_of_reach = False
    await until(lambda: "third" in world.copies)
    await until(lambda: not process.journal.is_behind)
    assert seen == [("second", True), ("third", True)]


# ---- the end ---------------------------------------------------------------------------------------------------------


async def test_at_the_end_everything_is_written(make: Make, world: World) -> None:
    process = make()
    logs = [process.begin(f"s{number}") for number in range(5)]
    said = [fill(log, 1, 50) for log in logs]
    for log in logs:
        log.end(FINISHED)
    await process.journal.close()
    assert [process.copied(log.header.stream_id)[2] for log in logs] == said


async def test_the_end_waits_for_a_store_that_does_not_answer_only_for_a_while(make: Make, world: World) -> None:
    process = make()
    world.gate.clear()
    fill(process.begin(), 1, 50)
    await process.journal.close()
    assert world.copies == {}


@pytest.fixture
def is_broken(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Returns the streams for which the backend has a bug."""
    streams: set[str] = set()
    write = FakeBackend._write

    def broken(self: FakeBackend, world: World, change: CopyChange) -> bool:
        if change.stream_id in streams and not change.is_dropped:
            raise ZeroDivisionError("a bug")
        return write(self, world, change)

    monkeypatch.setattr(FakeBackend, "_write", broken)
    return streams


@pytest.mark.parametrize("sync", ["batched", "before_send"])
async def test_a_bug_of_the_journal_costs_the_copy_and_harms_no_stream(
    make: Make, world: World, is_broken: set[str], caplog: pytest.LogCaptureFixture, sync: str
) -> None:
    process = make(sync=sync)
    log = process.begin()
    follower = Watching(log)
    await until(lambda: "s" in world.copies)
    is_broken.add("s")
    fill(log, 1, 3)
    await until(lambda: follower.heard == [1, 2, 3])
    await until(lambda: "s" not in world.copies)
    fill(log, 4, 4)
    log.end(FINISHED)
    assert follower.heard == [1, 2, 3, 4]
    assert follower.has_ended
    assert log.is_degraded
    assert "streams were not copied to the store: a bug" in caplog.text
    assert "ZeroDivisionError" in caplog.text


async def test_after_a_bug_other_streams_are_copied_and_nothing_is_kept_for_those_without_a_copy(
    make: Make, world: World, is_broken: set[str]
) -> None:
    process = make()
    is_broken.add("s")
    log = process.begin()
    await until(lambda: log.is_degraded)
    other = process.begin("other")
    said = fill(other, 1, 10)
    other.end(FINISHED)
    await written(process, other)
    assert process.copied("other") == (0, "", said, FINISHED)
    assert not other.is_degraded
    assert process.health.problem is None
    fill(log, 1, 1000, "x" * 1000)
    assert process.journal.size == 0
    assert log.last_seq == 1000
    assert log.is_degraded
    assert log.watchers == 0


@pytest.mark.interpreted  # a compiled attribute takes no other type
async def test_a_bug_in_what_a_copy_is_made_of_costs_that_copy_alone(
    make: Make, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = make()
    log = process.begin()
    await until(lambda: "s" in world.copies)
    fill(log, 1, 3)
    with monkeypatch.context() as patch:
        patch.setattr("gai_fast.stores.journal.Record", None)
        await until(lambda: log.is_degraded)
    other = process.begin("other")
    fill(other, 1, 3)
    other.end(FINISHED)
    await written(process, other)
    assert "s" not in world.copies


@pytest.fixture
def is_damaged(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Returns the streams whose place in the store is damaged: nothing but its removal succeeds."""
    streams: set[str] = set()
    write = FakeBackend._write

    def damaged(self: FakeBackend, world: World, change: CopyChange) -> bool:
        if change.stream_id in streams and not change.is_dropped:
            raise StoreError("damaged", "somebody else's value is in its place")
        return write(self, world, change)

    monkeypatch.setattr(FakeBackend, "_write", damaged)
    return streams


@pytest.mark.parametrize("sync", ["batched", "before_send"])
async def test_a_stream_that_can_never_be_written_costs_its_copy_alone(
    make: Make, world: World, is_damaged: set[str], caplog: pytest.LogCaptureFixture, sync: str
) -> None:
    process = make(sync=sync)
    logs = [process.begin(stream_id) for stream_id in ("first", "s", "last")]
    followers = [Watching(log) for log in logs]
    await until(lambda: {*world.copies} == {"first", "s", "last"})
    is_damaged.add("s")
    said = [fill(log, 1, 3) for log in logs]
    await until(lambda: all(follower.heard == [1, 2, 3] for follower in followers))
    await until(lambda: "s" not in world.copies)
    for log in logs:
        fill(log, 4, 4)
        log.end(FINISHED)
    first, lost, last = logs
    for log, before in ((first, said[0]), (last, said[2])):
        await until(lambda: log.ending is not None)  # noqa: B023  # called within this round
        await written(process, log)
        stream_id = log.header.stream_id
        assert process.copied(stream_id) == (0, "", before + frame(4, stream_id), FINISHED)
        assert not log.is_degraded
    assert lost.is_degraded
    assert followers[1].heard == [1, 2, 3, 4]
    assert followers[1].has_ended
    assert process.health.problem is None, "it is one stream's matter"
    assert "no durable copy: somebody else's value" in caplog.text


async def test_a_store_that_is_damaged_as_a_whole_is_degraded_until_it_can_be_written(make: Make, world: World) -> None:
    process = make()
    world.fail("damaged")
    logs = [process.begin(stream_id) for stream_id in ("s", "other")]
    await until(lambda: process.health.problem is not None)
    assert all(log.is_degraded for log in logs)
    assert process.journal.is_failing
    world.mend()
    log = process.begin("later")
    log.end(FINISHED)
    await written(process, log)
    assert process.health.problem is None


async def test_a_closed_journal_keeps_nothing(make: Make, world: World) -> None:
    process = make()
    running = process.begin()
    await process.journal.close()
    log = process.begin("late")
    for each in (running, log):
        fill(each, 1, 1000, "x" * 1000)
        assert each.is_degraded
        assert each.watchers == 0
    assert process.journal.size == 0


async def test_a_silent_streams_copy_is_prolonged(make: Make, world: World, time: FakeTime) -> None:
    process = make()
    process.begin()
    await until(lambda: "s" in world.copies)
    world.batches.clear()
    process.journal.keep_alive()
    await asyncio.sleep(0.01)
    assert world.batches == []
    time.advance(LIMITS.copy_life / 3)
    process.journal.keep_alive()
    await until(lambda: world.batches)
    [[change]] = world.batches
    assert (change.keep, change.records, change.header) == (LIMITS.copy_life, [], None)


async def test_other_bounds_hold_for_the_copies_of_streams_that_end_from_then_on(make: Make, world: World) -> None:
    process = make(ttl=100.0)
    log = process.begin()
    process.journal.keep(10.0, 65536)
    log.append(b"id: s.1\ndata: {}\n\n", 1)
    log.end(FINISHED)
    await until(lambda: "s" in world.copies and world.copies["s"].ending is not None)
    kept = [change.keep for batch in world.batches for change in batch if change.ending is not None]
    assert kept == [10.0]


# ---- requests --------------------------------------------------------------------------------------------------------


async def test_a_log_that_was_left_to_another_worker_is_this_ones_when_it_goes_on(make: Make) -> None:
    process = make()
    log = process.memory.create(LogHeader("s", "caller", "m", "gai", "sse"))
    log.is_left = True
    process.journal.go_on(log, 3, is_end=False)
    assert not log.is_left, "its end would not be written"


async def test_a_request_is_written_with_the_header_and_goes_with_the_end(make: Make, world: World) -> None:
    process = make()
    log = process.memory.create(LogHeader("s", "caller", "m", "gai", "sse"))
    log.request = b"request"
    process.journal.begin(log)
    fill(log, 1, 3)
    await until(lambda: "s" in world.copies)
    assert world.copies["s"].request == b"request"
    world.copies.clear()
    fill(log, 4, 5)
    await until(lambda: "s" in world.copies and world.copies["s"].last_seq == 5)
    assert world.copies["s"].request is None, "it is in the store alone, which has lost it"
    log.end(FINISHED)
    await written(process, log)
    assert (world.copies["s"].request, log.request) == (None, None)


# ---- another owner ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sync", ["batched", "before_send"])
async def test_of_a_copy_with_another_owner_nothing_more_is_written_or_removed(
    make: Make, world: World, sync: str
) -> None:
    process = make(sync=sync)
    log = process.begin()
    fill(log, 1, 3)
    await until(lambda: log.last_seq == 3 and bool(world.copies) and world.copies["s"].last_seq == 3)
    await until(lambda: not process.journal._changed)
    stored = world.copies["s"]
    stored.worker, stored.epoch = "other", 2
    fill(log, 4, 5)
    log.end(FINISHED)
    await until(lambda: process.refused)
    assert process.refused == [log]
    assert (log.gate, log.watchers, log.is_left) == (None, 0, True)
    assert log.last_seq == (5 if sync == "batched" else 3), "what nobody could read is dropped"
    assert (log.ending is None) == (sync == "before_send")
    process.memory.forget(log)
    other = process.begin("t")
    other.end(FINISHED)
    await written(process, other)
    assert (stored.last_seq, stored.ending) == (3, None)
    assert world.copies["s"] is stored


async def test_what_makes_room_removes_no_copy_of_another_owner(make: Make, world: World) -> None:
    process = make(max_bytes=64 * KIB, max_stream_bytes=16 * KIB)
    log = process.begin()
    fill(log, 1, 3)
    log.end(FINISHED)
    await written(process, log)
    world.copies["s"].worker, world.copies["s"].epoch = "other", 2
    for number in range(12):
        more = process.begin(f"t{number}")
        fill(more, 1, 10, text="x" * 1000)
        more.end(FINISHED)
        await until(lambda: not process.journal._changed and not process.journal._dropped)
    assert "s" in world.copies
    assert "t0" not in world.copies


@pytest.mark.parametrize("sync", ["batched", "before_send"])
async def test_a_copy_that_was_taken_over_is_written_on_and_read_once_it_is_stored(
    make: Make, world: World, sync: str
) -> None:
    owner, process = make(), make(sync=sync)
    fill(owner.begin(), 1, 3)
    await until(lambda: bool(world.copies) and world.copies["s"].last_seq == 3)
    stored = world.copies["s"]
    log = process.memory.create(stored.header)
    log.publish(b"".join(record.piece for record in stored.records), 3)
    stored.epoch = 2
    world.gate.clear()
    process.journal.go_on(log, 2, is_end=True)
    log.append(frame(1000), 1000)
    log.end(FINISHED)
    await asyncio.sleep(0.02)
    assert (log.last_seq, log.is_over) == (3, False)
    world.gate.set()
    await until(lambda: log.is_over)
    assert (log.last_seq, stored.records[-1]) == (1000, Record(3, 1000, frame(1000)))
    assert (stored.ending, stored.keep) == (FINISHED, 600)


@pytest.mark.parametrize("sync", ["batched", "before_send"])
async def test_a_stream_that_goes_on_is_copied_as_any_other(make: Make, world: World, sync: str) -> None:
    owner, process = make(), make(sync=sync)
    fill(owner.begin(), 1, 3)
    await until(lambda: bool(world.copies) and world.copies["s"].last_seq == 3)
    stored = world.copies["s"]
    log = process.memory.create(stored.header)
    log.publish(b"".join(record.piece for record in stored.records), 3)
    stored.epoch = 2
    world.gate.clear()
    process.journal.go_on(log, 2, is_end=False)
    log.append(frame(1000), 1000)
    await asyncio.sleep(0.02)
    assert log.last_seq == 3, "what clients have seen of a new owner is stored"
    world.gate.set()
    await until(lambda: stored.last_seq == log.last_seq == 1000)
    log.append(frame(1001), 1001)
    log.end(FINISHED)
    await written(process, log)
    assert (log.gate is None) == (sync == "batched")


async def test_before_send_the_end_is_written_with_the_last_piece(make: Make, world: World) -> None:
    """A worker that died between the two left a log with its `finish` and without an end."""
    process = make(sync="before_send")
    log = process.begin()
    await until(lambda: bool(world.copies))
    world.batches.clear()
    fill(log, 1, 2)
    log.end(FINISHED)
    await until(lambda: log.is_over)
    assert [(change.records != (), change.ending) for batch in world.batches for change in batch][-1] == (
        True,
        FINISHED,
    )
    await until(lambda: log.is_over)


# ---- a copy that is let go -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sync", ["batched", "before_send"])
async def test_a_copy_is_let_go_with_all_of_its_log(make: Make, world: World, sync: str) -> None:
    process = make(sync=sync)
    log = process.begin()
    said = fill(log, 1, 3)
    assert await process.journal.let_go(log)
    stored = world.copies["s"]
    assert (stored.worker, stored.epoch, stored.header, stored.ending) == ("", 1, log.header, None)
    assert b"".join(record.piece for record in stored.records) == said
    assert log.last_seq == 3
    writes = len(world.batches)
    process.journal.keep_alive(at_once=True)
    log.break_off(Error("overloaded", "the end of the process"))
    await asyncio.sleep(0.02)
    assert len(world.batches) == writes, "nothing more is written or removed"
    assert (stored.worker, [*world.copies]) == ("", ["s"])


async def test_a_copy_that_is_written_already_is_let_go(make: Make, world: World) -> None:
    process = make()
    log = process.begin()
    fill(log, 1, 2)
    await until(lambda: "s" in world.copies and world.copies["s"].last_seq == 2)
    assert await process.journal.let_go(log)
    assert world.copies["s"].worker == ""


async def test_a_copy_of_another_owner_is_not_let_go(make: Make, world: World) -> None:
    process = make()
    log = process.begin()
    await until(lambda: "s" in world.copies)
    world.copies["s"].worker, world.copies["s"].epoch = "other", 2
    fill(log, 1, 2)
    assert not await process.journal.let_go(log)
    assert not await process.journal.let_go(log), "it is not copied any more"
    assert (world.copies["s"].worker, world.copies["s"].epoch) == ("other", 2)


async def test_a_store_that_fails_lets_nothing_go(make: Make, world: World) -> None:
    process = make()
    log = process.begin()
    await until(lambda: "s" in world.copies)
    fill(log, 1, 2)
    world.fail()
    letting = asyncio.ensure_future(process.journal.let_go(log))
    await until(lambda: process.health.problem is not None)
    letting.cancel()
    await asyncio.wait([letting])
    world.mend()
    await until(lambda: world.copies["s"].last_seq == 2)
    assert world.copies["s"].worker == "worker", "it counts as that of a lost worker"
