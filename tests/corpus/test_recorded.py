"""Every recording through a gateway that records: what it wrote replays to the same events, and holds no secret."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import uvloop

import gai_fast
from gai_fast.net.attempts.recording_player import read_recording
from gai_fast.server.serving import start
from tests.corpus.recordings import RECORDED, judge, name_of, recordings_of
from tests.corpus.served import ASKED, KEY, Replay, decoded_here, settings_for, upstream_of
from tests.integration.gateway import Gateway, Net, run


@pytest.mark.parametrize("provider", RECORDED)
def test_what_was_recorded_says_what_the_upstream_said(provider: str, tmp_path: Path) -> None:
    judge()
    wrong: dict[str, Any] = {}

    async def scenario(net: Net) -> None:
        replay = Replay()
        upstream = await net.upstream(replay)
        recordings = recordings_of(provider)
        running = await start(settings_for(recordings, upstream.url), tmp_path)
        net.stack.push_async_callback(running.close)
        gateway = Gateway(net, running)
        net.gateways.append(gateway)
        for recording in recordings:
            replay.recording = recording
            body = {"query": "what nobody else may read", "model": f"{upstream_of(recording)}/{ASKED}"}
            response = await gateway.ask("POST", "/api/v1/stream", body)
            text = (tmp_path / f"{response.headers['x-gai-stream-id']}.ndjson").read_bytes()
            assert KEY.encode() not in text
            assert b"nobody else" not in text
            recorded = read_recording(text)
            chunks = [data for _, data in recorded.chunks]
            name = name_of(recording)
            events: list[Any] = list(gai_fast.decode(name, chunks, status=recorded.status, headers=recorded.headers))
            for key in ("schema", "ts", "request_id"):
                del events[0][key]
            if events != decoded_here(recording):
                wrong[recording.name] = events[-2:]
        net.warned("refuses our")  # some recordings are of a refused key or account

    run(uvloop.new_event_loop, scenario)
    assert not wrong
