"""`--workers N`: one server in several processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from gai_fast.cli.mock.command import Mock
from tests.integration.gateway import QUERY, Client, Net, Response
from tests.integration.processes import Server, configure, hold, release, run_forked, serving, settled
from tests.integration.test_cli import PATIENCE
from tests.integration.websocket import upgrade
from tests.limits import LIMITS
from tests.waiting import until, until_answered

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="missing on this machine: /proc")


@pytest.fixture
async def mock() -> AsyncIterator[Mock]:
    async with Mock(deltas=5, rate=0) as mock:
        yield mock


def worker_of(stream_id: str) -> str:
    """Returns the part of a stream id that names its worker."""
    return stream_id[22:]


async def test_connections_are_shared_equally_however_they_come(net: Net, mock: Mock, tmp_path: Path) -> None:
    configure(tmp_path, mock)
    async with serving(net, tmp_path, "--workers", "2") as server:
        counts: Counter[str] = Counter()
        for at_once in (1,) * 10 + (10,):
            streams = await asyncio.gather(*(server.stream() for _ in range(at_once)))
            for client, response in streams:
                await response.rest()
                assert response.types[-1] == "done"
                counts[worker_of(response.headers["x-gai-stream-id"])] += 1
                client.close()
        assert sorted(counts.values()) == [10, 10]
        assert len({name[:4] for name in counts}) == 1, "they are of one server"


async def test_a_killed_worker_is_replaced_and_harms_no_other(net: Net, mock: Mock, tmp_path: Path) -> None:
    hold(mock)
    configure(tmp_path, mock)
    async with serving(net, tmp_path, "--workers", "2") as server:
        before = server.workers
        streams = await asyncio.gather(*(server.stream() for _ in range(4)))
        homes = [await process_of(server, response) for _, response in streams]
        killed = homes[0]
        assert {*homes} == before, "each worker has some"
        before.remove(killed)
        os.kill(killed, signal.SIGKILL)
        release(mock)
        for _, response in streams:
            await response.rest()
        assert [response.ended for _, response in streams] == [home != killed for home in homes]
        assert all(response.types[-2:] == ["finish", "done"] for _, response in streams if response.ended)
        assert f"(process {killed}) was killed by signal 9" in await server.said("another takes its place")
        now = await settled(server, 2)
        assert before < now
        assert killed not in now
        mock.deltas = 5
        names = set()
        async with asyncio.timeout(PATIENCE):
            while len(names) < 2:  # the new one has its share as soon as it is up
                client, response = await server.stream()
                await response.rest()
                names.add(worker_of(response.headers["x-gai-stream-id"]))
                client.close()
        former = {worker_of(response.headers["x-gai-stream-id"]) for _, response in streams}
        assert len(names | former) == 3, "no name is used twice"
        server.signal()
        assert await server.ended() == 0


async def test_a_worker_that_stands_still_keeps_no_client_waiting_and_is_replaced(
    net: Net, mock: Mock, tmp_path: Path
) -> None:
    """10 of 20 clients waited for it until they gave up."""
    configure(tmp_path, mock)
    async with serving(net, tmp_path, "--workers", "2") as server:
        stopped, other = server.workers_in_order
        os.kill(stopped, signal.SIGSTOP)
        try:
            for _ in range(2):  # the second time it is known to be silent
                async with asyncio.timeout(PATIENCE):
                    answers = await asyncio.gather(*(server.ask("GET", "/healthz") for _ in range(20)))
                assert [each.status for each in answers] == [200] * 20
            await until(lambda: stopped not in server.workers)
            assert other in await settled(server, 2)
        finally:
            with suppress(ProcessLookupError):
                os.kill(stopped, signal.SIGKILL)


async def test_workers_fetch_the_token_of_an_identity_once(net: Net, mock: Mock, tmp_path: Path) -> None:
    """Also a worker that takes another's place: the supervisor has the token."""
    runs = tmp_path / "runs"
    program = f"open({str(runs)!r}, 'a').write('x'); print('token', 3600)"
    command = json.dumps([sys.executable, "-S", "-c", program])
    configure(tmp_path, mock)
    file = tmp_path / "gai-fast.toml"
    file.write_text(file.read_text().replace("[[model]]", f"auth_command = {command}\n[[model]]"))
    async with serving(net, tmp_path, "--workers", "2") as server:
        homes = set()
        for _ in range(2):
            client, response = await server.stream()
            await response.rest()
            assert response.types[-1] == "done"
            homes.add(worker_of(response.headers["x-gai-stream-id"]))
            client.close()
        assert len(homes) == 2
        os.kill(server.workers_in_order[0], signal.SIGKILL)
        await server.said("another takes its place")
        while len(homes) < 3:
            client, response = await server.stream()
            await response.rest()
            homes.add(worker_of(response.headers["x-gai-stream-id"]))
            client.close()
        assert runs.read_text() == "x"


async def test_wrong_keys_are_counted_over_all_workers(net: Net, mock: Mock, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("sk-right-0123456789")
    configure(tmp_path, mock, more='[[key]]\nname = "a"\nsecret = "file:secret"\n')
    async with serving(net, tmp_path, "--workers", "2") as server:

        async def ask(key: str) -> int:
            return (await server.ask("GET", "/v1/models", headers={"x-api-key": key})).status

        first = [await ask("sk-wrong-0123456789") for _ in range(LIMITS.wrong_keys)]
        assert {*first} == {401}
        refused, more = 0, 0
        while refused < 2:  # connections come to the workers in turn
            is_refused = await ask("sk-wrong-0123456789") == 429
            refused, more = (refused + 1 if is_refused else 0), more + 1
        assert more < LIMITS.wrong_keys, "each worker counts for itself"
        assert {await ask("sk-right-0123456789") for _ in range(2)} == {429}
        assert "has sent 100 wrong keys within a minute" in await server.said("it is blocked")


async def test_workers_drain_together(net: Net, mock: Mock, tmp_path: Path) -> None:
    hold(mock)
    configure(tmp_path, mock)
    async with serving(net, tmp_path, "--workers", "2") as server:
        running = [await server.stream() for _ in range(2)]
        server.signal()
        await server.drains()
        late = [await server.stream() for _ in range(3)]
        release(mock)
        for _, response in (*running, *late):
            await response.rest()
            assert response.types[-2:] == ["finish", "done"]
        assert await server.ended() == 0


@pytest.mark.parametrize("ends", [1, 2])
async def test_streams_that_outlast_the_grace_of_workers_are_notified(
    net: Net, mock: Mock, tmp_path: Path, ends: int
) -> None:
    """By the end of grace, or by a second signal."""
    mock.deltas, mock.rate = 10_000, 20
    configure(tmp_path, mock, grace=0.5 if ends == 1 else 600)
    async with serving(net, tmp_path, "--workers", "2") as server:
        running = [await server.stream() for _ in range(2)]
        server.signal(signal.SIGINT)
        if ends == 2:
            await server.drains()
            server.signal(signal.SIGINT)
        for _, response in running:
            await response.rest()
            assert response.ended
            assert response.events[-2]["error"]["reason"] == "draining"
        assert await server.ended() == 0


async def test_a_signal_to_one_worker_drains_that_one_and_another_takes_its_place(
    net: Net, mock: Mock, tmp_path: Path
) -> None:
    hold(mock)
    configure(tmp_path, mock)
    async with serving(net, tmp_path, "--workers", "2") as server:
        before = server.workers
        running = [await server.stream() for _ in range(2)]
        leaving = before.pop()
        os.kill(leaving, signal.SIGTERM)
        release(mock)
        await until(lambda: leaving not in server.workers and len(server.workers) == 2)
        for _, response in running:
            await response.rest()
            assert response.types[-2:] == ["finish", "done"]
        assert before < server.workers


async def test_workers_whose_supervisor_is_killed_end(net: Net, mock: Mock, tmp_path: Path) -> None:
    hold(mock)
    configure(tmp_path, mock)
    async with serving(net, tmp_path, "--workers", "2") as server:
        workers = server.workers
        running = [await server.stream() for _ in range(2)]
        server.signal(signal.SIGKILL)
        release(mock)
        await server.ended()
        for _, response in running:
            await response.rest()
            assert response.types[-2:] == ["finish", "done"]
        await until(lambda: not any(is_running(each) for each in workers))
        with pytest.raises(OSError, match=r"."):
            await server.connect()


def is_running(process: int) -> bool:
    """Returns whether a process is there, and no zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


async def test_workers_that_cannot_start_end_the_server_with_their_reason(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import os\ndef extend(app):\n    os._exit(7)\n")
    for arguments, code, said in (
        (("--app", "broken:extend"), 3, "error: ended with exit code 7\n"),
        (("--app", "broken:nothing"), 2, "error: `app` in [server] names nothing, which broken does not have\n"),
    ):
        result = await run_forked("serve", "--port", "0", "--workers", "2", *arguments, cwd=tmp_path)
        assert result == (code, "", said)


async def test_a_folder_for_temporary_files_whose_path_is_too_long_is_named(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 90)
    folder.mkdir()
    result = await run_forked("serve", "--port", "0", "--workers", "2", cwd=tmp_path, TMPDIR=str(folder))
    said = f"error: the path of TMPDIR ({folder}) is too long for the sockets of workers: set TMPDIR to a shorter one\n"
    assert result == (3, "", said)
    assert not list(folder.iterdir())


async def test_a_bug_that_ends_a_worker_is_in_the_log(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("def extend(app):\n    raise KeyError('a bug')\n")
    arguments = ("--port", "0", "--workers", "2", "--app", "broken:extend")
    code, _, errors = await run_forked("serve", *arguments, cwd=tmp_path)
    lines = errors.splitlines()
    assert (code, lines[-1]) == (3, "error: ended with exit code 1")
    failed = next(line for line in map(json.loads, lines[:-1]) if "has failed: a bug" in line["msg"])
    assert failed["exc"].startswith("Traceback (most recent call last):\n")
    assert failed["exc"].endswith("\nKeyError: 'a bug'")


async def test_a_scrape_of_any_worker_counts_all_of_them(net: Net, mock: Mock, tmp_path: Path) -> None:
    configure(tmp_path, mock)

    async def count() -> float:
        text = (await server.ask("GET", "/metrics")).body.decode()
        lines = [line for line in text.splitlines() if line.startswith("gai_fast_requests_total{")]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    async with serving(net, tmp_path, "--workers", "2") as server:
        for _ in range(6):
            client, response = await server.stream()
            await response.rest()
            client.close()

        async def is_all() -> bool:  # of a worker that stands still a scrape has the last known counts
            return await count() == 6

        await until_answered(is_all)
        assert [await count() for _ in range(3)] == [6.0] * 3
        os.kill(server.workers.pop(), signal.SIGKILL)
        await server.said("another takes its place")
        await settled(server, 2)
        assert [await count() for _ in range(3)] == [6.0] * 3, "what was counted stays counted"


async def test_sighup_reloads_for_new_requests_of_all_workers(net: Net, mock: Mock, tmp_path: Path) -> None:
    hold(mock)
    configure(tmp_path, mock)
    async with serving(net, tmp_path, "--workers", "2") as server:
        running = [await server.stream({**QUERY, "model": "m"}) for _ in range(2)]
        file = tmp_path / "gai-fast.toml"
        file.write_text(file.read_text().replace('name = "m"', 'name = "n"'))
        server.signal(signal.SIGHUP)
        await server.said("the configuration has been reloaded")

        async def is_new() -> bool:
            answers = [await server.ask("GET", "/v1/models") for _ in range(4)]
            return all([model["id"] for model in each.json["data"]] == ["n", "demo"] for each in answers)

        async with asyncio.timeout(PATIENCE):
            while True:
                if await is_new():
                    break
        os.kill(server.workers.pop(), signal.SIGKILL)
        await server.said("another takes its place")
        await settled(server, 2)
        assert await is_new(), "a new worker has it, too"
        release(mock)
        for _, response in running:
            await response.rest()
        assert [response.types[-1] for _, response in running].count("done") >= 1


# ---- streams of other workers ----------------------------------------------------------------------------------------


async def connections(server: Server) -> list[Client]:
    """Returns a connection to each of two workers."""
    return [await server.connect() for _ in range(2)]


async def begun(client: Client, **more: object) -> Response:
    """Returns a durable stream that has sent a few events."""
    client.request("POST", "/api/v1/stream", {**QUERY, "model": "m", "resumable": True, **more})
    return await (await client.response()).until(b"event: text.delta")


async def followed(client: Client, path: str, **headers: str) -> Response:
    """Returns a stream that is followed on this connection; the head has been read."""
    client.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    return await client.response()


async def test_a_stream_is_followed_and_resumed_on_another_worker(net: Net, mock: Mock, tmp_path: Path) -> None:
    hold(mock)
    configure(tmp_path, mock)
    async with serving(net, tmp_path, "--workers", "2") as server:
        here, there = await connections(server)
        response = await begun(here)
        path = f"/api/v1/streams/{response.headers['x-gai-stream-id']}"
        other = await followed(there, path)
        resumed_by = (await connections(server))[1]
        resumed = await followed(resumed_by, f"{path}?after={response.headers['x-gai-stream-id']}.3")
        release(mock)
        for each in (response, other, resumed):
            await each.rest()
            assert each.ended
        assert other.body == response.body
        assert resumed.body == response.body[response.body.index(b"event", response.body.index(b".3\n")) :]
        state = (await server.ask("GET", path, headers={"accept": "application/json"})).json
        assert state["state"] == "finished"
        last = state["last_event_id"]
        for _ in range(2):
            assert (await server.ask("GET", f"{path}?after={last}")).status == 204
        assert len(mock.requests) == 1


async def test_a_stream_is_cancelled_on_another_worker(net: Net, mock: Mock, tmp_path: Path) -> None:
    mock.deltas, mock.rate = 10_000, 40
    configure(tmp_path, mock)
    async with serving(net, tmp_path, "--workers", "2") as server:
        for resumable in (True, False):
            here, there = await connections(server)
            response = await begun(here, resumable=resumable)
            identifier = response.headers["x-gai-stream-id"]
            path = f"/api/v1/streams/{identifier}"
            state = await there.ask("GET", path, headers={"accept": "application/json"})
            assert (state.status, state.json["state"]) == (200, "running")
            cancelled = await there.ask("DELETE", path)
            assert (cancelled.status, cancelled.json) == (202, {"id": identifier, "state": "cancelled"})
            await response.rest()
            assert response.events[-2]["finish_reason"] == "cancelled"
            again = await there.ask("DELETE", path)
            assert again.status == (200 if resumable else 404)
            await asyncio.wait_for(mock.requests[-1].closed.wait(), PATIENCE)


async def test_the_streams_of_a_socket_may_run_on_another_worker(net: Net, mock: Mock, tmp_path: Path) -> None:
    mock.deltas, mock.rate = 10_000, 40
    configure(tmp_path, mock)
    async with serving(net, tmp_path, "--workers", "2") as server:
        here, there = [await upgrade(client) for client in await connections(server)]
        for name in ("cancelled", "lost"):
            here.ask(name, **QUERY, model="m", resumable=True)
            start = await here.until(stream=name, type="start")
            there.send(stream=name, type="resume", after=start["id"])
            assert (await there.until(stream=name))["seq"] == 2
        for _ in range(3):
            there.send(stream="cancelled", type="cancel")
        for socket in (there, here):
            await socket.until(stream="cancelled", type="finish", finish_reason="cancelled")
        await asyncio.wait_for(mock.requests[0].closed.wait(), PATIENCE)
        os.kill(server.workers_in_order[int(worker_of(start["stream_id"])[4:], 16) - 1], signal.SIGKILL)
        assert await here.close_code() == 1006
        await there.until(stream="lost", type="done")
        assert there.error("lost")["reason"] == "worker_lost"
        await settled(server, 2)
        server.signal()
        assert await there.close_code() == 1012
        assert await server.ended() == 0


async def test_a_stream_that_nobody_has_is_unknown_to_every_worker(net: Net, mock: Mock, tmp_path: Path) -> None:
    configure(tmp_path, mock)
    async with serving(net, tmp_path, "--workers", "2") as server:
        client, response = await server.stream()
        await response.rest()
        name = worker_of(response.headers["x-gai-stream-id"])
        for end in ("", name, name[:-1] + "1", name[:-1] + "2", name[:-1] + "3", name + "0", "AAAA1"):
            for _ in range(2):
                for method in ("GET", "DELETE"):
                    answer = await server.ask(method, f"/api/v1/streams/{'x' * 22}{end}")
                    assert (answer.status, answer.error["reason"]) == (404, "stream")
        client.close()


async def test_the_followers_of_a_killed_worker_are_notified(net: Net, mock: Mock, tmp_path: Path) -> None:
    mock.deltas, mock.rate = 10_000, 40
    configure(tmp_path, mock)
    async with serving(net, tmp_path, "--workers", "2") as server:
        pids = server.workers
        here, there = await connections(server)
        response = await begun(here)
        other = await followed(there, f"/api/v1/streams/{response.headers['x-gai-stream-id']}")
        await other.until(b"event: text.delta")
        os.kill(await process_of(server, response), signal.SIGKILL)
        await response.rest()
        assert not response.ended, "it was cut off, and does not look complete"
        await other.rest()
        assert other.ended
        assert other.events[-2]["error"]["reason"] == "worker_lost"
        assert other.types[-1] == "done"
        await settled(server, 2)
        assert len(pids & server.workers) == 1
        place = f"{response.headers['x-gai-stream-id']}.3"
        for _ in range(2):
            late = await server.ask("GET", f"/api/v1/streams/{response.headers['x-gai-stream-id']}?after={place}")
            assert late.status == 200
            assert late.types == ["error", "done"]
            error = late.events[0]["error"]
            assert (error["code"], error["reason"], error["temporary"]) == ("network", "worker_lost", True)
            state = await server.ask(
                "GET", f"/api/v1/streams/{response.headers['x-gai-stream-id']}", headers={"accept": "application/json"}
            )
            assert (state.json["state"], state.json["error"]["reason"]) == ("failed", "worker_lost")


async def test_what_a_killed_worker_stored_is_had_from_the_others(net: Net, mock: Mock, tmp_path: Path) -> None:
    mock.deltas, mock.rate = 10_000, 40
    configure(tmp_path, mock)
    async with serving(net, tmp_path, "--workers", "2", "--store", "sqlite:///streams.db") as server:
        here, there = await connections(server)
        response = await begun(here)
        path = f"/api/v1/streams/{response.headers['x-gai-stream-id']}"
        other = await followed(there, path)
        await other.until(b".6\n")
        os.kill(await process_of(server, response), signal.SIGKILL)
        await other.rest()
        assert other.ended
        assert (other.types[-2:], other.events[-2]["error"]["reason"]) == (["error", "done"], "worker_lost")
        await settled(server, 2)
        late = await server.ask("GET", path)
        assert late.events == other.events, "it is closed once for all"
        assert late.events[-2]["error"]["reason"] == "worker_lost"


BLOCKING = """
import os, time
from aiohttp import web

async def block(request):
    if int(request.query["process"]) == os.getpid():
        time.sleep(3)
    return web.Response()

def extend(app):
    app.router.add_get("/block", block)
"""


def sequence(response: Response) -> list[int]:
    """Returns the numbers of a stream's events, which has ended once."""
    assert response.ended
    assert [response.types.count(kind) for kind in ("start", "finish", "error", "done")] == [1, 1, 0, 1]
    return [int(line.rpartition(b".")[2]) for line in response.body.splitlines() if line.startswith(b"id:")]


@pytest.mark.parametrize("store", ["memory://", "sqlite:///streams.db"])
@pytest.mark.parametrize("how", ["stopped", "blocked by the user's code"])
async def test_a_worker_that_stands_still_for_some_seconds_loses_no_stream_and_ends_each_once(
    net: Net, mock: Mock, tmp_path: Path, how: str, store: str
) -> None:
    hold(mock)
    configure(tmp_path, mock, more="heartbeat = 0.5\n")
    (tmp_path / "blocking.py").write_text(BLOCKING)
    async with serving(net, tmp_path, "--workers", "2", "--store", store, "--app", "blocking:extend") as server:
        before = server.workers
        here, there = await connections(server)
        response = await begun(here)
        path = f"/api/v1/streams/{response.headers['x-gai-stream-id']}"
        other = await followed(there, path)
        await other.until(b"event: text.delta")
        still = await process_of(server, response)
        blocked: list[asyncio.Future[Response]] = []
        if how == "stopped":
            os.kill(still, signal.SIGSTOP)
        else:
            ask = [server.ask("GET", f"/block?process={still}") for _ in range(2)]
            blocked = [asyncio.ensure_future(each) for each in ask]
        try:
            await other.until(b": ping\n: ping\n")
            late = await followed(await server.connect(), path)  # the silent worker gets no connection
            assert late.status == 200
        finally:
            os.kill(still, signal.SIGCONT)
        assert {each.status for each in await asyncio.gather(*blocked)} <= {200}
        release(mock)
        for each in (response, other, late):
            await each.rest()
        numbers = sequence(response)
        assert numbers == [*range(numbers[0], numbers[0] + len(numbers))]
        assert sequence(other) == sequence(late) == numbers
        assert [event for event in late.events if event["type"] != "ping"] == response.events
        assert server.workers == before
        assert len(mock.requests) == 1


async def test_the_streams_of_a_worker_that_stands_still_for_ever_end_once_for_all(
    net: Net, mock: Mock, tmp_path: Path
) -> None:
    hold(mock)
    configure(tmp_path, mock, more="heartbeat = 0.5\n")
    async with serving(net, tmp_path, "--workers", "2", "--store", "sqlite:///streams.db") as server:
        here, there = await connections(server)
        response = await begun(here)
        path = f"/api/v1/streams/{response.headers['x-gai-stream-id']}"
        other = await followed(there, path)
        await other.until(b"event: text.delta")
        still = await process_of(server, response)
        os.kill(still, signal.SIGSTOP)
        try:
            await other.until(b": ping\n: ping\n")
            assert still in server.workers, "it may go on yet"
            assert "worker_lost" not in other.text
            async with asyncio.timeout(PATIENCE):
                await response.rest()
                await other.rest()
        finally:
            with suppress(ProcessLookupError):
                os.kill(still, signal.SIGKILL)
        assert not response.ended
        assert (other.types.count("error"), other.types.count("finish")) == (1, 0)
        assert (other.types[-1], other.events[-2]["error"]["reason"]) == ("done", "worker_lost")
        await until(lambda: still not in server.workers)
        await settled(server, 2)
        for _ in range(2):
            late = await server.ask("GET", path)
            assert (late.types.count("error"), late.types.count("finish"), late.types[-1]) == (1, 0, "done")


async def process_of(server: Server, response: Response) -> int:
    """Returns the process of the worker that runs a stream: the first one was made first."""
    number = int(worker_of(response.headers["x-gai-stream-id"])[4:], 16)
    return server.workers_in_order[number - 1]


# ---- idempotency keys ------------------------------------------------------------------------------------------------

STORES = pytest.mark.parametrize("store", ["memory://", "sqlite:///streams.db"])
RACES = 500 if os.environ.get("GAI_FAST_EXHAUSTIVE") == "1" else 10


@STORES
async def test_of_requests_with_one_key_on_several_workers_one_asks_the_upstream(
    net: Net, mock: Mock, tmp_path: Path, store: str
) -> None:
    configure(tmp_path, mock)
    async with serving(net, tmp_path, "--workers", "2", "--store", store) as server:
        clients = [*await connections(server), *await connections(server)]
        workers = set()
        for race in range(RACES):
            body = {**QUERY, "model": "m", "stream": race % 2 == 0}
            for client in clients:
                client.request("POST", "/api/v1/stream", body, {"idempotency-key": f"race-{race}"})
            answers = [await (await client.response()).rest() for client in clients]
            assert {(answer.status, bytes(answer.body)) for answer in answers} == {(200, bytes(answers[0].body))}, race
            assert all(answer.ended for answer in answers)
            assert sum("idempotent-replayed" in answer.headers for answer in answers) == len(clients) - 1
            assert len(mock.requests) == race + 1
            workers.add(worker_of(answers[0].headers["x-gai-stream-id"]))
        other = await server.ask("POST", "/api/v1/stream", {**QUERY, "seed": 1}, {"idempotency-key": "race-0"})
        assert (other.status, other.error["reason"]) == (422, "idempotency_mismatch")
        assert len(mock.requests) == RACES


@STORES
async def test_a_chat_is_found_on_every_worker_while_it_runs(net: Net, mock: Mock, tmp_path: Path, store: str) -> None:
    hold(mock)
    configure(tmp_path, mock)
    async with serving(net, tmp_path, "--workers", "2", "--store", store) as server:
        here, there = await connections(server)
        messages = [{"id": "m", "role": "user", "parts": [{"type": "text", "text": "Hi"}]}]
        here.request("POST", "/api/v1/chat", {"id": "c 1", "messages": messages, "model": "m"})
        response = await (await here.response()).until(b'"text-delta"')
        clients = [await followed(client, "/api/v1/chat/c%201/stream") for client in (there, await server.connect())]
        release(mock)
        for each in (response, *clients):
            assert (await each.rest()).data[-1] == "[DONE]"
            assert each.events == response.events
        assert {each.headers["x-gai-stream-id"] for each in clients} == {response.headers["x-gai-stream-id"]}
        for client in await connections(server):
            async with asyncio.timeout(PATIENCE):
                while (await client.ask("GET", "/api/v1/chat/c%201/stream")).status != 204:  # noqa: ASYNC110  # a poll of another process
                    await asyncio.sleep(0.05)
        assert len(mock.requests) == 1


@STORES
@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_a_response_in_the_background_is_one_on_every_worker(
    net: Net, mock: Mock, tmp_path: Path, store: str, is_cancelled: bool
) -> None:
    hold(mock)
    configure(tmp_path, mock)
    async with serving(net, tmp_path, "--workers", "2", "--store", store) as server:
        here, there = await connections(server)
        asked = {"model": "m", "input": "hi", "background": True, "stream": True}
        here.request("POST", "/v1/responses", asked)
        response = await (await here.response()).until(b"output_text.delta")
        path = f"/v1/responses/resp_{response.headers['x-gai-stream-id']}"
        assert (await there.ask("GET", path)).json["status"] == "in_progress"
        other = await followed((await connections(server))[1], f"{path}?stream=true&starting_after=2")
        if is_cancelled:
            assert (await there.ask("POST", f"{path}/cancel", {})).json["status"] == "cancelled"
        release(mock)
        for each in (response, other):
            await each.rest()
            assert each.ended
        assert other.events == response.events[3:]
        for client in await connections(server):
            found = await client.ask("GET", path)
            assert found.json == response.events[-1]["response"]
            assert found.json["status"] == ("cancelled" if is_cancelled else "completed")
            rest = await client.ask("GET", f"{path}?stream=true&starting_after=3")
            assert rest.events == response.events[4:]
        assert len(mock.requests) == 1


@STORES
@pytest.mark.parametrize("has_content", [False, True])
async def test_the_key_of_a_killed_worker_answers_with_its_stream_which_goes_on_before_content(
    net: Net, mock: Mock, tmp_path: Path, store: str, has_content: bool
) -> None:
    """With `memory://` nobody knows which it was, so nothing is generated again."""
    mock.deltas, mock.rate, mock.ttft = (10_000, 40, 0) if has_content else (5, 0, 600)
    configure(tmp_path, mock, more="[stream]\ncommit_after = 0.02\n")
    body, key = {**QUERY, "model": "m"}, {"idempotency-key": "k"}
    async with serving(net, tmp_path, "--workers", "2", "--store", store) as server:
        workers = server.workers
        here, there = await connections(server)
        here.request("POST", "/api/v1/stream", body, key)
        response = await here.response()
        if has_content:
            await response.until(b".6\n")
        if store != "memory://":  # until the store has it
            other = await followed(there, f"/api/v1/streams/{response.headers['x-gai-stream-id']}")
            if has_content:
                await other.until(b".6\n")
        killed = await process_of(server, response)
        mock.deltas, mock.rate, mock.ttft = 5, 0, 0
        os.kill(killed, signal.SIGKILL)
        await response.rest()
        await until(lambda: len(workers & server.workers) == 1)
        await settled(server, 2)
        if store != "memory://":  # until the other worker knows
            events = (await other.rest()).events
            assert events[-2]["error"]["reason"] == "worker_lost" if has_content else events[-2]["type"] == "finish"
        again = await server.ask("POST", "/api/v1/stream", body, key)
        if store == "memory://":
            assert (again.status, again.error["reason"], again.error["temporary"]) == (502, "worker_lost", False)
        elif has_content:
            assert (again.status, again.headers["idempotent-replayed"]) == (200, "true")
            assert again.events[-2]["error"]["reason"] == "worker_lost"
            assert again.text.startswith(response.text[:10])
        else:
            assert (again.status, again.headers["idempotent-replayed"]) == (200, "true")
            assert again.events == events
        assert len(mock.requests) == (2 if store != "memory://" and not has_content else 1)


async def test_the_workers_together_have_no_more_streams_than_the_server_may(
    net: Net, mock: Mock, tmp_path: Path
) -> None:
    hold(mock)
    configure(tmp_path, mock, more="[limits]\nstreams = 4")
    begun: list[Client] = []

    async def statuses(count: int) -> Counter[int]:
        streams = [await server.stream({**QUERY, "model": "m"}) for _ in range(count)]
        begun.extend(client for client, _ in streams)
        return Counter(response.status for _, response in streams)

    async def has_room() -> bool:
        return (await statuses(1))[200] == 1

    async with serving(net, tmp_path, "--workers", "3") as server:
        assert await statuses(9) == {200: 4, 503: 5}
        os.kill(server.workers_in_order[0], signal.SIGKILL)  # it has two of them, and its successor has its share
        for _ in range(2):
            await until_answered(has_room)
        assert await statuses(9) == {503: 9}
        release(mock)
        for client in begun:
            client.close()
