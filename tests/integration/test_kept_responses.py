"""Responses that are kept: the official SDK against a running gateway, whatever its upstreams speak.

The judges are the types of OpenAI's SDK, and the fakes of each upstream. `tests/unit/server/requests/test_responses.py`
has the rules of the routes.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from typing import Any

import openai
import pytest

from gai_fast.model.settings import ANONYMOUS, CacheSettings, KeyLimits, KeySettings, ResponsesSettings, key_digest
from gai_fast.server.serving import start
from gai_fast.stores.health import Health
from gai_fast.stores.responses import KeptResponse, KeptResponses
from tests.integration.gateway import (
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
from tests.integration.test_openai_sdk import client_of
from tests.unit.formats.responses_reader import upstream
from tests.waiting import until
from tests.wire import chunk

PATH = "/v1/responses"
TOOLS = [{"type": "function", "name": "f", "parameters": {"type": "object", "properties": {"store": True}}}]


def theirs(identifier: str = "resp_theirs", text: str = "Hi there") -> list[bytes]:
    """Returns the frames of an upstream that keeps the answer itself, with a schema that names `store`."""
    tools = [{"parameters": {"properties": {"store": True}}}]
    members = {"store": True, "previous_response_id": None, "tools": tools, "object": "response"}
    own = json.dumps(members, separators=(",", ":")).encode()[1:-1]
    return [frame.replace(b'"object":"response"', own) for frame in upstream(identifier=identifier, text=text)]


class Late(KeptResponses):
    """In place of the store's kept responses: answers once it is told to."""

    def __init__(self) -> None:
        super().__init__(None, Health(time.monotonic), time.monotonic)
        self.asked: list[tuple[str, KeptResponse]] = []
        self.answers: list[asyncio.Future[bool]] = []

    def keep(self, caller: str, kept: KeptResponse, *, is_accepted: bool = True) -> asyncio.Future[bool]:
        self.asked.append((caller, kept))
        self.answers.append(asyncio.get_running_loop().create_future())
        return self.answers[-1]


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> Any:
    def of(gateway: Gateway) -> Late:
        made = Late()
        monkeypatch.setattr(gateway.running.engine.store, "responses", made)
        return made

    return of


async def native(peer: Peer) -> None:
    """Answers as OpenAI does, streamed or whole."""
    while True:
        asked = json.loads(await peer.request())
        if asked.get("stream"):
            await peer.send(SSE_HEAD, *map(chunk, theirs()), LAST_CHUNK)
        else:
            whole = theirs()[-1].partition(b'"response":')[2].rstrip()[:-1]
            await peer.answer("200 OK", b"\xef\xbb\xbf " + whole + b"\n", "Content-Type: application/json")


async def gemini(peer: Peer) -> None:
    """Answers as Google's API does, streamed or whole."""
    while True:
        await peer.request()
        text = {"candidates": [{"content": {"role": "model", "parts": [{"text": "Hi there"}]}, "finishReason": "STOP"}]}
        data = json.dumps(text).encode()
        if b"streamGenerateContent" in peer.head:
            await peer.send(SSE_HEAD, chunk(b"data: " + data + b"\n\n"), LAST_CHUNK)
        else:
            await peer.answer("200 OK", data, "Content-Type: application/json")


async def gateway_of(net: Net, model: str, **options: Any) -> Gateway:
    """Returns a gateway whose model has an upstream of its dialect."""
    if model.startswith("native"):
        return await net.gateway(await net.upstream(native), **options)
    if model != "gemini":
        return await net.gateway(await net.mock(deltas=8), **options)
    url = (await net.upstream(gemini)).url
    settings = settings_for(url, **options)
    google = dataclasses.replace(settings.upstreams["up"], name="google", provider="gemini", base_url=url)
    models = {**settings.models, "gemini": dataclasses.replace(settings.models["m"], name="gemini", upstream=google)}
    changed = dataclasses.replace(settings, upstreams={**settings.upstreams, "google": google}, models=models)
    running = await start(changed)
    net.stack.push_async_callback(running.close)
    net.gateways.append(Gateway(net, running))
    return net.gateways[-1]


@on_both_loops
@pytest.mark.parametrize("model", ["m", "claude", "gemini", "native/gpt-x"])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_response_is_there_by_its_id(net: Net, model: str, stream: bool) -> None:
    gateway = await gateway_of(net, model)
    ask = client_of(net, gateway).responses
    if stream:
        events = [event async for event in await ask.create(model=model, input="Hi", tools=TOOLS, stream=True)]
        assert [event.response.store for event in events if hasattr(event, "response")] == [True] * 3
        answer = events[-1].response
    else:
        answer = await ask.create(model=model, input="Hi", tools=TOOLS)
    assert (answer.status, answer.store, answer.previous_response_id) == ("completed", True, None)
    found = await ask.retrieve(answer.id, include=["reasoning.encrypted_content"])
    assert found.to_dict() == answer.to_dict()
    assert found.output_text == answer.output_text != ""
    items = await ask.input_items.list(answer.id)
    (item,) = items.data
    assert (item.type, item.role, item.content[0].text) == ("message", "user", "Hi")
    assert (await ask.cancel(answer.id)).to_dict() == answer.to_dict()
    await ask.delete(answer.id)
    for call in (ask.retrieve, ask.input_items.list, ask.cancel, ask.delete):
        with pytest.raises(openai.NotFoundError, match="there is no such response here"):
            await call(answer.id)


# ---- the end waits, and is true --------------------------------------------------------------------------------------


def ended(body: bytes) -> Any:
    """Returns the last object of a stream."""
    return json.loads(body.split(b"data: ")[-1])["response"]


@on_uvloop
@pytest.mark.parametrize("is_kept", [True, False])
@pytest.mark.parametrize("model", ["m", "claude", "native/gpt-x"])
async def test_the_end_of_a_stream_waits_for_the_store_and_is_true(
    net: Net, late: Any, model: str, is_kept: bool
) -> None:
    gateway = await gateway_of(net, model)
    store = late(gateway)
    asked = {"model": model, "input": "Hi", "tools": TOOLS, "stream": True}
    asking = asyncio.ensure_future(gateway.ask("POST", PATH, asked))
    await until(lambda: bool(store.answers))
    ((caller, kept),) = store.asked
    assert not asking.done()
    store.answers[0].set_result(is_kept)
    body = bytes((await asking).body)
    assert (caller, kept.status, json.loads(kept.response)["store"]) == (ANONYMOUS, "completed", True)
    last = ended(body)
    assert last == json.loads(kept.response) | {"store": is_kept}
    assert last["tools"][0]["parameters"]["properties"] == {"store": True}
    if model == "native/gpt-x":
        given = b"".join(theirs())
        end = theirs()[-1]
        said = b'"store":true' if is_kept else b'"store":false'
        assert body == given.removesuffix(end) + end.replace(b'"store":true', said, 1)


@on_uvloop
@pytest.mark.parametrize("is_kept", [True, False])
@pytest.mark.parametrize("model", ["m", "gemini", "native/gpt-x"])
async def test_a_whole_answer_waits_for_the_store_and_is_true(net: Net, late: Any, model: str, is_kept: bool) -> None:
    gateway = await gateway_of(net, model)
    store = late(gateway)
    asking = asyncio.ensure_future(gateway.ask("POST", PATH, {"model": model, "input": "Hi"}))
    await until(lambda: bool(store.answers))
    assert not asking.done()
    store.answers[0].set_result(is_kept)
    response = await asking
    assert response.status == 200
    found = json.loads(bytes(response.body).decode("utf-8-sig"))
    ((_, kept),) = store.asked
    assert found == json.loads(kept.response) | {"store": is_kept}
    assert found["id"] == kept.identifier


@on_uvloop
@pytest.mark.parametrize("is_kept", [True, False])
async def test_a_log_gets_the_true_end_too(net: Net, late: Any, is_kept: bool) -> None:
    gateway = await gateway_of(net, "m")
    store = late(gateway)
    ask = client_of(net, gateway).responses
    queued = await ask.create(model="m", input="Hi", background=True)
    assert (queued.status, queued.store) == ("queued", True)
    await until(lambda: bool(store.answers))
    store.answers[0].set_result(is_kept)
    stream_id = queued.id.removeprefix("resp_")
    log = gateway.running.engine.store.find_here(stream_id)
    await until(lambda: log.is_over)
    ((_, kept),) = store.asked
    assert (kept.identifier, kept.status) == (queued.id, "completed")
    own = await gateway.ask("GET", f"/api/v1/streams/{stream_id}")
    assert ended(own.body) == json.loads(kept.response) | {"store": is_kept}


@on_uvloop
async def test_a_client_that_leaves_during_the_wait_leaves_the_response_completed(net: Net, late: Any) -> None:
    gateway = await gateway_of(net, "m")
    store = late(gateway)
    client = await gateway.connect()
    client.request("POST", PATH, {"model": "m", "input": "Hi", "stream": True})
    await until(lambda: bool(store.answers))
    client.close()
    await until(lambda: not gateway.is_connected)
    store.answers[0].set_result(True)
    assert [kept.status for _, kept in store.asked] == ["completed"]


# ---- how an answer ends ----------------------------------------------------------------------------------------------


async def begun(peer: Peer) -> None:
    """Begins an answer of either dialect, and stops there."""
    asked = json.loads(await peer.request())
    await peer.send(SSE_HEAD)
    if "input" in asked:
        await peer.send(*map(chunk, theirs()[:6]))
    else:
        await peer.send(chunk(delta("Hi")), chunk(delta(" there")))
    await peer.until_gone()


@on_uvloop
@pytest.mark.parametrize("model", ["m", "native/gpt-x"])
async def test_of_a_client_that_left_what_it_could_read_is_kept(net: Net, model: str) -> None:
    gateway = await net.gateway(await net.upstream(begun))
    client, response = await gateway.stream({"model": model, "input": "Hi", "stream": True}, PATH)
    await response.until(b" there")
    identifier = response.events[0]["response"]["id"]
    client.close()
    await until(lambda: not gateway.streams)
    found = await client_of(net, gateway).responses.retrieve(identifier)
    assert (found.status, found.store, found.output_text) == ("cancelled", True, "Hi there")


@on_uvloop
async def test_of_a_client_that_left_before_it_had_an_id_nothing_is_kept(net: Net, late: Any) -> None:
    async def silent(peer: Peer) -> None:
        await peer.request()
        await peer.until_gone()

    gateway = await net.gateway(await net.upstream(silent))
    store = late(gateway)
    for stream in (True, False):
        client = await gateway.connect()
        client.request("POST", PATH, {"model": "m", "input": "Hi", "stream": stream})
        await until(lambda: bool(gateway.streams))
        client.close()
        await until(lambda: not gateway.streams)
    assert store.asked == []


@on_uvloop
@pytest.mark.parametrize("model", ["m", "native/gpt-x"])
async def test_an_answer_that_fails_midway_is_kept_as_failed(net: Net, model: str) -> None:
    async def cut(peer: Peer) -> None:
        asked = json.loads(await peer.request())
        pieces = theirs()[:6] if "input" in asked else [delta("Hi"), delta(" there")]
        await peer.send(SSE_HEAD, *map(chunk, pieces))
        peer.writer.close()

    gateway = await net.gateway(await net.upstream(cut))
    response = await gateway.ask("POST", PATH, {"model": model, "input": "Hi", "stream": True})
    failed = ended(bytes(response.body))
    assert (failed["status"], failed["store"]) == ("failed", True)
    found = await gateway.ask("GET", f"{PATH}/{failed['id']}")
    assert json.loads(found.body) == failed


@on_uvloop
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("model", ["m", "native/gpt-x"])
async def test_an_answer_that_is_refused_is_not_kept(net: Net, late: Any, model: str, stream: bool) -> None:
    async def refusing(peer: Peer) -> None:
        await peer.request()
        await peer.answer("400 Bad Request", b'{"error":{"message":"no"}}', "Content-Type: application/json")

    gateway = await net.gateway(await net.upstream(refusing))
    store = late(gateway)
    response = await gateway.ask("POST", PATH, {"model": model, "input": "Hi", "stream": stream})
    assert (response.status, store.asked) == (400, [])


@on_uvloop
async def test_a_response_in_the_background_that_is_cancelled_is_kept(net: Net) -> None:
    gateway = await net.gateway(await net.upstream(begun))
    ask = client_of(net, gateway).responses
    queued = await ask.create(model="m", input="Hi", background=True)
    await until(lambda: bool(gateway.streams))
    with pytest.raises(openai.ConflictError) as refused:
        await ask.delete(queued.id)
    assert refused.value.code == "invalid_request"
    assert (await ask.retrieve(queued.id)).status in ("queued", "in_progress")
    assert (await ask.cancel(queued.id)).status == "cancelled"
    await until(lambda: not gateway.streams)
    found = await ask.retrieve(queued.id)
    assert (found.status, (await ask.cancel(queued.id)).to_dict()) == ("cancelled", found.to_dict())
    stream = await ask.retrieve(queued.id, stream=True)
    assert [event.type async for event in stream][-1] == "response.incomplete"
    await ask.delete(queued.id)
    for is_stream in (True, False):
        with pytest.raises(openai.NotFoundError):
            await ask.retrieve(queued.id, stream=is_stream)


@on_uvloop
@pytest.mark.parametrize("store", [True, None])
async def test_a_response_that_goes_on_from_an_upstreams_own_says_that_it_is_not_kept(
    net: Net, store: bool | None
) -> None:
    gateway = await gateway_of(net, "native/gpt-x")
    ask = client_of(net, gateway).responses
    asked = {"model": "native/gpt-x", "input": "Hi", "previous_response_id": "resp_of_theirs", "background": True}
    queued = await ask.create(**asked, store=store)
    await until(lambda: not gateway.streams)
    found = await ask.retrieve(queued.id)  # its log is all that there is
    assert (queued.store, found.status, found.store) == (False, "completed", False)
    assert len(gateway.running.engine.store.responses._table) == 0
    await ask.delete(queued.id)


@on_uvloop
async def test_drain_keeps_what_runs_as_failed(net: Net) -> None:
    gateway = await net.gateway(await net.upstream(begun))
    _, response = await gateway.stream({"model": "m", "input": "Hi", "stream": True}, PATH)
    await response.until(b" there")
    engine = gateway.running.engine
    engine.disconnect_clients(0.0)
    failed = ended(bytes((await response.rest()).body))
    assert failed["status"] == "failed"
    found = await engine.store.responses.find(ANONYMOUS, failed["id"])
    assert json.loads(found.response) == failed


# ---- what is not kept ------------------------------------------------------------------------------------------------


@on_uvloop
@pytest.mark.parametrize("model", ["m", "native/gpt-x"])
@pytest.mark.parametrize("stream", [True, False])
async def test_what_its_client_does_not_want_is_not_kept(net: Net, late: Any, model: str, stream: bool) -> None:
    gateway = await gateway_of(net, model)
    store = late(gateway)
    response = await gateway.ask("POST", PATH, {"model": model, "input": "Hi", "store": False, "stream": stream})
    assert (response.status, store.asked) == (200, [])
    if model == "m":
        assert b'"store":false' in response.body


@on_uvloop
@pytest.mark.parametrize("more", [{"conversation": "conv_1"}, {"off": True}])
async def test_a_passed_answer_that_is_not_kept_says_so(net: Net, late: Any, more: dict[str, Any]) -> None:
    gateway = await gateway_of(net, "native/gpt-x")
    store = late(gateway)
    store.use(ResponsesSettings(store="off" not in more))
    members = {name: value for name, value in more.items() if name != "off"}
    response = await gateway.ask("POST", PATH, {"model": "native/gpt-x", "input": "Hi", "stream": True, **members})
    assert [each["response"]["store"] for each in response.events if "response" in each] == [False] * 3
    assert store.asked == []


@on_uvloop
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("more", [{"status": None}, {"id": None}, {"id": "resp/1"}, {"id": "x" * 129}])
async def test_a_passed_answer_that_nothing_could_name_says_that_it_is_not_kept(
    net: Net, more: dict[str, Any], stream: bool
) -> None:
    frames = theirs()
    last = json.loads(frames[-1].partition(b"data: ")[2])
    last["response"] |= more

    async def odd(peer: Peer) -> None:
        await peer.request()
        if stream:
            end = b"event: response.completed\ndata: " + json.dumps(last).encode() + b"\n\n"
            await peer.send(SSE_HEAD, *map(chunk, (*frames[:-1], end)), LAST_CHUNK)
        else:
            await peer.answer("200 OK", json.dumps(last["response"]).encode(), "Content-Type: application/json")

    gateway = await net.gateway(await net.upstream(odd))
    response = await gateway.ask("POST", PATH, {"model": "native/gpt-x", "input": "Hi", "stream": stream})
    body = bytes(response.body)
    assert (ended(body) if stream else json.loads(body)) == last["response"] | {"store": False}
    assert len(gateway.running.engine.store.responses._table) == 0


@on_uvloop
async def test_an_answer_in_another_format_is_not_kept(net: Net, late: Any) -> None:
    gateway = await gateway_of(net, "m")
    store = late(gateway)
    response = await gateway.ask("POST", f"{PATH}?format=gai", {"model": "m", "input": "Hi", "stream": True})
    assert (response.status, store.asked) == (200, [])


@on_uvloop
async def test_an_answer_larger_than_the_room_of_its_caller_says_so(net: Net) -> None:
    gateway = await gateway_of(net, "m")
    responses = gateway.running.engine.store.responses
    responses.use(ResponsesSettings(max_bytes=16384, max_bytes_per_caller=16384))
    asked = {"model": "m", "input": "Hi " * 8000}
    for stream in (True, False):
        response = await gateway.ask("POST", PATH, {**asked, "stream": stream})
        answer = ended(bytes(response.body)) if stream else json.loads(response.body)
        assert (answer["status"], answer["store"]) == ("completed", False)
        assert (await gateway.ask("GET", f"{PATH}/{answer['id']}")).status == 404
    assert responses.not_kept == {"size": 2}


# ---- many, and twice -------------------------------------------------------------------------------------------------


@on_uvloop
async def test_a_repeated_request_is_the_same_response(net: Net) -> None:
    gateway = await gateway_of(net, "m")
    for stream in (True, False):
        body, key = {"model": "m", "input": "Hi", "stream": stream}, {"idempotency-key": f"k{stream}"}
        answers = [await gateway.ask("POST", PATH, body, key) for _ in range(2)]
        assert answers[0].body == answers[1].body
        last = ended(bytes(answers[0].body)) if stream else json.loads(answers[0].body)
        found = await gateway.ask("GET", f"{PATH}/{last['id']}")
        assert (json.loads(found.body), last["store"]) == (last, True)


@on_uvloop
async def test_a_shared_answer_is_kept_for_each_under_its_own_id(net: Net) -> None:
    gateway = await gateway_of(net, "m", cache=CacheSettings(ttl=60))
    body = {"model": "m", "input": "Hi", "stream": False}
    answers = [json.loads((await gateway.ask("POST", PATH, body, {"x-gai-cache": "on"})).body) for _ in range(2)]
    assert answers[0]["id"] != answers[1]["id"]
    for answer in answers:
        assert json.loads((await gateway.ask("GET", f"{PATH}/{answer['id']}")).body) == answer


@on_uvloop
async def test_the_id_works_the_moment_the_end_can_be_read(net: Net) -> None:
    gateway = await gateway_of(net, "m")
    asking, finding = await gateway.connect(), await gateway.connect()
    body = {"model": "m", "input": "Hi", "stream": True}
    for _ in range(200):
        asked = await asking.ask("POST", PATH, body)
        found = await finding.ask("GET", f"{PATH}/{ended(bytes(asked.body))['id']}")
        assert found.status == 200


@on_uvloop
async def test_a_caller_has_its_own_responses(net: Net) -> None:
    keys = (KeySettings("ann", (key_digest("k-ann"),)), KeySettings("bob", (key_digest("k-bob"),)))
    gateway = await gateway_of(net, "native/gpt-x", keys=keys)
    ann, bob = {"authorization": "Bearer k-ann"}, {"authorization": "Bearer k-bob"}
    for who in (ann, bob):
        assert (await gateway.ask("POST", PATH, {"model": "native/gpt-x", "input": "Hi"}, who)).status == 200
    assert (await gateway.ask("DELETE", f"{PATH}/resp_theirs", headers=ann)).status == 200
    assert (await gateway.ask("GET", f"{PATH}/resp_theirs", headers=ann)).status == 404
    assert (await gateway.ask("GET", f"{PATH}/resp_theirs", headers=bob)).status == 200


@on_uvloop
async def test_reads_of_a_key_have_a_limit_of_their_own_and_following_a_stream_is_none(net: Net) -> None:
    secrets = {name: f"sk-canary-{name}-0123456789" for name in ("alice", "bob", "root")}
    keys = tuple(
        KeySettings(
            name,
            (key_digest(secret),),
            role="admin" if name == "root" else "user",
            limits=KeyLimits(requests_per_minute=None if name == "bob" else 2),
        )
        for name, secret in secrets.items()
    )

    async def answers(peer: Peer) -> None:
        await peer.request()
        await peer.send(SSE_HEAD, chunk(b"".join(upstream(text="Hi"))), LAST_CHUNK)

    url = (await net.upstream(answers)).url
    running = await start(dataclasses.replace(settings_for(url), keys=keys))
    net.stack.push_async_callback(running.close)
    gateway = Gateway(net, running)

    async def get(name: str, path: str) -> Any:
        return await gateway.ask("GET", path, headers={"authorization": f"Bearer {secrets[name]}"})

    responses = running.engine.store.responses
    for name in ("alice", "bob"):
        one = KeptResponse("resp_1", "", "completed", b'[{"role":"user","content":"Hi"}]', b'{"id":"resp_1"}')
        assert responses.keep(name, one)
    paths = [f"{PATH}/resp_1", f"{PATH}/resp_1/input_items"]
    found = [await get("alice", paths[number % 2]) for number in range(21)]
    assert [each.status for each in found] == [200] * 20 + [429]
    assert found[-1].json["error"]["code"] == "rate_limited"
    assert "as often as it may" in found[-1].json["error"]["message"]
    assert 0 < float(found[-1].headers["retry-after"]) <= 3
    assert (await get("alice", f"{PATH}/resp_1?stream=true")).status == 400, "its events are not kept: no refusal"
    assert (await get("bob", paths[0])).status == 200
    assert {(await get("root", "/admin/v1/requests")).status for _ in range(20)} == {200}
    refused = await get("root", "/admin/v1/keys")
    assert (refused.status, b'"reads"' in refused.body) == (429, True), refused.body
    body = (await get("root", "/metrics")).body
    assert b'gai_fast_limited_total{limit="reads"} 2' in body
