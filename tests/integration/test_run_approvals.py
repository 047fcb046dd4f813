"""Runs whose calls wait for a person, over real sockets: `net/runs/approvals/desk.py`, and the clients that decide."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from typing import Any

import msgspec
import pytest

import gai_fast
from gai_fast.core.call_key import approval_digest
from gai_fast.core.run import RunCall, RunTool
from gai_fast.model.limits import SHARED
from gai_fast.model.settings import IdempotencySettings, KeySettings, RunSettings, key_digest
from gai_fast.net.runs.approvals.desk import RunApprovals
from gai_fast.net.runs.driver import _required
from gai_fast.net.runs.records.records import ApprovalDecision, AskedApproval
from gai_fast.runtime.clock import now_ms
from gai_fast.server.limits import LIMITS
from gai_fast.server.routes import approvals
from gai_fast.stores.backend import Fault, StoreError
from tests.integration.gateway import OPENAI, Client, Gateway, M, Net, Response, on_both_loops, on_uvloop
from tests.integration.tool_runs import Gate, Model, Turn, function_tool, gateway_of
from tests.legal import check_legal
from tests.waiting import until

ADMIN, ALICE, BOB = "sk-canary-admin-012345", "sk-canary-alice-01234", "sk-canary-bob-0123456"
KEYS = tuple(
    KeySettings(name, (key_digest(secret),), role=role, tools=("*",))
    for name, secret, role in (("operator", ADMIN, "admin"), ("alice", ALICE, "user"), ("bob", BOB, "user"))
)
ASK: Turn = ["Shall I? ", ("pay", {"euros": 7})]
WAITS = RunSettings()
made: list[int] = []


def pay(euros: int) -> str:
    """Pays."""
    made.append(euros)
    return f"paid {euros}"


@pytest.fixture(autouse=True)
def nothing_is_made() -> None:
    made.clear()


async def always() -> bool:
    return True


async def gateway_that_asks(net: Net, model: Model, *tools: Any, runs: RunSettings = WAITS, **options: Any) -> Gateway:
    more = {"runs": runs, "keys": KEYS}
    return await gateway_of(net, model, function_tool(pay, approve=True), *tools, of_gateway=more, **options)


async def waiting(net: Net, *turns: Any, **options: Any) -> Run:
    """Returns a run that waits for its first approval."""
    return await Run.begun(await gateway_that_asks(net, Model(*(turns or (ASK, ["Done."]))), **options), M)


class Run:
    """A run over a connection of its own."""

    def __init__(self, gateway: Gateway, client: Client, response: Response) -> None:
        self.gateway = gateway
        self.client = client
        self.response = response

    @classmethod
    async def begun(cls, gateway: Gateway, body: Any, path: str = "/api/v1/stream", secret: str = ALICE) -> Run:
        client = await gateway.connect()
        client.request("POST", path, body, {"authorization": f"Bearer {secret}"})
        response = await client.response()
        await response.until(b"approval")
        await response.until(b"digest")
        await response.until(b"}}")
        return cls(gateway, client, response)

    @property
    def stream_id(self) -> str:
        return self.response.headers["x-gai-stream-id"]

    @property
    def asked(self) -> dict[str, Any]:
        """What the last `approval.required` asks."""
        found = [event for event in self.response.events if event["type"] == "approval.required"]
        approval: dict[str, Any] = found[-1]["approval"]
        return approval

    async def decide(self, decision: str = "approve", secret: str = ALICE, **more: Any) -> Response:
        asked = self.asked
        body = {"decision": decision, "digest": asked["digest"], **more}
        path = f"/api/v1/streams/{self.stream_id}/approvals/{asked['id']}"
        return await self.gateway.ask("POST", path, body, {"authorization": f"Bearer {secret}"})

    async def end(self) -> list[dict[str, Any]]:
        """Reads the stream to its end."""
        await self.response.rest()
        check_legal(self.response.events)
        return self.response.events


def last(events: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    return [event for event in events if event["type"] == kind][-1]


@on_both_loops
async def test_an_approved_call_is_made_and_a_denied_one_is_told_to_the_model(net: Net) -> None:
    run = await waiting(net, ASK, [("pay", {"euros": 8})], ["Done."])
    asked = run.asked
    assert asked.pop("expires") > now_ms()
    digest = approval_digest(f"{run.stream_id}-1", "pay", {"euros": 7})
    assert asked == {"id": f"{run.stream_id}-1", "tool": "pay", "input": {"euros": 7}, "digest": digest}
    assert made == []
    assert (await run.decide()).status == 200
    await run.response.until(b'"euros":8},"digest"')
    await run.response.until(b"}}")
    assert (await run.decide("deny", ADMIN, reason="too dear")).status == 200
    events = await run.end()
    assert made == [7]
    decided = [event["approval"] for event in events if event["type"] == "approval.decided"]
    first, second = (f"{run.stream_id}-{number}" for number in (1, 2))
    assert decided == [
        {"id": first, "decision": "approve", "by": "alice"},
        {"id": second, "decision": "deny", "by": "operator", "reason": "too dear"},
    ]
    results = [(each["tool_result"], each.get("is_error", False)) for each in events if each["type"] == "tool.result"]
    assert results == [("paid 7", False), ("the call was denied: too dear", True)]
    assert last(events, "finish")["finish_reason"] == "stop"
    assert (await run.decide()).error["reason"] == "decided"


@on_uvloop
async def test_nobody_else_decides(net: Net) -> None:
    run = await waiting(net)
    assert (await run.decide(secret=BOB)).status == 404
    assert (await run.decide(digest="0" * 64)).error["reason"] == "digest"
    listed = await run.gateway.ask("GET", "/admin/v1/approvals", None, {"authorization": f"Bearer {ADMIN}"})
    assert [row["id"] for row in listed.json["data"]] == [run.asked["id"]]
    await run.decide("deny", ADMIN)
    listed = await run.gateway.ask("GET", "/admin/v1/approvals", None, {"authorization": f"Bearer {ADMIN}"})
    assert listed.json == {"total": 0, "data": []}
    assert last(await run.end(), "tool.result")["is_error"]
    assert made == []


@on_uvloop
async def test_a_listed_call_is_exactly_the_one_that_is_made(net: Net) -> None:
    large = 123456789012345678901
    run = await waiting(net, [("pay", {"euros": large})], ["Done."])
    listed = await run.gateway.ask("GET", "/admin/v1/approvals", None, {"authorization": f"Bearer {ADMIN}"})
    assert [row["input"] for row in listed.json["data"]] == [{"euros": large}]
    await run.decide()
    await run.end()
    assert made == [large]


@on_uvloop
async def test_the_list_ends_behind_what_is_too_large(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(approvals, "LIMITS", dataclasses.replace(LIMITS, approvals_read=1, approvals_bytes=100))
    run = await waiting(net, [("pay", {"euros": number}) for number in range(3)], ["Done."])
    while run.response.types.count("approval.required") < 3:
        await run.response.more()
    listed = await run.gateway.ask("GET", "/admin/v1/approvals", None, {"authorization": f"Bearer {ADMIN}"})
    assert (listed.json["total"], len(listed.json["data"])) == (3, 2)


@on_uvloop
async def test_a_decision_leaves_the_others_listed(net: Net) -> None:
    calls = Model([("pay", {"euros": 1}), ("pay", {"euros": 2})], ["Done."])
    gateway = await gateway_of(
        net,
        calls,
        function_tool(pay, approve=True),
        of_gateway={"runs": WAITS, "keys": KEYS, "idempotency": IdempotencySettings(ttl=0.1)},
    )
    run = await Run.begun(gateway, M)
    while run.response.types.count("approval.required") < 2:
        await run.response.more()
    await run.decide()
    await run.response.until(b'"tool.result"')
    await asyncio.sleep(0.3)  # as long as a request's key is kept, and longer
    listed = await gateway.ask("GET", "/admin/v1/approvals", None, {"authorization": f"Bearer {ADMIN}"})
    assert [row["input"] for row in listed.json["data"]] == [{"euros": 1}]


@on_uvloop
async def test_without_keys_the_one_who_decides_is_anonymous(net: Net) -> None:
    gateway = await gateway_of(net, Model(ASK, ["Done."]), function_tool(pay, approve=True))
    run = await Run.begun(gateway, M)
    assert (await run.decide()).status == 200
    assert last(await run.end(), "approval.decided")["approval"]["by"] == "anonymous"


@on_uvloop
async def test_an_approval_that_nobody_decides_expires(net: Net) -> None:
    run = await waiting(net, runs=RunSettings(approval_ttl=1.0))
    events = await run.end()
    decided = last(events, "approval.decided")["approval"]
    assert (decided["decision"], decided["reason"], "by" in decided) == ("deny", "expired", False)
    assert last(events, "tool.result")["tool_result"] == "the call was denied: expired"
    assert (last(events, "text.delta")["text"], made) == ("Done.", [])
    assert (await run.decide()).status == 409


@on_uvloop
async def test_more_runs_than_may_wait_are_denied(net: Net) -> None:
    run = await waiting(net, runs=RunSettings(waiting=1))
    other = await run.gateway.ask("POST", "/api/v1/stream", M, {"authorization": f"Bearer {BOB}"})
    denied = "the call was denied: 1 runs wait already, or half as many of this caller (waiting)"
    assert last(other.events, "tool.result")["tool_result"] == denied
    assert "approval.required" not in other.types
    await run.decide()
    assert last(await run.end(), "tool.result")["tool_result"] == "paid 7"


@on_uvloop
async def test_a_store_that_fails_denies(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = await gateway_that_asks(net, Model(ASK, ["Done."]))

    async def fail(*_: Any) -> None:
        raise StoreError("unreachable", "it is gone")

    monkeypatch.setattr(gateway.running.engine.store.records, "put", fail)
    response = await gateway.ask("POST", "/api/v1/stream", M, {"authorization": f"Bearer {ALICE}"})
    result = last(response.events, "tool.result")
    assert "the approval could not be kept: the store is out of reach" in result["tool_result"]
    assert (result["is_error"], made) == (True, [])
    assert net.warned("its run is not kept yet") > 0
    assert net.warned("an approval is not kept") == 1


def test_the_name_of_a_server_s_tool_may_have_dots() -> None:
    call = RunCall("call_1", "docs__db_query", {}, 1, 0, RunTool("docs.db.query", approve=True))
    event = _required(call, AskedApproval("gai_1-1", "gai_1", "alice", "digest", 1, b"{}"))
    assert (event["approval"]["server"], event["approval"]["tool"]) == ("docs", "db.query")


@on_uvloop
async def test_a_run_that_has_ended_does_not_wait_for_its_store(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = await gateway_that_asks(net, Model(ASK, ["Done."]))
    tools = gateway.running.engine.run_tools
    assert tools is not None

    async def fail(*_: Any) -> None:
        raise StoreError("unreachable", "it is gone")

    monkeypatch.setattr(tools.desk.records, "asked", fail)
    waits = RunApprovals(tools.desk, "gai_1", "alice", always, print, print)
    waits.ask_on(RunCall("call_1", "pay", {}, 1, 0, None, approval_id="gai_1-1"), "digest")
    await asyncio.sleep(0.05)
    waits.close()
    async with asyncio.timeout(3 * SHARED.store_retry):
        await tools.desk.close()
    assert net.warned("an approval is not read yet") == 1


@on_uvloop
async def test_a_decision_about_a_call_of_a_turn_that_is_void_approves_no_other(net: Net) -> None:
    """The turn is asked again, and the id of its approval is another call's."""
    gateway = await gateway_that_asks(net, Model(ASK, ["Done."]), runs=RunSettings(approval_ttl=0.2))
    tools = gateway.running.engine.run_tools
    assert tools is not None
    asked: list[Any] = []
    heard: list[Any] = []
    waits = RunApprovals(
        tools.desk, "gai_1", "alice", always, lambda *each: asked.append(each), lambda *each: heard.append(each)
    )
    waits.ask(RunCall("call_1", "pay", {}, 1, 0, RunTool("pay"), approval_id="gai_1-1"), "of this call")
    await until(lambda: len(asked) == 1)
    records = tools.desk.records
    found = await records.asked("gai_1-1")
    assert found is not None
    await records.ask(msgspec.structs.replace(found[0], digest="of the former call"), 10)
    approve = ApprovalDecision("approve", "alice")
    assert await records.decide("gai_1-1", approve, "of the former call") is approve
    waits.hear("gai_1-1")
    await until(lambda: len(heard) == 1)
    assert (heard[0][2].decision, heard[0][2].reason) == ("deny", "expired")


@pytest.mark.parametrize("is_of_another", [False, True])
@on_uvloop
async def test_a_damaged_approval_of_a_run_that_goes_on_denies(
    net: Net, monkeypatch: pytest.MonkeyPatch, is_of_another: bool
) -> None:
    gateway = await gateway_that_asks(net, Model(ASK, ["Done."]))
    tools = gateway.running.engine.run_tools
    assert tools is not None

    async def damaged(*_: Any) -> Any:
        if is_of_another:
            return AskedApproval("gai_1-1", "gai_1", "alice", "another", 1 << 50, b"{}"), ApprovalDecision("approve")
        raise StoreError("damaged", "a part is missing")

    monkeypatch.setattr(tools.desk.records, "asked", damaged)
    heard: list[Any] = []
    waits = RunApprovals(tools.desk, "gai_1", "alice", always, print, lambda *each: heard.append(each))
    call = RunCall("call_1", "pay", {}, 1, 0, None, approval_id="gai_1-1")
    waits.ask_on(call, "digest")
    async with asyncio.timeout(SHARED.store_retry):
        await tools.desk.close()
    [(of, asked, decision)] = heard
    assert (of, asked.id, asked.digest, decision.decision) == (call, "gai_1-1", "digest", "deny")
    assert net.warned("an approval is damaged") == 1


@pytest.mark.parametrize("fault", ["damaged", "sealed"])
@pytest.mark.parametrize("is_asked_elsewhere", [False, True])
@on_uvloop
async def test_a_decision_that_stays_unreadable_denies_at_once(
    net: Net, monkeypatch: pytest.MonkeyPatch, fault: Fault, is_asked_elsewhere: bool
) -> None:
    gateway = await gateway_that_asks(net, Model(ASK, ["Done."]))
    tools = gateway.running.engine.run_tools
    assert tools is not None
    asked: list[Any] = []
    heard: list[Any] = []
    reads: list[str] = []

    async def unreadable(approval_id: str) -> Any:
        reads.append(approval_id)
        raise StoreError(fault, "a part is missing")

    waits = RunApprovals(
        tools.desk, "gai_1", "alice", always, lambda *each: asked.append(each), lambda *each: heard.append(each)
    )
    call = RunCall("call_1", "pay", {}, 1, 0, RunTool("pay"), approval_id="gai_1-1")
    if not is_asked_elsewhere:
        waits.ask(call, "digest")
        await until(lambda: len(asked) == 1)
    monkeypatch.setattr(tools.desk.records, "asked", unreadable)
    if is_asked_elsewhere:
        waits.ask_on(call, "digest")
    else:
        waits.hear("gai_1-1")
        waits.hear("gai_1-1")
    async with asyncio.timeout(SHARED.store_retry):
        await tools.desk.close()
    [(_, _, decision)] = heard
    assert (decision.decision, decision.reason) == ("deny", "its approval is damaged in the store")
    assert (net.warned("an approval is damaged"), net.warned("not read yet")) == (1, 0)


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        ("/api/v1/stream", {**M, "approvals": "deny"}, {}),
        ("/api/v1/stream", M, {"x-gai-approvals": "deny"}),
        ("/api/v1/stream", {**M, "stream": False}, {}),
        ("/v1/chat/completions", {"model": "m", "messages": [{"role": "user", "content": "q"}]}, {}),
        ("/v1/messages", {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "q"}]}, {}),
    ],
)
@on_uvloop
async def test_where_nobody_is_asked_the_call_is_an_error(net: Net, path: str, body: Any, headers: Any) -> None:
    model = Model(ASK, ["Done."])
    gateway = await gateway_that_asks(net, model)
    response = await gateway.ask("POST", path, body, {"authorization": f"Bearer {ALICE}", **headers})
    assert response.status == 200, response.json
    assert model.results() == ["the call needs an approval, and nobody can be asked"]
    assert made == []


@on_uvloop
async def test_a_header_that_is_no_wish_is_refused(net: Net) -> None:
    gateway = await gateway_that_asks(net, Model(ASK, ["Done."]))
    asked = {"authorization": f"Bearer {ALICE}", "x-gai-approvals": "maybe"}
    refused = await gateway.ask("POST", "/api/v1/stream", M, asked)
    assert (refused.status, refused.error["reason"]) == (400, "approvals")


@on_uvloop
@pytest.mark.parametrize("path", ["/api/v1/stream", "/v1/chat/completions?format=gai"])
async def test_a_run_that_has_not_waited_ends_with_its_client(net: Net, path: str) -> None:
    """It may wait later, but its client has not asked for a stream that outlives it."""
    gate = Gate()

    async def look(city: str) -> str:
        await gate.wait()
        return city

    model = Model([("look", {"city": "Oslo"}), ("pay", {"euros": 7})], ["never"])
    gateway = await gateway_that_asks(net, model, function_tool(look))
    client = await gateway.connect()
    as_alice = {"authorization": f"Bearer {ALICE}"}
    client.request("POST", path, M if path.startswith("/api") else OPENAI, as_alice)
    response = await client.response()
    await gate.begun.wait()
    client.close()
    await asyncio.wait_for(gate.cancelled.wait(), 2)
    state = f"/api/v1/streams/{response.headers['x-gai-stream-id']}"
    ended = await gateway.ask("GET", state, None, {**as_alice, "accept": "application/json"})
    assert (ended.json["state"], len(model.asked), made) == ("cancelled", 1, [])


@on_uvloop
async def test_a_run_waits_without_its_client_which_reads_on_later(net: Net) -> None:
    run = await waiting(net, of_stream={"on_disconnect": "cancel"})
    path, as_alice = f"/api/v1/streams/{run.stream_id}", {"authorization": f"Bearer {ALICE}"}
    await asyncio.sleep(0.1)
    asked = run.asked
    run.client.close()
    await asyncio.sleep(0.3)
    await until(lambda: run.gateway.streams == 0)
    assert (await run.decide()).status == 200
    followed = await run.gateway.ask("GET", path, None, as_alice)
    check_legal(followed.events)
    assert last(followed.events, "tool.result")["tool_result"] == "paid 7"
    assert last(followed.events, "approval.required")["approval"]["id"] == asked["id"]


@on_uvloop
async def test_a_cancelled_run_is_listed_no_longer_and_decides_nothing(net: Net) -> None:
    run = await waiting(net)
    as_alice, as_admin = ({"authorization": f"Bearer {secret}"} for secret in (ALICE, ADMIN))
    assert (await run.gateway.ask("DELETE", f"/api/v1/streams/{run.stream_id}", None, as_alice)).status == 202
    assert last(await run.end(), "finish")["finish_reason"] == "cancelled"

    async def is_empty() -> bool:
        return (await run.gateway.ask("GET", "/admin/v1/approvals", None, as_admin)).json["total"] == 0

    for _ in range(100):
        if await is_empty():
            break
        await asyncio.sleep(0.02)
    assert await is_empty()
    assert (await run.decide()).error["reason"] == "decided"
    assert made == []


@on_uvloop
async def test_the_time_of_a_run_stands_still_while_it_waits_alone(net: Net) -> None:
    run = await waiting(net, run_timeout=0.5)
    await asyncio.sleep(0.8)
    await run.decide()
    events = await run.end()
    assert last(events, "tool.result")["tool_result"] == "paid 7"
    assert "warning" not in [event["type"] for event in events]


@on_uvloop
async def test_other_calls_are_made_while_one_waits(net: Net) -> None:
    gate = Gate()

    async def slow() -> str:
        """Waits."""
        await gate.wait()
        return "slow"

    model = Model([("pay", {"euros": 7}), ("slow", {})], ["Done."])
    gateway = await gateway_that_asks(net, model, function_tool(slow))
    run = await Run.begun(gateway, M)
    await gate.begun.wait()
    await run.decide()
    await until(lambda: made == [7])
    gate.open.set()
    await run.end()
    assert model.results() == ["paid 7", "slow"]


HALF = "half of a surrogate pair, which no text may have, at character"
BAD_DECISIONS: list[tuple[tuple[Any, ...], str]] = [
    (("a\ud800", "deny", "0"), f"approval_id: {HALF} 1"),
    (("a", "deny", "\udfff"), f"digest: {HALF} 0"),
    (("a", "deny", "0", "no\ud800!"), f"reason: {HALF} 2"),
    (("a", "deny", "0", 5), "reason: must be a text, not int"),
    (("a", "maybe", "0"), "decision: must be 'approve' or 'deny'"),
]


@on_uvloop
async def test_a_program_decides_over_the_gateway_and_within_it(net: Net) -> None:
    gateway = await gateway_of(net, Model(ASK, ["Done."]), function_tool(pay, approve=True))

    async def read(stream: Any) -> gai_fast.Result:
        async for event in stream:
            if event["type"] == "approval.required":
                asked = event["approval"]
                with pytest.raises(gai_fast.Error, match="digest"):
                    await stream.decide(asked["id"], "approve", "0" * 64)
                with pytest.raises(gai_fast.Error, match="at most 1000 characters"):
                    await stream.decide(asked["id"], "deny", asked["digest"], "x" * 1001)
                for given, problem in BAD_DECISIONS:
                    with pytest.raises(gai_fast.InvalidRequest) as raised:
                        await stream.decide(*given)
                    assert (str(raised.value), raised.value.reason) == (problem, "validation")
                await stream.decide(asked["id"], "approve", asked["digest"])
        result: gai_fast.Result = await stream.result()
        return result

    async with (
        gai_fast.connect(gateway.running.url) as there,
        there.stream({"query": "q", "model": "m"}) as stream,
    ):
        assert (await read(stream)).text == "Shall I? Done."
    settings = dataclasses.replace(gateway.running.engine.settings)
    async with (
        gai_fast.Gateway(settings) as here,
        here.stream({"query": "q", "model": "m"}) as own,
    ):
        assert (await read(own)).text == "Shall I? Done."
    assert made == [7, 7]


@on_uvloop
async def test_other_clients_are_shown_what_is_asked(net: Net) -> None:
    gateway = await gateway_that_asks(net, Model(ASK, ["Done."]))
    asked: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "q"}], "stream": True}
    client = await gateway.connect()
    headers = {"authorization": f"Bearer {ALICE}", "x-gai-approvals": "ask"}
    client.request("POST", "/v1/chat/completions", asked, headers)
    response = await client.response()
    await response.until(b'"digest"')
    await response.until(b"\n\n")
    chunk = next(json.loads(data) for data in response.data if '"approval"' in data)
    approval = chunk["x_gai"]["approval"]
    path = f"/api/v1/streams/{response.headers['x-gai-stream-id']}/approvals/{approval['id']}"
    decision = {"decision": "approve", "digest": approval["digest"]}
    assert (await gateway.ask("POST", path, decision, {"authorization": f"Bearer {ALICE}"})).status == 200
    await response.rest()
    assert made == [7]
