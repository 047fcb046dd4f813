"""`gai_fast/stores/memory.py`: what is kept, for how long, within which bounds; and that nothing is missing unsaid."""

from __future__ import annotations

import gc
import random
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from gai_fast.kernels import encode_json
from gai_fast.model.errors import Error
from gai_fast.model.limits import KIB, MIB
from gai_fast.model.settings import ANONYMOUS, StoreSettings
from gai_fast.runtime.timers import TimerWheel
from gai_fast.stores import Backlog, Ending, LogHeader, memory
from gai_fast.stores.memory import LogMemory, StreamLog, check_url, level_down
from tests.limits import LIMITS
from tests.unit.net.fakes import FakeTime

Make = Callable[..., LogMemory]
ALL = 1 << 60
FINISHED = Ending("finished", "stop")


@pytest.fixture
def make(timers: TimerWheel) -> Iterator[Make]:
    made: list[LogMemory] = []

    def make(**options: float) -> LogMemory:
        made.append(LogMemory(StoreSettings(**options), timers))
        return made[-1]

    yield make
    for store in made:
        check(store)


def check(store: LogMemory) -> None:
    """The books: what all use is the sum of what each does, and that is what its pieces say."""
    logs = store._logs.values()
    beside = sum(log.request_size + log.run_size for log in logs)
    assert store.size == sum(log.size for log in logs) + beside
    assert store._requested == beside == sum(store._requests.values())
    assert store._callers == Counter(log.header.caller for log in logs)
    for log in logs:
        blocks = sum(len(block) + LIMITS.log_block_cost for block, _ in log._blocks)
        tail = sum(len(piece) + LIMITS.log_piece_cost for piece in log._tail)
        assert log.size == LIMITS.log_stream_cost + blocks + tail + len(log._text or b"")
    assert store.size <= store.max_bytes
    assert all(log.size <= store.blocks_of_stream + store.block for log in logs)


def begin(store: LogMemory, stream_id: str = "s", caller: str = "") -> StreamLog:
    return store.create(LogHeader(stream_id, caller, "m", "gai", "sse"))


def frame(seq: int, stream_id: str = "s", size: int = 60) -> bytes:
    start = b"id: %b.%d\ndata: " % (stream_id.encode(), seq)
    return start + b"x" * (size - len(start) - 2) + b"\n\n"


def fill(log: StreamLog, first: int, last: int, size: int = 60) -> bytes:
    """Returns a piece for each event; returns all of it."""
    pieces = [frame(seq, log.header.stream_id, size) for seq in range(first, last + 1)]
    for seq, piece in enumerate(pieces, first):
        log.append(piece, seq)
    return b"".join(pieces)


def rest(log: StreamLog, after: int = 0) -> bytes:
    return b"".join(log.read(after, ALL).pieces)


# ---- what is kept ----------------------------------------------------------------------------------------------------


async def test_a_log_gives_back_what_it_was_given(make: Make) -> None:
    log = begin(make())
    assert log.read(0, ALL) == Backlog([], 0)
    said = fill(log, 1, 500)
    assert rest(log) == said
    log.end(FINISHED)
    backlog = log.read(0, ALL)
    assert (b"".join(backlog.pieces), backlog.last_seq, backlog.lost, log.ending) == (said, 500, 0, FINISHED)


async def test_every_position_gets_exactly_the_events_after_it(make: Make) -> None:
    """Pieces of one event and of hundreds, whatever blocks they come to stand in."""
    chance = random.Random(7)
    log = begin(make())
    frames, seq = [], 0
    while seq < 700:
        count = chance.choice([1, 1, 1, 2, 150])
        piece = [frame(number, size=chance.randint(30, 300)) for number in range(seq + 1, seq + count + 1)]
        seq += count
        frames += piece
        log.append(b"".join(piece), seq)
        for after in {0, seq - count, seq - 1, chance.randint(0, seq), seq}:
            assert rest(log, after) == b"".join(frames[after:])
    log.end(FINISHED)
    for after in range(seq + 1):
        assert rest(log, after) == b"".join(frames[after:])


async def test_a_position_that_the_log_has_not_reached_gets_nothing_and_sees_that(make: Make) -> None:
    log = begin(make())
    fill(log, 1, 5)
    assert log.read(6, ALL) == Backlog([], 6)
    assert log.read(10**18, ALL) == Backlog([], 10**18)
    assert log.last_seq == 5


@pytest.mark.parametrize(("name", "framing"), [("openai", "ndjson"), ("simple", "ndjson"), ("gai", "json")])
def test_frames_without_numbers_are_had_from_the_edge_of_every_piece(
    make: Make, name: str, framing: Literal["ndjson", "json"]
) -> None:
    log = make().create(LogHeader("s", "", "m", name, framing))
    for number in range(1, 301):
        log.append(b'{"content":"a"}\n' * 5, 5 * number)
    assert rest(log) == b'{"content":"a"}\n' * 1500
    assert rest(log, 995) == b'{"content":"a"}\n' * 505


async def test_a_large_piece_is_kept_and_handed_out_as_the_object_it_is(make: Make) -> None:
    log = begin(make())
    fill(log, 1, 3)
    large = b"".join(frame(seq) for seq in range(4, 1004))
    log.append(large, 1003)
    fill(log, 1004, 1006)
    for _ in range(2):  # for every follower
        pieces = log.read(0, ALL).pieces
        assert pieces[1] is large
        assert log.read(3, ALL).pieces[0] is large


@pytest.mark.parametrize("size", [60, 20 * KIB])
async def test_what_a_new_owner_voids_is_gone_and_the_rest_is_left(make: Make, size: int) -> None:
    for after in range(6):
        store = make()
        log = begin(store)
        pieces = [frame(seq, size=size) for seq in range(1, 6)]
        for seq, piece in enumerate(pieces, 1):
            log.append(piece, seq)
        log.void(after)
        assert log.last_seq == after
        assert b"".join(log.read(0, ALL).pieces) == b"".join(pieces[:after])
        check(store)
        log.append(frame(1000), 1000)
        assert b"".join(log.read(4, ALL).pieces) == b"".join([*pieces[4:after], frame(1000)])
        check(store)


async def test_small_pieces_are_joined(make: Make) -> None:
    log = begin(make())
    fill(log, 1, 10_000)
    pieces = log.read(0, ALL).pieces
    assert all(len(piece) > LIMITS.log_block // 3 for piece in pieces[:-1])
    said = rest(log)
    log.end(FINISHED)
    assert log.size - LIMITS.log_stream_cost < len(said) * 1.05
    assert rest(log) == said


# ---- bounds ----------------------------------------------------------------------------------------------------------


async def test_a_stream_without_end_keeps_its_newest_events_and_tells_up_to_where_they_are_gone(make: Make) -> None:
    store = make(max_stream_bytes=64 * KIB)
    log = begin(store)
    frames = [frame(seq) for seq in range(1, 20_001)]
    for seq, piece in enumerate(frames, 1):
        log.append(piece, seq)
        assert log.size <= 64 * KIB
    backlog = log.read(5, ALL)
    assert 0 < 20_000 - backlog.lost < 1200
    assert b"".join(backlog.pieces) == b"".join(frames[backlog.lost :])
    assert sum(map(len, backlog.pieces)) > 48 * KIB
    # Who has seen all that is gone misses nothing.
    for after in (backlog.lost, backlog.lost + 1, 20_000):
        later = log.read(after, ALL)
        assert later.lost == 0
        assert b"".join(later.pieces) == b"".join(frames[after:])


@pytest.mark.parametrize("most", [4 * KIB, 10_000, 100_000])
async def test_a_small_bound_holds_too_and_leaves_what_fits(make: Make, most: int) -> None:
    log = begin(make(max_stream_bytes=most))
    for seq in range(1, 3000):
        log.append(frame(seq, size=100), seq)
        assert log.size <= most
    backlog = log.read(0, ALL)
    assert sum(map(len, backlog.pieces)) > (most - LIMITS.log_stream_cost) // 3
    assert b"".join(backlog.pieces) == b"".join(frame(seq, size=100) for seq in range(backlog.lost + 1, 3000))


async def test_a_piece_that_is_larger_than_a_stream_may_be_is_gone_and_that_is_reported(make: Make) -> None:
    store = make(max_stream_bytes=64 * KIB)
    log = begin(store)
    fill(log, 1, 10)
    log.append(frame(11, size=65 * KIB), 11)
    assert log.read(0, ALL) == Backlog([], 11, 11, "")
    assert log.read(11, ALL).lost == 0
    said = fill(log, 12, 20)
    assert rest(log, 11) == said


async def test_where_all_are_too_large_the_streams_that_ended_first_go_first(make: Make) -> None:
    store = make(max_bytes=MIB)
    logs = [begin(store, f"s{number}") for number in range(8)]
    for log in logs:
        fill(log, 1, 100, size=1000)
    ended = [logs[number] for number in (3, 1, 2, 7, 0)]
    for log in ended:
        log.end(FINISHED)
    assert len(store) == 8
    for number, gone in enumerate((0, 0, 1, 2, 3)):  # ten of this size fit
        fill(begin(store, f"t{number}"), 1, 100, size=1000)
        assert store.size <= MIB
        there = [store.find(log.header.stream_id) is not None for log in ended]
        assert there == [False] * gone + [True] * (5 - gone)
    assert [log.read(0, ALL).lost for log in (logs[4], logs[5], logs[6])] == [0, 0, 0]


async def test_a_caller_loses_nothing_to_one_who_has_more(make: Make) -> None:
    store = make(max_bytes=MIB, max_stream_bytes=256 * KIB)
    modest = [begin(store, f"modest{number}", caller="modest") for number in range(3)]
    for log in modest:
        fill(log, 1, 50, size=1000)
    for log in modest[:2]:
        log.end(FINISHED)
    for number in range(20):  # ended ones, and afterwards running ones
        log = begin(store, f"greedy{number}", caller="greedy")
        fill(log, 1, 100, size=1000)
        if number < 10:
            log.end(FINISHED)
        assert store.size <= MIB
    for log in modest:
        assert store.find(log.header.stream_id) is log
        assert log.lost == 0
    assert store.find("greedy0") is None
    assert store.find("greedy19") is not None


def test_what_is_freed_is_shared_out_so_that_the_largest_are_equal() -> None:
    sizes, none = {"a": 100, "b": 60, "c": 10}, {"a": 0, "b": 0, "c": 0}
    assert level_down(sizes, 30, none) == {"a": 30}
    assert level_down(sizes, 60, none) == {"a": 50, "b": 10}
    assert level_down(sizes, 155, none) == {"a": 95, "b": 55, "c": 5}
    assert level_down({"a": 100}, 500, none) == {"a": 100}
    assert level_down({}, 500, none) == {}


def test_what_a_holder_cannot_free_the_others_free() -> None:
    sizes = {"a": 100, "b": 60, "c": 10}
    assert level_down(sizes, 60, {"a": 90, "b": 0, "c": 0}) == {"a": 10, "b": 50}
    assert level_down(sizes, 64, {"a": 90, "b": 0, "c": 0}) == {"a": 10, "b": 52, "c": 2}
    assert level_down(sizes, 25, {"a": 90, "b": 50, "c": 10}) == {"a": 10, "b": 10}, "there is no more"
    assert level_down(sizes, 1000, sizes) == {}


@pytest.mark.parametrize("seed", range(20))
def test_as_much_is_freed_as_is_asked_for_or_as_there_is(seed: int) -> None:
    chance = random.Random(seed)
    sizes = {number: chance.choice([chance.randrange(50), chance.randrange(5000)]) for number in range(30)}
    fixed = {number: chance.choice([0, size, chance.randint(0, size)]) for number, size in sizes.items()}
    most = sum(sizes.values()) - sum(fixed.values())
    for excess in {1, most // 3, most, most + 1}:
        freed = level_down(sizes, excess, fixed)
        assert min(excess, most) <= sum(freed.values()) < min(excess, most) + len(sizes)
        left = {number: size - freed.get(number, 0) for number, size in sizes.items()}
        assert all(left[number] >= fixed[number] for number in sizes)
        level = max([left[number] for number in freed if left[number] > fixed[number]], default=0)
        assert all(left[number] <= max(level, fixed[number]) for number in sizes) or sum(freed.values()) >= excess


async def test_where_none_has_ended_the_largest_lose_their_oldest_pieces(make: Make) -> None:
    store = make(max_bytes=MIB, max_stream_bytes=MIB)
    small = [begin(store, f"small{number}") for number in range(5)]
    large = [begin(store, f"large{number}") for number in range(3)]
    for log in small:
        fill(log, 1, 20, size=1000)
    last = 0
    for seq in range(1, 1500):
        for log in large:
            log.append(frame(seq, log.header.stream_id, 1000), seq)
            assert store.size <= MIB
        last = seq
    for log in small:
        assert log.read(0, ALL).lost == 0
    for log in large:
        backlog = log.read(0, ALL)
        assert 0 < backlog.lost < last
        assert b"".join(backlog.pieces).startswith(b"id: %b.%d\n" % (log.header.stream_id.encode(), backlog.lost + 1))
        assert log.size > MIB // 5


@pytest.mark.interpreted
def test_making_room_is_rare(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The search through all streams is paid by a sixteenth of all bytes."""
    store = make(max_bytes=MIB)
    searches = 0
    search = memory.level_down

    def counted(*about: Any) -> dict[Any, int]:
        nonlocal searches
        searches += 1
        return search(*about)

    monkeypatch.setattr(memory, "level_down", counted)
    logs = [begin(store, f"s{number}") for number in range(100)]
    total = 0
    for seq in range(1, 1000):
        for log in logs:
            log.append(frame(seq, log.header.stream_id, 100), seq)
            total += 100 + LIMITS.log_piece_cost
    assert searches
    assert searches <= 2 * (total // (MIB // 16)), "of callers, and of the streams of one"


@pytest.mark.interpreted
def test_making_room_looks_through_the_logs_once_however_many_callers_have_too_much(make: Make) -> None:
    """All logs were once searched for each caller: a second for some thousand callers of some streams each."""
    compared = 0

    class Caller(str):
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return str.__eq__(self, other)

    store = make(max_bytes=MIB, max_stream_bytes=MIB)
    callers = [Caller(f"caller{number}") for number in range(30)]
    logs = [begin(store, f"{caller}-{number}", caller) for caller in callers for number in range(3)]
    for seq in range(1, 200):
        for log in logs:
            log.append(frame(seq, log.header.stream_id, 100), seq)
    assert all(log.lost for log in logs)
    assert compared <= len(logs)


@pytest.mark.interpreted
def test_a_caller_of_many_streams_that_hold_little_does_not_fill_the_store(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the streams themselves cost was once counted as what could be freed: no search brought the size below the
    bound, and every event searched all logs."""
    store = make(max_bytes=MIB, max_stream_bytes=MIB)
    searches = 0
    search = memory.LogMemory._owed

    def counted(store: memory.LogMemory, excess: int) -> dict[str, int]:
        nonlocal searches
        searches += 1
        return search(store, excess)

    monkeypatch.setattr(memory.LogMemory, "_owed", counted)
    for number in range(MIB // 2 // LIMITS.log_stream_cost - 20):
        fill(begin(store, f"many{number}", caller="many"), 1, 1)
    logs = [begin(store, f"few{number}", caller=f"few{number}") for number in range(20)]
    total = 0
    for seq in range(1, 400):
        for log in logs:
            log.append(frame(seq, log.header.stream_id, 200), seq)
            total += 200 + LIMITS.log_piece_cost
            assert store.size <= MIB
    assert 0 < searches <= 2 * (total // (MIB // 16))


def test_an_event_drops_no_more_than_the_room_that_it_needs(make: Make) -> None:
    """Each of many equal streams once dropped a block of its own at the same event: 160 MiB, which took seconds."""
    store = make(max_bytes=MIB, max_stream_bytes=MIB)
    logs = [begin(store, f"s{number}") for number in range(100)]
    most = 0
    for seq in range(1, 120):
        for log in logs:
            before = store.size
            log.append(frame(seq, log.header.stream_id, 200), seq)
            assert store.size > before - 2 * LIMITS.log_block
            most = max(most, store.size)
    assert all(log.lost for log in logs), "in turn"
    assert most > MIB - 300


@pytest.mark.interpreted
def test_a_bound_below_what_the_streams_themselves_cost_is_not_searched_for_at_each_event(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make(max_bytes=MIB)
    logs = [begin(store, f"s{number}") for number in range(300)]
    store.keep(600, 256 * KIB)
    searches = 0
    search = memory.LogMemory._owed

    def counted(store: memory.LogMemory, excess: int) -> dict[str, int]:
        nonlocal searches
        searches += 1
        return search(store, excess)

    monkeypatch.setattr(memory.LogMemory, "_owed", counted)
    total = 0
    for seq in range(1, 30):
        for log in logs:
            log.append(frame(seq, log.header.stream_id, 200), seq)
            total += 200 + LIMITS.log_piece_cost
    assert 0 < searches <= 2 * (total // (256 * KIB // 16))
    assert store.size <= len(logs) * LIMITS.log_stream_cost + 256 * KIB // 16
    for log in logs[:290]:
        log.end(FINISHED)
    assert store.size <= 256 * KIB, "it holds again once there is room"


async def test_no_stream_begins_where_the_empty_logs_alone_would_fill_half(make: Make) -> None:
    store = make(max_bytes=MIB)
    most = MIB // 2 // LIMITS.log_stream_cost
    logs = [begin(store, f"s{number}") for number in range(most)]
    with pytest.raises(Error, match="no room for another durable stream") as refused:
        begin(store, "one more")
    assert (refused.value.code, refused.value.reason) == ("overloaded", "store")
    assert store.find("one more") is None
    logs[0].end(FINISHED)
    begin(store, "one more")


@pytest.mark.parametrize("size", [60, 140, 700])
def test_what_is_counted_is_what_the_memory_holds(make: Make, time: FakeTime, size: int) -> None:
    store = make()
    gc.collect()
    tracemalloc.start()
    try:
        logs = [begin(store, f"stream-{number:018}") for number in range(50)]
        for log in logs:
            fill(log, 1, 301, size=size)
        running = tracemalloc.get_traced_memory()[0], store.size
        for log in logs:
            log.end(Ending("finished", "stop", {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}))
        gc.collect()
        ended = tracemalloc.get_traced_memory()[0], store.size
        del logs, log
        gc.disable()
        time.advance(601)
        freed = tracemalloc.get_traced_memory()[0]
    finally:
        gc.enable()
        tracemalloc.stop()
    for held, counted in (running, ended):
        assert 0.85 * counted < held <= counted
    assert store.size == 0
    assert freed < held * 0.05, "freed at once, not when the collector comes"


# ---- time ------------------------------------------------------------------------------------------------------------


async def test_a_stream_is_kept_for_its_time_after_its_end_and_then_gone(make: Make, time: FakeTime) -> None:
    store = make(ttl=600)
    log, running = begin(store), begin(store, "running")
    fill(log, 1, 100)
    time.advance(10_000)
    assert store.find("s") is log
    log.end(FINISHED)
    time.advance(599)
    assert store.find("s") is log
    time.advance(2)
    assert store.find("s") is None
    assert store.find("running") is running
    assert store.size == running.size


async def test_one_timer_serves_all_and_none_where_nothing_has_ended(make: Make, time: FakeTime) -> None:
    store = make(ttl=600)
    logs = [begin(store, f"s{number}") for number in range(5)]
    assert time.armed == 0
    for log in logs:
        time.advance(10)
        log.end(FINISHED)
        assert time.armed == 1
    time.advance(561)
    assert [store.find(f"s{number}") is not None for number in range(5)] == [False, True, True, True, True]
    time.advance(40)
    assert len(store) == 0
    assert store.size == 0
    assert time.armed == 0


async def test_without_a_time_to_live_a_stream_is_gone_with_its_end(make: Make, time: FakeTime) -> None:
    store = make(ttl=0)
    begin(store).end(FINISHED)
    assert store.find("s") is None
    assert time.armed == 0


def test_a_memory_that_is_cleared_holds_nothing_and_waits_for_nothing(make: Make, time: FakeTime) -> None:
    store = make()
    log = begin(store)
    fill(log, 1, 100)
    begin(store, "ended").end(FINISHED)
    store.clear()
    assert (len(store), store.size, time.armed) == (0, 0, 0)
    assert store.find("s") is None
    assert store.find("ended") is None


async def test_a_stream_ends_once(make: Make, time: FakeTime) -> None:
    store = make(ttl=600)
    log = begin(store)
    log.end(FINISHED)
    time.advance(300)
    log.end(Ending("cancelled"))
    assert log.ending == FINISHED
    time.advance(301)
    assert store.find("s") is None


# ---- a part at a time ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 500, 20_000, ALL])
def test_a_log_is_read_in_parts_that_are_little_larger_than_was_asked(make: Make, limit: int) -> None:
    log = begin(make())
    said = fill(log, 1, 1000)
    large = frame(1001, size=30_000)
    log.append(large, 1001)
    position, parts = 3, []
    while position < log.last_seq:
        backlog = log.read(position, limit)
        assert backlog.last_seq > position
        position = backlog.last_seq
        parts.append(b"".join(backlog.pieces))
    assert b"".join(parts) == said[3 * 60 :] + large
    assert all(len(part) < limit + LIMITS.log_block for part in parts if not part.endswith(large))


# ---- watchers --------------------------------------------------------------------------------------------------------


class Watcher:
    """Notes its calls; leaves at a piece if the test says so."""

    def __init__(self, log: StreamLog, leaves_at: int = 0) -> None:
        self.log = log
        self.leaves_at = leaves_at
        self.calls: list[object] = []
        log.watch(self)

    def advanced(self, piece: bytes, last_seq: int) -> None:
        assert self.log.last_seq == last_seq
        self.calls.append((piece, last_seq))
        if last_seq == self.leaves_at:
            self.log.unwatch(self)

    def ended(self) -> None:
        self.calls.append(self.log.ending or self.log.broken)


def test_every_watcher_is_given_every_piece_at_once_and_the_end(make: Make) -> None:
    log = begin(make())
    early, leaving = Watcher(log), Watcher(log, leaves_at=2)
    fill(log, 1, 2)
    late = Watcher(log)
    assert log.watchers == 2
    fill(log, 3, 3)
    log.end(FINISHED)
    log.end(FINISHED)
    assert early.calls == [(frame(1), 1), (frame(2), 2), (frame(3), 3), FINISHED]
    assert leaving.calls == early.calls[:2]
    assert late.calls == early.calls[2:]
    assert log.watchers == 0
    assert Watcher(log).calls == []


def test_watchers_are_given_the_object_that_the_log_was_given(make: Make) -> None:
    log = begin(make())
    watcher = Watcher(log)
    piece = frame(1)
    log.append(piece, 1)
    assert watcher.calls == [(piece, 1)]
    assert watcher.calls[0][0] is piece


def test_a_log_whose_writer_is_gone_says_so_once_and_expires(make: Make, time: FakeTime) -> None:
    store = make(ttl=600)
    log = begin(store)
    watcher = Watcher(log)
    lost = Error("network", reason="worker_lost")
    log.break_off(lost)
    log.break_off(Error("network"))
    log.end(FINISHED)
    assert (watcher.calls, log.broken, log.ending) == ([lost], lost, None)
    time.advance(601)
    assert store.find("s") is None


# ---- the text of what is gone ----------------------------------------------------------------------------------------


def append_text(log: StreamLog, seq: int, text: str) -> None:
    data = encode_json({"type": "text.delta", "seq": seq, "text": text})
    log.append(b"event: text.delta\nid: s.%d\ndata: %b\n\n" % (seq, data), seq)


def test_the_text_of_what_was_dropped_is_kept(make: Make) -> None:
    log = begin(make(max_stream_bytes=64 * KIB))
    texts = [f"w\u00f6rd {seq} " for seq in range(1, 3001)]
    for seq, text in enumerate(texts, 1):
        append_text(log, seq, text)
    backlog = log.read(0, ALL)
    assert 0 < backlog.lost < 3000
    assert backlog.text == "".join(texts[: backlog.lost])
    assert log.read(backlog.lost, ALL).text is None


def test_the_text_is_not_copied_for_each_block_that_is_dropped(make: Make) -> None:
    """The cost of a long stream grew with the square of its text."""
    log = begin(make(max_stream_bytes=2 * MIB))
    tracemalloc.start()
    try:
        for seq in range(1, 25_001):
            append_text(log, seq, "w" * 30)
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        for seq in range(25_001, 25_301):
            append_text(log, seq, "w" * 30)
        grown = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    text = log.read(0, 1).text
    assert text is not None
    assert grown < len(text) // 2


def test_a_text_that_is_half_of_what_a_stream_may_have_is_not_kept(make: Make) -> None:
    log = begin(make(max_stream_bytes=64 * KIB))
    seq = 0
    while log.read(0, ALL).text is not None or not log.read(0, ALL).lost:
        seq += 1
        append_text(log, seq, "w" * 100)
        assert log.size <= 64 * KIB
    assert 30 * KIB < log.read(0, ALL).lost * 100 < 40 * KIB


@pytest.mark.parametrize("size", [10, 500, 4000])
def test_what_may_be_dropped_is_known_before_though_texts_of_what_is_dropped_take_room(make: Make, size: int) -> None:
    """Long deltas are nearly all text, so that dropping a block makes next to no room, and the next one goes, too."""
    log = begin(make(max_stream_bytes=64 * KIB))
    for seq in range(1, 200_000 // size):
        may_be_dropped = log.dropped_by(size + 200)
        lost = log.lost
        append_text(log, seq, "w" * size)
        assert log.lost == lost or lost < log.lost <= may_be_dropped
    assert log.lost


def test_of_frames_that_cannot_be_read_no_text_is_kept_and_no_stream_fails(make: Make) -> None:
    """They were read by whichever stream made room, and that one failed."""
    log = begin(make(max_stream_bytes=64 * KIB))
    log.append(b'event: text.delta\nid: s.1\ndata: {"type":"text.delta","seq":1,"text":7}\n\n', 1)
    for seq in range(2, 3001):
        append_text(log, seq, "said")
    backlog = log.read(0, ALL)
    assert backlog.lost > 0
    assert backlog.text is None


def test_a_log_of_another_format_has_no_text(make: Make) -> None:
    log = make().create(LogHeader("s", "", "m", "openai", "sse"))
    fill(log, 1, 3)
    log.trim(0)
    assert log.read(0, ALL) == Backlog([], 3, 3, None)


# ---- logs of other processes -----------------------------------------------------------------------------------------


async def test_a_log_may_begin_after_what_is_lost(make: Make) -> None:
    memory = make()
    log = begin(memory)
    log.skip(10, "what was said")
    assert (log.lost, log.last_seq) == (10, 10)
    fill(log, 11, 20)
    backlog = log.read(3, 10**9)
    assert (backlog.lost, backlog.text) == (10, "what was said")
    assert b"".join(backlog.pieces) == b"".join(frame(seq) for seq in range(11, 21))
    assert log.read(15, 10**9).lost == 0
    other = begin(memory, "other")
    other.skip(10, None)
    assert other.read(0, 10**9).text is None


async def test_a_forgotten_log_is_not_found_and_takes_no_room(make: Make, time: FakeTime) -> None:
    memory = make(ttl=600)
    running, ended, kept = begin(memory), begin(memory, "ended"), begin(memory, "kept")
    for log in (ended, kept):
        fill(log, 1, 10)
        log.end(FINISHED)
    for log in (running, ended, ended):
        memory.forget(log)
    assert memory.find("s") is None
    assert memory.find("ended") is None
    assert memory.find("kept") is kept
    assert memory.size == kept.size
    time.advance(601)
    assert memory.size == 0


async def test_forgetting_a_log_costs_the_same_however_many_have_ended(make: Make, time: FakeTime) -> None:
    """A search among all that have ended would take minutes for this many."""
    memory = make(max_bytes=1 << 30)
    logs = [begin(memory, str(number)) for number in range(40_000)]
    for log in logs:
        log.end(FINISHED)
    for log in reversed(logs):
        memory.forget(log)
    assert (len(memory), memory.size) == (0, 0)


# ---- a gate ----------------------------------------------------------------------------------------------------------


async def test_a_gate_decides_when_a_piece_can_be_read(make: Make) -> None:
    class Gate:
        def __init__(self) -> None:
            self.held: list[tuple[bytes, int]] = []
            self.ending: Ending | None = None

        def append(self, piece: bytes, last_seq: int) -> None:
            self.held.append((piece, last_seq))

        def end(self, ending: Ending) -> None:
            self.ending = ending

    log = begin(make())
    log.gate = gate = Gate()
    said = fill(log, 1, 3)
    log.end(FINISHED)
    assert (log.last_seq, log.ending, gate.ending) == (0, None, FINISHED)
    for piece, last_seq in gate.held:
        log.publish(piece, last_seq)
    log.finish(FINISHED)
    assert b"".join(log.read(0, 10**9).pieces) == said
    assert log.ending == FINISHED


def test_the_memory_has_one_address() -> None:
    assert check_url("memory://", Path()) == "memory://"
    with pytest.raises(ValueError, match='must be "memory://": the memory has no address'):
        check_url("memory://host", Path())


def test_other_bounds_hold_from_then_on(timers: TimerWheel, time: FakeTime) -> None:
    memory = LogMemory(StoreSettings(ttl=100.0), timers)
    old, new = (memory.create(LogHeader(name, "caller", "m", "gai", "sse")) for name in ("old", "new"))
    old.end(Ending("finished"))
    memory.keep(200.0, 1 << 20)
    new.end(Ending("finished"))
    time.advance(101.0)
    assert memory.find("old") is None, "a longer time is for those that end later"
    assert memory.find("new") is new
    memory.keep(10.0, 1 << 20)
    last = memory.create(LogHeader("last", "caller", "m", "gai", "sse"))
    last.end(Ending("finished"))
    time.advance(9.0)
    assert len(memory) == 2
    time.advance(2.0)
    assert len(memory) == 0, "a shorter one is for all"
    big = memory.create(LogHeader("big", "caller", "m", "gai", "sse"))
    big.append(b"id: big.1\ndata: {}\n\n" + b"x" * 100_000, 1)
    big.end(Ending("finished"))
    memory.keep(10.0, 65536)
    assert memory.find("big") is None


# ---- requests of running streams -----------------------------------------------------------------------------------


def requested(store: LogMemory, stream_id: str, caller: str, size: int) -> StreamLog:
    return store.create(LogHeader(stream_id, caller, "m", "gai", "sse"), bytes(size))


def test_requests_of_running_streams_count_until_their_end_and_one_caller_leaves_room_for_others(make: Make) -> None:
    store = make(max_bytes=1_000_000)
    empty = begin(store).size
    logs = [requested(store, f"a{number}", "anna", 100_000) for number in range(4)]
    assert [log.request is not None for log in logs] == [True, True, False, False], "as much as is free"
    assert store.size == 5 * empty + 200_000
    others = [requested(store, f"b{number}", "bert", 100_000) for number in range(3)]
    assert [log.request is not None for log in others] == [True, False, False]
    logs[0].end(FINISHED)
    assert store.size == 8 * empty + 200_000
    logs[1].break_off(Error("network", "gone"))
    store.forget(others[0])
    assert store.size == 7 * empty
    assert requested(store, "c", "carl", 250_000).request is not None


def test_runs_count_with_requests_until_the_end_of_their_streams(make: Make) -> None:
    store = make(max_bytes=1_000_000)
    empty = begin(store).size
    log = requested(store, "a", "anna", 100_000)
    assert store.count_run("a", 150_000)
    assert not store.count_run("a", 150_001), "as much as is free"
    assert store.count_run("a", 120_000)
    assert store.size == 2 * empty + 220_000
    assert store.count_run("a", 30_000, part="approval")
    assert not store.count_run("a", 30_001, part="approval")
    assert store.count_run("a", 90_000)
    assert store.size == 2 * empty + 220_000
    assert store.count_run("a", 0, part="approval")
    assert store.size == 2 * empty + 190_000
    store.forget_request(log)
    assert store.size == 2 * empty
    assert store.count_run("a", 600_000, is_there=True)
    assert requested(store, "b", "bert", 1).request is None
    log.end(FINISHED)
    assert store.size == 3 * empty
    assert store.count_run("a", 600_000), "it counts for nothing"
    assert store.count_run("none", 600_000)
    assert requested(store, "c", "bert", 1).request is not None


def test_without_keys_requests_have_half_of_all_bytes(make: Make) -> None:
    store = make(max_bytes=1_000_000)
    logs = [requested(store, f"a{number}", ANONYMOUS, 100_000) for number in range(6)]
    assert [log.request is not None for log in logs] == [True] * 5 + [False]


def test_who_has_large_requests_makes_room_for_logs_and_nobody_else(make: Make) -> None:
    store = make(max_bytes=100_000, max_stream_bytes=100_000)
    fill(begin(store, "b", "bert"), 1, 200, 200)
    requested(store, "a", "anna", 20_000)
    fill(begin(store, "a2", "anna"), 1, 500, 200)
    log = store.find("b")
    assert log is not None
    assert (log.lost, store.size <= 100_000) == (0, True)


def test_a_request_is_counted_once_however_often_its_stream_is_taken_over(make: Make) -> None:
    store = make(max_bytes=1_000_000)
    log = begin(store)
    empty = store.size
    for _ in range(3):
        store.count_request(log, bytes(1000))
    assert store.size == empty + 1000
    store.forget_request(log)
    assert (store.size, log.request) == (empty, None)
