"""The keys of one upstream that has several: used in turn, and set aside if the upstream refuses or limits one.

A key that is over a limit is set aside for the model, or the path, whose request was over it: providers limit each
model. What a refusal means is in `standing.py`. Pure policy, as `balance.py`: the caller passes the time.
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
from gai_fast.net.attempts.balance import cooling_seconds
from gai_fast.net.attempts.standing import Aside, Standing

_OF_THE_KEY = ("rate_limited", "unauthorized")
"""Failures of one key; another key may still work."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Keys(ABC):
    """The credentials of an upstream that has several, one after the other: keys in turn, or tokens that end."""

    @abstractmethod
    def next(self, now: float, place: str = "", caller: str = ANONYMOUS) -> Secret | None:
        """Returns the credential for a request. None if there is none now: see `refusal`.

        Args:
            now: Monotonic seconds.
            place: Where the request goes: see `standing.py`.
            caller: The name of the request's caller.
        """
        raise NotImplementedError

    @abstractmethod
    def standing(self, key: Secret | None) -> Standing | None:
        """Returns the standing of a credential from `next`. None if it is no longer used."""
        raise NotImplementedError

    @abstractmethod
    def failed(self, key: Secret | None, error: Error, now: float, place: str = "") -> float | None:
        """Notes a failure of a credential.

        Args:
            key: From `next`.
            error: The failure of its request. A refusal has been found to concern the credential: see `Standing`.
            now: Monotonic seconds.
            place: The place that the failure concerns; empty if it concerns the credential everywhere.

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
    """One key: the places where it is set aside, and its standing."""

    __slots__ = ("aside", "secret", "standing")

    def __init__(self, secret: Secret) -> None:
        self.secret = secret
        self.aside = Aside()
        self.standing = Standing()


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
        self.use(upstream)

    def use(self, upstream: UpstreamSettings) -> None:
        """Takes over the keys of a configuration; those that stay keep their state."""
        self.upstream = upstream
        former = {key.secret.reveal(): key for key in self._keys}
        secrets = [key for key in (upstream.api_key, *upstream.more_api_keys) if key is not None]
        self._keys = [former.get(secret.reveal()) or _Key(secret) for secret in secrets]

    def next(self, now: float, place: str = "", caller: str = ANONYMOUS) -> Secret | None:
        count = len(self._keys)
        for step in range(1, count + 1):
            at = (self._at + step) % count
            if self._keys[at].aside.at(place)[0] <= now:
                self._at = at
                return self._keys[at].secret
        return None

    def standing(self, key: Secret | None) -> Standing | None:
        for one in self._keys:
            if one.secret == key:
                return one.standing
        return None

    def failed(self, key: Secret | None, error: Error, now: float, place: str = "") -> float | None:
        """Sets a key aside if the failure is the key's."""
        seconds = cooling_seconds(error)
        if is_too_large(error):
            return self.wait(now, place)  # the limit of another key may be higher
        if error.code not in _OF_THE_KEY or seconds <= 0:
            return None
        for one in self._keys:
            if one.secret == key:
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
