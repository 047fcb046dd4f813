"""A real nginx in front, buffering as it does by default: frames arrive one by one, and a lost client is passed on."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from gai_fast.cli.mock.command import Fault
from tests.docs.pages import blocks, read
from tests.integration.gateway import (
    END,
    MESSAGES,
    SSE_HEAD,
    Client,
    M,
    Net,
    Peer,
    delta,
    on_both_loops,
)
from tests.integration.websocket import Socket, handshake
from tests.ports import free_port
from tests.waiting import SECONDS, until
from tests.wire import chunk

CONFIGURATION = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log warn;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port};
    {location}
  }}
}}
"""
LOCATION = 'location / {{ proxy_pass http://{gateway}; proxy_http_version {version}; proxy_set_header Connection ""; }}'


def nginx() -> str:
    """Returns the program; without it the test is skipped."""
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if found is None:
        pytest.skip("nginx is not installed (ci/system-deps.sh does it)")
    return found


@asynccontextmanager
async def in_front_of(
    net: Net, gateway: str, folder: Path, version: str, location: str | None = None
) -> AsyncIterator[str]:
    """Runs nginx before a gateway; yields its `host:port`."""
    port = free_port()
    configuration = folder / f"nginx-{version}.conf"
    if location is None:
        location = LOCATION.format(gateway=gateway, version=version)
    configuration.write_text(CONFIGURATION.format(folder=folder, port=port, location=location))
    process = await asyncio.create_subprocess_exec(
        nginx(), "-p", str(folder), "-c", str(configuration), stdout=-3, stderr=-3
    )
    try:
        host = f"127.0.0.1:{port}"
        async with asyncio.timeout(SECONDS):
            while True:
                try:
                    (await net.connect(host)).close()
                    break
                except OSError:
                    assert process.returncode is None, (folder / "error.log").read_text()
                    await asyncio.sleep(0.02)
        yield host
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@on_both_loops
async def test_frames_arrive_as_they_are_sent_and_a_lost_client_is_passed_on(net: Net, tmp_path: Path) -> None:
    nginx()
    go = asyncio.Event()

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(SSE_HEAD, chunk(delta("first ")))
        await go.wait()
        await peer.send(chunk(delta("second")), *END)

    upstream = await net.upstream(handler)
    gateway = await net.gateway(upstream)
    for version in ("1.0", "1.1"):
        async with in_front_of(net, gateway.host, tmp_path, version) as host:
            for path, body in (
                ("/api/v1/stream", M),
                ("/api/v1/stream?framing=ndjson", M),
                ("/v1/chat/completions", {"model": "m", "messages": MESSAGES, "stream": True}),
            ):
                go.clear()
                client = await net.connect(host)
                client.request("POST", path, body)
                response = await client.response()
                async with asyncio.timeout(SECONDS):
                    await response.until(b"first")
                assert b"second" not in response.body
                go.set()
                await response.rest()
                assert response.ended
                assert b"second" in response.body
                client.close()
            go.clear()
            client = await net.connect(host)
            client.request("POST", "/api/v1/stream", M)
            await (await client.response()).until(b"first")
            finished = upstream.finished
            client.close()
            await until(lambda finished=finished: gateway.streams == 0)
            go.set()
            await upstream.until_finished(finished + 1)


@on_both_loops
async def test_errors_keep_their_status_and_their_place(net: Net, tmp_path: Path) -> None:
    nginx()

    async def ask(host: str) -> Client:
        client = await net.connect(host)
        client.request("POST", "/api/v1/stream", M)
        return client

    mock = await net.mock(fault=Fault("cut", 3))
    gateway = await net.gateway(mock)
    async with in_front_of(net, gateway.host, tmp_path, "1.1") as host:
        response = await (await (await ask(host)).response()).rest()
        assert response.ended
        assert response.types[-2:] == ["error", "done"]
        mock.fault = Fault("429")
        response = await (await (await ask(host)).response()).rest()
        assert (response.status, response.error["code"]) == (429, "rate_limited")
        assert response.headers["retry-after"] == "1"


@on_both_loops
async def test_the_block_of_the_manual_passes_each_event_on_when_it_comes(net: Net, tmp_path: Path) -> None:
    nginx()
    [block] = [each for each in blocks(read("docs/troubleshooting.md")) if each.language == "nginx"]
    assert "http://127.0.0.1:8080" in block.text
    gateway = await net.gateway(await net.mock(deltas=3, fault=Fault("stall", 2)), heartbeat=0.05)
    location = block.text.replace("127.0.0.1:8080", gateway.host)
    async with in_front_of(net, gateway.host, tmp_path, "manual", location) as host:
        client = await net.connect(host)
        client.request("POST", "/api/v1/stream", M)
        response = await client.response()
        async with asyncio.timeout(SECONDS):
            await response.until(b'"seq":3')
            await response.until(b": ping")
        client = await net.connect(host)
        client.request("GET", "/ws/stream", headers=handshake())
        response = await client.response()
        assert response.status == 101
        socket = Socket(client, response)
        socket.ask("a", **M)
        await socket.until(stream="a", type="text.delta")


@on_both_loops
@pytest.mark.parametrize("header", ["X-Real-IP $remote_addr", "Via nginx", "X-Forwarded-Proto http"])
async def test_without_keys_a_proxy_that_shows_itself_by_any_header_does_not_open_the_admin_api(
    net: Net, tmp_path: Path, header: str
) -> None:
    """nginx replaces `Host` by its own name of the gateway, so that the rule of hosts does not see the proxy."""
    gateway = await net.gateway(await net.mock())
    location = f"location / {{ proxy_pass http://{gateway.host}; proxy_set_header {header}; }}"
    async with in_front_of(net, gateway.host, tmp_path, "1.1", location) as host, aiohttp.ClientSession() as session:
        for path in ("/admin/v1/streams", "/dashboard", "/docs"):
            async with session.get(f"http://{host}{path}") as response:
                assert response.status == 403
        async with session.get(f"http://{gateway.host}/admin/v1/streams") as response:
            assert response.status == 200
