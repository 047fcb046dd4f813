"""One stream between an upstream and a client: commit, liveness, cancel, backpressure.

Owns when the response head is committed, what becomes of a stream whose client or upstream goes away, the attempts at
its answer, and the timers of a stream. Decides nothing about events or bytes: the relay and the encoder do. When a
failed attempt is made again is decided by `retry.py`.

The head is held until the upstream's first event or `commit_after`, so that an early failure has its true status.
A client that is gone closes the upstream at once, at whatever moment; a stream that has ended lets the upstream end its
response too, so that the connection can be used again.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any, Final, Literal, Protocol, cast

from gai_fast._impl import FastPath, LendingTransport, Piece
from gai_fast.errors import Error
from gai_fast.events import Event
from gai_fast.limits import LIMITS
from gai_fast.meter import StreamMeter
from gai_fast.metrics import Outcome, StreamMetrics
from gai_fast.net.retry import Breaker, Failure, RetryPolicy, is_fault_of_upstream, is_of_our_pool
from gai_fast.net.timers import Timer, Timers
from gai_fast.net.writer import size_of
from gai_fast.processors import Chain
from gai_fast.providers import Adapter
from gai_fast.relay import DeltaSink, FrameSink, Relay, State
from gai_fast.request import Request
from gai_fast.settings import ModelSettings, Settings, UpstreamSettings
from gai_fast.stores import Origin
from gai_fast.transcript import Transcript

Translate = Callable[[Error], Error]
Continued = Literal["verified", "prefill"] | None

_OPEN: Final = "breaker_open"

# As constants, because the attribute of an enum costs 75 ns on 3.11, and every read asks; see `upstream.py`.
_IDLE: Final[State] = State.IDLE
_STREAMING: Final[State] = State.STREAMING


class Exchange(Protocol):
    """One request to an upstream and its response, under way."""

    @property
    def is_complete(self) -> bool:
        """Whether all of the response has come, though its last bytes may be still to be told."""

    @property
    def is_waiting(self) -> bool:
        """Whether no connection has come free for it yet, so that nothing was sent."""

    def pause_reading(self) -> None:
        """Stops reading the response; idempotent."""

    def resume_reading(self) -> None:
        """Goes on reading; idempotent."""

    def close(self) -> None:
        """Aborts at whatever moment; nothing is called afterwards; idempotent."""


class Client(Protocol):
    """The client's leg of a stream. Every method is synchronous; none raises for a client that is gone."""

    @property
    def direct(self) -> LendingTransport | None:
        """The transport, where the stream is written in HTTP chunks and its head has gone out; otherwise `None`."""

    def commit(self) -> None:
        """The stream begins: its head goes out with the next bytes."""

    def flush(self) -> None:
        """Sends the head alone: no bytes follow in this turn."""

    def write(self, pieces: Sequence[Piece]) -> None:
        """Bytes of the stream, after `commit`; never none."""

    def end(self, pieces: Sequence[Piece]) -> None:
        """The last bytes, perhaps none, and the proper end of the response."""

    def fail(self, error: Error) -> None:
        """The stream failed before `commit`: the response is this error."""

    def abort(self, error: Error) -> None:
        """The stream broke off after `commit` and cannot say so: the response must not look complete."""


class Output(Protocol):
    """Where the relay's events become bytes."""

    def event(self, event: Event) -> None:
        """Takes one event."""

    def heartbeat(self) -> None:
        """Writes a keep-alive between two events."""

    def take_pieces(self) -> Sequence[Piece]:
        """The bytes since the last spec, in pieces: whoever puts something around them copies them only once."""


class Clock:
    """Milliseconds since the epoch, read once per turn and stream instead of once per event."""

    __slots__ = ("_read", "now_ms")

    def __init__(self, read: Callable[[], int]) -> None:
        self._read = read
        self.now_ms = read()

    def tick(self) -> int:
        """Reads the time."""
        self.now_ms = self._read()
        return self.now_ms

    def __call__(self) -> int:
        return self.now_ms


@dataclass(slots=True, init=False)  # mypyc leaves the `__init__` that `dataclass` makes interpreted: 1.5 µs
class StreamSpec:
    """One answer that somebody asks for.

    Args:
        model: Whom to ask.
        request: A native request; or the client's own body, which goes to an upstream of its dialect as it is.
        output: The relay's sink.
        deltas: The same sink, where it takes deltas that are written already.
        frames: The same sink, where the upstream's bytes are passed on as they are.
        hold: The answer is one JSON object.
        announces: The format can say that what it said is void (`stream.reset`).
        dialect: The name of the format that the client speaks.
        left_out: Paths of the client's fields that have no place in `request`.
        prompt_characters: Length of the request's text, for partial usage.
        is_retry: The client says that it has asked this before.
        other: The same spec for another model, where more than the model differs then; it is also given this spec where
            its answer has begun.
        origin: What the log is told of the stream, which is kept; its output is an encoder. `None`: it is not kept.
        chain: The stream's processors, from `Engine.chain`; it lives through every attempt.
        request_id: For the figures, as what follows.
        trace_id: The 32 hex digits of `traceparent`, where there is one.
        endpoint: The route.
        transport: `sse`, `ndjson`, `json` or `library`.
    """

    model: ModelSettings
    request: Request | dict[str, Any]
    output: Output
    deltas: DeltaSink | None
    frames: FrameSink | None
    hold: bool
    announces: bool
    dialect: str
    left_out: Sequence[str]
    prompt_characters: int | None
    is_retry: bool
    other: Callable[[ModelSettings, StreamSpec | None], StreamSpec] | None
    origin: Origin | None
    chain: Chain | None
    request_id: str
    trace_id: str | None
    endpoint: str
    transport: str

    def __init__(
        self,
        model: ModelSettings,
        request: Request | dict[str, Any],
        output: Output,
        deltas: DeltaSink | None = None,
        frames: FrameSink | None = None,
        *,
        hold: bool = False,
        announces: bool = False,
        dialect: str = "",
        left_out: Sequence[str] = (),
        prompt_characters: int | None = None,
        is_retry: bool = False,
        other: Callable[[ModelSettings, StreamSpec | None], StreamSpec] | None = None,
        origin: Origin | None = None,
        chain: Chain | None = None,
        request_id: str = "",
        trace_id: str | None = None,
        endpoint: str = "",
        transport: str = "",
    ) -> None:
        self.model = model
        self.request = request
        self.output = output
        self.deltas = deltas
        self.frames = frames
        self.hold = hold
        self.announces = announces
        self.dialect = dialect
        self.left_out = left_out
        self.prompt_characters = prompt_characters
        self.is_retry = is_retry
        self.other = other
        self.origin = origin
        self.chain = chain
        self.request_id = request_id
        self.trace_id = trace_id
        self.endpoint = endpoint
        self.transport = transport

    def to(self, model: ModelSettings, *, has_begun: bool) -> StreamSpec:
        """The same spec for another model.

        Args:
            model: Whom to ask.
            has_begun: Whether events of an answer have been given to the output.
        """
        if self.other is None:
            return replace(self, model=model)
        return self.other(model, self if has_begun else None)


class EngineCallbacks(Protocol):
    """What a session needs of the engine."""

    settings: Settings
    policy: RetryPolicy

    @property
    def timers(self) -> Timers:
        """The loop's timers."""

    def breaker(self, upstream: UpstreamSettings) -> Breaker | None:
        """The upstream's breaker, where it has one."""

    def attempt_failed(self, upstream: UpstreamSettings, error: Error) -> None:
        """An attempt has failed."""

    def breaker_opened(self, upstream: UpstreamSettings, error: Error) -> None:
        """An upstream is left alone from now on."""

    def open(self, spec: StreamSpec, session: Session) -> tuple[Adapter, Translate, Exchange]:
        """Asks the upstream of a spec.

        Raises:
            Error: It cannot be asked for this; nothing was sent.
        """

    def ended(self, session: Session, outcome: Outcome) -> None:
        """The stream has ended for its client."""

    def broke(self, session: Session, fault: Exception) -> None:
        """A stream failed because of a bug."""


class Session:
    """Drives one stream. Made by `Engine.start`.

    Args:
        runner: The engine.
        spec: What is asked, and of whom first.
        output: The spec's output, or what keeps its bytes too.
        client: The client's leg.
        stream_id: The stream's id.
        clock: Shared with the output.
        loop: The loop.

    Raises:
        Error: No upstream can be asked for this; nothing was sent.

    Attributes:
        spec: The attempt that is under way.
        attempts: Attempts so far.
        models: Models asked so far.
        metrics: What was measured of the stream, once it has ended.
    """

    def __init__(
        self,
        runner: EngineCallbacks,
        spec: StreamSpec,
        output: Output,
        client: Client,
        *,
        stream_id: str,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.spec = spec
        self.stream_id = stream_id
        self.attempts = 0
        self.models = 1
        self.metrics: StreamMetrics | None = None
        self._runner = runner
        self._output = output
        self._client = client
        self._clock = clock
        self._stream = spec.model.stream
        self._upstream = spec.model.upstream
        self._timers = runner.timers
        self._loop = loop
        self._hold = spec.hold
        self._model = spec.model.name
        self._meter = StreamMeter(perf_counter())
        self._has_told = False
        self._fast_path: FastPath | None = None
        self._reading: tuple[float, int] | None = None
        self._is_cancelled = False
        self._exchange: Exchange | None = None
        self._committed = False
        self._over = False
        self._paused = False
        self._read = 0
        self._began = self._asked = self._last_write = loop.time()
        self._timer: Timer | None = None
        self._flush_handle: asyncio.TimerHandle | None = None
        self._due_handle: asyncio.TimerHandle | None = None
        self._breaker: Breaker | None = None
        self._here = 0  # attempts at this model
        self._retries = 0
        self._next: tuple[StreamSpec, Continued] | None = None
        self._continued: Continued = None
        self._has_content = False
        self._next_handle: asyncio.TimerHandle | None = None
        self._fallbacks = list(spec.model.fallback)
        self._tried = [spec.model.name]
        wish = self._stream.on_midstream_failure
        self._mends = wish == "continue" or (wish == "restart" and spec.announces)
        self._transcript = Transcript() if wish == "continue" else None
        runner.policy.budget.request(self._began)
        self.relay: Relay
        self._start(spec)
        if not (self._upstream.retries and not spec.is_retry) and not (self._fallbacks or self.spec.model.fallback_on):
            self._forget_request()
        self._arm()

    # -- attempts --

    def _start(self, spec: StreamSpec) -> None:
        """The first attempt; where its breaker is open, at the first model whose is not."""
        refused: Error | None = None
        while True:
            try:
                adapter, translate, self._exchange = self._ask(spec)
                break
            except Error as error:
                refused = refused or error
                following = self._following() if refused.reason == _OPEN else None
                if following is None:
                    raise refused from None
                spec = following
        if spec.output is not self.spec.output:
            self._output = spec.output
        self.spec = spec
        self.relay = Relay(
            adapter,
            self._output,
            deltas=self._deltas_of(spec),
            frames=spec.frames,
            chain=spec.chain,
            stream_id=self.stream_id,
            upstream=spec.model.upstream.name,
            on_malformed=self._stream.on_malformed,
            translate=translate,
            prompt_characters=spec.prompt_characters,
            failed=self._failed,
            transcript=self._transcript,
        )

    def _deltas_of(self, spec: StreamSpec) -> DeltaSink | None:
        """Where deltas go that are written already; nowhere if a transcript or a processor must see each."""
        is_seen = self._transcript is not None or (spec.chain is not None and spec.chain.touches == "deltas")
        return None if is_seen else spec.deltas

    def _ask(self, spec: StreamSpec) -> tuple[Adapter, Translate, Exchange]:
        """Asks the upstream of a spec, where its breaker lets it."""
        now = self._loop.time()
        breaker = self._runner.breaker(spec.model.upstream)
        if breaker is not None and not breaker.admits(now, self):
            raise Error(
                "provider_unavailable",
                f"upstream {spec.model.upstream.name!r} has failed too often, and is left alone for a while",
                reason=_OPEN,
                # While its probe is under way nobody knows.
                retry_after_ms=max(1, round((breaker.seconds_left(now) or LIMITS.retry_first) * 1000)),
                provider=spec.model.upstream.provider,
            )
        is_asked = False
        try:
            opened = self._runner.open(spec, self)
            is_asked = True
        finally:
            if not is_asked and breaker is not None:
                breaker.left(self)
        self._breaker = breaker
        self._upstream = spec.model.upstream
        self._asked = now
        self.attempts += 1
        self._retries += self._here > 0
        self._here += 1
        self._meter.asked(perf_counter())
        return opened

    def _failed(self, error: Error) -> bool:
        """What becomes of a failed attempt; `True`: another one is made."""
        now = self._loop.time()
        self._fast_path = None
        self._runner.attempt_failed(self._upstream, error)
        self._judge(None if self.relay.has_content else error, now)
        following = None if self._over else self._following_attempt(error, now)
        if following is None:
            return False
        self._close_exchange()
        self._asked = math.inf
        spec, continued, delay = following
        self._next = spec, continued
        self._next_handle = self._loop.call_later(delay, self._ask_again)
        return True

    def _following_attempt(self, error: Error, now: float) -> tuple[StreamSpec, Continued, float] | None:
        """The attempt that follows a failure, how it goes on, and in how many seconds; `None`: none does."""
        delivered, spec = self.relay.delivered, self.spec
        continued: Continued = None
        if delivered or self._continued is not None:
            if not self._mends:
                return None
            if self._transcript is not None:
                if self._continued == "prefill" and not self.relay.has_content:
                    return spec, "verified", 0.0  # it was refused
                can_prefill = spec.model.prefill and isinstance(spec.request, Request) and self._transcript.text
                continued = "prefill" if can_prefill and self._continued != "verified" else "verified"
        breaker = self._runner.breaker(self._upstream)
        is_open = breaker is not None and breaker.state(now) == "open"
        is_silent = error.code == "timeout" and error.reason in ("first_event", "idle") and not self.relay.has_content
        verdict = self._runner.policy.decide(
            Failure(
                error,
                is_silence=is_silent,
                attempts=self._here,
                retries=0 if is_open else self._upstream.retries,
                seconds_to_commit=self._began + self._stream.commit_after - now,
                is_clients_retry=spec.is_retry,
            ),
            now,
        )
        if verdict.action == "again":
            return spec, continued, verdict.delay
        if continued is not None:
            return None
        if verdict.action == "end":
            self._fallbacks.clear()
        if error.code in spec.model.fallback_on:
            self._fallbacks.insert(0, spec.model.fallback_on[error.code])
        other = self._following()
        return None if other is None else (other, None, 0.0)

    def _following(self) -> StreamSpec | None:
        """The spec for the next model of `fallback`, where there is one left that has not been asked."""
        while self._fallbacks:
            model = self._runner.settings.model(self._fallbacks.pop(0))
            if model is None or model.name in self._tried:
                continue
            self._tried.append(model.name)
            has_begun = self.attempts > 0 and self.relay.state is not _IDLE
            try:
                # What the client asked of the stream holds whoever answers.
                spec = self.spec.to(replace(model, stream=self._stream), has_begun=has_begun)
            except Error:
                continue  # what the client asks cannot be said in the dialect of this one
            self._here = 0
            self.models += 1
            return spec
        return None

    def _ask_again(self) -> None:
        """The attempt that was promised."""
        self._next_handle = None
        try:
            self._ask_next()
        except Exception as problem:  # noqa: BLE001  # see `_break_off`
            self._break_off(problem)

    def _ask_next(self) -> None:
        while self._next is not None and not self._over:
            (spec, continued), self._next = self._next, None
            asked = spec
            if continued == "prefill" and self._transcript is not None and isinstance(spec.request, Request):
                asked = replace(spec, request=spec.request.with_prefill(self._transcript.text or ""))
            try:
                adapter, translate, exchange = self._ask(asked)
            except Error:
                # What cannot be asked for this was not asked: the failure before it stands, unless another one can be.
                if continued == "prefill":
                    self._next = spec, "verified"
                    continue
                other = None if continued is not None else self._following()
                if other is None:
                    self._clock.tick()
                    self.relay.give_up()
                    self._advance()
                    return
                self._next = other, None
                continue
            if spec.output is not self.spec.output:
                if self._committed:
                    self._flush()
                self._output = spec.output
            self.spec, self._continued, self._exchange = spec, continued, exchange
            self._has_content = False
            if self._paused:
                exchange.pause_reading()
            self.relay.begin(
                adapter,
                self._output,
                deltas=self._deltas_of(spec),
                frames=spec.frames,
                upstream=spec.model.upstream.name,
                translate=translate,
                continued=continued,
            )
            self._disarm()
            self._arm()
            self._advance()

    def _note_content(self) -> None:
        """An attempt's first content: the upstream is well, and nothing is asked again in silence."""
        self._has_content = True
        self._judge(None, self._last_write)
        self._forget_request()

    def _forget_request(self) -> None:
        """Lets go of what is not asked again."""
        if not self._mends:
            self.spec.request, self.spec.other = {}, None

    def _judge(self, error: Error | None, now: float) -> None:
        """Tells the breaker how the attempt went; once for each."""
        breaker, self._breaker = self._breaker, None
        if breaker is None:
            return
        if error is not None and is_fault_of_upstream(error):
            if breaker.failed(now, self):
                self._runner.breaker_opened(self._upstream, error)
        elif error is not None and is_of_our_pool(error):
            breaker.left(self)
        else:
            breaker.succeeded()

    # -- the upstream --

    def head_received(self, status: int, headers: dict[str, str]) -> None:
        """The upstream's status and headers."""
        if not self._over:
            try:
                self.relay.receive_head(status, headers)
                self._advance()
            except Exception as problem:  # noqa: BLE001  # see `_break_off`
                self._break_off(problem)

    def body_received(self, data: bytes) -> FastPath | None:
        """Bytes of the upstream's body."""
        if self._over:
            return None
        try:
            self._settle()
            self._reading = perf_counter(), len(data)
            self._read += len(data)
            self.relay.receive_data(data, self._clock.tick())
            self._advance()
            self._note_read()
            if self._due_handle is None and not self._over:
                self._await_due()
            return None if self._over else self._shorten()
        except Exception as problem:  # noqa: BLE001  # see `_break_off`
            self._break_off(problem)
            return None

    def _shorten(self) -> FastPath | None:
        """Who passes on what comes next as long as it is nothing but more of the same."""
        copier, deltas = self.relay.copier, self.spec.deltas
        # Nothing may be held back, and nobody be waiting for a first token, or for each of them.
        if copier is None or deltas is None or not self._has_told or self._stream.flush_interval or self._due_handle:
            return None
        if self._fast_path is None:
            outlet, output = self._client.direct, cast(object, self._output)
            if outlet is None or output is not deltas:
                return None
            self._fast_path = FastPath(copier, outlet, self._clock.tick, self._meter.counters)
        self._fast_path.follow(deltas.seq, self.relay.deltas)
        return self._fast_path

    def _settle(self) -> None:
        """Notes what has taken the fast path, before anything else happens to the stream."""
        fast_path = self._fast_path
        if fast_path is not None:
            self.relay.settle()
            self._last_write = max(self._last_write, fast_path.wrote_at)

    def exchange_ended(self, error: Error | None) -> None:
        """The upstream's body is complete, or broke."""
        self._exchange = None
        if self._over:
            self._disarm()
            return
        try:
            self._settle()
            self.relay.receive_eof(error, self._clock.tick())
            self._advance()
        except Exception as problem:  # noqa: BLE001  # see `_break_off`
            self._break_off(problem)

    def _flush_due(self) -> None:
        """What processors have held back for a time."""
        self._due_handle = None
        if self._over:
            return
        try:
            self.relay.tick(self._clock.tick())
            self._advance()
            if not self._over:
                self._await_due()
        except Exception as problem:  # noqa: BLE001  # see `_break_off`
            self._break_off(problem)

    def _await_due(self) -> None:
        """Comes back for what processors hold back for a time, where they do."""
        due = self.relay.due_ms
        if due is not None:
            self._due_handle = self._loop.call_later((due - self._clock.now_ms) / 1e3, self._flush_due)

    # -- the client --

    def client_lost(self) -> None:
        """The client is gone: so is the reason to ask the upstream. Nothing where the stream has ended."""
        if not self._over:
            self._settle()
            self._leave("disconnected")
            self._close_exchange()

    def pause(self) -> None:
        """The client takes its bytes too slowly: the upstream is not read any more."""
        self._paused = True
        self._meter.paused(perf_counter())
        if self._exchange is not None:
            self._exchange.pause_reading()

    def resume(self) -> None:
        """The client has caught up."""
        self._paused = False
        self._meter.resumed(perf_counter())
        if self._exchange is not None:
            self._exchange.resume_reading()
            if self.relay.is_silent and not self._over:
                self._asked = self._loop.time()  # nothing could come until now
                self._disarm()
                self._arm()

    def cancel(self) -> None:
        """Ends the stream on request: the upstream is closed, the client told."""
        if self._over:
            return
        self._is_cancelled = True
        try:
            self._settle()
            self._close_exchange()
            self._clock.tick()
            self.relay.cancel()
            self._advance()
        except Exception as problem:  # noqa: BLE001  # see `_break_off`
            self._break_off(problem)

    def fail(self, error: Error) -> None:
        """Ends the stream with an error of the gateway's own."""
        if self._over:
            return
        try:
            self._settle()
            self._close_exchange()
            self._clock.tick()
            self.relay.fail(error)
            self._advance()
        except Exception as problem:  # noqa: BLE001  # see `_break_off`
            self._break_off(problem)

    def _break_off(self, problem: Exception) -> None:
        """Ends the stream because something beside the relay raised: the client hears of it, whatever is broken."""
        self.relay.break_off(problem)
        try:
            if not self._over:
                self._end()
                return
        except Exception as worse:  # noqa: BLE001  # not even this end can be handed over
            problem = worse
        self._runner.broke(self, problem)
        self._leave("failed")
        self._close_exchange()
        self._client.abort(self.relay.error or Error("internal"))

    # -- time --

    # One timer, armed lazily: what happens only changes what is due, and the timer finds that out when it fires.

    def _arm(self) -> None:
        """Sets the timer for what is due first, where nothing happens until then."""
        due = math.inf
        if self.relay.is_silent and not self._paused:
            due = self._asked + self._upstream.first_event_timeout
        if not self._hold:
            if not self._committed:
                due = min(due, self._began + self._stream.commit_after)
            if self._stream.heartbeat:
                due = min(due, self._last_write + self._stream.heartbeat)
        if due < math.inf:
            self._timer = self._timers.schedule(due, self._look)

    def _look(self) -> None:
        self._timer = None
        try:
            self._settle()
            self._look_at(self._loop.time())
        except Exception as problem:  # noqa: BLE001  # see `_break_off`
            self._break_off(problem)

    def _look_at(self, now: float) -> None:
        if self.relay.is_silent and not self._paused and now >= self._asked + self._upstream.first_event_timeout:
            self._fail_first_event()
        elif not self._hold and not self._committed and now >= self._began + self._stream.commit_after:
            self._commit()
            self._client.flush()
        elif self._stream.heartbeat and now >= self._last_write + self._stream.heartbeat:
            self._last_write = now
            if self._committed and not self._paused:
                self._output.heartbeat()
                self._hand_over()  # a ping is no token
        if not self._over:
            self._arm()

    def _fail_first_event(self) -> None:
        name, provider = self._upstream.name, self._upstream.provider
        within = f"within {self._upstream.first_event_timeout:g} s (first_event_timeout)"
        if self._exchange is not None and self._exchange.is_waiting:
            text = f"no connection to upstream {name!r} came free {within}: see max_connections"
            error = Error("overloaded", text, reason="upstream_pool", phase="connect", provider=provider)
        else:
            text = f"upstream {name!r} sent no event {within}"
            error = Error("timeout", text, reason="first_event", provider=provider)
        self._clock.tick()
        self.relay.fail_attempt(error)
        self._advance()

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- figures --

    def _note_read(self) -> None:
        """A read has been handled, at the latest when the stream's figures are asked for."""
        reading = self._reading
        if reading is not None:
            self._reading = None
            self._meter.counters.read(reading[0], perf_counter(), reading[1], self.relay.deltas)

    def measured(self, outcome: Outcome = "finished") -> StreamMetrics:
        """The figures so far, where the stream ends in this turn: what has been said is handed over."""
        self._settle()
        self._note_read()
        relay, spec = self.relay, self.spec
        if not self._has_told and outcome != "disconnected" and not (self._hold and outcome == "failed"):
            self._note_told()
        end, upstream = relay.end, self._upstream
        return self._meter.end(
            perf_counter(),
            outcome=outcome,
            events=relay.deltas + relay.others,
            code=None if relay.error is None else relay.error.code,
            finish_reason=end.get("finish_reason"),
            usage=end.get("usage"),
            provider=end.get("provider") or upstream.provider.partition(":")[0],
            upstream=upstream.name,
            model=self._model,
            answered_by=end.get("model", ""),
            endpoint=spec.endpoint,
            transport=spec.transport,
            stream_id=self.stream_id,
            request_id=spec.request_id,
            trace_id=spec.trace_id,
            retries=self._retries,
            fallbacks=self.models - 1,
        )

    def _note_told(self) -> None:
        """What has been said is handed to the client: its first token, where there is one in it."""
        if self.relay.has_told:
            self._has_told = True
            self._meter.told(perf_counter())

    # -- out --

    def _advance(self) -> None:
        """Passes on what the relay has said since the last call."""
        state = self.relay.state
        if not self._has_content and self.relay.has_content:
            self._note_content()
        if state is _STREAMING and self._committed and not self._stream.flush_interval:
            self._flush()
        elif self.relay.is_over:
            self._end()
        elif self._hold:
            if self._read > LIMITS.held_answer:
                text = f"the answer is larger than {LIMITS.held_answer} bytes: ask for a stream"
                self.fail(Error("provider_unavailable", text, reason="answer_too_large"))
        elif self._committed:
            self._flush_soon()
        elif state is not _IDLE:
            self._commit()
            self._flush_soon()

    def _commit(self) -> None:
        self._committed = True
        self._last_write = self._loop.time()
        self._client.commit()

    def _flush_soon(self) -> None:
        if not self._stream.flush_interval or self._read > self._stream.client_buffer:
            self._flush()
        elif self._flush_handle is None:
            self._flush_handle = self._loop.call_later(self._stream.flush_interval, self._flush_gathered)

    def _flush_gathered(self) -> None:
        try:
            self._flush()
        except Exception as problem:  # noqa: BLE001  # see `_break_off`
            self._break_off(problem)

    def _flush(self) -> None:
        is_written = self._hand_over()
        # A format may have no word for what was said. A program in this process takes events, not bytes.
        if not self._has_told and (is_written or self.spec.transport == "library"):
            self._note_told()

    def _hand_over(self) -> bool:
        """Gives the client what has been written for it, which may be nothing."""
        if self._flush_handle is not None:
            self._flush_handle.cancel()
            self._flush_handle = None
        self._read = 0
        pieces = self._output.take_pieces()
        size = size_of(pieces)
        if not size:
            return False
        self._last_write = self._loop.time()
        self._meter.counters.wrote(size)
        self._client.write(pieces)
        return True

    def _end(self) -> None:
        error = self.relay.error
        pieces = [] if self.relay.is_cut else self._output.take_pieces()
        self._meter.counters.wrote(size_of(pieces))
        self._leave("failed" if error is not None else "cancelled" if self._is_cancelled else "finished")
        if error is not None:
            self._close_exchange()
        elif self._exchange is not None:
            if not self._exchange.is_complete:
                due = self._loop.time() + LIMITS.upstream_tail
                self._timer = self._timers.schedule(due, self._close_exchange)
            self._exchange.resume_reading()
        if not self._committed and error is not None and (self._hold or not self.relay.delivered):
            self._client.fail(error)
            return
        if self.relay.is_cut:
            self._client.abort(error or Error("internal"))
            return
        if not self._committed:
            self._commit()
        self._client.end(pieces)

    def _leave(self, outcome: Outcome) -> None:
        """The stream is over for its client: nothing of it is timed or written any more."""
        if self._over:
            return
        self._over = True
        self._disarm()
        if self._breaker is not None:
            if outcome == "finished":
                self._breaker.succeeded()
            else:
                self._breaker.left(self)
            self._breaker = None
        for handle in (self._flush_handle, self._due_handle, self._next_handle):
            if handle is not None:
                handle.cancel()
        self._flush_handle = self._due_handle = self._next_handle = self._next = None
        if self.relay.fault is not None:
            self._runner.broke(self, self.relay.fault)
        self._runner.ended(self, outcome)
        self.relay.failed = None  # else each keeps the other, with all their memory, until the garbage collector comes

    def _close_exchange(self) -> None:
        if self._exchange is not None:
            exchange, self._exchange = self._exchange, None
            exchange.close()
