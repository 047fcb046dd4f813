"""The guards of every request: hosts, pages, ids, the query string, media types."""

from __future__ import annotations

from base64 import b64encode
from datetime import UTC, datetime
from typing import Any

import pytest

from gai_fast.model.errors import Error
from gai_fast.model.settings import KeySettings, ServerSettings, key_digest
from gai_fast.server.admission.admit import (
    Admission,
    Admitted,
    check_json,
)
from gai_fast.server.admission.forwarding import Forwarding
from gai_fast.server.routes.table import PATHS, ROUTES
from tests.limits import LIMITS
from tests.unit.server.incoming_requests import Remote

HOST = "127.0.0.1:8080"
KEY = "sk-alice-0123456789"
KEYS = (KeySettings("alice", (key_digest(KEY),)),)
GUARDS = Admission(ServerSettings(), KEYS, paths=PATHS, only_demo=False)


def admit(
    target: str = "/here",
    method: str = "GET",
    *,
    settings: dict[str, Any] | None = None,
    keys: tuple[KeySettings, ...] = (),
    only_demo: bool = False,
    place: dict[str, Any] | None = None,
    **headers: str | None,
) -> Admitted:
    given = {name.replace("_", "-"): value for name, value in {"host": HOST, **headers}.items() if value is not None}
    server = ServerSettings(**(settings or {}))
    admission = Admission(
        server, keys, paths=PATHS, only_demo=only_demo, forwarding=Forwarding(server.forwarded_allow_ips)
    )
    return admission.admit(method, target, given, **_placed(place or {}))


def _placed(place: dict[str, Any]) -> dict[str, Any]:
    """Returns the keyword arguments for the place of a request; `remote` is an address."""
    rest = {name: value for name, value in place.items() if name != "remote"}
    return {**rest, "peer": Remote(place["remote"])} if "remote" in place else rest


def verdict(admitted: Admitted) -> tuple[int, str | None]:
    error = admitted.error
    return (200, None) if error is None else (error.status, error.reason)


# ---- hosts -----------------------------------------------------------------------------------------------------------

ALLOWED = {"allowed_hosts": ("gai.example", "b.example:1")}


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *((host, 200) for host in ("127.0.0.1", "127.1", "localhost:1", "[::1]:80", "gai.example", "GAI.example:99")),
        ("b.example:1", 200),
        *((host, 403) for host in ("evil.example", "[::2]", "b.example", "b.example:2", "10.0.0.1")),
        *((host, 400) for host in ("", "a b", "a@localhost", "localhost/", "localhost:x", "localhost:65536")),
        *((host, 400) for host in ("::1", "é", "127.0.0.1, 127.0.0.1")),
    ],
)
def test_on_loopback_only_known_hosts_are_served(host: str, status: int) -> None:
    assert verdict(admit(settings=ALLOWED, host=host)) == (status, None if status == 200 else "host")


def test_each_host_is_looked_at_however_many_there_were_before() -> None:
    admission = Admission(ServerSettings(allowed_hosts=("gai.example",)), paths=PATHS, only_demo=False)

    def asked(host: str, **place: Any) -> int:
        return verdict(admission.admit("GET", "/", {"host": host} if host else {}, **place))[0]

    for number in range(2 * LIMITS.known_values):
        for _ in range(2):
            assert asked(f"127.0.0.1:{number}") == 200
            assert asked(f"127.0.0.1:{number}", on_loopback=False) == 403
            assert asked(f"GAI.example:{number}", on_loopback=False) == 200
            assert asked(f"evil.example:{number}") == 403
            assert asked("") == 400
            assert asked("", is_http_1_1=False) == 403
    assert len(admission._served) <= LIMITS.known_values
    assert len(admission._served_here) <= LIMITS.known_values


def test_elsewhere_any_valid_host_is_served() -> None:
    for host, status in (("evil.example", 200), ("10.0.0.1:99", 200), ("a@b", 400), ("", 400)):
        assert verdict(admit(place={"on_loopback": False}, host=host))[0] == status
    old = {"on_loopback": False, "is_http_1_1": False}
    assert verdict(admit(place=old, host=None)) == (200, None), "HTTP/1.0 has no Host"


@pytest.mark.parametrize(
    ("host", "status"),
    [("gai.example", 200), ("Gai.Example:8080", 200), ("b.example:1", 200), ("b.example", 403), ("localhost", 403)],
)
def test_allowed_hosts_hold_off_loopback_too(host: str, status: int) -> None:
    """Defect A19: `allowed_hosts` was ignored off loopback."""
    assert verdict(admit(settings=ALLOWED, place={"on_loopback": False}, host=host))[0] == status


def test_a_client_without_a_host_is_none_of_the_allowed_ones() -> None:
    for on_loopback in (True, False):
        place = {"on_loopback": on_loopback, "is_http_1_1": False}
        assert verdict(admit(settings=ALLOWED, place=place, host=None)) == (403, "host")


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("http://localhost/here", 200),
        ("HTTPS://localhost:1/here?a=b", 200),
        ("http://localhost", 200),
        ("http://evil.example/here", 403),
        ("http://a@localhost/here", 400),
        ("ftp://localhost/here", 400),
        ("localhost:80", 400),
        ("/a://b", 200),
    ],
)
def test_the_target_in_absolute_form_names_the_host(target: str, status: int) -> None:
    host = "evil.example" if target.lower().startswith(("http://localhost", "https://localhost")) else "localhost"
    assert verdict(admit(target, host=host))[0] == status


def test_a_target_in_absolute_form_does_not_stand_for_the_host_header() -> None:
    """Defect A19: RFC 9112, 3.2: a request of HTTP/1.1 without Host is refused, whatever its target."""
    assert verdict(admit("http://localhost/here", host=None)) == (400, "host")


def test_the_path_is_the_one_behind_the_prefix() -> None:
    for target, prefix, path in (
        ("/gw/here?a=b", "/gw", "/here"),
        ("/gw/", "/gw", "/"),
        ("http://localhost/gw/here", "/gw", "/here"),
        ("/here", "/gw", "/here"),
        ("/gwhere", "/gw", "/gwhere"),
        ("http://localhost", "", "/"),
        ("*", "/gw", "*"),
    ):
        assert admit(target, place={"prefix": prefix}).path == path


# ---- pages -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "only_demo", "origin", "allowed"),
    [
        ({}, False, "http://localhost", False),
        ({}, True, "http://localhost:99", True),
        ({}, True, "https://[::1]", True),
        ({}, True, "http://localhost.example", False),
        ({}, True, "http://[::1", False),
        ({}, True, "null", False),
        ({"cors_origins": ("https://a.example",)}, True, "http://localhost", False),
        ({"cors_origins": ("https://a.example",)}, False, "https://a.example", True),
        ({"cors_origins": ("https://a.example",)}, False, "https://A.example", False),
        ({"cors_origins": ("https://a.example",)}, False, "https://a.example.evil", False),
    ],
)
def test_an_origin_is_allowed_exactly_where_it_is_configured(
    settings: dict[str, Any], only_demo: bool, origin: str, allowed: bool
) -> None:
    admitted = admit(settings=settings, only_demo=only_demo, origin=origin)
    result = dict(admitted.cors)
    assert (result.get("access-control-allow-origin") == origin) is allowed
    assert (result.get("vary") == "Origin") is (only_demo or bool(settings))
    if allowed:
        reply = GUARDS.preflight(admitted, {})
        assert reply.status == 204
        assert dict(reply.headers)["x-request-id"] == admitted.request_id
    else:
        with pytest.raises(Error) as caught:
            GUARDS.preflight(admitted, {})
        assert (caught.value.code, caught.value.reason) == ("forbidden", "origin")
    without = admit(settings=settings, only_demo=only_demo)
    assert ("vary" in dict(without.cors)) is (only_demo or bool(settings))


@pytest.mark.parametrize(
    ("origin", "foreign"),
    [(None, False), ("http://127.0.0.1:8080", False), ("http://127.0.0.1:81", True), ("null", True), ("", True)],
)
def test_a_page_is_foreign_unless_it_is_ours_or_allowed(origin: str | None, foreign: bool) -> None:
    assert admit(origin=origin).is_foreign is foreign
    assert not admit(origin=origin, settings={"cors_origins": (origin,)}).is_foreign


@pytest.mark.parametrize(
    ("site", "foreign"),
    [("cross-site", True), ("same-site", True), ("same-origin", False), ("none", False), ("", False)],
)
def test_a_page_that_asks_without_cors_is_known_by_its_site(site: str, foreign: bool) -> None:
    """Defect A20: an image of any page sends no Origin, and could start a stream."""
    assert admit(sec_fetch_site=site).is_foreign is foreign
    assert admit(sec_fetch_site=site, origin="http://127.0.0.1:8080").is_foreign is foreign
    allowed = {"cors_origins": ("https://a.example",)}
    assert not admit(sec_fetch_site=site, origin="https://a.example", settings=allowed).is_foreign
    assert admit(sec_fetch_site=site, settings=allowed).is_foreign is foreign


# ---- keys ------------------------------------------------------------------------------------------------------------

OPEN = {
    "/dashboard/{file}",
    "/docs/{file}",
    "/healthz",
    "/health",
    "/readyz",
    "/version",
    "/",
    "/playground/{file}",
    "/client.js",
    "/gai.proto",
    "/openapi.json",
    "/probe",
}
"""The routes that need no key."""


@pytest.mark.parametrize("path", sorted({route.path for route in ROUTES}))
def test_every_route_needs_a_key_but_those_for_operation(path: str) -> None:
    for prefix in ("", "/gw"):
        admitted = admit(f"{prefix}{path}", keys=KEYS, place={"prefix": prefix})
        assert verdict(admitted) == ((200, None) if path in OPEN else (401, "key"))


@pytest.mark.parametrize("target", ["/v1", "/v1/nothing", "/api/v2/x", "/ws/stream", "http://localhost/v1/models?a=b"])
def test_paths_beside_the_routes_need_a_key_too(target: str) -> None:
    assert verdict(admit(target, keys=KEYS)) == (401, "key")
    admitted = admit(target, keys=KEYS, x_api_key=KEY)
    assert (verdict(admitted), admitted.key) == ((200, None), KEYS[0])


def test_without_keys_nobody_needs_one() -> None:
    for headers in ({}, {"x_api_key": KEY}, {"authorization": "Basic YTpi"}):
        admitted = admit("/v1/models", **headers)
        assert (verdict(admitted), admitted.key) == ((200, None), None)
    assert admit("/healthz", keys=KEYS, x_api_key=KEY).key is None


def test_a_key_in_the_query_string_is_none() -> None:
    for query in (f"key={KEY}", f"api_key={KEY}", f"access_token={KEY}"):
        assert verdict(admit(f"/v1/models?{query}", keys=KEYS)) == (401, "key")


def test_a_preflight_has_no_key_yet() -> None:
    asks = {"origin": "https://a.example", "access_control_request_method": "POST"}
    for method, status in (("OPTIONS", 200), ("POST", 401)):
        assert verdict(admit("/v1/models", method, keys=KEYS, **asks))[0] == status
    assert verdict(admit("/v1/models", "OPTIONS", keys=KEYS)) == (401, "key")


@pytest.mark.parametrize("path", ["/admin/streams", "/admin", "/dashboard", "/docs"])
def test_a_preflight_of_the_operators_routes_allows_no_requested_name(path: str) -> None:
    allowed = {"cors_origins": ("https://a.example",)}
    asks = {"access-control-request-headers": "x-mine"}
    for target, echoed in ((path, False), ("/v1/models", True)):
        admitted = admit(target, "OPTIONS", settings=allowed, origin="https://a.example")
        headers = GUARDS.preflight(admitted, asks).headers
        assert (dict(headers)["access-control-allow-headers"] == "x-mine") is echoed
        assert ("vary", "Origin, Access-Control-Request-Headers") in headers


def test_a_page_of_an_allowed_origin_may_read_why_it_was_refused() -> None:
    admitted = admit(
        "/v1/models", keys=KEYS, settings={"cors_origins": ("https://a.example",)}, origin="https://a.example"
    )
    assert verdict(admitted) == (401, "key")
    assert dict(admitted.cors)["access-control-allow-origin"] == "https://a.example"


# ---- ids and the query -----------------------------------------------------------------------------------------------


def test_a_refused_request_has_its_id_and_path_too() -> None:
    admitted = admit("/v1/x?a=b", host="evil.example", x_request_id="mine")
    assert admitted.error is not None
    assert (admitted.request_id, admitted.path) == ("mine", "/v1/x")
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    parent = admit(traceparent=trace).trace_parent
    assert parent is not None
    assert (parent.trace_id, parent.span_id) == (trace[3:35], trace[36:52])


@pytest.mark.parametrize("query", ["a=%ff", "&".join("a=b" for _ in range(99))])
def test_a_query_that_cannot_be_read_is_refused(query: str) -> None:
    assert verdict(admit(f"/here?{query}")) == (400, "query")


def test_the_last_of_a_query_parameter_counts() -> None:
    assert admit("/here?a=1&b=&a=%C3%A9+x").query == {"a": "é x", "b": ""}
    assert admit("/here?").query == {}


# ---- bodies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    [
        "application/json",
        "application/json;charset=utf-8",
        'Application/JSON; charset="UTF-8"',
        "application/json;",
    ],
)
def test_a_body_is_accepted_where_it_is_json(kind: str) -> None:
    check_json({"content-type": kind})
    check_json({"content-type": kind, "content-encoding": " Identity"})


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        *(
            ({"content-type": kind}, "content_type")
            for kind in ("text/plain", "", "application/json; charset=utf-16", "application/json; a=b")
        ),
        ({}, "content_type"),
        ({"content-type": "application/json", "content-encoding": "gzip"}, "content_encoding"),
    ],
)
def test_any_other_body_is_refused(headers: dict[str, str], reason: str) -> None:
    with pytest.raises(Error) as caught:
        check_json(headers)
    assert (caught.value.status, caught.value.reason) == (415, reason)
    assert reason != "content_type" or "`content-type: application/json`" in caught.value.message


# ---- those who operate the server ------------------------------------------------------------------------------------

ROOT = "sk-root-0123456789"
ADMIN = KeySettings("root", (key_digest(ROOT),), role="admin")
ENDED = KeySettings(
    "ended", (key_digest("sk-ended-0123456789"),), role="admin", expires=datetime(2020, 1, 1, tzinfo=UTC)
)
OPERATE = ("/dashboard", "/docs", "/admin/v1/streams", "/admin/v1/reload?x=y", "/admin")


@pytest.mark.parametrize("target", OPERATE)
def test_with_keys_those_who_operate_the_server_need_an_admins(target: str) -> None:
    def ask(**headers: str) -> tuple[int, str | None]:
        for place in ({"remote": "127.0.0.1"}, {"on_loopback": False, "remote": "192.0.2.1"}, {"prefix": "/gw"}):
            path = f"{place.get('prefix', '')}{target}"
            verdicts.add(verdict(admit(path, "POST", keys=(*KEYS, ADMIN, ENDED), place=place, **headers)))
        return verdicts.pop() if len(verdicts) == 1 else (0, str(verdicts))

    verdicts: set[tuple[int, str | None]] = set()
    assert ask() == (401, "key")
    assert ask(x_api_key="sk-nobody-0123456789") == (401, "key")
    assert ask(x_api_key="sk-ended-0123456789") == (401, "expired")
    assert ask(x_api_key=KEY) == (403, "role")
    assert ask(x_api_key=ROOT) == ask(authorization=f"Bearer {ROOT}") == (200, None)
    assert ask(x_api_key=ROOT, origin="https://other.example") == (200, None)


def test_with_keys_the_files_of_the_dashboard_need_none() -> None:
    """They have no figure; the key goes with what the page asks for."""
    for headers in ({}, {"x_api_key": KEY}, {"x_api_key": "sk-nobody-0123456789"}):
        place = {"on_loopback": False, "remote": "192.0.2.1"}
        admitted = admit("/dashboard/dashboard.js", keys=(*KEYS, ADMIN), place=place, **headers)
        assert (verdict(admitted), admitted.key) == ((200, None), None)


@pytest.mark.parametrize("page", ["/dashboard", "/docs"])
def test_a_page_asks_a_browser_for_the_key_itself(page: str) -> None:
    browser = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    for reason in ("key", "expired", "role"):
        error = Error("unauthorized", "no key", reason=reason)
        assert GUARDS.is_login(page, error, browser)
        assert not GUARDS.is_login(page, error, {"accept": "*/*"})
        assert not GUARDS.is_login(f"{page}/dashboard.js", error, browser)
    assert not GUARDS.is_login(page, Error("forbidden", "another page", reason="origin"), browser)


@pytest.mark.parametrize("metrics", ["auto", "open", "admin"])
def test_with_keys_the_figures_need_an_admins_unless_they_are_open(metrics: str) -> None:
    """A scraper whose key does not count must learn of it."""

    def ask(**headers: str) -> tuple[int, str | None]:
        place = {"remote": "127.0.0.1"}
        settings = {"metrics": metrics}
        return verdict(admit("/metrics", keys=(*KEYS, ADMIN, ENDED), settings=settings, place=place, **headers))

    assert ask() == ((200, None) if metrics == "open" else (401, "key"))
    assert ask(x_api_key=ROOT) == ask(authorization=f"Bearer {ROOT}") == (200, None)
    assert ask(authorization=f"Basic {b64encode(f'prometheus:{ROOT}'.encode()).decode()}") == (200, None)
    assert ask(api_key=KEY) == (403, "role")
    assert ask(authorization="Bearer sk-nobody-0123456789") == ask(authorization="Basic eDp5") == (401, "key")
    assert ask(x_api_key="sk-ended-0123456789") == (401, "expired")


SCRAPER = KeySettings("scraper", (key_digest("sk-scraper-0123456789"),), (), "metrics")


@pytest.mark.parametrize("metrics", ["auto", "open", "admin"])
def test_a_key_for_the_figures_opens_nothing_else(metrics: str) -> None:
    def ask(target: str) -> tuple[int, str | None]:
        headers = {"authorization": "Bearer sk-scraper-0123456789"}
        return verdict(admit(target, "GET", keys=(*KEYS, SCRAPER), settings={"metrics": metrics}, **headers))

    assert ask("/metrics") == (200, None)
    for target in (*OPERATE, "/metrics/", "/v1/models", "/api/v1/stream", "/ws/stream", "/p/up/v1/files"):
        assert ask(target) == ((403, "role") if target != "/metrics/" else (200, None)), target


def test_a_refusal_names_the_roles_that_may_ask() -> None:
    for target, roles in (("/metrics", "admin or metrics"), ("/admin/v1/keys", "admin")):
        error = admit(target, keys=KEYS, authorization=f"Bearer {KEY}").error
        assert error is not None
        assert str(error) == f"this needs a key whose role is {roles}"


def test_without_keys_the_figures_are_open_unless_they_are_the_admins() -> None:
    for place in ({"remote": "127.0.0.1"}, {"on_loopback": False, "remote": "192.0.2.1"}):
        for headers in ({}, {"authorization": "Bearer sk-nobody-0123456789"}, {"x_forwarded_for": "192.0.2.1"}):
            assert verdict(admit("/metrics", place=place, **headers)) == (200, None)
    closed = {"metrics": "admin"}
    assert verdict(admit("/metrics", settings=closed, place={"remote": "127.0.0.1"})) == (200, None)
    for place, headers in (
        ({"on_loopback": False, "remote": "192.0.2.1"}, {}),
        ({"remote": "127.0.0.1"}, {"x_real_ip": "192.0.2.1"}),
    ):
        assert verdict(admit("/metrics", settings=closed, place=place, **headers)) == (403, "role")


def test_an_admin_is_a_caller_too() -> None:
    admitted = admit("/v1/models", keys=(ADMIN,), x_api_key=ROOT)
    assert (verdict(admitted), admitted.key) == ((200, None), ADMIN)
    assert admit("/docs", keys=(ADMIN,), x_api_key=ROOT).key is ADMIN


@pytest.mark.parametrize("target", OPERATE)
def test_a_browser_may_send_the_key_as_a_password_for_the_servers_own_pages_alone(target: str) -> None:
    basic = {"authorization": f"Basic {b64encode(f'me:{ROOT}'.encode()).decode()}"}
    assert verdict(admit(target, keys=(ADMIN,), **basic)) == (200, None)
    own = {"origin": f"https://{HOST}", "sec_fetch_site": "same-origin"}
    assert verdict(admit(target, keys=(ADMIN,), **basic, **own)) == (200, None)
    other = {"origin": "https://app.example"}
    for cors in ((), ("https://app.example",)):
        allowed = {"cors_origins": cors}
        assert verdict(admit(target, keys=(ADMIN,), settings=allowed, **basic, **other)) == (403, "origin")
    assert verdict(admit(target, keys=(ADMIN,), sec_fetch_site="cross-site", **basic)) == (403, "origin")
    assert verdict(admit("/v1/models", keys=(ADMIN,), **basic)) == (401, "key")


@pytest.mark.parametrize("target", OPERATE)
@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, (200, None)),
        ({"x_api_key": "anything"}, (200, None)),
        ({"authorization": "Basic YTpi"}, (200, None)),
        ({"origin": f"http://{HOST}", "sec_fetch_site": "same-origin"}, (200, None)),
        ({"sec_fetch_site": "none"}, (200, None)),
        ({"origin": "https://evil.example"}, (403, "origin")),
        ({"origin": "http://127.0.0.1:3000"}, (403, "origin")),
        ({"origin": "null"}, (403, "origin")),
        ({"sec_fetch_site": "cross-site"}, (403, "origin")),
        ({"sec_fetch_site": "same-site"}, (403, "origin")),
        ({"origin": f"http://{HOST}", "sec_fetch_site": "cross-site"}, (403, "origin")),
        ({"host": "evil.example"}, (403, "host")),
    ],
)
def test_without_keys_this_machine_may_operate_the_server_and_foreign_pages_may_not(
    target: str, headers: dict[str, str], expected: tuple[int, str | None]
) -> None:
    for only_demo in (True, False):
        for remote in ("127.0.0.1", "::1", ""):
            assert verdict(admit(target, only_demo=only_demo, place={"remote": remote}, **headers)) == expected


def test_pages_that_may_call_may_not_operate_a_server_without_keys() -> None:
    page = "https://app.example"
    assert verdict(admit("/v1/models", settings={"cors_origins": (page,)}, origin=page)) == (200, None)
    assert verdict(admit("/docs", settings={"cors_origins": (page,)}, origin=page)) == (403, "origin")


@pytest.mark.parametrize(
    ("proxies", "remote", "headers", "status"),
    [
        ((), "127.0.0.1", {"x_forwarded_for": "192.0.2.1"}, 403),
        ((), "127.0.0.1", {"forwarded": "for=127.0.0.1"}, 403),
        ((), "", {"x_forwarded_for": "127.0.0.1"}, 403),
        ((), "192.0.2.1", {}, 403),
        (("127.0.0.1",), "127.0.0.1", {"x_forwarded_for": "192.0.2.1"}, 403),
        (("127.0.0.1",), "127.0.0.1", {"x_forwarded_for": "127.0.0.1"}, 200),
        (("127.0.0.1",), "127.0.0.1", {}, 200),
        (("unix:",), "", {"x_forwarded_for": "192.0.2.1"}, 403),
        (("unix:",), "", {"x_forwarded_for": "::1"}, 200),
        (("10.0.0.1",), "127.0.0.1", {"x_forwarded_for": "127.0.0.1"}, 403),
        *(
            (proxies, "127.0.0.1", {sign: "127.0.0.1"}, 403)
            for sign in ("via", "x_forwarded_host", "x_forwarded_proto", "x_real_ip", "true_client_ip", "cf_ray")
            for proxies in ((), ("127.0.0.1",))
        ),
        (("127.0.0.1",), "127.0.0.1", {"x_real_ip": "192.0.2.1", "x_forwarded_for": "127.0.0.1"}, 200),
        (("127.0.0.1",), "127.0.0.1", {"x_forwarded_for": "192.0.2.1, unknown, 127.0.0.1"}, 403),
        (("127.0.0.1",), "127.0.0.1", {"x_forwarded_for": "192.0.2.1", "forwarded": "for=127.0.0.1"}, 403),
        (("127.0.0.1",), "127.0.0.1", {"x_forwarded_for": "[::1]:80", "forwarded": "for=127.0.0.1"}, 200),
    ],
)
def test_without_keys_a_request_of_another_machine_is_refused_whoever_passes_it_on(
    proxies: tuple[str, ...], remote: str, headers: dict[str, str], status: int
) -> None:
    admitted = admit("/dashboard", settings={"forwarded_allow_ips": proxies}, place={"remote": remote}, **headers)
    assert verdict(admitted)[0] == status


def test_a_server_that_other_machines_reach_is_operated_with_a_key_only() -> None:
    admitted = admit("/admin/v1/keys", place={"on_loopback": False, "remote": "127.0.0.1"})
    assert verdict(admitted) == (403, "role")
    assert "add one with role" in str(admitted.error)


@pytest.mark.parametrize("path", ["/", "/healthz", "/docsx", "/administrator", "//admin", "/a/admin", "*"])
def test_other_paths_are_open(path: str) -> None:
    assert not PATHS.is_for_operators(path)
    for headers in ({}, {"x_api_key": KEY}, {"x_api_key": "sk-wrong-0123456789"}, {"authorization": "Basic YTpi"}):
        assert verdict(admit(path, keys=(*KEYS, ADMIN), **headers)) == (200, None)
    assert verdict(admit(path, sec_fetch_site="cross-site")) == (200, None)


def test_wrong_keys_are_counted_by_the_clients_address() -> None:
    server = ServerSettings(forwarded_allow_ips=("10.0.0.1",))
    admission = Admission(server, KEYS, paths=PATHS, only_demo=False, forwarding=Forwarding(server.forwarded_allow_ips))

    def ask(client: str, key: str, path: str = "/v1/models", remote: str = "10.0.0.1") -> int:
        headers = {"host": HOST, "x-forwarded-for": client, "x-api-key": key}
        return verdict(admission.admit("GET", path, headers, **_placed({"remote": remote})))[0]

    assert ask("192.0.2.3", KEY) == 200
    for address in ("192.0.2.1", "192.0.2.3"):
        for path in ("/v1/models", "/admin/v1/keys"):
            for _ in range(LIMITS.wrong_keys // 2):
                assert ask(address, "sk-wrong-0123456789", path) == 401
        assert ask(address, "sk-wrong-0123456789") == ask(address, "sk-wrong-0123456789", "/admin") == 429
    assert ask("192.0.2.1", KEY) == 429
    assert ask("192.0.2.2", KEY) == ask("192.0.2.3", KEY) == 200
    assert ask("192.0.2.1", "sk-wrong-0123456789", "/metrics") == 429
    assert ask("192.0.2.1", "sk-wrong-0123456789", "/healthz") == 200
    # A client that is no proxy is not believed.
    for number in range(LIMITS.wrong_keys):
        assert ask(f"198.51.100.{number}", "sk-wrong-0123456789", remote="192.0.2.9") == 401
    assert ask("198.51.100.100", "sk-wrong-0123456789", remote="192.0.2.9") == 429
