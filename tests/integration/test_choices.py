"""Several choices of one answer, in the chat dialect: what belongs to a choice stands on it, however it was written."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gai_fast.model.settings import GuardSettings
from tests.integration.gateway import CHAT, DONE, LAST_CHUNK, MESSAGES, NATIVE, SSE_HEAD, Net, Peer, on_uvloop
from tests.wire import chunk

WORDS = GuardSettings("names", "words", words=("kestrel",))


def scores(*tokens: str) -> list[dict[str, Any]]:
    return [{"token": each, "logprob": -0.5, "bytes": None, "top_logprobs": []} for each in tokens]


def scored(content: Any = None, refusal: Any = None) -> dict[str, Any]:
    return {"content": content, "refusal": refusal}


def frame(number: int, delta: Any, reason: str | None = None, logprobs: Any = None) -> bytes:
    choice = {"index": number, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
    chunk_ = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "mock", "choices": [choice]}
    return b"data: %b\n\n" % json.dumps(chunk_).encode()


CALL = {"index": 0, "id": "t1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
SAID = (
    frame(0, {"role": "assistant", "content": ""}),
    frame(0, {"content": "A"}, logprobs=scored(scores("A"))),
    frame(1, {"content": "B kestrel"}, logprobs=scored(scores("B", " kestrel"))),
    frame(1, {"tool_calls": [CALL]}),
    frame(2, {"refusal": "no"}, logprobs=scored(None, scores("no"))),
    frame(3, {"content": "D"}, logprobs=scored(scores("D"))),
    frame(0, {"content": "."}, logprobs=scored(scores("."))),
    frame(3, {}, "length"),
    frame(1, {}, "tool_calls"),
    frame(0, {}, "stop"),
    frame(2, {}, "content_filter"),
)
REASONS = {0: "stop", 1: "tool_calls", 2: "content_filter", 3: "length"}


async def saying(peer: Peer) -> None:
    while True:
        await peer.request()
        await peer.send(SSE_HEAD, *[chunk(each) for each in SAID], chunk(DONE) + LAST_CHUNK)


def choices_of(body: bytes, *, is_stream: bool) -> dict[int, dict[str, Any]]:
    """Returns the finish reason and the probabilities of each choice."""
    found: dict[int, dict[str, Any]] = {}
    lines = body.decode().splitlines()
    parts = [json.loads(each[6:]) for each in lines if each.startswith("data: {")] if is_stream else [json.loads(body)]
    for each in parts:
        for choice in each["choices"]:
            known = found.setdefault(choice["index"], {"content": [], "refusal": []})
            if choice["finish_reason"]:
                known["reason"] = choice["finish_reason"]
            for name, given in (choice.get("logprobs") or {}).items():
                known[name] += given or []
            if "safety" in each.get("x_gai", {}):
                known["safety"] = each["x_gai"]["safety"]["category"]
    return found


@on_uvloop
@pytest.mark.parametrize("is_stream", [True, False])
@pytest.mark.parametrize("way", ["plain", "key", "guard", "both"])
async def test_what_belongs_to_a_choice_stands_on_it(net: Net, way: str, is_stream: bool) -> None:
    """As it comes, and in a repeat of the request."""
    is_guarded = way in ("guard", "both")
    gateway = await net.gateway(await net.upstream(saying), guards=(WORDS,) if is_guarded else ())
    body = {"model": "m", "messages": MESSAGES, "n": 4, "logprobs": True, "stream": is_stream}
    headers = {"idempotency-key": "k"} if way in ("key", "both") else {}
    for _ in range(2):
        response = await gateway.ask("POST", CHAT, body, headers)
        assert response.status == 200, response.body
        found = choices_of(response.body, is_stream=is_stream)
        assert {number: each["reason"] for number, each in found.items()} == REASONS
        if is_guarded:
            assert [number for number, each in found.items() if "safety" in each] == ([1] if is_stream else [])
        else:
            assert [found[number]["content"] for number in range(4)] == [
                scores("A", "."),
                scores("B", " kestrel"),
                [],
                scores("D"),
            ]
            assert found[2]["refusal"] == scores("no")


@on_uvloop
@pytest.mark.parametrize("word", ["", "kestrel", "length"])
async def test_native_events_name_the_choices_that_ended_otherwise(net: Net, word: str) -> None:
    """Whatever a guard finds in the answer: the words of an end are the gateway's."""
    guards = (GuardSettings("names", "words", words=(word,)),) if word else ()
    gateway = await net.gateway(await net.upstream(saying), guards=guards)
    response = await gateway.ask("POST", NATIVE, {"model": "m", "query": "hi"})
    [end] = [each for each in response.events if each["type"] == "finish"]
    assert end["finish_reason"] == "stop"
    assert {each["choice"]: each["finish_reason"] for each in end["provider_metadata"]["choices"]} == {
        number: reason for number, reason in REASONS.items() if number
    }
