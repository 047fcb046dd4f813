"""`server/extension.py`: the user's function is called, and the fast lane is on unless it could be noticed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from aiohttp import web

from gai_fast.server.extension import can_bypass, extend


@pytest.mark.parametrize("is_async", [False, True])
async def test_the_function_is_called_with_the_application_and_awaited(is_async: bool) -> None:
    def plain(app: web.Application) -> None:
        app["extended"] = True

    async def coroutine(app: web.Application) -> None:
        plain(app)

    app: dict[str, bool] = {}
    await extend(app, coroutine if is_async else plain)
    assert app == {"extended": True}


async def handler(request: web.Request) -> web.StreamResponse:
    raise NotImplementedError


@web.middleware
async def middleware(request: web.Request, handler: object) -> web.StreamResponse:
    raise NotImplementedError


async def signal(request: web.Request, response: web.StreamResponse) -> None:
    raise NotImplementedError


def below(app: web.Application, prefix: str) -> None:
    inner = web.Application()
    inner.router.add_post("/stream", handler)
    app.add_subapp(prefix, inner)


@pytest.mark.parametrize(
    ("add", "may"),
    [
        (lambda app: None, True),
        (lambda app: app.router.add_get("/other", handler), True),
        (lambda app: app.router.add_get("/other/{name}", handler), True),
        (lambda app: below(app, "/other"), True),
        (lambda app: app.middlewares.append(middleware), False),
        (lambda app: app.on_response_prepare.append(signal), False),
        (lambda app: app.router.add_post("/api/v1/stream", handler), False),
        (lambda app: app.router.add_post("/{path:.*}", handler), False),
        (lambda app: below(app, "/api/v1"), False),
    ],
)
def test_the_fast_lane_is_on_where_nobody_could_notice(add: Callable[[web.Application], None], may: bool) -> None:
    app = web.Application()
    add(app)
    assert can_bypass(app, ["/api/v1/stream", "/v1/chat/completions"]) is may
