"""The fault proxy itself: each fault is what it says."""

from __future__ import annotations

import asyncio

import pytest

from tests.faults.proxy import NONE, FaultProxy, Faults
from tests.integration.gateway import Net, Peer, on_steady_loop
from tests.waiting import SECONDS, until

SENT = b"0123456789" * 10


async def read(proxy: FaultProxy, *, most: float = SECONDS) -> tuple[bytes, str]:
    """Returns the bytes that a client is sent, and how they end."""
    reader, writer = await asyncio.open_connection(*proxy.url.removeprefix("http://").split(":"))
    got, end = b"", "close"
    try:
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        async with asyncio.timeout(most):
            while data := await reader.read(7):
                got += data
    except ConnectionResetError:
        end = "reset"
    except TimeoutError:
        end = "stall"
    finally:
        writer.transport.abort()
    return got, end


@pytest.mark.parametrize(
    ("faults", "got", "end"),
    [
        (NONE, SENT, "close"),
        (Faults(slice=3), SENT, "close"),
        (Faults(latency=0.01, pause=0.001, slice=10, rate=100_000), SENT, "close"),
        (Faults(after=13, then="reset"), SENT[:13], "reset"),
        (Faults(after=13, then="close"), SENT[:13], "close"),
        (Faults(after=13, then="half_close"), SENT[:13], "close"),
        (Faults(after=13, then="stall"), SENT[:13], "stall"),
        (Faults(after=13, then="close", slice=4), SENT[:13], "close"),
        (Faults(is_down=True), b"", "reset"),
    ],
)
@on_steady_loop
async def test_a_fault_is_what_it_says(net: Net, faults: Faults, got: bytes, end: str) -> None:
    async def handle(peer: Peer) -> None:
        await peer.request()
        await peer.send(SENT)

    upstream = await net.upstream(handle)
    async with FaultProxy(upstream.url, faults) as proxy:
        assert await read(proxy, most=0.2 if end == "stall" else SECONDS) == (got, end)
        assert proxy.passed == len(got)


@on_steady_loop
async def test_only_the_first_connections_have_the_fault_and_the_upstream_hears_of_an_end(net: Net) -> None:
    async def handle(peer: Peer) -> None:
        await peer.request()
        await peer.send(SENT)
        await peer.until_gone()

    upstream = await net.upstream(handle)
    async with FaultProxy(upstream.url, Faults(after=1, then="close"), times=1) as proxy:
        assert await read(proxy) == (b"0", "close")
        assert await read(proxy, most=0.2) == (SENT, "stall")
        await upstream.until_finished(2)
        assert (proxy.connections, proxy.left) == (2, 1)


@on_steady_loop
async def test_a_cut_resets_the_connections_of_the_moment_and_no_later_one(net: Net) -> None:
    async def handle(peer: Peer) -> None:
        await peer.request()
        await peer.send(SENT)
        await peer.until_gone()

    upstream = await net.upstream(handle)
    async with FaultProxy(upstream.url) as proxy:
        running = asyncio.ensure_future(read(proxy))
        await until(lambda: proxy.passed == len(SENT))
        proxy.cut()
        assert (await running)[1] == "reset"
        assert await read(proxy, most=0.2) == (SENT, "stall")
        await upstream.until_finished(2)
