"""Several keys of one upstream: which one a request gets, and which are set aside."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest

from gai_fast.core.session import session_digest
from gai_fast.model.errors import Error
from gai_fast.model.settings import Secret, UpstreamSettings
from gai_fast.net.attempts.key_ring import KeyRing
from tests.limits import LIMITS

REFUSED = Error("unauthorized", "no such key")


def upstream(*keys: str) -> UpstreamSettings:
    first, *more = map(Secret, keys)
    return UpstreamSettings("up", "openai", "http://x", first, more_api_keys=tuple(more))


def limited(seconds: float | None) -> Error:
    return Error("rate_limited", "slow down", retry_after_ms=None if seconds is None else int(seconds * 1000))


def taken(ring: KeyRing, count: int, now: float = 0.0) -> list[str | None]:
    keys = [ring.next(now) for _ in range(count)]
    return [None if key is None else key.reveal() for key in keys]


def test_keys_are_used_in_turn() -> None:
    assert taken(KeyRing(upstream("a", "b", "c")), 7) == ["a", "b", "c", "a", "b", "c", "a"]


def test_a_key_over_its_limit_is_set_aside_as_retry_after_says() -> None:
    ring = KeyRing(upstream("a", "b"))
    assert ring.failed(Secret("a"), limited(7), 0.0) == 0.0
    assert taken(ring, 3, 6.9) == ["b", "b", "b"]
    assert sorted(map(str, taken(ring, 2, 7.1))) == ["a", "b"]


@pytest.mark.parametrize(("error", "seconds"), [(REFUSED, LIMITS.refused_key), (limited(None), LIMITS.cooling)])
def test_a_failure_without_a_time_has_one_of_ours(error: Error, seconds: float) -> None:
    ring = KeyRing(upstream("a", "b"))
    ring.failed(Secret("a"), error, 0.0)
    assert taken(ring, 2, seconds - 0.1) == ["b", "b"]
    assert "a" in taken(ring, 2, seconds + 0.1)


@pytest.mark.parametrize("code", ["network", "internal", "invalid_request", "overloaded"])
def test_other_failures_are_not_the_keys(code: str) -> None:
    ring = KeyRing(upstream("a", "b"))
    error = Error(code, "no", retry_after_ms=9000)
    assert ring.failed(Secret("a"), error, 0.0) is None
    assert taken(ring, 2) == ["a", "b"]


def test_a_request_that_is_too_large_sets_no_key_aside_and_may_be_sent_with_another() -> None:
    ring = KeyRing(upstream("a", "b"))
    said = "Request too large for gpt-4o on tokens per min (TPM): Limit 30000, Requested 36278."
    assert ring.failed(Secret("a"), Error("rate_limited", said, retry_after_ms=900), 0.0) == 0.0
    assert ring.failed(Secret("a"), Error("invalid_request", said), 0.0) is None
    assert taken(ring, 2) == ["a", "b"]


def test_once_all_are_set_aside_the_shortest_time_is_reported() -> None:
    ring = KeyRing(upstream("a", "b"))
    ring.failed(Secret("a"), limited(9), 0.0)
    assert ring.failed(Secret("b"), limited(4), 0.0) == 4.0
    assert taken(ring, 1) == [None]
    refusal = ring.refusal(upstream("a", "b"), 1.0)
    assert (refusal.code, refusal.reason, refusal.retry_after_ms) == ("rate_limited", "upstream_keys", 3000)


def test_once_all_are_refused_the_operator_is_to_look() -> None:
    ring = KeyRing(upstream("sk-secret", "b"))
    ring.failed(Secret("sk-secret"), REFUSED, 0.0)
    ring.failed(Secret("b"), REFUSED, 0.0)
    refusal = ring.refusal(upstream("sk-secret", "b"), 1.0)
    assert (refusal.code, refusal.reason, refusal.status) == ("provider_unavailable", "upstream_credentials", 502)
    assert not refusal.is_temporary
    assert "sk-secret" not in refusal.message


def test_a_reload_keeps_the_state_of_keys_that_stay() -> None:
    ring = KeyRing(upstream("a", "b"))
    ring.failed(Secret("a"), limited(60), 0.0)
    ring.use(upstream("c", "a"))
    assert taken(ring, 3) == ["c", "c", "c"]
    ring.failed(Secret("c"), limited(90), 0.0)
    assert ring.refusal(upstream("c", "a"), 0.0).retry_after_ms == 60_000


def test_a_shorter_wait_does_not_end_a_longer_one() -> None:
    ring = KeyRing(upstream("a", "b"))
    ring.failed(Secret("a"), limited(60), 0.0)
    ring.failed(Secret("a"), limited(1), 0.0)  # of a request that was under way
    assert taken(ring, 3, 2.0) == ["b", "b", "b"]


def test_a_key_that_a_reload_has_removed_may_still_fail() -> None:
    ring = KeyRing(upstream("a", "b"))
    ring.use(upstream("b", "c"))
    assert ring.failed(Secret("a"), limited(60), 0.0) == 0.0
    assert sorted(map(str, taken(ring, 2))) == ["b", "c"]


def test_a_limit_of_one_model_leaves_the_keys_to_all_others() -> None:
    ring = KeyRing(upstream("a", "b"))
    for key in ("a", "b"):
        ring.failed(Secret(key), limited(60), 0.0, "big")
    assert (ring.next(1.0, "big"), ring.wait(1.0, "big")) == (None, 59.0)
    assert ring.refusal(upstream("a", "b"), 0.0, "big").retry_after_ms == 60_000
    assert (ring.wait(1.0, "small"), ring.next(1.0, "small")) == (0.0, Secret("a"))
    ring.use(upstream("b", "a"))
    assert ring.next(1.0, "big") is None, "a reload keeps it"


def test_a_refused_key_is_set_aside_for_all_models() -> None:
    ring = KeyRing(upstream("a", "b"))
    ring.failed(Secret("a"), REFUSED, 0.0)
    assert [ring.next(1.0, model) for model in ("big", "small", "POST /v1/x")] == [Secret("b")] * 3


def test_a_doubted_key_is_kept_and_the_next_one_is_tried() -> None:
    ring = KeyRing(upstream("a", "b"))
    first = ring.next(0.0, "m")
    assert ring.doubted(first, REFUSED, 0.0, "m", "one") == 0.0
    assert [ring.next(0.0, "m"), ring.next(0.0, "m")] == [Secret("b"), Secret("a")]


def test_each_key_has_a_standing_of_its_own() -> None:
    ring = KeyRing(upstream("a", "b"))
    one = ring.standing(Secret("a"))
    assert one is not None
    assert one is not ring.standing(Secret("b"))
    ring.use(upstream("b", "a"))
    assert (ring.standing(Secret("a")), ring.standing(Secret("c"))) == (one, None)


# ---- sessions

SESSIONS = [session_digest(f"{number}", "anna") for number in range(300)]


def key_of(ring: KeyRing, session: str, now: float = 0.0, place: str = "", after: str | None = None) -> str | None:
    key = ring.next(now, place, session=session, after=None if after is None else Secret(after))
    ring.left(key)
    return None if key is None else key.reveal()


def homes(ring: KeyRing, now: float = 0.0, place: str = "") -> list[str | None]:
    return [key_of(ring, session, now, place) for session in SESSIONS]


def test_a_session_has_its_key_and_all_else_takes_them_in_turn() -> None:
    ring = KeyRing(upstream("a", "b", "c"))
    home = key_of(ring, SESSIONS[0])
    assert {key_of(ring, SESSIONS[0]) for _ in range(9)} == {home}
    assert taken(ring, 6) == ["a", "b", "c", "a", "b", "c"]
    assert ring.moved is None


def test_sessions_may_take_the_keys_in_turn_as_all_else() -> None:
    ring = KeyRing(replace(upstream("a", "b"), key_by="turn"))
    assert [key_of(ring, SESSIONS[0]) for _ in range(4)] == ["a", "b", "a", "b"]


@pytest.mark.parametrize("keys", [*itertools.permutations("abc")], ids="".join)
def test_a_key_is_the_same_in_each_process_and_in_any_order_of_the_list(keys: tuple[str, ...]) -> None:
    found = homes(KeyRing(upstream(*keys)))
    assert found == homes(KeyRing(upstream("a", "b", "c")))
    assert min([found.count(each) for each in "abc"]) > 70
    assert "".join(map(str, found[:20])) == "bcccbbcababcaaabaaba"


@pytest.mark.parametrize("how", ["limited", "limited at a place", "refused", "busy"])
def test_only_the_sessions_of_a_key_that_is_set_aside_move_and_all_come_back(how: str) -> None:
    ring = KeyRing(upstream("a", "b", "c"))
    before = homes(ring)
    place = "big" if how == "limited at a place" else ""
    seconds, under_way = 60.0, 0
    if how == "busy":
        under_way = LIMITS.affinity_free
        mine = SESSIONS[before.index("b")]
        for _ in range(under_way):
            assert ring.next(0.0, session=mine) == Secret("b")
    else:
        ring.failed(Secret("b"), REFUSED if how == "refused" else limited(60), 0.0, place)
        seconds = LIMITS.refused_key if how == "refused" else 60.0
    meanwhile = homes(ring, seconds - 0.1, place)
    assert "b" not in meanwhile
    assert all(old == new for old, new in zip(before, meanwhile, strict=True) if old != "b")
    assert {"a", "c"} == {new for old, new in zip(before, meanwhile, strict=True) if old == "b"}, "they spread"
    key_of(ring, SESSIONS[before.index("b")], 1.0, place)
    assert ring.moved == ("busy" if how == "busy" else "cooling")
    key_of(ring, SESSIONS[before.index("a")], 1.0, place)
    assert ring.moved is None
    for _ in range(under_way):
        ring.left(Secret("b"))
    assert homes(ring, seconds + 0.1, place) == before
    if how == "limited at a place":
        assert homes(ring, 1.0, "small") == before


def test_without_any_key_a_session_has_none() -> None:
    ring = KeyRing(upstream("a", "b"))
    for key in "ab":
        ring.failed(Secret(key), limited(60), 0.0)
    assert homes(ring, 1.0) == [None] * len(SESSIONS)
    assert "b" in homes(ring, 61.0)


def test_a_reload_without_a_key_moves_its_sessions_alone() -> None:
    ring = KeyRing(upstream("a", "b", "c"))
    before = homes(ring)
    mine = SESSIONS[before.index("b")]
    key = ring.next(0.0, session=mine)
    ring.use(upstream("c", "a"))
    meanwhile = homes(ring)
    assert all(old == new for old, new in zip(before, meanwhile, strict=True) if old != "b")
    assert ring.failed(key, limited(9), 0.0) == 0.0, "its request is under way"
    ring.use(upstream("b", "a", "c"))
    ring.left(key)
    assert homes(ring) == before
    for _ in range(LIMITS.affinity_free):
        assert ring.next(0.0, session=mine) == Secret("b"), "what has left counts no more"


@pytest.mark.parametrize("sessions", [SESSIONS[:1], SESSIONS], ids=["one session", "many sessions"])
def test_a_thousand_requests_at_once_keep_to_the_keys_parts(sessions: list[str]) -> None:
    ring = KeyRing(upstream("a", "b", "c"))
    keys = [ring.next(0.0, session=sessions[number % len(sessions)]) for number in range(1000)]
    most = max([keys.count(Secret(each)) for each in "abc"])
    assert most <= math.ceil(LIMITS.affinity_load * 1000 / 3)
    assert None not in keys
    for key in keys:
        ring.left(key)
    assert homes(ring) == homes(KeyRing(upstream("a", "b", "c")))


def test_all_else_passes_over_a_key_that_sessions_fill() -> None:
    ring = KeyRing(upstream("a", "b", "c"))
    mine = SESSIONS[homes(ring).index("b")]
    for _ in range(LIMITS.affinity_free):
        ring.next(0.0, session=mine)
    assert taken(ring, 4) == ["a", "c", "a", "c"]


def test_all_else_takes_a_full_key_if_there_is_no_other() -> None:
    ring = KeyRing(upstream("a", "b"))
    ring.failed(Secret("a"), limited(60), 0.0)
    assert taken(ring, 40) == ["b"] * 40


def test_each_key_is_tried_once_after_doubts() -> None:
    ring = KeyRing(upstream("a", "b", "c"))
    home = key_of(ring, SESSIONS[0])
    second = key_of(ring, SESSIONS[0], after=home)
    third = key_of(ring, SESSIONS[0], after=second)
    assert sorted(map(str, (home, second, third))) == ["a", "b", "c"]
    assert ring.moved is None, "the request was at home first"
    assert key_of(ring, SESSIONS[0], after="removed meanwhile") == home


def test_the_end_of_a_request_counts_once() -> None:
    ring = KeyRing(upstream("a", "b"))
    for key in (None, Secret("a"), Secret("unknown")):
        ring.left(key)
    assert taken(ring, 2) == ["a", "b"]
