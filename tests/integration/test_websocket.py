"""`/ws/stream`: many streams over one socket, resumed, cancelled, acknowledged; refusals and codes of its close."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import re
from typing import Any

import pytest

from gai_fast.cli.mock.command import Fault
from gai_fast.model.settings import KeySettings, key_digest
from tests.conftest import ChangeLimits
from tests.integration.gateway import (
    DONE,
    FINISH,
    LAST_CHUNK,
    QUERY,
    SSE_HEAD,
    Net,
    Peer,
    delta,
    on_both_loops,
    on_steady_loop,
    on_uvloop,
)
from tests.integration.websocket import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PROTOCOL,
    TEXT,
    Socket,
    connect,
    frame,
    handshake,
    refused,
)
from tests.kernels import IS_REPEATED
from tests.limits import LIMITS
from tests.waiting import until
from tests.wire import chunk

ALICE, BOB = "sk-canary-alice-012345", "sk-canary-bob-012345"
KEYS = (KeySettings("alice", (key_digest(ALICE),)), KeySettings("bob", (key_digest(BOB),)))
PATH = "/ws/stream"
RESUMABLE = {**QUERY, "resumable": True}
HEAD = 4
"""Bytes of the head of a frame of a thousand bytes."""


async def endless(peer: Peer) -> None:
    """An upstream that says as much as it is let to."""
    await peer.request()
    await peer.send(SSE_HEAD)
    while True:
        await peer.send(chunk(delta("x" * 1000)))


async def quiet(peer: Peer) -> None:
    """An upstream that says one word, and then nothing."""
    await peer.request()
    await peer.send(SSE_HEAD + chunk(delta("word")))
    await peer.until_gone()


# ---- what a client gets ----------------------------------------------------------------------------------------------


@on_both_loops
async def test_a_stream_over_a_socket_has_the_events_of_one_over_http(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=8))
    over_http = (await gateway.ask("POST", "/api/v1/stream", QUERY)).events
    socket = await connect(gateway)
    assert socket.response.headers["sec-websocket-protocol"] == PROTOCOL
    assert "sec-websocket-extensions" not in socket.response.headers
    assert "server" not in socket.response.headers
    socket.ask("a")
    await socket.until_done("a")

    def comparable(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        changing = ("stream", "ts", "request_id", "stream_id", "provider_metadata")
        return [{name: each for name, each in event.items() if name not in changing} for event in events]

    assert comparable(socket.of("a")) == comparable(over_http)
    assert all(next(iter(message)) == "stream" for message in socket.messages)
    assert (
        len({socket.of("a")[0]["request_id"], over_http[0]["request_id"], socket.response.headers["x-request-id"]}) == 3
    )


@on_both_loops
async def test_many_streams_share_a_socket_and_their_ids_can_be_used_again(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=50))
    socket = await connect(gateway)
    names = [f'stream {number} ü"' for number in range(20)]
    for _ in range(2):
        socket.messages.clear()
        for name in names:
            socket.ask(name)
        await socket.until_done(*names)
        texts = {socket.text(name) for name in names}
        assert len(texts) == 1
        assert all(socket.types(name) == ["start", *["text.delta"] * 50, "finish", "done"] for name in names)


@on_both_loops
async def test_deltas_that_come_one_by_one_take_the_fast_path_and_are_the_same(net: Net) -> None:
    """Reads of one delta are what a fast path and the log of a durable stream pass on."""

    async def slowly(peer: Peer) -> None:
        await peer.request()
        await peer.send(SSE_HEAD)
        for number in range(60):
            await peer.send(chunk(delta(f'w"{number} ')))
            await asyncio.sleep(0.001)
        await peer.send(chunk(FINISH + DONE) + LAST_CHUNK)

    gateway = await net.gateway(await net.upstream(slowly))
    socket = await connect(gateway)
    socket.ask("plain")
    socket.ask("kept", **RESUMABLE)
    await socket.until_done("plain", "kept")
    for name in ("plain", "kept"):
        assert socket.text(name) == "".join(f'w"{number} ' for number in range(60))
        assert [event["seq"] for event in socket.of(name)[:-1]] == [*range(1, 63)]
    stream_id = socket.of("kept")[0]["stream_id"]
    assert [event["id"] for event in socket.of("kept")[:-1]] == [f"{stream_id}.{seq}" for seq in range(1, 63)]
    assert all("id" not in event for event in socket.of("plain"))


@on_both_loops
async def test_a_cancel_ends_the_generation_and_only_that(net: Net) -> None:
    upstream = await net.upstream(quiet)
    gateway = await net.gateway(upstream)
    socket = await connect(gateway)
    for name, request in (("plain", QUERY), ("kept", RESUMABLE), ("stays", QUERY)):
        socket.ask(name, **request)
        await socket.until(stream=name, type="text.delta")
    for name in ("plain", "kept"):
        socket.send(stream=name, type="cancel")
        finish = await socket.until(stream=name, type="finish")
        assert finish["finish_reason"] == "cancelled"
        assert finish["usage"]["source"] == "partial"
        assert await socket.read() == {"stream": name, "type": "done", "finished": True}
        socket.send(stream=name, type="cancel")  # late: the stream has ended
        socket.send(stream=name, type="ack", seq=1)
    await upstream.until_finished(2)
    assert gateway.streams == 1
    socket.send(type="ping")
    assert await socket.read() == {"type": "pong"}


@on_both_loops
async def test_several_streams_are_resumed_over_another_socket(net: Net) -> None:
    gate = asyncio.Event()

    async def in_two_parts(peer: Peer) -> None:
        await peer.request()
        await peer.send(SSE_HEAD + chunk(b"".join(delta(f"{number} ") for number in range(10))))
        await gate.wait()
        await peer.send(chunk(b"".join(delta(f"{number} ") for number in range(10, 20)) + FINISH + DONE) + LAST_CHUNK)

    gateway = await net.gateway(await net.upstream(in_two_parts))
    first = await connect(gateway)
    places = {}
    for name in ("a", "b"):
        first.ask(name, **RESUMABLE)
        for _ in range(4 if name == "a" else 8):
            places[name] = (await first.until(stream=name))["id"]
    first.client.reset()
    await until(lambda: not gateway.running.engine.durable.followers)
    assert gateway.streams == 2
    second = await connect(gateway)
    for name, place in places.items():
        second.send(stream=f"{name} again", type="resume", after=place)
    await second.until(stream="a again", seq=11)
    await second.until(stream="b again", seq=11)
    gate.set()
    await second.until_done("a again", "b again")
    for name, place in places.items():
        has = int(place.rpartition(".")[2])
        assert [event["seq"] for event in second.of(f"{name} again")[:-1]] == [*range(has + 1, 23)]
        assert second.types(f"{name} again")[-2:] == ["finish", "done"]
        second.send(stream="end", type="resume", after=second.of(f"{name} again")[-2]["id"])
        assert await second.read() == {"stream": "end", "type": "done", "finished": True}


@on_uvloop
async def test_a_stream_that_was_begun_over_http_is_followed_over_a_socket(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=5))
    for query in ("", "?framing=ndjson", "?envelope=full"):
        whole = await gateway.ask("POST", f"/api/v1/stream{query}", RESUMABLE)
        stream_id = whole.headers["x-gai-stream-id"]
        socket = await connect(gateway)
        socket.send(stream="x", type="resume", after=f"{stream_id}.2")
        await socket.until_done("x")
        assert socket.types("x") == [*["text.delta"] * 4, "finish", "done"]
        assert [event.get("id") for event in socket.of("x")] == [*(f"{stream_id}.{seq}" for seq in range(3, 8)), None]
        assert all("schema" not in event for event in socket.of("x"))
        assert (await gateway.ask("GET", f"/api/v1/streams/{stream_id}?after={stream_id}.6")).types == [
            "finish",
            "done",
        ]


@on_both_loops
async def test_a_client_without_a_subprotocol_gets_chunks_of_text(net: Net) -> None:
    mock = await net.mock(deltas=5)
    gateway = await net.gateway(mock)
    socket = await connect(gateway, None)
    assert "sec-websocket-protocol" not in socket.response.headers
    for _ in range(2):
        socket.messages.clear()
        socket.send(**QUERY)
        await socket.until(type="done")
        *chunks, done = socket.messages
        assert done == {"type": "done"}
        assert [list(each) for each in chunks] == [["type", "content", "timestamp"]] * 5
        assert all(each["timestamp"] > 1_700_000_000_000 for each in chunks)
    socket.send(type="ping")
    assert await socket.read() == {"type": "pong"}
    socket.send(nonsense=1)
    error = await socket.read()
    assert error is not None
    assert (error["type"], error["error"]["reason"]) == ("error", "validation")
    mock.fault = Fault("error-event", 2)
    socket.messages.clear()
    socket.send(**QUERY)
    await socket.until(type="error")
    assert [each["type"] for each in socket.messages] == ["chunk", "chunk", "error"]
    socket.client.send(frame(json.dumps(QUERY)) * 2)
    assert await socket.close_code() == 1008
    assert socket.closed == (1008, "one request at a time")


@on_uvloop
async def test_a_failure_is_an_event_whenever_it_comes(net: Net) -> None:
    mock = await net.mock(deltas=5)
    gateway = await net.gateway(mock)
    socket = await connect(gateway)
    for name, fault in (("late", Fault("cut", 2)), ("early", Fault("429"))):
        mock.fault = fault
        socket.ask(name)
        await socket.until_done(name)
    assert socket.types("early") == ["error", "done"]
    assert socket.error("early")["code"] == "rate_limited"
    assert socket.of("early")[0]["seq"] == 1
    assert socket.types("late") == ["start", "text.delta", "text.delta", "error", "done"]
    assert socket.error("late")["code"] == "network"


@on_uvloop
async def test_the_envelope_is_the_clients_choice(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=2))
    socket = await connect(gateway, path=f"{PATH}?envelope=full")
    socket.ask("a")
    await socket.until_done("a")
    assert all("schema" in event for event in socket.of("a")[:-1])


# ---- requests that are refused ---------------------------------------------------------------------------------------


@on_uvloop
async def test_a_request_that_is_refused_ends_its_stream_and_not_the_socket(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=2))
    socket = await connect(gateway)
    cases: list[tuple[Any, str, str | None]] = [
        ({}, "invalid_request", "validation"),
        ({"query": 1}, "invalid_request", "validation"),
        ({**QUERY, "stream": False}, "unsupported", "resumable"),
        ({**QUERY, "model": "none"}, "not_found", "model"),
        ([], "invalid_request", "validation"),
        ("text", "invalid_request", "validation"),
    ]
    for number, (request, code, reason) in enumerate(cases):
        socket.send(stream=f"s{number}", type="request", request=request)
        await socket.until_done(f"s{number}")
        error = socket.error(f"s{number}")
        assert (error["code"], error.get("reason")) == (code, reason), request
    for number, (after, code) in enumerate(
        (("nonsense", "invalid_request"), ("AbCdEfGhIjKlMnOpQrStUv.1", "not_found"))
    ):
        socket.send(stream=f"r{number}", type="resume", after=after)
        await socket.until_done(f"r{number}")
        assert socket.error(f"r{number}")["code"] == code
    socket.ask("a")
    await socket.until_done("a")
    assert socket.types("a")[-2:] == ["finish", "done"]


@on_uvloop
async def test_thousands_of_requests_at_once_are_each_answered(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=1))
    socket = await connect(gateway)
    names = {f"s{number}" for number in range(1_000 if IS_REPEATED else 4_000)}
    requests = [json.dumps({"stream": name, "type": "request", "request": QUERY}) for name in names]
    writing = asyncio.create_task(socket.client.send_in_pieces(b"".join(map(frame, requests)), 1 << 16))
    await socket.until_done(*names)
    await writing
    ends = {name: socket.of(name) for name in ("s0", "s999")}
    assert all(events[-1]["type"] == "done" for events in ends.values())
    refusals = [each["error"]["reason"] for each in socket.messages if each["type"] == "error"]
    assert set(refusals) <= {"socket_streams"}
    assert socket.closed is None


@on_uvloop
async def test_a_bug_behind_a_message_closes_the_socket_and_is_logged(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = await net.gateway(await net.mock(deltas=1))
    socket = await connect(gateway)

    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    with monkeypatch.context() as context:
        context.setattr("gai_fast.server.websocket.session.lead_of", broken)
        socket.ask("a")
        assert await socket.close_code() == 1011
    assert net.warned("a message of a WebSocket could not be handled") == 1
    socket = await connect(gateway)
    with monkeypatch.context() as context:
        context.setattr(gateway.running.service.router.endpoint("POST", "/api/v1/stream"), "handler", broken)
        socket.ask("a")
        await socket.until_done("a")
    assert socket.error("a")["code"] == "internal"
    assert net.warned("could not be handled") == 1


# ---- the handshake ---------------------------------------------------------------------------------------------------


@on_both_loops
async def test_a_handshake_that_is_wrong_is_refused(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=1))
    cases = [
        (handshake(upgrade=""), 426, "upgrade"),
        (handshake(upgrade="h2c"), 426, "upgrade"),
        (handshake(sec_websocket_version="8"), 426, "upgrade"),
        (handshake(connection="keep-alive"), 400, "upgrade"),
        (handshake(sec_websocket_key="short"), 400, "upgrade"),
        (handshake(sec_websocket_key=""), 400, "upgrade"),
        (handshake("graphql-ws, other"), 400, "subprotocol"),
        (handshake(origin="http://elsewhere.example"), 403, "origin"),
        (handshake(sec_fetch_site="cross-site"), 403, "origin"),
    ]
    for headers, status, reason in cases:
        response = await refused(gateway, headers)
        assert (response.status, response.error["reason"]) == (status, reason), headers
        if status == 426:
            assert response.headers["sec-websocket-version"] == "13"
    response = await refused(gateway, handshake(), f"{PATH}?format=openai")
    assert (response.status, response.error["reason"]) == (400, "format")
    assert (await gateway.ask("POST", PATH, QUERY)).status == 405
    same_origin = await connect(gateway, origin=f"http://{gateway.host}")
    same_origin.send(type="ping")
    assert await same_origin.read() == {"type": "pong"}


@on_both_loops
async def test_a_key_comes_as_header_or_as_subprotocol_and_is_never_echoed_or_logged(
    net: Net, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = await net.gateway(await net.mock(deltas=2), keys=KEYS)
    with caplog.at_level(logging.DEBUG):
        for protocols, more, protocol in (
            (PROTOCOL, {"authorization": f"Bearer {ALICE}"}, PROTOCOL),
            (f"bearer.{ALICE}, {PROTOCOL}", {}, PROTOCOL),
            (f"bearer.{ALICE}", {}, None),
        ):
            socket = await connect(gateway, protocols, **more)
            assert socket.response.headers.get("sec-websocket-protocol") == protocol
            assert "canary" not in str(socket.response.headers)
            if protocol:
                socket.ask("a")
                await socket.until_done("a")
                assert socket.types("a")[-2:] == ["finish", "done"]
            socket.client.close()
        for protocols in (PROTOCOL, f"bearer.wrong-key, {PROTOCOL}", f"bearer.{ALICE}, bearer.{BOB}"):
            response = await refused(gateway, handshake(protocols))
            assert (response.status, response.error["code"]) == (401, "unauthorized")
        await until(lambda: not gateway.is_connected)
    assert "canary" not in caplog.text
    assert re.search(r"'/ws/stream' 200 \S+ \S+ alice \{", caplog.text)


@on_uvloop
async def test_a_stream_belongs_to_its_caller_on_any_socket(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=2), keys=KEYS)
    alice = await connect(gateway, authorization=f"Bearer {ALICE}")
    alice.ask("a", **RESUMABLE)
    await alice.until_done("a")
    place = alice.of("a")[0]["id"]
    bob = await connect(gateway, authorization=f"Bearer {BOB}")
    bob.send(stream="a", type="resume", after=place)
    await bob.until_done("a")
    assert bob.error("a")["code"] == "not_found"
    alice.send(stream="b", type="resume", after=place)
    await alice.until_done("b")
    assert alice.types("b")[-2:] == ["finish", "done"]


@on_uvloop
async def test_a_key_that_is_revoked_starts_nothing_more_on_its_socket(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=2), keys=KEYS)
    socket = await connect(gateway, authorization=f"Bearer {ALICE}")
    settings = gateway.running.engine.settings
    gateway.running.use(dataclasses.replace(settings, keys=KEYS[1:]))
    socket.ask("a")
    await socket.until_done("a")
    assert socket.error("a")["code"] == "unauthorized"


@on_uvloop
async def test_a_key_is_bound_to_its_models_on_a_socket_too(net: Net) -> None:
    keys = (KeySettings("alice", (key_digest(ALICE),), ("m",)),)
    gateway = await net.gateway(await net.mock(deltas=2), keys=keys)
    socket = await connect(gateway, authorization=f"Bearer {ALICE}")
    for stream, model, end in (("a", "m", "finish"), ("b", "claude", "error"), ("c", "m", "finish")):
        socket.ask(stream, query="hi", model=model)
        await socket.until_done(stream)
        assert socket.types(stream)[-2:] == [end, "done"]
    assert (socket.error("b")["code"], socket.error("b")["reason"]) == ("forbidden", "model")


# ---- frames ----------------------------------------------------------------------------------------------------------


@on_both_loops
async def test_what_is_no_message_closes_the_socket(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=1))
    deep = '{"stream":"a","type":"request","request":' + '{"a":' * 10_000 + "1" + "}" * 10_001
    cases: list[tuple[bytes, int]] = [
        (frame(b"\x00\x01", BINARY), 1003),
        (frame("not json"), 1007),
        (frame(b'{"type":"ping\xff"}'), 1007),
        (frame('{"stream":"a"'), 1007),
        (frame(""), 1007),
        (frame("[]"), 1008),
        (frame(deep), 1008),
        (frame("{}"), 1008),
        (frame('{"type":null}'), 1008),
        (frame('{"type":"nonsense"}'), 1008),
        (frame('{"type":"request","request":{}}'), 1008),
        (frame('{"stream":"","type":"request","request":{}}'), 1008),
        (frame('{"stream":"a","type":"request"}'), 1008),
        (frame('{"stream":1,"type":"request","request":{}}'), 1008),
        (frame('{"stream":"a","type":"resume"}'), 1008),
        (frame('{"stream":"a","type":"ack"}'), 1008),
        (frame('{"stream":"a","type":"ack","seq":-1}'), 1008),
        (frame('{"stream":"a","type":"ack","seq":1.5}'), 1008),
        (frame(json.dumps({"stream": "x" * 129, "type": "cancel"})), 1008),
        (frame('{"type":"ping"}', masked=False), 1002),
        (frame("x", CONTINUATION), 1002),
        (frame("x", final=False) + frame("x"), 1002),
        (frame("x", 0x3), 1002),
        (frame("x" * 126, PING), 1002),
        (frame("x", PING, final=False), 1002),
        (frame(b"\x00", CLOSE), 1002),
        # Autobahn's invalid codes (cases 7.9), and what no endpoint may send.
        *(
            (frame(code.to_bytes(2, "big") + b"bye", CLOSE), 1002)
            for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
        ),
        (b"\xf1" + frame("x")[1:], 1002),
        (frame("x" * (LIMITS.socket_message + 1)), 1009),
        (b"\x81\xff" + b"\xff" * 12, 1009),
        (frame("x", final=False) + frame("", CONTINUATION, final=False) * LIMITS.socket_frames, 1009),
        (frame(b"", PING) * (LIMITS.socket_control + 1), 1008),
    ]
    for data, code in cases:
        socket = await connect(gateway)
        socket.client.send(data)
        assert await socket.close_code() == code, (data[:60], socket.closed)
        assert socket.closed is not None
        assert socket.closed[1], code
        assert await socket.client.is_closed()


@on_both_loops
async def test_a_close_with_a_code_that_an_endpoint_may_send_is_answered_with_a_normal_close(net: Net) -> None:
    """Autobahn's valid codes (cases 7.7), in one read and byte by byte."""
    gateway = await net.gateway(await net.mock(deltas=1))
    for code in (*range(1000, 1004), *range(1007, 1012), 3000, 3999, 4000, 4999):
        for size in (1, 100):
            socket = await connect(gateway)
            await socket.client.send_in_pieces(frame(code.to_bytes(2, "big") + b"bye", CLOSE), size)
            assert await socket.close_code() == 1000


@on_both_loops
async def test_a_message_of_exactly_the_limit_passes(net: Net) -> None:
    """aiohttp refused it with 1009."""
    socket = await connect(await net.gateway(await net.mock(deltas=1)))
    ping = '{"type":"ping"}'.rjust(LIMITS.socket_message).encode()
    half = len(ping) // 2
    socket.client.send(frame(ping) + frame(ping[:half], final=False) + frame(ping[half:], CONTINUATION))
    for _ in range(2):
        assert await socket.read() == {"type": "pong"}


@on_both_loops
async def test_a_client_reads_why_its_message_is_too_large_while_it_sends_it(net: Net) -> None:
    """Closing at once would reset the connection: the client would not see the close that is on its way."""
    gateway = await net.gateway(await net.mock(deltas=1))
    socket = await connect(gateway)
    await socket.client.send_in_pieces(frame("x" * (LIMITS.socket_message + LIMITS.socket_message // 2)), 65536)
    assert await socket.close_code() == 1009
    assert await socket.client.is_closed()


@on_both_loops
async def test_an_id_in_use_closes_the_socket_and_ends_its_streams(net: Net) -> None:
    upstream = await net.upstream(quiet)
    gateway = await net.gateway(upstream)
    for second in ({"type": "request", "request": QUERY}, {"type": "resume", "after": "AbCdEfGhIjKlMnOpQrStUv.1"}):
        socket = await connect(gateway)
        socket.ask("a")
        await socket.until(stream="a", type="text.delta")
        socket.send(stream="a", **second)
        assert await socket.close_code() == 1008
    await upstream.until_finished(2)
    assert gateway.streams == 0


@on_both_loops
async def test_fragments_pings_and_early_frames_are_read_as_they_should(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=2))
    whole = json.dumps({"stream": "a", "type": "request", "request": QUERY})
    early = frame(whole[:20], final=False) + frame(b"hey", PING) + frame(whole[20:], CONTINUATION)
    socket = await connect(gateway, early=early)
    await socket.until_done("a")
    assert socket.pongs == [b"hey"]
    assert socket.types("a")[-2:] == ["finish", "done"]
    for octet in frame(whole.replace('"a"', '"b"')):
        socket.client.send(bytes((octet,)))
        await asyncio.sleep(0)
    await socket.until_done("b")
    unmasked = await connect(gateway, early=frame(whole, masked=False))
    assert await unmasked.close_code() == 1002


@on_both_loops
async def test_a_close_is_answered(net: Net) -> None:
    upstream = await net.upstream(quiet)
    gateway = await net.gateway(upstream)
    socket = await connect(gateway)
    socket.ask("a")
    await socket.until(stream="a", type="text.delta")
    socket.client.send(frame((1000).to_bytes(2, "big"), CLOSE))
    assert await socket.close_code() == 1000
    await upstream.until_finished()


@on_both_loops
async def test_a_client_that_leaves_ends_its_plain_streams_only(net: Net) -> None:
    for leave in ("close", "reset", "eof"):
        upstream = await net.upstream(quiet)
        gateway = await net.gateway(upstream, detach_ttl=60.0)
        socket = await connect(gateway)
        socket.ask("plain")
        socket.ask("kept", **RESUMABLE)
        for name in ("plain", "kept"):
            await socket.until(stream=name, type="text.delta")
        if leave == "eof":
            socket.client.writer.write_eof()
        else:
            getattr(socket.client, leave)()
        await upstream.until_finished(1)
        await until(lambda gateway=gateway: not gateway.is_connected)
        assert gateway.streams == 1


# ---- compression -----------------------------------------------------------------------------------------------------


@on_both_loops
async def test_no_compression_is_agreed_on_whatever_a_client_offers(net: Net) -> None:
    """RFC 6455, 9.1: an extension that the server does not name is not in use."""
    gateway = await net.gateway(await net.mock(deltas=8), websocket_compression=True)
    for offer in ("permessage-deflate", "permessage-deflate; client_max_window_bits", "x" * 5000, "a, b; c=1"):
        socket = await connect(gateway, sec_websocket_extensions=offer)
        assert "sec-websocket-extensions" not in socket.response.headers
        socket.ask("a")
        await socket.until_done("a")
        assert socket.types("a") == ["start", *["text.delta"] * 8, "finish", "done"]


@on_both_loops
async def test_a_message_that_says_that_it_is_compressed_closes_the_socket(net: Net) -> None:
    socket = await connect(await net.gateway(await net.mock(deltas=1)), sec_websocket_extensions="permessage-deflate")
    compressed = 0x40  # RSV1 (RFC 7692, 6)
    socket.client.send(frame(b"\xca\x04\x00", TEXT | compressed))
    assert await socket.close_code() == 1002


# ---- slow clients ----------------------------------------------------------------------------------------------------


@on_both_loops
async def test_a_client_that_does_not_read_pauses_its_upstreams(net: Net) -> None:
    upstream = await net.upstream(endless)
    gateway = await net.gateway(upstream, client_buffer=65536)
    socket = await connect(gateway, receive_buffer=4096)
    socket.ask("a")
    await socket.until(stream="a", type="text.delta")
    socket.client.pause()
    session = next(iter(gateway.running.engine.streams.values()))
    await until(lambda: session._delivery.is_paused)
    assert gateway.unsent < 65536 + 2 * 262144
    socket.client.resume()
    before = upstream.peers[0].sent
    while upstream.peers[0].sent <= before:
        await socket.until(stream="a", type="text.delta")
    socket.client.reset()
    await upstream.until_finished()


@on_both_loops
async def test_a_client_that_takes_nothing_is_given_up_after_write_timeout(net: Net) -> None:
    upstream = await net.upstream(endless)
    gateway = await net.gateway(upstream, write_timeout=0.4, client_buffer=65536)
    socket = await connect(gateway, receive_buffer=4096)
    socket.ask("a")
    await socket.until(stream="a", type="text.delta")
    socket.client.pause()
    await upstream.until_finished()
    await until(lambda: not gateway.is_connected)


@on_uvloop
async def test_pings_whose_answers_are_not_read_end_the_socket(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=1), client_buffer=4096)
    socket = await connect(gateway, receive_buffer=4096)
    socket.client.pause()
    flood = frame('{"stream":"a","type":"request","request":{}}') * 2000
    while gateway.is_connected:
        socket.client.send(flood)
        await asyncio.sleep(0.01)
        if gateway.unsent:
            assert gateway.unsent < 4 * LIMITS.socket_unsent
        if gateway.running.service.sockets.sessions == set():
            break
    socket.client.resume()
    assert await socket.close_code() in (1008, 1006)


def ask_acked(socket: Socket, stream: str) -> None:
    """Sends a request and an acknowledgement of nothing, in one piece: no event goes out between them."""
    messages = ({"type": "request", "request": QUERY}, {"type": "ack", "seq": 0})
    socket.client.send(b"".join(frame(json.dumps({"stream": stream, **each})) for each in messages))


@on_both_loops
async def test_of_a_stream_that_is_acknowledged_no_more_than_the_buffer_is_sent_beyond(net: Net) -> None:
    upstream = await net.upstream(endless)
    gateway = await net.gateway(upstream, client_buffer=16384)
    socket = await connect(gateway)
    ask_acked(socket, "acked")
    socket.ask("free")
    for _ in range(5):
        free = beyond = last = 0
        while free < 200:  # of them that come when the window is full
            message = await socket.until(type="text.delta")
            if message["stream"] == "acked":
                beyond, last = beyond + socket.sizes[-1] + HEAD, message["seq"]
                assert beyond <= 16384
            elif beyond > 16384 - 1500:
                free += 1
        socket.send(stream="acked", type="ack", seq=last)
    socket.send(stream="acked", type="cancel")
    socket.send(stream="acked", type="ack", seq=10**6)
    await socket.until(stream="acked", type="finish")
    socket.client.reset()
    await upstream.until_finished(2)


@on_steady_loop
async def test_a_stream_whose_events_are_not_acknowledged_in_time_is_ended(net: Net) -> None:
    upstream = await net.upstream(endless)
    gateway = await net.gateway(upstream, client_buffer=16384, write_timeout=0.5)
    socket = await connect(gateway)
    ask_acked(socket, "a")
    await socket.until_done("a")
    assert socket.error("a")["reason"] == "ack"
    await upstream.until_finished()
    socket.send(type="ping")
    assert await socket.read() == {"type": "pong"}


@on_steady_loop
async def test_a_silent_stream_has_keep_alives(net: Net) -> None:
    gateway = await net.gateway(await net.upstream(quiet), heartbeat=0.05)
    socket = await connect(gateway)
    socket.ask("a")
    await socket.until(stream="a", type="text.delta")
    reading = asyncio.create_task(socket.read())
    await until(lambda: socket.pings > 2)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)


@on_uvloop
async def test_many_silent_streams_are_sent_few_pings(net: Net) -> None:
    """Their client answers each, and more than `socket_control` control frames in a moment would close the socket."""
    gateway = await net.gateway(await net.upstream(quiet), heartbeat=0.05)
    socket = await connect(gateway)
    for number in range(LIMITS.socket_control + 50):
        socket.ask(f"s{number}")
    reading = asyncio.create_task(socket.close_code())
    await until(lambda: socket.pings > 2)
    socket.send(type="ping")
    await until(lambda: reading.done() or {"type": "pong"} in socket.messages)
    assert not reading.done(), socket.closed
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)


@on_steady_loop
async def test_a_message_that_does_not_come_to_its_end_closes_the_socket(net: Net, change_limits: ChangeLimits) -> None:
    change_limits(socket_check=0.1)
    gateway = await net.gateway(await net.mock(deltas=1))
    for part in (frame("x" * 1000)[:500], frame("x", final=False)):
        socket = await connect(gateway)
        socket.client.send(part)
        assert await socket.close_code() == 1008
        assert socket.closed == (1008, "a message did not come to its end in time")


@on_both_loops
async def test_messages_under_way_have_the_budget_of_bodies(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=1), upload_bytes=300_000)
    limits = gateway.running.service.server_limits
    message = frame(json.dumps({"stream": "a", "type": "request", "request": QUERY}).ljust(200_000))
    first, second, third = [await connect(gateway) for _ in range(3)]
    for socket in (first, second):
        socket.client.send(message[:140_000])
    await until(lambda: 279_900 < limits.uploading < 280_000)
    third.client.send(message[:40_000])
    assert await third.close_code() == 1013
    assert third.closed is not None
    assert third.closed[1].startswith("the server receives as many bytes of request bodies as it may")
    first.client.close()
    await until(lambda: 139_950 < limits.uploading < 140_000)
    second.client.send(message[140_000:])
    await second.until_done("a")
    assert limits.uploading == 0


@on_both_loops
async def test_messages_under_way_of_one_caller_leave_half_of_the_budget(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=1), keys=KEYS, upload_bytes=300_000)
    limits = gateway.running.service.server_limits
    message = frame(json.dumps({"stream": "a", "type": "request", "request": QUERY}).ljust(120_000))
    first, second, third = [await connect(gateway, x_api_key=ALICE) for _ in range(3)]
    fourth = await connect(gateway, x_api_key=BOB)
    for socket in (first, second):
        socket.client.send(message[:70_000])
    await until(lambda: 139_900 < limits.uploading < 140_000)
    third.client.send(message[:40_000])
    assert await third.close_code() == 1013
    assert third.closed is not None
    assert third.closed[1].startswith("the caller alice sends as many bytes of request bodies as it may")
    fourth.client.send(message)
    await fourth.until_done("a")
    second.client.close()
    await until(lambda: limits.uploading < 70_000)
    first.client.send(message[70_000:])
    await first.until_done("a")
    await until(lambda: limits.uploading == 0)
    assert limits._uploads == {}


@on_both_loops
async def test_a_client_is_not_blamed_for_what_the_server_does_not_read(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=1))
    socket = await connect(gateway)
    message = frame(json.dumps({"stream": "a", "type": "request", "request": QUERY}))
    socket.client.send(message[:10])
    (session,) = gateway.running.service.sockets.sessions
    server = session._socket
    assert server is not None
    assert server._transport is not None
    await until(lambda: server._guard.message)
    server._transport.pause_reading()
    socket.client.send(message[10:])
    for _ in range(4):
        assert server._timer is not None
        server._timer.cancel()
        server._look()
    server._transport.resume_reading()
    await socket.until_done("a")


@on_both_loops
async def test_a_client_that_is_silent_is_sent_a_ping_and_then_given_up(net: Net, change_limits: ChangeLimits) -> None:
    change_limits(socket_check=0.2)
    gateway = await net.gateway(await net.mock(deltas=1))
    answering, silent = await connect(gateway), await connect(gateway)
    reading = asyncio.create_task(answering.read())
    assert await silent.client.reader.read_up_to(100) == b"\x89\x00"
    assert answering.pings > 0
    assert answering.closed is None
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)


@on_both_loops
async def test_a_client_that_does_not_answer_a_close_is_dropped(net: Net, change_limits: ChangeLimits) -> None:
    change_limits(socket_close=0.1)
    gateway = await net.gateway(await net.mock(deltas=1))
    socket = await connect(gateway)
    socket.client.send(frame("not json", TEXT))
    head = await socket.client.reader.readexactly(2)
    assert head[0] == 0x88
    await socket.client.reader.readexactly(head[1])
    assert await socket.client.is_closed()


# ---- the end of the server -------------------------------------------------------------------------------------------


@on_both_loops
async def test_a_drain_closes_idle_sockets_and_lets_streams_end(net: Net) -> None:
    gate = asyncio.Event()

    async def waits(peer: Peer) -> None:
        await peer.request()
        await peer.send(SSE_HEAD + chunk(delta("word")))
        await gate.wait()
        await peer.send(chunk(FINISH + DONE) + LAST_CHUNK)

    gateway = await net.gateway(await net.upstream(waits))
    idle, busy = await connect(gateway), await connect(gateway)
    busy.ask("a")
    await busy.until(stream="a", type="text.delta")
    draining = asyncio.create_task(gateway.running.drain(30.0, asyncio.Event()))
    assert await idle.close_code() == 1012
    busy.ask("b")
    await busy.until_done("b")
    assert busy.error("b")["reason"] == "draining"
    gate.set()
    await busy.until_done("a")
    assert busy.types("a")[-2:] == ["finish", "done"]
    assert await busy.close_code() == 1012
    await draining


@on_both_loops
async def test_an_idle_socket_that_the_server_closes_stays_until_its_client_answers(net: Net) -> None:
    """A client that answers a connection that is gone is reset, and reports 1006 in place of the server's reason."""
    gateway = await net.gateway(await net.upstream(quiet))
    socket = await connect(gateway)
    draining = asyncio.create_task(gateway.running.drain(30.0, asyncio.Event()))
    head = await socket.client.reader.readexactly(2)
    assert head[0] == 0x88
    reason = await socket.client.reader.readexactly(head[1])
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await socket.client.reader.read(1)
    socket.client.send(frame(reason[:2], CLOSE))
    assert await socket.client.is_closed()
    await draining


@on_both_loops
async def test_the_end_of_the_server_tells_plain_streams_and_closes_with_1012(net: Net) -> None:
    gateway = await net.gateway(await net.upstream(quiet))
    socket = await connect(gateway)
    socket.ask("plain")
    socket.ask("kept", **RESUMABLE)
    for name in ("plain", "kept"):
        await socket.until(stream=name, type="text.delta")
    draining = asyncio.create_task(gateway.running.drain(0.0, asyncio.Event()))
    await draining
    closing = asyncio.create_task(gateway.running.close())
    assert await socket.close_code() == 1012
    await closing
    net.warned("draining")
    assert socket.error("plain")["reason"] == "draining"
    assert "error" not in socket.types("kept")


# ---- counts ----------------------------------------------------------------------------------------------------------


@on_uvloop
async def test_streams_and_sockets_are_counted_and_logged(net: Net, caplog: pytest.LogCaptureFixture) -> None:
    gateway = await net.gateway(await net.upstream(quiet))
    with caplog.at_level(logging.INFO, "gai_fast.access"):
        socket = await connect(gateway)
        socket.ask("a")
        await socket.until(stream="a", type="text.delta")
        metrics = (await gateway.ask("GET", "/metrics")).body.decode()
        assert 'gai_fast_active_streams{transport="ws"} 1' in metrics
        socket.send(stream="a", type="cancel")
        socket.ask("b", nonsense=1)
        await socket.until_done("a", "b")
        socket.client.close()
        await until(lambda: " 101 " in caplog.text)  # a socket's own line is written when it has closed
    metrics = (await gateway.ask("GET", "/metrics")).body.decode()
    counted = [line for line in metrics.splitlines() if line.startswith("gai_fast_requests_total{")]
    counted = [line for line in counted if not line.endswith(" 0.0")]  # series of configured models begin there
    assert [line for line in counted if "/ws/stream" not in line] == []
    assert sorted(re.findall(r'outcome="(\w+)"', "".join(counted))) == ["cancelled", "refused"]
    lines = [record.getMessage() for record in caplog.records if "/ws/stream" in record.getMessage()]
    statuses = [line.split()[3] for line in lines]
    assert sorted(statuses) == ["101", "200", "400"]
    assert statuses[-1] == "101"
