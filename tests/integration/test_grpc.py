"""`gai-fast grpc`: what clients that are made from the proto get, whatever they, the gateway and the model do."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from unittest.mock import AsyncMock

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from gai_fast.cli.mock.command import Fault
from gai_fast.grpc.calls import Calls
from gai_fast.grpc.messages import description
from gai_fast.grpc.server import _Health
from gai_fast.grpc.statuses import STATUSES
from gai_fast.kernels import encode_json
from gai_fast.model.errors import CLASSES, Error
from gai_fast.model.settings import KeySettings, key_digest
from tests.conftest import ChangeLimits
from tests.faults.proxy import FaultProxy, Faults
from tests.integration.gateway import QUERY, RESUMABLE, SSE_HEAD, Net, Peer, Upstream, delta
from tests.integration.rpc import made_from, refused, serving_rpc
from tests.limits import LIMITS
from tests.waiting import SECONDS, until
from tests.wire import chunk

BEARER = "sk-gai-right"
RIGHT = (("authorization", f"Bearer {BEARER}"),)
WRONG = (("authorization", "Bearer sk-gai-wrong"),)
KEY = KeySettings("alice", (key_digest(BEARER),))


async def endless(peer: Peer) -> None:
    """An upstream whose answer does not end."""
    await peer.request()
    await peer.send(SSE_HEAD)
    while True:
        await peer.send(chunk(delta("x" * 1000)))
        await asyncio.sleep(0)


async def all_that_is_taken(upstream: Upstream) -> int:
    """Waits until an upstream can send nothing more; returns the bytes that it has sent."""
    sent, before = sum(peer.sent for peer in upstream.peers), -1
    while sent != before:
        await asyncio.sleep(1)
        sent, before = sum(peer.sent for peer in upstream.peers), sent
    return sent


# ---- the methods -----------------------------------------------------------------------------------------------------


async def test_the_compiler_makes_of_the_served_proto_what_the_server_uses(net: Net) -> None:
    gateway = await net.gateway(await net.mock())
    reply = await gateway.ask("GET", "/gai.proto")
    made = FileDescriptorProto.FromString(made_from(bytes(reply.body)).messages.DESCRIPTOR.serialized_pb)
    assert made == description()


async def test_a_stream_is_that_of_sse(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=8))
    sse = await gateway.ask("POST", "/api/v1/stream", QUERY, {"accept": "text/event-stream"})
    async with serving_rpc(gateway.url) as rpc:
        call = rpc.generate(QUERY, (("x-request-id", "my-id"),))
        events = [event async for event in call]
        assert await call.code() is grpc.StatusCode.OK
        stream_id = json.loads(events[0].json)["stream_id"]
        assert (await refused(rpc.follow(stream_id)))[1].code is grpc.StatusCode.NOT_FOUND, "nothing is kept of it"
        assert dict(await call.initial_metadata())["x-request-id"] == "my-id"
    assert json.loads(events[0].json)["request_id"] == "my-id"
    assert [event.json.decode() for event in events[1:]] == sse.data[1:]
    for event in events:
        result = json.loads(event.json)
        text = result["text"] if event.type == "text.delta" else ""
        assert (event.type, event.seq, event.text) == (result["type"], result.get("seq", 0), text)


async def test_a_durable_stream_is_followed_from_any_event(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=8))
    async with serving_rpc(gateway.url) as rpc:
        whole = [event async for event in rpc.generate(RESUMABLE)]
        stream_id = json.loads(whole[0].json)["stream_id"]
        assert [event async for event in rpc.follow(stream_id, 4)] == whole[4:]
        assert [event async for event in rpc.follow(stream_id)] == whole
        assert [event.type async for event in rpc.follow(stream_id, whole[-2].seq)] == []
        assert await rpc.cancel(stream_id) == "finished"


async def test_a_stream_is_cancelled_by_another_call(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=600, rate=50))
    async with serving_rpc(gateway.url) as rpc:
        call = rpc.generate(QUERY)
        start = await anext(aiter(call))
        assert await rpc.cancel(json.loads(start.json)["stream_id"]) == "cancelled"
        rest = [event async for event in call]
        assert json.loads(rest[-2].json)["finish_reason"] == "cancelled"
        assert (rest[-1].type, rest[-1].seq) == ("done", 0)
        assert await call.code() is grpc.StatusCode.OK


async def test_the_models_are_those_of_the_caller(net: Net) -> None:
    keys = (KEY, KeySettings("bob", (key_digest("sk-gai-bob"),), models=("m",)))
    gateway = await net.gateway(await net.mock(), keys=keys)
    async with serving_rpc(gateway.url) as rpc:
        listed = await rpc.models(RIGHT)
        assert [model.id for model in listed] == ["m", "claude"]
        assert json.loads(listed[0].json)["object"] == "model"
        assert [model.id for model in await rpc.models((("authorization", "Bearer sk-gai-bob"),))] == ["m"]


# ---- metadata --------------------------------------------------------------------------------------------------------


async def test_what_goes_through_and_what_does_not(net: Net) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.answer("403 Forbidden", b"{}")

    upstream = await net.upstream(handler)
    passed = {"authorization": "Bearer k", "idempotency-key": "once", "traceparent": "00-" + "1" * 32 + "-2222-01"}
    kept = {"x-forwarded-for": "203.0.113.9", "cookie": "a=b", "x-api-key": "k"}
    async with serving_rpc(upstream.url) as rpc:
        _, refusal = await refused(rpc.generate(QUERY, (*passed.items(), *kept.items(), ("x-request-id", "no id"))))
    head = upstream.peers[0].head.decode().lower()
    for name, value in passed.items():
        assert f"\r\n{name}: {value.lower()}\r\n" in head
    assert "\r\nx-forwarded-for: 127.0.0.1\r\n" in head
    assert "cookie" not in head
    assert "x-api-key" not in head
    request_id = refusal.info.metadata["request_id"]
    assert f"\r\nx-request-id: {request_id}\r\n" in head
    assert request_id != "no id"


async def test_an_idempotency_key_asks_once(net: Net) -> None:
    upstream = await net.mock(deltas=8)
    gateway = await net.gateway(upstream)
    async with serving_rpc(gateway.url) as rpc:
        first, second = [
            [event async for event in rpc.generate(QUERY, (("idempotency-key", "once"),))] for _ in range(2)
        ]
    assert first == second
    assert len(upstream.requests) == 1


async def test_the_servers_key_is_for_calls_that_bring_none(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=8), keys=(KEY,))
    async with serving_rpc(gateway.url, key=BEARER) as rpc:
        assert len(await rpc.models()) == 2
        for metadata in (WRONG, (("authorization", ""),)):
            _, refusal = await refused(rpc.generate(QUERY, metadata))
            assert refusal.code is grpc.StatusCode.UNAUTHENTICATED
    async with serving_rpc(gateway.url) as rpc:
        assert (await refused(rpc.generate(QUERY)))[1].code is grpc.StatusCode.UNAUTHENTICATED


async def test_an_open_server_asks_no_gateway_without_a_key(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=8))
    async with serving_rpc(gateway.url, needs_key=True) as rpc:
        _, refusal = await refused(rpc.generate(QUERY))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAUTHENTICATED, "key")


async def test_one_callers_wrong_keys_lock_out_no_other(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=8), keys=(KEY,), forwarded_allow_ips=("127.0.0.1",))
    async with serving_rpc(gateway.url, "[::1]") as guesser, serving_rpc(gateway.url) as other:
        for _ in range(LIMITS.wrong_keys):
            assert (await refused(guesser.models(WRONG)))[1].code is grpc.StatusCode.UNAUTHENTICATED
        _, refusal = await refused(guesser.generate(QUERY, RIGHT))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "wrong_keys")
        assert refusal.retry
        assert (await refused(guesser.models(RIGHT)))[1].retry
        assert len(await other.models(RIGHT)) == 2


# ---- statuses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", CLASSES)
async def test_each_code_has_its_status(net: Net, code: Any) -> None:
    error = Error(code, "Ärger: " + "ü" * 5000, reason="why", retry_after_ms=1500)
    asked: set[str] = set()
    named: set[str] = set()

    async def handler(peer: Peer) -> None:
        await peer.request()
        asked.add(peer.head.decode().lower().partition("\r\nx-request-id: ")[2].partition("\r\n")[0])
        await peer.answer(f"{error.status} No", encode_json({"error": error.payload()}))

    upstream = await net.upstream(handler)
    async with serving_rpc(upstream.url) as rpc:
        for call in (rpc.generate(QUERY), rpc.models(), rpc.cancel("s" * 22), rpc.follow("s" * 22)):
            events, refusal = await refused(call)
            assert events == []
            assert refusal.code is STATUSES[code]
            assert (refusal.info.reason, refusal.info.domain) == (code.upper(), "gai-fast")
            assert refusal.info.metadata.keys() == {"reason", "request_id"}
            assert refusal.reason == "why"
            named.add(refusal.info.metadata["request_id"])
            assert refusal.retry == 1500
            assert error.message.startswith(refusal.words)
            assert refusal.words
    assert len(named) == 4
    assert named == asked


async def test_a_request_has_the_limits_of_a_body(net: Net) -> None:
    """The process is for all callers: what a parser needs seconds for is refused before."""
    gateway = await net.gateway(await net.mock())
    async with serving_rpc(gateway.url) as rpc:
        for request, reason in ((b"[" * 100_000, "depth"), (b'{"a":[' + b"{}," * 200_000, "items"), (b"{", "json")):
            _, refusal = await refused(rpc.generate(request))
            assert (refusal.code, refusal.info.metadata["reason"]) == (grpc.StatusCode.INVALID_ARGUMENT, reason)


async def test_a_stream_that_fails_tells_it_and_then_its_status(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=8, fault=Fault.parse("cut@3")))
    async with serving_rpc(gateway.url) as rpc:
        events, refusal = await refused(rpc.generate(QUERY))
    assert [event.type for event in events][-3:] == ["text.delta", "error", "done"]
    result = json.loads(events[-2].json)["error"]
    assert refusal.code is grpc.StatusCode.UNAVAILABLE
    assert refusal.info.reason == result["code"].upper()
    assert refusal.info.metadata["phase"] == result["phase"] == "mid_stream"


async def test_a_gateway_that_is_not_there_is_unavailable(net: Net) -> None:
    async with serving_rpc("http://127.0.0.1:1") as rpc:
        _, refusal = await refused(rpc.generate(QUERY))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "connect")


async def test_the_longest_message_reaches_clients_that_take_8_kib_of_metadata(net: Net) -> None:
    """The default of grpc-java, and from which on others refuse some at random."""
    error = Error("not_found", "\N{GRINNING FACE}" * 5000, reason="model")

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.answer("404 No", encode_json({"error": error.payload()}))

    upstream = await net.upstream(handler)
    options = (("grpc.max_metadata_size", 8192), ("grpc.absolute_max_metadata_size", 8192))
    async with serving_rpc(upstream.url, options=options) as rpc:
        _, refusal = await refused(rpc.generate(QUERY))
    assert refusal.code is grpc.StatusCode.NOT_FOUND
    assert error.message.startswith(refusal.words)


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"1",
        b"\xff",
        b"[" * 100_000,
        b'{"query": 1}',
        b'{"nothing": 1}',
        b'{"query": "Hi", "resumable": 1}',
    ],
)
async def test_a_bad_request_is_an_invalid_argument(net: Net, body: bytes) -> None:
    gateway = await net.gateway(await net.mock(deltas=8))
    async with serving_rpc(gateway.url) as rpc:
        assert (await refused(rpc.generate(body)))[1].code is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("method", ["Generate", "Follow", "Cancel", "ListModels"])
async def test_bytes_that_are_no_message_are_an_invalid_argument(net: Net, method: str) -> None:
    gateway = await net.gateway(await net.mock(deltas=8))
    async with serving_rpc(gateway.url) as rpc:
        path = f"/gai.v1.Gateway/{method}"
        call = rpc.channel.unary_stream(path) if method in ("Generate", "Follow") else rpc.channel.unary_unary(path)
        _, refusal = await refused(call(b"\xff\xff"))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "message")


@pytest.mark.parametrize(
    ("stream_id", "after", "code"),
    [
        ("", 0, grpc.StatusCode.NOT_FOUND),
        ("../../v1/models", 0, grpc.StatusCode.NOT_FOUND),
        ("s" * 22, 0, grpc.StatusCode.NOT_FOUND),
        ("s" * 22, 2**64 - 1, grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
async def test_a_stream_that_is_none(net: Net, stream_id: str, after: int, code: grpc.StatusCode) -> None:
    gateway = await net.gateway(await net.mock(deltas=8))
    async with serving_rpc(gateway.url) as rpc:
        assert (await refused(rpc.follow(stream_id, after)))[1].code is code
        if not after:
            assert (await refused(rpc.cancel(stream_id)))[1].code is code


async def test_metadata_of_a_megabyte_and_a_message_that_is_too_large(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=8))
    options = (("grpc.max_send_message_length", -1),)
    async with serving_rpc(gateway.url, options=options) as rpc:
        _, refusal = await refused(rpc.generate(QUERY, (("x-much", "a" * 2**20),)))
        assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        longest = ("authorization", "Bearer " + "a" * LIMITS.caller_token)
        assert [event async for event in rpc.generate(QUERY, (longest,))][-1].type == "done", "it needs no key"
        _, refusal = await refused(rpc.generate(b" " * (LIMITS.grpc_message + 1)))
        assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        _, refusal = await refused(rpc.generate(QUERY, (*RIGHT, *WRONG)))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "metadata")
        assert (await refused(rpc.generate(QUERY, timeout=0)))[1].code is grpc.StatusCode.DEADLINE_EXCEEDED
        events = [event async for event in rpc.generate(QUERY, timeout=None)]
        assert events[-1].type == "done", "the server goes on"


async def test_a_client_that_never_reads_holds_the_gateway_back(net: Net) -> None:
    upstream = await net.upstream(endless)
    gateway = await net.gateway(upstream)
    async with serving_rpc(gateway.url) as rpc:
        call = rpc.generate(QUERY)
        await anext(aiter(call))
        sent = await all_that_is_taken(upstream)
        assert sent < 64 * 2**20  # the kernel's buffers of three connections, and grpcio's of the client
        call.cancel()
        await upstream.until_finished()  # the gateway has left it


async def test_a_client_that_reads_nothing_for_long_is_left(net: Net, change_limits: ChangeLimits) -> None:
    change_limits(grpc_unread=0.3)
    upstream = await net.upstream(endless)
    gateway = await net.gateway(upstream)
    async with serving_rpc(gateway.url) as rpc:
        call = rpc.generate(QUERY)
        await anext(aiter(call))
        await upstream.until_finished()
        call.cancel()


async def test_connections_to_the_gateway_that_are_cut_are_not_seen(net: Net, change_limits: ChangeLimits) -> None:
    change_limits(reconnect_first=0.01)
    gateway = await net.gateway(await net.mock(deltas=60))
    async with FaultProxy(gateway.url, Faults(after=900, then="reset")) as proxy, serving_rpc(proxy.url) as rpc:
        events = [event async for event in rpc.generate(RESUMABLE)]
        assert proxy.connections > 2
    assert [event.seq for event in events[:-1]] == sorted({event.seq for event in events[:-1]})
    assert len([event for event in events if event.type == "text.delta"]) == 60
    assert events[-1].type == "done"


async def test_a_connection_that_is_cut_ends_the_call_of_a_plain_stream(net: Net) -> None:
    """The gateway is there, and would answer: to ask again would be a second answer."""
    upstream = await net.mock(deltas=60)
    gateway = await net.gateway(upstream)
    async with FaultProxy(gateway.url, Faults(after=1500, then="reset")) as proxy, serving_rpc(proxy.url) as rpc:
        events, refusal = await refused(rpc.generate(QUERY))
    assert [event.type for event in events][-2:] == ["error", "done"]
    assert events[0].type == "start"
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "closed")
    assert len(upstream.requests) == 1


async def test_a_gateway_that_stays_away_ends_the_call(net: Net, change_limits: ChangeLimits) -> None:
    change_limits(reconnect_first=0.01, reconnecting=0.2)
    gateway = await net.gateway(await net.mock(deltas=600, rate=100))
    for request in (QUERY, RESUMABLE):
        async with FaultProxy(gateway.url, Faults(after=1500)) as proxy, serving_rpc(proxy.url) as rpc:
            call = rpc.generate(request)
            first = await anext(aiter(call))
            proxy.faults = Faults(is_down=True)
            events, refusal = await refused(call)
        assert first.type == "start"
        assert [event.type for event in events][-2:] == ["error", "done"]
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "closed")


# ---- ends ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_deadline", [True, False])
async def test_a_plain_stream_ends_with_its_call_and_a_durable_one_goes_on(net: Net, is_deadline: bool) -> None:
    upstream = await net.mock(deltas=600, rate=100)
    gateway = await net.gateway(upstream)
    async with serving_rpc(gateway.url) as rpc:
        for request in (QUERY, RESUMABLE):
            call = rpc.generate(request, timeout=1 if is_deadline else None)
            stream_id = json.loads((await anext(aiter(call))).json)["stream_id"]
            if is_deadline:
                assert (await refused(call))[1].code is grpc.StatusCode.DEADLINE_EXCEEDED
            else:
                call.cancel()
            if request is QUERY:
                async with asyncio.timeout(SECONDS):
                    await upstream.requests[-1].closed.wait()
        upstream.rate = 0
        events = [event async for event in rpc.follow(stream_id)]
        assert json.loads(events[-2].json)["finish_reason"] == "stop"


async def test_a_server_that_stops_refuses_calls_and_ends_streams(net: Net, change_limits: ChangeLimits) -> None:
    change_limits(grpc_grace=0.5)
    upstream = await net.mock(deltas=600, rate=20)
    gateway = await net.gateway(upstream)
    async with serving_rpc(gateway.url) as rpc:
        watcher = health_pb2_grpc.HealthStub(rpc.channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watcher.read()).status == health_pb2.HealthCheckResponse.SERVING
        call = rpc.generate(QUERY)
        await anext(aiter(call))
        stopping = asyncio.create_task(rpc.server.stop())
        assert (await watcher.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        _, refusal = await refused(rpc.generate(QUERY))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "draining")
        events, refusal = await refused(call)
        assert [event.type for event in events][-2:] == ["error", "done"]
        assert events[-2].seq == events[-3].seq + 1
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "draining")
        await stopping
        async with asyncio.timeout(SECONDS):
            await watcher.code()  # a call that has not ended would disturb the next test's loop
            await upstream.requests[0].closed.wait()


# ---- health and reflection -------------------------------------------------------------------------------------------


async def described(rpc: Any, metadata: Any = ()) -> Any:
    request = reflection_pb2.ServerReflectionRequest(file_containing_symbol="gai.v1.Gateway")
    call = reflection_pb2_grpc.ServerReflectionStub(rpc.channel).ServerReflectionInfo(
        iter([request]), metadata=metadata
    )
    (answer,) = [answer async for answer in call]
    (found,) = answer.file_descriptor_response.file_descriptor_proto
    return FileDescriptorProto.FromString(found)


async def test_health_needs_no_key_and_reflection_does(net: Net) -> None:
    gateway = await net.gateway(await net.mock(), keys=(KEY,))
    async with serving_rpc(gateway.url) as rpc:
        health = health_pb2_grpc.HealthStub(rpc.channel)
        for name in ("", "gai.v1.Gateway"):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as problem:
            await described(rpc)
        assert problem.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert await described(rpc, RIGHT) == description()
    gateway = await net.gateway(await net.mock())
    async with serving_rpc(gateway.url) as rpc:
        assert await described(rpc) == description()


async def test_few_calls_watch_the_health_and_further_ones_are_answered_once(
    net: Net, change_limits: ChangeLimits
) -> None:
    """Each kept a place of the server's calls without an end: 20,000 of strangers shut out every caller."""
    change_limits(grpc_watchers=4, grpc_calls=6)  # two of one address
    gateway = await net.gateway(await net.mock(), keys=(KEY,))
    async with serving_rpc(gateway.url) as rpc:
        health = health_pb2_grpc.HealthStub(rpc.channel)
        healthy = health_pb2.HealthCheckResponse.SERVING
        watchers = [health.Watch(health_pb2.HealthCheckRequest()) for _ in range(2)]
        assert [(await watcher.read()).status for watcher in watchers] == [healthy, healthy]
        for _ in range(20):
            further = health.Watch(health_pb2.HealthCheckRequest(service="gai.v1.Gateway"))
            assert [answer.status async for answer in further] == [healthy]
        assert [event async for event in rpc.generate(QUERY, RIGHT)][-1].type == "done"
        watchers.pop().cancel()
        await until(lambda: rpc.server._health._watchers.total() == 1)
        watchers.append(health.Watch(health_pb2.HealthCheckRequest(service="unknown")))
        assert (await watchers[1].read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        stopping = asyncio.create_task(rpc.server.stop())
        assert (await watchers[0].read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        await stopping
        async with asyncio.timeout(SECONDS):
            for watcher in watchers:
                await watcher.code()


async def test_an_address_takes_half_of_the_watchers() -> None:
    health = _Health(Calls())
    served = health_pb2.HealthCheckRequest().SerializeToString()
    watching: list[asyncio.Task[None]] = []

    def watch(peer: str) -> asyncio.Task[None]:
        context = AsyncMock(peer=lambda: peer, read=AsyncMock(return_value=served))
        watching.append(asyncio.create_task(health.watch(None, context)))
        return watching[-1]

    half = LIMITS.grpc_watchers // 2
    strangers = [watch(f"ipv4:192.0.2.1:{port}") for port in range(half + 10)]
    await asyncio.wait(strangers[half:], timeout=SECONDS)
    balancer = watch("ipv4:192.0.2.2:1")
    await until(lambda: health._watchers.total() == half + 1)
    assert [task.done() for task in strangers] == [False] * half + [True] * 10
    assert not balancer.done()
    for task in watching:
        task.cancel()
    await asyncio.wait(watching)
    assert not health._watchers


async def test_every_service_is_listed(net: Net) -> None:
    gateway = await net.gateway(await net.mock())
    async with serving_rpc(gateway.url) as rpc:
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        call = reflection_pb2_grpc.ServerReflectionStub(rpc.channel).ServerReflectionInfo(iter([request]))
        (answer,) = [answer async for answer in call]
        assert [service.name for service in answer.list_services_response.service] == sorted(
            ["gai.v1.Gateway", "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"]
        )
