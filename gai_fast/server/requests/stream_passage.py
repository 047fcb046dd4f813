"""Requests that start streams: what all kinds of them have in common.

Owns how such a request is answered with its stream. `kinds/` has how each kind is read and planned, `specs.py` builds
the specs, `gates.py` decides which request may begin.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, cast

from msgspec import UNSET

from gai_fast.core.processing.processor import StreamInfo
from gai_fast.formats import ClientRequest, StreamContext
from gai_fast.formats.responses.chain import Written
from gai_fast.guards.active import ActiveGuard, Guards
from gai_fast.guards.input import LetThrough
from gai_fast.model.errors import Error
from gai_fast.model.request import Request
from gai_fast.model.settings import ModelSettings, Settings
from gai_fast.net.attempts.records import RequestRecord
from gai_fast.net.attempts.spec import Clock, StreamSpec
from gai_fast.net.engine.engine import Engine
from gai_fast.net.engine.uncounted import Uncounted
from gai_fast.net.logs.publication import Publication
from gai_fast.net.logs.view import NATIVE, View, view_of
from gai_fast.runtime.clock import now_ms
from gai_fast.server.admission.negotiation import Negotiated, form_of
from gai_fast.server.http.replies import Headers, Reply
from gai_fast.server.limits import LIMITS
from gai_fast.server.requests.caching import HEADER, cache_header, wants_shared_answer
from gai_fast.server.requests.idempotency import KEY_HEADERS, expired, key_of
from gai_fast.server.requests.incoming import Incoming
from gai_fast.server.requests.keeping import AnswerKeeping, LoggedKeeping, keeping_again
from gai_fast.server.requests.passage import Passage
from gai_fast.server.requests.quotas import Quotas
from gai_fast.server.requests.specs import SpecBuilder, is_large
from gai_fast.server.requests.stream_response import StreamResponse, session_headers
from gai_fast.stores import LogHeader, StreamLog

# Copied into this module: a lookup of another module's name costs 30 ns.
_KEY_HEADERS: Final[tuple[str, ...]] = KEY_HEADERS
_UNSET: Final = UNSET
_now_ms: Final = now_ms


class PassageHome:
    """The objects that all requests of a server use.

    Args:
        engine: Runs the streams.

    Attributes:
        engine: As above.
        specs: Builds specs, by the configuration for new requests.
        quotas: Estimates what requests use.
        uncounted: Remembers which upstreams count no tokens.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.specs = SpecBuilder(engine)
        self.quotas = Quotas(engine)
        self.uncounted = Uncounted(engine.timers.clock)
        engine.takeovers.of_route = self.taken_over

    def taken_over(
        self,
        asked: ClientRequest,
        header: LogHeader,
        model: ModelSettings,
        kept: RequestRecord,
        let: LetThrough | None,
        own: Written | None,
    ) -> tuple[StreamSpec, StreamContext]:
        """Makes the spec of a request whose worker is gone; as `OfRoute`."""
        route = kept.route
        assert route is not None
        keeping: AnswerKeeping | None = None
        if route.kept is not None and own is not None:
            keeping = keeping_again(self.engine.store.responses, header, route.kept, own)
        answer = None if keeping is None else keeping.answer
        spec, context = self.specs.of_record(asked, header, model, kept, route, let, answer)
        spec.keeping = LoggedKeeping(keeping, header) if keeping is not None and not spec.hold else keeping
        return spec, context


class StreamPassage(Passage):
    """A request that starts a stream.

    Args:
        incoming: The request.
        home: What all requests need.
    """

    def __init__(self, incoming: Incoming, home: PassageHome) -> None:
        super().__init__(incoming)
        self._home = home
        self._client: StreamResponse | None = None
        self._context: StreamContext  # from `plan` on
        self._negotiated: Negotiated  # likewise
        self._view: View | None = None
        self._size = 0  # as for `Quotas.estimate`
        self._unfollowed = 0  # the status of a response with a JSON object, if no client follows the stream yet
        self._sent = b""  # the body as it came, if it may be planned again

    def _answers_with_stream(self, negotiated: Negotiated, spec: StreamSpec, context: StreamContext) -> None:
        """Ends the plan of a request that is answered with its stream."""
        incoming = self.incoming
        self._plan_stream(negotiated, spec, context)
        self.may_share = self.key is None and not self.chat and spec.run is None
        if spec.log_header is not None:
            self._view = _view(negotiated, spec, spec.log_header)
        media_type = "application/json" if spec.hold else negotiated.media_type
        # Last: the constructor drops the request's body.
        client = StreamResponse(incoming, context.stream_id, media_type, spec.model.stream, whole=spec.hold)
        self._client = client
        if spec.session is not None:
            client.headers = session_headers(spec.session.digest)
        if not spec.hold:
            client.format_headers = negotiated.headers
        elif spec.log_header is None:
            context.metrics = client.measured
            client.whole_media_type = negotiated.format.whole_media_type

    def _answers_unfollowed(
        self, negotiated: Negotiated, spec: StreamSpec, context: StreamContext, status: int
    ) -> None:
        """Ends the plan of a request whose stream no client follows yet."""
        self._plan_stream(negotiated, spec, context)
        self._client = None  # an earlier one says nothing of the stream
        self._unfollowed = status

    def _plan_stream(self, negotiated: Negotiated, spec: StreamSpec, context: StreamContext) -> None:
        incoming = self.incoming
        self.spec, self._context, self._negotiated = spec, context, negotiated
        self.stream_id = context.stream_id
        # Also reached by plain requests: a call into `caching.py`, which is not compiled, costs 0.2 us.
        has_header = HEADER in incoming.key_headers
        self.wants_shared = wants_shared_answer(incoming, spec.model) if has_header else spec.model.cache
        if spec.run is not None:
            self.wants_shared = False
        elif self.wants_shared and self._takes_credentials(spec.model):
            self.wants_shared = False  # what a caller's own credential has paid for is its own
        if incoming.http.key is not None:
            self.demand = self._home.quotas.estimate(incoming, spec, self._size)
        if self.key is not None and not incoming.stream_id:
            self.body = incoming.http.body
        self._keep_body()

    def _keep_body(self) -> None:
        """Keeps the body for `plan_again`: a response drops it."""
        if self._home.engine.guards is not None:
            self._sent = self.incoming.http.body

    def guarded(self, guards: Guards) -> Sequence[ActiveGuard]:
        """Works as `Passage.guarded`."""
        held = guards.for_request(self.info().model, self.incoming.http.caller)
        return [each for each in held if each.sees("input")]

    def info(self) -> StreamInfo:
        """Works as `Passage.info`."""
        return StreamInfo(self.stream_id, model=self._context.model, caller=self.incoming.http.caller)

    @property
    def is_long(self) -> bool:
        """Works as `Passage.is_long`. A conversation of earlier turns may have any size."""
        sent = self._sent
        return len(sent) > LIMITS.checked_bytes or self.turn is not None or is_large(sent)

    def plan_again(self, let: LetThrough) -> None:
        """Works as `Passage.plan_again`."""
        incoming = self.incoming
        incoming.let, incoming.stream_id = let, self.stream_id
        incoming.http.body, self._sent = self._sent, b""
        self.plan()

    def _takes_credentials(self, model: ModelSettings) -> bool:
        """Returns whether a caller's own credential may be sent for an answer of a model."""
        settings = self._home.specs.settings
        return settings.takes_credentials and any(
            each.upstream.takes_credentials for each in settings.may_answer(model)
        )

    def response(self) -> StreamResponse:
        """Works as `Passage.response`."""
        client = self._client
        if client is None:
            incoming, spec = self.incoming, self.spec
            body = incoming.http.body
            stream = self._home.engine.settings.stream if spec is None else spec.model.stream
            client = StreamResponse(incoming, self.stream_id, "application/json", stream, whole=not self.given)
            if spec is None:
                incoming.http.body = body  # not read yet
            self._client = client
        return client

    def begin(self) -> Reply | None:
        """Works as `Passage.begin`."""
        spec, client, engine = self.spec, self._client, self._home.engine
        assert spec is not None
        if self._unfollowed:
            publication = self._publish(spec)
            publication.await_follower()
            self.incoming.http.started = publication.metrics
            return self._json_reply(publication.log, cache_header(engine, None) if self.wants_shared else ())
        assert client is not None
        if spec.log_header is not None:
            log = self._publish(spec).log
            if self.wants_shared:
                client.headers = [*client.headers, *cache_header(engine, spec.sharing)]
            self._follow(log, self._view, is_first=True)
            return None
        client.attach(engine.start(spec, client, self.stream_id, cast("Clock", self._context.clock)))
        if self.wants_shared:
            client.headers = [*client.headers, *cache_header(engine, spec.sharing)]
        return None

    def follow(self, log: StreamLog) -> Reply | None:
        """Works as `Passage.follow`.

        Raises:
            Error: `invalid_request`: the start of the stream is no longer kept.
        """
        spec, negotiated = self.spec, self._negotiated
        assert spec is not None
        if self._unfollowed:
            return self._json_reply(log, self.response().headers)
        if log.lost and (spec.hold or negotiated.name != NATIVE):
            raise expired()  # this form cannot express a gap at the start
        self._follow(log, _view(negotiated, spec, log.header), is_first=False)
        return None

    def _publish(self, spec: StreamSpec) -> Publication:
        """Starts a durable stream."""
        context = self._context
        publication = self._home.engine.durable.publish(spec, cast("Clock", context.clock))
        if spec.hold:
            context.metrics = publication.measured
        self.log = publication.log
        return publication

    def _follow(self, log: StreamLog, view: View | None, *, is_first: bool) -> None:
        """Answers with a durable stream, from its start.

        Args:
            log: The stream's log.
            view: The view to send; None for one JSON object.
            is_first: Whether the request has started the stream.
        """
        client, spec, durable = self.response(), self.spec, self._home.engine.durable
        assert spec is not None
        if view is None:
            whole = durable.await_answer(log, client, is_first=is_first)
            client.attach(whole)
            whole.begin()
            return
        follower = durable.follow(log, client, view, 0, spec.model.stream, is_first=is_first, is_answer=True)
        client.attach(follower)
        follower.begin()

    def _json_reply(self, log: StreamLog, more: Headers) -> Reply:
        reply = self.incoming.json_reply(self._started_body(log), status=self._unfollowed)
        session = None if self.spec is None else self.spec.session
        named = () if session is None else session_headers(session.digest)
        reply.headers = [*reply.headers, *more, *named]
        return reply

    def _started_body(self, log: StreamLog) -> dict[str, Any]:
        """Returns the JSON object for a stream that no client follows yet."""
        raise NotImplementedError


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


def accept_of(incoming: Incoming, stream: bool) -> str | None:
    """Returns the `Accept` header; None if the response is one JSON object, which has no framing."""
    return incoming.http.headers.get("accept") if stream else None


def has_no_tools(settings: Settings, name: Any) -> bool:
    """Returns whether a configured model may use no tools. `Settings.chosen` takes 1,200 instructions a request."""
    model = settings.models.get(name)
    return model is not None and not model.tools


def key_in(incoming: Incoming, request: Request | None = None) -> str | None:
    """Returns the idempotency key of a request; None if it has none."""
    headers = incoming.http.headers
    member = None if request is None or request.idempotency_key is _UNSET else request.idempotency_key
    if member is None and not any(name in headers for name in _KEY_HEADERS):
        return None  # fast path for plain requests
    return key_of(headers, member)


def needs_a_stream(what: str) -> Error:
    text = f"{what} needs a stream: one JSON object comes whole or not at all"
    return Error("unsupported", text, reason="resumable")
