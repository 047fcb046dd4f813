"""Streams whose worker is killed go on in another one: what their clients and their upstreams see."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gai_fast.cli.mock.command import Mock
from gai_fast.stores.redis import RedisBackend
from tests.integration.gateway import DONE, FINISH, LAST_CHUNK, QUERY, SSE_HEAD, Net, Peer, delta
from tests.integration.processes import Server, configure, serving
from tests.integration.stores.conftest import MakeBackend
from tests.integration.stores.test_serve import AS_STATE, frames, get, streaming
from tests.integration.stores.test_serve import folder as folder
from tests.waiting import until_answered
from tests.wire import chunk

EMPTY_LINE = b"\r\n\r\n"
Events = list[tuple[str, dict[str, Any]]]
BODY = json.dumps({**QUERY, "model": "m", "resumable": True}).encode()
STORES = {
    "batched": "",
    "before_send": '[store]\nsync = "before_send"\n',
    "sealed": '[store.encryption]\nkeys = ["file:seal"]\n',
}


def said(events: Events) -> str:
    """Returns the text that a client has at the end: a gap voids what came since its `from`."""
    text = ""
    for _, event in events:
        if event["type"] == "text.delta":
            text += event["text"]
        elif event["type"] == "stream.gap":
            text = event["text"]
        elif event["type"] == "stream.reset":
            text = ""
    return text


def kinds(events: Events) -> list[str]:
    """Returns the types of events, without deltas."""
    return [event["type"] for _, event in events if event["type"] != "text.delta"]


def numbers(events: Events) -> list[int]:
    return [int(name.rpartition(".")[2]) for name, _ in events if name]


async def whole(mock: Mock, net: Net, folder: Path) -> str:
    """Returns the text of the upstream's answer."""
    async with serving(net, folder, "--port", "0") as server:
        text = said(frames(await get(server.host, "/api/v1/stream", BODY)))
    mock.requests.clear()
    return text


async def is_asked(mock: Mock, times: int) -> bool:
    return len(mock.requests) == times


class Scene:
    """Two servers over one store. The first one is killed amid a stream that is followed in both."""

    def __init__(self, second: Server, stream_id: str, early: bytes, follower: asyncio.Task[bytes]) -> None:
        self.second = second
        self.stream_id = stream_id
        self.had = frames(early)
        self.follower = follower

    async def got(self, after: str = "", more: str = "") -> Events:
        """Returns what a client gets that comes back."""
        query = f"?after={after}{more}" if after else more.replace("&", "?")
        return frames(await get(self.second.host, f"/api/v1/streams/{self.stream_id}{query}"))


@asynccontextmanager
async def killed(
    net: Net, folder: Path, url: str, mock: Mock, stream: str, model: str = "", more: str = "", body: bytes = BODY
) -> AsyncIterator[Scene]:
    configure(folder, mock, more=f"{model}\n[stream]\n{stream}\n{more}")
    arguments = ("--port", "0", "--store", url)
    async with serving(net, folder, *arguments) as first, serving(net, folder, *arguments) as second:
        async with streaming(first.host, body, until=b".4\n") as (stream_id, early, rest):
            follower = asyncio.create_task(get(second.host, f"/api/v1/streams/{stream_id}"))

            async def is_stored() -> bool:
                answer = await second.ask("GET", f"/api/v1/streams/{stream_id}", headers=AS_STATE)
                last = answer.json["last_event_id"] if answer.status == 200 else None
                return last is not None and int(last.rpartition(".")[2]) >= 4

            await until_answered(is_stored)
            first.process.kill()
            early += await rest.read()
            await first.ended()
        yield Scene(second, stream_id, early, follower)
        await asyncio.gather(follower, return_exceptions=True)


@pytest.mark.parametrize("store", STORES)
async def test_an_answer_that_repeats_itself_goes_on(net: Net, folder: Path, url: str, store: str) -> None:
    (folder / "seal").write_text("AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=")
    async with Mock(deltas=200, rate=60) as mock:
        configure(folder, mock)
        text = await whole(mock, net, folder)
        wish = 'on_midstream_failure = "continue"'
        async with killed(net, folder, url, mock, wish, more=STORES[store]) as scene:
            followed = frames(await scene.follower)
            last = scene.had[-1][0]
            resumed = await scene.got(last)
            again = await scene.got()
            assert len(mock.requests) == 2
    assert said(followed) == said(again) == text
    assert kinds(followed) == kinds(again) == ["start", "stream.gap", "warning", "finish", "done"]
    gap = next(event for _, event in again if event["type"] == "stream.gap")
    assert gap["reason"] == "taken_over"
    assert said(again[: gap["from"] - 1]) == gap["text"]
    kept = [each for each in scene.had if each[0] and int(each[0].rpartition(".")[2]) < gap["from"]]
    assert said([*kept, *resumed]) == text
    assert numbers(again) == sorted({*numbers(again)})
    assert again[-2][1]["continued"] == "verified"
    assert (len(kept) == len(scene.had)) or store != "before_send", "no client has what is not stored"


async def test_an_answer_without_content_is_asked_again(net: Net, folder: Path, url: str) -> None:
    async with Mock(deltas=20, rate=0) as mock:
        configure(folder, mock)
        text = await whole(mock, net, folder)
        mock.ttft = 60
        arguments = ("--port", "0", "--store", url)
        async with serving(net, folder, *arguments) as first, serving(net, folder, *arguments) as second:
            reply = await get(first.host, "/api/v1/streams", BODY)
            stream_id = json.loads(reply.partition(b"\r\n\r\n")[2])["id"]

            async def is_known() -> bool:
                return b" 200 " in (await get(second.host, f"/api/v1/streams/{stream_id}", method="HEAD"))[:20]

            await until_answered(is_known)
            first.process.kill()
            await first.ended()
            mock.ttft = 0
            got = frames(await get(second.host, f"/api/v1/streams/{stream_id}"))
            assert len(mock.requests) == 2
    assert said(got) == text
    assert kinds(got) == ["stream.gap", "start", "warning", "finish", "done"]


@pytest.mark.parametrize("wish", ["error", "continue"])
async def test_an_answer_that_has_only_begun_begins_again(net: Net, folder: Path, url: str, wish: str) -> None:
    asked = 0

    async def model(peer: Peer) -> None:
        nonlocal asked
        await peer.request()
        asked += 1
        await peer.send(SSE_HEAD, chunk(delta("", delta={"role": "assistant"})))
        if asked == 1:
            await peer.request()  # it thinks until its client is gone
        await peer.send(chunk(delta("Hello")), chunk(FINISH + DONE) + LAST_CHUNK)

    upstream = await net.upstream(model)
    (folder / "gai-fast.toml").write_text(
        f'[[upstream]]\nname = "up"\nprovider = "openai-compatible"\nbase_url = "{upstream.url}/v1"\n'
        f'[[model]]\nname = "m"\nupstream = "up"\n[stream]\non_midstream_failure = "{wish}"\n'
    )
    arguments = ("--port", "0", "--store", url)
    async with serving(net, folder, *arguments) as first, serving(net, folder, *arguments) as second:
        async with streaming(first.host, BODY, until=b".1\n") as (stream_id, _, _):

            async def is_stored() -> bool:
                answer = await second.ask("GET", f"/api/v1/streams/{stream_id}", headers=AS_STATE)
                return answer.status == 200 and answer.json["last_event_id"] is not None

            await until_answered(is_stored)
            first.process.kill()
            await first.ended()
        got = frames(await get(second.host, f"/api/v1/streams/{stream_id}"))
    assert kinds(got) == ["start", "stream.gap", "stream.reset", "start", "warning", "finish", "done"]
    assert said(got) == "Hello"


@pytest.mark.parametrize("waits", [True, False])
async def test_a_whole_answer_is_asked_for_again(net: Net, folder: Path, url: str, waits: bool) -> None:
    asked, headers = {**QUERY, "model": "m", "stream": False}, {"idempotency-key": "k"}
    async with Mock(deltas=20, ttft=60) as mock:
        configure(folder, mock)
        arguments = ("--port", "0", "--store", url)
        async with serving(net, folder, *arguments) as first, serving(net, folder, *arguments) as second:
            lost = asyncio.create_task(first.ask("POST", "/api/v1/stream", asked, headers))
            await until_answered(partial(is_asked, mock, 1))
            again = asyncio.create_task(second.ask("POST", "/api/v1/stream", asked, headers)) if waits else None
            await asyncio.sleep(0.3)  # the first batch is written
            first.process.kill()
            await first.ended()
            mock.ttft = 0
            if again is None:
                again = asyncio.create_task(second.ask("POST", "/api/v1/stream", asked, headers))
            answer = await again
            assert (answer.status, len(mock.requests)) == (200, 2)
            repeated = await second.ask("POST", "/api/v1/stream", asked, headers)
            assert repeated.json == answer.json
            assert len(mock.requests) == 2
            lost.cancel()
            await asyncio.gather(lost, return_exceptions=True)
    assert len(answer.json["text"].split()) == 20


async def test_a_restart_voids_what_clients_have(net: Net, folder: Path, url: str) -> None:
    async with Mock(deltas=200, rate=60) as mock:
        configure(folder, mock)
        text = await whole(mock, net, folder)
        async with killed(net, folder, url, mock, 'on_midstream_failure = "restart"') as scene:
            got = frames(await scene.follower)
    assert said(got) == text
    assert kinds(got) == ["start", "stream.gap", "stream.reset", "start", "warning", "finish", "done"]
    assert next(event["reason"] for _, event in got if event["type"] == "stream.reset") == "worker_lost"


JUDGES = """\
[[guard]]
name = "{word}"
use = "python"
python = "streams:{word}"
on = ["output"]
{more}
"""
PROCESSORS = {
    "words": '[[guard]]\nname = "g"\nuse = "words"\nwords = ["stream"]\n',
    "a judge": JUDGES,
    "a judge that is late": JUDGES,
    "processors": '[[processor]]\nuse = "transform"\nreplace = {stream = "river", stones = "rocks"}\n',
}
STREAMS = """
import time

def verdict(text, word):
    at = text.find(word)
    return {"flagged": at >= 0, "category": word, "spans": [] if at < 0 else [[at, at + len(word)]]}

def quiet(asked):
    time.sleep(SECONDS)
    return verdict(asked["text"], "quiet")

def order(asked):
    time.sleep(SECONDS)
    return verdict(asked["text"], "order")
"""
"""A judge for a word that comes near the cut, and one for a word near the end. Each is in the answer once: how many
pieces have a word that comes again depends on the time between its deltas."""
STORY = 65
"""The deltas of the mock's text, which it then repeats."""


def guards_of(matches: Events) -> list[str]:
    """Returns which guard each match was found by, sorted."""
    return sorted(event["safety"]["guard"] for _, event in matches if event["type"] == "safety")


@pytest.mark.parametrize("wish", ["continue", "restart"])
@pytest.mark.parametrize("use", PROCESSORS)
async def test_an_answer_goes_on_behind_new_processors(net: Net, folder: Path, url: str, use: str, wish: str) -> None:
    is_late, is_judged = use == "a judge that is late", PROCESSORS[use] == JUDGES
    (folder / "streams.py").write_text(STREAMS.replace("SECONDS", "0.2" if is_late else "0"))
    action = 'action = "flag"\nmax_exposure = 200' if is_late else 'action = "mask"'
    more = (
        "".join(JUDGES.format(word=each, more=action) for each in ("quiet", "order")) if is_judged else PROCESSORS[use]
    )
    async with Mock(deltas=STORY, rate=20) as mock:
        configure(folder, mock, more=more)
        async with serving(net, folder, "--port", "0") as server:
            alone = frames(await get(server.host, "/api/v1/stream", BODY))
        mock.requests.clear()
        stream = f'on_midstream_failure = "{wish}"'
        async with killed(net, folder, url, mock, stream, more=more) as scene:
            followed = frames(await scene.follower)
            assert followed == await scene.got()
            assert len(mock.requests) == 2
    assert said(followed) == said(alone)
    assert ((" quiet " if is_judged else " stream ") in said(alone)) == is_late
    assert followed[-2][1]["type"] == "finish"
    assert followed[-2][1].get("continued") == ("verified" if wish == "continue" else None)
    assert numbers(followed) == sorted({*numbers(followed)})
    if wish == "continue":
        assert guards_of(followed) == guards_of(alone)
        assert not is_judged or guards_of(alone) == ["order", "quiet"]


async def test_own_words_are_hidden_from_the_provider_of_the_new_owner_too(
    net: Net, folder: Path, url: str, make_backend: MakeBackend
) -> None:
    more = '[[guard]]\nname = "pii"\nuse = "pii"\nkinds = ["email"]\nrestore = true\non = ["input", "output"]\n'
    more += '[[guard]]\nname = "name"\nuse = "words"\nwords = ["Anna"]\non = ["input"]\n'
    asked = {**QUERY, "query": "Anna: b@sea.example to a@sea.example and b@sea.example", "model": "m"}
    body = json.dumps({**asked, "resumable": True}).encode()
    stream = 'on_midstream_failure = "continue"'
    async with (
        Mock(deltas=200, rate=60) as mock,
        killed(net, folder, url, mock, stream, more=more, body=body) as scene,
    ):
        backend = make_backend()
        await backend.open()
        record = await backend.request_of(scene.stream_id)
        followed = frames(await scene.follower)
        first, second = (request.body for request in mock.requests)
    assert first == second
    assert first["messages"][-1]["content"] == "[words]: <EMAIL_1> to <EMAIL_2> and <EMAIL_1>"
    assert record is None or b"[words]: <EMAIL_1> to <EMAIL_2> and <EMAIL_1>" in record
    assert record is None or b'"<EMAIL_1>":"b@sea.example"' in record
    assert followed[-2][1]["continued"] == "verified"
    assert kinds(followed)[:3] == ["start", "safety", "safety"]
    assert kinds(followed).count("safety") == 2


def keyed() -> str:
    """Returns a model with a price, and keys: of two callers with limits, and of an admin."""
    limits = 'requests_per_minute = 1\nstreams = 1\nspend = {amount = 1000, period = "total"}\n'
    keys = [f'[[key]]\nname = "{name}"\nsecret = "file:{name}"\n{limits}' for name in ("anna", "bob")]
    admin = '[[key]]\nname = "admin"\nrole = "admin"\nsecret = "file:admin"\n'
    return "price = {input = 0, output = 1000}\n" + "".join(keys) + admin


def write_keys(folder: Path) -> None:
    for name in ("anna", "bob", "admin"):
        (folder / name).write_text(name * 8)


async def spend_of(server: Server) -> dict[str, tuple[float, int]]:
    """Returns what each key has spent, and its requests."""
    headers = {"x-api-key": "admin" * 8}
    rows = (await server.ask("GET", "/admin/v1/spend?by=key", None, headers)).json["data"]
    return {row["key"]: (float(row["amount"]), row["requests"]) for row in rows}


async def test_a_key_with_limits_has_its_place_and_its_spend_with_the_new_owner(
    net: Net, folder: Path, url: str
) -> None:
    """It may make one request a minute, and has one stream."""
    write_keys(folder)
    more = f'{keyed()}[stream]\non_midstream_failure = "continue"\n'
    async with Mock(deltas=300, rate=80) as mock:
        configure(folder, mock, more=more)
        arguments = ("--port", "0", "--store", url)
        async with serving(net, folder, *arguments) as first, serving(net, folder, *arguments) as second:
            alone = await get(second.host, "/api/v1/stream", BODY, key="bob" * 8)
            async with streaming(first.host, BODY, until=b".200\n", key="anna" * 8) as (stream_id, _, _):
                first.process.kill()
                await first.ended()
            got = frames(await get(second.host, f"/api/v1/streams/{stream_id}", key="anna" * 8))
            spent = await spend_of(second)
    assert said(got) == said(frames(alone))
    assert got[-2][1]["continued"] == "verified"
    whole = spent["bob"][0]
    assert whole < spent["anna"][0] < 2 * whole, "what the lost worker has charged, and a whole answer"
    assert (spent["anna"][1], spent["bob"][1]) == (1, 1)


@pytest.mark.parametrize("why", ["error", "takeover", "differs"])
async def test_what_does_not_go_on_ends_with_its_worker(
    net: Net, folder: Path, url: str, make_backend: MakeBackend, why: str
) -> None:
    stream = f'on_midstream_failure = "{"error" if why == "error" else "continue"}"'
    more = "[store]\ntakeover = false\n" if why == "takeover" else ""
    async with Mock(deltas=400, rate=60) as mock, killed(net, folder, url, mock, stream, more=more) as scene:
        if why == "differs":
            mock.deltas = 2
        got = frames(await scene.follower)
        assert got == await scene.got()
        backend = make_backend()
        await backend.open()

        async def is_forgotten() -> bool:
            return await backend.request_of(scene.stream_id) is None

        await until_answered(is_forgotten)
    assert got[-2][1]["error"]["reason"] == "worker_lost"
    assert kinds(got)[-3:] == (["warning", "error", "done"] if why == "differs" else ["stream.gap", "error", "done"])
    assert len(mock.requests) == 1 + (why == "differs")


async def test_a_client_cancels_a_stream_that_goes_on(net: Net, folder: Path, url: str) -> None:
    stream = 'on_midstream_failure = "continue"'
    async with Mock(deltas=100_000, rate=60) as mock, killed(net, folder, url, mock, stream) as scene:
        await until_answered(partial(is_asked, mock, 2))
        arguments = ("--port", "0", "--store", url)
        async with serving(net, folder, *arguments) as third:
            answer = await get(third.host, f"/api/v1/streams/{scene.stream_id}", method="DELETE")
            assert answer.startswith(b"HTTP/1.1 202 "), answer
        got = frames(await scene.follower)
    assert got[-2][1]["finish_reason"] == "cancelled"


async def test_who_cancels_a_stream_while_it_is_taken_over_ends_it(net: Net, folder: Path, url: str) -> None:
    """Another one has asked for it just before, whose search finds the log."""
    async with Mock(deltas=100_000, rate=60) as mock:
        configure(folder, mock, more='[stream]\non_midstream_failure = "continue"\n')
        arguments = ("--port", "0", "--store", url)
        async with serving(net, folder, *arguments) as first, streaming(first.host, BODY) as (stream_id, _, _):
            first.process.kill()
            await first.ended()
        async with serving(net, folder, *arguments) as second:
            path = f"/api/v1/streams/{stream_id}"
            follower = asyncio.create_task(get(second.host, path))
            await asyncio.sleep(0)
            answer = await get(second.host, path, method="DELETE")
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["state"] == "cancelled", answer
            assert frames(await follower)[-2][1]["finish_reason"] == "cancelled"


async def test_streams_wait_for_a_connection_to_their_upstream(net: Net, folder: Path, url: str) -> None:
    """The surviving server may have one connection, and the streams of the other one are two."""
    async with Mock(deltas=100, rate=0) as mock:
        configure(folder, mock)
        text = await whole(mock, net, folder)
        mock.rate = 30
        configure(folder, mock, more='[stream]\non_midstream_failure = "continue"\n')
        config, arguments = folder / "gai-fast.toml", ("--port", "0", "--store", url)
        async with serving(net, folder, *arguments) as first:
            config.write_text(
                config.read_text().replace("[[model]]", "max_connections = 1\npool_wait = 0.1\n[[model]]")
            )
            async with serving(net, folder, *arguments) as second:
                begun = [await get(first.host, "/api/v1/streams", BODY) for _ in range(2)]
                paths = [f"/api/v1/streams/{json.loads(each.partition(EMPTY_LINE)[2])['id']}" for each in begun]
                await until_answered(partial(is_asked, mock, 2))
                await asyncio.sleep(0.5)  # some of both is stored
                first.process.kill()
                await first.ended()
                mock.rate = 60
                got = [frames(each) for each in await asyncio.gather(*(get(second.host, path) for path in paths))]
    assert [said(each) for each in got] == [text] * 2
    assert [each[-2][1].get("continued") for each in got] == ["verified"] * 2
    assert len(mock.requests) == 4


async def test_streams_wait_for_a_connection_that_another_worker_has(net: Net, folder: Path, url: str) -> None:
    """A stream of the surviving server has its one connection; a worker does not know what another one has."""
    async with Mock(deltas=60, rate=0) as mock:
        configure(folder, mock)
        text = await whole(mock, net, folder)
        mock.rate = 30
        configure(folder, mock, more='[stream]\non_midstream_failure = "continue"\n')
        config, arguments = folder / "gai-fast.toml", ("--port", "0", "--store", url)
        async with serving(net, folder, *arguments) as first:
            config.write_text(
                config.read_text().replace("[[model]]", "max_connections = 1\npool_wait = 0.1\n[[model]]")
            )
            async with serving(net, folder, *arguments, "--workers", "2") as second:
                begun = [await get(first.host, "/api/v1/streams", BODY) for _ in range(2)]
                paths = [f"/api/v1/streams/{json.loads(each.partition(EMPTY_LINE)[2])['id']}" for each in begun]
                await until_answered(partial(is_asked, mock, 2))
                await asyncio.sleep(0.5)  # some of both is stored
                mock.deltas, mock.rate = 600, 5

                async def is_busy() -> bool:
                    await get(second.host, "/api/v1/streams", BODY)
                    await asyncio.sleep(0.2)
                    return len(mock.requests) > 2

                await until_answered(is_busy)
                first.process.kill()
                await first.ended()
                following = [asyncio.create_task(get(second.host, path)) for path in paths]
                await asyncio.sleep(2)  # longer than a request waits
                mock.deltas, mock.rate = 60, 0
                got = [frames(each) for each in await asyncio.gather(*following)]
    assert [said(each) for each in got] == [text] * 2
    assert [each[-2][1].get("continued") for each in got] == ["verified"] * 2


async def test_three_workers_may_be_lost_and_nothing_of_the_request_stays(
    net: Net, folder: Path, url: str, make_backend: MakeBackend
) -> None:
    async with Mock(deltas=300, rate=100) as mock:
        configure(folder, mock)
        text = await whole(mock, net, folder)
        configure(folder, mock, more='[stream]\non_midstream_failure = "continue"\n')
        arguments = ("--port", "0", "--store", url)
        async with serving(net, folder, *arguments) as first, streaming(first.host, BODY) as (stream_id, _, _):
            first.process.kill()
            await first.ended()
        backend = make_backend()
        await backend.open()
        assert await backend.request_of(stream_id) is not None
        for number in range(2, 4):
            async with serving(net, folder, *arguments) as server:
                follower = asyncio.create_task(get(server.host, f"/api/v1/streams/{stream_id}"))
                await until_answered(partial(is_asked, mock, number))
                await asyncio.sleep(0.5)
                server.process.kill()
                await server.ended()
                await asyncio.gather(follower, return_exceptions=True)
        async with serving(net, folder, *arguments) as last:
            got = frames(await get(last.host, f"/api/v1/streams/{stream_id}"))

            async def is_forgotten() -> bool:
                return await backend.request_of(stream_id) is None

            await until_answered(is_forgotten)
        if isinstance(backend, RedisBackend):
            assert await backend.client.ask("KEYS", "*:request") == []
    assert kinds(got) == ["start", *["stream.gap", "warning"] * 3, "finish", "done"]
    assert said(got) == text
    assert len(mock.requests) == 4
    assert numbers(got) == sorted({*numbers(got)})


def process_of(server: Server, stream_id: str) -> int:
    """Returns the worker that a stream's id names: by its number, behind 22 random characters and 4 of the server."""
    return server.workers_in_order[int(stream_id[26:], 16) - 1]


async def test_a_stream_of_a_killed_worker_goes_on_in_another_one_of_its_server(
    net: Net, folder: Path, url: str
) -> None:
    async with Mock(deltas=300, rate=60) as mock:
        configure(folder, mock)
        text = await whole(mock, net, folder)
        configure(folder, mock, more='[stream]\non_midstream_failure = "continue"\n')
        async with serving(net, folder, "--port", "0", "--workers", "3", "--store", url) as server:
            async with streaming(server.host, BODY) as (stream_id, early, rest):
                os.kill(process_of(server, stream_id), signal.SIGKILL)
                early += await rest.read()
            got = frames(early)
            while got[-1][1]["type"] != "done":
                path = f"/api/v1/streams/{stream_id}?after={[name for name, _ in got if name][-1]}"
                got += frames(await get(server.host, path))
            for _ in range(2):
                answer = await get(server.host, f"/api/v1/streams/{stream_id}", method="DELETE")
                assert json.loads(answer.partition(b"\r\n\r\n")[2])["state"] == "finished", answer
    assert said(got) == text
    assert len(mock.requests) == 2


async def test_any_worker_cancels_a_stream_that_goes_on_in_another_one(net: Net, folder: Path, url: str) -> None:
    async with Mock(deltas=100_000, rate=60) as mock:
        configure(folder, mock, more='[stream]\non_midstream_failure = "continue"\n')
        async with serving(net, folder, "--port", "0", "--workers", "3", "--store", url) as server:
            async with streaming(server.host, BODY) as (stream_id, _, _):
                os.kill(process_of(server, stream_id), signal.SIGKILL)
            path = f"/api/v1/streams/{stream_id}"
            follower = asyncio.create_task(get(server.host, path))
            await until_answered(partial(is_asked, mock, 2))
            answer = await get(server.host, path, method="DELETE")
            assert answer.startswith(b"HTTP/1.1 202 "), answer
            assert frames(await follower)[-2][1]["finish_reason"] == "cancelled"


async def test_with_before_send_no_upstream_is_asked_that_another_worker_could_not_ask_again(
    net: Net, folder: Path, url: str
) -> None:
    """The worker is killed as its upstream gets the request, three times."""
    servers: list[Server] = []
    asked = 0

    async def model(peer: Peer) -> None:
        nonlocal asked
        await peer.request()
        asked += 1
        if servers:
            servers.pop().process.kill()
            await peer.request()  # until it is gone
        await peer.send(SSE_HEAD, chunk(delta("Hello")), chunk(FINISH + DONE) + LAST_CHUNK)

    upstream = await net.upstream(model)
    (folder / "gai-fast.toml").write_text(
        f'[[upstream]]\nname = "up"\nprovider = "openai-compatible"\nbase_url = "{upstream.url}/v1"\n'
        '[[model]]\nname = "m"\nupstream = "up"\n[store]\nsync = "before_send"\n'
    )
    arguments = ("--port", "0", "--store", url)
    async with serving(net, folder, *arguments) as second:
        for number in range(1, 4):
            async with serving(net, folder, *arguments) as first:
                servers.append(first)
                reply = await get(first.host, "/api/v1/streams", BODY)
                stream_id = json.loads(reply.partition(b"\r\n\r\n")[2])["id"]
                await first.ended()
            got = frames(await get(second.host, f"/api/v1/streams/{stream_id}"))
            assert said(got) == "Hello"
            assert asked == 2 * number
