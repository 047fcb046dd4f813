"""Decisions about calls that wait: `server/runs/approvals.py`. Approvals are in the store as a run puts them there."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from gai_fast.model.settings import KeySettings, key_digest
from gai_fast.net.runs.run_records import AskedApproval, RunRecords
from gai_fast.runtime.clock import now_ms
from gai_fast.stores.backend import StoreError
from tests.integration.gateway import Gateway, Net, Response, on_both_loops, on_uvloop
from tests.legal import check_legal

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


@on_both_loops
async def test_a_decision_is_kept_and_the_run_hears_of_it(net: Net) -> None:
    run = await waiting(net)
    first, second = await run.asks(1), await run.asks(2)
    assert (await run.decide(first)).json == {"id": first, "decision": "approve"}
    assert run.heard == [(run.stream_id, f"decided {first}")]
    denied = await run.decide(second, {**APPROVE, "decision": "deny", "reason": "no"}, "operator")
    assert denied.json == {"id": second, "decision": "deny"}
    found = [await run.records.asked(each) for each in (first, second)]
    decisions = [each and each[1] and (each[1].decision, each[1].by, each[1].reason) for each in found]
    assert decisions == [("approve", "alice", ""), ("deny", "operator", "no")]


@on_uvloop
async def test_admins_list_what_nobody_has_decided(net: Net) -> None:
    run = await waiting(net)
    await run.asks(1, expires=now_ms() + 50_000)
    await run.asks(2, expires=now_ms() + 40_000)
    await run.asks(3, expires=now_ms() - 1)
    await run.decide(await run.asks(4))
    listed = await run.gateway.ask("GET", "/admin/v1/approvals", None, as_key("operator"))
    assert listed.json["total"] == 2
    assert [row["id"] for row in listed.json["data"]] == [f"{run.stream_id}-2", f"{run.stream_id}-1"]
    row = listed.json["data"][0]
    assert row.pop("expires") > now_ms()
    assert row == {
        "id": f"{run.stream_id}-2",
        "stream_id": run.stream_id,
        "key": "alice",
        **CALL,
        "digest": APPROVE["digest"],
    }
    assert (await run.gateway.ask("GET", "/admin/v1/approvals", None, as_key("alice"))).status == 403


@on_uvloop
async def test_for_all_but_its_caller_and_admins_there_is_no_such_approval(net: Net) -> None:
    run = await waiting(net)
    approval_id = await run.asks()
    other = (await run.gateway.ask("POST", "/api/v1/streams", {"model": "m", "query": "q"}, as_key("alice"))).json["id"]
    foreign = [
        await run.decide(approval_id, key="bob"),
        await run.decide(f"{run.stream_id}-9"),
        await run.decide(approval_id, stream_id=other),
        await run.decide(approval_id, stream_id="gai_none"),
        await run.decide("list/0"),
        await run.decide("x" * 5000),
        await run.decide(f"{approval_id}/0"),
    ]
    bodies = {json.dumps({**each.error, "request_id": ""}) for each in foreign}
    assert ({each.status for each in foreign}, len(bodies)) == ({404}, 1)
    assert run.heard == []
    found = await run.records.asked(approval_id)
    assert found is not None
    assert found[1] is None


@on_uvloop
async def test_a_decision_is_for_one_call_and_counts_once(net: Net) -> None:
    run = await waiting(net)
    approval_id = await run.asks()
    wrong = await run.decide(approval_id, {**APPROVE, "digest": "of another"})
    assert (wrong.status, wrong.error["reason"]) == (409, "digest")
    answers = await asyncio.gather(*[run.decide(approval_id, key=key) for key in ("alice", "operator") * 4])
    assert sorted(each.status for each in answers) == [200] + [409] * 7
    assert {each.error["reason"] for each in answers if each.status == 409} == {"decided"}
    assert len(run.heard) == 1


@on_uvloop
async def test_after_the_end_of_a_run_there_is_nothing_to_decide(net: Net) -> None:
    run = await waiting(net)
    approval_id = await run.asks()
    path = f"/api/v1/streams/{run.stream_id}"
    assert (await run.gateway.ask("DELETE", path, None, as_key("alice"))).status == 202
    late = await run.decide(approval_id)
    assert (late.status, late.error["reason"], run.heard) == (409, "decided", [])
    check_legal((await run.gateway.ask("GET", path, None, as_key("alice"))).events)


@pytest.mark.parametrize(
    "body",
    [
        {"decision": "approve"},
        {"digest": "of the call"},
        {**APPROVE, "decision": "maybe"},
        {**APPROVE, "input": {"text": "other"}},
        {**APPROVE, "reason": "x" * 1001},
        {**APPROVE, "digest": 1},
        [],
    ],
)
@on_uvloop
async def test_what_is_no_decision_is_refused(net: Net, body: Any) -> None:
    run = await waiting(net)
    refused = await run.decide(await run.asks(), body)
    assert (refused.status, refused.error["code"]) == (400, "invalid_request")


@on_uvloop
async def test_nothing_is_sent_to_a_stream_by_post(net: Net) -> None:
    run = await waiting(net)
    refused = await run.gateway.ask("POST", f"/api/v1/streams/{run.stream_id}", APPROVE, as_key("alice"))
    assert (refused.status, refused.headers["allow"]) == (405, "DELETE, GET, HEAD, OPTIONS")


@on_uvloop
async def test_a_store_out_of_reach_is_said(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    run = await waiting(net)
    approval_id = await run.asks()

    async def fail(*_: Any) -> None:
        raise StoreError("unreachable", "it is gone")

    monkeypatch.setattr(run.gateway.running.engine.store.records, "get", fail)
    for refused in (
        await run.decide(approval_id),
        await run.gateway.ask("GET", "/admin/v1/approvals", None, as_key("operator")),
    ):
        assert (refused.status, refused.error["reason"]) == (503, "store")
