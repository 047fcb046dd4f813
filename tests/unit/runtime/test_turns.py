"""Turns of callers."""

from gai_fast.model.settings import ANONYMOUS
from gai_fast.runtime.turns import CallerTurns


def test_callers_take_turns_and_of_one_the_first_is_first() -> None:
    turns: CallerTurns[str] = CallerTurns()
    for name in ("a1", "a2", "a3", "b1", "c1"):
        turns.add(name[0], name)
    assert [turns.take() for _ in range(6)] == ["a1", "b1", "c1", "a2", "a3", None]


def test_a_caller_whose_turn_it_is_not_keeps_its_place() -> None:
    turns: CallerTurns[str] = CallerTurns()
    turns.add("a", "a1")
    turns.add("b", "b1")
    assert turns.take(lambda caller: caller != "a") == "b1"
    assert turns.take(lambda caller: caller != "a") is None
    assert turns.take() == "a1"


def test_what_waits_no_longer_is_removed() -> None:
    turns: CallerTurns[str] = CallerTurns()
    turns.add("a", "a1")
    assert turns.remove("a", "a1")
    assert not turns.remove("a", "a1")
    assert (turns.count, turns.take()) == (0, None)


def test_a_caller_has_half_of_the_room() -> None:
    turns: CallerTurns[int] = CallerTurns()
    for number in range(2):
        assert turns.has_room("a", 4)
        turns.add("a", number)
    assert not turns.has_room("a", 4)
    assert turns.has_room("b", 4)
    assert turns.has_room(ANONYMOUS, 4)
