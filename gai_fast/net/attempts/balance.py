"""The choice among the targets of one model, for `[[model]] targets`.

Pure policy: no I/O and no loop; the caller passes the time, random numbers and what breakers say. The state grows with
the targets only. It belongs to one process: each worker balances what it gets.

1. A target is asked while it is ready: its weight is above 0, it is not drained, has room (`streams`), does not cool
   down, and its upstream's breaker and keys admit requests. Nothing else keeps it from being chosen.
2. `weighted`: smooth weighted round robin, as in nginx: of any run of requests each target gets its share, give
   or take one request.
3. `least_busy`: of two targets, drawn by weight, the one with fewer live streams for its weight (two random choices).
4. `fastest`: of two such targets the one whose average time to first token is clearly lower, else the less busy. The
   average is at least the time that requests have waited by now, so that a target that stalls is left at once. A target
   that is not asked is forgotten step by step: its average is halved with every `limits.latency_requests` requests of
   the model. So it is tried again, by one request, and rarely enough to leave the 99th percentile alone. A target
   without an average is measured by one request, and gets no other until that one has its first token or has failed.
   While each target is being measured and none is known to work, such as right after a start, further requests wait for
   the first token of any, up to `limits.unmeasured_wait`: `is_premature`. Sent at once, they would reach slow targets
   as often as others.
5. `auto` and `affinity`: a session's home is the target with the highest score for it (weighted rendezvous hashing,
   `rendezvous.py`), so that only the sessions of a target that goes move, and come back with it. A target with far more
   streams than its part is passed over (bounded loads). A request without a session is of rule 2 under `auto`, and of
   rule 3 under `affinity`.
6. A target cools down after a limit (`limited.py`), and after a refusal that concerns its key (`standing.py`). A
   target that has limited one caller without a time is that caller's last choice for a while.
7. A target that comes back (from cooling, a drain, failures, or new by a reload) has a part of its share at first, and
   all of it after `limits.slow_start` seconds. For sessions there is no slow start: they come back one by one with
   their next turns, and any turn that is sent elsewhere finds a cold cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from random import Random
from typing import Final, Literal

from mypy_extensions import i64

from gai_fast.model.errors import Code, Error
from gai_fast.model.limits import SHARED
from gai_fast.model.settings import ANONYMOUS, ModelSettings, TargetSettings, UpstreamSettings
from gai_fast.model.upstream_errors import is_too_large
from gai_fast.net.attempts.limited import Limited
from gai_fast.net.attempts.rendezvous import factor, hashed, score
from gai_fast.net.attempts.retry import is_fault_of_upstream
from gai_fast.net.attempts.standing import Standing
from gai_fast.net.limits import LIMITS

TargetKey = tuple[str, str]
"""A target within its model: the upstream's name and the id."""
Wait = Callable[[UpstreamSettings], float]
"""Seconds until an upstream's breaker admits a request; 0: now."""
KeyWait = Callable[[ModelSettings], float]
"""Seconds until a key of a target's upstream can be used for the target's model; 0: now."""
MoveReason = Literal["cooling", "busy", "breaker", "drained"]
"""Why a session's request is sent to another target or key than its home."""
NoteMove = Callable[[MoveReason], None]
"""Counts such a request, by reason."""
TargetCondition = Literal["ready", "slow_start", "failing", "full", "cooling", "draining", "drained", "open", "unused"]

_OF_SESSIONS: Final = ("auto", "affinity")
"""The rules that look at sessions."""
_COOLING: Final = frozenset[Code]({"rate_limited", "overloaded", "provider_unavailable"})
"""Codes whose `Retry-After` concerns the target, not the request."""


def target_key(model: ModelSettings) -> TargetKey:
    """Returns the key of a model with the target's upstream and id."""
    return model.upstream.name, model.id


def target_keys(model: ModelSettings) -> list[TargetKey]:
    """Returns the keys of a model's targets, or the model's own key if it has no targets."""
    return [(each.upstream.name, each.id) for each in model.targets] or [target_key(model)]


def as_target(model: ModelSettings) -> ModelSettings:
    """Returns a model without targets with its upstream as the only target, so that it can be drained."""
    return replace(model, targets=(TargetSettings(model.upstream, model.id),))


def cooling_seconds(error: Error) -> float:
    """Returns the seconds for which a failure keeps requests from a target, or from a key; 0: none."""
    if error.code == "unauthorized":
        return LIMITS.refused_key
    if is_too_large(error):  # else one caller could keep all others from a target
        return 0.0
    asked = error.retry_after_ms
    if asked is None:
        return LIMITS.cooling if error.code == "rate_limited" else 0.0
    if error.code in _COOLING:
        return min(asked, SHARED.retry_after_ms) / 1000
    return 0.0


class BalancedTarget:
    """One target: its settings and its state.

    Args:
        model: The model, with this target's upstream and id.
        settings: The target's.

    Attributes:
        model: As above.
        limited: The callers that have met limits without a time.
        live: Streams under way.
        is_drained: The operator has taken it out.
        is_failing: Its last request that is evidence about it has failed.
        standing: What refusals say of the upstream's one key, at this target.
        waiting: Requests before their first token.
    """

    def __init__(self, model: ModelSettings, settings: TargetSettings) -> None:
        self.live = 0
        self.limited = Limited()
        self.is_drained = False
        self.credit = 0.0
        self._average: float | None = None
        self._average_at = 0.0
        self._average_count = 0  # requests of the model when it was measured, or asked, last
        self._cooling_until = -math.inf
        self.is_failing = False
        self._is_limited = False
        self._ramp_from = -math.inf
        self.standing = Standing()
        self.waiting = 0
        self._waiting_since = 0.0  # the sum of the times at which these began
        self.use(model, settings)

    def use(self, model: ModelSettings, settings: TargetSettings) -> None:
        """Takes over the settings of a configuration."""
        self.model = replace(model, upstream=settings.upstream, id=settings.id)
        self.weight = settings.weight
        self.streams = settings.streams
        # Of no key of the upstream: one that is rotated, added or removed moves no session between targets.
        self._factor = factor(settings.upstream.name, settings.upstream.base_url, settings.id)

    # -- readiness --

    def wait(self, now: float, upstream: float) -> float:
        """Returns the seconds until it is ready, as far as that is known; 0: now; infinite: not by itself.

        Args:
            now: Monotonic seconds.
            upstream: The seconds until its upstream's breaker and keys admit a request.
        """
        if self.is_drained or not self.weight:
            return math.inf
        full = SHARED.overloaded_ms / 1000 if self._is_full else 0.0
        return max(0.0, self._cooling_until - now, upstream, full)

    def is_as_new(self, now: float) -> bool:
        """Returns whether it is neither drained nor limited, for any caller."""
        return not self.is_drained and self._cooling_until <= now and self.limited.is_over(now)

    @property
    def _is_full(self) -> bool:
        return self.streams is not None and self.live >= self.streams

    def check(self, now: float) -> None:
        """Raises an `Error` if the target may not be asked, apart from its breaker; another target may be ready."""
        upstream, identifier = self.model.upstream, self.model.id
        name = f"target {identifier!r} of upstream {upstream.name!r}"
        if self.is_drained or not self.weight:
            why = "is drained" if self.is_drained else "has weight 0"
            text = f"{name} {why}, and no other target of the model is ready"
            raise Error("overloaded", text, reason="drained", retry_after_ms=SHARED.overloaded_ms)
        if self._cooling_until > now:
            code: Literal["rate_limited", "overloaded"] = "rate_limited" if self._is_limited else "overloaded"
            left = max(1, math.ceil((self._cooling_until - now) * 1000))
            text = f"{name} has asked for a pause, and no other target of the model is ready"
            raise Error(code, text, reason="cooling", retry_after_ms=left, provider=upstream.provider)
        if self._is_full:
            text = f"{name} has its {self.streams} streams, and no other target of the model is ready"
            raise Error("overloaded", text, reason="target_streams", retry_after_ms=SHARED.overloaded_ms)

    def condition(self, now: float, upstream: Literal["open", "cooling"] | None) -> TargetCondition:
        """Returns the most important thing to know of it, for people.

        Args:
            now: Monotonic seconds.
            upstream: Why nothing is sent to its upstream. None if requests are sent.
        """
        if not self.weight:
            return "unused"
        if self.is_drained:
            return "draining" if self.live else "drained"
        if upstream is not None:
            return upstream
        if self._cooling_until > now:
            return "cooling"
        if self._is_full:
            return "full"
        if self.is_failing:
            return "failing"
        return "ready" if self.part(now) == 1.0 else "slow_start"

    def part(self, now: float) -> float:
        """Returns the part of its share that it has now, more than 0 and at most 1: rule 7."""
        return LIMITS.slow_start_share if self.is_failing else self.ramp(now)

    def ramp(self, now: float) -> float:
        """Returns how far its slow start is: `limits.slow_start_share` at the beginning, 1 at the end."""
        gone = max(0.0, now - self._ramp_from) / LIMITS.slow_start
        return min(1.0, LIMITS.slow_start_share + (1.0 - LIMITS.slow_start_share) * gone)

    def begin_slowly(self, now: float) -> None:
        """Begins a slow start, unless one will begin later."""
        self._ramp_from = max(self._ramp_from, now)

    def cool(self, now: float, seconds: float, *, is_limited: bool) -> None:
        """Cools down, unless it does so for longer already."""
        until = now + seconds
        if until > self._cooling_until:
            self._cooling_until, self._is_limited = until, is_limited
            self._ramp_from = max(self._ramp_from, until)

    # -- time to first token --

    def begun(self, now: float, count: int) -> bool:
        """Counts a request; returns whether its time to first token replaces the average."""
        average = self._known_average(now)
        is_stale = average is None or self._faded(average, count) < average / 2
        self.live += 1
        self.waiting += 1
        self._waiting_since += now
        self._average_count = count  # so that requests that follow at once do not try a slow target, too
        return is_stale

    def waited(self, began: float) -> None:
        """Forgets a waiting request, which began then."""
        self.waiting -= 1
        self._waiting_since = self._waiting_since - began if self.waiting else 0.0

    def measured(self, seconds: float, now: float, count: int, *, replaces: bool) -> None:
        """Takes a time to first token into the average."""
        if self._average is None or replaces:
            self._average = seconds
        else:
            self._average += LIMITS.latency_weight * (seconds - self._average)
        self._average_at, self._average_count = now, count

    def outlasted(self, seconds: float, now: float, count: int) -> None:
        """Notes a request that was given up without a token.

        Its time counts only if it is longer than the average, or than `limits.failed_first_token` without one.
        """
        if seconds > (LIMITS.failed_first_token if self._average is None else self._average):
            self.measured(seconds, now, count, replaces=False)

    def succeeded(self, now: float) -> None:
        """Notes a first token."""
        if self.is_failing:
            self.is_failing = False
            self.begin_slowly(now)

    def failed(self, seconds: float, now: float, count: int) -> None:
        """Notes a failure of the upstream. It counts as a slow answer, even if it came at once."""
        self.is_failing = True
        least = LIMITS.failed_first_token if self._average is None else 2 * self._average
        self.measured(max(seconds, least), now, count, replaces=False)

    def is_known(self, now: float) -> bool:
        """Returns whether its time to first token has been measured, and is not forgotten."""
        return self._known_average(now) is not None

    def expected(self, now: float, count: int) -> float:
        """Returns the expected time to first token; infinite if the target is unknown."""
        average = self._known_average(now)
        if average is None:
            return math.inf
        faded = self._faded(average, count)
        return max(faded, now - self._waiting_since / self.waiting) if self.waiting else faded

    def _known_average(self, now: float) -> float | None:
        memory = LIMITS.failure_memory if self.is_failing else LIMITS.latency_memory
        return None if now - self._average_at > memory else self._average

    def _faded(self, average: float, count: int) -> float:
        return float(average * 0.5 ** ((count - self._average_count) / LIMITS.latency_requests))

    # -- comparisons --

    def busyness(self, now: float) -> float:
        """Returns its streams for its weight."""
        return self.live / (self.weight * self.part(now))

    def score(self, session: i64) -> float:
        """Returns its score for a session, as `rendezvous.score`."""
        return score(session, self._factor, self.weight)

    def left_for(self, now: float, breaker: float) -> MoveReason:
        """Returns why its sessions go elsewhere.

        Args:
            now: Monotonic seconds.
            breaker: The seconds until its upstream's breaker admits a request.
        """
        if self.is_drained:
            return "drained"
        if breaker > 0:
            return "breaker"
        return "busy" if self._is_full and self._cooling_until <= now else "cooling"


class TargetRequest:
    """One request at a target. Made by `Balancer.begin`; its end must be noted by `end`."""

    def __init__(self, balancer: Balancer, target: BalancedTarget, now: float, *, replaces: bool) -> None:
        self.balancer = balancer
        self.target = target
        self._began = now
        self._replaces = replaces
        self._is_waiting = True
        self._is_over = False

    def answered(self, now: float) -> None:
        """Notes the first token."""
        if self._is_waiting:
            self._stop_waiting()
            self.target.succeeded(now)
            self.target.measured(now - self._began, now, self.balancer.count, replaces=self._replaces)

    def failed(self, error: Error, now: float, cooling: float) -> None:
        """Notes a failure.

        Args:
            error: The failure.
            now: Monotonic seconds.
            cooling: The seconds for which the target is not asked.
        """
        if cooling > 0:
            self.target.cool(now, cooling, is_limited=error.code == "rate_limited")
        if self._is_waiting:
            self._stop_waiting()
            if is_fault_of_upstream(error):
                self.target.failed(now - self._began, now, self.balancer.count)

    def end(self, now: float) -> None:
        """Notes the end, successful or not; idempotent."""
        if self._is_over:
            return
        self._is_over = True
        if self._is_waiting:
            self._stop_waiting()
            self.target.outlasted(now - self._began, now, self.balancer.count)
        self.target.live -= 1

    def _stop_waiting(self) -> None:
        self._is_waiting = False
        self.target.waited(self._began)


def _no_wait(_: ModelSettings) -> float:
    return 0.0


class Balancer:
    """Chooses among the targets of one model.

    Args:
        model: A model with targets.
        chance: Random numbers.
        key_wait: Returns the seconds until a model has a key that can be used. None if all keys can be used.
        note_move: Counts sessions' requests that go to another target than their own. None if they are not counted.

    Attributes:
        targets: In the order of the configuration.
        count: Requests so far.
    """

    def __init__(
        self,
        model: ModelSettings,
        chance: Random,
        key_wait: KeyWait | None = None,
        note_move: NoteMove | None = None,
    ) -> None:
        self.count = 0
        self._note_move = note_move
        self.targets: dict[TargetKey, BalancedTarget] = {}
        self._chance = chance
        self._key_wait = key_wait or _no_wait
        self._balance = model.balance
        for settings in model.targets:
            target = BalancedTarget(model, settings)
            self.targets[target_key(target.model)] = target

    def use(self, model: ModelSettings, now: float) -> None:
        """Takes over a configuration; targets that stay keep their state, new ones start slowly.

        Args:
            model: The model, with targets.
            now: Monotonic seconds.
        """
        former, self.targets = self.targets, {}
        self._balance = model.balance
        for settings in model.targets:
            key = (settings.upstream.name, settings.id)
            target = former.get(key)
            if target is None:
                target = BalancedTarget(model, settings)
                target.begin_slowly(now)
            else:
                target.use(model, settings)
            self.targets[key] = target

    def choose(
        self, session: str, now: float, wait: Wait, without: Container[TargetKey] = (), caller: str = ANONYMOUS
    ) -> ModelSettings | None:
        """Chooses the target of a request.

        Args:
            session: The digest of the request's session; empty if it has none.
            now: Monotonic seconds.
            wait: The answer of the breakers.
            without: Targets that the request has asked already.
            caller: The name of the request's caller.

        Returns:
            The model, with the target's upstream and id. None if no target is ready.
        """
        ready = [
            target
            for key, target in self.targets.items()
            if key not in without and self._wait_of(target, now, wait) == 0.0
        ]
        if not ready:
            return None
        if len(ready) > 1:
            ready = [target for target in ready if not target.limited.passes_over(caller, now)] or ready
        if session and self._balance in _OF_SESSIONS:
            return self._at_home(ready, session, now, wait, is_first=not without).model
        return (ready[0] if len(ready) == 1 else self._best(ready, now)).model

    def is_premature(self, model: ModelSettings, now: float, wait: Wait) -> bool:
        """Returns whether a request should wait before it is sent to a target: the end of rule 4.

        Args:
            model: With the target's upstream and id.
            now: Monotonic seconds.
            wait: The answer of the breakers.
        """
        target = self.targets.get(target_key(model))
        if self._balance != "fastest" or target is None or not target.waiting:
            return False
        if target.is_known(now) or target.is_failing:
            return False
        others = [each for each in self.targets.values() if each is not target]
        return min([self._wait_of(each, now, wait) for each in others], default=math.inf) == 0.0

    def soonest(self, now: float, wait: Wait, without: Container[TargetKey] = ()) -> ModelSettings:
        """Returns the target that is ready soonest; arguments as for `choose`, but not all are without."""
        left = [target for key, target in self.targets.items() if key not in without]
        return min(left, key=lambda one: self._wait_of(one, now, wait)).model

    def wait(self, now: float, wait: Wait) -> float:
        """Returns the seconds until any target is ready, as far as that is known; arguments as for `choose`."""
        return min([self._wait_of(one, now, wait) for one in self.targets.values()])

    def begin(self, model: ModelSettings, now: float) -> TargetRequest | None:
        """Begins a request.

        Args:
            model: With the target's upstream and id.
            now: Monotonic seconds.

        Returns:
            The request at the target. None if the configuration no longer has this target.

        Raises:
            Error: The target may not be asked now: reason `cooling`, `drained` or `target_streams`.
        """
        target = self.targets.get(target_key(model))
        if target is None:
            return None
        target.check(now)
        self.count += 1
        return TargetRequest(self, target, now, replaces=target.begun(now, self.count))

    def drain(self, key: TargetKey) -> bool:
        """Takes a target out: its streams go on, and no other begins. Returns whether there is such a target."""
        target = self.targets.get(key)
        if target is not None:
            target.is_drained = True
        return target is not None

    def is_drained(self, key: TargetKey) -> bool:
        """Returns whether a target is there, and taken out."""
        target = self.targets.get(key)
        return target is not None and target.is_drained

    def is_as_new(self, key: TargetKey, now: float) -> bool:
        """Returns whether a target is not there, or neither drained nor limited."""
        target = self.targets.get(key)
        return target is None or target.is_as_new(now)

    def restore(self, key: TargetKey, now: float) -> bool:
        """Takes a target back in. Returns whether there is such a target."""
        target = self.targets.get(key)
        if target is not None and target.is_drained:
            target.is_drained = False
            target.begin_slowly(now)
        return target is not None

    def _wait_of(self, target: BalancedTarget, now: float, wait: Wait) -> float:
        return target.wait(now, max(wait(target.model.upstream), self._key_wait(target.model)))

    # -- the rules --

    def _at_home(
        self, ready: Sequence[BalancedTarget], session: str, now: float, wait: Wait, *, is_first: bool
    ) -> BalancedTarget:
        """Returns the target of a session, or the next one by score that has room for it: rule 5.

        Args:
            ready: The targets that are ready; at least one.
            session: The digest of the session.
            now: Monotonic seconds.
            wait: The answer of the breakers.
            is_first: Whether the request has asked no target so far: a later one is no move.
        """
        number = hashed(session)
        scores = [(target.score(number), target) for target in ready]
        chosen = home = _highest(scores)
        if chosen.live >= LIMITS.affinity_free or chosen.is_failing:  # seldom
            weights, streams = 0, 1
            for target in ready:
                weights += target.weight
                streams += target.live
            while not _has_room(chosen, streams, weights):
                scores = [each for each in scores if each[1] is not chosen]
                if not scores:
                    chosen = min(ready, key=lambda one: one.busyness(now))
                    break
                chosen = _highest(scores)
        if is_first and self._note_move is not None:
            if len(ready) < len(self.targets):
                home = _highest([(each.score(number), each) for each in self.targets.values()])
            if home is not chosen:
                self._note_move("busy" if home in ready else home.left_for(now, wait(home.model.upstream)))
        return chosen

    def _best(self, ready: Sequence[BalancedTarget], now: float) -> BalancedTarget:
        """Chooses among several targets that are ready."""
        if self._balance in ("auto", "weighted"):
            return _next_in_turn(ready, now)
        if self._balance == "fastest":
            return self._fastest(ready, now)
        return self._less_busy(ready, now)

    def _less_busy(self, ready: Sequence[BalancedTarget], now: float) -> BalancedTarget:
        """Returns the less busy of two targets: rule 3."""
        if len(ready) == 1:
            return ready[0]
        one, other = self._two(ready, now)
        return one if one.busyness(now) <= other.busyness(now) else other

    def _fastest(self, ready: Sequence[BalancedTarget], now: float) -> BalancedTarget:
        """Returns the faster of two targets, or a target that needs a measurement: rule 4."""
        unknown = [target for target in ready if not target.is_known(now)]
        if unknown:
            unasked = [target for target in unknown if not target.waiting]
            if unasked:
                return unasked[self._drawn([target.weight * target.part(now) for target in unasked])]
            known = [target for target in ready if target not in unknown]
            new = [target for target in unknown if not target.is_failing]
            if new and not [target for target in known if not target.is_failing]:
                return self._less_busy(new, now)
            if not known:
                return self._less_busy(unknown, now)
            ready = known
        if len(ready) == 1:
            return ready[0]
        one, other = self._two(ready, now)
        first, second = one.expected(now, self.count), other.expected(now, self.count)
        if first * LIMITS.latency_tolerance < second:
            return self._eased(one, other, now)
        if second * LIMITS.latency_tolerance < first:
            return self._eased(other, one, now)
        return one if one.busyness(now) <= other.busyness(now) else other

    def _eased(self, faster: BalancedTarget, slower: BalancedTarget, now: float) -> BalancedTarget:
        """Returns the faster target; during its slow start the slower one takes a part of its requests: rule 7."""
        ramp = faster.ramp(now)
        return faster if ramp == 1.0 or self._chance.random() < ramp else slower

    def _two(self, ready: Sequence[BalancedTarget], now: float) -> tuple[BalancedTarget, BalancedTarget]:
        """Draws two targets, each by its share: of two that are equally busy the first is asked."""
        shares = [target.weight * target.part(now) for target in ready]
        first = self._drawn(shares)
        shares[first] = 0.0
        return ready[first], ready[self._drawn(shares)]

    def _drawn(self, shares: Sequence[float]) -> int:
        point = self._chance.random() * sum(shares)
        last = 0
        for at, share in enumerate(shares):
            if share:
                last = at
                point -= share
                if point < 0:
                    break
        return last


def _next_in_turn(ready: Sequence[BalancedTarget], now: float) -> BalancedTarget:
    """Smooth weighted round robin: rule 2."""
    total = 0.0
    best = ready[0]
    for target in ready:
        share = target.weight * target.part(now)
        target.credit += share
        total += share
        if target.credit > best.credit:
            best = target
    best.credit -= total
    return best


def _highest(scores: Sequence[tuple[float, BalancedTarget]]) -> BalancedTarget:
    """Returns the target with the highest score."""
    best, chosen = scores[0]
    for points, target in scores:
        if points > best:
            best, chosen = points, target
    return chosen


def _has_room(target: BalancedTarget, streams: int, weights: int) -> bool:
    """Returns whether a target may get another session's request: bounded loads.

    Args:
        target: The target.
        streams: The streams of all targets that are ready, and the request.
        weights: The sum of their weights.
    """
    room = max(math.ceil(LIMITS.affinity_load * streams * target.weight / weights), LIMITS.affinity_free)
    return target.live < (room * LIMITS.slow_start_share if target.is_failing else room)
