"""`gai_fast/net/logs/whole_follower.py`: a client of a whole answer gets it at the end, or the error."""

from __future__ import annotations

from typing import Any, cast

from gai_fast.model.errors import Error
from gai_fast.model.metrics import StreamMetrics
from gai_fast.model.settings import StoreSettings
from gai_fast.net.logs.whole_follower import WholeFollower
from gai_fast.stores import Ending, LogHeader
from gai_fast.stores.memory import LogMemory
from tests.unit.net.fakes import FakeClient, FakeTime
from tests.unit.net.logs.test_follower import FakePublication

ANSWER = b'{"text":"hi"}'
FAILED = Ending("failed", error={"code": "network", "message": "cut", "temporary": True})


class Stream:
    def __init__(self, **store: Any) -> None:
        memory = LogMemory(StoreSettings(**store), cast(Any, FakeTime()))
        self.log = memory.create(LogHeader("s", "", "m", "gai", "json"))
        self.publication = FakePublication()

    def follow(self, *, is_first: bool = False, publication: bool = False) -> tuple[WholeFollower, FakeClient]:
        client = FakeClient()
        follower = WholeFollower(
            self.log, cast(Any, client), cast(Any, self.publication) if publication else None, is_first=is_first
        )
        follower.begin()
        return follower, client


def test_the_answer_is_sent_at_the_end_to_all_who_wait_and_at_once_to_later_ones() -> None:
    stream = Stream()
    (first, one), (_, two) = stream.follow(is_first=True, publication=True), stream.follow()
    assert first.position == 0
    stream.log.append(ANSWER, 1)
    assert (first.position, first.is_slow, first.is_answer) == (1, False, True)
    first.pause()
    first.resume()
    assert (one.taken(), two.taken()) == ([], [])
    stream.log.end(Ending("finished", "stop"))
    _, late = stream.follow()
    for client in (one, two, late):
        assert client.taken() == ["commit", ("end", ANSWER)]
    assert stream.publication.calls == ["joined", "left"]
    assert (first.metrics, first.measured().duration) == (StreamMetrics(duration=3.0), 0.0)


def test_one_that_comes_between_the_answer_and_the_end_gets_it_too() -> None:
    stream = Stream()
    stream.log.append(ANSWER, 1)
    _, client = stream.follow()
    stream.log.end(Ending("finished", "stop"))
    assert client.taken() == ["commit", ("end", ANSWER)]


def test_a_failure_is_the_answer() -> None:
    stream = Stream()
    _, client = stream.follow()
    stream.log.end(FAILED)
    _, late = stream.follow()
    for each in (client, late):
        (error,) = each.taken()
        assert (error.code, error.message, error.status) == ("network", "cut", 502)


def test_an_early_failure_is_reported_once_as_it_is() -> None:
    stream, error = Stream(), Error("rate_limited", "slow down", status=418)
    follower, client = stream.follow(is_first=True, publication=True)
    follower.fail(error)
    follower.fail(error)
    stream.log.end(FAILED)
    follower.ended()
    assert client.taken() == [error]
    assert stream.publication.calls == ["joined", "left"]


def test_a_log_whose_writer_is_gone_is_reported() -> None:
    stream, lost = Stream(), Error("network", "gone", reason="worker_lost")
    _, client = stream.follow()
    stream.log.break_off(lost)
    assert client.taken() == [lost]


def test_an_answer_that_is_too_large_for_the_log_reaches_those_who_wait() -> None:
    stream = Stream(max_stream_bytes=4096)
    _, client = stream.follow()
    stream.log.append(b"x" * 5000, 1)
    stream.log.end(Ending("finished", "stop"))
    _, late = stream.follow()
    assert client.taken() == ["commit", ("end", b"x" * 5000)]
    (error,) = late.taken()
    assert (error.code, error.reason) == ("not_found", "gap")


def test_a_client_that_leaves_waits_for_nothing() -> None:
    stream = Stream()
    follower, client = stream.follow(publication=True)
    follower.client_lost()
    follower.client_lost()
    assert stream.log.watchers == 0
    assert stream.publication.calls == ["joined", "left"]
    assert follower.metrics is None
    assert client.taken() == []


def test_a_bug_while_one_client_is_answered_ends_that_one_and_the_others_hear_of_the_end() -> None:
    stream = Stream()
    (_, one), (_, two) = stream.follow(), stream.follow()
    stream.log.append(ANSWER, 1)

    def commit() -> None:
        raise ZeroDivisionError

    one.commit = commit
    stream.log.end(Ending("finished", "stop"))
    (error,) = one.taken()
    assert error.code == "internal"
    assert two.taken() == ["commit", ("end", ANSWER)]
