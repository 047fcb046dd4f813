"""A gateway in this process, upstreams that do as a test says, and clients that see every byte.

A scenario runs on asyncio's loop and on uvloop, bounded in time; afterwards no task, socket, timer, stream, unhandled
exception or error in the log may be left of it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import inspect
import json
import logging
import os
import socket
import ssl
import warnings
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest
import uvloop

from gai_fast.cli.mock.command import Mock
from gai_fast.model.settings import (
    CacheSettings,
    LimitSettings,
    ModelSettings,
    PriceSettings,
    Secret,
    ServerSettings,
    Settings,
    StoreSettings,
    StreamSettings,
    UpstreamSettings,
)
from gai_fast.server.serving import RunningServer, start
from tests.integration.certificates import Authority
from tests.steady import SteadyLoop
from tests.waiting import SECONDS, until
from tests.wire import chunk, reset

FAST_LANE = os.environ.get("GAI_FAST_TEST_FAST_LANE", "auto")
"""`off`: every scenario runs on aiohttp's server alone."""
SCENARIO_SECONDS = 4 * SECONDS
NEVER = 10 * SECONDS
"""A time limit, in seconds, that no scenario reaches."""
KEY = "sk-canary-0123456789"
QUERY = {"query": "Tell me a story"}
MESSAGES: Any = [{"role": "user", "content": "Tell me a story"}]
NATIVE = "/api/v1/stream"
CHAT = "/v1/chat/completions"
M = {**QUERY, "model": "m"}
RESUMABLE = {**M, "resumable": True}
OPENAI = {"model": "m", "messages": MESSAGES, "stream": True}
SSE_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"
DONE = b"data: [DONE]\n\n"


def delta(text: str, **more: Any) -> bytes:
    """Returns one SSE frame of the chat dialect."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None, **more}
    said = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "mock", "choices": [choice]}
    return b"data: %b\n\n" % json.dumps(said).encode()


FINISH = delta("", delta={}, finish_reason="stop")
END = (chunk(FINISH), chunk(DONE), LAST_CHUNK)
"""The end of an answer, in pieces."""


class Reader(asyncio.StreamReader):
    """A stream reader for connections that may be cut."""

    async def read_up_to(self, size: int) -> bytes:
        try:
            return await self.readexactly(size)
        except asyncio.IncompleteReadError as cut:
            return cut.partial


class Response:
    """One response, as far as it has been read."""

    def __init__(self, reader: Reader, status: int, headers: dict[str, str], version: str) -> None:
        self.status = status
        self.headers = headers
        self.version = version
        self.body = bytearray()
        self.ended = False
        """The body is complete by HTTP's rules."""
        self.pieces = 0
        """HTTP chunks read."""
        self._reader = reader
        self._is_chunked = headers.get("transfer-encoding") == "chunked"
        self._length = int(headers["content-length"]) if "content-length" in headers else None

    async def more(self) -> bool:
        """Reads one chunk or one piece; false at the end, the improper one as well."""
        if self.ended:
            return False
        if self._is_chunked:
            line = await self._reader.readline()
            if not line.endswith(b"\r\n"):
                return False
            size = int(line, 16)
            data = await self._reader.read_up_to(size + 2)
            if len(data) != size + 2:
                self.body += data
                return False
            assert data.endswith(b"\r\n")
            self.body += data[:-2]
            self.pieces += 1
            self.ended = size == 0
            return not self.ended
        limit = 65536 if self._length is None else self._length - len(self.body)
        data = await self._reader.read(limit)
        self.body += data
        self.ended = not data if self._length is None else len(self.body) == self._length
        return bool(data) and not self.ended

    async def until(self, marker: bytes) -> Response:
        """Reads until the body holds these bytes."""
        while marker not in self.body:
            assert await self.more(), f"the response ended without {marker!r}: {self.body!r}"
        return self

    async def rest(self) -> Response:
        """Reads to the end."""
        with suppress(ConnectionError):
            while await self.more():
                pass
        return self

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = self.json["error"]
        return error

    @property
    def data(self) -> list[str]:
        """The values of the `data:` lines of an SSE body, one each."""
        return [line[6:] for line in self.body.decode().split("\n") if line.startswith("data: ")]

    @property
    def events(self) -> list[dict[str, Any]]:
        """The objects of a stream, SSE or NDJSON, without `[DONE]`."""
        is_sse = self.headers["content-type"].startswith("text/event-stream")
        lines = self.data if is_sse else self.body.decode().splitlines()
        return [json.loads(line) for line in lines if line not in ("", "[DONE]")]

    @property
    def types(self) -> list[str]:
        return [event["type"] for event in self.events]

    @property
    def text(self) -> str:
        return "".join(event["text"] for event in self.events if event["type"] == "text.delta")


class Client:
    """One client connection, in bytes."""

    def __init__(self, host: str, reader: Reader, writer: asyncio.StreamWriter) -> None:
        self.host = host
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def send_in_pieces(self, data: bytes, size: int) -> None:
        for index in range(0, len(data), size):
            if self.writer.is_closing():
                return
            self.writer.write(data[index : index + size])
            await self.writer.drain()
            await asyncio.sleep(0)

    def request(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> None:
        self.send(request_bytes(self.host, method, path, body, headers))

    async def response(self) -> Response:
        """Returns the head of the next response; interim ones are left out."""
        async with asyncio.timeout(SECONDS):
            while True:
                head = (await self.reader.readuntil(b"\r\n\r\n")).decode("ascii")
                first, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
                version, status, _ = first.split(" ", 2)
                if status != "100":
                    break
        headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(": ")
            name = name.lower()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        return Response(self.reader, int(status), headers, version)

    async def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Response:
        """Returns a whole exchange."""
        self.request(method, path, body, headers)
        response = await self.response()
        if method == "HEAD" or response.status in (204, 304):
            response.ended = True
        async with asyncio.timeout(SECONDS):
            return await response.rest()

    async def is_closed(self) -> bool:
        """Waits for the server's end of the connection; false if more bytes come."""
        async with asyncio.timeout(SECONDS):
            try:
                return await self.reader.read(1) == b""
            except ConnectionError:
                return True

    async def is_open(self) -> bool:
        """Returns whether the connection takes another request."""
        return (await self.ask("GET", "/healthz")).status == 200

    def pause(self) -> None:
        """Reads nothing more."""
        self.writer.transport.pause_reading()

    def resume(self) -> None:
        """Reads again."""
        self.writer.transport.resume_reading()

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        """Closes with RST."""
        reset(self.writer)


def request_bytes(host: str, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> bytes:
    """Returns a request; an object is sent as JSON."""
    lines = {"host": host, **(headers or {})}
    data = b""
    if body is not None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = {"content-type": "application/json", "content-length": str(len(data)), **lines}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + data


class Peer:
    """One connection, seen from an upstream."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.head = b""
        self.body = b""
        self.sent = 0

    async def request(self) -> bytes:
        """Returns the body of the next request; `EOFError` if there is none."""
        self.head = await self.reader.readuntil(b"\r\n\r\n")
        length = self.head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        self.body = await self.reader.readexactly(int(length or 0))
        return self.body

    async def send(self, *pieces: bytes) -> None:
        for data in pieces:
            self.writer.write(data)
            await self.writer.drain()
            self.sent += len(data)

    async def answer(self, status: str, body: bytes, *headers: str) -> None:
        """A whole response."""
        lines = "".join(f"{line}\r\n" for line in (f"Content-Length: {len(body)}", *headers))
        await self.send(f"HTTP/1.1 {status}\r\n{lines}\r\n".encode() + body)

    def reset(self) -> None:
        reset(self.writer)

    async def read_soon(self) -> bytes:
        """Returns bytes of the gateway, empty if it has closed; `TimeoutError` if neither comes within a moment."""
        async with asyncio.timeout(0.02):
            return await self.reader.read(65536)

    async def until_gone(self) -> None:
        """Returns when the gateway has closed."""
        with suppress(OSError):
            while await self.reader.read(65536):
                pass


Handler = Callable[[Peer], Awaitable[None]]


class Upstream:
    """A server that answers by a handler per connection, and what it saw; with a context it speaks TLS."""

    def __init__(self, handler: Handler, context: ssl.SSLContext | None = None) -> None:
        self.handler = handler
        self.context = context
        self.peers: list[Peer] = []
        self.finished = 0
        """Loop times at which handlers ended."""
        self._server: asyncio.Server | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def url(self) -> str:
        assert self._server is not None
        scheme = "http" if self.context is None else "https"
        return f"{scheme}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self.context)

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(self._run(Peer(reader, writer))))

    async def _run(self, peer: Peer) -> None:
        self.peers.append(peer)
        try:
            await self.handler(peer)
        except (OSError, EOFError):
            pass  # the gateway went away
        finally:
            self.finished += 1
            peer.writer.transport.abort()
            with suppress(OSError):  # the gateway's reset, which asyncio would else tell the loop of, now and then
                await peer.writer.wait_closed()

    async def until_finished(self, count: int = 1) -> None:
        await until(lambda: self.finished >= count)


def weather_tool(asked: list[Any]) -> Handler:
    """Returns the handler of an upstream that calls a tool when a user has written, and answers with the tool's result.

    Args:
        asked: Gets the body of each request.
    """
    called = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}

    async def handler(peer: Peer) -> None:
        while True:
            asked.append(json.loads(await peer.request()))
            await peer.send(SSE_HEAD)
            if asked[-1]["messages"][-1]["role"] == "user":
                await peer.send(chunk(delta("", delta={"reasoning_content": "Hm"})), chunk(delta("Look.")))
                await peer.send(chunk(delta("", delta={"tool_calls": [called]})))
                await peer.send(chunk(delta("", delta={}, finish_reason="tool_calls")))
            else:
                await peer.send(chunk(delta("4 °C")), chunk(FINISH))
            await peer.send(chunk(DONE), LAST_CHUNK)

    return handler


def settings_for(url: str | None, /, *, demo: bool = False, **options: Any) -> Settings:
    """A configuration: model `m` speaks OpenAI's dialect, `claude` Anthropic's; each option goes where it belongs.

    The upstream `native` speaks OpenAI's Responses API.
    """

    def chosen(kind: type) -> dict[str, Any]:
        names = {field.name for field in dataclasses.fields(kind)} & options.keys() - {"lane"}
        return {name: options.pop(name) for name in names}

    # A scenario that is about a time limit names it: in all others none strikes, or does what the scenario waits for.
    stream = StreamSettings(
        **{"heartbeat": NEVER, "commit_after": NEVER, "write_timeout": NEVER, **chosen(StreamSettings)}
    )
    # A scenario that is about retries says so: all others see each failure once.
    waits = {"connect_timeout": NEVER, "first_event_timeout": NEVER, "idle_timeout": NEVER, "total_timeout": NEVER}
    limits = {**waits, "retries": 0, "breaker": None, **chosen(UpstreamSettings)}
    store = StoreSettings(**chosen(StoreSettings))
    server = ServerSettings(
        **{
            "port": 0,
            "fast_lane": FAST_LANE,
            "header_timeout": NEVER,
            "body_timeout": NEVER,
            **chosen(ServerSettings),
        }
    )
    keys, lane = options.pop("keys", ()), options.pop("lane", ())  # one upstream alone may have a path
    issuers = options.pop("issuers", ())
    native_lane = options.pop("native_lane", ())
    prices = options.pop("prices", PriceSettings())
    cache: CacheSettings = options.pop("cache", CacheSettings())
    cached, price = options.pop("cached", False), options.pop("price", None)
    otel, guards = options.pop("otel", None), options.pop("guards", ())
    totals = LimitSettings(**chosen(LimitSettings))
    assert not options, options
    upstreams: dict[str, UpstreamSettings] = {}
    models: dict[str, ModelSettings] = {}
    if url is not None:
        upstreams["up"] = UpstreamSettings(
            "up", "openai-compatible", f"{url}/v1", Secret(KEY), pass_paths=lane, **limits
        )
        upstreams["anthropic"] = UpstreamSettings("anthropic", "anthropic", url, Secret(KEY), **limits)
        upstreams["native"] = UpstreamSettings(
            "native", "openai-compatible:responses", f"{url}/v1", Secret(KEY), pass_paths=native_lane, **limits
        )
        models["m"] = ModelSettings("m", upstreams["up"], "mock", stream, cache=cached, price=price)
        models["claude"] = ModelSettings("claude", upstreams["anthropic"], "mock", stream)
    if url is None or demo:
        upstreams["demo"] = UpstreamSettings("demo", "demo", "")
        models["demo"] = ModelSettings("demo", upstreams["demo"], "demo", stream)
    parts = {"server": server, "keys": keys, "issuers": issuers, "stream": stream, "store": store, "limits": totals}
    return Settings(**parts, prices=prices, cache=cache, otel=otel, guards=guards, upstreams=upstreams, models=models)


class Gateway:
    """A running gateway."""

    def __init__(self, net: Net, running: RunningServer) -> None:
        self.net = net
        self.running = running
        self.url = running.url
        self.host = running.url.partition("://")[2]

    @property
    def streams(self) -> int:
        """Streams under way."""
        return len(self.running.engine.streams)

    @property
    def is_connected(self) -> bool:
        """Whether a client is."""
        return not all(each.emptied.is_set() for each in self.running.connections)

    @property
    def unsent(self) -> int:
        """Bytes held for clients."""
        transports = [transport for each in self.running.connections for transport in each.transports]
        return sum(transport.get_write_buffer_size() for transport in transports)

    async def connect(self, receive_buffer: int | None = None) -> Client:
        """Returns a new connection."""
        return await self.net.connect(self.host, receive_buffer)

    async def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Response:
        """One exchange on a connection of its own."""
        client = await self.connect()
        response = await client.ask(method, path, body, headers)
        client.close()
        return response

    async def stream(self, body: Any = None, path: str = "/api/v1/stream", **headers: str) -> tuple[Client, Response]:
        """Asks for a stream; the response's head has been read."""
        client = await self.connect()
        client.request("POST", path, body or QUERY, {name.replace("_", "-"): value for name, value in headers.items()})
        return client, await client.response()

    async def chat(self, *, stream: bool = True, **more: Any) -> Response:
        """Returns a whole chat completion."""
        return await self.ask(
            "POST", "/v1/chat/completions", {"model": "m", "messages": MESSAGES, "stream": stream, **more}
        )


class _Errors(logging.Handler):
    def __init__(self, texts: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._texts = texts

    def emit(self, record: logging.LogRecord) -> None:
        self._texts.append(f"{record.name}: {record.getMessage()}")


class Net:
    """The servers of one scenario."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self.stack = stack
        self.logged: list[str] = []
        """Warnings and errors in the log; a scenario that expects one takes it out (`warned`)."""
        self.gateways: list[Gateway] = []
        self.authority: Authority | None = None
        """Issues the certificates of gateways that are started from now on, whose clients come over TLS."""

    def warned(self, words: str) -> int:
        """Returns the number of warnings with this text; they are taken out."""
        before = len(self.logged)
        self.logged[:] = [line for line in self.logged if words not in line]
        return before - len(self.logged)

    async def mock(self, **options: Any) -> Mock:
        return await self.stack.enter_async_context(Mock(**options))

    async def upstream(self, handler: Handler, context: ssl.SSLContext | None = None) -> Upstream:
        upstream = Upstream(handler, context)
        await upstream.start()
        self.stack.push_async_callback(upstream.stop)
        return upstream

    async def connect(self, host: str, receive_buffer: int | None = None) -> Client:
        """Returns a client's connection to `host:port`, over TLS if there is an authority."""
        handle = socket.socket()
        if receive_buffer is not None:
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        handle.setblocking(False)
        loop = asyncio.get_running_loop()
        address, _, port = host.partition(":")
        try:
            await loop.sock_connect(handle, (address, int(port)))
        except OSError:
            handle.close()
            raise
        reader = Reader(limit=1 << 20, loop=loop)
        context = None if self.authority is None else self.authority.client()
        transport, protocol = await loop.create_connection(
            lambda: asyncio.StreamReaderProtocol(reader, loop=loop),
            sock=handle,
            ssl=context,
            server_hostname=None if context is None else "localhost",
        )
        client = Client(host, reader, asyncio.StreamWriter(transport, protocol, reader, loop))
        self.stack.callback(client.close)
        return client

    async def gateway(self, upstream: Mock | Upstream | str | None = None, **options: Any) -> Gateway:
        url = upstream if isinstance(upstream, str | None) else upstream.url
        if self.authority is not None:
            options = {**self.authority.pair("good"), **options}
        running = await start(settings_for(url, **options))
        self.gateways.append(Gateway(self, running))
        self.stack.push_async_callback(running.close)
        return self.gateways[-1]


LOOPS = {"asyncio": SteadyLoop, "uvloop": uvloop.new_event_loop}
TESTED_LOOPS = [os.environ["GAI_FAST_TEST_LOOP"]] if "GAI_FAST_TEST_LOOP" in os.environ else list(LOOPS)
BOTH_LOOPS = pytest.mark.parametrize("factory", [LOOPS[name] for name in TESTED_LOOPS], ids=TESTED_LOOPS)
ASYNCIO = pytest.mark.parametrize("factory", [SteadyLoop], ids=["asyncio"])
STEADY = pytest.mark.parametrize("factory", [SteadyLoop], ids=["steady"])
UVLOOP = pytest.mark.parametrize("factory", [uvloop.new_event_loop], ids=["uvloop"])


def on_both_loops(scenario: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Returns a test that runs the scenario on each loop; arguments after the first are pytest's."""
    return _test(scenario, BOTH_LOOPS)


def on_uvloop(scenario: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Returns a test of what is decided above the loop: one loop is enough."""
    return _test(scenario, UVLOOP)


def on_asyncio(scenario: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Returns a test that replaces what only asyncio's loop calls, such as `socket.getaddrinfo`."""
    return _test(scenario, ASYNCIO)


def on_steady_loop(scenario: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """A test of short time limits, in which something comes before one strikes: on a loop whose time waits for it."""
    return _test(scenario, STEADY)


def _test(scenario: Callable[..., Awaitable[None]], loops: pytest.MarkDecorator) -> Callable[..., None]:
    def test(factory: Callable[[], asyncio.AbstractEventLoop], **arguments: Any) -> None:
        run(factory, lambda net: scenario(net, **arguments))

    signature = inspect.signature(scenario)
    factory = inspect.Parameter("factory", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    test.__signature__ = signature.replace(parameters=[factory, *list(signature.parameters.values())[1:]])
    test.__name__ = scenario.__name__
    test.__doc__ = scenario.__doc__
    test.pytestmark = [*getattr(scenario, "pytestmark", ()), loops.mark]
    return test


def run(factory: Callable[[], asyncio.AbstractEventLoop], scenario: Callable[[Net], Awaitable[None]]) -> None:
    """Runs one scenario and looks for what it left behind."""
    gc.freeze()  # the collection below is of the scenario's objects; with earlier tests' it takes ten times as long
    problems: list[Any] = []
    logged: list[str] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: problems.append(context))
        # The executor's threads and the loop's own files come first, so that what is counted is the scenario's.
        await loop.getaddrinfo("127.0.0.1", 1)
        await _listen_once(loop)
        before = _open_files()
        async with asyncio.timeout(SCENARIO_SECONDS):
            async with AsyncExitStack() as stack:
                net = Net(stack)
                net.logged = logged
                await scenario(net)
            for gateway in net.gateways:
                assert gateway.streams == 0
                assert len(gateway.running.engine.timers) == 0
            with suppress(TimeoutError):
                await until(lambda: not _left(before))
            assert not _left(before), _left(before)

    handler = _Errors(logged)
    loggers = [logging.getLogger(name) for name in ("gai_fast", "asyncio")]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        with asyncio.Runner(loop_factory=factory) as runner:
            try:
                runner.run(main())
            except BaseException:
                # A handle that the scenario has left open is a warning, and as an error it never lets uvloop close.
                warnings.simplefilter("ignore", ResourceWarning)
                raise
        gc.collect()
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
    assert not problems, problems
    assert not logged, logged


async def _listen_once(loop: asyncio.AbstractEventLoop) -> None:
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    server.close()
    await server.wait_closed()


def _open_files() -> dict[str, str]:
    found = {}
    for name in os.listdir("/dev/fd"):  # noqa: PTH208  # paths of pathlib's take ten times as long
        with suppress(OSError):  # the folder's own
            found[name] = os.readlink(f"/dev/fd/{name}")  # noqa: PTH115  # as above
    return found


def _left(before: dict[str, str]) -> list[str]:
    """Returns the leftovers of a scenario: tasks and open files."""
    tasks = [repr(task) for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    files = _open_files()
    return tasks + ([str(files)] if len(files) > len(before) else [])


def joined(pieces: Iterable[dict[str, Any]]) -> str:
    """Returns the text of OpenAI's chunks."""
    return "".join(choice["delta"].get("content") or "" for piece in pieces for choice in piece.get("choices", ()))
