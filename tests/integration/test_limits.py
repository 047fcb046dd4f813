"""The limits of keys: what is refused, what answers tell, and that everything is counted once."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from gai_fast.ledger import Demand, SpendEntry
from gai_fast.ledger.ledger import date_of
from gai_fast.model.money import UNIT
from gai_fast.model.settings import (
    KeyLimits,
    KeySettings,
    Price,
    Settings,
    SpendLimit,
    TargetSettings,
    key_digest,
)
from gai_fast.server.serving import start
from tests.conftest import ChangeLimits
from tests.integration.gateway import (
    MESSAGES,
    QUERY,
    Client,
    Gateway,
    Net,
    Response,
    on_both_loops,
    on_uvloop,
    settings_for,
)
from tests.integration.websocket import connect
from tests.waiting import until

SECRET = "sk-limited-0123456789"
HEADERS = {"authorization": f"Bearer {SECRET}"}
STREAM = {**QUERY, "model": "m"}
CHAT = {"model": "m", "messages": MESSAGES}


KEY = KeySettings("ann", (key_digest(SECRET),), limits=KeyLimits(tokens_per_minute=600))


async def limited(net: Net, deltas: int = 3, rate: float = 0, **limits: Any) -> Gateway:
    key = KeySettings("ann", (key_digest(SECRET),), limits=KeyLimits(**limits))
    origin = ("https://a.example",)
    return await net.gateway(await net.mock(deltas=deltas, rate=rate), keys=(key,), cors_origins=origin)


async def ask(gateway: Gateway, body: Any = STREAM, path: str = "/api/v1/stream", **headers: str) -> Response:
    return await gateway.ask("POST", path, body, {**HEADERS, **headers})


def refusal(response: Response) -> tuple[int, Any]:
    return response.status, response.error["reason"]


@on_both_loops
@pytest.mark.parametrize("lane", ["auto", "off"])
async def test_both_servers_count_and_tell_what_is_left(net: Net, lane: str) -> None:
    key = KeySettings("ann", (key_digest(SECRET),), limits=KeyLimits(requests_per_minute=10))
    gateway = await net.gateway(await net.mock(deltas=3), keys=(key,), fast_lane=lane)
    for number in range(10):
        response = await ask(gateway)
        assert response.status == 200
        assert response.headers["x-ratelimit-limit-requests"] == "10"
        assert response.headers["x-ratelimit-remaining-requests"] == str(9 - number)
        assert response.headers["ratelimit-policy"] == '"requests";q=10;w=60'
        assert response.headers["ratelimit"] == f'"requests";r={9 - number};t={6 * (number + 1)}'
    response = await ask(gateway)
    assert refusal(response) == (429, "requests_per_minute")
    assert response.headers["retry-after"] == "6"
    assert response.headers["x-should-retry"] == "true"
    assert response.headers["x-ratelimit-remaining-requests"] == "0"
    listed = await gateway.ask("GET", "/v1/models", None, HEADERS)
    assert listed.status == 200
    assert listed.headers["x-ratelimit-remaining-requests"] == "0"


@on_uvloop
async def test_a_web_page_may_read_what_is_left(net: Net) -> None:
    gateway = await limited(net, requests_per_minute=10)
    response = await ask(gateway, origin="https://a.example")
    exposed = response.headers["access-control-expose-headers"].split(", ")
    result = [name for name in response.headers if "ratelimit" in name]
    assert len(result) == 5
    assert set(result) <= set(exposed)


@on_uvloop
async def test_twenty_a_minute_come_back_after_three_seconds(net: Net) -> None:
    gateway = await limited(net, requests_per_minute=20)
    statuses = [(await ask(gateway)).status for _ in range(20)]
    assert statuses == [200] * 20
    assert (await ask(gateway)).headers["retry-after"] == "3"


@on_uvloop
async def test_only_money_mends_spend(net: Net) -> None:
    gateway = await limited(net, spend=SpendLimit(100, "total"))
    assert (await ask(gateway)).status == 200
    gateway.running.engine.ledger.charge(SpendEntry("ann", "m", "up", date_of(0.0), "USD", 100))
    response = await ask(gateway)
    assert refusal(response) == (429, "spend")
    assert not response.error["temporary"]
    assert response.headers["x-should-retry"] == "false"
    assert not {"retry-after", "retry-after-ms"} & response.headers.keys()
    assert response.error["message"] == "this key has spent 0.0000000001 of 0.0000000001 USD in all (spend)"
    assert response.headers["x-gai-spend-limit"] == "0.0000000001"
    assert response.headers["x-gai-spend-remaining"] == "0"
    assert "x-gai-spend-reset" not in response.headers


@on_uvloop
async def test_answers_tell_what_is_left_to_spend(net: Net) -> None:
    gateway = await limited(net, spend=SpendLimit(10**12, "month"))
    for _ in range(2):
        response = await ask(gateway, origin="https://a.example")
        assert (response.headers["x-gai-spend-limit"], response.headers["x-gai-spend-remaining"]) == ("1", "1")
        assert 0 < int(response.headers["x-gai-spend-reset"]) <= 31 * 86_400
        assert "x-gai-spend-remaining" in response.headers["access-control-expose-headers"]


@on_uvloop
async def test_tokens_are_settled_by_usage_and_an_overdraft_makes_the_wait_longer(net: Net) -> None:
    gateway = await limited(net, deltas=30, tokens_per_minute=600)
    response = await ask(gateway, {**STREAM, "max_tokens": 500})
    usage = next(event["usage"] for event in response.events if event["type"] == "finish")
    used = usage["input_tokens"] + usage["output_tokens"]
    listed = await gateway.ask("GET", "/v1/models", None, HEADERS)
    left = int(listed.headers["x-ratelimit-remaining-tokens"])
    assert 600 - used <= left < 600 - used + 20
    gateway.running.engine.ledger.try_take(KEY, "a", Demand(10))
    gateway.running.engine.ledger.settle("a", 6000)
    wait = int((await ask(gateway)).headers["retry-after"])
    assert 540 < wait <= 610


@on_both_loops
async def test_streams_are_released_whichever_way_they_end(net: Net) -> None:
    gateway = await limited(net, deltas=1000, rate=50, streams=1)

    async def begun() -> tuple[Client, Response]:
        client, response = await gateway.stream(STREAM, **HEADERS)
        await response.until(b"text.delta")
        assert refusal(await ask(gateway)) == (429, "streams")
        return client, response

    client, response = await begun()
    client.reset()
    await until(lambda: not gateway.streams)
    client, response = await begun()
    stream_id = response.headers["x-gai-stream-id"]
    assert (await gateway.ask("DELETE", f"/api/v1/streams/{stream_id}", None, HEADERS)).status == 202
    await response.rest()
    client.close()
    bad = await ask(gateway, {**STREAM, "model": "none"})
    assert bad.status == 404
    bad = await ask(gateway, {**STREAM, "model": "claude", "seed": 1})
    assert bad.status == 400
    client, response = await begun()
    client.close()


@on_uvloop
async def test_a_durable_stream_counts_until_its_end_whether_or_not_it_is_followed(net: Net) -> None:
    gateway = await limited(net, deltas=100, rate=200, streams=1, requests_per_minute=10)
    started = await ask(gateway, path="/api/v1/streams")
    assert started.status == 202
    assert started.headers["x-ratelimit-remaining-requests"] == "9"
    assert refusal(await ask(gateway)) == (429, "streams")
    stream_id = started.json["id"]
    followed = await gateway.ask("GET", f"/api/v1/streams/{stream_id}", None, HEADERS)
    assert followed.types[-1] == "done"
    assert followed.headers["x-ratelimit-remaining-requests"] == "9"
    assert (await ask(gateway)).status == 200


@on_uvloop
async def test_a_key_follows_as_many_streams_as_it_may_have(net: Net) -> None:
    gateway = await limited(net, deltas=1000, rate=50, streams=1)
    followers = gateway.running.engine.durable.followers
    stream_id = (await ask(gateway, path="/api/v1/streams")).json["id"]
    path = f"/api/v1/streams/{stream_id}"
    opened: list[tuple[Client, Response]] = []
    for number in range(30):  # each of them may be a client that comes back: none is refused
        client = await gateway.connect()
        client.request("GET", path, None, HEADERS)
        response = await client.response()
        assert response.status == 200
        await response.until(b"text.delta")
        assert len(followers) == 1, number
        opened.append((client, response))
    for client, response in opened[:-1]:
        await response.rest()
        assert [event["type"] for event in response.events[-2:]] == ["error", "done"]
        assert response.events[-2]["error"]["reason"] == "streams"
        client.close()
    socket = await connect(gateway, **HEADERS)
    socket.send(stream="a", type="resume", after=f"{stream_id}.1")
    await socket.until(stream="a", type="text.delta")
    await opened[-1][1].rest()
    assert opened[-1][1].events[-2]["error"]["reason"] == "streams"
    assert (await gateway.ask("DELETE", path, None, HEADERS)).status == 202
    await socket.until_done("a")
    assert socket.types("a")[-2:] == ["finish", "done"]
    socket.client.close()
    opened[-1][0].close()


@on_uvloop
async def test_a_stored_stream_is_followed_while_the_key_has_a_place(net: Net) -> None:
    mock = await net.mock(deltas=3, rate=0)
    key = KeySettings("ann", (key_digest(SECRET),), limits=KeyLimits(streams=1))
    gateway = await net.gateway(mock, keys=(key,))
    stored = (await ask(gateway, path="/api/v1/streams")).json["id"]
    await until(lambda: not gateway.streams)
    mock.deltas, mock.rate = 1000, 50
    client, response = await gateway.stream({**STREAM, "resumable": True}, **HEADERS)
    await response.until(b"text.delta")
    refused = await gateway.ask("GET", f"/api/v1/streams/{stored}", None, HEADERS)
    assert refusal(refused) == (429, "streams")
    assert refused.headers["retry-after"] == "1"
    state = await gateway.ask("GET", f"/api/v1/streams/{stored}", None, {**HEADERS, "accept": "application/json"})
    assert state.status == 200
    client.close()
    await until(lambda: not gateway.running.engine.durable.followers)
    followed = await gateway.ask("GET", f"/api/v1/streams/{stored}", None, HEADERS)
    assert followed.types[-1] == "done"


@on_uvloop
async def test_a_replay_of_an_idempotency_key_does_not_count(net: Net) -> None:
    gateway = await limited(net, requests_per_minute=2)
    for path, body in (("/api/v1/stream", STREAM), ("/api/v1/streams", STREAM)):
        for _ in range(3):
            assert (await ask(gateway, body, path, **{"idempotency-key": "k"})).status < 300
    assert refusal(await ask(gateway, **{"idempotency-key": "another"})) == (429, "requests_per_minute")
    assert (await ask(gateway, **{"idempotency-key": "k"})).headers["idempotent-replayed"] == "true"


LARGE = b'{"model": "m", "query": "' + b"x" * 20_000
"""A large body that is no JSON: whether it is read shows in its error."""


@on_both_loops
@pytest.mark.parametrize("lane", ["auto", "off"])
@pytest.mark.parametrize("store", ["memory://", "sqlite:///{}/s.db"])
async def test_a_request_beyond_a_limit_is_refused_before_its_large_body_is_read(
    net: Net, lane: str, store: str, tmp_path: Path
) -> None:
    key = KeySettings("ann", (key_digest(SECRET),), limits=KeyLimits(requests_per_minute=1))
    gateway = await net.gateway(await net.mock(deltas=3), keys=(key,), fast_lane=lane, url=store.format(tmp_path))
    routes = ("/api/v1/stream", "/api/v1/streams", "/api/v1/chat", "/v1/chat/completions", "/v1/messages")
    for path in (*routes, "/v1/responses", "/v1/completions"):
        response = await ask(gateway, LARGE, path)
        assert response.status == 400, "no request is counted that cannot be read"
    body = {**STREAM, "query": "x" * 20_000}
    first = await ask(gateway, body, **{"idempotency-key": "k"})
    assert first.status == 200
    for path in (*routes, "/v1/responses", "/v1/completions"):
        for more in ({}, {"idempotency-key": "another"}):
            response = await ask(gateway, LARGE, path, **more)
            assert response.status == 429, path
            assert b"requests_per_minute" in response.body
    again = await ask(gateway, body, **{"idempotency-key": "k"})
    assert again.headers["idempotent-replayed"] == "true"
    in_body = await ask(gateway, {**body, "idempotency_key": "k"})
    assert in_body.headers["idempotent-replayed"] == "true"


@on_uvloop
async def test_a_stream_beyond_the_limits_of_the_server_is_refused_before_its_large_body_is_read(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=1000, rate=20), streams=1)
    client, _ = await gateway.stream(STREAM)
    response = await gateway.ask("POST", "/api/v1/stream", LARGE)
    assert refusal(response) == (503, "streams")
    client.close()
    await until(lambda: not gateway.streams)
    assert (await gateway.ask("POST", "/api/v1/stream", LARGE)).status == 400


@pytest.mark.parametrize(
    ("path", "member", "model", "most"),
    [
        ("/v1/chat/completions", "messages", "claude", 997),
        ("/v1/chat/completions", "messages", "m", 5000),
        ("/v1/messages", "messages", "m", 997),
        ("/v1/messages", "messages", "claude", 5000),
        ("/v1/responses", "input", "m", 997),
        ("/v1/messages/count_tokens", "messages", "m", 997),
        ("/api/v1/stream", "messages", "m", 997),
        ("/api/v1/streams", "messages", "claude", 997),
        ("/api/v1/stream?format=agui&model=m", "messages", "m", 996),
    ],
)
async def test_a_body_that_cannot_be_translated_in_one_turn_is_only_passed_on(
    net: Net, change_limits: ChangeLimits, path: str, member: str, model: str, most: int
) -> None:
    """100,000 messages held the loop for half a second."""
    gateway = await net.gateway(await net.mock(deltas=3))
    change_limits(translated_containers=999, checked_bytes=10_000)
    bound = "max_tokens" if member == "messages" else "max_output_tokens"
    for messages in (most, most + 1):
        body = {"model": model, bound: 9, member: [{"role": "user", "content": "x" * 40}] * messages}
        if "agui" in path:
            asked = [{"id": "a", **each} for each in body["messages"]]
            body = {"threadId": "t", "runId": "r", "tools": [], "messages": asked}
        response = await gateway.ask("POST", path, body)
        if messages == most + 1 < 1000:
            assert response.status == 400
            assert b"more than 999 objects and arrays" in response.body
        else:
            assert response.status == (202 if path.endswith("streams") else 200)


@on_uvloop
async def test_requests_over_a_websocket_count_and_its_handshake_does_not(net: Net) -> None:
    gateway = await limited(net, requests_per_minute=2)
    opened = await connect(gateway, **HEADERS)
    assert opened.response.headers["x-ratelimit-remaining-requests"] == "2"
    for name in ("a", "b", "c"):
        opened.ask(name, **STREAM)
        await opened.until_done(name)
    assert opened.types("b")[-2:] == ["finish", "done"]
    assert opened.error("c")["reason"] == "requests_per_minute"
    opened.client.close()


@on_uvloop
async def test_the_sdks_raise_what_they_raise_for_a_rate_limit(net: Net) -> None:
    gateway = await limited(net, requests_per_minute=1)
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=SECRET, max_retries=0) as client:
        assert await client.chat.completions.create(model="m", messages=MESSAGES)
        with pytest.raises(openai.RateLimitError) as raised:
            await client.chat.completions.create(model="m", messages=MESSAGES)
        assert raised.value.response.headers["retry-after"] == "60"
    async with anthropic.AsyncAnthropic(base_url=gateway.url, api_key=SECRET, max_retries=0) as other:
        with pytest.raises(anthropic.RateLimitError) as caught:
            await other.messages.create(model="claude", max_tokens=5, messages=[{"role": "user", "content": "x"}])
        assert caught.value.body["error"]["type"] == "rate_limit_error"


@on_uvloop
async def test_other_limits_hold_for_new_requests_and_what_was_used_stays_used(net: Net) -> None:
    gateway = await limited(net, requests_per_minute=2)
    for _ in range(2):
        assert (await ask(gateway)).status == 200
    key = KeySettings("ann", (key_digest(SECRET),), limits=KeyLimits(requests_per_minute=3))
    gateway.running.use(replace(gateway.running.engine.settings, keys=(key,)))
    assert (await ask(gateway)).status == 200
    assert refusal(await ask(gateway)) == (429, "requests_per_minute")


@on_uvloop
async def test_many_at_once_are_admitted_up_to_the_limit(net: Net) -> None:
    gateway = await limited(net, requests_per_minute=30, streams=1000)
    answers = await asyncio.gather(*(ask(gateway) for _ in range(60)))
    assert sorted(answer.status for answer in answers) == [200] * 30 + [429] * 30


# ---- attempts that are paid beside the answering attempt -------------------------------------------------------------

SPENDER = KeySettings("ann", (key_digest(SECRET),), limits=KeyLimits(spend=SpendLimit(100 * UNIT, "total")))
DEAR = Price(*[10**6 * UNIT] * 5)  # one unit a token


@on_uvloop
async def test_the_prompt_of_a_hedge_that_lost_counts_for_what_a_stream_may_still_spend(net: Net) -> None:
    """The limit is 100 tokens, and each of two requests sends 40: the answer may have 20."""
    first, second = await net.mock(deltas=400, ttft=0.3, rate=0), await net.mock(ttft=30)
    settings = settings_for(first.url, keys=(SPENDER,))
    up = settings.upstreams["up"]
    other = replace(up, name="other", base_url=settings_for(second.url).upstreams["up"].base_url)
    targets = (TargetSettings(up, "mock", 1), TargetSettings(other, "mock", 1))
    model = replace(settings.models["m"], targets=targets, hedge_after=0.05, price=DEAR)
    gateway = await own_gateway(net, replace(settings, upstreams={"up": up, "other": other}, models={"m": model}))
    response = await ask(gateway, {"query": "x" * 160, "model": "m"})
    finish = next(event for event in response.events if event["type"] == "finish")
    assert gateway.running.engine.tallies.hedges == 1
    assert finish["reason"] == "spend"
    assert finish["usage"]["cost"]["amount"] <= 101


@on_uvloop
async def test_an_answer_that_others_read_on_is_paid_whole_though_a_limit_of_spend_ended_its_first_stream(
    net: Net,
) -> None:
    upstream = await net.mock(deltas=5, rate=0)
    settings = settings_for(upstream.url, keys=(SPENDER,))
    model = replace(settings.models["m"], price=DEAR, cache=True)
    gateway = await own_gateway(net, replace(settings, models={"m": model}, cache=replace(settings.cache, ttl=60)))
    await ask(gateway, {"query": "Hi", "model": "m"})  # the usual output is small now, so that two streams are admitted
    ledger = gateway.running.engine.ledger
    before = await ledger.spent("ann", "total")
    upstream.deltas, upstream.rate = 300, 300
    first = asyncio.create_task(ask(gateway))
    await until(lambda: len(upstream.requests) == 2)
    answers = await asyncio.gather(first, ask(gateway))
    ends = [next(event for event in answer.events if event["type"] == "finish") for answer in answers]
    assert [answer.headers["x-gai-cache"] for answer in answers] == ["miss", "joined"]
    assert (ends[0]["reason"], ends[1]["finish_reason"]) == ("spend", "stop")
    usage = ends[1]["usage"]
    await until(lambda: not ledger.reservations)
    assert await ledger.spent("ann", "total") - before == usage["total_tokens"] * UNIT


async def own_gateway(net: Net, settings: Settings) -> Gateway:
    running = await start(settings)
    net.stack.push_async_callback(running.close)
    gateway = Gateway(net, running)
    net.gateways.append(gateway)
    return gateway
