"""`gai_fast/net/logs/cursor.py`: a reader of a log catches up, pauses and ends."""

from __future__ import annotations

from typing import Any, cast

import pytest

from gai_fast.model.changes import Changes
from gai_fast.model.errors import Error
from gai_fast.model.metrics import StreamMetrics
from gai_fast.model.settings import StoreSettings
from gai_fast.net.logs.cursor import LogCursor
from gai_fast.net.logs.publication import Follows, Published
from gai_fast.stores import Backlog, Ending, LogHeader, StreamLog
from gai_fast.stores._base import data_lines
from gai_fast.stores.memory import LogMemory
from tests.limits import LIMITS
from tests.unit.net.fakes import FakeTime

FINISHED = Ending("finished")
SIZE = LIMITS.follower_read // 2


class FakePublication(Published):
    def __init__(self) -> None:
        self.calls: list[str] = []

    def add(self, follower: Follows) -> None:
        self.calls.append("joined")

    def remove(self, follower: Follows) -> None:
        self.calls.append("left")

    def parted(self, follower: Follows) -> None:
        raise AssertionError("a cursor is not cut off")

    def balance(self) -> None:
        self.calls.append("balance")

    def metrics(self) -> StreamMetrics:
        return StreamMetrics(duration=3.0)

    def changes(self) -> Changes | None:
        return None


class Reader(LogCursor):
    """Notes the numbers of the events that it is given, and how it ended."""

    def __init__(self, log: StreamLog, time: FakeTime, after: int = 0, **options: Any) -> None:
        super().__init__(
            log, after, after, options.get("publication"), cast("Any", time), takes_metrics="publication" in options
        )
        self.seen: list[int] = []
        self.parts: list[int] = []
        self.end: Any = None
        self.pauses_at = 0
        self.fails_at = 0
        self.fails: Exception = ValueError("a damaged record")

    def begin(self) -> Reader:
        self._join()
        self._go_on()
        return self

    def _take(self, backlog: Backlog) -> None:
        self.parts.append(len(backlog.pieces))
        if backlog.lost:
            raise Error("not_found", reason="gap")
        self._use(b"".join(backlog.pieces))

    def _take_piece(self, piece: bytes, last_seq: int) -> None:
        self._use(piece)

    def _use(self, data: bytes) -> None:
        for line in data_lines(data):
            seq = int(line[: line.index(b",")].rpartition(b":")[2])
            if seq == self.fails_at:
                raise self.fails
            self.seen.append(seq)
            self.position = seq
            if seq == self.pauses_at:
                self.pause()
                return

    def _finish(self, error: Error | None) -> None:
        assert self.end is None
        self.end = error or "end"
        self.leave()


class World:
    def __init__(self, **store: Any) -> None:
        self.time = FakeTime()
        self.log = LogMemory(StoreSettings(**store), cast("Any", self.time)).create(
            LogHeader("s", "", "m", "gai", "sse")
        )

    def say(self, count: int = 1, size: int = 10) -> None:
        """Logs one piece of so many events."""
        first = self.log.last_seq + 1
        frames = [
            b'id: s.%d\ndata: {"seq":%d,"text":"%b"}\n\n' % (seq, seq, b"x" * size)
            for seq in range(first, first + count)
        ]
        self.log.append(b"".join(frames), first + count - 1)

    def read(self, after: int = 0, **options: Any) -> Reader:
        return Reader(self.log, self.time, after, **options)

    def turn(self) -> None:
        self.time.advance(0.0)


@pytest.fixture
def world() -> World:
    return World(max_stream_bytes=64 << 20)


def test_a_reader_that_keeps_up_is_given_each_piece_as_it_is_logged(world: World) -> None:
    reader = world.read().begin()
    world.say(2)
    world.say()
    assert (reader.seen, reader.position, reader.is_slow) == ([1, 2, 3], 3, False)
    assert reader.parts == [0], "nothing is read from the log"
    world.log.end(FINISHED)
    assert reader.end == "end"


def test_a_reader_that_keeps_up_and_pauses_amid_a_piece_reads_the_rest_of_it(world: World) -> None:
    reader = world.read().begin()
    reader.pauses_at = 2
    world.say(4)
    assert (reader.seen, reader.is_slow) == ([1, 2], True)
    reader.resume()
    assert (reader.seen, reader.is_slow) == ([1, 2, 3, 4], False)
    reader.pauses_at = 5
    world.say(2)
    reader.resume()
    world.say()
    assert reader.seen == [*range(1, 8)]


def test_a_reader_catches_up_by_a_part_in_each_turn(world: World) -> None:
    for _ in range(6):
        world.say(size=SIZE)
    reader = world.read()
    steps = []
    reader._join()
    while reader._is_behind:
        reader._go_on()
        steps.append(len(reader.seen))
        assert reader.is_slow is (reader.seen[-1] < 6)
    assert steps == [2, 4, 6]
    other = world.read().begin()
    assert other.seen == [1, 2]
    world.turn()
    assert other.seen == [1, 2, 3, 4, 5, 6]


def test_pieces_that_come_while_a_reader_catches_up_stay_in_the_log(world: World) -> None:
    for _ in range(4):
        world.say(size=SIZE)
    reader = world.read().begin()
    world.say()
    assert reader.seen == [1, 2]
    world.turn()
    world.say()
    assert reader.seen == [1, 2, 3, 4, 5, 6]


def test_a_reader_that_pauses_amid_a_part_reads_on_from_there(world: World) -> None:
    world.say(10)
    reader = world.read()
    reader.pauses_at = 4
    reader.begin()
    world.say()
    world.log.end(FINISHED)
    world.turn()
    assert (reader.seen, reader.position, reader.is_slow, reader.end) == ([1, 2, 3, 4], 4, True, None)
    reader.resume()
    world.turn()
    assert reader.seen == [*range(1, 12)]
    assert reader.end == "end"


def test_a_reader_that_is_paused_before_its_next_part_reads_it_once_when_it_goes_on(world: World) -> None:
    for _ in range(4):
        world.say(size=SIZE)
    reader = world.read().begin()
    reader.pause()
    world.turn()
    assert reader.seen == [1, 2]
    reader.resume()
    reader.pause()
    reader.resume()
    world.turn()
    assert reader.seen == [1, 2, 3, 4]


@pytest.mark.parametrize("has_more", [False, True])
def test_a_paused_reader_ends_when_it_has_read_all(world: World, has_more: bool) -> None:
    reader = world.read().begin()
    world.say()
    reader.pause()
    if has_more:
        world.say()
    world.log.end(FINISHED)
    assert reader.end == (None if has_more else "end")
    reader.resume()
    assert (reader.seen, reader.end) == ([1, 2] if has_more else [1], "end")


def test_a_log_that_ends_while_its_last_piece_is_handed_out_is_read_to_its_end(world: World) -> None:
    """A client whose connection is lost by that very write may end the stream."""

    class First:
        def advanced(self, piece: bytes, last_seq: int) -> None:
            world.log.end(FINISHED)

        def ended(self) -> None:
            pass

    world.log.watch(First())
    reader = world.read().begin()
    world.say()
    assert (reader.seen, reader.end) == ([1], "end")


def test_a_reader_whose_client_is_ahead_of_the_log_gets_only_what_follows(world: World) -> None:
    world.say(2)
    reader = world.read(after=4).begin()
    world.say()
    assert reader.seen == []
    world.say(3)
    world.say()
    assert reader.seen == [5, 6, 7]


def test_a_log_that_ends_before_the_place_of_its_reader_is_behind(world: World) -> None:
    world.say(2)
    reader = world.read(after=4).begin()
    world.log.end(FINISHED)
    assert (reader.end.code, reader.end.reason) == ("network", "log_behind")


@pytest.mark.parametrize("is_paused", [False, True])
def test_a_store_that_fails_ends_a_reader_once_it_has_what_the_log_has(world: World, is_paused: bool) -> None:
    reader = world.read().begin()
    if is_paused:
        reader.pause()
    world.say()
    failure = Error("overloaded", "the store is out of reach", reason="store")
    world.log.break_off(failure)
    assert reader.end is (None if is_paused else failure)
    reader.resume()
    assert (reader.seen, reader.end) == ([1], failure)


@pytest.mark.parametrize("is_live", [False, True])
def test_a_damaged_record_ends_its_reader_and_no_other(
    world: World, is_live: bool, caplog: pytest.LogCaptureFixture
) -> None:
    reader, other = world.read(), world.read()
    reader.fails_at = 2
    if is_live:
        reader.begin()
    world.say()
    world.say()
    other.begin()
    if not is_live:
        reader.begin()
    assert (reader.seen, reader.end.code) == ([1], "internal")
    assert "a follower of stream s failed" in caplog.text
    world.say()
    assert other.seen == [1, 2, 3]
    assert world.log.watchers == 1


def test_an_error_of_a_readers_own_ends_it_with_that_error(world: World, caplog: pytest.LogCaptureFixture) -> None:
    reader = world.read()
    reader.fails_at, reader.fails = 1, Error("provider_unavailable", reason="reset")
    reader.begin()
    world.say()
    assert reader.end is reader.fails
    assert caplog.text == ""


def test_a_reader_whose_events_were_dropped_is_reported_where_the_log_begins() -> None:
    world = World(max_stream_bytes=32 << 10)
    while not world.log.lost:
        world.say(10)
    assert world.read().begin().end.reason == "gap"
    assert world.read(after=world.log.lost).begin().seen[0] == world.log.lost + 1


def test_a_reader_that_has_left_reads_nothing_and_is_reported_nothing(world: World) -> None:
    for _ in range(4):
        world.say(size=SIZE)
    reader = world.read().begin()
    reader.leave()
    reader.leave()
    world.say()
    reader.resume()
    world.log.end(FINISHED)
    world.turn()
    assert (reader.seen, reader.end, world.log.watchers) == ([1, 2], None, 0)


def test_the_publication_hears_of_each_change_of_pace_and_is_left_once(world: World) -> None:
    publication = FakePublication()
    world.say()
    reader = world.read(publication=publication).begin()
    reader.pause()
    reader.resume()
    reader.leave()
    reader.leave()
    assert publication.calls == ["joined", "balance", "balance", "balance", "left"]
    assert reader.metrics == StreamMetrics(duration=3.0)
