"""Durable streams: a client resumes where it was, several follow one stream, and each end has its event."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from gai_fast.cli.mock.command import Fault
from gai_fast.model.errors import Error
from gai_fast.stores import StreamLog
from tests.integration.gateway import (
    DONE,
    FINISH,
    LAST_CHUNK,
    MESSAGES,
    NATIVE,
    RESUMABLE,
    SSE_HEAD,
    Client,
    Gateway,
    M,
    Net,
    Peer,
    Response,
    delta,
    on_both_loops,
    on_steady_loop,
    on_uvloop,
)
from tests.waiting import SECONDS, until
from tests.wire import chunk

STREAMS = "/api/v1/streams"
WORDS = [f"wörd {number} " for number in range(12)]
SOON = 0.02
"""Seconds for which a head waits for the first event: in these scenarios it often comes later."""
UNKNOWN = "AbCdEfGhIjKlMnOpQrStUv"


class Story:
    """An upstream that says one word for each `go_on`."""

    def __init__(self, head: bytes = SSE_HEAD) -> None:
        self.head = head
        self.steps = asyncio.Semaphore(0)
        self.requests = 0
        self.said = 0

    async def __call__(self, peer: Peer) -> None:
        await peer.request()
        self.requests += 1
        tasks = [asyncio.create_task(peer.until_gone()), asyncio.create_task(self._tell(peer))]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if tasks[1].done():
                await tasks[0]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _tell(self, peer: Peer) -> None:
        await peer.send(self.head)
        for word in WORDS:
            await self.steps.acquire()
            await peer.send(chunk(delta(word)))
            self.said += 1
        await self.steps.acquire()
        await peer.send(chunk(FINISH + DONE) + LAST_CHUNK)

    def go_on(self, words: int = 1) -> None:
        for _ in range(words):
            self.steps.release()

    def end(self) -> None:
        self.go_on(len(WORDS) + 1)


def id_of(response: Response) -> str:
    return response.headers["x-gai-stream-id"]


def log_of(gateway: Gateway, stream_id: str) -> StreamLog:
    log = gateway.running.engine.store.find_here(stream_id)
    assert log is not None
    return log


async def begun(
    net: Net, words: int = 0, body: dict[str, Any] = RESUMABLE, **options: Any
) -> tuple[Story, Gateway, Client, Response]:
    """Returns a stream whose client has been sent some words."""
    story = Story()
    gateway = await net.gateway(await net.upstream(story), commit_after=SOON, **options)
    client, response = await gateway.stream(body)
    if words:
        story.go_on(words)
        await response.until(f"{words - 1} ".encode())
    return story, gateway, client, response


async def state_of(gateway: Gateway, stream_id: str) -> dict[str, Any]:
    """Returns the state of a stream, as an object."""
    response = await gateway.ask("GET", f"{STREAMS}/{stream_id}", headers={"accept": "application/json"})
    assert (response.status, response.headers["content-type"]) == (200, "application/json")
    state: dict[str, Any] = response.json
    return state


async def follow(gateway: Gateway, stream_id: str, query: str = "", **headers: str) -> tuple[Client, Response]:
    """Follows a stream; the response's head has been read."""
    client = await gateway.connect()
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    client.request("GET", f"{STREAMS}/{stream_id}{query}", headers=names)
    return client, await client.response()


async def followed(gateway: Gateway, stream_id: str, query: str = "", **headers: str) -> Response:
    """Returns all that a follower of a stream that ends is sent."""
    client, response = await follow(gateway, stream_id, query, **headers)
    if response.status != 204:
        await response.rest()
    client.close()
    return response


def frames(body: bytes | bytearray) -> list[bytes]:
    end = b"\n" if body.startswith(b"{") else b"\n\n"
    return [frame + end for frame in bytes(body).split(end)[:-1]]


# ---- resume ----------------------------------------------------------------------------------------------------------


@on_both_loops
@pytest.mark.parametrize("framing", ["sse", "ndjson"])
async def test_a_client_that_was_cut_off_anywhere_gets_exactly_what_it_lacks(net: Net, framing: str) -> None:
    """Every cut of the stream, while it runs and after its end: none lost, none doubled."""
    story = Story()
    gateway = await net.gateway(await net.upstream(story), commit_after=SOON)
    first, response = await gateway.stream(RESUMABLE, f"{NATIVE}?framing={framing}")
    stream_id = id_of(response)
    story.go_on(6)
    await response.until(b"5 ")
    first.close()
    query = f"?framing={framing}"
    seen = log_of(gateway, stream_id).last_seq
    followers = [await follow(gateway, stream_id, f"{query}&after={stream_id}.{seq}") for seq in range(seen + 1)]
    story.end()
    whole = await followers[0][1].rest()
    expected = frames(whole.body)
    assert len(expected) == 1 + len(WORDS) + 2
    assert whole.text == "".join(WORDS)
    assert bytes(whole.body).startswith(response.body)
    for seq, (_, later) in enumerate(followers):
        assert (await later.rest()).ended
        assert frames(later.body) == expected[seq:]
    for seq in range(len(expected) - 1):
        again = await followed(gateway, stream_id, query, last_event_id=f"{stream_id}.{seq}")
        assert frames(again.body) == expected[seq:]
    last = await followed(gateway, stream_id, query, last_event_id=f"{stream_id}.{len(expected) - 1}")
    assert (last.status, last.body) == (204, b"")
    assert story.requests == 1


@on_both_loops
async def test_a_client_reconnects_after_every_event_while_the_stream_runs(net: Net) -> None:
    story, gateway, client, response = await begun(net)
    stream_id = id_of(response)
    body = b""
    while True:
        story.go_on()
        while not response.body.endswith(b"\n\n") and await response.more():
            pass
        body += bytes(response.body)
        if b"event: done" in body:
            break
        client.close()
        last = re.findall(rb"^id: (.+)$", body, re.M)[-1].decode()
        client, response = await follow(gateway, stream_id, last_event_id=last)
    assert body == bytes((await followed(gateway, stream_id)).body)
    assert story.requests == 1


@on_uvloop
async def test_the_header_wins_over_the_parameter(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=5))
    response = await gateway.ask("POST", NATIVE, RESUMABLE)
    stream_id = id_of(response)
    later = await followed(gateway, stream_id, f"?after={stream_id}.1", last_event_id=f"{stream_id}.4")
    assert [event.get("seq") for event in later.events] == [5, 6, 7, None]


@on_uvloop
async def test_an_id_that_names_no_event_of_the_stream_is_refused(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=5))
    response = await gateway.ask("POST", NATIVE, RESUMABLE)
    stream_id = id_of(response)
    for wrong in ("", "3", f"{stream_id}", f"{stream_id}.", f"{stream_id}.-1", f"{stream_id}.+1", f"{stream_id}.1_0",
                  f"{stream_id}.01", f"{stream_id}.9e99", f"{stream_id}.1;drop", "x" * 5000,
                  f"{stream_id}.{'9' * 40}", f"{UNKNOWN}.1", f"{stream_id[1:]}.1"):  # fmt: skip
        for query, headers in (("", {"last-event-id": wrong}), (f"?after={wrong.replace('+', '%2B')}", {})):
            refused = await gateway.ask("GET", f"{STREAMS}/{stream_id}{query}", headers=headers)
            assert (refused.status, refused.error["reason"]) == (400, "last_event_id"), wrong
            assert wrong not in refused.error["message"] or len(wrong) < 2


@on_uvloop
async def test_an_unknown_stream_is_not_found_whatever_its_id(net: Net) -> None:
    gateway = await net.gateway(await net.mock())
    for name in (UNKNOWN, "x", "", "a/b", "x" * 4000, "%00", "../stream"):
        for method in ("GET", "DELETE"):
            refused = await gateway.ask(method, f"{STREAMS}/{name}")
            assert (refused.status, refused.error["reason"]) == (404, "stream"), name
        assert (await gateway.ask("HEAD", f"{STREAMS}/{name}")).status == 404


@on_both_loops
async def test_a_client_that_is_ahead_of_the_log_waits_for_it(net: Net) -> None:
    story, gateway, _, response = await begun(net, 2, heartbeat=0.05)
    stream_id = id_of(response)
    _, ahead = await follow(gateway, stream_id, last_event_id=f"{stream_id}.5")
    _, far = await follow(gateway, stream_id, last_event_id=f"{stream_id}.900")
    await ahead.until(b": ping\n")
    assert b"data" not in ahead.body
    story.end()
    await ahead.rest()
    assert [event.get("seq") for event in ahead.events] == [*range(6, len(WORDS) + 3), None]
    await far.rest()
    assert far.types == ["error", "done"]
    assert (far.events[0]["error"]["code"], far.events[0]["error"]["reason"]) == ("network", "log_behind")
    assert far.events[0]["seq"] == 901
    assert b"\nid:" not in far.body
    assert far.events[-1] == {"type": "done", "finished": False}


# ---- several followers -----------------------------------------------------------------------------------------------


@on_both_loops
async def test_all_followers_of_a_stream_get_the_same_and_the_upstream_is_asked_once(net: Net) -> None:
    story, gateway, _, response = await begun(net)
    stream_id = id_of(response)
    early = [await follow(gateway, stream_id) for _ in range(5)]
    story.go_on(4)
    await response.until(b"3 ")
    late = [await follow(gateway, stream_id) for _ in range(5)]
    story.end()
    await response.rest()
    for _, each in early + late:
        assert bytes((await each.rest()).body) == bytes(response.body)
        assert each.ended
    assert story.requests == 1


FORMS = ["framing=sse", "framing=ndjson", "framing=sse&envelope=full", "framing=ndjson&envelope=compact",
         "format=openai", "format=openai&framing=ndjson", "format=simple", "format=simple&framing=ndjson"]  # fmt: skip


def steady(body: bytes | bytearray, stream_id: str) -> bytes:
    """Returns a body without what differs between two streams."""
    text = bytes(body).replace(stream_id.encode(), b"ID")
    text = re.sub(rb'"(ts|created)":\d+', rb'"\1":0', text)
    return re.sub(rb'"(request_id|id)":"[^"]+"', rb'"\1":"X"', text)


@on_uvloop
@pytest.mark.parametrize("made", FORMS)
async def test_a_stream_is_followed_in_any_form_whatever_it_was_made_in(net: Net, made: str) -> None:
    """A follower gets what the client would that asked for this form in the first place."""
    gateway = await net.gateway(await net.mock(deltas=7))
    response = await gateway.ask("POST", f"{NATIVE}?{made}", RESUMABLE)
    for form in FORMS:
        asked = await gateway.ask("POST", f"{NATIVE}?{form}", RESUMABLE)
        other = await followed(gateway, id_of(response), f"?{form}")
        assert other.headers["content-type"] == asked.headers["content-type"]
        assert steady(other.body, id_of(response)) == steady(asked.body, id_of(asked)), form
        at_once = await gateway.ask("POST", f"{NATIVE}?{form}", M)
        plain = re.sub(rb"^(id|retry): .*\n", b"", steady(other.body, id_of(response)), flags=re.M)
        assert plain == steady(at_once.body, id_of(at_once)), form


@on_uvloop
@pytest.mark.parametrize("form", FORMS)
async def test_another_form_can_be_resumed_anywhere(net: Net, form: str) -> None:
    gateway = await net.gateway(await net.mock(deltas=7))
    response = await gateway.ask("POST", NATIVE, RESUMABLE)
    stream_id = id_of(response)
    whole = await followed(gateway, stream_id, f"?{form}")
    ids = [int(seq) for seq in re.findall(rb"^id: .+\.(\d+)$", whole.body, re.M)]
    if "ndjson" in form and "format" not in form:
        ids = [event["seq"] for event in whole.events[:-1]]
    for seq in ids[:-1]:
        later = await followed(gateway, stream_id, f"?{form}", last_event_id=f"{stream_id}.{seq}")
        mark = b'"seq":%d,' % seq if "ndjson" in form else b"id: %b.%d\n" % (stream_id.encode(), seq)
        rest = bytes(whole.body).partition(mark)[2].partition(b"\n" if "ndjson" in form else b"\n\n")[2]
        assert steady(later.body, stream_id) == steady(rest, stream_id)


@on_uvloop
async def test_a_stream_of_another_dialect_is_followed_in_any_form(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=5), on_disconnect="detach")
    response = await gateway.chat()
    stream_id = id_of(response)
    assert bytes((await followed(gateway, stream_id)).body) == bytes(response.body)
    seq = log_of(gateway, stream_id).last_seq
    assert (await followed(gateway, stream_id, last_event_id=f"{stream_id}.{seq}")).status == 204
    native = await gateway.ask("POST", NATIVE, RESUMABLE)
    for query in ("?format=gai", "?format=simple", "?format=responses", "?format=anthropic"):
        found, twin = await followed(gateway, stream_id, query), await followed(gateway, id_of(native), query)
        assert steady(found.body, stream_id) == steady(twin.body, id_of(native)), query
    body = {"model": "m", "messages": MESSAGES, "stream": True}
    lines = await gateway.ask("POST", "/v1/chat/completions?framing=ndjson", body)
    stream_id = id_of(lines)
    assert bytes((await followed(gateway, stream_id, "?framing=ndjson")).body) == bytes(lines.body)
    rest = await gateway.ask("GET", f"{STREAMS}/{stream_id}?framing=ndjson&after={stream_id}.2")
    assert bytes(lines.body).endswith(bytes(rest.body))
    assert len(rest.body) < len(lines.body)


# ---- what the log no longer has --------------------------------------------------------------------------------------


@on_uvloop
async def test_what_is_no_longer_in_the_log_is_reported_with_the_text_so_far(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=4000), max_stream_bytes=256 * 1024)
    response = await gateway.ask("POST", NATIVE, RESUMABLE)
    stream_id = id_of(response)
    for query in ("", "?framing=ndjson", "?envelope=full"):
        later = await followed(gateway, stream_id, query, last_event_id=f"{stream_id}.10")
        gap, *rest = later.events
        assert {key: gap[key] for key in ("type", "from", "seq")} == {
            "type": "stream.gap",
            "from": 11,
            "seq": gap["to"],
        }
        assert [event.get("seq") for event in rest[:-1]] == [*range(gap["to"] + 1, 4003)]
        assert gap["text"] + later.text == response.text
        assert ("request_id" in gap) is (query != "")
        if not query:
            assert later.body.startswith(b"event: stream.gap\nid: %b.%d\n" % (stream_id.encode(), gap["to"]))
    seen = await followed(gateway, stream_id, last_event_id=f"{stream_id}.{gap['to']}")
    assert seen.types[0] == "text.delta"
    assert await followed(gateway, stream_id, f"?after={stream_id}.{gap['to']}&format=simple")
    other = await followed(gateway, stream_id, "?format=openai")
    assert (other.status, other.events[0]["error"]["code"]) == (200, "not_found")
    assert b"[DONE]" not in other.body
    assert other.ended


# ---- ends ------------------------------------------------------------------------------------------------------------


@on_uvloop
async def test_the_state_of_a_stream(net: Net) -> None:
    story, gateway, _, response = await begun(net, 3)
    stream_id = id_of(response)
    state = await state_of(gateway, stream_id)
    empty = {"finish_reason": None, "usage": None, "error": None}
    assert state == {
        "id": stream_id,
        "state": "running",
        "model": "m",
        "last_event_id": f"{stream_id}.4",
        **empty,
    }
    story.end()
    await response.rest()
    finish = response.events[-2]
    state = await state_of(gateway, stream_id)
    assert state == {
        "id": stream_id,
        "state": "finished",
        "model": "m",
        "last_event_id": f"{stream_id}.{finish['seq']}",
        "finish_reason": "stop",
        "usage": finish["usage"],
        "error": None,
    }
    ended = await gateway.ask("DELETE", f"{STREAMS}/{stream_id}")
    assert (ended.status, ended.json) == (200, state)
    for accept in ("text/event-stream, application/json", "*/*", "application/json;q=0.5, text/event-stream"):
        stream = await gateway.ask("GET", f"{STREAMS}/{stream_id}", headers={"accept": accept})
        assert stream.headers["content-type"].startswith("text/event-stream")


@on_uvloop
async def test_head_tells_the_head_of_the_answer(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=3))
    response = await gateway.ask("POST", NATIVE, RESUMABLE)
    stream_id = id_of(response)
    head = await gateway.ask("HEAD", f"{STREAMS}/{stream_id}")
    assert (head.status, bytes(head.body)) == (200, b"")
    assert head.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert head.headers["x-gai-stream-id"] == stream_id
    assert "content-length" not in head.headers
    last = response.events[-2]["seq"]
    head = await gateway.ask("HEAD", f"{STREAMS}/{stream_id}", headers={"last-event-id": f"{stream_id}.{last}"})
    assert head.status == 204
    head = await gateway.ask("HEAD", f"{STREAMS}/{stream_id}", headers={"accept": "application/json"})
    assert head.headers["content-type"] == "application/json"
    state = await gateway.ask("GET", f"{STREAMS}/{stream_id}", headers={"accept": "application/json"})
    assert head.headers["content-length"] == str(len(state.body))


@on_both_loops
async def test_delete_ends_the_stream_for_every_follower_and_for_its_upstream(net: Net) -> None:
    story = Story()
    upstream = await net.upstream(story)
    gateway = await net.gateway(upstream, commit_after=SOON)
    _, response = await gateway.stream(RESUMABLE)
    stream_id = id_of(response)
    _, other = await follow(gateway, stream_id, "?format=openai")
    story.go_on(2)
    await response.until(b"1 ")
    cancelled = await gateway.ask("DELETE", f"{STREAMS}/{stream_id}")
    assert (cancelled.status, cancelled.json) == (202, {"id": stream_id, "state": "cancelled"})
    await upstream.until_finished()
    await response.rest()
    assert response.types[-2:] == ["finish", "done"]
    assert response.events[-2]["finish_reason"] == "cancelled"
    assert response.events[-2]["usage"]["source"] == "partial"
    await other.rest()
    assert other.data[-1] == "[DONE]"
    again = await gateway.ask("DELETE", f"{STREAMS}/{stream_id}")
    assert (again.status, again.json["state"]) == (200, "cancelled")
    assert (await gateway.ask("GET", f"{STREAMS}/{stream_id}")).body == response.body


@on_uvloop
async def test_a_plain_stream_can_be_cancelled_while_it_runs_and_is_forgotten_then(net: Net) -> None:
    _, gateway, _, response = await begun(net, body=M)
    stream_id = id_of(response)
    refused = await gateway.ask("GET", f"{STREAMS}/{stream_id}")
    assert (refused.status, refused.error["code"], refused.error["reason"]) == (400, "unsupported", "resumable")
    state = await state_of(gateway, stream_id)
    assert (state["state"], state["last_event_id"]) == ("running", None)
    assert (await gateway.ask("DELETE", f"{STREAMS}/{stream_id}")).status == 202
    await response.rest()
    assert response.types[-2:] == ["finish", "done"]
    for method in ("GET", "DELETE"):
        assert (await gateway.ask(method, f"{STREAMS}/{stream_id}")).status == 404


@on_uvloop
async def test_an_early_failure_has_its_status_for_who_started_it_and_is_an_event_for_others(net: Net) -> None:
    gateway = await net.gateway(await net.mock(fault=Fault.parse("429")))
    response = await gateway.ask("POST", NATIVE, RESUMABLE)
    assert (response.status, response.error["code"]) == (429, "rate_limited")
    later = await followed(gateway, id_of(response))
    assert (later.status, later.types) == (200, ["error", "done"])
    assert later.events[0]["error"]["code"] == "rate_limited"
    assert later.events[0]["schema"] == "gai.events.v1"
    state = await state_of(gateway, id_of(response))
    assert (state["state"], state["error"]["code"]) == ("failed", "rate_limited")


@on_uvloop
async def test_a_follower_whose_head_went_out_before_an_early_failure_gets_it_as_an_event(net: Net) -> None:
    release = asyncio.Event()

    async def handler(peer: Peer) -> None:
        await peer.request()
        await release.wait()
        await peer.answer("503 Service Unavailable", b"{}", "Content-Type: application/json")

    gateway = await net.gateway(await net.upstream(handler), commit_after=0.05)
    _, response = await gateway.stream(RESUMABLE)
    release.set()
    await response.rest()
    assert (response.status, response.types) == (200, ["error", "done"])


@on_uvloop
async def test_a_log_whose_writer_is_gone_ends_its_followers_with_an_error(net: Net) -> None:
    _, gateway, _, response = await begun(net, 2)
    stream_id = id_of(response)
    _, openai = await follow(gateway, stream_id, "?format=openai")
    _, ahead = await follow(gateway, stream_id, last_event_id=f"{stream_id}.7")
    log_of(gateway, stream_id).break_off(Error("network", "its worker is gone", reason="worker_lost"))
    await response.rest()
    assert response.types == ["start", "text.delta", "text.delta", "error", "done"]
    lost = response.events[-2]
    assert (lost["seq"], lost["error"]["code"], lost["error"]["reason"]) == (4, "network", "worker_lost")
    assert lost["error"]["temporary"] is True
    assert response.events[-1] == {"type": "done", "finished": False}
    assert b"\nid:" not in bytes(response.body).partition(b"event: error")[2]
    await openai.rest()
    assert openai.events[-1]["error"]["code"] == "network"
    assert (await ahead.rest()).events[0]["error"]["reason"] == "log_behind"
    later = await followed(gateway, stream_id, last_event_id=f"{stream_id}.3")
    assert later.types == ["error", "done"]
    state = await state_of(gateway, stream_id)
    assert (state["state"], state["error"]["reason"]) == ("failed", "worker_lost")
    await gateway.ask("DELETE", f"{STREAMS}/{stream_id}")


# ---- without a client ------------------------------------------------------------------------------------------------


@on_both_loops
async def test_a_stream_is_started_and_followed_later(net: Net) -> None:
    story = Story()
    gateway = await net.gateway(await net.upstream(story), commit_after=SOON)
    started = await gateway.ask("POST", STREAMS, M)
    assert started.status == 202
    stream_id = started.json["id"]
    assert started.json == {"id": stream_id, "url": f"{STREAMS}/{stream_id}"}
    story.end()
    await until(lambda: log_of(gateway, stream_id).ending)
    response = await gateway.ask("GET", started.json["url"])
    assert response.text == "".join(WORDS)
    refused = await gateway.ask("POST", STREAMS, {**M, "stream": False})
    assert (refused.status, refused.error["reason"]) == (400, "resumable")


@on_both_loops
async def test_a_durable_stream_goes_on_without_its_client_and_a_plain_one_does_not(net: Net) -> None:
    story = Story()
    upstream = await net.upstream(story)
    gateway = await net.gateway(upstream, commit_after=SOON)
    durable, response = await gateway.stream(RESUMABLE)
    plain, _ = await gateway.stream(M)
    durable.close()
    plain.close()
    await upstream.until_finished(1)
    assert gateway.streams == 1
    story.end()
    await until(lambda: not gateway.streams)
    assert (await followed(gateway, id_of(response))).text == "".join(WORDS)


@on_both_loops
@pytest.mark.parametrize("way", ["auto", "detach"])
async def test_a_detached_stream_is_cancelled_when_its_time_is_over(net: Net, way: str) -> None:
    story = Story()
    upstream = await net.upstream(story)
    gateway = await net.gateway(upstream, commit_after=SOON, on_disconnect=way, detach_ttl=0.2)
    client, response = await gateway.stream(RESUMABLE)
    story.go_on(2)
    await response.until(b"1 ")
    client.close()
    await upstream.until_finished()
    later = await followed(gateway, id_of(response))
    assert later.types[-2:] == ["finish", "done"]
    assert later.events[-2]["finish_reason"] == "cancelled"
    assert log_of(gateway, id_of(response)).ending is not None


@on_steady_loop
async def test_a_detached_stream_that_is_followed_again_goes_on(net: Net) -> None:
    story, gateway, client, response = await begun(net, 2, detach_ttl=0.3)
    client.close()
    await until(lambda: not gateway.is_connected)
    _, later = await follow(gateway, id_of(response))
    await asyncio.sleep(0.6)
    story.end()
    assert (await later.rest()).events[-2]["finish_reason"] == "stop"


@on_both_loops
async def test_cancel_ends_a_durable_stream_with_its_last_client_only(net: Net) -> None:
    story = Story()
    upstream = await net.upstream(story)
    gateway = await net.gateway(upstream, commit_after=SOON, on_disconnect="cancel")
    first, response = await gateway.stream(RESUMABLE)
    second, other = await follow(gateway, id_of(response))
    story.go_on(2)
    await response.until(b"1 ")
    await other.until(b"1 ")
    first.close()
    story.go_on()
    await other.until(b"2 ")
    second.close()
    await upstream.until_finished()
    ending = log_of(gateway, id_of(response)).ending
    assert ending is not None
    assert ending.state == "cancelled"


@on_uvloop
async def test_drain_finishes_what_its_client_has_left_for_as_many_streams_as_configured(
    net: Net,
) -> None:
    story = Story(SSE_HEAD.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))  # it takes one request a connection
    upstream = await net.upstream(story)
    gateway = await net.gateway(upstream, commit_after=SOON, on_disconnect="drain", detach_ttl=0.05, drains=1)
    first, kept = await gateway.stream({"model": "m", "messages": MESSAGES, "stream": True}, "/v1/chat/completions")
    first.close()
    await until(lambda: not gateway.is_connected)
    second, ended = await gateway.stream(M)
    second.close()
    await upstream.until_finished(1)
    await until(lambda: gateway.streams == 1)
    assert (await followed(gateway, id_of(ended))).events[-2]["finish_reason"] == "cancelled"
    story.end()
    await until(lambda: not gateway.streams)
    deltas = [choice["delta"] for each in (await followed(gateway, id_of(kept))).events for choice in each["choices"]]
    assert "".join(delta.get("content", "") for delta in deltas) == "".join(WORDS)
    third, response = await gateway.stream(M)
    third.close()
    await until(lambda: not gateway.is_connected)
    story.end()
    await until(lambda: not gateway.streams)
    assert (await followed(gateway, id_of(response))).text == "".join(WORDS)


# ---- EventSource -----------------------------------------------------------------------------------------------------


@on_both_loops
async def test_an_event_source_comes_back_for_the_rest_and_never_starts_a_second_answer(net: Net) -> None:
    story = Story()
    gateway = await net.gateway(await net.upstream(story), commit_after=SOON, allow_get_start=True)
    client = await gateway.connect()
    path = f"{NATIVE}?q=hi&model=m"
    client.request("GET", path)
    response = await client.response()
    story.go_on(3)
    await response.until(b"2 ")
    client.close()
    last = re.findall(rb"^id: (.+)$", response.body, re.M)[-1].decode()
    again = await gateway.connect()
    again.request("GET", path, headers={"last-event-id": last})
    rest = await again.response()
    story.end()
    await rest.rest()
    assert response.text + rest.text == "".join(WORDS)
    last = re.findall(rb"^id: (.+)$", rest.body, re.M)[-1].decode()
    assert (await gateway.ask("GET", path, headers={"last-event-id": last})).status == 204
    unknown = await gateway.ask("GET", path, headers={"last-event-id": f"{UNKNOWN}.3"})
    assert (unknown.status, unknown.error["reason"]) == (404, "stream")
    assert story.requests == 1


# ---- slow clients ----------------------------------------------------------------------------------------------------


def flood(count: int, text: str) -> Any:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(SSE_HEAD)
        for number in range(count):
            await peer.send(chunk(delta(f"{number} {text}")))
        await peer.send(chunk(FINISH + DONE) + LAST_CHUNK)
        await peer.until_gone()

    return handler


def assert_complete(response: Response, last: int) -> None:
    """No event is missing; neighbours may be joined."""
    position = 0
    for event in response.events[:-1]:
        assert event.get("from_seq", event["seq"]) == position + 1
        position = event["seq"]
    assert position == last
    assert "stream.gap" not in response.types


@on_both_loops
async def test_a_follower_that_never_reads_holds_nobody_up_and_is_cut_off(net: Net) -> None:
    """It holds no more than its buffer; the stream goes on for the others, and the cut client can come back."""
    size = 20_000
    gateway = await net.gateway(
        await net.upstream(flood(300, "x" * size)),
        client_buffer=65536,
        write_timeout=3.0,  # the system holds the other follower to it as well, also while the process stands still
        max_stream_bytes=16 << 20,
    )
    started = await gateway.ask("POST", STREAMS, M)
    stream_id = started.json["id"]
    slow = await gateway.connect(receive_buffer=4096)
    slow.pause()
    slow.request("GET", f"{STREAMS}/{stream_id}")
    response = await followed(gateway, stream_id)
    assert len(response.text) > 300 * size
    assert gateway.unsent < 65536 + 2 * 65536 + 2 * size
    await until(lambda: not gateway.unsent)
    assert bytes((await followed(gateway, stream_id)).body) == bytes(response.body)


@on_both_loops
async def test_a_slow_follower_gets_the_rest_from_the_log(net: Net) -> None:
    size = 20_000
    gateway = await net.gateway(
        await net.upstream(flood(200, "x" * size)), client_buffer=65536, max_stream_bytes=16 << 20
    )
    client = await gateway.connect(receive_buffer=4096)
    client.pause()
    client.request("POST", NATIVE, RESUMABLE)
    await until(lambda: len(gateway.running.engine.store.memory) and not gateway.streams)
    assert gateway.unsent < 65536 + 2 * 65536 + 2 * size
    client.resume()
    response = await (await client.response()).rest()
    assert response.ended
    assert_complete(response, 202)
    assert len(response.events) < 203, "neighbours are joined"
    assert len(response.text) > 200 * size


@on_uvloop
async def test_the_upstream_waits_while_all_followers_are_slow_and_would_lose_something(net: Net) -> None:
    upstream = await net.upstream(flood(400, "x" * 20_000))
    gateway = await net.gateway(upstream, client_buffer=65536, max_stream_bytes=1 << 20)
    client = await gateway.connect(receive_buffer=4096)
    client.pause()
    client.request("POST", NATIVE, RESUMABLE)
    await until(lambda: upstream.peers and upstream.peers[0].sent > 500_000)
    await asyncio.sleep(0.3)
    assert gateway.streams == 1
    client.resume()
    response = await (await client.response()).rest()
    assert_complete(response, 402)


@on_uvloop
async def test_a_follower_that_keeps_up_is_not_held_up_by_one_that_does_not(net: Net) -> None:
    upstream = await net.upstream(flood(400, "x" * 20_000))
    gateway = await net.gateway(upstream, client_buffer=65536, max_stream_bytes=1 << 20)
    slow = await gateway.connect(receive_buffer=4096)
    slow.pause()
    slow.request("POST", NATIVE, RESUMABLE)
    await until(lambda: len(gateway.running.engine.store.memory))
    (stream_id,) = gateway.running.engine.streams
    response = await followed(gateway, stream_id)
    assert [event.get("seq") for event in response.events[:-1]] == [*range(1, 403)]
    slow.resume()
    late = await (await slow.response()).rest()
    position = 0
    for event in late.events[:-1]:
        assert event.get("from", event.get("from_seq", event["seq"])) == position + 1  # a gap has an event
        position = event["seq"]
    assert "stream.gap" in late.types
    assert late.events[-2]["type"] == "finish"


# ---- faults of ours --------------------------------------------------------------------------------------------------


def raising(*_: Any, **__: Any) -> Any:
    raise RuntimeError("a bug")


async def outcome(client: Client) -> int | None:
    """Returns the status of a response that has ended, properly or not; `None` if the client was cut off before it."""
    try:
        response = await client.response()
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    async with asyncio.timeout(SECONDS):
        await response.rest()
    return response.status


@on_both_loops
@pytest.mark.interpreted
@pytest.mark.parametrize(
    "where",
    [
        "gai_fast.net.logs.view.LogFrames.feed",
        "gai_fast.net.logs.view.LogFrames.take_pieces",
        "gai_fast.stores.memory.StreamLog.read",
        "gai_fast.stores.memory.StreamLog.append",
        "gai_fast.stores.memory.StreamLog.watch",
        "gai_fast.net.logs.publication.Publication.write",
        "gai_fast.net.logs.publication.Publication.add",
        "gai_fast.net.logs.publication.Publication.end",
        "gai_fast.net.logs.publication.Publication.begin",
        "gai_fast.net.logs.publication.ending_of",
        "gai_fast.server.requests.stream_response.StreamResponse.commit",
        "gai_fast.server.requests.stream_response.StreamResponse.write",
        "gai_fast.server.requests.stream_response.StreamResponse.end",
    ],
)
async def test_a_bug_leaves_no_client_waiting(net: Net, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """Each client is answered or cut off, and the stream is forgotten."""
    gateway = await net.gateway(await net.mock(deltas=50, rate=1000.0), detach_ttl=0.1)
    monkeypatch.setattr(where, raising)
    first = await gateway.connect()
    first.request("POST", NATIVE, RESUMABLE)
    second = await gateway.connect()
    await until(lambda: len(gateway.running.engine.store.memory))
    stream_id, log = next(iter(gateway.running.engine.store.memory._logs.items()))
    await until(lambda: log.last_seq or log.is_over or not gateway.streams)
    second.request("GET", f"{STREAMS}/{stream_id}")
    outcomes = [await outcome(first), await outcome(second)]
    assert set(outcomes) <= {200, 500, None}
    await until(lambda: not gateway.streams)
    assert net.logged
    net.logged.clear()


@on_both_loops
@pytest.mark.interpreted
async def test_a_store_that_fails_while_it_looks_for_a_log_is_one_500(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = await net.gateway(await net.mock())

    async def find(_: Any, stream_id: str, **options: Any) -> None:
        await asyncio.sleep(0)
        raise RuntimeError("a bug")

    monkeypatch.setattr("gai_fast.stores.store.Store.find", find)
    for method in ("GET", "HEAD", "DELETE"):
        assert (await gateway.ask(method, f"{STREAMS}/{UNKNOWN}")).status == 500
    assert net.warned("could not be handled") == 3


@on_both_loops
@pytest.mark.interpreted
async def test_a_client_that_leaves_while_its_log_is_looked_for_ends_the_search(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = await net.gateway(await net.mock())
    begun, ended = asyncio.Event(), asyncio.Event()

    async def find(_: Any, stream_id: str, **options: Any) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    monkeypatch.setattr("gai_fast.stores.store.Store.find", find)
    client = await gateway.connect()
    client.request("GET", f"{STREAMS}/{UNKNOWN}")
    await begun.wait()
    client.close()
    await ended.wait()


@on_uvloop
@pytest.mark.interpreted
async def test_a_log_that_is_found_late_is_followed(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = await net.gateway(await net.mock(deltas=5))
    response = await gateway.ask("POST", NATIVE, RESUMABLE)
    log = log_of(gateway, id_of(response))

    async def find(_: Any, stream_id: str, **options: Any) -> StreamLog:
        await asyncio.sleep(0.02)
        return log

    monkeypatch.setattr("gai_fast.stores.store.Store.find", find)
    monkeypatch.setattr("gai_fast.stores.store.Store.find_here", lambda *_: None)
    for query in ("", "?framing=ndjson", "?format=openai"):
        assert (await followed(gateway, log.header.stream_id, query)).status == 200
    state = await state_of(gateway, log.header.stream_id)
    assert state["state"] == "finished"
    later = await followed(gateway, log.header.stream_id, last_event_id=f"{log.header.stream_id}.3")
    assert later.events == response.events[3:]
