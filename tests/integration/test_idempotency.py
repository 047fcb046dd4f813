"""Idempotency keys: a request that is sent again is answered by the stream of the first one."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from typing import Any

import pytest
from aiohttp import web

from gai_fast.cli.mock.command import Fault
from gai_fast.formats import get_format
from gai_fast.model.errors import Error
from gai_fast.model.settings import IdempotencySettings, KeySettings, key_digest
from gai_fast.server.application import build_application
from gai_fast.server.serving import start
from tests.integration.gateway import (
    CHAT,
    FINISH,
    LAST_CHUNK,
    MESSAGES,
    NATIVE,
    QUERY,
    SSE_HEAD,
    Client,
    Gateway,
    Net,
    Peer,
    Response,
    delta,
    joined,
    on_both_loops,
    on_uvloop,
    settings_for,
)
from tests.integration.test_durable import STREAMS, WORDS, Story, followed, frames, id_of, log_of, state_of
from tests.unit.stores.fake_backend import FakeBackend, World
from tests.waiting import until
from tests.wire import chunk

ASKED: dict[str, dict[str, Any]] = {
    NATIVE: {**QUERY, "model": "m"},
    CHAT: {"model": "m", "messages": MESSAGES, "stream": True},
}
KEY = {"idempotency-key": "8e03978e-40d5-43dd-bc93-6894a57f9324"}
REPLAYED = "idempotent-replayed"
TEXT = "".join(WORDS)
ROUTES = pytest.mark.parametrize("path", [NATIVE, CHAT])
FORMS = pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
WAYS_OF_SERVING = pytest.mark.parametrize("fast_lane", ["auto", "off"])
WAYS = pytest.mark.parametrize("way", ["lane", "off", "mounted"])


def asked(path: str = NATIVE, *, stream: bool = True) -> dict[str, Any]:
    return {**ASKED[path], "stream": stream}


class Tale(Story):
    """A story for one connection that ends with it, so that the next request has one of its own."""

    async def __call__(self, peer: Peer) -> None:
        await peer.request()
        self.requests += 1
        tasks = [asyncio.create_task(peer.until_gone()), asyncio.create_task(self._tell(peer))]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


class Site:
    """A gateway, or an application with one in it."""

    def __init__(self, net: Net, host: str, prefix: str = "") -> None:
        self.net = net
        self.host = host
        self.prefix = prefix

    async def begin(self, path: str, body: Any, headers: dict[str, str] | None = None) -> Client:
        """Sends a request on a connection of its own."""
        client = await self.net.connect(self.host)
        client.request("POST", f"{self.prefix}{path}", body, KEY if headers is None else headers)
        return client

    async def send(self, path: str, body: Any, headers: dict[str, str] | None = None) -> Response:
        """Returns the whole answer to a request."""
        client = await self.begin(path, body, headers)
        response = await client.response()
        await response.rest()
        client.close()
        return response


async def site(net: Net, way: str, url: str, **options: Any) -> Site:
    """Returns a gateway that answers one of the three ways."""
    if way != "mounted":
        gateway = await net.gateway(url, **{**options, "fast_lane": "auto" if way == "lane" else "off"})
        return Site(net, gateway.host)
    outer = web.Application()
    outer.add_subapp("/gw", build_application(settings_for(url, **options)))
    runner = web.AppRunner(outer, shutdown_timeout=0.05, access_log=None)
    await runner.setup()
    net.stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]
    return Site(net, f"{host}:{port}", "/gw")


async def at(net: Net, upstream: Any, **options: Any) -> tuple[Gateway, Site]:
    """Returns a gateway, however its scenarios run."""
    gateway = await net.gateway(upstream, **options)
    return gateway, Site(net, gateway.host)


def text_of(response: Response) -> str:
    """Returns the text of an answer in any form."""
    assert response.status == 200, bytes(response.body)
    assert response.ended
    if response.headers["content-type"] == "application/json":
        answer = response.json
        return str(answer["text"] if "text" in answer else answer["choices"][0]["message"]["content"])
    return response.text if "schema" in response.events[0] else joined(response.events)


def error_of(response: Response) -> dict[str, Any]:
    assert "error" in response.json, bytes(response.body)
    return response.error


# ---- the same request again ------------------------------------------------------------------------------------------


@on_both_loops
@WAYS
@ROUTES
@FORMS
async def test_a_request_that_is_sent_again_is_answered_as_the_first_one_was(
    net: Net, way: str, path: str, stream: bool
) -> None:
    story = Tale()
    where = await site(net, way, (await net.upstream(story)).url)
    story.end()
    first = await where.send(path, asked(path, stream=stream))
    again = await where.send(path, asked(path, stream=stream))
    assert again.body == first.body
    assert text_of(first) == TEXT
    assert (first.headers.get(REPLAYED), again.headers[REPLAYED]) == (None, "true")
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    own = {REPLAYED, "x-request-id", "request-id", "date", "x-gai-usage-source"}  # the first one alone has figures
    assert rest_of(first.headers, own) == rest_of(again.headers, own)
    assert id_of(again) == id_of(first)
    assert story.requests == 1


def rest_of(headers: dict[str, str], without: set[str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name not in without}


@on_both_loops
@WAYS
@ROUTES
@FORMS
async def test_a_request_that_is_sent_again_while_it_is_answered_joins(
    net: Net, way: str, path: str, stream: bool
) -> None:
    story = Tale()
    where = await site(net, way, (await net.upstream(story)).url)
    clients = [await where.begin(path, asked(path, stream=stream))]
    story.go_on(4)
    await until(lambda: story.said == 4)
    clients += [await where.begin(path, asked(path, stream=stream)) for _ in range(3)]
    story.end()
    responses = [await client.response() for client in clients]
    for response in responses:
        await response.rest()
        assert text_of(response) == TEXT
        assert response.body == responses[0].body
    assert [REPLAYED in response.headers for response in responses] == [False, True, True, True]
    assert len({*map(id_of, responses)}) == 1
    assert story.requests == 1


@on_uvloop
@FORMS
async def test_a_client_that_was_lost_gets_the_answer_when_it_asks_again(net: Net, stream: bool) -> None:
    story = Tale()
    _, where = await at(net, await net.upstream(story))
    client = await where.begin(NATIVE, asked(stream=stream))
    story.go_on(4)
    await until(lambda: story.said == 4)
    client.reset()
    story.end()
    assert text_of(await where.send(NATIVE, asked(stream=stream))) == TEXT
    assert story.requests == 1


@on_uvloop
async def test_a_stream_is_joined_in_any_form_of_the_native_routes(net: Net) -> None:
    story = Tale()
    _, where = await at(net, await net.upstream(story))
    story.end()
    first = await where.send(NATIVE, asked())
    for query, is_ndjson in (("format=openai", False), ("framing=ndjson", True), ("format=simple", False)):
        again = await where.send(f"{NATIVE}?{query}", asked())
        assert again.headers[REPLAYED] == "true"
        assert ("ndjson" in again.headers["content-type"]) == is_ndjson
        assert ("".join(event["content"] for event in again.events) if "simple" in query else text_of(again)) == TEXT
    assert text_of(first) == TEXT
    story.end()
    other = await where.send(f"{CHAT}?framing=sse", asked(CHAT))
    assert text_of(other) == TEXT
    lines = await where.send(f"{CHAT}?framing=ndjson", asked(CHAT))
    assert "ndjson" in lines.headers["content-type"]
    assert text_of(lines) == TEXT
    assert story.requests == 2


@on_uvloop
@WAYS
async def test_a_stream_is_started_once_and_followed_later(net: Net, way: str) -> None:
    story = Tale()
    where = await site(net, way, (await net.upstream(story)).url)
    started = [await where.send(STREAMS, asked()) for _ in range(3)]
    assert [response.status for response in started] == [202] * 3
    assert [response.headers.get(REPLAYED) for response in started] == [None, "true", "true"]
    assert started[0].json == started[1].json == started[2].json
    assert started[0].json["url"].startswith(f"{where.prefix}{STREAMS}/")
    await until(lambda: story.requests == 1)
    client = await net.connect(where.host)
    client.request("GET", started[2].json["url"])
    story.end()
    assert text_of(await (await client.response()).rest()) == TEXT
    assert story.requests == 1


@on_uvloop
@ROUTES
async def test_one_body_is_one_request_however_it_is_written(net: Net, path: str) -> None:
    mock = await net.mock(deltas=3)
    _, where = await at(net, mock)
    body = asked(path)
    await where.send(path, body)
    again = json.dumps(dict(reversed(body.items())), indent=2).encode()
    assert (await where.send(path, again)).headers[REPLAYED] == "true"
    if path == NATIVE:
        for more in (
            {"request_id": "r1"},
            {"request_id": "r2", "idempotency_key": "a header wins over it"},
        ):
            assert (await where.send(path, {**body, **more})).headers[REPLAYED] == "true"
    assert len(mock.requests) == 1


# ---- whose a key is --------------------------------------------------------------------------------------------------


@on_uvloop
@WAYS
@ROUTES
async def test_another_request_with_the_key_is_refused_in_the_shape_of_its_route(net: Net, way: str, path: str) -> None:
    mock = await net.mock(deltas=3)
    where = await site(net, way, mock.url)
    await where.send(path, asked(path))
    for more in ({"temperature": 0.5}, {"stream": False}, {"model": "claude"}):
        refused = await where.send(path, {**asked(path), **more})
        assert refused.status == 422
        assert error_of(refused)["code"] == "invalid_request"
        assert ("type" in error_of(refused)) == (path == CHAT)
        assert refused.headers["x-should-retry"] == "false"
        assert REPLAYED not in refused.headers
        if path == NATIVE:
            assert error_of(refused)["reason"] == "idempotency_mismatch"
    assert len(mock.requests) == 1


@on_uvloop
async def test_a_key_belongs_to_its_caller_and_its_route(net: Net) -> None:
    mock = await net.mock(deltas=3)
    names = ("alice", "bob")
    keys = tuple(KeySettings(name, (key_digest(f"sk-{name}-0123456789"),)) for name in names)
    _, where = await at(net, mock, keys=keys)
    found = set()
    for name in names:
        headers = {**KEY, "authorization": f"Bearer sk-{name}-0123456789"}
        for path in (NATIVE, STREAMS, CHAT):
            body = asked(CHAT if path == CHAT else NATIVE)
            first, again = await where.send(path, body, headers), await where.send(path, body, headers)
            assert (REPLAYED in first.headers, REPLAYED in again.headers) == (False, True)
            found.add(first.json["id"] if path == STREAMS else id_of(first))
    assert len(found) == 6
    await until(lambda: len(mock.requests) == 6)


GOOD = [
    "k", "a.b_c~d!e#f$g%h&i'j*k+l-m^n`o|p", "urn:uuid:1/2", '"k l"', r'"say \"hi\" and \\"', "x" * 255,
    f'"{"y" * 255}"',
]  # fmt: skip
BAD = [
    "", '""', " ", '"', "a b", "a, b", '"a", "b"', '"a" x', '"a\\b"', "x" * 256, f'"{"x" * 256}"', "k;a=1", "@", "=",
]  # fmt: skip


@on_uvloop
@pytest.mark.parametrize("name", ["Idempotency-Key", "X-Idempotency-Key"])
async def test_a_key_is_a_token_or_a_string_in_quotes(net: Net, name: str) -> None:
    mock = await net.mock(deltas=1)
    _, where = await at(net, mock)
    for key in GOOD:
        first = await where.send(NATIVE, asked(), {name: key})
        again = await where.send(NATIVE, asked(), {name: key})
        assert (first.status, again.status, again.headers.get(REPLAYED)) == (200, 200, "true"), key
    assert len(mock.requests) == len(GOOD)
    for path in (NATIVE, CHAT):
        for key in BAD:
            refused = await where.send(path, asked(path), {name: key})
            assert (refused.status, error_of(refused)["code"]) == (400, "invalid_request"), key
    assert len(mock.requests) == len(GOOD)


@on_uvloop
async def test_one_key_has_many_ways_to_come(net: Net) -> None:
    mock = await net.mock(deltas=1)
    _, where = await at(net, mock)
    same = ({"x-idempotency-key": "k"}, {"idempotency-key": '"k"'}, {"idempotency-key": "k", "x-idempotency-key": "k"})
    await where.send(NATIVE, asked(), {"idempotency-key": "k"})
    for headers in same:
        assert (await where.send(NATIVE, asked(), headers)).headers[REPLAYED] == "true"
    assert (await where.send(NATIVE, {**asked(), "idempotency_key": "k"}, {})).headers[REPLAYED] == "true"
    for key in ("", "x" * 256, "ä", "a\nb"):
        refused = await where.send(NATIVE, {**asked(), "idempotency_key": key}, {})
        assert (refused.status, error_of(refused)["reason"]) == (400, "idempotency_key")
    twice = b"idempotency-key: k\r\nidempotency-key: k\r\n"
    client = await net.connect(where.host)
    data = json.dumps(asked()).encode()
    head = f"POST {NATIVE} HTTP/1.1\r\nhost: {where.host}\r\ncontent-type: application/json\r\n"
    client.send(head.encode() + twice + b"content-length: %d\r\n\r\n" % len(data) + data)
    for answer in (await client.response(), await where.send(NATIVE, asked(), {**KEY, "x-idempotency-key": "k"})):
        await answer.rest()
        assert (answer.status, error_of(answer)["reason"]) == (400, "idempotency_key")
    assert len(mock.requests) == 1


# ---- failures --------------------------------------------------------------------------------------------------------


@on_both_loops
@WAYS
@ROUTES
@FORMS
async def test_a_failure_before_the_content_frees_the_key(net: Net, way: str, path: str, stream: bool) -> None:
    mock = await net.mock(deltas=3, fault=Fault("500"))
    where = await site(net, way, mock.url)
    failed = await where.send(path, asked(path, stream=stream))
    assert failed.status == 500
    mock.fault = Fault("cut", after=0)
    failed = await where.send(path, asked(path, stream=stream))
    assert failed.status == 502, bytes(failed.body)
    mock.fault = None
    answered = await where.send(path, asked(path, stream=stream))
    assert (answered.status, answered.headers.get(REPLAYED)) == (200, None)
    assert len(mock.requests) == 3


@on_uvloop
@ROUTES
@FORMS
async def test_all_who_asked_get_the_status_of_an_early_failure(net: Net, path: str, stream: bool) -> None:
    go = asyncio.Event()

    async def refuse(peer: Peer) -> None:
        await peer.request()
        await go.wait()
        await peer.answer("429 Too Many Requests", b'{"error":{"message":"slow down"}}', "Retry-After: 7")

    upstream = await net.upstream(refuse)
    gateway, where = await at(net, upstream)
    clients = [await where.begin(path, asked(path, stream=stream)) for _ in range(3)]
    await until(lambda: gateway.streams == 1 and len(upstream.peers) == 1)
    await until(lambda: sum(log.watchers for log in logs(gateway)) >= 4)  # three clients, and the key's end
    go.set()
    for client in clients:
        response = await client.response()
        assert (response.status, response.headers["retry-after"]) == (429, "7")
    assert len(upstream.peers) == 1


def logs(gateway: Gateway) -> Any:
    return gateway.running.engine.store.memory._logs.values()


@on_uvloop
@ROUTES
@FORMS
async def test_a_failure_after_the_content_is_had_again(net: Net, path: str, stream: bool) -> None:
    mock = await net.mock(deltas=5, fault=Fault("reset", after=3))
    _, where = await at(net, mock)
    body = {
        **asked(path, stream=stream),
        "model": "claude",
    }  # always asked for a stream
    first = await where.send(path, body)
    mock.fault = None
    again = await where.send(path, body)
    assert (again.status, again.headers[REPLAYED]) == (first.status, "true")
    if stream:
        assert again.body == first.body
    else:
        assert first.status == 502
        assert error_of(again)["message"] == error_of(first)["message"]
    assert len(mock.requests) == 1


@on_uvloop
@FORMS
async def test_a_stream_that_is_cancelled_before_its_content_frees_its_key(net: Net, stream: bool) -> None:
    story = Tale()
    upstream = await net.upstream(story)
    gateway, where = await at(net, upstream)
    client = await where.begin(NATIVE, asked(stream=stream))
    await until(lambda: story.requests == 1)
    (stream_id,) = gateway.running.engine.streams
    assert (await gateway.ask("DELETE", f"{STREAMS}/{stream_id}")).status == 202
    await (await client.response()).rest()
    await upstream.until_finished()
    story.end()
    again = await where.send(NATIVE, asked(stream=stream))
    assert REPLAYED not in again.headers
    assert text_of(again) == TEXT
    assert story.requests == 2


@on_uvloop
@FORMS
async def test_a_stream_that_is_cancelled_later_is_had_again(net: Net, stream: bool) -> None:
    story = Tale()
    gateway, where = await at(net, await net.upstream(story))
    client = await where.begin(NATIVE, asked(stream=stream))
    story.go_on(2)
    await until(lambda: story.said == 2)
    (stream_id,) = gateway.running.engine.streams
    await until(lambda: gateway.running.engine.streams[stream_id].has_content)
    await gateway.ask("DELETE", f"{STREAMS}/{stream_id}")
    first = await (await client.response()).rest()
    again = await where.send(NATIVE, asked(stream=stream))
    assert again.body == first.body
    assert again.headers[REPLAYED] == "true"
    assert story.requests == 1


@on_uvloop
@FORMS
@pytest.mark.parametrize("problem", [RuntimeError("a bug"), Error("overloaded", "full", reason="store")])
async def test_a_request_that_cannot_begin_frees_its_key(
    net: Net, monkeypatch: pytest.MonkeyPatch, problem: Exception, stream: bool
) -> None:
    """Any exception between the claim and the beginning of the stream frees it."""
    mock = await net.mock(deltas=1)
    gateway, where = await at(net, mock)
    store = gateway.running.engine.store

    def fail(*_: Any) -> None:
        raise problem

    with monkeypatch.context() as patch:
        patch.setattr(store, "create", fail)
        for _ in range(2):
            refused = await where.send(NATIVE, asked(stream=stream))
            assert refused.status == (500 if isinstance(problem, RuntimeError) else 503)
    assert net.warned("could not be handled") == (2 if isinstance(problem, RuntimeError) else 0)
    answered = await where.send(NATIVE, asked(stream=stream))
    assert (answered.status, answered.headers.get(REPLAYED)) == (200, None)
    assert len(mock.requests) == 1


@on_uvloop
@FORMS
async def test_a_limit_of_streams_frees_the_key_and_joining_needs_no_place(net: Net, stream: bool) -> None:
    story = Tale()
    _, where = await at(net, await net.upstream(story), streams=1)
    other = {"idempotency-key": "other"}
    client = await where.begin(NATIVE, asked(stream=stream))
    await until(lambda: story.requests == 1)
    for _ in range(2):
        refused = await where.send(NATIVE, asked(stream=stream), other)
        assert (refused.status, error_of(refused)["code"]) == (503, "overloaded")
    joined_in = await where.begin(NATIVE, asked(stream=stream))
    story.end()
    for each in (client, joined_in):
        assert text_of(await (await each.response()).rest()) == TEXT
    story.end()
    answered = await where.send(NATIVE, asked(stream=stream), other)
    assert REPLAYED not in answered.headers
    assert story.requests == 2


@on_uvloop
async def test_a_server_that_stops_answers_those_who_wait_for_a_whole_answer(net: Net) -> None:
    tale = Tale()
    gateway, where = await at(net, await net.upstream(tale))
    clients = [await where.begin(NATIVE, asked(stream=False)) for _ in range(2)]
    await until(lambda: tale.requests == 1)
    await until(lambda: sum(log.watchers for log in logs(gateway)) >= 3)  # both clients, and the key's end
    await gateway.running.close()
    for client in clients:
        response = await (await client.response()).rest()
        assert (response.status, error_of(response)["reason"]) == (503, "draining")


# ---- time ------------------------------------------------------------------------------------------------------------


@on_uvloop
@ROUTES
@FORMS
async def test_a_key_whose_answer_is_no_longer_kept_is_refused_and_nothing_is_generated(
    net: Net, path: str, stream: bool
) -> None:
    mock = await net.mock(deltas=3)
    gateway, where = await at(net, mock, ttl=0.01)
    await where.send(path, asked(path, stream=stream))
    await until(lambda: not logs(gateway))
    refused = await where.send(path, asked(path, stream=stream))
    assert (refused.status, error_of(refused)["code"]) == (409, "invalid_request")
    assert refused.headers["x-should-retry"] == "false"
    if path == NATIVE:
        assert error_of(refused)["reason"] == "idempotency_expired"
    assert len(mock.requests) == 1


@on_uvloop
@pytest.mark.parametrize("form", ["gai", "openai", "whole"])
async def test_an_answer_whose_beginning_is_lost_is_reported_or_refused(net: Net, form: str) -> None:
    words = [f"word {number} " for number in range(3000)]

    async def speak(peer: Peer) -> None:
        await peer.request()
        await peer.send(SSE_HEAD, *(chunk(delta(word)) for word in words), chunk(FINISH), LAST_CHUNK)
        await peer.until_gone()

    upstream = await net.upstream(speak)
    _, where = await at(net, upstream, max_stream_bytes=8192 if form == "whole" else 200_000)
    path = f"{NATIVE}?format=openai" if form == "openai" else NATIVE
    body = asked(stream=form != "whole")
    assert text_of(await where.send(path, body)) == "".join(words)
    again = await where.send(path, body)
    if form == "gai":
        assert again.types[0] == "stream.gap"
        assert again.events[0]["text"] + again.text == "".join(words)
    else:
        assert (again.status, error_of(again)["reason"]) == (409, "idempotency_expired")
    assert len(upstream.peers) == 1


@on_uvloop
async def test_a_key_is_free_after_its_time_and_a_reload_changes_that_time(net: Net) -> None:
    mock = await net.mock(deltas=1)
    gateway, where = await at(net, mock)
    engine = gateway.running.engine
    await where.send(NATIVE, asked(), {"idempotency-key": "before"})
    gateway.running.use(dataclasses.replace(engine.settings, idempotency=IdempotencySettings(0.01)))
    await where.send(NATIVE, asked(), {"idempotency-key": "after"})
    await asyncio.sleep(0.02)
    again = await where.send(NATIVE, asked(), {"idempotency-key": "after"})
    assert (again.status, again.headers.get(REPLAYED)) == (200, None)
    assert (await where.send(NATIVE, asked(), {"idempotency-key": "before"})).headers[REPLAYED] == "true"


# ---- a store outside the process -------------------------------------------------------------------------------------


async def over(net: Net, world: World, url: str, **options: Any) -> tuple[Gateway, Site]:
    """Returns a gateway over a store that several share."""
    running = await start(settings_for(url, **options), memory=FakeBackend(world))
    gateway = Gateway(net, running)
    net.gateways.append(gateway)
    net.stack.push_async_callback(running.close)
    return gateway, Site(net, gateway.host)


@on_uvloop
@ROUTES
@FORMS
async def test_a_request_is_answered_once_by_all_servers_over_a_store(net: Net, path: str, stream: bool) -> None:
    tale, world = Tale(), World()
    url = (await net.upstream(tale)).url
    sites = [(await over(net, world, url))[1] for _ in range(2)]
    clients = [await each.begin(path, asked(path, stream=stream)) for each in sites * 3]
    await until(lambda: tale.requests == 1)
    tale.end()
    responses = [await (await client.response()).rest() for client in clients]
    assert {bytes(response.body) for response in responses} == {bytes(responses[0].body)}
    assert text_of(responses[0]) == TEXT
    assert sum(REPLAYED in response.headers for response in responses) == 5
    assert tale.requests == 1


@on_uvloop
@FORMS
async def test_an_early_failure_frees_the_key_for_all_servers(net: Net, stream: bool) -> None:
    mock, world = await net.mock(deltas=3, fault=Fault("500")), World()
    (_, here), (_, there) = [await over(net, world, mock.url) for _ in range(2)]
    assert (await here.send(NATIVE, asked(stream=stream))).status == 500
    mock.fault = None
    answered = await there.send(NATIVE, asked(stream=stream))
    assert (answered.status, answered.headers.get(REPLAYED)) == (200, None)
    assert len(mock.requests) == 2


@on_uvloop
@WAYS_OF_SERVING
async def test_where_the_store_is_out_of_reach_a_request_with_a_key_is_refused(net: Net, fast_lane: str) -> None:
    mock, world = await net.mock(deltas=3), World()
    gateway, where = await over(net, world, mock.url, fast_lane=fast_lane)
    world.fail()
    for path in (NATIVE, CHAT, STREAMS):
        refused = await where.send(path, asked(CHAT if path == CHAT else NATIVE))
        assert (refused.status, error_of(refused)["code"]) == (503, "overloaded")
        assert refused.headers["x-should-retry"] == "true"
    assert (await where.send(NATIVE, asked(), {})).status == 200, "without a key nothing waits for the store"
    world.mend()
    await until(lambda: not gateway.running.engine.store.is_degraded)
    answered = await where.send(NATIVE, asked())
    assert answered.status == 200
    assert REPLAYED not in answered.headers
    net.warned("the store")
    assert len(mock.requests) == 2


@on_both_loops
@WAYS_OF_SERVING
async def test_a_client_that_leaves_while_the_store_is_asked_starts_nothing(net: Net, fast_lane: str) -> None:
    mock, world = await net.mock(deltas=3), World()
    gateway, where = await over(net, world, mock.url, fast_lane=fast_lane)
    pending = gateway.running.service.streams.gates._pending
    world.gate.clear()
    client = await where.begin(NATIVE, asked())
    await until(lambda: len(pending) == 1)
    client.reset()
    await until(lambda: len(pending) == 0)
    world.gate.set()
    await until(lambda: not world.claims)
    answered = await where.send(NATIVE, asked())
    assert (answered.status, answered.headers.get(REPLAYED)) == (200, None)
    assert len(mock.requests) == 1


# ---- many ------------------------------------------------------------------------------------------------------------


@on_both_loops
@FORMS
async def test_of_many_requests_at_once_one_asks_the_upstream(net: Net, stream: bool) -> None:
    story = Tale()
    _, where = await at(net, await net.upstream(story))
    clients = await asyncio.gather(*(where.begin(NATIVE, asked(stream=stream)) for _ in range(100)))
    story.end()
    responses = [await (await client.response()).rest() for client in clients]
    assert {bytes(response.body) for response in responses} == {bytes(responses[0].body)}
    assert text_of(responses[0]) == TEXT
    assert sum(REPLAYED in response.headers for response in responses) == 99
    assert story.requests == 1


@on_uvloop
async def test_a_stream_with_a_key_is_a_durable_stream(net: Net) -> None:
    story = Tale()
    gateway, where = await at(net, await net.upstream(story))
    story.end()
    first = await where.send(NATIVE, asked())
    assert first.body.count(b"\nid: ") == len(WORDS) + 2
    later = await followed(gateway, id_of(first), last_event_id=f"{id_of(first)}.4")
    assert frames(later.body) == frames(first.body)[4:]
    assert log_of(gateway, id_of(first)).ending is not None
    story.end()
    whole = await where.send(NATIVE, asked(stream=False), {"idempotency-key": "whole"})
    refused = await followed(gateway, id_of(whole))
    assert (refused.status, error_of(refused)["reason"]) == (406, "not_acceptable")
    state = await state_of(gateway, id_of(whole))
    assert (state["state"], state["finish_reason"]) == ("finished", "stop")
    assert get_format("gai").name == log_of(gateway, id_of(whole)).header.format
