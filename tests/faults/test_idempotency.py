"""Faults of clients that send a request again: rows 30 and 31 of docs/reliability.md."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.faults.bench import Bench, check_stream, fault
from tests.faults.test_upstream import ANSWER, EXHAUSTIVE, TEXT, body
from tests.integration.gateway import (
    CHAT,
    MESSAGES,
    NATIVE,
    QUERY,
    Gateway,
    Peer,
    Response,
    delta,
    joined,
    on_both_loops,
)

ASKED: dict[str, dict[str, Any]] = {
    NATIVE: {**QUERY, "model": "m"},
    CHAT: {"model": "m", "messages": MESSAGES, "stream": True},
}
REPLAYED = "idempotent-replayed"


async def send(gateway: Gateway, path: str, key: str, **more: Any) -> Response:
    return await gateway.ask("POST", path, {**ASKED[path], **more}, {"idempotency-key": key})


def text_of(response: Response, path: str) -> str:
    if response.headers["content-type"] == "application/json":
        answer = response.json
        return str(answer["text"] if path == NATIVE else answer["choices"][0]["message"]["content"])
    if path == NATIVE:
        check_stream(response, TEXT)
        return response.text
    return joined(response.events)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("path", [NATIVE, CHAT])
@fault(30, on=on_both_loops)
async def test_of_requests_with_one_key_at_once_one_asks_the_upstream_and_all_get_its_answer(
    bench: Bench, path: str, stream: bool
) -> None:
    gateway = await bench.gateway((await bench.sending(ANSWER)).url)
    for race in range(250 if EXHAUSTIVE else 5):
        key = f"race-{race}"
        more = {"stream": stream or path == CHAT}
        other = send(gateway, path, key, temperature=0.5, **more)
        same = [send(gateway, path, key, **more) for _ in range(8)]
        *answers, refused = await asyncio.gather(*same, other)
        bench.asked += 1
        if refused.status == 200:  # it came first
            assert {each.status for each in answers} == {422}
            continue
        assert refused.status == 422
        assert {(each.status, bytes(each.body)) for each in answers} == {(200, bytes(answers[0].body))}
        assert sum(REPLAYED in each.headers for each in answers) == len(answers) - 1
        assert text_of(answers[0], path) == TEXT
        assert bench.calls == race + 1


@fault(31)
async def test_a_key_after_the_end_replays_the_answer_or_its_failure_and_is_free_after_an_early_one(
    bench: Bench,
) -> None:
    answers = {"early": b"", "late": body(delta("Hel")), "": ANSWER}
    ends = "early"

    async def answer(peer: Peer) -> None:
        await peer.request()
        if ends == "early":
            await peer.answer("500 Internal Server Error", b"{}")
        else:
            await peer.send(answers[ends])

    gateway = await bench.gateway((await bench.upstream(answer)).url)
    for path in (NATIVE, CHAT):
        ends = "early"
        bench.asked += 1
        assert (await send(gateway, path, "early")).status == 500
        ends = ""
        bench.asked += 1
        first = await send(gateway, path, "early")
        again = await send(gateway, path, "early")
        assert (REPLAYED in first.headers, REPLAYED in again.headers) == (False, True)
        assert again.body == first.body
        assert text_of(again, path) == TEXT
        ends = "late"
        bench.asked += 1
        first = await send(gateway, path, "late")
        ends = ""
        again = await send(gateway, path, "late")
        assert b"truncated" in first.body if path == NATIVE else b'"error"' in first.body
        assert (again.body, REPLAYED in again.headers) == (first.body, True)
    assert bench.calls == bench.asked
