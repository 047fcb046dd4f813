"""The handlers of the admin API; tests/integration/test_admin.py asks a whole server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from gai_fast.ledger import SpendEntry
from gai_fast.model.errors import Error
from gai_fast.model.settings import (
    KeyLimits,
    KeySettings,
    ModelSettings,
    Settings,
    SpendLimit,
    TargetSettings,
    UpstreamSettings,
    key_digest,
)
from gai_fast.net.engine.engine import Engine
from gai_fast.server.admin.bodies import Target, plain
from gai_fast.server.admin.last_hour import LastHour
from gai_fast.server.admin.recent_requests import RequestFilter
from gai_fast.server.admin.routes import AdminRoutes
from gai_fast.server.admin.running_streams import RunningSums
from gai_fast.server.admin.targets import read_target
from gai_fast.server.admin.watch import WatchedEvents
from gai_fast.server.admission.run_time_keys import RunTimeKeys
from gai_fast.server.http.replies import Reply
from gai_fast.server.http.transport import ClientTransport
from gai_fast.server.observe.metrics import PrometheusSink
from gai_fast.server.observe.scrape import Scrapes
from gai_fast.server.requests.incoming import Incoming
from gai_fast.stores.backend import StoreError
from tests.limits import LIMITS
from tests.unit.server import incoming_requests

KEY = KeySettings(
    "alice",
    (key_digest("sk-alice"),),
    models=("fast-*",),
    role="admin",
    expires=datetime(2030, 1, 2, tzinfo=UTC),
    limits=KeyLimits(requests_per_minute=20, spend=SpendLimit(2_500_000_000_000, "day")),
)


class Client(ClientTransport):
    """A client's transport: its whole answer."""

    remote = "192.0.2.1"
    is_paused = False

    def __init__(self) -> None:
        self.reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

    def begin_stream(self, stream: Any, high_water: int, write_timeout: float) -> None:
        """Nothing is called back."""

    def write(self, data: bytes) -> None:
        raise AssertionError

    def send(self, reply: Reply) -> None:
        self.reply.set_result(reply)


THEIRS = dict.fromkeys(("id", "key", "model", "upstream", "endpoint", "transport", "request_id"), "theirs") | {
    "started_at": "1",
    "duration_ms": 1.5,
    "ttft_ms": None,
    "deltas": 7,
    "state": "waiting",
}


class Others:
    """Other workers."""

    def __init__(self) -> None:
        self.cancelled: list[str] = []
        self.drained: list[tuple[Target, bool]] = []
        self.reports = 0

    async def all_streams(self) -> Sequence[Mapping[str, Any]]:
        return [{"total": 1, "deltas": 7, "bytes": 70, "data": [THEIRS]}]

    async def all_requests(self, wanted: RequestFilter) -> Sequence[list[dict[str, Any]]]:
        return [[{"key": "theirs", "ended_at": "1"}]]

    async def all_slots(self) -> Sequence[list[dict[str, Any]]]:
        return [LastHour(PrometheusSink([]), lambda: RunningSums(5, 0, 0)).slots()]

    async def report_spend(self) -> None:
        self.reports += 1

    async def all_targets(self) -> Sequence[Sequence[Mapping[str, Any]]]:
        return []

    async def set_drained(self, target: Target, *, is_drained: bool) -> None:
        self.drained.append((target, is_drained))

    async def watch(self, stream_id: str, after: int) -> WatchedEvents | None:
        return WatchedEvents(after + 1, b"event: done\ndata: {}\n\n", is_over=True) if stream_id == "theirs" else None

    async def cancel_any(self, stream_id: str) -> bool:
        self.cancelled.append(stream_id)
        return stream_id == "theirs"


@pytest.fixture
async def admin() -> AsyncIterator[AdminRoutes]:
    engine = Engine(Settings(keys=(KEY,)), asyncio.get_running_loop())
    metrics = PrometheusSink([])
    yield AdminRoutes(
        engine,
        metrics,
        Scrapes(metrics, high_water=1, write_timeout=1.0),
        RunTimeKeys(engine.store.keys, engine.settings),
    )
    await engine.close()


def request(client: Client, tail: str = "") -> Incoming:
    return incoming_requests.incoming(incoming_requests.http("GET", "/", client=client), tail)


async def answer(handler: Any, tail: str = "") -> tuple[int, Any]:
    client = Client()
    handler(request(client, tail))
    reply = await client.reply
    return reply.status, json.loads(reply.body)


async def test_the_streams_of_all_workers_are_listed(admin: AdminRoutes) -> None:
    assert await answer(admin.streams) == (200, {"total": 0, "data": []})
    admin.others = Others()
    assert await answer(admin.streams) == (200, {"total": 1, "data": [THEIRS]})


async def test_the_last_hour_is_that_of_all_workers(admin: AdminRoutes) -> None:
    status, alone = await answer(admin.history)
    assert (status, alone["seconds"], [row["active"] for row in alone["data"]]) == (200, LIMITS.history_slot, [0])
    admin.others = Others()
    assert (await answer(admin.history))[1]["data"][-1]["active"] == 5


async def test_a_stream_is_cancelled_wherever_it_runs(admin: AdminRoutes) -> None:
    assert (await answer(admin.cancel, "unknown"))[0] == 404
    admin.others = others = Others()
    assert await answer(admin.cancel, "theirs") == (202, {"id": "theirs", "state": "cancelled"})
    status, body = await answer(admin.cancel, "unknown")
    assert (status, body["error"]["reason"]) == (404, "stream")
    assert others.cancelled == ["theirs", "unknown"]


async def test_keys_are_shown_without_their_secrets(admin: AdminRoutes) -> None:
    client = Client()
    admin.keys.list_all(request(client))
    reply = await client.reply
    assert json.loads(reply.body)["data"] == [
        {
            "name": "alice",
            "role": "admin",
            "models": ["fast-*"],
            "expires": "2030-01-02T00:00:00+00:00",
            "limits": {
                "requests_per_minute": 20,
                "tokens_per_minute": None,
                "streams": None,
                "spend": {"amount": 2.5, "period": "day"},
            },
            "spent": 0.0,
            "spent_period": "day",
            "lane": [],
            "tools": [],
            "source": "file",
            "created": None,
            "grace_until": None,
        }
    ]
    assert key_digest("sk-alice").hex().encode() not in reply.body


async def test_spend_is_reported_as_json_and_as_csv(admin: AdminRoutes) -> None:
    admin._engine.ledger.charge(SpendEntry("alice", "m", "up", "2026-11-22", "USD", 6_600_000_000, requests=2))
    status, body = await answer(admin.spend)
    row = {"key": "alice", "amount": 0.0066, "currency": "USD", "requests": 2}
    assert (status, body) == (200, {"data": [row], "prices_date": None})
    client = Client()
    admin.spend(
        incoming_requests.incoming(incoming_requests.http("GET", "/admin/v1/spend?by=day&format=csv", client=client))
    )
    reply = await client.reply
    assert dict(reply.headers)["content-type"] == "text/csv; charset=utf-8"
    assert reply.body == b"day,amount,currency,requests\r\n2026-11-22,0.0066,USD,2\r\n"
    with pytest.raises(Error):
        admin.spend(
            incoming_requests.incoming(incoming_requests.http("GET", "/admin/v1/spend?by=planet", client=client))
        )


async def test_other_workers_report_before_their_spend_is_reported(admin: AdminRoutes) -> None:
    others = admin.others = Others()
    for number, handler in enumerate((admin.spend, admin.keys.list_all), 1):
        assert (await answer(handler))[0] == 200
        assert others.reports == number


async def test_spend_that_the_store_does_not_give_is_an_error_and_the_keys_are_listed(admin: AdminRoutes) -> None:
    async def fail(*_: Any) -> Any:
        raise StoreError("unreachable", "out of reach")

    ledger: Any = SimpleNamespace(spend=fail, spent=fail, close=admin._engine.ledger.close)
    admin._engine.ledger = ledger
    status, body = await answer(admin.spend)
    assert (status, body["error"]["reason"]) == (503, "store")
    status, body = await answer(admin.keys.list_all)
    assert (status, [each["spent"] for each in body["data"]]) == (200, [None] * len(admin._settings.keys))
    assert body["data"], "there are keys"


async def test_a_bug_of_the_ledger_is_one_error_for_all_keys(
    admin: AdminRoutes, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: Any) -> Any:
        raise RuntimeError("a bug")

    ledger: Any = SimpleNamespace(spent=fail, close=admin._engine.ledger.close)
    admin._engine.ledger = ledger
    assert (await answer(admin.keys.list_all))[0] == 500
    assert "could not be handled" in caplog.text


async def test_a_target_that_a_reload_removes_while_it_is_drained_is_unknown(admin: AdminRoutes) -> None:
    """The answer was a 500."""
    upstream = UpstreamSettings("up", "openai", "http://up.test/v1")
    model = ModelSettings("m", upstream, "gpt", targets=(TargetSettings(upstream, "gpt"),))
    admin._engine.use(Settings(upstreams={"up": upstream}, models={"m": model}))

    class Reloading(Others):
        async def set_drained(self, target: Target, *, is_drained: bool) -> None:
            admin._engine.use(Settings())

    admin.others = Reloading()
    client = Client()
    body = b'{"model":"m","upstream":"up","id":"gpt"}'
    headers = {**incoming_requests.LOOPBACK, "content-type": "application/json"}
    admin.drain(
        incoming_requests.incoming(
            incoming_requests.http("POST", "/admin/v1/targets/drain", headers, body=body, client=client)
        )
    )
    reply = await client.reply
    assert (reply.status, json.loads(reply.body)["error"]["reason"]) == (404, "target")


async def test_a_reload_is_answered_with_its_changes_or_its_problem(admin: AdminRoutes) -> None:
    status, body = await answer(admin.reload_configuration)
    assert (status, body["error"]["reason"]) == (400, "reload"), "nobody here loads configurations"
    report = {"problem": "", "changes": [{"section": "limits", "name": None, "change": "changed"}], "needs_restart": []}

    async def reload() -> Mapping[str, Any]:
        return report

    admin.reload = reload
    expected = {"changes": report["changes"], "needs_restart": []}
    assert await answer(admin.reload_configuration) == (200, expected)
    report["problem"] = "gai-fast.toml:3: unknown key"
    status, body = await answer(admin.reload_configuration)
    assert (status, body["error"]["code"], body["error"]["reason"]) == (400, "invalid_request", "reload")
    assert "gai-fast.toml:3: unknown key" in body["error"]["message"]


async def test_a_stream_that_nobody_runs_cannot_be_followed(admin: AdminRoutes) -> None:
    for tail in ("none", "", "..", "%00", "x" * 5000, "<b>"):
        assert (await answer(admin.follow, tail))[0] == 404
    admin.others = Others()
    assert (await answer(admin.follow, "none"))[0] == 404


async def test_a_server_that_drains_shows_no_stream(admin: AdminRoutes) -> None:
    admin.begin_drain()
    with pytest.raises(Error) as caught:
        admin.follow(request(Client(), "any"))
    assert (caught.value.status, caught.value.reason) == (503, "draining")


async def test_samples_have_the_spend_of_the_day(admin: AdminRoutes) -> None:
    assert plain(await admin.sample())["spend"]["keys"] == []


async def test_samples_say_what_the_last_configuration_has_changed(admin: AdminRoutes) -> None:
    assert plain(await admin.sample())["configuration"] is None
    ended: list[bool] = []
    admin.feed.end_all = lambda: ended.append(True)
    admin.use(Settings())
    assert ended == [True]
    configuration = plain(await admin.sample())["configuration"]
    assert configuration["changes"] == [{"section": "key", "name": "alice", "change": "removed"}]
    assert configuration["at"].endswith("Z")


async def test_the_counts_of_a_sample_are_those_of_all_workers(admin: AdminRoutes) -> None:
    gathered = PrometheusSink([])
    gathered.errors["not_found", "", ""] = 3

    async def gather() -> PrometheusSink:
        return gathered

    admin._scrapes.gather = gather
    assert plain(await admin.sample())["errors"] == [
        {"code": "not_found", "provider": "", "upstream": "", "side": "client", "count": 3}
    ]


async def test_a_target_is_drained_and_restored_in_all_workers(admin: AdminRoutes) -> None:
    upstreams = {name: UpstreamSettings(name, "openai", f"http://{name}.test/v1") for name in ("east", "west")}
    targets = tuple(TargetSettings(each, "gpt") for each in upstreams.values())
    model = ModelSettings("m", upstreams["east"], "gpt", targets=targets)
    admin._engine.use(Settings(upstreams=upstreams, models={"m": model}))
    admin.others = others = Others()

    async def ask(handler: Any, body: bytes) -> tuple[int, Any]:
        client = Client()
        http = incoming_requests.http(
            "POST", "/", {**incoming_requests.LOOPBACK, "content-type": "application/json"}, client=client
        )
        http.body, http.action = body, ("targets.drain", "")
        handler(incoming_requests.incoming(http))
        reply = await client.reply
        assert http.action[1] == "m west gpt" or reply.status == 404
        return reply.status, json.loads(reply.body)

    west = b'{"model":"m","upstream":"west","id":"gpt"}'
    place = {"model": "m", "upstream": "west", "id": "gpt", "streams": 0}
    assert await ask(admin.drain, west) == (200, {**place, "state": "drained"})
    status, rows = await answer(admin.targets)
    assert (status, [each["state"] for each in rows]) == (200, ["ready", "drained"])
    assert (await ask(admin.restore, west))[0] == 200
    assert others.drained == [(read_target(west), True), (read_target(west), False)]
    status, body = await ask(admin.drain, b'{"model":"m","upstream":"north","id":"gpt"}')
    assert (status, body["error"]["reason"]) == (404, "target")
    assert len(others.drained) == 2


async def test_an_error_of_another_worker_is_the_answer(admin: AdminRoutes) -> None:
    async def fail() -> list[Any]:
        raise Error("overloaded", "gone", reason="workers")

    admin.others = SimpleNamespace(all_streams=fail)
    assert (await answer(admin.streams))[0] == 503
