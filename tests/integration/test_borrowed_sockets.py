"""Tokens that come one by one: after a few of them a kernel reads and writes the sockets, and nobody can tell.

Over HTTP, and as messages of a WebSocket that carries one stream.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from gai_fast.kernels import IMPLEMENTATION
from gai_fast.model.limits import MIB
from gai_fast.model.settings import Settings
from tests.integration.gateway import (
    DONE,
    END,
    MESSAGES,
    SSE_HEAD,
    Client,
    Gateway,
    M,
    Net,
    Peer,
    Response,
    Upstream,
    delta,
    on_both_loops,
)
from tests.integration.websocket import BINARY, CLOSE, Socket, connect, frame
from tests.limits import LIMITS
from tests.waiting import until
from tests.wire import chunk

WORDS = [f"{number} " for number in range(30)]


def lent(gateway: Gateway) -> int:
    """Sockets of upstreams that are borrowed."""
    pools = gateway.running.engine.upstreams._pools.values()
    return sum(connection._borrower is not None for pool in pools for connection in pool._open)


def watching_sets() -> int:
    """Descriptors of this process that watch others."""
    found = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the descriptor of the folder itself
            found += "eventpoll" in str(descriptor.readlink())
    return found


def failure(response: Response) -> dict[str, Any]:
    """Returns the error of the stream."""
    error: dict[str, Any] = next(event["error"] for event in response.events if event["type"] == "error")
    return error


def numbers(response: Response) -> list[int]:
    """Returns the number of each event so far."""
    return [int(number) for number in re.findall(rb"^id: .*\.(\d+)$", response.body, re.M)]


class Paced:
    """An upstream that says each word when the test wants it, so that no read brings two."""

    def __init__(self) -> None:
        self.peer: Peer | None = None
        self.upstream: Upstream
        self.answered = 0

    async def handle(self, peer: Peer) -> None:
        while True:
            await peer.request()
            self.peer = peer
            self.answered += 1
            await peer.send(SSE_HEAD)
            answered = self.answered
            while self.answered == answered and not peer.writer.is_closing():
                if peer.reader.at_eof():
                    return
                await asyncio.sleep(0.002)

    async def send(self, *pieces: bytes) -> None:
        await until(lambda: self.peer)
        assert self.peer is not None
        await self.peer.send(*pieces)

    async def say(self, words: list[str], response: Response) -> None:
        """Each of these, once the one before has arrived."""
        for word in words:
            await self.send(chunk(delta(word)))
            await response.until(f'"text":"{word}"'.encode())

    async def end(self) -> None:
        peer, self.peer = self.peer, None
        assert peer is not None
        await peer.send(*END)
        self.answered += 1


async def begin(net: Net, *, asked: dict[str, Any] = M, **options: Any) -> tuple[Paced, Gateway, Client, Response]:
    """Returns a stream whose sockets are borrowed."""
    paced = Paced()
    paced.upstream = await net.upstream(paced.handle)
    gateway = await net.gateway(paced.upstream, **options)
    client, response = await ask(gateway, paced, asked=asked)
    return paced, gateway, client, response


async def ask(
    gateway: Gateway, paced: Paced, client: Client | None = None, asked: dict[str, Any] = M
) -> tuple[Client, Response]:
    client = client or await gateway.connect()
    client.request("POST", "/api/v1/stream", asked)
    await paced.send(chunk(delta("first")))
    response = await client.response()
    await paced.say(WORDS, response)
    assert lent(gateway) == (IMPLEMENTATION == "native")
    return client, response


@on_both_loops
async def test_an_answer_comes_whole_and_both_connections_carry_the_next_one(net: Net) -> None:
    paced, gateway, client, response = await begin(net)
    for _ in range(2):
        await paced.end()
        await response.rest()
        assert response.ended
        assert response.text == "first" + "".join(WORDS)
        assert response.events[-1]["finished"] is True
        assert lent(gateway) == 0
        client, response = await ask(gateway, paced, client)
    assert len(paced.upstream.peers) == 1
    await paced.end()
    await response.rest()


@on_both_loops
async def test_what_is_no_token_is_reported_where_it_belongs(net: Net) -> None:
    paced, gateway, _, response = await begin(net)
    tool = {"tool_calls": [{"index": 0, "id": "t1", "function": {"name": "f", "arguments": "{}"}}]}
    await paced.send(chunk(delta("", delta=tool)))
    await paced.say(["behind"], response)
    await paced.send(chunk(b": a comment\n\n" + delta("both") + delta("of", delta={"reasoning_content": "hm"})))
    await paced.say(["last"], response)
    assert lent(gateway) == (IMPLEMENTATION == "native")
    await paced.end()
    await response.rest()
    assert response.text == "first" + "".join(WORDS) + "behind" + "both" + "last"
    types = response.types[len(WORDS) + 2 :]
    order = [kind for kind in types if not kind.startswith(("tool", "usage"))]
    assert order == ["text.delta", "text.delta", "reasoning.delta", "text.delta", "finish", "done"]
    assert types[0].startswith("tool.call")


@on_both_loops
async def test_pings_come_between_tokens(net: Net) -> None:
    paced, gateway, _, response = await begin(net, heartbeat=1.0)
    await response.until(b": ping")
    await paced.say(["after"], response)
    assert lent(gateway) == (IMPLEMENTATION == "native")
    await paced.end()
    await response.rest()
    assert response.text.endswith("after")


@on_both_loops
async def test_a_client_that_goes_ends_the_upstream_at_once(net: Net) -> None:
    paced, gateway, client, _ = await begin(net)
    assert paced.peer is not None
    client.reset()
    await paced.peer.until_gone()
    await until(lambda: gateway.streams == 0)
    assert lent(gateway) == 0


@on_both_loops
async def test_a_token_behind_a_client_that_goes_does_not_reach_the_one_that_comes(net: Net) -> None:
    """All in one turn of the loop: the end, a connection that would get the same descriptor, and a token."""
    paced, gateway, client, _ = await begin(net)
    assert paced.peer is not None
    address, upstream = client.writer.get_extra_info("peername"), paced.peer.writer.get_extra_info("socket")
    with ExitStack() as stack:
        own = stack.enter_context(socket.socket(fileno=os.dup(client.writer.get_extra_info("socket").fileno())))
        free = os.dup(0)
        while free <= own.fileno():  # no lower one is free
            stack.callback(os.close, free)
            free = os.dup(0)
        stack.callback(os.close, free)
        newcomer = stack.enter_context(socket.socket())
        own.shutdown(socket.SHUT_WR)
        newcomer.connect(address)
        os.write(upstream.fileno(), chunk(delta("secret")))
        await until(lambda: gateway.streams == 0)
        newcomer.setblocking(False)
        with pytest.raises(BlockingIOError):
            newcomer.recv(1)


@on_both_loops
async def test_a_cancelled_stream_ends_the_upstream_and_tells_the_client(net: Net) -> None:
    paced, gateway, _, response = await begin(net)
    assert paced.peer is not None
    (stream,) = gateway.running.engine.streams
    assert (await gateway.ask("DELETE", f"/api/v1/streams/{stream}")).status == 202
    await paced.peer.until_gone()
    await response.rest()
    assert response.types[-2:] == ["finish", "done"]
    assert response.events[-2]["finish_reason"] == "cancelled"
    assert response.ended


@pytest.mark.parametrize("how", ["reset", "close"])
@on_both_loops
async def test_an_upstream_that_breaks_off_is_reported(net: Net, how: str) -> None:
    paced, _, _, response = await begin(net)
    assert paced.peer is not None
    await paced.send(chunk(delta("last")))
    if how == "reset":
        await response.until(b"last")  # a reset takes back what has not been read
        paced.peer.reset()
    else:
        paced.peer.writer.close()
    await response.rest()
    error = failure(response)
    assert (error["code"], error["reason"]) == ("network", {"reset": "reset", "close": "truncated"}[how])
    assert response.text == "first" + "".join(WORDS) + "last"
    assert response.ended


@on_both_loops
async def test_a_client_that_stops_reading_stops_the_upstream_and_loses_nothing(net: Net) -> None:
    paced, gateway, client, response = await begin(net)
    client.pause()
    word = "word " * 2_000
    sent = 0

    async def flood() -> None:
        nonlocal sent
        for _ in range(2_400):
            await paced.send(chunk(delta(word)))
            sent += 1
        await paced.end()

    flooding = asyncio.get_running_loop().create_task(flood())
    before = -1
    while sent != before:
        before = sent
        await asyncio.sleep(0.2)
    assert sent < 2_400
    assert gateway.unsent < MIB
    client.resume()
    await asyncio.gather(flooding, response.rest())
    assert response.text == "first" + "".join(WORDS) + word * 2_400


@on_both_loops
async def test_a_silent_upstream_is_given_up(net: Net) -> None:
    _, gateway, _, response = await begin(net, idle_timeout=1.0)
    await response.rest()
    error = failure(response)
    assert (error["code"], error["reason"]) == ("timeout", "idle")
    assert lent(gateway) == 0


@on_both_loops
async def test_a_gateway_that_is_closed_leaves_no_socket(net: Net) -> None:
    """`run` looks for what is left."""
    paced, gateway, _, response = await begin(net)
    closing = asyncio.get_running_loop().create_task(gateway.running.close())
    await response.rest()
    await closing
    assert paced.peer is not None
    await paced.peer.until_gone()


@pytest.mark.skipif(sys.platform != "linux", reason="missing on this machine: /proc")
@on_both_loops
async def test_an_upstream_that_no_configuration_names_any_more_leaves_no_descriptor(net: Net) -> None:
    """The sets that watch its sockets, lent ones and others, would stay open for each change of an upstream."""
    paced, gateway, _, response = await begin(net)
    await paced.end()
    await response.rest()
    engine = gateway.running.engine
    (pool,) = engine.upstreams._pools.values()
    before = watching_sets()
    gateway.running.use(Settings())
    await until(lambda: not pool.stats.open)
    gateway.running.use(Settings())
    assert engine.upstreams._pools == {}
    assert watching_sets() == before - 2 * (IMPLEMENTATION == "native")


@on_both_loops
async def test_openai_clients_get_the_upstreams_own_frames(net: Net) -> None:
    paced = Paced()
    paced.upstream = await net.upstream(paced.handle)
    gateway = await net.gateway(paced.upstream)
    client = await gateway.connect()
    client.request("POST", "/v1/chat/completions", {"model": "m", "messages": MESSAGES, "stream": True})
    frames = [delta(word) for word in WORDS]
    await paced.send(chunk(frames[0]))
    response = await client.response()
    for each in frames[1:]:
        await paced.send(chunk(each))
        await response.until(each)
    assert lent(gateway) == (IMPLEMENTATION == "native")
    await paced.end()
    await response.rest()
    assert response.body.startswith(b"".join(frames))
    assert response.body.endswith(DONE)


@on_both_loops
async def test_a_durable_answer_comes_whole_to_each_client_whenever_it_came(net: Net) -> None:
    """The first client's socket is borrowed; others join, and one goes and comes back for the rest."""
    paced, gateway, _, response = await begin(net, asked={**M, "resumable": True})
    stream = "/api/v1/streams/" + response.headers["x-gai-stream-id"]
    other = await gateway.connect()
    other.request("GET", stream)
    joined = await other.response()
    await paced.say(["one ", "two "], response)
    await joined.until(b'"text":"two "')
    seen = numbers(joined)[-1]
    other.close()
    tool = {"tool_calls": [{"index": 0, "id": "t1", "function": {"name": "f", "arguments": "{}"}}]}
    await paced.send(chunk(delta("", delta=tool)))
    await paced.say(["three ", *WORDS], response)
    back = await gateway.connect()
    back.request("GET", f"{stream}?after={response.headers['x-gai-stream-id']}.{seen}")
    resumed = await back.response()
    await paced.say(["four"], response)
    await paced.end()
    for each in (response, resumed):
        await each.rest()
        assert each.ended
    assert response.text == "".join(["first", *WORDS, "one two three ", *WORDS, "four"])
    assert bytes(response.body).endswith(bytes(resumed.body))
    assert numbers(response) == list(range(1, len(response.events)))  # done has none
    assert numbers(resumed)[0] == seen + 1
    assert lent(gateway) == 0


@on_both_loops
async def test_a_client_of_a_durable_answer_that_stops_reading_for_a_while_loses_nothing(net: Net) -> None:
    paced, gateway, client, response = await begin(net, asked={**M, "resumable": True})
    client.pause()
    word = "word " * 2_000
    for _ in range(300):
        await paced.send(chunk(delta(word)))
    await paced.end()
    client.resume()
    await response.rest()
    assert response.text == "first" + "".join(WORDS) + word * 300
    assert gateway.unsent == 0


# ---- messages of a WebSocket -----------------------------------------------------------------------------------------

IS_NATIVE = IMPLEMENTATION == "native"
LENDING = LIMITS.ack_steps * LIMITS.ack_step
"""The smallest `client_buffer` of a stream that borrows the socket."""


def is_lent(gateway: Gateway) -> bool:
    """Returns whether the socket of the WebSocket is borrowed."""
    (session,) = gateway.running.service.sockets.sessions
    assert session._socket is not None
    assert session._socket._writer is not None
    return session._socket._writer._lender.borrower is not None


async def say(paced: Paced, words: list[str], socket: Socket, stream: str = "a") -> None:
    """Each of these, once the one before has arrived."""
    for word in words:
        await paced.send(chunk(delta(word)))
        await socket.until(stream=stream, text=word)


async def begin_socket(net: Net, **options: Any) -> tuple[Paced, Gateway, Socket]:
    """Returns a WebSocket whose only stream has borrowed its socket."""
    paced = Paced()
    paced.upstream = await net.upstream(paced.handle)
    gateway = await net.gateway(paced.upstream, **options)
    socket = await connect(gateway, receive_buffer=options.get("receive_buffer"))
    socket.ask("a")
    await say(paced, WORDS, socket)
    assert is_lent(gateway) == IS_NATIVE
    return paced, gateway, socket


def is_whole(socket: Socket, words: list[str], stream: str = "a") -> bool:
    """Returns whether the stream has these words, each event with its number, and its end."""
    *events, done = socket.of(stream)
    return (
        socket.text(stream) == "".join(words)
        and [event["seq"] for event in events] == [*range(1, len(events) + 1)]
        and done == {"stream": stream, "type": "done", "finished": True}
    )


@on_both_loops
async def test_the_messages_of_one_stream_come_whole_and_so_do_those_of_the_next(net: Net) -> None:
    paced, gateway, socket = await begin_socket(net)
    await paced.end()
    await socket.until_done("a")
    assert is_whole(socket, WORDS)
    assert not is_lent(gateway)
    socket.ask("b")
    await say(paced, WORDS, socket, "b")
    assert is_lent(gateway) == IS_NATIVE
    await paced.end()
    await socket.until_done("b")
    assert is_whole(socket, WORDS, "b")


@on_both_loops
async def test_an_answer_to_a_ping_and_what_is_no_token_come_between_messages(net: Net) -> None:
    paced, gateway, socket = await begin_socket(net)
    socket.send(type="ping")
    assert await socket.read() == {"type": "pong"}
    assert not is_lent(gateway)
    await say(paced, ["one ", "two "], socket)
    assert is_lent(gateway) == IS_NATIVE
    tool = {"tool_calls": [{"index": 0, "id": "t1", "function": {"name": "f", "arguments": "{}"}}]}
    await paced.send(chunk(delta("", delta=tool)))
    await say(paced, WORDS, socket)
    await paced.end()
    await socket.until_done("a")
    assert is_whole(socket, [*WORDS, "one ", "two ", *WORDS])


@on_both_loops
async def test_a_second_stream_ends_the_loan_and_both_come_whole(net: Net) -> None:
    paced, gateway, socket = await begin_socket(net)
    first = paced.peer
    paced.peer = None
    socket.ask("b")
    await say(paced, WORDS, socket, "b")
    assert not is_lent(gateway)
    paced.peer, second = first, paced.peer
    await say(paced, ["last"], socket)
    assert not is_lent(gateway)
    await paced.end()
    await socket.until_done("a")
    assert second is not None
    await second.send(*END)
    await socket.until_done("b")
    assert is_whole(socket, [*WORDS, "last"])
    assert is_whole(socket, WORDS, "b")


@on_both_loops
async def test_what_a_borrower_has_written_must_be_acknowledged_too(net: Net) -> None:
    paced, gateway, socket = await begin_socket(net, client_buffer=LENDING)
    words = [f"{number} {'x' * 4000}" for number in range(20)]
    await say(paced, words, socket)
    assert is_lent(gateway) == IS_NATIVE
    socket.send(stream="a", type="ack", seq=1)
    session = next(iter(gateway.running.engine.streams.values()))
    await until(lambda: session._delivery.is_paused)
    assert not is_lent(gateway)
    socket.send(stream="a", type="ack", seq=socket.messages[-1]["seq"])
    await say(paced, ["within"], socket)
    assert not is_lent(gateway)
    socket.send(stream="a", type="ack", seq=1000)
    await paced.end()
    await socket.until_done("a")
    assert is_whole(socket, [*WORDS, *words, "within"])


@on_both_loops
async def test_a_socket_whose_window_is_small_is_not_borrowed(net: Net) -> None:
    paced = Paced()
    paced.upstream = await net.upstream(paced.handle)
    gateway = await net.gateway(paced.upstream, client_buffer=LENDING - 1)
    socket = await connect(gateway)
    socket.ask("a")
    await say(paced, WORDS, socket)
    assert not is_lent(gateway)
    await paced.end()
    await socket.until_done("a")
    assert is_whole(socket, WORDS)


@on_both_loops
async def test_messages_for_a_client_that_stops_reading_for_a_while_are_not_lost(net: Net) -> None:
    paced, gateway, socket = await begin_socket(net, client_buffer=65536)
    socket.client.pause()
    word = "word " * 2_000
    for _ in range(10):  # within what the system takes, and the first that it does not
        await paced.send(chunk(delta(word)))
    flooding = asyncio.create_task(paced.send(*[chunk(delta(word))] * 600))
    session = next(iter(gateway.running.engine.streams.values()))
    await until(lambda: session._delivery.is_paused)
    assert gateway.unsent < MIB
    socket.client.resume()
    ending = asyncio.create_task(socket.until_done("a"))
    await flooding
    await paced.end()
    await ending
    assert is_whole(socket, [*WORDS, *[word] * 610])


@on_both_loops
async def test_nothing_follows_a_close_and_the_upstream_ends(net: Net) -> None:
    paced, gateway, socket = await begin_socket(net)
    assert paced.peer is not None
    socket.client.send(frame(b"x", BINARY))
    assert await socket.close_code() == 1003
    await paced.peer.until_gone()
    await until(lambda: gateway.streams == 0)


@pytest.mark.parametrize("how", ["cancel", "close", "reset"])
@on_both_loops
async def test_a_stream_whose_client_cancels_it_or_goes_ends(net: Net, how: str) -> None:
    paced, gateway, socket = await begin_socket(net)
    assert paced.peer is not None
    if how == "cancel":
        socket.send(stream="a", type="cancel")
        await socket.until_done("a")
        assert socket.of("a")[-2]["finish_reason"] == "cancelled"
    elif how == "close":
        socket.client.send(frame((1000).to_bytes(2, "big"), CLOSE))
        assert await socket.close_code() == 1000
    else:
        socket.client.reset()
    await paced.peer.until_gone()
    await until(lambda: gateway.streams == 0)


@on_both_loops
async def test_a_gateway_that_is_closed_takes_the_socket_of_its_messages_back(net: Net) -> None:
    paced, gateway, socket = await begin_socket(net)
    await gateway.running.drain(0.0, asyncio.Event())
    closing = asyncio.create_task(gateway.running.close())
    assert await socket.close_code() == 1012
    await closing
    net.warned("draining")
    assert socket.error("a")["reason"] == "draining"
    assert paced.peer is not None
    await paced.peer.until_gone()
