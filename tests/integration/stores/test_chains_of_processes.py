"""Chains whose turns are asked of several workers and servers, over HTTP and sockets, whatever ends between them."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.integration.gateway import END, SSE_HEAD, Client, Net, Peer, Response, delta
from tests.integration.processes import serving, settled
from tests.integration.stores.servers import RedisServer
from tests.integration.test_cli import PATIENCE
from tests.integration.test_responses_socket import PATH, not_found, rest, turn
from tests.integration.test_workers import connections
from tests.integration.websocket import Socket, upgrade
from tests.kernels import is_set
from tests.wire import chunk

TURNS = 1000 if is_set("GAI_FAST_EXHAUSTIVE") else 60
_ID = re.compile(rb'"id": ?"(resp_[^"]+)"')


class Counting:
    """An upstream that answers each request, and how many messages the requests had.

    Attributes:
        counts: The numbers of messages.
        may_end: Whether answers may end.
    """

    def __init__(self) -> None:
        self.counts: list[int] = []
        self.may_end = asyncio.Event()
        self.may_end.set()

    async def __call__(self, peer: Peer) -> None:
        while body := await peer.request():
            self.counts.append(len(json.loads(body)["messages"]))
            await peer.send(SSE_HEAD, chunk(delta("word")))
            await self.may_end.wait()
            await peer.send(*END)


async def configured(net: Net, folder: Path, store: str) -> Counting:
    """Writes a configuration whose model `m` is an upstream that counts; returns that."""
    counting = Counting()
    url = (await net.upstream(counting)).url
    (folder / "gai-fast.toml").write_text(
        f"[server]\nport = 0\ngrace = {PATIENCE}\n"
        f'[[upstream]]\nname = "up"\nprovider = "openai-compatible"\nbase_url = "{url}/v1"\n'
        f'[[model]]\nname = "m"\nupstream = "up"\n{store}'
    )
    return counting


async def opened(client: Client) -> Socket:
    return await upgrade(client, None, PATH)


async def completed(socket: Socket, said: str, parent: str = "", **members: Any) -> str:
    """Returns the id of a turn over a socket."""
    more = {"previous_response_id": parent} if parent else {}
    last = (await turn(socket, input=said, **more, **members))[-1]
    assert last["type"] == "response.completed", last
    identifier: str = last["response"]["id"]
    return identifier


async def ask_in_turn(places: Sequence[Client | Socket]) -> None:
    """Asks for a chain: each turn at the next place, the moment the last event of the one before can be read."""
    unread: dict[int, Response] = {}
    parent = ""
    for number in range(TURNS):
        at = number % len(places)
        place = places[at]
        if isinstance(place, Socket):
            parent = await completed(place, f"turn {number}", parent)
            continue
        if at in unread:
            await unread.pop(at).rest()
        body = {"model": "m", "input": f"turn {number}", "stream": True, "previous_response_id": parent or None}
        place.request("POST", PATH, body)
        response = await place.response()
        assert response.status == 200, (number, bytes((await response.rest()).body))
        unread[at] = await response.until(b"event: response.completed\n")
        found = _ID.search(response.body)
        assert found is not None
        parent = found[1].decode()


async def test_an_id_works_on_another_worker_the_moment_its_end_can_be_read(
    net: Net, tmp_path: Path, store: str
) -> None:
    counting = await configured(net, tmp_path, store)
    async with serving(net, tmp_path, "--workers", "2") as server:
        for over_sockets in (False, True):
            here, there = await connections(server)
            await ask_in_turn([here, await opened(there)] if over_sockets else [here, there])
    assert counting.counts == [2 * number + 1 for number in range(TURNS)] * 2


async def test_an_id_works_on_another_server_the_moment_its_end_can_be_read(
    net: Net, tmp_path: Path, redis_server: RedisServer
) -> None:
    counting = await configured(net, tmp_path, f'[store]\nurl = "{redis_server.url}"\n')
    async with serving(net, tmp_path) as server, serving(net, tmp_path) as other:
        await ask_in_turn([await server.connect(), await opened(await other.connect())])
        await ask_in_turn([await server.connect(), await other.connect()])
    assert counting.counts == [2 * number + 1 for number in range(TURNS)] * 2


async def test_after_a_worker_was_killed_chains_go_on_by_another(net: Net, tmp_path: Path, store: str) -> None:
    """Its sockets end: a client that connects again goes on from what is kept, and not from what is not."""
    counting = await configured(net, tmp_path, store)
    async with serving(net, tmp_path, "--workers", "2") as server:
        sockets = [await opened(client) for client in await connections(server)]
        kept = [await completed(socket, "one") for socket in sockets]
        unkept = [
            await completed(socket, "two", parent, store=False) for socket, parent in zip(sockets, kept, strict=True)
        ]
        os.kill(server.workers_in_order[0], signal.SIGKILL)
        ends = [asyncio.create_task(socket.close_code()) for socket in sockets]
        done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        [end] = done
        assert await end == 1006
        ended = ends.index(end)
        ends[1 - ended].cancel()
        await asyncio.wait(ends)
        again = await opened(await server.connect())
        assert not_found(await turn(again, input="three", previous_response_id=unkept[ended]))
        assert (await server.ask("GET", f"{PATH}/{unkept[ended]}")).status == 404
        for place, parent in ((sockets[1 - ended], kept[ended]), (again, kept[1 - ended]), (again, kept[ended])):
            await completed(place, "three", parent)
            assert counting.counts[-1] == 3
        body = {"model": "m", "input": "three", "previous_response_id": kept[ended]}
        assert (await server.ask("POST", PATH, body)).status == 200
        await settled(server, 2)


async def test_the_end_of_a_server_lets_the_turn_of_a_socket_end_and_another_server_goes_on(
    net: Net, tmp_path: Path
) -> None:
    counting = await configured(net, tmp_path, f'[store]\nurl = "sqlite:///{tmp_path}/store.db"\n')
    async with serving(net, tmp_path, "--workers", "2") as server:
        idle, busy = [await opened(client) for client in await connections(server)]
        first = await completed(busy, "one")
        counting.may_end.clear()
        for _ in range(2):
            busy.send(type="response.create", model="m", input="two", previous_response_id=first)
        await busy.until(type="response.output_text.delta")
        server.signal()
        assert await idle.close_code() == 1012
        error = await busy.until(type="error")
        assert (error["status"], error["error"]["code"]) == (503, "overloaded")
        counting.may_end.set()
        last = (await rest(busy))[-1]
        assert (last["type"], last["response"]["store"]) == ("response.completed", True)
        assert await busy.close_code() == 1012
        assert await server.ended() == 0
    async with serving(net, tmp_path) as server:
        await completed(await opened(await server.connect()), "three", last["response"]["id"])
    assert counting.counts == [1, 3, 5]
