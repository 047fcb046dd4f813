"""Requests in the gateway's own form: `POST /api/v1/stream`, the start of a stream, and a browser's plain GET."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import UNSET

from gai_fast.core.requests.reading import parse_object, parse_request, provider_blocks
from gai_fast.core.requests.stored_ids import StoredId
from gai_fast.core.requests.texts import Text, names_tokens, texts_of, with_texts
from gai_fast.formats import Format, StreamContext, get_format, known_format
from gai_fast.guards.active import ActiveGuard, Guards
from gai_fast.guards.outcomes import TOKENS, closed
from gai_fast.model.errors import Error
from gai_fast.model.request import Request
from gai_fast.model.settings import DEMO, Settings
from gai_fast.net.attempts.spec import StreamSpec
from gai_fast.net.stream.new_texts import NewTexts
from gai_fast.providers import get_provider
from gai_fast.runtime.breathing import breathe
from gai_fast.runtime.ids import request_id
from gai_fast.server.admission.negotiation import Negotiated, negotiate
from gai_fast.server.admission.stored_ids import ids_in_raw
from gai_fast.server.requests.incoming import Incoming
from gai_fast.server.requests.specs import check_translated, containers_of, is_large
from gai_fast.server.requests.stream_passage import (
    _UNSET,
    PassageHome,
    StreamPassage,
    accept_of,
    has_no_tools,
    key_in,
    needs_a_stream,
)
from gai_fast.stores import StreamLog

if TYPE_CHECKING:
    from gai_fast.net.runs.offers import RunTools, RunWish

_ACCEPTED: Final = 202


class NativePassage(StreamPassage):
    """`POST /api/v1/stream`, and a request over a WebSocket."""

    def __init__(self, incoming: Incoming, home: PassageHome) -> None:
        super().__init__(incoming, home)
        self._request: Request  # from `read` on
        self._left_out: Sequence[str] = ()
        self._dialect_body: dict[str, Any] | None = None

    def read(self) -> None:
        """Works as `Passage.read`."""
        incoming = self.incoming
        if "format" in incoming.query and is_large(incoming.http.body):  # a native one is soon read
            self.rest = self._read
            return
        self._read()
        self.name_ids()

    def _read(self) -> None:
        self._request, self._left_out, self._dialect_body = _read_request(self.incoming)
        if self._dialect_body is not None:
            self.given = get_format(self.incoming.query["format"]).given_decisions(self._dialect_body)

    def name_ids(self) -> None:
        """Works as `Passage.name_ids`."""
        if self.incoming.http.key is not None:
            self.named = _ids_to_check(self._home.specs.settings, self.incoming, self._request)

    def guarded(self, guards: Guards) -> Sequence[ActiveGuard]:
        """Works as `Passage.guarded`."""
        looking = super().guarded(guards)
        if looking and names_tokens(self._request):
            raise closed(looking[0].name, TOKENS)
        return looking

    def texts(self) -> Sequence[Text]:
        """Works as `Passage.texts`."""
        return texts_of(self._request, breathe)

    def named_model(self) -> str:
        """Works as `Passage.named_model`."""
        request: Request | None = getattr(self, "_request", None)
        name = None if request is None else request.model
        return name if isinstance(name, str) else ""

    def use_texts(self, new: NewTexts) -> None:
        """Works as `Passage.use_texts`."""
        self._request = with_texts(self._request, new.sent, new.left_out)

    def run_wish(self, tools: RunTools) -> RunWish | None:
        """Works as `Passage.run_wish`."""
        request, key = self._request, self.incoming.http.key
        name, asked, settings = request.model, request.gateway_tools, self._home.specs.settings
        if asked is _UNSET and has_no_tools(settings, name):
            return None
        model = settings.chosen(name if isinstance(name, str) else None, key)
        if not model.tools and asked is _UNSET:
            return None
        return tools.wish(model, key, None if asked is _UNSET else asked)

    def plan(self) -> None:
        """Works as `Passage.plan`."""
        incoming, request = self.incoming, self._request
        self.key = key = key_in(incoming, request)
        negotiated = incoming.form
        if negotiated is None:
            negotiated = negotiate(incoming.query, accept_of(incoming, request.stream), default_format="gai")
        elif not request.stream:
            raise needs_a_stream("a WebSocket")
        negotiated = self._answering(negotiated)
        spec, context = self._spec(negotiated, is_durable=request.resumable or key is not None)
        self._answers_with_stream(negotiated, spec, context)

    def _answering(self, negotiated: Negotiated) -> Negotiated:
        """Returns the form of the response; to a request in a dialect it may be another one."""
        body = self._dialect_body
        if body is None:
            return negotiated
        return Negotiated(negotiated.format.answer_format(body), negotiated.framing, negotiated.envelope)

    def _spec(self, negotiated: Negotiated, *, is_durable: bool) -> tuple[StreamSpec, StreamContext]:
        specs = self._home.specs
        return specs.native(
            self.incoming, self._request, negotiated, is_durable=is_durable, left_out=self._left_out, key=self.key
        )


class StartPassage(NativePassage):
    """`POST /api/v1/streams`: a durable stream that no client follows yet."""

    def plan(self) -> None:
        """Works as `Passage.plan`."""
        incoming, request = self.incoming, self._request
        if not request.stream:
            raise needs_a_stream("this route")
        negotiated = negotiate(incoming.query, incoming.http.headers.get("accept"), default_format="gai")
        negotiated = self._answering(negotiated)
        self.key = key_in(incoming, request)
        spec, context = self._spec(negotiated, is_durable=True)
        self._answers_unfollowed(negotiated, spec, context, _ACCEPTED)

    def _started_body(self, log: StreamLog) -> dict[str, Any]:
        incoming, stream_id = self.incoming, log.header.stream_id
        prefix = incoming.http.target.partition("?")[0].removesuffix(incoming.path)
        return {"id": stream_id, "url": f"{prefix}{incoming.path}/{stream_id}"}


class EventSourcePassage(NativePassage):
    """`GET /api/v1/stream?q=…` from a browser's `EventSource`, which does not resume."""

    def read(self) -> None:
        """Works as `Passage.read`; the request is in the query."""
        query = self.incoming.query.get("q")
        if not query:
            raise Error("invalid_request", "the query parameter `q` is missing", reason="query")
        settings = self._home.specs.settings
        name = self.incoming.query.get("model", DEMO if _is_usual_by_default(settings) else None)
        model = settings.chosen(name, self.incoming.http.key)
        is_demo = bool(get_provider(model.upstream.provider).recording)
        if not is_demo and not settings.server.allow_get_start:
            raise Error("forbidden", "a GET starts no stream here (see allow_get_start)", reason="get_start")
        self._request = Request(query=query, model=model.name)

    def plan(self) -> None:
        """Works as `Passage.plan`."""
        incoming = self.incoming
        negotiated = negotiate(incoming.query, incoming.http.headers.get("accept"), default_format="gai")
        spec, context = self._spec(negotiated, is_durable=True)
        self._answers_with_stream(negotiated, spec, context)


def _read_request(incoming: Incoming) -> tuple[Request, Sequence[str], dict[str, Any] | None]:
    """Returns the native request in a body, the paths that it cannot express, and the body if it is in a dialect.

    If `?format=` names a dialect with requests for this route, a body in that dialect is accepted too.
    """
    check_translated(containers_of(incoming.http.body))
    if "format" in incoming.query:
        dialect = known_format(incoming.query["format"])
        if dialect is not None and dialect.shares_native_routes:
            body = parse_object(incoming.json_body())
            if dialect.owns_request(body):
                return read_dialect_request(incoming, dialect, body)
    return _apply_members(incoming, parse_request(incoming.json_body())), (), None


def read_dialect_request(
    incoming: Incoming, dialect: Format, body: dict[str, Any]
) -> tuple[Request, Sequence[str], dict[str, Any]]:
    """Does the work of `_read_request` for a body in a dialect; `?model=` names the model if the body does not."""
    request, left_out = dialect.parse_request(body)
    model = incoming.query.get("model")
    if model is not None and request.model is UNSET:
        request = msgspec.structs.replace(request, model=model)
    return _apply_members(incoming, request), left_out, body


def _apply_members(incoming: Incoming, request: Request) -> Request:
    """Applies and checks the members of a request that concern its route."""
    if isinstance(request.request_id, str) and "x-request-id" not in incoming.http.headers:
        incoming.http.request_id = request_id(request.request_id)
    if request.resumable and not request.stream:
        raise needs_a_stream("`resumable`")
    return request


def _ids_to_check(settings: Settings, incoming: Incoming, request: Request) -> Sequence[StoredId]:
    """Returns the ids in the raw members of a native request that its caller must own."""
    options = [tool.options for tool in request.tools if tool.options]
    members = [*request.provider_options.values(), request.extra, *options]
    blocks = provider_blocks(request)
    if not blocks and not any(members):
        return ()
    name = request.model
    model = settings.chosen(name if isinstance(name, str) else None, incoming.http.key)
    return ids_in_raw(settings, model, members, blocks)


def _is_usual_by_default(settings: Settings) -> bool:
    """Returns whether the default model is a usual one, which costs money. Any web page can send a GET: it gets the
    demo."""
    model = settings.model(None) if settings.default_model is None and DEMO in settings.models else None
    return model is not None and settings.usual.get(model.id) == model.name
