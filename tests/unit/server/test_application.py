"""The application on anybody's server: mounted under a prefix, behind middlewares; heads and bodies within limits."""

from __future__ import annotations

import asyncio
import json
import logging
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import pytest
from aiohttp import ClientSession, web
from aiohttp.web_protocol import RequestHandler
from yarl import URL

from gai_fast.cli.mock.command import Mock
from gai_fast.model.settings import ModelSettings, ServerSettings, Settings, UpstreamSettings
from gai_fast.server.application import add_routes, build_application
from gai_fast.server.http.replies import Reply, StreamHead
from gai_fast.server.http.request import HTTPRequest
from gai_fast.server.routes.router import Mount, Router
from gai_fast.server.service import new_service
from tests.waiting import SECONDS

QUERY = {"query": "hi"}
CHAT = {"messages": [{"role": "user", "content": "hi"}]}


def settings(url: str = "http://127.0.0.1:9", **server: Any) -> Settings:
    upstream = UpstreamSettings("up", "openai-compatible", f"{url}/v1")
    models = {"m": ModelSettings("m", upstream, "mock")}
    return Settings(server=ServerSettings(**server), upstreams={"up": upstream}, models=models)


class Site:
    def __init__(self, client: ClientSession, url: str) -> None:
        self.client = client
        self.url = url

    async def raw(self, *pieces: bytes) -> tuple[int, dict[str, Any]]:
        """Returns the status and the error of a request in bytes."""
        host, port = self.url.removeprefix("http://").split("/")[0].split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        async with asyncio.timeout(SECONDS):
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            body = await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
        writer.close()
        return int(head.split(b" ")[1]), json.loads(body)["error"]


@asynccontextmanager
async def running(*middlewares: Any, prefix: str = "/gw", signal: Any = None, **server: Any) -> AsyncIterator[Site]:
    outer = web.Application(middlewares=middlewares)
    runner = web.AppRunner(outer, shutdown_timeout=0.05)
    async with Mock(deltas=3) as mock:
        gateway = build_application(settings(mock.url, **server))
        if signal is not None:
            gateway.on_response_prepare.append(signal)
        outer.add_subapp(prefix, gateway)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0]
        try:
            async with ClientSession() as client:
                yield Site(client, f"http://{host}:{port}{prefix}")
        finally:
            await runner.cleanup()
            await asyncio.sleep(0.01)  # the loop closes the sockets


@pytest.mark.parametrize("prefix", ["/gw", "/a/b"])
async def test_every_route_is_there_under_the_prefix(prefix: str) -> None:
    async with running(prefix=prefix) as site:
        async with site.client.get(f"{site.url}/healthz") as response:
            assert await response.json() == {"status": "ok"}
        async with site.client.get(f"{site.url}/version") as response:
            assert (await response.json())["fast_lane"] is False
        async with site.client.get(f"{site.url}/v1/models/m") as response:
            assert (await response.json())["id"] == "m"
        async with site.client.get(f"{site.url}/metrics") as response:
            assert "gai_fast" in await response.text()
        async with site.client.post(f"{site.url}/api/v1/stream", json=QUERY) as response:
            assert response.content_type == "text/event-stream"
            assert (await response.text()).rstrip().endswith('{"type":"done","finished":true}')
        async with site.client.post(f"{site.url}/api/v1/stream", json={**QUERY, "stream": False}) as response:
            assert (await response.json())["finish_reason"] == "stop"
        async with site.client.get(f"{site.url.removesuffix(prefix)}/healthz") as response:
            assert response.status == 404
            assert response.content_type == "text/plain", "outside the prefix it is somebody else's"


async def test_the_playground_finds_its_files_under_the_prefix() -> None:
    async with running() as site:
        async with site.client.get(f"{site.url}/") as response:
            page = await response.text()
        assert 'src="playground/app.js"' in page
        async with site.client.get(f"{site.url}/playground/app.js") as response:
            script = await response.text()
        assert response.status == 200
        assert 'fetch("/' not in script
        assert "fetch(`/" not in script


@pytest.mark.parametrize(("query", "kept"), [("", ""), ("?q=a%20b&c", "?q=a%20b&c"), ('?q="b"', "?q=%22b%22")])
async def test_the_prefix_alone_leads_to_the_root_below_it_with_the_query_and_the_request_id(
    query: str, kept: str
) -> None:
    async with running() as site:
        url, ids = URL(f"{site.url}{query}", encoded=True), {"X-Request-Id": "mine"}
        async with site.client.get(url, headers=ids, allow_redirects=False) as response:
            assert (response.status, response.headers["location"]) == (308, f"/gw/{kept}")
            assert (response.headers["x-request-id"], response.headers["request-id"]) == ("mine", "mine")


async def test_unknown_paths_and_methods_have_the_errors_of_their_section() -> None:
    async with running() as site:
        for path, members in (("/nothing", {"code", "message", "temporary", "reason", "request_id"}),):
            async with site.client.get(f"{site.url}{path}") as response:
                assert response.status == 404
                assert (await response.json())["error"].keys() == members
        async with site.client.get(f"{site.url}/v1/nothing") as response:
            assert (await response.json())["error"].keys() == {"message", "type", "param", "code"}
        async with site.client.put(f"{site.url}/healthz") as response:
            assert (response.status, response.headers["allow"]) == (405, "GET, HEAD, OPTIONS")


async def test_middlewares_of_others_see_every_request_and_answer() -> None:
    seen: list[tuple[str, int]] = []

    @web.middleware
    async def watch(request: web.Request, handler: Any) -> web.StreamResponse:
        response: web.StreamResponse = await handler(request)
        response.headers["x-late"] = "1"
        seen.append((request.path, response.status))
        return response

    async with running(watch) as site:
        for path in ("/healthz", "/nothing"):
            async with site.client.get(f"{site.url}{path}") as response:
                assert response.headers["x-late"] == "1"
        async with site.client.post(f"{site.url}/api/v1/stream", json=QUERY) as response:
            await response.read()
    assert seen == [("/gw/healthz", 200), ("/gw/nothing", 404), ("/gw/api/v1/stream", 200)]


async def test_a_middleware_may_have_read_the_body() -> None:
    @web.middleware
    async def read(request: web.Request, handler: Any) -> web.StreamResponse:
        assert await request.json() == QUERY
        response: web.StreamResponse = await handler(request)
        return response

    async with running(read) as site, site.client.post(f"{site.url}/api/v1/stream", json=QUERY) as response:
        assert response.status == 200
        await response.read()


async def test_the_host_rule_judges_by_the_sockets_own_address() -> None:
    for allowed, status in (((), 403), (("evil.example",), 200)):
        async with running(allowed_hosts=allowed) as site:
            response = await site.client.get(f"{site.url}/healthz", headers={"Host": "evil.example"})
            assert response.status == status


async def test_an_exception_of_a_signal_is_one_500_in_the_shape_of_the_route(caplog: pytest.LogCaptureFixture) -> None:
    calls = 0

    async def fail(request: web.BaseRequest, response: web.StreamResponse) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise TypeError("canary77")

    async with running(signal=fail) as site:
        response = await site.client.post(f"{site.url}/v1/chat/completions", json={**CHAT, "stream": True})
        assert response.status == 500
        assert (await response.json())["error"].keys() == {"message", "type", "param", "code"}
        response = await site.client.post(f"{site.url}/v1/chat/completions", json={**CHAT, "stream": True})
        assert (await response.text()).endswith("data: [DONE]\n\n")
    assert any("canary77" in str(record.exc_info) for record in caplog.records)


async def test_a_stream_that_is_refused_leaves_nothing_in_front_of_the_connection() -> None:
    """Refusals over one connection would otherwise grow a chain of protocols, and a timer each."""
    seen: list[asyncio.BaseProtocol] = []

    @web.middleware
    async def watch(request: web.Request, handler: Any) -> web.StreamResponse:
        response: web.StreamResponse = await handler(request)
        assert request.transport is not None
        seen.append(request.transport.get_protocol())
        return response

    audio = {"type": "audio", "data": "aaaa", "media_type": "audio/unheard-of"}
    async with running(watch) as site:
        for _ in range(3):
            body = {"messages": [{"role": "user", "content": [audio]}]}
            async with site.client.post(f"{site.url}/api/v1/stream", json=body) as response:
                assert response.status == 400
                assert (await response.json())["error"]["code"] == "unsupported"
    assert len(seen) == 3
    assert all(isinstance(protocol, RequestHandler) for protocol in seen)


@pytest.mark.parametrize("begun", ["nothing", "stream", "head"])
async def test_an_exception_before_the_answer_is_one_500_and_its_connection_is_aiohttps_again(
    begun: str, caplog: pytest.LogCaptureFixture
) -> None:
    """An answer that has begun is cut off; in any case the request has its line in the access log."""
    lost: list[str] = []

    class Stream:
        def connection_lost(self) -> None:
            lost.append(begun)

        def pause_writing(self) -> None: ...
        def resume_writing(self) -> None: ...

    class Failing:
        def __init__(self, router: Router) -> None:
            self.refuse, self.refusal, self.ended = router.refuse, router.refusal, router.ended

        def handle(self, http: HTTPRequest, mount: Mount | None = None) -> Reply | None:
            if begun != "nothing":
                http.transport.begin_stream(Stream(), high_water=1000, write_timeout=5.0)
            if begun == "head":
                head, framing = http.transport.commit(StreamHead("text/plain", "req-1", "sid"))
                http.transport.write(framing.frame(head, [b"half"]))
            raise LookupError("canary77")

    app = web.Application()
    adapter = add_routes(app, settings().server)
    service = adapter.service = new_service(settings())
    service.router = cast("Router", Failing(service.router))
    runner = web.AppRunner(app, shutdown_timeout=0.05)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]
    reader, writer = await asyncio.open_connection(host, port)
    try:
        with caplog.at_level(logging.INFO, "gai_fast.access"):
            writer.write(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n")
            async with asyncio.timeout(SECONDS):
                answer = await reader.read() if begun != "head" else b""
                with suppress(ConnectionError):
                    answer += await reader.read()
    finally:
        writer.close()
        await service.engine.close()
        await runner.cleanup()
        await asyncio.sleep(0.01)
    assert lost == ([] if begun == "nothing" else [begun])
    assert b"0\r\n\r\n" not in answer
    status = 499 if begun == "head" else 500
    assert (b" 500 " in answer.partition(b"\r\n")[0]) is (status == 500)
    if status == 500:
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"].keys() == {"message", "type", "param", "code"}
    (line,) = [record.getMessage() for record in caplog.records if record.name == "gai_fast.access"]
    assert f"'/v1/models' {status} " in line
    assert any("canary77" in str(record.exc_info) for record in caplog.records)


# ---- heads and bodies ------------------------------------------------------------------------------------------------

HEAD = (
    b"POST /gw/v1/chat/completions HTTP/1.1\r\n"
    b"Host: localhost\r\nX-Request-Id: mine\r\nContent-Type: application/json\r\n"
)
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("pieces", "status", "reason"),
    [
        ([HEAD + b"Content-Length: 2000\r\n\r\n"], 413, "max_body"),
        (
            [HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"3E8\r\n" + b"x" * 1000 + b"\r\n", b"1\r\nx\r\n"],
            413,
            "max_body",
        ),
        ([HEAD + b"Content-Length: 20\r\n\r\n", b"{"], 408, "body_timeout"),
        ([HEAD.replace(b"application/json", b"text/plain") + b"Content-Length: 20\r\n\r\n"], 415, "content_type"),
        ([HEAD + b"Expect: canary\r\nContent-Length: 20\r\n\r\n"], 417, "expect"),
    ],
)
async def test_a_body_is_refused_in_the_shape_of_its_route_with_its_id(
    pieces: list[bytes], status: int, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Defects A16 and A21."""
    with caplog.at_level(logging.INFO, "gai_fast.access"):
        async with running(max_body=1000, body_timeout=0.2) as site:
            result, error = await site.raw(*pieces)
    assert result == status
    assert error.keys() == {"message", "type", "param", "code"}
    (line,) = [record.getMessage() for record in caplog.records if record.name == "gai_fast.access"]
    assert f"'/gw/v1/chat/completions' {status} " in line
    assert " mine {" in line


@pytest.mark.parametrize(
    ("data", "status", "reason"),
    [
        (HEAD + b"Transfer-Encoding:\r\n\r\n", 400, "http"),
        (HEAD.replace(b"HTTP/1.1", b"HTTP/2.0") + b"\r\n", 505, "http_version"),
        (HEAD + b"".join(b"X-%d: %b\r\n" % (n, b"a" * 8000) for n in range(9)) + b"\r\n", 431, "headers_too_large"),
    ],
)
async def test_what_cannot_be_understood_has_the_native_body_and_repeats_nothing(
    data: bytes, status: int, reason: str
) -> None:
    async with running() as site:
        result, error = await site.raw(data)
    assert (result, error["reason"]) == (status, reason)
    assert error["request_id"] != "mine"


async def test_a_body_in_tiny_chunks_holds_little_more_than_its_size() -> None:
    """Defect A15: 9 MB in chunks of two bytes held 27 times their size."""
    size = 200_000
    body = b'{"query":"' + b"x" * (size - 12) + b'"}'
    chunks = b"".join(b"2\r\n%b\r\n" % body[at : at + 2] for at in range(0, size, 2)) + b"0\r\n\r\n"
    head = HEAD.replace(b"/v1/chat/completions", b"/v1/chat/completions?format=nonsense").replace(
        b"Content-Type", b"Transfer-Encoding: chunked\r\nConnection: close\r\nContent-Type"
    )
    async with running(max_body=2 * size) as site:
        await site.raw(HEAD + b"Content-Length: 2000000000\r\n\r\n")
        tracemalloc.start()
        result, error = await site.raw(
            head + b"\r\n", *(chunks[at : at + 65536] for at in range(0, len(chunks), 65536))
        )
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert (result, error["code"]) == (400, "unsupported"), error
    assert peak < 25 * size, "all chunks held apart are 50 times their size"
