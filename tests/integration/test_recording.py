"""`serve --record` and `gai-fast replay`: what an upstream answered comes again, and no secret is in the file."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path
from typing import Any

from gai_fast.cli.mock.command import Fault
from gai_fast.cli.replay import RecordingServer, load
from gai_fast.net.attempts.recording_player import read_recording
from gai_fast.server.serving import start
from tests.integration.gateway import (
    END,
    KEY,
    NATIVE,
    QUERY,
    SSE_HEAD,
    Gateway,
    Net,
    Peer,
    Response,
    delta,
    on_both_loops,
    settings_for,
)
from tests.waiting import until
from tests.wire import chunk

PROMPT = "what nobody else may read"
TOKEN = "team-canary-0123456789"


async def recording_gateway(net: Net, url: str, folder: Path, **options: Any) -> Gateway:
    running = await start(settings_for(url, **options), folder)
    net.gateways.append(Gateway(net, running))
    net.stack.push_async_callback(running.close)
    return net.gateways[-1]


async def asked(gateway: Gateway, model: str = "m") -> Response:
    return await gateway.ask("POST", NATIVE, {"query": PROMPT, "model": model}, {"x-request-id": "r"})


def comparable(response: Response) -> list[dict[str, Any]]:
    """Returns the events without what belongs to one stream alone."""
    events: list[dict[str, Any]] = []
    for event in response.events:
        result = {key: value for key, value in event.items() if key not in ("ts", "stream_id")}
        if "error" in result:
            result["error"] = {key: value for key, value in result["error"].items() if key != "message"}
        events.append(result)
    return events


@on_both_loops
async def test_what_was_recorded_replays_to_the_same_events(net: Net, tmp_path: Path) -> None:
    mock = await net.mock(deltas=7)
    gateway = await recording_gateway(net, mock.url, tmp_path)
    first = await asked(gateway)
    (file,) = tmp_path.iterdir()
    assert file.name == f"{first.headers['x-gai-stream-id']}.ndjson"
    text = file.read_text()
    assert KEY not in text
    assert PROMPT not in text
    head = json.loads(text.partition("\n")[0])
    assert (head["provider"], head["model"], head["upstream"], head["status"]) == (
        "openai-compatible",
        "mock",
        "up",
        200,
    )
    for split in (0, 3):
        replay = await net.stack.enter_async_context(RecordingServer(load(file), speed=0, split=split))
        again = await net.gateway(replay.url)
        assert comparable(await asked(again)) == comparable(first)


@on_both_loops
async def test_an_answer_that_broke_and_one_that_refused_replay_so(net: Net, tmp_path: Path) -> None:
    mock = await net.mock(deltas=7)
    gateway = await recording_gateway(net, mock.url, tmp_path)
    for fault in (Fault("cut", 3), Fault("429")):
        mock.fault = fault
        first = await asked(gateway)
        file = tmp_path / f"{first.headers['x-gai-stream-id']}.ndjson"
        replay = await net.stack.enter_async_context(RecordingServer(load(file), speed=0))
        again = await asked(await net.gateway(replay.url))
        assert again.status == first.status
        if first.status == 200:
            assert comparable(again) == comparable(first)
        else:
            assert again.error["code"] == first.error["code"] == "rate_limited"


@on_both_loops
async def test_every_attempt_has_its_file(net: Net, tmp_path: Path) -> None:
    mock = await net.mock(fault=Fault("500"))
    gateway = await recording_gateway(net, mock.url, tmp_path, retries=1)
    stream_id = (await asked(gateway)).headers["x-gai-stream-id"]
    assert {file.name for file in tmp_path.iterdir()} == {f"{stream_id}.ndjson", f"{stream_id}.2.ndjson"}


@on_both_loops
async def test_what_an_upstream_repeats_of_our_headers_is_not_in_the_file(net: Net, tmp_path: Path) -> None:
    async def repeats(peer: Peer) -> None:
        await peer.request()
        said = chunk(delta(f"you sent {peer.head.decode()}"))
        within = said.index(TOKEN.encode()) + 5
        await peer.send(SSE_HEAD, said[:within])
        await first_read.wait()
        await peer.send(said[within:], *END)

    first_read = asyncio.Event()
    upstream = await net.upstream(repeats)
    settings = settings_for(upstream.url)
    own = dataclasses.replace(settings.models["m"].upstream, headers={"X-Team-Token": TOKEN})
    models = {"m": dataclasses.replace(settings.models["m"], upstream=own)}
    running = await start(dataclasses.replace(settings, models=models), tmp_path)
    net.gateways.append(Gateway(net, running))
    net.stack.push_async_callback(running.close)
    asking = asyncio.ensure_future(asked(net.gateways[-1]))
    await until(lambda: list(tmp_path.iterdir()))
    first_read.set()
    assert (await asking).status == 200
    (file,) = tmp_path.iterdir()
    text = b"".join(data for _, data in read_recording(file.read_bytes()).chunks).decode()
    assert "X-Team-Token: ***\\r\\n" in text
    assert "authorization: bearer ***\\r\\n" in text.lower()
    assert TOKEN not in text
    assert KEY not in text


@on_both_loops
async def test_a_folder_that_cannot_be_written_harms_no_stream(net: Net, tmp_path: Path) -> None:
    gateway = await recording_gateway(net, (await net.mock(deltas=3)).url, tmp_path / "gone")
    response = await gateway.ask("POST", NATIVE, {**QUERY, "model": "m"})
    assert response.events[-1] == {"type": "done", "finished": True}
    assert net.warned("cannot record to") == 1
