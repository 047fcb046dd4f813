"""Runs that wait while their key, their model or their tool is taken away: in one process, and behind a restart."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gai_fast.ledger import SpendEntry
from gai_fast.model.settings import KeySettings, Price, Settings, StoreSettings
from gai_fast.net.engine.takeover import TakeOvers
from gai_fast.net.runs.records.kept_calls import KeptCalls
from gai_fast.server.serving import start
from gai_fast.stores._base import data_lines
from tests.integration.gateway import Gateway, M, Net, settings_for
from tests.integration.test_run_approvals import KEYS, Run, last, made, pay
from tests.integration.test_run_approvals import nothing_is_made as nothing_is_made
from tests.integration.test_waiting_runs import AS_ADMIN, ENDS_AFTER_ONE, ONE, is_listed, told
from tests.integration.tool_runs import Model, function_tool, with_tools
from tests.waiting import until, until_answered

PLACES = pytest.mark.parametrize("place", ["memory", "file", "restart"])
"""Where a run waits: in the memory of a process, also with a copy in a file, or in the file alone."""
EXPIRED = datetime(2026, 1, 1, tzinfo=UTC)
Change = Callable[[Settings], Settings]


def other() -> str:
    """Does something else."""
    return "other"


@dataclass
class Scene:
    """A gateway whose run waits."""

    net: Net
    settings: Settings
    model: Model
    place: str
    gateway: Gateway
    run: Run

    @classmethod
    async def waiting(cls, net: Net, folder: Path, place: str, **of_key: Any) -> Scene:
        """Returns a run of a key of the store, which waits. A token costs a millionth if the key has a limit."""
        model = Model(["Shall I? ", ("pay", {"euros": 7})], ["Done."])
        upstream = await net.upstream(model.handle)
        price = Price(10**12, 10**12, 10**12, 10**12, 10**12) if of_key else None
        settings = with_tools(
            settings_for(upstream.url, price=price), function_tool(pay, approve=True), function_tool(other)
        )
        store = StoreSettings() if place == "memory" else StoreSettings(f"sqlite:///{folder / 'store.db'}")
        settings = replace(settings, keys=KEYS, key_defaults=KeySettings("", (), tools=("*",)), store=store)
        gateway = await served(net, settings)
        made = await gateway.ask("POST", "/admin/v1/keys", {"name": "shop", **of_key}, AS_ADMIN)
        run = await Run.begun(gateway, {**M, "resumable": True}, secret=made.json["secret"])
        await until(lambda: run.stream_id in gateway.running.engine.waiting)
        return cls(net, settings, model, place, gateway, run)

    async def change(self, change: Change) -> None:
        """Takes another configuration, by a reload or a restart."""
        self.settings = change(self.settings)
        if self.place == "restart":
            await self.restart()
        else:
            await self.gateway.running.renew(self.settings)

    async def restart(self) -> None:
        await self.gateway.running.close()
        self.net.gateways.remove(self.gateway)
        self.gateway = await served(self.net, self.settings)

    async def revoke(self) -> None:
        assert (await self.gateway.ask("DELETE", "/admin/v1/keys/shop", None, AS_ADMIN)).status == 200

    async def decide(self) -> int:
        """Lets an admin approve. Returns the status."""
        asked, stream_id = self.run.asked, self.run.stream_id
        body = {"decision": "approve", "digest": asked["digest"]}
        path = f"/api/v1/streams/{stream_id}/approvals/{asked['id']}"
        return (await self.gateway.ask("POST", path, body, AS_ADMIN)).status

    async def end(self) -> list[dict[str, Any]]:
        """Returns the events of the run once it has ended, and nothing is left of it."""
        log = await self.gateway.running.engine.store.find(self.run.stream_id)
        assert log is not None
        await until(lambda: log.is_over)
        await until(lambda: not self.gateway.streams and not self.gateway.running.engine.runs.waiting)
        await until_answered(partial(is_listed, self.gateway, 0))
        assert not self.gateway.running.engine.ledger._tickets
        pieces = log.read(0, 1 << 30).pieces
        return [json.loads(data) for piece in pieces for data in data_lines(piece)]


async def served(net: Net, settings: Settings) -> Gateway:
    gateway = Gateway(net, await start(settings))
    net.gateways.append(gateway)
    net.stack.push_async_callback(gateway.running.close)
    return gateway


@PLACES
async def test_spend_that_is_used_up_ends_a_run_behind_its_step(net: Net, tmp_path: Path, place: str) -> None:
    scene = await Scene.waiting(net, tmp_path, place, spend={"amount": 1, "period": "day"})
    ledger = scene.gateway.running.engine.ledger
    ledger.charge(SpendEntry("shop", "m", "u", datetime.now(UTC).date().isoformat(), "USD", 10**12))
    await ledger.report()
    if place == "restart":
        await scene.restart()
    assert await scene.decide() == 200
    events = await scene.end()
    assert [event["type"] for event in events][-4:] == ["tool.result", "step.end", "finish", "done"]
    finish = last(events, "finish")
    assert (finish["finish_reason"], finish["reason"]) == ("length", "spend")
    assert (finish["usage"]["total_tokens"], len(finish["steps"])) == (15, 1)
    assert (made, len(scene.model.asked)) == ([7], 1)


def without_model(settings: Settings) -> Settings:
    kept = {name: each for name, each in settings.models.items() if name != "m"}
    return replace(settings, models=kept, default_model="claude")


def without_tool(settings: Settings) -> Settings:
    return replace(settings, tools=tuple(tool for tool in settings.tools if tool.name != "pay"))


def without_tools(settings: Settings) -> Settings:
    models = {name: replace(each, tools=()) for name, each in settings.models.items()}
    return replace(settings, tools=(), models=models)


def with_key_of_file(settings: Settings) -> Settings:
    """The file has a key of this name now, which has expired."""
    return replace(settings, keys=(*KEYS, KeySettings("shop", (b"1" * 32,), expires=EXPIRED)))


@PLACES
async def test_a_key_that_is_revoked_cancels_a_waiting_run(net: Net, tmp_path: Path, place: str) -> None:
    scene = await Scene.waiting(net, tmp_path, place)
    if place == "restart":
        await scene.restart()
    await scene.revoke()
    assert await scene.decide() == 409
    finish = last(await scene.end(), "finish")
    assert (finish["finish_reason"], finish.get("reason")) == ("cancelled", "key_revoked")
    assert told(finish) == ENDS_AFTER_ONE
    assert (made, len(scene.model.asked)) == ([], 1)


@PLACES
@pytest.mark.parametrize("when", ["it is admitted", "its record is read"])
async def test_a_key_that_is_revoked_as_a_run_goes_on_cancels_it(
    net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, when: str
) -> None:
    scene = await Scene.waiting(net, tmp_path, place)
    if place == "restart":
        await scene.restart()
    amid, goes_on = stops_amid(monkeypatch, when)
    deciding = asyncio.create_task(scene.decide())
    await amid.wait()
    await scene.revoke()
    goes_on.set()
    assert await deciding == 200
    finish = last(await scene.end(), "finish")
    assert (finish["finish_reason"], finish.get("reason")) == ("cancelled", "key_revoked")
    assert told(finish) == ENDS_AFTER_ONE
    assert (made, len(scene.model.asked)) == ([], 1)


def stops_amid(monkeypatch: pytest.MonkeyPatch, when: str) -> tuple[asyncio.Event, asyncio.Event]:
    """Holds a run as it goes on. Returns what says so, and what lets it go."""
    amid, goes_on, admitted, read = asyncio.Event(), asyncio.Event(), TakeOvers._admitted, KeptCalls.go_on

    async def held(self: Any, *given: Any, **more: Any) -> Any:
        found = await (admitted if when == "it is admitted" else read)(self, *given, **more)
        amid.set()
        await goes_on.wait()
        return found

    place = (TakeOvers, "_admitted") if when == "it is admitted" else (KeptCalls, "go_on")
    monkeypatch.setattr(*place, held)
    return amid, goes_on


@PLACES
async def test_a_key_that_has_expired_since_does_not_end_a_waiting_run(net: Net, tmp_path: Path, place: str) -> None:
    """As a stream that runs: its key is asked about a request."""
    scene = await Scene.waiting(net, tmp_path, place)
    await scene.change(with_key_of_file)
    assert await scene.decide() == 200
    events = await scene.end()
    assert last(events, "finish")["finish_reason"] == "stop"
    assert made == [7]


@PLACES
async def test_a_waiting_run_whose_model_is_gone_ends_as_that_of_a_lost_worker(
    net: Net, tmp_path: Path, place: str
) -> None:
    scene = await Scene.waiting(net, tmp_path, place)
    await scene.change(without_model)
    assert await scene.decide() == 200
    events = await scene.end()
    error = last(events, "error")
    assert (error["error"]["code"], error["error"]["reason"]) == ("network", "worker_lost")
    assert error["usage"] == ONE
    assert "steps" not in error
    assert (made, len(scene.model.asked)) == ([], 1)


@PLACES
@pytest.mark.parametrize("change", [without_tool, without_tools])
async def test_a_waiting_call_whose_tool_is_gone_fails(net: Net, tmp_path: Path, place: str, change: Change) -> None:
    """Also if no tool is left."""
    scene = await Scene.waiting(net, tmp_path, place)
    await scene.change(change)
    assert await scene.decide() == 200
    events = await scene.end()
    result = last(events, "tool.result")
    assert result["is_error"] is True
    assert scene.model.results() == [result["tool_result"]]
    assert last(events, "finish")["finish_reason"] == "stop"
    assert made == []


@PLACES
@pytest.mark.parametrize("when", ["it is admitted", "its record is read"])
async def test_a_run_that_goes_on_already_keeps_its_model(
    net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, when: str
) -> None:
    scene = await Scene.waiting(net, tmp_path, place)
    if place == "restart":
        await scene.restart()
    amid, goes_on = stops_amid(monkeypatch, when)
    deciding = asyncio.create_task(scene.decide())
    await amid.wait()
    await scene.gateway.running.renew(without_model(scene.settings))
    goes_on.set()
    assert await deciding == 200
    assert last(await scene.end(), "finish")["finish_reason"] == "stop"
    assert made == [7]
