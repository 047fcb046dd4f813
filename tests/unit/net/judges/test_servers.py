"""`gai_fast/net/judges/servers.py`: the request, what of its response is read, and the pool of a former judge."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from gai_fast.guards.verdicts import Failed, JudgeVerdict, Question
from gai_fast.model.settings import Peer
from gai_fast.net.judges.dialects import hook_body, read_json, read_verdict
from gai_fast.net.judges.servers import ServerWay
from gai_fast.runtime.timers import TimerWheel
from tests.integration.gateway import Net
from tests.integration.gateway import Peer as Connection
from tests.waiting import SECONDS, until

ASKED = Question("policy", "output", "text", "One two", "m", "anna", "s1")
SECRET = "what-nobody-may-read"


def read(body: bytes, question: Question) -> JudgeVerdict:
    return read_verdict(read_json(body), question)


def unwanted(answer: JudgeVerdict | Failed) -> None:
    raise AssertionError("a question that was given up has an answer")


Make = Callable[..., ServerWay]


@pytest.fixture
async def net() -> AsyncIterator[Net]:
    async with AsyncExitStack() as stack:
        yield Net(stack)


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    made: list[ServerWay] = []
    loop = asyncio.get_running_loop()
    timers = TimerWheel(loop)

    def way(url: str, path: str = "/check", key: str = "url", **headers: str) -> ServerWay:
        way = ServerWay(Peer(url), path, [*headers.items()], hook_body, read, set(), timers, loop, key)
        made.append(way)
        return way

    yield way
    for each in made:
        await each.close()
    assert len(timers) == 0


async def asked(way: ServerWay) -> JudgeVerdict | Failed:
    answer: asyncio.Future[JudgeVerdict | Failed] = asyncio.get_running_loop().create_future()
    freed: list[bool] = []
    way.ask(ASKED, answer.set_result, lambda: freed.append(True))
    async with asyncio.timeout(SECONDS):
        found = await answer
    assert freed == [True]
    return found


async def test_a_text_is_posted_with_the_headers_of_the_configuration(net: Net, make: Make) -> None:
    async def handler(peer: Connection) -> None:
        while True:
            await peer.request()
            await peer.answer("200 OK", b'{"flagged": true, "category": "x"}')

    server = await net.upstream(handler)
    way = make(server.url, authorization=SECRET, **{"Content-Type": "application/json; charset=utf-8"})
    assert await asked(way) == await asked(way) == JudgeVerdict(True, "x")
    (peer,) = server.peers
    head = peer.head.decode().lower()
    assert head.startswith("post /check http/1.1\r\n")
    assert f"authorization: {SECRET}\r\n" in head
    assert head.count("content-type: ") == 1
    assert json.loads(peer.body) == ASKED.members()


@pytest.mark.parametrize(
    ("status", "counts"),
    [
        ("204 No Content", True),
        ("201 Created", True),
        ("400 Bad Request", False),
        ("401 Unauthorized", False),
        ("404 Not Found", False),
        ("408 Request Timeout", True),
        ("429 Too Many Requests", False),
        ("500 Internal Server Error", True),
        ("503 Service Unavailable", True),
    ],
)
async def test_another_status_is_a_failure(net: Net, make: Make, status: str, counts: bool) -> None:
    async def handler(peer: Connection) -> None:
        await peer.request()
        await peer.answer(status, b'{"flagged": false}')

    found = await asked(make((await net.upstream(handler)).url))
    assert found == Failed("status", f"it answers with status {status[:3]}", counts)


@pytest.mark.parametrize("key", ["url", "base_url"])
async def test_a_failure_names_the_key_that_has_the_address(net: Net, make: Make, key: str) -> None:
    async def handler(peer: Connection) -> None:
        await peer.request()
        await peer.send(b"nobody speaks HTTP here\r\n\r\n")

    found = await asked(make((await net.upstream(handler)).url, key=key))
    assert isinstance(found, Failed)
    assert found.text.endswith(f": check {key}"), found.text


async def test_a_question_that_is_given_up_closes_its_connection(net: Net, make: Make) -> None:
    server = await net.upstream(Connection.until_gone)
    way = make(server.url)
    freed: list[bool] = []
    give_up = way.ask(ASKED, unwanted, lambda: freed.append(True))
    await until(lambda: server.peers)
    give_up()
    give_up()
    assert freed == [True]
    await server.until_finished()


async def test_the_end_gives_all_up(net: Net, make: Make) -> None:
    server = await net.upstream(Connection.until_gone)
    way = make(server.url)
    freed: list[bool] = []
    for _ in range(3):
        way.ask(ASKED, unwanted, lambda: freed.append(True))
    await until(lambda: len(server.peers) == 3)
    await way.close()
    await server.until_finished(3)
    assert freed == [True] * 3


async def test_a_former_judge_closes_its_connections_after_each_answer(net: Net, make: Make) -> None:
    async def handler(peer: Connection) -> None:
        while True:
            await peer.request()
            await peer.answer("200 OK", b'{"flagged": false}')

    server = await net.upstream(handler)
    way = make(server.url)
    assert await asked(way) == JudgeVerdict(False)
    way.retire()
    await server.until_finished(1)
    assert await asked(way) == JudgeVerdict(False), "a stream of the former configuration"
    await server.until_finished(2)


@pytest.mark.parametrize(
    ("url", "path", "headers", "text"),
    [
        ("ftp://127.0.0.1", "/", {}, "http"),
        ("http://127.0.0.1", "/a b", {}, "path"),
        ("http://127.0.0.1", "/", {"x": f"{SECRET}\r\n"}, "header 'x'"),
        ("http://127.0.0.1", "/", {"host": SECRET}, "host"),
    ],
)
async def test_what_cannot_be_sent_is_refused_at_the_start(
    make: Make, url: str, path: str, headers: Any, text: str
) -> None:
    with pytest.raises(ValueError, match=text) as caught:
        make(url, path, **headers)
    assert SECRET not in str(caught.value)


async def test_no_secret_is_shown(make: Make) -> None:
    way = make("http://127.0.0.1:1", authorization=SECRET)
    found = await asked(way)
    assert isinstance(found, Failed)
    assert found.fault == "network"
    assert SECRET not in f"{found!r} {found.text} {way!r}"
