"""The handlers of routes that start streams: native, plain GET, and requests in a client's dialect.

Owns how a request is parsed, and how it is answered with its stream. `specs.py` builds the request's spec, `durable.py`
has the routes of running streams, `idempotency.py` handles requests with a key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, cast

import msgspec
from msgspec import UNSET

from gai_fast.core.reading import estimated_tokens, parse_object, parse_request, provider_blocks
from gai_fast.core.stored_ids import StoredId
from gai_fast.formats import (
    ClientRequest,
    Format,
    StreamContext,
    known_format,
)
from gai_fast.kernels import encode_json
from gai_fast.ledger import NO_DEMAND, Demand
from gai_fast.model.errors import Error
from gai_fast.model.request import CheckedBody, Request
from gai_fast.model.settings import ModelSettings, Settings, StreamSettings
from gai_fast.net.attempts.spec import Clock, StreamSpec
from gai_fast.net.logs.publication import Publication
from gai_fast.net.logs.view import NATIVE, View, view_of
from gai_fast.net.stream.streams import Engine
from gai_fast.net.stream.uncounted import Uncounted
from gai_fast.providers import get_provider
from gai_fast.runtime.clock import now_ms
from gai_fast.runtime.ids import request_id
from gai_fast.server.admission.asking import answer_owner
from gai_fast.server.admission.further_models import check_further_models
from gai_fast.server.admission.negotiation import Negotiated, form_of, negotiate
from gai_fast.server.admission.stored_ids import ids_in_body, ids_in_raw
from gai_fast.server.http.replies import Headers, Reply
from gai_fast.server.requests.caching import (
    HEADER,
    begin_after_lookup,
    miss_headers,
    set_cache_header,
    shared_answer,
    wants_shared_answer,
)
from gai_fast.server.requests.chats import ChatRoutes, chat_id_of
from gai_fast.server.requests.durable import DurableRoutes
from gai_fast.server.requests.idempotency import (
    KEY_HEADERS,
    Follow,
    KeyedRequest,
    KeyedRequests,
    Start,
    expired,
    key_of,
    keyed,
)
from gai_fast.server.requests.incoming import Incoming
from gai_fast.server.requests.pending import PendingAnswers
from gai_fast.server.requests.quotas import Quotas
from gai_fast.server.requests.responses import ResponseRoutes, response_of
from gai_fast.server.requests.specs import SpecBuilder, check_translated, containers_of
from gai_fast.server.requests.stream_response import StreamResponse
from gai_fast.stores import LogHeader, StreamLog

_BodyOf = Callable[[StreamLog], dict[str, Any]]
"""Returns the JSON object that answers a request which has started a stream."""


class StreamRoutes:
    """Handlers over one engine.

    Attributes:
        durable: The handlers of running streams.
        chats: The handlers of chats.
        responses: The handlers of stored responses.
        quotas: Counts the requests that start streams.
    """

    def __init__(self, engine: Engine) -> None:
        self.durable = DurableRoutes(engine)
        self.chats = ChatRoutes(engine, self.durable)
        self.responses = ResponseRoutes(engine, self.durable)
        self.quotas = Quotas(engine)
        self._keyed = KeyedRequests(engine)
        self._uncounted = Uncounted(engine.timers.clock)
        self._lookups = PendingAnswers()
        self._engine = engine
        self._specs = SpecBuilder(engine)

    def use(self, settings: Settings) -> None:
        """Applies another configuration to new requests."""
        self._specs.settings = settings

    # -- routes --

    def native(self, incoming: Incoming) -> Reply | None:
        """Handles `POST /api/v1/stream`."""
        # Most requests; making and calling a bound method costs 500 instructions.
        if self.quotas.reads_at_once(incoming):
            self._read_native(incoming)
            return None
        return self.quotas.read(incoming, self._read_native)

    def _read_native(self, incoming: Incoming, *, is_checked: bool = False) -> None:
        request, left_out, dialect_body = _read_request(incoming)
        named = () if is_checked else self._ids_to_check(incoming, request)
        if named:
            self.answer_owner(incoming, named, partial(self._read_native, incoming, is_checked=True))
            return
        key = _key(incoming, request)
        if incoming.form is not None and not request.stream:
            raise _needs_a_stream("a WebSocket")
        negotiated = incoming.negotiate(_accept(incoming, request.stream), "gai")
        negotiated = negotiated if dialect_body is None else _with_answering_format(negotiated, dialect_body)
        is_durable = request.resumable or key is not None
        self._answer_native(incoming, request, negotiated, is_durable=is_durable, key=key, left_out=left_out)

    def start(self, incoming: Incoming) -> Reply | None:
        """Handles `POST /api/v1/streams`: starts a durable stream that no client follows yet."""
        return self.quotas.read(incoming, self._read_start)

    def _read_start(self, incoming: Incoming, *, is_checked: bool = False) -> Reply | None:
        request, left_out, dialect_body = _read_request(incoming)
        named = () if is_checked else self._ids_to_check(incoming, request)
        if named:
            return self.answer_owner(incoming, named, partial(self._read_start, incoming, is_checked=True))
        if not request.stream:
            raise _needs_a_stream("this route")
        negotiated = negotiate(incoming.query, incoming.http.headers.get("accept"), default_format="gai")
        negotiated = negotiated if dialect_body is None else _with_answering_format(negotiated, dialect_body)
        key = _key(incoming, request)
        spec, context = self._specs.native(incoming, request, negotiated, is_durable=True, left_out=left_out)
        return self._start(incoming, context, spec, key, lambda log: _start_body(incoming, log), status=202)

    def _start(
        self,
        incoming: Incoming,
        context: StreamContext,
        spec: StreamSpec,
        key: str | None,
        body_of: _BodyOf,
        *,
        status: int,
    ) -> Reply | None:
        """Starts a durable stream that no client follows yet.

        Args:
            incoming: The request.
            context: The stream's context.
            spec: The spec of its first attempt.
            key: The idempotency key; None if there is none.
            body_of: Returns the body of the response.
            status: The status of the response.
        """
        begin = partial(self._publish_unfollowed, incoming, spec, context)
        more = miss_headers(self._engine, incoming, spec.model)
        if key is None and not self.quotas.must_wait(incoming):
            return _json_reply(incoming, body_of(begin().log), status, more)
        estimate = self.quotas.estimate(incoming, spec)
        if key is None:
            client = StreamResponse(incoming, context.stream_id, "", spec.model.stream, whole=True)
            start = partial(_start_and_reply, client, incoming, begin, body_of, status, more)
            self.quotas.begin(incoming, estimate, context.stream_id, client, start)
            return None
        answer = partial(_reply_keyed, incoming, body_of, status)
        is_native = incoming.format.name == NATIVE
        claimed = self._keyed_request(incoming, key, estimate, context.stream_id, begin, answer, is_native=is_native)
        client = StreamResponse(incoming, context.stream_id, "", spec.model.stream, whole=True)
        client.headers = more
        self._keyed.answer(incoming, client, claimed)
        return None

    def _publish_unfollowed(self, incoming: Incoming, spec: StreamSpec, context: StreamContext) -> Publication:
        """Starts a durable stream that no client follows yet."""
        publication = self._publish(spec, context)
        publication.await_follower()
        incoming.http.started = publication.metrics
        return publication

    def event_source(self, incoming: Incoming) -> Reply | None:
        """Handles `GET /api/v1/stream?q=…` from a browser's `EventSource`."""
        if incoming.is_foreign:
            raise Error("forbidden", "a page of another origin may not start a stream", reason="origin")
        if "last-event-id" in incoming.http.headers:
            # An EventSource reconnects after every end; a reconnect must never generate again.
            return self.durable.resume(incoming)
        query = incoming.query.get("q")
        if not query:
            raise Error("invalid_request", "the query parameter `q` is missing", reason="query")
        model = self._specs.settings.chosen(incoming.query.get("model"), incoming.key)
        is_demo = bool(get_provider(model.upstream.provider).recording)
        if not is_demo and not self._specs.settings.server.allow_get_start:
            raise Error("forbidden", "a GET starts no stream here (see allow_get_start)", reason="get_start")
        negotiated = negotiate(incoming.query, incoming.http.headers.get("accept"), default_format="gai")
        self._answer_native(incoming, Request(query=query, model=model.name), negotiated, is_durable=True)
        return None

    def chat(self, incoming: Incoming) -> Reply | None:
        """Handles `POST /api/v1/chat`: starts a durable stream that is also found by the id of its chat."""
        return self.quotas.read(incoming, self._read_chat)

    def _read_chat(self, incoming: Incoming, *, is_checked: bool = False) -> None:
        body = parse_object(incoming.json_body())
        chat_id = chat_id_of(body)
        request, left_out, _ = _read_dialect_request(incoming, incoming.format, body)
        named = () if is_checked else self._ids_to_check(incoming, request)
        if named:
            self.answer_owner(incoming, named, partial(self._read_chat, incoming, is_checked=True))
            return
        if _key(incoming, request) is not None:
            raise Error("unsupported", "this route takes no idempotency key: a chat has its id", reason="chat")
        negotiated = negotiate(incoming.query, _accept(incoming, request.stream), default_format=incoming.format.name)
        if not request.stream:
            self._answer_native(incoming, request, negotiated, is_durable=False, left_out=left_out)
            return
        spec, context = self._specs.native(incoming, request, negotiated, is_durable=True, left_out=left_out)
        stream = spec.model.stream
        admit = self.quotas.admission(incoming, self.quotas.estimate(incoming, spec), context.stream_id)
        start = partial(self.quotas.run, incoming, context.stream_id, partial(self._publish_log, spec, context))
        follow = partial(self._follow_chat, negotiated, spec)
        media_type = negotiated.media_type
        more = miss_headers(self._engine, incoming, spec.model)
        client = StreamResponse(incoming, context.stream_id, media_type, stream, whole=False)
        client.headers = more
        client.format_headers = negotiated.headers
        self.chats.begin(incoming, client, chat_id, admit, start, follow)

    def dialect(self, incoming: Incoming) -> Reply | None:
        """Handles `POST /v1/chat/completions` and similar routes: a request in the dialect of the route's format."""
        return self.quotas.read(incoming, self._read_dialect)

    def _read_dialect(self, incoming: Incoming, *, is_checked: bool = False) -> Reply | None:
        body = parse_object(incoming.json_body())
        key = _key(incoming)
        dialect = incoming.format
        asked = dialect.read_request(body)
        if incoming.key is not None and not is_checked:
            named = self._ids_in_body(incoming, asked)
            if named:
                return self.answer_owner(incoming, named, partial(self._read_dialect, incoming, is_checked=True))
        # A background response is logged in its route's own format: the query cannot choose another one.
        query = {} if asked.background and not asked.stream else incoming.query
        negotiated = negotiate(query, _accept(incoming, asked.stream), default_format=dialect.name)
        spec, context = self._specs.of_dialect(incoming, asked, negotiated, is_durable=key is not None)
        if asked.background and not asked.stream:
            return self._start(
                incoming, context, spec, key, lambda log: _background_body(dialect, context, log), status=200
            )
        self._answer(incoming, negotiated, context, spec, key)
        return None

    def count_tokens(self, incoming: Incoming) -> Reply | None:
        """Handles `POST /v1/messages/count_tokens` and `POST /v1/responses/input_tokens`.

        An upstream of the dialect counts, if it can; else the count is estimated.
        """
        return self.quotas.read(incoming, self._read_count, takes_key=False)

    def _read_count(self, incoming: Incoming, *, is_checked: bool = False) -> Reply | None:
        body = parse_object(incoming.json_body())
        dialect = incoming.format
        asked = dialect.read_request(body)
        if incoming.key is not None and not is_checked:
            named = self._ids_in_body(incoming, asked)
            if named:
                return self.answer_owner(incoming, named, partial(self._read_count, incoming, is_checked=True))
        model = self._specs.settings.chosen(asked.model, incoming.key)
        check_further_models(body, incoming.key)
        model = self._engine.targets.with_target(model, asked.body)
        api = get_provider(model.upstream.provider)
        if api.dialect != dialect.name or not api.count_path:
            check_translated(containers_of(incoming.http.body))
            dialect.parse_request(body)  # a request that would be refused has no count
            return _estimated_count(incoming, asked)
        if self._uncounted.has(model, incoming.path):
            return _estimated_count(incoming, asked)
        spec, context = self._specs.count(incoming, body, model)
        client = StreamResponse(incoming, context.stream_id, "application/json", model.stream, whole=True)
        client.instead = partial(self._count_instead, incoming, asked, model)

        start = partial(self._run, client, context, spec)
        self.quotas.begin(incoming, NO_DEMAND, context.stream_id, client, start)  # generates no tokens
        return None

    def _count_instead(
        self, incoming: Incoming, asked: ClientRequest, model: ModelSettings, error: Error
    ) -> Reply | None:
        """Returns an estimate in place of an upstream's error that means that it counts none. None for other errors."""
        is_configured = model.name in self._specs.settings.models
        is_missing = self._uncounted.refused(model, incoming.path, error, is_configured=is_configured)
        return _estimated_count(incoming, asked) if is_missing else None

    # -- ids of what upstreams store --

    def with_own_ids(self, incoming: Incoming, then: Callable[[], Reply | None]) -> Reply | None:
        """Answers a request that is passed through by a handler, once its caller is known to own the ids that it names.

        Args:
            incoming: The request. Its body is written anew: of duplicate members an upstream may read another one.
            then: The handler.
        """
        if incoming.key is None:
            return then()
        body = parse_object(incoming.json_body())
        incoming.http.body = CheckedBody(encode_json(body))
        name = body.get("model")
        settings = self._specs.settings
        model = settings.chosen(name if isinstance(name, str) else None, incoming.key)
        named = ids_in_raw(settings, model, [body], ())
        return self.answer_owner(incoming, named, then) if named else then()

    def _ids_to_check(self, incoming: Incoming, request: Request) -> Sequence[StoredId]:
        """Returns the ids in the raw members of a native request that its caller must own."""
        if incoming.key is None:
            return ()
        options = [tool.options for tool in request.tools if tool.options]
        members = [*request.provider_options.values(), request.extra, *options]
        blocks = provider_blocks(request)
        if not blocks and not any(members):
            return ()
        name = request.model
        settings = self._specs.settings
        model = settings.chosen(name if isinstance(name, str) else None, incoming.key)
        return ids_in_raw(settings, model, members, blocks)

    def _ids_in_body(self, incoming: Incoming, asked: ClientRequest) -> Sequence[StoredId]:
        """Returns the ids in a request of a dialect that its caller must own."""
        settings = self._specs.settings
        model = settings.chosen(asked.model, incoming.key)
        return ids_in_body(settings, model, incoming.format.name, asked.body)

    def answer_owner(
        self, incoming: Incoming, named: Sequence[StoredId], then: Callable[[], Reply | None]
    ) -> Reply | None:
        """Answers a request by a handler once its caller is known to own the ids that it names.

        Args:
            incoming: The request.
            named: The ids.
            then: Handles the request again, with its ids checked.
        """
        body = incoming.http.body
        client = StreamResponse(incoming, "", "application/json", self._engine.settings.stream, whole=True)
        incoming.http.body = body  # the response has dropped it
        self._lookups.add(incoming, client, answer_owner(self._engine, incoming.caller, named, then))
        return None

    # -- from a request to its stream --

    def _answer_native(
        self,
        incoming: Incoming,
        request: Request,
        negotiated: Negotiated,
        *,
        is_durable: bool,
        key: str | None = None,
        left_out: Sequence[str] = (),
    ) -> None:
        spec, context = self._specs.native(incoming, request, negotiated, is_durable=is_durable, left_out=left_out)
        self._answer(incoming, negotiated, context, spec, key)

    def _answer(
        self,
        incoming: Incoming,
        negotiated: Negotiated,
        context: StreamContext,
        spec: StreamSpec,
        key: str | None,
    ) -> None:
        media_type = "application/json" if spec.hold else negotiated.media_type
        stream = spec.model.stream
        # Also reached by plain requests: a call into `caching.py`, which is not compiled, costs 0.2 us.
        wants_shared = wants_shared_answer(incoming, spec.model) if HEADER in incoming.key_headers else spec.model.cache
        if key is not None:
            self._answer_keyed(incoming, negotiated, context, spec, key, media_type, wants_shared=wants_shared)
            return
        # Must come before `StreamResponse`, whose constructor drops the request's body.
        estimate = _NO_DEMAND if incoming.key is None else self.quotas.estimate(incoming, spec)
        client = StreamResponse(incoming, context.stream_id, media_type, stream, whole=spec.hold)
        if not spec.hold:
            client.format_headers = negotiated.headers
        view = None if spec.log_header is None else _view(negotiated, spec, spec.log_header)
        if spec.log_header is None and spec.hold:
            context.metrics = client.measured
            client.whole_media_type = negotiated.format.whole_media_type

        if not wants_shared and not self.quotas.must_wait(incoming):
            self._begin(client, context, spec, view, wants_shared=False)  # at once: no limit of a key counts it
            return
        start = partial(self._begin, client, context, spec, view, wants_shared=wants_shared)
        if wants_shared:
            spec.sharing = sharing = shared_answer(self._engine, incoming.caller)
            if sharing is not None and sharing.must_claim(spec):
                admit = self.quotas.admission(incoming, estimate, context.stream_id)
                run = partial(self.quotas.run, incoming, context.stream_id, start)
                self._lookups.add(incoming, client, begin_after_lookup(sharing, spec, admit, run))
                return
        self.quotas.begin(incoming, estimate, context.stream_id, client, start)

    def _begin(
        self, client: StreamResponse, context: StreamContext, spec: StreamSpec, view: View | None, *, wants_shared: bool
    ) -> None:
        """Starts the stream of an admitted request."""
        if spec.log_header is not None:
            log = self._publish(spec, context).log
            if wants_shared:
                set_cache_header(self._engine, client, spec.sharing)
            self._follow(log, client, view, spec.model.stream, is_first=True)
            return
        self._run(client, context, spec)
        if wants_shared:
            set_cache_header(self._engine, client, spec.sharing)

    def _run(self, client: StreamResponse, context: StreamContext, spec: StreamSpec) -> None:
        client.attach(self._engine.start(spec, client, context.stream_id, cast("Clock", context.clock)))

    def _answer_keyed(
        self,
        incoming: Incoming,
        negotiated: Negotiated,
        context: StreamContext,
        spec: StreamSpec,
        key: str,
        media_type: str,
        *,
        wants_shared: bool,
    ) -> None:
        begin = partial(self._publish, spec, context)
        answer = partial(self._follow_keyed, negotiated, spec, wants_shared)
        is_native = incoming.format.name == "gai"
        estimate = self.quotas.estimate(incoming, spec)
        claimed = self._keyed_request(incoming, key, estimate, context.stream_id, begin, answer, is_native=is_native)
        # After `_keyed_request`, which reads the body: the constructor of `StreamResponse` drops it.
        client = StreamResponse(incoming, context.stream_id, media_type, spec.model.stream, whole=spec.hold)
        if not spec.hold:
            client.format_headers = negotiated.headers
        self._keyed.answer(incoming, client, claimed)

    def _follow_keyed(
        self,
        negotiated: Negotiated,
        spec: StreamSpec,
        wants_shared: bool,
        log: StreamLog,
        response: StreamResponse,
        is_first: bool,
    ) -> None:
        """Answers a request with an idempotency key; with the first three arguments bound, a `Follow`.

        Raises:
            Error: `invalid_request`: the start of the stream is no longer kept.
        """
        if wants_shared and is_first:
            set_cache_header(self._engine, response, None)
        if log.lost and not is_first and (spec.hold or negotiated.name != NATIVE):
            raise expired()  # this form cannot express a gap at the start
        self._follow(log, response, _view(negotiated, spec, log.header), spec.model.stream, is_first=is_first)

    def _keyed_request(
        self,
        incoming: Incoming,
        key: str,
        estimate: Demand,
        stream_id: str,
        begin: Start,
        follow: Follow,
        *,
        is_native: bool,
    ) -> KeyedRequest:
        """Creates a request with an idempotency key; it is counted if it starts the stream."""
        start = partial(self.quotas.run, incoming, stream_id, begin)
        admit = self.quotas.admission(incoming, estimate, stream_id)
        return keyed(incoming, key, incoming.http.body, stream_id, admit, start, follow, is_native=is_native)

    def _publish(self, spec: StreamSpec, context: StreamContext) -> Publication:
        """Starts a durable stream."""
        publication = self._engine.durable.publish(spec, cast("Clock", context.clock))
        if spec.hold:
            context.metrics = publication.measured
        return publication

    def _publish_log(self, spec: StreamSpec, context: StreamContext) -> StreamLog:
        return self._publish(spec, context).log

    def _follow_chat(self, negotiated: Negotiated, spec: StreamSpec, log: StreamLog, response: StreamResponse) -> None:
        """Answers a request with the stream that it has started for its chat; once bound, a `chats.Follow`."""
        self._follow(log, response, _view(negotiated, spec, log.header), spec.model.stream, is_first=True)

    def _follow(
        self, log: StreamLog, client: StreamResponse, view: View | None, stream: StreamSettings, *, is_first: bool
    ) -> None:
        """Answers a request with a durable stream, from its start.

        Args:
            log: The stream's log.
            client: The response.
            view: The view to send; None for one JSON object.
            stream: The settings of the response.
            is_first: Whether the request has started the stream.
        """
        if view is None:
            whole = self._engine.durable.await_answer(log, client, is_first=is_first)
            client.attach(whole)
            whole.begin()
            return
        follower = self._engine.durable.follow(log, client, view, 0, stream, is_first=is_first, is_answer=True)
        client.attach(follower)
        follower.begin()


def _view(negotiated: Negotiated, spec: StreamSpec, header: LogHeader) -> View | None:
    """Returns the view of a durable stream for a client; None if the client gets one JSON object.

    Args:
        negotiated: The framing and format of the response.
        spec: The request's spec.
        header: The header of the log.

    Raises:
        InvalidRequest: The log cannot be sent in this form (406).
    """
    if not spec.hold:
        return view_of(header, form_of(negotiated, spec.model.stream), 0, _now_ms)
    if negotiated.name != header.format:
        text = f"this answer is kept in format {header.format!r}, and in no other form"
        raise Error("invalid_request", text, reason="not_acceptable", status=406)
    return None


def _accept(incoming: Incoming, stream: bool) -> str | None:
    """Returns the `Accept` header; None if the response is one JSON object, which has no framing."""
    return incoming.http.headers.get("accept") if stream else None


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
                return _read_dialect_request(incoming, dialect, body)
    return _apply_members(incoming, parse_request(incoming.json_body())), (), None


def _with_answering_format(negotiated: Negotiated, dialect_body: dict[str, Any]) -> Negotiated:
    """Returns the form of the response to a request in a dialect."""
    return Negotiated(negotiated.format.answer_format(dialect_body), negotiated.framing, negotiated.envelope)


def _read_dialect_request(
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
        incoming.request_id = request_id(request.request_id)
    if request.resumable and not request.stream:
        raise _needs_a_stream("`resumable`")
    return request


# Copied into this module: a lookup of another module's name costs 30 ns.
_KEY_HEADERS: Final[tuple[str, ...]] = KEY_HEADERS
_UNSET: Final = UNSET
_now_ms: Final = now_ms
_NO_DEMAND: Final = NO_DEMAND


def _key(incoming: Incoming, request: Request | None = None) -> str | None:
    """Returns the idempotency key of a request; None if it has none."""
    headers = incoming.http.headers
    member = None if request is None or request.idempotency_key is _UNSET else request.idempotency_key
    if member is None and not any(name in headers for name in _KEY_HEADERS):
        return None  # fast path for plain requests
    return key_of(headers, member)


def _start_body(incoming: Incoming, log: StreamLog) -> dict[str, Any]:
    """Returns the body of the response to a request that starts a stream without following it."""
    stream_id = log.header.stream_id
    prefix = incoming.http.target.partition("?")[0].removesuffix(incoming.path)
    return {"id": stream_id, "url": f"{prefix}{incoming.path}/{stream_id}"}


def _json_reply(incoming: Incoming, body: dict[str, Any], status: int, more: Headers) -> Reply:
    """Returns a response with a JSON object and additional headers."""
    reply = incoming.json_reply(body, status=status)
    reply.headers = [*reply.headers, *more]
    return reply


def _start_and_reply(
    client: StreamResponse, incoming: Incoming, begin: Start, body_of: _BodyOf, status: int, more: Headers
) -> None:
    """Starts the stream of a request, and answers the request."""
    client.reply(_json_reply(incoming, body_of(begin().log), status, more))


def _reply_keyed(
    incoming: Incoming, body_of: _BodyOf, status: int, log: StreamLog, response: StreamResponse, is_first: bool
) -> Reply:
    """Answers a request with an idempotency key; with the first three arguments bound, a `Follow`."""
    return _json_reply(incoming, body_of(log), status, response.headers)


def _background_body(dialect: Format, context: StreamContext, log: StreamLog) -> dict[str, Any]:
    """Returns the response object of a background request; with a key, the log may be of an earlier request."""
    return dialect.started_response(context) if log.header.stream_id == context.stream_id else response_of(log)


def _estimated_count(incoming: Incoming, asked: ClientRequest) -> Reply:
    """Returns the answer to a request for the number of its tokens, which is estimated."""
    dialect = incoming.format
    reply = incoming.json_reply(dialect.count_body(estimated_tokens(dialect.counted_characters(asked))))
    reply.headers = [*reply.headers, ("x-gai-usage-source", "estimated")]
    return reply


def _needs_a_stream(what: str) -> Error:
    text = f"{what} needs a stream: one JSON object comes whole or not at all"
    return Error("unsupported", text, reason="resumable")
