"""Health, version, the list of models, and the playground's files."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from typing import Any, cast, get_args

import pytest

from gai_fast import IMPLEMENTATION, __version__
from gai_fast.kernels import MODULES, SIMD
from gai_fast.ledger import Ledger, LocalLedger
from gai_fast.model.errors import Error
from gai_fast.model.request import Effort
from gai_fast.model.settings import ModelSettings, Settings, UpstreamSettings
from gai_fast.runtime.timers import TimerWheel
from gai_fast.server.http.replies import Reply
from gai_fast.server.observe.metrics import PrometheusSink
from gai_fast.server.requests.incoming import Incoming
from gai_fast.server.routes.operations import OperationRoutes
from gai_fast.server.routes.table import ROUTES
from gai_fast.stores import open_store
from tests.unit.net.fakes import FakeTime
from tests.unit.server import incoming_requests

UPSTREAM = UpstreamSettings("up", "openai", "http://x")
SETTINGS = Settings(
    upstreams={"up": UPSTREAM}, models={name: ModelSettings(name, UPSTREAM, name) for name in ("a", "b c")}
)


def incoming(tail: str = "", **headers: str) -> Incoming:
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    request = incoming_requests.http("GET", "/", {**incoming_requests.LOOPBACK, **more})
    return incoming_requests.incoming(request, tail, cors_origins=("https://a.example",))


def routes(settings: Settings = SETTINGS, ledger: Ledger | None = None) -> OperationRoutes:
    store = open_store(settings.store, cast("TimerWheel", FakeTime()), claim_ttl=60)
    return OperationRoutes(
        settings, PrometheusSink(settings.models), store, LocalLedger() if ledger is None else ledger, ROUTES
    )


def answer(name: str, tail: str = "", settings: Settings = SETTINGS) -> Any:
    reply = getattr(routes(settings), name)(incoming(tail))
    assert reply.status == 200
    headers = dict(reply.headers)
    assert headers["x-request-id"] == headers["request-id"] == "req-1"
    assert headers["cache-control"] == "no-store"
    assert headers["vary"] == "Origin"
    return json.loads(reply.body)


def test_health_and_version() -> None:
    assert answer("healthz") == {"status": "ok"}
    assert answer("readyz") == {"status": "ready", "upstreams": ["up"], "durability": "memory"}
    version = answer("version")
    assert version.keys() == {"version", "implementation", "modules", "simd", "python", "fast_lane"}
    assert (version["version"], version["implementation"]) == (__version__, IMPLEMENTATION)
    assert (version["modules"], version["simd"]) == (MODULES, SIMD)


def test_a_ledger_that_cannot_be_reached_is_reported() -> None:
    class Failing(LocalLedger):
        problem = "away"

    reply = routes(ledger=Failing()).readyz(incoming())
    assert (reply.status, json.loads(reply.body)["store"]) == (200, "failing")


def test_models_are_listed_in_their_order_and_found_by_name() -> None:
    listed = answer("models")
    assert [model["id"] for model in listed["data"]] == ["a", "b c"]
    assert (listed["first_id"], listed["last_id"], listed["has_more"]) == ("a", "b c", False)
    assert answer("model", "b%20c") == listed["data"][1]
    assert (answer("model", "up/x%2Fy"))["id"] == "up/x/y"
    for name in ("c", "", "%ff", "../a"):
        with pytest.raises(Error) as caught:
            routes().model(incoming(name))
        assert (caught.value.code, caught.value.reason) == ("not_found", "model")


def test_no_model_is_an_empty_list() -> None:
    listed = answer("models", settings=Settings())
    assert (listed["data"], listed["first_id"], listed["last_id"]) == ([], None, None)


@pytest.mark.parametrize("page", ["playground", "dashboard", "docs"])
def test_each_page_weighs_less_than_130_kb(page: str) -> None:
    """Its own files as they are sent; `client.js`, 26 KB, comes to the first two."""
    found = [each.read_bytes() for each in files("gai_fast").joinpath("server", "pages", page).iterdir()]
    assert 0 < sum(map(len, found)) < 130_000


@pytest.mark.parametrize(
    "name",
    [
        *(
            "index.html",
            "app.js",
            "approval.js",
            "copy.js",
            "formats.js",
            "history.js",
            "markdown.js",
            "pane.js",
            "run.js",
            "snippets.js",
        ),
        *("palette.css", "style.css", "icon.svg"),
    ],
)
def test_the_playgrounds_files_are_served_with_a_policy(name: str) -> None:
    table = routes()
    reply = table.asset(incoming(name))
    assert reply.body
    headers = dict(reply.headers)
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert "charset=utf-8" in headers["content-type"] or name.endswith(".svg")
    if name == "index.html":
        assert table.playground(incoming()).body == reply.body


def test_all_pages_have_their_colours_from_one_file() -> None:
    for page, names in (("playground", ["style.css"]), ("dashboard", ["dashboard.css"]), ("docs", ["docs.css"])):
        folder = files("gai_fast").joinpath("server", "pages", page)
        assert 'href="playground/palette.css"' in folder.joinpath("index.html").read_text()
        for name in names:
            assert not re.search(r"light-dark|rgb|:[^;]*#[0-9a-f]{3}", folder.joinpath(name).read_text()), name


def test_the_client_for_pages_is_served_to_other_origins_too() -> None:
    reply = routes().client(incoming())
    assert reply.body.startswith(b"// gai-fast.js")
    headers = dict(reply.headers)
    assert headers["content-type"] == "text/javascript; charset=utf-8"
    assert headers["cross-origin-resource-policy"] == "cross-origin"
    assert files("gai_fast").joinpath("client/gai-fast.d.ts").is_file(), "its types are beside it, in a wheel too"


def test_the_proto_is_the_one_in_the_package() -> None:
    reply = routes().proto(incoming())
    assert reply.body == files("gai_fast").joinpath("client/gai.proto").read_bytes()
    assert dict(reply.headers)["content-type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("name", ["index.html", "app.js", "gai-fast.js"])
def test_a_file_that_the_client_has_is_not_sent_again(name: str) -> None:
    def ask(**headers: str) -> Reply:
        request = incoming(name, **headers)
        return routes().client(request) if name == "gai-fast.js" else routes().asset(request)

    tag = dict(ask().headers)["etag"]
    for had in (tag, f"W/{tag}", f'"other", {tag}', f'"other",W/{tag} , "x"', "*", " * "):
        reply = ask(if_none_match=had)
        assert (reply.status, reply.body, dict(reply.headers)["etag"]) == (304, b"", tag)
    for other in ('"other"', "", "W/*", f'"*", "{tag[1:-2]}"', tag[:-1], f'"x{tag[1:]}', tag.strip('"')):
        assert ask(if_none_match=other).status == 200, other


@pytest.mark.parametrize("name", ["", "..", "../operations.py", "app.js/", "APP.js", "%61pp.js"])
def test_no_other_file_is(name: str) -> None:
    with pytest.raises(Error) as caught:
        routes().asset(incoming(name))
    assert caught.value.code == "not_found"


def test_a_pages_address_with_a_slash_at_its_end_names_the_page() -> None:
    table = routes()
    for handle, page in ((table.asset, "/"), (table.dashboard_asset, "/dashboard"), (table.docs_asset, "/docs")):
        with pytest.raises(Error, match=f"there is no such file; did you mean {page}\\?$"):
            handle(incoming(""))


def test_the_playground_offers_every_effort() -> None:
    page = files("gai_fast").joinpath("server", "pages", "playground", "index.html").read_text()
    [effort] = re.findall(r'<select id="effort">(.*?)</select>', page)
    assert re.findall(r"<option[^>]*>(\w+)", effort) == ["default", *get_args(Effort)]


def test_the_description_of_the_api_is_built_once() -> None:
    on = routes()
    first, second = on.openapi(incoming()), on.openapi(incoming())
    assert {*json.loads(first.body)["paths"]} >= {"/v1/messages", "/openapi.json"}
    assert second.body is first.body
