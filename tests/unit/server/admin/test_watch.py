"""The events that are kept of a stream which admins follow."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from gai_fast.net.engine.engine import Engine
from gai_fast.server.admin.watch import WatchedEvents, Watches
from tests.limits import LIMITS
from tests.unit.net.fakes import FakeTime


class Session:
    """A session, and its watcher."""

    def __init__(self) -> None:
        self.watcher: Any = None
        self.calls = 0

    def watch(self, watcher: Any) -> None:
        self.watcher = watcher
        self.calls += 1

    def say(self, *texts: str) -> None:
        for text in texts:
            self.watcher.event({"type": "text.delta", "text": text})


class Worker:
    """One stream, `s`, in a worker whose clock is set."""

    def __init__(self) -> None:
        self.time = FakeTime()
        self.session = Session()
        self.engine = SimpleNamespace(streams={"s": self.session}, timers=self.time)
        self.watches = Watches(cast(Engine, self.engine))

    def news(self, after: int = 0) -> WatchedEvents:
        news = self.watches.news("s", after)
        assert news is not None
        return news


@pytest.fixture
def worker() -> Worker:
    return Worker()


def said(*texts: str) -> bytes:
    return b"".join(b'event: text.delta\ndata: {"type":"text.delta","text":"%b"}\n\n' % text.encode() for text in texts)


SKIPPED = b'event: warning\ndata: {"type":"warning","reason":"skipped"}\n\n'
LEFT_OUT = SKIPPED.replace(b"skipped", b"left_out")


def test_events_are_those_after_the_place_that_is_asked_for(worker: Worker) -> None:
    assert worker.news() == (0, b"", False)
    worker.session.say("a", "b")
    assert worker.news() == (2, said("a", "b"), False)
    assert worker.news(2) == (2, b"", False)
    worker.session.say("c")
    assert worker.news(2) == (3, said("c"), False)
    assert worker.news(1) == (3, said("b", "c"), False)
    assert worker.session.calls == 1


def test_a_stream_that_does_not_run_is_none(worker: Worker) -> None:
    assert worker.watches.news("other", 0) is None
    assert len(worker.watches) == 0


def test_the_end_is_reported_with_the_last_events(worker: Worker) -> None:
    worker.news()
    worker.session.say("a")
    del worker.engine.streams["s"]
    assert worker.news(0) == (1, said("a"), True)


def test_of_many_events_the_newest_are_kept_and_a_slow_follower_learns_that_it_missed_some(worker: Worker) -> None:
    worker.news()
    size = len(said("x" * 100))
    kept = LIMITS.watched_bytes // size
    worker.session.say(*["x" * 100] * (kept + 3))
    news = worker.news(0)
    assert news.place == kept + 3
    assert news.frames == SKIPPED + said(*["x" * 100] * kept)
    assert worker.news(3).frames == said(*["x" * 100] * kept)


@pytest.mark.parametrize(
    "event", [{"type": "text.delta", "text": "x" * (1 << 17)}, {"type": "image", "image": object()}]
)
def test_an_event_that_is_too_large_or_no_json_is_left_out(worker: Worker, event: dict[str, Any]) -> None:
    worker.news()
    worker.session.watcher.event(event)
    assert worker.news(0) == (1, LEFT_OUT, False)


def test_a_stream_that_nobody_asks_for_is_not_watched_any_more(worker: Worker) -> None:
    worker.news()
    worker.time.advance(LIMITS.watch_lease - 1)
    worker.news()
    worker.time.advance(1.5)
    assert worker.session.watcher is not None, "it was asked for a moment ago"
    worker.time.advance(LIMITS.watch_lease * 2)
    assert worker.session.watcher is None
    assert len(worker.watches) == 0
    worker.news()
    worker.session.say("a")
    news = worker.news(500)  # of the watch before
    assert news == (1, SKIPPED + said("a"), False)
    worker.watches.close()
    assert len(worker.watches) == 0
    assert worker.session.watcher is None, "the engine may be another application's, and go on"


def test_the_watch_of_a_stream_that_has_ended_ends_as_well(worker: Worker) -> None:
    worker.news()
    del worker.engine.streams["s"]
    worker.time.advance(LIMITS.watch_lease * 2)
    assert worker.watches.news("s", 0) is None
