"""`gai_fast/net/logs/publication.py`: what a durable stream logs, how long it lives, when it waits."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Literal, cast

import pytest

from gai_fast.model.changes import Changes
from gai_fast.model.errors import Error
from gai_fast.model.events import Event
from gai_fast.model.limits import KIB
from gai_fast.model.metrics import AnswerSource, StreamMetrics
from gai_fast.model.settings import StoreSettings, StreamSettings
from gai_fast.net.logs.publication import Publication, ending_of
from gai_fast.stores import Ending, LogHeader, StreamLog
from gai_fast.stores.memory import LogMemory
from tests.limits import LIMITS
from tests.unit.net.fakes import FakeTime

ALL = 1 << 40
FIGURES = StreamMetrics(duration=1.0)


class FakeSession:
    def __init__(self) -> None:
        self.calls: list[str] = []
        self.metrics: StreamMetrics | None = None
        self.last_event: Event = {}
        self.has_content = True
        self.answered_by: AnswerSource | None = None
        self.publication: Publication | None = None
        self.since_wait = math.inf

    def measured(self, outcome: str = "finished") -> StreamMetrics:
        return StreamMetrics(duration=2.0, outcome=cast(Any, outcome))

    def seconds_since_wait(self) -> float:
        return self.since_wait

    def pause(self) -> None:
        self.calls.append("pause")

    def resume(self) -> None:
        self.calls.append("resume")

    def cancel(self) -> None:
        self.calls.append("cancel")
        self.last_event = {"type": "finish", "finish_reason": "cancelled"}
        if self.publication is not None:
            self.publication.end([b"<cancelled>"])


class FakeFollower:
    def __init__(self, position: int = 0, *, is_slow: bool = False, is_answer: bool = False) -> None:
        self.position = position
        self.is_answer = is_answer
        self.is_slow = is_slow
        self.failures: list[Error] = []
        self.waits: list[float] = []

    def put_off(self, seconds: float) -> None:
        self.waits.append(seconds)

    def fail(self, error: Error) -> None:
        self.failures.append(error)


class Fixture:
    """A publication, its log, and an engine with room for `drains`."""

    def __init__(
        self,
        *,
        drains: int = 1,
        max_stream_bytes: int = 4 << 20,
        framing: Literal["sse", "ndjson", "json"] = "sse",
        **stream: Any,
    ) -> None:
        self.time = FakeTime()
        self.timers = self.time
        self.drains = drains
        self.asks: list[Callable[[float], None]] | None = None
        """The questions to other processes, which may have followers, that wait for an answer."""
        self.encoder = SimpleNamespace(seq=0)
        memory = LogMemory(StoreSettings(max_stream_bytes=max_stream_bytes), cast(Any, self.time))
        self.log: StreamLog = memory.create(LogHeader("s", "", "m", "gai", framing))
        self.publication = Publication(cast(Any, self), self.log, self.encoder, StreamSettings(**stream))
        self.session = FakeSession()
        self.session.publication = self.publication
        self.publication.begin(self.session)

    def look_elsewhere(self, log: StreamLog, found: Callable[[float], None]) -> None:
        assert log is self.log
        if self.asks is None:
            found(math.inf)
        else:
            self.asks.append(found)

    def may_drain(self) -> bool:
        may = self.drains > 0
        self.drains -= may
        return may

    def drained(self) -> None:
        self.drains += 1

    def say(self, size: int = 10) -> bytes:
        self.encoder.seq += 1
        piece = b"id: s.%d\n" % self.encoder.seq + b"x" * size + b"\n\n"
        self.publication.write([memoryview(piece)[:3], piece[3:]])
        return piece

    @property
    def kept(self) -> bytes:
        return b"".join(self.log.read(0, ALL).pieces)


# ---- what is logged --------------------------------------------------------------------------------------------------


def test_every_write_is_one_piece_of_the_log_and_none_goes_past_it() -> None:
    stream = Fixture()
    stream.publication.commit()
    stream.publication.flush()
    assert stream.say() + stream.say() == stream.kept
    assert stream.log.last_seq == 2


def test_the_frames_of_a_fast_path_are_logged_with_their_numbers() -> None:
    """The encoder learns of them later, before the next write."""
    frame = b"id: s.%d\ndata: x\n\n"
    stream = Fixture()
    stream.encoder.seq = 1
    stream.publication.write([frame % 1])
    direct = stream.publication.direct
    assert direct is not None
    direct.log_frames(frame % 2, 2)
    direct.log_frames(frame % 3 + frame % 4 + frame % 5, 5)
    assert stream.log.last_seq == 5
    assert stream.kept == b"".join(frame % seq for seq in range(1, 6))
    assert b"".join(stream.log.read(3, ALL).pieces) == frame % 4 + frame % 5
    stream.encoder.seq = 6
    stream.publication.write([frame % 6])
    assert stream.log.last_seq == 6


def test_the_end_is_logged_with_the_last_bytes() -> None:
    stream = Fixture()
    first = stream.say()
    stream.session.last_event = {"type": "finish", "finish_reason": "stop", "usage": {"input_tokens": 1}}
    stream.session.metrics = FIGURES
    stream.encoder.seq = 2
    stream.publication.end([b"id: s.2\n\n", b"done\n\n"])
    assert stream.kept == first + b"id: s.2\n\ndone\n\n"
    assert stream.log.ending == Ending("finished", "stop", {"input_tokens": 1})
    assert stream.publication.metrics() is FIGURES


@pytest.mark.parametrize(
    ("event", "ending"),
    [
        ({"type": "finish", "finish_reason": "length"}, Ending("finished", "length")),
        ({"type": "finish", "finish_reason": "cancelled", "usage": {}}, Ending("cancelled", "cancelled", {})),
        ({"type": "error", "error": {"code": "network"}}, Ending("failed", error={"code": "network"})),
        ({}, Ending("cancelled")),
    ],
)
def test_the_log_tells_how_the_stream_ended(event: Event, ending: Ending) -> None:
    assert ending_of(event, has_content=True) == ending
    assert ending_of(event, has_content=False) == ending._replace(has_content=False)


def test_an_early_failure_is_logged_and_reported_before_to_those_who_asked_for_the_stream() -> None:
    stream, error = Fixture(), Error("rate_limited", "slow down")
    stream.session.has_content = False
    first, again, other = FakeFollower(is_answer=True), FakeFollower(is_answer=True), FakeFollower()
    stream.publication.add(again)
    stream.publication.add(first)
    stream.publication.add(other)
    stream.session.last_event = {"type": "error", "error": error.payload()}
    stream.encoder.seq = 1
    stream.publication.fail(error, [b"id: s.1\nerror\n\n"])
    assert (first.failures, again.failures, other.failures) == ([error], [error], [])
    assert stream.kept == b"id: s.1\nerror\n\n"
    assert stream.log.ending == Ending("failed", error=error.payload(), has_content=False)


def test_the_failure_of_a_whole_answer_ends_its_log_without_a_piece() -> None:
    stream, error = Fixture(framing="json"), Error("rate_limited", "slow down")
    assert stream.publication.measured()["duration_ms"] == 2000.0
    stream.session.last_event = {"type": "error", "error": error.payload()}
    stream.publication.fail(error, ())
    assert stream.kept == b""
    assert stream.log.ending == Ending("failed", error=error.payload())
    assert stream.publication.measured() == {}


def test_a_stream_whose_end_cannot_be_written_breaks_its_log_off() -> None:
    for end in ("abort", "fail"):
        stream, error = Fixture(), Error("internal", "a bug")
        stream.say()
        if end == "abort":
            stream.publication.abort(error)
        else:
            stream.publication.fail(error, ())
        assert (stream.log.broken, stream.log.ending) == (error, None)
        assert stream.time.armed == 1  # the log's time to live


def test_a_stream_that_was_refused_has_failed() -> None:
    stream = Fixture()
    stream.publication.refused(Error("overloaded", "full"))
    assert stream.log.ending is not None
    assert (stream.log.ending.state, stream.log.ending.has_content) == ("failed", False)


def test_a_follower_that_leaves_a_running_stream_takes_the_figures_so_far() -> None:
    stream = Fixture()
    figures = stream.publication.metrics()
    assert figures is not None
    assert (figures.duration, figures.outcome) == (2.0, "disconnected")
    stream.session.metrics = FIGURES  # it has ended, and its last bytes are being logged
    assert stream.publication.metrics() is FIGURES


# ---- without a follower ----------------------------------------------------------------------------------------------


def test_a_stream_that_nobody_follows_lives_for_detach_ttl() -> None:
    stream = Fixture(detach_ttl=100)
    follower = FakeFollower()
    stream.publication.add(follower)
    stream.time.advance(1000)
    stream.publication.remove(follower)
    stream.time.advance(99)
    assert stream.session.calls == []
    stream.time.advance(2)
    assert stream.session.calls == ["cancel"]
    assert stream.log.ending == Ending("cancelled", "cancelled")


@pytest.mark.parametrize("on_disconnect", ["cancel", "detach"])
def test_a_stream_that_waits_for_a_person_needs_no_follower_until_detach_ttl_after_that(on_disconnect: Any) -> None:
    stream = Fixture(detach_ttl=100, on_disconnect=on_disconnect)
    follower = FakeFollower()
    stream.publication.add(follower)
    stream.session.since_wait = 0.0
    stream.publication.remove(follower)
    stream.time.advance(100_000)
    assert stream.session.calls == []
    stream.session.since_wait = 60.0
    stream.time.advance(200)
    assert stream.session.calls == []
    stream.session.since_wait = 260.0
    stream.time.advance(200)
    assert stream.session.calls == ["cancel"]


def test_a_follower_that_comes_in_time_saves_it() -> None:
    stream = Fixture(detach_ttl=100)
    stream.publication.await_follower()
    stream.publication.await_follower()
    assert stream.time.armed == 1
    follower = FakeFollower()
    stream.publication.add(follower)
    assert stream.time.armed == 0
    stream.time.advance(1000)
    assert stream.session.calls == []


def test_only_the_last_one_that_leaves_matters() -> None:
    stream = Fixture(on_disconnect="cancel")
    one, two = FakeFollower(), FakeFollower()
    stream.publication.add(one)
    stream.publication.add(two)
    stream.publication.remove(one)
    assert stream.session.calls == []
    stream.publication.remove(two)
    assert stream.session.calls == ["cancel"]


def test_a_stream_that_was_started_without_a_follower_has_time_for_one_even_where_leaving_cancels() -> None:
    stream = Fixture(on_disconnect="cancel", detach_ttl=100)
    stream.publication.await_follower()
    stream.time.advance(99)
    assert stream.session.calls == []
    stream.time.advance(2)
    assert stream.session.calls == ["cancel"]


def test_a_drain_goes_on_to_its_end_and_counts_only_while_nobody_follows() -> None:
    stream = Fixture(on_disconnect="drain", detach_ttl=1)
    stream.publication.await_follower()
    assert (stream.drains, stream.time.armed) == (0, 0)
    follower = FakeFollower()
    stream.publication.add(follower)
    assert stream.drains == 1
    stream.publication.remove(follower)
    assert stream.drains == 0
    stream.time.advance(10_000)
    stream.publication.end([b"id: s.1\n\n"])
    assert (stream.drains, stream.session.calls) == (1, [])


def test_a_drain_beyond_the_limit_is_cancelled_when_its_last_follower_leaves() -> None:
    stream = Fixture(on_disconnect="drain", drains=0)
    follower = FakeFollower()
    stream.publication.add(follower)
    stream.publication.remove(follower)
    assert (stream.drains, stream.session.calls) == (0, ["cancel"])


def test_a_drain_beyond_the_limit_that_was_started_without_a_follower_has_time_to_get_one() -> None:
    """It was cancelled before its client had read where it is."""
    stream = Fixture(on_disconnect="drain", drains=0, detach_ttl=100)
    stream.publication.await_follower()
    stream.time.advance(99)
    assert stream.session.calls == []
    stream.time.advance(2)
    assert (stream.drains, stream.session.calls) == (0, ["cancel"])


def test_after_the_end_nothing_waits_and_nothing_is_cancelled() -> None:
    stream = Fixture()
    follower = FakeFollower()
    stream.publication.add(follower)
    stream.publication.end([b"id: s.1\n\n"])
    armed = stream.time.armed
    stream.publication.remove(follower)
    stream.publication.await_follower()
    stream.publication.cancel()
    stream.publication.balance()
    assert (stream.session.calls, stream.time.armed) == ([], armed)


def test_a_session_that_ended_while_it_was_started_is_not_kept() -> None:
    """Its log may not have ended yet, if it waits for its store."""
    stream = Fixture()
    stream.session.metrics = FIGURES
    publication = Publication(cast(Any, stream), stream.log, stream.encoder, StreamSettings())
    armed = stream.time.armed
    publication.begin(stream.session)
    publication.await_follower()
    publication.cancel()
    assert (stream.session.calls, stream.time.armed) == ([], armed)
    assert publication.metrics() is FIGURES


def test_a_stream_that_never_gets_a_follower_ends_like_one_that_lost_it() -> None:
    """An exception between its start and its first follower leaves it so."""
    stream = Fixture(detach_ttl=100)
    stream.time.advance(99)
    assert stream.session.calls == []
    stream.time.advance(2)
    assert stream.session.calls == ["cancel"]


# ---- followers in other processes ------------------------------------------------------------------------------------


def test_a_stream_that_is_followed_in_another_process_goes_on_until_detach_ttl_after_that() -> None:
    stream = Fixture(detach_ttl=100)
    stream.asks = []
    stream.time.advance(101)
    stream.asks.pop()(0.3)
    assert stream.time.armed == 1
    stream.time.advance(99)
    assert stream.asks == []
    stream.time.advance(3)
    stream.asks.pop()(42.0)
    stream.time.advance(57)
    assert stream.asks == []
    stream.time.advance(4)
    assert stream.session.calls == []
    stream.asks.pop()(103.0)
    assert stream.session.calls == ["cancel"]


@pytest.mark.parametrize("options", [{"on_disconnect": "cancel"}, {"on_disconnect": "drain", "drains": 0}], ids=str)
def test_the_last_one_here_that_leaves_does_not_end_it_for_followers_elsewhere(options: dict[str, Any]) -> None:
    stream = Fixture(**options)
    stream.asks = []
    follower = FakeFollower()
    stream.publication.add(follower)
    stream.publication.remove(follower)
    stream.asks.pop()(0.1)
    assert stream.session.calls == []
    stream.time.advance(LIMITS.note_life)
    stream.asks.pop()(LIMITS.note_life + 0.1)
    assert stream.session.calls == ["cancel"]


@pytest.mark.parametrize("is_late", [False, True])
def test_a_stream_that_another_worker_owns_logs_nothing_more(is_late: bool) -> None:
    """Its session may have ended before, and have waited for the ledger to count it."""
    stream = Fixture(detach_ttl=5)
    said = stream.say()
    stream.log.is_left = True
    if is_late:
        stream.publication.end([b"late"])
        stream.publication.abort(Error("internal", "late"))
    else:
        stream.publication.leave_to_other()
    assert (stream.kept, stream.log.is_over) == (said, False)
    assert not [timer for _, timer in stream.time.waiting if timer.callback], "nobody waits for its followers"


def test_who_comes_while_others_are_looked_for_elsewhere_keeps_the_stream() -> None:
    stream = Fixture(detach_ttl=100)
    stream.asks = []
    follower = FakeFollower()
    stream.time.advance(101)
    stream.publication.add(follower)
    stream.asks.pop()(math.inf)
    assert stream.session.calls == []
    stream.publication.remove(follower)
    stream.time.advance(101)
    found = stream.asks.pop()
    stream.publication.end([b"id: s.1\n\n"])
    found(math.inf)
    assert stream.session.calls == []


# ---- pace ------------------------------------------------------------------------------------------------------------


def test_the_upstream_is_slow_only_where_all_are_slow_and_would_lose_something() -> None:
    stream = Fixture(max_stream_bytes=2048 * KIB)
    slow, slower = FakeFollower(is_slow=True), FakeFollower(is_slow=True)
    stream.publication.add(slow)
    stream.publication.add(slower)
    while not stream.session.calls:
        stream.say(100 * KIB)
        assert stream.log.last_seq < 30
    assert stream.session.calls == ["pause"]
    assert stream.log.read(0, 1).lost == 0
    slow.position = slower.position = stream.log.last_seq
    stream.publication.balance()
    assert stream.session.calls == ["pause", "resume"]


def test_one_that_keeps_up_keeps_the_upstream_going() -> None:
    stream = Fixture(max_stream_bytes=64 * KIB)
    slow, quick = FakeFollower(is_slow=True), FakeFollower()
    stream.publication.add(slow)
    stream.publication.add(quick)
    for _ in range(100):
        stream.say(10 * KIB)
    assert stream.session.calls == []
    quick.is_slow = True
    stream.publication.balance()
    assert stream.session.calls == ["pause"]
    stream.publication.add(FakeFollower())
    assert stream.session.calls == ["pause", "resume"]


def test_where_nobody_is_left_the_upstream_is_not_paused() -> None:
    stream = Fixture(max_stream_bytes=64 * KIB)
    slow = FakeFollower(is_slow=True)
    stream.publication.add(slow)
    stream.say(10 * KIB)
    assert stream.session.calls == ["pause"]
    stream.publication.remove(slow)
    assert stream.session.calls == ["pause", "resume"]
    for _ in range(100):
        stream.say(10 * KIB)
    assert stream.session.calls == ["pause", "resume"]


def test_knows_how_its_request_was_changed_until_after_the_end() -> None:
    stream = Fixture()
    changes = Changes("drop")
    changes.drop("seed")
    assert stream.publication.changes() is None
    stream.session.answered_by = ("m", "u", False, changes)
    assert stream.publication.changes() is changes
    stream.publication.end([b"<end>"])
    assert stream.publication.changes() is changes


def test_followers_that_join_while_a_limit_is_waited_for_hold_their_heads_for_the_rest_of_it() -> None:
    """Such a follower sent 200, and the limit that was not lifted was an error in its stream."""
    stream = Fixture()
    first, second, third = FakeFollower(), FakeFollower(), FakeFollower()
    stream.publication.add(cast(Any, first))
    stream.publication.put_off(10)
    stream.time.advance(4)
    stream.publication.add(cast(Any, second))
    stream.time.advance(7)
    stream.publication.add(cast(Any, third))
    assert (first.waits, second.waits) == ([10], [6])
    assert sum(third.waits) == 0
