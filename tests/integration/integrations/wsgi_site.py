"""The same routes as a plain WSGI application, in Flask, in Bottle and in Django; gunicorn serves them in one process.

`/<framework>/<route>`; `/outcomes` has what became of the sources, one word a line.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any
from urllib.parse import parse_qsl
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


gateway = gai_fast.Gateway()


def prepare(request: Any) -> Any:
    """Reads the request of a handler: Flask's, Bottle's, or the `environ`."""
    if isinstance(request, dict):
        text = request["QUERY_STRING"]
    else:
        text = request.environ["QUERY_STRING"]
        assert request.path.startswith(("/handled", "/later")), "it is the framework's"
    query = dict(parse_qsl(text))
    if query.get("q") == "own":
        return wsgi.error_response(gai_fast.NotFound(message="own"))
    if query.get("q") == "no":
        raise gai_fast.Forbidden(message="not you")
    return {"query": query["q"], "model": query.get("model", "demo"), "resumable": True}


async def prepare_later(request: Any) -> Any:
    await asyncio.sleep(0)
    return prepare(request)


HANDLERS = {"handled": wsgi.sse_handler(gateway, prepare), "later": wsgi.ndjson_handler(gateway, prepare_later)}


def asked(request: Any, query: Any) -> wsgi.Response:
    """Returns the response of a route that asks the gateway itself; `request` resumes."""
    if query.get("q") == "no":
        raise gai_fast.Forbidden(message="not you")
    asking = {"query": query["q"], "model": query.get("model", "demo"), "resumable": True}
    return wsgi.sse_response(gateway.stream(asking), request=request)


def plain(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
    name = environ["PATH_INFO"][1:]
    if name in HANDLERS:
        return HANDLERS[name](environ, start_response)  # type: ignore[no-any-return]  # a WSGI application's
    if name != "asked":
        return response(wsgi, name)(environ, start_response)  # type: ignore[no-any-return]  # a WSGI application's
    try:
        body = asked(environ, dict(parse_qsl(environ["QUERY_STRING"])))
    except gai_fast.Error as error:
        body = wsgi.error_response(error, request=environ)
    return body(environ, start_response)


flask_app = flask.Flask("site")


@flask_app.errorhandler(gai_fast.Error)
def refused_of_flask(error: gai_fast.Error) -> flask.Response:
    body = wsgi.error_response(error, request=flask.request)
    return flask.Response(body, body.status, body.headers)


@flask_app.get("/<route>")
def of_flask(route: str) -> flask.Response:
    body = asked(flask.request, flask.request.args) if route == "asked" else response(wsgi, route)
    return flask.Response(body, body.status, body.headers)


flask_app.get("/handled")(HANDLERS["handled"])
flask_app.get("/later/<part>")(HANDLERS["later"])


bottle_app = bottle.Bottle()


bottle_app.get("/handled")(HANDLERS["handled"])
bottle_app.get("/later/<part>")(HANDLERS["later"])


@bottle_app.get("/<route>")
def of_bottle(route: str) -> Any:
    try:
        body = asked(bottle.request, bottle.request.query) if route == "asked" else response(wsgi, route)
    except gai_fast.Error as error:
        body = wsgi.error_response(error, request=bottle.request)
    return bottle.HTTPResponse(body, body.status, body.headers)


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
