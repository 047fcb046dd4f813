"""`tests/integration/test_pass_through.py` has uploads over sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from gai_fast.model.errors import Error
from gai_fast.server.pass_through.upload import BodyUpload
from tests.limits import LIMITS
from tests.waiting import until


class Source:
    """A body in pieces; an exception is raised."""

    def __init__(self, *pieces: bytes | Exception, length: int | None = None) -> None:
        self.length = length
        self.left = list(pieces)

    async def read(self) -> bytes:
        await asyncio.sleep(0)
        piece = self.left.pop(0) if self.left else b""
        if isinstance(piece, Exception):
            raise piece
        return piece

    def close(self) -> None: ...


class Exchange:
    """What was written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.has_ended = False
        self.unsent = 0
        self.sent = True

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def end_body(self) -> None:
        self.has_ended = True


def started(source: Source, check: Callable[[bytes], object] | None = None) -> tuple[BodyUpload, Exchange, list[Error]]:
    failed: list[Error] = []
    upload, exchange = BodyUpload(source, failed.append, check), Exchange()
    upload.start(cast(Any, exchange))
    return upload, exchange, failed


async def test_nothing_is_written_before_there_is_a_connection() -> None:
    upload, exchange, _ = started(Source(b"ab", length=2))
    for _ in range(5):
        await asyncio.sleep(0)
    assert exchange.written == []
    upload.begin()
    await until(lambda: exchange.has_ended)
    assert exchange.written == [b"ab"]


@pytest.mark.parametrize(
    ("length", "written"), [(3, [b"ab", b"c"]), (None, [b"2\r\nab\r\n", b"1\r\nc\r\n", b"0\r\n\r\n"])]
)
async def test_a_body_without_a_length_is_written_in_chunks(length: int | None, written: list[bytes]) -> None:
    upload, exchange, _ = started(Source(b"ab", b"c", length=length))
    assert upload.length == (-1 if length is None else length)
    assert upload.framed(b"") == b""
    upload.begin()
    await until(lambda: exchange.has_ended)
    assert exchange.written == written


@pytest.mark.parametrize("bad", [b"b", b""])
@pytest.mark.parametrize("length", [2, None])
async def test_a_body_that_is_refused_at_its_end_never_arrives_whole(bad: bytes, length: int | None) -> None:
    def check(data: bytes) -> None:
        if data == bad:
            raise Error("invalid_request", "bad")

    upload, exchange, failed = started(Source(b"a", b"b", length=length), check)
    upload.begin()
    await until(lambda: failed)
    assert b"b" not in b"".join(exchange.written)
    assert not exchange.has_ended


async def test_a_body_that_is_checked_arrives_whole() -> None:
    upload, exchange, failed = started(Source(b"a", b"b", length=2), lambda data: None)
    upload.begin()
    await until(lambda: exchange.has_ended)
    assert (exchange.written, failed) == ([b"a", b"b"], [])


@pytest.mark.parametrize("pieces", [[b"a", b"b"], []])
async def test_nothing_is_lost_while_a_dead_connection_is_replaced(pieces: list[bytes]) -> None:
    upload, exchange, _ = started(Source(*pieces))
    exchange.sent = False
    upload.begin()
    for _ in range(9):
        await asyncio.sleep(0)
    assert (exchange.written, exchange.has_ended) == ([], False)
    exchange.sent = True
    upload.begin()
    await until(lambda: exchange.has_ended)
    assert exchange.written == [*[upload.framed(each) for each in pieces], b"0\r\n\r\n"]


async def test_nothing_is_read_while_the_upstream_takes_too_little() -> None:
    source = Source(b"a", b"b", length=2)
    upload, exchange, _ = started(source)
    exchange.unsent = LIMITS.unsent_upload + 1
    upload.begin()
    await until(lambda: exchange.written)
    for _ in range(5):
        await asyncio.sleep(0)
    assert (exchange.written, len(source.left)) == ([b"a"], 1)
    exchange.unsent = 0
    upload.resume()
    await until(lambda: exchange.has_ended)


async def test_a_body_that_cannot_be_read_fails_unless_the_client_has_left() -> None:
    upload, exchange, failed = started(Source(b"a", Error("timeout", "late"), length=2))
    upload.begin()
    await until(lambda: failed)
    assert failed[0].code == "timeout"
    assert not exchange.has_ended
    upload, exchange, failed = started(Source(b"a", ConnectionResetError(), length=2))
    upload.begin()
    await until(lambda: exchange.written)
    for _ in range(5):
        await asyncio.sleep(0)
    assert not failed
    assert not exchange.has_ended  # else the upstream would take what it has for the whole


async def test_a_bug_is_logged_and_fails(caplog: pytest.LogCaptureFixture) -> None:
    upload, _, failed = started(Source(KeyError("x"), length=2))
    upload.begin()
    await until(lambda: failed)
    assert failed[0].code == "internal"
    assert "could not be passed on: a bug" in caplog.text


async def test_a_stopped_upload_says_nothing() -> None:
    upload, exchange, failed = started(Source(b"a", length=2))
    upload.stop()
    upload.stop()
    upload.begin()
    for _ in range(5):
        await asyncio.sleep(0)
    assert (exchange.written, failed) == ([], [])
