"""The attempts at one answer: the choice of upstreams, their order and times, and the continuation of a failed attempt.

Owns opening, breakers, retries and fallbacks of one stream. `retry.py` decides whether a failed attempt is made again;
`core/relay.py` makes them one stream for the client. Arms no timer and has no callbacks: the session calls.

1. The same target is retried first, then the other targets of the model are asked, each once, then the models of
   `fallback` in order, each once. A target that is left alone (it cools down, or its breaker is open) is not retried,
   unless it asks for a short wait and nothing else is ready (`wait_for_limit`). After a stall amid the answer the same
   target comes last.
2. Before the first delivered content an attempt simply begins anew. After it, `on_midstream_failure` decides:
   `error` ends the stream; `restart` makes the delivered content void; `continue` goes on from it.
3. `continue` asks by prefill where the model has `prefill` and the delivered content is one text; else the attempt must
   repeat the delivered content, which the transcript verifies. A refused prefill is followed by a verified attempt at
   the same model.
4. The first attempt waits while no target's speed is known: see `balance.py`, rule 4.
5. Where the first event is awaited for longer than `hedge_after`, a second target is asked, once in a stream: see
   `hedge.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Container
from dataclasses import replace
from typing import Any, Final, Literal

from mypy_extensions import mypyc_attr

from gai_fast.core.account import Account, Bill
from gai_fast.core.legal_stream import State
from gai_fast.core.meter import StreamMeter
from gai_fast.core.relay import Relay
from gai_fast.core.transcript import Transcript
from gai_fast.kernels import FastPath
from gai_fast.model.errors import Error
from gai_fast.model.metrics import Outcome, Tallies
from gai_fast.model.request import Request
from gai_fast.model.settings import ModelSettings, Secret, Settings, UpstreamSettings
from gai_fast.net.attempts.balance import Place, Visit, cooling_seconds, place_of
from gai_fast.net.attempts.hedge import Hedge
from gai_fast.net.attempts.key_ring import KeyRing
from gai_fast.net.attempts.retry import Breaker, Failure, RetryPolicy, is_fault_of_upstream, is_of_this_side
from gai_fast.net.attempts.spec import Clock, StreamSpec
from gai_fast.net.limits import LIMITS
from gai_fast.net.upstream.connection import OpenExchange, Receiver
from gai_fast.providers import Adapter, get_provider

Translate = Callable[[Error, bytes], Error]
Continued = Literal["verified", "prefill"] | None

_OPEN: Final = "breaker_open"
_LEFT_ALONE: Final = frozenset({_OPEN, "cooling", "drained", "target_streams", "upstream_keys", "upstream_credentials"})
"""Reasons why nothing is sent to an upstream for a while: before the first attempt, others are tried."""
_IDLE: Final[State] = State.IDLE
_NO_REQUEST: Final[dict[str, Any]] = {}
perf_counter: Final = time.perf_counter  # a constant, because to look a name up costs 30 ns


@mypyc_attr(allow_interpreted_subclasses=True)
class AttemptRunner:
    """The part of the targets that attempts use: no protocol, as `Timers` is none."""

    settings: Settings
    policy: RetryPolicy
    tallies: Tallies

    def breaker(self, upstream: UpstreamSettings) -> Breaker | None:
        """Returns the upstream's breaker, where it has one."""
        raise NotImplementedError

    def visit(self, model: ModelSettings, now: float) -> Visit | None:
        """Begins a request at a target of a model; arguments and result as for `Balancer.begin`."""
        raise NotImplementedError

    def place(
        self, model: ModelSettings, request: Request | dict[str, Any], without: Container[Place]
    ) -> ModelSettings | None:
        """Chooses a target of a model.

        Args:
            model: A model with targets.
            request: As for `StreamSpec`.
            without: Targets that are not to be asked again.

        Returns:
            The model with the target's upstream and id; `None`: no target is ready.
        """
        raise NotImplementedError

    def is_premature(self, model: ModelSettings, now: float) -> bool:
        """Returns whether a request should wait before it is sent to a target of a model.

        Args:
            model: The model with the target's upstream and id.
            now: Monotonic seconds.
        """
        raise NotImplementedError

    def placed(self, model: ModelSettings, request: Request | dict[str, Any]) -> ModelSettings:
        """Returns a model with the target for a request, ready or not; one without targets as it is.

        Args:
            model: The model.
            request: As for `StreamSpec`.
        """
        raise NotImplementedError

    def target_wait(self, model: ModelSettings, *, any_target: bool) -> float:
        """Returns the seconds until the model's target, or any of its targets, is ready; 0: now."""
        raise NotImplementedError

    def key_ring(self, upstream: UpstreamSettings) -> KeyRing:
        """Returns the keys of an upstream that has several."""
        raise NotImplementedError

    def attempt_failed(self, upstream: UpstreamSettings, error: Error) -> None:
        """Notes a failed attempt."""
        raise NotImplementedError

    def breaker_opened(self, upstream: UpstreamSettings, error: Error) -> None:
        """Notes that nothing is sent to an upstream for a while."""
        raise NotImplementedError

    def open(
        self, spec: StreamSpec, receiver: Receiver, stream_id: str, number: int, key: Secret | None
    ) -> tuple[Adapter, Translate, OpenExchange]:
        """Sends a request to the upstream of a spec.

        Args:
            spec: The attempt.
            receiver: Gets the response.
            stream_id: The stream's id.
            number: The number of the attempt, from 1.
            key: The upstream's key.

        Raises:
            Error: It cannot be asked for this; nothing was sent.
        """
        raise NotImplementedError


class Attempt:
    """One request for an answer. It reports to its upstream's breaker, its target and its key how it went.

    Args:
        runner: The targets.
        spec: What is asked for.
        breaker: The upstream's breaker, if it has one.
        at: Monotonic seconds.

    Attributes:
        spec: As above.
        at: The beginning of the time for the first event, in monotonic seconds.
        asked_at: When it was asked, in seconds of `perf_counter`.
        continued: How its answer goes on from the delivered content. None if it begins anew.
        visit: The request at its target, if the model has targets.
        ring: The upstream's keys, if it has several.
        key: The key that is used.
        exchange: The request on its connection. None after its end.
        hedge_at: The time to ask a second target. None if none is asked.
        hedge: Keeps the answer of a hedge until it is joined to the stream.
        content_noted: Whether its first content has been noted.
    """

    __slots__ = (
        "_breaker",
        "_runner",
        "account",
        "adapter",
        "asked_at",
        "at",
        "content_noted",
        "continued",
        "exchange",
        "hedge",
        "hedge_at",
        "key",
        "ring",
        "spec",
        "translate",
        "visit",
    )

    def __init__(self, runner: AttemptRunner, spec: StreamSpec, breaker: Breaker | None, at: float) -> None:
        self._runner = runner
        self._breaker = breaker
        self.spec = spec
        self.at = at
        self.continued: Continued = None
        self.visit: Visit | None = None
        self.ring: KeyRing | None = None
        self.key = spec.model.upstream.api_key
        self.adapter: Adapter  # from `Attempts._ask` on, as the next four
        self.translate: Translate
        self.exchange: OpenExchange | None
        self.account: Account
        self.asked_at: float
        self.hedge_at: float | None = None
        self.hedge: Hedge | None = None
        self.content_noted = False

    @property
    def upstream(self) -> UpstreamSettings:
        """The upstream."""
        return self.spec.model.upstream

    @property
    def first_event_due(self) -> float:
        """The time by which the first event must have come."""
        return self.at + self.upstream.first_event_timeout

    def note_content(self, loop: asyncio.AbstractEventLoop) -> None:
        """Notes the first content, whose time by the loop's clock only a target needs."""
        self.content_noted = True
        breaker, self._breaker = self._breaker, None
        if breaker is not None:
            breaker.succeeded()
        if self.visit is not None:
            self.visit.told(loop.time())

    def failed(self, error: Error, now: float) -> bool:
        """Notes the failure; returns whether the upstream has another key, which may do better."""
        breaker, self._breaker = self._breaker, None
        if breaker is not None:
            if is_fault_of_upstream(error):
                if breaker.failed(now, self):
                    self._runner.breaker_opened(self.upstream, error)
            elif is_of_this_side(error):
                breaker.left(self)
            else:
                breaker.succeeded()
        wait: float | None = None
        if self.ring is not None and self.key is not None:
            wait = self.ring.failed(self.key, error, now)
        if self.visit is not None:
            self.visit.failed(error, now, cooling_seconds(error) if wait is None else wait)
            self.visit.end(now)
        return wait == 0.0

    def leave(self, loop: asyncio.AbstractEventLoop, *, is_finished: bool) -> None:
        """Notes the end: of a whole answer, or before the outcome was known; idempotent.

        Only a target needs its time.
        """
        breaker, self._breaker = self._breaker, None
        if breaker is not None:
            if is_finished:
                breaker.succeeded()
            else:
                breaker.left(self)
        if self.visit is not None:
            self.visit.end(loop.time())

    def abandon(self, loop: asyncio.AbstractEventLoop) -> None:
        """Ends an attempt whose answer is not needed: its prompt is charged, if that was sent."""
        if self.hedge is not None:
            self.hedge.decide()
        self.account.give_up()
        self.leave(loop, is_finished=False)
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.close()


class Attempts:
    """The attempts at one answer, one after the other.

    Args:
        runner: The targets.
        spec: The first attempt.
        stream_id: The stream's id.
        meter: Measures the stream.
        bill: Gets an account for each attempt.
        loop: The loop.

    Attributes:
        attempt: The attempt under way, or the last one. None while the first one waits.
        spec: What it asks for, or what the first one will ask for.
        hedge: A second target's attempt, if one has been asked and nothing is decided.
        transcript: The delivered content, where a failed answer is continued.
        count: Attempts so far, hedges included.
        models: Models asked so far.
        hedges: Second targets that were asked while the first was silent.
    """

    __slots__ = (
        "_at_model",
        "_at_target",
        "_bill",
        "_commit_by",
        "_fallbacks",
        "_limit_wait",
        "_loop",
        "_mends",
        "_meter",
        "_next",
        "_others",
        "_places",
        "_retries",
        "_runner",
        "_settings",
        "_stream",
        "_stream_id",
        "_tried",
        "_wait_until",
        "_won",
        "attempt",
        "count",
        "hedge",
        "hedges",
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
        bill: Bill,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        stream = spec.model.stream
        wish = stream.on_midstream_failure
        now = loop.time()
        self.spec = spec
        self.attempt: Attempt | None = None
        self.hedge: Attempt | None = None
        self.transcript = Transcript() if wish == "continue" else None
        self.count = 0
        self.models = 1
        self._runner = runner
        self._settings = runner.settings  # the stream's own, whatever is loaded while it runs
        self._stream_id = stream_id
        self._stream = stream
        self._meter = meter
        self._bill = bill
        self._loop = loop
        self._mends = wish == "continue" or (wish == "restart" and spec.announces)
        self._fallbacks: tuple[str, ...] = spec.model.fallback  # tuples, because most streams leave these as they are
        self._tried: tuple[str, ...] = (spec.model.name,)
        self._commit_by = now + stream.commit_after
        self._wait_until: float | None = None
        self._at_model = 0  # attempts at this model
        self._at_target = 0  # attempts at this target of it
        self._limit_wait = 0.0  # seconds that this model's upstreams' limits have been waited for
        self._others: ModelSettings | None = None  # the model whose other targets may still be asked
        self._places: tuple[Place, ...] = ()  # its targets that have been asked
        self._won: Attempt | None = None  # the hedge that is to become the attempt
        self.hedges = 0
        self._retries = 0  # without that of the exchange under way
        self._next: tuple[StreamSpec, Continued] | None = None
        runner.policy.budget.request(now)
        self._note_model(spec.model)

    @property
    def upstream(self) -> UpstreamSettings:
        """The upstream of the attempt."""
        return self.spec.model.upstream

    @property
    def exchange(self) -> OpenExchange | None:
        """The request of the attempt. None while the next attempt waits, and after the end."""
        return None if self.attempt is None else self.attempt.exchange

    @property
    def retries(self) -> int:
        """Requests that asked the same model again, those in place of one on a dead connection included."""
        exchange = self.exchange
        return self._retries + (exchange is not None and exchange.resent)

    def waits(self) -> bool:
        """Returns whether the first attempt must wait. After a wait the target is chosen again.

        Call it before `first`, and again every `limits.unmeasured_look` seconds while it is true.
        """
        model = self.spec.model
        if not model.targets or self.spec.counts or self.spec.sharing is not None:
            return False
        now = self._loop.time()
        if self._wait_until is None and not self._runner.is_premature(model, now):
            return False
        placed = self._runner.place(model, self.spec.request, ()) or model
        until = now + LIMITS.unmeasured_wait if self._wait_until is None else self._wait_until
        if now < until and self._runner.is_premature(placed, now):
            self._wait_until = until
            return True
        if place_of(placed) != place_of(model):
            with contextlib.suppress(Error):  # the request cannot be expressed in the dialect of this one
                self.spec = self.spec.to(replace(placed, stream=self._stream), has_begun=False)
                self._note_model(self.spec.model)
        return False

    def first(self, receiver: Receiver) -> Attempt:
        """Makes the first attempt; where its upstream is left alone, at the first target or fallback that is not.

        Raises:
            Error: None can be made; nothing was sent.
        """
        spec = self.spec
        refused: Error | None = None
        while True:
            try:
                attempt = self._attempt(spec, receiver)
                break
            except Error as error:
                refused = refused or error
                following = self._following(has_begun=False) if refused.reason in _LEFT_ALONE else None
                if following is None:
                    raise refused from None
                spec = following
                if spec.trace is not None:
                    spec.trace.follows("fallback")
        if not self._may_be_made_again():
            self._forget_request()
        return attempt

    def failed(self, error: Error, relay: Relay) -> float | None:
        """Judges a failed attempt, and plans the next.

        Returns:
            The seconds until `again` is due; `None`: the stream ends with this failure.
        """
        now = self._loop.time()
        if self.spec.trace is not None:
            self.spec.trace.failed(error, has_content=relay.has_content)
        self._runner.attempt_failed(self.upstream, error)
        has_key = False
        if self.attempt is not None:
            if relay.has_content:
                self.attempt.note_content(self._loop)
            has_key = self.attempt.failed(error, now)
        if self.hedge is not None:
            if relay.state is _IDLE and not relay.delivered and self.attempt is not None:
                self.attempt.account.close(None, None)
                self.take_hedge()
                return 0.0
            self.drop_hedge()
        planned = self._plan(error, relay, now, has_key=has_key)
        if planned is None:
            self._shorten(error)
            return None
        self.close_exchange()
        spec, continued, delay = planned
        self._next = spec, continued
        return delay

    def again(self, receiver: Receiver, relay: Relay) -> Attempt | None:
        """Makes the attempt that was planned, or another one where that one cannot be made.

        Returns:
            The attempt; None if none can be made.
        """
        won, self._won = self._won, None
        if won is not None:
            self._at_target = 1
            self._use(won)
            return won
        while self._next is not None:
            (spec, continued), self._next = self._next, None
            asked = spec
            if continued == "prefill" and self.transcript is not None and isinstance(spec.request, Request):
                asked = replace(spec, request=spec.request.with_prefill(self.transcript.text or ""))
            if spec.trace is not None:
                kind = "retry" if spec.model.name == self.spec.model.name else "fallback"
                spec.trace.follows(kind, *(() if continued is None else ("resume",)))
            try:
                return self._attempt(spec, receiver, asked, continued)
            except Error:
                # Nothing was sent: the failure before stands, unless another attempt can be made.
                if continued == "prefill":
                    self._next = spec, "verified"
                    continue
                other = self._following(has_begun=relay.state is not _IDLE)
                if other is not None:
                    self._next = other, self._way(other, goes_on=continued is not None)
        return None

    # -- while one is under way --

    def note_content(self, attempt: Attempt) -> None:
        """Notes the first content of the attempt: the upstream is well, and nothing is retried in silence."""
        attempt.note_content(self._loop)
        self._forget_request()

    def silence(self) -> Error:
        """The failure of an attempt whose first event did not come in time."""
        name, provider, exchange = self.upstream.name, self.upstream.provider, self.exchange
        within = f"within {self.upstream.first_event_timeout:g} s (first_event_timeout)"
        if exchange is not None and exchange.is_waiting:
            text = f"no connection to upstream {name!r} came free {within}: see max_connections"
            return Error("overloaded", text, reason="upstream_pool", phase="connect", provider=provider)
        return Error("timeout", f"upstream {name!r} sent no event {within}", reason="first_event", provider=provider)

    # -- hedges --

    def ask_second(self, started: Callable[[], FastPath | None], failed: Callable[[Error], None], clock: Clock) -> None:
        """Asks a second target for the answer, where one is ready; nothing of the first one's may have been sent.

        Args:
            started: As for `Hedge`.
            failed: As for `Hedge`.
            clock: The stream's.
        """
        spec = self._other_target(has_begun=False)
        if spec is None:
            return
        if spec.trace is not None:
            spec.trace.follows("hedge")
        hedge = Hedge(get_provider(spec.model.upstream.provider).adapter(spec.model.id), started, failed, clock)
        try:
            self.hedge = self._ask(spec, hedge, spec)
        except Error:
            return  # the first one goes on alone
        self.hedge.hedge = hedge
        self.hedges += 1
        self._runner.tallies.hedges += 1

    def drop_hedge(self, error: Error | None = None) -> None:
        """Ends the hedge: the first request has brought its first event, or the stream is over, or the hedge failed.

        Args:
            error: The hedge's failure.
        """
        hedge, self.hedge = self.hedge, None
        if hedge is None:
            return
        if hedge.spec.trace is not None:
            hedge.spec.trace.hedge_dropped(error)
        if error is not None:
            hedge.account.close(None, None)
            self._runner.attempt_failed(hedge.upstream, error)
            hedge.failed(error, self._loop.time())
        hedge.abandon(self._loop)

    def take_hedge(self) -> None:
        """Abandons the first request: `again` returns the hedge as the next attempt."""
        self._won, self.hedge = self.hedge, None
        if self._won is None or self._won.hedge is None or self.attempt is None:
            return
        self._won.hedge.decide()
        if self.spec.trace is not None:
            self.spec.trace.hedge_taken()
        self.close_exchange()
        self.attempt.abandon(self._loop)

    # -- the end --

    def exchange_ended(self) -> None:
        """Notes that no request is under way."""
        attempt, exchange = self.attempt, self.exchange
        if attempt is not None and exchange is not None:
            self._retries += exchange.resent
            attempt.exchange = None

    def close_exchange(self) -> None:
        """Aborts the request, where one is under way."""
        exchange = self.exchange
        if exchange is not None:
            self.exchange_ended()
            exchange.close()

    def leave(self, outcome: Outcome) -> None:
        """Plans no further attempt: the stream is over."""
        self._next = None
        if self.attempt is not None:
            self.attempt.leave(self._loop, is_finished=outcome == "finished")
        self.drop_hedge()
        won, self._won = self._won, None
        if won is not None:
            won.abandon(self._loop)

    # -- own --

    def _attempt(
        self, spec: StreamSpec, receiver: Receiver, sent: StreamSpec | None = None, continued: Continued = None
    ) -> Attempt:
        """Makes an attempt.

        Args:
            spec: What is asked for.
            receiver: As for `open`.
            sent: The spec that is sent, if it is another one: that of a prefill.
            continued: As for `Attempt`.

        Raises:
            Error: It cannot be made; nothing was sent.
        """
        attempt = self._ask(spec, receiver, sent or spec)
        attempt.continued = continued
        self._retries += self._at_model > 0
        self._at_model += 1
        self._at_target += 1
        after = spec.model.hedge_after
        if after is not None and self._may_be_hedged(spec):
            attempt.hedge_at = attempt.at + after
        self._use(attempt)
        return attempt

    def _use(self, attempt: Attempt) -> None:
        """Makes an attempt that of the stream."""
        self.attempt, self.spec = attempt, attempt.spec
        self._meter.asked(attempt.asked_at)

    def _ask(self, spec: StreamSpec, receiver: Receiver, sent: StreamSpec) -> Attempt:
        """Sends a request, if its upstream and its target may be asked; arguments as for `_attempt`."""
        now = self._loop.time()
        model = spec.model
        upstream = model.upstream
        is_shared = sent.sharing is not None and sent.sharing.finds(sent)
        breaker = None if is_shared else self._runner.breaker(upstream)
        attempt = Attempt(self._runner, spec, breaker, now)
        if breaker is not None and not breaker.admits(now, attempt):
            raise Error(
                "provider_unavailable",
                f"upstream {upstream.name!r} has failed too often, and is left alone for a while",
                reason=_OPEN,
                retry_after_ms=max(1, round(breaker.wait(now) * 1000)),
                provider=upstream.provider,
            )
        is_asked = False
        try:
            if model.targets and not is_shared and not spec.counts:  # a count of tokens is no stream
                attempt.visit = self._runner.visit(model, now)
            if upstream.more_api_keys and not is_shared:
                attempt.ring = self._runner.key_ring(upstream)
                attempt.key = attempt.ring.next(now)
                if attempt.key is None:
                    raise attempt.ring.refusal(upstream, now)
            opened = self._runner.open(sent, receiver, self._stream_id, self.count + 1, attempt.key)
            is_asked = True
            if spec.trace is not None:
                spec.trace.sent()
        finally:
            if not is_asked:
                attempt.leave(self._loop, is_finished=False)
        self.count += 1
        attempt.adapter, attempt.translate, attempt.exchange = opened[0], opened[1], opened[2]
        attempt.account = self._account(spec, opened[2])
        attempt.asked_at = perf_counter()
        return attempt

    def _account(self, spec: StreamSpec, exchange: OpenExchange) -> Account:
        """Opens the account of an attempt. A count of tokens costs nothing."""
        model, sharing = spec.model, spec.sharing
        return Account(
            self._bill,
            exchange,
            model.upstream.provider.partition(":")[0],
            model.upstream.name if sharing is None else sharing.upstream,
            None if spec.counts else self._settings.price(model),
            prompt_characters=spec.prompt_characters,
            is_free=sharing is not None and sharing.role != "miss",
        )

    def _may_be_hedged(self, spec: StreamSpec) -> bool:
        """Whether a second target may be asked while the first is silent.

        An upstream that makes a whole answer is silent until its end. An answer that others may share has one call.
        """
        is_whole = spec.hold and spec.frames is not None
        return not self.hedges and not spec.counts and not is_whole and spec.sharing is None

    def _plan(
        self, error: Error, relay: Relay, now: float, *, has_key: bool
    ) -> tuple[StreamSpec, Continued, float] | None:
        """The attempt after a failure, its kind of continuation, and the seconds until it; `None`: there is none."""
        spec = self.spec
        continued = None if self.attempt is None else self.attempt.continued
        goes_on = relay.delivered or continued is not None
        if goes_on and not self._is_mended():
            return None
        if continued == "prefill" and not relay.has_content:
            return spec, "verified", 0.0  # it was refused
        if has_key and self._at_target <= len(self.upstream.more_api_keys):
            same = self._same(relay)
            if same is not None:
                return same, self._way(same, goes_on=goes_on), 0.0
        breaker = self._runner.breaker(self.upstream)
        is_broken = breaker is not None and breaker.state(now) == "open"
        is_left = is_broken or (
            bool(spec.model.targets) and self._runner.target_wait(spec.model, any_target=False) > 0.0
        )
        has_stalled = error.code == "timeout" and error.reason in ("first_event", "idle")
        failure = Failure(
            error,
            is_silence=has_stalled and not relay.has_content,
            attempts=self._at_target,
            retries=0 if is_left else self.upstream.retries,
            seconds_to_commit=self._commit_by - now,
            is_clients_retry=spec.is_retry,
        )
        if has_stalled and relay.has_content:
            # Each try of a target that stalls costs its client an `idle_timeout`.
            other = self._fallen_back(error, has_begun=True)
            if other is not None:
                return other, self._way(other, goes_on=goes_on), 0.0
        verdict = self._runner.policy.decide(failure, now)
        again = self._same(relay) if verdict.action == "again" else None
        if again is not None:
            self._limit_wait += 0.0 if error.retry_after_ms is None else verdict.delay
            return again, self._way(again, goes_on=goes_on), verdict.delay
        if verdict.action == "end":
            self._fallbacks = ()
            self._others = None
        other = self._fallen_back(error, has_begun=relay.state is not _IDLE)
        if other is not None:
            return other, self._way(other, goes_on=goes_on), 0.0
        if is_broken or verdict.action == "end":
            return None
        most = spec.model.wait_for_limit - self._limit_wait
        wait = self._runner.policy.wait(replace(failure, retries=self.upstream.retries), most, now)
        same = None if wait is None else self._same(relay)
        if wait is None or same is None:
            return None
        self._limit_wait += wait
        return same, self._way(same, goes_on=goes_on), wait

    def _fallen_back(self, error: Error, *, has_begun: bool) -> StreamSpec | None:
        """As `_following`, with the model that `fallback_on` names for a failure before those of `fallback`."""
        named = self.spec.model.fallback_on.get(error.code)
        if named is not None:
            self._fallbacks = (named, *self._fallbacks)
        return self._following(has_begun=has_begun)

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
        if self.attempt is not None and spec is self.spec and self.attempt.continued == "verified":
            return "verified"
        can_prefill = spec.model.prefill and isinstance(spec.request, Request) and bool(self.transcript.text)
        return "prefill" if can_prefill else "verified"

    def _note_model(self, model: ModelSettings) -> None:
        """Notes the model, and the target of it, that is asked next."""
        self._others = model if model.targets else None
        self._places = (place_of(model),) if model.targets else ()

    def _other_target(self, *, has_begun: bool) -> StreamSpec | None:
        """The spec for another target of the model that is ready and has not been asked; `None`: there is none left.

        Args:
            has_begun: As for `_following`.
        """
        model = self._others
        if model is None:
            return None
        while True:
            placed = self._runner.place(model, self.spec.request, self._places)
            if placed is None:
                return None
            self._places = (*self._places, place_of(placed))
            try:
                return self.spec.to(replace(placed, stream=self._stream), has_begun=has_begun)
            except Error:
                continue  # the request cannot be expressed in the dialect of this one

    def _following(self, *, has_begun: bool) -> StreamSpec | None:
        """The spec for another target, or the next model of `fallback` that has not been asked; `None`: none is left.

        Args:
            has_begun: Whether events of an answer have been written.
        """
        other = self._other_target(has_begun=has_begun)
        if other is not None:
            self._at_target = 0
            return other
        while self._fallbacks:
            name, self._fallbacks = self._fallbacks[0], self._fallbacks[1:]
            model = self._settings.model(name)
            if model is None or model.name in self._tried:
                continue
            self._tried = (*self._tried, model.name)
            model = self._runner.placed(model, self.spec.request)
            self._note_model(model)
            try:
                # The client's options of the stream hold whichever model answers.
                spec = self.spec.to(replace(model, stream=self._stream), has_begun=has_begun)
            except Error:
                continue  # the request cannot be expressed in the dialect of this one
            self._at_model = self._at_target = 0
            self.models += 1
            return spec
        return None

    def _may_be_made_again(self) -> bool:
        is_retried = self.upstream.retries > 0 and not self.spec.is_retry
        has_others = bool(self.spec.model.targets) or bool(self.upstream.more_api_keys)
        return is_retried or has_others or bool(self._fallbacks) or bool(self.spec.model.fallback_on)

    def _shorten(self, error: Error) -> None:
        """Names the shortest wait, where the last of a model's targets has failed and all of them are left alone."""
        if error.is_temporary and self.spec.model.targets:
            wait = self._runner.target_wait(self.spec.model, any_target=True) * 1000
            asked = error.retry_after_ms
            if 0.0 < wait < math.inf and (asked is None or wait < asked):
                error.retry_after_ms = max(1, math.ceil(wait))

    def _forget_request(self) -> None:
        """Drops a request that is not sent again."""
        if not self._mends:
            self.spec.request, self.spec.other = _NO_REQUEST, None
