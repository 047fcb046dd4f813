"""gai-fast.js in front of servers and proxies that cut, stay silent, refuse, and send what no gateway sends."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final

import pytest

from tests.integration.gateway import Net, Peer, on_uvloop
from tests.integration.javascript import TRANSPORTS, Loop, begin, command, node, run, run_each
from tests.integration.websocket import CLOSE, frame
from tests.waiting import until

__all__ = ["node"]

ID: Final = "AbCdEfGhIjKlMnOpQrStUv"
EVENTS: Final[list[dict[str, Any]]] = [
    {"type": "start", "seq": 1, "stream_id": ID, "provider": "p", "model": "m"},
    {"type": "text.delta", "seq": 2, "text": "é👩‍🚀\n"},
    {"type": "text.delta", "seq": 3, "text": " \u2028 data: {"},
    {"type": "finish", "seq": 4, "finish_reason": "stop"},
    {"type": "done", "finished": True},
]
LOST: Final = "the connection to the server was lost, and could not be made again"
UNREACHED: Final = "no server answers at {}: check the address, that the server runs, and its cors_origins"
NO_EVENT: Final = "the server sent data that is not an event"
UNAVAILABLE: Final = {"code": "overloaded", "message": "Busy.", "temporary": True}
FASTER: Final = 60
"""Times the module's clock runs faster where it gives up, so that its minute is a second."""
FAST: Final = 10
"""The same where it goes on: what a busy machine does in seconds must not look like a silence of its server."""
PATIENT: Final = {"hurry": 1, "leap": 1}
"""The module's timers run as ever, and no time passes between them: a busy machine's client gives up no earlier."""

Answer = Callable[[Peer], Awaitable[None]]


def seq_of(event: dict[str, Any]) -> int:
    found: int = event.get("seq", len(EVENTS))
    return found


def sse(events: list[dict[str, Any]], end: str = "\n", retry: int | None = None) -> bytes:
    """Frames; the last one has a `retry`."""
    frames = [f"event: {event['type']}{end}data: {json.dumps(event, ensure_ascii=False)}{end}" for event in events]
    frames[-1] += f"retry: {retry}{end}" if retry is not None else ""
    return "".join(f"{each}{end}" for each in frames).encode()


def ndjson(events: list[dict[str, Any]]) -> bytes:
    return "".join(f"{json.dumps(event, ensure_ascii=False)}\n" for event in events).encode()


def head(kind: str = "text/event-stream") -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nx-gai-stream-id: {ID}\r\nConnection: close\r\n\r\n".encode()


def place(peer: Peer) -> int:
    """Returns the number of the last event that the client has."""
    _, _, value = peer.head.lower().partition(b"last-event-id: ")
    return int(value.partition(b"\r\n")[0].rpartition(b".")[2] or 0)


def is_of_request(peer: Peer) -> bool:
    return peer.head.startswith(b"POST ")


def is_lines(peer: Peer) -> bool:
    return b"framing=ndjson" in peer.head


async def rest(peer: Peer, end: str = "\n") -> None:
    """The events that the client does not have, in its framing."""
    await peer.send(rest_for(peer, end))


def rest_for(peer: Peer, end: str = "\n") -> bytes:
    events = [event for event in EVENTS if seq_of(event) > place(peer)]
    return head("application/x-ndjson") + ndjson(events) if is_lines(peer) else head() + sse(events, end)


async def serve(net: Net, *answers: Answer) -> tuple[str, list[Peer]]:
    """Returns a server whose requests get one answer each, the last one again and again.

    Returns:
        Its address, and the connections of the requests so far: Node also makes some without a request.
    """
    asked: list[Peer] = []

    async def answer(peer: Peer) -> None:
        await peer.request()
        asked.append(peer)
        await answers[min(len(asked), len(answers)) - 1](peer)

    upstream = await net.upstream(answer)
    return upstream.url, asked


def sends(*pieces: bytes) -> Answer:
    return lambda peer: peer.send(*pieces)


def refuses(status: str, body: bytes, *headers: str) -> Answer:
    return lambda peer: peer.answer(status, body, *headers)


async def stays_silent(peer: Peer) -> None:
    await peer.until_gone()


CANCELLED = refuses("202 Accepted", b"{}")
"""The answer to a DELETE."""


def check_whole(loop: Loop) -> None:
    assert loop.thrown is None
    assert loop.events == EVENTS


@pytest.mark.parametrize(("transport", "end"), [("sse", "\n"), ("sse", "\r\n"), ("sse", "\r"), ("ndjson", "\n")])
@on_uvloop
async def test_wherever_a_response_is_cut_each_event_comes_once(net: Net, transport: str, end: str) -> None:
    """Cuts fall within a character, between CR and LF, and in the head, too."""
    whole = head() + sse(EVENTS, end) if transport == "sse" else head("application/x-ndjson") + ndjson(EVENTS)
    places = range(0, len(whole) + 1, 7 if end == "\n" else 19)
    cuts = iter(places)
    asked: set[str] = set()

    async def cut_first(peer: Peer) -> None:
        body = await peer.request()
        key = json.loads(body)["idempotency_key"] if body else None
        if key is None or key in asked:
            await rest(peer, end)
            return
        asked.add(key)
        at = next(cuts)
        await peer.send(whole[:at])
        if at % 2:
            peer.reset()

    upstream = await net.upstream(cut_first)
    loops = await run_each(command(upstream.url, transport=transport, times=len(places), **PATIENT))
    assert len(loops) == len(places)
    for loop in loops:
        check_whole(loop)


@on_uvloop
async def test_a_stream_begins_with_a_byte_order_mark_and_ends_only_once(net: Net) -> None:
    marked, _ = await serve(net, sends(head() + b"\xef\xbb\xbf" + sse(EVENTS)))
    twice, _ = await serve(net, sends(head() + sse([*EVENTS, EVENTS[-1], EVENTS[1]])))
    without, peers = await serve(net, sends(head() + sse(EVENTS[:-1])))
    for loop in await run_each(command(marked), command(twice), command(without)):
        check_whole(loop)
    assert len(peers) == 1, "after `finish` there is nothing to come back for"


@on_uvloop
async def test_a_connection_that_falls_silent_is_made_again(net: Net) -> None:
    async def falls_silent(peer: Peer) -> None:
        await peer.send(rest_for(peer)[:-150])
        await peer.until_gone()

    url, peers = await serve(net, falls_silent, rest)
    check_whole(await run(url, hurry=FAST, leap=1))
    assert len(peers) == 2


@on_uvloop
async def test_connections_that_bring_keep_alives_alone_are_made_again_several_times(net: Net) -> None:
    """The server sends keep-alives; something on the way cuts each connection after a while."""

    async def keep_alive(peer: Peer) -> None:
        if is_of_request(peer):
            await peer.send(head() + sse(EVENTS[:1]) + b": ping\n")
        else:
            await peer.send(head("application/x-ndjson") + b"\n" if is_lines(peer) else head() + b": ping\n")

    url, peers = await serve(net, *[keep_alive] * 6, rest)
    check_whole(await run(url, hurry=FAST))
    assert len(peers) == 7


@on_uvloop
async def test_a_server_whose_connections_bring_no_event_is_given_up(net: Net) -> None:
    """Neither bytes that are no event nor an event that the program has are progress."""

    def sends_only(event: list[dict[str, Any]]) -> Answer:
        async def answer(peer: Peer) -> None:
            lines, frames = b"\n" + ndjson(event), b": ping\n" + sse(event)
            await peer.send(head("application/x-ndjson") + lines if is_lines(peer) else head() + frames)

        return answer

    for event in ([], EVENTS[:1]):
        url, _ = await serve(net, sends(head() + sse(EVENTS[:1])), sends_only(event))
        loop = await run(url, hurry=FASTER)
        assert loop.events[0] == EVENTS[0]
        assert loop.events[1]["error"]["message"] == LOST
        assert loop.types[2:] == ["done"]


@pytest.mark.parametrize("transport", TRANSPORTS)
@on_uvloop
async def test_a_server_that_takes_connections_and_never_answers_is_given_up(net: Net, transport: str) -> None:
    url, peers = await serve(net, stays_silent)
    loop = await run(url, transport=transport, hurry=10 * FASTER)
    assert loop.error["message"] == UNREACHED.format(url)
    assert len(peers) <= 3, "one of each transport"


@on_uvloop
async def test_a_transport_that_something_on_the_way_holds_up_is_left_for_the_next(net: Net) -> None:
    """A proxy that does not pass upgrades on, and a proxy that gathers SSE."""

    async def held_up(peer: Peer) -> None:
        if is_lines(peer):
            await rest(peer)
            return
        if b"/ws/stream" not in peer.head:
            await peer.send(head())
        await peer.until_gone()

    url, peers = await serve(net, held_up)
    check_whole(await run(url, transport="ws", hurry=FAST, leap=1))
    assert is_lines(peers[-1])


@on_uvloop
async def test_a_wish_to_stay_away_is_heard_within_bounds(net: Net) -> None:
    """Longer than the client would try at all, or no number."""

    async def asks_for_a_day(peer: Peer) -> None:
        await peer.send(head() + sse(EVENTS[:2], retry=86_400_000))

    a_day, _ = await serve(net, asks_for_a_day, rest)
    began = sends(head() + sse(EVENTS[:2]))
    text = json.dumps({"error": {**UNAVAILABLE, "retry_after_ms": "soon"}}).encode()
    no_number, _ = await serve(net, began, refuses("503 Busy", text), rest)
    header = refuses("503 Busy", b"<html>", "Content-Type: text/html", "Retry-After: 3600")
    of_a_proxy, _ = await serve(net, began, header, rest)
    for loop in await run_each(command(a_day, hurry=FAST, leap=1), command(no_number), command(of_a_proxy)):
        check_whole(loop)


@on_uvloop
async def test_a_server_that_refuses_for_ever_is_given_up(net: Net) -> None:
    busy = json.dumps({"error": {**UNAVAILABLE, "retry_after_ms": "soon"}}).encode()
    url, peers = await serve(net, sends(head() + sse(EVENTS[:2])), refuses("503 Busy", busy))
    loop = await run(url, hurry=FASTER)
    assert loop.events[:2] == EVENTS[:2]
    assert loop.events[2]["error"]["message"] == LOST
    assert loop.types[3:] == ["done"]
    assert len(peers) < 40, "the pauses grow"


REFUSALS: Final = {
    "404 Gone": (b'{"error":{"code":"not_found","message":"No.","temporary":false}}', "not_found", "No."),
    "409 Conflict": (b'{"error":{"code":"invalid_request","message":"Old.","reason":"r"}}', "invalid_request", "Old."),
    "400 No": (b'{"error":{}}', "network", '{"error":{}}'),
    "413 Much": (b'{"error":["much"]}', "network", '{"error":["much"]}'),
    "500 Oops": (b"null", "network", "null"),
    "502 Bad": (b"", "network", "Bad"),
    "200 OK": (b"<h1>Log in</h1>", "network", "<h1>Log in</h1>"),
}


@on_uvloop
async def test_what_refuses_a_request_or_its_rest_is_one_error(net: Net) -> None:
    """The server refuses, or a proxy, whose body may be anything."""
    commands = []
    for status, (body, _, _) in REFUSALS.items():
        first, _ = await serve(net, refuses(status, body))
        later, _ = await serve(net, sends(head() + sse(EVENTS[:2])), refuses(status, body))
        commands += [command(first), command(later, hurry=FASTER)]
    loops = await run_each(*commands)
    for (status, (_, code, message)), first, later in zip(REFUSALS.items(), loops[::2], loops[1::2], strict=True):
        assert (first.error["code"], first.error["message"]) == (code, message)
        assert first.error["status"] == int(status[:3])
        assert later.events[:2] == EVENTS[:2]
        assert later.types[2:] == ["error", "done"]
        is_temporary = status.startswith("502")
        assert later.events[2]["error"]["message"] == (LOST if is_temporary else message)
        assert later.events[2]["seq"] == 3


@on_uvloop
async def test_a_refusal_says_when_to_come_back_and_ends_within_bounds(net: Net) -> None:
    slow, _ = await serve(net, refuses("429 Slow", b"<h1>slow</h1>", "Retry-After: 7"))
    [loop] = await run_each(command(slow))
    assert (loop.error["retry_after_ms"], loop.error["temporary"]) == (7000, True)

    async def endless(peer: Peer) -> None:
        await peer.send(b"HTTP/1.1 400 No\r\nContent-Type: text/html\r\n\r\n")
        while True:
            await peer.send(b"<p>" * 4096)

    async def unfinished(peer: Peer) -> None:
        await peer.send(b"HTTP/1.1 400 No\r\nContent-Type: text/html\r\n\r\n<p>")
        await peer.until_gone()

    long, _ = await serve(net, endless)
    silent, _ = await serve(net, unfinished)
    much, never = await run_each(command(long), command(silent, hurry=10 * FASTER))
    assert (much.error["status"], len(much.error["message"])) == (400, 500)
    assert never.error["message"] == LOST


@on_uvloop
async def test_what_is_no_event_ends_the_stream(net: Net) -> None:
    bad = [b"5", b"null", b"[]", b"{}", b'{"type":7,"seq":2}', b'{"type":"text.delta","seq":"2"}', b"{", b"<html>"]
    commands = []
    for data in bad:
        url, _ = await serve(net, sends(head() + sse(EVENTS[:1]) + b"data: " + data + b"\n\n"), CANCELLED)
        commands.append(command(url))
    for loop in await run_each(*commands):
        assert loop.events[0] == EVENTS[0]
        assert loop.events[1]["error"]["message"] == NO_EVENT
        assert loop.types[1:] == ["error", "done"]


@pytest.mark.parametrize("transport", TRANSPORTS[:2])
@on_uvloop
async def test_an_event_has_a_largest_size(net: Net, transport: str) -> None:
    kind = "text/event-stream" if transport == "sse" else "application/x-ndjson"

    async def endless(peer: Peer) -> None:
        await peer.send(head(kind))
        await peer.send(b"data: " if transport == "sse" else b'"')
        while True:
            await peer.send(b"x" * (1 << 20))

    url, _ = await serve(net, endless)
    loop = await run(url, transport=transport)
    assert loop.error["message"] == "the server sent an event of more than 16777216 characters"


@on_uvloop
async def test_an_abort_leaves_no_connection_and_no_timer(net: Net) -> None:
    silent, waiting = await serve(net, stays_silent)
    refused, tried = await serve(net, refuses("503 Busy", json.dumps({"error": UNAVAILABLE}).encode()))
    for url, peers, enough in ((silent, waiting, 1), (refused, tried, 4)):
        driver = await begin(command(url, id=ID, leave="abort early"))
        await until(lambda peers=peers, enough=enough: len(peers) >= enough)
        driver.tell()
        [loop] = await driver.end()
        assert (loop.events, loop.thrown) == ([], "AbortError: This operation was aborted")
        assert loop.timers == 0
    [never] = await run_each(command(silent, leave="abort before"))
    assert (never.events, never.thrown) == ([], "AbortError: This operation was aborted")
    assert len(waiting) == 1


@on_uvloop
async def test_leaving_after_the_end_cancels_nothing(net: Net) -> None:
    url, peers = await serve(net, sends(head() + sse(EVENTS)), CANCELLED)
    loop = await run(url, leave="break", after=4)
    assert loop.events == EVENTS[:4]
    assert len(peers) == 1


@on_uvloop
async def test_what_cannot_be_used_is_refused_at_once(net: Net) -> None:
    url, peers = await serve(net, stays_silent)
    with_password = url.replace("//", "//user:secret@")
    bad = [
        (command("ftp://127.0.0.1"), "baseUrl: an address of HTTP, without a password"),
        (command(with_password), "baseUrl: an address of HTTP, without a password"),
        (command(url, key="schlüssel"), "key: printable ASCII characters, without spaces"),
        (command(url, key="a\nb: c"), "key: printable ASCII characters, without spaces"),
        (command(url, transport="smoke"), 'transport: "sse", "ndjson" or "ws"'),
        (command(url, id=ID, seq=-1), "after: the number of an event"),
        (command(url, id=ID, seq=1.5), "after: the number of an event"),
        (command(url, id=""), "streamId: the id of a stream"),
    ]
    for loop, (_, message) in zip(await run_each(*(each for each, _ in bad)), bad, strict=True):
        assert (loop.events, loop.thrown) == ([], f"TypeError: {message}")
        assert loop.heard == ["connecting", "ended"]
    assert not peers


@on_uvloop
async def test_addresses_and_ids_stay_what_they_are(net: Net) -> None:
    """A prefix is kept, a query is not; an id is one segment of a path; a key without a value gets one."""
    odd = head().replace(ID.encode(), b"../../admin") + sse([{**EVENTS[0], "stream_id": "../../admin"}])
    url, peers = await serve(net, sends(odd), CANCELLED)
    asking = {"query": "x", "idempotency_key": None}
    await run(f"{url}/a/b?c=d#e", leave="break", after=1, request=asking)
    await until(lambda: len(peers) == 2)
    assert peers[0].head.startswith(b"POST /a/b/api/v1/stream?")
    assert len(json.loads(peers[0].body)["idempotency_key"]) == 32
    assert peers[1].head.startswith(b"DELETE /a/b/api/v1/streams/..%2F..%2Fadmin HTTP/1.1")


@on_uvloop
async def test_a_key_is_sent_to_no_other_address(net: Net) -> None:
    elsewhere, seen = await serve(net, stays_silent)
    url, _ = await serve(net, refuses("307 There", b"", f"Location: {elsewhere}/api/v1/stream"))
    loop = await run(url, key="secret", hurry=FASTER)
    assert loop.error["message"] == UNREACHED.format(url)
    assert not seen


CODES: Final = [1000, 1001, 1003, 1007, 1008, 1009, 1011, 1012, 1013, 4999, None]


@on_uvloop
async def test_whatever_code_closes_a_websocket_the_stream_goes_on(net: Net) -> None:
    """None if the connection ends without a close."""
    codes = iter(CODES)
    resumed: list[dict[str, Any]] = []

    async def socket(peer: Peer) -> None:
        await peer.request()
        found = re.search(rb"sec-websocket-key: (\S+)", peer.head, re.I)
        assert found is not None
        accept = hashlib.sha1(found[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        await peer.send(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Protocol: gai.events.v1\r\nSec-WebSocket-Accept: " + base64.b64encode(accept) + b"\r\n\r\n"
        )
        said = await message(peer)
        is_first = said["type"] == "request"
        resumed.extend([] if is_first else [said])
        for event in EVENTS[:2] if is_first else EVENTS[2:]:
            await peer.send(frame(json.dumps({"stream": "s", **event}), masked=False))
        if is_first and (code := next(codes)) is not None:
            await peer.send(frame(code.to_bytes(2, "big"), CLOSE, masked=False))
            await peer.reader.read(1)  # of the client's own close

    upstream = await net.upstream(socket)
    for loop in await run_each(command(upstream.url, transport="ws", times=len(CODES), **PATIENT)):
        check_whole(loop)
    assert resumed == [{"stream": "s", "type": "resume", "after": f"{ID}.2"}] * len(CODES)


async def message(peer: Peer) -> Any:
    """Returns a client's message, in one frame of less than 64 KiB."""
    _, length = await peer.reader.readexactly(2)
    size = length & 0x7F
    if size == 126:
        size = int.from_bytes(await peer.reader.readexactly(2))
    mask = await peer.reader.readexactly(4)
    data = await peer.reader.readexactly(size)
    return json.loads(bytes(octet ^ mask[at % 4] for at, octet in enumerate(data)))
