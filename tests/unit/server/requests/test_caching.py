"""`gai_fast/server/requests/caching.py`: which requests ask for shared answers, and the header of their answers."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gai_fast.model.errors import Error
from gai_fast.model.settings import CacheSettings, ModelSettings, Settings, UpstreamSettings
from gai_fast.net.engine.engine import Engine
from gai_fast.server.requests.caching import cache_header, shared_answer, wants_shared_answer
from tests.unit.server.incoming_requests import http, incoming

PLAIN = ModelSettings("m", UpstreamSettings("up", "openai", ""), "gpt")
CACHED = ModelSettings("m", UpstreamSettings("up", "openai", ""), "gpt", cache=True)


def request(**headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return incoming(http("POST", "/api/v1/stream", {"host": "127.0.0.1", **named}))


def test_the_header_wins_over_the_model() -> None:
    assert [wants_shared_answer(request(), model) for model in (PLAIN, CACHED)] == [False, True]
    for value, asking in (("on", True), ("off", False)):
        assert [wants_shared_answer(request(x_gai_cache=value), model) for model in (PLAIN, CACHED)] == [asking, asking]


@pytest.mark.parametrize("value", ["", "On", "true", "hit", "on, off", "on "])
def test_other_values_are_refused(value: str) -> None:
    with pytest.raises(Error, match="x-gai-cache must be one of: on, off") as refused:
        wants_shared_answer(request(x_gai_cache=value), PLAIN)
    assert (refused.value.status, refused.value.reason) == (400, "cache")


async def test_without_a_time_to_live_nothing_is_shared() -> None:
    loop = asyncio.get_running_loop()
    off, on = Engine(Settings(), loop), Engine(Settings(cache=CacheSettings(ttl=1.0)), loop)
    assert shared_answer(off, "anna") is None
    assert off.answers is None
    assert shared_answer(on, "anna") is not None
    assert on.answers is not None
    for engine in (off, on):
        await engine.close()


async def test_a_client_is_reported_where_its_answer_comes_from() -> None:
    engine = Engine(Settings(), asyncio.get_running_loop())
    seen: list[tuple[str, str]] = []
    for sharing in (None, SimpleNamespace(role="joined"), SimpleNamespace(role="hit")):
        seen += cache_header(engine, cast(Any, sharing))
    assert seen == [("x-gai-cache", "miss"), ("x-gai-cache", "joined"), ("x-gai-cache", "hit")]
    assert engine.tallies.cache_requests == {"hit": 1, "joined": 1, "miss": 1}
    await engine.close()
