"""Runs with whole answers whose worker is killed: calls are made once, and the answer is that of the whole run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.integration.gateway import QUERY, Net, Peer, Response
from tests.integration.processes import Server, serving
from tests.integration.stores.test_run_takeover import GUARD, STORES, UNKNOWN, Till, configured
from tests.integration.stores.test_serve import AS_STATE
from tests.integration.stores.test_serve import folder as folder
from tests.integration.stores.test_waiting_elsewhere import GRACE, has_left
from tests.integration.tool_runs import Model
from tests.waiting import until_answered

OWN = [{"type": "mcp", "server_label": "gateway"}]
CHAT = {"model": "m", "messages": [{"role": "user", "content": "Pay"}]}
ROUTES: dict[str, tuple[str, dict[str, Any]]] = {
    "native": ("/api/v1/stream", {**QUERY, "model": "m", "stream": False}),
    "chat": ("/v1/chat/completions", CHAT),
    "messages": ("/v1/messages", {**CHAT, "max_tokens": 100}),
    "responses": ("/v1/responses", {"model": "m", "input": "Pay", "tools": OWN, "store": False}),
    "kept": ("/v1/responses", {"model": "m", "input": "Pay", "tools": OWN, "store": True}),
}
OTHERWISE = {"id", "request_id", "created", "created_at", "completed_at", "metrics", "duration_ms", "response_id"}
"""The members in which two equal answers differ."""
Times = Callable[[], Awaitable[bool]]


class Pair:
    """Two servers over one store, before a model and a till. The first one ends amid a request with a key."""

    def __init__(self, net: Net, folder: Path, url: str, till: Till, model: Model, route: str = "native") -> None:
        self.net, self.folder, self.url, self.till, self.model = net, folder, url, till, model
        self.path, self.body = ROUTES[route]

    async def ask(self, server: Server, key: str = "once") -> Response:
        return await server.ask("POST", self.path, self.body, {"idempotency-key": key})

    @asynccontextmanager
    async def left(
        self, is_time: Times, more: str = "", of_tool: str = "", *, ends: str = "kill"
    ) -> AsyncIterator[tuple[Server, bytes]]:
        """Yields the second server, once the first one has ended, and what its client got."""
        upstream = await self.net.upstream(self.model.handle)
        till = await self.net.upstream(self.till.handle)
        configured(self.folder, upstream.url, till.url, more=more, of_tool=of_tool)
        arguments = ("--port", "0", "--store", self.url)
        async with (
            serving(self.net, self.folder, *arguments) as first,
            serving(self.net, self.folder, *arguments) as second,
        ):
            client = await first.connect()
            client.request("POST", self.path, self.body, {"idempotency-key": "once"})
            await until_answered(is_time)
            getattr(first.process, ends)()
            got = await client.reader.read()
            await first.ended()
            client.close()
            yield second, got

    async def answered(self, is_time: Times, more: str = "", of_tool: str = "") -> Response:
        """Returns what the second server answers to the same request, each time."""
        async with self.left(is_time, more, of_tool) as (second, _):
            answer = await self.ask(second)
            assert (await self.ask(second)).body == answer.body
        assert answer.status == 200
        return answer


async def kept_soon() -> None:
    """Waits until the store has what was written to it."""
    await asyncio.sleep(0.2)


def without_ids(answer: Any) -> Any:
    if isinstance(answer, list):
        return [without_ids(each) for each in answer]
    if not isinstance(answer, dict):
        return answer
    return {name: without_ids(value) for name, value in answer.items() if name not in OTHERWISE}


def result_in(answer: Response) -> Any:
    [result] = [event for event in answer.json["events"] if event["type"] == "tool.result"]
    return result


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("is_idempotent", [False, True])
async def test_a_call_that_was_sent_is_not_sent_again_unless_it_may_be(
    net: Net, folder: Path, url: str, store: str, is_idempotent: bool
) -> None:
    till, model = Till(held=1), Model(["Wait. ", ("pay", {"city": "Oslo"})], ["Done."])

    async def is_called() -> bool:
        await kept_soon()
        return len(till.journal) == 1

    of_tool = "idempotent = true" if is_idempotent else ""
    answer = await Pair(net, folder, url, till, model).answered(is_called, STORES[store], of_tool)
    assert [call["x-gai-attempt"] for call in till.journal] == ["1", "2"][: 1 + is_idempotent]
    assert len({call["idempotency-key"] for call in till.journal}) == 1
    result = result_in(answer)
    assert result["tool_result"] == ({"paid": 2} if is_idempotent else UNKNOWN)
    assert [message["role"] for message in answer.json["messages"]] == ["assistant", "tool", "assistant"]
    assert answer.json["messages"][1].get("is_error", False) is not is_idempotent
    assert answer.json["text"] == "Wait. Done."
    assert answer.json["usage"]["total_tokens"] == 30
    assert len(model.asked) == 2


@pytest.mark.parametrize("route", ROUTES)
async def test_the_answer_is_that_of_a_run_that_nobody_has_killed(net: Net, folder: Path, url: str, route: str) -> None:
    """It is killed in its second turn, behind a call and a half."""
    till, is_cut = Till(said=b'{"paid": 1.10}'), asyncio.Event()

    async def wait(peer: Peer) -> None:
        if len(model.asked) == 2:
            is_cut.set()
            await asyncio.sleep(60)

    model = Model(["One. ", ("pay", {"city": "Oslo"}), ("none", {})], ["Two", wait, ", three."])
    pair = Pair(net, folder, url, till, model, route)

    async def is_time() -> bool:
        await kept_soon()
        return is_cut.is_set()

    async with pair.left(is_time) as (second, _):
        answer = await pair.ask(second)
        assert len(till.journal) == 1
        assert len(model.asked) == 3
        if route == "kept":
            kept = await second.ask("GET", f"/v1/responses/{answer.json['id']}")
            assert kept.json == answer.json
        other = await pair.ask(second, "another")
    assert (answer.status, other.status) == (200, 200)
    assert b"One. " in answer.body
    assert b"Two, three." in answer.body
    assert without_ids(answer.json) == without_ids(other.json)
    assert len(till.journal) == 2


async def test_a_first_turn_that_is_cut_is_asked_again(net: Net, folder: Path, url: str) -> None:
    till, is_cut = Till(), asyncio.Event()

    async def wait(peer: Peer) -> None:
        if len(model.asked) == 1:
            is_cut.set()
            await asyncio.sleep(60)

    model = Model(["One", wait, ". ", ("pay", {"city": "Oslo"})], ["Two."])

    async def is_time() -> bool:
        await kept_soon()
        return is_cut.is_set()

    answer = await Pair(net, folder, url, till, model).answered(is_time)
    assert answer.json["text"] == "One. Two."
    assert len(till.journal) == 1
    assert len(model.asked) == 3


async def test_what_guards_have_changed_stays_so(net: Net, folder: Path, url: str) -> None:
    guard = GUARD.replace('"tool_input"', '"output", "tool_input"')
    till, is_cut = Till(said=b'{"kestrel": "a kestrel"}'), asyncio.Event()

    async def wait(peer: Peer) -> None:
        if len(model.asked) == 2:
            is_cut.set()
            await asyncio.sleep(60)

    model = Model(["A kestrel. ", ("pay", {"city": "kestrel"})], [wait, "Done."])

    async def is_time() -> bool:
        await kept_soon()
        return is_cut.is_set()

    answer = await Pair(net, folder, url, till, model).answered(is_time, guard)
    assert b"kestrel" not in answer.body
    assert answer.json["text"] == "A [words]. Done."
    assert len(till.journal) == 1
    [asked] = [message for message in model.asked[-1]["messages"] if message["role"] == "assistant"]
    assert asked["content"] == "A kestrel. ", "the model gets its own words"


async def test_a_key_is_not_free_once_calls_were_made(net: Net, folder: Path, url: str) -> None:
    """Nobody may go on with the run: the store has no requests."""
    till, model = Till(held=1), Model(["Wait. ", ("pay", {"city": "Oslo"})], ["Done."])

    async def is_called() -> bool:
        await kept_soon()
        return len(till.journal) == 1

    pair = Pair(net, folder, url, till, model)
    async with pair.left(is_called, "[store]\ntakeover = false\n") as (second, _):
        for _ in range(2):
            answer = await pair.ask(second)
            assert answer.json["error"]["reason"] == "worker_lost"
    assert len(till.journal) == 1


async def test_a_deploy_ends_no_run(net: Net, folder: Path, url: str) -> None:
    """The client, who cannot follow, is told to come again."""
    till, is_cut = Till(), asyncio.Event()

    async def wait(peer: Peer) -> None:
        if len(model.asked) == 2:
            is_cut.set()
            await asyncio.sleep(60)

    model = Model(["One. ", ("pay", {"city": "Oslo"})], ["Two", wait, "."])

    async def is_time() -> bool:
        await kept_soon()
        return is_cut.is_set()

    pair = Pair(net, folder, url, till, model)
    async with pair.left(is_time, "[server]\ngrace = 0.5\n", ends="terminate") as (second, got):
        assert b" 503 " in got.splitlines()[0]
        assert b'"reason":"draining"' in got
        answer = await pair.ask(second)
    assert answer.json["text"] == "One. Two."
    assert len(till.journal) == 1
    assert len(model.asked) == 3


@pytest.mark.parametrize("ends", ["", "kill", "terminate"])
async def test_a_whole_answer_waits_for_a_person(net: Net, folder: Path, url: str, ends: str) -> None:
    """Without a session. A deploy does not wait for it: its client is told to come again."""
    till, model = Till(), Model(["Wait. ", ("pay", {"city": "Oslo"})], ["Done."])
    pair = Pair(net, folder, url, till, model)
    pair.body = {**pair.body, "approvals": "ask"}
    upstream, tool = await net.upstream(model.handle), await net.upstream(till.handle)
    configured(folder, upstream.url, tool.url, more=GRACE, of_tool="approve = true")
    async with (
        serving(net, folder, "--port", "0", "--store", url) as first,
        serving(net, folder, "--port", "0", "--store", url) as second,
    ):
        asking = asyncio.create_task(pair.ask(first))

        async def listed() -> Any:
            return (await second.ask("GET", "/admin/v1/approvals")).json["data"]

        await until_answered(listed)
        [asked] = await listed()
        await until_answered(partial(has_left, first))
        state = await first.ask("GET", f"/api/v1/streams/{asked['stream_id']}", headers=AS_STATE)
        assert state.json["state"] == "waiting"
        if ends:
            getattr(first.process, ends)()
            await first.ended()
        if ends == "kill":
            asking.cancel()
        elif ends:
            refused = await asking
            assert (refused.status, refused.error["reason"]) == (503, "draining")
        path = f"/api/v1/streams/{asked['stream_id']}/approvals/{asked['id']}"
        decided = await second.ask("POST", path, {"decision": "approve", "digest": asked["digest"]})
        assert (decided.status, decided.json["decision"]) == (200, "approve")
        answer = await (pair.ask(second) if ends else asking)
        assert await listed() == []
    assert answer.json["text"] == "Wait. Done."
    assert [event["type"] for event in answer.json["events"]] == [
        "approval.required",
        "approval.decided",
        "tool.result",
    ]
    assert result_in(answer)["tool_result"] == {"paid": 1}
    assert len(till.journal) == 1
    assert len(model.asked) == 2
