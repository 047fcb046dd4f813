"""`gai_fast/net/judges/judge.py`: places, times, the breaker and the end of questions, on a clock of the test's own."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import pytest

from gai_fast.guards.verdicts import Failed, JudgeVerdict, Question
from gai_fast.net.judges.judge import Answered, Ask, Judge, Way
from tests.unit.net.fakes import FakeTime

FINE = JudgeVerdict(False)
BUSY = Failed("status", "it answers with status 503")
REFUSED = Failed("status", "it answers with status 400", counts=False)


class HeldWay(Way):
    """A way whose answers come when the test says so."""

    def __init__(self) -> None:
        self.asked: list[tuple[Question, Answered, Callable[[], None]]] = []
        self.given_up: list[str] = []
        self.calls: list[str] = []

    def ask(self, question: Question, answered: Answered, freed: Callable[[], None]) -> Callable[[], None]:
        self.asked.append((question, answered, freed))
        return partial(self.give_up, self.asked[-1])

    def give_up(self, asked: tuple[Question, Answered, Callable[[], None]]) -> None:
        if asked in self.asked:
            self.asked.remove(asked)
            self.given_up.append(asked[0].text)
            asked[2]()

    def answer(self, answer: JudgeVerdict | Failed = FINE, at: int = 0) -> None:
        _, answered, freed = self.asked.pop(at)
        freed()
        answered(answer)

    @property
    def texts(self) -> list[str]:
        return [question.text for question, *_ in self.asked]

    def retire(self) -> None:
        self.calls.append("retire")

    async def close(self) -> None:
        self.calls.append("close")


class Bench:
    def __init__(self, timeout: float = 1.0, places: int = 256) -> None:
        self.time = FakeTime()
        self.way = HeldWay()
        self.way.places = places
        self.judge = Judge("policy", self.way, timeout, self.time, cast(Any, self.time))
        self.answers: list[tuple[str, JudgeVerdict | Failed]] = []

    def ask(self, text: str = "a", caller: str = "", ready: float | None = None) -> Ask:
        question = Question("policy", "output", "text", text, caller=caller)
        return self.judge.ask(question, lambda answer: self.answers.append((text, answer)), ready)

    @property
    def faults(self) -> list[str]:
        return [answer.fault for _, answer in self.answers if isinstance(answer, Failed)]

    def fail(self, times: int, failed: Failed = BUSY, caller: str = "") -> None:
        for _ in range(times):
            self.ask(caller=caller)
            self.way.answer(failed)
        self.answers.clear()


def test_a_question_gets_its_answer() -> None:
    bench = Bench()
    bench.ask()
    assert bench.judge.running == 1
    bench.way.answer(JudgeVerdict(True, "x"))
    assert bench.answers == [("a", JudgeVerdict(True, "x"))]
    assert (bench.judge.running, bench.judge.failures, bench.time.armed) == (0, 0, 0)


def test_a_judge_that_is_late_has_failed() -> None:
    bench = Bench(0.5)
    bench.ask()
    bench.time.advance(0.49)
    assert bench.answers == []
    bench.time.advance(0.01)
    assert bench.answers == [("a", Failed("late", "no verdict within 0.5 s (timeout)"))]
    assert bench.way.given_up == ["a"]
    assert bench.judge.failures == 1


def test_the_time_runs_from_when_the_text_was_ready() -> None:
    bench = Bench(1.0)
    bench.time.advance(5)
    bench.ask(ready=bench.judge.now() - 0.75)
    bench.time.advance(0.25)
    assert bench.faults == ["late"]


def test_the_lateness_of_a_question_that_waited_for_others_of_its_text_is_not_the_judges() -> None:
    """Two long texts by two callers would turn the guard off for everybody else."""
    bench = Bench(1.0)
    for _ in range(20):
        bench.ask(ready=bench.judge.now() - 0.9)
        bench.time.advance(0.1)
    assert bench.faults == ["late"] * 20
    bench.ask("b")
    bench.way.answer()
    assert bench.answers[-1] == ("b", FINE)
    for _ in range(20):
        bench.ask()
        bench.time.advance(1)
    assert "breaker" in bench.faults


def test_a_cancelled_question_gets_no_answer() -> None:
    bench = Bench()
    ask = bench.ask()
    ask.cancel()
    ask.cancel()
    bench.time.advance(10)
    assert (bench.answers, bench.way.given_up, bench.time.armed) == ([], ["a"], 0)


def test_an_answer_after_the_time_counts_for_nothing() -> None:
    bench = Bench()
    bench.ask()
    late = bench.way.asked[0][1]
    bench.time.advance(1)
    late(FINE)
    late(FINE)
    assert bench.faults == ["late"]


def test_there_are_so_many_questions_and_others_wait_within_their_time() -> None:
    bench = Bench(places=2)
    for text in "abcde":
        bench.ask(text)
    assert (bench.judge.running, bench.judge.waiting) == (2, 3)
    bench.way.answer()
    assert bench.way.texts == ["b", "c"]
    bench.time.advance(1)
    assert [text for text, _ in bench.answers] == ["a", "b", "c", "d", "e"]
    assert bench.faults == ["late"] * 4
    assert (bench.judge.running, bench.judge.waiting, bench.time.armed) == (0, 0, 0)


def test_a_caller_has_half_of_the_places_and_callers_take_turns() -> None:
    bench = Bench(places=4)
    for text in ("a1", "a2", "a3", "a4", "a5"):
        bench.ask(text, caller="anna")
    for text in ("b1", "b2", "b3"):
        bench.ask(text, caller="bert")
    bench.ask("c1", caller="carl")
    assert bench.way.texts == ["a1", "a2", "b1", "b2"]
    assert (bench.judge.running, bench.judge.waiting) == (4, 5)
    bench.way.answer(at=2)
    assert bench.way.texts == ["a1", "a2", "b2", "b3"]
    bench.way.answer()
    assert bench.way.texts == ["a2", "b2", "b3", "a3"], "its turn came before"
    bench.way.answer(at=1)
    assert bench.way.texts == ["a2", "b3", "a3", "c1"]


def test_a_caller_whose_questions_hang_takes_no_verdict_from_another() -> None:
    bench = Bench(places=4)
    for _ in range(50):
        bench.ask("a", caller="anna")
    for _ in range(50):
        bench.ask("b", caller="bert")
        bench.way.answer(at=-1)
    assert [answer for _, answer in bench.answers] == [FINE] * 50
    bench.time.advance(1)
    bench.ask("b", caller="bert")
    assert bench.way.texts == ["b"], "nor has it opened the breaker for another"


def test_without_keys_there_is_one_caller() -> None:
    bench = Bench(places=4)
    for text in "abcde":
        bench.ask(text)
    assert bench.way.texts == ["a", "b", "c", "d"]


def test_a_judge_with_one_place_serves_each_caller() -> None:
    bench = Bench(places=1)
    bench.ask("a", caller="anna")
    assert bench.way.texts == ["a"]


def test_a_question_that_waits_can_be_cancelled() -> None:
    bench = Bench(places=1)
    bench.ask("a")
    waiting = bench.ask("b")
    bench.ask("c")
    waiting.cancel()
    bench.way.answer()
    bench.way.answer()
    assert [text for text, _ in bench.answers] == ["a", "c"]


# ---- the breaker -----------------------------------------------------------------------------------------------------


def test_a_judge_that_fails_is_not_asked_for_a_while() -> None:
    bench = Bench()
    bench.fail(5)
    bench.ask()
    assert bench.answers == [], "in a later turn of the loop"
    bench.time.advance(0)
    assert (bench.faults, bench.way.asked) == (["breaker"], [])
    bench.time.advance(10)
    bench.ask("probe")
    bench.ask("beside it")
    bench.time.advance(0)
    assert bench.way.texts == ["probe"]
    bench.way.answer()
    bench.ask()
    assert len(bench.way.asked) == 1


def test_a_probe_that_is_late_opens_the_breaker_again() -> None:
    bench = Bench()
    bench.fail(5)
    bench.time.advance(10)
    bench.ask()
    bench.time.advance(1)
    bench.ask()
    bench.time.advance(0)
    assert bench.faults == ["late", "breaker"]


def test_a_probe_that_is_cancelled_lets_another_one_through() -> None:
    bench = Bench()
    bench.fail(5)
    bench.time.advance(10)
    bench.ask().cancel()
    bench.ask()
    assert len(bench.way.asked) == 1


def test_refused_texts_do_not_open_it() -> None:
    """A caller's texts may be what the judge refuses."""
    bench = Bench()
    bench.fail(20, REFUSED)
    bench.ask()
    assert len(bench.way.asked) == 1


def test_failures_of_this_process_do_not_open_it() -> None:
    bench = Bench()
    bench.fail(20, Failed("network", "no descriptor is free", counts=False))
    bench.ask()
    assert len(bench.way.asked) == 1


def test_one_callers_failures_do_not_open_it_for_the_others() -> None:
    bench = Bench()
    bench.fail(9, caller="anna")
    bench.ask(caller="bert")
    assert len(bench.way.asked) == 1
    bench.way.answer(BUSY)
    bench.ask(caller="anna")
    bench.time.advance(0)
    assert bench.faults == ["status", "breaker"]


def test_a_question_that_was_not_asked_says_nothing_of_the_judge() -> None:
    bench = Bench(places=1)
    bench.ask("a", caller="anna")
    for caller in ("bert", "carl") * 10:
        bench.ask("b", caller=caller)
    bench.time.advance(1)
    bench.ask("c", caller="carl")
    assert bench.way.texts == ["c"]


def test_while_the_breaker_is_open_no_question_waits_for_a_place() -> None:
    bench = Bench(places=1)
    bench.fail(5)
    bench.time.advance(10)
    bench.ask("probe")
    bench.ask("b")
    bench.time.advance(0)
    assert (bench.faults, bench.judge.waiting) == (["breaker"], 0)


def test_what_waited_is_refused_once_the_breaker_opens() -> None:
    bench = Bench(places=1)
    bench.fail(4)
    for text in "abc":
        bench.ask(text)
    bench.way.answer(BUSY)
    assert bench.way.texts == ["b"], "its place is free before its failure counts"
    bench.way.answer(BUSY)
    bench.time.advance(0)
    assert bench.faults == ["status", "status", "breaker"]
    assert bench.way.asked == []


# ---- the log and the end ---------------------------------------------------------------------------------------------


def test_failures_are_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    with caplog.at_level(logging.WARNING, "gai_fast.guards"):
        bench.fail(3)
        bench.time.advance(60)
        bench.fail(1)
    assert [record.getMessage() for record in caplog.records] == [
        "guard 'policy': the judge has failed (1): it answers with status 503",
        "guard 'policy': the judge has failed (3): it answers with status 503",
    ]


async def test_the_end_fails_all_questions(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(places=1)
    bench.ask("a")
    bench.ask("b")
    await bench.judge.close()
    assert sorted(text for text, _ in bench.answers) == ["a", "b"]
    assert bench.faults == ["closed"] * 2
    assert (bench.way.calls, bench.way.given_up, bench.time.armed) == (["close"], ["a"], 0)
    assert caplog.records == []
    bench.ask("c")
    bench.time.advance(0)
    assert bench.faults == ["closed"] * 3


def test_a_former_judge_keeps_nothing_ready() -> None:
    bench = Bench()
    bench.judge.retire()
    assert bench.way.calls == ["retire"]
