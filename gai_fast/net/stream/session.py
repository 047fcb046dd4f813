"""One stream: the attempts at its answer, the relay that reads them, and the delivery to its client.

Owns the connection of the three: every callback and timer of a stream, its metrics, and its end. `attempts.py` decides
on upstreams, `delivery.py` on the response, `core/relay.py` on events. The caller provides `StreamSpec.chain` and the
output.

1. If the client disconnects, the upstream connection is closed at once, in any phase. After the end of a stream, the
   upstream may also end its response, so that the connection can be reused.
2. An exception of our own code in any callback or timer ends the stream for its client, its upstream and the engine;
   see `_guarded` and `_break_off`. The relay does so for the parts that it drives.
3. The settings of the first model hold for the stream, whichever model answers.
4. A stream is counted before its client has read its end; if the count is shared between workers, for all workers
   (`Ledger.reported`).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from enum import Enum, auto
from functools import partial
from typing import Final, cast

from mypy_extensions import mypyc_attr

from gai_fast.core.account import Bill
from gai_fast.core.legal_stream import State
from gai_fast.core.meter import StreamMeter
from gai_fast.core.relay import Relay
from gai_fast.core.sinks import DeltaSink, EventSink
from gai_fast.kernels import FastPath, Piece
from gai_fast.ledger import Reservation
from gai_fast.model.errors import Error
from gai_fast.model.events import Event, FinishReason
from gai_fast.model.limits import SHARED
from gai_fast.model.metrics import Outcome, StreamMetrics
from gai_fast.model.money import Amount, Charge, total_of
from gai_fast.model.upstream_headers import passed_headers
from gai_fast.net.attempts.attempt import Attempt, AttemptRunner, Attempts
from gai_fast.net.attempts.spec import LIBRARY, Clock, Output, StreamSpec
from gai_fast.net.limits import LIMITS
from gai_fast.net.logs.delivery import Client, Delivery
from gai_fast.net.logs.writer import Headers
from gai_fast.net.stream.allowance import Allowance
from gai_fast.net.upstream.connection import Receiver
from gai_fast.providers import get_provider
from gai_fast.runtime.timers import Timer, Timers

# Constants: an enum attribute costs 75 ns on 3.11, and every read needs one; see `connection.py`.
_IDLE: Final[State] = State.IDLE
_STREAMING: Final[State] = State.STREAMING
perf_counter: Final = time.perf_counter  # a constant: looking up a global name costs 30 ns


class Phase(Enum):
    """The phases of a session, in order; `HOLDING_END` may be left out."""

    RUNNING = auto()
    HOLDING_END = auto()
    """The stream has ended, but its response continues until the upstream's body ends; see `Session._hold_end`."""
    OVER = auto()
    """The engine no longer counts the stream."""


_RUNNING: Final[Phase] = Phase.RUNNING
_HOLDING_END: Final[Phase] = Phase.HOLDING_END
_OVER: Final[Phase] = Phase.OVER


@mypyc_attr(allow_interpreted_subclasses=True)
class EngineCallbacks:
    """The part of the engine that a session uses.

    Attributes:
        timers: The loop's timers.
    """

    timers: Timers

    def ended(self, session: Session, outcome: Outcome) -> asyncio.Future[None] | None:
        """Removes an ended stream from the engine's counts.

        Returns:
            A future that the end of the response waits for. `None` if the response ends at once.
        """
        raise NotImplementedError

    def broke(self, session: Session, fault: Exception) -> None:
        """Handles a stream that failed because of a bug."""
        raise NotImplementedError

    def grow(self, session: Session, wanted: Reservation, then: Callable[[int], None]) -> None:
        """Reserves more spend for a stream; as `Ledger.grow`."""
        raise NotImplementedError


class Session(Receiver):
    """Drives one stream. Made by `Engine.start`.

    Args:
        runner: The engine.
        targets: Send the requests to the upstreams.
        spec: The first attempt.
        client: The client's response.
        stream_id: The stream's id.
        clock: The clock, shared with the output.
        loop: The loop.

    Raises:
        Error: No upstream can serve the request; nothing was sent.

    Attributes:
        attempts: The attempts at the answer.
        relay: The answer.
        metrics: The figures of the stream. `None` before its end.
        transport: The transport of the first attempt's spec.
    """

    def __init__(
        self,
        runner: EngineCallbacks,
        targets: AttemptRunner,
        spec: StreamSpec,
        client: Client,
        *,
        stream_id: str,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.stream_id = stream_id
        self.transport = spec.transport
        self.metrics: StreamMetrics | None = None
        self._runner = runner
        self._clock = clock
        self._stream = spec.model.stream
        self._timers = runner.timers
        self._loop = loop
        self._hold = spec.hold
        self._model = spec.model.name
        self._meter = StreamMeter(perf_counter())
        self._phase = _RUNNING
        self._is_left = False
        self._first_delta_sent = False
        self._fast_path: FastPath | None = None
        self._read_at = 0.0  # of the last read, which is not counted yet; as `_read_bytes`
        self._read_bytes = 0
        self._allowance: Allowance | None = None
        self._held = b""  # bytes of the body that wait for a larger reservation
        self._held_end: tuple[Error | None] | None = None  # the end of the body behind them
        self._is_taking = False  # they are being handled
        self._timer: Timer | None = None
        self._tick_handle: asyncio.TimerHandle | None = None
        self._again_handle: asyncio.TimerHandle | None = None
        self._delivery = Delivery(
            client,
            spec.output,
            self._stream,
            self._meter.counters,
            loop,
            whole=spec.hold,
            is_timed=spec.log_header is None,
        )
        self._bill = Bill()
        self.attempts = Attempts(targets, spec, stream_id, self._meter, self._bill, loop)
        attempt = None if self.attempts.waits() else self.attempts.first(self)
        is_made = False
        try:
            self._use_output(spec.output)
            self.relay = self._make_relay(attempt)
            if attempt is None:
                self._look_later()
            self._arm()
            is_made = True
        finally:
            if not is_made:  # no other object refers to the open request
                self.attempts.close_exchange()
                self.attempts.leave("failed")

    @property
    def spec(self) -> StreamSpec:
        """The current attempt, or the last one."""
        return self.attempts.spec

    @property
    def last_event(self) -> Event:
        """The `finish` or `error`; empty before it."""
        return self.relay.end

    @property
    def has_content(self) -> bool:
        """Whether any content has been written, even if it is void now."""
        return self.relay.delivered or self.relay.has_told

    @property
    def caller(self) -> str:
        """The name of the key that the stream belongs to."""
        return self.attempts.spec.caller

    @property
    def model(self) -> str:
        """The name of the model that the client requested."""
        return self._model

    @property
    def upstream_headers(self) -> Headers:
        """The headers of the upstream's response for the client, if the client reads the upstream's own bytes."""
        spec = self.attempts.spec
        if spec.frames is None or self._again_handle is not None:  # a failed attempt's headers are void
            return ()
        return passed_headers(self.relay.headers) if self.relay.dialect == spec.dialect else ()

    # -- the exception boundary: rule 2 --

    def _guarded(self, call: Callable[[], FastPath | None]) -> FastPath | None:
        """Runs the work of a callback, unless the stream is over. An exception ends the stream.

        `head_received` and `body_received` have their own `try`, because every request or read calls them.
        """
        if self._phase is _OVER:
            return None
        try:
            return call()
        except Exception as problem:  # noqa: BLE001  # rule 2
            self._break_off(problem)
            return None

    # -- attempts --

    @property
    def _answering(self) -> str:
        """The name of the upstream that answers. For a shared answer it may be another target of the model."""
        spec = self.attempts.spec
        return spec.model.upstream.name if spec.sharing is None else spec.sharing.upstream

    def _make_relay(self, attempt: Attempt | None) -> Relay:
        """Returns the relay; it gets nothing to read until the first attempt is made."""
        spec = self.attempts.spec
        model = spec.model
        return Relay(
            get_provider(model.upstream.provider).adapter(model.id) if attempt is None else attempt.adapter,
            self._delivery.output,
            deltas=self._deltas(),
            frames=spec.frames,
            chain=spec.chain,
            stream_id=self.stream_id,
            upstream=self._answering,
            on_malformed=self._stream.on_malformed,
            translate=None if attempt is None else attempt.translate,
            prompt_characters=spec.prompt_characters,
            failed=self._failed,
            transcript=self.attempts.transcript,
            account=None if attempt is None else attempt.account,
        )

    # -- a limit of spend --

    def allow(self, reserved: Amount) -> None:
        """Ends the stream if it needs more spend than is reserved and the ledger gives no more.

        Args:
            reserved: The spend that is reserved.
        """
        sharing = self.attempts.spec.sharing
        if sharing is None or sharing.role == "miss":  # another stream's answer costs nothing
            self._allowance = Allowance(reserved)
            self._cover(self._allowance)

    def _cover(self, allowance: Allowance) -> None:
        """Compares the reservation with the attempt under way, and with what the others have cost so far."""
        attempt = self.attempts.attempt
        account = None if attempt is None else attempt.account
        price = None if account is None else account.price
        earlier = 0
        if price is not None:
            earlier = sum([each.amount for each in self.earlier_charges if each.currency == price.currency])
        allowance.begin(price, self.attempts.spec.prompt_characters or 0, earlier)

    def _take_held_now(self, allowance: Allowance) -> None:
        """Calls `_take_held`, which the ledger's answer must not call again."""
        self._is_taking = True
        try:
            self._take_held(allowance)
        finally:
            self._is_taking = False

    def _take_held(self, allowance: Allowance) -> None:
        """Handles bytes of the body as far as the reservation covers them. Asks for more if it is used up.

        While the ledger is asked, the other bytes are held and the upstream is not read.
        """
        relay = self.relay
        while self._held and not allowance.is_asking and self._phase is not _OVER:
            before = relay.characters
            size = len(self._held)
            if before + size > allowance.characters and not relay.is_over:
                if allowance.is_used_up(before):
                    allowance.is_asking = True
                    self._runner.grow(self, allowance.wanted(before), self._grown)
                    continue
                size = LIMITS.spend_part
            part, self._held = self._held[:size], self._held[size:]
            self._feed(part)
            allowance.note(relay.characters - before)
        if self._phase is _OVER:
            self._held = b""
        elif self._held_end is not None and not self._held:
            end, self._held_end = self._held_end, None
            self._receive_end(end[0])
        else:
            self._read_or_wait()

    def _read_or_wait(self) -> None:
        """Reads the upstream, unless its client or the ledger is waited for."""
        exchange = self.attempts.exchange
        if exchange is None:
            return
        if self._delivery.is_paused or (self._allowance is not None and self._allowance.is_asking):
            exchange.pause_reading()
        else:
            exchange.resume_reading()

    def _grown(self, more: Amount) -> None:
        self._guarded(partial(self._take_spend, more))

    def _take_spend(self, more: Amount) -> None:
        """Takes what the ledger has reserved; called within `_take_held` or later."""
        allowance = self._allowance
        if allowance is None:
            return
        allowance.is_asking = False
        if not more:
            self._held = b""
            self._end_early(partial(self.relay.stop, "length", "spend"))
            return
        allowance.grow(more)
        if not self._is_taking:
            self._take_held_now(allowance)

    def _use_output(self, former: Output) -> None:
        """Switches to the output of the attempt's spec, if it is another one."""
        output = self.attempts.spec.output
        if output is not former:
            if self._delivery.is_committed:
                self._send()
            self._delivery.output = output

    def _deltas(self) -> DeltaSink | None:
        """Returns the sink of already written deltas. `None` if a transcript or a processor must see each delta."""
        spec = self.attempts.spec
        is_seen = self.attempts.transcript is not None or (spec.chain is not None and spec.chain.touches == "deltas")
        return None if is_seen else spec.deltas

    def _failed(self, error: Error) -> bool:
        """Decides whether another attempt follows a failure. Called by the relay."""
        self._fast_path = None
        delay = None if self._phase is _OVER else self.attempts.failed(error, self.relay)
        if delay is None:
            return False
        self._again_handle = self._loop.call_later(delay, partial(self._guarded, self._ask_again))
        return True

    def _ask_again(self) -> None:
        """Makes the promised attempt."""
        self._again_handle = None
        self._begin_attempt()

    def _look_later(self) -> None:
        self._again_handle = self._loop.call_later(LIMITS.unmeasured_look, partial(self._guarded, self._ask_first))

    def _ask_first(self) -> None:
        """Makes the first attempt, unless it must wait longer."""
        self._again_handle = None
        former = self.attempts.spec.output
        if self.attempts.waits():
            self._look_later()
            return
        try:
            attempt = self.attempts.first(self)
        except Error as error:
            self._clock.tick()
            self.relay.fail(error)
            self._advance()
            return
        self._follow(former, attempt)

    def _begin_attempt(self) -> FastPath | None:
        """Makes the next attempt, or joins the hedge. Returns the fast path of the hedge's next reads, or `None`."""
        former = self.attempts.spec.output
        attempt = self.attempts.again(self, self.relay)
        if attempt is None:
            self._clock.tick()
            self.relay.give_up()
            self._advance()
            return None
        self._follow(former, attempt)
        hedge, attempt.hedge = attempt.hedge, None
        return None if hedge is None else hedge.give_to(self)

    def _follow(self, former: Output, attempt: Attempt) -> None:
        """Reads the answer of an attempt that was made after the start of the stream.

        Args:
            former: The output until now.
            attempt: The attempt.
        """
        self._use_output(former)
        if self._delivery.is_paused and attempt.exchange is not None:
            attempt.exchange.pause_reading()
        if self._allowance is not None:
            self._held, self._held_end = b"", None  # of the attempt before
            self._cover(self._allowance)
        self.relay.begin(
            attempt.adapter,
            self._delivery.output,
            deltas=self._deltas(),
            frames=attempt.spec.frames,
            upstream=self._answering,
            translate=attempt.translate,
            account=attempt.account,
            continued=attempt.continued,
        )
        self._arm()
        self._advance()

    # -- a second target, while the first is silent --

    def _hedge_started(self) -> FastPath | None:
        """Continues with the second target's answer, which has its first event."""
        return self._guarded(self._take_hedge)

    def _take_hedge(self) -> FastPath | None:
        self.attempts.take_hedge()
        return self._begin_attempt()

    def _hedge_failed(self, error: Error) -> None:
        """Continues without the second target."""
        self._guarded(partial(self._drop_hedge, error))

    def _drop_hedge(self, error: Error | None) -> None:
        self.attempts.drop_hedge(error)
        if self._allowance is not None:  # the hedge may have cost its prompt
            self._cover(self._allowance)

    # -- the upstream (`upstream.Receiver`) --

    def head_received(self, status: int, headers: dict[str, str]) -> None:
        """Receives the upstream's status and headers."""
        if self._phase is _OVER:
            return
        try:
            self.relay.receive_head(status, headers)
            self._advance()
        except Exception as problem:  # noqa: BLE001  # rule 2
            self._break_off(problem)

    def body_received(self, data: bytes) -> FastPath | None:
        """Receives bytes of the upstream's body. Returns the fast path for the next reads, or `None`."""
        if self._phase is _OVER:
            return None
        try:
            return self._receive(data)
        except Exception as problem:  # noqa: BLE001  # rule 2
            self._break_off(problem)
            return None

    def _receive(self, data: bytes) -> FastPath | None:
        self._settle()
        allowance = self._allowance
        if allowance is None or (not self._held and self.relay.characters + len(data) <= allowance.characters):
            return self._shorten() if self._feed(data) else None
        self._held += data
        self._take_held_now(allowance)
        return None

    def _feed(self, data: bytes) -> bool:
        """Handles bytes of the body; returns whether the stream goes on."""
        size = len(data)
        self._read_at, self._read_bytes = perf_counter(), size
        self._delivery.gathered += size
        self.relay.receive_data(data, self._clock.tick())
        self._advance()
        if self._phase is _OVER:
            return False
        self._note_read(perf_counter())
        if self._tick_handle is None:
            self._await_tick()
        return True

    def exchange_ended(self, error: Error | None) -> None:
        """Receives the end of the upstream's body, or the error that broke it."""
        self.attempts.exchange_ended()
        if self._phase is _OVER:
            self._disarm()
        else:
            self._guarded(partial(self._receive_end, error))

    def _receive_end(self, error: Error | None) -> None:
        if self._held:
            self._held_end = (error,)
            return
        self._settle()
        if error is not None and error.code == "internal":  # a failure of our own code: see `Receiver`
            raise error.__cause__ or error
        self.relay.receive_eof(error, self._clock.tick())
        self._advance()

    def _shorten(self) -> FastPath | None:
        """Returns the fast path for the next reads, or `None`."""
        copier, deltas = self.relay.copier, self.attempts.spec.deltas
        # The fast path needs: no bytes held back, the first token sent, and no part that must see every token.
        if (
            copier is None
            or deltas is None
            or not self._first_delta_sent
            or self._stream.flush_interval
            or self._tick_handle is not None
        ):
            return None
        if self._fast_path is None:
            direct, output = self._delivery.direct, cast(object, self._delivery.output)
            if direct is None or output is not deltas:
                return None
            self._fast_path = FastPath(copier, direct, self._clock.tick, self._meter.counters)
        if self._allowance is None:
            self._fast_path.follow(deltas.seq, self.relay.deltas)
        else:  # no read has more characters than bytes
            covered = self._allowance.characters - self.relay.characters
            self._fast_path.follow(deltas.seq, self.relay.deltas, self._meter.counters.received + covered)
        return self._fast_path

    def _settle(self) -> None:
        """Counts the deltas of the fast path. Called before anything else happens to the stream."""
        fast_path = self._fast_path
        if fast_path is not None:
            self.relay.settle()
            self._delivery.last_write = max(self._delivery.last_write, fast_path.wrote_at)

    # -- the client --

    def client_lost(self) -> None:
        """Ends the stream because its client has disconnected: rule 1. Does nothing if the stream has ended."""
        self._is_left = True
        if self._phase is not _OVER:
            try:
                self._settle()
                self._leave("disconnected")
            finally:  # in every case: the upstream must not be read any more
                self.attempts.close_exchange()

    def pause(self) -> None:
        """Pauses reading the upstream, because the client reads too slowly."""
        self._delivery.is_paused = True
        self._meter.paused(perf_counter())
        exchange = self.attempts.exchange
        if exchange is not None:
            exchange.pause_reading()

    def resume(self) -> None:
        """Resumes reading, because the client has caught up."""
        self._delivery.is_paused = False
        self._meter.resumed(perf_counter())
        attempt = self.attempts.attempt
        if attempt is not None and attempt.exchange is not None:
            self._read_or_wait()
            if self.relay.awaits_first_event and self._phase is not _OVER:
                attempt.at = self._loop.time()  # nothing could come until now
                self._arm()

    def cancel(self) -> None:
        """Ends the stream on request; as `stop`."""
        self.stop("cancelled")

    def stop(self, finish_reason: FinishReason, reason: str | None = None) -> None:
        """Ends the stream properly: closes the upstream and tells the client; arguments as for `Relay.stop`."""
        self._guarded(partial(self._end_early, partial(self.relay.stop, finish_reason, reason)))

    def fail(self, error: Error) -> None:
        """Ends the stream with an error of the gateway's own."""
        self._guarded(partial(self._end_early, partial(self.relay.fail, error)))

    def _end_early(self, end: Callable[[], None]) -> None:
        self._settle()
        self.attempts.close_exchange()
        self._clock.tick()
        end()
        self._advance()

    def watch(self, watcher: EventSink | None) -> None:
        """Passes the stream's events to a watcher from now on; as `Relay.watch`. The response does not change."""
        self._guarded(partial(self._watch, watcher))

    def _watch(self, watcher: EventSink | None) -> None:
        self._settle()
        self.relay.watch(watcher)
        if self.relay.is_over:  # a part of the stream has failed
            self._advance()

    # -- time --

    # One timer, armed lazily: events only change the due times, and the timer reads them when it fires.

    def _arm(self) -> None:
        """Sets the timer for the earliest due time."""
        self._disarm()
        due = self._delivery.due()
        awaited = self._awaited()
        if awaited is not None:
            due = min(due, awaited.first_event_due)
            if awaited.hedge_at is not None and awaited.hedge_at < due:  # `min` of three costs 1,000 instructions more
                due = awaited.hedge_at
        if due < math.inf:
            self._timer = self._timers.schedule(due, self._look)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _awaited(self) -> Attempt | None:
        """Returns the attempt whose first event is awaited. None if there is none, or its answer is not read."""
        attempt = self.attempts.attempt
        if attempt is None or attempt.exchange is None or self._delivery.is_paused:
            return None
        return attempt if self.relay.awaits_first_event else None

    def _look(self) -> None:  # a method, not a partial, which each request would create; as `_stop_waiting`
        self._guarded(self._meet_due)

    def _meet_due(self) -> None:
        """Handles what is due."""
        self._timer = None
        self._settle()
        now = self._loop.time()
        awaited = self._awaited()
        if awaited is not None and now >= awaited.first_event_due:
            self._clock.tick()
            self.relay.fail_attempt(self.attempts.silence())
            self._advance()
        else:
            if awaited is not None and awaited.hedge_at is not None and now >= awaited.hedge_at:
                awaited.hedge_at = None
                if (
                    self.relay.state is _IDLE and not self.relay.delivered
                ):  # else its answer is on its way to the client
                    self.attempts.ask_second(self._hedge_started, self._hedge_failed, self._clock)
            self._delivery.look(now)
        if self._phase is not _OVER:
            self._arm()

    def _tick(self) -> None:
        """Emits the events that processors have held back until now."""
        self._tick_handle = None
        self.relay.tick(self._clock.tick())
        self._advance()
        if self._phase is not _OVER:
            self._await_tick()

    def _await_tick(self) -> None:
        due = self.relay.due_ms
        if due is not None:
            wait = (due - self._clock.now_ms) / 1e3
            self._tick_handle = self._loop.call_later(wait, partial(self._guarded, self._tick))

    # -- metrics --

    def _note_read(self, now: float) -> None:
        """Counts a handled read, at the latest before the figures are read."""
        size = self._read_bytes
        if size:
            self._read_bytes = 0
            self._meter.counters.read(self._read_at, now, size, self.relay.deltas)

    def _note_first_delta(self, now: float) -> None:
        """Records the first delta once it has been handed to the client's connection."""
        if self.relay.has_told:
            self._first_delta_sent = True
            self._meter.token_delivered(now)

    def progress(self) -> tuple[float, float | None, int]:
        """Returns the seconds since the request, the seconds to first token, and the number of deltas.

        The seconds to first token are `None` before it.
        """
        return self._meter.progress(perf_counter())

    @property
    def earlier_charges(self) -> tuple[Charge, ...]:
        """The cost of all its attempts but the last."""
        attempt = self.attempts.attempt
        return () if attempt is None else self._bill.charges_before(attempt.account)

    def measured_at_end(self, outcome: Outcome) -> StreamMetrics:
        """Returns the figures of the ended stream. Closes the account of an attempt that was under way."""
        self._settle()
        self.relay.close_account(is_left=outcome == "disconnected")
        return self.measured(outcome)

    def measured(self, outcome: Outcome = "finished") -> StreamMetrics:
        """Returns the figures so far, for a stream that ends in this turn: all events count as sent."""
        self._settle()
        now = perf_counter()
        self._note_read(now)
        relay, attempts = self.relay, self.attempts
        spec, upstream, end = attempts.spec, attempts.upstream, relay.end
        usage = end.get("usage")
        if usage is None and (relay.has_content or (outcome == "disconnected" and not end)):
            usage = relay.usage_left()
        if not self._first_delta_sent and outcome != "disconnected" and not (self._hold and outcome == "failed"):
            self._note_first_delta(now)
        charges = relay.charges_left()
        total = total_of(charges)
        metrics = StreamMetrics(
            outcome=outcome,
            events=relay.deltas + relay.others,
            code=None if relay.error is None else relay.error.code,
            finish_reason=end.get("finish_reason"),
            usage=usage,
            provider=end.get("provider") or upstream.provider.partition(":")[0],
            upstream=self._answering,
            model=self._model,
            answered_by=end.get("model", ""),
            response_id=relay.response_id,
            endpoint=spec.endpoint,
            transport=spec.transport,
            stream_id=self.stream_id,
            request_id=spec.request_id,
            trace_id=spec.trace_id,
            retries=attempts.retries,
            fallbacks=attempts.models - 1,
            key=spec.caller,
            cost=None if total is None else total[0],
            currency="" if total is None else total[1],
            charges=charges,
            cache=None if spec.sharing is None else spec.sharing.role,
        )
        return self._meter.end(now, metrics)

    # -- out --

    def _advance(self) -> None:
        """Sends the relay's output since the last call."""
        state, attempt = self.relay.state, self.attempts.attempt
        if self.attempts.hedge is not None and (not self.relay.awaits_first_event or self.relay.delivered):
            self._drop_hedge(None)
        if attempt is not None and not attempt.content_noted and self.relay.has_content:
            self.attempts.note_content(attempt)
        if state is _STREAMING and self._delivery.is_committed and not self._stream.flush_interval:
            self._send()
        elif self.relay.is_over:
            if self._awaits_tail():
                self._hold_end()
            else:
                self._end()
        elif self._hold:
            if self._delivery.gathered > SHARED.held_answer:
                text = f"the answer is larger than {SHARED.held_answer} bytes: ask for a stream"
                self.fail(Error("provider_unavailable", text, reason="answer_too_large"))
        elif self._delivery.is_committed or state is not _IDLE:
            self._gather_or_send()

    def _send(self) -> None:
        self._note_sent(self._delivery.send())

    def _gather_or_send(self) -> None:
        self._note_sent(self._delivery.gather_or_send(self._send_gathered))

    def _send_gathered(self) -> None:
        self._guarded(self._send)

    def _note_sent(self, is_written: bool) -> None:
        # A format may have no bytes for an event. A program in this process reads events, not bytes.
        if not self._first_delta_sent and (is_written or self.attempts.spec.transport == LIBRARY):
            self._note_first_delta(perf_counter())

    # -- the end --

    def _awaits_tail(self) -> bool:
        """Returns whether the response continues after the stream: its format copies the body, which has not ended."""
        if not self.relay.awaits_tail or self.attempts.exchange is None:
            return False
        if self._hold:
            return self.relay.error is None and self._delivery.gathered <= SHARED.held_answer
        return self.relay.error is None or self.relay.delivered or self._delivery.is_committed

    def _hold_end(self) -> None:
        """Sends all output. The response ends with the body, or when `_stop_waiting` is called."""
        if self._phase is _RUNNING:
            self._phase = _HOLDING_END
            self._disarm()
            self._timer = self._timers.schedule(self._loop.time() + SHARED.upstream_tail, self._stop_waiting)
        if not self._hold:
            self._gather_or_send()

    def _stop_waiting(self) -> None:
        self._guarded(self._end_tail)

    def _end_tail(self) -> None:
        """Ends a response if the upstream does not end its body."""
        self._timer = None
        if self._delivery.is_paused:  # the upstream is not read during a pause
            self._timer = self._timers.schedule(self._loop.time() + SHARED.upstream_tail, self._stop_waiting)
            return
        self.attempts.close_exchange()
        self.relay.receive_eof()
        self._advance()

    def _end(self) -> None:
        """Ends the response after the relay has ended the stream."""
        relay, exchange = self.relay, self.attempts.exchange
        error = relay.error
        if relay.is_cut and relay.fault is None and self._delivery.is_committed:
            self._send()  # the output before an end that the format cannot express
        pieces = () if relay.is_cut else self._delivery.take_last()
        is_cancelled = relay.end.get("finish_reason") == "cancelled"
        counted = self._leave("failed" if error is not None else "cancelled" if is_cancelled else "finished")
        if error is not None:
            self.attempts.close_exchange()
        elif exchange is not None:
            if not exchange.is_complete:
                due = self._loop.time() + SHARED.upstream_tail
                self._timer = self._timers.schedule(due, self.attempts.close_exchange)
            exchange.resume_reading()
        if counted is None:
            self._end_response(pieces)
        else:
            counted.add_done_callback(partial(self._end_counted, pieces))

    def _end_response(self, pieces: Sequence[Piece]) -> None:
        if self.relay.is_cut:
            self._delivery.cut(self.relay.error or Error("internal"))
        else:
            self._delivery.end(pieces, self.relay.error, delivered=self.relay.delivered)

    def _end_counted(self, pieces: Sequence[Piece], _counted: asyncio.Future[None]) -> None:
        """Ends the response of a stream that has been counted: rule 4."""
        if self._is_left:
            return
        try:
            self._end_response(pieces)
        except Exception as problem:  # noqa: BLE001  # rule 2
            self._break_off(problem)

    def _break_off(self, problem: Exception) -> None:
        """Ends the stream after an exception outside the relay: rule 2."""
        self.relay.break_off(problem)
        try:
            if self._phase is not _OVER:
                self._end()
                return
        except Exception as worse:  # noqa: BLE001  # this end cannot be sent either
            problem = worse
        self._report(problem)
        self._leave("failed")
        self.attempts.close_exchange()
        self._delivery.cut(self.relay.error or Error("internal"))

    def _leave(self, outcome: Outcome) -> asyncio.Future[None] | None:
        """Ends the stream: stops all timers. Only the end of the response is still written.

        Returns:
            As `EngineCallbacks.ended`.
        """
        if self._phase is _OVER:
            return None
        self._phase = _OVER
        self._disarm()
        self._delivery.stop()
        self.attempts.leave(outcome)
        if self._tick_handle is not None:
            self._tick_handle.cancel()
            self._tick_handle = None
        if self._again_handle is not None:
            self._again_handle.cancel()
            self._again_handle = None
        if self.relay.fault is not None:
            self._report(self.relay.fault)
        counted = self._runner.ended(self, outcome)
        self.relay.failed = None  # breaks a reference cycle that only the garbage collector would free
        return counted

    def _report(self, fault: Exception) -> None:
        """Reports a bug and drops the exception: its traceback's frames refer to this object."""
        self.relay.fault = None
        self._runner.broke(self, fault)
