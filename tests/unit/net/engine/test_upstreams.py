"""Which connections a request gets, and which of its settings they are made of."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from gai_fast.model.errors import Error
from gai_fast.model.settings import ModelSettings, Secret, UpstreamSettings
from gai_fast.net.engine.upstreams import Upstreams
from gai_fast.providers import UpstreamRequest, get_provider
from gai_fast.runtime.timers import TimerWheel
from tests.conftest import ChangeLimits
from tests.unit.net.conftest import Recorder
from tests.unit.net.fakes import FakePool
from tests.waiting import until

UPSTREAM = UpstreamSettings(
    "up", "openai-compatible", "http://127.0.0.1:9/v1", Secret("sk-canary"), max_connections=7, idle_timeout=5.5
)
DEMO = UpstreamSettings("demo", "demo", "")


@pytest.fixture
async def upstreams(pools: list[FakePool]) -> Upstreams:
    loop = asyncio.get_running_loop()
    return Upstreams(TimerWheel(loop), loop)


def send(upstreams: Upstreams, upstream: UpstreamSettings, number: int = 1, *, is_unique: bool = False) -> Recorder:
    """Sends a request; returns its receiver."""
    receiver = Recorder()
    request = UpstreamRequest("/chat", b"{}", [("Authorization", "Bearer sk-canary")])
    request.is_unique = is_unique
    model = ModelSettings("m", upstream, "real-id")
    upstreams.send(get_provider(upstream.provider), model, request, receiver, "s1", number, "sk-canary", (), "alice")
    return receiver


async def test_a_request_is_sent_over_connections_of_its_upstreams_settings(
    upstreams: Upstreams, pools: list[FakePool]
) -> None:
    receiver = send(upstreams, UPSTREAM)
    assert pools[0].asked == [("POST", "/chat", [("Authorization", "Bearer sk-canary")], b"{}", receiver, "alice")]
    assert pools[0].peer == UPSTREAM.peer
    assert (pools[0].peer.url, pools[0].peer.idle_timeout) == (UPSTREAM.base_url, 5.5)
    assert pools[0].options["max_connections"] == 7
    assert pools[0].options["timers"] is upstreams._timers


async def test_requests_to_an_upstream_share_a_pool(upstreams: Upstreams, pools: list[FakePool]) -> None:
    for upstream in (UPSTREAM, dataclasses.replace(UPSTREAM), dataclasses.replace(UPSTREAM, name="other")):
        send(upstreams, upstream)
    assert [len(pool.asked) for pool in pools] == [2, 1]
    assert [upstreams.last_pool(name) for name in ("up", "other", "third")] == [*pools, None]


async def test_configured_headers_replace_the_providers_own(upstreams: Upstreams, pools: list[FakePool]) -> None:
    send(upstreams, dataclasses.replace(UPSTREAM, headers={"authorization": "Other", "X-More": "1"}))
    assert pools[0].asked[0][2] == [("authorization", "Other"), ("X-More", "1")]


async def test_the_head_of_a_request_that_no_other_repeats_is_not_cached(
    upstreams: Upstreams, pools: list[FakePool]
) -> None:
    """Signed and traced requests took the places of heads that are repeated."""
    send(upstreams, UPSTREAM, is_unique=True)
    assert (len(pools[0].asked), pools[0].asked_once) == (1, 1)
    send(upstreams, UPSTREAM)
    assert (len(pools[0].asked), pools[0].asked_once) == (2, 1)


async def test_a_file_of_tls_that_is_gone_fails_the_requests_and_no_reload(upstreams: Upstreams) -> None:
    """A reload stopped in the middle, with the callers of before; a request had an internal error."""
    upstream = dataclasses.replace(UPSTREAM, base_url="https://127.0.0.1:9/v1", ca_file="/none/ca.pem", retries=0)
    upstreams.use({"up": upstream}, 100)
    assert upstreams.configured == {"up": upstream}
    with pytest.raises(Error) as caught:
        send(upstreams, upstream)
    error = caught.value
    assert (error.code, error.reason, error.phase) == ("network", "tls", "connect")
    assert error.message == "the file that `ca_file` of upstream 'up' names cannot be used any more"


async def test_a_configuration_opens_the_connections_that_it_keeps_ready(
    upstreams: Upstreams, pools: list[FakePool]
) -> None:
    upstreams.use({"up": UPSTREAM, "ready": dataclasses.replace(UPSTREAM, name="ready", min_idle=2)}, 100)
    assert [(pool.options["min_idle"], pool.is_ready) for pool in pools] == [(2, True)]


async def test_a_pool_of_a_former_configuration_ends_once_it_is_empty(
    upstreams: Upstreams, pools: list[FakePool]
) -> None:
    moved = dataclasses.replace(UPSTREAM, base_url="http://127.0.0.2:9/v1")
    send(upstreams, UPSTREAM)
    pools[0].stats = dataclasses.replace(pools[0].stats, open=1)
    upstreams.use({"up": moved}, 100)
    assert (pools[0].keeps_idle, pools[0].is_closed) == (False, False)
    assert upstreams.last_pool("up") is None
    send(upstreams, moved)
    assert upstreams.connections() == {"up": 1}
    pools[0].stats = dataclasses.replace(pools[0].stats, open=0)
    pools[1].stats = dataclasses.replace(pools[1].stats, open=2)
    upstreams.use({"up": moved}, 100)
    assert [(pool.keeps_idle, pool.is_closed) for pool in pools] == [(False, True), (True, False)]
    assert upstreams.connections() == {"up": 2}


async def test_a_pool_of_a_former_configuration_that_was_busy_ends_without_another_reload(
    upstreams: Upstreams, pools: list[FakePool], change_limits: ChangeLimits
) -> None:
    """It was kept until the next reload, as was a connection that a stream of the former configuration opened later."""
    change_limits(pool_idle=0.05)
    moved = dataclasses.replace(UPSTREAM, base_url="http://127.0.0.2:9/v1")
    send(upstreams, UPSTREAM)
    pools[0].stats = dataclasses.replace(pools[0].stats, open=1)
    upstreams.use({"up": moved}, 100)
    send(upstreams, moved)
    pools[0].stats = dataclasses.replace(pools[0].stats, open=0)
    await until(lambda: pools[0].is_closed)
    send(upstreams, UPSTREAM)
    assert not pools[2].keeps_idle
    await until(lambda: pools[2].is_closed)
    assert not pools[1].is_closed
    await upstreams.close()


async def test_the_demo_is_a_recording_and_opens_nothing(upstreams: Upstreams, pools: list[FakePool]) -> None:
    receiver = send(upstreams, DEMO)
    await until(lambda: receiver.pieces)
    assert (receiver.status, pools) == (200, [])


async def test_each_attempt_is_recorded_in_a_file_of_its_own(
    upstreams: Upstreams, pools: list[FakePool], tmp_path: Path
) -> None:
    upstreams.record = tmp_path
    for number in (1, 2):
        send(upstreams, UPSTREAM, number)
    for asked in pools[0].asked:
        asked[4].head_received(200, {})
        asked[4].exchange_ended(None)
    files = {file.name: json.loads(file.read_bytes().splitlines()[0]) for file in tmp_path.iterdir()}
    about: dict[str, Any] = {"provider": UPSTREAM.provider, "model": "real-id", "upstream": "up", "stream_id": "s1"}
    assert files.keys() == {"s1.ndjson", "s1.2.ndjson"}
    assert all(first.items() >= about.items() for first in files.values())


async def test_closing_closes_every_pool(upstreams: Upstreams, pools: list[FakePool]) -> None:
    send(upstreams, UPSTREAM)
    send(upstreams, dataclasses.replace(UPSTREAM, name="other"))
    await upstreams.close()
    assert [pool.is_closed for pool in pools] == [True, True]
