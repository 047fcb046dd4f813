"""The credentials of callers for upstreams with `api_key = "caller"`.

A request has its caller's credential, and no other. The upstream's refusals and limits concern the caller alone: they
change no breaker, no target and no other caller's requests. A 429 sets the credential aside at its upstream. Pure
policy, as `balance.py`.
"""

from __future__ import annotations

import math
from hashlib import blake2b
from typing import Final

from gai_fast.model.credentials import CALLER_CREDENTIAL, Credential
from gai_fast.model.errors import Code, Error
from gai_fast.model.limits import SHARED
from gai_fast.model.settings import ANONYMOUS, Secret, UpstreamSettings
from gai_fast.model.upstream_errors import is_too_large
from gai_fast.net.attempts.balance import cooling_seconds
from gai_fast.net.attempts.key_ring import Keys
from gai_fast.net.attempts.standing import Standing
from gai_fast.net.limits import LIMITS

_OF_THE_CALLER: Final = frozenset[Code]({"unauthorized", "forbidden", "rate_limited"})


def is_callers(upstream: UpstreamSettings, error: Error) -> bool:
    """Returns whether an upstream's failure concerns the caller's credential alone.

    Args:
        upstream: The upstream.
        error: The failure.
    """
    return upstream.takes_credentials and error.code in _OF_THE_CALLER


class LimitedCredentials:
    """The credentials that upstreams have limited, by a keyed digest; the oldest is dropped.

    Args:
        key: Of the digests: 16 random bytes or more.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._until: dict[bytes, float] = {}  # in the order of the last limit

    def put(self, upstream: str, secret: Secret, until: float) -> None:
        """Sets a credential aside, unless it is for longer already.

        Args:
            upstream: The upstream's name.
            secret: The credential.
            until: Monotonic seconds.
        """
        digest = self._digest(upstream, secret)
        self._until[digest] = max(until, self._until.pop(digest, -math.inf))
        if len(self._until) > LIMITS.limited_credentials:
            del self._until[next(iter(self._until))]

    def until(self, upstream: str, secret: Secret) -> float:
        """Returns the time until which a credential is set aside, in monotonic seconds; arguments as for `put`."""
        if not self._until:  # nearly always
            return -math.inf
        return self._until.get(self._digest(upstream, secret), -math.inf)

    def _digest(self, upstream: str, secret: Secret) -> bytes:
        text = f"{upstream}\0{secret.reveal()}".encode("utf-8", "surrogatepass")
        return blake2b(text, digest_size=16, key=self._key).digest()


class CallerKeys(Keys):
    """The credential of one request's caller, as the `Keys` of its upstream.

    Args:
        limited: The credentials that are set aside.
        upstream: The upstream.
        credential: The caller's. None if the request has none.
    """

    def __init__(self, limited: LimitedCredentials, upstream: UpstreamSettings, credential: Credential | None) -> None:
        self._limited = limited
        self._upstream = upstream
        self._secret = None if credential is None else credential.secret

    def next(
        self, now: float, place: str = "", caller: str = ANONYMOUS, session: str = "", after: Secret | None = None
    ) -> Secret | None:
        return None if self.wait(now) > 0 else self._secret

    def standing(self, key: Secret | None) -> Standing | None:
        return None

    def failed(
        self, key: Secret | None, error: Error, now: float, place: str = "", caller: str = ANONYMOUS
    ) -> float | None:
        """Sets the credential aside after a 429; there is no other one to try."""
        if key is not None and error.code == "rate_limited" and not is_too_large(error):
            self._limited.put(self._upstream.name, key, now + cooling_seconds(error))
        return None

    def doubted(self, key: Secret | None, error: Error, now: float, place: str, caller: str) -> float | None:
        return None

    def wait(self, now: float, place: str = "") -> float:
        secret = self._secret
        return 0.0 if secret is None else max(0.0, self._limited.until(self._upstream.name, secret) - now)

    def refusal(self, upstream: UpstreamSettings, now: float, place: str = "") -> Error:
        """Returns the error for a request without a credential, or with one that is set aside."""
        wait = self.wait(now)
        if wait > 0:
            return Error(
                "rate_limited",
                f"this credential is over its limit at upstream {upstream.name!r}",
                reason="upstream_keys",
                retry_after_ms=min(max(1, math.ceil(wait * 1000)), SHARED.retry_after_ms),
                provider=upstream.provider,
            )
        text = (
            f"upstream {upstream.name!r} takes the caller's own credential: send it as `Authorization: Bearer …` or "
            "`x-api-key`, and a key of the gateway as `x-gai-key`"
        )
        return Error("unauthorized", text, reason=CALLER_CREDENTIAL, temporary=False, phase="connect")
