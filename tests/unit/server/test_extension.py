"""`server/extension.py`: the user's function is imported, or the reason why not is one line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aiohttp import web

from gai_fast.server.extension import ExtensionError, can_bypass, extend, load


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory; what is imported from it is forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        del sys.modules[name]


def test_a_function_in_the_working_directory_is_found(modules: Path) -> None:
    (modules / "my_shop").mkdir()
    (modules / "my_shop" / "__init__.py").write_text("")
    (modules / "my_shop" / "web.py").write_text(
        "class Shop:\n  def extend(app): return 'extended'\ndef other(app): ..."
    )
    assert load("my_shop.web:Shop.extend")("…") == "extended"
    assert load("my_shop.web:other").__name__ == "other"


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("no_such:f", "names the module no_such, which neither {here} nor sys.path has"),
        ("own.no_such:f", "names the module own.no_such, which neither {here} nor sys.path has"),
        ("own", 'must be "module:function", such as "shop.gateway:extend"'),
        (":f", 'must be "module:function", such as "shop.gateway:extend"'),
        ("own:f", "names f, which own does not have"),
        ("own:VALUE", "names VALUE of own, which is no function but int"),
        ("own:VALUE.f", "names VALUE.f, which own does not have"),
        ("needy:f", "names the module needy, which needs no_such_library, which is not there"),
        ("broken:f", "names the module broken, which cannot be imported: ZeroDivisionError: division by zero"),
        (
            "typo:f",
            "names the module typo, which cannot be imported: SyntaxError: invalid syntax (typo.py, line 1)",
        ),
    ],
)
def test_what_cannot_be_imported_is_one_line(modules: Path, name: str, problem: str) -> None:
    for module, source in (
        ("own", "VALUE = 1"),
        ("needy", "import no_such_library"),
        ("broken", "1 / 0"),
        ("typo", "f f"),
    ):
        (modules / f"{module}.py").write_text(source)
    with pytest.raises(ExtensionError) as refused:
        load(name)
    assert str(refused.value) == problem.format(here=modules)


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
