"""The same site in every web framework and on several servers, and a client that sees its bytes.

A site is a few routes by name: responses whose source a test gives, and handlers over a gateway.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

import gai_fast
from tests.integration.gateway import Client, Net, Response
from tests.waiting import until


@dataclass
class Site:
    """The routes and their answers."""

    responses: dict[str, tuple[str, Callable[[], Any]]] = field(default_factory=dict)
    """By path: the framing, and what makes a source."""
    handlers: dict[str, tuple[str, Callable[[Any], Any]]] = field(default_factory=dict)
    """By path: the framing, and `prepare`."""
    answers: dict[str, tuple[str, Callable[[Any], Any]]] = field(default_factory=dict)
    """By path: the framing, and what makes a native request of the query, for a response with `request`."""
    gateway: Any = None
    options: dict[str, Any] = field(default_factory=dict)

    def response(self, module: Any, path: str) -> Any:
        framing, make = self.responses[path]
        return getattr(module, f"{framing}_response")(make(), **self.options)

    def answer(self, module: Any, path: str, request: Any) -> Any:
        """Returns the response of a route that asks the gateway itself, or raises the error of an exception handler."""
        framing, make = self.answers[path]
        return getattr(module, f"{framing}_response")(self.gateway.stream(make(request)), request=request)

    def handler(self, module: Any, path: str) -> Any:
        framing, prepare = self.handlers[path]
        return getattr(module, f"{framing}_handler")(self.gateway, prepare, **self.options)


@contextlib.asynccontextmanager
async def aiohttp_(site: Site) -> AsyncIterator[str]:
    from gai_fast.integrations import aiohttp as module

    app = web.Application()

    def answer(path: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            response: web.StreamResponse = site.response(module, path)
            response.headers["x-own"] = "kept"
            return response

        return handle

    for path in site.responses:
        app.router.add_get(f"/{path}", answer(path))
    for path in site.handlers:
        app.router.add_route("*", f"/{path}", site.handler(module, path))

    def asking(path: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                answered: web.StreamResponse = site.answer(module, path, request)
            except gai_fast.Error as error:
                return module.error_response(error, request=request)
            return answered

        return handle

    for path in site.answers:
        app.router.add_get(f"/{path}", asking(path))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def plain(site: Site) -> Any:
    """Returns an ASGI application without a framework."""
    from gai_fast.integrations import asgi

    handlers = {path: site.handler(asgi, path) for path in site.handlers}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"][1:]
        if path in site.answers:
            request = asgi.ASGIRequest(scope, receive)
            try:
                answered = site.answer(asgi, path, request)
            except gai_fast.Error as error:
                answered = asgi.error_response(error, request=request)
            await answered(scope, receive, send)
            return
        await (handlers[path] if path in handlers else site.response(asgi, path))(scope, receive, send)

    return app


async def refused(request: Any, error: Any) -> Any:
    """Handles the exception of a route in Starlette and FastAPI."""
    from gai_fast.integrations import asgi

    return asgi.error_response(error, request=request)


def starlette(site: Site) -> Any:
    pytest.importorskip("starlette")
    from starlette.applications import Starlette
    from starlette.routing import Route

    from gai_fast.integrations import asgi

    def answer(path: str) -> Any:
        async def endpoint(request: Any) -> Any:
            response = site.response(asgi, path)
            response.headers["x-own"] = "kept"
            return response

        return endpoint

    routes = [Route(f"/{path}", answer(path)) for path in site.responses]

    def asking(path: str) -> Any:
        async def endpoint(request: Any) -> Any:
            return site.answer(asgi, path, request)

        return endpoint

    routes += [Route(f"/{path}", asking(path)) for path in site.answers]
    methods = ["GET", "POST"]
    return Starlette(
        exception_handlers={gai_fast.Error: refused},
        routes=[*routes, *(Route(f"/{path}", site.handler(asgi, path), methods=methods) for path in site.handlers)],
    )


def fastapi(site: Site) -> Any:
    pytest.importorskip("fastapi")
    from fastapi import FastAPI, Request

    from gai_fast.integrations import asgi

    app = FastAPI()
    app.exception_handler(gai_fast.Error)(refused)

    def answer(path: str) -> Any:
        async def endpoint() -> Any:
            response = site.response(asgi, path)
            response.headers["x-own"] = "kept"
            return response

        return endpoint

    for path in site.responses:
        app.get(f"/{path}")(answer(path))
    for path in site.handlers:
        app.api_route(f"/{path}", methods=["GET", "POST"])(site.handler(asgi, path))

    def asking(path: str) -> Any:
        async def endpoint(request: Any) -> Any:
            return site.answer(asgi, path, request)

        endpoint.__annotations__["request"] = Request
        return endpoint

    for path in site.answers:
        app.get(f"/{path}")(asking(path))
    return app


_django: dict[str, Any] = {}


def configure_django() -> None:
    """Configures Django, which has one configuration in a process."""
    from django.conf import settings
    from django.urls import path as at

    async def view(request: Any, name: str) -> Any:
        return await _django[name](request)

    if not settings.configured:
        settings.configure(
            ROOT_URLCONF=(at("<name>", view),), ALLOWED_HOSTS=["*"], SECRET_KEY="x", MIDDLEWARE=[], LOGGING_CONFIG=None
        )


def django(site: Site) -> Any:
    pytest.importorskip("django")
    configure_django()
    from django.core.asgi import get_asgi_application

    from gai_fast.integrations import django as module

    def answer(path: str) -> Any:
        async def own(request: Any) -> Any:
            response = site.response(module, path)
            response["x-own"] = "kept"
            return response

        return own

    _django.clear()
    _django.update({path: answer(path) for path in site.responses})
    _django.update({path: site.handler(module, path) for path in site.handlers})
    return get_asgi_application()


def on_uvicorn(make: Callable[[Site], Any]) -> Callable[[Site], contextlib.AbstractAsyncContextManager[str]]:
    @contextlib.asynccontextmanager
    async def run(site: Site) -> AsyncIterator[str]:
        uvicorn = pytest.importorskip("uvicorn")
        config = uvicorn.Config(make(site), log_config=None, access_log=False, lifespan="off", ws="none")
        server = uvicorn.Server(config)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            port = listening.getsockname()[1]
            task = asyncio.create_task(server._serve([listening]))  # `serve` takes over the signals
            await until(lambda: server.started)
            try:
                yield f"127.0.0.1:{port}"
            finally:
                server.should_exit = True
                await task

    return run


def on_hypercorn(make: Callable[[Site], Any]) -> Callable[[Site], contextlib.AbstractAsyncContextManager[str]]:
    @contextlib.asynccontextmanager
    async def run(site: Site) -> AsyncIterator[str]:
        pytest.importorskip("hypercorn")
        from hypercorn.asyncio import serve
        from hypercorn.config import Config

        with socket.create_server(("127.0.0.1", 0)) as listening:
            port = listening.getsockname()[1]
            config = Config()
            config.bind = [f"fd://{listening.detach()}"]
            config.errorlog = None
            config.graceful_timeout = 0.1
            end = asyncio.Event()
            task = asyncio.create_task(serve(make(site), config, shutdown_trigger=end.wait))
            try:
                yield f"127.0.0.1:{port}"
            finally:
                end.set()
                await task

    return run


@contextlib.asynccontextmanager
async def without_starlette(site: Site) -> AsyncIterator[str]:
    """Yields the plain ASGI callables, also if Starlette is installed."""
    from gai_fast.integrations import asgi

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asgi, "StarletteResponse", None)
        async with on_uvicorn(plain)(site) as host:
            yield host


STACKS: Mapping[str, Callable[[Site], contextlib.AbstractAsyncContextManager[str]]] = {
    "aiohttp": aiohttp_,
    "asgi-uvicorn": without_starlette,
    "starlette-uvicorn": on_uvicorn(starlette),
    "fastapi-hypercorn": on_hypercorn(fastapi),
    "django-uvicorn": on_uvicorn(django),
}
EVERY_STACK = pytest.mark.parametrize("stack", STACKS)


class Served:
    """A site that runs."""

    def __init__(self, net: Net, host: str) -> None:
        self._net = net
        self._host = host

    async def get(self, path: str, method: str = "GET", body: Any = None, **headers: str) -> tuple[Client, Response]:
        """Asks, and reads the head of the response."""
        client = await self._net.connect(self._host)
        client.request(method, f"/{path}", body, {name.replace("_", "-"): value for name, value in headers.items()})
        return client, await client.response()

    async def ask(self, path: str, method: str = "GET", body: Any = None, **headers: str) -> Response:
        """Returns a whole exchange."""
        client, response = await self.get(path, method, body, **headers)
        if method == "HEAD" or response.status == 204:
            response.ended = True
        await response.rest()
        client.close()
        return response


async def serve(net: Net, stack: str, site: Site) -> Served:
    """Runs a site for the length of a scenario."""
    return Served(net, await net.stack.enter_async_context(STACKS[stack](site)))
