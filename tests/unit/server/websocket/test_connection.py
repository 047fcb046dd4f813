"""The private parts of aiohttp that a socket uses; `integration/test_websocket.py` has its behaviour.

A failure here after an update of aiohttp means that a private part has changed: see the module's docstring.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable

import aiohttp
import pytest
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from gai_fast.model.settings import LimitSettings
from gai_fast.runtime.timers import TimerWheel
from gai_fast.server.admission.server_limits import ServerLimits
from gai_fast.server.websocket.connection import AiohttpSocket, offered
from gai_fast.server.websocket.frame_guard import Violation
from tests.integration.websocket import CLOSE, CONTINUATION, PING, frame, handshake
from tests.waiting import SECONDS, until

UNLIMITED = ServerLimits(LimitSettings())


class Owner:
    def __init__(self) -> None:
        self.calls: list[str] = []
        self.violations: list[Violation] = []
        self.messages: list[bytes] = []
        self.answers: list[bytes] = []
        self.message_received: Callable[[bytes], None] = self.messages.append

    def connection_lost(self) -> None:
        self.calls.append("lost")

    def pause_writing(self) -> None:
        self.calls.append("pause")

    def resume_writing(self) -> None:
        self.calls.append("resume")

    def violated(self, violation: Violation) -> None:
        self.violations.append(violation)

    def answer(self, messages: bytes) -> None:
        self.answers.append(messages)


def test_aiohttp_keeps_what_came_behind_the_handshake_where_it_is_taken_from() -> None:
    assert "_message_tail" in RequestHandler.__slots__
    source = inspect.getsource(RequestHandler.set_parser)
    assert "self._payload_parser.feed_data(self._message_tail)" in source


def test_aiohttp_ends_a_close_at_once_if_receive_says_that_it_is_closing() -> None:
    source = inspect.getsource(web.WebSocketResponse.close)
    assert "if self._closing:\n                self._close_transport()" in source


def test_the_names_of_subprotocols_are_read_and_keys_left_out() -> None:
    assert offered("") == []
    assert offered(" a ,b, bearer.key,,bearer.") == ["a", "b"]


@pytest.mark.parametrize("names", [["gai.events.v1"], []])
async def test_a_socket_reads_writes_and_closes(names: list[str], caplog: pytest.LogCaptureFixture) -> None:
    loop, owner = asyncio.get_running_loop(), Owner()
    timers = TimerWheel(loop)
    received: list[object] = []

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        socket = AiohttpSocket(request, owner, timers, UNLIMITED, "", high_water=1000, write_timeout=SECONDS)
        closing: list[asyncio.Task[None]] = []

        def take(message: object) -> None:
            received.append(message)
            if isinstance(message, bytes):
                socket.write(b"\x81\x02ok")
            if message == b"stop":
                closing.append(loop.create_task(socket.close(Violation(1008, "é" * 100))))

        owner.message_received = take
        assert await socket.open([("x-more", "1")])
        try:
            message = await socket.receive()
            while isinstance(message, bytes):
                take(message)
                message = await socket.receive()
            take(message)
            if closing:
                await closing[0]
                socket.write(b"\x81\x04late")
        finally:
            socket.leave()
        return socket.response

    server = web.Server(answer)
    listener = await loop.create_server(server, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/"
    with caplog.at_level(logging.DEBUG):
        async with aiohttp.ClientSession() as http:
            async with http.ws_connect(url, protocols=["bearer.sk-canary", *names]) as client:
                assert client.protocol == (names[0] if names else None)
                await client.send_str("one")
                assert await client.receive_str() == "ok"
                await client.send_str("stop")
                assert await client.receive_str() == "ok"
                end = await client.receive()
                assert (end.type, end.data) == (aiohttp.WSMsgType.CLOSE, 1008)
                assert end.extra == "é" * 61
            async with http.ws_connect(url, protocols=names) as client:
                await client.send_bytes(b"x")
                await until(lambda: isinstance(received[-1], Violation))
    assert received == [b"one", b"stop", None, Violation(1003, "messages are text")]
    assert "canary" not in caplog.text
    listener.close()
    await server.shutdown(SECONDS)
    assert not len(timers)


async def test_a_message_that_comes_alone_goes_to_the_owner_and_never_before_an_earlier_one() -> None:
    loop, owner = asyncio.get_running_loop(), Owner()
    timers = TimerWheel(loop)
    received: list[object] = []

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        socket = AiohttpSocket(request, owner, timers, UNLIMITED, "", high_water=1000, write_timeout=SECONDS)
        assert await socket.open([])

        async def read() -> None:
            while (message := await socket.receive()) is not None:
                received.append(message)

        reading = loop.create_task(read())
        try:
            await asyncio.sleep(0)
            socket.data_received(frame("one"))
            assert owner.messages == [b"one"]
            socket.data_received(frame("two") + frame("three"))
            socket.data_received(frame("four"))  # the two are still in the queue
            await until(lambda: len(received) == 3)
            await asyncio.sleep(0)
            socket.data_received(frame("five"))
            socket.data_received(frame("si", final=False))
            await asyncio.sleep(0)
            socket.data_received(frame("hey", PING) + frame("x", CONTINUATION))
            await until(lambda: len(received) == 4)
            socket.data_received(frame("seven"))
        finally:
            reading.cancel()
            socket.leave()
        return socket.response

    server = web.Server(answer)
    listener = await loop.create_server(server, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/"
    async with aiohttp.ClientSession() as http, http.ws_connect(url) as client:
        await client.receive()
    listener.close()
    await server.shutdown(SECONDS)
    assert owner.messages == [b"one", b"five", b"seven"]
    assert owner.answers == [b"\x8a\x03hey"]  # the owner bounds what a client provokes and does not read
    assert received == [b"two", b"three", b"four", b"six"]


async def test_what_comes_while_the_handshake_is_answered_is_looked_at_too() -> None:
    loop, owner = asyncio.get_running_loop(), Owner()
    timers = TimerWheel(loop)
    received: list[object] = []

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        socket = AiohttpSocket(request, owner, timers, UNLIMITED, "", high_water=1000, write_timeout=SECONDS)
        await socket.open([])
        received.append(await socket.receive())
        await until(lambda: owner.violations)
        await asyncio.sleep(0)
        socket.leave()
        return socket.response

    async def slowly(request: web.Request, response: web.StreamResponse) -> None:
        reading.set()
        await go_on.wait()

    reading, go_on = asyncio.Event(), asyncio.Event()
    app = web.Application()
    app.on_response_prepare.append(slowly)
    app.router.add_get("/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    reader, writer = await asyncio.open_connection(host, port)
    lines = "".join(f"{name}: {value}\r\n" for name, value in handshake().items())
    writer.write(f"GET / HTTP/1.1\r\nhost: h\r\n{lines}\r\n".encode() + frame("early"))
    await reading.wait()
    writer.write(frame("x", CLOSE, masked=False))
    await asyncio.sleep(0.01)
    go_on.set()
    await until(lambda: owner.violations)
    assert owner.violations == [Violation(1002, "a frame is not masked")]
    writer.close()
    await writer.wait_closed()
    await runner.cleanup()
    assert reader is not None
