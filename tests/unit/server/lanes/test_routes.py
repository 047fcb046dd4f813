"""The route table."""

from __future__ import annotations

import asyncio
from typing import get_args

from gai_fast.model.lane_paths import METHODS
from gai_fast.model.settings import ModelSettings, Settings, UpstreamSettings
from gai_fast.net.stream.streams import Engine
from gai_fast.server.admin.routes import AdminRoutes
from gai_fast.server.admission.admit import Admission
from gai_fast.server.admission.run_time_keys import RunTimeKeys
from gai_fast.server.admission.server_limits import ServerLimits
from gai_fast.server.lanes.operations import OperationRoutes
from gai_fast.server.lanes.router import Mount, Router
from gai_fast.server.lanes.routes import HOT_PATHS, ROUTES, Handlers
from gai_fast.server.observe.metrics import PrometheusSink
from gai_fast.server.pass_through.routes import PassThroughRoutes
from gai_fast.server.requests.gates import GateName
from gai_fast.server.requests.streams import StreamRoutes
from gai_fast.server.websocket.handshake import WebSocketRoutes
from tests.unit.server.incoming_requests import Remote, http


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
    )
    table = Router(Admission(settings.server, only_demo=True), handlers, metrics, Mount(True))
    without_head = (
        "/api/v1/stream",
        "/api/v1/chat/x",
        "/v1/responses/x",
        "/ws/stream",
        "/admin/v1/streams",
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
        path = f"{route.path}x{route.ending}" if route.is_prefix else route.path
        reply = table.handle(http("OPTIONS", path, client=Remote("127.0.0.1")))
        assert reply is not None
        allow = dict(reply.headers)["allow"].split(", ")
        assert route.method in allow
        assert ("HEAD" in allow) is ("GET" in allow and path not in without_head)
    passed = {"/v1/embeddings", "/v1/moderations", "/v1/rerank", "/v1/images/generations", "/v1/audio/speech"}
    assert {"/api/v1/stream", "/v1/chat/completions", "/v1/messages", "/v1/responses", *passed} == HOT_PATHS
    formats = {route.format for route in ROUTES if route.path.startswith("/v1/")}
    assert formats == {"anthropic", "completions", "openai", "responses"}


E, N, K, S, A, C = GATES = ("early limits", "named ids", "idempotency", "shared answers", "admission", "chat")

# Each route that asks an upstream, and its gates. An upstream's own paths are passed unread: only limits count them.
WAYS: dict[tuple[str, str], set[str]] = {
    ("POST", "/api/v1/stream"): {E, N, K, S, A},
    ("GET", "/api/v1/stream"): {S, A},
    ("POST", "/api/v1/streams"): {E, N, K, A},
    ("POST", "/api/v1/chat"): {E, N, S, A, C},
    **{
        ("POST", f"/v1/{name}"): {E, N, K, S, A}
        for name in ("chat/completions", "completions", "responses", "messages")
    },
    **{("POST", f"/v1/{name}"): {E, N, A} for name in ("messages/count_tokens", "responses/input_tokens")},
    ("POST", "/v1/responses/compact"): {E, N, A},
    **{("POST", f"/v1/{name}"): {E, A} for name in ("embeddings", "moderations", "rerank", "images/generations")},
    ("POST", "/v1/audio/speech"): {E, A},
    **{("POST", f"/v1/audio/{name}"): {E, N, A} for name in ("transcriptions", "translations")},
    **{("POST", f"/v1/images/{name}"): {E, N, A} for name in ("edits", "variations")},
    **{(method, "/p/"): {A} for method in METHODS},
}


def test_each_route_that_asks_an_upstream_has_its_gates() -> None:
    assert get_args(GateName) == GATES
    found = {(route.method, route.path): set(route.gates) for route in ROUTES if route.gates}
    assert found == WAYS
    assert all("admission" in gates for gates in WAYS.values())
