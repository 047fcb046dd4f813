"""The address a server listens on, its routes, and its start and end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import pytest

from gai_fast.server.app import serve, start
from gai_fast.settings import ModelSettings, ServerSettings, Settings, UpstreamSettings

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
