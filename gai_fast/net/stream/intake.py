"""`Intake`: how the bytes of a stream's upstream reach its relay.

Owns the reads of all attempts: whether the upstream is read, which bytes wait for a larger reservation, and which reads
take the fast path. The session has the phase of the stream, and sends what the relay makes of a read.

1. The upstream is not read while the client is too slow, while the ledger is asked for more spend, or while more than
   `client_buffer` characters wait for a verdict. The time limits of an attempt begin again afterwards.
2. Once the first delta has been sent, and if no part of the stream must see every delta, the next reads take the fast
   path. Its deltas are counted before anything else happens to the stream (`settle`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import Enum, auto
from functools import partial
from typing import Final, cast

from mypy_extensions import mypyc_attr

from gai_fast.core.meter import StreamMeter
from gai_fast.kernels import FastPath
from gai_fast.ledger import Reservation
from gai_fast.model.errors import Error
from gai_fast.model.events import FinishReason
from gai_fast.model.limits import SHARED
from gai_fast.model.money import Amount
from gai_fast.net.attempts.attempt import Attempt
from gai_fast.net.attempts.attempts import Attempts
from gai_fast.net.attempts.spec import Clock
from gai_fast.net.logs.delivery import Delivery
from gai_fast.net.logs.writer import ClientCallbacks
from gai_fast.net.stream.allowance import Allowance, LimitedStream
from gai_fast.net.stream.timers import StreamTimers


class Phase(Enum):
    """The phases of a session, in order; `HOLDING_END` may be left out."""

    RUNNING = auto()
    HOLDING_END = auto()
    """The stream has ended, but its response continues until the upstream's body ends; see `Session._hold_end`."""
    OVER = auto()
    """The engine no longer counts the stream."""


# Constants: an enum attribute costs 75 ns on 3.11, and every read needs one; see `connection.py`.
_OVER: Final[Phase] = Phase.OVER
perf_counter: Final = time.perf_counter  # a constant: looking up a global name costs 30 ns


@mypyc_attr(allow_interpreted_subclasses=True)
class ReadStream(ClientCallbacks):
    """The part of a session that an intake uses. This class itself is a stream that is over.

    Attributes:
        phase: The stream's phase.
    """

    def __init__(self) -> None:
        self.phase = _OVER

    def guarded(self, call: Callable[[], FastPath | None]) -> FastPath | None:
        """Runs the work of a callback, unless the stream is over. An exception ends the stream."""
        return None

    def break_off(self, problem: Exception) -> None:
        """Ends the stream after an exception."""

    def advance(self) -> None:
        """Sends the relay's output since the last call."""

    def arm(self) -> None:
        """Sets the timer for the earliest due time."""

    def await_tick(self) -> None:
        """Sets the timer for events that processors hold back."""

    def wake(self) -> None:
        """Emits the events that have become due by themselves."""

    def stop(self, finish_reason: FinishReason, reason: str | None = None) -> None:
        """Ends the stream; as `Relay.stop`."""

    def ask_for_spend(self, wanted: Reservation, then: Callable[[Amount], None]) -> None:
        """Asks the ledger for more spend."""


_ENDED: Final = ReadStream()


class Intake(LimitedStream):
    """Reads the upstreams of one stream; as `upstream.Receiver`.

    Args:
        stream: The session.
        attempts: The stream's attempts.
        delivery: The client's side of the stream.
        meter: Measures the stream.
        timers: The stream's timers.
        clock: The stream's clock.

    Attributes:
        allowance: The reservation of spend. None if the stream has no limit of spend.
        relay: The stream's relay. Set before the first read.
    """

    def __init__(
        self,
        stream: ReadStream,
        attempts: Attempts,
        delivery: Delivery,
        meter: StreamMeter,
        timers: StreamTimers,
        clock: Clock,
    ) -> None:
        spec = attempts.spec
        self.allowance: Allowance | None = None
        self._stream = stream
        self._attempts = attempts
        self._delivery = delivery
        self._meter = meter
        self._timers = timers
        self._clock = clock
        self._chain = spec.chain
        if spec.chain is not None:
            spec.chain.connect(stream.wake)
        self._is_full = False  # whether too much waits for a verdict
        settings = spec.model.stream
        self._client_buffer = settings.client_buffer
        self._is_gathered = settings.flush_interval > 0
        self._fast_path: FastPath | None = None

    # -- reads (`upstream.Receiver`) --

    def head_received(self, status: int, headers: dict[str, str]) -> None:
        """Receives the upstream's status and headers."""
        stream = self._stream
        if stream.phase is _OVER:
            return
        try:
            self.relay.receive_head(status, headers)
            stream.advance()
        except Exception as problem:  # noqa: BLE001  # rule 2 of `session.py`
            stream.break_off(problem)

    def body_received(self, data: bytes) -> FastPath | None:
        """Receives bytes of the upstream's body. Returns the fast path for the next reads, or None."""
        stream = self._stream
        if stream.phase is _OVER:
            return None
        try:
            self.settle()
            allowance = self.allowance
            if allowance is None or allowance.covers(self.relay.characters + len(data)):
                return self._shorten() if self.feed(data) else None
            allowance.receive(self, data)
        except Exception as problem:  # noqa: BLE001  # rule 2 of `session.py`
            stream.break_off(problem)
        return None

    def feed(self, data: bytes) -> bool:
        """Handles bytes of the body. Returns whether the stream goes on."""
        stream, relay, meter = self._stream, self.relay, self._meter
        size = len(data)
        meter.read_at, meter.read_size = perf_counter(), size
        self._delivery.gathered += size
        relay.receive_data(data, self._clock.tick())
        stream.advance()
        if stream.phase is _OVER:
            return False
        meter.count_read(perf_counter(), relay.deltas)
        if self._chain is not None:
            stream.await_tick()
            self.follow_chain()
        return True

    def exchange_ended(self, error: Error | None) -> None:
        """Receives the end of the upstream's body, or the error that broke it."""
        self._attempts.exchange_ended()
        if self._stream.phase is _OVER:
            self._timers.stop()
        elif self.allowance is None or not self.allowance.holds_end(error):
            self._stream.guarded(partial(self.receive_end, error))

    def receive_end(self, error: Error | None) -> None:
        """Handles the end of the body."""
        stream = self._stream  # a turn of a run that ends here has left it
        self.settle()
        if error is not None and error.code == "internal":  # a failure of our own code: see `Receiver`
            raise error.__cause__ or error
        self.relay.receive_eof(error, self._clock.tick())
        stream.advance()
        if self._chain is not None and stream.phase is not _OVER:  # its processors may have more to do
            self._stream.await_tick()

    # -- the fast path: rule 2 --

    def _shorten(self) -> FastPath | None:
        """Returns the fast path for the next reads, or None."""
        copier, deltas, counters = self.relay.copier, self._attempts.spec.deltas, self._meter.counters
        if (
            copier is None
            or deltas is None
            or self._meter.first_sent_at is None
            or self._is_gathered
            or self._timers.awaits_tick
        ):
            return None
        if self._fast_path is None:
            direct, output = self._delivery.direct, cast(object, self._delivery.output)
            if direct is None or output is not deltas:
                return None
            self._fast_path = FastPath(copier, direct, self._clock.tick, counters)
        if self.allowance is None:
            self._fast_path.follow(deltas.seq, self.relay.deltas)
        else:  # no read has more characters than bytes
            covered = self.allowance.characters - self.relay.characters
            self._fast_path.follow(deltas.seq, self.relay.deltas, counters.received + covered)
        return self._fast_path

    def settle(self) -> None:
        """Counts the deltas of the fast path. Called before anything else happens to the stream."""
        fast_path = self._fast_path
        if fast_path is not None:
            self.relay.settle()
            self._delivery.last_write = max(self._delivery.last_write, fast_path.wrote_at)

    # -- whether the upstream is read: rule 1 --

    @property
    def is_held_back(self) -> bool:
        """Whether the upstream is not read, because bytes wait for the client, the ledger or a verdict."""
        is_asking = self.allowance is not None and self.allowance.is_asking
        return self._delivery.is_paused or is_asking or self._is_full

    def hold_back(self) -> None:
        """Pauses reading the upstream."""
        exchange = self._attempts.exchange
        if exchange is not None:
            exchange.pause_reading()

    def read_on(self) -> None:
        """Reads the upstream again, unless bytes wait for the client, the ledger or a verdict."""
        attempt = self._attempts.attempt
        if attempt is None or attempt.exchange is None or self.is_held_back:
            return
        attempt.exchange.resume_reading()
        if self.relay.awaits_first_event and self._stream.phase is not _OVER:
            attempt.restart_wait(self._timers.now())
            self._stream.arm()

    def follow_chain(self) -> None:
        """Reads the upstream only while no more than `client_buffer` waits for a verdict of processors."""
        is_full = self._chain is not None and self._chain.waiting > self._client_buffer
        if is_full != self._is_full:
            self._is_full = is_full
            if is_full:
                self.hold_back()
            else:
                self.read_on()

    def awaited(self) -> Attempt | None:
        """Returns the attempt whose first event is awaited. None if there is none, or the upstream is not read."""
        attempt = self._attempts.attempt
        if attempt is None or attempt.exchange is None or not self.relay.awaits_first_event:
            return None
        return None if self.is_held_back else attempt

    # -- attempts --

    def begin(self, attempt: Attempt) -> None:
        """Reads another attempt from now on."""
        if self.allowance is not None:
            self.allowance.drop()  # bytes of a first attempt whose hedge has won
        self.cover()
        if self.is_held_back:
            self.hold_back()
        attempt.join(self.relay)
        self.follow_chain()  # what waited may be void

    def attempt_failed(self) -> None:
        """Drops what belongs to an attempt that has failed."""
        self._fast_path = None
        if self.allowance is not None:
            self.allowance.drop()

    def end(self) -> None:
        """Reads nothing more for the stream, which is over. Breaks reference cycles."""
        self._stream = _ENDED
        if self._chain is not None:
            self._chain.connect(None)

    def leave(self, timers: StreamTimers) -> None:
        """Reads nothing more of a turn that has ended. Its upstream may end its response, for the connection's sake.

        Args:
            timers: Timers of its own.
        """
        self._stream, self._timers, self._chain = _ENDED, timers, None
        exchange = self._attempts.exchange
        if exchange is not None:
            if not exchange.is_complete:
                self.await_tail()
            exchange.resume_reading()

    def await_tail(self) -> None:
        """Limits the wait for the end of the body of an answer that has ended. `exchange_ended` ends the wait."""
        self._timers.wait_until(self._timers.now() + SHARED.upstream_tail, self._attempts.close_exchange)

    # -- a limit of spend (`allowance.LimitedStream`) --

    def cover(self) -> None:
        """Compares the reservation with the attempt under way."""
        if self.allowance is not None:
            attempt, characters = self._attempts.attempt, self._attempts.spec.prompt_characters or 0
            self.allowance.begin(None if attempt is None else attempt.account, characters)

    def grow(self, wanted: Reservation) -> None:
        """Asks the ledger for more spend."""
        self._stream.ask_for_spend(wanted, self._grown)

    def _grown(self, more: Amount) -> None:
        allowance = self.allowance
        if allowance is not None:
            self._stream.guarded(partial(allowance.grow, self, more))

    def stop(self, finish_reason: FinishReason, reason: str | None = None) -> None:
        """Ends the stream; as `Relay.stop`."""
        self._stream.stop(finish_reason, reason)
