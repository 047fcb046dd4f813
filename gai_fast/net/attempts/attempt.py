"""One request for an answer, and what it takes and gives back at its upstream.

Owns the places of a request at its upstream's breaker, its target and its keys, also if it is passed through; and the
times by which an attempt's first event must have come. `attempts.py` decides which attempts are made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from mypy_extensions import mypyc_attr

from gai_fast.core.account import Account
from gai_fast.core.relay import Relay
from gai_fast.model.credentials import Credential
from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.model.metrics import Tallies
from gai_fast.model.settings import ModelSettings, Secret, Settings, UpstreamSettings
from gai_fast.net.attempts.balance import BalancedTarget, MoveReason, TargetRequest, cooling_seconds
from gai_fast.net.attempts.caller_keys import is_callers
from gai_fast.net.attempts.candidates import TargetChoice
from gai_fast.net.attempts.key_ring import Keys
from gai_fast.net.attempts.limited import is_untimed
from gai_fast.net.attempts.refused_tools import RefusedTools
from gai_fast.net.attempts.retry import Breaker, is_fault_of_upstream, is_local_failure
from gai_fast.net.attempts.spec import StreamSpec
from gai_fast.net.attempts.standing import Refusal, Standing, is_refusal
from gai_fast.net.upstream.connection import OpenExchange, Receiver
from gai_fast.providers import Adapter

Redact = Callable[[Error, bytes], Error]
Continued = Literal["verified", "prefill"] | None


@mypyc_attr(allow_interpreted_subclasses=True)
class AttemptRunner(TargetChoice):
    """The part of the targets that attempts use."""

    settings: Settings
    tallies: Tallies
    refused_tools: RefusedTools

    def begin_request(self, model: ModelSettings, now: float) -> TargetRequest | None:
        """Begins a request at a target of a model; arguments and result as for `Balancer.begin`."""
        raise NotImplementedError

    def key_ring(self, upstream: UpstreamSettings, credential: Credential | None) -> Keys:
        """Returns the keys of an upstream that has several, its tokens, or the caller's own credential.

        Args:
            upstream: The upstream.
            credential: The caller's own. None if there is none.
        """
        raise NotImplementedError

    def limited_target(self, model: ModelSettings) -> BalancedTarget | None:
        """Returns the one target of a model without targets that has met a limit. None if it has targets by now."""
        return None

    def note_move(self, model: str, reason: MoveReason) -> None:
        """Counts a session's request that is sent to another place than its home (`rendezvous.py`).

        Args:
            model: The model's name.
            reason: Why its home is not used.
        """
        raise NotImplementedError

    def attempt_failed(self, upstream: UpstreamSettings, error: Error, credential: Credential | None) -> None:
        """Notes a failed attempt; arguments as for `key_ring`."""
        raise NotImplementedError

    def failure_hidden(self, upstream: UpstreamSettings, error: Error, credential: Credential | None) -> None:
        """Notes a failed attempt behind which another upstream is asked; arguments as for `key_ring`."""
        raise NotImplementedError

    def breaker_opened(self, upstream: UpstreamSettings, error: Error) -> None:
        """Notes that nothing is sent to an upstream for a while."""
        raise NotImplementedError

    def leaves_out(self, spec: StreamSpec, error: Error) -> bool:
        """Returns whether a failed request may succeed without a member that the gateway has added or translated.

        The next requests to the target lack the member.

        Args:
            spec: The attempt.
            error: Its failure.
        """
        return False

    def client_member(self, spec: StreamSpec, error: Error) -> str | None:
        """Returns the path of the client's member that an upstream refuses, or None if it is not known.

        Args:
            spec: The attempt.
            error: Its failure.
        """
        return None

    def open(
        self, spec: StreamSpec, receiver: Receiver, stream_id: str, number: int, key: Secret | None
    ) -> tuple[Adapter, Redact, OpenExchange]:
        """Sends a request to the upstream of a spec.

        Args:
            spec: The attempt.
            receiver: Gets the response.
            stream_id: The stream's id.
            number: The number of the attempt, from 1.
            key: The upstream's key.

        Raises:
            Error: The upstream cannot serve this request; nothing was sent.
        """
        raise NotImplementedError


class AttemptPlaces:
    """The places of one request at its upstream's breaker, its target and its keys.

    Changes with what an upstream counts or limits, for streams and for what is passed through.

    Args:
        runner: The targets.
        upstream: The upstream.
        caller: The name of the request's caller.
        place: The upstream's id of the model; or another place, as `standing.py` has it.
        is_model: Whether the place is a model.
        home: As for `StreamSpec`.
        credential: As for `StreamSpec`.

    Attributes:
        failed_key: The key with which the request has failed, so that another may do better. None if it has not.
        is_probe: Whether its upstream's breaker waits for its outcome.
        key: The key that is used. None if there is none, or if the request waits for a token.
        ring: The upstream's keys, if it has several, or its tokens.
        target_request: The request at its target, if the model has targets.
        upstream: The upstream.
    """

    def __init__(
        self,
        runner: AttemptRunner,
        upstream: UpstreamSettings,
        caller: str,
        place: str,
        home: str,
        credential: Credential | None,
        *,
        is_model: bool,
    ) -> None:
        self._runner = runner
        self._breaker: Breaker | None = None
        self._caller = caller
        self._credential = credential
        self._home = home
        self._place = place
        self._is_model = is_model
        self._model: ModelSettings | None = None  # that takes a place
        self._has_key = False  # whether the ring counts this request
        self.failed_key: Secret | None = None
        self.is_probe = False
        self.upstream = upstream
        self.key = upstream.api_key
        self.ring: Keys | None = None
        self.target_request: TargetRequest | None = None

    @property
    def key_place(self) -> int:
        """The place of the key in the list of the upstream's keys, from 1; 0 if it is none of them."""
        upstream, key = self.upstream, self.key
        if key is None or upstream.identity is not None:
            return 0
        if key is upstream.api_key:  # most have one
            return 1
        keys = (upstream.api_key, *upstream.more_api_keys)
        return keys.index(key) + 1 if key in keys else 0

    def enter(self, model: ModelSettings | None, now: float) -> None:
        """Takes the places; `leave` gives them back.

        Args:
            model: The model with its target. None if the request takes no place at a target.
            now: Monotonic seconds.

        Raises:
            Error: One of them admits no request now.
        """
        upstream = self.upstream
        breaker = self._runner.breaker(upstream)
        if breaker is not None:
            if not breaker.is_closed:
                if not breaker.admits(now, self, self._caller):
                    raise breaker.refusal(upstream, now)
                self.is_probe = True
            self._breaker = breaker
        self._model = model
        if model is not None and model.targets:
            self.target_request = self._runner.begin_request(model, now)
        if upstream.other_keys or upstream.takes_credentials:
            ring = self.ring = self._runner.key_ring(upstream, self._credential)
            self.key = ring.next(now, self._place, self._caller, self._home, self.failed_key)
            self._has_key = self.key is not None
            refusal = ring.refusal(upstream, now, self._place) if self.key is None else None
            if refusal is not None:
                raise refusal

    def note_move(self, model: ModelSettings) -> None:
        """Counts the request, the first for an answer, if its key is not its session's own."""
        if self.ring is not None and self.ring.moved is not None:
            self._runner.note_move(model.name, self.ring.moved)

    def succeeded(self) -> None:
        """Reports that the upstream is well."""
        breaker, self._breaker = self._breaker, None
        if breaker is not None:
            breaker.succeeded()

    def served(self) -> None:
        """Reports that the upstream has taken the credential."""
        if self.ring is not None or self.target_request is not None:
            standing = self._standing()
            if standing is not None:
                standing.serve(self._place, is_model=self._is_model)
            if self.ring is not None:
                self.ring.served(self.key, self._place)
            if self.target_request is not None:
                self.target_request.target.limited.served()

    def answered(self) -> None:
        """Reports the first event of the breaker's probe: other requests are sent, whatever becomes of this one."""
        self.is_probe = False
        if self._breaker is not None:
            self._breaker.answered(self)

    def failed(self, error: Error, now: float) -> bool:
        """Reports the failure. Returns whether the upstream has another key, which may do better."""
        breaker, self._breaker = self._breaker, None
        if breaker is not None:
            if is_fault_of_upstream(error):
                if breaker.failed(now, self, self._caller):
                    self._runner.breaker_opened(self.upstream, error)
            elif is_local_failure(error) or is_callers(self.upstream, error):
                breaker.abandoned(self)
            else:
                breaker.succeeded()
        wait = self.refused(error, now)
        self._end(now)
        if wait == 0.0:
            self.failed_key = self.key
        return wait == 0.0

    def refused(self, error: Error, now: float) -> float | None:
        """Reports a failure to the target and the keys alone; returns as `Keys.failed`, None without keys."""
        place, wait, cooling = self._place, None, 0.0
        refusal: Refusal | None = None
        if is_callers(self.upstream, error):
            if self.ring is not None:
                self.ring.failed(self.key, error, now, place)
            if self.target_request is not None:
                self.target_request.failed(error, now, 0.0)
            return None
        if is_refusal(error):
            standing = self._standing()
            if standing is not None:
                refusal = standing.refuse(place, self._caller, now, is_model=self._is_model)
        if refusal is Refusal.OF_THE_REQUEST:
            if self.ring is not None:
                wait = self.ring.doubted(self.key, error, now, place, self._caller)
        elif refusal is not Refusal.OF_THE_PLACE:
            if self.ring is not None:
                at = "" if refusal is Refusal.OF_THE_CREDENTIAL else place
                wait = self.ring.failed(self.key, error, now, at, self._caller)
            cooling = self._limited(error, now) if wait is None else wait
        if self.target_request is not None:
            self.target_request.failed(error, now, cooling)
        return wait

    def _limited(self, error: Error, now: float) -> float:
        """Returns the seconds for which a failure keeps all callers from the target: `limited.py`."""
        seconds, target = cooling_seconds(error), None
        if self.target_request is not None:
            target = self.target_request.target
        elif seconds > 0 and self._model is not None and error.code == "rate_limited":
            target = self._runner.limited_target(self._model)
        if target is None or (is_untimed(error) and not target.limited.note(self._caller, now)):
            return 0.0
        if self.target_request is None:
            target.cool(now, seconds, is_limited=True)
        return seconds

    def _standing(self) -> Standing | None:
        """Returns the standing of the credential. None if nothing depends on it."""
        if self.ring is not None:
            return self.ring.standing(self.key)
        return None if self.target_request is None else self.target_request.target.standing

    def leave(self, now: float, *, is_finished: bool) -> None:
        """Reports the end of a whole answer, or an end before the outcome was known; idempotent."""
        if is_finished:
            self.succeeded()
        elif self._breaker is not None:
            self._breaker.abandoned(self)
            self._breaker = None
        self._end(now)

    def _end(self, now: float) -> None:
        """Gives back the places at the target and the key; idempotent."""
        if self.target_request is not None:
            self.target_request.end(now)
        if self._has_key and self.ring is not None:
            self._has_key = False
            self.ring.left(self.key)


class Attempt(AttemptPlaces):
    """One request for an answer.

    Changes with the course of a stream: its times, its account, its part in the relay. What is passed through has none.

    Args:
        runner: The targets.
        spec: The request of the attempt.
        at: Monotonic seconds.

    Attributes:
        spec: The request of the attempt.
        at: The start of the time for the first event, in monotonic seconds.
        asked_at: When it was asked, in seconds of `perf_counter`.
        continued: How its answer goes on from the delivered content. None if it begins again.
        exchange: The request on its connection. None after its end.
        hedge_at: The time to ask a second target. None if none is asked.
        content_noted: Whether its first content has been noted.
        patience: Seconds within which the first event must come.
    """

    def __init__(self, runner: AttemptRunner, spec: StreamSpec, at: float) -> None:
        identifier, counts = spec.model.id, spec.counts
        place = f"count {identifier}" if counts else identifier
        super().__init__(
            runner, spec.model.upstream, spec.caller, place, spec.home, spec.credential, is_model=not counts
        )
        self.spec = spec
        self.at = at
        self.continued: Continued = None
        self.adapter: Adapter  # from `Attempts._open` on, as the next four
        self.redact: Redact
        self.exchange: OpenExchange | None
        self.account: Account
        self.asked_at: float
        self.hedge_at: float | None = None
        patience = spec.model.upstream.first_event_timeout
        self.patience = SHARED.patience if isinstance(patience, str) else patience
        self.content_noted = False

    @property
    def first_event_due(self) -> float:
        """The time by which the first event must have come."""
        return self.at + self.patience

    @property
    def due(self) -> float:
        """The time for the next decision while no event has come: to ask a second target, or to fail."""
        first_event = self.first_event_due
        return first_event if self.hedge_at is None or first_event < self.hedge_at else self.hedge_at

    def give_up_sooner(self, *, within: bool) -> None:
        """Shortens the times that the upstream's settings leave to the gateway (`"auto"`).

        Args:
            within: Whether the silence within the answer is limited too.
        """
        upstream, seconds = self.upstream, SHARED.patience_with_others
        if upstream.first_event_timeout == "auto":
            self.patience = seconds
        if within and upstream.idle_timeout == "auto" and self.exchange is not None:
            self.exchange.limit_silence(seconds)

    def restart_wait(self, now: float) -> None:
        """Starts the time for the first event again, and the time to ask a second target."""
        if self.hedge_at is not None:
            self.hedge_at += now - self.at
        self.at = now

    def takes_hedge(self, now: float) -> bool:
        """Returns whether a second target is due to be asked; true once."""
        if self.hedge_at is None or now < self.hedge_at:
            return False
        self.hedge_at = None
        return True

    def join(self, relay: Relay) -> None:
        """Lets the relay read this attempt, if it was made after the start of the stream."""
        spec = self.spec
        relay.begin(
            self.adapter,
            spec.output,
            deltas=spec.deltas,
            frames=spec.frames,
            upstream=spec.answering,
            redact=self.redact,
            account=self.account,
            continued=self.continued,
        )

    def silence(self) -> Error:
        """Returns the failure of an attempt whose first event did not come in time."""
        name, provider, exchange = self.upstream.name, self.upstream.provider, self.exchange
        within = f"within {self.patience:g} s (first_event_timeout)"
        if exchange is not None and exchange.is_waiting:
            text = f"no connection to upstream {name!r} came free {within}: see max_connections"
            return Error("overloaded", text, reason="upstream_pool", phase="connect", provider=provider)
        return Error("timeout", f"upstream {name!r} sent no event {within}", reason="first_event", provider=provider)

    def note_content(self, now: float) -> None:
        """Reports the first content."""
        self.content_noted = True
        self.succeeded()
        self.served()
        if self.target_request is not None:
            self.target_request.answered(now)
        if self.spec.without_tools is not None:
            self._runner.refused_tools.answered(self.spec)

    def abandon(self, now: float) -> None:
        """Ends an attempt whose answer is not needed. Its prompt is charged if it was sent."""
        self.account.give_up()
        self.leave(now, is_finished=False)
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.close()
