"""The address a server listens on, its routes, and its start and end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys

import pytest

from gai_fast.net.engine import Engine
from gai_fast.server.app import base_url, bind, build_router, serve, start
from gai_fast.server.metrics import PrometheusSink
from gai_fast.settings import ModelSettings, ServerSettings, Settings, UpstreamSettings

DEMO = UpstreamSettings("demo", "demo", "")
SETTINGS = Settings(
    server=ServerSettings(port=0), upstreams={"demo": DEMO}, models={"demo": ModelSettings("demo", DEMO, "demo")}
)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:1"),
        ("localhost", "http://localhost:1"),
        ("0.0.0.0", "http://127.0.0.1:1"),
        ("", "http://127.0.0.1:1"),
        ("::", "http://[::1]:1"),
        ("::1", "http://[::1]:1"),
        ("2001:db8::1", "http://[2001:db8::1]:1"),
    ],
)
def test_a_url_can_be_opened_whatever_the_address_is(host: str, url: str) -> None:
    assert base_url(host, 1) == url


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_binding_listens_on_that_address_and_no_other(host: str) -> None:
    with bind(ServerSettings(host=host, port=0)) as listening:
        address, port = listening.getsockname()[:2]
        assert address in ("127.0.0.1", "::1")
        assert port
        assert not listening.getblocking()


def test_an_address_that_cannot_be_had_is_an_os_error_and_leaks_no_socket() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        before = len(os.listdir("/dev/fd"))  # noqa: PTH208  # the folder of this process's files
        with pytest.raises(OSError, match="in use"):
            bind(ServerSettings(port=taken.getsockname()[1]))
        assert len(os.listdir("/dev/fd")) == before  # noqa: PTH208  # as above
    with pytest.raises(OSError, match=r"."):
        bind(ServerSettings(host="192.0.2.1", port=0))


async def test_every_route_of_the_contract_that_has_come_is_there() -> None:
    router = build_router(Engine(SETTINGS, asyncio.get_running_loop()), PrometheusSink([]))
    table = {**router._exact, **router._prefixes}
    assert {path: sorted(methods) for path, methods in table.items()} == {
        "/": ["GET", "HEAD"],
        "/api/v1/stream": ["GET", "POST"],
        "/api/v1/streams": ["POST"],
        "/api/v1/streams/": ["DELETE", "GET"],
        "/healthz": ["GET", "HEAD"],
        "/metrics": ["GET", "HEAD"],
        "/playground/": ["GET", "HEAD"],
        "/readyz": ["GET", "HEAD"],
        "/v1/chat/completions": ["POST"],
        "/v1/models": ["GET", "HEAD"],
        "/v1/models/": ["GET", "HEAD"],
        "/version": ["GET", "HEAD"],
    }


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_serving_ends_with_a_signal(number: signal.Signals) -> None:
    urls: list[str] = []

    def ready(url: str) -> None:
        urls.append(url)
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), number)

    async with asyncio.timeout(10):
        await serve(SETTINGS, ready=ready)
    (url,) = urls
    with pytest.raises(OSError, match=r"."):
        await asyncio.open_connection(*url.removeprefix("http://").split(":"))
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


def test_tuning_leaves_a_process_that_works() -> None:
    code = (
        "import gc, gai_fast.server.app as app; app.tune_process()\nprint(gc.get_freeze_count() > 0, len(bytes(10**7)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.split() == ["True", "10000000"]
