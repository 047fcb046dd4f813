"""The address a server listens on, its routes, and its start and end."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web

from gai_fast.model.settings import LimitSettings, ModelSettings, ServerSettings, Settings, UpstreamSettings
from gai_fast.runtime.functions import FunctionError
from gai_fast.server import serving
from gai_fast.server.edge.connections import OpenConnections
from gai_fast.server.edge.listening import CannotListen
from gai_fast.server.routes.table import ROUTES
from gai_fast.server.serving import BoundAddresses, RunningServer, serve, start
from tests.waiting import SECONDS

DEMO = UpstreamSettings("demo", "demo", "")
SETTINGS = Settings(
    server=ServerSettings(port=0), upstreams={"demo": DEMO}, models={"demo": ModelSettings("demo", DEMO, "demo")}
)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_serving_ends_with_a_signal(number: signal.Signals) -> None:
    urls: list[str] = []

    def ready(url: str) -> None:
        urls.append(url)
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), number)

    async with asyncio.timeout(SECONDS):
        await serve(SETTINGS, ready=ready, load_settings=pytest.fail)
    (url,) = urls
    with pytest.raises(OSError, match=r"."):
        await asyncio.open_connection(*url.removeprefix("http://").split(":"))
    forget_signals()


SERVED_WITHOUT_TOOLS = """\
import asyncio, json, sys, urllib.request
from gai_fast.model.settings import ModelSettings, ServerSettings, Settings, UpstreamSettings
from gai_fast.server.serving import start

upstream = UpstreamSettings("demo", "demo", "")
server = ServerSettings(port=0)
models = {"demo": ModelSettings("demo", upstream, "demo")}
settings = Settings(server=server, upstreams={"demo": upstream}, models=models)
said = {"model": "demo", "stream": True, "max_tokens": 99, "messages": [{"role": "user", "content": "hi"}]}

def ask(url, path, body):
    request = urllib.request.Request(url + path, json.dumps(body).encode(), {"content-type": "application/json"})
    return urllib.request.urlopen(request, timeout=60).read()

async def main():
    running = await start(settings)
    for path, body in (
        ("/api/v1/stream", {**said, "resumable": True}),
        ("/api/v1/stream?format=vercel", said),
        ("/v1/chat/completions", said),
        ("/v1/messages", said),
        ("/v1/responses", {"model": "demo", "input": "hi", "stream": True}),
    ):
        assert await asyncio.to_thread(ask, running.url, path, body), path
    await running.close()

asyncio.run(main())
print([name for name in sys.modules if name.startswith(("gai_fast.net.tools", "gai_fast.net.toolbox"))])
"""


def test_who_serves_without_tools_imports_nothing_of_theirs() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SERVED_WITHOUT_TOOLS],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.stdout == "[]\n", done.stderr


async def test_a_signal_while_it_starts_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A function of the user's may wait for ever, as for a database."""
    left = []

    async def start(settings: Settings, record: object, bound: BoundAddresses) -> None:
        bound.sockets[0].close()
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGTERM)
        try:
            await asyncio.Event().wait()
        finally:
            left.append(settings)

    monkeypatch.setattr(serving, "start", start)
    async with asyncio.timeout(SECONDS):
        await serve(SETTINGS, ready=pytest.fail, load_settings=pytest.fail)
    assert left == [SETTINGS]
    forget_signals()


async def test_a_new_configuration_has_a_new_limit_of_connections() -> None:
    running = await start(dataclasses.replace(SETTINGS, limits=LimitSettings(connections=1)))
    address = running.url.removeprefix("http://").split(":")

    async def status() -> bytes:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
        first = await reader.readline()
        left.append(writer)
        return first.split()[1]

    left: list[asyncio.StreamWriter] = []
    try:
        assert [await status(), await status()] == [b"200", b"503"]
        running.use(dataclasses.replace(SETTINGS, limits=LimitSettings(connections=2)))
        assert await status() == b"200"
    finally:
        for writer in left:
            writer.close()
        await running.close()


async def test_a_hangup_reloads_the_configuration_for_requests_that_follow() -> None:
    loaded = asyncio.Event()

    def load() -> Settings:
        loaded.set()
        return dataclasses.replace(SETTINGS, models={"other": ModelSettings("other", DEMO, "demo")})

    async def models(url: str) -> list[str]:
        async with ClientSession(url) as client, client.get("/v1/models") as response:
            return [model["id"] for model in (await response.json())["data"]]

    url = asyncio.get_running_loop().create_future()
    async with asyncio.timeout(SECONDS):
        serving_ = asyncio.create_task(serve(SETTINGS, ready=url.set_result, load_settings=load))
        assert await models(await url) == ["demo"]
        os.kill(os.getpid(), signal.SIGHUP)
        await loaded.wait()
        assert await models(await url) == ["other"]
        os.kill(os.getpid(), signal.SIGTERM)
        await serving_
    forget_signals()


async def test_a_hangup_during_the_start_reloads_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    begin = start

    async def slow(settings: Settings, record: Path | None, bound: BoundAddresses) -> RunningServer:
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.sleep(0.05)
        return await begin(settings, record, bound)

    def load() -> Settings:
        loads.append("loaded")
        return SETTINGS

    loads: list[str] = []
    monkeypatch.setattr(serving, "start", slow)
    async with asyncio.timeout(SECONDS):
        await serve(SETTINGS, ready=lambda url: os.kill(os.getpid(), signal.SIGTERM), load_settings=load)
    assert loads == ["loaded"]
    forget_signals()


async def test_a_task_that_is_cancelled_while_it_starts_ends_as_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    async def start(settings: Settings, record: object, bound: BoundAddresses) -> None:
        bound.sockets[0].close()
        await asyncio.Event().wait()

    monkeypatch.setattr(serving, "start", start)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await serve(SETTINGS, ready=pytest.fail, load_settings=pytest.fail)
    forget_signals()


def forget_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().remove_signal_handler(number)


async def test_a_hangup_that_was_ignored_from_the_start_stays_so() -> None:
    """`nohup` starts a program so."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        async with asyncio.timeout(SECONDS):
            await serve(SETTINGS, ready=lambda url: os.kill(os.getpid(), signal.SIGTERM), load_settings=pytest.fail)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
        asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)
        asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)


async def test_a_started_server_says_where_it_is_and_closes_twice_without_harm() -> None:
    running = await start(SETTINGS)
    host, port = running.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(f"GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert (await reader.readline()) == b"HTTP/1.1 200 OK\r\n"
    await running.close()
    assert (await reader.read()).endswith(b'{"status":"ok"}')
    writer.close()
    await running.close()


async def test_a_server_that_cannot_listen_everywhere_listens_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    class Taken(socket.socket):
        def listen(self, *_: int) -> None:
            raise OSError(errno.EADDRINUSE, "in use")

    first, second = socket.create_server(("127.0.0.1", 0)), Taken()
    second.bind(("127.0.0.1", 0))
    monkeypatch.setattr(serving, "listen", lambda *_: [first, second])
    with pytest.raises(CannotListen, match="in use"):
        await start(SETTINGS)
    assert first.fileno() == second.fileno() == -1


class Stuck(asyncio.Transport):
    """A transport whose client takes nothing."""

    def __init__(self, connections: OpenConnections) -> None:
        super().__init__()
        self._connections = connections
        self.calls: list[str] = []
        connections.add(self, self)

    def close(self) -> None:
        self.calls.append("close")

    def abort(self) -> None:
        self.calls.append("abort")
        asyncio.get_running_loop().call_soon(self._connections.remove, self)


async def test_a_server_that_closes_gives_up_clients_that_take_nothing() -> None:
    connections = OpenConnections()
    stuck = Stuck(connections)
    now = asyncio.get_running_loop().time()
    await asyncio.wait_for(serving.close_connections(connections, now + 0.02), SECONDS)
    assert stuck.calls == ["close", "abort"]
    await serving.close_connections(connections, now + 0.02)
    assert stuck.calls == ["close", "abort"], "it is gone"


async def test_an_extension_that_fails_at_the_end_keeps_no_connection_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def extend(app: web.Application) -> None:
        async def fail(app: web.Application) -> None:
            raise ZeroDivisionError

        app.on_cleanup.append(fail)

    monkeypatch.setattr(serving, "load", lambda name: extend)
    running = await serving.start(dataclasses.replace(SETTINGS, server=ServerSettings(port=0, app="mine:extend")))
    reader, writer = await asyncio.open_connection("127.0.0.1", int(running.url.rpartition(":")[2]))
    writer.write(b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
    assert await reader.read(12) == b"HTTP/1.1 200"
    with pytest.raises(ZeroDivisionError):
        await running.close()
    async with asyncio.timeout(SECONDS):
        await reader.read()
    assert [len(each) for each in running.connections] == [0, 0]
    writer.close()


def extend(app: web.Application) -> None:
    """An extension, as a user's module has it."""

    async def mine(request: web.Request) -> web.Response:
        return web.Response(text="mine")

    app.router.add_get("/mine", mine)
    app.router.add_get("/healthz", mine)


async def extend_later(app: web.Application) -> None:
    """An extension that the fast lane must not pass by."""

    async def sign(request: web.BaseRequest, response: web.StreamResponse) -> None:
        response.headers["X-Signed"] = "1"

    app.on_response_prepare.append(sign)


def extend_a_hot_path(app: web.Application) -> None:
    """An extension whose last route has the path of the server's first one."""

    async def mine(request: web.Request) -> web.Response:
        return web.Response(text="mine")

    app.router.add_post(ROUTES[0].path, mine)


async def test_a_users_route_goes_before_the_servers_of_the_same_path() -> None:
    """`serve` ended with `RuntimeError: Added route will never be executed`."""
    server = dataclasses.replace(SETTINGS.server, app=f"{__name__}:extend_a_hot_path")
    running = await start(dataclasses.replace(SETTINGS, server=server))
    try:
        async with ClientSession(running.url) as client:
            async with client.post(ROUTES[0].path, json={}) as response:
                assert await response.text() == "mine"
            async with client.delete(ROUTES[0].path) as response:
                assert (response.status, response.headers["Allow"]) == (405, "GET, OPTIONS, POST")
    finally:
        await running.close()


@pytest.mark.parametrize(
    ("server", "has_lane", "health"),
    [
        ({}, True, {"status": "ok"}),
        ({"fast_lane": "off"}, False, {"status": "ok"}),
        ({"app": f"{__name__}:extend"}, True, "mine"),
        ({"app": f"{__name__}:extend_later"}, False, {"status": "ok"}),
        ({"app": f"{__name__}:extend_a_hot_path"}, False, {"status": "ok"}),
    ],
)
async def test_a_users_function_adds_to_the_application_and_the_version_tells_of_the_lane(
    server: dict[str, Any], has_lane: bool, health: Any
) -> None:
    settings = dataclasses.replace(SETTINGS, server=dataclasses.replace(SETTINGS.server, **server))
    running = await start(settings)
    try:
        async with ClientSession(running.url) as client:
            async with client.get("/version") as response:
                assert (await response.json())["fast_lane"] is has_lane
                assert ("X-Signed" in response.headers) is (server.get("app") == f"{__name__}:extend_later")
            async with client.get("/healthz") as response:
                text = await response.text()
            assert (text if health == "mine" else json.loads(text)) == health
    finally:
        await running.close()


async def test_an_extension_that_is_not_there_leaks_nothing() -> None:
    server = dataclasses.replace(SETTINGS.server, app="no_such_module_77:extend")
    with pytest.raises(FunctionError, match="no_such_module_77"):
        await start(dataclasses.replace(SETTINGS, server=server))
