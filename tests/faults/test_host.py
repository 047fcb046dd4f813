"""Faults of the machine: rows 42 and 44 of docs/reliability.md."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from gai_fast.model.settings import BreakerSettings
from gai_fast.runtime.clock import SOURCE
from tests.faults.bench import Bench, check_stream, fault
from tests.faults.test_upstream import ANSWER, TEXT
from tests.integration.gateway import DONE, FINISH, LAST_CHUNK, NATIVE, NEVER, SSE_HEAD, Peer, delta
from tests.integration.processes import Server, serving
from tests.waiting import until, until_answered
from tests.wire import chunk


@contextmanager
def no_descriptors() -> Iterator[None]:
    """No file can be opened within the block."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = [os.open(os.devnull, os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (files[0] + 64, limits[1]))
    try:
        with suppress(OSError):
            while True:
                files.append(os.dup(files[0]))
        yield
    finally:
        for file in files:
            os.close(file)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
@fault(42)
async def test_a_server_without_descriptors_says_so_blames_no_upstream_and_recovers(bench: Bench, name: str) -> None:
    upstream = await bench.sending(ANSWER)
    url = upstream.url.replace("127.0.0.1", name)
    gateway = await bench.gateway(url, breaker=BreakerSettings(failures=1, window=30, open=30), retries=2)
    client = await bench.net.connect(gateway.host)
    await asyncio.get_running_loop().getaddrinfo(name, None)  # a resolver that has its modules reports other errors
    with no_descriptors():
        for _ in range(3):
            bench.asked += 1
            response = await client.ask("POST", NATIVE, {"query": "hi", "model": "m"})
            assert (response.status, response.error["code"]) == (503, "overloaded")
            assert (response.error["reason"], response.error["phase"]) == ("descriptors", "connect")
            assert "retry-after" in response.headers
    bench.asked += 1
    response = await client.ask("POST", NATIVE, {"query": "hi", "model": "m"})
    assert check_stream(response, TEXT)[-1]["finished"]
    assert gateway.running.engine.targets.breaker_states()["up"] == "closed"


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
@fault(44)
async def test_a_clock_that_is_set_ends_no_stream(bench: Bench, monkeypatch: pytest.MonkeyPatch, jump: float) -> None:
    is_set = asyncio.Event()

    async def handle(peer: Peer) -> None:
        await peer.request()
        await peer.send(SSE_HEAD, chunk(delta("a")))
        await is_set.wait()
        await peer.send(*(chunk(frame) for frame in (delta("b"), FINISH, DONE)), LAST_CHUNK)

    upstream = await bench.upstream(handle)
    gateway = await bench.gateway(upstream.url, heartbeat=NEVER)
    client, response = await bench.begin(gateway)
    await response.until(b'"a"')
    seconds = time.time
    monkeypatch.setattr(time, "time", lambda: seconds() + jump)
    monkeypatch.setattr(SOURCE, "read", lambda: seconds() + jump)
    await asyncio.sleep(0.05)
    is_set.set()
    await response.rest()
    assert check_stream(response, "ab")[-1]["finished"]
    assert b": ping" not in response.body
    client.close()


@fault(44)
async def test_a_loop_that_was_held_up_times_nothing_out_whose_bytes_had_come(bench: Bench) -> None:
    """A process that is stopped and continued (SIGSTOP) sees the same."""
    upstream_is_blocked = asyncio.Event()

    async def handle(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(SSE_HEAD, chunk(delta("a")))
            await upstream_is_blocked.wait()
            rest = b"".join(chunk(frame) for frame in (delta("b"), FINISH, DONE)) + LAST_CHUNK
            os.write(peer.writer.get_extra_info("socket").fileno(), rest)
            time.sleep(0.6)  # noqa: ASYNC251  # the fault itself

    bench.may_block = True
    upstream = await bench.upstream(handle)
    gateway = await bench.gateway(upstream.url, idle_timeout=0.3, first_event_timeout=0.3)
    begun = [await bench.begin(gateway) for _ in range(2)]
    for _, response in begun:
        await response.until(b'"a"')
    upstream_is_blocked.set()
    for client, response in begun:
        await response.rest()
        assert check_stream(response, "ab")[-1]["finished"]
        client.close()
    await until(lambda: not gateway.streams)


LINES = 1500
"""Requests, each with a line of the access log: 2 KiB each, three times what waits for a standard error."""
TOLD = re.compile(r'"msg":"(\d+) log lines were dropped"')
ACCESS_LOG = "[server]\nport = 0\naccess_log = true\n"


async def ask_for_lines(server: Server) -> None:
    """Sends `LINES` requests, which all are answered, over connections to all workers."""
    clients = [await server.connect() for _ in range(2)]
    for _ in range(LINES // 20):
        for client in clients:
            for _ in range(10):
                client.request("GET", f"/{'x' * 2000}")
        for client in clients:
            for _ in range(10):
                response = await client.response()
                assert response.status == 404
                await response.rest()
    for client in clients:
        client.close()


def read(descriptor: int, lines: list[str]) -> None:
    """Appends the lines of a pipe, until nobody can write to it any more."""
    with open(descriptor, encoding="utf-8") as pipe:
        lines.extend(pipe)


def lines_reported(lines: list[str]) -> int:
    """Returns the number of dropped lines, as a log says itself."""
    return sum(int(match[1]) for match in map(TOLD.search, lines) if match)


async def dropped(server: Server) -> int:
    """Returns the number of dropped lines in the metrics."""
    lines = (await server.ask("GET", "/metrics")).body.decode().splitlines()
    [line] = [line for line in lines if line.startswith("gai_fast_log_lines_dropped_total ")]
    return int(float(line.split()[1]))


@pytest.mark.parametrize("workers", ["1", "2"])
@fault(44)
async def test_a_pipe_that_nobody_reads_holds_no_answer_up_and_the_log_says_what_it_lacks(
    bench: Bench, tmp_path: Path, workers: str
) -> None:
    (tmp_path / "gai-fast.toml").write_text(ACCESS_LOG)
    reader, writer = os.pipe()
    async with serving(bench.net, tmp_path, "--workers", workers, stderr=writer) as server:
        os.close(writer)
        await ask_for_lines(server)
        lost = await dropped(server)
        assert 0 < lost < LINES
        lines: list[str] = []
        reading = asyncio.create_task(asyncio.to_thread(read, reader, lines))
        await until(lambda: lines_reported(lines) >= lost)
        server.signal()
        assert await server.ended() == 0
        await reading
    assert lines_reported(lines) + sum('"method":"GET"' in line for line in lines) == LINES + 1, (
        "the last one is the scrape"
    )


@pytest.mark.parametrize("workers", ["1", "2"])
@fault(44)
async def test_a_pipe_that_is_never_read_holds_no_end_up(bench: Bench, tmp_path: Path, workers: str) -> None:
    (tmp_path / "gai-fast.toml").write_text(ACCESS_LOG)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, bytes(4096))
    os.set_blocking(writer, True)
    try:
        async with serving(bench.net, tmp_path, "--workers", workers, stderr=writer) as server:
            assert (await server.ask("GET", "/x")).status == 404
            server.signal()
            assert await server.ended() == 0
    finally:
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize("workers", ["1", "2"])
@fault(44)
async def test_a_full_disk_under_the_log_is_counted_and_harms_nobody(
    bench: Bench, tmp_path: Path, workers: str
) -> None:
    (tmp_path / "gai-fast.toml").write_text(ACCESS_LOG)
    full = os.open("/dev/full", os.O_WRONLY)
    async with serving(bench.net, tmp_path, "--workers", workers, stderr=full) as server:
        os.close(full)
        await ask_for_lines(server)

        async def all_are_counted() -> bool:
            return await dropped(server) >= LINES

        await until_answered(all_are_counted)
        server.signal()
        assert await server.ended() == 0
