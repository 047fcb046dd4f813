"""The handlers of the other routes: health, metrics, version, models, the playground, the description of the API.

Knows nothing about streams or upstreams except their names in the configuration.
"""

from __future__ import annotations

import hashlib
import platform
import re
from collections.abc import Sequence
from functools import cached_property
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from gai_fast.kernels import IMPLEMENTATION, MODULES, SIMD, encode_json
from gai_fast.ledger import Ledger
from gai_fast.model.errors import Error
from gai_fast.model.settings import ModelSettings, Settings
from gai_fast.model.version import __version__
from gai_fast.providers import get_provider
from gai_fast.server.http.replies import Headers, Reply, id_headers
from gai_fast.server.observe.metrics import PrometheusSink
from gai_fast.server.observe.scrape import Scrapes
from gai_fast.server.requests.incoming import Incoming
from gai_fast.server.routes.probe import Probes
from gai_fast.stores import Store

if TYPE_CHECKING:
    from gai_fast.server.openapi.document import DescribedRoute

_ASSETS: Final = {
    "index.html": "text/html; charset=utf-8",
    "app.js": "text/javascript; charset=utf-8",
    "approval.js": "text/javascript; charset=utf-8",
    "copy.js": "text/javascript; charset=utf-8",
    "formats.js": "text/javascript; charset=utf-8",
    "history.js": "text/javascript; charset=utf-8",
    "markdown.js": "text/javascript; charset=utf-8",
    "pane.js": "text/javascript; charset=utf-8",
    "run.js": "text/javascript; charset=utf-8",
    "snippets.js": "text/javascript; charset=utf-8",
    "palette.css": "text/css; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

# Models of a configuration have no date; a fixed date makes the response equal at every call.
_CREATED: Final = 0
_CREATED_AT: Final = "1970-01-01T00:00:00Z"


_OPERATORS_PAGES: Final = {
    "docs": ("docs.js", "docs.css"),
    "dashboard": (
        *("dashboard.js", "api.js", "approvals.js", "charts.js", "feed.js", "keys.js", "requests.js", "streams.js"),
        "dashboard.css",
    ),
}
"""The operators' pages, each with its files; the path of a page's `index.html` is the page's name."""
_KINDS: Final = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8"}


class _File:
    """A file with the tag of its content.

    Args:
        body: The content.
    """

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.tag = f'"{hashlib.sha256(self.body).hexdigest()[:32]}"'

    def reply(self, incoming: Incoming, own: Headers) -> Reply:
        """Returns the file, or 304 if the client has it (RFC 9110, 13.1.2).

        Args:
            incoming: The request.
            own: The headers of this file only.
        """
        headers = [
            *own,
            ("cache-control", "no-cache"),
            ("etag", self.tag),
            ("x-content-type-options", "nosniff"),
            *id_headers(incoming.http.request_id),
        ]
        if _matches(self.tag, incoming.http.headers.get("if-none-match")):
            return Reply(304, headers=headers)
        return Reply(200, self.body, headers)


_ETAG: Final = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')


def _matches(tag: str, condition: str | None) -> bool:
    """Returns whether `If-None-Match` names a tag, by weak comparison (RFC 9110, 8.8.3.2 and 13.1.2).

    Args:
        tag: The strong tag of the content.
        condition: The header: a list of tags, or `*`. None if there is none.
    """
    return condition is not None and (condition.strip() == "*" or tag in _ETAG.findall(condition))


def _packaged(*path: str) -> _File:
    """Reads a file of the package."""
    return _File(files("gai_fast").joinpath(*path).read_bytes())


class OperationRoutes:
    """Handlers for one configuration, the counts of its streams, its store, its ledger and its routes.

    Attributes:
        fast_lane: Whether streaming POSTs are answered without aiohttp.
        is_draining: Whether the server is shutting down.
        is_sealed: Whether a worker of the server lacks a key of the store.
        scrapes: Answers scrapes.
        probes: Answers `GET /probe`.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: PrometheusSink,
        store: Store,
        ledger: Ledger,
        routes: Sequence[DescribedRoute],
    ) -> None:
        self.fast_lane = False
        self.is_draining = False
        self.is_sealed = False
        self._settings = settings
        self._store = store
        self._ledger = ledger
        self._routes = routes
        stream = settings.stream
        self.scrapes = Scrapes(metrics, high_water=stream.client_buffer, write_timeout=stream.write_timeout)
        self.probes = Probes()
        self._assets = {name: _packaged("server", "pages", "playground", name) for name in _ASSETS}
        self._client = _packaged("client", "gai-fast.js")
        self._proto = _packaged("client", "gai.proto")
        self._pages = {
            page: {name: _packaged("server", "pages", page, name) for name in ("index.html", *names)}
            for page, names in _OPERATORS_PAGES.items()
        }

    def use(self, settings: Settings) -> None:
        """Applies another configuration to new requests."""
        self._settings = settings

    def healthz(self, incoming: Incoming) -> Reply:
        """Handles `GET /healthz`: the process runs."""
        return incoming.json_reply({"status": "ok"})

    def readyz(self, incoming: Incoming) -> Reply:
        """Handles `GET /readyz`: 200 if the server accepts streams; 503 during a drain, for load balancers."""
        if self.is_draining:
            return incoming.json_reply({"status": "draining"}, status=503)
        state = {"status": "ready", "upstreams": list(self._settings.upstreams), "durability": self._store.durability}
        if self._ledger.problem is not None or self._store.durability == "degraded":
            state["store"] = "failing"
        elif self._store.is_slow:
            state["store"] = "slow"
        if self.is_sealed or self._store.is_sealed:
            state["store"] = "sealed"
        return incoming.json_reply(state)

    def metrics(self, incoming: Incoming) -> None:
        """Handles `GET /metrics` for Prometheus; sends OpenMetrics if the `Accept` header asks for it."""

        def answer(body: bytes, content_type: str) -> Reply:
            headers = [
                ("content-type", content_type),
                ("cache-control", "no-store"),
                *id_headers(incoming.http.request_id),
            ]
            return Reply(200, body, [*headers, *incoming.answer_headers])

        accept = incoming.http.headers.get("accept", "")
        self.scrapes.begin(accept, incoming.http.transport, answer, lambda error: incoming.refusal(error, ()))

    def probe(self, incoming: Incoming) -> None:
        """Handles `GET /probe`: sends a stream of known timing, which shows what proxies do to streams."""
        self.probes.begin(incoming, self._settings.stream)

    def version(self, incoming: Incoming) -> Reply:
        """Handles `GET /version`: the release, its compiled modules, and whether the fast lane is on."""
        return incoming.json_reply(
            {
                "version": __version__,
                "implementation": IMPLEMENTATION,
                "modules": MODULES,
                "simd": SIMD,
                "python": platform.python_version(),
                "fast_lane": self.fast_lane,
            },
        )

    def models(self, incoming: Incoming) -> Reply:
        """Handles `GET /v1/models`: the caller's models, in the union of the objects that both SDKs read."""
        key = incoming.http.key
        data = [_model(each) for each in self._settings.models.values() if key is None or key.may_use(each.name)]
        ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
        return incoming.json_reply({"object": "list", "data": data, "has_more": False, **ends})

    def model(self, incoming: Incoming) -> Reply:
        """Handles `GET /v1/models/{id}`."""
        return incoming.json_reply(_model(self._settings.chosen(unquote(incoming.tail), incoming.http.key)))

    def playground(self, incoming: Incoming) -> Reply:
        """Handles `GET /`: sends the playground's page."""
        return self._asset("index.html", incoming)

    def asset(self, incoming: Incoming) -> Reply:
        """Handles `GET /playground/…`: sends the page's files."""
        if incoming.tail not in self._assets:
            raise _no_file(incoming.tail, "/")
        return self._asset(incoming.tail, incoming)

    def client(self, incoming: Incoming) -> Reply:
        """Handles `GET /client.js`: sends the client for pages and Node."""
        own = [
            ("content-type", "text/javascript; charset=utf-8"),
            ("cross-origin-resource-policy", "cross-origin"),
            *incoming.answer_headers,
        ]
        return self._client.reply(incoming, own)

    def proto(self, incoming: Incoming) -> Reply:
        """Handles `GET /gai.proto`: sends the service of `gai-fast grpc`, from which clients are made."""
        return self._proto.reply(incoming, [("content-type", "text/plain; charset=utf-8"), *incoming.answer_headers])

    def openapi(self, incoming: Incoming) -> Reply:
        """Handles `GET /openapi.json`: sends the description of the API."""
        return self._description.reply(incoming, [("content-type", "application/json"), *incoming.answer_headers])

    @cached_property
    def _description(self) -> _File:
        """The description of the API, built on its first request."""
        from gai_fast.server.openapi.document import document  # the import costs 90 ms; few servers need it

        return _File(encode_json(document(self._routes)))

    def docs(self, incoming: Incoming) -> Reply:
        """Handles `GET /docs`: sends the page of the API's description."""
        return self._operators_page("docs", incoming)

    def docs_asset(self, incoming: Incoming) -> Reply:
        """Handles `GET /docs/…`: sends the page's files."""
        return self._operators_asset("docs", incoming)

    def dashboard(self, incoming: Incoming) -> Reply:
        """Handles `GET /dashboard`: sends a page with the current state of the server."""
        return self._operators_page("dashboard", incoming)

    def login(self, incoming: Incoming, refusal: Reply) -> Reply:
        """Returns a refusal of an operators' page with the page as its body, which asks for an admin's key.

        Args:
            incoming: The request.
            refusal: What other clients get.
        """
        name = incoming.path.removeprefix("/")
        page = [each for each in self._operators_page(name, incoming).headers if each[0] != "etag"]
        kept = [each for each in refusal.headers if each[0] == "www-authenticate"]
        return Reply(refusal.status, self._pages[name]["index.html"].body, [*page, *kept], close=refusal.close)

    def dashboard_asset(self, incoming: Incoming) -> Reply:
        """Handles `GET /dashboard/…`: sends the page's files."""
        return self._operators_asset("dashboard", incoming)

    def _operators_page(self, page: str, incoming: Incoming) -> Reply:
        return self._page("text/html; charset=utf-8", self._pages[page]["index.html"], incoming)

    def _operators_asset(self, page: str, incoming: Incoming) -> Reply:
        name = incoming.tail
        if name not in _OPERATORS_PAGES[page]:
            raise _no_file(name, f"/{page}")
        return self._page(_KINDS[name[name.rindex(".") :]], self._pages[page][name], incoming)

    def _asset(self, name: str, incoming: Incoming) -> Reply:
        return self._page(_ASSETS[name], self._assets[name], incoming)

    def _page(self, content_type: str, file: _File, incoming: Incoming) -> Reply:
        own = [
            ("content-type", content_type),
            ("content-security-policy", _POLICY),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-resource-policy", "same-origin"),
        ]
        return file.reply(incoming, own)


def _no_file(name: str, page: str) -> Error:
    """Returns the error for an unknown file of a page; people type the page's address with a slash at its end."""
    return Error("not_found", f"there is no such file{'' if name else f'; did you mean {page}?'}", reason="route")


def _model(model: ModelSettings) -> dict[str, Any]:
    description = get_provider(model.upstream.provider).description
    return {
        "id": model.name,
        "object": "model",
        "created": _CREATED,
        "owned_by": model.upstream.name,
        "type": "model",
        "display_name": model.name,
        "created_at": _CREATED_AT,
        **({"description": description} if description else {}),
    }
