"""Faults of the machine: rows 42 and 44 of docs/reliability.md."""

from __future__ import annotations

import asyncio
import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from gai_fast.settings import BreakerSettings
from tests.faults.bench import NATIVE, Bench, check_stream, fault
from tests.faults.test_upstream import ANSWER, TEXT
from tests.integration.gateway import DONE, FINISH, LAST_CHUNK, SSE_HEAD, Peer, delta
from tests.waiting import until
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
    assert gateway.running.engine.breaker_states() == {"up": "closed"}


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
    gateway = await bench.gateway(upstream.url, heartbeat=30)
    client, response = await bench.begin(gateway)
    await response.until(b'"a"')
    seconds, nanoseconds = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: seconds() + jump)
    monkeypatch.setattr(time, "time_ns", lambda: nanoseconds() + int(jump * 1e9))
    await asyncio.sleep(0.05)
    is_set.set()
    await response.rest()
    assert check_stream(response, "ab")[-1]["finished"]
    assert b": ping" not in response.body
    client.close()


@fault(44)
async def test_a_loop_that_was_held_up_times_nothing_out_whose_bytes_had_come(bench: Bench) -> None:
    """Also what a stopped and continued process sees (SIGSTOP)."""
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
    gateway = await bench.gateway(upstream.url, idle_timeout=0.3, first_event_timeout=0.3, total_timeout=30)
    begun = [await bench.begin(gateway) for _ in range(2)]
    for _, response in begun:
        await response.until(b'"a"')
    upstream_is_blocked.set()
    for client, response in begun:
        await response.rest()
        assert check_stream(response, "ab")[-1]["finished"]
        client.close()
    await until(lambda: not gateway.streams)
