"""`/v1/responses` over a WebSocket: one turn at a time, what waits, what is wrong, and how a turn ends."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import re
from itertools import count
from typing import Any

import pytest
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from gai_fast.core.session import session_digest
from gai_fast.kernels import encode_json
from gai_fast.model.metrics import StreamMetrics
from gai_fast.model.settings import ANONYMOUS, KeyLimits, KeySettings, key_digest
from tests.conftest import ChangeLimits
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
    on_uvloop,
)
from tests.integration.test_keys import ENDS as REVOKED
from tests.integration.test_keys import OPERATOR, made
from tests.integration.test_keys import ask as operate
from tests.integration.test_openai_sdk import client_of
from tests.integration.test_responses import CODEX
from tests.integration.websocket import BINARY, CONTINUATION, Socket, connect, frame, handshake, refused
from tests.limits import LIMITS
from tests.requests.test_open_responses import faults
from tests.unit.formats.responses_reader import frame as own_frame
from tests.unit.formats.responses_reader import upstream as own_answer
from tests.waiting import until
from tests.wire import chunk

EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
ALICE, BOB = "sk-canary-alice-012345", "sk-canary-bob-012345"
KEYS = (KeySettings("alice", (key_digest(ALICE),)), KeySettings("bob", (key_digest(BOB),)))
PATH = "/v1/responses"
ASK = {"model": "m", "input": "Tell me a story"}
ENDS = ("response.completed", "response.incomplete", "response.failed", "error")


async def opened(gateway: Gateway, protocols: str | None = None, **headers: str) -> Socket:
    return await connect(gateway, protocols, PATH, **headers)


def create(socket: Socket, **members: Any) -> None:
    socket.send(type="response.create", **{**ASK, **members})


async def turn(socket: Socket, **members: Any) -> list[dict[str, Any]]:
    """Asks for a response; returns its messages."""
    create(socket, **members)
    return await rest(socket)


async def rest(socket: Socket) -> list[dict[str, Any]]:
    """Returns the messages up to the end of a turn."""
    found = []
    while not found or found[-1]["type"] not in ENDS:
        message = await socket.read()
        assert message is not None, (socket.closed, found)
        found.append(message)
    return found


def comparable(events: Any) -> str:
    """Returns events without what differs between two answers."""
    text = json.dumps(events)
    for event in events:
        response = event.get("response", {})
        for name in ("id", "created_at", "completed_at"):
            if response.get(name):
                text = text.replace(json.dumps(response[name]).strip('"'), name)
        identifier = event.get("item_id") or event.get("item", {}).get("id", "")
        if identifier:
            text = text.replace(identifier.partition("_")[2], "item")
    return text


@on_both_loops
async def test_a_turn_has_the_events_of_a_stream_over_http(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=8))
    over_http = [json.loads(data) for data in (await gateway.ask("POST", PATH, {**ASK, "stream": True})).data]
    socket = await opened(gateway)
    assert "sec-websocket-protocol" not in socket.response.headers
    for members in ({}, {"stream": False, "stream_options": {"include_obfuscation": False}}, {"generate": True}):
        events = await turn(socket, **members)
        assert comparable(events) == comparable(over_http)
        assert [event["sequence_number"] for event in events] == [*range(len(events))]


# ---- how a turn ends -------------------------------------------------------------------------------------------------


@on_uvloop
@pytest.mark.parametrize(
    ("asked", "status", "code", "param"),
    [
        ({"model": "none"}, 404, "not_found", None),
        ({"input": 7}, 400, "invalid_request", None),
        ({"background": True}, 400, "unsupported", "background"),
        ({"stream_id": "s1"}, 400, "unsupported", "stream_id"),
        ({"generate": "no"}, 400, "invalid_request", None),
        ({"background": "yes"}, 400, "invalid_request", None),
    ],
)
async def test_a_refused_turn_is_one_error_with_the_status_of_the_post(
    net: Net, asked: Any, status: int, code: str, param: str | None
) -> None:
    gateway = await net.gateway(await net.mock(deltas=2))
    socket = await opened(gateway)
    [message] = await turn(socket, **asked)
    assert list(message) == ["type", "status", "error"]
    assert message["status"] == status
    assert set(message["error"]) == {"type", "code", "message", "param"}
    assert (message["error"]["code"], isinstance(message["error"]["type"], str)) == (code, True)
    if param is not None:
        assert message["error"]["param"] == param
    if not {"background", "stream_id", "generate"} & asked.keys():
        over_http = await gateway.ask("POST", PATH, {**ASK, **asked, "stream": True})
        assert (over_http.status, over_http.error) == (message["status"], message["error"])
    assert (await turn(socket))[-1]["type"] == "response.completed"


@on_uvloop
@pytest.mark.parametrize(("model", "kind"), [("m", "rate_limit_error"), ("native/mock", "requests")])
async def test_an_upstreams_refusal_keeps_its_status_and_a_code_that_is_a_text(net: Net, model: str, kind: str) -> None:
    error = {"message": "slow down", "type": "requests", "param": None, "code": None}

    async def refusing(peer: Peer) -> None:
        while await peer.request():
            await peer.answer("429 Too Many Requests", json.dumps({"error": error}).encode())

    gateway = await net.gateway(await net.upstream(refusing))
    socket = await opened(gateway)
    [message] = await turn(socket, model=model)
    assert message == {
        "type": "error",
        "status": 429,
        "error": {"type": kind, "code": "rate_limited", "message": "slow down", "param": None},
    }


@on_uvloop
async def test_a_failure_amid_an_answer_is_response_failed_alone(net: Net) -> None:
    async def breaking(peer: Peer) -> None:
        await peer.request()
        await peer.send(SSE_HEAD, chunk(delta("one ")), chunk(delta("two ")))

    gateway = await net.gateway(await net.upstream(breaking))
    socket = await opened(gateway)
    events = await turn(socket)
    assert [event["type"] for event in events][-1] == "response.failed"
    assert "error" not in {event["type"] for event in events}
    assert events[-1]["response"]["error"]["code"] == "server_error"


async def quiet(peer: Peer) -> None:
    """An upstream that says one word, and then nothing."""
    await peer.request()
    await peer.send(SSE_HEAD + chunk(delta("word")))
    await peer.until_gone()


@on_both_loops
@pytest.mark.parametrize("named", ["by its id", "without an id"])
async def test_a_cancel_ends_the_turn_that_runs(net: Net, named: str) -> None:
    upstream = await net.upstream(quiet)
    gateway = await net.gateway(upstream)
    socket = await opened(gateway)
    create(socket)
    created = await socket.until(type="response.created")
    await socket.until(type="response.output_text.delta")
    socket.send(type="response.cancel", response_id="resp_of_another")
    socket.send(type="response.processed", response_id="resp_of_another")
    socket.send(type="response.cancel", **({"response_id": created["response"]["id"]} if named == "by its id" else {}))
    last = (await rest(socket))[-1]
    assert (last["type"], last["response"]["status"]) == ("response.incomplete", "cancelled")
    assert last["response"]["id"] == created["response"]["id"]
    await upstream.until_finished()
    socket.send(type="response.cancel", response_id=created["response"]["id"])  # it has ended
    socket.send(type="response.cancel", response_id=None)
    [message] = await turn(socket, model="none")
    assert message["status"] == 404, "nothing was said to the late cancels"
    assert not gateway.streams


# ---- what waits ------------------------------------------------------------------------------------------------------


def gated(gate: asyncio.Event, asked: list[Any]) -> Any:
    """An upstream that answers once it may, with the text that it was asked."""

    async def handler(peer: Peer) -> None:
        while body := await peer.request():
            text = json.loads(body.partition(b"\r\n\r\n")[2] or body)["messages"][-1]["content"]
            asked.append(text)
            await gate.wait()
            await peer.send(SSE_HEAD, chunk(delta(text)), chunk(FINISH), chunk(DONE), LAST_CHUNK)

    return handler


@on_both_loops
async def test_of_thirteen_creates_at_once_nine_are_answered_in_order(net: Net) -> None:
    gate, asked = asyncio.Event(), list[Any]()
    gateway = await net.gateway(await net.upstream(gated(gate, asked)))
    socket = await opened(gateway)
    for number in range(13):
        create(socket, input=str(number))
    for _ in range(4):
        message = await socket.read()
        assert message is not None
        assert (message["type"], message["status"], message["error"]["code"]) == ("error", 429, "rate_limited")
    assert gateway.streams == 1, "one at a time"
    gate.set()
    for number in range(9):
        events = await rest(socket)
        assert events[-1]["response"]["output"][0]["content"][0]["text"] == str(number)
    assert asked == [str(number) for number in range(9)]
    assert (await turn(socket, input="more"))[-1]["type"] == "response.completed"


@on_uvloop
async def test_creates_that_wait_have_max_body_bytes_together(net: Net) -> None:
    gate, asked = asyncio.Event(), list[Any]()
    gateway = await net.gateway(await net.upstream(gated(gate, asked)), max_body=3_000)
    socket = await opened(gateway)
    for number in range(4):
        create(socket, input=str(number) * 1_200)
    message = await socket.read()
    assert message is not None
    assert (message["type"], message["status"]) == ("error", 429)
    gate.set()
    for _ in range(3):
        await rest(socket)
    assert [text[0] for text in asked] == ["0", "1", "2"]


# ---- messages and frames ---------------------------------------------------------------------------------------------


@on_both_loops
async def test_a_wrong_message_is_an_error_and_the_socket_stays(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=1))
    socket = await opened(gateway)
    deep = '{"type":"response.create","input":' + "[" * 100_000 + "]" * 100_000 + "}"
    wrong = [
        *(
            "not json",
            "",
            "[]",
            "7",
            '{"type":"response.create"',
            "{}",
            '{"type":null}',
            '{"type":["response.create"]}',
        ),
        *('{"type":"response.steer"}', '{"type":"response.cancel","response_id":7}', '{"type":"' + "x" * 5000 + '"}'),
        *(deep, '{"type":"response.create","model":"m","input":"\\ud800"}', '{"type":"response.create","model":7}'),
    ]
    for text in wrong:
        socket.client.send(frame(text))
        message = await socket.read()
        assert message is not None, text[:50]
        assert (message["type"], message["status"]) == ("error", 400), text[:50]
        assert message["error"]["code"] == "invalid_request"
    assert (await turn(socket))[-1]["type"] == "response.completed"


@on_both_loops
async def test_frames_against_the_rules_close_the_socket(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=1), max_body=5_000)
    for sent, code in (
        (frame(b"\x00\x01", BINARY), 1003),
        (frame(b'{"type":"response.create\xff"}'), 1007),
        (frame("x" * 5_001), 1009),
        (frame("x" * 3_000, final=False) + frame("x" * 3_000, CONTINUATION), 1009),
        (frame("{}", masked=False), 1002),
        (frame("x", CONTINUATION), 1002),
    ):
        socket = await opened(gateway)
        socket.client.send(sent)
        assert await socket.close_code() == code, sent[:20]
        assert socket.messages == []


@on_both_loops
async def test_fragments_and_early_frames_are_one_turn(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=2), max_body=6 << 20)
    whole = json.dumps({"type": "response.create", **ASK})
    early = frame(whole[:20], final=False) + frame(whole[20:], CONTINUATION)
    socket = await connect(gateway, None, PATH, early=early)
    assert (await rest(socket))[-1]["type"] == "response.completed"
    large = frame(json.dumps({"type": "response.create", **ASK, "input": "x" * (5 << 20)}))
    await socket.client.send_in_pieces(large, 65536)
    assert (await rest(socket))[-1]["type"] == "response.completed", "more than a message of /ws/stream may have"


@on_both_loops
async def test_a_handshake_is_refused_as_it_should(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=1), keys=KEYS)
    key = {"x-api-key": ALICE}
    for headers, status, code in (
        ({}, 426, "invalid_request"),
        ({"upgrade": "h2c", "connection": "upgrade"}, 426, "invalid_request"),
        (handshake(None, sec_websocket_version="8"), 426, "invalid_request"),
        (handshake(None, sec_websocket_key="short"), 400, "invalid_request"),
        (handshake(None, origin="http://elsewhere.example"), 403, "forbidden"),
    ):
        answer = await refused(gateway, {**headers, **key}, PATH)
        assert (answer.status, answer.error["code"]) == (status, code), headers
        assert ("upgrade" in answer.headers) is (status == 426)
    for headers in (handshake(None), handshake(None, authorization="Bearer wrong")):
        assert (await refused(gateway, headers, PATH)).status == 401
    for protocols, more in (
        (None, {"authorization": f"Bearer {ALICE}"}),
        (None, key),
        (f"bearer.{ALICE}", {}),
        (f"bearer.{ALICE}, realtime", {}),
    ):
        socket = await connect(gateway, protocols, PATH, **more)
        assert "sec-websocket-protocol" not in socket.response.headers
        assert (await turn(socket))[-1]["type"] == "response.completed"
    assert (await gateway.ask("PUT", PATH, ASK, key)).status == 405


# ---- what is passed on -----------------------------------------------------------------------------------------------

OWN = own_answer(text="one two three four five six seven eight nine ten")


def lines(kind: str, frames: list[bytes]) -> bytes:
    """Returns an answer's frames in another form of SSE."""
    whole = b"".join(frames)
    if kind == "CRLF":
        return whole.replace(b"\n", b"\r\n")
    if kind == "CR":
        return whole.replace(b"\n", b"\r")
    if kind == "no event":
        return re.sub(rb"event: [^\n]*\n", b"", whole)
    if kind == "no blank":
        return whole.replace(b"data: ", b"data:")
    if kind == "comments":
        return (
            b": hello\n\n" + whole.replace(b"event: ", b": a comment\nid: 7\nretry: 9\nevent: ") + b"data: [DONE]\n\n"
        )
    if kind == "lines":
        return whole.replace(b'"sequence_number"', b'\ndata: "sequence_number"')
    if kind == "data first":
        return re.sub(rb"(event: [^\n]*\n)(data: [^\n]*\n)", rb"\2\1", whole)
    return whole


@on_both_loops
@pytest.mark.parametrize("kind", ["OpenAI's", "CRLF", "CR", "no event", "no blank", "comments", "lines", "data first"])
@pytest.mark.parametrize("pace", ["at once", "one by one"])
async def test_an_upstreams_events_are_passed_on_whatever_form_their_frames_have(
    net: Net, kind: str, pace: str
) -> None:
    answer = lines(kind, OWN)

    async def handler(peer: Peer) -> None:
        while await peer.request():
            if pace == "at once":
                await peer.send(SSE_HEAD, chunk(answer), LAST_CHUNK)
                continue
            await peer.send(SSE_HEAD)
            for start in range(0, len(answer), 150):
                await peer.send(chunk(answer[start : start + 150]))
                await asyncio.sleep(0.001)
            await peer.send(LAST_CHUNK)

    gateway = await net.gateway(await net.upstream(handler))
    socket = await opened(gateway)
    expected = [json.loads(each.partition(b"data: ")[2]) for each in OWN]
    for _ in range(2):
        events = await turn(socket, model="native/mock")
        assert events == expected


@on_uvloop
@pytest.mark.parametrize("first", ["error", "response.failed"])
async def test_of_a_passed_failure_one_message_is_sent(net: Net, first: str) -> None:
    failed = own_frame("response.failed", 3, response={"id": "resp_theirs", "object": "response", "status": "failed"})
    error = own_frame("error", 2, code="server_error", message="no", param=None)
    last = [error, failed] if first == "error" else [failed, error]

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(SSE_HEAD, chunk(b"".join([*OWN[:6], *last])), LAST_CHUNK)

    gateway = await net.gateway(await net.upstream(handler))
    socket = await opened(gateway)
    events = await turn(socket, model="native/mock")
    assert [event["type"] for event in events].count("error") == 0
    assert events[-1]["type"] == "response.failed"
    [refusal] = await turn(socket, model="none")
    assert refusal["status"] == 404, "nothing came after the end"


@on_uvloop
async def test_a_passed_answer_is_cancelled_by_the_upstreams_id(net: Net) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(SSE_HEAD, chunk(b"".join(OWN[:6])))
        await peer.until_gone()

    upstream = await net.upstream(handler)
    gateway = await net.gateway(upstream)
    socket = await opened(gateway)
    create(socket, model="native/mock")
    await socket.until(type="response.output_text.delta")
    socket.send(type="response.cancel", response_id="resp_theirs")
    last = (await rest(socket))[-1]
    assert (last["type"], last["response"]["status"]) == ("response.incomplete", "cancelled")
    await upstream.until_finished()


# ---- deltas one by one -----------------------------------------------------------------------------------------------


@on_both_loops
@pytest.mark.parametrize("options", [{}, {"on_disconnect": "detach"}])
async def test_deltas_that_come_one_by_one_are_the_same(net: Net, options: dict[str, Any]) -> None:
    async def slowly(peer: Peer) -> None:
        await peer.request()
        await peer.send(SSE_HEAD)
        for number in range(60):
            await peer.send(chunk(delta(f'w"{number} ')))
            await asyncio.sleep(0.001)
        await peer.send(chunk(FINISH + DONE) + LAST_CHUNK)

    gateway = await net.gateway(await net.upstream(slowly), **options)
    socket = await opened(gateway)
    events = await turn(socket)
    assert [event["sequence_number"] for event in events] == [*range(len(events))]
    assert all({"id", "stream"}.isdisjoint(event) for event in events)
    said = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
    assert said == "".join(f'w"{number} ' for number in range(60))
    for event in events:
        EVENT.validate_python(event)


# ---- without an answer -----------------------------------------------------------------------------------------------


@on_both_loops
@pytest.mark.parametrize("asked", [{}, {"input": []}, {"tools": [{"type": "function", "name": "f"}]}])
async def test_nothing_is_generated_for_a_turn_that_prepares_the_next(net: Net, asked: dict[str, Any]) -> None:
    mock = await net.mock(deltas=2)
    limits = KeyLimits(requests_per_minute=2, tokens_per_minute=5)
    key = KeySettings("alice", (key_digest(ALICE),), limits=limits)
    gateway = await net.gateway(mock, keys=(key,))
    socket = await opened(gateway, x_api_key=ALICE)
    created, completed = await turn(socket, generate=False, max_output_tokens=100_000, **asked)
    assert (created["type"], created["sequence_number"]) == ("response.created", 0)
    assert (completed["type"], completed["sequence_number"]) == ("response.completed", 1)
    response = completed["response"]
    assert response["id"] == created["response"]["id"]
    assert (response["status"], response["output"]) == ("completed", [])
    assert {name: response["usage"][name] for name in ("input_tokens", "output_tokens", "total_tokens")} == {
        "input_tokens": 0, "output_tokens": 0, "total_tokens": 0,
    }  # fmt: skip
    for event in (created, completed):
        EVENT.validate_python(event)
    assert mock.requests == []
    assert not gateway.running.engine.transfers
    [refused_turn] = await turn(socket, model="none", generate=False)
    assert refused_turn["status"] == 404
    await turn(socket, generate=False)
    [limited] = await turn(socket, generate=False)
    assert limited["status"] == 429, "each is a request"


# ---- the handshake's headers, counts, logs ---------------------------------------------------------------------------


class Ended:
    """Receives the figures of streams."""

    def __init__(self) -> None:
        self.figures: list[StreamMetrics] = []

    def stream_ended(self, metrics: StreamMetrics) -> None:
        self.figures.append(metrics)


@on_uvloop
async def test_turns_have_the_session_of_the_handshake_and_ids_of_their_own(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=1))
    ended = Ended()
    gateway.running.engine.sinks.append(ended)
    more = {"session-id": "abc", "idempotency-key": "k1", "accept-encoding": "gzip", "x-request-id": "one"}
    socket = await opened(gateway, **more)
    for _ in range(2):
        assert (await turn(socket))[-1]["type"] == "response.completed"
    assert [each.transport for each in ended.figures] == ["ws", "ws"]
    assert len({each.request_id for each in ended.figures} - {"one"}) == 2
    assert [each.session for each in ended.figures] == [session_digest("abc", ANONYMOUS)] * 2


@on_uvloop
async def test_a_header_of_the_handshake_says_what_becomes_of_members_that_cannot_be_said(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=1))
    asked = {"tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]}
    [refusal] = await turn(await opened(gateway), **asked)
    assert (refusal["status"], refusal["error"]["code"]) == (400, "unsupported")
    for headers in ({"x-gai-unsupported": "drop"}, CODEX):
        socket = await opened(gateway, **headers)
        assert (await turn(socket, **asked))[-1]["type"] == "response.completed"


@on_uvloop
@pytest.mark.parametrize("program", ["codex", "another"])
async def test_codex_gets_events_in_a_silence_and_others_get_pings(net: Net, program: str) -> None:
    gateway = await net.gateway(await net.upstream(quiet), heartbeat=0.05)
    socket = await opened(gateway, **({"user-agent": CODEX["user-agent"]} if program == "codex" else {}))
    create(socket)
    delta_of = await socket.until(type="response.output_text.delta")
    if program == "codex":
        for _ in range(2):
            message = await socket.read()
            assert message == {"type": "keepalive", "sequence_number": delta_of["sequence_number"]}
        return
    reading = asyncio.create_task(socket.read())
    await until(lambda: socket.pings > 2)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)


@on_uvloop
async def test_turns_are_counted_and_logged_as_posts(net: Net, caplog: pytest.LogCaptureFixture) -> None:
    gateway = await net.gateway(await net.upstream(quiet))
    with caplog.at_level(logging.INFO, "gai_fast.access"):
        socket = await opened(gateway)
        create(socket)
        await socket.until(type="response.output_text.delta")
        metrics = (await gateway.ask("GET", "/metrics")).body.decode()
        assert 'gai_fast_active_streams{transport="ws"} 1' in metrics
        socket.send(type="response.cancel")
        await rest(socket)
        await turn(socket, input=7)
        socket.client.close()
        await until(lambda: " 101 " in caplog.text)
    logged = [record.getMessage().split() for record in caplog.records if PATH in record.getMessage()]
    assert [(line[1].strip("'"), line[3]) for line in logged if line[3] != "101"] or logged
    assert sorted(line[3] for line in logged) == ["101", "200", "400"]
    metrics = (await gateway.ask("GET", "/metrics")).body.decode()
    counted = [line for line in metrics.splitlines() if line.startswith("gai_fast_requests_total{")]
    counted = [line for line in counted if not line.endswith(" 0.0")]
    assert sorted(re.findall(r'outcome="(\w+)"', "".join(counted))) == ["cancelled", "refused"]
    assert all(f'endpoint="{PATH}"' in line for line in counted)


# ---- keys, drain, clients --------------------------------------------------------------------------------------------


@on_uvloop
async def test_a_key_that_is_revoked_amid_an_answer_ends_it_and_starts_nothing_more(net: Net) -> None:
    gateway = await net.gateway(await net.mock(rate=100, deltas=1000), keys=(OPERATOR,))
    secret = await made(gateway, "shop")
    socket = await opened(gateway, x_api_key=secret)
    create(socket)
    create(socket)
    await socket.until(type="response.output_text.delta")
    began = asyncio.get_running_loop().time()
    assert (await operate(gateway, "DELETE", "/shop")).status == 200
    last = (await rest(socket))[-1]
    assert (last["type"], last["response"]["status"]) == ("response.incomplete", "cancelled")
    assert asyncio.get_running_loop().time() - began < 1.0
    for message in (await rest(socket), await turn(socket)):
        assert [(each["type"], each["status"], each["error"]["code"]) for each in message] == [
            ("error", 401, "unauthorized")
        ]
    socket.client.close()
    assert net.warned(REVOKED) == 1


@on_both_loops
async def test_a_drain_lets_the_answer_end_and_refuses_what_waits(net: Net) -> None:
    gate, asked = asyncio.Event(), list[Any]()

    async def waits(peer: Peer) -> None:
        asked.append(await peer.request())
        await peer.send(SSE_HEAD + chunk(delta("word")))
        await gate.wait()
        await peer.send(chunk(FINISH + DONE) + LAST_CHUNK)

    gateway = await net.gateway(await net.upstream(waits))
    idle, busy = await opened(gateway), await opened(gateway)
    for _ in range(3):
        create(busy)
    await busy.until(type="response.output_text.delta")
    draining = asyncio.create_task(gateway.running.drain(30.0, asyncio.Event()))
    assert await idle.close_code() == 1012
    create(busy)
    for _ in range(3):
        message = await busy.read()
        assert message is not None
        assert (message["type"], message["status"], message["error"]["code"]) == ("error", 503, "overloaded")
    gate.set()
    assert (await rest(busy))[-1]["type"] == "response.completed"
    assert await busy.close_code() == 1012
    assert len(asked) == 1
    await draining


@on_both_loops
async def test_the_end_of_the_server_ends_the_answer(net: Net) -> None:
    gateway = await net.gateway(await net.upstream(quiet))
    socket = await opened(gateway)
    create(socket)
    await socket.until(type="response.output_text.delta")
    await gateway.running.drain(0.0, asyncio.Event())
    closing = asyncio.create_task(gateway.running.close())
    assert await socket.close_code() == 1012
    await closing
    net.warned("draining")
    assert socket.messages[-1]["type"] == "response.failed"


@on_both_loops
@pytest.mark.parametrize("leave", ["close", "reset", "eof"])
async def test_a_client_that_leaves_cancels_the_answer_and_what_waits(net: Net, leave: str) -> None:
    upstream = await net.upstream(quiet)
    gateway = await net.gateway(upstream)
    socket = await opened(gateway)
    for _ in range(3):
        create(socket)
    await socket.until(type="response.output_text.delta")
    if leave == "eof":
        socket.client.writer.write_eof()
    else:
        getattr(socket.client, leave)()
    await upstream.until_finished()
    await until(lambda: not gateway.is_connected)
    assert (gateway.streams, len(upstream.peers)) == (0, 1)


async def endless(peer: Peer) -> None:
    await peer.request()
    await peer.send(SSE_HEAD)
    while True:
        await peer.send(chunk(delta("x" * 1000)))


@on_both_loops
async def test_a_client_that_reads_nothing_pauses_its_upstream_and_is_given_up(net: Net) -> None:
    upstream = await net.upstream(endless)
    gateway = await net.gateway(upstream, write_timeout=0.6, client_buffer=65536)
    socket = await connect(gateway, None, PATH, receive_buffer=4096)
    create(socket)
    await socket.until(type="response.output_text.delta")
    socket.client.pause()
    session = next(iter(gateway.running.engine.streams.values()))
    await until(lambda: session._delivery.is_paused)
    assert gateway.unsent < 65536 + 2 * 262144
    await upstream.until_finished()
    await until(lambda: not gateway.is_connected)


@on_uvloop
async def test_errors_that_are_not_read_end_the_socket(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=1), client_buffer=4096)
    socket = await connect(gateway, None, PATH, receive_buffer=4096)
    socket.client.pause()
    flood = frame("nonsense") * 2000
    while gateway.running.service.sockets.sessions:
        socket.client.send(flood)
        await asyncio.sleep(0.01)
    socket.client.resume()
    assert await socket.close_code() in (1008, 1006)


# ---- the SDK ---------------------------------------------------------------------------------------------------------


@on_uvloop
async def test_openais_sdk_reads_turns_and_errors(net: Net) -> None:
    async def handler(peer: Peer) -> None:
        while await peer.request():
            is_passed = b"POST /v1/responses" in peer.head
            answer = OWN if is_passed else [delta("one "), delta("two"), FINISH, DONE]
            await peer.send(SSE_HEAD, *map(chunk, answer), LAST_CHUNK)

    gateway = await net.gateway(await net.upstream(handler))
    client = client_of(net, gateway)
    async with client.responses.connect() as connection:
        for model in ("m", "native/mock"):
            await connection.response.create(model=model, input="Hello")
            text = ""
            async for event in connection:
                if event.type == "response.output_text.delta":
                    text += event.delta
                if event.type == "response.completed":
                    assert event.response.output_text == text
                    break
        await connection.response.create(model="none", input="Hello")
        error: Any = await connection.recv()
        assert (error.type, error.status, error.error.code) == ("error", 404, "not_found")
        await connection.response.create(model="m", input="Hello", generate=False)
        kinds = [(await connection.recv()).type for _ in range(2)]
        assert kinds == ["response.created", "response.completed"]


@on_uvloop
@pytest.mark.parametrize("model", ["m", "native/mock"])
@pytest.mark.parametrize("route", ["socket", "stream", "whole"])
@pytest.mark.parametrize("members", [{}, {"store": False}, {"previous_response_id": True}])
async def test_a_response_leaves_nothing_for_the_garbage_collector(
    net: Net, model: str, route: str, members: dict[str, Any]
) -> None:
    """Each left its last object in a cycle, with the instructions that it repeats: 10 MB of 2 MB of instructions."""

    identifier = json.loads(OWN[0].partition(b"data: ")[2])["response"]["id"].encode()
    numbers = count()

    async def handler(peer: Peer) -> None:
        while body := await peer.request():
            named = identifier + b"%d" % next(numbers)
            own = [each.replace(identifier, named) for each in OWN]
            asked = json.loads(body)
            if model == "m":
                await peer.send(SSE_HEAD, chunk(delta("word")), chunk(FINISH + DONE), LAST_CHUNK)
            elif asked.get("stream"):
                await peer.send(SSE_HEAD, chunk(b"".join(own)), LAST_CHUNK)
            else:
                await peer.answer("200 OK", encode_json(json.loads(own[-1].partition(b"data: ")[2])["response"]))

    gateway = await net.gateway(await net.upstream(handler))
    socket, client = await opened(gateway), await gateway.connect()
    parent: str | None = None

    async def ask() -> None:
        nonlocal parent
        asked = {
            **ASK,
            **members,
            "model": model,
            "previous_response_id": parent if "previous" in str(members) else None,
        }
        if route == "socket":
            parent = (await turn(socket, **asked))[-1]["response"]["id"]
            return
        answer = await (await client.ask("POST", PATH, {**asked, "stream": route == "stream"})).rest()
        assert answer.status == 200, answer
        objects = [json.loads(each) for each in answer.data] if route == "stream" else [answer.json]
        parent = objects[-1].get("response", objects[-1])["id"]

    await ask()
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        for _ in range(3):
            await ask()
        await until(lambda: gateway.streams == 0)
        gc.collect()
        left = {type(each).__qualname__ for each in gc.garbage if type(each).__module__.startswith("gai_fast.")}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
    assert not left


# ---- what the connection remembers -----------------------------------------------------------------------------------


async def talks(net: Net, **options: Any) -> tuple[Gateway, list[Any]]:
    """A gateway, and the conversations that its upstream is asked; each is answered by `a` and its number."""
    asked: list[Any] = []

    async def handler(peer: Peer) -> None:
        while body := await peer.request():
            said = json.loads(body)["messages"]
            asked.append([(each["role"], each["content"]) for each in said])
            if said[-1]["content"] == "fail":
                await peer.send(SSE_HEAD, chunk(delta("broken")))
                return
            await peer.send(SSE_HEAD, chunk(delta(f"a{len(asked)}")), chunk(FINISH + DONE), LAST_CHUNK)

    return await net.gateway(await net.upstream(handler), **options), asked


def not_found(messages: list[dict[str, Any]]) -> bool:
    [message] = messages
    error = message["error"]
    found = (message["type"], message["status"], error["code"], error["param"])
    return found == ("error", 400, "previous_response_not_found", "previous_response_id")


@on_both_loops
async def test_a_response_that_is_not_stored_is_continued_in_its_connection_alone(net: Net) -> None:
    gateway, asked = await talks(net)
    socket, other = await opened(gateway), await opened(gateway)
    first = (await turn(socket, input="one", store=False))[-1]["response"]
    assert first["store"] is False
    assert not_found(await turn(other, input="?", previous_response_id=first["id"]))
    last = (await turn(socket, input="two", store=False, previous_response_id=first["id"]))[-1]["response"]
    assert last["previous_response_id"] == first["id"]
    assert [*faults(first), *faults(last)] == []
    assert asked[-1] == [("user", "one"), ("assistant", "a1"), ("user", "two")]
    assert not_found(await turn(socket, input="?", previous_response_id=first["id"])), "there is a newer one"
    third = (await turn(socket, input="three", previous_response_id=last["id"]))[-1]
    assert third["type"] == "response.completed"
    assert [text for _, text in asked[-1]] == ["one", "a1", "two", "a2", "three"]
    assert not_found(await turn(socket, input="?", previous_response_id="resp_unknown"))
    assert (await turn(socket, input="four", previous_response_id=third["response"]["id"]))[-1]["type"] == (
        "response.completed"
    ), "what was refused by another id has changed nothing"


@on_uvloop
async def test_items_of_a_response_that_is_not_stored_are_named_in_its_connection_alone(net: Net) -> None:
    gateway, asked = await talks(net)
    socket, other = await opened(gateway), await opened(gateway)
    first = (await turn(socket, input="one", store=False))[-1]["response"]
    named = {"type": "item_reference", "id": first["output"][0]["id"]}
    [refused] = await turn(other, input=[named, {"role": "user", "content": "two"}], store=False)
    assert (refused["status"], refused["error"]["code"]) == (400, "item_not_found")
    second = (await turn(socket, input=[named, {"role": "user", "content": "two"}], store=False))[-1]
    assert second["type"] == "response.completed", second
    assert asked[-1] == [("assistant", "a1"), ("user", "two")]
    stored = (await turn(other, input="three"))[-1]["response"]
    both = [{"type": "item_reference", "id": each["output"][0]["id"]} for each in (second["response"], stored)]
    last = await turn(socket, input=both, previous_response_id=second["response"]["id"])
    assert last[-1]["type"] == "response.completed", last
    assert [text for _, text in asked[-1]] == ["a1", "two", "a2a2a3"], "messages of an assistant are joined"
    await turn(socket, input="alone", store=False)
    [gone] = await turn(socket, input=[named], store=False)
    assert (gone["status"], gone["error"]["code"]) == (400, "item_not_found"), "there is a newer response"


@on_uvloop
@pytest.mark.parametrize("is_stored", [True, False])
@pytest.mark.parametrize("failure", ["an error", "amid the answer"])
async def test_a_failed_continuation_takes_its_parent_out_of_the_connection(
    net: Net, is_stored: bool, failure: str
) -> None:
    gateway, asked = await talks(net)
    socket = await opened(gateway)
    first = (await turn(socket, input="one", store=is_stored))[-1]["response"]
    wrong = (
        [{"type": "function_call_output", "call_id": "call_none", "output": "x"}] if failure == "an error" else "fail"
    )
    end = (await turn(socket, input=wrong, store=False, previous_response_id=first["id"]))[-1]
    assert end["type"] == ("error" if failure == "an error" else "response.failed")
    if failure == "an error":
        assert (end["status"], end["error"]["code"]) == (400, "invalid_request")
    again = await turn(socket, input="two", store=is_stored, previous_response_id=first["id"])
    if is_stored:
        assert again[-1]["type"] == "response.completed"
        assert asked[-1] == [("user", "one"), ("assistant", "a1"), ("user", "two")]
    else:
        assert not_found(again)


@on_both_loops
@pytest.mark.parametrize("is_stored", [True, False])
async def test_a_turn_without_an_answer_is_a_parent(net: Net, is_stored: bool) -> None:
    gateway, asked = await talks(net)
    socket = await opened(gateway)
    for members, before in (({"input": "be brief"}, [("user", "be brief")]), ({"input": None}, [])):
        prepared = (await turn(socket, generate=False, store=is_stored, **members))[-1]["response"]
        assert prepared["store"] is is_stored
        answer = (await turn(socket, input="one", previous_response_id=prepared["id"]))[-1]
        assert answer["type"] == "response.completed", answer
        assert asked[-1] == [*before, ("user", "one")]
        kept = await gateway.ask("GET", f"{PATH}/{prepared['id']}")
        assert (kept.status, kept.json["status"] if is_stored else None) == (
            (200, "completed") if is_stored else (404, None)
        )


@on_uvloop
@pytest.mark.parametrize("model", ["m", "native/mock"])
@pytest.mark.parametrize("attribution", ["auto", "keep"])
async def test_a_turn_without_an_answer_may_have_many_tools_and_no_input(
    net: Net, model: str, attribution: str
) -> None:
    """Large bodies are translated beside the loop."""
    gateway = await net.gateway(await net.mock(deltas=1), attribution=attribution)
    socket = await opened(gateway)
    tool = {"type": "function", "description": "x" * 100, "parameters": {"type": "object", "properties": {}}}
    for number in (1, max(LIMITS.turn_containers // 3, LIMITS.checked_bytes // 100)):
        for given in ({"input": None}, {"input": []}, {"input": "be brief"}):
            tools = [{**tool, "name": f"f{at}"} for at in range(number)]
            prepared = (await turn(socket, model=model, generate=False, tools=tools, **given))[-1]
            assert prepared["type"] == "response.completed", prepared
            last = (await turn(socket, model="m", input="one", previous_response_id=prepared["response"]["id"]))[-1]
            assert last["type"] == "response.completed", last


@on_uvloop
async def test_a_stored_response_is_continued_on_any_connection_and_over_http(net: Net) -> None:
    gateway, asked = await talks(net)
    socket, other = await opened(gateway), await opened(gateway)
    first = (await turn(socket, input="one"))[-1]["response"]
    assert first["store"] is True
    second = (await turn(other, input="two", previous_response_id=first["id"]))[-1]["response"]
    answer = await gateway.ask("POST", PATH, {**ASK, "input": "three", "previous_response_id": second["id"]})
    assert answer.status == 200
    assert [text for _, text in asked[-1]] == ["one", "a1", "two", "a2", "three"]


def held(size: int) -> int:
    """Returns the number of texts of more than a size that anything but an upstream of the test holds."""
    found: set[int] = set()
    for each in gc.get_objects():
        if not isinstance(each, Peer):
            large = [one for one in gc.get_referents(each) if isinstance(one, (bytes, bytearray, str))]
            found |= {id(one) for one in large if len(one) > size}
    return len(found)


@pytest.mark.parametrize("is_turn", [True, False], ids=["responses", "streams"])
@on_uvloop
async def test_a_socket_that_waits_holds_nothing_of_its_last_message(
    net: Net, is_turn: bool, change_limits: ChangeLimits
) -> None:
    change_limits(socket_conversation=100_000)  # what it remembers for its next turn is less

    async def answers(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(SSE_HEAD, chunk(delta("Hi")), chunk(FINISH), chunk(DONE), LAST_CHUNK)

    gateway = await net.gateway((await net.upstream(answers)).url)
    sockets = []
    gc.collect()
    before = held(500_000)
    gc.disable()
    try:
        for _ in range(5):
            socket = await connect(gateway, path=PATH if is_turn else "/ws/stream", protocols=None)
            sockets.append(socket)
            text = "x" * 1_000_000
            if is_turn:
                await turn(socket, input=text, store=False)
            else:
                socket.send(query=text, model="m")
                await socket.until(type="done")
            socket.messages.clear()
            del text
        await until(lambda: not gateway.streams)
        assert held(500_000) == before
    finally:
        gc.enable()
