"""From a parsed request to a handler: the guards that hold for every route, the route table, errors as responses.

Owns the `Host` rule, CORS, methods, media types of bodies, the shape of errors and the access log. Knows no provider
and no event.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Final
from urllib.parse import parse_qsl

from gai_fast._impl import encode_json
from gai_fast.addresses import is_loopback
from gai_fast.errors import Error
from gai_fast.formats import get_format
from gai_fast.ids import request_id
from gai_fast.limits import LIMITS
from gai_fast.server.connection import HTTPRequest
from gai_fast.server.counts import OTHER, StreamCounts
from gai_fast.server.metrics import log_fields
from gai_fast.server.negotiation import trace_id
from gai_fast.server.replies import Headers, Reply, error_reply, id_headers
from gai_fast.settings import ServerSettings

access = logging.getLogger("gai_fast.access")

Handler = Callable[["Incoming"], Reply | None]
"""Answers a request; `None`: a stream has begun, which ends the answer itself."""

_ALLOWED_HEADERS: Final = (
    "authorization, content-type, accept, x-api-key, api-key, anthropic-version, anthropic-beta, "
    "anthropic-dangerous-direct-browser-access, idempotency-key, x-idempotency-key, x-request-id, traceparent, "
    "tracestate, last-event-id, x-stainless-arch, x-stainless-lang, x-stainless-os, x-stainless-package-version, "
    "x-stainless-retry-count, x-stainless-runtime, x-stainless-runtime-version, x-stainless-timeout, "
    "x-stainless-helper-method, x-stainless-poll-helper, x-stainless-custom-poll-interval"
)
_EXPOSED_HEADERS: Final = "x-request-id, request-id, x-gai-stream-id, retry-after, retry-after-ms, x-should-retry"
_QUERY_FIELDS: Final = 64
"""Query parameters of a request: no route knows ten."""

_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{0,5}))?")
_MAX_PORT: Final = 65535
_ABSOLUTE: Final = re.compile(r"https?://([^/]*)(/.*)?", re.I)
"""Absolute-form (RFC 9112, 3.2.2), without its query."""
_WEB_ORIGIN: Final = re.compile(r"https?://(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(?::[0-9]{1,5})?")


class Incoming:
    """One request, past the guards.

    Args:
        http: As it was parsed.
        path: The path as it was sent; nothing is decoded, so no alias reaches a handler.
        request_id: The caller's or ours.
        trace_id: Of `traceparent`.
        query: The query parameters, decoded; the last of a name counts.
        cors: What the answer says of the caller's origin.
        is_foreign: Whether a web page of another origin, which is not allowed, makes this request.
        tail: What follows the prefix of a prefix route.

    Attributes:
        host: Whom the request is for.
    """

    __slots__ = ("cors", "host", "http", "is_foreign", "path", "query", "request_id", "tail", "trace_id")

    def __init__(
        self,
        http: HTTPRequest,
        path: str,
        request_id: str,
        trace_id: str | None = None,
        query: Mapping[str, str] | None = None,
        cors: Headers = (),
        is_foreign: bool = False,
        tail: str = "",
    ) -> None:
        self.http = http
        self.path = path
        self.request_id = request_id
        self.trace_id = trace_id
        self.query = query or {}
        self.host = ""
        self.cors = cors
        self.is_foreign = is_foreign
        self.tail = tail

    def refusal(self, error: Error, headers: Headers, *, close: bool = False) -> Reply:
        """The response for an error, in the shape that clients of the route expect."""
        shape = get_format("openai" if self.path.startswith("/v1/") else "gai")
        body = shape.error_body(error, self.request_id)
        self.http.error_code = error.code
        return error_reply(error, self.request_id, body, [*self.cors, *headers], close=close)

    def json_body(self) -> bytes:
        """The body of a POST.

        Raises:
            InvalidRequest: Not `application/json` in UTF-8, or compressed (415).
        """
        headers = self.http.headers
        if not _is_json(headers.get("content-type", "")):
            raise Error(
                "invalid_request", "the body must be application/json in UTF-8", reason="content_type", status=415
            )
        if "content-encoding" in headers and headers["content-encoding"].strip().lower() != "identity":
            raise Error("invalid_request", "a compressed body is not taken", reason="content_encoding", status=415)
        return self.http.body


@lru_cache(LIMITS.known_values)
def _is_json(content_type: str) -> bool:
    """Whether a content type is JSON in UTF-8."""
    media, _, parameters = content_type.partition(";")
    charset = parameters.replace('"', "").strip().lower()
    return media.strip().lower() == "application/json" and charset in ("", "charset=utf-8")


class Router:
    """The route table.

    Args:
        settings: `[server]`.
        counts: Counts every request at its end.
        only_demo: Whether nothing but the demo model is configured: loopback pages may then use it.
    """

    def __init__(self, settings: ServerSettings, counts: StreamCounts, *, only_demo: bool) -> None:
        self._settings = settings
        self._counts = counts
        self._any_loopback = only_demo and not settings.cors_origins
        self._on_loopback = is_loopback(settings.host)
        self._allowed_hosts = {host.lower() for host in settings.allowed_hosts}
        self._check_host = lru_cache(LIMITS.known_values)(self._look_at_host)
        self._exact: dict[str, dict[str, Handler]] = {}
        self._prefixes: dict[str, dict[str, Handler]] = {}

    def add(self, method: str, path: str, handler: Handler, *, head: bool = True) -> None:
        """A route; a path that ends in `/` besides the root is a prefix, and `Incoming.tail` is what follows.

        Args:
            method: The HTTP method.
            path: The path or the prefix.
            handler: Answers it.
            head: Where the method is GET: the handler answers HEAD too; what it returns must be a whole reply.
        """
        table = self._prefixes if path.endswith("/") and path != "/" else self._exact
        table.setdefault(path, {})[method] = handler
        if method == "GET" and head:
            table[path]["HEAD"] = handler

    def handle(self, http: HTTPRequest) -> Reply | None:
        """Answers a request, or begins a stream; what a handler raises becomes the error body of its route."""
        traced = trace_id(http.headers.get("traceparent"))
        incoming = Incoming(http, http.target, request_id(http.headers.get("x-request-id")), traced)
        http.request_id = incoming.request_id
        must_close = True
        try:
            self._accept(incoming)
            must_close = False
            return self._answer(incoming)
        except Error as error:
            return incoming.refusal(error, _allow(error), close=must_close)

    def refuse(self, http: HTTPRequest) -> Reply | None:
        """The refusal of a request of which only the head has come, where it can be told already."""
        incoming = Incoming(http, http.target, request_id(http.headers.get("x-request-id")))
        try:
            self._accept(incoming)
            methods = self._find(incoming)
            if http.method == "POST" and "POST" in methods:
                incoming.json_body()
            elif http.method not in methods and http.method != "OPTIONS":
                raise _not_allowed(_allowed(methods))
        except Error as error:
            return incoming.refusal(error, _allow(error), close=True)
        return None

    def log(self, http: HTTPRequest, status: int) -> None:
        """Counts a request at its end and writes its line of the access log, for a stream with its figures as JSON."""
        self._counts.request_ended(self._endpoint(http), status, http.metrics, http.error_code)
        if access.isEnabledFor(logging.INFO):
            taken = time.monotonic() - http.began
            path = http.target.partition("?")[0]
            line = f"{http.connection.remote or '-'} {http.method} {path!r} {status} {taken:.3f} {http.request_id}"
            if http.metrics is not None:
                line += f" {encode_json(log_fields(http.metrics)).decode()}"
            access.info("%s", line)

    def _endpoint(self, http: HTTPRequest) -> str:
        """The route of a request, as a label."""
        if http.metrics is not None:
            return http.metrics.endpoint
        path = http.target.partition("?")[0]
        if path in self._exact:
            return path
        return next((f"{prefix}{{}}" for prefix in self._prefixes if path.startswith(prefix)), OTHER)

    def _accept(self, incoming: Incoming) -> None:
        """Fills in what the head of a request says.

        Raises:
            Error: The request is none that may be answered; its connection is of no further use.
        """
        http = incoming.http
        target, _, query = http.target.partition("?")
        incoming.host = http.headers.get("host", "")
        if not target.startswith("/") and target != "*":
            absolute = _ABSOLUTE.fullmatch(target)
            if absolute is None:
                raise Error("invalid_request", "the request's target is none of a resource", reason="http")
            incoming.host, target = absolute[1], absolute[2] or "/"  # not the header counts
        incoming.path = target
        self._check_host(incoming.host, not http.is_http_1_1 and "host" not in http.headers)
        self._check_origin(incoming)
        if not query:
            return
        try:
            incoming.query = dict(
                parse_qsl(query, keep_blank_values=True, max_num_fields=_QUERY_FIELDS, errors="strict")
            )
        except ValueError:
            raise Error("invalid_request", "the query string cannot be read", reason="query") from None

    def _look_at_host(self, host: str, is_missing: bool) -> None:
        found = _HOST.fullmatch(host)
        if not is_missing and (found is None or int(found[2] or 0) > _MAX_PORT):
            raise Error("invalid_request", "the request must have one valid Host header", reason="host")
        if self._on_loopback:
            name = "" if found is None else found[1]
            if not is_loopback(name.strip("[]")) and self._allowed_hosts.isdisjoint((host.lower(), name.lower())):
                raise Error("forbidden", "this Host is not served here (see allowed_hosts)", reason="host")

    def _check_origin(self, incoming: Incoming) -> None:
        allowed, any_loopback = self._settings.cors_origins, self._any_loopback
        if allowed or any_loopback:
            incoming.cors = (("vary", "Origin"),)
        origin = incoming.http.headers.get("origin")
        if origin is None:
            return
        page = _WEB_ORIGIN.fullmatch(origin)
        is_allowed = origin in allowed or (any_loopback and page is not None and is_loopback(page[1].strip("[]")))
        incoming.is_foreign = not is_allowed and origin.partition("://")[2] != incoming.host
        if is_allowed:
            incoming.cors = (
                *incoming.cors,
                ("access-control-allow-origin", origin),
                ("access-control-expose-headers", _EXPOSED_HEADERS),
            )

    def _answer(self, incoming: Incoming) -> Reply | None:
        method = incoming.http.method
        if method == "OPTIONS" and "access-control-request-method" in incoming.http.headers:
            return self._preflight(incoming)
        methods = self._find(incoming)
        if method in methods:
            return methods[method](incoming)
        allow = _allowed(methods)
        if method == "OPTIONS":
            return Reply(204, headers=[("allow", allow), *id_headers(incoming.request_id), *incoming.cors])
        raise _not_allowed(allow)

    def _find(self, incoming: Incoming) -> Mapping[str, Handler]:
        methods = self._exact.get(incoming.path)
        if methods is not None:
            return methods
        if incoming.path == "*":
            return {}
        for prefix, methods in self._prefixes.items():
            if incoming.path.startswith(prefix):
                incoming.tail = incoming.path.removeprefix(prefix)
                return methods
        raise Error("not_found", "there is no such route", reason="route")

    def _preflight(self, incoming: Incoming) -> Reply:
        if "access-control-allow-origin" not in dict(incoming.cors):
            raise Error("forbidden", "this origin is not allowed (see cors_origins)", reason="origin")
        return Reply(
            204,
            headers=[
                *incoming.cors,
                *id_headers(incoming.request_id),
                ("access-control-allow-methods", "GET, POST, DELETE, OPTIONS"),
                ("access-control-allow-headers", _ALLOWED_HEADERS),
                ("access-control-max-age", "600"),
            ],
        )


def _allowed(methods: Mapping[str, Handler]) -> str:
    return ", ".join(sorted({*methods, "OPTIONS"}))


def _not_allowed(allow: str) -> Error:
    error = Error("invalid_request", "this route does not take this method", reason="method", status=405)
    error.details = {"allow": allow}
    return error


def _allow(error: Error) -> Headers:
    return [("allow", str((error.details or {})["allow"]))] if error.status == 405 else []
