"""Every recording through a gateway that records: what it wrote replays to the same events, and holds no secret."""

from __future__ import annotations

from contextlib import suppress
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
from tests.waiting import until


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
            path = tmp_path / f"{response.headers['x-gai-stream-id']}.ndjson"
            with suppress(TimeoutError):  # a body may end later than its stream, and the file with it
                await until(lambda path=path, each=recording: events_in(path, each) == decoded_here(each))
            if (events := events_in(path, recording)) != decoded_here(recording):
                wrong[recording.name] = events[-2:]
        net.warned("refuses our")  # some recordings are of a refused key or account

    run(uvloop.new_event_loop, scenario)
    assert not wrong


def events_in(path: Path, recording: Any) -> list[Any]:
    """Returns the events of what a gateway has recorded so far."""
    text = path.read_bytes()
    assert KEY.encode() not in text
    assert b"nobody else" not in text
    if not text.endswith(b"\n"):  # nothing, or a part of a line
        return []
    recorded = read_recording(text)
    chunks = [data for _, data in recorded.chunks]
    status, headers = recorded.status, recorded.headers
    events: list[Any] = list(gai_fast.decode(name_of(recording), chunks, status=status, headers=headers))
    for key in ("schema", "ts", "request_id"):
        del events[0][key]
    return events
