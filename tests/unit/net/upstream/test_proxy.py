"""`gai_fast/net/upstream/proxy.py`: a tunnel through an HTTP proxy, and every answer that opens none."""

from __future__ import annotations

import asyncio
import base64
import socket

import pytest

from gai_fast.model.errors import Error
from gai_fast.net.upstream.http_request import Origin
from gai_fast.net.upstream.proxy import Proxy, open_tunnel
from tests.limits import LIMITS

PROXY = Proxy.parse("http://proxy.example:3128")
UPSTREAM = Origin.parse("https://api.example.com/v1")


@pytest.mark.parametrize(
    ("url", "host", "port", "credentials"),
    [
        ("http://proxy.example:3128", "proxy.example", 3128, ""),
        ("http://proxy.example/", "proxy.example", 80, ""),
        ("http://[::1]:3128", "::1", 3128, ""),
        ("http://user:pass@10.0.0.1:8080", "10.0.0.1", 8080, "user:pass"),
        ("http://us%40er:p%3Aa%2Fss@h", "h", 80, "us@er:p:a/ss"),
        ("http://user@h", "h", 80, "user:"),
    ],
)
def test_a_url_names_the_proxy_and_its_user(url: str, host: str, port: int, credentials: str) -> None:
    proxy = Proxy.parse(url)
    assert (proxy.origin.host, proxy.origin.port) == (host, port)
    assert proxy.credentials == (f"Basic {base64.b64encode(credentials.encode()).decode()}" if credentials else "")
    assert "Basic" not in repr(proxy)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "proxy:3128",
        "https://proxy",
        "socks5://proxy",
        "http://",
        "http://proxy/path",
        "http://proxy?q",
        "http://proxy#f",
        "http://pro xy",
        "http://proxy:port",
        "http://proxy:0",
        "http://[::1",
        "http://user:secret@",
        "http://user:secret\udcff@proxy",
        "http://user:secret\n@proxy",
    ],
)
def test_anything_else_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ValueError, match="must") as caught:
        Proxy.parse(url)
    assert "secret" not in str(caught.value)


async def tunnel(*answers: bytes, proxy: Proxy = PROXY, upstream: Origin = UPSTREAM, ends: bool = False) -> bytes:
    """Returns the request that a proxy gets, which answers in these pieces."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        opening = loop.create_task(open_tunnel(loop, ours, proxy, upstream))
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            request += await loop.sock_recv(theirs, 1 << 16)
        for answer in answers:
            await loop.sock_sendall(theirs, answer)
            await asyncio.sleep(0)
        if ends:
            theirs.close()
        await opening
    return request


@pytest.mark.parametrize(
    "answers",
    [
        (b"HTTP/1.1 200 Connection established\r\n\r\n",),
        (b"HTTP/1.0 200 OK\r\nVia: x\r\n\r\n",),
        (b"HTTP/1.1 200\r\n\r\n",),
        (b"HTTP/1.1 2", b"00 OK\r\nA: b\r", b"\n\r\n"),
    ],
)
async def test_a_proxy_is_asked_for_the_upstream_and_opens_the_tunnel(answers: tuple[bytes, ...]) -> None:
    assert await tunnel(*answers) == b"CONNECT api.example.com:443 HTTP/1.1\r\nHost: api.example.com:443\r\n\r\n"


async def test_the_user_is_sent_and_an_ipv6_address_is_in_brackets() -> None:
    proxy = Proxy.parse("http://user:pass@proxy.example")
    request = await tunnel(b"HTTP/1.1 200 OK\r\n\r\n", proxy=proxy, upstream=Origin.parse("http://[2001:db8::1]:81/v1"))
    assert request.startswith(b"CONNECT [2001:db8::1]:81 HTTP/1.1\r\n")
    assert b"\r\nProxy-Authorization: Basic dXNlcjpwYXNz\r\n" in request


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n", "407"),
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 3\r\n\r\nbad", "502"),
        (b"HTTP/1.1 301 Moved\r\nLocation: http://x\r\n\r\n", "301"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "100"),
        (b"HTTP/2 200\r\n\r\n", "did not answer as an HTTP proxy"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "did not answer as an HTTP proxy"),
        (b"HTTP/1.1 200 OK\r\n\r\nmore", "before it was asked"),
        (b"HTTP/1.1 200 " + b"x" * LIMITS.response_head + b"\r\n\r\n", "bytes of headers"),
    ],
)
async def test_every_other_answer_opens_none(answer: bytes, words: str) -> None:
    with pytest.raises(Error) as caught:
        await tunnel(answer)
    assert (caught.value.code, caught.value.reason) == ("network", "proxy")
    assert words in caught.value.message
    assert "proxy.example:3128" in caught.value.message


async def test_a_proxy_that_closes_opens_none() -> None:
    with pytest.raises(Error) as caught:
        await tunnel(b"HTTP/1.1 200 OK\r\n", ends=True)
    assert (caught.value.reason, "closed" in caught.value.message) == ("proxy", True)


@pytest.mark.parametrize(
    "url", ["http://169.254.169.254", "http://metadata.google.internal", "http://0xa9fea9fe", "http://[fe80::1]"]
)
async def test_a_metadata_service_is_not_asked_for(url: str) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with pytest.raises(Error) as caught:
            await open_tunnel(asyncio.get_running_loop(), ours, PROXY, Origin.parse(url))
        theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            theirs.recv(1)
    assert (caught.value.code, caught.value.reason) == ("network", "forbidden_address")
