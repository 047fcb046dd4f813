"""The attempts at one answer: the choice of upstreams, their order and times, and the continuation of a failed attempt.

Owns opening, breakers, retries and fallbacks of one stream. `retry.py` decides whether a failed attempt is made again;
`relay.py` makes them one stream for the client. Arms no timer and has no callbacks: the session calls.

1. The same upstream is retried first, then the models of `fallback` are asked in order, each once.
2. Before the first delivered content an attempt simply begins anew. After it, `on_midstream_failure` decides:
   `error` ends the stream; `restart` makes the delivered content void; `continue` goes on from it.
3. `continue` asks by prefill where the model has `prefill` and the delivered content is one text; else the attempt must
   repeat the delivered content, which the transcript verifies. A refused prefill is followed by a verified attempt at
   the same model.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import replace
from time import perf_counter
from typing import Final, Literal, Protocol

from gai_fast.errors import Error
from gai_fast.limits import LIMITS
from gai_fast.meter import StreamMeter
from gai_fast.metrics import Outcome
from gai_fast.net.retry import Breaker, Failure, RetryPolicy, is_fault_of_upstream, is_of_this_process
from gai_fast.net.spec import StreamSpec
from gai_fast.net.upstream import OpenExchange, Receiver
from gai_fast.providers import Adapter
from gai_fast.relay import Relay, State
from gai_fast.request import Request
from gai_fast.settings import Price, Settings, UpstreamSettings
from gai_fast.transcript import Transcript

Translate = Callable[[Error], Error]
Continued = Literal["verified", "prefill"] | None

_OPEN: Final = "breaker_open"
_IDLE: Final[State] = State.IDLE


class AttemptRunner(Protocol):
    """The part of the engine that attempts use."""

    settings: Settings
    policy: RetryPolicy

    def breaker(self, upstream: UpstreamSettings) -> Breaker | None:
        """Returns the upstream's breaker, where it has one."""

    def attempt_failed(self, upstream: UpstreamSettings, error: Error) -> None:
        """Notes a failed attempt."""

    def breaker_opened(self, upstream: UpstreamSettings, error: Error) -> None:
        """Notes that nothing is sent to an upstream for a while."""

    def open(
        self, spec: StreamSpec, receiver: Receiver, stream_id: str, number: int
    ) -> tuple[Adapter, Translate, OpenExchange]:
        """Sends a request to the upstream of a spec.

        Args:
            spec: The attempt.
            receiver: Gets the response.
            stream_id: The stream's id.
            number: The number of the attempt, from 1.

        Raises:
            Error: It cannot be asked for this; nothing was sent.
        """


class Attempts:
    """The attempts at one answer, one after the other.

    Args:
        runner: The engine.
        spec: The first attempt.
        stream_id: The stream's id.
        meter: Measures the stream.
        loop: The loop.

    Attributes:
        spec: The attempt under way, or the last one.
        exchange: Its request; `None` while the next attempt waits, and after the end.
        has_content: Whether the first content of the attempt has been noted.
        transcript: The delivered content, where a failed answer is continued.
        count: Attempts so far.
        models: Models asked so far.
    """

    __slots__ = (
        "_asked_at",
        "_at_model",
        "_breaker",
        "_commit_by",
        "_continued",
        "_fallbacks",
        "_loop",
        "_mends",
        "_meter",
        "_next",
        "_retries",
        "_runner",
        "_settings",
        "_stream",
        "_stream_id",
        "_tried",
        "count",
        "exchange",
        "has_content",
        "models",
        "spec",
        "transcript",
    )

    def __init__(
        self,
        runner: AttemptRunner,
        spec: StreamSpec,
        stream_id: str,
        meter: StreamMeter,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        stream = spec.model.stream
        wish = stream.on_midstream_failure
        now = loop.time()
        self.spec = spec
        self.exchange: OpenExchange | None = None
        self.has_content = False
        self.transcript = Transcript() if wish == "continue" else None
        self.count = 0
        self.models = 1
        self._runner = runner
        self._settings = runner.settings  # the stream's own, whatever is loaded while it runs
        self._stream_id = stream_id
        self._stream = stream
        self._meter = meter
        self._loop = loop
        self._mends = wish == "continue" or (wish == "restart" and spec.announces)
        self._fallbacks = list(spec.model.fallback)
        self._tried = [spec.model.name]
        self._asked_at = now  # infinite while no request is under way
        self._commit_by = now + stream.commit_after
        self._breaker: Breaker | None = None
        self._at_model = 0  # attempts at this model
        self._retries = 0  # without that of the exchange under way
        self._next: tuple[StreamSpec, Continued] | None = None
        self._continued: Continued = None
        runner.policy.budget.request(now)

    @property
    def upstream(self) -> UpstreamSettings:
        """The upstream of the attempt."""
        return self.spec.model.upstream

    @property
    def price(self) -> Price | None:
        """The price of the attempt's model."""
        return self._settings.price(self.spec.model)

    @property
    def retries(self) -> int:
        """Requests that asked the same model again, those in place of one on a dead connection included."""
        return self._retries + (self.exchange is not None and self.exchange.resent)

    def first(self, receiver: Receiver) -> tuple[Adapter, Translate]:
        """Makes the first attempt; where the breaker is open, at the first fallback whose breaker is not.

        Raises:
            Error: None can be made; nothing was sent.
        """
        spec = self.spec
        refused: Error | None = None
        while True:
            try:
                adapter, translate, self.exchange = self._ask(spec, receiver)
                break
            except Error as error:
                refused = refused or error
                following = self._following(has_begun=False) if refused.reason == _OPEN else None
                if following is None:
                    raise refused from None
                spec = following
        self.spec = spec
        if not self._may_be_made_again():
            self._forget_request()
        return adapter, translate

    def failed(self, error: Error, relay: Relay) -> float | None:
        """Judges a failed attempt, and plans the next.

        Returns:
            The seconds until `again` is due; `None`: the stream ends with this failure.
        """
        now = self._loop.time()
        self._runner.attempt_failed(self.upstream, error)
        self._judge(None if relay.has_content else error, now)
        planned = self._plan(error, relay, now)
        if planned is None:
            return None
        self.close_exchange()
        self._asked_at = math.inf
        spec, continued, delay = planned
        self._next = spec, continued
        return delay

    def again(self, receiver: Receiver, relay: Relay) -> tuple[Adapter, Translate, Continued] | None:
        """Makes the attempt that was planned, or another one where that one cannot be made.

        Returns:
            The adapter, the translation of its errors, and the kind of continuation; `None`: no attempt can be made.
        """
        while self._next is not None:
            (spec, continued), self._next = self._next, None
            asked = spec
            if continued == "prefill" and self.transcript is not None and isinstance(spec.request, Request):
                asked = replace(spec, request=spec.request.with_prefill(self.transcript.text or ""))
            try:
                adapter, translate, self.exchange = self._ask(asked, receiver)
            except Error:
                # Nothing was sent: the failure before stands, unless another attempt can be made.
                if continued == "prefill":
                    self._next = spec, "verified"
                    continue
                other = self._following(has_begun=relay.state is not _IDLE)
                if other is not None:
                    self._next = other, self._way(other, goes_on=continued is not None)
                continue
            self.spec, self._continued = spec, continued
            self.has_content = False
            return adapter, translate, continued
        return None

    # -- while one is under way --

    def note_content(self, now: float) -> None:
        """Notes the first content of the attempt: the upstream is well, and nothing is retried in silence."""
        self.has_content = True
        self._judge(None, now)
        self._forget_request()

    def first_event_due(self) -> float:
        """The time by which the first event must have come."""
        return self._asked_at + self.upstream.first_event_timeout

    def restart_first_event(self) -> None:
        """Begins the time for the first event anew: nothing could come until now."""
        self._asked_at = self._loop.time()

    def silence(self) -> Error:
        """The failure of an attempt whose first event did not come in time."""
        name, provider = self.upstream.name, self.upstream.provider
        within = f"within {self.upstream.first_event_timeout:g} s (first_event_timeout)"
        if self.exchange is not None and self.exchange.is_waiting:
            text = f"no connection to upstream {name!r} came free {within}: see max_connections"
            return Error("overloaded", text, reason="upstream_pool", phase="connect", provider=provider)
        return Error("timeout", f"upstream {name!r} sent no event {within}", reason="first_event", provider=provider)

    # -- the end --

    def exchange_ended(self) -> None:
        """Notes that no request is under way."""
        if self.exchange is not None:
            self._retries += self.exchange.resent
            self.exchange = None

    def close_exchange(self) -> None:
        """Aborts the request, where one is under way."""
        exchange = self.exchange
        if exchange is not None:
            self.exchange_ended()
            exchange.close()

    def leave(self, outcome: Outcome) -> None:
        """Plans no further attempt: the stream is over."""
        self._next = None
        breaker, self._breaker = self._breaker, None
        if breaker is not None:
            if outcome == "finished":
                breaker.succeeded()
            else:
                breaker.left(self)

    # -- own --

    def _ask(self, spec: StreamSpec, receiver: Receiver) -> tuple[Adapter, Translate, OpenExchange]:
        """Sends the request of a spec, where the upstream's breaker admits it."""
        now = self._loop.time()
        upstream = spec.model.upstream
        is_shared = spec.sharing is not None and spec.sharing.finds(spec)
        breaker = None if is_shared else self._runner.breaker(upstream)
        if breaker is not None and not breaker.admits(now, self):
            raise Error(
                "provider_unavailable",
                f"upstream {upstream.name!r} has failed too often, and is left alone for a while",
                reason=_OPEN,
                # The state is unknown while its probe is under way.
                retry_after_ms=max(1, round((breaker.seconds_left(now) or LIMITS.retry_first) * 1000)),
                provider=upstream.provider,
            )
        is_asked = False
        try:
            opened = self._runner.open(spec, receiver, self._stream_id, self.count + 1)
            is_asked = True
        finally:
            if not is_asked and breaker is not None:
                breaker.left(self)
        self._breaker = breaker
        self._asked_at = now
        self.count += 1
        self._retries += self._at_model > 0
        self._at_model += 1
        self._meter.asked(perf_counter())
        return opened

    def _plan(self, error: Error, relay: Relay, now: float) -> tuple[StreamSpec, Continued, float] | None:
        """The attempt after a failure, its kind of continuation, and the seconds until it; `None`: there is none."""
        spec = self.spec
        goes_on = relay.delivered or self._continued is not None
        if goes_on and not self._is_mended():
            return None
        if self._continued == "prefill" and not relay.has_content:
            return spec, "verified", 0.0  # it was refused
        breaker = self._runner.breaker(self.upstream)
        is_open = breaker is not None and breaker.state(now) == "open"
        is_silent = error.code == "timeout" and error.reason in ("first_event", "idle") and not relay.has_content
        verdict = self._runner.policy.decide(
            Failure(
                error,
                is_silence=is_silent,
                attempts=self._at_model,
                retries=0 if is_open else self.upstream.retries,
                seconds_to_commit=self._commit_by - now,
                is_clients_retry=spec.is_retry,
            ),
            now,
        )
        again = self._same(relay) if verdict.action == "again" else None
        if again is not None:
            return again, self._way(again, goes_on=goes_on), verdict.delay
        if verdict.action == "end":
            self._fallbacks.clear()
        if error.code in spec.model.fallback_on:
            self._fallbacks.insert(0, spec.model.fallback_on[error.code])
        other = self._following(has_begun=relay.state is not _IDLE)
        return None if other is None else (other, self._way(other, goes_on=goes_on), 0.0)

    def _same(self, relay: Relay) -> StreamSpec | None:
        """The spec for the same model again; `None`: it cannot follow the frames that the client has."""
        spec = self.spec
        if spec.frames is None or spec.hold or spec.other is None or relay.state is _IDLE:
            return spec
        try:
            return spec.to(spec.model, has_begun=True)
        except Error:
            return None  # the upstream reads more of its dialect than can be translated

    def _is_mended(self) -> bool:
        """Whether a failure after the first delivered content is followed by another attempt."""
        return self._mends and (self.transcript is None or not self.transcript.is_lost)

    def _way(self, spec: StreamSpec, *, goes_on: bool) -> Continued:
        """The kind of continuation from the delivered content: rule 3."""
        if not goes_on or self.transcript is None:
            return None
        if spec is self.spec and self._continued == "verified":
            return "verified"
        can_prefill = spec.model.prefill and isinstance(spec.request, Request) and bool(self.transcript.text)
        return "prefill" if can_prefill else "verified"

    def _following(self, *, has_begun: bool) -> StreamSpec | None:
        """The spec for the next model of `fallback` that has not been asked; `None`: there is none left.

        Args:
            has_begun: Whether events of an answer have been written.
        """
        while self._fallbacks:
            model = self._settings.model(self._fallbacks.pop(0))
            if model is None or model.name in self._tried:
                continue
            self._tried.append(model.name)
            try:
                # The client's options of the stream hold whichever model answers.
                spec = self.spec.to(replace(model, stream=self._stream), has_begun=has_begun)
            except Error:
                continue  # the request cannot be expressed in the dialect of this one
            self._at_model = 0
            self.models += 1
            return spec
        return None

    def _may_be_made_again(self) -> bool:
        is_retried = self.upstream.retries > 0 and not self.spec.is_retry
        return is_retried or bool(self._fallbacks) or bool(self.spec.model.fallback_on)

    def _forget_request(self) -> None:
        """Drops a request that is not sent again."""
        if not self._mends:
            self.spec.request, self.spec.other = {}, None

    def _judge(self, error: Error | None, now: float) -> None:
        """Reports the outcome of the attempt to the breaker, once."""
        breaker, self._breaker = self._breaker, None
        if breaker is None:
            return
        if error is not None and is_fault_of_upstream(error):
            if breaker.failed(now, self):
                self._runner.breaker_opened(self.upstream, error)
        elif error is not None and is_of_this_process(error):
            breaker.left(self)
        else:
            breaker.succeeded()
