"""Upstreams with tokens in place of a key: a gateway, programs that print tokens, and upstreams that judge them."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from gai_fast.model.settings import IdentitySettings, ModelSettings, TargetSettings
from gai_fast.net.identity import token_source
from gai_fast.net.upstream.http_request import _encode_head
from gai_fast.server.serving import start
from tests.integration.gateway import (
    CHAT,
    DONE,
    FINISH,
    KEY,
    LAST_CHUNK,
    NATIVE,
    OPENAI,
    SSE_HEAD,
    Gateway,
    M,
    Net,
    Peer,
    delta,
    on_both_loops,
    on_uvloop,
    settings_for,
)
from tests.limits import replaced
from tests.wire import chunk

CANARY = "tok-canary-0123456789"


def printing(folder: Path, *tokens: str, rest: str = "raise SystemExit(1)") -> IdentitySettings:
    """Returns a program that prints one token after another, and then does something else."""
    script = f"""
import os, sys, time
n = len(os.listdir({str(folder)!r}))
open(f"{folder}/{{n}}", "w").close()
tokens = {list(tokens)!r}
if n < len(tokens):
    print(tokens[n], 3600)
else:
    {rest}
"""
    return IdentitySettings(command=(sys.executable, "-S", "-c", script))


async def answer(peer: Peer, text: str = "Hello") -> None:
    await peer.send(SSE_HEAD, chunk(delta(text)), chunk(FINISH), chunk(DONE), LAST_CHUNK)


def header(peer: Peer, name: str) -> str:
    lines = [line.partition(": ") for line in peer.head.decode().split("\r\n")]
    return next((value for found, _, value in lines if found.lower() == name), "")


class Judge:
    """An upstream that takes some tokens, and quotes each that it refuses."""

    def __init__(self, *taken: str, status: str = "401 Unauthorized") -> None:
        self.taken = taken
        self.status = status
        self.seen: list[str] = []

    async def __call__(self, peer: Peer) -> None:
        while True:
            await peer.request()
            assert KEY not in peer.head.decode()
            self.seen.append(header(peer, "authorization"))
            if self.seen[-1].removeprefix("Bearer ") in self.taken:
                await answer(peer)
            else:
                kind = "authentication_error" if self.status.startswith("401") else "invalid_request_error"
                error = {"error": {"message": f"I do not know {self.seen[-1]}", "type": kind}}
                await peer.answer(self.status, json.dumps(error).encode(), "content-type: application/json")


async def asked(gateway: Gateway, path: str = NATIVE, body: Any = M) -> Any:
    return await (await gateway.connect()).ask("POST", path, body)


@on_both_loops
async def test_a_request_has_the_token_that_a_program_prints_and_waits_for_the_first(net: Net, tmp_path: Path) -> None:
    judge = Judge("one")
    gateway = await net.gateway(await net.upstream(judge), identity=printing(tmp_path, "one"))
    first, second = await asyncio.gather(asked(gateway), asked(gateway, CHAT, OPENAI))
    assert (first.text, second.status) == ("Hello", 200)
    assert judge.seen == ["Bearer one"] * 2
    assert (await asked(gateway)).text == "Hello"
    assert len(list(tmp_path.iterdir())) == 1, "one token for all"


@on_both_loops
async def test_a_refused_token_is_replaced_and_the_request_repeated_once(net: Net, tmp_path: Path) -> None:
    judge = Judge("two")
    gateway = await net.gateway(await net.upstream(judge), identity=printing(tmp_path, "one", "two"))
    found = await asked(gateway)
    assert (found.text, judge.seen) == ("Hello", ["Bearer one", "Bearer two"])
    assert net.warned("refuses our credentials") == 1
    assert (await asked(gateway)).text == "Hello"


@on_uvloop
async def test_a_token_that_is_refused_again_ends_as_an_error_of_the_operator_without_the_token(
    net: Net, tmp_path: Path
) -> None:
    judge = Judge()
    identity = printing(tmp_path, CANARY, f"{CANARY}-2")
    gateway = await net.gateway(await net.upstream(judge), identity=identity)
    for path, body in ((NATIVE, M), (CHAT, OPENAI)):
        found = await asked(gateway, path, body)
        assert found.status == 502
        assert found.headers["x-should-retry"] == "false"
        assert "`auth_command`" in found.body.decode()
        assert "canary" not in found.body.decode()
    assert judge.seen == [f"Bearer {CANARY}", f"Bearer {CANARY}-2"], "nothing is sent for a while"
    assert "canary" not in str(net.logged)
    assert net.warned("should check `auth_command`") == 1


@on_uvloop
async def test_an_upstream_that_quotes_the_token_shows_it_to_nobody(
    net: Net, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    judge = Judge(status="400 Bad Request")
    gateway = await net.gateway(await net.upstream(judge), identity=printing(tmp_path, CANARY))
    for path, body in ((NATIVE, M), (CHAT, OPENAI)):
        found = await asked(gateway, path, body)
        assert found.status == 400
        assert "***" in found.body.decode()
        assert "canary" not in found.body.decode()
    assert judge.seen == [f"Bearer {CANARY}"] * 2
    assert "canary" not in caplog.text


@on_uvloop
@pytest.mark.parametrize(
    ("rest", "words", "status", "reason"),
    [
        ("raise SystemExit(1)", "exited with code 1", 502, "upstream_credentials"),
        ("while True: print('x' * 65536)", "prints more than", 502, "upstream_credentials"),
        ("print('<!DOCTYPE html> <p> canary')", "prints no token", 502, "upstream_credentials"),
        ("time.sleep(1e6)", "has not ended within", 503, "upstream_token"),
    ],
    ids=["exits", "gigabyte", "html", "hangs"],
)
async def test_without_a_token_a_request_is_refused_with_the_reason_and_nothing_is_sent(
    net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rest: str, words: str, status: int, reason: str
) -> None:
    monkeypatch.setattr("gai_fast.net.identity.command.LIMITS", replaced(token_command=1.0))
    judge = Judge()
    gateway = await net.gateway(await net.upstream(judge), identity=printing(tmp_path, rest=rest))
    found = await asked(gateway)
    assert (found.status, found.error["reason"]) == (status, reason)
    assert ("retry-after" in found.headers) == (status == 503)
    assert judge.seen == []
    assert "canary" not in found.body.decode() + str(net.logged)
    assert net.warned(words) == 1
    net.warned("no token for upstream")


@on_uvloop
async def test_a_program_that_is_slow_delays_a_request_no_longer_than_the_limit(
    net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_source, "LIMITS", replaced(token_wait=0.2))
    gateway = await net.gateway(await net.upstream(Judge()), identity=printing(tmp_path, rest="time.sleep(1e6)"))
    found = await asked(gateway)
    assert (found.status, found.error["reason"]) == (503, "upstream_token")
    net.warned("no token for upstream")


@on_uvloop
async def test_another_target_is_asked_where_an_identity_gives_no_token(net: Net, tmp_path: Path) -> None:
    judge, mock = Judge(), await net.mock()
    settings = settings_for(mock.url)
    without = dataclasses.replace(
        settings.upstreams["up"], name="cloud", base_url=(await net.upstream(judge)).url, identity=printing(tmp_path)
    )
    up = settings.upstreams["up"]
    targets = (TargetSettings(without, "mock", 1000), TargetSettings(up, "mock"))
    models = {"m": dataclasses.replace(settings.models["m"], upstream=without, targets=targets)}
    alone = ModelSettings("alone", without, "mock", fallback=("m",))
    running = await start(dataclasses.replace(settings, models={**models, "alone": alone}))
    gateway = Gateway(net, running)
    net.gateways.append(gateway)
    net.stack.push_async_callback(running.close)
    for model in ("m", "alone", "m"):
        found = await asked(gateway, NATIVE, {**M, "model": model})
        assert found.types[-2:] == ["finish", "done"]
    assert judge.seen == []
    net.warned("auth_command")


@on_uvloop
async def test_requests_are_signed_where_an_account_forbids_bearer_tokens(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The upstream checks the signature with botocore, over the bytes that it has received."""
    auth = pytest.importorskip("botocore.auth")
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-canary-0123456789")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "session-canary-0123456789")
    keys = Credentials("AKIDEXAMPLE", "secret-canary-0123456789", "session-canary-0123456789")
    kinds: list[str] = []

    async def handler(peer: Peer) -> None:
        while True:
            body = await peer.request()
            kind, _, _ = header(peer, "authorization").partition(" ")
            kinds.append(kind)
            if kind == "Bearer":
                text = "User: arn:aws:iam::1:role/x is not authorized to perform: bedrock:CallWithBearerToken"
                denied = json.dumps({"error": {"message": text, "type": "permission_error"}}).encode()
                await peer.answer("403 Forbidden", denied, "content-type: application/json")
                continue
            method, target, _ = peer.head.decode().partition("\r\n")[0].split(" ")
            sent = AWSRequest(
                method=method,
                url=f"http://{header(peer, 'host')}{target}",
                data=body,
                headers={
                    "x-amz-date": header(peer, "x-amz-date"),
                    "x-amz-security-token": header(peer, "x-amz-security-token"),
                },
            )
            signer = auth.SigV4Auth(keys, "bedrock-mantle", "us-east-1")
            sent.context["timestamp"] = sent.headers["x-amz-date"]
            signature = signer.signature(signer.string_to_sign(sent, signer.canonical_request(sent)), sent)
            assert header(peer, "authorization").endswith(f"Signature={signature}")
            assert header(peer, "x-amz-security-token") == keys.token
            await answer(peer)

    identity = IdentitySettings("aws", region="us-east-1", service="bedrock-mantle")
    gateway = await net.gateway(await net.upstream(handler), identity=identity)
    missed = _encode_head.cache_info().misses
    for _ in range(2):
        assert (await asked(gateway)).text == "Hello"
    assert kinds == ["Bearer", "AWS4-HMAC-SHA256", "AWS4-HMAC-SHA256"]
    assert _encode_head.cache_info().misses == missed + 1, "no signature is cached"
    assert "canary" not in str(net.logged)
    net.warned("refuses our credentials")


@on_uvloop
async def test_a_recording_holds_no_token(net: Net, tmp_path: Path) -> None:
    async def quoting(peer: Peer) -> None:
        await peer.request()
        await answer(peer, f"You sent {header(peer, 'authorization')}")

    (tmp_path / "counts").mkdir()
    (tmp_path / "recordings").mkdir()
    gateway = await net.gateway(await net.upstream(quoting), identity=printing(tmp_path / "counts", CANARY))
    gateway.running.engine.upstreams.record = tmp_path / "recordings"
    assert CANARY in (await asked(gateway)).text, "an answer is the model's"
    (recorded,) = (tmp_path / "recordings").iterdir()
    assert "You sent" in recorded.read_text()
    assert "canary" not in recorded.read_text()
