"""`guards/input.py`: what goes up of a request, and what is said of it."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from gai_fast.core.processing.processor import StreamInfo
from gai_fast.guards.active import ActiveGuard
from gai_fast.guards.building import build
from gai_fast.guards.input import InputCheck
from gai_fast.guards.restore import Placeholders
from gai_fast.guards.verdicts import Failed, JudgeVerdict
from gai_fast.model.errors import Error
from gai_fast.model.settings import GuardSettings, JudgeSettings
from tests.conftest import ChangeLimits
from tests.guard_counts import Counted
from tests.guarding import Counts, matching
from tests.limits import LIMITS

INFO = StreamInfo("s1", model="m", caller="ann")


class NoJudge:
    """A judge that nobody asks."""

    def now(self) -> float:
        return 0.0

    def ask(self, *_: object) -> Any:
        raise AssertionError


def words(name: str, *given: str, **values: Any) -> ActiveGuard:
    settings = GuardSettings(name, "words", words=given, **values)
    return ActiveGuard(settings, build(settings))


def emails(**values: Any) -> ActiveGuard:
    settings = GuardSettings("people", "pii", kinds=("email",), **values)
    return ActiveGuard(settings, build(settings))


def judged(name: str, action: Any, *, fails_open: bool = False) -> ActiveGuard:
    settings = GuardSettings(name, "http", action=action, judge=JudgeSettings(url="u", fails_open=fails_open))
    return ActiveGuard(settings, judge=NoJudge())


def check(texts: list[str], *guards: ActiveGuard, counts: Counted | None = None) -> InputCheck:
    made = InputCheck(guards, texts, INFO, counts or Counted())
    while not made.turn():
        pass
    return made


def test_texts_of_calls_get_no_placeholders_of_their_own() -> None:
    known = Placeholders()
    known.issue("email", "a@x.example")
    info = StreamInfo("s1", model="m", caller="ann", placeholders=known)
    counts = Counted()
    for placeholders, masked in ((info, "<EMAIL_1> [email]"), (INFO, "[email] [email]")):
        made = InputCheck([emails(restore=True)], ["a@x.example b@x.example"], placeholders, counts, "tool_result")
        assert made.turn()
        assert made.texts == [masked]
        assert [each["safety"]["on"] for each in made.said()] == ["tool_result"]
    assert len(known) == 1
    question = made.question(judged("hook", "stop"))
    assert (question.on, question.channel) == ("tool_result", "tool_call")


def said(made: InputCheck) -> list[tuple[str, str, str]]:
    through = made.let_through()
    events: Any = () if through is None else through.said
    return [(each["safety"]["guard"], each["safety"]["action"], each["safety"]["category"]) for each in events]


def test_each_guard_sees_what_the_one_before_let_through() -> None:
    counts = Counted()
    made = check(
        ["a kestrel, a Kestrel", "an owl", "none"],
        words("birds", "kestrel", replacement="owl"),
        words("watch", "owl", action="flag"),
        counts=counts,
    )
    assert made.texts == ["a owl, a owl", "an owl", "none"]
    assert (made.changed, made.masked) == ([0], {0})
    assert said(made) == [("birds", "mask", "words"), ("watch", "flag", "words")]
    assert counts.actions == [("birds", "input", "mask"), ("watch", "input", "flag")]


def test_nothing_found_is_nothing_said() -> None:
    made = check(["a", ""], words("birds", "kestrel"))
    assert (made.changed, made.let_through()) == ([], None)


def test_a_stop_refuses_the_request_and_is_audited() -> None:
    counts = Counted()
    with pytest.raises(Error) as refusal:
        check(["a kestrel"], words("birds", "kestrel", action="stop"), counts=counts)
    error = refusal.value
    assert (error.code, error.status, error.reason, error.guard) == ("content_filtered", 400, "guard", "birds")
    assert "kestrel" not in str(error)
    assert counts.actions == [("birds", "input", "stop")]
    assert counts.stops == [("birds", "input", "s1", "ann")]


def test_what_is_found_before_a_later_guard_refuses_is_counted() -> None:
    counts = Counted()
    before = words("birds", "kestrel"), emails(action="flag")
    with pytest.raises(Error):
        check(["a kestrel", "a@b.example, an owl"], *before, words("owls", "owl", action="stop"), counts=counts)
    assert counts.actions == [("birds", "input", "mask"), ("people", "input", "flag"), ("owls", "input", "stop")]
    counts = Counted()
    policy = judged("policy", "stop")
    made = check(["a kestrel"], *before, policy, counts=counts)
    with pytest.raises(Error):
        made.judged(policy, made.pieces(), [Failed("late", "late")])
    assert counts.actions == [("birds", "input", "mask")]


def test_placeholders_are_issued_over_all_texts_and_put_back_for_stores() -> None:
    texts = ["to a@b.example and c@d.example", "<EMAIL_1> kestrel", "a@b.example"]
    made = check(texts, words("birds", "kestrel"), emails(restore=True))
    assert made.texts == ["to <EMAIL_2> and <EMAIL_3>", "<EMAIL_1> [words]", "<EMAIL_2>"]
    assert (made.changed, made.masked) == ([0, 1, 2], {1})
    assert [made.own(place) for place in made.changed] == [texts[0], "<EMAIL_1> [words]", texts[2]]
    through = made.let_through()
    assert through is not None
    assert through.placeholders is not None
    assert len(through.placeholders) == 2


def test_a_match_without_a_placeholder_left_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    many = [f"a{number}@b.example" for number in range(LIMITS.placeholders + 1)]
    made = check(many, emails(restore=True))
    assert (made.texts[-2], made.texts[-1], made.masked) == (
        f"<EMAIL_{LIMITS.placeholders}>",
        "[email]",
        {LIMITS.placeholders},
    )


@pytest.mark.parametrize("text", ["", "a"])
def test_a_turn_has_a_bound_however_short_the_texts_are(text: str) -> None:
    texts = [text] * (LIMITS.slice // LIMITS.slice_text)
    made = InputCheck([words("birds", "kestrel")] * 4, [*texts, "a kestrel"], INFO, Counted())
    turns = 1
    while not made.turn():
        turns += 1
    assert turns >= 5
    assert made.texts[-1] == "a [words]"


def test_guards_share_the_steps_of_a_turn(change_limits: ChangeLimits) -> None:
    change_limits(turn_steps=2000)
    settings = GuardSettings("costly", "patterns", patterns=("a[ab]{100}c",))
    guards = [ActiveGuard(settings, build(settings)) for _ in range(8)]
    made = InputCheck(guards, ["".join(Random(1).choices("ab", k=60))], INFO, Counted())
    before, turns, is_over = 0, 0, False
    while not is_over:
        is_over = made.turn()
        steps = sum(each.automaton.steps for each in guards if each.automaton is not None)
        assert steps - before < 3000, "the last transition has as many as all of its groups"
        before, turns = steps, turns + 1
    assert turns > 3


def test_a_turn_has_a_bound_for_groups_of_one_place_each() -> None:
    settings = GuardSettings("cards", "pii", kinds=("card",))
    digits = " ".join(Random(1).choices("23456789", k=3000))
    made = InputCheck([ActiveGuard(settings, build(settings))], [digits], INFO, Counted())
    turns = 1
    while not made.turn():
        turns += 1
    assert turns >= 6


def test_a_turn_has_a_bound_and_matches_over_it_are_found() -> None:
    texts = ["x " * LIMITS.slice, "y" * (LIMITS.slice - 3) + " kestrel " + "z" * LIMITS.slice, "a", "b"]
    made = InputCheck([words("birds", "kestrel")], texts, INFO, Counted())
    turns = 1
    while not made.turn():
        turns += 1
    assert turns == 5
    assert made.texts[1] == texts[1].replace("kestrel", "[words]")


class TestJudges:
    def test_spans_and_pieces_are_masked_in_the_order_of_the_guards(self) -> None:
        first, second = judged("a", "mask"), judged("b", "mask")
        made = check(["bad one", "and two"], first, second)
        [(start, text)] = pieces = made.pieces()
        assert (start, text) == (0, "bad one\n\nand two")
        made.judged(second, pieces, [JudgeVerdict(True, "late", spans=((0, 3), (13, 16)))])
        made.judged(first, pieces, [JudgeVerdict(True, "rude", 0.5, ((0, 3),))])
        made.end()
        assert made.texts == ["[rude] one", "and [late]"]
        through = made.let_through()
        assert through is not None
        assert [dict(each["safety"]) for each in through.said] == [
            {"category": "rude", "action": "mask", "score": 0.5, "guard": "a", "on": "input"},
            {"category": "late", "action": "mask", "guard": "b", "on": "input"},
        ]

    def test_a_flag_changes_nothing_and_a_stop_refuses(self) -> None:
        flagging = judged("a", "flag")
        made = check(["bad"], flagging)
        made.judged(flagging, made.pieces(), [JudgeVerdict(True)])
        made.end()
        assert (made.changed, said(made)) == ([], [("a", "flag", "http")])
        stopping = judged("a", "stop")
        made = check(["bad"], stopping)
        with pytest.raises(Error, match="does not let this request through"):
            made.judged(stopping, made.pieces(), [JudgeVerdict(True)])

    def test_a_failure_refuses_or_is_a_warning(self) -> None:
        closed, counts = judged("a", "stop"), Counted()
        made = check(["x"], closed, counts=counts)
        with pytest.raises(Error) as refusal:
            made.judged(closed, made.pieces(), [Failed("late", "no verdict")])
        error = refusal.value
        assert (error.status, error.reason, error.guard, error.temporary) == (503, "guard_failed", "a", True)
        assert counts.failures == ["a"]
        opened = judged("a", "stop", fails_open=True)
        made = check(["x"], opened)
        made.judged(opened, made.pieces(), [Failed("late", "no verdict")])
        through = made.let_through()
        assert through is not None
        assert through.said == ({"type": "warning", "reason": "guard_failed", "guard": "a"},)


GROWING = ("token.{0,500}[a-f0-9]{20}",)
FITTING = "token abc token x0123456789abcdef" * 200


@pytest.mark.parametrize("first", ["flag", "mask"])
def test_a_guard_whose_search_takes_too_much_has_failed(first: Any, change_limits: ChangeLimits) -> None:
    """A flag is open then, and its texts pass with a warning; others are closed."""
    change_limits(request_steps=1000)
    counts = Counts()
    check = InputCheck([matching("patterns", patterns=GROWING, action=first)], [FITTING], INFO, counts)
    if first == "flag":
        while not check.turn():
            pass
        assert check.texts == [FITTING]
        let = check.let_through()
        assert let is not None
        assert [each["reason"] for each in let.said if each["type"] == "warning"] == ["guard_failed"]
    else:
        with pytest.raises(Error) as caught:
            while not check.turn():
                pass
        assert (caught.value.code, caught.value.reason) == ("provider_unavailable", "guard_failed")
    assert counts.all == [("failed", "names")]
