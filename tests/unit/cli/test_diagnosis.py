"""Results of checks."""

from __future__ import annotations

from gai_fast.cli.diagnosis import Check, worst


def test_several_checks_are_one_with_the_worst_status_and_each_fault_once() -> None:
    one, two = Check("a", "ok", "1"), Check("a", "error", "2", "do")
    assert worst("a", [one, two, two], "") == Check("a", "error", "2", "do")
    assert worst("a", [one, Check("a", "ok", "3")], "") == Check("a", "ok", "1; 3")
    assert worst("a", [], "none") == Check("a", "skipped", "none")
