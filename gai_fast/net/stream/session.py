"""One stream: the attempts at its answer, the relay that reads them, and the delivery to its client.

Owns the connection of the three: every callback and timer of a stream, its metrics, and its end. `attempts.py` decides
on upstreams, `delivery.py` on the response, `core/relay.py` on events. The caller provides `StreamSpec.chain` and the
output.

1. If the client disconnects, the upstream connection is closed at once, in any phase. After the end of a stream, the
   upstream may also end its response, so that the connection can be reused.
2. An exception of our own code in any callback or timer ends the stream for its client, its upstream and the engine;
   see `guarded` and `break_off`. The relay does so for the parts that it drives.
3. The settings of the first model hold for the stream, whichever model answers.
4. A stream is counted before its client has read its end; if the count is shared between workers, for all workers
   (`Ledger.reported`).
5. After its finish reason an answer waits `late_events` for usage and the end mark. Only further deltas, which some
   servers send, begin the wait again.
6. An answer that is kept (`StreamSpec.keeping`) is kept before its client has read its end, which says so.
7. The stream of a worker that is gone goes on from its log, as if an attempt had failed. Nothing is asked before the
   next turn of the loop.
8. Each turn of a run has attempts and an intake of its own. Between turns no upstream is read, and heartbeats go on.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from mypy_extensions import mypyc_attr

from gai_fast.core.legal_stream import State, WatchedSink
from gai_fast.core.meter import StreamMeter
from gai_fast.core.sinks import EventSink
from gai_fast.kernels import FastPath, Piece
from gai_fast.ledger import Demand, Reservation
from gai_fast.model.errors import Error
from gai_fast.model.events import Event, FinishReason
from gai_fast.model.limits import SHARED
from gai_fast.model.metrics import AnswerSource, Outcome, StreamMetrics
from gai_fast.model.money import Amount, Charge
from gai_fast.model.upstream_headers import passed_headers
from gai_fast.net.attempts.attempt import AttemptRunner
from gai_fast.net.attempts.attempts import Attempts
from gai_fast.net.attempts.retry import asks_for_a_pause
from gai_fast.net.attempts.spec import LIBRARY, Clock, Output, StreamRun, StreamSpec
from gai_fast.net.limits import LIMITS
from gai_fast.net.logs.delivery import Delivery
from gai_fast.net.logs.writer import Client, Headers
from gai_fast.net.stream.allowance import Allowance
from gai_fast.net.stream.figures import figures_of
from gai_fast.net.stream.intake import Intake, Phase, ReadStream
from gai_fast.net.stream.timers import StreamTimers
from gai_fast.runtime.timers import Timers

# Constants: an enum attribute costs 75 ns on 3.11, and every read needs one; see `connection.py`.
TAKEN_OVER: Final = "taken_over"
"""The reason of the events with which a new owner of a stream goes on."""
_IDLE: Final[State] = State.IDLE
_STREAMING: Final[State] = State.STREAMING
perf_counter: Final = time.perf_counter  # a constant: looking up a global name costs 30 ns
_RUNNING: Final[Phase] = Phase.RUNNING
_HOLDING_END: Final[Phase] = Phase.HOLDING_END
_OVER: Final[Phase] = Phase.OVER


def _nothing() -> None:
    pass


def lost_worker() -> Error:
    """Returns the failure of a stream whose worker is gone."""
    return Error("network", "the worker that ran this stream is gone", reason="worker_lost")


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

    def record_ids(self, session: Session) -> asyncio.Future[None] | None:
        """Records the ids in an answer by which its caller may name what the upstream stores.

        Returns:
            A future that is done once all processes know them. `None` if there are none.
        """
        raise NotImplementedError

    def broke(self, session: Session, fault: Exception) -> None:
        """Handles a stream that failed because of a bug."""
        raise NotImplementedError

    def grow(self, session: Session, wanted: Reservation, then: Callable[[int], None]) -> None:
        """Reserves more spend for a stream; as `Ledger.grow`."""
        raise NotImplementedError

    def lacks_tokens(self, session: Session, spec: StreamSpec, used: Callable[[], int]) -> Demand:
        """Returns the tokens that the ledger must be asked for before a turn of a run; as `Ledger.lacks_tokens`.

        Args:
            session: The run's session.
            spec: The turn.
            used: Returns the tokens that the turns of the session have used so far.
        """
        raise NotImplementedError

    def reserve_turn(self, session: Session, wanted: Demand, then: Callable[[Amount], None]) -> None:
        """Reserves tokens and spend for a turn; as `Ledger.reserve_turn`."""
        raise NotImplementedError


class Session(ReadStream):
    """Drives one stream. Made by `Engine.start`.

    Args:
        runner: The engine.
        targets: Send the requests to the upstreams.
        spec: The first attempt.
        client: The client's response.
        stream_id: The stream's id.
        clock: The clock, shared with the output.
        loop: The loop.
        said: The events that the stream's log has, if another worker has run it: rule 7. None for a new stream.

    Raises:
        Error: No upstream can serve the request; nothing was sent.

    Attributes:
        attempts: The attempts at the answer.
        caller: The name of the key that the stream belongs to.
        has_called: Whether it is a run that may have made calls: its request must not be answered by another run.
        intake: Receives the responses of the upstreams.
        metrics: The figures of the stream. None before its end.
        model: The name of the model that the client requested.
        relay: The answer.
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
        said: Sequence[Event] | None = None,
    ) -> None:
        self.stream_id = stream_id
        self.transport = spec.transport
        self.caller = spec.caller
        self.model = spec.model.name
        self.metrics = None
        self.has_called = False
        self._runner = runner
        self._clock = clock
        self._stream = spec.model.stream
        self._targets = targets
        self._timers = StreamTimers(runner.timers, loop)
        self._loop = loop
        self._hold = spec.hold
        self._meter = StreamMeter(perf_counter())
        self.phase = _RUNNING
        self._run: StreamRun | None = None if spec.run is None else spec.run(self, spec)  # before the output is used
        self._next_turn: StreamSpec | None = None  # while processors hold events that come before it
        self._is_disconnected = False
        self._is_complete = False  # whether a finish reason has come whose wait has not begun
        self._deltas_at_end = 0  # the number of deltas when the wait of rule 5 began
        now = loop.time()  # once: each reading costs 290 instructions
        self._delivery = Delivery(
            client,
            spec.output,
            self._stream,
            self._meter.counters,
            loop,
            now,
            whole=spec.hold,
            is_timed=spec.log_header is None,
        )
        self.attempts = Attempts(targets, spec, stream_id, self._meter, loop, now)
        self.intake = Intake(self, self.attempts, self._delivery, self._meter, self._timers, clock)
        has_calls = self._run is not None and self._run.begins_with_calls
        awaits_store = said is None and spec.begun is not None and spec.begun(_nothing if has_calls else self._ask_now)
        waits = said is not None or awaits_store or has_calls or self.attempts.waits()
        attempt = None if waits else self.attempts.first(self.intake, now)
        is_made = False
        try:
            self._use_output(spec.output)
            self.relay = self.intake.relay = self.attempts.make_relay(self._failed)
            self.relay.completed = self._completed
            if self._run is not None:
                self.relay.ended = self._turn_ended
            if spec.trace is not None and spec.trace.output is not None:
                self.relay.watch(spec.trace.output)
            if said is not None:
                self._resume(said)
            elif attempt is None and not awaits_store and not has_calls:
                self._ask_later(LIMITS.unmeasured_check)
            self.arm()
            if self._run is not None:
                self._run.begin()
            is_made = True
        finally:
            if not is_made:  # no other object refers to the open request
                self.attempts.close_exchange()
                self.attempts.leave("failed")

    def _resume(self, said: Sequence[Event]) -> None:
        """Goes on with the stream of a worker that is gone: rule 7."""
        if self._run is not None:
            self.relay.resume_run(said)
            self.attempts.take_over()
            return
        lost = lost_worker()
        announced: Event = {"type": "warning", "reason": TAKEN_OVER}
        self.relay.resume(said, lost, announced, may_prefill=self.spec.model.prefill)
        if not self.attempts.resume(goes_on=self.relay.delivered):
            raise lost
        self._ask_later(0.0)

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
        """Whether any content has been written, even if it is void now, or calls may have been made."""
        return self.relay.delivered or self.relay.has_sent_delta or self.has_called

    @property
    def is_refused(self) -> bool:
        """Whether the ended stream is answered with an error response, and has no log that has its events."""
        is_durable = self.attempts.spec.log_header is not None
        return not is_durable and self._delivery.refuses(self.relay.error, delivered=self.relay.delivered)

    @property
    def upstream_headers(self) -> Headers:
        """The headers of the upstream's response for the client, if the client reads the upstream's own bytes."""
        spec = self.attempts.spec
        if spec.frames is None or self._timers.awaits_attempt:  # a failed attempt's headers are void
            return ()
        return passed_headers(self.relay.headers) if self.relay.dialect == spec.dialect else ()

    @property
    def answered_by(self) -> AnswerSource | None:
        """The names of the answer's origin, and the changes of its request. None before the first event."""
        if self.relay.state is _IDLE:
            return None
        attempts = self.attempts
        changes = None if attempts.attempt is None else attempts.attempt.adapter.changes
        return attempts.spec.model.name, attempts.spec.answering, attempts.fallbacks > 0, changes

    def guarded(self, call: Callable[[], FastPath | None]) -> FastPath | None:
        """Runs the work of a callback, unless the stream is over. An exception ends the stream: rule 2.

        `head_received` and `body_received` have their own `try`, because every request or read calls them.
        """
        if self.phase is _OVER:
            return None
        try:
            return call()
        except Exception as problem:  # noqa: BLE001  # rule 2
            self.break_off(problem)
            return None

    # -- attempts --

    def _use_output(self, former: Output) -> None:
        """Switches to the output of the attempt's spec, if it is another one."""
        output = self.attempts.spec.output
        if output is not former:
            if self._delivery.is_committed:
                self._send()
            self._delivery.output = output

    def _failed(self, error: Error) -> bool:
        """Decides whether another attempt follows a failure. Called by the relay."""
        delay = None if self.phase is _OVER else self.attempts.failed(error, self.relay)
        self.intake.attempt_failed()
        self._is_complete = False
        self._timers.late_due = math.inf
        if delay is None:
            return False
        if delay and asks_for_a_pause(error):
            self._delivery.put_off(delay)
        self._ask_later(delay)
        return True

    def _ask_later(self, delay: float) -> None:
        self._timers.wait_for_attempt(delay, partial(self.guarded, self._ask))

    def _ask_now(self) -> None:
        """Makes the first attempt: the store has the request. Nothing is asked before the next turn of the loop."""
        if self.phase is not _OVER:
            self._ask_later(0.0)

    def _ask(self) -> FastPath | None:
        """Makes the next attempt, or joins the hedge. Returns the fast path of the hedge's next reads, or `None`.

        The first attempt may have to wait longer.
        """
        self._timers.attempt_begins()
        former = self.attempts.spec.output
        if self.attempts.waits():
            self._ask_later(LIMITS.unmeasured_check)
            return None
        try:
            attempt = self.attempts.next(self.intake, self.relay)
        except Error as refused:
            self._clock.tick()
            self.relay.give_up(refused)
            self.advance()
            return None
        self._use_output(former)
        self.intake.begin(attempt)
        self.arm()
        self.advance()
        return self.attempts.give_kept(self.intake)

    def _hedge_started(self) -> FastPath | None:
        """Continues with the second target's answer, which has its first event."""
        self.attempts.take_hedge()
        return self.guarded(self._ask)

    def _hedge_failed(self, error: Error) -> None:
        """Continues without the second target."""
        self.guarded(partial(self._drop_hedge, error))

    def _drop_hedge(self, error: Error | None) -> None:
        self.attempts.drop_hedge(error)
        self.intake.cover()  # the hedge may have cost its prompt

    # -- a run: rule 8 --

    def _turn_ended(self, finish: Event) -> None:
        """Handles the end of a turn. Called by the relay."""
        self._is_complete = False
        self._timers.late_due = math.inf
        attempt = self.attempts.attempt
        if attempt is not None and not attempt.content_noted and self.relay.has_content:
            self.attempts.note_content(attempt)
        self.attempts.leave("finished")
        self.intake.leave(StreamTimers(self._runner.timers, self._loop))
        if self._run is not None:
            self._run.turn_ended(finish)

    def add(self, events: Sequence[Event]) -> None:
        """Sends events of the run, which no upstream has sent."""
        self.guarded(partial(self._add, events))

    def _add(self, events: Sequence[Event]) -> None:
        self.intake.settle()
        for event in events:
            self.relay.add(event)
        self.advance()

    def hear(self, approval_id: str) -> None:
        """Learns that a call of the run was decided."""
        if self._run is not None:
            self._run.hear(approval_id)

    def seconds_since_wait(self) -> float:
        """Returns the seconds since it has last waited for a person; 0 while it does, infinite if it never has."""
        return math.inf if self._run is None else self._run.seconds_since_wait()

    def lacks(self, spec: StreamSpec, used: Callable[[], int]) -> Demand | None:
        """Returns what the ledger must be asked for before a turn begins. None if it need not be asked.

        Args:
            spec: The turn.
            used: Returns the tokens that the turns of this session have used so far.
        """
        allowance, demand, spend = self.intake.allowance, self._runner.lacks_tokens(self, spec, used), None
        if allowance is not None:
            spend = allowance.missing(self.attempts.bill, self.attempts.price_of(spec), spec.prompt_characters or 0)
        if spend is not None:
            return demand._replace(reservation=spend)
        return demand if demand.tokens else None

    def reserve_turn(self, wanted: Demand, then: Callable[[Amount], None]) -> None:
        """Asks the ledger for what a turn lacks; as `Ledger.reserve_turn`."""
        self._runner.reserve_turn(self, wanted, then)

    def take_spend(self, more: Amount) -> None:
        """Adds the ledger's reservation for a turn to the allowance."""
        if self.intake.allowance is not None:
            self.intake.allowance.take(more)

    def begin_turn(self, spec: StreamSpec, failure: Error | None = None) -> None:
        """Asks the model again, as soon as processors hold nothing that comes before its answer.

        Args:
            spec: The turn.
            failure: As for `Relay.begin_turn`.
        """
        self.guarded(partial(self._begin_turn, spec, failure))

    def _begin_turn(self, spec: StreamSpec, failure: Error | None) -> FastPath | None:
        if self.relay.holds:
            self._next_turn = spec
            return None
        former = self.intake
        self.relay.begin_turn(spec.prompt_characters, failure)
        self.attempts = Attempts(
            self._targets, spec, self.stream_id, self._meter, self._loop, self._loop.time(), self.attempts
        )
        self.intake = Intake(self, self.attempts, self._delivery, self._meter, self._timers, self._clock)
        self.intake.relay, self.intake.allowance = self.relay, former.allowance
        return self._ask()

    def flush(self) -> None:
        """Sends what is gathered."""
        if self.phase is _RUNNING and self._delivery.is_committed:
            self.guarded(self._send)

    @property
    def wants_connection(self) -> bool:
        """Whether a model is about to be asked, over a connection that it does not have yet."""
        return self.attempts.exchange is None and not (self._run is not None and self._run.is_calling)

    @property
    def is_asked(self) -> bool:
        """Whether its attempt was sent, or its model is not to be asked now."""
        exchange = self.attempts.exchange
        return not self.wants_connection if exchange is None else exchange.sent

    def open_run(self, events: Sequence[Event]) -> None:
        """Begins a run with calls; as `Relay.open_run`."""
        self.guarded(partial(self._open_run, events))

    def _open_run(self, events: Sequence[Event]) -> None:
        self._clock.tick()
        self.relay.open_run(events)
        self.advance()

    def finish_run(self, finish: Event) -> None:
        """Ends the run well; as `Relay.finish_run`."""
        self.guarded(partial(self._finish_run, finish))

    def _finish_run(self, finish: Event) -> None:
        self.relay.finish_run(finish)
        self.advance()

    # -- a limit of spend --

    def allow(self, reserved: Amount) -> None:
        """Ends the stream if it needs more spend than is reserved and the ledger gives no more."""
        self.intake.allowance = Allowance(reserved)
        self.intake.cover()

    def ask_for_spend(self, wanted: Reservation, then: Callable[[Amount], None]) -> None:
        """Asks the ledger for more spend."""
        self._runner.grow(self, wanted, then)

    # -- the client --

    def client_lost(self) -> None:
        """Ends the stream because its client has disconnected: rule 1. Does nothing if the stream has ended."""
        self._is_disconnected = True
        if self.phase is not _OVER:
            try:
                self.intake.settle()
                self._leave("disconnected")
            finally:  # always: the upstream must not be read any more
                self.attempts.close_exchange()

    def pause(self) -> None:
        """Pauses reading the upstream, because the client reads too slowly."""
        self._delivery.is_paused = True
        self._meter.paused(perf_counter())
        self.intake.hold_back()

    def resume(self) -> None:
        """Resumes reading, because the client has caught up."""
        self._delivery.is_paused = False
        self._meter.resumed(perf_counter())
        self.intake.read_on()

    def cancel(self) -> None:
        """Ends the stream on request; as `stop`."""
        self.stop("cancelled")

    def stop(self, finish_reason: FinishReason, reason: str | None = None) -> None:
        """Ends the stream properly: closes the upstream and informs the client; arguments as for `Relay.stop`."""
        self.guarded(partial(self._end_early, partial(self.relay.stop, finish_reason, reason)))

    def fail(self, error: Error) -> None:
        """Ends the stream with an error of the gateway's own."""
        self.guarded(partial(self._end_early, partial(self.relay.fail, error)))

    def _end_early(self, end: Callable[[], None]) -> None:
        self.intake.settle()
        self.attempts.close_exchange()
        self._clock.tick()
        end()
        self.advance()

    def watch(self, watcher: EventSink | None) -> None:
        """Passes the stream's events to a watcher from now on; as `Relay.watch`. The response does not change."""
        self.guarded(partial(self._watch, watcher))

    def _watch(self, watcher: EventSink | None) -> None:
        self.intake.settle()
        trace = self.spec.trace
        if trace is not None and trace.output is not None:
            watcher = trace.output if watcher is None else WatchedSink(trace.output, watcher)
        self.relay.watch(watcher)
        if self.relay.is_over:  # a part of the stream has failed
            self.advance()

    # -- time --

    def arm(self) -> None:
        """Sets the timer for the earliest due time."""
        due, awaited = self._delivery.due(), self.intake.awaited()
        if awaited is not None:
            due = min(due, awaited.due)
        due = min(due, self._timers.late_due)
        self._timers.wait_until(due, self._look)

    def _look(self) -> None:  # a method, not a partial, which each request would create
        self.guarded(self._meet_due)

    def _meet_due(self) -> None:
        """Handles the deadlines that have passed."""
        if self.phase is _HOLDING_END:
            self._end_tail()
            return
        self.intake.settle()
        now = self._loop.time()
        awaited = self.intake.awaited()
        if now >= self._timers.late_due:
            self._end_late_events()
        elif awaited is not None and now >= awaited.first_event_due:
            self._clock.tick()
            self.relay.fail_attempt(awaited.silence())
            self.advance()
        else:
            if awaited is not None and awaited.takes_hedge(now):
                self.attempts.ask_second(self.relay, self._hedge_started, self._hedge_failed, self._clock)
            self._delivery.look(now)
        if self.phase is not _OVER:
            self.arm()

    def _completed(self) -> None:
        """Notes a finish reason. Called by the relay, before the client gets the last event."""
        self._runner.record_ids(self)
        self._is_complete = True

    def _await_late_events(self) -> None:
        """Limits the wait for the end mark, which has not come with the finish reason: rule 5."""
        self._is_complete = False
        if self._timers.late_due == math.inf or self.relay.deltas != self._deltas_at_end:
            self._deltas_at_end = self.relay.deltas
            keeping = self.attempts.spec.keeping
            wait = LIMITS.late_events if keeping is None or not keeping.has_last else LIMITS.late_end
            self._timers.late_due = self._loop.time() + wait
            self.arm()

    def _end_late_events(self) -> None:
        """Ends a complete answer without its end mark: rule 5."""
        if self.intake.is_held_back or self.relay.deltas != self._deltas_at_end:
            self._timers.late_due = math.inf
            self._await_late_events()
            return
        self._timers.late_due = math.inf  # processors may hold the end for longer
        self.attempts.close_exchange()
        self.relay.receive_eof(None, self._clock.tick())
        self.advance()
        if self.phase is not _OVER:
            self.await_tick()

    def _tick(self) -> None:
        """Emits the events that processors have held back until now."""
        self._timers.ticks()
        self.relay.tick(self._clock.tick())
        self.advance()
        if self._next_turn is not None and not self.relay.holds:
            spec, self._next_turn = self._next_turn, None
            self.begin_turn(spec)
        if self.phase is not _OVER:
            self.await_tick()
            self.intake.follow_chain()

    def wake(self) -> None:
        """Emits the events that have become due by themselves. Called by a processor, on the loop's thread."""
        self.guarded(self._tick)

    def await_tick(self) -> None:
        due = self.relay.due_ms
        if due is not None and (not self._timers.awaits_tick or due < self._timers.tick_ms):
            self._timers.wait_for_tick(due, (due - self._clock.now_ms) / 1e3, partial(self.guarded, self._tick))

    # -- figures --

    def progress(self) -> tuple[float, float | None, int]:
        """Returns the seconds since the request, those to the first token (`None` before it), and the deltas so far."""
        return self._meter.progress(perf_counter())

    @property
    def bytes_sent(self) -> int:
        """The bytes for its client so far. Includes those of the fast path."""
        return self._meter.counters.sent

    @property
    def charges(self) -> tuple[Charge, ...]:
        """The cost of its attempts, if its client disconnected now. Includes the deltas of the fast path."""
        self.intake.settle()
        return self.relay.charges_so_far()

    @property
    def earlier_charges(self) -> tuple[Charge, ...]:
        """The cost of all its attempts but the last."""
        return self.attempts.earlier_charges

    def measured_at_end(self, outcome: Outcome) -> StreamMetrics:
        """Returns the figures of the ended stream. Closes the account of an attempt that was under way."""
        self.intake.settle()
        self.relay.close_account(is_abandoned=outcome == "disconnected")
        return self.measured(outcome)

    def measured(self, outcome: Outcome = "finished") -> StreamMetrics:
        """Returns the figures so far, for a stream that ends in this turn: all events count as sent."""
        self.intake.settle()
        now, relay, meter = perf_counter(), self.relay, self._meter
        meter.count_read(now, relay.deltas)
        if relay.has_sent_delta and outcome != "disconnected" and not (self._hold and outcome == "failed"):
            meter.delta_sent(now)
        return meter.end(now, figures_of(relay, self.attempts, self.model, outcome))

    # -- out --

    def advance(self) -> None:
        """Sends the relay's output since the last call."""
        state, attempt = self.relay.state, self.attempts.attempt
        if self.attempts.hedge is not None and (not self.relay.awaits_first_event or self.relay.delivered):
            self._drop_hedge(None)
        if attempt is not None and not attempt.content_noted:
            if self.relay.has_content:
                self.attempts.note_content(attempt)
            elif attempt.is_probe and not self.relay.awaits_first_event:
                attempt.answered()
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
        if self._is_complete and self.phase is _RUNNING:
            self._await_late_events()

    def _send(self) -> None:
        self._note_sent(self._delivery.send())

    def _gather_or_send(self) -> None:
        self._note_sent(self._delivery.gather_or_send(self._send_gathered))

    def _send_gathered(self) -> None:
        self.guarded(self._send)

    def _note_sent(self, is_written: bool) -> None:
        # A format may have no bytes for an event. A program in this process reads events, not bytes.
        is_first = self._meter.first_sent_at is None
        if is_first and (is_written or self.transport == LIBRARY) and self.relay.has_sent_delta:
            self._meter.delta_sent(perf_counter())

    # -- the end --

    def _awaits_tail(self) -> bool:
        """Returns whether the response continues after the stream: its format copies the body, which has not ended."""
        if not self.relay.awaits_tail or self.attempts.exchange is None:
            return False
        if self._hold:
            return self.relay.error is None and self._delivery.gathered <= SHARED.held_answer
        return self.relay.error is None or self.relay.delivered or self._delivery.is_committed

    def _hold_end(self) -> None:
        """Sends all output. The response ends with the body, or after `upstream_tail`."""
        if self.phase is _RUNNING:
            self.phase = _HOLDING_END
            self._await_tail()
        if not self._hold:
            self._gather_or_send()

    def _await_tail(self) -> None:
        self._timers.wait_until(self._loop.time() + SHARED.upstream_tail, self._look)

    def _end_tail(self) -> None:
        """Ends a response if the upstream does not end its body."""
        if self._delivery.is_paused:  # the upstream is not read during a pause
            self._await_tail()
            return
        self.attempts.close_exchange()
        self.relay.receive_eof()
        self.advance()

    def _end(self) -> None:
        """Ends the response after the relay has ended the stream."""
        relay, exchange = self.relay, self.attempts.exchange
        error = relay.error
        if relay.is_cut and relay.fault is None and self._delivery.is_committed:
            self._send()  # the output before an end that the format cannot express
        pieces = () if relay.is_cut else self._delivery.take_last()
        is_cancelled = relay.end.get("finish_reason") == "cancelled"
        has_failed = error is not None and not self._delivery.replaces(error)
        if self.attempts.spec.keeping is not None:
            self.attempts.spec.keeping.wrote(pieces)
        counted = self._leave("failed" if has_failed else "cancelled" if is_cancelled else "finished")
        if error is not None or "reason" in relay.end:  # the gateway's own end: its upstream may still generate
            self.attempts.close_exchange()
        elif exchange is not None:
            if not exchange.is_complete:
                self.intake.await_tail()
            exchange.resume_reading()
        if counted is None:
            self._end_response(pieces)
        else:
            counted.add_done_callback(partial(self._end_counted, pieces))

    def _end_response(self, pieces: Sequence[Piece]) -> None:
        if self.relay.is_cut:
            self._delivery.cut(self.relay.error or Error("internal"))
        else:
            keeping = self.attempts.spec.keeping
            if keeping is not None:
                pieces = keeping.last(pieces)
            self._delivery.end(pieces, self.relay.error, delivered=self.relay.delivered)

    def _end_counted(self, pieces: Sequence[Piece], _counted: asyncio.Future[None]) -> None:
        """Ends the response of a stream that has been counted, and whose answer is kept: rules 4 and 6."""
        if self._is_disconnected:
            return
        try:
            self._end_response(pieces)
        except Exception as problem:  # noqa: BLE001  # rule 2
            self.break_off(problem)

    def break_off(self, problem: Exception) -> None:
        """Ends the stream after an exception outside the relay: rule 2."""
        self.relay.break_off(problem)
        try:
            if self.phase is not _OVER:
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
        if self.phase is _OVER:
            return None
        self.phase = _OVER
        self._timers.stop()
        self._delivery.stop()
        self.attempts.leave(outcome)
        if self._run is not None:
            self._run.stop()
            self._run = None
        if self.relay.fault is not None:
            self._report(self.relay.fault)
        counted = self._runner.ended(self, outcome)
        self.intake.end()
        self.relay.failed = self.relay.completed = self.relay.ended = None  # as `Intake.end`
        return counted

    def _report(self, fault: Exception) -> None:
        """Reports a bug and drops the exception: its traceback's frames refer to this object."""
        self.relay.fault = None
        self._runner.broke(self, fault)
