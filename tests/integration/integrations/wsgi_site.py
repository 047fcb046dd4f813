"""The same routes as a plain WSGI application, in Flask, in Bottle and in Django; gunicorn serves them in one process.

`/<framework>/<route>`; `/outcomes` has what became of the sources, one word a line.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any
from wsgiref.util import shift_path_info
from wsgiref.validate import validator

import bottle
import flask
from django.http import HttpRequest
from django.http.response import HttpResponseBase

import gai_fast
from gai_fast.integrations import django as in_django
from gai_fast.integrations import wsgi

Start = Callable[..., Any]

outcomes: list[str] = []
released = threading.Event()


def texts() -> Iterator[str]:
    name = threading.current_thread().name
    yield "Hel"
    yield "lo"
    outcomes.append("one thread" if name == threading.current_thread().name == "gai-fast-source" else name)


async def async_texts() -> AsyncIterator[str]:
    yield "Hel"
    await asyncio.sleep(0)
    yield "lo"


def objects() -> Iterator[Any]:
    yield {"n": 1}
    yield [2, None]


def failing() -> Iterator[Any]:
    yield {"type": "text.delta", "text": "Hi"}
    raise KeyError("sk-secret")


def early() -> Iterator[Any]:
    raise gai_fast.RateLimited(message="slow down")
    yield


async def silent() -> AsyncIterator[str]:
    try:
        yield "first"
        await asyncio.Event().wait()
    finally:
        outcomes.append("async closed")


def endless() -> Iterator[str]:
    try:
        while True:
            yield "more"
            time.sleep(0.01)
    finally:
        outcomes.append("plain closed")


def blocking() -> Iterator[str]:
    try:
        yield "first"
        released.wait(60)
        yield "second"
    finally:
        outcomes.append("blocked closed")


ROUTES: dict[str, tuple[str, Callable[[], Any], dict[str, Any]]] = {
    "texts": ("sse", texts, {}),
    "async": ("sse", async_texts, {}),
    "lines": ("ndjson", objects, {}),
    "failing": ("sse", failing, {}),
    "early": ("sse", early, {}),
    "silent": ("sse", silent, {"heartbeat": 0.05}),
    "endless": ("sse", endless, {}),
    "blocking": ("sse", blocking, {"heartbeat": 0.05}),
}


def response(module: Any, route: str) -> Any:
    framing, source, options = ROUTES[route]
    return getattr(module, f"{framing}_response")(source(), **options)


def plain(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
    body: wsgi.Chunks = response(wsgi, environ["PATH_INFO"][1:])
    start_response("200 OK", body.headers)
    return body


flask_app = flask.Flask("site")


@flask_app.get("/<route>")
def of_flask(route: str) -> flask.Response:
    body = response(wsgi, route)
    return flask.Response(body, headers=body.headers)


bottle_app = bottle.Bottle()


@bottle_app.get("/<route>")
def of_bottle(route: str) -> Any:
    body = response(wsgi, route)
    for name, value in body.headers:
        bottle.response.set_header(name, value)
    return body


gateway = gai_fast.Gateway()


def ask(request: HttpRequest) -> dict[str, Any]:
    return {"query": request.GET["q"], "model": "demo", "resumable": True}


ask_gateway = in_django.sse_handler(gateway, ask)


async def of_django(request: HttpRequest, name: str) -> HttpResponseBase:
    if name == "ask":
        return await ask_gateway(request)
    answer: HttpResponseBase = response(in_django, name)
    return answer


def sync_of_django(request: HttpRequest, name: str) -> HttpResponseBase:
    answer: HttpResponseBase = response(in_django, name)
    return answer


def django_app() -> Any:
    from django.conf import settings
    from django.core.wsgi import get_wsgi_application
    from django.urls import path

    settings.configure(
        ROOT_URLCONF=(path("sync/<name>", sync_of_django), path("<name>", of_django)),
        ALLOWED_HOSTS=["*"],
        SECRET_KEY="x",
        MIDDLEWARE=["django.middleware.common.CommonMiddleware", "django.middleware.gzip.GZipMiddleware"],
        LOGGING_CONFIG=None,
    )
    return get_wsgi_application()


APPS: dict[str, Any] = {"plain": validator(plain), "flask": flask_app, "bottle": bottle_app, "django": django_app()}


def application(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
    first = shift_path_info(environ)
    if first in APPS:
        body: Iterable[bytes] = APPS[first](environ, start_response)
        return body
    if first == "release":
        released.set()
    start_response("200 OK", [("content-type", "text/plain")])
    return ["\n".join(outcomes).encode()]
