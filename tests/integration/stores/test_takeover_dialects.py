"""Streams of the routes of dialects whose worker is killed go on in another one: what clients and upstreams see."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import openai
import pytest

from gai_fast.cli.mock.command import Mock
from tests.integration.gateway import Net
from tests.integration.processes import Server, configure, serving
from tests.integration.stores.conftest import MakeBackend
from tests.integration.stores.test_serve import AS_STATE, frames, get
from tests.integration.stores.test_serve import folder as folder
from tests.integration.stores.test_takeover import is_asked, kinds, said
from tests.integration.websocket import upgrade
from tests.waiting import until_answered

MESSAGES = [{"role": "user", "content": "Say it"}]
ROUTES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"messages": MESSAGES}),
    "completions": ("/v1/completions", {"prompt": "Say it"}),
    "messages": ("/v1/messages", {"messages": MESSAGES, "max_tokens": 1000}),
    "responses": ("/v1/responses", {"input": "Say it"}),
}
DETACHED = '[stream]\non_midstream_failure = "continue"\non_disconnect = "detach"\n'
_ID = re.compile(rb"^id: (\S+)$", re.M)


def datas(body: bytes) -> list[dict[str, Any]]:
    """Returns the objects of a stream in any dialect."""
    found = re.findall(rb"^data: (\{.*\})\r?$", body, re.M)
    return [json.loads(each) for each in found]


def text_of(body: bytes) -> str:
    """Returns the text of a stream in any dialect."""
    text = ""
    for data in datas(body):
        for choice in data.get("choices", ()):
            text += choice["text"] if "text" in choice else choice["delta"].get("content") or ""
        delta = data.get("delta")
        if isinstance(delta, str):
            text += delta
        elif isinstance(delta, dict):
            text += delta.get("text", "")
    return text


@asynccontextmanager
async def asked(server: Server, path: str, body: Any) -> AsyncIterator[tuple[asyncio.StreamReader, bytes]]:
    """A stream that a client has the beginning of."""
    host, _, port = server.host.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    raw = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: {host}\r\nidempotency-key: k\r\ncontent-type: application/json\r\n"
    if path.startswith("/api/v1/chat"):  # has the id of its chat
        head = head.replace("idempotency-key: k\r\n", "")
    writer.write(f"{head}content-length: {len(raw)}\r\n\r\n".encode() + raw)
    early = await reader.readuntil(b".6\n")
    try:
        yield reader, early
    finally:
        writer.close()


async def is_stored(server: Server, stream_id: str, seq: int) -> bool:
    answer = await server.ask("GET", f"/api/v1/streams/{stream_id}", headers=AS_STATE)
    last = answer.json["last_event_id"] if answer.status == 200 else None
    return last is not None and int(last.rpartition(".")[2]) >= seq


def id_in(early: bytes) -> str:
    found = re.search(rb"x-gai-stream-id: (\S+)", early)
    assert found is not None, early
    return found[1].decode()


def client_of(server: Server) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"http://{server.host}/v1", api_key="k", max_retries=0)


@pytest.mark.parametrize("provider", ["openai-compatible", "anthropic"])
@pytest.mark.parametrize("route", ROUTES)
async def test_a_stream_goes_on_in_its_dialect(net: Net, folder: Path, url: str, route: str, provider: str) -> None:
    path, body = ROUTES[route]
    asking = {**body, "model": "m", "stream": True}
    async with Mock(deltas=150, rate=60) as mock:
        configure(folder, mock, more=DETACHED)
        config = folder / "gai-fast.toml"
        base = f"{mock.url}/v1" if provider != "anthropic" else mock.url
        config.write_text(
            config.read_text().replace("openai-compatible", provider).replace(f"{mock.url}/v1", base)
            + ('[store]\nsync = "before_send"\n' if route == "messages" else "")
        )
        async with serving(net, folder, "--port", "0") as server:
            text = text_of(await get(server.host, path, json.dumps(asking).encode()))
        assert len(text) > 300
        mock.requests.clear()
        arguments = ("--port", "0", "--store", url)
        async with serving(net, folder, *arguments) as first, serving(net, folder, *arguments) as second:
            async with asked(first, path, asking) as (rest, early):
                stream_id = id_in(early)
                await until_answered(partial(is_stored, second, stream_id, 6))
                first.process.kill()
                early += await rest.read()
                await first.ended()
            own = await get(second.host, f"/api/v1/streams/{stream_id}")
            native = frames(await get(second.host, f"/api/v1/streams/{stream_id}?format=gai"))
            gap = next(event for _, event in native if event["type"] == "stream.gap")
            ids = [each.decode() for each in _ID.findall(early)]
            kept = [each for each in ids if int(each.rpartition(".")[2]) < gap["from"]]
            resumed = await get(second.host, f"/api/v1/streams/{stream_id}?after={kept[-1]}")
            lost = await get(second.host, f"/api/v1/streams/{stream_id}?after={stream_id}.{gap['from']}")
            assert len(mock.requests) == 2
    assert said(native) == text_of(own) == text
    assert kinds(native) == ["start", "stream.gap", "warning", "finish", "done"]
    assert native[-2][1]["continued"] == "verified"
    had = early[: early.index(f"id: {kept[-1]}\n".encode())]
    assert text_of(had) + text_of(resumed) in (text, text[: len(text_of(had))] + text_of(resumed))
    assert text.endswith(text_of(resumed))
    assert b"events that the log has lost" in lost
    assert text_of(lost) == ""


@pytest.mark.parametrize("route", ROUTES)
async def test_a_restart_is_in_the_log_and_an_error_only_for_clients_whose_format_cannot_say_it(
    net: Net, folder: Path, url: str, route: str
) -> None:
    path, body = ROUTES[route]
    async with Mock(deltas=150, rate=60) as mock:
        configure(folder, mock, more=DETACHED.replace("continue", "restart"))
        arguments = ("--port", "0", "--store", url)
        async with serving(net, folder, *arguments) as first, serving(net, folder, *arguments) as second:
            async with asked(first, path, {**body, "model": "m", "stream": True}) as (_, early):
                stream_id = id_in(early)
                await until_answered(partial(is_stored, second, stream_id, 6))
                first.process.kill()
                await first.ended()
            followed = f"/api/v1/streams/{stream_id}"
            native = frames(await get(second.host, f"{followed}?format=gai"))
            resumed = await get(second.host, f"{followed}?after={stream_id}.4")
            if route == "responses":
                kept = await second.ask("GET", f"/v1/responses/resp_{stream_id}")
                assert (kept.json["status"], kept.json["store"]) == ("completed", True)
                assert [each["content"][0]["text"] for each in kept.json["output"]] == [said(native)]
            assert len(mock.requests) == 2
    assert kinds(native) == ["start", "stream.gap", "stream.reset", "start", "warning", "finish", "done"], native[-3:]
    assert len(said(native)) > 300
    assert text_of(resumed) == "" or text_of(resumed) in said(native)
    assert b"error" in resumed


@pytest.mark.parametrize("route", ROUTES)
async def test_a_whole_answer_is_asked_for_again(net: Net, folder: Path, url: str, route: str) -> None:
    path, body = ROUTES[route]
    asking, headers = {**body, "model": "m"}, {"idempotency-key": "k"}
    async with Mock(deltas=20, ttft=60) as mock:
        configure(folder, mock)
        arguments = ("--port", "0", "--store", url)
        async with serving(net, folder, *arguments) as first, serving(net, folder, *arguments) as second:
            lost = asyncio.create_task(first.ask("POST", path, asking, headers))
            await until_answered(partial(is_asked, mock, 1))
            await asyncio.sleep(0.3)  # the first batch is written
            first.process.kill()
            await first.ended()
            mock.ttft = 0
            answer = await second.ask("POST", path, asking, headers)
            repeated = await second.ask("POST", path, asking, headers)
            assert (answer.status, len(mock.requests)) == (200, 2), answer.json
            assert repeated.json == answer.json
            if route == "responses":
                kept = await second.ask("GET", f"/v1/responses/{answer.json['id']}")
                assert kept.json == answer.json
                assert answer.json["store"]
            lost.cancel()
            await asyncio.gather(lost, return_exceptions=True)


async def test_a_response_in_the_background_outlives_its_worker(
    net: Net, folder: Path, url: str, make_backend: MakeBackend
) -> None:
    """Openai's client asks for it until it is there, and goes on from it."""
    async with Mock(deltas=150, rate=60) as mock:
        configure(folder, mock, more='[stream]\non_midstream_failure = "continue"\n')
        arguments = ("--port", "0", "--store", url)
        async with (
            serving(net, folder, *arguments) as first,
            serving(net, folder, *arguments) as second,
            client_of(first) as here,
            client_of(second) as there,
        ):
            alone = await there.responses.create(model="m", input="Say it")
            mock.requests.clear()
            metadata = {"a": "b"}
            queued = await here.responses.create(
                model="m", input="Say it", background=True, instructions="Be brief", metadata=metadata
            )
            await until_answered(partial(is_stored, second, queued.id.removeprefix("resp_"), 6))
            first.process.kill()
            await first.ended()
            ask = there.responses
            while (response := await ask.retrieve(queued.id)).status in ("queued", "in_progress"):
                assert response.metadata == metadata
                await asyncio.sleep(0.2)
            assert (response.status, response.output_text) == ("completed", alone.output_text)
            assert (response.instructions, response.metadata, response.background) == ("Be brief", metadata, True)
            assert response.to_dict()["store"]
            items = (await ask.input_items.list(queued.id)).data
            assert len(items) == 1
            further = await ask.create(model="m", input="And?", previous_response_id=queued.id)
            assert further.output_text == alone.output_text
            assert len(mock.requests) == 3
            assert mock.requests[-1].body["messages"][1]["content"] == alone.output_text


async def test_a_response_in_the_background_begins_again(net: Net, folder: Path, url: str) -> None:
    async with Mock(deltas=150, rate=60) as mock:
        configure(folder, mock, more='[stream]\non_midstream_failure = "restart"\n')
        arguments = ("--port", "0", "--store", url)
        async with (
            serving(net, folder, *arguments) as first,
            serving(net, folder, *arguments) as second,
            client_of(first) as here,
            client_of(second) as there,
        ):
            alone = await there.responses.create(model="m", input="Say it")
            queued = await here.responses.create(model="m", input="Say it", background=True)
            await until_answered(partial(is_stored, second, queued.id.removeprefix("resp_"), 6))
            first.process.kill()
            await first.ended()

            async def has_ended() -> bool:
                return (await there.responses.retrieve(queued.id)).status not in ("queued", "in_progress")

            await until_answered(has_ended)
            response = await there.responses.retrieve(queued.id)
            assert (response.status, response.output_text) == ("completed", alone.output_text)
            further = await there.responses.create(model="m", input="And?", previous_response_id=queued.id)
            assert further.output_text == alone.output_text
            assert mock.requests[-1].body["messages"][1]["content"] == alone.output_text


@pytest.mark.parametrize("sync", ["batched", "before_send"])
async def test_a_stream_of_a_response_goes_on_behind_a_number(net: Net, folder: Path, url: str, sync: str) -> None:
    """Openai's client has a number of the lost worker, and goes on from it at another one."""
    async with Mock(deltas=150, rate=60) as mock:
        more = f'[stream]\non_midstream_failure = "continue"\n[store]\nsync = "{sync}"\n'
        configure(folder, mock, more=more)
        arguments = ("--port", "0", "--store", url)
        async with (
            serving(net, folder, *arguments) as first,
            serving(net, folder, *arguments) as second,
            client_of(first) as here,
            client_of(second) as there,
        ):
            alone = await there.responses.create(model="m", input="Say it")
            stream = await here.responses.create(model="m", input="Say it", background=True, stream=True)
            had, last, name = "", -1, ""
            async for event in stream:
                last = event.sequence_number
                if event.type == "response.created":
                    name = event.response.id
                if event.type == "response.output_text.delta":
                    had += event.delta
                if last == 12:
                    await stream.close()
                    break
            await until_answered(partial(is_stored, second, name.removeprefix("resp_"), 12))
            first.process.kill()
            await first.ended()
            ask = there.responses
            numbers = []
            async for event in await ask.retrieve(name, stream=True, starting_after=last):
                numbers.append(event.sequence_number)
                if event.type == "response.output_text.delta":
                    had += event.delta
            assert event.type == "response.completed"
            assert had == alone.output_text == event.response.output_text
            assert numbers == sorted({*numbers})
            assert numbers[0] == last + 1
            unseen = next(each for each, after in pairwise(numbers) if after > each + 1) + 1
            refused = await get(second.host, f"/v1/responses/{name}?stream=true&starting_after={unseen}")
            assert b"events that the log has lost" in refused, (numbers, unseen, refused)
            assert text_of(refused) == ""


async def lost(first: Server, second: Server, path: str, body: Any) -> str:
    """Returns the id of a stream whose worker is killed; the store has some of it, and nobody follows it."""
    async with asked(first, path, body) as (_, early):
        stream_id = id_in(early)
        await until_answered(partial(is_stored, second, stream_id, 6))
        first.process.kill()
        await first.ended()
    return stream_id


async def by_socket(server: Server, stream_id: str) -> str:
    socket = await upgrade(await server.connect())
    socket.send(stream="a", type="resume", after=f"{stream_id}.1")
    await socket.until_done("a")
    events = [(name, event) for name, event in (("", each) for each in socket.of("a"))]
    socket.client.close()
    return said(events)


async def by_chat(server: Server, stream_id: str) -> str:
    answer = await server.ask("GET", "/api/v1/chat/chat-1/stream")
    assert answer.headers["x-gai-stream-id"] == stream_id
    assert answer.data[-1] == "[DONE]"
    return "".join(part["delta"] for part in answer.events if part["type"] == "text-delta")


async def by_parent(server: Server, stream_id: str) -> str:
    """The first turn that names it is told that it runs; then it goes on."""
    turn = {"model": "m", "input": "And?", "previous_response_id": f"resp_{stream_id}"}
    answer = await server.ask("POST", "/v1/responses", turn)
    assert (answer.status, answer.error["code"]) == (409, "invalid_request"), answer.json

    async def has_ended() -> bool:
        nonlocal answer
        answer = await server.ask("POST", "/v1/responses", turn)
        return answer.status == 200

    await until_answered(has_ended)
    kept = await server.ask("GET", f"/v1/responses/resp_{stream_id}")
    return str(kept.json["output"][0]["content"][0]["text"])


async def by_key(server: Server, stream_id: str) -> str:
    asking = {**ROUTES["chat"][1], "model": "m", "stream": True}
    raw = json.dumps(asking).encode()
    head = f"POST {ROUTES['chat'][0]} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\nidempotency-key: k\r\n"
    host, _, port = server.host.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"{head}content-type: application/json\r\ncontent-length: {len(raw)}\r\n\r\n".encode() + raw)
    answer = await reader.read()
    writer.close()
    assert id_in(answer) == stream_id
    assert b"idempotent-replayed: true" in answer
    return text_of(answer)


CHAT = {
    "id": "chat-1",
    "trigger": "submit-message",
    "messages": [{"id": "m1", "role": "user", "parts": [{"type": "text", "text": "Say it"}]}],
}
ASKERS: dict[str, tuple[Any, str, Any]] = {
    "a socket": (by_socket, *ROUTES["messages"]),
    "useChat": (by_chat, "/api/v1/chat?model=m", CHAT),
    "a turn": (by_parent, *ROUTES["responses"]),
    "its key": (by_key, *ROUTES["chat"]),
}


@pytest.mark.parametrize("asker", ASKERS)
async def test_who_asks_for_a_stream_goes_on_with_it(net: Net, folder: Path, url: str, asker: str) -> None:
    """Nobody else does: the upstream is asked again by the first one who wants the stream."""
    ask, path, body = ASKERS[asker]
    asking = body if asker == "useChat" else {**body, "model": "m", "stream": True}
    async with Mock(deltas=150, rate=60) as mock:
        configure(folder, mock, more=DETACHED)
        arguments = ("--port", "0", "--store", url)
        async with serving(net, folder, *arguments) as first, serving(net, folder, *arguments) as second:
            chat, plain = ROUTES["chat"]
            text = text_of(await get(second.host, chat, json.dumps({**plain, "model": "m", "stream": True}).encode()))
            mock.requests.clear()
            stream_id = await lost(first, second, path, asking)
            assert await ask(second, stream_id) == text
            assert len(mock.requests) == (3 if asker == "a turn" else 2)


@pytest.mark.parametrize("route", ROUTES)
async def test_a_successor_goes_on_with_a_stream_of_a_dialect(net: Net, folder: Path, url: str, route: str) -> None:
    path, body = ROUTES[route]
    asking = {**body, "model": "m", "stream": True}
    async with Mock(deltas=150, rate=0) as mock:
        configure(folder, mock, grace=0.1, more=DETACHED)
        arguments = ("--port", "0", "--store", url)
        async with serving(net, folder, *arguments) as first, serving(net, folder, *arguments) as second:
            text = text_of(await get(second.host, path, json.dumps(asking).encode()))
            mock.requests.clear()
            mock.rate = 60
            async with asked(first, path, asking) as (rest, early):
                stream_id = id_in(early)
                first.signal()
                early += await rest.read()
                assert await first.ended() == 0
            last = _ID.findall(early)[-1].decode()
            resumed = await get(second.host, f"/api/v1/streams/{stream_id}?after={last}")
            own = await get(second.host, f"/api/v1/streams/{stream_id}")
            assert len(mock.requests) == 2
    assert text_of(early) + text_of(resumed) == text_of(own) == text
