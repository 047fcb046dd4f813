"""A redis-server of the tests' own: on a free port, in a folder of its own, ended by its own process id."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.ports import free_port
from tests.waiting import SECONDS

NAMED = os.environ.get("GAI_FAST_REDIS_SERVER")
PROGRAM = shutil.which(NAMED) if NAMED else shutil.which("redis-server") or shutil.which("valkey-server")


class RedisServer:
    """One server process.

    Args:
        folder: An empty folder for its files.
        options: More of the server's own options.
        watched: The server that this one, a Sentinel, knows as `main`.
    """

    def __init__(self, folder: Path, *options: str, watched: RedisServer | None = None) -> None:
        self._watched = watched
        self.folder = folder
        self.port = free_port()
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Starts it, and waits until it answers."""
        assert PROGRAM is not None
        files = ("--dir", str(self.folder), "--save", "", "--appendonly", "no")
        address = ("--bind", "127.0.0.1", "--port", str(self.port), "--logfile", str(self.folder / "log"))
        if self._watched is not None:
            config = self.folder / "sentinel.conf"
            config.write_text(f"sentinel monitor main 127.0.0.1 {self._watched.port} 1\n")
            files = ("--dir", str(self.folder), "--sentinel")
            address = (str(config), *address)
        self._process = subprocess.Popen([PROGRAM, *address, *files, *self._options], stdout=subprocess.DEVNULL)
        until = time.monotonic() + SECONDS
        while not self._answers():
            assert self._process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < until, "redis-server does not answer"
            time.sleep(0.02)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as client:
            client.sendall(b"PING\r\n")
            return client.recv(100).startswith((b"+PONG", b"-NOAUTH"))
        return False

    def command(self, *words: str | bytes) -> bytes:
        """Sends one command; returns the raw reply."""
        parts = [word.encode() if isinstance(word, str) else word for word in words]
        with socket.create_connection(("127.0.0.1", self.port), SECONDS) as client:
            client.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts))
            return client.recv(1 << 20)

    def pause(self) -> None:
        """Stops the process: it hangs."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Lets a paused process go on."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """Ends the process at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _signal(self, number: int) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)


FAULTS: dict[str, tuple[Callable[[RedisServer], object], Callable[[RedisServer], object]]] = {
    "is gone": (RedisServer.kill, RedisServer.start),
    "is a replica": (
        lambda server: server.command("REPLICAOF", "127.0.0.1", "1"),
        lambda server: server.command("REPLICAOF", "NO", "ONE"),
    ),
    "is full": (
        lambda server: server.command("CONFIG", "SET", "maxmemory", "1mb"),
        lambda server: server.command("CONFIG", "SET", "maxmemory", "0"),
    ),
}
"""How a server comes to answer no more, or not as it should, and how it answers again."""


class SlowLink:
    """A link to a server that takes for ever for a large reply, and no time for others.

    Args:
        server: The server.

    Attributes:
        is_slow: Whether it does.
    """

    LARGE = 256 * 1024

    def __init__(self, server: RedisServer) -> None:
        self.is_slow = False
        self._server = server
        self._over = asyncio.Event()

    async def open(self) -> str:
        """Opens it, and returns the URL of the server behind it."""
        self._listening = await asyncio.start_server(self._link, "127.0.0.1", 0)
        port = self._listening.sockets[0].getsockname()[1]
        return self._server.url.replace(f":{self._server.port}", f":{port}")

    async def close(self) -> None:
        self._listening.close()
        self._over.set()

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, to_server = await asyncio.open_connection("127.0.0.1", self._server.port)
        reply = 0

        async def ask() -> None:
            nonlocal reply
            while data := await reader.read(1 << 16):
                reply = 0
                to_server.write(data)

        async def answer() -> None:
            nonlocal reply
            while data := await there.read(1 << 16):
                reply += len(data)
                if self.is_slow and reply > self.LARGE:
                    await self._over.wait()
                writer.write(data)

        both = [asyncio.ensure_future(each()) for each in (ask, answer, self._over.wait)]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        for each in both:
            each.cancel()
        await asyncio.gather(*both, return_exceptions=True)
        writer.close()
        to_server.close()
