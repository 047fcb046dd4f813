"""`gai_fast/server/service.py`: an engine with all that a server keeps beside it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gai_fast.model.settings import KeyLimits, KeySettings, LimitSettings, Settings
from gai_fast.net.engine.engine import Engine
from gai_fast.server.admission.server_limits import ServerLimits
from gai_fast.server.service import new_service, service_over

SETTINGS = Settings(keys=(KeySettings("ann", (), limits=KeyLimits(streams=1)),))


async def test_a_service_of_its_own_begins_and_closes_its_engine() -> None:
    service = new_service(SETTINGS)
    await service.begin()
    assert service.engine.ledger.try_take(SETTINGS.keys[0], "a")
    assert service.metrics in service.engine.sinks
    await service.close()


async def test_a_service_over_another_engine_leaves_it_as_it_was() -> None:
    engine = Engine(SETTINGS, asyncio.get_running_loop())
    await engine.begin()
    before = [*engine.sinks]
    service = service_over(engine, ServerLimits(LimitSettings()))
    assert engine.limits is not None
    assert len(engine.sinks) > len(before)
    service.detach()
    assert (engine.limits, engine.sinks) == (None, before)
    await engine.close()


async def test_a_reload_is_for_new_requests() -> None:
    service = new_service(SETTINGS)
    await service.begin()
    service.use(Settings())
    assert service.engine.settings.keys == ()
    await service.close()


async def test_sockets_forget_responses_before_slow_clients_are_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    watched: list[Any] = []
    monkeypatch.setattr("gai_fast.server.service.watch_memory", lambda *given: watched.append(given[2]))
    service = new_service(SETTINGS)
    service.sockets = cast(Any, SimpleNamespace(forget=lambda size: 300))
    cut: list[int] = []
    service.watch_memory(lambda size: cut.append(size) or 2)
    [free] = watched
    assert [free(1_000), free(200), cut] == [2, 2, [700, 0]]
    await service.close()
