"""Requests to an upstream, over a running gateway: fields that have no place, and turns that are sent back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import openai
import pytest

from gai_fast.server.serving import start
from tests.integration.gateway import (
    DONE,
    FINISH,
    LAST_CHUNK,
    MESSAGES,
    SSE_HEAD,
    Gateway,
    Net,
    Peer,
    delta,
    on_uvloop,
    settings_for,
)
from tests.wire import chunk

SIGNATURE = "EqQBCgIYAhIM1gbcDa9GJwZA2b3h/Mse+g=="
OPAQUE = "EmwKAhgBEgy3va3pzix/LafPsn4aDF=="
THOUGHT_SIGNATURE = "CsgBAXLI2nyWqV1w/8y+KiG="

THINKING_TURN: list[Any] = [
    {"type": "thinking", "thinking": "Weather? Ask.", "signature": SIGNATURE},
    {"type": "redacted_thinking", "data": OPAQUE},
    {"type": "thinking", "thinking": "Oslo is “north”.", "signature": SIGNATURE[::-1]},
    {"type": "text", "text": "Let me look."},
    {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Oslo", "n": 12345678901234567890}},
]
RESULT = [{"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "4 °C"}]}]


def frame(kind: str, **members: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), json.dumps({"type": kind, **members}).encode())


def anthropic_stream() -> bytes:
    """`THINKING_TURN` as Anthropic streams it."""
    usage = {"input_tokens": 9, "output_tokens": 1}
    head = {"id": "msg_1", "role": "assistant", "model": "claude", "content": [], "usage": usage}
    body = frame("message_start", message=head)
    for index, block in enumerate(THINKING_TURN):
        deltas: list[dict[str, Any]] = []
        begin = dict(block)
        if block["type"] == "thinking":
            begin |= {"thinking": "", "signature": ""}
            deltas = [{"type": "thinking_delta", "thinking": character} for character in block["thinking"]]
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
        elif block["type"] == "text":
            begin["text"] = ""
            deltas = [{"type": "text_delta", "text": word} for word in ("Let me", " look.")]
        elif block["type"] == "tool_use":
            begin["input"] = {}
            text = json.dumps(block["input"])
            deltas = [{"type": "input_json_delta", "partial_json": text[at : at + 9]} for at in range(0, len(text), 9)]
        body += frame("content_block_start", index=index, content_block=begin)
        body += b"".join(frame("content_block_delta", index=index, delta=one) for one in deltas)
        body += frame("content_block_stop", index=index)
    body += frame("message_delta", delta={"stop_reason": "tool_use"}, usage={"output_tokens": 20})
    return body + frame("message_stop")


def recording(asked: list[Any], answer: bytes) -> Callable[[Peer], Any]:
    """Returns an upstream that keeps the bodies it got."""

    async def handler(peer: Peer) -> None:
        while True:
            asked.append(json.loads(await peer.request()))
            await peer.send(SSE_HEAD, chunk(answer), LAST_CHUNK)

    return handler


async def anthropic(net: Net, **options: Any) -> tuple[Gateway, list[Any]]:
    asked: list[Any] = []
    upstream = await net.upstream(recording(asked, anthropic_stream()))
    return await net.gateway(upstream, **options), asked


@on_uvloop
@pytest.mark.parametrize("stream", [True, False])
async def test_a_thinking_turn_comes_back_verbatim_through_the_openai_sdk(net: Net, stream: bool) -> None:
    gateway, asked = await anthropic(net)
    client = openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0)
    net.stack.push_async_callback(client.close)
    messages: list[Any] = [*MESSAGES]
    if stream:
        async with client.chat.completions.stream(model="claude", messages=messages) as events:
            answer = await events.get_final_completion()
        said = answer.choices[0].message.model_dump(exclude={"parsed"}, exclude_none=True)
        for call in said["tool_calls"]:
            call["function"].pop("parsed_arguments", None)
    else:
        said = (await client.chat.completions.create(model="claude", messages=messages)).choices[0].message.model_dump()
    messages += [said, {"role": "tool", "tool_call_id": "toolu_1", "content": "4 °C"}]
    await client.chat.completions.create(model="claude", messages=messages)
    assert asked[1]["messages"][1:] == [
        {"role": "assistant", "content": THINKING_TURN},
        {"role": "user", "content": RESULT},
    ]


@on_uvloop
async def test_a_thinking_turn_comes_back_verbatim_through_the_native_route(net: Net) -> None:
    gateway, asked = await anthropic(net)
    first = {"model": "claude", "query": "Weather?", "stream": False}
    answer = await gateway.ask("POST", "/api/v1/stream", first)
    messages = [
        {"role": "user", "content": "Weather?"},
        answer.json["message"],
        {"role": "tool", "call_id": "toolu_1", "content": "4 °C"},
    ]
    await gateway.ask("POST", "/api/v1/stream", {"model": "claude", "messages": messages, "stream": False})
    assert asked[1]["messages"][1:] == [
        {"role": "assistant", "content": THINKING_TURN},
        {"role": "user", "content": RESULT},
    ]


@on_uvloop
async def test_the_signature_of_a_call_comes_back_where_it_was(net: Net) -> None:
    asked: list[Any] = []
    call = {
        "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"},
        "extra_content": {"google": {"thought_signature": THOUGHT_SIGNATURE}},
    }  # fmt: skip
    body = delta("", delta={"tool_calls": [{"index": 0, **call}]}) + FINISH + DONE
    gateway = await net.gateway(await net.upstream(recording(asked, body)))
    answer = await gateway.ask("POST", "/api/v1/stream", {"query": "Weather?", "stream": False})
    messages = [answer.json["message"], {"role": "tool", "call_id": "call_1", "content": "4 °C"}]
    await gateway.ask("POST", "/api/v1/stream", {"messages": messages, "stream": False})
    assert asked[1]["messages"][0]["tool_calls"] == [call]


@on_uvloop
async def test_what_the_upstream_has_no_place_for_is_refused_by_name(net: Net) -> None:
    gateway, asked = await anthropic(net)
    native = await gateway.ask("POST", "/api/v1/stream", {"model": "claude", "query": "Hi", "seed": 1})
    chat = await gateway.chat(model="claude", logprobs=True)
    assert (native.status, native.error["code"], native.error["reason"]) == (400, "unsupported", "field")
    assert native.error["message"] == "anthropic does not support `seed`"
    assert (chat.status, chat.error["code"]) == (400, "unsupported")
    assert chat.error["message"] == "anthropic does not support `logprobs`"
    assert asked == []


@on_uvloop
async def test_or_left_out_and_logged_where_that_is_configured(net: Net, caplog: pytest.LogCaptureFixture) -> None:
    gateway, asked = await anthropic(net, on_unsupported="drop")
    with caplog.at_level("INFO", "gai_fast.engine"):
        audio = {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}
        content = [{"type": "text", "text": "Hi"}, audio]
        messages = [{"role": "user", "content": content}]
        answer = await gateway.chat(
            model="claude", messages=messages, seed=1, logprobs=True, **{"odd\nname": 1, "logit_bias": {"1": 5}}
        )
    assert answer.status == 200
    assert asked[0]["messages"] == [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
    assert asked[0].keys() == {"model", "max_tokens", "messages", "stream"}
    [line] = [record.getMessage() for record in caplog.records if record.name == "gai_fast.engine"]
    fields = "'odd\\nname', 'seed', 'messages[0].content[1]', 'logit_bias', 'logprobs'"
    assert line.endswith(f"upstream anthropic has no place for {fields}: left out")


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("form", ["openai", "gai", "anthropic", "responses", "vercel", "agui", "simple"])
@on_uvloop
async def test_headers_name_what_the_answering_request_lacks_in_every_format(net: Net, form: str, whole: bool) -> None:
    gateway, _ = await anthropic(net)
    asked = {"model": "claude", "query": "Hi", "seed": 1, "stream": not whole}
    answer = await gateway.ask("POST", f"/api/v1/stream?format={form}", asked, {"x-gai-unsupported": "drop"})
    assert answer.status == 200
    assert answer.headers["x-gai-dropped"] == "seed"
    assert "x-gai-adjusted" not in answer.headers


@on_uvloop
async def test_a_warning_follows_the_start_of_a_changed_request(net: Net) -> None:
    gateway, _ = await anthropic(net, on_unsupported="drop")
    answer = await gateway.ask("POST", "/api/v1/stream", {"model": "claude", "query": "Hi", "seed": 1})
    assert answer.types[:2] == ["start", "warning"]
    assert (answer.events[1]["reason"], answer.events[1]["seq"]) == ("request_changed", 2)
    assert answer.events[1]["provider_metadata"] == {"dropped": ["seed"], "adjusted": {}}
    unchanged = await gateway.ask("POST", "/api/v1/stream", {"model": "claude", "query": "Hi"})
    assert "warning" not in unchanged.types
    assert "x-gai-dropped" not in unchanged.headers


@on_uvloop
async def test_a_requests_own_choice_for_unsupported_fields_outranks_the_configuration(net: Net) -> None:
    gateway, asked = await anthropic(net, on_unsupported="drop")
    body = {"model": "claude", "query": "Hi", "seed": 1}
    refused = await gateway.ask("POST", "/api/v1/stream", body, {"x-gai-unsupported": "error"})
    assert (refused.status, refused.error["code"], refused.error["reason"]) == (400, "unsupported", "field")
    chat = {"model": "claude", "messages": MESSAGES, "seed": 1}
    refused = await gateway.ask("POST", "/v1/chat/completions", chat, {"x-gai-unsupported": "error"})
    assert (refused.status, refused.error["code"]) == (400, "unsupported")
    for path, asking in (("/api/v1/stream", body), ("/v1/chat/completions", chat)):
        refused = await gateway.ask("POST", path, asking, {"x-gai-unsupported": "Drop"})
        assert (refused.status, refused.error["code"]) == (400, "invalid_request")
        assert refused.error["message"] == "the header x-gai-unsupported must be one of: error, drop"
    assert asked == []


@on_uvloop
async def test_after_a_fallback_the_headers_are_those_of_the_request_that_answered(net: Net) -> None:
    async def busy(peer: Peer) -> None:
        await peer.request()
        await peer.answer("503 Service Unavailable", b"{}")

    failing = await net.upstream(busy)
    spare = await net.upstream(recording([], delta("Hi") + FINISH + DONE))
    settings = settings_for(spare.url, on_unsupported="drop")
    claude = settings.models["claude"]
    failed = dataclasses.replace(claude.upstream, base_url=failing.url)
    models = {**settings.models, "claude": dataclasses.replace(claude, upstream=failed, fallback=("m",))}
    running = await start(dataclasses.replace(settings, models=models))
    net.stack.push_async_callback(running.close)
    gateway = Gateway(net, running)
    answer = await gateway.ask("POST", "/api/v1/stream", {"query": "Hi", "seed": 1, "model": "claude"})
    assert (answer.status, answer.headers["x-gai-fallback"]) == (200, "true")
    assert "x-gai-dropped" not in answer.headers
    assert "warning" not in answer.types


@on_uvloop
async def test_a_long_list_is_not_logged_whole(net: Net, caplog: pytest.LogCaptureFixture) -> None:
    gateway, _ = await anthropic(net, on_unsupported="drop")
    with caplog.at_level("INFO", "gai_fast.engine"):
        fields = {f"{number:03}{'x' * 500}": 1 for number in range(50)}
        await gateway.chat(model="claude", **fields)
    [line] = [record.getMessage() for record in caplog.records if record.name == "gai_fast.engine"]
    assert "'031xxx" in line
    assert "'032" not in line
    assert "and 18 more" in line
    assert len(line) < 4000


@on_uvloop
async def test_unknown_fields_are_passed_on_to_an_upstream_of_the_same_dialect(net: Net) -> None:
    asked: list[Any] = []
    gateway = await net.gateway(await net.upstream(recording(asked, delta("Hi") + FINISH + DONE)))
    await gateway.chat(n=2, odd={"a": [1]}, seed=None)
    assert (asked[0]["n"], asked[0]["odd"], asked[0]["seed"]) == (2, {"a": [1]}, None)


@pytest.mark.parametrize(
    ("usage", "given", "expected"),
    [
        ("always", None, {"include_usage": True}),
        ("always", {"include_obfuscation": False}, {"include_obfuscation": False, "include_usage": True}),
        ("asked", None, None),
        ("asked", {"include_usage": True}, {"include_usage": True}),
    ],
)
@on_uvloop
async def test_usage_that_is_always_reported_is_asked_of_the_upstream(
    net: Net, usage: str, given: Any, expected: Any
) -> None:
    asked: list[Any] = []
    upstream = await net.upstream(recording(asked, delta("Hi") + FINISH + DONE))
    gateway = await net.gateway(upstream, usage=usage)
    await gateway.chat(**({} if given is None else {"stream_options": given}))
    assert asked[0].get("stream_options") == expected


CUSTOM = {"name": "x", "input": "y"}
FULL_CHAT: dict[str, Any] = {
    "messages": [
        {"role": "developer", "content": "Be short.", "name": "house"},
        {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}]},
        {"role": "assistant", "refusal": "No.", "tool_calls": [{"id": "c1", "type": "custom", "custom": CUSTOM}]},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "4"}]},
        {"role": "user", "content": "And now?"},
    ],
    "metadata": {"a": "b"}, "store": True, "user": "u", "service_tier": "flex", "verbosity": "low", "seed": 7,
    "logit_bias": {"1": 5}, "frequency_penalty": 0.5, "presence_penalty": 0.25, "reasoning_effort": "xhigh",
    "max_completion_tokens": 900, "prompt_cache_key": "k", "safety_identifier": "s", "prediction": None,
    "web_search_options": {"search_context_size": "low"}, "parallel_tool_calls": False,
    "tools": [{"type": "custom", "custom": {"name": "x", "format": {"type": "text"}}}],
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
    "stream_options": {"include_obfuscation": False},
    "unknown_to_us": {"x": [1]},
}  # fmt: skip
"""Members that a native request has no place for, or says otherwise."""


@on_uvloop
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("between", ["key", "processor", "continue"])
async def test_a_chat_body_reaches_an_upstream_of_its_dialect_whole_whatever_is_between(
    net: Net, between: str, stream: bool
) -> None:
    """OpenAI's own members must survive features of the gateway: only the answer is handled otherwise."""
    asked: list[Any] = []
    upstream = await net.upstream(recording(asked, delta("Hi") + FINISH + DONE))
    options: dict[str, Any] = {"on_midstream_failure": "continue"} if between == "continue" else {}
    processors = ({"use": "filter", "drop": ["usage"]},) if between == "processor" else ()
    running = await start(dataclasses.replace(settings_for(upstream.url, **options), processors=processors))
    net.stack.push_async_callback(running.close)
    gateway = Gateway(net, running)
    headers = {"idempotency-key": "k1"} if between == "key" else {}
    body = {"model": "m", **FULL_CHAT, "stream": stream}
    answer = await gateway.ask("POST", "/v1/chat/completions", body, headers)
    assert answer.status == 200, answer.body
    is_passed = between == "key" and not stream
    asks_for_events = {"stream": True, "stream_options": {"include_obfuscation": False, "include_usage": True}}
    assert asked == [{**body, "model": "mock", **({} if is_passed else asks_for_events)}]


@on_uvloop
@pytest.mark.parametrize("member", [{"n": 2}, {"logprobs": True}])
async def test_an_answer_that_events_cannot_hold_is_passed_on_and_not_continued(net: Net, member: Any) -> None:
    asked: list[Any] = []
    upstream = await net.upstream(recording(asked, delta("Hi") + FINISH + DONE))
    gateway = await net.gateway(upstream, on_midstream_failure="continue")
    body = {"model": "m", "messages": MESSAGES, "stream": True, **member}
    assert (await gateway.ask("POST", "/v1/chat/completions", body)).status == 200
    assert member.items() <= asked[0].items()


SCORES = [
    {"token": "Hi", "logprob": -0.1, "bytes": [72, 105], "top_logprobs": [{"token": "Hi", "logprob": -0.1}]},
    {"token": "!", "logprob": -0.2, "bytes": [33], "top_logprobs": []},
]


def scored(text: str, at: int) -> bytes:
    return delta(text, logprobs={"content": [SCORES[at]], "refusal": None})


@pytest.mark.parametrize("stream", [True, False])
@on_uvloop
async def test_the_probabilities_of_tokens_reach_the_client_in_a_translated_answer(net: Net, stream: bool) -> None:
    asked: list[Any] = []
    body = scored("Hi", 0) + scored("!", 1) + FINISH + DONE
    gateway = await net.gateway(await net.upstream(recording(asked, body)))
    native = {"query": "Hi", "model": "m", "top_logprobs": 1, "stream": stream}
    answer = await gateway.ask("POST", "/api/v1/stream", native)
    assert (asked[0]["logprobs"], asked[0]["top_logprobs"]) == (True, 1)
    if stream:
        deltas = [event for event in answer.events if event["type"] == "text.delta"]
        assert [(event["text"], event["logprobs"]) for event in deltas] == [("Hi", SCORES[:1]), ("!", SCORES[1:])]
    else:
        assert answer.json["logprobs"] == SCORES
    chat = await gateway.ask("POST", "/api/v1/stream?format=openai", native)
    if stream:
        chunks = [json.loads(data) for data in chat.data if data.startswith("{")]
        result = [choice["logprobs"] for chunk in chunks for choice in chunk["choices"] if choice.get("logprobs")]
        assert result == [{"content": [score], "refusal": None} for score in SCORES]
    else:
        assert chat.json["choices"][0]["logprobs"] == {"content": SCORES, "refusal": None}


@on_uvloop
async def test_reasoning_between_tags_is_reasoning_for_every_client(net: Net) -> None:
    asked: list[Any] = []
    pieces = b"".join(delta(piece) for piece in ("<thi", "nk>hm", "</think", ">Yes"))
    upstream = await net.upstream(recording(asked, pieces + FINISH + DONE))
    gateway = await net.gateway(upstream, reasoning_tags="<think>")
    result = await gateway.ask("POST", "/api/v1/stream", {"query": "Hi", "model": "m", "stream": False})
    answer = json.loads(result.body)
    assert (answer["reasoning"], answer["text"]) == ("hm", "Yes")
    result = await gateway.ask("POST", "/v1/chat/completions", {"model": "m", "messages": MESSAGES})
    message = json.loads(result.body)["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("hm", "Yes")
