"""Runs as operators see them: figures, spans and lines of calls. OpenTelemetry's and Prometheus's own readers judge."""

from __future__ import annotations

import asyncio
import logging
import re

import pytest
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.gateway import Gateway, M, Net, on_uvloop
from tests.integration.test_otel import TRACE, TRACED, hexed, receiver_of, to
from tests.integration.tool_runs import Gate, Model, function_tool, gateway_of, http_tool
from tests.otlp import read
from tests.waiting import until

INTERNAL = 1
LABELS = "server", "outcome", "tool"


def weather(city: str) -> str:
    """The weather of a city."""
    if city == "Nowhere":
        raise ValueError("canary: no such city")
    return f"canary of {city}"


async def figures(gateway: Gateway) -> dict[str, float]:
    """Returns what a scrape has of runs, by name and labels."""
    text = (await gateway.ask("GET", "/metrics")).body.decode()
    return {
        " ".join(
            [each.name.removeprefix("gai_fast_"), *(each.labels[name] for name in LABELS if name in each.labels)]
        ): each.value
        for family in text_string_to_metric_families(text)
        if re.match("gai_fast_(tool_|run)", family.name)
        for each in family.samples
    }


@on_uvloop
async def test_each_call_is_counted_once_by_its_outcome(net: Net, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gai_fast.tools")
    calls = [("weather", {"city": "Oslo"}), ("weather", {"city": "Nowhere"}), ("canary", {}), ("pay", {"city": "X"})]
    gateway = await gateway_of(net, Model(calls, ["Done."]), function_tool(weather), function_tool(pay, approve=True))
    before = await figures(gateway)
    assert before["tool_calls_total gateway ok weather"] == 0, "a rate sees the first call"
    response = await gateway.ask("POST", "/api/v1/stream", {**M, "approvals": "deny"}, {"x-request-id": "mine"})
    assert response.types[-1] == "done"
    seen = await figures(gateway)
    counted = {name: value for name, value in seen.items() if name.startswith("tool_calls") and value}
    assert counted == {
        "tool_calls_total gateway ok weather": 1,
        "tool_calls_total gateway error weather": 1,
        "tool_calls_total gateway denied pay": 1,
        "tool_calls_total  error unknown": 1,
    }
    assert seen["tool_duration_seconds_count gateway"] == 2, "of calls that were made"
    assert (seen["run_steps_count"], seen["run_steps_sum"], seen["runs_waiting"]) == (1, 2, 0)
    lines = [record.msg.fields for record in caplog.records if hasattr(record.msg, "fields")]
    assert sorted((line["tool"], line["outcome"], line["attempt"]) for line in lines) == [
        ("pay", "denied", 0), ("unknown", "error", 0), ("weather", "error", 1), ("weather", "ok", 1),
    ]  # fmt: skip
    assert {(line["msg"], line["request_id"], line["step"], line["key"]) for line in lines} == {
        ("tool", "mine", 1, "anonymous")
    }
    assert len({line["call_id"] for line in lines}) == 4
    assert "canary" not in caplog.text, "no arguments, no results, no words of the model"


def pay(city: str) -> str:
    """Pays."""
    return city


@on_uvloop
async def test_a_call_that_is_late_or_ended_has_its_own_outcome(net: Net) -> None:
    gate = Gate()

    async def slow(city: str) -> str:
        await gate.wait()
        return city

    model = Model([("slow", {"city": "Oslo"})], ["Done."])
    gateway = await gateway_of(net, model, function_tool(slow, timeout=0.05))
    await gateway.ask("POST", "/api/v1/stream", M)
    assert (await figures(gateway))["tool_calls_total gateway timeout slow"] == 1
    gateway = await gateway_of(net, model, function_tool(slow), run_timeout=0.05)
    await gateway.ask("POST", "/api/v1/stream", M)
    assert {name: n for name, n in (await figures(gateway)).items() if n and name.startswith("tool_calls")} == {
        "tool_calls_total gateway timeout slow": 1
    }
    gateway = await gateway_of(net, model, function_tool(slow))
    gate.begun.clear()
    client, _ = await gateway.stream(M)
    await gate.begun.wait()
    client.close()
    async with asyncio.timeout(5):
        while not (seen := await figures(gateway))["tool_calls_total gateway unknown slow"]:  # noqa: ASYNC110  # a scrape
            await asyncio.sleep(0.01)
    assert seen["tool_duration_seconds_count gateway"] == seen["run_steps_count"] == 1


@on_uvloop
async def test_runs_that_wait_for_a_person_are_a_gauge(net: Net) -> None:
    model = Model([("pay", {"city": "Oslo"})], ["Done."])
    gateway = await gateway_of(net, model, function_tool(pay, approve=True))
    client, response = await gateway.stream(M)
    await response.until(b'"digest"')
    await response.until(b"}}")
    assert (await figures(gateway))["runs_waiting"] == 1
    [asked] = [event["approval"] for event in response.events if event["type"] == "approval.required"]
    path = f"/api/v1/streams/{response.headers['x-gai-stream-id']}/approvals/{asked['id']}"
    decided = await gateway.ask("POST", path, {"decision": "approve", "digest": asked["digest"]})
    assert decided.status == 200
    await response.rest()
    seen = await figures(gateway)
    assert (seen["runs_waiting"], seen["tool_calls_total gateway ok pay"]) == (0, 1)
    client.close()


@pytest.mark.parametrize("path", ["/api/v1/stream", "/v1/chat/completions"])
@on_uvloop
async def test_a_tool_gets_the_callers_trace_if_the_gateway_traces_nothing(net: Net, path: str) -> None:
    got: list[str | None] = []

    async def rain(request: web.Request) -> web.Response:
        got.append(request.headers.get("traceparent"))
        return web.json_response("canary")

    runner = web.AppRunner(web.Application())
    runner.app.router.add_post("/rain", rain)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    net.stack.push_async_callback(runner.cleanup)
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/rain"
    model = Model([("rain", {"city": "X"})], ["So."])
    gateway = await gateway_of(net, model, http_tool("rain", url))
    body = M if path == "/api/v1/stream" else {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
    for headers in (TRACED, {}):
        await gateway.ask("POST", path, body, headers)
    assert got == [TRACED["traceparent"], None]


@on_uvloop
async def test_a_call_has_a_span_and_its_tool_the_trace(net: Net) -> None:
    receiver = await receiver_of(net)
    requests: list[str] = []

    async def rain(request: web.Request) -> web.Response:
        requests.append(request.headers["traceparent"])
        return web.json_response("canary")

    runner = web.AppRunner(web.Application())
    runner.app.router.add_post("/rain", rain)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    net.stack.push_async_callback(runner.cleanup)
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/rain"
    model = Model([("weather", {"city": "Oslo"}), ("weather", {"city": "Nowhere"}), ("rain", {"city": "X"})], ["So."])
    tools = function_tool(weather), http_tool("rain", url)
    gateway = await gateway_of(net, model, *tools, of_gateway={"otel": to(receiver)})
    await gateway.ask("POST", "/api/v1/stream", M, TRACED)
    await until(lambda: len(receiver.spans) == 6)
    [server] = receiver.servers
    calls = [span for span in receiver.spans if span.kind == INTERNAL]
    assert {(hexed(span.trace_id), span.parent_span_id) for span in calls} == {(TRACE, server.span_id)}
    assert sorted(span.name for span in calls) == ["execute_tool rain", *["execute_tool weather"] * 2]
    about = {(read(span.attributes)["gen_ai.tool.call.id"]): read(span.attributes) for span in calls}
    assert about["call_00"] == {
        "gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "weather", "gen_ai.tool.type": "extension",
        "gen_ai.tool.call.id": "call_00", "gai.tool.server": "gateway", "gai.step": 1, "gai.tool.attempt": 1,
    }  # fmt: skip
    assert about["call_01"]["error.type"] == "error"
    [raining] = [span for span in calls if span.name.endswith("rain")]
    assert requests == [f"00-{TRACE}-{hexed(raining.span_id)}-01"]
    first, second = receiver.clients
    assert first.end_time_unix_nano <= min(span.start_time_unix_nano for span in calls), "a turn ends before its calls"
    ends = [read(span.attributes) for span in (first, second)]
    assert [end["gen_ai.response.finish_reasons"] for end in ends] == [["tool_calls"], ["stop"]]
    assert [end["gen_ai.usage.output_tokens"] for end in ends] == [5, 5], "of each turn, not of the run"
    assert not any(b"canary" in span.SerializeToString() for span in receiver.spans)
