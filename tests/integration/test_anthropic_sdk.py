"""The official Anthropic client, unmodified, against a running gateway.

Its upstream speaks Anthropic's dialect, so that bytes pass through, or another one, so that answers are translated.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import anthropic
import pytest

from gai_fast.cli.mock.command import Fault
from gai_fast.model.settings import KeySettings, key_digest
from gai_fast.server.serving import start
from tests.integration.certificates import NO_CERTIFICATES
from tests.integration.gateway import (
    DONE,
    FINISH,
    LAST_CHUNK,
    SSE_HEAD,
    Gateway,
    Net,
    Peer,
    delta,
    on_both_loops,
    on_steady_loop,
    on_uvloop,
)
from tests.unit.formats.messages_reader import ANSWER, BEGIN, CLOSE, COUNT, OPEN, OVERLOADED, STOP
from tests.unit.formats.messages_reader import delta as text_delta
from tests.wire import chunk

MESSAGES: Any = [{"role": "user", "content": "hi"}]
ASK: Any = {"max_tokens": 64, "messages": MESSAGES}
TOOLS: Any = [{"name": "weather", "input_schema": {"type": "object"}}]
RAW = {"model": "claude", "stream": True, **ASK}


def client_of(net: Net, gateway: Gateway, **options: Any) -> anthropic.AsyncAnthropic:
    http_client = anthropic.DefaultAsyncHttpxClient(verify=NO_CERTIFICATES)
    options = {"api_key": "none", "max_retries": 0, "http_client": http_client, **options}
    client = anthropic.AsyncAnthropic(base_url=gateway.url, **options)
    net.stack.push_async_callback(client.close)
    return client


async def upstream_of(net: Net, *frames: bytes, asked: list[Any] | None = None) -> Any:
    """Returns an upstream that answers every request with these frames."""

    async def handler(peer: Peer) -> None:
        while True:
            body = await peer.request()
            if asked is not None:
                asked.append((peer.head.decode(), json.loads(body)))
            await peer.send(SSE_HEAD, *map(chunk, frames), LAST_CHUNK)

    return await net.upstream(handler)


@on_both_loops
@pytest.mark.parametrize("model", ["m", "claude"])
async def test_messages_streamed_and_not(net: Net, model: str) -> None:
    gateway = await net.gateway(await net.mock(deltas=8))
    messages = client_of(net, gateway).messages
    async with messages.stream(model=model, **ASK) as stream:
        text = "".join([piece async for piece in stream.text_stream])
        final = await stream.get_final_message()
    whole = await messages.create(model=model, **ASK)
    assert text.startswith("Once upon")
    assert [block.text for block in (*final.content, *whole.content) if block.type == "text"] == [text, text]
    assert (final.stop_reason, whole.stop_reason) == ("end_turn", "end_turn")
    assert (final.usage.output_tokens, whole.usage.output_tokens) == (8, 8)
    assert final.usage.input_tokens == whole.usage.input_tokens > 0
    events = [event.type async for event in await messages.create(model=model, stream=True, **ASK)]
    assert events[:2] == ["message_start", "content_block_start"]
    assert events[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert events.count("content_block_delta") == 8
    raw = await messages.with_raw_response.create(model=model, **ASK, extra_headers={"X-Request-Id": "my-id"})
    assert raw.headers["request-id"] == "my-id"


@on_uvloop
async def test_an_upstream_of_the_dialect_is_passed_through_with_its_bytes(net: Net) -> None:
    asked: list[Any] = []
    gateway = await net.gateway(await upstream_of(net, ANSWER, asked=asked))
    body = {**RAW, "top_k": 5, "system": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}]}
    for version in ("2023-06-01", "2026-10-21"):
        headers = {"anthropic-version": version, "anthropic-beta": "one-2026-01-01, ,two-2026-01-01,"}
        response = await gateway.ask("POST", "/v1/messages", body, headers)
        assert response.status == 200
        assert response.body == ANSWER
        head, sent = asked.pop()
        assert sent == {**body, "model": "mock"}
        assert f"anthropic-version: {version}\r\n" in head
        assert "anthropic-beta: one-2026-01-01,two-2026-01-01\r\n" in head
    response = await gateway.ask("POST", "/v1/messages", RAW)
    assert "anthropic-version: 2026-10-21\r\n" in asked.pop()[0]
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"


@on_uvloop
@pytest.mark.parametrize("query", ["?framing=ndjson", "?format=gai"])
async def test_anthropic_is_asked_in_its_own_words_where_its_answer_is_translated(net: Net, query: str) -> None:
    """Nothing of the request is lost: tools that Anthropic runs, marks of its cache, a conversation that it stores."""
    asked: list[Any] = []
    gateway = await net.gateway(await upstream_of(net, ANSWER, asked=asked))
    tools = [{"type": "web_search_20250305", "name": "web_search"}]
    cached = [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}]
    more = {"top_k": 5, "system": cached, "tools": tools, "thread": {"type": "create"}}
    headers = {"anthropic-beta": "threads-2026-10-21"}
    body = {**RAW, **more}
    response = await gateway.ask("POST", f"/v1/messages{query}", body, headers)
    assert response.status == 200
    head, sent = asked.pop()
    assert sent == {**body, "model": "mock"}
    assert "anthropic-beta: threads-2026-10-21\r\n" in head
    for name in ("container", "mcp_servers"):
        response = await gateway.ask("POST", f"/v1/messages{query}", {**body, name: ["x"]})
        assert response.status == 200
        assert asked.pop()[1] == {**body, "model": "mock", name: ["x"]}


@on_uvloop
@pytest.mark.parametrize(
    "headers", [{"anthropic-version": "latest"}, {"anthropic-beta": "a b"}, {"anthropic-beta": ",".join("x" * 65)}]
)
async def test_headers_that_cannot_be_passed_on_are_refused(net: Net, headers: dict[str, str]) -> None:
    gateway = await net.gateway(await net.mock())
    response = await gateway.ask("POST", "/v1/messages", RAW, headers)
    assert response.status == 400
    assert response.json["error"]["type"] == "invalid_request_error"
    assert f"`{next(iter(headers))}`" in response.json["error"]["message"]
    # They matter to an upstream of the dialect only.
    assert (await gateway.ask("POST", "/v1/messages", {**RAW, "model": "m"}, headers)).status == 200


@on_uvloop
async def test_reasoning_of_other_providers_does_not_go_to_anthropic(net: Net) -> None:
    asked: list[Any] = []
    gateway = await net.gateway(await upstream_of(net, ANSWER, asked=asked))
    foreign = {"type": "thinking", "thinking": "Hm", "signature": 'gai:{"provider":"gemini","signature":"s"}'}
    earlier = {"role": "assistant", "content": [foreign, {"type": "text", "text": "Hi"}]}
    await gateway.ask("POST", "/v1/messages", {**RAW, "messages": [*MESSAGES, earlier, *MESSAGES]})
    assert asked[0][1]["messages"][1] == {"role": "assistant", "content": [{"type": "text", "text": "Hi"}]}


@on_uvloop
@pytest.mark.parametrize("model", ["m", "claude"])
async def test_a_tool_round_trip(net: Net, model: str) -> None:
    asked: list[Any] = []
    calls = [
        {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"city": '}},
        {"index": 0, "function": {"arguments": '"Oslo"}'}},
    ]
    if model == "m":
        frames = [delta("", delta={"tool_calls": [call]}) for call in calls]
        frames += [delta("", delta={}, finish_reason="tool_calls"), b"data: [DONE]\n\n"]
    else:
        block = {"type": "tool_use", "id": "call_1", "name": "weather", "input": {}}
        opened = {"type": "content_block_start", "index": 0, "content_block": block}
        piece = {"type": "input_json_delta", "partial_json": '{"city": "Oslo"}'}
        part = {"type": "content_block_delta", "index": 0, "delta": piece}
        frames = [f"event: {one['type']}\ndata: {json.dumps(one)}\n\n".encode() for one in (opened, part)]
        frames = [BEGIN, *frames, CLOSE, COUNT.replace(b"end_turn", b"tool_use"), STOP]
    gateway = await net.gateway(await upstream_of(net, *frames, asked=asked))
    messages = client_of(net, gateway).messages
    async with messages.stream(model=model, tools=TOOLS, **ASK) as stream:
        final = await stream.get_final_message()
    (use,) = final.content
    assert final.stop_reason == "tool_use"
    assert use.type == "tool_use"
    assert (use.id, use.name, use.input) == ("call_1", "weather", {"city": "Oslo"})
    result: Any = {"type": "tool_result", "tool_use_id": use.id, "content": "4 °C"}
    turns = [*MESSAGES, {"role": "assistant", "content": final.content}, {"role": "user", "content": [result]}]
    await messages.create(model=model, tools=TOOLS, max_tokens=9, messages=turns)
    sent = asked[-1][1]["messages"]
    if model == "m":
        assert [message["role"] for message in sent] == ["user", "assistant", "tool"]
        assert json.loads(sent[1]["tool_calls"][0]["function"]["arguments"]) == {"city": "Oslo"}
        assert (sent[2]["tool_call_id"], sent[2]["content"]) == ("call_1", "4 °C")
    else:
        assert sent[2]["content"] == [result]


@on_uvloop
async def test_the_sdks_tool_runner_sends_whole_conversations_to_other_upstreams(net: Net) -> None:
    asked: list[Any] = []
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}

    async def handler(peer: Peer) -> None:
        while True:
            asked.append(json.loads(await peer.request()))
            first = asked[-1]["messages"][-1]["role"] == "user"
            frames = [delta("", delta={"tool_calls": [call]}) if first else delta("4 °C")]
            frames += [delta("", delta={}, finish_reason="tool_calls" if first else "stop"), b"data: [DONE]\n\n"]
            await peer.send(SSE_HEAD, *map(chunk, frames), LAST_CHUNK)

    @anthropic.beta_async_tool
    async def weather() -> str:
        """Returns the weather."""
        return "4 °C"

    gateway = await net.gateway(await net.upstream(handler), on_unsupported="drop")
    runner = client_of(net, gateway).beta.messages.tool_runner(model="m", tools=[weather], stream=True, **ASK)
    async for stream in runner:
        message = await stream.get_final_message()
    assert [block.text for block in message.content if block.type == "text"] == ["4 °C"]
    assert [message["role"] for message in asked[-1]["messages"]] == ["user", "assistant", "tool"]


@on_uvloop
async def test_reasoning_is_thinking(net: Net) -> None:
    frames = [delta("", delta={"reasoning_content": "Hm"}), delta("Hi"), delta("", delta={}, finish_reason="stop")]
    gateway = await net.gateway(await upstream_of(net, *frames))
    whole = await client_of(net, gateway).messages.create(model="m", **ASK)
    assert [block.type for block in whole.content] == ["thinking", "text"]


ERRORS: dict[str, tuple[str, str, type[anthropic.APIStatusError]]] = {
    "429": ("429 Too Many Requests", "rate_limit_error", anthropic.RateLimitError),
    "400": ("400 Bad Request", "invalid_request_error", anthropic.BadRequestError),
    "404": ("404 Not Found", "not_found_error", anthropic.NotFoundError),
    "413": ("413 Content Too Large", "request_too_large", anthropic.APIStatusError),
    "500": ("500 Internal Server Error", "api_error", anthropic.InternalServerError),
    "529": ("529 Overloaded", "overloaded_error", anthropic.APIStatusError),
}


@on_uvloop
@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("model", ["m", "claude"])
async def test_errors_are_the_exceptions_that_programs_catch(net: Net, name: str, model: str) -> None:
    status, kind, expected = ERRORS[name]

    async def handler(peer: Peer) -> None:
        while True:
            await peer.request()
            error = {"type": kind, "message": "as they said it"}
            body = json.dumps({"type": "error", "error": error, "request_id": "theirs"}).encode()
            await peer.answer(status, body, "Content-Type: application/json")

    gateway = await net.gateway(await net.upstream(handler))
    client = client_of(net, gateway)
    for stream in (True, False):
        with pytest.raises(expected) as caught:
            await client.messages.create(model=model, stream=stream, **ASK)
        assert caught.value.status_code == int(name)
        assert caught.value.api_message == "as they said it"
        assert caught.value.request_id is not None
        assert caught.value.request_id != "theirs"
        assert caught.value.type == kind
        if model == "m":
            assert caught.value.error_code


@on_uvloop
async def test_our_own_refusals_are_its_exceptions_too(net: Net) -> None:
    gateway = await net.gateway(await net.mock(fault=Fault("refuse")))
    client = client_of(net, gateway)
    with pytest.raises(anthropic.NotFoundError, match="Unknown model"):
        await client.messages.create(model="nobody", **ASK)
    with pytest.raises(anthropic.BadRequestError, match="gai-fast cannot say `container` to") as caught:
        await client.messages.create(model="m", extra_body={"container": "c"}, **ASK)
    assert caught.value.error_code == "unsupported"
    with pytest.raises(anthropic.InternalServerError) as failed:
        await client.messages.create(model="claude", **ASK)
    assert (failed.value.status_code, failed.value.type, failed.value.error_code) == (502, "api_error", "network")


@on_uvloop
async def test_refusals_of_the_path_have_the_dialects_shape(net: Net) -> None:
    gateway = await net.gateway(await net.mock())
    for method, path, status, kind in (
        ("GET", "/v1/messages", 405, "invalid_request_error"),
        ("POST", "/v1/messages/batches", 404, "not_found_error"),
    ):
        response = await gateway.ask(method, path, RAW if method == "POST" else None)
        assert response.status == status
        assert response.json["type"] == "error"
        assert response.json["error"]["type"] == kind
        assert response.json["request_id"] == response.headers["request-id"]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"messages": "hi"}, "$.messages"),
    ({"messages": [{"role": "user", "content": [{"type": "image", "source": []}]}]}, "$.messages[0].content[0].source"),
    ({"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "x"}]}]}, "tool_use_id"),
    ({"thinking": {"type": "enabled", "budget_tokens": "many"}}, "$.thinking.budget_tokens"),
]


@on_uvloop
@pytest.mark.parametrize(("member", "path"), WRONG, ids=lambda one: str(one)[:30])
async def test_a_wrong_member_is_named_by_its_path(net: Net, member: dict[str, Any], path: str) -> None:
    gateway = await net.gateway(await net.mock())
    response = await gateway.ask("POST", "/v1/messages", {**RAW, "model": "m", **member})
    assert response.status == 400
    assert response.json["error"]["message"].endswith(f"{path}`")


@on_steady_loop
@pytest.mark.parametrize("kind", ["cut", "reset", "error-event", "stall"])
@pytest.mark.parametrize("model", ["m", "claude"])
async def test_a_stream_that_breaks_is_an_error_and_never_a_silent_success(net: Net, kind: str, model: str) -> None:
    gateway = await net.gateway(await net.mock(deltas=8, fault=Fault(kind, 3)), idle_timeout=0.2)
    got = 0
    with pytest.raises(anthropic.APIStatusError) as caught:
        async with client_of(net, gateway).messages.stream(model=model, **ASK) as stream:
            async for event in stream:
                got += event.type == "text"
    assert got == 3
    assert caught.value.type


@on_uvloop
async def test_an_overloaded_upstream_is_reported_in_the_stream(net: Net) -> None:
    gateway = await net.gateway(await upstream_of(net, BEGIN, OPEN, text_delta("Hi"), OVERLOADED))
    with pytest.raises(anthropic.APIStatusError) as caught:
        async with client_of(net, gateway).messages.stream(model="claude", **ASK) as stream:
            await stream.until_done()
    assert caught.value.type == "overloaded_error"


@on_uvloop
async def test_an_attempt_that_failed_before_its_first_content_leaves_nothing_behind(net: Net) -> None:
    asked = 0

    async def handler(peer: Peer) -> None:
        nonlocal asked
        while True:
            await peer.request()
            asked += 1
            frames = (BEGIN, OPEN, OVERLOADED) if asked == 1 else (ANSWER,)
            await peer.send(SSE_HEAD, *map(chunk, frames), LAST_CHUNK)

    gateway = await net.gateway(await net.upstream(handler), retries=1)
    response = await gateway.ask("POST", "/v1/messages", RAW)
    assert asked == 2
    assert response.body == ANSWER


@on_steady_loop
@pytest.mark.parametrize("model", ["m", "claude"])
async def test_pings_keep_a_silent_stream_alive(net: Net, model: str) -> None:
    gateway = await net.gateway(await net.mock(deltas=3, ttft=0.5), heartbeat=0.1, commit_after=0.1)
    response = await gateway.ask("POST", "/v1/messages", {**RAW, "model": model})
    assert b'event: ping\ndata: {"type":"ping"}\n\n' in response.body
    assert b"\n: ping" not in response.body
    async with client_of(net, gateway).messages.stream(model=model, **ASK) as stream:
        assert (await stream.get_final_message()).stop_reason == "end_turn"


@on_uvloop
async def test_a_key_comes_as_the_sdk_sends_it(net: Net) -> None:
    keys = (KeySettings("app", (key_digest("sk-app"),)),)
    gateway = await net.gateway(await net.mock(), keys=keys)
    assert (await client_of(net, gateway, api_key="sk-app").messages.create(model="m", **ASK)).content
    bearer = client_of(net, gateway, api_key=None, auth_token="sk-app")
    assert (await bearer.messages.create(model="m", **ASK)).content
    with pytest.raises(anthropic.AuthenticationError):
        await client_of(net, gateway).messages.create(model="m", **ASK)


@on_uvloop
async def test_any_route_streams_in_the_format(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=3))
    response = await gateway.ask("POST", "/api/v1/stream?format=anthropic", {"query": "hi"})
    assert response.body.endswith(b'event: message_stop\ndata: {"type":"message_stop"}\n\n')
    lines = await gateway.ask("POST", "/v1/messages?framing=ndjson", RAW)
    assert lines.headers["content-type"] == "application/x-ndjson"
    assert [json.loads(line)["type"] for line in lines.body.splitlines()][-1] == "message_stop"
    other = await gateway.ask("POST", "/v1/messages?format=openai", RAW)
    assert other.body.endswith(b"data: [DONE]\n\n")


# ---- counts of tokens ------------------------------------------------------------------------------------------------


@on_both_loops
async def test_anthropic_counts_tokens_itself(net: Net) -> None:
    asked: list[Any] = []

    async def handler(peer: Peer) -> None:
        while True:
            asked.append((json.loads(await peer.request()), peer.head.decode()))
            await peer.answer("200 OK", b'{"input_tokens": 12, "more": 1}', "Content-Type: application/json")

    gateway = await net.gateway(await net.upstream(handler))
    count = await client_of(net, gateway).messages.count_tokens(model="claude", messages=MESSAGES)
    assert count.input_tokens == 12
    response = await gateway.ask("POST", "/v1/messages/count_tokens", {"model": "claude", "messages": MESSAGES, "x": 1})
    assert response.body == b'{"input_tokens": 12, "more": 1}'
    assert "x-gai-usage-source" not in response.headers
    sent, head = asked[-1]
    assert sent == {"model": "mock", "messages": MESSAGES, "x": 1}
    assert head.startswith("POST /v1/messages/count_tokens ")


@on_uvloop
async def test_tokens_are_estimated_where_the_upstream_counts_none(net: Net) -> None:
    gateway = await net.gateway(await net.mock())
    body = {"model": "m", "messages": [{"role": "user", "content": "x" * 41}], "system": "Be brief."}
    response = await gateway.ask("POST", "/v1/messages/count_tokens", body)
    assert response.json == {"input_tokens": 13}
    assert response.headers["x-gai-usage-source"] == "estimated"
    client = client_of(net, gateway)
    assert (await client.messages.count_tokens(model="m", messages=MESSAGES, tools=TOOLS)).input_tokens > 1
    with pytest.raises(anthropic.BadRequestError, match="messages"):
        await client.messages.count_tokens(model="m", messages=[])
    with pytest.raises(anthropic.NotFoundError):
        await client.messages.count_tokens(model="nobody", messages=MESSAGES)


@on_uvloop
@pytest.mark.parametrize(
    ("answer", "status", "code"),
    [
        (b'{"tokens": 12}', 503, "provider_unavailable"),
        (b"data: {}\n\n" * 3, 503, "provider_unavailable"),
        (b"", 502, "network"),
    ],
    ids=["no count", "a stream", "nothing"],
)
async def test_what_is_no_count_is_an_error(net: Net, answer: bytes, status: int, code: str) -> None:
    async def handler(peer: Peer) -> None:
        while True:
            await peer.request()
            kind = "text/event-stream" if answer.startswith(b"data") else "application/json"
            await peer.answer("200 OK", answer, f"Content-Type: {kind}")

    gateway = await net.gateway(await net.upstream(handler))
    with pytest.raises(anthropic.APIStatusError) as caught:
        await client_of(net, gateway).messages.count_tokens(model="claude", messages=MESSAGES)
    assert (caught.value.status_code, caught.value.error_code) == (status, code)


@on_uvloop
async def test_an_error_of_a_count_is_anthropics_own(net: Net) -> None:
    async def handler(peer: Peer) -> None:
        while True:
            await peer.request()
            body = json.dumps({"type": "error", "error": {"type": "invalid_request_error", "message": "no"}}).encode()
            await peer.answer("400 Bad Request", body, "Content-Type: application/json")

    gateway = await net.gateway(await net.upstream(handler))
    with pytest.raises(anthropic.BadRequestError) as caught:
        await client_of(net, gateway).messages.count_tokens(model="claude", messages=MESSAGES)
    assert caught.value.api_message == "no"


@on_uvloop
async def test_a_request_of_another_dialect_is_not_passed_through(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=3))
    chat = {"model": "claude", "stream": True, "messages": [{"role": "system", "content": "x"}, *MESSAGES]}
    response = await gateway.ask("POST", "/v1/chat/completions?format=anthropic", chat)
    assert response.status == 200
    assert response.body.endswith(b'data: {"type":"message_stop"}\n\n')
    assert b'"id":"msg_' + response.headers["x-gai-stream-id"].encode() in response.body


async def with_fallback(net: Net, upstream: Any) -> Gateway:
    """Returns a gateway whose model `claude` has the fallback `m`."""
    settings = (await net.gateway(upstream)).running.engine.settings
    claude = dataclasses.replace(settings.models["claude"], fallback=("m",))
    running = await start(dataclasses.replace(settings, models={**settings.models, "claude": claude}))
    net.stack.push_async_callback(running.close)
    return Gateway(net, running)


@on_uvloop
async def test_tokens_are_not_counted_for_another_model(net: Net) -> None:
    async def handler(peer: Peer) -> None:
        while True:
            await peer.request()
            body = json.dumps({"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}).encode()
            await peer.answer("529 Overloaded", body, "Content-Type: application/json")

    gateway = await with_fallback(net, await net.upstream(handler))
    with pytest.raises(anthropic.APIStatusError) as caught:
        await client_of(net, gateway).messages.count_tokens(model="claude", messages=MESSAGES)
    assert caught.value.status_code == 529


@on_uvloop
async def test_a_fallback_of_another_dialect_goes_on_after_the_head_of_the_message(net: Net) -> None:
    async def handler(peer: Peer) -> None:
        while True:
            is_claude = b'"max_tokens"' in await peer.request() and "/v1/messages" in peer.head.decode()
            frames = (BEGIN, OPEN, OVERLOADED) if is_claude else (delta("Hi"), FINISH, DONE)
            await peer.send(SSE_HEAD, *map(chunk, frames), LAST_CHUNK)

    gateway = await with_fallback(net, await net.upstream(handler))
    async with client_of(net, gateway).messages.stream(model="claude", **ASK) as stream:
        kinds = [event.type async for event in stream]
        final = await stream.get_final_message()
    assert [block.text for block in final.content if block.type == "text"] == ["Hi"]
    assert (kinds.count("message_start"), kinds.count("content_block_start")) == (1, 1)


@on_uvloop
async def test_beta_features_are_asked_for_as_the_sdk_does(net: Net) -> None:
    asked: list[Any] = []
    gateway = await net.gateway(await upstream_of(net, ANSWER, asked=asked))
    messages = client_of(net, gateway).beta.messages
    async with messages.stream(model="claude", betas=["one-2026-01-01", "two-2026-01-01"], **ASK) as stream:
        assert (await stream.get_final_message()).stop_reason == "end_turn"
    head, sent = asked[0]
    assert "anthropic-beta: one-2026-01-01,two-2026-01-01\r\n" in head
    assert "betas" not in sent
