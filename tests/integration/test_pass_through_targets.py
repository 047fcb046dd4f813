"""A model with several targets whose requests are passed through: which target answers when another one fails.

`test_pass_through.py` has one upstream, `test_balance.py` the targets of streams.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Final

import openai
import pytest

from gai_fast.model.money import UNIT
from gai_fast.model.settings import (
    BreakerSettings,
    ModelSettings,
    Price,
    PriceSettings,
    SpendLimit,
    TargetSettings,
    UpstreamSettings,
)
from gai_fast.model.settings import KeyLimits as Limits
from gai_fast.server.serving import start
from tests.integration.gateway import Gateway, Net, Peer, Response, on_both_loops, on_uvloop, settings_for
from tests.integration.test_balance import Figures
from tests.integration.test_pass_through import ASK, EMBEDDINGS, LANE, bearer, key
from tests.waiting import until
from tests.wire import chunk

Step = Callable[[Peer], Awaitable[bool]]
"""Answers a request; returns whether the connection stays."""
IMAGE: Final = {"created": 1, "data": [{"b64_json": "aGk="}]}
MODERATION: Final = {"id": "modr-1", "model": "m", "results": []}
SPEECH: Final = b"ID3" * 1000
EMBED: Final = "/v1/embeddings"
COMPUTED: Final = (EMBED, "/v1/moderations", "/v1/rerank")
CARRIED_OUT: Final = ("/v1/images/generations", "/v1/audio/speech")


def path_of(peer: Peer) -> str:
    return peer.head.split(b" ", 2)[1].decode()


async def works(peer: Peer) -> bool:
    path = path_of(peer)
    if path.endswith("/audio/speech"):
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\nTransfer-Encoding: chunked\r\n\r\n")
        await peer.send(chunk(SPEECH), b"0\r\n\r\n")
        return True
    answers = {"embeddings": EMBEDDINGS, "generations": IMAGE, "moderations": MODERATION}
    body = json.dumps(answers.get(path.rpartition("/")[2], {"results": []})).encode()
    await peer.answer("200 OK", body, "Content-Type: application/json")
    return True


def says(status: str, body: bytes = b'{"error":{"message":"no"}}', *headers: str) -> Step:
    async def step(peer: Peer) -> bool:
        await peer.answer(status, body, "Content-Type: application/json", *headers)
        return True

    return step


def breaks(*sent: bytes) -> Step:
    """Sends a part of an answer, and closes the connection."""

    async def step(peer: Peer) -> bool:
        await peer.send(*sent)
        return False

    return step


FAILS: Final = says("500 Oops")
LIMITED: Final = says("429 Too Many Requests", b'{"error":{"message":"slow down"}}', "Retry-After: 30")
CLOSES: Final = breaks()


class Target:
    """An upstream that answers by one step after the other, and then works.

    Args:
        steps: What it does with the first requests.
        is_dead: Nothing listens at its port.
        more: Its settings, if they differ.
    """

    def __init__(self, *steps: Step, is_dead: bool = False, **more: Any) -> None:
        self.steps = list(steps)
        self.is_dead = is_dead
        self.more = more
        self.paths: list[str] = []
        self.heads: list[str] = []
        self.bodies: list[Any] = []

    async def __call__(self, peer: Peer) -> None:
        while True:
            body = await peer.request()
            self.paths.append(path_of(peer))
            self.heads.append(peer.head.decode().lower())
            self.bodies.append(json.loads(body))
            step = self.steps.pop(0) if self.steps else works
            if not await step(peer):
                return


async def spread(net: Net, *targets: Target, model: dict[str, Any] | None = None, **options: Any) -> Gateway:
    """Returns a gateway whose model `m` has these targets, named `t0`, `t1`, …, asked in this order."""
    settings = settings_for("http://127.0.0.1:9", lane=LANE, **options)
    common = settings.models["m"].upstream
    upstreams: dict[str, UpstreamSettings] = {}
    made: list[TargetSettings] = []
    for at, target in enumerate(targets):
        upstream = await net.upstream(target)
        more = {"base_url": f"{upstream.url}/v1", **target.more}
        if "provider" in target.more:
            more["base_url"] = upstream.url
        if target.is_dead:
            await upstream.stop()
        upstreams[f"t{at}"] = replace(common, name=f"t{at}", **more)
        made.append(TargetSettings(upstreams[f"t{at}"], f"mock-{at}", 1))
    first = replace(settings.models["m"], upstream=made[0].upstream, id="mock-0", targets=tuple(made), **(model or {}))
    spare = ModelSettings("spare", made[-1].upstream, "spare", settings.stream)
    running = await start(replace(settings, upstreams=upstreams, models={"m": first, "spare": spare}))
    net.gateways.append(Gateway(net, running))
    net.stack.push_async_callback(running.close)
    return net.gateways[-1]


async def ask(gateway: Gateway, path: str = EMBED, body: Any = None, **headers: str) -> Response:
    return await gateway.ask("POST", path, ASK if body is None else body, headers)


def sdk(net: Net, gateway: Gateway, api_key: str = "none", **more: Any) -> openai.AsyncOpenAI:
    client = openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=api_key, **{"max_retries": 0, **more})
    net.stack.push_async_callback(client.close)
    return client


async def by_sdk(client: openai.AsyncOpenAI, path: str, **more: Any) -> tuple[str, Any]:
    """Returns the upstream that has answered, and what the SDK makes of the answer."""
    if path == EMBED:
        raw = await client.embeddings.with_raw_response.create(
            model="m", input="hello", encoding_format="float", **more
        )
        return raw.headers["x-gai-upstream"], raw.parse().data[0].embedding
    if path == "/v1/images/generations":
        image = await client.images.with_raw_response.generate(model="m", prompt="a cat", **more)
        found = image.parse().data
        return image.headers["x-gai-upstream"], found and found[0].b64_json
    speech = await client.audio.speech.with_raw_response.create(model="m", input="hi", voice="alloy", **more)
    return speech.headers["x-gai-upstream"], speech.parse().content


GOT: Final = {EMBED: [0.25, -0.5, 1.0], "/v1/images/generations": "aGk=", "/v1/audio/speech": SPEECH}


def conditions(gateway: Gateway) -> list[str]:
    return [condition for model, _, condition, _ in gateway.running.engine.list_targets() if model == "m"]


async def is_idle(gateway: Gateway) -> bool:
    """Waits until no request has a place at a target, a key or the server."""
    engine = gateway.running.engine
    await until(lambda: not engine.transfers)
    live = [streams for model, _, _, streams in engine.list_targets() if model == "m"]
    return not any(live) and engine.running == sum(engine.callers.values()) == 0


# ---- what the SDK gets -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", GOT)
@on_both_loops
async def test_a_target_that_takes_no_connection_is_followed_by_another(net: Net, path: str) -> None:
    dead, live = Target(is_dead=True), Target()
    gateway = await spread(net, dead, live)
    assert await by_sdk(sdk(net, gateway), path) == ("t1", GOT[path])
    assert (live.paths, [body["model"] for body in live.bodies]) == ([path], ["mock-1"])
    assert await is_idle(gateway)
    net.logged.clear()


@pytest.mark.parametrize("step", [FAILS, LIMITED, CLOSES, says("401 Unauthorized"), says("404 Not Found")])
@on_both_loops
async def test_what_only_computes_is_asked_of_another_target_after_any_failure(net: Net, step: Step) -> None:
    first, second = Target(step), Target()
    gateway = await spread(net, first, second)
    assert await by_sdk(sdk(net, gateway), EMBED) == ("t1", GOT[EMBED])
    assert ([body["model"] for body in first.bodies], len(second.bodies)) == (["mock-0"], 1)
    assert await is_idle(gateway)
    net.logged.clear()


@pytest.mark.parametrize("path", CARRIED_OUT)
@pytest.mark.parametrize(
    ("step", "status"), [(FAILS, 500), (LIMITED, 429), (CLOSES, 502), (says("503 Busy", b"{}", "Retry-After: 9"), 503)]
)
@on_both_loops
async def test_what_may_have_been_carried_out_is_asked_of_no_other_target(
    net: Net, step: Step, status: int, path: str
) -> None:
    first, second = Target(step), Target()
    gateway = await spread(net, first, second, retries=2)
    with pytest.raises(openai.APIStatusError) as failed:
        await by_sdk(sdk(net, gateway), path, extra_headers={"Idempotency-Key": "k1"})
    assert failed.value.status_code == status
    assert (len(first.paths), second.paths) == (1, [])
    assert "idempotency-key: k1\r\n" in first.heads[0]
    assert await is_idle(gateway)
    assert await by_sdk(sdk(net, gateway), path) == ("t1", GOT[path])  # the SDK's own retry would get this
    net.logged.clear()


@pytest.mark.parametrize("path", CARRIED_OUT)
@on_uvloop
async def test_the_sdk_itself_asks_again_what_was_refused_for_a_limit(net: Net, path: str) -> None:
    first = Target(says("429 Too Many Requests", b"{}", "Retry-After: 30", "Retry-After-Ms: 20"))
    gateway = await spread(net, first, Target())
    assert await by_sdk(sdk(net, gateway, max_retries=1), path) == ("t1", GOT[path])
    net.logged.clear()


@pytest.mark.parametrize("path", COMPUTED)
@on_uvloop
async def test_every_route_that_only_computes_has_its_other_targets(net: Net, path: str) -> None:
    gateway = await spread(net, Target(FAILS), Target())
    answer = await ask(gateway, path)
    assert (answer.status, answer.headers["x-gai-upstream"], answer.headers["x-gai-model"]) == (200, "t1", "m")
    net.logged.clear()


# ---- the rules of streams --------------------------------------------------------------------------------------------


@on_uvloop
async def test_a_target_is_asked_again_as_often_as_retries_says_before_another(net: Net) -> None:
    first, second = Target(FAILS), Target()
    gateway = await spread(net, first, second, retries=1)
    answer = await ask(gateway)
    assert (answer.status, answer.headers["x-gai-upstream"]) == (200, "t0")
    assert (len(first.paths), second.paths) == (2, [])
    first = Target(CLOSES, CLOSES)
    gateway = await spread(net, first, second, retries=1)
    answer = await ask(gateway)
    assert (answer.status, answer.headers["x-gai-upstream"]) == (200, "t1")
    assert (len(first.paths), len(second.paths)) == (2, 1)
    metrics = (await gateway.ask("GET", "/metrics")).body.decode()
    assert re.search(r"^gai_fast_retries_total\S* 2(?:\.0)?$", metrics, re.MULTILINE), metrics
    net.logged.clear()


@on_uvloop
async def test_a_request_that_the_client_repeats_itself_is_asked_of_another_target_at_once(net: Net) -> None:
    first = Target(FAILS)
    gateway = await spread(net, first, Target(), retries=1)
    answer = await ask(gateway, **{"x-stainless-retry-count": "1"})
    assert (answer.status, answer.headers["x-gai-upstream"], len(first.paths)) == (200, "t1", 1)
    net.logged.clear()


@on_uvloop
async def test_a_fault_of_the_request_goes_to_no_other_target(net: Net) -> None:
    body = b'{"error": {"message": "no such dimensions", "param": "dimensions"}}'
    second = Target()
    gateway = await spread(net, Target(says("400 Bad Request", body)), second, retries=2)
    answer = await ask(gateway)
    assert (answer.status, bytes(answer.body), second.paths) == (400, body, [])
    net.logged.clear()


@on_uvloop
async def test_the_answer_of_the_last_target_is_the_clients(net: Net) -> None:
    gateway = await spread(net, Target(CLOSES), Target(FAILS), Target(says("503 Busy", b"busy", "X-Kind: last")))
    answer = await ask(gateway)
    assert (answer.status, bytes(answer.body), answer.headers["x-kind"]) == (503, b"busy", "last")
    assert answer.headers["x-gai-upstream"] == "t2"
    gateway = await spread(net, Target(FAILS), Target(is_dead=True))
    answer = await ask(gateway)
    assert (answer.status, answer.error["code"]) == (502, "network")
    gateway = await spread(net, Target(CLOSES), Target(says("401 Unauthorized", b'{"error": {"message": "bad"}}')))
    answer = await ask(gateway)
    assert (answer.status, answer.error["code"]) == (502, "provider_unavailable")
    assert await is_idle(gateway)
    net.logged.clear()


@on_uvloop
async def test_a_target_with_a_limit_is_left_alone_and_the_shortest_wait_is_named(net: Net) -> None:
    long = says("429 Too Many Requests", b"{}", "Retry-After: 90", "Retry-After-Ms: 90000")
    first, second = Target(LIMITED), Target(long)
    gateway = await spread(net, first, second, model={"wait_for_limit": 0.0})
    answer = await ask(gateway)
    assert (answer.status, bytes(answer.body), answer.headers["x-gai-upstream"]) == (429, b"{}", "t1")
    assert 25 <= int(answer.headers["retry-after"]) <= 30
    assert "retry-after-ms" not in answer.headers
    assert conditions(gateway) == ["cooling", "cooling"]
    answer = await ask(gateway)
    assert (answer.status, "has asked for a pause" in answer.error["message"]) == (429, True)
    assert (len(first.paths), len(second.paths)) == (1, 1)
    assert await is_idle(gateway)
    net.logged.clear()


@on_uvloop
async def test_a_short_limit_of_the_last_target_is_waited_for(net: Net) -> None:
    short = says("429 Too Many Requests", b"{}", "Retry-After-Ms: 20")
    second = Target(short)
    gateway = await spread(net, Target(LIMITED), second, retries=1)
    answer = await ask(gateway)
    assert (answer.status, answer.headers["x-gai-upstream"], len(second.paths)) == (200, "t1", 2)
    net.logged.clear()


@pytest.mark.parametrize("path", [EMBED, "/v1/audio/speech"])
@on_uvloop
async def test_the_breaker_of_a_target_counts_its_failures_alone(net: Net, path: str) -> None:
    first, second = Target(*3 * [FAILS]), Target()
    gateway = await spread(net, first, second, breaker=BreakerSettings(failures=2, open=1000.0))
    for _ in range(40):  # a target that has failed gets a tenth of its share
        await ask(gateway, path)
    assert len(first.paths) == 2
    assert gateway.running.engine.targets.breaker_states() == {"t0": "open", "t1": "closed"}
    net.logged.clear()


@on_uvloop
async def test_no_fallback_is_asked(net: Net) -> None:
    """Another model's embeddings cannot be compared with those that the client has."""
    fallback = {"fallback": ("spare",), "fallback_on": {"provider_unavailable": "spare"}}
    gateway = await spread(net, Target(FAILS), Target(FAILS), model=fallback)
    assert (await ask(gateway)).status == 500
    net.logged.clear()


@on_uvloop
async def test_a_drained_target_is_asked_no_more(net: Net) -> None:
    first, second = Target(), Target(FAILS)
    gateway = await spread(net, first, second)
    assert gateway.running.engine.targets.drain("m", "t0", "mock-0")
    assert (await ask(gateway)).status == 500
    assert (first.paths, len(second.paths)) == ([], 1)
    net.logged.clear()


# ---- until the first byte --------------------------------------------------------------------------------------------


@on_uvloop
async def test_another_target_is_asked_until_a_byte_of_an_answer_has_come(net: Net) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 90\r\n\r\n"
    second = Target()
    gateway = await spread(net, Target(breaks(head)), second)
    answer = await ask(gateway)
    assert (answer.status, answer.json, answer.headers["x-gai-upstream"]) == (200, EMBEDDINGS, "t1")
    gateway = await spread(net, Target(breaks(head, b"{")), second)
    answer = await ask(gateway)
    assert (answer.status, answer.error["code"], len(second.paths)) == (502, "network", 1)
    assert await is_idle(gateway)
    net.logged.clear()


@on_uvloop
async def test_a_long_error_is_followed_by_another_target(net: Net) -> None:
    gateway = await spread(net, Target(says("500 Oops", b"x" * 300_000)), Target())
    answer = await ask(gateway)
    assert (answer.status, answer.json, answer.headers["x-gai-upstream"]) == (200, EMBEDDINGS, "t1")
    assert await is_idle(gateway)
    net.logged.clear()


@on_uvloop
async def test_a_body_of_any_size_is_sent_to_the_next_target(net: Net) -> None:
    texts = 20_000 * [
        "a hundred characters of a text that is to be embedded, one of very many that come together in one"
    ]
    second = Target()
    gateway = await spread(net, Target(CLOSES), second)
    assert (await ask(gateway, body={"input": texts, "model": "m"})).status == 200
    assert second.bodies == [{"input": texts, "model": "mock-1"}]
    net.logged.clear()


@on_uvloop
async def test_a_client_that_leaves_while_the_next_attempt_waits_ends_the_request(net: Net) -> None:
    second = Target(says("429 Too Many Requests", b"{}", "Retry-After-Ms: 3000"))
    gateway = await spread(net, Target(LIMITED), second, retries=1)
    client = await gateway.connect()
    client.request("POST", EMBED, ASK)
    await until(lambda: bool(second.paths))
    await asyncio.sleep(0)
    client.reset()
    assert await is_idle(gateway)
    assert len(second.paths) == 1
    net.logged.clear()


# ---- which targets ---------------------------------------------------------------------------------------------------


@on_uvloop
async def test_a_target_without_the_route_is_skipped(net: Net) -> None:
    without = {"provider": "anthropic"}, {"pass_paths": ("/v1/moderations",)}
    for more in without:
        other, second = Target(**more), Target()
        gateway = await spread(net, other, second)
        for _ in range(3):
            assert (await ask(gateway)).headers["x-gai-upstream"] == "t1"
        second.steps = [FAILS]
        assert (await ask(gateway)).status == 500  # nobody else has it
        second.steps = [LIMITED]
        assert [(await ask(gateway)).status for _ in range(2)] == [429, 429]
        assert other.paths == []
    gateway = await spread(net, Target(provider="anthropic"), Target(provider="anthropic"))
    answer = await ask(gateway)
    assert (answer.status, answer.error["code"]) == (400, "unsupported")
    gateway = await spread(net, Target(pass_paths=("/v1/rerank",)), Target(pass_paths=("/v1/rerank",)))
    answer = await ask(gateway)
    assert (answer.status, "no upstream offers" in answer.error["message"]) == (404, True)
    net.logged.clear()


@on_uvloop
async def test_each_target_has_its_own_path_and_key(net: Net) -> None:
    azure = Target(provider="azure", extra={"api_version": "2024-10-21"})
    gateway = await spread(net, Target(FAILS), Target(FAILS, provider="groq"), azure)
    answer = await gateway.ask("POST", f"{EMBED}?x=1", ASK)
    assert (answer.status, answer.headers["x-gai-upstream"]) == (200, "t2")
    assert azure.paths == ["/openai/deployments/mock-2/embeddings?api-version=2024-10-21&x=1"]
    assert ("api-key: " in azure.heads[0], "authorization: " in azure.heads[0]) == (True, False)
    net.logged.clear()


@on_uvloop
async def test_an_upstreams_own_path_has_no_other_target(net: Net) -> None:
    second = Target()
    gateway = await spread(net, Target(FAILS), second)
    assert (await ask(gateway, "/p/t0/v1/embeddings")).status == 500
    assert second.paths == []
    net.logged.clear()


@on_uvloop
async def test_a_conversation_is_compacted_by_the_next_target_if_the_first_takes_no_connection(net: Net) -> None:
    native = {"provider": "openai-compatible:responses", "pass_paths": ("/v1/responses/compact",)}
    second = Target(**native)
    gateway = await spread(net, Target(is_dead=True, **native), second)
    ask_for = {"model": "m", "input": "hi"}
    answer = await ask(gateway, "/v1/responses/compact", ask_for)
    assert (answer.status, answer.headers["x-gai-upstream"]) == (200, "t1")
    assert second.bodies == [{**ask_for, "model": "mock-1"}]
    gateway = await spread(net, Target(CLOSES, **native), second)
    assert (await ask(gateway, "/v1/responses/compact", ask_for)).status == 502
    assert len(second.paths) == 1
    other = Target(provider="anthropic")
    gateway = await spread(net, other, second)
    assert (await ask(gateway, "/v1/responses/compact", ask_for)).headers["x-gai-upstream"] == "t1"
    assert other.paths == []
    net.logged.clear()


# ---- figures and spend -----------------------------------------------------------------------------------------------


def priced(amount: int) -> Price:
    return Price(amount * UNIT, 0, amount * UNIT, 0, 0)


async def charged(net: Net, gateway: Gateway, alice: str = "sk-alice-0123456789") -> str:
    raw = await sdk(net, gateway, alice).embeddings.with_raw_response.create(
        model="m", input="hello", encoding_format="float"
    )
    return f"{raw.headers['x-gai-upstream']} {raw.headers['x-gai-cost']}"


@on_both_loops
async def test_the_figures_and_the_charge_are_those_of_the_target_that_answers(net: Net) -> None:
    listed = {("openai-compatible", f"mock-{at}"): priced(1000 * (at + 1)) for at in range(2)}
    alice = key("alice", limits=Limits(spend=SpendLimit(UNIT, "day")))
    gateway = await spread(net, Target(FAILS), Target(), keys=(alice,), prices=PriceSettings(listed=listed))
    figures = Figures()
    gateway.running.engine.sinks.append(figures)
    assert await charged(net, gateway) == "t1 0.016"  # 8 tokens
    await until(lambda: not gateway.running.engine.transfers)
    rows = await gateway.running.engine.ledger.spend("upstream")
    assert [(row.value, row.amount) for row in rows] == [("t1", 16 * UNIT // 1000)]
    (one,) = figures.streams
    assert (one.upstream, one.model, one.retries, one.outcome, one.code) == ("t1", "m", 1, "finished", None)
    assert (one.usage and one.usage["input_tokens"], [each.upstream for each in one.charges]) == (8, ["t1"])
    net.logged.clear()


@on_uvloop
async def test_a_key_with_a_limit_of_spend_is_answered_by_the_targets_whose_cost_is_known(net: Net) -> None:
    alice = key("alice", limits=Limits(spend=SpendLimit(UNIT, "day")))
    listed = {("openai-compatible", "mock-1"): Price(0, 0, 0, 0, 0, request=UNIT // 100)}
    first, second = Target(), Target()
    gateway = await spread(net, first, second, keys=(alice,), prices=PriceSettings(listed=listed))
    for _ in range(3):
        assert await by_sdk(sdk(net, gateway, "sk-alice-0123456789"), "/v1/audio/speech") == ("t1", SPEECH)
    assert (first.paths, len(second.paths)) == ([], 3)
    second.steps = [FAILS]
    assert (await ask(gateway, "/v1/audio/speech", **bearer("alice"))).status == 500
    assert first.paths == []
    net.logged.clear()


@on_uvloop
async def test_what_is_reserved_is_enough_for_the_dearest_target(net: Net) -> None:
    may_answer = asyncio.Event()

    async def waits(peer: Peer) -> bool:
        await may_answer.wait()
        return await works(peer)

    alice = key("alice", limits=Limits(spend=SpendLimit(UNIT, "day")))
    listed = {("openai-compatible", "mock-0"): priced(1), ("openai-compatible", "mock-1"): priced(80_000)}
    first, second = Target(waits), Target()
    gateway = await spread(net, first, second, keys=(alice,), prices=PriceSettings(listed=listed))
    one = asyncio.ensure_future(ask(gateway, **bearer("alice")))
    await until(lambda: bool(first.paths))
    refused = await ask(gateway, **bearer("alice"))  # in turn of the dearest, which the other one may still need
    assert (refused.status, second.paths) == (429, [])
    may_answer.set()
    assert (await one).status == 200
    answers = [await ask(gateway, **bearer("alice")) for _ in range(2)]
    assert sorted([each.headers["x-gai-cost"] for each in answers]) == ["0.000008", "0.64"]
    net.logged.clear()
