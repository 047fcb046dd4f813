"""Targets of a model over real sockets: the choice, failures, keys, hedges. Counts, not times, are compared."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections import Counter
from typing import Any

import pytest

from gai_fast.model.metrics import StreamMetrics
from gai_fast.model.settings import ModelSettings, Price, Secret, TargetSettings
from gai_fast.server.serving import start
from tests.integration.gateway import (
    CHAT,
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
    on_both_loops,
    on_uvloop,
    settings_for,
)
from tests.integration.test_retry import BUSY, CLAUDE, DONE, ROLE, Step, answer, claude
from tests.limits import LIMITS
from tests.waiting import until
from tests.wire import chunk

LIMITED = ("429 Too Many Requests", b'{"error":{"message":"slow down"}}', "Retry-After: 30")
HELLO = answer()
REFUSED = ("401 Unauthorized", b'{"error":{"message":"no","code":"invalid_api_key"}}')


class Target:
    """An upstream that answers by its present step, whoever asks: `Step`, or a time to first token in seconds."""

    def __init__(self, step: Step | float = HELLO) -> None:
        self.step = step
        self.limited: str | None = None
        """A key whose requests are limited, whatever the step is."""
        self.calls = 0
        self.gone = 0
        """Requests whose connection the gateway closed before their answer was complete."""
        self.keys: list[str] = []
        self.bodies: list[Any] = []

    async def __call__(self, peer: Peer) -> None:
        while True:
            asked = await peer.request()
            self.calls += 1
            self.bodies.append(json.loads(asked))
            head = peer.head.decode().lower()
            self.keys.append(head.partition("authorization: bearer ")[2].partition("\r\n")[0])
            step = LIMITED if self.keys[-1] == self.limited else self.step
            if isinstance(step, float):
                await asyncio.sleep(step)
                await peer.send(answer())
            elif step is None:
                await peer.until_gone()
                self.gone += 1
                return
            elif isinstance(step, tuple):
                status, text, *headers = step
                await peer.answer(status, text, "Content-Type: application/json", *headers)
            else:
                await peer.send(step)
                if not step.endswith(LAST_CHUNK):
                    await peer.until_gone()
                    self.gone += 1
                    return


class Figures:
    """Collects the figures of streams."""

    def __init__(self) -> None:
        self.streams: list[StreamMetrics] = []

    def stream_ended(self, metrics: StreamMetrics) -> None:
        self.streams.append(metrics)


async def balanced(
    net: Net,
    *targets: Target,
    model: dict[str, Any] | None = None,
    upstream: dict[str, Any] | None = None,
    backup: Target | None = None,
    weights: tuple[int, ...] = (),
    **options: Any,
) -> Gateway:
    """Returns a gateway whose model `m` has these targets, named `t0`, `t1`, …"""
    settings = settings_for("http://127.0.0.1:9", **{"retries": 0, **options})
    common = settings.models["m"].upstream
    made: list[TargetSettings] = []
    for at, target in enumerate(targets):
        url = (await net.upstream(target)).url + "/v1"
        one = dataclasses.replace(common, name=f"t{at}", base_url=url, **(upstream or {}))
        made.append(TargetSettings(one, f"mock-{at}", weights[at] if weights else 1))
    models = dict(settings.models)
    more = dict(model or {})
    if backup is not None:
        spare = dataclasses.replace(common, name="spare", base_url=(await net.upstream(backup)).url + "/v1")
        models["backup"] = ModelSettings("backup", spare, "b", models["m"].stream)
        more["fallback"] = ("backup",)
    models["m"] = dataclasses.replace(
        models["m"], upstream=made[0].upstream, id=made[0].id, targets=tuple(made), **more
    )
    running = await start(dataclasses.replace(settings, models=models))
    net.gateways.append(Gateway(net, running))
    net.stack.push_async_callback(running.close)
    return net.gateways[-1]


async def ask(gateway: Gateway, **more: Any) -> Response:
    return await gateway.ask("POST", NATIVE, {**QUERY, "model": "m", **more})


def answered_by(response: Response) -> str:
    name: str = response.events[0]["provider_metadata"]["upstream"]
    return name


def live(gateway: Gateway) -> list[int]:
    return [streams for model, _, _, streams in gateway.running.engine.list_targets() if model == "m"]


def conditions(gateway: Gateway) -> list[str]:
    return [condition for model, _, condition, _ in gateway.running.engine.list_targets() if model == "m"]


# ---- the choice ------------------------------------------------------------------------------------------------------


@on_both_loops
async def test_weights_are_kept_and_the_start_names_the_target(net: Net) -> None:
    targets = [Target(), Target(), Target()]
    gateway = await balanced(net, *targets, weights=(3, 1, 0))
    names = [answered_by(await ask(gateway)) for _ in range(8)]
    assert Counter(names) == {"t0": 6, "t1": 2}
    assert [target.calls for target in targets] == [6, 2, 0]
    assert {body["model"] for body in targets[0].bodies} == {"mock-0"}
    assert live(gateway) == [0, 0, 0]


@pytest.mark.parametrize("path", [CHAT, "/v1/messages", "/v1/responses"])
@on_uvloop
async def test_every_route_has_its_targets(net: Net, path: str) -> None:
    targets = [Target(), Target()]
    gateway = await balanced(net, *targets)
    asked: dict[str, Any] = {"model": "m", "stream": True, "max_tokens": 9}
    asked["input" if path.endswith("responses") else "messages"] = MESSAGES
    if path.endswith("responses"):
        asked["max_output_tokens"] = asked.pop("max_tokens")
    for _ in range(4):
        response = await gateway.ask("POST", path, asked)
        assert response.status == 200
    assert [target.calls for target in targets] == [2, 2]


@on_uvloop
async def test_targets_of_two_dialects_answer_one_client(net: Net) -> None:
    targets = [Target(), Target(claude(*CLAUDE))]
    gateway = await balanced(net, *targets)
    settings = gateway.running.engine.settings
    model = settings.models["m"]
    url = model.targets[1].upstream.base_url.removesuffix("/v1")
    claudes = dataclasses.replace(model.targets[1].upstream, provider="anthropic", base_url=url)
    model = dataclasses.replace(model, targets=(model.targets[0], TargetSettings(claudes, "mock-1")))
    gateway.running.use(dataclasses.replace(settings, models={"m": model}))
    texts = []
    for _ in range(4):
        response = await gateway.ask("POST", CHAT, {"model": "m", "messages": MESSAGES, "stream": True})
        assert bytes(response.body).endswith(DONE)
        pieces = [event["choices"][0]["delta"].get("content") or "" for event in response.events if event["choices"]]
        texts.append("".join(pieces))
    assert texts == ["Hello"] * 4
    assert [target.calls for target in targets] == [2, 2]


@on_uvloop
async def test_the_least_busy_target_is_asked(net: Net) -> None:
    slow = Target(SSE_HEAD + chunk(delta("a")))
    targets = [slow, Target(SSE_HEAD + chunk(delta("b")))]
    gateway = await balanced(net, *targets, model={"balance": "least_busy"})
    clients = []
    for _ in range(6):
        client, response = await gateway.stream({**QUERY, "model": "m"})
        await response.until(b"text.delta")
        clients.append(client)
    assert [target.calls for target in targets] == [3, 3]
    assert live(gateway) == [3, 3]
    for client in clients:
        client.close()
    await until(lambda: live(gateway) == [0, 0])


@on_uvloop
async def test_a_conversation_stays_at_its_target_in_every_dialect_while_one_comes_and_goes(net: Net) -> None:
    targets = [Target() for _ in range(4)]
    gateway = await balanced(net, *targets, model={"balance": "affinity"})
    engine = gateway.running.engine
    turns: dict[int, list[str]] = {}
    for turn in range(10):
        if turn == 4:
            assert engine.targets.drain("m", "t2", "mock-2")
        if turn == 6:
            assert engine.targets.restore("m", "t2", "mock-2")
        for conversation in range(12):
            first = {"role": "user", "content": f"Question {conversation}"}
            later = [{"role": "assistant", "content": "Hello"}, {"role": "user", "content": "More"}] * turn
            body = {"model": "m", "messages": [first, *later]}
            turns.setdefault(conversation, []).append(answered_by(await gateway.ask("POST", NATIVE, body)))
    for home, *names in turns.values():
        away = ["t2" not in names[3:5]] if home == "t2" else [name == home for name in names[3:5]]
        assert all(away), "only the conversations of the target that is away move"
        assert {*names[:3], *names[5:]} == {home}, "and they come back with it"


@on_uvloop
async def test_one_slow_target_of_four_gets_less_than_a_hundredth(net: Net) -> None:
    """So the 99th percentile is the other targets', which `unit/net/attempts/test_balance.py` computes."""
    targets = [Target(0.005), Target(0.005), Target(0.005), Target(0.3)]
    gateway = await balanced(net, *targets, model={"balance": "fastest"})
    for _ in range(300):
        assert (await ask(gateway)).status == 200
    assert targets[3].calls <= 3
    assert min(target.calls for target in targets[:3]) > 30


@pytest.mark.parametrize("position", range(4))
@on_uvloop
async def test_of_a_burst_right_after_the_start_one_request_meets_a_slow_target(net: Net, position: int) -> None:
    targets = [Target(0.05) for _ in range(4)]
    targets[position].step = 0.5
    gateway = await balanced(net, *targets, model={"balance": "fastest"})
    responses = await asyncio.gather(*[ask(gateway, stream=number % 2 == 0) for number in range(24)])
    assert {response.status for response in responses} == {200}
    assert targets[position].calls == 1
    assert sum(target.calls for target in targets) == 24
    assert live(gateway) == [0, 0, 0, 0]


@on_uvloop
async def test_of_a_burst_right_after_the_start_one_request_meets_a_target_that_fails(net: Net) -> None:
    class Failing(Target):
        async def __call__(self, peer: Peer) -> None:
            await peer.request()
            self.calls += 1
            await until(lambda: len(gateway.running.engine.streams) == 24)
            await peer.answer("500 Internal Server Error", b"{}")

    failing, well = Failing(), Target(0.3)
    gateway = await balanced(net, failing, well, model={"balance": "fastest"})
    responses = await asyncio.gather(*[ask(gateway) for _ in range(24)])
    assert {response.status for response in responses} == {200}
    assert (failing.calls, well.calls) == (1, 24)


async def asked(gateway: Gateway, count: int, path: str = NATIVE) -> list[Client]:
    """Clients whose requests the gateway has taken, one after the other."""
    body = {"model": "m", **(QUERY if path == NATIVE else {"messages": MESSAGES, "stream": True})}
    clients: list[Client] = []
    streams = gateway.running.engine.streams
    for _ in range(count):
        clients.append(await gateway.connect())
        clients[-1].request("POST", path, body)
        await until(lambda: len(streams) == len(clients))
    return clients


@pytest.mark.parametrize("path", [NATIVE, CHAT])
@on_both_loops
async def test_a_request_that_waits_for_a_first_token_ends_with_its_client(net: Net, path: str) -> None:
    """The request has not been sent, so nothing is charged."""
    targets = [Target(None), Target(None)]
    gateway = await balanced(net, *targets, model={"balance": "fastest", "price": Price(1, 1, 1, 1, 1)})
    figures = Figures()
    gateway.running.engine.sinks.append(figures)
    first, second, third = await asked(gateway, 3, path)
    await until(lambda: [target.calls for target in targets] == [1, 1])
    third.close()
    await until(lambda: len(figures.streams) == 1)
    first.close()
    second.close()
    await until(lambda: len(figures.streams) == 3)
    assert [bool(each.charges) for each in figures.streams] == [False, True, True]
    assert ([target.calls for target in targets], live(gateway)) == ([1, 1], [0, 0])


@on_uvloop
async def test_a_request_that_has_waited_is_refused_where_no_target_is_left(net: Net) -> None:
    targets = [Target(None), Target(None)]
    gateway = await balanced(net, *targets, model={"balance": "fastest"})
    clients = await asked(gateway, 3)
    engine = gateway.running.engine
    for at in range(2):
        assert engine.targets.drain("m", f"t{at}", f"mock-{at}")
    refused = await (await clients[2].response()).rest()
    assert (refused.status, refused.json["error"]["code"]) == (503, "overloaded")
    for client in clients:
        client.close()
    await until(lambda: live(gateway) == [0, 0])


@on_uvloop
async def test_a_request_waits_for_a_first_token_no_longer_than_a_second(net: Net) -> None:
    targets = [Target(None), Target(None)]
    gateway = await balanced(net, *targets, model={"balance": "fastest"})
    clients = await asked(gateway, 3)
    await until(lambda: sum(target.calls for target in targets) == 3)
    for client in clients:
        client.close()
    await until(lambda: live(gateway) == [0, 0])


# ---- failures --------------------------------------------------------------------------------------------------------


@on_both_loops
async def test_the_other_targets_are_asked_before_the_fallback(net: Net) -> None:
    targets, backup = [Target(BUSY), Target(BUSY), Target()], Target()
    gateway = await balanced(net, *targets, backup=backup)
    response = await ask(gateway)
    assert (response.status, answered_by(response)) == (200, "t2")
    targets[2].step = BUSY
    response = await ask(gateway)
    assert (response.status, answered_by(response)) == (200, "spare")
    assert ([target.calls for target in targets], backup.calls) == ([2, 2, 2], 1)
    assert live(gateway) == [0, 0, 0]


@pytest.mark.usefixtures("quick_retries")
@on_uvloop
async def test_retries_come_before_the_other_targets(net: Net) -> None:
    targets = [Target(BUSY), Target()]
    gateway = await balanced(net, *targets, retries=2)
    assert answered_by(await ask(gateway)) == "t1"
    assert [target.calls for target in targets] == [3, 1]


@on_uvloop
async def test_the_fault_of_a_request_goes_to_one_target(net: Net) -> None:
    targets = [Target(("400 Bad Request", b'{"error":{"message":"bad"}}')), Target()]
    gateway = await balanced(net, *targets)
    assert (await ask(gateway)).status == 400
    assert [target.calls for target in targets] == [1, 0]


@on_uvloop
async def test_a_limited_target_is_left_alone_as_long_as_it_asks(net: Net) -> None:
    targets = [Target(LIMITED), Target()]
    gateway = await balanced(net, *targets, retries=2)
    for _ in range(6):
        assert answered_by(await ask(gateway)) == "t1"
    assert [target.calls for target in targets] == [1, 6]
    assert conditions(gateway) == ["cooling", "ready"]


@pytest.mark.parametrize(("step", "statuses"), [(LIMITED, [429, 200, 200, 200]), (REFUSED, [502, 200, 502, 200, 200])])
@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/audio/speech"])
@on_uvloop
async def test_a_target_is_left_alone_after_an_answer_that_is_passed_through(
    net: Net, step: Step, statuses: list[int], path: str
) -> None:
    """A first refusal may be of what was asked for. What only computes is asked of the other target at once."""
    targets = [Target(step), Target()]
    gateway = await balanced(net, *targets, lane=(path,))
    for status in statuses:
        answer = await gateway.ask("POST", path, {"model": "m", "input": "x"})
        assert answer.status == (200 if path == "/v1/embeddings" else status)
    assert targets[0].calls == len(statuses) - statuses.count(200)
    assert conditions(gateway)[0] == "cooling"
    assert live(gateway) == [0, 0]
    assert net.warned("refuses our credentials") == (step is REFUSED)


@pytest.mark.parametrize("path", [NATIVE, CHAT])
@on_uvloop
async def test_while_all_cool_the_client_gets_429_with_the_shortest_wait_and_nobody_is_asked(
    net: Net, path: str
) -> None:
    limits = [("429 Too Many Requests", b"{}", f"Retry-After: {seconds}") for seconds in (50, 7, 30)]
    targets = [Target(limit) for limit in limits]
    gateway = await balanced(net, *targets, retries=2)
    asked = {"model": "m", **(QUERY if path == NATIVE else {"messages": MESSAGES, "stream": True})}
    for _ in range(3):
        response = await gateway.ask("POST", path, asked)
        assert response.status == 429
        assert int(response.headers["retry-after"]) <= 7
        assert response.headers["x-should-retry"] == "true"
    assert [target.calls for target in targets] == [1, 1, 1]
    assert live(gateway) == [0, 0, 0]


@on_uvloop
async def test_a_limit_without_a_time_has_one_of_ours_from_the_first_answer_on(net: Net) -> None:
    gateway = await balanced(net, Target(LIMITED[:2]), Target(LIMITED[:2]))
    for _ in range(2):
        response = await ask(gateway)
        assert (response.status, 1 <= int(response.headers["retry-after"]) <= LIMITS.cooling) == (429, True)


@on_uvloop
async def test_while_all_cool_the_fallback_answers(net: Net) -> None:
    targets, backup = [Target(LIMITED), Target(LIMITED)], Target()
    gateway = await balanced(net, *targets, backup=backup)
    for _ in range(3):
        assert answered_by(await ask(gateway)) == "spare"
    assert ([target.calls for target in targets], backup.calls) == ([1, 1], 3)


@on_uvloop
async def test_all_drained_is_503_and_a_restored_target_answers(net: Net) -> None:
    gateway = await balanced(net, Target(), Target())
    engine = gateway.running.engine
    assert engine.targets.drain("m", "t0", "mock-0")
    assert engine.targets.drain("m", "t1", "mock-1")
    response = await ask(gateway)
    assert (response.status, response.error["reason"]) == (503, "drained")
    assert conditions(gateway) == ["drained", "drained"]
    assert engine.targets.restore("m", "t1", "mock-1")
    assert answered_by(await ask(gateway)) == "t1"
    for unknown in (("x", "t0", "mock-0"), ("m", "x", "mock-0"), ("m", "t0", "x")):
        assert not engine.targets.drain(*unknown)
        assert not engine.targets.restore(*unknown)


@on_uvloop
async def test_a_drained_target_finishes_its_streams(net: Net) -> None:
    open_ended = Target(SSE_HEAD + chunk(delta("a")))
    gateway = await balanced(net, open_ended, Target())
    client, response = await gateway.stream({**QUERY, "model": "m"})
    await response.until(b"text.delta")
    gateway.running.engine.targets.drain("m", "t0", "mock-0")
    assert conditions(gateway) == ["draining", "ready"]
    assert answered_by(await ask(gateway)) == "t1"
    assert gateway.streams == 1
    client.close()
    await until(lambda: live(gateway) == [0, 0])


@on_uvloop
async def test_a_reload_keeps_the_state_of_targets_that_stay(net: Net) -> None:
    gateway = await balanced(net, Target(LIMITED), Target(), Target())
    await ask(gateway)
    engine = gateway.running.engine
    engine.targets.drain("m", "t2", "mock-2")
    settings = engine.settings
    model = settings.models["m"]
    changed = dataclasses.replace(model, targets=model.targets[:3], balance="least_busy")
    gateway.running.use(dataclasses.replace(settings, models={**settings.models, "m": changed}))
    assert conditions(gateway) == ["cooling", "ready", "drained"]
    gateway.running.use(dataclasses.replace(settings, models={"m": dataclasses.replace(model, targets=())}))
    assert conditions(gateway) == ["ready"], "its upstream is left"
    assert not engine.targets.drain("m", "t2", "mock-2")


# ---- keys ------------------------------------------------------------------------------------------------------------


@on_uvloop
async def test_keys_are_used_in_turn_and_a_limited_one_is_set_aside(net: Net) -> None:
    seen: list[str] = []

    async def handler(peer: Peer) -> None:
        while True:
            await peer.request()
            key = peer.head.decode().lower().partition("authorization: bearer ")[2].partition("\r\n")[0]
            seen.append(key)
            if key == "k2":
                await peer.answer(LIMITED[0], LIMITED[1], "Content-Type: application/json", LIMITED[2])
            else:
                await peer.send(answer())

    gateway = await with_keys(net, handler, "k1", "k2", "k3")
    for _ in range(6):
        assert (await ask(gateway)).status == 200
    assert seen == ["k1", "k2", "k3", "k1", "k3", "k1", "k3"]


async def with_keys(net: Net, handler: Any, *keys: str, targets: bool = False) -> Gateway:
    """Returns a gateway whose model `m` asks one upstream that has these keys."""
    settings = settings_for((await net.upstream(handler)).url)
    model = settings.models["m"]
    first, *more = map(Secret, keys)
    upstream = dataclasses.replace(model.upstream, api_key=first, more_api_keys=tuple(more))
    model = dataclasses.replace(model, upstream=upstream)
    if targets:
        model = dataclasses.replace(model, targets=(TargetSettings(upstream, model.id),))
    running = await start(dataclasses.replace(settings, models={"m": model}, upstreams={"up": upstream}))
    net.gateways.append(Gateway(net, running))
    net.stack.push_async_callback(running.close)
    return net.gateways[-1]


@pytest.mark.parametrize("targets", [False, True])
@on_uvloop
async def test_once_every_key_is_limited_nobody_is_asked(net: Net, targets: bool) -> None:
    target = Target(LIMITED)
    gateway = await with_keys(net, target, "k1", "k2", targets=targets)
    for _ in range(4):
        response = await ask(gateway)
        assert (response.status, int(response.headers["retry-after"])) == (429, 30)
    assert target.keys == ["k1", "k2"]
    assert conditions(gateway) == ["cooling"]


@pytest.mark.parametrize("targets", [False, True])
@on_uvloop
async def test_a_request_that_is_too_large_for_every_key_keeps_no_other_request_from_them(
    net: Net, targets: bool
) -> None:
    """OpenAI says so with the status of a limit: one caller's prompts set all keys and targets aside for all."""
    said = b"Request too large for gpt-4o on tokens per min (TPM): Limit 30000, Requested 36278. It must be reduced."
    target = Target(("429 Too Many Requests", b'{"error":{"code":"rate_limit_exceeded","message":"%b"}}' % said))
    gateway = await with_keys(net, target, "k1", "k2", targets=targets)
    response = await ask(gateway)
    assert response.status == 429
    assert (target.keys, conditions(gateway)) == (["k1", "k2"], ["ready"])
    target.step = HELLO
    assert [(await ask(gateway)).status for _ in range(2)] == [200, 200]
    assert target.keys[2:] == ["k1", "k2"]


@on_uvloop
async def test_a_caller_cannot_set_keys_aside_by_words_that_the_upstream_quotes(net: Net) -> None:
    said = b'{"error":{"message":"Invalid value: \'Incorrect API key\'.","type":"invalid_request_error"}}'
    target = Target(("400 Bad Request", said))
    gateway = await with_keys(net, target, "k1", "k2")
    assert [(await ask(gateway)).status for _ in range(3)] == [400] * 3
    assert (target.keys, conditions(gateway)) == (["k1", "k2", "k1"], ["ready"])


@on_uvloop
async def test_a_caller_cannot_have_a_member_left_out_for_all_by_a_value_that_the_upstream_quotes(net: Net) -> None:
    """Without `stream_options` the tokens of all callers were estimates for an hour."""
    said = b'{"error":{"message":"Invalid value: \'stream_options\'.","param":"service_tier"}}'
    target = Target(("400 Bad Request", said))
    price = Price(1, 1, 1, 1, 1)
    gateway = await net.gateway(await net.upstream(target), price=price, retries=1)
    assert (await ask(gateway, extra={"service_tier": "stream_options"})).status == 400
    target.step = HELLO
    assert (await ask(gateway)).status == 200
    assert [body["stream_options"] for body in target.bodies] == [{"include_usage": True}] * 2


@on_uvloop
async def test_a_target_without_a_usable_key_waits_for_the_one_that_is_ready_sooner(net: Net) -> None:
    """The keys were limited by requests for the same model of the same upstream."""
    limited, sooner = Target(LIMITED), Target(("503 Service Unavailable", b"{}", "Retry-After: 9"))
    gateway = await with_keys(net, limited, "k1", "k2")
    settings = gateway.running.engine.settings
    model = settings.models["m"]
    west = dataclasses.replace(
        model.upstream, name="west", base_url=(await net.upstream(sooner)).url + "/v1", more_api_keys=()
    )
    targets = (TargetSettings(model.upstream, model.id), TargetSettings(west, "b"))
    spread = dataclasses.replace(model, name="spread", targets=targets)
    gateway.running.use(dataclasses.replace(settings, models={"m": model, "spread": spread}))
    assert (await ask(gateway)).status == 429
    for _ in range(3):
        response = await ask(gateway, model="spread")
        assert (response.status, int(response.headers["retry-after"])) == (503, 9)
    assert (limited.keys, sooner.calls) == (["k1", "k2"], 1)
    found = {(of, place[0]): condition for of, place, condition, _ in gateway.running.engine.list_targets()}
    assert found == {("m", "up"): "cooling", ("spread", "up"): "cooling", ("spread", "west"): "cooling"}


@on_uvloop
async def test_a_refused_key_is_set_aside_and_reported_to_the_operator(net: Net) -> None:
    target = Target(HELLO)
    gateway = await with_keys(net, target, "k1", "k2")
    assert [(await ask(gateway)).status for _ in range(2)] == [200, 200]
    target.step = REFUSED
    first = await ask(gateway)
    target.step = answer()
    second = await ask(gateway)
    assert [(one.status, one.error["reason"]) for one in (first, second)] == [(502, "upstream_credentials")] * 2
    assert target.keys == ["k1", "k2", "k1", "k2"]
    assert net.warned("refuses our credentials") == 1


@on_uvloop
async def test_keys_that_never_served_a_model_are_set_aside_after_their_second_refusal(net: Net) -> None:
    target = Target(REFUSED)
    gateway = await with_keys(net, target, "k1", "k2")
    assert [(await ask(gateway)).status for _ in range(3)] == [502] * 3
    assert target.keys == ["k1", "k2", "k1", "k2"]
    assert net.warned("refuses our credentials") == 1


# ---- hedges ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [NATIVE, CHAT])
@on_both_loops
async def test_a_silent_target_is_hedged_and_its_request_cancelled(net: Net, path: str) -> None:
    targets = [Target(None), Target()]
    gateway = await balanced(net, *targets, model={"hedge_after": 0.05})
    figures = Figures()
    gateway.running.engine.sinks.append(figures)
    asked = {"model": "m", **(QUERY if path == NATIVE else {"messages": MESSAGES, "stream": True})}
    response = await gateway.ask("POST", path, asked)
    assert response.status == 200
    if path == NATIVE:
        assert (response.text, response.types.count("start"), response.types[-2:]) == ("Hello", 1, ["finish", "done"])
        assert answered_by(response) == "t1"
    else:
        assert "".join(event["choices"][0]["delta"].get("content") or "" for event in response.events) == "Hello"
    await until(lambda: targets[0].gone == 1)
    await until(lambda: len(figures.streams) == 1)
    assert (figures.streams[0].upstream, figures.streams[0].outcome) == ("t1", "finished")
    assert (gateway.running.engine.tallies.hedges, live(gateway)) == (1, [0, 0])


@on_uvloop
async def test_hedges_are_counted_in_the_metrics(net: Net) -> None:
    gateway = await balanced(net, Target(None), Target(), model={"hedge_after": 0.02})
    await ask(gateway)
    response = await gateway.ask("GET", "/metrics")
    assert b"gai_fast_hedges_total 1.0" in bytes(response.body)


@on_uvloop
async def test_pings_before_the_first_event_do_not_win(net: Net) -> None:
    targets = [Target(None), Target(SSE_HEAD + chunk(b": ping\n\n")), Target()]
    gateway = await balanced(net, *targets, model={"hedge_after": 0.02})
    client = await gateway.connect()
    client.request("POST", NATIVE, {**QUERY, "model": "m"})
    await until(lambda: targets[1].calls == 1)
    await asyncio.sleep(0.05)
    assert (targets[0].gone, targets[2].calls) == (0, 0)
    client.close()
    await until(lambda: (targets[0].gone, targets[1].gone) == (1, 1))
    assert live(gateway) == [0, 0, 0]


@on_uvloop
async def test_a_hedge_that_breaks_mid_stream_is_one_failed_stream(net: Net) -> None:
    targets = [Target(None), Target(SSE_HEAD + chunk(ROLE) + chunk(delta("a")) + b"nonsense")]
    gateway = await balanced(net, *targets, model={"hedge_after": 0.02})
    response = await ask(gateway)
    assert response.types.count("start") == 1
    assert response.types[-2:] == ["error", "done"]
    assert live(gateway) == [0, 0]


@on_uvloop
async def test_many_streams_with_hedges_leave_nothing_behind(net: Net) -> None:
    """Both targets are now silent, now slow, now broken: each client gets one whole answer, or one error."""
    targets = [Target(0.03), Target(0.03), Target(None)]
    gateway = await balanced(net, *targets, model={"hedge_after": 0.02, "balance": "least_busy"})

    async def one(number: int) -> str:
        if number == 20:
            targets[1].step = LIMITED
        if number == 40:
            targets[0].step = BUSY
            targets[2].step = answer()
        response = await ask(gateway)
        if response.status != 200:
            assert response.status in (429, 503)
            return "refused"
        assert response.types.count("start") == 1
        assert response.types.count("done") == 1
        return response.types[-2]

    ends: Counter[str] = Counter()
    for wave in range(6):
        ends.update(await asyncio.gather(*(one(10 * wave + number) for number in range(10))))
    assert ends.total() == 60
    assert ends["finish"] > 30
    await until(lambda: live(gateway) == [0, 0, 0])
    assert gateway.streams == 0


@on_uvloop
async def test_a_whole_answer_that_the_upstream_makes_is_not_hedged(net: Net) -> None:
    """It is silent until its end, which says nothing."""
    made = json.dumps(
        {
            "id": "c",
            "object": "chat.completion",
            "model": "x",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
        }
    ).encode()

    async def handler(peer: Peer) -> None:
        await peer.request()
        await asyncio.sleep(0.1)
        await peer.answer("200 OK", made, "Content-Type: application/json")

    other = Target()
    gateway = await balanced(net, Target(), other, model={"hedge_after": 0.02})
    settings = gateway.running.engine.settings
    model = settings.models["m"]
    first = dataclasses.replace(model.targets[0].upstream, base_url=(await net.upstream(handler)).url + "/v1")
    model = dataclasses.replace(model, upstream=first, targets=(TargetSettings(first, "mock-0"), model.targets[1]))
    gateway.running.use(dataclasses.replace(settings, models={"m": model}))
    response = await gateway.ask("POST", CHAT, {"model": "m", "messages": MESSAGES, "stream": False})
    assert response.json["choices"][0]["message"]["content"] == "Hello"
    assert (other.calls, gateway.running.engine.tallies.hedges) == (0, 0)
