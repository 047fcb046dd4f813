"""The log of a server in a pipe: every line is one JSON object, with the fields of docs/operations.md."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from gai_fast.cli.mock.command import Fault, Mock
from tests.integration.gateway import QUERY, Net
from tests.integration.processes import Server, serving

STREAM = {
    *("ts", "level", "msg", "method", "path", "status", "request_id", "trace_id", "provider", "model", "ttft_ms"),
    *("dur_ms", "chunks", "out_tokens", "in_tokens", "finish_reason", "error_code", "client_ip", "bytes", "key"),
    *("stream_id", "cost"),
}
TRACE = "0af7651916cd43dd8448eb211c80319c"
FORGED = 'x"}\n{"msg":"audit","action":"forged"}'
CONFIG = """
[server]
port = 0
access_log = true
[[upstream]]
name = "up"
provider = "openai"
base_url = "{url}"
[[key]]
name = "alice"
secret = "file:key"
[[model]]
name = "m"
upstream = "up"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "key").write_text("sk-canary-0123456789")
    return tmp_path


async def lines_of(server: Server) -> list[dict[str, Any]]:
    """Ends a server; returns the lines of its log."""
    server.signal()
    assert server.process.stderr is not None
    said = await server.process.stderr.read()
    assert await server.ended() == 0
    assert b"canary" not in said
    return [json.loads(line) for line in said.splitlines()]


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_each_stream_has_one_line_at_its_end(net: Net, folder: Path, workers: str) -> None:
    mock: Mock = await net.mock(deltas=5)
    (folder / "gai-fast.toml").write_text(CONFIG.format(url=mock.url))
    key = {"authorization": "Bearer sk-canary-0123456789"}
    async with serving(net, folder, "--workers", workers) as server:
        traced = {**key, "traceparent": f"00-{TRACE}-b7ad6b7169203331-01", "x-request-id": "mine"}
        answered = await server.ask("POST", "/api/v1/stream", {**QUERY, "model": "m", "query": "canary"}, traced)
        assert answered.status == 200
        refused = await server.ask("POST", "/api/v1/stream", {**QUERY, "model": FORGED}, key)
        assert refused.status == 404
        forged = await server.ask("GET", "/%0a%7b\"}{'\\n?prompt=canary", None, {"x-api-key": "wrong-canary"})
        assert forged.status == 404
        lines = await lines_of(server)
    (stream,) = [line for line in lines if line["msg"] == "stream"]
    assert set(stream) >= STREAM
    wanted = {
        "method": "POST", "path": "/api/v1/stream", "status": 200, "request_id": "mine", "trace_id": TRACE,
        "provider": "openai", "model": "m", "chunks": 5, "finish_reason": "stop", "error_code": None,
        "client_ip": "127.0.0.1", "key": "alice", "level": "info",
    }  # fmt: skip
    assert {name: stream[name] for name in wanted} == wanted
    assert stream["dur_ms"] >= stream["ttft_ms"] > 0
    assert min(stream["out_tokens"], stream["in_tokens"], stream["bytes"]) > 0
    requests = [line for line in lines if line["msg"] == "request"]
    assert [(line["status"], line["error_code"]) for line in requests] == [(404, "not_found")] * 2
    said = sorted((line["reason"], line.get("model")) for line in requests)
    assert said == [("model", FORGED), ("route", None)]
    paths = sorted(line["path"] for line in requests)  # two workers write in any order
    assert paths[0].startswith("/%0a%7b")
    assert "?" not in paths[0]
    assert not [line for line in lines if line.get("action") == "forged"]


async def test_a_durable_stream_has_its_line_at_its_own_end(net: Net, folder: Path) -> None:
    mock: Mock = await net.mock(deltas=5, fault=Fault.parse("stall@3"))
    (folder / "gai-fast.toml").write_text(CONFIG.format(url=mock.url))
    key = {"authorization": "Bearer sk-canary-0123456789"}
    ask = {**QUERY, "model": "m", "resumable": True}
    async with serving(net, folder) as server:
        client = await server.connect()
        client.request("POST", "/api/v1/stream", ask, key)
        left = await client.response()
        await left.until(b"text.delta")
        client.close()
        started = await server.ask("POST", "/api/v1/streams", {**QUERY, "model": "m"}, key)
        assert started.status == 202
        answered = json.loads(await server.said('"status":499'))
        ids = [left.headers["x-gai-stream-id"], started.json["id"]]
        for stream_id in ids:
            assert (await server.ask("DELETE", f"/api/v1/streams/{stream_id}", None, key)).status == 202
        lines = [answered, *await lines_of(server)]
    streams = [line for line in lines if line["msg"] == "stream"]
    assert [(line["stream_id"], line["status"], line["outcome"]) for line in streams] == [
        (ids[0], 499, "cancelled"),
        (ids[1], 202, "cancelled"),
    ]
    assert all(set(line) >= STREAM for line in streams)
    requests = [(line["stream_id"], line["status"]) for line in lines if "stream_id" in line and line not in streams]
    assert requests == [(ids[0], 499), (ids[1], 202)]


async def test_a_reload_has_an_audit_line_whatever_the_access_log_is(net: Net, folder: Path) -> None:
    (folder / "gai-fast.toml").write_text("[server]\nport = 0\nlog_level = 'error'\n")
    async with serving(net, folder) as server:
        server.signal(signal.SIGHUP)
        done = json.loads(await server.said('"audit"'))
        (folder / "gai-fast.toml").write_text("[server]\nprot = 0\n")
        server.signal(signal.SIGHUP)
        refused = json.loads(await server.said('"audit"'))
        await lines_of(server)
    for line, result in ((done, 200), (refused, 400)):
        assert line.pop("ts")
        assert line == {
            "level": "info", "msg": "audit", "action": "reload", "key": None, "client_ip": None, "target": None,
            "result": result,
        }  # fmt: skip


async def test_the_format_text_has_lines_for_people(net: Net, folder: Path) -> None:
    (folder / "gai-fast.toml").write_text("[server]\nport = 0\naccess_log = true\n")
    async with serving(net, folder, "--log-format", "text") as server:
        assert (await server.ask("GET", "/nothing")).status == 404
        assert " INFO gai_fast.access: 127.0.0.1 GET '/nothing' 404 " in await server.said("/nothing")
        server.signal()
        assert await server.ended() == 0
