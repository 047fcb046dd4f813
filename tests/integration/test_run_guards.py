"""Guards on what tools get (`tool_input`) and answer (`tool_result`), over real sockets: where a planted word ends."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import pytest

from gai_fast import Gateway as LibraryGateway
from gai_fast.model.settings import (
    FunctionSettings,
    GuardSettings,
    JudgeSettings,
    Secret,
    StoreSettings,
    ToolServerSettings,
    ToolSettings,
)
from tests.integration.gateway import M, Net, Peer, Response, on_uvloop, settings_for
from tests.integration.mcp_servers import ScriptedServer, progress, reply, said, send, started, stream
from tests.integration.mcp_servers import event as frame
from tests.integration.tool_runs import MODULE, Gate, Model, function_tool, gateway_of, http_tool, with_tools
from tests.waiting import until

WORD = "kestrel"
SAID = {"bird": f"a {WORD} in Oslo", WORD: [1, f"{WORD} and {WORD}"], "height": 12345678901234567890}
SECRET = f"the {WORD} of the store"
WAYS = ("server", "process", "http", "function")
PROCESS = """
import json, sys
found = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "resultType": "complete"}
found["tools"] = [{"name": "look", "inputSchema": {"type": "object"}}]
value = json.loads(sys.argv[2])
is_text = type(value) is str
found["content"] = [{"type": "text", "text": value}] if is_text else []
found.update({} if is_text else {"structuredContent": value})
for line in sys.stdin:
    asked = json.loads(line)
    if asked["method"] == "tools/call":
        with open(sys.argv[1], "a") as journal:
            print(json.dumps(asked["params"]["arguments"]), file=journal)
    if "id" in asked:
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": found}), flush=True)
"""


def words(name: str = "birds", *on: Any, **options: Any) -> GuardSettings:
    return GuardSettings(name, "words", words=(WORD,), on=on or ("tool_input", "tool_result"), **options)


class Tool:
    """A tool that keeps a journal of its arguments, and answers with one value.

    Args:
        net: The scenario's servers.
        answer: The answer.
    """

    def __init__(self, net: Net, answer: Any = None) -> None:
        self.net = net
        self.answer = {"ok": True} if answer is None else answer
        self._journal: list[Any] = []
        folder = net.stack.enter_context(TemporaryDirectory(ignore_cleanup_errors=True))
        self._file = Path(folder) / "journal"  # of a process

    @property
    def journal(self) -> list[Any]:
        lines = self._file.read_text().splitlines() if self._file.exists() else []
        return [*self._journal, *map(json.loads, lines)]

    async def of(self, way: str, **options: Any) -> tuple[ToolSettings | ToolServerSettings, str]:
        """Returns the tool on a way, and its name for the model."""
        if way == "server":
            tool = {"name": "look", "inputSchema": {"type": "object"}}
            server = await started(self.net, ScriptedServer(self._of_server, tool))
            return ToolServerSettings("docs", Secret(f"{server.url}/mcp"), **options), "docs__look"
        if way == "process":
            command = (sys.executable, "-S", "-c", PROCESS, str(self._file), json.dumps(self.answer))
            return ToolServerSettings("docs", command=command, **options), "docs__look"
        if way == "http":
            upstream = await self.net.upstream(self._of_http)
            return http_tool("look", f"{upstream.url}/look", **options), "look"

        async def look(city: str) -> Any:
            self._journal.append({"city": city})
            return self.answer

        return function_tool(look, **options), "look"

    async def _of_server(self, peer: Peer, message: dict[str, Any]) -> None:
        self._journal.append(message["params"]["arguments"])
        result = (
            said(self.answer) if isinstance(self.answer, str) else {"content": [], "structuredContent": self.answer}
        )
        await send(peer, reply(message, result))

    async def _of_http(self, peer: Peer) -> None:
        while True:
            self._journal.append(json.loads(await peer.request()))
            await peer.answer("200 OK", json.dumps(self.answer).encode(), "Content-Type: application/json")


def events_of(response: Response, kind: str) -> list[dict[str, Any]]:
    return [event for event in response.events if event["type"] == kind]


def the_result(response: Response) -> dict[str, Any]:
    [result] = events_of(response, "tool.result")
    return result


async def asked(
    net: Net, guards: tuple[GuardSettings, ...], tool: Tool, way: str, arguments: Any, **options: Any
) -> tuple[Response, Model]:
    """Returns the answer of a run with one call, and its model."""
    settings, name = await tool.of(way)
    model = Model([(name, arguments)], ["Done."])
    gateway = await gateway_of(net, model, settings, of_stream={"guards": guards}, **options)
    return await gateway.ask("POST", "/api/v1/stream", M), model


@pytest.mark.parametrize("way", WAYS)
@on_uvloop
async def test_a_word_of_a_tool_reaches_neither_model_nor_client(net: Net, way: str) -> None:
    response, model = await asked(net, (words(),), Tool(net, SAID), way, {"city": "Oslo"})
    masked = {"bird": "a [words] in Oslo", "[words]": [1, "[words] and [words]"], "height": 12345678901234567890}
    assert the_result(response)["tool_result"] == masked
    assert json.loads(model.results()[0]) == masked
    assert WORD not in response.body.decode() + json.dumps(model.asked)
    [safety] = events_of(response, "safety")
    said = {"category": "words", "action": "mask", "guard": "birds", "on": "tool_result"}
    assert (safety["safety"], safety["step"]) == (said, 1)
    assert response.types.index("safety") < response.types.index("tool.result")
    assert response.text == "Done."


@pytest.mark.parametrize("way", WAYS)
@on_uvloop
async def test_a_word_of_the_model_does_not_reach_a_tool(net: Net, way: str) -> None:
    tool = Tool(net)
    response, model = await asked(net, (words("birds", "tool_input"),), tool, way, {"city": f"a {WORD}"})
    assert tool.journal == [{"city": "a [words]"}]
    assert the_result(response)["tool_result"] == {"ok": True}
    assert [each["safety"]["on"] for each in events_of(response, "safety")] == ["tool_input"]
    # The client has what the model says, and the model its own words: guards on output see those.
    [called] = events_of(response, "tool.call")
    assert called["tool_call"]["input"] == {"city": f"a {WORD}"}
    assert WORD in json.dumps(model.asked[1])


@pytest.mark.parametrize("way", WAYS)
@on_uvloop
async def test_a_guard_that_stops_arguments_makes_an_error_result(net: Net, way: str) -> None:
    tool = Tool(net)
    guard = words("birds", "tool_input", action="stop")
    response, model = await asked(net, (guard,), tool, way, {"city": WORD})
    text = "the call was not made: the guard 'birds' does not let these arguments through"
    result = the_result(response)
    assert (result["tool_result"], result["is_error"]) == (text, True)
    assert (tool.journal, model.results()) == ([], [text])
    assert [each["safety"]["action"] for each in events_of(response, "safety")] == ["stop"]
    assert response.text == "Done."


@pytest.mark.parametrize("way", WAYS)
@on_uvloop
async def test_a_guard_that_stops_a_result_makes_an_error_result(net: Net, way: str) -> None:
    tool = Tool(net, SAID)
    response, model = await asked(net, (words("birds", "tool_result", action="stop"),), tool, way, {"city": "Oslo"})
    text = "the call was made, and the guard 'birds' does not let its result through"
    result = the_result(response)
    assert (result["tool_result"], result["is_error"], len(tool.journal)) == (text, True, 1)
    assert model.results() == [text]
    assert [each["safety"]["action"] for each in events_of(response, "safety")] == ["stop"]
    assert WORD not in response.body.decode()


@pytest.mark.parametrize("way", WAYS)
@on_uvloop
async def test_a_guard_that_flags_changes_nothing(net: Net, way: str) -> None:
    tool = Tool(net, SAID)
    response, _ = await asked(net, (words(action="flag"),), tool, way, {"city": WORD})
    assert (tool.journal, the_result(response)["tool_result"]) == ([{"city": WORD}], SAID)
    said = [(each["safety"]["action"], each["safety"]["on"]) for each in events_of(response, "safety")]
    assert said == [("flag", "tool_input"), ("flag", "tool_result")]


@on_uvloop
async def test_guards_hold_in_a_program_too(net: Net) -> None:
    seen: list[str] = []

    async def look(city: str) -> dict[str, Any]:
        seen.append(city)
        return SAID

    model = Model([("look", {"city": f"a {WORD}"})], ["Done."])
    upstream = await net.upstream(model.handle)
    async with LibraryGateway(settings_for(upstream.url, guards=(words(),)), tools=[look]) as gateway:
        async with gateway.stream(M) as stream:
            events = [event async for event in stream]
        async with gateway.stream(M) as stream:
            result = await stream.result()
    assert seen == ["a [words]"] * 2
    assert [each["safety"]["on"] for each in events if each["type"] == "safety"] == ["tool_input", "tool_result"]
    [made] = [each["tool_result"] for each in events if each["type"] == "tool.result"]
    assert json.loads(model.results(1)[0]) == json.loads(model.results(3)[0]) == made
    assert WORD not in json.dumps([made, model.results(1), result.messages[1:]])


@on_uvloop
async def test_the_text_of_a_failed_call_is_a_result_too(net: Net) -> None:
    def look(city: str) -> str:
        raise ValueError(f"no {WORD} in {city}")

    model = Model([("look", {"city": "Oslo"})], ["Done."])
    gateway = await gateway_of(net, model, function_tool(look), of_stream={"guards": (words(),)})
    response = await gateway.ask("POST", "/api/v1/stream", M)
    assert model.results() == ["ValueError: no [words] in Oslo"]
    assert the_result(response)["is_error"]
    assert WORD not in response.body.decode()


@on_uvloop
async def test_parts_and_progress_are_seen(net: Net) -> None:
    async def answer(peer: Peer, message: dict[str, Any]) -> None:
        first, second = progress(message, 1), progress(message, 2)
        first["params"]["message"], second["params"]["message"] = f"a {WORD}", "an owl"
        image = {"type": "image", "data": "aGFs", "mimeType": "image/png"}
        result = {"content": [{"type": "text", "text": f"a {WORD}"}, image]}
        await stream(peer, frame(first), frame(second), frame(reply(message, result)))

    server = await started(net, ScriptedServer(answer))
    model = Model([("docs__t", {})], ["Done."])
    tool = ToolServerSettings("docs", Secret(f"{server.url}/mcp"))
    gateway = await gateway_of(net, model, tool, of_stream={"guards": (words(),)})
    response = await gateway.ask("POST", "/api/v1/stream", M)
    assert [event["text"] for event in events_of(response, "tool.progress")] == ["a [words]", "an owl"]
    assert [part.get("text", part["type"]) for part in the_result(response)["parts"]] == ["a [words]", "image"]
    assert WORD not in response.body.decode() + json.dumps(model.asked)


@on_uvloop
async def test_long_results_are_searched_in_turns(net: Net) -> None:
    value = [f"{WORD} {number}" for number in range(30_000)]
    tool = Tool(net, value)
    settings, name = await tool.of("function", max_result=2**20)
    model = Model([(name, {"city": "Oslo"})], ["Done."])
    gateway = await gateway_of(net, model, settings, of_stream={"guards": (words(),)})
    response = await gateway.ask("POST", "/api/v1/stream", M)
    assert the_result(response)["tool_result"] == [f"[words] {number}" for number in range(30_000)]
    assert WORD not in response.body.decode()


@on_uvloop
async def test_replacements_do_not_make_a_result_too_long(net: Net) -> None:
    tool = Tool(net, f"{WORD} " * 100_000)
    settings, name = await tool.of("function", max_result=2**20)
    model = Model([(name, {"city": "Oslo"})], ["Done."])
    guards = (words(replacement="[a bird of prey]"),)
    gateway = await gateway_of(net, model, settings, of_stream={"guards": guards})
    response = await gateway.ask("POST", "/api/v1/stream", M)
    result = the_result(response)
    assert (len(result["tool_result"]), result["truncated"]) == (2**20, True)


@on_uvloop
async def test_own_words_reach_tools_and_keep_their_placeholders_for_the_model(net: Net) -> None:
    own, other = "ann@sea.example", "bob@sea.example"
    tool = Tool(net, f"{own} knows {other}")
    settings, name = await tool.of("function")
    model = Model([(name, {"city": "<EMAIL_1>"})], ["Hello <EMAIL_1>."])
    guard = GuardSettings(
        "people", "pii", kinds=("email",), on=("input", "output", "tool_result"), restore=True, replacement="[hidden]"
    )
    gateway = await gateway_of(net, model, settings, of_stream={"guards": (guard,)})
    response = await gateway.ask("POST", "/api/v1/stream", {**M, "query": f"I am {own}"})
    assert tool.journal == [{"city": own}]
    assert model.results() == ["<EMAIL_1> knows [hidden]"]
    assert own not in json.dumps(model.asked)
    assert the_result(response)["tool_result"] == f"{own} knows [hidden]"
    assert response.text == f"Hello {own}."


@on_uvloop
async def test_a_person_approves_what_the_tool_gets(net: Net) -> None:
    tool = Tool(net)
    settings, name = await tool.of("http", approve=True)
    model = Model([(name, {"city": WORD})], ["Done."])
    gateway = await gateway_of(net, model, settings, of_stream={"guards": (words("birds", "tool_input"),)})
    client, response = await gateway.stream(M)
    await response.until(b'"approval.required"')
    [required] = events_of(response, "approval.required")
    assert required["approval"]["input"] == {"city": "[words]"}
    asks = required["approval"]
    path = f"/api/v1/streams/{asks['id'].rpartition('-')[0]}/approvals/{asks['id']}"
    answer = await gateway.ask("POST", path, {"decision": "approve", "digest": asks["digest"]})
    assert answer.status == 200, answer.body
    await response.rest()
    assert tool.journal == [{"city": "[words]"}]
    client.close()


def asks_of(response: Response) -> dict[str, Any]:
    [required] = events_of(response, "approval.required")
    asks: dict[str, Any] = required["approval"]
    return asks


@on_uvloop
@pytest.mark.parametrize(
    ("action", "reason", "told"),
    [
        ("mask", "not the [words]", ["mask"]),
        ("flag", f"not the {WORD}", ["flag"]),
        ("stop", "the guard 'birds' does not let its reason through", ["stop"]),
    ],
)
@pytest.mark.parametrize("decision", ["deny", "approve"])
async def test_a_persons_reason_passes_the_guards_of_input(
    net: Net, decision: str, action: Any, reason: str, told: list[str]
) -> None:
    """The model reads it. The decision counts in any case."""
    tool = Tool(net)
    settings, name = await tool.of("http", approve=True)
    model = Model([(name, {"city": "Oslo"})], ["Done."])
    guards = (words("birds", "input", action=action),)
    gateway = await gateway_of(net, model, settings, of_stream={"guards": guards})
    client, response = await gateway.stream(M)
    await response.until(b'"approval.required"')
    asks = asks_of(response)
    path = f"/api/v1/streams/{asks['id'].rpartition('-')[0]}/approvals/{asks['id']}"
    body = {"decision": decision, "digest": asks["digest"], "reason": f"not the {WORD}"}
    answer = await gateway.ask("POST", path, body)
    assert answer.status == 200, answer.body
    await response.rest()
    [decided] = events_of(response, "approval.decided")
    assert (decided["approval"]["decision"], decided["approval"]["reason"]) == (decision, reason)
    assert [each["safety"]["action"] for each in events_of(response, "safety")] == told
    assert [each["safety"]["on"] for each in events_of(response, "safety")] == ["input"]
    assert tool.journal == ([] if decision == "deny" else [{"city": "Oslo"}])
    if decision == "deny":
        assert reason in json.dumps(model.asked[-1])
    assert (WORD in json.dumps(model.asked)) is (action == "flag" and decision == "deny")
    client.close()


@on_uvloop
@pytest.mark.parametrize("fails_open", [False, True])
async def test_a_reason_that_cannot_be_judged_is_none_or_is_warned_of(net: Net, fails_open: bool) -> None:
    tool = Tool(net)
    settings, name = await tool.of("http", approve=True)
    model = Model([(name, {"city": "Oslo"})], ["Done."])

    async def check(question: Mapping[str, Any]) -> Any:
        return {"flagged": False} if WORD not in question["text"] else 1 / 0

    guards = (judged("policy", check, "input", fails_open=fails_open),)
    gateway = await gateway_of(net, model, settings, of_stream={"guards": guards})
    client, response = await gateway.stream(M)
    await response.until(b'"approval.required"')
    asks = asks_of(response)
    path = f"/api/v1/streams/{asks['id'].rpartition('-')[0]}/approvals/{asks['id']}"
    body = {"decision": "deny", "digest": asks["digest"], "reason": f"not the {WORD}"}
    assert (await gateway.ask("POST", path, body)).status == 200
    await response.rest()
    [decided] = events_of(response, "approval.decided")
    said = f"not the {WORD}" if fails_open else "the guard 'policy' cannot judge its reason now"
    assert decided["approval"]["reason"] == said
    assert [each["reason"] for each in events_of(response, "warning")] == (["guard_failed"] if fails_open else [])
    check_logged(net)
    client.close()


@on_uvloop
async def test_a_reason_of_a_program_passes_the_guards_of_input(net: Net) -> None:
    tool = Tool(net)
    settings, name = await tool.of("function", approve=True)
    model = Model([(name, {"city": "Oslo"})], ["Done."])
    of_stream = settings_for((await net.upstream(model.handle)).url, guards=(words("birds", "input"),))
    async with LibraryGateway(with_tools(of_stream, settings)) as gateway, gateway.stream(M) as stream:
        async for event in stream:
            if event["type"] == "approval.required":
                asks = event["approval"]
                await stream.decide(asks["id"], "deny", asks["digest"], f"no {WORD}")
    assert not tool.journal
    assert model.results() == ["the call was denied: no [words]"]


@on_uvloop
async def test_a_reason_has_placeholders_of_the_request_and_no_others(net: Net) -> None:
    tool = Tool(net)
    settings, name = await tool.of("http", approve=True)
    model = Model([(name, {"city": "Oslo"})], ["Ask <EMAIL_1>."])
    guard = GuardSettings("people", "pii", kinds=("email",), restore=True)
    gateway = await gateway_of(net, model, settings, of_stream={"guards": (guard,)})
    client, response = await gateway.stream({**M, "query": "I am a@b.example"})
    await response.until(b'"approval.required"')
    asks = asks_of(response)
    path = f"/api/v1/streams/{asks['id'].rpartition('-')[0]}/approvals/{asks['id']}"
    body = {"decision": "deny", "digest": asks["digest"], "reason": "ask a@b.example, not c@d.example"}
    assert (await gateway.ask("POST", path, body)).status == 200
    await response.rest()
    assert model.results() == ["the call was denied: ask <EMAIL_1>, not [email]"]
    assert response.text == "Ask a@b.example."
    client.close()


@on_uvloop
async def test_guards_of_calls_change_nothing_else(net: Net) -> None:
    tool = Tool(net)
    settings, name = await tool.of("function")
    model = Model([f"A {WORD}. ", (name, {"city": "Oslo"})], [f"No {WORD}."])
    gateway = await gateway_of(net, model, settings, of_stream={"guards": (words(),)})
    response = await gateway.ask("POST", "/api/v1/stream", {**M, "query": f"A {WORD}?"})
    assert response.text == f"A {WORD}. No {WORD}."
    assert WORD in json.dumps(model.asked[0])
    assert not events_of(response, "safety")
    raw = await gateway.ask("POST", "/api/v1/stream?format=raw", {**M, "gateway_tools": []})
    assert raw.status == 200


@on_uvloop
async def test_stores_and_logs_have_no_word_of_a_tool(
    net: Net, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    gate = Gate()
    tool = Tool(net, SAID)
    settings, name = await tool.of("http")

    async def wait(city: str) -> str:
        await gate.wait()
        return city

    model = Model([(name, {"city": "Oslo"}), ("wait", {"city": "Rome"})], ["Done."])
    store = StoreSettings(f"sqlite:///{tmp_path}/streams.db")
    options = {"guards": (words(),)}
    gateway = await gateway_of(
        net, model, settings, function_tool(wait), of_stream=options, of_gateway={"store": store}
    )
    client, response = await gateway.stream({**M, "resumable": True})
    await response.until(b'"tool.result"')
    await gate.begun.wait()
    await until(lambda: any(b"[words]" in each.read_bytes() for each in tmp_path.iterdir()))
    assert not [each for each in tmp_path.iterdir() if WORD.encode() in each.read_bytes()]
    gate.open.set()
    await response.rest()
    assert not [each for each in tmp_path.iterdir() if WORD.encode() in each.read_bytes()]
    assert WORD not in caplog.text
    client.close()


# ---- judges


def judged(name: str, function: Callable[[Any], Any], *on: Any, fails_open: bool = False, **options: Any) -> Any:
    module = sys.modules.setdefault(MODULE, ModuleType(MODULE))
    setattr(module, f"judge_{name}", function)
    reference = FunctionSettings(f"{MODULE}:judge_{name}", str(Path(__file__).parent))
    judge = JudgeSettings(function=reference, timeout=0.2, fails_open=fails_open)
    return GuardSettings(name, "python", on=on, judge=judge, **{"action": "stop", **options})


@pytest.mark.parametrize("way", WAYS)
@on_uvloop
async def test_a_call_waits_for_its_judge(net: Net, way: str) -> None:
    asks: list[Mapping[str, Any]] = []

    async def check(question: Mapping[str, Any]) -> Any:
        asks.append(question)
        return {"flagged": WORD in question["text"], "category": "bird"}

    tool = Tool(net, SAID)
    guards = (judged("policy", check, "tool_input", "tool_result"),)
    response, model = await asked(net, guards, tool, way, {"city": "Oslo"})
    assert len(tool.journal) == 1
    assert model.results() == ["the call was made, and the guard 'policy' does not let its result through"]
    assert [(each["on"], each["channel"], each["caller"]) for each in asks] == [
        ("tool_input", "tool_call", "anonymous"),
        ("tool_result", "tool_call", "anonymous"),
    ]
    assert WORD not in response.body.decode()


@on_uvloop
async def test_what_a_judge_would_mask_in_arguments_is_stopped(net: Net) -> None:
    async def check(question: Mapping[str, Any]) -> Any:
        at = question["text"].find(WORD)
        return {"flagged": at >= 0, "category": "bird", "spans": [[at, at + len(WORD)]] if at >= 0 else []}

    tool = Tool(net)
    guards = (judged("policy", check, "tool_input", action="mask"),)
    response, _ = await asked(net, guards, tool, "http", {"city": WORD})
    assert (tool.journal, the_result(response)["is_error"]) == ([], True)
    assert [each["safety"]["action"] for each in events_of(response, "safety")] == ["stop"]
    of_result = (judged("policy", check, "tool_result", action="mask"),)
    response, model = await asked(net, of_result, Tool(net, {"a": f"a {WORD}!"}), "http", {"city": "Oslo"})
    assert the_result(response)["tool_result"] == {"a": "a [bird]!"}
    assert WORD not in json.dumps(model.asked)


async def raises(question: Any) -> Any:
    raise ValueError(question["text"])


async def never(question: Any) -> Any:
    await asyncio.Event().wait()


async def odd(question: Any) -> Any:
    return {"flagged": "yes"}


def check_logged(net: Net) -> None:
    """Checks that the log names the fault of the judge once, and no text."""
    [line] = net.logged
    assert "guard 'policy': the judge has failed" in line
    assert WORD not in line
    net.logged.clear()


@pytest.mark.parametrize("fault", [raises, never, odd])
@pytest.mark.parametrize("on", ["tool_input", "tool_result"])
@on_uvloop
async def test_without_a_verdict_a_closed_guard_lets_nothing_through(net: Net, on: str, fault: Any) -> None:
    tool = Tool(net, SAID)
    response, model = await asked(net, (judged("policy", fault, on),), tool, "function", {"city": SECRET})
    what = "these arguments" if on == "tool_input" else "its result"
    before = "the call was not made:" if on == "tool_input" else "the call was made, and"
    assert model.results() == [f"{before} the guard 'policy' cannot judge {what} now"]
    assert len(tool.journal) == (on == "tool_result")
    assert response.text == "Done."
    assert not events_of(response, "warning")
    check_logged(net)


@pytest.mark.parametrize("fault", [raises, never, odd])
@on_uvloop
async def test_without_a_verdict_an_open_guard_warns_once(net: Net, fault: Any) -> None:
    tool = Tool(net, SAID)
    guards = (judged("policy", fault, "output", "tool_input", "tool_result", fails_open=True),)
    response, _ = await asked(net, guards, tool, "function", {"city": SECRET})
    assert (tool.journal, the_result(response)["tool_result"]) == ([{"city": SECRET}], SAID)
    warnings = [(each["reason"], each["guard"]) for each in events_of(response, "warning")]
    assert warnings == [("guard_failed", "policy")]
    assert [event["seq"] for event in response.events if "seq" in event] == [*range(1, len(response.events))]
    check_logged(net)


@on_uvloop
async def test_a_client_that_leaves_ends_a_check(net: Net) -> None:
    gate = Gate()

    async def check(question: Any) -> Any:
        await gate.wait()

    settings, name = await Tool(net).of("function")
    model = Model([(name, {"city": "Oslo"})], ["never"])
    guard = judged("policy", check, "tool_input")
    gateway = await gateway_of(net, model, settings, of_stream={"guards": (guard,)})
    client, _ = await gateway.stream(M)
    await gate.begun.wait()
    client.close()
    await gate.cancelled.wait()
    await until(lambda: not gateway.streams)
    assert len(model.asked) == 1
