"""Keys that an admin makes at run time: in force without a restart, limited like keys of the file, and revoked with
their streams. tests/integration/stores/test_keys.py has several servers."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gai_fast.cli.mock.command import Mock
from gai_fast.model.settings import IssuerSettings, KeyLimits, KeySettings, Settings, key_digest
from tests.integration.gateway import CHAT, MESSAGES, NATIVE, Gateway, M, Net, Response, on_both_loops, on_uvloop
from tests.integration.processes import Server, configure, hold, run_forked, serving
from tests.integration.websocket import connect
from tests.legal import check_legal
from tests.waiting import until_answered

ADMIN, USER = "sk-canary-admin-012345", "sk-canary-user-012345"
OPERATOR = KeySettings("operator", (key_digest(ADMIN),), role="admin")
CALLER = KeySettings("caller", (key_digest(USER),))
AS_ADMIN = {"authorization": f"Bearer {ADMIN}"}
KEYS = "/admin/v1/keys"
ENDS = "end with this server"


async def ask(server: Gateway | Server, method: str, path: str = "", body: Any = None, secret: str = ADMIN) -> Response:
    return await server.ask(method, f"{KEYS}{path}", body, {"authorization": f"Bearer {secret}"})


async def made(server: Gateway | Server, name: str, **values: Any) -> str:
    """Makes a key; returns its secret."""
    response = await ask(server, "POST", "", {"name": name, **values})
    assert response.status == 201, response.json
    secret: str = response.json["secret"]
    return secret


async def status_of(server: Gateway | Server, secret: str, path: str = "/v1/models") -> int:
    return (await server.ask("GET", path, None, {"x-api-key": secret})).status


async def rows(server: Gateway | Server) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in (await ask(server, "GET")).json["data"]}


@on_both_loops
async def test_a_key_counts_at_once_and_its_secret_is_reported_once(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=3), keys=(OPERATOR, CALLER))
    secret = await made(gateway, "shop")
    assert (await gateway.ask("POST", NATIVE, M, {"x-api-key": secret})).status == 200
    found = await ask(gateway, "GET")
    assert secret not in found.body.decode()
    assert key_digest(secret).hex() not in found.body.decode()
    row = next(each for each in found.json["data"] if each["name"] == "shop")
    assert row.pop("created").startswith("20")
    assert row == {
        "name": "shop",
        "role": "user",
        "models": ["*"],
        "expires": None,
        "limits": {"requests_per_minute": None, "tokens_per_minute": None, "streams": None, "spend": None},
        "spent": 0.0,
        "spent_period": "total",
        "lane": [],
        "tools": [],
        "source": "store",
        "grace_until": None,
    }
    assert (await ask(gateway, "GET", "/shop")).json["name"] == "shop"
    revoked = await ask(gateway, "DELETE", "/shop")
    assert (revoked.status, revoked.json) == (200, {"name": "shop", "revoked": True})
    assert await status_of(gateway, secret) == 401
    for method, path in (("GET", "/shop"), ("DELETE", "/shop"), ("PATCH", "/shop"), ("POST", "/shop/rotate")):
        gone = await ask(gateway, method, path, {})
        assert (gone.status, gone.error["reason"]) == (404, "key"), method
    assert net.warned(ENDS) == 1


@on_uvloop
async def test_the_limits_of_a_stored_key_hold_as_those_of_the_file(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=3), keys=(OPERATOR,), lane=("/v1/embeddings",))
    secret = await made(gateway, "shop", requests_per_minute=2, models=["m"], lane=["up"])
    for number in range(3):
        response = await gateway.ask("POST", NATIVE, M, {"x-api-key": secret})
        assert response.status == (200 if number < 2 else 429)
    assert response.error["reason"] == "requests_per_minute"
    assert response.headers["x-ratelimit-limit-requests"] == "2"
    other = await gateway.ask("POST", NATIVE, {**M, "model": "claude"}, {"x-api-key": secret})
    assert other.status == 403
    changed = await ask(gateway, "PATCH", "/shop", {"limits": {"requests_per_minute": None, "streams": 0}})
    assert changed.json["limits"] == {
        "requests_per_minute": None, "tokens_per_minute": None, "streams": 0, "spend": None,
    }  # fmt: skip
    assert (changed.json["models"], changed.json["lane"]) == (["m"], ["up"])
    assert (await gateway.ask("POST", NATIVE, M, {"x-api-key": secret})).error["reason"] == "streams"
    soon = datetime.now(UTC) + timedelta(seconds=0.2)
    assert (await ask(gateway, "PATCH", "/shop", {"expires": soon.isoformat()})).status == 200
    await asyncio.sleep(0.3)
    expired = await gateway.ask("POST", NATIVE, M, {"x-api-key": secret})
    assert (expired.status, expired.error["reason"]) == (401, "expired")
    assert net.warned(ENDS) == 1


@on_uvloop
async def test_a_stored_key_has_what_key_defaults_say_and_is_never_an_admins(net: Net) -> None:
    gateway = await net.gateway(await net.mock(), keys=(OPERATOR,))
    usual = KeySettings("", (), role="admin", models=("m",), limits=OPERATOR.limits)
    settings: Settings = gateway.running.engine.settings
    gateway.running.use(replace(settings, key_defaults=usual))
    secret = await made(gateway, "shop", streams=3)
    row = (await rows(gateway))["shop"]
    assert (row["role"], row["models"], row["limits"]["streams"]) == ("user", ["m"], 3)
    assert (await ask(gateway, "GET", secret=secret)).status == 403
    refused = await ask(gateway, "POST", "", {"name": "boss", "role": "admin"})
    assert (refused.status, refused.error["reason"]) == (400, "role")
    assert net.warned(ENDS) == 1


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "a" * 65}, "name"),
        ({"name": "anonymous"}, "name"),
        ({"name": "a/b"}, "name"),
        ({"name": "issuer:someone"}, "name"),
        ({"name": ["a"]}, "name"),
        ({"name": "a", "models": "m"}, "models"),
        ({"name": "a", "models": ["unknown"]}, "models"),
        ({"name": "a", "models": [1]}, "models"),
        ({"name": "a", "streams": -1}, "streams"),
        ({"name": "a", "streams": True}, "streams"),
        ({"name": "a", "streams": 1.5}, "streams"),
        ({"name": "a", "limits": {"tokens_per_minute": 1 << 70}}, "tokens_per_minute"),
        ({"name": "a", "limits": {"models": ["m"]}}, "key"),
        ({"name": "a", "limits": 3}, "limits"),
        ({"name": "a", "streams": 1, "limits": {"streams": 1}}, "streams"),
        ({"name": "a", "spend": 20}, "spend"),
        ({"name": "a", "spend": {"amount": -1, "period": "day"}}, "spend"),
        ({"name": "a", "spend": {"amount": 1, "period": "year"}}, "spend"),
        ({"name": "a", "expires": "tomorrow"}, "expires"),
        ({"name": "a", "expires": "2020-01-01"}, "expires"),
        ({"name": "a", "lane": ["up"]}, "lane"),
        ({"name": "a", "lane": ["nowhere"]}, "lane"),
        ({"name": "a", "secret": "sk-own-0123456789"}, "key"),
        ({"name": "a", "stream": 1}, "key"),
        ([], "validation"),
        (b"{", "json"),
        ({"name": "a", "models": ["m-*" * 20_000]}, "max_body"),
    ],
)
@on_uvloop
async def test_a_body_that_no_key_may_have_is_refused_and_makes_none(net: Net, body: Any, reason: str) -> None:
    gateway = await net.gateway(await net.mock(), keys=(OPERATOR,))
    refused = await ask(gateway, "POST", "", body)
    assert (refused.status, refused.error["reason"]) == (413 if reason == "max_body" else 400, reason)
    assert {*await rows(gateway)} == {"operator"}


@on_uvloop
async def test_a_change_may_not_let_a_key_expire_in_the_past(net: Net) -> None:
    gateway = await net.gateway(await net.mock(), keys=(OPERATOR,))
    secret = await made(gateway, "shop", expires="2999-01-01")
    refused = await ask(gateway, "PATCH", "/shop", {"expires": "2020-01-01", "streams": 3})
    assert (refused.status, refused.error["reason"]) == (400, "expires")
    row = (await rows(gateway))["shop"]
    assert (row["expires"], row["limits"]["streams"]) == ("2999-01-01T00:00:00+00:00", None)
    assert await status_of(gateway, secret) == 200
    assert net.warned(ENDS) == 1


@on_uvloop
async def test_keys_of_the_file_are_changed_in_the_file(net: Net) -> None:
    gateway = await net.gateway(await net.mock(), keys=(OPERATOR, CALLER))
    asked = [("POST", "", {"name": "caller"}), ("PATCH", "/caller", {}), ("DELETE", "/caller", None)]
    for method, path, body in [*asked, ("POST", "/caller/rotate", {})]:
        refused = await ask(gateway, method, path, body)
        assert (refused.status, refused.error["reason"]) == (409, "file"), (method, path)
    assert await status_of(gateway, USER) == 200


@on_uvloop
async def test_what_keys_and_callers_of_issuers_have_used_is_reset(net: Net) -> None:
    limits = KeyLimits(requests_per_minute=1)
    rights = KeySettings("sso", (), limits=limits)
    issuer = IssuerSettings("sso", "https://127.0.0.1:1", "gateway", rights)
    caller = replace(CALLER, limits=limits)
    gateway = await net.gateway(await net.mock(deltas=1), keys=(OPERATOR, caller), issuers=(issuer,))
    secret = await made(gateway, "shop", requests_per_minute=1)
    for name, each in (("caller", USER), ("shop", secret)):
        for _ in range(2):
            asked = [await gateway.ask("POST", NATIVE, M, {"x-api-key": each}) for _ in range(2)]
            assert [response.status for response in asked] == [200, 429]
            reset = await ask(gateway, "POST", f"/{name}/reset")
            assert (reset.status, reset.json["name"]) == (200, name)
    ledger = gateway.running.engine.ledger
    person = issuer.caller("auth0|a/b")
    for _ in range(2):
        await ledger.take(person, "s")
        assert (await ask(gateway, "POST", "/sso:auth0%7Ca%2Fb/reset", {})).json["name"] == person.name
        ledger.cancel("s")
    refused = await ask(gateway, "POST", "/caller/reset", {"limits": ["spend"]})
    assert (refused.status, refused.error["reason"]) == (400, "reset")
    for name in ("nobody", "sso:", "other:a", f"sso:{'x' * 2000}"):
        unknown = await ask(gateway, "POST", f"/{name}/reset")
        assert (unknown.status, unknown.error["reason"]) == (404, "key"), name
    assert (await ask(gateway, "POST", "/caller/reset", secret=USER)).status == 403
    assert net.warned(ENDS) == 1
    assert net.warned("cannot be fetched") == 1


@on_uvloop
async def test_the_files_name_wins_over_a_stored_key_of_this_name(net: Net) -> None:
    gateway = await net.gateway(await net.mock(), keys=(OPERATOR,))
    secret = await made(gateway, "caller")
    settings: Settings = gateway.running.engine.settings
    gateway.running.use(replace(settings, keys=(OPERATOR, CALLER)))
    assert (await status_of(gateway, secret), await status_of(gateway, USER)) == (401, 200)
    assert (await rows(gateway))["caller"]["source"] == "file"
    gateway.running.use(settings)
    assert (await status_of(gateway, secret), await status_of(gateway, USER)) == (200, 401)
    assert net.warned(ENDS) == 1


@on_uvloop
async def test_without_an_admins_key_no_key_is_made_and_the_server_stays_open(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=3))
    refused = await gateway.ask("POST", KEYS, {"name": "shop"})
    assert (refused.status, refused.error["reason"]) == (409, "no_admin")
    assert (await gateway.ask("POST", NATIVE, M)).status == 200
    assert (await gateway.ask("GET", "/metrics")).status == 200


@on_uvloop
async def test_a_rotation_leaves_two_secrets_for_a_while_and_streams_go_on(net: Net) -> None:
    gateway = await net.gateway(await net.mock(rate=50, deltas=1000), keys=(OPERATOR,))
    first = await made(gateway, "shop")
    client, response = await gateway.stream({**M}, x_api_key=first)
    await response.until(b"text.delta")
    rotated = await ask(gateway, "POST", "/shop/rotate", {"grace": 600})
    assert (rotated.status, rotated.json["grace_until"] is not None) == (200, True)
    second = rotated.json["secret"]
    assert [await status_of(gateway, each) for each in (first, second)] == [200, 200]
    third = (await ask(gateway, "POST", "/shop/rotate")).json["secret"]
    assert [await status_of(gateway, each) for each in (first, second, third)] == [401, 200, 200]
    fourth = (await ask(gateway, "POST", "/shop/rotate", {"grace": 0})).json["secret"]
    assert [await status_of(gateway, each) for each in (second, third, fourth)] == [401, 401, 200]
    fifth = (await ask(gateway, "POST", "/shop/rotate", {"grace": 0.2})).json["secret"]
    await asyncio.sleep(0.3)
    assert [await status_of(gateway, each) for each in (fourth, fifth)] == [401, 200]
    for grace in (-1, "1", True, 1e9, None):
        assert (await ask(gateway, "POST", "/shop/rotate", {"grace": grace})).error["reason"] == "grace"
    size = len(response.body)
    await response.until(b"text.delta")
    assert gateway.streams == 1
    assert await response.more()
    assert len(response.body) > size
    client.close()
    assert net.warned(ENDS) == 1


FORMS = (
    ("/api/v1/stream", M),
    ("/api/v1/stream?format=openai", M),
    ("/api/v1/stream?format=vercel", M),
    ("/api/v1/stream?format=agui", M),
    ("/api/v1/stream?format=raw", M),
    ("/api/v1/stream?framing=ndjson", M),
    ("/api/v1/stream", {**M, "resumable": True}),
    (CHAT, {"model": "m", "messages": MESSAGES, "stream": True}),
    ("/v1/messages", {"model": "m", "messages": MESSAGES, "stream": True, "max_tokens": 100}),
    ("/v1/responses", {"model": "m", "input": "Hi", "stream": True}),
)


@pytest.mark.parametrize(("path", "body"), FORMS)
@on_uvloop
async def test_a_revoked_keys_streams_end_properly_in_every_format(net: Net, path: str, body: Any) -> None:
    gateway = await net.gateway(await net.mock(rate=100, deltas=1000), keys=(OPERATOR, CALLER))
    secret = await made(gateway, "shop")
    client, response = await gateway.stream(body, path, x_api_key=secret)
    other, others = await gateway.stream(M, x_api_key=USER)
    await response.more()
    await others.until(b"text.delta")
    began = asyncio.get_running_loop().time()
    assert (await ask(gateway, "DELETE", "/shop")).status == 200
    await response.rest()
    assert asyncio.get_running_loop().time() - began < 1.0
    assert response.ended is not path.endswith("raw")  # bytes of the upstream that break off are cut
    if path == NATIVE:
        finish, done = response.events[-2:]
        assert (finish["type"], finish["finish_reason"], finish["reason"]) == ("finish", "cancelled", "key_revoked")
        assert (done["type"], done["finished"]) == ("done", True)
        check_legal(response.events)
    assert gateway.streams == 1  # the streams of others go on
    client.close()
    other.close()
    assert net.warned(ENDS) == 1


@on_uvloop
async def test_what_is_passed_through_ends_with_its_key_too(net: Net) -> None:
    gateway = await net.gateway(await net.mock(rate=100, deltas=1000), keys=(OPERATOR,), lane=("/v1/chat/completions",))
    secret = await made(gateway, "shop", lane=["up"])
    body = {"model": "m", "messages": MESSAGES, "stream": True}
    client, response = await gateway.stream(body, "/p/up/v1/chat/completions", x_api_key=secret)
    assert response.status == 200, (await response.rest()).body
    await response.more()
    assert (await ask(gateway, "DELETE", "/shop")).status == 200
    await response.rest()
    assert not gateway.running.engine.transfers
    client.close()
    net.warned("up")
    assert net.warned(ENDS) == 1


@on_uvloop
async def test_a_revoked_keys_socket_has_no_stream_any_more(net: Net) -> None:
    gateway = await net.gateway(await net.mock(rate=100, deltas=1000), keys=(OPERATOR,))
    secret = await made(gateway, "shop")
    socket = await connect(gateway, x_api_key=secret)
    socket.ask("a", **M)
    await socket.until(stream="a", type="text.delta")
    assert (await ask(gateway, "DELETE", "/shop")).status == 200
    await socket.until_done("a")
    finish = next(each for each in socket.of("a") if each["type"] == "finish")
    assert (finish["finish_reason"], finish["reason"]) == ("cancelled", "key_revoked")
    socket.ask("b", **M)
    await socket.until_done("b")
    assert socket.error("b")["code"] == "unauthorized"
    socket.client.close()
    assert net.warned(ENDS) == 1


@on_uvloop
async def test_a_revoked_key_is_forgotten_so_that_figures_do_not_grow_with_keys(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=3), keys=(OPERATOR,))
    secret = await made(gateway, "job-1")
    assert (await gateway.ask("POST", NATIVE, M, {"x-api-key": secret})).status == 200
    figures = await gateway.ask("GET", "/metrics", None, AS_ADMIN)
    assert b'gai_fast_caller_streams{caller="job-1"} 0.0' in figures.body
    assert (await ask(gateway, "DELETE", "/job-1")).status == 200
    assert "job-1" not in gateway.running.engine.callers
    assert net.warned(ENDS) == 1


@on_uvloop
async def test_of_two_admins_who_make_one_name_one_learns_that_it_is_there(net: Net) -> None:
    gateway = await net.gateway(await net.mock(), keys=(OPERATOR,))
    responses = await asyncio.gather(*(ask(gateway, "POST", "", {"name": "shop"}) for _ in range(8)))
    assert sorted(each.status for each in responses) == [201, *[409] * 7]
    assert {each.error["reason"] for each in responses if each.status == 409} == {"exists"}
    secret = next(each.json["secret"] for each in responses if each.status == 201)
    assert await status_of(gateway, secret) == 200
    assert net.warned(ENDS) == 1


@on_uvloop
async def test_each_action_has_its_line_in_the_audit_log(net: Net, caplog: pytest.LogCaptureFixture) -> None:
    gateway = await net.gateway(await net.mock(), keys=(OPERATOR, CALLER))
    with caplog.at_level(logging.INFO, "gai_fast.audit"):
        secret = await made(gateway, "shop")
        await ask(gateway, "POST", "", {"name": "shop"})
        await ask(gateway, "PATCH", "/shop", {"streams": 1})
        rotated = (await ask(gateway, "POST", "/shop/rotate")).json["secret"]
        await ask(gateway, "POST", "/shop/reset")
        await ask(gateway, "POST", "/caller/reset")
        await ask(gateway, "DELETE", "/shop")
        await ask(gateway, "DELETE", "/caller", secret=USER)
        await ask(gateway, "DELETE", "/caller")
    lines = [each.msg.fields for each in caplog.records if each.name == "gai_fast.audit"]
    assert [(each["action"], each["key"], each["target"], each["result"]) for each in lines] == [
        ("keys.new", "operator", "shop", 201),
        ("keys.new", "operator", "shop", 409),
        ("keys.change", "operator", "shop", 200),
        ("keys.rotate", "operator", "shop", 200),
        ("keys.reset", "operator", "shop", 200),
        ("keys.reset", "operator", "caller", 200),
        ("keys.revoke", "operator", "shop", 200),
        ("keys.revoke", "caller", "caller", 403),
        ("keys.revoke", "operator", "caller", 409),
    ]
    assert secret not in caplog.text
    assert rotated not in caplog.text
    assert net.warned(ENDS) == 1


ADMIN_KEY = f'[[key]]\nname = "operator"\nrole = "admin"\nsecret = "sha256:{key_digest(ADMIN).hex()}"\n'


async def test_every_worker_knows_a_key_within_a_second_and_a_new_one_too(net: Net, tmp_path: Path) -> None:
    async with Mock() as mock:
        configure(tmp_path, mock, more=ADMIN_KEY)
        async with serving(net, tmp_path, "--workers", "2") as server:
            secret = await made(server, "shop")
            assert ENDS in await server.said(ENDS)
            await asyncio.sleep(1)
            assert {await status_of(server, secret) for _ in range(8)} == {200}
            hold(mock)
            streams = []
            for _ in range(4):
                client = await server.connect()
                client.request("POST", NATIVE, M, {"x-api-key": secret})
                streams.append(await (await client.response()).until(b"text.delta"))
            assert (await ask(server, "DELETE", "/shop")).status == 200
            async with asyncio.timeout(1):
                for response in streams:
                    await response.rest()
            assert {response.events[-2]["reason"] for response in streams} == {"key_revoked"}
            await asyncio.sleep(1)
            assert {await status_of(server, secret) for _ in range(8)} == {401}
            other = await made(server, "other")
            os.kill(next(iter(server.workers)), signal.SIGKILL)
            await asyncio.sleep(1)
            await until_answered(lambda: _all_know(server, other))


async def _all_know(server: Server, secret: str) -> bool:
    return {await status_of(server, secret) for _ in range(4)} == {200}


async def test_the_command_line_makes_lists_rotates_and_revokes(net: Net, tmp_path: Path) -> None:
    async with Mock() as mock:
        configure(tmp_path, mock, more=ADMIN_KEY)
        async with serving(net, tmp_path) as server:
            at = ("--server", f"http://{server.host}", "--api-key", ADMIN)

            async def key(*words: str) -> tuple[int, str, str]:
                return await run_forked("key", *words, cwd=tmp_path)

            code, output, errors = await key("new", "shop", "--models", "m", "--streams", "2", *at, "--json")
            made = json.loads(output)
            assert (code, {*made}, made["name"]) == (0, {"name", "secret", "hash"}, "shop")
            assert ENDS in errors
            assert await status_of(server, made["secret"]) == 200
            code, output, _ = await key("list", *at)
            assert code == 0
            assert [line.split()[:2] for line in output.splitlines()] == [
                ["name", "role"], ["operator", "admin"], ["shop", "user"],
            ]  # fmt: skip
            assert "streams 2" in output
            _, _, errors = await key("rotate", "shop", "--grace", "2592000", *at)
            assert errors.endswith("the former secret of shop stays valid for 2592000 s\n")
            code, output, errors = await key("rotate", "shop", "--grace", "0", *at, "--json")
            assert errors == "the former secret of shop is refused from now on\n"
            rotated = json.loads(output)["secret"]
            assert [await status_of(server, each) for each in (made["secret"], rotated)] == [401, 200]
            assert (await key("revoke", "shop", *at))[:2] == (0, "revoked shop\n")
            assert await status_of(server, rotated) == 401
            for words in (("revoke", "shop"), ("revoke", "operator"), ("new", "operator"), ("rotate", "nobody")):
                code, output, errors = await key(*words, *at)
                assert (code, output) == (1, "")
                assert "the server refuses" in errors
            code, _, errors = await key("list", *at[:2])
            assert (code, "GAI_FAST_KEY_API_KEY" in errors) == (1, True)
            code, output, _ = await key("new", "scraper", "--role", "metrics", *at, "--json")
            scraper = json.loads(output)["secret"]
            assert [await status_of(server, scraper, path) for path in ("/v1/models", "/metrics")] == [403, 200]
            for words in (
                ("new", "a", "--role", "admin", *at),
                ("list", "-c", "gai-fast.toml", *at),
                ("rotate", "operator", "--grace", "1"),
                ("list", "--api-key", ADMIN),
            ):
                assert (await key(*words))[0] == 2, words
