"""Keys: a server that needs them works with the SDKs and with what the banner shows, and tells nobody a secret."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import sys
from hashlib import sha256
from pathlib import Path

import openai
import pytest

from gai_fast.settings import KeySettings, key_digest
from tests.integration.gateway import MESSAGES, QUERY, Net, on_both_loops, on_uvloop

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
        f'[[key]]\nname = "alice"\nsecret = "env:ALICE"\n[[key]]\nname = "bob"\nsecret = "sha256:{digest}"\n'
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
        while b"curl" not in printed:
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
            answered += (await client.ask("GET", path)).body
        client.close()
    finally:
        server.send_signal(signal.SIGTERM)
        printed += await server.stdout.read()
        assert await server.wait() == 0
    assert b'"key":"alice"' in printed, "the log has its lines"
    for secret in (b"canary", digest.encode(), b"xxxx"):
        assert secret not in printed
        assert secret not in answered
