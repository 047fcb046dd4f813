"""The handlers of the routes that stream: native, plain GET, a client's dialect, cancel.

Owns the way from a request to a spec, and the response of a stream. Does not read the content of the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, cast

from msgspec import UNSET

from gai_fast._impl import Piece, encode_json
from gai_fast.clock import now_ms
from gai_fast.errors import Error
from gai_fast.formats import (
    ClientRequest,
    Encoder,
    Format,
    PassthroughEncoder,
    StreamContext,
    StreamEncoder,
)
from gai_fast.ids import new_stream_id, request_id
from gai_fast.limits import LIMITS
from gai_fast.metrics import StreamMetrics
from gai_fast.net.engine import Engine
from gai_fast.net.spec import Clock, Output, StreamSpec
from gai_fast.net.writer import ResponseWriter
from gai_fast.processors import Chain
from gai_fast.providers import get_provider
from gai_fast.reading import characters, parse_object, parse_request
from gai_fast.relay import DeltaSink
from gai_fast.request import Request
from gai_fast.server.incoming import Incoming
from gai_fast.server.negotiation import Negotiated, negotiate
from gai_fast.server.replies import Reply, StreamHead, id_headers, json_headers
from gai_fast.settings import ModelSettings, Settings
from gai_fast.stores import LogHeader


class StreamRoutes:
    """Handlers over one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._settings = engine.settings

    def use(self, settings: Settings) -> None:
        """Answers by another configuration from now on."""
        self._settings = settings

    # -- routes --

    def native(self, incoming: Incoming) -> None:
        """`POST /api/v1/stream`."""
        request = parse_request(incoming.json_body())
        if isinstance(request.request_id, str) and "x-request-id" not in incoming.http.headers:
            incoming.request_id = request_id(request.request_id)
        _refuse_later_features(incoming, request)
        negotiated = negotiate(incoming.query, _accept(incoming, request.stream), default_format="gai")
        self._answer_native(incoming, request, negotiated, ids=request.resumable, kept=request.resumable)

    def start(self, incoming: Incoming) -> Reply:
        """`POST /api/v1/streams`: not supported yet; it needs the log of durable streams."""
        raise Error("unsupported", "streams that are not followed are not supported yet", reason="resumable")

    def event_source(self, incoming: Incoming) -> Reply | None:
        """`GET /api/v1/stream?q=…`, for a browser's plain `EventSource`."""
        if incoming.is_foreign:
            raise Error("forbidden", "a page of another origin may not start a stream", reason="origin")
        query = incoming.query.get("q")
        if not query:
            raise Error("invalid_request", "the query parameter `q` is missing", reason="query")
        model = self._settings.chosen(incoming.query.get("model"))
        is_demo = bool(get_provider(model.upstream.provider).recording)
        if not is_demo and not self._settings.server.allow_get_start:
            raise Error("forbidden", "a GET starts no stream here (see allow_get_start)", reason="get_start")
        if "last-event-id" in incoming.http.headers:
            # An EventSource reconnects after every end. Only 204 stops it, and a reconnect must never generate again.
            return Reply(204, headers=[*incoming.cors, *id_headers(incoming.request_id)])
        negotiated = negotiate(incoming.query, incoming.http.headers.get("accept"), default_format="gai")
        # The frames have ids, but there is no log: such streams cannot be followed yet.
        self._answer_native(incoming, Request(query=query, model=model.name), negotiated, ids=True, kept=False)
        return None

    def dialect(self, incoming: Incoming) -> None:
        """`POST /v1/chat/completions`, and its like: a request in the dialect of the route's format."""
        body = parse_object(incoming.json_body())
        _refuse_idempotency(incoming)
        dialect = incoming.format
        asked = dialect.read_request(body)
        negotiated = negotiate(incoming.query, _accept(incoming, asked.stream), default_format=dialect.name)
        model = self._settings.chosen(asked.model)
        context = self._context(incoming, negotiated, model, usage=asked.wants_usage or model.stream.usage == "always")
        self._answer(
            incoming, negotiated, context, self._dialect_spec(incoming, dialect, asked, negotiated, context, model)
        )

    def _dialect_spec(
        self,
        incoming: Incoming,
        dialect: Format,
        asked: ClientRequest,
        negotiated: Negotiated,
        context: StreamContext,
        model: ModelSettings,
        before: StreamSpec | None = None,
    ) -> StreamSpec:
        """The spec of a client that speaks a dialect; its own bytes pass through where the upstream speaks it too.

        Args:
            incoming: The client's request.
            dialect: The format whose requests the client sends.
            asked: That request.
            negotiated: The framing and format of the answer.
            context: The stream.
            model: The model to ask.
            before: The spec for a model that failed after its answer had begun: its encoders write this answer too.
        """
        whole = not asked.stream
        frames = self._passthrough(asked, negotiated, context, model, before)
        left_out: Sequence[str] = ()
        if frames is not None:
            asks_for_usage = context.usage and not whole and get_provider(model.upstream.provider).stream_options
            request: Request | dict[str, Any] = dialect.with_usage(asked.body) if asks_for_usage else asked.body
            output: Output = frames
            deltas: DeltaSink | None = None if whole else cast("StreamEncoder", frames)
            chain: Chain | None = None
        else:
            request, left_out = dialect.parse_request(asked.body)
            output, deltas, chain = self._translation(request, negotiated, context, before, whole=whole)
        return StreamSpec(
            model,
            request,
            output,
            deltas,
            frames,
            hold=whole,
            announces=whole or negotiated.format.announces,
            dialect=negotiated.format.name,
            left_out=left_out,
            prompt_characters=asked.prompt_characters,
            is_retry=_is_retry(incoming),
            other=lambda other, begun: self._dialect_spec(incoming, dialect, asked, negotiated, context, other, begun),
            caller=incoming.caller,
            chain=chain,
            request_id=incoming.request_id,
            trace_id=incoming.trace_id,
            endpoint=incoming.path,
            transport="json" if whole else negotiated.framing,
        )

    def _passthrough(
        self,
        asked: ClientRequest,
        negotiated: Negotiated,
        context: StreamContext,
        model: ModelSettings,
        before: StreamSpec | None,
    ) -> PassthroughEncoder | None:
        """The encoder that passes the upstream's bytes on; `None` where they must be processed or translated."""
        if (
            get_provider(model.upstream.provider).dialect != negotiated.format.name
            or model.stream.on_midstream_failure == "continue"
            or self._engine.is_processed(wants_json=asked.wants_json)
        ):
            return None
        if before is not None:
            return cast("PassthroughEncoder | None", before.frames)
        return negotiated.format.passthrough(negotiated.framing, context, whole=not asked.stream)

    def _translation(
        self,
        request: Request,
        negotiated: Negotiated,
        context: StreamContext,
        before: StreamSpec | None,
        *,
        whole: bool,
    ) -> tuple[Output, DeltaSink | None, Chain | None]:
        """The encoder for an upstream of another dialect; the same again where it copies deltas; the processors."""
        if before is not None and before.frames is None:
            return before.output, before.deltas, before.chain
        output, deltas = _encoder(negotiated, context, whole=whole)
        if before is not None:
            # The copied frames hold the role already. SDKs would join a second one to it.
            output.event({"type": "start"})
            output.take()
        return output, deltas, self._chain(request, context)

    def _chain(self, request: Request, context: StreamContext) -> Chain | None:
        return self._engine.chain(request, context.stream_id, context.request_id, context.trace_id, context.model)

    def follow(self, incoming: Incoming) -> Reply:
        """`GET /api/v1/streams/{id}`: not supported yet; it needs the log as well."""
        self._check_runs(incoming)
        raise Error("unsupported", "streams cannot be followed by their id yet", reason="resumable")

    def cancel(self, incoming: Incoming) -> Reply:
        """`DELETE /api/v1/streams/{id}`."""
        self._check_runs(incoming)
        self._engine.cancel(incoming.tail)
        return json_reply(incoming, {"id": incoming.tail, "state": "cancelled"}, status=202)

    def _check_runs(self, incoming: Incoming) -> None:
        if incoming.tail not in self._engine.streams:
            raise Error("not_found", "there is no such stream, or it has ended", reason="stream")

    # -- from a request to a stream --

    def _answer_native(
        self, incoming: Incoming, request: Request, negotiated: Negotiated, *, ids: bool, kept: bool
    ) -> None:
        model = self._settings.chosen(request.model if isinstance(request.model, str) else None)
        context = self._context(incoming, negotiated, model, ids=ids)
        output, deltas = _encoder(negotiated, context, whole=not request.stream)
        spec = StreamSpec(
            model,
            request,
            output,
            deltas,
            hold=not request.stream,
            announces=not request.stream or negotiated.format.announces,
            dialect=negotiated.format.name,
            prompt_characters=characters(request),
            is_retry=_is_retry(incoming),
            caller=incoming.caller,
            log_header=_log_header(negotiated, context) if kept else None,
            chain=self._chain(request, context),
            request_id=incoming.request_id,
            trace_id=incoming.trace_id,
            endpoint=incoming.path,
            transport=negotiated.framing if request.stream else "json",
        )
        self._answer(incoming, negotiated, context, spec)

    def _context(
        self, incoming: Incoming, negotiated: Negotiated, model: ModelSettings, *, usage: bool = True, ids: bool = False
    ) -> StreamContext:
        return StreamContext(
            stream_id=new_stream_id(),
            request_id=incoming.request_id,
            trace_id=incoming.trace_id,
            model=model.name,
            clock=Clock(now_ms),
            envelope=negotiated.envelope or model.stream.envelope,
            timestamps=model.stream.timestamps,
            ids=ids,
            retry_ms=LIMITS.reconnect_ms if ids else None,
            usage=usage,
        )

    def _answer(self, incoming: Incoming, negotiated: Negotiated, context: StreamContext, spec: StreamSpec) -> None:
        media_type = "application/json" if spec.hold else negotiated.format.media_type(negotiated.framing)
        client = StreamResponse(incoming, context, spec, media_type)
        if spec.hold:
            context.metrics = client.measured
        client.attach(self._engine.start(spec, client, context.stream_id, cast("Clock", context.clock)))


def _encoder(negotiated: Negotiated, context: StreamContext, *, whole: bool) -> tuple[Encoder, StreamEncoder | None]:
    """The encoder of an answer; the same again where it copies deltas."""
    if whole:
        return negotiated.format.whole(context), None
    encoder = negotiated.format.encoder(negotiated.framing, context)
    return encoder, encoder


def _log_header(negotiated: Negotiated, context: StreamContext) -> LogHeader:
    return LogHeader(
        context.stream_id,
        "anonymous",
        context.model,
        negotiated.format.name,
        negotiated.framing,
        context.envelope,
        context.request_id,
        context.trace_id,
    )


class SessionCallbacks(Protocol):
    """The part of `Session` that the response of a stream calls."""

    @property
    def metrics(self) -> StreamMetrics | None:
        """The figures of the stream, once it has ended."""

    def measured(self) -> StreamMetrics:
        """The figures so far."""

    def client_lost(self) -> None:
        """The client is gone."""

    def pause(self) -> None:
        """The client is slow."""

    def resume(self) -> None:
        """The client has caught up."""


class StreamResponse(ResponseWriter):
    """The response of one stream: a `Client` of the session, and the `StreamCallbacks` of its client's transport."""

    __slots__ = ("_client", "_has_ended", "_incoming", "_is_whole", "_media_type", "_session", "_stream_id")

    def __init__(self, incoming: Incoming, context: StreamContext, spec: StreamSpec, media_type: str) -> None:
        client = incoming.http.transport
        super().__init__(client)
        self._client = client
        self._incoming = incoming
        self._stream_id = context.stream_id
        self._media_type = media_type
        self._is_whole = spec.hold
        self._has_ended = False
        self._session: SessionCallbacks | None = None
        stream = spec.model.stream
        client.begin_stream(self, high_water=stream.client_buffer, write_timeout=stream.write_timeout)

    def attach(self, session: SessionCallbacks) -> None:
        """Connects the session that has been started; it may have ended already."""
        if self._has_ended:
            return
        self._session = session
        if self._client.is_paused:
            session.pause()

    def measured(self) -> dict[str, Any]:
        """The figures so far."""
        return {} if self._session is None else self._session.measured().as_dict()

    # -- Client --

    def commit(self) -> None:
        """Commits the head of a stream; a whole answer is sent at its end."""
        if not self._is_whole:
            head, framing = self._client.commit(self._response_head())
            self.start(head, framing)

    def end(self, pieces: Sequence[Piece]) -> None:
        """Writes the last bytes and ends the answer."""
        if self._is_whole:
            self._detach()
            self._client.send(Reply(200, b"".join(pieces), self._response_head().headers))
        else:
            super().end(pieces)
            self._detach()
            self._client.answered(200)

    def fail(self, error: Error) -> None:
        """Answers with an error instead of a stream."""
        self._detach()
        self._client.send(self._incoming.refusal(error, [("x-gai-stream-id", self._stream_id)]))

    def abort(self, error: Error) -> None:
        """Cuts the client off: the response broke off and must not look complete."""
        self._detach()
        self._client.abort()

    def _detach(self) -> None:
        """Leaves the session, which has ended; its figures belong to the request now."""
        self._has_ended = True
        session, self._session = self._session, None
        if session is not None:
            self._incoming.http.metrics = session.metrics

    def _response_head(self) -> StreamHead:
        incoming = self._incoming
        return StreamHead(self._media_type, incoming.request_id, self._stream_id, incoming.cors)

    # -- StreamCallbacks --

    def connection_lost(self) -> None:
        """The client is gone."""
        if self._session is not None:
            self._session.client_lost()
        self._detach()

    def pause_writing(self) -> None:
        """The client is slow."""
        if self._session is not None:
            self._session.pause()

    def resume_writing(self) -> None:
        """The client has caught up."""
        if self._session is not None:
            self._session.resume()


def json_reply(incoming: Incoming, value: Any, *, status: int = 200) -> Reply:
    """A JSON response that is no stream."""
    return Reply(status, encode_json(value), [*json_headers(incoming.request_id), *incoming.cors])


def _is_retry(incoming: Incoming) -> bool:
    """Whether an official SDK repeats its request."""
    return incoming.http.headers.get("x-stainless-retry-count", "").strip("0").isdecimal()


def _accept(incoming: Incoming, stream: bool) -> str | None:
    """The `Accept` header; `None` for an answer that is one JSON object, which has no framing."""
    return incoming.http.headers.get("accept") if stream else None


def _refuse_later_features(incoming: Incoming, request: Request) -> None:
    _refuse_idempotency(incoming)
    if request.resumable and not request.stream:
        text = "`resumable` needs a stream: one JSON object comes whole or not at all"
        raise Error("unsupported", text, reason="resumable")
    if request.idempotency_key is not UNSET:
        raise _not_yet("idempotency_key")


def _not_yet(field: str) -> Error:
    return Error("unsupported", f"`{field}` is not supported yet", reason=field)


def _refuse_idempotency(incoming: Incoming) -> None:
    for header in ("idempotency-key", "x-idempotency-key"):
        if header in incoming.http.headers:
            raise Error("unsupported", f"`{header}` is not supported yet", reason="idempotency_key")
