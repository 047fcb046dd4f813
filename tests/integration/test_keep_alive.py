"""`[server] keep_alive`: how long a connection is kept between two requests, on both lanes."""

from __future__ import annotations

import pytest

from tests.integration.gateway import M, Net, on_uvloop


@pytest.mark.parametrize("lane", ["auto", "off"])
@pytest.mark.parametrize(("method", "path"), [("GET", "/healthz"), ("POST", "/api/v1/stream")])
@on_uvloop
async def test_a_connection_without_a_request_is_closed_then(net: Net, lane: str, method: str, path: str) -> None:
    gateway = await net.gateway(await net.mock(deltas=2), keep_alive=0.05, fast_lane=lane)
    client = await gateway.connect()
    assert (await client.ask(method, path, M if method == "POST" else None)).status == 200
    assert await client.is_closed()
    client = await gateway.connect()  # none has come
    assert await client.is_closed()
