"""`net/runs/offers.py` over real sockets: which requests are runs, and what these offer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gai_fast import Gateway as LibraryGateway
from gai_fast import ToolMeta, tool
from gai_fast.model.settings import (
    KeyLimits,
    KeySettings,
    Secret,
    ToolServerSettings,
    key_digest,
)
from gai_fast.model.tool_rules import AllowedTools
from tests.conftest import ChangeLimits
from tests.integration.gateway import (
    OPENAI,
    M,
    Net,
    Peer,
    Response,
    on_both_loops,
    on_uvloop,
    settings_for,
)
from tests.integration.mcp_servers import ScriptedServer, reply, said, send, started
from tests.integration.tool_runs import Gate, Model, function_tool, gateway_of, with_tools
from tests.waiting import until

PEER = Path(__file__).parent / "mcp_peer.py"
MAY, NOT = "sk-canary-may-0123456", "sk-canary-not-0123456"


def weather(city: str) -> dict[str, Any]:
    """The weather of a city."""
    return {"city": city, "celsius": 4}


def events_of(response: Response, *kinds: str) -> list[dict[str, Any]]:
    return [event for event in response.events if event["type"] in kinds]


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
    many = await gateway.ask("POST", "/api/v1/stream", {**M, "gateway_tools": ["weather"] * 129})
    assert (many.status, many.error["reason"]) == (400, "validation")
    none = await gateway.ask("POST", "/api/v1/stream", {**M, "gateway_tools": []})
    assert "step.start" not in none.types
    assert "tools" not in model.asked[-1]


@on_uvloop
async def test_a_response_offers_what_it_names(net: Net) -> None:
    model = Model(["Look. ", ("weather", {"city": "Oslo"})], ["4 degrees."])
    gateway = await gateway_of(net, model, function_tool(weather))
    plain = {"model": "m", "input": "Hello", "stream": True}
    response = await gateway.ask("POST", "/v1/responses", plain)
    assert "tools" not in model.asked[-1]
    named = {**plain, "tools": [{"type": "mcp", "server_label": "gateway", "allowed_tools": ["weather"]}]}
    response = await gateway.ask("POST", "/v1/responses", named)
    assert response.status == 200, response.body
    assert [tool["function"]["name"] for tool in model.asked[-1]["tools"]] == ["weather"]
    assert json.loads(model.results()[0])["city"] == "Oslo"
    assert response.events[-1]["type"] == "response.completed"
    other = {**plain, "tools": [{"type": "mcp", "server_label": "docs"}]}
    refused = await gateway.ask("POST", "/v1/responses", other)
    assert refused.status == 400
    asks = {**plain, "tools": [{"type": "mcp", "server_label": "gateway", "require_approval": "always"}]}
    response = await gateway.ask("POST", "/v1/responses", asks)
    assert response.events[-1]["response"]["output"][-1]["type"] == "mcp_approval_request"
    await gateway.ask("POST", "/v1/responses", asks, {"x-gai-approvals": "deny"})
    assert "approval" in model.results()[0]


@on_uvloop
async def test_a_real_server_of_tools_is_called_with_its_progress(net: Net) -> None:
    command = (sys.executable, str(PEER))
    server = ToolServerSettings("docs", command=command, inherited=dict(os.environ), connect_timeout=60.0)
    calls = [("docs__steps", {"count": 2}), ("docs__add", {"a": 1, "b": 2}), ("docs__fails", {})]
    model = Model(calls, [("docs__picture", {})], ["Three."])
    gateway = await gateway_of(net, model, server)
    response = await gateway.ask("POST", "/api/v1/stream", M)
    results = events_of(response, "tool.result")
    values = {event["call_id"]: event.get("tool_result") for event in results}
    assert (values["call_00"], values["call_01"]) == ({"result": "done"}, {"result": 3})
    assert {event["server"] for event in events_of(response, "tool.call")} == {"docs"}
    assert [event["progress"] for event in events_of(response, "tool.progress")] == [0, 1]
    assert [event.get("is_error", False) for event in sorted(results[:3], key=lambda each: each["call_id"])] == [
        False,
        False,
        True,
    ]
    assert results[3]["parts"][0]["type"] == "image"
    assert response.text == "Three."
    allowed = await gateway.ask("POST", "/api/v1/stream", {**M, "gateway_tools": ["docs.add"]})
    assert [tool["function"]["name"] for tool in model.asked[-1]["tools"]] == ["docs__add"]
    assert "there is no tool" in str(events_of(allowed, "tool.result"))


@on_uvloop
async def test_a_name_that_no_list_has_is_refused(net: Net) -> None:
    """A repeated request is answered as before, whatever the lists have since."""
    command = (sys.executable, str(PEER))
    server = ToolServerSettings("docs", command=command, inherited=dict(os.environ), connect_timeout=60.0)
    gone = ToolServerSettings("gone", command=("no-such-command",))
    gateway = await gateway_of(net, Model(["Done."]), server, gone)
    for patterns in (["docs.ad"], ["docs.add", "docs.z*"]):
        refused = await gateway.ask("POST", "/api/v1/stream", {**M, "gateway_tools": patterns})
        assert (refused.status, refused.error["reason"]) == (400, "tools"), patterns
        assert patterns[-1] in refused.error["message"]
    other = await gateway.ask("POST", "/api/v1/stream", {**M, "gateway_tools": ["dogs.*"]})
    assert other.error["message"].endswith("may use: no [[tool_server]] or [[tool]] is named so")
    named = {"type": "mcp", "server_label": "docs", "allowed_tools": ["ad"]}
    refused = await gateway.ask("POST", "/v1/responses", {"model": "m", "input": "Hello", "tools": [named]})
    assert (refused.status, "'docs.ad'" in refused.error["message"]) == (400, True)
    unknown = await gateway.ask("POST", "/api/v1/stream", {**M, "gateway_tools": ["docs.add", "gone.any"]})
    assert (unknown.text, net.warned("there is no list")) == ("Done.", 1)
    again, key = {**M, "gateway_tools": ["docs.add"]}, {"idempotency-key": "k"}
    first = await gateway.ask("POST", "/api/v1/stream", again, key)
    tools = gateway.running.engine.run_tools
    assert tools is not None
    tools._held.toolbox.unknown = lambda patterns, allowed: patterns[0]  # type: ignore[method-assign]  # lists change
    assert (await gateway.ask("POST", "/api/v1/stream", again)).status == 400
    assert (await gateway.ask("POST", "/api/v1/stream", again, key)).events == first.events


@on_uvloop
async def test_a_header_that_is_no_answer_is_refused_if_nobody_would_be_asked(net: Net) -> None:
    gateway = await gateway_of(net, Model(["Done."]), function_tool(weather))
    for path, body in (("/api/v1/stream", M), ("/v1/chat/completions", OPENAI)):
        refused = await gateway.ask("POST", path, body, {"x-gai-approvals": "maybe"})
        assert (refused.status, "x-gai-approvals" in refused.error["message"]) == (400, True), path


@on_uvloop
async def test_a_key_must_allow_the_tools_and_one_request_is_counted(net: Net) -> None:
    limits = KeyLimits(requests_per_minute=1)
    keys = (
        KeySettings("may", (key_digest(MAY),), limits=limits, tools=("weather",)),
        KeySettings("not", (key_digest(NOT),)),
    )
    model = Model([("weather", {"city": "Oslo"})], [("weather", {"city": "Oslo"})], ["4 degrees."])
    gateway = await gateway_of(net, model, function_tool(weather), of_stream={"keys": keys})
    plain = await gateway.ask("POST", "/api/v1/stream", M, {"authorization": f"Bearer {NOT}"})
    assert ("step.start" in plain.types, len(model.asked)) == (False, 1)
    named = {**M, "gateway_tools": ["weather"]}
    refused = await gateway.ask("POST", "/api/v1/stream", named, {"authorization": f"Bearer {NOT}"})
    assert (refused.status, refused.error["reason"]) == (400, "tools")
    assert "its key may use none: set `tools` of its [[key]]" in refused.error["message"]
    run = await gateway.ask("POST", "/api/v1/stream", M, {"authorization": f"Bearer {MAY}"})
    assert (run.text, len(model.asked)) == ("4 degrees.", 4)
    again = await gateway.ask("POST", "/api/v1/stream", M, {"authorization": f"Bearer {MAY}"})
    assert again.status == 429


@on_uvloop
async def test_many_patterns_are_compared_beside_the_loop_and_only_if_no_limit_refuses(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []

    class Noted(AllowedTools):
        def __contains__(self, address: str) -> bool:
            threads.append(threading.current_thread())
            return super().__contains__(address)

    key = KeySettings("may", (key_digest(MAY),), limits=KeyLimits(requests_per_minute=2), tools=("weather", "docs.*"))
    server = ScriptedServer(answer_nothing, *({"name": f"t{n}", "inputSchema": {"type": "object"}} for n in range(9)))
    docs = ToolServerSettings("docs", url=Secret((await started(net, server)).url))
    gateway = await gateway_of(net, Model(["Done."]), function_tool(weather), docs, of_stream={"keys": (key,)})
    head = {"authorization": f"Bearer {MAY}"}
    assert (await gateway.ask("POST", "/api/v1/stream", M, head)).text == "Done."
    many = {**M, "gateway_tools": ["docs.t*", *(f"docs.*{n}*" for n in range(9))]}
    monkeypatch.setattr("gai_fast.net.runs.offers.AllowedTools", Noted)
    assert (await gateway.ask("POST", "/api/v1/stream", many, head)).text == "Done."
    beside = [each for each in threads if each is not threading.main_thread()]
    assert len(beside) >= 9
    threads.clear()
    assert (await gateway.ask("POST", "/api/v1/stream", many, head)).status == 429
    assert all(each is threading.main_thread() for each in threads), "no list was compared"


@on_uvloop
async def test_the_session_of_a_run_ends_with_it_and_callers_meet_in_none(net: Net) -> None:
    async def answer(peer: Peer, message: dict[str, Any]) -> None:
        [session] = [line for line in server.heads[-1].splitlines() if line.startswith("mcp-session-id")]
        await send(peer, reply(message, said(session)))

    keys = [KeySettings(name, (key_digest(secret),), tools=("*.*",)) for name, secret in (("a", MAY), ("b", NOT))]
    for kind, ends in (("run", 2), ("caller", 0)):
        server = ScriptedServer(answer, session="2025-06-18")
        docs = ToolServerSettings("docs", url=Secret((await started(net, server)).url), session=kind)
        model = Model([("docs__t", {})], [("docs__t", {})], ["Done."])
        gateway = await gateway_of(net, model, docs, of_stream={"keys": tuple(keys)})
        met = []
        for secret in (MAY, NOT):
            run = await gateway.ask("POST", "/api/v1/stream", M, {"authorization": f"Bearer {secret}"})
            met.append({event["tool_result"] for event in events_of(run, "tool.result")})
        assert [len(each) for each in met] == [1, 1]
        assert not met[0] & met[1], kind
        await until(lambda server=server, ends=ends: server.asked.count("DELETE") == ends)


async def answer_nothing(peer: Peer, message: dict[str, Any]) -> None:
    raise AssertionError(message)


@on_uvloop
async def test_what_few_wishes_offer_is_remembered(net: Net, change_limits: ChangeLimits) -> None:
    """What is remembered has all tools, and eight times as they are written: a caller may ask for all of these."""
    change_limits(run_offers=2)
    secrets = [f"sk-canary-{number}-0123456" for number in range(4)]
    keys = tuple(
        KeySettings(f"k{number}", (key_digest(secret),), tools=("weather", f"docs{number}.*"))
        for number, secret in enumerate(secrets)
    )
    model = Model(["So."], ["So."], ["So."], ["So."], ["So."])
    gateway = await gateway_of(net, model, function_tool(weather), of_stream={"keys": keys})
    for secret in (*secrets, secrets[0]):
        run = await gateway.ask("POST", "/api/v1/stream", M, {"authorization": f"Bearer {secret}"})
        assert "step.start" in run.types
        assert [tool["function"]["name"] for tool in model.asked[-1]["tools"]] == ["weather"]
    tools: Any = gateway.running.engine.run_tools
    wishes = [wish for _, wish in tools._wishes.values()]
    assert [wish.known is not None for wish in wishes] == [True, False, False, True]


@on_uvloop
async def test_what_a_wish_offers_is_remembered_however_often_its_lists_change(
    net: Net, change_limits: ChangeLimits
) -> None:
    change_limits(run_offers=2)
    gateway = await gateway_of(net, Model(*[["So."]] * 5), function_tool(weather))
    tools: Any = gateway.running.engine.run_tools
    for _ in range(5):
        assert "step.start" in (await gateway.ask("POST", "/api/v1/stream", M)).types
        (wish,) = [wish for _, wish in tools._wishes.values()]
        assert wish.known is not None
        known = tools._held.toolbox._lists["weather"]
        known._list = replace(known._list)  # read again


@on_both_loops
async def test_a_program_gives_functions_to_its_gateway(net: Net) -> None:
    seen: list[ToolMeta] = []

    @tool(idempotent=True)
    async def forecast(city: str, meta: ToolMeta) -> str:
        """The forecast."""
        seen.append(meta)
        return f"rain in {city}"

    model = Model(["Look. ", ("forecast", {"city": "Oslo"})], ["Rain."])
    upstream = await net.upstream(model.handle)
    async with LibraryGateway(settings_for(upstream.url), tools=[forecast]) as gateway:
        async with gateway.stream(M) as stream:
            events = [event async for event in stream]
        async with gateway.stream(M) as stream:
            result = await stream.result()
    assert [event["type"] for event in events if event["type"].startswith("step")] == ["step.start", "step.end"] * 2
    assert model.results(1) == ["rain in Oslo"]
    assert (seen[0].step, seen[0].call_id, seen[0].attempt) == (1, "call_00", 1)
    assert result.text == "Look. Rain."


def test_a_gateway_without_tools_imports_nothing_of_them() -> None:
    code = (
        "import asyncio, sys\n"
        "from gai_fast.config import load\n"
        "from gai_fast.server.serving import start\n"
        "async def main():\n"
        "    running = await start(load(None, environ={'GAI_FAST_SERVER__PORT': '0'}))\n"
        "    await running.close()\n"
        "asyncio.run(main())\n"
        "of_runs = tuple(f'gai_fast.net.runs.{name}' for name in ('driver', 'guards', 'offers'))\n"
        "print([name for name in sys.modules if name.startswith(('gai_fast.net.tool', *of_runs))])\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout.strip() == "[]"


@on_uvloop
async def test_a_run_keeps_its_tools_when_the_configuration_changes(net: Net) -> None:
    gate = Gate()

    async def slow(city: str) -> str:
        await gate.wait()
        return city

    model = Model([("slow", {"city": "Oslo"})], ["Done."])
    gateway = await gateway_of(net, model, function_tool(slow))
    client, response = await gateway.stream(M)
    await gate.begun.wait()
    settings = gateway.running.engine.settings
    gateway.running.service.use(with_tools(settings, function_tool(weather)))
    gate.open.set()
    await response.rest()
    assert (response.text, model.results()) == ("Done.", ["Oslo"])
    other = await gateway.ask("POST", "/api/v1/stream", M)
    assert [tool["function"]["name"] for tool in model.asked[-1]["tools"]] == ["weather"]
    assert "there is no tool 'slow'" in str(events_of(other, "tool.result"))
    gateway.running.service.use(with_tools(settings))
    plain = await gateway.ask("POST", "/api/v1/stream", M)
    assert "step.start" not in plain.types
    client.close()
