"""Resuming over `serve --workers 2`: a client cut off at any byte, on every worker, with every store.

For each cut one client begins a stream and is cut off; two more, one on each worker, resume where it was. In half of
the cuts the stream still runs then, and goes on when both have resumed.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

import pytest

from tests.faults.test_upstream import EXHAUSTIVE
from tests.integration.gateway import LAST_CHUNK, SSE_HEAD, Peer, Upstream
from tests.soak.answers import Answer, chat_frame
from tests.soak.checker import Form, Ledger
from tests.soak.client import Connection, Reply
from tests.soak.gateway import Gateway
from tests.wire import chunk

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="missing on this machine: /proc")

DELTAS: Final = 6
FORM: Final = Form("gai", "sse")
STREAM: Final = {"heartbeat": 0, "commit_after": 0}
TASKS: Final = 8
"""Cuts at a time."""
FIRST: Final = 1000
"""The number of the first stream. All numbers have as many digits, so that all bodies have one length."""
PATH: Final = "/api/v1/stream?format=gai&framing=sse"
END: Final = b'event: done\ndata: {"type":"done","finished":true}\n\n'
"""The event without an id, which follows the last one that has an id."""


class Story:
    """An upstream that sends as many deltas as the request says, and the rest when the test lets it go on."""

    def __init__(self) -> None:
        self.generated = 0
        self._goes: dict[int, asyncio.Event] = {}

    def go_on(self, number: int) -> asyncio.Event:
        """Returns the event that lets a stream go on."""
        return self._goes.setdefault(number, asyncio.Event())

    async def __call__(self, peer: Peer) -> None:
        while True:
            said = json.loads(await peer.request())["messages"][-1]["content"]
            number, count = map(int, said.split())
            self.generated += number != FIRST
            frames = [*map(answer_of(number).frame, range(DELTAS))]
            await peer.send(SSE_HEAD + b"".join(map(chunk, frames[:count])))
            await self.go_on(number).wait()
            end = chunk(chat_frame({}, "stop") + b"data: [DONE]\n\n")
            await peer.send(b"".join(map(chunk, frames[count:])) + end + LAST_CHUNK)


def answer_of(number: int) -> Answer:
    return Answer(number, DELTAS, 0, 0.0)  # its marks alone, which are of one length


@dataclass
class Server:
    """A gateway of two workers."""

    gateway: Gateway
    story: Story
    asked: int = FIRST

    async def begin(self, count: int) -> tuple[int, Connection, Reply]:
        """Begins a durable stream, whose upstream stops after some deltas."""
        self.asked += 1
        number = self.asked
        connection = await Connection.open(self.gateway.host)
        body = {"query": f"{number} {count}", "model": "m", "resumable": True}
        return number, connection, await connection.ask("POST", PATH, body)

    async def whole(self) -> bytes:
        """Returns the body of a stream that nothing cuts off."""
        number, connection, reply = await self.begin(DELTAS)
        self.story.go_on(number).set()
        body = await reply.rest()
        connection.close()
        return body

    async def connect(self) -> list[Connection]:
        """Returns a connection to each worker, which stays open."""
        found: dict[str, Connection] = {}
        while len(found) < 2:
            connection = await Connection.open(self.gateway.host)
            reply = await connection.ask("POST", PATH, {"query": f"{FIRST} 0", "model": "m"})
            await reply.rest()
            if found.setdefault(reply.headers["x-gai-stream-id"][22:], connection) is not connection:
                connection.close()
        return [*found.values()]


@pytest.fixture(params=["memory", "sqlite", "redis"])
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Server]:
    url = {"memory": "memory://", "sqlite": f"sqlite:///{tmp_path / 'store.db'}"}.get(request.param)
    if url is None:
        url = request.getfixturevalue("redis_server").url
    story = Story()
    story.go_on(FIRST).set()
    upstream = Upstream(story)
    await upstream.start()
    gateway = Gateway(tmp_path, store=url, workers=2, upstream=f"{upstream.url}/v1", stream=STREAM)
    try:
        await gateway.start()
        yield Server(gateway, story)
        assert await gateway.stop() == 0
        assert not gateway.bad_lines
    finally:
        await gateway.kill()
        await upstream.stop()


@dataclass(frozen=True)
class Cut:
    """After how many bytes of the body a client is cut off, how much the upstream has sent then, and how."""

    after: int
    deltas: int
    is_live: bool
    is_reset: bool


def cuts_of(body: bytes) -> list[Cut]:
    """Returns all cuts of a body, live and after the end; or some of them: at the end of each event, and within it."""
    random = Random(18)
    cuts = []
    at = 0
    for number, frame in enumerate(body.split(b"\n\n")[:-1]):
        size = len(frame) + 2
        inner = range(1, size + 1) if EXHAUSTIVE else (random.randint(1, size - 1), size)
        deltas = min(max(1, number), DELTAS)  # the first event comes with the first delta
        for after in inner:
            modes = (True, False) if EXHAUSTIVE else (random.random() < 0.5,)
            cuts += [Cut(at + after, deltas, is_live and number <= DELTAS, random.random() < 0.5) for is_live in modes]
        at += size
    assert at == len(body)
    return [Cut(0, 1, True, False), *cuts]


async def cut_off(server: Server, cut: Cut) -> tuple[str, Ledger, bytes]:
    """Begins a stream and breaks off; returns its id, what the client has, and the whole frames of that."""
    number, connection, reply = await server.begin(cut.deltas)
    if not cut.is_live:
        server.story.go_on(number).set()
    ledger, seen = Ledger(answer_of(number), FORM), b""
    while len(seen) < cut.after:
        data = await reply.read(cut.after - len(seen))
        seen += data
        ledger.feed(data)
    connection.reset() if cut.is_reset else connection.close()
    return reply.headers["x-gai-stream-id"], ledger, seen[: seen.rfind(b"\n\n") + 2] if b"\n\n" in seen else b""


async def resumed(connection: Connection, stream_id: str, ledger: Ledger) -> Reply:
    """Asks for the rest of a stream."""
    headers = {"last-event-id": f"{stream_id}.{ledger.place}"} if ledger.place else {}
    ledger.connected()
    return await connection.ask("GET", f"/api/v1/streams/{stream_id}?format=gai&framing=sse", headers=headers)


async def judge(server: Server, connections: list[Connection], cut: Cut) -> list[Ledger]:
    """Makes one cut; returns what the clients have who resumed, one on each worker."""
    stream_id, ledger, seen = await cut_off(server, cut)
    ledgers = [ledger.copy() for _ in connections]
    replies = [
        await resumed(connection, stream_id, each) for connection, each in zip(connections, ledgers, strict=True)
    ]
    server.story.go_on(ledger.answer.number).set()
    bodies = []
    for each, reply in zip(ledgers, replies, strict=True):
        body = await reply.rest()
        if each.ending is not None:  # a worker to which the end has not come yet sends it again, the other nothing
            assert without_retry(body) in (b"", END), cut
            continue
        assert reply.status == 200, (cut, body)
        each.feed(body)
        each.ended()
        bodies.append(without_retry(seen + body))
    again = await resumed(connections[0], stream_id, Ledger(ledger.answer, FORM))
    whole = without_retry(await again.rest())
    assert set(bodies) <= {whole}, cut
    return ledgers


def without_retry(body: bytes) -> bytes:
    """Returns a body without the field that the first frame of each response has."""
    return body.replace(b"retry: 3000\n", b"")


async def test_wherever_a_client_is_cut_off_every_worker_has_exactly_the_rest(
    server: Server, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    cuts = cuts_of(await server.whole())
    ledgers: list[Ledger] = []

    async def work(waiting: list[Cut]) -> None:
        connections = await server.connect()
        try:
            while waiting:
                ledgers.extend(await judge(server, connections, waiting.pop()))
        finally:
            for connection in connections:
                connection.close()

    waiting = [*cuts]
    async with asyncio.TaskGroup() as tasks:
        for _ in range(TASKS):
            tasks.create_task(work(waiting))
    assert len(ledgers) == 2 * len(cuts)
    lost, doubled = sum(each.lost for each in ledgers), sum(each.doubled for each in ledgers)
    with capsys.disabled():
        print(f"\n{request.node.callspec.id}: {len(ledgers)} cuts and resumes, lost {lost}, doubled {doubled}")
    assert not [each.faults for each in ledgers if each.faults]
    assert all(each.is_whole for each in ledgers)
    assert (lost, doubled) == (0, 0)
    assert server.story.generated == len(cuts) + 1, "nothing is generated again"


@pytest.mark.parametrize("server", ["sqlite"], indirect=True)
async def test_a_stream_that_has_just_begun_is_followed_on_every_worker(server: Server) -> None:
    """Before its first batch has come to the store."""
    here, there = await server.connect()
    for number in range(FIRST + 1, FIRST + 11):
        body = {"query": f"{number} 1", "model": "m"}
        begun = await here.ask("POST", "/api/v1/streams", body)
        stream_id = json.loads(await begun.rest())["id"]
        ledger = Ledger(answer_of(number), FORM)
        reply = await resumed(there, stream_id, ledger)
        assert reply.status == 200
        server.story.go_on(number).set()
        ledger.feed(await reply.rest())
        ledger.ended()
        assert (ledger.faults, ledger.is_whole) == ("", True)
        here, there = there, here
    here.close()
    there.close()
