"""`gai_fast/guards/verdicts.py`: what a judge gets."""

from __future__ import annotations

from gai_fast.guards.verdicts import Question


def test_a_judge_gets_the_text_and_whose_it_is() -> None:
    asked = Question("policy", "output", "text", "One two", "m", "anna", "s1")
    assert list(asked.members()) == ["guard", "on", "channel", "text", "model", "caller", "stream_id"]
    assert asked.members()["text"] == "One two"


def test_a_question_shows_no_text() -> None:
    asked = Question("policy", "input", "input", "what nobody may read")
    assert repr(asked) == "Question(policy, input, input, 20 characters)"
    assert "nobody" not in f"{asked!r} {asked}"
