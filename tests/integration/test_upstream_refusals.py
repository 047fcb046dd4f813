"""Failures that no other attempt mends (refused TLS, redirects, refusals): reported at once, or a fallback answers."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from gai_fast.model.settings import BreakerSettings
from gai_fast.net.attempts.retry import AttemptFailure, RetryPolicy, RetryVerdict
from gai_fast.net.engine.engine import Engine
from gai_fast.net.upstream.tls import default_ssl_context
from gai_fast.server import service
from tests.conftest import ChangeLimits
from tests.integration.certificates import Authority
from tests.integration.gateway import (
    CHAT,
    END,
    LAST_CHUNK,
    MESSAGES,
    NATIVE,
    QUERY,
    SSE_HEAD,
    Handler,
    Net,
    Peer,
    Response,
    Upstream,
    delta,
    on_both_loops,
    on_steady_loop,
    on_uvloop,
)
from tests.integration.test_retry import BUSY, REFUSED, Step, Steps, answer, gateway_for
from tests.waiting import until
from tests.wire import chunk

pytestmark = pytest.mark.usefixtures("quick_retries")


@pytest.fixture
def verdicts(monkeypatch: pytest.MonkeyPatch) -> list[RetryVerdict]:
    """Returns the decision on each failure."""
    seen: list[RetryVerdict] = []

    class Telling(RetryPolicy):
        def decide(self, failure: AttemptFailure, now: float) -> RetryVerdict:
            seen.append(super().decide(failure, now))
            return seen[-1]

    def engine(*args: Any) -> Engine:
        made = Engine(*args)
        made.targets.policy = Telling()
        return made

    monkeypatch.setattr(service, "Engine", engine)
    return seen


async def asked(gateway: Any, path: str = NATIVE, **more: Any) -> Response:
    body = {"model": "m", **(QUERY if path == NATIVE else {"messages": MESSAGES, "stream": True}), **more}
    response: Response = await gateway.ask("POST", path, body)
    return response


# ---- TLS -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def trusted(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Iterator[Authority]:
    """Yields the authority, trusted as an operator makes it so: by OpenSSL's own variable."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.folder / "ca.pem"))
    default_ssl_context.cache_clear()
    yield authority
    default_ssl_context.cache_clear()


class TLSUpstream(Upstream):
    """An upstream behind TLS."""

    def __init__(self, handler: Handler, context: ssl.SSLContext) -> None:
        super().__init__(handler)
        self._context = context

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._context)


class Door:
    """Stands before a server: counts who comes, and cuts the first ones off in the middle of their handshake."""

    def __init__(self, url: str, cuts: int) -> None:
        self.port = int(url.rpartition(":")[2])
        self.cuts = cuts
        self.calls = 0

    async def __call__(self, peer: Peer) -> None:
        self.calls += 1
        hello = await peer.reader.read(65536)
        if self.calls <= self.cuts:
            peer.reset()
            return
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(hello)
        try:
            await asyncio.gather(pipe(peer.reader, writer), pipe(reader, peer.writer))
        finally:
            writer.transport.abort()


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def behind_tls(net: Net, handler: Handler, context: ssl.SSLContext, cuts: int = 0) -> tuple[str, Door]:
    """Serves behind TLS; its URL, and the door that counts."""
    upstream = TLSUpstream(handler, context)
    await upstream.start()
    net.stack.push_async_callback(upstream.stop)
    door = Door(upstream.url, cuts)
    return (await net.upstream(door)).url.replace("http:", "https:"), door


CERTIFICATES = {
    "of an authority that nobody knows": ("own", "self-signed certificate"),
    "for another host": ("elsewhere", "IP address mismatch"),
    "that has expired": ("expired", "certificate has expired"),
}


@pytest.mark.parametrize(("name", "words"), CERTIFICATES.values(), ids=CERTIFICATES)
@on_both_loops
async def test_a_certificate_that_does_not_verify_is_reported_at_once(
    net: Net, trusted: Authority, verdicts: list[RetryVerdict], name: str, words: str
) -> None:
    """It will not verify on a retry either: whoever retried would make a client wait for the same answer."""
    main = Steps(answer())
    url, door = await behind_tls(net, main, trusted.server(name))
    gateway = await gateway_for(net, url)
    for path in (NATIVE, CHAT):
        response = await asked(gateway, path)
        assert response.status == 502
        if path == NATIVE:
            error = response.error
            assert (error["code"], error["reason"], error["phase"]) == ("network", "tls", "connect")
        assert words in response.body.decode()
        assert url.removeprefix("https://") in response.body.decode()
    assert (door.calls, main.calls) == (2, 0), "once for each request, and nothing was sent"
    assert [verdict.action for verdict in verdicts] == ["next", "next"]


@pytest.mark.parametrize("stream", [True, False])
@on_uvloop
async def test_the_fallback_answers_for_an_upstream_whose_certificate_does_not_verify(
    net: Net, trusted: Authority, stream: bool
) -> None:
    main, backup = Steps(answer()), Steps(answer())
    url, door = await behind_tls(net, main, trusted.server("elsewhere"))
    gateway = await gateway_for(net, url, backup)
    response = await asked(gateway, stream=stream)
    assert (response.status, door.calls, main.calls, backup.calls) == (200, 1, 0, 1)
    assert (response.text if stream else response.json["text"]) == "Hello"


@on_uvloop
async def test_without_our_authority_a_good_certificate_is_none(net: Net, authority: Authority) -> None:
    main = Steps(answer())
    url, door = await behind_tls(net, main, authority.server("good"))
    gateway = await gateway_for(net, url)
    assert (await asked(gateway)).error["reason"] == "tls"
    assert (door.calls, main.calls) == (1, 0)


@on_both_loops
async def test_a_handshake_that_is_cut_off_is_tried_again(net: Net, trusted: Authority) -> None:
    """A server that is restarted, or a balancer that lost one, cuts: the next handshake may succeed."""
    main = Steps(answer())
    url, door = await behind_tls(net, main, trusted.server("good"), cuts=2)
    gateway = await gateway_for(net, url)
    assert (await asked(gateway)).text == "Hello"
    assert (door.calls, main.calls) == (3, 1)


@on_both_loops
async def test_handshakes_that_are_always_cut_off_go_to_the_fallback_or_are_reported(
    net: Net, trusted: Authority
) -> None:
    main, backup = Steps(answer()), Steps(answer())
    url, door = await behind_tls(net, main, trusted.server("good"), cuts=1000)
    assert (await asked(await gateway_for(net, url, backup))).text == "Hello"
    assert (door.calls, main.calls, backup.calls) == (3, 0, 1)
    response = await asked(await gateway_for(net, url))
    assert (response.status, response.error["code"], response.error["reason"]) == (502, "network", "tls")
    assert door.calls == 6


@on_both_loops
async def test_a_handshake_that_stalls_ends_with_connect_timeout(net: Net) -> None:
    async def stalls(peer: Peer) -> None:
        stalled.append(peer)
        await peer.until_gone()

    stalled: list[Peer] = []
    backup = Steps(answer())
    url = (await net.upstream(stalls)).url.replace("http:", "https:")
    assert (await asked(await gateway_for(net, url, backup, connect_timeout=0.1))).text == "Hello"
    response = await asked(await gateway_for(net, url, connect_timeout=0.1))
    assert (response.status, response.error["code"], response.error["reason"]) == (504, "timeout", "connect")
    assert (len(stalled), backup.calls) == (6, 1), "the next address, or the next server behind it, may answer"


@on_uvloop
async def test_tls_that_fails_opens_the_breaker_like_any_failure_to_connect(net: Net, trusted: Authority) -> None:
    url, door = await behind_tls(net, Steps(answer()), trusted.server("own"))
    gateway = await gateway_for(net, url, breaker=BreakerSettings(failures=2))
    result = [(await asked(gateway)).error["reason"] for _ in range(3)]
    assert (result, door.calls) == (["tls", "tls", "breaker_open"], 2)
    assert net.warned("'up' keeps failing (network, tls)") == 1


# ---- redirects -------------------------------------------------------------------------------------------------------

REDIRECTS = ["301 Moved Permanently", "302 Found", "303 See Other", "307 Temporary Redirect", "308 Permanent Redirect"]


@pytest.mark.parametrize("status", [*REDIRECTS, "300 Multiple Choices", "304 Not Modified"])
@on_uvloop
async def test_a_redirect_is_neither_followed_nor_tried_again(
    net: Net, status: str, verdicts: list[RetryVerdict]
) -> None:
    """It lies in somebody's configuration; following it would carry our key to a place that nobody configured."""
    there, backup = Steps(answer()), Steps(answer())
    location = f"Location: {(await net.upstream(there)).url}/v1/chat/completions"
    main = Steps((status, b"", location))
    for path in (NATIVE, CHAT):
        response = await asked(await gateway_for(net, main), path)
        assert response.status == 503
        assert status[:3] in response.body.decode()
        assert location.removeprefix("Location: ") not in response.body.decode()
        if path == NATIVE:
            assert (response.error["code"], response.error["reason"]) == ("provider_unavailable", "redirect")
    assert (await asked(await gateway_for(net, main, backup))).text == "Hello"
    assert (main.calls, there.calls, backup.calls) == (3, 0, 1)
    assert [verdict.action for verdict in verdicts] == ["next"] * 3


# ---- refusals are not waited for -------------------------------------------------------------------------------------

SLOW_DOWN = ("429 Too Many Requests", b'{"error":{"message":"slow down"}}', "Retry-After: 7")
REFUSALS: dict[str, tuple[Step, int]] = {
    "429 for longer than a head is held": (SLOW_DOWN, 429),
    "a quota that is spent": (("429 Too Many Requests", b'{"error":{"code":"insufficient_quota","message":"x"}}'), 429),
    "400": (("400 Bad Request", REFUSED["an invalid request"]), 400),
    "a content filter": (("400 Bad Request", REFUSED["a content filter"]), 400),
    "our key": (("401 Unauthorized", b'{"error":{"message":"bad key"}}'), 502),
    "no such model": (("404 Not Found", b'{"error":{"message":"no such model","code":"model_not_found"}}'), 404),
}


@pytest.mark.parametrize(("step", "status"), REFUSALS.values(), ids=REFUSALS)
@pytest.mark.parametrize("path", [NATIVE, CHAT])
@on_steady_loop
async def test_what_a_retry_cannot_help_is_reported_after_one_attempt_and_no_wait(
    net: Net, verdicts: list[RetryVerdict], path: str, step: Step, status: int
) -> None:
    main = Steps(step)
    response = await asked(await gateway_for(net, main, commit_after=5), path)
    assert (response.status, main.calls) == (status, 1)
    assert all(verdict.action != "again" and verdict.delay == 0 for verdict in verdicts)
    assert len(verdicts) == 1
    net.warned("upstream 'up'")


@on_uvloop
async def test_while_a_breaker_is_open_nothing_is_asked_decided_or_waited_for(
    net: Net, verdicts: list[RetryVerdict]
) -> None:
    main = Steps(BUSY)
    gateway = await gateway_for(net, main, retries=0, breaker=BreakerSettings(failures=1, open=60))
    await asked(gateway)
    verdicts.clear()
    refused = [await asked(gateway, path) for path in (NATIVE, CHAT) for _ in range(5)]
    assert [response.status for response in refused] == [503] * 10
    assert (main.calls, verdicts) == (1, [])
    assert net.warned("'up' keeps failing") == 1


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", [NATIVE, CHAT])
@on_uvloop
async def test_an_error_that_is_nested_too_deep_to_be_reported_ends_the_answer(
    net: Net, path: str, stream: bool
) -> None:
    deep = b"[" * 900 + b"]" * 900
    for error in (b'{"error":{"message":%b}}' % deep, b'{"error":{"message":"m","more":%b}}' % deep):
        frames = chunk(delta("Hello")) + chunk(b"data: %b\n\n" % error) + LAST_CHUNK
        steps: list[Step] = [("429 Too Many Requests", error), ("200 OK", error), SSE_HEAD + frames]
        main = Steps(*steps)
        gateway = await gateway_for(net, main, retries=0)
        for _ in steps:
            response = await asked(gateway, path, stream=stream)
            assert response.ended
            assert b"error" in response.body
        assert main.calls == len(steps)


# ---- our own pool ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("full", [True, False], ids=["too many wait", "nothing comes free"])
@pytest.mark.parametrize("helped", [True, False], ids=["a fallback", "alone"])
@on_steady_loop
async def test_a_full_pool_of_ours_is_reported_after_no_retry_and_opens_no_breaker(
    net: Net, verdicts: list[RetryVerdict], change_limits: ChangeLimits, full: bool, helped: bool
) -> None:
    async def at_work(peer: Peer) -> None:
        await peer.request()
        await peer.send(SSE_HEAD, chunk(delta("Hel")))
        await peer.until_gone()

    if full:
        change_limits(pool_waiting=0)
    upstream, backup = await net.upstream(at_work), Steps(answer())
    options = {"max_connections": 1, "breaker": BreakerSettings(failures=1), "pool_wait": 0.1}
    gateway = await gateway_for(net, upstream.url, backup if helped else None, **options)
    client, response = await gateway.stream({**QUERY, "model": "m"})
    await response.until(b"Hel")
    result = await asked(gateway)
    if helped:
        assert result.text == "Hello"
    else:
        assert (result.status, result.error["code"]) == (503, "overloaded")
        assert (result.error["reason"], result.error["phase"]) == ("upstream_pool", "connect")
        assert "max_connections = 1" in result.error["message"]
        assert result.headers["retry-after"] == "1"
        scraped = (await gateway.ask("GET", "/metrics")).body.decode()
        waits = 0 if full else 1
        assert f"gai_fast_upstream_pool_wait_seconds_count {waits}.0" in scraped
        assert 'gai_fast_upstream_pool_waiting{upstream="up"} 0.0' in scraped
    assert net.warned("all of max_connections = 1 are in use") == 1
    assert gateway.running.engine.targets.breaker_states()["up"] == "closed"
    assert [verdict.action for verdict in verdicts] == ["next"]
    client.close()
    await until(lambda: gateway.streams == 0)
    assert len(upstream.peers) == 1


# ---- what is not refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lines",
    [
        b"Content-Type: application/json, text/event-stream\r\n",
        b"Content-Type: application/json\r\nContent-Type: text/event-stream; charset=utf-8\r\n",
        b"Content-Type: text/event-stream\r\nContent-Type: text/event-stream\r\n",
    ],
    ids=["in one header", "in two headers", "twice"],
)
@on_steady_loop
async def test_a_stream_type_among_several_is_a_stream(net: Net, lines: bytes) -> None:
    async def handle(peer: Peer) -> None:
        await peer.request()
        head = b"HTTP/1.1 200 OK\r\n" + lines + b"Transfer-Encoding: chunked\r\n\r\n"
        await peer.send(head, chunk(delta("Hi")), *END)

    gateway = await gateway_for(net, (await net.upstream(handle)).url)
    response = await asked(gateway)
    assert (response.status, response.text, response.types[-1]) == (200, "Hi", "done")
