"""Rendezvous hashing: shares, and who moves."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import pytest

from gai_fast.core.session import session_digest
from gai_fast.net.attempts.rendezvous import factor, hashed, rank, score

PLACES = [factor("east", f"http://{name}") for name in "abcdef"]
SESSIONS = [hashed(session_digest(f"{number}", "anna")) for number in range(6000)]


def home(session: int, places: list[int]) -> int:
    return max(places, key=lambda each: rank(session, each))


def test_each_place_has_its_part() -> None:
    counts = Counter(home(session, PLACES) for session in SESSIONS)
    assert len(counts) == len(PLACES)
    for count in counts.values():
        assert count == pytest.approx(1000, abs=5 * math.sqrt(1000 * 5 / 6))


def test_the_sessions_of_a_place_that_goes_spread_over_all_others() -> None:
    gone, *left = PLACES
    moved = [session for session in SESSIONS if home(session, PLACES) == gone]
    assert all(home(session, left) == home(session, PLACES) for session in SESSIONS if session not in set(moved))
    counts = Counter(home(session, left) for session in moved)
    for count in counts.values():
        assert count == pytest.approx(len(moved) / 5, abs=5 * math.sqrt(len(moved) / 5))


def test_the_scores_of_two_places_say_nothing_of_each_other() -> None:
    for one, other in itertools.combinations(PLACES, 2):
        higher = sum([score(session, one, 1) > 1.44 and score(session, other, 1) > 1.44 for session in SESSIONS])
        assert higher == pytest.approx(1500, abs=5 * math.sqrt(1500)), "each is above its median for half of them"


def test_a_weight_is_a_share_and_none_is_the_lowest_score() -> None:
    one, other = PLACES[:2]
    first = sum([score(session, one, 3) > score(session, other, 1) for session in SESSIONS])
    assert first / len(SESSIONS) == pytest.approx(0.75, abs=0.03)
    assert all(score(session, one, 0) < score(session, other, 1) for session in SESSIONS)


@pytest.mark.parametrize("digest", ["0" * 16, "f" * 16, "8000000000000000"])
def test_every_digest_has_a_score(digest: str) -> None:
    assert all(score(hashed(digest), each, 1) > 0 for each in (*PLACES, 1, -1))


def test_a_factor_is_odd_and_of_all_its_parts() -> None:
    found = {factor(*parts) for parts in (("a", "b"), ("ab",), ("b", "a"), ("a", "\ud800"))}
    assert len(found) == 4
    assert all(each % 2 and each.bit_length() <= 64 for each in found)
