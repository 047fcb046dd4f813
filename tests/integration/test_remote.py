"""`gai_fast/library/remote.py`: a client of a server has every event once, whatever becomes of its connections."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

import gai_fast
from gai_fast.cli.mock.command import Fault
from gai_fast.model.settings import KeyLimits, KeySettings, key_digest
from tests.conftest import ChangeLimits
from tests.faults.proxy import FaultProxy, Faults
from tests.integration.gateway import LAST_CHUNK, SSE_HEAD, Net, Peer, on_both_loops, on_uvloop
from tests.unit.formats.run_events import CLIENT_CALLS, RUN_EVENTS, TEXT, as_read
from tests.waiting import SECONDS, until

QUERY = {"query": "Tell me a story"}
ID = "s" * 22
HEAD = SSE_HEAD.replace(b"\r\n\r\n", b"\r\nx-gai-stream-id: %b\r\n\r\n" % ID.encode())


@pytest.fixture(autouse=True)
def quick(change_limits: ChangeLimits) -> None:
    """Tries come soon after one another."""
    change_limits(reconnect_first=0.01)


@pytest.fixture
def brief(change_limits: ChangeLimits) -> None:
    """A client gives up soon."""
    change_limits(reconnect_first=0.01, reconnecting=0.1)


def frame(event: dict[str, Any], *lines: str) -> bytes:
    """Returns one HTTP chunk with one event."""
    own = f"id: {ID}.{event['seq']}\n" if "seq" in event else ""
    data = f"event: {event['type']}\n{own}{''.join(lines)}data: {json.dumps(event)}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(data), data)


def text(seq: int, letter: str) -> bytes:
    return frame({"type": "text.delta", "seq": seq, "text": letter})


START = frame({"type": "start", "seq": 1, "stream_id": ID}, "retry: 3000\n")
FINISH = {"type": "finish", "seq": 4, "finish_reason": "stop"}
DONE = frame({"type": "done", "finished": True})


class Scripted:
    """A server whose connections answer by a script, one after another; it keeps what it was asked."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = [*answers]
        self.asked: list[tuple[str, str | None]] = []
        self.heads: list[str] = []

    async def __call__(self, peer: Peer) -> None:
        await peer.request()
        head = peer.head.decode()
        self.heads.append(head)
        _, _, place = head.lower().partition("last-event-id: ")
        self.asked.append((head.split(" ", 1)[0], place.partition("\r\n")[0] or None))
        await peer.send(self.answers.pop(0))


# ---- over a running gateway ------------------------------------------------------------------------------------------


@on_both_loops
async def test_the_interface_is_the_gateways(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=8))
    async with gai_fast.connect(gateway.url) as client:
        async with client.stream(QUERY) as stream:
            events = [event async for event in stream]
            result = await stream.result()
        assert [event["type"] for event in events] == ["start", *["text.delta"] * 8, "finish", "done"]
        assert events[0]["stream_id"] == stream.id
        assert "ts" not in events[1]
        assert result.text == "".join(event.get("text", "") for event in events)
        assert (await client.ask("Tell me a story", temperature=0.5)).text == result.text
        assert "".join([piece async for piece in client.ask(QUERY)]) == result.text
        assert "".join([piece async for piece in client.task().prompt("Hi").model("m").stream()]) == result.text
        assert [event async for event in client.follow(stream.id, after=3)] == events[3:]
        assert [event async for event in client.follow(stream.id, after=f"{stream.id}.10")] == []
        assert (await gai_fast.acollect(client.follow(stream.id))).text == result.text


@on_uvloop
async def test_a_run_is_read_with_its_messages_over_any_cut(net: Net) -> None:
    """The calls of the gateway are in `messages`; `tool_calls` are those that the program must make."""
    frames = [
        frame({**event, **({"stream_id": ID} if event["type"] == "start" else {})}) for event in as_read(RUN_EVENTS)
    ]
    for at in (5, 17, len(frames)):
        server = await net.upstream(Scripted(HEAD + b"".join(frames[:at]), HEAD + b"".join(frames[at:]) + LAST_CHUNK))
        async with gai_fast.connect(server.url) as client, client.stream(QUERY) as stream:
            kinds = [event["type"] async for event in stream]
            result = await stream.result()
        assert kinds == [event["type"] for event in RUN_EVENTS]
        assert result.text == TEXT
        assert [call.call_id for call in result.tool_calls] == CLIENT_CALLS
        roles = [message["role"] for message in result.messages]
        assert roles == ["assistant", "tool", "tool", "assistant", "tool", "assistant", "tool"]


@on_uvloop
async def test_callbacks_are_called_with_what_is_read(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=8))
    seen: list[str] = []

    async def complete(event: Any) -> None:
        seen.append(event["type"])

    manager = gai_fast.EventManager(on_delta=lambda event: seen.append("delta"), on_complete=complete)
    async with gai_fast.connect(gateway.url) as client, client.stream(QUERY, manager) as stream:
        await stream.result()
    assert seen == [*["delta"] * 8, "finish"]


@on_both_loops
async def test_wherever_connections_are_cut_each_event_comes_once(net: Net) -> None:
    upstream = await net.mock(deltas=60)
    gateway = await net.gateway(upstream)
    async with gai_fast.connect(gateway.url) as client:
        whole = (await client.ask(QUERY)).text
    for then in ("reset", "close", "half_close"):
        for after in (900, 1111, 1900):
            asked = len(upstream.requests)
            async with FaultProxy(gateway.url, Faults(after=after, then=then)) as proxy:
                async with gai_fast.connect(proxy.url) as client, client.stream(QUERY) as stream:
                    events = [event async for event in stream]
                    assert (await stream.result()).text == whole
                assert [event.get("from_seq", event["seq"]) for event in events[1:-1]] == [
                    event["seq"] + 1 for event in events[:-2]
                ], (then, after)
                assert proxy.connections > 2
            assert len(upstream.requests) == asked + 1


@on_both_loops
async def test_a_request_whose_response_is_lost_is_answered_once(net: Net) -> None:
    upstream = await net.mock(deltas=8)
    gateway = await net.gateway(upstream)
    async with FaultProxy(gateway.url, Faults(after=1), times=2) as proxy:
        async with gai_fast.connect(proxy.url) as client:
            assert (await client.ask(QUERY)).finish_reason == "stop"
        assert proxy.connections >= 3
    assert len(upstream.requests) == 1


@pytest.mark.usefixtures("brief")
@on_both_loops
async def test_a_server_that_stays_away_is_an_error(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=60))
    async with (
        FaultProxy(gateway.url, Faults(after=1500)) as proxy,
        gai_fast.connect(proxy.url) as client,
        client.stream({**QUERY, "resumable": True}) as stream,
    ):
        first = await anext(stream)
        proxy.faults = Faults(is_down=True)
        events = [first, *[event async for event in stream]]
        assert [event["type"] for event in events[-2:]] == ["error", "done"]
        assert events[-2]["seq"] == events[-3]["seq"] + 1
        assert events[-2]["error"]["reason"] == "closed"
        with pytest.raises(gai_fast.Network, match="not made again"):
            await stream.result()


@on_both_loops
async def test_a_program_that_leaves_early_ends_its_stream(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=1000, rate=100))
    async with gai_fast.connect(gateway.url) as client:
        async with client.stream(QUERY) as stream:
            await anext(stream)
            assert gateway.streams == 1
        await until(lambda: gateway.streams == 0)
        async with client.stream({**QUERY, "resumable": True}) as stream:
            await anext(stream)
        assert gateway.streams == 1
        async with client.follow(stream.id, after=1) as followed:
            assert (await anext(followed))["seq"] == 2
        assert (await anext(aiter(client.follow(stream.id))))["type"] == "start"
        assert gateway.streams == 1
        async with client.follow(stream.id) as followed:
            await followed.cancel()
            assert (await followed.result()).finish_reason == "cancelled"
            await followed.cancel()


@on_uvloop
async def test_refusals_are_typed_and_an_upstreams_failure_is_an_event(net: Net) -> None:
    async def fail(peer: Peer) -> None:
        await peer.request()
        await peer.answer(
            "429 Too Many Requests", b'{"error":{"message":"slow down"}}', "Content-Type: application/json"
        )

    gateway = await net.gateway(await net.upstream(fail), keys=(KeySettings("me", (key_digest("secret-of-mine"),)),))
    async with gai_fast.connect(gateway.url) as client:
        with pytest.raises(gai_fast.Unauthorized):
            await client.ask(QUERY)
    async with gai_fast.connect(gateway.url, "secret-of-mine") as client:
        with pytest.raises(gai_fast.NotFound) as caught:
            await client.ask(QUERY, model="nonsense")
        assert (caught.value.reason, caught.value.status) == ("model", 404)
        with pytest.raises(gai_fast.InvalidRequest, match="temprature"):
            await client.ask(QUERY, temprature=1)
        with pytest.raises(gai_fast.NotFound):
            await gai_fast.acollect(client.follow(ID))
        with pytest.raises(gai_fast.NotFound, match="no stream's id"):
            await gai_fast.acollect(client.follow("../models"))
        async with client.stream(QUERY) as stream:
            events = [event async for event in stream]
            assert [event["type"] for event in events] == ["error", "done"]
            with pytest.raises(gai_fast.RateLimited, match="slow down"):
                await stream.result()


@on_uvloop
async def test_a_refusal_for_ever_asks_for_no_wait(net: Net) -> None:
    """Though it says when the key's limit is full again."""
    limits = KeyLimits(requests_per_minute=9)
    key = KeySettings("me", (key_digest("secret-of-mine"),), models=("m",), limits=limits)
    gateway = await net.gateway(await net.mock(), keys=(key,))
    async with gai_fast.connect(gateway.url, "secret-of-mine") as client:
        await client.ask(QUERY)
        with pytest.raises(gai_fast.Forbidden) as caught:
            await client.ask(QUERY, model="claude")
    assert (caught.value.temporary, caught.value.retry_after_ms) == (False, None)


# ---- over a server with a script -------------------------------------------------------------------------------------


async def read(net: Net, *answers: bytes) -> tuple[list[Any], Scripted]:
    server = Scripted(*answers)
    url = (await net.upstream(server)).url
    async with gai_fast.connect(url) as client, client.stream({**QUERY, "resumable": True}) as stream:
        return [event async for event in stream], server


@on_both_loops
async def test_a_gap_replaces_the_text_so_far(net: Net) -> None:
    gap = frame({"type": "stream.gap", "seq": 7, "from": 3, "to": 7, "text": "abcdef"})
    end = frame({**FINISH, "seq": 9})
    events, server = await read(net, HEAD + START + text(2, "a"), HEAD + gap + text(8, "g") + end + DONE + LAST_CHUNK)
    assert gai_fast.collect(events).text == "abcdefg"
    assert server.asked == [("POST", None), ("GET", f"{ID}.2")]


@on_uvloop
async def test_an_event_that_is_sent_again_is_given_once(net: Net) -> None:
    whole = HEAD + START + text(2, "a") + text(3, "b") + frame(FINISH) + DONE + LAST_CHUNK
    events, _ = await read(net, HEAD + START + text(2, "a"), whole)
    assert [event.get("seq") for event in events] == [1, 2, 3, 4, None]


@on_uvloop
async def test_events_and_text_are_read_whatever_a_result_can_hold(net: Net, change_limits: ChangeLimits) -> None:
    change_limits(collected=1)
    gateway = await net.gateway(await net.mock(deltas=8))
    async with gai_fast.connect(gateway.url) as client:
        async with client.stream(QUERY) as stream:
            events = [event async for event in stream]
            with pytest.raises(gai_fast.ProviderUnavailable, match="read it as events"):
                await stream.result()
        texts = [text async for text in client.ask(QUERY)]
    assert [event["type"] for event in events] == ["start", *["text.delta"] * 8, "finish", "done"]
    assert texts == [event["text"] for event in events if event["type"] == "text.delta"]


@on_uvloop
async def test_a_done_that_is_lost_is_known(net: Net) -> None:
    events, server = await read(net, HEAD + START + text(2, "a") + frame({**FINISH, "seq": 3}))
    assert events[-1] == {"type": "done", "finished": True}
    assert len(server.asked) == 1


@on_uvloop
async def test_a_server_that_is_busy_is_asked_again(net: Net) -> None:
    busy = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 9\r\n\r\n<html>..."
    result = b'{"error":{"code":"overloaded","message":"m","temporary":true,"retry_after_ms":1}}'
    body = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: %d\r\n\r\n%b" % (len(result), result)
    rest = HEAD + text(3, "b") + frame(FINISH) + DONE + LAST_CHUNK
    parting = frame({"type": "text.delta", "seq": 2, "text": "a"}, "retry: 1\n")
    events, server = await read(net, HEAD + START + parting, busy, body, rest)
    assert gai_fast.collect(events).text == "ab"
    assert [place for _, place in server.asked] == [None, *[f"{ID}.2"] * 3]


@pytest.mark.usefixtures("brief")
@on_uvloop
async def test_a_connection_that_is_lost_later_is_made_again_at_once(net: Net) -> None:
    """The `retry:` of the first frame is longer than this client tries at all."""
    has_begun = asyncio.Event()
    numbers: list[int] = []

    async def answer(peer: Peer) -> None:
        await peer.request()
        numbers.append(len(numbers))
        if not numbers[-1]:
            await peer.send(HEAD + START)
            await has_begun.wait()
            await peer.send(text(2, "a"))
        else:
            await peer.send(HEAD + text(3, "b") + frame(FINISH) + DONE + LAST_CHUNK)

    url = (await net.upstream(answer)).url
    async with gai_fast.connect(url) as client, client.stream({**QUERY, "resumable": True}) as stream:
        assert (await anext(stream))["type"] == "start"
        has_begun.set()
        assert (await stream.result()).text == "ab"
    assert numbers == [0, 1]


PING = b"7\r\n: ping\n\r\n"


@on_uvloop
async def test_connections_that_bring_keep_alives_alone_are_made_again_several_times(
    net: Net, change_limits: ChangeLimits
) -> None:
    """An upstream may think for minutes, behind a proxy that cuts each connection."""
    change_limits(reconnect_first=0.001)
    rest = HEAD + text(2, "a") + frame({**FINISH, "seq": 3}) + DONE + LAST_CHUNK
    events, server = await read(net, HEAD + START, *[HEAD + PING] * 4, rest)
    assert events[-1] == {"type": "done", "finished": True}
    assert len(server.asked) == 6


@on_uvloop
async def test_the_time_of_a_connection_does_not_count_as_time_without_one(
    net: Net, change_limits: ChangeLimits
) -> None:
    """A proxy cuts connections after a minute, which is all the time that a client has to come back."""
    change_limits(reconnect_first=0.0, reconnecting=0.2)
    rounds = 4

    async def answer(peer: Peer) -> None:
        await peer.request()
        rounds_so_far.append(None)
        if len(rounds_so_far) == 1:
            await peer.send(HEAD + START)
        elif len(rounds_so_far) < rounds:
            await peer.send(HEAD + PING)
            await asyncio.sleep(0.25)
        else:
            await peer.send(HEAD + frame({**FINISH, "seq": 2}) + DONE + LAST_CHUNK)

    rounds_so_far: list[None] = []
    url = (await net.upstream(answer)).url
    async with gai_fast.connect(url) as client:
        assert (await client.ask(QUERY)).finish_reason == "stop"
    assert len(rounds_so_far) == rounds


@on_uvloop
async def test_a_server_whose_events_have_no_number_is_given_up(net: Net, change_limits: ChangeLimits) -> None:
    """An event without a number may be one that the program has: it is no progress."""
    change_limits(reconnect_first=0.01, reconnect_longest=0.01, reconnecting=0.1)
    asked: list[bytes] = []

    async def answer(peer: Peer) -> None:
        await peer.request()
        asked.append(peer.head)
        await peer.send(HEAD + frame({"type": "text.delta", "text": "once more"}))

    url = (await net.upstream(answer)).url
    async with asyncio.timeout(SECONDS), gai_fast.connect(url) as client, client.stream(QUERY) as stream:
        *_, error, done = [event async for event in stream]
    assert (error["error"]["reason"], done["finished"]) == ("closed", False)
    assert len(asked) < 20


@pytest.mark.parametrize("seq", ["2", None, 1.5, True])
@on_uvloop
async def test_an_event_whose_number_is_none_is_no_event(net: Net, seq: object) -> None:
    events, _ = await read(net, HEAD + START + frame({"type": "text.delta", "seq": seq, "text": "x"}))
    assert [event["type"] for event in events] == ["start", "error", "done"]
    assert events[1]["error"]["reason"] == "protocol"


@pytest.mark.parametrize("brings", [PING, frame({"type": "start", "seq": 1, "stream_id": ID})])
@on_uvloop
async def test_a_server_whose_connections_bring_no_event_is_given_up(
    net: Net, brings: bytes, change_limits: ChangeLimits
) -> None:
    """Neither bytes that are no event nor an event that the program has are progress."""
    change_limits(reconnect_first=0.01, reconnect_longest=0.01, reconnecting=0.1)

    async def answer(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD + (brings if b"last-event-id" in peer.head.lower() else START))

    url = (await net.upstream(answer)).url
    async with asyncio.timeout(SECONDS), gai_fast.connect(url) as client, client.stream(QUERY) as stream:
        events = [event async for event in stream]
    assert [event["type"] for event in events] == ["start", "error", "done"]
    assert events[1]["error"]["reason"] == "closed"


@on_uvloop
async def test_a_connection_that_is_silent_is_made_again(net: Net, change_limits: ChangeLimits) -> None:
    change_limits(server_silence=0.05, reconnecting=0.04, reconnect_first=0.001)
    places: list[bool] = []

    async def answer(peer: Peer) -> None:
        await peer.request()
        places.append(b"last-event-id" in peer.head.lower())
        if len(places) < 3:
            await peer.send(HEAD + (b"" if places[-1] else START))
            await peer.until_gone()
        else:
            await peer.send(HEAD + frame({**FINISH, "seq": 2}) + DONE + LAST_CHUNK)

    url = (await net.upstream(answer)).url
    async with gai_fast.connect(url) as client:
        assert (await client.ask(QUERY)).finish_reason == "stop"
    assert places == [False, True, True]


@on_uvloop
async def test_a_stream_that_is_gone_ends_with_its_error(net: Net) -> None:
    result = b'{"error":{"code":"not_found","message":"no such stream","reason":"stream"}}'
    gone = b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n%b" % (len(result), result)
    events, _ = await read(net, HEAD + START, gone)
    assert events[-2]["error"] == {
        "code": "not_found",
        "message": "no such stream",
        "temporary": False,
        "reason": "stream",
    }


@on_uvloop
async def test_an_error_without_an_id_is_no_place_in_the_log(net: Net) -> None:
    lost = {"type": "error", "seq": 3, "error": {"code": "network", "message": "m", "reason": "worker_lost"}}
    data = f"event: error\ndata: {json.dumps(lost)}\n\n".encode()
    server = Scripted(HEAD + START + text(2, "a") + b"%x\r\n%b\r\n" % (len(data), data) + DONE + LAST_CHUNK)
    url = (await net.upstream(server)).url
    async with gai_fast.connect(url) as client, client.stream({**QUERY, "resumable": True}) as stream:
        assert [event async for event in stream][-2] == lost
        assert stream.position == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nHi",
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
        b'HTTP/1.1 400 Bad Request\r\nContent-Length: 14\r\n\r\n{"error":null}',
        b"HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        SSE_HEAD + START + DONE + LAST_CHUNK,  # without the stream's id, by which it is resumed
    ],
)
@on_uvloop
async def test_what_is_no_gai_fast_server_is_reported(net: Net, answer: bytes) -> None:
    with pytest.raises(gai_fast.Network, match="as a gai-fast server does") as caught:
        await read(net, answer)
    assert caught.value.reason == "protocol"


@pytest.mark.parametrize(
    "data",
    [
        b"data: nonsense\n\n",
        b"data: []\n\n",
        b"data: {}\n\n",
        b'data: {"type":"text.delta","seq":2,"text":5}\n\n',
        b'data: {"type":"tool.call","seq":2,"tool_call":5}\n\n',
        b'data: {"type":"error","seq":2,"error":5}\n\n',
    ],
)
@on_uvloop
async def test_what_is_no_event_ends_the_stream(net: Net, data: bytes) -> None:
    events, _ = await read(net, HEAD + START + b"%x\r\n%b\r\n" % (len(data), data))
    assert [event["type"] for event in events] == ["start", "error", "done"]
    assert events[1]["error"]["reason"] == "protocol"


@on_uvloop
async def test_a_server_that_is_not_there_is_reported_at_once(net: Net) -> None:
    upstream = await net.upstream(Scripted())
    url = upstream.url
    await upstream.stop()
    async with gai_fast.connect(url) as client:
        with pytest.raises(gai_fast.Network) as result:
            await client.ask(QUERY)
    assert result.value.reason == "connect"
    why = "Connection refused"
    assert (
        str(result.value) == f"the server at {url} cannot be reached ({why}): check the URL, and that the server runs"
    )


@on_uvloop
async def test_the_prefix_and_the_key_are_sent(net: Net) -> None:
    server = Scripted(HEAD + START + frame({**FINISH, "seq": 2}) + DONE + LAST_CHUNK)
    url = (await net.upstream(server)).url
    async with gai_fast.connect(f"{url}/ai/", "secret") as client:
        await client.ask(QUERY)
    assert server.heads[0].startswith("POST /ai/api/v1/stream?envelope=compact HTTP/1.1\r\n")
    assert "\r\nauthorization: Bearer secret\r\n" in server.heads[0]


@on_uvloop
async def test_the_url_of_an_sdk_is_answered_with_the_right_one(net: Net) -> None:
    gateway = await net.gateway(await net.mock())
    without = "; give `connect` the server's URL without /v1"
    async with gai_fast.connect(f"{gateway.url}/v1/") as client:
        with pytest.raises(gai_fast.NotFound, match=f"no such route.*{without}$"):
            await client.ask(QUERY)
        with pytest.raises(gai_fast.NotFound, match=f"no such route.*{without}$"):
            await client.models()
    url = (await net.upstream(Scripted(b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnone"))).url
    async with gai_fast.connect(f"{url}/v1") as client:
        with pytest.raises(gai_fast.Network, match=f"answered 404, and not as a gai-fast server does{without}$"):
            await client.ask(QUERY)


@on_uvloop
async def test_a_server_may_be_mounted_below_a_v1(net: Net) -> None:
    body = json.dumps({"error": {"code": "not_found", "message": "no model", "reason": "model"}}).encode()
    server = Scripted(b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    url = (await net.upstream(server)).url
    async with gai_fast.connect(f"{url}/v1") as client:
        with pytest.raises(gai_fast.NotFound, match=r"no model$"):
            await client.ask(QUERY)
    assert server.heads[0].startswith("POST /v1/api/v1/stream?")


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH_9\r\n", b"HTTP/1.1 200 OK\r\nX: " + b"a" * 20_000])
@on_uvloop
async def test_an_answer_that_is_not_http_is_reported_at_once(net: Net, answer: bytes) -> None:
    with pytest.raises(gai_fast.Network, match="not HTTP") as caught:
        await read(net, answer)
    assert caught.value.reason == "protocol"


@on_uvloop
async def test_an_error_may_come_in_pieces(net: Net) -> None:
    body = json.dumps({"error": {"code": "forbidden", "message": "no" * 100}}).encode()

    async def serve(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\n\r\n" % len(body) + body[:50])
        await asyncio.sleep(0.05)  # so that the client reads what there is
        await peer.send(body[50:])

    url = (await net.upstream(serve)).url
    async with gai_fast.connect(url) as client:
        with pytest.raises(gai_fast.Forbidden, match="nono"):
            await client.ask(QUERY)


@on_uvloop
async def test_the_body_of_an_error_is_waited_for_so_long(net: Net, change_limits: ChangeLimits) -> None:
    async def serve(peer: Peer) -> None:
        await peer.request()
        # Only now: the time to connect is the same limit.
        change_limits(server_connect=0.01)
        await peer.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 100\r\n\r\n")
        await peer.until_gone()

    url = (await net.upstream(serve)).url
    async with gai_fast.connect(url) as client:
        with pytest.raises(gai_fast.Network, match="answered 403, and not as"):
            await client.ask(QUERY)


@pytest.mark.parametrize("stream_id", ["", "../../../admin/v1/keys", "../streams/" + ID])
@on_uvloop
async def test_what_is_no_streams_id_is_not_sent(net: Net, stream_id: str) -> None:
    server = Scripted()
    url = (await net.upstream(server)).url
    async with gai_fast.connect(url, "secret") as client:
        with pytest.raises(gai_fast.NotFound):
            await client.follow(stream_id).cancel()
        with pytest.raises(gai_fast.NotFound):
            await client.follow(stream_id).__aenter__()
        with pytest.raises(gai_fast.NotFound):
            await client.stream(QUERY).cancel()
    assert server.heads == []


@on_uvloop
async def test_a_proxy_says_when_to_come_back(net: Net) -> None:
    busy = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n"
    with pytest.raises(gai_fast.Network) as caught:
        await read(net, busy)
    assert (caught.value.temporary, caught.value.retry_after_ms) == (True, 7000)


@pytest.mark.usefixtures("brief")
@on_uvloop
async def test_a_server_that_ends_says_when_to_come_back(net: Net) -> None:
    """Also if that is the wait of the stream's first frame, which is longer than this client tries at all."""
    parting = frame({"type": "text.delta", "seq": 2, "text": "a"}, "retry: 3000\n")
    for answer in (HEAD + START + parting, HEAD + START + text(2, "b") + parting.replace(b'"seq": 2', b'"seq": 3')):
        events, server = await read(net, answer)
        assert events[-2]["error"]["reason"] == "closed"
        assert len(server.asked) == 1


@on_uvloop
async def test_a_follower_whose_first_connection_is_lost_may_have_everything(net: Net) -> None:
    server = Scripted(b"", b"", b"HTTP/1.1 204 No Content\r\n\r\n")
    url = (await net.upstream(server)).url
    async with gai_fast.connect(url) as client:
        assert [event async for event in client.follow(ID, after=4)] == []
    assert server.answers == []


@on_both_loops
async def test_a_program_that_leaves_before_the_server_answers_ends_its_stream(net: Net) -> None:
    mock = await net.mock(deltas=1000, fault=Fault("stall", 0))
    gateway = await net.gateway(mock, commit_after=0.2)
    async with gai_fast.connect(gateway.url) as client:
        asking = asyncio.ensure_future(client.stream(QUERY).__aenter__())
        await until(lambda: gateway.streams == 1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    await until(lambda: gateway.streams == 0)
    assert len(mock.requests) == 1


@on_uvloop
async def test_so_many_such_programs_are_waited_for(net: Net, change_limits: ChangeLimits) -> None:
    change_limits(abandoned=1)
    gateway = await net.gateway(await net.mock(deltas=1000, fault=Fault("stall", 0)), commit_after=0.2)
    async with gai_fast.connect(gateway.url) as client:
        asking = [asyncio.ensure_future(client.stream(QUERY).__aenter__()) for _ in range(3)]
        await until(lambda: gateway.streams == 3)
        for each in asking:
            each.cancel()
        await asyncio.wait(asking)
    await until(lambda: gateway.streams == 2)


@on_both_loops
async def test_a_gateway_that_is_closed_ends_its_streams(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=1000, rate=100))
    client = gai_fast.connect(gateway.url)
    async with client, client.stream({**QUERY, "resumable": True}) as stream:
        await anext(stream)
        await client.__aexit__(None, None, None)
        events = [event async for event in stream]
    assert [event["type"] for event in events[-2:]] == ["error", "done"]
    assert events[-2]["error"]["message"] == "the gateway of this stream was closed"


@pytest.mark.parametrize("url", ["", "127.0.0.1:8080", "ftp://host", "http://", "http://me:secret@host"])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="URL"):
        gai_fast.connect(url)


@pytest.mark.parametrize("key", ["", "a\nb", "é"])
def test_a_key_that_cannot_be_sent_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="key"):
        gai_fast.connect("http://127.0.0.1:1", key)


@pytest.mark.parametrize(
    ("arguments", "what"), [(("http://h", 5), "key"), (("http://h", b"k"), "key"), ((5,), "URL"), ((None,), "URL")]
)
def test_a_url_and_a_key_are_text(arguments: tuple[Any, ...], what: str) -> None:
    with pytest.raises(TypeError, match=f"the (server's )?{what} must be str, not "):
        gai_fast.connect(*arguments)


async def test_misuse_is_reported() -> None:
    client = gai_fast.connect("http://127.0.0.1:1")
    with pytest.raises(RuntimeError, match="not open"):
        await client.ask(QUERY)
    async with client:
        with pytest.raises(RuntimeError, match="open already"):
            await client.__aenter__()
        with pytest.raises(RuntimeError, match="async with"):
            await anext(client.stream(QUERY))
        with pytest.raises(TypeError, match="this is list"):
            client.stream([])
        with pytest.raises(ValueError, match="after"):
            client.follow(ID, after=-1)
        stream = client.stream(QUERY)
        with pytest.raises(gai_fast.Network):
            await stream.__aenter__()
        with pytest.raises(RuntimeError, match="entered once"):
            await stream.__aenter__()
    assert not client.is_open


@on_both_loops
async def test_a_stream_that_is_not_resumable_is_plain(net: Net) -> None:
    upstream = await net.mock(deltas=60)
    gateway = await net.gateway(upstream)
    plain = {**QUERY, "resumable": False}
    async with gai_fast.connect(gateway.url) as client:
        async with client.stream(plain) as stream:
            events = [event async for event in stream]
        assert [event["type"] for event in events] == ["start", *["text.delta"] * 60, "finish", "done"]
        assert stream.position == 0
        with pytest.raises(gai_fast.NotFound):
            await gai_fast.acollect(client.follow(stream.id))
        upstream.rate = 20
        async with client.stream(plain) as stream:
            await anext(stream)
        await asyncio.wait_for(upstream.requests[-1].closed.wait(), SECONDS)
        upstream.rate = 0
    async with FaultProxy(gateway.url, Faults(after=1500)) as proxy, gai_fast.connect(proxy.url) as client:
        async with client.stream(plain) as stream:
            events = [event async for event in stream]
        assert proxy.connections == 1
    assert [event["type"] for event in events[-2:]] == ["error", "done"]
    assert events[-2]["error"]["reason"] == "closed"
    asked = len(upstream.requests)
    async with FaultProxy(gateway.url, Faults(after=1)) as proxy, gai_fast.connect(proxy.url) as client:
        with pytest.raises(gai_fast.Network):
            await client.ask(plain)
    assert len(upstream.requests) <= asked + 1, "it is not asked again"
