"""`net/runs/guards.py`: where the texts of a call stand, and what follows if a guard does not let them through."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gai_fast.core.processing.processor import StreamInfo
from gai_fast.core.run import CallResult, RunCall, RunTool
from gai_fast.guards.active import ActiveGuard
from gai_fast.guards.building import build
from gai_fast.model.settings import GuardSettings, JudgeSettings
from gai_fast.net.judges.input_check import InputChecks
from gai_fast.net.runs.guards import RunGuards
from tests.guard_counts import Counted
from tests.limits import LIMITS

WORD = "kestrel"


def words(action: Any = "mask", **values: Any) -> ActiveGuard:
    settings = GuardSettings(
        "birds",
        "words",
        words=(WORD,),
        action=action,
        on=("tool_input", "tool_result"),
        **{"replacement": "[x]", **values},
    )
    return ActiveGuard(settings, build(settings))


class Place:
    """The guards of a run, and what they have said."""

    def __init__(self, *guards: ActiveGuard) -> None:
        self.said: list[Any] = []
        self.counts = Counted()
        checks = InputChecks(self.counts)
        self.guards = RunGuards(guards, StreamInfo("s1"), self.counts, checks.run, self.said.extend)

    def result(self, value: Any, **more: Any) -> CallResult:
        return asyncio.run(self.guards.result(CallResult(value, duration_ms=7, **more)))

    def arguments(self, value: Any) -> tuple[Any, CallResult | None]:
        return asyncio.run(self.guards.arguments(RunCall("a", "t", value, 1, 0, RunTool("t"))))


def deep(levels: int) -> Any:
    value: Any = WORD
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "let"),
    [
        (WORD, "[x]"),
        ({WORD: [WORD, 1, None, True, 1.5, 2**70]}, {"[x]": ["[x]", 1, None, True, 1.5, 2**70]}),
        ("a\\u006bestrel", "a\\u006bestrel"),
        ({"a": 'quoted "kestrel" \\ é\n'}, {"a": 'quoted "[x]" \\ é\n'}),
        ([], []),
        (None, None),
        (7, 7),
    ],
)
def test_texts_are_strings_and_keys(value: Any, let: Any) -> None:
    assert Place(words()).result(value) == CallResult(let, duration_ms=7)
    assert Place(words()).arguments(value) == (let, None)


def test_what_is_not_changed_is_the_same_value() -> None:
    value = {"a": ["owl", 1]}
    place = Place(words())
    assert place.result(value).value is value
    assert place.arguments(value)[0] is value
    assert place.said == []


def test_a_value_that_is_long_is_read_beside_the_loop() -> None:
    value = [f"{WORD} {number}" for number in range(LIMITS.tool_texts // 10)]
    assert Place(words()).result(value).value == [f"[x] {number}" for number in range(len(value))]


def test_a_value_that_is_too_deep_is_one_text() -> None:
    assert WORD not in str(Place(words()).result(deep(900)).value)


def test_a_number_that_json_has_no_form_for_is_an_error() -> None:
    result = Place(words()).result([float("inf"), WORD])
    assert (result.is_error, WORD in str(result.value), result.duration_ms) == (True, False, 7)


def test_parts_that_are_texts_are_seen_and_others_stay() -> None:
    image = {"type": "image", "data": "a2VzdHJlbA==", "media_type": "image/png"}
    parts = ({"type": "text", "text": f"a {WORD}"}, image, {"type": "text", "text": "owl"})
    let = Place(words()).result({"b": 1}, parts=parts)
    assert let.parts == ({"type": "text", "text": "a [x]"}, image, parts[2])
    assert let.value == {"b": 1}


def test_an_error_stays_one_and_keeps_its_bound() -> None:
    let = Place(words(replacement="[a bird]")).result(f"{WORD} " * 250, is_error=True, fault="timeout")
    assert (let.is_error, let.fault, len(let.value), let.is_truncated) == (True, "timeout", LIMITS.tool_problem, True)


def test_a_stop_names_the_guard_and_says_so() -> None:
    place = Place(words("stop"))
    text = "the call was made, and the guard 'birds' does not let its result through"
    assert place.result(WORD) == CallResult(text, is_error=True, duration_ms=7)
    value, problem = place.arguments({"q": WORD})
    assert (value, problem is not None) == ({"q": WORD}, True)
    said = [(each["safety"]["action"], each["safety"]["on"]) for each in place.said]
    assert said == [("stop", "tool_result"), ("stop", "tool_input")]


def test_progress_waits_for_nothing() -> None:
    assert Place(words()).guards.progress(f"a {WORD}") == "a [x]"
    assert Place(words("stop")).guards.progress(f"a {WORD}") == ""
    assert Place(words("flag")).guards.progress(f"a {WORD}") == f"a {WORD}"
    assert Place(words()).guards.progress("") == ""
    long = "a" * LIMITS.slice + WORD
    assert Place(words()).guards.progress(long) == ""
    judge = GuardSettings("hook", "http", on=("tool_result",), action="flag", judge=JudgeSettings(url="u"))
    asked: Any = object()
    assert Place(ActiveGuard(judge, judge=asked)).guards.progress("an owl") == ""
    of_input = ActiveGuard(GuardSettings("of-input", "words", on=("tool_input",)))
    assert Place(of_input).guards.progress(WORD) == WORD
