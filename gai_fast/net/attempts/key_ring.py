"""The keys of one upstream that has several: which one a request gets, and which are set aside.

A session has its key, by rendezvous hashing (`key_by = "session"`); all else takes the keys in turn. A key with far
more requests than its part is passed over, as a target is (`balance.py`, rule 5).

A key that the upstream refuses or limits is set aside; one that is over a limit for the model, or the path, whose
request was over it: providers limit each model. What a refusal means is in `standing.py`, whom a limit concerns in
`limited.py`. Pure policy, as `balance.py`: the caller passes the time.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

from mypy_extensions import mypyc_attr

from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.model.settings import ANONYMOUS, Secret, UpstreamSettings
from gai_fast.model.upstream_errors import is_too_large
from gai_fast.net.attempts.balance import MoveReason, cooling_seconds
from gai_fast.net.attempts.limited import Limited, is_untimed
from gai_fast.net.attempts.rendezvous import factor, hashed, rank
from gai_fast.net.attempts.standing import Aside, Standing
from gai_fast.net.limits import LIMITS

_OF_THE_KEY = ("rate_limited", "unauthorized")
"""Failures of one key; another key may still work."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Keys(ABC):
    """The credentials of an upstream that has several: keys, or tokens that end, one after the other.

    Attributes:
        moved: Why the last request of `next` did not get the credential that is its session's. None if it did.
    """

    moved: MoveReason | None = None

    @abstractmethod
    def next(
        self, now: float, place: str = "", caller: str = ANONYMOUS, session: str = "", after: Secret | None = None
    ) -> Secret | None:
        """Returns the credential for a request. None if there is none now: see `refusal`.

        Args:
            now: Monotonic seconds.
            place: Where the request goes: see `standing.py`.
            caller: The name of the request's caller.
            session: The digest of the request's session; empty if it has none.
            after: The credential with which the request has failed, so that another may do better. None if it has not.
        """
        raise NotImplementedError

    def left(self, key: Secret | None) -> None:
        """Notes the end of a request with a credential from `next`; once for each."""
        return

    @abstractmethod
    def standing(self, key: Secret | None) -> Standing | None:
        """Returns the standing of a credential from `next`. None if it is no longer used."""
        raise NotImplementedError

    def served(self, key: Secret | None, place: str) -> None:
        """Notes that a request was served with a credential from `next` at a place."""
        return

    @abstractmethod
    def failed(
        self, key: Secret | None, error: Error, now: float, place: str = "", caller: str = ANONYMOUS
    ) -> float | None:
        """Notes a failure of a credential.

        Args:
            key: From `next`.
            error: The failure of its request. A refusal has been found to concern the credential: see `Standing`.
            now: Monotonic seconds.
            place: The place that the failure concerns; empty if it concerns the credential everywhere.
            caller: The name of the request's caller.

        Returns:
            Seconds until a credential can be used, 0 if one can be used now. None if the failure has another cause.
        """
        raise NotImplementedError

    @abstractmethod
    def doubted(self, key: Secret | None, error: Error, now: float, place: str, caller: str) -> float | None:
        """Notes a refusal that concerns no more than its request, as far as is known; as `failed`."""
        raise NotImplementedError

    @abstractmethod
    def wait(self, now: float, place: str = "") -> float:
        """Returns the seconds until a credential can be used at a place; 0: now."""
        raise NotImplementedError

    @abstractmethod
    def refusal(self, upstream: UpstreamSettings, now: float, place: str = "") -> Error | None:
        """Returns the error for a request while there is no credential. None if the request waits for one."""
        raise NotImplementedError


class _Key:
    """One key: its running requests, the places where it is set aside, and its standing."""

    def __init__(self, secret: Secret, upstream: UpstreamSettings) -> None:
        self.secret = secret
        self.factor = factor(upstream.base_url, secret.reveal())
        self.live = 0
        self.aside = Aside()
        self.limited: dict[str, Limited] = {}  # by place; the oldest first
        self.standing = Standing()

    def limit(self, place: str, caller: str, now: float) -> bool:
        """Notes a limit without a time; as `Limited.note`."""
        limited = self.limited.get(place)
        if limited is None:
            limited = self.limited[place] = Limited()
            if len(self.limited) > LIMITS.limited_places:
                del self.limited[next(iter(self.limited))]
        return limited.note(caller, now)

    def passes_over(self, place: str, caller: str, now: float) -> bool:
        """Returns whether a caller's requests take other keys first."""
        if not self.limited:  # nearly always
            return False
        limited = self.limited.get(place)
        return limited is not None and limited.passes_over(caller, now)


class KeyRing(Keys):
    """The keys of an upstream.

    Args:
        upstream: An upstream with several keys.

    Attributes:
        upstream: The same, by the last configuration.
    """

    def __init__(self, upstream: UpstreamSettings) -> None:
        self._at = -1
        self._keys: Sequence[_Key] = ()
        self._known: dict[str, _Key] = {}  # these, and removed ones that requests still use; by secret
        self._live = 0  # requests under way with the keys of the list
        self.use(upstream)

    def use(self, upstream: UpstreamSettings) -> None:
        """Takes over the keys of a configuration; those that stay keep their state."""
        self.upstream = upstream
        former = self._known
        secrets = [key for key in (upstream.api_key, *upstream.more_api_keys) if key is not None]
        self._keys = [former.get(secret.reveal()) or _Key(secret, upstream) for secret in secrets]
        used = [key for key in former.values() if key.live]
        self._known = {key.secret.reveal(): key for key in (*used, *self._keys)}
        self._live = sum([key.live for key in self._keys])
        self._is_by_session = upstream.key_by == "session"

    def next(
        self, now: float, place: str = "", caller: str = ANONYMOUS, session: str = "", after: Secret | None = None
    ) -> Secret | None:
        self.moved = None
        is_home = session and self._is_by_session
        key = self._of_session(now, place, caller, session, after) if is_home else self._in_turn(now, place, caller)
        if key is None:
            return None
        key.live += 1
        self._live += 1
        return key.secret

    def _in_turn(self, now: float, place: str, caller: str) -> _Key | None:
        keys = self._keys
        count = len(keys)
        full = -1  # the first key that can be used, but has far more requests than its part
        limited = -1  # the first one that can be used, but has limited the caller
        for step in range(1, count + 1):
            at = (self._at + step) % count
            if keys[at].aside.at(place)[0] > now:
                continue
            if keys[at].passes_over(place, caller, now):
                limited = at if limited < 0 else limited
                continue
            if self._is_by_session and not self._has_room(keys[at], count):
                full = at if full < 0 else full
                continue
            self._at = at
            return keys[at]
        full = limited if full < 0 else full
        if full < 0:
            return None
        self._at = full
        return keys[full]

    def _of_session(self, now: float, place: str, caller: str, session: str, after: Secret | None) -> _Key | None:
        """Returns the key of a session, or the next one by score that can be used: after the one that has failed."""
        keys, number = self._keys, hashed(session)
        home, best = keys[0], -1
        for key in keys:
            points = rank(number, key.factor)
            if points > best:
                home, best = key, points
        can_be_used = home.aside.at(place)[0] <= now and not home.passes_over(place, caller, now)
        if can_be_used and after is None and self._has_room(home, len(keys)):  # nearly always
            return home
        ready = [(rank(number, key.factor), key) for key in keys if key.aside.at(place)[0] <= now]
        if not ready:
            return None
        ready = [each for each in ready if not each[1].passes_over(place, caller, now)] or ready
        if after is not None:
            failed = self._known.get(after.reveal())
            lower = ready if failed is None else [one for one in ready if one[0] < rank(number, failed.factor)]
            return _highest(lower or ready)
        roomy = [each for each in ready if self._has_room(each[1], len(ready))]
        chosen = _highest(roomy or ready)
        if chosen is not home:
            self.moved = "busy" if can_be_used else "cooling"
        return chosen

    def _has_room(self, key: _Key, count: int) -> bool:
        """Returns whether a key may get another request: bounded loads.

        Args:
            key: The key.
            count: The keys that can be used.
        """
        live = key.live
        return live < LIMITS.affinity_free or live < math.ceil(LIMITS.affinity_load * (self._live + 1) / count)

    def left(self, key: Secret | None) -> None:
        one = None if key is None else self._known.get(key.reveal())
        if one is None or not one.live:
            return
        one.live -= 1
        if one in self._keys:
            self._live -= 1
        elif not one.live:
            del self._known[one.secret.reveal()]

    def standing(self, key: Secret | None) -> Standing | None:
        for one in self._keys:
            if one.secret == key:
                return one.standing
        return None

    def served(self, key: Secret | None, place: str) -> None:
        for one in self._keys:
            if one.limited and one.secret == key and place in one.limited:
                one.limited[place].served()

    def failed(
        self, key: Secret | None, error: Error, now: float, place: str = "", caller: str = ANONYMOUS
    ) -> float | None:
        """Sets a key aside if the failure is the key's."""
        seconds = cooling_seconds(error)
        if is_too_large(error):
            return self.wait(now, place)  # the limit of another key may be higher
        if error.code not in _OF_THE_KEY or seconds <= 0:
            return None
        for one in self._keys:
            if one.secret == key and (not is_untimed(error) or one.limit(place, caller, now)):
                one.aside.put(place, now + seconds, is_limited=error.code == "rate_limited")
        return self.wait(now, place)

    def doubted(self, key: Secret | None, error: Error, now: float, place: str, caller: str) -> float | None:
        """Sets no key aside: the next one is tried."""
        return self.wait(now, place)

    def wait(self, now: float, place: str = "") -> float:
        return max(0.0, min([key.aside.at(place)[0] for key in self._keys]) - now)

    def refusal(self, upstream: UpstreamSettings, now: float, place: str = "") -> Error:
        """Returns the error for a request while all keys are set aside."""
        limited = [until for until, is_limited in [key.aside.at(place) for key in self._keys] if is_limited]
        if not limited:
            text = f"upstream {upstream.name!r} refuses our credentials: the operator should check its `api_key`"
            return Error(
                "provider_unavailable",
                text,
                reason="upstream_credentials",
                temporary=False,
                phase="first_event",
                provider=upstream.provider,
                status=502,
            )
        wait = max(1, math.ceil((min(limited) - now) * 1000))
        text = f"every key of upstream {upstream.name!r} is over its limit"
        return Error(
            "rate_limited",
            text,
            reason="upstream_keys",
            retry_after_ms=min(wait, SHARED.retry_after_ms),
            provider=upstream.provider,
        )


def _highest(ranked: Sequence[tuple[int, _Key]]) -> _Key:
    best, chosen = ranked[0]
    for points, key in ranked:
        if points > best:
            best, chosen = points, key
    return chosen
