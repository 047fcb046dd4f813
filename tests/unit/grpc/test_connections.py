"""`gai_fast/grpc/connections.py`: which connections are closed so that others find a place."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from gai_fast.grpc.connections import Connections, most_connections
from tests.conftest import ChangeLimits
from tests.waiting import until


class Server:
    """A server whose clients' connections are open, in the order of their making."""

    def __init__(self) -> None:
        self.port = 0
        self.clients: list[tuple[asyncio.StreamReader, str]] = []

    @property
    def closed(self) -> list[int]:
        return [at for at, (reader, _) in enumerate(self.clients) if reader.at_eof()]


@asynccontextmanager
async def connected(*hosts: str) -> AsyncIterator[Server]:
    server, accepted = Server(), []
    async with AsyncExitStack() as stack:
        listening = await asyncio.start_server(lambda _, writer: accepted.append(writer), "127.0.0.1", 0)
        server.port = listening.sockets[0].getsockname()[1]
        stack.callback(listening.close)
        for host in hosts:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port, local_addr=(host, 0))
            stack.callback(writer.close)
            address, port = writer.get_extra_info("sockname")
            server.clients.append((reader, f"ipv4:{address}:{port}"))
        await until(lambda: len(accepted) == len(hosts))
        yield server
        for writer in accepted:
            writer.close()


async def test_three_quarters_of_the_places_are_left_alone() -> None:
    async with connected(*["127.0.0.1"] * 6) as server:
        connections = Connections(8)
        assert connections.are_many, "this process has other files"
        assert connections.sweep(server.port, ()) == 0
        assert not Connections(100_000).are_many
        assert server.closed == []


async def test_those_of_the_address_that_has_the_most_go_until_half_are_free() -> None:
    async with connected(*["127.0.0.2"] * 6, "127.0.0.3", "127.0.0.1") as server:
        files = set(Path("/dev/fd").iterdir())
        assert Connections(8).sweep(server.port, ()) == 4
        await until(lambda: len(server.closed) == 4)
        assert max(server.closed) < 6
        assert len(set(Path("/dev/fd").iterdir()) - files) <= 1, "its own numbers are closed again"


async def test_clients_that_the_gateway_has_accepted_stay() -> None:
    async with connected(*["127.0.0.1"] * 8) as server:
        accepted = {peer for _, peer in server.clients[:7]}
        assert Connections(8).sweep(server.port, accepted) == 1
        await until(lambda: server.closed == [7])


def test_connections_take_half_of_the_files_at_most(change_limits: ChangeLimits) -> None:
    change_limits(grpc_calls=7)
    assert most_connections() == 7
