"""The cost of streams, over sockets: who pays, and how much; in the answer, in its headers and in the report."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from dataclasses import replace
from typing import Any

import msgspec
import pytest

import gai_fast
from gai_fast.model.money import UNIT
from gai_fast.model.settings import (
    KeyLimits,
    KeySettings,
    ModelSettings,
    Price,
    PriceSettings,
    UpstreamSettings,
    key_digest,
)
from gai_fast.server.admin.spend_report import read_query, spend_report
from gai_fast.server.serving import start
from tests.integration.gateway import (
    CHAT,
    DONE,
    END,
    FINISH,
    LAST_CHUNK,
    NATIVE,
    OPENAI,
    SSE_HEAD,
    Client,
    Gateway,
    M,
    Net,
    Peer,
    Response,
    delta,
    on_both_loops,
    on_uvloop,
    settings_for,
)
from tests.waiting import SECONDS, until
from tests.wire import chunk

DOLLAR = Price(input=UNIT, output=10 * UNIT, cached_input=UNIT // 10, cache_write=2 * UNIT, reasoning=10 * UNIT)
"""Micro-dollars for a token: 1 of input, 10 of output."""
PRICES = PriceSettings(listed={("openai-compatible", "mock"): DOLLAR})
PROMPT_TOKENS = 4  # of `QUERY` and `MESSAGES`, by length
TEXT = "four" * 25
"""An answer of 25 tokens, by length."""
USAGE = {"prompt_tokens": 1000, "completion_tokens": 200, "total_tokens": 1200}
COUNTED = 0.003
"""The cost of `USAGE`."""


def used(**more: Any) -> bytes:
    """OpenAI's chunk of the usage."""
    said = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "mock", "choices": []}
    return b"data: %b\n\n" % json.dumps({**said, "usage": {**USAGE, **more}}).encode()


async def answers(peer: Peer) -> None:
    """A whole answer, with its usage."""
    while True:
        await peer.request()
        await peer.send(SSE_HEAD, chunk(delta(TEXT)), chunk(FINISH), chunk(used()), chunk(DONE), LAST_CHUNK)


async def stops(peer: Peer) -> None:
    """Some text, then silence."""
    await peer.request()
    await peer.send(SSE_HEAD, chunk(delta(TEXT)))
    await peer.until_gone()


async def is_silent(peer: Peer) -> None:
    """Nothing, though the prompt has come."""
    await peer.request()
    await peer.until_gone()


async def breaks(peer: Peer) -> None:
    """Some text, then no more."""
    await peer.request()
    await peer.send(SSE_HEAD, chunk(delta(TEXT)))
    peer.reset()


async def spend(gateway: Gateway, by: str = "key") -> list[Any]:
    result = await spend_report(gateway.running.engine.ledger, read_query({"by": by}), None)
    return [msgspec.to_builtins(row) for row in result.data]


async def spent(gateway: Gateway) -> float:
    """Returns all spend, in units."""
    return sum(row["amount"] for row in await spend(gateway))


def cost_of(event: dict[str, Any]) -> Any:
    return event["usage"]["cost"]


@on_both_loops
async def test_an_answer_costs_what_its_tokens_cost(net: Net) -> None:
    gateway = await net.gateway(await net.upstream(answers), prices=PRICES)
    response = await gateway.ask("POST", NATIVE, M)
    finish = response.events[-2]
    assert list(finish["usage"])[-1] == "cost"
    assert cost_of(finish) == {"amount": COUNTED, "currency": "USD"}
    assert await spend(gateway) == [{"key": "anonymous", "amount": COUNTED, "currency": "USD", "requests": 1}]
    assert [row["upstream"] for row in await spend(gateway, "upstream")] == ["up"]
    assert [row["model"] for row in await spend(gateway, "model")] == ["m"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", (await spend(gateway, "day"))[0]["day"])
    samples = (await gateway.ask("GET", "/metrics")).body.decode()
    labels = 'currency="USD",key="anonymous",model="m",provider="openai-compatible"'
    assert re.search(rf"^gai_fast_cost_total{{{labels}}} 0\.003$", samples, re.M)


@on_uvloop
@pytest.mark.parametrize(("path", "body"), [(NATIVE, {**M, "stream": False}), (CHAT, {**OPENAI, "stream": False})])
async def test_a_whole_answer_tells_its_cost_in_a_header(net: Net, path: str, body: dict[str, Any]) -> None:
    async def handler(peer: Peer) -> None:
        if json.loads(await peer.request())["stream"]:
            await peer.send(SSE_HEAD, chunk(delta(TEXT)), chunk(FINISH), chunk(used()), chunk(DONE), LAST_CHUNK)
        else:
            choice = {"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}
            whole = {"id": "c1", "object": "chat.completion", "created": 1, "model": "mock", "choices": [choice]}
            await peer.answer(
                "200 OK", json.dumps({**whole, "usage": USAGE}).encode(), "Content-Type: application/json"
            )

    gateway = await net.gateway(await net.upstream(handler), prices=PRICES)
    response = await gateway.ask("POST", path, body)
    assert response.headers["x-gai-cost"] == "0.003"
    assert "x-gai-usage-source" not in response.headers
    assert await spent(gateway) == COUNTED
    if path == NATIVE:
        assert cost_of(response.json) == {"amount": COUNTED, "currency": "USD"}
    else:
        assert response.json["usage"] == USAGE


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/v1/stream", {"query": "hi"}),
        ("/api/v1/stream?format=vercel", {"query": "hi"}),
        ("/api/v1/stream?format=agui", {"query": "hi"}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}),
        ("/v1/completions", {"prompt": "hi"}),
        ("/v1/messages", {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 9}),
        ("/v1/responses", {"input": "hi"}),
    ],
)
@on_uvloop
async def test_whole_answers_say_that_tokens_are_estimated_without_a_price_too(net: Net, path: str, body: Any) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(SSE_HEAD, chunk(delta(TEXT)), *END)

    gateway = await net.gateway(await net.upstream(handler))
    response = await gateway.ask("POST", path, {"model": "m", "stream": False, **body})
    assert response.headers["x-gai-usage-source"] == "estimated"
    assert "x-gai-cost" not in response.headers
    assert b"estimated" in response.body, "the body says so in its dialect's place"


@on_uvloop
async def test_a_cost_that_is_an_estimate_is_marked_in_the_headers_too(net: Net) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(SSE_HEAD, chunk(delta(TEXT)), *END)

    gateway = await net.gateway(await net.upstream(handler), prices=PRICES)
    response = await gateway.ask("POST", NATIVE, {**M, "stream": False})
    assert (response.headers["x-gai-cost"], response.headers["x-gai-usage-source"]) == ("0.000254", "estimated")
    assert await spent(gateway) == 0.000254


@on_uvloop
async def test_without_a_price_there_is_no_cost(net: Net) -> None:
    gateway = await net.gateway(await net.upstream(answers))
    response = await gateway.ask("POST", NATIVE, M)
    assert "cost" not in response.events[-2]["usage"]
    whole = await gateway.ask("POST", NATIVE, {**M, "stream": False})
    assert "x-gai-cost" not in whole.headers
    assert await spend(gateway) == []


# ---- who leaves ------------------------------------------------------------------------------------------------------


@on_both_loops
@pytest.mark.parametrize("path", [NATIVE, CHAT])
@pytest.mark.parametrize("leave", [Client.close, Client.reset])
async def test_a_client_that_hangs_up_before_the_usage_pays(net: Net, path: str, leave: Any) -> None:
    gateway = await net.gateway(await net.upstream(stops), prices=PRICES)
    client, response = await gateway.stream(M if path == NATIVE else OPENAI, path)
    await response.until(b"four")
    leave(client)
    await until(lambda: not gateway.streams)
    assert await spent(gateway) == pytest.approx((PROMPT_TOKENS + 250) / 1e6)
    assert (await spend(gateway))[0]["requests"] == 1


@on_uvloop
async def test_a_client_that_hangs_up_before_the_first_token_pays_for_its_prompt(net: Net) -> None:
    upstream = await net.upstream(is_silent)
    gateway = await net.gateway(upstream, prices=PRICES)
    client = await gateway.connect()
    client.request("POST", NATIVE, M)
    await until(lambda: upstream.peers and upstream.peers[0].body)
    client.close()
    await until(lambda: not gateway.streams)
    assert await spent(gateway) == PROMPT_TOKENS / 1e6


@on_uvloop
async def test_a_prompt_that_was_not_sent_costs_nothing(net: Net) -> None:
    upstream = await net.upstream(is_silent)
    gateway = await net.gateway(upstream, prices=PRICES, max_connections=1)
    first, second = await gateway.connect(), await gateway.connect()
    first.request("POST", NATIVE, M)
    await until(lambda: upstream.peers and upstream.peers[0].body)
    second.request("POST", NATIVE, M)
    await until(lambda: gateway.streams == 2)
    second.close()
    await until(lambda: gateway.streams == 1)
    assert await spent(gateway) == 0
    first.close()
    await until(lambda: not gateway.streams)


@on_uvloop
async def test_a_client_that_leaves_during_the_tls_handshake_pays_nothing(net: Net) -> None:
    """Against a TCP listener that accepts, and never answers the handshake."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    net.stack.callback(listener.close)
    gateway = await net.gateway(f"https://127.0.0.1:{listener.getsockname()[1]}", prices=PRICES)
    client = await gateway.connect()
    client.request("POST", NATIVE, M)
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(SECONDS):
        accepted, _ = await loop.sock_accept(listener)
        net.stack.callback(accepted.close)
        assert (await loop.sock_recv(accepted, 1))[0] == 0x16, "the record of a handshake"
    assert gateway.streams == 1
    client.close()
    await until(lambda: not gateway.streams)
    assert await spend(gateway) == []


@on_both_loops
async def test_a_durable_stream_whose_client_leaves_while_it_waits_for_a_connection_costs_what_it_generates(
    net: Net,
) -> None:
    go_on = asyncio.Event()

    async def handler(peer: Peer) -> None:
        while True:
            await peer.request()
            await go_on.wait()
            await peer.send(SSE_HEAD, chunk(delta(TEXT)), chunk(FINISH), chunk(used()), chunk(DONE), LAST_CHUNK)

    upstream = await net.upstream(handler)
    gateway = await net.gateway(upstream, prices=PRICES, max_connections=1, on_disconnect="drain")
    first, second = await gateway.connect(), await gateway.connect()
    first.request("POST", NATIVE, {**M, "resumable": True})
    await until(lambda: upstream.peers and upstream.peers[0].body)
    second.request("POST", NATIVE, {**M, "resumable": True})
    await until(lambda: gateway.streams == 2)
    second.close()
    await until(lambda: len(gateway.running.engine.durable.followers) == 1)
    go_on.set()
    await until(lambda: not gateway.streams)
    assert await spent(gateway) == 2 * COUNTED


@on_uvloop
async def test_a_durable_stream_that_its_client_left_costs_nothing_where_the_upstream_then_refuses_it(net: Net) -> None:
    go_on = asyncio.Event()

    async def handler(peer: Peer) -> None:
        await peer.request()
        await go_on.wait()
        await peer.answer("400 Bad Request", b'{"error":{"message":"no"}}', "Content-Type: application/json")

    upstream = await net.upstream(handler)
    gateway = await net.gateway(upstream, prices=PRICES, on_disconnect="drain")
    client = await gateway.connect()
    client.request("POST", NATIVE, {**M, "resumable": True})
    await until(lambda: upstream.peers and upstream.peers[0].body)
    client.close()
    await until(lambda: not gateway.running.engine.durable.followers)
    go_on.set()
    await until(lambda: not gateway.streams)
    assert await spend(gateway) == []


@on_both_loops
async def test_a_stream_that_is_cancelled_pays_for_what_it_got(net: Net) -> None:
    gateway = await net.gateway(await net.upstream(stops), prices=PRICES)
    _, response = await gateway.stream(M)
    await response.until(b"four")
    await gateway.ask("DELETE", f"/api/v1/streams/{response.headers['x-gai-stream-id']}")
    finish = (await response.rest()).events[-2]
    assert (finish["finish_reason"], finish["usage"]["source"]) == ("cancelled", "partial")
    assert cost_of(finish) == {"amount": 0.000254, "currency": "USD"}
    assert await spent(gateway) == 0.000254


@on_both_loops
async def test_a_stream_that_breaks_pays_for_what_it_got(net: Net) -> None:
    gateway = await net.gateway(await net.upstream(breaks), prices=PRICES)
    response = await gateway.ask("POST", NATIVE, M)
    error = response.events[-2]
    assert (error["type"], error["usage"]["source"]) == ("error", "partial")
    assert cost_of(error)["amount"] == await spent(gateway) == 0.000254


@on_uvloop
async def test_an_upstream_that_fails_before_any_content_costs_nothing(net: Net) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.answer("500 Oops", b"{}", "Content-Type: application/json")

    gateway = await net.gateway(await net.upstream(handler), prices=PRICES)
    response = await gateway.ask("POST", NATIVE, M)
    assert response.status >= 500
    assert "x-gai-cost" not in response.headers
    assert await spend(gateway) == []


@on_uvloop
async def test_a_stream_that_is_drained_pays_what_the_provider_counts(net: Net) -> None:
    go_on = asyncio.Event()

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(SSE_HEAD, chunk(delta(TEXT)))
        await go_on.wait()
        await peer.send(chunk(FINISH), chunk(used()), chunk(DONE), LAST_CHUNK)

    gateway = await net.gateway(await net.upstream(handler), prices=PRICES, on_disconnect="drain")
    client, response = await gateway.stream(M)
    await response.until(b"four")
    client.close()
    await until(lambda: not gateway.is_connected)
    go_on.set()
    await until(lambda: not gateway.streams)
    assert await spent(gateway) == COUNTED


@on_uvloop
async def test_a_durable_stream_that_the_end_of_the_server_ends_pays_for_what_it_got(net: Net) -> None:
    gateway = await net.gateway(await net.upstream(stops), prices=PRICES)
    _, response = await gateway.stream({**M, "resumable": True})
    await response.until(b"four")
    await gateway.running.close()
    assert await spent(gateway) == pytest.approx((PROMPT_TOKENS + 10 * 25) / 1e6)


@on_uvloop
async def test_followers_and_repeated_requests_cost_nothing(net: Net) -> None:
    gateway = await net.gateway(await net.upstream(answers), prices=PRICES)
    headers = {"idempotency-key": "k"}
    first = await gateway.ask("POST", NATIVE, {**M, "stream": False}, headers)
    again = await gateway.ask("POST", NATIVE, {**M, "stream": False}, headers)
    assert (first.headers["x-gai-cost"], again.headers["idempotent-replayed"]) == ("0.003", "true")
    assert "x-gai-cost" not in again.headers
    stream = await gateway.ask("POST", NATIVE, {**M, "resumable": True})
    followed = await gateway.ask("GET", f"/api/v1/streams/{stream.headers['x-gai-stream-id']}")
    assert cost_of(followed.events[-2])["amount"] == COUNTED
    assert (await spend(gateway))[0]["requests"] == 2


# ---- attempts --------------------------------------------------------------------------------------------------------


async def breaking_then_well(peer: Peer) -> None:
    """By the model that is asked: `mock` breaks after its first content, others answer."""
    body = json.loads(await peer.request())
    if body["model"] == "mock":
        await peer.send(SSE_HEAD, chunk(delta(TEXT)))
        peer.reset()
    else:
        await peer.send(SSE_HEAD, chunk(delta(TEXT)), chunk(FINISH), chunk(used()), chunk(DONE), LAST_CHUNK)


@on_uvloop
@pytest.mark.parametrize("wish", ["restart", "continue"])
async def test_an_attempt_that_generated_content_is_paid_beside_the_one_that_follows(net: Net, wish: Any) -> None:
    upstream = await net.upstream(breaking_then_well)
    prices = PriceSettings(listed={("openai-compatible", "mock"): DOLLAR, ("openai-compatible", "well"): DOLLAR})
    settings = settings_for(upstream.url, prices=prices, on_midstream_failure=wish)
    other = replace(settings.upstreams["up"], name="other")
    models = {
        "m": replace(settings.models["m"], fallback=("well",)),
        "well": ModelSettings("well", other, "well", settings.models["m"].stream),
    }
    running = await start(replace(settings, upstreams={**settings.upstreams, "other": other}, models=models))
    net.stack.push_async_callback(running.close)
    gateway = Gateway(net, running)
    net.gateways.append(gateway)
    response = await gateway.ask("POST", NATIVE, M)
    finish = response.events[-2]
    assert finish["usage"]["input_tokens"] == 1000
    assert cost_of(finish) == {"amount": 0.003254, "currency": "USD"}
    rows = {row["upstream"]: (row["amount"], row["requests"]) for row in await spend(gateway, "upstream")}
    assert rows == {"up": (0.000254, 0), "other": (COUNTED, 1)}


@on_uvloop
@pytest.mark.parametrize("wish", ["restart", "continue"])
async def test_attempts_that_all_break_are_paid_once_each(net: Net, wish: Any) -> None:
    upstream = await net.upstream(breaks)
    gateway = await net.gateway(upstream, prices=PRICES, on_midstream_failure=wish, retries=2)
    response = await gateway.ask("POST", NATIVE, M)
    asked = sum(bool(peer.body) for peer in upstream.peers)
    error = response.events[-2]
    assert error["type"] == "error"
    assert asked > 1
    assert await spent(gateway) == pytest.approx(asked * 0.000254)
    assert cost_of(error)["amount"] == pytest.approx(asked * 0.000254)


# ---- the provider's word ---------------------------------------------------------------------------------------------


def priced_by_provider(provider: str, url: str) -> Any:
    """Returns a configuration whose model `m` is of this provider, with a price."""
    settings = settings_for(url)
    up = UpstreamSettings("up", provider, f"{url}/v1", retries=0, breaker=None)
    return replace(
        settings,
        upstreams={"up": up},
        models={"m": ModelSettings("m", up, "mock", settings.models["m"].stream, price=DOLLAR)},
    )


@on_uvloop
@pytest.mark.parametrize(
    ("provider", "said", "amount"),
    [
        ("openrouter", {"cost": 0.0066}, 0.0066),
        ("openrouter", {"cost": 0}, 0),
        ("openai-compatible", {"cost": 0.0066}, 0.0066),
        ("xai", {"cost_in_usd_ticks": 1497500}, 0.00014975),
        ("xai", {"cost_in_usd_ticks": 0}, 0),
        ("perplexity", {"cost": {"total_cost": 0.006}}, 0.006),
        # What is no figure does not count before the price.
        ("openrouter", {"cost": -1}, COUNTED),
        ("openrouter", {"cost": 1e30}, COUNTED),
        ("openrouter", {"cost": "free"}, COUNTED),
        ("openrouter", {"cost": None}, COUNTED),
        ("perplexity", {"cost": {"total_cost": -1}}, COUNTED),
        ("xai", {"cost_in_usd_ticks": -5}, COUNTED),
    ],
)
async def test_the_providers_own_figure_counts_before_the_price(
    net: Net, provider: str, said: dict[str, Any], amount: float
) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(SSE_HEAD, chunk(delta(TEXT)), chunk(FINISH), chunk(used(**said)), chunk(DONE), LAST_CHUNK)

    upstream = await net.upstream(handler)
    running = await start(priced_by_provider(provider, upstream.url))
    net.stack.push_async_callback(running.close)
    gateway = Gateway(net, running)
    net.gateways.append(gateway)
    response = await gateway.ask("POST", NATIVE, M)
    assert cost_of(response.events[-2]) == {"amount": amount, "currency": "USD"}
    assert await spent(gateway) == amount


@on_uvloop
async def test_an_upstream_cannot_make_a_stream_cost_less_than_nothing_or_any_sum(net: Net) -> None:
    said = [
        {"prompt_tokens": -1000, "completion_tokens": -5},
        {"prompt_tokens": 2**52, "completion_tokens": 2**52},
        {"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 10**9}},
    ]
    costs = []
    for usage in said:

        async def handler(peer: Peer, usage: Any = usage) -> None:
            await peer.request()
            await peer.send(SSE_HEAD, chunk(delta(TEXT)), chunk(FINISH), chunk(used(**usage)), chunk(DONE), LAST_CHUNK)

        gateway = await net.gateway(await net.upstream(handler), prices=PRICES)
        response = await gateway.ask("POST", NATIVE, M)
        costs.append(await spent(gateway))
        assert cost_of(response.events[-2])["amount"] == costs[-1]
    assert costs == [0.000254, 0.000254, 0.002001]
    assert net.warned("counts more than") == 1


# ---- clients of other formats ----------------------------------------------------------------------------------------


@on_uvloop
async def test_usage_that_the_client_did_not_ask_for_is_counted_and_not_sent(net: Net) -> None:
    asked: list[Any] = []

    async def handler(peer: Peer) -> None:
        asked.append(json.loads(await peer.request()))
        wants = asked[-1].get("stream_options", {}).get("include_usage")
        result = [chunk(used())] if wants else []
        await peer.send(SSE_HEAD, chunk(delta(TEXT)), chunk(FINISH), *result, chunk(DONE), LAST_CHUNK)

    upstream = await net.upstream(handler)
    priced = await net.gateway(upstream, prices=PRICES)
    plain = await net.gateway(upstream)
    bodies = [(await each.ask("POST", CHAT, OPENAI)).body for each in (priced, plain)]
    assert bodies[0] == bodies[1] == delta(TEXT) + FINISH + DONE
    assert [each.get("stream_options") for each in asked] == [{"include_usage": True}, None]
    assert await spent(priced) == COUNTED
    wanted = await priced.ask("POST", CHAT, {**OPENAI, "stream_options": {"include_usage": True}})
    assert wanted.body == delta(TEXT) + FINISH + used() + DONE


@on_uvloop
async def test_usage_that_an_upstream_sends_unasked_reaches_the_client(net: Net) -> None:
    upstream = await net.upstream(answers)
    running = await start(priced_by_provider("openrouter", upstream.url))
    net.stack.push_async_callback(running.close)
    gateway = Gateway(net, running)
    net.gateways.append(gateway)
    response = await gateway.ask("POST", CHAT, OPENAI)
    assert response.body == delta(TEXT) + FINISH + used() + DONE
    assert await spent(gateway) == COUNTED


@on_uvloop
async def test_tokens_are_counted_for_a_key_with_a_limit_of_them(net: Net) -> None:
    asked: list[Any] = []

    async def handler(peer: Peer) -> None:
        asked.append(json.loads(await peer.request()))
        await peer.send(SSE_HEAD, chunk(delta(TEXT)), chunk(FINISH), chunk(used()), chunk(DONE), LAST_CHUNK)

    limits = KeyLimits(tokens_per_minute=100_000)
    key = KeySettings("ann", (key_digest("sk-of-ann-1234"),), limits=limits)
    gateway = await net.gateway(await net.upstream(handler), keys=(key,))
    response = await gateway.ask("POST", CHAT, OPENAI, {"authorization": "Bearer sk-of-ann-1234"})
    assert response.body == delta(TEXT) + FINISH + DONE
    assert asked[0]["stream_options"] == {"include_usage": True}


VARYING = re.compile(
    rb'"(?:id|messageId|message_id|runId|threadId|itemId|item_id|response_id'
    rb'|created|created_at|completed_at|timestamp)": ?"?[^",}]*'
)
"""Ids and times of a stream."""


@on_uvloop
@pytest.mark.parametrize("form", ["openai", "anthropic", "responses", "simple", "vercel", "agui"])
async def test_prices_change_no_byte_of_a_dialect_but_where_usage_is_ours(net: Net, form: str) -> None:
    upstream = await net.upstream(answers)
    texts = []
    for prices in (PRICES, PriceSettings()):
        gateway = await net.gateway(upstream, prices=prices)
        response = await gateway.ask("POST", f"{NATIVE}?format={form}", M)
        texts.append(VARYING.sub(b"", bytes(response.body)))
    if form == "vercel":  # its metadata is the usage of `gai.events.v1`
        texts[0] = texts[0].replace(b',"cost":{"amount":0.003,"currency":"USD"}', b"")
    assert texts[0] == texts[1]


# ---- the library -----------------------------------------------------------------------------------------------------


@on_uvloop
@pytest.mark.parametrize("is_left", [False, True])
async def test_a_program_sees_what_a_stream_cost(net: Net, is_left: bool) -> None:
    upstream = await net.upstream(stops if is_left else answers)
    measured: list[gai_fast.StreamMetrics] = []

    class Sink:
        def stream_ended(self, metrics: gai_fast.StreamMetrics) -> None:
            measured.append(metrics)

    settings = settings_for(upstream.url, prices=PRICES)
    async with gai_fast.Gateway(settings, sinks=[Sink()]) as gateway, gateway.stream(M) as stream:
        async for event in stream:
            if is_left and event["type"] == "text.delta":
                break
            if event["type"] == "finish":
                assert event["usage"]["cost"] == {"amount": COUNTED, "currency": "USD"}
    (metrics,) = measured
    assert metrics.cost == (254 * UNIT // 10**6 if is_left else 3 * UNIT // 1000)
    assert metrics.currency == "USD"
    assert metrics.usage is not None
    assert ("source" in metrics.usage, metrics.outcome) == (is_left, "disconnected" if is_left else "finished")


# ---- what a passed-through stream is told ----------------------------------------------------------------------------


def counts_in(response: Response) -> list[tuple[dict[str, Any], str | None]]:
    """The usage of each chunk that has one, and its source."""
    chunks = [event for event in response.events if event.get("usage")]
    return [(each["usage"], each.get("x_gai", {}).get("usage_source")) for each in chunks]


@on_uvloop
@pytest.mark.parametrize("usage", ["asked", "always"])
@pytest.mark.parametrize(
    ("said", "told", "source"),
    [
        (None, (PROMPT_TOKENS, 25), "estimated"),
        ({"completion_tokens": 5}, (PROMPT_TOKENS, 5), "estimated"),
        ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, (PROMPT_TOKENS, 25), "estimated"),
        (USAGE, (1000, 200), None),
    ],
)
async def test_a_passed_through_stream_ends_with_the_usage_that_its_client_asked_for(
    net: Net, usage: Any, said: Any, told: tuple[int, int], source: str | None
) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        counted = [] if said is None else [chunk(used(**said) if said is USAGE else used_alone(said))]
        await peer.send(SSE_HEAD, chunk(delta(TEXT)), chunk(FINISH), *counted, chunk(DONE), LAST_CHUNK)

    asking = {} if usage == "always" else {"stream_options": {"include_usage": True}}
    gateway = await net.gateway(await net.upstream(handler), prices=PRICES, usage=usage)
    response = await gateway.ask("POST", CHAT, {**OPENAI, **asking})
    counts, found = counts_in(response)[-1]
    assert (counts["prompt_tokens"], counts["completion_tokens"], found) == (*told, source)
    assert counts["total_tokens"] == sum(told)
    last = response.events[-1]
    assert (last["usage"], last["choices"], response.data[-1]) == (counts, [], "[DONE]")
    assert await spent(gateway) == pytest.approx((told[0] + 10 * told[1]) / 1e6)
    assert len(counts_in(response)) == (1 if said is None or source is None else 2)


def used_alone(counts: dict[str, int]) -> bytes:
    said = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "mock", "choices": []}
    return b"data: %b\n\n" % json.dumps({**said, "usage": counts}).encode()


@on_uvloop
async def test_a_passed_through_stream_has_no_usage_for_a_client_that_did_not_ask(net: Net) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(SSE_HEAD, chunk(delta(TEXT)), *END)

    gateway = await net.gateway(await net.upstream(handler), prices=PRICES)
    response = await gateway.ask("POST", CHAT, OPENAI)
    assert response.body == delta(TEXT) + FINISH + DONE
    assert await spent(gateway) == 0.000254


@on_uvloop
@pytest.mark.parametrize("options", [{"usage": "always"}, {}])
async def test_the_demo_ends_with_the_usage_that_its_client_asked_for(net: Net, options: Any) -> None:
    gateway = await net.gateway(None, **options)
    asked = {} if options else {"stream_options": {"include_usage": True}}
    response = await gateway.ask("POST", CHAT, {**OPENAI, **asked, "model": "demo"})
    ((counts, source),) = counts_in(response)
    assert (counts["prompt_tokens"], source, response.data[-1]) == (PROMPT_TOKENS, "estimated", "[DONE]")
    assert counts["completion_tokens"] > 0


# ---- absurd counts ---------------------------------------------------------------------------------------------------


@on_uvloop
@pytest.mark.parametrize(("path", "body"), [(NATIVE, M), (CHAT, OPENAI), (CHAT, {**OPENAI, "stream": False})])
async def test_one_absurd_count_does_not_lock_its_key_out(net: Net, path: str, body: Any) -> None:
    absurd = {"prompt_tokens": 4, "completion_tokens": 2**32 - 1, "total_tokens": 2**32 + 3}

    async def handler(peer: Peer) -> None:
        while True:
            if json.loads(await peer.request())["stream"]:
                await peer.send(SSE_HEAD, chunk(delta(TEXT)), chunk(FINISH), chunk(used_alone(absurd)), chunk(DONE))
                await peer.send(LAST_CHUNK)
            else:
                choice = {"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}
                answer = {"id": "c1", "object": "chat.completion", "created": 1, "model": "mock", "choices": [choice]}
                whole = json.dumps({**answer, "usage": absurd}).encode()
                await peer.answer("200 OK", whole, "Content-Type: application/json")

    key = KeySettings("ann", (key_digest("s" * 20),), limits=KeyLimits(tokens_per_minute=1000))
    gateway = await net.gateway(await net.upstream(handler), prices=PRICES, keys=(key,))
    bearer = {"authorization": f"Bearer {'s' * 20}"}
    for _ in range(2):
        response = await gateway.ask("POST", path, body, bearer)
        assert response.status == 200
    await until(lambda: not gateway.streams)
    assert await spent(gateway) == 2 * 0.000254
    assert net.warned("counts more than its model has room for, 4294967295 tokens") == 1
