"""The requests that start streams: native, plain GET, for a chat, in a client's dialect, and token counts.

Owns how each kind is read, planned and answered with its stream. `specs.py` builds the specs, `gates.py` decides which
request may begin.
"""

from __future__ import annotations

import asyncio
from bisect import bisect
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec
from msgspec import UNSET

from gai_fast.core.processing.processor import StreamInfo
from gai_fast.core.requests.gateway_calls import ApprovalAnswer, is_own_approval, new_answers
from gai_fast.core.requests.reading import estimated_tokens, parse_object, parse_request, provider_blocks
from gai_fast.core.requests.stored_ids import StoredId
from gai_fast.core.requests.texts import Path, Text, names_tokens, texts_of, with_texts
from gai_fast.core.session import name_in_body
from gai_fast.formats import ClientRequest, Format, StreamContext, get_format, known_format
from gai_fast.formats.responses.chain import Written, own_items, written
from gai_fast.formats.responses.turn import body_of_turn, prepared_frames
from gai_fast.guards.active import ActiveGuard, Guards
from gai_fast.guards.input import LetThrough
from gai_fast.guards.outcomes import TOKENS, closed
from gai_fast.kernels import Piece, encode_json
from gai_fast.ledger import NO_DEMAND
from gai_fast.model.errors import Error
from gai_fast.model.metrics import AnswerSource, StreamMetrics
from gai_fast.model.request import CheckedBody, Request
from gai_fast.model.settings import DEMO, ModelSettings, Settings
from gai_fast.net.attempts.records import RequestRecord
from gai_fast.net.attempts.spec import Clock, Parse, StreamSpec
from gai_fast.net.engine.engine import Engine, when_both_done
from gai_fast.net.engine.uncounted import Uncounted
from gai_fast.net.logs.publication import Publication
from gai_fast.net.logs.view import NATIVE, View, view_of
from gai_fast.net.logs.writer import ClientCallbacks
from gai_fast.net.stream.new_texts import NewTexts
from gai_fast.providers import get_provider
from gai_fast.runtime.breathing import breathe
from gai_fast.runtime.clock import now_ms
from gai_fast.runtime.ids import request_id
from gai_fast.server.admission.further_models import check_further_models
from gai_fast.server.admission.negotiation import Negotiated, for_program, form_of, negotiate
from gai_fast.server.admission.run_requests import named_tools
from gai_fast.server.admission.stored_ids import ids_in_body, ids_in_raw
from gai_fast.server.http.replies import Headers, Reply
from gai_fast.server.limits import LIMITS
from gai_fast.server.requests.caching import HEADER, cache_header, wants_shared_answer
from gai_fast.server.requests.chains import Found, WholeRequest, whole
from gai_fast.server.requests.chats import chat_id_of
from gai_fast.server.requests.idempotency import KEY_HEADERS, expired, key_of
from gai_fast.server.requests.incoming import Incoming
from gai_fast.server.requests.keeping import AnswerKeeping, LoggedKeeping, keeping_again, keeping_of
from gai_fast.server.requests.passage import Passage
from gai_fast.server.requests.quotas import Quotas
from gai_fast.server.requests.responses import response_of
from gai_fast.server.requests.specs import SpecBuilder, check_translated, containers_of, is_large
from gai_fast.server.requests.stream_response import StreamResponse, session_headers
from gai_fast.stores import LogHeader, StreamLog
from gai_fast.stores.responses import RESPONSE_ITEMS

if TYPE_CHECKING:
    from gai_fast.net.runs.offers import RunTools, RunWish

_PARENT: Final = "previous_response_id"
_NO_INPUT: Final = "."
"""The input of a request without any, to check its other members."""
_ACCEPTED: Final = 202
_OK: Final = 200


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

    __slots__ = ("engine", "quotas", "specs", "uncounted")

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

    __slots__ = ("_client", "_context", "_home", "_negotiated", "_sent", "_size", "_unfollowed", "_view")

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


class NativePassage(StreamPassage):
    """`POST /api/v1/stream`, and a request over a WebSocket."""

    __slots__ = ("_dialect_body", "_left_out", "_request")

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
        if asked is _UNSET and _has_no_tools(settings, name):
            return None
        model = settings.chosen(name if isinstance(name, str) else None, key)
        if not model.tools and asked is _UNSET:
            return None
        return tools.wish(model, key, None if asked is _UNSET else asked)

    def plan(self) -> None:
        """Works as `Passage.plan`."""
        incoming, request = self.incoming, self._request
        self.key = key = _key(incoming, request)
        negotiated = incoming.form
        if negotiated is None:
            negotiated = negotiate(incoming.query, _accept(incoming, request.stream), default_format="gai")
        elif not request.stream:
            raise _needs_a_stream("a WebSocket")
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

    __slots__ = ()

    def plan(self) -> None:
        """Works as `Passage.plan`."""
        incoming, request = self.incoming, self._request
        if not request.stream:
            raise _needs_a_stream("this route")
        negotiated = negotiate(incoming.query, incoming.http.headers.get("accept"), default_format="gai")
        negotiated = self._answering(negotiated)
        self.key = _key(incoming, request)
        spec, context = self._spec(negotiated, is_durable=True)
        self._answers_unfollowed(negotiated, spec, context, _ACCEPTED)

    def _started_body(self, log: StreamLog) -> dict[str, Any]:
        incoming, stream_id = self.incoming, log.header.stream_id
        prefix = incoming.http.target.partition("?")[0].removesuffix(incoming.path)
        return {"id": stream_id, "url": f"{prefix}{incoming.path}/{stream_id}"}


class EventSourcePassage(NativePassage):
    """`GET /api/v1/stream?q=…` from a browser's `EventSource`, which does not resume."""

    __slots__ = ()

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


class ChatPassage(NativePassage):
    """`POST /api/v1/chat`: a durable stream that is also found by the id of its chat."""

    __slots__ = ("_body", "_chat_id")

    def read(self) -> None:
        """Works as `Passage.read`."""
        incoming = self.incoming
        self._body = parse_object(incoming.json_body())
        self._chat_id = chat_id_of(self._body)
        if is_large(incoming.http.body):
            self.rest = self._read
            return
        self._read()
        self.name_ids()

    def _read(self) -> None:
        incoming = self.incoming
        self._request, self._left_out, _ = _read_dialect_request(incoming, incoming.format, self._body)
        self.given = incoming.format.given_decisions(self._body)
        self._body = {}

    def plan(self) -> None:
        """Works as `Passage.plan`."""
        incoming, request = self.incoming, self._request
        if _key(incoming, request) is not None:
            raise Error("unsupported", "this route takes no idempotency key: a chat has its id", reason="chat")
        negotiated = negotiate(incoming.query, _accept(incoming, request.stream), default_format=incoming.format.name)
        if request.stream:
            self.chat = self._chat_id
        spec, context = self._spec(negotiated, is_durable=request.stream)
        self._answers_with_stream(negotiated, spec, context)


class DialectPassage(StreamPassage):
    """`POST /v1/chat/completions` and similar routes: a request in the dialect of the route's format."""

    __slots__ = ("_asked", "_generates")

    def __init__(self, incoming: Incoming, home: PassageHome) -> None:
        super().__init__(incoming, home)
        self._asked: ClientRequest  # from `read` on
        self._generates = True

    def read(self) -> None:
        """Works as `Passage.read`."""
        incoming = self.incoming
        body = parse_object(incoming.json_body())
        if incoming.newest is not None:
            body, self._generates = body_of_turn(body)
        self.key = _key(incoming)
        self._asked = asked = incoming.format.read_request(body)
        if asked.is_linked:
            self.linked = body
            return
        if is_large(incoming.http.body):
            self.rest = self._translation()
        if incoming.http.key is not None:
            self.named = _ids_in_body(self._home.specs.settings, incoming, asked.model, body)

    def may_go_up(self) -> bool:
        """Works as `Passage.may_go_up`."""
        return any(get_provider(each.upstream.provider).dialect == self.incoming.format.name for each in self._models())

    def join(self, body: dict[str, Any], found: Found) -> None:
        """Works as `Passage.join`."""
        incoming = self.incoming
        conversation = _joined(self, body, found)
        self._asked = asked = incoming.format.read_request(conversation.body)
        asked.marks = conversation.marks
        key = incoming.http.key
        if key is not None and key.limits.of_tokens:
            self._size = _size_of(conversation.body)
        if found.parent:
            asked.echo = {**(asked.echo or {}), "previous_response_id": found.parent}
        if is_large(incoming.http.body):
            self.rest = self._translation()
        if incoming.http.key is not None:
            self.named = _ids_in_body(self._home.specs.settings, incoming, asked.model, conversation.unknown)

    def named_model(self) -> str:
        """Works as `Passage.named_model`."""
        return _named_by(getattr(self, "_asked", None))

    def run_wish(self, tools: RunTools) -> RunWish | None:
        """Works as `Passage.run_wish`."""
        key, settings = self.incoming.http.key, self._home.specs.settings
        if _has_no_tools(settings, self._asked.model):
            return None
        model = settings.chosen(self._asked.model, key)
        return tools.wish(model, key) if model.tools and self._generates else None

    def plan(self) -> None:
        """Works as `Passage.plan`."""
        incoming, asked = self.incoming, self._asked
        is_unfollowed = asked.background and not asked.stream
        # A background response is logged in its route's own format: the query cannot choose another one.
        query = {} if is_unfollowed else incoming.query
        negotiated = incoming.form
        if negotiated is None:
            negotiated = negotiate(query, _accept(incoming, asked.stream), default_format=incoming.format.name)
            if negotiated.format.tells_programs_apart and asked.stream:
                negotiated = for_program(negotiated, incoming.http.headers.get("user-agent"))
        if not self._generates and asked.native is None and not asked.body.get("input"):
            asked.native = _parsed(incoming.format.parse_request, self._translated_body())
        specs, keeping = self._home.specs, self._keeping(negotiated)
        kept = None if keeping is None else keeping.answer
        spec, context = specs.of_dialect(
            incoming, asked, negotiated, is_durable=self.key is not None, kept=kept, key=self.key
        )
        spec.keeping = keeping
        header = spec.log_header
        if keeping is not None and header is not None and not spec.hold and self._generates:
            spec.keeping = LoggedKeeping(keeping, header)
        if is_unfollowed:
            self._answers_unfollowed(negotiated, spec, context, _OK)
        else:
            self._answers_with_stream(negotiated, spec, context)
        if not self._generates:
            self.demand, self.may_share = NO_DEMAND, False

    def guarded(self, guards: Guards) -> Sequence[ActiveGuard]:
        """Works as `Passage.guarded`."""
        looking = super().guarded(guards)
        if looking and self.incoming.format.has_tokens(self._asked.body):
            raise closed(looking[0].name, TOKENS)
        return looking

    def texts(self) -> Sequence[Text]:
        """Works as `Passage.texts`."""
        return self.incoming.format.texts(self._asked.body)

    def use_texts(self, new: NewTexts) -> None:
        """Works as `Passage.use_texts`. What the answer repeats is what its caller may have, as stores keep it."""
        incoming, before = self.incoming, self._asked
        self._asked = asked = _with_texts(incoming.format, before, new.sent, new.left_out)
        own = asked if new.kept is new.sent else _with_texts(incoming.format, before, new.kept, new.left_out)
        asked.echo = own.echo
        if before.echo is not None and _PARENT in before.echo:
            asked.echo = {**(own.echo or {}), _PARENT: before.echo[_PARENT]}
        self._use_own(own, before.body, new.left_out)
        if is_large(self._sent):
            self.rest = self._translation()

    def _use_own(self, own: ClientRequest, before: dict[str, Any], left_out: Collection[Path]) -> None:
        """Keeps another request than the one that is sent, where answers are kept.

        Args:
            own: The request as stores keep it.
            before: The body before.
            left_out: The places of what is left out of it.
        """

    def begin(self) -> Reply | None:
        """Works as `Passage.begin`."""
        if self._generates:
            return super().begin()
        client, spec = self._client, self.spec
        assert client is not None
        assert spec is not None
        frames = prepared_frames(self._negotiated.format.encoder(self._negotiated.framing, self._context))
        _Prepared(self._home.engine, spec, client, self.stream_id, frames).begin()
        return None

    def _keeping(self, negotiated: Negotiated) -> AnswerKeeping | None:
        """Returns how the answer is kept; None if it is not."""
        return None

    def _models(self) -> Sequence[ModelSettings]:
        """Returns the models that may answer."""
        settings = self._home.specs.settings
        return settings.may_answer(settings.chosen(self._asked.model, self.incoming.http.key))

    def _translation(self) -> Callable[[], None] | None:
        """Returns what translates a large body. None if no upstream that may answer has another dialect."""
        own = self.incoming.format.name
        if containers_of(self.incoming.http.body) > LIMITS.translated_containers:
            return None
        others = [each.upstream for each in self._models() if get_provider(each.upstream.provider).dialect != own]
        if not others:
            return None
        keeps = [each.attribution == "keep" for each in others]
        return partial(self._translate, is_cut=not all(keeps), is_kept=any(keeps))

    def _translate(self, *, is_cut: bool, is_kept: bool) -> None:
        """Translates the body.

        Args:
            is_cut: Whether an upstream gets it without the client's attribution.
            is_kept: Whether an upstream gets it with the attribution.
        """
        asked, dialect = self._asked, self.incoming.format
        body = self._translated_body()
        is_attributed = is_kept and dialect.without_attribution(body) is not body
        if is_cut or not is_attributed:
            asked.native = _parsed(dialect.parse_request, body)
        if is_attributed:
            asked.attributed = _parsed(dialect.parse_attributed, body)

    def _translated_body(self) -> dict[str, Any]:
        """Returns the body that is translated. Where nothing is generated, nothing needs a prompt."""
        body = self._asked.body_for(None)
        return body if self._generates or body.get("input") else {**body, "input": _NO_INPUT}

    def _started_body(self, log: StreamLog) -> dict[str, Any]:
        # With a key, the log may be of an earlier request.
        if log.header.stream_id != self.stream_id:
            return response_of(log)
        return self.incoming.format.started_response(self._context)


class _Prepared(ClientCallbacks):
    """A response that nothing is generated for: it counts as a request, and no upstream is asked.

    Args:
        engine: Counts it.
        spec: What its request asks for.
        client: The response.
        stream_id: Its stream's id.
        frames: All frames of it.
    """

    __slots__ = ("_client", "_engine", "_frames", "_spec", "_stream_id")

    def __init__(
        self, engine: Engine, spec: StreamSpec, client: StreamResponse, stream_id: str, frames: Sequence[Piece]
    ) -> None:
        self.metrics = None
        self._engine = engine
        self._spec = spec
        self._client: StreamResponse | None = client
        self._stream_id = stream_id
        self._frames = frames

    def begin(self) -> None:
        """Counts the request, and then sends the response.

        Raises:
            Error: There are too many streams.
        """
        engine, spec, client = self._engine, self._spec, self._client
        assert client is not None
        engine.begin_transfer(self._stream_id, spec.caller, self._fail)
        client.attach(self)
        self.metrics = self.measured()
        counted = engine.transfer_ended(self.metrics, spec.trace)
        keeping = spec.keeping
        if keeping is not None:
            counted = when_both_done(counted, keeping.ended(spec, is_left=False, is_refused=False))
        if counted is None:
            self._send()
        else:
            counted.add_done_callback(self._counted)

    def _counted(self, _counted: asyncio.Future[None]) -> None:
        self._send()

    def _send(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.commit()
            keeping = self._spec.keeping
            client.end(self._frames if keeping is None else keeping.last(self._frames))

    def _fail(self, error: Error) -> None:
        """Does nothing: it ends in the turn in which it begins."""

    @property
    def upstream_headers(self) -> Headers:
        """Always empty: no upstream is asked."""
        return ()

    @property
    def answered_by(self) -> AnswerSource | None:
        """Always None: no upstream is asked."""
        return None

    def measured(self) -> StreamMetrics:
        """Returns figures without a use of anything."""
        spec = self._spec
        return StreamMetrics(
            duration=0.0,
            model=spec.model.name,
            endpoint=spec.endpoint,
            transport=spec.transport,
            stream_id=self._stream_id,
            request_id=spec.request_id,
            trace_id=spec.trace_id,
            key=spec.caller,
        )

    def client_lost(self) -> None:
        """Sends nothing any more."""
        self._client = None

    def pause(self) -> None:
        """Does nothing: all of it is sent at once."""

    def resume(self) -> None:
        """Does nothing, as `pause`."""


class ResponsesPassage(DialectPassage):
    """`POST /v1/responses`: its answers are kept."""

    __slots__ = ("_own", "_written")

    def __init__(self, incoming: Incoming, home: PassageHome) -> None:
        super().__init__(incoming, home)
        self._own: ClientRequest | None = None  # as stores keep it, if that differs from what is sent
        self._written: Written | None = None  # the own items of a large request

    def run_wish(self, tools: RunTools) -> RunWish | None:
        """Works as `Passage.run_wish`: nothing is offered that the request does not name."""
        named = named_tools(self._asked.body) if self._generates else None
        if named is None:
            if any(is_own_approval(each.item) for each in self.answers()):
                raise _without_tools()
            return None
        key = self.incoming.http.key
        model = self._home.specs.settings.chosen(self._asked.model, key)
        return tools.wish(model, key, named.patterns, named.approve)

    def answers(self) -> Sequence[ApprovalAnswer]:
        """Works as `Passage.answers`."""
        items = self._asked.body.get("input")
        return new_answers(items) if self._generates and isinstance(items, list) else ()

    def plan_again(self, let: LetThrough) -> None:
        """Works as `Passage.plan_again`."""
        offer = self.incoming.run
        if offer is not None and offer.answered:
            from gai_fast.server.admission.approval_answers import with_reasons  # most requests have none

            offer.answered = with_reasons(offer.answered, self.answers())
        super().plan_again(let)

    def _translation(self) -> Callable[[], None]:
        """Returns what translates a large body, and writes its own items."""
        return partial(self._write, super()._translation())

    def _write(self, translate: Callable[[], None] | None) -> None:
        if translate is not None:
            translate()
        given = (self._own or self._asked).body.get("input") if self.turn is None else self.turn.own
        if isinstance(given, list):
            self._written = written(given, RESPONSE_ITEMS)

    def _use_own(self, own: ClientRequest, before: dict[str, Any], left_out: Collection[Path]) -> None:
        self._own, self._written = own, None
        turn, items = self.turn, own.body.get("input")
        if turn is None:
            return
        if not isinstance(items, list):
            self.turn = turn._replace(own=own_items(own.body))
            return
        first = len(before["input"]) - len(turn.own)  # they stand behind those of the turns before
        first -= len([path for path in left_out if _item_of(path) in range(first)])
        self.turn = turn._replace(own=items[first:])

    def _keeping(self, negotiated: Negotiated) -> AnswerKeeping | None:
        incoming = self.incoming
        if negotiated.name != incoming.format.name:
            return None  # another format has no id by which it could be found
        responses = self._home.engine.store.responses
        own, self._written = self._written, None
        asked = self._own or self._asked
        caller, generates = incoming.http.caller, self._generates
        return keeping_of(responses, caller, asked, self.turn, incoming.newest, own, generates=generates)


class CountPassage(StreamPassage):
    """`POST /v1/messages/count_tokens` and `POST /v1/responses/input_tokens`.

    An upstream of the dialect counts, if it can; else the count is estimated.
    """

    __slots__ = ("_asked", "_body", "_error", "_estimate", "_is_checked", "_model", "_session_headers")

    def __init__(self, incoming: Incoming, home: PassageHome) -> None:
        super().__init__(incoming, home)
        self._body: dict[str, Any]  # from `read` on
        self._asked: ClientRequest  # likewise
        self._error: Error | None = None
        self._is_checked = False
        self._estimate: Reply | None = None
        self._model: ModelSettings  # from `plan` on
        self._session_headers: Headers  # likewise

    def read(self) -> None:
        """Works as `Passage.read`."""
        incoming = self.incoming
        self._body = parse_object(incoming.json_body())
        self._asked = incoming.format.read_request(self._body)
        if self._asked.is_linked:
            self.linked = self._body
            return
        if is_large(incoming.http.body) and self._is_estimated(self._chosen()):
            self.rest = self._check
        if incoming.http.key is not None:
            self.named = _ids_in_body(self._home.specs.settings, incoming, self._asked.model, self._body)

    def may_go_up(self) -> bool:
        """Works as `Passage.may_go_up`."""
        return not self._is_estimated(self._chosen())

    def join(self, body: dict[str, Any], found: Found) -> None:
        """Works as `Passage.join`."""
        incoming = self.incoming
        conversation = _joined(self, body, found)
        self._asked = incoming.format.read_request(conversation.body)
        self._asked.marks = conversation.marks
        is_estimated = self._is_estimated(self._chosen())
        self._body = self._asked.body_for(None if is_estimated else self._provider())
        if is_large(incoming.http.body) and is_estimated:
            self.rest = self._check
        if incoming.http.key is not None:
            self.named = _ids_in_body(self._home.specs.settings, incoming, self._asked.model, conversation.unknown)

    def named_model(self) -> str:
        """Works as `Passage.named_model`."""
        return _named_by(getattr(self, "_asked", None))

    def plan(self) -> None:
        """Works as `Passage.plan`."""
        incoming, body, home = self.incoming, self._body, self._home
        self._keep_body()
        model = self._chosen()
        check_further_models(body, incoming.http.key)
        session = incoming.session(name_in_body(body))
        self._session_headers = session_headers("" if session is None else session.digest)
        place = home.engine.targets.home(model, session, body, incoming.http.caller)
        self._model = model = home.engine.targets.with_target(model, place, incoming.http.caller)
        if self._is_estimated(model):
            if not self._is_checked:
                self._check()
            if self._error is not None:
                raise self._error
            self._estimate = self._estimated()
            return
        if home.uncounted.has(model, incoming.path):
            self._estimate = self._estimated()
            return
        spec, context = home.specs.count(incoming, body, model, session, place)
        self.spec, self._context = spec, context
        self.stream_id = context.stream_id
        self._client = StreamResponse(incoming, context.stream_id, "application/json", model.stream, whole=True)
        self._client.headers = self._session_headers
        self._client.instead = self._count_instead

    def texts(self) -> Sequence[Text]:
        """Works as `Passage.texts`."""
        return self.incoming.format.texts(self._body)

    def use_texts(self, new: NewTexts) -> None:
        """Works as `Passage.use_texts`."""
        self._body = with_texts(self._body, new.sent, new.left_out)
        self._asked = self.incoming.format.read_request(self._body)
        self._is_checked, self._error, self._estimate = False, None, None
        if is_large(self._sent) and self._is_estimated(self._chosen()):
            self.rest = self._check

    def info(self) -> StreamInfo:
        """Works as `Passage.info`."""
        return StreamInfo(self.stream_id, model=self._model.name, caller=self.incoming.http.caller)

    def _chosen(self) -> ModelSettings:
        return self._home.specs.settings.chosen(self._asked.model, self.incoming.http.key)

    def _provider(self) -> str:
        return get_provider(self._chosen().upstream.provider).provider

    def _is_estimated(self, model: ModelSettings) -> bool:
        """Returns whether the upstream of a model counts no tokens of this dialect."""
        api = get_provider(model.upstream.provider)
        return api.dialect != self.incoming.format.name or not api.count_path

    def _check(self) -> None:
        """Checks a request whose tokens are estimated: one that would be refused has no count."""
        self._is_checked = True
        try:
            check_translated(containers_of(self.incoming.http.body))
            self.incoming.format.parse_request(self._body)
        except Error as error:
            self._error = error

    def _count_instead(self, error: Error) -> Reply | None:
        """Returns an estimate in place of an upstream's error that means that it counts none. None for other errors."""
        home, model = self._home, self._model
        is_configured = model.name in home.specs.settings.models
        is_missing = home.uncounted.refused(model, self.incoming.path, error, is_configured=is_configured)
        return self._estimated() if is_missing else None

    def _estimated(self) -> Reply:
        """Returns the response with an estimate."""
        dialect = self.incoming.format
        reply = self.incoming.json_reply(dialect.count_body(estimated_tokens(dialect.counted_characters(self._asked))))
        reply.headers = [*reply.headers, ("x-gai-usage-source", "estimated"), *self._session_headers]
        return reply

    def begin(self) -> Reply | None:
        """Works as `Passage.begin`."""
        return super().begin() if self._estimate is None else self._estimate


def _with_texts(
    dialect: Format, asked: ClientRequest, texts: Mapping[Path, Any], left_out: Collection[Path]
) -> ClientRequest:
    """Returns a request in a client's dialect with other texts; as `with_texts`."""
    new = dialect.read_request(with_texts(asked.body, texts, left_out))
    if asked.marks:
        gone = sorted([at for path in left_out if (at := _item_of(path)) is not None])
        new.marks = [
            mark._replace(place=mark.place - bisect(gone, mark.place)) for mark in asked.marks if mark.place not in gone
        ]
    return new


def _without_tools() -> Error:
    text = "mcp_approval_response: name the tools of the call in `tools`, as the request did that has asked"
    return Error("invalid_request", text, reason="approval")


def _item_of(path: Path) -> int | None:
    """Returns the place in `input` that a path leads to. None if it leads elsewhere."""
    at = path[1] if len(path) == 2 and path[0] == "input" else None
    return at if isinstance(at, int) else None


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
        incoming.http.request_id = request_id(request.request_id)
    if request.resumable and not request.stream:
        raise _needs_a_stream("`resumable`")
    return request


def _named_by(asked: ClientRequest | None) -> str:
    """Returns the model that a request in a dialect names; empty if it names none, or has not been read."""
    return "" if asked is None else asked.model or ""


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


def _ids_in_body(settings: Settings, incoming: Incoming, model: str | None, body: dict[str, Any]) -> Sequence[StoredId]:
    """Returns the ids in a request of a dialect, or in a part of it, that its caller must own."""
    return ids_in_body(settings, settings.chosen(model, incoming.http.key), incoming.format.name, body)


def _is_usual_by_default(settings: Settings) -> bool:
    """Returns whether the default model is a usual one, which costs money. Any web page can send a GET: it gets the
    demo."""
    model = settings.model(None) if settings.default_model is None and DEMO in settings.models else None
    return model is not None and settings.usual.get(model.id) == model.name


def _has_no_tools(settings: Settings, name: Any) -> bool:
    """Returns whether a configured model may use no tools. `Settings.chosen` takes 1,200 instructions a request."""
    model = settings.models.get(name)
    return model is not None and not model.tools


def _size_of(body: dict[str, Any]) -> int:
    """Returns the bytes of a body as JSON."""
    size = len(encode_json({name: value for name, value in body.items() if name != "input"}))
    given = body.get("input")
    for item in given if isinstance(given, list) else (given,):
        breathe()
        size += len(encode_json(item)) + 1
    return size


def _joined(passage: Passage, body: dict[str, Any], found: Found) -> WholeRequest:
    """Returns a request with its whole conversation, and notes its size."""
    http = passage.incoming.http
    conversation = whole(body, http.body, found)
    checked = CheckedBody(http.body)
    checked.containers = conversation.containers
    http.body = checked
    passage.turn = conversation.turn
    return conversation


# Copied into this module: a lookup of another module's name costs 30 ns.
_KEY_HEADERS: Final[tuple[str, ...]] = KEY_HEADERS
_UNSET: Final = UNSET
_now_ms: Final = now_ms


def _parsed(parse: Parse, body: dict[str, Any]) -> tuple[Request, list[str]] | Error:
    """Returns a translated body, or its error: of the models that may answer, the first may need no translation."""
    try:
        return parse(body)
    except Error as error:
        return error


def _key(incoming: Incoming, request: Request | None = None) -> str | None:
    """Returns the idempotency key of a request; None if it has none."""
    headers = incoming.http.headers
    member = None if request is None or request.idempotency_key is _UNSET else request.idempotency_key
    if member is None and not any(name in headers for name in _KEY_HEADERS):
        return None  # fast path for plain requests
    return key_of(headers, member)


def _needs_a_stream(what: str) -> Error:
    text = f"{what} needs a stream: one JSON object comes whole or not at all"
    return Error("unsupported", text, reason="resumable")
