"""An upstream's answer written down and replayed: the same bytes at the same times, and no secret."""

from __future__ import annotations

import base64
import json
import logging
import random
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gai_fast.model.errors import Error
from gai_fast.net.attempts.recording import RecordedExchange, secrets_of
from gai_fast.net.attempts.recording_player import PlayedExchange, read_recording
from gai_fast.net.upstream.connection import Receiver
from tests.limits import LIMITS, replaced
from tests.unit.net.fakes import FakeTime

ABOUT = {"provider": "openai", "model": "m", "upstream": "u", "stream_id": "s"}
HEADERS = {"content-type": "text/event-stream", "set-cookie": "secret", "x-api-key": "secret", "retry-after": "3"}


class Session(Receiver):
    def __init__(self) -> None:
        self.calls: list[Any] = []

    def head_received(self, status: int, headers: dict[str, str]) -> None:
        self.calls.append((status, headers))

    def body_received(self, data: bytes) -> None:
        self.calls.append(data)

    def exchange_ended(self, error: Error | None) -> None:
        self.calls.append(error)


class Real:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def pause_reading(self) -> None:
        self.calls.append("pause")

    def resume_reading(self) -> None:
        self.calls.append("resume")

    def close(self) -> None:
        self.calls.append("close")

    is_complete = False
    is_waiting = False
    sent = True
    resent = False


def record(path: Path, error: Error | None = None) -> tuple[Session, FakeTime]:
    session, time = Session(), FakeTime()
    exchange = RecordedExchange(path, ABOUT, session, time.time, secrets_of("sk-1", {}))
    exchange.open(lambda receiver: Real())
    time.advance(0.5)
    exchange.head_received(200, HEADERS)
    exchange.body_received("é".encode()[:1])
    time.advance(0.25)
    exchange.body_received("é".encode()[1:] + b" key sk-1 \n")
    exchange.exchange_ended(error)
    return session, time


def test_the_session_notices_nothing(tmp_path: Path) -> None:
    session, _ = record(tmp_path / "r")
    assert session.calls == [(200, HEADERS), b"\xc3", b"\xa9 key sk-1 \n", None]


def test_the_file_holds_the_reads_with_their_times_and_no_secret(tmp_path: Path) -> None:
    record(tmp_path / "r")
    head, *reads, end = [json.loads(line) for line in (tmp_path / "r").read_bytes().splitlines()]
    assert head.pop("recorded").endswith("+00:00")
    kept = {"content-type": "text/event-stream", "retry-after": "3"}
    assert head == {"format": 1, **ABOUT, "status": 200, "headers": kept}
    assert [read["at"] for read in reads] == [0.5, 0.75]
    assert reads[0]["base64"] == base64.b64encode(b"\xc3").decode()
    assert end == {"at": 0.75, "end": "complete"}
    assert "sk-1" not in (tmp_path / "r").read_text()
    assert stat.S_IMODE((tmp_path / "r").stat().st_mode) == 0o600


def test_what_was_recorded_can_be_replayed(tmp_path: Path) -> None:
    record(tmp_path / "r")
    recording = read_recording((tmp_path / "r").read_bytes())
    assert (recording.status, recording.broke, recording.about["model"]) == (200, False, "m")
    assert recording.chunks == [(0.5, b"\xc3"), (0.75, b"\xa9 key *** \n")]
    session, time = Session(), FakeTime()
    PlayedExchange(recording, session, time)
    time.advance(1)
    assert session.calls == [(200, dict(recording.headers)), b"\xc3", b"\xa9 key *** \n", None]


def test_an_answer_that_broke_says_so(tmp_path: Path) -> None:
    record(tmp_path / "r", Error("network", "cut", reason="truncated"))
    assert b'"end":"truncated"' in (tmp_path / "r").read_bytes()
    recording = read_recording((tmp_path / "r").read_bytes())
    assert recording.broke
    session, time = Session(), FakeTime()
    PlayedExchange(recording, session, time)
    time.advance(1)
    assert session.calls[-1].reason == "truncated"


def test_an_answer_that_was_left_ends_where_it_was_left(tmp_path: Path) -> None:
    real, time = Real(), FakeTime()
    exchange = RecordedExchange(tmp_path / "r", ABOUT, Session(), time.time)
    exchange.open(lambda receiver: real)
    assert not exchange.is_complete
    exchange.head_received(429, {})
    exchange.pause_reading()
    exchange.resume_reading()
    exchange.close()
    exchange.close()
    assert real.calls == ["pause", "resume", "close", "close"]
    assert read_recording((tmp_path / "r").read_bytes()).status == 429


def test_a_disk_that_fails_harms_no_stream(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "gai_fast.recording"):
        session, _ = record(tmp_path / "missing" / "r")
    assert session.calls[-1] is None
    assert "cannot record to" in caplog.text


@pytest.mark.parametrize("room", [0, 100])
def test_a_full_disk_is_warned_of_once_and_leaves_no_empty_file(tmp_path: Path, room: int) -> None:
    code = f"""
import resource, signal, sys
from pathlib import Path
from gai_fast.net.attempts.recording import RecordedExchange
from tests.unit.net.attempts.test_recording import ABOUT, HEADERS, Session
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, {room}))
exchange = RecordedExchange(Path(sys.argv[1]), ABOUT, Session(), lambda: 0.0)
exchange.head_received(200, HEADERS)
for _ in range(3):
    exchange.body_received(b"x" * 5000)
exchange.exchange_ended(None)
"""
    path = tmp_path / "r"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == [f"cannot record to {path}: File too large"]
    assert (path.stat().st_size if path.exists() else None) == (room or None)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "an empty file is no recording"),
        (b"data: x\n\n", "line 1 is not of a recording"),
        (b'{"format": 2}\n', "line 1 is not of a recording: its `format` must be 1"),
        (b"[1]\n", "line 1 is not of a recording"),
        (b'{"format": 1, "status": "200"}\n', "line 1 is not of a recording: its status or its headers"),
        (b'{"format": 1, "headers": {"a": 1}}\n', "line 1 is not of a recording: its status or its headers"),
        (b'{"format": 1}\n{"at": 1}\n', "line 2 is not of a recording"),
        (b'{"format": 1}\n{"at": "x", "data": ""}\n', "line 2 is not of a recording"),
        (b'{"format": 1}\n{"at": 1, "data": 5}\n', "line 2 is not of a recording"),
    ],
)
def test_what_is_no_recording_is_reported(data: bytes, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        read_recording(data)


SECRET = "sk-sk-0123456789"


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 1000])
def test_a_secret_that_is_cut_by_reads_is_not_written_either(tmp_path: Path, size: int) -> None:
    body = f"wrong key {SECRET}{SECRET}, é sk-sk-sk-0123456789 sk-".encode()
    session = Session()
    exchange = RecordedExchange(tmp_path / "r", ABOUT, session, FakeTime().time, secrets_of(SECRET, {}))
    exchange.open(lambda receiver: Real())
    exchange.head_received(401, HEADERS)
    for at in range(0, len(body), size):
        exchange.body_received(body[at : at + size])
    exchange.exchange_ended(None)
    written = b"".join(data for _, data in read_recording((tmp_path / "r").read_bytes()).chunks)
    assert written.decode() == "wrong key ******, é sk-*** sk-"
    assert b"".join(session.calls[1:-1]) == body


@pytest.mark.parametrize("ends", ["close", "exchange_ended"])
def test_nor_most_of_one_where_the_answer_breaks_off(tmp_path: Path, ends: str) -> None:
    exchange = RecordedExchange(tmp_path / "r", ABOUT, Session(), FakeTime().time, secrets_of(SECRET, {}))
    exchange.open(lambda receiver: Real())
    exchange.head_received(401, HEADERS)
    exchange.body_received(b"wrong key " + SECRET.encode()[:-1])
    if ends == "close":
        exchange.close()
    else:
        exchange.exchange_ended(Error("network", "cut", reason="truncated"))
    assert SECRET[:-1] not in (tmp_path / "r").read_text()


HEADERS_CONFIGURED = {
    "X-Gateway-Token": "gw-token-4711",
    "Authorization": "Bearer abc.def.ghi-123",
    "Cookie": "theme=dark; session=0f1e2d3c4b5a",
    "X-Quoted": 'pass "word" 1',
    "X-Region": "eu-west",
}


@pytest.mark.parametrize(
    "echoed",
    [
        "gw-token-4711",
        "Bearer abc.def.ghi-123",
        "abc.def.ghi-123",
        "theme=dark; session=0f1e2d3c4b5a",
        "0f1e2d3c4b5a",
        'pass "word" 1',
        'pass \\"word\\" 1',
        SECRET,
    ],
)
@pytest.mark.parametrize("size", [1, 4, 1000])
def test_nor_are_the_values_of_configured_headers(tmp_path: Path, echoed: str, size: int) -> None:
    secrets = secrets_of(SECRET, HEADERS_CONFIGURED)
    assert written(tmp_path / "r", f"you sent {echoed} from eu-west.".encode(), size, secrets) == (
        b"you sent *** from eu-west."
    )


def test_what_is_shorter_than_a_secret_is_written() -> None:
    assert secrets_of(None, {"a": "x" * (LIMITS.secret - 1), "b": "", "authorization": "Token short"}) == {
        b"Token short"
    }
    assert secrets_of("k", {}) == {b"k"}, "the key is one whatever its length"
    assert secrets_of(None, {}) == frozenset()


def test_parts_are_taken_of_credentials_alone() -> None:
    assert secrets_of(None, {"X-Title": "my assistant"}) == {b"my assistant"}


def written(path: Path, body: bytes, size: int, secrets: frozenset[bytes]) -> bytes:
    """Returns the part of a body in the file, which is removed then."""
    exchange = RecordedExchange(path, ABOUT, Session(), FakeTime().time, secrets)
    exchange.open(lambda receiver: Real())
    exchange.head_received(200, HEADERS)
    for at in range(0, len(body), size):
        exchange.body_received(body[at : at + size])
    exchange.exchange_ended(None)
    recording = read_recording(path.read_bytes())
    path.unlink()
    return b"".join(data for _, data in recording.chunks)


@pytest.mark.parametrize(
    ("secrets", "body", "expected"),
    [
        ({b"abcd", b"abcdefgh"}, b"abcdefgh abcdefgx abcd", b"*** ***efgx ***"),
        ({b"token123", b"my token123 is x"}, b"my token123 is x, my token123 is y", b"***, my *** is y"),
        ({b"aaaa"}, b"a" * 11, b"******" + b"***"),
        ({b"xxab", b"abyyyy"}, b"xxabyyyy", b"***yyyy"),
        ({b"a.c+"}, b"abc+ a.c+", b"abc+ ***"),
    ],
    ids=["one begins another", "one is within another", "one in a row", "two overlap", "no expression"],
)
@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_secrets_that_share_text_are_cut_out_as_in_the_whole(
    tmp_path: Path, secrets: set[bytes], body: bytes, expected: bytes, size: int
) -> None:
    assert written(tmp_path / "r", body, size, frozenset(secrets)) == expected


def test_wherever_reads_cut_the_file_says_the_same(tmp_path: Path) -> None:
    chance = random.Random(7)
    for _ in range(200):
        secrets = frozenset(bytes(chance.choices(b"ab", k=chance.randrange(4, 9))) for _ in range(3))
        body = bytes(chance.choices(b"ab", k=60)) + b"."
        whole = written(tmp_path / "r", body, len(body), secrets)
        assert whole == re.sub(b"|".join(sorted(secrets, key=len, reverse=True)), b"***", body)
        assert {written(tmp_path / "r", body, size, secrets) for size in (1, 3, 7)} == {whole}


def test_a_secret_that_stands_in_the_beginning_of_another_is_not_written_at_the_end_either(tmp_path: Path) -> None:
    secrets = frozenset({b"token123", b"my token123 is a long, long text"})
    assert written(tmp_path / "r", b"my token123 is", 1000, secrets) == b"my *** is"


def test_a_recording_has_a_largest_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("gai_fast.net.attempts.recording.LIMITS", replaced(recorded=1000))
    path = tmp_path / "r.ndjson"
    session = Session()
    exchange = RecordedExchange(path, ABOUT, session, FakeTime().time)
    exchange.open(lambda receiver: Real())
    exchange.head_received(200, HEADERS)
    for _ in range(100):
        exchange.body_received(b"x" * 50)
    exchange.exchange_ended(None)
    assert len(session.calls) == 102, "the stream goes on"
    assert len(path.read_bytes()) < 1100
    assert read_recording(path.read_bytes()).broke
    assert [record.levelname for record in caplog.records] == ["WARNING"]
