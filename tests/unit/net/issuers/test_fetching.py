"""The two documents of an issuer: what may be asked, and what is refused of an answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from gai_fast.model.addresses import is_https_or_loopback
from gai_fast.net.issuers.fetching import IssuerError, fetch_keys
from tests.conftest import ChangeLimits
from tests.issuer import jwk
from tests.limits import LIMITS

DISCOVERY = "/.well-known/openid-configuration"
Answers = dict[str, Callable[[], web.StreamResponse]]


@asynccontextmanager
async def serving(answers: Answers, asked: list[str]) -> AsyncIterator[str]:
    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        return answers[request.path]()

    app = web.Application()
    app.router.add_get("/{tail:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def as_json(document: Any, status: int = 200, **headers: str) -> Callable[[], web.StreamResponse]:
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    return lambda: web.Response(body=data, status=status, headers=headers)


def fetched(path: str = "", keys: Any = None, **discovery: Any) -> tuple[int | str, list[str]]:
    """Returns the number of keys that a fetch brings, or why it fails; and the paths that were asked."""
    asked: list[str] = []

    async def main() -> int | str:
        answers: Answers = {}
        async with serving(answers, asked) as server:
            url = server + path
            document = {"issuer": url, "jwks_uri": f"{server}/keys", **discovery}
            answers[f"{path.rstrip('/')}{DISCOVERY}"] = discovery.get("answer") or as_json(document)
            answers["/keys"] = keys or as_json({"keys": [jwk("P-256")]})
            answers["/elsewhere"] = as_json({"keys": [jwk("P-256")], "issuer": url, "jwks_uri": f"{server}/keys"})
            try:
                return len(await fetch_keys(url))
            except IssuerError as problem:
                return str(problem)

    return asyncio.run(main()), asked


@pytest.mark.parametrize("path", ["", "/", "/realms/staff", "/realms/staff/"])
def test_the_keys_are_found_by_discovery(path: str) -> None:
    assert fetched(path) == (1, [f"{path.rstrip('/')}{DISCOVERY}", "/keys"])


@pytest.mark.parametrize("other", ["https://evil.example", "", None, 7])
def test_the_document_must_be_of_this_issuer(other: Any) -> None:
    """OpenID Connect Discovery 1.0, 4.3."""
    found, asked = fetched(issuer=other)
    assert "another `issuer`" in str(found)
    assert asked == [DISCOVERY]


@pytest.mark.parametrize(
    "place",
    [
        None,
        7,
        "",
        "/keys",
        "keys",
        "ftp://login.example.com/keys",
        "file:///etc/passwd",
        "http://login.example.com/keys",
        "http://169.254.169.254/latest/meta-data",
        "https://169.254.169.254/keys",
        "https://[fe80::1]/keys",
        "https://metadata.google.internal/keys",
        "https://user:password@login.example.com/keys",
        "https://login.example.com/keys#a",
        "https://login.example.com/a b",
        "https://login.example.com:x/keys",
        "https://[::1/keys",
    ],
)
def test_keys_come_over_https_or_from_this_machine(place: Any) -> None:
    found, asked = fetched(jwks_uri=place)
    assert "no `jwks_uri` with https" in str(found)
    assert asked == [DISCOVERY]


def test_which_urls_may_be_asked() -> None:
    right = [
        "https://a.example",
        "https://a.example:8443/x?y=1",
        "http://127.0.0.1:1/x",
        "http://localhost/",
        "http://[::1]:5",
    ]
    assert all(map(is_https_or_loopback, right))
    wrong = [
        "http://a.example",
        "http://10.0.0.1",
        "http://localhost.evil.example",
        "//a.example",
        "https://",
        "https://é.example",
    ]
    assert not any(map(is_https_or_loopback, wrong))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(status: int) -> None:
    moved = as_json({}, status, location="/elsewhere")
    for given in ({"answer": moved}, {"keys": moved}):
        found, asked = fetched(**given)
        assert f"status {status}" in str(found)
        assert "/elsewhere" not in asked


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (as_json({}, 404), "status 404"),
        (as_json({}, 500), "status 500"),
        (as_json(b"<html>"), "no JSON object"),
        (as_json(b""), "no JSON object"),
        (as_json([]), "no JSON object"),
        (as_json(b"\xff\xfe"), "no JSON object"),
        (as_json(b"[" * 100_000), "no JSON object"),
        (as_json(b"\x1f\x8b\x08" + bytes(50), **{"content-encoding": "gzip"}), "no JSON object"),
        (as_json(b" " * (LIMITS.issuer_document + 1)), f"more than {LIMITS.issuer_document} bytes"),
    ],
)
def test_other_answers_are_refused(answer: Any, words: str) -> None:
    for given in ({"answer": answer}, {"keys": answer}):
        assert words in str(fetched(**given)[0])


def test_a_set_without_usable_keys_is_refused() -> None:
    assert "no key for" in str(fetched(keys=as_json({"keys": [{"kty": "oct", "k": "AA"}]}))[0])
    assert "no list" in str(fetched(keys=as_json({}))[0])


def test_an_issuer_that_hangs_or_sends_for_ever_is_given_up(change_limits: ChangeLimits) -> None:
    change_limits(issuer_fetch=0.2)

    async def fetch(head: bytes, piece: bytes) -> str:
        has_ended = asyncio.Event()

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(head)
            try:
                while piece:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0.01)
                await reader.read()
                writer.close()
                await writer.wait_closed()
            except ConnectionError:
                pass
            has_ended.set()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with server:
            with pytest.raises(IssuerError) as caught:
                await fetch_keys(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
            await has_ended.wait()
        return str(caught.value)

    endless = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert "within 0.2 s" in asyncio.run(fetch(b"", b""))
    assert "within 0.2 s" in asyncio.run(fetch(endless, b"1\r\n \r\n"))
    assert "within 0.2 s" in asyncio.run(fetch(b"HTTP/1.1 200 OK\r\n", b"x: y\r\n"))
    assert "more than" in asyncio.run(fetch(endless, b"10000\r\n" + b" " * 65536 + b"\r\n"))
    assert "cannot be reached" in asyncio.run(fetch(b"SSH-2.0\r\n\r\n", b""))


def test_an_issuer_that_is_down_is_named_as_such() -> None:
    async def fetch(url: str) -> str:
        with pytest.raises(IssuerError) as caught:
            await fetch_keys(url)
        return str(caught.value)

    assert "cannot be reached" in asyncio.run(fetch("http://127.0.0.1:1"))


def test_a_name_with_a_forbidden_address_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fetch() -> str:
        async def getaddrinfo(*args: Any, **options: Any) -> Any:
            return [(2, 1, 6, "", ("169.254.169.254", 443))]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
        with pytest.raises(IssuerError) as caught:
            await fetch_keys("https://login.example.com")
        return str(caught.value)

    assert "cannot be reached" in asyncio.run(fetch())
