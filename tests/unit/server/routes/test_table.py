"""The route table."""

from __future__ import annotations

import asyncio
import re
from types import SimpleNamespace
from typing import Any, cast, get_args

from aiohttp import web
from msgspec import Struct

from gai_fast.model.pass_paths import METHODS
from gai_fast.model.settings import KeySettings, ModelSettings, ServerSettings, Settings, UpstreamSettings, key_digest
from gai_fast.net.engine.engine import Engine
from gai_fast.server.admin.routes import AdminRoutes
from gai_fast.server.admission.access import Paths
from gai_fast.server.admission.admit import Admission
from gai_fast.server.admission.run_time_keys import RunTimeKeys
from gai_fast.server.admission.server_limits import ServerLimits
from gai_fast.server.application import add_routes
from gai_fast.server.http.replies import Reply
from gai_fast.server.http.request import HTTPRequest
from gai_fast.server.observe.counts import StreamCounts
from gai_fast.server.observe.metrics import PrometheusSink
from gai_fast.server.openapi.document import document
from gai_fast.server.openapi.operation import JSON, Operation
from gai_fast.server.pass_through.routes import PassThroughRoutes
from gai_fast.server.requests.gates import GateName
from gai_fast.server.requests.incoming import Incoming
from gai_fast.server.requests.kinds.stream_routes import StreamRoutes
from gai_fast.server.routes.approvals import ApprovalRoutes
from gai_fast.server.routes.operations import OperationRoutes
from gai_fast.server.routes.router import Mount, Router
from gai_fast.server.routes.table import HOT_PATHS, PATHS, ROUTES, Handlers, Route
from gai_fast.server.websocket.handshake import WebSocketRoutes
from tests.unit.server.incoming_requests import LOOPBACK, Remote, http


async def test_every_route_of_the_contract_that_has_come_is_there() -> None:
    demo = UpstreamSettings("demo", "demo", "")
    settings = Settings(upstreams={"demo": demo}, models={"demo": ModelSettings("demo", demo, "demo")})
    engine = Engine(settings, asyncio.get_running_loop())
    metrics = PrometheusSink([])
    streams = StreamRoutes(engine)
    operations = OperationRoutes(settings, metrics, engine.store, engine.ledger, ROUTES)
    admin = AdminRoutes(engine, metrics, operations.scrapes, RunTimeKeys(engine.store.keys, settings))
    handlers = Handlers(
        streams,
        operations,
        WebSocketRoutes(engine, streams, ServerLimits(settings.limits)),
        admin,
        PassThroughRoutes(engine),
        ApprovalRoutes(engine),
    )
    table = Router(Admission(settings.server, paths=PATHS, only_demo=True), handlers, metrics, Mount(True))
    without_head = (
        "/api/v1/stream",
        "/api/v1/chat/x",
        "/v1/responses/x",
        "/v1/responses/x/input_items",
        "/ws/stream",
        "/v1/responses",
        "/admin/v1/streams",
        "/admin/v1/approvals",
        "/admin/v1/requests",
        "/admin/v1/history",
        "/admin/v1/streams/x",
        "/admin/v1/keys",
        "/admin/v1/keys/x",
        "/admin/v1/targets",
        "/admin/v1/spend",
        "/admin/v1/events",
        "/probe",
    )
    for route in ROUTES:
        path = re.sub(r"\{\w+\}", "x", route.path)
        reply = table.handle(http("OPTIONS", path, client=Remote("127.0.0.1")))
        assert reply is not None
        allow = dict(reply.headers)["allow"].split(", ")
        assert route.method in allow
        assert route.method != "OPTIONS", "the router looks for a preflight behind the methods of a path"
        assert ("HEAD" in allow) is ("GET" in allow and path not in without_head)
    passed = {"/v1/embeddings", "/v1/moderations", "/v1/rerank", "/v1/images/generations", "/v1/audio/speech"}
    assert {"/api/v1/stream", "/v1/chat/completions", "/v1/messages", "/v1/responses", *passed} == HOT_PATHS
    formats = {route.format for route in ROUTES if route.path.startswith("/v1/")}
    assert formats == {"anthropic", "completions", "openai", "responses"}


GATES = ("early limits", "chains", "named ids", "idempotency", "guards", "shared answers", "admission", "chat")
E, H, N, K, G, S, A, C = GATES

# Each route that asks an upstream, and its gates. An upstream's own paths are passed unread: only limits count them.
# Where guards cannot look, a guard closes the route (`pass_through/routes.py`, rule 6).
WAYS: dict[tuple[str, str], set[str]] = {
    ("POST", "/api/v1/stream"): {E, N, K, G, S, A},
    ("GET", "/api/v1/stream"): {G, S, A},
    ("POST", "/api/v1/streams"): {E, N, K, G, A},
    ("POST", "/api/v1/chat"): {E, N, G, S, A, C},
    **{("POST", f"/v1/{name}"): {E, N, K, G, S, A} for name in ("chat/completions", "completions", "messages")},
    ("POST", "/v1/responses"): {E, H, N, K, G, S, A},
    ("POST", "/v1/messages/count_tokens"): {E, N, G, A},
    ("POST", "/v1/responses/input_tokens"): {E, H, N, G, A},
    ("POST", "/v1/responses/compact"): {E, H, N, A},
    **{("POST", f"/v1/{name}"): {E, A} for name in ("embeddings", "moderations", "rerank", "images/generations")},
    ("POST", "/v1/audio/speech"): {E, A},
    **{("POST", f"/v1/audio/{name}"): {E, N, A} for name in ("transcriptions", "translations")},
    **{("POST", f"/v1/images/{name}"): {E, N, A} for name in ("edits", "variations")},
    **{(method, "/p/{upstream}/{path}"): {A} for method in METHODS},
}


def test_each_route_that_asks_an_upstream_has_its_gates() -> None:
    assert get_args(GateName) == GATES
    found = {(route.method, route.path): set(route.gates) for route in ROUTES if route.gates}
    assert found == WAYS
    assert all("admission" in gates for gates in WAYS.values())
    passed = ("with_model", "form", "compact", "upstream")
    asking = [route for route in ROUTES if route.gates and route.path.split("/")[1] != "p"]
    handlers: Any = SimpleNamespace(
        streams=SimpleNamespace(**{name: name for name in dir(StreamRoutes)}),
        pass_through=SimpleNamespace(**{name: name for name in passed}),
    )
    unguarded = {route.path for route in asking if "guards" not in route.gates}
    assert unguarded == {route.path for route in asking if cast("str", route.handler(handlers)) in passed}


class Pause(Struct):
    """The body of a route that the next test adds; a handler's file would have it."""

    seconds: int


def paused(incoming: Incoming) -> Reply:
    return incoming.json_reply({"paused": incoming.tail})


NEW = Route(
    "POST",
    "/admin/v1/upstreams/{name}/pause",
    lambda on: paused,
    Operation("Pauses an upstream.", "Admin", {200: {JSON: "TargetState"}}, Pause, example={"seconds": 9}),
    access="admin",
    action="upstreams.pause",
)
ADMIN = KeySettings("ops", (key_digest("sk-operator-0123456789"),), role="admin")
USER = KeySettings("ann", (key_digest("sk-caller-0123456789"),))


def test_a_new_admin_route_is_one_record() -> None:
    """It is found, guarded, audited and described; other methods of its path are refused with those that it has."""
    routes = (NEW, Route("GET", "/v1/models", lambda on: paused, Operation("A test.", "Dialects", {200: {}})))
    paths = Paths((route.path, route.access) for route in routes)
    admission = Admission(ServerSettings(), (ADMIN, USER), paths=paths, only_demo=False)
    table = Router(admission, Handlers(*[cast(Any, None)] * 6), StreamCounts([]), Mount(True), routes=routes)

    def ask(method: str, path: str, key: str = "") -> tuple[Reply, HTTPRequest]:
        request = http(method, path, {**LOOPBACK, "X-Api-Key": key} if key else None)
        reply = table.handle(request)
        assert reply is not None
        return reply, request

    admin, user, path = "sk-operator-0123456789", "sk-caller-0123456789", "/admin/v1/upstreams/mine/pause"
    reply, request = ask("POST", path, admin)
    assert (reply.status, reply.body, request.action) == (200, b'{"paused":"mine"}', ("upstreams.pause", "mine"))
    assert [ask("POST", path, key)[0].status for key in ("", user)] == [401, 403]
    assert [ask("GET", "/v1/models", key)[0].status for key in ("", user)] == [401, 200]
    reply, _ = ask("PUT", path, admin)
    assert (reply.status, dict(reply.headers)["allow"]) == (405, "OPTIONS, POST")
    described = document(routes)
    operation = described["paths"]["/admin/v1/upstreams/{name}/pause"]["post"]
    assert [each["name"] for each in operation["parameters"]] == ["name"]
    assert operation["requestBody"]["content"][JSON]["example"] == {"seconds": 9}
    assert described["components"]["schemas"]["Pause"]["required"] == ["seconds"]


def test_aiohttp_has_each_path_with_its_methods() -> None:
    app = web.Application()
    add_routes(app, ServerSettings())
    found = {
        (str(getattr(resource, "canonical", "")).replace("{tail}", ""), route.method)
        for resource in app.router.resources()
        for route in resource
        if route.method != "*"
    }
    assert found == {(route.prefix, method) for route in ROUTES for method in route.methods}
