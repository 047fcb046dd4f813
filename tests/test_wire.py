"""`tests/wire.py`: a reset may come at any time."""

from __future__ import annotations

import asyncio

from tests.integration.gateway import Net, on_both_loops
from tests.wire import reset


@on_both_loops
async def test_a_connection_that_is_closed_can_be_reset_all_the_same(net: Net) -> None:
    upstream = await net.upstream(lambda peer: asyncio.sleep(0))
    _, writer = await asyncio.open_connection(*upstream.url.removeprefix("http://").split("/")[0].split(":"))
    reset(writer)
    await asyncio.sleep(0)
    reset(writer)
    await asyncio.sleep(0.01)
    reset(writer)
    assert writer.transport.is_closing()
