"""A limit of spend holds while streams run: with each store, over workers, and over servers of one Redis."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from gai_fast.cli.mock.command import Mock
from tests.integration.gateway import QUERY, Net, Response
from tests.integration.ledger.test_workers import HEADERS, SECRET
from tests.integration.processes import Server, configure, hold, release, serving
from tests.integration.stores.servers import RedisServer
from tests.waiting import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="missing on this machine: /proc")

STREAM = {**QUERY, "model": "m"}
AT_ONCE = 30
INPUT = 4
"""The tokens of `QUERY`, each of which costs a dollar."""


@pytest.fixture
async def mock() -> AsyncIterator[Mock]:
    async with Mock(deltas=5, rate=0) as mock:
        yield mock


@pytest.fixture
def limits() -> str:
    """Returns the limits of the key."""
    return 'spend = {amount = 1000, period = "day"}'


@pytest.fixture(params=["memory-1", "memory-2", "sqlite-1", "sqlite-2", "redis-1", "redis-2", "redis-two-servers"])
async def servers(
    request: pytest.FixtureRequest, net: Net, mock: Mock, tmp_path: Path, limits: str
) -> AsyncIterator[list[Server]]:
    """Servers with one key, whose limits are totals: of spend $ 1000."""
    store, workers = request.param.split("-", 1)
    url = {"memory": "memory://", "sqlite": "sqlite:///gai-fast.db"}.get(store)
    if url is None:
        redis: RedisServer = request.getfixturevalue("redis_server")
        url = f"{redis.url}/0"
    async with AsyncExitStack() as stack:
        made = []
        for number in range(2 if workers == "two-servers" else 1):
            folder = tmp_path / str(number)
            folder.mkdir()
            price = "price = {input = 1000000, output = 1000000}"
            key = f'[[key]]\nname = "ann"\nrole = "admin"\nsecret = "file:ann"\n{limits}'
            configure(folder, mock, more=f"{price}\n{key}\n")
            (folder / "ann").write_text(SECRET)
            count = "2" if workers == "2" else "1"
            made.append(await stack.enter_async_context(serving(net, folder, "--workers", count, "--store", url)))
        yield made


async def ask(server: Server, **more: Any) -> Response:
    return await server.ask("POST", "/api/v1/stream", {**STREAM, **more}, HEADERS)


async def ask_all(servers: Sequence[Server], **more: Any) -> list[Response]:
    return await asyncio.gather(*(ask(servers[number % len(servers)], **more) for number in range(AT_ONCE)))


async def spent(servers: Sequence[Server]) -> float:
    reports = [await server.ask("GET", "/admin/v1/spend", None, HEADERS) for server in servers]
    amounts = {row["amount"] for report in reports for row in report.json["data"]}
    assert len(amounts) == 1, "each server tells the sum of all"
    return float(amounts.pop())


def finish(response: Response) -> dict[str, Any]:
    return next(event for event in response.events if event["type"] == "finish")


async def test_thirty_streams_at_once_are_admitted_as_far_as_their_reservations_fit(
    servers: list[Server], mock: Mock
) -> None:
    hold(mock)
    asked = asyncio.create_task(ask_all(servers, max_tokens=196))  # $ 200 each, with the input
    await asked_for(mock, 5)
    release(mock)
    answers = await asked
    assert Counter(answer.status for answer in answers) == {200: 5, 429: AT_ONCE - 5}
    assert len(mock.requests) == 5
    for answer in answers:
        if answer.status == 429:
            assert (answer.error["reason"], answer.error["temporary"]) == ("spend", False)
            assert answer.headers["x-should-retry"] == "false"
            assert "retry-after" not in answer.headers
            assert answer.headers["x-gai-spend-limit"] == "1000"
            assert 0 < int(answer.headers["x-gai-spend-reset"]) <= 86_400
            assert "of 1000 USD this day" in answer.error["message"]
    assert await spent(servers) == cost(answers)


async def test_streams_end_where_no_more_can_be_reserved_and_the_limit_is_kept(
    servers: list[Server], mock: Mock
) -> None:
    first = [await ask(server) for server in servers * (8 // len(servers))]  # the model's usual output is small now
    mock.deltas, mock.rate = 3000, 500
    answers = await ask_all(servers)
    assert Counter(answer.status for answer in answers) == {200: AT_ONCE}
    ends = [finish(answer) for answer in answers]
    assert {(end["finish_reason"], end.get("reason")) for end in ends} == {("length", "spend")}
    assert {answer.types[-1] for answer in answers} == {"done"}
    total = await spent(servers)
    assert total == cost([*first, *answers])
    flush = max(len(delta) for delta in deltas(answers)) / 4
    assert 1000 - AT_ONCE * (2 * flush + 1) <= total <= 1000 + flush
    for request in mock.requests:
        await asyncio.wait_for(request.closed.wait(), 10)  # nothing is generated any more
    assert max(request.deltas for request in mock.requests) < 3000


@pytest.mark.parametrize("limits", ["streams = 7", "requests_per_minute = 7\nstreams = 1000"])
async def test_of_thirty_streams_at_once_as_many_are_admitted_as_each_kind_of_limit_has_room_for(
    servers: list[Server], mock: Mock, limits: str
) -> None:
    hold(mock)
    asked = [asyncio.ensure_future(ask(servers[number % len(servers)], query="x" * 400)) for number in range(AT_ONCE)]
    await until(lambda: sum(each.done() for each in asked) == AT_ONCE - 7)
    release(mock)
    answers = await asyncio.gather(*asked)
    assert Counter(answer.status for answer in answers) == {200: 7, 429: AT_ONCE - 7}
    assert {answer.error["reason"] for answer in answers if answer.status == 429} == {limits.partition(" ")[0]}
    assert len(mock.requests) == 7


@pytest.mark.parametrize("limits", ["tokens_per_minute = 2000"])
@pytest.mark.parametrize(("first", "more", "admitted"), [(300, {"max_tokens": 300}, 6), (1900, {}, 1)])
async def test_of_thirty_streams_at_once_the_tokens_fit_a_minute(
    servers: list[Server], mock: Mock, first: int, more: dict[str, int], admitted: int
) -> None:
    """A request without `max_tokens` was admitted for its input alone, and so all thirty were."""
    hold(mock)
    running = asyncio.ensure_future(ask(servers[0], max_tokens=first))
    await asked_for(mock, 1)
    asked = [asyncio.ensure_future(ask(servers[number % len(servers)], **more)) for number in range(AT_ONCE)]
    refused = AT_ONCE + 1 - admitted
    await until(lambda: sum(each.done() for each in asked) == refused)
    mock.deltas = 5
    release(mock)
    answers = await asyncio.gather(running, *asked)
    assert Counter(answer.status for answer in answers) == {200: admitted, 429: refused}
    assert len(mock.requests) == admitted
    for answer in answers:
        if answer.status == 429:
            assert answer.error["reason"] == "tokens_per_minute"
            assert "(tokens_per_minute = 2000)" in answer.error["message"]
            assert int(answer.headers["x-ratelimit-remaining-tokens"]) < 300
            assert 0 < int(answer.headers["retry-after"]) <= 60
    used = sum(finish(answer)["usage"]["total_tokens"] for answer in answers if answer.status == 200)
    assert used <= 2000 + admitted * 11, "beyond the estimate is the template of the upstream's prompt"
    if admitted == 1:
        for server in servers:
            assert (await ask(server)).status == 200, "beside no other stream, room for the input is enough"


async def test_what_was_reserved_is_free_again_once_the_streams_have_ended(servers: list[Server], mock: Mock) -> None:
    for _ in range(4):
        answers = await ask_all(servers, max_tokens=900)
        assert Counter(answer.status for answer in answers)[200] >= 1
        left = 1000 - await spent(servers)
        for server in servers:
            assert (await ask(server, max_tokens=int(left) - INPUT - 20)).status == 200


async def test_a_request_whose_input_alone_exceeds_what_is_left_is_refused(servers: list[Server], mock: Mock) -> None:
    answer = await ask(servers[0], query="x" * 4004)
    assert (answer.status, answer.error["reason"]) == (429, "spend")
    assert not mock.requests
    assert (await ask(servers[-1], query="x" * 3960, max_tokens=100)).status == 200


def deltas(answers: Sequence[Response]) -> list[str]:
    return [event["text"] for answer in answers for event in answer.events if event["type"] == "text.delta"]


def cost(answers: Sequence[Response]) -> float:
    return float(sum(finish(answer)["usage"]["cost"]["amount"] for answer in answers if answer.status == 200))


async def asked_for(mock: Mock, count: int) -> None:
    """Waits until the upstream has so many requests."""
    await until(lambda: len(mock.requests) == count)
