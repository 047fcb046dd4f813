from __future__ import annotations

import asyncio
import gc
import itertools
import random
import socket
import ssl
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from gai_fast._version import __version__
from gai_fast.errors import Error
from gai_fast.limits import LIMITS
from gai_fast.net.timers import TimerWheel
from gai_fast.net.upstream import (
    Exchange,
    KnownHead,
    Origin,
    ResponseReader,
    Timeouts,
    UpstreamConnection,
    encode_headers,
    encode_request,
)

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LENGTH_5 = OK + b"Content-Length: 5\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


# ---- where to --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base_url", "origin", "authority", "peer"),
    [
        ("https://api.openai.com/v1", Origin("https", "api.openai.com", 443, "/v1"), "api.openai.com", None),
        ("https://api.openai.com/v1/", Origin("https", "api.openai.com", 443, "/v1"), "api.openai.com", None),
        ("http://localhost:11434", Origin("http", "localhost", 11434, ""), "localhost:11434", None),
        ("HTTP://EXAMPLE.com:80/", Origin("http", "example.com", 80, ""), "example.com", "example.com:80"),
        ("http://[::1]:8080/v1", Origin("http", "::1", 8080, "/v1"), "[::1]:8080", None),
        ("https://[2001:DB8::1]", Origin("https", "2001:db8::1", 443, ""), "[2001:db8::1]", "[2001:db8::1]:443"),
        ("http://127.0.0.1:9800/v1", Origin("http", "127.0.0.1", 9800, "/v1"), "127.0.0.1:9800", None),
        ("http://bücher.example/a%20b", Origin("http", "xn--bcher-kva.example", 80, "/a%20b"), None, None),
        ("http://my_service:8000", Origin("http", "my_service", 8000, ""), "my_service:8000", None),
    ],
)
def test_a_base_url_is_taken_apart(base_url: str, origin: Origin, authority: str | None, peer: str | None) -> None:
    assert Origin.parse(base_url) == origin
    if authority is not None:
        assert Origin.parse(base_url).authority == authority
    if peer is not None:
        assert Origin.parse(base_url).peer == peer


@pytest.mark.parametrize(
    "base_url",
    [
        "",
        "api.openai.com",
        "/v1",
        "file:///etc/passwd",
        "gopher://secret-host/",
        "ftp://secret-host/",
        "https://",
        "https:///v1",
        "https://secret@host/v1",
        "https://user:secret@host/v1",
        "https://@host/",
        "https://host/?key=secret",
        "https://host/v1?",
        "https://host/#secret",
        "https://host#",
        "https://host:0/",
        "https://host:99999/",
        "https://host:port/",
        "https://ho st/",
        "https://host/v1\n",
        "https://ho\tst/",
        "https://host/v1\r\nX-Secret: 1",
        "https://[::1/",
        "https://[fe80::1%25eth0]/",
        "https://[fe80::1%eth0]/",
        "https://" + "a" * 64 + ".example/",
        "https://a..b/",
        "https://-host/",
        "https://host-/",
        "https://ho*st/",
        "https://host/pätsecret",
        "https://host\ud800/",
    ],
)
def test_a_base_url_that_could_lead_elsewhere_is_refused_without_showing_it(base_url: str) -> None:
    with pytest.raises(ValueError, match="base_url") as caught:
        Origin.parse(base_url)
    assert "secret" not in str(caught.value)


# ---- what is sent ----------------------------------------------------------------------------------------------------

ORIGIN = Origin.parse("https://api.example.com/v1")


def test_a_request_is_one_piece_of_bytes() -> None:
    headers = [("Authorization", "Bearer k"), ("X-Title", "Café")]
    assert encode_request(ORIGIN, "POST", "/chat?x=1", headers, b"{}") == (
        b"POST /v1/chat?x=1 HTTP/1.1\r\n"
        b"Host: api.example.com\r\n"
        b"Accept-Encoding: identity\r\n"
        b"User-Agent: gai-fast/%b\r\n"
        b"Authorization: Bearer k\r\n"
        b"X-Title: Caf\xc3\xa9\r\n"
        b"Content-Length: 2\r\n"
        b"\r\n{}"
    ) % (__version__.encode(),)


def test_content_length_stands_wherever_a_body_is_expected() -> None:
    assert b"Content-Length: 0\r\n" in encode_request(ORIGIN, "POST", "/", [], b"")
    assert b"Content-Length" not in encode_request(ORIGIN, "GET", "/", [], b"")


def test_a_configured_user_agent_takes_the_place_of_ours() -> None:
    request = encode_request(ORIGIN, "GET", "/", [("USER-agent", "mine")], b"")
    assert request.lower().count(b"user-agent") == 1


@pytest.mark.parametrize(
    "name",
    ["", "a b", "a:", "a\r\nb", "ä", "a\x00", "(a)", "content-length", "Host", "Transfer-Encoding", "CONNECTION"],
)
def test_a_header_that_would_break_the_framing_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="header"):
        encode_headers([(name, "secret")])


@pytest.mark.parametrize(
    "value", ["secret\r\nx: y", "secret\n", "secret\x00", "secret\x1b", "secret\x7f", "secret\ud800"]
)
def test_a_header_value_with_a_line_break_is_refused_and_not_shown(value: str) -> None:
    with pytest.raises(ValueError, match="'x-api-key'") as caught:
        encode_headers([("x-api-key", value)])
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("path", ["", "chat", "/a b", "/a\r\n", "/ä", "/a#b", "/a\x00"])
def test_a_path_that_would_break_the_framing_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="path"):
        encode_request(ORIGIN, "POST", path, [], b"")


@pytest.mark.parametrize("method", ["", "get", "GET /", "CONNECT", "G\r\n"])
def test_a_method_that_would_break_the_framing_is_refused(method: str) -> None:
    with pytest.raises(ValueError, match="method"):
        encode_request(ORIGIN, method, "/", [], b"")


# ---- what comes back -------------------------------------------------------------------------------------------------


def splits(data: bytes) -> Iterable[list[bytes]]:
    """Whole, byte by byte, and cut at random."""
    yield [data]
    yield [data[n : n + 1] for n in range(len(data))]
    chance = random.Random(len(data))
    for _ in range(10):
        edges = sorted({0, len(data), *(chance.randrange(len(data) + 1) for _ in range(chance.randrange(1, 6)))})
        yield [data[a:b] for a, b in itertools.pairwise(edges)]


def read(
    pieces: Iterable[bytes], method: str = "POST", eof: bool = False, known: KnownHead | None = None
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
        (LENGTH_5, False),
        (OK + b"\r\n", False),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + CHUNKED, False),
        (LONG, False),
    ],
)
def test_a_head_that_comes_again_is_what_it_was(head: bytes, is_kept: bool, method: str) -> None:
    answer = head + chunk(b"hello") + b"0\r\n\r\n"
    first, _ = read([answer])
    assert (first.known is not None) == is_kept
    for data in (
        answer,
        CHUNKED + chunk(b"hi") + b"0\r\n\r\n",
        LENGTH_5 + b"hello",
        head + b"broken",
        b"HTTP/2.0 200\r\n\r\n",
    ):
        for pieces in splits(data):
            (fresh, wanted), (reader, body) = read(pieces, method), read(pieces, method, known=first.known)
            assert (reader.head, body, reader.complete, reader.is_reusable) == (
                fresh.head, wanted, fresh.complete, fresh.is_reusable,
            )  # fmt: skip
            assert (reader.error and reader.error.reason) == (fresh.error and fresh.error.reason)


async def test_what_is_known_of_a_head_belongs_to_its_connection_and_to_nobody_who_is_told_it(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench().begin()
    bench.transport.feed(CHUNKED + b"0\r\n\r\n")
    assert bench.connection.known is not None
    assert bench.connection.known.data == CHUNKED
    bench.receiver.headers.clear()
    assert bench.connection.known.headers["content-type"] == "text/event-stream"
    assert make_bench().connection.known is None


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
        (b"Content-Encoding: br, identity\r\n", 500, "content_encoding"),
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


# ---- one exchange ----------------------------------------------------------------------------------------------------

REQUEST = b"POST / HTTP/1.1\r\n\r\n"


class FakeKeeper:
    """A pool with one connection, that writes down what it is told."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def connection_made(self, connection: UpstreamConnection) -> None:
        self.calls.append("made")

    def connection_free(self, connection: UpstreamConnection) -> None:
        self.calls.append("free")

    def connection_lost(self, connection: UpstreamConnection, exchange: Exchange | None, exc: Exception | None) -> None:
        self.calls.append("lost")
        if exchange is not None:
            exchange.connection_lost(exc)


class Bench:
    """One exchange on one connection whose peer the test plays."""

    def __init__(self, loop: Any, timers: TimerWheel, receiver: Any, make_transport: Any, **options: Any) -> None:
        self.loop = loop
        self.receiver = receiver
        self.keeper = FakeKeeper()
        self.connection = UpstreamConnection(self.keeper)
        self.transport = make_transport(self.connection, options.pop("buffered", 0))
        self.exchange = Exchange(
            "api.example.com:443",
            options.pop("method", "POST"),
            REQUEST,
            receiver,
            Timeouts(connect=5, idle=60, total=600),
            timers,
        )

    def begin(self, reused: bool = False) -> Bench:
        self.exchange.begin_connecting(lambda: None)
        self.exchange.begin(self.connection, reused=reused)
        return self


@pytest.fixture
def make_bench(loop: Any, timers: TimerWheel, make_recorder: Any, make_transport: Any) -> Callable[..., Bench]:
    return lambda **options: Bench(loop, timers, make_recorder(), make_transport, **options)


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Bench:
    return make_bench().begin()


async def test_a_request_goes_out_in_one_write_and_its_answer_comes_in_as_calls(bench: Bench) -> None:
    assert bench.transport.written == [REQUEST]
    assert (bench.exchange.sent, bench.exchange.reused) == (True, False)
    bench.transport.feed(CHUNKED)
    assert bench.receiver.calls == ["head"]
    bench.transport.feed(chunk(b"a"), chunk(b"b") + b"0\r\n\r\n")
    assert bench.receiver.calls == ["head", "body", "body", "end"]
    assert (bench.receiver.status, bench.receiver.body, bench.receiver.ends) == (200, b"ab", [None])
    assert bench.receiver.headers["content-type"] == "text/event-stream"
    assert bench.keeper.calls == ["made", "free"]
    assert not bench.loop.handles


async def test_one_read_is_one_call_however_many_chunks_it_holds(bench: Bench) -> None:
    bench.transport.feed(CHUNKED + b"".join(chunk(b"data: %d\n\n" % n) for n in range(300)))
    assert bench.receiver.calls == ["head", "body"]
    assert bench.receiver.body == b"".join(b"data: %d\n\n" % n for n in range(300))


async def test_a_connection_is_not_kept_where_the_answer_does_not_allow_it(make_bench: Callable[..., Bench]) -> None:
    for data in (
        OK + b"Connection: close\r\nContent-Length: 0\r\n\r\n",
        LENGTH_5 + b"hello!",
        b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    ):
        bench = make_bench().begin()
        bench.transport.feed(data)
        assert bench.receiver.ends == [None]
        assert bench.transport.aborted
        assert "free" not in bench.keeper.calls


async def test_an_answer_before_the_whole_request_was_taken_is_fine_but_ends_the_connection(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(buffered=9).begin()
    bench.transport.feed(LENGTH_5 + b"hello")
    assert bench.receiver.ends == [None]
    assert bench.transport.aborted


async def test_a_free_connection_on_which_something_comes_is_dropped(bench: Bench) -> None:
    bench.transport.feed(LENGTH_5 + b"hello")
    assert bench.keeper.calls == ["made", "free"]
    bench.transport.feed(LENGTH_5 + b"other")
    assert bench.transport.aborted
    assert bench.receiver.body == b"hello"


async def test_an_error_tells_whether_there_was_a_connection_and_leaves_the_rest_to_who_reads_the_answer(
    make_bench: Callable[..., Bench], settle: Any
) -> None:
    bench = make_bench()
    bench.exchange.fail(Error("network", "x", reason="dns"))
    assert bench.receiver.error.phase == "connect"
    for data in (b"", CHUNKED, CHUNKED + chunk(b"a")):
        bench = make_bench().begin()
        bench.transport.feed(data)
        bench.transport.eof()
        await settle()
        error = bench.receiver.error
        assert (error.code, error.reason, error.phase) == ("network", "truncated", None)
        assert "api.example.com:443" in error.message
        assert not bench.loop.handles


async def test_a_broken_connection_is_told_after_what_had_come(make_bench: Callable[..., Bench], settle: Any) -> None:
    for exc, reason in ((ConnectionResetError(), "reset"), (BrokenPipeError(), "reset"), (ssl.SSLError(), "tls")):
        bench = make_bench().begin()
        bench.transport.feed(CHUNKED + chunk(b"part"))
        bench.transport.lose(exc)
        await settle()
        assert bench.receiver.body == b"part"
        assert (bench.receiver.error.code, bench.receiver.error.reason) == ("network", reason)
        assert bench.receiver.error.phase is None


async def test_an_answer_that_ends_with_the_connection_ends_well(bench: Bench, settle: Any) -> None:
    bench.transport.feed(OK + b"\r\n", b"hello")
    bench.transport.eof()
    await settle()
    assert (bench.receiver.body, bench.receiver.ends) == (b"hello", [None])
    assert bench.keeper.calls == ["made", "lost"]


async def test_a_refused_answer_drops_the_connection(bench: Bench) -> None:
    bench.transport.feed(b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere/\r\nContent-Length: 0\r\n\r\n")
    assert bench.receiver.calls == ["end"]
    assert bench.receiver.error.reason == "redirect"
    assert bench.transport.aborted


async def test_a_closed_exchange_is_silent_and_its_connection_dead(
    make_bench: Callable[..., Bench], settle: Any
) -> None:
    for before in (b"", LENGTH_5, LENGTH_5 + b"he"):
        bench = make_bench().begin()
        bench.transport.feed(before)
        calls = list(bench.receiver.calls)
        bench.exchange.close()
        bench.exchange.close()
        assert bench.transport.aborted
        await settle()
        bench.exchange.pause_reading()
        bench.exchange.resume_reading()
        assert bench.receiver.calls == calls
        assert "free" not in bench.keeper.calls
        assert not bench.loop.handles


@pytest.mark.parametrize("data", [LENGTH_5 + b"hello", CHUNKED + chunk(b"hello") + b"zz"])
@pytest.mark.parametrize("when", ["on_head", "on_body"])
async def test_close_from_within_a_call_is_the_last_thing_heard(bench: Bench, when: str, data: bytes) -> None:
    setattr(bench.receiver, when, bench.exchange.close)
    bench.transport.feed(data)
    assert bench.receiver.calls == (["head"] if when == "on_head" else ["head", "body"])
    assert bench.transport.aborted
    assert "free" not in bench.keeper.calls


async def test_close_before_the_connection_is_there_stops_what_was_under_way(make_bench: Callable[..., Bench]) -> None:
    for state in ("begin_waiting", "begin_connecting"):
        stopped: list[str] = []
        bench = make_bench()
        getattr(bench.exchange, state)(lambda stopped=stopped, state=state: stopped.append(state))
        bench.exchange.close()
        bench.exchange.close()
        assert stopped == [state]
        assert bench.receiver.calls == []
        assert not bench.loop.handles


async def test_nothing_holds_on_to_an_exchange_that_is_over(make_bench: Callable[..., Bench]) -> None:
    gc.disable()
    try:
        bench = make_bench().begin()
        bench.transport.feed(CHUNKED + chunk(b"a") + b"0\r\n\r\n")
        receiver = weakref.ref(bench.receiver)
        del bench.receiver
        assert receiver() is None
    finally:
        gc.enable()


# ---- backpressure and time -------------------------------------------------------------------------------------------


async def test_pausing_reaches_the_transport_whenever_it_is_asked_for(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    bench.exchange.pause_reading()
    bench.begin()
    assert bench.transport.paused
    bench.exchange.resume_reading()
    assert not bench.transport.paused
    bench.exchange.pause_reading()
    bench.exchange.pause_reading()
    assert bench.transport.paused


async def test_a_connection_freed_while_paused_reads_again(bench: Bench) -> None:
    bench.receiver.on_body = bench.exchange.pause_reading
    bench.transport.feed(LENGTH_5 + b"hello")
    assert bench.keeper.calls == ["made", "free"]
    assert not bench.transport.paused


async def test_a_connect_that_takes_too_long_is_a_timeout(make_bench: Callable[..., Bench]) -> None:
    stopped: list[int] = []
    bench = make_bench()
    bench.loop.advance(100)  # the wait in the pool's queue is not the connect's
    bench.exchange.begin_connecting(lambda: stopped.append(1))
    bench.loop.advance(4.9)
    assert not bench.receiver.ends
    bench.loop.advance(0.2)
    error = bench.receiver.error
    assert (error.code, error.reason, error.phase) == ("timeout", "connect", "connect")
    assert stopped == [1]


async def test_what_stops_it_changes_as_its_connection_comes_about(make_bench: Callable[..., Bench]) -> None:
    bench, stopped = make_bench(), list[str]()
    bench.exchange.begin_connecting(lambda: stopped.append("connecting"))
    bench.exchange.abandon_by(lambda: stopped.append("made"))
    assert not bench.exchange.has_ended
    bench.exchange.close()
    bench.exchange.abandon_by(lambda: stopped.append("late"))
    bench.exchange.close()
    assert stopped == ["made"]
    assert bench.exchange.has_ended


async def test_silence_is_a_timeout_and_any_byte_begins_it_anew(bench: Bench) -> None:
    bench.loop.advance(59)
    bench.transport.feed(CHUNKED)
    bench.loop.advance(59)
    bench.transport.feed(b"5")  # not even a byte of the body
    bench.loop.advance(59.9)
    assert not bench.receiver.ends
    bench.loop.advance(0.2)
    error = bench.receiver.error
    assert (error.code, error.reason, error.phase) == ("timeout", "idle", None)
    assert bench.transport.aborted


async def test_no_idle_time_passes_while_reading_is_paused(bench: Bench) -> None:
    bench.transport.feed(CHUNKED + chunk(b"a"))
    bench.exchange.pause_reading()
    bench.loop.advance(300)
    assert not bench.receiver.ends
    bench.exchange.resume_reading()
    bench.loop.advance(59.9)
    assert not bench.receiver.ends
    bench.loop.advance(0.2)
    assert bench.receiver.error.reason == "idle"


async def test_the_total_time_runs_on_whatever_happens(make_bench: Callable[..., Bench]) -> None:
    busy, paused, waiting = make_bench().begin(), make_bench().begin(), make_bench()
    paused.exchange.pause_reading()
    waiting.exchange.begin_waiting(lambda: None)
    busy.transport.feed(CHUNKED)
    for _ in range(599):
        busy.loop.advance(1)
        busy.transport.feed(chunk(b"a"))
    assert not [bench for bench in (busy, paused, waiting) if bench.receiver.ends]
    busy.loop.advance(1.1)
    for bench, phase in ((busy, None), (paused, None), (waiting, "connect")):
        error = bench.receiver.error
        assert (error.code, error.reason, error.phase) == ("timeout", "total", phase)


async def test_a_busy_stream_costs_no_timer_per_read(bench: Bench) -> None:
    bench.transport.feed(CHUNKED)
    for _ in range(1000):
        bench.loop.advance(0.01)
        bench.transport.feed(chunk(b"a"))
    assert bench.loop.runs <= 2


async def test_a_stream_that_went_on_while_the_loop_stood_still_is_not_taken_for_silent(bench: Bench) -> None:
    bench.loop.stand_still(120)
    bench.transport.feed(CHUNKED)
    bench.loop.advance(30)
    assert not bench.receiver.ends


# ---- a socket that is lent -------------------------------------------------------------------------------------------


class Borrower:
    """Who reads the socket."""

    def __init__(self) -> None:
        self.is_reading = True

    def end_reading(self) -> None:
        self.is_reading = False


@pytest.fixture
def borrowed(bench: Bench) -> Iterator[tuple[Bench, Any]]:
    """A connection whose socket is lent, and to whom."""
    borrower: Any = Borrower()
    assert bench.connection.lend(borrower) == -1, "it has no socket"
    assert not bench.transport.paused
    with socket.socket() as bench.transport.socket:
        assert bench.connection.lend(borrower) == bench.transport.socket.fileno()
        assert bench.transport.paused
        yield bench, borrower


async def test_a_socket_is_read_again_once_it_is_taken_back(borrowed: tuple[Bench, Any]) -> None:
    bench, borrower = borrowed
    bench.connection.take_back()
    bench.connection.take_back()
    assert not borrower.is_reading
    assert not bench.transport.paused


async def test_a_connection_that_does_not_read_lends_nothing(borrowed: tuple[Bench, Any]) -> None:
    bench, borrower = borrowed
    bench.exchange.pause_reading()
    assert not borrower.is_reading
    assert bench.transport.paused
    assert bench.connection.lend(borrower) == -1


@pytest.mark.parametrize("end", ["close", "fail", "lost"])
async def test_nobody_reads_the_socket_of_a_connection_that_is_closed(borrowed: tuple[Bench, Any], end: str) -> None:
    bench, borrower = borrowed
    if end == "close":
        bench.exchange.close()
    elif end == "fail":
        bench.exchange.fail(Error("internal", "no"))
    else:
        bench.connection.connection_lost(None)
    assert not borrower.is_reading


async def test_a_connection_is_told_what_its_borrower_was(borrowed: tuple[Bench, Any]) -> None:
    bench, borrower = borrowed
    bench.connection.broke(ConnectionResetError(104, "Connection reset by peer"))
    await asyncio.sleep(0)
    assert not borrower.is_reading
    assert bench.transport.aborted
    (error,) = bench.receiver.ends
    assert (error.code, error.reason) == ("network", "reset")
