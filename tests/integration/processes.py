"""A gateway in processes of its own, as `gai-fast serve` runs it."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from gai_fast.cli.mock.command import Mock
from tests.integration.forked import ForkedProcess
from tests.integration.gateway import QUERY, Client, Net, Response, until
from tests.integration.test_cli import PATIENCE, environment

forkserver.ensure_running()  # before a test counts the open files of this process, which has its pipes


class Server:
    """A server that is up."""

    def __init__(self, net: Net, process: ForkedProcess, url: str) -> None:
        self.net = net
        self.process = process
        self.host = url.partition("://")[2]

    async def connect(self) -> Client:
        """Returns a new connection."""
        return await self.net.connect(self.host)

    async def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Response:
        """One exchange on a connection of its own."""
        client = await self.connect()
        response = await client.ask(method, path, body, headers)
        client.close()
        return response

    async def stream(self, body: Any = QUERY) -> tuple[Client, Response]:
        """Asks for a stream; the response's head has been read."""
        client = await self.connect()
        client.request("POST", "/api/v1/stream", body)
        return client, await client.response()

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Sends a signal to its first process."""
        self.process.send_signal(number)

    @property
    def workers(self) -> set[int]:
        """The processes that its first one has made; Linux only."""
        return set(self.workers_in_order)

    @property
    def workers_in_order(self) -> list[int]:
        """The same, the first one made first: their numbers may begin anew meanwhile."""
        pid = self.process.pid
        return [*map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]

    async def drains(self) -> None:
        """Returns once the server says that it drains."""
        async with asyncio.timeout(PATIENCE):
            while (response := await self.ask("GET", "/readyz")).status != 503:
                assert response.status == 200
            assert response.json == {"status": "draining"}

    async def said(self, words: str) -> str:
        """Reads its log up to a line with these words; returns the line."""
        assert self.process.stderr is not None
        async with asyncio.timeout(PATIENCE):
            while line := (await self.process.stderr.readline()).decode():
                if words in line:
                    return line
        raise AssertionError(f"the server ended without saying {words!r}")

    async def ended(self) -> int:
        """Its exit code."""
        return await asyncio.wait_for(self.process.wait(), PATIENCE)


async def run_forked(*arguments: str, cwd: Path, **environ: str) -> tuple[int, str, str]:
    """Runs a command line that ends; returns its exit code, and what it printed to its output and to its errors."""
    async with ForkedProcess(arguments, cwd, environment(**environ), PATIENCE, asyncio.subprocess.PIPE) as process:
        assert process.stderr is not None
        async with asyncio.timeout(PATIENCE):
            output, errors = await asyncio.gather(process.stdout.read(), process.stderr.read())
            return await process.wait(), output.decode(), errors.decode()


@asynccontextmanager
async def serving(
    net: Net, folder: Path, *arguments: str | socket.socket, stderr: int = asyncio.subprocess.PIPE
) -> AsyncIterator[Server]:
    """Runs a server with the configuration of a folder.

    Args:
        net: For its clients.
        folder: That of the configuration.
        arguments: Those of the command line; a socket becomes the number of its descriptor, which the server inherits.
        stderr: Its standard error: a descriptor, or a pipe, of which only what `Server.said` asks for is read.
    """
    # Time for the end of a server: a machine that stands still for a second takes none of it.
    async with ForkedProcess(("serve", *arguments), folder, environment(), PATIENCE, stderr) as process:
        try:
            shown = (await asyncio.wait_for(process.stdout.readuntil(b"\nmodels: "), PATIENCE)).decode()
        except asyncio.IncompleteReadError:
            said = b"" if process.stderr is None else await process.stderr.read()
            raise AssertionError(said.decode()) from None
        yield Server(net, process, shown.splitlines()[0].rpartition(" ")[2])


def configure(folder: Path, mock: Mock, grace: float = PATIENCE, more: str = "") -> None:
    """Writes a configuration whose model `m` is the mock."""
    (folder / "gai-fast.toml").write_text(
        f"[server]\nport = 0\ngrace = {grace}\n"
        f'[[upstream]]\nname = "up"\nprovider = "openai-compatible"\nbase_url = "{mock.url}/v1"\n'
        f'[[model]]\nname = "m"\nupstream = "up"\n{more}'
    )


def hold(mock: Mock) -> None:
    """Answers that begin now go on until `release`, but for two minutes at most."""
    mock.deltas, mock.rate = 600, 5


def release(mock: Mock) -> None:
    """Ends the answers of `hold`."""
    mock.rate = 0


async def settled(server: Server, count: int) -> set[int]:
    """Waits until a server has so many workers; returns their processes."""
    await until(lambda: len(server.workers) == count)
    return server.workers
