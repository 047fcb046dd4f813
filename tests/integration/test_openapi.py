"""The description of the API against a running server: whatever schemathesis asks, the answers are as described."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from tests.integration.gateway import CHAT, MESSAGES, NATIVE, QUERY, Net, on_uvloop
from tests.waiting import SECONDS

RULES = Path(__file__).parents[2] / "schemathesis.toml"
"""Answers that are right for a request as described; no check is switched off."""
LEAST = 1000
"""So many requests it makes at least: a run that tests nothing finds nothing."""
SAMPLES = "/admin/v1/events"


SCHEMATHESIS = (sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()")
"""Its program: an environment that has another one's packages lacks their programs."""


@on_uvloop
async def test_schemathesis_finds_nothing(net: Net, tmp_path: Path) -> None:
    """All checks: 5xx, undocumented statuses, wrong content types, bodies unlike their schema, valid requests that are
    refused, invalid ones that are not. The examples are always the same."""
    pytest.importorskip("schemathesis", reason="the extra dev has it")
    gateway = await net.gateway(await net.mock(deltas=3), demo=False)
    process = await asyncio.create_subprocess_exec(
        *SCHEMATHESIS, f"--config-file={RULES}", "run", f"{gateway.url}/openapi.json",
        "--seed=1", "--max-examples=8", "--generation-database=none", f"--request-timeout={SECONDS}", "--no-color",
        cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout is not None
    result = (await process.stdout.read()).decode()
    assert await process.wait() == 0, result
    passed = re.search(r"generated, (\d+) passed", result)
    assert passed is not None
    assert int(passed[1]) > LEAST, result
    net.logged.clear()  # that the configuration has been loaded, or cannot be


async def described(gateway: Any) -> Any:
    response = await gateway.ask("GET", "/openapi.json")
    assert (response.status, response.headers["content-type"]) == (200, "application/json")
    return response.json


COMMON = set("cache-control connection content-length content-type date keep-alive server vary".split())
"""Headers of responses that HTTP's own rules describe."""
FOR_OTHERS = {"x-accel-buffering", "x-content-type-options"}
"""Headers for proxies and browsers."""


def check_headers(document: Any, method: str, path: str, response: Any) -> None:
    """Raises if an answer has a header that the document does not have."""
    described = document["paths"][path][method]["responses"][str(response.status)]
    if "$ref" in described:
        described = document["components"]["responses"][described["$ref"].rpartition("/")[2]]
    assert {*response.headers} <= {*described["headers"]} | COMMON | FOR_OTHERS
    assert {"x-request-id", "request-id"} <= {*response.headers}


def check(document: Any, method: str, path: str, status: int, value: Any) -> None:
    """Raises if an answer is not as the document says."""
    content = document["paths"][path][method]["responses"][str(status)]["content"]["application/json"]
    schema = {**content["schema"], "components": document["components"]}
    assert [str(problem) for problem in jsonschema_rs.Draft202012Validator(schema).iter_errors(value)] == []


def conforms(document: Any, name: str, value: Any) -> bool:
    """Returns whether a value is as one of the schemas says."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    return jsonschema_rs.Draft202012Validator(schema).is_valid(value)


@on_uvloop
async def test_whole_answers_are_as_described(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=3), demo=False)
    document = await described(gateway)
    asked = {"model": "m", "messages": MESSAGES}
    for path, body in (
        (NATIVE, {**QUERY, "model": "m", "stream": False}),
        (CHAT, asked),
        ("/v1/messages", {**asked, "max_tokens": 5}),
        ("/v1/messages/count_tokens", asked),
        ("/v1/responses", {"model": "m", "input": "Hi"}),
        ("/v1/completions", {"model": "m", "prompt": "Hi"}),
    ):
        response = await gateway.ask("POST", path, body)
        assert response.status == 200, response.body
        check(document, "post", path, 200, response.json)
        check_headers(document, "post", path, response)
        check_headers(document, "post", path, await gateway.ask("POST", path, 1))
        if path == NATIVE:
            assert conforms(document, "Result", response.json)
    for path in ("/v1/models", "/healthz", "/readyz", "/version", "/admin/v1/keys", "/admin/v1/spend"):
        response = await gateway.ask("GET", path)
        check(document, "get", path, 200, response.json)
        check_headers(document, "get", path, response)
        check_headers(document, "get", path, await gateway.ask("PATCH", path))


@on_uvloop
async def test_events_samples_and_running_streams_are_as_described(net: Net) -> None:
    gateway = await net.gateway(await net.mock(rate=50, deltas=1000), demo=False)
    document = await described(gateway)
    client, response = await gateway.stream({**QUERY, "model": "m"}, accept="application/x-ndjson")
    await response.until(b"text.delta")
    lines = response.body.decode().splitlines()
    assert all(conforms(document, "Event", json.loads(line)) for line in lines[:-1])
    check(document, "get", "/admin/v1/streams", 200, (await gateway.ask("GET", "/admin/v1/streams")).json)
    await gateway.ask("POST", NATIVE, {**QUERY, "model": "none"})
    await gateway.ask("POST", NATIVE, {**QUERY, "model": "m", "max_tokens": 1, "stream": False})
    listed = (await gateway.ask("GET", "/admin/v1/requests")).json
    assert [row["outcome"] for row in listed["data"]] == ["finished", "refused"]
    check(document, "get", "/admin/v1/requests", 200, listed)
    watcher = await gateway.connect()
    watcher.request("GET", SAMPLES)
    samples = await watcher.response()
    await samples.until(b"\n\n")
    data = next(line for line in samples.body.split(b"\n") if line.startswith(b"data: "))
    assert conforms(document, "Sample", json.loads(data.removeprefix(b"data: ")))
    watcher.close()
    client.close()
