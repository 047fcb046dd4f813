"""Who follows a run over its waits: WebSockets, `EventSource`, gai-fast.js, `connect`, a program with a gateway."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import gai_fast
from gai_fast.net.engine.engine import Engine
from tests.faults.proxy import FaultProxy, Faults
from tests.integration.gateway import Client, Gateway, M, Net, Response, on_both_loops, on_uvloop
from tests.integration.javascript import TRANSPORTS, begin, command
from tests.integration.javascript import node as node
from tests.integration.test_run_approvals import last, made, pay
from tests.integration.test_run_approvals import nothing_is_made as nothing_is_made
from tests.integration.tool_runs import Model, function_tool, gateway_of
from tests.integration.websocket import Socket, connect
from tests.legal import check_legal
from tests.waiting import until, until_answered

RUN = ["start", "step.start", "text.delta", "tool.call.start", "tool.call.delta", "tool.call", "approval.required"]
TEXT = "Shall I? More? Done."
QUESTION = {"query": "q", "model": "m"}


def asks_twice() -> Model:
    return Model(["Shall I? ", ("pay", {"euros": 7})], ["More? ", ("pay", {"euros": 8})], ["Done."])


async def asking(net: Net) -> Gateway:
    """Returns a gateway whose runs wait twice."""
    return await gateway_of(net, asks_twice(), function_tool(pay, approve=True))


async def parked(engine: Engine, number: int = 1) -> str:
    """Returns the stream of the run that waits for the approval of this number."""

    async def waits() -> bool:
        assert engine.run_tools is not None
        listed = await engine.run_tools.desk.records.listed()
        return bool(waiting(engine)) and f"{waiting(engine)[0]}-{number}" in listed

    await until_answered(waits)
    return waiting(engine)[0]


def waiting(engine: Engine) -> list[str]:
    """Returns the streams of runs that wait without a session."""
    return [*engine.waiting._runs]


async def decide(gateway: Gateway, number: int, decision: str = "approve") -> str:
    """Decides about the call of this number, once its run waits. Returns the stream."""
    stream_id = await parked(gateway.running.engine, number)
    approval_id = f"{stream_id}-{number}"
    assert gateway.running.engine.run_tools is not None
    found = await gateway.running.engine.run_tools.desk.records.asked(approval_id)
    assert found is not None
    body = {"decision": decision, "digest": found[0].digest}
    assert (await gateway.ask("POST", f"/api/v1/streams/{stream_id}/approvals/{approval_id}", body)).status == 200
    return stream_id


def check_run(events: list[dict[str, Any]]) -> None:
    """The events of a run that has waited twice: each came once."""
    check_legal(events)
    assert [event["seq"] for event in events if event["type"] != "done"] == [*range(1, len(events))]
    kinds = [event["type"] for event in events]
    assert kinds[: len(RUN)] == RUN
    assert (kinds.count("approval.required"), kinds.count("tool.result"), kinds[-1]) == (2, 2, "done")
    assert not {"stream.gap", "stream.reset", "step.reset", "error", "warning"} & {*kinds}
    assert "".join(event["text"] for event in events if event["type"] == "text.delta") == TEXT
    assert last(events, "finish")["finish_reason"] == "stop"
    assert last(events, "finish")["usage"]["total_tokens"] == 45
    assert made == [7, 8]


class Followed:
    """A response to `GET /api/v1/streams/{id}`, as an `EventSource` asks for it."""

    def __init__(self, client: Client) -> None:
        self.client = client

    @classmethod
    async def of(cls, gateway: Gateway, stream_id: str, after: int | None = None, query: str = "") -> Followed:
        client = await gateway.connect()
        headers = {} if after is None else {"last-event-id": f"{stream_id}.{after}"}
        client.request(
            "GET",
            f"/api/v1/streams/{stream_id}?envelope=compact{query}",
            None,
            {"accept": "text/event-stream", **headers},
        )
        return cls(client)

    async def rest(self) -> Response:
        """Returns the whole response. Its head may come with the next event."""
        response = await self.client.response()
        await response.rest()
        return response


@on_both_loops
async def test_event_sources_get_exactly_the_rest_of_a_run_over_its_waits(net: Net) -> None:
    """They come as it waits: from the beginning, from within, and from the last event that there is."""
    gateway = await asking(net)
    client, first = await gateway.stream(M)
    stream_id = await parked(gateway.running.engine)
    last_seq = len(RUN)
    followed = [await Followed.of(gateway, stream_id, after) for after in (None, 3, last_seq)]
    lines = await Followed.of(gateway, stream_id, query="&framing=ndjson")
    await decide(gateway, 1)
    await parked(gateway.running.engine, 2)
    late = await Followed.of(gateway, stream_id, last_seq + 2)
    await decide(gateway, 2)
    await first.rest()
    check_run(first.events)
    for each, after in zip((*followed, late, lines), (0, 3, last_seq, last_seq + 2, 0), strict=True):
        assert (await each.rest()).events == first.events[after:]
    again = await Followed.of(gateway, stream_id, last(first.events, "finish")["seq"])
    assert (await again.rest()).status == 204
    client.close()


@pytest.mark.parametrize("is_resumable", [False, True])
@on_both_loops
async def test_sockets_follow_a_run_over_its_waits(net: Net, is_resumable: bool) -> None:
    """One has begun it, another one comes as it waits; other streams of theirs go on meanwhile."""
    gateway = await asking(net)
    socket = await connect(gateway)
    socket.ask("a", **M, **({"resumable": True} if is_resumable else {}))
    await socket.until(stream="a", type="approval.required")
    stream_id = await parked(gateway.running.engine)
    other = await connect(gateway)
    other.send(stream="b", type="resume", after=f"{stream_id}.2")
    socket.send(type="ping")
    assert await socket.read() == {"type": "pong"}
    await decide(gateway, 1)
    await socket.until(stream="a", type="approval.required", step=2)
    await decide(gateway, 2)
    await socket.until_done("a")
    await other.until_done("b")
    events = without_stream(socket, "a")
    check_run(events)
    assert without_stream(other, "b") == events[2:]


def without_stream(socket: Socket, stream: str) -> list[dict[str, Any]]:
    return [{name: each for name, each in event.items() if name not in ("stream", "id")} for event in socket.of(stream)]


@on_uvloop
async def test_a_socket_cancels_a_run_that_waits(net: Net) -> None:
    gateway = await asking(net)
    socket = await connect(gateway)
    socket.ask("a", **M)
    await parked(gateway.running.engine)
    socket.send(stream="a", type="cancel")
    await socket.until_done("a")
    finish = last(socket.of("a"), "finish")
    assert (finish["finish_reason"], len(finish["steps"])) == ("cancelled", 1)
    await until(lambda: not waiting(gateway.running.engine))


@pytest.mark.parametrize("transport", TRANSPORTS)
@on_uvloop
async def test_gai_fast_js_follows_a_run_over_its_waits(net: Net, transport: str) -> None:
    """Its connection ends as the run waits for the second time."""
    gateway = await asking(net)
    async with FaultProxy(gateway.url, Faults()) as proxy:
        driver = await begin(command(proxy.url, request=QUESTION, transport=transport))
        await decide(gateway, 1)
        await parked(gateway.running.engine, 2)
        proxy.cut()
        await until(lambda: proxy.connections == 2)
        await decide(gateway, 2)
        [loop] = await driver.end()
    assert loop.thrown is None
    check_run(loop.events)


@pytest.mark.parametrize("is_cut", [False, True])
@on_both_loops
async def test_a_client_in_python_follows_a_run_over_its_waits(net: Net, is_cut: bool) -> None:
    gateway = await asking(net)
    events = []
    async with (
        FaultProxy(gateway.url, Faults()) as proxy,
        gai_fast.connect(proxy.url) as there,
        there.stream(QUESTION) as stream,
    ):
        async for event in stream:
            events.append(event)
            if event["type"] == "approval.required":
                number = int(event["approval"]["id"].rpartition("-")[2])
                assert await parked(gateway.running.engine, number) == stream.id
                if is_cut:
                    proxy.cut()
                await stream.decide(event["approval"]["id"], "approve", event["approval"]["digest"])
        result = await stream.result()
    check_run([{**event} for event in events])
    assert (result.text, len(result.messages)) == (TEXT, 5)


@on_both_loops
async def test_a_client_in_python_that_leaves_a_waiting_run_cancels_it(net: Net) -> None:
    gateway = await asking(net)
    async with gai_fast.connect(gateway.url) as there:
        async with there.stream(QUESTION) as stream:
            async for event in stream:
                if event["type"] == "approval.required":
                    await parked(gateway.running.engine)
                    break
        followed = await gateway.ask("GET", f"/api/v1/streams/{stream.id}")
    assert last(followed.events, "finish")["finish_reason"] == "cancelled"
    assert not waiting(gateway.running.engine)


@pytest.mark.parametrize("is_resumable", [False, True])
@on_both_loops
async def test_a_program_follows_a_run_of_its_gateway_over_its_waits(net: Net, is_resumable: bool) -> None:
    settings = (await asking(net)).running.engine.settings
    events = []
    async with (
        gai_fast.Gateway(settings) as here,
        here.stream({**QUESTION, "resumable": is_resumable}) as stream,
    ):
        async for event in stream:
            events.append({**event})
            if event["type"] == "approval.required":
                if is_resumable:
                    await parked(here.engine(), int(event["approval"]["id"].rpartition("-")[2]))
                await stream.decide(event["approval"]["id"], "approve", event["approval"]["digest"])
        result = await stream.result()
        assert (here.engine().streams, waiting(here.engine())) == ({}, [])
    if is_resumable:
        check_run(events)
    assert (result.text, len(result.messages), made) == (TEXT, 5, [7, 8])
    assert result.usage is not None
    assert result.usage["total_tokens"] == 45
    assert result.metrics, "those of its last part"


@on_both_loops
async def test_a_program_that_leaves_a_waiting_run_finds_it_again(net: Net) -> None:
    settings = (await asking(net)).running.engine.settings
    async with gai_fast.Gateway(settings) as here:
        async with here.stream({**QUESTION, "resumable": True}) as stream:
            async for event in stream:
                if event["type"] == "approval.required":
                    break
        await parked(here.engine())
        async with here.follow(stream.id) as followed:
            reading = asyncio.create_task(read(followed))
            await stream.decide(event["approval"]["id"], "approve", event["approval"]["digest"])
            await parked(here.engine(), 2)
            here.engine().cancel(stream.id)
            events = await reading
    assert last(events, "finish")["finish_reason"] == "cancelled"
    assert len(last(events, "finish")["steps"]) == 2


async def read(stream: Any) -> list[dict[str, Any]]:
    return [{**event} async for event in stream]
