"""Builds the specs of requests that start streams: native requests, requests in a dialect, and token counts.

Owns how a parsed request becomes a spec, and which streams are durable. `kinds/` parses requests and answers them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Literal, cast, get_args

import msgspec
from msgspec import UNSET

from gai_fast.core.requests.reading import characters, has_run_members
from gai_fast.core.session import NamedSession, name_in_body, name_in_request
from gai_fast.core.sinks import DeltaSink
from gai_fast.formats import (
    ClientRequest,
    Encoder,
    Format,
    KeptAnswer,
    PassthroughEncoder,
    StreamContext,
    StreamEncoder,
    get_format,
)
from gai_fast.guards.input import LetThrough
from gai_fast.kernels import encode_json
from gai_fast.model.credentials import Credential
from gai_fast.model.errors import Error
from gai_fast.model.request import CheckedBody, Request
from gai_fast.model.settings import ModelSettings, OnUnsupported, Settings
from gai_fast.model.tool_rules import as_plain_request
from gai_fast.net.attempts.records import RequestRecord, RouteRecord
from gai_fast.net.attempts.spec import Clock, Output, Parse, StreamSpec
from gai_fast.net.engine.engine import Engine
from gai_fast.otel.trace import Trace
from gai_fast.processors import Chain, StreamInfo
from gai_fast.providers import API, get_provider
from gai_fast.runtime.breathing import breathe
from gai_fast.runtime.clock import now_ms
from gai_fast.runtime.ids import new_stream_id
from gai_fast.server.admission.further_models import check_further_models
from gai_fast.server.admission.negotiation import Negotiated
from gai_fast.server.admission.run_requests import asks_approvals, check_run, leaves_approvals, named_tools
from gai_fast.server.http.head_facts import UNSUPPORTED_HEADER
from gai_fast.server.limits import LIMITS
from gai_fast.server.requests.incoming import Incoming
from gai_fast.server.requests.quotas import answers_of
from gai_fast.stores import LogHeader

# Constants: a name look-up costs 30 ns.
_CheckedBody: Final = CheckedBody
_MANY: Final[int] = LIMITS.turn_containers
_BREATHS: Final = 64
"""Containers that are counted between two breaths."""
_now_ms: Final = now_ms
_UNSET: Final = UNSET
_DURABLE: Final = ("detach", "drain")
"""The values of `on_disconnect` that make every stream durable."""


class SpecBuilder:
    """Builds specs for one engine.

    Attributes:
        settings: The configuration that applies to new requests.
    """

    def __init__(self, engine: Engine) -> None:
        self.settings: Settings = engine.settings
        self._engine = engine

    def native(
        self,
        incoming: Incoming,
        request: Request,
        negotiated: Negotiated,
        *,
        is_durable: bool,
        left_out: Sequence[str] = (),
        key: str | None = None,
    ) -> tuple[StreamSpec, StreamContext]:
        """Builds the spec of a native request.

        Args:
            incoming: The client's request.
            request: The parsed request.
            negotiated: The framing and format of the response.
            is_durable: Whether the request makes the stream durable.
            left_out: Paths of the client's members that `request` cannot express.
            key: Its idempotency key. None if it has none.
        """
        name = request.model
        model = self.settings.chosen(name if isinstance(name, str) else None, incoming.http.key)
        if incoming.http.key is not None:
            raw = [*request.provider_options.values(), request.extra]
            for options in (*raw, *[tool.options for tool in request.tools if tool.options]):
                check_further_models(options, incoming.http.key, own="")
        session = incoming.session(name_in_request(request))
        targets = self._engine.targets
        home = targets.home(model, session, request, incoming.http.caller)
        model = targets.with_target(model, home, incoming.http.caller)
        header: LogHeader | None = None
        is_stream = request.stream
        offer, asks = incoming.run, False
        if offer is not None:
            wish = None if request.approvals is _UNSET else request.approvals
            asks = asks_approvals(incoming.http.headers, wish, negotiated, model, is_stream=is_stream) and offer.may_ask
            if asks and not is_durable:  # a decision finds the stream by its id, even after its client has left
                is_durable, model = True, _until_it_waits(model)
        if is_stream and (is_durable or model.stream.on_disconnect in _DURABLE):
            logged = negotiated if negotiated.name == "gai" else _logged()
            context = self._context(incoming, model, logged.envelope, ids=True)
            output, deltas = _encoder(logged, context, whole=False)
            header = _log_header(incoming, logged, context, whole=False)
        else:
            context = self._context(incoming, model, negotiated.envelope)
            output, deltas = _encoder(negotiated, context, whole=not is_stream)
            if is_durable:
                header = _log_header(incoming, negotiated, context, whole=True)
        _check_copied(self._engine, negotiated, context, incoming.http.caller)
        if offer is not None:
            check_run(negotiated, answers_of(request))
        elif has_run_members(request):
            request = as_plain_request(request)
        chain = _chain(self._engine, request, context, incoming.http.caller, incoming.let)
        spec = StreamSpec(
            model,
            request,
            output,
            deltas,
            _copying_encoder(output, negotiated, model, chain, is_durable=header is not None),
            hold=not is_stream,
            can_reset=not is_stream or negotiated.can_reset,
            dialect=negotiated.name,
            left_out=left_out,
            unsupported=_on_unsupported(incoming),
            is_agent=incoming.facts.is_agent,
            prompt_characters=characters(request),
            is_retry=incoming.facts.is_retry,
            caller=incoming.http.caller,
            log_header=header,
            chain=chain,
            trace=incoming.http.trace,
            request_id=context.request_id,
            trace_id=context.trace_id,
            endpoint=incoming.path,
            transport=negotiated.transport if is_stream else "json",
            is_large=is_large(incoming.http.body),
            session=session,
            home=home,
            credential=incoming.http.credential,
            let=incoming.let,
        )
        if offer is not None:
            offer.attach(spec, context.stream_id, key, asks=asks, traceparent=incoming.traceparent)
        return spec, context

    def of_dialect(
        self,
        incoming: Incoming,
        asked: ClientRequest,
        negotiated: Negotiated,
        *,
        is_durable: bool,
        kept: KeptAnswer | None = None,
        key: str | None = None,
    ) -> tuple[StreamSpec, StreamContext]:
        """Builds the spec of a request in the dialect of its route's format.

        Args:
            incoming: The client's request.
            asked: The parsed request.
            negotiated: The framing and format of the response.
            is_durable: Whether the request makes the stream durable by a key.
            kept: As for `StreamContext`.
            key: Its idempotency key. None if it has none.
        """
        model = self.settings.chosen(asked.model, incoming.http.key)
        if incoming.http.key is not None:  # to call the check costs 600 instructions
            check_further_models(asked.body, incoming.http.key)
        session = incoming.session(name_in_body(asked.body))
        targets = self._engine.targets
        home = targets.home(model, session, asked.body, incoming.http.caller)
        model = targets.with_target(model, home, incoming.http.caller)
        if asked.background:
            model = _for_background(model)
        is_durable = is_durable or asked.background or (asked.stream and model.stream.on_disconnect in _DURABLE)
        offer, asks = incoming.run, False
        leaves = offer is not None and leaves_approvals(incoming.format, negotiated)
        if offer is not None:
            headers = incoming.http.headers
            asks = asks_approvals(headers, None, negotiated, model, is_stream=asked.stream, leaves=leaves)
            asks = asks and offer.may_ask
        if asks and not leaves and not is_durable:  # as above
            is_durable, model = True, _until_it_waits(model)
        wants_usage = asked.wants_usage or model.stream.usage == "always"
        is_logged = is_durable and not asked.whole
        context = self._context(
            incoming,
            model,
            negotiated.envelope,
            usage=wants_usage,
            hides_usage=not wants_usage and self._must_count(incoming, model),
            ids=is_logged,
            echo=asked.echo,
            kept=kept,
        )
        header: LogHeader | None = None
        if is_logged:
            logged, context.envelope = _logged(), "compact"
            header = _log_header(incoming, logged, context, whole=False)
            header = header._replace(dialect=negotiated.name, usage=wants_usage)
        elif is_durable:
            header = _log_header(incoming, negotiated, context, whole=True)
        specs = _DialectSpecs(
            self._engine,
            asked,
            negotiated,
            context,
            header,
            session,
            home,
            dialect=incoming.format,
            caller=incoming.http.caller,
            containers=containers_of(incoming.http.body),  # it is dropped before a fallback is asked
            credential=incoming.http.credential,
            endpoint=incoming.path,
            headers=_passed_headers(incoming),
            is_agent=incoming.facts.is_agent,
            is_remembered=incoming.newest is not None,
            is_retry=incoming.facts.is_retry,
            let=incoming.let,
            trace=incoming.http.trace,
            unsupported=_on_unsupported(incoming),
            is_run=offer is not None,
        )
        spec = specs.spec(model, before=None)
        if offer is not None:
            check_run(negotiated, max(answers_of(asked.body), answers_of(spec.request)))
            traceparent = incoming.traceparent
            offer.attach(spec, context.stream_id, key, asks=asks, leaves=leaves, traceparent=traceparent)
        return spec, context

    def of_record(
        self,
        asked: ClientRequest,
        header: LogHeader,
        model: ModelSettings,
        kept: RequestRecord,
        route: RouteRecord,
        let: LetThrough | None,
        answer: KeptAnswer | None,
    ) -> tuple[StreamSpec, StreamContext]:
        """Builds the spec of a request in a dialect whose worker is gone.

        Args:
            asked: The request.
            header: The header of the stream's log.
            model: Its model.
            kept: The record of the request.
            route: That of what it asks for in its dialect.
            let: What guards have let through of it.
            answer: As for `StreamContext`.

        Raises:
            Error: The request cannot be served here.
        """
        session = None if kept.session is None else NamedSession(*kept.session)
        if asked.background:
            model = _for_background(model)
        form = get_format(header.client_format)
        negotiated = Negotiated(form, "sse", header.envelope)
        context = StreamContext(
            header.stream_id,
            header.request_id,
            header.trace_id,
            header.model,
            _DayClock(),
            header.envelope or model.stream.envelope,
            timestamps=model.stream.timestamps,
            ids=not asked.whole,
            usage=header.usage,
            echo=route.echo,
            kept=answer,
        )
        specs = _DialectSpecs(
            self._engine,
            asked,
            negotiated,
            context,
            header,
            session,
            kept.home,
            dialect=get_format(route.format),
            caller=header.caller,
            containers=route.containers,
            credential=None,
            endpoint=kept.endpoint,
            headers=route.headers,
            is_agent=kept.is_agent,
            is_remembered=False,
            is_retry=False,
            let=let,
            trace=None,
            unsupported=kept.unsupported,
            is_run=kept.run is not None,
        )
        spec = specs.spec(self._engine.targets.with_target(model, kept.home, header.caller), before=None)
        spec.transport = kept.transport
        return spec, context

    def _must_count(self, incoming: Incoming, model: ModelSettings) -> bool:
        """Returns whether tokens must be counted: the response may have a price, or its key has a limit of tokens."""
        settings, key = self.settings, incoming.http.key
        if key is not None and key.limits.of_tokens:
            return True
        if model.price is None and not settings.prices.own and not settings.prices.listed:
            return False
        return any(settings.price(each) is not None for each in settings.may_answer(model))

    def count(
        self, incoming: Incoming, body: dict[str, Any], model: ModelSettings, session: NamedSession | None, home: str
    ) -> tuple[StreamSpec, StreamContext]:
        """Builds the spec of a request for a token count by its upstream.

        Args:
            incoming: The client's request.
            body: The parsed body, in the dialect of its route's format.
            model: A model whose upstream has this dialect.
            session: As for `StreamSpec`.
            home: As for `StreamSpec`.
        """
        dialect = incoming.format
        context = self._context(incoming, model, None)
        frames = dialect.passthrough("sse", context, whole=True)
        if frames is None:
            raise AssertionError(f"format {dialect.name!r} passes no whole answer on")
        spec = StreamSpec(
            model,
            _attributed(dialect, body, model),
            frames,
            frames=frames,
            hold=True,
            can_reset=True,
            dialect=dialect.name,
            headers=_passed_headers(incoming),
            counts=True,
            is_retry=incoming.facts.is_retry,
            other=_refuse_other_model,
            caller=incoming.http.caller,
            trace=incoming.http.trace,
            request_id=context.request_id,
            trace_id=context.trace_id,
            endpoint=incoming.path,
            transport="json",
            session=session,
            home=home,
            credential=incoming.http.credential,
        )
        return spec, context

    def _context(
        self,
        incoming: Incoming,
        model: ModelSettings,
        envelope: Literal["compact", "full"] | None,
        *,
        usage: bool = True,
        hides_usage: bool = False,
        ids: bool = False,
        echo: Mapping[str, Any] | None = None,
        kept: KeptAnswer | None = None,
    ) -> StreamContext:
        return StreamContext(
            stream_id=incoming.stream_id or new_stream_id(),
            request_id=incoming.http.request_id,
            trace_id=incoming.trace_id,
            model=model.name,
            clock=_DayClock(),
            envelope=envelope or model.stream.envelope,
            timestamps=model.stream.timestamps,
            ids=ids,
            retry_ms=model.stream.retry if ids else None,
            usage=usage,
            hides_usage=hides_usage,
            echo=echo,
            kept=kept,
        )


class _DayClock(Clock):
    """The time of day; reads the clock directly, which saves 350 instructions per reading."""

    def __init__(self) -> None:
        self._read = _now_ms
        self.now_ms = now_ms()

    def tick(self) -> int:
        """Reads the time of day, in milliseconds since the epoch."""
        self.now_ms = now_ms()
        return self.now_ms


def containers_of(body: bytes) -> int:
    """Returns the number of objects and arrays of a large body; 0 for a small one, which has few.

    Args:
        body: The body.
    """
    return body.containers if type(body) is _CheckedBody else 0


def containers_in(values: Iterable[Any]) -> int:
    """Returns the number of objects and arrays in parsed values, or one above `limits.translated_containers`.

    Counting stops there: no limit is higher, and one item may stand at many places.

    Args:
        values: The values.
    """
    counted = 0
    waiting: list[dict[Any, Any] | list[Any]] = [value for value in values if isinstance(value, (dict, list))]
    while waiting and counted <= LIMITS.translated_containers:
        if not counted % _BREATHS:
            breathe()
        counted += 1
        value = waiting.pop()
        if isinstance(value, dict):  # compiled, one line for both takes a third longer
            waiting += [each for each in value.values() if isinstance(each, (dict, list))]
        else:
            waiting += [each for each in value if isinstance(each, (dict, list))]
    return counted


def is_large(body: bytes) -> bool:
    """Returns whether a request with this body is read and written beside the loop.

    Args:
        body: The body.
    """
    return containers_of(body) > _MANY


def _native(asked: ClientRequest, dialect: Format) -> tuple[Request, list[str]]:
    """Returns the native request of a client's request, and what it cannot express; as `Format.parse_request`."""
    native = asked.native
    if native is None:
        return dialect.parse_request(asked.body_for(None))
    if isinstance(native, Error):
        raise native
    return native


def _native_attributed(asked: ClientRequest, dialect: Format) -> tuple[Request, list[str]]:
    """Works as `_native`, as `Format.parse_attributed`."""
    if dialect.without_attribution(asked.body) is asked.body:
        return _native(asked, dialect)
    attributed = asked.attributed
    if attributed is None:
        return dialect.parse_attributed(asked.body_for(None))
    if isinstance(attributed, Error):
        raise attributed
    return attributed


def _attributed(dialect: Format, body: dict[str, Any], model: ModelSettings) -> dict[str, Any]:
    """Returns a client's body that is passed on, without Claude Code's attribution block unless its server reads it."""
    cut = dialect.without_attribution(body)
    return body if cut is body or model.upstream.keeps_attribution else cut


def check_translated(containers: int) -> None:
    """Checks that a request may be translated, which cannot be interrupted. A native one always is.

    Args:
        containers: `containers_of` its body.

    Raises:
        InvalidRequest: Its body has too many objects and arrays.
    """
    if containers > LIMITS.translated_containers:
        most = f"more than {LIMITS.translated_containers} objects and arrays"
        text = f"The body has {most}: it can only be passed on, in the dialect of its model's provider"
        raise Error("invalid_request", text, reason="items")


class _DialectSpecs:
    """Builds the specs of one request in its client's dialect: one spec per attempted model.

    Args:
        engine: The engine with the processors.
        asked: The parsed request.
        negotiated: The framing and format of the response.
        context: The context of the stream.
        header: The log header of a durable stream; None if the stream is not durable.
        session: As for `StreamSpec`.
        home: As for `StreamSpec`.
        dialect: The format of its route.
        caller: As for `StreamSpec`, like those below.
        containers: The objects and arrays of its body, as `containers_of` counts them.
        credential: As above.
        endpoint: As above.
        headers: As above.
        is_agent: As above.
        is_remembered: The client's connection remembers the answer.
        is_retry: As above.
        let: As above.
        trace: As above.
        unsupported: As above.
        is_run: Whether the stream is a run.
    """

    def __init__(
        self,
        engine: Engine,
        asked: ClientRequest,
        negotiated: Negotiated,
        context: StreamContext,
        header: LogHeader | None,
        session: NamedSession | None,
        home: str,
        *,
        dialect: Format,
        caller: str,
        containers: int,
        credential: Credential | None,
        endpoint: str,
        headers: Mapping[str, str],
        is_agent: bool,
        is_remembered: bool,
        is_retry: bool,
        let: LetThrough | None,
        trace: Trace | None,
        unsupported: OnUnsupported | None,
        is_run: bool = False,
    ) -> None:
        self._is_run = is_run
        self._engine = engine
        self._asked = asked
        self._negotiated = negotiated
        self._context = context
        self._header = header
        self._session = session
        self._home = home
        self._dialect = dialect
        self._caller = caller
        self._containers = containers
        self._credential = credential
        self._endpoint = endpoint
        self._headers = headers
        self._is_agent = is_agent
        self._is_remembered = is_remembered
        self._is_retry = is_retry
        self._let = let
        self._trace = trace
        self._unsupported = unsupported

    def recorded(self) -> tuple[RouteRecord, dict[str, Any]]:
        """Returns what another worker needs to ask for the same in this dialect; as `StreamSpec.recorded`."""
        asked = self._asked
        record = RouteRecord(
            self._dialect.name,
            msgspec.Raw(encode_json(asked.body)),
            dict(self._headers),
            None if asked.echo is None else dict(asked.echo),
            [(mark.place, mark.provider, mark.is_reasoning) for mark in asked.marks],
            self._containers,
        )
        return record, asked.body

    def spec(self, model: ModelSettings, before: StreamSpec | None) -> StreamSpec:
        """Builds the spec for a model; passes the upstream's bytes through if the upstream has the client's dialect.

        Args:
            model: The model.
            before: The spec of a model that failed after the response had started; its encoders continue the response.
        """
        api = get_provider(model.upstream.provider)
        frames = self._passthrough(model, api, before)
        return self._build_translated(model, api, before) if frames is None else self._build_passed(model, api, frames)

    def _passthrough(self, model: ModelSettings, api: API, before: StreamSpec | None) -> PassthroughEncoder | None:
        """Returns the encoder that passes the upstream's bytes through; None if events must be processed or encoded."""
        asked, negotiated = self._asked, self._negotiated
        if (
            api.dialect != self._dialect.name
            or model.upstream.reasoning_tags is not None  # its text has to be read
            or negotiated.format.name != self._dialect.name  # programs may have a form of their own
            or self._context.ids  # the upstream's frames lack the gateway's event ids
            or self._is_run
            or self._is_continued(model, api)
            or self._is_processed()
        ):
            return None
        if before is not None and not asked.whole and not negotiated.format.allows_retry_frames:
            return None
        if before is not None:
            return cast("PassthroughEncoder | None", before.frames)
        # If an upstream sends usage without being asked, the usage is part of its response.
        self._context.hides_usage = self._context.hides_usage and bool(api.stream_options)
        return negotiated.format.passthrough(negotiated.framing, self._context, whole=asked.whole)

    def _is_processed(self) -> bool:
        """Returns whether the stream has processors. Those of the model that was asked for stay with a fallback."""
        engine, let = self._engine, self._let
        if not engine.has_processors and let is None:
            return False
        asked, caller = self._asked, self._caller
        return engine.is_processed(wants_json=asked.wants_json, model=self._context.model, caller=caller, let=let)

    def _is_continued(self, model: ModelSettings, api: API) -> bool:
        """Returns whether a failed answer is continued, which needs events.

        An answer that no prefill can hold (`n` > 1) is passed through instead.
        """
        return model.stream.on_midstream_failure == "continue" and self._dialect.is_continued(self._asked.body)

    def _build_passed(self, model: ModelSettings, api: API, frames: PassthroughEncoder) -> StreamSpec:
        """Builds the spec with the client's own body, for an upstream whose bytes pass through."""
        asked, dialect = self._asked, self._dialect
        body = _attributed(dialect, asked.body_for(api.provider), model)
        context = self._context
        if (context.usage or context.hides_usage) and not asked.whole and api.stream_options:
            body = dialect.with_usage(body)
        return self._build(model, body, frames, None if asked.whole else cast("StreamEncoder", frames), frames)

    def _build_translated(self, model: ModelSettings, api: API, before: StreamSpec | None) -> StreamSpec:
        """Builds the spec of a response encoded from events; the request is native, or the client's own body."""
        asked, dialect = self._asked, self._dialect
        left_out: Sequence[str] = ()
        ignored: Sequence[str] = ()
        request: Request | dict[str, Any]
        own: dict[str, Any] | None = None
        if api.dialect == dialect.name and not self._is_run:
            own = dialect.streamed(_attributed(dialect, asked.body_for(api.provider), model))
        if own is None:
            check_translated(self._containers)
            if model.upstream.attribution == "keep":
                request, lost = _native_attributed(asked, dialect)
            else:
                request, lost = _native(asked, dialect)
            named = named_tools(asked.body) if self._is_run else None
            if named is not None:
                lost = [path for path in lost if path not in named.paths]
            if lost:
                ignored = dialect.without_refusal(asked.body, lost)
                refused = {*lost}.difference(ignored)
                left_out = [path for path in lost if path in refused]
        else:
            request = dialect.with_usage(own) if api.stream_options else own
        _check_copied(self._engine, self._negotiated, self._context, self._caller)
        output, deltas, chain = self._encoder(request, before)
        translated = (asked.body_for(None), dialect.parse_request) if own is None else None
        is_continued = own is None or dialect.is_continued(asked.body)
        frames = _copying_encoder(output, self._negotiated, model, chain, is_durable=self._header is not None)
        return self._build(model, request, output, deltas, frames, chain, left_out, ignored, translated, is_continued)

    def _build(
        self,
        model: ModelSettings,
        request: Request | dict[str, Any],
        output: Output,
        deltas: DeltaSink | None,
        frames: PassthroughEncoder | None,
        chain: Chain | None = None,
        left_out: Sequence[str] = (),
        ignored: Sequence[str] = (),
        translated: tuple[dict[str, Any], Parse] | None = None,
        is_continued: bool = True,
    ) -> StreamSpec:
        """Builds a spec; the arguments are those of `StreamSpec`."""
        asked, negotiated, context, header = self._asked, self._negotiated, self._context, self._header
        return StreamSpec(
            model,
            request,
            output,
            deltas,
            frames,
            hold=asked.whole,
            can_reset=asked.whole or negotiated.format.can_reset or (asked.background and not asked.stream),
            dialect=negotiated.format.name,
            headers=self._headers,
            shape=asked.shape,
            is_continued=is_continued,
            left_out=left_out,
            ignored=ignored,
            unsupported=self._unsupported,
            is_agent=self._is_agent,
            prompt_characters=asked.prompt_characters,
            is_retry=self._is_retry,
            other=self.spec,
            caller=self._caller,
            log_header=header,
            recorded=None if header is None else self.recorded,
            chain=chain,
            trace=self._trace,
            request_id=context.request_id,
            trace_id=context.trace_id,
            endpoint=self._endpoint,
            transport="json" if asked.whole else negotiated.transport,
            translated=translated,
            session=self._session,
            home=self._home,
            credential=self._credential,
            is_kept=context.kept is not None and (context.kept.is_kept or self._is_remembered),
            is_large=self._containers > (LIMITS.turn_passed if isinstance(request, dict) else _MANY),
        )

    def _chain(self, request: Request | dict[str, Any]) -> Chain | None:
        """Makes the processors; the client's own body is not translated for them, since not every body can be."""
        asked, context = self._asked, self._context
        if isinstance(request, Request):
            return _chain(self._engine, request, context, self._caller, self._let)
        let = self._let
        if not self._engine.has_processors and let is None:
            return None
        stream = StreamInfo(
            context.stream_id,
            context.request_id,
            context.trace_id,
            context.model,
            asked.wants_json,
            asked.schema if asked.wants_json else None,
            prompt=asked.prompt,
            caller=self._caller,
            said=() if let is None else let.said,
            placeholders=None if let is None else let.placeholders,
        )
        return self._engine.make_chain(stream)

    def _encoder(
        self, request: Request | dict[str, Any], before: StreamSpec | None
    ) -> tuple[Output, DeltaSink | None, Chain | None]:
        """Returns the encoder of a response from events, again as delta sink if it copies deltas, and the chain."""
        negotiated, context, whole = self._negotiated, self._context, self._asked.whole
        if self._header is not None and not whole:
            negotiated = _logged()
        if before is not None and (before.frames is None or negotiated.format.copies_upstream):
            return before.output, before.deltas, before.chain
        if before is not None and not whole:
            frames = cast("PassthroughEncoder", before.frames)
            encoder = negotiated.format.successor(frames, negotiated.framing, context)
            return encoder, encoder, self._chain(request)
        output, deltas = _encoder(negotiated, context, whole=whole)
        return output, deltas, self._chain(request)


def _chain(
    engine: Engine, request: Request, context: StreamContext, caller: str, let: LetThrough | None
) -> Chain | None:
    if not engine.has_processors and let is None and request.json_snapshots is _UNSET:
        return None  # most streams: the context is not read
    return engine.chain(request, context.stream_id, context.request_id, context.trace_id, context.model, caller, let)


def _check_copied(engine: Engine, negotiated: Negotiated, context: StreamContext, caller: str) -> None:
    """Refuses a format that copies the upstream's bytes, where a guard holds: it cannot look into them.

    Raises:
        Error: A guard holds.
    """
    if not negotiated.copies_upstream:
        return
    guards = engine.guards
    if guards is not None:
        guards.check_closed(context.model, caller, f"format={negotiated.format.name}")


def _encoder(negotiated: Negotiated, context: StreamContext, *, whole: bool) -> tuple[Encoder, StreamEncoder | None]:
    """Returns the encoder of a response, and the encoder again as delta sink if it copies deltas."""
    if whole:
        return negotiated.format.whole(context), None
    encoder = negotiated.format.encoder(negotiated.framing, context)
    return encoder, encoder


def _copying_encoder(
    output: Output, negotiated: Negotiated, model: ModelSettings, chain: Chain | None, *, is_durable: bool
) -> PassthroughEncoder | None:
    """Returns the output as a passthrough encoder if its format copies every upstream's bytes; else None.

    Raises:
        Unsupported: The bytes cannot be copied: a log, a processor or a continuation needs events.
    """
    if not negotiated.copies_upstream:
        return None
    if is_durable or chain is not None or model.stream.on_midstream_failure == "continue":
        text = f"format {negotiated.format.name!r} has no events: it cannot be durable, processed or continued"
        raise Error("unsupported", text, reason="format")
    return cast("PassthroughEncoder", output)


def _logged() -> Negotiated:
    """Returns the form of a log whose client has not asked for `gai`."""
    return Negotiated(get_format("gai"), "sse", "compact")


def _log_header(incoming: Incoming, logged: Negotiated, context: StreamContext, *, whole: bool) -> LogHeader:
    return LogHeader(
        context.stream_id,
        incoming.http.caller,
        context.model,
        logged.name,
        "json" if whole else logged.framing,
        context.envelope,
        context.request_id,
        context.trace_id,
    )


def _refuse_other_model(model: ModelSettings, begun: StreamSpec | None) -> StreamSpec:
    raise Error("unsupported", f"model {model.name!r} counts other tokens")


def _passed_headers(incoming: Incoming) -> dict[str, str]:
    """Returns the request's headers that are sent with its body to an upstream of its dialect."""
    given = incoming.http.headers
    return {name: given[name] for name in incoming.format.passed_headers if name in given}


def _on_unsupported(incoming: Incoming) -> OnUnsupported | None:
    """Returns the request's own choice for fields that the upstream does not support; None if it has none.

    Raises:
        Error: The header is neither `drop` nor `error`.
    """
    value = incoming.facts.unsupported
    if value is None:
        return None
    if value == "drop":
        return "drop"
    if value == "error":
        return "error"
    text = f"the header {UNSUPPORTED_HEADER} must be one of: {', '.join(get_args(OnUnsupported))}"
    raise Error("invalid_request", text, reason="unsupported")


def _until_it_waits(model: ModelSettings) -> ModelSettings:
    """Returns the model with a run that its client's end cancels, unless it has waited for a person before."""
    if model.stream.on_disconnect != "auto":
        return model
    return replace(model, stream=replace(model.stream, on_disconnect="cancel"))


def _for_background(model: ModelSettings) -> ModelSettings:
    """Returns the model with a background response that runs to its end without a client."""
    if model.stream.on_disconnect != "auto":
        return model
    return replace(model, stream=replace(model.stream, on_disconnect="drain"))
