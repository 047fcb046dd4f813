"""Upstreams that end their answer and keep their connection open: the client's stream ends, and the connection."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest

from tests.conftest import ChangeLimits
from tests.integration.gateway import (
    DONE,
    FINISH,
    LAST_CHUNK,
    MESSAGES,
    SSE_HEAD,
    Handler,
    Net,
    Peer,
    Response,
    delta,
    on_both_loops,
    on_uvloop,
)
from tests.waiting import until
from tests.wire import chunk


def named(kind: str, **members: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), json.dumps({"type": kind, **members}).encode())


REPLY = {"id": "resp_1", "model": "mock", "output": []}
RESPONSES = [
    named("response.created", response=REPLY | {"status": "in_progress"}),
    named("response.output_text.delta", item_id="m", output_index=0, content_index=0, delta="Hi"),
    named("response.completed", response=REPLY | {"status": "completed"}),
]
MESSAGE = {"id": "msg_1", "type": "message", "role": "assistant", "model": "mock", "content": [], "usage": {}}
MESSAGES_HEAD = [
    named("message_start", message=MESSAGE),
    named("content_block_start", index=0, content_block={"type": "text", "text": ""}),
    named("content_block_delta", index=0, delta={"type": "text_delta", "text": "Hi"}),
    named("content_block_stop", index=0),
    named("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 1}),
]
STOP = named("message_stop")
ROUTES: dict[str, tuple[str, dict[str, Any]]] = {
    "m": ("/v1/chat/completions", {"messages": MESSAGES}),
    "claude": ("/v1/messages", {"messages": MESSAGES, "max_tokens": 9}),
    "native": ("/v1/responses", {"input": "Hi"}),
}
NATIVE = ("/api/v1/stream", {"query": "Hi"})


def left_open(*frames: bytes, comments: bool = False) -> Handler:
    """Returns the handler of an upstream that sends an answer's frames and does not end its body."""

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(SSE_HEAD, *map(chunk, frames))
        while comments:
            await peer.send(chunk(b": keep-alive\n\n"))
            with suppress(TimeoutError):
                assert not await peer.read_soon()
                return
        await peer.until_gone()

    return handler


async def ends(net: Net, handler: Handler, model: str, way: tuple[str, dict[str, Any]]) -> Response:
    """Returns the response of a stream whose upstream has closed nothing. Its connection is closed by the gateway."""
    upstream = await net.upstream(handler)
    gateway = await net.gateway(upstream)
    path, body = way
    model = "up/m" if model == "m" else "anthropic/m" if model == "claude" else "native/m"
    response = await gateway.ask("POST", path, {"model": model, "stream": True, **body})
    assert (response.status, response.ended) == (200, True)
    await upstream.until_finished()
    await until(lambda: gateway.streams == 0)
    return response


@on_both_loops
@pytest.mark.parametrize("passes", [True, False], ids=["passed-through", "translated"])
@pytest.mark.parametrize(
    ("model", "frames"),
    [("native", RESPONSES), ("claude", [*MESSAGES_HEAD, STOP]), ("m", [delta("Hi"), FINISH, DONE])],
    ids=["response.completed", "message_stop", "[DONE]"],
)
async def test_a_terminal_event_ends_the_answer_though_the_connection_stays_open(
    net: Net, model: str, frames: list[bytes], passes: bool
) -> None:
    response = await ends(net, left_open(*frames), model, ROUTES[model] if passes else NATIVE)
    assert b"Hi" in response.body
    if passes:
        assert bytes(response.body) == b"".join(frames)
    else:
        assert response.types[-2:] == ["finish", "done"]


@on_both_loops
@pytest.mark.parametrize("passes", [True, False], ids=["passed-through", "translated"])
@pytest.mark.parametrize("comments", [False, True], ids=["silence", "comments"])
@pytest.mark.parametrize(
    ("model", "frames", "mark"),
    [("claude", MESSAGES_HEAD, STOP), ("m", [delta("Hi"), FINISH], DONE)],
    ids=["stop_reason", "finish_reason"],
)
async def test_after_a_finish_reason_neither_silence_nor_comments_hold_the_end_up(
    net: Net,
    model: str,
    frames: list[bytes],
    mark: bytes,
    comments: bool,
    passes: bool,
    change_limits: ChangeLimits,
) -> None:
    change_limits(late_events=0.1)
    handler = left_open(*frames, comments=comments)
    response = await ends(net, handler, model, ROUTES[model] if passes else NATIVE)
    if passes:
        said = bytes(response.body).replace(b": keep-alive\n\n", b"").replace(b": ", b":")
        assert said == (b"".join(frames) + mark).replace(b": ", b":")
    else:
        assert response.types[-2:] == ["finish", "done"]


@on_uvloop
async def test_usage_that_comes_after_the_finish_reason_is_waited_for(net: Net) -> None:
    usage = b'data: {"id":"c1","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}\n\n'

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(SSE_HEAD, chunk(delta("Hi")), chunk(FINISH))
        with suppress(TimeoutError):
            assert not await peer.read_soon()
        await peer.send(chunk(usage), chunk(DONE), LAST_CHUNK)
        await peer.until_gone()

    upstream = await net.upstream(handler)
    gateway = await net.gateway(upstream)
    response = await gateway.ask("POST", NATIVE[0], {"model": "m", **NATIVE[1]})
    assert response.events[-2]["usage"] == {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}


@on_uvloop
async def test_a_whole_answer_of_an_upstream_that_stays_open_ends_too(net: Net, change_limits: ChangeLimits) -> None:
    change_limits(late_events=0.1)
    upstream = await net.upstream(left_open(delta("Hi"), FINISH, comments=True))
    gateway = await net.gateway(upstream)
    response = await gateway.ask("POST", NATIVE[0], {"model": "m", "stream": False, **NATIVE[1]})
    assert (response.status, response.json["text"]) == (200, "Hi")
    await upstream.until_finished()


ROLE = delta("", delta={"role": "assistant"})


@on_uvloop
@pytest.mark.parametrize("head", [(), (ROLE,)], ids=["nothing", "role"])
@pytest.mark.parametrize("way", [NATIVE, ROUTES["m"]], ids=["translated", "passed-through"])
async def test_an_answer_of_nothing_is_an_error_and_has_no_end_mark(
    net: Net, way: tuple[str, dict[str, Any]], head: tuple[bytes, ...]
) -> None:
    upstream = await net.upstream(left_open(*head, DONE))
    gateway = await net.gateway(upstream)
    response = await gateway.ask("POST", way[0], {"model": "m", "stream": True, **way[1]})
    assert response.ended
    assert b"[DONE]" not in response.body
    assert response.status == 503
    assert b"without any content" in response.body


@on_both_loops
@pytest.mark.parametrize("passes", [True, False], ids=["passed-through", "translated"])
@pytest.mark.parametrize("model", ["m", "claude", "native"])
@pytest.mark.parametrize(
    "error",
    [
        {"error_type": "context_length_exceeded", "error_message": "Too long."},
        {"code": "DataInspectionFailed", "message": "No."},
        {"choices": [], "code": "1301", "msg": "sensitive"},
    ],
    ids=["context", "refused", "empty choices"],
)
async def test_an_error_under_200_has_its_status_before_the_head_and_never_an_end_mark(
    net: Net, model: str, error: dict[str, Any], passes: bool
) -> None:
    said = b"data: " + json.dumps(error).encode() + b"\n\n"
    content = {"m": [delta("Hi")], "claude": MESSAGES_HEAD[:3], "native": RESPONSES[:2]}[model]
    path, body = ROUTES[model] if passes else NATIVE
    name = "up/m" if model == "m" else "anthropic/m" if model == "claude" else "native/m"
    for before, status in ((), 400), (content, 200):

        async def handler(peer: Peer, before: Any = before) -> None:
            await peer.request()
            await peer.send(SSE_HEAD, *map(chunk, [*before, said, DONE]), LAST_CHUNK)

        gateway = await net.gateway(await net.upstream(handler))
        response = await gateway.ask("POST", path, {"model": name, "stream": True, **body})
        assert response.status == status
        assert b"[DONE]" not in response.body
        assert b'"finished":true' not in response.body
        assert b"error" in response.body
