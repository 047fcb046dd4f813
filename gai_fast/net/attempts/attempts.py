"""The attempts at one answer: their order and times, and the continuation of a failed attempt.

Owns opening, breakers, retries and fallbacks of one stream. `candidates.py` has the targets and models that may be
asked, `retry.py` decides whether a failed attempt is repeated, and `core/relay.py` makes all attempts one stream for
the client. Arms no timer and has no callbacks: the session calls.

1. The same target is retried first, then the other targets of the model are asked, each once, then the models of
   `fallback` in order, each once. A target that is left alone (it cools down, or its breaker is open) is not retried,
   unless it asks for a short wait and nothing else is ready (`wait_for_limit`). If it refuses a member by name that the
   gateway has added or translated, it is asked once more without the member. After a stall in the middle of an
   answer the same target comes last.
2. Before the first delivered content the next attempt replaces the failed one. After it, `on_midstream_failure`
   decides: `error` ends the stream; `restart` makes the delivered content void; `continue` goes on from it.
3. `continue` asks by prefill if the model has `prefill` and the delivered content is one text. Otherwise the attempt
   must repeat the delivered content, which the transcript verifies. A refused prefill is followed by a verified attempt
   at the same model.
4. The first attempt waits while no target's speed is known: see `balance.py`, rule 4.
5. If no event comes within `hedge_after`, a second target is asked, once in a stream: see `hedge.py`.
6. The stream of a worker that is gone goes on with an attempt that is no retry (`resume`). A delivered text that is
   shorter than `limits.repeated_text` is no prefill then: a repetition could not be told from it. While other streams,
   perhaps of other workers, have all connections, it waits.
7. A model may think for minutes. Where another target or model is left and the request asks for no reasoning, an
   upstream that is silent is given up sooner; within an answer too, if another attempt could go on with it. The
   operator's own times hold.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from gai_fast.core.account import Account, Bill
from gai_fast.core.legal_stream import State
from gai_fast.core.limits import LIMITS
from gai_fast.core.meter import StreamMeter
from gai_fast.core.relay import Relay
from gai_fast.core.requests.reasoning import asks_for_reasoning
from gai_fast.core.transcript import Transcript
from gai_fast.formats import get_format
from gai_fast.kernels import FastPath
from gai_fast.model.errors import Error
from gai_fast.model.metrics import Outcome
from gai_fast.model.money import Charge
from gai_fast.model.request import Request
from gai_fast.model.settings import Price, UpstreamSettings
from gai_fast.net.attempts.attempt import Attempt, AttemptRunner, Continued
from gai_fast.net.attempts.candidates import LEFT_ALONE, Candidates
from gai_fast.net.attempts.hedge import Hedge
from gai_fast.net.attempts.retry import NO_CONNECTION
from gai_fast.net.attempts.spec import Clock, StreamSpec
from gai_fast.net.limits import LIMITS as NET_LIMITS
from gai_fast.net.upstream.connection import OpenExchange, Receiver
from gai_fast.providers import get_provider

_IDLE: Final[State] = State.IDLE
perf_counter: Final = time.perf_counter  # a constant: a name look-up costs 30 ns


class Attempts:
    """The attempts at one answer, one after the other.

    Args:
        runner: The targets.
        spec: The first attempt.
        stream_id: The stream's id.
        meter: Measures the stream.
        loop: The loop.
        now: Its time.
        former: The attempts at the turn before, if the stream is a run in a later turn: figures go on from theirs.

    Attributes:
        attempt: The attempt under way, or the last one. None while the first one waits.
        bill: The account of each attempt.
        count: Attempts so far, hedges included.
        hedge: A second target's answer, if one has been asked for and nothing is decided.
        hedges: Second targets that were asked while the first was silent.
        spec: The request of the attempt, or of the first one to come.
        stream_id: The stream's id.
        transcript: The delivered content. None if a failed answer is not continued.
    """

    def __init__(
        self,
        runner: AttemptRunner,
        spec: StreamSpec,
        stream_id: str,
        meter: StreamMeter,
        loop: asyncio.AbstractEventLoop,
        now: float,
        former: Attempts | None = None,
    ) -> None:
        stream = spec.model.stream
        wish = stream.on_midstream_failure
        if wish == "continue" and not spec.is_continued:  # it begins again, if its format can express that
            wish = "restart"
        self.spec = spec
        self.stream_id = stream_id
        self.attempt: Attempt | None = None
        self.bill = Bill()
        self.hedge: Hedge | None = None
        self.hedges = self._hedges_before = 0
        self.transcript = Transcript() if wish == "continue" else None
        self.count = 0
        self._runner = runner
        self._settings = runner.settings  # the stream's own, even after a reload
        self._candidates = Candidates(runner, self._settings, spec.model, now + stream.commit_after)
        self._stream = stream
        self._meter = meter
        self._loop = loop
        self._mends = wish == "continue" or (wish == "restart" and spec.can_reset)
        self._goes_on = False  # whether the first attempt goes on from the content of a worker that is gone
        self._least_prefill = 1  # characters
        self._takes_over = False  # whether its first attempt replaces one of a worker that is gone: rule 6
        self._has_less = False  # whether it was asked again without a member that the upstream refuses
        self._won: Hedge | None = None  # the hedge that becomes the attempt
        self._retries = 0  # without those of the exchange under way
        self._next: tuple[StreamSpec, Continued] | None = None
        self._former_fallbacks = 0  # of the turns before
        if former is not None:
            self.bill = former.bill
            self.count, self.hedges = former.count, former.hedges
            self.transcript = former.transcript
            self._hedges_before = former.hedges
            self._retries = former.retries
            self._former_fallbacks = former.fallbacks
            self._takes_over = former._takes_over and former.attempt is None

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
        """Repeated requests to the same model, including those that replace a request on a dead connection."""
        exchange = self.exchange
        return self._retries + (exchange is not None and exchange.resent)

    @property
    def fallbacks(self) -> int:
        """Other models that have been asked."""
        return self._former_fallbacks + self._candidates.models - 1

    @property
    def earlier_charges(self) -> tuple[Charge, ...]:
        """The cost of all attempts but the last."""
        return () if self.attempt is None else self.bill.charges_before(self.attempt.account)

    def waits(self) -> bool:
        """Returns whether the first attempt must wait. After a wait the target is chosen again.

        Call it before `first`, and again every `limits.unmeasured_check` seconds while it is true.
        """
        if not self.spec.model.targets or self.attempt is not None:
            return False
        if self.spec.counts or self.spec.sharing is not None:
            return False
        spec = self._candidates.chosen_first(self.spec, self._loop.time())
        if spec is not None:
            self.spec = spec
        return spec is None

    def first(self, receiver: Receiver, now: float) -> Attempt:
        """Makes the first attempt, now. If its upstream is left alone, asks the first target or fallback that is not.

        Raises:
            Error: No attempt can be made; nothing was sent.
        """
        spec = self.spec
        refused: Error | None = None
        while True:
            try:
                attempt = self._attempt(spec, receiver, now, spec)
                break
            except Error as error:
                refused = refused or error
                following = None
                if refused.reason in LEFT_ALONE:
                    following = self._candidates.following(self.spec, has_begun=False)
                if following is None:
                    raise refused from None
                spec = following
                if spec.trace is not None:
                    spec.trace.follows("fallback")
        if not self._mends and not self._may_be_repeated():
            self.spec.drop_request()
        return attempt

    def failed(self, error: Error, relay: Relay) -> float | None:
        """Judges a failed attempt, and plans the next.

        Returns:
            The seconds until `next` is due. None if the stream ends with this failure.
        """
        now = self._loop.time()
        if self.spec.trace is not None:
            self.spec.trace.failed(error, has_content=relay.has_content)
        self._runner.attempt_failed(self.upstream, error, self.spec.credential)
        has_key = False
        if self.attempt is not None:
            if relay.has_content:
                self.attempt.note_content(now)
            has_key = self.attempt.failed(error, now)
        if self.hedge is not None:
            if _is_silent(relay) and self.attempt is not None:
                self.attempt.account.close(None, None)
                self.take_hedge()
                return 0.0
            self.drop_hedge()
        planned = self._plan(error, relay, now, has_key=has_key)
        if planned is None:
            self._candidates.shorten_wait(error, self.spec.model)
            if not relay.has_content:
                error.param = self._runner.client_member(self.spec, error)
            return None
        self.close_exchange()
        spec, continued, delay = planned
        if spec.model.upstream is not self.upstream:
            self._runner.failure_hidden(self.upstream, error, self.spec.credential)
        self._next = spec, continued
        return delay

    def resume(self, *, goes_on: bool) -> bool:
        """Begins with an attempt that replaces the one of a worker that is gone: rule 6.

        Args:
            goes_on: Whether content was delivered.

        Returns:
            Whether it may begin: it may not if the content can neither be continued nor made void.
        """
        self.take_over()
        self._goes_on = goes_on
        self._least_prefill = LIMITS.repeated_text
        return not goes_on or self._is_mended()

    def take_over(self) -> None:
        """Lets its first attempt, or that of the next turn, wait for a connection: rule 6."""
        self._takes_over = True

    def next(self, receiver: Receiver, relay: Relay) -> Attempt:
        """Makes the first attempt, the planned one, or another one if the planned one cannot be made.

        Raises:
            Error: No attempt can be made; nothing was sent.
        """
        if self._goes_on:
            self._goes_on = False
            self._next = self.spec, self._continuation(self.spec, goes_on=True)
        elif self.attempt is None:
            return self.first(receiver, self._loop.time())
        if self._won is not None:
            self._candidates.at_target = 1
            self._use(self._won.attempt)
            return self._won.attempt
        refused: Error | None = None
        while self._next is not None:
            (spec, continued), self._next = self._next, None
            if spec.trace is not None:
                kind = "retry" if spec.model.name == self.spec.model.name else "fallback"
                spec.trace.follows(kind, *(() if continued is None else ("resume",)))
            try:
                asked = spec
                if continued == "prefill" and self.transcript is not None:
                    asked = _prefilled(spec, self.transcript.text or "")
                return self._attempt(spec, receiver, self._loop.time(), asked, continued)
            except Error as error:
                refused = error
                if continued == "prefill":
                    self._next = spec, "verified"
                    continue
                other = self._candidates.following(self.spec, has_begun=relay.state is not _IDLE)
                if other is not None:
                    self._next = other, self._continuation(other, goes_on=continued is not None)
        raise refused or Error("internal", "no attempt was planned")

    # -- the relay --

    def make_relay(self, failed: Callable[[Error], bool]) -> Relay:
        """Returns the stream's relay, which reads the first attempt, or nothing while that waits.

        Args:
            failed: As for `Relay`.
        """
        spec, attempt = self.spec, self.attempt
        model = spec.model
        return Relay(
            get_provider(model.upstream.provider).adapter(model.id) if attempt is None else attempt.adapter,
            spec.output,
            deltas=spec.deltas,
            frames=spec.frames,
            chain=spec.chain,
            stream_id=self.stream_id,
            upstream=spec.answering,
            on_malformed=self._stream.on_malformed,
            redact=None if attempt is None else attempt.redact,
            prompt_characters=spec.prompt_characters,
            failed=failed,
            transcript=self.transcript,
            account=None if attempt is None else attempt.account,
        )

    # -- while an attempt is under way --

    def note_content(self, attempt: Attempt) -> None:
        """Notes the first content of the attempt: the upstream works, and a repeated request would be noticed."""
        attempt.note_content(_time_for(attempt, self._loop))
        if not self._mends:
            self.spec.drop_request()

    # -- hedges --

    def ask_second(
        self,
        relay: Relay,
        started: Callable[[], FastPath | None],
        failed: Callable[[Error], None],
        clock: Clock,
    ) -> None:
        """Asks a second target for the answer, if one is ready and nothing of the first answer was sent.

        Args:
            relay: The stream's relay.
            started: As for `Hedge`.
            failed: As for `Hedge`.
            clock: The stream's clock.
        """
        spec = self._candidates.other_target(self.spec, has_begun=False) if _is_silent(relay) else None
        if spec is None:
            return
        if spec.trace is not None:
            spec.trace.follows("hedge")
        hedge = Hedge(get_provider(spec.model.upstream.provider).adapter(spec.model.id), started, failed, clock)
        try:
            hedge.attempt = self._open(spec, hedge, spec, self._loop.time())
        except Error:
            return  # the first request goes on alone
        self.hedge = hedge
        self.hedges += 1
        self._runner.tallies.hedges += 1

    def drop_hedge(self, error: Error | None = None) -> None:
        """Ends the hedge: the first request has brought its first event, the stream is over, or the hedge has failed.

        Args:
            error: The hedge's failure.
        """
        hedge, self.hedge = self.hedge, None
        if hedge is None:
            return
        attempt = hedge.attempt
        if attempt.spec.trace is not None:
            attempt.spec.trace.hedge_dropped(error)
        if error is not None:
            attempt.account.close(None, None)
            self._runner.attempt_failed(attempt.upstream, error, attempt.spec.credential)
            attempt.failed(error, self._loop.time())
        hedge.abandon(self._loop.time())

    def take_hedge(self) -> None:
        """Abandons the first request: `next` returns the hedge's attempt."""
        self._won, self.hedge = self.hedge, None
        if self._won is None or self.attempt is None:
            return
        self._won.decide()
        if self.spec.trace is not None:
            self.spec.trace.hedge_taken()
        self.close_exchange()
        self.attempt.abandon(self._loop.time())

    def give_kept(self, receiver: Receiver) -> FastPath | None:
        """Gives what the hedge has kept to its new receiver, if the attempt was a hedge.

        Returns:
            The fast path for the next reads, or None.
        """
        won, self._won = self._won, None
        return None if won is None else won.give_to(receiver)

    # -- the end --

    def exchange_ended(self) -> None:
        """Notes that no request is under way."""
        attempt, exchange = self.attempt, self.exchange
        if attempt is not None and exchange is not None:
            self._retries += exchange.resent
            attempt.exchange = None

    def close_exchange(self) -> None:
        """Aborts the request, if one is under way."""
        exchange = self.exchange
        if exchange is not None:
            self.exchange_ended()
            exchange.close()

    def leave(self, outcome: Outcome) -> None:
        """Plans no further attempt: the stream is over."""
        self._next = None
        if self.attempt is not None:
            self.attempt.leave(_time_for(self.attempt, self._loop), is_finished=outcome == "finished")
        self.drop_hedge()
        won, self._won = self._won, None
        if won is not None:
            won.abandon(self._loop.time())

    # -- own --

    def _attempt(
        self, spec: StreamSpec, receiver: Receiver, now: float, sent: StreamSpec, continued: Continued = None
    ) -> Attempt:
        """Makes an attempt.

        Args:
            spec: The request of the attempt.
            receiver: As for `open`.
            now: Monotonic seconds.
            sent: The spec that is sent; another one, if it has a prefill.
            continued: As for `Attempt`.

        Raises:
            Error: The attempt cannot be made; nothing was sent.
        """
        attempt = self._open(spec, receiver, sent, now)
        attempt.continued = continued
        candidates = self._candidates
        if not candidates.at_target:
            self._runner.policy.budget(spec.model.upstream.name).request(now)
        self._retries += candidates.at_model > 0
        candidates.at_model += 1
        candidates.at_target += 1
        after = spec.model.hedge_after
        if after is not None and self._may_be_hedged(spec):
            attempt.hedge_at = attempt.at + after
        self._use(attempt)
        return attempt

    def _use(self, attempt: Attempt) -> None:
        """Makes an attempt the stream's attempt."""
        self.attempt, self.spec = attempt, attempt.spec
        self._meter.asked(attempt.asked_at)

    def _open(self, spec: StreamSpec, receiver: Receiver, sent: StreamSpec, now: float) -> Attempt:
        """Sends a request, if its upstream and its target may be asked; arguments as for `_attempt`."""
        is_shared = sent.sharing is not None and sent.sharing.finds(sent)
        attempt = Attempt(self._runner, spec, now)
        former = self.attempt
        if former is not None and former.upstream is attempt.upstream:
            attempt.failed_key = former.failed_key
        is_asked = False
        try:
            if not is_shared:
                attempt.enter(None if spec.counts else spec.model, now)  # a count of tokens is not a stream
            opened = self._runner.open(sent, receiver, self.stream_id, self.count + 1, attempt.key)
            is_asked = True
            if not self.count and attempt.ring is not None:
                attempt.note_move(spec.model)
            if spec.trace is not None:
                spec.trace.sent()
        finally:
            if not is_asked:
                attempt.leave(now, is_finished=False)
        self.count += 1
        attempt.adapter, attempt.redact, attempt.exchange = opened[0], opened[1], opened[2]
        attempt.account = Account(
            self.bill,
            opened[2],
            spec.model.upstream.provider.partition(":")[0],
            spec.answering,
            self.price_of(spec),
            prompt_characters=spec.prompt_characters,
            is_free=spec.sharing is not None and spec.sharing.role != "miss",
            model=spec.model,
        )
        if self._candidates.has_others(spec.model) and not asks_for_reasoning(spec.request):
            attempt.give_up_sooner(within=self._mends)
        attempt.asked_at = perf_counter()
        return attempt

    def price_of(self, spec: StreamSpec) -> Price | None:
        """Returns the price of an attempt's model. None if it has none."""
        return None if spec.counts else self._settings.price(spec.model)  # a count of tokens costs nothing

    def _may_be_hedged(self, spec: StreamSpec) -> bool:
        """Returns whether a second target may be asked while the first is silent.

        An upstream that makes a whole answer is silent until its end. An answer that others may share has one call.
        """
        is_whole = spec.hold and spec.frames is not None
        is_first = self.hedges == self._hedges_before
        return is_first and not spec.counts and not is_whole and spec.sharing is None

    def _plan(
        self, error: Error, relay: Relay, now: float, *, has_key: bool
    ) -> tuple[StreamSpec, Continued, float] | None:
        """Returns the attempt after a failure, its continuation, and the seconds until it. None if there is none."""
        continued = None if self.attempt is None else self.attempt.continued
        goes_on = relay.delivered or continued is not None
        if goes_on and not self._is_mended():
            return None
        is_asked = error.reason != NO_CONNECTION
        if continued == "prefill" and is_asked and not relay.has_content:
            return self.spec, "verified", 0.0  # it was refused
        following = self._following(error, relay, now, has_key=has_key)
        if following is None and self._takes_over and not is_asked:
            same = self.spec.again(has_begun=relay.state is not _IDLE)
            following = None if same is None else (same, NET_LIMITS.takeover_again)
            self._candidates.take_back()  # nothing was asked
            self._retries -= self._candidates.at_model > 0
        if following is None:
            return None
        spec, delay = following
        return spec, self._continuation(spec, goes_on=goes_on), delay

    def _following(self, error: Error, relay: Relay, now: float, *, has_key: bool) -> tuple[StreamSpec, float] | None:
        """Returns the request after a failed one, and the seconds until it: rule 1. None if there is none."""
        spec, candidates = self.spec, self._candidates
        has_begun, has_content = relay.state is not _IDLE, relay.has_content
        has_less = not has_content and bool(spec.offered) and self._runner.refused_tools.leaves_out(spec, error)
        if not has_less and not self._has_less and not has_content:
            self._has_less = has_less = self._runner.leaves_out(spec, error)
        if has_less:
            same = spec.again(has_begun=has_begun)
            if same is not None:
                return same, 0.0
        return candidates.after(error, spec, now, has_begun=has_begun, has_content=has_content, has_key=has_key)

    def _is_mended(self) -> bool:
        """Returns whether another attempt follows a failure after the first delivered content."""
        return self._mends and (self.transcript is None or not self.transcript.is_lost)

    def _continuation(self, spec: StreamSpec, *, goes_on: bool) -> Continued:
        """Returns the kind of continuation from the delivered content: rule 3."""
        if not goes_on or self.transcript is None:
            return None
        if self.attempt is not None and spec is self.spec and self.attempt.continued == "verified":
            return "verified"
        can_prefill = spec.model.prefill and len(self.transcript.text or "") >= self._least_prefill
        return "prefill" if can_prefill else "verified"

    def _may_be_repeated(self) -> bool:
        """Returns whether the request may be sent again, to this upstream or another."""
        model = self.spec.model
        if self._takes_over or self.spec.offered:
            return True
        is_retried = self.upstream.retries > 0 and not self.spec.is_retry
        has_others = bool(model.targets) or self.upstream.other_keys > 0
        return is_retried or has_others or self._candidates.has_fallbacks or bool(model.fallback_on)


def _prefilled(spec: StreamSpec, text: str) -> StreamSpec:
    """Returns the spec with an assistant message at the end of its request, which the upstream continues.

    Raises:
        Error: The client's own body has no place for the message.
    """
    request = spec.request
    if isinstance(request, Request):
        return replace(spec, request=request.with_prefill(text))
    dialect = get_format(get_provider(spec.model.upstream.provider).dialect)
    grown = dialect.with_messages(request, [{"role": "assistant", "content": text}])
    return replace(spec, request=grown, shape=None)


def _time_for(attempt: Attempt, loop: asyncio.AbstractEventLoop) -> float:
    """Returns the time, if the attempt has a target that needs it, else 0: a reading costs 290 instructions."""
    return 0.0 if attempt.target_request is None else loop.time()


def _is_silent(relay: Relay) -> bool:
    """Returns whether nothing of an answer has been passed on."""
    return (relay.state is _IDLE or relay.is_between_turns) and not relay.delivered
