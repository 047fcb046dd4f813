"""Retries, fallback, breakers, and what becomes of an answer that breaks after its first content."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import random
from typing import Any

import pytest

import gai_fast
from gai_fast.integrations._body import SourceBody
from gai_fast.model.metrics import StreamMetrics
from gai_fast.model.settings import BreakerSettings, ModelSettings, Settings, StreamSettings, Tuning
from gai_fast.server.serving import start
from tests.conftest import ChangeLimits
from tests.integration.gateway import (
    CHAT,
    DONE,
    FINISH,
    LAST_CHUNK,
    MESSAGES,
    NATIVE,
    NEVER,
    OPENAI,
    QUERY,
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
from tests.limits import LIMITS
from tests.ports import free_port
from tests.readers import READERS
from tests.waiting import until, until_answered
from tests.wire import chunk

pytestmark = pytest.mark.usefixtures("quick_retries")

FIRST = LIMITS.retry_first  # `quick_retries` changes it
ROLE = delta("", delta={"role": "assistant", "content": ""})
ERROR = b'data: {"error":{"message":"The engine is overloaded","type":"overloaded_error"}}\n\n'
BUSY = ("503 Service Unavailable", b'{"error":{"message":"busy, try later"}}')
JSON_TYPE = "Content-Type: application/json"


def body(*frames: bytes) -> bytes:
    """Returns a whole answer."""
    return SSE_HEAD + b"".join(map(chunk, frames)) + LAST_CHUNK


CLAUDE = [
    {"type": "message_start", "message": {"id": "a", "model": "claude-9", "usage": {"input_tokens": 3}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
    {"type": "message_stop"},
]


def claude(*events: dict[str, Any]) -> bytes:
    return body(*(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n".encode() for one in events))


def answer(text: str = "Hello") -> bytes:
    return body(ROLE, *(delta(piece) for piece in text), FINISH, DONE)


Step = bytes | tuple[str, bytes] | tuple[str, bytes, str] | None


class Steps:
    """An upstream that answers its requests one after the other, each by its step; the last step again and again.

    A step is what is sent. If it is None, nothing is sent until the gateway disconnects. Bytes that do not end the body
    break it off there.
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
    """Returns a gateway whose model `m` asks `main`; if there is a `backup`, the model of that name is its fallback."""
    url = main if isinstance(main, str) else (await net.upstream(main)).url
    settings: Settings = settings_for(url, **{"retries": 2, **options})
    more = dict(model or {})
    models = dict(settings.models)
    if backup is not None:
        upstream = dataclasses.replace(
            models["m"].upstream, name="spare", base_url=(await net.upstream(backup)).url + "/v1", breaker=None
        )
        models["backup"] = ModelSettings("backup", upstream, "mock-2", models["m"].stream)
        more.setdefault("fallback", ("backup",))
    models["m"] = dataclasses.replace(models["m"], **more)
    running = await start(dataclasses.replace(settings, models=models))
    net.gateways.append(Gateway(net, running))
    net.stack.push_async_callback(running.close)
    return net.gateways[-1]


def closed_port() -> str:
    return f"http://127.0.0.1:{free_port()}"


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
        result = b"assistant" in step if isinstance(step, bytes) else False
        assert types == ["start", *(["stream.reset", "start"] if result else []), "finish", "done"]
    elif path == NATIVE:
        assert json.loads(bytes(response.body))["text"] == "Hello"
    elif stream:
        assert bytes(response.body).endswith(DONE)
        assert "".join(event["choices"][0]["delta"].get("content") or "" for event in response.events) == "Hello"
    else:
        assert json.loads(bytes(response.body))["choices"][0]["message"]["content"] == "Hello"


@pytest.mark.parametrize("resumable", [False, True])
@pytest.mark.parametrize("name", READERS)
@on_uvloop
async def test_what_fails_before_its_first_content_is_one_answer_in_every_format(
    net: Net, name: str, resumable: bool
) -> None:
    main = Steps(SSE_HEAD + chunk(ROLE), answer())
    gateway = await gateway_for(net, main)
    response = await gateway.ask("POST", f"{NATIVE}?format={name}", {**QUERY, "model": "m", "resumable": resumable})
    assert (response.status, main.calls) == (200, 2)
    if name != "gai":  # which tells of both attempts
        result = READERS[name](bytes(response.body))
        assert (result.text, result.error) == ("Hello", None)


@on_both_loops
async def test_headers_name_the_model_and_the_upstream_that_answer(net: Net) -> None:
    gateway = await gateway_for(net, Steps(BUSY), Steps(answer()))
    body = {"messages": [{"role": "user", "content": "Hi"}]}
    for stream in (True, False):
        for model, fallback in (("m", "true"), ("backup", None)):
            asked = {**body, "model": model, "stream": stream}
            response = await gateway.ask("POST", "/v1/chat/completions", asked)
            assert response.status == 200
            named = [response.headers.get(f"x-gai-{name}") for name in ("model", "upstream", "fallback")]
            assert named == ["backup", "spare", fallback]


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
async def test_the_last_failure_is_reported_where_nobody_answers(net: Net) -> None:
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


@on_steady_loop
async def test_a_retry_after_that_is_too_long_is_answered_with_its_status(net: Net) -> None:
    main = Steps(("429 Too Many Requests", b'{"error":{"message":"slow down"}}', "Retry-After: 7"))
    gateway = await gateway_for(net, main, commit_after=5)
    response = await gateway.ask("POST", NATIVE, {**QUERY, "model": "m"})
    assert (response.status, response.headers["retry-after"], main.calls) == (429, "7", 1)


LIMITED = "429 Too Many Requests", b'{"error":{"message":"slow down"}}'


@on_steady_loop
async def test_a_short_limit_is_waited_for_where_nothing_else_is_ready(net: Net) -> None:
    """The waits count together; the head is held meanwhile, and its time does not run."""
    first, second = (*LIMITED, "retry-after-ms: 300"), (*LIMITED, "retry-after-ms: 300")
    main = Steps(first, second, answer())
    gateway = await gateway_for(net, main, commit_after=0.05, heartbeat=0.05, model={"wait_for_limit": 5.0})
    response = await gateway.ask("POST", NATIVE, {**QUERY, "model": "m"})
    assert (response.status, response.text, main.calls) == (200, "Hello", 3)
    assert b": ping" not in bytes(response.body)


@pytest.mark.parametrize("resumable", [False, True])
@on_steady_loop
async def test_a_response_of_an_application_has_the_status_of_a_limit_that_is_waited_for(
    net: Net, resumable: bool
) -> None:
    main = Steps((*LIMITED, "retry-after-ms: 300"))
    settings = settings_for((await net.upstream(main)).url, retries=2, commit_after=0.01)
    models = {"m": dataclasses.replace(settings.models["m"], wait_for_limit=0.4)}
    async with gai_fast.Gateway(dataclasses.replace(settings, models=models)) as gateway:
        source = gateway.stream({**QUERY, "model": "m", "resumable": resumable})
        body = SourceBody(source, "sse", StreamSettings(commit_after=0.05))
        reply = await body.begin()
        await body.close()
    assert reply is not None
    assert (reply.status, main.calls) == (429, 2)


@pytest.mark.parametrize("wait_for_limit", [0.0, 0.4])
@on_steady_loop
async def test_limits_are_waited_for_no_longer_than_that_in_all(net: Net, wait_for_limit: float) -> None:
    main = Steps((*LIMITED, "retry-after-ms: 300"))
    gateway = await gateway_for(net, main, commit_after=0.01, model={"wait_for_limit": wait_for_limit})
    response = await gateway.ask("POST", NATIVE, {**QUERY, "model": "m", "stream": False})
    assert (response.status, main.calls) == (429, 2 if wait_for_limit else 1)


@on_steady_loop
async def test_another_model_that_is_ready_is_asked_in_place_of_waiting(net: Net) -> None:
    main, backup = Steps((*LIMITED, "Retry-After: 3")), Steps(answer())
    gateway = await gateway_for(net, main, backup, commit_after=0.05)
    response = await gateway.ask("POST", NATIVE, {**QUERY, "model": "m"})
    assert (response.status, response.text, main.calls, backup.calls) == (200, "Hello", 1, 1)


@on_steady_loop
async def test_a_client_that_goes_while_a_limit_is_waited_for_ends_the_wait(net: Net) -> None:
    main = Steps((*LIMITED, "retry-after-ms: 500"), answer())
    gateway = await gateway_for(net, main, commit_after=0.05)
    client = await gateway.connect()
    client.request("POST", NATIVE, {**QUERY, "model": "m"})
    await until(lambda: main.calls == 1)
    client.close()
    await until(lambda: gateway.streams == 0)
    await asyncio.sleep(0.6)
    assert main.calls == 1


@pytest.mark.parametrize("wish", ["restart", "continue"])
@on_steady_loop
async def test_after_a_stall_amid_the_answer_the_next_model_is_asked_first(net: Net, wish: str) -> None:
    """Each try of a target that stalls costs its client an `idle_timeout`."""

    async def stalls(peer: Peer) -> None:
        await peer.request()
        calls.append(None)
        await peer.send(SSE_HEAD + chunk(ROLE) + chunk(delta("He")))
        await peer.until_gone()

    calls: list[None] = []
    url, backup = (await net.upstream(stalls)).url, Steps(answer())
    gateway = await gateway_for(net, url, backup, idle_timeout=0.2, on_midstream_failure=wish)
    response = await gateway.ask("POST", NATIVE, {**QUERY, "model": "m"})
    assert response.types[-2:] == ["finish", "done"]
    assert gai_fast.collect(response.events).text == "Hello"
    assert (len(calls), backup.calls) == (1, 1)


@on_steady_loop
async def test_an_upstream_that_stays_silent_is_not_asked_again_but_the_next_model_is(net: Net) -> None:
    main, backup = Steps(None), Steps(answer())
    gateway = await gateway_for(net, main, backup, first_event_timeout=0.2)
    response = await gateway.ask("POST", NATIVE, {**QUERY, "model": "m"})
    assert (response.status, response.text, main.calls, backup.calls) == (200, "Hello", 1, 1)


@on_steady_loop
async def test_retries_go_on_after_the_head_is_committed(net: Net) -> None:
    main = Steps((*BUSY, "retry-after-ms: 200"), answer())
    gateway = await gateway_for(net, main, commit_after=0.25)
    response = await gateway.ask("POST", NATIVE, {**QUERY, "model": "m"})
    assert (response.status, response.text, main.calls) == (200, "Hello", 2)


@on_steady_loop
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


@on_steady_loop
async def test_a_stream_can_be_cancelled_while_a_retry_waits(net: Net, change_limits: ChangeLimits) -> None:
    change_limits(retry_first=FIRST)
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
    main = Steps(BUSY, BUSY, BUSY, claude(*CLAUDE))
    gateway = await gateway_for(net, main, model={"fallback": ("claude",)})
    response = await gateway.ask("POST", CHAT, OPENAI)
    chunks = response.events
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks) == "Hello"
    assert {chunk["model"] for chunk in chunks} == {"claude-9"}
    assert bytes(response.body).endswith(DONE)
    assert main.bodies[3]["messages"][0]["content"][0]["text"] == "Tell me a story"


# ---- breakers --------------------------------------------------------------------------------------------------------


@on_steady_loop
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
    assert net.warned("upstream 'up' keeps failing (provider_unavailable): nothing is sent to it for 0.4 s") == 2


@on_uvloop
async def test_while_a_breaker_is_open_the_fallback_is_asked_at_once(net: Net) -> None:
    main, backup = Steps(BUSY), Steps(answer())
    gateway = await gateway_for(net, main, backup, retries=0, breaker=BreakerSettings(failures=2, window=30, open=30))
    for _ in range(5):
        assert (await gateway.ask("POST", NATIVE, {**QUERY, "model": "m"})).text == "Hello"
    assert (main.calls, backup.calls) == (2, 5)
    assert net.warned("'up' keeps failing") == 1


@on_uvloop
async def test_what_is_said_of_the_request_opens_no_breaker(net: Net) -> None:
    main = Steps(("400 Bad Request", REFUSED["an invalid request"]))
    gateway = await gateway_for(net, main, breaker=BreakerSettings(failures=2, window=30, open=30))
    for _ in range(5):
        await gateway.ask("POST", NATIVE, {**QUERY, "model": "m"})
    assert main.calls == 5


def refusing(member: str) -> Step:
    text = f"Unrecognized request argument supplied: {member}"
    error = {"error": {"message": text, "type": "invalid_request_error", "param": member, "code": None}}
    return "400 Bad Request", json.dumps(error).encode()


@on_uvloop
async def test_a_member_that_may_be_left_out_is_left_out_once_the_upstream_refuses_it(net: Net) -> None:
    main = Steps(refusing("seed"), answer())
    gateway = await gateway_for(net, main, on_unsupported="drop")
    for _ in range(2):
        asked = await gateway.ask("POST", NATIVE, {**QUERY, "model": "m", "seed": 1, "temperature": 0.5})
        assert (asked.status, asked.text, asked.headers["x-gai-dropped"]) == (200, "Hello", "seed")
    assert [sent.get("seed") for sent in main.bodies] == [1, None, None]  # the third request knows
    assert all(sent["temperature"] == 0.5 for sent in main.bodies)
    assert net.warned("upstream up refuses 'seed' of requests for mock") == 1


@on_uvloop
async def test_a_member_that_the_gateway_has_added_is_left_out_once_the_upstream_refuses_it(net: Net) -> None:
    for path, query in ((NATIVE, QUERY), (CHAT, {"messages": MESSAGES, "stream": True})):
        main = Steps(refusing("odd_option"), answer())
        gateway = await gateway_for(net, main, model={"tuning": Tuning(extra={"odd_option": 1})})
        assert (await gateway.ask("POST", path, {**query, "model": "m"})).status == 200
        assert [sent.get("odd_option") for sent in main.bodies] == [1, None]
        assert net.warned("upstream up refuses 'odd_option'") == 1


@on_uvloop
async def test_the_clients_own_member_is_never_left_out_unasked(net: Net) -> None:
    for path, query in ((NATIVE, QUERY), (CHAT, {"messages": MESSAGES, "stream": True})):
        main = Steps(refusing("seed"), answer())
        gateway = await gateway_for(net, main)
        refused = await gateway.ask("POST", path, {**query, "model": "m", "seed": 1})
        assert (refused.status, main.calls) == (400, 1)
        assert "seed" in refused.body.decode()


@on_uvloop
async def test_a_request_is_asked_again_without_one_member_only(net: Net) -> None:
    main = Steps(refusing("seed"), refusing("temperature"), answer())
    gateway = await gateway_for(net, main, on_unsupported="drop")
    query = {**QUERY, "model": "m", "seed": 1, "temperature": 0.5}
    assert (await gateway.ask("POST", NATIVE, query)).status == 400
    assert main.calls == 2
    assert net.warned("upstream up refuses 'seed'") == 1


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
    assert net.warned("'up' keeps failing") == 1


# ---- after the first content -----------------------------------------------------------------------------------------

CUT = SSE_HEAD + b"".join(map(chunk, (ROLE, delta("Hel"), delta("lo "))))


@pytest.mark.parametrize("path", [NATIVE, CHAT])
@on_uvloop
async def test_by_default_the_answer_ends_with_its_error(net: Net, path: str) -> None:
    main, backup = Steps(CUT, answer()), Steps(answer())
    gateway = await gateway_for(net, main, backup)
    asked = {"model": "m", "stream": True, **(QUERY if path == NATIVE else {"messages": MESSAGES})}
    response = await gateway.ask("POST", path, asked)
    failed = next(event["error"] for event in response.events if "error" in event)
    assert (failed["code"], response.status, response.ended) == ("network", 200, True)
    assert failed["message"]
    if path == NATIVE:
        assert failed["reason"] == "truncated"
    assert DONE not in response.body
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
async def test_a_prefill_grows_the_clients_own_body(net: Net) -> None:
    """What a native request has no place for reaches the upstream in both attempts."""
    main = Steps(CUT, answer("world"))
    gateway = await gateway_for(net, main, model={"prefill": True}, on_midstream_failure="continue")
    response = await gateway.ask("POST", CHAT, {**OPENAI, "stream": True, "prediction": {"type": "content"}, "x": [1]})
    chunks = response.events
    assert "".join(one["choices"][0]["delta"].get("content") or "" for one in chunks if one["choices"]) == "Hello world"
    first, second = main.bodies
    assert first["x"] == [1]
    assert second == {**first, "messages": [*first["messages"], {"role": "assistant", "content": "Hello "}]}


LONG = "Hello to all of you who read this text. "


@pytest.mark.parametrize(
    ("first", "again", "whole"),
    [
        (LONG, f"{LONG}Bye", f"{LONG}Bye"),
        (LONG, "Help me", f"{LONG}Help me"),
        (LONG, "Hel", f"{LONG}Hel"),
        ("Hello ", "Hello world", "Hello Hello world"),
    ],
)
@on_uvloop
async def test_a_prefilled_answer_that_repeats_a_long_text_doubles_nothing_and_a_short_one_may_go_on_so(
    net: Net, first: str, again: str, whole: str
) -> None:
    cut = SSE_HEAD + b"".join(map(chunk, (ROLE, *map(delta, first))))
    main = Steps(cut, answer(again))
    gateway = await gateway_for(net, main, model={"prefill": True}, on_midstream_failure="continue")
    response = await gateway.ask("POST", NATIVE, {**QUERY, "model": "m"})
    assert response.text == whole
    assert response.types[-2:] == ["finish", "done"]


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


# ---- hostile -----------------------------------------------------------------------------------------------------

TOOL = delta("", delta={"tool_calls": [{"index": 0, "id": "call_1", "function": {"name": "weather", "arguments": ""}}]})


def tool(call_id: str, name: str, arguments: str) -> bytes:
    call = {"index": 0, "id": call_id, "function": {"name": name, "arguments": arguments}}
    return delta("", delta={"tool_calls": [call]})


def asked_of(path: str, **more: Any) -> dict[str, Any]:
    return {"model": "m", "stream": True, **(QUERY if path == NATIVE else {"messages": MESSAGES}), **more}


def roles_of(body: bytes) -> int:
    return body.count(b'"role":"assistant"') + body.count(b'"role": "assistant"')


@pytest.mark.parametrize("path", [NATIVE, CHAT])
@pytest.mark.parametrize("ending", [ERROR, b""], ids=["an error", "a cut"])
@on_uvloop
async def test_a_call_that_has_begun_is_content(net: Net, path: str, ending: bytes) -> None:
    main = Steps(SSE_HEAD + chunk(ROLE) + chunk(TOOL) + (chunk(ending) if ending else b""), answer())
    gateway = await gateway_for(net, main)
    response = await gateway.ask("POST", path, asked_of(path))
    assert main.calls == 1
    assert b'"error"' in response.body
    assert b"[DONE]" not in response.body


@on_uvloop
async def test_a_role_is_reported_once_whoever_answers(net: Net) -> None:
    begun = SSE_HEAD + chunk(ROLE) + chunk(ERROR)
    main = Steps(begun, BUSY, answer())
    gateway = await gateway_for(net, main)
    response = await gateway.ask("POST", CHAT, OPENAI)
    assert (roles_of(response.body), main.calls) == (1, 3)

    main, backup = Steps(begun), Steps(answer())
    gateway = await gateway_for(net, main, backup, retries=0)
    response = await gateway.ask("POST", CHAT, OPENAI)
    assert (roles_of(response.body), main.calls, backup.calls) == (1, 1, 1)
    assert bytes(response.body).endswith(DONE)


OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}


@pytest.mark.parametrize("path", [CHAT, f"{CHAT}?format=gai", f"{CHAT}?framing=ndjson", f"{CHAT}?format=simple"])
@pytest.mark.parametrize("first", ["m", "claude"])
@on_uvloop
async def test_an_answer_that_begins_in_one_dialect_and_is_given_in_another_is_one_stream(
    net: Net, path: str, first: str
) -> None:
    steps = [body(ROLE, ERROR), claude(*CLAUDE)] if first == "m" else [claude(CLAUDE[0], OVERLOADED), answer()]
    main = Steps(*steps)
    other = "claude" if first == "m" else "m"
    gateway = await gateway_for(net, main, retries=0)
    models = gateway.running.engine.settings.models
    settings = dataclasses.replace(
        gateway.running.engine.settings,
        models={**models, first: dataclasses.replace(models[first], fallback=(other,))},
    )
    running = await start(settings)
    net.stack.push_async_callback(running.close)
    response = await Gateway(net, running).ask("POST", path, {**OPENAI, "model": first})
    assert main.calls == 2
    if "gai" in path:
        assert response.text == "Hello"
        seqs = [event["seq"] for event in response.events[:-1]]
        assert seqs == list(range(1, len(seqs) + 1))
        assert response.types.count("stream.reset") == 1
    elif "simple" in path:
        assert "".join(event["content"] for event in response.events) == "Hello"
    else:
        chunks = response.events
        assert "".join(one["choices"][0]["delta"].get("content") or "" for one in chunks if one["choices"]) == "Hello"
        assert roles_of(response.body) == 1


@on_uvloop
async def test_a_fallback_that_cannot_say_what_is_asked_is_left_out(net: Net) -> None:
    main, backup = Steps(BUSY), Steps(answer())
    gateway = await gateway_for(net, main, backup, model={"fallback": ("claude", "backup")}, retries=0)
    response = await gateway.ask("POST", CHAT, {**OPENAI, "n": 2})
    assert (response.status, main.calls, backup.calls) == (200, 1, 1)


@on_uvloop
async def test_models_that_name_each_other_are_asked_once(net: Net) -> None:
    text = REFUSED["a context that is too long"]
    main = Steps(("400 Bad Request", text))
    url = (await net.upstream(main)).url
    settings: Settings = settings_for(url, retries=2)
    named = {"context_length_exceeded": "n"}, {"context_length_exceeded": "m"}
    first, second = (dataclasses.replace(settings.models["m"], fallback_on=leads) for leads in named)
    models = {"m": first, "n": dataclasses.replace(second, name="n")}
    running = await start(dataclasses.replace(settings, models=models))
    net.stack.push_async_callback(running.close)
    response = await Gateway(net, running).ask("POST", NATIVE, {**QUERY, "model": "m"})
    assert (response.status, main.calls) == (400, 2)


@on_uvloop
async def test_fallback_on_comes_first_where_the_code_is_one_that_is_tried_again(net: Net) -> None:
    main, backup = Steps(("429 Too Many Requests", b"{}")), Steps(answer())
    named = {"fallback": ("claude",), "fallback_on": {"rate_limited": "backup"}}
    gateway = await gateway_for(net, main, backup, model=named, retries=1)
    response = await gateway.ask("POST", NATIVE, {**QUERY, "model": "m"})
    assert (response.text, main.calls, backup.calls) == ("Hello", 2, 1)


@pytest.mark.parametrize("path", [NATIVE, CHAT])
@pytest.mark.parametrize("stream", [True, False])
@on_steady_loop
async def test_a_retry_after_that_is_too_long_is_reported_at_once_whatever_is_asked(
    net: Net, path: str, stream: bool
) -> None:
    main = Steps(("429 Too Many Requests", b'{"error":{"message":"slow down"}}', "Retry-After: 7"))
    gateway = await gateway_for(net, main, commit_after=5)
    response = await gateway.ask("POST", path, asked_of(path, stream=stream))
    assert (response.status, main.calls) == (429, 1)
    assert (response.headers["retry-after"], response.headers["retry-after-ms"]) == ("7", "7000")
    assert response.headers["x-should-retry"] == "true"


@pytest.mark.parametrize("value", ["garbage", "-1", "1e9", "0", "Wed, 21 Oct 2015 07:28:00 GMT", ""])
@on_uvloop
async def test_a_retry_after_that_says_nothing_is_none(net: Net, value: str) -> None:
    main = Steps((*BUSY, f"Retry-After: {value}"), answer())
    gateway = await gateway_for(net, main)
    assert (await gateway.ask("POST", NATIVE, {**QUERY, "model": "m"})).text == "Hello"
    assert main.calls == 2


@pytest.mark.parametrize(("count", "calls"), [("2", 1), ("10", 1), ("00", 3), ("", 3), ("x", 3), ("-1", 3)])
@on_uvloop
async def test_what_counts_as_a_clients_retry(net: Net, count: str, calls: int) -> None:
    main = Steps(BUSY)
    gateway = await gateway_for(net, main)
    await gateway.ask("POST", CHAT, OPENAI, {"x-stainless-retry-count": count})
    assert main.calls == calls


@pytest.mark.parametrize("path", [NATIVE, f"{NATIVE}?framing=ndjson", f"{NATIVE}?format=simple", CHAT])
@pytest.mark.parametrize("wish", ["restart", "continue"])
@on_steady_loop
async def test_an_answer_that_stalls_is_mended_as_one_that_breaks(net: Net, path: str, wish: str) -> None:
    async def handler(peer: Peer) -> None:
        calls.append(await peer.request())
        await peer.send(CUT if len(calls) == 1 else answer("Hello world"))
        await peer.until_gone()

    calls: list[bytes] = []
    gateway = await gateway_for(
        net, (await net.upstream(handler)).url, idle_timeout=0.2, on_midstream_failure=wish, heartbeat=0.05
    )
    response = await gateway.ask("POST", path, asked_of(path.partition("?")[0]))
    can = wish == "continue" or (path.startswith(NATIVE) and "simple" not in path)
    assert len(calls) == (2 if can else 1)
    text = ""
    for event in response.events:
        pieces = [choice["delta"].get("content", "") for choice in event.get("choices", ())]
        is_reset = event.get("type") == "stream.reset"
        text = "" if is_reset else "".join([text, event.get("text", ""), event.get("content", ""), *pieces])
    assert text == ("Hello world" if can else "Hello ")
    assert any("error" in event for event in response.events) is not can


@on_both_loops
async def test_a_stream_can_be_cancelled_while_it_is_verified(net: Net) -> None:
    async def handler(peer: Peer) -> None:
        calls.append(await peer.request())
        await peer.send(CUT if len(calls) == 1 else SSE_HEAD + chunk(ROLE) + chunk(delta("He")))
        if len(calls) > 1:
            await peer.until_gone()

    calls: list[bytes] = []
    gateway = await gateway_for(net, (await net.upstream(handler)).url, on_midstream_failure="continue")
    client, response = await gateway.stream({**QUERY, "model": "m"})
    await until(lambda: len(calls) == 2)
    await asyncio.sleep(0.05)
    cancelled = await gateway.ask("DELETE", f"/api/v1/streams/{response.headers['x-gai-stream-id']}")
    assert cancelled.status == 202
    await response.rest()
    assert response.types[-2:] == ["finish", "done"]
    assert (response.text, response.events[-2]["finish_reason"]) == ("Hello ", "cancelled")
    assert "continued" not in response.events[-2]
    client.close()


@on_uvloop
async def test_a_verified_answer_ends_as_it_was_left_where_the_next_one_differs(net: Net) -> None:
    begun = SSE_HEAD + chunk(ROLE) + chunk(tool("call_1", "weather", '{"a":1}'))
    main = Steps(begun, body(ROLE, tool("call_2", "time", '{"b":2}'), FINISH, DONE))
    gateway = await gateway_for(net, main, on_midstream_failure="continue")
    response = await gateway.ask("POST", NATIVE, {**QUERY, "model": "m"})
    calls = [event for event in response.events if event["type"] == "tool.call"]
    assert [(call["call_id"], call["tool_call"]) for call in calls] == [
        ("call_1", {"name": "weather", "input": {"a": 1}})
    ]
    assert response.events[-2]["error"]["code"] == "network"
    assert response.events[-2]["usage"]["source"] == "partial"


@on_uvloop
async def test_a_call_that_is_verified_keeps_its_id_to_the_end(net: Net) -> None:
    begun = SSE_HEAD + chunk(ROLE) + chunk(tool("call_1", "weather", '{"a"'))
    main = Steps(begun, body(ROLE, tool("call_2", "weather", '{"a":1}'), FINISH, DONE))
    gateway = await gateway_for(net, main, on_midstream_failure="continue")
    response = await gateway.ask("POST", NATIVE, {**QUERY, "model": "m"})
    assert {event["call_id"] for event in response.events if "call_id" in event} == {"call_1"}
    assert response.events[-3]["tool_call"] == {"name": "weather", "input": {"a": 1}}
    assert response.events[-2]["continued"] == "verified"


@on_uvloop
async def test_a_resumable_stream_has_one_numbering_through_its_attempts(net: Net) -> None:
    main = Steps(body(ROLE, ERROR), CUT, answer("Hello world"))
    gateway = await gateway_for(net, main, on_midstream_failure="restart")
    response = await gateway.ask("POST", NATIVE, {**QUERY, "model": "m", "resumable": True})
    stream_id = response.headers["x-gai-stream-id"]
    ids = [line.removeprefix("id: ") for line in response.body.decode().splitlines() if line.startswith("id: ")]
    assert ids == [f"{stream_id}.{seq}" for seq in range(1, len(ids) + 1)]
    assert response.types.count("stream.reset") == 2
    log = await gateway.running.engine.store.find(stream_id)
    assert log is not None
    assert b"".join(log.read(0, 1 << 30).pieces) == bytes(response.body)
    assert log.ending is not None
    assert log.ending.state == "finished"


@on_steady_loop
async def test_pings_run_while_a_retry_waits_and_its_failure_is_reported_in_band(
    net: Net, change_limits: ChangeLimits
) -> None:
    change_limits(retry_first=FIRST)
    main = Steps(BUSY)
    gateway = await gateway_for(net, main, retries=1, commit_after=0.1, heartbeat=0.1)
    response = await gateway.ask("POST", NATIVE, {**QUERY, "model": "m"})
    assert (response.status, main.calls) == (200, 2)
    assert b": ping" in response.body
    assert response.types == ["error", "done"]
    assert response.ended


@on_uvloop
async def test_a_retry_is_not_waited_for_where_the_breaker_has_opened(net: Net, change_limits: ChangeLimits) -> None:
    change_limits(retry_first=NEVER)
    main, backup = Steps(BUSY), Steps(answer())
    breaker = BreakerSettings(failures=1, window=30, open=30)
    gateway = await gateway_for(net, main, backup, breaker=breaker)
    assert (await gateway.ask("POST", NATIVE, {**QUERY, "model": "m"})).text == "Hello"
    assert (main.calls, backup.calls) == (1, 1)
    assert net.warned("'up' keeps failing") == 1


@on_both_loops
async def test_a_reset_within_a_frame_before_content_is_never_seen(net: Net) -> None:
    async def handler(peer: Peer) -> None:
        calls.append(await peer.request())
        if len(calls) == 1:
            await peer.send(SSE_HEAD + chunk(delta("Hello")[:40]))
            peer.reset()
        else:
            await peer.send(answer())

    calls: list[bytes] = []
    gateway = await gateway_for(net, (await net.upstream(handler)).url)
    response = await gateway.ask("POST", NATIVE, {**QUERY, "model": "m"})
    assert (response.text, len(calls)) == ("Hello", 2)
    assert response.types[0] == "start"


@on_uvloop
async def test_what_is_gathered_goes_on_through_a_fallback(net: Net) -> None:
    main, backup = Steps(body(ROLE, ERROR)), Steps(answer())
    gateway = await gateway_for(net, main, backup, retries=0, flush_interval=0.3)
    response = await gateway.ask("POST", f"{CHAT}?framing=ndjson", OPENAI)
    assert roles_of(response.body) == 1
    assert "".join(one["choices"][0]["delta"].get("content") or "" for one in response.events) == "Hello"


@on_uvloop
async def test_a_program_in_this_process_gets_retries_and_continuations_too(net: Net) -> None:
    main = Steps(body(ROLE, ERROR), CUT, answer("Hello world"))
    url = (await net.upstream(main)).url
    async with gai_fast.Gateway(settings_for(url, retries=2, on_midstream_failure="continue")) as gateway:
        result = await gateway.ask("Tell me a story", model="m")
    assert (result.text, main.calls) == ("Hello world", 3)
    assert result.metrics["retries"] == 2


@on_uvloop
async def test_the_log_and_the_figures_name_retries_and_fallbacks(net: Net) -> None:
    ends: list[StreamMetrics] = []

    class Sink:
        def stream_ended(self, metrics: StreamMetrics) -> None:
            ends.append(metrics)

    main, backup = Steps(BUSY), Steps(BUSY, answer())
    gateway = await gateway_for(net, main, backup)
    gateway.running.engine.sinks.append(Sink())
    await gateway.ask("POST", NATIVE, {**QUERY, "model": "m"})
    (end,) = ends
    assert (end.retries, end.fallbacks, end.outcome) == (3, 1, "finished")
    assert (end.model, end.upstream, end.answered_by) == ("m", "spare", "mock")


# ---- anything at any time ----------------------------------------------------------------------------------------

STORY = "Hello world, this is a story of some length"
OTHERWISE = STORY.replace("story", "poem")


class Chaos(Steps):
    """An upstream that does something else each time."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self.chance = chance
        self.is_well = False

    async def __call__(self, peer: Peer) -> None:
        while True:
            await peer.request()
            step = 0.0 if self.is_well else self.chance.random()
            if step < 0.25:
                await peer.send(answer(STORY))
            elif step < 0.45:
                await peer.answer("503 Service Unavailable", b"{}", JSON_TYPE, self.chance.choice(AFTER))
            elif step < 0.5:
                await peer.until_gone()
            elif step < 0.55:
                peer.reset()
                return
            else:
                story = self.chance.choice([STORY, STORY, STORY, OTHERWISE])
                whole = b"".join(map(chunk, [ROLE, *map(delta, story)]))
                await peer.send(SSE_HEAD + whole[: self.chance.randrange(len(whole))])
                await asyncio.sleep(self.chance.choice([0, 0.02]))
                if step < 0.7:
                    peer.reset()
                elif step < 0.8:
                    await peer.until_gone()
                return


AFTER = ["retry-after-ms: 20", "Retry-After: x", "Retry-After: 0", "x: y"]


async def follow(gateway: Gateway, chance: random.Random, path: str) -> None:
    """One client, which may leave, cancel, or be slow, at any moment."""
    client = await gateway.connect(4096 if chance.random() < 0.2 else None)
    client.request("POST", path, asked_of(path.partition("?")[0]))
    does = chance.random()
    if does < 0.3:
        await asyncio.sleep(chance.random() * 0.2)
        if does < 0.15:
            client.reset()
        else:
            client.close()
        return
    response = await client.response()
    if does < 0.5 and response.status == 200:
        await asyncio.sleep(chance.random() * 0.1)
        await gateway.ask("DELETE", f"/api/v1/streams/{response.headers['x-gai-stream-id']}")
    await response.rest()
    client.close()
    assert response.ended
    if response.status != 200:
        assert response.json["error"]["code"]
    elif path == NATIVE:
        types = response.types
        assert types[-1] == "done"
        assert types[-2] in ("finish", "error")
        assert response.events[-1]["finished"] is (types[-2] == "finish")
        assert sum(kind in ("finish", "error", "done") for kind in types) == 2
        seqs = [event["seq"] for event in response.events[:-1]]
        assert seqs == list(range(1, len(seqs) + 1))
        last = max((at for at, kind in enumerate(types) if kind == "stream.reset"), default=-1)
        text = "".join(event["text"] for event in response.events[last + 1 :] if event["type"] == "text.delta")
        assert STORY.startswith(text) or OTHERWISE.startswith(text)
        if response.events[-2].get("finish_reason") == "stop":
            assert text == STORY
    else:
        chunks = [event for event in response.events if event.get("choices")]
        text = "".join(one["choices"][0]["delta"].get("content") or "" for one in chunks)
        assert STORY.startswith(text) or OTHERWISE.startswith(text)
        assert roles_of(response.body) <= 1
        is_complete = bytes(response.body).endswith(DONE)
        assert is_complete is not (b'"error"' in response.body)
        assert not is_complete or text == STORY or b"cancelled" in response.body


@pytest.mark.parametrize("wish", ["error", "restart", "continue"])
@pytest.mark.parametrize("path", [NATIVE, CHAT])
@on_both_loops
async def test_whatever_happens_each_stream_is_legal_and_nothing_is_left(
    net: Net, wish: str, path: str, change_limits: ChangeLimits
) -> None:
    change_limits(retry_first=0.01, retry_floor=1000)
    chance = random.Random(f"{wish} {path} {SEED}")
    main, backup = Chaos(chance), Chaos(chance)
    gateway = await gateway_for(
        net,
        (await net.upstream(main)).url,
        backup,
        on_midstream_failure=wish,
        first_event_timeout=0.15,
        idle_timeout=0.15,
        commit_after=chance.choice([0.01, 2.0]),
        heartbeat=0.05,
        flush_interval=chance.choice([0, 0, 0.02]),
        breaker=BreakerSettings(failures=3, window=30, open=0.1),
    )
    await asyncio.gather(*(follow(gateway, chance, path) for _ in range(40)))
    await until(lambda: gateway.streams == 0)
    main.is_well = backup.is_well = True

    async def is_well() -> bool:  # the breaker closes with the first probe that succeeds
        response = await gateway.ask("POST", NATIVE, {**QUERY, "model": "m"})
        return response.text == STORY and gateway.running.engine.targets.breaker_states()["up"] == "closed"

    await until_answered(is_well)
    net.warned("'up' keeps failing")


SEED = os.environ.get("GAI_FAST_SEED", "3")


BAD_SIGNATURE: Step = (
    "400 Bad Request",
    b'{"error":{"message":"Invalid `signature` in `thinking` block","type":"invalid_request_error"}}',
)


@on_uvloop
async def test_reasoning_whose_signature_is_refused_is_left_out_once(net: Net) -> None:
    main = Steps(BAD_SIGNATURE, answer())
    gateway = await gateway_for(net, main)
    detail = {"type": "reasoning.text", "text": "Hm", "signature": "c2ln", "format": "gai-test-v1"}
    earlier = {"role": "assistant", "content": "4", "reasoning_content": "Hm", "reasoning_details": [detail]}
    body = {**OPENAI, "messages": [*MESSAGES, earlier, *MESSAGES]}
    response = await gateway.ask("POST", CHAT, body)
    assert response.status == 200
    assert main.bodies[1]["messages"] == [*MESSAGES, {"role": "assistant", "content": "4"}, *MESSAGES]
    assert "reasoning_details" in response.headers["x-gai-dropped"]

    native = [{"type": "reasoning", "text": "Hm", "signature": "c2ln"}, {"type": "text", "text": "4"}]
    main = Steps(BAD_SIGNATURE, answer())
    gateway = await gateway_for(net, main)
    response = await gateway.ask(
        "POST", NATIVE, {"model": "m", "messages": [*MESSAGES, {"role": "assistant", "content": native}, *MESSAGES]}
    )
    assert (response.status, response.headers["x-gai-dropped"]) == (200, "messages[1].content[0]")
    # A request without reasoning, or refused again, gets the upstream's own 400.
    main = Steps(BAD_SIGNATURE)
    gateway = await gateway_for(net, main)
    response = await gateway.ask("POST", CHAT, OPENAI)
    assert (response.status, main.calls) == (400, 1)
    response = await gateway.ask("POST", CHAT, body)
    assert (response.status, main.calls) == (400, 3)
