"""The guards of every route, the route table, and how a body is read."""

from __future__ import annotations

import json
import logging
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gai_fast.errors import Error
from gai_fast.server.connection import HTTPRequest
from gai_fast.server.counts import StreamCounts
from gai_fast.server.replies import Reply
from gai_fast.server.router import Incoming, Router
from gai_fast.settings import ServerSettings

LOOPBACK = {"Host": "127.0.0.1:8080"}


def echo(incoming: Incoming) -> Reply:
    return Reply(200, f"{incoming.path} {incoming.tail}".encode(), incoming.cors)


def fail(incoming: Incoming) -> Reply:
    raise Error("rate_limited", "slow", retry_after_ms=10)


def router(*, only_demo: bool = False, **settings: Any) -> Router:
    table = Router(ServerSettings(**settings), StreamCounts([]), only_demo=only_demo)
    table.add("GET", "/here", echo)
    table.add("POST", "/here", echo)
    table.add("GET", "/stream", echo, head=False)
    table.add("DELETE", "/things/", echo)
    table.add("GET", "/v1/fail", fail)
    table.add("GET", "/fail", fail)
    return table


def http(
    method: str, target: str, headers: dict[str, str] | None = None, *, is_http_1_1: bool = True, body: bytes = b""
) -> HTTPRequest:
    peer = SimpleNamespace(remote="192.0.2.1")
    names = {name.lower(): value for name, value in (LOOPBACK if headers is None else headers).items()}
    made = HTTPRequest(cast(Any, peer), method, target, names, is_http_1_1=is_http_1_1, keep_alive=is_http_1_1)
    made.body = body
    return made


def ask(table: Router, method: str, path: str, headers: dict[str, str] | None = None, **more: Any) -> Reply:
    reply = table.handle(http(method, path, headers, **more))
    assert reply is not None
    return reply


def reason(reply: Reply) -> str | None:
    return str(json.loads(reply.body)["error"].get("reason"))


# ---- routes ----------------------------------------------------------------------------------------------------------


def test_a_route_is_found_by_its_exact_path_and_a_prefix_gives_the_rest() -> None:
    table = router()
    assert ask(table, "GET", "/here?a=b").body == b"/here "
    assert ask(table, "HEAD", "/here").status == 200
    assert ask(table, "DELETE", "/things/a/b%20c").body == b"/things/a/b%20c a/b%20c"
    assert ask(table, "DELETE", "/things/").body == b"/things/ "
    for path in ("/here/", "/Here", "/nothing", "/things"):
        assert ask(table, "GET", path).status == 404


def test_a_method_that_is_not_there_is_told_which_are() -> None:
    for method, path, allow in (
        ("PUT", "/here", "GET, HEAD, OPTIONS, POST"),
        ("HEAD", "/stream", "GET, OPTIONS"),
        ("GET", "/things/x", "DELETE, OPTIONS"),
    ):
        reply = ask(router(), method, path)
        assert (reply.status, dict(reply.headers)["allow"]) == (405, allow)
        reply = ask(router(), "OPTIONS", path)
        assert (reply.status, dict(reply.headers)["allow"]) == (204, allow)


def test_an_error_has_the_shape_of_its_route() -> None:
    native = ask(router(), "GET", "/fail", {**LOOPBACK, "X-Request-Id": "abc"})
    assert json.loads(native.body)["error"]["request_id"] == "abc"
    openai = ask(router(), "GET", "/v1/fail", {**LOOPBACK, "X-Request-Id": "abc"})
    assert json.loads(openai.body)["error"].keys() == {"message", "type", "param", "code"}
    for reply in (native, openai):
        assert reply.status == 429
        assert dict(reply.headers)["retry-after-ms"] == "10"
        assert dict(reply.headers)["x-request-id"] == "abc"


# ---- guards ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *(
            (host, 200)
            for host in (
                "127.0.0.1",
                "127.1",
                "localhost:1",
                "[::1]:80",
                "gai.example",
                "GAI.example:99",
                "b.example:1",
            )
        ),
        *((host, 403) for host in ("evil.example", "[::2]", "b.example", "b.example:2", "10.0.0.1")),
        *(
            (host, 400)
            for host in ("", "a b", "a@localhost", "localhost/", "localhost:x", "localhost:65536", "::1", "é")
        ),
    ],
)
def test_on_loopback_only_known_hosts_are_served(host: str, status: int) -> None:
    reply = ask(router(allowed_hosts=("gai.example", "b.example:1")), "GET", "/here", {"Host": host})
    assert reply.status == status
    if status != 200:
        assert reason(reply) == "host"
        assert reply.close


@pytest.mark.parametrize("bound", ["127.1", "2130706433", "a.localhost", "::ffff:127.0.0.1"])
def test_the_host_rule_holds_however_the_loopback_address_is_written(bound: str) -> None:
    """Defect A19: only a few notations were known, and the others switched the rule off."""
    table = router(host=bound)
    assert ask(table, "GET", "/here", {"Host": "evil.example"}).status == 403
    assert ask(table, "GET", "/here", {"Host": "127.0.0.1:8080"}).status == 200


def test_elsewhere_any_valid_host_is_served() -> None:
    table = router(host="0.0.0.0")
    for host, status in (("evil.example", 200), ("10.0.0.1:99", 200), ("a@b", 400), ("", 400)):
        assert ask(table, "GET", "/here", {"Host": host}).status == status
    reply = ask(table, "GET", "/here", {"X-A": "b"}, is_http_1_1=False)
    assert reply.status == 200, "HTTP/1.0 has no Host"


def test_the_target_in_absolute_form_names_the_host() -> None:
    for target, status in (
        ("http://localhost/here", 200),
        ("HTTPS://localhost:1/here", 200),
        ("http://localhost", 404),
        ("http://evil.example/here", 403),
        ("http://a@localhost/here", 400),
        ("ftp://localhost/here", 400),
        ("localhost:80", 400),
        ("/a://b", 404),
    ):
        host = "evil.example" if target.startswith(("http://l", "HTTPS")) else "localhost"
        reply = ask(router(), "GET", target, {"Host": host})
        assert reply.status == status, target


@pytest.mark.parametrize("query", ["a=%ff", "&".join("a=b" for _ in range(99))])
def test_a_query_that_cannot_be_read_is_refused(query: str) -> None:
    reply = ask(router(), "GET", f"/here?{query}")
    assert (reply.status, reason(reply)) == (400, "query")


@pytest.mark.parametrize(
    ("settings", "origin", "allowed"),
    [
        ({}, "http://localhost", False),
        ({"only_demo": True}, "http://localhost:99", True),
        ({"only_demo": True}, "https://[::1]", True),
        ({"only_demo": True}, "http://localhost.example", False),
        ({"only_demo": True}, "http://[::1", False),
        ({"only_demo": True}, "null", False),
        ({"only_demo": True, "cors_origins": ("https://a.example",)}, "http://localhost", False),
        ({"cors_origins": ("https://a.example",)}, "https://a.example", True),
        ({"cors_origins": ("https://a.example",)}, "https://A.example", False),
        ({"cors_origins": ("https://a.example",)}, "https://a.example.evil", False),
    ],
)
def test_an_origin_is_allowed_exactly_where_it_is_configured(
    settings: dict[str, Any], origin: str, allowed: bool
) -> None:
    table = router(**settings)
    for method, path in (("GET", "/here"), ("GET", "/nothing"), ("OPTIONS", "/here")):
        headers = {**LOOPBACK, "Origin": origin}
        if method == "OPTIONS":
            headers["Access-Control-Request-Method"] = "POST"
        reply = ask(table, method, path, headers)
        told = dict(reply.headers)
        assert (told.get("access-control-allow-origin") == origin) is allowed
        assert (told.get("vary") == "Origin") is bool(settings)
        if method == "OPTIONS":
            assert reply.status == (204 if allowed else 403)
    assert ("vary" in dict(ask(table, "GET", "/here").headers)) is bool(settings)


@pytest.mark.parametrize(
    ("origin", "foreign"),
    [(None, False), ("http://127.0.0.1:8080", False), ("http://127.0.0.1:81", True), ("null", True), ("", True)],
)
def test_a_page_is_foreign_unless_it_is_ours_or_allowed(origin: str | None, foreign: bool) -> None:
    seen: list[bool] = []

    def look(incoming: Incoming) -> Reply:
        seen.append(incoming.is_foreign)
        return Reply(200)

    table = router()
    table.add("GET", "/look", look)
    ask(table, "GET", "/look", {**LOOPBACK, **({} if origin is None else {"Origin": origin})})
    assert seen == [foreign]


# ---- bodies ----------------------------------------------------------------------------------------------------------


def incoming(body: bytes = b"{}", **headers: str) -> Incoming:
    names = {"Content-Type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return Incoming(http("POST", "/", {**LOOPBACK, **names}, body=body), "/", "r")


def refusal(what: Incoming) -> tuple[int, str | None]:
    with pytest.raises(Error) as caught:
        what.json_body()
    return caught.value.status, caught.value.reason


def test_a_body_is_taken_where_it_is_json() -> None:
    assert incoming(b"0123456789").json_body() == b"0123456789"
    for kind in ("application/json;charset=utf-8", 'Application/JSON; charset="UTF-8"', "application/json;"):
        assert incoming(Content_Type=kind).json_body() == b"{}"
    for kind in ("text/plain", "", "application/json; charset=utf-16", "application/json; a=b"):
        assert refusal(incoming(Content_Type=kind)) == (415, "content_type")
    assert refusal(incoming(Content_Encoding="gzip")) == (415, "content_encoding")
    assert incoming(Content_Encoding="Identity").json_body() == b"{}"


def test_what_a_handler_begins_is_no_reply() -> None:
    table = router()
    table.add("POST", "/api", lambda incoming: None)
    asked = http("POST", "/api", {**LOOPBACK, "X-Request-Id": "abc"})
    assert table.handle(asked) is None
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
    seen: list[Incoming] = []

    def watch(incoming: Incoming) -> None:
        seen.append(incoming)

    table = router()
    table.add("POST", "/watched", watch)
    refused = table.refuse(http(method, path, {**LOOPBACK, "X-Request-Id": "abc", **headers}))
    assert (refused and refused.status) == status
    if refused is not None:
        assert refused.close, "its body is still to come"
        assert dict(refused.headers)["x-request-id"] == "abc"
        assert ("allow" in dict(refused.headers)) is (status == 405)
    assert table.refuse(http("POST", "/watched", {**LOOPBACK, "Content-Type": "application/json"})) is None
    assert seen == [], "no handler hears of it"


def test_the_access_log_has_no_query(caplog: pytest.LogCaptureFixture) -> None:
    asked = http("GET", "/here?key=secret")
    asked.request_id = "abc"
    router().log(asked, 200)
    assert caplog.records == []
    with caplog.at_level(logging.INFO, "gai_fast.access"):
        router().log(asked, 200)
    (record,) = caplog.records
    words = record.getMessage().split()
    assert words[:4] == ["192.0.2.1", "GET", "'/here'", "200"]
    assert words[-1] == "abc"
