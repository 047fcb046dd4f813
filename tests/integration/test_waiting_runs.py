"""Runs that wait for approvals alone, over real sockets, without a session until they go on."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

from gai_fast.core.run import RunCall
from gai_fast.ledger import SpendEntry
from gai_fast.model.errors import Error
from gai_fast.model.figures import StreamMetrics
from gai_fast.model.limits import SHARED
from gai_fast.model.settings import GuardSettings, KeyLimits, KeySettings, Price, RunSettings, SpendLimit, key_digest
from gai_fast.net.engine import deciding
from gai_fast.net.engine.takeover import KeyHome
from gai_fast.net.limits import LIMITS
from gai_fast.net.runs import waiting
from gai_fast.net.runs.approvals import waits, watch
from gai_fast.net.runs.approvals.desk import RunApprovals
from gai_fast.net.runs.records.kept_calls import KeptCalls
from gai_fast.net.runs.records.records import RUNS
from gai_fast.server.serving import start
from gai_fast.stores._base import GoesOn
from gai_fast.stores.backend import StoreError
from gai_fast.stores.records import MemoryRecords
from tests.conftest import ChangeLimits
from tests.integration.gateway import Gateway, M, Net, on_both_loops, on_uvloop, settings_for
from tests.integration.test_run_approvals import ADMIN, ALICE, ASK, BOB, KEYS, Run, gateway_that_asks, last, made, pay
from tests.integration.test_run_approvals import nothing_is_made as nothing_is_made
from tests.integration.tool_runs import Gate, Model, function_tool, gateway_of, with_tools
from tests.legal import check_legal
from tests.waiting import until, until_answered

AS_ALICE, AS_ADMIN = ({"authorization": f"Bearer {secret}"} for secret in (ALICE, ADMIN))
AS_STATE = {**AS_ALICE, "accept": "application/json"}


def waiting_in(gateway: Gateway) -> int:
    return gateway.running.engine.runs.waiting


async def parked(gateway: Gateway) -> Run:
    """Returns a run that waits without a session."""
    run = await Run.begun(gateway, M)
    await until(lambda: run.stream_id in gateway.running.engine.waiting)
    return run


async def state_of(run: Run) -> dict[str, Any]:
    state: dict[str, Any] = (await run.gateway.ask("GET", f"/api/v1/streams/{run.stream_id}", None, AS_STATE)).json
    return state


async def is_listed(gateway: Gateway, number: int) -> bool:
    return (await gateway.ask("GET", "/admin/v1/approvals", None, AS_ADMIN)).json["total"] == number


def is_made(number: int) -> bool:
    return len(made) == number


def has_streams(gateway: Gateway, number: int) -> bool:
    return gateway.streams == number


ONE = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
ENDS_AFTER_ONE = (ONE, [{"step": 1, "provider": "openai-compatible", "model": "mock", "usage": ONE, "tool_calls": 1}])


def told(finish: dict[str, Any]) -> tuple[Any, Any]:
    """Returns what the end of a run says of its turns."""
    return finish.get("usage"), finish.get("steps")


class Figures:
    """A `MetricsSink`."""

    def __init__(self, gateway: Gateway) -> None:
        self.seen: list[StreamMetrics] = []
        gateway.running.engine.sinks.append(self)

    def stream_ended(self, metrics: StreamMetrics) -> None:
        self.seen.append(metrics)


@on_both_loops
async def test_a_waiting_run_has_no_session_and_goes_on_as_if_it_had_kept_it(net: Net) -> None:
    model = Model(ASK, ["More? ", ("pay", {"euros": 8})], ["Done."])
    gateway = await gateway_that_asks(net, model)
    figures = Figures(gateway)
    run = await parked(gateway)
    assert (gateway.streams, waiting_in(gateway)) == (0, 1)
    assert gateway.running.engine.ledger.reservations == {}
    state = await state_of(run)
    assert (state["state"], state["last_event_id"]) == ("waiting", f"{run.stream_id}.{len(run.response.events)}")
    assert (await run.decide()).status == 200
    await run.response.until(b'"euros":8},"digest"')
    await run.response.until(b"}}")
    await until(lambda: gateway.streams == 0)
    assert (await run.decide("deny")).status == 200
    events = await run.end()
    assert [event["seq"] for event in events if "seq" in event] == [*range(1, len(events))]
    assert {event["type"] for event in events}.isdisjoint({"warning", "step.reset", "stream.gap", "stream.reset"})
    assert [event["step"] for event in events if event["type"] == "step.start"] == [1, 2, 3]
    finish = last(events, "finish")
    assert finish["usage"]["total_tokens"] == 45
    assert [step["tool_calls"] for step in finish["steps"]] == [1, 1, 0]
    assert model.results() == ["paid 7", "the call was denied"]
    assert len(model.asked) == 3
    assert made == [7]
    assert (await state_of(run))["state"] == "finished"
    assert "takeovers" not in await state_of(run)
    assert waiting_in(gateway) == 0
    log = gateway.running.engine.store.find_here(run.stream_id)
    assert log is not None
    assert log.request is None
    assert [(each.usage or {})["total_tokens"] for each in figures.seen] == [15, 15, 15]


WHOLE = {
    "native": ("/api/v1/stream", {**M, "stream": False, "approvals": "ask"}),
    "chat": ("/v1/chat/completions", {"model": "m", "messages": [{"role": "user", "content": "Pay"}]}),
}


@pytest.mark.parametrize("route", WHOLE)
@pytest.mark.parametrize("has_key", [False, True])
@on_uvloop
async def test_a_whole_answer_waits_without_a_session(net: Net, route: str, has_key: bool) -> None:
    """Its client waits on for the one response."""
    model = Model(["Two? ", *ASK[1:], ("free", {})], ["More? ", ("pay", {"euros": 8})], ["Done."])
    gateway = await gateway_that_asks(net, model, function_tool(free))
    figures = Figures(gateway)
    path, body = WHOLE[route]
    headers = {**AS_ALICE, "x-gai-approvals": "ask", **({"idempotency-key": "once"} if has_key else {})}
    asking = asyncio.create_task(gateway.ask("POST", path, body, headers))
    for number in (1, 2):
        await until(lambda: len(gateway.running.engine.waiting._runs) == 1)
        assert (gateway.streams, waiting_in(gateway)) == (0, 1)
        assert gateway.running.engine.ledger.reservations == {}
        [row] = (await gateway.ask("GET", "/admin/v1/approvals", None, AS_ADMIN)).json["data"]
        of_stream = f"/api/v1/streams/{row['stream_id']}"
        assert (await gateway.ask("GET", of_stream, None, AS_STATE)).json["state"] == "waiting"
        decision = {"decision": "approve", "digest": row["digest"]}
        decided = await gateway.ask("POST", f"{of_stream}/approvals/{row['id']}", decision, AS_ALICE)
        assert decided.status == 200
        await until(partial(is_made, number))
    answer = await asking
    assert answer.status == 200
    assert (await gateway.ask("GET", of_stream, None, AS_STATE)).json["state"] == "finished"
    if route == "native":
        assert answer.json["text"] == "Two? More? Done."
        kinds = [event["type"] for event in answer.json["events"]]
        assert sorted(kinds) == sorted(["approval.required", "approval.decided"] * 2 + ["tool.result"] * 3)
        roles = [message["role"] for message in answer.json["messages"]]
        assert roles == ["assistant", "tool", "tool", "assistant", "tool", "assistant"]
    assert answer.json["usage"]["total_tokens"] == 45
    assert model.results() == ["paid 7", "free", "paid 8"]
    assert [(each.usage or {})["total_tokens"] for each in figures.seen] == [15, 15, 15]
    if has_key:
        assert (await gateway.ask("POST", path, body, headers)).body == answer.body
    assert (made, len(model.asked), waiting_in(gateway)) == ([7, 8], 3, 0)


def free() -> str:
    """Waits for nobody."""
    return "free"


@pytest.mark.parametrize("is_parked", [True, False])
@on_uvloop
async def test_a_decision_whose_message_is_lost_is_found(
    net: Net, monkeypatch: pytest.MonkeyPatch, is_parked: bool
) -> None:
    monkeypatch.setattr(watch, "LIMITS", replace(LIMITS, approval_look=0.05))
    gateway = await gateway_that_asks(net, Model(ASK, ["Done."]))
    size = 1 if is_parked else LIMITS.parked_request  # this one waits in its session
    run = await Run.begun(gateway, {**M, "query": "q" * size})
    await until(lambda: (run.stream_id in gateway.running.engine.waiting) is is_parked)

    async def lost(*_: object) -> None:
        """Tells nobody."""

    monkeypatch.setattr(deciding, "_tell", lost)
    assert (await run.decide()).status == 200
    await run.end()
    assert made == [7]


@pytest.mark.parametrize("path", ["/api/v1/stream", "/api/v1/stream?format=vercel&ui=6"])
@on_uvloop
async def test_a_run_that_may_ask_and_is_not_resumable_ends_with_an_error_at_a_drain(net: Net, path: str) -> None:
    gate = Gate()

    async def slow() -> str:
        """Waits."""
        await gate.wait()
        return "slow"

    gateway = await gateway_that_asks(net, Model([("slow", {})], ["never"]), function_tool(slow))
    client = await gateway.connect()
    client.request("POST", path, M, {"authorization": f"Bearer {ALICE}"})
    response = await client.response()
    await gate.begun.wait()
    gateway.running.begin_drain()
    await gateway.running.close()
    await response.rest()
    assert response.ended
    if path == "/api/v1/stream":
        assert response.types[-2:] == ["error", "done"]
        error = response.events[-2]["error"]
        assert (error["code"], error["reason"], error["temporary"]) == ("overloaded", "draining", True)
    else:
        assert b"this server is being stopped" in response.body
    client.close()


@on_uvloop
async def test_who_waits_for_a_whole_answer_is_told_of_its_end(net: Net) -> None:
    gateway = await gateway_that_asks(net, Model(ASK, ["Done."]))
    path, body = WHOLE["native"]
    asking = asyncio.create_task(gateway.ask("POST", path, body, AS_ALICE))
    await until(lambda: len(gateway.running.engine.waiting._runs) == 1)
    gateway.running.begin_drain()
    answer = await asking
    assert (answer.status, answer.error["reason"]) == (502, "worker_lost")
    assert (waiting_in(gateway), made) == (0, [])


@on_uvloop
async def test_what_was_charged_is_charged_once(net: Net) -> None:
    alice = KeySettings("alice", (key_digest(ALICE),), tools=("*",), limits=KeyLimits(spend=SpendLimit(10**12, "day")))
    price = Price(10**12, 10**12, 10**12, 10**12, 10**12)  # a millionth for a token
    gateway = await gateway_of(
        net,
        Model(ASK, ["Done."]),
        function_tool(pay, approve=True),
        of_stream={"keys": (alice,), "price": price},
    )
    figures = Figures(gateway)
    run = await parked(gateway)
    await run.decide()
    finish = last(await run.end(), "finish")
    assert finish["usage"]["total_tokens"] == 30
    assert finish["usage"]["cost"] == {"amount": 30e-6, "currency": "USD"}
    assert (await state_of(run))["usage"] == finish["usage"]
    assert [(each.usage or {})["cost"]["amount"] for each in figures.seen] == [15e-6, 15e-6]
    assert sum(each.cost or 0 for each in figures.seen) == 30 * 10**6
    assert await gateway.running.engine.ledger.spent("alice", "day") == 30 * 10**6
    assert gateway.running.engine.ledger.reservations == {}


@pytest.mark.parametrize("who", ["caller", "admin", "revoked"])
@on_uvloop
async def test_a_waiting_run_that_is_cancelled_ends_and_asks_no_longer(net: Net, who: str) -> None:
    gateway = await gateway_that_asks(net, Model(ASK, ["Done."]))
    run = await parked(gateway)
    if who == "revoked":
        gateway.running.engine.end_callers(["alice"], "key_revoked", Error("unauthorized", "revoked"))
    else:
        path, as_who = ("/api", AS_ALICE) if who == "caller" else ("/admin", AS_ADMIN)
        answer = await gateway.ask("DELETE", f"{path}/v1/streams/{run.stream_id}", None, as_who)
        assert (answer.status, answer.json) == (202, {"id": run.stream_id, "state": "cancelled"})
    finish = last(await run.end(), "finish")
    assert (finish["finish_reason"], finish.get("reason")) == ("cancelled", "key_revoked" if who == "revoked" else None)
    assert told(finish) == ENDS_AFTER_ONE
    state = await state_of(run)
    assert (state["state"], state["usage"]) == ("cancelled", finish["usage"])
    await until_answered(lambda: is_listed(gateway, 0))
    assert (await run.decide()).error["reason"] == "decided"
    assert (waiting_in(gateway), made) == (0, [])
    assert await gateway.running.engine.store.records.get("run", f"{run.stream_id}/s1.1/0") is None


@pytest.mark.parametrize("when", ["its record is read", "its tool works"])
@on_uvloop
async def test_a_run_that_is_cancelled_as_it_goes_on_starts_no_second_time(
    net: Net, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    reached, go_on = asyncio.Event(), KeptCalls.go_on

    async def slow() -> str:
        """Works."""
        reached.set()
        return await asyncio.Future()

    async def reading(self: KeptCalls, epoch: int, *, is_own: bool = False) -> Any:
        reached.set()
        await asyncio.sleep(0.1)
        return await go_on(self, epoch, is_own=is_own)

    gateway = await gateway_that_asks(net, Model([("slow", {})]), function_tool(slow, approve=True))
    run = await parked(gateway)
    if when == "its record is read":
        monkeypatch.setattr(KeptCalls, "go_on", reading)
    assert (await run.decide()).status == 200
    await reached.wait()
    assert (await gateway.ask("DELETE", f"/api/v1/streams/{run.stream_id}", None, AS_ALICE)).status == 202
    events = await run.end()
    kinds = [event["type"] for event in events]
    assert (kinds.count("start"), kinds.count("step.start")) == (1, 1)
    assert last(events, "finish")["finish_reason"] == "cancelled"
    assert told(last(events, "finish")) == ENDS_AFTER_ONE


@on_uvloop
async def test_the_end_of_a_cancelled_run_says_the_same_wherever_it_is(net: Net) -> None:
    """In its session, and as it waits: its first call was made, and its second turn asks for another one."""
    ends = []
    price = Price(10**12, 10**12, 10**12, 10**12, 10**12)
    for size in (1, LIMITS.parked_request):  # this one waits in its session
        model = Model(ASK, ["More? ", ("pay", {"euros": 8})], ["Done."])
        more = {"runs": RunSettings(), "keys": KEYS}
        gateway = await gateway_of(
            net, model, function_tool(pay, approve=True), of_stream={"price": price}, of_gateway=more
        )
        steps: list[int] = []
        gateway.running.engine.runs.note_steps = steps.append
        run = await Run.begun(gateway, {**M, "query": "q" * size})
        assert (await run.decide()).status == 200
        await run.response.until(b'"euros":8},"digest"')
        await until(partial(has_streams, gateway, int(size > 1)))
        assert (await gateway.ask("DELETE", f"/api/v1/streams/{run.stream_id}", None, AS_ALICE)).status == 202
        finish = last(await run.end(), "finish")
        ends.append((told(finish), [*finish], steps))
    assert ends[0] == ends[1]
    (usage, told_steps), _, steps = ends[0]
    assert (usage["total_tokens"], usage["cost"]["amount"]) == (30, 30e-6)
    turns = [(each["step"], each["usage"]["total_tokens"], each["tool_calls"]) for each in told_steps]
    assert (turns, steps) == ([(1, 15, 1), (2, 15, 1)], [2])


@on_uvloop
async def test_a_run_whose_key_is_revoked_as_it_goes_on_ends_as_one_that_waits(net: Net) -> None:
    gateway = await gateway_that_asks(net, Model(ASK, ["Done."]))
    engine, steps = gateway.running.engine, list[int]()
    engine.runs.note_steps = steps.append
    homes: list[KeyHome] = ["store"]
    engine.takeovers.key_home = lambda caller: homes.pop() if len(homes) > 1 else homes[0]
    run = await parked(gateway)
    homes[:] = ["", "store"]  # revoked once its place is taken
    assert (await run.decide()).status == 200
    finish = last(await run.end(), "finish")
    assert (finish["finish_reason"], finish["reason"]) == ("cancelled", "key_revoked")
    assert told(finish) == ENDS_AFTER_ONE
    log = engine.store.find_here(run.stream_id)
    assert log is not None
    assert log.request is None
    assert (steps, waiting_in(gateway), gateway.streams, made) == ([1], 0, 0, [])
    assert engine.ledger.reservations == {}
    await until_answered(lambda: is_listed(gateway, 0))


@on_uvloop
async def test_nobody_else_cancels_a_waiting_run(net: Net) -> None:
    gateway = await gateway_that_asks(net, Model(ASK, ["Done."]))
    run = await parked(gateway)
    as_bob = {"authorization": f"Bearer {BOB}"}
    answer = await gateway.ask("DELETE", f"/api/v1/streams/{run.stream_id}", None, as_bob)
    assert answer.status == 404
    await run.decide()
    assert last(await run.end(), "finish")["finish_reason"] == "stop"


@on_uvloop
async def test_a_run_that_nobody_follows_expires_and_goes_on(net: Net) -> None:
    model = Model(ASK, ["Done."])
    gateway = await gateway_that_asks(net, model, runs=RunSettings(approval_ttl=1.0))
    figures = Figures(gateway)
    run = await parked(gateway)
    run.client.close()
    await until(lambda: len(figures.seen) >= 2)
    followed = await gateway.ask("GET", f"/api/v1/streams/{run.stream_id}", None, AS_ALICE)
    check_legal(followed.events)
    assert last(followed.events, "approval.decided")["approval"]["reason"] == "expired"
    assert model.results() == ["the call was denied: expired"]
    assert [each.outcome for each in figures.seen] == ["disconnected", "finished"]  # it has left its session once


@on_uvloop
async def test_a_waiting_run_has_no_place_and_waits_for_one_to_go_on(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "SHARED", replace(SHARED, store_retry=SHARED.lease_renewal + 0.1))
    alice = KeySettings("alice", (key_digest(ALICE),), tools=("*",), limits=KeyLimits(streams=1))
    asked = asyncio.Event()

    async def hold(_peer: Any) -> None:
        await asked.wait()

    model = Model(ASK, ["Done."])
    gateway = await gateway_of(
        net, model, function_tool(pay, approve=True), of_gateway={"runs": RunSettings(), "keys": (alice,)}
    )
    run = await parked(gateway)
    model.turns[0] = ["Hi", hold]
    client = await gateway.connect()
    client.request("POST", "/api/v1/stream", M, AS_ALICE)
    other = await client.response()
    await other.until(b"Hi")
    assert (await run.decide()).status == 200
    await asyncio.sleep(2 * SHARED.lease_renewal + 0.5)  # it is refused more than once
    assert waiting_in(gateway) == 1
    assert (await state_of(run))["state"] == "waiting"
    asked.set()
    await other.rest()
    assert last(await run.end(), "tool.result")["tool_result"] == "paid 7"


@pytest.mark.parametrize("decision", ["approve", "deny"])
@on_uvloop
async def test_spend_that_is_used_up_as_a_run_waits_ends_it_behind_its_step(net: Net, decision: str) -> None:
    """The call that was approved is made: it costs the key nothing. The next turn is not asked."""
    alice = KeySettings("alice", (key_digest(ALICE),), tools=("*",), limits=KeyLimits(spend=SpendLimit(10**9, "day")))
    price = Price(10**12, 10**12, 10**12, 10**12, 10**12)  # a millionth for a token
    model = Model(ASK, ["Done."])
    gateway = await gateway_of(
        net,
        model,
        function_tool(pay, approve=True),
        of_stream={"keys": (alice,), "price": price},
    )
    run = await parked(gateway)
    spent = SpendEntry("alice", "m", "u", datetime.now(UTC).date().isoformat(), "USD", 10**9)
    gateway.running.engine.ledger.charge(spent)
    assert (await run.decide(decision)).status == 200
    events = await run.end()
    assert [event["type"] for event in events][-5:] == [
        "approval.decided",
        "tool.result",
        "step.end",
        "finish",
        "done",
    ]
    finish = last(events, "finish")
    assert (finish["finish_reason"], finish["reason"]) == ("length", "spend")
    assert (finish["usage"]["total_tokens"], len(finish["steps"])) == (15, 1)
    assert made == ([7] if decision == "approve" else [])
    assert len(model.asked) == 1
    state = await state_of(run)
    assert (state["state"], state["finish_reason"]) == ("finished", "length")
    assert gateway.running.engine.ledger.reservations == {}


@on_uvloop
async def test_spend_that_covers_no_longer_prompt_ends_a_run_before_that_is_sent(net: Net) -> None:
    """What was reserved for the first turn is left, but not what the second one needs."""

    def pay_much(euros: int) -> str:
        """Pays."""
        return "paid " * 1000 + str(euros)

    alice = KeySettings("alice", (key_digest(ALICE),), tools=("*",), limits=KeyLimits(spend=SpendLimit(10**9, "day")))
    price = Price(10**12, 10**12, 10**12, 10**12, 10**12)
    model = Model([("pay_much", {"euros": 7})], ["Done."])
    gateway = await gateway_of(
        net,
        model,
        function_tool(pay_much, approve=True),
        of_stream={"keys": (alice,), "price": price},
    )
    client = await gateway.connect()
    client.request("POST", "/api/v1/stream", {**M, "max_tokens": 5}, AS_ALICE)
    run = Run(gateway, client, await client.response())
    await run.response.until(b'"digest"')
    await run.response.until(b"}}")
    await until(lambda: run.stream_id in gateway.running.engine.waiting)
    spent = SpendEntry("alice", "m", "u", datetime.now(UTC).date().isoformat(), "USD", 10**9 - 500 * 10**6)
    gateway.running.engine.ledger.charge(spent)
    assert (await run.decide()).status == 200
    finish = last(await run.end(), "finish")
    assert (finish["finish_reason"], finish.get("reason")) == ("length", "spend")
    assert len(model.asked) == 1


@on_uvloop
async def test_the_rest_waits_anew_behind_a_decision(net: Net) -> None:
    model = Model([("pay", {"euros": 1}), ("pay", {"euros": 2})], ["Done."])
    gateway = await gateway_that_asks(net, model, run_timeout=5.0)
    run = await parked(gateway)
    asked = [event["approval"] for event in run.response.events if event["type"] == "approval.required"]
    while len(asked) < 2:
        await run.response.more()
        asked = [event["approval"] for event in run.response.events if event["type"] == "approval.required"]
    for number, approval in enumerate(asked, 1):
        path = f"/api/v1/streams/{run.stream_id}/approvals/{approval['id']}"
        body = {"decision": "approve", "digest": approval["digest"]}
        assert (await gateway.ask("POST", path, body, AS_ALICE)).status == 200
        await until(partial(is_made, number))
        if number == 1:
            await until(lambda: run.stream_id in gateway.running.engine.waiting)
            assert (await state_of(run))["state"] == "waiting"
    events = await run.end()
    assert model.results() == ["paid 1", "paid 2"]
    assert len([event for event in events if event["type"] == "tool.result"]) == 2


@on_uvloop
async def test_a_large_request_waits_in_its_session(net: Net) -> None:
    gateway = await gateway_that_asks(net, Model(ASK, ["Done."]))
    run = await Run.begun(gateway, {**M, "query": "q" * LIMITS.parked_request})
    assert (await state_of(run))["state"] == "waiting"
    assert (gateway.streams, waiting_in(gateway)) == (1, 1)
    await run.decide()
    assert last(await run.end(), "tool.result")["tool_result"] == "paid 7"
    assert waiting_in(gateway) == 0


@on_uvloop
async def test_a_server_that_stops_ends_what_waits_in_its_memory(net: Net) -> None:
    gateway = await gateway_that_asks(net, Model(ASK, ["Done."]))
    run = await parked(gateway)
    await gateway.running.close()
    await run.response.rest()
    assert waiting_in(gateway) == 0


@on_uvloop
async def test_a_server_that_drains_ends_what_waits_in_its_memory_at_once(net: Net) -> None:
    """But not what was decided: that goes on, until it waits again."""
    gate = Gate()

    async def slow() -> str:
        """Waits."""
        await gate.wait()
        return "slow"

    model = Model([("slow", {})], [("pay", {"euros": 7})], ["Done."])
    gateway = await gateway_that_asks(net, model, function_tool(slow, approve=True))
    going, waits = await parked(gateway), await Run.begun(gateway, M)
    await until(lambda: waits.stream_id in gateway.running.engine.waiting)
    assert (await going.decide()).status == 200
    await gate.begun.wait()
    gateway.running.begin_drain()
    ended = await waits.end()
    gate.open.set()
    rest = await going.end()
    for events, tokens, results in ((ended, 15, 0), (rest, 30, 1)):
        error = last(events, "error")
        assert (error["error"]["reason"], error["usage"]["total_tokens"]) == ("worker_lost", tokens)
        assert [event["type"] for event in events].count("tool.result") == results
    await until(lambda: not gateway.running.unanswered)
    assert (waiting_in(gateway), made) == (0, [])


@pytest.mark.parametrize("when", ["it leaves", "it goes on"])
@on_uvloop
async def test_a_run_waits_until_its_store_answers(net: Net, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    gateway = await gateway_that_asks(net, Model(ASK, ["Done."]))
    fails = when == "it leaves"
    swap, get = MemoryRecords.swap, MemoryRecords.get

    async def swapped(self: MemoryRecords, kind: str, *rest: Any, **more: Any) -> Any:
        if fails and kind == RUNS:
            raise StoreError("unreachable", "a test")
        return await swap(self, kind, *rest, **more)

    async def got(self: MemoryRecords, kind: str, name: str) -> Any:
        if fails and kind == RUNS:
            raise StoreError("unreachable", "a test")
        return await get(self, kind, name)

    monkeypatch.setattr(MemoryRecords, "swap", swapped)
    monkeypatch.setattr(MemoryRecords, "get", got)
    run = await Run.begun(gateway, M)
    if fails:
        await until(lambda: net.warned("its run is not kept yet"))
        assert gateway.streams == 1
        assert (await state_of(run))["state"] == "waiting"
        fails = False
    await until(lambda: run.stream_id in gateway.running.engine.waiting)
    fails = when == "it goes on"
    assert (await run.decide()).status == 200
    if fails:
        await until(lambda: net.warned("its run does not go on yet"))
        fails = False
    events = await run.end()
    assert last(events, "tool.result")["tool_result"] == "paid 7"
    assert (last(events, "finish")["finish_reason"], made) == ("stop", [7])
    net.warned("its run")  # more of them


@on_uvloop
async def test_a_run_does_not_grow_while_its_store_is_out(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waits, "SHARED", replace(SHARED, store_retry=0.01))
    gateway = await gateway_that_asks(net, Model(ASK, ["Done."]))
    swap, keep_now, fails, left = MemoryRecords.swap, KeptCalls.keep_now, True, []

    async def swapped(self: MemoryRecords, kind: str, *rest: Any, **more: Any) -> Any:
        if fails and kind == RUNS:
            raise StoreError("unreachable", "a test")
        return await swap(self, kind, *rest, **more)

    async def kept(self: KeptCalls, *state: Any) -> bool | None:
        is_kept = await keep_now(self, *state)
        left.append(len(self._waiting))
        return is_kept

    monkeypatch.setattr(MemoryRecords, "swap", swapped)
    monkeypatch.setattr(KeptCalls, "keep_now", kept)
    run = await Run.begun(gateway, M)
    await until(lambda: len(left) > 9)
    assert max(left) <= 2
    fails = False
    await until(lambda: run.stream_id in gateway.running.engine.waiting)
    assert net.warned("its run is not kept yet")


@on_uvloop
async def test_a_run_that_ends_as_it_asks_asks_nobody(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = await gateway_that_asks(net, Model(ASK, ["Done."]))
    ask = RunApprovals.ask

    def asks(self: RunApprovals, call: RunCall, digest: str) -> None:
        asyncio.get_running_loop().call_soon(gateway.running.engine.cancel, self._stream_id)
        ask(self, call, digest)

    monkeypatch.setattr(RunApprovals, "ask", asks)
    answer = await gateway.ask("POST", "/api/v1/stream", M, AS_ALICE)
    assert last(answer.events, "finish")["finish_reason"] == "cancelled"
    assert await is_listed(gateway, 0)


@pytest.mark.parametrize("is_recorded", [True, False])
@on_uvloop
async def test_nobody_is_asked_in_a_conversation_that_is_too_large(
    net: Net, change_limits: ChangeLimits, is_recorded: bool
) -> None:
    change_limits(run=100, parked_request=LIMITS.parked_request if is_recorded else 0)
    model = Model(ASK, ["Done."])
    gateway = await gateway_that_asks(net, model)
    answer = await gateway.ask("POST", "/api/v1/stream", {**M, "query": "q" * 100}, AS_ALICE)
    check_legal(answer.events)
    assert "approval.required" not in [event["type"] for event in answer.events]
    assert model.results() == ["the call was denied: nobody is asked in a conversation of more than 16 MiB"]
    assert last(answer.events, "finish")["finish_reason"] == "stop"
    assert await is_listed(gateway, 0)


@pytest.mark.parametrize("asks", [None, "ask"])
@on_uvloop
async def test_a_run_with_its_caller_s_credential_waits_in_its_session(net: Net, asks: str | None) -> None:
    """The credential is kept nowhere. Nobody is asked unless the request says so."""
    model = Model(ASK, ["Done."])
    upstream = await net.upstream(model.handle)
    settings = with_tools(settings_for(upstream.url), function_tool(pay, approve=True))
    models = {
        name: replace(each, upstream=replace(each.upstream, takes_credentials=True, api_key=None))
        for name, each in settings.models.items()
    }
    upstreams = {each.upstream.name: each.upstream for each in models.values()}
    running = await start(replace(settings, models=models, upstreams=upstreams))
    net.stack.push_async_callback(running.close)
    gateway = Gateway(net, running)
    client = await gateway.connect()
    headers = {"authorization": "Bearer sk-of-the-caller"}
    client.request("POST", "/api/v1/stream", M, headers | ({"x-gai-approvals": asks} if asks else {}))
    run = Run(gateway, client, await client.response())
    if asks is not None:
        await run.response.until(b'"expires":')
        await run.response.until(b"}}")
        await asyncio.sleep(0.1)
        assert (gateway.streams, waiting_in(gateway)) == (1, 1)
        path = f"/api/v1/streams/{run.stream_id}/approvals/{run.asked['id']}"
        body = {"decision": "approve", "digest": run.asked["digest"]}
        assert (await gateway.ask("POST", path, body, headers)).status == 200
    events = await run.end()
    assert last(events, "tool.result").get("is_error", False) is (asks is None)
    assert last(events, "finish")["finish_reason"] == "stop"
    assert made == ([] if asks is None else [7])
    client.close()


@on_uvloop
async def test_guards_know_behind_a_wait_what_they_have_let_through(net: Net) -> None:
    """A placeholder of the request is restored in the text of a later turn, and arguments stay masked."""
    guards = (
        GuardSettings("people", "pii", kinds=("email",), on=("input", "output"), restore=True),
        GuardSettings("birds", "words", words=("kestrel",), on=("tool_input", "tool_result")),
    )
    mails: list[str] = []

    def mail(text: str) -> str:
        """Mails."""
        mails.append(text)
        return "a kestrel has it"

    model = Model([("mail", {"text": "for the kestrel"})], ["Sent to ", "<EMA", "IL_1>."])
    gateway = await gateway_of(
        net,
        model,
        function_tool(mail, approve=True),
        of_stream={"guards": guards},
        of_gateway={"runs": RunSettings(), "keys": KEYS},
    )
    run = await Run.begun(gateway, {**M, "query": "Write to ada@example.com"})
    await until(lambda: run.stream_id in gateway.running.engine.waiting)
    assert run.asked["input"] == {"text": "for the [words]"}
    assert "ada@example.com" not in str(model.asked)
    assert (await run.decide()).status == 200
    events = await run.end()
    assert model.asked[0]["messages"][-1]["content"] == "Write to <EMAIL_1>"
    assert mails == ["for the [words]"]
    assert model.results() == ["a [words] has it"]
    text = "".join(event["text"] for event in events if event["type"] == "text.delta")
    assert text == "Sent to ada@example.com."


@on_uvloop
async def test_a_bug_as_a_run_goes_on_ends_it(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = await gateway_that_asks(net, Model(ASK, ["Done."]))
    run = await parked(gateway)

    async def fail(*_: Any) -> Any:
        raise RuntimeError("a bug")

    monkeypatch.setattr(gateway.running.engine.waiting, "_waking", fail)
    await run.decide()
    events = await run.end()
    assert last(events, "error")["error"]["code"] == "internal"
    assert [event["type"] for event in events[-2:]] == ["error", "done"]
    assert waiting_in(gateway) == 0
    assert net.warned("by a bug of the gateway") == 1


@on_uvloop
async def test_a_bug_in_the_moment_of_going_on_leaves_no_approval_behind(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = await gateway_that_asks(net, Model(ASK, ["Done."]))
    run = await parked(gateway)
    assert await is_listed(gateway, 1)

    async def goes_on(*_: Any) -> GoesOn:
        return GoesOn(fail, lambda: None)

    def fail(*_: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(gateway.running.engine.waiting, "_waking", goes_on)
    gateway.running.engine.waiting.wake(run.stream_id)
    assert last(await run.end(), "error")["error"]["code"] == "internal"
    await until_answered(partial(is_listed, gateway, 0))
    late = await run.decide()
    assert (late.status, late.error["reason"]) == (409, "decided")
    assert net.warned("by a bug of the gateway") == 1
