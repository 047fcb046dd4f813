"""The route table: every route with its format and its handler.

Not compiled: it runs once per process, and mypyc generates 0.7 MB of C from its lambdas.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from gai_fast.model.lane_paths import METHODS
from gai_fast.server.admin.routes import AdminRoutes
from gai_fast.server.admission.admit import is_form
from gai_fast.server.http.replies import Reply
from gai_fast.server.lanes.operations import OperationRoutes
from gai_fast.server.pass_through.routes import PassThroughRoutes
from gai_fast.server.requests.gates import GateName
from gai_fast.server.requests.incoming import Incoming
from gai_fast.server.requests.passage import Passage
from gai_fast.server.requests.streams import StreamRoutes

Handler = Callable[[Incoming], Reply | Passage | None]
"""Answers a request; returns None if a stream has started, which ends the response itself. A request that asks an
upstream is returned as a `Passage`, which passes the gates of its route first."""


class SocketRoutes(Protocol):
    """The part of `websocket.WebSocketRoutes` that answers a handshake."""

    def open(self, incoming: Incoming) -> Reply | None:
        """Handles `GET /ws/stream`."""


class Handlers(NamedTuple):
    """The objects with the handlers."""

    streams: StreamRoutes
    operations: OperationRoutes
    sockets: SocketRoutes
    admin: AdminRoutes
    pass_through: PassThroughRoutes


class Route(NamedTuple):
    """One route.

    Attributes:
        method: The HTTP method; a GET route with `whole` answers HEAD too.
        path: The path. If it ends in `/` and is not the root, it is a prefix, and `Incoming.tail` is the rest.
        ending: The end of the paths of a prefix route, after `Incoming.tail`.
        format: The name of the format of the route's requests and errors.
        handler: Returns the handler.
        is_hot: Whether the fast lane may answer the route.
        whole: Whether the handler always returns a whole reply.
        gates: The gates of a route whose handler returns a `Passage`; `requests/gates.py` has their order.
        action: The name of the admin's action in the audit log; empty if there is none.
        any_body: Whether the body may have any media type, and is passed on unread.
        takes_form: Whether the body may be a form, which is passed on unread.
    """

    method: str
    path: str
    format: str
    handler: Callable[[Handlers], Handler]
    is_hot: bool = False
    whole: bool = True
    gates: frozenset[GateName] = frozenset()
    ending: str = ""
    action: str = ""
    any_body: bool = False
    takes_form: bool = False

    @property
    def is_prefix(self) -> bool:
        """Whether the path is a prefix."""
        return self.path.endswith("/") and self.path != "/"


def _gates(*names: GateName) -> frozenset[GateName]:
    return frozenset(names)


_COUNTED: Final = _gates("early limits", "named ids", "admission")
_ALL: Final = _gates("early limits", "named ids", "idempotency", "shared answers", "admission")


def _passed_through(method: str) -> Route:
    gates = _gates("admission")
    return Route(method, "/p/", "gai", lambda on: on.pass_through.upstream, whole=False, gates=gates, any_body=True)


def _with_model(path: str) -> Route:
    gates = _gates("early limits", "admission")
    return Route("POST", path, "openai", lambda on: on.pass_through.with_model, is_hot=True, whole=False, gates=gates)


def _form(path: str) -> Route:
    return Route("POST", path, "openai", lambda on: on.pass_through.form, whole=False, gates=_COUNTED, takes_form=True)


def _dialect(path: str, format: str, *, is_hot: bool = True) -> Route:
    return Route("POST", path, format, lambda on: on.streams.dialect, is_hot=is_hot, whole=False, gates=_ALL)


def _count(path: str, format: str) -> Route:
    return Route("POST", path, format, lambda on: on.streams.count_tokens, whole=False, gates=_COUNTED)


ROUTES: Final = (
    Route("POST", "/api/v1/stream", "gai", lambda on: on.streams.native, is_hot=True, whole=False, gates=_ALL),
    Route(
        "GET",
        "/api/v1/stream",
        "gai",
        lambda on: on.streams.event_source,
        whole=False,
        gates=_gates("shared answers", "admission"),
    ),
    Route(
        "POST",
        "/api/v1/streams",
        "gai",
        lambda on: on.streams.start,
        whole=False,
        gates=_gates("early limits", "named ids", "idempotency", "admission"),
    ),
    Route("GET", "/api/v1/streams/", "gai", lambda on: on.streams.durable.follow, whole=False),
    Route("HEAD", "/api/v1/streams/", "gai", lambda on: on.streams.durable.head, whole=False),
    Route("DELETE", "/api/v1/streams/", "gai", lambda on: on.streams.durable.cancel, whole=False),
    Route(
        "POST",
        "/api/v1/chat",
        "vercel",
        lambda on: on.streams.chat,
        whole=False,
        gates=_gates("early limits", "named ids", "shared answers", "admission", "chat"),
    ),
    Route("GET", "/api/v1/chat/", "vercel", lambda on: on.streams.chats.follow, whole=False),
    _dialect("/v1/chat/completions", "openai"),
    _dialect("/v1/messages", "anthropic"),
    Route("GET", "/ws/stream", "gai", lambda on: on.sockets.open, whole=False),
    _count("/v1/messages/count_tokens", "anthropic"),
    _dialect("/v1/responses", "responses"),
    Route("POST", "/v1/responses/", "responses", lambda on: on.streams.responses.cancel, whole=False, ending="/cancel"),
    Route("GET", "/v1/responses/", "responses", lambda on: on.streams.responses.retrieve, whole=False),
    _dialect("/v1/completions", "completions", is_hot=False),
    _count("/v1/responses/input_tokens", "responses"),
    Route(
        "POST",
        "/v1/responses/compact",
        "responses",
        lambda on: on.pass_through.compact,
        whole=False,
        gates=_COUNTED,
    ),
    *map(_with_model, ("/v1/embeddings", "/v1/moderations", "/v1/rerank", "/v1/images/generations")),
    _with_model("/v1/audio/speech"),
    *map(_form, ("/v1/audio/transcriptions", "/v1/audio/translations", "/v1/images/edits", "/v1/images/variations")),
    *map(_passed_through, METHODS),
    Route("GET", "/v1/models", "openai", lambda on: on.operations.models),
    Route("GET", "/v1/models/", "openai", lambda on: on.operations.model),
    Route("GET", "/admin/v1/streams", "gai", lambda on: on.admin.streams, whole=False),
    Route("GET", "/admin/v1/requests", "gai", lambda on: on.admin.requests, whole=False),
    Route("GET", "/admin/v1/history", "gai", lambda on: on.admin.history, whole=False),
    Route("GET", "/admin/v1/streams/", "gai", lambda on: on.admin.follow, whole=False, action="streams.follow"),
    Route("DELETE", "/admin/v1/streams/", "gai", lambda on: on.admin.cancel, whole=False, action="streams.cancel"),
    Route("GET", "/admin/v1/keys", "gai", lambda on: on.admin.list_keys, whole=False),
    Route("POST", "/admin/v1/keys", "gai", lambda on: on.admin.new_key, whole=False, action="keys.new"),
    Route(
        "POST",
        "/admin/v1/keys/",
        "gai",
        lambda on: on.admin.rotate_key,
        whole=False,
        ending="/rotate",
        action="keys.rotate",
    ),
    Route(
        "POST",
        "/admin/v1/keys/",
        "gai",
        lambda on: on.admin.reset_key,
        whole=False,
        ending="/reset",
        action="keys.reset",
    ),
    Route("GET", "/admin/v1/keys/", "gai", lambda on: on.admin.show_key, whole=False),
    Route("PATCH", "/admin/v1/keys/", "gai", lambda on: on.admin.change_key, whole=False, action="keys.change"),
    Route("DELETE", "/admin/v1/keys/", "gai", lambda on: on.admin.revoke_key, whole=False, action="keys.revoke"),
    Route("GET", "/admin/v1/spend", "gai", lambda on: on.admin.spend, whole=False),
    Route("GET", "/admin/v1/targets", "gai", lambda on: on.admin.targets, whole=False),
    Route("POST", "/admin/v1/targets/drain", "gai", lambda on: on.admin.drain, whole=False, action="targets.drain"),
    Route(
        "POST", "/admin/v1/targets/restore", "gai", lambda on: on.admin.restore, whole=False, action="targets.restore"
    ),
    Route("POST", "/admin/v1/reload", "gai", lambda on: on.admin.reload_configuration, whole=False, action="reload"),
    Route("GET", "/admin/v1/events", "gai", lambda on: on.admin.events, whole=False),
    Route("GET", "/healthz", "gai", lambda on: on.operations.healthz),
    Route("GET", "/health", "gai", lambda on: on.operations.healthz),
    Route("GET", "/readyz", "gai", lambda on: on.operations.readyz),
    Route("GET", "/metrics", "gai", lambda on: on.operations.metrics),
    Route("GET", "/version", "gai", lambda on: on.operations.version),
    Route("GET", "/probe", "gai", lambda on: on.operations.probe, whole=False),
    Route("GET", "/openapi.json", "gai", lambda on: on.operations.openapi),
    Route("GET", "/docs", "gai", lambda on: on.operations.docs),
    Route("GET", "/docs/", "gai", lambda on: on.operations.docs_asset),
    Route("GET", "/dashboard", "gai", lambda on: on.operations.dashboard),
    Route("GET", "/dashboard/", "gai", lambda on: on.operations.dashboard_asset),
    Route("GET", "/client.js", "gai", lambda on: on.operations.client),
    Route("GET", "/gai.proto", "gai", lambda on: on.operations.proto),
    Route("GET", "/", "gai", lambda on: on.operations.playground),
    Route("GET", "/playground/", "gai", lambda on: on.operations.asset),
)
"""Every route. Of several routes with one prefix, the first whose ending matches the path is used. For any other path,
`SECTIONS` gives the form of the error."""

NOT_OFFERED: Final = frozenset(
    (
        *("/v1/files", "/v1/batches", "/v1/uploads", "/v1/vector_stores", "/v1/assistants", "/v1/threads"),
        *("/v1/fine_tuning/jobs", "/v1/realtime", "/v1/messages/batches", "/v1/conversations"),
    )
)
"""Paths of OpenAI's and Anthropic's APIs that the gateway does not have, and whose error says so."""

SECTIONS: Final = (("/v1/messages", "anthropic"), ("/v1/", "openai"), ("", "gai"))
"""The format of paths with these beginnings; the first match counts."""

HOT_PATHS: Final = frozenset(route.path for route in ROUTES if route.is_hot)

_FORMS: Final = frozenset(route.path for route in ROUTES if route.takes_form)
_ANY_BODY_BELOW: Final = tuple({route.path for route in ROUTES if route.any_body})


def is_passed_unread(path: str, headers: dict[str, str]) -> bool:
    """Returns whether the body of a request is passed on unread.

    Args:
        path: The path, without the prefix that the application is mounted under.
        headers: By lower-case name.
    """
    return (path in _FORMS and is_form(headers)) or path.startswith(_ANY_BODY_BELOW)
