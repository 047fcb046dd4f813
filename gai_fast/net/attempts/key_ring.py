"""The keys of one upstream that has several: used in turn, and set aside if the upstream refuses or limits one.

Pure policy, as `balance.py`: the caller passes the time.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

from mypy_extensions import mypyc_attr

from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.model.settings import Secret, UpstreamSettings
from gai_fast.model.upstream_errors import is_too_large
from gai_fast.net.attempts.balance import cooling_seconds

_OF_THE_KEY = ("rate_limited", "unauthorized")
"""Failures of one key; another key may still work."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Keys(ABC):
    """The credentials of an upstream that has several, one after the other: keys in turn, or tokens that end."""

    @abstractmethod
    def next(self, now: float) -> Secret | None:
        """Returns the credential for a request. None if there is none now: see `refusal`."""
        raise NotImplementedError

    @abstractmethod
    def failed(self, key: Secret | None, error: Error, now: float) -> float | None:
        """Notes a failure.

        Args:
            key: From `next`.
            error: The failure of its request.
            now: Monotonic seconds.

        Returns:
            Seconds until a credential can be used, 0 if one can be used now. None if the failure has another cause.
        """
        raise NotImplementedError

    @abstractmethod
    def wait(self, now: float) -> float:
        """Returns the seconds until a credential can be used; 0: now."""
        raise NotImplementedError

    @abstractmethod
    def refusal(self, upstream: UpstreamSettings, now: float) -> Error | None:
        """Returns the error for a request while there is no credential. None if the request waits for one."""
        raise NotImplementedError


class KeyRing(Keys):
    """The keys of an upstream.

    Args:
        upstream: An upstream with several keys.

    Attributes:
        upstream: The same, by the last configuration.
    """

    def __init__(self, upstream: UpstreamSettings) -> None:
        self._at = -1
        self._keys: Sequence[Secret] = ()
        self._aside: list[float] = []  # by key: the time until which it is not used
        self._limited: list[bool] = []  # by key: whether the reason was a limit
        self.use(upstream)

    def use(self, upstream: UpstreamSettings) -> None:
        """Takes over the keys of a configuration; those that stay keep their state."""
        self.upstream = upstream
        former = {key.reveal(): at for at, key in enumerate(self._keys)}
        keys = [key for key in (upstream.api_key, *upstream.more_api_keys) if key is not None]
        places = [former.get(key.reveal(), -1) for key in keys]
        self._aside = [self._aside[at] if at >= 0 else -math.inf for at in places]
        self._limited = [self._limited[at] if at >= 0 else False for at in places]
        self._keys = keys

    def next(self, now: float) -> Secret | None:
        count = len(self._keys)
        for step in range(1, count + 1):
            at = (self._at + step) % count
            if self._aside[at] <= now:
                self._at = at
                return self._keys[at]
        return None

    def failed(self, key: Secret | None, error: Error, now: float) -> float | None:
        """Sets a key aside if the failure is the key's."""
        seconds = cooling_seconds(error)
        if is_too_large(error):
            return self.wait(now)  # the limit of another key may be higher
        if error.code not in _OF_THE_KEY or seconds <= 0:
            return None
        for at, one in enumerate(self._keys):
            if one == key:
                self._aside[at] = max(self._aside[at], now + seconds)
                self._limited[at] = error.code == "rate_limited"
        return self.wait(now)

    def wait(self, now: float) -> float:
        return max(0.0, min(self._aside) - now)

    def refusal(self, upstream: UpstreamSettings, now: float) -> Error:
        """Returns the error for a request while all keys are set aside."""
        limited = [until for until, is_limited in zip(self._aside, self._limited, strict=True) if is_limited]
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
