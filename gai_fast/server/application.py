"""The `aiohttp.web.Application` with every route: the server that `serve` runs, and a part of a user's application.

Owns the conversion between aiohttp's requests and responses and the handlers: reading a body within its limits,
`Expect`, unknown paths. `router.py` has the guards, routes and errors, as for the fast lane. This module
answers some requests itself because aiohttp answers them differently: versions other than HTTP/1.0 and 1.1, any
transfer coding except `chunked`, and headers that are too large.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote

from aiohttp import web
from aiohttp.http import HttpVersion10, HttpVersion11
from aiohttp.web_protocol import RequestPayloadError
from yarl import URL

from gai_fast.model.addresses import is_local
from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.model.settings import ServerSettings, Settings
from gai_fast.net.engine.engine import Engine
from gai_fast.net.sockets.sockets import reset_connection
from gai_fast.runtime.ids import request_id
from gai_fast.server.admission.admit import body_too_large, has_body
from gai_fast.server.admission.callers import LONG_HEADERS
from gai_fast.server.admission.server_limits import ServerLimits
from gai_fast.server.http.deadlines import body_due
from gai_fast.server.http.replies import Reply, id_headers
from gai_fast.server.http.request import HTTPRequest, headers_too_large
from gai_fast.server.http.transport import CLIENT_CLOSED_REQUEST
from gai_fast.server.lanes.aiohttp_transport import AiohttpTransport, whole_response
from gai_fast.server.lanes.handler import Handler
from gai_fast.server.limits import LIMITS
from gai_fast.server.routes.router import Mount
from gai_fast.server.routes.table import ROUTES, is_passed_unread
from gai_fast.server.service import Service, new_service, service_over

_log: Final = logging.getLogger("gai_fast.server")


class _Unreadable(Exception):
    """A request that cannot be understood; its response contains nothing of the request."""

    def __init__(self, error: Error) -> None:
        super().__init__(str(error))
        self.error = error


def build_application(settings: Settings, find_engine: Callable[[], Engine] | None = None) -> web.Application:
    """Creates an application with every route, to mount in another one with `add_subapp` or to run in any server.

    Requests need a key if there is a `[[key]]`. The `Host` rule of loopback addresses applies if the request's own
    socket has such an address. Of `[server]` only the settings that guard a request apply: `allowed_hosts`,
    `cors_origins`, `allow_get_start`, `max_body` and `body_timeout`, and `forwarded_allow_ips` for the client's
    address. Streams start with the application and end with its clean-up.

    Args:
        settings: The configuration.
        find_engine: Returns an existing engine when the application starts. That engine continues after the clean-up.
            If None, the application creates its own engine.
    Example:
        ```python
        app = web.Application(middlewares=[mine])
        app.add_subapp("/ai", build_application(settings))
        web.run_app(app)
        ```
    """
    app = web.Application()
    adapter = add_routes(app, settings.server)

    async def run(app: web.Application) -> AsyncIterator[None]:
        engine = None if find_engine is None else find_engine()
        service = adapter.service = (
            new_service(settings) if engine is None else service_over(engine, ServerLimits(engine.settings.limits))
        )
        try:
            await (service.begin() if engine is None else service.keys.open())
            service.watch_memory(lambda _: 0)  # the connections are the outer application's
            yield
        finally:
            if engine is None:
                await service.engine.let_go()
                await service.close()
            else:
                service.detach()

    async def stop(app: web.Application) -> None:
        if hasattr(adapter, "service"):  # else the application has not started
            adapter.service.sockets.begin_drain()
            adapter.service.admin.begin_drain()
            adapter.service.operations.probes.begin_drain()
            adapter.service.engine.disconnect_clients(0.0)

    app.cleanup_ctx.append(run)
    app.on_shutdown.append(stop)
    return app


def add_routes(app: web.Application, settings: ServerSettings, mount: Mount | None = None) -> AiohttpAdapter:
    """Adds every route to an application.

    Args:
        app: The application, not started.
        settings: `[server]`.
        mount: Where the application is mounted, if that is fixed; else None.

    Returns:
        The adapter; its `service` must be set before the first request.
    """
    adapter = AiohttpAdapter(settings, mount)
    resources: dict[str, web.Resource] = {}
    for route in ROUTES:
        resource = resources.get(route.prefix)
        if resource is None:
            # A resource of our own: `add_resource` would reuse the last resource that --app has added for this path.
            if route.is_prefix:
                resource = web.DynamicResource(f"{route.prefix}{{tail:.*}}")
            else:
                resource = web.PlainResource(route.path)
            resources[route.prefix] = resource
            app.router.register_resource(resource)
        known = {each.method for each in resource}  # routes that differ in their ending
        for method in [each for each in route.methods if each not in known]:
            resource.add_route(method, adapter.answer, expect_handler=_expect_nothing)
    for resource in resources.values():  # OPTIONS, and methods that the path does not accept
        resource.add_route("*", adapter.answer, expect_handler=_expect_nothing)
    app.router.register_resource(adapter.unknown_paths)
    return adapter


async def _expect_nothing(request: web.Request) -> None:
    """Does nothing, in place of aiohttp's response to `Expect`: the adapter checks the headers first."""


class UnknownPaths(web.AbstractResource):
    """Matches every path that no other resource matches, so that its error is ours. Must be registered last.

    Args:
        handler: Answers requests for these paths.

    Attributes:
        prefix: The path that the application is mounted under, without a trailing slash.
    """

    def __init__(self, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> None:
        super().__init__()
        self.prefix = ""
        self._route = web.ResourceRoute("*", handler, self, expect_handler=_expect_nothing)

    @property
    def canonical(self) -> str:
        """The path by which aiohttp finds the resource: the root of the application."""
        return f"{self.prefix}/"

    def url_for(self, **kwargs: str) -> URL:
        """Returns the root of the application."""
        return URL(self.canonical)

    def add_prefix(self, prefix: str) -> None:
        """Adds a prefix; aiohttp calls this when the application is mounted."""
        self.prefix = prefix + self.prefix

    def get_info(self) -> Any:
        """Returns the path, for introspection."""
        return {"path": self.canonical}

    def raw_match(self, path: str) -> bool:
        """Returns false: `add_resource` must not reuse this resource."""
        return False

    async def resolve(self, request: web.Request) -> tuple[web.UrlMappingMatchInfo, set[str]]:
        """Matches any request."""
        return web.UrlMappingMatchInfo({}, self._route), set()

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[web.AbstractRoute]:
        return iter((self._route,))


class AiohttpAdapter:
    """Answers aiohttp's requests with the handlers.

    Args:
        settings: `[server]`.
        mount: Where the application is mounted; None if it is mounted in another application.

    Attributes:
        service: The service with the routes.
        unknown_paths: The resource of unknown paths.
    """

    service: Service

    def __init__(self, settings: ServerSettings, mount: Mount | None) -> None:
        self._settings = settings
        self._mount = mount
        self.unknown_paths = UnknownPaths(self.answer)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answers one request."""
        client = AiohttpTransport(request, self.service.engine.timers)
        try:
            http = _read_head(request, client)
        except _Unreadable as unreadable:
            return self._refuse(client, unreadable)
        mount = self._mount_of(request)
        try:
            reply = _redirect_to_root(http, mount) or await self._reply(request, http, mount)
        except ConnectionError:  # the client disconnected during its body: there is no one to answer
            self.service.router.ended(http, CLIENT_CLOSED_REQUEST)
            return web.Response()
        except Exception as problem:  # noqa: BLE001  # a bug of ours, or another server's body: answered with 500
            reply = self._failed(request, http, mount, problem)
        if reply is not None:
            client.send_instead(reply)
        status = CLIENT_CLOSED_REQUEST
        try:
            response = await client.finish()
            status = client.status or CLIENT_CLOSED_REQUEST
            return response
        except ConnectionError:
            return web.Response()
        except Exception as problem:  # noqa: BLE001  # from a user's signal or writer: answered with 500, never a hang
            internal = self._failed(request, http, mount, problem)
            status = internal.status
            return whole_response(internal)
        finally:
            if http.upload is not None:
                http.upload.close()
            if http.key is not None and isinstance(request.protocol, Handler):
                request.protocol.has_caller = True
            self.service.router.ended(http, status)

    def _refuse(self, client: AiohttpTransport, unreadable: _Unreadable) -> web.Response:
        """Returns the response to a request that cannot be understood."""
        return whole_response(self.service.router.refuse_unreadable(client.remote, unreadable.error))

    def _failed(self, request: web.Request, http: HTTPRequest, mount: Mount | None, problem: Exception) -> Reply:
        """Logs an unexpected exception; returns an error reply in place of the response."""
        _log.error("%s %r could not be answered", http.method, http.shown_path, exc_info=problem)
        if request.writer.output_size and request.transport is not None:
            reset_connection(request.transport)  # a started response must not look complete
        return self.service.router.refusal(http, Error("internal", "The server failed to answer"), mount)

    async def _reply(self, request: web.Request, http: HTTPRequest, mount: Mount | None) -> Reply | None:
        """Answers a request; returns the reply, or None if a stream has started."""
        router = self.service.router
        is_passed = is_passed_unread(_path_below(http, mount), http.headers)
        try:
            refusal = self._refusal_of_head(request, http, mount, is_passed=is_passed)
            if refusal is not None:
                return refusal
            if is_passed:
                await self._read_passed(request, http)
            else:
                http.body = await self._read_body(request, http)
        except Error as error:
            return router.refusal(http, error, mount)
        http.began = time.monotonic()
        return router.handle(http, mount)

    def _refusal_of_head(
        self, request: web.Request, http: HTTPRequest, mount: Mount | None, *, is_passed: bool
    ) -> Reply | None:
        """Returns the refusal of a request by its headers alone; None if its body must be read.

        Raises:
            Error: The reason, if it does not depend on the route.
        """
        length = http.headers.get("content-length", "0")
        most = self.service.server_limits.passed_body if is_passed else self._settings.max_body
        if len(length) > SHARED.max_body_digits or int(length) > most:
            raise body_too_large(most)
        expectation = http.headers.get("expect") if http.is_http_1_1 else None  # RFC 9110, 10.1.1
        if expectation is not None and expectation.lower() != "100-continue":
            raise Error("invalid_request", "only 100-continue can be expected", reason="expect", status=417)
        if expectation is None and request.content.is_eof() and (http.method == "POST" or not has_body(http.headers)):
            return None
        refusal = self.service.router.refuse(http, mount)
        if refusal is None and expectation is not None and request.transport is not None:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return refusal

    async def _read_body(self, request: web.Request, http: HTTPRequest) -> bytes:
        """Reads the whole body.

        Raises:
            Error: The body is larger than `max_body` (413), or too late (408), or ends too early (400), or the server
                receives too many (503).
        """
        content = request.content
        if content.is_eof():
            body = content.read_nowait()
            if len(body) > self._settings.max_body:
                raise body_too_large(self._settings.max_body)
            # A middleware may have read the body already; aiohttp has then kept it.
            return body if body or not request.body_exists else await request.read()
        loop, received, limits = asyncio.get_running_loop(), bytearray(), self.service.server_limits
        began, counted, caller = loop.time(), 0, self.service.router.uploader(http)
        try:
            async with asyncio.timeout_at(body_due(began, 0, began, self._settings.body_timeout)) as limit:
                while not content.at_eof():
                    received += await content.readany()
                    if len(received) > self._settings.max_body:
                        raise body_too_large(self._settings.max_body)
                    limits.begin_upload(len(received) - counted, caller, counted)
                    counted = len(received)
                    limit.reschedule(body_due(began, len(received), loop.time(), self._settings.body_timeout))
        except TimeoutError:
            late = "the body did not arrive in time"
            raise Error("timeout", late, reason="body_timeout", status=408) from None
        except RequestPayloadError:
            raise _not_http() from None
        finally:
            limits.end_upload(counted, caller)
        return bytes(received)

    async def _read_passed(self, request: web.Request, http: HTTPRequest) -> None:
        """Reads a body that is passed on: a short one whole, of a longer one at most the first bytes.

        Raises:
            Error: As `_read_body`.
        """
        if request.content.is_eof():
            http.body = await self._read_body(request, http)
            return
        caller = self.service.router.uploader(http)
        source = PassedBody(request, self.service.server_limits, caller, self._settings.body_timeout)
        received, is_taken = bytearray(), False
        try:
            while source.length is None or source.length <= LIMITS.whole_upload:
                data = await source.read()
                received += data
                if not data or len(received) > LIMITS.whole_upload:
                    break
            http.body = bytes(received)
            is_taken = not request.content.at_eof()
        finally:
            if not is_taken:
                source.close()
        if is_taken:
            http.upload = source

    def _mount_of(self, request: web.Request) -> Mount | None:
        if self._mount is not None:
            return self._mount
        address = request.transport.get_extra_info("sockname") if request.transport is not None else None
        return Mount(address is not None and _is_local(address), self.unknown_paths.prefix)


class PassedBody:
    """The body of a request that is passed on while it arrives; a `BodySource`.

    The time in which its upstream does not take it is not the client's.

    Args:
        request: The request.
        limits: Count the body.
        caller: The caller that it is counted for.
        timeout: `body_timeout`.
    """

    def __init__(self, request: web.Request, limits: ServerLimits, caller: str, timeout: float) -> None:
        self._content = request.content
        self._limits = limits
        self._caller = caller
        self._timeout = timeout
        self._counted = 0
        self._held = 0  # at most the part that `_read_passed` reads
        self._is_closed = False
        self._taken = 0.0  # seconds for which the client was waited for
        self.length = request.content_length

    async def read(self) -> bytes:
        """Works as `BodySource.read`."""
        loop, content = asyncio.get_running_loop(), self._content
        began = loop.time()
        due = began + body_due(0.0, self._counted, self._taken, self._timeout) - self._taken
        try:
            async with asyncio.timeout_at(due):
                data = await content.readany()
        except TimeoutError:
            late = "the body did not arrive in time"
            raise Error("timeout", late, reason="body_timeout", status=408) from None
        except RequestPayloadError:
            raise _not_http() from None
        self._taken += loop.time() - began
        if self._counted + len(data) > self._limits.passed_body:
            raise body_too_large(self._limits.passed_body)
        if data and not self._is_closed:
            held = min(len(data), LIMITS.whole_upload - self._held)
            self._limits.begin_passing(len(data), held, self._caller, self._held)
            self._counted += len(data)
            self._held += held
        return data

    def close(self) -> None:
        """Works as `BodySource.close`."""
        if not self._is_closed:
            self._is_closed = True
            self._limits.end_passing(self._counted, self._held, self._caller)


def _path_below(http: HTTPRequest, mount: Mount | None) -> str:
    """Returns the path of a request, without the prefix that the application is mounted under."""
    path = http.target.partition("?")[0]
    return path if mount is None or not mount.prefix else path.removeprefix(mount.prefix)


_QUERY_CHARACTERS: Final = "!$&'()*+,;=:@/?%"
"""The characters of a query besides letters, digits and `-._~` (RFC 3986, 3.4)."""


def _redirect_to_root(http: HTTPRequest, mount: Mount | None) -> Reply | None:
    """Redirects from the prefix to the root below it, whose page has relative URLs; None for any other request."""
    if mount is None or not mount.prefix or http.method != "GET":
        return None
    path, mark, query = http.target.partition("?")
    if path != mount.prefix:
        return None
    http.request_id = request_id(http.headers.get("x-request-id"))
    location = f"{mount.prefix}/{mark}{quote(query.encode('latin-1'), safe=_QUERY_CHARACTERS)}"
    return Reply(308, headers=[("location", location), *id_headers(http.request_id)])


_is_local = lru_cache(SHARED.known_values)(is_local)


def _read_head(request: web.Request, client: AiohttpTransport) -> HTTPRequest:
    """Converts aiohttp's request to an `HTTPRequest`.

    Raises:
        _Unreadable: The request is not supported.
    """
    given = request.headers
    headers = {name.lower(): value for name, value in given.items()}
    values = "".join(headers.values())
    if len(headers) != len(given) or not values.isascii():
        headers = _join_headers(request.raw_headers)
        values = "".join(headers.values())
    size = len(values) + sum(map(len, headers)) + len(given) * LIMITS.header_overhead
    if size > LIMITS.header_field and (size > LIMITS.request_head or _has_long_header(given.items())):
        raise _Unreadable(headers_too_large())
    version = request.version
    if version not in (HttpVersion10, HttpVersion11):
        text = "only HTTP/1.0 and HTTP/1.1 are spoken here"
        raise _Unreadable(Error("invalid_request", text, reason="http_version", status=505))
    if headers.get("transfer-encoding", "chunked").lower() != "chunked":
        raise _Unreadable(Error("invalid_request", "the only transfer coding accepted is chunked", reason="http"))
    target = request.raw_path
    if not target.isascii():
        target = target.encode("utf-8", "surrogateescape").decode("latin-1")
    is_http_1_1 = version == HttpVersion11
    http = HTTPRequest(
        client,
        request.method,
        target,
        headers,
        is_http_1_1=is_http_1_1,
        # Clients of HTTP/1.0 expect a header if a connection is kept.
        keep_alive=is_http_1_1 and request.keep_alive,
    )
    http.began = time.monotonic()
    return http


def _has_long_header(headers: Iterable[tuple[str, str]]) -> bool:
    """Returns whether a header is too long. The parser has checked those with a key, which may be longer."""
    return any(len(value) > LIMITS.header_field and name.lower() not in LONG_HEADERS for name, value in headers)


def _join_headers(raw_headers: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    """Returns the headers of a request with repeated or non-ASCII headers."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in raw_headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _not_http() -> Error:
    return Error("invalid_request", "The request is not valid HTTP/1.1", reason="http")
