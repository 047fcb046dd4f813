"""Runs whose worker is killed: what their tools get, and what their clients see of the worker that goes on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gai_fast.net.runs.records.records import RUNS
from gai_fast.stores.backend import Records
from gai_fast.stores.sealed import SealedBackend
from gai_fast.stores.seals import Seals
from tests.integration.gateway import QUERY, Net, Peer
from tests.integration.processes import Server, serving
from tests.integration.stores.conftest import MakeBackend
from tests.integration.stores.sealing import sealed_with
from tests.integration.stores.test_serve import AS_STATE, frames, get, streaming
from tests.integration.stores.test_serve import folder as folder
from tests.integration.tool_runs import Model
from tests.waiting import until_answered

Events = list[tuple[str, dict[str, Any]]]
BODY = json.dumps({**QUERY, "model": "m", "resumable": True}).encode()
STORES = {
    "batched": "",
    "before_send": '[store]\nsync = "before_send"\n',
    "sealed": '[store.encryption]\nkeys = ["file:seal"]\n',
}
UNKNOWN = "the outcome of this call is unknown"


class Till:
    """A tool on HTTP that keeps a journal of its calls. The first ones wait until a test lets them go.

    Args:
        held: How many calls wait.
        said: Its answer. None means the number of the call.
    """

    def __init__(self, held: int = 0, said: bytes | None = None) -> None:
        self.journal: list[dict[str, str]] = []
        self._held = held
        self._said = said

    async def handle(self, peer: Peer) -> None:
        while True:
            head, body = await self._request(peer)
            self.journal.append({**head, "arguments": body})
            said = await self.answer()
            size = b"content-length: %d\r\n" % len(said)
            await peer.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n" + size + b"\r\n" + said)

    async def answer(self) -> bytes:
        """Returns the answer of the last call."""
        if len(self.journal) <= self._held:
            await asyncio.sleep(60)
        return self._said or b'{"paid": %d}' % len(self.journal)

    async def _request(self, peer: Peer) -> tuple[dict[str, str], str]:
        head = (await peer.reader.readuntil(b"\r\n\r\n")).decode()
        lines = [line.split(": ", 1) for line in head.split("\r\n")[1:] if line]
        fields = {name.lower(): value for name, value in lines}
        return fields, (await peer.reader.readexactly(int(fields["content-length"]))).decode()


def configured(folder: Path, model: str, till: str, *, more: str = "", of_tool: str = "") -> None:
    (folder / "seal").write_text("AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=")
    schema = '{type = "object", properties = {city = {type = "string"}}, required = ["city"]}'
    (folder / "gai-fast.toml").write_text(
        f'[[upstream]]\nname = "up"\nprovider = "openai-compatible"\nbase_url = "{model}/v1"\n'
        f'[[tool]]\nname = "pay"\ndescription = "Pays"\nparameters = {schema}\nurl = "{till}/pay"\n{of_tool}\n'
        f'[[model]]\nname = "m"\nupstream = "up"\ntools = ["*"]\n{more}'
    )


def events_of(events: Events, kind: str) -> list[dict[str, Any]]:
    return [event for _, event in events if event["type"] == kind]


def text_of(events: Events) -> str:
    """Returns the text of a run: a step that is reset has none."""
    steps: dict[int, str] = {}
    step = 0
    for _, event in events:
        if event["type"] in ("step.start", "step.reset"):
            step = event["step"]
            steps[step] = ""
        elif event["type"] == "text.delta":
            steps[step] += event["text"]
    return "".join(steps.values())


async def is_known(server: Server, stream_id: str, least: int = 1) -> bool:
    """Returns whether the store has so many events of a stream."""
    answer = await server.ask("GET", f"/api/v1/streams/{stream_id}", headers=AS_STATE)
    last = answer.json["last_event_id"] if answer.status == 200 else None
    return last is not None and int(last.rpartition(".")[2]) >= least


async def has_state(records: Records, stream_id: str) -> bool:
    """Returns whether the store has a state of a run: a call that may be made again does not wait for it."""
    head = await records.get(RUNS, stream_id)
    return head is not None and msgspec.msgpack.decode(head)[1] > 0  # its version


class Scene:
    """Two servers over one store, before a model and a till."""

    def __init__(self, net: Net, folder: Path, url: str, till: Till, model: Model) -> None:
        self.net, self.folder, self.url, self.till, self.model = net, folder, url, till, model

    async def run(self, is_time: Callable[[Server, str], Awaitable[bool]], more: str = "", of_tool: str = "") -> Events:
        """Returns what a client gets of the second server, once the first one was killed."""
        upstream = await self.net.upstream(self.model.handle)
        till = await self.net.upstream(self.till.handle)
        configured(self.folder, upstream.url, till.url, more=more, of_tool=of_tool)
        arguments = ("--port", "0", "--store", self.url)
        async with (
            serving(self.net, self.folder, *arguments) as first,
            serving(self.net, self.folder, *arguments) as second,
        ):
            async with streaming(first.host, BODY, until=b".1\n") as (stream_id, _, _):
                await until_answered(partial(is_time, second, stream_id))
                first.process.kill()
                await first.ended()
            got = frames(await get(second.host, f"/api/v1/streams/{stream_id}"))
            assert frames(await get(second.host, f"/api/v1/streams/{stream_id}")) == got
        return got


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("is_idempotent", [False, True])
async def test_a_call_that_was_sent_is_not_sent_again_unless_it_may_be(
    net: Net, folder: Path, url: str, make_backend: MakeBackend, store: str, is_idempotent: bool
) -> None:
    till = Till(held=1)
    scene = Scene(net, folder, url, till, Model(["Wait. ", ("pay", {"city": "Oslo"})], ["Done."]))
    inner = make_backend()
    backend = SealedBackend(inner, Seals(sealed_with(0))) if store == "sealed" else inner
    await backend.open()

    async def is_called(server: Server, stream_id: str) -> bool:
        return len(till.journal) == 1 and await is_known(server, stream_id) and await has_state(backend, stream_id)

    of_tool = "idempotent = true" if is_idempotent else ""
    got = await scene.run(is_called, STORES[store], of_tool)
    [result] = events_of(got, "tool.result")
    if is_idempotent:
        assert [call["x-gai-attempt"] for call in till.journal] == ["1", "2"]
        assert len({call["idempotency-key"] for call in till.journal}) == 1
        assert (result["tool_result"], result["attempt"]) == ({"paid": 2}, 2)
    else:
        assert len(till.journal) == 1
        assert (result["tool_result"], result["is_error"]) == (UNKNOWN, True)
    assert text_of(got) == "Wait. Done."
    assert [event["finish_reason"] for event in events_of(got, "finish")] == ["stop"]
    assert events_of(got, "step.reset") == []
    assert len(scene.model.asked) == 2
    assert len(events_of(got, "finish")[0]["steps"]) == 2
    assert events_of(got, "finish")[0]["usage"]["total_tokens"] == 30


@pytest.mark.parametrize("store", STORES)
async def test_a_cut_turn_is_asked_again_and_the_calls_before_it_are_not_made_again(
    net: Net, folder: Path, url: str, store: str
) -> None:
    till, is_cut = Till(), asyncio.Event()

    async def wait(peer: Peer) -> None:
        if len(model.asked) == 2:
            is_cut.set()
            await asyncio.sleep(60)

    model = Model(["One. ", ("pay", {"city": "Oslo"})], ["Two", wait, ", three."])
    scene = Scene(net, folder, url, till, model)

    async def is_stored(server: Server, stream_id: str) -> bool:
        return is_cut.is_set() and await is_known(server, stream_id, 10)

    got = await scene.run(is_stored, STORES[store])
    assert len(till.journal) == 1
    assert [event["step"] for event in events_of(got, "step.reset")] == [2]
    assert events_of(got, "step.reset")[0]["reason"] == "worker_lost"
    kinds = [event["type"] for _, event in got]
    assert kinds.index("stream.gap") < kinds.index("warning") < kinds.index("step.reset")
    assert text_of(got) == "One. Two, three."
    assert len(events_of(got, "tool.result")) == 1
    assert model.results() == ['{"paid":1}']


@pytest.mark.parametrize("store", STORES)
async def test_a_first_turn_that_is_cut_is_asked_again(net: Net, folder: Path, url: str, store: str) -> None:
    till, is_cut = Till(), asyncio.Event()

    async def wait(peer: Peer) -> None:
        if len(model.asked) == 1:
            is_cut.set()
            await asyncio.sleep(60)

    model = Model(["One", wait, ". ", ("pay", {"city": "Oslo"})], ["Two."])

    async def is_seen(server: Server, stream_id: str) -> bool:
        return is_cut.is_set() and await is_known(server, stream_id)

    got = await Scene(net, folder, url, till, model).run(is_seen, STORES[store])
    assert len(till.journal) == 1
    assert text_of(got) == "One. Two."
    assert len(model.asked) == 3


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("ends", ["killed", "stopped"])
@pytest.mark.parametrize("is_late", [False, True])
async def test_an_approval_is_asked_on_and_decided_once(
    net: Net, folder: Path, url: str, store: str, ends: str, is_late: bool
) -> None:
    """It is decided before another worker has the run, or after that. A server that stops does not wait for it."""
    till, model = Till(), Model(["Wait. ", ("pay", {"city": "Oslo"})], ["Done."])
    upstream, tool = await net.upstream(model.handle), await net.upstream(till.handle)
    more = "[server]\ngrace = 600\n" if ends == "stopped" else ""
    configured(folder, upstream.url, tool.url, more=more + STORES[store], of_tool="approve = true")
    arguments = ("--port", "0", "--store", url)
    async with serving(net, folder, *arguments) as first, serving(net, folder, *arguments) as second:
        async with streaming(first.host, BODY, until=b"approval.required") as (stream_id, early, rest):
            await until_answered(partial(is_known, second, stream_id, 7))
            if ends == "killed":
                first.process.kill()
            else:
                first.process.terminate()
            early += await rest.read()
            await first.ended()
        [required] = events_of(frames(early), "approval.required")
        asked = required["approval"]
        path = f"/api/v1/streams/{stream_id}"
        follower = asyncio.create_task(get(second.host, path))
        if is_late:
            await until_answered(partial(is_known, second, stream_id, 1 << 20))
        else:
            follower.cancel()
        decision = {"decision": "approve", "digest": asked["digest"]}
        answer = await second.ask("POST", f"{path}/approvals/{asked['id']}", decision)
        assert (answer.status, answer.json["decision"]) == (200, "approve")
        again = await second.ask("POST", f"{path}/approvals/{asked['id']}", decision)
        assert again.status == 409
        got = frames(await (follower if is_late else get(second.host, path)))
    assert len(till.journal) == 1
    assert text_of(got) == "Wait. Done."
    assert [event["approval"]["id"] for event in events_of(got, "approval.required")] == [asked["id"]]
    assert [event["approval"]["decision"] for event in events_of(got, "approval.decided")] == ["approve"]
    assert events_of(got, "tool.result")[0]["tool_result"] == {"paid": 1}
    assert len(model.asked) == 2


GUARD = '[[guard]]\nname = "birds"\nuse = "words"\nwords = ["kestrel"]\non = ["tool_input", "tool_result"]\n'


@pytest.mark.parametrize("is_idempotent", [False, True])
async def test_a_call_whose_arguments_guards_have_changed_is_not_sent_again(
    net: Net, folder: Path, url: str, make_backend: MakeBackend, is_idempotent: bool
) -> None:
    till = Till(held=1)
    scene = Scene(net, folder, url, till, Model(["Wait. ", ("pay", {"city": "kestrel"})], ["Done."]))
    backend = make_backend()
    await backend.open()

    async def is_called(server: Server, stream_id: str) -> bool:
        return len(till.journal) == 1 and await is_known(server, stream_id) and await has_state(backend, stream_id)

    got = await scene.run(is_called, GUARD, "idempotent = true" if is_idempotent else "")
    [result] = events_of(got, "tool.result")
    assert {call["arguments"] for call in till.journal} == {'{"city":"[words]"}'}
    assert len(till.journal) == 1 + is_idempotent
    assert len({call["idempotency-key"] for call in till.journal}) == 1
    assert result["tool_result"] == ({"paid": 2} if is_idempotent else UNKNOWN)
    assert text_of(got) == "Wait. Done."


async def test_a_result_is_used_as_guards_have_let_it_through(net: Net, folder: Path, url: str) -> None:
    model = Model(["Wait. ", ("pay", {"city": "Oslo"})], ["", "Done."])

    async def hold(peer: Peer) -> None:
        if len(model.asked) == 2:  # of the first worker
            await asyncio.sleep(60)

    model.turns[1][0] = hold
    till = Till(said=b'{"kestrel": "a kestrel"}')

    async def is_asked(server: Server, stream_id: str) -> bool:
        return len(model.asked) == 2 and await is_known(server, stream_id, 7)

    got = await Scene(net, folder, url, till, model).run(is_asked, GUARD)
    [result] = events_of(got, "tool.result")
    assert result["tool_result"] == {"[words]": "a [words]"}
    assert model.results(1) == model.results(2) == ['{"[words]":"a [words]"}']
    assert len(till.journal) == 1
    assert not [each for each in folder.rglob("*") if each.is_file() and b"a kestrel" in each.read_bytes()]
    assert text_of(got) == "Wait. Done."
