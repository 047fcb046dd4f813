"""`gai_fast/net/logs/follower.py`: one client of a log: its place, its head, its pace, its end."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Literal, cast

import pytest

from gai_fast.formats import get_format
from gai_fast.model.changes import Changes
from gai_fast.model.errors import Error
from gai_fast.model.metrics import StreamMetrics
from gai_fast.model.settings import StoreSettings, StreamSettings
from gai_fast.net.logs.follower import Follower, Followers
from gai_fast.net.logs.publication import Follows, Published
from gai_fast.net.logs.view import Representation, view_of
from gai_fast.stores import Ending, LogHeader
from gai_fast.stores.memory import LogMemory
from tests.limits import LIMITS
from tests.unit.net.fakes import FakeClient, FakeTime

AT = 1_790_000_000_000
SSE = Representation(get_format("gai"), "sse")
OPENAI = Representation(get_format("openai"), "sse")


class FakePublication(Published):
    def __init__(self) -> None:
        self.calls: list[object] = []
        self.balanced: Callable[[], None] = lambda: None

    def add(self, follower: Follows) -> None:
        self.calls.append("joined")

    def remove(self, follower: Follows) -> None:
        self.calls.append("left")

    def parted(self, follower: Follows) -> None:
        self.calls.append("parted")

    def balance(self) -> None:
        self.calls.append("balance")
        self.balanced()

    def metrics(self) -> StreamMetrics:
        return StreamMetrics(duration=3.0)

    def changes(self) -> Changes | None:
        return None


class Stream:
    """A log, and followers of it."""

    def __init__(self, **store: Any) -> None:
        self.time = FakeTime()
        self.memory = LogMemory(StoreSettings(**store), cast(Any, self.time))
        self.log = self.memory.create(LogHeader("s", "", "m", "gai", "sse"))
        self.publication = FakePublication()
        self.home = Followers()

    def say(self, count: int = 1, size: int = 10) -> bytes:
        """Returns one piece of so many events."""
        first = self.log.last_seq + 1
        piece = b"".join(frame(seq, size) for seq in range(first, first + count))
        self.log.append(piece, first + count - 1)
        return piece

    def follow(
        self,
        after: int = 0,
        form: Representation = SSE,
        *,
        publication: bool = False,
        is_first: bool = False,
        client: FakeClient | None = None,
        view: Any = None,
        places: int | None = None,
        **stream: Any,
    ) -> tuple[Follower, FakeClient]:
        client = client or FakeClient()
        follower = Follower(
            self.log,
            client,
            view or view_of(self.log.header, form, after, lambda: AT),
            after,
            StreamSettings(**stream),
            cast(Any, self.publication) if publication else None,
            is_first=is_first,
            is_answer=is_first,
            places=places,
            home=self.home,
            timers=cast(Any, self.time),
            loop=cast(Any, self.time),
        )
        follower.begin()
        return follower, client


def frame(seq: int, size: int = 10) -> bytes:
    data = b'{"type":"text.delta","seq":%d,"text":"%b"}' % (seq, b"x" * size)
    return b"event: text.delta\nid: s.%d\ndata: %b\n\n" % (seq, data)


def events(body: bytes) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in body.split(b"\n") if line.startswith(b"data: ")]


# ---- following -------------------------------------------------------------------------------------------------------


def test_a_follower_that_keeps_up_is_sent_each_piece_as_it_is_logged() -> None:
    stream = Stream()
    _, client = stream.follow()
    first, second = stream.say(), stream.say(3)
    stream.log.end(Ending("finished"))
    assert client.taken() == ["commit", first, second, ("end", b"")]
    assert stream.time.armed == 1  # the log's time to live


def test_a_late_one_is_sent_what_it_lacks_and_then_what_comes() -> None:
    stream = Stream()
    said = stream.say(2) + stream.say(2)
    _, whole = stream.follow()
    _, rest = stream.follow(after=3)
    _, nothing = stream.follow(after=4)
    live = stream.say()
    assert whole.taken() == ["commit", said, live]
    assert rest.taken() == ["commit", frame(4), live]
    assert nothing.taken() == ["commit", live]


def test_one_that_comes_after_the_end_is_sent_all_at_once() -> None:
    stream = Stream()
    said = stream.say(5)
    stream.log.end(Ending("finished"))
    _, client = stream.follow(after=2)
    assert client.taken() == ["commit", b"".join(frame(seq) for seq in (3, 4, 5)), ("end", b"")]
    assert said


def test_a_long_log_is_sent_a_part_in_each_turn() -> None:
    stream = Stream(max_stream_bytes=64 << 20)
    said = b"".join(stream.say(10, size=1000) for _ in range(100))
    stream.log.end(Ending("finished"))
    _, client = stream.follow()
    assert len(client.calls) == 2
    stream.time.advance(0)
    commit, *parts, end = client.taken()
    assert (commit, b"".join(parts), end) == ("commit", said, ("end", b""))
    assert len(parts) > 10
    assert all(len(part) < LIMITS.follower_read + 20_000 for part in parts)


def test_pieces_that_come_while_it_catches_up_come_after_those_before() -> None:
    stream = Stream(max_stream_bytes=64 << 20)
    said = b"".join(stream.say(10, size=1000) for _ in range(20))
    _, client = stream.follow()
    said += stream.say()
    stream.time.advance(0)
    said += stream.say()
    assert b"".join(client.taken()[1:]) == said


def test_one_that_is_ahead_waits_and_is_sent_only_what_it_lacks() -> None:
    stream = Stream()
    stream.say()
    _, client = stream.follow(after=4)
    stream.say(2)
    assert client.taken() == []
    stream.say(3)
    assert client.taken() == ["commit", frame(5) + frame(6)]
    later = stream.say(2)
    assert client.taken() == [later]


def test_one_whose_place_the_stream_never_reached_is_reported() -> None:
    for is_broken in (False, True):
        stream = Stream()
        stream.say()
        _, client = stream.follow(after=4)
        if is_broken:
            stream.log.break_off(Error("network", reason="worker_lost"))
        else:
            stream.log.end(Ending("finished"))
        commit_or_end = client.taken()
        (_, result) = commit_or_end[-1]
        assert b'"type":"error","seq":5,' in result
        assert b'"reason":"log_behind"' in result
        assert result.endswith(b'{"type":"done","finished":false}\n\n')


def test_one_that_is_ahead_of_a_copy_which_the_store_hides_is_asked_to_come_back() -> None:
    """It got the error of a log that has ended before reaching its event."""
    stream = Stream()
    stream.say()
    _, client = stream.follow(after=4)
    problem = Error("overloaded", reason="store")
    stream.log.break_off(problem)
    assert client.taken() == [problem]


@pytest.mark.parametrize("reason", ["store", "store_sealed", "log_damaged"])
def test_what_cannot_be_read_is_the_response_itself_unless_events_were_sent(reason: str) -> None:
    """It was 200 and, in the dialect of Responses, a response that had failed."""
    problem = Error("overloaded", reason=reason)
    for is_sent in (False, True):
        stream = Stream()
        if is_sent:
            stream.say()
        _, client = stream.follow()
        client.taken()
        stream.log.break_off(problem)
        if is_sent:
            (_, result) = client.taken()[-1]
            assert b'"type":"error",' in result
        else:
            assert client.taken() == [problem]


@pytest.mark.parametrize("form", [SSE, OPENAI], ids=["own", "another form"])
@pytest.mark.parametrize("logged", [1, 3], ids=["is ahead", "has it all"])
@pytest.mark.parametrize("state", ["finished", "cancelled", "failed"])
def test_one_that_has_the_last_event_before_the_end_is_known_is_reported_the_end(
    state: Literal["finished", "cancelled", "failed"], logged: int, form: Representation
) -> None:
    """As after the `finish`, on a worker whose copy of the log is behind, or has no end yet."""
    stream = Stream()
    stream.say(logged)
    _, client = stream.follow(after=3, form=form)
    if logged < 3:
        stream.say(3 - logged)
    stream.log.end(Ending(state, error=Error("timeout").payload() if state == "failed" else None))
    commit, (_, result) = client.taken()
    assert commit == "commit"
    if form is OPENAI:
        assert result.startswith(b'data: {"error":' if state == "failed" else b"data: [DONE]\n\n")
    else:  # the `error` is not repeated
        assert result == b'event: done\ndata: {"type":"done","finished":%b}\n\n' % (
            b"false" if state == "failed" else b"true"
        )
    assert b"id:" not in result
    assert not stream.home


@pytest.mark.parametrize("is_over", [True, False])
def test_a_stream_that_has_failed_without_a_frame_is_reported_as_it_failed(is_over: bool) -> None:
    stream = Stream()
    ending = Ending("failed", error=Error("overloaded", "too many", reason="streams").payload())
    if is_over:
        stream.log.end(ending)
    _, client = stream.follow()
    stream.log.end(ending)
    _, (_, result) = client.taken()
    error, finished = events(result)
    assert (error["type"], error["seq"], error["error"]["code"]) == ("error", 1, "overloaded")
    assert finished == {"type": "done", "finished": False}


# ---- the head, and keep-alives ---------------------------------------------------------------------------------------


def test_the_head_waits_for_the_first_piece_or_commit_after() -> None:
    stream = Stream()
    _, client = stream.follow(commit_after=2, heartbeat=15)
    stream.time.advance(1.9)
    assert client.taken() == []
    stream.time.advance(0.2)
    assert client.taken() == ["commit", "flush"]
    stream.time.advance(16)
    assert client.taken() == [b": ping\n"]


def test_keep_alives_are_each_followers_own_and_stop_with_it() -> None:
    stream = Stream()
    stream.say()
    _, busy = stream.follow(heartbeat=15)
    follower, idle = stream.follow(after=1, heartbeat=15)
    stream.time.advance(10)
    piece = stream.say()
    stream.time.advance(10)
    assert busy.taken()[2:] == [piece]
    assert idle.taken() == ["commit", "flush", piece]
    follower.client_lost()
    stream.time.advance(10)
    assert (busy.taken(), idle.taken()) == ([b": ping\n"], [])


def test_a_paused_client_gets_no_keep_alives() -> None:
    stream = Stream()
    stream.say()
    follower, client = stream.follow(heartbeat=15)
    follower.pause()
    client.taken()
    stream.time.advance(100)
    assert client.taken() == []


# ---- pace ------------------------------------------------------------------------------------------------------------


def test_a_slow_client_holds_nothing_but_its_place() -> None:
    stream = Stream()
    follower, client = stream.follow(publication=True)
    first = stream.say()
    follower.pause()
    rest = stream.say(2) + stream.say(2)
    stream.log.end(Ending("finished"))
    assert client.taken() == ["commit", first]
    assert (follower.position, follower.is_slow) == (1, True)
    follower.resume()
    stream.time.advance(0)
    joined, end = client.taken()
    assert end == ("end", b"")
    assert joined.startswith(b"event: text.delta\nid: s.5\n")
    assert events(joined) == [{"type": "text.delta", "seq": 5, "text": "x" * 40, "from_seq": 2}]
    assert len(joined) < len(rest)
    assert stream.publication.calls == ["joined", "balance", "left"]


def test_one_that_reads_what_it_missed_is_slow_until_it_has_all_of_it() -> None:
    """And says so after each part, since the upstream may wait for it: rule 2 of the publication."""
    stream = Stream(max_stream_bytes=64 << 20)
    follower, _ = stream.follow(publication=True)
    follower.pause()
    for _ in range(50):
        stream.say(10, size=1000)
    seen: list[tuple[int, bool]] = []
    stream.publication.balanced = lambda: seen.append((follower.position, follower.is_slow))
    follower.resume()
    stream.time.advance(0)
    positions = [position for position, _ in seen]
    assert positions == sorted(set(positions))
    assert len(positions) > 5
    assert [is_slow for _, is_slow in seen] == [True] * (len(seen) - 1) + [False]
    assert positions[-1] == 500


def test_one_that_comes_late_is_slow_until_it_has_what_came_before_it() -> None:
    stream = Stream(max_stream_bytes=64 << 20)
    for _ in range(50):
        stream.say(10, size=1000)
    follower, _ = stream.follow(publication=True)
    assert follower.is_slow
    stream.time.advance(0.1)
    assert (follower.position, follower.is_slow) == (500, False)
    assert stream.publication.calls[0] == "joined"
    assert stream.publication.calls[-1] == "balance"


def test_one_that_has_caught_up_is_sent_each_piece_again() -> None:
    stream = Stream()
    follower, client = stream.follow()
    follower.pause()
    stream.say(3)
    follower.resume()
    client.taken()
    piece = stream.say(2)
    assert client.taken() == [piece]


def test_one_that_is_paused_again_while_it_catches_up_stops_there() -> None:
    stream = Stream(max_stream_bytes=64 << 20)
    follower, client = stream.follow()
    follower.pause()
    said = b"".join(stream.say(10, size=1000) for _ in range(50))
    follower.resume()
    follower.pause()
    stream.time.advance(1)
    part = client.taken()
    assert len(part) == 2
    follower.resume()
    stream.time.advance(1)
    result = events(b"".join(part[1:] + client.taken()))
    assert [event["from_seq"] for event in result] == [1] + [event["seq"] + 1 for event in result[:-1]]
    assert "".join(event["text"] for event in result) == "x" * 1000 * 500
    assert said.count(b"event:") == result[-1]["seq"] == follower.position == 500


def test_an_end_after_all_was_sent_needs_no_resuming() -> None:
    stream = Stream()
    follower, client = stream.follow()
    stream.say()
    follower.pause()
    stream.log.end(Ending("finished"))
    assert client.taken()[-1] == ("end", b"")
    follower.resume()
    follower.client_lost()
    assert client.taken() == []


def test_a_log_that_ends_while_its_last_piece_is_sent_is_sent_whole_to_all() -> None:
    """A client whose connection is lost by that write may be the last one whose leaving ends the stream."""

    class Lost(FakeClient):
        def write(self, pieces: list[bytes]) -> None:
            if stream.log.last_seq == 2:
                stream.log.end(Ending("finished"))

    stream = Stream()
    stream.follow(client=Lost())
    _, client = stream.follow()
    first, last = stream.say(), stream.say()
    assert client.taken() == ["commit", first, last, ("end", b"")]


# ---- what the log no longer has --------------------------------------------------------------------------------------


def test_what_is_gone_is_reported_and_the_rest_follows() -> None:
    stream = Stream(max_stream_bytes=32 << 10)
    stream.say(5)
    while not stream.log.read(0, 1).lost:
        stream.say(10)
    lost = stream.log.read(0, 1).lost
    _, client = stream.follow(after=2)
    stream.time.advance(0)
    result = b"".join(client.taken()[1:])
    gap, _, rest = result.partition(b"\n\n")
    assert gap.startswith(b"event: stream.gap\nid: s.%d\n" % lost)
    assert b'"from":3,"to":%d' % lost in gap
    assert b'"text":"%b"' % (b"x" * 10 * lost) in gap or b'"text"' in gap
    assert rest.startswith(b"event: text.delta\nid: s.%d\n" % (lost + 1))


def test_a_format_without_a_word_for_it_ends_with_an_error() -> None:
    stream = Stream(max_stream_bytes=32 << 10)
    while not stream.log.read(0, 1).lost:
        stream.say(10)
    _, client = stream.follow(form=OPENAI)
    calls = client.taken()
    assert calls[0] == "commit"
    (_, result) = calls[-1]
    assert b"the log no longer has" in result
    assert b"[DONE]" not in result
    stream.say()
    assert client.taken() == []


# ---- ends ------------------------------------------------------------------------------------------------------------


def test_a_log_whose_writer_is_gone_ends_with_an_error_of_the_followers_own() -> None:
    stream = Stream()
    stream.say(3)
    _, client = stream.follow(after=1)
    _, openai = stream.follow(form=OPENAI)
    stream.log.break_off(Error("network", "gone", reason="worker_lost"))
    (_, result) = client.taken()[-1]
    assert b"event: error\ndata: " in result
    assert b'"seq":4,' in result
    assert b'"reason":"worker_lost"' in result
    assert result.endswith(b'event: done\ndata: {"type":"done","finished":false}\n\n')
    (_, result) = openai.taken()[-1]
    assert result.startswith(b'data: {"error":')
    _, late = stream.follow(after=3)
    assert late.taken()[-1][0] == "end"


def test_what_a_format_cannot_tell_ends_its_follower_with_an_error_and_no_other() -> None:
    stream = Stream()
    _, openai = stream.follow(form=OPENAI)
    _, gai = stream.follow()
    stream.say()
    piece = b'event: stream.reset\nid: s.2\ndata: {"type":"stream.reset","seq":2,"reason":"network"}\n\n'
    stream.log.append(piece, 2)
    (_, result) = openai.taken()[-1]
    assert b"began again" in result
    assert b"[DONE]" not in result
    assert gai.taken()[-1] == piece
    assert stream.log.watchers == 1


def test_an_early_failure_is_the_answer_while_the_head_is_held() -> None:
    stream, error = Stream(), Error("rate_limited")
    follower, client = stream.follow(publication=True, is_first=True)
    follower.fail(error)
    stream.say()
    stream.log.end(Ending("failed"))
    assert client.taken() == [error]
    assert stream.publication.calls == ["joined", "left"]
    assert follower.metrics == StreamMetrics(duration=3.0)
    committed, client = stream.follow()
    committed.fail(error)
    assert error not in client.taken()


def test_a_client_that_leaves_leaves_the_log_and_takes_figures_only_if_it_began_the_stream() -> None:
    stream = Stream()
    first, one = stream.follow(publication=True, is_first=True)
    other, two = stream.follow(publication=True)
    for follower in (first, other, first):
        follower.client_lost()
    assert stream.log.watchers == 0
    stream.say()
    assert (one.taken(), two.taken()) == ([], [])
    assert (first.metrics, other.metrics) == (StreamMetrics(duration=3.0), None)
    assert stream.publication.calls.count("left") == 2
    assert stream.time.armed == 0
    first.resume()
    assert other.measured().duration == 0.0


# ---- bugs ------------------------------------------------------------------------------------------------------------


class Broken(FakeClient):
    """A response that fails in one of its methods."""

    def __init__(self, fails: str) -> None:
        super().__init__()
        self.fails = fails

    def _maybe(self, name: str) -> None:
        if self.fails == name:
            raise RuntimeError("a bug")

    def commit(self) -> None:
        self._maybe("commit")
        super().commit()

    def flush(self) -> None:
        self._maybe("flush")
        super().flush()

    def write(self, pieces: list[bytes]) -> None:
        self._maybe("write")
        super().write(pieces)

    def end(self, pieces: list[bytes]) -> None:
        self._maybe("end")
        super().end(pieces)


@pytest.mark.parametrize("fails", ["commit", "flush", "write", "end"])
def test_a_bug_ends_its_own_follower_and_no_other(fails: str, caplog: pytest.LogCaptureFixture) -> None:
    stream = Stream()
    broken = Broken(fails)
    stream.follow(client=broken, publication=True, commit_after=1)
    _, other = stream.follow(commit_after=100)
    if fails == "flush":
        stream.time.advance(2)
    piece = stream.say()
    stream.log.end(Ending("finished"))
    assert other.taken() == ["commit", piece, ("end", b"")]
    last = broken.calls[-1]
    assert (last if isinstance(last, Error) else last[1]).code == "internal"
    assert stream.publication.calls[-1] == "left"
    assert "a follower of stream s failed" in caplog.text


class WordlessView:
    """A view whose form has no word for what it is fed, nor, for a bug, for the error that tells so."""

    start = 0

    def feed(self, piece: bytes) -> None:
        raise Error("provider_unavailable", "this form has no word for it")

    def event(self, event: object) -> None:
        raise RuntimeError("a bug")

    def take_pieces(self) -> list[bytes]:
        return []


def test_an_error_that_cannot_be_written_ends_its_own_follower_and_no_other(caplog: pytest.LogCaptureFixture) -> None:
    """Neither the stream nor the followers behind it hear of the bug."""
    stream = Stream()
    _, client = stream.follow(view=WordlessView())
    _, other = stream.follow()
    piece = stream.say()
    assert other.taken() == ["commit", piece]
    assert isinstance(client.calls[-1], Error)
    assert client.calls[-1].code == "internal"
    assert "a follower of stream s failed" in caplog.text
    assert stream.log.watchers == 1


def test_a_bug_while_it_catches_up_ends_it(caplog: pytest.LogCaptureFixture) -> None:
    stream = Stream()
    stream.say()
    broken = Broken("write")
    stream.follow(client=broken)
    assert broken.calls[-1][0] == "abort"
    follower, client = stream.follow()
    follower.pause()
    stream.say()
    client.write = Broken("write").write
    follower.resume()
    assert client.calls[-1][0] == "abort"
    assert stream.log.watchers == 0
    assert caplog.text.count("a bug of the gateway") == 2


# ---- the end of the server -------------------------------------------------------------------------------------------


def sent(client: FakeClient) -> bytes:
    """Returns all bytes that a client was sent."""
    return b"".join(each for each in client.calls if isinstance(each, bytes))


def is_cut(client: FakeClient) -> bool:
    """Returns whether the last thing that happened to a client is that it was cut off."""
    return isinstance(client.calls[-1], tuple) and client.calls[-1][0] == "abort"


def test_a_follower_is_cut_off_after_a_last_frame_that_says_when_to_come_back() -> None:
    stream = Stream()
    follower, client = stream.follow(publication=True, is_first=True)
    before = stream.say()
    assert list(stream.home) == [follower]
    follower.part(1234, stream.time.time() + 1)
    first, last = frame(2, 10), frame(3, 10)
    stream.log.append(first + last, 3)
    stream.say()
    at = last.index(b"data: ")
    assert sent(client) == before + first + last[:at] + b"retry: 1234\n" + last[at:]
    assert not is_cut(client)
    stream.time.advance(LIMITS.parting)
    assert is_cut(client)
    assert not stream.home
    assert "parted" in stream.publication.calls
    assert "left" not in stream.publication.calls, "its leaving must not end the stream"
    assert follower.metrics is not None


def test_nothing_follows_the_frame_that_says_when_to_come_back_however_much_the_log_has() -> None:
    """A slow client was sent more frames, whose numbers it came back with, or lost."""
    stream = Stream()
    follower, client = stream.follow(publication=True, is_first=True)
    stream.say()
    follower.pause()
    for seq in range(2, 200):
        stream.log.append(frame(seq, 2000), seq)
    follower.part(1234, stream.time.time() + 1)
    follower.resume()
    result = sent(client)
    assert result.count(b"retry: 1234\n") == 1
    assert stream.log.last_seq > follower.position
    stream.time.advance(0)
    follower.pause()
    follower.resume()
    stream.time.advance(0)
    stream.log.end(Ending("finished"))
    assert sent(client) == result
    stream.time.advance(LIMITS.parting)
    assert is_cut(client)


def test_a_follower_without_a_frame_in_time_is_cut_off_as_it_is() -> None:
    stream = Stream()
    follower, client = stream.follow()
    before = stream.say()
    follower.part(1234, stream.time.time() + 1)
    stream.time.advance(1)
    assert sent(client) == before
    assert is_cut(client)


def test_a_follower_whose_stream_ends_before_it_is_cut_off_gets_that_end() -> None:
    stream = Stream()
    follower, client = stream.follow()
    stream.say()
    before = stream.time.armed
    follower.part(1234, stream.time.time() + 1)
    stream.log.end(Ending("finished"))
    assert stream.time.armed <= before, "nothing is left to be done"
    stream.time.advance(2)
    assert client.calls[-1] == ("end", b"")
    assert not stream.home


# ---- the places of a caller ------------------------------------------------------------------------------------------


def test_above_the_callers_places_the_oldest_follower_of_the_stream_ends_with_the_reason() -> None:
    stream = Stream()
    said = stream.say()
    clients = [stream.follow(places=2, publication=True)[1] for _ in range(3)]
    first, *others = clients
    commit, sent, (ended, rest) = first.taken()
    assert (commit, sent, ended) == ("commit", said, "end")
    error, end = events(rest)
    assert (error["error"]["code"], error["error"]["reason"]) == ("rate_limited", "streams")
    assert end["finished"] is False
    live = stream.say()
    assert [client.taken() for client in others] == [["commit", said, live]] * 2
    assert len(stream.home) == 2


def test_a_stream_that_is_not_followed_yet_needs_a_free_place() -> None:
    stream = Stream()
    other = stream.log.header._replace(stream_id="another")
    stream.home.check(other, 1)
    follower, _ = stream.follow(places=1)
    stream.home.check(stream.log.header, 1)  # its client comes back
    stream.home.check(other._replace(caller="bob"), 1)
    with pytest.raises(Error, match="streams = 1") as refused:
        stream.home.check(other, 1)
    assert (refused.value.status, refused.value.reason, refused.value.retry_after_ms) == (429, "streams", 1000)
    follower.client_lost()
    stream.home.check(other, 1)
