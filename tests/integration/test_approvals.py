"""The routes of approvals: `server/routes/approvals.py`."""

from __future__ import annotations

from typing import Any

import pytest

from gai_fast.net.runs.records.records import APPROVALS
from gai_fast.runtime.clock import now_ms
from gai_fast.stores.backend import StoreError
from tests.integration.asked_approvals import APPROVE, CALL, as_key, waiting
from tests.integration.gateway import Net, on_uvloop


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


@on_uvloop
async def test_a_damaged_approval_hides_no_other(net: Net) -> None:
    run = await waiting(net)
    first, second = await run.asks(1), await run.asks(2)
    await run.gateway.running.engine.store.records.delete(APPROVALS, f"{first}/0")
    listed = await run.gateway.ask("GET", "/admin/v1/approvals", None, as_key("operator"))
    assert (listed.json["total"], [row["id"] for row in listed.json["data"]]) == (2, [second])
