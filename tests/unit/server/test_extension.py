"""`--app`: finding the function, calling it, and whether the fast lane may pass by what it added."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from gai_fast.server.extension import ExtensionError, extend, load, may_be_passed_by

HOT = ("/api/v1/stream",)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "my_extension_77.py").write_text(
        "def add(app): app['seen'] = 1\nclass Inner:\n    call = print\nno = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    yield "my_extension_77"
    sys.modules.pop("my_extension_77", None)


def test_a_function_is_found_in_a_module_of_the_working_directory(module: str) -> None:
    assert load(f"{module}:add").__name__ == "add"
    assert load(f"{module}:Inner.call") is print


@pytest.mark.parametrize(
    ("reference", "told"),
    [
        ("add", "write module:function"),
        ("a:b:c", "write module:function"),
        ("a b:c", "write module:function"),
        ("no_such_module_77:add", "the module cannot be imported: No module named"),
        ("{module}:nothing", "module my_extension_77 has no function nothing"),
        ("{module}:no", "module my_extension_77 has no function no"),
        ("{module}:add.more.still", "module my_extension_77 has no function add.more.still"),
    ],
)
def test_what_is_no_function_is_told(module: str, reference: str, told: str) -> None:
    with pytest.raises(ExtensionError, match=told):
        load(reference.format(module=module))


async def test_a_function_may_be_async() -> None:
    app, key = web.Application(), web.AppKey("key", int)

    def plain(app: web.Application) -> None:
        app[key] = 1

    async def later(app: web.Application) -> None:
        app[key] += 1

    await extend(app, plain)
    await extend(app, later)
    assert app[key] == 2


async def handler(request: web.Request) -> web.Response:
    return web.Response()


@web.middleware
async def middleware(request: web.Request, handler: Any) -> web.StreamResponse:
    return web.Response()


async def signal(request: web.BaseRequest, response: web.StreamResponse) -> None: ...


@pytest.mark.parametrize(
    ("add", "may"),
    [
        (lambda app: None, True),
        (lambda app: app.router.add_post("/mine", handler), True),
        (lambda app: app.router.add_post("/api/v1/{name}/x", handler), True),
        (lambda app: app.add_subapp("/mine", web.Application()), True),
        (lambda app: app.on_startup.append(signal), True),
        (lambda app: app.router.add_post("/api/v1/stream", handler), False),
        (lambda app: app.router.add_get("/api/v1/stream", handler), False),
        (lambda app: app.router.add_post("/api/{rest:.*}", handler), False),
        (lambda app: app.add_subapp("/api", web.Application()), False),
        (lambda app: app.middlewares.append(middleware), False),
        (lambda app: app.on_response_prepare.append(signal), False),
    ],
)
def test_the_fast_lane_passes_by_only_what_nobody_could_notice(
    add: Callable[[web.Application], object], may: bool
) -> None:
    app = web.Application()
    add(app)
    assert may_be_passed_by(app, HOT) is may
