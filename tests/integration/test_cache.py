"""`[cache]`: equal requests share one call to the upstream, and its answer is kept for those that follow."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from gai_fast.cli.mock.command import Fault
from gai_fast.model.metrics import StreamMetrics
from gai_fast.model.money import UNIT, cost_of
from gai_fast.model.settings import CacheSettings, KeySettings, Price, TargetSettings, key_digest
from gai_fast.providers.requests.tool_names import OPENAI_NAMES
from tests.conftest import ChangeLimits
from tests.integration.gateway import (
    CHAT,
    DONE,
    FINISH,
    LAST_CHUNK,
    MESSAGES,
    NATIVE,
    QUERY,
    SSE_HEAD,
    Gateway,
    M,
    Net,
    Peer,
    Response,
    delta,
    joined,
    on_both_loops,
    on_uvloop,
)
from tests.integration.test_durable import STREAMS, WORDS, Story, id_of
from tests.integration.websocket import connect
from tests.waiting import until
from tests.wire import chunk

ON = {"x-gai-cache": "on"}
KEPT = CacheSettings(ttl=600.0)
PRICE = Price(UNIT, UNIT, UNIT, UNIT, UNIT)
TEXT = "".join(WORDS)
LIMIT_NAME = "x-gai-cache"


def result_of(response: Response) -> str | None:
    return response.headers.get(LIMIT_NAME)


async def ask(gateway: Gateway, body: Any = M, path: str = NATIVE, **headers: str) -> Response:
    """Returns a whole answer to a request that asks."""
    return await gateway.ask("POST", path, body, {**ON, **headers})


def payload(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Events without what belongs to one stream."""
    own = ("request_id", "stream_id", "ts")
    return [{name: value for name, value in event.items() if name not in own} for event in events]


@on_both_loops
async def test_a_repeat_is_answered_without_the_upstream(net: Net) -> None:
    mock = await net.mock(deltas=5)
    gateway = await net.gateway(mock, cache=KEPT)
    first, second = await ask(gateway), await ask(gateway)
    assert [result_of(first), result_of(second)] == ["miss", "hit"]
    assert len(mock.requests) == 1
    assert payload(first.events) == payload(second.events)
    assert first.ended
    assert second.ended
    assert id_of(first) != id_of(second)
    assert second.events[0]["stream_id"] == id_of(second)


@on_uvloop
async def test_a_repeat_has_reasoning_between_tags_and_the_names_of_its_tools(net: Net) -> None:
    name = "mcp__" + "long" * 20
    called = {"index": 0, "id": "c", "function": {"name": OPENAI_NAMES.fitted(name), "arguments": "{}"}}
    answer = delta("<think>hm</think>Yes") + delta("", delta={"tool_calls": [called]}) + FINISH + DONE

    async def upstream(peer: Peer) -> None:
        await peer.request()
        await peer.send(SSE_HEAD, chunk(answer), LAST_CHUNK)

    gateway = await net.gateway(await net.upstream(upstream), cache=KEPT, reasoning_tags="<think>")
    asked = {"query": "Hi", "model": "m", "stream": False, "tools": [{"name": name}]}
    first, second = await ask(gateway, asked), await ask(gateway, asked)
    assert [result_of(first), result_of(second)] == ["miss", "hit"]
    for result in (first, second):
        assert (result.json["reasoning"], result.json["text"]) == ("hm", "Yes")
        assert [call["name"] for call in result.json["tool_calls"]] == [name]


@on_uvloop
async def test_only_requests_that_ask_share(net: Net) -> None:
    mock = await net.mock(deltas=2)
    gateway = await net.gateway(mock, cache=KEPT)
    await ask(gateway)
    for headers in ({}, {"x-gai-cache": "off"}):
        response = await gateway.ask("POST", NATIVE, M, headers)
        assert result_of(response) is None
    assert len(mock.requests) == 3


@on_uvloop
async def test_a_model_may_ask_for_its_requests(net: Net) -> None:
    mock = await net.mock(deltas=2)
    gateway = await net.gateway(mock, cache=KEPT, cached=True)
    responses = [await gateway.ask("POST", NATIVE, M) for _ in range(2)]
    assert [result_of(response) for response in responses] == ["miss", "hit"]
    off = await gateway.ask("POST", NATIVE, M, {"x-gai-cache": "off"})
    assert result_of(off) is None
    assert len(mock.requests) == 2


@on_uvloop
@pytest.mark.parametrize("value", ["", "ON", "yes", "on, on"])
async def test_another_value_of_the_header_is_refused(net: Net, value: str) -> None:
    gateway = await net.gateway(cache=KEPT)
    response = await gateway.ask("POST", NATIVE, QUERY, {"x-gai-cache": value})
    assert (response.status, response.error["reason"]) == (400, "cache")
    assert response.error["message"] == "the header x-gai-cache must be one of: on, off"


@on_uvloop
async def test_without_a_time_to_live_nothing_is_shared(net: Net) -> None:
    story = Story()
    gateway = await net.gateway(await net.upstream(story), cache=CacheSettings(), commit_after=0.02)
    streams = [await gateway.stream(M, **ON) for _ in range(2)]
    await until(lambda: story.requests == 2)
    story.go_on(100)
    for _, response in streams:
        assert result_of(response) == "miss"
        assert (await response.rest()).text == TEXT


@on_both_loops
async def test_equal_requests_at_the_same_time_share_one_call(net: Net) -> None:
    story = Story()
    gateway = await net.gateway(await net.upstream(story), cache=KEPT, commit_after=0.02, price=PRICE)
    streams = [await gateway.stream(M, **ON)]
    story.go_on(3)
    await streams[0][1].until(b"rd 2 ")
    for _ in range(2):
        streams.append(await gateway.stream(M, **ON))
        await streams[-1][1].until(b"rd 2 ")
    story.end()
    for _, response in streams:
        assert (await response.rest()).text == TEXT
    assert [result_of(response) for _, response in streams] == ["miss", "joined", "joined"]
    assert story.requests == 1
    assert len({id_of(response) for _, response in streams}) == 3
    costs = [response.events[-2]["usage"]["cost"]["amount"] for _, response in streams]
    assert costs[0] > 0
    assert costs[1:] == [0, 0]
    assert result_of(await ask(gateway)) == "hit"
    assert gateway.running.engine.tallies.cache_requests == {"hit": 1, "joined": 2, "miss": 1}


FORMS: list[tuple[str, dict[str, Any]]] = [
    (f"{NATIVE}", M),
    (f"{NATIVE}?framing=ndjson", M),
    (f"{NATIVE}?format=vercel", M),
    (f"{NATIVE}?format=agui", M),
    (f"{NATIVE}?format=anthropic", M),
    (NATIVE, {**M, "stream": False}),
    (NATIVE, {**M, "resumable": True}),
    (CHAT, {"model": "m", "messages": MESSAGES, "stream": True}),
    (CHAT, {"model": "m", "messages": MESSAGES, "stream": False}),
    ("/v1/messages", {"model": "m", "messages": MESSAGES, "max_tokens": 50, "stream": True}),
    ("/v1/responses", {"model": "m", "input": "Tell me a story", "stream": True}),
]


def said(response: Response) -> bytes:
    """Returns the body without what is of one stream: its ids, times, and the figures of a whole answer."""
    body = bytes(response.body)
    for name in ("x-gai-stream-id", "x-request-id"):
        body = body.replace(response.headers[name].encode(), b"-")
    body = re.sub(rb'"metrics":\{.*?\}(?=\})', b"", body)
    return re.sub(rb"[0-9]{10,}(\.[0-9]+)?", b"0", body)


@on_uvloop
@pytest.mark.parametrize(("path", "body"), FORMS)
async def test_every_form_of_an_answer_is_repeated(net: Net, path: str, body: dict[str, Any]) -> None:
    mock = await net.mock(deltas=3)
    gateway = await net.gateway(mock, cache=KEPT)
    first, second = await ask(gateway, body, path), await ask(gateway, body, path)
    assert [first.status, second.status] == [200, 200]
    assert [result_of(first), result_of(second)] == ["miss", "hit"]
    assert len(mock.requests) == 1
    assert b"Once" in first.body or len(said(first)) > 100
    assert said(first) == said(second)


@on_uvloop
@pytest.mark.parametrize("stream", [True, False])
async def test_bytes_that_pass_through_are_the_same(net: Net, stream: bool) -> None:
    mock = await net.mock(deltas=4)
    gateway = await net.gateway(mock, cache=KEPT)
    body = {"model": "m", "messages": MESSAGES, "stream": stream, "seed": 7}
    first, second = await ask(gateway, body, CHAT), await ask(gateway, body, CHAT)
    assert [result_of(first), result_of(second)] == ["miss", "hit"]
    assert first.body == second.body


@on_uvloop
async def test_native_forms_share_one_answer(net: Net) -> None:
    mock = await net.mock(deltas=3)
    gateway = await net.gateway(mock, cache=KEPT)
    forms = [(path, body) for path, body in FORMS if path.startswith(NATIVE)]
    results = [result_of(await ask(gateway, body, path)) for path, body in forms]
    assert results == ["miss", *["hit"] * (len(forms) - 1)]
    assert len(mock.requests) == 1


@on_uvloop
async def test_labels_are_no_part_of_the_request_and_all_else_is(net: Net) -> None:
    mock = await net.mock(deltas=1)
    gateway = await net.gateway(mock, cache=KEPT)
    chat = {"model": "m", "messages": MESSAGES, "stream": True}
    cases = [
        (M, "miss"),
        ({**M, "metadata": {"user": "u1"}, "request_id": "mine"}, "hit"),
        ({**M, "temperature": 0.5}, "miss"),
        ({**M, "seed": 1}, "miss"),
        ({**M, "query": "Tell me a story."}, "miss"),
    ]
    for body, result in cases:
        assert result_of(await ask(gateway, body)) == result, body
    dialect = [
        (chat, "miss"),
        ({**chat, "user": "u1", "metadata": {"a": "b"}}, "hit"),
        (dict(reversed(chat.items())), "hit"),
        ({**chat, "temperature": 0}, "miss"),
    ]
    for body, result in dialect:
        assert result_of(await ask(gateway, body, CHAT)) == result, body


def keys(*names: str) -> tuple[KeySettings, ...]:
    return tuple(KeySettings(name, (key_digest(f"secret-of-{name}"),)) for name in names)


@on_uvloop
@pytest.mark.parametrize("scope", ["caller", "all"])
async def test_an_answer_is_for_its_caller_unless_the_scope_is_all(net: Net, scope: Any) -> None:
    mock = await net.mock(deltas=2)
    gateway = await net.gateway(mock, cache=CacheSettings(ttl=600.0, scope=scope), keys=keys("anna", "berta"))
    results = [
        result_of(await ask(gateway, M, authorization=f"Bearer secret-of-{name}"))
        for name in ("anna", "berta", "anna", "berta")
    ]
    assert results == (["miss", "hit", "hit", "hit"] if scope == "all" else ["miss", "miss", "hit", "hit"])


@on_uvloop
async def test_failed_answers_are_not_kept_and_joined_streams_end_alike(net: Net) -> None:
    mock = await net.mock(deltas=5, rate=50, fault=Fault("cut", 3))
    gateway = await net.gateway(mock, cache=KEPT)
    first, second = await asyncio.gather(ask(gateway), ask(gateway))
    assert {result_of(first), result_of(second)} == {"miss", "joined"}
    assert first.types[-2:] == second.types[-2:] == ["error", "done"]
    assert first.events[-2]["error"] == second.events[-2]["error"]
    assert len(mock.requests) == 1
    mock.fault = None
    assert result_of(await ask(gateway)) == "miss"
    assert result_of(await ask(gateway)) == "hit"


@on_uvloop
async def test_a_refusal_is_not_kept(net: Net) -> None:
    mock = await net.mock(deltas=5, fault=Fault("500"))
    gateway = await net.gateway(mock, cache=KEPT)
    assert (await ask(gateway)).status >= 500
    mock.fault = None
    assert result_of(await ask(gateway)) == "miss"


@on_uvloop
async def test_streams_that_fail_together_ask_again_together(net: Net, quick_retries: None) -> None:
    mock = await net.mock(deltas=3, ttft=0.05, fault=Fault("500"))
    gateway = await net.gateway(mock, cache=KEPT, retries=2)
    asked = [asyncio.create_task(ask(gateway)) for _ in range(5)]
    await until(lambda: len(mock.requests) >= 1)
    mock.fault = None
    responses = await asyncio.gather(*asked)
    assert all(response.types[-2:] == ["finish", "done"] for response in responses)
    assert len(mock.requests) <= 3, "one call at a time"


@on_uvloop
async def test_the_last_reader_that_leaves_ends_the_call(net: Net) -> None:
    story = Story()
    upstream = await net.upstream(story)
    gateway = await net.gateway(upstream, cache=KEPT, commit_after=0.02)
    streams = [await gateway.stream(M, **ON) for _ in range(2)]
    story.go_on(2)
    for _, response in streams:
        await response.until(b"rd 1 ")
    streams[0][0].close()
    await until(lambda: gateway.streams == 1)
    story.go_on()
    await streams[1][1].until(b"rd 2 ")
    assert upstream.finished == 0
    streams[1][0].close()
    await upstream.until_finished()
    story.end()
    again = await ask(gateway)
    assert (result_of(again), again.text) == ("miss", TEXT)


@on_uvloop
async def test_an_answer_that_ends_with_its_body_ends_so_for_every_stream(net: Net) -> None:
    """Nothing before the end of the body says that the answer is whole."""
    gate = asyncio.Event()

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(SSE_HEAD, chunk(delta("one")))
        await gate.wait()
        await peer.send(chunk(FINISH))
        await peer.send(LAST_CHUNK)

    gateway = await net.gateway(await net.upstream(handler), cache=KEPT)
    responses = []
    for _ in range(3):
        responses.append((await gateway.stream(M, **ON))[1])
        await responses[-1].until(b"one")
    gate.set()
    for response in responses:
        assert (await response.rest()).types[-2:] == ["finish", "done"]
    assert result_of(await ask(gateway)) == "hit"


@on_uvloop
async def test_a_cancelled_stream_ends_alone(net: Net) -> None:
    story = Story()
    gateway = await net.gateway(await net.upstream(story), cache=KEPT, commit_after=0.02)
    (_, first), (_, second) = [await gateway.stream(M, **ON) for _ in range(2)]
    story.go_on(1)
    await first.until(b"rd 0 ")
    await gateway.ask("DELETE", f"/api/v1/streams/{id_of(first)}")
    assert (await first.rest()).events[-2]["finish_reason"] == "cancelled"
    story.end()
    assert (await second.rest()).text == TEXT
    assert result_of(await ask(gateway)) == "hit"


class Figures:
    """A sink."""

    def __init__(self) -> None:
        self.all: list[StreamMetrics] = []

    def stream_ended(self, metrics: StreamMetrics) -> None:
        self.all.append(metrics)


@on_uvloop
@pytest.mark.parametrize("way", ["close", "cancel"])
async def test_who_began_a_call_pays_for_all_of_it(net: Net, way: str) -> None:
    """Else a second request would get an answer for the price of its beginning."""
    story = Story()
    gateway = await net.gateway(await net.upstream(story), cache=KEPT, commit_after=0.02, price=PRICE)
    figures = Figures()
    gateway.running.engine.sinks.append(figures)
    (client, first), (_, second) = [await gateway.stream(M, **ON) for _ in range(2)]
    story.go_on(1)
    await first.until(b"rd 0 ")
    if way == "close":
        client.close()
        await until(lambda: gateway.streams == 1)
    else:
        await gateway.ask("DELETE", f"/api/v1/streams/{id_of(first)}")
        await first.rest()
    assert not figures.all, "counted when the call has ended"
    story.end()
    assert (await second.rest()).text == TEXT
    await until(lambda: len(figures.all) == 2)
    costs = {metrics.stream_id: metrics.cost for metrics in figures.all}
    outcomes = {metrics.stream_id: metrics.outcome for metrics in figures.all}
    usage = second.events[-2]["usage"]
    assert usage["cost"]["amount"] == 0
    assert costs == {id_of(first): cost_of(usage, PRICE), id_of(second): 0}
    assert outcomes[id_of(first)] == ("disconnected" if way == "close" else "cancelled")


@on_uvloop
async def test_who_leaves_a_call_pays_for_the_attempt_before_it_too(net: Net) -> None:
    story, broken = Story(), False

    async def breaks_first(peer: Peer) -> None:
        nonlocal broken
        if broken:
            await story(peer)
        else:
            broken = True
            await peer.request()
            await peer.send(SSE_HEAD, chunk(delta("lost")))
            peer.reset()

    upstream = await net.upstream(breaks_first)
    gateway = await net.gateway(
        upstream, cache=KEPT, commit_after=0.02, price=PRICE, on_midstream_failure="restart", retries=1
    )
    figures = Figures()
    gateway.running.engine.sinks.append(figures)
    client, first = await gateway.stream(M, **ON)
    await first.until(b"stream.reset")
    _, second = await gateway.stream(M, **ON)
    story.go_on(1)
    await first.until(b"rd 0 ")
    client.close()
    await until(lambda: gateway.streams == 1)
    story.end()
    assert (await second.rest()).text == TEXT
    await until(lambda: len(figures.all) == 2)
    (result,) = (metrics for metrics in figures.all if metrics.stream_id == id_of(first))
    lost, whole = result.charges
    assert lost.amount > 0
    assert whole.amount == cost_of(second.events[-2]["usage"], PRICE)
    assert result.cost == lost.amount + whole.amount
    assert result.usage is not None
    assert result.usage["cost"]["amount"] == result.cost / UNIT


@on_uvloop
async def test_who_leaves_a_call_that_ends_then_pays_for_its_part(net: Net) -> None:
    story = Story()
    upstream = await net.upstream(story)
    gateway = await net.gateway(upstream, cache=KEPT, commit_after=0.02, price=PRICE)
    figures = Figures()
    gateway.running.engine.sinks.append(figures)
    (client, first), (other, _) = [await gateway.stream(M, **ON) for _ in range(2)]
    story.go_on(1)
    await first.until(b"rd 0 ")
    client.close()
    await until(lambda: gateway.streams == 1)
    other.close()
    await upstream.until_finished()
    await until(lambda: len(figures.all) == 2)
    paid = {metrics.stream_id: metrics.cost for metrics in figures.all}
    assert paid.pop(id_of(first))
    assert [*paid.values()] in ([0], [None])


@pytest.mark.parametrize("leaves", [False, True])
@on_uvloop
async def test_a_call_that_the_end_of_the_server_breaks_off_is_charged(net: Net, tmp_path: Path, leaves: bool) -> None:
    """Its first stream had left what it costs to a stream that ended once nobody charged any more."""
    story = Story()
    upstream = await net.upstream(story)
    gateway = await net.gateway(
        upstream, cache=KEPT, commit_after=0.02, price=PRICE, url=f"sqlite:///{tmp_path / 'gai-fast.db'}"
    )
    figures = Figures()
    gateway.running.engine.sinks.append(figures)
    (client, first), (_, second) = [await gateway.stream(M, **ON) for _ in range(2)]
    story.go_on(1)
    await first.until(b"rd 0 ")
    await second.until(b"rd 0 ")
    if leaves:
        client.close()
        await until(lambda: gateway.streams == 1)
    await gateway.running.close()
    paid = {metrics.stream_id: metrics.cost for metrics in figures.all}
    assert paid[id_of(first)]
    assert sum(gateway.running.service.metrics.costs.values()) == paid[id_of(first)]


@on_uvloop
async def test_an_answer_is_kept_for_its_time(net: Net) -> None:
    mock = await net.mock(deltas=2)
    gateway = await net.gateway(mock, cache=CacheSettings(ttl=0.05))
    await ask(gateway)
    answers = gateway.running.engine.answers
    assert answers is not None
    await until(lambda: len(answers.store.memory) == 0)
    assert result_of(await ask(gateway)) == "miss"


@on_uvloop
async def test_the_oldest_answers_make_room(net: Net) -> None:
    mock = await net.mock(deltas=40)
    gateway = await net.gateway(mock, cache=CacheSettings(ttl=600.0, max_bytes=65536))
    for number in range(40):
        assert result_of(await ask(gateway, {**M, "seed": number})) == "miss"
    answers = gateway.running.engine.answers
    assert answers is not None
    assert answers.store.memory.size <= 65536
    assert len(answers.store.memory) < 40
    assert result_of(await ask(gateway, {**M, "seed": 39})) == "hit"
    assert result_of(await ask(gateway, {**M, "seed": 0})) == "miss"


@on_uvloop
async def test_an_answer_that_is_too_long_is_delivered_and_not_kept(net: Net) -> None:
    mock = await net.mock(deltas=200)
    gateway = await net.gateway(mock, cache=KEPT, max_stream_bytes=8192)
    for _ in range(2):
        response = await ask(gateway)
        assert result_of(response) == "miss"
        assert response.types[-2:] == ["finish", "done"]


@on_uvloop
async def test_an_idempotency_key_wins(net: Net) -> None:
    mock = await net.mock(deltas=2)
    gateway = await net.gateway(mock, cache=KEPT)
    await ask(gateway)
    keyed = [await ask(gateway, M, **{"idempotency-key": "k1"}) for _ in range(2)]
    assert [result_of(response) for response in keyed] == ["miss", None]
    assert keyed[1].headers["idempotent-replayed"] == "true"
    assert len(mock.requests) == 2


@on_uvloop
async def test_streams_that_are_started_apart_share_nothing(net: Net) -> None:
    mock = await net.mock(deltas=2)
    gateway = await net.gateway(mock, cache=KEPT)
    chat = {"id": "c1", "model": "m", "messages": [{"role": "user", "parts": [{"type": "text", "text": "Hi"}]}]}
    background = {"model": "m", "input": "Hi", "background": True}
    for path, body in ((STREAMS, M), ("/api/v1/chat", chat), ("/v1/responses", background)):
        for _ in range(2):
            response = await ask(gateway, body, path)
            assert (response.status < 300, result_of(response)) == (True, "miss"), path
        refused = await gateway.ask("POST", path, body, {"x-gai-cache": "maybe"})
        assert refused.status == 400
        keyed = [await ask(gateway, body, path, **{"idempotency-key": "k1"}) for _ in range(2)]
        if path != "/api/v1/chat":
            assert [result_of(each) for each in keyed] == ["miss", None]
    await until(lambda: gateway.streams == 0)


@on_uvloop
async def test_a_large_request_is_shared(net: Net) -> None:
    mock = await net.mock(deltas=2)
    gateway = await net.gateway(mock, cache=KEPT)
    large = {"model": "m", "query": "x" * 10_000_000}
    assert [result_of(await ask(gateway, large)) for _ in range(2)] == ["miss", "hit"]


@on_uvloop
async def test_a_model_that_means_another_upstream_has_other_answers(net: Net) -> None:
    mock = await net.mock(deltas=2)
    gateway = await net.gateway(mock, cache=KEPT)
    await ask(gateway)
    settings = gateway.running.engine.settings
    other = dataclasses.replace(settings.models["m"], id="another")
    gateway.running.service.use(dataclasses.replace(settings, models={**settings.models, "m": other}))
    assert [result_of(await ask(gateway)) for _ in range(2)] == ["miss", "hit"]
    off = dataclasses.replace(settings, cache=CacheSettings())
    gateway.running.service.use(off)
    assert result_of(await ask(gateway)) == "miss"


@on_uvloop
async def test_the_recorded_pace(net: Net, change_limits: ChangeLimits) -> None:
    change_limits(replay_gap=0.001)
    story = Story()
    gateway = await net.gateway(await net.upstream(story), cache=CacheSettings(ttl=600.0, pace="recorded"))
    asked = asyncio.create_task(ask(gateway))
    for word in range(len(WORDS) + 1):
        story.go_on()
        await until(lambda said=word: story.said >= min(said + 1, len(WORDS)))
    first = await asked
    second = await ask(gateway)
    assert [result_of(first), result_of(second)] == ["miss", "hit"]
    assert second.text == TEXT
    assert second.pieces > 3, "not in one go"


@on_uvloop
async def test_a_slow_reader_holds_up_no_other(net: Net) -> None:
    mock = await net.mock(deltas=20_000)
    gateway = await net.gateway(mock, cache=KEPT, client_buffer=4096, max_stream_bytes=1 << 24)
    slow = await gateway.connect(receive_buffer=4096)
    slow.request("POST", NATIVE, M, ON)
    response = await slow.response()
    slow.pause()
    other = await ask(gateway)
    assert other.types[-2:] == ["finish", "done"]
    slow.resume()
    await response.rest()
    assert response.text == other.text


@on_uvloop
async def test_a_reader_that_is_too_slow_for_what_is_kept_is_reported_so(net: Net) -> None:
    """Its client once got a failure of the network."""
    may_send = asyncio.Semaphore(0)

    async def long(peer: Peer) -> None:
        await peer.request()
        await peer.send(SSE_HEAD)
        for number in range(10):
            await may_send.acquire()
            await peer.send(chunk(delta(f"{'x' * 40_000} {number}")))
        await peer.send(chunk(FINISH), chunk(DONE), LAST_CHUNK)

    upstream = await net.upstream(long)
    gateway = await net.gateway(upstream, cache=KEPT, commit_after=0.02, max_stream_bytes=1 << 17)
    (_, first), (_, second) = [await gateway.stream(M, **ON) for _ in range(2)]
    slow = gateway.running.engine.streams[id_of(first)]
    slow.pause()  # as its transport does while its client takes nothing
    for number in range(10):
        may_send.release()
        await second.until(b"x %d" % number)
    await second.rest()
    assert second.types[-2:] == ["finish", "done"]
    slow.resume()
    await first.rest()
    error = first.events[-2]["error"]
    assert (error["code"], error["reason"]) == ("timeout", "slow_client")


@on_uvloop
async def test_the_targets_of_a_model_share_its_answers(net: Net) -> None:
    mock = await net.mock(deltas=2)
    gateway = await net.gateway(mock, cache=KEPT)
    settings = gateway.running.engine.settings
    model = settings.models["m"]
    targets = tuple(TargetSettings(model.upstream, name) for name in ("one", "two", "three"))
    spread = dataclasses.replace(model, id="one", targets=targets)
    gateway.running.service.use(dataclasses.replace(settings, models={**settings.models, "m": spread}))
    assert [result_of(await ask(gateway)) for _ in range(6)] == ["miss", *["hit"] * 5]
    assert len(mock.requests) == 1


@on_uvloop
async def test_a_shared_answer_names_the_target_that_was_asked(net: Net) -> None:
    mock = await net.mock(deltas=2)
    gateway = await net.gateway(mock, cache=KEPT)
    settings = gateway.running.engine.settings
    model = settings.models["m"]
    targets = tuple(
        TargetSettings(dataclasses.replace(model.upstream, name=name), "mock") for name in ("one", "two", "three")
    )
    spread = dataclasses.replace(model, upstream=targets[0].upstream, id="mock", targets=targets)
    gateway.running.service.use(dataclasses.replace(settings, models={**settings.models, "m": spread}))
    sink = Figures()
    gateway.running.engine.sinks.append(sink)
    answers = [await ask(gateway) for _ in range(4)]
    named = {each.events[0]["provider_metadata"]["upstream"] for each in answers}
    assert len(named) == 1
    assert {each.upstream for each in sink.all} == named


@on_uvloop
async def test_usage_that_a_client_asks_for_is_repeated(net: Net) -> None:
    mock = await net.mock(deltas=3)
    gateway = await net.gateway(mock, cache=KEPT)
    body = {"model": "m", "messages": MESSAGES, "stream": True, "stream_options": {"include_usage": True}}
    first, second = [await ask(gateway, body, CHAT) for _ in range(2)]
    assert joined(first.events) == joined(second.events) != ""
    assert first.events[-1]["usage"] == second.events[-1]["usage"]


@on_uvloop
async def test_the_streams_of_a_socket_share_as_its_handshake_says(net: Net) -> None:
    mock = await net.mock(deltas=3)
    gateway = await net.gateway(mock, cache=KEPT)
    socket = await connect(gateway, x_gai_cache="on")
    for name in ("a", "b"):
        socket.ask(name, **M)
        await socket.until_done(name)
    assert socket.text("a") == socket.text("b") != ""
    assert len(mock.requests) == 1
    refused = await connect(gateway, x_gai_cache="maybe")
    refused.ask("a", **M)
    await refused.until_done("a")
    assert refused.types("a") == ["error", "done"]
