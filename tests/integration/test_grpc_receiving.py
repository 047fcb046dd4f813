"""`gai-fast grpc`: messages that do not come whole, over HTTP/2 by hand: no client of gRPC sends a part of one."""

from __future__ import annotations

import asyncio
import struct
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gai_fast.kernels import encode_json
from gai_fast.model.settings import KeySettings, key_digest
from tests.conftest import ChangeLimits
from tests.integration.gateway import QUERY, Net
from tests.integration.rpc import Rpc, refused, serving_rpc
from tests.integration.test_grpc import KEY, RIGHT, WRONG
from tests.limits import LIMITS
from tests.waiting import SECONDS, until

GENERATE = "/gai.v1.Gateway/Generate"
HEALTH = "/grpc.health.v1.Health/Check"
WATCH = "/grpc.health.v1.Health/Watch"
MODELS = "/gai.v1.Gateway/ListModels"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
MIB = 2**20
LONGEST = 10 * MIB
DATA, HEADERS, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE = 0, 1, 3, 4, 6, 8
INITIAL_WINDOW = 4
NO_WINDOW = struct.pack(">HI", INITIAL_WINDOW, 0)
FRAME = 16_384


class Unfinished:
    """A connection whose calls announce a message and send all of it but its last bytes, as the server lets them.

    Attributes:
        sent: The bytes of each call.
        heads: The headers and trailers of each call that has got some, as HPACK.
        ended: The calls that have ended.
        running: Reads frames until the server closes the connection.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, takes_answers: bool = True
    ) -> None:
        self.sent: defaultdict[int, int] = defaultdict(int)
        self.heads: defaultdict[int, bytes] = defaultdict(bytes)
        self.ended: set[int] = set()
        self.running = asyncio.get_running_loop().create_task(self._run())
        self._reader, self._writer = reader, writer
        self._initial = 65_535
        self._windows: defaultdict[int, int] = defaultdict(int)
        self._windows[0] = 65_535
        self._left: dict[int, int] = {}
        self._changed = asyncio.Event()
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, b"" if takes_answers else NO_WINDOW))

    def call(self, path: str, metadata: Any = (), size: int = LONGEST, message: bytes | None = None) -> int:
        """Starts a call; returns its number. One of size 0 has sent its message: `message`, or one without a field."""
        size = size if message is None else 0
        number = 2 * len(self._left) + 1
        fields = (
            (":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "x"),
            ("content-type", "application/grpc"), ("te", "trailers"), *metadata,
        )  # fmt: skip
        # RFC 7541, 6.2.2: a literal field without indexing, with a new name
        block = b"".join(b"\0" + bytes((len(n),)) + n.encode() + bytes((len(v),)) + v.encode() for n, v in fields)
        self._writer.write(frame(HEADERS, 4, number, block))
        whole = struct.pack(">BI", 0, size if message is None else len(message)) + (message or b"")
        self._writer.write(frame(DATA, size == 0, number, whole))
        self._windows[number] -= len(whole)
        self._windows[0] -= len(whole)
        self._left[number] = max(0, size - 5)
        self._send()
        return number

    async def until_ended(self, *numbers: int) -> None:
        """Waits until calls have ended."""
        async with asyncio.timeout(SECONDS):
            while not self.ended.issuperset(numbers):
                self._changed.clear()
                await self._changed.wait()

    async def until_sent(self, number: int, size: int = LONGEST - 5) -> None:
        """Waits until so much of a call's message is sent."""
        async with asyncio.timeout(SECONDS):
            while self.sent[number] < size:
                self._changed.clear()
                await self._changed.wait()

    async def _run(self) -> None:
        """Reads frames, and sends what they let it send."""
        while True:
            head = await self._reader.readexactly(9)
            length, kind, flags, number = int.from_bytes(head[:3]), head[3], head[4], int.from_bytes(head[5:])
            payload = await self._reader.readexactly(length)
            if kind == SETTINGS and not flags & 1:
                for name, value in struct.iter_unpack(">HI", payload):
                    self._initial = value if name == INITIAL_WINDOW else self._initial
                self._writer.write(frame(SETTINGS, 1, 0, b""))
            elif kind == PING and not flags & 1:
                self._writer.write(frame(PING, 1, 0, payload))
            elif kind == WINDOW_UPDATE:
                self._windows[number] += int.from_bytes(payload)
            elif kind == HEADERS:
                self.heads[number] += payload
            if kind == RST_STREAM or (kind in (DATA, HEADERS) and flags & 1):
                self.ended.add(number)
            self._send()
            self._changed.set()

    def _send(self) -> None:
        for number in self._left.keys() - self.ended:
            while (size := min(self._left[number], self._may(number), FRAME)) > 0:
                self._writer.write(frame(DATA, 0, number, bytes(size)))
                self._left[number] -= size
                self.sent[number] += size
                self._windows[number] -= size
                self._windows[0] -= size

    def _may(self, number: int) -> int:
        return min(self._initial + self._windows[number], self._windows[0])


def frame(kind: int, flags: int, number: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes((kind, flags)) + number.to_bytes(4) + payload


@asynccontextmanager
async def unfinished(rpc: Rpc, *, takes_answers: bool = True, host: str = "127.0.0.1") -> AsyncIterator[Unfinished]:
    """Yields a connection to a server. Without `takes_answers` its calls get no byte of a message."""
    reader, writer = await asyncio.open_connection("127.0.0.1", rpc.server.port, local_addr=(host, 0))
    connection = Unfinished(reader, writer, takes_answers=takes_answers)
    try:
        async with asyncio.timeout(SECONDS):  # the server's settings
            await connection._changed.wait()
        yield connection
    finally:
        connection.running.cancel()
        await asyncio.wait({connection.running})
        writer.close()


async def answered(rpc: Rpc, metadata: Any = RIGHT) -> bool:
    return [event async for event in rpc.generate(QUERY, metadata)][-1].type == "done"


@pytest.mark.parametrize("needs_key", [True, False])
async def test_a_message_without_a_key_is_refused_unread(net: Net, needs_key: bool) -> None:
    """30 such calls took 300 MiB, for as long as their connection was there."""
    gateway = await net.gateway(await net.mock(deltas=8), keys=(KEY,))
    async with serving_rpc(gateway.url, needs_key=needs_key) as rpc, unfinished(rpc) as stranger:
        calls = [stranger.call(GENERATE) for _ in range(30)]
        await stranger.until_ended(*calls)
        assert max(stranger.sent.values()) <= LIMITS.grpc_unasked
        assert b"grpc-status" in stranger.heads[1]
        assert b"grpc-message" in stranger.heads[1]
        assert b"key" in stranger.heads[1]
        assert await answered(rpc)


async def test_messages_with_a_wrong_key_are_few_at_a_time(net: Net, change_limits: ChangeLimits) -> None:
    change_limits(grpc_unjudged=2, grpc_unjudged_wait=0.05, grpc_receive=3)
    gateway = await net.gateway(await net.mock(deltas=8), keys=(KEY,))
    async with serving_rpc(gateway.url) as rpc, unfinished(rpc) as stranger:
        first = [stranger.call(GENERATE, WRONG) for _ in range(2)]
        for call in first:
            await stranger.until_sent(call)
        others = [stranger.call(GENERATE, WRONG) for _ in range(8)]
        await stranger.until_ended(*others)
        assert max(stranger.sent[call] for call in others) <= LIMITS.grpc_unasked
        assert not stranger.ended & set(first)
        async with asyncio.timeout(SECONDS):
            await stranger.until_ended(*first)


async def test_a_right_key_passes_while_others_have_all_places(net: Net, change_limits: ChangeLimits) -> None:
    change_limits(grpc_unjudged=1, grpc_unjudged_wait=0.05)
    gateway = await net.gateway(await net.mock(deltas=8), keys=(KEY,))
    async with serving_rpc(gateway.url) as rpc, unfinished(rpc) as stranger:
        await stranger.until_sent(stranger.call(GENERATE, WRONG))
        assert await answered(rpc)
        assert len(await rpc.models(RIGHT)) == 2
        assert not stranger.ended


@pytest.mark.parametrize("has_key", [True, False])
async def test_a_message_that_stops_ends_its_call(net: Net, change_limits: ChangeLimits, has_key: bool) -> None:
    change_limits(grpc_receive=0.3)
    gateway = await net.gateway(await net.mock(deltas=8), keys=(KEY,) if has_key else ())
    async with serving_rpc(gateway.url) as rpc, unfinished(rpc) as caller:
        call = caller.call(GENERATE, RIGHT if has_key else (), size=100)
        await caller.until_ended(call)
        assert b"the message did not arrive in time" in caller.heads[call]


async def test_callers_whose_messages_take_all_places_hold_up_others_for_a_time(
    net: Net, change_limits: ChangeLimits
) -> None:
    change_limits(grpc_unjudged=1, grpc_unjudged_wait=0.05, grpc_receiving=1, grpc_receiving_wait=0.1, grpc_receive=2)
    gateway = await net.gateway(await net.mock(deltas=8), keys=(KEY,))
    async with serving_rpc(gateway.url) as rpc, unfinished(rpc) as caller:
        calls = [caller.call(GENERATE, RIGHT) for _ in range(2)]
        for call in calls:
            await caller.until_sent(call)
        _, refusal = await refused(rpc.generate(QUERY, RIGHT))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "receiving")
        await caller.until_ended(*calls)
        assert await answered(rpc)


async def test_the_longest_message_comes_whole(net: Net) -> None:
    """Its client waits for the server to ask."""
    gateway = await net.gateway(await net.mock(deltas=8))
    options = (("grpc.max_send_message_length", -1),)
    async with serving_rpc(gateway.url, options=options) as rpc:
        request = encode_json(QUERY)
        request += b" " * (LONGEST - 1000 - len(request))
        events = await asyncio.gather(*(all_of(rpc.generate(request)) for _ in range(3)))
        assert all(each[-1].type == "done" for each in events)


async def all_of(call: Any) -> Any:
    return [event async for event in call]


@pytest.mark.parametrize("method", ["Generate", "ListModels"])
async def test_no_message_is_refused_and_only_the_first_counts(net: Net, method: str) -> None:
    gateway = await net.gateway(await net.mock(deltas=8))
    async with serving_rpc(gateway.url) as rpc:
        path = f"/gai.v1.Gateway/{method}"
        stub: Any = rpc.channel.stream_stream(path) if method == "Generate" else rpc.channel.stream_unary(path)
        _, refusal = await refused(stub(iter([]), timeout=SECONDS))
        assert (refusal.code, refusal.words) == (grpc.StatusCode.INVALID_ARGUMENT, "the call has no message")
        request = rpc.made.messages.GenerateRequest(json=encode_json(QUERY)).SerializeToString()
        call = stub(iter([request if method == "Generate" else b"", b"\xff"]), timeout=SECONDS)
        if method == "Generate":
            assert len(await all_of(call)) > 8
        else:
            assert await call
        assert await call.code() is grpc.StatusCode.OK


async def test_strangers_do_not_keep_the_health_from_answering(net: Net, change_limits: ChangeLimits) -> None:
    change_limits(grpc_probes=2, grpc_probe=0.5)
    gateway = await net.gateway(await net.mock(), keys=(KEY,))
    async with serving_rpc(gateway.url) as rpc, unfinished(rpc) as stranger:
        health = health_pb2_grpc.HealthStub(rpc.channel)
        calls = [stranger.call(HEALTH) for _ in range(20)]
        answer = await health.Check(health_pb2.HealthCheckRequest(service="gai.v1.Gateway"))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        await stranger.until_ended(*calls)
        assert sum(stranger.sent.values()) <= 4 * LONGEST + 20 * LIMITS.grpc_unasked
        assert sum(b"did not arrive in time" in head for head in stranger.heads.values())
        for request in (b"\xff", b"\x0a\x02no"):
            with pytest.raises(grpc.aio.AioRpcError) as problem:
                await rpc.channel.unary_unary(HEALTH)(request)
            expected = grpc.StatusCode.INVALID_ARGUMENT if request == b"\xff" else grpc.StatusCode.NOT_FOUND
            assert problem.value.code() is expected


async def test_watchers_who_take_no_answer_do_not_hold_up_the_end(net: Net) -> None:
    gateway = await net.gateway(await net.mock(), keys=(KEY,))
    async with serving_rpc(gateway.url) as rpc, unfinished(rpc, takes_answers=False) as stranger:
        for _ in range(2):
            stranger.call(WATCH, size=0)
        await until(lambda: rpc.server._health._watchers.total() == 2)
        async with asyncio.timeout(SECONDS):
            await rpc.server.stop()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (HEALTH, b""),
        (WATCH, b""),
        (MODELS, b""),
        (GENERATE, b"\x0a\x2b" + b'{"query":"a","max_tokens":9,"stream":true }'),
        (REFLECTION, b"\x3a\x00"),  # lists the services
    ],
)
async def test_calls_whose_answers_are_not_taken_keep_their_places_for_a_time(
    net: Net, change_limits: ChangeLimits, path: str, message: bytes
) -> None:
    """grpcio waits for a window of HTTP/2 without an end. It keeps a method's first call, and the newest one of all.
    Other calls of the connection, which may be a proxy's, go on."""
    change_limits(grpc_last=0.2, grpc_look=0.1, grpc_unread=0.3)
    gateway = await net.gateway(await net.mock())
    async with serving_rpc(gateway.url) as rpc:
        assert await answered(rpc, ())
        async with unfinished(rpc, takes_answers=False) as stranger, unfinished(rpc) as other:
            calls = [stranger.call(path, message=message) for _ in range(8)]
            stays = other.call(WATCH, size=0)
            await until(lambda: rpc.server._health._watchers.total() > 0 and not rpc.server._calls.waiting)
            assert await answered(rpc, ())
            await stranger.until_ended(*calls[1:])
            assert not stranger.running.done()
            assert stays not in other.ended


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2"])
@pytest.mark.parametrize(("path", "metadata"), [(GENERATE, ()), (GENERATE, WRONG), (HEALTH, ()), (REFLECTION, RIGHT)])
async def test_strangers_with_any_number_of_calls_hold_up_no_caller_with_a_key(
    net: Net, change_limits: ChangeLimits, host: str, path: str, metadata: Any
) -> None:
    change_limits(grpc_waiting=8, grpc_calls=64)
    gateway = await net.gateway(await net.mock(deltas=8), keys=(KEY,))
    async with serving_rpc(gateway.url) as rpc, AsyncExitStack() as stack:
        takes_answers = path != REFLECTION
        strangers = [
            await stack.enter_async_context(unfinished(rpc, takes_answers=takes_answers, host=host)) for _ in range(4)
        ]
        for _ in range(3):
            for stranger in strangers:
                for _ in range(16):
                    stranger.call(path, metadata, message=None if takes_answers else b"\x3a\x00")
            assert await answered(rpc)
            assert len(await rpc.models(RIGHT)) == 2
            assert len(rpc.server._calls.waiting) <= 8
        assert {call.peer for call in rpc.server._calls._placed} == set()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2"])
async def test_strangers_with_any_number_of_connections_hold_up_no_caller_with_a_key(
    net: Net, change_limits: ChangeLimits, host: str
) -> None:
    change_limits(grpc_calls=24, grpc_look=0.1)
    gateway = await net.gateway(await net.mock(deltas=8), keys=(KEY,))
    async with serving_rpc(gateway.url) as rpc, AsyncExitStack() as stack:
        assert await answered(rpc)
        for _ in range(3):
            for _ in range(40):
                _, writer = await asyncio.open_connection("127.0.0.1", rpc.server.port, local_addr=(host, 0))
                stack.callback(writer.close)
            target = f"127.0.0.1:{rpc.server.port}"
            async with grpc.aio.insecure_channel(target, (("grpc.use_local_subchannel_pool", 1),)) as channel:
                stub = rpc.made.services.GatewayStub(channel)
                request = rpc.made.messages.ListModelsRequest()
                asked = stub.ListModels(request, metadata=RIGHT, timeout=SECONDS, wait_for_ready=True)
                assert len((await asked).models) == 2
        assert len(await rpc.models(RIGHT)) == 2, "the connection of a caller with a key stays"


async def test_a_caller_has_half_of_the_places(net: Net, change_limits: ChangeLimits) -> None:
    other = KeySettings("bob", (key_digest("sk-gai-bob"),))
    gateway = await net.gateway(await net.mock(deltas=600, rate=50), keys=(KEY, other))
    async with serving_rpc(gateway.url) as rpc, serving_calls(rpc, 2):
        change_limits(grpc_calls=4)  # now: a connection has half of the calls too
        _, refusal = await refused(rpc.generate(QUERY, RIGHT))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "calls")
        call = rpc.generate(QUERY, (("authorization", "Bearer sk-gai-bob"),))
        assert (await anext(aiter(call))).type == "start"
        call.cancel()


@asynccontextmanager
async def serving_calls(rpc: Rpc, number: int) -> AsyncIterator[None]:
    """Runs calls of one caller."""
    calls = [rpc.generate(QUERY, RIGHT) for _ in range(number)]
    for call in calls:
        await anext(aiter(call))
    yield
    for call in calls:
        call.cancel()


async def test_a_connection_takes_half_of_the_places_of_calls(net: Net, change_limits: ChangeLimits) -> None:
    change_limits(grpc_calls=8)
    gateway = await net.gateway(await net.mock())
    async with serving_rpc(gateway.url) as rpc, unfinished(rpc, takes_answers=False) as stranger:
        for _ in range(8):
            stranger.call(HEALTH, size=0)
        await until(lambda: len(stranger.heads) + len(stranger.ended) == 8)
        assert len(stranger.ended) == 4
        assert await answered(rpc, ())


async def test_messages_of_the_reflection_are_few_and_end(net: Net, change_limits: ChangeLimits) -> None:
    change_limits(grpc_reflections=2, grpc_receive=1, grpc_probe=0.1)
    gateway = await net.gateway(await net.mock(), keys=(KEY,))
    async with serving_rpc(gateway.url) as rpc, unfinished(rpc) as caller:
        calls = [caller.call(REFLECTION, RIGHT) for _ in range(6)]
        await caller.until_ended(*calls)
        assert sum(caller.sent.values()) <= 2 * LONGEST + 6 * LIMITS.grpc_unasked
        refusals = b"".join(caller.heads.values())
        assert b"did not arrive in time" in refusals
        assert b"receives as many messages as it can" in refusals
