"""Runs over real sockets: turns, calls and results in one stream, and every way in which one ends."""

from __future__ import annotations

import asyncio
import gc
import json
import math
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from gai_fast.core.run import ToolRun
from gai_fast.model.errors import Error
from gai_fast.model.settings import (
    GuardSettings,
    KeyLimits,
    KeySettings,
    Price,
    Secret,
    SpendLimit,
    StoreSettings,
    ToolServerSettings,
    key_digest,
)
from gai_fast.net.runs.driver import RunDriver, RunPlan
from gai_fast.server.serving import start
from tests.conftest import ChangeLimits
from tests.integration.gateway import (
    LAST_CHUNK,
    NEVER,
    SSE_HEAD,
    Gateway,
    M,
    Net,
    Peer,
    Response,
    on_both_loops,
    on_uvloop,
    settings_for,
)
from tests.integration.tool_runs import Gate, Model, function_tool, gateway_of, http_tool, with_tools
from tests.integration.websocket import connect
from tests.legal import check_legal
from tests.unit.formats import messages_reader
from tests.unit.formats.streams import DONE, call, call_start, finish
from tests.waiting import until
from tests.wire import chunk

PEER = Path(__file__).parent / "mcp_peer.py"
MAY, NOT = "sk-canary-may-0123456", "sk-canary-not-0123456"


def weather(city: str) -> dict[str, Any]:
    """The weather of a city."""
    return {"city": city, "celsius": 4}


def events_of(response: Response, *kinds: str) -> list[dict[str, Any]]:
    return [event for event in response.events if event["type"] in kinds]


@on_both_loops
async def test_a_run_that_has_ended_leaves_no_garbage(net: Net) -> None:
    """A collection of garbage holds up all streams: the runs of a crowd would be a long one."""
    model = Model([("weather", {"city": "Oslo"})], ["4 degrees."])
    gateway = await gateway_of(net, model, function_tool(weather))
    gc.disable()
    try:
        before = runs_there()
        for resumable in (False, True):
            assert (await gateway.ask("POST", "/api/v1/stream", {**M, "resumable": resumable})).types[-1] == "done"
        await until(lambda: runs_there() == before)
    finally:
        gc.enable()


def runs_there() -> int:
    return sum(isinstance(each, (RunDriver, ToolRun, RunPlan)) for each in gc.get_objects())


@on_both_loops
async def test_three_steps_are_one_stream(net: Net) -> None:
    model = Model(["Look. ", ("weather", {"city": "Oslo"})], [("weather", {"city": "Rome"})], ["4 degrees."])
    gateway = await gateway_of(net, model, function_tool(weather))
    response = await gateway.ask("POST", "/api/v1/stream", M)
    assert (
        response.types
        == (
            "start step.start text.delta tool.call.start tool.call.delta tool.call tool.result step.end "
            "step.start tool.call.start tool.call.delta tool.call tool.result step.end "
            "step.start text.delta step.end finish done"
        ).split()
    )
    [first, second] = events_of(response, "tool.result")
    assert first["tool_result"] == {"city": "Oslo", "celsius": 4}
    assert (first["step"], first["attempt"], second["step"]) == (1, 1, 2)
    assert [event["step"] for event in events_of(response, "step.start", "step.end")] == [1, 1, 2, 2, 3, 3]
    [called, _] = events_of(response, "tool.call")
    assert (called["executed_by"], called["step"]) == ("gateway", 1)
    [finish] = events_of(response, "finish")
    assert finish["finish_reason"] == "stop"
    assert finish["usage"]["total_tokens"] == 45
    assert [step["usage"]["total_tokens"] for step in finish["steps"]] == [15, 15, 15]
    assert [step["tool_calls"] for step in finish["steps"]] == [1, 1, 0]
    assert [json.loads(result)["city"] for result in model.results()] == ["Oslo", "Rome"]
    assert [len(body["messages"]) for body in model.asked] == [1, 3, 5]
    assert model.asked[1]["messages"][1]["content"] == "Look. "
    assert [event["seq"] for event in response.events if "seq" in event] == [*range(1, len(response.events))]
    assert model.connections == 1


@on_both_loops
async def test_a_turn_that_ends_with_its_body_is_sent_at_once(net: Net) -> None:
    """Gemini and the Responses dialect have no mark behind the last event."""
    model = Model(["Look. ", ("weather", {"city": "Oslo"})], ["4 degrees."])
    model.end_mark = b""
    gateway = await gateway_of(net, model, function_tool(weather))
    response = await asyncio.wait_for(gateway.ask("POST", "/api/v1/stream", M), 5)
    assert (response.text, response.types[-3:]) == ("Look. 4 degrees.", ["step.end", "finish", "done"])


@on_both_loops
async def test_no_timer_outlasts_the_last_turns_body(net: Net, change_limits: ChangeLimits) -> None:
    change_limits(upstream_tail=NEVER)
    model = Model(["4 degrees."])
    model.before_end = asyncio.Event()
    gateway = await gateway_of(net, model, function_tool(weather))
    assert (await gateway.ask("POST", "/api/v1/stream", M)).types[-1] == "done"
    timers = gateway.running.engine.timers
    waiting = len(timers)
    model.before_end.set()
    await until(lambda: len(timers) < waiting)  # `run` looks for the others, once the gateway is closed


@on_uvloop
async def test_the_tokens_of_a_turn_are_estimated_by_the_length_of_its_conversation(net: Net) -> None:
    model = Model([("weather", {"city": "Oslo"})], ["Look. ", ("weather", {"city": "Rome"})], ["4 degrees."])
    model.usage = None
    gateway = await gateway_of(net, model, function_tool(weather))
    response = await gateway.ask("POST", "/api/v1/stream", {**M, "system": "Be brief."})
    lengths = [sum(len(each.get("content") or "") for each in body["messages"]) for body in model.asked]
    assert lengths[0] < lengths[1] < lengths[2]
    [finish] = events_of(response, "finish")
    estimated = [step["usage"]["input_tokens"] for step in finish["steps"]]
    assert estimated == [-(-length // 4) for length in lengths]


@on_uvloop
async def test_two_calls_run_at_once_and_their_results_keep_the_calls_order(net: Net) -> None:
    gates = {"Oslo": Gate(), "Rome": Gate()}

    async def visit(city: str) -> str:
        await gates[city].wait()
        return city

    model = Model([("visit", {"city": "Oslo"}), ("visit", {"city": "Rome"})], ["Done."])
    gateway = await gateway_of(net, model, function_tool(visit))
    client, response = await gateway.stream(M)
    await gates["Oslo"].begun.wait()
    await gates["Rome"].begun.wait()
    gates["Rome"].open.set()
    await response.until(b'"tool.result"')
    gates["Oslo"].open.set()
    await response.rest()
    assert [event["tool_result"] for event in events_of(response, "tool.result")] == ["Rome", "Oslo"]
    assert model.results() == ["Oslo", "Rome"]
    client.close()


@on_both_loops
async def test_an_idempotent_call_begins_once_another_one_does(net: Net) -> None:
    """The turn ends after the tool has begun, and the tool after that."""
    gate = Gate()

    async def look(city: str) -> str:
        await gate.wait()
        return city

    async def until_begun(peer: Peer) -> None:
        await gate.begun.wait()

    model = Model([("look", {"city": "Oslo"}), ("pay", {"city": "Rome"}), until_begun], ["Done."])
    tools = (function_tool(look, idempotent=True), function_tool(weather))
    gateway = await gateway_of(net, model, *tools)
    client, response = await gateway.stream({**M, "tools": [{"name": "pay"}]})
    while response.body.count(b'"tool.call",') < 2:
        assert await response.more()
    assert "tool.result" not in response.types
    gate.open.set()
    await response.rest()
    kinds = [(event["type"], event["call_id"]) for event in response.events if event["type"].startswith("tool")]
    first, second = "call_00", "call_01"
    assert kinds == [
        ("tool.call.start", first),
        ("tool.call.delta", first),
        ("tool.call", first),
        ("tool.call.start", second),
        ("tool.call.delta", second),
        ("tool.call", second),
        ("tool.result", first),
    ]
    assert [event["seq"] for event in response.events if "seq" in event] == [*range(1, len(response.events))]
    client.close()


@on_uvloop
async def test_a_failed_call_is_a_result(net: Net) -> None:
    def broken(city: str) -> str:
        raise ValueError("no such city")

    model = Model([("broken", {"city": "X"}), ("broken", {}), ("nothing", {}), ("broken", "[")], ["Sorry."])
    gateway = await gateway_of(net, model, function_tool(broken))
    response = await gateway.ask("POST", "/api/v1/stream", M)
    results = events_of(response, "tool.result")
    assert [result["is_error"] for result in results] == [True] * 4
    assert model.results() == [
        "ValueError: no such city",
        "the argument 'city' is missing",
        "there is no tool 'nothing'",
        "the arguments are no JSON object",
    ]
    assert response.text == "Sorry."


@on_uvloop
async def test_a_client_s_call_ends_the_run_behind_the_gateway_s(net: Net) -> None:
    model = Model(["Both. ", ("weather", {"city": "Oslo"}), ("mine", {"a": 1})], ["never"])
    gateway = await gateway_of(net, model, function_tool(weather))
    response = await gateway.ask("POST", "/api/v1/stream", {**M, "tools": [{"name": "mine"}]})
    assert [event.get("executed_by") for event in events_of(response, "tool.call")] == ["gateway", None]
    assert len(events_of(response, "tool.result")) == 1
    [finish] = events_of(response, "finish")
    assert finish["finish_reason"] == "tool_calls"
    assert len(model.asked) == 1


@on_uvloop
async def test_at_the_step_limit_a_last_turn_calls_nothing(net: Net) -> None:
    model = Model([("weather", {"city": "Oslo"})], [("weather", {"city": "Oslo"})], ["Enough."])
    gateway = await gateway_of(net, model, function_tool(weather), max_steps=2)
    response = await gateway.ask("POST", "/api/v1/stream", M)
    assert [event["reason"] for event in events_of(response, "warning")] == ["step_limit"]
    assert [body.get("tool_choice") for body in model.asked] == [None, None, "none"]
    assert response.text == "Enough."


@on_uvloop
async def test_a_tool_on_http_gets_each_call_once(net: Net) -> None:
    asked: list[web.Request] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request)
        return web.json_response({"celsius": 4})

    application = web.Application()
    application.router.add_post("/weather", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    net.stack.push_async_callback(runner.cleanup)
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/weather"
    model = Model([("outside", {"city": "Oslo"})], ["4 degrees."])
    gateway = await gateway_of(net, model, http_tool("outside", url))
    response = await gateway.ask("POST", "/api/v1/stream", M)
    assert events_of(response, "tool.result")[0]["tool_result"] == {"celsius": 4}
    assert [request.headers["x-gai-call-id"] for request in asked] == ["call_00"]


@on_both_loops
async def test_a_client_that_leaves_ends_the_running_calls_at_once(net: Net) -> None:
    gate = Gate()

    async def slow(city: str) -> str:
        await gate.wait()
        return city

    model = Model([("slow", {"city": "Oslo"})], ["never"])
    gateway = await gateway_of(net, model, function_tool(slow))
    client, _ = await gateway.stream(M)
    await gate.begun.wait()
    client.close()
    await gate.cancelled.wait()
    await until(lambda: not gateway.streams)
    assert len(model.asked) == 1


@on_uvloop
async def test_a_cancelled_run_ends_with_the_usage_of_its_turns(net: Net) -> None:
    gate = Gate()

    async def slow(city: str) -> str:
        await gate.wait()
        return city

    model = Model([("slow", {"city": "Oslo"})], ["never"])
    gateway = await gateway_of(net, model, function_tool(slow))
    client, response = await gateway.stream(M)
    await gate.begun.wait()
    [stream_id] = gateway.running.engine.streams
    gateway.running.engine.cancel(stream_id)
    await response.rest()
    await gate.cancelled.wait()
    [finish] = events_of(response, "finish")
    assert (finish["finish_reason"], finish["usage"]["total_tokens"]) == ("cancelled", 15)
    assert not events_of(response, "step.end")
    client.close()


@on_uvloop
async def test_a_run_whose_time_is_over_answers_with_what_it_has(net: Net) -> None:
    gate = Gate()

    async def slow(city: str) -> str:
        await gate.wait()
        return city

    model = Model([("slow", {"city": "Oslo"})], ["Too slow."])
    gateway = await gateway_of(net, model, function_tool(slow), run_timeout=0.1)
    response = await gateway.ask("POST", "/api/v1/stream", M)
    assert gate.cancelled.is_set()
    assert [event["reason"] for event in events_of(response, "warning")] == ["step_limit"]
    assert response.text == "Too slow."


@on_uvloop
async def test_a_chat_completion_is_a_run_too(net: Net) -> None:
    model = Model(["Look. ", ("weather", {"city": "Oslo"})], ["4 degrees."])
    gateway = await gateway_of(net, model, function_tool(weather))
    whole = await gateway.chat(stream=False)
    assert whole.status == 200
    [choice] = whole.json["choices"]
    assert choice["finish_reason"] == "stop"
    assert whole.json["usage"]["total_tokens"] == 30
    assert len(model.asked) == 2


@on_uvloop
async def test_every_route_and_format_may_be_a_run(net: Net) -> None:
    messages = [{"role": "user", "content": "How is it?"}]
    chat = {"model": "m", "messages": messages}
    routes: dict[str, tuple[str, dict[str, Any]]] = {
        "whole": ("/api/v1/stream", {**M, "stream": False}),
        "ndjson": ("/api/v1/stream?framing=ndjson", M),
        "simple": ("/api/v1/stream?format=simple", M),
        "agui": ("/api/v1/stream?format=agui", M),
        "vercel": ("/api/v1/stream?format=vercel", M),
        "resumable": ("/api/v1/stream", {**M, "resumable": True}),
        "chat": ("/v1/chat/completions", {**chat, "stream": True}),
        "messages": ("/v1/messages", {**chat, "max_tokens": 9, "stream": True}),
        "whole message": ("/v1/messages", {**chat, "max_tokens": 9}),
    }
    for route, (path, body) in routes.items():
        model = Model(["Look. ", ("weather", {"city": "Oslo"})], ["4 degrees."])
        gateway = await gateway_of(net, model, function_tool(weather))
        response = await gateway.ask("POST", path, body)
        assert response.status == 200, (route, response.body)
        assert b"degrees" in response.body, (route, response.body)
        assert len(model.asked) == 2, route


@on_uvloop
async def test_a_turn_that_fails_before_its_content_is_asked_again_in_silence(net: Net) -> None:
    cuts = iter([True, False])

    async def cut(peer: Any) -> None:
        if next(cuts):
            peer.reset()
            raise EOFError

    model = Model([("weather", {"city": "Oslo"})], [cut, "4 degrees."])
    gateway = await gateway_of(net, model, function_tool(weather), of_stream={"retries": 1})
    response = await gateway.ask("POST", "/api/v1/stream", M)
    assert (response.text, len(model.asked)) == ("4 degrees.", 3)
    assert "step.reset" not in response.types
    [finish] = events_of(response, "finish")
    assert finish["usage"]["total_tokens"] == 30


@on_uvloop
async def test_a_turn_that_breaks_within_its_content_is_void_alone(net: Net) -> None:
    cuts = iter([True, False])

    async def cut(peer: Any) -> None:
        if next(cuts):
            peer.reset()
            raise EOFError

    model = Model(["Look. ", ("weather", {"city": "Oslo"})], ["4 ", cut, "degrees."])
    options = {"retries": 1, "on_midstream_failure": "restart"}
    gateway = await gateway_of(net, model, function_tool(weather), of_stream=options)
    response = await gateway.ask("POST", "/api/v1/stream", M)
    assert [event["step"] for event in events_of(response, "step.reset")] == [2]
    assert [event["step"] for event in events_of(response, "step.start")] == [1, 2, 2]
    assert "stream.reset" not in response.types
    assert len(events_of(response, "tool.result")) == 1
    assert len(model.asked) == 3


@on_uvloop
async def test_a_turn_that_goes_on_repeats_nothing(net: Net) -> None:
    cuts = iter([True, False])

    async def cut(peer: Any) -> None:
        if next(cuts):
            peer.reset()
            raise EOFError

    model = Model(["Look. ", ("weather", {"city": "Oslo"})], ["4 ", cut, "degrees."])
    options = {"retries": 1, "on_midstream_failure": "continue"}
    gateway = await gateway_of(net, model, function_tool(weather), of_stream=options)
    response = await gateway.ask("POST", "/api/v1/stream", M)
    assert response.text == "Look. 4 degrees."
    assert "step.reset" not in response.types


@on_uvloop
async def test_a_turn_that_fails_for_good_ends_the_stream_with_its_error(net: Net) -> None:
    async def cut(peer: Any) -> None:
        peer.reset()
        raise EOFError

    model = Model(["Look. ", ("weather", {"city": "Oslo"})], [cut])
    gateway = await gateway_of(net, model, function_tool(weather))
    response = await gateway.ask("POST", "/api/v1/stream", M)
    [error] = events_of(response, "error")
    assert error["error"]["code"] == "network"
    assert error["usage"]["total_tokens"] == 15
    assert [event["step"] for event in events_of(response, "step.end")] == [1]
    whole = await gateway.ask("POST", "/api/v1/stream", {**M, "stream": False})
    assert whole.status == 502


@pytest.mark.parametrize("is_stream", [True, False])
@on_uvloop
async def test_a_run_that_fails_behind_a_call_keeps_its_key(net: Net, is_stream: bool) -> None:
    """The model has said nothing before the call: the failed answer has no content, but the call was made."""
    rung: list[int] = []

    async def ring() -> str:
        rung.append(1)
        return "rung"

    async def cut(peer: Any) -> None:
        peer.reset()
        raise EOFError

    gateway = await gateway_of(net, Model([("ring", "")], [cut]), function_tool(ring))
    client = await gateway.connect()
    said = [
        await client.ask("POST", "/api/v1/stream", {**M, "stream": is_stream}, {"idempotency-key": "k"}) for _ in "12"
    ]
    assert rung == [1]
    assert said[1].status == (200 if is_stream else 502)
    assert said[1].headers["idempotent-replayed"] == "true"


def claude(body: dict[str, Any], wait: Any) -> Any:
    """Returns the events of a turn of Anthropic's dialect: a call that is complete long before its turn, or a text."""
    usage = {"input_tokens": 10, "output_tokens": 5}
    yield {"type": "message_start", "message": {"id": "m", "role": "assistant", "model": "mock", "usage": usage}}
    if len(body["messages"]) > 1:
        yield {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
        yield {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Done."}}
    else:
        thinking = {"type": "thinking", "thinking": "", "signature": ""}
        yield {"type": "content_block_start", "index": 0, "content_block": thinking}
        yield {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Hm"}}
        yield {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "c2ln"}}
        yield {"type": "content_block_stop", "index": 0}
        call = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}
        yield {"type": "content_block_start", "index": 1, "content_block": call}
        part = {"type": "input_json_delta", "partial_json": json.dumps({"city": "Oslo"})}
        yield {"type": "content_block_delta", "index": 1, "delta": part}
        yield {"type": "content_block_stop", "index": 1}
        yield wait
        yield {"type": "content_block_start", "index": 2, "content_block": {"type": "text", "text": ""}}
        yield {"type": "content_block_delta", "index": 2, "delta": {"type": "text_delta", "text": "So."}}
    reason = "end_turn" if len(body["messages"]) > 1 else "tool_use"
    yield {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": 5}}
    yield {"type": "message_stop"}


@on_both_loops
async def test_idempotent_calls_begin_within_the_turn_and_signatures_go_back(net: Net) -> None:
    begun, asked = asyncio.Event(), []

    async def look(city: str) -> str:
        begun.set()
        return city

    async def handle(peer: Peer) -> None:
        while True:
            body = json.loads(await peer.request())
            asked.append(body)
            await peer.send(SSE_HEAD)
            for event in claude(body, None):
                if event is None:
                    await begun.wait()
                else:
                    await peer.send(chunk(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()))
            await peer.send(LAST_CHUNK)

    upstream = await net.upstream(handle)
    running = await start(with_tools(settings_for(upstream.url), function_tool(look, idempotent=True)))
    gateway = Gateway(net, running)
    net.gateways.append(gateway)
    net.stack.push_async_callback(running.close)
    response = await gateway.ask("POST", "/api/v1/stream", {**M, "model": "claude"})
    assert response.types.index("tool.result") < response.types.index("step.end")
    [_, said, result] = asked[1]["messages"]
    assert said["content"] == [
        {"type": "thinking", "thinking": "Hm", "signature": "c2ln"},
        {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"city": "Oslo"}},
        {"type": "text", "text": "So."},
    ]
    assert result["content"][0]["tool_use_id"] == "toolu_1"
    assert response.text == "So.Done."


@on_uvloop
async def test_a_turn_that_cannot_be_paid_ends_the_stream_behind_its_step(net: Net) -> None:
    price = Price(10**12, 10**12, 10**12, 10**12, 10**12)  # a millionth for a token
    limits = KeyLimits(spend=SpendLimit(40 * 10**6, "day"))
    key = KeySettings("may", (key_digest(MAY),), limits=limits, tools=("weather",))
    model = Model([("weather", {"city": "Oslo" * 100})], ["4 degrees."])
    gateway = await gateway_of(net, model, function_tool(weather), of_stream={"keys": (key,), "price": price})
    response = await gateway.ask("POST", "/api/v1/stream", {**M, "max_tokens": 5}, {"authorization": f"Bearer {MAY}"})
    [finish] = events_of(response, "finish")
    assert (finish["finish_reason"], finish["reason"]) == ("length", "spend")
    assert [step["step"] for step in finish["steps"]] == [1]
    assert response.types[-3:] == ["step.end", "finish", "done"]
    assert len(model.asked) == 1
    spent = await gateway.running.engine.ledger.spent("may", "day")
    assert spent == 15 * 10**6


@on_uvloop
async def test_each_turn_asks_for_its_tokens_and_ends_behind_its_step_without(net: Net) -> None:
    key = KeySettings("may", (key_digest(MAY),), limits=KeyLimits(tokens_per_minute=3000), tools=("weather",))
    model = Model(*[[("weather", {"city": "Oslo" * 500})]] * 8, ["never"])
    gateway = await gateway_of(net, model, function_tool(weather), of_stream={"keys": (key,)})
    response = await gateway.ask("POST", "/api/v1/stream", {**M, "max_tokens": 400}, {"authorization": f"Bearer {MAY}"})
    [finish] = events_of(response, "finish")
    assert (finish["finish_reason"], finish["reason"]) == ("length", "spend")
    assert response.types[-3:] == ["step.end", "finish", "done"]
    assert 1 < len(model.asked) < 8
    status = gateway.running.engine.ledger.limit_status(key)
    assert status is not None
    [tokens] = status.rates
    assert 3000 - tokens.remaining <= finish["usage"]["input_tokens"] + finish["usage"]["output_tokens"]


@on_uvloop
async def test_callers_that_are_ended_end_their_calls(net: Net) -> None:
    gate = Gate()

    async def slow(city: str) -> str:
        await gate.wait()
        return city

    key = KeySettings("may", (key_digest(MAY),), tools=("*",))
    model = Model([("slow", {"city": "Oslo"})], ["never"])
    gateway = await gateway_of(net, model, function_tool(slow), of_stream={"keys": (key,)})
    client, response = await gateway.stream(M, authorization=f"Bearer {MAY}")
    await gate.begun.wait()
    gateway.running.engine.end_callers({"may"}, "key_revoked", Error("forbidden", "revoked"))
    await gate.cancelled.wait()
    await response.rest()
    assert events_of(response, "finish")[0]["finish_reason"] == "cancelled"
    client.close()


@on_uvloop
async def test_guards_see_the_client_s_stream_and_the_model_its_own_words(net: Net) -> None:
    model = Model(["The kestrel flies. ", ("weather", {"city": "Oslo"})], ["A kestrel."])
    guard = GuardSettings("words", "words", words=("kestrel",), action="mask", on=("output",), replacement="[bird]")
    gateway = await gateway_of(net, model, function_tool(weather), of_stream={"guards": (guard,)})
    response = await gateway.ask("POST", "/api/v1/stream", M)
    assert response.text == "The [bird] flies. A [bird]."
    assert model.asked[1]["messages"][1]["content"] == "The kestrel flies. "
    assert response.types[-2:] == ["finish", "done"]
    assert len(events_of(response, "tool.result")) == 1


@on_uvloop
async def test_a_web_socket_carries_a_run(net: Net) -> None:
    model = Model(["Look. ", ("weather", {"city": "Oslo"})], ["4 degrees."])
    gateway = await gateway_of(net, model, function_tool(weather))
    socket = await connect(gateway)
    socket.ask("a", **M)
    kinds: list[str] = []
    while "done" not in kinds:
        message = await socket.read()
        assert message is not None
        kinds.append(message["type"])
    assert kinds.count("step.end") == 2
    assert "tool.result" in kinds


@on_uvloop
async def test_a_run_that_goes_on_nowhere_keeps_no_state(net: Net) -> None:
    kept: list[bytes | None] = []

    async def look(city: str) -> str:
        stream_id = next(iter(gateway.running.engine.streams))
        await asyncio.sleep(0.05)  # states are kept beside the run
        kept.append(await gateway.running.engine.store.records.get("run", stream_id))
        return city

    model = Model([("look", {"city": "Oslo"})], [("look", {"city": "Rome"})], ["Done."])
    gateway = await gateway_of(net, model, function_tool(look, idempotent=True))
    response = await gateway.ask("POST", "/api/v1/stream", {**M, "resumable": True})
    assert (response.text, kept) == ("Done.", [None, None])


@on_both_loops
async def test_copied_deltas_are_part_of_the_conversation(net: Net) -> None:
    words = [f"word {number} ü " for number in range(300)]
    model = Model([*words, ("weather", {"city": "Oslo"})], words)
    gateway = await gateway_of(net, model, function_tool(weather))
    for path in ("/api/v1/stream", "/api/v1/stream?envelope=full"):
        response = await gateway.ask("POST", path, M)
        assert response.text == 2 * "".join(words)
        assert model.asked[-1]["messages"][1]["content"] == "".join(words)
        numbers = [event["seq"] for event in response.events if "seq" in event]
        assert numbers == [*range(1, len(response.events))]


@on_uvloop
async def test_without_prices_or_keys_a_hundred_runs_at_once_end_well(net: Net) -> None:
    model = Model(["Look. ", ("weather", {"city": "Oslo"})], [("weather", {"city": "Rome"})], ["4 degrees."])
    gateway = await gateway_of(net, model, function_tool(weather, max_calls=8))
    answers = await asyncio.gather(*[gateway.ask("POST", "/api/v1/stream", M) for _ in range(100)])
    assert {response.text for response in answers} == {"Look. 4 degrees."}
    assert {len(events_of(response, "tool.result")) for response in answers} == {2}
    assert {response.types[-1] for response in answers} == {"done"}


@on_uvloop
async def test_runs_that_go_on_at_once_leave_turns_of_the_loop_to_others(net: Net) -> None:
    gate = asyncio.Event()

    async def look(city: str) -> str:
        begun.append(city)
        await gate.wait()
        return city

    begun: list[str] = []
    model = Model([("look", {"city": "Oslo"})], ["Done."])
    gateway = await gateway_of(net, model, function_tool(look, max_calls=100, idempotent=True))
    runs = [asyncio.create_task(gateway.ask("POST", "/api/v1/stream", M)) for _ in range(100)]
    await until(lambda: len(begun) == 100)
    gate.set()
    await gateway.ask("POST", "/api/v1/stream", {**M, "gateway_tools": []})
    asked = [("tools" not in body, len(body["messages"])) for body in model.asked]
    assert asked.index((True, 1)) < 200  # before that of the last run
    assert {(await run).text for run in runs} == {"Done."}


@on_uvloop
async def test_a_server_out_of_reach_offers_nothing(net: Net) -> None:
    server = ToolServerSettings("docs", Secret("http://127.0.0.1:1/mcp"), connect_timeout=0.5)
    model = Model(["As I am. ", ("docs__a", {})], ["Done."])
    gateway = await gateway_of(net, model, server)
    response = await gateway.ask("POST", "/api/v1/stream", M)
    assert response.text == "As I am. Done."
    assert model.results() == ["there is no tool 'docs__a'"]
    assert net.warned("there is no list")


@on_uvloop
async def test_numbers_that_json_has_no_form_for_are_errors_of_their_calls(net: Net, tmp_path: Path) -> None:
    """Also where the run is kept: a state with one could not be written."""

    def endless(city: Any) -> Any:
        """The weather of a city."""
        return math.inf

    model = Model([("endless", '{"city": 1e999}'), ("endless", '{"city": "Oslo"}')], ["Done."])
    store = StoreSettings(url=f"sqlite:///{tmp_path}/store.db")
    gateway = await gateway_of(net, model, function_tool(endless), of_gateway={"store": store})
    response = await gateway.ask("POST", "/api/v1/stream", {**M, "resumable": True})
    check_legal(response.events)
    assert response.types[-2:] == ["finish", "done"]
    assert [event["is_error"] for event in events_of(response, "tool.result")] == [True, True]
    assert len(model.results()) == 2


@on_uvloop
async def test_thoughts_that_a_model_refuses_are_sent_once(net: Net) -> None:
    """Those of the run's own stay: Anthropic refuses the result of a call whose thoughts are gone."""
    asked: list[str] = []
    called = messages_reader.streamed(
        {"type": "reasoning.delta", "text": "Hm"},
        {"type": "reasoning.signature", "signature": "b3du", "block": 0},
        call_start(),
        call(),
        finish("tool_calls"),
        DONE,
        start=messages_reader.CLAUDE,
    )

    async def handler(peer: Peer) -> None:
        while True:
            asked.append((await peer.request()).decode())
            if "b3RoZXI=" in asked[-1]:
                error = {"type": "invalid_request_error", "message": "Invalid `signature` in `thinking` block"}
                await peer.answer("400 Bad Request", json.dumps({"error": error}).encode())
            else:
                await peer.send(SSE_HEAD, chunk(called), LAST_CHUNK)

    upstream = await net.upstream(handler)
    settings = settings_for(upstream.url, retries=1)
    running = await start(with_tools(settings, function_tool(weather), max_steps=3))
    net.stack.push_async_callback(running.close)
    net.gateways.append(Gateway(net, running))
    thought = [{"type": "reasoning", "text": "Hm", "signature": "b3RoZXI="}, {"type": "text", "text": "4"}]
    messages = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": thought}]
    body = {"model": "claude", "messages": [*messages, {"role": "user", "content": "And the weather?"}]}
    response = await net.gateways[-1].ask("POST", "/api/v1/stream", body)
    assert response.types[-2:] == ["finish", "done"]
    assert ["b3RoZXI=" in each for each in asked] == [True, False, False, False, False]
    assert [each.count("b3du") for each in asked] == [0, 0, 1, 2, 3]
    assert [event["reason"] for event in events_of(response, "warning")] == ["request_changed", "step_limit"]


@on_uvloop
async def test_a_run_that_waits_for_a_list_while_the_configuration_changes(net: Net) -> None:
    """The tools that it was offered are closed before it begins."""

    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"celsius": 4})

    silent = asyncio.Event()

    async def say_nothing(peer: Peer) -> None:
        await peer.request()
        silent.set()
        await peer.request()

    application = web.Application()
    application.router.add_post("/weather", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    net.stack.push_async_callback(runner.cleanup)
    outside = http_tool("outside", f"http://127.0.0.1:{runner.addresses[0][1]}/weather")
    slow = ToolServerSettings("slow", url=Secret((await net.upstream(say_nothing)).url), connect_timeout=1)
    model = Model([("outside", {"city": "Oslo"})], ["4 degrees."])
    gateway = await gateway_of(net, model, outside, slow)
    asking = asyncio.create_task(gateway.ask("POST", "/api/v1/stream", M))
    await silent.wait()
    gateway.running.service.use(with_tools(gateway.running.engine.settings, outside))
    assert [event["tool_result"] for event in events_of(await asking, "tool.result")] == [{"celsius": 4}]
