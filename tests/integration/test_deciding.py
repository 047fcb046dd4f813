"""A person decides about a call: `net/engine/deciding.py`."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from gai_fast.stores.backend import StoreError
from gai_fast.stores.records import MemoryRecords
from tests.integration.asked_approvals import APPROVE, as_key, waiting
from tests.integration.gateway import Net, on_both_loops, on_uvloop
from tests.legal import check_legal


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
    assert {*run.heard} == {(run.stream_id, f"decided {approval_id}")}


@on_uvloop
async def test_a_run_hears_of_a_decision_whose_store_gave_no_answer(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    run = await waiting(net)
    approval_id = await run.asks()
    swap = MemoryRecords.swap

    async def unanswered(*arguments: Any, **options: Any) -> None:
        await swap(*arguments, **options)
        raise StoreError("slow", "no answer")

    with monkeypatch.context() as change:
        change.setattr(MemoryRecords, "swap", unanswered)
        assert (await run.decide(approval_id)).status == 503
    assert run.heard == []
    again = await run.decide(approval_id)
    assert (again.status, again.error["reason"]) == (409, "decided")
    assert run.heard == [(run.stream_id, f"decided {approval_id}")]


@on_uvloop
async def test_after_the_end_of_a_run_there_is_nothing_to_decide(net: Net) -> None:
    run = await waiting(net)
    approval_id = await run.asks()
    path = f"/api/v1/streams/{run.stream_id}"
    assert (await run.gateway.ask("DELETE", path, None, as_key("alice"))).status == 202
    late = await run.decide(approval_id)
    assert (late.status, late.error["reason"], run.heard) == (409, "decided", [])
    assert await run.records.listed() == {}
    check_legal((await run.gateway.ask("GET", path, None, as_key("alice"))).events)


@on_uvloop
async def test_half_of_a_surrogate_pair_is_refused(net: Net) -> None:
    run = await waiting(net)
    approval_id = await run.asks()
    path = f"/api/v1/streams/{run.stream_id}/approvals/"
    body = b'{"decision":"deny","digest":"of the call","reason":"\\ud800"}'
    refused = await run.gateway.ask("POST", path + approval_id, body, as_key("alice"))
    assert (refused.status, refused.error["reason"]) == (400, "json")
    assert "half of a surrogate pair (byte 52)" in refused.error["message"]
    assert (await run.gateway.ask("POST", f"{path}%ED%A0%80", APPROVE, as_key("alice"))).status == 404
    assert run.heard == []
