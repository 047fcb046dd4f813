"""Unix sockets and inherited ones: `--uds`, `--fd`, systemd's socket activation, with one process and with workers."""

from __future__ import annotations

import asyncio
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.integration.certificates import Authority
from tests.integration.test_cli import PATIENCE, environment
from tests.terminal import Terminal
from tests.waiting import until_answered

WORKERS = pytest.mark.parametrize("workers", ["1", "2"])
ACTIVATED = """
import os, socket, sys
opened = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(each.getsockname()[1] for each in opened), flush=True)
for at, each in enumerate(opened):
    os.dup2(each.fileno(), 100 + at)
for at in range(2):
    os.dup2(100 + at, 3 + at)  # inheritable
os.environ["LISTEN_FDS"], os.environ["LISTEN_PID"] = "2", str(os.getpid())
os.execv(sys.executable, [sys.executable, "-m", "gai_fast", "serve", *sys.argv[1:]])
"""
"""Does as systemd: opens sockets, and becomes the server."""


@asynccontextmanager
async def started(
    folder: Path, *arguments: str, program: tuple[str, ...] = ("-m", "gai_fast", "serve")
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """Yields a server; its banner, and what its parent has printed before."""
    async with Terminal() as terminal:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *program, *arguments, stdout=terminal.descriptor, cwd=folder, env=environment()
        )
        try:
            banner = await asyncio.wait_for(terminal.reader.readuntil(b"flush=True)\n"), PATIENCE)
            yield process, banner.decode()
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def ask(address: str | tuple[str, int], host: str = "localhost") -> bytes:
    """Returns the status line of `/healthz`."""
    if isinstance(address, str):
        reader, writer = await asyncio.open_unix_connection(address)
    else:
        reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(f"GET /healthz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        return (await asyncio.wait_for(reader.read(), PATIENCE)).split(b"\r\n")[0]
    finally:
        writer.close()


OK, FORBIDDEN = b"HTTP/1.1 200 OK", b"HTTP/1.1 403 Forbidden"


@WORKERS
async def test_a_unix_socket_is_its_groups_and_counts_as_loopback(tmp_path: Path, workers: str) -> None:
    path = tmp_path / "gai.sock"
    async with started(tmp_path, "--uds", str(path), "--workers", workers) as (process, banner):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert await ask(str(path)) == OK
        assert await ask(str(path), "api.example.com") == FORBIDDEN
        (line,) = [line for line in banner.splitlines() if line.startswith("curl ")]
        done = await asyncio.to_thread(
            subprocess.run, ["bash", "-c", line], capture_output=True, timeout=PATIENCE, check=False
        )
        assert done.stdout.endswith(b'data: {"type":"done","finished":true}\n\n'), done.stderr
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), PATIENCE) == 0
    assert not path.exists()


@WORKERS
async def test_the_socket_of_a_dead_server_is_replaced_and_that_of_a_living_one_is_not(
    tmp_path: Path, workers: str
) -> None:
    path = tmp_path / "gai.sock"
    arguments = ("--uds", str(path), "--workers", workers)
    async with started(tmp_path, *arguments) as (first, _):
        second = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gai_fast", "serve", *arguments,
            stderr=asyncio.subprocess.PIPE, cwd=tmp_path, env=environment(),
        )  # fmt: skip
        _, errors = await asyncio.wait_for(second.communicate(), PATIENCE)
        assert (second.returncode, errors) == (
            3,
            f"error: cannot listen on {path}: in use by another program\n".encode(),
        )
        assert await ask(str(path)) == OK
        first.kill()
        await first.wait()
    assert path.exists()

    async def is_free() -> bool:  # workers end after their supervisor
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(path)) != 0

    await until_answered(is_free)
    async with started(tmp_path, *arguments):
        assert await ask(str(path)) == OK


async def test_tls_over_a_unix_socket(tmp_path: Path, authority: Authority) -> None:
    path = tmp_path / "gai.sock"
    pair = ("--tls-cert", str(authority.folder / "good.pem"), "--tls-key", str(authority.folder / "good.key"))
    async with started(tmp_path, "--uds", str(path), *pair) as (_, banner):
        (line,) = [line for line in banner.splitlines() if line.startswith("curl ")]
        assert f"--unix-socket {path} https://localhost/" in line
        done = await asyncio.to_thread(
            subprocess.run, ["bash", "-c", line.replace("curl -N", f"curl -N --cacert {authority.folder}/ca.pem")],
            capture_output=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        assert done.stdout.endswith(b'data: {"type":"done","finished":true}\n\n'), done.stderr


@WORKERS
async def test_systemd_hands_over_its_sockets(tmp_path: Path, workers: str) -> None:
    program = ("-c", ACTIVATED)
    async with started(tmp_path, "--fd", "3", "--workers", workers, program=program) as (process, said):
        ports, rest = said.split("\n", 1)
        first, second = map(int, ports.split())
        assert f"on http://127.0.0.1:{first}" in rest
        for port in (first, second, first):
            assert await ask(("127.0.0.1", port)) == OK
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), PATIENCE) == 0


@WORKERS
async def test_a_descriptor_that_is_no_listening_socket_is_one_clear_line(tmp_path: Path, workers: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gai_fast", "serve", "--fd", str(client.fileno()), "--workers", workers,
            stderr=asyncio.subprocess.PIPE, cwd=tmp_path, env=environment(), pass_fds=(client.fileno(),),
        )  # fmt: skip
        _, errors = await asyncio.wait_for(process.communicate(), PATIENCE)
        result = (
            f"error: cannot listen on descriptor {client.fileno()}: it is a connection, no socket that can listen\n"
        )
        assert (process.returncode, errors.decode()) == (3, result)
