"""The guards of every route, the route table, and how a body is read."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpVersion10, HttpVersion11
from aiohttp.streams import StreamReader
from aiohttp.test_utils import make_mocked_request

from gai_fast.errors import Error
from gai_fast.server.connection import Reply, Written
from gai_fast.server.router import Incoming, Router, is_loopback
from gai_fast.settings import ServerSettings

LOOPBACK = {"Host": "127.0.0.1:8080"}


async def echo(incoming: Incoming) -> Reply:
    return Reply(200, f"{incoming.path} {incoming.tail}".encode(), incoming.cors)


async def fail(incoming: Incoming) -> Reply:
    raise Error("rate_limited", "slow", retry_after_ms=10)


def router(*, only_demo: bool = False, **settings: Any) -> Router:
    table = Router(ServerSettings(**settings), only_demo=only_demo)
    table.add("GET", "/here", echo)
    table.add("POST", "/here", echo)
    table.add("GET", "/stream", echo, head=False)
    table.add("DELETE", "/things/", echo)
    table.add("GET", "/v1/fail", fail)
    table.add("GET", "/fail", fail)
    return table


async def ask(
    table: Router, method: str, path: str, headers: dict[str, str] | None = None, *, version: Any = HttpVersion11
) -> Reply:
    http = make_mocked_request(method, path, headers=headers or LOOPBACK, version=version)
    reply = await table.handle(http)
    assert isinstance(reply, Reply)
    return reply


def reason(reply: Reply) -> str | None:
    return str(json.loads(reply.body)["error"].get("reason"))


# ---- routes ----------------------------------------------------------------------------------------------------------


async def test_a_route_is_found_by_its_exact_path_and_a_prefix_gives_the_rest() -> None:
    table = router()
    assert (await ask(table, "GET", "/here?a=b")).body == b"/here "
    assert (await ask(table, "HEAD", "/here")).status == 200
    assert (await ask(table, "DELETE", "/things/a/b%20c")).body == b"/things/a/b%20c a/b%20c"
    assert (await ask(table, "DELETE", "/things/")).body == b"/things/ "
    for path in ("/here/", "/Here", "/nothing", "/things"):
        assert (await ask(table, "GET", path)).status == 404


async def test_a_method_that_is_not_there_is_told_which_are() -> None:
    for method, path, allow in (
        ("PUT", "/here", "GET, HEAD, OPTIONS, POST"),
        ("HEAD", "/stream", "GET, OPTIONS"),
        ("GET", "/things/x", "DELETE, OPTIONS"),
    ):
        reply = await ask(router(), method, path)
        assert (reply.status, dict(reply.headers)["allow"]) == (405, allow)
        reply = await ask(router(), "OPTIONS", path)
        assert (reply.status, dict(reply.headers)["allow"]) == (204, allow)


async def test_an_error_has_the_shape_of_its_route() -> None:
    native = await ask(router(), "GET", "/fail", {**LOOPBACK, "X-Request-Id": "abc"})
    assert json.loads(native.body)["error"]["request_id"] == "abc"
    openai = await ask(router(), "GET", "/v1/fail", {**LOOPBACK, "X-Request-Id": "abc"})
    assert json.loads(openai.body)["error"].keys() == {"message", "type", "param", "code"}
    for reply in (native, openai):
        assert reply.status == 429
        assert dict(reply.headers)["retry-after-ms"] == "10"
        assert dict(reply.headers)["x-request-id"] == "abc"


# ---- guards ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "known"),
    [
        *(
            (name, True)
            for name in ("localhost", "LOCALHOST", "localhost.", "a.localhost", "127.0.0.1", "127.1.2.3", "::1")
        ),
        *(
            (name, False)
            for name in ("", "example", "127.0.0.1.example", "127.1", "0.0.0.0", "::", "::ffff:10.0.0.1", "1")
        ),
    ],
)
def test_loopback_names(host: str, known: bool) -> None:
    assert is_loopback(host) is known


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *(
            (host, 200)
            for host in ("127.0.0.1", "localhost:1", "[::1]:80", "gai.example", "GAI.example:99", "b.example:1")
        ),
        *((host, 403) for host in ("evil.example", "[::2]", "b.example", "b.example:2", "10.0.0.1")),
        *(
            (host, 400)
            for host in ("", "a b", "a@localhost", "localhost/", "localhost:x", "localhost:65536", "::1", "é")
        ),
    ],
)
async def test_on_loopback_only_known_hosts_are_served(host: str, status: int) -> None:
    reply = await ask(router(allowed_hosts=("gai.example", "b.example:1")), "GET", "/here", {"Host": host})
    assert reply.status == status
    if status != 200:
        assert reason(reply) == "host"
        assert reply.close


async def test_elsewhere_any_valid_host_is_served() -> None:
    table = router(host="0.0.0.0")
    for host, status in (("evil.example", 200), ("10.0.0.1:99", 200), ("a@b", 400), ("", 400)):
        assert (await ask(table, "GET", "/here", {"Host": host})).status == status
    reply = await ask(table, "GET", "/here", {"X-A": "b"}, version=HttpVersion10)
    assert reply.status == 200, "HTTP/1.0 has no Host"


async def test_the_target_in_absolute_form_names_the_host() -> None:
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
        reply = await ask(router(), "GET", target, {"Host": host})
        assert reply.status == status, target


@pytest.mark.parametrize("query", ["a=%ff", "&".join("a=b" for _ in range(99))])
async def test_a_query_that_cannot_be_read_is_refused(query: str) -> None:
    reply = await ask(router(), "GET", f"/here?{query}")
    assert (reply.status, reason(reply)) == (400, "query")


async def test_an_empty_transfer_encoding_is_refused() -> None:
    reply = await ask(router(), "POST", "/here", {**LOOPBACK, "Transfer-Encoding": ""})
    assert (reply.status, reply.close) == (400, True)


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
async def test_an_origin_is_allowed_exactly_where_it_is_configured(
    settings: dict[str, Any], origin: str, allowed: bool
) -> None:
    table = router(**settings)
    for method, path in (("GET", "/here"), ("GET", "/nothing"), ("OPTIONS", "/here")):
        headers = {**LOOPBACK, "Origin": origin}
        if method == "OPTIONS":
            headers["Access-Control-Request-Method"] = "POST"
        reply = await ask(table, method, path, headers)
        told = dict(reply.headers)
        assert (told.get("access-control-allow-origin") == origin) is allowed
        assert (told.get("vary") == "Origin") is bool(settings)
        if method == "OPTIONS":
            assert reply.status == (204 if allowed else 403)
    assert ("vary" in dict((await ask(table, "GET", "/here")).headers)) is bool(settings)


@pytest.mark.parametrize(
    ("origin", "foreign"),
    [(None, False), ("http://127.0.0.1:8080", False), ("http://127.0.0.1:81", True), ("null", True), ("", True)],
)
async def test_a_page_is_foreign_unless_it_is_ours_or_allowed(origin: str | None, foreign: bool) -> None:
    seen: list[bool] = []

    async def look(incoming: Incoming) -> Reply:
        seen.append(incoming.is_foreign)
        return Reply(200)

    table = router()
    table.add("GET", "/look", look)
    await ask(table, "GET", "/look", {**LOOPBACK, **({} if origin is None else {"Origin": origin})})
    assert seen == [foreign]


# ---- bodies ----------------------------------------------------------------------------------------------------------


def incoming(body: bytes | None, *, max_body: int = 10, problem: Exception | None = None, **headers: str) -> Incoming:
    loop = asyncio.get_running_loop()
    protocol = BaseProtocol(loop)
    protocol.transport = asyncio.Transport()
    payload = StreamReader(protocol, 2**16, loop=loop)
    if problem is not None:
        payload.set_exception(problem)
    elif body is not None:
        payload.feed_data(body)
        payload.feed_eof()
    names = {"Content-Type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    http = make_mocked_request("POST", "/", headers={**LOOPBACK, **names}, payload=payload, client_max_size=max_body)
    return Incoming(http, "/", "r")


async def refusal(what: Incoming, **settings: Any) -> tuple[int, str | None]:
    with pytest.raises(Error) as caught:
        await what.json_body(ServerSettings(**{"max_body": 10, **settings}))
    return caught.value.status, caught.value.reason


async def test_a_body_is_read_where_it_is_json_and_not_too_large() -> None:
    settings = ServerSettings(max_body=10)
    assert await incoming(b"0123456789").json_body(settings) == b"0123456789"
    for kind in ("application/json;charset=utf-8", 'Application/JSON; charset="UTF-8"', "application/json;"):
        assert await incoming(b"{}", Content_Type=kind).json_body(settings) == b"{}"
    assert await refusal(incoming(b"01234567890")) == (413, "max_body")
    assert await refusal(incoming(None, Content_Length="11")) == (413, "max_body")
    for kind in ("text/plain", "", "application/json; charset=utf-16", "application/json; a=b"):
        assert await refusal(incoming(b"{}", Content_Type=kind)) == (415, "content_type")
    assert await refusal(incoming(b"{}", Content_Encoding="gzip")) == (415, "content_encoding")
    assert await incoming(b"{}", Content_Encoding="Identity").json_body(settings) == b"{}"
    assert await refusal(incoming(None), body_timeout=0.01) == (408, "body_timeout")
    assert await refusal(incoming(None, problem=web.RequestPayloadError("x"))) == (400, "http")
    assert await refusal(incoming(b"{}", Expect="something")) == (417, "expect")


async def test_a_client_that_left_before_its_turn_is_not_answered() -> None:
    http = make_mocked_request("GET", "/here", headers=LOOPBACK)
    http.protocol.transport = None
    reply = await router().handle(http)
    assert isinstance(reply, Written)
    assert not reply.keep_alive


async def test_what_a_handler_returns_is_passed_on() -> None:
    written = Written(True)

    async def stream(incoming: Incoming) -> Written:
        return written

    table = router()
    table.add("POST", "/api", stream)
    assert await table.handle(make_mocked_request("POST", "/api", headers=LOOPBACK)) is written
