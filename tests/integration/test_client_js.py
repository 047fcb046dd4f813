"""gai-fast.js in Node: every transport, connections that are cut, servers that end, loops that are left."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from gai_fast.cli.mock.command import Fault
from gai_fast.model.settings import KeySettings, StoreSettings, key_digest
from gai_fast.server.serving import start
from tests.faults.proxy import FaultProxy, Faults
from tests.integration.gateway import (
    DONE,
    FINISH,
    LAST_CHUNK,
    QUERY,
    SSE_HEAD,
    Gateway,
    Net,
    Peer,
    delta,
    on_both_loops,
    on_uvloop,
    settings_for,
)
from tests.integration.javascript import MODULE, NODE, TRANSPORTS, Loop, begin, command, node, run, run_each
from tests.ports import free_port
from tests.waiting import SECONDS, until
from tests.wire import chunk

KEY = "sk-canary-alice-012345"
WORDS = 200
__all__ = ["node"]


def check_whole(driver: Loop, words: int) -> None:
    """Every event came once, and the last is the end."""
    assert driver.thrown is None
    assert driver.types == ["start", *["text.delta"] * words, "finish", "done"]
    assert [event["seq"] for event in driver.events[:-1]] == [*range(1, words + 3)]
    assert driver.events[-1] == {"type": "done", "finished": True}


async def story(peer: Peer) -> None:
    """Many words, some of them awkward, over a while."""
    await peer.request()
    await peer.send(SSE_HEAD)
    for number in range(WORDS):
        await peer.send(chunk(delta(f'w"{number}\n é👩‍🚀 ')))
        await asyncio.sleep(0.001)
    await peer.send(chunk(FINISH + DONE) + LAST_CHUNK)


STORY = "".join(f'w"{number}\n é👩‍🚀 ' for number in range(WORDS))


async def endless(peer: Peer) -> None:
    await peer.request()
    await peer.send(SSE_HEAD)
    while True:
        await peer.send(chunk(delta("on and ")))
        await asyncio.sleep(0.01)


@on_both_loops
async def test_every_transport_gives_the_same_events(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=8))
    changing = {"ts", "request_id", "stream_id", "provider_metadata"}
    seen = []
    for loop in await run_each(*(command(gateway.url, transport=transport) for transport in TRANSPORTS)):
        check_whole(loop, 8)
        seen.append([{name: each for name, each in event.items() if name not in changing} for event in loop.events])
    assert seen[0] == seen[1] == seen[2]
    assert (await gateway.ask("GET", "/client.js")).body == MODULE.read_bytes()


@pytest.mark.parametrize("transport", TRANSPORTS)
@on_uvloop
async def test_a_stream_has_a_state_that_its_callback_and_its_events_name(net: Net, transport: str) -> None:
    gateway = await net.gateway(await net.upstream(story))
    async with FaultProxy(gateway.url, Faults(after=4000, then="reset"), times=1) as proxy:
        cut = await run(proxy.url, transport=transport)
    check_whole(cut, WORDS)
    assert cut.states == ["streaming", "reconnecting", "streaming", "ended"]
    whole, left, aborted = await run_each(
        command(gateway.url, transport=transport),
        command(gateway.url, transport=transport, leave="break", after=3),
        command(gateway.url, transport=transport, leave="abort", after=3),
    )
    for loop in (cut, whole, left, aborted):
        assert loop.heard == ["connecting", *loop.states]
    for loop in (whole, left, aborted):
        assert loop.states == ["streaming", "ended"]


@on_uvloop
async def test_a_server_that_was_never_there_is_not_called_lost(net: Net) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    for loop in await run_each(*(command(url, transport=transport, hurry=100) for transport in TRANSPORTS)):
        assert loop.error["message"] == (
            f"no server answers at {url}: check the address, that the server runs, and its cors_origins"
        )
        assert (loop.error["reason"], loop.error["phase"]) == ("closed", "connect")
        assert loop.states == ["ended"]


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("then", ["reset", "close"])
@on_uvloop
async def test_a_connection_that_is_cut_is_made_again_and_each_event_comes_once(
    net: Net, transport: str, then: Any
) -> None:
    upstream = await net.upstream(story)
    gateway = await net.gateway(upstream)
    async with FaultProxy(gateway.url, Faults(after=4000, then=then), times=3) as proxy:
        driver = await run(proxy.url, transport=transport)
        assert proxy.connections >= 4
    check_whole(driver, WORDS)
    assert driver.text == STORY
    assert len(upstream.peers) == 1, "the model was asked once"


@pytest.mark.parametrize("transport", TRANSPORTS)
@on_uvloop
async def test_a_program_cuts_its_connection_and_the_stream_goes_on_over_the_same_transport(
    net: Net, transport: str
) -> None:
    upstream = await net.upstream(story)
    gateway = await net.gateway(upstream)
    for after in (1, 3):
        driver = await run(gateway.url, transport=transport, leave="reconnect", after=after)
        check_whole(driver, WORDS)
        assert driver.states == ["streaming", "reconnecting", "streaming", "ended"]
    assert len(upstream.peers) == 2, "the model was asked once for each answer"


@on_uvloop
async def test_a_response_that_is_lost_before_its_first_event_does_not_ask_the_model_twice(net: Net) -> None:
    upstream = await net.upstream(story)
    gateway = await net.gateway(upstream)
    for number, transport in enumerate(("sse", "ws"), 1):
        async with FaultProxy(gateway.url, Faults(after=20), times=2) as proxy:
            driver = await run(proxy.url, transport=transport)
            assert proxy.connections >= 3
        check_whole(driver, WORDS)
        assert len(upstream.peers) == number


@on_both_loops
async def test_a_loop_that_is_left_cancels_the_answer(net: Net) -> None:
    upstream = await net.upstream(endless)
    gateway = await net.gateway(upstream)
    thrown = {"break": None, "throw": "Error: the consumer's own", "abort": "AbortError: This operation was aborted"}
    cases = [(leave, transport) for leave in thrown for transport in TRANSPORTS]
    commands = [command(gateway.url, transport=transport, leave=leave, after=3) for leave, transport in cases]
    for (leave, _), loop in zip(cases, await run_each(*commands), strict=True):
        assert loop.types == ["start", "text.delta", "text.delta"]
        assert loop.thrown == thrown[leave]
    await upstream.until_finished(len(cases))
    await until(lambda: not gateway.streams)


@on_uvloop
async def test_an_abort_before_the_first_event_cancels_the_answer_too(net: Net) -> None:
    async def silent(peer: Peer) -> None:
        await peer.request()
        await peer.until_gone()

    upstream = await net.upstream(silent)
    gateway = await net.gateway(upstream, commit_after=0.5)
    for number, transport in enumerate(("sse", "ws"), 1):
        driver = await begin(command(gateway.url, transport=transport, leave="abort early"))
        await until(lambda number=number: len(upstream.peers) == number and upstream.peers[-1].head)
        driver.tell()
        [loop] = await driver.end()
        assert (loop.types, loop.thrown) == ([], "AbortError: This operation was aborted")
        await upstream.until_finished(number)


@pytest.mark.parametrize("transport", TRANSPORTS)
@on_uvloop
async def test_a_return_while_the_next_event_is_waited_for_ends_the_stream_at_once(net: Net, transport: str) -> None:
    async def thinking(peer: Peer) -> None:
        await peer.request()
        await peer.send(SSE_HEAD, chunk(delta("first")))
        await peer.until_gone()

    upstream = await net.upstream(thinking)
    gateway = await net.gateway(upstream)
    loop = await run(gateway.url, transport=transport, leave="return", after=2)
    assert (loop.types, loop.thrown) == (["start", "text.delta"], None)
    assert loop.states == ["streaming", "ended"]
    await upstream.until_finished(1)
    await until(lambda: not gateway.streams)


@on_uvloop
async def test_refusals_and_failures_are_events(net: Net) -> None:
    mock = await net.mock(deltas=5)
    gateway = await net.gateway(mock, keys=(KeySettings("alice", (key_digest(KEY),)),))
    unknown = {"query": "x", "model": "none"}
    commands = []
    for transport in TRANSPORTS:
        commands.append(command(gateway.url, transport=transport, key="wrong-key-0123"))
        commands.append(command(gateway.url, transport=transport, key=KEY, request=unknown))
        commands.append(command(gateway.url, transport=transport, key=KEY))
    loops = await run_each(*commands)
    for wrong, refused, whole in zip(loops[::3], loops[1::3], loops[2::3], strict=True):
        assert (wrong.error["code"], wrong.error["status"]) == ("unauthorized", 401)
        assert refused.error["code"] == "not_found"
        check_whole(whole, 5)
    mock.fault = Fault("error-event", 2)
    for loop in await run_each(*(command(gateway.url, transport=transport, key=KEY) for transport in TRANSPORTS)):
        assert loop.types == ["start", "text.delta", "text.delta", "error", "done"]
        assert loop.events[-1] == {"type": "done", "finished": False}


@on_uvloop
async def test_a_server_that_cannot_be_reached_is_an_error_after_a_while(net: Net) -> None:
    async with FaultProxy("http://127.0.0.1:1", Faults(is_down=True)) as proxy:
        driver = await run(proxy.url)
        assert proxy.connections > 2
    assert (driver.error["code"], driver.error["reason"]) == ("network", "closed")


@on_uvloop
async def test_without_a_websocket_or_a_stream_of_bytes_the_next_transport_is_taken(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=8))
    check_whole(await run(gateway.url, transport="ws", hide=["WebSocket"]), 8)
    refusing = await net.gateway(await net.mock(deltas=8), keys=(KeySettings("alice", (key_digest(KEY),)),))
    check_whole(await run(refusing.url, transport="ws", key=KEY), 8)


@on_uvloop
async def test_a_stream_is_followed_by_its_id_and_leaving_it_ends_nothing(net: Net) -> None:
    upstream = await net.upstream(endless)
    gateway = await net.gateway(upstream)
    stream_id = (await gateway.ask("POST", "/api/v1/streams", QUERY)).json["id"]

    async def follow_over_each(**more: Any) -> list[Loop]:
        return await run_each(
            *(command(gateway.url, id=stream_id, transport=transport, **more) for transport in TRANSPORTS)
        )

    for loop in await follow_over_each(leave="break", after=5, seq=2):
        assert [event["seq"] for event in loop.events] == [3, 4, 5, 6, 7]
    assert gateway.streams == 1
    await gateway.ask("DELETE", f"/api/v1/streams/{stream_id}")
    for loop in await follow_over_each(seq=1):
        assert loop.types[-2:] == ["finish", "done"]
        end = loop.events[-2]["seq"]
    for loop in await follow_over_each(seq=end):
        assert loop.events == [{"type": "done", "finished": True}]
    assert (await run(gateway.url, id="AbCdEfGhIjKlMnOpQrStUv")).error["code"] == "not_found"


@pytest.mark.parametrize("transport", TRANSPORTS)
@on_uvloop
async def test_a_server_that_ends_hands_its_clients_to_its_successor(net: Net, tmp_path: Path, transport: str) -> None:
    """Both have the same store; the client comes back by itself, to the same address."""
    upstream = await net.upstream(endless)
    shared = StoreSettings(f"sqlite:///{tmp_path}/store.db")

    async def serve() -> Gateway:
        running = await start(dataclasses.replace(settings_for(upstream.url), store=shared))
        net.gateways.append(Gateway(net, running))
        net.stack.push_async_callback(running.close)
        return net.gateways[-1]

    first = await serve()
    async with FaultProxy(first.url) as proxy:
        driver = await begin(command(proxy.url, transport=transport, leave="announce", after=10))
        await driver.announced()
        second = await serve()
        proxy._upstream = "127.0.0.1", int(second.host.rpartition(":")[2])
        draining = asyncio.create_task(first.running.drain(0.0, asyncio.Event()))
        await draining
        await first.running.close()
        net.warned("draining")
        [ended] = await driver.end()
    assert ended.types[0] == "start"
    assert ended.types[-2:] == ["error", "done"], "the generation ended with its server"
    seqs = [event["seq"] for event in ended.events[:-1]]
    assert seqs == [*range(1, len(seqs) + 1)]


@on_uvloop
async def test_a_slow_loop_slows_the_server_and_loses_nothing(net: Net) -> None:
    gateway = await net.gateway(await net.upstream(story))
    driver = await run(gateway.url, slow=5)
    check_whole(driver, WORDS)
    await until(lambda: not gateway.streams)


WAITING = 5000
ALL_AT_ONCE = f"""
let longest = 0;
const {{ shift }} = Array.prototype;
Array.prototype.shift = function () {{
  longest = Math.max(longest, this.length);
  return shift.call(this);
}};
globalThis.WebSocket = class {{
  static OPEN = 1;
  readyState = 1;
  constructor() {{
    queueMicrotask(() => this.onopen());
  }}
  send(text) {{
    if (JSON.parse(text).type !== "request") return;
    const say = (event) => this.onmessage({{ data: JSON.stringify({{ stream: "s", ...event }}) }});
    for (let seq = 1; seq <= {WAITING}; seq++) say({{ type: "text.delta", seq, text: "a" }});
    say({{ type: "finish", seq: {WAITING + 1}, finish_reason: "stop" }});
    say({{ type: "done", finished: true }});
  }}
  close() {{}}
}};
const {{ stream }} = await import({json.dumps(MODULE.as_uri())});
const seqs = [];
for await (const event of stream("http://h", {{ query: "x" }}, {{ transport: "ws" }})) seqs.push(event.seq ?? "done");
console.log(JSON.stringify({{ seqs, longest }}));
"""


async def test_messages_that_wait_are_not_moved_for_each_that_is_taken() -> None:
    """With 200,000 of them that took 16 seconds."""
    process = await asyncio.create_subprocess_exec(
        str(NODE), "--input-type=module", "-e", ALL_AT_ONCE, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(SECONDS):
        out, _ = await process.communicate()
    assert json.loads(out) == {"seqs": [*range(1, WAITING + 2), "done"], "longest": 0}
