"""Requests that go on from kept responses, or name items of them: as if their clients had sent everything."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import openai
import pytest

from gai_fast.formats.responses.chain import own_items
from gai_fast.model.settings import (
    ANONYMOUS,
    KeySettings,
    ModelSettings,
    Settings,
    key_digest,
)
from gai_fast.server.serving import start
from gai_fast.stores.responses import KeptResponse
from tests.integration.gateway import (
    END,
    LAST_CHUNK,
    SSE_HEAD,
    Gateway,
    Net,
    Peer,
    delta,
    on_both_loops,
    on_uvloop,
    settings_for,
)
from tests.unit.formats.responses_reader import frame, upstream
from tests.unit.providers.test_same_bytes import APIS
from tests.wire import chunk

PATH = "/v1/responses"
ALICE, BOB = "sk-canary-alice-012345", "sk-canary-bob-012345"
KEYS = (KeySettings("alice", (key_digest(ALICE),)), KeySettings("bob", (key_digest(BOB),)))
REFUSAL = b'{"error":{"message":"Not today.","type":"invalid_request_error"}}'
IMAGE = {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo="}
TOOL = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}
REFUSED = [b"refused"]
"""In place of an answer: a refusal."""
UNKNOWN = "resp_" + "u" * 22


def claudes(*blocks: tuple[dict[str, Any], Sequence[dict[str, Any]]], stop: str = "end_turn") -> list[bytes]:
    """Returns an answer of Anthropic's: blocks, each with its deltas."""
    start = {"id": "msg_a", "type": "message", "role": "assistant", "model": "c", "content": []}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {**start, "usage": {"input_tokens": 1, "output_tokens": 1}}}
    ]
    for index, (block, deltas) in enumerate(blocks):
        events.append({"type": "content_block_start", "index": index, "content_block": block})
        events += [{"type": "content_block_delta", "index": index, "delta": each} for each in deltas]
        events.append({"type": "content_block_stop", "index": index})
    events += [
        {"type": "message_delta", "delta": {"stop_reason": stop}, "usage": {"output_tokens": 5}},
        {"type": "message_stop"},
    ]
    return [b"event: %b\ndata: %b\n\n" % (each["type"].encode(), json.dumps(each).encode()) for each in events]


THOUGHT = (
    {"type": "thinking", "thinking": "", "signature": ""},
    [{"type": "thinking_delta", "thinking": "I look."}, {"type": "signature_delta", "signature": "c2lnbmVk"}],
)
USE = (
    {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}},
    [{"type": "input_json_delta", "partial_json": '{"at": 1}'}],
)


def natives(number: int, *items: dict[str, Any], status: str = "completed") -> list[bytes]:
    """Returns an answer of an upstream of the dialect with these items before its message, `msg_up<number>`."""
    frames = upstream(status, f"resp_up{number}", "Passed on")
    text = b"".join(frames).replace(b"msg_1", b"msg_up%d" % number).decode()
    frames = [each.encode() + b"\n\n" for each in text.split("\n\n")[:-1]]
    last = json.loads(frames[-1].split(b"data: ")[1])
    last["response"]["output"][:0] = items
    done = [
        frame("response.output_item.done", 50 + at, output_index=5 + at, item=item) for at, item in enumerate(items)
    ]
    return [*frames[:-1], *done, frame(f"response.{status}", 99, response=last["response"])]


class Asked:
    """An upstream that speaks all dialects: answers as it is told, else refuses; and what it got.

    Attributes:
        requests: The paths and bodies of the requests.
        answers: The answers to come, as the pieces of streams.
        failing: The models that do not work.
        refusal: The body of a refusal.
    """

    def __init__(self, *answers: Sequence[bytes]) -> None:
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.answers = [*answers]
        self.failing: set[str] = set()
        self.refusal = REFUSAL

    async def __call__(self, peer: Peer) -> None:
        while True:
            head = await peer.reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            body = json.loads(await peer.reader.readexactly(int(length.partition(b":")[2])))
            self.requests.append((head.split(b" ")[1].decode(), body))
            if body.get("model") in self.failing:
                await peer.answer("503 Service Unavailable", b"{}", "content-type: application/json")
                continue
            answer = self.answers.pop(0) if self.answers else REFUSED
            if answer == REFUSED:
                await peer.answer("400 Bad Request", self.refusal, "content-type: application/json")
                continue
            if body.get("stream") is False or (body.get("stream") is None and "input" in body):
                whole = json.dumps(json.loads(answer[-1].split(b"data: ")[1])["response"]).encode()
                await peer.answer("200 OK", whole, "content-type: application/json")
            else:
                end = END if answer[0].startswith(b'data: {"id": "c1"') else (LAST_CHUNK,)
                await peer.send(SSE_HEAD, *(chunk(each) for each in answer), *end)

    @property
    def last(self) -> tuple[str, dict[str, Any]]:
        return self.requests[-1]


async def started(net: Net, settings: Settings) -> Gateway:
    running = await start(settings)
    net.gateways.append(Gateway(net, running))
    net.stack.push_async_callback(running.close)
    return net.gateways[-1]


async def every(net: Net, asked: Asked, **options: Any) -> Gateway:
    """Returns a gateway with a model for each provider's API, by the API's name."""
    upstream = await net.upstream(asked)
    settings = settings_for(upstream.url, on_unsupported="drop", **options)
    stream = settings.models["m"].stream
    limits = dataclasses.replace(settings.upstreams["up"], pass_paths=())
    upstreams = {
        name: dataclasses.replace(limits, name=f"all {name}", provider=name, base_url=upstream.url) for name in APIS
    }
    models = {name: ModelSettings(name, each, "some-model", stream) for name, each in upstreams.items()}
    return await started(
        net,
        dataclasses.replace(
            settings,
            upstreams={**settings.upstreams, **{each.name: each for each in upstreams.values()}},
            models={**settings.models, **models},
        ),
    )


class Talk:
    """A conversation: its turns go on from each other, and its client also knows all items.

    Args:
        gateway: The gateway.
        headers: The headers of each request.
    """

    def __init__(self, gateway: Gateway, **headers: str) -> None:
        self.gateway = gateway
        self.headers = headers
        self.items: list[Any] = []
        self.last = ""

    async def ask(self, model: str, given: Any, **members: Any) -> dict[str, Any]:
        """Asks for the next turn."""
        body = {"model": model, "input": given, **({"previous_response_id": self.last} if self.last else {})}
        response = await self.gateway.ask("POST", PATH, {**body, **members}, self.headers)
        answer: dict[str, Any] = response.json
        if response.status == 200:
            assert answer.get("previous_response_id") == (self.last or None)
            self.items += [*own_items({"input": given}), *answer["output"]]
            self.last = answer["id"]
        return answer

    async def refused(self, model: str, given: Any = "?", **members: Any) -> tuple[int, dict[str, Any]]:
        body = {"model": model, "input": given, "previous_response_id": self.last, **members}
        response = await self.gateway.ask("POST", PATH, body, self.headers)
        return response.status, response.error


async def both_ways(talk: Talk, asked: Asked, model: str, given: Any, **members: Any) -> list[tuple[str, Any]]:
    """Returns what the upstream gets for the next turn of a conversation, and for the conversation sent at once."""
    found = []
    whole = [*talk.items, *own_items({"input": given})]
    for body in (
        {"model": model, "input": given, "previous_response_id": talk.last, **members},
        {"model": model, "input": whole, **members},
    ):
        before = len(asked.requests)
        response = await talk.gateway.ask("POST", PATH, body, talk.headers)
        assert len(asked.requests) > before, bytes(response.body)
        found.append(asked.last)
    return found


# ---- equal to the whole ----------------------------------------------------------------------------------------------


@on_uvloop
async def test_each_provider_gets_what_it_would_of_the_whole_conversation(net: Net) -> None:
    """With a picture, tools, reasoning, and a change of model and provider; fork after fork from one turn."""
    asked = Asked(
        [delta("A cat")],
        claudes(THOUGHT, USE, stop="tool_use"),
        [delta("It sleeps")],
    )
    gateway = await every(net, asked)
    talk = Talk(gateway)
    await talk.ask("m", [{"role": "user", "content": [IMAGE, {"type": "input_text", "text": "what is it?"}]}])
    tools: dict[str, Any] = {"tools": [TOOL], "instructions": "Be brief."}
    answer = await talk.ask("claude", "look", reasoning={"effort": "low"}, max_output_tokens=9000, **tools)
    call = answer["output"][-1]
    assert (call["type"], call["call_id"]) == ("function_call", "toolu_1")
    output = {"type": "function_call_output", "call_id": "toolu_1", "output": "it sleeps"}
    await talk.ask("m", [output], **tools)
    assert [item["type"] for item in talk.items if "type" in item] == [
        *("message", "reasoning", "function_call", "function_call_output", "message")
    ]
    for api in APIS:
        more = {} if api.startswith("perplexity") else tools
        for stream in (False, True):
            chained, whole = await both_ways(talk, asked, api, "and now?", stream=stream, **more)
            assert chained == whole, api
            assert "previous_response_id" not in chained[1]
            has_all = api != "perplexity" and not api.endswith((":completions", ":generate"))
            assert ("it sleeps" in json.dumps(chained[1])) is has_all


@on_uvloop
async def test_a_chain_of_two_hundred_turns(net: Net) -> None:
    asked = Asked(*([delta(f"answer {at}")] for at in range(200)))
    gateway = await every(net, asked)
    talk = Talk(gateway)
    for at in range(200):
        await talk.ask("m", f"question {at}")
    for api in ("openai:responses", "anthropic", "gemini", "openai"):
        chained, whole = await both_ways(talk, asked, api, "and now?")
        assert chained == whole
        assert "question 0" in json.dumps(chained[1])


@on_uvloop
async def test_forks_of_one_turn_do_not_know_each_other(net: Net) -> None:
    asked = Asked([delta("root")], [delta("left")], [delta("right")], [delta("left's child")])
    root = Talk(await every(net, asked))
    await root.ask("m", "root?")
    left, right = Talk(root.gateway), Talk(root.gateway)
    for fork in (left, right):
        fork.last, fork.items = root.last, [*root.items]
    await asyncio.gather(left.ask("m", "left?"), right.ask("m", "right?"))
    chained, whole = await both_ways(left, asked, "m", "on")
    assert chained == whole
    assert "right?" not in json.dumps(chained[1])


@on_uvloop
async def test_nothing_but_the_items_is_inherited_and_each_object_says_what_it_goes_on_from(net: Net) -> None:
    asked = Asked([delta("one")], [delta("two")])
    talk = Talk(await every(net, asked))
    await talk.ask("m", "1", instructions="Be brief.", tools=[TOOL], metadata={"a": "b"}, temperature=0.5)
    first = talk.last
    response = await talk.gateway.ask(
        "POST", PATH, {"model": "m", "input": "2", "previous_response_id": first, "stream": True}
    )
    sent = asked.last[1]
    assert [message["role"] for message in sent["messages"]] == ["user", "assistant", "user"]
    assert not {"tools", "temperature", "metadata"} & {*sent}
    objects = [event["response"] for event in response.events if "response" in event]
    assert len(objects) == 3
    assert {each["previous_response_id"] for each in objects} == {first}
    assert objects[-1]["tools"] == []
    assert objects[-1]["instructions"] is None


@on_uvloop
async def test_a_fallback_amid_a_chain_is_asked_the_same(net: Net) -> None:
    asked = Asked([delta("one")])
    asked.failing = {"broken"}
    settings = settings_for((await net.upstream(asked)).url)
    broken = dataclasses.replace(settings.models["m"], name="broken", id="broken", fallback=("claude",))
    gateway = await started(net, dataclasses.replace(settings, models={**settings.models, "broken": broken}))
    talk = Talk(gateway)
    await talk.ask("m", "1")
    chained, whole = await both_ways(talk, asked, "broken", "2")
    assert chained == whole
    assert chained[0] == "/v1/messages"
    assert [path for path, _ in asked.requests[1:]] == ["/v1/chat/completions", "/v1/messages"] * 2


# ---- items by reference ----------------------------------------------------------------------------------------------


@on_uvloop
async def test_items_by_reference_are_the_kept_ones(net: Net) -> None:
    """What the AI SDK sends by default: each item of an earlier answer by its id, and the client's own items whole."""
    asked = Asked(claudes(THOUGHT, USE, stop="tool_use"), natives(2))
    gateway = await every(net, asked)
    talk = Talk(gateway)
    first = await talk.ask("claude", "1", reasoning={"effort": "low"}, max_output_tokens=9000, tools=[TOOL])
    output = {"type": "function_call_output", "call_id": "toolu_1", "output": "it sleeps"}
    second = await talk.ask("native/gpt-x", [output], tools=[TOOL])
    assert second["id"] == "resp_up2"
    assert second["output"][0]["id"] == "msg_up2"
    own = (await gateway.ask("GET", f"{PATH}/{first['id']}/input_items")).json["data"][0]["id"]

    def named(item: dict[str, Any]) -> dict[str, Any]:
        return {"type": "item_reference", "id": item["id"]} if "id" in item else item

    for api in APIS:
        more = {} if api.startswith("perplexity") else {"tools": [TOOL]}
        sent = []
        for items in ([named(item) for item in talk.items], talk.items):
            await gateway.ask("POST", PATH, {"model": api, "input": [*items, {"role": "user", "content": "?"}], **more})
            sent.append(asked.last)
        assert sent[0] == sent[1], api
    by_id = {"model": "m", "input": [{"id": own}, {"type": "item_reference", "id": "msg_up2"}]}
    asked.answers = [[delta("three")]]
    answer = await gateway.ask("POST", PATH, by_id)
    assert answer.status == 200, answer.body
    assert [message["content"] for message in asked.last[1]["messages"]] == ["1", "Passed on"]
    listed = (await gateway.ask("GET", f"{PATH}/{answer.json['id']}/input_items?order=asc")).json["data"]
    assert [item["content"][0]["text"] for item in listed] == ["1", "Passed on"], "it is kept with the items"


@on_uvloop
async def test_an_unknown_item_is_refused_whatever_may_be_left_out(net: Net) -> None:
    asked = Asked([delta("one")])
    gateway = await every(net, asked)
    talk = Talk(gateway)
    await talk.ask("m", "1")
    sent = len(asked.requests)
    for item in (
        {"type": "item_reference", "id": "msg_9"},
        {"id": "msg_9"},
        {"id": "x" * 5000},
        {"id": f"msg_{'u' * 22}_0"},
    ):
        for more in ({}, {"previous_response_id": talk.last}):
            body = {"model": "claude", "input": [item, {"role": "user", "content": "?"}], **more}
            response = await gateway.ask("POST", PATH, body, {"x-gai-unsupported": "drop"})
            assert (response.status, response.error["code"]) == (400, "item_not_found"), item
    many = {"model": "claude", "input": [{"type": "item_reference", "id": "msg_9"}] * 1001}
    response = await gateway.ask("POST", PATH, many)
    assert (response.status, response.error["code"]) == (400, "invalid_request")
    assert "1000 items" in response.error["message"]
    assert len(asked.requests) == sent
    await gateway.ask("POST", PATH, {"model": "native/gpt-x", "input": [{"type": "item_reference", "id": "msg_9"}]})
    assert asked.last[1]["input"] == [{"type": "item_reference", "id": "msg_9"}], "its upstream may have it"


@on_uvloop
async def test_reasoning_that_is_not_kept_here_is_no_error(net: Net) -> None:
    """Clients with a history of OpenAI's own repeat its reasoning without content: it is left out, as foreign is."""
    asked = Asked([delta("one")])
    gateway = await every(net, asked)
    body = {
        "model": "m",
        "input": [{"type": "reasoning", "id": "rs_9", "summary": []}, {"role": "user", "content": "?"}],
    }
    assert (await gateway.ask("POST", PATH, body)).status == 200
    assert asked.last[1]["messages"] == [{"role": "user", "content": "?"}]


# ---- passed answers --------------------------------------------------------------------------------------------------


SEARCH = {"id": "ws_1", "type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "q"}}
COMPACTED = {"id": "cmp_1", "type": "compaction", "encrypted_content": "opaque"}
REASONED = {"id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": "gAAAAx"}


@on_uvloop
async def test_items_of_one_provider_go_back_to_it_and_are_left_out_for_others(net: Net) -> None:
    asked = Asked(natives(1, REASONED, SEARCH, COMPACTED))
    gateway = await every(net, asked)
    talk = Talk(gateway)
    await talk.ask("native/gpt-x", "1")
    assert talk.last == "resp_up1"
    chained, whole = await both_ways(talk, asked, "native/gpt-x", "2")
    assert chained == whole
    assert chained[1]["input"][1:4] == [REASONED, SEARCH, COMPACTED], "as they came"
    for api in APIS:
        if api.endswith((":completions", ":generate")):
            continue  # they take one message
        body = {"model": api, "input": "2", "previous_response_id": talk.last}
        response = await gateway.ask("POST", PATH, body, {"x-gai-unsupported": "error"})
        assert "Not today" in response.error["message"], api
        text = json.dumps(asked.last[1])
        if not api.startswith("openai-compatible"):
            assert not [each for each in ("opaque", "gAAAAx", "ws_1") if each in text], api
        assert "Passed on" in text


@on_uvloop
async def test_a_kept_request_asks_for_encrypted_reasoning_and_is_asked_again_without(net: Net) -> None:
    asked = Asked(*(natives(at) for at in range(9)))
    gateway = await every(net, asked, retries=1)
    encrypted = ["reasoning.encrypted_content"]

    async def included(**body: Any) -> Any:
        await gateway.ask("POST", PATH, {"input": "1", **body})
        return asked.last[1].get("include")

    assert await included(model="openai:responses", reasoning={"effort": "low"}) == encrypted
    assert await included(model="openai:responses") is None, "nobody knows that it thinks"
    assert await included(model="all openai:responses/gpt-5.1") == encrypted
    assert await included(model="all openai:responses/gpt-4.1") is None
    assert await included(model="all groq:responses/gpt-5.1", reasoning={"effort": "low"}) is None, "it has none"
    assert await included(model="openai:responses", reasoning={"effort": "low"}, store=False) is None
    other = ["message.output_text.logprobs"]
    assert await included(model="openai:responses", reasoning={"effort": "low"}, include=other) == [*other, *encrypted]
    assert await included(model="openai:responses", reasoning={"effort": "low"}, include=encrypted) == encrypted
    # "Encrypted content is not supported with this model": asked once more without it, and not again for an hour.
    lacking = {"message": "Unknown parameter: 'include'.", "type": "invalid_request_error", "param": "include"}
    asked.refusal = json.dumps({"error": lacking}).encode()
    ask: dict[str, Any] = {"model": "azure:responses", "input": "1", "reasoning": {"effort": "low"}}
    asked.answers = [REFUSED, natives(20), natives(21)]
    sent = len(asked.requests)
    for member in ({}, {"include": other}):
        assert (await gateway.ask("POST", PATH, {**ask, **member})).status == 200
    assert [body.get("include") for _, body in asked.requests[sent:]] == [encrypted, None, other]
    assert net.warned("refuses 'include' of requests")


# ---- refusals --------------------------------------------------------------------------------------------------------


@on_both_loops
async def test_what_is_unknown_is_refused_with_one_text(net: Net) -> None:
    asked = Asked([delta("one")], [delta("two")], [delta("three")])
    gateway = await every(net, asked, keys=KEYS)
    alice, bob = Talk(gateway, **{"x-api-key": ALICE}), Talk(gateway, **{"x-api-key": BOB})
    await alice.ask("m", "1")
    root = alice.last
    await alice.ask("m", "2")
    child = alice.last
    sent = len(asked.requests)
    longest = "resp_" + "a" * 5000
    foreign = [UNKNOWN, "", "resp_x", longest, "resp_\r\nx: y", "msg_1", child, alice.items[1]["id"], "\ud800", "ä"]
    for identifier in foreign:
        bob.last = identifier
        text = json.dumps({"model": "m", "input": "?", "previous_response_id": identifier})
        response = await gateway.ask("POST", PATH, json.loads(text) if identifier != "\ud800" else None, bob.headers)
        if identifier == "\ud800":
            continue
        assert response.status == 400
        error = response.error
        assert error["message"] == f"Previous response with id '{identifier[:128]}' not found."
        assert error["code"] == "previous_response_not_found"
        assert error["param"] == "previous_response_id"
    # A hole: the newest is kept, but not the turn before.
    responses = gateway.running.engine.store.responses
    assert await responses.delete("alice", root)
    for model in ("m", "openai:responses"):
        status, error = await alice.refused(model)
        assert (status, error["code"]) == (400, "previous_response_not_found")
        assert error["message"] == f"Previous response with id '{child}' not found."
    alice.last = root
    assert (await alice.refused("m"))[1]["code"] == "previous_response_not_found"
    assert len(asked.requests) == sent
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=BOB, max_retries=0) as client:
        with pytest.raises(openai.BadRequestError) as refused:
            await client.responses.create(model="m", input="?", previous_response_id=child)
    assert refused.value.code == "previous_response_not_found"


@on_uvloop
async def test_wrong_types_and_what_excludes_each_other_are_refused(net: Net) -> None:
    asked = Asked([delta("one")])
    gateway = await every(net, asked)
    talk = Talk(gateway)
    await talk.ask("m", "1")
    for model in ("m", "openai:responses"):
        for identifier in (5, True, ["x"], {"id": "x"}):
            response = await gateway.ask(
                "POST", PATH, {"model": model, "input": "?", "previous_response_id": identifier}
            )
            assert (response.status, response.error["code"]) == (400, "invalid_request")
            assert response.error["param"] == "previous_response_id"
        status, error = await talk.refused(model, conversation="conv_1")
        assert (status, error["code"]) == (400, "invalid_request")
        assert "exclude each other" in error["message"]
        status, error = await talk.refused(model, 5)
        assert (status, error["code"]) == (400, "invalid_request")
    response = await gateway.ask("POST", PATH, {"model": "m", "input": "?", "conversation": "conv_1"})
    assert (response.status, response.error["code"]) == (400, "unsupported")
    await gateway.ask("POST", PATH, {"model": "native/gpt-x", "input": "?", "conversation": "conv_1"})
    assert asked.last[1]["conversation"] == "conv_1"


@on_uvloop
async def test_an_id_that_is_not_kept_here_goes_up_if_an_upstream_may_know_it(net: Net) -> None:
    asked = Asked(natives(1), natives(2), natives(3))
    gateway = await every(net, asked, keys=KEYS)
    alice, bob = Talk(gateway, **{"x-api-key": ALICE}), Talk(gateway, **{"x-api-key": BOB})
    first = await alice.ask("native/gpt-x", "1", store=False)
    assert first["id"] == "resp_up1"
    bob.last = alice.last
    assert (await bob.refused("native/gpt-x"))[1]["code"] == "previous_response_not_found"
    body = {"model": "native/gpt-x", "input": "2", "previous_response_id": "resp_up1"}
    second = await gateway.ask("POST", PATH, body, alice.headers)
    assert second.status == 200
    assert asked.last[1] == {"model": "gpt-x", "input": "2", "previous_response_id": "resp_up1"}
    responses = gateway.running.engine.store.responses
    assert await responses.find("alice", "resp_up2") is None, "its turn is not kept: its beginning is the upstream's"
    status, error = await alice.refused("m")
    assert (status, error["code"]) == (400, "previous_response_not_found")


@on_uvloop
async def test_calls_and_outputs_are_pairs_for_every_provider(net: Net) -> None:
    asked = Asked(claudes(USE, stop="tool_use"))
    gateway = await every(net, asked)
    talk = Talk(gateway)
    await talk.ask("claude", "look", tools=[TOOL], max_output_tokens=99)
    sent = len(asked.requests)
    output = {"type": "function_call_output", "call_id": "toolu_2", "output": "x"}
    mine = {**output, "call_id": "toolu_1"}
    for api in APIS:
        for given, call in (("?", "toolu_1"), ([output], "toolu_2"), ([mine, output], "toolu_2")):
            response = await gateway.ask(
                "POST", PATH, {"model": api, "input": given, "previous_response_id": talk.last}
            )
            assert (response.status, response.error["code"], response.error["param"]) == (
                400,
                "invalid_request",
                "input",
            )
            assert call in response.error["message"]
    assert len(asked.requests) == sent


@on_uvloop
async def test_a_response_that_still_runs_cannot_be_gone_on_from(net: Net) -> None:
    go_on = asyncio.Event()

    async def slow(peer: Peer) -> None:
        await peer.request()
        await peer.send(SSE_HEAD, chunk(delta("slowly")))
        await go_on.wait()
        await peer.send(*END)

    gateway = await net.gateway(await net.upstream(slow))
    begun = await gateway.ask("POST", PATH, {"model": "m", "input": "1", "background": True})
    talk = Talk(gateway)
    talk.last = begun.json["id"]
    for model in ("m", "native/gpt-x"):
        status, error = await talk.refused(model)
        assert (status, error["code"], error["param"]) == (409, "invalid_request", "previous_response_id")
        assert "still runs" in error["message"]
    go_on.set()


@on_uvloop
async def test_a_chain_of_a_thousand_turns_is_the_longest(net: Net) -> None:
    asked = Asked()
    gateway = await every(net, asked)
    put(gateway, 1001)
    talk = Talk(gateway)
    talk.last = name_of(999)
    assert (await talk.refused("m"))[1]["message"] == "Not today."
    assert len(asked.last[1]["messages"]) == 2001
    talk.last = name_of(1000)
    status, error = await talk.refused("m")
    assert (status, error["code"]) == (400, "context_length_exceeded")


def name_of(number: int) -> str:
    return f"resp_{number:022}"


def put(gateway: Gateway, turns: int, said: str = "answer", caller: str = ANONYMOUS) -> None:
    """Keeps a chain of turns, `name_of` each."""
    for at in range(turns):
        part = {"type": "output_text", "text": f"{said} {at}", "annotations": []}
        message = {"id": f"msg_{at:022}_0", "type": "message", "role": "assistant", "content": [part]}
        answer = json.dumps({"id": name_of(at), "status": "completed", "output": [message]}).encode()
        own = json.dumps([{"role": "user", "content": f"question {at}"}]).encode()
        parent = name_of(at - 1) if at else ""
        kept = KeptResponse(name_of(at), parent, "completed", own, answer)
        assert gateway.running.engine.store.responses.keep(caller, kept) is True


# ---- other routes ----------------------------------------------------------------------------------------------------


@on_uvloop
async def test_tokens_are_counted_of_the_whole(net: Net) -> None:
    asked = Asked([delta("one " * 100)])
    gateway = await every(net, asked)
    talk = Talk(gateway)
    await talk.ask("m", "1")
    whole = [*talk.items, {"role": "user", "content": "2"}]
    counts = []
    for body in ({"input": "2", "previous_response_id": talk.last}, {"input": whole}):
        response = await gateway.ask("POST", f"{PATH}/input_tokens", {"model": "m", **body})
        counts.append(response.json)
        assert response.headers["x-gai-usage-source"] == "estimated"
        await gateway.ask("POST", f"{PATH}/input_tokens", {"model": "openai:responses", **body})
    assert counts[0] == counts[1]
    assert counts[0]["input_tokens"] > 100
    assert asked.requests[-2] == asked.requests[-1]
    assert asked.last[0].endswith("/input_tokens")
    unknown = {"model": "m", "input": "2", "previous_response_id": UNKNOWN}
    response = await gateway.ask("POST", f"{PATH}/input_tokens", unknown)
    assert (response.status, response.error["code"]) == (400, "previous_response_not_found")


@on_uvloop
async def test_the_whole_is_compacted(net: Net) -> None:
    asked = Asked([delta("one")])
    gateway = await every(net, asked, keys=KEYS)
    talk = Talk(gateway, **{"x-api-key": ALICE})
    answer = await talk.ask("m", "1")
    named = [{"role": "user", "content": "1"}, {"type": "item_reference", "id": answer["output"][0]["id"]}]
    for body in ({"previous_response_id": talk.last}, {"input": named}, {"input": talk.items}):
        response = await gateway.ask("POST", f"{PATH}/compact", {"model": "openai:responses", **body}, talk.headers)
        assert response.status == 400, "the upstream's"
    assert asked.requests[-3] == asked.requests[-2] == asked.requests[-1]
    assert asked.last == ("/responses/compact", {"model": "some-model", "input": talk.items})
    sent = len(asked.requests)
    for more in ({"previous_response_id": UNKNOWN}, {"input": [{"id": "msg_9"}]}):
        response = await gateway.ask("POST", f"{PATH}/compact", {"model": "openai:responses", **more}, talk.headers)
        assert response.status == 400
        assert response.error["code"].endswith("_not_found")
    assert len(asked.requests) == sent


# ---- by the SDK ------------------------------------------------------------------------------------------------------


@on_uvloop
async def test_openais_sdk_goes_on_from_its_responses(net: Net) -> None:
    asked = Asked([delta("one")], claudes(USE, stop="tool_use"), natives(3))
    gateway = await every(net, asked)
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="-", max_retries=0) as client:
        first = await client.responses.create(model="m", input="1")
        second = await client.responses.create(
            model="claude",
            input="2",
            previous_response_id=first.id,
            tools=[{**TOOL, "strict": False}],  # type: ignore[list-item]  # as the SDK's users write it
        )
        call = second.output[-1]
        assert call.type == "function_call"
        third = await client.responses.create(
            model="native/gpt-x",
            previous_response_id=second.id,
            input=[{"type": "function_call_output", "call_id": call.call_id, "output": "done"}],
        )
        assert third.output_text == "Passed on"
        assert [first.previous_response_id, second.previous_response_id] == [None, first.id]
        assert third.previous_response_id == second.id
        assert all(each.model_extra is not None for each in (first, second, third))
