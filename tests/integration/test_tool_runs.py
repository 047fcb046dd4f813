"""Runs over real sockets: turns, calls and results in one stream, and every way in which one ends."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from tests.integration.gateway import M, Net, Response, on_both_loops, on_uvloop
from tests.integration.tool_runs import Gate, Model, function_tool, gateway_of, http_tool
from tests.waiting import until


def weather(city: str) -> dict[str, Any]:
    """The weather of a city."""
    return {"city": city, "celsius": 4}


def events_of(response: Response, *kinds: str) -> list[dict[str, Any]]:
    return [event for event in response.events if event["type"] in kinds]


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
        "the arguments do not fit: Object missing required field `city`",
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
async def test_what_a_request_may_use(net: Net) -> None:
    model = Model([("weather", {"city": "Oslo"})], ["4 degrees."])
    gateway = await gateway_of(net, model, function_tool(weather))
    refused = await gateway.ask("POST", "/api/v1/stream", {**M, "gateway_tools": ["docs.*"]})
    assert (refused.status, refused.error["reason"]) == (400, "tools")
    named = await gateway.ask("POST", "/api/v1/stream", {**M, "tools": [{"name": "weather"}]})
    assert (named.status, named.error["reason"]) == (400, "tool_name")
    raw = await gateway.ask("POST", "/api/v1/stream?format=raw", M)
    assert (raw.status, raw.error["reason"]) == (400, "format")
    several = await gateway.chat(n=2)
    assert several.status == 400, several.body
    assert "one answer" in several.error["message"]
    none = await gateway.ask("POST", "/api/v1/stream", {**M, "gateway_tools": []})
    assert "step.start" not in none.types
    assert "tools" not in model.asked[-1]


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
