"""What one caller brings about at upstreams, and that the requests of another caller are as they were.

`docs/architecture/shared-state.md` lists all state that is shared between callers.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from gai_fast.model.settings import (
    BreakerSettings,
    IdentitySettings,
    KeySettings,
    Secret,
    TargetSettings,
    key_digest,
)
from gai_fast.runtime.beside import Beside
from gai_fast.server.limits import LIMITS
from gai_fast.server.serving import start
from tests.integration.gateway import (
    CHAT,
    MESSAGES,
    NATIVE,
    QUERY,
    SSE_HEAD,
    Gateway,
    Net,
    Peer,
    Response,
    on_steady_loop,
    on_uvloop,
    settings_for,
)
from tests.integration.test_retry import BUSY, answer, gateway_for
from tests.limits import replaced
from tests.waiting import until
from tests.wire import chunk

HOSTILE, OTHER = "sk-hostile-0123456789", "sk-other-0123456789"
KEYS = tuple(
    KeySettings(name, (key_digest(secret),), pass_upstreams=("up",))
    for name, secret in (("hostile", HOSTILE), ("other", OTHER))
)
LANE = ("/v1/*", "GET /v1/*")
REFUSED = b'{"error":{"message":"Missing scopes: api.x","type":"invalid_request_error"}}'


class Scripted:
    """An upstream that answers by what a request has."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self.credentials: list[str] = []
        self.paths: list[str] = []

    async def __call__(self, peer: Peer) -> None:
        while True:
            body = await peer.request()
            head = peer.head.decode("latin-1")
            self.paths.append(head.split(" ")[1])
            self.credentials.append(head.lower().partition("authorization: bearer ")[2].partition("\r\n")[0])
            sent = json.loads(body) if body else {}
            self.seen.append(sent)
            await self.answer(peer, sent, "hostile" in str(sent) or "hostile" in self.paths[-1])

    async def answer(self, peer: Peer, sent: dict[str, Any], is_hostile: bool) -> None:
        await peer.send(answer())


class Failing(Scripted):
    """Refuses what is hostile."""

    def __init__(self, status: str, body: bytes = b"{}", *more: str) -> None:
        super().__init__()
        self.failure = status, body, *more

    async def answer(self, peer: Peer, sent: dict[str, Any], is_hostile: bool) -> None:
        if is_hostile:
            status, body, *more = self.failure
            await peer.answer(status, body, "Content-Type: application/json", *more)
        elif "/p/" in self.paths[-1] or not sent:
            await peer.answer("200 OK", b"{}", "Content-Type: application/json")
        else:
            await peer.send(answer())


async def ask(gateway: Gateway, secret: str, text: str = "hi", **more: Any) -> Response:
    body = {**QUERY, "query": text, "model": "m", **more}
    return await gateway.ask("POST", NATIVE, body, {"authorization": f"Bearer {secret}"})


async def chat(gateway: Gateway, secret: str, **more: Any) -> Response:
    body = {"model": "m", "messages": MESSAGES, "stream": True, **more}
    return await gateway.ask("POST", CHAT, body, {"authorization": f"Bearer {secret}"})


async def passed(gateway: Gateway, secret: str, path: str, **headers: str) -> Response:
    return await gateway.ask("GET", f"/p/up{path}", None, {"authorization": f"Bearer {secret}", **headers})


async def with_keys(net: Net, upstream: Scripted, *keys: str, targets: int = 0, **more: Any) -> Gateway:
    """Returns a gateway with two callers, whose upstream has these keys, and whose model these targets."""
    settings = settings_for((await net.upstream(upstream)).url, keys=KEYS, lane=LANE, **more)
    model = settings.models["m"]
    first, *others = map(Secret, keys)
    asked = dataclasses.replace(model.upstream, api_key=first, more_api_keys=tuple(others))
    ups = {"up": asked} | {f"up{at}": dataclasses.replace(asked, name=f"up{at}") for at in range(1, targets)}
    if targets:
        model = dataclasses.replace(model, targets=tuple(TargetSettings(each, model.id) for each in ups.values()))
    small = dataclasses.replace(model, name="small", id="small-1", targets=(), upstream=asked)
    models = {"m": dataclasses.replace(model, upstream=asked), "small": small}
    running = await start(dataclasses.replace(settings, models=models, upstreams=ups))
    net.gateways.append(Gateway(net, running))
    net.stack.push_async_callback(running.close)
    return net.gateways[-1]


# ---- members that an upstream refuses --------------------------------------------------------------------------------


class Strict(Scripted):
    """Refuses a value of one member, or members that it does not know."""

    def __init__(self, **refused: str) -> None:
        super().__init__()
        self.refused = refused

    async def answer(self, peer: Peer, sent: dict[str, Any], is_hostile: bool) -> None:
        for member, text in self.refused.items():
            if member in sent and (is_hostile or "Unknown" in text):
                error = {"error": {"message": text, "type": "invalid_request_error", "param": member}}
                await peer.answer("400 Bad Request", json.dumps(error).encode(), "Content-Type: application/json")
                return
        await peer.send(answer())


FORM = {"type": "json_schema", "name": "form", "schema": {"type": "object", "properties": {}}}


@on_uvloop
async def test_an_invalid_schema_of_one_caller_takes_no_schema_from_another(net: Net) -> None:
    upstream = Strict(response_format="Invalid schema for response_format 'hostile': 'x' is not permitted")
    gateway = await net.gateway(await net.upstream(upstream), keys=KEYS, on_unsupported="drop", retries=1)
    assert (await ask(gateway, HOSTILE, response_format={**FORM, "name": "hostile"})).status == 200
    assert [("response_format" in sent) for sent in upstream.seen] == [True, False]
    assert (await ask(gateway, OTHER, response_format=FORM)).status == 200
    assert (await ask(gateway, HOSTILE, response_format=FORM)).status == 200
    assert [("response_format" in sent) for sent in upstream.seen[2:]] == [True, True]


@on_uvloop
async def test_odd_stream_options_of_one_caller_take_none_from_another(net: Net) -> None:
    """Without them the tokens of all callers' streams were estimated for an hour."""
    upstream = Strict(stream_options="Unknown parameter: 'stream_options.hostile'.")
    gateway = await net.gateway(await net.upstream(upstream), keys=KEYS, usage="always", retries=1)
    upstream.refused = {"stream_options": "Invalid value for 'stream_options'."}
    await chat(gateway, HOSTILE, stream_options={"hostile": 1})
    upstream.seen.clear()
    assert (await chat(gateway, OTHER)).status == 200
    assert [sent["stream_options"] for sent in upstream.seen] == [{"include_usage": True}]


@on_uvloop
async def test_a_member_that_an_upstream_lacks_is_left_out_for_all_once_two_callers_have_seen_it(net: Net) -> None:
    upstream = Strict(seed="Unknown parameter: 'seed'.")
    gateway = await net.gateway(await net.upstream(upstream), keys=KEYS, on_unsupported="drop", retries=1)
    for secret, asked in ((HOSTILE, [1, None]), (HOSTILE, [None]), (OTHER, [1, None]), (OTHER, [None])):
        upstream.seen.clear()
        assert (await ask(gateway, secret, seed=1)).status == 200
        assert [sent.get("seed") for sent in upstream.seen] == asked
    assert net.warned("refuses 'seed'") == 2


@on_uvloop
async def test_a_request_of_many_odd_members_and_long_texts_stops_nobody(net: Net) -> None:
    """1,000 members and 500 kB took the loop five seconds."""
    upstream = Strict(stream_options="Unknown parameter: 'stream_options.odd_7'.")
    gateway = await net.gateway(await net.upstream(upstream), keys=KEYS, retries=1)
    odd = {f"odd_{number}": 1 for number in range(1000)}
    texts = [{"role": "user", "content": f"odd text {number} " * 30} for number in range(1000)]
    response = await chat(gateway, HOSTILE, stream_options=odd, messages=texts)
    assert (response.status, len(upstream.seen)) == (400, 2)
    assert net.warned("refuses 'stream_options.odd_7'") == 1


# ---- breakers and retries --------------------------------------------------------------------------------------------


@on_uvloop
async def test_requests_of_one_caller_that_fail_open_no_breaker_for_another(net: Net) -> None:
    upstream = Failing("500 Internal Server Error")
    gateway = await with_keys(net, upstream, "k1", retries=0, breaker=BreakerSettings(failures=3, window=30, open=60))
    for _ in range(6):
        assert (await ask(gateway, HOSTILE, "hostile")).status == 500
    assert (await ask(gateway, OTHER)).text == "Hello"
    assert (await ask(gateway, HOSTILE, "hostile")).status == 500, "it was asked"


@on_uvloop
async def test_failures_of_two_callers_open_a_breaker(net: Net) -> None:
    upstream = Failing(*BUSY[:2])
    gateway = await with_keys(net, upstream, "k1", retries=0, breaker=BreakerSettings(failures=3, window=30, open=60))
    for secret in (HOSTILE, OTHER, HOSTILE):
        await ask(gateway, secret, "hostile")
    assert (await ask(gateway, OTHER)).error["reason"] == "breaker_open"
    assert net.warned("'up' keeps failing") == 1


@on_uvloop
async def test_a_probe_whose_model_thinks_keeps_nobody_waiting(net: Net) -> None:
    class Thinking(Failing):
        async def answer(self, peer: Peer, sent: dict[str, Any], is_hostile: bool) -> None:
            if is_hostile and len(self.seen) > 1:
                role = b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"role":"assistant"}}]}\n\n'
                await peer.send(SSE_HEAD + chunk(role))
                await peer.until_gone()
            else:
                await super().answer(peer, sent, is_hostile)

    upstream = Thinking(*BUSY[:2])
    breaker = BreakerSettings(failures=1, window=30, open=0.05)
    gateway = await net.gateway(await net.upstream(upstream), retries=0, breaker=breaker)
    await gateway.ask("POST", NATIVE, {**QUERY, "query": "hostile", "model": "m"})
    targets = gateway.running.engine.targets
    await until(lambda: targets.breaker_states()["up"] == "probing")
    client = await gateway.connect()
    client.request("POST", NATIVE, {**QUERY, "query": "hostile", "model": "m"})
    await until(lambda: targets.breaker_states()["up"] == "closed")
    assert (await gateway.ask("POST", NATIVE, {**QUERY, "model": "m"})).text == "Hello"
    client.close()
    assert net.warned("'up' keeps failing") == 1


@pytest.mark.usefixtures("quick_retries")
@on_uvloop
async def test_retries_of_one_caller_leave_half_of_them_to_others(net: Net) -> None:
    upstream = Failing(*BUSY[:2])
    gateway = await with_keys(net, upstream, "k1", retries=2, breaker=None)
    for _ in range(10):
        await ask(gateway, HOSTILE, "hostile")
    upstream.seen.clear()
    await ask(gateway, OTHER, "hostile")
    assert len(upstream.seen) == 3


# ---- credentials -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("targets", [0, 2])
@on_uvloop
async def test_a_refusal_of_one_caller_sets_no_key_and_no_target_aside(net: Net, targets: int) -> None:
    upstream = Failing("401 Unauthorized", REFUSED)
    keys = ("k1",) if targets else ("k1", "k2")
    gateway = await with_keys(net, upstream, *keys, targets=targets, retries=0)
    for _ in range(2):
        assert (await ask(gateway, OTHER)).text == "Hello"
    for _ in range(4):
        assert (await ask(gateway, HOSTILE, "hostile")).status == 502
    for _ in range(2):
        assert (await ask(gateway, OTHER)).text == "Hello"
    conditions = {condition for *_, condition, _ in gateway.running.engine.list_targets()}
    assert conditions == {"ready"}
    net.warned("refuses our credentials")


@pytest.mark.parametrize("secrets", [(HOSTILE,), (HOSTILE, OTHER)])
@on_uvloop
async def test_a_path_out_of_scope_sets_no_key_aside(net: Net, secrets: tuple[str, ...]) -> None:
    upstream = Failing("401 Unauthorized", REFUSED)
    gateway = await with_keys(net, upstream, "k1", "k2")
    for _ in range(3):
        for secret in secrets:
            assert (await passed(gateway, secret, "/v1/hostile")).status == 502
    assert (await ask(gateway, OTHER)).text == "Hello"
    net.warned("refuses our credentials")


@on_uvloop
async def test_a_path_that_was_served_says_that_a_key_is_refused(net: Net) -> None:
    upstream = Failing("200 OK", b"{}")
    settings = settings_for((await net.upstream(upstream)).url, lane=LANE)
    asked = dataclasses.replace(settings.models["m"].upstream, api_key=Secret("k1"), more_api_keys=(Secret("k2"),))
    models = {"m": dataclasses.replace(settings.models["m"], upstream=asked)}
    running = await start(dataclasses.replace(settings, models=models, upstreams={"up": asked}))
    gateway = Gateway(net, running)
    net.stack.push_async_callback(running.close)
    for _ in range(2):
        assert (await gateway.ask("GET", "/p/up/v1/hostile")).status == 200
    upstream.failure = "401 Unauthorized", REFUSED
    assert (await gateway.ask("GET", "/p/up/v1/hostile")).status == 502
    for _ in range(2):
        assert (await gateway.ask("POST", NATIVE, {**QUERY, "model": "m"})).text == "Hello"
    assert upstream.credentials == ["k1", "k2", "k1", "k2", "k2"]
    net.warned("refuses our credentials")


@on_uvloop
async def test_a_path_out_of_scope_sets_no_token_aside(net: Net) -> None:
    upstream = Failing("401 Unauthorized", REFUSED)
    identity = IdentitySettings(command=("sh", "-c", "echo tok-0123456789"))
    gateway = await net.gateway(await net.upstream(upstream), keys=KEYS, lane=LANE, identity=identity, retries=0)
    assert (await ask(gateway, OTHER)).text == "Hello"
    for _ in range(3):
        assert (await passed(gateway, HOSTILE, "/v1/hostile")).status == 502
    for _ in range(2):
        assert (await ask(gateway, OTHER)).text == "Hello"
    assert set(upstream.credentials) == {"tok-0123456789"}
    net.warned("refuses our credentials")


@on_uvloop
async def test_a_limit_of_one_model_leaves_the_keys_to_others(net: Net) -> None:
    upstream = Failing("429 Too Many Requests", b"{}", "Retry-After: 30")
    gateway = await with_keys(net, upstream, "k1", "k2", retries=0)
    for _ in range(2):
        assert (await ask(gateway, HOSTILE, "hostile")).status == 429
    assert (await ask(gateway, OTHER, model="small")).text == "Hello"
    assert (await ask(gateway, OTHER)).error["reason"] == "upstream_keys"


# ---- counts ----------------------------------------------------------------------------------------------------------


@on_uvloop
async def test_counts_that_are_refused_to_one_caller_are_made_for_another(net: Net) -> None:
    class Counting(Scripted):
        async def answer(self, peer: Peer, sent: dict[str, Any], is_hostile: bool) -> None:
            text = {"error": {"message": "No route for requests with images"}} if is_hostile else {"input_tokens": 12}
            status = "404 Not Found" if is_hostile else "200 OK"
            await peer.answer(status, json.dumps(text).encode(), "Content-Type: application/json")

    settings = settings_for((await net.upstream(Counting())).url, keys=KEYS)
    gateway = Gateway(net, await start(settings))
    net.stack.push_async_callback(gateway.running.close)

    async def counted(secret: str, text: str) -> Response:
        body = {"model": "claude", "messages": [{"role": "user", "content": text}]}
        headers = {"authorization": f"Bearer {secret}"}
        return await gateway.ask("POST", "/v1/messages/count_tokens", body, headers)

    for _ in range(2):
        assert (await counted(HOSTILE, "hostile")).headers["x-gai-usage-source"] == "estimated"
        assert (await counted(OTHER, "hi")).json == {"input_tokens": 12}


@on_uvloop
async def test_the_last_hour_has_each_callers_requests_whatever_another_sends(net: Net) -> None:
    admin = "sk-admin-0123456789"
    keys = (*KEYS, KeySettings("admin", (key_digest(admin),), role="admin"))
    settings = settings_for((await net.upstream(Failing(*BUSY[:2]))).url, keys=keys)
    gateway = Gateway(net, await start(settings))
    net.stack.push_async_callback(gateway.running.close)
    for number in range(40):
        await ask(gateway, HOSTILE, "hostile", model=f"made-up-{number}", request_id=f"x{number}")
    await ask(gateway, HOSTILE, "hostile")
    assert (await ask(gateway, OTHER)).text == "Hello"
    answered = await gateway.ask("GET", "/admin/v1/history", None, {"authorization": f"Bearer {admin}"})
    slot = answered.json["data"][-1]
    assert (slot["errors"], slot["client_errors"], sum(slot["first_token_seconds"])) == (41, 40, 1)
    assert len(slot["kinds"]) == 2


# ---- answers of a condition, redirects -------------------------------------------------------------------------------


@on_uvloop
async def test_an_answer_to_a_condition_is_passed_through_and_no_fault(net: Net) -> None:
    upstream = Failing("304 Not Modified", b"", 'ETag: "a"')
    gateway = await with_keys(net, upstream, "k1", breaker=BreakerSettings(failures=1, window=0.001, open=60))
    for secret in (HOSTILE, OTHER):
        response = await passed(gateway, secret, "/v1/hostile", **{"if-none-match": '"a"'})
        assert (response.status, response.headers["etag"], bytes(response.body)) == (304, '"a"', b"")
        assert "content-length" not in response.headers
    assert (await ask(gateway, OTHER)).text == "Hello"


@on_uvloop
async def test_a_redirect_of_a_path_is_refused_and_no_fault(net: Net) -> None:
    upstream = Failing("302 Found", b"", "Location: http://127.0.0.1:9/secret")
    gateway = await with_keys(net, upstream, "k1", breaker=BreakerSettings(failures=1, window=0.001, open=60))
    for secret in (HOSTILE, OTHER):
        response = await passed(gateway, secret, "/v1/hostile")
        assert (response.status, response.error["reason"]) == (503, "redirect")
    assert (await ask(gateway, OTHER)).text == "Hello"
    assert net.warned("answered with a redirect (302)") == 1


# ---- a limit that is waited for --------------------------------------------------------------------------------------


@pytest.mark.parametrize("durable", [False, True])
@on_steady_loop
async def test_a_limit_that_outlasts_commit_after_is_told_by_its_status(net: Net, durable: bool) -> None:
    """The SDKs retry a 429 with `Retry-After`, and no error within a stream."""
    upstream = Failing("429 Too Many Requests", b"{}", "retry-after-ms: 200")
    url = (await net.upstream(upstream)).url
    gateway = await gateway_for(net, url, retries=2, commit_after=0.1, model={"wait_for_limit": 0.5})
    body = {**QUERY, "query": "hostile", "model": "m", "resumable": durable}
    response = await gateway.ask("POST", NATIVE, body)
    assert (response.status, response.error["code"]) == (429, "rate_limited")
    assert "retry-after" in response.headers
    assert len(upstream.seen) > 1


# ---- large requests --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "pieces"), [(NATIVE, 1), (f"{NATIVE}?format=openai", 2)])
@on_uvloop
async def test_large_requests_wait_for_the_turn_of_their_caller(
    net: Net, monkeypatch: pytest.MonkeyPatch, path: str, pieces: int
) -> None:
    upstream, do, callers = Scripted(), Beside.do, []
    gateway = await with_keys(net, upstream, "k1")

    def noted(beside: Beside, work: Any, caller: str = "nobody") -> Any:
        callers.append(caller)
        return do(beside, work, caller)

    monkeypatch.setattr(Beside, "do", noted)
    body = {"model": "m", "stream": True, "messages": MESSAGES * (2 * LIMITS.turn_containers)}
    for secret in (HOSTILE, OTHER):
        response = await gateway.ask("POST", path, body, {"authorization": f"Bearer {secret}"})
        assert response.status == 200
    assert callers == ["hostile"] * pieces + ["other"] * pieces


@on_uvloop
async def test_a_large_request_that_finds_no_room_is_refused_and_no_fault_of_its_upstream(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream = Scripted()
    gateway = await with_keys(net, upstream, "k1", breaker=BreakerSettings(failures=1, window=0.001, open=60))
    monkeypatch.setattr("gai_fast.runtime.beside.LIMITS", replaced(beside_waiting=0))
    body = {"model": "m", "messages": MESSAGES * (2 * LIMITS.turn_containers)}
    response = await gateway.ask("POST", NATIVE, body, {"authorization": f"Bearer {HOSTILE}"})
    assert (response.status, response.error["reason"], len(upstream.seen)) == (503, "large_requests", 0)
    assert (await ask(gateway, OTHER)).text == "Hello"
