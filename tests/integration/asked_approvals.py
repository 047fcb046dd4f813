"""A stream of alice's whose run waits for approvals: they are in the store as a run puts them there."""

from __future__ import annotations

import json
from typing import Any

from gai_fast.model.settings import KeySettings, key_digest
from gai_fast.net.runs.records.records import AskedApproval, RunRecords
from gai_fast.runtime.clock import now_ms
from tests.integration.gateway import Gateway, Net, Response

SECRETS = {"operator": "sk-canary-admin-012345", "alice": "sk-canary-alice-01234", "bob": "sk-canary-bob-0123456"}
KEYS = tuple(
    KeySettings(name, (key_digest(secret),), role="admin" if name == "operator" else "user")
    for name, secret in SECRETS.items()
)
CALL = {"call_id": "call_1", "tool": "docs.write", "server": "docs", "input": {"text": "é"}}
APPROVE = {"decision": "approve", "digest": "of the call"}
HELD = {"model": "m", "query": "hold", "stream": True, "resumable": True}


def as_key(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {SECRETS[name]}"}


class Waiting:
    """A stream of alice's whose run waits for an approval."""

    def __init__(self, gateway: Gateway, stream_id: str) -> None:
        self.gateway = gateway
        self.stream_id = stream_id
        self.heard: list[tuple[str, str]] = []
        self.records = RunRecords(gateway.running.engine.store.records, 60.0)
        gateway.running.engine.store.hear = lambda *message: self.heard.append(message)

    async def asks(self, number: int = 1, **changes: Any) -> str:
        """Asks for an approval; returns its id."""
        approval_id = f"{self.stream_id}-{number}"
        values = {"id": approval_id, "stream_id": self.stream_id, "caller": "alice", "digest": APPROVE["digest"]}
        more = {"expires": now_ms() + 60_000, "call": json.dumps(CALL).encode()}
        assert await self.records.ask(AskedApproval(**{**values, **more, **changes}), 10)
        return approval_id

    async def decide(self, approval_id: str, body: Any = APPROVE, key: str = "alice", stream_id: str = "") -> Response:
        path = f"/api/v1/streams/{stream_id or self.stream_id}/approvals/{approval_id}"
        return await self.gateway.ask("POST", path, body, as_key(key))


async def waiting(net: Net) -> Waiting:
    async def hold(peer: Any) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        await peer.until_gone()

    gateway = await net.gateway(await net.upstream(hold), keys=KEYS)
    started = await gateway.ask("POST", "/api/v1/streams", {"model": "m", "query": "q"}, as_key("alice"))
    assert started.status == 202, started.json
    return Waiting(gateway, started.json["id"])
