"""The caller's own credential, over real sockets: where it goes, and where it does not."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from gai_fast.model.settings import (
    BreakerSettings,
    KeySettings,
    ModelSettings,
    OTelSettings,
    ResponsesSettings,
    Secret,
    Settings,
    TargetSettings,
    key_digest,
)
from gai_fast.net.attempts.caller_keys import LimitedCredentials
from gai_fast.server.serving import start
from tests.conftest import ChangeLimits
from tests.integration.gateway import CHAT, MESSAGES, NATIVE, Gateway, Net, Peer, Response, on_uvloop, settings_for
from tests.integration.test_balance import HELLO, Target
from tests.integration.test_retry import claude
from tests.integration.websocket import connect
from tests.otlp import Receiver
from tests.waiting import until

KEY = "gateway-key-0123456789"
OPERATOR = "operators-key-0123456789"
MINE = "sk-ant-api03-planted-credential-of-anna-0123456789"
BENS = "sk-planted-credential-of-ben-9876543210"
BODY = {"model": "m", "messages": MESSAGES, "stream": True}
CLAUDE = "/v1/messages"
RESPONSES = "/v1/responses"
EMBEDDINGS = "/v1/embeddings"
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "mock",
    "content": [],
    "stop_reason": None,
    "stop_sequence": None,
    "usage": {"input_tokens": 1, "output_tokens": 1},
}
EVENTS: list[dict[str, Any]] = [
    {"type": "message_start", "message": MESSAGE},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}},
    {"type": "content_block_stop", "index": 0},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"output_tokens": 1},
    },
    {"type": "message_stop"},
]


class Upstream(Target):
    """Notes the heads of its requests, and answers each credential by `steps`, else by the present step."""

    def __init__(self, step: Any = HELLO) -> None:
        super().__init__(step)
        self.heads: list[dict[str, str]] = []
        self.steps: dict[str, Any] = {}

    async def __call__(self, peer: Peer) -> None:
        while True:
            self.bodies.append(json.loads(await peer.request()))
            lines = peer.head.decode("latin-1").split("\r\n")[1:]
            head = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
            self.heads.append(head)
            self.calls += 1
            credential = head.get("x-api-key") or head.get("authorization", "").removeprefix("Bearer ")
            step = self.steps.get(credential, self.step)
            if isinstance(step, tuple):
                status, text, *headers = step
                await peer.answer(status, text, "Content-Type: application/json", *headers)
            else:
                await peer.send(step)


async def gateway_of(
    net: Net, *targets: Upstream, provider: str = "openai-compatible", has_keys: bool = True, **more: Any
) -> Gateway:
    """A gateway whose model `m` has these upstreams, which take their callers' credentials."""
    settings = settings_for("http://127.0.0.1:9", retries=0)
    common = dataclasses.replace(
        settings.models["m"].upstream,
        provider=provider,
        takes_credentials=True,
        pass_paths=(EMBEDDINGS,),
        breaker=BreakerSettings(),
    )
    made = []
    for at, target in enumerate(targets):
        url = (await net.upstream(target)).url + ("" if provider == "anthropic" else "/v1")
        made.append(TargetSettings(dataclasses.replace(common, name=f"t{at}", base_url=url), "mock"))
    several = tuple(made) if len(made) > 1 else ()
    first = made[0].upstream
    named = ModelSettings("m", first, "mock", settings.models["m"].stream, targets=several, **more)
    keys = (
        KeySettings("anna", (key_digest(KEY),), pass_upstreams=("t0",)),
        KeySettings("op", (key_digest(OPERATOR),), role="admin"),
    )
    return await started(
        net,
        dataclasses.replace(
            settings,
            models={"m": named},
            upstreams={each.upstream.name: each.upstream for each in made},
            keys=keys if has_keys else (),
        ),
    )


async def started(net: Net, settings: Settings) -> Gateway:
    running = await start(settings)
    net.gateways.append(Gateway(net, running))
    net.stack.push_async_callback(running.close)
    return net.gateways[-1]


def clear(gateway: Gateway) -> None:
    """Forgets which credentials were limited."""
    gateway.running.engine.targets._limited = LimitedCredentials(b"k" * 32)


async def ask(gateway: Gateway, path: str = CHAT, body: Any = None, **headers: str) -> Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await gateway.ask("POST", path, body or BODY, named)


def bearer(credential: str) -> str:
    return f"Bearer {credential}"


def sent(head: dict[str, str]) -> dict[str, str]:
    return {name: head[name] for name in ("authorization", "x-api-key", "x-gai-key") if name in head}


# ---- which header is which -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("provider", "headers", "expected"),
    [
        ("openai-compatible", {"authorization": bearer(MINE)}, {"authorization": bearer(MINE)}),
        ("openai-compatible", {"x_api_key": MINE}, {"authorization": bearer(MINE)}),
        ("openai-compatible", {"x_api_key": BENS, "authorization": bearer(MINE)}, {"authorization": bearer(MINE)}),
        ("anthropic", {"authorization": bearer(MINE)}, {"authorization": bearer(MINE)}),
        ("anthropic", {"x_api_key": MINE}, {"x-api-key": MINE}),
    ],
)
@pytest.mark.parametrize("has_keys", [True, False])
@on_uvloop
async def test_the_credential_goes_up_as_its_provider_wants_it(
    net: Net, provider: str, headers: dict[str, str], expected: dict[str, str], has_keys: bool
) -> None:
    upstream = Upstream(claude(*EVENTS) if provider == "anthropic" else HELLO)
    gateway = await gateway_of(net, upstream, provider=provider, has_keys=has_keys)
    given = {**headers, "x_gai_key": KEY} if has_keys else headers
    for path in (CHAT, NATIVE):
        response = await ask(gateway, path, **given)
        assert response.status == 200
        assert sent(upstream.heads[-1]) == expected


@on_uvloop
async def test_of_both_headers_that_of_anthropics_sdk_counts_on_its_route(net: Net) -> None:
    upstream = Upstream(claude(*EVENTS))
    gateway = await gateway_of(net, upstream, provider="anthropic")
    body = {**BODY, "max_tokens": 9}
    await ask(gateway, CLAUDE, body, x_gai_key=KEY, x_api_key=MINE, authorization=bearer(BENS))
    await ask(gateway, CHAT, x_gai_key=KEY, x_api_key=MINE, authorization=bearer(BENS))
    assert [sent(head) for head in upstream.heads] == [{"x-api-key": MINE}, {"authorization": bearer(BENS)}]


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"authorization": bearer(KEY)}, "caller_credential"),
        ({"x_gai_key": KEY}, "caller_credential"),
        ({"x_gai_key": KEY, "authorization": "Basic YTpi"}, "caller_credential"),
        ({"x_gai_key": KEY, "authorization": bearer("a, b")}, "caller_credential"),
        ({"x_gai_key": KEY, "authorization": bearer("caf\u00e9")}, "caller_credential"),
        ({"x_gai_key": KEY, "x_api_key": ""}, "caller_credential"),
        ({"x_gai_key": "", "authorization": bearer(MINE)}, "key"),
        ({"x_gai_key": f"{KEY}, {KEY}", "authorization": bearer(MINE)}, "key"),
        ({"x_gai_key": "wrong-key", "authorization": bearer(KEY)}, "key"),
        ({"authorization": bearer(MINE)}, "key"),
        ({}, "key"),
    ],
)
@on_uvloop
async def test_a_request_without_a_key_or_a_credential_is_refused(
    net: Net, headers: dict[str, str], reason: str
) -> None:
    upstream = Upstream()
    gateway = await gateway_of(net, upstream)
    for path, body in ((CHAT, BODY), (EMBEDDINGS, {"model": "m", "input": "hi"}), ("/p/t0/v1/embeddings", {})):
        response = await ask(gateway, path, body, **headers)
        assert response.status == 401, path
    response = await ask(gateway, NATIVE, {**BODY}, **headers)
    assert (response.status, response.error["code"], response.error["reason"]) == (401, "unauthorized", reason)
    assert not response.error["temporary"]
    assert upstream.calls == 0


@on_uvloop
async def test_without_keys_of_the_gateway_a_caller_is_named_by_its_credential(net: Net) -> None:
    upstream = Upstream()
    gateway = await gateway_of(net, upstream, has_keys=False)
    assert (await ask(gateway)).status == 401
    first = await ask(gateway, NATIVE, {**BODY, "resumable": True}, authorization=bearer(MINE))
    stream = first.headers["x-gai-stream-id"]
    log = await gateway.running.engine.store.find(stream)
    assert log.header.caller == f"c-{hashlib.sha256(MINE.encode()).hexdigest()[:16]}"
    path = f"/api/v1/streams/{stream}"
    statuses = [(await gateway.ask("GET", path, None, {"authorization": bearer(each)})).status for each in (MINE, BENS)]
    assert statuses == [200, 404], "its streams are its own"


@on_uvloop
async def test_a_credential_of_8_kib_is_sent(net: Net) -> None:
    upstream = Upstream()
    gateway = await gateway_of(net, upstream)
    long = "k" * 8192
    assert (await ask(gateway, x_gai_key=KEY, authorization=bearer(long))).status == 200
    assert upstream.heads[0]["authorization"] == bearer(long)


# ---- what it says of others ------------------------------------------------------------------------------------------

WRONG = ("401 Unauthorized", b'{"error":{"message":"Incorrect API key provided: %s","code":"invalid_api_key"}}')
QUOTING = (WRONG[0], WRONG[1] % MINE.encode())
FORBIDDEN = ("403 Forbidden", b'{"error":{"message":"no access for %s"}}' % MINE.encode())
LIMITED = ("429 Too Many Requests", b'{"error":{"message":"slow down, %s"}}' % MINE.encode(), "Retry-After: 30")


@pytest.mark.parametrize(("step", "status", "code"), [(QUOTING, 401, "unauthorized"), (FORBIDDEN, 403, "forbidden")])
@on_uvloop
async def test_a_refusal_is_the_callers_alone(net: Net, step: Any, status: int, code: str) -> None:
    targets = [Upstream(), Upstream()]
    gateway = await gateway_of(net, *targets)
    for target in targets:
        target.steps[MINE] = step
    for _ in range(12):
        response = await ask(gateway, NATIVE, x_gai_key=KEY, authorization=bearer(MINE))
        error = response.error
        assert (response.status, error["code"], error["reason"]) == (status, code, "caller_credential")
        assert MINE not in response.body.decode()
    assert sum(target.calls for target in targets) == 12, "no other target could do better"
    conditions = [condition for _, _, condition, _ in gateway.running.engine.list_targets()]
    assert conditions == ["ready", "ready"]
    assert set(gateway.running.engine.targets.breaker_states().values()) == {"closed"}
    assert (await ask(gateway, x_gai_key=KEY, authorization=bearer(BENS))).status == 200
    assert net.warned("credential") == 0


@pytest.mark.parametrize("path", [NATIVE, "/p/t0/v1/embeddings"])
@on_uvloop
async def test_a_limit_sets_one_credential_aside(net: Net, path: str) -> None:
    upstream = Upstream(("200 OK", b'{"data":[]}') if path != NATIVE else HELLO)
    gateway = await gateway_of(net, upstream)
    upstream.steps[MINE] = LIMITED
    body = BODY if path == NATIVE else {"input": "hi"}
    first = await ask(gateway, path, body, x_gai_key=KEY, authorization=bearer(MINE))
    assert first.status == 429
    calls = upstream.calls
    second = await ask(gateway, path, body, x_gai_key=KEY, authorization=bearer(MINE))
    assert (second.status, upstream.calls) == (429, calls), "it is not asked"
    assert "upstream_keys" in second.body.decode()
    assert 25 <= int(second.headers["retry-after"]) <= 30
    assert (await ask(gateway, path, body, x_gai_key=KEY, authorization=bearer(BENS))).status == 200


@on_uvloop
async def test_a_fallback_of_the_gateways_own_gets_no_credential(net: Net) -> None:
    upstream, spare = Upstream(LIMITED), Upstream()
    gateway = await gateway_of(net, upstream, fallback=("spare",))
    settings = gateway.running.engine.settings
    own = dataclasses.replace(
        settings.upstreams["t0"],
        name="own",
        base_url=(await net.upstream(spare)).url + "/v1",
        takes_credentials=False,
        api_key=Secret("operators-own-key"),
    )
    models = {**settings.models, "spare": ModelSettings("spare", own, "mock", settings.models["m"].stream)}
    gateway.running.use(dataclasses.replace(settings, models=models, upstreams={**settings.upstreams, "own": own}))
    response = await ask(gateway, x_gai_key=KEY, authorization=bearer(MINE))
    assert response.status == 200
    assert sent(spare.heads[0]) == {"authorization": "Bearer operators-own-key"}
    assert MINE not in json.dumps([spare.heads, spare.bodies])


@on_uvloop
async def test_answers_are_not_shared(net: Net) -> None:
    upstream = Upstream()
    gateway = await gateway_of(net, upstream, cache=True)
    for _ in range(2):
        response = await ask(gateway, x_gai_key=KEY, authorization=bearer(MINE))
        assert "x-gai-cache" not in response.headers
    assert upstream.calls == 2


@on_uvloop
async def test_a_reload_gives_the_upstream_a_key_of_its_own(net: Net) -> None:
    upstream = Upstream()
    gateway = await gateway_of(net, upstream)
    settings = gateway.running.engine.settings
    own = dataclasses.replace(settings.upstreams["t0"], takes_credentials=False, api_key=Secret("operators-own-key"))
    model = dataclasses.replace(settings.models["m"], upstream=own)
    gateway.running.use(dataclasses.replace(settings, models={"m": model}, upstreams={"t0": own}))
    assert (await ask(gateway, x_gai_key=KEY, authorization=bearer(MINE))).status == 200
    assert sent(upstream.heads[0]) == {"authorization": "Bearer operators-own-key"}


@on_uvloop
async def test_a_reload_gives_the_upstream_a_key_while_a_stream_runs(net: Net) -> None:
    """The stream goes on with its caller's credential, and so does its next attempt."""
    upstream = Upstream(("503 Unavailable", b'{"error":{"message":"no"}}', "Retry-After: 1"))
    gateway = await gateway_of(net, upstream)
    settings = gateway.running.engine.settings
    kept = dataclasses.replace(settings.upstreams["t0"], retries=2)
    model = dataclasses.replace(settings.models["m"], upstream=kept)
    gateway.running.use(dataclasses.replace(settings, models={"m": model}, upstreams={"t0": kept}))
    asked = asyncio.ensure_future(ask(gateway, x_gai_key=KEY, authorization=bearer(MINE)))
    await until(lambda: upstream.calls == 1)
    upstream.step = HELLO
    own = dataclasses.replace(kept, takes_credentials=False, api_key=Secret("operators-own-key"))
    model = dataclasses.replace(model, upstream=own)
    gateway.running.use(dataclasses.replace(settings, models={"m": model}, upstreams={"t0": own}))
    assert (await asked).status == 200
    assert (await ask(gateway, x_gai_key=KEY, authorization=bearer(MINE))).status == 200
    assert [sent(head)["authorization"] for head in upstream.heads] == [
        bearer(MINE),
        bearer(MINE),
        "Bearer operators-own-key",
    ]


# ---- the official SDKs -----------------------------------------------------------------------------------------------


@on_uvloop
async def test_the_sdk_of_openai_sends_both(net: Net) -> None:
    upstream = Upstream()
    gateway = await gateway_of(net, upstream)
    async with openai.AsyncOpenAI(
        base_url=f"{gateway.url}/v1", api_key=MINE, default_headers={"x-gai-key": KEY}, max_retries=0
    ) as client:
        stream = await client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
        texts = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
        assert "".join(texts) == "Hello"
        upstream.steps[MINE] = QUOTING
        with pytest.raises(openai.AuthenticationError) as refused:
            await client.chat.completions.create(model="m", messages=MESSAGES)
        assert MINE not in str(refused.value)
        upstream.steps[MINE] = LIMITED
        with pytest.raises(openai.RateLimitError):
            await client.chat.completions.create(model="m", messages=MESSAGES)
    assert {head["authorization"] for head in upstream.heads} == {bearer(MINE)}
    assert not any("x-gai-key" in head for head in upstream.heads)


@on_uvloop
async def test_the_sdk_of_anthropic_sends_both(net: Net) -> None:
    upstream = Upstream(claude(*EVENTS))
    gateway = await gateway_of(net, upstream, provider="anthropic")
    for own in ({"api_key": MINE}, {"auth_token": MINE}):
        async with (
            anthropic.AsyncAnthropic(
                base_url=gateway.url, default_headers={"x-gai-key": KEY}, max_retries=0, **own
            ) as client,
            client.messages.stream(model="m", max_tokens=9, messages=MESSAGES) as stream,
        ):
            assert await stream.get_final_text() == "Hello"
    # The SDK of today sends a key as a bearer, too; those before sent it as `x-api-key`.
    assert {(head.get("x-api-key") or head["authorization"]).removeprefix("Bearer ") for head in upstream.heads} == {
        MINE
    }
    assert sent(upstream.heads[1]) == {"authorization": bearer(MINE)}
    assert not any("x-gai-key" in head for head in upstream.heads)


# ---- planted credentials ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("has_keys", [True, False])
@on_uvloop
async def test_a_planted_credential_is_found_at_its_upstream_alone(
    net: Net, has_keys: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In no log at any level, no store, no metric, no page of admins, no error and no trace."""
    caplog.set_level(logging.DEBUG)
    found: list[bytes] = []
    upstream = Upstream()
    settings = (await gateway_of(net, upstream, has_keys=has_keys)).running.engine.settings
    receiver = await net.stack.enter_async_context(Receiver())
    otel = OTelSettings(receiver.url, content=True, span_delay=0.02, metric_interval=0.02)
    store = dataclasses.replace(settings.store, url=f"sqlite:///{tmp_path / 'streams.db'}")
    gateway = await started(net, dataclasses.replace(settings, store=store, otel=otel))
    given = {"authorization": bearer(MINE), **({"x_gai_key": KEY} if has_keys else {})}
    steps: list[Any] = [HELLO, QUOTING, FORBIDDEN, LIMITED, ("500 Oops", QUOTING[1]), ("400 Bad Request", QUOTING[1])]
    for step in steps:
        upstream.step = step
        for path, body in (
            (CHAT, BODY),
            (NATIVE, {**BODY, "resumable": True}),
            (CHAT, {**BODY, "stream": False}),
            (EMBEDDINGS, {"model": "m", "input": "hi"}),
            ("/p/t0/v1/embeddings", {"input": "hi"}),
        ):
            response = await ask(gateway, path, body, **given)
            found += [response.body, str(response.headers).encode()]
        clear(gateway)
    assert upstream.calls > len(steps)
    assert {bearer(MINE)} == {head["authorization"] for head in upstream.heads}
    operator = {"authorization": bearer(OPERATOR)} if has_keys else {}
    for page in ("/metrics", *[f"/admin/v1/{name}" for name in ("requests", "streams", "history", "targets", "keys")]):
        response = await gateway.ask("GET", page, None, operator)
        assert response.status == 200
        found.append(bytes(response.body))
    await until(lambda: len(receiver.clients) >= len(steps))
    await gateway.running.close()
    found += [caplog.text.encode(), "\n".join(net.logged).encode(), str(receiver.spans).encode()]
    found += [file.read_bytes() for file in tmp_path.iterdir()]
    assert not [one for one in found if MINE.encode() in one]
    assert len([one for one in found if b"***" in one]) >= len(steps), "errors were quoted without it"


# ---- what is kept ----------------------------------------------------------------------------------------------------


@on_uvloop
async def test_made_up_credentials_share_one_callers_part_of_what_is_kept(net: Net) -> None:
    upstream = Upstream()
    gateway = await gateway_of(net, upstream, has_keys=False)
    gateway.running.engine.store.responses.use(ResponsesSettings(max_bytes=400_000), has_credentials=True)
    asked = {"model": "m", "input": "Hi"}
    mine = (await ask(gateway, RESPONSES, asked, authorization=bearer("sk-accepted-0123456789"))).json["id"]

    async def there(credential: str, identifier: str) -> bool:
        path, headers = f"{RESPONSES}/{identifier}", {"authorization": bearer(credential)}
        return (await gateway.ask("GET", path, headers=headers)).status == 200

    made: list[tuple[str, str]] = []
    for number in range(14):
        credential = f"sk-made-up-{number:010}"
        socket = await connect(gateway, None, RESPONSES, authorization=bearer(credential))
        socket.send(type="response.create", model="m", generate=False, input="x" * 30_000)
        message: Any = {}
        while message.get("type") != "response.completed":
            message = await socket.read()
        made.append((credential, message["response"]["id"]))
        socket.client.close()
    assert await there("sk-accepted-0123456789", mine), "another caller's is not dropped for them"
    kept = [await there(*each) for each in made]
    assert kept == [False] * 13 + [True], "they share the part of one caller, a tenth"
    upstream.steps["sk-refused-0123456789"] = ("401 Unauthorized", b'{"error":{"message":"no"}}')
    refused = await ask(gateway, RESPONSES, asked, authorization=bearer("sk-refused-0123456789"))
    assert refused.status == 401


@on_uvloop
@pytest.mark.parametrize("has_credential", [False, True])
async def test_without_keys_reads_have_no_limit(net: Net, change_limits: ChangeLimits, has_credential: bool) -> None:
    change_limits(reads=2)
    gateway = await gateway_of(net, Upstream(), has_keys=False)
    headers = {"authorization": bearer("sk-accepted-0123456789")} if has_credential else {}
    found = [await gateway.ask("GET", f"{RESPONSES}/resp_1", headers=headers) for _ in range(5)]
    assert [each.status for each in found] == [404] * 5
