"""Retries, fallback, breakers, and what becomes of an answer that breaks after its first content."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import socket
from typing import Any

import pytest

from gai_fast.limits import LIMITS
from gai_fast.server.app import start
from gai_fast.settings import BreakerSettings, ModelSettings, Settings, UpstreamSettings
from tests.integration.gateway import (
    DONE,
    FINISH,
    LAST_CHUNK,
    MESSAGES,
    QUERY,
    SSE_HEAD,
    Gateway,
    Net,
    Peer,
    chunk,
    delta,
    on_both_loops,
    on_uvloop,
    settings_for,
    until,
)

NATIVE = "/api/v1/stream"
CHAT = "/v1/chat/completions"
OPENAI = {"model": "m", "messages": MESSAGES, "stream": True}
ROLE = delta("", delta={"role": "assistant", "content": ""})
ERROR = b'data: {"error":{"message":"The engine is overloaded","type":"overloaded_error"}}\n\n'
BUSY = ("503 Service Unavailable", b'{"error":{"message":"busy, try later"}}')
JSON_TYPE = "Content-Type: application/json"
QUICK = {"retries": 2}


def body(*frames: bytes) -> bytes:
    """A whole answer."""
    return SSE_HEAD + b"".join(map(chunk, frames)) + LAST_CHUNK


def answer(text: str = "Hello") -> bytes:
    return body(ROLE, *(delta(piece) for piece in text), FINISH, DONE)


Step = bytes | tuple[str, bytes] | tuple[str, bytes, str] | None


class Steps:
    """An upstream that answers its requests one after the other, each as it is told; the last step again and again.

    A step is what is sent; `None`: nothing, until the gateway goes. Bytes that do not end the body break it off there.
    """

    def __init__(self, *steps: Step) -> None:
        self.steps = list(steps)
        self.bodies: list[Any] = []
        self.times: list[float] = []

    @property
    def calls(self) -> int:
        return len(self.bodies)

    async def __call__(self, peer: Peer) -> None:
        while True:
            asked = await peer.request()
            step = self.steps[min(self.calls, len(self.steps) - 1)]
            self.bodies.append(json.loads(asked))
            self.times.append(asyncio.get_running_loop().time())
            if step is None:
                await peer.until_gone()
            elif isinstance(step, tuple):
                status, text, *headers = step
                await peer.answer(status, text, JSON_TYPE, *headers)
            else:
                await peer.send(step)
                if not step.endswith(LAST_CHUNK):
                    return


async def gateway_for(
    net: Net, main: Steps | str, backup: Steps | None = None, *, model: dict[str, Any] | None = None, **options: Any
) -> Gateway:
    """A gateway whose model `m` asks `main`; where there is a `backup`, the model of that name is its fallback."""
    url = main if isinstance(main, str) else (await net.upstream(main)).url
    settings: Settings = settings_for(url, **{"retries": 2, **options})
    more = dict(model or {})
    models = dict(settings.models)
    if backup is not None:
        upstream = UpstreamSettings(
            "spare", "openai-compatible", (await net.upstream(backup)).url + "/v1", breaker=None
        )
        models["backup"] = ModelSettings("backup", upstream, "mock-2", models["m"].stream)
        more.setdefault("fallback", ("backup",))
    models["m"] = dataclasses.replace(models["m"], **more)
    running = await start(dataclasses.replace(settings, models=models))
    net.gateways.append(Gateway(net, running))
    net.stack.push_async_callback(running.close)
    return net.gateways[-1]


def closed_port() -> str:
    with socket.socket() as handle:
        handle.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{handle.getsockname()[1]}"


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries come at once, but where a test is about their time."""
    monkeypatch.setattr("gai_fast.net.retry.LIMITS", dataclasses.replace(LIMITS, retry_first=0.01))


EARLY: dict[str, Step] = {
    "a status": BUSY,
    "an error as first event": body(ERROR),
    "a role, then an error": body(ROLE, ERROR),
    "nothing but the head": SSE_HEAD,
    "a cut before content": SSE_HEAD + chunk(ROLE),
    "no HTTP": b"nonsense\r\n\r\n" + LAST_CHUNK,
    "HTML": b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n<html>",
    "an error under 200": ("200 OK", b'{"error":{"message":"Overloaded","type":"overloaded_error"}}'),
}


@pytest.mark.parametrize("step", EARLY.values(), ids=EARLY)
@pytest.mark.parametrize("path", [NATIVE, CHAT])
@pytest.mark.parametrize("stream", [True, False])
@on_uvloop
async def test_what_fails_before_its_first_content_is_asked_again(
    net: Net, step: Step, path: str, stream: bool
) -> None:
    main = Steps(step, answer())
    gateway = await gateway_for(net, main)
    asked = {"model": "m", "stream": stream, **(QUERY if path == NATIVE else {"messages": MESSAGES})}
    response = await gateway.ask("POST", path, asked)
    assert (response.status, main.calls) == (200, 2)
    assert b"The engine is overloaded" not in bytes(response.body)
    if path == NATIVE and stream:
        assert response.text == "Hello"
        types = [kind for kind in response.types if kind != "text.delta"]
        told = b"assistant" in step if isinstance(step, bytes) else False
        assert types == ["start", *(["stream.reset", "start"] if told else []), "finish", "done"]
    elif path == NATIVE:
        assert json.loads(bytes(response.body))["text"] == "Hello"
    elif stream:
        assert bytes(response.body).endswith(DONE)
        assert "".join(event["choices"][0]["delta"].get("content") or "" for event in response.events) == "Hello"
    else:
        assert json.loads(bytes(response.body))["choices"][0]["message"]["content"] == "Hello"


@on_both_loops
async def test_the_fallback_answers_and_says_so(net: Net) -> None:
    main, backup = Steps(BUSY), Steps(answer())
    gateway = await gateway_for(net, main, backup)
    response = await gateway.ask("POST", NATIVE, {**QUERY, "model": "m"})
    assert (response.status, response.text) == (200, "Hello")
    assert response.events[0]["provider_metadata"]["upstream"] == "spare"
    assert backup.bodies[0]["model"] == "mock-2"
    assert (main.calls, backup.calls) == (3, 1)


@on_both_loops
async def test_an_upstream_that_refuses_connections_is_left_for_the_fallback(net: Net) -> None:
    backup = Steps(answer())
    gateway = await gateway_for(net, closed_port(), backup)
    response = await gateway.ask("POST", NATIVE, {**QUERY, "model": "m"})
    assert (response.status, response.text, backup.calls) == (200, "Hello", 1)


@on_uvloop
async def test_the_last_failure_is_told_where_nobody_answers(net: Net) -> None:
    main, backup = (
        Steps(BUSY),
        Steps(("404 Not Found", b'{"error":{"message":"no such model","code":"model_not_found"}}')),
    )
    gateway = await gateway_for(net, main, backup, retries=1)
    response = await gateway.ask("POST", NATIVE, {**QUERY, "model": "m"})
    assert (response.status, main.calls, backup.calls) == (404, 2, 1)
    assert json.loads(bytes(response.body))["error"]["code"] == "not_found"


REFUSED: dict[str, bytes] = {
    "an invalid request": b'{"error":{"message":"bad","type":"invalid_request_error"}}',
    "a content filter": b'{"error":{"message":"filtered","code":"content_filter"}}',
    "a context that is too long": b'{"error":{"message":"too long","code":"context_length_exceeded"}}',
}


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
@on_uvloop
async def test_what_speaks_of_the_request_is_asked_once(net: Net, text: bytes) -> None:
    main, backup = Steps(("400 Bad Request", text)), Steps(answer())
    gateway = await gateway_for(net, main, backup)
    response = await gateway.ask("POST", NATIVE, {**QUERY, "model": "m"})
    assert (response.status, main.calls, backup.calls) == (400, 1, 0)


@on_uvloop
async def test_a_context_that_is_too_long_goes_to_the_model_that_is_named_for_it(net: Net) -> None:
    text = REFUSED["a context that is too long"]
    main, backup = Steps(("400 Bad Request", text)), Steps(answer())
    named = {"fallback": (), "fallback_on": {"context_length_exceeded": "backup"}}
    gateway = await gateway_for(net, main, backup, model=named)
    response = await gateway.ask("POST", NATIVE, {**QUERY, "model": "m"})
    assert (response.status, response.text, main.calls, backup.calls) == (200, "Hello", 1, 1)


@on_uvloop
async def test_a_clients_own_retry_is_not_multiplied(net: Net) -> None:
    main = Steps(BUSY)
    gateway = await gateway_for(net, main)
    response = await gateway.ask("POST", CHAT, OPENAI, {"x-stainless-retry-count": "1"})
    assert (response.status, main.calls) == (503, 1)
    await gateway.ask("POST", CHAT, OPENAI, {"x-stainless-retry-count": "0"})
    assert main.calls == 4


@on_uvloop
async def test_retry_after_is_waited_for(net: Net) -> None:
    main = Steps((*BUSY, "retry-after-ms: 300"), answer())
    gateway = await gateway_for(net, main)
    response = await gateway.ask("POST", NATIVE, {**QUERY, "model": "m"})
    assert response.status == 200
    assert main.times[1] - main.times[0] >= 0.3


@on_uvloop
async def test_a_retry_after_that_is_too_long_is_answered_with_its_status(net: Net) -> None:
    main = Steps(("429 Too Many Requests", b'{"error":{"message":"slow down"}}', "Retry-After: 7"))
    gateway = await gateway_for(net, main)
    response = await gateway.ask("POST", NATIVE, {**QUERY, "model": "m"})
    assert (response.status, response.headers["retry-after"], main.calls) == (429, "7", 1)


@on_uvloop
async def test_an_upstream_that_stays_silent_is_not_asked_again_but_the_next_model_is(net: Net) -> None:
    main, backup = Steps(None), Steps(answer())
    gateway = await gateway_for(net, main, backup, first_event_timeout=0.2)
    response = await gateway.ask("POST", NATIVE, {**QUERY, "model": "m"})
    assert (response.status, response.text, main.calls, backup.calls) == (200, "Hello", 1, 1)


@on_uvloop
async def test_retries_go_on_after_the_head_is_committed(net: Net) -> None:
    main = Steps((*BUSY, "retry-after-ms: 200"), answer())
    gateway = await gateway_for(net, main, commit_after=0.25)
    response = await gateway.ask("POST", NATIVE, {**QUERY, "model": "m"})
    assert (response.status, response.text, main.calls) == (200, "Hello", 2)


@on_uvloop
async def test_a_client_that_goes_while_a_retry_waits_ends_it(net: Net) -> None:
    main = Steps((*BUSY, "retry-after-ms: 700"), answer())
    gateway = await gateway_for(net, main)
    client = await gateway.connect()
    client.request("POST", NATIVE, {**QUERY, "model": "m"})
    await until(lambda: main.calls == 1)
    client.close()
    await until(lambda: gateway.streams == 0)
    await asyncio.sleep(0.8)
    assert main.calls == 1


@on_uvloop
async def test_a_stream_can_be_cancelled_while_a_retry_waits(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gai_fast.net.retry.LIMITS", LIMITS)
    main = Steps(BUSY, answer())
    gateway = await gateway_for(net, main, commit_after=0.05)
    client, response = await gateway.stream({**QUERY, "model": "m"})
    await until(lambda: main.calls == 1)
    cancelled = await gateway.ask("DELETE", f"/api/v1/streams/{response.headers['x-gai-stream-id']}")
    assert cancelled.status == 202
    await response.rest()
    assert response.types[-2:] == ["finish", "done"]
    assert response.events[-2]["finish_reason"] == "cancelled"
    assert main.calls == 1
    client.close()


@on_uvloop
async def test_retries_are_a_part_of_all_requests(net: Net) -> None:
    main = Steps(BUSY)
    gateway = await gateway_for(net, main)
    await asyncio.gather(*(gateway.ask("POST", NATIVE, {**QUERY, "model": "m"}) for _ in range(20)))
    assert main.calls == 20 + LIMITS.retry_floor


@on_uvloop
async def test_a_fallback_of_another_dialect_answers_in_the_clients(net: Net) -> None:
    said = [
        {"type": "message_start", "message": {"id": "a", "model": "claude-9", "usage": {"input_tokens": 3}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
        {"type": "message_stop"},
    ]
    frames = body(*(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n".encode() for one in said))
    main = Steps(BUSY, BUSY, BUSY, frames)
    gateway = await gateway_for(net, main, model={"fallback": ("claude",)})
    response = await gateway.ask("POST", CHAT, OPENAI)
    chunks = response.events
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks) == "Hello"
    assert {chunk["model"] for chunk in chunks} == {"claude-9"}
    assert bytes(response.body).endswith(DONE)
    assert main.bodies[3]["messages"][0]["content"][0]["text"] == "Tell me a story"


# ---- breakers --------------------------------------------------------------------------------------------------------


@on_uvloop
async def test_an_upstream_that_fails_is_left_alone_and_probed_by_one_request(net: Net) -> None:
    main = Steps(BUSY, BUSY, BUSY, BUSY, answer())
    gateway = await gateway_for(net, main, retries=0, breaker=BreakerSettings(failures=3, window=30, open=0.4))
    asked = {**QUERY, "model": "m"}
    for _ in range(3):
        assert (await gateway.ask("POST", NATIVE, asked)).status == 503
    refused = await gateway.ask("POST", NATIVE, asked)
    error = json.loads(bytes(refused.body))["error"]
    assert (refused.status, error["code"], error["reason"]) == (503, "provider_unavailable", "breaker_open")
    assert 0 < int(refused.headers["retry-after-ms"]) <= 400
    assert main.calls == 3
    await asyncio.sleep(0.45)
    responses = await asyncio.gather(*(gateway.ask("POST", NATIVE, asked) for _ in range(5)))
    assert main.calls == 4, "one of them is the probe"
    assert [response.status for response in responses] == [503] * 5
    await asyncio.sleep(0.45)
    assert (await gateway.ask("POST", NATIVE, asked)).text == "Hello"
    assert (await gateway.ask("POST", NATIVE, asked)).text == "Hello"


@on_uvloop
async def test_while_a_breaker_is_open_the_fallback_is_asked_at_once(net: Net) -> None:
    main, backup = Steps(BUSY), Steps(answer())
    gateway = await gateway_for(net, main, backup, retries=0, breaker=BreakerSettings(failures=2, window=30, open=30))
    for _ in range(5):
        assert (await gateway.ask("POST", NATIVE, {**QUERY, "model": "m"})).text == "Hello"
    assert (main.calls, backup.calls) == (2, 5)


@on_uvloop
async def test_what_is_said_of_the_request_opens_no_breaker(net: Net) -> None:
    main = Steps(("400 Bad Request", REFUSED["an invalid request"]))
    gateway = await gateway_for(net, main, breaker=BreakerSettings(failures=2, window=30, open=30))
    for _ in range(5):
        await gateway.ask("POST", NATIVE, {**QUERY, "model": "m"})
    assert main.calls == 5


@on_uvloop
async def test_a_probe_whose_client_goes_is_made_anew(net: Net) -> None:
    main = Steps(BUSY, None, answer())
    gateway = await gateway_for(net, main, retries=0, breaker=BreakerSettings(failures=1, window=30, open=0.1))
    await gateway.ask("POST", NATIVE, {**QUERY, "model": "m"})
    await asyncio.sleep(0.15)
    client = await gateway.connect()
    client.request("POST", NATIVE, {**QUERY, "model": "m"})
    await until(lambda: main.calls == 2)
    client.close()
    await until(lambda: gateway.streams == 0)
    assert (await gateway.ask("POST", NATIVE, {**QUERY, "model": "m"})).text == "Hello"


# ---- after the first content -----------------------------------------------------------------------------------------

CUT = SSE_HEAD + b"".join(map(chunk, (ROLE, delta("Hel"), delta("lo "))))


@pytest.mark.parametrize("path", [NATIVE, CHAT])
@on_uvloop
async def test_by_default_the_answer_ends_with_its_error(net: Net, path: str) -> None:
    main, backup = Steps(CUT, answer()), Steps(answer())
    gateway = await gateway_for(net, main, backup)
    asked = {"model": "m", "stream": True, **(QUERY if path == NATIVE else {"messages": MESSAGES})}
    response = await gateway.ask("POST", path, asked)
    assert b"truncated" in bytes(response.body) or b"network" in bytes(response.body)
    assert (main.calls, backup.calls) == (1, 0)


@on_uvloop
async def test_restart_announces_a_fresh_answer(net: Net) -> None:
    main = Steps(CUT, answer("Hello world"))
    gateway = await gateway_for(net, main, on_midstream_failure="restart")
    response = await gateway.ask("POST", NATIVE, {**QUERY, "model": "m"})
    types = response.types
    reset = types.index("stream.reset")
    assert types[reset + 1] == "start"
    assert response.events[reset + 1]["stream_id"] == response.headers["x-gai-stream-id"]
    after = response.events[reset:]
    assert "".join(event["text"] for event in after if event["type"] == "text.delta") == "Hello world"
    assert types[-2:] == ["finish", "done"]
    seqs = [event["seq"] for event in response.events[:-1]]
    assert seqs == list(range(1, len(seqs) + 1))


@on_uvloop
async def test_a_restart_that_fails_ends_with_an_error(net: Net) -> None:
    main = Steps(CUT, BUSY)
    gateway = await gateway_for(net, main, on_midstream_failure="restart")
    response = await gateway.ask("POST", NATIVE, {**QUERY, "model": "m"})
    assert response.types[-3:] == ["stream.reset", "error", "done"]


@on_uvloop
async def test_a_format_that_cannot_announce_a_restart_ends_with_the_error(net: Net) -> None:
    main = Steps(CUT, answer("Hello world"))
    gateway = await gateway_for(net, main, on_midstream_failure="restart")
    response = await gateway.ask("POST", CHAT, OPENAI)
    assert b'"error"' in response.body
    assert main.calls == 1


@pytest.mark.parametrize("path", [NATIVE, CHAT])
@pytest.mark.parametrize("pieces", ["Hello world", ["Hello w", "orld"], ["H", "ello ", "world"], ["Hello ", "world"]])
@on_uvloop
async def test_continue_passes_on_what_follows_the_text_that_was_delivered(
    net: Net, path: str, pieces: list[str]
) -> None:
    main = Steps(CUT, body(ROLE, *map(delta, pieces), FINISH, DONE))
    gateway = await gateway_for(net, main, on_midstream_failure="continue")
    asked = {"model": "m", "stream": True, **(QUERY if path == NATIVE else {"messages": MESSAGES})}
    response = await gateway.ask("POST", path, asked)
    if path == NATIVE:
        assert response.text == "Hello world"
        assert response.types.count("start") == 1
        assert response.events[-2]["type"] == "finish"
        assert response.events[-2]["continued"] == "verified"
    else:
        chunks = response.events
        text = "".join(one["choices"][0]["delta"].get("content") or "" for one in chunks if one["choices"])
        assert text == "Hello world"
        assert bytes(response.body).endswith(DONE)
    assert main.calls == 2


@pytest.mark.parametrize("text", ["Hello", "Help", "Hello World"[:3] + "x", "Goodbye"])
@on_uvloop
async def test_a_continuation_that_differs_ends_with_the_first_error(net: Net, text: str) -> None:
    main = Steps(CUT, answer(text))
    gateway = await gateway_for(net, main, on_midstream_failure="continue")
    response = await gateway.ask("POST", NATIVE, {**QUERY, "model": "m"})
    assert response.text == "Hello "
    assert response.types[-2:] == ["error", "done"]
    error = response.events[-2]["error"]
    assert (error["code"], error["phase"]) == ("network", "mid_stream")


@on_uvloop
async def test_a_model_that_takes_a_prefill_goes_on_from_the_text(net: Net) -> None:
    main = Steps(CUT, answer("world"))
    gateway = await gateway_for(net, main, model={"prefill": True}, on_midstream_failure="continue")
    response = await gateway.ask("POST", NATIVE, {**QUERY, "model": "m"})
    assert response.text == "Hello world"
    assert response.events[-2]["continued"] == "prefill"
    assert main.bodies[1]["messages"][-1] == {"role": "assistant", "content": "Hello "}


@on_uvloop
async def test_a_refused_prefill_falls_back_to_a_fresh_answer(net: Net) -> None:
    main = Steps(CUT, ("400 Bad Request", REFUSED["an invalid request"]), answer("Hello world"))
    gateway = await gateway_for(net, main, model={"prefill": True}, on_midstream_failure="continue")
    response = await gateway.ask("POST", NATIVE, {**QUERY, "model": "m"})
    assert response.text == "Hello world"
    assert response.events[-2]["continued"] == "verified"


@on_uvloop
async def test_a_refused_prefill_never_hides_the_first_failure(net: Net) -> None:
    refusal = ("400 Bad Request", REFUSED["an invalid request"])
    main = Steps(CUT, refusal, refusal)
    gateway = await gateway_for(net, main, model={"prefill": True}, on_midstream_failure="continue")
    response = await gateway.ask("POST", NATIVE, {**QUERY, "model": "m"})
    assert response.events[-2]["error"]["code"] == "network"
