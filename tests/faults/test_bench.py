"""The bench itself: each breach of an invariant is seen."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import Any

import pytest

from gai_fast.net.engine.engine import Count
from tests.faults.bench import TURN, Bench, check_chat, check_stream, fault
from tests.faults.test_upstream import ANSWER
from tests.integration.gateway import KEY, Net, Reader, Response, on_uvloop

START = {"schema": "gai.events.v1", "type": "start", "ts": 1, "seq": 1, "request_id": "r", "provider": "p"}
A, B = ({"type": "text.delta", "seq": seq, "text": text} for seq, text in ((2, "a"), (3, "b")))
FINISHED = {"type": "finish", "seq": 4, "finish_reason": "stop"}
FAILED = {"type": "error", "seq": 4, "error": {"code": "network"}}
DONE: dict[str, Any] = {"type": "done", "finished": True}
NOT_DONE: dict[str, Any] = {"type": "done", "finished": False}


def response(*events: dict[str, Any], ended: bool = True, behind: bytes = b"") -> Response:
    made = Response(Reader(loop=asyncio.new_event_loop()), 200, {"content-type": "text/event-stream"}, "HTTP/1.1")
    made._reader._loop.close()
    made.body += b"".join(b"event: x\ndata: %b\n\n" % json.dumps(event).encode() for event in events) + behind
    made.ended = ended
    return made


def test_streams_that_keep_to_the_rules_pass() -> None:
    check_stream(response(START, A, B, FINISHED, DONE), "ab")
    check_stream(response(START, A, B, FAILED, NOT_DONE, behind=b": ping\n"), "abc")
    check_stream(response(START, A, ended=False), "abc")


@pytest.mark.parametrize(
    "broken",
    [
        response(START, A, B, FINISHED, DONE, behind=b"data: {"),
        response(START, A, {**B, "text": "x"}, FINISHED, DONE),
        response(START, A, {**FINISHED, "seq": 3}, DONE),
        response(START, A, {**B, "seq": 4}, {**FINISHED, "seq": 5}, DONE),
        response(START, A, B, FINISHED, {**FAILED, "seq": 5}, DONE),
        response(START, A, B, FINISHED),
        response(START, A, B, FAILED, DONE),
        response(START, A, B, FINISHED, DONE, ended=False),
        response(START, A, B, FINISHED, DONE, DONE),
    ],
    ids="half-frame other-text part gap two-ends no-done lie cut-and-done done-twice".split(),
)
def test_a_stream_that_breaks_a_rule_is_seen(broken: Response) -> None:
    with pytest.raises(AssertionError):
        check_stream(broken, "ab")


def chat(*data: str, ended: bool = True) -> Response:
    made = response(ended=ended)
    made.body += b"".join(b"data: %b\n\n" % each.encode() for each in data)
    return made


CHUNK = '{"choices":[{"delta":{"content":"a"}}]}'


def test_chat_streams_that_break_a_rule_are_seen() -> None:
    assert check_chat(chat(CHUNK, "[DONE]"), "a") is None
    assert check_chat(chat(CHUNK, '{"error":{"code":"network"}}'), "ab") == {"code": "network"}
    broken = [(CHUNK,), (CHUNK, '{"error":{}}', "[DONE]"), ('{"error":{}}', CHUNK), (CHUNK, "[DONE]", "[DONE]")]
    for data in broken:
        with pytest.raises(AssertionError):
            check_chat(chat(*data), "a")
    with pytest.raises(AssertionError):
        check_chat(chat(CHUNK, "[DONE]"), "ab")


async def ask_too_much(bench: Bench) -> None:
    upstream = await bench.sending(ANSWER)
    gateway = await bench.gateway(upstream.url)
    await gateway.ask("POST", "/api/v1/stream", {"query": "hi", "model": "m"})


async def log_a_secret(bench: Bench) -> None:
    logging.getLogger("gai_fast.engine").debug("asked with %s", KEY)


async def hold_the_loop(bench: Bench) -> None:
    began = time.thread_time()
    while time.thread_time() < began + 1.1 * TURN:
        pass
    await asyncio.sleep(0.02)


async def leave_a_stream(bench: Bench) -> None:
    gateway = await bench.gateway((await bench.sending(ANSWER)).url)
    gateway.running.engine._callers["somebody"] = left = Count()
    left.number = 1


@pytest.mark.parametrize("breach", [ask_too_much, log_a_secret, hold_the_loop, leave_a_stream])
@on_uvloop
async def test_a_breach_of_an_invariant_fails_the_scenario(net: Net, breach: Any) -> None:
    bench = Bench(net)
    with pytest.raises(AssertionError), bench.watching():  # the end of the block sees a secret
        await breach(bench)
        await bench.check()


def test_a_fault_belongs_to_a_row() -> None:
    with pytest.raises(AssertionError):
        fault()
