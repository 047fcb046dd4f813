"""OpenAI's Responses API: the official SDK against a running gateway, whatever its upstreams speak."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from typing import Any

import openai
import pytest
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from gai_fast.cli.mock.command import Fault
from gai_fast.server.serving import start
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
    settings_for,
)
from tests.integration.test_openai_sdk import client_of
from tests.unit.formats.responses_reader import frame, upstream
from tests.waiting import until
from tests.wire import chunk

EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
PATH = "/v1/responses"
ASK = {"model": "m", "input": "Tell me a story", "stream": True}


async def text_of(stream: Any) -> str:
    """Returns the text of a stream, taken as most programs take it; every event is one of the SDK's own, strictly."""
    pieces = []
    numbers = []
    async for event in stream:
        numbers.append(event.sequence_number)
        EVENT.validate_python(event.to_dict())
        if event.type == "response.output_text.delta":
            pieces.append(event.delta)
    assert numbers == list(range(len(numbers)))
    assert event.type == "response.completed"
    assert event.response.output_text == "".join(pieces)
    return "".join(pieces)


@on_both_loops
@pytest.mark.parametrize("model", ["m", "claude"])
async def test_responses_streamed_and_not(net: Net, model: str) -> None:
    gateway = await net.gateway(await net.mock(deltas=8))
    ask = client_of(net, gateway).responses
    text = await text_of(await ask.create(model=model, input="hi", stream=True))
    assert text.startswith("Once upon")
    whole = await ask.create(model=model, input=[{"role": "user", "content": "hi"}], instructions="Be brief.")
    assert (whole.output_text, whole.status, whole.instructions) == (text, "completed", "Be brief.")
    assert whole.usage is not None
    assert whole.usage.output_tokens == 8
    async with ask.stream(model=model, input="hi") as events:
        final = await events.get_final_response()
    assert final.output_text == text
    cut = await ask.create(model=model, input="hi", max_output_tokens=4)
    assert cut.status == "incomplete"
    assert cut.incomplete_details is not None
    assert cut.incomplete_details.reason == "max_output_tokens"
    raw = await ask.with_raw_response.create(model=model, input="hi", extra_headers={"X-Request-Id": "my-id"})
    assert raw.headers["x-request-id"] == "my-id"


async def serve(peer: Peer, *answers: list[bytes], asked: list[Any] | None = None) -> None:
    """Answers requests in turn, the last answer again and again."""
    number = 0
    while True:
        body = json.loads(await peer.request())
        if asked is not None:
            asked.append(body)
        await peer.send(SSE_HEAD)
        for piece in answers[min(number, len(answers) - 1)]:
            await peer.send(chunk(piece))
            await asyncio.sleep(0)
        await peer.send(LAST_CHUNK)
        number += 1


@on_both_loops
async def test_the_frames_of_an_upstream_of_the_dialect_pass_byte_for_byte(net: Net) -> None:
    frames = upstream(text=" ".join(f"word{number}" for number in range(300)))
    asked: list[Any] = []
    gateway = await net.gateway(await net.upstream(lambda peer: serve(peer, frames, asked=asked)))
    result = {"previous_response_id": "resp_1", "tools": [{"type": "web_search"}], "store": True, "unheard": [1]}
    response = await gateway.ask("POST", PATH, {**ASK, "model": "native/gpt-x", **result})
    assert bytes(response.body) == b"".join(frames)
    assert asked == [{**ASK, "model": "gpt-x", **result}]
    client = client_of(net, gateway)
    async with client.responses.stream(model="native/gpt-x", input="hi") as events:
        final = await events.get_final_response()
    assert final.output_text.endswith("word299")


@on_uvloop
async def test_a_whole_answer_passes_as_it_is(net: Net) -> None:
    whole = json.dumps({"id": "resp_theirs", "object": "response", "status": "completed", "output": []}, indent=1)

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.answer("200 OK", whole.encode(), "Content-Type: application/json")

    gateway = await net.gateway(await net.upstream(handler))
    response = await gateway.ask("POST", PATH, {"model": "native/gpt-x", "input": "hi"})
    assert response.body.decode() == whole


@on_uvloop
@pytest.mark.parametrize("passes", [True, False])
async def test_an_answer_that_is_cut_off_goes_on_with_its_numbers_and_fails(net: Net, passes: bool) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(SSE_HEAD)
        if passes:
            await peer.send(*(chunk(frame) for frame in upstream()[:6]))
        else:
            await peer.send(chunk(delta("Hi")), chunk(delta(" there")))
        peer.writer.close()

    gateway = await net.gateway(await net.upstream(handler))
    model = "native/gpt-x" if passes else "m"
    events = [
        event async for event in await client_of(net, gateway).responses.create(model=model, input="hi", stream=True)
    ]
    assert [event.sequence_number for event in events] == list(range(8))
    assert [event.type for event in events[-2:]] == ["error", "response.failed"]
    first, last = events[0], events[-1]
    assert last.response.id == first.response.id
    assert (last.response.status, last.response.error.code) == ("failed", "server_error")


@on_uvloop
async def test_a_failure_of_the_upstreams_own_is_passed_on_and_ends_the_response(net: Net) -> None:
    error = frame("error", 6, code="rate_limit_exceeded", message="slow", param=None)
    gateway = await net.gateway(await net.upstream(lambda peer: serve(peer, [*upstream()[:6], error, *upstream()[6:]])))
    response = await gateway.ask("POST", PATH, {**ASK, "model": "native/gpt-x"})
    begin = b"".join([*upstream()[:6], error])
    assert response.body.startswith(begin)
    rest = response.body[len(begin) :].decode()
    assert rest.startswith('event: response.failed\ndata: {"type":"response.failed","sequence_number":7,')
    assert '"id":"resp_theirs"' in rest
    assert '"error":{"code":"rate_limit_exceeded","message":"slow"}' in rest
    assert rest.count("event: ") == 1


@on_uvloop
async def test_an_attempt_that_failed_before_any_content_is_made_again_in_silence(
    net: Net, quick_retries: None
) -> None:
    """The SDK's helper refuses a response whose id changes, and the second answer has another one."""
    gateway = await net.gateway(
        await net.upstream(lambda peer: serve(peer, upstream()[:3], upstream(identifier="resp_second"))), retries=1
    )
    async with client_of(net, gateway).responses.stream(model="native/gpt-x", input="hi") as events:
        numbers = [event.sequence_number async for event in events]
        final = await events.get_final_response()
    assert (final.id, final.output_text) == ("resp_theirs", "Hi there")
    assert numbers == list(range(len(numbers)))


@on_uvloop
@pytest.mark.parametrize("more", [{"top_logprobs": 3}, {"input": [{"role": "critic", "content": "x"}]}])
async def test_a_request_that_can_only_be_passed_on_fails_with_its_first_attempt(
    net: Net, quick_retries: None, more: dict[str, Any]
) -> None:
    """Another response's frames may have no successor, and the answer to such a request cannot be translated."""
    gateway = await net.gateway(await net.upstream(lambda peer: serve(peer, upstream()[:3])), retries=1)
    response = await gateway.ask("POST", PATH, {**ASK, "model": "native/gpt-x", **more})
    assert response.ended
    assert b'"code":"network"' in response.body


@on_both_loops
@pytest.mark.parametrize("model", ["m", "native/gpt-x"])
async def test_a_response_in_the_background_is_asked_for_until_it_is_there(net: Net, model: str) -> None:
    go_on = asyncio.Event()
    asked: list[Any] = []

    async def handler(peer: Peer) -> None:
        asked.append(json.loads(await peer.request()))
        await peer.send(SSE_HEAD)
        frames = upstream() if model != "m" else [delta("Hi"), delta(" there"), FINISH, DONE]
        await peer.send(*(chunk(frame) for frame in frames[:-4]))
        await go_on.wait()
        await peer.send(*(chunk(frame) for frame in frames[-4:]), LAST_CHUNK)

    gateway = await net.gateway(await net.upstream(handler))
    ask = client_of(net, gateway).responses
    options: Any = {"tools": [{"type": "web_search"}]} if model != "m" else {}
    queued = await ask.create(model=model, input="hi", background=True, metadata={"a": "b"}, store=True, **options)
    assert (queued.status, queued.background, queued.metadata) == ("queued", True, {"a": "b"})
    await until(lambda: bool(asked))
    assert "background" not in asked[0]
    assert asked[0].get("tools") == options.get("tools")
    running = await ask.retrieve(queued.id)
    assert running.status in ("queued", "in_progress")
    go_on.set()
    await until(lambda: gateway.streams == 0)
    found = await ask.retrieve(queued.id)
    assert (found.id, found.status, found.output_text) == (queued.id, "completed", "Hi there")
    assert (await ask.cancel(queued.id)).status == "completed"


@on_both_loops
async def test_a_stream_in_the_background_goes_on_from_any_number(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=8))
    response = await gateway.ask("POST", PATH, {**ASK, "background": True})
    numbers = [event["sequence_number"] for event in response.events]
    identifier = response.events[0]["response"]["id"]
    assert response.headers["x-gai-stream-id"] == identifier.removeprefix("resp_")
    for number in (*numbers, 1000):
        rest = await gateway.ask("GET", f"{PATH}/{identifier}?stream=true&starting_after={number}")
        assert [event["sequence_number"] for event in rest.events][: len(numbers)] == (
            numbers[number + 1 :] if number < 1000 else rest.events and [1001]
        )
    whole = await gateway.ask("GET", f"{PATH}/{identifier}?stream=true")
    assert whole.body == response.body
    stream = await client_of(net, gateway).responses.retrieve(identifier, stream=True, starting_after=5)
    assert [event.sequence_number async for event in stream] == numbers[6:]
    async with client_of(net, gateway).responses.stream(response_id=identifier, starting_after=5) as events:
        assert [event.sequence_number async for event in events] == numbers[6:]


@on_both_loops
async def test_a_stream_in_the_background_outlives_its_client(net: Net) -> None:
    go_on = asyncio.Event()

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(SSE_HEAD, chunk(delta("Hi")))
        await go_on.wait()
        await peer.send(chunk(delta(" there")), chunk(FINISH), chunk(DONE), LAST_CHUNK)

    gateway = await net.gateway(await net.upstream(handler), detach_ttl=0.01)
    client, response = await gateway.stream({**ASK, "background": True}, PATH)
    await response.until(b'"Hi"')
    client.close()
    await asyncio.sleep(0.05)
    go_on.set()
    identifier = f"resp_{response.headers['x-gai-stream-id']}"
    rest = await gateway.ask("GET", f"{PATH}/{identifier}?stream=true&starting_after=4")
    assert rest.events[0]["delta"] == " there"
    assert rest.events[-1]["response"]["status"] == "completed"


@on_both_loops
async def test_a_response_in_the_background_is_cancelled(net: Net) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(SSE_HEAD, chunk(delta("Hi")))
        await peer.until_gone()

    gateway = await net.gateway(await net.upstream(handler))
    client, response = await gateway.stream({**ASK, "background": True}, PATH)
    await response.until(b'"Hi"')
    ask = client_of(net, gateway).responses
    identifier = f"resp_{response.headers['x-gai-stream-id']}"
    assert (await ask.cancel(identifier)).status == "cancelled"
    await response.rest()
    assert response.events[-1]["type"] == "response.incomplete"
    assert response.events[-1]["response"]["status"] == "cancelled"
    found = await ask.retrieve(identifier)
    assert (found.status, found.output_text) == ("cancelled", "Hi")
    client.close()


@on_uvloop
async def test_a_repeated_request_is_answered_once(net: Net) -> None:
    mock = await net.mock(deltas=4)
    gateway = await net.gateway(mock)
    body: dict[str, Any]
    for number, body in enumerate(({**ASK}, {**ASK, "stream": False}, {**ASK, "stream": False, "background": True})):
        key = {"idempotency-key": f"key-{number}"}
        first = await gateway.ask("POST", PATH, body, key)
        second = await gateway.ask("POST", PATH, body, key)
        assert second.headers["idempotent-replayed"] == "true"
        if body.get("background"):
            assert second.json["id"] == first.json["id"]
        else:
            assert second.body == first.body
        stream_id = first.headers.get("x-gai-stream-id") or first.json["id"].removeprefix("resp_")
        found = await gateway.ask("GET", f"{PATH}/resp_{stream_id}")
        assert found.json["object"] == "response"


REFUSED: dict[str, tuple[str, str, int, str]] = {
    "a response to be deleted": ("DELETE", "/resp_aaaaaaaaaaaaaaaaaaaaaa", 404, "there is no such response here"),
    "an unknown response": ("GET", "/resp_aaaaaaaaaaaaaaaaaaaaaa", 404, "there is no such response here"),
    "an id of another form": ("GET", "/chatcmpl-1", 404, "there is no such response here"),
    "the items of none": ("GET", "/resp_aaaaaaaaaaaaaaaaaaaaaa/input_items", 404, "there is no such response here"),
    "a cancel of nothing": ("POST", "/resp_aaaaaaaaaaaaaaaaaaaaaa/cancel", 404, "there is no such response here"),
    "a cancel by GET": ("GET", "/resp_aaaaaaaaaaaaaaaaaaaaaa/cancel", 405, "does not accept this method"),
    "a POST without cancel": ("POST", "/resp_aaaaaaaaaaaaaaaaaaaaaa", 405, "does not accept this method"),
    "no number": ("GET", "/resp_aaaaaaaaaaaaaaaaaaaaaa?stream=true&starting_after=-1", 400, "`starting_after`"),
    "no boolean": ("GET", "/resp_aaaaaaaaaaaaaaaaaaaaaa?stream=yes", 400, "`stream`"),
}


@on_uvloop
@pytest.mark.parametrize("name", REFUSED)
async def test_what_is_no_response_of_ours_is_refused(net: Net, name: str) -> None:
    method, path, status, words = REFUSED[name]
    gateway = await net.gateway()
    response = await gateway.ask(method, PATH + path, {} if method == "POST" else None)
    assert (response.status, words in response.error["message"]) == (status, True)
    assert response.error.keys() == {"message", "type", "param", "code"}


@on_uvloop
async def test_a_stream_of_another_format_is_no_response(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=2))
    stream = await gateway.ask("POST", "/api/v1/stream", {"query": "hi", "resumable": True})
    response = await gateway.ask("GET", f"{PATH}/resp_{stream.headers['x-gai-stream-id']}")
    assert response.status == 404


@on_uvloop
async def test_a_response_that_runs_and_is_not_kept_is_neither_retrieved_nor_cancelled(net: Net) -> None:
    """The SDK accepts JSON for all of these, and would take the state of a stream for a response."""

    async def quiet(peer: Peer) -> None:
        await peer.request()
        await peer.send(SSE_HEAD + chunk(delta("word")))
        await peer.until_gone()

    gateway = await net.gateway(await net.upstream(quiet))
    client = await gateway.connect()
    client.request("POST", PATH, ASK)
    stream_id = (await client.response()).headers["x-gai-stream-id"]
    ask = client_of(net, gateway).responses
    for call in (ask.retrieve, ask.cancel):
        with pytest.raises(openai.BadRequestError) as caught:
            await call(f"resp_{stream_id}")
        assert caught.value.code == "unsupported"
    client.close()


@on_uvloop
async def test_a_native_stream_in_this_format_resumes_by_the_numbers_of_its_log(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=4))
    whole = await gateway.ask("POST", "/api/v1/stream?format=responses", {"query": "hi", "resumable": True})
    assert [event["sequence_number"] for event in whole.events] == list(range(len(whole.events)))
    ids = [line for line in whole.body.decode().splitlines() if line.startswith("id: ")]
    stream_id = whole.headers["x-gai-stream-id"]
    rest = await gateway.ask(
        "GET", f"/api/v1/streams/{stream_id}?format=responses", headers={"last-event-id": ids[2].removeprefix("id: ")}
    )
    assert whole.body.endswith(rest.body)
    assert rest.events[-1]["response"]["output"] == whole.events[-1]["response"]["output"]


@on_uvloop
@pytest.mark.parametrize(
    ("member", "words"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools[0]"),
        ({"input": [{"type": "compaction", "encrypted_content": "x"}, {"role": "user", "content": "hi"}]}, "input[0]"),
        ({"include": ["an.unknown.word"]}, "include[0]"),
        ({"truncation": "auto"}, "truncation"),
    ],
)
async def test_what_only_its_own_upstream_can_do_is_refused_or_left_out(net: Net, member: Any, words: str) -> None:
    mock = await net.mock(deltas=2)
    gateway = await net.gateway(mock)
    with pytest.raises(openai.BadRequestError, match=r"gai-fast cannot say|does not support") as caught:
        await client_of(net, gateway).responses.create(**{"model": "m", "input": "hi", **member})
    assert words in caught.value.message
    assert caught.value.code == "unsupported"
    gateway = await net.gateway(mock, on_unsupported="drop")
    assert (await client_of(net, gateway).responses.create(**{"model": "m", "input": "hi", **member})).output_text


@on_uvloop
async def test_what_has_no_item_but_those_left_out_is_refused_by_their_paths(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=2), on_unsupported="drop")
    lost: Any = [{"type": "compaction", "encrypted_content": "x"}]
    with pytest.raises(openai.BadRequestError, match=r"No message is left for \S+ without `input\[0\]`") as caught:
        await client_of(net, gateway).responses.create(model="m", input=lost)
    assert caught.value.code == "unsupported"


@on_uvloop
@pytest.mark.parametrize(
    ("member", "code"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_not_found"),
        ({"conversation": {"id": "conv_1"}}, "unsupported"),
        ({"prompt": {"id": "p"}}, "unsupported"),
        ({"input": [{"type": "item_reference", "id": "msg_9"}, {"role": "user", "content": "hi"}]}, "item_not_found"),
    ],
)
async def test_a_conversation_that_another_upstream_has_is_never_left_out(net: Net, member: Any, code: str) -> None:
    asked: list[Any] = []
    gateway = await net.gateway(
        await net.upstream(lambda peer: serve(peer, upstream(), asked=asked)), on_unsupported="drop"
    )
    with pytest.raises(openai.BadRequestError) as caught:
        await client_of(net, gateway).responses.create(**{"model": "m", "input": "hi", **member})
    assert caught.value.code == code
    if code == "unsupported":
        assert "needs OpenAI's Responses API; send the" in caught.value.message
        assert f"`{next(iter(member))}" in caught.value.message
    else:
        assert ("'resp_1'" in caught.value.message) or ("'msg_9'" in caught.value.message)
    assert asked == []
    # An upstream of the dialect gets it, also if the answer is translated.
    for query in ("", "?format=gai"):
        response = await gateway.ask("POST", PATH + query, {**ASK, "model": "native/gpt-x", **member})
        assert response.status == 200
        assert member.items() <= asked.pop().items()


@on_uvloop
async def test_ten_thousand_items_are_read_and_more_than_the_limit_refused(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=2))
    items = [{"role": "user" if number % 2 else "assistant", "content": f"{number}"} for number in range(10_000)]
    assert (await gateway.ask("POST", PATH, {**ASK, "input": items, "stream": False})).json["status"] == "completed"
    response = await gateway.ask("POST", PATH, {**ASK, "input": [*items, *items, items[0]]})
    assert (response.status, "more than 20000 items" in response.error["message"]) == (400, True)


@on_steady_loop
@pytest.mark.parametrize("kind", ["cut", "reset", "error-event", "stall"])
@pytest.mark.parametrize("model", ["m", "claude"])
async def test_a_stream_that_breaks_is_an_error_and_never_a_silent_success(net: Net, kind: str, model: str) -> None:
    gateway = await net.gateway(await net.mock(deltas=8, fault=Fault(kind, 3)), idle_timeout=0.2)
    stream = await client_of(net, gateway).responses.create(model=model, input="hi", stream=True)
    types = [event.type async for event in stream]
    assert types.count("response.output_text.delta") == 3
    assert types[-2:] == ["error", "response.failed"]


CALL: list[dict[str, Any]] = [
    {"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": ""}}]},
    {"tool_calls": [{"index": 0, "function": {"arguments": '{"city": '}}]},
    {"tool_calls": [{"index": 0, "function": {"arguments": '"Oslo"}'}}]},
]


@on_uvloop
async def test_a_tool_is_called_and_its_result_sent_back(net: Net) -> None:
    asked: list[Any] = []

    async def handler(peer: Peer) -> None:
        while True:
            asked.append(json.loads(await peer.request()))
            said = [delta("", delta=one) for one in CALL] if len(asked) == 1 else [delta("4 °C")]
            reason = "tool_calls" if len(asked) == 1 else "stop"
            frames = [*said, delta("", delta={}, finish_reason=reason), DONE]
            await peer.send(SSE_HEAD, *(chunk(frame) for frame in frames), LAST_CHUNK)

    gateway = await net.gateway(await net.upstream(handler))
    ask = client_of(net, gateway).responses
    tools: Any = [{"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": False}]
    items: Any = [{"role": "user", "content": "weather?"}]
    async with ask.stream(model="m", input=items, tools=tools) as events:
        first = await events.get_final_response()
    (call,) = first.output
    assert (call.type, call.call_id, json.loads(call.arguments)) == ("function_call", "call_1", {"city": "Oslo"})
    items += [item.to_dict() for item in first.output]
    items.append({"type": "function_call_output", "call_id": call.call_id, "output": "4 °C"})
    second = await ask.create(model="m", input=items, tools=tools)
    assert second.output_text == "4 °C"
    assert [message["role"] for message in asked[1]["messages"]] == ["user", "assistant", "tool"]


@on_uvloop
@pytest.mark.parametrize("models", [("n", "m"), ("m", "n"), ("n", "other")])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_fallback_goes_on_with_the_response_that_has_begun(
    net: Net, models: tuple[str, str], stream: bool
) -> None:
    """One of its models speaks the dialect, the other may not: the client sees one response."""
    asked: list[str] = []

    async def handler(peer: Peer) -> None:
        while True:
            body = json.loads(await peer.request())
            asked.append(body["model"])
            is_native = "input" in body
            frames = upstream(identifier=f"resp_{body['model']}") if is_native else [delta("Hi there"), FINISH, DONE]
            if len(asked) == 1:
                frames = frames[:3] if is_native else [delta("", delta={"role": "assistant"})]
            await peer.send(SSE_HEAD, *(chunk(piece) for piece in frames), LAST_CHUNK)

    settings = settings_for((await net.upstream(handler)).url)
    made = {"m": settings.models["m"]}
    for name in ("n", "other"):
        made[name] = dataclasses.replace(made["m"], name=name, id=name, upstream=settings.upstreams["native"])
    first, second = models
    made[first] = dataclasses.replace(made[first], fallback=(second,))
    running = await start(dataclasses.replace(settings, models=made))
    net.stack.push_async_callback(running.close)
    ask = client_of(net, Gateway(net, running)).responses
    if stream:
        async with ask.stream(model=first, input="hi") as events:
            numbers = [event.sequence_number async for event in events]
            final: Any = await events.get_final_response()
        assert numbers == list(range(len(numbers)))
    else:
        final = await ask.create(model=first, input="hi")
    assert (final.output_text, len(asked)) == ("Hi there", 2)


# ---- silence ---------------------------------------------------------------------------------------------------------

CODEX = {"user-agent": "codex_exec/0.169.0 (Debian 12; x86_64) unknown"}


def hesitant(go: list[asyncio.Event], frames: list[bytes]) -> Any:
    """Returns an upstream that is silent before its answer, and within a line of it."""

    async def handler(peer: Peer) -> None:
        await peer.request()
        await go[0].wait()
        half = len(frames[5]) // 2
        await peer.send(SSE_HEAD, *map(chunk, frames[:5]), chunk(frames[5][:half]))
        await go[1].wait()
        await peer.send(chunk(frames[5][half:]), *map(chunk, frames[6:]), LAST_CHUNK)

    return handler


CHAT_ANSWER = [delta("a"), delta("b"), delta("c"), delta("d"), delta("e"), FINISH, DONE]
OWN_ANSWER = [*upstream(text="one two three")]


@on_both_loops
@pytest.mark.parametrize("way", ["translated", "passed on", "durable"])
@pytest.mark.parametrize("program", ["codex", "another"])
async def test_codex_counts_events_and_gets_them_and_nobody_else_does(net: Net, way: str, program: str) -> None:
    go = [asyncio.Event(), asyncio.Event()]
    answer = OWN_ANSWER if way == "passed on" else CHAT_ANSWER
    options: dict[str, Any] = {"on_disconnect": "detach"} if way == "durable" else {}
    up = await net.upstream(hesitant(go, answer))
    gateway = await net.gateway(up, heartbeat=0.05, commit_after=0.05, **options)
    asked = {**ASK, "model": "native/mock" if way == "passed on" else "m"}
    _, response = await gateway.stream(asked, PATH, **(CODEX if program == "codex" else {}))
    sign = b"event: keepalive\n" if program == "codex" else b": ping\n"
    await response.until(sign)
    go[0].set()
    await response.until(b"output_text.delta")
    before = len(response.body)
    await response.until(sign)
    while bytes(response.body[before:]).count(sign) < 2:
        assert await response.more()
    go[1].set()
    await response.rest()
    assert (b": ping" in response.body, b"keepalive" in response.body) == (program != "codex", program == "codex")
    last = -1
    for event in map(json.loads, response.data):
        if event["type"] == "keepalive":
            assert event == {"type": "keepalive", "sequence_number": max(last, 0)}, "it takes no number"
        else:
            last += 1
            assert event["sequence_number"] == last
    assert event["type"] == "response.completed"


@on_uvloop
@pytest.mark.parametrize("model", ["m", "native/mock"])
async def test_openais_sdk_reads_over_keep_alives(net: Net, model: str) -> None:
    go = [asyncio.Event(), asyncio.Event()]
    up = await net.upstream(hesitant(go, OWN_ANSWER if model != "m" else CHAT_ANSWER))
    gateway = await net.gateway(up, heartbeat=0.05, commit_after=0.05)
    client = client_of(net, gateway)
    kinds, texts = [], []
    async for event in await client.responses.create(model=model, input="hi", stream=True, extra_headers=CODEX):
        kinds.append(str(event.type))
        texts.append(event.delta if event.type == "response.output_text.delta" else "")
        if kinds.count("keepalive") == 2:
            go[0].set()
        if kinds.count("keepalive") == 4:
            go[1].set()
    assert ("".join(texts), kinds[-1]) == ("one two three" if model != "m" else "abcde", "response.completed")


@on_uvloop
@pytest.mark.parametrize("program", ["codex", "another"])
async def test_an_answer_of_the_same_dialect_is_passed_to_every_program_byte_for_byte(net: Net, program: str) -> None:
    unheard = frame("response.unheard", 99, odd={"a": [1.0, "\u00e9"]})
    frames = [*OWN_ANSWER[:-1], unheard, OWN_ANSWER[-1]]
    gateway = await net.gateway(await net.upstream(lambda peer: serve(peer, frames)))
    asked = {**ASK, "model": "native/mock", "stream": True}
    response = await gateway.ask("POST", PATH, asked, CODEX if program == "codex" else {})
    assert response.body == b"".join(frames)
