"""Sessions over real sockets: each turn of a conversation goes to its target, with its key."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from gai_fast.core.session import session_digest
from gai_fast.model.settings import ANONYMOUS, ModelSettings, Secret, Settings, TargetSettings
from gai_fast.server.serving import start
from tests.integration.gateway import (
    CHAT,
    MESSAGES,
    NATIVE,
    SSE_HEAD,
    Gateway,
    Net,
    Response,
    delta,
    on_uvloop,
    settings_for,
)
from tests.integration.test_balance import Target
from tests.integration.test_retry import answer
from tests.waiting import until
from tests.wire import chunk

CLAUDE, RESPONSES = "/v1/messages", "/v1/responses"
ID = "a8bd7ad6-53ae-4fc2-9b15-3f7e1a0e2f51"
USER = json.dumps({"device_id": "0a" * 32, "account_uuid": "", "session_id": ID})
OLD_USER = f"user_{'0a' * 32}_account__session_{ID}"
KEYS = ("k0", "k1", "k2")

Where = tuple[dict[str, str], str, dict[str, Any]]
NAMED: dict[str, Where] = {
    "x-session-id": ({"x-session-id": ID}, CHAT, {}),
    "x-claude-code-session-id": ({"x-claude-code-session-id": ID}, CLAUDE, {}),
    "session-id": ({"session-id": ID}, RESPONSES, {}),
    "session_id": ({"session_id": ID}, RESPONSES, {}),
    "two headers": ({"session_id": "other", "x-session-id": ID}, NATIVE, {}),
    "prompt_cache_key of chat": ({}, CHAT, {"prompt_cache_key": ID}),
    "prompt_cache_key of Responses": ({}, RESPONSES, {"prompt_cache_key": ID}),
    "cache.key": ({}, NATIVE, {"cache": {"key": ID}}),
    "user_id": ({}, CLAUDE, {"metadata": {"user_id": USER}}),
    "older user_id": ({}, CLAUDE, {"metadata": {"user_id": OLD_USER}}),
}
"""The ways to name one session: headers, route and members."""
UNNAMED: dict[str, Where] = {
    "nothing": ({}, CHAT, {}),
    "empty": ({"x-session-id": ""}, CHAT, {}),
    "long": ({"x-session-id": "s" * 5000}, CHAT, {}),
    "spaces": ({"x-session-id": "my session"}, CHAT, {}),
    "not ASCII": ({"x-session-id": "caf\u00e9"}, CHAT, {"prompt_cache_key": "caf\u00e9"}),
    "another user_id": ({}, CLAUDE, {"metadata": {"user_id": "anna"}}),
}
LONG = "You are an agent. " * 300


def body_of(path: str, turn: int, system: str = "Be brief.", **more: Any) -> dict[str, Any]:
    """The body of a turn of one conversation."""
    later = [{"role": "assistant", "content": "Hello"}, {"role": "user", "content": "And now?"}] * turn
    messages = [*MESSAGES, *later]
    if path == RESPONSES:
        return {"model": "m", "instructions": system, "input": messages, "stream": True, **more}
    if path == CLAUDE:
        return {"model": "m", "system": system, "messages": messages, "max_tokens": 9, "stream": True, **more}
    return {"model": "m", "messages": [{"role": "system", "content": system}, *messages], "stream": True, **more}


class Servers:
    """Upstreams with three keys each, as targets of the model `m`, and gateways over them."""

    def __init__(self, net: Net, *targets: Target) -> None:
        self.net = net
        self.targets = targets
        self.urls: list[str] = []

    async def settings(self, keys: tuple[str, ...] = KEYS, *, is_reversed: bool = False, **model: Any) -> Settings:
        if not self.urls:
            self.urls = [(await self.net.upstream(target)).url + "/v1" for target in self.targets]
        settings = settings_for("http://127.0.0.1:9", retries=0)
        first, *more = map(Secret, keys)
        common = dataclasses.replace(
            settings.models["m"].upstream, api_key=first, more_api_keys=tuple(more), pass_paths=("/v1/embeddings",)
        )
        made = [
            TargetSettings(dataclasses.replace(common, name=f"t{at}", base_url=url), "mock")
            for at, url in enumerate(self.urls)
        ]
        targets = tuple(reversed(made) if is_reversed else made)
        stream = settings.models["m"].stream
        named = ModelSettings("m", targets[0].upstream, "mock", stream, targets=targets, **model)
        upstreams = {each.upstream.name: each.upstream for each in targets}
        return dataclasses.replace(settings, models={"m": named}, upstreams=upstreams)

    async def gateway(self, settings: Settings) -> Gateway:
        running = await start(settings)
        self.net.gateways.append(Gateway(self.net, running))
        self.net.stack.push_async_callback(running.close)
        return self.net.gateways[-1]

    @property
    def places(self) -> list[tuple[int, str]]:
        """The target and the key of each request so far."""
        return [(at, key) for at, target in enumerate(self.targets) for key in target.keys]

    def take(self) -> set[tuple[int, str]]:
        """The targets and keys since the last call."""
        found = set(self.places)
        for target in self.targets:
            target.keys.clear()
        return found


async def ask(gateway: Gateway, where: Where, turn: int = 0, **more: Any) -> Response:
    headers, path, members = where
    response = await gateway.ask("POST", path, body_of(path, turn, **members, **more), headers)
    assert response.status == 200
    return response


@on_uvloop
async def test_each_name_leads_to_one_target_and_key_in_each_server_and_any_order(net: Net) -> None:
    servers = Servers(net, Target(), Target(), Target())
    one = await servers.gateway(await servers.settings())
    other = await servers.gateway(await servers.settings(("k2", "k0", "k1"), is_reversed=True))
    for where in NAMED.values():
        for turn in range(3):
            for gateway in (one, other):
                response = await ask(gateway, where, turn)
                assert response.headers["x-gai-session"] == session_digest(ID, ANONYMOUS)
    assert len(servers.take()) == 1
    for number in range(30):
        await ask(one, ({"x-session-id": f"session {number}".replace(" ", "-")}, CHAT, {}))
    assert len(servers.take()) > 6, "sessions spread over targets and keys"
    await one.running.close()
    restarted = await servers.gateway(await servers.settings())
    await ask(restarted, NAMED["session-id"])
    await ask(other, NAMED["cache.key"])
    assert len(servers.take()) == 1


@pytest.mark.parametrize("name", UNNAMED)
@on_uvloop
async def test_all_else_goes_in_turn(net: Net, name: str) -> None:
    servers = Servers(net, Target(), Target(), Target())
    gateway = await servers.gateway(await servers.settings())
    for turn in range(9):
        response = await ask(gateway, UNNAMED[name], turn)
        assert "x-gai-session" not in response.headers
    assert len(servers.take()) == 9, "each target with each key once"


@pytest.mark.parametrize("path", [CHAT, CLAUDE, RESPONSES, NATIVE])
@on_uvloop
async def test_a_long_beginning_names_a_session(net: Net, path: str) -> None:
    servers = Servers(net, Target(), Target(), Target())
    gateway = await servers.gateway(await servers.settings())
    for turn in range(6):
        response = await ask(gateway, ({}, path, {}), turn, system=LONG)
        assert "x-gai-session" not in response.headers, "its client has named none"
    assert len(servers.take()) == 1
    for turn in range(6):
        await ask(gateway, ({}, path, {}), 0, system=f"{LONG}{turn}")
    assert len(servers.take()) > 1


@pytest.mark.parametrize("balance", ["weighted", "least_busy"])
@on_uvloop
async def test_other_rules_do_not_look_at_sessions_and_keys_do(net: Net, balance: Any) -> None:
    servers = Servers(net, Target(), Target(), Target())
    gateway = await servers.gateway(await servers.settings(balance=balance))
    for turn in range(12):
        await ask(gateway, NAMED["x-session-id"], turn)
    places = servers.take()
    assert {at for at, _ in places} == {0, 1, 2}
    assert len(places) == 3, "one key at each"


@on_uvloop
async def test_a_key_is_limited_amid_a_session(net: Net) -> None:
    target = Target()
    servers = Servers(net, target)
    gateway = await servers.gateway(await servers.settings())
    await ask(gateway, NAMED["session-id"])
    (home,) = target.keys
    target.limited = home
    for turn in range(3):
        await ask(gateway, NAMED["session-id"], turn)
    first, *others = target.keys[1:]
    assert first == home
    assert len({*others}) == 1, "its next one, and no third"
    metrics = bytes((await gateway.ask("GET", "/metrics")).body).decode()
    assert 'gai_fast_session_moves_total{model="m",reason="cooling"} 2.0' in metrics


@on_uvloop
async def test_a_reload_removes_a_key_amid_a_session(net: Net) -> None:
    target = Target(SSE_HEAD + chunk(delta("a")))
    servers = Servers(net, target)
    gateway = await servers.gateway(await servers.settings())
    client, response = await gateway.stream(body_of(NATIVE, 0, cache={"key": ID}))
    await response.until(b"text.delta")
    (home,) = target.keys
    left = tuple(key for key in KEYS if key != home)
    gateway.running.use(await servers.settings(left))
    target.step = answer()
    for turn in range(3):
        await ask(gateway, NAMED["cache.key"], turn)
    assert len({*target.keys[1:]}) == 1
    gateway.running.use(await servers.settings())
    client.close()
    await ask(gateway, NAMED["cache.key"])
    assert target.keys[-1] == home, "back with its key"


@on_uvloop
async def test_a_target_is_drained_amid_a_session(net: Net) -> None:
    servers = Servers(net, Target(), Target(), Target())
    gateway = await servers.gateway(await servers.settings())
    engine = gateway.running.engine
    await ask(gateway, NAMED["user_id"])
    ((home, key),) = servers.take()
    assert engine.targets.drain("m", f"t{home}", "mock")
    for turn in range(3):
        await ask(gateway, NAMED["user_id"], turn)
    ((other, _),) = servers.take()
    assert other != home
    assert engine.tallies.session_moves == {("m", "drained"): 3}
    engine.targets.restore("m", f"t{home}", "mock")
    await ask(gateway, NAMED["user_id"])
    assert servers.take() == {(home, key)}
    assert engine.tallies.session_moves == {("m", "drained"): 3}


@on_uvloop
async def test_what_is_passed_through_goes_home_by_a_header(net: Net) -> None:
    servers = Servers(net, *[Target(("200 OK", b'{"data":[]}')) for _ in range(3)])
    gateway = await servers.gateway(await servers.settings())
    for _ in range(6):
        body = {"model": "m", "input": "hi"}
        response = await gateway.ask("POST", "/v1/embeddings", body, {"x-session-id": ID})
        assert response.status == 200
    (place,) = servers.take()
    for target in servers.targets:
        target.step = answer()
    await ask(gateway, NAMED["cache.key"])
    assert servers.take() == {place}, "the same as of its answers"


@on_uvloop
async def test_what_is_passed_through_is_told_and_logged_with_its_session(
    net: Net, caplog: pytest.LogCaptureFixture
) -> None:
    """Also of one target with one key, where there is nothing to choose."""
    servers = Servers(net, Target(("200 OK", b'{"data":[]}')))
    settings = await servers.settings(("k0",))
    log = dataclasses.replace(settings.server, access_log=True)
    gateway = await servers.gateway(dataclasses.replace(settings, server=log))
    digest = session_digest(ID, ANONYMOUS)
    for path, body in (("/v1/embeddings", {"model": "m", "input": "hi"}), ("/p/t0/v1/embeddings", {"input": "hi"})):
        for headers, told in (({"x-session-id": ID}, digest), ({}, None), ({"x-session-id": "a b"}, None)):
            for step in (("200 OK", b'{"data":[]}'), ("500 Oops", b"{}")):
                servers.targets[0].step = step
                caplog.clear()
                with caplog.at_level("INFO", "gai_fast.access"):
                    response = await gateway.ask("POST", path, body, headers)
                    await until(lambda: bool(caplog.records))
                assert response.headers.get("x-gai-session") == told, (path, headers, step)
                assert caplog.records[-1].msg.fields["session"] == told
    rows = (await gateway.ask("GET", "/admin/v1/requests")).json["data"]
    assert [row["session"] for row in rows[::-1]] == [digest, digest, None, None, None, None] * 2


@on_uvloop
async def test_a_passed_answer_that_is_refused_has_its_session(net: Net) -> None:
    servers = Servers(net, Target(None))
    settings = await servers.settings(("k0",))
    up = dataclasses.replace(settings.upstreams["t0"], base_url="http://127.0.0.1:1/v1")
    model = dataclasses.replace(settings.models["m"], targets=(), upstream=up)
    gateway = await servers.gateway(dataclasses.replace(settings, models={"m": model}, upstreams={"t0": up}))
    response = await gateway.ask("POST", "/v1/embeddings", {"model": "m", "input": "hi"}, {"x-session-id": ID})
    assert (response.status, response.headers["x-gai-session"]) == (502, session_digest(ID, ANONYMOUS))


@on_uvloop
async def test_a_compaction_goes_home_by_its_cache_key(net: Net) -> None:
    servers = Servers(net, *[Target(("200 OK", b'{"output":[]}')) for _ in range(3)])
    settings = await servers.settings()
    gateway = await servers.gateway(_with_provider(settings, "openai:responses"))
    for _ in range(4):
        body = {"model": "m", "input": "hi", "prompt_cache_key": ID}
        response = await gateway.ask("POST", "/v1/responses/compact", body)
        assert (response.status, response.headers["x-gai-session"]) == (200, session_digest(ID, ANONYMOUS))
    (place,) = servers.take()
    await gateway.ask("POST", "/v1/responses/compact", {"model": "m", "input": "hi"}, {"session_id": ID})
    assert servers.take() == {place}
    for key in (5, None, "a b", ["x"]):
        response = await gateway.ask(
            "POST", "/v1/responses/compact", {"model": "m", "input": "hi", "prompt_cache_key": key}
        )
        assert (response.status, "x-gai-session" in response.headers) == (200, False)


def _with_provider(settings: Settings, provider: str) -> Settings:
    (model,) = settings.models.values()
    targets = tuple(
        dataclasses.replace(each, upstream=dataclasses.replace(each.upstream, provider=provider))
        for each in model.targets
    )
    upstreams = {each.upstream.name: each.upstream for each in targets}
    model = dataclasses.replace(model, targets=targets, upstream=targets[0].upstream)
    return dataclasses.replace(settings, models={model.name: model}, upstreams=upstreams)


@on_uvloop
async def test_counts_and_streams_that_nobody_follows_yet_are_told_their_session(net: Net) -> None:
    servers = Servers(net, Target(("200 OK", b'{"input_tokens":3}')))
    settings = await servers.settings(("k0",))
    digest = session_digest(ID, ANONYMOUS)
    for made in (settings, _with_provider(settings, "anthropic")):
        gateway = await servers.gateway(made)
        body = {"model": "m", "messages": MESSAGES, "metadata": {"user_id": USER}}
        counted = await gateway.ask("POST", "/v1/messages/count_tokens", body)
        assert (counted.status, counted.headers["x-gai-session"]) == (200, digest)
        del body["metadata"]
        assert "x-gai-session" not in (await gateway.ask("POST", "/v1/messages/count_tokens", body)).headers
    gateway = await servers.gateway(settings)
    servers.targets[0].step = answer()
    started = await gateway.ask("POST", "/api/v1/streams", body_of(NATIVE, 0, cache={"key": ID}))
    assert (started.status, started.headers["x-gai-session"]) == (202, digest)
    body = body_of(RESPONSES, 0, background=True, prompt_cache_key=ID, stream=False)
    started = await gateway.ask("POST", RESPONSES, body)
    assert (started.status, started.headers["x-gai-session"]) == (200, digest)


@on_uvloop
async def test_a_reload_with_another_address_has_the_homes_of_a_restart(net: Net) -> None:
    """A key's home is of its server: what was known of it at another one does not count."""
    before, after = Servers(net, Target()), Servers(net, Target())
    gateway = await before.gateway(await before.settings())
    before.targets[0].limited = "k0"
    for number in range(12):
        await ask(gateway, ({"x-session-id": f"s{number}"}, CHAT, {}))
    moved = await after.settings()
    gateway.running.use(moved)
    restarted = await after.gateway(moved)
    for number in range(12):
        for each in (gateway, restarted):
            await ask(each, ({"x-session-id": f"s{number}"}, CHAT, {}))
    keys = after.targets[0].keys
    assert keys[::2] == keys[1::2]
    assert "k0" in keys


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "name"),
    [
        (f"x-session-id: {ID}\r\nx-session-id: {ID}", None),
        (f"x-session-id: {ID}\r\nX-Session-Id: other\r\nsession_id: third", "third"),
        (f"x-session-id:\r\nsession-id: {ID}", ID),
        (f"x-session-id: a,b\r\nsession-id: {ID}", "a,b"),
        (f"session_id: \t {ID} \t ", ID),
        (f"x-session-id: \xff{ID}", None),
        ("x-session-id: " + "s" * 257, None),
    ],
)
@on_uvloop
async def test_a_header_of_a_name_in_odd_forms(net: Net, lines: str, name: str | None) -> None:
    servers = Servers(net, Target())
    gateway = await servers.gateway(await servers.settings())
    client = await gateway.connect()
    body = json.dumps(body_of(CHAT, 0)).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nhost: {client.host}\r\ncontent-type: application/json\r\n{lines}\r\n"
    client.send(head.encode("latin-1") + b"content-length: %d\r\n\r\n" % len(body) + body)
    response = await (await client.response()).rest()
    told = None if name is None else session_digest(name, ANONYMOUS)
    assert (response.status, response.headers.get("x-gai-session")) == (200, told)


@pytest.mark.parametrize("path", [CHAT, CLAUDE, RESPONSES, NATIVE])
@on_uvloop
async def test_a_system_prompt_of_a_mebibyte_names_a_session(net: Net, path: str) -> None:
    servers = Servers(net, Target(), Target(), Target())
    gateway = await servers.gateway(await servers.settings())
    system = "word " * (1 << 18) + "end"
    for turn in range(3):
        await ask(gateway, ({}, path, {}), turn, system=system)
    assert len(servers.take()) == 1


@pytest.mark.parametrize("status", ["429 Too Many Requests", "401 Unauthorized"])
@on_uvloop
async def test_all_keys_are_limited_or_refused_amid_a_session_and_it_comes_home(net: Net, status: str) -> None:
    target = Target()
    servers = Servers(net, target)
    settings = await servers.settings()
    gateway = await servers.gateway(settings)
    named = NAMED["cache.key"]
    await ask(gateway, named)
    home = target.keys[-1]
    target.step = (status, b"{}", "Retry-After: 30")
    headers, path, members = named
    for _ in range(4):
        response = await gateway.ask("POST", path, body_of(path, 1, **members), headers)
    assert {*target.keys} == {*KEYS}
    is_limited = status.startswith("429")
    assert (response.status, response.error["reason"]) == (429 if is_limited else 503, "cooling")
    assert net.warned("refuses our credentials") == (not is_limited)
    target.step = answer()
    restarted = await servers.gateway(settings)
    await ask(restarted, named)
    assert target.keys[-1] == home
