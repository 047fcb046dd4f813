"""The end of a server: nobody is refused, what can end within `grace` ends, and the rest ends with an error."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from gai_fast.cli.mock.command import Mock
from tests.integration.gateway import QUERY, Net, until
from tests.integration.processes import Server, configure, hold, release, run_forked, serving
from tests.integration.test_cli import PATIENCE, environment
from tests.terminal import Terminal

RESTARTS = int(os.environ.get("GAI_FAST_RESTARTS", "3"))
"""Rolling restarts under load."""


async def test_a_stream_that_can_end_within_grace_does_and_new_clients_are_answered(net: Net, tmp_path: Path) -> None:
    async with Mock() as mock:
        hold(mock)
        configure(tmp_path, mock, grace=PATIENCE)
        async with serving(net, tmp_path) as server:
            client, response = await server.stream()
            kept = await server.connect()
            assert "connection" not in (await kept.ask("GET", "/healthz")).headers
            server.signal()
            await server.drains()
            assert (await kept.ask("GET", "/healthz")).headers["connection"] == "close"
            assert await kept.is_closed()
            late, answer = await server.stream()
            assert answer.headers["connection"] == "close"
            release(mock)
            for each in (response, answer):
                await each.rest()
                assert each.ended
                assert each.types[-2:] == ["finish", "done"]
            assert await client.is_closed()
            assert await late.is_closed()
            assert await server.ended() == 0


async def test_what_outlasts_grace_is_reported_and_ends_properly(net: Net, tmp_path: Path) -> None:
    async with Mock(deltas=10_000, rate=20) as mock:
        configure(tmp_path, mock, grace=0.5)
        async with serving(net, tmp_path) as server:
            _, response = await server.stream()
            waiting = await server.connect()
            waiting.request("POST", "/api/v1/stream", {**QUERY, "stream": False})
            await until(lambda: len(mock.requests) == 2)
            server.signal()
            await response.rest()
            assert response.ended, "the body has its end, so it is complete"
            assert response.types[-2:] == ["error", "done"]
            error = response.events[-2]["error"]
            assert (error["code"], error["reason"], error["temporary"]) == ("overloaded", "draining", True)
            whole = await (await waiting.response()).rest()
            assert (whole.status, whole.error["reason"]) == (503, "draining")
            assert await server.ended() == 0


async def test_a_durable_stream_that_outlasts_grace_is_cut_off_after_a_frame_that_says_when_to_come_back(
    net: Net, tmp_path: Path
) -> None:
    async with Mock(deltas=10_000, rate=20) as mock:
        configure(tmp_path, mock, grace=0.3)
        async with serving(net, tmp_path) as server:
            client, response = await server.stream({**QUERY, "resumable": True})
            await response.until(b"event: text.delta")
            server.signal()
            await response.rest()
            assert not response.ended, "it goes on elsewhere, or later"
            frames = response.body.split(b"\n\n")
            assert frames[-1] == b""
            kind, identifier, retry, data = frames[-2].split(b"\n")
            assert (kind[:6], identifier[:3], data[:6]) == (b"event:", b"id:", b"data: ")
            assert 1000 <= int(retry.removeprefix(b"retry: ")) <= 5000
            assert not any(b"\nretry:" in frame for frame in frames[1:-2])
            client.close()
            assert await server.ended() == 0


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_the_server_at_once(net: Net, tmp_path: Path, second: signal.Signals) -> None:
    async with Mock(deltas=10_000, rate=20) as mock:
        configure(tmp_path, mock, grace=600)
        async with serving(net, tmp_path) as server:
            _, response = await server.stream()
            server.signal()
            await server.drains()
            server.signal(second)
            await response.rest()
            assert response.types[-2:] == ["error", "done"]
            assert await server.ended() == 0


async def test_nobody_is_refused_or_reset_while_servers_follow_each_other_on_one_socket(
    net: Net, tmp_path: Path
) -> None:
    """Clients on new and on kept connections go on asking; each server drains as soon as its successor is up."""
    asked = 0
    is_over = False

    async def ask_always(host: str, *, keeps: bool) -> None:
        nonlocal asked
        client = await net.connect(host)
        while not is_over:
            response = await client.ask("POST", "/api/v1/stream", QUERY)
            assert response.ended
            assert response.types[-2:] == ["finish", "done"]
            asked += 1
            if not keeps or response.headers.get("connection") == "close":
                client.close()
                client = await net.connect(host)
        client.close()

    async with Mock(deltas=5, rate=0) as mock, AsyncExitStack() as stack:
        configure(tmp_path, mock, grace=PATIENCE)
        shared = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=1000))

        async def start() -> Server:
            return await stack.enter_async_context(serving(net, tmp_path, "--fd", shared))

        server = await start()
        assert server.host == f"127.0.0.1:{shared.getsockname()[1]}"
        clients = [asyncio.create_task(ask_always(server.host, keeps=keeps)) for keeps in (True, False) for _ in "ab"]
        for _ in range(RESTARTS):
            successor = await start()
            server.signal()
            assert await server.ended() == 0
            before = asked
            await until(lambda before=before: asked > before + 10 or any(each.done() for each in clients))
            server = successor
        is_over = True
        await asyncio.gather(*clients)


async def test_a_unix_socket_is_served_and_removed(net: Net, tmp_path: Path) -> None:
    path = tmp_path / "gai.sock"
    async with Terminal() as terminal:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gai_fast", "serve", "--uds", str(path),
            stdout=terminal.descriptor, cwd=tmp_path, env=environment(),
        )  # fmt: skip
        banner = (await asyncio.wait_for(terminal.reader.readuntil(b"flush=True)\n"), PATIENCE)).decode()
    try:
        assert f"curl -N --unix-socket {path} http://localhost/api/v1/stream" in banner
        assert f"uds='{path}'" in banner
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"GET /version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert (await asyncio.wait_for(reader.read(), PATIENCE)).startswith(b"HTTP/1.1 200 OK")
        writer.close()
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), PATIENCE) == 0
        assert not path.exists()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--fd", "77"), 3, "error: cannot listen on descriptor 77: Bad file descriptor: --fd is for a socket that"),
        (
            ("--uds", "missing/s"),
            3,
            "error: cannot listen on missing/s: No such file or directory: make its folder first\n",
        ),
        (("--uds", "."), 3, "error: cannot listen on .: it is no socket: remove it, or choose another path\n"),
        (("--uds", "x" * 200), 2, "error: --uds: `uds` in [server] must be a path of at most 103 bytes"),
    ],
)
async def test_what_cannot_be_listened_on_is_one_clear_line(
    tmp_path: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    ended, output, errors = await run_forked("serve", *arguments, cwd=tmp_path)
    assert (ended, output) == (code, "")
    assert errors.startswith(said)
    assert errors.count("\n") == 1


async def test_an_inherited_socket_that_others_reach_needs_a_word_for_it(tmp_path: Path) -> None:
    with socket.create_server(("0.0.0.0", 0)) as opened:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gai_fast", "serve", "--fd", str(opened.fileno()),
            stderr=asyncio.subprocess.PIPE, cwd=tmp_path, env=environment(), pass_fds=(opened.fileno(),),
        )  # fmt: skip
        _, errors = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert process.returncode == 2
    assert b"is open to other machines" in errors
    assert errors.count(b"\n") == 1
