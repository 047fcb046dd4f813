"""The routes that start streams: when a GET may, and when it goes on with one."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest

from gai_fast.model.errors import Error
from gai_fast.model.settings import ModelSettings, ServerSettings, Settings, StreamSettings, UpstreamSettings
from gai_fast.net.engine.engine import Engine
from gai_fast.server.requests.incoming import Incoming
from gai_fast.server.requests.kinds.stream_routes import StreamRoutes
from gai_fast.server.requests.passage import Passage
from tests.unit.server.incoming_requests import http, incoming

UPSTREAM = UpstreamSettings("up", "openai-compatible", "http://127.0.0.1:9/v1")
MODEL = ModelSettings("m", UPSTREAM, "x", StreamSettings(client_buffer=1000, write_timeout=7))
SETTINGS = Settings(upstreams={"up": UPSTREAM}, models={"m": MODEL})
STREAM = "AbCdEfGhIjKlMnOpQrStUv"


def routes(**server: Any) -> StreamRoutes:
    settings = dataclasses.replace(SETTINGS, server=ServerSettings(**server))
    return StreamRoutes(Engine(settings, asyncio.get_running_loop()))


def get(query: str = "", tail: str = "", **headers: str) -> Incoming:
    names = {"host": "127.0.0.1", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return incoming(http("GET", f"/?{query}", names), tail)


def refusal(table: StreamRoutes, incoming: Incoming) -> tuple[int, str | None]:
    with pytest.raises(Error) as caught:
        passage = table.event_source(incoming)
        assert isinstance(passage, Passage)
        passage.read()
    return caught.value.status, caught.value.reason


async def test_a_get_starts_a_stream_only_where_that_is_allowed() -> None:
    assert refusal(routes(), get("q=hi")) == (403, "get_start")
    table = routes(allow_get_start=True)
    assert refusal(table, get("q=hi", origin="http://evil.example")) == (403, "origin")
    assert refusal(table, get("q=hi", sec_fetch_site="cross-site")) == (403, "origin")
    assert refusal(table, get()) == (400, "query")
    assert refusal(table, get("q=")) == (400, "query")
    assert refusal(table, get("q=hi&model=nobody")) == (404, "model")


async def test_an_event_source_that_comes_back_never_starts_a_stream() -> None:
    table = routes(allow_get_start=True)
    for last in ("abc.3", "", f"{STREAM}.x", f"{STREAM}.1 "):
        assert refusal(table, get("q=hi", last_event_id=last)) == (400, "last_event_id")
    assert refusal(table, get("q=hi", last_event_id=f"{STREAM}.3", origin="http://evil.example")) == (403, "origin")
    assert not table._home.engine.streams
