"""Approvals in the words of `useChat`: a response ends where its run waits, and the chat sent again goes on."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import json
from typing import Any

import pytest

from gai_fast.runtime.clock import now_ms
from tests.integration.asked_approvals import KEYS, as_key
from tests.integration.gateway import Gateway, Net, Peer, Response, on_both_loops, on_uvloop
from tests.integration.test_approval_answers import Desk, paying
from tests.integration.test_waiting_followers import decide as decide_here
from tests.integration.test_waiting_followers import parked
from tests.integration.tool_runs import Model

CHAT = "/api/v1/chat?ui=6"
ROUTES = {"chat": CHAT, "native": "/api/v1/stream?format=vercel&ui=6"}
USER = {"id": "m1", "role": "user", "parts": [{"type": "text", "text": "Pay"}]}
PAY: Any = ("pay", {"euros": 7})
LAST: Any = ["Done."]
WITH_KEYS = {"keys": tuple(dataclasses.replace(key, tools=("*",)) for key in KEYS)}


def types_of(response: Response) -> list[str]:
    return [part["type"] for part in response.events]


def message_of(*responses: Response) -> dict[str, Any]:
    """Returns the message that a page has after some responses: `tests/node` has the SDK's own."""
    parts: list[dict[str, Any]] = []
    calls: dict[str, dict[str, Any]] = {}
    for event in [event for response in responses for event in response.events]:
        kind = event["type"]
        if kind == "start-step":
            parts.append({"type": "step-start"})
        elif kind == "text-start":
            parts.append({"type": "text", "text": ""})
        elif kind == "text-delta":
            parts[-1]["text"] += event["delta"]
        elif kind == "tool-input-start":
            calls[event["toolCallId"]] = part = {key: event[key] for key in ("toolCallId", "toolName")}
            part |= {"type": "dynamic-tool", "providerExecuted": True, "state": "input-streaming"}
            parts.append(part)
        elif kind == "tool-input-available":
            calls[event["toolCallId"]] |= {"state": "input-available", "input": event["input"]}
        elif kind == "tool-approval-request":
            calls[event["toolCallId"]] |= {"state": "approval-requested", "approval": {"id": event["approvalId"]}}
        elif kind == "tool-output-available":
            calls[event["toolCallId"]] |= {"state": "output-available", "output": event["output"]}
        elif kind == "tool-output-denied":
            calls[event["toolCallId"]] |= {"state": "output-denied"}
    return {"id": "a1", "role": "assistant", "parts": parts}


def answered(message: dict[str, Any], *decisions: bool, **more: Any) -> dict[str, Any]:
    """Returns a message with answers to its requests for approvals, in their order."""
    message, left = copy.deepcopy(message), [*decisions]
    for part in message["parts"]:
        if left and part.get("state") == "approval-requested":
            part["state"] = "approval-responded"
            part["approval"] |= {"approved": left.pop(0), **more}
    return message


def chat(*messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": "chat-1", "trigger": "submit-message", "model": "m", "messages": [USER, *messages], **more}


async def decide(gateway: Gateway, response: Response, decision: str, **headers: Any) -> Response:
    """Decides by `POST` about the last call that a response asks for."""
    [asked] = [event["data"] for event in response.events if event["type"] == "data-approval"][-1:]
    stream_id = response.headers["x-gai-stream-id"]
    body = {"decision": decision, "digest": asked["digest"]}
    return await gateway.ask("POST", f"/api/v1/streams/{stream_id}/approvals/{asked['id']}", body, **headers)


async def asked(net: Net, *turns: Any, route: str = CHAT, **options: Any) -> tuple[Gateway, Model, Desk, Response]:
    gateway, model, desk = await paying(net, *(turns or (["Shall I? ", PAY], LAST)), **options)
    headers = as_key("alice") if options else {}
    first = await gateway.ask("POST", route, chat(), headers)
    assert (first.status, first.ended, desk.paid) == (200, True, [])
    return gateway, model, desk, first


@pytest.mark.parametrize("route", ROUTES)
@on_both_loops
async def test_a_response_ends_where_its_run_waits_and_the_answer_goes_on(net: Net, route: str) -> None:
    gateway, model, desk, first = await asked(net, route=ROUTES[route])
    assert types_of(first)[-3:] == ["data-approval", "finish-step", "finish"]
    assert first.body.endswith(b"data: [DONE]\n\n")
    place = f"/api/v1/streams/{first.headers['x-gai-stream-id']}"
    state = await gateway.ask("GET", place, headers={"accept": "application/json"})
    second = await gateway.ask("POST", ROUTES[route], chat(answered(message_of(first), True)))
    assert second.headers["x-gai-stream-id"] == first.headers["x-gai-stream-id"]
    assert types_of(second) == [
        *("start", "data-approval", "tool-output-available", "finish-step"),
        *("start-step", "text-start", "text-delta", "text-end", "finish-step", "finish"),
    ]
    assert (desk.paid, model.results(), len(model.asked)) == ([7], ["paid 7"], 2)
    assert state.json["state"] == "waiting"
    third = chat(message_of(first, second), {**USER, "id": "m2"})
    again = await gateway.ask("POST", ROUTES[route], third)
    assert (again.status, model.results(), desk.paid) == (200, ["paid 7"], [7])


@on_uvloop
async def test_a_denied_call_is_never_made_and_its_part_says_so(net: Net) -> None:
    gateway, model, desk, first = await asked(net)
    second = await gateway.ask("POST", CHAT, chat(answered(message_of(first), False, reason="too much")))
    assert "tool-output-denied" in types_of(second)
    assert (desk.paid, model.results()) == ([], ["the call was denied: too much"])
    after = await gateway.ask("POST", CHAT, chat(message_of(first, second), {**USER, "id": "m2"}))
    assert (after.status, desk.paid) == (200, [])


@on_uvloop
async def test_an_answer_counts_once(net: Net) -> None:
    gateway, _, desk, first = await asked(net)
    body = chat(answered(message_of(first), True))
    both = await asyncio.gather(*[gateway.ask("POST", CHAT, body) for _ in range(2)])
    assert sorted(each.status for each in both) == [200, 409]
    third = await gateway.ask("POST", CHAT, body)
    fourth = await gateway.ask("POST", CHAT, chat(answered(message_of(first), False)))
    assert {(each.status, each.json["error"]["reason"]) for each in (third, fourth)} == {(409, "approval")}
    assert desk.paid == [7]


@on_uvloop
async def test_of_answers_at_once_one_counts(net: Net) -> None:
    gateway, _, desk, first = await asked(net)
    body = chat(answered(message_of(first), True))
    responses = await asyncio.gather(*[gateway.ask("POST", CHAT, body) for _ in range(3)])
    assert (sorted(each.status for each in responses), desk.paid) == ([200, 409, 409], [7])


@pytest.mark.parametrize("decision", ["approve", "deny"])
@on_uvloop
async def test_a_post_decides_too_and_the_chats_stream_goes_on(net: Net, decision: str) -> None:
    is_asked = asyncio.Event()

    async def hold(_: Peer) -> None:
        await is_asked.wait()

    gateway, _, desk, first = await asked(net, ["Shall I? ", PAY], [hold, *LAST])
    waiting = await gateway.ask("GET", "/api/v1/chat/chat-1/stream?ui=6")
    assert types_of(waiting) == types_of(first)
    assert (await decide(gateway, first, decision)).status == 200
    client = await gateway.connect()
    client.request("GET", "/api/v1/chat/chat-1/stream?ui=6")
    rest = await client.response()
    is_asked.set()
    await rest.rest()
    kind = "tool-output-available" if decision == "approve" else "tool-output-denied"
    assert types_of(rest)[: len(types_of(first)) - 2] == types_of(first)[:-2]
    assert kind in types_of(rest)
    assert types_of(rest)[-1] == "finish"
    assert desk.paid == ([7] if decision == "approve" else [])


@on_uvloop
async def test_a_run_that_asks_twice_rests_twice(net: Net) -> None:
    gateway, _, desk, first = await asked(net, ["One? ", PAY], ["Two? ", ("pay", {"euros": 8})], LAST)
    second = await gateway.ask("POST", CHAT, chat(answered(message_of(first), True)))
    assert types_of(second)[-3:] == ["data-approval", "finish-step", "finish"]
    assert desk.paid == [7]
    third = await gateway.ask("POST", CHAT, chat(answered(message_of(first, second), True)))
    assert types_of(third)[:3] == ["start", "data-approval", "tool-output-available"]
    assert desk.paid == [7, 8]


@on_uvloop
async def test_of_two_calls_each_is_decided_as_it_is_answered(net: Net) -> None:
    gateway, model, desk, first = await asked(net, [PAY, ("pay", {"euros": 8})], LAST)
    assert types_of(first).count("tool-approval-request") == 2
    second = await gateway.ask("POST", CHAT, chat(answered(message_of(first), True)))
    assert (types_of(second)[-3:], desk.paid) == (["tool-output-available", "finish-step", "finish"], [7])
    third = await gateway.ask("POST", CHAT, chat(answered(message_of(first, second), False)))
    assert (desk.paid, model.results()) == ([7], ["paid 7", "the call was denied"])
    assert "tool-output-denied" in types_of(third)


@on_uvloop
async def test_an_answer_about_two_calls_waits_for_both(net: Net) -> None:
    gateway, _, desk, first = await asked(net, [PAY, ("pay", {"euros": 8})], LAST)
    second = await gateway.ask("POST", CHAT, chat(answered(message_of(first), True, True)))
    assert types_of(second).count("tool-output-available") == 2
    assert types_of(second).count("finish") == 1
    assert sorted(desk.paid) == [7, 8]


@on_uvloop
async def test_what_another_one_has_decided_is_shown_by_the_answer(net: Net) -> None:
    gateway, _, desk, first = await asked(net, of_gateway=WITH_KEYS)
    assert (await decide(gateway, first, "deny", headers=as_key("operator"))).status == 200
    second = await gateway.ask("POST", CHAT, chat(answered(message_of(first), True)), as_key("alice"))
    assert (second.status, desk.paid) == (200, [])
    assert "tool-output-denied" in types_of(second)


def changed(message: dict[str, Any], **members: Any) -> dict[str, Any]:
    message = copy.deepcopy(message)
    [part] = [part for part in message["parts"] if part["type"] == "dynamic-tool"]
    part.update(members)
    return message


@on_uvloop
async def test_an_answer_that_shows_another_call_decides_nothing(net: Net) -> None:
    gateway, _, desk, first = await asked(net)
    right = answered(message_of(first), True)
    for members in ({"input": {"euros": 1}}, {"toolName": "weather"}, {"toolCallId": "call_9"}, {"input": None}):
        refused = await gateway.ask("POST", CHAT, chat(changed(right, **members)))
        assert (refused.status, refused.json["error"]["reason"]) == (400, "approval")
    for approval in ({"approved": "yes"}, {}, {"approved": True, "reason": 3}):
        [part] = [part for part in right["parts"] if part["type"] == "dynamic-tool"]
        wrong = changed(right, approval={"id": part["approval"]["id"], **approval})
        refused = await gateway.ask("POST", CHAT, chat(wrong))
        assert (refused.status, refused.json["error"]["reason"]) == (400, "validation")
    old = await gateway.ask("POST", "/api/v1/chat", chat(right))
    assert (old.status, "ui=6" in old.json["error"]["message"]) == (400, True)
    assert desk.paid == []
    second = await gateway.ask("POST", CHAT, chat(changed(right, input={"euros": 7.0})))
    assert (second.status, desk.paid) == (200, [7])


@on_uvloop
async def test_the_approval_of_another_caller_is_unknown(net: Net) -> None:
    gateway, _, desk, first = await asked(net, of_gateway=WITH_KEYS)
    body = chat(answered(message_of(first), True))
    for name in ("bob", "operator"):
        refused = await gateway.ask("POST", CHAT, body, as_key(name))
        assert (refused.status, refused.json["error"]["reason"]) == (400, "approval")
    made_up = json.loads(json.dumps(body).replace(first.headers["x-gai-stream-id"], "A" * 32))
    unknown = await gateway.ask("POST", CHAT, made_up, as_key("alice"))
    assert (unknown.status, unknown.json["error"]["reason"]) == (400, "approval")
    assert desk.paid == []
    assert (await gateway.ask("POST", CHAT, body, as_key("alice"))).status == 200
    assert desk.paid == [7]


@on_uvloop
async def test_a_further_message_in_place_of_an_answer_leaves_the_call_out(net: Net) -> None:
    gateway, model, desk, first = await asked(net)
    for message in (message_of(first), answered(message_of(first), True)):
        other = await gateway.ask("POST", CHAT, chat(message, {**USER, "id": "m2"}))
        assert (other.status, types_of(other)[-1]) == (200, "finish")
        assert model.asked[-1]["messages"][-1]["role"] == "user"
        assert not any("tool_calls" in each for each in model.asked[-1]["messages"])
    assert desk.paid == []


@on_uvloop
async def test_the_client_that_has_its_response_has_not_left_the_run(net: Net) -> None:
    """A run that may ask is cancelled with its client, unless it has waited: the end of a response is no leaving."""
    gateway, _, desk, first = await asked(net)
    assert await parked(gateway.running.engine) == first.headers["x-gai-stream-id"]
    assert (await gateway.ask("POST", CHAT, chat(answered(message_of(first), True)))).status == 200
    assert desk.paid == [7]


@pytest.mark.parametrize("form", ["gai", "vercel", "agui"])
@on_uvloop
async def test_a_stream_of_another_form_waits(net: Net, form: str) -> None:
    gateway, _, desk = await paying(net, ["Shall I? ", PAY], LAST)
    client = await gateway.connect()
    client.request("POST", f"/api/v1/stream?format={form}", {"model": "m", "query": "q"}, {"x-gai-approvals": "ask"})
    response = await client.response()
    await response.until(b"digest")
    await decide_here(gateway, 1)
    await response.rest()
    assert (b"Done." in response.body, response.ended, desk.paid) == (True, True, [7])


@on_uvloop
async def test_an_answer_after_the_approvals_time_shows_its_denial(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway, _, desk, first = await asked(net)
    later = now_ms() + 3_700_000
    monkeypatch.setattr("gai_fast.net.engine.deciding.now_ms", lambda: later)
    second = await gateway.ask("POST", CHAT, chat(answered(message_of(first), True)))
    assert (second.status, desk.paid) == (200, [])
    assert "tool-output-denied" in types_of(second)
