"""The limits of keys over several workers, with each store: exact, whichever worker a request meets."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gai_fast.cli.mock.command import Mock
from tests.integration.gateway import QUERY, Client, Net, Response
from tests.integration.processes import Server, configure, hold, release, serving, settled
from tests.integration.stores.servers import RedisServer
from tests.waiting import until, until_answered

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="missing on this machine: /proc")

SECRET = "sk-limited-0123456789"
HEADERS = {"authorization": f"Bearer {SECRET}"}
STREAM = {**QUERY, "model": "m"}


@pytest.fixture
async def mock() -> AsyncIterator[Mock]:
    async with Mock(deltas=3, rate=0) as mock:
        yield mock


@pytest.fixture(params=["memory://", "sqlite:///gai-fast.db", "redis://"])
def store(request: pytest.FixtureRequest) -> str:
    if request.param == "redis://":
        server: RedisServer = request.getfixturevalue("redis_server")
        return f"{server.url}/0"
    return str(request.param)


def limit(folder: Path, mock: Mock, limits: str, more: str = "") -> None:
    price = "price = {input = 1000000, output = 1000000}"
    key = f'[[key]]\nname = "ann"\nsecret = "file:ann"\n{limits}'
    configure(folder, mock, more=f"{price}\n{key}\n{more}")
    (folder / "ann").write_text(SECRET)


async def ask(client: Client | Server) -> Response:
    return await client.ask("POST", "/api/v1/stream", STREAM, HEADERS)


async def begun(server: Server) -> tuple[Client, Response]:
    client = await server.connect()
    client.request("POST", "/api/v1/stream", STREAM, HEADERS)
    return client, await client.response()


def worker_of(response: Response) -> str:
    return response.headers["x-gai-stream-id"][22:]


async def test_the_requests_of_a_minute_are_those_of_all_workers(
    net: Net, mock: Mock, tmp_path: Path, store: str
) -> None:
    limit(tmp_path, mock, "requests_per_minute = 20\nstreams = 1000")
    async with serving(net, tmp_path, "--workers", "2", "--store", store) as server:
        first = await ask(server)
        assert first.headers["x-ratelimit-remaining-requests"] == "19"
        second = await ask(server)
        assert second.headers["x-ratelimit-remaining-requests"] == "18"
        assert worker_of(first) != worker_of(second)
        answers = await asyncio.gather(*(ask(server) for _ in range(38)))
        assert Counter(answer.status for answer in answers) == {200: 18, 429: 20}
        refused = [answer for answer in answers if answer.status == 429]
        assert {answer.headers["retry-after"] for answer in refused} <= {"2", "3"}
        assert {answer.error["reason"] for answer in refused} == {"requests_per_minute"}


async def test_the_reads_of_a_minute_are_those_of_all_workers(net: Net, mock: Mock, tmp_path: Path, store: str) -> None:
    limit(tmp_path, mock, "requests_per_minute = 2")
    async with serving(net, tmp_path, "--workers", "2", "--store", store) as server:

        async def read() -> Response:
            return await server.ask("GET", "/v1/responses/resp_none/input_items", None, HEADERS)

        answers = await asyncio.gather(*(read() for _ in range(40)))
        assert Counter(answer.status for answer in answers) == {404: 20, 429: 20}
        assert {answer.headers["retry-after"] for answer in answers if answer.status == 429} <= {"2", "3"}
        assert (await ask(server)).headers["x-ratelimit-remaining-requests"] == "1", "reads are no requests"


async def test_machines_that_share_a_redis_count_the_reads_of_a_key_together_and_report_no_other_caller(
    net: Net, mock: Mock, tmp_path: Path, redis_server: RedisServer
) -> None:
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
        limit(folder, mock, 'requests_per_minute = 1\nrole = "admin"')
    store = ("--store", f"{redis_server.url}/0")
    async with serving(net, folders[0], *store) as one, serving(net, folders[1], *store) as two:
        assert (await ask(one)).status == 200
        lists = [
            await server.ask("GET", path, None, HEADERS)
            for server in (one, two)
            for path in ("/admin/v1/keys", "/admin/v1/spend?by=key", "/admin/v1/requests")
        ]
        assert [answer.status for answer in lists] == [200] * 6
        assert not any(b"[reads]" in answer.body for answer in lists)
        path = "/v1/responses/resp_none"
        answers = await asyncio.gather(*(server.ask("GET", path, None, HEADERS) for server in (one, two) * 4))
        assert Counter(answer.status for answer in answers) == {404: 4, 429: 4}


async def test_many_requests_of_a_large_limit_are_admitted_up_to_it(
    net: Net, mock: Mock, tmp_path: Path, store: str
) -> None:
    limit(tmp_path, mock, "requests_per_minute = 300")
    async with serving(net, tmp_path, "--workers", "2", "--store", store) as server:
        clients = [await server.connect() for _ in range(8)]

        async def some(client: Client) -> list[int]:
            return [(await ask(client)).status for _ in range(50)]

        began = time.monotonic()  # the server's clock: the test loop's stands still while the machine is busy
        statuses = [status for each in await asyncio.gather(*map(some, clients)) for status in each]
        passed = time.monotonic() - began
        assert 300 <= Counter(statuses)[200] <= 300 + passed * 5


async def test_streams_are_counted_exactly_and_a_dead_worker_has_none(
    net: Net, mock: Mock, tmp_path: Path, store: str
) -> None:
    hold(mock)
    limit(tmp_path, mock, "streams = 4")
    async with serving(net, tmp_path, "--workers", "2", "--store", store) as server:
        running = [await begun(server) for _ in range(4)]
        assert Counter(Counter(worker_of(response) for _, response in running).values()) == {2: 2}
        refused = await asyncio.gather(*(ask(server) for _ in range(4)))
        assert {(answer.status, answer.error["reason"]) for answer in refused} == {(429, "streams")}
        for _ in range(5):  # what ends on one worker makes room on both, at once
            client, response = running.pop(0)
            stream_id = response.headers["x-gai-stream-id"]
            assert (await server.ask("DELETE", f"/api/v1/streams/{stream_id}", None, HEADERS)).status == 202
            await response.rest()
            client.close()
            running.append(await begun(server))
            assert running[-1][1].status == 200
            assert (await ask(server)).status == 429
        os.kill(server.workers_in_order[0], signal.SIGKILL)
        await settled(server, 2)

        async def has_room() -> bool:
            client, response = await begun(server)
            running.append((client, response))
            return response.status == 200

        await until_answered(has_room)
        release(mock)
        for client, _ in running:
            client.close()


async def test_large_bodies_that_are_invalid_get_their_own_error_beside_a_limit_of_streams(
    net: Net, mock: Mock, tmp_path: Path, store: str
) -> None:
    """Up to thirty-four of forty at once got 429 for the places that the others took for a moment."""
    limit(tmp_path, mock, "streams = 2")
    invalid = {**STREAM, "query": "x" * 20_000, "max_tokens": "many"}
    async with serving(net, tmp_path, "--workers", "2", "--store", store) as server:
        asked = (server.ask("POST", "/api/v1/stream", invalid, HEADERS) for _ in range(40))
        assert {response.status for response in await asyncio.gather(*asked)} == {400}


async def test_tokens_beyond_the_estimate_count_for_all_workers_when_a_stream_has_ended(
    net: Net, tmp_path: Path, store: str
) -> None:
    async with Mock(deltas=300, rate=0) as mock:
        limit(tmp_path, mock, "tokens_per_minute = 100")
        async with serving(net, tmp_path, "--workers", "2", "--store", store) as server:
            assert (await ask(server)).status == 200
            for _ in range(4):
                refused = await ask(server)
                assert (refused.status, refused.error["reason"]) == (429, "tokens_per_minute")
                assert int(refused.headers["retry-after"]) > 60


async def test_an_admin_resets_what_a_key_has_used_on_all_workers(net: Net, tmp_path: Path, store: str) -> None:
    """A count of tokens that an upstream had made up locked its key out for days."""
    admin = '[[key]]\nname = "operator"\nrole = "admin"\nsecret = "file:admin"'
    async with Mock(deltas=300, rate=0) as mock:
        limit(tmp_path, mock, 'tokens_per_minute = 100\nspend = {amount = 100, period = "day"}', admin)
        (tmp_path / "admin").write_text("sk-canary-operator-012345")
        async with serving(net, tmp_path, "--workers", "2", "--store", store) as server:
            assert (await ask(server)).status == 200
            for _ in range(4):
                assert (await ask(server)).status == 429
            path, headers = "/admin/v1/keys/ann/reset", {"authorization": "Bearer sk-canary-operator-012345"}
            reset = await server.ask("POST", path, None, headers)
            assert (reset.status, reset.json["name"], reset.json["spent"]) == (200, "ann", 0)
            assert (await ask(server)).status == 200
            assert (await ask(server)).error["reason"] in ("tokens_per_minute", "spend")
            report = await server.ask("GET", "/admin/v1/spend?by=key", None, headers)
            assert report.json["data"][0]["requests"] == 2


async def test_spend_is_that_of_all_workers(net: Net, mock: Mock, tmp_path: Path, store: str) -> None:
    limit(tmp_path, mock, 'spend = {amount = 100, period = "total"}')
    async with serving(net, tmp_path, "--workers", "2", "--store", store) as server:
        spent = 0.0
        while (answer := await ask(server)).status == 200:
            usage = next(event["usage"] for event in answer.events if event["type"] == "finish")
            spent += float(usage["cost"]["amount"])
        assert 90 < spent <= 100, "what is left does not cover one more input"
        for _ in range(4):
            answer = await ask(server)
            assert (answer.status, answer.error["reason"]) == (429, "spend")


@pytest.mark.parametrize("which", ["streams", "streams_per_caller"])
async def test_a_limit_of_the_server_below_its_workers_serves_one_stream_after_the_other(
    net: Net, mock: Mock, tmp_path: Path, store: str, which: str
) -> None:
    limit(tmp_path, mock, "", f"[limits]\n{which} = 1")
    async with serving(net, tmp_path, "--workers", "4", "--store", store) as server:
        served = []
        for _ in range(12):
            client = await server.connect()
            answer = await ask(client)
            served.append((answer.status, worker_of(answer)))
            client.close()
        assert {status for status, _ in served} == {200}
        assert len({worker for _, worker in served}) == 4
        hold(mock)
        running = [await begun(server)]
        assert running[0][1].status == 200
        for _ in range(4):
            refused = await ask(server)
            assert (refused.status, refused.error["reason"]) == (503 if which == "streams" else 429, which)
        release(mock)
        await running[0][1].rest()
        for _ in range(4):
            assert (await ask(server)).status == 200
        running[0][0].close()


@pytest.mark.parametrize("route", ["/api/v1/stream", "/api/v1/streams", "/v1/chat/completions", "/api/v1/chat"])
async def test_the_streams_of_all_workers_together_are_the_limit_of_the_server(
    net: Net, mock: Mock, tmp_path: Path, route: str
) -> None:
    hold(mock)
    configure(tmp_path, mock, more="[limits]\nstreams = 5")
    body = STREAM if "streams" in route or route.endswith("stream") else _dialect_body(route)
    async with serving(net, tmp_path, "--workers", "4") as server:
        clients = [await server.connect() for _ in range(16)]

        async def status(number: int) -> int:
            asked = {**body, "id": f"chat-{number}"} if route == "/api/v1/chat" else body
            clients[number].request("POST", route, asked)
            return (await clients[number].response()).status

        statuses = Counter(await asyncio.gather(*map(status, range(16))))
        assert statuses == {202 if route == "/api/v1/streams" else 200: 5, 503: 11}
        release(mock)
        for client in clients:
            client.close()


def bound(folder: Path, mock: Mock, upstream: str) -> None:
    """Writes a configuration with keys of the upstream."""
    configure(folder, mock)
    file = folder / "gai-fast.toml"
    file.write_text(file.read_text().replace('name = "up"\n', f'name = "up"\n{upstream}\n', 1))


async def test_the_connections_of_all_workers_together_are_the_limit_of_the_upstream(
    net: Net, mock: Mock, tmp_path: Path
) -> None:
    """Each worker had as many: eight in all."""
    hold(mock)
    bound(tmp_path, mock, "max_connections = 4\npool_wait = 0.5\nretries = 0")
    async with serving(net, tmp_path, "--workers", "2") as server:
        asked = [asyncio.ensure_future(server.ask("POST", "/api/v1/stream", STREAM)) for _ in range(30)]
        await until(lambda: sum(each.done() for each in asked) == 26)
        refused = [each.result() for each in asked if each.done()]
        assert {(answer.status, answer.error["reason"]) for answer in refused} == {(503, "upstream_pool")}
        assert "max_connections = 4" in refused[0].error["message"]
        assert len(mock.requests) == 4
        release(mock)
        assert [answer.status for answer in await asyncio.gather(*asked)].count(200) == 4


@pytest.mark.parametrize("most", [1, 3])
async def test_a_worker_gets_the_connection_that_another_does_not_need(
    net: Net, mock: Mock, tmp_path: Path, most: int
) -> None:
    bound(tmp_path, mock, f"max_connections = {most}\npool_wait = 30")
    async with serving(net, tmp_path, "--workers", "4") as server:
        answers = [await server.ask("POST", "/api/v1/stream", STREAM) for _ in range(8)]
        assert [answer.status for answer in answers] == [200] * 8
        assert len({worker_of(answer) for answer in answers}) == 4
        answers = await asyncio.gather(*(server.ask("POST", "/api/v1/stream", STREAM) for _ in range(12)))
        assert [answer.status for answer in answers] == [200] * 12


async def test_clients_that_leave_while_they_wait_for_a_connection_hold_none(
    net: Net, mock: Mock, tmp_path: Path
) -> None:
    hold(mock)
    bound(tmp_path, mock, "max_connections = 3\npool_wait = 30")
    async with serving(net, tmp_path, "--workers", "2") as server:
        clients = [await server.connect() for _ in range(40)]
        for client in clients:
            client.request("POST", "/api/v1/stream", STREAM)
        await until(lambda: len(mock.requests) == 3)
        for client in clients:
            client.close()
        mock.deltas, mock.rate = 3, 0
        answers = await asyncio.gather(*(server.ask("POST", "/api/v1/stream", STREAM) for _ in range(12)))
        assert [answer.status for answer in answers] == [200] * 12
        release(mock)


def _dialect_body(route: str) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "user", "content": "Hi"}
    if route == "/api/v1/chat":
        message = {"role": "user", "id": "1", "parts": [{"type": "text", "text": "Hi"}]}
    return {"model": "m", "messages": [message], "stream": True}


async def test_a_killed_worker_has_charged_its_streams_but_for_the_last_second(
    net: Net, mock: Mock, tmp_path: Path, store: str
) -> None:
    hold(mock)
    limit(tmp_path, mock, 'role = "admin"\nspend = {amount = 1000000, period = "total"}')
    async with serving(net, tmp_path, "--workers", "2", "--store", store) as server:
        clients = [(await begun(server))[0] for _ in range(4)]

        async def spent() -> tuple[float, float]:
            keys = await server.ask("GET", "/admin/v1/keys", None, HEADERS)
            rows = (await server.ask("GET", "/admin/v1/spend", None, HEADERS)).json["data"]
            assert sum(row["requests"] for row in rows) == 0
            return keys.json["data"][0]["spent"], sum(row["amount"] for row in rows)

        async def prompts_and_more() -> bool:
            return (await spent())[0] > 0

        await until_answered(prompts_and_more)
        before, _ = await spent()
        for worker in server.workers_in_order:
            os.kill(worker, signal.SIGKILL)
        await settled(server, 2)
        after, reported = await spent()
        assert after >= before
        assert reported == pytest.approx(after)
        release(mock)
        for client in clients:
            client.close()


async def test_any_worker_tells_what_the_streams_of_others_have_cost(net: Net, mock: Mock, tmp_path: Path) -> None:
    limit(tmp_path, mock, 'role = "admin"')
    async with serving(net, tmp_path, "--workers", "2") as server:
        for count in (1, 2, 3):
            cost = next(event["usage"]["cost"] for event in (await ask(server)).events if event["type"] == "finish")
            report = await server.ask("GET", "/admin/v1/spend", None, HEADERS)
            assert [row["requests"] for row in report.json["data"]] == [count]
        keys = await server.ask("GET", "/admin/v1/keys", None, HEADERS)
        assert keys.json["data"][0]["spent"] == pytest.approx(3 * cost["amount"])
