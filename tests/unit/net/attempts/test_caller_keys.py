"""Credentials of callers as the keys of an upstream: limited one by one."""

from __future__ import annotations

import pytest

from gai_fast.model.credentials import Credential
from gai_fast.model.errors import Code, Error
from gai_fast.model.settings import Secret, UpstreamSettings
from gai_fast.net.attempts.caller_keys import CallerKeys, LimitedCredentials, is_callers
from tests.limits import LIMITS

UPSTREAM = UpstreamSettings("up", "openai", "http://x", takes_credentials=True)
OTHER = UpstreamSettings("other", "openai", "http://x", takes_credentials=True)
MINE, BENS = Credential("sk-anna", is_bearer=True), Credential("sk-ben", is_bearer=True)


def limited(seconds: float) -> Error:
    return Error("rate_limited", "slow down", retry_after_ms=int(seconds * 1000))


def test_a_limit_sets_that_credential_alone_aside_at_that_upstream() -> None:
    noted = LimitedCredentials(b"k" * 32)
    keys = CallerKeys(noted, UPSTREAM, MINE)
    assert keys.next(0.0) == MINE.secret
    assert keys.failed(MINE.secret, limited(7), 0.0) is None, "there is no other to try"
    assert (keys.next(6.9), keys.wait(6.0)) == (None, 1.0)
    refusal = CallerKeys(noted, UPSTREAM, MINE).refusal(UPSTREAM, 5.0)
    assert (refusal.code, refusal.status, refusal.reason) == ("rate_limited", 429, "upstream_keys")
    assert (refusal.retry_after_ms, refusal.is_temporary) == (2000, True)
    assert keys.next(7.1) == MINE.secret
    for upstream, credential in ((UPSTREAM, BENS), (OTHER, MINE)):
        assert CallerKeys(noted, upstream, credential).next(1.0) == credential.secret


def test_a_shorter_limit_does_not_end_a_longer_one() -> None:
    keys = CallerKeys(LimitedCredentials(b"k" * 32), UPSTREAM, MINE)
    keys.failed(MINE.secret, limited(60), 0.0)
    keys.failed(MINE.secret, limited(1), 0.0)
    assert keys.wait(0.0) == 60.0


@pytest.mark.parametrize("code", ["unauthorized", "forbidden", "overloaded", "network"])
def test_other_failures_set_none_aside(code: Code) -> None:
    keys = CallerKeys(LimitedCredentials(b"k" * 32), UPSTREAM, MINE)
    assert keys.failed(MINE.secret, Error(code, "no", retry_after_ms=9000), 0.0) is None
    assert keys.next(0.0) == MINE.secret
    assert keys.standing(MINE.secret) is None
    assert keys.doubted(MINE.secret, Error(code, "no"), 0.0, "m", "anna") is None


def test_a_request_that_is_too_large_sets_none_aside() -> None:
    keys = CallerKeys(LimitedCredentials(b"k" * 32), UPSTREAM, MINE)
    said = "Request too large for gpt-4o on tokens per min (TPM): Limit 30000, Requested 36278."
    keys.failed(MINE.secret, Error("rate_limited", said, retry_after_ms=900), 0.0)
    assert keys.next(0.0) == MINE.secret


def test_without_a_credential_the_caller_is_told() -> None:
    keys = CallerKeys(LimitedCredentials(b"k" * 32), UPSTREAM, None)
    assert keys.next(0.0) is None
    refusal = keys.refusal(UPSTREAM, 0.0)
    assert (refusal.code, refusal.status, refusal.reason) == ("unauthorized", 401, "caller_credential")
    assert not refusal.is_temporary


def test_the_oldest_is_dropped() -> None:
    noted = LimitedCredentials(b"k" * 32)
    for number in range(LIMITS.limited_credentials + 1):
        noted.put("up", Secret(f"sk-{number}"), 60.0)
    assert noted.until("up", Secret("sk-0")) < 0
    assert noted.until("up", Secret("sk-1")) == 60.0


def test_what_is_kept_depends_on_a_key() -> None:
    """So it cannot be compared with lists of known credentials."""
    kept = []
    for key in (b"a" * 32, b"b" * 32):
        noted = LimitedCredentials(key)
        noted.put("up", MINE.secret, 60.0)
        kept.append(set(noted._until))
    assert kept[0].isdisjoint(kept[1])
    assert not any(b"sk-anna" in digest for digests in kept for digest in digests)


def test_only_upstreams_that_take_credentials_have_failures_of_callers() -> None:
    own = UpstreamSettings("own", "openai", "http://x")
    assert is_callers(UPSTREAM, Error("unauthorized", "no"))
    assert not is_callers(own, Error("unauthorized", "no"))
    assert not is_callers(UPSTREAM, Error("network", "reset"))
