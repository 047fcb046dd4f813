"""Members that targets have refused: for whom they are left out, and for how long."""

from __future__ import annotations

from gai_fast.net.attempts.refused_members import RefusedMembers
from tests.limits import LIMITS

PLACE = ("up", "m")


def test_a_member_of_our_own_is_left_out_for_all_of_its_target_for_an_hour() -> None:
    refused = RefusedMembers()
    was_empty = refused.is_empty
    assert refused.note(PLACE, "store", "a", 0.0, is_ours=True)
    assert (was_empty, refused.is_empty) == (True, False)
    for caller in ("a", "b"):
        assert refused.left_out(PLACE, caller, 1.0) == ["store"]
        assert refused.left_out(("up", "other"), caller, 1.0) == []
        assert refused.left_out(PLACE, caller, LIMITS.refused_for) == []


def test_what_one_caller_sends_is_left_out_for_that_caller_until_another_one_has_seen_it_refused() -> None:
    refused = RefusedMembers()
    for _ in range(3):
        assert not refused.note(PLACE, "response_format", "hostile", 0.0, is_ours=False)
    assert (list(refused.left_out(PLACE, "hostile", 1.0)), list(refused.left_out(PLACE, "b", 1.0))) == (
        ["response_format"],
        [],
    )
    assert refused.note(PLACE, "response_format", "b", 1.0, is_ours=False)
    assert refused.left_out(PLACE, "c", 2.0) == ["response_format"]


def test_what_another_caller_saw_an_hour_ago_counts_no_more() -> None:
    refused = RefusedMembers()
    refused.note(PLACE, "seed", "a", 0.0, is_ours=False)
    assert not refused.note(PLACE, "seed", "b", LIMITS.refused_for, is_ours=False)


def test_a_caller_fills_its_own_room_alone() -> None:
    refused = RefusedMembers()
    refused.note(PLACE, "store", "a", 0.0, is_ours=True)
    refused.note(PLACE, "seed", "a", 0.0, is_ours=False)
    for number in range(10 * LIMITS.refused_of_caller):
        refused.note((f"up{number}", "m"), f"x{number}", "hostile", 0.0, is_ours=False)
        refused.note(PLACE, f"x{number}", "hostile", 0.0, is_ours=False)
    assert len(refused.left_out(PLACE, "hostile", 1.0)) <= LIMITS.refused_of_caller + 1
    assert refused.left_out(PLACE, "a", 1.0) == ["store", "seed"]


def test_its_room_is_bounded() -> None:
    refused = RefusedMembers()
    for number in range(2 * LIMITS.refused_members):
        refused.note(PLACE, f"x{number}", "a", 0.0, is_ours=True)
    assert len(refused.left_out(PLACE, "a", 1.0)) == LIMITS.refused_members
    for number in range(LIMITS.refusing_callers + 1):
        refused.note(PLACE, "seed", f"c{number}", float(number) * LIMITS.refused_for, is_ours=False)
    now = LIMITS.refusing_callers * LIMITS.refused_for
    assert refused.left_out(PLACE, "c0", 1.0)[-1] != "seed"
    assert refused.left_out(PLACE, f"c{LIMITS.refusing_callers}", now) == ["seed"]
