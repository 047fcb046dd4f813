"""Processors over real sockets: JSON that is followed, checked and sent as it grows, and what passes untouched."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NoReturn

import pytest
from openai.types.chat import ChatCompletion

from gai_fast.server.serving import start
from tests.conftest import ChangeLimits
from tests.integration.gateway import (
    DONE,
    END,
    NATIVE,
    SSE_HEAD,
    Gateway,
    Net,
    Peer,
    delta,
    joined,
    on_both_loops,
    on_uvloop,
    settings_for,
)
from tests.waiting import until
from tests.wire import chunk

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}, "s": {"type": "string"}}, "required": ["n"]}
JSON_SCHEMA = {"type": "json_schema", "name": "x", "schema": SCHEMA}
ASKED = {"model": "m", "query": "Give me JSON."}
DOCUMENT = '{"n": 1, "s": "a \\"word\\""}'


async def gateway_saying(net: Net, text: str, *processors: dict[str, Any], size: int = 3, **options: Any) -> Gateway:
    """Returns a gateway whose upstream says a text, in pieces."""

    async def say(peer: Peer) -> None:
        while True:
            await peer.request()
            pieces = [delta(text[at : at + size]) for at in range(0, len(text), size)]
            await peer.send(SSE_HEAD, *map(chunk, pieces), *END)

    settings = settings_for((await net.upstream(say)).url, **options)
    running = await start(dataclasses.replace(settings, processors=processors))
    net.gateways.append(Gateway(net, running))
    net.stack.push_async_callback(running.close)
    return net.gateways[-1]


@pytest.fixture
def schema_library(unavailable: Callable[[str], NoReturn]) -> None:
    if find_spec("jsonschema_rs") is None:
        unavailable("jsonschema-rs")


def of_type(events: list[dict[str, Any]], *types: str) -> list[dict[str, Any]]:
    return [event for event in events if event["type"] in types]


# ---- snapshots -------------------------------------------------------------------------------------------------------


@on_both_loops
@pytest.mark.parametrize("accept", ["text/event-stream", "application/x-ndjson"])
async def test_the_value_so_far_is_reported_where_it_was_asked_for(net: Net, accept: str) -> None:
    gateway = await gateway_saying(net, DOCUMENT)
    asked = {**ASKED, "json_snapshots": 1, "response_format": {"type": "json"}}
    response = await gateway.ask("POST", NATIVE, asked, {"accept": accept})
    events = response.events
    assert "".join(event["text"] for event in of_type(events, "text.delta")) == DOCUMENT
    snapshots = [event["json"] for event in of_type(events, "json.snapshot")]
    assert snapshots[-1] == json.loads(DOCUMENT)
    assert [event["seq"] for event in events[:-1]] == list(range(1, len(events)))
    assert not of_type(events, "warning")


@on_both_loops
async def test_a_snapshot_that_is_due_comes_without_a_further_read(net: Net) -> None:
    async def say(peer: Peer) -> None:
        await peer.request()
        await peer.send(SSE_HEAD, chunk(delta('{"a": 1, ')), chunk(delta('"b": [2, ')))
        await peer.until_gone()

    gateway = await net.gateway(await net.upstream(say))
    client, response = await gateway.stream({**ASKED, "json_snapshots": 30})
    await response.until(b'"json":{"a":1,"b":[2]}')
    client.close()
    await until(lambda: not gateway.streams)


@on_uvloop
async def test_nobody_who_did_not_ask_gets_any(net: Net) -> None:
    gateway = await gateway_saying(net, "prose, and no JSON")
    response = await gateway.ask("POST", NATIVE, {**ASKED, "response_format": {"type": "json"}})
    assert {event["type"] for event in response.events} == {"start", "text.delta", "finish", "done"}


@on_uvloop
async def test_the_whole_answer_is_the_text_that_was_followed(net: Net) -> None:
    gateway = await gateway_saying(net, f"Here:\n```json\n{DOCUMENT}\n```", {"use": "json_stream", "recover": True})
    asked = {**ASKED, "response_format": {"type": "json"}, "stream": False}
    response = await gateway.ask("POST", NATIVE, asked)
    assert response.json["text"] == DOCUMENT


# ---- validation ------------------------------------------------------------------------------------------------------


@on_both_loops
async def test_a_mismatch_ends_the_stream_early_where_that_is_configured(net: Net, schema_library: None) -> None:
    gone: list[bool] = []

    async def say(peer: Peer) -> None:
        await peer.request()
        await peer.send(SSE_HEAD, chunk(delta('{"s": 5')), chunk(delta(', "n": 1')))
        await peer.until_gone()
        gone.append(True)

    settings = settings_for((await net.upstream(say)).url)
    configured = dataclasses.replace(settings, processors=({"use": "json_stream", "on_invalid": "error"},))
    running = await start(configured)
    net.gateways.append(Gateway(net, running))
    net.stack.push_async_callback(running.close)
    response = await net.gateways[-1].ask("POST", NATIVE, {**ASKED, "response_format": JSON_SCHEMA})
    error, done = response.events[-2:]
    assert (error["error"]["code"], error["error"]["reason"]) == ("provider_unavailable", "schema_mismatch")
    assert done == {"type": "done", "finished": False}
    await until(lambda: gone)


@on_uvloop
async def test_a_mismatch_is_a_warning_otherwise(net: Net, schema_library: None) -> None:
    gateway = await gateway_saying(net, '{"n": "one"}')
    asked = {**ASKED, "response_format": JSON_SCHEMA, "json_snapshots": 1}
    response = await gateway.ask("POST", NATIVE, asked)
    assert [event["reason"] for event in of_type(response.events, "warning")] == ["schema_mismatch"]
    assert response.events[-1] == {"type": "done", "finished": True}


@on_uvloop
async def test_a_document_that_is_too_large_to_be_checked_ends_its_own_answer_and_says_why(
    net: Net, schema_library: None, change_limits: ChangeLimits
) -> None:
    """Although it is valid: nobody has checked it."""
    change_limits(schema_work=1)
    gateway = await gateway_saying(net, DOCUMENT, {"use": "json_stream", "on_invalid": "error"})
    checked, other = await asyncio.gather(
        gateway.ask("POST", NATIVE, {**ASKED, "response_format": JSON_SCHEMA}),
        gateway.ask("POST", NATIVE, {**ASKED, "response_format": {"type": "json"}}),
    )
    error = checked.events[-2]["error"]
    assert (error["code"], error["reason"]) == ("provider_unavailable", "schema_unchecked")
    assert "limit schema_work): ask for a smaller answer, or make the schema smaller" in error["message"]
    assert other.events[-1] == {"type": "done", "finished": True}


@on_uvloop
async def test_a_schema_that_is_none_is_refused_before_anybody_is_asked(net: Net, schema_library: None) -> None:
    gateway = await gateway_saying(net, DOCUMENT)
    form = {**JSON_SCHEMA, "schema": {"type": 5}}
    response = await gateway.ask("POST", NATIVE, {**ASKED, "response_format": form, "json_snapshots": 1})
    assert response.status == 400
    assert (response.error["code"], response.error["reason"]) == ("invalid_request", "schema")


# ---- chat completions ------------------------------------------------------------------------------------------------


@on_uvloop
async def test_clients_of_the_openai_dialect_are_validated_too(net: Net, schema_library: None) -> None:
    gateway = await gateway_saying(net, '{"n": "one"}', {"use": "json_stream", "on_invalid": "error"})
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
    response = await gateway.chat(response_format=form)
    assert b"[DONE]" not in response.body
    assert "schema" in response.events[-1]["error"]["message"]


@on_uvloop
async def test_what_no_processor_wants_passes_through_as_it_came(net: Net) -> None:
    plain = (await (await gateway_saying(net, "Hello", size=2)).chat()).body
    gateway = await gateway_saying(net, "Hello", {"use": "json_stream", "on_invalid": "error"}, size=2)
    assert (await gateway.chat()).body == plain
    assert (await gateway.chat(made_up=1)).status == 200, "as in any passthrough"


@on_uvloop
async def test_processors_change_what_clients_of_the_openai_dialect_get(net: Net) -> None:
    words = {"use": "transform", "replace": {"Hello": "Bye"}}
    gateway = await gateway_saying(net, "Hello, Hello", words, {"use": "batch", "characters": 100}, size=2)
    response = await gateway.chat()
    assert joined(response.events) == "Bye, Bye"
    assert response.body.endswith(DONE)
    assert sum(bool(joined([event])) for event in response.events) == 1
    whole = await gateway.chat(stream=False)
    assert whole.json["choices"][0]["message"]["content"] == "Bye, Bye"


@on_uvloop
async def test_a_whole_answer_with_several_choices_has_them_with_a_processor_too(net: Net) -> None:
    """Its upstream has `n`: the body is sent as it is, and the answer is read as a stream."""
    bodies: list[Any] = []

    async def say(peer: Peer) -> None:
        bodies.append(json.loads(await peer.request()))
        texts = [delta("one", index=0), delta("two sec", index=1), delta("ret", index=1)]
        await peer.send(SSE_HEAD, *map(chunk, texts), *END)

    settings = settings_for((await net.upstream(say)).url)
    running = await start(
        dataclasses.replace(settings, processors=({"use": "transform", "replace": {"secret": "***"}},))
    )
    net.stack.push_async_callback(running.close)
    response = await Gateway(net, running).chat(stream=False, n=2)
    choices = ChatCompletion.model_validate(response.json).choices
    assert [(each.index, each.message.content) for each in choices] == [(0, "one"), (1, "two ***")]
    assert (bodies[0]["n"], bodies[0]["stream"]) == (2, True)


@on_uvloop
async def test_no_probability_holds_a_replaced_word(net: Net) -> None:
    async def say(peer: Peer) -> None:
        while True:
            await peer.request()
            texts = [
                delta(text, logprobs={"content": [{"token": text, "logprob": -1.0, "bytes": None, "top_logprobs": []}]})
                for text in ("my", " sec", "ret", " is")
            ]
            await peer.send(SSE_HEAD, *map(chunk, texts), *END)

    settings = settings_for((await net.upstream(say)).url)
    running = await start(
        dataclasses.replace(settings, processors=({"use": "transform", "replace": {"secret": "***"}},))
    )
    net.stack.push_async_callback(running.close)
    gateway = Gateway(net, running)
    for response in (await gateway.chat(logprobs=True), await gateway.chat(logprobs=True, stream=False)):
        assert b"***" in response.body
        assert b"sec" not in response.body
        assert b'"token":"my"' in response.body
        assert b'"token":" is"' in response.body


@on_uvloop
async def test_processors_live_through_a_retry(net: Net) -> None:
    calls: list[bytes] = []

    async def say(peer: Peer) -> None:
        calls.append(await peer.request())
        if len(calls) == 1:
            await peer.send(SSE_HEAD, chunk(delta("[1, ")))  # and the connection breaks
        else:
            await peer.send(SSE_HEAD, chunk(delta("[2]")), *END)

    gateway = await net.gateway(await net.upstream(say), on_midstream_failure="restart", retries=1)
    events = (await gateway.ask("POST", NATIVE, {**ASKED, "json_snapshots": 1})).events
    types = [event["type"] for event in events]
    assert "stream.reset" in types
    assert of_type(events, "json.snapshot")[-1]["json"] == [2]
    assert events[-1] == {"type": "done", "finished": True}
    assert not of_type(events, "warning"), "what was void is no part of the document"


@on_both_loops
@pytest.mark.parametrize("size", [400_000, 60_000])
@pytest.mark.parametrize("value", ["1,", '{"a": 1},'])
async def test_a_long_document_is_read_in_turns_and_others_are_served(net: Net, value: str, size: int) -> None:
    """Whatever its deltas are: the snapshots and the text are whole, and its end comes behind them."""
    document = "[" + value * (400_000 // len(value)) + "0]"
    gateway = await gateway_saying(net, document, size=size)
    asked = asyncio.create_task(gateway.ask("POST", NATIVE, {**ASKED, "json_snapshots": 1}))
    await until(lambda: gateway.streams == 1)
    for _ in range(5):
        health = await gateway.ask("GET", "/healthz")
        assert (health.status, asked.done()) == (200, False)
    response = await asked
    assert response.text == document
    snapshots = of_type(response.events, "json.snapshot")
    assert snapshots[-1]["json"] == json.loads(document)
    assert not of_type(response.events, "warning")
    assert [each["type"] for each in response.events[-2:]] == ["finish", "done"]
