"""One stream between an upstream and a client: commit, liveness, cancel, backpressure.

Owns when the response head is committed, what becomes of a stream whose client or upstream goes away, and the timers of
a stream. Decides nothing about events or bytes: the relay and the encoder do.

The head is held until the upstream's first event or `commit_after`, so that an early failure has its true status.
A client that is gone closes the upstream at once, at whatever moment; a stream that has ended lets the upstream end its
response too, so that the connection can be used again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from gai_fast.errors import Error
from gai_fast.events import Event
from gai_fast.limits import LIMITS
from gai_fast.net.timers import TimerHandle, TimerWheel
from gai_fast.relay import Relay, State
from gai_fast.settings import StreamSettings, UpstreamSettings


class Exchange(Protocol):
    """One request to an upstream and its response, under way."""

    def pause_reading(self) -> None:
        """Stops reading the response; idempotent."""

    def resume_reading(self) -> None:
        """Goes on reading; idempotent."""

    def close(self) -> None:
        """Aborts at whatever moment; nothing is called afterwards; idempotent."""


class Client(Protocol):
    """The client's leg of a stream. Every method is synchronous; none raises for a client that is gone."""

    def commit(self) -> None:
        """The stream begins: its head goes out with the next bytes."""

    def flush(self) -> None:
        """Sends the head alone: no bytes follow in this turn."""

    def write(self, data: bytes) -> None:
        """Bytes of the stream, after `commit`."""

    def end(self, data: bytes) -> None:
        """The last bytes, and the proper end of the response."""

    def fail(self, error: Error) -> None:
        """The stream failed before `commit`: the response is this error."""


class Output(Protocol):
    """Where the relay's events become bytes."""

    def event(self, event: Event) -> None:
        """Takes one event."""

    def heartbeat(self) -> None:
        """Writes a keep-alive between two events."""

    def take(self) -> bytes:
        """The bytes since the last call."""


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


class Session:
    """Drives one relay. Made by `Engine.start`.

    Args:
        relay: The stream.
        output: The relay's sink.
        client: The client's leg.
        clock: Shared with the output.
        stream: The stream's settings.
        upstream: The upstream's settings.
        timers: The loop's timer wheel.
        loop: The loop.
        hold: Commit only at the end: the answer is one JSON object.
        on_end: Called once, when the stream has ended for its client.
    """

    def __init__(
        self,
        relay: Relay,
        output: Output,
        client: Client,
        *,
        clock: Clock,
        stream: StreamSettings,
        upstream: UpstreamSettings,
        timers: TimerWheel,
        loop: asyncio.AbstractEventLoop,
        hold: bool,
        on_end: Callable[[], None],
    ) -> None:
        self.relay = relay
        self._output = output
        self._client = client
        self._clock = clock
        self._stream = stream
        self._upstream = upstream
        self._timers = timers
        self._loop = loop
        self._hold = hold
        self._on_end = on_end
        self._exchange: Exchange | None = None
        self._committed = False
        self._over = False
        self._paused = False
        self._read = 0
        self._last_write = loop.time()
        self._commit_timer: TimerHandle | None = None
        self._first_event_timer: TimerHandle | None = None
        self._heartbeat_timer: TimerHandle | None = None
        self._tail_timer: TimerHandle | None = None
        self._flush_handle: asyncio.TimerHandle | None = None

    def start(self, open_exchange: Callable[[Session], Exchange]) -> None:
        """Asks the upstream.

        Args:
            open_exchange: Opens the exchange whose receiver is this session.
        """
        self._exchange = open_exchange(self)
        now = self._loop.time()
        self._first_event_timer = self._timers.schedule(now + self._upstream.first_event_timeout, self._no_first_event)
        if not self._hold:
            self._commit_timer = self._timers.schedule(now + self._stream.commit_after, self._commit_late)
            if self._stream.heartbeat:
                self._heartbeat_timer = self._timers.schedule(now + self._stream.heartbeat, self._heartbeat)

    # -- the upstream --

    def head_received(self, status: int, headers: dict[str, str]) -> None:
        """The upstream's status and headers."""
        if not self._over:
            self.relay.receive_head(status, headers)
            self._advance()

    def body_received(self, data: bytes) -> None:
        """Bytes of the upstream's body."""
        if not self._over:
            self._read += len(data)
            self.relay.receive_data(data, self._clock.tick())
            self._advance()

    def exchange_ended(self, error: Error | None) -> None:
        """The upstream's body is complete, or broke."""
        self._exchange = None
        if self._tail_timer is not None:
            self._tail_timer.cancel()
        if not self._over:
            self.relay.receive_eof(error, self._clock.tick())
            self._advance()

    # -- the client --

    def client_lost(self) -> None:
        """The client is gone: so is the reason to ask the upstream. Nothing where the stream has ended."""
        if not self._over:
            self._leave()
            self._close_exchange()

    def pause(self) -> None:
        """The client takes its bytes too slowly: the upstream is not read any more."""
        self._paused = True
        if self._exchange is not None:
            self._exchange.pause_reading()

    def resume(self) -> None:
        """The client has caught up."""
        self._paused = False
        if self._exchange is not None:
            self._exchange.resume_reading()

    def cancel(self) -> None:
        """Ends the stream on request: the upstream is closed, the client told."""
        if not self._over:
            self._close_exchange()
            self._clock.tick()
            self.relay.cancel()
            self._advance()

    def fail(self, error: Error) -> None:
        """Ends the stream with an error of the gateway's own."""
        if not self._over:
            self._close_exchange()
            self._clock.tick()
            self.relay.fail(error)
            self._advance()

    # -- time --

    def _no_first_event(self) -> None:
        if self.relay.state is State.IDLE:
            seconds = self._upstream.first_event_timeout
            self.fail(
                Error(
                    "timeout",
                    f"upstream {self._upstream.name!r} sent no event within {seconds:g} s (first_event_timeout)",
                    reason="first_event",
                    provider=self._upstream.provider,
                )
            )

    def _commit_late(self) -> None:
        if not self._over and not self._committed:
            self._commit()
            self._client.flush()

    def _heartbeat(self) -> None:
        """Armed lazily: writing only notes the time, and the timer finds out here whether it is due."""
        if self._over:
            return
        due = self._last_write + self._stream.heartbeat
        if self._committed and not self._paused and due <= self._loop.time():
            self._output.heartbeat()
            self._flush()
            due = self._last_write + self._stream.heartbeat
        elif due <= self._loop.time():
            due = self._loop.time() + self._stream.heartbeat
        self._heartbeat_timer = self._timers.schedule(due, self._heartbeat)

    # -- out --

    def _advance(self) -> None:
        """Passes on what the relay has said since the last call."""
        relay = self.relay
        if relay.is_over:
            self._end()
        elif self._hold:
            if self._read > LIMITS.held_answer:
                text = f"the answer is larger than {LIMITS.held_answer} bytes: ask for a stream"
                self.fail(Error("provider_unavailable", text, reason="answer_too_large"))
        elif self._committed:
            self._flush_soon()
        elif relay.state is not State.IDLE:
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
            self._flush_handle = self._loop.call_later(self._stream.flush_interval, self._flush)

    def _flush(self) -> None:
        if self._flush_handle is not None:
            self._flush_handle.cancel()
            self._flush_handle = None
        self._read = 0
        data = self._output.take()
        if data:
            self._last_write = self._loop.time()
            self._client.write(data)

    def _end(self) -> None:
        error = self.relay.error
        data = self._output.take()
        self._leave()
        if error is not None:
            self._close_exchange()
        elif self._exchange is not None:
            due = self._loop.time() + LIMITS.upstream_tail
            self._tail_timer = self._timers.schedule(due, self._close_exchange)
            self._exchange.resume_reading()
        if not self._committed and error is not None and (self._hold or not self.relay.delivered):
            self._client.fail(error)
            return
        if not self._committed:
            self._commit()
        self._client.end(data)

    def _leave(self) -> None:
        """The stream is over for its client: nothing of it is timed or written any more."""
        if self._over:
            return
        self._over = True
        for timer in (self._commit_timer, self._first_event_timer, self._heartbeat_timer):
            if timer is not None:
                timer.cancel()
        # What is left refers to nothing that refers back: it is freed now, not when the collector comes.
        self._commit_timer = self._first_event_timer = self._heartbeat_timer = None
        if self._flush_handle is not None:
            self._flush_handle.cancel()
            self._flush_handle = None
        self._on_end()

    def _close_exchange(self) -> None:
        if self._exchange is not None:
            exchange, self._exchange = self._exchange, None
            exchange.close()
