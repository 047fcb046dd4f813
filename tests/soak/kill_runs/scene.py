"""The processes of the soak, and what is done to them: two servers over one store, the tools, and the store itself."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Final

from tests.integration.forked import ForkedProcess
from tests.integration.stores.servers import RedisServer
from tests.integration.test_cli import environment
from tests.ports import free_port
from tests.soak.client import CutError, SilenceError
from tests.soak.kill_runs.clients import fetch
from tests.soak.kill_runs.judge import Fault, FaultKind
from tests.soak.kill_runs.plans import SERVER, TOOLS

PATIENCE: Final = 90.0
PAUSE: Final = 0.03
"""Seconds between two deltas of the model. A call takes up to four times as long."""
_AWAY: Final = 1.0
"""The longest time for which a tool server or Redis is gone, in seconds."""
_STOPPED: Final = (0.5, 7.0)
"""Seconds for which Redis is stopped: its clients wait for 5."""
_LOCKED: Final = (0.5, 4.0)
"""Seconds for which a file is locked: its users wait for 2."""
_TOOL: Final = """\
[[tool]]
name = "{name}"
description = "A tool"
parameters = {{type = "object", properties = {{run = {{type = "string"}}}}, required = ["run", "step", "at"]}}
url = "http://127.0.0.1:{port}/{name}"
idempotent = {idempotent}
approve = {approve}
"""
_SERVER: Final = """\
[[tool_server]]
name = "{name}"
url = "http://127.0.0.1:{port}/mcp"
"""
_CONFIGURATION: Final = """\
[server]
port = 0
[store]
url = "{url}"
sync = "{sync}"
[[upstream]]
name = "up"
provider = "openai-compatible"
base_url = "http://127.0.0.1:{port}/v1"
[[model]]
name = "m"
upstream = "up"
tools = ["*"]
"""


class Server:
    """A server of the soak.

    Args:
        process: Its first process.
        host: Its address.
        workers: How many workers it has.
    """

    def __init__(self, process: ForkedProcess, host: str, workers: int) -> None:
        self.process = process
        self.host = host
        self._workers = workers

    @property
    def workers(self) -> list[int]:
        """The processes of its workers. None if it is one process."""
        if self._workers == 1:
            return []
        pid = self.process.pid
        return [*map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]

    def kill(self) -> None:
        """Kills all of its processes."""
        for pid in [self.process.pid, *self.workers]:
            kill(pid)

    async def ended(self) -> None:
        """Returns once its first process has ended."""
        await self.process.wait()
        await self.process.__aexit__()


def kill(pid: int) -> None:
    """Ends a process at once, unless it has ended."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


class Scene:
    """Two servers, one of them with two workers, over one store, and the tool server. Used as a context.

    Args:
        folder: For all files.
        store: `memory`, `sqlite` or `redis`. With `memory` there is the first server alone.
        sync: `[store] sync`.
        model: The port of the model.
        random: Of what happens to them.

    Attributes:
        journal: The file of the tool server's journal.
    """

    def __init__(self, folder: Path, store: str, sync: str, model: int, random: Random) -> None:
        self.journal = folder / "journal"
        self.store = store
        self.sync = sync
        self._folder = folder
        self._random = random
        self._hosts = Random(0)  # asked for in no order
        self._servers: list[Server] = []
        self._tools: asyncio.subprocess.Process | None = None
        self._port = free_port()
        self._redis = _redis_in(folder) if store == "redis" else None
        url = {"memory": "memory://", "sqlite": f"sqlite:///{folder}/store.db"}.get(store, "")
        text = _CONFIGURATION.format(url=url or (self._redis and self._redis.url), sync=sync, port=model)
        text += _SERVER.format(name=SERVER, port=self._port)
        for name, may in TOOLS.items():
            if not name.startswith(SERVER):
                approve = str(name == "sign").lower()
                text += _TOOL.format(name=name, port=self._port, idempotent=str(may).lower(), approve=approve)
        (folder / "gai-fast.toml").write_text(text)
        self._log = (folder / "log").open("wb")

    @property
    def kinds(self) -> list[FaultKind]:
        """The faults that this store may have."""
        if self.store == "memory":
            return ["none", "worker", "tools"]
        return ["none", "worker", "server", "store", "tools"]

    @property
    def log(self) -> str:
        """What the servers have logged."""
        return (self._folder / "log").read_text(errors="replace")

    async def __aenter__(self) -> Scene:
        """Starts all."""
        self.journal.touch()
        if self._redis is not None:
            await asyncio.to_thread(self._redis.start)
        await self._start_tools()
        await self._start_servers()
        return self

    async def __aexit__(self, *problem: object) -> None:
        """Ends all."""
        await self._end_servers()
        if self._tools is not None:
            await self._kill_tools(self._tools)
        if self._redis is not None:
            self._redis.kill()
        self._log.close()

    def host(self) -> str:
        """Returns the address of a server: more often of the first one, which may be killed."""
        return self._hosts.choice([*self._servers[:1] * 3, *self._servers]).host

    async def _start_servers(self) -> None:
        counts = (2,) if self.store == "memory" else (2, 1)
        self._servers = [*await asyncio.gather(*map(self._start, counts))]

    async def renew(self) -> None:
        """Replaces all servers: those whose breakers are open would call no tool."""
        await self._end_servers()
        await self._start_servers()

    async def _end_servers(self) -> None:
        for server in self._servers:
            server.kill()
            await server.ended()

    async def _start(self, workers: int) -> Server:
        arguments = ("serve", "--workers", str(workers))
        process = ForkedProcess(arguments, self._folder, environment(), PATIENCE, self._log.fileno())
        await process.__aenter__()
        async with asyncio.timeout(PATIENCE):
            shown = (await process.stdout.readuntil(b"\nmodels: ")).decode()
        return Server(process, shown.splitlines()[0].rpartition(" ")[2].removeprefix("http://"), workers)

    # -- what happens --

    async def strike(self, kind: FaultKind) -> Fault:
        """Does something to a process; returns when it is back."""
        does: dict[FaultKind, Callable[[], Awaitable[tuple[float, float]]]] = {
            "none": self._do_nothing,
            "worker": self._lose_worker,
            "server": self._lose_server,
            "store": self._lose_store,
            "tools": self._lose_tools,
        }
        began, ended = await does[kind]()
        return Fault(kind, began, ended, self.store, self.sync)

    async def _do_nothing(self) -> tuple[float, float]:
        return time.monotonic(), time.monotonic()

    async def _lose_worker(self) -> tuple[float, float]:
        """Kills a worker of the server with two."""
        server = self._servers[0]
        lost = self._random.choice(server.workers)
        began = time.monotonic()
        kill(lost)
        ended = time.monotonic()
        async with asyncio.timeout(PATIENCE):
            while lost in server.workers or len(server.workers) < 2:  # noqa: ASYNC110  # the kernel sets no event
                await asyncio.sleep(0.05)
        return began, ended

    async def _lose_server(self) -> tuple[float, float]:
        """Kills the server with two workers. Another one takes its place."""
        server = self._servers.pop(0)
        began = time.monotonic()
        server.kill()
        ended = time.monotonic()
        await server.ended()
        self._servers.insert(0, await self._start(2))
        return began, ended

    async def _lose_store(self) -> tuple[float, float]:
        began = time.monotonic()
        if self._redis is None:
            await asyncio.to_thread(self._lock_file, self._random.uniform(*_LOCKED))
        elif self._random.random() < 0.5:
            self._redis.kill()
            await asyncio.sleep(self._random.uniform(0, _AWAY))
            await asyncio.to_thread(self._redis.start)
        else:
            self._redis.pause()
            await asyncio.sleep(self._random.uniform(*_STOPPED))
            self._redis.resume()
        return began, time.monotonic()

    def _lock_file(self, seconds: float) -> None:
        connection = sqlite3.connect(self._folder / "store.db", timeout=PATIENCE, isolation_level=None)
        try:
            connection.execute("BEGIN EXCLUSIVE")
            time.sleep(seconds)
            connection.execute("ROLLBACK")
        finally:
            connection.close()

    async def _lose_tools(self) -> tuple[float, float]:
        assert self._tools is not None
        began = time.monotonic()
        await self._kill_tools(self._tools)
        await asyncio.sleep(self._random.uniform(0, _AWAY))
        await self._start_tools()
        return began, time.monotonic()

    async def until_well(self) -> None:
        """Returns once all servers have their store."""
        async with asyncio.timeout(PATIENCE):
            while not all([await _is_well(server.host) for server in self._servers]):  # noqa: ASYNC110  # none is sent
                await asyncio.sleep(0.1)

    # -- the tool server --

    async def _start_tools(self) -> None:
        arguments = (str(self._port), str(self.journal), str(4 * PAUSE))
        self._tools = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.soak.kill_runs.tool_server", *arguments, stdout=asyncio.subprocess.PIPE
        )
        assert self._tools.stdout is not None
        async with asyncio.timeout(PATIENCE):
            await self._tools.stdout.readuntil(b"listens\n")

    async def _kill_tools(self, tools: asyncio.subprocess.Process) -> None:
        kill(tools.pid)
        await tools.wait()


def _redis_in(folder: Path) -> RedisServer:
    """Returns a Redis that has all that it has answered, whenever it is killed."""
    (folder / "redis").mkdir()
    return RedisServer(folder / "redis", "--appendonly", "yes", "--appendfsync", "always")


async def _is_well(host: str) -> bool:
    with suppress(CutError, SilenceError):
        ready = await fetch(host, "GET", "/readyz")
        return b'"degraded"' not in ready.body and ready.status == 200
    return False
