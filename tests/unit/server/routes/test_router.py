"""From a request to a reply."""

from __future__ import annotations

import json
import logging
from typing import Any, cast

import pytest

from gai_fast.model.errors import Error
from gai_fast.model.settings import KeySettings, ServerSettings, key_digest
from gai_fast.server.admission.admit import Admission
from gai_fast.server.admission.forwarding import Forwarding
from gai_fast.server.http.replies import Reply
from gai_fast.server.observe.counts import StreamCounts
from gai_fast.server.openapi.operation import Operation
from gai_fast.server.requests.incoming import Incoming
from gai_fast.server.routes.router import Mount, Router
from gai_fast.server.routes.table import PATHS, ROUTES, Handlers, Route
from tests.unit.server.incoming_requests import LOOPBACK, Remote, http


def echo(incoming: Incoming) -> Reply:
    return Reply(200, f"{incoming.path} {incoming.tail}".encode(), incoming.answer_headers)


def fail(incoming: Incoming) -> Reply:
    raise Error("rate_limited", "slow", retry_after_ms=10)


def crash(incoming: Incoming) -> Reply:
    raise TypeError("canary77")


SEEN: list[Incoming] = []


def stream(incoming: Incoming) -> None:
    SEEN.append(incoming)


TESTED = Operation("A route of a test.", "Server", {200: {}})
TABLE = (
    Route("GET", "/here", lambda on: echo, TESTED),
    Route("POST", "/here", lambda on: echo, TESTED),
    Route("GET", "/stream", lambda on: echo, TESTED, whole=False),
    Route("POST", "/begin", lambda on: stream, TESTED, whole=False),
    Route("POST", "/things/{id}/end", lambda on: echo, TESTED),
    Route("DELETE", "/things/{id}", lambda on: echo, TESTED),
    Route("GET", "/v1/fail", lambda on: fail, TESTED, format="openai"),
    Route("GET", "/fail", lambda on: fail, TESTED),
    Route("GET", "/v1/crash", lambda on: crash, TESTED, format="openai"),
    Route("GET", "/crash", lambda on: crash, TESTED),
)
NATIVE = {"code", "message", "temporary", "request_id"}
OPENAI = {"message", "type", "param", "code"}


def router(on_loopback: bool = True, keys: tuple[KeySettings, ...] = (), **settings: Any) -> Router:
    handlers = Handlers(*[cast(Any, None)] * 6)  # the routes of this table need none
    mount = Mount(on_loopback)
    counts = StreamCounts([])
    return Router(
        Admission(ServerSettings(**settings), keys, paths=PATHS, only_demo=False), handlers, counts, mount, routes=TABLE
    )


def ask(table: Router, method: str, path: str, headers: dict[str, str] | None = None, **more: Any) -> Reply:
    reply = table.handle(http(method, path, headers), **more)
    assert reply is not None
    return reply


def members(reply: Reply) -> set[str]:
    return {*json.loads(reply.body)["error"]}


# ---- routes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("/chat/completions", "; did you mean /v1/chat/completions?"),
        ("/v1/v1/messages", "; did you mean /v1/messages?"),
        ("/api/v1/strem", "; did you mean /api/v1/stream?"),
        ("/api/v1/stream/0123456789abcdef0123456789abcdef", "; did you mean /api/v1/streams/{id}?"),
        ("/api/v1/stream/a", "; did you mean /api/v1/streams/{id}?"),
        ("/api/v1/stream/", "; did you mean /api/v1/stream?"),
        ("/v1/response/resp_1", "; did you mean /v1/responses/{id}?"),
        ("/v1/response/resp_1/cancel", "; did you mean /v1/responses/{id}/cancel?"),
        ("/v1/model/gpt", "; did you mean /v1/models/{id}?"),
        ("/v1/embed", ": /docs lists them"),
        ("/x/y/z", ": /docs lists them"),  # `/p/{upstream}/{path}` has little to compare
        ("/" * 4000, ": /docs lists them"),
        ("/x" * 4000, ": /docs lists them"),
    ],
)
def test_an_unknown_path_is_answered_with_the_route_that_it_may_have_meant(path: str, hint: str) -> None:
    admission = Admission(ServerSettings(), paths=PATHS, only_demo=True)
    routes = [route._replace(handler=lambda on: echo, gates=frozenset()) for route in ROUTES]
    table = Router(admission, NO_HANDLERS, StreamCounts([]), Mount(on_loopback=True), routes=routes)
    for reply in (ask(table, "POST", path), table.refuse(http("POST", path, LOOPBACK))):
        assert reply is not None
        assert json.loads(reply.body)["error"]["message"] == f"there is no such route{hint}"


@pytest.mark.parametrize("path", ["/v1/realtime", "/v1/files", "/v1/messages/batches"])
def test_a_route_of_a_known_api_that_is_not_offered_says_so(path: str) -> None:
    admission = Admission(ServerSettings(), paths=PATHS, only_demo=True)
    table = Router(admission, NO_HANDLERS, StreamCounts([]), Mount(on_loopback=True), routes=())
    reply = ask(table, "POST", path)
    assert reply.status == 404
    assert f"this gateway does not offer {path}" in reply.body.decode()


def test_a_route_is_found_by_its_exact_path_and_a_prefix_gives_the_rest() -> None:
    table = router()
    assert ask(table, "GET", "/here?a=b").body == b"/here "
    assert ask(table, "HEAD", "/here").status == 200
    assert ask(table, "DELETE", "/things/a/b%20c").body == b"/things/a/b%20c a/b%20c"
    assert ask(table, "DELETE", "/things/").body == b"/things/ "
    assert ask(table, "POST", "/things/a/end").body == b"/things/a/end a"
    assert ask(table, "POST", "/things//end").body == b"/things//end "
    assert ask(table, "DELETE", "/things/end").body == b"/things/end end"
    for path in ("/here/", "/Here", "/nothing", "/things"):
        assert ask(table, "GET", path).status == 404


def test_a_mounted_application_is_found_behind_its_prefix_and_judges_hosts_by_its_socket() -> None:
    table = router()
    mount = Mount(on_loopback=False, prefix="/gw")
    assert ask(table, "GET", "/gw/here", {"Host": "evil.example"}, mount=mount).body == b"/here "
    assert ask(table, "GET", "/gw/here", {"Host": "evil.example"}).status == 403
    refused = table.refuse(http("POST", "/gw/here", {"Host": "evil.example"}), mount)
    assert refused is not None
    assert refused.status == 415
    reply = table.refusal(http("POST", "/gw/v1/fail"), Error("timeout", "late"), mount)
    assert members(reply) == OPENAI


def test_a_method_that_is_not_there_is_reported_which_are() -> None:
    for method, path, allow in (
        ("PUT", "/here", "GET, HEAD, OPTIONS, POST"),
        ("HEAD", "/stream", "GET, OPTIONS"),
        ("GET", "/things/x", "DELETE, OPTIONS"),
        ("POST", "/things/x", "DELETE, OPTIONS"),
        ("DELETE", "/things/x/end", "OPTIONS, POST"),
    ):
        reply = ask(router(), method, path)
        assert (reply.status, dict(reply.headers)["allow"]) == (405, allow)
        assert f"; it accepts {allow}".encode() in reply.body
        reply = ask(router(), "OPTIONS", path)
        assert (reply.status, dict(reply.headers)["allow"]) == (204, allow)
    reply = ask(router(), "OPTIONS", "*")
    assert (reply.status, dict(reply.headers)["allow"]) == (204, "OPTIONS")
    assert ask(router(), "GET", "*").status == 405


@pytest.mark.parametrize(("origin", "status"), [("https://a.example", 204), ("https://b.example", 403)])
def test_a_preflight_is_answered_for_allowed_origins(origin: str, status: int) -> None:
    for path in ("/here", "/nothing"):
        headers = {**LOOPBACK, "Origin": origin, "Access-Control-Request-Method": "POST"}
        reply = ask(router(cors_origins=("https://a.example",)), "OPTIONS", path, headers)
        assert reply.status == status
        assert ("access-control-allow-origin" in dict(reply.headers)) is (status == 204)


# ---- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "shape"), [("/fail", NATIVE | {"retry_after_ms"}), ("/v1/fail", OPENAI)])
def test_an_error_has_the_shape_of_its_route(path: str, shape: set[str]) -> None:
    reply = ask(router(), "GET", path, {**LOOPBACK, "X-Request-Id": "abc"})
    assert members(reply) == shape
    assert reply.status == 429
    assert dict(reply.headers)["retry-after-ms"] == "10"
    assert dict(reply.headers)["x-request-id"] == "abc"
    assert not reply.close


@pytest.mark.parametrize(("path", "shape"), [("/nothing", NATIVE | {"reason"}), ("/v1/nothing", OPENAI)])
def test_an_unknown_path_has_the_shape_of_its_section(path: str, shape: set[str]) -> None:
    assert members(ask(router(), "GET", path)) == shape


@pytest.mark.parametrize(("path", "shape"), [("/crash", NATIVE), ("/v1/crash", OPENAI)])
def test_an_unexpected_exception_is_one_500_in_the_shape_of_the_route(
    path: str, shape: set[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "gai_fast.server"):
        reply = ask(router(), "GET", path, {**LOOPBACK, "X-Request-Id": "abc"})
    assert (reply.status, reply.close) == (500, True)
    assert members(reply) == shape
    assert dict(reply.headers)["x-request-id"] == "abc"
    assert b"canary77" not in reply.body
    (record,) = caplog.records
    assert record.exc_info is not None
    assert "canary77" in str(record.exc_info[1])


def test_a_request_that_a_guard_refuses_closes_its_connection() -> None:
    reply = ask(router(), "GET", "/here", {"Host": "evil.example", "X-Request-Id": "abc"})
    assert (reply.status, reply.close) == (403, True)
    assert dict(reply.headers)["x-request-id"] == "abc"


def test_a_caller_without_a_key_gets_a_401_in_the_shape_of_its_route_before_its_body_is_read() -> None:
    table = router(keys=(KeySettings("alice", (key_digest("sk-alice"),)),))
    for path, shape in (("/v1/fail", OPENAI), ("/v1/nothing", OPENAI), ("/api/nothing", NATIVE)):
        reply = ask(table, "GET", path)
        assert (reply.status, reply.close) == (401, True)
        assert members(reply) >= shape
        assert dict(reply.headers)["www-authenticate"] == "Bearer"
    upload = {**LOOPBACK, "Content-Type": "application/json", "Content-Length": "9"}
    refused = table.refuse(http("POST", "/v1/fail", upload))
    assert refused is not None
    assert refused.status == 401
    assert ask(table, "GET", "/v1/fail", {**LOOPBACK, "X-API-Key": "sk-alice"}).status == 429
    assert ask(table, "GET", "/here").status == 200


def test_a_handler_knows_who_asks() -> None:
    asked = http("POST", "/v1/begin", {**LOOPBACK, "Authorization": "Bearer sk-alice"})
    begin = Route("POST", "/v1/begin", lambda on: stream, TESTED, whole=False)
    handlers = Handlers(*[cast(Any, None)] * 6)
    keys = (KeySettings("alice", (key_digest("sk-alice"),)),)
    admission = Admission(ServerSettings(), keys, paths=PATHS, only_demo=False)
    table = Router(admission, handlers, StreamCounts([]), Mount(True), routes=(begin,))
    SEEN.clear()
    assert table.handle(asked) is None
    assert (SEEN[0].http.caller, asked.caller) == ("alice", "alice")


@pytest.mark.parametrize(
    ("path", "shape"), [("/here", NATIVE | {"reason"}), ("/v1/fail", OPENAI), ("/v1/nothing", OPENAI)]
)
def test_a_request_whose_body_fails_is_refused_in_the_shape_of_its_route_with_its_id(
    path: str, shape: set[str]
) -> None:
    """Defect A16: 408, 413 and 415 on `/v1` had the native shape and an id of ours."""
    error = Error("invalid_request", "too large", reason="max_body", status=413)
    reply = router().refusal(http("POST", path, {**LOOPBACK, "X-Request-Id": "abc"}), error)
    assert (reply.status, reply.close) == (413, True)
    assert members(reply) == shape
    assert dict(reply.headers)["x-request-id"] == "abc"


def test_what_a_handler_begins_is_no_reply() -> None:
    asked = http("POST", "/begin", {**LOOPBACK, "X-Request-Id": "abc"})
    assert router().handle(asked) is None
    assert asked.request_id == "abc"


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("POST", "/here", {"Content-Type": "application/json"}, None),
        ("GET", "/here", {}, None),
        ("OPTIONS", "/here", {}, None),
        ("GET", "/fail", {}, None),
        ("POST", "/here", {"Content-Type": "text/plain"}, 415),
        ("POST", "/here", {"Content-Type": "application/json", "Content-Encoding": "gzip"}, 415),
        ("POST", "/nothing", {}, 404),
        ("PUT", "/here", {}, 405),
        ("POST", "/here", {"Host": "evil.example"}, 403),
        ("POST", "/here?a=%ff", {}, 400),
    ],
)
def test_by_its_head_alone_a_request_is_refused_as_it_would_be_whole(
    method: str, path: str, headers: dict[str, str], status: int | None
) -> None:
    SEEN.clear()
    table = router()
    refused = table.refuse(http(method, path, {**LOOPBACK, "X-Request-Id": "abc", **headers}))
    assert (refused and refused.status) == status
    if refused is not None:
        assert refused.close, "its body is still to come"
        assert dict(refused.headers)["x-request-id"] == "abc"
        assert ("allow" in dict(refused.headers)) is (status == 405)
    assert table.refuse(http("POST", "/begin", {**LOOPBACK, "Content-Type": "application/json"})) is None
    assert SEEN == [], "no handler is called"


@pytest.mark.parametrize(
    ("remote", "headers", "uploader"),
    [
        ("192.0.2.1", {}, "192.0.2.1"),
        ("2001:db8::1", {}, "2001:db8::/64"),
        ("192.0.2.1", {"x-forwarded-for": "198.51.100.7"}, "192.0.2.1"),
        ("10.0.0.1", {"x-forwarded-for": "198.51.100.7"}, "198.51.100.7"),
        ("10.0.0.1", {}, ""),
        ("127.0.0.1", {}, ""),
        ("", {}, ""),
    ],
)
def test_without_keys_an_incomplete_body_is_counted_for_an_address_unless_it_may_be_many_callers(
    remote: str, headers: dict[str, str], uploader: str
) -> None:
    admission, mount = Admission(ServerSettings(), paths=PATHS, only_demo=False), Mount(on_loopback=True)
    proxies = Forwarding(("10.0.0.1",))
    table = Router(admission, NO_HANDLERS, StreamCounts([]), mount, routes=TABLE, forwarding=proxies)
    request = http("POST", "/begin", headers, client=Remote(remote))
    assert table.uploader(request) == uploader
    request.set_key(KeySettings("ann", ()))
    assert table.uploader(request) == "ann"


NO_HANDLERS = Handlers(*[cast(Any, None)] * 6)


def test_refusals_are_counted_by_their_route_also_below_a_mount_and_where_nothing_could_be_read() -> None:
    counts = StreamCounts([])
    table = Router(
        Admission(ServerSettings(), paths=PATHS, only_demo=False),
        NO_HANDLERS,
        counts,
        Mount(on_loopback=True),
        routes=TABLE,
    )
    mount = Mount(on_loopback=True, prefix="/gw")
    for method, path, where in (
        ("GET", "/fail", None),
        ("GET", "/gw/fail", mount),
        ("GET", "/gw/crash", mount),
        ("PUT", "/things/77", None),
        ("GET", "/gw/nowhere/77", mount),
        ("GET", "/here", None),
    ):
        request = http(method, path)
        reply = table.handle(request, where)
        assert reply is not None
        table.ended(request, reply.status)
    refusal = table.refuse_unreadable("192.0.2.1", Error("invalid_request", "", reason="http"))
    assert (refusal.status, refusal.close) == (400, True)
    assert counts.requests == {
        ("/fail", "", "", 429, "refused", "rate_limited"): 2,
        ("/crash", "", "", 500, "failed", "internal"): 1,
        ("/things/{}", "", "", 405, "refused", "invalid_request"): 1,
        ("other", "", "", 404, "refused", "not_found"): 1,
        ("other", "", "", 400, "refused", "invalid_request"): 1,
    }
