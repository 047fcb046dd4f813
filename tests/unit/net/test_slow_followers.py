"""`net/logs/publication.py` with its followers and its log: nothing is dropped that somebody still waits for."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gai_fast.formats import get_format
from gai_fast.model.limits import KIB
from gai_fast.model.settings import StoreSettings, StreamSettings
from gai_fast.net.logs.follower import Follower, Followers
from gai_fast.net.logs.publication import Publication
from gai_fast.net.logs.view import Representation, view_of
from gai_fast.stores import Ending, LogHeader, StreamLog
from gai_fast.stores.memory import LogMemory
from tests.limits import LIMITS
from tests.unit.net.fakes import FakeClient, FakeTime

KEPT = 2048 * KIB
TEXT = 20_000


class Upstream:
    """A session that a test can stop."""

    metrics = None
    has_content = True

    def __init__(self) -> None:
        self.is_paused = False

    def pause(self) -> None:
        self.is_paused = True

    def resume(self) -> None:
        self.is_paused = False


class Reader(FakeClient):
    """A client whose connection takes so many bytes at a time."""

    def __init__(self, buffer: int) -> None:
        super().__init__()
        self.follower: Follower | None = None
        self.unsent = 0
        self.buffer = buffer

    def write(self, pieces: list[bytes]) -> None:
        super().write(pieces)
        self.unsent += sum(map(len, pieces))
        if self.unsent > self.buffer and self.follower is not None:
            self.follower.pause()

    def drain(self) -> None:
        self.unsent = 0
        if self.follower is not None:
            self.follower.resume()


class Gate:
    """Holds what is appended to a log until a test publishes it, as a store that must write it first."""

    def __init__(self, log: StreamLog) -> None:
        self.log = log
        self.pieces: list[tuple[bytes, int]] = []

    @property
    def held(self) -> int:
        return sum(len(piece) + LIMITS.log_piece_cost for piece, _ in self.pieces)

    def append(self, piece: bytes, last_seq: int) -> None:
        self.pieces.append((piece, last_seq))

    def end(self, ending: Ending) -> None:
        self.log.finish(ending)

    def publish(self) -> None:
        pieces, self.pieces = self.pieces, []
        for piece, last_seq in pieces:
            self.log.publish(piece, last_seq)


class Stream:
    """A durable stream and its followers; each turn of the loop is taken by itself."""

    def __init__(self, format: str = "gai") -> None:
        self.time = FakeTime()
        self.form = Representation(get_format(format), "sse")
        memory = LogMemory(StoreSettings(max_stream_bytes=KEPT), cast(Any, self.time))
        self.log = memory.create(LogHeader("s", "", "m", format, "sse"))
        self.encoder = SimpleNamespace(seq=0)
        runner = SimpleNamespace(timers=self.time)
        self.publication = Publication(cast(Any, runner), self.log, self.encoder, StreamSettings())
        self.upstream = Upstream()
        self.publication.begin(cast(Any, self.upstream))

    def follow(self, buffer: int) -> Reader:
        client = Reader(buffer)
        client.follower = Follower(
            self.log,
            cast(Any, client),
            view_of(self.log.header, self.form, 0, lambda: 0),
            0,
            StreamSettings(heartbeat=0),
            self.publication,
            is_first=False,
            is_answer=False,
            home=Followers(),
            timers=cast(Any, self.time),
            loop=cast(Any, self.time),
        )
        client.follower.begin()
        return client

    def read(self, count: int) -> None:
        """One read of the upstream, unless it is paused."""
        if self.upstream.is_paused:
            return
        frames = b""
        for _ in range(count):
            self.encoder.seq += 1
            data = {"type": "text.delta", "seq": self.encoder.seq, "text": "x" * TEXT}
            frames += b"event: text.delta\nid: s.%d\ndata: %b\n\n" % (self.encoder.seq, json.dumps(data).encode())
        assert len(frames) < LIMITS.log_headroom
        self.publication.log_frames(frames, self.encoder.seq)

    def turn(self) -> None:
        """Runs what was scheduled before it."""
        due = [timer for at, timer in self.time.waiting if at <= self.time.now]
        self.time.waiting = [item for item in self.time.waiting if item[1] not in due]
        for timer in due:
            callback, timer.callback = timer.callback, None
            if callback is not None:
                callback()


@pytest.mark.parametrize("reads", [1, 4, 40])
@pytest.mark.parametrize("buffers", [[1], [512 * KIB], [1, 512 * KIB]])
def test_where_none_keeps_up_the_upstream_waits_for_all_and_goes_on(reads: int, buffers: list[int]) -> None:
    """The upstream is read several times for each part of the log that a follower reads."""
    stream = Stream()
    clients = [stream.follow(buffer) for buffer in buffers]
    followers = [cast(Follower, client.follower) for client in clients]
    while stream.log.last_seq < 6 * KEPT // TEXT:
        for _ in range(reads):
            if any(follower.is_slow for follower in followers) and not all(follower.is_slow for follower in followers):
                break  # the upstream goes on for the follower that keeps up, whatever the other loses
            stream.read(12)
        for client in clients:
            client.drain()
        stream.turn()
    while any(follower.position < stream.log.last_seq for follower in followers):
        for client in clients:
            client.drain()
        stream.turn()
    assert not stream.upstream.is_paused
    for client in clients:
        position = 0
        for event in events(client):
            assert event.get("from_seq", event["seq"]) == position + 1
            assert event["type"] == "text.delta"
            position = event["seq"]
        assert position == stream.log.last_seq


def test_what_a_store_must_write_first_counts_before_anybody_can_read_it() -> None:
    """In a format whose dropped text is not kept; else the room for that text may hide it."""
    stream = Stream("openai")
    gate = stream.log.gate = Gate(stream.log)
    client = stream.follow(1)
    follower = cast(Follower, client.follower)
    while stream.log.last_seq < 6 * KEPT // TEXT:
        while gate.held < LIMITS.journal_stream and not stream.upstream.is_paused:
            stream.read(12)
        stream.read(12)
        gate.publish()
        assert stream.log.lost <= follower.position
        client.drain()
        stream.turn()


def events(client: Reader) -> list[dict[str, Any]]:
    body = b"".join(call for call in client.calls if isinstance(call, bytes))
    return [json.loads(line[6:]) for line in body.split(b"\n") if line.startswith(b"data: ")]
