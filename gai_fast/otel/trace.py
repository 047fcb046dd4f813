"""One traced request: what happens to it, and its spans at the end.

Owns the names of spans, events and attributes (OpenTelemetry's GenAI and HTTP conventions, written here because the
Python package of these names marks all of them as deprecated). Sends nothing: `telemetry.py` gives it a recorder.

1. A request has a SERVER span, each attempt at an upstream a CLIENT span below it. A stream that a program of this
   process asks for has only these.
2. Attempts are noted when they begin, fail and end, never on an event: the time of the first token is known from the
   stream's figures.
3. One attempt is the stream's own. A hedge runs beside it, and is dropped or takes its place.
4. A run has an attempt of its own for each turn, which ends with the turn, and an INTERNAL span for each call that the
   gateway makes.
5. Nothing of a prompt or an answer is in a span unless the configuration asks for it (`content`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import urlsplit

import msgspec
from msgspec import UNSET

from gai_fast.core.requests.reading import conversation
from gai_fast.kernels import encode_json
from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.model.metrics import StreamMetrics
from gai_fast.model.request import Request, TextPart
from gai_fast.otel.histograms import DURATION, FIRST_CHUNK, TOKENS, Instrument, Labels
from gai_fast.otel.limits import LIMITS
from gai_fast.otel.otlp import CLIENT, INTERNAL, SERVER, Value, attributes, event, span
from gai_fast.otel.output import OutputMessages

_OTHER: Final = "_OTHER"
"""The model of metrics if no configured model was asked, and the method of a request that no standard has."""
_METHODS: Final = frozenset("CONNECT DELETE GET HEAD OPTIONS PATCH POST PUT QUERY TRACE".split())
_REFUSAL: Final = 400
_SERVER_FAULT: Final = 500
_LEFT: Final = "client_disconnected"
_DROPPED: Final = "cancelled"
"""The error of an attempt that another one has made superfluous."""
_HEDGE: Final = "hedge"
_NUMBERS: Final[Mapping[str, tuple[str, ...]]] = {
    "gen_ai.request.max_tokens": ("max_tokens", "max_completion_tokens", "max_output_tokens"),
    "gen_ai.request.temperature": ("temperature",),
    "gen_ai.request.top_p": ("top_p",),
    "gen_ai.request.top_k": ("top_k",),
    "gen_ai.request.seed": ("seed",),
    "gen_ai.request.frequency_penalty": ("frequency_penalty",),
    "gen_ai.request.presence_penalty": ("presence_penalty",),
    "gen_ai.request.choice.count": ("n",),
}
"""Attributes of a request, and the members that hold them, in any dialect."""
_STOPS: Final = ("stop", "stop_sequences")
_OUTPUTS: Final[Mapping[str, str]] = {
    "text": "text", "json": "json", "json_object": "json", "json_schema": "json", "audio": "speech", "image": "image",
}  # fmt: skip
"""Values of `gen_ai.output.type`, by the kind that a request asks for."""
_CONTENTS: Final[Mapping[str, tuple[str, ...]]] = {
    "gen_ai.input.messages": ("messages", "input", "contents", "prompt"),
    "gen_ai.system_instructions": ("system", "instructions", "systemInstruction"),
    "gen_ai.tool.definitions": ("tools",),
}
_USAGE: Final[Mapping[str, str]] = {
    "input_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
    "cached_input_tokens": "gen_ai.usage.cache_read.input_tokens",
    "cache_write_input_tokens": "gen_ai.usage.cache_creation.input_tokens",
    "reasoning_tokens": "gen_ai.usage.reasoning.output_tokens",
}
_TOKEN_TYPES: Final[Mapping[str, str]] = {"input_tokens": "input", "output_tokens": "output"}


class Parent(NamedTuple):
    """The span that a caller has named in `traceparent`.

    Attributes:
        trace_id: 32 hex digits.
        span_id: 16 hex digits.
        is_sampled: The caller samples the trace.
    """

    trace_id: str
    span_id: str
    is_sampled: bool


class Recorder(Protocol):
    """Takes spans and figures; both return at once."""

    def put(self, spans: bytes, count: int) -> None:
        """Takes spans of `otlp.span`, with commas between them, and their number."""

    def observe(self, instrument: Instrument, labels: Labels, value: float) -> None:
        """Counts a figure."""

    def new_span_id(self) -> str:
        """Returns an id that was never used."""


class TracedTarget(NamedTuple):
    """The model that an attempt asks.

    Attributes:
        operation: `gen_ai.operation.name`.
        provider: `gen_ai.provider.name`.
        model: The id that the upstream is asked for.
        is_known: The model is configured: a caller cannot make up its name.
        upstream: The name of the upstream.
        base_url: Its address.
    """

    operation: str
    provider: str
    model: str
    is_known: bool
    upstream: str
    base_url: str


class AnsweredRequest(NamedTuple):
    """A request that has been answered.

    Attributes:
        method: Its HTTP method.
        path: Its path, without the query.
        status: The status of the answer.
        scheme: `http` or `https`.
        client: The client's address.
        user_agent: The client's `user-agent`. None if the client sends none.
        request_id: The request's id.
        key: The name of the caller's key.
        code: The code of the error that it was refused with.
        stream: The figures of the stream that answered it.
    """

    method: str
    path: str
    status: int
    scheme: str
    client: str
    user_agent: str | None
    request_id: str
    key: str
    code: str | None
    stream: StreamMetrics | None


class TracedAttempt:
    """One attempt at an upstream, under way or ended. Made by `Trace.attempted`."""

    __slots__ = ("began", "ended", "error", "events", "given", "has_content", "span_id", "target", "turn")

    def __init__(self, target: TracedTarget, span_id: str, given: dict[str, Value], began: float) -> None:
        self.target = target
        self.span_id = span_id
        self.given = given
        self.began = began
        self.ended: float | None = None
        self.error: str | None = None
        self.has_content = False  # whether it had content before it failed
        self.turn: Mapping[str, Any] | None = None  # the `finish` of a run's turn
        self.events: list[tuple[str, float, dict[str, Value]]] = []


class TracedCall(NamedTuple):
    """A call of a tool by the gateway. Made by `Trace.call_began`.

    Attributes:
        tool: The name of the tool.
        span_id: The id of its span.
        given: Its attributes.
        began: When it began, of the performance counter.
        traceparent: What the tool gets.
    """

    tool: str
    span_id: str
    given: dict[str, Value]
    began: float
    traceparent: str


class Trace:
    """One request, or one stream of a program in this process. Made by `Telemetry.begin`.

    Args:
        recorder: Takes the spans.
        trace_id: 32 hex digits.
        parent_id: The caller's span; empty if there is none.
        state: `tracestate`, passed on unchanged.
        is_sampled: Whether there are spans; figures are counted in any case.
        route: The route of the request, with placeholders. None if there is no request, and so no SERVER span.
        with_content: Whether spans hold prompts and answers.

    Attributes:
        trace_id: 32 hex digits.
        former: The span of a worker that is gone, whose stream goes on here. None if there is none.
        output: Collects the events that the client gets, for the span. None if it holds no content.
    """

    __slots__ = (
        "_attempts",
        "_began",
        "_began_ns",
        "_current",
        "_events",
        "_hedge",
        "_is_sampled",
        "_parent_id",
        "_pending",
        "_planned",
        "_recorder",
        "_route",
        "_span_id",
        "_state",
        "_with_content",
        "former",
        "output",
        "trace_id",
    )

    def __init__(
        self,
        recorder: Recorder,
        trace_id: str,
        *,
        parent_id: str,
        state: str,
        is_sampled: bool,
        route: str | None,
        with_content: bool,
    ) -> None:
        self._recorder = recorder
        self.trace_id = trace_id
        self.former: Parent | None = None
        self._parent_id = parent_id
        self._state = state
        self._is_sampled = is_sampled
        self._route = route
        self._span_id = "" if route is None else recorder.new_span_id()
        self._with_content = with_content
        self.output = OutputMessages() if is_sampled and with_content else None
        self._began_ns = time.time_ns()
        self._began = time.perf_counter()
        self._attempts: list[TracedAttempt] = []
        self._current: TracedAttempt | None = None
        self._hedge: TracedAttempt | None = None
        self._pending: TracedAttempt | None = None  # the attempt that is not sent yet
        self._planned: list[tuple[str, dict[str, Value]]] = []  # events of the attempt that comes next
        self._events: list[tuple[str, float, dict[str, Value]]] = []

    @property
    def context(self) -> str:
        """The request's span as `traceparent` has it, for another worker that goes on with its stream."""
        span_id = self._span_id or self._parent_id
        return f"00-{self.trace_id}-{span_id}-{'01' if self._is_sampled else '00'}" if span_id else ""

    # -- while it runs --

    def attempted(self, target: TracedTarget, request: Request | dict[str, Any]) -> list[tuple[str, str]]:
        """Notes a request that will be sent to an upstream; returns the headers that carry the trace there.

        Args:
            target: The model that is asked.
            request: The request, of which parameters are noted, and the content if that is asked for.
        """
        now = time.perf_counter()
        given = _parameters(request) if self._is_sampled else {}
        if self._is_sampled and self._with_content:
            given |= _contents(request)
        attempt = self._pending = TracedAttempt(target, self._recorder.new_span_id(), given, now)
        flags = "01" if self._is_sampled else "00"
        headers = [("traceparent", f"00-{self.trace_id}-{attempt.span_id}-{flags}")]
        return [*headers, ("tracestate", self._state)] if self._state else headers

    def sent(self) -> None:
        """Notes that the request has been sent. Not called for an attempt that joins another stream's request."""
        attempt, self._pending = self._pending, None
        planned, self._planned = self._planned, []
        if attempt is None:
            return
        self._attempts.append(attempt)
        for name, about in planned:
            attempt.events.append((name, attempt.began, about))
            self.note(name, about)
        if planned and planned[0][0] == _HEDGE:
            self._hedge = attempt
        else:
            self._current = attempt

    def failed(self, error: Error, *, has_content: bool) -> None:
        """Notes that the stream's own attempt has failed, whether or not another one follows.

        Args:
            error: The failure.
            has_content: Whether the upstream had sent content before.
        """
        if self._current is not None:
            self._current.has_content = has_content
        _end(self._current, error.code)

    def hedge_taken(self) -> None:
        """Notes that the hedge is the stream's own attempt from now on."""
        if self._hedge is not None:
            _end(self._current, _DROPPED)
            self._current, self._hedge = self._hedge, None

    def hedge_dropped(self, error: Error | None) -> None:
        """Notes the end of the hedge.

        Args:
            error: Its failure. None if the first attempt was faster.
        """
        _end(self._hedge, _DROPPED if error is None else error.code)
        self._hedge = None

    def follows(self, *kinds: str) -> None:
        """Notes the kind of the next attempt. Replaces an earlier note: that attempt may not have been possible.

        Args:
            kinds: `retry`, `fallback` or `hedge`, and `resume`, which goes on from what was delivered.
        """
        about: dict[str, Value] = {"gai.attempt": len(self._attempts) + 1}
        former = self._current
        if former is not None:
            about["gai.former.upstream"] = former.target.upstream
            about["gai.former.model"] = former.target.model
            if former.error is not None:
                about["error.type"] = former.error
        self._planned = [(kind, about) for kind in kinds]

    def note(self, name: str, about: dict[str, Value]) -> None:
        """Adds an event to the request's span.

        Args:
            name: Its name.
            about: Its attributes.
        """
        if self._route is not None and len(self._events) < LIMITS.otel_items:
            self._events.append((name, time.perf_counter(), about))

    # -- a run: rule 4 --

    def turn_ended(self, finish: Mapping[str, Any]) -> None:
        """Notes the good end of a turn, whose attempt ends with it.

        Args:
            finish: Its `finish`.
        """
        current = self._current
        if current is not None and current.ended is None:
            current.ended = time.perf_counter()
            current.has_content = True
            current.turn = finish

    def call_began(self, tool: str, given: dict[str, Value]) -> TracedCall:
        """Notes that the gateway calls a tool.

        Args:
            tool: The name of the tool.
            given: Attributes of its span.
        """
        span_id = self._recorder.new_span_id()
        flags = "01" if self._is_sampled else "00"
        traceparent = f"00-{self.trace_id}-{span_id}-{flags}"
        named: dict[str, Value] = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": tool}
        about = {**named, "gen_ai.tool.type": "extension", **given}
        return TracedCall(tool, span_id, about, time.perf_counter(), traceparent)

    def call_ended(self, call: TracedCall, error: str | None) -> None:
        """Hands on the span of a call that has ended.

        Args:
            call: The call.
            error: Why it has failed. None if it has not.
        """
        if not self._is_sampled:
            return
        spans = span(
            trace_id=self.trace_id,
            span_id=call.span_id,
            parent_id=self._span_id or self._parent_id,
            state=self._state,
            name=f"execute_tool {call.tool}",
            kind=INTERNAL,
            began_ns=self._ns(call.began),
            ended_ns=self._ns(time.perf_counter()),
            given=call.given if error is None else {**call.given, "error.type": error},
            error=error,
        )
        self._recorder.put(spans, 1)

    # -- the end --

    def stream_ended(self, metrics: StreamMetrics) -> None:
        """Hands on the spans and figures of all attempts.

        Args:
            metrics: The figures of the stream.
        """
        now = time.perf_counter()
        attempts, self._attempts = self._attempts, []
        first = next((each for each in attempts if each.has_content), self._current)
        is_run = any(each.turn is not None for each in attempts)
        spans = []
        for attempt in attempts:
            is_last = attempt is self._current
            if is_run and attempt.turn is None:  # the usage of the stream is the sum of its turns
                attempt.turn = {"finish_reason": metrics.finish_reason if is_last else None}
            first_chunk = metrics.upstream_time_to_first_token if attempt is first else None
            self._count(attempt, attempt.ended or now, first_chunk, metrics if is_last else None)
            if self._is_sampled:
                spans.append(
                    self._client_span(attempt, attempt.ended or now, first_chunk, metrics if is_last else None)
                )
        if spans:
            self._recorder.put(b",".join(spans), len(spans))

    def request_ended(self, answered: AnsweredRequest) -> None:
        """Hands on the request's span.

        Args:
            answered: The request and its answer.
        """
        route = self._route
        if not self._is_sampled or route is None:
            return
        stream, status = answered.stream, answered.status
        method = answered.method if answered.method in _METHODS else _OTHER
        given: dict[str, Value] = {
            "http.request.method": method,
            "url.path": answered.path,
            "url.scheme": answered.scheme,
            "http.route": route,
            "http.response.status_code": status,
            "client.address": answered.client,
            "gai.request_id": answered.request_id,
            "gai.key": answered.key,
        }
        if method == _OTHER:
            given["http.request.method_original"] = answered.method
        if answered.user_agent is not None:
            given["user_agent.original"] = answered.user_agent
        code = answered.code
        events = list(self._events)
        if stream is not None:
            given["gai.stream_id"] = stream.stream_id
            code = stream.code or (_LEFT if stream.outcome == "disconnected" else code)
            if stream.time_to_first_token is not None:
                events.append(("first_token", self._began + stream.time_to_first_token, {}))
        if code is not None:
            given["error.type"] = code
        # A refusal is the client's fault, an upstream's refusal too: the HTTP conventions leave the status unset.
        is_failed = status >= _SERVER_FAULT or (status < _REFUSAL and stream is not None and stream.code is not None)
        spans = span(
            trace_id=self.trace_id,
            span_id=self._span_id,
            parent_id=self._parent_id,
            state=self._state,
            name=f"{'HTTP' if method == _OTHER else method} {route}",
            kind=SERVER,
            began_ns=self._began_ns,
            ended_ns=self._ns(time.perf_counter()),
            given=given,
            events=self._encoded(events),
            error=code if is_failed else None,
        )
        self._recorder.put(spans, 1)

    # -- own --

    def _client_span(
        self, attempt: TracedAttempt, ended: float, first_chunk: float | None, metrics: StreamMetrics | None
    ) -> bytes:
        target = attempt.target
        given = attempt.given
        events = attempt.events
        if first_chunk is not None:
            given["gen_ai.response.time_to_first_chunk"] = first_chunk
            events = [*events, ("first_token", attempt.began + first_chunk, {})]
        error = attempt.error
        if metrics is not None:
            error = error or metrics.code or (_LEFT if metrics.outcome == "disconnected" else None)
            if metrics.transport != "json":
                given["gen_ai.request.stream"] = True
            if metrics.response_id:
                given["gen_ai.response.id"] = metrics.response_id
            if metrics.answered_by:
                given["gen_ai.response.model"] = metrics.answered_by
            if self.output is not None:
                given["gen_ai.output.messages"] = self.output.json()
        reason, usage = _end_of(attempt, metrics)
        if reason is not None:
            given["gen_ai.response.finish_reasons"] = [reason]
        given |= {_USAGE[name]: count for name, count in usage.items() if name in _USAGE and count is not None}
        if error is not None:
            given["error.type"] = error
        return span(
            trace_id=self.trace_id,
            span_id=attempt.span_id,
            parent_id=self._span_id or self._parent_id,
            state=self._state,
            name=f"{target.operation} {target.model}",
            kind=CLIENT,
            began_ns=self._ns(attempt.began),
            ended_ns=self._ns(ended),
            given=given,
            known=_known(target).encoded,
            events=self._encoded(events),
            error=error,
            link=None if self.former is None else self.former[:2],
        )

    def _count(
        self, attempt: TracedAttempt, ended: float, first_chunk: float | None, metrics: StreamMetrics | None
    ) -> None:
        observe, target = self._recorder.observe, attempt.target
        labels = _known(target).labels
        error = attempt.error
        if metrics is not None:
            error = error or metrics.code
        usage = _end_of(attempt, metrics)[1]
        for name, kind in _TOKEN_TYPES.items():
            count = usage.get(name)
            if count is not None:
                observe(TOKENS, (*labels, ("gen_ai.token.type", kind)), float(min(count, SHARED.priced_tokens)))
        if first_chunk is not None:
            observe(FIRST_CHUNK, labels, first_chunk)
        if error is not None:
            labels = (*labels, ("error.type", error))
        observe(DURATION, labels, ended - attempt.began)

    def _encoded(self, events: list[tuple[str, float, dict[str, Value]]]) -> list[dict[str, Any]]:
        return [event(name, self._ns(when), about) for name, when, about in events]

    def _ns(self, moment: float) -> int:
        """Converts a time of the performance counter to nanoseconds since the epoch."""
        return self._began_ns + int((moment - self._began) * 1e9)


_NO_USAGE: Final[Mapping[str, Any]] = {}


def _end_of(attempt: TracedAttempt, metrics: StreamMetrics | None) -> tuple[str | None, Mapping[str, Any]]:
    """Returns the finish reason and the usage of an attempt: those of its turn in a run, else the stream's.

    Args:
        attempt: The attempt.
        metrics: The figures of the stream. None if another attempt has ended it.
    """
    turn = attempt.turn
    if turn is not None:
        return turn["finish_reason"], turn.get("usage") or _NO_USAGE
    return (None, _NO_USAGE) if metrics is None else (metrics.finish_reason, metrics.usage or _NO_USAGE)


def _end(attempt: TracedAttempt | None, error: str) -> None:
    """Ends an attempt if it has not ended."""
    if attempt is not None and attempt.ended is None:
        attempt.ended = time.perf_counter()
        attempt.error = error


class _Known(NamedTuple):
    """The attributes of a target, which are the same in every span.

    Attributes:
        labels: Its attributes in figures.
        encoded: Its attributes in spans.
    """

    labels: Labels
    encoded: list[dict[str, Any]]


def _known(target: TracedTarget) -> _Known:
    known = _targets.get(target)
    if known is None:
        url = urlsplit(target.base_url)
        named: Labels = (("gen_ai.operation.name", target.operation), ("gen_ai.provider.name", target.provider))
        if url.hostname:
            port = url.port or (443 if url.scheme == "https" else 80)
            named = (*named, ("server.address", url.hostname), ("server.port", port))
        own = {"gen_ai.request.model": target.model, "gai.upstream": target.upstream}
        if len(_targets) >= LIMITS.otel_series:  # a caller may make up models
            _targets.clear()
        known = _targets[target] = _Known(
            (*named, ("gen_ai.request.model", target.model if target.is_known else _OTHER)),
            attributes({**dict(named), **own}),
        )
    return known


_targets: Final[dict[TracedTarget, _Known]] = {}


def _parameters(request: Request | dict[str, Any]) -> dict[str, Value]:
    """Returns the parameters of a request: numbers, stop sequences, the kind of its output, its conversation."""
    given: dict[str, Value] = {}
    if isinstance(request, Request):
        for name, members in _NUMBERS.items():
            value = getattr(request, members[0], UNSET)
            if value is not UNSET:
                given[name] = value
        stops: Any = request.stop
        asked: str = "" if request.response_format is UNSET else request.response_format.type
    else:
        for name, members in _NUMBERS.items():
            for member in members:
                value = request.get(member)
                if isinstance(value, int | float) and not isinstance(value, bool):
                    given[name] = value
        stops = next((request[name] for name in _STOPS if name in request), ())
        asked = _asked_output(request)
        conversation_id = _member(request.get("conversation"), "id")
        if conversation_id:
            given["gen_ai.conversation.id"] = conversation_id
    if asked in _OUTPUTS:
        given["gen_ai.output.type"] = _OUTPUTS[asked]
    if isinstance(stops, str):
        stops = [stops]
    if isinstance(stops, list) and stops and all(isinstance(each, str) for each in stops):
        given["gen_ai.request.stop_sequences"] = stops[: LIMITS.otel_items]
    return given


def _asked_output(body: dict[str, Any]) -> str:
    """Returns the kind of output that a body asks for; empty if its dialect has no word for it."""
    kinds = body.get("modalities")
    if isinstance(kinds, list) and "audio" in kinds:
        return "audio"
    text = body.get("text")  # in a Responses request
    form = body.get("response_format") or (text.get("format") if isinstance(text, dict) else None)
    return _member(form, "type")


def _member(value: Any, name: str) -> str:
    """Returns the text of a member, or the value itself if that is a text; empty for any other value."""
    found = value.get(name) if isinstance(value, dict) else value
    return found if isinstance(found, str) else ""


def _contents(request: Request | dict[str, Any]) -> dict[str, Value]:
    """Returns the prompt and the tools as JSON: a native request's, or members of a body in an upstream's dialect."""
    if isinstance(request, Request):
        messages = [
            {"role": each.__struct_config__.tag, "parts": _parts(each.content)} for each in conversation(request)
        ]
        native: dict[str, Value] = {"gen_ai.input.messages": msgspec.json.encode(messages).decode()}
        if request.tools:
            native["gen_ai.tool.definitions"] = msgspec.json.encode(request.tools).decode()
        return native
    contents: dict[str, Value] = {}
    for name, members in _CONTENTS.items():
        member = next((each for each in members if each in request), None)
        if member is not None:
            contents[name] = encode_json(request[member]).decode()
    return contents


def _parts(content: str | Sequence[Any]) -> list[Any]:
    """Returns the content of a message, in the form of `gen_ai.input.messages`."""
    if isinstance(content, str):
        return [{"type": "text", "content": content}]
    return [{"type": "text", "content": part.text} if isinstance(part, TextPart) else part for part in content]
