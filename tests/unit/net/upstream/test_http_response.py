"""Responses of an upstream, cut anywhere, and refused ones."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable

import pytest

from gai_fast.net.upstream.http_response import KnownResponseHeads, ResponseReader
from tests.limits import LIMITS
from tests.wire import chunk

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LENGTH_5 = OK + b"Content-Length: 5\r\n\r\n"


def splits(data: bytes) -> Iterable[list[bytes]]:
    """Whole, byte by byte, and cut at random."""
    yield [data]
    yield [data[n : n + 1] for n in range(len(data))]
    chance = random.Random(len(data))
    for _ in range(10):
        edges = sorted({0, len(data), *(chance.randrange(len(data) + 1) for _ in range(chance.randrange(1, 6)))})
        yield [data[a:b] for a, b in itertools.pairwise(edges)]


def read(
    pieces: Iterable[bytes], method: str = "POST", eof: bool = False, known: KnownResponseHeads | None = None
) -> tuple[ResponseReader, bytes]:
    reader = ResponseReader("api.example.com:443", method, known)
    body = b""
    for piece in pieces:
        if reader.complete or reader.error is not None:
            break
        body += reader.feed(piece)
    if eof and not reader.complete and reader.error is None:
        reader.feed_eof()
    return reader, body


LONG = OK + b"Transfer-Encoding: chunked\r\nA: " + b"a" * LIMITS.known_head + b"\r\n\r\n"


@pytest.mark.parametrize("method", ["POST", "HEAD"])
@pytest.mark.parametrize(
    ("head", "is_kept"),
    [
        (CHUNKED, True),
        (OK + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n", True),
        (b"HTTP/1.1 400 Bad\r\ntransfer-encoding: chunked\r\nA: b\r\nA: c\r\n\r\n", True),
        (LENGTH_5, True),
        (OK + b"X-5: 5\r\ncontent-LENGTH: \t05 \r\nB: 5\r\n\r\n", True),
        (OK + b"Content-Length: 0\r\n\r\n", True),
        (OK + b"\r\n", False),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + CHUNKED, False),
        (LONG, False),
    ],
)
def test_a_head_that_comes_again_is_what_it_was(head: bytes, is_kept: bool, method: str) -> None:
    answer = head + chunk(b"hello") + b"0\r\n\r\n"
    first = KnownResponseHeads()
    read([answer], known=first)
    assert (first.last is not None) == is_kept
    for data in (
        answer,
        CHUNKED + chunk(b"hi") + b"0\r\n\r\n",
        LENGTH_5 + b"hello",
        head.replace(b"5 ", b"12 ") + b"hello, world",
        *[LENGTH_5.replace(b"5", digits) + b"hello" for digits in (b"0", b"5 ", b"+5", b"5x", b"", b"9" * 19)],
        head + b"broken",
        b"HTTP/2.0 200\r\n\r\n",
    ):
        for pieces in splits(data):
            heads = KnownResponseHeads()
            heads.last = first.last
            (fresh, wanted), (reader, body) = read(pieces, method), read(pieces, method, known=heads)
            assert (reader.head, body, reader.complete, reader.is_reusable) == (
                fresh.head, wanted, fresh.complete, fresh.is_reusable,
            )  # fmt: skip
            assert (reader.error and reader.error.reason) == (fresh.error and fresh.error.reason)


@pytest.mark.parametrize(
    ("data", "status", "body", "is_reusable"),
    [
        (LENGTH_5 + b"hello", 200, b"hello", True),
        (OK + b"Content-Length: 0\r\n\r\n", 200, b"", True),
        (CHUNKED + chunk(b"he") + chunk(b"llo") + b"0\r\n\r\n", 200, b"hello", True),
        (CHUNKED + b"2;ext=1\r\nhe\r\n3\r\nllo\r\n0\r\nTrailer: x\r\nHost: y\r\n\r\n", 200, b"hello", True),
        (OK + b"Transfer-Encoding: Chunked\r\n\r\n0\r\n\r\n", 200, b"", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", True),
        (b"HTTP/1.1 429 Slow Down\r\nContent-Length: 2\r\n\r\n{}", 429, b"{}", True),
        (b"HTTP/1.1 200\r\nContent-Length: 1\r\n\r\na", 200, b"a", True),
        (
            b"HTTP/1.1 100 Continue\r\nA: b\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\n" + LENGTH_5 + b"hello",
            200,
            b"hello",
            True,
        ),
        (OK + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello", 200, b"hello", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, b"hello", False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello", 200, b"hello", True),
        (OK + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 5\r\n\r\nhello", 200, b"hello", True),
        (OK + b"Content-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello", 200, b"hello", True),
    ],
)
def test_a_correctly_framed_answer_is_read_however_it_is_cut(
    data: bytes, status: int, body: bytes, is_reusable: bool
) -> None:
    for pieces in splits(data):
        reader, got = read(pieces)
        assert reader.error is None
        assert reader.head is not None
        assert (reader.head[0], got, reader.complete, reader.is_reusable) == (status, body, True, is_reusable)


def test_an_answer_that_the_peer_ends_by_closing_is_complete_at_eof() -> None:
    for data in (OK + b"\r\nhello", b"HTTP/1.0 200 OK\r\n\r\nhello"):
        for pieces in splits(data):
            reader, body = read(pieces)
            assert not reader.complete
            reader.feed_eof()
            assert (reader.complete, reader.is_reusable, reader.error, body) == (True, False, None, b"hello")


@pytest.mark.parametrize("data", [LENGTH_5 + b"hello", CHUNKED + chunk(b"hello") + b"0\r\n\r\n"])
def test_an_answer_cut_anywhere_is_truncated(data: bytes) -> None:
    for cut in range(len(data)):
        reader, body = read([data[:cut]], eof=True)
        assert b"hello".startswith(body)
        assert reader.error is not None
        assert (reader.error.code, reader.error.reason) == ("network", "truncated")


def test_header_names_are_lower_case_and_duplicates_joined_and_nothing_of_an_interim_or_trailer() -> None:
    data = (
        b"HTTP/1.1 103 Early\r\nLink: a\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nX-Request-ID:  r1 \t\r\nSet-Cookie: a\r\nset-cookie: b\r\nName: caf\xe9\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nLate: x\r\n\r\n"
    )
    for pieces in splits(data):
        reader, _ = read(pieces)
        assert reader.head == (
            200,
            {"x-request-id": "r1", "set-cookie": "a, b", "name": "café", "transfer-encoding": "chunked"},
        )


def test_the_answer_to_head_has_no_body() -> None:
    reader, body = read([LENGTH_5 + b"hello"], method="HEAD")
    assert (reader.complete, reader.is_reusable, body) == (True, False, b"")


@pytest.mark.parametrize("extra", [b"x", b"H", LENGTH_5 + b"other", b"HTTP/1.1 200 OK\r\n"])
def test_bytes_after_the_answer_spoil_the_connection_and_are_not_delivered(extra: bytes) -> None:
    for head in (LENGTH_5 + b"hello", CHUNKED + chunk(b"hello") + b"0\r\n\r\n"):
        reader, body = read([head + extra])
        assert (reader.complete, reader.is_reusable, reader.error, body) == (True, False, None, b"hello")


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.7\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"<html>",
        b"HTTP/0.9 200 OK\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.2 200 OK\r\n\r\n",
        b"HTTP/1.1 000 x\r\n\r\n",
        b"HTTP/1.1 99 x\r\n\r\n",
        b"HTTP/1.1 2000 x\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nabc",
        b"HTTP/1.1 101 Switching\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 1\n\na",
        OK + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
        OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\na",
        OK + b"Content-Length: +1\r\n\r\na",
        OK + b"Content-Length: 99999999999999999999\r\n\r\na",
        OK + b"A : b\r\n\r\n",
        OK + b"A: b\r\n c\r\n\r\n",
        OK + b"A: b\x00\r\n\r\n",
        OK + b": b\r\n\r\n",
        CHUNKED + b"-1\r\n",
        CHUNKED + b"0x1\r\n",
        CHUNKED + b"\r\n",
        CHUNKED + b"11111111111111111\r\n",
        CHUNKED + b"0" * 100,
        CHUNKED + b"1\r\nabc",
        CHUNKED + b"1\na\n0\n\n",
    ],
)
def test_what_is_not_http_or_breaks_its_framing_is_a_network_error(data: bytes) -> None:
    for pieces in splits(data):
        reader, _ = read(pieces)
        assert reader.error is not None
        assert (reader.error.code, reader.error.reason) == ("network", "protocol")
        assert "api.example.com:443" in reader.error.message
        assert not reader.complete
        assert not reader.is_reusable


def test_what_came_before_the_framing_broke_is_delivered() -> None:
    reader, body = read([CHUNKED + chunk(b"hello") + b"zz"])
    assert body == b"hello"
    assert reader.error is not None


@pytest.mark.parametrize(
    ("fields", "status", "reason"),
    [
        (b"Content-Encoding: gzip\r\n", 200, "content_encoding"),
        (b"Content-Encoding: br, identity\r\n", 503, "content_encoding"),
        (b"Transfer-Encoding: gzip, chunked\r\n", 200, "content_encoding"),
        (b"Transfer-Encoding: gzip\r\n", 200, "content_encoding"),
        (b"Location: http://169.254.169.254/secret\r\n", 302, "redirect"),
        (b"", 304, "redirect"),
        (b"", 399, "redirect"),
    ],
)
def test_an_answer_that_is_not_what_was_asked_for_is_refused(fields: bytes, status: int, reason: str) -> None:
    for pieces in splits(b"HTTP/1.1 %d X\r\n%b\r\nsecret" % (status, fields)):
        reader, body = read(pieces)
        assert reader.error is not None
        assert (reader.error.code, reader.error.reason) == ("provider_unavailable", reason)
        assert "secret" not in reader.error.message
        assert (reader.head, body) == (None, b"")


def test_an_answer_to_a_condition_has_no_body() -> None:
    """RFC 9110, 15.4.5; RFC 9112, 6.3: a length is that of the answer to another request."""
    head = b'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\nContent-Length: 9\r\n\r\n'
    for method in ("GET", "HEAD"):
        for pieces in splits(head):
            reader, body = read(pieces, method)
            assert body == b""
            assert (reader.head, reader.error) == ((304, {"etag": '"a"', "content-length": "9"}), None)
            assert (reader.complete, reader.is_reusable) == (True, True)


@pytest.mark.parametrize(
    ("status", "code", "wait"),
    [(401, "unauthorized", None), (429, "rate_limited", 2000), (500, "internal", None)],
)
def test_the_status_of_an_encoded_failure_counts(status: int, code: str, wait: int | None) -> None:
    head = b"HTTP/1.1 %d X\r\nContent-Encoding: gzip\r\nRetry-After: 2\r\n\r\nsecret" % status
    reader, _ = read([head])
    assert reader.error is not None
    found = reader.error
    assert (found.code, found.reason, found.retry_after_ms) == (code, "content_encoding", wait)
    assert f"status {status} and sent an encoded body" in found.message


def endless(first: bytes, then: bytes) -> Iterable[bytes]:
    yield first
    for _ in range(2 * LIMITS.response_head // len(then)):
        yield then


@pytest.mark.parametrize(
    "pieces",
    [
        [OK + b"A: " + b"x" * LIMITS.response_head + b"\r\n\r\n"],
        [OK + b"Ab: xyz\r\n" * (LIMITS.response_head // 8) + b"Content-Length: 0\r\n\r\n"],
        endless(OK + b"A: ", b"x" * 100),
        endless(OK, b"A: b\r\n" * 20),
        endless(b"HTTP/1.1 200 ", b"x" * 100),
        endless(OK, b"x" * 100),
        endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        endless(b"", b"HTTP/1.1 102 P\r\nA: " + b"x" * 50 + b"\r\n\r\n"),
        endless(CHUNKED + b"1;", b"e" * 100),
        endless(CHUNKED + b"0\r\n", b"Trailer: x\r\n"),
        endless(CHUNKED + b"0\r\nTrailer: ", b"x" * 100),
        [CHUNKED + b"1\r\na\r\n0\r\nTrailer: " + b"x" * LIMITS.response_head + b"\r\n\r\n"],
    ],
)
def test_heads_trailers_and_chunk_extensions_without_end_are_cut_off(pieces: Iterable[bytes]) -> None:
    reader, _ = read(pieces)
    assert reader.error is not None
    assert (reader.error.code, reader.error.reason) == ("provider_unavailable", "head_too_large")


def test_chunk_framing_of_a_long_stream_does_not_count_as_head() -> None:
    reader, body = read([CHUNKED, *[chunk(b"x") for _ in range(LIMITS.response_head)]])
    assert reader.error is None
    assert len(body) == LIMITS.response_head


def test_a_head_just_within_the_limit_is_taken() -> None:
    value = b"x" * (LIMITS.response_head - 200)
    reader, _ = read([OK + b"A: " + value + b"\r\nContent-Length: 0\r\n\r\n"])
    assert reader.complete
