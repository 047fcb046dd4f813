"""Tokens of an OIDC issuer as keys, from outside: a fake issuer on loopback, and clients as they are."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import signal
import time
from pathlib import Path
from typing import Any

import openai
import pytest

from gai_fast.model.settings import IssuerSettings, KeySettings, Price, key_digest
from tests.integration.gateway import MESSAGES, NATIVE, Gateway, M, Net, Peer, on_both_loops, on_uvloop
from tests.integration.processes import configure, serving
from tests.integration.websocket import PROTOCOL, connect, handshake, refused
from tests.issuer import claims, issuer, jwk, part, public_pem, signed, token
from tests.limits import LIMITS
from tests.waiting import SECONDS, until

ADMIN = "sk-canary-admin-012345"


class Site:
    """An issuer: what it answers, and how often it was asked for its keys."""

    def __init__(self) -> None:
        self.url = ""
        self.keys = [jwk("RSA"), jwk("P-256")]
        self.asked = 0
        self.is_down = False

    async def answer(self, peer: Peer) -> None:
        while True:
            await peer.request()
            path = peer.head.split(b" ")[1].decode()
            if self.is_down:
                peer.reset()
                return
            if path == "/keys":
                self.asked += 1
            discovery = {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}
            document: Any = {"keys": self.keys} if path == "/keys" else discovery
            await peer.answer("200 OK", json.dumps(document).encode(), "Content-Type: application/json")

    def token(self, algorithm: str = "RS256", kind: str = "RSA", number: int = 0, **more: Any) -> str:
        return token(algorithm, kind, number, **{"iss": self.url, **more})


async def site_of(net: Net) -> Site:
    site = Site()
    upstream = await net.upstream(site.answer)
    site.url = upstream.url
    return site


async def gateway_for(net: Net, site: Site, *others: IssuerSettings, **options: Any) -> Gateway:
    rights = {each: options.pop(each) for each in ("models", "streams", "requests_per_minute") if each in options}
    return await net.gateway(await net.mock(deltas=3), issuers=(issuer(site.url, **rights), *others), **options)


def bearer(text: str) -> dict[str, str]:
    return {"authorization": f"Bearer {text}"}


@on_both_loops
async def test_the_openai_sdk_works_with_a_token(net: Net) -> None:
    site = await site_of(net)
    gateway = await gateway_for(net, site)
    for text, is_right in ((site.token(), True), (site.token("ES256", "P-256"), True), (site.token(aud="x"), False)):
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=text, max_retries=0) as client:
            if is_right:
                stream = await client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
                assert [chunk async for chunk in stream]
                assert [model.id async for model in client.models.list()]
            else:
                with pytest.raises(openai.AuthenticationError) as caught:
                    await client.chat.completions.create(model="m", messages=MESSAGES)
                assert caught.value.code == "unauthorized"
                assert "another audience" in str(caught.value)
                assert text not in str(caught.value)


@pytest.mark.parametrize("fast_lane", ["auto", "off"])
@on_uvloop
async def test_an_issuer_closes_every_route_as_a_key_does(net: Net, fast_lane: str) -> None:
    site = await site_of(net)
    gateway = await gateway_for(net, site, fast_lane=fast_lane)
    routes = [("POST", NATIVE, M), ("GET", "/v1/models", None), ("POST", "/v1/messages", {"model": "claude"})]
    routes += [("GET", "/ws/stream", None), ("POST", "/p/up/v1/embeddings", {}), ("GET", "/metrics", None)]
    routes += [("GET", path, None) for path in ("/admin/v1/keys", "/dashboard", "/docs")]
    for method, path, body in routes:
        assert (await gateway.ask(method, path, body)).status == 401, path
        assert (await gateway.ask(method, path, body, {"x-api-key": ADMIN})).status == 401, path
    for path in ("/metrics", "/admin/v1/keys", "/admin/v1/streams", "/dashboard", "/docs"):
        refused = await gateway.ask("GET", path, headers=bearer(site.token(role="admin")))
        assert refused.status == 403, path
    for path in ("/healthz", "/readyz", "/version", "/openapi.json", "/"):
        assert (await gateway.ask("GET", path)).status == 200, path
    assert (await gateway.ask("POST", NATIVE, M, bearer(site.token()))).status == 200


def forged(site: Site) -> list[str]:
    """Tokens of the public attacks on libraries: none may pass."""
    own = {**claims(iss=site.url), "sub": "admin"}
    body = part(own)
    found = [f"{part({'alg': alg})}.{body}.{end}" for alg in ("none", "None", "NONE") for end in ("", "AAAA")]
    for secret in (public_pem("RSA"), public_pem("RSA").strip(), json.dumps(site.keys[0]).encode(), b"", b"secret"):
        start = f"{part({'alg': 'HS256', 'typ': 'JWT', 'kid': 'RSA-0'})}.{body}"
        found.append(f"{start}.{part(hmac.digest(secret, start.encode(), 'sha256'))}")
    right = site.token()
    head, payload, signature = right.split(".")
    found += [
        f"{head}.{body}.{signature}",
        f"{head}.{payload}.",
        f"{head}.{payload}",
        f"{head}.{payload}.{signature[:-4]}AAAA",
        f"{part({'alg': 'ES256', 'kid': 'P-256-0'})}.{payload}.{part(bytes(64))}",  # CVE-2022-21449
        f"{part({'alg': 'EdDSA', 'kid': 'RSA-0'})}.{payload}.{signature}",
        right + "." + right,
        signed({"alg": "RS256", "kid": "RSA-0", "b64": False, "crit": ["b64"]}, own),
        signed({"alg": "RS256", "kid": "RSA-0", "cty": "JWT"}, right.encode()),
        signed({"alg": "RS256", "kid": "RSA-0"}, right.encode()),  # nested
        site.token(number=1, headers={"kid": "RSA-0", "jwk": jwk("RSA", 1)}),
        site.token(number=1, headers={"kid": "RSA-0", "jku": f"{site.url}/keys"}),
        site.token(number=1, headers={"kid": "../../dev/null"}),
        site.token(iss=f"{site.url}/"),
        signed({"alg": "RS256", "kid": "RSA-0"}, {**own, "iss": [site.url]}),
        site.token(aud=None),
        site.token(exp=None),
        site.token(exp=str(int(time.time()) + 600)),
        site.token(exp=int(time.time())),
        site.token(nbf=int(time.time()) + 3600),
        site.token(sub=""),
        site.token(sub=7),
        site.token(sub="x" * 129),
        site.token(sub="a\r\nset-cookie: x"),
    ]
    return found


@pytest.mark.parametrize("fast_lane", ["auto", "off"])
@on_uvloop
async def test_no_forged_token_passes(net: Net, fast_lane: str) -> None:
    site = await site_of(net)
    gateway = await gateway_for(net, site, fast_lane=fast_lane)
    for text in forged(site):
        for headers in (bearer(text), {"x-api-key": text}):
            refused = await gateway.ask("POST", NATIVE, M, headers)
            assert (refused.status, refused.error["code"]) == (401, "unauthorized"), text
            assert text not in refused.body.decode() or len(text) < 5
    both = {"authorization": f"Bearer {site.token()}", "x-api-key": site.token(sub="bob")}
    assert (await gateway.ask("POST", NATIVE, M, both)).status == 401, "two tokens that differ"
    assert site.asked == 2, "unknown keys have caused one fetch, and nothing in a token is asked"


@pytest.mark.parametrize("fast_lane", ["auto", "off"])
@on_uvloop
async def test_the_longest_token_passes(net: Net, fast_lane: str) -> None:
    site = await site_of(net)
    gateway = await gateway_for(net, site, fast_lane=fast_lane)
    room = (LIMITS.caller_token - len(site.token(groups=""))) * 3 // 4
    for size, status in ((room - 3, 200), (room + 30, 401)):
        text = site.token(groups="x" * size)
        assert (len(text) <= LIMITS.caller_token) is (status == 200)
        assert (await gateway.ask("POST", NATIVE, M, bearer(text))).status == status


@on_uvloop
async def test_each_caller_has_the_models_and_limits_of_its_issuer(net: Net) -> None:
    site = await site_of(net)
    gateway = await gateway_for(net, site, models=("m",), requests_per_minute=2)
    for name in ("alice", "bob"):
        for number in range(3):
            asked = await gateway.ask("POST", NATIVE, M, bearer(site.token(sub=name, jti=str(number))))
            assert asked.status == (200 if number < 2 else 429), (name, number)
            assert asked.headers["x-ratelimit-limit-requests"] == "2"
    refused = await gateway.ask("POST", NATIVE, {**M, "model": "claude"}, bearer(site.token(sub="carol")))
    assert (refused.status, refused.error["reason"]) == (403, "model")
    listed = await gateway.ask("GET", "/v1/models", headers=bearer(site.token()))
    assert [each["id"] for each in listed.json["data"]] == ["m"]


@on_uvloop
async def test_followers_count_for_the_limit_of_the_issuer(net: Net) -> None:
    """Streams are their caller's own: another caller of the issuer does not find them."""
    site = await site_of(net)
    gateway = await gateway_for(net, site, streams=1)
    started = await gateway.ask("POST", "/api/v1/streams", M, bearer(site.token()))
    assert started.status == 202
    place = f"/api/v1/streams/{started.json['id']}"
    assert (await gateway.ask("GET", place, headers=bearer(site.token()))).status == 200
    assert (await gateway.ask("GET", place, headers=bearer(site.token(sub="bob")))).status == 404
    assert gateway.running.engine.ledger.streams_of("staff:alice") == 1


@on_uvloop
async def test_figures_name_the_issuer_and_the_log_the_caller(net: Net, caplog: pytest.LogCaptureFixture) -> None:
    site = await site_of(net)
    admin = KeySettings("root", (key_digest(ADMIN),), role="admin")
    price = Price(10**6, 10**6, 10**6, 10**6, 10**6)
    gateway = await gateway_for(net, site, keys=(admin,), price=price)
    with caplog.at_level(logging.INFO, "gai_fast.access"):
        for name in ("alice", "bob", "Zoë Ω"):
            assert (await gateway.ask("POST", NATIVE, M, bearer(site.token(sub=name)))).status == 200
    lines = [record.getMessage() for record in caplog.records if record.name == "gai_fast.access"]
    assert all(any(f"staff:{name}" in line for line in lines) for name in ("alice", "bob", "Zoë Ω"))
    metrics = (await gateway.ask("GET", "/metrics", headers={"x-api-key": ADMIN})).body.decode()
    costs = [line for line in metrics.splitlines() if line.startswith("gai_fast_cost_total{")]
    assert any('key="staff"' in line and not line.endswith(" 0.0") for line in costs)
    assert "alice" not in metrics
    spend = (await gateway.ask("GET", "/admin/v1/spend?by=key", headers={"x-api-key": ADMIN})).json["data"]
    assert {row["key"] for row in spend} == {"staff:alice", "staff:bob", "staff:Zoë Ω"}


@on_uvloop
async def test_keys_and_tokens_stand_side_by_side(net: Net) -> None:
    site = await site_of(net)
    keys = (KeySettings("alice", (key_digest(ADMIN),), role="admin", models=("claude",)),)
    gateway = await gateway_for(net, site, keys=keys, models=("m",))
    for headers, models in (({"x-api-key": ADMIN}, ["claude"]), (bearer(site.token(sub="alice")), ["m"])):
        listed = await gateway.ask("GET", "/v1/models", headers=headers)
        assert [each["id"] for each in listed.json["data"]] == models
    assert (await gateway.ask("GET", "/admin/v1/streams", headers={"x-api-key": ADMIN})).status == 200
    assert (await gateway.ask("GET", "/admin/v1/streams", headers=bearer(site.token(sub="alice")))).status == 403


@on_uvloop
async def test_no_key_is_made_at_run_time_with_the_name_of_an_issuer(net: Net) -> None:
    """Figures and limits know an issuer's callers by its name."""
    site = await site_of(net)
    keys = (KeySettings("root", (key_digest(ADMIN),), role="admin"),)
    gateway = await gateway_for(net, site, keys=keys)
    as_admin = {"x-api-key": ADMIN}
    refused = await gateway.ask("POST", "/admin/v1/keys", {"name": "staff"}, as_admin)
    assert (refused.status, refused.error["reason"]) == (409, "file")
    made = await gateway.ask("POST", "/admin/v1/keys", {"name": "other"}, as_admin)
    assert made.status == 201
    for headers in (bearer(site.token()), bearer(made.json["secret"])):
        assert (await gateway.ask("GET", "/v1/models", headers=headers)).status == 200, "both are known now"
    assert net.warned("end with this server") == 1


@on_uvloop
async def test_a_websocket_takes_a_token_and_checks_it_for_each_stream(net: Net) -> None:
    site = await site_of(net)
    gateway = await gateway_for(net, site)
    # Whole seconds, since the gateway counts in milliseconds: 4, so that both sockets ask before on a busy machine too.
    ends = int(time.time()) + 4
    text = site.token(exp=ends)
    assert (await refused(gateway, handshake())).status == 401
    sockets = [await connect(gateway, **bearer(text)), await connect(gateway, f"{PROTOCOL}, bearer.{text}")]
    for opened in sockets:
        opened.ask("a", **M)
        await opened.until_done("a")
    await until(lambda: time.time() >= ends)
    for opened in sockets:
        opened.ask("b", **M)
        await opened.until_done("b")
        assert (opened.error("b")["code"], opened.error("b")["reason"]) == ("unauthorized", "expired")
        opened.client.close()


@on_uvloop
async def test_an_issuer_that_is_down_gives_503_and_keys_go_on(net: Net) -> None:
    site = await site_of(net)
    site.is_down = True
    keys = (KeySettings("alice", (key_digest(ADMIN),)),)
    gateway = await net.gateway(await net.mock(deltas=3), issuers=(issuer(site.url),), keys=keys)
    await until(lambda: bool(net.logged))
    for _ in range(LIMITS.wrong_keys + 5):
        refused = await gateway.ask("POST", NATIVE, M, bearer(site.token()))
        assert (refused.status, refused.error["code"], refused.error["reason"]) == (503, "overloaded", "issuer")
        assert refused.error["temporary"]
        assert refused.headers["retry-after"] == "1"
    assert (await gateway.ask("POST", NATIVE, M, {"x-api-key": ADMIN})).status == 200
    assert (await gateway.ask("GET", "/readyz")).status == 200
    site.is_down = False
    await until(lambda: site.asked > 0)
    await asyncio.sleep(0.05)
    assert (await gateway.ask("POST", NATIVE, M, bearer(site.token()))).status == 200
    assert net.warned("the keys of the issuer http://127.0.0.1") == 1


@on_uvloop
async def test_a_key_that_the_issuer_has_changed_is_found_at_once(net: Net) -> None:
    site = await site_of(net)
    gateway = await gateway_for(net, site)
    site.keys = [jwk("RSA", 1)]
    new = bearer(site.token(number=1))
    refused = await gateway.ask("POST", NATIVE, M, new)
    assert (refused.status, refused.headers["x-should-retry"], refused.headers["retry-after"]) == (401, "true", "1")
    await until(lambda: site.asked == 2)
    await asyncio.sleep(0.05)
    assert (await gateway.ask("POST", NATIVE, M, new)).status == 200
    for _ in range(20):
        assert (await gateway.ask("POST", NATIVE, M, bearer(site.token()))).status == 401, "it was withdrawn"
    assert site.asked == 2


@on_uvloop
async def test_a_running_stream_outlives_its_token(net: Net) -> None:
    site = await site_of(net)
    keys = (KeySettings("root", (key_digest(ADMIN),), role="admin"),)
    gateway = await net.gateway(await net.mock(deltas=30, rate=10), issuers=(issuer(site.url),), keys=keys)
    text = site.token(exp=int(time.time()) + 2)
    client, response = await gateway.stream(M, **bearer(text))
    figures = (await gateway.ask("GET", "/metrics", headers={"x-api-key": ADMIN})).body
    assert b'gai_fast_caller_streams{caller="staff"} 1.0' in figures
    await asyncio.sleep(2.1)
    assert "has expired" in (await gateway.ask("GET", "/v1/models", headers=bearer(text))).error["message"]
    await response.rest()
    assert response.types[-1] == "done"
    assert response.ended
    assert not gateway.running.engine.callers, "an issuer has any number of callers: none is kept"
    client.close()


@on_uvloop
async def test_a_flood_of_forged_tokens_harms_nobody_else(net: Net) -> None:
    site = await site_of(net)
    gateway = await gateway_for(net, site, forwarded_allow_ips=("127.0.0.1",))
    client = await gateway.connect()
    good = {**bearer(site.token()), "x-forwarded-for": "192.0.2.7"}
    statuses: dict[int, int] = {}
    head, payload, _ = site.token().split(".")
    for number in range(300):
        text = f"{head}.{payload}.{signed({'n': number}, {}).rpartition('.')[2]}"
        answer = await client.ask("GET", "/v1/models", headers={**bearer(text), "x-forwarded-for": "192.0.2.6"})
        statuses[answer.status] = statuses.get(answer.status, 0) + 1
        if answer.headers.get("connection") == "close" or answer.status == 429:
            client.close()
            client = await gateway.connect()
        if number % 50 == 0:
            assert (await gateway.ask("GET", "/v1/models", headers=good)).status == 200
    assert statuses == {401: LIMITS.wrong_keys, 429: 300 - LIMITS.wrong_keys}
    assert net.warned("has sent 100 wrong keys") == 1


@on_uvloop
async def test_every_worker_has_its_issuers_and_a_reload_changes_them(net: Net, tmp_path: Path) -> None:
    """The first requests find the keys, because each worker's start waits for them."""
    site = await site_of(net)
    mock = await net.mock(deltas=2)

    def write(audience: str) -> None:
        table = f'[[issuer]]\nname = "staff"\nurl = "{site.url}"\naudience = "{audience}"\nrequests_per_minute = 6\n'
        configure(tmp_path, mock, more=table if audience else "")

    write("gateway")
    async with serving(net, tmp_path, "--workers", "2") as server:
        asked = [await server.ask("POST", NATIVE, M, bearer(site.token(jti=str(number)))) for number in range(9)]
        assert sorted(each.status for each in asked) == [200] * 6 + [429] * 3, "one limit in both workers"
        write("other")
        server.signal(signal.SIGHUP)
        await server.said("has been reloaded")
        bob = {aud: bearer(site.token(sub="bob", aud=aud)) for aud in ("gateway", "other")}
        async with asyncio.timeout(SECONDS):
            while (await server.ask("GET", "/v1/models", headers=bob["gateway"])).status != 401:
                pass
        assert (await server.ask("GET", "/v1/models", headers=bob["other"])).status == 200
        write("")
        server.signal(signal.SIGHUP)
        assert "would be gone, and no key would be left" in await server.said("is not reloaded")
        assert (await server.ask("POST", NATIVE, M)).status == 401
        server.signal()
        assert await server.ended() == 0
