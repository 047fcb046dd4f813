"""`gai-fast replay`: a recording served over HTTP, to any request, with its timing."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path

import pytest

from gai_fast.cli import ConfigFailure
from gai_fast.cli.replay import RecordingServer, load
from gai_fast.net.attempts.recording_player import Recording
from tests.waiting import SECONDS

from .conftest import Run

BODY = b"data: one\n\ndata: two\n\n"
RECORDING = Recording([(0.0, BODY[:11]), (0.05, BODY[11:])], status=203, headers={"content-type": "text/event-stream"})


REQUEST = b"POST /v1 HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\n{}"


async def ask(replay: RecordingServer, request: bytes = REQUEST) -> list[bytes]:
    """Returns the head, the chunks as they were cut, and what came last."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(replay.url.rpartition(":")[2]))
    writer.write(request)
    async with asyncio.timeout(SECONDS):
        answer = await reader.read()
    writer.close()
    head, _, rest = answer.partition(b"\r\n\r\n")
    parts = [head]
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        parts.append(rest[: int(size, 16)])
        rest = rest[int(size, 16) + 2 :]
    return parts


async def test_it_answers_as_was_recorded() -> None:
    async with RecordingServer(RECORDING) as replay:
        for _ in range(2):
            head, *chunks, last = await ask(replay)
            assert head.startswith(b"HTTP/1.1 203 Non-Authoritative Information\r\ncontent-type: text/event-stream\r\n")
            assert [*chunks, last] == [BODY[:11], BODY[11:], b""]


@pytest.mark.parametrize(("speed", "pause"), [(1.0, 1000.0), (10.0, 100.0), (0.0, 0.0)])
async def test_it_keeps_the_time_unless_it_is_reported_otherwise(
    monkeypatch: pytest.MonkeyPatch, speed: float, pause: float
) -> None:
    """The pauses are noted instead of waited for."""
    slept, sleep = [0.0], asyncio.sleep

    async def note(delay: float) -> None:
        slept.append(delay)
        await sleep(0)

    monkeypatch.setattr("asyncio.sleep", note)
    recording = Recording([(0.0, BODY[:11]), (1000.0, BODY[11:])], status=203, headers={})
    async with RecordingServer(recording, speed=speed) as replay:
        await ask(replay, b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
    assert pause - 10 < max(slept) <= pause


async def test_it_cuts_what_it_sends() -> None:
    async with RecordingServer(RECORDING, split=4) as replay:
        _, *chunks, last = await ask(replay)
    assert b"".join(chunks) == BODY
    assert {len(chunk) for chunk in chunks} == {4, 3, 2} - ({2} if len(BODY) % 11 == 0 else set())
    assert last == b""


async def test_an_answer_that_broke_has_no_end() -> None:
    async with RecordingServer(Recording(RECORDING.chunks, broke=True), speed=0) as replay:
        assert (await ask(replay))[-1] == BODY[11:]


async def test_what_is_no_request_is_refused_and_not_answered() -> None:
    async with RecordingServer(RECORDING) as replay:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(replay.url.rpartition(":")[2]))
        writer.write(b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: x\r\n\r\n")
        async with asyncio.timeout(SECONDS):
            answer = await reader.read()
        writer.close()
    assert answer.partition(b"\r\n")[0].endswith(b" 400 Bad Request")
    assert b"data:" not in answer


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("POST", 204), ("POST", 304)])
async def test_an_answer_that_can_have_no_body_has_none(method: str, status: int) -> None:
    recording = Recording(RECORDING.chunks, status=status, headers={})
    async with RecordingServer(recording, speed=0) as replay:
        head, *chunks = await ask(replay, REQUEST.replace(b"POST", method.encode()))
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert not chunks


async def test_headers_of_the_recorded_connection_are_left_out() -> None:
    headers = {"Content-Length": "3", "transfer-encoding": "gzip", "Connection": "upgrade", "retry-after": "1"}
    async with RecordingServer(Recording(RECORDING.chunks, headers=headers), speed=0) as replay:
        head, *chunks = await ask(replay)
        old = await asyncio.open_connection("127.0.0.1", int(replay.url.rpartition(":")[2]))
        old[1].write(b"GET / HTTP/1.0\r\n\r\n")
        plain = await old[0].read()
        old[1].close()
    assert head.lower().count(b"\r\ntransfer-encoding: chunked") == head.lower().count(b"\r\nconnection: close") == 1
    assert b"content-length" not in head.lower()
    assert b"retry-after: 1" in head
    assert b"".join(chunks) == BODY
    assert plain.endswith(b"\r\n\r\n" + BODY)


def test_a_bare_body_is_served_as_it_is(folder: Path) -> None:
    (folder / "body.sse").write_bytes(BODY)
    assert load(folder / "body.sse").chunks == [(0.0, BODY)]
    assert load(folder / "body.sse").headers == {"content-type": "text/event-stream"}
    (folder / "body.json").write_bytes(b' {"error": {}}')
    assert load(folder / "body.json").headers == {"content-type": "application/json"}


def test_a_recording_is_one(folder: Path) -> None:
    lines = [
        {"format": 1, "status": 429, "headers": {"retry-after": "1"}},
        {"at": 0.5, "data": "x"},
        {"at": 1, "end": "cut"},
    ]
    (folder / "r.ndjson").write_text("".join(json.dumps(line) + "\n" for line in lines))
    recording = load(folder / "r.ndjson")
    assert (recording.status, recording.headers, recording.chunks) == (429, {"retry-after": "1"}, [(0.5, b"x")])
    assert recording.broke


@pytest.mark.parametrize(
    ("data", "message"), [(b"", "an empty file"), (b'{"format": 9}', "line 1 is not of a recording")]
)
def test_a_file_of_no_use_is_reported(folder: Path, data: bytes, message: str) -> None:
    (folder / "r").write_bytes(data)
    with pytest.raises(ConfigFailure, match=message):
        load(folder / "r")


def test_wrong_usage_is_reported(run: Run, folder: Path) -> None:
    result = run("replay", "missing.ndjson")
    assert (result.exit_code, "No such file" in result.output) == (2, True)
    (folder / "r").write_bytes(BODY)
    assert run("replay", "r", "--speed", "-1").exit_code == 2
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = run("replay", "r", "--port", str(taken.getsockname()[1]))
    assert (result.exit_code, "cannot listen on" in result.output) == (3, True)
