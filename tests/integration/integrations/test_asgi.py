"""`gai_fast/integrations/asgi.py`: what is ASGI's own, with and without Starlette."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

import gai_fast
from gai_fast.integrations import asgi
from gai_fast.model.errors import InvalidRequest
from tests.integration.gateway import Net, on_uvloop
from tests.integration.integrations.stacks import Site, fastapi, on_uvicorn, starlette
from tests.limits import LIMITS
from tests.waiting import SECONDS, until


async def texts() -> AsyncIterator[str]:
    yield "Hello"


def scope(method: str = "GET", query: str = "", **headers: str) -> dict[str, Any]:
    lines = [(name.encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "method": method, "path": "/", "query_string": query.encode(), "headers": lines}


class Server:
    """An ASGI server of one request."""

    def __init__(self, *messages: Any) -> None:
        self.messages = [*messages]
        self.sent: list[Any] = []
        self.takes = True

    async def receive(self) -> Any:
        if not self.messages:
            await asyncio.Event().wait()
        return self.messages.pop(0)

    async def send(self, message: Any) -> None:
        if not self.takes:
            await asyncio.Event().wait()
        self.sent.append(message)

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi, "StarletteResponse", None)


@pytest.mark.usefixtures("plain")
async def test_a_head_request_runs_no_source() -> None:
    server = Server()
    await asgi.ndjson_response(texts())(scope("HEAD"), server.receive, server.send)
    assert [message.get("status", message.get("body")) for message in server.sent] == [200, b""]
    assert (b"content-type", b"application/x-ndjson") in server.sent[0]["headers"]


@pytest.mark.usefixtures("plain")
async def test_a_client_that_takes_nothing_ends_the_response() -> None:
    server = Server()
    server.takes = False
    seen: list[str] = []

    async def source() -> AsyncIterator[str]:
        try:
            yield "a"
            await asyncio.Event().wait()
        finally:
            seen.append("closed")

    with pytest.raises(TimeoutError):
        await asgi.sse_response(source(), write_timeout=0.01)(scope(), server.receive, server.send)
    assert seen == ["closed"]


@pytest.mark.usefixtures("plain")
async def test_a_response_whose_client_left_has_no_end() -> None:
    server = Server({"type": "http.request", "body": b""}, {"type": "http.disconnect"})

    async def silent() -> AsyncIterator[str]:
        await asyncio.Event().wait()
        yield ""

    async with asyncio.timeout(SECONDS):
        await asgi.sse_response(silent())(scope(), server.receive, server.send)
    assert all(message.get("more_body", True) for message in server.sent)


@pytest.mark.usefixtures("plain")
async def test_a_request_without_a_framework_is_read() -> None:
    server = Server(
        {"type": "http.request", "body": b'{"a"', "more_body": True}, {"type": "http.request", "body": b": 1}"}
    )
    request = asgi.ASGIRequest(scope("POST", "q=1&r=%C3%A9&empty=", host="x"), server.receive)
    assert (request.method, request.path, request.headers) == ("POST", "/", {"host": "x"})
    assert request.query == {"q": "1", "r": "é", "empty": ""}
    assert await request.json() == {"a": 1}
    assert await request.body() == b'{"a": 1}'


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([{"type": "http.disconnect"}], "http"),
        ([{"type": "http.request", "body": b"nonsense"}], "json"),
        ([{"type": "http.request", "body": b"[" * 100_000}], "json"),
        ([{"type": "http.request", "body": bytes(LIMITS.asgi_body), "more_body": True}] * 2, "max_body"),
    ],
)
async def test_a_body_that_cannot_be_read_is_refused(messages: Any, reason: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await asgi.ASGIRequest(scope("POST"), Server(*messages).receive).json()
    assert caught.value.reason == reason


async def test_too_many_parameters_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="query parameters"):
        _ = asgi.ASGIRequest(scope(query="&a=1" * 100), Server().receive).query


@pytest.mark.usefixtures("plain")
async def test_prepare_may_answer_by_itself_without_a_framework() -> None:
    async def own(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 418, "headers": []})

    server = Server()
    await asgi.sse_handler(gai_fast.Gateway(), lambda request: own)(scope(), server.receive, server.send)
    assert server.sent[0]["status"] == 418


@on_uvloop
@pytest.mark.parametrize("framework", [starlette, fastapi], ids=lambda framework: framework.__name__)
async def test_prepare_may_answer_by_itself_in_a_framework(net: Net, framework: Any) -> None:
    responses = pytest.importorskip("starlette.responses")

    async def own(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 418, "headers": [(b"x-own", b"kept")]})
        await send({"type": "http.response.body", "body": b"no coffee"})

    teapot = responses.PlainTextResponse("no coffee", 418, {"x-own": "kept"})
    site = Site(
        handlers={"app": ("sse", lambda request: own), "response": ("ndjson", lambda request: teapot)},
        gateway=gai_fast.Gateway(),
    )
    client = await net.connect(await net.stack.enter_async_context(on_uvicorn(framework)(site)))
    for path in site.handlers:
        response = await client.ask("GET", f"/{path}")
        assert (response.status, bytes(response.body), response.headers["x-own"]) == (418, b"no coffee", "kept")


def test_without_starlette_the_module_works() -> None:
    code = (
        "import sys\nsys.modules['starlette'] = None\n"
        "from gai_fast.integrations import asgi\n"
        "async def texts():\n    yield 'a'\n"
        "print(type(asgi.sse_response(texts())).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.stdout == "EventApp\n", done.stderr


@on_uvloop
async def test_headers_cookies_and_background_tasks_are_the_programs(net: Net) -> None:
    fastapi = pytest.importorskip("fastapi")
    app = fastapi.FastAPI()
    seen: list[str] = []

    @app.get("/")
    async def answer() -> Any:
        response = asgi.sse_response(texts())
        response.background = fastapi.BackgroundTasks()
        response.background.add_task(seen.append, "afterwards")
        response.headers["cache-control"] = "no-store"
        response.set_cookie("seen", "yes")
        return response

    host = await net.stack.enter_async_context(on_uvicorn(lambda site: app)(None))
    client = await net.connect(host)
    response = await client.ask("GET", "/")
    assert bytes(response.body) == b"data: Hello\n\n"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["set-cookie"].startswith("seen=yes")
    await until(lambda: seen == ["afterwards"])


@on_uvloop
async def test_a_handler_is_in_no_ones_way_in_fastapis_schema(net: Net) -> None:
    fastapi = pytest.importorskip("fastapi")
    app = fastapi.FastAPI()
    app.post("/chat")(asgi.sse_handler(gai_fast.Gateway(), lambda request: {}))
    assert json.dumps(app.openapi()["paths"]["/chat"])
