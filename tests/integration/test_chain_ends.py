"""Chains after turns that did not complete, and chains of which a part is gone or another caller's."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gai_fast.model.settings import ANONYMOUS, ResponsesSettings
from tests.integration.gateway import END, LAST_CHUNK, SSE_HEAD, Net, Peer, delta, on_uvloop
from tests.integration.test_chains import ALICE, BOB, KEYS, PATH, Asked, Talk, every
from tests.waiting import until_answered
from tests.wire import chunk

GONE = (400, "previous_response_not_found")


class Ending:
    """An upstream whose answers end as the newest message of the user says.

    Attributes:
        asked: The conversations: roles and texts.
    """

    def __init__(self) -> None:
        self.asked: list[list[tuple[str, str]]] = []

    async def __call__(self, peer: Peer) -> None:
        while body := await peer.request():
            said = json.loads(body)["messages"]
            self.asked.append([(each["role"], each["content"]) for each in said])
            await peer.send(SSE_HEAD, chunk(delta("part")))
            end = said[-1]["content"]
            if end == "fail":
                return
            if end == "wait":
                await peer.until_gone()
            elif end == "short":
                await peer.send(chunk(delta("", delta={}, finish_reason="length")), LAST_CHUNK)
            else:
                await peer.send(*END)


@on_uvloop
@pytest.mark.parametrize(
    ("end", "status", "rest"),
    [("fail", "failed", []), ("short", "incomplete", ["part"]), ("wait", "cancelled", ["part"])],
)
async def test_a_turn_that_did_not_complete_is_gone_on_from(net: Net, end: str, status: str, rest: list[str]) -> None:
    """Of a failed one whole items count, of the others all."""
    ending = Ending()
    gateway = await net.gateway(await net.upstream(ending))
    talk = Talk(gateway)
    client, response = await gateway.stream({"model": "m", "input": end, "stream": True}, PATH)
    if end == "wait":
        await response.until(b"response.output_text.delta")
    else:
        await response.rest()
    client.close()
    talk.last = response.events[0]["response"]["id"]

    async def is_kept() -> bool:
        return (await gateway.ask("GET", f"{PATH}/{talk.last}")).status == 200

    await until_answered(is_kept)
    assert (await gateway.ask("GET", f"{PATH}/{talk.last}")).json["status"] == status
    answer = await gateway.ask("POST", PATH, {"model": "m", "input": "on", "previous_response_id": talk.last})
    assert answer.status == 200, bytes(answer.body)
    assert [text for _, text in ending.asked[-1]] == [end, *rest, "on"]


@on_uvloop
@pytest.mark.parametrize("gone", ["time", "bytes"])
async def test_a_chain_with_a_turn_that_has_expired_or_was_dropped_is_refused(net: Net, gone: str) -> None:
    asked = Asked([delta("one")], [delta("two")])
    gateway = await every(net, asked)
    responses = gateway.running.engine.store.responses
    responses.use(ResponsesSettings(ttl=1.0 if gone == "time" else 600.0))
    talk = Talk(gateway)
    await talk.ask("m", "1" if gone == "time" else "1" * 20_000)
    root = talk.last
    responses.use(ResponsesSettings(ttl=600.0, max_bytes=16_384 if gone == "bytes" else 1 << 20))
    await talk.ask("m", "2")

    async def is_gone() -> bool:
        return await responses.find(ANONYMOUS, root) is None

    await until_answered(is_gone)
    sent = len(asked.requests)
    assert (await gateway.ask("GET", f"{PATH}/{talk.last}")).status == 200, "the newest turn is there"
    for model in ("m", "openai:responses", "anthropic"):
        status, error = await talk.refused(model)
        assert (status, error["code"]) == GONE
        assert error["message"] == f"Previous response with id '{talk.last}' not found."
    assert len(asked.requests) == sent


@on_uvloop
async def test_items_of_another_caller_are_unknown(net: Net) -> None:
    asked = Asked([delta("one")])
    gateway = await every(net, asked, keys=KEYS)
    alice = Talk(gateway, **{"x-api-key": ALICE})
    answer = await alice.ask("m", "1")
    [own] = (await gateway.ask("GET", f"{PATH}/{answer['id']}/input_items", headers=alice.headers)).json["data"]
    sent = len(asked.requests)
    for identifier in (answer["output"][0]["id"], own["id"]):
        for item in ({"type": "item_reference", "id": identifier}, {"id": identifier}):
            for model in ("m", "openai:responses"):
                body: dict[str, Any] = {"model": model, "input": [item, {"role": "user", "content": "?"}]}
                response = await gateway.ask("POST", PATH, body, {"x-api-key": BOB})
                assert (response.status, response.error["code"]) == (400, "item_not_found")
                assert "1" not in response.error["message"].replace(identifier, "")
    assert len(asked.requests) == sent
