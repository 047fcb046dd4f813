"""The admin API of a running server, with one worker and with several."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gai_fast.cli.mock.command import Mock
from gai_fast.model.settings import KeySettings, key_digest
from tests.conftest import ChangeLimits
from tests.integration.gateway import (
    CHAT,
    END,
    MESSAGES,
    NATIVE,
    QUERY,
    SSE_HEAD,
    Net,
    Peer,
    Response,
    delta,
    on_both_loops,
    on_uvloop,
)
from tests.integration.processes import Server, configure, hold, serving
from tests.waiting import until, until_answered
from tests.wire import chunk


@on_both_loops
async def test_running_streams_are_shown_and_any_of_them_is_cancelled(net: Net) -> None:
    gateway = await net.gateway(await net.mock(rate=50, deltas=1000))
    client, response = await gateway.stream({**QUERY, "model": "m"})
    await response.until(b"text.delta")
    (row,) = (await gateway.ask("GET", "/admin/v1/streams")).json["data"]
    stream_id = response.headers["x-gai-stream-id"]
    assert (row["id"], row["key"], row["model"], row["upstream"]) == (stream_id, "anonymous", "m", "up")
    assert (row["endpoint"], row["state"]) == ("/api/v1/stream", "streaming")
    assert 0 < row["ttft_ms"] <= row["duration_ms"]
    cancelled = await gateway.ask("DELETE", f"/admin/v1/streams/{stream_id}")
    assert (cancelled.status, cancelled.json) == (202, {"id": stream_id, "state": "cancelled"})
    await response.rest()
    assert response.types[-2:] == ["finish", "done"]
    assert (await gateway.ask("DELETE", f"/admin/v1/streams/{stream_id}")).status == 404
    assert (await gateway.ask("GET", "/admin/v1/streams")).json == {"total": 0, "data": []}
    client.close()


@on_both_loops
async def test_requests_are_listed_when_they_have_ended_without_those_of_strangers(net: Net) -> None:
    secrets = {name: f"sk-{name}-0123456789" for name in ("root", "alice")}
    keys = tuple(
        KeySettings(name, (key_digest(secret),), role="admin" if name == "root" else "user")
        for name, secret in secrets.items()
    )
    gateway = await net.gateway(await net.mock(deltas=5), keys=keys)
    alice, admin = ({"x-api-key": secrets[name]} for name in ("alice", "root"))
    await gateway.ask("POST", CHAT, {"model": "m", "messages": MESSAGES}, alice)
    await gateway.ask("POST", CHAT, {"model": "none", "messages": MESSAGES}, alice)
    await gateway.ask("POST", CHAT, {"model": "m", "messages": MESSAGES}, {"x-api-key": "sk-stranger-0123"})
    foreign = {"origin": "https://evil.example", "access-control-request-method": "POST"}  # refused before any key
    assert (await gateway.ask("OPTIONS", CHAT, None, foreign)).status == 403
    await gateway.ask("GET", "/v1/none", None, alice)
    await gateway.ask("GET", "/none")
    rows = (await gateway.ask("GET", "/admin/v1/requests", None, admin)).json["data"]
    shown = [(row["key"], row["endpoint"], row["model"], row["outcome"], row["status"], row["code"]) for row in rows]
    assert shown[1:] == [
        ("alice", CHAT, "none", "refused", 404, "not_found"),
        ("alice", CHAT, "m", "finished", None, None),
    ]
    assert shown[0][3:] == ("refused", 404, "not_found")
    assert rows[2]["output_tokens"] > 0
    assert rows[2]["ttft_ms"] > 0
    assert "Hi" not in json.dumps(rows)
    refused = await gateway.ask("GET", "/admin/v1/requests?outcome=x", None, admin)
    assert (refused.status, refused.json["error"]["reason"]) == (400, "outcome")
    assert (await gateway.ask("GET", "/admin/v1/requests", None, alice)).status == 403


@on_both_loops
async def test_samples_are_pushed_until_the_client_leaves(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=5))
    await gateway.chat()
    client = await gateway.connect()
    client.request("GET", "/admin/v1/events")
    response = await client.response()
    assert (response.status, response.headers["content-type"]) == (200, "text/event-stream")
    await response.until(b"\n\n")
    event, data = response.body.decode().split("\n")[:2]
    assert event == "event: sample"
    sample = json.loads(data.removeprefix("data: "))
    assert (sample["active"], sample["streams"], sample["rates"]) == (0, [], None)
    assert sum(each["count"] for each in sample["first_token_seconds"]) == 1
    feed = gateway.running.service.admin.feed
    assert len(feed) == 1
    client.close()
    await until(lambda: len(feed) == 0)


@on_both_loops
async def test_a_dashboard_does_not_hold_up_the_end_of_a_server(net: Net) -> None:
    gateway = await net.gateway(await net.mock())
    client = await gateway.connect()
    client.request("GET", "/admin/v1/events")
    response = await client.response()
    gateway.running.begin_drain()
    await response.rest()
    assert response.ended
    assert (await gateway.ask("GET", "/admin/v1/events")).status == 503


@pytest.fixture
def short_lease(change_limits: ChangeLimits) -> None:
    """A follow asks often, and once it has left, its stream is soon not watched any more."""
    change_limits(follow_interval=0.01, watch_lease=0.3)


NAMED = {"model": "m"}
WAYS = (
    ("native", NATIVE, {**QUERY, **NAMED}),
    ("durable", NATIVE, {**QUERY, **NAMED, "resumable": True}),
    ("passed through", CHAT, {**NAMED, "messages": MESSAGES, "stream": True}),
    ("translated", "/v1/messages", {**NAMED, "messages": MESSAGES, "stream": True, "max_tokens": 100}),
)


@on_both_loops
@pytest.mark.usefixtures("short_lease")
async def test_an_admin_follows_any_stream_and_its_client_notices_nothing(net: Net) -> None:
    """Deltas that come one by one take the fast path, leave it while somebody watches, and take it again."""
    parts = [[f"{part}{number} " for number in range(8)] for part in "abc"]
    gates: list[asyncio.Event] = []

    async def answering(peer: Peer) -> None:
        await peer.request()
        await peer.send(SSE_HEAD)
        for part, gate in zip(parts, [None, *gates], strict=True):
            if gate is not None:
                await gate.wait()
            for text in part:
                await peer.send(chunk(delta(text)))
                await asyncio.sleep(0.001)
        for piece in END:
            await peer.send(piece)

    gateway = await net.gateway(await net.upstream(answering))
    watches = gateway.running.service.admin.watches
    for name, path, body in WAYS:
        seen: list[list[bytes]] = []
        for is_followed in (False, True):
            gates[:] = [asyncio.Event(), asyncio.Event()]
            client = await gateway.connect()
            client.request("POST", path, body)
            response = await client.response()
            await response.until(parts[0][-1].encode())
            if is_followed:
                admin = await gateway.connect()
                admin.request("GET", f"/admin/v1/streams/{response.headers['x-gai-stream-id']}")
                followed = await admin.response()
                assert (followed.status, followed.headers["content-type"]) == (200, "text/event-stream")
                assert len(gateway.running.service.admin.follows) == 1
            gates[0].set()
            await response.until(parts[1][-1].encode())
            if is_followed:
                await followed.until(parts[1][-1].encode())
                texts = [event["text"] for event in events_of(followed.body)]
                assert texts == parts[1], f"{name}: from here on, and not before"
                admin.close()
                await until(lambda: len(gateway.running.service.admin.follows) == len(watches) == 0)
            gates[1].set()
            await response.rest()
            assert response.ended
            client.close()
            seen.append(re.findall(rb"[abc]\d+ ", response.body))
        assert seen[0] == seen[1] == [text.encode() for part in parts for text in part], name


def events_of(body: bytes | bytearray) -> list[Any]:
    return [json.loads(line.removeprefix("data: ")) for line in body.decode().split("\n") if line.startswith("data: ")]


@on_uvloop
async def test_a_follow_ends_with_its_stream_and_with_the_server(net: Net) -> None:
    mock = await net.mock(rate=50, deltas=1000)
    gateway = await net.gateway(mock)

    async def followed() -> tuple[str, Response]:
        _, response = await gateway.stream({**QUERY, "model": "m"})
        await response.until(b"text.delta")
        stream_id = response.headers["x-gai-stream-id"]
        admin = await gateway.connect()
        admin.request("GET", f"/admin/v1/streams/{stream_id}")
        answer = await admin.response()
        await answer.until(b"text.delta")
        return stream_id, answer

    stream_id, answer = await followed()
    await gateway.ask("DELETE", f"/admin/v1/streams/{stream_id}")
    await answer.rest()
    assert answer.ended
    assert [event["type"] for event in events_of(answer.body)][-2:] == ["finish", "done"]
    assert events_of(answer.body)[-2]["finish_reason"] == "cancelled"
    _, answer = await followed()
    gateway.running.begin_drain()
    await answer.rest()
    assert answer.ended
    assert b"done" not in answer.body


ADMIN, USER = "sk-admin-0123456789", "sk-user-0123456789"
KEYS = (
    KeySettings("ops", (key_digest(ADMIN),), role="admin"),
    KeySettings("alice", (key_digest(USER),)),
)


@on_uvloop
async def test_every_action_has_its_line_in_the_audit_log_and_refused_ones_too(
    net: Net, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = await net.gateway(await net.mock(), keys=KEYS)
    with caplog.at_level(logging.INFO, "gai_fast.audit"):
        for key in (ADMIN, USER, "sk-unknown"):
            await gateway.ask("DELETE", "/admin/v1/streams/none", None, {"x-api-key": key})
            await gateway.ask("GET", "/admin/v1/streams", None, {"x-api-key": key})
            await gateway.ask("GET", "/admin/v1/streams/none", None, {"x-api-key": key})
        await gateway.ask("POST", "/admin/v1/reload", None, {"x-api-key": USER})
        strange = {"host": "evil.example"}
        assert (await gateway.ask("DELETE", "/admin/v1/streams/none", None, strange)).status == 403
    lines = [record.getMessage() for record in caplog.records if record.name == "gai_fast.audit"]
    at = "client_ip='127.0.0.1'"
    assert lines == [
        f"action='streams.cancel' key='ops' {at} target='none' result=404",
        f"action='streams.follow' key='ops' {at} target='none' result=404",
        f"action='streams.cancel' key='alice' {at} target='none' result=403",
        f"action='streams.follow' key='alice' {at} target='none' result=403",
        f"action='reload' key='alice' {at} target=None result=403",
    ]


@on_uvloop
async def test_a_follow_has_its_line_in_the_audit_log_when_it_begins_and_no_other(
    net: Net, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = await net.gateway(await net.mock(rate=50, deltas=1000), keys=KEYS)
    client, response = await gateway.stream({**QUERY, "model": "m"}, x_api_key=USER)
    await response.until(b"text.delta")
    stream_id = response.headers["x-gai-stream-id"]
    expected = f"action='streams.follow' key='ops' client_ip='127.0.0.1' target='{stream_id}' result=200"
    with caplog.at_level(logging.INFO, "gai_fast.audit"):
        admin = await gateway.connect()
        admin.request("GET", f"/admin/v1/streams/{stream_id}", headers={"x-api-key": ADMIN})
        followed = await admin.response()
        await followed.until(b"text.delta")
        assert [record.getMessage() for record in caplog.records if record.name == "gai_fast.audit"] == [expected]
        client.reset()
        await followed.rest()
        await until(lambda: not gateway.streams)
    assert [record.getMessage() for record in caplog.records if record.name == "gai_fast.audit"] == [expected]


# ---- several workers -------------------------------------------------------------------------------------------------


@pytest.fixture
async def server_net() -> AsyncIterator[Net]:
    async with AsyncExitStack() as stack:
        yield Net(stack)


@asynccontextmanager
async def two_upstreams(net: Net, folder: Path, more: str) -> AsyncIterator[tuple[Server, Mock, Mock]]:
    """Runs two workers before the upstreams `up` and `other`; `more` configures the latter, at `URL`."""
    async with Mock(deltas=5, rate=0) as mock, Mock(deltas=5, rate=0) as other:
        configure(folder, mock, more=more.replace("URL", other.url))
        async with serving(net, folder, "--workers", "2") as server:
            yield server, mock, other


TARGETS = """[[upstream]]
name = "other"
provider = "openai-compatible"
base_url = "URL/v1"
[[model]]
name = "spread"
targets = [{upstream = "up", id = "m"}, {upstream = "other", id = "m"}]
"""


async def test_a_target_is_drained_in_all_workers_and_in_one_that_takes_anothers_place(
    server_net: Net, tmp_path: Path
) -> None:
    async with two_upstreams(server_net, tmp_path, TARGETS) as (server, _, other):
        target = {"model": "spread", "upstream": "other", "id": "m"}
        drained = await server.ask("POST", "/admin/v1/targets/drain", target)
        assert (drained.status, drained.json) == (200, {**target, "state": "drained", "streams": 0})

        async def asked() -> set[str]:
            rows = [(await server.ask("GET", "/admin/v1/targets")).json for _ in range(2)]
            row = {**target, "upstream": "up", "state": "ready", "streams": 0}
            assert [each for each in rows[0] if each["model"] == "spread"] == [row, drained.json]
            assert rows[0] == rows[1]
            answers = [await server.ask("POST", CHAT, {"model": "spread", "messages": MESSAGES}) for _ in range(8)]
            return {str(answer.status) for answer in answers}

        async def third_worker_serves() -> bool:
            answer = await server.ask("POST", CHAT, {"model": "spread", "messages": MESSAGES})
            return answer.headers["x-gai-stream-id"].endswith("3")

        assert await asked() == {"200"}
        killed = server.workers.pop()
        os.kill(killed, signal.SIGKILL)
        await server.said("another takes its place")
        await until_answered(third_worker_serves)
        assert await asked() == {"200"}
        assert not other.requests
        assert (await server.ask("POST", "/admin/v1/targets/restore", target)).status == 200
        unknown = await server.ask("POST", "/admin/v1/targets/drain", {**target, "id": "none"})
        assert unknown.status == 404


BACKED = """fallback = ["backup"]
[[upstream]]
name = "other"
provider = "openai-compatible"
base_url = "URL/v1"
[[model]]
name = "backup"
upstream = "other"
"""


async def test_the_one_upstream_of_a_model_is_taken_out_and_its_fallback_answers(
    server_net: Net, tmp_path: Path
) -> None:
    async with two_upstreams(server_net, tmp_path, BACKED) as (server, mock, other):
        target, backup = (
            {"model": name, "upstream": up, "id": name} for name, up in (("m", "up"), ("backup", "other"))
        )

        async def states() -> dict[str, str]:
            rows = (await server.ask("GET", "/admin/v1/targets")).json
            assert all(row["streams"] == 0 for row in rows)
            return {row["model"]: row["state"] for row in rows}

        async def asked() -> set[int]:
            body = {"model": "m", "messages": MESSAGES}
            return {(await server.ask("POST", CHAT, body)).status for _ in range(4)}

        assert await states() == {"m": "ready", "backup": "ready", "demo": "ready"}
        assert (await server.ask("POST", "/admin/v1/targets/drain", target)).json["state"] == "drained"
        assert await asked() == {200}
        assert (len(mock.requests), len(other.requests)) == (0, 4)
        assert (await server.ask("POST", "/admin/v1/targets/drain", backup)).status == 200
        assert await asked() == {503}
        assert (await server.ask("POST", "/admin/v1/reload")).status == 200
        assert await states() == {"m": "drained", "backup": "drained", "demo": "ready"}
        assert (await server.ask("POST", "/admin/v1/targets/restore", target)).json["state"] == "ready"
        assert await asked() == {200}
        assert (len(mock.requests), len(other.requests)) == (4, 4)


async def test_every_worker_shows_cancels_and_reloads_for_all(server_net: Net, tmp_path: Path) -> None:
    async with Mock(deltas=5, rate=0) as mock:
        hold(mock)
        configure(tmp_path, mock)
        async with serving(server_net, tmp_path, "--workers", "2") as server:
            streams = [await server.stream({**QUERY, "model": "m"}) for _ in range(2)]
            ids = {response.headers["x-gai-stream-id"] for _, response in streams}
            follows: list[Response] = []
            assert len({each[-1] for each in ids}) == 2, "each worker has one"
            for _ in range(2):  # of each worker in turn
                shown = (await server.ask("GET", "/admin/v1/streams")).json
                assert (shown["total"], {each["id"] for each in shown["data"]}) == (2, ids)
            for each in ids:
                admin = await server.connect()
                admin.request("GET", f"/admin/v1/streams/{each}")
                follows.append(await admin.response())
                assert (follows[-1].status, follows[-1].headers["x-gai-stream-id"]) == (200, each)
            for each in ids:
                assert (await server.ask("DELETE", f"/admin/v1/streams/{each}")).status == 202
            for _, response in streams:
                await response.rest()
                assert response.types[-1] == "done"
            for answer in follows:
                await answer.until(b"event: done")
            assert {row["stream_id"] for row in (await server.ask("GET", "/admin/v1/requests")).json["data"]} == ids
            assert (await server.ask("DELETE", f"/admin/v1/streams/{ids.pop()}")).status == 404

            file = tmp_path / "gai-fast.toml"
            good = file.read_text()
            file.write_text(good.replace('name = "m"', 'name = "n"'))
            report = await server.ask("POST", "/admin/v1/reload")
            changes = [
                {"section": "model", "name": "m", "change": "removed"},
                {"section": "model", "name": "n", "change": "added"},
            ]
            assert (report.status, report.json) == (200, {"changes": changes, "needs_restart": []})

            async def models() -> list[Any]:
                return [(await server.ask("GET", "/v1/models")).json["data"][0]["id"] for _ in range(2)]

            assert await models() == ["n", "n"]
            file.write_text("unknown_key = 1\n" + good)
            refused = await server.ask("POST", "/admin/v1/reload")
            assert refused.status == 400
            assert "unknown_key" in refused.json["error"]["message"]
            assert await models() == ["n", "n"]
            body = {"model": "n", "messages": MESSAGES}
            mock.rate = 0
            mock.deltas = 3
            assert (await server.ask("POST", CHAT, body)).status == 200
