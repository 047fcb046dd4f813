"""Coding agents on a foreign model: what their own provider alone knows is left out, and told; others are refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.integration.gateway import CHAT, DONE, FINISH, MESSAGES, Gateway, Net, Peer, delta, on_uvloop
from tests.integration.test_requests import recording
from tests.limits import LIMITS

CLAUDE_CODE = {"user-agent": "claude-cli/2.1.330 (external, cli)"}
CODEX = {"user-agent": "codex_cli_rs/0.169.0 (Debian 12; x86_64) unknown"}
OTHERS: list[dict[str, str]] = [{}, {"user-agent": "openai-python codex_cli_rs/0.169.0"}, {"user-agent": "codex"}]
MESSAGE = {"model": "m", "max_tokens": 9, "messages": MESSAGES}
RESPONSE = {"model": "m", "input": "Hi", "store": True, "tools": [{"type": "web_search"}]}
SCHEMA = {"type": "object"}


async def chat(net: Net, **options: Any) -> tuple[Gateway, list[Any]]:
    asked: list[Any] = []
    upstream = await net.upstream(recording(asked, delta("Hello") + FINISH + DONE))
    return await net.gateway(upstream, **options), asked


@on_uvloop
async def test_an_agent_is_served_and_told_without_a_switch(net: Net, caplog: pytest.LogCaptureFixture) -> None:
    gateway, asked = await chat(net, access_log=True)
    with caplog.at_level("INFO", "gai_fast.access"):
        answer = await gateway.ask("POST", "/v1/responses", RESPONSE, headers=CODEX)
    assert (answer.status, answer.headers["x-gai-dropped"]) == (200, "tools[0]")
    assert "tools" not in asked[0]
    line = next(record for record in caplog.records if "/v1/responses" in record.getMessage())
    assert '"dropped":["tools[0]"]' in line.getMessage()
    body = {**MESSAGE, "container": "c", "output_config": {"effort": "unheard"}}
    answer = await gateway.ask("POST", "/v1/messages", body, headers=CLAUDE_CODE)
    assert (answer.status, answer.headers["x-gai-dropped"]) == (200, "output_config.effort,container")
    answer = await gateway.ask(
        "POST", "/v1/messages?format=gai", {**body, "stream": True, "tools": None}, headers=CLAUDE_CODE
    )
    warnings = [event for event in answer.events if event["type"] == "warning"]
    assert warnings[0]["provider_metadata"]["dropped"] == ["output_config.effort", "container"]


@on_uvloop
@pytest.mark.parametrize("headers", OTHERS)
async def test_others_are_refused_as_before(net: Net, headers: dict[str, str]) -> None:
    gateway, asked = await chat(net)
    answer = await gateway.ask("POST", "/v1/responses", RESPONSE, headers=headers)
    assert (answer.status, answer.error["code"]) == (400, "unsupported")
    assert asked == []


@on_uvloop
async def test_the_header_and_a_value_of_the_configuration_win(net: Net) -> None:
    gateway, _ = await chat(net)
    for value, status in (("error", 400), ("drop", 200), ("auto", 400), ("", 400)):
        for headers in (CODEX, {}):
            asked = {**headers, "x-gai-unsupported": value}
            assert (await gateway.ask("POST", "/v1/responses", RESPONSE, headers=asked)).status == status
    gateway, _ = await chat(net, on_unsupported="error")
    assert (await gateway.ask("POST", "/v1/responses", RESPONSE, headers=CODEX)).status == 400
    gateway, _ = await chat(net, on_unsupported="drop")
    assert (await gateway.ask("POST", "/v1/responses", RESPONSE)).status == 200


@on_uvloop
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/messages", {**MESSAGE, "thread": {"id": "t"}}),
        ("/v1/responses", {**RESPONSE, "conversation": "conv_1"}),
        ("/v1/responses", {**RESPONSE, "prompt": {"id": "p"}}),
        ("/v1/responses", {**RESPONSE, "previous_response_id": "resp_1"}),
        ("/v1/responses", {**RESPONSE, "input": [{"type": "item_reference", "id": "msg_1"}]}),
        ("/v1/responses", {**RESPONSE, "input": [{"id": "msg_1"}, {"role": "user", "content": "Hi"}]}),
    ],
)
async def test_what_would_be_another_question_is_refused_to_agents_too(net: Net, path: str, body: Any) -> None:
    gateway, asked = await chat(net)
    for headers in (CODEX, {"x-gai-unsupported": "drop"}):
        answer = await gateway.ask("POST", path, body, headers=headers)
        assert answer.status == 400
    assert asked == []


def tool(name: str, **members: Any) -> dict[str, Any]:
    return {"name": name, "description": f"Does {name}", "input_schema": SCHEMA, **members}


def searched(*names: str) -> list[Any]:
    """Returns Claude Code's search for tools, with its result."""
    parts = [{"type": "tool_reference", "tool_name": name} for name in names]
    call = {"type": "tool_use", "id": "toolu_1", "name": "ToolSearch", "input": {"query": "x"}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": parts}
    return [*MESSAGES, {"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]


@on_uvloop
@pytest.mark.parametrize("headers", [{}, CLAUDE_CODE])
async def test_a_deferred_tool_is_sent_once_it_is_named_and_this_is_not_told(net: Net, headers: Any) -> None:
    gateway, asked = await chat(net)
    tools = [tool("later", defer_loading=True), tool("Bash"), tool("never", defer_loading=True), tool("ToolSearch")]
    first = await gateway.ask("POST", "/v1/messages", {**MESSAGE, "tools": tools}, headers=headers)
    second = await gateway.ask(
        "POST", "/v1/messages", {**MESSAGE, "tools": tools, "messages": searched("later", "nowhere")}, headers=headers
    )
    for answer in (first, second):
        assert answer.status == 200
        assert not {"x-gai-dropped", "x-gai-adjusted"} & answer.headers.keys()
    names = [[each["function"]["name"] for each in body["tools"]] for body in asked]
    assert names == [["Bash", "ToolSearch"], ["Bash", "ToolSearch", "later"]]
    assert json.dumps(asked[1]["tools"]).startswith(json.dumps(asked[0]["tools"])[:-1])
    assert "later" in json.dumps(asked[1]["messages"][-1]["content"])
    forced = {**MESSAGE, "tools": tools, "tool_choice": {"type": "tool", "name": "never"}}
    assert (await gateway.ask("POST", "/v1/messages", forced, headers=headers)).status == 200
    assert asked[2]["tools"][-1]["function"]["name"] == "never"
    assert asked[2]["tool_choice"]["function"]["name"] == "never"
    alone = {**MESSAGE, "tools": tools[:1], "tool_choice": {"type": "auto"}}
    answer = await gateway.ask("POST", "/v1/messages", alone, headers=headers)
    assert (answer.status, "tools" in asked[3], "x-gai-dropped" in answer.headers) == (200, False, False)


@on_uvloop
@pytest.mark.parametrize("headers", [{}, CLAUDE_CODE, {"x-gai-unsupported": "error"}])
async def test_beside_anthropics_own_search_all_tools_are_sent(net: Net, headers: Any) -> None:
    gateway, asked = await chat(net)
    search = {"type": "tool_search_tool_regex_20251119", "name": "tool_search_tool_regex"}
    tools = [tool("a", defer_loading=True), search, tool("b")]
    answer = await gateway.ask("POST", "/v1/messages", {**MESSAGE, "tools": tools}, headers=headers)
    assert (answer.status, answer.headers["x-gai-dropped"]) == (200, "tools[1]")
    assert [each["function"]["name"] for each in asked[0]["tools"]] == ["a", "b"]


@on_uvloop
async def test_deferred_tools_go_to_anthropic_as_they_are(net: Net) -> None:
    gateway, asked = await chat(net)
    tools = [tool("a", defer_loading=True), tool("b")]
    await gateway.ask("POST", "/v1/messages", {**MESSAGE, "model": "claude", "tools": tools})
    assert asked[0]["tools"] == tools


TOO_LONG = "This model's maximum context length is 128000 tokens. However, your messages resulted in 130000 tokens."


@on_uvloop
@pytest.mark.parametrize("stream", [True, False])
async def test_too_long_a_prompt_has_the_words_on_which_claude_code_compacts(net: Net, stream: bool) -> None:
    error = {
        "message": TOO_LONG,
        "type": "invalid_request_error",
        "param": "messages",
        "code": "context_length_exceeded",
    }
    body = json.dumps({"error": error}).encode()

    async def refuse(peer: Peer) -> None:
        while True:
            await peer.request()
            head = b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            await peer.send(head % len(body), body)

    gateway = await net.gateway(await net.upstream(refuse))
    answer = await gateway.ask("POST", "/v1/messages", {**MESSAGE, "stream": stream}, headers=CLAUDE_CODE)
    assert answer.status == 400
    assert answer.error["message"] == f"prompt is too long: {TOO_LONG}"
    assert (await gateway.ask("POST", CHAT, {"model": "m", "messages": MESSAGES})).error["message"] == TOO_LONG


ATTRIBUTION = "x-anthropic-billing-header: cc_version=2.1.332.a41; cch=5f2e1;"
SYSTEM = [{"type": "text", "text": ATTRIBUTION}, {"type": "text", "text": "You help."}]
USER_ID = '{"device_id":"0a","account_uuid":"","session_id":"a8bd7ad6"}'


@on_uvloop
@pytest.mark.parametrize(
    ("attribution", "translated", "passed"),
    [
        ("auto", "You help.", SYSTEM[1:]),
        ("cut", "You help.", SYSTEM[1:]),
        ("keep", SYSTEM, SYSTEM),
    ],
)
async def test_the_attribution_block_goes_to_anthropic_alone(
    net: Net, attribution: str, translated: Any, passed: Any
) -> None:
    gateway, asked = await chat(net, attribution=attribution)
    body = {**MESSAGE, "system": SYSTEM, "metadata": {"user_id": USER_ID}}
    for model in ("m", "claude"):
        assert (await gateway.ask("POST", "/v1/messages", {**body, "model": model})).status in (200, 502)
    assert (asked[0]["messages"][0]["content"], asked[1]["system"]) == (translated, passed)
    assert (asked[0]["prompt_cache_key"], "user" in asked[0]) == ("a8bd7ad6", False)
    assert asked[1]["metadata"] == {"user_id": USER_ID}


@on_uvloop
@pytest.mark.parametrize("user_id", ["user-7", '{"a": ' * 1_000 + "1" + "}" * 1_000, "x" * (1 << 20), '["a"]'])
async def test_any_other_user_id_is_the_user(net: Net, user_id: str) -> None:
    gateway, asked = await chat(net)
    assert (await gateway.ask("POST", "/v1/messages", {**MESSAGE, "metadata": {"user_id": user_id}})).status == 200
    assert (asked[0]["user"], "prompt_cache_key" in asked[0]) == (user_id, False)


@on_uvloop
@pytest.mark.parametrize(("attribution", "rest"), [("auto", SYSTEM[1:]), ("cut", SYSTEM[1:]), ("keep", SYSTEM)])
async def test_a_count_is_asked_for_what_a_request_would_be_sent(net: Net, attribution: str, rest: Any) -> None:
    asked: list[Any] = []

    async def counts(peer: Peer) -> None:
        while True:
            asked.append(json.loads(await peer.request()))
            await peer.answer("200 OK", b'{"input_tokens":7}', "Content-Type: application/json")

    gateway = await net.gateway(await net.upstream(counts), attribution=attribution)
    body = {"model": "claude", "messages": MESSAGES, "system": SYSTEM, "metadata": {"user_id": USER_ID}}
    answer = await gateway.ask("POST", "/v1/messages/count_tokens", body, headers=CLAUDE_CODE)
    assert (answer.status, answer.json["input_tokens"], asked[0]["system"]) == (200, 7, rest)


@on_uvloop
@pytest.mark.parametrize(("attribution", "rest"), [("auto", "You help."), ("keep", SYSTEM)])
async def test_a_large_request_is_sent_with_or_without_attribution(net: Net, attribution: str, rest: Any) -> None:
    gateway, asked = await chat(net, attribution=attribution)
    turns = [*MESSAGES, {"role": "assistant", "content": "Hello"}] * LIMITS.turn_containers
    body = {**MESSAGE, "system": SYSTEM, "messages": [*turns, *MESSAGES]}
    assert (await gateway.ask("POST", "/v1/messages", body)).status == 200
    assert (asked[0]["messages"][0]["content"], len(asked[0]["messages"])) == (rest, len(turns) + 2)
