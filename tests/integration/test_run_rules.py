"""Rules of streams that hold for each turn of a run or for all of them, and what reloads and clocks change for runs."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gai_fast import Gateway as LibraryGateway
from gai_fast import tool
from gai_fast.model.settings import (
    CacheSettings,
    KeySettings,
    RunSettings,
    Secret,
    TargetSettings,
    ToolServerSettings,
    key_digest,
)
from gai_fast.net.limits import LIMITS
from gai_fast.runtime.clock import SOURCE, now_ms
from gai_fast.server.serving import start
from tests.integration.certificates import Authority
from tests.integration.gateway import Gateway, M, Net, Peer, Response, on_both_loops, on_uvloop, settings_for
from tests.integration.mcp_servers import ScriptedServer, reply, said, send, started
from tests.integration.rpc import serving_rpc
from tests.integration.test_http_tool import KEY
from tests.integration.test_issuers import bearer, site_of
from tests.integration.test_run_approvals import ASK, Run, gateway_that_asks, last, made
from tests.integration.test_run_approvals import nothing_is_made as nothing_is_made
from tests.integration.test_waiting_runs import is_listed, parked
from tests.integration.tool_runs import Model, function_tool, gateway_of, http_tool, with_tools
from tests.issuer import issuer
from tests.legal import check_legal

OSLO = {"city": "Oslo"}
WORD = "sk-canary-of-the-caller"


class Looker:
    """A function that notes its calls."""

    def __init__(self) -> None:
        self.journal: list[str] = []

    def tool(self, **options: Any) -> Any:
        async def look(city: str) -> str:
            self.journal.append(city)
            return city

        return function_tool(look, **options)


async def gateway_with(net: Net, settings: Any) -> Gateway:
    running = await start(settings)
    net.stack.push_async_callback(running.close)
    net.gateways.append(Gateway(net, running))
    return net.gateways[-1]


def finish_of(response: Response) -> dict[str, Any]:
    [finish] = [event for event in response.events if event["type"] == "finish"]
    return finish


@on_uvloop
async def test_a_call_of_an_attempt_that_lost_is_not_made(net: Net) -> None:
    """It is idempotent: it begins within its turn, once the attempt has won."""
    go_on = asyncio.Event()

    async def hold(_: Peer) -> None:
        if len(slow.asked) == 1:
            await go_on.wait()

    slow, fast = Model([hold, ("look", {"city": "Rome"})], ["Late."]), Model([("look", OSLO)], ["Done."])
    first, second = await net.upstream(slow.handle), await net.upstream(fast.handle)
    settings, looker = settings_for(first.url), Looker()
    up = settings.upstreams["up"]
    other = replace(up, name="other", base_url=f"{second.url}/v1")
    targets = (TargetSettings(up, "mock", 1), TargetSettings(other, "mock", 1))
    model = replace(settings.models["m"], targets=targets, hedge_after=0.05)
    settings = replace(settings, upstreams={"up": up, "other": other}, models={"m": model})
    gateway = await gateway_with(net, with_tools(settings, looker.tool(idempotent=True)))
    client, response = await gateway.stream(M)
    await response.until(b'"tool.result"')
    go_on.set()
    await response.rest()
    client.close()
    assert (len(slow.asked) >= 1, gateway.running.engine.tallies.hedges >= 1) == (True, True)
    assert looker.journal == ["Oslo"]
    assert response.types.count("tool.call") == 1


@on_uvloop
async def test_a_later_turn_falls_back_with_all_that_was_said(net: Net) -> None:
    async def cut(peer: Peer) -> None:
        peer.reset()
        raise EOFError

    model, spare = Model(["Look. ", ("look", OSLO)], [cut]), Model(["never"], ["The spare one."])
    upstream, looker = await net.upstream(spare.handle), Looker()
    first = await net.upstream(model.handle)
    settings = settings_for(first.url)
    other = replace(settings.upstreams["up"], name="other", base_url=f"{upstream.url}/v1")
    asked = replace(settings.models["m"], fallback=("spare",))
    models = {"m": asked, "spare": replace(asked, name="spare", upstream=other, id="other-1", fallback=())}
    settings = replace(settings, upstreams={**settings.upstreams, "other": other}, models=models)
    gateway = await gateway_with(net, with_tools(settings, looker.tool()))
    response = await gateway.ask("POST", "/api/v1/stream", M)
    check_legal(response.events)
    assert (response.text, looker.journal) == ("Look. The spare one.", ["Oslo"])
    assert spare.results() == ["Oslo"]
    assert spare.asked[0]["model"] == "other-1"
    assert len(finish_of(response)["steps"]) == 2


@pytest.mark.parametrize(("asked", "of_model", "turns"), [(1, 5, 2), (9, 1, 2), (3, 5, 4)])
@on_uvloop
async def test_a_request_lowers_the_steps_and_raises_none(net: Net, asked: int, of_model: int, turns: int) -> None:
    model, looker = Model(*[[("look", OSLO)]] * 8), Looker()
    gateway = await gateway_of(net, model, looker.tool(), max_steps=of_model)
    response = await gateway.ask("POST", "/api/v1/stream", {**M, "max_steps": asked})
    assert (len(model.asked), len(looker.journal)) == (turns, turns - 1)
    assert [event["reason"] for event in response.events if event["type"] == "warning"] == ["step_limit"]


@on_uvloop
async def test_no_answer_of_a_run_is_kept_for_others(net: Net) -> None:
    model, looker = Model([("look", OSLO)], ["Done."]), Looker()
    of_stream = {"cache": CacheSettings(ttl=600.0), "cached": True}
    gateway = await gateway_of(net, model, looker.tool(), of_stream=of_stream)
    for _ in range(2):
        assert (await gateway.ask("POST", "/api/v1/stream", M)).text == "Done."
        assert b"Done." in (await gateway.chat()).body
    assert (looker.journal, len(model.asked)) == (["Oslo"] * 4, 8)
    plain = [await gateway.ask("POST", "/api/v1/stream", {**M, "gateway_tools": []}) for _ in range(2)]
    assert ([each.status for each in plain], len(model.asked)) == ([200, 200], 9), "others are kept"


@on_both_loops
async def test_no_header_of_a_caller_reaches_a_tool(net: Net) -> None:
    heads: list[str] = []

    async def hook(peer: Peer) -> None:
        await peer.request()
        heads.append(peer.head.decode())
        await peer.answer("200 OK", b"1", "Content-Type: application/json")

    async def call(peer: Peer, message: dict[str, Any]) -> None:
        await send(peer, reply(message, said("ok")))

    server = ScriptedServer(call)
    tools = (
        ToolServerSettings("docs", Secret(f"{(await started(net, server)).url}/mcp")),
        http_tool("hook", f"{(await net.upstream(hook)).url}/hook", headers={"authorization": Secret(KEY)}),
    )
    key = KeySettings("ann", (key_digest(WORD),), tools=("*", "*.*"))
    model = Model([("docs__t", {}), ("hook", OSLO)], ["Done."])
    gateway = await gateway_of(net, model, *tools, patterns=("*", "*.*"), of_gateway={"keys": (key,)})
    headers = {"authorization": f"Bearer {WORD}", "cookie": WORD, "x-own": WORD, "mcp-session-id": WORD}
    response = await gateway.ask("POST", "/api/v1/stream", M, headers)
    assert (response.text, len(heads), server.asked.count("tools/call")) == ("Done.", 1, 1)
    assert KEY in heads[0]
    for head in (*heads, *server.heads):
        assert WORD not in head


@on_uvloop
async def test_the_tools_of_an_issuer_are_those_of_its_callers(net: Net) -> None:
    site, looker = await site_of(net), Looker()
    model = Model([("look", OSLO)], ["Done."])
    for tools, calls in ((("look",), 1), ((), 1)):
        issuers = (issuer(site.url, tools=tools),)
        gateway = await gateway_of(net, model, looker.tool(), of_gateway={"issuers": issuers})
        response = await gateway.ask("POST", "/api/v1/stream", M, bearer(site.token()))
        assert response.status == 200, response.body
        assert (("step.start" in response.types), len(looker.journal)) == (bool(tools), calls)


@on_uvloop
async def test_a_reload_leaves_the_bounds_of_waits_alone(net: Net) -> None:
    looker = Looker()
    gateway = await gateway_of(net, Model([("look", OSLO)], ["Done."]), looker.tool(approve=True))
    settings = gateway.running.engine.settings
    gateway.running.service.use(replace(settings, runs=RunSettings(approval_ttl=0.01, waiting=0)))
    client, response = await gateway.stream(M)
    await response.until(b'"digest"')
    await response.until(b"}}")
    [asked] = [event["approval"] for event in response.events if event["type"] == "approval.required"]
    assert asked["expires"] > now_ms() + 60_000
    client.close()


@on_uvloop
async def test_a_server_of_tools_is_trusted_by_its_own_authorities_and_a_reload_reads_them_again(
    net: Net, authority: Authority, tmp_path: Path
) -> None:
    async def call(peer: Peer, message: dict[str, Any]) -> None:
        await send(peer, reply(message, said("ok")))

    server = ScriptedServer(call)
    upstream = await net.upstream(server.handle, authority.server("good"))
    file = tmp_path / "ca.pem"
    file.write_bytes((authority.folder / "ca.pem").read_bytes())
    url = Secret(upstream.url.replace("127.0.0.1", "localhost") + "/mcp")
    model = Model([("docs__t", {})], ["Done."])
    tool = ToolServerSettings("docs", url, ca_file=str(file))
    gateway = await gateway_of(net, model, tool, patterns=("docs.*",))
    await gateway.ask("POST", "/api/v1/stream", M)
    assert model.results() == ["ok"]
    settings = gateway.running.engine.settings
    gateway.running.service.use(settings)
    await gateway.ask("POST", "/api/v1/stream", M)
    assert server.asked.count("server/discover") == 1, "nothing has changed"
    file.write_bytes((authority.folder / "ca.pem").read_bytes() + b"\n")
    gateway.running.service.use(settings)
    await gateway.ask("POST", "/api/v1/stream", M)
    assert (model.results(), server.asked.count("server/discover")) == (["ok"], 2)
    untrusted = await gateway_of(net, model, ToolServerSettings("docs", url), patterns=("docs.*",))
    await untrusted.ask("POST", "/api/v1/stream", M)
    assert model.results() == ["there is no tool 'docs__t'"]
    assert net.warned("there is no list") == 1


@on_uvloop
async def test_a_program_gives_functions_beside_its_file(net: Net, tmp_path: Path) -> None:
    model = Model([("forecast", OSLO)], ["Rain."])
    upstream = await net.upstream(model.handle)

    async def forecast(city: str) -> str:
        """The forecast."""
        return f"rain in {city}"

    (tmp_path / "gai-fast.toml").write_text(
        f'[[upstream]]\nname = "up"\nprovider = "openai-compatible"\nbase_url = "{upstream.url}/v1"\n'
        '[[model]]\nname = "m"\nupstream = "up"\n'
    )
    async with LibraryGateway.from_config(tmp_path / "gai-fast.toml", tools=[forecast]) as gateway:
        result = await (await gateway.stream(M).__aenter__()).result()
    assert (result.text, model.results(1)) == ("Rain.", ["rain in Oslo"])


@pytest.mark.parametrize("is_read", [False, True])
async def test_ask_waits_for_no_approval_and_says_how_to_decide(
    net: Net, tmp_path: Path, caplog: pytest.LogCaptureFixture, is_read: bool
) -> None:
    model = Model([("pay", {"euros": 7})], ["Not paid."])
    upstream = await net.upstream(model.handle)

    @tool(approve=True)
    async def pay(euros: int) -> str:
        """Pays."""
        raise AssertionError

    (tmp_path / "gai-fast.toml").write_text(
        f'[[upstream]]\nname = "up"\nprovider = "openai-compatible"\nbase_url = "{upstream.url}/v1"\n'
        '[[model]]\nname = "m"\nupstream = "up"\n'
    )
    async with LibraryGateway.from_config(tmp_path / "gai-fast.toml", tools=[pay]) as gateway:
        answer = gateway.ask("Pay.", model="m")
        text = "".join([piece async for piece in answer]) if is_read else (await answer).text
    assert text == "Not paid."
    assert model.results(1) == ["the call needs an approval, and nobody can be asked"]
    assert caplog.text.count("stream.decide()") == 1


async def test_rpcs_have_the_events_of_a_run(net: Net) -> None:
    model, looker = Model(["Look. ", ("look", OSLO)], ["Done."]), Looker()
    gateway = await gateway_of(net, model, looker.tool())
    straight = await gateway.ask("POST", "/api/v1/stream", M)
    async with serving_rpc(gateway.url) as rpc:
        events = [event async for event in rpc.generate({**M, "resumable": True})]
        stream_id = json.loads(events[0].json)["stream_id"]
        assert [event async for event in rpc.follow(stream_id, 4)] == events[4:]
    assert [event.type for event in events] == straight.types
    [result] = [json.loads(event.json) for event in events if event.type == "tool.result"]
    assert (result["step"], result["tool_result"], looker.journal) == (1, "Oslo", ["Oslo"] * 2)
    assert [event.text for event in events if event.type == "text.delta"] == ["Look. ", "Done."]


# ---- the clock -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_parked", [False, True])
@on_uvloop
async def test_a_clock_that_jumps_back_denies_nothing(
    net: Net, monkeypatch: pytest.MonkeyPatch, is_parked: bool
) -> None:
    run = await one_that_waits(net, is_parked)
    jump(monkeypatch, -7200)
    assert (await run.decide()).status == 200
    assert last(await run.end(), "tool.result")["tool_result"] == "paid 7"


@pytest.mark.parametrize("is_parked", [False, True])
@on_uvloop
async def test_an_approval_whose_time_is_over_as_the_clock_jumps_is_denied(
    net: Net, monkeypatch: pytest.MonkeyPatch, is_parked: bool
) -> None:
    """The machine has slept, say: its timers have not heard of that."""
    run = await one_that_waits(net, is_parked)
    jump(monkeypatch, 7200)
    assert await is_listed(run.gateway, 0)
    late = await run.decide()
    assert (late.status, late.error["reason"]) == (409, "decided")
    events = await run.end()
    assert last(events, "approval.decided")["approval"]["reason"] == "expired"
    assert (last(events, "text.delta")["text"], made) == ("Done.", [])


async def one_that_waits(net: Net, is_parked: bool) -> Run:
    """Returns a run that waits, without a session or in it."""
    gateway = await gateway_that_asks(net, Model(ASK, ["Done."]))
    return await (parked(gateway) if is_parked else Run.begun(gateway, {**M, "query": "q" * LIMITS.parked_request}))


def jump(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Sets the clock."""
    now = SOURCE.read
    monkeypatch.setattr(SOURCE, "read", lambda: now() + seconds)
