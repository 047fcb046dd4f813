"""Keys: a server that needs them works with the SDKs and with what the banner shows, and tells nobody a secret."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import signal
import sys
from base64 import b64encode
from hashlib import sha256
from itertools import product
from pathlib import Path

import openai
import pytest
from click.testing import CliRunner

from gai_fast.cli import main
from gai_fast.cli.mock.command import Mock
from gai_fast.model.settings import KeySettings, key_digest
from tests.integration.gateway import MESSAGES, NATIVE, QUERY, Net, on_both_loops, on_uvloop, request_bytes
from tests.integration.processes import configure, hold, release, serving
from tests.limits import LIMITS
from tests.ports import free_port

ALICE, BOB = "sk-canary-alice-012345", "sk-canary-bob-012345"
KEYS = (KeySettings("alice", (key_digest(ALICE),)), KeySettings("bob", (key_digest(BOB),)))
WRONG = "sk-canary-wrong-012345"


@on_both_loops
async def test_the_openai_sdk_works_with_a_key_and_says_so_without(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=3), keys=KEYS)
    for key, is_known in ((ALICE, True), (WRONG, False)):
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=key) as client:
            if is_known:
                stream = await client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
                assert [chunk async for chunk in stream]
                assert [model.id async for model in client.models.list()]
            else:
                with pytest.raises(openai.AuthenticationError) as caught:
                    await client.chat.completions.create(model="m", messages=MESSAGES)
                assert caught.value.code == "unauthorized"
                assert WRONG not in str(caught.value)


@on_uvloop
async def test_the_access_log_names_the_caller_and_no_key(net: Net, caplog: pytest.LogCaptureFixture) -> None:
    gateway = await net.gateway(await net.mock(deltas=3), keys=KEYS)
    with caplog.at_level(logging.INFO, "gai_fast.access"):
        for key in (ALICE, BOB, WRONG):
            for path in ("/api/v1/stream", f"/api/v1/stream?api_key={key}"):
                await gateway.ask("POST", path, {**QUERY, "model": "m"}, {"x-api-key": key})
        await gateway.ask("GET", f"/v1/models?key={ALICE}")
    lines = [record.getMessage() for record in caplog.records if record.name == "gai_fast.access"]
    assert [re.sub(r".* '(\S+)' (\d+) \S+ \S+ ?(\w*).*", r"\1 \2 \3", line) for line in lines] == [
        *["/api/v1/stream 200 alice"] * 2,
        *["/api/v1/stream 200 bob"] * 2,
        *["/api/v1/stream 401 "] * 2,
        "/v1/models 401 ",
    ]
    assert "canary" not in caplog.text


@on_uvloop
async def test_nothing_that_a_server_prints_or_answers_holds_a_secret(net: Net, tmp_path: Path) -> None:
    digest = sha256(BOB.encode()).hexdigest()
    (tmp_path / "gai-fast.toml").write_text(
        '[server]\nport = 0\naccess_log = true\nlog_level = "debug"\n'
        '[[key]]\nname = "alice"\nrole = "admin"\nsecret = "env:ALICE"\n'
        f'[[key]]\nname = "bob"\nsecret = "sha256:{digest}"\n'
    )
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gai_fast", "serve"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=tmp_path,
        env={**os.environ, "ALICE": ALICE, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert server.stdout is not None
    printed = b""
    try:
        while b"\nmodels: " not in printed:
            printed += await server.stdout.readline()
        found = re.search(rb"http://([0-9.:]+)", printed)
        assert found is not None
        host = found[1].decode()
        answered = b""
        for key in (ALICE, BOB, WRONG, "x" * 5000):
            for method, path in (("POST", "/api/v1/stream"), ("GET", "/v1/models"), ("GET", "/v1/models/x")):
                client = await net.connect(host)
                body = {**QUERY, "stream": False} if method == "POST" else None
                response = await client.ask(method, path, body, {"authorization": f"Bearer {key}"})
                answered += response.body + repr(response.headers).encode()
                assert (response.status == 401) is (key not in (ALICE, BOB))
                client.close()
        client = await net.connect(host)
        for path in ("/metrics", "/version", "/readyz", "/"):
            answered += (await client.ask("GET", path, headers={"x-api-key": ALICE})).body
        client.close()
    finally:
        server.send_signal(signal.SIGTERM)
        printed += await server.stdout.read()
        assert await server.wait() == 0
    assert b'"key":"alice"' in printed, "the log has its lines"
    for secret in (b"canary", digest.encode(), b"xxxx"):
        assert secret not in printed
        assert secret not in answered


@pytest.mark.parametrize("fast_lane", ["auto", "off"])
@on_uvloop
async def test_a_key_is_bound_to_its_models_on_every_route(net: Net, fast_lane: str) -> None:
    digests = (key_digest(ALICE),), (key_digest(BOB),)
    keys = (KeySettings("alice", digests[0], ("m", "up/*")), KeySettings("bob", digests[1]))
    gateway = await net.gateway(await net.mock(deltas=2), keys=keys, fast_lane=fast_lane)
    calls = [
        ("/api/v1/stream", QUERY),
        ("/v1/chat/completions", {"messages": MESSAGES, "stream": True}),
        ("/v1/messages", {"messages": MESSAGES, "max_tokens": 9}),
        ("/v1/messages/count_tokens", {"messages": MESSAGES}),
        ("/v1/responses", {"input": "hi"}),
        ("/v1/completions", {"prompt": "hi"}),
        ("/api/v1/streams", QUERY),
    ]
    for path, body in calls:
        for key, name in product((ALICE, BOB), ("m", "up/x", "claude", "none")):
            response = await gateway.ask("POST", path, {**body, "model": name}, {"x-api-key": key})
            assert (response.status == 403) is (key == ALICE and name in ("claude", "none")), (path, name)
    for key, ids in ((ALICE, ["m"]), (BOB, ["m", "claude"])):
        listed = await gateway.ask("GET", "/v1/models", headers={"x-api-key": key})
        assert [each["id"] for each in json.loads(listed.body)["data"]] == ids
    for name, status in (("m", 200), ("claude", 403), ("none", 403)):
        assert (await gateway.ask("GET", f"/v1/models/{name}", headers={"x-api-key": ALICE})).status == status


@pytest.mark.parametrize("fast_lane", ["auto", "off"])
@on_uvloop
async def test_a_key_for_some_models_names_no_others_for_the_upstream_to_fall_back_to(net: Net, fast_lane: str) -> None:
    """OpenRouter's `models`, in a body that is passed through and among the options of a native one."""
    keys = (KeySettings("alice", (key_digest(ALICE),), ("m",)), KeySettings("bob", (key_digest(BOB),)))
    gateway = await net.gateway(await net.mock(deltas=2), keys=keys, fast_lane=fast_lane)
    others = {"models": ["anthropic/claude-opus-5"]}
    calls = [
        ("/api/v1/stream", {**QUERY, "provider_options": {"openrouter": others}}),
        ("/v1/chat/completions", {"messages": MESSAGES, "stream": True, **others}),
        ("/v1/responses", {"input": "hi", **others}),
    ]
    for path, body in calls:
        refused = await gateway.ask("POST", path, {**body, "model": "m"}, {"x-api-key": ALICE})
        assert refused.status == 403
        assert b"may not use all models" in refused.body
        assert (await gateway.ask("POST", path, {**body, "model": "m"}, {"x-api-key": BOB})).status != 403


@pytest.mark.parametrize("fast_lane", ["auto", "off"])
@on_uvloop
async def test_so_many_wrong_keys_are_401_and_the_next_is_429_on_both_servers(net: Net, fast_lane: str) -> None:
    gateway = await net.gateway(
        await net.mock(deltas=2), keys=KEYS, fast_lane=fast_lane, forwarded_allow_ips=("127.0.0.1",)
    )

    async def ask(method: str, path: str, key: str, client: str = "192.0.2.1") -> int:
        body = {**QUERY, "model": "m"} if method == "POST" else None
        response = await gateway.ask(method, path, body, {"x-api-key": key, "x-forwarded-for": client})
        if response.status == 429:
            assert 1 <= int(response.headers["retry-after"]) <= 60
        return response.status

    routes = (("POST", "/api/v1/stream"), ("GET", "/v1/models"), ("GET", "/admin/v1/keys"), ("GET", "/ws/stream"))
    for method, path in routes:
        for _ in range(LIMITS.wrong_keys // len(routes)):
            assert await ask(method, path, WRONG) == 401
    assert await ask("POST", "/api/v1/stream", ALICE, "192.0.2.2") == 200
    for method, path in routes:
        assert await ask(method, path, WRONG) == await ask(method, path, ALICE) == 429
    assert await ask("POST", "/api/v1/stream", WRONG, "192.0.2.2") == 401
    assert await ask("POST", "/api/v1/stream", ALICE, "192.0.2.2") == 200
    assert await ask("GET", "/healthz", WRONG) == 200
    assert net.logged == ["gai_fast.server: 192.0.2.1 has sent 100 wrong keys within a minute: it is blocked"]
    net.logged.clear()


@pytest.mark.parametrize("fast_lane", ["auto", "off"])
@on_uvloop
async def test_a_wrong_key_counts_once_although_its_body_has_not_come(net: Net, fast_lane: str) -> None:
    gateway = await net.gateway(await net.mock(deltas=2), keys=KEYS, fast_lane=fast_lane)
    head = request_bytes(gateway.host, "POST", NATIVE, QUERY, {"x-api-key": WRONG}).removesuffix(b"}")
    for _ in range(LIMITS.wrong_keys):
        client = await gateway.connect()
        client.send(head)
        assert (await client.response()).status == 401
        client.close()
    assert (await gateway.ask("GET", "/v1/models", headers={"x-api-key": WRONG})).status == 429
    assert net.warned("is blocked") == 1


@pytest.mark.parametrize("path", ["/dashboard", "/docs"])
@on_uvloop
async def test_a_browser_is_asked_for_an_admins_key_and_other_clients_get_its_scheme(net: Net, path: str) -> None:
    keys = (*KEYS, KeySettings("root", (key_digest("sk-root-0123456789"),), role="admin"))
    gateway = await net.gateway(await net.mock(deltas=2), keys=keys)
    page = await gateway.ask("GET", path, headers={"accept": "text/html", "x-api-key": "sk-root-0123456789"})
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    for headers, status in (({}, 401), ({"x-api-key": WRONG}, 401), ({"x-api-key": ALICE}, 403)):
        browser = {"accept": "text/html,*/*;q=0.8", "if-none-match": page.headers["etag"]}
        asked = await gateway.ask("GET", path, headers={**headers, **browser})
        assert (asked.status, asked.body) == (status, page.body), "the page asks for the key, and opens no dialog"
        assert asked.headers.get("www-authenticate") == ("Bearer" if status == 401 else None)
        assert asked.headers["content-security-policy"] == page.headers["content-security-policy"]
        other = await gateway.ask("GET", path, headers=headers)
        assert (other.status, other.headers["content-type"]) == (status, "application/json")
    basic = {"authorization": f"Basic {b64encode(b'x:sk-root-0123456789').decode()}"}
    for headers in ({"host": "evil.example"}, {"origin": "https://evil.example", **basic}):
        foreign = await gateway.ask("GET", path, headers={**headers, "accept": "text/html"})
        assert (foreign.status, foreign.headers["content-type"]) == (403, "application/json")
    assert (await gateway.ask("GET", f"{path}/{path[1:]}.js")).status == 200
    by_itself = await gateway.ask("GET", "/admin/v1/events")  # a page that comes back must not open a dialog each time
    assert (by_itself.status, by_itself.headers["www-authenticate"]) == (401, "Bearer")
    for headers in (basic, {"x-api-key": "sk-root-0123456789"}):
        assert (await gateway.ask("GET", "/admin/v1/none", headers=headers)).status == 404
    assert (await gateway.ask("GET", "/v1/models", headers=basic)).status == 401


@on_uvloop
async def test_without_keys_pages_of_others_cannot_operate_the_server(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=2))
    for headers, status in (
        ({}, 404),
        ({"origin": gateway.url, "sec-fetch-site": "same-origin"}, 404),
        ({"origin": "https://evil.example"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"host": "evil.example"}, 403),
        ({"x-forwarded-for": "192.0.2.1"}, 403),
    ):
        assert (await gateway.ask("GET", "/admin/v1/none", headers=headers)).status == status


@on_uvloop
async def test_a_reload_takes_what_the_key_command_has_changed_and_drops_no_stream(net: Net, tmp_path: Path) -> None:
    def key(*arguments: str) -> str:
        result = CliRunner().invoke(main, ["key", *arguments, "-c", str(tmp_path / "gai-fast.toml"), "--json"])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout).get("secret", "")

    async with Mock() as mock:
        hold(mock)
        configure(tmp_path, mock)
        key("new", "stays")
        first = key("new", "alice", "--models", "m")
        async with serving(net, tmp_path) as server:

            async def reload() -> None:
                server.signal(signal.SIGHUP)
                await server.said("has been reloaded")

            async def status(secret: str, path: str = "/v1/models/m") -> int:
                return (await server.ask("GET", path, headers={"x-api-key": secret})).status

            client = await server.connect()
            client.request("POST", "/api/v1/stream", {**QUERY, "model": "m"}, {"x-api-key": first})
            running = await client.response()
            second = key("rotate", "alice")
            assert (await status(first), await status(second)) == (200, 401)
            await reload()
            assert (await status(first), await status(second), await status(second, "/v1/models/demo")) == (
                200,
                200,
                403,
            )
            key("rotate", "alice")
            await reload()
            assert (await status(first), await status(second), await status(second, "/admin/v1/keys")) == (
                401,
                200,
                403,
            )
            key("revoke", "alice")
            admin = key("new", "alice", "--role", "admin")
            await reload()
            assert (await status(second), await status(admin), await status(admin, "/admin/v1/keys")) == (401, 200, 200)
            file = tmp_path / "gai-fast.toml"
            file.write_text(file.read_text() + "expires = 2020-01-01\n")
            await reload()
            assert (await server.ask("GET", "/v1/models", headers={"x-api-key": admin})).json["error"][
                "code"
            ] == "unauthorized"
            release(mock)
            await running.rest()
            assert running.types[-2:] == ["finish", "done"]
            assert running.ended


@on_uvloop
async def test_the_addresses_of_upstreams_are_for_the_log_and_admins(net: Net) -> None:
    port = free_port()
    root = KeySettings("root", (key_digest("sk-root-0123456789"),), role="admin")
    gateway = await net.gateway(f"http://127.0.0.1:{port}", keys=(*KEYS, root))
    for path, body in (
        ("/api/v1/stream", QUERY),
        ("/api/v1/stream", {**QUERY, "stream": False}),
        ("/v1/chat/completions", {"model": "m", "messages": MESSAGES}),
    ):
        for key, is_shown in ((ALICE, False), ("sk-root-0123456789", True)):
            result = (await gateway.ask("POST", path, {**body, "model": "m"}, {"x-api-key": key})).body.decode()
            assert "cannot connect to " in result
            assert (str(port) in result) is is_shown
            assert ("upstream 'up'" in result) is not is_shown
    assert net.warned(f"upstream 'up': cannot connect to 127.0.0.1:{port} ") == 1
