"""Admissions that wait: a request that one limit refuses counts for no other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from gai_fast.ledger import NO_DEMAND, LocalLedger
from gai_fast.model.errors import Error
from gai_fast.model.settings import KeyLimits, KeySettings, LimitSettings, Settings
from gai_fast.net.engine.engine import Engine
from gai_fast.server.admission.asking import AdmissionPlace, admit, take_places
from gai_fast.server.admission.server_limits import ServerLimits

KEY = KeySettings("ann", (), limits=KeyLimits(streams=1))


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    engine = Engine(Settings(), asyncio.get_running_loop())
    engine.limits = ServerLimits(LimitSettings(streams=1), LocalLedger(time.monotonic), 2)
    yield engine
    await engine.close()


async def test_a_request_is_admitted_by_its_key_and_by_the_server(engine: Engine) -> None:
    await admit(engine, KEY, "ann", "a", NO_DEMAND)
    with pytest.raises(Error) as refused:
        await admit(engine, KEY, "ann", "b", NO_DEMAND)
    assert (refused.value.status, refused.value.reason) == (429, "streams")


async def test_a_request_that_the_server_refuses_does_not_count_for_its_key(engine: Engine) -> None:
    await admit(engine, None, "anonymous", "a", NO_DEMAND)
    for _ in range(2):
        with pytest.raises(Error) as refused:
            await admit(engine, KEY, "ann", "b", NO_DEMAND)
        assert (refused.value.status, refused.value.reason) == (503, "streams")
    engine.cancel_admission("a", "anonymous")
    await admit(engine, KEY, "ann", "b", NO_DEMAND)


async def test_all_of_several_places_are_taken_or_none() -> None:
    ledger = LocalLedger(time.monotonic)
    given_back: list[bool] = []
    places = [AdmissionPlace(KEY, place, lambda: Error("overloaded", "no place")) for place in "ab"]
    with pytest.raises(Error, match="no place"):
        await take_places(ledger, places, lambda: given_back.append(True))
    assert given_back == [True]
    ledger.settle("a", 0)
    await take_places(ledger, places[:1], lambda: given_back.append(True))
    assert given_back == [True]
