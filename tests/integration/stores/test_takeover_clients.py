"""The project's own clients, and a browser's, unmodified, whose server or worker is killed during their streams."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import pytest

import gai_fast
from gai_fast.cli.mock.command import Mock
from tests.browser import chromium
from tests.integration.gateway import QUERY, Net
from tests.integration.javascript import Loop, begin, command
from tests.integration.processes import configure, serving
from tests.integration.stores.test_serve import folder as folder
from tests.integration.stores.test_takeover import is_asked
from tests.waiting import until_answered

ASKED: dict[str, Any] = {**QUERY, "model": "m", "resumable": True}
Read = Callable[[str], Coroutine[Any, Any, str]]


def whole_of(events: list[dict[str, Any]]) -> str:
    """Returns the text that a program has at the end: a gap voids what came since its `from`."""
    text = ""
    for event in events:
        if event["type"] == "text.delta":
            text += event["text"]
        elif event["type"] == "stream.gap":
            text = event["text"]
    assert events[-1] == {"type": "done", "finished": True}
    assert [event["type"] for event in events].count("finish") == 1
    return text


async def by_connect(url: str) -> str:
    async with gai_fast.connect(url) as gateway, gateway.stream(ASKED) as stream:
        return whole_of([dict(event) async for event in stream])


async def by_module(url: str, transport: str) -> str:
    driver = await begin({**command(url, transport=transport), "request": ASKED})
    [loop] = await driver.end()
    assert isinstance(loop, Loop)
    assert loop.thrown is None
    return whole_of(loop.events)


LISTEN = """(() => {
  window.events = [];
  const source = new EventSource("/api/v1/stream?q=Hi&model=m");
  for (const type of ["start", "text.delta", "stream.gap", "warning", "finish", "error", "done"]) {
    source.addEventListener(type, (event) => {
      if (event.data === undefined) return; // the connection was cut: it comes back by itself
      window.events.push(JSON.parse(event.data));
      if (type === "done") source.close();
    });
  }
  return true;
})()"""


async def by_event_source(url: str) -> str:
    """That of Chromium."""
    with tempfile.TemporaryDirectory() as name:
        async with chromium.launch(Path(name)) as browser, browser.page() as page:
            await page.open(f"{url}/")
            await page.evaluate(LISTEN)
            await page.until("window.events.at(-1)?.type === 'done'")
            return whole_of(await page.evaluate("window.events"))


CLIENTS: dict[str, Read] = {
    "EventSource": by_event_source,
    "connect": by_connect,
    "gai-fast.js": partial(by_module, transport="sse"),
    "gai-fast.js, lines": partial(by_module, transport="ndjson"),
    "gai-fast.js, a socket": partial(by_module, transport="ws"),
}


async def kill_amid(processes: Callable[[], Iterable[int]], mock: Mock) -> None:
    """Kills the process that runs the only stream.

    Args:
        processes: Returns those that may run it.
        mock: Its upstream.
    """
    await until_answered(partial(is_asked, mock, 1))
    await asyncio.sleep(0.6)  # some of it is with the client, and stored
    port = int(mock.url.rpartition(":")[2])
    [process] = [each for each in processes() if is_connected(each, port)]
    os.kill(process, signal.SIGKILL)


def is_connected(process: int, port: int) -> bool:
    """Returns whether a process has a connection to a port of this machine."""
    inodes = set()
    for descriptor in Path(f"/proc/{process}/fd").iterdir():
        name = str(descriptor.readlink())
        if name.startswith("socket:["):
            inodes.add(name[8:-1])
    for line in Path(f"/proc/{process}/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[9] in inodes and int(fields[2].rpartition(":")[2], 16) == port:
            return True
    return False


@asynccontextmanager
async def alone(net: Net, folder: Path, mock: Mock) -> AsyncIterator[str]:
    """Runs a server that is not killed; yields its host. From its end on the upstream takes its time."""
    configure(folder, mock)
    async with serving(net, folder, "--port", "0") as server:
        yield server.host
    mock.requests.clear()
    mock.rate = 60


@asynccontextmanager
async def two_servers(net: Net, folder: Path, mock: Mock, url: str) -> AsyncIterator[tuple[str, list[int]]]:
    """Runs two servers on one socket, over one store; yields their host, and their processes."""
    configure(folder, mock, more='[stream]\non_midstream_failure = "continue"\n')
    config = folder / "gai-fast.toml"
    config.write_text(config.read_text().replace("port = 0", "port = 0\nallow_get_start = true"))
    with socket.create_server(("127.0.0.1", 0), backlog=100) as shared:
        arguments = ("--fd", shared, "--store", url)
        async with serving(net, folder, *arguments) as first, serving(net, folder, *arguments) as second:
            yield first.host, [first.process.pid, second.process.pid]


@pytest.mark.parametrize("client", CLIENTS)
async def test_a_client_goes_on_at_another_server_without_knowing_of_it(
    net: Net, folder: Path, url: str, client: str, unavailable: Callable[[str], NoReturn]
) -> None:
    if client == "EventSource" and chromium.executable() is None:
        unavailable("Chromium")
    async with Mock(deltas=150, rate=0) as mock:
        async with alone(net, folder, mock) as host:
            text = await by_connect(f"http://{host}")
        async with two_servers(net, folder, mock, url) as (host, processes):
            reading = asyncio.create_task(CLIENTS[client](f"http://{host}"))
            await kill_amid(lambda: processes, mock)
            assert await reading == text
            assert len(mock.requests) == 2


@pytest.mark.parametrize("client", ["connect", "gai-fast.js, a socket"])
async def test_a_client_goes_on_in_another_worker_without_knowing_of_it(
    net: Net, folder: Path, url: str, client: str
) -> None:
    async with Mock(deltas=150, rate=0) as mock:
        async with alone(net, folder, mock) as host:
            text = await by_connect(f"http://{host}")
        configure(folder, mock, more='[stream]\non_midstream_failure = "continue"\n')
        async with serving(net, folder, "--port", "0", "--workers", "3", "--store", url) as server:
            reading = asyncio.create_task(CLIENTS[client](f"http://{server.host}"))
            await kill_amid(lambda: server.workers_in_order, mock)
            assert await reading == text
            assert len(mock.requests) == 2
