"""Routes a parsed request to its handler, by the route table.

Owns the form of error responses, and the one place where an unexpected exception of a handler becomes a response.
Both servers, aiohttp's and the fast lane, call it with equal requests. Opens no files and no connections.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from difflib import SequenceMatcher
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from gai_fast.config.problems import meant
from gai_fast.formats import Format, get_format
from gai_fast.model.addresses import client_network, is_loopback
from gai_fast.model.errors import Error
from gai_fast.model.limits import OTHER
from gai_fast.model.settings import KeySettings
from gai_fast.otel.trace import AnsweredRequest, Parent, Trace
from gai_fast.runtime.ids import new_request_id
from gai_fast.server.admin.recent_requests import RecentRequests
from gai_fast.server.admission.admit import (
    Admission,
    Admitted,
    check_json,
    check_no_body,
    is_preflight,
)
from gai_fast.server.admission.forwarding import NO_TRUSTED_PROXY, Forwarding
from gai_fast.server.admission.reads import Reads
from gai_fast.server.http.replies import Headers, Reply, error_reply, id_headers
from gai_fast.server.http.request import HTTPRequest
from gai_fast.server.lanes.lane import LaneRoutes
from gai_fast.server.limits import LIMITS
from gai_fast.server.observe.access_log import AccessLog, log_unreadable
from gai_fast.server.observe.audit import audit
from gai_fast.server.observe.counts import StreamCounts
from gai_fast.server.requests.gates import Gates
from gai_fast.server.requests.incoming import Incoming
from gai_fast.server.requests.passage import Gate, Passage
from gai_fast.server.routes.table import (
    NOT_OFFERED,
    ROUTES,
    SECTIONS,
    Handler,
    Handlers,
    Read,
    Route,
    is_passed_unread,
)

if TYPE_CHECKING:
    from gai_fast.otel.telemetry import Telemetry

_log: Final = logging.getLogger("gai_fast.server")

_OK: Final = 200
_UNAUTHORIZED: Final = 401
_MIN_SIMILARITY: Final = 0.8
"""The minimum similarity of an unknown path to a route for the route to be suggested: `/v1/v1/messages` and
`/v1/messages` have 0.89, `/v1/embeddings` and `/v1/completions` 0.55."""


class Endpoint:
    """One method of one path.

    Args:
        handler: Answers its requests.
        gates: What they pass first, if the handler returns a `Passage`.
    """

    def __init__(self, handler: Handler, gates: tuple[Gate, ...]) -> None:
        self.handler = handler
        self.gates = gates


class _Resource:
    """The routes of one path."""

    def __init__(self, format: Format, methods: dict[str, Endpoint], actions: dict[str, str]) -> None:
        self.actions = actions
        self.format = format
        self.methods = methods
        self.allow = ", ".join(sorted({*methods, "OPTIONS"}))


class Mount(NamedTuple):
    """The mount of the application of a request.

    Attributes:
        on_loopback: Whether the server can be reached from this machine only.
        prefix: The path that the application is mounted under, without a trailing slash.
    """

    on_loopback: bool
    prefix: str = ""


class Router(LaneRoutes):
    """Answers requests by the route table.

    Args:
        admission: The guards.
        handlers: The objects with the handlers.
        counts: Counts every request at its end.
        mount: Where the application is mounted, unless a request has a mount of its own.
        routes: The routes.
        forwarding: The trusted proxies, whose forwarding headers name the client.
        reads: Counts the requests of routes that read. None if they are not counted.

    Attributes:
        limits_of: As for `Incoming`.
        telemetry: Traces requests; None if requests are not traced.
        scheme: `http` or `https`, from the server's URL.
        access_log: Writes a line per request.
        recent: Lists the requests that are refused; None if they are not listed.
        login: Returns a refusal of a page as the page itself, which asks for a key; None for no page.
    """

    def __init__(
        self,
        admission: Admission,
        handlers: Handlers,
        counts: StreamCounts,
        mount: Mount,
        *,
        routes: Sequence[Route] = ROUTES,
        forwarding: Forwarding = NO_TRUSTED_PROXY,
        reads: Reads | None = None,
    ) -> None:
        self.limits_of: Callable[[KeySettings], Headers] | None = None
        self.telemetry: Telemetry | None = None
        self.scheme = "http"
        self.access_log = AccessLog()
        self.recent: RecentRequests | None = None
        self.login: Callable[[Incoming, Reply], Reply] | None = None
        self._forwarding = forwarding
        self._admission = admission
        self._counts = counts
        self._count = counts.request_ended  # looked up once: `counts` may be an instance of a subclass
        self._mount = mount
        self._gates = handlers.streams.gates if any(route.gates for route in routes) else None
        exact: dict[str, list[Route]] = {}
        prefixes: dict[tuple[str, str, str], list[Route]] = {}
        for route in routes:
            if route.is_prefix:
                prefixes.setdefault((route.prefix, route.middle, route.ending), []).append(route)
            else:
                exact.setdefault(route.path, []).append(route)
        self._exact = {path: _resource(found, handlers, reads) for path, found in exact.items()}
        narrow_first = sorted(prefixes.items(), key=lambda item: not item[0][1])
        self._prefixes = {words: _resource(found, handlers, reads) for words, found in narrow_first}
        self._paths = tuple(dict.fromkeys(route.path for route in routes))
        self._sections = [(path, _Resource(get_format(name), {}, {})) for path, name in SECTIONS]

    def use(self, admission: Admission) -> None:
        """Applies these guards to new requests."""
        self._admission = admission

    def handle(self, http: HTTPRequest, mount: Mount | None = None) -> Reply | None:
        """Answers a request, or starts a stream.

        An error that a handler raises is answered in the form of its route. Any other exception is answered as
        `internal`, and its traceback is logged.

        Args:
            http: The complete request.
            mount: Where the application is mounted; None for the default.
        """
        admitted, resource, incoming = self._admit(http, mount)
        try:
            if admitted.error is not None:
                raise admitted.error
            return self._answer(resource, incoming, admitted)
        except Error as error:
            return self._refused(incoming, error, close=admitted.error is not None)
        except Exception as problem:  # noqa: BLE001  # a bug of ours: the client gets a response, the log the traceback
            _log.error("%s %r could not be handled", http.method, incoming.path, exc_info=problem)
            return incoming.refusal(Error("internal", "The server failed to handle this request"), close=True)

    def endpoint(self, method: str, path: str) -> Endpoint:
        """Returns a method of a path that is no prefix, whose requests may also arrive over a WebSocket.

        Args:
            method: The method.
            path: The path.
        """
        return self._exact[path].methods[method]

    def answer_on_socket(self, incoming: Incoming, endpoint: Endpoint) -> Reply | None:
        """Answers a request that arrived over an open WebSocket; as `handle`.

        Args:
            incoming: The request, of the caller of the handshake.
            endpoint: Answers the request.
        """
        telemetry = self.telemetry
        if telemetry is not None:
            self._begin_trace(telemetry, incoming.http, incoming.path, incoming.trace_parent, incoming.key_headers)
        try:
            # It was checked at the handshake, and may have been revoked.
            incoming.http.set_key(self._admission.key_on_socket(incoming.key_headers))
            return self._at(endpoint, incoming)
        except Error as error:
            return incoming.refusal(error)
        except Exception as problem:  # noqa: BLE001  # a bug of ours: the client gets a response, the log the traceback
            _log.error("a request of %s could not be handled", incoming.path, exc_info=problem)
            return incoming.refusal(Error("internal", "The server failed to handle this request"))

    def refuse(self, http: HTTPRequest, mount: Mount | None = None) -> Reply | None:
        """Returns the refusal of a request by its headers alone; None if they are acceptable.

        Args:
            http: The request, without its body.
            mount: Where the application is mounted; None for the default.
        """
        admitted, resource, incoming = self._admit(http, mount)
        try:
            if admitted.error is not None:
                raise admitted.error
            if resource is None:
                raise self._not_found(admitted.path)
            if http.method in resource.methods:
                if http.method == "POST" and not is_passed_unread(admitted.path, http.headers):
                    check_json(http.headers)
            elif http.method != "OPTIONS":
                raise _not_allowed(resource.allow)
            paths, path = self._admission.paths, admitted.path
            if http.method == "OPTIONS" or not (paths.is_api(path) or paths.is_for_operators(path)):
                check_no_body(http.headers)
        except Error as error:
            return self._refused(incoming, error, close=True)
        return None

    def _refused(self, incoming: Incoming, error: Error, *, close: bool) -> Reply:
        """Returns the refusal of a request; for a browser that asks for an operators' page, with the page."""
        reply = incoming.refusal(error, _error_headers(error), close=close)
        login = self.login
        if login is None or not self._admission.is_login(incoming.path, error, incoming.http.headers):
            return reply
        return login(incoming, reply)

    def refusal(self, http: HTTPRequest, error: Error, mount: Mount | None = None) -> Reply:
        """Returns the response for an error of a request with readable headers, in the form of its route.

        Args:
            http: The request.
            error: The reason for the refusal. The connection is closed after the response.
            mount: Where the application is mounted; None for the default.
        """
        return self._admit(http, mount)[2].refusal(error, close=True)

    def ended(self, http: HTTPRequest, status: int) -> None:
        """Counts a request whose response has ended, and writes its access log line.

        Args:
            http: The request, with readable headers.
            status: As for `AccessLog.request_ended`.
        """
        if http.metrics is not None:
            self._count(http.metrics.endpoint, status, http.metrics)
        elif http.refused is not None:
            path = http.refused.path
            endpoint = self._endpoint(path)
            self._counts.request_refused(endpoint, status, http.refused.code)
            if self.recent is not None and self._admission.paths.is_api(path) and not self._is_stranger(http, status):
                self.recent.refused(http, endpoint, status, http.refused)
        if http.action is not None and not self._is_stranger(http, status):
            self._audit(http, http.action, status)
        self.access_log.request_ended(http, status, self._forwarding)
        if http.trace is not None:
            self._end_trace(http, http.trace, status)

    def audit_begun(self, http: HTTPRequest) -> None:
        """Writes the audit log's line of an action whose response lasts; its end has none.

        Args:
            http: The request, which has been admitted and is now answered with 200.
        """
        if http.action is not None:
            self._audit(http, http.action, _OK)
            http.action = None

    def _audit(self, http: HTTPRequest, action: tuple[str, str], status: int) -> None:
        key = None if http.key is None else http.key.name
        audit(action[0], key, self.client(http) or None, action[1] or None, status)

    def _is_stranger(self, http: HTTPRequest, status: int) -> bool:
        """Returns whether a refused request has no known caller: such requests could fill the list and the audit log.

        A WebSocket keeps its key, which may have been revoked: hence the status.
        """
        return status == _UNAUTHORIZED or (http.key is None and self._admission.needs_key)

    def _begin_trace(
        self, telemetry: Telemetry, http: HTTPRequest, path: str, parent: Parent | None, headers: Mapping[str, str]
    ) -> None:
        """Starts the trace of a request, unless it was started when the headers arrived.

        Args:
            telemetry: Traces the request.
            http: The request.
            path: The path below the mount.
            parent: The caller's span.
            headers: The headers of the request, for `tracestate`.
        """
        if http.trace is None:
            http.trace = telemetry.begin(parent, headers.get("tracestate"), route=self._endpoint(path))

    def _end_trace(self, http: HTTPRequest, trace: Trace, status: int) -> None:
        trace.request_ended(
            AnsweredRequest(
                method=http.method,
                path=http.shown_path,
                status=status,
                scheme=self.scheme,
                client=self.client(http),
                user_agent=http.headers.get("user-agent"),
                request_id=http.request_id,
                key=http.caller,
                code=None if http.refused is None else http.refused.code,
                stream=http.metrics,
            )
        )

    def client(self, http: HTTPRequest) -> str:
        """Returns the address of the client that sent a request; empty if it has none.

        Args:
            http: The request, with readable headers.
        """
        return self._forwarding.client(http.transport.remote, http.headers)

    def uploader(self, http: HTTPRequest) -> str:
        """Returns the caller that an incomplete body is counted for; empty if it may have all of `upload_bytes`.

        Without keys a caller is an address, as for connections: loopback and trusted proxies may have all.

        Args:
            http: The request, whose headers are acceptable.
        """
        if http.key is not None:
            return http.key.name
        address = self.client(http)
        return "" if is_loopback(address) or self._forwarding.trusts(address) else client_network(address)

    def refuse_unreadable(self, remote: str, error: Error) -> Reply:
        """Counts, logs and refuses a request with unreadable headers; the refusal contains nothing of the request.

        Args:
            remote: The client's address.
            error: The reason.
        """
        identifier = new_request_id()
        self._counts.request_refused(OTHER, error.status, error.code)
        log_unreadable(remote, error.status, identifier)
        return error_reply(error, identifier, close=True)

    def _endpoint(self, path: str) -> str:
        """Returns the route of a path, as a label."""
        if path in self._exact:
            return path
        for prefix, middle, ending in self._prefixes:
            if _tail(path, prefix, middle, ending) is not None:
                return f"{prefix}{{}}{f'{middle}{{}}' if middle else ''}{ending}"
        return OTHER

    def _admit(self, http: HTTPRequest, mount: Mount | None) -> tuple[Admitted, _Resource | None, Incoming]:
        """Reads a request's head.

        Returns:
            The result of the guards, the resource of the path, or None, and the request in the resource's format.
        """
        if mount is None:
            mount = self._mount
        admitted = self._admission.admit(
            http.method,
            http.target,
            http.headers,
            is_http_1_1=http.is_http_1_1,
            on_loopback=mount.on_loopback,
            prefix=mount.prefix,
            peer=http.transport,
        )
        telemetry = self.telemetry
        if telemetry is not None and self._admission.paths.is_api(admitted.path):
            # A stranger's trace is not continued: its sampled flag would export each refusal.
            is_stranger = admitted.error is not None and admitted.key is None
            parent = None if is_stranger else admitted.trace_parent
            self._begin_trace(telemetry, http, admitted.path, parent, http.headers)
        resource, incoming = self._find(http, admitted)
        incoming.limits_of = self.limits_of
        return admitted, resource, incoming

    def _find(self, http: HTTPRequest, admitted: Admitted) -> tuple[_Resource | None, Incoming]:
        path = admitted.path
        resource = self._exact.get(path)
        if resource is not None:
            if resource.actions and http.method in resource.actions:
                http.action = resource.actions[http.method], ""
            return resource, Incoming(http, admitted, resource.format)
        for (prefix, middle, ending), resource in self._prefixes.items():
            tail = _tail(path, prefix, middle, ending)
            if tail is not None:
                if resource.actions and http.method in resource.actions:
                    http.action = resource.actions[http.method], tail
                return resource, Incoming(http, admitted, resource.format, tail)
        section = next(section for prefix, section in self._sections if path.startswith(prefix))
        return section if path == "*" else None, Incoming(http, admitted, section.format)

    def _answer(self, resource: _Resource | None, incoming: Incoming, admitted: Admitted) -> Reply | None:
        method = incoming.http.method
        endpoint = None if resource is None else resource.methods.get(method)
        if endpoint is not None:  # which is none of OPTIONS, and so the request is no preflight
            return self._at(endpoint, incoming)
        if is_preflight(method, incoming.http.headers):
            return self._admission.preflight(admitted, incoming.http.headers)
        if resource is None:
            raise self._not_found(admitted.path)
        if method == "OPTIONS":
            headers = [("allow", resource.allow), *id_headers(incoming.http.request_id), *incoming.answer_headers]
            return Reply(204, headers=headers)
        raise _not_allowed(resource.allow)

    def _at(self, endpoint: Endpoint, incoming: Incoming) -> Reply | None:
        answer = endpoint.handler(incoming)
        if not isinstance(answer, Passage):
            return answer
        gates = self._gates
        assert gates is not None  # a handler that returns a passage has a route with gates
        return gates.walk(answer, endpoint.gates)

    def _not_found(self, path: str) -> Error:
        """Returns the error for an unknown path; often an SDK's base URL has one `/v1` too few or too many."""
        if path in NOT_OFFERED:
            text = f"this gateway does not offer {path}: ask the provider itself, or let a path of it through (`lane`)"
            return Error("not_found", text, reason="route")
        near = _nearest(path[: LIMITS.compared_path], self._paths)
        hint = f"; did you mean {near}?" if near else ": /docs lists them"
        return Error("not_found", f"there is no such route{hint}", reason="route")


def _resource(routes: Sequence[Route], handlers: Handlers, reads: Reads | None) -> _Resource:
    methods: dict[str, Endpoint] = {}
    for route in routes:
        gates = handlers.streams.gates.of(route.gates) if route.gates else ()
        handler = route.handler(handlers)
        if route.reads and reads is not None:
            handler = partial(_counted, handler, reads, handlers.streams.gates, route.reads)
        methods.update(dict.fromkeys(route.methods, Endpoint(handler, gates)))
    actions = {route.method: route.action for route in routes if route.action}
    return _Resource(get_format(routes[0].format), methods, actions)


def _counted(handler: Handler, reads: Reads, gates: Gates, kind: Read, incoming: Incoming) -> Reply | None:
    """Answers a request that is counted as a read."""
    key = incoming.http.key
    if key is None or (kind != "always" and incoming.query.get("stream") == "true"):
        return _answered(handler, incoming)
    gates.wait(incoming, reads.take(key, partial(_answered, handler, incoming)))
    return None


def _answered(handler: Handler, incoming: Incoming) -> Reply | None:
    answer = handler(incoming)
    assert not isinstance(answer, Passage)  # a route of reads has no gates
    return answer


def _nearest(path: str, routes: Sequence[str]) -> str:
    """Returns the route that an unknown path may have meant; empty if none is as alike as `_MIN_SIMILARITY`.

    A parameter of a route has no text to compare: a part of the path is dropped if the route has a parameter there.
    """
    parts = path.split("/")
    known: dict[str, dict[str, str]] = {}  # by what is left of the path: what is left of routes, and the routes
    for route in routes:
        fixed = ["" if part.startswith("{") else part for part in route.split("/")]
        word = path
        if "{" in route:
            if len(fixed) != len(parts) or not all(parts[1:]):
                continue
            word = "/".join(part if own else "" for part, own in zip(parts, fixed, strict=True))
        known.setdefault(word, {})["/".join(fixed)] = route
    found = [(word, near) for word, texts in known.items() if (near := meant(word, texts, _MIN_SIMILARITY))]
    if not found:
        return ""
    word, near = max(found, key=lambda pair: SequenceMatcher(None, *pair).ratio())
    return known[word][near]


def _tail(path: str, prefix: str, middle: str, ending: str) -> str | None:
    """Returns the part of a path between a prefix and an ending; None if the path lacks one of them or the middle."""
    rest = path.removeprefix(prefix)
    if not path.startswith(prefix) or not rest.endswith(ending) or middle not in rest:
        return None
    return rest.removesuffix(ending)


def _not_allowed(allow: str) -> Error:
    message = f"this route does not accept this method; it accepts {allow}"
    error = Error("invalid_request", message, reason="method", status=405)
    error.details = {"allow": allow}
    return error


def _error_headers(error: Error) -> Headers:
    """Returns the headers of a refusal that `replies.error_headers` does not add."""
    if error.status == 405:
        return [("allow", str((error.details or {})["allow"]))]
    return []
